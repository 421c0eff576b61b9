/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that is allowed: the one file here that must compile. */
#include "common.h"

static LeafLock leaf;

int add_locked(State *s, int n)
{
    s->value += n;
    return s->value;
}

void submit(State *s)
{
    driver_lock(&s->lock);
    use(add_locked(s, 1));
    driver_unlock(&s->lock);
}

static int add_waiting(State *s, GateLock *gate)
{
    int value;

    gate_lock(gate);
    driver_lock(&s->lock);
    while (s->value == 0) {
        driver_wait(&s->cond, &s->lock);
    }
    leaf_lock(&leaf);
    value = s->value;
    leaf_unlock(&leaf);
    driver_unlock(&s->lock);
    gate_unlock(gate);
    return value;
}

static bool try_add(State *s)
{
    if (!driver_trylock(&s->lock)) {
        return false;
    }
    s->value++;
    driver_unlock(&s->lock);
    submit(s);
    return true;
}

void use_all(State *s, GateLock *gate);

void use_all(State *s, GateLock *gate)
{
    use(add_waiting(s, gate));
    use(try_add(s));
}
