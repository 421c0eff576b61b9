/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: requires holding mutex 'driver_class' */
#include "common.h"

void test(State *s, GateLock *gate);

void test(State *s, GateLock *gate)
{
    gate_lock(gate);
    s->value++;
    gate_unlock(gate);
}
