/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scatter-gather lists: plain arrays of struct iovec, and QEMUIOVector, which
 * owns one (or borrows it) and knows its length.
 *
 * Offsets and lengths are bytes from the start of the list.  The functions on
 * plain arrays stop at the end of the list and return how far they got.  Those
 * on a QEMUIOVector want @offset + @bytes within it, which is asserted: the
 * caller's own bookkeeping, never a guest's word.
 *
 * Nothing here locks or blocks; allocation failure aborts, as in glib.
 */
#ifndef QEMU_IOV_H
#define QEMU_IOV_H

#include "qemu/osdep.h"

/* Entries that a QEMUIOVector holds without allocating. */
#define QIOV_LOCAL 4

/*
 * Read niov, iov and size freely.  The struct may not be copied or moved once
 * initialised: iov may point into it.
 */
typedef struct QEMUIOVector {
    struct iovec *iov;
    int niov;
    int nalloc;     /* room in iov; 0: iov is borrowed and may not grow */
    size_t size;    /* bytes, all entries together */
    struct iovec local[QIOV_LOCAL];
} QEMUIOVector;

/* --- Making one -------------------------------------------------------- */

/* Empty, ready for _add; room for @alloc_hint entries at once. */
void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint);

/* One buffer; nothing allocated, and _destroy is not needed. */
static inline void qemu_iovec_init_buf(QEMUIOVector *qiov, void *buf,
                                       size_t len)
{
    qiov->local[0].iov_base = buf;
    qiov->local[0].iov_len = len;
    qiov->iov = qiov->local;
    qiov->niov = 1;
    qiov->nalloc = 0;
    qiov->size = len;
}

/* For static initialisers and automatic variables; @self is the variable. */
#define QEMU_IOVEC_INIT_BUF(self, buf, len) {                                \
    .iov = (self).local, .niov = 1, .size = (len),                           \
    .local[0] = { .iov_base = (void *)(buf), .iov_len = (len) } }

/* Borrow an array, which must outlive @qiov; _destroy is not needed. */
void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov);

/*
 * A view of @bytes of @source from @offset.  Borrows the array where the ends
 * fall on entries, copies up to QIOV_LOCAL entries into itself otherwise, and
 * allocates only beyond that.  @source must outlive it.  _destroy it.
 */
void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *source,
                           size_t offset, size_t bytes);

/* Free what was allocated; the buffers are not ours.  Leaves it empty. */
void qemu_iovec_destroy(QEMUIOVector *qiov);

/* Make it empty, keep the room. */
void qemu_iovec_reset(QEMUIOVector *qiov);

/* Append a buffer.  Not for borrowed ones (_init_buf, _external, _slice). */
void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len);

/* Append @bytes of @src from @offset. */
void qemu_iovec_concat(QEMUIOVector *dst, const QEMUIOVector *src,
                       size_t offset, size_t bytes);

/* --- Data ---------------------------------------------------------------- */

void qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset,
                       void *buf, size_t bytes);
void qemu_iovec_from_buf(const QEMUIOVector *qiov, size_t offset,
                         const void *buf, size_t bytes);
void qemu_iovec_memset(const QEMUIOVector *qiov, size_t offset,
                       int fillc, size_t bytes);

/* Whether all of the range is zero bytes. */
bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset,
                        size_t bytes);

/*
 * Offset of the first byte that differs, -1 if there is none.  Both must be of
 * one size.
 */
ssize_t qemu_iovec_compare(const QEMUIOVector *a, const QEMUIOVector *b);

/*
 * If the range lies in one entry, its address; else NULL.  (Lets a caller
 * avoid a bounce buffer.)
 */
void *qemu_iovec_contiguous(const QEMUIOVector *qiov, size_t offset,
                            size_t bytes);

/* Whether every address and length is a multiple of @align (power of two). */
bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align);

/* --- Plain arrays ------------------------------------------------------ */

/* Bytes in all entries together. */
size_t iov_size(const struct iovec *iov, unsigned int niov);

/* Copy out, copy in, fill: return the bytes done, short at the list's end. */
size_t iov_to_buf_full(const struct iovec *iov, unsigned int niov,
                       size_t offset, void *buf, size_t bytes);
size_t iov_from_buf_full(const struct iovec *iov, unsigned int niov,
                         size_t offset, const void *buf, size_t bytes);
size_t iov_memset(const struct iovec *iov, unsigned int niov,
                  size_t offset, int fillc, size_t bytes);

/* The usual case is one entry, or the first of a few: no call for that. */
static inline size_t iov_to_buf(const struct iovec *iov, unsigned int niov,
                                size_t offset, void *buf, size_t bytes)
{
    if (likely(niov && bytes && offset <= iov[0].iov_len &&
               bytes <= iov[0].iov_len - offset)) {
        memcpy(buf, (const char *)iov[0].iov_base + offset, bytes);
        return bytes;
    }
    return iov_to_buf_full(iov, niov, offset, buf, bytes);
}

static inline size_t iov_from_buf(const struct iovec *iov, unsigned int niov,
                                  size_t offset, const void *buf,
                                  size_t bytes)
{
    if (likely(niov && bytes && offset <= iov[0].iov_len &&
               bytes <= iov[0].iov_len - offset)) {
        memcpy((char *)iov[0].iov_base + offset, buf, bytes);
        return bytes;
    }
    return iov_from_buf_full(iov, niov, offset, buf, bytes);
}

/*
 * Drop @bytes from the front: advances *@iov and *@niov, and changes the first
 * remaining entry in place.  Returns the bytes dropped.
 */
size_t iov_discard_front(struct iovec **iov, unsigned int *niov,
                         size_t bytes);

/* Drop @bytes from the back: *@niov shrinks, the last entry is changed. */
size_t iov_discard_back(struct iovec *iov, unsigned int *niov, size_t bytes);

/*
 * Describe @bytes of @src from @offset in @dst, which has room for @ndst
 * entries.  Returns the entries used; short if either list ends first.
 */
unsigned int iov_copy(struct iovec *dst, unsigned int ndst,
                      const struct iovec *src, unsigned int nsrc,
                      size_t offset, size_t bytes);

#endif
