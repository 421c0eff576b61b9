/*
 * --object and secrets; the messages are those of stock's tools.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/secret.h"

static const ObjectType *const types[] = { &secret_object_type, NULL };

static void expect_error(const char *optarg, const char *message)
{
    Error *err = NULL;
    bool help;

    g_assert_false(user_creatable_add_from_str(types, optarg, &help, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void expect_secret(const char *optarg, const char *id,
                          const char *text)
{
    g_auto(SecretBuf) b = { 0 };
    bool help;

    g_assert_true(user_creatable_add_from_str(types, optarg, &help,
                                              &error_abort));
    g_assert_false(help);
    g_assert_true(qcrypto_secret_lookup(id, &b, &error_abort));
    g_assert_cmpmem(b.data, b.size, text, strlen(text));
}

static void test_refused(void)
{
    expect_error("", "Parameter 'qom-type' is missing");
    expect_error("foo,id=a", "Parameter 'qom-type' does not accept value "
                 "'foo'");
    expect_error("secret,data=x", "Parameter 'id' is missing");
    expect_error("secret,id=1a,data=x", "Parameter 'id' expects an "
                 "identifier");
    expect_error("secret,id=a,data=x,bar=1", "Parameter 'bar' is unexpected");
    expect_error("secret,id=a", "Either 'file' or 'data' must be provided");
    expect_error("secret,id=a,data=x,file=y", "'file' and 'data' are mutually "
                 "exclusive");
    expect_error("secret,id=a,data=x,keyid=b", "No secret with id 'b'");
    expect_error("secret,id=a,data=x,format=foo", "Parameter 'format' does "
                 "not accept value 'foo'");
    expect_error("{'qom-type':'secret','id':'a','data':1}",
                 "Invalid parameter type for 'data', expected: string");
}

static void test_data(void)
{
    expect_secret("secret,id=plain,data=a,,b", "plain", "a,b");
    expect_secret("secret,id=b64,data=eHl6,format=base64", "b64", "xyz");
    expect_secret("{\"qom-type\": \"secret\", \"id\": \"js\","
                  " \"data\": \"q\"}", "js", "q");
    expect_error("secret,id=plain,data=x", "attempt to add duplicate property "
                 "'plain' to object (type 'container')");
}

static void test_file(void)
{
    g_autofree char *name = NULL, *opt = NULL;
    int fd = g_file_open_tmp("secret-XXXXXX", &name, NULL);

    g_assert_cmpint(write(fd, "s3\n", 3), ==, 3);
    close(fd);
    opt = g_strdup_printf("secret,id=from-file,file=%s", name);
    expect_secret(opt, "from-file", "s3\n");
    g_assert_cmpint(unlink(name), ==, 0);
}

#define IV ",iv=AAECAwQFBgcICQoLDA0ODw=="

/* "letmein", as "openssl enc -aes-256-cbc -a" encrypts it with that key. */
static void test_encrypted(void)
{
    expect_secret("secret,id=key,data=01234567890123456789012345678901",
                  "key", "01234567890123456789012345678901");
    expect_secret("secret,id=enc,keyid=key,format=base64,"
                  "data=n70WYuIs6wBHMMpROF+Omg==" IV, "enc", "letmein");
    expect_secret("secret,id=enc0,keyid=key,format=base64,data=" IV, "enc0",
                  "");
}

static void test_encrypted_refused(void)
{
    bool help;

    g_assert_true(user_creatable_add_from_str(
        types, "secret,id=k,data=01234567890123456789012345678901", &help,
        &error_abort));
    g_assert_true(user_creatable_add_from_str(types, "secret,id=short,data=x",
                                              &help, &error_abort));
    expect_error("secret,id=a,keyid=k,data=n70WYuIs6wBHMMpROF+Omg==" IV,
                 "Length 24 must be a multiple of block size 16");
    expect_error("secret,id=a,keyid=k,format=base64,data=AAAA" IV,
                 "Length 3 must be a multiple of block size 16");
    expect_error("secret,id=a,keyid=k,data=0123456789abcdef",
                 "IV is required to decrypt secret");
    expect_error("secret,id=a,keyid=none,data=0123456789abcdef" IV,
                 "No secret with id 'none'");
    expect_error("secret,id=a,keyid=short,data=0123456789abcdef" IV,
                 "Key should be 32 bytes in length");
    expect_error("secret,id=a,keyid=k,data=0123456789abcdef,iv=AAAA",
                 "IV should be 16 bytes in length not 3");
    expect_error("secret,id=a,keyid=k,data=0123456789abcdef,iv=!!",
                 "Base64 data contains invalid characters");
    expect_error("secret,id=a,keyid=k,format=base64,data="
                 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" IV,
                 "Incorrect number of padding bytes (111) found on decrypted "
                 "data");
    expect_error("secret,id=a,format=base64,data=!!!",
                 "Base64 data contains invalid characters");
}

static void test_unknown_secret(void)
{
    Error *err = NULL;
    SecretBuf b = { 0 };

    g_assert_false(qcrypto_secret_lookup("nobody", &b, &err));
    g_assert_null(b.data);
    g_assert_cmpstr(error_get_pretty(err), ==, "No secret with id 'nobody'");
    error_free(err);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/user-creatable/add/refuses-with-stock-messages",
                    test_refused);
    g_test_add_func("/secret/data/kept-decoded", test_data);
    g_test_add_func("/secret/file/read-whole", test_file);
    g_test_add_func("/secret/keyid/decrypted", test_encrypted);
    g_test_add_func("/secret/keyid/refused", test_encrypted_refused);
    g_test_add_func("/secret/lookup/unknown", test_unknown_secret);
    return g_test_run();
}
