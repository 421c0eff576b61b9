/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expect: mutex 'monitor_class' must be acquired before 'leaf_class' */
#include "common.h"

void test(MonitorLock *monitor, LeafLock *leaf);

void test(MonitorLock *monitor, LeafLock *leaf)
{
    leaf_lock(leaf);
    monitor_lock(monitor);
    monitor_unlock(monitor);
    leaf_unlock(leaf);
}
