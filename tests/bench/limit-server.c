/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limit: the least that a vhost-user-blk server can do, as a measuring rod
 * for the benchmark.  Not a server to use.
 *
 *   limit-server --socket PATH [--size BYTES] [--queues N]   answers only
 *   limit-server --socket PATH --file FILE [--direct] [...]  pread and pwrite
 *
 * It does for each request what nobody can leave out - fetch the head, walk the
 * chain, do one system call (or none), write the status and the used entry -
 * and for each batch one index update and at most one interrupt, with the event
 * index.  One thread a queue sleeps in read() of its kick eventfd.  Split rings
 * only.
 *
 * It is NOT HARDENED.  Guest addresses are translated without checking that the
 * buffer ends in the same region, a descriptor loop is followed for ever, and
 * a front end that lies gets it to crash.  A real server pays for those checks;
 * what it pays is part of what the benchmark shows.
 *
 * No locks: the control thread starts a queue's thread after it has set the
 * queue up, and joins it before it touches the queue again.  Memory does not
 * change while queues run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "vufe-msg.h"

#define QUEUES_MAX 16
#define IOV_LIMIT 132

typedef struct Region {
    uint64_t gpa, size, user_addr;
    uint8_t *host;
    void *map;
    size_t map_len;
} Region;

typedef struct Queue {
    unsigned num;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    int kick_fd, call_fd;
    uint16_t next; /* both indices: requests complete in order */
    bool has_event_idx;
    bool is_running;
    bool stop; /* atomic */
    pthread_t thread;
} Queue;

static Region regions[VUFE_MAX_REGIONS];
static unsigned num_regions;
static Queue queues[QUEUES_MAX];
static unsigned num_queues = 1;
static uint64_t features;
static int64_t disk_size = INT64_C(1) << 30;
static int disk_fd = -1;

static void *from_gpa(uint64_t gpa)
{
    const Region *r = regions;

    while (gpa - r->gpa >= r->size) {
        r++;
    }
    return r->host + (gpa - r->gpa);
}

static uint8_t do_io(const struct virtio_blk_outhdr *hdr, struct iovec *iov,
                     int n, uint32_t *written)
{
    ssize_t done;

    switch (hdr->type) {
    case VIRTIO_BLK_T_IN:
        done = n == 1 ? pread(disk_fd, iov[0].iov_base, iov[0].iov_len,
                              hdr->sector * 512)
                      : preadv(disk_fd, iov, n, hdr->sector * 512);
        *written += done > 0 ? done : 0;
        break;
    case VIRTIO_BLK_T_OUT:
        done = n == 1 ? pwrite(disk_fd, iov[0].iov_base, iov[0].iov_len,
                               hdr->sector * 512)
                      : pwritev(disk_fd, iov, n, hdr->sector * 512);
        break;
    case VIRTIO_BLK_T_FLUSH:
        done = fdatasync(disk_fd);
        break;
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
    return done < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* Serves the chain that starts at @head; returns the used length. */
static uint32_t serve(const Queue *q, uint16_t head)
{
    const struct vring_desc *table = q->desc;
    const struct vring_desc *d = &table[head];
    const struct virtio_blk_outhdr *hdr;
    struct iovec iov[IOV_LIMIT];
    uint32_t written = 1;
    uint8_t status = VIRTIO_BLK_S_OK;
    int n = 0;

    if (d->flags & VRING_DESC_F_INDIRECT) {
        table = d = from_gpa(d->addr);
    }
    if (disk_fd < 0) {
        while (d->flags & VRING_DESC_F_NEXT) {
            d = &table[d->next];
        }
        *(uint8_t *)from_gpa(d->addr) = status;
        return written;
    }
    hdr = from_gpa(d->addr);
    for (d = &table[d->next]; d->flags & VRING_DESC_F_NEXT;
         d = &table[d->next]) {
        iov[n].iov_base = from_gpa(d->addr);
        iov[n++].iov_len = d->len;
    }
    status = do_io(hdr, iov, n, &written);
    *(uint8_t *)from_gpa(d->addr) = status;
    return written;
}

/* Serves everything up to @end, then tells of it once. */
static void serve_batch(Queue *q, uint16_t end)
{
    const uint16_t mask = q->num - 1;
    const uint16_t start = q->next;
    uint16_t i;
    bool call;

    for (i = start; i != end; i++) {
        uint16_t head = q->avail->ring[i & mask];

        q->used->ring[i & mask] =
            (struct vring_used_elem){ head, serve(q, head) };
    }
    q->next = end;
    __atomic_store_n(&q->used->idx, end, __ATOMIC_RELEASE);
    __sync_synchronize();
    if (q->has_event_idx) {
        call = vring_need_event(
            __atomic_load_n(&q->avail->ring[q->num], __ATOMIC_RELAXED), end,
            start);
    } else {
        call = !(__atomic_load_n(&q->avail->flags, __ATOMIC_RELAXED) &
                 VRING_AVAIL_F_NO_INTERRUPT);
    }
    if (call) {
        uint64_t one = 1;

        if (write(q->call_fd, &one, sizeof(one)) < 0) {
            perror("call");
        }
    }
}

static void *queue_thread(void *opaque)
{
    Queue *q = opaque;
    uint16_t *avail_event = (uint16_t *)&q->used->ring[q->num];

    while (!__atomic_load_n(&q->stop, __ATOMIC_ACQUIRE)) {
        uint16_t end = __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE);
        uint64_t count;

        if (end != q->next) {
            serve_batch(q, end);
            continue;
        }
        if (q->has_event_idx) {
            __atomic_store_n(avail_event, q->next, __ATOMIC_RELAXED);
            __sync_synchronize();
            if (__atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE) != q->next) {
                continue;
            }
        }
        if (read(q->kick_fd, &count, sizeof(count)) < 0 && errno != EINTR) {
            perror("kick");
            break;
        }
    }
    return NULL;
}

