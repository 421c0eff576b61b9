/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Synchronous block requests: see vufe-blk.h, and virtio 1.2, section 5.2.6.
 *
 * The bounce buffer of a ring: header, status byte, and VUFE_BLK_MAX bytes of
 * data, each on cache lines of its own.  The status byte is preset to a value
 * that no device writes, so that a completion without a status is noticed.
 */
#include "vufe-blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

#define HDR_AT 0
#define STATUS_AT 64
#define DATA_AT 4096
#define BOUNCE_SIZE (DATA_AT + VUFE_BLK_MAX)
#define STATUS_UNTOUCHED 0xee
#define SECTOR 512

int vufe_blk_prepare(VufeFrontend *fe, unsigned queue)
{
    if (fe->bounce[queue] == 0) {
        uint64_t gpa = vufe_mem_alloc(&fe->mem, queue % fe->mem.num,
                                      BOUNCE_SIZE, 4096);

        if (gpa == VUFE_GPA_NONE) {
            return vufe_fail(&fe->conn, -ENOMEM, "bounce buffer");
        }
        fe->bounce[queue] = gpa;
    }
    return 0;
}

/* Appends @len bytes at @gpa, cut into @segments buffers.  The new count. */
static unsigned cut(VufeBuf *bufs, unsigned n, uint64_t gpa, uint32_t len,
                    unsigned segments, bool device_writes)
{
    uint32_t piece = len / segments;

    while (len > 0) {
        uint32_t now = segments-- > 1 ? piece : len;

        bufs[n++] = (VufeBuf){ gpa, now, device_writes };
        gpa += now;
        len -= now;
    }
    return n;
}

/*
 * Waits for the chain whose token is @host and checks what the device says of
 * it.  Another chain can only be one that was given up earlier.
 */
static int finish(VufeFrontend *fe, VufeRing *r, const uint8_t *host,
                  uint32_t in_len)
{
    void *token = NULL;
    uint32_t len = 0;
    uint8_t status;
    int ret;

    do {
        ret = vufe_ring_wait(r, fe->opts.timeout_ms);
        if (ret == 0) {
            ret = vufe_ring_get_used(r, &token, &len);
        }
    } while (ret >= 0 && token != host);
    if (ret < 0) {
        /* The device may still write there: the next request gets another. */
        fe->bounce[r->index] = 0;
        return vufe_fail(&fe->conn, ret, "request on ring %u", r->index);
    }
    status = host[STATUS_AT];
    if (len > in_len + 1 || status == STATUS_UNTOUCHED) {
        return vufe_fail(&fe->conn, -EPROTO,
                         "ring %u: used length %u of %u, status 0x%x",
                         r->index, len, in_len + 1, status);
    }
    return status;
}

int vufe_blk_request(VufeFrontend *fe, unsigned queue, uint32_t type,
                     uint64_t sector, const void *out, uint32_t out_len,
                     void *in, uint32_t in_len, const VufeBlkShape *shape)
{
    VufeRing *r = &fe->rings[queue];
    unsigned segments = shape && shape->segments ? shape->segments : 1;
    VufeBuf bufs[2 * VUFE_RING_MAX + 2];
    uint64_t gpa;
    uint8_t *host;
    unsigned n;
    int ret;

    if (out_len > VUFE_BLK_MAX || in_len > VUFE_BLK_MAX - out_len ||
        segments > VUFE_RING_MAX || segments > MAX(out_len, in_len) + 1) {
        return vufe_fail(&fe->conn, -EINVAL, "request of %u + %u bytes",
                         out_len, in_len);
    }
    ret = vufe_blk_prepare(fe, queue);
    if (ret < 0) {
        return ret;
    }
    gpa = fe->bounce[queue];
    host = vufe_mem_ptr(&fe->mem, gpa, BOUNCE_SIZE);
    *(struct virtio_blk_outhdr *)(host + HDR_AT) =
        (struct virtio_blk_outhdr){ .type = type, .sector = sector };
    host[STATUS_AT] = STATUS_UNTOUCHED;
    if (out_len) {
        memcpy(host + DATA_AT, out, out_len);
    }
    bufs[0] = (VufeBuf){ gpa + HDR_AT, sizeof(struct virtio_blk_outhdr),
                         false };
    n = cut(bufs, 1, gpa + DATA_AT, out_len, segments, false);
    n = cut(bufs, n, gpa + DATA_AT + out_len, in_len, segments, true);
    bufs[n++] = (VufeBuf){ gpa + STATUS_AT, 1, true };

    ret = vufe_ring_add(r, bufs, n, !(shape && shape->direct), host);
    if (ret < 0) {
        return vufe_fail(&fe->conn, ret, "chain of %u on ring %u", n, queue);
    }
    vufe_ring_kick(r);
    ret = finish(fe, r, host, in_len);
    if (ret == VIRTIO_BLK_S_OK && in_len) {
        memcpy(in, host + DATA_AT + out_len, in_len);
    }
    return ret;
}

int vufe_blk_read(VufeFrontend *fe, unsigned queue, int64_t offset, void *buf,
                  uint32_t bytes)
{
    return vufe_blk_request(fe, queue, VIRTIO_BLK_T_IN, offset / SECTOR, NULL,
                            0, buf, bytes, NULL);
}

int vufe_blk_write(VufeFrontend *fe, unsigned queue, int64_t offset,
                   const void *buf, uint32_t bytes)
{
    return vufe_blk_request(fe, queue, VIRTIO_BLK_T_OUT, offset / SECTOR, buf,
                            bytes, NULL, 0, NULL);
}

int vufe_blk_flush(VufeFrontend *fe, unsigned queue)
{
    return vufe_blk_request(fe, queue, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL,
                            0, NULL);
}

static int range_request(VufeFrontend *fe, unsigned queue, uint32_t type,
                         int64_t offset, int64_t bytes, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes range = {
        .sector = offset / SECTOR,
        .num_sectors = bytes / SECTOR,
        .flags = flags,
    };

    return vufe_blk_request(fe, queue, type, 0, &range, sizeof(range), NULL, 0,
                            NULL);
}

int vufe_blk_discard(VufeFrontend *fe, unsigned queue, int64_t offset,
                     int64_t bytes)
{
    return range_request(fe, queue, VIRTIO_BLK_T_DISCARD, offset, bytes, 0);
}

int vufe_blk_write_zeroes(VufeFrontend *fe, unsigned queue, int64_t offset,
                          int64_t bytes, bool unmap)
{
    return range_request(fe, queue, VIRTIO_BLK_T_WRITE_ZEROES, offset, bytes,
                         unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0);
}

int vufe_blk_get_id(VufeFrontend *fe, unsigned queue,
                    char id[VUFE_BLK_ID_LEN + 1])
{
    memset(id, 0, VUFE_BLK_ID_LEN + 1);
    return vufe_blk_request(fe, queue, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id,
                            VUFE_BLK_ID_LEN, NULL);
}

int vufe_blk_get_size(VufeFrontend *fe, int64_t *bytes)
{
    uint64_t sectors;
    int ret = vufe_get_config(fe,
                              offsetof(struct virtio_blk_config, capacity),
                              &sectors, sizeof(sectors));

    if (ret == 0) {
        *bytes = sectors * SECTOR;
    }
    return ret;
}
