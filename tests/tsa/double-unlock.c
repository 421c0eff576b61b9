/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: releasing mutex 'driver_class' that was not held */
#include "common.h"

void test(State *s);

void test(State *s)
{
    driver_lock(&s->lock);
    driver_unlock(&s->lock);
    driver_unlock(&s->lock);
}
