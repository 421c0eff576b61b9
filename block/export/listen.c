/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listening where an "addr" option says: at a path, or on a socket that this
 * process was started with.
 */
#include "qemu/osdep.h"
#include "listen.h"
#include "qemu/cutils.h"
#include "qemu/options.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 16

/* The name of a socket in the abstract name space begins with a 0 byte, and
 * ends where its length says (tight), or is padded with more of them. */
static socklen_t fill_address(struct sockaddr_un *un, const char *path,
                              bool abstract, bool tight)
{
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + abstract, path, strlen(path));
    if (abstract && tight) {
        return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(path);
    }
    return sizeof(*un);
}

static int listen_at(const struct sockaddr_un *un, socklen_t len,
                     const char *path, Error **errp)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Failed to create Unix socket");
        return -1;
    }
    if (bind(fd, (const struct sockaddr *)un, len) < 0) {
        error_setg_errno(errp, errno, "Failed to bind socket to %s", path);
        close(fd);
        return -1;
    }
    if (listen(fd, BACKLOG) < 0) {
        error_setg_errno(errp, errno, "Failed to listen on socket");
        close(fd);
        return -1;
    }
    return fd;
}

/* What a server that was killed has left there is in the way. */
static void remove_old_socket(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}

static int listen_unix(json_t *addr, char **result, Error **errp)
{
    g_autofree char *path = opt_take_str(addr, "path");
    struct sockaddr_un un = { 0 };
    bool abstract = false, tight = true;
    socklen_t len;
    int fd;

    if (!path) {
        error_setg(errp, "Parameter 'addr.path' is missing");
        return -1;
    }
    if (!opt_take_bool(addr, "abstract", &abstract, errp) ||
        !opt_take_bool(addr, "tight", &tight, errp)) {
        return -1;
    }
    if (strlen(path) + 1 > sizeof(un.sun_path)) {
        error_setg(errp, "UNIX socket path '%s' is too long", path);
        error_append_hint(errp, "Path must be less than %zu bytes\n",
                          sizeof(un.sun_path));
        return -1;
    }
    len = fill_address(&un, path, abstract, tight);
    if (!abstract) {
        remove_old_socket(path);
    }
    fd = listen_at(&un, len, path, errp);
    if (fd >= 0 && !abstract) {
        *result = g_steal_pointer(&path);
    }
    return fd;
}

static int listen_fd(json_t *addr, Error **errp)
{
    g_autofree char *str = opt_take_str(addr, "str");
    int fd, listening = 0;
    socklen_t len = sizeof(listening);

    if (!str) {
        error_setg(errp, "Parameter 'addr.str' is missing");
        return -1;
    }
    if (qemu_strtoi(str, NULL, 10, &fd) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0) {
        error_setg(errp, "File descriptor '%s' is not a socket", str);
        return -1;
    }
    if (!listening) {
        error_setg(errp, "File descriptor '%s' is not a listening socket",
                   str);
        return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

int export_listen(json_t *addr, char **path, Error **errp)
{
    g_autofree char *type = opt_take_str(addr, "type");

    *path = NULL;
    if (!type) {
        error_setg(errp, "Parameter 'addr.type' is missing");
        return -1;
    }
    if (!strcmp(type, "unix")) {
        return listen_unix(addr, path, errp);
    }
    if (!strcmp(type, "fd")) {
        return listen_fd(addr, errp);
    }
    error_setg(errp, "Only socket address types 'unix' and 'fd' are "
               "supported");
    return -1;
}
