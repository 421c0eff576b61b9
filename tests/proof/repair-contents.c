/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The contents of repair-contents.h.
 */
#include "proof-int.h"
#include "repair-contents.h"
#include "block/snapshot.h"

BlockBackend *contents_open(Contents *c, const char *id, int flags)
{
    json_t *o = options_from_json(c->open ?: "{}", &error_abort);
    Error *err = NULL;
    BlockBackend *blk;

    json_object_set_new(o, "driver", json_string("qcow2"));
    json_object_set_new(o, "file", json_pack("{s:s, s:s}", "driver",
                                             "write-log", "disk", id));
    blk = blk_new_open(c->graph, NULL, NULL, o, flags, &err);
    if (!blk) {
        g_string_append_printf(c->why, "does not open: %s",
                               error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

/* The disk, or snapshot number @i - 1 of it. */
static uint8_t *read_one(Contents *c, const char *id, int i)
{
    g_autofree char *name = g_strdup_printf("s%d", i - 1);
    BlockBackend *blk = contents_open(c, id, 0);
    g_autofree uint8_t *buf = g_malloc(c->size);
    bool ok = blk;

    if (ok && i) {
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL);
    }
    ok = ok && blk_pread(blk, 0, c->size, buf, 0) == 0;
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append_printf(c->why, ", %s cannot be read", i ? name : "it");
    }
    return ok ? g_steal_pointer(&buf) : NULL;
}

void contents_take(Contents *c, const char *id)
{
    for (int i = 0; i < c->n; i++) {
        c->data[i] = read_one(c, id, i);
        g_assert_nonnull(c->data[i]);
    }
}

bool contents_are_in(Contents *c, const char *id)
{
    for (int i = 0; i < c->n; i++) {
        g_autofree uint8_t *now = read_one(c, id, i);

        if (!now) {
            return false;
        }
        if (memcmp(now, c->data[i], c->size)) {
            g_string_append_printf(c->why, "%s is not what it was",
                                   i ? "a snapshot" : "the disk");
            return false;
        }
    }
    return true;
}

bool contents_can_be_written(Contents *c, const char *id, uint32_t seed)
{
    BlockBackend *blk = contents_open(c, id, BDRV_O_RDWR);
    g_autofree uint8_t *saved = g_memdup2(c->data[0], c->size);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    bool ok = blk;

    for (int i = 0; ok && i < 8; i++) {
        int64_t at = g_rand_int_range(rand, 0, c->size / 512) * 512;
        int64_t bytes = MIN(20 * 512, c->size - at);

        memset(c->data[0] + at, 1 + i, bytes);
        ok = blk_pwrite(blk, at, bytes, c->data[0] + at, 0) == 0;
    }
    if (blk) {
        blk_unref(blk);
    }
    if (!ok) {
        g_string_append(c->why, "what was repaired cannot be written");
    }
    ok = ok && contents_are_in(c, id);
    memcpy(c->data[0], saved, c->size);
    return ok;
}

void contents_clear(Contents *c)
{
    for (int i = 0; i < c->n; i++) {
        g_free(c->data[i]);
    }
}
