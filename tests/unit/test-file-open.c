/*
 * Tests of the file driver: options, opening, length, creating, taking over.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "block/fdset.h"
#include "file-faults.h"

/* ---- Options and opening ---- */

static void check_open_error(const char *filename, const char *options,
                             int flags, const char *expected)
{
    g_autoptr(Error) err = NULL;

    g_assert_null(fake_open(filename, options, flags, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
}

static void test_bad_options(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "options", 512);

    check_open_error(path, "{'aio':'native'}", 0,
                     "aio=native was specified, but it requires "
                     "cache.direct=on, which was not specified.");
    check_open_error(path, "{'pr-manager':'x'}", 0,
                     "No persistent reservation manager with id 'x'");
    check_open_error("", NULL, 0,
                     "The 'file' block driver requires a file name");
    check_open_error("/dev/fdset/9", NULL, 0,
                     "Could not open '/dev/fdset/9': No such file or "
                     "directory");
}

static void test_wrong_type(void)
{
    g_autofree char *fifo = g_build_filename(fake_dir_on_disk(), "fifo", NULL);
    g_autofree char *expected = NULL;

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    expected = g_strdup_printf("'file' driver requires '%s' to be a regular "
                               "file", fifo);
    check_open_error(fifo, NULL, 0, expected);
    check_open_error(fifo, NULL, BDRV_O_RDWR, expected);
    check_open_error("/dev/null", NULL, 0, "'file' driver requires "
                     "'/dev/null' to be a regular file");
    check_open_error("/", NULL, 0,
                     "'file' driver requires '/' to be a regular file");
}

static int open_as_nobody(const char *path)
{
    BlockDriverState *bs;

    /* Permissions do not stop root. */
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) {
        return 77;
    }
    if (fake_open(path, NULL, BDRV_O_RDWR, NULL)) {
        return 1;
    }
    bs = fake_open(path, NULL, BDRV_O_RDWR | BDRV_O_AUTO_RDONLY, NULL);
    return !bs || !bs->read_only || (bs->open_flags & BDRV_O_RDWR) ? 2 : 0;
}

static void test_auto_read_only(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "ro", 512);
    int status;
    pid_t pid;

    g_assert_cmpint(chmod(path, 0444), ==, 0);
    g_assert_cmpint(chmod(fake_dir_on_disk(), 0755), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        _exit(open_as_nobody(path));
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        g_test_skip("may not become an ordinary user");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

static void test_by_descriptor(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "by-fd", 512);
    g_autofree char *set = NULL;
    BlockDriverState *bs;
    char buf[512];

    fdset_add_named("disk", open(path, O_RDONLY | O_CLOEXEC));
    bs = fake_open("fd:disk", NULL, 0, &error_abort);
    g_assert_cmpint(bs->total_bytes, ==, 512);
    g_assert_cmpint(fake_pread(bs, 0, buf, 512), ==, 0);
    g_assert_true(fake_is_filled(buf, 0x5a, 512));
    fake_close(bs);
    g_assert_null(fake_open("fd:disk", NULL, BDRV_O_RDWR, NULL));

    set = g_strdup_printf("/dev/fdset/%" PRId64,
                          fdset_add(-1, open(path, O_RDWR | O_CLOEXEC), NULL));
    bs = fake_open(set, NULL, BDRV_O_RDWR, &error_abort);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    fake_close(bs);
    fdset_clear();
}

static const char *engine_of(BlockDriverState *bs)
{
    g_autoptr(json_t) info = bs->drv->get_specific_info(bs, &error_abort);
    json_t *engine = json_object_get(json_object_get(info, "data"), "engine");

    return engine ? g_intern_string(json_string_value(engine)) : NULL;
}

