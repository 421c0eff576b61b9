/*
 * Hashes and what is made of them: PBKDF2, IVs, anti-forensic splitting.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/ivgen.h"
#include "../lib/hex.h"

static const struct {
    QCryptoHashAlgo alg;
    const char *abc;
} digests[] = {
    { QCRYPTO_HASH_ALGO_MD5, "900150983cd24fb0d6963f7d28e17f72" },
    { QCRYPTO_HASH_ALGO_SHA1, "a9993e364706816aba3e25717850c26c9cd0d89d" },
    { QCRYPTO_HASH_ALGO_SHA224,
      "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7" },
    { QCRYPTO_HASH_ALGO_SHA256,
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
    { QCRYPTO_HASH_ALGO_SHA384,
      "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
      "8086072ba1e7cc2358baeca134c825a7" },
    { QCRYPTO_HASH_ALGO_SHA512,
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f" },
    { QCRYPTO_HASH_ALGO_RIPEMD160,
      "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc" },
    { QCRYPTO_HASH_ALGO_SM3,
      "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0" },
};

/* "abc", as each hash's definition gives it, whole and in pieces. */
static void test_digests(void)
{
    struct iovec iov[] = {
        { .iov_base = (char *)"a", .iov_len = 1 },
        { .iov_base = NULL, .iov_len = 0 },
        { .iov_base = (char *)"bc", .iov_len = 2 },
    };

    g_assert_cmpuint(ARRAY_SIZE(digests), ==, QCRYPTO_HASH_ALGO__MAX);
    for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
        uint8_t digest[QCRYPTO_HASH_MAX_DIGEST];
        size_t n = qcrypto_hash_digest_len(digests[i].alg);

        qcrypto_hash_bytes(digests[i].alg, "abc", 3, digest);
        assert_hex(digest, n, digests[i].abc);
        qcrypto_hash_bytesv(digests[i].alg, iov, ARRAY_SIZE(iov), digest);
        assert_hex(digest, n, digests[i].abc);
    }
}

static void expect_pbkdf2(QCryptoHashAlgo alg, const char *key, size_t nkey,
                          const char *salt, size_t nsalt, uint32_t iterations,
                          const char *expected)
{
    size_t n = strlen(expected) / 2;
    g_autofree uint8_t *out = g_malloc(n);

    qcrypto_pbkdf2(alg, key, nkey, salt, nsalt, iterations, out, n);
    assert_hex(out, n, expected);
}

