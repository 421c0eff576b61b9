/*
 * The registry of announced descriptors: see include/block/fdset.h.
 *
 * Two short lists under one lock.  Nothing here blocks: duplicating and
 * closing a descriptor that is open elsewhere waits for nothing, and the last
 * reference to one is closed outside the lock.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "block/fdset.h"
#include "block/lock-order.h"
#include "qemu/cutils.h"
#include "qemu/list.h"

typedef struct FdEntry {
    int64_t set;        /* -1: a named one */
    char *name;         /* of a named one; else what "opaque" says, or NULL */
    int fd;
    ListNode node;
} FdEntry;

static LeafLock fdset_lock = { .mutex = QEMU_MUTEX_INITIALIZER };
static List fdset_entries GUARDED_BY(leaf_class) =
    LIST_INITIALIZER(fdset_entries);

static void fd_entry_free(FdEntry *e)
{
    close(e->fd);
    g_free(e->name);
    g_free(e);
}

static void REQUIRES(leaf_class) fdset_insert_locked(int64_t set,
                                                     const char *name, int fd)
{
    FdEntry *e = g_new0(FdEntry, 1);

    e->set = set;
    e->name = g_strdup(name);
    e->fd = fd;
    list_push_back(&fdset_entries, &e->node);
}

static int64_t REQUIRES(leaf_class) fdset_unused_id_locked(void)
{
    int64_t id = 0;
    FdEntry *e;

    list_for_each(e, &fdset_entries, node) {
        id = MAX(id, e->set + 1);
    }
    return id;
}

int64_t fdset_add(int64_t id, int fd, const char *opaque)
{
    leaf_lock(&fdset_lock);
    if (id < 0) {
        id = fdset_unused_id_locked();
    }
    fdset_insert_locked(id, opaque, fd);
    leaf_unlock(&fdset_lock);
    return id;
}

/* Move the entries that match to @gone, to be freed without the lock. */
static void REQUIRES(leaf_class) fdset_take_locked(List *gone, int64_t set,
                                                   int fd, const char *name)
{
    FdEntry *e, *next;

    list_for_each_safe(e, next, &fdset_entries, node) {
        if (e->set == set && (fd < 0 || e->fd == fd) &&
            (!name || g_str_equal(e->name, name))) {
            list_remove(&e->node);
            list_push_back(gone, &e->node);
        }
    }
}

static bool fdset_free_list(List *gone)
{
    bool any = false;
    FdEntry *e;

    while ((e = list_pop_front(gone, FdEntry, node))) {
        fd_entry_free(e);
        any = true;
    }
    return any;
}

bool fdset_remove(int64_t id, int fd, Error **errp)
{
    List gone = LIST_INITIALIZER(gone);

    if (id >= 0) {
        leaf_lock(&fdset_lock);
        fdset_take_locked(&gone, id, fd, NULL);
        leaf_unlock(&fdset_lock);
    }
    if (fdset_free_list(&gone)) {
        return true;
    }
    if (fd < 0) {
        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64
                   "' not found", id);
    } else {
        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64
                   ", fd:%d' not found", id, fd);
    }
    return false;
}

void fdset_add_named(const char *name, int fd)
{
    List gone = LIST_INITIALIZER(gone);

    leaf_lock(&fdset_lock);
    fdset_take_locked(&gone, -1, -1, name);
    fdset_insert_locked(-1, name, fd);
    leaf_unlock(&fdset_lock);
    fdset_free_list(&gone);
}

void fdset_clear(void)
{
    List gone = LIST_INITIALIZER(gone);

    leaf_lock(&fdset_lock);
    list_splice_back(&gone, &fdset_entries);
    leaf_unlock(&fdset_lock);
    fdset_free_list(&gone);
}

/* The object of set @id in @sets, made if it is not there yet; borrowed. */
static json_t *fdset_query_set(json_t *sets, int64_t id)
{
    size_t i;
    json_t *set;

    json_array_foreach(sets, i, set) {
        if (json_integer_value(json_object_get(set, "fdset-id")) == id) {
            return set;
        }
    }
    set = json_pack("{s:I, s:[]}", "fdset-id", (json_int_t)id, "fds");
    json_array_append_new(sets, set);
    return set;
}

json_t *fdset_query(void)
{
    json_t *sets = json_array();
    FdEntry *e;

    leaf_lock(&fdset_lock);
    list_for_each(e, &fdset_entries, node) {
        if (e->set >= 0) {
            json_t *fd = json_pack("{s:i}", "fd", e->fd);

            if (e->name) {
                json_object_set_new(fd, "opaque", json_string(e->name));
            }
            json_array_append_new(
                json_object_get(fdset_query_set(sets, e->set), "fds"), fd);
        }
    }
    leaf_unlock(&fdset_lock);
    return sets;
}

bool fdset_is_reference(const char *filename)
{
    return g_str_has_prefix(filename, "/dev/fdset/") ||
           g_str_has_prefix(filename, "fd:");
}

static bool fd_mode_is(int fd, int flags)
{
    int mode = fcntl(fd, F_GETFL);

    return mode >= 0 && (mode & O_ACCMODE) == (flags & O_ACCMODE);
}

/* Duplicate what matches; -1 with errno. */
static int REQUIRES(leaf_class) fdset_dup_locked(int64_t set, const char *name,
                                                 int flags)
{
    int err = ENOENT;
    FdEntry *e;

    list_for_each(e, &fdset_entries, node) {
        if (e->set != set || (name && !g_str_equal(e->name, name))) {
            continue;
        }
        if (fd_mode_is(e->fd, flags)) {
            return fcntl(e->fd, F_DUPFD_CLOEXEC, 0);
        }
        err = EACCES;
    }
    errno = err;
    return -1;
}

int fdset_open(const char *filename, int flags, Error **errp)
{
    const char *rest, *name = NULL;
    int64_t set = -1;
    int fd, err;

    if (strstart(filename, "fd:", &rest)) {
        name = rest;
    } else if (!strstart(filename, "/dev/fdset/", &rest) ||
               qemu_strtoi64(rest, NULL, 10, &set) < 0 || set < 0) {
        error_setg(errp, "Could not parse fdset %s", filename);
        errno = EINVAL;
        return -1;
    }
    leaf_lock(&fdset_lock);
    fd = fdset_dup_locked(set, name, flags);
    err = errno;
    leaf_unlock(&fdset_lock);
    if (fd < 0) {
        error_setg_file_open(errp, err, filename);
        errno = err;
    }
    return fd;
}
