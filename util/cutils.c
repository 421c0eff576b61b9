/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Strict parsing of numbers and sizes.
 *
 * The C library's strto* functions do the digits; what surrounds them is
 * decided here: whether anything may follow, what overflow gives, and that a
 * size's fraction has nothing of a floating point number but its point.
 *
 * A fraction is taken as digits over a power of ten (those after the
 * nineteenth are worth a tenth of a byte), times the unit in 128 bits, rounded
 * to the nearest byte.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"

/*
 * The common end of a parse that began at @s, stopped at @stop and found
 * @ret: hand out the end, or insist on the end of the text.
 */
static int finish(const char *s, const char *stop, const char **end, int ret)
{
    if (ret == -EINVAL) {
        stop = s;
    }
    if (end) {
        *end = stop;
    } else if (ret != -EINVAL && *stop) {
        ret = -EINVAL;
    }
    return ret;
}

int qemu_strtoi64(const char *s, const char **end, int base, int64_t *result)
{
    char *stop;
    int ret = 0;

    *result = 0;
    if (!s) {
        return finish(s, s, end, -EINVAL);
    }
    errno = 0;
    *result = strtoll(s, &stop, base);
    if (stop == s || errno == EINVAL) {
        ret = -EINVAL;
    } else if (errno == ERANGE) {
        ret = -ERANGE;
    }
    ret = finish(s, stop, end, ret);
    if (ret == -EINVAL) {
        *result = 0;
    }
    return ret;
}

/* Whether the first thing after white space is a minus sign. */
static bool is_negative(const char *s)
{
    while (isspace((unsigned char)*s)) {
        s++;
    }
    return *s == '-';
}

int qemu_strtou64(const char *s, const char **end, int base, uint64_t *result)
{
    char *stop;
    int ret = 0;

    *result = 0;
    if (!s) {
        return finish(s, s, end, -EINVAL);
    }
    errno = 0;
    *result = strtoull(s, &stop, base);
    if (stop == s || errno == EINVAL) {
        ret = -EINVAL;
    } else if (is_negative(s) && (*result || errno)) {
        /* strtoull would wrap round. */
        *result = 0;
        ret = -ERANGE;
    } else if (errno == ERANGE) {
        ret = -ERANGE;
    }
    ret = finish(s, stop, end, ret);
    if (ret == -EINVAL) {
        *result = 0;
    }
    return ret;
}

int qemu_strtoi(const char *s, const char **end, int base, int *result)
{
    int64_t wide;
    int ret = qemu_strtoi64(s, end, base, &wide);

    if (wide < INT_MIN || wide > INT_MAX) {
        wide = wide < 0 ? INT_MIN : INT_MAX;
        ret = -ERANGE;
    }
    *result = wide;
    return ret;
}

int qemu_strtoui(const char *s, const char **end, int base,
                 unsigned int *result)
{
    uint64_t wide;
    int ret = qemu_strtou64(s, end, base, &wide);

    if (wide > UINT_MAX) {
        wide = UINT_MAX;
        ret = -ERANGE;
    }
    *result = wide;
    return ret;
}

int parse_uint(const char *s, const char **end, int base, uint64_t *result)
{
    if (!s || is_negative(s)) {
        *result = 0;
        return finish(s, s, end, -EINVAL);
    }
    return qemu_strtou64(s, end, base, result);
}

int parse_uint_full(const char *s, int base, uint64_t *result)
{
    return parse_uint(s, NULL, base, result);
}

/* --- Sizes ------------------------------------------------------------- */

/* How many times @unit_base multiplies for suffix @c; -1 for no suffix. */
static int suffix_power(char c)
{
    static const char suffixes[] = "bkmgtpe";
    const char *p = c ? strchr(suffixes, g_ascii_tolower(c)) : NULL;

    return p ? p - suffixes : -1;
}

static uint64_t unit_of(unsigned int unit_base, int power)
{
    uint64_t unit = 1;

    while (power-- > 0) {
        unit *= unit_base;
    }
    return unit;
}

/* @s points behind a decimal point: the digits, as @num / @den. */
static const char *parse_fraction(const char *s, uint64_t *num, uint64_t *den)
{
    *num = 0;
    *den = 1;
    for (; g_ascii_isdigit(*s); s++) {
        if (*den < UINT64_C(10000000000000000000)) {
            *num = *num * 10 + (*s - '0');
            *den *= 10;
        }
    }
    return s;
}

