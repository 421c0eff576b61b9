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
        g_autofree char *arg = plan_export_arg(plan, i, -1, false);

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

/* @wanted stands, as whole words, in the emulator's command line. */
static void expect_emulator(const char *line, const char *wanted)
{
    g_autoptr(Result) r = translate(line);
    g_autofree char *have = NULL, *want = NULL;

    g_assert_cmpstr(r->message, ==, NULL);
    have = g_strdup_printf(" %s ", r->emulator);
    want = g_strdup_printf(" %s ", wanted);
    if (!strstr(have, want)) {
        g_test_message("no '%s' in '%s'", wanted, r->emulator);
    }
    g_assert_nonnull(strstr(have, want));
}

static void expect_refused(const char *line, const char *wanted)
{
    g_autoptr(Result) r = translate(line);

    g_assert_cmpstr(r->message, ==, wanted);
}

/* ---- -drive ---- */

#define EXPORT "--export vhost-user-blk,id=virtio0,node-name=virtio0," \
    "x-share-rw=off,num-queues=1,queue-size=256,writable=on," \
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

/* The image is the source's until the machine runs here. */
static void test_incoming(void)
{
    g_autoptr(Result) r = translate("-m 64 -incoming unix:s -drive "
                                    "if=virtio,file=x.raw,format=raw");

    g_assert_true(g_str_has_prefix(r->daemon, "--x-incoming --blockdev "));
    g_assert_nonnull(strstr(r->daemon, ",writable=on,x-incoming=on,addr"));
    g_assert_nonnull(strstr(r->emulator, "-incoming unix:s"));
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

/* Options of the format go to its node as they are. */
static void test_drive_qcow2(void)
{
    expect_daemon("-drive if=virtio,file=x,format=qcow2,l2-cache-size=1M,"
                  "discard=unmap,detect-zeroes=unmap,lazy-refcounts=on,"
                  "overlap-check.template=all",
                  "--blockdev qcow2,l2-cache-size=1M,detect-zeroes=unmap,"
                  "lazy-refcounts=on,overlap-check.template=all,discard=unmap,"
                  "file.filename=x,file.driver=file,node-name=virtio0 "
                  EXPORT);
    expect_daemon("-drive if=virtio,file=x,format=qcow2,backing.driver=raw,"
                  "backing.file.driver=file,backing.file.filename=b",
                  "--blockdev qcow2,backing.driver=raw,backing.file.driver="
                  "file,backing.file.filename=b,file.filename=x,"
                  "file.driver=file,node-name=virtio0 " EXPORT);
    /* To be found out: not for --blockdev, which wants every driver. */
    expect_daemon("-drive if=virtio,file=x,format=qcow2,backing.driver=raw,"
                  "backing.file.filename=b",
                  "--x-drive backing.driver=raw,backing.file.filename=b,"
                  "driver=qcow2,filename=x,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=x,cache-size=2M",
                  "--x-drive cache-size=2M,filename=x,node-name=virtio0 "
                  EXPORT);
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
                  "--export vhost-user-blk,id=hd,node-name=hd,"
                  "x-share-rw=off,num-queues=1,queue-size=256,serial=S1,"
                  "writethrough=on,writable=off,addr.type=unix,"
                  "addr.path=/dir/0");
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
        "snapshot=on", "stats-account-failed=on",
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

/* A filter, which has the name that the export knows. */
static void test_drive_copy_on_read(void)
{
    expect_daemon("-drive if=virtio,file=x,format=qcow2,copy-on-read=on",
                  "--blockdev copy-on-read,file.driver=qcow2,"
                  "file.file.filename=x,file.file.driver=file,"
                  "file.discard=ignore,node-name=virtio0 " EXPORT);
    expect_daemon("-drive if=virtio,file=x,format=qcow2,copy-on-read=on,"
                  "discard=unmap,cache=none",
                  "--blockdev copy-on-read,discard=unmap,"
                  "file.cache.direct=on,file.discard=unmap,"
                  "file.driver=qcow2,"
                  "file.file.filename=x,file.file.driver=file,"
                  "node-name=virtio0 " EXPORT);
    expect_refused("-drive if=virtio,file=x,copy-on-read=on",
                   "-drive if=virtio,file=x,copy-on-read=on: Option "
                   "'copy-on-read' needs the option 'format' and the path of "
                   "a file here");
}

/* Off is the default, and no reason to refuse. */
static void test_drive_off_accepted(void)
{
    expect_daemon("-drive if=virtio,file=x,copy-on-read=off,snapshot=off,"
                  "werror=report",
                  "--x-drive filename=x,node-name=virtio0 " EXPORT);
}

/* ---- -device ---- */

#define NULL_NODE "-blockdev null-co,node-name=n "

static void test_device_position(void)
{
    expect_emulator("-device e1000 " NULL_NODE "-device virtio-blk,drive=n,"
                    "addr=5,bootindex=1,packed=on,id=d -device usb-ehci",
                    "-device e1000 -device vhost-user-blk-pci,addr=5,"
                    "bootindex=1,packed=on,id=d,num-queues=1,queue-size=256,"
                    "chardev=threadblock-0 -device usb-ehci");
}

static void test_device_types(void)
{
    static const char *const types[][2] = {
        { "virtio-blk", "vhost-user-blk-pci" },
        { "virtio-blk-pci", "vhost-user-blk-pci" },
        { "virtio-blk-device", "vhost-user-blk" },
        { "virtio-blk-pci-transitional", "vhost-user-blk-pci-transitional" },
        { "virtio-blk-pci-non-transitional",
          "vhost-user-blk-pci-non-transitional" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        g_autofree char *line = g_strdup_printf(
            NULL_NODE "-device %s,drive=n", types[i][0]);
        g_autofree char *wanted = g_strdup_printf(
            "-device %s,num-queues=1,queue-size=256,chardev=threadblock-0",
            types[i][1]);

        expect_emulator(line, wanted);
    }
}

static void test_device_export_options(void)
{
    expect_daemon(NULL_NODE "-device virtio-blk-pci,drive=n,serial=S,"
                  "logical_block_size=4096,write-cache=off,num-queues=3,"
                  "queue-size=64",
                  "--blockdev null-co,node-name=n "
                  "--export vhost-user-blk,id=n,node-name=n,"
                  "x-share-rw=off,serial=S,writethrough=on,"
                  "logical-block-size=4096,num-queues=3,queue-size=64,"
                  "writable=on,addr.type=unix,"
                  "addr.path=/dir/0");
}

static void test_device_merging(void)
{
    expect_daemon(NULL_NODE "-device virtio-blk,drive=n,request-merging=off",
                  "--blockdev null-co,node-name=n "
                  "--export vhost-user-blk,id=n,node-name=n,"
                  "x-share-rw=off,x-request-merging=off,num-queues=1,"
                  "queue-size=256,writable=on,addr.type=unix,addr.path=/dir/0");
    expect_daemon(NULL_NODE "-device virtio-blk,drive=n,request-merging=on",
                  "--blockdev null-co,node-name=n "
                  "--export vhost-user-blk,id=n,node-name=n,"
                  "x-share-rw=off,num-queues=1,queue-size=256,"
                  "writable=on,addr.type=unix,addr.path=/dir/0");
    expect_refused(NULL_NODE "-device virtio-blk,drive=n,request-merging=3",
                   "-device virtio-blk,drive=n,request-merging=3: Parameter "
                   "'request-merging' expects 'on' or 'off'");
}

static void test_device_iothread(void)
{
    expect_daemon(NULL_NODE "-object iothread,id=io,poll-max-ns=5 "
                  "-object iothread,id=other "
                  "-device virtio-blk-pci,drive=n,iothread=io",
                  "--object iothread,id=io,poll-max-ns=5 "
                  "--blockdev null-co,node-name=n "
                  "--export vhost-user-blk,id=n,node-name=n,"
                  "x-share-rw=off,num-queues=1,queue-size=256,iothread=io,"
                  "writable=on,addr.type=unix,addr.path=/dir/0");
    expect_daemon(NULL_NODE "-device {\"driver\":\"virtio-blk-pci\","
                  "\"drive\":\"n\",\"num-queues\":3,"
                  "\"iothread-vq-mapping\":[{\"iothread\":\"a\","
                  "\"vqs\":[0,2]},{\"iothread\":\"b\",\"vqs\":[1]}]}",
                  "--blockdev null-co,node-name=n "
                  "--export vhost-user-blk,id=n,node-name=n,"
                  "x-share-rw=off,num-queues=3,queue-size=256,"
                  "iothread.0=a,iothread.1=b,iothread.2=a,"
                  "writable=on,addr.type=unix,addr.path=/dir/0");
    expect_refused(NULL_NODE "-device {\"driver\":\"virtio-blk\","
                   "\"drive\":\"n\",\"num-queues\":1,"
                   "\"iothread-vq-mapping\":[{\"iothread\":\"a\","
                   "\"vqs\":[1]}]}",
                   "-device {\"driver\":\"virtio-blk\",\"drive\":\"n\","
                   "\"num-queues\":1,\"iothread-vq-mapping\":"
                   "[{\"iothread\":\"a\",\"vqs\":[1]}]}: "
                   "Invalid iothread-vq-mapping");
}

static void test_device_json(void)
{
    expect_emulator(NULL_NODE "-device {\"driver\":\"virtio-blk-pci\","
                    "\"drive\":\"n\",\"bootindex\":2,\"packed\":true}",
                    "-device {\"bootindex\": 2, \"packed\": true, "
                    "\"num-queues\": 1, \"queue-size\": 256, "
                    "\"driver\": \"vhost-user-blk-pci\", "
                    "\"chardev\": \"threadblock-0\"}");
}

static void test_device_drive(void)
{
    expect_daemon("-drive if=none,id=hd,file=x,format=raw "
                  "-device virtio-blk-pci,drive=hd",
                  "--blockdev raw,file.filename=x,file.driver=file,"
                  "node-name=hd --export vhost-user-blk,id=hd,node-name=hd,"
                  "x-share-rw=off,num-queues=1,queue-size=256,writable=on,"
                  "addr.type=unix,addr.path=/dir/0");
    expect_refused("-device virtio-blk-pci",
                   "-device virtio-blk-pci: drive property not set");
    expect_refused("-device virtio-blk-pci,drive=no",
                   "-device virtio-blk-pci,drive=no: Property "
                   "'virtio-blk-device.drive' can't find value 'no'");
}

static void test_device_refused(void)
{
    expect_refused(NULL_NODE "-device virtio-blk-pci,drive=n,cyls=3",
                   "-device virtio-blk-pci,drive=n,cyls=3: Property 'cyls=3' "
                   "is not supported for virtio disks here");
    expect_refused(NULL_NODE "-device virtio-blk-pci,drive=n,queue-size=100",
                   "-device virtio-blk-pci,drive=n,queue-size=100: invalid "
                   "queue-size property (100), must be a power of 2");
    expect_refused(NULL_NODE "-device virtio-blk,drive=n -set device.d.x=y",
                   "-set device.d.x=y: Not supported with virtio disks; write "
                   "the value into the option itself");
    expect_emulator(NULL_NODE "-device virtio-blk,drive=n,cyls=0,werror=report",
                    "-device vhost-user-blk-pci,num-queues=1,queue-size=256,"
                    "chardev=threadblock-0");
}

static void test_device_global(void)
{
    static const char *const globals[] = {
        "virtio-blk-pci.queue-size=64",
        "driver=virtio-blk-pci,property=queue-size,value=64",
    };

    for (size_t i = 0; i < ARRAY_SIZE(globals); i++) {
        g_autofree char *line = g_strdup_printf(
            NULL_NODE "-device virtio-blk,drive=n -global %s", globals[i]);
        g_autoptr(Result) r = translate(line);

        g_assert_nonnull(strstr(r->daemon, ",queue-size=64,"));
        g_assert_null(strstr(r->emulator, "-global"));
    }
    expect_emulator(NULL_NODE "-device virtio-blk,drive=n -global e1000.x=y",
                    "-global e1000.x=y");
}

static void test_device_queues_follow_cpus(void)
{
    static const struct {
        const char *options;
        int queues;
    } cases[] = {
        { "-smp 4", 4 },
        { "-smp cpus=2,maxcpus=8", 2 },
        { "-smp maxcpus=8", 8 },
        { "-smp sockets=2,cores=2,threads=2", 8 },
        { "-M pc,smp.cpus=3", 3 },
        { "-smp 2000", 256 },
        { "-S", 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *line = g_strdup_printf(
            "%s " NULL_NODE "-device virtio-blk,drive=n", cases[i].options);
        g_autofree char *wanted = g_strdup_printf(
            ",num-queues=%d,", cases[i].queues);
        g_autoptr(Result) r = translate(line);

        g_assert_nonnull(strstr(r->daemon, wanted));
        g_assert_nonnull(strstr(r->emulator, wanted));
    }
}

/* ---- The node graph ---- */

#define TWO_NODES "-blockdev file,node-name=f,filename=x " \
    "-blockdev raw,node-name=r,file=f "

static void test_graph_moves_as_one(void)
{
    expect_daemon(TWO_NODES "-device virtio-blk,drive=r",
                  "--blockdev file,node-name=f,filename=x "
                  "--blockdev raw,node-name=r,file=f "
                  "--export vhost-user-blk,id=r,node-name=r,"
                  "x-share-rw=off,num-queues=1,queue-size=256,writable=on,"
                  "addr.type=unix,addr.path=/dir/0");
    expect_emulator(TWO_NODES "-blockdev null-co,node-name=o -device "
                    "virtio-blk,drive=r -device ide-hd,drive=o",
                    "-blockdev null-co,node-name=o -device "
                    "vhost-user-blk-pci,num-queues=1,queue-size=256,"
                    "chardev=threadblock-0 -device ide-hd,drive=o");
}

static void test_graph_read_only_root(void)
{
    g_autoptr(Result) r = translate(
        "-blockdev null-co,node-name=n,read-only=on "
        "-device virtio-blk,drive=n");

    g_assert_nonnull(strstr(r->daemon, ",writable=off,"));
}

static void test_graph_shared_refused(void)
{
    static const char claim[] = ": Node 'f' belongs to virtio disk 'r', which "
        "the storage daemon serves; nothing else can use it";
    static const char *const users[] = {
        "-device ide-hd,drive=f",
        "-blockdev raw,node-name=r2,file=f",
        "-blockdev {'driver':'raw','node-name':'r2','file':'f'}",
        "-drive if=ide,driver=qcow2,backing=f",
    };

    for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
        g_autofree char *line = g_strdup_printf(
            TWO_NODES "-device virtio-blk,drive=r %s", users[i]);
        g_autofree char *message = g_strconcat(users[i], claim, NULL);

        expect_refused(line, message);
    }
    expect_refused("-drive if=none,id=d,file=x -device virtio-blk,drive=d "
                   "-device ide-hd,drive=d",
                   "-device ide-hd,drive=d: Drive 'd' belongs to a virtio "
                   "disk, which the storage daemon serves; nothing else can "
                   "use it");
}

static void test_graph_share_rw(void)
{
    g_autoptr(Result) r = translate(
        NULL_NODE "-device virtio-blk,drive=n,share-rw=on "
        "-device virtio-blk,drive=n,share-rw=on");

    g_assert_cmpint(r->plan->exports->len, ==, 2);
    g_assert_null(strstr(r->daemon, "share-rw"));
    expect_refused(NULL_NODE "-device virtio-blk,drive=n "
                   "-device virtio-blk,drive=n,share-rw=on",
                   "-device virtio-blk,drive=n,share-rw=on: Node 'n' is used "
                   "by two devices without share-rw=on");
}

/* A node that refers to itself is the daemon's to refuse; but it must get
 * there. */
static void test_graph_cycle(void)
{
    g_autoptr(Result) r = translate(
        "-blockdev raw,node-name=a,file=b -blockdev raw,node-name=b,file=a "
        "-device virtio-blk,drive=a");

    g_assert_cmpint(r->plan->exports->len, ==, 1);
}

static void test_graph_objects(void)
{
    expect_daemon("-object secret,id=s,data=x -object secret,id=t,data=y "
                  "-blockdev luks,node-name=l,file.driver=null-co,key-secret=s "
                  "-device virtio-blk,drive=l",
                  "--object secret,id=s,data=x "
                  "--blockdev luks,node-name=l,file.driver=null-co,"
                  "key-secret=s --export vhost-user-blk,id=l,node-name=l,"
                  "x-share-rw=off,num-queues=1,queue-size=256,writable=on,"
                  "addr.type=unix,addr.path=/dir/0");
}

/* ---- Memory ---- */

#define DISK "-drive if=virtio,file=x,format=raw "

static void test_memory_size(void)
{
    static const struct {
        const char *options;
        uint64_t size;
    } cases[] = {
        { "-S", 128 * MiB },
        { "-m 192", 192 * MiB },
        { "-m 1G", GiB },
        { "-m size=2G,slots=2,maxmem=4G", 2 * GiB },
        { "-M pc,memory.size=256M", 256 * MiB },
        { "-m 100000K", 100000 * KiB },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *line = g_strdup_printf(DISK "%s", cases[i].options);
        g_autofree char *wanted = g_strdup_printf(
            "-object memory-backend-memfd,id=threadblock-memory,size=%" PRIu64
            ",share=on", cases[i].size);

        expect_emulator(line, wanted);
    }
}

static void test_memory_path(void)
{
    g_autoptr(Result) r = translate(DISK "-mem-path /huge -mem-prealloc");

    g_assert_nonnull(strstr(r->emulator, "-object memory-backend-file,"
                            "id=threadblock-memory,size=134217728,share=on,"
                            "mem-path=/huge,prealloc=on"));
    g_assert_null(strstr(r->emulator, "-mem-p"));
}

static void test_memory_backend_kept(void)
{
    static const char *const good[] = {
        "-object memory-backend-memfd,id=m,size=1G -M memory-backend=m",
        "-object memory-backend-file,id=m,share=on -machine memory-backend=m",
        "-object memory-backend-file,id=m,share=on -numa node,memdev=m",
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        g_autofree char *line = g_strconcat(DISK, good[i], NULL);
        g_autoptr(Result) r = translate(line);

        g_assert_cmpstr(r->message, ==, NULL);
        g_assert_null(strstr(r->emulator, "threadblock-memory"));
    }
}

static void test_memory_backend_refused(void)
{
    static const char *const uses[] = {
        "-machine memory-backend=m", "-numa node,memdev=m",
        "-device pc-dimm,memdev=m",
    };

    for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
        g_autofree char *line = g_strdup_printf(
            DISK "%s -object memory-backend-file,id=m,mem-path=/x", uses[i]);

        expect_refused(line, "-object memory-backend-file,id=m,mem-path=/x: "
                       "Memory backend 'm' must have share=on for virtio "
                       "disks");
    }
    expect_refused(DISK "-object memory-backend-ram,id=m -M memory-backend=m",
                   "-object memory-backend-ram,id=m: Memory backend 'm' is no "
                   "file that the storage daemon could map; use "
                   "memory-backend-memfd");
}

/* ---- What is not ours ---- */

static void test_other_untouched(void)
{
    static const char *const lines[] = {
        "-drive file=x,if=ide -cdrom y -hda z",
        "-drive if=none,id=a,file=x -device ide-hd,drive=a",
        "-blockdev null-co,node-name=n -device scsi-hd,drive=n",
        "-append -drive,if=virtio disk.img -nographic",
    };

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        g_autoptr(Result) r = translate(lines[i]);

        g_assert_false(cmdline_has_virtio_disk(r->cmd));
        g_assert_cmpint(r->plan->exports->len, ==, 0);
    }
    expect_emulator(DISK "-drive file=y,if=ide -cdrom z disk.img --nodefaults "
                    "-append -drive", "-drive file=y,if=ide -cdrom z disk.img "
                    "--nodefaults -append -drive");
}

