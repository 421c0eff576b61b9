/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault guards: memory of a file that was truncated reads as zeroes, and says
 * so; any other SIGBUS ends the process as ever.
 */
#include "qemu/osdep.h"
#include "hw/virtio/fault-guard.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE INT64_C(4096)

static int make_file(int64_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    return fd;
}

static void test_rest_of_range(void)
{
    int fd = make_file(8 * PAGE);
    bool broken = false;
    FaultGuard *guard;
    volatile char *p;

    p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert(p != MAP_FAILED);
    guard = fault_guard_add((void *)p, 8 * PAGE, PAGE, &broken);
    p[3 * PAGE] = 1;
    g_assert_cmpint(ftruncate(fd, 3 * PAGE + 1), ==, 0);
    g_assert_cmpint(p[3 * PAGE], ==, 1);
    g_assert_false(qatomic_read(&broken));
    p[4 * PAGE] = 2;
    g_assert_true(qatomic_read(&broken));
    g_assert_true(fault_guard_has_fired());
    g_assert_cmpint(p[7 * PAGE], ==, 0);
    g_assert_cmpint(p[3 * PAGE], ==, 1);
    fault_guard_del(guard);
    munmap((void *)p, 8 * PAGE);
    close(fd);
}

/* Elsewhere a SIGBUS still ends the process. */
static void test_other_sigbus(void)
{
    int fd = make_file(2 * PAGE), status;
    char *guarded, *other;
    bool broken = false;
    FaultGuard *guard;
    pid_t pid;

    guarded = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    g_assert(guarded != MAP_FAILED && other != MAP_FAILED);
    guard = fault_guard_add(guarded, PAGE, PAGE, &broken);
    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        _exit(*(volatile char *)other);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    g_assert_cmpint(*(volatile char *)guarded, ==, 0);
    g_assert_true(qatomic_read(&broken));
    fault_guard_del(guard);
    munmap(guarded, PAGE);
    munmap(other, PAGE);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* A sanitizer would report the fault that is meant to be fatal. */
    signal(SIGBUS, SIG_DFL);
    g_test_add_func("/fault-guard/truncated/reads-zeroes",
                    test_rest_of_range);
    g_test_add_func("/fault-guard/elsewhere/is-fatal", test_other_sigbus);
    return g_test_run();
}
