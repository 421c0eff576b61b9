/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhost-user: the rings, and the messages about them.
 *
 *   started   from SET_VRING_KICK to GET_VRING_BASE (or a reset)
 *   enabled   as SET_VRING_ENABLE says; without protocol features, always
 *   running   started, enabled and complete: the device serves it
 *
 * What a message changes of a running ring it changes with the ring paused:
 * stopped, and everything that was popped done.  The one exception is the call
 * notifier, which front ends change all the time; it is exchanged in the
 * thread that runs the ring.
 */
#include "qemu/osdep.h"
#include "vhost-user-internal.h"
#include "qemu/trace.h"

TRACE_EVENT(vhost_user_vring_start);
TRACE_EVENT(vhost_user_vring_stop);

void vhost_user_vring_init(VhostUserSession *s, unsigned index)
{
    VhostUserVring *v = &s->vrings[index];

    v->session = s;
    v->index = index;
    v->name = g_strdup_printf("%s: queue %u", s->dev->name, index);
    v->vq.name = v->name;
}

/* ---- Running ---- */

bool vhost_user_vring_update(VhostUserVring *v, Error **errp)
{
    VhostUserSession *s = v->session;
    bool packed = s->features & (1ULL << VIRTIO_F_RING_PACKED);
    VirtQueueConfig config = {
        .mem = s->mem,
        .features = s->features,
        .num = v->num,
        .base = v->base,
        .addr = v->addr,
        .log = s->features & (1 << VHOST_F_LOG_ALL) ? s->log : NULL,
    };

    if (v->running || !v->started || !v->enabled || !v->num || !v->has_addr) {
        return true;
    }
    if (s->dev->owner &&
        !s->dev->owner->activate(s->dev->owner_opaque, errp)) {
        return false;
    }
    if (s->inflight) {
        config.inflight = vhost_user_inflight_queue(s->inflight, v->index,
                                                    packed, v->num);
    }
    if (!virtqueue_setup(&v->vq, &config, errp)) {
        return false;
    }
    v->inflight = config.inflight;
    if (!s->dev->ops->queue_start(s->dev, v->index, &v->vq)) {
        virtqueue_teardown(&v->vq);
        error_setg(errp, "Not enough memory for a queue of %" PRIu32, v->num);
        return false;
    }
    trace(vhost_user_vring_start, "%s num %u base %#x", v->name, v->num,
          v->base);
    v->running = true;
    return true;
}

void vhost_user_vring_pause(VhostUserVring *v)
{
    VhostUserSession *s = v->session;

    if (v->running) {
        s->dev->ops->queue_stop(s->dev, v->index);
        v->base = virtqueue_teardown(&v->vq);
        v->running = false;
        trace(vhost_user_vring_stop, "%s base %#x", v->name, v->base);
    }
}

void vhost_user_pause_all(VhostUserSession *s)
{
    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        vhost_user_vring_pause(&s->vrings[i]);
    }
}

bool vhost_user_update_all(VhostUserSession *s, Error **errp)
{
    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        if (!vhost_user_vring_update(&s->vrings[i], errp)) {
            return false;
        }
    }
    return true;
}

/* ---- Notifiers ---- */

static void vhost_user_notifier_free(EventNotifier **e)
{
    if (*e) {
        event_notifier_cleanup(*e);
        g_free(*e);
        *e = NULL;
    }
}

/* The ring that @msg is about, and the notifier in it (*@e NULL: none). */
static VhostUserVring *vhost_user_take_notifier(VhostUserSession *s,
                                                VhostUserMsg *msg,
                                                EventNotifier **e,
                                                Error **errp)
{
    uint64_t u64 = msg->payload.u64;
    unsigned index = u64 & VHOST_USER_VRING_INDEX_MASK;
    int fd = -1;

    if (index >= s->dev->num_queues || u64 >> 9) {
        error_setg(errp, "No queue %#" PRIx64, u64);
        return NULL;
    }
    *e = NULL;
    if (!(u64 & VHOST_USER_VRING_NOFD)) {
        fd = vhost_user_msg_take_fd(msg);
        *e = g_new0(EventNotifier, 1);
        /* An event loop can only wait for some kinds of file. */
        if (fd < 0 || event_notifier_init_fd(*e, fd) < 0) {
            error_setg(errp, "No notifier for queue %u", index);
            if (fd >= 0) {
                close(fd);
            }
            g_free(*e);
            return NULL;
        }
    }
    return &s->vrings[index];
}

bool vhost_user_set_vring_kick(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    EventNotifier *e;
    VhostUserVring *v = vhost_user_take_notifier(s, msg, &e, errp);

    if (!v) {
        return false;
    }
    vhost_user_vring_pause(v);
    vhost_user_notifier_free(&v->vq.kick);
    v->vq.kick = e;
    v->started = true;
    return vhost_user_vring_update(v, errp);
}

typedef struct VhostUserSwap {
    EventNotifier **where;
    EventNotifier *e;
} VhostUserSwap;

static void vhost_user_swap_notifier(void *opaque)
{
    VhostUserSwap *swap = opaque;
    EventNotifier *old = *swap->where;

    *swap->where = swap->e;
    swap->e = old;
}

/* Exchange a notifier that the thread of the ring may be using. */
static void vhost_user_exchange(VhostUserVring *v, EventNotifier **where,
                                EventNotifier *e)
{
    VhostUserSwap swap = { where, e };
    VirtIODevice *dev = v->session->dev;

    if (v->running) {
        dev->ops->queue_run(dev, v->index, vhost_user_swap_notifier, &swap);
    } else {
        vhost_user_swap_notifier(&swap);
    }
    vhost_user_notifier_free(&swap.e);
}

