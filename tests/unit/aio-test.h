/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of the event loop share: a loop that the test's thread runs,
 * and bounds.  A test that hangs is ended by SIGALRM.
 */
#ifndef AIO_TEST_H
#define AIO_TEST_H

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error.h"
#include "qemu/thread.h"
#include "aio-internal.h"

#define MAX_SECONDS 60
#define NS_PER_MS   INT64_C(1000000)
#define LONG_NS     (MAX_SECONDS * 1000 * NS_PER_MS)    /* "for ever" */

static inline AioContext *test_loop_new(void)
{
    AioContext *ctx = aio_context_new(&error_abort);

    alarm(MAX_SECONDS);
    aio_context_enter(ctx);
    return ctx;
}

static inline void test_loop_free(AioContext *ctx)
{
    aio_context_leave(ctx);
    aio_context_unref(ctx);
    alarm(0);
}

/* Run the loop until *@counter is @wanted, and not more. */
static inline void test_poll_until(AioContext *ctx, const int *counter,
                                   int wanted)
{
    while (qatomic_read(counter) < wanted) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(qatomic_read(counter), ==, wanted);
}

/* Run @fn(@opaque) in a thread of its own, to its end. */
static inline void test_in_thread(void *(*fn)(void *), void *opaque)
{
    QemuThread thread;

    g_assert_cmpint(qemu_thread_create(&thread, "test", fn, opaque), ==, 0);
    qemu_thread_join(&thread);
}

/* Run this test again as a child, which must die with a matching message. */
static inline void test_expect_abort(const char *pattern)
{
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(pattern);
}

#endif
