/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs of the monitor: so far there is one kind, blockdev-create.
 *
 * Making an image changes the graph, which only the control thread may do, so
 * the job runs there: once its command has been answered, and in one go.  The
 * states in between are told as events, as for a job that takes its time.
 */
#include "qemu/osdep.h"
#include "daemon.h"
#include "qemu/cutils.h"
#include "qemu/options.h"

typedef struct Job {
    Daemon *d;
    QEMUBH *bh;
    char *id;
    const char *status;
    json_t *options;            /* until it runs */
    Error *err;
    bool finished;
} Job;

static void set_status(Job *job, const char *status)
{
    job->status = status;
    daemon_event(job->d, "JOB_STATUS_CHANGE",
                 json_pack("{s:s, s:s}", "id", job->id, "status", status));
}

static Job *find_job(Daemon *d, const char *id)
{
    for (guint i = 0; i < d->jobs->len; i++) {
        Job *job = g_ptr_array_index(d->jobs, i);

        if (g_str_equal(job->id, id)) {
            return job;
        }
    }
    return NULL;
}

static void free_job(Job *job)
{
    qemu_bh_delete(job->bh);
    json_decref(job->options);
    error_free(job->err);
    g_free(job->id);
    g_free(job);
}

static void run_job(void *opaque)
{
    Job *job = opaque;

    if (bdrv_blockdev_create(job->d->graph, g_steal_pointer(&job->options),
                             &job->err)) {
        set_status(job, "waiting");
        set_status(job, "pending");
    } else {
        set_status(job, "aborting");
    }
    job->finished = true;
    set_status(job, "concluded");
}

bool daemon_create_job(Daemon *d, const char *id, json_t *options,
                       Error **errp)
{
    Job *job;

    if (!bdrv_blockdev_create_check(options, errp)) {
        return false;
    }
    if (!id_wellformed(id)) {
        error_setg(errp, "Invalid job ID '%s'", id);
        return false;
    }
    if (find_job(d, id)) {
        error_setg(errp, "Job ID '%s' already in use", id);
        return false;
    }
    job = g_new0(Job, 1);
    job->d = d;
    job->id = g_strdup(id);
    /* Its own: what is taken out of it is not the command's to lose. */
    job->options = json_deep_copy(options);
    job->bh = aio_bh_new(d->ctx, run_job, job, "blockdev-create");
    g_ptr_array_add(d->jobs, job);
    set_status(job, "created");
    set_status(job, "running");
    qemu_bh_schedule(job->bh);
    return true;
}

json_t *daemon_query_jobs(Daemon *d)
{
    json_t *list = json_array();

    for (guint i = d->jobs->len; i > 0; i--) {
        Job *job = g_ptr_array_index(d->jobs, i - 1);
        json_t *info = json_pack("{s:s, s:s, s:s, s:i, s:i}", "id", job->id,
                                 "type", "create", "status", job->status,
                                 "current-progress", (int)job->finished,
                                 "total-progress", 1);

        if (job->err) {
            opt_set_str(info, "error", error_get_pretty(job->err));
        }
        json_array_append_new(list, info);
    }
    return list;
}

bool daemon_dismiss_job(Daemon *d, const char *id, Error **errp)
{
    Job *job = find_job(d, id);

    if (!job) {
        error_setg(errp, "Job not found");
        return false;
    }
    if (!job->finished) {
        error_setg(errp, "Job '%s' in state '%s' cannot accept command verb "
                   "'dismiss'", id, job->status);
        return false;
    }
    set_status(job, "null");
    g_ptr_array_remove(d->jobs, job);
    free_job(job);
    return true;
}

void daemon_free_jobs(Daemon *d)
{
    for (guint i = 0; i < d->jobs->len; i++) {
        free_job(g_ptr_array_index(d->jobs, i));
    }
    g_ptr_array_unref(d->jobs);
}
