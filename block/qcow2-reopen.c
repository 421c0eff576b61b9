/*
 * Reopening a qcow2 node: between read-only and read-write, and with other
 * options.
 *
 * Before an image becomes read-only all its tables are on the disk and it is
 * marked clean; nothing can fail then when the change is made.  To become
 * writable it must not be corrupt; if it is dirty, it is repaired first, as
 * when it is opened.  That writes, so it is done when the file can be written
 * already; if it fails, the image stays one that cannot be.
 *
 * Options that are not given stay.  The sizes of caches cannot change.
 *
 * Control thread, drained.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2-bitmap.h"
#include "qcow2-header.h"
#include "qcow2-options.h"
#include "qcow2-snapshot.h"
#include "qemu/atomic.h"

typedef struct Reopen {
    Qcow2Options options;
    bool writable;
    bool stored;                    /* bitmaps are not in use any more */
} Reopen;

static bool sizes_unchanged(BlockDriverState *bs, const json_t *options,
                            Error **errp)
{
    static const char *const fixed[] = {
        "cache-size", "l2-cache-size", "l2-cache-entry-size",
        "refcount-cache-size",
    };

    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        const json_t *value = json_object_get(options, fixed[i]);

        if (value && !json_equal(value, json_object_get(bs->options,
                                                        fixed[i]))) {
            error_setg(errp, "Cannot change the option '%s'", fixed[i]);
            return false;
        }
    }
    return true;
}

static bool prepare_writable(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t features;

    if (s->shows_snapshot) {
        error_setg(errp, "An internal snapshot is loaded; the image cannot "
                   "be written");
        return false;
    }
    driver_lock(&s->lock);
    features = s->incompatible_features;
    driver_unlock(&s->lock);
    return qcow2_check_writable(features, errp) &&
           qcow2_snapshots_may_change(s, errp) &&
           qcow2_list_metadata(bs, errp) &&
           qcow2_list_snapshot_metadata(bs, errp);
}

static bool prepare_read_only(BlockDriverState *bs, Reopen *r, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (!qatomic_read(&s->corrupt)) {
        if (!qcow2_store_dirty_bitmaps(bs, false, errp)) {
            return false;
        }
        r->stored = true;
    }
    driver_lock(&s->lock);
    if (!qatomic_read(&s->corrupt)) {
        ret = qcow2_settle(bs);
        qcow2_complete_file(bs);
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to write the image's metadata");
    }
    return ret == 0;
}

bool qcow2_reopen_prepare(BlockDriverState *bs, json_t *options, int flags,
                          void **state, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree Reopen *r = g_new0(Reopen, 1);
    bool ok = sizes_unchanged(bs, options, errp);

    r->writable = (flags & BDRV_O_RDWR) && !(flags & BDRV_O_INACTIVE);
    if (ok) {
        qcow2_options_inherit(options, bs->options);
        ok = qcow2_options_take(bs, options, flags, &r->options, errp);
    }
    if (ok && r->writable && !s->writable) {
        ok = prepare_writable(bs, errp);
    } else if (ok && !r->writable && s->writable) {
        ok = prepare_read_only(bs, r, errp);
    }
    if (!ok) {
        if (r->stored) {
            qcow2_use_bitmaps(bs);
        }
        qcow2_options_clear(&r->options);
        return false;
    }
    *state = g_steal_pointer(&r);
    return true;
}

/* Whoever had it last did not close it properly, or it lies. */
static void repair_if_dirty(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Error *err = NULL;

    driver_lock(&s->lock);
    s->refcounts_suspect = s->incompatible_features & QCOW2_INCOMPAT_DIRTY;
    driver_unlock(&s->lock);
    if ((s->refcounts_suspect && qcow2_repair_dirty(bs, &err) < 0) ||
        !qcow2_check_shared_l2(bs, &err)) {
        error_reportf_err(err, "qcow2: '%s' cannot be written: ",
                          bdrv_get_filename(bs));
        qatomic_set(&s->corrupt, true);
    }
}

/* The file can be written only now; if that fails, the image cannot. */
static void begin_writing(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    repair_if_dirty(bs);
    driver_lock(&s->lock);
    if (s->autoclear_features & ~(uint64_t)QCOW2_AUTOCLEAR_MASK) {
        s->autoclear_features &= QCOW2_AUTOCLEAR_MASK;
        ret = qcow2_update_header(bs);
    }
    driver_unlock(&s->lock);
    if (ret < 0) {
        error_report("qcow2: Could not update the header of '%s': %s",
                     bdrv_get_filename(bs), g_strerror(-ret));
        qatomic_set(&s->corrupt, true);
    }
    qcow2_use_bitmaps(bs);
}

void qcow2_reopen_commit(BlockDriverState *bs, void *state)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree Reopen *r = state;
    bool begins = r->writable && !s->writable;

    qcow2_clean_stop(s);
    qcow2_options_apply(s, &r->options);
    qcow2_clean_start(s);
    qcow2_options_clear(&r->options);
    s->writable = r->writable;
    if (begins) {
        begin_writing(bs);
    }
    qcow2_set_bitmaps_readonly(bs, !s->writable);
}

void qcow2_reopen_abort(BlockDriverState *bs, void *state)
{
    g_autofree Reopen *r = state;

    if (r) {
        if (r->stored) {
            qcow2_use_bitmaps(bs);
        }
        qcow2_options_clear(&r->options);
    }
}
