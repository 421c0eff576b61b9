/*
 * Encryption of disks, on a header in memory: create and open, key slots,
 * headers that lie, I/O that fails.  tests/interop does it with other tools.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/block.h"
#include "crypto/secret.h"
#include "qemu/thread.h"
#include "../lib/hex.h"

/* ---- A header in memory, whose nth access fails ---- */

typedef struct Mem {
    uint8_t *data;
    size_t size;
    int accesses, fail_at;          /* 0: none fails */
    QCryptoBlockIO io;
} Mem;

static bool mem_access(Mem *m, int64_t offset, size_t bytes, Error **errp)
{
    if (++m->accesses == m->fail_at) {
        error_setg(errp, "made to fail");
        return false;
    }
    if (offset < 0 || offset > (int64_t)m->size || bytes > m->size - offset) {
        error_setg(errp, "past the end");
        return false;
    }
    return true;
}

static bool mem_read(void *opaque, int64_t offset, void *buf, size_t bytes,
                     Error **errp)
{
    Mem *m = opaque;

    if (!mem_access(m, offset, bytes, errp)) {
        return false;
    }
    memcpy(buf, m->data + offset, bytes);
    return true;
}

static bool mem_write(void *opaque, int64_t offset, const void *buf,
                      size_t bytes, Error **errp)
{
    Mem *m = opaque;

    if (!mem_access(m, offset, bytes, errp)) {
        return false;
    }
    memcpy(m->data + offset, buf, bytes);
    return true;
}

static bool mem_init(void *opaque, size_t bytes, Error **errp)
{
    Mem *m = opaque;

    if (!mem_access(m, 0, 0, errp)) {
        return false;
    }
    m->data = g_realloc(m->data, bytes);
    memset(m->data, 0, bytes);
    m->size = bytes;
    return true;
}

static void mem_setup(Mem *m)
{
    *m = (Mem) {
        .io = { .read = mem_read, .write = mem_write, .init = mem_init,
                .opaque = m },
    };
}

static void mem_clear(Mem *m)
{
    g_free(m->data);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Mem, mem_clear)

/* ---- Helpers ---- */

static json_t *opts(const char *text)
{
    return options_from_json(text, &error_abort);
}

static QCryptoBlock *create_with(Mem *m, const char *options, Error **errp)
{
    g_autoptr(json_t) o = opts(options);
    QCryptoBlock *b = qcrypto_block_create(QCRYPTO_BLOCK_FORMAT_LUKS, o, NULL,
                                           &m->io, 0, errp);

    g_assert_true(!b || opt_check_unused(o, NULL));
    return b;
}

static QCryptoBlock *open_with(Mem *m, const char *secret, int flags,
                               Error **errp)
{
    g_autoptr(json_t) o = json_object();

    opt_set_str(o, "key-secret", secret);
    return qcrypto_block_open(QCRYPTO_BLOCK_FORMAT_LUKS, o, NULL, &m->io,
                              flags, errp);
}

static void expect_open(Mem *m, const char *secret, const char *message)
{
    Error *err = NULL;
    g_autoptr(QCryptoBlock) b = open_with(m, secret, 0, &err);

    if (message) {
        g_assert_null(b);
        g_assert_cmpstr(error_get_pretty(err), ==, message);
        error_free(err);
    } else {
        g_assert_null(err);
        g_assert_nonnull(b);
    }
}

#define QUICK "'key-secret': 's', 'iter-time': 0"

static void create_quick(Mem *m)
{
    g_autoptr(QCryptoBlock) b = NULL;

    mem_setup(m);
    b = create_with(m, "{" QUICK "}", &error_abort);
    g_assert_nonnull(b);
}

/* The data that one encrypts is what the other decrypts. */
static void check_same_key(const QCryptoBlock *a, const QCryptoBlock *b)
{
    uint8_t plain[4096], data[4096];

    for (size_t i = 0; i < sizeof(plain); i++) {
        plain[i] = i ^ i >> 8;
    }
    qcrypto_block_encrypt(a, 5 * 512, plain, data, sizeof(data));
    g_assert_cmpint(memcmp(plain, data, sizeof(data)), !=, 0);
    /* Any part of it, in place. */
    qcrypto_block_decrypt(b, 6 * 512, data + 512, data + 512, 1024);
    qcrypto_block_decrypt(b, 8 * 512, data + 1536, data + 1536, 2560);
    qcrypto_block_decrypt(b, 5 * 512, data, data, 512);
    g_assert_cmpmem(data, sizeof(data), plain, sizeof(plain));
}

