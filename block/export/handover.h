/*
 * An export that hands its image over to another process, or gets it from one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef BLOCK_EXPORT_HANDOVER_H
#define BLOCK_EXPORT_HANDOVER_H

#include "block/export.h"

typedef struct ExportHandover ExportHandover;

/* Control thread.  @exp->incoming says whether it begins inactive. */
ExportHandover *export_handover_new(BlockExport *exp);
/* Control thread: nobody will wait for it any more; calls below fail. */
void export_handover_stop(ExportHandover *h);
/* Control thread: nobody will call it any more. */
void export_handover_free(ExportHandover *h);

/*
 * One thread, not the control thread; blocks until that one has done it.
 *
 * Take the image: true at once if we have it.  False with @errp if somebody
 * else has, or it cannot be read; then trying again does no harm.
 */
bool export_handover_activate(ExportHandover *h, Error **errp);
/*
 * Give it away: when it returns, all is on stable storage, and others may have
 * the image.  Where that fails we keep it, and say so.  No request may be under
 * way.
 */
void export_handover_inactivate(ExportHandover *h);

#endif
