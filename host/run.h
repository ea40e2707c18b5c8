/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What run.c, control.c and config.c have among themselves.
 */
#ifndef HOST_RUN_H
#define HOST_RUN_H

#include <jansson.h>

#define STOP_LOOK_MS 50 /* how often who waits looks whether it is to stop */

#include "host/host.h"

/* The document of vm/protocol.h for this machine. */
json_t *config_json(struct host *h, const struct host_vm *vm, struct err *e);

/* The engine to ask for: the environment, then the machine's extra data, then the host's. uuid may be NULL. free() it.
 */
char *engine_name(struct host *h, const char *uuid, struct err *e);
/* Is the machine's own lock held, whoever may be starting it? */
bool vm_process_alive(struct host *h, const char *uuid);
/* Keep others from starting the machine; a descriptor to close, -1 when someone else does (no *e). */
int vm_take_start_lock(struct host *h, const char *uuid);
/* Start a copy of a running machine: `fds` are its state and memory. */
int vm_start_copy(struct host *h, const char *uuid, const char *engine, const int *fds, int fd_count, struct err *e);
/* A connection for several requests, which its end means something to; close() it. -1 and *e. */
int vm_line_open(struct host *h, const struct host_vm *vm, struct err *e);
/* As vm_call(), over such a connection. `ms`: what the request itself may take. */
json_t *vm_line_call(int fd, const struct host_vm *vm, const char *method, json_t *params, uint64_t ms, struct err *e);
/* As vm_call_long(); descriptors that come with the answer, at most 8, are the caller's to close. */
json_t *vm_call_fds(struct host *h, const struct host_vm *vm, const char *method, json_t *params,
	const struct host_progress *p, int fds[8], int *fd_count, struct err *e);
/* The guest properties that a machine begins with; NULL and *e. (guestprop.c) */
json_t *guestprop_config(struct host *h, const struct host_vm *vm, struct err *e);
/* A saved machine's hardware has to stay as its guest knows it. */
int vm_check_mutable(const struct host_vm *vm, struct err *e);
/* The state as it is when nobody starts the machine or works on it. */
void vm_resolve_resting(struct host *h, struct host_vm *vm);
/* An error object of the protocol as ours; -1. */
int protocol_error(json_t *error, struct err *e);

#endif
