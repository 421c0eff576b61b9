/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug's rules, from a file and from options.
 *
 * The file has groups, each of which is one rule:
 *
 *     [inject-error]
 *     event = "read_aio"
 *     errno = "28"
 *
 *     [set-state]
 *     event = "write_aio"
 *     new_state = "2"
 *
 * Options carry the same keys as lists ("inject-error.0.event=read_aio").
 * Both end up as one dictionary a rule.  All of it runs while the node is
 * opened, on the control thread.
 */
#include "qemu/osdep.h"
#include "blkdebug-int.h"

const char *const blkdebug_event_names[BLKDEBUG_EVENTS + 1] = {
    "l1_update", "l1_grow_alloc_table", "l1_grow_write_table",
    "l1_grow_activate_table", "l2_load", "l2_update",
    "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write",
    "read_aio", "read_backing_aio", "read_compressed", "write_aio",
    "write_compressed", "vmstate_load", "vmstate_save", "cow_read",
    "cow_write", "reftable_load", "reftable_grow", "reftable_update",
    "refblock_load", "refblock_update", "refblock_update_part",
    "refblock_alloc", "refblock_alloc_hookup", "refblock_alloc_write",
    "refblock_alloc_write_blocks", "refblock_alloc_write_table",
    "refblock_alloc_switch_table", "cluster_alloc", "cluster_alloc_bytes",
    "cluster_free", "flush_to_os", "flush_to_disk", "pwritev_rmw_head",
    "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail",
    "pwritev", "pwritev_zero", "pwritev_done", "empty_image_prepare",
    "l1_shrink_write_table", "l1_shrink_free_l2_clusters", "cor_write",
    "cluster_alloc_space", "none", NULL
};

static const char *const iotype_names[BLKDEBUG_IO__MAX + 1] = {
    [BLKDEBUG_IO_READ] = "read",
    [BLKDEBUG_IO_WRITE] = "write",
    [BLKDEBUG_IO_WRITE_ZEROES] = "write-zeroes",
    [BLKDEBUG_IO_DISCARD] = "discard",
    [BLKDEBUG_IO_FLUSH] = "flush",
    [BLKDEBUG_IO_BLOCK_STATUS] = "block-status",
};

/* Asking for the status of a block fails only where a rule says so. */
#define DEFAULT_IOTYPES ((1u << BLKDEBUG_IO_BLOCK_STATUS) - 1)

int blkdebug_event_find(const char *name)
{
    for (int i = 0; i < BLKDEBUG_EVENTS; i++) {
        if (!strcmp(blkdebug_event_names[i], name)) {
            return i;
        }
    }
    return -1;
}

BlkdebugRule *blkdebug_rule_new(BlkdebugAction action, int event)
{
    BlkdebugRule *rule = g_new0(BlkdebugRule, 1);

    rule->action = action;
    rule->event = event;
    rule->error = EIO;
    rule->offset = -1;
    rule->iotypes = DEFAULT_IOTYPES;
    return rule;
}

void blkdebug_rule_free(BlkdebugRule *rule)
{
    if (rule) {
        g_free(rule->tag);
        g_free(rule);
    }
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkdebugRule, blkdebug_rule_free)

/* ---- One rule from a dictionary ---- */

static bool take_int(json_t *opts, const char *key, int *value, Error **errp)
{
    int64_t wide = *value;

    if (!opt_take_i64(opts, key, &wide, errp)) {
        return false;
    }
    if (wide != (int)wide) {
        error_setg(errp, "Parameter '%s' expects int32_t", key);
        return false;
    }
    *value = wide;
    return true;
}

static bool take_inject_error(BlkdebugRule *rule, json_t *opts, Error **errp)
{
    bool ignored;
    int64_t sector = -1;
    int iotype = -1;

    /* "immediately" means "not from a bottom half"; nothing here is. */
    if (!take_int(opts, "errno", &rule->error, errp) ||
        !opt_take_i64(opts, "sector", &sector, errp) ||
        !opt_take_bool(opts, "once", &rule->once, errp) ||
        !opt_take_bool(opts, "immediately", &ignored, errp) ||
        !opt_take_enum(opts, "iotype", iotype_names, &iotype, errp)) {
        return false;
    }
    if (sector > INT64_MAX / BDRV_SECTOR_SIZE) {
        error_setg(errp, "Parameter 'sector' is too large");
        return false;
    }
    rule->offset = sector < 0 ? -1 : sector * BDRV_SECTOR_SIZE;
    if (iotype >= 0) {
        rule->iotypes = 1u << iotype;
    }
    return true;
}