static void test_engine_is_chosen(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "engine", 4096);
    BlockDriverState *bs;

    if (fake_skip_without_disk()) {
        return;
    }
    bs = fake_open(path, NULL, 0, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, uring_available() ? "io_uring" :
                    "threads");
    fake_close(bs);
    if (fake_dir_in_memory()) {
        g_autofree char *mem = fake_file(fake_dir_in_memory(), "engine", 512);

        bs = fake_open(mem, NULL, 0, &error_abort);
        g_assert_cmpstr(engine_of(bs), ==, "threads");
        fake_close(bs);
    }
    bs = fake_open(path, NULL, BDRV_O_NO_IO, &error_abort);
    g_assert_null(engine_of(bs));
    fake_close(bs);
    if (uring_available()) {
        bs = fake_open(path, "{'aio':'io_uring'}", 0, &error_abort);
        g_assert_cmpstr(engine_of(bs), ==, "io_uring");
        fake_close(bs);
    }
    if (fake_skip_without_direct(fake_dir_on_disk())) {
        return;
    }
    bs = fake_open(path, NULL, BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, uring_available() ? "io_uring" :
                    laio_available() ? "native" : "threads");
    fake_close(bs);
    bs = fake_open(path, "{'aio':'threads'}", BDRV_O_NOCACHE, &error_abort);
    g_assert_cmpstr(engine_of(bs), ==, "threads");
    fake_close(bs);
}

static void test_reopen(void)
{
    g_autofree char *path = fake_file(fake_dir_on_disk(), "reopen", 4096);
    g_autofree char *moved = g_strconcat(path, ".moved", NULL);
    BlockDriverState *bs = fake_open(path, NULL, BDRV_O_RDWR, &error_abort);
    char buf[512] = "";

    g_assert_true(fake_reopen(bs, 0, &error_abort));
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, -EBADF);
    /* Another file of this name is not what was opened. */
    g_assert_cmpint(rename(path, moved), ==, 0);
    g_free(fake_file(fake_dir_on_disk(), "reopen", 512));
    g_assert_true(fake_reopen(bs, BDRV_O_RDWR, &error_abort));
    g_assert_cmpint(bs->drv->getlength(bs), ==, 4096);
    g_assert_cmpint(fake_pwrite(bs, 0, buf, 512, 0), ==, 0);
    fake_close(bs);
}

/* ---- Length ---- */

static bool truncate_to(BlockDriverState *bs, int64_t length,
                        PreallocMode mode, Error **errp)
{
    return bs->drv->truncate(bs, length, true, mode, 0, errp);
}

static void test_truncate(void)
{
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "truncate", 4096);
    g_autoptr(Error) e1 = NULL, e2 = NULL;

    g_assert_true(truncate_to(bs, 1 * MiB, PREALLOC_MODE_OFF, &error_abort));
    g_assert_cmpint(bs->drv->getlength(bs), ==, 1 * MiB);
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), <=, 64 * KiB);
    g_assert_true(truncate_to(bs, 2 * MiB, PREALLOC_MODE_FALLOC,
                              &error_abort));
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), >=, 1 * MiB);
    g_assert_true(truncate_to(bs, 3 * MiB, PREALLOC_MODE_FULL, &error_abort));
    g_assert_cmpint(bs->drv->get_allocated_file_size(bs), >=, 2 * MiB);
    g_assert_cmpint(bs->drv->getlength(bs), ==, 3 * MiB);
    g_assert_true(truncate_to(bs, 512, PREALLOC_MODE_OFF, &error_abort));

    g_assert_false(truncate_to(bs, 0, PREALLOC_MODE_FULL, &e1));
    g_assert_cmpstr(error_get_pretty(e1), ==,
                    "Cannot use preallocation for shrinking files");
    g_assert_false(truncate_to(bs, 4096, PREALLOC_MODE_METADATA, &e2));
    g_assert_cmpstr(error_get_pretty(e2), ==,
                    "Unsupported preallocation mode: metadata");
    g_assert_cmpint(bs->drv->getlength(bs), ==, 512);
    fake_close(bs);
}

static void test_failed_preallocation_restores(void)
{
    static const Fault falloc[] = { { .err = ENOSPC } };
    static const Fault write[] = { { .at_most = 100 }, { .err = ENOSPC } };
    static const Fault sync[] = { { .at_most = SIZE_MAX }, { .err = EIO } };
    BlockDriverState *bs = open_rw(fake_dir_on_disk(), "prealloc", 4096);
    g_autoptr(Error) e1 = NULL, e2 = NULL, e3 = NULL;

    faults_begin(falloc, 1);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FALLOC, &e1));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e1), ==, "Could not preallocate new "
                    "data: No space left on device");
    faults_begin(write, 2);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FULL, &e2));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e2), ==, "Could not write zeros for "
                    "preallocation: No space left on device");
    faults_begin(sync, 2);
    g_assert_false(truncate_to(bs, 65536, PREALLOC_MODE_FULL, &e3));
    faults_end();
    g_assert_cmpstr(error_get_pretty(e3), ==,
                    "Could not flush file to disk: Input/output error");
    g_assert_cmpint(bs->drv->getlength(bs), ==, 4096);
    /* Who knows whose data that sync lost. */
    g_assert_cmpint(bs->drv->flush(bs), ==, -EIO);
    fake_close(bs);
}

