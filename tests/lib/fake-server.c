/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vhost-user-blk server for tests: see the header.
 */
#include "qemu/osdep.h"
#include "fake-server.h"
#include <glib/gstdio.h>
#include <sys/socket.h>
#include <sys/un.h>

bool fake_server_registers;
bool fake_server_merges = true;

static int listen_at(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpuint(strlen(path), <, sizeof(addr.sun_path));
    memcpy(addr.sun_path, path, strlen(path));
    unlink(path);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(fd, 8), ==, 0);
    return fd;
}

static void resized(void *opaque)
{
    FakeServer *s = opaque;

    vhost_user_server_config_changed(s->server);
}

static void fake_server_start(FakeServer *s, bool writable,
                              uint32_t block_size)
{
    AioContext *contexts[] = {
        iothread_get_aio_context(s->iothreads[0]),
        iothread_get_aio_context(s->iothreads[1]),
    };
    VirtIOBlockConf conf = {
        .blk = s->blk, .name = "fake", .serial = FAKE_SERIAL,
        .writable = writable, .num_queues = FAKE_QUEUES,
        .logical_block_size = block_size,
        .contexts = contexts, .n_contexts = 2,
        .register_buffers = fake_server_registers,
        .request_merging = fake_server_merges,
    };

    s->dev = virtio_blk_new(&conf, resized, s);
    s->server = vhost_user_server_new(virtio_blk_device(s->dev),
                                      listen_at(s->path), &error_abort);
}

static void fake_server_init(FakeServer *s, bool writable,
                             uint32_t block_size)
{
    s->blk = fake_blk_new(FAKE_DISK_SIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(s->iothreads); i++) {
        s->iothreads[i] = iothread_new("io", &error_abort);
    }
    fake_server_start(s, writable, block_size);
}

FakeServer *fake_server_new(bool writable, uint32_t block_size)
{
    FakeServer *s = g_new0(FakeServer, 1);

    s->dir = g_dir_make_tmp("fake-server-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    s->path = g_build_filename(s->dir, "sock", NULL);
    fake_server_init(s, writable, block_size);
    return s;
}

FakeServer *fake_server_new_at(const char *path)
{
    FakeServer *s = g_new0(FakeServer, 1);

    s->path = g_strdup(path);
    fake_server_init(s, true, 512);
    return s;
}

static void fake_server_stop(FakeServer *s)
{
    vhost_user_server_free(s->server);
    virtio_blk_free(s->dev);
}

void fake_server_restart(FakeServer *s)
{
    fake_server_stop(s);
    fake_server_start(s, true, 512);
}

void fake_server_free(FakeServer *s)
{
    fake_server_stop(s);
    for (unsigned i = 0; i < G_N_ELEMENTS(s->iothreads); i++) {
        iothread_free(s->iothreads[i]);
    }
    fake_blk_free(s->blk);
    if (s->dir) {
        unlink(s->path);
        g_rmdir(s->dir);
    }
    g_free(s->path);
    g_free(s->dir);
    g_free(s);
}

void fake_server_set_polling(FakeServer *s, int64_t max_ns)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(s->iothreads); i++) {
        aio_context_set_poll_params(iothread_get_aio_context(s->iothreads[i]),
                                    max_ns, 0, 0);
    }
}

VufeFrontend *fake_server_connect(FakeServer *s, const VufeOptions *opts)
{
    g_autofree char *msg = NULL;
    VufeFrontend *fe = vufe_open(s->path, opts, &msg);

    if (!fe) {
        g_error("%s", msg);
    }
    return fe;
}

void fake_server_check_alive(FakeServer *s)
{
    g_autoptr(VufeFrontend) fe = fake_server_connect(s, NULL);
    char out[512] = "alive", in[512];

    g_assert_cmpint(vufe_blk_write(fe, 0, 1024, out, sizeof(out)), ==, 0);
    g_assert_cmpint(vufe_blk_read(fe, 0, 1024, in, sizeof(in)), ==, 0);
    g_assert_cmpmem(out, sizeof(out), in, sizeof(in));
}

int64_t fake_server_stat(FakeServer *s, const char *name)
{
    json_t *stats = virtio_blk_query_stats(s->dev);
    int64_t value;

    g_assert_nonnull(json_object_get(stats, name));
    value = json_integer_value(json_object_get(stats, name));
    json_decref(stats);
    return value;
}