static void stop_queue(Queue *q)
{
    uint64_t one = 1;

    if (!q->is_running) {
        return;
    }
    __atomic_store_n(&q->stop, true, __ATOMIC_RELEASE);
    if (write(q->kick_fd, &one, sizeof(one)) < 0) {
        perror("waking a queue");
    }
    pthread_join(q->thread, NULL);
    q->is_running = false;
}

static void close_queue_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

static void reset_all(void)
{
    unsigned i;

    for (i = 0; i < QUEUES_MAX; i++) {
        stop_queue(&queues[i]);
        close_queue_fd(&queues[i].kick_fd);
        close_queue_fd(&queues[i].call_fd);
        queues[i] = (Queue){ .kick_fd = -1, .call_fd = -1 };
    }
    while (num_regions) {
        Region *r = &regions[--num_regions];

        munmap(r->map, r->map_len);
    }
}

static int set_mem_table(const VufeMsg *msg)
{
    unsigned i;

    while (num_regions) {
        Region *r = &regions[--num_regions];

        munmap(r->map, r->map_len);
    }
    if (msg->p.mem_table.num > VUFE_MAX_REGIONS ||
        msg->p.mem_table.num != msg->num_fds) {
        return -EINVAL;
    }
    for (i = 0; i < msg->p.mem_table.num; i++) {
        VufeMemRegionMsg m = msg->p.mem_table.regions[i];
        Region *r = &regions[i];

        r->gpa = m.gpa;
        r->size = m.size;
        r->user_addr = m.user_addr;
        r->map_len = m.size + m.mmap_offset;
        r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, msg->fds[i], 0);
        if (r->map == MAP_FAILED) {
            return -errno;
        }
        r->host = (uint8_t *)r->map + m.mmap_offset;
        num_regions++;
    }
    return 0;
}

static void *from_user_addr(uint64_t addr)
{
    unsigned i;

    for (i = 0; i < num_regions; i++) {
        if (addr - regions[i].user_addr < regions[i].size) {
            return regions[i].host + (addr - regions[i].user_addr);
        }
    }
    return NULL;
}

static int set_addr(Queue *q, const VufeVringAddr *addr)
{
    q->desc = from_user_addr(addr->desc);
    q->avail = from_user_addr(addr->avail);
    q->used = from_user_addr(addr->used);
    return q->desc && q->avail && q->used ? 0 : -EFAULT;
}

