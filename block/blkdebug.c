/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: a filter that fails and delays requests on purpose.
 *
 * Rules are bound to *events*: points in the code of formats and of the block
 * layer that announce themselves with bdrv_debug_event().  When an event comes,
 * its rules that fit the current state
 *
 *   - make errors active: from then on, requests that reach this node and match
 *     fail (until an event makes other errors active, or once);
 *   - change the state, after all rules of the event have been looked at;
 *   - suspend the request that caused the event, until somebody resumes it.
 *
 * Besides, tests arm a counter: "let the nth request fail".
 *
 * Everything is under one lock, of the rank below formats, since they may
 * announce events with their own lock held.
 *
 * There is neither map_nowait nor submit: every request through this node goes
 * to a worker, so that it can be suspended, and so that the path is the same
 * whether a rule is active or not.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "blkdebug-int.h"

#define CHILD_ROLE (BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY)

/* ---- Events ---- */

/* Errors of the rules of @event; they replace those that were active. */
static void activate_locked(BDRVBlkdebugState *s, int event)
    REQUIRES(protocol_class)
{
    bool replaced = false;
    BlkdebugRule *rule;

    list_for_each(rule, &s->rules[event], node) {
        if (rule->action != BLKDEBUG_INJECT_ERROR ||
            (rule->state && rule->state != s->state)) {
            continue;
        }
        if (!replaced) {
            while (list_pop_front_node(&s->active)) {
                /* no rule is owned by this list */
            }
            replaced = true;
        }
        list_push_back(&s->active, &rule->active_node);
    }
}

static void change_state_locked(BDRVBlkdebugState *s, int event)
    REQUIRES(protocol_class)
{
    int new_state = s->state;
    BlkdebugRule *rule;

    list_for_each(rule, &s->rules[event], node) {
        if (rule->action == BLKDEBUG_SET_STATE &&
            (!rule->state || rule->state == s->state)) {
            new_state = rule->new_state;
        }
    }
    s->state = new_state;
}

static void blkdebug_debug_event(BlockDriverState *bs, const char *name)
{
    BDRVBlkdebugState *s = bs->opaque;
    int event = blkdebug_event_find(name);

    if (event < 0) {
        return;
    }
    protocol_lock(&s->lock);
    activate_locked(s, event);
    change_state_locked(s, event);
    blkdebug_suspend_locked(s, event);
    protocol_unlock(&s->lock);
}

/* ---- Open ---- */

static bool take_perms(json_t *options, const char *key, uint64_t *perms,
                       Error **errp)
{
    static const char *const names[] = {
        "consistent-read", "write", "write-unchanged", "resize"
    };
    g_autoptr(json_t) list = opt_take_any(options, key);
    size_t i;
    json_t *name;

    if (list && !json_is_array(list)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: array",
                   key);
        return false;
    }
    json_array_foreach(list, i, name) {
        uint64_t found = 0;

        for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
            if (!g_strcmp0(json_string_value(name), names[n])) {
                found = 1u << n;
            }
        }
        if (!found) {
            error_setg(errp, "Parameter '%s' does not accept value '%s'", key,
                       json_string_value(name) ?: "");
            return false;
        }
        *perms |= found;
    }
    return true;
}

/* Zero, or a multiple of @align up to INT_MAX. */
static bool take_limit(json_t *options, const char *key, uint64_t align,
                       uint64_t *value, Error **errp)
{
    if (!opt_take_size(options, key, value, errp)) {
        return false;
    }
    if (*value > INT_MAX || *value % align) {
        error_setg(errp, "Cannot meet constraints with %s %" PRIu64, key,
                   *value);
        return false;
    }
    return true;
}

static bool take_limits(BlockDriverState *bs, json_t *options, Error **errp)
{
    BDRVBlkdebugState *s = bs->opaque;
    uint64_t align;

    if (!take_limit(options, "align", 1, &s->align, errp)) {
        return false;
    }
    if (s->align && !is_power_of_2(s->align)) {
        error_setg(errp, "Cannot meet constraints with align %" PRIu64,
                   s->align);
        return false;
    }
    align = MAX(s->align, bs->file->bs->bl.request_alignment ?: 1);
    return take_limit(options, "max-transfer", align, &s->max_transfer, errp) &&
           take_limit(options, "opt-write-zero", align, &s->opt_write_zero,
                      errp) &&
           take_limit(options, "max-write-zero",
                      MAX(s->opt_write_zero, align), &s->max_write_zero,
                      errp) &&
           take_limit(options, "opt-discard", align, &s->opt_discard, errp) &&
           take_limit(options, "max-discard", MAX(s->opt_discard, align),
                      &s->max_discard, errp);
}

static void free_rules(BDRVBlkdebugState *s) NO_TSA
{
    for (int i = 0; i < BLKDEBUG_EVENTS; i++) {
        BlkdebugRule *rule;

        while ((rule = list_pop_front(&s->rules[i], BlkdebugRule, node))) {
            blkdebug_rule_free(rule);
        }
    }
}

