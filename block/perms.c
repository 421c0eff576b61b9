/*
 * Permissions: what each parent does to a node, and allows others to do.
 *
 * An edge has a set of what its parent needs and a set of what the parent lets
 * others do at the same time.  A node's edges must agree; what the node needs
 * of its own children follows from what its parents need.  At the bottom, the
 * file driver turns the sums into locks on the host, which exclude other
 * processes in the same way.
 *
 * An update computes the new edges top down, parents before children where
 * there are several ways to a node, checking each node against its other
 * parents and its driver; if one refuses, everything is put back.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error.h"
#include "block-internal.h"

#define PASS_THROUGH (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | \
                      BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)

/* What an update has changed so far, to be undone or made final. */
typedef struct PermUpdate {
    GArray *edges;              /* of OldEdge */
    GPtrArray *checked;         /* nodes whose driver agreed */
} PermUpdate;

typedef struct OldEdge {
    BdrvChild *child;
    uint64_t perm;
    uint64_t shared_perm;
} OldEdge;

static void cumulative(BlockDriverState *bs, uint64_t *perm, uint64_t *shared)
{
    BdrvChild *c;

    *perm = bs->copy_on_read && !(bs->open_flags & BDRV_O_INACTIVE) ?
            BLK_PERM_WRITE_UNCHANGED : 0;
    *shared = BLK_PERM_ALL;
    list_for_each(c, &bs->parents, parent_node) {
        *perm |= c->perm;
        *shared &= c->shared_perm;
    }
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c, int role,
                        uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_FILTERED) {
        *nperm = perm & PASS_THROUGH;
        *nshared = (shared & PASS_THROUGH) | BLK_PERM_WRITE_UNCHANGED;
        return;
    }
    if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
        return;
    }
    if (role & BDRV_CHILD_COW) {
        /* The overlay needs the backing file to stay as it is. */
        *nperm = perm & BLK_PERM_CONSISTENT_READ;
        *nshared = (shared & (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE) ?
                    BLK_PERM_CONSISTENT_READ : 0) | BLK_PERM_WRITE_UNCHANGED;
        return;
    }
    /* An image file: the format is its only writer. */
    *nperm = perm & PASS_THROUGH;
    if (!bs->read_only) {
        *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
    if (!(bs->open_flags & BDRV_O_NO_IO)) {
        *nperm |= BLK_PERM_CONSISTENT_READ;
    }
    *nshared = (shared & PASS_THROUGH & ~BLK_PERM_RESIZE) |
               BLK_PERM_WRITE_UNCHANGED;
    if (!(bs->open_flags & BDRV_O_CHECK)) {
        *nshared &= ~BLK_PERM_WRITE;
    }
}

static const char *perm_names(uint64_t perm, char buf[64])
{
    static const char *const names[] = { "consistent read", "write",
                                         "write unchanged", "resize" };
    size_t i;

    buf[0] = '\0';
    for (i = 0; i < ARRAY_SIZE(names); i++) {
        if (perm & (1u << i)) {
            if (buf[0]) {
                g_strlcat(buf, ", ", 64);
            }
            g_strlcat(buf, names[i], 64);
        }
    }
    return buf;
}

static char *user_of(const BdrvChild *c)
{
    if (c->parent_bs) {
        return g_strdup_printf("node '%s'", c->parent_bs->node_name);
    }
    return *blk_name(c->parent_blk) ?
           g_strdup_printf("block device '%s'", blk_name(c->parent_blk)) :
           g_strdup("an unnamed block device");
}

static bool edges_agree(const BdrvChild *needs, const BdrvChild *shares,
                        Error **errp)
{
    uint64_t missing = needs->perm & ~shares->shared_perm;
    g_autofree char *needs_user = NULL;
    g_autofree char *shares_user = NULL;
    char names[64];

    if (!missing) {
        return true;
    }
    needs_user = user_of(needs);
    shares_user = user_of(shares);
    error_setg(errp, "Permission conflict on node '%s': permissions '%s' are "
               "both required by %s (uses node '%s' as '%s' child) and "
               "unshared by %s (uses node '%s' as '%s' child).",
               needs->bs->node_name, perm_names(missing, names),
               needs_user, needs->bs->node_name, needs->name,
               shares_user, shares->bs->node_name, shares->name);
    return false;
}

static bool parents_agree(BlockDriverState *bs, Error **errp)
{
    BdrvChild *a, *b;

    list_for_each(a, &bs->parents, parent_node) {
        list_for_each(b, &bs->parents, parent_node) {
            if (a != b && !edges_agree(a, b, errp)) {
                return false;
            }
        }
    }
    return true;
}

