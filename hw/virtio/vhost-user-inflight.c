/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inflight tracking: the buffer, and the state of split rings in it.
 *
 * The layout of a queue's region is the protocol's.  Regions are a multiple of
 * 64 bytes, so that queues on different threads share no cache line.
 *
 * The order of the stores matters, as the process may end between any two of
 * them; another process then reads what is in memory, so the compiler's order
 * is what counts and release stores give it.
 */
#include "qemu/osdep.h"
#include "vhost-user-inflight-internal.h"
#include "hw/virtio/fault-guard.h"
#include <sys/mman.h>
#include <sys/stat.h>

#define INFLIGHT_ALIGN 64

struct VhostUserInflight {
    int fd;
    void *base;
    size_t len;
    uint8_t *regions;
    uint64_t stride;
    bool packed;
    bool broken;
    FaultGuard *guard;
    uint16_t num_queues;
    uint16_t queue_size;
    VirtQueueInflight *queues;
};

/* ---- The buffer ---- */

static uint64_t inflight_stride(uint16_t queue_size, bool packed)
{
    uint64_t size = packed ?
        sizeof(QueueRegionPacked) + queue_size * sizeof(DescStatePacked) :
        sizeof(QueueRegionSplit) + queue_size * sizeof(DescStateSplit);

    return QEMU_ALIGN_UP(size, (uint64_t)INFLIGHT_ALIGN);
}

VhostUserInflight *vhost_user_inflight_map(int fd, uint64_t offset,
                                           uint64_t size, uint16_t num_queues,
                                           uint16_t queue_size, bool packed,
                                           Error **errp)
{
    uint64_t need = inflight_stride(queue_size, packed) * num_queues;
    size_t page = getpagesize();
    uint64_t delta = offset % page;
    VhostUserInflight *s;
    struct stat st;
    void *base;

    if (num_queues == 0 || !virtqueue_check_num(queue_size, true, NULL) ||
        offset % 8 || offset > INT64_MAX - need || size < need ||
        fstat(fd, &st) < 0 || offset + need > (uint64_t)st.st_size) {
        error_setg(errp, "Inflight buffer of %" PRIu64 " bytes at %" PRIu64
                   " is not possible for %u queues of %u", size, offset,
                   num_queues, queue_size);
        return NULL;
    }
    base = mmap(NULL, need + delta, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                offset - delta);
    if (base == MAP_FAILED) {
        error_setg_errno(errp, errno, "Could not map the inflight buffer");
        return NULL;
    }
    s = g_new0(VhostUserInflight, 1);
    s->fd = -1;
    s->base = base;
    s->len = need + delta;
    s->regions = (uint8_t *)base + delta;
    s->stride = inflight_stride(queue_size, packed);
    s->packed = packed;
    s->num_queues = num_queues;
    s->queue_size = queue_size;
    s->queues = g_new0(VirtQueueInflight, num_queues);
    s->guard = fault_guard_add(base, QEMU_ALIGN_UP(s->len, page), page,
                               &s->broken);
    return s;
}

VhostUserInflight *vhost_user_inflight_new(uint16_t num_queues,
                                           uint16_t queue_size, bool packed,
                                           Error **errp)
{
    uint64_t size = inflight_stride(queue_size, packed) * num_queues;
    VhostUserInflight *s;
    int fd;

    fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        error_setg_errno(errp, errno, "Could not make an inflight buffer");
        return NULL;
    }
    if (ftruncate(fd, size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        error_setg_errno(errp, errno, "Could not make an inflight buffer of %"
                         PRIu64 " bytes", size);
        close(fd);
        return NULL;
    }
    s = vhost_user_inflight_map(fd, 0, size, num_queues, queue_size, packed,
                                errp);
    if (!s) {
        close(fd);
        return NULL;
    }
    s->fd = fd;
    return s;
}

void vhost_user_inflight_free(VhostUserInflight *s)
{
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < s->num_queues; i++) {
        g_free(s->queues[i].next);
        g_free(s->queues[i].last);
    }
    fault_guard_del(s->guard);
    munmap(s->base, s->len);
    if (s->fd >= 0) {
        close(s->fd);
    }
    g_free(s->queues);
    g_free(s);
}

