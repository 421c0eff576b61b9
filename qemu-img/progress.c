/*
 * Progress of one piece of work, as -p prints it.
 *
 * Any thread reports how far it is; the greatest fraction counts, since
 * several threads report out of order.  The signal handler only sets a flag:
 * the next report prints.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu-img.h"
#include <signal.h>
#include <sys/time.h>
#include "qemu/atomic.h"
#include "block/lock-order.h"

static struct {
    LeafLock lock;
    bool enabled;                           /* constant while work runs */
    double min_percent;
    double percent GUARDED_BY(leaf_class);
    double printed GUARDED_BY(leaf_class);
} progress;

static int print_pending;

static void on_signal(int sig)
{
    qatomic_set(&print_pending, 1);
}

static void print_now(double percent)
{
    printf("    (%3.2f/100%%)\r", percent);
    fflush(stdout);
}

void img_progress_init(bool show, double min_percent)
{
    leaf_init(&progress.lock);
    progress.enabled = show;
    progress.min_percent = min_percent;
    leaf_lock(&progress.lock);
    progress.percent = progress.printed = 0;
    if (show) {
        print_now(0);
    }
    leaf_unlock(&progress.lock);
    if (!show) {
        struct sigaction sa = { .sa_handler = on_signal,
                                .sa_flags = SA_RESTART };

        sigfillset(&sa.sa_mask);
        sigaction(SIGUSR1, &sa, NULL);
#ifdef SIGINFO
        sigaction(SIGINFO, &sa, NULL);
#endif
    }
}

void img_progress_set(double fraction)
{
    double percent = MIN(fraction, 1) * 100;

    leaf_lock(&progress.lock);
    progress.percent = MAX(progress.percent, percent);
    if (progress.enabled) {
        if (progress.percent > progress.printed + progress.min_percent ||
            (progress.percent >= 100 && progress.printed < 100)) {
            progress.printed = progress.percent;
            print_now(progress.percent);
        }
    } else if (qatomic_xchg(&print_pending, 0)) {
        error_printf("    (%3.2f/100%%)\n", progress.percent);
    }
    leaf_unlock(&progress.lock);
}

void img_progress_end(void)
{
    if (progress.enabled) {
        printf("\n");
        fflush(stdout);
    }
    leaf_destroy(&progress.lock);
}

void img_progress_finish(bool ok)
{
    if (ok) {
        img_progress_set(1);
    }
    img_progress_end();
}