/* ---- Create and open ---- */

static void check_round_trip(const char *options, const char *info_key,
                             const char *info_value)
{
    g_auto(Mem) m = { 0 };
    g_autofree char *text = g_strdup_printf("{" QUICK ", %s}", options);
    g_autoptr(QCryptoBlock) made = NULL, opened = NULL;
    g_autoptr(json_t) info = NULL;

    mem_setup(&m);
    made = create_with(&m, text, &error_abort);
    opened = open_with(&m, "s", 0, &error_abort);
    check_same_key(made, opened);
    info = qcrypto_block_get_info(opened);
    g_assert_cmpstr(opt_peek_str(info, info_key), ==, info_value);
    g_assert_cmpint(qcrypto_block_get_payload_offset(opened), ==, m.size);
}

static void test_ciphers(void)
{
    static const char *const algs[] = {
        "aes-128", "aes-192", "aes-256", "serpent-128", "serpent-192",
        "serpent-256", "twofish-128", "twofish-192", "twofish-256",
    };

    for (size_t i = 0; i < ARRAY_SIZE(algs); i++) {
        g_autofree char *o = g_strdup_printf("'cipher-alg': '%s'", algs[i]);

        check_round_trip(o, "cipher-alg", algs[i]);
    }
    check_round_trip("'cipher-alg': 'cast5-128', 'cipher-mode': 'cbc'",
                     "cipher-alg", "cast5-128");
}

static void test_modes(void)
{
    check_round_trip("'cipher-mode': 'ecb'", "cipher-mode", "ecb");
    check_round_trip("'cipher-mode': 'ctr'", "cipher-mode", "ctr");
    check_round_trip("'cipher-mode': 'cbc', 'ivgen-alg': 'plain'",
                     "ivgen-alg", "plain");
    check_round_trip("'cipher-mode': 'cbc', 'ivgen-alg': 'essiv'",
                     "ivgen-hash-alg", "sha256");
    check_round_trip("'cipher-alg': 'aes-128', 'ivgen-alg': 'essiv', "
                     "'ivgen-hash-alg': 'md5'", "ivgen-hash-alg", "md5");
    check_round_trip("'ivgen-hash-alg': 'sha1'", "ivgen-hash-alg", NULL);
}

static void test_hashes(void)
{
    for (int i = 0; QCryptoHashAlgo_names[i]; i++) {
        g_autofree char *o = g_strdup_printf("'hash-alg': '%s'",
                                             QCryptoHashAlgo_names[i]);

        check_round_trip(o, "hash-alg", QCryptoHashAlgo_names[i]);
    }
}

