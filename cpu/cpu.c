/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Each vCPU thread alternates between acting on requests (take_requests) and, in the state RUN, running its engine. In
 * the other states it sleeps on `wake` until a request arrives. `park_lock` guards sleeping and parking only; it is
 * never held together with the machine lock.
 *
 * A requester sets bits first and looks at `sleeping` afterwards; a sleeper sets `sleeping` first and looks at the bits
 * afterwards (both sequentially consistent), so no request is slept through.
 *
 * To wake a thread costs more than what many a guest halts for: one answer of a disk or of a neighbour. After a halt that was
 * short a CPU that halts again watches for a request for WATCH_NS before it sleeps; once in vain, and it does not the next time.
 *
 * Pausing: REQ_PAUSE parks every thread with its whole state in v->state. While parked, anyone may change the state
 * (reset, load, debugger); it is put back into the engine when the thread goes on.
 */
#include "cpu/cpu.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "cpu/debug.h"
#include "cpu/trace.h"
#include "cpu/x86/x86.h"

#define WATCH_NS 50000
#define SHORT_HALT_NS 150000 /* with the time that waking takes */
#define LARGE_PAGE ((size_t)2 << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* In the order in which `auto` tries them. */
static const struct cpu_engine *const engines[] = { &cpu_engine_kvm, &cpu_engine_jit, &cpu_engine_interp };

static const char *const exit_text[] = {
#define ROW(name, text) [name] = text,
	CPU_EXITS(ROW)
#undef ROW
};

const char *
cpu_exit_text(enum cpu_exit x)
{
	return (unsigned)x < CPU_EXIT_COUNT ? exit_text[x] : "unknown";
}

static struct lapic_port *
lapic_of(struct vcpu *v)
{
	return &v->m->intc.lapic[v->index];
}

/* ---- choosing an engine ---- */

static const struct cpu_engine *
choose_auto(char why[256], struct err *e)
{
	struct cpu_probe p;
	char refused[256] = "";

	for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
		memset(&p, 0, sizeof(p));
		engines[i]->probe(&p);
		if (p.usable) {
			snprintf(why, 256, "%s%s%s: %.60s", refused, refused[0] ? "; using " : "", engines[i]->name,
				p.reason);
			return engines[i];
		}
		snprintf(refused, sizeof(refused), "not %s: %.180s", engines[i]->name, p.reason);
	}
	err_set(e, ERR_HOST, "no CPU engine works on this host: %s", refused);
	return NULL;
}

const struct cpu_engine *
cpu_choose(const char *name, char why[256], struct err *e)
{
	struct cpu_probe p = { 0 };

	why[0] = 0;
	if (!name || !strcmp(name, "auto"))
		return choose_auto(why, e);
	for (size_t i = 0; i < ARRAY_LEN(engines); i++) {
		const struct cpu_engine *g = engines[i];

		if (strcmp(name, g->name))
			continue;
		g->probe(&p);
		if (!p.usable) {
			err_set(e, ERR_HOST, "the engine '%s' does not work on this host: %s", name, p.reason);
			return NULL;
		}
		snprintf(why, 256, "%s, as asked for", name);
		return g;
	}
	err_set(e, ERR_INVALID, "there is no engine '%s'; use auto, kvm, jit or interp", name);
	return NULL;
}

/* ---- requests and sleeping ---- */

void
cpu_request(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_or(&v->requests, bits);
	switch (atomic_load(&v->sleeping)) {
	case VCPU_AWAKE:
		v->engine->kick(v);
		return;
	case VCPU_WATCHES:
		return;
	}
	pthread_mutex_lock(&v->cpus->park_lock);
	pthread_cond_signal(&v->wake);
	pthread_mutex_unlock(&v->cpus->park_lock);
}

