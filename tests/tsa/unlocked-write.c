/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: writing variable 'value' requires holding mutex 'driver_class' */
#include "common.h"

void test(State *s);

void test(State *s)
{
    driver_lock(&s->lock);
    driver_unlock(&s->lock);
    s->value = 1;
}
