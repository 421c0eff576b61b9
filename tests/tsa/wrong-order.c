/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: mutex 'gate_class' must be acquired before 'driver_class' */
#include "common.h"

void test(State *s, GateLock *gate);

void test(State *s, GateLock *gate)
{
    driver_lock(&s->lock);
    gate_lock(gate);
    gate_unlock(gate);
    driver_unlock(&s->lock);
}
