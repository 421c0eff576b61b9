/*
 * Ciphers: vectors of the standards, and one cipher in many threads.
 *
 * With "-m perf" it also measures: MB/s of one thread, sectors of 512 bytes.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/cipher.h"
#include "qemu/thread.h"
#include "../lib/hex.h"

typedef struct Vector {
    const char *source;
    QCryptoCipherAlgo alg;
    QCryptoCipherMode mode;
    const char *key, *iv, *plain, *cipher;
} Vector;

#define ECB(ALG) QCRYPTO_CIPHER_ALGO_ ## ALG, QCRYPTO_CIPHER_MODE_ECB
#define MODE(ALG, M) QCRYPTO_CIPHER_ALGO_ ## ALG, QCRYPTO_CIPHER_MODE_ ## M

static const Vector vectors[] = {
    { "fips-197-c1", ECB(AES_128), "000102030405060708090a0b0c0d0e0f", "",
      "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a" },
    { "fips-197-c2", ECB(AES_192),
      "000102030405060708090a0b0c0d0e0f1011121314151617", "",
      "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191" },
    { "fips-197-c3", ECB(AES_256),
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "",
      "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089" },
    { "sp800-38a-f.2.1", MODE(AES_128, CBC),
      "2b7e151628aed2a6abf7158809cf4f3c", "000102030405060708090a0b0c0d0e0f",
      "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
      "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2" },
    { "sp800-38a-f.2.5", MODE(AES_256, CBC),
      "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
      "000102030405060708090a0b0c0d0e0f",
      "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
      "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d" },
    { "sp800-38a-f.5.1", MODE(AES_128, CTR),
      "2b7e151628aed2a6abf7158809cf4f3c", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
      "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
      "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff" },
    { "nessie-serpent-128", ECB(SERPENT_128),
      "80000000000000000000000000000000", "",
      "00000000000000000000000000000000", "264e5481eff42a4606abda06c0bfda3d" },
    { "nessie-serpent-192", ECB(SERPENT_192),
      "800000000000000000000000000000000000000000000000", "",
      "00000000000000000000000000000000", "9e274ead9b737bb21efcfca548602689" },
    { "nessie-serpent-256", ECB(SERPENT_256),
      "8000000000000000000000000000000000000000000000000000000000000000", "",
      "00000000000000000000000000000000", "a223aa1288463c0e2be38ebd825616c0" },
    { "twofish-128", ECB(TWOFISH_128), "00000000000000000000000000000000", "",
      "00000000000000000000000000000000", "9f589f5cf6122c32b6bfec2f2ae8c35a" },
    { "twofish-192", ECB(TWOFISH_192),
      "0123456789abcdeffedcba98765432100011223344556677", "",
      "00000000000000000000000000000000", "cfd1d2e5a9be9cdf501f13b892bd2248" },
    { "twofish-256", ECB(TWOFISH_256),
      "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "",
      "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20" },
    { "rfc2144-b.1", ECB(CAST5_128), "0123456712345678234567893456789a", "",
      "0123456789abcdef", "238b4fe5847e44b2" },
    { "ieee1619-1", MODE(AES_128, XTS),
      "0000000000000000000000000000000000000000000000000000000000000000",
      "00000000000000000000000000000000",
      "0000000000000000000000000000000000000000000000000000000000000000",
      "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e" },
    { "ieee1619-2", MODE(AES_128, XTS),
      "1111111111111111111111111111111122222222222222222222222222222222",
      "33333333330000000000000000000000",
      "4444444444444444444444444444444444444444444444444444444444444444",
      "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0" },
};

static void test_vector(gconstpointer opaque)
{
    const Vector *v = opaque;
    size_t nkey, niv, n, ncipher;
    g_autofree uint8_t *key = hex_bytes(v->key, &nkey);
    g_autofree uint8_t *iv = hex_bytes(v->iv, &niv);
    g_autofree uint8_t *plain = hex_bytes(v->plain, &n);
    g_autofree uint8_t *cipher = hex_bytes(v->cipher, &ncipher);
    g_autofree uint8_t *out = g_malloc(n);
    g_autoptr(QCryptoCipher) c = qcrypto_cipher_new(v->alg, v->mode, key,
                                                    nkey, &error_abort);

    g_assert_cmpuint(niv, ==, qcrypto_cipher_get_iv_len(v->alg, v->mode));
    qcrypto_cipher_encrypt(c, iv, n, plain, out, n);
    g_assert_cmpmem(out, n, cipher, ncipher);
    qcrypto_cipher_decrypt(c, iv, n, out, out, n);
    g_assert_cmpmem(out, n, plain, n);
}

/* IEEE 1619, vector 10: a sector, so the whole run of tweaks. */
static void test_xts_sector(void)
{
    size_t nkey;
    g_autofree uint8_t *key = hex_bytes(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592",
        &nkey);
    uint8_t iv[16] = { 0xff }, data[512];
    g_autoptr(QCryptoCipher) c = qcrypto_cipher_new(
        QCRYPTO_CIPHER_ALGO_AES_256, QCRYPTO_CIPHER_MODE_XTS, key, nkey,
        &error_abort);

    for (int i = 0; i < 512; i++) {
        data[i] = i;
    }
    qcrypto_cipher_encrypt(c, iv, 512, data, data, 512);
    assert_hex(data, 64,
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd");
    assert_hex(data + 256, 32,
        "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1");
    assert_hex(data + 480, 32,
        "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151");
    qcrypto_cipher_decrypt(c, iv, 512, data, data, 512);
    for (int i = 0; i < 512; i++) {
        g_assert_cmpuint(data[i], ==, i & 0xff);
    }
}

static QCryptoCipher *new_cipher(QCryptoCipherAlgo alg,
                                 QCryptoCipherMode mode)
{
    uint8_t key[64];

    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] = i * 5 + 1;
    }
    return qcrypto_cipher_new(alg, mode, key,
                              qcrypto_cipher_get_mode_key_len(alg, mode),
                              &error_abort);
}