/* bus/intc.h: what the interrupt controllers call. */
static void
port_signal(void *opaque, enum cpu_signal what, int arg)
{
	static const uint32_t bit[] = {
		[CPU_INTR] = REQ_INTR,
		[CPU_NMI] = REQ_NMI,
		[CPU_SMI] = REQ_SMI,
		[CPU_INIT] = REQ_INIT,
		[CPU_SIPI] = REQ_SIPI,
	};
	struct vcpu *v = opaque;

	if (what == CPU_INTR && !arg) {
		atomic_fetch_and(&v->requests, ~(uint32_t)REQ_INTR);
		return;
	}
	if (what == CPU_INTR && (v->requests & REQ_INTR))
		return;
	if (what == CPU_SIPI)
		v->sipi_vector = (uint8_t)arg;
	cpu_request(v, bit[what]);
}

static uint32_t
clear_request(struct vcpu *v, uint32_t bit)
{
	return atomic_fetch_and(&v->requests, ~bit) & bit;
}

/* The requests that end the sleep of a CPU in its current state. */
static uint32_t
wake_mask(struct vcpu *v)
{
	uint32_t mask = REQ_FLUSH | REQ_PAUSE | REQ_STOP | REQ_INIT;

	if (v->run_state == VCPU_WAIT_SIPI)
		mask |= REQ_SIPI;
	if (v->run_state == VCPU_HALT) {
		mask |= REQ_NMI | REQ_SMI;
		if (v->engine->can_inject(v))
			mask |= REQ_INTR;
	}
	return mask;
}

/* True: a request came. */
static bool
watch(struct vcpu *v, uint32_t mask, uint64_t until)
{
	v->sleeping = VCPU_WATCHES;
	while (!(v->requests & mask) && loop_now() < until)
		for (int i = 0; i < 16; i++)
			__builtin_ia32_pause();
	return v->requests & mask;
}

static void
sleep_for_request(struct vcpu *v)
{
	uint64_t start = loop_now();
	uint32_t mask = wake_mask(v);

	if (v->worth_watching && watch(v, mask, start + WATCH_NS)) {
		v->sleeping = VCPU_AWAKE;
		return;
	}
	pthread_mutex_lock(&v->cpus->park_lock);
	v->sleeping = VCPU_SLEEPS;
	while (!(v->requests & mask))
		pthread_cond_wait(&v->wake, &v->cpus->park_lock);
	v->sleeping = VCPU_AWAKE;
	pthread_mutex_unlock(&v->cpus->park_lock);
	v->worth_watching = !v->worth_watching && loop_now() - start < SHORT_HALT_NS;
}

static void
park(struct vcpu *v)
{
	struct cpus *c = v->cpus;

	v->engine->get_state(v);
	pthread_mutex_lock(&c->park_lock);
	c->parked_count++;
	v->sleeping = VCPU_SLEEPS;
	pthread_cond_broadcast(&c->parked);
	while ((v->requests & REQ_PAUSE) && !(v->requests & REQ_STOP))
		pthread_cond_wait(&v->wake, &c->park_lock);
	v->sleeping = VCPU_AWAKE;
	c->parked_count--;
	pthread_mutex_unlock(&c->park_lock);
	if (v->requests & REQ_STOP)
		return;
	v->engine->put_state(v);
	if (v->debug_changed && v->engine->debug && v->engine->debug(v))
		log_error(v->m->name, "cpu%d: %s", v->index, v->error);
	v->debug_changed = false;
}

/* What cannot wait until it goes on is done meanwhile, and the caller is here again after that. */
static void
rest(struct vcpu *v)
{
	pthread_mutex_lock(&v->cpus->park_lock);
	v->sleeping = VCPU_SLEEPS;
	while ((v->requests & REQ_REST) && !(v->requests & (REQ_FLUSH | REQ_PAUSE | REQ_STOP | REQ_INIT)))
		pthread_cond_wait(&v->wake, &v->cpus->park_lock);
	v->sleeping = VCPU_AWAKE;
	pthread_mutex_unlock(&v->cpus->park_lock);
}

