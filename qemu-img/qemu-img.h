/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the subcommands of qemu-img share.  Everything runs on the main thread
 * unless it says otherwise.
 */
#ifndef QEMU_IMG_H
#define QEMU_IMG_H

#include <getopt.h>
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error.h"
#include "qemu/options.h"
#include "block/block-backend.h"

/* ---- Subcommands ---- */

typedef struct ImgCommand ImgCommand;

struct ImgCommand {
    const char *name;
    /* argv[0] is made to name program and subcommand.  The exit status. */
    int (*run)(const ImgCommand *cmd, int argc, char **argv);
    const char *description;
};

int img_amend(const ImgCommand *cmd, int argc, char **argv);
int img_bench(const ImgCommand *cmd, int argc, char **argv);
int img_bitmap(const ImgCommand *cmd, int argc, char **argv);
int img_check(const ImgCommand *cmd, int argc, char **argv);
int img_commit(const ImgCommand *cmd, int argc, char **argv);
int img_compare(const ImgCommand *cmd, int argc, char **argv);
int img_convert(const ImgCommand *cmd, int argc, char **argv);
int img_create(const ImgCommand *cmd, int argc, char **argv);
int img_dd(const ImgCommand *cmd, int argc, char **argv);
int img_info(const ImgCommand *cmd, int argc, char **argv);
int img_map(const ImgCommand *cmd, int argc, char **argv);
int img_measure(const ImgCommand *cmd, int argc, char **argv);
int img_rebase(const ImgCommand *cmd, int argc, char **argv);
int img_resize(const ImgCommand *cmd, int argc, char **argv);

int img_snapshot(const ImgCommand *cmd, int argc, char **argv);

/* ---- Arguments (args.c) ---- */

/* Values of long options that have no letter. */
enum {
    OPTION_OUTPUT = 256,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_TARGET_IMAGE_OPTS,
    OPTION_PATTERN,
    OPTION_FLUSH_INTERVAL,
    OPTION_NO_DRAIN,
    OPTION_SIZE,
    OPTION_PREALLOCATION,
    OPTION_SHRINK,
    OPTION_SALVAGE,
    OPTION_TARGET_IS_ZERO,
    OPTION_BITMAPS,
    OPTION_SKIP_BROKEN_BITMAPS,
    OPTION_FORCE,
};

/* After getopt has complained: point to the help of @argv0, and exit(1). */
void img_bad_option(const char *argv0) NORETURN;
/* Complain about the usage, point to the help of @argv0, and exit(1). */
void img_try_help(const char *argv0, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3) NORETURN;

/* Print the help of a subcommand, @synopsis without the program's name and
 * @arguments ready to print, and exit(0). */
void img_cmd_help(const ImgCommand *cmd, const char *synopsis,
                  const char *arguments) NORETURN;

/*
 * @text as a number from @min to @max, or a message that calls it @name, and
 * -1.  @is_size: with suffixes.
 */
int64_t img_parse_number(const char *name, const char *text, bool is_size,
                         int64_t min, int64_t max);

/* The same, but exits after the message. */
int64_t img_take_number(const char *name, const char *text, bool is_size,
                        int64_t min, int64_t max);
/* The one operand that getopt has left, or complain and exit. */
const char *img_take_filename(int argc, char **argv);

typedef enum OutputFormat {
    OFORMAT_HUMAN,
    OFORMAT_JSON,
} OutputFormat;

/* The argument of --output; exits if it is neither. */
OutputFormat img_parse_output_format(const char *argv0, const char *text);

/* The argument of --object; exits with @status if that fails, with 0 if it
 * asked for help. */
void img_process_object(const char *optarg, int status);

/* "./a" is "a", too, and so is a link to it; what is not there is itself. */
bool img_is_same_file(const char *a, const char *b);

/* One more -o into *@accumulated (NULL before the first): false with a
 * message if it could not be told apart from the others. */
bool img_accumulate_options(char **accumulated, const char *optarg);

/* ---- Images (open.c) ---- */

