/*
 * Files and guest memory that are registered with rings.
 *
 * A ring that knows a file need not look it up and count a reference for each
 * request; one that knows a buffer need not find and pin its pages.  Both are
 * registered by a ring's own thread (the kernel wants it so), when a request
 * first needs them.
 *
 * The other side is letting go.  A ring keeps a registered file open, with its
 * locks, and a registered buffer pinned.  So whoever closes a file or takes
 * memory away marks it, asks every ring that has it to sync, and waits.  A
 * loop that is running answers soon.  One that no thread runs cannot answer,
 * nor can anybody else in its place; then what was registered goes when
 * somebody runs it again, or with the ring.  (A file's locks are dropped
 * explicitly.)  So that a loop which is stuck, perhaps on the one that waits
 * here, stops nobody for ever, the wait is bounded.
 *
 * Registered memory must stay where it is: somebody who announces a buffer
 * promises not to take pages out of it (a balloon would make the guest see
 * other pages than the device).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/block-backend.h"
#include "io_uring.h"

/* The kernel takes at most this in one buffer. */
#define BUF_CHUNK (1 * GiB)
#define SYNC_TIMEOUT_NS (5 * INT64_C(1000000000))
/* How often to see whether the loop still has an owner. */
#define SYNC_SLICE_NS (10 * INT64_C(1000000))

typedef struct UringRegion {
    uint64_t id;                /* not used again, unlike addresses */
    void *host;
    size_t size;
    unsigned users;
    ListNode node;
} UringRegion;

static LeafLock uring_registry_lock = { .mutex = QEMU_MUTEX_INITIALIZER };
/* Some ring's sync_done has changed; made with the first ring. */
static QemuCond uring_sync_cond;
static List uring_rings GUARDED_BY(leaf_class) = LIST_INITIALIZER(uring_rings);
static List uring_regions GUARDED_BY(leaf_class) =
    LIST_INITIALIZER(uring_regions);
static uint64_t uring_last_id GUARDED_BY(leaf_class);
/* Counts changes of uring_regions; atomic, changed under the lock. */
static uint64_t uring_regions_generation;

/* ---- Files ---- */

/* A free slot that is @serial's from now on, or -1. */
static int take_slot(Uring *u, uint64_t serial)
{
    int slot = -1;

    leaf_lock(&uring_registry_lock);
    for (int i = 0; i < URING_FILES && slot < 0; i++) {
        if (u->files[i].serial == 0) {
            u->files[i].serial = serial;
            slot = i;
        }
    }
    leaf_unlock(&uring_registry_lock);
    return slot;
}

static int find_slot(Uring *u, uint64_t serial)
{
    int slot = -1;

    leaf_lock(&uring_registry_lock);
    for (int i = 0; i < URING_FILES && slot < 0; i++) {
        if (u->files[i].serial == serial) {
            slot = i;
        }
    }
    leaf_unlock(&uring_registry_lock);
    return slot;
}

static void free_slot(Uring *u, int slot)
{
    leaf_lock(&uring_registry_lock);
    u->files[slot] = (UringFile){};
    leaf_unlock(&uring_registry_lock);
}

int uring_file_slot(Uring *u, const FileHandle *h)
{
    int slot, fd = h->fd;

    if (likely(u->last_serial == h->serial)) {
        return u->last_slot;
    }
    if (!u->has_file_table) {
        return -1;
    }
    slot = find_slot(u, h->serial);
    if (slot < 0) {
        slot = take_slot(u, h->serial);
        if (slot >= 0 &&
            io_uring_register_files_update(&u->ring, slot, &fd, 1) != 1) {
            free_slot(u, slot);
            slot = -1;
        }
    }
    u->last_serial = h->serial;
    u->last_slot = slot;
    return slot;
}

static void drop_dead_files(Uring *u)
{
    for (int i = 0; i < URING_FILES; i++) {
        bool dead;
        int none = -1;

        leaf_lock(&uring_registry_lock);
        dead = u->files[i].dead;
        leaf_unlock(&uring_registry_lock);
        if (dead) {
            io_uring_register_files_update(&u->ring, i, &none, 1);
            free_slot(u, i);
        }
    }
}

/* ---- Buffers ---- */

/*
 * All regions in chunks that the kernel takes; the generation they are of.
 * From here on the ring is asked to sync when one is taken away.
 */
