/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scatter-gather lists.
 *
 * Everything that touches data is one walk: find the entry that @offset falls
 * into, then go on piece by piece until @bytes are done or the list ends.  The
 * walk is a small cursor, and what is done with a piece is written out in each
 * function, so that the compiler sees a memcpy and not a callback.  A list of
 * one entry costs the cursor two comparisons.
 *
 * Empty entries are legal anywhere.
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/zero.h"

/* --- The walk ---------------------------------------------------------- */

typedef struct IovCursor {
    const struct iovec *iov, *end;
    size_t skip;        /* bytes of *iov that lie behind us */
    size_t bytes;       /* bytes still wanted */
} IovCursor;

static IovCursor cursor_at(const struct iovec *iov, unsigned int niov,
                           size_t offset, size_t bytes)
{
    const struct iovec *end = iov + niov;

    while (iov < end && offset >= iov->iov_len) {
        offset -= iov->iov_len;
        iov++;
    }
    return (IovCursor) { iov, end, offset, bytes };
}

/* The next piece, never empty; false when all is done or the list ends. */
static bool cursor_next(IovCursor *c, char **base, size_t *len)
{
    while (c->bytes && c->iov < c->end) {
        *base = (char *)c->iov->iov_base + c->skip;
        *len = MIN(c->iov->iov_len - c->skip, c->bytes);
        c->iov++;
        c->skip = 0;
        c->bytes -= *len;
        if (*len) {
            return true;
        }
    }
    return false;
}

/* --- Plain arrays ------------------------------------------------------ */

size_t iov_size(const struct iovec *iov, unsigned int niov)
{
    size_t size = 0;

    for (unsigned int i = 0; i < niov; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

size_t iov_to_buf_full(const struct iovec *iov, unsigned int niov,
                       size_t offset, void *buf, size_t bytes)
{
    IovCursor c = cursor_at(iov, niov, offset, bytes);
    size_t done = 0, len;
    char *base;

    while (cursor_next(&c, &base, &len)) {
        memcpy((char *)buf + done, base, len);
        done += len;
    }
    return done;
}

size_t iov_from_buf_full(const struct iovec *iov, unsigned int niov,
                         size_t offset, const void *buf, size_t bytes)
{
    IovCursor c = cursor_at(iov, niov, offset, bytes);
    size_t done = 0, len;
    char *base;

    while (cursor_next(&c, &base, &len)) {
        memcpy(base, (const char *)buf + done, len);
        done += len;
    }
    return done;
}

size_t iov_memset(const struct iovec *iov, unsigned int niov,
                  size_t offset, int fillc, size_t bytes)
{
    IovCursor c = cursor_at(iov, niov, offset, bytes);
    size_t done = 0, len;
    char *base;

    while (cursor_next(&c, &base, &len)) {
        memset(base, fillc, len);
        done += len;
    }
    return done;
}

size_t iov_discard_front(struct iovec **iov, unsigned int *niov, size_t bytes)
{
    size_t done = 0;

    while (*niov && bytes - done >= (*iov)->iov_len) {
        done += (*iov)->iov_len;
        (*iov)++;
        (*niov)--;
    }
    if (*niov && done < bytes) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + (bytes - done);
        (*iov)->iov_len -= bytes - done;
        done = bytes;
    }
    return done;
}

size_t iov_discard_back(struct iovec *iov, unsigned int *niov, size_t bytes)
{
    size_t done = 0;

    while (*niov && bytes - done >= iov[*niov - 1].iov_len) {
        done += iov[*niov - 1].iov_len;
        (*niov)--;
    }
    if (*niov && done < bytes) {
        iov[*niov - 1].iov_len -= bytes - done;
        done = bytes;
    }
    return done;
}

unsigned int iov_copy(struct iovec *dst, unsigned int ndst,
                      const struct iovec *src, unsigned int nsrc,
                      size_t offset, size_t bytes)
{
    IovCursor c = cursor_at(src, nsrc, offset, bytes);
    unsigned int n = 0;
    size_t len;
    char *base;

    while (n < ndst && cursor_next(&c, &base, &len)) {
        dst[n].iov_base = base;
        dst[n].iov_len = len;
        n++;
    }
    return n;
}

/* --- QEMUIOVector: making one ------------------------------------------ */

void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint)
{
    qiov->niov = 0;
    qiov->size = 0;
    if (alloc_hint <= QIOV_LOCAL) {
        qiov->iov = qiov->local;
        qiov->nalloc = QIOV_LOCAL;
    } else {
        qiov->iov = g_new(struct iovec, alloc_hint);
        qiov->nalloc = alloc_hint;
    }
}

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov)
{
    qiov->iov = iov;
    qiov->niov = niov;
    qiov->nalloc = 0;
    qiov->size = iov_size(iov, niov);
}

