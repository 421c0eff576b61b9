/*
 * Finding and running commands.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

static const IoCommand *const *const tables[] = {
    io_read_commands,
    io_write_commands,
    io_aio_commands,
    io_image_commands,
    io_debug_commands,
    io_misc_commands,
    io_open_commands,
    io_zone_commands,
    NULL,
};

static const IoCommand *find_command(const char *name)
{
    for (size_t i = 0; tables[i]; i++) {
        for (const IoCommand *const *c = tables[i]; *c; c++) {
            if (g_str_equal((*c)->name, name) ||
                ((*c)->alias && g_str_equal((*c)->alias, name))) {
                return *c;
            }
        }
    }
    return NULL;
}

static void print_oneline(const IoCommand *cmd, const char *name)
{
    printf("%s ", name);
    if (cmd->args) {
        printf("%s ", cmd->args);
    }
    printf("-- %s\n", cmd->oneline);
}

int io_usage(const IoCommand *cmd)
{
    print_oneline(cmd, cmd->name);
    return -EINVAL;
}

static int compare_commands(const void *pa, const void *pb)
{
    const IoCommand *a = *(const IoCommand *const *)pa;
    const IoCommand *b = *(const IoCommand *const *)pb;

    return strcmp(a->name, b->name);
}

static void print_all(void)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    for (size_t i = 0; tables[i]; i++) {
        for (const IoCommand *const *c = tables[i]; *c; c++) {
            g_ptr_array_add(all, (gpointer)*c);
        }
    }
    qsort(all->pdata, all->len, sizeof(all->pdata[0]), compare_commands);
    for (guint i = 0; i < all->len; i++) {
        const IoCommand *cmd = all->pdata[i];

        print_oneline(cmd, cmd->name);
    }
    printf("\nUse 'help commandname' for extended help.\n");
}

int io_print_help(const char *name)
{
    const IoCommand *cmd;

    if (!name) {
        print_all();
        return 0;
    }
    cmd = find_command(name);
    if (!cmd) {
        printf("command %s not found\n", name);
        return -EINVAL;
    }
    print_oneline(cmd, name);
    if (cmd->help) {
        printf("%s", cmd->help);
    }
    return 0;
}

static bool check_arg_count(const IoCommand *cmd, const char *name, int n)
{
    if (n >= cmd->min_args && (cmd->max_args < 0 || n <= cmd->max_args)) {
        return true;
    }
    fprintf(stderr, "bad argument count %d to %s, expected ", n, name);
    if (cmd->max_args < 0) {
        fprintf(stderr, "at least %d arguments\n", cmd->min_args);
    } else if (cmd->min_args == cmd->max_args) {
        fprintf(stderr, "%d arguments\n", cmd->min_args);
    } else {
        fprintf(stderr, "between %d and %d arguments\n", cmd->min_args,
                cmd->max_args);
    }
    return false;
}

/* Take the permissions that @cmd needs beyond those of opening. */
static bool check_permissions(QemuIo *io, const IoCommand *cmd)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    Error *err = NULL;

    if (!io->blk || !(cmd->writes || cmd->resizes)) {
        return true;
    }
    if (bdrv_is_read_only(blk_bs(io->blk))) {
        error_report("Block node is read-only");
        return false;
    }
    if (cmd->resizes) {
        perm |= BLK_PERM_RESIZE;
    }
    if (!blk_set_perm(io->blk, perm, BLK_PERM_ALL, &err)) {
        error_report_err(err);
        return false;
    }
    return true;
}

static int run_command(QemuIo *io, const IoCommand *cmd, int argc,
                       char **argv)
{
    if (cmd->needs_file && !io->blk) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    if (!check_arg_count(cmd, argv[0], argc - 1)) {
        return -EINVAL;
    }
    if (!check_permissions(io, cmd)) {
        return -EINVAL;
    }
    optind = 0;
    return cmd->run(io, cmd, argc, argv);
}

int io_run_command(QemuIo *io, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    g_autofree char **argv = g_new0(char *, g_strv_length(words) + 1);
    const IoCommand *cmd;
    int argc = 0, ret = 0;

    for (char **w = words; *w; w++) {
        if (**w) {
            argv[argc++] = *w;
        }
    }
    if (argc > 0) {
        cmd = find_command(argv[0]);
        if (cmd) {
            ret = run_command(io, cmd, argc, argv);
        } else {
            fprintf(stderr, "command \"%s\" not found\n", argv[0]);
            ret = -EINVAL;
        }
    }
    /* Print what has completed meanwhile. */
    while (aio_poll(io->ctx, false)) {
        continue;
    }
    return ret;
}
