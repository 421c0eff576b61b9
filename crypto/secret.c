/*
 * Secrets: --object secret,id=ID,(data=TEXT|file=PATH)[,format=raw|base64]
 * [,keyid=ID,iv=TEXT].
 *
 * With keyid=, what data or file holds (after base64, if so) is encrypted by
 * AES-256-CBC, padded as PKCS #7 says; the key is another secret of 32 bytes,
 * iv= the initialisation vector in base64.
 *
 * The bytes stay in memory until the program ends.  Secrets are made by the
 * thread that makes objects and looked up by any, so the table has a lock.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block/lock-order.h"
#include "crypto/cipher.h"
#include "crypto/secret.h"
#include "qemu/options.h"

#define IV_SIZE 16
#define KEY_SIZE 32

static LeafLock secrets_lock = { .mutex = QEMU_MUTEX_INITIALIZER };
/* SecretBuf * by id; made on first use. */
static GHashTable *secrets GUARDED_BY(leaf_class);

static const char *const secret_formats[] = { "raw", "base64", NULL };

static void buf_free(gpointer opaque)
{
    secret_buf_clear(opaque);
    g_free(opaque);
}

/* Where the secret's text comes from, not decoded yet. */
static bool load_input(json_t *props, SecretBuf *input, Error **errp)
{
    g_autofree char *data = opt_take_str(props, "data");
    g_autofree char *file = opt_take_str(props, "file");
    g_autoptr(GError) gerr = NULL;
    gsize size;

    if (data && file) {
        error_setg(errp, "'file' and 'data' are mutually exclusive");
        return false;
    }
    if (data) {
        input->size = strlen(data);
        input->data = (uint8_t *)g_steal_pointer(&data);
        return true;
    }
    if (!file) {
        error_setg(errp, "Either 'file' or 'data' must be provided");
        return false;
    }
    if (!g_file_get_contents(file, (char **)&input->data, &size, &gerr)) {
        error_setg(errp, "Unable to read %s: %s", file, gerr->message);
        return false;
    }
    input->size = size;
    return true;
}

static bool check_base64(const uint8_t *text, size_t size, Error **errp)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == 0) {
            error_setg(errp, "Base64 data contains embedded NUL characters");
            return false;
        }
    }
    for (size_t i = 0; i < size; i++) {
        if (!g_ascii_isalnum(text[i]) && !strchr("+/=\n", text[i])) {
            error_setg(errp, "Base64 data contains invalid characters");
            return false;
        }
    }
    return true;
}

/* The bytes that @text, in base64, stands for. */
static bool decode_base64(const uint8_t *text, size_t size, SecretBuf *out,
                          Error **errp)
{
    SecretBuf copy;

    if (!check_base64(text, size, errp)) {
        return false;
    }
    copy = secret_buf_new(size + 1);
    memcpy(copy.data, text, size);
    out->data = g_base64_decode((char *)copy.data, &out->size);
    secret_buf_clear(&copy);
    return true;
}

/* Take PKCS #7's padding off the end. */
static bool unpad(SecretBuf *b, Error **errp)
{
    uint8_t pad;

    if (b->size == 0) {
        return true;
    }
    pad = b->data[b->size - 1];
    for (size_t i = 1; i <= pad; i++) {
        if (pad > IV_SIZE || b->data[b->size - i] != pad) {
            pad = 0;
        }
    }
    if (pad == 0) {
        error_setg(errp, "Incorrect number of padding bytes (%d) found on "
                   "decrypted data", b->data[b->size - 1]);
        return false;
    }
    b->size -= pad;
    return true;
}

static bool decode_iv(const char *text, SecretBuf *iv, Error **errp)
{
    if (!text) {
        error_setg(errp, "IV is required to decrypt secret");
        return false;
    }
    if (!decode_base64((const uint8_t *)text, strlen(text), iv, errp)) {
        return false;
    }
    if (iv->size != IV_SIZE) {
        error_setg(errp, "IV should be %d bytes in length not %zu", IV_SIZE,
                   iv->size);
        return false;
    }
    return true;
}

/* Decrypt @b in place, with the secret @keyid. */
static bool decrypt(SecretBuf *b, const char *keyid, const char *iv_text,
                    Error **errp)
{
    g_auto(SecretBuf) key = { 0 }, iv = { 0 };
    g_autoptr(QCryptoCipher) c = NULL;

    if (!qcrypto_secret_lookup(keyid, &key, errp)) {
        return false;
    }
    if (key.size != KEY_SIZE) {
        error_setg(errp, "Key should be %d bytes in length", KEY_SIZE);
        return false;
    }
    if (!decode_iv(iv_text, &iv, errp)) {
        return false;
    }
    if (b->size % IV_SIZE) {
        error_setg(errp, "Length %zu must be a multiple of block size %d",
                   b->size, IV_SIZE);
        return false;
    }
    c = qcrypto_cipher_new(QCRYPTO_CIPHER_ALGO_AES_256,
                           QCRYPTO_CIPHER_MODE_CBC, key.data, key.size, errp);
    if (!c) {
        return false;
    }
    if (b->size) {
        qcrypto_cipher_decrypt(c, iv.data, b->size, b->data, b->data,
                               b->size);
    }
    return unpad(b, errp);
}

static bool check_strings(json_t *props, Error **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(props, key, value) {
        if (!json_is_string(value)) {
            error_setg(errp, "Invalid parameter type for '%s', "
                       "expected: string", key);
            return false;
        }
    }
    return true;
}

/* What @props describe, decoded and decrypted. */
static bool load(json_t *props, SecretBuf *out, Error **errp)
{
    g_autofree char *keyid = opt_take_str(props, "keyid");
    g_autofree char *iv = opt_take_str(props, "iv");
    g_auto(SecretBuf) input = { 0 };
    int format = 0;

    if (!opt_take_enum(props, "format", secret_formats, &format, errp) ||
        !load_input(props, &input, errp)) {
        return false;
    }
    if (format == 0) {
        *out = input;
        input = (SecretBuf) { 0 };
    } else if (!decode_base64(input.data, input.size, out, errp)) {
        return false;
    }
    return !keyid || decrypt(out, keyid, iv, errp);
}

static bool secret_create(const char *id, json_t *props, Error **errp)
{
    g_auto(SecretBuf) b = { 0 };

    if (!check_strings(props, errp) || !load(props, &b, errp)) {
        return false;
    }
    leaf_lock(&secrets_lock);
    if (!secrets) {
        secrets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        buf_free);
    }
    g_hash_table_insert(secrets, g_strdup(id), g_memdup2(&b, sizeof(b)));
    leaf_unlock(&secrets_lock);
    b = (SecretBuf) { 0 };
    return true;
}

bool qcrypto_secret_lookup(const char *id, SecretBuf *secret, Error **errp)
{
    const SecretBuf *found;

    leaf_lock(&secrets_lock);
    found = secrets ? g_hash_table_lookup(secrets, id) : NULL;
    if (found) {
        secret->data = g_malloc(found->size + 1);
        secret->size = found->size;
        if (found->size) {
            memcpy(secret->data, found->data, found->size);
        }
    }
    leaf_unlock(&secrets_lock);
    if (!found) {
        error_setg(errp, "No secret with id '%s'", id);
    }
    return found;
}

static const ObjectProperty secret_props[] = {
    { "data", "string" },
    { "file", "string" },
    { "format", "QCryptoSecretFormat" },
    { "iv", "string" },
    { "keyid", "string" },
    { NULL, NULL },
};

const ObjectType secret_object_type = {
    .name = "secret",
    .props = secret_props,
    .create = secret_create,
};