void
cpu_rest(struct vcpu *v, bool on)
{
	if (on == !!(v->requests & REQ_REST))
		return;
	if (on) {
		cpu_request(v, REQ_REST);
		return;
	}
	pthread_mutex_lock(&v->cpus->park_lock);
	clear_request(v, REQ_REST);
	pthread_cond_signal(&v->wake);
	pthread_mutex_unlock(&v->cpus->park_lock);
}

static void
take_init(struct vcpu *v)
{
	v->engine->get_state(v);
	x86_init_state(&v->state, v->bsp);
	v->engine->put_state(v);
	machine_lock(v->m);
	if (lapic_of(v)->init)
		lapic_of(v)->init(lapic_of(v)->opaque);
	machine_unlock(v->m);
	clear_request(v, REQ_NMI); /* not SIPI: it may have come right behind, before this thread got to run */
	v->run_state = v->bsp ? VCPU_RUN : VCPU_WAIT_SIPI;
}

static void
take_sipi(struct vcpu *v)
{
	if (v->run_state != VCPU_WAIT_SIPI)
		return;
	v->engine->get_state(v);
	x86_sipi_state(&v->state, v->sipi_vector);
	v->engine->put_state(v);
	v->run_state = VCPU_RUN;
}

static void
take_interrupt(struct vcpu *v)
{
	int vector;

	machine_lock(v->m);
	vector = lapic_of(v)->ack ? lapic_of(v)->ack(lapic_of(v)->opaque) : -1;
	machine_unlock(v->m);
	if (vector < 0)
		return;
	v->count.interrupts++;
	if (v->trace)
		cpu_trace(v, CPU_TRACE_INTERRUPT, v->state.rip, (unsigned)vector);
	/* a debugger's step out of HLT ends where the interrupt leads */
	v->debug_stepped = v->run_state == VCPU_HALT && v->debug_step;
	v->run_state = VCPU_RUN;
	v->engine->inject(v, vector, false);
}

static void
take_requests(struct vcpu *v)
{
	uint32_t r = v->requests;

	if (r & REQ_FLUSH && clear_request(v, REQ_FLUSH))
		v->engine->flush(v);
	if (r & REQ_INIT && clear_request(v, REQ_INIT))
		take_init(v);
	if (r & REQ_SIPI && clear_request(v, REQ_SIPI))
		take_sipi(v);
	if (r & REQ_SMI && clear_request(v, REQ_SMI))
		log_guest(
			v->m->name, "cpu%d: a system management interrupt was ignored: there is no SMM here", v->index);
	if (r & REQ_PAUSE)
		park(v);
	if (r & REQ_REST && v->run_state == VCPU_RUN)
		rest(v);
	if (v->run_state != VCPU_RUN && v->run_state != VCPU_HALT)
		return;
	r &= ~v->debug_hold;
	if (r & REQ_NMI && !v->state.nmi_blocked && clear_request(v, REQ_NMI)) {
		v->debug_stepped = v->run_state == VCPU_HALT && v->debug_step;
		v->run_state = VCPU_RUN;
		v->engine->inject(v, EXC_NMI, true);
	} else if (r & REQ_INTR && v->engine->can_inject(v)) {
		take_interrupt(v);
	}
}

/* ---- the thread ---- */

static void
stopped_for_good(struct vcpu *v, enum machine_event what)
{
	v->run_state = VCPU_DEAD;
	machine_lock(v->m);
	machine_event(v->m, what, v->index);
	machine_unlock(v->m);
}

/* A debugger may look at the CPU before what happened to it takes its course. */
static void
show_debugger(struct vcpu *v, enum cpu_debug_reason why)
{
	if (!v->debug)
		return;
	cpu_debug_stop(v, why);
	take_requests(v);
}

