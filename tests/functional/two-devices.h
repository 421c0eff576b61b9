/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon with two devices, for tests that attack one of them.
 *
 * Device A is attacked, device B has an honest front end all the time.  Both
 * are raw files, with two queues each, and all their queues are served by the
 * same iothread: whatever holds up A's requests would hold up B's.
 */
#ifndef TESTS_TWO_DEVICES_H
#define TESTS_TWO_DEVICES_H

#include "daemon-proc.h"
#include "vufe-blk.h"

#define WAIT_MS 10000
#define REFUSED (-EREMOTEIO)
#define SECTOR 512
#define DISK_SIZE (4 << 20)
#define DISK_SECTORS (DISK_SIZE / SECTOR)

typedef struct TwoDevices {
    DaemonProc *d;
    char *a, *b;            /* sockets */
    char *image_a;
    VufeFrontend *fe_b;
    unsigned fds;           /* of the daemon, while A is only connected to */
    uint8_t round;          /* differs in the data of each check */
} TwoDevices;

TwoDevices *two_devices_new(const char *program);
/* Ends the daemon, which has to go without complaints. */
void two_devices_free(TwoDevices *t);

/* Write through @fe and read that back; the test fails if it cannot. */
void two_devices_check_io(TwoDevices *t, VufeFrontend *fe);
/* Is the daemon alive, and does B work? */
void two_devices_check_b(TwoDevices *t);
/* After A was hung up on: does everything work, and has nothing leaked? */
void two_devices_check(TwoDevices *t);

#endif
