/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: mutex 'driver_class' is not held on every path */
#include "common.h"

bool test(State *s);

bool test(State *s)
{
    driver_lock(&s->lock);
    if (s->value < 0) {
        return false;
    }
    driver_unlock(&s->lock);
    return true;
}