#define UNIT 528                /* 33 blocks of 16: no whole run */
#define UNITS 35                /* no whole number of tweak batches */

typedef struct Job {
    const QCryptoCipher *cipher;
    const uint8_t *ivs, *plain, *expected;
} Job;

/* Many units in one call are the same units in a call each, in any place. */
static void check_units(const Job *job)
{
    size_t len = UNIT * UNITS;
    g_autofree uint8_t *buf = g_malloc(len);

    qcrypto_cipher_encrypt(job->cipher, job->ivs, UNIT, job->plain, buf, len);
    g_assert_cmpmem(buf, len, job->expected, len);
    qcrypto_cipher_decrypt(job->cipher, job->ivs, UNIT, buf, buf, len);
    g_assert_cmpmem(buf, len, job->plain, len);
}

static void *check_many_times(void *opaque)
{
    for (int i = 0; i < 40; i++) {
        check_units(opaque);
    }
    return NULL;
}

static void check_mode(QCryptoCipherAlgo alg, QCryptoCipherMode mode)
{
    g_autoptr(QCryptoCipher) c = new_cipher(alg, mode);
    size_t niv = qcrypto_cipher_get_iv_len(alg, mode);
    g_autofree uint8_t *plain = g_malloc(UNIT * UNITS);
    g_autofree uint8_t *expected = g_malloc(UNIT * UNITS);
    uint8_t ivs[UNITS * QCRYPTO_CIPHER_MAX_BLOCK];
    Job job = { c, ivs, plain, expected };
    QemuThread threads[4];

    for (size_t i = 0; i < UNIT * UNITS; i++) {
        plain[i] = i ^ i >> 8;
    }
    for (size_t i = 0; i < sizeof(ivs); i++) {
        ivs[i] = i * 11;
    }
    for (size_t i = 0; i < UNITS; i++) {
        qcrypto_cipher_encrypt(c, ivs + i * niv, UNIT, plain + i * UNIT,
                               expected + i * UNIT, UNIT);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        g_assert_cmpint(qemu_thread_create(&threads[i], "cipher",
                                           check_many_times, &job), ==, 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
}

static void test_threads(void)
{
    for (int alg = 0; alg < QCRYPTO_CIPHER_ALGO__MAX; alg++) {
        for (int mode = 0; mode < QCRYPTO_CIPHER_MODE__MAX; mode++) {
            if (qcrypto_cipher_supports(alg, mode)) {
                check_mode(alg, mode);
            }
        }
    }
}

static void expect_refused(QCryptoCipherAlgo alg, QCryptoCipherMode mode,
                           size_t nkey, const char *message)
{
    static const uint8_t key[64];
    Error *err = NULL;

    g_assert_null(qcrypto_cipher_new(alg, mode, key, nkey, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_refused(void)
{
    expect_refused(MODE(CAST5_128, XTS), 32, "Unsupported cipher mode xts");
    expect_refused(MODE(DES, CBC), 8, "Unsupported cipher algorithm des with "
                   "cbc mode");
    expect_refused(MODE(AES_256, XTS), 32, "Cipher key length 32 should be "
                   "64");
    expect_refused(MODE(AES_256, CBC), 0, "Cipher key length 0 should be 32");
}

static void measure(QCryptoCipherAlgo alg, QCryptoCipherMode mode,
                    bool encrypt)
{
    g_autoptr(QCryptoCipher) c = new_cipher(alg, mode);
    static uint8_t in[65536], out[65536], ivs[128 * 16];
    int64_t bytes = 0;

    g_test_timer_start();
    do {
        if (encrypt) {
            qcrypto_cipher_encrypt(c, ivs, 512, in, out, sizeof(in));
        } else {
            qcrypto_cipher_decrypt(c, ivs, 512, in, out, sizeof(in));
        }
        bytes += sizeof(in);
    } while (bytes % MiB || g_test_timer_elapsed() < 0.3);
    g_test_message("%s-%s %s, %.0f MB/s", QCryptoCipherMode_names[mode],
                   QCryptoCipherAlgo_names[alg],
                   encrypt ? "encrypt" : "decrypt",
                   bytes / 1e6 / g_test_timer_last());
}

static void test_speed(void)
{
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        measure(MODE(AES_256, XTS), encrypt);
        measure(MODE(AES_128, XTS), encrypt);
        measure(MODE(AES_128, CBC), encrypt);
        measure(MODE(AES_256, CTR), encrypt);
        measure(MODE(SERPENT_256, XTS), encrypt);
        measure(MODE(TWOFISH_256, XTS), encrypt);
        measure(MODE(CAST5_128, CBC), encrypt);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        g_autofree char *path = g_strdup_printf("/cipher/vector/%s",
                                                vectors[i].source);

        g_test_add_data_func(path, &vectors[i], test_vector);
    }
    g_test_add_func("/cipher/vector/ieee1619-10", test_xts_sector);
    g_test_add_func("/cipher/encrypt/many-threads-share-one", test_threads);
    g_test_add_func("/cipher/new/refuses", test_refused);
    if (g_test_perf()) {
        g_test_add_func("/cipher/speed", test_speed);
    }
    return g_test_run();
}
