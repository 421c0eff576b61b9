/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands of qemu-io share.  Everything runs on the main thread,
 * which also runs the AioContext of asynchronous requests.
 */
#ifndef QEMU_IO_H
#define QEMU_IO_H

#include <getopt.h>
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "qemu/options.h"
#include "qemu/thread.h"
#include "block/block-backend.h"

/* The largest transfer of one command: whole sectors in an int. */
#define IO_MAX_BYTES (((int64_t)INT_MAX >> 9) << 9)

/* By how much -m makes a buffer miss its alignment. */
#define MISALIGN_OFFSET 16

typedef struct QemuIo {
    BlockGraph *graph;
    BlockBackend *blk;             /* NULL: no file open */
    AioContext *ctx;
    int in_flight;                 /* asynchronous requests */
    bool misalign;
    bool quit;
} QemuIo;

/* ---- Commands (command.c) ---- */

typedef struct IoCommand IoCommand;

struct IoCommand {
    const char *name;
    const char *alias;             /* NULL: none */
    /* 0, or -errno: the program will exit with 1.  argv[0] is the name. */
    int (*run)(QemuIo *io, const IoCommand *cmd, int argc, char **argv);
    int min_args;
    int max_args;                  /* -1: any number */
    bool needs_file;
    bool writes;                   /* refused on what is open read-only */
    bool resizes;
    const char *args;              /* NULL: none */
    const char *oneline;
    const char *help;              /* NULL: none */
};

/* NULL-terminated; one file each. */
extern const IoCommand *const io_read_commands[];
extern const IoCommand *const io_write_commands[];
extern const IoCommand *const io_aio_commands[];
extern const IoCommand *const io_image_commands[];
extern const IoCommand *const io_debug_commands[];
extern const IoCommand *const io_misc_commands[];
extern const IoCommand *const io_open_commands[];
extern const IoCommand *const io_zone_commands[];

/* Split @line at blanks and run it; 0, or -errno. */
int io_run_command(QemuIo *io, const char *line);
/* "name args -- what it does" to stdout; -EINVAL for the caller to return. */
int io_usage(const IoCommand *cmd);
/* All commands, or, with @name, one in full; -EINVAL if there is none. */
int io_print_help(const char *name);

/* ---- Input (input.c) ---- */

/* Prompt for commands on stdin and run them until the end, or "quit"; 0, or
 * -errno if one of them failed. */
int io_run_interactive(QemuIo *io);

/* ---- Opening (open.c) ---- */

typedef struct IoOpen {
    const char *filename;          /* NULL: the options say it */
    int flags;
    bool writethrough;
    bool force_share;
    bool snapshot;                 /* write to a temporary image over it */
    json_t *options;               /* flat; a reference is used up */
} IoOpen;

/* Open into @io, where nothing is open; false after a message. */
bool io_open_image(QemuIo *io, const IoOpen *how);
/* Complete what is under way, and close. */
void io_close_image(QemuIo *io);
/* For -i/--aio: false after a message. */
bool io_set_aio(json_t *options, const char *mode);

/* ---- A temporary image (overlay.c) ---- */

/* As blk_new_open(), but writes go to a temporary image over the one that is
 * named.  @options is used up. */
BlockBackend *io_open_overlay(BlockGraph *graph, const char *filename,
                              json_t *options, int flags, Error **errp);

/* ---- Asynchronous requests (aio.c) ---- */

/* Run the loop until no asynchronous request is under way. */
void io_drain(QemuIo *io);

/* ---- Parsing and printing (report.c) ---- */

/* @text as a size, or -errno after a message. */
int64_t io_parse_size(const char *text);
/* A byte, 0 to 255, or -1 after a message. */
int io_parse_pattern(const char *text);
/* "1.500 KiB", "512 bytes"; for g_free. */
char *io_size_text(double bytes);

/* What the common options of transfers ask for. */
typedef struct IoReport {
    bool quiet;                    /* -q */
    bool machine;                  /* -C */
} IoReport;

/* "read 1/1 bytes at offset 0" and the speed; @done of @bytes since @start_ns
 * (qemu_clock_ns). */
void io_print_report(const IoReport *r, const char *verb, int64_t start_ns,
                     int64_t offset, int64_t bytes, int64_t done);
/* "VERB failed: reason"; returns @ret. */
int io_print_failure(const char *verb, int ret);
void io_dump_buffer(const uint8_t *buf, int64_t offset, int64_t bytes);

/* ---- Reading and writing (transfer.c) ---- */

typedef struct IoTransfer {
    IoReport report;
    bool vmstate;                  /* -b: of a machine's state, not the disk */
    int pattern;                   /* -1: not given */
    int flags;                     /* BDRV_REQ_…; -r: registered memory */
    int64_t offset;
    int64_t bytes;
} IoTransfer;

/* -b, -C, -p, -P, -q and -r; 0, or -errno after a message, which for others is
 * how @cmd is used. */
int io_parse_transfer_option(IoTransfer *t, const IoCommand *cmd, int c);
/* The operands "off len"; 0, or -errno after a message, of which @suffix is a
 * part if the length is beyond what there is a buffer for, and @limited. */
int io_parse_range(IoTransfer *t, char **argv, bool limited,
                   const char *suffix);
/* The operands "off len…", with a buffer for all of it, filled with @pattern;
 * see io_make_vector().  NULL after a message. */
uint8_t *io_parse_vector(QemuIo *io, const IoCommand *cmd, IoTransfer *t,
                         int argc, char **argv, int pattern,
                         QEMUIOVector *qiov);
static inline bool io_is_registered(const IoTransfer *t)
{
    return t->flags & BDRV_REQ_REGISTERED_BUF;
}
/* Are these whole sectors?  0, or -errno after a message. */
int io_check_sectors(const IoTransfer *t);
/* Asynchronous requests complete first, as the node is drained.  0 or
 * -errno. */
int io_load_vmstate(QemuIo *io, const IoTransfer *t, void *buf);
int io_save_vmstate(QemuIo *io, const IoTransfer *t, void *buf);

/* ---- Buffers (buffer.c) ---- */

/* @bytes for @io's image, filled with @pattern; NULL after a message.  The
 * image must be open until it is freed. */
uint8_t *io_alloc_buffer(QemuIo *io, size_t bytes, int pattern,
                         bool registered);
void io_free_buffer(QemuIo *io, uint8_t *buf, size_t bytes, bool registered);
/* The same, filled with the contents of @filename over and over. */
uint8_t *io_alloc_buffer_from_file(QemuIo *io, size_t bytes,
                                   const char *filename, bool registered);
/* The lengths in @argv become entries of @qiov, in one buffer; NULL after a
 * message.  Free by io_free_buffer() with qiov->size, and destroy @qiov. */
uint8_t *io_make_vector(QemuIo *io, QEMUIOVector *qiov, char **argv, int n,
                        int pattern, bool registered);
/* Whether all bytes are @pattern. */
bool io_is_pattern(const uint8_t *buf, size_t bytes, int pattern);

#endif
