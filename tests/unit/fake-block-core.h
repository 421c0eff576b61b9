/*
 * As much of the block core as tests of the file driver's own parts need: a
 * node without a graph, and requests that go straight to the driver.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TESTS_FAKE_BLOCK_CORE_H
#define TESTS_FAKE_BLOCK_CORE_H

#include "block/block-driver.h"
#include "../../block/file-posix.h"

/* How a request went. */
typedef struct FakeRequest {
    BdrvTrackedRequest req;
    QEMUIOVector qiov;
    bool done;
    bool was_inline;
    bool was_worker;
} FakeRequest;

extern BlockDriver bdrv_file, bdrv_host_device;

/*
 * Open @filename with the "file" driver; @options (JSON text, may be NULL) in
 * addition.  NULL with @errp.
 */
BlockDriverState *fake_open(const char *filename, const char *options,
                            int flags, Error **errp);
void fake_close(BlockDriverState *bs);
bool fake_reopen(BlockDriverState *bs, int flags, Error **errp);

/* A request of one buffer.  @fr need not be initialised. */
void fake_submit(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
                 BdrvRequestType type, int flags, int64_t offset, void *buf,
                 int64_t bytes);
/* The same with fr->qiov, made by the caller. */
void fake_submit_qiov(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
                      BdrvRequestType type, int flags, int64_t offset);
/* Run the loop until @fr is done; its result. */
int fake_wait(FakeRequest *fr);
/* fake_submit and fake_wait. */
int fake_run(BlockDriverState *bs, AioContext *ctx, FakeRequest *fr,
             BdrvRequestType type, int flags, int64_t offset, void *buf,
             int64_t bytes);

/* The driver's blocking functions, one buffer. */
int fake_pread(BlockDriverState *bs, int64_t offset, void *buf, int64_t bytes);
int fake_pwrite(BlockDriverState *bs, int64_t offset, const void *buf,
                int64_t bytes, int flags);

static inline FileState *fake_state(BlockDriverState *bs)
{
    return bs->opaque;
}

/* A directory on a disk (in /var/tmp if TMPDIR is in memory; in memory, too, if
 * there is no other), and one in memory, or NULL; removed by fake_cleanup(). */
const char *fake_dir_on_disk(void);
/* Skips the test if that is in memory, where all is done inline. */
bool fake_skip_without_disk(void);
const char *fake_dir_in_memory(void);
/* A new file of @size bytes of pattern in @dir; to be freed. */
char *fake_file(const char *dir, const char *name, int64_t size);
/* The same, out of the page cache. */
char *fake_file_uncached(const char *dir, const char *name, int64_t size);
/* Page-aligned memory, filled with @pattern; free(). */
void *fake_buf(size_t size, int pattern);
bool fake_is_filled(const void *buf, int pattern, size_t size);
/* Can files of @dir be opened with O_DIRECT?  Skips the test if not. */
bool fake_skip_without_direct(const char *dir);

/* g_test_init, a bound on the whole run, g_test_run, cleaning up. */
void fake_init(int *argc, char ***argv);
int fake_finish(void);

#endif
