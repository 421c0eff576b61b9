/*
 * Changing LUKS's key slots: adding a password and erasing one.
 *
 * A change is made on a copy of the header.  Key material is written first,
 * then the header: what is interrupted in between leaves a slot that does not
 * open, never one that was not meant.  Erasing the material before the header
 * means that a slot which is gone is gone.
 *
 * Without "force", nothing is done that would leave no slot active, as the
 * data would be lost for good, and no active slot is written over.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block-luks-internal.h"

/* The options, with the ids of secrets still to be looked up. */
typedef struct Amend {
    bool activate;
    bool has_slot, has_iter_time;
    int64_t slot;
    uint64_t iter_time;
    char *old_secret, *new_secret;
    char *secret;               /* what unlocks the key; NULL: as opened */
} Amend;

static void amend_clear(Amend *a)
{
    g_free(a->old_secret);
    g_free(a->new_secret);
    g_free(a->secret);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Amend, amend_clear)

static bool has_key(const json_t *options, const char *key)
{
    const json_t *v = json_object_get(options, key);

    return v && !json_is_null(v);
}

static bool take_options(Amend *a, json_t *options, Error **errp)
{
    static const char *const states[] = { "active", "inactive", NULL };
    int state = -1;

    a->has_slot = has_key(options, "keyslot");
    a->has_iter_time = has_key(options, "iter-time");
    a->iter_time = LUKS_DEFAULT_ITER_TIME_MS;
    a->old_secret = opt_take_str(options, "old-secret");
    a->new_secret = opt_take_str(options, "new-secret");
    a->secret = opt_take_str(options, "secret");
    if (!opt_take_enum(options, "state", states, &state, errp) ||
        !opt_take_i64(options, "keyslot", &a->slot, errp) ||
        !opt_take_u64(options, "iter-time", &a->iter_time, errp)) {
        return false;
    }
    if (state < 0) {
        error_setg(errp, "Parameter 'state' is missing");
        return false;
    }
    a->activate = state == 0;
    return true;
}

static bool check_slot_number(const Amend *a, Error **errp)
{
    if (a->has_slot && (a->slot < 0 || a->slot >= LUKS_SLOTS)) {
        error_setg(errp, "Invalid keyslot %" PRIu32 " specified, must be "
                   "between 0 and %d", (uint32_t)a->slot, LUKS_SLOTS - 1);
        return false;
    }
    return true;
}

static int count_active(const LUKSHeader *h)
{
    int n = 0;

    for (int i = 0; i < LUKS_SLOTS; i++) {
        n += h->slots[i].active;
    }
    return n;
}

/* ---- Adding ---- */

/* The slot to fill: the one that is asked for, or the first free one. */
static bool choose_slot(const LUKSHeader *h, const Amend *a, bool force,
                        int *slot, Error **errp)
{
    if (!check_slot_number(a, errp)) {
        return false;
    }
    if (a->has_slot) {
        *slot = a->slot;
        if (h->slots[*slot].active && !force) {
            error_setg(errp, "Refusing to overwrite active keyslot %d - "
                       "please erase it first", *slot);
            return false;
        }
        return true;
    }
    for (*slot = 0; *slot < LUKS_SLOTS; (*slot)++) {
        if (!h->slots[*slot].active) {
            return true;
        }
    }
    error_setg(errp, "Can't add a keyslot - all keyslots are in use");
    return false;
}

static bool unlock_again(const QCryptoBlock *b, const Amend *a,
                         const QCryptoBlockIO *io, SecretBuf *key,
                         Error **errp)
{
    const char *id = a->secret ? a->secret : b->key_secret;
    g_auto(SecretBuf) password = { 0 };

    if (!id) {
        error_setg(errp, "'secret' is required to retrieve the master key");
        return false;
    }
    return qcrypto_secret_lookup(id, &password, errp) &&
           luks_unlock(b->luks, &password, io, key, errp);
}

static bool add_slot(const QCryptoBlock *b, LUKSHeader *h, const Amend *a,
                     const QCryptoBlockIO *io, bool force, Error **errp)
{
    g_auto(SecretBuf) password = { 0 }, key = { 0 };
    int slot;

    if (!a->new_secret) {
        error_setg(errp, "'new-secret' is required to activate a keyslot");
        return false;
    }
    if (a->old_secret) {
        error_setg(errp, "'old-secret' must not be given when activating "
                   "keyslots");
        return false;
    }
    return choose_slot(h, a, force, &slot, errp) &&
           qcrypto_secret_lookup(a->new_secret, &password, errp) &&
           unlock_again(b, a, io, &key, errp) &&
           luks_slot_store(h, slot, &key, &password, a->iter_time, io, errp);
}

/* ---- Erasing ---- */

/* Which of the slots from @first to @last @password opens. */
static bool match_slots(const LUKSHeader *h, int first, int last,
                        const SecretBuf *password, const QCryptoBlockIO *io,
                        bool match[LUKS_SLOTS], Error **errp)
{
    for (int i = first; i <= last; i++) {
        g_auto(SecretBuf) key = { 0 };

        if (!luks_slot_unlock(h, i, password, io, &key, errp)) {
            return false;
        }
        match[i] = key.data;
    }
    return true;
}

