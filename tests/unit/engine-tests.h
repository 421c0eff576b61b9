/*
 * What the submission engines have in common is tested once, for either.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TESTS_ENGINE_TESTS_H
#define TESTS_ENGINE_TESTS_H

#include "fake-block-core.h"

typedef struct EngineTest {
    const char *name;           /* the value of aio= */
    bool (*available)(void);
    void (*get_stats)(AioContext *ctx, FileEngineStats *stats);
} EngineTest;

/* Register them as /@t->name/…. */
void engine_add_tests(const EngineTest *t);

/* A file of @size bytes of 0x5a, opened with the engine and O_DIRECT; NULL
 * (and the test is skipped) if that is not possible here. */
BlockDriverState *engine_open(const EngineTest *t, const char *name,
                              int64_t size);
AioContext *engine_enter(void);
void engine_leave(AioContext *ctx);

#endif