static uint64_t snapshot_regions(Uring *u, UringBuf *chunks, int *n)
{
    uint64_t generation;
    UringRegion *r;

    *n = 0;
    leaf_lock(&uring_registry_lock);
    u->uses_bufs = true;
    generation = qatomic_read(&uring_regions_generation);
    list_for_each(r, &uring_regions, node) {
        for (size_t at = 0; at < r->size && *n < URING_BUFS;
             at += BUF_CHUNK) {
            chunks[(*n)++] = (UringBuf){
                .region = r->id,
                .iov.iov_base = (char *)r->host + at,
                .iov.iov_len = MIN(r->size - at, (size_t)BUF_CHUNK),
            };
        }
    }
    leaf_unlock(&uring_registry_lock);
    return generation;
}

static bool has_chunk(const UringBuf *list, int n, const UringBuf *c)
{
    for (int i = 0; i < n; i++) {
        if (list[i].region == c->region &&
            list[i].iov.iov_base == c->iov.iov_base) {
            return true;
        }
    }
    return false;
}

/* Make slot @i hold @chunk, or nothing if the kernel refuses (RLIMIT_MEMLOCK:
 * requests then go without). */
static void set_buf(Uring *u, int i, UringBuf chunk)
{
    __u64 tag = 0;

    if (io_uring_register_buffers_update_tag(&u->ring, i, &chunk.iov, &tag,
                                             1) == 1) {
        u->bufs[i] = chunk;
    } else {
        u->bufs[i] = (UringBuf){};
    }
}

static void sync_bufs(Uring *u)
{
    UringBuf chunks[URING_BUFS];
    int n, slot = 0;

    if (!u->has_buf_table) {
        return;
    }
    u->bufs_generation = snapshot_regions(u, chunks, &n);
    for (int i = 0; i < URING_BUFS; i++) {
        if (u->bufs[i].iov.iov_len && !has_chunk(chunks, n, &u->bufs[i])) {
            set_buf(u, i, (UringBuf){});
        }
    }
    for (int i = 0; i < n; i++) {
        if (has_chunk(u->bufs, URING_BUFS, &chunks[i])) {
            continue;
        }
        while (slot < URING_BUFS && u->bufs[slot].iov.iov_len) {
            slot++;
        }
        if (slot < URING_BUFS) {
            set_buf(u, slot, chunks[i]);
        }
    }
}

int uring_buf_slot(Uring *u, const struct iovec *iov)
{
    const char *start = iov->iov_base;
    const char *end = start + iov->iov_len;

    if (unlikely(u->bufs_generation !=
                 qatomic_load_acquire(&uring_regions_generation))) {
        sync_bufs(u);
    }
    for (int i = 0; i < URING_BUFS; i++) {
        const char *base = u->bufs[i].iov.iov_base;

        if (base && base <= start && end <= base + u->bufs[i].iov.iov_len) {
            return i;
        }
    }
    return -1;
}

/* ---- Letting go ---- */

/* Ring's thread: make the ring's tables as they should be. */
static void uring_sync(Uring *u)
{
    uint64_t wanted;

    leaf_lock(&uring_registry_lock);
    wanted = u->sync_wanted;
    leaf_unlock(&uring_registry_lock);

    drop_dead_files(u);
    /* A ring that never used a registered buffer does not begin now. */
    if (u->bufs_generation) {
        sync_bufs(u);
    }

    leaf_lock(&uring_registry_lock);
    u->sync_done = wanted;
    qemu_cond_broadcast(&uring_sync_cond);
    leaf_unlock(&uring_registry_lock);
}

static void uring_sync_bh(void *opaque)
{
    uring_sync(opaque);
}

static Uring *REQUIRES(leaf_class) find_ring_locked(uint64_t id)
{
    Uring *u;

    list_for_each(u, &uring_rings, node) {
        if (u->id == id) {
            return u;
        }
    }
    return NULL;
}

/* Wait until ring @id has synced, is gone, or cannot sync. */
static void REQUIRES(leaf_class) wait_synced_locked(uint64_t id,
                                                    uint64_t wanted)
{
    int64_t deadline = qemu_clock_ns() + SYNC_TIMEOUT_NS;
    Uring *u;

    while ((u = find_ring_locked(id)) && u->sync_done < wanted &&
           aio_context_has_owner(u->ctx) && qemu_clock_ns() < deadline) {
        leaf_timedwait(&uring_sync_cond, &uring_registry_lock, SYNC_SLICE_NS);
    }
}

