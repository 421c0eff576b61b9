/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: calling function 'driver_wait' requires holding mutex */
#include "common.h"

void test(State *s);

void test(State *s)
{
    driver_wait(&s->cond, &s->lock);
}
