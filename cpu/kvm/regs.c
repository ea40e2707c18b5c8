/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct x86_state to and from KVM's structures (Documentation/virt/kvm/api.rst, 4.11-4.36).
 *
 * What has no place in x86_state is an event that was taken from the local APIC but not yet delivered: it is kept in
 * the vCPU between get and put, and forgotten when the state was reset in between.
 */
#include <cpuid.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm.h"

#define XSAVE_BV 512
#define MSR_COUNT 64

static int
fail(struct kvm_vcpu *k, const char *what)
{
	int error = errno;

	snprintf(k->v.error, sizeof(k->v.error), "KVM: %s failed: %s", what, strerror(error));
	return -error;
}

/* ---- general registers: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI in x86_state's order ---- */

static void
regs_to(struct kvm_regs *r, const struct x86_state *s)
{
	const uint64_t *g = s->gpr;

	*r = (struct kvm_regs){ g[RAX], g[RBX], g[RCX], g[RDX], g[RSI], g[RDI], g[RSP], g[RBP], g[R8], g[R9], g[R10],
		g[R11], g[R12], g[R13], g[R14], g[R15], s->rip, s->rflags };
}

static void
regs_from(const struct kvm_regs *r, struct x86_state *s)
{
	const uint64_t g[16] = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi, r->r8, r->r9, r->r10,
		r->r11, r->r12, r->r13, r->r14, r->r15 };

	memcpy(s->gpr, g, sizeof(g));
	s->rip = r->rip;
	s->rflags = r->rflags | 2;
}

/* ---- segments and control registers ---- */

static struct kvm_segment
segment_to(const struct x86_seg *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & SEG_TYPE,
		.s = (s->attr & SEG_S) != 0,
		.dpl = (uint8_t)SEG_DPL(s->attr),
		.present = (s->attr & SEG_P) != 0,
		.avl = (s->attr & SEG_AVL) != 0,
		.l = (s->attr & SEG_L) != 0,
		.db = (s->attr & SEG_DB) != 0,
		.g = (s->attr & SEG_G) != 0,
		.unusable = (s->attr & SEG_UNUSABLE) != 0,
	};
}

static struct x86_seg
segment_from(const struct kvm_segment *s)
{
	return (struct x86_seg){
		.base = s->base,
		.limit = s->limit,
		.sel = s->selector,
		.attr = (s->type & SEG_TYPE) | (s->s ? SEG_S : 0) | (uint32_t)(s->dpl & 3) << 5 |
			(s->present ? SEG_P : 0) | (s->avl ? SEG_AVL : 0) | (s->l ? SEG_L : 0) | (s->db ? SEG_DB : 0) |
			(s->g ? SEG_G : 0) | (s->unusable ? SEG_UNUSABLE : 0),
	};
}

static void
sregs_to(struct kvm_vcpu *k, struct kvm_sregs *r)
{
	const struct x86_state *s = &k->v.state;

	memset(r, 0, sizeof(*r));
	r->es = segment_to(&s->seg[SEG_ES]);
	r->cs = segment_to(&s->seg[SEG_CS]);
	r->ss = segment_to(&s->seg[SEG_SS]);
	r->ds = segment_to(&s->seg[SEG_DS]);
	r->fs = segment_to(&s->seg[SEG_FS]);
	r->gs = segment_to(&s->seg[SEG_GS]);
	r->ldt = segment_to(&s->seg[SEG_LDTR]);
	r->tr = segment_to(&s->seg[SEG_TR]);
	r->gdt = (struct kvm_dtable){ .base = s->gdt.base, .limit = s->gdt.limit };
	r->idt = (struct kvm_dtable){ .base = s->idt.base, .limit = s->idt.limit };
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->cr8 = cpu_get_cr8(&k->v);
	r->efer = s->efer;
	r->apic_base = k->v.m->intc.lapic[k->v.index].base;
}

