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
#include "debug/linux.h"
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

/* ---- the method "debug"; the CPUs are parked ---- */

struct ask {
	struct vm *v;
	const json_t *params;
	struct debug_info d;
	json_t *pairs;
	struct err *e;
};

static void
answer_pair(struct ask *a, const char *name, const char *value)
{
	json_array_append_new(a->pairs, json_pack("[s, s]", name, value));
}

static const char *
text_of(const struct ask *a, const char *key)
{
	const char *s = json_string_value(json_object_get(a->params, key));

	return s ? s : "";
}

static const char *
nth(const struct ask *a, const char *key, size_t i)
{
	const char *s = json_string_value(json_array_get(json_object_get(a->params, key), i));

	return s ? s : "";
}

/* Its number, or -1 and *e. */
static int
find_register(struct ask *a, const char *name)
{
	int n = reg_find(a->d.regs, name);

	if (n < 0)
		err_set(a->e, ERR_NOT_FOUND, "there is no register '%.64s'; 'all' shows which there are", name);
	return n;
}

static void
answer_register(struct ask *a, int n, const char *name)
{
	char value[2 * REG_BYTES_MAX + 3];

	reg_text(a->d.regs, n, a->d.c->cpu[a->d.cpu], value);
	answer_pair(a, name, value);
}

static int
ask_registers(struct ask *a)
{
	size_t count = json_array_size(json_object_get(a->params, "names"));

	for (size_t i = 0; i < count; i++) {
		const char *name = nth(a, "names", i);
		int n;

		if (!strcmp(name, "all")) {
			for (n = 0; n < reg_count(a->d.regs); n++)
				answer_register(a, n, reg_name(a->d.regs, n));
			continue;
		}
		n = find_register(a, name);
		if (n < 0)
			return -1;
		answer_register(a, n, name);
	}
	return 0;
}

static int
set_register(struct ask *a, int n, const char *name, const char *text)
{
	struct vcpu *v = a->d.c->cpu[a->d.cpu];
	uint8_t value[REG_BYTES_MAX];

	if (!reg_parse(a->d.regs, n, text, value))
		return err_set(a->e, ERR_INVALID, "'%.80s' is not a value of %u bytes for the register '%s'", text,
			reg_bytes(a->d.regs, n), name);
	switch (reg_write(a->d.regs, n, v, a->d.view, value)) {
	case REG_OK:
		return 0;
	case REG_READ_ONLY:
		return err_set(a->e, ERR_INVALID, "the register '%s' cannot be set", name);
	default:
		return err_set(a->e, ERR_INVALID, "the CPU refuses %.80s for the register '%s'", text, name);
	}
}

static int
ask_setregisters(struct ask *a)
{
	size_t count = json_array_size(json_object_get(a->params, "names"));
	struct x86_state *before = aligned_alloc(64, (sizeof(*before) + 63) & ~(size_t)63);
	struct vcpu *v = a->d.c->cpu[a->d.cpu];
	int r = 0;

	if (!before)
		abort(); /* out of memory */
	*before = v->state;
	for (size_t i = 0; i < count && !r; i++) {
		int n = find_register(a, nth(a, "names", i));

		r = n < 0 ? -1 : set_register(a, n, nth(a, "names", i), nth(a, "values", i));
	}
	if (r)
		v->state = *before;
	free(before);
	return r;
}

/* Runs `print` with a stream whose text becomes the pair "text". */
static int
answer_text(struct ask *a, int (*print)(struct ask *a, FILE *f))
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		abort(); /* out of memory */
	r = print(a, f);
	fclose(f);
	if (!r)
		answer_pair(a, "text", text);
	free(text);
	return r;
}

static int
print_info(struct ask *a, FILE *f)
{
	if (debug_info_print(&a->d, text_of(a, "item"), text_of(a, "args"), f))
		return 0;
	return err_set(a->e, ERR_NOT_FOUND, "there is no item '%.64s'; 'help' lists what there is", text_of(a, "item"));
}

static int
ask_info(struct ask *a)
{
	return answer_text(a, print_info);
}

static int
print_stack(struct ask *a, FILE *f)
{
	debug_info_stack(&a->d, f);
	return 0;
}

static int
ask_stack(struct ask *a)
{
	return answer_text(a, print_stack);
}

static int
ask_osinfo(struct ask *a)
{
	char version[256] = "";
	char *info = linux_vmcoreinfo(a->v->m);

	if (!info)
		return err_set(a->e, ERR_VM,
			"the guest's operating system was not recognized; Linux with crash "
			"information (CONFIG_VMCORE_INFO, CONFIG_CRASH_CORE) is, once it has started");
	linux_info_value(info, "OSRELEASE", version, sizeof(version));
	free(info);
	answer_pair(a, "name", "Linux");
	for (char *p = version; *p; p++)
		if ((uint8_t)*p < ' ' || (uint8_t)*p > '~')
			*p = '?';
	answer_pair(a, "version", version);
	return 0;
}

static int
print_dmesg(struct ask *a, FILE *f)
{
	json_int_t lines = json_integer_value(json_object_get(a->params, "lines"));

	return linux_dmesg(a->v->m, a->d.view, lines > 0 && lines < 1 << 20 ? (unsigned)lines : 0, f, a->e);
}

