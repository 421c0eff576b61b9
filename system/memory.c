/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory that another process can map, and the number of CPUs.
 *
 * A vhost-user server maps the guest's RAM, so all of it must come from files
 * (memfd, shm, hugetlbfs) that are mapped shared.  A user who names memory
 * backends has decided where the memory is: those must be shared already.
 * Otherwise one memfd of the right size becomes the machine's memory.
 */
#include "translate.h"
#include "qemu/cutils.h"

#define MEMORY_ID "threadblock-memory"
#define DEFAULT_MEMORY (128 * MiB)
/* The emulator rounds memory sizes up to this. */
#define MEMORY_ROUND (8 * KiB)

static CmdOption *find_object(const CmdLine *cmd, const char *id)
{
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (cmd_option_is(opt, "object") &&
            !g_strcmp0(opt_peek_str(opt->opts, "id"), id)) {
            return opt;
        }
    }
    return NULL;
}

/* An id that nobody defines is for the emulator to complain about. */
static bool check_backend(const CmdLine *cmd, const char *id, Error **errp)
{
    CmdOption *object = find_object(cmd, id);
    const char *type = object ? opt_peek_str(object->opts, "qom-type") : NULL;
    bool by_default;

    if (!type) {
        return true;
    }
    if (!strcmp(type, "memory-backend-memfd") ||
        !strcmp(type, "memory-backend-shm")) {
        by_default = true;
    } else if (!strcmp(type, "memory-backend-file")) {
        by_default = false;
    } else {
        error_setg(errp, "Memory backend '%s' is no file that the storage "
                   "daemon could map; use memory-backend-memfd", id);
        cmd_option_prepend(object, errp);
        return false;
    }
    if (!json_is_on(json_object_get(object->opts, "share"), by_default)) {
        error_setg(errp, "Memory backend '%s' must have share=on for virtio "
                   "disks", id);
        cmd_option_prepend(object, errp);
        return false;
    }
    return true;
}

static bool is_machine(const CmdOption *opt)
{
    return cmd_option_is(opt, "machine") || cmd_option_is(opt, "M");
}

/* The last -machine that has @key decides; NULL if none has. */
static const char *machine_property(const CmdLine *cmd, const char *group,
                                    const char *key)
{
    const char *found = NULL;

    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);
        json_t *opts = is_machine(opt) ? opt->opts : NULL;

        if (group) {
            opts = json_object_get(opts, group);
        }
        if (json_object_get(opts, key)) {
            found = opt_peek_str(opts, key);
        }
    }
    return found;
}

/* The same for an option of its own, such as -m. */
static const char *option_property(const CmdLine *cmd, const char *name,
                                   const char *key)
{
    const char *found = NULL;

    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (cmd_option_is(opt, name) && json_object_get(opt->opts, key)) {
            found = opt_peek_str(opt->opts, key);
        }
    }
    return found;
}

/* Check all backends that are named.  *@has_main: RAM is among them. */
static bool check_named_backends(const CmdLine *cmd, bool *has_main,
                                 Error **errp)
{
    const char *machine = machine_property(cmd, NULL, "memory-backend");

    *has_main = machine;
    if (machine && !check_backend(cmd, machine, errp)) {
        return false;
    }
    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);
        const char *memdev = NULL;

        if (cmd_option_is(opt, "numa")) {
            memdev = opt_peek_str(opt->opts, "memdev");
            *has_main |= memdev != NULL;
        } else if (cmd_option_is(opt, "device")) {
            memdev = opt_peek_str(opt->opts, "memdev");
        }
        if (memdev && !check_backend(cmd, memdev, errp)) {
            return false;
        }
    }
    return true;
}

static bool memory_size(const CmdLine *cmd, uint64_t *size, Error **errp)
{
    const char *text = option_property(cmd, "m", "size");
    int ret = 0;

    *size = 0;
    if (text) {
        ret = qemu_strtosz_MiB(text, NULL, size);
    } else {
        text = machine_property(cmd, "memory", "size");
        if (text) {
            ret = qemu_strtosz(text, NULL, size);
        }
    }
    if (ret < 0 || *size > INT64_MAX - MEMORY_ROUND) {
        error_setg(errp, "Invalid memory size '%s'", text);
        return false;
    }
    *size = QEMU_ALIGN_UP(*size ?: DEFAULT_MEMORY, MEMORY_ROUND);
    return true;
}

/* -mem-path and -mem-prealloc are properties of the backend that we make. */
static bool take_flag(CmdLine *cmd, const char *name, const char **value)
{
    bool found = false;

    for (int i = 0; i < cmd->options->len; i++) {
        CmdOption *opt = cmdline_option(cmd, i);

        if (!g_strcmp0(opt->name, name)) {
            opt->removed = true;
            *value = opt->value;
            found = true;
        }
    }
    return found;
}

bool memory_make_shared(CmdLine *cmd, GPtrArray *args, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(json_t) object = NULL;
    const char *path = NULL;
    const char *unused;
    bool has_main;
    uint64_t size;

    if (!check_named_backends(cmd, &has_main, errp)) {
        return false;
    }
    if (has_main) {
        return true;
    }
    if (!memory_size(cmd, &size, errp)) {
        return false;
    }
    object = json_pack("{s:s, s:s, s:I, s:b}", "qom-type",
                       "memory-backend-memfd", "id", MEMORY_ID,
                       "size", (json_int_t)size, "share", true);
    if (take_flag(cmd, "mem-path", &path) && path) {
        opt_set_str(object, "qom-type", "memory-backend-file");
        opt_set_str(object, "mem-path", path);
    }
    if (take_flag(cmd, "mem-prealloc", &unused)) {
        opt_set_bool(object, "prealloc", true);
    }
    g_ptr_array_add(args, g_strdup("-object"));
    g_ptr_array_add(args, keyval_format(object, "qom-type"));
    g_ptr_array_add(args, g_strdup("-machine"));
    g_ptr_array_add(args, g_strdup("memory-backend=" MEMORY_ID));
    return true;
}

/* ---- CPUs ---- */

static unsigned smp_property(const CmdLine *cmd, const char *key)
{
    const char *text = option_property(cmd, "smp", key);
    unsigned int n = 0;

    if (!text) {
        text = machine_property(cmd, "smp", key);
    }
    return text && qemu_strtoui(text, NULL, 10, &n) == 0 ? n : 0;
}

/* "cpus", or what follows from "maxcpus" or the topology, as for the emulator;
 * what makes no sense the emulator refuses. */
unsigned cmdline_cpus(const CmdLine *cmd)
{
    static const char *const topology[] = {
        "drawers", "books", "sockets", "dies", "clusters", "modules", "cores",
        "threads"
    };
    unsigned n = smp_property(cmd, "cpus") ?: smp_property(cmd, "maxcpus");

    if (n) {
        return n;
    }
    n = 1;
    for (size_t i = 0; i < ARRAY_SIZE(topology); i++) {
        n = MIN((uint64_t)n * (smp_property(cmd, topology[i]) ?: 1), UINT_MAX);
    }
    return n;
}
