/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disks of a command line: which are virtio-blk, and which block nodes
 * they stand on.
 */
#ifndef SYSTEM_DRIVES_H
#define SYSTEM_DRIVES_H

#include "cmdline.h"

/* A virtio-blk disk, which the storage daemon is to serve. */
typedef struct Disk {
    CmdOption *device;       /* its -device; NULL: made by -drive if=virtio */
    CmdOption *drive;        /* its -drive; NULL: a -blockdev node */
    json_t *props;           /* the device's properties, flat; "driver" too */
    char *node_name;         /* of its root node */
    char *id;                /* of the drive or node; unique with index */
} Disk;

/* A node that a -blockdev or a -drive defines. */
typedef struct Node {
    CmdOption *opt;
    char *name;
    json_t *opts;            /* what it says; children refer to it by name */
    Disk *disk;              /* a disk that stands on it; NULL: none */
} Node;

typedef struct Drives {
    GPtrArray *disks;        /* of Disk *; the order of the devices */
    GPtrArray *nodes;        /* of Node *; -blockdev, in order */
} Drives;

/*
 * Find the virtio-blk disks of @cmd and what they need.  Fails with a message
 * that names the option if one cannot be served as it is written, or if a node
 * is needed by the daemon and the emulator both.  The options of the disks are
 * marked as removed; nothing else changes in @cmd.
 */
Drives *drives_new(CmdLine *cmd, Error **errp);
void drives_free(Drives *drives);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Drives, drives_free)

/* A virtio-blk device of any bus; in *@suffix (may be NULL) what follows
 * "virtio-blk" in the name of its type. */
bool is_virtio_blk(const char *driver, const char **suffix);

/* Whether @cmd has one at all. */
bool cmdline_has_virtio_disk(const CmdLine *cmd);

#endif
