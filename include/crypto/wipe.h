/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that held a secret.
 */
#ifndef CRYPTO_WIPE_H
#define CRYPTO_WIPE_H

#include "qemu/osdep.h"

/* Overwrite @size bytes, in a way that the compiler keeps.  Any thread. */
static inline void qcrypto_wipe(void *p, size_t size)
{
#ifdef _WIN32
    SecureZeroMemory(p, size);
#else
    explicit_bzero(p, size);
#endif
}

/*
 * Bytes that are wiped before they are freed: g_auto(SecretBuf) b = { 0 };
 * @data is from g_malloc or g_try_malloc, or NULL.
 */
typedef struct SecretBuf {
    uint8_t *data;
    size_t size;
} SecretBuf;

static inline void secret_buf_clear(SecretBuf *b)
{
    if (b->data) {
        qcrypto_wipe(b->data, b->size);
        g_free(b->data);
    }
    *b = (SecretBuf) { 0 };
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SecretBuf, secret_buf_clear)

/* A buffer of @size bytes of zeroes; the size is the caller's own choice. */
static inline SecretBuf secret_buf_new(size_t size)
{
    return (SecretBuf) { .data = g_malloc0(size), .size = size };
}

#endif