static void
act_on_exit(struct vcpu *v, enum cpu_exit x)
{
	switch (x) {
	case CPU_EXIT_HALT:
		v->count.halts++;
		if (v->trace)
			cpu_trace(v, CPU_TRACE_HALT, v->state.rip, 0);
		v->run_state = VCPU_HALT;
		machine_halts(v->m);
		if (v->debug_step)
			cpu_debug_stop(v, CPU_DEBUG_STEPPED);
		break;
	case CPU_EXIT_DEBUG:
		if (v->debug)
			cpu_debug_stop(v, (enum cpu_debug_reason)v->debug_reason);
		break;
	case CPU_EXIT_SHUTDOWN:
		show_debugger(v, CPU_DEBUG_SHUTDOWN);
		log_info(v->m->name, "cpu%d: triple fault at %04x:%llx", v->index, v->state.seg[SEG_CS].sel,
			(unsigned long long)v->state.rip);
		stopped_for_good(v, MACHINE_TRIPLE_FAULT);
		break;
	case CPU_EXIT_ERROR:
		show_debugger(v, CPU_DEBUG_ERROR);
		log_error(v->m->name, "cpu%d: %s", v->index, v->error);
		stopped_for_good(v, MACHINE_ERROR);
		break;
	case CPU_EXIT_REQUEST:
	case CPU_EXIT_COUNT:
		break;
	}
}

static void *
cpu_thread(void *opaque)
{
	struct vcpu *v = opaque;
	struct cpus *c = v->cpus;

	for (;;) {
		if (v->requests)
			take_requests(v);
		if (v->requests & REQ_STOP)
			break;
		if (v->run_state == VCPU_RUN)
			act_on_exit(v, v->engine->run(v));
		else
			sleep_for_request(v);
	}
	v->engine->get_state(v);
	pthread_mutex_lock(&c->park_lock);
	c->running_threads--;
	pthread_cond_broadcast(&c->parked);
	pthread_mutex_unlock(&c->park_lock);
	return NULL;
}

/* ---- life ---- */

static void
map_changed(void *opaque)
{
	struct cpus *c = opaque;

	for (int i = 0; i < c->count; i++)
		if (c->cpu[i])
			cpu_request(c->cpu[i], REQ_FLUSH);
}

static void
reset_one(struct vcpu *v)
{
	x86_reset_state(&v->state, &v->cpus->model, v->bsp);
	v->run_state = v->bsp ? VCPU_RUN : VCPU_WAIT_SIPI;
	clear_request(v, REQ_INTR | REQ_NMI | REQ_SMI | REQ_INIT | REQ_SIPI);
}

