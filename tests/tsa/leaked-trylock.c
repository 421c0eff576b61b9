/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: mutex 'driver_class' is not held on every path */
#include "common.h"

bool test(State *s);

bool test(State *s)
{
    if (!driver_trylock(&s->lock)) {
        return false;
    }
    s->value++;
    return true;
}