/* The slot that a->slot names, which must hold @password if that is given. */
static bool select_slot(const LUKSHeader *h, const Amend *a,
                        const SecretBuf *password, const QCryptoBlockIO *io,
                        bool force, bool erase[LUKS_SLOTS], Error **errp)
{
    int slot = a->slot;

    erase[slot] = true;
    if (password && !match_slots(h, slot, slot, password, io, erase, errp)) {
        return false;
    }
    if (!erase[slot]) {
        error_setg(errp, "Given keyslot %d doesn't contain the given old "
                   "password for erase operation", slot);
        return false;
    }
    if (!force && !h->slots[slot].active) {
        error_setg(errp, "Given keyslot %d is already erased (inactive) ",
                   slot);
        return false;
    }
    if (!force && count_active(h) == 1) {
        error_setg(errp, "Attempt to erase the only active keyslot %d which "
                   "will erase all the data in the image irreversibly - "
                   "refusing operation", slot);
        return false;
    }
    return true;
}

/* All slots that hold @password. */
static bool select_matching(const LUKSHeader *h, const SecretBuf *password,
                            const QCryptoBlockIO *io, bool force,
                            bool erase[LUKS_SLOTS], Error **errp)
{
    int n = 0;

    if (!match_slots(h, 0, LUKS_SLOTS - 1, password, io, erase, errp)) {
        return false;
    }
    for (int i = 0; i < LUKS_SLOTS; i++) {
        n += erase[i];
    }
    if (n == 0) {
        error_setg(errp, "No keyslots match given (old) password for erase "
                   "operation");
        return false;
    }
    if (!force && n == count_active(h)) {
        error_setg(errp, "All the active keyslots match the (old) password "
                   "that was given and erasing them will erase all the data "
                   "in the image irreversibly - refusing operation");
        return false;
    }
    return true;
}

static bool select_slots(const LUKSHeader *h, const Amend *a,
                         const QCryptoBlockIO *io, bool force,
                         bool erase[LUKS_SLOTS], Error **errp)
{
    g_auto(SecretBuf) password = { 0 };

    if (a->old_secret &&
        !qcrypto_secret_lookup(a->old_secret, &password, errp)) {
        return false;
    }
    if (!check_slot_number(a, errp)) {
        return false;
    }
    if (a->has_slot) {
        return select_slot(h, a, a->old_secret ? &password : NULL, io, force,
                           erase, errp);
    }
    if (a->old_secret) {
        return select_matching(h, &password, io, force, erase, errp);
    }
    error_setg(errp, "To erase keyslot(s), either explicit keyslot index or "
               "the password currently contained in them must be given");
    return false;
}

/* *half_done: some may have been erased, whether it fails or not. */
static bool erase_slots(LUKSHeader *h, const Amend *a,
                        const QCryptoBlockIO *io, bool force, bool *half_done,
                        Error **errp)
{
    bool erase[LUKS_SLOTS] = { false };

    if (a->new_secret) {
        error_setg(errp, "'new-secret' must not be given when erasing "
                   "keyslots");
        return false;
    }
    if (a->has_iter_time) {
        error_setg(errp, "'iter-time' must not be given when erasing "
                   "keyslots");
        return false;
    }
    if (!select_slots(h, a, io, force, erase, errp)) {
        return false;
    }
    *half_done = true;
    for (int i = 0; i < LUKS_SLOTS; i++) {
        if (erase[i] && !luks_slot_erase(h, i, io, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Slots that were erased, and one that was half erased, are none, also if the
 * rest failed: or they would be counted as active ones, and the last one that
 * does open would not be known to be the last.
 */
static void keep_erased(QCryptoBlock *b, const LUKSHeader *h,
                        const QCryptoBlockIO *io, Error **errp)
{
    if (luks_header_write(h, io, NULL)) {
        *b->luks = *h;
    } else {
        error_append_hint(errp, "Key slots that do not open any more may be "
                          "shown as active\n");
    }
}

bool luks_amend(QCryptoBlock *b, json_t *options, const QCryptoBlockIO *io,
                bool force, Error **errp)
{
    ERRP_GUARD();
    g_auto(Amend) a = { 0 };
    LUKSHeader h = *b->luks;
    bool half_done = false;

    if (!take_options(&a, options, errp)) {
        return false;
    }
    if (a.activate) {
        if (!add_slot(b, &h, &a, io, force, errp) ||
            !luks_header_write(&h, io, errp)) {
            return false;
        }
    } else if (!erase_slots(&h, &a, io, force, &half_done, errp) ||
               !luks_header_write(&h, io, errp)) {
        if (half_done) {
            keep_erased(b, &h, io, errp);
        }
        return false;
    }
    *b->luks = h;
    return true;
}
