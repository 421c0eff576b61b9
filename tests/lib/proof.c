/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all proofs need: images on logging disks, the command line, failures.
 */
#include "proof-int.h"
#include "qemu/cutils.h"

static gint64 seed_option = -1;
static char *cut_option;
static char *save_option;

/* ---- Command line ---- */

void proof_init(int *argc, char ***argv)
{
    const GOptionEntry entries[] = {
        { "seed", 0, 0, G_OPTION_ARG_INT64, &seed_option,
          "of everything random", "N" },
        { "cut", 0, 0, G_OPTION_ARG_STRING, &cut_option,
          "of crash proofs, only this one", "K:PICK" },
        { "save", 0, 0, G_OPTION_ARG_FILENAME, &save_option,
          "the first bad image", "FILE" },
        { NULL }
    };
    g_autoptr(GOptionContext) ctx = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;

    g_option_context_add_main_entries(ctx, entries, NULL);
    g_option_context_set_help_enabled(ctx, FALSE);
    g_option_context_set_ignore_unknown_options(ctx, TRUE);
    if (!g_option_context_parse(ctx, argc, argv, &err)) {
        fprintf(stderr, "%s\n", err->message);
        exit(2);
    }
    write_log_register();
}

void proof_main_init(int *argc, char ***argv)
{
#ifdef __GLIBC__
    /* Not the descriptor: sanitizers have news. */
    stderr = fopen("/dev/null", "w");
#endif
    proof_init(argc, argv);
    g_test_init(argc, argv, NULL);
}

void proof_add_tests(const char *what, const ProofTest *tests,
                     const void *variants, size_t n, size_t size)
{
    for (; tests->name; tests++) {
        for (size_t k = 0; k < n; k++) {
            const void *variant = (const char *)variants + k * size;
            g_autofree char *path =
                g_strdup_printf("/proof/%s/%s/%s", what, tests->name,
                                *(const char *const *)variant);

            g_test_add_data_func(path, variant, tests->fn);
        }
    }
}

int proof_run_tests(const char *what, void (*crash)(const void *variant),
                    void (*fail_nth)(const void *variant),
                    const void *variants, size_t n, size_t size)
{
    const ProofTest tests[] = {
        { "crash", crash }, { "fail-nth", fail_nth }, { NULL }
    };

    proof_add_tests(what, tests, variants, n, size);
    return g_test_run();
}

int proof_scale(void)
{
    const char *value = getenv("THREADBLOCK_LONG");

    return value ? CLAMP(atoi(value), 1, 1000) : 1;
}

/* What sanitizers are to find is not in the images, and they take time. */
int proof_stride(void)
{
    return QEMU_TSAN ? 8 : QEMU_ASAN ? 4 : 1;
}

uint32_t proof_seed(void)
{
    return seed_option >= 0 ? seed_option : g_random_int_range(1, 1000000000);
}

uint32_t proof_seed_or(uint32_t usual)
{
    return seed_option < 0 && proof_scale() == 1 ? usual : proof_seed();
}

const char *proof_cut_option(void)
{
    return cut_option;
}

void proof_save(const MemImage *img)
{
    if (save_option && mem_image_save(img, save_option) < 0) {
        g_test_message("could not save the image to %s", save_option);
    }
    g_clear_pointer(&save_option, g_free);
}

/* ---- Images ---- */

static json_t *options_of(const char *text)
{
    return text ? options_from_json(text, &error_abort) : json_object();
}

static bool create_image(const ProofFormat *fmt, BlockGraph *graph,
                         const WriteLogDisk *disk, int64_t size, Error **errp)
{
    g_autofree char *filename = g_strdup_printf("write-log:%s", disk->id);
    json_t *options = options_of(fmt->create_options);

    json_object_set_new(options, "size", json_integer(size));
    if (fmt->data_file) {
        json_object_set_new(options, "data_file",
                            json_sprintf("write-log:%s-data", disk->id));
        json_object_set_new(options, "data_file_raw",
                            json_boolean(fmt->data_file ==
                                         PROOF_DATA_FILE_RAW));
    }
    return bdrv_create(graph, fmt->driver, filename, options, errp);
}