/* ---- Taking over from another host ---- */

static bool is_cached(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = mmap(NULL, 64 * KiB, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char vec[16] = "";
    bool cached = false;

    g_assert_cmpint(mincore(map, 64 * KiB, vec), ==, 0);
    for (int i = 0; i < 16; i++) {
        cached |= vec[i] & 1;
    }
    munmap(map, 64 * KiB);
    close(fd);
    return cached;
}

static void test_activate(void)
{
    const char *dir = fake_dir_on_disk();
    g_autofree char *path = fake_file(dir, "activate", 64 * KiB);
    g_autoptr(Error) err = NULL;
    BlockDriverState *bs;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool in_memory;
    void *map;

    bs = fake_open(path, "{'drop-cache':false}", BDRV_O_RDWR, &error_abort);
    in_memory = fake_state(bs)->h.in_memory;
    g_assert_true(bs->drv->activate(bs, &error_abort));
    fake_close(bs);
    if (in_memory || !is_cached(path)) {
        g_test_skip("no page cache that could be dropped");
        close(fd);
        return;
    }
    bs = fake_open(path, "{'x-check-cache-dropped':true}", BDRV_O_RDWR,
                   &error_abort);
    g_assert_true(bs->drv->activate(bs, &error_abort));
    g_assert_false(is_cached(path));

    /* Somebody holds a page.  (Sanitizers make mlock() do nothing.) */
    map = mmap(NULL, 4 * KiB, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_cmpint(syscall(SYS_mlock, map, 4 * KiB), ==, 0);
    g_assert_false(bs->drv->activate(bs, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "still in use"));
    munmap(map, 4 * KiB);
    close(fd);
    fake_close(bs);
}

static bool create(const char *path, const char *options, Error **errp)
{
    g_autoptr(json_t) o = options_from_json(options, &error_abort);

    return bdrv_file.create(NULL, path, o, errp);
}

static void test_create(void)
{
    g_autofree char *path = g_build_filename(fake_dir_on_disk(), "new", NULL);
    g_autofree char *nodir = g_build_filename(path, "x", NULL);
    g_autofree char *uri = g_strconcat("file:", path, NULL);
    g_autoptr(Error) e1 = NULL, e2 = NULL, e3 = NULL;
    struct stat st;

    g_assert_true(create(uri, "{'size':'700'}", &error_abort));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1024);
    g_assert_true(create(path, "{'size':65536,'preallocation':'falloc',"
                         "'nocow':'on'}", &error_abort));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_blocks * 512, >=, 65536);

    g_assert_false(create(path, "{'size':512,'preallocation':'metadata'}",
                          &e1));
    g_assert_cmpstr(error_get_pretty(e1), ==,
                    "Unsupported preallocation mode: metadata");
    g_assert_false(create(path, "{'size':512,'extent_size_hint':'8G'}", &e2));
    g_assert_cmpstr(error_get_pretty(e2), ==,
                    "Extent size hint is too large");
    g_assert_false(create(nodir, "{'size':512}", &e3));
    g_assert_true(g_str_has_prefix(error_get_pretty(e3), "Could not create"));
}

int main(int argc, char **argv)
{
    fake_init(&argc, &argv);
    g_test_add_func("/file/activate/drops-cache", test_activate);
    g_test_add_func("/file/open/bad-options", test_bad_options);
    g_test_add_func("/file/open/wrong-type-is-refused-without-blocking",
                    test_wrong_type);
    g_test_add_func("/file/open/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/open/by-descriptor", test_by_descriptor);
    g_test_add_func("/file/open/engine-is-chosen-and-shown",
                    test_engine_is_chosen);
    g_test_add_func("/file/reopen/is-of-the-same-inode", test_reopen);
    g_test_add_func("/file/truncate/modes", test_truncate);
    g_test_add_func("/file/truncate/failure-restores-the-length",
                    test_failed_preallocation_restores);
    g_test_add_func("/file/create/options", test_create);
    return fake_finish();
}
