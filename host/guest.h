/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files host/guest*.c have among themselves: a conversation with the guest's agent through the machine's
 * process.
 */
#ifndef HOST_GUEST_H
#define HOST_GUEST_H

#include <jansson.h>

#include "host/inv.h"

struct host_guest {
	struct host *h;
	struct host_vm *vm;
	int fd;
	bool ours; /* the agent is Lodge's */
	uint64_t events;
	char *user, *password;
	uint64_t session;     /* 0: none */
	json_t *leave;	      /* what the agent is to do when this connection ends */
	bool stays;	      /* a program goes on without us */
	char agent_error[32]; /* class of the last error that the agent itself reported; "": none */
};

struct host_guest *guest_connect(struct host *h, const char *vm, struct err *e);

/*
 * One request of the guest agent: its "return" (new reference), or NULL and *e: ERR_GUEST with the agent's words,
 * g->agent_error set, or whatever kept it from answering. `arguments` is taken over; NULL: none.
 */
json_t *guest_ask(struct host_guest *g, const char *execute, json_t *arguments, uint64_t timeout_ms, struct err *e);
/* Until the agent says that something has happened, at most so long. */
int guest_wait(struct host_guest *g, uint64_t timeout_ms, struct err *e);
/* Have the machine's process ask this of the agent when the connection ends; forget what was to be asked. */
void guest_leave(struct host_guest *g, const char *execute, json_t *arguments);
void guest_leave_clear(struct host_guest *g);
/* Ask it now, and forget it: what a program left that this connection ran before. */
void guest_leave_now(struct host_guest *g);
int guest_leave_tell(struct host_guest *g, struct err *e);
json_t *guest_session(struct host_guest *g, const char *what, json_t *params, struct err *e);

/* The text in quotes for a shell. */
void sh_quote(struct str *out, const char *text);

/* A process group in the guest is ended: TERM, two seconds later KILL; then `files` (for the shell) are removed. */
json_t *guest_kill_request(int64_t pid, const char *files);

uint64_t guest_now_ms(void);

#define GUEST_ASK_MS 15000
#define GUEST_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#endif
