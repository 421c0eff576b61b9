/*
 * How much memory a target takes: neither one allocation nor all that there are
 * at a moment may be beyond what any image of this size is worth.  So what is
 * allocated because an image says so is found, even where it would be had, or
 * be never touched.
 *
 * Without a sanitizer the C library's functions are replaced by ones that count
 * and pass on; with one, its hooks are told.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <malloc.h>
#include "fuzz.h"
#include "qemu/atomic.h"
#if QEMU_ASAN || QEMU_TSAN
#include <sanitizer/allocator_interface.h>
#endif

static bool armed;              /* atomic */
static ssize_t live;            /* atomic: bytes since it was armed */

/* It must not come here again to say so. */
static void G_GNUC_NORETURN refuse(const char *what, size_t bytes)
{
    qatomic_set(&armed, false);
    fuzz_fail("%zu bytes %s", bytes, what);
}

static void note_size(size_t bytes)
{
    if (bytes > FUZZ_MAX_ALLOCATION && qatomic_read(&armed)) {
        refuse("are allocated at once", bytes);
    }
}

static void note_more(size_t bytes)
{
    ssize_t sum = qatomic_fetch_add(&live, bytes) + bytes;

    if (sum > FUZZ_MAX_MEMORY && qatomic_read(&armed)) {
        refuse("are in use", sum);
    }
}

static void note_less(size_t bytes)
{
    (void)qatomic_fetch_sub(&live, bytes);
}

void fuzz_memory_begin(void)
{
    qatomic_set(&live, 0);
    qatomic_set(&armed, true);
}

void fuzz_memory_end(void)
{
    qatomic_set(&armed, false);
}

#if QEMU_ASAN || QEMU_TSAN

static void on_malloc(const volatile void *p, size_t bytes)
{
    note_size(bytes);
    note_more(bytes);
}

static void on_free(const volatile void *p)
{
    note_less(p ? __sanitizer_get_allocated_size(p) : 0);
}

void fuzz_memory_init(void)
{
    if (!__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free)) {
        abort();
    }
}

#else

/* The functions under their own names, which cannot be replaced. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *p);

static void *noted(void *p)
{
    note_more(p ? malloc_usable_size(p) : 0);
    return p;
}

void *malloc(size_t bytes)
{
    note_size(bytes);
    return noted(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes)
{
    note_size(bytes && n > SIZE_MAX / bytes ? SIZE_MAX : n * bytes);
    return noted(__libc_calloc(n, bytes));
}

void *realloc(void *p, size_t bytes)
{
    size_t old = p ? malloc_usable_size(p) : 0;
    void *moved;

    note_size(bytes);
    moved = __libc_realloc(p, bytes);
    if (moved || !bytes) {
        note_less(old);
    }
    return noted(moved);
}

void *memalign(size_t alignment, size_t bytes)
{
    note_size(bytes);
    return noted(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **p, size_t alignment, size_t bytes)
{
    *p = memalign(alignment, bytes);
    return *p ? 0 : ENOMEM;
}

void free(void *p)
{
    note_less(p ? malloc_usable_size(p) : 0);
    __libc_free(p);
}

void fuzz_memory_init(void)
{
}

#endif
