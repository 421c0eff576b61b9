/*
 * qcow2: the compressed clusters that were inflated last.
 *
 * Who reads a compressed cluster a little at a time would inflate all of it for
 * each little.  So what came out is kept, for the last few clusters of an
 * image; a request for a whole one goes past all this.
 *
 * A cluster is known by its descriptor, that is, by where its bytes are in the
 * file.  Those do not change before they are freed, by the rules for frees:
 * whoever looked the descriptor up holds a pin from before the look-up until it
 * has put here what it read, and no refcount becomes 0, so that the place could
 * be used for something else, before all such pins are gone.  At that moment,
 * and no sooner, what is here of the place is forgotten: nobody can add it
 * again.
 *
 * An entry is filled by the one who asked first; others wait for it (holding
 * pins, but for nothing else than its read).  It has a count of users, so that
 * data is copied without the lock, and a forgotten or replaced entry lives on
 * for those who have it.  So there are as many as slots, and one a request at
 * most.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"

/* Kept at once: clusters of so many bytes together, but at least two. */
#define KEEP_BYTES (512 * KiB)
#define MAX_SLOTS 16

struct Qcow2InflatedCluster {
    /* Constant. */
    uint64_t l2_entry;
    int64_t host, end;              /* in the file */
    /* Under the lock. */
    unsigned users;                 /* one of them is its slot */
    bool ready;
    int ret;                        /* when it is: 0, or data is none */
    /* By who fills it; then constant. */
    uint8_t data[];
};

struct Qcow2Inflated {
    unsigned n_slots;               /* constant */
    LeafLock lock;
    QemuCond ready;                 /* an entry has become */
    /* The one that was used last comes first; NULL: none from here on. */
    Qcow2InflatedCluster *slots[MAX_SLOTS] GUARDED_BY(leaf_class);
};

Qcow2Inflated *qcow2_inflated_new(int64_t cluster_size)
{
    Qcow2Inflated *c = g_new0(Qcow2Inflated, 1);

    c->n_slots = CLAMP(KEEP_BYTES / cluster_size, 2, MAX_SLOTS);
    leaf_init(&c->lock);
    qemu_cond_init(&c->ready);
    return c;
}

static void REQUIRES(leaf_class) unref_locked(Qcow2InflatedCluster *e)
{
    if (--e->users == 0) {
        g_free(e);
    }
}

void qcow2_inflated_free(Qcow2Inflated *c)
{
    if (c) {
        leaf_lock(&c->lock);
        for (unsigned i = 0; i < c->n_slots && c->slots[i]; i++) {
            assert(c->slots[i]->users == 1);
            unref_locked(c->slots[i]);
        }
        leaf_unlock(&c->lock);
        qemu_cond_destroy(&c->ready);
        leaf_destroy(&c->lock);
        g_free(c);
    }
}

/* ---- Slots ---- */

static void REQUIRES(leaf_class) remove_locked(Qcow2Inflated *c, unsigned i)
{
    unref_locked(c->slots[i]);
    memmove(&c->slots[i], &c->slots[i + 1],
            (c->n_slots - 1 - i) * sizeof(c->slots[0]));
    c->slots[c->n_slots - 1] = NULL;
}

static void REQUIRES(leaf_class) put_first_locked(Qcow2Inflated *c,
                                                  Qcow2InflatedCluster *e)
{
    if (c->slots[c->n_slots - 1]) {
        remove_locked(c, c->n_slots - 1);
    }
    memmove(&c->slots[1], &c->slots[0],
            (c->n_slots - 1) * sizeof(c->slots[0]));
    c->slots[0] = e;
    e->users++;
}

/* It is the first one then. */
static Qcow2InflatedCluster *REQUIRES(leaf_class)
find_locked(Qcow2Inflated *c, uint64_t l2_entry)
{
    for (unsigned i = 0; i < c->n_slots && c->slots[i]; i++) {
        Qcow2InflatedCluster *e = c->slots[i];

        if (e->l2_entry == l2_entry) {
            memmove(&c->slots[1], &c->slots[0], i * sizeof(c->slots[0]));
            c->slots[0] = e;
            return e;
        }
    }
    return NULL;
}

static Qcow2InflatedCluster *entry_new(const BDRVQcow2State *s,
                                       uint64_t l2_entry)
{
    Qcow2InflatedCluster *e = g_try_malloc(sizeof(*e) + s->cluster_size);
    int bytes;

    if (e) {
        *e = (Qcow2InflatedCluster){ .l2_entry = l2_entry, .users = 1 };
        qcow2_parse_compressed(s, l2_entry, &e->host, &bytes);
        e->end = e->host + bytes;
    }
    return e;
}

/* ---- Requests ---- */

int qcow2_inflated_get(BDRVQcow2State *s, uint64_t l2_entry,
                       Qcow2InflatedCluster **entry, bool *fill)
{
    Qcow2Inflated *c = s->inflated;
    Qcow2InflatedCluster *e;
    int ret = 0;

    leaf_lock(&c->lock);
    e = find_locked(c, l2_entry);
    *fill = !e;
    if (e) {
        e->users++;
        while (!e->ready) {
            leaf_wait(&c->ready, &c->lock);
        }
        ret = e->ret;
    } else {
        e = entry_new(s, l2_entry);
        if (e) {
            put_first_locked(c, e);
        } else {
            ret = -ENOMEM;
        }
    }
    if (e && ret < 0) {
        unref_locked(e);
    }
    leaf_unlock(&c->lock);
    *entry = e;
    return ret;
}

bool qcow2_inflated_peek(BDRVQcow2State *s, uint64_t l2_entry,
                         Qcow2InflatedCluster **entry)
{
    Qcow2Inflated *c = s->inflated;
    Qcow2InflatedCluster *e;

    if (!leaf_trylock(&c->lock)) {
        return false;
    }
    e = find_locked(c, l2_entry);
    if (e && e->ready) {
        e->users++;
        *entry = e;
    } else {
        e = NULL;
    }
    leaf_unlock(&c->lock);
    return e;
}

uint8_t *qcow2_inflated_data(Qcow2InflatedCluster *e)
{
    return e->data;
}

void qcow2_inflated_filled(BDRVQcow2State *s, Qcow2InflatedCluster *e, int ret)
{
    Qcow2Inflated *c = s->inflated;

    leaf_lock(&c->lock);
    e->ret = ret;
    e->ready = true;
    /* Those who wait share the failure; who comes later tries again. */
    for (unsigned i = 0; ret < 0 && i < c->n_slots; i++) {
        if (c->slots[i] == e) {
            remove_locked(c, i);
            break;
        }
    }
    qemu_cond_broadcast(&c->ready);
    leaf_unlock(&c->lock);
}

void qcow2_inflated_put(BDRVQcow2State *s, Qcow2InflatedCluster *e)
{
    leaf_lock(&s->inflated->lock);
    unref_locked(e);
    leaf_unlock(&s->inflated->lock);
}

void qcow2_inflated_forget(BDRVQcow2State *s, int64_t offset, int64_t bytes)
{
    Qcow2Inflated *c = s->inflated;
    unsigned i = 0;

    leaf_lock(&c->lock);
    while (i < c->n_slots && c->slots[i]) {
        if (c->slots[i]->host < offset + bytes && offset < c->slots[i]->end) {
            remove_locked(c, i);
        } else {
            i++;
        }
    }
    leaf_unlock(&c->lock);
}