bool vhost_user_set_vring_call(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    EventNotifier *e;
    VhostUserVring *v = vhost_user_take_notifier(s, msg, &e, errp);

    if (v) {
        vhost_user_exchange(v, &v->vq.call, e);
    }
    return v != NULL;
}

bool vhost_user_set_vring_err(VhostUserSession *s, VhostUserMsg *msg,
                              Error **errp)
{
    EventNotifier *e;
    VhostUserVring *v = vhost_user_take_notifier(s, msg, &e, errp);

    if (v) {
        vhost_user_exchange(v, &v->vq.err, e);
    }
    return v != NULL;
}

/* ---- Stopping for good ---- */

/* Somewhere else the machine may go on, when no ring is left to run here. */
static void vhost_user_check_migrated(VhostUserSession *s)
{
    if (!s->dev->owner || !(s->features & (1 << VHOST_F_LOG_ALL))) {
        return;
    }
    for (unsigned i = 0; i < s->dev->num_queues; i++) {
        if (s->vrings[i].started) {
            return;
        }
    }
    s->dev->owner->inactivate(s->dev->owner_opaque);
}

/*
 * Stopped with the front end knowing where, the tracking starts afresh: whoever
 * starts the ring next says from where, and the buffer, which knows better
 * after a crash, must not contradict.  That is so whether the ring ran until
 * now or was paused before (SET_VRING_ENABLE, a missing address).
 *
 * What the driver got wrong remains unanswered, and stays in the buffer; only a
 * reset forgets it.  If the ring never ran here, what is in flight there is
 * another process's, and still to be done.
 */
static void vhost_user_vring_stop(VhostUserVring *v, bool reset)
{
    vhost_user_vring_pause(v);
    if (v->inflight && (reset || virtqueue_is_idle(&v->vq))) {
        vq_inflight_mark_clean(v->inflight);
    }
    v->inflight = NULL;
    v->started = false;
    vhost_user_notifier_free(&v->vq.kick);
    vhost_user_check_migrated(v->session);
}

void vhost_user_vring_reset(VhostUserVring *v)
{
    /* The position stays: QEMU before 8.1 resets the device first, and then
     * asks for it.  Whoever starts a ring sets it anew. */
    vhost_user_vring_stop(v, true);
    v->num = 0;
    v->has_addr = false;
    v->enabled = false;
}

void vhost_user_vring_destroy(VhostUserVring *v)
{
    vhost_user_vring_pause(v);
    vhost_user_notifier_free(&v->vq.kick);
    vhost_user_notifier_free(&v->vq.call);
    vhost_user_notifier_free(&v->vq.err);
    g_free(v->name);
}

/* ---- State ---- */

static VhostUserVring *vhost_user_get_vring(VhostUserSession *s,
                                            uint32_t index, Error **errp)
{
    if (index >= s->dev->num_queues) {
        error_setg(errp, "No queue %" PRIu32, index);
        return NULL;
    }
    return &s->vrings[index];
}

bool vhost_user_set_vring_num(VhostUserSession *s, VhostUserMsg *msg,
                              Error **errp)
{
    VhostUserVringState *state = &msg->payload.state;
    VhostUserVring *v = vhost_user_get_vring(s, state->index, errp);
    bool packed = s->features & (1ULL << VIRTIO_F_RING_PACKED);

    if (!v || !virtqueue_check_num(state->num, packed, errp)) {
        return false;
    }
    if (state->num > s->dev->max_queue_size) {
        error_setg(errp, "A queue of %" PRIu32 " entries, more than %u",
                   state->num, s->dev->max_queue_size);
        return false;
    }
    vhost_user_vring_pause(v);
    v->num = state->num;
    return vhost_user_vring_update(v, errp);
}

bool vhost_user_set_vring_addr(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    VhostUserVringAddr *a = &msg->payload.addr;
    VhostUserVring *v = vhost_user_get_vring(s, a->index, errp);
    bool packed = s->features & (1ULL << VIRTIO_F_RING_PACKED);
    VirtQueueAddr addr = {
        .desc = a->desc, .avail = a->avail, .used = a->used,
        .log_guest = a->log, .log_used = a->flags & 1,
    };

    if (!v) {
        return false;
    }
    /* As early as it can be told. */
    if (s->mem && v->num &&
        !virtqueue_check_addr(s->mem, &addr, v->num, packed, errp)) {
        return false;
    }
    vhost_user_vring_pause(v);
    v->addr = addr;
    v->has_addr = true;
    return vhost_user_vring_update(v, errp);
}

bool vhost_user_set_vring_base(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    VhostUserVringState *state = &msg->payload.state;
    VhostUserVring *v = vhost_user_get_vring(s, state->index, errp);

    if (!v) {
        return false;
    }
    vhost_user_vring_pause(v);
    v->base = state->num;
    return vhost_user_vring_update(v, errp);
}

bool vhost_user_get_vring_base(VhostUserSession *s, VhostUserMsg *msg,
                               Error **errp)
{
    VhostUserVringState *state = &msg->payload.state;
    VhostUserVring *v = vhost_user_get_vring(s, state->index, errp);

    if (!v) {
        return false;
    }
    vhost_user_vring_stop(v, false);
    state->num = v->base;
    msg->size = sizeof(*state);
    return true;
}

bool vhost_user_set_vring_enable(VhostUserSession *s, VhostUserMsg *msg,
                                 Error **errp)
{
    VhostUserVringState *state = &msg->payload.state;
    VhostUserVring *v = vhost_user_get_vring(s, state->index, errp);

    if (!v) {
        return false;
    }
    v->enabled = state->num;
    if (!v->enabled) {
        vhost_user_vring_pause(v);
    }
    return vhost_user_vring_update(v, errp);
}
