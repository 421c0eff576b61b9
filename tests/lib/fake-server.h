/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vhost-user-blk server on a disk in memory, in the test's own process, and
 * a front end (vufe) that talks to it.
 */
#ifndef TESTS_FAKE_SERVER_H
#define TESTS_FAKE_SERVER_H

#include "fake-blk.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/virtio-blk.h"
#include "vufe-blk.h"

#define FAKE_DISK_SIZE (4 * MiB)
#define FAKE_QUEUES 4
#define FAKE_SERIAL "serial-number-0123456789"

/* Of the servers that are made from now on: they register buffers. */
extern bool fake_server_registers;
/* They merge requests (default). */
extern bool fake_server_merges;

typedef struct FakeServer {
    char *dir;
    char *path;                 /* of the socket */
    BlockBackend *blk;
    VirtIOBlock *dev;
    VhostUserServer *server;
    IOThread *iothreads[2];
} FakeServer;

/* FAKE_QUEUES queues, alternately on two threads. */
FakeServer *fake_server_new(bool writable, uint32_t block_size);
/* The same at a path of the caller's, who removes the socket. */
FakeServer *fake_server_new_at(const char *path);
void fake_server_free(FakeServer *s);
/*
 * End the device and make another on the same disk and socket: what a restart
 * of the daemon is, but for what was in flight, which completes first.
 */
void fake_server_restart(FakeServer *s);

/* Have its threads poll before they sleep; 0: no. */
void fake_server_set_polling(FakeServer *s, int64_t max_ns);

/* A front end with running rings; the test fails if that does. */
VufeFrontend *fake_server_connect(FakeServer *s, const VufeOptions *opts);
/* Read and write something, to see that all is well. */
void fake_server_check_alive(FakeServer *s);

/* A counter of virtio_blk_query_stats(). */
int64_t fake_server_stat(FakeServer *s, const char *name);

#endif