static void set_edge(PermUpdate *u, BdrvChild *c, uint64_t perm,
                     uint64_t shared)
{
    OldEdge old = { c, c->perm, c->shared_perm };

    g_array_append_val(u->edges, old);
    qatomic_set(&c->perm, perm);        /* requests look at it */
    c->shared_perm = shared;
}

/*
 * Blocks are written whole: where the last one is not all there, a write makes
 * the node longer.
 */
static bool length_allows(BlockDriverState *bs, uint64_t perm, Error **errp)
{
    int64_t len;

    if (!bs->is_open || !(perm & BLK_PERM_WRITE) || (perm & BLK_PERM_RESIZE)) {
        return true;
    }
    len = bdrv_getlength(bs);
    if (len < 0 || QEMU_IS_ALIGNED(len, bs->bl.request_alignment)) {
        return true;
    }
    error_setg(errp, "Cannot get 'write' permission without 'resize': Image "
               "size is not a multiple of request alignment");
    return false;
}

static bool update_node(PermUpdate *u, BlockDriverState *bs, Error **errp)
{
    uint64_t perm, shared;
    BdrvChild *c;

    if (!parents_agree(bs, errp)) {
        return false;
    }
    cumulative(bs, &perm, &shared);
    if ((perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) &&
        bs->read_only) {
        error_setg(errp, "Block node is read-only");
        return false;
    }
    if (!length_allows(bs, perm, errp)) {
        return false;
    }
    if (bs->drv->check_perm && !bs->drv->check_perm(bs, perm, shared, errp)) {
        return false;
    }
    g_ptr_array_add(u->checked, bs);
    list_for_each(c, &bs->children, child_node) {
        uint64_t nperm, nshared;

        if (bs->drv->child_perm) {
            bs->drv->child_perm(bs, c, c->role, perm, shared, &nperm,
                                &nshared);
        } else {
            bdrv_default_perms(bs, c, c->role, perm, shared, &nperm, &nshared);
        }
        if (bs->open_flags & BDRV_O_FORCE_SHARE) {
            nshared = BLK_PERM_ALL;
        }
        set_edge(u, c, nperm, nshared);
    }
    return true;
}

/* @bs and all below it, each after its children. */
static void collect(GPtrArray *order, GHashTable *seen, BlockDriverState *bs)
{
    BdrvChild *c;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    list_for_each(c, &bs->children, child_node) {
        collect(order, seen, c->bs);
    }
    g_ptr_array_add(order, bs);
}

/* Each node once, when all edges from above are as they will be. */
static bool update_below(PermUpdate *u, BlockDriverState *bs, Error **errp)
{
    GPtrArray *order = g_ptr_array_new();
    GHashTable *seen = g_hash_table_new(NULL, NULL);
    bool ok = true;
    guint i;

    collect(order, seen, bs);
    for (i = order->len; ok && i-- > 0; ) {
        ok = update_node(u, order->pdata[i], errp);
    }
    g_hash_table_destroy(seen);
    g_ptr_array_free(order, TRUE);
    return ok;
}

static void commit(PermUpdate *u)
{
    guint i;

    for (i = 0; i < u->checked->len; i++) {
        BlockDriverState *bs = u->checked->pdata[i];
        uint64_t perm, shared;

        cumulative(bs, &perm, &shared);
        if (bs->drv->set_perm) {
            bs->drv->set_perm(bs, perm, shared);
        }
    }
}

static void roll_back(PermUpdate *u)
{
    guint i;

    for (i = u->edges->len; i-- > 0; ) {
        OldEdge *old = &g_array_index(u->edges, OldEdge, i);

        qatomic_set(&old->child->perm, old->perm);
        old->child->shared_perm = old->shared_perm;
    }
    for (i = 0; i < u->checked->len; i++) {
        BlockDriverState *bs = u->checked->pdata[i];

        if (bs->drv->abort_perm_update) {
            bs->drv->abort_perm_update(bs);
        }
    }
}

static bool finish_update(PermUpdate *u, bool ok)
{
    if (ok) {
        commit(u);
    } else {
        roll_back(u);
    }
    g_array_free(u->edges, TRUE);
    g_ptr_array_free(u->checked, TRUE);
    return ok;
}

static PermUpdate start_update(void)
{
    return (PermUpdate){
        .edges = g_array_new(FALSE, FALSE, sizeof(OldEdge)),
        .checked = g_ptr_array_new(),
    };
}

bool bdrv_refresh_perms(BlockDriverState *bs, Error **errp)
{
    PermUpdate u = start_update();

    return finish_update(&u, update_below(&u, bs, errp));
}

bool bdrv_child_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared_perm,
                         Error **errp)
{
    PermUpdate u = start_update();

    set_edge(&u, child, perm, shared_perm);
    return finish_update(&u, update_below(&u, child->bs, errp));
}