void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *source,
                           size_t offset, size_t bytes)
{
    IovCursor c, count;
    size_t len;
    char *base;
    int n = 0;

    g_assert(offset <= source->size && bytes <= source->size - offset);
    c = cursor_at(source->iov, source->niov, offset, bytes);
    count = c;
    while (cursor_next(&count, &base, &len)) {
        n++;
    }

    if (n > QIOV_LOCAL && c.skip == 0 &&
        base + len == (char *)count.iov[-1].iov_base + count.iov[-1].iov_len) {
        /* Both ends fall on entries: share them, the empty ones as well. */
        qiov->iov = (struct iovec *)c.iov;
        qiov->niov = count.iov - c.iov;
        qiov->nalloc = 0;
    } else {
        qemu_iovec_init(qiov, n);
        qiov->niov = iov_copy(qiov->iov, n, source->iov, source->niov,
                              offset, bytes);
    }
    qiov->size = bytes;
}

void qemu_iovec_destroy(QEMUIOVector *qiov)
{
    if (qiov->nalloc && qiov->iov != qiov->local) {
        g_free(qiov->iov);
    }
    qiov->iov = NULL;
    qiov->niov = 0;
    qiov->nalloc = 0;
    qiov->size = 0;
}

void qemu_iovec_reset(QEMUIOVector *qiov)
{
    g_assert(qiov->nalloc);
    qiov->niov = 0;
    qiov->size = 0;
}

/* Room for @n more entries. */
static void reserve(QEMUIOVector *qiov, int n)
{
    int need = qiov->niov + n;

    g_assert(qiov->nalloc);
    if (need <= qiov->nalloc) {
        return;
    }
    qiov->nalloc = MAX(need, 2 * qiov->nalloc);
    if (qiov->iov == qiov->local) {
        qiov->iov = g_new(struct iovec, qiov->nalloc);
        memcpy(qiov->iov, qiov->local, qiov->niov * sizeof(struct iovec));
    } else {
        qiov->iov = g_renew(struct iovec, qiov->iov, qiov->nalloc);
    }
}

void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len)
{
    reserve(qiov, 1);
    qiov->iov[qiov->niov].iov_base = base;
    qiov->iov[qiov->niov].iov_len = len;
    qiov->niov++;
    qiov->size += len;
}

void qemu_iovec_concat(QEMUIOVector *dst, const QEMUIOVector *src,
                       size_t offset, size_t bytes)
{
    g_assert(offset <= src->size && bytes <= src->size - offset);
    reserve(dst, src->niov);
    dst->niov += iov_copy(dst->iov + dst->niov, dst->nalloc - dst->niov,
                          src->iov, src->niov, offset, bytes);
    dst->size += bytes;
}

/* --- QEMUIOVector: data ------------------------------------------------ */

void qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset,
                       void *buf, size_t bytes)
{
    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    iov_to_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

void qemu_iovec_from_buf(const QEMUIOVector *qiov, size_t offset,
                         const void *buf, size_t bytes)
{
    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    iov_from_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

void qemu_iovec_memset(const QEMUIOVector *qiov, size_t offset,
                       int fillc, size_t bytes)
{
    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    iov_memset(qiov->iov, qiov->niov, offset, fillc, bytes);
}

bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    IovCursor c;
    size_t len;
    char *base;

    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    c = cursor_at(qiov->iov, qiov->niov, offset, bytes);
    while (cursor_next(&c, &base, &len)) {
        if (!buffer_is_zero(base, len)) {
            return false;
        }
    }
    return true;
}

/* Index of the first byte that differs; @len if none does. */
static size_t mismatch(const char *a, const char *b, size_t len)
{
    size_t i = 0;

    /* memcmp is fast but does not say where: narrow it down by blocks. */
    while (len - i > 256 && memcmp(a + i, b + i, 256) == 0) {
        i += 256;
    }
    while (i < len && a[i] == b[i]) {
        i++;
    }
    return i;
}

ssize_t qemu_iovec_compare(const QEMUIOVector *a, const QEMUIOVector *b)
{
    IovCursor ca = cursor_at(a->iov, a->niov, 0, a->size);
    IovCursor cb = cursor_at(b->iov, b->niov, 0, b->size);
    char *pa = NULL, *pb = NULL;
    size_t la = 0, lb = 0, done = 0;

    g_assert(a->size == b->size);
    while (done < a->size) {
        size_t n, same;

        if (!la) {
            cursor_next(&ca, &pa, &la);
        }
        if (!lb) {
            cursor_next(&cb, &pb, &lb);
        }
        n = MIN(la, lb);
        same = mismatch(pa, pb, n);
        if (same < n) {
            return done + same;
        }
        pa += n, la -= n;
        pb += n, lb -= n;
        done += n;
    }
    return -1;
}

void *qemu_iovec_contiguous(const QEMUIOVector *qiov, size_t offset,
                            size_t bytes)
{
    IovCursor c;
    size_t len;
    char *base;

    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    c = cursor_at(qiov->iov, qiov->niov, offset, bytes);
    return cursor_next(&c, &base, &len) && len == bytes ? base : NULL;
}

bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align)
{
    uintptr_t bits = 0;

    for (int i = 0; i < qiov->niov; i++) {
        bits |= (uintptr_t)qiov->iov[i].iov_base | qiov->iov[i].iov_len;
    }
    return !(bits & (align - 1));
}
