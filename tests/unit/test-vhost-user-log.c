/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dirty log: which bits a write sets, and sizes that lie.
 */
#include "qemu/osdep.h"
#include "hw/virtio/vhost-user-log.h"
#include <sys/mman.h>

#define PAGE INT64_C(4096)

static int make_file(int64_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    return fd;
}

static void test_marks_pages(void)
{
    int fd = make_file(PAGE);
    VhostUserLog *log;
    uint8_t *bits;

    g_assert_null(vhost_user_log_new(fd, 0, PAGE + 1, NULL));
    g_assert_null(vhost_user_log_new(fd, UINT64_MAX, 16, NULL));
    g_assert_null(vhost_user_log_new(fd, 0, 0, NULL));
    g_assert_null(vhost_user_log_new(-1, 0, 16, NULL));

    log = vhost_user_log_new(fd, 8, 16, &error_abort);
    bits = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    g_assert(bits != MAP_FAILED);
    vhost_user_log_write(log, 3 * PAGE + 1, 1);
    g_assert_cmphex(bits[8], ==, 1 << 3);
    vhost_user_log_write(log, 7 * PAGE - 1, 2 * PAGE);
    g_assert_cmphex(bits[8], ==, 1 << 3 | 1 << 6 | 1 << 7);
    g_assert_cmphex(bits[9], ==, 1 << 0);
    vhost_user_log_write(log, 0, 0);
    vhost_user_log_write(log, 127 * PAGE, UINT64_MAX);
    g_assert_cmphex(bits[23], ==, 1 << 7);
    g_assert_cmphex(bits[24], ==, 0);
    vhost_user_log_free(log);
    munmap(bits, PAGE);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhost-user-log/write/marks-pages", test_marks_pages);
    return g_test_run();
}
