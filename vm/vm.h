/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running machine in this process: what lodge-vm and `lodge boot` share.
 *
 *	vm_open()        takes a configuration
 *	vm_power_on()   the named steps of vm/lifecycle.c, undone in reverse when one fails; then the guest runs
 *	vm_run()        carries out requests (pause, reset, power-off, what the guest asks for) until the machine ends
 *	vm_close()
 *
 * All on one thread, the owner's. vm_request_stop() may be called from anywhere.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "machine/machine.h"
#include "vm/config.h"
#include "vm/protocol.h"

struct vm;

/* How a machine ended. */
enum vm_end {
	VM_END_NONE,
	VM_END_GUEST_OFF,    /* the guest switched itself off */
	VM_END_STOPPED,	     /* somebody outside asked for it */
	VM_END_DEBUG_EXIT,   /* isa-debug-exit; status is (value << 1) | 1 */
	VM_END_TRIPLE_FAULT, /* only with end_on_guru */
	VM_END_ERROR,	     /* the engine could not go on; only with end_on_guru */
	VM_END_TIMEOUT,
	VM_END_RESET, /* only with end_on_reset */
	VM_END_SAVED, /* it can be resumed */
};

struct vm_options {
	const char *run_dir; /* lock, status and control socket go there; NULL: none of them */
	bool foreground;     /* standard input and output are the user's */
	bool catch_signals;  /* from vm_power_on() on SIGTERM, SIGINT and SIGHUP end the machine in good order */
	bool end_on_guru;    /* otherwise the machine stays for inspection */
	bool end_on_reset;
	bool firmware_log;
	/* A copy of a running machine: descriptors of its state and of the layers of its memory (state/share.c). Taken
	 * over. */
	int copy_fds[8];
	int copy_count;	     /* 0: not a copy */
	uint64_t timeout_ms; /* 0: none */
	const char *gdb;     /* serve gdb: a port on 127.0.0.1 or a path; NULL: not */
	bool gdb_wait;	     /* the CPUs do not start before gdb says so */
	bool trace_exits;
	const char *trace_file; /* of one line an exit; NULL: counts only */
	/* Called on the owner's thread when the CPUs have stopped, before anything is taken apart. May be NULL. */
	void (*ending)(struct vm *v, void *opaque);
	void *opaque;
};

struct vm_outcome {
	enum vm_end end;
	int status;
	char reason[256];
};

/* Takes `c` over. `o` is copied. */
struct vm *vm_open(struct vm_config *c, const struct vm_options *o);
int vm_power_on(struct vm *v, struct err *e);
void vm_run(struct vm *v, struct vm_outcome *out);
void vm_close(struct vm *v);

void vm_request_stop(struct vm *v);

const struct vm_config *vm_config_of(const struct vm *v);
struct pc *vm_pc(struct vm *v);
const char *vm_engine(const struct vm *v, const char **why);
uint16_t vm_console_port(const struct vm *v); /* 0: the console server is off */
/* The screen as a PNG in malloc()ed memory; any thread without the machine lock. */
int vm_screenshot(
	struct vm *v, unsigned screen, uint8_t **png, size_t *len, unsigned *width, unsigned *height, struct err *e);
/* The text screen as lines of UTF-8, NUL-terminated; its length, 0 in graphics modes. Any thread without the machine
 * lock. */
size_t vm_screen_text(struct vm *v, char *buf, size_t size);

/* The counts of trace_exits, if there are any. The CPUs stand still. */
void vm_print_trace(struct vm *v, FILE *f);

const char *vm_state_text(enum vm_state s);

#endif
