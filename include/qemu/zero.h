/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero detection.
 */
#ifndef QEMU_ZERO_H
#define QEMU_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether @len bytes at @buf are all zero; true for none.  Any alignment.  Uses
 * the widest vectors that the processor has.  Any thread, never blocks.
 */
bool buffer_is_zero(const void *buf, size_t len);

/*
 * For tests and benchmarks: the @n-th implementation this processor can run,
 * best first; its name goes to *@name.  NULL after the last.
 */
typedef bool BufferIsZeroFn(const void *buf, size_t len);
BufferIsZeroFn *buffer_is_zero_impl(unsigned int n, const char **name);

#endif
