/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A state that a driver lock guards, as drivers have it.
 */
#ifndef TSA_COMMON_H
#define TSA_COMMON_H

#include "block/lock-order.h"

typedef struct State {
    DriverLock lock;
    QemuCond cond;
    int value GUARDED_BY(driver_class);
} State;

void use(int value);
int add_locked(State *s, int n) REQUIRES(driver_class);
void submit(State *s) EXCLUDES(driver_class);

#endif
