/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg.h - the port through which firmware reads what the machine wants to tell it.
 */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include "devices/device.h"

/* Numbers of items that have no name. */
#define FW_CFG_CPUS	0x05
#define FW_CFG_MAX_CPUS 0x0f
#define FW_CFG_NAME_MAX 55

must_check int fw_cfg_create(struct machine_services *s, struct device **out);
/*
 * One more item, copied, by its number or by its name (a literal of at most FW_CFG_NAME_MAX bytes).
 * Before the guest runs.  0, -ENOMEM, -ENOSPC.
 */
must_check int fw_cfg_add(struct device *d, unsigned key, const void *data, uint32_t len);
must_check int fw_cfg_add_file(struct device *d, const char *name, const void *data, uint32_t len);

#endif
