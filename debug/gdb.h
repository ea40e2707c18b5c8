/* SPDX-License-Identifier: Apache-2.0 */
/* What gdb.c and monitor.c share. */
#ifndef DEBUG_GDB_H
#define DEBUG_GDB_H

#include <pthread.h>

#include "debug/debug.h"
#include "debug/packet.h"

#define GDB_POINTS_MAX (CPU_DEBUG_BREAKS + CPU_DEBUG_WATCHES)

struct gdb_point {
	gva_t a;
	uint32_t len;
	int type; /* as in Z packets: 0, 1 breakpoints, 2 write, 3 read, 4 access */
};

struct gdb {
	struct cpus *c;
	const struct debug_ops *ops;
	void *opaque;
	int listener, fd, wake, quit; /* wake, quit: eventfds */
	uint16_t port;
	char *path; /* of the unix socket */
	pthread_t thread;
	bool started, running, no_ack, gone, step_irqs;
	bool heard;	 /* something has come from this client */
	bool first_stop; /* nobody has resumed the machine since the client came */
	int cpu, step_cpu;
	struct packet_in in;
	struct str last; /* sent, in case it is asked for again */
	struct reg_set *regs;
	struct cpu_view *view; /* of `cpu` */
	struct gdb_point points[GDB_POINTS_MAX];
	int point_count;
	struct cpu_debug set; /* what the CPUs have */
};

void gdb_reply(struct gdb *g, const char *text);
void gdb_reply_bytes(struct gdb *g, const char *data, size_t len);

/* monitor.c: carry out a line and reply. */
void gdb_monitor(struct gdb *g, char *line);

#endif
