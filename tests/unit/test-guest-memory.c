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

static void test_translate(void)
{
    const GuestRegion *hint = NULL;
    int fd = make_file(8 * PAGE);
    GuestMemory *mem = NULL;
    char *base;
    uint64_t gpa;

    g_assert_true(add(&mem, 0x200000, 4 * PAGE, 0x7000000, 0, fd));
    g_assert_true(add(&mem, 0x100000, 2 * PAGE, 0x8000000, 4 * PAGE, fd));
    g_assert_cmpint(mem->n, ==, 2);
    g_assert_cmpuint(mem->regions[0].gpa, ==, 0x100000);

    base = guest_memory_map(mem, 0x200000, 4 * PAGE, &hint);
    g_assert_nonnull(base);
    g_assert_true(guest_memory_map(mem, 0x200000 + 4 * PAGE - 1, 1, &hint) ==
                  base + 4 * PAGE - 1);
    g_assert_null(guest_memory_map(mem, 0x200000 + 4 * PAGE - 1, 2, &hint));
    g_assert_null(guest_memory_map(mem, 0x1fffff, 2, &hint));
    g_assert_nonnull(guest_memory_map(mem, 0x100000, 2 * PAGE, &hint));
    g_assert_null(guest_memory_map(mem, 0x100000, 2 * PAGE + 1, &hint));

    g_assert_true(guest_memory_from_user(mem, 0x7000010, 16) == base + 16);
    g_assert_null(guest_memory_from_user(mem, 0x6ffffff, 2));
    g_assert_null(guest_memory_from_user(mem, 0x7000000, 4 * PAGE + 1));

    g_assert_true(guest_memory_to_guest(mem, base + 5, &gpa));
    g_assert_cmpuint(gpa, ==, 0x200005);
    g_assert_false(guest_memory_to_guest(mem, &gpa, &gpa));
    guest_memory_free(mem);
    close(fd);
}

static void test_wrap(void)
{
    const GuestRegion *hint = NULL;
    int fd = make_file(PAGE);
    GuestMemory *mem = NULL;

    g_assert_true(add(&mem, 0x1000, PAGE, 0x1000, 0, fd));
    g_assert_null(guest_memory_map(mem, 0x1800, UINT64_MAX, &hint));
    g_assert_null(guest_memory_map(mem, UINT64_MAX, 2, &hint));
    g_assert_null(guest_memory_map(mem, 0x800, 0x1000, &hint));
    g_assert_null(guest_memory_from_user(mem, UINT64_MAX, 2));
    g_assert_null(guest_memory_from_user(mem, 0x1800, UINT64_MAX - 8));
    guest_memory_free(mem);
    close(fd);
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

static void test_remove(void)
{
    GuestRegionInfo wrong = { 0x10000, PAGE, 0x50001 };
    GuestRegionInfo right = { 0x10000, PAGE, 0x50000 };
    int fd = make_file(2 * PAGE);
    GuestMemory *mem = NULL, *less;
    const GuestRegion *hint = NULL;
    char *p;

    g_assert_true(add(&mem, 0x10000, PAGE, 0x50000, 0, fd));
    g_assert_true(add(&mem, 0x20000, PAGE, 0x60000, PAGE, fd));
    g_assert_null(guest_memory_remove(mem, &wrong, NULL));
    g_assert_null(guest_memory_remove(NULL, &right, NULL));
    less = guest_memory_remove(mem, &right, NULL);
    g_assert_nonnull(less);
    guest_memory_free(mem);

    /* What stays is still mapped. */
    p = guest_memory_map(less, 0x20000, PAGE, &hint);
    g_assert_nonnull(p);
    p[PAGE - 1] = 7;
    g_assert_null(guest_memory_map(less, 0x10000, 1, &hint));
    guest_memory_free(less);
    close(fd);
}

static void test_truncated(void)
{
    const GuestRegion *hint = NULL;
    int fd = make_file(16 * PAGE);
    GuestMemory *mem = NULL;
    volatile char *p;

    g_assert_true(add(&mem, 0, 16 * PAGE, 0x50000, 0, fd));
    p = guest_memory_map(mem, 0, 16 * PAGE, &hint);
    p[0] = 1;
    p[8 * PAGE] = 2;
    g_assert_false(guest_memory_is_broken(mem));
    g_assert_cmpint(ftruncate(fd, 4 * PAGE), ==, 0);

    g_assert_cmpint(p[0], ==, 1);
    g_assert_false(guest_memory_is_broken(mem));
    g_assert_cmpint(p[8 * PAGE], ==, 0);
    g_assert_true(guest_memory_is_broken(mem));
    p[15 * PAGE] = 3;
    p[5 * PAGE] = 4;    /* before the first fault: a fault of its own */
    guest_memory_free(mem);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memory/translate/stays-in-regions",
                    test_translate);
    g_test_add_func("/guest-memory/translate/no-wrap", test_wrap);
    g_test_add_func("/guest-memory/add/refuses-nonsense", test_refused);
    g_test_add_func("/guest-memory/remove/keeps-the-others", test_remove);
    g_test_add_func("/guest-memory/fault/survives-truncation",
                    test_truncated);
    return g_test_run();
}
