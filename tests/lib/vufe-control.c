/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The messages of a running device: configuration space, status, reset, dirty
 * log.  Declared in vhost-user-frontend.h.
 */
#include "vhost-user-frontend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int vufe_get_config(VufeFrontend *fe, uint32_t offset, void *buf, uint32_t len)
{
    VufeMsg msg = { .request = VUFE_GET_CONFIG, .size = VUFE_CONFIG_HDR + len };
    int ret;

    if (len > VUFE_CONFIG_MAX) {
        return vufe_fail(&fe->conn, -EINVAL, "%u bytes of config", len);
    }
    msg.p.config.offset = offset;
    msg.p.config.size = len;
    ret = vufe_query(&fe->conn, &msg, 0);
    if (ret < 0) {
        return ret;
    }
    vufe_msg_close_fds(&msg);
    /* A payload of length 0 is how a back end says no. */
    if (msg.size < VUFE_CONFIG_HDR + len || msg.p.config.size != len) {
        return vufe_fail(&fe->conn, -EREMOTEIO, "config [%u, +%u)", offset,
                         len);
    }
    memcpy(buf, (uint8_t *)&msg.p + VUFE_CONFIG_HDR, len);
    return 0;
}

int vufe_set_config(VufeFrontend *fe, uint32_t offset, const void *buf,
                    uint32_t len, uint32_t flags)
{
    VufeMsg msg = { .request = VUFE_SET_CONFIG, .size = VUFE_CONFIG_HDR + len };

    if (len > VUFE_CONFIG_MAX) {
        return vufe_fail(&fe->conn, -EINVAL, "%u bytes of config", len);
    }
    msg.p.config.offset = offset;
    msg.p.config.size = len;
    msg.p.config.flags = flags;
    memcpy((uint8_t *)&msg.p + VUFE_CONFIG_HDR, buf, len);
    return vufe_call(&fe->conn, &msg);
}

int vufe_set_status(VufeFrontend *fe, uint8_t status)
{
    return vufe_call_u64(&fe->conn, VUFE_SET_STATUS, status);
}

int vufe_get_status(VufeFrontend *fe, uint8_t *status)
{
    uint64_t value;
    int ret = vufe_query_u64(&fe->conn, VUFE_GET_STATUS, &value);

    if (ret == 0) {
        *status = value;
    }
    return ret;
}

int vufe_reset_device(VufeFrontend *fe)
{
    unsigned i;
    int ret = vufe_call_empty(&fe->conn, VUFE_RESET_DEVICE);

    for (i = 0; i < fe->num_rings && ret == 0; i++) {
        vufe_ring_reset(&fe->rings[i]);
        fe->base[i] = fe->opts.packed ? 0x80008000u : 0;
    }
    return ret;
}

static int set_logging(VufeFrontend *fe, bool enable)
{
    uint64_t features = fe->features | (enable ? VUFE_BIT(VUFE_F_LOG_ALL) : 0);
    unsigned i;
    int ret = vufe_call_u64(&fe->conn, VUFE_SET_FEATURES, features);

    for (i = 0; i < fe->num_rings && ret == 0; i++) {
        ret = vufe_send_vring_addr(fe, i, enable ? 1 : 0);
    }
    return ret;
}

int vufe_start_log(VufeFrontend *fe, uint64_t size, uint8_t **log)
{
    VufeMsg msg = { .request = VUFE_SET_LOG_BASE, .size = sizeof(VufeLogMsg) };
    void *map;
    int fd;
    int ret;

    if (!(fe->protocol & VUFE_BIT(VUFE_P_LOG_SHMFD)) ||
        !(fe->features_offered & VUFE_BIT(VUFE_F_LOG_ALL))) {
        return vufe_fail(&fe->conn, -ENOTSUP, "back end has no dirty log");
    }
    fd = memfd_create("vufe-log", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, size) < 0) {
        ret = vufe_fail(&fe->conn, -errno, "log of %zu bytes", (size_t)size);
        goto out;
    }
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        ret = vufe_fail(&fe->conn, -errno, "mapping the log");
        goto out;
    }
    msg.p.log.mmap_size = size;
    msg.fds[msg.num_fds++] = fd;
    /* With LOG_SHMFD this request has a reply of its own. */
    ret = vufe_query(&fe->conn, &msg, 0);
    if (ret == 0) {
        vufe_msg_close_fds(&msg);
        ret = set_logging(fe, true);
    }
    if (ret == 0) {
        *log = map;
    } else {
        munmap(map, size);
    }
out:
    if (fd >= 0) {
        close(fd);
    }
    return ret;
}

int vufe_stop_log(VufeFrontend *fe)
{
    return set_logging(fe, false);
}
