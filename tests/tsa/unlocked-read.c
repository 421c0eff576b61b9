/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: reading variable 'value' requires holding mutex 'driver_class' */
#include "common.h"

void test(State *s);

void test(State *s)
{
    use(s->value);
}