/* RFC 6070, and RFC 7914 (section 11) for SHA-256. */
static void test_pbkdf2(void)
{
    expect_pbkdf2(QCRYPTO_HASH_ALGO_SHA1, "password", 8, "salt", 4, 1,
                  "0c60c80f961f0e71f3a9b524af6012062fe037a6");
    expect_pbkdf2(QCRYPTO_HASH_ALGO_SHA1, "password", 8, "salt", 4, 4096,
                  "4b007901b765489abead49d926f721d065a429c1");
    expect_pbkdf2(QCRYPTO_HASH_ALGO_SHA1, "passwordPASSWORDpassword", 24,
                  "saltSALTsaltSALTsaltSALTsaltSALTsalt", 36, 4096,
                  "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
    expect_pbkdf2(QCRYPTO_HASH_ALGO_SHA1, "pass\0word", 9, "sa\0lt", 5, 4096,
                  "56fa6aa75548099dcc37d7f03425e0c3");
    expect_pbkdf2(QCRYPTO_HASH_ALGO_SHA256, "passwd", 6, "salt", 4, 1,
                  "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c2"
                  "0dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd50911"
                  "2041d3a19783");
}

/* Twice the time is twice the iterations; two digests cost twice one. */
static void test_count_iters(void)
{
    uint64_t one = qcrypto_pbkdf2_count_iters(QCRYPTO_HASH_ALGO_SHA256, 32,
                                              1000);
    uint64_t more = qcrypto_pbkdf2_count_iters(QCRYPTO_HASH_ALGO_SHA256, 32,
                                               4000);
    uint64_t wide = qcrypto_pbkdf2_count_iters(QCRYPTO_HASH_ALGO_SHA256, 128,
                                               1000);

    /* Generous bounds: the machine's speed changes under the test. */
    g_assert_cmpuint(one, >, 1000);
    g_assert_cmpuint(more, >, one);
    g_assert_cmpuint(wide, <, one);
    g_assert_cmpuint(qcrypto_pbkdf2_count_iters(QCRYPTO_HASH_ALGO_SHA256, 32,
                                                0), ==, 1);
    g_assert_cmpuint(qcrypto_pbkdf2_count_iters(QCRYPTO_HASH_ALGO_SHA256, 32,
                                                UINT64_MAX), ==, UINT64_MAX);
}

static void test_random(void)
{
    uint8_t a[300], b[300];

    g_assert_true(qcrypto_random_bytes(a, sizeof(a), &error_abort));
    g_assert_true(qcrypto_random_bytes(b, sizeof(b), &error_abort));
    g_assert_cmpint(memcmp(a, b, 256), !=, 0);
    g_assert_cmpint(memcmp(a + 256, b + 256, 44), !=, 0);
}

/* What the text of the specification makes of these stripes. */
static void expect_merged(QCryptoHashAlgo alg, size_t size, uint32_t stripes,
                          const char *expected)
{
    g_autofree uint8_t *in = g_malloc(size * stripes);
    g_autofree uint8_t *out = g_malloc(size);

    for (size_t i = 0; i < size * stripes; i++) {
        in[i] = i * 7 + 3;
    }
    qcrypto_afsplit_decode(alg, size, stripes, in, out);
    assert_hex(out, size, expected);
}

static void test_afsplit_vectors(void)
{
    expect_merged(QCRYPTO_HASH_ALGO_SHA256, 64, 4,
                  "9a4c5c232dcac2e6cd3f091da4e58969ee04d83c64059071fe1d68c672"
                  "e21caf286e139f413e4a3dda63213d62af237ebff552db69ec1d3f9d96"
                  "6802690f012a");
    expect_merged(QCRYPTO_HASH_ALGO_SHA1, 20, 3,
                  "21b6bdf3e7e78c23633b1a1ea3a4fce4865a5362");
    expect_merged(QCRYPTO_HASH_ALGO_SHA256, 24, 4000,
                  "bf60d7d174908b7e96441967245daea4b93b42611baf7cfc");
}

static void check_round_trip(QCryptoHashAlgo alg, size_t size,
                             uint32_t stripes)
{
    g_autofree uint8_t *in = g_malloc(size), *out = g_malloc(size);
    g_autofree uint8_t *split = g_malloc(size * stripes);

    for (size_t i = 0; i < size; i++) {
        in[i] = i;
    }
    g_assert_true(qcrypto_afsplit_encode(alg, size, stripes, in, split,
                                         &error_abort));
    qcrypto_afsplit_decode(alg, size, stripes, split, out);
    g_assert_cmpmem(out, size, in, size);
    if (stripes > 1) {
        split[0] ^= 1;
        qcrypto_afsplit_decode(alg, size, stripes, split, out);
        g_assert_cmpint(memcmp(out, in, size), !=, 0);
    }
}

static void test_afsplit_round_trip(void)
{
    for (int alg = 0; alg < QCRYPTO_HASH_ALGO__MAX; alg++) {
        check_round_trip(alg, 64, 1);
        check_round_trip(alg, 64, 2);
        check_round_trip(alg, 16, 100);
        check_round_trip(alg, 37, 9);
    }
}

static void test_ivgen_plain(void)
{
    g_autoptr(QCryptoIVGen) plain = qcrypto_ivgen_new(
        QCRYPTO_IV_GEN_ALGO_PLAIN, QCRYPTO_CIPHER_ALGO_AES_128, 0, NULL, 0,
        &error_abort);
    g_autoptr(QCryptoIVGen) plain64 = qcrypto_ivgen_new(
        QCRYPTO_IV_GEN_ALGO_PLAIN64, QCRYPTO_CIPHER_ALGO_AES_128, 0, NULL, 0,
        &error_abort);
    uint8_t ivs[32];

    qcrypto_ivgen_calculate(plain, 0x1ffffffff, 2, ivs, 16);
    assert_hex(ivs, 32, "ffffffff000000000000000000000000"
               "00000000000000000000000000000000");
    qcrypto_ivgen_calculate(plain64, 0x1ffffffff, 2, ivs, 16);
    assert_hex(ivs, 32, "ffffffff010000000000000000000000"
               "00000000020000000000000000000000");
    qcrypto_ivgen_calculate(plain64, 0x0102030405060708, 1, ivs, 8);
    assert_hex(ivs, 8, "0807060504030201");
}

/* From the definition: AES-256 of the number, with SHA-256 of the key. */
static void test_ivgen_essiv(void)
{
    uint8_t key[16] = "0123456789abcde", salt[32], iv[16], expected[16];
    g_autoptr(QCryptoIVGen) g = qcrypto_ivgen_new(
        QCRYPTO_IV_GEN_ALGO_ESSIV, QCRYPTO_CIPHER_ALGO_AES_128,
        QCRYPTO_HASH_ALGO_SHA256, key, sizeof(key), &error_abort);
    g_autoptr(QCryptoCipher) c = NULL;

    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA256, key, sizeof(key), salt);
    c = qcrypto_cipher_new(QCRYPTO_CIPHER_ALGO_AES_256,
                           QCRYPTO_CIPHER_MODE_ECB, salt, 32, &error_abort);
    memset(expected, 0, sizeof(expected));
    expected[0] = 0x34;
    expected[1] = 0x12;
    qcrypto_cipher_encrypt(c, NULL, 16, expected, expected, 16);
    qcrypto_ivgen_calculate(g, 0x1234, 1, iv, 16);
    g_assert_cmpmem(iv, 16, expected, 16);
}

