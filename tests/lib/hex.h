/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes of test vectors, as the standards print them.
 */
#ifndef TEST_HEX_H
#define TEST_HEX_H

#include "qemu/osdep.h"

/* The bytes that @hex spells, an even number of digits; for g_free. */
static inline uint8_t *hex_bytes(const char *hex, size_t *size)
{
    uint8_t *bytes = g_malloc(strlen(hex) / 2 + 1);

    *size = strlen(hex) / 2;
    for (size_t i = 0; i < *size; i++) {
        bytes[i] = g_ascii_xdigit_value(hex[2 * i]) << 4 |
                   g_ascii_xdigit_value(hex[2 * i + 1]);
    }
    return bytes;
}

static inline char *bytes_hex(const void *bytes, size_t size)
{
    GString *s = g_string_new("");

    for (size_t i = 0; i < size; i++) {
        g_string_append_printf(s, "%02x", ((const uint8_t *)bytes)[i]);
    }
    return g_string_free(s, FALSE);
}

#define assert_hex(bytes, size, expected)                                    \
    do {                                                                     \
        g_autofree char *hex_ = bytes_hex(bytes, size);                      \
        g_assert_cmpstr(hex_, ==, expected);                                 \
    } while (0)

#endif