/* Have ring @id sync; takes and returns with the lock, drops it in between. */
static void REQUIRES(leaf_class) sync_ring_locked(Uring *u)
{
    uint64_t id = u->id;
    uint64_t wanted = ++u->sync_wanted;

    if (aio_context_current() == u->ctx) {
        leaf_unlock(&uring_registry_lock);
        uring_sync(u);
        leaf_lock(&uring_registry_lock);
        return;
    }
    qemu_bh_schedule(u->sync_bh);
    wait_synced_locked(id, wanted);
}

/* The ring with the lowest id above @id. */
static Uring *REQUIRES(leaf_class) next_ring_locked(uint64_t id)
{
    Uring *u;

    list_for_each(u, &uring_rings, node) {
        if (u->id > id) {
            return u;       /* new ones are added at the back */
        }
    }
    return NULL;
}

void uring_forget_file(const FileHandle *h)
{
    uint64_t id = 0;
    Uring *u;

    leaf_lock(&uring_registry_lock);
    while ((u = next_ring_locked(id))) {
        bool has_it = false;

        id = u->id;
        for (int i = 0; i < URING_FILES; i++) {
            if (u->files[i].serial == h->serial) {
                u->files[i].dead = has_it = true;
            }
        }
        if (has_it) {
            sync_ring_locked(u);
        }
    }
    leaf_unlock(&uring_registry_lock);
}

static UringRegion *REQUIRES(leaf_class) find_region_locked(void *host,
                                                            size_t size)
{
    UringRegion *r;

    list_for_each(r, &uring_regions, node) {
        if (r->host == host && r->size == size) {
            return r;
        }
    }
    return NULL;
}

void bdrv_register_buf(void *host, size_t size)
{
    UringRegion *r;

    leaf_lock(&uring_registry_lock);
    r = find_region_locked(host, size);
    if (!r) {
        r = g_new0(UringRegion, 1);
        r->id = uring_regions_generation + 1;
        r->host = host;
        r->size = size;
        list_push_back(&uring_regions, &r->node);
        qatomic_store_release(&uring_regions_generation, r->id);
    }
    r->users++;
    leaf_unlock(&uring_registry_lock);
}

void bdrv_unregister_buf(void *host, size_t size)
{
    UringRegion *r;
    uint64_t id = 0;
    Uring *u;

    leaf_lock(&uring_registry_lock);
    r = find_region_locked(host, size);
    if (r && --r->users == 0) {
        list_remove(&r->node);
        g_free(r);
        qatomic_store_release(&uring_regions_generation,
                              uring_regions_generation + 1);
        while ((u = next_ring_locked(id))) {
            id = u->id;
            if (u->uses_bufs) {
                sync_ring_locked(u);
            }
        }
    }
    leaf_unlock(&uring_registry_lock);
}

/* ---- Rings ---- */

void uring_fixed_init(Uring *u)
{
    u->has_file_table =
        io_uring_register_files_sparse(&u->ring, URING_FILES) == 0;
    u->has_buf_table =
        io_uring_register_buffers_sparse(&u->ring, URING_BUFS) == 0;
    /* It knows nothing of what the ring before it knew. */
    u->last_serial = 0;
    u->last_slot = -1;
    u->bufs_generation = 0;
    memset(u->bufs, 0, sizeof(u->bufs));
    u->sync_bh = aio_bh_new(u->ctx, uring_sync_bh, u, "io_uring-sync");
    leaf_lock(&uring_registry_lock);
    if (uring_last_id == 0) {
        qemu_cond_init(&uring_sync_cond);
    }
    u->id = ++uring_last_id;
    memset(u->files, 0, sizeof(u->files));
    u->uses_bufs = false;
    list_push_back(&uring_rings, &u->node);
    leaf_unlock(&uring_registry_lock);
}

void uring_fixed_destroy(Uring *u)
{
    leaf_lock(&uring_registry_lock);
    list_remove(&u->node);
    qemu_cond_broadcast(&uring_sync_cond);
    leaf_unlock(&uring_registry_lock);
    qemu_bh_delete(u->sync_bh);
}
