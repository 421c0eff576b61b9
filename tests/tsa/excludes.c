/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: cannot call function 'submit' while mutex 'driver_class' is held */
#include "common.h"

void test(State *s);

void test(State *s)
{
    driver_lock(&s->lock);
    submit(s);
    driver_unlock(&s->lock);
}