int vhost_user_inflight_take_fd(VhostUserInflight *s)
{
    int fd = s->fd;

    s->fd = -1;
    return fd;
}

uint64_t vhost_user_inflight_size(const VhostUserInflight *s)
{
    return s->stride * s->num_queues;
}

VirtQueueInflight *vhost_user_inflight_queue(VhostUserInflight *s,
                                             unsigned index, bool packed,
                                             uint16_t num)
{
    VirtQueueInflight *q;
    void *region;

    if (index >= s->num_queues || num > s->queue_size || packed != s->packed) {
        return NULL;
    }
    q = &s->queues[index];
    region = s->regions + index * s->stride;
    q->split = packed ? NULL : region;
    q->packed = packed ? region : NULL;
    q->num = num;
    q->counter = 0;
    if (packed) {
        q->next = g_renew(uint16_t, q->next, num);
        q->last = g_renew(uint16_t, q->last, num);
    }
    return q;
}

void vq_inflight_mark_clean(VirtQueueInflight *q)
{
    if (q->packed) {
        qatomic_store_release(&q->packed->version, (uint16_t)0);
    } else {
        qatomic_store_release(&q->split->version, (uint16_t)0);
    }
}

static int compare_counter(const void *a, const void *b)
{
    const VirtQueueResubmit *x = a, *y = b;

    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

void vq_inflight_sort(VirtQueue *vq)
{
    if (vq->n_resubmit) {
        qsort(vq->resubmit, vq->n_resubmit, sizeof(vq->resubmit[0]),
              compare_counter);
        vq->inflight->counter =
            vq->resubmit[vq->n_resubmit - 1].counter + 1;
    }
}

/* ---- Split ---- */

void vq_inflight_split_pop(VirtQueueInflight *q, uint16_t head)
{
    DescStateSplit *d = &q->split->desc[head];

    qatomic_set(&d->counter, q->counter++);
    qatomic_store_release(&d->inflight, (uint8_t)1);
}

void vq_inflight_split_push(VirtQueueInflight *q, uint16_t head)
{
    qatomic_set(&q->split->desc[head].next, q->split->last_batch_head);
    qatomic_store_release(&q->split->last_batch_head, head);
}

void vq_inflight_split_published(VirtQueue *vq)
{
    QueueRegionSplit *r = vq->inflight->split;

    for (unsigned i = 0; i < vq->n_batch; i++) {
        qatomic_store_release(&r->desc[vq->batch[i]].inflight, (uint8_t)0);
    }
    qatomic_store_release(&r->used_idx, vq->used_idx);
}

/* The last batch was published, but perhaps not noted here: finish that. */
static void inflight_split_finish_batch(VirtQueueInflight *q,
                                        uint16_t ring_used)
{
    QueueRegionSplit *r = q->split;
    uint16_t batch = ring_used - qatomic_read(&r->used_idx);
    uint16_t i = qatomic_read(&r->last_batch_head);

    for (unsigned n = 0; n < MIN(batch, q->num) && i < q->num; n++) {
        qatomic_store_release(&r->desc[i].inflight, (uint8_t)0);
        i = qatomic_read(&r->desc[i].next);
    }
    qatomic_store_release(&r->used_idx, ring_used);
}

bool vq_inflight_split_recover(VirtQueue *vq, uint16_t ring_used)
{
    VirtQueueInflight *q = vq->inflight;
    QueueRegionSplit *r = q->split;

    if (qatomic_read(&r->version) != INFLIGHT_VERSION ||
        qatomic_read(&r->desc_num) != q->num) {
        memset(r, 0, sizeof(*r) + q->num * sizeof(r->desc[0]));
        r->desc_num = q->num;
        r->used_idx = ring_used;
        qatomic_store_release(&r->version, (uint16_t)INFLIGHT_VERSION);
        return true;
    }
    inflight_split_finish_batch(q, ring_used);
    for (uint16_t i = 0; i < q->num; i++) {
        if (qatomic_read(&r->desc[i].inflight)) {
            vq->resubmit[vq->n_resubmit++] = (VirtQueueResubmit) {
                .counter = qatomic_read(&r->desc[i].counter), .index = i,
            };
        }
    }
    vq_inflight_sort(vq);
    if (vq->n_resubmit) {
        vq->last_avail = ring_used + vq->n_resubmit;
    }
    return true;
}
