/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The versions of each sector are a list, newest first; what they share with
 * the other sectors of their write is in its record.  "Was it replaced?" needs
 * one number a sector: the latest start among the writes that had certainly
 * happened when the observer began.  A version that ended before that is gone.
 */
#include "model-disk.h"
#include "qemu/thread.h"

struct ModelRecord {
    ModelOpType type;
    uint32_t id;
    bool fua;
    bool is_weak;               /* may have happened, or not: replaces none */
    uint64_t start;
    uint64_t end;               /* MODEL_NEVER: not yet */
    int64_t value;              /* resize: the size … */
    int64_t old_value;          /* … and the one before */
    ModelRecord *next;          /* all of the model's, to be freed */
};

typedef struct Version {
    uint32_t id;                /* 0: zeroes */
    uint64_t seen;              /* by a read that ended then */
    const ModelRecord *record;
    struct Version *older;
} Version;

struct ModelDisk {
    int64_t max_size;
    uint32_t seed;
    ModelDiscard discard;

    QemuMutex lock;
    /* Under the lock. */
    int64_t size;
    bool may_tear;
    uint32_t last_id;
    Version **sectors;
    ModelRecord *records;
    GPtrArray *flushes;         /* of records, succeeded */
    GPtrArray *sizes;           /* of records */
};

/* ---- Records ---- */

static ModelRecord *record_new_locked(ModelDisk *m, const ModelOp *op,
                                      uint64_t start)
{
    ModelRecord *r = g_new0(ModelRecord, 1);

    r->type = op->type;
    r->id = op->id;
    r->fua = op->fua;
    r->start = start;
    r->end = MODEL_NEVER;
    r->value = op->offset;
    r->is_weak = op->type == MODEL_DISCARD &&
                 m->discard == MODEL_DISCARD_MAYBE;
    r->next = m->records;
    m->records = r;
    return r;
}

static void push_version_locked(ModelDisk *m, int64_t sector, uint32_t id,
                                const ModelRecord *r)
{
    Version *v = g_new(Version, 1);

    *v = (Version){ id, MODEL_NEVER, r, m->sectors[sector] };
    m->sectors[sector] = v;
}

static void push_versions_locked(ModelDisk *m, int64_t offset, int64_t bytes,
                                 uint32_t id, const ModelRecord *r)
{
    int64_t i;

    for (i = offset / MODEL_SECTOR; i < (offset + bytes) / MODEL_SECTOR; i++) {
        push_version_locked(m, i, id, r);
    }
}

static void forget_locked(ModelDisk *m)
{
    int64_t i;

    for (i = 0; i < m->max_size / MODEL_SECTOR; i++) {
        while (m->sectors[i]) {
            Version *v = m->sectors[i];

            m->sectors[i] = v->older;
            g_free(v);
        }
    }
    while (m->records) {
        ModelRecord *r = m->records;

        m->records = r->next;
        g_free(r);
    }
    g_ptr_array_set_size(m->flushes, 0);
    g_ptr_array_set_size(m->sizes, 0);
}

/* What was there before everything: durable, and older than any time. */
static const ModelRecord *origin_locked(ModelDisk *m)
{
    ModelRecord *r = record_new_locked(m, &(ModelOp){ MODEL_RESIZE, m->size },
                                       0);

    r->end = 0;
    g_ptr_array_add(m->sizes, r);
    return r;
}

ModelDisk *model_disk_new(int64_t size, int64_t max_size, uint32_t seed,
                          ModelDiscard discard)
{
    ModelDisk *m = g_new0(ModelDisk, 1);

    max_size = MAX(size, max_size);
    g_assert_cmpint((size | max_size) % MODEL_SECTOR, ==, 0);
    m->max_size = max_size;
    m->size = size;
    m->seed = seed;
    m->discard = discard;
    qemu_mutex_init(&m->lock);
    m->flushes = g_ptr_array_new();
    m->sizes = g_ptr_array_new();
    m->sectors = g_new0(Version *, max_size / MODEL_SECTOR + 1);
    push_versions_locked(m, 0, max_size, 0, origin_locked(m));
    return m;
}

