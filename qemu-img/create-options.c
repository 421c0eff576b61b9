/*
 * Options of create (-o): which there are, what was given, and how both are
 * printed.
 *
 * An image is made by two drivers, that of its format and that of the protocol
 * below it; their options form one list, the format's first.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include "block/block-driver.h"

struct CreateOptions {
    GPtrArray *known;        /* BlockCreateOption, the drivers' order */
    json_t *values;          /* flat, strings */
};

static const BlockCreateOption *find_option(const CreateOptions *o,
                                            const char *name)
{
    for (guint i = 0; i < o->known->len; i++) {
        const BlockCreateOption *opt = o->known->pdata[i];

        if (g_str_equal(opt->name, name)) {
            return opt;
        }
    }
    return NULL;
}

static void add_options(CreateOptions *o, const BlockCreateOption *opt)
{
    for (; opt && opt->name; opt++) {
        if (find_option(o, opt->name)) {
            continue;
        }
        g_ptr_array_add(o->known, (gpointer)opt);
        if (opt->def_value) {
            opt_set_str(o->values, opt->name, opt->def_value);
        }
    }
}

static CreateOptions *new_options(void)
{
    CreateOptions *o = g_new0(CreateOptions, 1);

    o->known = g_ptr_array_new();
    o->values = json_object();
    return o;
}

CreateOptions *create_options_new(const BlockDriver *drv,
                                  const BlockDriver *proto)
{
    CreateOptions *o = new_options();

    add_options(o, drv ? drv->create_opts : NULL);
    add_options(o, proto ? proto->create_opts : NULL);
    return o;
}

CreateOptions *create_options_new_amend(const BlockDriver *drv)
{
    CreateOptions *o = new_options();

    add_options(o, drv->amend_opts);
    return o;
}

void create_options_free(CreateOptions *o)
{
    g_ptr_array_free(o->known, TRUE);
    json_decref(o->values);
    g_free(o);
}

bool create_find_drivers(const char *fmt, const char *filename,
                         const BlockDriver **drv, const BlockDriver **proto,
                         Error **errp)
{
    *proto = NULL;
    *drv = bdrv_find_format(fmt);
    if (!*drv) {
        error_setg(errp, "Unknown file format '%s'", fmt);
        return false;
    }
    if (filename) {
        *proto = bdrv_find_protocol(filename, errp);
        if (!*proto) {
            return false;
        }
    }
    if (!(*drv)->create_opts) {
        error_setg(errp, "Format driver '%s' does not support image creation",
                   (*drv)->format_name);
        return false;
    }
    if (*proto && !(*proto)->create_opts) {
        error_setg(errp, "Protocol driver '%s' does not support image "
                   "creation", (*proto)->format_name);
        return false;
    }
    return true;
}

/* ---- Help ---- */

bool create_options_want_help(const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);

    for (size_t i = 0; words[i]; i++) {
        if (g_str_equal(words[i], "help") || g_str_equal(words[i], "?")) {
            return true;
        }
    }
    return false;
}

static int compare_names(gconstpointer pa, gconstpointer pb)
{
    const BlockCreateOption *a = *(const BlockCreateOption *const *)pa;
    const BlockCreateOption *b = *(const BlockCreateOption *const *)pb;

    return strcmp(a->name, b->name);
}

static void print_option(const BlockCreateOption *opt)
{
    static const char *const types[] = {
        [BLOCK_OPT_STRING] = "str",
        [BLOCK_OPT_BOOL] = "bool (on/off)",
        [BLOCK_OPT_NUMBER] = "num",
        [BLOCK_OPT_SIZE] = "size",
    };
    g_autofree char *head = g_strdup_printf("%s=<%s>", opt->name,
                                            types[opt->type]);

    if (opt->help) {
        printf("  %-22s - %s", head, opt->help);
    } else {
        printf("  %s", head);
    }
    printf("\n");
}

static void print_options(CreateOptions *o)
{
    g_ptr_array_sort(o->known, compare_names);
    for (guint i = 0; i < o->known->len; i++) {
        print_option(o->known->pdata[i]);
    }
}

