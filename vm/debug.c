/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a debugger may do with the machine: gdb's server, the trace of exits, and the method "debug" of vm/protocol.h,
 * which is carried out on the owner's thread with the machine held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cpu/trace.h"
#include "vm/private.h"

/* ---- gdb ---- */

static void
op_hold(void *opaque)
{
	pc_hold(((struct vm *)opaque)->pc);
}

static void
op_release(void *opaque)
{
	pc_release(((struct vm *)opaque)->pc);
}

static int
op_reset(void *opaque, struct err *e)
{
	return pc_reset(((struct vm *)opaque)->pc, e);
}

static void
op_quit(void *opaque)
{
	vm_request_stop(opaque);
}

static const struct debug_ops ops = { op_hold, op_release, op_reset, op_quit };

static int
start_trace(struct vm *v, struct err *e)
{
	if (!v->o.trace_exits)
		return 0;
	if (v->o.trace_file) {
		v->trace_lines = fopen(v->o.trace_file, "we");
		if (!v->trace_lines)
			return err_sys(e, ERR_FILE, errno, "cannot write %s", v->o.trace_file);
	}
	return cpu_trace_start(pc_cpus(v->pc), v->trace_lines) ? err_set(e, ERR_HOST, "no memory for the trace") : 0;
}

void
vm_print_trace(struct vm *v, FILE *f)
{
	if (v->o.trace_exits)
		cpu_trace_print(pc_cpus(v->pc), 40, f);
}

void
vm_debug_close(struct vm *v)
{
	gdb_close(v->gdb);
	v->gdb = NULL;
	cpu_trace_stop(pc_cpus(v->pc));
	if (v->trace_lines)
		fclose(v->trace_lines);
	v->trace_lines = NULL;
}

int
vm_debug_open(struct vm *v, struct err *e)
{
	if (start_trace(v, e))
		goto fail;
	if (!v->o.gdb)
		return 0;
	v->gdb = gdb_open(v->o.gdb, pc_cpus(v->pc), &ops, v, v->o.gdb_wait, e);
	if (!v->gdb)
		goto fail;
	if (gdb_port(v->gdb))
		log_info(v->c->name, "gdb: target remote 127.0.0.1:%u", gdb_port(v->gdb));
	if (v->o.gdb_wait)
		pc_hold(v->pc);
	return 0;
fail:
	vm_debug_close(v);
	return -1;
}

int
vm_debug_start(struct vm *v, struct err *e)
{
	return v->gdb ? gdb_start(v->gdb, e) : 0;
}