void model_disk_free(ModelDisk *m)
{
    forget_locked(m);
    g_ptr_array_free(m->flushes, TRUE);
    g_ptr_array_free(m->sizes, TRUE);
    qemu_mutex_destroy(&m->lock);
    g_free(m->sectors);
    g_free(m);
}

void model_disk_allow_tearing(ModelDisk *m)
{
    qemu_mutex_lock(&m->lock);
    m->may_tear = true;
    qemu_mutex_unlock(&m->lock);
}

int64_t model_disk_size(ModelDisk *m)
{
    int64_t size;

    qemu_mutex_lock(&m->lock);
    size = m->size;
    qemu_mutex_unlock(&m->lock);
    return size;
}

/* ---- Stamps ---- */

#define STAMP_MAGIC UINT64_C(0x70726f6f66646973)

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x9e3779b97f4a7c15);
    return x ^ x >> 29;
}

void model_stamp(void *sector, int64_t number, uint32_t id, uint32_t seed)
{
    uint64_t words[MODEL_SECTOR / 8];
    size_t period = id % 4 ? 16 : ARRAY_SIZE(words);
    size_t i;

    words[0] = STAMP_MAGIC;
    words[1] = number;
    words[2] = (uint64_t)seed << 32 | id;
    for (i = 3; i < ARRAY_SIZE(words); i++) {
        words[i] = i < period ? mix(words[i - 1] + number + i) :
                   words[i - period];
    }
    memcpy(sector, words, sizeof(words));
}

ModelValue model_stamp_decode(const void *sector, int64_t number,
                              uint32_t seed, uint32_t *id)
{
    static const uint8_t zeroes[MODEL_SECTOR];
    uint8_t expected[MODEL_SECTOR];
    uint64_t words[3];

    *id = 0;
    if (!memcmp(sector, zeroes, MODEL_SECTOR)) {
        return MODEL_VALUE_ZERO;
    }
    memcpy(words, sector, sizeof(words));
    *id = words[2];
    model_stamp(expected, number, *id, seed);
    return *id && !memcmp(sector, expected, MODEL_SECTOR) ?
           MODEL_VALUE_STAMP : MODEL_VALUE_BAD;
}

/* ---- Operations ---- */

static void begin_resize_locked(ModelDisk *m, ModelOp *op)
{
    int64_t size = op->offset;

    g_assert_cmpint(size, <=, m->max_size);
    if (size < m->size) {
        push_versions_locked(m, size, m->size - size, 0, op->record);
    }
    g_ptr_array_add(m->sizes, op->record);
    op->record->old_value = m->size;
    m->size = size;
}

void model_op_begin(ModelDisk *m, ModelOp *op, uint64_t now, void *buf)
{
    int64_t i;

    op->start = now;
    op->record = NULL;
    if (op->type == MODEL_READ) {
        return;
    }
    qemu_mutex_lock(&m->lock);
    op->id = ++m->last_id;
    op->record = record_new_locked(m, op, now);
    if (op->type == MODEL_RESIZE) {
        begin_resize_locked(m, op);
    } else if (op->type != MODEL_FLUSH) {
        push_versions_locked(m, op->offset, op->bytes,
                             op->type == MODEL_WRITE ? op->id : 0, op->record);
    }
    qemu_mutex_unlock(&m->lock);
    if (op->type == MODEL_WRITE) {
        for (i = 0; i < op->bytes / MODEL_SECTOR; i++) {
            model_stamp((uint8_t *)buf + i * MODEL_SECTOR,
                        op->offset / MODEL_SECTOR + i, op->id, m->seed);
        }
    }
}

