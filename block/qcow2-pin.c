/*
 * qcow2: pins, which keep freed clusters as they are while requests use them,
 * and grace periods, which say when all pins of a time are gone.
 *
 * A pin counts itself in on one of two counters, the current one, before it
 * looks anything up.  The counters are split into shards, a cache line each, so
 * that threads do not share one; a pin remembers shard and counter, and whoever
 * drops it counts out the same.
 *
 * A grace period starts after a table was changed.  It is over when each shard
 * of each counter has been seen at zero since, not necessarily at one time: a
 * pin that existed at the start holds its shard above zero until it is dropped,
 * and one that counted itself in after the zero was seen looks up later than
 * that, so it finds the changed table.
 *
 * "Looks up later" is by these operations being read-modify-writes of one word:
 * either the pin's comes first, and the zero is not seen; or the look at zero
 * does (it adds 0, a write), and the pin's sees all that came before it, the
 * table's change included.
 *
 * Under load the current counter never gets to zero.  So it changes when the
 * other one is at zero, and then drains.  A thread may have read "current" long
 * ago and count itself into the other one now: that is why both counters have
 * to be seen at zero, and harms nothing else.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "qcow2.h"
#include "qemu/atomic.h"

typedef struct PinShard {
    unsigned count[2];                  /* atomic */
} __attribute__((aligned(64))) PinShard;

struct Qcow2Pins {
    PinShard shards[QCOW2_PIN_SHARDS];
    unsigned current __attribute__((aligned(64)));  /* atomic; 0 or 1 */
};

Qcow2Pins *qcow2_pins_new(void)
{
    Qcow2Pins *pins = qemu_try_memalign(64, sizeof(*pins));

    if (pins) {
        memset(pins, 0, sizeof(*pins));
    }
    return pins;
}

void qcow2_pins_free(Qcow2Pins *pins)
{
    qemu_vfree(pins);
}

/* Threads hardly ever share a shard. */
static unsigned my_shard(void)
{
    static __thread unsigned shard;     /* plus 1; 0: not chosen */
    static unsigned next_shard;

    if (unlikely(!shard)) {
        shard = 1 + qatomic_fetch_inc(&next_shard) % QCOW2_PIN_SHARDS;
    }
    return shard - 1;
}

/* A pin is the address of its shard's counter. */
uintptr_t qcow2_pin(BDRVQcow2State *s)
{
    unsigned which = qatomic_read(&s->pins->current);
    unsigned *count = &s->pins->shards[my_shard()].count[which];

    qatomic_inc(count);
    return (uintptr_t)count;
}

void qcow2_unpin(BDRVQcow2State *s, uintptr_t pin)
{
    qcow2_unpin_request_pin((void *)pin);
}

void qcow2_unpin_request_pin(void *pin)
{
    unsigned old = qatomic_fetch_dec((unsigned *)pin);

    assert(old > 0);
}

void qcow2_grace_start(BDRVQcow2State *s, Qcow2Grace *grace)
{
    grace->waiting[0] = grace->waiting[1] = UINT16_MAX;
    G_STATIC_ASSERT(QCOW2_PIN_SHARDS == 16);
}

/* A look that counts: see the top. */
static bool see_zero(unsigned *count)
{
    return qatomic_read(count) == 0 && qatomic_fetch_add(count, 0) == 0;
}

static void look(Qcow2Pins *pins, Qcow2Grace *grace, unsigned which)
{
    for (unsigned i = 0; i < QCOW2_PIN_SHARDS; i++) {
        if ((grace->waiting[which] & (1u << i)) &&
            see_zero(&pins->shards[i].count[which])) {
            grace->waiting[which] &= ~(1u << i);
        }
    }
}

static bool is_zero_now(Qcow2Pins *pins, unsigned which)
{
    for (unsigned i = 0; i < QCOW2_PIN_SHARDS; i++) {
        if (qatomic_read(&pins->shards[i].count[which])) {
            return false;
        }
    }
    return true;
}

bool qcow2_grace_over(BDRVQcow2State *s, Qcow2Grace *grace)
{
    Qcow2Pins *pins = s->pins;
    unsigned current = qatomic_read(&pins->current);

    look(pins, grace, 0);
    look(pins, grace, 1);
    if (grace->waiting[current] && is_zero_now(pins, !current)) {
        qatomic_set(&pins->current, !current);
    }
    return !grace->waiting[0] && !grace->waiting[1];
}
