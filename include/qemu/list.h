/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intrusive doubly linked lists.
 *
 * A list is a ring through the head.  Every operation is O(1), removing needs
 * no head, and a node that is on no list points at itself, so "is it linked?"
 * is a question one can ask the node.  That costs one rule: initialise a node
 * (list_node_init, or the zeroed memory it came from, which counts as
 * unlinked) before asking.
 *
 * Nothing here locks.  The lock that guards a list guards the links of the
 * nodes on it, too.
 */
#ifndef QEMU_LIST_H
#define QEMU_LIST_H

#include <stdbool.h>
#include "qemu/compiler.h"

typedef struct ListNode {
    struct ListNode *next;
    struct ListNode *prev;
} ListNode;

typedef struct List {
    ListNode head;
} List;

/* For static and automatic lists: List l = LIST_INITIALIZER(l); */
#define LIST_INITIALIZER(l) { { &(l).head, &(l).head } }

/* Make @l an empty list. */
static inline void list_init(List *l)
{
    l->head.next = l->head.prev = &l->head;
}

/* Make @n a node that is on no list. */
static inline void list_node_init(ListNode *n)
{
    n->next = n->prev = n;
}

/* Whether @n is on a list.  A zeroed node is on none. */
static inline bool list_node_linked(const ListNode *n)
{
    return n->next && n->next != n;
}

static inline bool list_is_empty(const List *l)
{
    return l->head.next == &l->head;
}

/* Put @n, which is on no list, before @pos, a node on one. */
static inline void list_insert_before(ListNode *pos, ListNode *n)
{
    n->prev = pos->prev;
    n->next = pos;
    pos->prev->next = n;
    pos->prev = n;
}

/* Put @n, which is on no list, after @pos, a node on one. */
static inline void list_insert_after(ListNode *pos, ListNode *n)
{
    list_insert_before(pos->next, n);
}

static inline void list_push_back(List *l, ListNode *n)
{
    list_insert_before(&l->head, n);
}

static inline void list_push_front(List *l, ListNode *n)
{
    list_insert_before(l->head.next, n);
}

/* Take @n off its list; it may be on none.  It is on none afterwards. */
static inline void list_remove(ListNode *n)
{
    if (list_node_linked(n)) {
        n->prev->next = n->next;
        n->next->prev = n->prev;
    }
    list_node_init(n);
}

/* The first node, taken off the list; NULL from an empty one. */
static inline ListNode *list_pop_front_node(List *l)
{
    ListNode *n = l->head.next;

    if (n == &l->head) {
        return NULL;
    }
    list_remove(n);
    return n;
}

/* Append all of @from, in order, to @to and leave @from empty. */
static inline void list_splice_back(List *to, List *from)
{
    if (list_is_empty(from)) {
        return;
    }
    from->head.next->prev = to->head.prev;
    from->head.prev->next = &to->head;
    to->head.prev->next = from->head.next;
    to->head.prev = from->head.prev;
    list_init(from);
}

/* The struct of @type that @node is the @member of. */
#define list_entry(node, type, member) container_of(node, type, member)

/* First, last, next entry; NULL where there is none. */
#define list_first(list, type, member)                                       \
    (list_is_empty(list) ? NULL :                                            \
     list_entry((list)->head.next, type, member))
#define list_last(list, type, member)                                        \
    (list_is_empty(list) ? NULL :                                            \
     list_entry((list)->head.prev, type, member))
#define list_next(list, entry, member)                                       \
    ((entry)->member.next == &(list)->head ? NULL :                          \
     list_entry((entry)->member.next, __typeof__(*(entry)), member))

/* First entry, taken off the list; NULL from an empty one. */
#define list_pop_front(list, type, member) ({                                \
    ListNode *list_n_ = list_pop_front_node(list);                           \
    list_n_ ? list_entry(list_n_, type, member) : NULL; })

#define list_entry_or_end_(var, node, member)                                \
    list_entry(node, __typeof__(*(var)), member)

/*
 * Loop over the entries with @var, a pointer to their type.  The body must not
 * remove @var; list_for_each_safe (whose @tmp is another such pointer) allows
 * just that, but not the removal of the entry after it.
 */
#define list_for_each(var, list, member)                                     \
    for ((var) = list_entry_or_end_(var, (list)->head.next, member);         \
         &(var)->member != &(list)->head;                                    \
         (var) = list_entry_or_end_(var, (var)->member.next, member))

#define list_for_each_safe(var, tmp, list, member)                           \
    for ((var) = list_entry_or_end_(var, (list)->head.next, member),         \
         (tmp) = list_entry_or_end_(var, (var)->member.next, member);        \
         &(var)->member != &(list)->head;                                    \
         (var) = (tmp),                                                      \
         (tmp) = list_entry_or_end_(var, (var)->member.next, member))

#endif