void model_op_end(ModelDisk *m, ModelOp *op, uint64_t now, bool ok)
{
    if (!op->record) {
        return;
    }
    qemu_mutex_lock(&m->lock);
    op->record->end = now;
    op->record->is_weak |= !ok;
    if (ok && op->type == MODEL_FLUSH) {
        g_ptr_array_add(m->flushes, op->record);
    }
    if (!ok && op->type == MODEL_RESIZE) {
        m->size = op->record->old_value;
    }
    qemu_mutex_unlock(&m->lock);
}

/* ---- What is legal ---- */

typedef struct Observer {
    uint64_t from, to;          /* see model-disk.h */
    bool is_crash;
} Observer;

/* Had @v certainly ended before @time, for this observer? */
static uint64_t version_end(const Version *v, const Observer *o)
{
    return o->is_crash ? v->record->end : MIN(v->record->end, v->seen);
}

static bool is_certain(const Version *v, const Observer *o)
{
    const ModelRecord *r = v->record;

    if (r->is_weak && (o->is_crash || v->seen == MODEL_NEVER)) {
        return false;
    }
    return version_end(v, o) < o->from ||
           (o->is_crash && r->fua && r->end < o->to);
}

/* The latest start of what had certainly happened. */
static uint64_t horizon(const Version *list, const Observer *o)
{
    uint64_t latest = 0;
    const Version *v;

    for (v = list; v; v = v->older) {
        if (is_certain(v, o)) {
            latest = MAX(latest, v->record->start);
        }
    }
    return latest;
}

static bool is_legal(const Version *v, const Observer *o, uint64_t horizon)
{
    const ModelRecord *r = v->record;

    return (r->start < o->to || r->end == 0) && version_end(v, o) >= horizon;
}

static Version *find_legal(Version *list, const Observer *o, uint32_t id)
{
    uint64_t limit = horizon(list, o);
    Version *v;

    for (v = list; v; v = v->older) {
        if (v->id == id && is_legal(v, o, limit)) {
            return v;
        }
    }
    return NULL;
}

/* Takes from @sector's bytes that are still unexplained those that @v holds. */
static void explain_bytes(const Version *v, const uint8_t *sector,
                          int64_t number, uint32_t seed, bool *explained)
{
    uint8_t value[MODEL_SECTOR] = { 0 };
    int i;

    if (v->id) {
        model_stamp(value, number, v->id, seed);
    }
    for (i = 0; i < MODEL_SECTOR; i++) {
        explained[i] |= sector[i] == value[i];
    }
}

/* Is @sector a mixture of legal versions, one of them changing meanwhile? */
static bool is_torn_locked(ModelDisk *m, int64_t number, const uint8_t *sector,
                           const Observer *o)
{
    bool explained[MODEL_SECTOR] = { false };
    const Version *list = m->sectors[number];
    uint64_t limit = horizon(list, o);
    bool in_flight = false;
    const Version *v;

    if (!m->may_tear || o->is_crash) {
        return false;
    }
    for (v = list; v; v = v->older) {
        if (is_legal(v, o, limit)) {
            explain_bytes(v, sector, number, m->seed, explained);
            in_flight |= v->record->end >= o->from;
        }
    }
    return in_flight && !memchr(explained, false, sizeof(explained));
}

/* ---- Explaining ---- */

static void describe_value(GString *why, const uint8_t *sector, int64_t number,
                           uint32_t seed)
{
    uint64_t words[3];
    uint32_t id;

    switch (model_stamp_decode(sector, number, seed, &id)) {
    case MODEL_VALUE_ZERO:
        g_string_append(why, "zeroes");
        return;
    case MODEL_VALUE_STAMP:
        g_string_append_printf(why, "write %u", id);
        return;
    case MODEL_VALUE_BAD:
        break;
    }
    memcpy(words, sector, sizeof(words));
    if (words[0] == STAMP_MAGIC) {
        g_string_append_printf(why, "a damaged or misplaced stamp (of write %u"
                               " to sector %" PRIu64 ", seed %u)", id,
                               words[1], (uint32_t)(words[2] >> 32));
    } else {
        g_string_append_printf(why, "foreign data (%016" PRIx64 " …)",
                               words[0]);
    }
}

