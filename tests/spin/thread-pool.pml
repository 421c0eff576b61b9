/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Idle workers that are woken or leave, while work is submitted:
 * util/thread-pool.c.
 *
 * An atomic block is a critical section of the pool's lock.  Items that stay in
 * the queue leave the user waiting, which spin reports as an invalid end state.
 * An idle worker's time may be over at any moment.
 *
 * Variants that spin must find wrong:
 *
 *   LEAVE_LATE     a worker that leaves counts as a thread until it has left
 *   LEAVE_BLINDLY  a worker whose time is over does not see that it was woken
 *   KEEP_COMING    a worker that was woken counts as on its way for ever
 */
#ifndef MAX
#define MAX 1
#endif
#define SUBMITTERS 2
#define ITEMS      2            /* of each submitter */
#define WORKERS    (SUBMITTERS * ITEMS)

byte queued, coming, threads, n_idle, leaving, ran, started;
bit idle[WORKERS];

/* Most recently idle first is of no importance here: any. */
inline serve_backlog()
{
    do
    :: queued <= coming || threads - n_idle >= MAX -> break
    :: else ->
        if
        :: n_idle > 0 ->
            w = 0;
            do
            :: w < WORKERS && !idle[w] -> w++
            :: else -> break
            od;
            idle[w] = 0;
            n_idle--;
            coming++
        :: else ->
            run worker(started);
            started++;
            threads++;
            coming++
        fi
    od;
    w = 0
}

proctype worker(byte me)
{
    atomic { coming-- };
look:
    if
    :: atomic { queued > 0 -> queued-- };
       atomic { ran++ };                                /* runs the item */
       goto look
    :: atomic { queued == 0 -> idle[me] = 1; n_idle++ }
    fi;
    if
#ifdef KEEP_COMING
    :: atomic { !idle[me] -> skip }; goto look
#else
    :: atomic { !idle[me] -> coming-- }; goto look      /* woken */
#endif
#ifdef LEAVE_BLINDLY
    :: atomic { n_idle = n_idle - idle[me]; coming = coming - !idle[me];
                idle[me] = 0; threads--; leaving++ }
#else
    :: atomic { idle[me] -> idle[me] = 0; n_idle--;     /* time is over */
#ifndef LEAVE_LATE
                threads--;
#endif
                leaving++ }
#endif
    fi;
    /* joins who left before */
    atomic { leaving--;
#ifdef LEAVE_LATE
             threads--
#endif
    }
}

proctype submitter()
{
    byte i, w;

    for (i : 1 .. ITEMS) {
        atomic { queued++; serve_backlog() }
    }
}

active proctype user()
{
    byte i;

    for (i : 1 .. SUBMITTERS) {
        run submitter()
    }
    ran == SUBMITTERS * ITEMS;
    /* thread_pool_free() */
    threads + leaving == 0;
    assert(queued == 0 && coming == 0 && n_idle == 0)
}
