/*
 * The page cache of a file that another host may have written to: before we use
 * the image, what is cached of it is dropped.
 *
 * On one host the cache is everybody's, and dropping it costs no more than some
 * reads.  On a network file system that does not notice what others write, it
 * is what keeps a migrated machine from reading what was there before.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "file-posix.h"

/* Looked at in one piece. */
#define CHECK_WINDOW (128 * MiB)

/* 1: some of it is cached, 0: nothing is, or -errno. */
static int window_is_cached(int fd, int64_t offset, int64_t bytes)
{
    int64_t page = getpagesize();
    int64_t pages = DIV_ROUND_UP(bytes, page);
    g_autofree unsigned char *vec = g_malloc(pages);
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, offset);
    int ret = 0;

    if (map == MAP_FAILED) {
        return -errno;
    }
    if (mincore(map, bytes, vec) < 0) {
        ret = -errno;
    }
    for (int64_t i = 0; ret == 0 && i < pages; i++) {
        ret = vec[i] & 1;
    }
    munmap(map, bytes);
    return ret;
}

static bool check_dropped(FileState *s, Error **errp)
{
    int64_t length = file_raw_length(s->h.fd);
    int ret = MIN(length, 0);

    for (int64_t at = 0; ret == 0 && at < length; at += CHECK_WINDOW) {
        ret = window_is_cached(s->h.fd, at, MIN(length - at, CHECK_WINDOW));
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not look at the page cache of "
                         "'%s'", s->filename);
    } else if (ret > 0) {
        error_setg(errp, "The page cache of '%s' is still in use",
                   s->filename);
    }
    return ret == 0;
}

bool file_activate(BlockDriverState *bs, Error **errp)
{
    FileState *s = bs->opaque;
    int ret;

    /* Nothing of tmpfs is anywhere else. */
    if (!s->drop_cache || s->h.direct || s->h.in_memory) {
        return true;
    }
    /* Only clean pages can be dropped. */
    ret = file_sync(s);
    if (ret == 0) {
        ret = -posix_fadvise(s->h.fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    if (ret < 0 && ret != -ESPIPE) {
        error_setg_errno(errp, -ret, "Could not drop the page cache of '%s'",
                         s->filename);
        return false;
    }
    return !s->check_cache_dropped || check_dropped(s, errp);
}