/* How to open an image; all that is not set is off. */
typedef struct ImgOpen {
    const char *filename;
    const char *fmt;            /* NULL: probe */
    int flags;                  /* BDRV_O_… */
    bool writethrough;
    bool image_opts;            /* filename is a list of options */
    bool force_share;
    json_t *options;            /* more options, flat; a reference is used up */
    BlockGraph *graph;          /* NULL: the tool's own, img_graph() */
} ImgOpen;

/* The tool's graph; made on first use. */
BlockGraph *img_graph(void);

/* The backend, or NULL after a message. */
BlockBackend *img_open(const ImgOpen *how);

/* The length of @blk, or -errno after a message that names @filename. */
int64_t img_length(BlockBackend *blk, const char *filename);

/*
 * Make the snapshot that -l/--snapshot names the contents of @blk: false after
 * a message.
 */
bool img_load_snapshot(BlockBackend *blk, const char *param);

/* Add what -i/--aio asks for to flat @options; false for an unknown mode. */
bool img_parse_aio(const char *mode, const char *fmt, json_t *options);

/* What -t/--cache asks for; false after a message. */
bool img_parse_cache(const char *mode, ImgOpen *image);

/* For a subcommand with one image, or one kind of them: take the option @c
 * that getopt found if it is one of -q, -f, -U, --image-opts, --object; else
 * complain and exit.  @quiet: NULL if nothing can be left out. */
void img_take_option(const char *argv0, int c, ImgOpen *image, bool *quiet);

/* ---- Create options (create-options.c) ---- */

typedef struct CreateOptions CreateOptions;

/* What format driver @drv and, unless NULL, protocol driver @proto take. */
CreateOptions *create_options_new(const BlockDriver *drv,
                                  const BlockDriver *proto);
/* What @drv can change of an image that exists. */
CreateOptions *create_options_new_amend(const BlockDriver *drv);
void create_options_free(CreateOptions *o);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CreateOptions, create_options_free)

/* Whether the text of -o asks for help. */
bool create_options_want_help(const char *text);
/* Print the options of @fmt, and of the protocol of @filename unless that is
 * NULL; false with @errp when there are none. */
bool create_options_help(const char *fmt, const char *filename, Error **errp);

/* The same for "amend"; false after a message. */
bool create_options_help_amend(const char *fmt);

/* Take over "key=value,…"; unknown keys and wrong values fail. */
bool create_options_parse(CreateOptions *o, const char *text, Error **errp);
/* Whether there is such an option at all. */
bool create_options_known(const CreateOptions *o, const char *name);
/* Its value, or NULL. */
const char *create_options_get(const CreateOptions *o, const char *name);
void create_options_set(CreateOptions *o, const char *name,
                        const char *value);
void create_options_set_size(CreateOptions *o, int64_t size);
/* The value of "size", or @otherwise. */
int64_t create_options_get_size(const CreateOptions *o, int64_t otherwise);
/* " name=value" for all that are set, in the drivers' order; for g_free. */
char *create_options_to_text(const CreateOptions *o);
/* A flat dictionary for bdrv_create(): a new reference. */
json_t *create_options_to_json(const CreateOptions *o);

/* The drivers that create @fmt at @filename; false with @errp if there are
 * none.  *@proto stays NULL without a filename. */
bool create_find_drivers(const char *fmt, const char *filename,
                         const BlockDriver **drv, const BlockDriver **proto,
                         Error **errp);

/* ---- Threads (workers.c) ---- */

/* Run @fn(@opaque) in @n threads at once, the calling one among them, and
 * return when all have returned.  With less than @n threads if the system does
 * not have more; so @fn may not rely on there being several. */
void img_run_workers(int n, void (*fn)(void *opaque), void *opaque);

/* ---- Progress (progress.c) ---- */

/*
 * Progress of one piece of work: with @show, printed to stdout whenever it
 * grew by @min_percent; without, to stderr when SIGUSR1 (or SIGINFO) comes.
 */
void img_progress_init(bool show, double min_percent);
/* Any thread: @fraction (0 to 1) of the work is done. */
void img_progress_set(double fraction);
void img_progress_end(void);
/* The same; if @ok, all of it has been done. */
void img_progress_finish(bool ok);

#endif
