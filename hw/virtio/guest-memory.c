/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's memory: regions that the front end shares by file descriptor.
 *
 * A GuestMapping is one mmap, with a reference for each table that contains
 * it.  Tables are made and freed by the thread that talks to the front end,
 * never by two at once, so the reference count needs no lock.  Everybody else
 * only reads.
 *
 * The size of the file is checked when it is mapped.  It may still shrink
 * later; fault-guard.c deals with that.
 */
#include "qemu/osdep.h"
#include "hw/virtio/guest-memory.h"
#include "hw/virtio/fault-guard.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

struct GuestMapping {
    int refs;
    void *base;             /* what mmap returned */
    size_t len;
    bool broken;            /* atomic: set by the fault guard */
    FaultGuard *guard;
};

/* ---- Mappings ---- */

/* The unit in which @fd can be mapped: large for hugetlbfs. */
static size_t guest_mapping_page_size(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC) {
        return fs.f_bsize;
    }
    return getpagesize();
}

static bool guest_mapping_check_file(int fd, uint64_t end, Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at shared memory");
        return false;
    }
    if (S_ISREG(st.st_mode) && end > (uint64_t)st.st_size) {
        error_setg(errp, "Memory region ends at %" PRIu64 " of a file of %"
                   PRId64 " bytes", end, (int64_t)st.st_size);
        return false;
    }
    return true;
}

/* Map @size bytes of @fd from @offset; their address goes to *@host. */
static GuestMapping *guest_mapping_new(int fd, uint64_t offset, uint64_t size,
                                       uint8_t **host, Error **errp)
{
    size_t page = guest_mapping_page_size(fd);
    uint64_t delta = offset % page;
    GuestMapping *map;
    uint64_t len;
    void *base;

    if (offset > INT64_MAX - size || size > SIZE_MAX / 2 - 2 * page) {
        error_setg(errp, "Memory region of %" PRIu64 " bytes at %" PRIu64
                   " is too large", size, offset);
        return NULL;
    }
    if (!guest_mapping_check_file(fd, offset + size, errp)) {
        return NULL;
    }
    len = QEMU_ALIGN_UP(size + delta, page);
    base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                fd, offset - delta);
    if (base == MAP_FAILED) {
        error_setg_errno(errp, errno, "Could not map %" PRIu64
                         " bytes of guest memory", size);
        return NULL;
    }
    madvise(base, len, MADV_DONTDUMP);

    map = g_new0(GuestMapping, 1);
    map->refs = 1;
    map->base = base;
    map->len = len;
    map->guard = fault_guard_add(base, len, page, &map->broken);
    *host = (uint8_t *)base + delta;
    return map;
}

static void guest_mapping_unref(GuestMapping *map)
{
    if (--map->refs == 0) {
        fault_guard_del(map->guard);
        munmap(map->base, map->len);
        g_free(map);
    }
}

/* ---- Tables ---- */

static GuestMemory *guest_memory_alloc(int n)
{
    return g_malloc0(sizeof(GuestMemory) + n * sizeof(GuestRegion));
}

static void guest_memory_append(GuestMemory *mem, const GuestRegion *region)
{
    mem->regions[mem->n++] = *region;
}

static bool ranges_overlap(uint64_t a, uint64_t a_len,
                           uint64_t b, uint64_t b_len)
{
    return a < b ? b - a < a_len : a - b < b_len;
}

static bool guest_memory_check(const GuestMemory *old,
                               const GuestRegionInfo *info, Error **errp)
{
    int n = old ? old->n : 0;

    if (info->size == 0 || info->gpa > UINT64_MAX - info->size ||
        info->uva > UINT64_MAX - info->size) {
        error_setg(errp, "Memory region of %#" PRIx64 " bytes at %#" PRIx64
                   " (user address %#" PRIx64 ") is not valid", info->size,
                   info->gpa, info->uva);
        return false;
    }
    if (n >= GUEST_MEMORY_MAX_REGIONS) {
        error_setg(errp, "More than %d memory regions",
                   GUEST_MEMORY_MAX_REGIONS);
        return false;
    }
    for (int i = 0; i < n; i++) {
        const GuestRegion *r = &old->regions[i];

        if (ranges_overlap(r->gpa, r->size, info->gpa, info->size) ||
            ranges_overlap(r->uva, r->size, info->uva, info->size)) {
            error_setg(errp, "Memory region at %#" PRIx64
                       " overlaps the one at %#" PRIx64, info->gpa, r->gpa);
            return false;
        }
    }
    return true;
}

