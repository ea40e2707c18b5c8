/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/debug.h"

#include <Zydis/Zydis.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cpu/x86/x86.h"

static const char *const reason_text[] = {
#define ROW(name, text) [name] = text,
	CPU_DEBUG_REASONS(ROW)
#undef ROW
};

const char *
cpu_debug_reason_text(enum cpu_debug_reason r)
{
	return (unsigned)r < CPU_DEBUG_REASON_COUNT ? reason_text[r] : "unknown";
}

/* ---- the sets ---- */

static bool
slots_left(const struct cpus *c, const struct cpu_debug *d)
{
	return c->engine != &cpu_engine_kvm || d->break_count + d->watch_count < CPU_DEBUG_KVM_SLOTS;
}

static void
note_pages(struct cpu_debug *d)
{
	d->pages = 0;
	for (int i = 0; i < d->break_count; i++)
		d->pages |= 1ull << ((d->breaks[i] >> PAGE_SHIFT) & 63);
}

static int
find_break(const struct cpu_debug *d, gva_t a)
{
	for (int i = 0; i < d->break_count; i++)
		if (d->breaks[i] == a)
			return i;
	return -1;
}

bool
cpu_debug_add_break(struct cpus *c, struct cpu_debug *d, gva_t a)
{
	if (find_break(d, a) >= 0)
		return true;
	if (d->break_count == CPU_DEBUG_BREAKS || !slots_left(c, d))
		return false;
	d->breaks[d->break_count++] = a;
	note_pages(d);
	return true;
}

bool
cpu_debug_remove_break(struct cpu_debug *d, gva_t a)
{
	int i = find_break(d, a);

	if (i < 0)
		return false;
	d->breaks[i] = d->breaks[--d->break_count];
	note_pages(d);
	return true;
}

static int
find_watch(const struct cpu_debug *d, struct cpu_watch w)
{
	for (int i = 0; i < d->watch_count; i++)
		if (d->watches[i].a == w.a && d->watches[i].len == w.len && d->watches[i].kind == w.kind)
			return i;
	return -1;
}

/* What DR7 can say: 1, 2, 4 or 8 aligned bytes, written or accessed (SDM 3B 18.2.4). */
static bool
fits_register(struct cpu_watch w)
{
	return w.kind != CPU_WATCH_READ && (w.len == 1 || w.len == 2 || w.len == 4 || w.len == 8) &&
	       !(w.a & (w.len - 1));
}

bool
cpu_debug_add_watch(struct cpus *c, struct cpu_debug *d, struct cpu_watch w)
{
	if (find_watch(d, w) >= 0)
		return true;
	if (d->watch_count == CPU_DEBUG_WATCHES || !w.len || !slots_left(c, d) ||
		(c->engine == &cpu_engine_kvm && !fits_register(w)))
		return false;
	d->watches[d->watch_count++] = w;
	return true;
}

bool
cpu_debug_remove_watch(struct cpu_debug *d, struct cpu_watch w)
{
	int i = find_watch(d, w);

	if (i < 0)
		return false;
	d->watches[i] = d->watches[--d->watch_count];
	return true;
}

/* ---- attaching; the CPUs are parked ---- */

void
cpu_debug_changed(struct cpus *c)
{
	for (int i = 0; i < c->count; i++)
		c->cpu[i]->debug_changed = true;
}

void
cpu_debug_go(struct vcpu *v, enum cpu_debug_go how, bool irqs)
{
	v->debug_frozen = how == CPU_DEBUG_STAY;
	v->debug_step = how == CPU_DEBUG_STEP;
	v->debug_stepped = false;
	v->debug_reason = CPU_DEBUG_NONE;
	/* a CPU in HLT takes a step by being woken */
	v->debug_hold = v->debug_step && !irqs && v->run_state == VCPU_RUN ? REQ_INTR | REQ_NMI | REQ_SMI : 0;
	if (v->engine == &cpu_engine_kvm) /* the kernel has to be told */
		v->debug_changed = true;
}

int
cpu_debug_attach(struct cpus *c, struct cpu_debug *d, struct err *e)
{
	if (c->debug)
		return err_set(e, ERR_IN_USE, "the machine already has a debugger");
	c->debug = d;
	for (int i = 0; i < c->count; i++) {
		c->cpu[i]->debug = d;
		cpu_debug_go(c->cpu[i], CPU_DEBUG_RUN, true);
	}
	cpu_debug_changed(c);
	return 0;
}

void
cpu_debug_detach(struct cpus *c)
{
	c->debug = NULL;
	for (int i = 0; i < c->count; i++) {
		cpu_debug_go(c->cpu[i], CPU_DEBUG_RUN, true);
		c->cpu[i]->debug = NULL;
	}
	cpu_debug_changed(c);
}

/* ---- on the CPU's thread ---- */