static void expect_essiv_refused(QCryptoCipherAlgo cipher,
                                 QCryptoHashAlgo hash, const char *message)
{
    Error *err = NULL;

    g_assert_null(qcrypto_ivgen_new(QCRYPTO_IV_GEN_ALGO_ESSIV, cipher, hash,
                                    (const uint8_t *)"", 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_essiv_refused(void)
{
    expect_essiv_refused(QCRYPTO_CIPHER_ALGO_AES_256, QCRYPTO_HASH_ALGO_SHA1,
                         "No AES cipher with key size 20 available");
    expect_essiv_refused(QCRYPTO_CIPHER_ALGO_TWOFISH_128,
                         QCRYPTO_HASH_ALGO_SHA512,
                         "No Twofish cipher with key size 64 available");
    expect_essiv_refused(QCRYPTO_CIPHER_ALGO_CAST5_128,
                         QCRYPTO_HASH_ALGO_MD5,
                         "Cipher cast5-128 not supported with essiv");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hash/digest/vectors", test_digests);
    g_test_add_func("/pbkdf2/vectors", test_pbkdf2);
    g_test_add_func("/pbkdf2/count-iters/proportional", test_count_iters);
    g_test_add_func("/random/differs", test_random);
    g_test_add_func("/afsplit/decode/vectors", test_afsplit_vectors);
    g_test_add_func("/afsplit/encode/round-trip", test_afsplit_round_trip);
    g_test_add_func("/ivgen/plain/numbers", test_ivgen_plain);
    g_test_add_func("/ivgen/essiv/as-defined", test_ivgen_essiv);
    g_test_add_func("/ivgen/essiv/refused", test_essiv_refused);
    return g_test_run();
}
