/*
 * Random bytes from the system.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "crypto/hash.h"

#ifdef _WIN32
#include <bcrypt.h>

bool qcrypto_random_bytes(void *buf, size_t size, Error **errp)
{
    if (BCryptGenRandom(NULL, buf, size,
                        BCRYPT_USE_SYSTEM_PREFERRED_RNG) != 0) {
        error_setg(errp, "Unable to read random bytes");
        return false;
    }
    return true;
}
#else
#include <sys/random.h>

bool qcrypto_random_bytes(void *buf, size_t size, Error **errp)
{
    uint8_t *p = buf;

    while (size) {
        ssize_t got = RETRY_ON_EINTR(getrandom(p, size, 0));

        if (got < 0) {
            error_setg_errno(errp, errno, "Unable to read random bytes");
            return false;
        }
        p += got;
        size -= got;
    }
    return true;
}
#endif
