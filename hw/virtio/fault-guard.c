/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Surviving SIGBUS in memory that somebody else can truncate.
 *
 * The handler may interrupt any code, so it takes no lock: guards are on a
 * list that only ever grows, a free one has no range, and a field that the
 * handler reads is atomic.  The list is as long as there were guards at one
 * time; the lock is for those who add and delete.
 *
 * What the handler does, looking at the list and mmap(), is what a handler may
 * do (mmap is one system call without a lock of libc's on Linux).
 */
#include "qemu/osdep.h"
#include "hw/virtio/fault-guard.h"
#include "block/lock-order.h"
#include "qemu/atomic.h"
#include <signal.h>
#include <sys/mman.h>

struct FaultGuard {
    uintptr_t start;        /* atomic; 0: not in use */
    uintptr_t end;          /* atomic, as the next two */
    size_t page_size;
    bool *broken;
    FaultGuard *next;       /* constant */
};

static QemuMutex guard_lock = { PTHREAD_MUTEX_INITIALIZER };
static FaultGuard *guards;  /* atomic head; changed under guard_lock */
static struct sigaction old_action;
bool fault_guard_fired;

static FaultGuard *fault_guard_find(uintptr_t addr)
{
    FaultGuard *g;

    for (g = qatomic_load_acquire(&guards); g; g = g->next) {
        uintptr_t start = qatomic_load_acquire(&g->start);

        if (start && addr >= start && addr < qatomic_read(&g->end)) {
            return g;
        }
    }
    return NULL;
}

/* Put zero pages from the fault to the end of the range: past a file's new
 * end every page faults, one system call is enough for all of them. */
static bool fault_guard_patch(FaultGuard *g, uintptr_t addr)
{
    uintptr_t page = addr & ~(qatomic_read(&g->page_size) - 1);
    void *p;

    p = mmap((void *)page, qatomic_read(&g->end) - page,
             PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    qatomic_set_mb(qatomic_read(&g->broken), true);
    qatomic_set_mb(&fault_guard_fired, true);
    return true;
}

static void fault_guard_chain(int sig, siginfo_t *info, void *context)
{
    if (old_action.sa_flags & SA_SIGINFO) {
        old_action.sa_sigaction(sig, info, context);
    } else if (old_action.sa_handler == SIG_DFL ||
               old_action.sa_handler == SIG_IGN) {
        /* The access is repeated on return and then has its effect. */
        signal(SIGBUS, SIG_DFL);
    } else {
        old_action.sa_handler(sig);
    }
}

static void fault_guard_handler(int sig, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    FaultGuard *g = NULL;

    /* Not for failing hardware (BUS_MCEERR_*): what is lost there was real. */
    if (info->si_code == BUS_ADRERR) {
        g = fault_guard_find((uintptr_t)info->si_addr);
    }
    if (!g || !fault_guard_patch(g, (uintptr_t)info->si_addr)) {
        fault_guard_chain(sig, info, context);
    }
    errno = saved_errno;
}

static void fault_guard_install_locked(void) REQUIRES(guard_lock)
{
    static bool installed;
    struct sigaction sa = {
        .sa_sigaction = fault_guard_handler,
        .sa_flags = SA_SIGINFO | SA_NODEFER,
    };

    if (!installed) {
        sigemptyset(&sa.sa_mask);
        sigaction(SIGBUS, &sa, &old_action);
        installed = true;
    }
}

FaultGuard *fault_guard_add(void *start, size_t len, size_t page_size,
                            bool *broken)
{
    FaultGuard *g;

    qemu_mutex_lock(&guard_lock);
    fault_guard_install_locked();
    for (g = guards; g && g->start; g = g->next) {
        /* look for a free one */
    }
    if (!g) {
        g = g_new0(FaultGuard, 1);
        g->next = guards;
        qatomic_store_release(&guards, g);
    }
    qatomic_set(&g->end, (uintptr_t)start + len);
    qatomic_set(&g->page_size, page_size);
    qatomic_set(&g->broken, broken);
    qatomic_store_release(&g->start, (uintptr_t)start);
    qemu_mutex_unlock(&guard_lock);
    return g;
}

void fault_guard_del(FaultGuard *guard)
{
    qemu_mutex_lock(&guard_lock);
    qatomic_store_release(&guard->start, 0);
    qemu_mutex_unlock(&guard_lock);
}