static void
sregs_from(const struct kvm_sregs *r, struct x86_state *s)
{
	s->seg[SEG_ES] = segment_from(&r->es);
	s->seg[SEG_CS] = segment_from(&r->cs);
	s->seg[SEG_SS] = segment_from(&r->ss);
	s->seg[SEG_DS] = segment_from(&r->ds);
	s->seg[SEG_FS] = segment_from(&r->fs);
	s->seg[SEG_GS] = segment_from(&r->gs);
	s->seg[SEG_LDTR] = segment_from(&r->ldt);
	s->seg[SEG_TR] = segment_from(&r->tr);
	s->gdt = (struct x86_table){ .base = r->gdt.base, .limit = r->gdt.limit };
	s->idt = (struct x86_table){ .base = r->idt.base, .limit = r->idt.limit };
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->efer = r->efer;
}

/* ---- MSRs ---- */

struct msr_place {
	uint32_t index;
	size_t offset; /* in x86_state */
};

#define PLACE(index, member)                                                                                           \
	{                                                                                                              \
		index, offsetof(struct x86_state, member)                                                              \
	}

static const struct msr_place msr_places[] = {
	PLACE(0xc0000081, star),
	PLACE(0xc0000082, lstar),
	PLACE(0xc0000083, cstar),
	PLACE(0xc0000084, sfmask),
	PLACE(0xc0000102, kernel_gs_base),
	PLACE(0xc0000103, tsc_aux),
	PLACE(0x174, sysenter_cs),
	PLACE(0x175, sysenter_esp),
	PLACE(0x176, sysenter_eip),
	PLACE(0x277, pat),
	PLACE(0x1a0, misc_enable),
	PLACE(0x48, spec_ctrl),
	PLACE(0x3b, tsc_adjust),
	PLACE(0x17a, mcg_status),
	PLACE(0x250, mtrr_fixed[0]),
	PLACE(0x258, mtrr_fixed[1]),
	PLACE(0x259, mtrr_fixed[2]),
	PLACE(0x268, mtrr_fixed[3]),
	PLACE(0x269, mtrr_fixed[4]),
	PLACE(0x26a, mtrr_fixed[5]),
	PLACE(0x26b, mtrr_fixed[6]),
	PLACE(0x26c, mtrr_fixed[7]),
	PLACE(0x26d, mtrr_fixed[8]),
	PLACE(0x26e, mtrr_fixed[9]),
	PLACE(0x26f, mtrr_fixed[10]),
	PLACE(0x200, mtrr_base[0]),
	PLACE(0x201, mtrr_mask[0]),
	PLACE(0x202, mtrr_base[1]),
	PLACE(0x203, mtrr_mask[1]),
	PLACE(0x204, mtrr_base[2]),
	PLACE(0x205, mtrr_mask[2]),
	PLACE(0x206, mtrr_base[3]),
	PLACE(0x207, mtrr_mask[3]),
	PLACE(0x208, mtrr_base[4]),
	PLACE(0x209, mtrr_mask[4]),
	PLACE(0x20a, mtrr_base[5]),
	PLACE(0x20b, mtrr_mask[5]),
	PLACE(0x20c, mtrr_base[6]),
	PLACE(0x20d, mtrr_mask[6]),
	PLACE(0x20e, mtrr_base[7]),
	PLACE(0x20f, mtrr_mask[7]),
	PLACE(0x2ff, mtrr_def_type),
};
#define MSR_PLACES (sizeof(msr_places) / sizeof(msr_places[0]))
_Static_assert(MSR_PLACES <= MSR_COUNT, "room for all MSRs");

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSR_COUNT];
};

/* The kernel stops at the first MSR that this host lacks: go on behind it. */
static int
transfer_msrs(struct kvm_vcpu *k, unsigned long request, const char *what)
{
	struct msr_list list = { 0 };
	uint8_t *state = (uint8_t *)&k->v.state;

	for (size_t i = 0; i < MSR_PLACES;) {
		size_t n = MSR_PLACES - i;
		int done;

		list.head.nmsrs = (uint32_t)n;
		for (size_t j = 0; j < n; j++) {
			list.entry[j].index = msr_places[i + j].index;
			memcpy(&list.entry[j].data, state + msr_places[i + j].offset, 8);
		}
		done = ioctl(k->fd, request, &list);
		if (done < 0)
			return fail(k, what);
		if (request == KVM_GET_MSRS)
			for (size_t j = 0; j < (size_t)done; j++)
				memcpy(state + msr_places[i + j].offset, &list.entry[j].data, 8);
		i += (size_t)done + 1;
	}
	return 0;
}

