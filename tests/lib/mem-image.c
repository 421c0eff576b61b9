/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages in a hash table, by number; a page has a reference count, which is
 * atomic since copies may be in different threads.  A page is written in place
 * only by the one image that holds it.
 */
#include "mem-image.h"
#include "qemu/bswap.h"
#include "qemu/atomic.h"

#define PAGE_BYTES 16384

typedef struct Page {
    int refs;                   /* atomic */
    uint8_t data[PAGE_BYTES];
} Page;

struct MemImage {
    int64_t size;
    GHashTable *pages;          /* number of the page -> Page */
};

static void page_unref(gpointer opaque)
{
    Page *p = opaque;

    if (qatomic_fetch_dec(&p->refs) == 1) {
        g_free(p);
    }
}

MemImage *mem_image_new(int64_t size)
{
    MemImage *img = g_new0(MemImage, 1);

    img->size = size;
    img->pages = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                       page_unref);
    return img;
}

static void put_page(MemImage *img, int64_t number, Page *p)
{
    g_hash_table_replace(img->pages, g_memdup2(&number, sizeof(number)), p);
}

MemImage *mem_image_clone(const MemImage *img)
{
    MemImage *copy = mem_image_new(img->size);
    GHashTableIter iter;
    gpointer key, value;

    g_hash_table_iter_init(&iter, img->pages);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        qatomic_inc(&((Page *)value)->refs);
        put_page(copy, *(int64_t *)key, value);
    }
    return copy;
}

void mem_image_free(MemImage *img)
{
    g_hash_table_destroy(img->pages);
    g_free(img);
}

int64_t mem_image_size(const MemImage *img)
{
    return img->size;
}

static Page *find_page(const MemImage *img, int64_t number)
{
    return g_hash_table_lookup(img->pages, &number);
}

/* A page that is ours alone. */
static Page *own_page(MemImage *img, int64_t number)
{
    Page *p = find_page(img, number);
    Page *copy;

    if (p && qatomic_read(&p->refs) == 1) {
        return p;
    }
    copy = g_new0(Page, 1);
    copy->refs = 1;
    if (p) {
        memcpy(copy->data, p->data, PAGE_BYTES);
    }
    put_page(img, number, copy);
    return copy;
}

/* How much of the range lies in the page in which it begins? */
static int64_t piece(int64_t offset, int64_t bytes)
{
    return MIN(bytes, PAGE_BYTES - offset % PAGE_BYTES);
}

void mem_image_read(const MemImage *img, int64_t offset, void *buf,
                    int64_t bytes)
{
    uint8_t *to = buf;

    while (bytes > 0) {
        const Page *p = find_page(img, offset / PAGE_BYTES);
        int64_t n = piece(offset, bytes);

        if (p) {
            memcpy(to, p->data + offset % PAGE_BYTES, n);
        } else {
            memset(to, 0, n);
        }
        to += n;
        offset += n;
        bytes -= n;
    }
}

void mem_image_write(MemImage *img, int64_t offset, const void *buf,
                     int64_t bytes)
{
    const uint8_t *from = buf;

    img->size = MAX(img->size, offset + bytes);
    while (bytes > 0) {
        int64_t n = piece(offset, bytes);

        memcpy(own_page(img, offset / PAGE_BYTES)->data + offset % PAGE_BYTES,
               from, n);
        from += n;
        offset += n;
        bytes -= n;
    }
}

static void fill_pages(MemImage *img, int64_t offset, uint8_t value,
                       int64_t bytes)
{
    while (bytes > 0) {
        int64_t number = offset / PAGE_BYTES;
        int64_t n = piece(offset, bytes);

        if (value == 0 && n == PAGE_BYTES) {
            g_hash_table_remove(img->pages, &number);
        } else if (value != 0 || find_page(img, number)) {
            memset(own_page(img, number)->data + offset % PAGE_BYTES, value,
                   n);
        }
        offset += n;
        bytes -= n;
    }
}

void mem_image_fill(MemImage *img, int64_t offset, uint8_t value,
                    int64_t bytes)
{
    img->size = MAX(img->size, offset + bytes);
    fill_pages(img, offset, value, bytes);
}

static gboolean page_is_past(gpointer key, gpointer value, gpointer end)
{
    return *(int64_t *)key * PAGE_BYTES >= *(int64_t *)end;
}

uint32_t mem_image_get32(const MemImage *img, int64_t offset)
{
    uint8_t b[4];

    mem_image_read(img, offset, b, sizeof(b));
    return ldl_be_p(b);
}

uint64_t mem_image_get64(const MemImage *img, int64_t offset)
{
    uint8_t b[8];

    mem_image_read(img, offset, b, sizeof(b));
    return ldq_be_p(b);
}

void mem_image_put32(MemImage *img, int64_t offset, uint32_t value)
{
    uint8_t b[4];

    stl_be_p(b, value);
    mem_image_write(img, offset, b, sizeof(b));
}

void mem_image_put64(MemImage *img, int64_t offset, uint64_t value)
{
    uint8_t b[8];

    stq_be_p(b, value);
    mem_image_write(img, offset, b, sizeof(b));
}

void mem_image_truncate(MemImage *img, int64_t size)
{
    if (size < img->size) {
        g_hash_table_foreach_remove(img->pages, page_is_past, &size);
        fill_pages(img, size, 0, piece(size, PAGE_BYTES));
    }
    img->size = size;
}

bool mem_image_is_hole(const MemImage *img, int64_t offset, int64_t bytes)
{
    int64_t number;

    for (number = offset / PAGE_BYTES; number * PAGE_BYTES < offset + bytes;
         number++) {
        if (find_page(img, number)) {
            return false;
        }
    }
    return true;
}

static int save_pages(const MemImage *img, int fd)
{
    GHashTableIter iter;
    gpointer key, value;

    if (ftruncate(fd, img->size) < 0) {
        return -errno;
    }
    g_hash_table_iter_init(&iter, img->pages);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        int64_t offset = *(int64_t *)key * PAGE_BYTES;
        int64_t n = MIN(PAGE_BYTES, img->size - offset);
        ssize_t done = RETRY_ON_EINTR(pwrite(fd, ((Page *)value)->data, n,
                                             offset));

        if (done != n) {
            return done < 0 ? -errno : -ENOSPC;
        }
    }
    return 0;
}

int mem_image_save(const MemImage *img, const char *path)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = save_pages(img, fd);
    close(fd);
    return ret;
}
