/*
 * Parsing of numbers and printing of results.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

int64_t io_parse_size(const char *text)
{
    uint64_t size;
    int ret = qemu_strtosz(text, NULL, &size);

    if (ret == -ERANGE || (ret == 0 && size > INT64_MAX)) {
        printf("Parsing error: argument too large -- %s\n", text);
        return -ERANGE;
    }
    if (ret < 0) {
        printf("Parsing error: non-numeric argument, or "
               "extraneous/unrecognized suffix -- %s\n", text);
        return ret;
    }
    return size;
}

int io_parse_pattern(const char *text)
{
    unsigned value;

    if (qemu_strtoui(text, NULL, 0, &value) < 0 || value > 0xff) {
        printf("%s is not a valid pattern byte\n", text);
        return -1;
    }
    return value;
}

char *io_size_text(double bytes)
{
    static const char *const units[] = {
        "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };
    size_t unit = 0;
    char number[64];
    char *dot;

    while (bytes >= 1024 && unit < ARRAY_SIZE(units) - 1) {
        bytes /= 1024;
        unit++;
    }
    snprintf(number, sizeof(number), "%.*f", unit ? 3 : 6, bytes);
    /* Only a fraction that is there is shown. */
    dot = strchr(number, '.');
    if (dot && strspn(dot + 1, "0") == strlen(dot + 1)) {
        *dot = '\0';
    }
    return g_strdup_printf("%s %s", number, units[unit]);
}

/* The time a command took; short when it is under a minute, unless @fixed. */
static char *time_text(double seconds, bool fixed)
{
    unsigned whole = seconds;
    unsigned hundredths = (seconds - whole) * 100;

    if (fixed || whole >= 60) {
        return g_strdup_printf("%u:%02u:%02u.%02u", whole / 3600,
                               whole / 60 % 60, whole % 60, hundredths);
    }
    return g_strdup_printf("%02u.%02u sec", whole, hundredths);
}

void io_print_report(const IoReport *r, const char *verb, int64_t start_ns,
                     int64_t offset, int64_t bytes, int64_t done)
{
    double seconds = MAX(qemu_clock_ns() - start_ns, 1) / 1e9;
    g_autofree char *time = time_text(seconds, r->machine);
    g_autofree char *total = NULL, *speed = NULL;

    if (r->quiet) {
        return;
    }
    if (r->machine) {
        printf("%" PRId64 ",%d,%s,%.3f,%.3f\n", done, 1, time,
               done / seconds, 1 / seconds);
        return;
    }
    total = io_size_text(done);
    speed = io_size_text(done / seconds);
    printf("%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n",
           verb, done, bytes, offset);
    printf("%s, %d ops; %s (%s/sec and %.4f ops/sec)\n", total, 1, time, speed,
           1 / seconds);
}

int io_print_failure(const char *verb, int ret)
{
    printf("%s failed: %s\n", verb, g_strerror(-ret));
    return ret;
}

void io_dump_buffer(const uint8_t *buf, int64_t offset, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 16) {
        int64_t n = MIN(bytes - i, 16);

        printf("%08" PRIx64 ":  ", (uint64_t)(offset + i));
        for (int64_t j = 0; j < n; j++) {
            printf("%02x ", buf[i + j]);
        }
        printf(" ");
        for (int64_t j = 0; j < n; j++) {
            putchar(g_ascii_isalnum(buf[i + j]) ? buf[i + j] : '.');
        }
        printf("\n");
    }
}
