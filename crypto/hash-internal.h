/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hash.c and pbkdf.c share.
 */
#ifndef CRYPTO_HASH_INTERNAL_H
#define CRYPTO_HASH_INTERNAL_H

#include <nettle/md5.h>
#include <nettle/nettle-meta.h>
#include <nettle/ripemd160.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <nettle/sm3.h>
#include "crypto/hash.h"

typedef union HashContext {
    struct md5_ctx md5;
    struct sha1_ctx sha1;
    struct sha256_ctx sha256;       /* and sha224 */
    struct sha512_ctx sha512;       /* and sha384 */
    struct ripemd160_ctx ripemd160;
    struct sm3_ctx sm3;
} HashContext;

const struct nettle_hash *hash_primitive(QCryptoHashAlgo alg);

#endif
