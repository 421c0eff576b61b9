/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thread_pool_yield() and thread_pool_enter(): util/thread-pool.c.
 *
 * An item yields until a condition holds; two others make it hold, each half of
 * it, and enter the item.  The condition is looked at without the pool's lock,
 * as users do.  An atomic block is a critical section of that lock; waiting on
 * the condition variable gives it up.  An item that sleeps for ever is an
 * invalid end state.
 *
 * Variants that spin must find wrong:
 *
 *   NO_PERMIT      enter wakes who waits, and is forgotten if nobody does
 *   CLEAR_FIRST    yield throws away the permit of an earlier enter
 *   ENTER_FIRST    a user's mistake: enters, and then makes the condition hold
 */
byte halves;
bit permit;
bit waiting;        /* on the worker's condition variable */

inline yield()
{
#if defined(NO_PERMIT)
    atomic { waiting = 1 };
    atomic { waiting == 0 }
#else
#if defined(CLEAR_FIRST)
    atomic { permit = 0 };
#endif
    do
    :: atomic { permit -> permit = 0; break }
    :: atomic { !permit -> waiting = 1 };
       atomic { waiting == 0 }
    od
#endif
}

inline enter()
{
    atomic { permit = 1; waiting = 0 }
}

proctype enterer()
{
#ifdef ENTER_FIRST
    enter();
    halves++
#else
    halves++;
    enter()
#endif
}

active proctype item()
{
    run enterer();
    run enterer();
    do
    :: halves == 2 -> break
    :: else -> yield()
    od
}