/* Takes the descriptor of @msg for itself; kick and call have one each. */
static int take_fd(VufeMsg *msg, int *fd)
{
    if (msg->num_fds != 1) {
        return -EINVAL;
    }
    close_queue_fd(fd);
    *fd = msg->fds[0];
    msg->num_fds = 0;
    return 0;
}

static int start_queue(Queue *q, VufeMsg *msg)
{
    int ret = take_fd(msg, &q->kick_fd);

    if (ret < 0 || !q->avail || !q->num) {
        return -EINVAL;
    }
    /* The queue thread sleeps in read(). */
    ret = fcntl(q->kick_fd, F_SETFL,
                fcntl(q->kick_fd, F_GETFL) & ~O_NONBLOCK);
    if (ret < 0) {
        return -errno;
    }
    q->has_event_idx = features & VUFE_BIT(VIRTIO_RING_F_EVENT_IDX);
    q->stop = false;
    ret = -pthread_create(&q->thread, NULL, queue_thread, q);
    q->is_running = ret == 0;
    return ret;
}

static void get_config(VufeMsg *msg)
{
    struct virtio_blk_config cfg = {
        .capacity = disk_size / 512,
        .seg_max = IOV_LIMIT - 6,
        .blk_size = 512,
        .num_queues = num_queues,
    };
    uint8_t space[2 * VUFE_CONFIG_MAX] = { 0 };

    memcpy(space, &cfg, sizeof(cfg));
    if (msg->p.config.offset <= VUFE_CONFIG_MAX &&
        msg->p.config.size <= VUFE_CONFIG_MAX) {
        memcpy((uint8_t *)&msg->p + VUFE_CONFIG_HDR,
               space + msg->p.config.offset, msg->p.config.size);
    } else {
        msg->size = 0;
    }
}

/* Requests of one queue.  0 or -errno; *@reply when @msg became the reply. */
static int handle_queue(VufeMsg *msg, bool *reply)
{
    /* The index is in the first bytes of all of them. */
    uint32_t index = msg->p.state.index & 0xff;
    Queue *q = &queues[index];

    if (index >= num_queues) {
        return -EINVAL;
    }
    switch (msg->request) {
    case VUFE_SET_VRING_NUM:
        q->num = msg->p.state.num;
        return 0;
    case VUFE_SET_VRING_BASE:
        q->next = msg->p.state.num;
        return 0;
    case VUFE_SET_VRING_ADDR: {
        VufeVringAddr addr = msg->p.addr;

        return set_addr(q, &addr);
    }
    case VUFE_SET_VRING_CALL:
        return take_fd(msg, &q->call_fd);
    case VUFE_SET_VRING_KICK:
        stop_queue(q);
        return start_queue(q, msg);
    case VUFE_GET_VRING_BASE:
        stop_queue(q);
        msg->p.state.num = q->next;
        *reply = true;
        return 0;
    default: /* SET_VRING_ERR, SET_VRING_ENABLE: no use for them here */
        return 0;
    }
}

static int handle(VufeMsg *msg, bool *reply)
{
    switch (msg->request) {
    case VUFE_GET_FEATURES:
        msg->p.u64 = VUFE_BIT(VIRTIO_F_VERSION_1) |
                     VUFE_BIT(VIRTIO_RING_F_EVENT_IDX) |
                     VUFE_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                     VUFE_BIT(VUFE_F_PROTOCOL_FEATURES) |
                     VUFE_BIT(VIRTIO_BLK_F_SEG_MAX) |
                     VUFE_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                     VUFE_BIT(VIRTIO_BLK_F_FLUSH) | VUFE_BIT(VIRTIO_BLK_F_MQ);
        break;
    case VUFE_GET_PROTOCOL_FEATURES:
        msg->p.u64 = VUFE_BIT(VUFE_P_MQ) | VUFE_BIT(VUFE_P_REPLY_ACK) |
                     VUFE_BIT(VUFE_P_CONFIG);
        break;
    case VUFE_GET_QUEUE_NUM:
        msg->p.u64 = num_queues;
        break;
    case VUFE_GET_CONFIG:
        get_config(msg);
        *reply = true;
        return 0;
    case VUFE_SET_FEATURES:
        features = msg->p.u64;
        return 0;
    case VUFE_SET_MEM_TABLE:
        return set_mem_table(msg);
    case VUFE_SET_OWNER:
    case VUFE_SET_PROTOCOL_FEATURES:
        return 0;
    case VUFE_SET_VRING_NUM:
    case VUFE_SET_VRING_ADDR:
    case VUFE_SET_VRING_BASE:
    case VUFE_GET_VRING_BASE:
    case VUFE_SET_VRING_KICK:
    case VUFE_SET_VRING_CALL:
    case VUFE_SET_VRING_ERR:
    case VUFE_SET_VRING_ENABLE:
        return handle_queue(msg, reply);
    default:
        return -EOPNOTSUPP;
    }
    msg->size = sizeof(msg->p.u64);
    *reply = true;
    return 0;
}