/* (@whole + @num / @den) * @unit, rounded; false if that is 2^64 or more. */
static bool scale(uint64_t whole, uint64_t num, uint64_t den, uint64_t unit,
                  uint64_t *result)
{
    unsigned __int128 part = (unsigned __int128)num * unit;
    unsigned __int128 sum = (unsigned __int128)whole * unit +
                            (part + den / 2) / den;

    *result = sum;
    return sum <= UINT64_MAX;
}

/* Everything of a size behind the white space and the sign. */
static int parse_size(const char *s, const char **stop, int default_power,
                      unsigned int unit_base, uint64_t *result)
{
    uint64_t whole = 0, num = 0, den = 1;
    bool digits = g_ascii_isdigit(*s), range = false;
    int power, ret;

    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        if (!g_ascii_isxdigit(s[2])) {
            return -EINVAL;
        }
        ret = qemu_strtou64(s, stop, 16, result);
        /* A hexadecimal number may be followed by neither. */
        return **stop == '.' || suffix_power(**stop) >= 0 ? -EINVAL : ret;
    }

    if (digits) {
        range = qemu_strtou64(s, &s, 10, &whole) == -ERANGE;
    }
    if (*s == '.') {
        digits |= g_ascii_isdigit(s[1]);
        s = parse_fraction(s + 1, &num, &den);
    }
    if (!digits) {
        return -EINVAL;
    }

    power = suffix_power(*s);
    if (power >= 0) {
        /* "1e3" is somebody's floating point number, not an exabyte and 3. */
        if (g_ascii_tolower(*s) == 'e' &&
            (g_ascii_isdigit(s[1]) ||
             ((s[1] == '-' || s[1] == '+') && g_ascii_isdigit(s[2])))) {
            return -EINVAL;
        }
        s++;
    } else {
        power = default_power;
    }
    if (num && power == 0) {
        return -EINVAL;
    }

    *stop = s;
    if (range || !scale(whole, num, den, unit_of(unit_base, power), result)) {
        *result = UINT64_MAX;
        return -ERANGE;
    }
    return 0;
}

static int strtosz(const char *s, const char **end, int default_power,
                   unsigned int unit_base, uint64_t *result)
{
    const char *p = s, *stop = s;
    int ret;

    *result = 0;
    if (!s) {
        return finish(s, s, end, -EINVAL);
    }
    if (is_negative(s)) {
        ret = qemu_strtou64(s, end, 10, result);
        return ret == 0 ? -ERANGE : ret;
    }
    while (isspace((unsigned char)*p)) {
        p++;
    }
    if (*p == '+') {
        p++;
    }

    ret = parse_size(p, &stop, default_power, unit_base, result);
    ret = finish(s, stop, end, ret);
    if (ret == -EINVAL) {
        *result = 0;
    }
    return ret;
}

int qemu_strtosz(const char *s, const char **end, uint64_t *result)
{
    return strtosz(s, end, 0, 1024, result);
}

int qemu_strtosz_MiB(const char *s, const char **end, uint64_t *result)
{
    return strtosz(s, end, 2, 1024, result);
}

int qemu_strtosz_metric(const char *s, const char **end, uint64_t *result)
{
    return strtosz(s, end, 0, 1000, result);
}

char *size_to_str(uint64_t bytes)
{
    static const char *const units[] = {
        "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    };
    double value = bytes;
    unsigned int i = 0;

    /* Three digits have room for 999, so 1000 is the next unit's. */
    while (value >= 1000 && i + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        i++;
    }
    return g_strdup_printf("%.3g %sB", value, units[i]);
}

/* --- Words ------------------------------------------------------------- */

bool qapi_bool_parse(const char *name, const char *text, bool *value,
                     Error **errp)
{
    static const char *const words[][2] = {
        { "off", "on" }, { "no", "yes" }, { "false", "true" }, { "n", "y" },
    };

    for (unsigned int i = 0; i < ARRAY_SIZE(words); i++) {
        for (int v = 0; v < 2; v++) {
            if (g_str_equal(text, words[i][v])) {
                *value = v;
                return true;
            }
        }
    }
    error_setg(errp, "Parameter '%s' expects 'on' or 'off'", name);
    return false;
}

bool id_wellformed(const char *id)
{
    if (!g_ascii_isalpha(*id)) {
        return false;
    }
    while (*++id) {
        if (!g_ascii_isalnum(*id) && !strchr("-._", *id)) {
            return false;
        }
    }
    return true;
}

bool strstart(const char *s, const char *prefix, const char **rest)
{
    size_t len = strlen(prefix);

    if (strncmp(s, prefix, len) != 0) {
        return false;
    }
    if (rest) {
        *rest = s + len;
    }
    return true;
}
