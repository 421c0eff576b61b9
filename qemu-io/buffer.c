/*
 * Buffers of transfers: aligned as the image asks, or on purpose not (-m).
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

uint8_t *io_alloc_buffer(QemuIo *io, size_t bytes, int pattern,
                         bool registered)
{
    size_t extra = io->misalign ? MISALIGN_OFFSET : 0;
    uint8_t *buf = blk_try_blockalign(io->blk, MAX(bytes + extra, 1));

    if (!buf) {
        printf("Could not allocate %zu bytes\n", bytes);
        return NULL;
    }
    memset(buf, pattern, bytes + extra);
    buf += extra;
    if (registered) {
        bdrv_register_buf(buf, bytes);
    }
    return buf;
}

void io_free_buffer(QemuIo *io, uint8_t *buf, size_t bytes, bool registered)
{
    if (!buf) {
        return;
    }
    if (registered) {
        bdrv_unregister_buf(buf, bytes);
    }
    qemu_vfree(buf - (io->misalign ? MISALIGN_OFFSET : 0));
}

uint8_t *io_alloc_buffer_from_file(QemuIo *io, size_t bytes,
                                   const char *filename, bool registered)
{
    FILE *f = fopen(filename, "rb");
    uint8_t *buf;
    size_t got;

    if (!f) {
        fprintf(stderr, "%s: %s\n", filename, g_strerror(errno));
        return NULL;
    }
    buf = io_alloc_buffer(io, bytes, 0, registered);
    if (!buf) {
        fclose(f);
        return NULL;
    }
    got = fread(buf, 1, bytes, f);
    if (ferror(f) || (got == 0 && bytes > 0)) {
        if (ferror(f)) {
            fprintf(stderr, "%s: %s\n", filename, g_strerror(errno));
        } else {
            fprintf(stderr, "%s: file is empty\n", filename);
        }
        io_free_buffer(io, buf, bytes, registered);
        fclose(f);
        return NULL;
    }
    fclose(f);
    for (size_t i = got; i < bytes; i++) {
        buf[i] = buf[i - got];
    }
    return buf;
}

/* The lengths in @argv into @sizes; their sum, or -1 after a message. */
static int64_t parse_sizes(char **argv, int n, int64_t *sizes)
{
    int64_t total = 0;

    for (int i = 0; i < n; i++) {
        sizes[i] = io_parse_size(argv[i]);
        if (sizes[i] < 0) {
            return -1;
        }
        if (sizes[i] > IO_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRId64 "\n",
                   argv[i], IO_MAX_BYTES);
            return -1;
        }
        if (total > IO_MAX_BYTES - sizes[i]) {
            printf("The total number of bytes exceed the maximum size "
                   "%" PRId64 "\n", IO_MAX_BYTES);
            return -1;
        }
        total += sizes[i];
    }
    return total;
}

uint8_t *io_make_vector(QemuIo *io, QEMUIOVector *qiov, char **argv, int n,
                        int pattern, bool registered)
{
    g_autofree int64_t *sizes = g_new0(int64_t, n);
    int64_t total = parse_sizes(argv, n, sizes);
    uint8_t *buf, *p;

    if (total < 0) {
        return NULL;
    }
    buf = io_alloc_buffer(io, total, pattern, registered);
    if (!buf) {
        return NULL;
    }
    qemu_iovec_init(qiov, n);
    p = buf;
    for (int i = 0; i < n; i++) {
        qemu_iovec_add(qiov, p, sizes[i]);
        p += sizes[i];
    }
    return buf;
}

bool io_is_pattern(const uint8_t *buf, size_t bytes, int pattern)
{
    /* The first byte is it, and every byte is as the one before. */
    return bytes == 0 ||
           (buf[0] == pattern && memcmp(buf, buf + 1, bytes - 1) == 0);
}