static void test_other_words(void)
{
    char *argv[] = {
        (char *)"qemu", (char *)"-S", (char *)"-frobnicate", (char *)"--help",
        (char *)"-drive", NULL
    };
    g_autoptr(CmdLine) cmd = cmdline_parse(5, argv);

    g_assert_cmpint(cmd->options->len, ==, 4);
    g_assert_true(cmd->wants_text);
    g_assert_null(cmdline_option(cmd, 1)->value);
    g_assert_null(cmdline_option(cmd, 3)->value);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/launcher/drive/whole", test_drive_whole);
    g_test_add_func("/launcher/drive/incoming", test_incoming);
    g_test_add_func("/launcher/drive/image-options", test_drive_image_options);
    g_test_add_func("/launcher/drive/qcow2", test_drive_qcow2);
    g_test_add_func("/launcher/drive/probed", test_drive_probed);
    g_test_add_func("/launcher/drive/export-options",
                    test_drive_export_options);
    g_test_add_func("/launcher/drive/index", test_drive_index);
    g_test_add_func("/launcher/drive/refused", test_drive_refused);
    g_test_add_func("/launcher/drive/off-accepted", test_drive_off_accepted);
    g_test_add_func("/launcher/drive/copy-on-read", test_drive_copy_on_read);
    g_test_add_func("/launcher/device/position", test_device_position);
    g_test_add_func("/launcher/device/types", test_device_types);
    g_test_add_func("/launcher/device/export-options",
                    test_device_export_options);
    g_test_add_func("/launcher/device/merging", test_device_merging);
    g_test_add_func("/launcher/device/iothread", test_device_iothread);
    g_test_add_func("/launcher/device/json", test_device_json);
    g_test_add_func("/launcher/device/drive", test_device_drive);
    g_test_add_func("/launcher/device/refused", test_device_refused);
    g_test_add_func("/launcher/device/global", test_device_global);
    g_test_add_func("/launcher/device/queues-follow-cpus",
                    test_device_queues_follow_cpus);
    g_test_add_func("/launcher/graph/moves-as-one", test_graph_moves_as_one);
    g_test_add_func("/launcher/graph/read-only-root",
                    test_graph_read_only_root);
    g_test_add_func("/launcher/graph/shared-refused",
                    test_graph_shared_refused);
    g_test_add_func("/launcher/graph/share-rw", test_graph_share_rw);
    g_test_add_func("/launcher/graph/cycle", test_graph_cycle);
    g_test_add_func("/launcher/graph/objects", test_graph_objects);
    g_test_add_func("/launcher/memory/size", test_memory_size);
    g_test_add_func("/launcher/memory/path", test_memory_path);
    g_test_add_func("/launcher/memory/backend-kept", test_memory_backend_kept);
    g_test_add_func("/launcher/memory/backend-refused",
                    test_memory_backend_refused);
    g_test_add_func("/launcher/other/untouched", test_other_untouched);
    g_test_add_func("/launcher/other/words", test_other_words);
    return g_test_run();
}
