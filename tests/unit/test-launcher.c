/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The launcher's translation of command lines (system/).
 *
 * A test gives the words of a command line, as one string split at blanks, and
 * looks at the two command lines that come out, joined with blanks again, or at
 * the message that refuses it.
 */
#include "qemu/osdep.h"
#include "translate.h"

typedef struct Result {
    char **argv;
    CmdLine *cmd;
    Plan *plan;
    char *daemon;        /* words joined with blanks; NULL: refused … */
    char *emulator;
    char *message;       /* … with this */
} Result;

static char *join(GPtrArray *words)
{
    GString *s = g_string_new(NULL);

    for (int i = 0; i < words->len; i++) {
        g_string_append_printf(s, "%s%s", i ? " " : "",
                               (char *)g_ptr_array_index(words, i));
    }
    return g_string_free(s, FALSE);
}

static char *join_daemon(const Plan *plan)
{
    g_autofree char *nodes = join(plan->daemon_args);
    GString *s = g_string_new(nodes);

    for (int i = 0; i < plan->exports->len; i++) {
        g_autofree char *arg = plan_export_arg(plan, i, -1);

        g_string_append_printf(s, "%s--export %s", s->len ? " " : "", arg);
    }
    return g_string_free(s, FALSE);
}

static Result *translate(const char *line)
{
    PlanHost host = { .socket_dir = "/dir", .has_reconnect_ms = false };
    g_autofree char *whole = g_strdup_printf("qemu %s", line);
    Result *r = g_new0(Result, 1);
    Error *err = NULL;

    r->argv = g_strsplit(whole, " ", -1);
    r->cmd = cmdline_parse(g_strv_length(r->argv), r->argv);
    r->plan = plan_new(r->cmd, &host, &err);
    if (r->plan) {
        r->daemon = join_daemon(r->plan);
        r->emulator = join(r->plan->emulator_args);
    } else {
        r->message = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    return r;
}

static void result_free(Result *r)
{
    plan_free(r->plan);
    cmdline_free(r->cmd);
    g_strfreev(r->argv);
    g_free(r->daemon);
    g_free(r->emulator);
    g_free(r->message);
    g_free(r);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Result, result_free)

static void expect_daemon(const char *line, const char *wanted)
{
    g_autoptr(Result) r = translate(line);

    g_assert_cmpstr(r->message, ==, NULL);
    g_assert_cmpstr(r->daemon, ==, wanted);
}

static void expect_refused(const char *line, const char *wanted)
{
    g_autoptr(Result) r = translate(line);

    g_assert_cmpstr(r->message, ==, wanted);
}

/* ---- -drive ---- */

#define EXPORT "--export vhost-user-blk,id=virtio0,node-name=virtio0," \
    "num-queues=1,queue-size=256,writable=on," \
    "addr.type=unix,addr.path=/dir/0"

static void test_drive_whole(void)
{
    g_autoptr(Result) r = translate("-m 64 -drive "
                                    "if=virtio,file=x.raw,format=raw -S");

    g_assert_cmpstr(r->daemon, ==, "--blockdev raw,file.filename=x.raw,"
                    "file.driver=file,node-name=virtio0 " EXPORT);
    g_assert_cmpstr(r->emulator, ==, "-m 64 -S "
                    "-chardev socket,id=threadblock-0,path=/dir/0,reconnect=1 "
                    "-device vhost-user-blk-pci,num-queues=1,queue-size=256,"
                    "chardev=threadblock-0 "
                    "-object memory-backend-memfd,id=threadblock-memory,"
                    "size=67108864,share=on "
                    "-machine memory-backend=threadblock-memory");
}

static void test_drive_image_options(void)
{
    expect_daemon("-drive if=virtio,file=x,format=raw,cache=none,aio=native,"
                  "discard=on,detect-zeroes=unmap",
                  "--blockdev raw,detect-zeroes=unmap,cache.direct=on,"
                  "discard=unmap,file.filename=x,file.driver=file,"
                  "file.aio=native,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=x,format=raw,cache=unsafe",
                  "--blockdev raw,cache.no-flush=on,file.filename=x,"
                  "file.driver=file,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=x,file.locking=off,format=raw",
                  "--blockdev raw,file.locking=off,file.filename=x,"
                  "file.driver=file,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=a,,b,format=raw",
                  "--blockdev raw,file.filename=a,,b,file.driver=file,"
                  "node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=/dev/null,format=raw",
                  "--blockdev raw,file.filename=/dev/null,"
                  "file.driver=host_device,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,driver=null-co,size=1G",
                  "--blockdev null-co,size=1G,node-name=virtio0 " EXPORT);
}

static void test_drive_probed(void)
{
    expect_daemon("-drive if=virtio,file=x",
                  "--x-drive filename=x,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=x,aio=threads",
                  "--x-drive filename=x,file.aio=threads,node-name=virtio0 "
                  EXPORT);
    expect_daemon("-drive if=virtio,format=raw,file=nbd:localhost:1,aio=native",
                  "--x-drive driver=raw,filename=nbd:localhost:1,"
                  "node-name=virtio0 " EXPORT);
}

static void test_drive_export_options(void)
{
    expect_daemon("-drive if=virtio,file=x,format=raw,readonly=on,"
                  "cache=writethrough,serial=S1,id=hd",
                  "--blockdev raw,read-only=on,file.filename=x,"
                  "file.driver=file,node-name=hd "
                  "--export vhost-user-blk,id=hd,node-name=hd,num-queues=1,"
                  "queue-size=256,serial=S1,writethrough=on,writable=off,"
                  "addr.type=unix,addr.path=/dir/0");
}

static void test_drive_index(void)
{
    g_autoptr(Result) r = translate(
        "-drive if=virtio,driver=null-co,index=1 "
        "-drive if=virtio,driver=null-co -drive if=virtio,driver=null-co");
    PlanExport *e;
    static const char *const ids[] = { "virtio1", "virtio0", "virtio2" };

    g_assert_cmpint(r->plan->exports->len, ==, 3);
    for (int i = 0; i < 3; i++) {
        e = g_ptr_array_index(r->plan->exports, i);
        g_assert_cmpstr(e->id, ==, ids[i]);
    }
    expect_refused("-drive if=virtio,file=x,index=1 "
                   "-drive if=virtio,file=y,index=1",
                   "-drive if=virtio,file=y,index=1: drive with bus=0, unit=1 "
                   "(index=1) exists");
}

static void test_drive_refused(void)
{
    static const char *const options[] = {
        "throttling.iops-total=5", "bps=1", "iops_max=3", "group=g",
        "copy-on-read=on", "snapshot=on", "stats-account-failed=on",
    };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        g_autofree char *line = g_strdup_printf("-drive if=virtio,file=x,%s",
                                                options[i]);
        g_autofree char *key = g_strndup(options[i], strcspn(options[i], "="));
        g_autofree char *message = g_strdup_printf(
            "%s: Option '%s' is not supported for virtio disks here", line,
            key);

        expect_refused(line, message);
    }
    expect_refused("-drive if=virtio,file=x,werror=stop",
                   "-drive if=virtio,file=x,werror=stop: Option 'werror=stop' "
                   "is not supported for virtio disks here, only "
                   "'werror=report'");
    expect_refused("-drive if=virtio,file=x -snapshot",
                   "-snapshot is not supported with virtio disks");
    expect_refused("-drive if=virtio",
                   "-drive if=virtio: Device needs media, but drive is empty");
    expect_refused("-drive if=virtio,file=x,cache=bad",
                   "-drive if=virtio,file=x,cache=bad: invalid cache option");
}

/* Off is the default, and no reason to refuse. */
static void test_drive_off_accepted(void)
{
    expect_daemon("-drive if=virtio,file=x,copy-on-read=off,snapshot=off,"
                  "werror=report",
                  "--x-drive filename=x,node-name=virtio0 " EXPORT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/launcher/drive/whole", test_drive_whole);
    g_test_add_func("/launcher/drive/image-options", test_drive_image_options);
    g_test_add_func("/launcher/drive/probed", test_drive_probed);
    g_test_add_func("/launcher/drive/export-options",
                    test_drive_export_options);
    g_test_add_func("/launcher/drive/index", test_drive_index);
    g_test_add_func("/launcher/drive/refused", test_drive_refused);
    g_test_add_func("/launcher/drive/off-accepted", test_drive_off_accepted);
    return g_test_run();
}