void
cpu_debug_stop(struct vcpu *v, enum cpu_debug_reason why)
{
	v->debug_reason = why;
	v->debug_frozen = true;
	v->debug_step = false;
	v->debug_hold = 0;
	atomic_fetch_or(&v->requests, REQ_PAUSE);
	if (v->debug->stopped)
		v->debug->stopped(v->debug->opaque, v);
}

enum cpu_debug_next
cpu_debug_before(struct vcpu *v, gva_t pc)
{
	if (v->debug_reason == CPU_DEBUG_WATCH)
		return CPU_DEBUG_STOP;
	if (v->debug_step) {
		if (v->debug_stepped) {
			v->debug_reason = CPU_DEBUG_STEPPED;
			return CPU_DEBUG_STOP;
		}
		v->debug_stepped = true;
		return CPU_DEBUG_ONE;
	}
	if (!cpu_debug_page(v, pc))
		return CPU_DEBUG_GO_ON;
	if (find_break(v->debug, pc) < 0)
		return CPU_DEBUG_ONE;
	v->debug_reason = CPU_DEBUG_BREAK;
	v->debug_addr = pc;
	return CPU_DEBUG_STOP;
}

void
cpu_debug_access(struct vcpu *v, gva_t a, unsigned len, bool write)
{
	const struct cpu_debug *d = v->debug;

	for (int i = 0; d && i < d->watch_count; i++) {
		const struct cpu_watch *w = &d->watches[i];

		if (!(w->kind & (write ? CPU_WATCH_WRITE : CPU_WATCH_READ)))
			continue;
		if (a - w->a < w->len || w->a - a < len) {
			v->debug_reason = CPU_DEBUG_WATCH;
			v->debug_watch = w->kind;
			v->debug_addr = w->a;
			v->engine->kick(v); /* leave what runs, behind this instruction */
		}
	}
}

/* ---- looking into a parked CPU ---- */

struct cpu_view {
	struct soft_cpu c;
	struct vcpu *of;
};

struct cpu_view *
cpu_view_open(struct cpus *c)
{
	struct cpu_view *w = aligned_alloc(64, (sizeof(*w) + 63) & ~(size_t)63);

	if (!w)
		return NULL;
	memset(w, 0, sizeof(*w));
	w->c.v.m = c->m;
	w->c.v.cpus = c;
	w->c.v.state = c->cpu[0]->state;
	x86_soft_open(&w->c);
	return w;
}

void
cpu_view_close(struct cpu_view *w)
{
	if (!w)
		return;
	x86_soft_close(&w->c);
	free(w);
}

void
cpu_view_load(struct cpu_view *w, struct vcpu *v)
{
	w->of = v;
	w->c.v.index = v->index;
	w->c.v.bsp = v->bsp;
	w->c.v.state = v->state;
	x86_update_mode(&w->c);
	x86_tlb_flush(&w->c, true);
}

bool
cpu_view_translate(struct cpu_view *w, gva_t a, gpa_t *gpa)
{
	return x86_translate(&w->c, a, gpa);
}

bool
cpu_view_use_tables(struct cpu_view *w, uint64_t cr3)
{
	if (!(w->c.v.state.efer & EFER_LMA))
		return false;
	w->c.v.state.cr3 = cr3;
	x86_tlb_flush(&w->c, true);
	return true;
}

size_t
cpu_view_read(struct cpu_view *w, gva_t a, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(PAGE_SIZE - (a & PAGE_MASK), len - done);
		gpa_t gpa;

		if (!x86_translate(&w->c, a, &gpa) || !mem_read(&w->c.v.m->mem, gpa, (uint8_t *)buf + done, n))
			break;
		done += n;
		a += n;
	}
	return done;
}

size_t
cpu_view_write(struct cpu_view *w, gva_t a, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(PAGE_SIZE - (a & PAGE_MASK), len - done);
		gpa_t gpa;

		if (!x86_translate(&w->c, a, &gpa) || !mem_write(&w->c.v.m->mem, gpa, (const uint8_t *)buf + done, n))
			break;
		done += n;
		a += n;
	}
	return done;
}

unsigned
cpu_view_bits(const struct cpu_view *w)
{
	return w->c.code_size * 8u;
}

unsigned
cpu_view_cpl(const struct cpu_view *w)
{
	return w->c.cpl;
}

gva_t
cpu_view_pc(const struct cpu_view *w)
{
	const struct x86_state *s = &w->c.v.state;

	return w->c.mode == X86_LONG64 ? s->rip : (uint32_t)(s->seg[SEG_CS].base + s->rip);
}

/* What the CPU refuses it raises. */
static bool
attempt(struct cpu_view *w, void (*change)(struct soft_cpu *c, int n, uint64_t value), int n, uint64_t value)
{
	if (setjmp(w->c.fault)) {
		w->c.v.state = w->of->state;
		x86_update_mode(&w->c);
		return false;
	}
	change(&w->c, n, value);
	w->of->state = w->c.v.state;
	return true;
}

