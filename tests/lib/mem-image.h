/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sparse file in memory that is cheap to copy.
 *
 * Pages that nobody wrote are not there and read as zeroes; copies share their
 * pages until one of them writes.  There is no lock inside: whoever lets
 * several threads at one image serialises them.  Different images may be used
 * by different threads, even where they share pages.
 */
#ifndef TESTS_MEM_IMAGE_H
#define TESTS_MEM_IMAGE_H

#include "qemu/osdep.h"

typedef struct MemImage MemImage;

/* @size bytes of zeroes. */
MemImage *mem_image_new(int64_t size);
MemImage *mem_image_clone(const MemImage *img);
void mem_image_free(MemImage *img);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MemImage, mem_image_free)

int64_t mem_image_size(const MemImage *img);
/* Past the end there are zeroes. */
void mem_image_read(const MemImage *img, int64_t offset, void *buf,
                    int64_t bytes);
/* These two extend the image when they reach past its end. */
void mem_image_write(MemImage *img, int64_t offset, const void *buf,
                     int64_t bytes);
void mem_image_fill(MemImage *img, int64_t offset, uint8_t value,
                    int64_t bytes);
/* Big-endian words. */
uint32_t mem_image_get32(const MemImage *img, int64_t offset);
uint64_t mem_image_get64(const MemImage *img, int64_t offset);
void mem_image_put32(MemImage *img, int64_t offset, uint32_t value);
void mem_image_put64(MemImage *img, int64_t offset, uint64_t value);
/* What a shorter size cuts off is zero if it comes back. */
void mem_image_truncate(MemImage *img, int64_t size);
/* Is all of the range in pages that are not there? */
bool mem_image_is_hole(const MemImage *img, int64_t offset, int64_t bytes);

/* The image as a file of the host, with holes.  0 or -errno. */
int mem_image_save(const MemImage *img, const char *path);

#endif
