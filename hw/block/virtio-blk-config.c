/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-blk: feature bits and the configuration space.
 *
 * Nothing is kept: the space is made from the backend's properties whenever it
 * is read, so after a resize the driver reads the new capacity.
 *
 * Not offered: SIZE_MAX (there is no limit to announce), SCSI, BARRIER and
 * SECURE_ERASE.
 */
#include "qemu/osdep.h"
#include "virtio-blk-internal.h"
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define BIT(n) (UINT64_C(1) << (n))

uint64_t virtio_blk_get_features(VirtIODevice *dev)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);

    return BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_PACKED) |
           BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
           BIT(VIRTIO_F_ANY_LAYOUT) |
           BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
           BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
           BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) |
           (s->writable ? BIT(VIRTIO_BLK_F_DISCARD) |
                          BIT(VIRTIO_BLK_F_WRITE_ZEROES) :
                          BIT(VIRTIO_BLK_F_RO));
}

void virtio_blk_set_features(VirtIODevice *dev, uint64_t features)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);

    /*
     * A driver that cannot flush relies on writes being stable (5.2.5).  So
     * does one that has turned the cache off: a front end that lost its
     * connection sends the features again, but not what the driver wrote into
     * the configuration space.
     */
    blk_set_enable_write_cache(s->blk, s->initial_write_cache &&
                               !s->wants_writethrough &&
                               features & BIT(VIRTIO_BLK_F_FLUSH));
}

/* log2 of the physical block size in logical blocks. */
static uint8_t virtio_blk_physical_exp(VirtIOBlock *s)
{
    uint32_t logical, physical;

    blk_get_block_sizes(s->blk, &logical, &physical);
    if (!is_power_of_2(physical) || physical < s->block_size) {
        return 0;
    }
    return ctz64(physical / s->block_size);
}

static uint32_t virtio_blk_seg_max(VirtIOBlock *s)
{
    if (!s->queue_size) {
        return VIRTIO_BLK_SEG_MAX;
    }
    /* Header and status take two descriptors. */
    return MAX(1, MIN((int)s->queue_size, VIRTQUEUE_MIN_CHAIN) - 2);
}

static void virtio_blk_fill_config(VirtIOBlock *s,
                                   struct virtio_blk_config *c)
{
    uint32_t sectors = s->block_size / BDRV_SECTOR_SIZE;
    int64_t length = blk_getlength(s->blk);

    /* Whole logical blocks only; none if the length is not to be had. */
    length = MAX(length, 0) / s->block_size * s->block_size;
    c->capacity = GUINT64_TO_LE(length / BDRV_SECTOR_SIZE);
    c->seg_max = GUINT32_TO_LE(virtio_blk_seg_max(s));
    c->blk_size = GUINT32_TO_LE(s->block_size);
    c->physical_block_exp = virtio_blk_physical_exp(s);
    c->min_io_size = GUINT16_TO_LE(1);
    c->opt_io_size = GUINT32_TO_LE(1);
    c->wce = blk_enable_write_cache(s->blk);
    c->num_queues = GUINT16_TO_LE(s->dev.num_queues);
    c->max_discard_sectors = GUINT32_TO_LE(VIRTIO_BLK_MAX_RANGE_SECTORS);
    c->max_discard_seg = GUINT32_TO_LE(VIRTIO_BLK_MAX_RANGES);
    c->discard_sector_alignment = GUINT32_TO_LE(sectors);
    c->max_write_zeroes_sectors = GUINT32_TO_LE(VIRTIO_BLK_MAX_RANGE_SECTORS);
    c->max_write_zeroes_seg = GUINT32_TO_LE(VIRTIO_BLK_MAX_RANGES);
    c->write_zeroes_may_unmap = 1;
}

void virtio_blk_get_config(VirtIODevice *dev, uint8_t *config, size_t len)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);
    struct virtio_blk_config c = { 0 };

    virtio_blk_fill_config(s, &c);
    memset(config, 0, len);
    memcpy(config, &c, MIN(len, sizeof(c)));
}

/* The one field that a driver may write is the write-cache toggle. */
int virtio_blk_set_config(VirtIODevice *dev, size_t offset,
                          const uint8_t *data, size_t len)
{
    VirtIOBlock *s = container_of(dev, VirtIOBlock, dev);
    const size_t wce = offsetof(struct virtio_blk_config, wce);
    int ret;

    if (offset != wce || len != 1) {
        return -EINVAL;
    }
    if (data[0] == 0 && blk_enable_write_cache(s->blk)) {
        /* The driver will not flush what was written until now. */
        ret = s->writable ? blk_flush(s->blk) : 0;
        if (ret < 0) {
            return ret;
        }
    }
    s->wants_writethrough = data[0] == 0;
    blk_set_enable_write_cache(s->blk, data[0] != 0);
    return 0;
}
