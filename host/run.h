/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between run.c and config.c.
 */
#ifndef HOST_RUN_H
#define HOST_RUN_H

#include <jansson.h>

#include "host/host.h"

/* The document of vm/protocol.h for this machine. */
json_t *config_json(struct host *h, const struct host_vm *vm, struct err *e);

#endif
