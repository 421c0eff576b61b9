/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory: 1 to 8 regions, a memfd each, mapped shared here and sent to
 * the back end.
 *
 * Guest-physical addresses start at VUFE_GPA_BASE and have nothing in common
 * with the addresses in this process, so a back end that confuses the two
 * spaces fails at once.  Between regions lies a gap, unless the caller asks for
 * none: regions that touch are how a legal buffer comes to cross two of them.
 *
 * The struct is open: hostile tests may announce other values than the true
 * ones, or truncate a memfd.  One thread sets it up; after that any thread may
 * translate addresses, and vufe_mem_alloc is for one thread at a time.
 */
#ifndef TESTS_VUFE_MEM_H
#define TESTS_VUFE_MEM_H

#include <stdbool.h>

#include "vufe-msg.h"

#define VUFE_GPA_BASE UINT64_C(0x40000000)
#define VUFE_GPA_NONE UINT64_MAX

typedef struct VufeRegion {
    uint64_t gpa;
    uint64_t size;
    uint64_t mmap_offset; /* of the region within its memfd */
    int fd;
    void *map;        /* the whole memfd, mmap_offset + size bytes */
    uint8_t *host;    /* the region, in this process */
    uint64_t used;    /* bytes given out by vufe_mem_alloc */
    bool is_shared;   /* the back end has been told about it */
} VufeRegion;

typedef struct VufeMem {
    VufeRegion regions[VUFE_MAX_REGIONS];
    unsigned num;
} VufeMem;

/*
 * Makes @count regions of @size bytes (a multiple of the page size), @gap
 * bytes apart, each @mmap_offset bytes into its memfd.  0 or -errno; on failure
 * nothing is left.
 */
int vufe_mem_init(VufeMem *mem, unsigned count, uint64_t size, uint64_t gap,
                  uint64_t mmap_offset);

/* Unmaps and closes all; addresses into it are dead afterwards. */
void vufe_mem_destroy(VufeMem *mem);

/*
 * Adds a region at @gpa, which the caller keeps clear of the others (or not).
 * Returns its number or -errno; -ENOSPC when there are VUFE_MAX_REGIONS.
 */
int vufe_mem_add(VufeMem *mem, uint64_t gpa, uint64_t size,
                 uint64_t mmap_offset);

/*
 * Where guest memory [@gpa, @gpa + @len) is in this process; NULL unless one
 * region holds all of it.
 */
void *vufe_mem_ptr(const VufeMem *mem, uint64_t gpa, uint64_t len);

/*
 * Gives out @size zeroed bytes of region @region at a multiple of @align (a
 * power of two), VUFE_GPA_NONE when they do not fit.  There is no free: a test
 * makes a front end, uses it and closes it.
 */
uint64_t vufe_mem_alloc(VufeMem *mem, unsigned region, uint64_t size,
                        uint64_t align);

/* How region @r is described to the back end. */
VufeMemRegionMsg vufe_region_msg(const VufeRegion *r);

/* Sends all regions as one SET_MEM_TABLE.  0 or -errno. */
int vufe_mem_send_table(VufeConn *conn, VufeMem *mem);

/* Sends region @region with ADD_MEM_REG, REM_MEM_REG.  0 or -errno. */
int vufe_mem_send_add(VufeConn *conn, VufeMem *mem, unsigned region);
int vufe_mem_send_remove(VufeConn *conn, VufeMem *mem, unsigned region);

#endif
