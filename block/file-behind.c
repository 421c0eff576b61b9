/*
 * Files that pass through the page cache without filling it.
 *
 * Copying a large image leaves two of it in the host's page cache, and what
 * others had there is gone.  A file that was told to drop behind itself stays
 * cached up to so many bytes; from then on it keeps only the windows that were
 * touched last, and those it kept by then:
 *
 *   newest     is being read or written
 *   …          the kernel writes what is dirty
 *   oldest     has to leave: wait until it is written, then drop its pages
 *
 * The wait is what keeps a fast source from filling memory with dirty pages,
 * and bounds what is cached; it is in the thread of the request that opens a
 * new window, with no lock held.
 *
 * It is advice: where the file system cannot, all stays as it was.  Only that
 * writing the pages failed is more than that: the kernel says so once, and what
 * asks here must not keep it from a flush (file-sync.c).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <fcntl.h>
#include "file-posix.h"

#define WINDOW (8 * MiB)
#define N_WINDOWS 8

typedef struct Window {
    int64_t number;             /* offset / WINDOW; -1: none */
    bool dirty;
} Window;

struct FileBehind {
    int64_t keep;
    int64_t passed;             /* atomic: bytes read and written */
    bool useless;               /* atomic: the file system does not do it */
    DriverLock lock;
    Window windows[N_WINDOWS] GUARDED_BY(driver_class); /* a ring … */
    unsigned oldest GUARDED_BY(driver_class);           /* … from here */
};

void file_drop_behind(BlockDriverState *bs, int64_t keep)
{
    FileState *s = bs->opaque;
    FileBehind *b;

    if (s->behind || s->h.direct || s->h.in_memory ||
        (s->h.is_device && !s->h.is_blkdev)) {
        return;
    }
    b = g_new0(FileBehind, 1);
    b->keep = keep;
    driver_init(&b->lock);
    driver_lock(&b->lock);
    for (int i = 0; i < N_WINDOWS; i++) {
        b->windows[i].number = -1;
    }
    driver_unlock(&b->lock);
    s->behind = b;
}

void file_behind_free(FileBehind *b)
{
    if (b) {
        driver_destroy(&b->lock);
        g_free(b);
    }
}

/* ---- What the kernel is told ---- */

static void sync_window(FileState *s, int64_t number, unsigned flags)
{
    int ret = file_sync_range(s, number * WINDOW, WINDOW, flags);

    if (ret == -EINVAL || ret == -ESPIPE || ret == -ENOSYS) {
        qatomic_set(&s->behind->useless, true);
    }
}

static void start_writing(FileState *s, const Window *w)
{
    if (w->number >= 0 && w->dirty) {
        sync_window(s, w->number, SYNC_FILE_RANGE_WRITE);
    }
}

static void drop(FileState *s, const Window *w)
{
    if (w->number < 0) {
        return;
    }
    if (w->dirty) {
        sync_window(s, w->number, SYNC_FILE_RANGE_WAIT_BEFORE |
                                  SYNC_FILE_RANGE_WRITE |
                                  SYNC_FILE_RANGE_WAIT_AFTER);
    }
    if (posix_fadvise(s->h.fd, w->number * WINDOW, WINDOW,
                      POSIX_FADV_DONTNEED) != 0) {
        qatomic_set(&s->behind->useless, true);
    }
}

/* ---- Windows ---- */

/* @number is touched.  True: it was not in the ring; *out had to leave it, and
 * *previous was the newest before. */
static bool touch_locked(FileBehind *b, int64_t number, bool is_write,
                         Window *out, Window *previous) REQUIRES(driver_class)
{
    for (int i = 0; i < N_WINDOWS; i++) {
        Window *w = &b->windows[i];

        if (w->number == number) {
            w->dirty |= is_write;
            return false;
        }
    }
    *out = b->windows[b->oldest];
    *previous = b->windows[(b->oldest + N_WINDOWS - 1) % N_WINDOWS];
    b->windows[b->oldest] = (Window) { number, is_write };
    b->oldest = (b->oldest + 1) % N_WINDOWS;
    return true;
}

static void touch(FileState *s, int64_t number, bool is_write)
{
    FileBehind *b = s->behind;
    Window out, previous;
    bool is_new;

    driver_lock(&b->lock);
    is_new = touch_locked(b, number, is_write, &out, &previous);
    driver_unlock(&b->lock);
    if (is_new) {
        start_writing(s, &previous);
        drop(s, &out);
    }
}

void file_behind_passed(FileState *s, int64_t offset, int64_t bytes,
                        bool is_write)
{
    FileBehind *b = s->behind;
    int64_t passed = qatomic_fetch_add(&b->passed, bytes);

    if (passed < b->keep || qatomic_read(&b->useless)) {
        return;
    }
    for (int64_t n = offset / WINDOW; n <= (offset + bytes - 1) / WINDOW; n++) {
        touch(s, n, is_write);
    }
}