static size_t
vcpu_room(size_t size)
{
	return (size + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
}

/* Zeroes, at an address for large pages. What of it is never used takes no memory of the host: a fork's has to be little. */
static struct vcpu *
vcpu_memory(size_t size)
{
	uint8_t *p = calloc(1, vcpu_room(size) + LARGE_PAGE);
	struct vcpu *v = p ? (struct vcpu *)(void *)(p + (-(uintptr_t)p & (LARGE_PAGE - 1))) : NULL;

	if (v)
		v->memory = p;
	return v;
}

void
vcpu_make_large(struct vcpu *v)
{
	size_t room = vcpu_room(v->engine->vcpu_size);

	madvise(v, room, MADV_HUGEPAGE);
	madvise(v, room, MADV_COLLAPSE); /* what is there already; a kernel before 6.1 does it in its own time */
}

static int
open_one(struct cpus *c, int i, struct err *e)
{
	struct vcpu *v = vcpu_memory(c->engine->vcpu_size);

	if (!v)
		return err_set(e, ERR_HOST, "no memory for virtual CPU %d", i);
	v->index = i;
	v->bsp = i == 0;
	v->m = c->m;
	v->cpus = c;
	v->engine = c->engine;
	v->requests = REQ_PAUSE;
	pthread_cond_init(&v->wake, NULL);
	c->cpu[i] = v;
	reset_one(v);
	c->m->intc.cpu[i] = (struct cpu_port){ .opaque = v, .signal = port_signal };
	if (c->engine->open(v, e)) {
		pthread_cond_destroy(&v->wake);
		free(v->memory);
		c->cpu[i] = NULL;
		return -1;
	}
	c->engine->put_state(v);
	return 0;
}

int
cpus_open(
	struct cpus *c, struct machine *m, const struct cpu_engine *engine, const struct cpu_options *o, struct err *e)
{
	bool software = engine != &cpu_engine_kvm;

	memset(c, 0, sizeof(*c));
	if (o->count < 1 || o->count > CPUS_MAX)
		return err_set(e, ERR_INVALID, "%d virtual CPUs: there can be 1 to %d", o->count, CPUS_MAX);
	if (o->model && !x86_model_known(o->model))
		return err_set(e, ERR_INVALID,
			"there is no CPU model '%s'; use host, x86-64, x86-64-v2, x86-64-v3 or x86-64-v4", o->model);
	c->m = m;
	c->engine = engine;
	c->count = o->count;
	pthread_mutex_init(&c->park_lock, NULL);
	pthread_cond_init(&c->parked, NULL);
	x86_model_init(&c->model, o->model ? o->model : "host", software, o->count, m->clock.tsc_hz);
	if (o->saved && x86_model_take(&c->model, o->saved, e))
		goto fail;
	m->intc.cpus = o->count;
	if (engine->open_machine && engine->open_machine(c, e))
		goto fail;
	for (int i = 0; i < c->count; i++)
		if (open_one(c, i, e))
			goto fail;
	c->listener = (struct mem_listener){ .changed = map_changed, .opaque = c };
	mem_listen(&m->mem, &c->listener);
	return 0;
fail:
	cpus_close(c);
	return -1;
}

int
cpus_start(struct cpus *c, struct err *e)
{
	for (int i = 0; i < c->count; i++) {
		int r;

		pthread_mutex_lock(&c->park_lock);
		c->running_threads++;
		pthread_mutex_unlock(&c->park_lock);
		r = pthread_create(&c->cpu[i]->thread, NULL, cpu_thread, c->cpu[i]);
		if (r) {
			c->running_threads--;
			return err_sys(e, ERR_HOST, r, "cannot start the thread of virtual CPU %d", i);
		}
		c->cpu[i]->started = true;
	}
	return 0;
}

void
cpus_pause(struct cpus *c)
{
	for (int i = 0; i < c->count; i++)
		cpu_request(c->cpu[i], REQ_PAUSE);
	pthread_mutex_lock(&c->park_lock);
	while (c->parked_count < c->running_threads)
		pthread_cond_wait(&c->parked, &c->park_lock);
	pthread_mutex_unlock(&c->park_lock);
}

void
cpus_resume(struct cpus *c)
{
	pthread_mutex_lock(&c->park_lock);
	for (int i = 0; i < c->count; i++) {
		if (c->cpu[i]->debug_frozen)
			continue;
		clear_request(c->cpu[i], REQ_PAUSE);
		pthread_cond_signal(&c->cpu[i]->wake);
	}
	pthread_mutex_unlock(&c->park_lock);
}

void
cpus_reset(struct cpus *c)
{
	for (int i = 0; i < c->count; i++)
		reset_one(c->cpu[i]);
}

void
cpus_close(struct cpus *c)
{
	if (!c->m)
		return;
	for (int i = 0; i < c->count; i++)
		if (c->cpu[i] && c->cpu[i]->started)
			cpu_request(c->cpu[i], REQ_STOP);
	for (int i = 0; i < c->count; i++)
		if (c->cpu[i] && c->cpu[i]->started)
			pthread_join(c->cpu[i]->thread, NULL);
	mem_unlisten(&c->m->mem, &c->listener);
	for (int i = 0; i < c->count; i++) {
		struct vcpu *v = c->cpu[i];

		if (!v)
			continue;
		c->m->intc.cpu[i] = (struct cpu_port){ 0 };
		c->engine->close(v);
		pthread_cond_destroy(&v->wake);
		free(v->memory);
		c->cpu[i] = NULL;
	}
	if (c->engine->close_machine)
		c->engine->close_machine(c);
	pthread_cond_destroy(&c->parked);
	pthread_mutex_destroy(&c->park_lock);
	c->m = NULL;
}

/* ---- accesses that leave RAM ---- */

uint32_t
cpu_io_read(struct vcpu *v, uint16_t port, unsigned size)
{
	uint32_t value;

	v->count.exits_io++;
	if (v->trace)
		cpu_trace(v, CPU_TRACE_IN, cpu_trace_rip(v), port);
	machine_lock(v->m);
	value = io_read(&v->m->io, port, size);
	machine_unlock(v->m);
	return value;
}

void
cpu_io_write(struct vcpu *v, uint16_t port, uint32_t value, unsigned size)
{
	v->count.exits_io++;
	if (v->trace)
		cpu_trace(v, CPU_TRACE_OUT, cpu_trace_rip(v), port);
	machine_lock(v->m);
	io_write(&v->m->io, port, value, size);
	machine_unlock(v->m);
}

#define APIC_BASE_ENABLE 0x800u /* SDM 3A 10.4.4 */
#define APIC_BASE_X2APIC 0x400u

static bool
is_lapic_page(struct vcpu *v, gpa_t gpa)
{
	uint64_t base = lapic_of(v)->base;

	return (base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == APIC_BASE_ENABLE &&
	       ((gpa ^ base) & ~(uint64_t)PAGE_MASK & 0xfffffffffffffull) == 0;
}

uint64_t
cpu_mmio_read(struct vcpu *v, gpa_t gpa, unsigned size)
{
	uint64_t value;

	v->count.exits_mmio++;
	if (v->trace)
		cpu_trace(v, CPU_TRACE_MMIO_READ, cpu_trace_rip(v), gpa);
	machine_lock(v->m);
	if (is_lapic_page(v, gpa)) {
		/* Registers are 32 bits at 16-byte steps; narrower reads see their bytes of it (SDM 3A 10.4.1). */
		unsigned byte = gpa & 0xf;

		value = byte < 4 ? lapic_of(v)->mmio_read(lapic_of(v)->opaque, gpa & 0xff0) >> (8 * byte) : 0;
	} else {
		value = mem_load(&v->m->mem, gpa, size);
	}
	machine_unlock(v->m);
	return value;
}

void
cpu_mmio_write(struct vcpu *v, gpa_t gpa, uint64_t value, unsigned size)
{
	v->count.exits_mmio++;
	if (v->trace)
		cpu_trace(v, CPU_TRACE_MMIO_WRITE, cpu_trace_rip(v), gpa);
	machine_lock(v->m);
	if (is_lapic_page(v, gpa)) {
		if (!(gpa & 0xf) && size >= 4)
			lapic_of(v)->mmio_write(lapic_of(v)->opaque, gpa & 0xff0, (uint32_t)value);
	} else {
		mem_store(&v->m->mem, gpa, value, size);
	}
	machine_unlock(v->m);
}

bool
cpu_apic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	bool ok;

	machine_lock(v->m);
	ok = lapic_of(v)->msr_read && lapic_of(v)->msr_read(lapic_of(v)->opaque, msr, value);
	machine_unlock(v->m);
	return ok;
}

bool
cpu_apic_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	bool ok;

	machine_lock(v->m);
	ok = lapic_of(v)->msr_write && lapic_of(v)->msr_write(lapic_of(v)->opaque, msr, value);
	machine_unlock(v->m);
	return ok;
}

uint8_t
cpu_get_cr8(struct vcpu *v)
{
	uint8_t value = 0;

	machine_lock(v->m);
	if (lapic_of(v)->get_cr8)
		value = lapic_of(v)->get_cr8(lapic_of(v)->opaque);
	machine_unlock(v->m);
	return value;
}

void
cpu_set_cr8(struct vcpu *v, uint8_t value)
{
	machine_lock(v->m);
	if (lapic_of(v)->set_cr8)
		lapic_of(v)->set_cr8(lapic_of(v)->opaque, value);
	machine_unlock(v->m);
}
