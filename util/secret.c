/*
 * Secrets: --object secret,id=ID,(data=TEXT|file=PATH)[,format=raw|base64].
 *
 * The bytes stay in memory until the program ends.  QEMU also takes secrets
 * that are themselves encrypted with another one (keyid=, iv=); what needs a
 * cipher is refused by name here.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/secret.h"
#include "qemu/options.h"

/* GBytes by id. */
static GHashTable *secrets;

static const char *const secret_formats[] = { "raw", "base64", NULL };

/* Where the secret's text comes from, not decoded yet; NULL with an error. */
static GBytes *load_input(json_t *props, Error **errp)
{
    g_autofree char *data = opt_take_str(props, "data");
    g_autofree char *file = opt_take_str(props, "file");
    g_autoptr(GError) gerr = NULL;
    char *text;
    gsize size;

    if (data && file) {
        error_setg(errp, "'file' and 'data' are mutually exclusive");
        return NULL;
    }
    if (data) {
        size = strlen(data);
        return g_bytes_new_take(g_steal_pointer(&data), size);
    }
    if (!file) {
        error_setg(errp, "Either 'file' or 'data' must be provided");
        return NULL;
    }
    if (!g_file_get_contents(file, &text, &size, &gerr)) {
        error_setg(errp, "Unable to read %s: %s", file, gerr->message);
        return NULL;
    }
    return g_bytes_new_take(text, size);
}

static GBytes *decode_base64(GBytes *input)
{
    g_autofree char *text = g_strndup(g_bytes_get_data(input, NULL),
                                      g_bytes_get_size(input));
    guchar *bytes;
    gsize size;

    bytes = g_base64_decode(text, &size);
    return g_bytes_new_take(bytes, size);
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

static bool secret_create(const char *id, json_t *props, Error **errp)
{
    g_autofree char *keyid = NULL, *iv = NULL;
    int format = 0;
    GBytes *bytes, *decoded;

    if (!check_strings(props, errp) ||
        !opt_take_enum(props, "format", secret_formats, &format, errp)) {
        return false;
    }
    keyid = opt_take_str(props, "keyid");
    iv = opt_take_str(props, "iv");
    bytes = load_input(props, errp);
    if (!bytes) {
        return false;
    }
    if (keyid) {
        size_t size;

        g_bytes_unref(bytes);
        if (qcrypto_secret_lookup(keyid, &size, errp)) {
            error_setg(errp, "Secrets encrypted by another secret are not "
                       "supported");
        }
        return false;
    }
    if (format == 1) {
        decoded = decode_base64(bytes);
        g_bytes_unref(bytes);
        bytes = decoded;
    }
    if (!secrets) {
        secrets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        (GDestroyNotify)g_bytes_unref);
    }
    g_hash_table_insert(secrets, g_strdup(id), bytes);
    return true;
}

const uint8_t *qcrypto_secret_lookup(const char *id, size_t *size,
                                     Error **errp)
{
    GBytes *bytes = secrets ? g_hash_table_lookup(secrets, id) : NULL;

    if (!bytes) {
        error_setg(errp, "No secret with id '%s'", id);
        return NULL;
    }
    return g_bytes_get_data(bytes, size);
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
