/*
 * qcow2: the fast path.  In the device's thread, for requests that need nothing
 * but one look-up in tables that are cached: it takes no lock and does no I/O.
 *
 *   read    of one extent of data: goes to the file that holds it, with a pin
 *           until it completes; of zeroes, or a compressed cluster of which
 *           others read a part: done here; of what only the backing file has:
 *           goes there
 *   write   inside clusters that are ours alone and not metadata: to the file,
 *           with a pin
 *   flush   of an image whose tables are all written: a flush of its file
 *
 * Everything else is a worker's, who starts from the top of the graph.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"
#include "qemu/atomic.h"

/* More than this is not for the device's thread to write. */
#define MAX_INLINE (256 * KiB)

static BdrvMapResult to_child(BdrvChild *child, int64_t offset,
                              BdrvMapping *mapping)
{
    mapping->child = child;
    mapping->offset = offset;
    return BDRV_MAP_CHILD;
}

/*
 * Of what is written to the file unaligned, which shares no block with the data
 * of a cluster?  Tables, the header and compressed clusters, unless clusters
 * are smaller than the file's blocks; what is copied round the data of a write,
 * unless subclusters are.  The rest is what our users write: if that is aligned
 * as well, no block with data is ever read, modified and written.
 */
static bool writes_are_apart(const BDRVQcow2State *s)
{
    return s->data_file->users_aligned &&
           s->subcluster_size >= s->data_file->bs->bl.request_alignment;
}

/* What goes beyond the end of a file needs code that knows about that. */
static bool is_inside(const BdrvChild *child, int64_t offset, int64_t bytes)
{
    int64_t length = qatomic_read(&child->bs->total_bytes);

    return bytes <= length && offset <= length - bytes;
}

static BdrvMapResult read_zeroes(BdrvTrackedRequest *req, BdrvMapping *mapping)
{
    if (req->bytes > MAX_INLINE) {
        return BDRV_MAP_WORKER;
    }
    qemu_iovec_memset(req->qiov, req->qiov_offset, 0, req->bytes);
    mapping->ret = 0;
    return BDRV_MAP_DONE;
}

static BdrvMapResult read_unallocated(BlockDriverState *bs,
                                      BdrvTrackedRequest *req,
                                      BdrvMapping *mapping)
{
    if (!bs->backing) {
        return read_zeroes(req, mapping);
    }
    if (!is_inside(bs->backing, req->map_offset, req->bytes)) {
        return BDRV_MAP_WORKER;
    }
    mapping->apart = true;              /* nobody writes to it */
    return to_child(bs->backing, req->map_offset, mapping);
}

static BdrvMapResult read_inflated(BDRVQcow2State *s, BdrvTrackedRequest *req,
                                   uint64_t l2_entry, BdrvMapping *mapping)
{
    size_t in_cluster = req->map_offset & (s->cluster_size - 1);
    Qcow2InflatedCluster *e;

    if (req->bytes > MAX_INLINE || !qcow2_inflated_peek(s, l2_entry, &e)) {
        return BDRV_MAP_WORKER;
    }
    qemu_iovec_from_buf(req->qiov, req->qiov_offset,
                        qcow2_inflated_data(e) + in_cluster, req->bytes);
    qcow2_inflated_put(s, e);
    mapping->ret = 0;
    return BDRV_MAP_DONE;
}

static BdrvMapResult map_read(BlockDriverState *bs, BdrvTrackedRequest *req,
                              const Qcow2Extent *e, BdrvMapping *mapping)
{
    BDRVQcow2State *s = bs->opaque;

    switch (e->type) {
    case QCOW2_EXTENT_NORMAL:
        if (s->crypt_method != QCOW2_CRYPT_NONE ||
            !is_inside(s->data_file, e->host_offset, req->bytes)) {
            return BDRV_MAP_WORKER;
        }
        mapping->apart = true;          /* nobody else writes to the file */
        return to_child(s->data_file, e->host_offset, mapping);
    case QCOW2_EXTENT_ZERO_PLAIN:
    case QCOW2_EXTENT_ZERO_ALLOC:
        return read_zeroes(req, mapping);
    case QCOW2_EXTENT_UNALLOCATED:
    case QCOW2_EXTENT_UNALLOCATED_ALLOC:
        return read_unallocated(bs, req, mapping);
    case QCOW2_EXTENT_COMPRESSED:
        return read_inflated(s, req, e->l2_entry, mapping);
    default:
        return BDRV_MAP_WORKER;
    }
}

/* With FUA the tables that say where the data is must be durable, too, and that
 * there is nothing to write does not say so: making room in a cache writes
 * without a last sync.  (The core sends such a write to a worker anyway.) */
static BdrvMapResult map_write(BlockDriverState *bs, BdrvTrackedRequest *req,
                               const Qcow2Extent *e, BdrvMapping *mapping)
{
    BDRVQcow2State *s = bs->opaque;

    if (e->type != QCOW2_EXTENT_NORMAL || !e->copied ||
        s->crypt_method != QCOW2_CRYPT_NONE || qatomic_read(&s->corrupt) ||
        (req->flags & (BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_FUA)) ||
        !is_inside(s->data_file, e->host_offset, req->bytes) ||
        (s->data_file == bs->file &&
         qcow2_metadata_overlap(s, s->overlap_check, e->host_offset,
                                req->bytes))) {
        return BDRV_MAP_WORKER;
    }
    mapping->apart = writes_are_apart(s);
    return to_child(s->data_file, e->host_offset, mapping);
}

static void unpin_request(BdrvTrackedRequest *req)
{
    qcow2_unpin_request_pin(req->pin);
}

/* Look up under a pin; the request keeps it if data of ours is used. */
static BdrvMapResult map_data(BlockDriverState *bs, BdrvTrackedRequest *req,
                              BdrvMapping *mapping)
{
    BDRVQcow2State *s = bs->opaque;
    BdrvMapResult result = BDRV_MAP_WORKER;
    uintptr_t pin = qcow2_pin(s);
    Qcow2Extent e;

    if (qcow2_map_nowait(bs, req->map_offset, req->bytes, &e) == 0 &&
        e.bytes == req->bytes) {
        result = req->type == BDRV_REQ_READ ? map_read(bs, req, &e, mapping)
                                            : map_write(bs, req, &e, mapping);
    }
    if (result == BDRV_MAP_CHILD && e.type == QCOW2_EXTENT_NORMAL) {
        req->pin = (void *)pin;
        req->unpin = unpin_request;
    } else {
        qcow2_unpin(s, pin);
    }
    return result;
}

/* Two files are flushed by a worker, in their order. */
static BdrvMapResult map_flush(BlockDriverState *bs, BdrvMapping *mapping)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->data_file != bs->file || qatomic_load_acquire(&s->metadata_dirty)) {
        return BDRV_MAP_WORKER;
    }
    mapping->apart = true;              /* it has no range */
    return to_child(bs->file, 0, mapping);
}

BdrvMapResult qcow2_map_request(BlockDriverState *bs, BdrvTrackedRequest *req,
                                BdrvMapping *mapping)
{
    BDRVQcow2State *s = bs->opaque;

    /* A request has room for one pin: not a qcow2 image inside another. */
    if (req->unpin || !s->data_file) {
        return BDRV_MAP_WORKER;
    }
    switch (req->type) {
    case BDRV_REQ_READ:
    case BDRV_REQ_WRITE:
        return map_data(bs, req, mapping);
    case BDRV_REQ_FLUSH:
        return map_flush(bs, mapping);
    default:
        return BDRV_MAP_WORKER;
    }
}
