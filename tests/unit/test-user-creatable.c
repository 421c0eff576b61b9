/*
 * --object and secrets; the messages are those of stock's tools.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/secret.h"

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
    const uint8_t *bytes;
    size_t size;
    bool help;

    g_assert_true(user_creatable_add_from_str(types, optarg, &help,
                                              &error_abort));
    g_assert_false(help);
    bytes = qcrypto_secret_lookup(id, &size, &error_abort);
    g_assert_cmpmem(bytes, size, text, strlen(text));
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

static void test_unknown_secret(void)
{
    Error *err = NULL;
    size_t size;

    g_assert_null(qcrypto_secret_lookup("nobody", &size, &err));
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
    g_test_add_func("/secret/lookup/unknown", test_unknown_secret);
    return g_test_run();
}