static void
change_segment(struct soft_cpu *c, int n, uint64_t value)
{
	x86_load_seg(c, (enum seg_name)n, (uint16_t)value);
}

static void
change_control(struct soft_cpu *c, int n, uint64_t value)
{
	if (n != CPU_VIEW_EFER) {
		x86_write_cr(c, n, value);
		return;
	}
	c->v.state.gpr[RAX] = (uint32_t)value;
	c->v.state.gpr[RDX] = value >> 32;
	c->v.state.gpr[RCX] = 0xc0000080;
	x86_wrmsr(c);
}

bool
cpu_view_set_segment(struct cpu_view *w, enum seg_name seg, uint16_t sel)
{
	struct x86_seg *s = &w->of->state.seg[seg];

	if (s->sel == sel)
		return true;
	if (seg != SEG_CS)
		return attempt(w, change_segment, seg, sel);
	if (w->c.mode != X86_REAL && w->c.mode != X86_VM86)
		return false;
	s->sel = sel;
	s->base = (uint64_t)sel << 4;
	cpu_view_load(w, w->of);
	return true;
}

bool
cpu_view_set_control(struct cpu_view *w, int n, uint64_t value)
{
	uint64_t a = w->of->state.gpr[RAX], c = w->of->state.gpr[RCX], d = w->of->state.gpr[RDX];
	uint8_t cpl = w->c.cpl;
	bool ok;

	w->c.cpl = 0; /* the debugger's hand is not the guest's */
	ok = attempt(w, change_control, n, value);
	w->of->state.gpr[RAX] = a;
	w->of->state.gpr[RCX] = c;
	w->of->state.gpr[RDX] = d;
	w->c.cpl = cpl;
	cpu_view_load(w, w->of);
	return ok;
}

unsigned
cpu_disassemble(unsigned bits, const uint8_t *code, size_t avail, uint64_t a, char *text, size_t size)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;
	ZydisFormatter f;
	ZydisDecoder d;

	ZydisDecoderInit(&d,
		bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
		: bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
			     : ZYDIS_MACHINE_MODE_LEGACY_16,
		bits == 64   ? ZYDIS_STACK_WIDTH_64
		: bits == 32 ? ZYDIS_STACK_WIDTH_32
			     : ZYDIS_STACK_WIDTH_16);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (ZYAN_FAILED(ZydisDecoderDecodeFull(&d, code, avail, &in, operands))) {
		snprintf(text, size, "(undefined)");
		return 0;
	}
	if (ZYAN_FAILED(ZydisFormatterFormatInstruction(
		    &f, &in, operands, in.operand_count_visible, text, size, a, ZYAN_NULL)))
		snprintf(text, size, "(unprintable)");
	return in.length;
}

unsigned
cpu_view_disassemble(struct cpu_view *w, gva_t a, char *text, size_t size)
{
	uint8_t code[15];
	size_t n = cpu_view_read(w, a, code, sizeof(code));

	if (!n) {
		snprintf(text, size, "(not mapped)");
		return 0;
	}
	return cpu_disassemble(cpu_view_bits(w), code, n, a, text, size);
}

/* ---- the software TLB ---- */

static void
print_tlb_of(const struct soft_cpu *c, int mmu, FILE *f)
{
	static const char *const eyes[] = { [MMU_USER] = "user", [MMU_KERNEL] = "kernel", [MMU_KERNEL_SMAP] = "smap" };

	for (unsigned i = 0; i < SOFT_TLB_SIZE; i++) {
		const struct soft_tlb_entry *e = &c->tlb[mmu][i];
		const struct soft_tlb_meta *m = &c->tlb_meta[mmu][i];
		gva_t tags[] = { e->read, e->write, m->exec }, page = 0;
		char rights[4] = "---";
		bool any = false;

		for (int k = 0; k < 3; k++)
			if (tags[k] != SOFT_TLB_NEVER && (tags[k] & SOFT_TLB_GEN) == c->tlb_gen) {
				rights[k] = "rwx"[k];
				page = tags[k] & ~(gva_t)PAGE_MASK;
				any = true;
			}
		if (any)
			fprintf(f, "  %016llx -> %012llx  %s  %s%s\n", (unsigned long long)page,
				(unsigned long long)m->gpa, rights, eyes[mmu],
				e->flags && *e->flags & PAGE_CODE ? "  has translated code" : "");
	}
}

void
cpu_debug_print_tlb(struct vcpu *v, FILE *f)
{
	if (v->engine == &cpu_engine_kvm) {
		fprintf(f, "cpu%d: the TLB is the hardware's and cannot be read\n", v->index);
		return;
	}
	fprintf(f, "cpu%d: linear page, physical page, rights, for whom\n", v->index);
	for (int mmu = 0; mmu < MMU_COUNT; mmu++)
		print_tlb_of((const struct soft_cpu *)v, mmu, f);
}