/* Uses @opts up, as far as they are known. */
static bool add_rule(List rules[BLKDEBUG_EVENTS], BlkdebugAction action,
                     json_t *opts, Error **errp)
{
    g_autoptr(BlkdebugRule) rule = blkdebug_rule_new(action, -1);

    if (!opt_take_enum(opts, "event", blkdebug_event_names, &rule->event,
                       errp) ||
        !take_int(opts, "state", &rule->state, errp)) {
        return false;
    }
    if (rule->event < 0) {
        error_setg(errp, "Missing event name for rule");
        return false;
    }
    if (action == BLKDEBUG_INJECT_ERROR) {
        if (!take_inject_error(rule, opts, errp)) {
            return false;
        }
    } else if (!take_int(opts, "new_state", &rule->new_state, errp)) {
        return false;
    }
    if (!opt_check_unused(opts, errp)) {
        return false;
    }
    list_push_back(&rules[rule->event], &rule->node);
    rule = NULL;
    return true;
}

/* ---- The file ---- */

static bool find_group(const char *name, BlkdebugAction *action, Error **errp)
{
    if (!strcmp(name, "inject-error")) {
        *action = BLKDEBUG_INJECT_ERROR;
    } else if (!strcmp(name, "set-state")) {
        *action = BLKDEBUG_SET_STATE;
    } else {
        error_setg(errp, "There is no option group '%s'", name);
        return false;
    }
    return true;
}

/* "key = "value"", anything after the closing quote ignored; a value that is
 * not quoted counts as empty, as for QEMU. */
static void parse_setting(const char *line, json_t *opts)
{
    size_t key_len = strcspn(line, " \t");
    g_autofree char *key = g_strndup(line, key_len);
    g_autofree char *value = NULL;

    line += key_len;
    line += strspn(line, " \t");
    if (*line == '=') {
        line++;
        line += strspn(line, " \t");
        if (*line == '"') {
            value = g_strndup(line + 1, strcspn(line + 1, "\""));
        }
    }
    opt_set_str(opts, key, value ?: "");
}

/* "[inject-error]", or with a name that has no meaning: "[inject-error "x"]" */
static char *parse_group(const char *line)
{
    return line[0] == '[' && strchr(line, ']') ?
           g_strndup(line + 1, strcspn(line + 1, "] \t")) : NULL;
}

static bool parse_lines(List rules[BLKDEBUG_EVENTS], char **lines,
                        Error **errp)
{
    g_autoptr(json_t) opts = NULL;
    BlkdebugAction action = BLKDEBUG_INJECT_ERROR;

    for (int i = 0; lines[i]; i++) {
        const char *line = g_strstrip(lines[i]);
        g_autofree char *group = parse_group(line);

        if (!*line || *line == '#') {
            continue;
        }
        if (!group && !opts) {
            error_setg(errp, "no group defined");
            return false;
        }
        if (!group) {
            parse_setting(line, opts);
            continue;
        }
        if (opts && !add_rule(rules, action, opts, errp)) {
            return false;
        }
        json_decref(opts);
        opts = json_object();
        if (!find_group(group, &action, errp)) {
            return false;
        }
    }
    return !opts || add_rule(rules, action, opts, errp);
}

static bool read_file(List rules[BLKDEBUG_EVENTS], const char *filename,
                      Error **errp)
{
    g_autoptr(GError) gerr = NULL;
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    FILE *probe = fopen(filename, "r");

    if (!probe) {
        error_setg_errno(errp, errno, "Could not read blkdebug config file");
        return false;
    }
    fclose(probe);
    if (!g_file_get_contents(filename, &text, NULL, &gerr)) {
        error_setg(errp, "Could not read blkdebug config file: %s",
                   gerr->message);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    return parse_lines(rules, lines, errp);
}

/* ---- Options ---- */

static bool read_list(List rules[BLKDEBUG_EVENTS], const char *name,
                      BlkdebugAction action, json_t *options, Error **errp)
{
    static const char *const needed[] = { "event", "new_state" };
    g_autoptr(json_t) list = opt_take_any(options, name);
    size_t i;
    json_t *opts;

    if (list && !json_is_array(list)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: array",
                   name);
        return false;
    }
    json_array_foreach(list, i, opts) {
        if (!json_is_object(opts)) {
            error_setg(errp, "Invalid parameter type for '%s.%zu', expected: "
                       "object", name, i);
            return false;
        }
        for (int k = 0; k <= (action == BLKDEBUG_SET_STATE); k++) {
            if (!json_object_get(opts, needed[k])) {
                error_setg(errp, "Parameter '%s.%zu.%s' is missing", name, i,
                           needed[k]);
                return false;
            }
        }
        if (!add_rule(rules, action, opts, errp)) {
            return false;
        }
    }
    return true;
}

bool blkdebug_read_rules(List rules[BLKDEBUG_EVENTS], const char *filename,
                         json_t *options, Error **errp)
{
    return (!filename || read_file(rules, filename, errp)) &&
           read_list(rules, "inject-error", BLKDEBUG_INJECT_ERROR, options,
                     errp) &&
           read_list(rules, "set-state", BLKDEBUG_SET_STATE, options, errp);
}