static void expect_create_refused(const char *options, const char *message)
{
    g_auto(Mem) m = { 0 };
    Error *err = NULL;

    mem_setup(&m);
    g_assert_null(create_with(&m, options, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
    g_assert_cmpint(m.accesses, ==, 0);
}

static void test_create_refused(void)
{
    expect_create_refused("{}", "Parameter 'key-secret' is required for "
                          "cipher");
    expect_create_refused("{'key-secret': 'none'}",
                          "No secret with id 'none'");
    expect_create_refused("{" QUICK ", 'cipher-alg': 'foo'}",
                          "Parameter 'cipher-alg' does not accept value "
                          "'foo'");
    expect_create_refused("{" QUICK ", 'cipher-alg': '3des'}",
                          "Algorithm '3des' not supported");
    expect_create_refused("{" QUICK ", 'cipher-alg': 'cast5-128'}",
                          "Unsupported cipher mode xts");
    expect_create_refused("{" QUICK ", 'ivgen-alg': 'essiv', "
                          "'ivgen-hash-alg': 'sha1'}",
                          "No AES cipher with key size 20 available");
    expect_create_refused("{'key-secret': 's', 'iter-time': 'abc'}",
                          "Parameter 'iter-time' expects a number");
}

/* Nobody computes for hours, not even who asks for it. */
static void test_create_iterations_bounded(void)
{
    g_auto(Mem) m = { 0 };
    Error *err = NULL;

    mem_setup(&m);
    g_assert_null(create_with(&m, "{'key-secret': 's', "
                              "'iter-time': 10000000000}", &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "PBKDF iterations "));
    error_free(err);
    g_assert_null(m.data);
}

static void test_prefix(void)
{
    g_autoptr(json_t) o = json_object();
    Error *err = NULL;

    g_assert_null(qcrypto_block_open(QCRYPTO_BLOCK_FORMAT_QCOW, o, "encrypt.",
                                     NULL, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Parameter "
                    "'encrypt.key-secret' is required for cipher");
    error_free(err);
}

static void test_passwords(void)
{
    g_auto(Mem) m = { 0 };

    create_quick(&m);
    expect_open(&m, "s", NULL);
    expect_open(&m, "other", "Invalid password, cannot unlock any keyslot");
    expect_open(&m, "none", "No secret with id 'none'");
    expect_open(&m, NULL, "Parameter 'key-secret' is required for cipher");
}

static void test_info(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL;
    g_autoptr(json_t) info = NULL, expected = NULL;
    const json_t *slots;

    create_quick(&m);
    b = open_with(&m, NULL, QCRYPTO_BLOCK_OPEN_NO_IO, &error_abort);
    info = qcrypto_block_get_info(b);
    slots = json_object_get(info, "slots");
    g_assert_cmpuint(json_array_size(slots), ==, 8);
    expected = opts("{'active': true, 'iters': 1000, 'key-offset': 4096, "
                    "'stripes': 4000}");
    g_assert_true(json_equal(json_array_get(slots, 0), expected));
    json_decref(expected);
    expected = opts("{'active': false, 'key-offset': 1810432}");
    g_assert_true(json_equal(json_array_get(slots, 7), expected));
    json_decref(expected);
    g_assert_true(g_uuid_string_is_valid(opt_peek_str(info, "uuid")));
    json_object_del(info, "slots");
    json_object_del(info, "uuid");
    expected = opts("{'format': 'luks', 'cipher-alg': 'aes-256', "
                    "'cipher-mode': 'xts', 'ivgen-alg': 'plain64', "
                    "'hash-alg': 'sha256', 'detached-header': false, "
                    "'payload-offset': 2068480, 'master-key-iters': 1000}");
    g_assert_true(json_equal(info, expected));
}

static void test_measure(void)
{
    g_autoptr(json_t) o = opts("{'key-secret': 's', 'iter-time': 5, "
                               "'cipher-alg': 'aes-128'}");
    int64_t bytes = -1;

    g_assert_true(qcrypto_block_calculate_payload_offset(
        QCRYPTO_BLOCK_FORMAT_LUKS, o, NULL, &bytes, &error_abort));
    g_assert_cmpint(bytes, ==, 4096 + 8 * 131072);
    g_assert_true(opt_check_unused(o, NULL));
}

static void test_probe(void)
{
    g_auto(Mem) m = { 0 };

    create_quick(&m);
    g_assert_true(qcrypto_block_has_format(QCRYPTO_BLOCK_FORMAT_LUKS, m.data,
                                           512));
    g_assert_false(qcrypto_block_has_format(QCRYPTO_BLOCK_FORMAT_LUKS, m.data,
                                            7));
    m.data[7] = 2;
    g_assert_false(qcrypto_block_has_format(QCRYPTO_BLOCK_FORMAT_LUKS, m.data,
                                            512));
}

/* A header in a file of its own: no payload there, and no overlap with it. */
static void test_detached(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(json_t) o = opts("{" QUICK "}");
    g_autoptr(QCryptoBlock) made = NULL, opened = NULL;

    mem_setup(&m);
    made = qcrypto_block_create(QCRYPTO_BLOCK_FORMAT_LUKS, o, NULL, &m.io,
                                QCRYPTO_BLOCK_DETACHED, &error_abort);
    opened = open_with(&m, "s", QCRYPTO_BLOCK_DETACHED, &error_abort);
    check_same_key(made, opened);
    g_assert_cmpint(qcrypto_block_get_payload_offset(opened), ==, 0);
    expect_open(&m, "s", "LUKS payload is overlapping with the header");
}

/* ---- Legacy ---- */

/* The password is the key; a vector from the definition, via a cipher. */
static void test_qcow(void)
{
    g_autoptr(json_t) o = opts("{'key-secret': 'long'}");
    g_autoptr(QCryptoBlock) b = qcrypto_block_open(
        QCRYPTO_BLOCK_FORMAT_QCOW, o, NULL, NULL, 0, &error_abort);
    g_autoptr(QCryptoCipher) c = qcrypto_cipher_new(
        QCRYPTO_CIPHER_ALGO_AES_128, QCRYPTO_CIPHER_MODE_CBC,
        (const uint8_t *)"0123456789abcdef", 16, &error_abort);
    uint8_t iv[16] = { 3 }, a[512] = { 1 }, d[512] = { 1 };
    g_autoptr(json_t) info = qcrypto_block_get_info(b), expected = NULL;
    g_autoptr(json_t) change = json_object();
    Error *err = NULL;

    qcrypto_cipher_encrypt(c, iv, 512, a, a, 512);
    qcrypto_block_encrypt(b, 3 * 512, d, d, 512);
    g_assert_cmpmem(a, 512, d, 512);
    expected = opts("{'format': 'aes'}");
    g_assert_true(json_equal(info, expected));
    g_assert_false(qcrypto_block_amend(b, change, NULL, false, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Only LUKS encryption options "
                    "can be amended");
    error_free(err);
}

/* ---- Threads ---- */

static void *crypt_many(void *opaque)
{
    for (int i = 0; i < 200; i++) {
        check_same_key(opaque, opaque);
    }
    return NULL;
}

static bool amend(QCryptoBlock *b, Mem *m, const char *options, bool force,
                  Error **errp)
{
    g_autoptr(json_t) o = opts(options);

    return qcrypto_block_amend(b, o, &m->io, force, errp);
}

#define ADD_OTHER "{'state': 'active', 'new-secret': 'other', 'iter-time': 0}"

static void test_threads(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL;
    QemuThread threads[3];

    create_quick(&m);
    b = open_with(&m, "s", 0, &error_abort);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        g_assert_cmpint(qemu_thread_create(&threads[i], "crypt", crypt_many,
                                           b), ==, 0);
    }
    g_assert_true(amend(b, &m, ADD_OTHER, false, &error_abort));
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
}

/* ---- Key slots ---- */

static void expect_refused(QCryptoBlock *b, Mem *m, const char *options,
                           const char *message)
{
    g_autofree uint8_t *before = g_memdup2(m->data, m->size);
    Error *err = NULL;

    g_assert_false(amend(b, m, options, false, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
    g_assert_cmpmem(m->data, m->size, before, m->size);
}

static void test_slot_added_and_erased(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL, other = NULL;
    g_autofree uint8_t *material = NULL;

    create_quick(&m);
    b = open_with(&m, "s", 0, &error_abort);
    g_assert_true(amend(b, &m, ADD_OTHER, false, &error_abort));
    other = open_with(&m, "other", 0, &error_abort);
    check_same_key(b, other);
    expect_open(&m, "s", NULL);

    material = g_memdup2(m.data + 4096, 256000);
    g_assert_true(amend(b, &m, "{'state': 'inactive', 'old-secret': 's'}",
                        false, &error_abort));
    expect_open(&m, "s", "Invalid password, cannot unlock any keyslot");
    expect_open(&m, "other", NULL);
    for (int i = 0; i < 256000; i += 512) {
        g_assert_cmpint(memcmp(material + i, m.data + 4096 + i, 512), !=, 0);
    }
    /* The state, no iterations, no salt; the place stays. */
    assert_hex(m.data + 208, 48, "0000dead00000000"
               "0000000000000000000000000000000000000000000000000000000000"
               "0000000000000800000fa0");

    /* What opened b is gone, so another must be named to add a slot. */
    expect_refused(b, &m, ADD_OTHER, "Invalid password, cannot unlock any "
                   "keyslot");
    g_assert_true(amend(b, &m, "{'state': 'active', 'new-secret': 's', "
                        "'secret': 'other', 'keyslot': 5, 'iter-time': 0}",
                        false, &error_abort));
    expect_open(&m, "s", NULL);
}

static void test_slot_refused(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL;

    create_quick(&m);
    b = open_with(&m, "s", 0, &error_abort);
    expect_refused(b, &m, "{}", "Parameter 'state' is missing");
    expect_refused(b, &m, "{'state': 'foo'}",
                   "Parameter 'state' does not accept value 'foo'");
    expect_refused(b, &m, "{'state': 'active'}",
                   "'new-secret' is required to activate a keyslot");
    expect_refused(b, &m, "{'state': 'active', 'new-secret': 'none'}",
                   "No secret with id 'none'");
    expect_refused(b, &m, "{'state': 'active', 'new-secret': 's', "
                   "'old-secret': 's'}",
                   "'old-secret' must not be given when activating keyslots");
    expect_refused(b, &m, "{'state': 'active', 'new-secret': 's', "
                   "'keyslot': 0}", "Refusing to overwrite active keyslot 0 "
                   "- please erase it first");
    expect_refused(b, &m, "{'state': 'active', 'new-secret': 's', "
                   "'keyslot': 8}", "Invalid keyslot 8 specified, must be "
                   "between 0 and 7");
    expect_refused(b, &m, "{'state': 'active', 'new-secret': 's', "
                   "'keyslot': -1}", "Invalid keyslot 4294967295 specified, "
                   "must be between 0 and 7");
    expect_refused(b, &m, "{'state': 'inactive'}", "To erase keyslot(s), "
                   "either explicit keyslot index or the password currently "
                   "contained in them must be given");
    expect_refused(b, &m, "{'state': 'inactive', 'new-secret': ''}",
                   "'new-secret' must not be given when erasing keyslots");
    expect_refused(b, &m, "{'state': 'inactive', 'iter-time': 1}",
                   "'iter-time' must not be given when erasing keyslots");
    expect_refused(b, &m, "{'state': 'inactive', 'keyslot': 3}",
                   "Given keyslot 3 is already erased (inactive) ");
    expect_refused(b, &m, "{'state': 'inactive', 'keyslot': 9}",
                   "Invalid keyslot 9 specified, must be between 0 and 7");
    expect_refused(b, &m, "{'state': 'inactive', 'keyslot': 0, "
                   "'old-secret': 'other'}", "Given keyslot 0 doesn't "
                   "contain the given old password for erase operation");
    expect_refused(b, &m, "{'state': 'inactive', 'old-secret': 'other'}",
                   "No keyslots match given (old) password for erase "
                   "operation");
}

static void test_last_slot_kept(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL;

    create_quick(&m);
    b = open_with(&m, "s", 0, &error_abort);
    expect_refused(b, &m, "{'state': 'inactive', 'keyslot': 0}",
                   "Attempt to erase the only active keyslot 0 which will "
                   "erase all the data in the image irreversibly - refusing "
                   "operation");
    expect_refused(b, &m, "{'state': 'inactive', 'old-secret': 's'}",
                   "All the active keyslots match the (old) password that "
                   "was given and erasing them will erase all the data in "
                   "the image irreversibly - refusing operation");
    g_assert_true(amend(b, &m, "{'state': 'inactive', 'keyslot': 0}", true,
                        &error_abort));
    expect_open(&m, "s", "Invalid password, cannot unlock any keyslot");
}

static void test_all_slots_used(void)
{
    g_auto(Mem) m = { 0 };
    g_autoptr(QCryptoBlock) b = NULL;

    create_quick(&m);
    b = open_with(&m, "s", 0, &error_abort);
    for (int i = 1; i < 8; i++) {
        g_assert_true(amend(b, &m, ADD_OTHER, false, &error_abort));
    }
    expect_refused(b, &m, ADD_OTHER, "Can't add a keyslot - all keyslots are "
                   "in use");
    g_assert_true(amend(b, &m, "{'state': 'active', 'new-secret': 'long', "
                        "'keyslot': 7, 'iter-time': 0}", true, &error_abort));
    expect_open(&m, "long", NULL);
    g_assert_true(amend(b, &m, "{'state': 'inactive', 'old-secret': "
                        "'other'}", false, &error_abort));
    expect_open(&m, "other", "Invalid password, cannot unlock any keyslot");
    expect_open(&m, "s", NULL);
}

/* ---- Headers that lie ---- */

#define LONG "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define Z(text) text "\0", sizeof(text)
#define B(text) text, sizeof(text) - 1

static const struct {
    int offset;
    const char *bytes;
    size_t n;
    const char *message;
} lies[] = {
    { 0, B("X"), "Volume is not in LUKS format" },
    { 7, B("\2"), "LUKS version 2 is not supported" },
    { 8, Z("foo"), "Algorithm 'foo' with key size 32 bytes not supported" },
    { 8, Z("cast5"), "Algorithm 'cast5' with key size 32 bytes not "
      "supported" },
    { 8, B(LONG), "LUKS header cipher name is not NUL terminated" },
    { 40, Z("xxx-plain64"), "Cipher mode 'xxx' not supported" },
    { 40, Z("xts"), "Unexpected cipher mode string format 'xts'" },
    { 40, Z(""), "Unexpected cipher mode string format ''" },
    { 40, Z("xts-foo"), "IV generator 'foo' not supported" },
    { 40, Z("xts-"), "IV generator '' not supported" },
    { 40, Z("xts-essiv"), "Missing IV generator hash specification" },
    { 40, Z("xts-essiv:foo"), "Hash algorithm 'foo' not supported" },
    { 40, Z("xts-essiv:sha1"), "No AES cipher with key size 20 available" },
    { 40, Z("cbc-plain64"), "Algorithm 'aes' with key size 64 bytes not "
      "supported" },
    { 40, B(LONG), "LUKS header cipher mode is not NUL terminated" },
    { 72, Z("foo"), "Hash algorithm 'foo' not supported" },
    { 72, B(LONG), "LUKS header hash spec is not NUL terminated" },
    { 104, B("\0\0\0\0"), "LUKS payload is overlapping with the header" },
    { 104, B("\0\0\0\7"), "LUKS payload is overlapping with the header" },
    { 104, B("\0\0\0\x08"), "Keyslot 0 is overlapping with the encrypted "
      "payload" },
    { 104, B("\0\0\x0f\x00"), "Keyslot 7 is overlapping with the encrypted "
      "payload" },
    { 108, B("\0\0\0\0"), "Algorithm 'aes' with key size 0 bytes not "
      "supported" },
    { 108, B("\0\0\0\x41"), "Algorithm 'aes' with key size 32 bytes not "
      "supported" },
    { 108, B("\xff\xff\xff\xff"), "Algorithm 'aes' with key size 2147483647 "
      "bytes not supported" },
    { 164, B("\0\0\0\0"), "LUKS key iteration count is zero" },
    { 164, B("\xff\xff\xff\xff"), "LUKS iteration counts are too large: "
      "8589935590 in all, of at most 2147483648" },
    { 208, B("\1\2\3\4"), "Keyslot 0 state (active/disable) is corrupted" },
    { 212, B("\0\0\0\0"), "Keyslot 0 iteration count is zero" },
    { 212, B("\xff\xff\xff\xff"), "LUKS iteration counts are too large: "
      "4294969295 in all, of at most 2147483648" },
    { 248, B("\0\0\0\0"), "Keyslot 0 is overlapping with the LUKS header" },
    { 248, B("\0\0\0\7"), "Keyslot 0 is overlapping with the LUKS header" },
    { 248, B("\xff\xff\xff\xff"), "Keyslot 0 is overlapping with the "
      "encrypted payload" },
    { 248, B("\0\0\2\0"), "Keyslots 0 and 1 are overlapping in the header" },
    { 248, B("\0\0\3\xf3"), "Keyslots 0 and 1 are overlapping in the header" },
    { 248, B("\0\0\0\x0d"), "Keyslots 0 and 1 are overlapping in the header" },
    { 252, B("\0\0\0\0"), "Keyslot 0 is corrupted (stripes 0 != 4000)" },
    { 252, B("\xff\xff\xff\xff"), "Keyslot 0 is corrupted (stripes "
      "4294967295 != 4000)" },
    { 300, B("\0\0\0\1"), "Keyslot 1 is corrupted (stripes 1 != 4000)" },
    /* Plausible, but not what was made. */
    { 40, Z("xts-plain64:md5"), NULL },
    { 72, Z("sha1"), "Invalid password, cannot unlock any keyslot" },
    { 108, B("\0\0\0\x20"), "Invalid password, cannot unlock any keyslot" },
    { 112, B("\0\0\0\0"), "Invalid password, cannot unlock any keyslot" },
    { 168, B(LONG), NULL },
    { 168, B("\xff\xfe"), NULL },
    { 210, B("\0\0\0\0"), "Keyslot 0 state (active/disable) is corrupted" },
    { 260, B("\xff\xff\xff\xff"), NULL },     /* an unused slot's iterations */
};

static void test_lies(void)
{
    g_auto(Mem) m = { 0 };
    uint8_t header[592];

    create_quick(&m);
    memcpy(header, m.data, sizeof(header));
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autoptr(QCryptoBlock) b = NULL;

        g_test_message("%d: %s", lies[i].offset, lies[i].message);
        memcpy(m.data, header, sizeof(header));
        memcpy(m.data + lies[i].offset, lies[i].bytes, lies[i].n);
        expect_open(&m, "s", lies[i].message);
        /* Looking must be safe whatever it is. */
        b = open_with(&m, NULL, QCRYPTO_BLOCK_OPEN_NO_IO, NULL);
        if (b) {
            json_decref(qcrypto_block_get_info(b));
        }
    }
}

static void test_noise(void)
{
    g_auto(Mem) m = { 0 };
    uint8_t header[592];

    create_quick(&m);
    memcpy(header, m.data, sizeof(header));
    for (int i = 0; i < 20000; i++) {
        g_autoptr(QCryptoBlock) b = NULL;
        int n = g_test_rand_int_range(1, 4);

        memcpy(m.data, header, sizeof(header));
        while (n--) {
            m.data[g_test_rand_int_range(0, 592)] = g_test_rand_int();
        }
        b = open_with(&m, NULL, QCRYPTO_BLOCK_OPEN_NO_IO, NULL);
        if (b) {
            json_decref(qcrypto_block_get_info(b));
        }
    }
}

static void test_truncated(void)
{
    static const size_t sizes[] = { 0, 7, 591, 592, 4096, 100000 };
    g_auto(Mem) m = { 0 };

    create_quick(&m);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        m.size = sizes[i];
        expect_open(&m, "s", sizes[i] < 592
                    ? "Unable to read LUKS header: past the end"
                    : "Unable to read key material of keyslot 0: past the "
                    "end");
    }
}

/* ---- I/O that fails ---- */

static void test_open_fails(void)
{
    g_auto(Mem) m = { 0 };
    int n;

    create_quick(&m);
    for (n = 1; ; n++) {
        g_autoptr(QCryptoBlock) b = NULL;
        Error *err = NULL;

        m.accesses = 0;
        m.fail_at = n;
        b = open_with(&m, "s", 0, &err);
        if (b) {
            break;
        }
        g_assert_nonnull(strstr(error_get_pretty(err), "made to fail"));
        error_free(err);
    }
    g_assert_cmpint(n, ==, 3);
}

static void test_create_fails(void)
{
    int n;

    for (n = 1; ; n++) {
        g_auto(Mem) m = { 0 };
        g_autoptr(QCryptoBlock) b = NULL;
        Error *err = NULL;

        mem_setup(&m);
        m.fail_at = n;
        b = create_with(&m, "{" QUICK "}", &err);
        if (b) {
            break;
        }
        g_assert_nonnull(strstr(error_get_pretty(err), "made to fail"));
        error_free(err);
        /* What is not finished does not look like LUKS. */
        g_assert_false(m.data && qcrypto_block_has_format(
            QCRYPTO_BLOCK_FORMAT_LUKS, m.data, m.size));
    }
    g_assert_cmpint(n, ==, 4);
}

/* Whatever else there was: the last password that opens is not erased. */
static void check_last_is_kept(Mem *m)
{
    g_autoptr(QCryptoBlock) b = open_with(m, "s", 0, &error_abort);
    g_autoptr(QCryptoBlock) other = open_with(m, "other", 0, NULL);

    g_assert_true(other ||
                  !amend(b, m, "{'state': 'inactive', 'old-secret': 's'}",
                         false, NULL));
}

static void check_amend_fails(const char *options, int accesses)
{
    g_auto(Mem) m = { 0 };
    g_autofree uint8_t *image = NULL;
    int n;

    create_quick(&m);
    {
        g_autoptr(QCryptoBlock) b = open_with(&m, "s", 0, &error_abort);

        g_assert_true(amend(b, &m, ADD_OTHER, false, &error_abort));
        g_assert_true(amend(b, &m, ADD_OTHER, false, &error_abort));
    }
    image = g_memdup2(m.data, m.size);
    for (n = 1; ; n++) {
        g_autoptr(QCryptoBlock) b = NULL;
        Error *err = NULL;

        memcpy(m.data, image, m.size);
        m.fail_at = 0;
        b = open_with(&m, "s", 0, &error_abort);
        m.accesses = 0;
        m.fail_at = n;
        if (amend(b, &m, options, false, &err)) {
            break;
        }
        g_assert_nonnull(strstr(error_get_pretty(err), "made to fail"));
        error_free(err);
        m.fail_at = 0;
        check_last_is_kept(&m);
        expect_open(&m, "s", NULL);
    }
    g_assert_cmpint(n, ==, accesses + 1);
}

static void test_amend_fails(void)
{
    check_amend_fails("{'state': 'active', 'new-secret': 'long', "
                      "'iter-time': 0}", 3);
    check_amend_fails("{'state': 'inactive', 'old-secret': 'other'}", 6);
    check_amend_fails("{'state': 'inactive', 'keyslot': 1}", 2);
}

static void add_secret(const char *optarg)
{
    static const ObjectType *const types[] = { &secret_object_type, NULL };
    bool help;

    g_assert_true(user_creatable_add_from_str(types, optarg, &help,
                                              &error_abort));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_secret("secret,id=s,data=abc");
    add_secret("secret,id=other,data=another");
    add_secret("secret,id=long,data=0123456789abcdefghi");
    g_test_add_func("/luks/create/ciphers", test_ciphers);
    g_test_add_func("/luks/create/modes", test_modes);
    g_test_add_func("/luks/create/hashes", test_hashes);
    g_test_add_func("/luks/create/refused", test_create_refused);
    g_test_add_func("/luks/create/iterations-bounded",
                    test_create_iterations_bounded);
    g_test_add_func("/luks/create/detached", test_detached);
    g_test_add_func("/luks/create/any-io-fails", test_create_fails);
    g_test_add_func("/luks/open/passwords", test_passwords);
    g_test_add_func("/luks/open/prefix-in-message", test_prefix);
    g_test_add_func("/luks/open/lies-refused", test_lies);
    g_test_add_func("/luks/open/noise", test_noise);
    g_test_add_func("/luks/open/truncated", test_truncated);
    g_test_add_func("/luks/open/any-io-fails", test_open_fails);
    g_test_add_func("/luks/info/as-stock", test_info);
    g_test_add_func("/luks/measure/header", test_measure);
    g_test_add_func("/luks/probe/magic-and-version", test_probe);
    g_test_add_func("/luks/amend/added-and-erased",
                    test_slot_added_and_erased);
    g_test_add_func("/luks/amend/refused", test_slot_refused);
    g_test_add_func("/luks/amend/last-slot-kept", test_last_slot_kept);
    g_test_add_func("/luks/amend/all-slots-used", test_all_slots_used);
    g_test_add_func("/luks/amend/any-io-fails", test_amend_fails);
    g_test_add_func("/luks/encrypt/many-threads", test_threads);
    g_test_add_func("/qcow/encrypt/password-is-key", test_qcow);
    return g_test_run();
}