static void explain(GString *why, const Version *list, const Observer *o)
{
    uint64_t limit = horizon(list, o);
    int n = 0;
    const Version *v;

    g_string_append_printf(why, "; seen from %" PRIu64 " to %" PRIu64
                           ", newest first:", o->from, o->to);
    for (v = list; v && n < 8; v = v->older, n++) {
        static const char *const names[] = {
            "read", "write", "zeroes", "discard", "flush", "size"
        };
        const ModelRecord *r = v->record;

        g_string_append_printf(why, "\n    %s %u [%" PRIu64 ", ",
                               names[r->type], r->id, r->start);
        if (r->end == MODEL_NEVER) {
            g_string_append(why, "…)");
        } else {
            g_string_append_printf(why, "%" PRIu64 "]", r->end);
        }
        g_string_append(why, is_legal(v, o, limit) ? " legal" : " not legal");
    }
}

/* ---- Checks ---- */

static bool check_sector_locked(ModelDisk *m, int64_t number,
                                const uint8_t *sector, const Observer *o,
                                GString *why)
{
    uint32_t id;
    ModelValue value = model_stamp_decode(sector, number, m->seed, &id);
    Version *v = NULL;

    if (value != MODEL_VALUE_BAD) {
        v = find_legal(m->sectors[number], o, id);
    } else if (is_torn_locked(m, number, sector, o)) {
        return true;
    }
    if (!v) {
        g_string_append_printf(why, "sector %" PRId64 " holds ", number);
        describe_value(why, sector, number, m->seed);
        explain(why, m->sectors[number], o);
        return false;
    }
    /* Several writes of zeroes look alike: no proof for one of them. */
    if (!o->is_crash && id) {
        v->seen = MIN(v->seen, o->to);
    }
    return true;
}

static bool check(ModelDisk *m, int64_t offset, int64_t bytes, const void *buf,
                  const Observer *o, GString *why)
{
    const uint8_t *sector = buf;
    bool ok = true;
    int64_t i;

    qemu_mutex_lock(&m->lock);
    for (i = 0; ok && i < bytes / MODEL_SECTOR; i++) {
        ok = check_sector_locked(m, offset / MODEL_SECTOR + i,
                                 sector + i * MODEL_SECTOR, o, why);
    }
    qemu_mutex_unlock(&m->lock);
    return ok;
}

bool model_check_read(ModelDisk *m, const ModelOp *op, uint64_t now,
                      const void *buf, GString *why)
{
    return check(m, op->offset, op->bytes, buf,
                 &(Observer){ op->start, now, false }, why);
}

/* Everything that had ended by then is durable after a crash at @cut. */
static uint64_t durable_at(ModelDisk *m, uint64_t cut)
{
    uint64_t from = 0;
    guint i;

    qemu_mutex_lock(&m->lock);
    for (i = 0; i < m->flushes->len; i++) {
        const ModelRecord *r = g_ptr_array_index(m->flushes, i);

        if (r->end < cut) {
            from = MAX(from, r->start);
        }
    }
    qemu_mutex_unlock(&m->lock);
    return from;
}

bool model_check_crash(ModelDisk *m, uint64_t cut, int64_t offset,
                       int64_t bytes, const void *buf, GString *why)
{
    return check(m, offset, bytes, buf,
                 &(Observer){ durable_at(m, cut), cut, true }, why);
}

bool model_check_kill(ModelDisk *m, uint64_t cut, int64_t offset,
                      int64_t bytes, const void *buf, GString *why)
{
    return check(m, offset, bytes, buf, &(Observer){ cut, cut, true }, why);
}

