/*
 * Tests of the linux-aio engine.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "engine-tests.h"

static const EngineTest laio_test = {
    .name = "native",
    .available = laio_available,
    .get_stats = laio_get_stats,
};

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    engine_add_tests(&laio_test);
    return fake_finish();
}
