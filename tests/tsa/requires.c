/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: function 'add_locked' requires holding mutex 'driver_class' */
#include "common.h"

void test(State *s);

void test(State *s)
{
    use(add_locked(s, 1));
}
