/*
 * Break points of blkdebug: break, resume, wait_break and remove_break.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"
#include "block/block-driver.h"

/* How often wait_break looks. */
#define WAIT_INTERVAL_NS 1000000

/* The first node from the top that has break points, or NULL. */
static BlockDriverState *find_debug_node(QemuIo *io)
{
    BlockDriverState *bs = blk_bs(io->blk);

    while (bs && !bs->drv->debug_breakpoint) {
        bs = bdrv_primary_bs(bs);
    }
    return bs;
}

static int cmd_break(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    BlockDriverState *bs = find_debug_node(io);
    int ret = bs ? bs->drv->debug_breakpoint(bs, argv[1], argv[2]) : -ENOTSUP;

    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", g_strerror(-ret));
    }
    return ret;
}

static int cmd_remove_break(QemuIo *io, const IoCommand *cmd, int argc,
                            char **argv)
{
    BlockDriverState *bs = find_debug_node(io);
    int ret = bs ? bs->drv->debug_remove_breakpoint(bs, argv[1]) : -ENOTSUP;

    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1],
               g_strerror(-ret));
    }
    return ret;
}

static int cmd_resume(QemuIo *io, const IoCommand *cmd, int argc, char **argv)
{
    BlockDriverState *bs = find_debug_node(io);
    int ret = bs ? bs->drv->debug_resume(bs, argv[1]) : -ENOTSUP;

    if (ret < 0) {
        printf("Could not resume request: %s\n", g_strerror(-ret));
    }
    return ret;
}

static void timer_fired(void *opaque)
{
    *(bool *)opaque = true;
}

static int cmd_wait_break(QemuIo *io, const IoCommand *cmd, int argc,
                          char **argv)
{
    BlockDriverState *bs = find_debug_node(io);
    bool fired = false;
    QEMUTimer timer;

    if (!bs) {
        return io_print_failure("wait_break", -ENOTSUP);
    }
    /* The request is in a worker's hands, which tells nobody. */
    timer_init_ns(&timer, io->ctx, timer_fired, &fired);
    while (!bs->drv->debug_is_suspended(bs, argv[1])) {
        timer_mod_ns(&timer, qemu_clock_ns() + WAIT_INTERVAL_NS);
        fired = false;
        while (!fired) {
            aio_poll(io->ctx, true);
        }
    }
    timer_del(&timer);
    return 0;
}

static const IoCommand break_command = {
    .name = "break",
    .run = cmd_break,
    .min_args = 2,
    .max_args = 2,
    .needs_file = true,
    .args = "event tag",
    .oneline = "sets a breakpoint on event and tags the stopped request as "
               "tag",
};

static const IoCommand remove_break_command = {
    .name = "remove_break",
    .run = cmd_remove_break,
    .min_args = 1,
    .max_args = 1,
    .needs_file = true,
    .args = "tag",
    .oneline = "remove a breakpoint by tag",
};

static const IoCommand resume_command = {
    .name = "resume",
    .run = cmd_resume,
    .min_args = 1,
    .max_args = 1,
    .needs_file = true,
    .args = "tag",
    .oneline = "resumes the request tagged as tag",
};

static const IoCommand wait_break_command = {
    .name = "wait_break",
    .run = cmd_wait_break,
    .min_args = 1,
    .max_args = 1,
    .needs_file = true,
    .args = "tag",
    .oneline = "waits for the suspension of a request",
};

const IoCommand *const io_debug_commands[] = {
    &break_command,
    &remove_break_command,
    &resume_command,
    &wait_break_command,
    NULL,
};