static int
ask_dmesg(struct ask *a)
{
	return answer_text(a, print_dmesg);
}

static int
ask_nmi(struct ask *a)
{
	cpu_request(a->d.c->cpu[a->d.cpu], REQ_NMI);
	return 0;
}

static int
ask_core(struct ask *a)
{
	char *path;
	int r;

	if (!a->v->o.run_dir)
		return err_set(a->e, ERR_UNSUPPORTED, "this machine has no run directory to write to");
	path = xasprintf("%s/" VM_FILE_CORE, a->v->o.run_dir);
	r = debug_core_write(&a->d, path, a->e);
	free(path);
	return r;
}

static int
ask_sample(struct ask *a)
{
	for (int i = 0; i < a->d.c->count; i++) {
		const struct vcpu *v = a->d.c->cpu[i];
		char name[16], where[64];

		cpu_view_load(a->d.view, a->d.c->cpu[i]);
		snprintf(name, sizeof(name), "cpu%d", i);
		snprintf(where, sizeof(where), "%016llx %s", (unsigned long long)cpu_view_pc(a->d.view),
			v->run_state != VCPU_RUN  ? "idle"
			: cpu_view_cpl(a->d.view) ? "user"
						  : "kernel");
		answer_pair(a, name, where);
	}
	return 0;
}

static int
ask_log(struct ask *a)
{
	static const char *const names[] = {
		[LOG_ERROR] = "error", [LOG_WARN] = "warning", [LOG_INFO] = "info", [LOG_TRACE] = "trace"
	};
	const char *level = text_of(a, "level");

	for (int i = 0; i < LOG_TRACE; i++)
		if (!strcmp(level, names[i])) {
			log_set_level((enum log_level)i);
			level = "";
		}
	if (level[0])
		return err_set(
			a->e, ERR_INVALID, "there is no log level '%.64s'; there are error, warning and info", level);
	answer_pair(a, "level", names[log_get_level()]);
	answer_pair(a, "dest", log_destination()[0] ? log_destination() : "standard error");
	return 0;
}

/* A server that a client is connected to ends with that client's session. */
static int
ask_gdb(struct ask *a)
{
	const char *where = text_of(a, "listen");
	struct gdb *g = NULL;
	char port[16];

	if (where[0] && a->v->gdb)
		return err_set(
			a->e, ERR_IN_USE, "gdb is served already, on port %u; end that first", gdb_port(a->v->gdb));
	if (!where[0]) {
		gdb_close(a->v->gdb);
		a->v->gdb = NULL;
		return 0;
	}
	g = gdb_open(where, a->d.c, &ops, a->v, false, a->e);
	if (!g || gdb_start(g, a->e)) {
		gdb_close(g);
		return -1;
	}
	a->v->gdb = g;
	snprintf(port, sizeof(port), "%u", gdb_port(g));
	answer_pair(a, "port", port);
	return 0;
}

static const struct {
	const char *what;
	int (*ask)(struct ask *a);
	bool free_running; /* the CPUs need not stand still */
} asks[] = {
	{ "registers", ask_registers, false },
	{ "setregisters", ask_setregisters, false },
	{ "info", ask_info, false },
	{ "stack", ask_stack, false },
	{ "osinfo", ask_osinfo, false },
	{ "dmesg", ask_dmesg, false },
	{ "nmi", ask_nmi, true },
	{ "core", ask_core, false },
	{ "sample", ask_sample, false },
	{ "log", ask_log, true },
	{ "gdb", ask_gdb, true },
};

static int
ask_held(struct ask *a, int (*ask)(struct ask *a))
{
	int r;

	pc_hold(a->v->pc);
	cpu_view_load(a->d.view, a->d.c->cpu[a->d.cpu]);
	r = ask(a);
	pc_release(a->v->pc);
	return r;
}

json_t *
vm_debug(struct vm *v, const json_t *params, struct err *e)
{
	struct ask a = { .v = v, .params = params, .e = e, .d.c = pc_cpus(v->pc) };
	json_int_t cpu = json_integer_value(json_object_get(params, "cpu"));
	struct reg_set *regs;
	int r = -1;

	if (cpu < 0 || cpu >= a.d.c->count) {
		err_set(e, ERR_INVALID, "there is no virtual CPU %lld; the last one is %d", (long long)cpu,
			a.d.c->count - 1);
		return NULL;
	}
	a.d.cpu = (int)cpu;
	a.d.regs = regs = reg_set_open(&a.d.c->model);
	a.d.view = cpu_view_open(a.d.c);
	a.pairs = json_array();
	if (!a.d.view)
		abort(); /* out of memory */
	err_set(e, ERR_INVALID, "there is no debugging request '%.64s'", text_of(&a, "what"));
	for (size_t i = 0; i < ARRAY_LEN(asks); i++)
		if (!strcmp(asks[i].what, text_of(&a, "what")))
			r = asks[i].free_running ? asks[i].ask(&a) : ask_held(&a, asks[i].ask);
	cpu_view_close(a.d.view);
	reg_set_close(regs);
	if (!r)
		return json_pack("{s:o}", "pairs", a.pairs);
	json_decref(a.pairs);
	return NULL;
}