/* Talks to one front end until it hangs up. */
static void serve_connection(int fd)
{
    VufeConn conn;
    VufeMsg msg;

    vufe_conn_adopt(&conn, fd, INT_MAX);
    while (vufe_recv(&conn, &msg, -1) == 0) {
        bool reply = false;
        bool need_ack = msg.flags & VUFE_FLAG_NEED_REPLY;
        int ret = handle(&msg, &reply);

        vufe_msg_close_fds(&msg);
        if (ret < 0) {
            fprintf(stderr, "request %u: %s\n", msg.request, strerror(-ret));
        }
        if (!reply && need_ack) {
            msg.p.u64 = ret < 0;
            msg.size = sizeof(msg.p.u64);
            reply = true;
        }
        msg.flags = VUFE_VERSION | VUFE_FLAG_REPLY;
        if (reply && vufe_send(&conn, &msg) < 0) {
            break;
        }
    }
    vufe_conn_close(&conn);
    reset_all();
}

static int listen_on(const char *path)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(sun.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(sun.sun_path, path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
        listen(fd, 1) < 0) {
        return -1;
    }
    return fd;
}

static int open_disk(const char *file, bool direct)
{
    struct stat st;

    disk_fd = open(file, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (disk_fd < 0 || fstat(disk_fd, &st) < 0) {
        return -1;
    }
    disk_size = st.st_size;
    return 0;
}

int main(int argc, char **argv)
{
    g_autofree char *socket_path = NULL;
    g_autofree char *file = NULL;
    gboolean direct = FALSE;
    int nq = 1;
    const GOptionEntry entries[] = {
        { "socket", 's', 0, G_OPTION_ARG_FILENAME, &socket_path,
          "listen here", "PATH" },
        { "file", 'f', 0, G_OPTION_ARG_FILENAME, &file,
          "serve this file (default: only answer)", "FILE" },
        { "direct", 0, 0, G_OPTION_ARG_NONE, &direct, "with O_DIRECT", NULL },
        { "size", 0, 0, G_OPTION_ARG_INT64, &disk_size,
          "of the disk without a file", "BYTES" },
        { "queues", 'q', 0, G_OPTION_ARG_INT, &nq, "offered", "N" },
        { NULL }
    };
    g_autoptr(GOptionContext) ctx = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;
    int fd;

    g_option_context_add_main_entries(ctx, entries, NULL);
    if (!g_option_context_parse(ctx, &argc, &argv, &err) || !socket_path ||
        nq < 1 || nq > QUEUES_MAX) {
        fprintf(stderr, "limit-server: %s\n",
                err ? err->message : "needs --socket, and 1 to 16 queues");
        return 2;
    }
    num_queues = nq;
    signal(SIGPIPE, SIG_IGN);
    reset_all();
    if (file && open_disk(file, direct) < 0) {
        perror(file);
        return 1;
    }
    fd = listen_on(socket_path);
    if (fd < 0) {
        perror(socket_path);
        return 1;
    }
    for (;;) {
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

        if (client >= 0) {
            serve_connection(client);
        } else if (errno != EINTR) {
            perror("accept");
            return 1;
        }
    }
}