GuestMemory *guest_memory_add(const GuestMemory *old,
                              const GuestRegionInfo *info, int fd,
                              Error **errp)
{
    GuestRegion added = { info->gpa, info->size, info->uva };
    int n = old ? old->n : 0;
    bool done = false;
    GuestMemory *mem;

    if (!guest_memory_check(old, info, errp)) {
        return NULL;
    }
    added.mapping = guest_mapping_new(fd, info->mmap_offset, info->size,
                                      &added.host, errp);
    if (!added.mapping) {
        return NULL;
    }
    mem = guest_memory_alloc(n + 1);
    for (int i = 0; i < n; i++) {
        if (!done && old->regions[i].gpa > info->gpa) {
            guest_memory_append(mem, &added);
            done = true;
        }
        old->regions[i].mapping->refs++;
        guest_memory_append(mem, &old->regions[i]);
    }
    if (!done) {
        guest_memory_append(mem, &added);
    }
    return mem;
}

GuestMemory *guest_memory_remove(const GuestMemory *old,
                                 const GuestRegionInfo *info, Error **errp)
{
    GuestMemory *mem = guest_memory_alloc(old ? old->n : 0);

    for (int i = 0; old && i < old->n; i++) {
        const GuestRegion *r = &old->regions[i];

        if (r->gpa == info->gpa && r->uva == info->uva &&
            r->size == info->size) {
            continue;
        }
        r->mapping->refs++;
        guest_memory_append(mem, r);
    }
    if (!old || mem->n == old->n) {
        error_setg(errp, "No memory region of %#" PRIx64 " bytes at %#" PRIx64,
                   info->size, info->gpa);
        guest_memory_free(mem);
        return NULL;
    }
    return mem;
}

void guest_memory_free(GuestMemory *mem)
{
    if (mem) {
        for (int i = 0; i < mem->n; i++) {
            guest_mapping_unref(mem->regions[i].mapping);
        }
        g_free(mem);
    }
}

bool guest_memory_is_broken(const GuestMemory *mem)
{
    for (int i = 0; fault_guard_has_fired() && i < mem->n; i++) {
        if (unlikely(qatomic_read(&mem->regions[i].mapping->broken))) {
            return true;
        }
    }
    return false;
}

/* ---- Addresses ---- */

const GuestRegion *guest_memory_find(const GuestMemory *mem, uint64_t gpa)
{
    int lo = 0, hi = mem->n;

    while (lo < hi) {
        int mid = (lo + hi) / 2;
        const GuestRegion *r = &mem->regions[mid];

        if (gpa < r->gpa) {
            hi = mid;
        } else if (gpa - r->gpa >= r->size) {
            lo = mid + 1;
        } else {
            return r;
        }
    }
    return NULL;
}

void *guest_memory_from_user(const GuestMemory *mem, uint64_t uva,
                             uint64_t len)
{
    for (int i = 0; i < mem->n; i++) {
        const GuestRegion *r = &mem->regions[i];
        uint64_t offset = uva - r->uva;

        if (offset < r->size && len <= r->size - offset) {
            return r->host + offset;
        }
    }
    return NULL;
}

bool guest_memory_to_guest(const GuestMemory *mem, const void *host,
                           uint64_t *gpa)
{
    for (int i = 0; i < mem->n; i++) {
        const GuestRegion *r = &mem->regions[i];
        uint64_t offset = (uintptr_t)host - (uintptr_t)r->host;

        if (offset < r->size) {
            *gpa = r->gpa + offset;
            return true;
        }
    }
    return false;
}