/* Nobody else knows the node yet, or any more. */
static void init_state(BDRVBlkdebugState *s) NO_TSA
{
    protocol_init(&s->lock);
    qemu_cond_init(&s->suspended_cond);
    list_init(&s->active);
    list_init(&s->suspended);
    for (int i = 0; i < BLKDEBUG_EVENTS; i++) {
        list_init(&s->rules[i]);
    }
    s->state = 1;
}

static void destroy_state(BDRVBlkdebugState *s)
{
    free_rules(s);
    qemu_cond_destroy(&s->suspended_cond);
    protocol_destroy(&s->lock);
}

/* "blkdebug:CONFIG:IMAGE"; CONFIG may be empty. */
static bool blkdebug_parse_filename(const char *filename, json_t *options,
                                    Error **errp)
{
    const char *config, *image;

    if (!strstart(filename, "blkdebug:", &config)) {
        error_setg(errp, "File name string must start with 'blkdebug:'");
        return false;
    }
    image = strchr(config, ':');
    if (!image) {
        error_setg(errp, "blkdebug requires both config file and image path");
        return false;
    }
    if (image != config) {
        g_autofree char *path = g_strndup(config, image - config);

        opt_set_str(options, "config", path);
    }
    opt_set_str(options, "x-image", image + 1);
    return true;
}

/* What "blkdebug:CONFIG:IMAGE" leaves: a file name, in any syntax. */
static bool open_image(BlockDriverState *bs, json_t *options,
                               int flags, Error **errp)
{
    g_autofree char *filename = opt_take_str(options, "x-image");
    BlockDriverState *image;
    bool ok;

    if (!filename) {
        return bdrv_open_child(bs, options, "image", CHILD_ROLE, false,
                               &bs->file, errp);
    }
    image = bdrv_open(bs->graph, filename, NULL, NULL,
                      flags | BDRV_O_PROTOCOL, errp);
    if (!image) {
        return false;
    }
    opt_set_str(options, "image", bdrv_get_node_name(image));
    ok = bdrv_open_child(bs, options, "image", CHILD_ROLE, false, &bs->file,
                         errp);
    bdrv_unref(image);
    return ok;
}

static bool read_options(BlockDriverState *bs, json_t *options, int flags,
                         Error **errp) NO_TSA
{
    BDRVBlkdebugState *s = bs->opaque;
    g_autofree char *config = opt_take_str(options, "config");

    return blkdebug_read_rules(s->rules, config, options, errp) &&
           take_perms(options, "take-child-perms", &s->take_perms, errp) &&
           take_perms(options, "unshare-child-perms", &s->unshare_perms,
                      errp) &&
           open_image(bs, options, flags, errp) &&
           take_limits(bs, options, errp);
}

static bool blkdebug_open(BlockDriverState *bs, json_t *options, int flags,
                          Error **errp)
{
    BDRVBlkdebugState *s = bs->opaque;

    init_state(s);
    if (!read_options(bs, options, flags, errp)) {
        destroy_state(s);
        return false;
    }
    blkdebug_debug_event(bs, "none");
    return true;
}

static void blkdebug_close(BlockDriverState *bs)
{
    destroy_state(bs->opaque);
}

static bool blkdebug_reopen_prepare(BlockDriverState *bs, json_t *options,
                                    int flags, void **state, Error **errp)
{
    return true;
}

static void blkdebug_refresh_limits(BlockDriverState *bs)
{
    BDRVBlkdebugState *s = bs->opaque;

    bs->bl.request_alignment = MAX(bs->bl.request_alignment, s->align);
    if (s->max_transfer) {
        bs->bl.max_transfer = s->max_transfer;
    }
    if (s->opt_write_zero) {
        bs->bl.pwrite_zeroes_alignment = s->opt_write_zero;
    }
    if (s->max_write_zero) {
        bs->bl.max_pwrite_zeroes = s->max_write_zero;
    }
    if (s->opt_discard) {
        bs->bl.pdiscard_alignment = s->opt_discard;
    }
    if (s->max_discard) {
        bs->bl.max_pdiscard = s->max_discard;
    }
}

static void blkdebug_child_perm(BlockDriverState *bs, BdrvChild *child,
                                int role, uint64_t perm, uint64_t shared,
                                uint64_t *nperm, uint64_t *nshared)
{
    BDRVBlkdebugState *s = bs->opaque;

    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    *nperm |= s->take_perms;
    *nshared &= ~s->unshare_perms;
}

/* ---- Requests ---- */

static int check_armed_locked(BDRVBlkdebugState *s, BlkdebugIOType iotype)
    REQUIRES(protocol_class)
{
    if (!s->countdown || iotype == BLKDEBUG_IO_BLOCK_STATUS ||
        --s->countdown) {
        return 0;
    }
    s->fired = true;
    return -s->armed_error;
}

static int check_active_locked(BDRVBlkdebugState *s, BlkdebugIOType iotype,
                               int64_t offset, int64_t bytes)
    REQUIRES(protocol_class)
{
    BlkdebugRule *rule;
    int ret = 0;

    list_for_each(rule, &s->active, active_node) {
        if (!(rule->iotypes & (1u << iotype)) ||
            (rule->offset >= 0 &&
             (rule->offset < offset || rule->offset - offset >= bytes))) {
            continue;
        }
        ret = -MAX(rule->error, 0);
        if (rule->once) {
            list_remove(&rule->active_node);
            list_remove(&rule->node);
            blkdebug_rule_free(rule);
        }
        break;
    }
    return ret;
}