bool create_options_help_amend(const char *fmt)
{
    const BlockDriver *drv = bdrv_find_format(fmt);
    g_autoptr(CreateOptions) o = NULL;

    if (!drv) {
        error_report("Unknown file format '%s'", fmt);
        return false;
    }
    if (!drv->amend_opts) {
        error_report("Format driver '%s' does not support option amendment",
                     fmt);
        return false;
    }
    o = create_options_new_amend(drv);
    printf("Amend options for '%s':\n", fmt);
    print_options(o);
    return true;
}

bool create_options_help(const char *fmt, const char *filename, Error **errp)
{
    g_autoptr(CreateOptions) o = NULL;
    const BlockDriver *drv, *proto;

    if (!create_find_drivers(fmt, filename, &drv, &proto, errp)) {
        return false;
    }
    o = create_options_new(drv, proto);
    if (filename) {
        printf("Supported options:\n");
    } else {
        printf("Supported %s options:\n", fmt);
    }
    print_options(o);
    if (!filename) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
    return true;
}

/* ---- Values ---- */

/* The value of @opt out of @given in its canonical spelling; NULL with @errp
 * if it is no such value. */
static char *canonical_value(const BlockCreateOption *opt, json_t *given,
                             Error **errp)
{
    uint64_t number = 0;
    bool flag = false;

    switch (opt->type) {
    case BLOCK_OPT_BOOL:
        if (!opt_take_bool(given, opt->name, &flag, errp)) {
            return NULL;
        }
        return g_strdup(flag ? "on" : "off");
    case BLOCK_OPT_NUMBER:
        if (!opt_take_u64(given, opt->name, &number, errp)) {
            return NULL;
        }
        return g_strdup_printf("%" PRIu64, number);
    case BLOCK_OPT_SIZE:
        if (!opt_take_size(given, opt->name, &number, errp)) {
            return NULL;
        }
        return g_strdup_printf("%" PRIu64, number);
    default:
        return opt_take_str(given, opt->name);
    }
}

bool create_options_parse(CreateOptions *o, const char *text, Error **errp)
{
    g_autoptr(json_t) given = qemu_opts_parse_legacy(text, NULL, false, NULL,
                                                     errp);

    if (!given) {
        return false;
    }
    for (guint i = 0; i < o->known->len; i++) {
        const BlockCreateOption *opt = o->known->pdata[i];
        g_autofree char *value = NULL;

        if (!json_object_get(given, opt->name)) {
            continue;
        }
        value = canonical_value(opt, given, errp);
        if (!value) {
            return false;
        }
        opt_set_str(o->values, opt->name, value);
    }
    return opt_check_unused(given, errp);
}

bool create_options_known(const CreateOptions *o, const char *name)
{
    return find_option(o, name);
}

const char *create_options_get(const CreateOptions *o, const char *name)
{
    return opt_peek_str(o->values, name);
}

void create_options_set(CreateOptions *o, const char *name, const char *value)
{
    opt_set_str(o->values, name, value);
}

void create_options_set_size(CreateOptions *o, int64_t size)
{
    g_autofree char *text = g_strdup_printf("%" PRId64, size);

    opt_set_str(o->values, "size", text);
}

int64_t create_options_get_size(const CreateOptions *o, int64_t otherwise)
{
    const char *text = create_options_get(o, "size");
    uint64_t size;

    if (!text || qemu_strtosz(text, NULL, &size) < 0 || size > INT64_MAX) {
        return otherwise;
    }
    return size;
}

char *create_options_to_text(const CreateOptions *o)
{
    GString *out = g_string_new(NULL);

    for (guint i = 0; i < o->known->len; i++) {
        const BlockCreateOption *opt = o->known->pdata[i];
        const char *value = create_options_get(o, opt->name);

        if (!value) {
            continue;
        }
        g_string_append_printf(out, " %s=", opt->name);
        for (; *value; value++) {
            g_string_append_c(out, *value);
            if (*value == ',') {
                g_string_append_c(out, ',');
            }
        }
    }
    return g_string_free(out, FALSE);
}

json_t *create_options_to_json(const CreateOptions *o)
{
    return json_copy(o->values);
}
