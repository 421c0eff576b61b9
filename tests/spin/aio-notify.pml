/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an event loop goes to sleep and how others wake it: util/async.c.
 *
 * Setters push work, or arm a timer and call aio_notify(); the owner must run
 * all of it.  If a wake-up is lost, the owner sleeps with work left, which spin
 * reports as an invalid end state.
 *
 * Variants that spin must find wrong; the first two act out what a machine may
 * do to a store and a load without a full barrier between them:
 *
 *   NO_OWNER_BARRIER   the look at the work comes before the announcement
 *   NO_SETTER_BARRIER  the look at the announcement comes before the push
 *   NO_SECOND_LOOK     the owner does not look again after announcing
 *   CLEAR_LATE         the notifier is cleared between that look and the sleep
 *   NO_NOTIFIED        aio_notify() rings, but leaves no mark
 */
#define PUSHERS 2
#define PUSHES  2
#define WORK    (PUSHERS * PUSHES + 1)

byte inbox;         /* how much is on the list */
bit timer;          /* next_timer_ns says that one is due */
bit notified;
bit notify_me;
bit notifier;       /* the eventfd */
byte ran;           /* the owner's */

inline wake(seen)
{
    if
    :: seen ->
        d_step { seen = notify_me; notify_me = 0 }      /* exchange */
        if
        :: seen -> notifier = 1
        :: else
        fi
    :: else
    fi
}

proctype pusher()
{
    byte i;
    bit seen;

    for (i : 1 .. PUSHES) {
#ifdef NO_SETTER_BARRIER
        seen = notify_me;
        inbox++;
#else
        inbox++;
        seen = notify_me;
#endif
        wake(seen)
    }
}

proctype timer_setter()
{
    bit seen;

    timer = 1;
#ifdef NO_SETTER_BARRIER
    seen = notify_me;
    notified = 1;
#else
#ifndef NO_NOTIFIED
    notified = 1;
#endif
    seen = notify_me;
#endif
    wake(seen)
}

inline run_pending()
{
    d_step { progress = inbox > 0; ran = ran + inbox; inbox = 0 }
    if
    :: timer -> timer = 0; ran++; progress = 1
    :: else
    fi
}

inline clear_notified()
{
    if
    :: notified -> notified = 0
    :: else
    fi
}

/* What epoll reports is cleared by its handler. */
inline clear_notifier()
{
    if
    :: notifier -> notifier = 0
    :: else
    fi
}

inline look()
{
    awake = inbox > 0;
    awake = awake || notified
}

active proctype owner()
{
    bit progress, awake;
    byte i;

    for (i : 1 .. PUSHERS) {
        run pusher()
    }
    run timer_setter();
    do
    :: ran == WORK -> break
    :: else ->
        run_pending();
        if
        :: progress
        :: else ->
#ifdef NO_OWNER_BARRIER
            look();
            notify_me = 1;
#else
            notify_me = 1;
#ifdef NO_SECOND_LOOK
            awake = 0;
#else
            look();
#endif
#endif
#ifdef CLEAR_LATE
            clear_notifier();
#endif
            if
            :: awake
            :: !awake -> notifier == 1          /* epoll_wait */
            fi;
            notify_me = 0
        fi;
        clear_notifier();
        clear_notified();
        run_pending()
    od
}
