/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking into a machine while it runs: a server for gdb's remote serial protocol, and the text of what there is to
 * know about CPUs and devices.
 *
 *	packet.c   framing of the remote serial protocol
 *	regs.c     the registers by name and number; the target description
 *	gdb.c      the server: one client, its commands, stopping and resuming
 *	monitor.c  what gdb's "monitor" command can do
 *	info.c     views as text, for the monitor and for VBoxManage debugvm
 *	linux.c    a Linux guest's version and log
 *	core.c     the machine as an ELF core file
 *
 * Whoever owns the machine gives a struct debug_ops: this layer does not know how a machine is paused.
 */
#ifndef DEBUG_DEBUG_H
#define DEBUG_DEBUG_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "cpu/cpu.h"
#include "cpu/debug.h"

struct debug_ops {
	/* All CPUs are parked when hold() returns and stay so until release(). Any thread but the CPUs' and the loop's;
	 * machine lock not held. */
	void (*hold)(void *opaque);
	void (*release)(void *opaque);
	/* Power-on state. While held. 0, or -1 and *e. */
	int (*reset)(void *opaque, struct err *e);
	/* End the machine soon. */
	void (*quit)(void *opaque);
};

/* ---- gdb.c ---- */

struct gdb;

/*
 * Listen: `where` is a port (on 127.0.0.1), or a path for a unix socket (mode 0600; what was there is replaced if
 * nobody listens on it). `wait`: the CPUs do not start before a client says so. NULL and *e on failure.
 */
struct gdb *gdb_open(
	const char *where, struct cpus *c, const struct debug_ops *ops, void *opaque, bool wait, struct err *e);
/* Serve, on a thread of its own. With `wait` the machine has to be held before its CPUs start. */
int gdb_start(struct gdb *g, struct err *e);
/* The client is told that the machine is gone; the thread ends. NULL: nothing. */
void gdb_close(struct gdb *g);
unsigned gdb_port(const struct gdb *g); /* 0: a unix socket */
/* Handle one client on a descriptor until it leaves, on the caller's thread; for tests. */
void gdb_serve(struct gdb *g, int fd);

/* ---- regs.c ---- */

enum reg_result { REG_OK, REG_UNKNOWN, REG_READ_ONLY, REG_REFUSED };

#define REG_BYTES_MAX 32

struct reg_set;
/* The registers that machines of this model have. */
struct reg_set *reg_set_open(const struct cpu_model *m);
void reg_set_close(struct reg_set *s);
int reg_count(const struct reg_set *s);
int reg_find(const struct reg_set *s, const char *name); /* -1; "rflags" is "eflags" */
const char *reg_name(const struct reg_set *s, int n);
unsigned reg_bytes(const struct reg_set *s, int n);
/* Of the CPU that `w` was loaded from; little-endian. Writing changes the CPU's state and reloads `w`. */
void reg_read(const struct reg_set *s, int n, struct vcpu *v, uint8_t out[REG_BYTES_MAX]);
enum reg_result reg_write(
	const struct reg_set *s, int n, struct vcpu *v, struct cpu_view *w, const uint8_t in[REG_BYTES_MAX]);
/* "0x..." with all digits. */
void reg_text(const struct reg_set *s, int n, struct vcpu *v, char out[2 * REG_BYTES_MAX + 3]);
/* From such text or a decimal number; false: not a number, or too large. */
bool reg_parse(const struct reg_set *s, int n, const char *text, uint8_t out[REG_BYTES_MAX]);
const char *reg_target_xml(const struct reg_set *s);

/* ---- info.c ---- */

struct debug_info {
	struct cpus *c;
	struct cpu_view *view;
	const struct reg_set *regs;
	int cpu; /* the one that is meant where it matters */
};

/* Print `item` ("cpus", "tlb", "pic", "help" ...) with its arguments ("" if none). The CPUs are parked. False: there is
 * no such item. */
bool debug_info_print(const struct debug_info *d, const char *item, const char *args, FILE *f);
/* The call stack as far as frame pointers or plausible return addresses show it. */
void debug_info_stack(const struct debug_info *d, FILE *f);

/* ---- core.c ---- */

/* Write an ELF core of the machine to the new file `path`. The CPUs are parked. 0, or -1 and *e. */
int debug_core_write(const struct debug_info *d, const char *path, struct err *e);

#endif
