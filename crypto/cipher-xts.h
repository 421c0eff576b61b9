/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * XTS (IEEE 1619-2007) around any cipher of 16-byte blocks.
 */
#ifndef CRYPTO_CIPHER_XTS_H
#define CRYPTO_CIPHER_XTS_H

#include <nettle/nettle-types.h>
#include "qemu/osdep.h"

/*
 * Crypt one data unit of @len bytes, a multiple of 16, by @crypt with @ctx.
 * @tweak is the unit's IV, encrypted with the second key already.  @in and
 * @out may be the same.
 */
void xts_crypt(const void *ctx, nettle_cipher_func *crypt,
               const uint8_t tweak[16], const uint8_t *in, uint8_t *out,
               size_t len);

#endif
