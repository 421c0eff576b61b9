/*
 * PBKDF2 (RFC 8018) with HMAC, and how many iterations of it take how long.
 *
 * nettle wants a MAC as an update and a digest function of one context; the
 * context here is an HMAC of any hash, keyed once.
 *
 * The calibration doubles the iterations until they take long enough to be
 * told from noise.  It counts the CPU time of its own thread: a machine that
 * is busy with something else must not make the password cheaper to guess.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <nettle/hmac.h>
#include <nettle/pbkdf2.h>
#include "crypto/wipe.h"
#include "hash-internal.h"

typedef struct Hmac {
    const struct nettle_hash *hash;
    HashContext outer, inner, state;
} Hmac;

static void hmac_update_cb(void *opaque, size_t size, const uint8_t *data)
{
    Hmac *m = opaque;

    hmac_update(&m->state, m->hash, size, data);
}

static void hmac_digest_cb(void *opaque, size_t size, uint8_t *digest)
{
    Hmac *m = opaque;

    hmac_digest(&m->outer, &m->inner, &m->state, m->hash, size, digest);
}

void qcrypto_pbkdf2(QCryptoHashAlgo alg, const void *key, size_t nkey,
                    const void *salt, size_t nsalt, uint32_t iterations,
                    uint8_t *out, size_t nout)
{
    Hmac m = { .hash = hash_primitive(alg) };

    g_assert(iterations > 0);
    hmac_set_key(&m.outer, &m.inner, &m.state, m.hash, nkey, key);
    pbkdf2(&m, hmac_update_cb, hmac_digest_cb, m.hash->digest_size,
           iterations, nsalt, salt, nout, out);
    qcrypto_wipe(&m, sizeof(m));
}

/* CPU time of this thread in nanoseconds. */
static int64_t thread_cpu_ns(void)
{
#ifdef _WIN32
    FILETIME created, ended, kernel, user;

    GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user);
    return 100 * ((int64_t)user.dwHighDateTime << 32 | user.dwLowDateTime);
#else
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
#endif
}

/* What @iterations take. */
static int64_t measure_ns(QCryptoHashAlgo alg, uint32_t iterations,
                          size_t nout)
{
    static const uint8_t salt[32] = "salt", key[8] = "password";
    g_autofree uint8_t *out = g_malloc(nout);
    int64_t start = thread_cpu_ns();

    qcrypto_pbkdf2(alg, key, sizeof(key), salt, sizeof(salt), iterations,
                   out, nout);
    return thread_cpu_ns() - start;
}

uint64_t qcrypto_pbkdf2_count_iters(QCryptoHashAlgo alg, size_t nout,
                                    uint64_t ms)
{
    uint32_t n = 1024;
    int64_t ns = measure_ns(alg, n, nout);
    double iters;

    while (ns < 25 * 1000 * 1000 && n < UINT32_MAX / 2) {
        n *= 2;
        ns = measure_ns(alg, n, nout);
    }
    iters = (double)n / MAX(ns, 1) * 1e6 * ms;
    if (iters >= (double)UINT64_MAX) {
        return UINT64_MAX;
    }
    return MAX((uint64_t)iters, 1);
}
