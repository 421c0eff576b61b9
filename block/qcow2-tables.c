/*
 * qcow2: what look-ups need beside the tables, made at open: the caches, the
 * pins, the set of metadata clusters, and room for what is inflated.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qcow2.h"

bool qcow2_make_caches(BlockDriverState *bs, size_t l2_slice_size,
                       unsigned l2_tables, unsigned refcount_tables,
                       Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Cache *refcounts = qcow2_cache_new(s->cluster_size, refcount_tables);

    driver_lock(&s->lock);
    s->refcount_cache = refcounts;
    driver_unlock(&s->lock);
    s->l2_cache = qcow2_cache_new(l2_slice_size, l2_tables);
    s->pins = qcow2_pins_new();
    s->metadata = qcow2_metadata_new();
    s->inflated = qcow2_inflated_new(s->cluster_size);
    if (!refcounts || !s->l2_cache || !s->pins || !s->metadata) {
        error_setg(errp, "Could not allocate metadata caches");
        return false;
    }
    return true;
}

bool qcow2_list_metadata(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2MetadataSet *set = qcow2_metadata_new();
    int ret = set ? 0 : -ENOMEM;

    if (set) {
        /* What was in it when the image could be written before would look as
         * if it were there twice.  Nobody reads it now. */
        qcow2_metadata_free(s->metadata);
        s->metadata = set;
        driver_lock(&s->lock);
        s->l2_shared = false;
        ret = qcow2_metadata_add_active(s);
        driver_unlock(&s->lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not list the metadata clusters");
    }
    return ret == 0;
}

void qcow2_free_caches(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    driver_lock(&s->lock);
    qcow2_cache_free(s->refcount_cache);
    s->refcount_cache = NULL;
    driver_unlock(&s->lock);
    qcow2_cache_free(s->l2_cache);
    s->l2_cache = NULL;
    qcow2_pins_free(s->pins);
    s->pins = NULL;
    qcow2_metadata_free(s->metadata);
    s->metadata = NULL;
    qcow2_inflated_free(s->inflated);
    s->inflated = NULL;
}
