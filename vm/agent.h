/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the guest agent's channel: one conversation with one program in the guest, for many askers.
 *
 * It knows no machine: bytes come in through agent_receive() and go out through `write`, answers through `answer`. All
 * of it runs under the machine lock.
 */
#ifndef VM_AGENT_H
#define VM_AGENT_H

#include "vm/private.h"

#define AGENT_LINE_MAX (4u << 20)  /* bytes of one answer */
#define AGENT_QUEUE_MAX 64	   /* requests that wait, of all askers */
#define AGENT_TIMEOUT_MS 10000	   /* of a request that names none */
#define AGENT_TIMEOUT_MAX 3600000u /* ms */
#define AGENT_LEFTOVERS_MAX 16	   /* requests that an asker leaves behind for when it is gone */

struct agent;

struct agent_wires {
	/* As virtio_serial_write(): how many bytes the guest had room for; agent_writable() when there is more. */
	size_t (*write)(void *opaque, const void *bytes, size_t n);
	/* To who asked. Takes `result` over; NULL: *e says why not. May call agent_asker_gone(). */
	void (*answer)(void *opaque, struct vm_asker *a, json_t *result, const struct err *e);
	void *opaque;
};

struct agent *agent_create(struct loop *l, const char *who, const struct agent_wires *w);
void agent_destroy(struct agent *a); /* NULL: nothing; nobody is answered */

/* From the channel, as struct virtio_port_user has it. */
void agent_opened(struct agent *a, bool open);
size_t agent_receive(struct agent *a, const uint8_t *bytes, size_t n);
void agent_writable(struct agent *a);

/*
 * "agent.call" and "agent.wait" of vm/protocol.h. 0: `answer` is called later; -1 and *e: it cannot be done. The
 * asker's id is taken over with 0.
 */
int agent_call(struct agent *a, struct vm_asker asker, const json_t *params, struct err *e);
int agent_wait(struct agent *a, struct vm_asker asker, const json_t *params, struct err *e);
/* A request of our own: done() gets its "return", or NULL; at most once, not after agent_destroy(). `arguments`: taken
 * over. */
void agent_ask(struct agent *a, const char *execute, json_t *arguments, void (*done)(void *opaque, json_t *back),
	void *opaque);
/* "agent.onclose". */
int agent_onclose(struct agent *a, uint64_t client, const json_t *params, struct err *e);
/* The connection has ended: what it waits for is dropped, what it left behind is sent. */
void agent_asker_gone(struct agent *a, uint64_t client);

bool agent_is_open(const struct agent *a);
bool agent_in_sync(const struct agent *a);
uint64_t agent_events(const struct agent *a);

#endif
