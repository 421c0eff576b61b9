/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory of the vhost-user front end: see vufe-mem.h.
 *
 * With REPLY_ACK the specification lets ADD_MEM_REG and SET_MEM_TABLE be
 * acknowledged like anything else (their longer, address-returning replies
 * belong to postcopy, which this front end does not negotiate).
 */
#include "vufe-mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int vufe_mem_add(VufeMem *mem, uint64_t gpa, uint64_t size,
                 uint64_t mmap_offset)
{
    VufeRegion *r = &mem->regions[mem->num];
    uint64_t total = mmap_offset + size;
    int ret;

    if (mem->num == VUFE_MAX_REGIONS) {
        return -ENOSPC;
    }
    *r = (VufeRegion){ .gpa = gpa, .size = size, .mmap_offset = mmap_offset };
    r->fd = memfd_create("vufe-guest", MFD_CLOEXEC);
    if (r->fd < 0) {
        return -errno;
    }
    if (ftruncate(r->fd, total) < 0) {
        ret = -errno;
        close(r->fd);
        return ret;
    }
    r->map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (r->map == MAP_FAILED) {
        ret = -errno;
        close(r->fd);
        return ret;
    }
    r->host = (uint8_t *)r->map + mmap_offset;
    return mem->num++;
}

int vufe_mem_init(VufeMem *mem, unsigned count, uint64_t size, uint64_t gap,
                  uint64_t mmap_offset)
{
    unsigned i;

    memset(mem, 0, sizeof(*mem));
    for (i = 0; i < count; i++) {
        int ret = vufe_mem_add(mem, VUFE_GPA_BASE + i * (size + gap), size,
                               mmap_offset);

        if (ret < 0) {
            vufe_mem_destroy(mem);
            return ret;
        }
    }
    return 0;
}

void vufe_mem_destroy(VufeMem *mem)
{
    while (mem->num) {
        VufeRegion *r = &mem->regions[--mem->num];

        munmap(r->map, r->mmap_offset + r->size);
        close(r->fd);
    }
}

void *vufe_mem_ptr(const VufeMem *mem, uint64_t gpa, uint64_t len)
{
    unsigned i;

    for (i = 0; i < mem->num; i++) {
        const VufeRegion *r = &mem->regions[i];

        if (gpa >= r->gpa && len <= r->size && gpa - r->gpa <= r->size - len) {
            return r->host + (gpa - r->gpa);
        }
    }
    return NULL;
}

uint64_t vufe_mem_alloc(VufeMem *mem, unsigned region, uint64_t size,
                        uint64_t align)
{
    VufeRegion *r;
    uint64_t start;

    if (region >= mem->num) {
        return VUFE_GPA_NONE;
    }
    r = &mem->regions[region];
    start = (r->used + align - 1) & ~(align - 1);
    if (start > r->size || size > r->size - start) {
        return VUFE_GPA_NONE;
    }
    r->used = start + size;
    return r->gpa + start;
}

VufeMemRegionMsg vufe_region_msg(const VufeRegion *r)
{
    return (VufeMemRegionMsg){
        .gpa = r->gpa,
        .size = r->size,
        .user_addr = (uintptr_t)r->host,
        .mmap_offset = r->mmap_offset,
    };
}

int vufe_mem_send_table(VufeConn *conn, VufeMem *mem)
{
    VufeMsg msg = { .request = VUFE_SET_MEM_TABLE };
    unsigned i;
    int ret;

    msg.size = offsetof(VufeMemTable, regions) +
               mem->num * sizeof(VufeMemRegionMsg);
    msg.p.mem_table.num = mem->num;
    for (i = 0; i < mem->num; i++) {
        msg.p.mem_table.regions[i] = vufe_region_msg(&mem->regions[i]);
        msg.fds[msg.num_fds++] = mem->regions[i].fd;
    }
    ret = vufe_call(conn, &msg);
    for (i = 0; i < mem->num && ret == 0; i++) {
        mem->regions[i].is_shared = true;
    }
    return ret;
}

static int send_region(VufeConn *conn, VufeMem *mem, unsigned region,
                       VufeRequest request)
{
    VufeMsg msg = { .request = request, .size = sizeof(VufeMemReg) };
    int ret;

    if (region >= mem->num) {
        return vufe_fail(conn, -EINVAL, "memory region %u", region);
    }
    msg.p.mem_reg.region = vufe_region_msg(&mem->regions[region]);
    if (request == VUFE_ADD_MEM_REG) {
        msg.fds[msg.num_fds++] = mem->regions[region].fd;
    }
    ret = vufe_call(conn, &msg);
    if (ret == 0) {
        mem->regions[region].is_shared = request == VUFE_ADD_MEM_REG;
    }
    return ret;
}

int vufe_mem_send_add(VufeConn *conn, VufeMem *mem, unsigned region)
{
    return send_region(conn, mem, region, VUFE_ADD_MEM_REG);
}

int vufe_mem_send_remove(VufeConn *conn, VufeMem *mem, unsigned region)
{
    return send_region(conn, mem, region, VUFE_REM_MEM_REG);
}
