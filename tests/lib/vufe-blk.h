/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block requests, one at a time and synchronously, over a front end's rings.
 *
 * Each function returns the virtio status byte (VIRTIO_BLK_S_OK 0, _IOERR 1,
 * _UNSUPP 2, or whatever else the device wrote) or -errno when there was no
 * answer: -ETIMEDOUT, -ENOMSG (completed but never signalled), -EPROTO (the
 * used ring holds what was not asked for, or a wrong length).
 *
 * Offsets and lengths are bytes; they travel as sectors, so multiples of 512
 * are what a driver sends.  Data is copied through a bounce buffer in guest
 * memory of VUFE_BLK_MAX bytes a ring, made on first use.  The ring must be
 * idle, but for requests that these functions gave up: those may complete
 * later and are then dropped; their buffer is not used again.  Rings may be
 * used by different threads, after each had its first use (or
 * vufe_blk_prepare) in one.
 */
#ifndef TESTS_VUFE_BLK_H
#define TESTS_VUFE_BLK_H

#include "vhost-user-frontend.h"

#define VUFE_BLK_MAX (1u << 20)
#define VUFE_BLK_ID_LEN 20

/* How a request is laid out over descriptors. */
typedef struct VufeBlkShape {
    unsigned segments; /* pieces the data is cut into; 0 means 1 */
    bool direct;       /* no indirect table, even where negotiated */
} VufeBlkShape;

/* Makes the bounce buffer of ring @queue.  0 or -ENOMEM. */
int vufe_blk_prepare(VufeFrontend *fe, unsigned queue);

/*
 * Any request: header with @type and @sector, @out_len bytes of data for the
 * device, @in_len bytes from it, status.  @shape may be NULL.
 */
int vufe_blk_request(VufeFrontend *fe, unsigned queue, uint32_t type,
                     uint64_t sector, const void *out, uint32_t out_len,
                     void *in, uint32_t in_len, const VufeBlkShape *shape);

int vufe_blk_read(VufeFrontend *fe, unsigned queue, int64_t offset, void *buf,
                  uint32_t bytes);
int vufe_blk_write(VufeFrontend *fe, unsigned queue, int64_t offset,
                   const void *buf, uint32_t bytes);
int vufe_blk_flush(VufeFrontend *fe, unsigned queue);
int vufe_blk_discard(VufeFrontend *fe, unsigned queue, int64_t offset,
                     int64_t bytes);
int vufe_blk_write_zeroes(VufeFrontend *fe, unsigned queue, int64_t offset,
                          int64_t bytes, bool unmap);

/* @id gets VUFE_BLK_ID_LEN bytes and a terminating 0. */
int vufe_blk_get_id(VufeFrontend *fe, unsigned queue,
                    char id[VUFE_BLK_ID_LEN + 1]);

/* Size of the disk in bytes from the configuration space.  0 or -errno. */
int vufe_blk_get_size(VufeFrontend *fe, int64_t *bytes);

#endif
