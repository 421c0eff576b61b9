/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: acquiring mutex 'driver_class' that is already held */
#include "common.h"

void test(State *s, State *other);

void test(State *s, State *other)
{
    driver_lock(&s->lock);
    driver_lock(&other->lock);
    driver_unlock(&other->lock);
    driver_unlock(&s->lock);
}
