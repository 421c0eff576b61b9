/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory: what a front end may announce, translation at the edges of
 * regions, and a file that shrinks under us.
 */
#include "qemu/osdep.h"
#include "hw/virtio/guest-memory.h"
#include <sys/mman.h>

#define PAGE INT64_C(4096)

static int make_file(int64_t size)
{
    int fd = memfd_create("test-guest-memory", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    return fd;
}

/* Add a region to *@mem; NULL stays NULL. */
static bool add(GuestMemory **mem, uint64_t gpa, uint64_t size, uint64_t uva,
                uint64_t offset, int fd)
{
    GuestRegionInfo info = { gpa, size, uva, offset };
    GuestMemory *next = guest_memory_add(*mem, &info, fd, NULL);

    if (!next) {
        return false;
    }
    guest_memory_free(*mem);
    *mem = next;
    return true;
}

static void test_refused(void)
{
    int fd = make_file(4 * PAGE), empty = make_file(0);
    GuestMemory *mem = NULL;

    g_assert_true(add(&mem, 0x10000, 2 * PAGE, 0x50000, 0, fd));
    /* overlaps in guest and in user addresses */
    g_assert_false(add(&mem, 0x11000, PAGE, 0x90000, 0, fd));
    g_assert_false(add(&mem, 0xf000, 4 * PAGE, 0x90000, 0, fd));
    g_assert_false(add(&mem, 0x90000, PAGE, 0x51fff, 0, fd));
    /* no bytes, wrapping, past the end of the file */
    g_assert_false(add(&mem, 0x90000, 0, 0x90000, 0, fd));
    g_assert_false(add(&mem, UINT64_MAX - 10, PAGE, 0x90000, 0, fd));
    g_assert_false(add(&mem, 0x90000, PAGE, UINT64_MAX - 10, 0, fd));
    g_assert_false(add(&mem, 0x90000, 4 * PAGE, 0x90000, PAGE, fd));
    g_assert_false(add(&mem, 0x90000, PAGE, 0x90000, UINT64_MAX, fd));
    g_assert_false(add(&mem, 0x90000, UINT64_MAX / 2, 0x90000, 0, fd));
    g_assert_false(add(&mem, 0x90000, PAGE, 0x90000, 0, empty));
    g_assert_false(add(&mem, 0x90000, PAGE, 0x90000, 0, -1));
    /* just next to it is fine */
    g_assert_true(add(&mem, 0x12000, PAGE, 0x52000, 3 * PAGE, fd));
    g_assert_cmpint(mem->n, ==, 2);
    guest_memory_free(mem);
    close(fd);
    close(empty);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memory/add/refuses-nonsense", test_refused);
    return g_test_run();
}

