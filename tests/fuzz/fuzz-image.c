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
#include "crypto/secret.h"
#include "qemu/bswap.h"
#include "qcow2-checker.h"

#define MAX_REQUESTS 400000
/* Of a data file: images name clusters of it that are not there, too. */
#define DATA_FILE_BYTES (192 * KiB)
#define SECRET "pass"

static BlockGraph *graph;

void fuzz_init(void)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };

    /* The driver says a lot about broken images.  Sanitizers, and we, write to
     * the descriptor. */
    stderr = fopen("/dev/null", "w");
    fuzz_memory_init();
    write_log_register();
    graph = block_graph_new();
    if (!stderr || !graph ||
        !user_creatable_add(types, json_pack("{s:s, s:s, s:s}", "qom-type",
                            "secret", "id", "fuzz", "data", SECRET), NULL)) {
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

/* ---- Disks ---- */

static WriteLogDisk *disk_of(MemImage *mem)
{
    static unsigned serial;
    g_autofree char *id = g_strdup_printf("fuzz-%u", serial++);
    WriteLogDisk *disk = write_log_disk_new(id, mem);

    write_log_start(disk);
    write_log_fail(disk, (WriteLogFault){ .mask = WLOG_ALL,
                   .nth = MAX_REQUESTS, .error = EIO, .forever = true });
    return disk;
}

/* NULL is none. */
static void free_disk(WriteLogDisk *disk)
{
    if (!disk) {
        return;
    }
    if (write_log_fired(disk)) {
        fuzz_fail("more than %d requests of the file", MAX_REQUESTS);
    }
    write_log_disk_free(disk);
}

static unsigned changes_of(const WriteLogDisk *disk)
{
    unsigned n = 0;

    for (guint i = 0; disk && i < disk->log->len; i++) {
        WriteLogEntry *e = &g_array_index(disk->log, WriteLogEntry, i);

        n += (WLOG_CHANGES & 1u << e->op) != 0;
    }
    return n;
}

static bool wants_data_file(const MemImage *mem)
{
    uint8_t h[80];

    mem_image_read(mem, 0, h, sizeof(h));
    return ldl_be_p(h + 4) >= 3 &&
           ldq_be_p(h + 72) & QCOW2_INCOMPAT_DATA_FILE;
}

/* No two sectors are the same. */
static MemImage *new_data_file(void)
{
    MemImage *mem = mem_image_new(DATA_FILE_BYTES);
    uint8_t sector[512];

    for (int64_t at = 0; at < DATA_FILE_BYTES; at += sizeof(sector)) {
        memset(sector, 0x5a, sizeof(sector));
        stq_be_p(sector, at);
        mem_image_write(mem, at, sector, sizeof(sector));
    }
    return mem;
}

/* ---- Images ---- */

FuzzImage *fuzz_image_new(const uint8_t *data, size_t size)
{
    FuzzImage *img = g_new0(FuzzImage, 1);
    MemImage *mem = mem_image_new(size);

    mem_image_write(mem, 0, data, size);
    img->disk = disk_of(mem);
    if (wants_data_file(mem)) {
        img->data = disk_of(new_data_file());
    }
    return img;
}

FuzzImage *fuzz_image_clone(const FuzzImage *img)
{
    FuzzImage *copy = g_new0(FuzzImage, 1);

    copy->disk = disk_of(mem_image_clone(img->disk->img));
    copy->data = img->data ? disk_of(mem_image_clone(img->data->img)) : NULL;
    return copy;
}

void fuzz_image_free(FuzzImage *img)
{
    free_disk(img->disk);
    free_disk(img->data);
    g_free(img);
}

static json_t *node_of(const WriteLogDisk *disk)
{
    return json_pack("{s:s, s:s}", "driver", "write-log", "disk", disk->id);
}

bool fuzz_image_is_encrypted(const FuzzImage *img)
{
    return mem_image_get32(img->disk->img, 32) != QCOW2_CRYPT_NONE;
}

bool fuzz_image_is_locked(const FuzzImage *img)
{
    return mem_image_get32(img->disk->img, 32) == QCOW2_CRYPT_LUKS;
}

bool fuzz_image_has_snapshots(const FuzzImage *img)
{
    return mem_image_get32(img->disk->img, 60) != 0;
}

BlockBackend *fuzz_image_open(FuzzImage *img, int flags)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:o}", "driver", "qcow2",
                          "l2-cache-size", 16384, "overlap-check", "all",
                          "file", node_of(img->disk));

    if (img->data) {
        json_object_set_new(o, "data-file", node_of(img->data));
    }
    if (fuzz_image_is_encrypted(img) && !fuzz_image_is_locked(img)) {
        json_object_set_new(o, "encrypt", json_pack("{s:s}", "key-secret",
                                                    "fuzz"));
    }
    return blk_new_open(graph, NULL, NULL, o, flags | BDRV_O_NO_BACKING, NULL);
}

unsigned fuzz_image_changes(const FuzzImage *img)
{
    return changes_of(img->disk) + changes_of(img->data);
}

void fuzz_image_assert_unchanged(const FuzzImage *img)
{
    if (fuzz_image_changes(img)) {
        fuzz_fail("written to, but not opened for that");
    }
}

void fuzz_image_keep(const FuzzImage *img)
{
    const char *path = getenv("FUZZ_KEEP");

    if (path && mem_image_save(img->disk->img, path) < 0) {
        fuzz_fail("%s cannot be written", path);
    }
}

void fuzz_image_lengthen(FuzzImage *img)
{
    MemImage *mem = img->disk->img;
    int64_t size = mem_image_size(mem);
    uint32_t bits = mem_image_get32(mem, 20);

    if (size <= FUZZ_MAX_INPUT && bits >= QCOW2_MIN_CLUSTER_BITS &&
        bits <= 16) {
        mem_image_truncate(mem, size + (INT64_C(65536) << bits));
    }
}

static bool tolerates(FuzzSoundness how, const Qcow2CheckerResult *r)
{
    return (r->odd_flags && how != FUZZ_PRISTINE) ||
           (r->overlaps && how == FUZZ_REPAIRED);
}

bool fuzz_image_is_sound(const FuzzImage *img, FuzzSoundness how, GString *why)
{
    g_autoptr(FuzzImage) copy = fuzz_image_clone(img);
    const MemImage *mem = copy->disk->img;
    Qcow2CheckerResult r = { 0 };
    uint8_t h[104];
    unsigned leaks;

    if (how == FUZZ_REPAIRED && img->data) {
        return true;            /* nobody checks which of its clusters it is */
    }
    if (how != FUZZ_REPAIRED) {
        fuzz_image_lengthen(copy);
    }
    mem_image_read(mem, 0, h, sizeof(h));
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