/* ---- x87, vectors ---- */

/* Offset of a state component in the host's standard XSAVE format, 0 if it has none. */
static uint32_t
component_offset(unsigned i)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid_count(0xd, i, &a, &b, &c, &d) || !a || b + a > sizeof(struct kvm_xsave))
		return 0;
	return b;
}

/* One component between the XSAVE area and `count` registers from zmm[first][from]. */
static void
move_vectors(
	uint8_t *area, uint32_t offset, struct x86_state *s, unsigned first, unsigned from, unsigned size, bool put)
{
	if (!offset)
		return;
	for (unsigned i = 0; i < 16; i++) {
		uint8_t *reg = s->zmm[first + i] + from, *mem = area + offset + i * size;

		memcpy(put ? mem : reg, put ? reg : mem, size);
	}
}

static void
move_xsave(uint8_t *area, struct x86_state *s, bool put)
{
	uint32_t k = component_offset(5);

	memcpy(put ? (void *)area : (void *)&s->x87, put ? (void *)&s->x87 : (void *)area, sizeof(s->x87));
	move_vectors(area, 160, s, 0, 0, 16, put);
	move_vectors(area, component_offset(2), s, 0, 16, 16, put);
	move_vectors(area, component_offset(6), s, 0, 32, 32, put);
	move_vectors(area, component_offset(7), s, 16, 0, 64, put);
	if (k)
		memcpy(put ? (void *)(area + k) : (void *)s->k, put ? (void *)s->k : (void *)(area + k), 64);
}

static int
put_xsave(struct kvm_vcpu *k)
{
	struct kvm_xsave x = { 0 };
	uint64_t bv = 3 | (k->v.cpus->model.xcr0_supported & 0xe7);

	move_xsave((uint8_t *)x.region, &k->v.state, true);
	memcpy((uint8_t *)x.region + XSAVE_BV, &bv, 8);
	return ioctl(k->fd, KVM_SET_XSAVE, &x) < 0 ? fail(k, "KVM_SET_XSAVE") : 0;
}

/* A component that XSTATE_BV does not list is in its initial state, whatever its bytes say. */
static void
clear_unlisted(uint8_t *area)
{
	static const uint32_t size[8] = { [2] = 256, [5] = 64, [6] = 512, [7] = 1024 };
	uint64_t bv;

	memcpy(&bv, area + XSAVE_BV, 8);
	if (!(bv & 1)) {
		memset(area, 0, 24);
		memset(area + 32, 0, 128);
		area[0] = 0x7f;
		area[1] = 0x03;
	}
	if (!(bv & 2))
		memset(area + 160, 0, 256);
	for (unsigned i = 2; i < 8; i++)
		if (size[i] && !(bv >> i & 1) && component_offset(i))
			memset(area + component_offset(i), 0, size[i]);
}

static int
get_xsave(struct kvm_vcpu *k)
{
	struct kvm_xsave x;
	struct x86_state *s = &k->v.state;

	if (ioctl(k->fd, KVM_GET_XSAVE, &x) < 0)
		return fail(k, "KVM_GET_XSAVE");
	clear_unlisted((uint8_t *)x.region);
	memset(s->zmm, 0, sizeof(s->zmm));
	memset(s->k, 0, sizeof(s->k));
	move_xsave((uint8_t *)x.region, s, false);
	return 0;
}

static int
put_xcr0(struct kvm_vcpu *k)
{
	struct kvm_xcrs x = { .nr_xcrs = 1 };

	if (!k->v.cpus->model.xcr0_supported)
		return 0;
	x.xcrs[0].value = k->v.state.xcr0;
	return ioctl(k->fd, KVM_SET_XCRS, &x) < 0 ? fail(k, "KVM_SET_XCRS") : 0;
}

