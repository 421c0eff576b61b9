/*
 * qemu-io: exercise an image with commands, from -c options.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-io.h"

int main(int argc, char **argv)
{
    QemuIo io = { 0 };
    Error *err = NULL;
    int c, status = EXIT_SUCCESS;

    error_init(argv[0]);
    io.ctx = aio_context_new(&err);
    if (!io.ctx) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    aio_context_enter(io.ctx);
    io.graph = block_graph_new();
    while ((c = getopt(argc, argv, "c:")) != -1) {
        int saved_optind = optind;

        if (c != 'c' || io_run_command(&io, optarg) < 0) {
            status = EXIT_FAILURE;
        }
        optind = saved_optind;
    }
    io_close_image(&io);
    block_graph_free(io.graph);
    aio_context_leave(io.ctx);
    aio_context_unref(io.ctx);
    return status;
}
