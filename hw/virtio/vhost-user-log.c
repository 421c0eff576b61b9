/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of dirty pages for migration.
 *
 * The front end collects and clears bits while queues run, so a bit is set by
 * an atomic "or", after the write that it stands for.  That it is set already
 * is no reason to leave it: the front end might be just clearing it, having
 * copied the page before our write.
 */
#include "qemu/osdep.h"
#include "hw/virtio/vhost-user-log.h"
#include "hw/virtio/fault-guard.h"
#include "qemu/atomic.h"
#include <sys/mman.h>
#include <sys/stat.h>

#define VHOST_LOG_PAGE_BITS 12

struct VhostUserLog {
    void *base;             /* what was mapped */
    size_t len;
    uint8_t *bits;
    uint64_t size;          /* bytes of it */
    bool broken;            /* then the bits go nowhere; no harm to us */
    FaultGuard *guard;
};

VhostUserLog *vhost_user_log_new(int fd, uint64_t offset, uint64_t size,
                                 Error **errp)
{
    size_t page = getpagesize();
    uint64_t delta = offset % page;
    VhostUserLog *log;
    struct stat st;
    void *base;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at the dirty log");
        return NULL;
    }
    if (size == 0 || size > INT64_MAX - delta || offset > INT64_MAX - size ||
        offset + size > (uint64_t)st.st_size) {
        error_setg(errp, "Dirty log of %" PRIu64 " bytes at %" PRIu64
                   " does not fit its file", size, offset);
        return NULL;
    }
    base = mmap(NULL, size + delta, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                offset - delta);
    if (base == MAP_FAILED) {
        error_setg_errno(errp, errno, "Could not map the dirty log");
        return NULL;
    }
    log = g_new0(VhostUserLog, 1);
    log->base = base;
    log->len = size + delta;
    log->bits = (uint8_t *)base + delta;
    log->size = size;
    log->guard = fault_guard_add(base, QEMU_ALIGN_UP(log->len, page), page,
                                 &log->broken);
    return log;
}

void vhost_user_log_free(VhostUserLog *log)
{
    if (log) {
        fault_guard_del(log->guard);
        munmap(log->base, log->len);
        g_free(log);
    }
}

void vhost_user_log_write(VhostUserLog *log, uint64_t gpa, uint64_t len)
{
    uint64_t first = gpa >> VHOST_LOG_PAGE_BITS;
    uint64_t last;

    if (len == 0) {
        return;
    }
    last = (gpa + MIN(len - 1, UINT64_MAX - gpa)) >> VHOST_LOG_PAGE_BITS;
    for (uint64_t page = first; page <= last; page++) {
        if (page / 8 >= log->size) {
            return;
        }
        /*
         * If the front end has truncated the log, let a plain access meet the
         * fault: ThreadSanitizer makes atomic ones inside its runtime, which
         * does not expect to be interrupted there.
         */
        (void)*(volatile uint8_t *)&log->bits[page / 8];
        qatomic_or(&log->bits[page / 8], (uint8_t)(1 << (page % 8)));
    }
}
