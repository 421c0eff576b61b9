/*
 * replay - inputs through fuzz targets, without a fuzzing engine.
 *
 *   fuzz-replay [--tap] [--target=NAME] [--seed=N] [--count=N] PATH...
 *   fuzz-replay --unpack=DIR PATH...
 *
 * PATH is an input, or a folder of inputs.  One whose name ends in .od is the
 * output of "od -A x -t x1": so does the corpus stand in the tree, where people
 * can read it.  Each input is run as it is, then COUNT mutations of it, by
 * seeds from SEED on (with --tap 150, N times as many with THREADBLOCK_LONG=N
 * in the environment, unless told otherwise; else none).  What fails is named
 * with its seed: --seed=N --count=1 does that one again, and --unpack writes it
 * to a file.
 *
 * Without --tap one failure ends it as it would any program, so that a debugger
 * sees it, and AFL++; "-" is standard input.  With --tap, each input and target
 * is a test in a process of its own, which may take so much time and memory.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include "fuzz.h"

/* Of an input: by the clock, in case it waits for ever, and of processor time,
 * whatever else the machine does. */
#define SECONDS_AN_INPUT 300
#define CPU_SECONDS_AN_INPUT (QEMU_ASAN || QEMU_TSAN ? 30 : 3)
#define MAX_RSS (INT64_C(1) << 30)
#define DEFAULT_COUNT 150

static gboolean tap;
static char *target_name, *unpack_dir;
static int first_seed = 1, count = -1;

static const GOptionEntry entries[] = {
    { "tap", 0, 0, G_OPTION_ARG_NONE, &tap, "Report as TAP", NULL },
    { "target", 0, 0, G_OPTION_ARG_STRING, &target_name, "Only this", "NAME" },
    { "seed", 0, 0, G_OPTION_ARG_INT, &first_seed, "Of the first mutation",
      "N" },
    { "count", 0, 0, G_OPTION_ARG_INT, &count, "Mutations of each", "N" },
    { "unpack", 0, 0, G_OPTION_ARG_FILENAME, &unpack_dir,
      "Write the inputs there, and run nothing", "DIR" },
    { NULL }
};

typedef struct Input {
    char *name;
    uint8_t *data;              /* room for FUZZ_MAX_INPUT */
    size_t size;
} Input;

/* ---- Inputs ---- */

static void G_GNUC_NORETURN die(const char *what, const char *name)
{
    fprintf(stderr, "fuzz-replay: %s: %s\n", name, what);
    exit(2);
}

/* One line: the bytes from @offset on; how many. */
static size_t parse_row(const char *text, uint8_t row[16])
{
    size_t n = 0;
    unsigned byte;
    int used;

    while (n < 16 && sscanf(text, " %2x%n", &byte, &used) == 1) {
        row[n++] = byte;
        text += used;
    }
    return n;
}

/* What "od" writes: a row of 16 bytes a line, "*" for rows that are as the one
 * before, and at last the size. */
static void parse_od(Input *in, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    uint8_t row[16] = { 0 };
    bool repeat = false;

    for (char **line = lines; *line && **line; line++) {
        char *rest;
        size_t offset;

        if (g_str_equal(*line, "*")) {
            repeat = true;
            continue;
        }
        offset = strtoul(*line, &rest, 16);
        if (offset > FUZZ_MAX_INPUT - 16) {
            die("too large", in->name);
        }
        for (; repeat && in->size < offset; in->size += 16) {
            memcpy(in->data + in->size, row, 16);
        }
        if (in->size != offset && *rest) {
            die("not what od writes", in->name);
        }
        repeat = false;
        in->size = offset + parse_row(rest, row);
        memcpy(in->data + offset, row, in->size - offset);
    }
}

static void add_file(GPtrArray *inputs, const char *path)
{
    Input *in = g_new0(Input, 1);
    g_autofree char *text = NULL;
    gsize size;

    if (!g_file_get_contents(g_str_equal(path, "-") ? "/dev/stdin" : path,
                             &text, &size, NULL)) {
        die("cannot be read", path);
    }
    in->name = g_path_get_basename(path);
    in->data = g_malloc0(FUZZ_MAX_INPUT);
    if (g_str_has_suffix(path, ".od")) {
        in->name[strlen(in->name) - 3] = '\0';
        parse_od(in, text);
    } else {
        in->size = MIN(size, FUZZ_MAX_INPUT);
        memcpy(in->data, text, in->size);
    }
    g_ptr_array_add(inputs, in);
}

static void add_path(GPtrArray *inputs, const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    if (!dir) {
        add_file(inputs, path);
        return;
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        add_file(inputs, file);
    }
}

