/*
 * The image that a fuzz target works on: a disk in memory that counts its
 * requests, and from some number on fails them.  So what would not end does
 * end, and is found out.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"
#include "block/qcow2.h"
#include "qemu/bswap.h"
#include "qcow2-checker.h"

#define MAX_REQUESTS 400000

static BlockGraph *graph;

void fuzz_init(void)
{
    /* The driver says a lot about broken images.  Sanitizers, and we, write to
     * the descriptor. */
    stderr = fopen("/dev/null", "w");
    write_log_register();
    graph = block_graph_new();
    if (!stderr || !graph) {
        abort();
    }
}

void fuzz_fail(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vdprintf(STDERR_FILENO, format, ap);
    va_end(ap);
    dprintf(STDERR_FILENO, "\n");
    abort();
}

static FuzzImage *image_of(MemImage *mem)
{
    static unsigned serial;
    g_autofree char *id = g_strdup_printf("fuzz-%u", serial++);
    FuzzImage *img = g_new0(FuzzImage, 1);

    img->disk = write_log_disk_new(id, mem);
    write_log_start(img->disk);
    write_log_fail(img->disk, (WriteLogFault){ .mask = WLOG_ALL,
                   .nth = MAX_REQUESTS, .error = EIO, .forever = true });
    return img;
}

FuzzImage *fuzz_image_new(const uint8_t *data, size_t size)
{
    MemImage *mem = mem_image_new(size);

    mem_image_write(mem, 0, data, size);
    return image_of(mem);
}

FuzzImage *fuzz_image_clone(const FuzzImage *img)
{
    return image_of(mem_image_clone(img->disk->img));
}

void fuzz_image_free(FuzzImage *img)
{
    if (write_log_fired(img->disk)) {
        fuzz_fail("more than %d requests of the file", MAX_REQUESTS);
    }
    write_log_disk_free(img->disk);
    g_free(img);
}

BlockBackend *fuzz_image_open(FuzzImage *img, int flags)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:{s:s, s:s}}", "driver", "qcow2",
                          "l2-cache-size", 16384, "overlap-check", "all",
                          "file", "driver", "write-log",
                          "disk", img->disk->id);

    return blk_new_open(graph, NULL, NULL, o, flags | BDRV_O_NO_BACKING, NULL);
}

void fuzz_image_assert_unchanged(FuzzImage *img)
{
    for (guint i = 0; i < img->disk->log->len; i++) {
        WriteLogEntry *e = &g_array_index(img->disk->log, WriteLogEntry, i);

        if (WLOG_CHANGES & 1u << e->op) {
            fuzz_fail("written to, at %" PRId64 ", but not opened for that",
                      e->offset);
        }
    }
}

void fuzz_image_keep(const FuzzImage *img)
{
    const char *path = getenv("FUZZ_KEEP");

    if (path && mem_image_save(img->disk->img, path) < 0) {
        fuzz_fail("%s cannot be written", path);
    }
}

/* A copy that is as long as a refcount block can tell, so that refcounts of
 * what is behind the end are looked at. */
static MemImage *lengthened(const FuzzImage *img)
{
    MemImage *copy = mem_image_clone(img->disk->img);
    int64_t size = mem_image_size(copy);
    uint8_t h[104];

    mem_image_read(copy, 0, h, sizeof(h));
    if (size <= FUZZ_MAX_INPUT && h[23] >= QCOW2_MIN_CLUSTER_BITS &&
        h[23] <= 16) {
        mem_image_truncate(copy, size + (INT64_C(65536) << h[23]));
    }
    return copy;
}

static bool tolerates(FuzzSoundness how, const Qcow2CheckerResult *r)
{
    return (r->odd_flags && how != FUZZ_PRISTINE) ||
           (r->overlaps && how == FUZZ_REPAIRED);
}

bool fuzz_image_is_sound(const FuzzImage *img, FuzzSoundness how, GString *why)
{
    g_autoptr(MemImage) mem = how == FUZZ_REPAIRED ?
                              mem_image_clone(img->disk->img) :
                              lengthened(img);
    Qcow2CheckerResult r = { 0 };
    uint8_t h[104];
    unsigned leaks;

    mem_image_read(mem, 0, h, sizeof(h));
    if (h[7] >= 3 && h[79] & QCOW2_INCOMPAT_DATA_FILE) {
        return true;            /* it does not know these */
    }
    if (h[7] >= 3 && ldl_be_p(h + 100) > 2 * QCOW2_HEADER_LENGTH &&
        how == FUZZ_PRISTINE) {
        return false;
    }
    if (!qcow2_checker_run(mem, &r, why)) {
        return tolerates(how, &r);
    }
    leaks = r.leaks - (how == FUZZ_REPAIRED ? r.leaks_behind : 0);
    g_string_append_printf(why, "%sdirty, %u leaks, %u flags",
                           r.is_dirty ? "" : "not ", leaks, r.miscopied);
    return !r.is_dirty && !leaks && !r.miscopied;
}
