/*
 * Arguments of subcommands: complaints, help, numbers, and the options that
 * many of them share.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include <sys/stat.h>
#include "crypto/secret.h"

static const ObjectType *const object_types[] = {
    &secret_object_type,
    NULL,
};

void img_bad_option(const char *argv0)
{
    error_printf("Try '%s --help' for more info\n", argv0);
    exit(EXIT_FAILURE);
}

void img_try_help(const char *argv0, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    error_vreport(fmt, ap);
    va_end(ap);
    img_bad_option(argv0);
}

void img_cmd_help(const ImgCommand *cmd, const char *synopsis,
                  const char *arguments)
{
    printf("Usage:\n"
           "%s.  Usage:\n"
           "\n"
           "  qemu-img %s %s\n"
           "\n"
           "Arguments:\n"
           "  -h, --help\n"
           "     print this help and exit\n"
           "%s\n", cmd->description, cmd->name, synopsis, arguments);
    exit(EXIT_SUCCESS);
}

int64_t img_parse_number(const char *name, const char *text, bool is_size,
                         int64_t min, int64_t max)
{
    int64_t value = 0;
    uint64_t size = 0;
    int ret;

    if (is_size) {
        ret = qemu_strtosz(text, NULL, &size);
        if (size > INT64_MAX) {
            ret = -ERANGE;
        } else {
            value = size;
        }
    } else {
        ret = qemu_strtoi64(text, NULL, 0, &value);
    }
    if (ret == -EINVAL) {
        error_report("Invalid %s specified: '%s'.", name, text);
        return -1;
    }
    if (ret < 0 || value < min || value > max) {
        error_report("Invalid %s specified. Must be between %" PRId64
                     " and %" PRId64 ".", name, min, max);
        return -1;
    }
    return value;
}

int64_t img_take_number(const char *name, const char *text, bool is_size,
                        int64_t min, int64_t max)
{
    int64_t n = img_parse_number(name, text, is_size, min, max);

    if (n < 0) {
        exit(EXIT_FAILURE);
    }
    return n;
}

const char *img_take_filename(int argc, char **argv)
{
    if (optind != argc - 1) {
        img_try_help(argv[0], "Expecting one image file name");
    }
    return argv[optind];
}

bool img_parse_cache(const char *mode, ImgOpen *image)
{
    bool ok = bdrv_parse_cache_mode(mode, &image->flags,
                                    &image->writethrough);

    if (!ok) {
        error_report("Invalid cache option: %s", mode);
    }
    return ok;
}

void img_take_option(const char *argv0, int c, ImgOpen *image, bool *quiet)
{
    switch (c) {
    case 'q':
        if (quiet) {
            *quiet = true;
        }
        break;
    case 'f':
        image->fmt = optarg;
        break;
    case 'U':
        image->force_share = true;
        break;
    case OPTION_IMAGE_OPTS:
        image->image_opts = true;
        break;
    case OPTION_OBJECT:
        img_process_object(optarg, EXIT_FAILURE);
        break;
    default:
        img_bad_option(argv0);
    }
}

OutputFormat img_parse_output_format(const char *argv0, const char *text)
{
    if (g_str_equal(text, "json")) {
        return OFORMAT_JSON;
    }
    if (!g_str_equal(text, "human")) {
        img_try_help(argv0, "--output expects 'human' or 'json' not '%s'",
                     text);
    }
    return OFORMAT_HUMAN;
}

void img_process_object(const char *optarg, int status)
{
    Error *err = NULL;
    bool help;

    if (!user_creatable_add_from_str(object_types, optarg, &help, &err)) {
        error_report_err(err);
        exit(status);
    }
    if (help) {
        exit(EXIT_SUCCESS);
    }
}

bool img_is_same_file(const char *a, const char *b)
{
    struct stat sa, sb;

    return g_str_equal(a, b) ||
           (stat(a, &sa) == 0 && stat(b, &sb) == 0 && S_ISREG(sa.st_mode) &&
            sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino);
}

bool img_accumulate_options(char **accumulated, const char *optarg)
{
    size_t len = strlen(optarg);
    size_t commas = 0;
    char *joined;

    /* Doubled commas are escaped ones; an odd one would swallow the next. */
    while (commas < len && optarg[len - 1 - commas] == ',') {
        commas++;
    }
    if (!len || optarg[0] == ',' || commas % 2) {
        error_report("Invalid option list: %s", optarg);
        return false;
    }
    joined = *accumulated ? g_strconcat(*accumulated, ",", optarg, NULL) :
                            g_strdup(optarg);
    g_free(*accumulated);
    *accumulated = joined;
    return true;
}