BlockBackend *proof_open(const ProofFormat *fmt, BlockGraph *graph,
                         const WriteLogDisk *disk, int flags, Error **errp)
{
    json_t *options = options_of(fmt->open_options);
    BlockBackend *blk;

    json_object_set_new(options, "driver", json_string(fmt->driver));
    json_object_set_new(options, "file",
                        json_pack("{s:s, s:s}", "driver", "write-log", "disk",
                                  disk->id));
    if (fmt->data_file) {
        json_object_set_new(options, "data-file",
                            json_pack("{s:s, s:o}", "driver", "write-log",
                                      "disk",
                                      json_sprintf("%s-data", disk->id)));
    }
    blk = blk_new_open(graph, NULL, NULL, options, flags, errp);
    if (blk && fmt->copy_on_read && (flags & BDRV_O_RDWR) &&
        !bdrv_enable_copy_on_read(blk_bs(blk), errp)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

bool proof_open_image(ProofRunState *p)
{
    Error *err = NULL;

    p->blk = proof_open(p->fmt, p->graph, p->disk,
                        BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_RESIZE, &err);
    if (!p->blk) {
        g_string_append_printf(p->why, "the image does not open: %s",
                               error_get_pretty(err));
        error_free(err);
        return false;
    }
    return true;
}

void proof_close_image(ProofRunState *p)
{
    if (p->blk) {
        blk_unref(p->blk);
        p->blk = NULL;
    }
}

/* ---- A proof ---- */

bool proof_fired(const ProofRunState *p)
{
    return write_log_fired(p->disk) || (p->data && write_log_fired(p->data));
}

static void fill_in_defaults(ProofConfig *c)
{
    c->seed = c->seed ?: proof_seed();
    c->size = c->size ?: 1024 * KiB;
    c->max_size = MAX(c->max_size, c->size);
    c->threads = c->threads ?: 1;
    c->ops = c->ops ?: 200;
    c->rounds = c->rounds ?: 4;
    c->backends = c->backends ?: 2;
    c->depth = c->depth ?: 8;
    c->cut = c->cut ?: cut_option;
    c->max_systematic = DIV_ROUND_UP(c->max_systematic, proof_stride());
    c->num_random = DIV_ROUND_UP(c->num_random, proof_stride());
    g_assert_true(c->threads == 1 || !c->mix.weight[MODEL_RESIZE]);
}

void proof_result_clear(ProofResult *r)
{
    g_free(r->failure);
    *r = (ProofResult){ 0 };
}

/* Data with holes, on a disk of its own, and in the model. */
static void make_backing(ProofRunState *p)
{
    int64_t size = p->cfg.backing_size;
    g_autofree uint8_t *buf = g_malloc(MAX(size, p->cfg.size));
    uint64_t time = 1;
    int64_t at;

    memset(buf, 0xbb, MAX(size, p->cfg.size));
    memset(buf, 0, p->cfg.size);
    for (at = 0; at < MIN(size, p->cfg.size); at += 128 * KiB) {
        ModelOp op = { MODEL_WRITE, at, MIN(100 * KiB, size - at) };

        op.bytes = MIN(op.bytes, p->cfg.size - at);
        model_op_begin(p->model, &op, time++, buf + at);
        model_op_end(p->model, &op, time++, true);
    }
    model_disk_settle(p->model, buf);
    p->backing = write_log_disk_new("proof-backing", mem_image_new(size));
    mem_image_write(p->backing->img, 0, buf, size);
}

static WriteLogDisk *new_disk(const ProofConfig *c, const char *id)
{
    WriteLogDisk *d = write_log_disk_new(id, mem_image_new(0));

    d->request_alignment = c->file_alignment;
    d->discard_value = c->discard_value;
    return d;
}

static bool zero_all(ProofRunState *p, Error **errp)
{
    BlockBackend *blk = proof_open(p->fmt, p->graph, p->disk, BDRV_O_RDWR,
                                   errp);
    int ret = blk ? blk_pwrite_zeroes(blk, 0, p->cfg.size, 0) : 0;

    if (!blk) {
        return false;
    }
    blk_unref(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "zeroing it");
    }
    return ret == 0;
}

static void start_logs(ProofRunState *p)
{
    p->disk->jitter = p->cfg.jitter;
    write_log_start(p->disk);
    if (p->data) {
        if (p->fmt->data_file != PROOF_DATA_FILE_RAW) {
            mem_image_fill(p->data->img, 0, 0xee,
                           mem_image_size(p->data->img));
        }
        p->data->jitter = p->cfg.jitter;
        write_log_start(p->data);
    }
}

bool proof_begin(ProofRunState *p, const ProofFormat *fmt,
                 const ProofConfig *cfg, ProofResult *result)
{
    Error *err = NULL;

    proof_result_clear(result);
    *p = (ProofRunState){ .fmt = fmt, .cfg = *cfg, .result = result };
    fill_in_defaults(&p->cfg);
    result->seed = p->cfg.seed;
    p->why = g_string_new(NULL);
    p->graph = block_graph_new();
    p->disk = new_disk(&p->cfg, "proof");
    p->data = fmt->data_file ? new_disk(&p->cfg, "proof-data") : NULL;
    p->model = model_disk_new(p->cfg.size, p->cfg.max_size, p->cfg.seed,
                              fmt->discard);
    if (p->cfg.backing_size) {
        make_backing(p);
    }
    if (!create_image(fmt, p->graph, p->disk, p->cfg.size, &err) ||
        (fmt->starts_as_noise && !zero_all(p, &err))) {
        g_string_append_printf(p->why, "no image: %s", error_get_pretty(err));
        error_free(err);
        proof_fail(p, "in the beginning");
        return false;
    }
    start_logs(p);
    return true;
}

bool proof_end(ProofRunState *p)
{
    proof_close_image(p);
    p->result->entries = p->disk->log->len;
    write_log_disk_free(p->disk);
    g_clear_pointer(&p->data, write_log_disk_free);
    g_clear_pointer(&p->backing, write_log_disk_free);
    block_graph_free(p->graph);
    model_disk_free(p->model);
    g_string_free(p->why, TRUE);
    return !p->result->failure;
}

void proof_fail(ProofRunState *p, const char *how, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    if (p->result->failure) {
        return;
    }
    va_start(ap, how);
    text = g_strdup_vprintf(how, ap);
    va_end(ap);
    p->result->failure = g_strdup_printf("%s: %s\n  %s%s--seed=%u",
                                         p->fmt->name ?: p->fmt->driver,
                                         p->why->str, text, *text ? " " : "",
                                         p->cfg.seed);
}

void proof_assert(ProofRun *run, const ProofFormat *fmt,
                  const ProofConfig *cfg, int n)
{
    uint32_t seed = cfg->seed ?: proof_seed();
    unsigned checks = 0;
    int i;

    n = cut_option || seed_option >= 0 ? 1 : n * proof_scale();
    for (i = 0; i < n; i++) {
        g_auto(ProofResult) result = { 0 };
        ProofConfig c = *cfg;

        c.seed = seed + i;
        if (!run(fmt, &c, &result)) {
            g_test_message("%s", result.failure);
            g_test_fail();
            return;
        }
        checks += result.checks;
    }
    g_test_message("seeds %u to %u: %u checks", seed, seed + n - 1, checks);
}
