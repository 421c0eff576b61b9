/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Message layer: one UNIX socket, messages and file descriptors over it.
 *
 * The lower half sends and receives anything at all - bytes that are no
 * message, sizes that lie, any number of descriptors - which is what a hostile
 * test needs.  The upper half (vufe_call, vufe_query) is for honest use.
 *
 * A connection belongs to one thread at a time.  Every function may block, but
 * never longer than the connection's timeout (or the one given).  All return 0
 * or -errno unless they say otherwise, and leave a sentence in conn->err.
 */
#ifndef TESTS_VUFE_MSG_H
#define TESTS_VUFE_MSG_H

#include <stdbool.h>
#include <stddef.h>

#include "vufe-proto.h"

#define VUFE_TIMEOUT_MS 10000

typedef struct VufeConn {
    int fd;         /* -1: not connected */
    int timeout_ms; /* of everything that waits for the peer */
    bool reply_ack; /* negotiated: vufe_call asks for an acknowledgement */
    char err[256];  /* what went wrong last, for people */
} VufeConn;

/*
 * Connects to the listening socket @path.  A socket that is not there yet, or
 * that nobody listens on yet, is tried again until @timeout_ms is over, so a
 * server that was just started needs no other synchronisation.
 */
int vufe_conn_open(VufeConn *conn, const char *path, int timeout_ms);

/* Takes over @fd, a connected stream socket. */
void vufe_conn_adopt(VufeConn *conn, int fd, int timeout_ms);

/* Closes the socket, if open.  conn->err stays readable. */
void vufe_conn_close(VufeConn *conn);

/*
 * Records "what: strerror(-ret)" in conn->err and returns @ret (negative).  Any
 * thread may; conn->err is to be read when no other one still uses the
 * connection.
 */
int vufe_fail(VufeConn *conn, int ret, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/*
 * Sends @len arbitrary bytes with @num_fds descriptors attached to the first
 * of them.  The descriptors stay the caller's.  -EINVAL with more than
 * VUFE_MAX_FDS of them, -EPIPE or -ECONNRESET when the peer is gone.
 */
int vufe_send_bytes(VufeConn *conn, const void *buf, size_t len,
                    const int *fds, unsigned num_fds);

/*
 * Receives exactly @len bytes.  Descriptors that come along are appended to
 * @fds (room for VUFE_MAX_FDS, may be NULL: they are closed) and counted in
 * *@num_fds; the caller owns them, on failure too.  -ECONNRESET at end of
 * stream, -ETIMEDOUT after @timeout_ms (negative: the connection's own).
 */
int vufe_recv_bytes(VufeConn *conn, void *buf, size_t len, int *fds,
                    unsigned *num_fds, int timeout_ms);

/*
 * Sends the header of @msg as it is - request, flags and size are the caller's
 * to get wrong - followed by @payload_len bytes of its payload and its
 * descriptors.
 */
int vufe_send_lying(VufeConn *conn, const VufeMsg *msg, size_t payload_len);

/* Sends @msg with a true size; the version is added to its flags. */
int vufe_send(VufeConn *conn, const VufeMsg *msg);

/*
 * Receives one message.  -EMSGSIZE when its size exceeds VUFE_PAYLOAD_MAX.
 * The descriptors in @msg belong to the caller: vufe_msg_close_fds.
 */
int vufe_recv(VufeConn *conn, VufeMsg *msg, int timeout_ms);

/* Closes the descriptors that @msg carries. */
void vufe_msg_close_fds(VufeMsg *msg);

/*
 * Waits until the peer has closed the connection, throwing away whatever it
 * still sends.  0 when it has, -ETIMEDOUT when it has not.
 */
int vufe_wait_hangup(VufeConn *conn, int timeout_ms);

/*
 * Sends a request that has no reply of its own.  With REPLY_ACK negotiated it
 * asks for the acknowledgement: -EREMOTEIO when the back end refuses.  Without
 * it a back end that dislikes the request shows that by hanging up later.
 */
int vufe_call(VufeConn *conn, const VufeMsg *msg);

/* Short forms of vufe_call for the common payloads. */
int vufe_call_empty(VufeConn *conn, VufeRequest request);
int vufe_call_u64(VufeConn *conn, VufeRequest request, uint64_t value);
int vufe_call_state(VufeConn *conn, VufeRequest request, uint32_t index,
                    uint32_t num);

/* As vufe_call, with the u64 @value and one descriptor (none if @fd < 0). */
int vufe_call_fd(VufeConn *conn, VufeRequest request, uint64_t value, int fd);

/*
 * Sends a request and replaces @msg by its reply, which must be to the same
 * request and carry at least @min_size bytes; else -EPROTO.  The caller owns
 * the descriptors that came with the reply.
 */
int vufe_query(VufeConn *conn, VufeMsg *msg, uint32_t min_size);

/* vufe_query for an empty request with a u64 reply. */
int vufe_query_u64(VufeConn *conn, VufeRequest request, uint64_t *value);

#endif