static void free_input(gpointer opaque)
{
    Input *in = opaque;

    g_free(in->name);
    g_free(in->data);
    g_free(in);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(Input *const *)a)->name, (*(Input *const *)b)->name);
}

/* The input, or by a @seed but 0 a mutation of it. */
static uint8_t *make(const Input *in, uint32_t seed, size_t *size)
{
    uint8_t *data = g_malloc0(FUZZ_MAX_INPUT);

    memcpy(data, in->data, in->size);
    *size = seed ? fuzz_mutate(data, in->size, FUZZ_MAX_INPUT, seed)
                 : in->size;
    return data;
}

static void unpack(const Input *in)
{
    uint32_t seed = count > 0 ? first_seed : 0;
    g_autofree char *name = seed ? g_strdup_printf("%s-%u", in->name, seed)
                                 : g_strdup(in->name);
    g_autofree char *path = g_build_filename(unpack_dir, name, NULL);
    size_t size;
    g_autofree uint8_t *data = make(in, seed, &size);

    if (!g_file_set_contents(path, (char *)data, size, NULL)) {
        die("cannot be written", path);
    }
}

/* ---- Running ---- */

/* Seeds are counted where the parent sees them. */
static volatile uint32_t *seed_now;

static void set_limit(time_t seconds)
{
    struct itimerval limit = { .it_value.tv_sec = seconds };

    if (setitimer(ITIMER_PROF, &limit, NULL) < 0) {
        abort();
    }
}

static void run_one(const Input *in, const FuzzTarget *t, uint32_t seed)
{
    size_t size;
    uint8_t *data = make(in, seed, &size);
    /* Of its very size, so that sanitizers know where it ends. */
    g_autofree uint8_t *exact = g_memdup2(data, size);

    g_free(data);
    *seed_now = seed;
    alarm(SECONDS_AN_INPUT);
    set_limit(CPU_SECONDS_AN_INPUT);
    fuzz_memory_begin();
    t->run(exact, size);
    fuzz_memory_end();
    set_limit(0);
    alarm(0);
}

static void run_all(const Input *in, const FuzzTarget *t)
{
    /* A seed asks for that mutation, not for the input. */
    if (first_seed == 1) {
        run_one(in, t, 0);
    }
    for (int i = 0; i < count; i++) {
        run_one(in, t, first_seed + i);
    }
}

/* In a process of its own. */
static bool run_test(const Input *in, const FuzzTarget *t, int number)
{
    struct rusage usage;
    int status;
    pid_t pid;
    bool ok;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        fuzz_init();
        run_all(in, t);
        exit(0);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        die("cannot be run", in->name);
    }
    ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ok) {
        printf("# %s of %s --seed=%u: %s %d\n", t->name, in->name, *seed_now,
               WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    if (!(QEMU_ASAN || QEMU_TSAN) && usage.ru_maxrss * KiB > MAX_RSS) {
        printf("# %s of %s: %ld KiB of memory\n", t->name, in->name,
               usage.ru_maxrss);
        ok = false;
    }
    printf("%s %d %s/%s\n", ok ? "ok" : "not ok", number, t->name, in->name);
    return ok;
}

static bool run_tests(GPtrArray *inputs)
{
    int n = 0;
    bool ok = true;

    for (const FuzzTarget *t = fuzz_targets; t->name; t++) {
        for (guint i = 0; i < inputs->len; i++) {
            Input *in = g_ptr_array_index(inputs, i);

            if (target_name && !g_str_equal(target_name, t->name)) {
                continue;
            }
            if (tap) {
                ok = run_test(in, t, ++n) && ok;
            } else {
                run_all(in, t);
            }
        }
    }
    if (tap) {
        printf("1..%d\n", n);
    }
    return ok && (n > 0 || !tap);
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) options = g_option_context_new("PATH...");
    g_autoptr(GPtrArray) inputs = g_ptr_array_new_with_free_func(free_input);
    const char *times = getenv("THREADBLOCK_LONG");

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, NULL) || argc < 2) {
        fprintf(stderr, "%s", g_option_context_get_help(options, TRUE, NULL));
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        add_path(inputs, argv[i]);
    }
    g_ptr_array_sort(inputs, by_name);
    if (unpack_dir) {
        g_ptr_array_foreach(inputs, (GFunc)(void *)unpack, NULL);
        return 0;
    }
    if (count < 0) {
        count = !tap ? 0 : DEFAULT_COUNT * (times ? MAX(atoi(times), 1) : 1);
    }
    seed_now = mmap(NULL, sizeof(*seed_now), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seed_now == MAP_FAILED) {
        die("no memory", argv[1]);
    }
    if (!tap) {
        fuzz_init();
    }
    return run_tests(inputs) ? 0 : 1;
}