static int
get_xcr0(struct kvm_vcpu *k)
{
	struct kvm_xcrs x;

	if (!k->v.cpus->model.xcr0_supported)
		return 0;
	if (ioctl(k->fd, KVM_GET_XCRS, &x) < 0)
		return fail(k, "KVM_GET_XCRS");
	if (x.nr_xcrs)
		k->v.state.xcr0 = x.xcrs[0].value;
	return 0;
}

/* ---- debug registers, events ---- */

static int
put_debug(struct kvm_vcpu *k)
{
	const uint64_t *dr = k->v.state.dr;
	struct kvm_debugregs d = { .db = { dr[0], dr[1], dr[2], dr[3] }, .dr6 = dr[6], .dr7 = dr[7] };

	return ioctl(k->fd, KVM_SET_DEBUGREGS, &d) < 0 ? fail(k, "KVM_SET_DEBUGREGS") : 0;
}

static int
get_debug(struct kvm_vcpu *k)
{
	struct kvm_debugregs d;

	if (ioctl(k->fd, KVM_GET_DEBUGREGS, &d) < 0)
		return fail(k, "KVM_GET_DEBUGREGS");
	for (unsigned i = 0; i < 4; i++)
		k->v.state.dr[i] = d.db[i];
	k->v.state.dr[6] = d.dr6;
	k->v.state.dr[7] = d.dr7;
	return 0;
}

static int
put_events(struct kvm_vcpu *k)
{
	const struct x86_state *s = &k->v.state;
	struct kvm_vcpu_events e = { 0 };

	if (k->events_valid && k->events_rip == s->rip)
		e = k->events;
	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	e.interrupt.shadow = s->shadow ? KVM_X86_SHADOW_INT_STI : 0;
	e.nmi.masked = s->nmi_blocked;
	k->injected = e.interrupt.injected;
	return ioctl(k->fd, KVM_SET_VCPU_EVENTS, &e) < 0 ? fail(k, "KVM_SET_VCPU_EVENTS") : 0;
}

static int
get_events(struct kvm_vcpu *k)
{
	struct x86_state *s = &k->v.state;

	if (ioctl(k->fd, KVM_GET_VCPU_EVENTS, &k->events) < 0)
		return fail(k, "KVM_GET_VCPU_EVENTS");
	k->events_valid = true;
	k->events_rip = s->rip;
	s->shadow = k->events.interrupt.shadow != 0;
	s->nmi_blocked = k->events.nmi.masked;
	return 0;
}

/* ---- all of it ---- */

int
kvm_regs_get(struct kvm_vcpu *k)
{
	struct x86_state *s = &k->v.state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	int r;

	if (ioctl(k->fd, KVM_GET_REGS, &regs) < 0)
		return fail(k, "KVM_GET_REGS");
	if (ioctl(k->fd, KVM_GET_SREGS, &sregs) < 0)
		return fail(k, "KVM_GET_SREGS");
	regs_from(&regs, s);
	sregs_from(&sregs, s);
	r = get_xsave(k);
	r = r ? r : get_xcr0(k);
	r = r ? r : get_debug(k);
	r = r ? r : transfer_msrs(k, KVM_GET_MSRS, "KVM_GET_MSRS");
	r = r ? r : get_events(k);
	/* The kernel keeps the PDPTEs to itself; they were loaded from here. */
	if (!r && s->cr0 & CR0_PG && s->cr4 & CR4_PAE && !(s->efer & EFER_LMA))
		mem_read(&k->v.m->mem, s->cr3 & ~31ull & 0xffffffff, s->pdpte, sizeof(s->pdpte));
	return r;
}

int
kvm_regs_put(struct kvm_vcpu *k)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	int r;

	regs_to(&regs, &k->v.state);
	sregs_to(k, &sregs);
	if (ioctl(k->fd, KVM_SET_SREGS, &sregs) < 0)
		return fail(k, "KVM_SET_SREGS");
	r = put_xcr0(k);
	r = r ? r : put_xsave(k);
	r = r ? r : transfer_msrs(k, KVM_SET_MSRS, "KVM_SET_MSRS");
	if (r)
		return r;
	if (ioctl(k->fd, KVM_SET_REGS, &regs) < 0)
		return fail(k, "KVM_SET_REGS");
	r = put_debug(k);
	return r ? r : put_events(k);
}