bool model_check_crash_size(ModelDisk *m, uint64_t cut, int64_t size,
                            GString *why)
{
    uint64_t from = durable_at(m, cut);
    uint64_t limit = 0;
    bool ok = false;
    guint i;

    qemu_mutex_lock(&m->lock);
    for (i = 0; i < m->sizes->len; i++) {
        const ModelRecord *r = g_ptr_array_index(m->sizes, i);

        if (r->end < from && !r->is_weak) {
            limit = MAX(limit, r->start);
        }
    }
    for (i = 0; i < m->sizes->len; i++) {
        const ModelRecord *r = g_ptr_array_index(m->sizes, i);

        ok |= r->value == size && (r->start < cut || r->end == 0) &&
              r->end >= limit;
    }
    qemu_mutex_unlock(&m->lock);
    if (!ok) {
        g_string_append_printf(why, "the disk has %" PRId64 " bytes", size);
    }
    return ok;
}

void model_disk_settle(ModelDisk *m, const void *buf)
{
    const ModelRecord *origin;
    uint32_t id;
    int64_t i;

    qemu_mutex_lock(&m->lock);
    forget_locked(m);
    origin = origin_locked(m);
    for (i = 0; i < m->max_size / MODEL_SECTOR; i++) {
        id = 0;
        if (i < m->size / MODEL_SECTOR) {
            model_stamp_decode((const uint8_t *)buf + i * MODEL_SECTOR, i,
                               m->seed, &id);
        }
        push_version_locked(m, i, id, origin);
    }
    qemu_mutex_unlock(&m->lock);
}

/* ---- Random operations ---- */

static const ModelMix usual_mix = {
    .weight = {
        [MODEL_READ] = 30, [MODEL_WRITE] = 50, [MODEL_ZEROES] = 8,
        [MODEL_DISCARD] = 8, [MODEL_FLUSH] = 4,
    },
};

static ModelOpType random_type(GRand *rand, const ModelMix *mix)
{
    unsigned total = 0;
    unsigned dice;
    int t;

    for (t = 0; t < MODEL_OP__MAX; t++) {
        total += mix->weight[t];
    }
    dice = g_rand_int_range(rand, 0, total);
    for (t = 0; dice >= mix->weight[t]; t++) {
        dice -= mix->weight[t];
    }
    return t;
}

static bool mix_is_empty(const ModelMix *mix)
{
    int t;

    for (t = 0; t < MODEL_OP__MAX; t++) {
        if (mix->weight[t]) {
            return false;
        }
    }
    return true;
}

/* Mostly short, sometimes as long as may be. */
static int64_t random_length(GRand *rand, int64_t max_blocks)
{
    int64_t bound = g_rand_int_range(rand, 0, 3) ? MIN(max_blocks, 4) :
                    max_blocks;

    return g_rand_int_range(rand, 1, bound + 1);
}

void model_random_op(ModelDisk *m, GRand *rand, const ModelMix *mix,
                     ModelOp *op)
{
    int64_t align = mix->align ?: MODEL_SECTOR;
    int64_t max_bytes = mix->max_bytes ?: 64 * KiB;
    int64_t unit = mix->unit ?: 64 * KiB;
    int64_t size = model_disk_size(m);
    bool is_hot = mix->hot_bytes && g_rand_boolean(rand);

    *op = (ModelOp){ .type = random_type(rand, mix_is_empty(mix) ? &usual_mix
                                                                 : mix) };
    if (op->type == MODEL_FLUSH) {
        return;
    }
    if (op->type == MODEL_RESIZE) {
        op->offset = g_rand_int_range(rand, 0, m->max_size / unit + 1) * unit;
        return;
    }
    if (size < align) {
        op->type = MODEL_FLUSH;
        return;
    }
    size = is_hot ? MIN(size, mix->hot_bytes) : size;
    if (unit <= max_bytes && unit <= size &&
        g_rand_int_range(rand, 0, 5) == 0) {
        op->offset = g_rand_int_range(rand, 0, size / unit) * unit;
        op->bytes = unit;
        return;
    }
    op->offset = g_rand_int_range(rand, 0, size / align) * align;
    op->bytes = random_length(rand, max_bytes / align) * align;
    op->bytes = MIN(op->bytes, QEMU_ALIGN_DOWN(size - op->offset, align));
}