/* 0, or the error that this request is to fail with. */
static int blkdebug_check(BlockDriverState *bs, BlkdebugIOType iotype,
                          int64_t offset, int64_t bytes)
{
    BDRVBlkdebugState *s = bs->opaque;
    int ret;

    protocol_lock(&s->lock);
    ret = check_armed_locked(s, iotype);
    if (ret == 0) {
        ret = check_active_locked(s, iotype, offset, bytes);
    }
    protocol_unlock(&s->lock);
    return ret;
}

static int blkdebug_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset, int flags)
{
    int ret = blkdebug_check(bs, BLKDEBUG_IO_READ, offset, bytes);

    return ret ?: bdrv_preadv(bs->file, offset, bytes, qiov, qiov_offset,
                              flags);
}

static int blkdebug_pwritev(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, int flags)
{
    int ret = blkdebug_check(bs, BLKDEBUG_IO_WRITE, offset, bytes);

    return ret ?: bdrv_pwritev(bs->file, offset, bytes, qiov, qiov_offset,
                               flags);
}

static int blkdebug_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, int flags)
{
    BDRVBlkdebugState *s = bs->opaque;
    int ret;

    /* A device with such an alignment cannot do less than a unit. */
    if (s->opt_write_zero && (offset | bytes) % s->opt_write_zero) {
        return -ENOTSUP;
    }
    ret = blkdebug_check(bs, BLKDEBUG_IO_WRITE_ZEROES, offset, bytes);
    return ret ?: bdrv_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int blkdebug_pdiscard(BlockDriverState *bs, int64_t offset,
                             int64_t bytes)
{
    BDRVBlkdebugState *s = bs->opaque;
    int ret;

    if (s->opt_discard && (offset | bytes) % s->opt_discard) {
        return -ENOTSUP;
    }
    ret = blkdebug_check(bs, BLKDEBUG_IO_DISCARD, offset, bytes);
    return ret ?: bdrv_pdiscard(bs->file, offset, bytes);
}

/* The child's flush follows, by the core. */
static int blkdebug_flush(BlockDriverState *bs)
{
    return blkdebug_check(bs, BLKDEBUG_IO_FLUSH, 0, 0);
}

static int blkdebug_block_status(BlockDriverState *bs, bool want_zero,
                                 int64_t offset, int64_t bytes, int64_t *pnum,
                                 int64_t *map, BlockDriverState **file)
{
    int ret = blkdebug_check(bs, BLKDEBUG_IO_BLOCK_STATUS, offset, bytes);

    *pnum = bytes;
    *map = offset;
    *file = bs->file->bs;
    return ret ?: BDRV_BLOCK_RECURSE | BDRV_BLOCK_OFFSET_VALID;
}

static bool blkdebug_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                              PreallocMode prealloc, int flags, Error **errp)
{
    return bdrv_truncate(bs->file, offset, exact, prealloc, flags, errp);
}

/* ---- Fail the nth request ---- */

int blkdebug_arm(BlockDriverState *bs, int n, int error)
{
    BDRVBlkdebugState *s;

    bs = blkdebug_find_node(bs);
    if (!bs) {
        return -ENOTSUP;
    }
    s = bs->opaque;
    protocol_lock(&s->lock);
    s->countdown = n;
    s->armed_error = error;
    s->fired = false;
    protocol_unlock(&s->lock);
    return 0;
}

bool blkdebug_fired(BlockDriverState *bs)
{
    BDRVBlkdebugState *s;
    bool fired;

    bs = blkdebug_find_node(bs);
    if (!bs) {
        return false;
    }
    s = bs->opaque;
    protocol_lock(&s->lock);
    fired = s->fired;
    protocol_unlock(&s->lock);
    return fired;
}

/* ---- The table ---- */

BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .supports_handover = true,
    .protocol_name = "blkdebug",
    .instance_size = sizeof(BDRVBlkdebugState),
    .is_filter = true,

    .parse_filename = blkdebug_parse_filename,
    .open = blkdebug_open,
    .close = blkdebug_close,
    .reopen_prepare = blkdebug_reopen_prepare,
    .refresh_limits = blkdebug_refresh_limits,
    .child_perm = blkdebug_child_perm,

    .preadv = blkdebug_preadv,
    .pwritev = blkdebug_pwritev,
    .pwrite_zeroes = blkdebug_pwrite_zeroes,
    .pdiscard = blkdebug_pdiscard,
    .flush = blkdebug_flush,
    .block_status = blkdebug_block_status,
    .truncate = blkdebug_truncate,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP |
                            BDRV_REQ_NO_FALLBACK,

    .debug_event = blkdebug_debug_event,
    .debug_breakpoint = blkdebug_node_break,
    .debug_remove_breakpoint = blkdebug_node_remove_break,
    .debug_resume = blkdebug_node_resume,
    .debug_is_suspended = blkdebug_node_is_suspended,
};
