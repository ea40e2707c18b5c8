/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host code of one instruction.
 */
#include "cpu/jit/translate.h"

static bool
needs_host(const struct insn *n)
{
	return n->reads || (n->may && n->live_in);
}

/* Guest registers that need a temporary for one instruction. */
struct slots {
	struct {
		uint8_t guest, host;
		bool in, out;
	} s[3];
	unsigned count;
	uint32_t free; /* temporaries, by number */
};

static unsigned
take_slot(struct slots *s, unsigned guest, unsigned host, bool in, bool out)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->s[i].guest == guest) {
			s->s[i].in |= in;
			s->s[i].out |= out;
			return s->s[i].host;
		}
	if (host == NONE) {
		static const uint8_t order[] = { H_CX, T_B, T_A };

		for (unsigned i = 0; i < 3 && host == NONE; i++)
			if (s->free & 1u << order[i])
				host = order[i];
	}
	if (host == NONE || !(s->free & 1u << host))
		return NONE;
	s->free &= ~(1u << host);
	s->s[s->count].guest = (uint8_t)guest;
	s->s[s->count].host = (uint8_t)host;
	s->s[s->count].in = in;
	s->s[s->count++].out = out;
	return host;
}

static bool
place(struct jit_form *f, const ZydisDecodedOperand *o, unsigned host)
{
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		f->opreg = (uint8_t)host;
		return true;
	default:
		return o->encoding == ZYDIS_OPERAND_ENCODING_NONE;
	}
}

static bool
any_high_byte(const struct insn *n)
{
	for (unsigned i = 0; i < n->in.operand_count; i++)
		if (n->o[i].type == ZYDIS_OPERAND_TYPE_REGISTER && jit_is_high_byte(&n->o[i]))
			return true;
	return false;
}

static bool
place_gpr(struct slots *s, struct jit_form *f, const ZydisDecodedOperand *o, bool high, bool keep)
{
	unsigned g = jit_guest_gpr(o->reg.value), host = jit_host_reg[g];
	bool in = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ || o->size < 32 ||
		  o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE || keep;
	bool out = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE && g != RCX)
		return true;
	if (g == RCX && (high || o->encoding == ZYDIS_OPERAND_ENCODING_NONE))
		host = take_slot(s, RCX, H_CX, in, out);
	else if (g == RSP && high)
		return false;
	else if (host == NONE)
		host = take_slot(s, g, NONE, in, out);
	if (host == NONE)
		return false;
	if (jit_is_high_byte(o))
		host += 4;
	else if (o->size == 8 && host >= 4)
		f->force_rex = true;
	return place(f, o, host);
}

/* The implicit RCX first: it has no choice. */
static bool
place_registers(const struct insn *n, struct slots *s, struct jit_form *f)
{
	bool high = any_high_byte(n);
	bool keep = n->in.mnemonic == ZYDIS_MNEMONIC_BSF || n->in.mnemonic == ZYDIS_MNEMONIC_BSR;

	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < n->in.operand_count; i++) {
			const ZydisDecodedOperand *o = &n->o[i];
			bool first = o->encoding == ZYDIS_OPERAND_ENCODING_NONE || high;

			if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || first != (round == 0))
				continue;
			if (!jit_is_gpr(o)) {
				int id = ZydisRegisterGetId(o->reg.value);

				if (id >= 0 && o->encoding != ZYDIS_OPERAND_ENCODING_NONE)
					place(f, o, (unsigned)id);
			} else if (!place_gpr(s, f, o, high, keep))
				return false;
		}
	return true;
}

static void
load_slots(struct jit_scratch *t, const struct slots *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (!s->s[i].in)
			continue;
		if (jit_host_reg[s->s[i].guest] != NONE)
			e_mov(&t->e, s->s[i].host, jit_host_reg[s->s[i].guest]);
		else
			e_load(&t->e, s->s[i].host, JIT_OFF_GPR(s->s[i].guest));
	}
}

static void
store_slots(struct jit_scratch *t, const struct slots *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (!s->s[i].out)
			continue;
		if (jit_host_reg[s->s[i].guest] != NONE)
			e_mov(&t->e, jit_host_reg[s->s[i].guest], s->s[i].host);
		else
			e_store(&t->e, s->s[i].host, JIT_OFF_GPR(s->s[i].guest));
	}
}

static void
help(struct jit_scratch *t, const struct insn *n)
{
	jit_save_flags(t);
	e_mov_imm32(&t->e, H_CX, jit_site_of(t, n) | SITE_REFUSAL(n->why));
	e_mov_imm32(&t->e, T_A, HELP_INTERP);
	e_call(&t->e, t->j->stub.call);
	t->w.host_ok = t->w.fp_ok = false;
}

static void
string_help(struct jit_scratch *t, const struct insn *n)
{
	static const uint8_t kinds[12] = { JIT_MOVS, JIT_MOVS, JIT_CMPS, JIT_CMPS, 0, 0, JIT_STOS, JIT_STOS, JIT_LODS,
		JIT_LODS, JIT_SCAS, JIT_SCAS };
	unsigned size = n->in.opcode & 1 ? n->in.operand_width / 8u : 1;
	uint32_t site;

	jit_save_flags(t);
	site = jit_site_of(t, n) | SITE_SIZE_BITS(__builtin_ctz(size)) | SITE_REFUSAL(kinds[n->in.opcode - 0xa4]);
	for (unsigned i = 0; i < n->in.raw.prefix_count; i++) {
		if (n->in.raw.prefixes[i].value == 0xf3)
			site = (site & ~(uint32_t)SITE_WRITE) | SITE_READ;
		else if (n->in.raw.prefixes[i].value == 0xf2)
			site = (site & ~(uint32_t)SITE_READ) | SITE_WRITE;
	}
	e_mov_imm32(&t->e, H_CX, site);
	e_mov_imm32(&t->e, T_A, HELP_STRING);
	e_call(&t->e, t->j->stub.call);
	t->w.host_ok = t->w.fp_ok = false;
}

/* At CPL 0 nothing is checked. */
static void
swap_gs(struct jit_scratch *t)
{
	uint32_t base = JIT_OFF(i.c.v.state.seg) + (uint32_t)sizeof(struct x86_seg) * SEG_GS +
			(uint32_t)offsetof(struct x86_seg, base);

	e_load(&t->e, T_A, base);
	e_load(&t->e, T_B, JIT_OFF(i.c.v.state.kernel_gs_base));
	e_store(&t->e, T_A, JIT_OFF(i.c.v.state.kernel_gs_base));
	e_store(&t->e, T_B, base);
}

static void
system_help(struct jit_scratch *t, const struct insn *n)
{
	bool quad =
		n->in.mnemonic != ZYDIS_MNEMONIC_SYSRET || (n->in.attributes & ZYDIS_ATTRIB_HAS_REX && n->in.raw.rex.W);

	jit_save_flags(t);
	e_mov_imm32(&t->e, H_CX, jit_site_of(t, n) | SITE_SIZE_BITS(quad ? 3 : 2) | SITE_REFUSAL(n->system));
	if (n->system == JIT_SYSCALL && t->j->i.c.cpl == 3) {
		e_call(&t->e, t->j->stub.syscall);
	} else if (n->system == JIT_SYSRET && quad && !t->j->i.c.cpl) {
		e_call(&t->e, t->j->stub.sysret);
	} else {
		e_mov_imm32(&t->e, T_A, HELP_SYSTEM);
		e_call(&t->e, t->j->stub.call);
	}
	t->w.host_ok = t->w.fp_ok = false;
}

static uint32_t
quick_stub(struct jit_scratch *t, const struct insn *n)
{
	switch (n->system) {
	case JIT_STAC:
		return t->w.mmu == MMU_KERNEL_SMAP ? t->j->stub.stac : t->j->stub.call;
	case JIT_CLAC:
		return t->w.mmu == MMU_KERNEL ? t->j->stub.clac : t->j->stub.call;
	case JIT_RDTSC:
		return t->j->stub.rdtsc;
	default:
		return t->j->stub.rdtscp;
	}
}

/* STAC and CLAC: what the stub leaves to C does not come back if it changes the mode, so behind it the mode is known. */
static void
quick_help(struct jit_scratch *t, const struct insn *n)
{
	uint32_t stub = quick_stub(t, n);

	jit_clobber(t, n->live_in);
	e_mov_imm32(&t->e, H_CX, jit_site_of(t, n) | SITE_REFUSAL(n->system));
	if (stub == t->j->stub.call)
		e_mov_imm32(&t->e, T_A, HELP_SYSTEM);
	e_call(&t->e, stub);
	if (stub == t->j->stub.stac)
		t->w.mmu = MMU_KERNEL;
	else if (stub == t->j->stub.clac)
		t->w.mmu = MMU_KERNEL_SMAP;
	t->w.fp_ok = false;
}

/* Can this instruction's registers be placed? Decided before anything is written. */
static bool
plan(const struct insn *n, uint32_t taken, struct slots *s, struct jit_form *f)
{
	*f = (struct jit_form){ .reg = NONE, .rm = NONE, .vvvv = NONE, .opreg = NONE, .base = NONE };
	memset(s, 0, sizeof(*s));
	s->free = (1u << H_CX | 1u << T_B | 1u << T_A) & ~taken;
	if (n->mem) {
		f->base = T_A;
		if (any_high_byte(n)) { /* no REX: the address goes to RCX */
			f->base = H_CX;
			s->free &= ~(1u << H_CX);
		}
	}
	return place_registers(n, s, f);
}

bool
jit_fits_window(const struct insn *n, bool both)
{
	struct slots s = { .free = 1u << H_CX | (both ? 0 : 1u << T_A) };
	struct jit_form f = { .reg = NONE, .rm = NONE, .vvvv = NONE, .opreg = NONE, .base = NONE };

	return place_registers(n, &s, &f);
}

bool
jit_fits_group(const struct insn *n)
{
	struct slots s;
	struct jit_form f;

	return plan(n, 1u << T_A, &s, &f);
}

/* Vector registers are to be in the host's. The flags stay as they are. */
void
jit_need_fp(struct jit_scratch *t, const struct insn *n)
{
	struct later *l;

	if (t->w.fp_ok)
		return;
	e_load32(&t->e, H_CX, JIT_OFF(hot.fp_off));
	e_jrcxz(&t->e, 5);
	l = jit_later(t, LATER_FP, e_jump_later(&t->e, 0xff), jit_site_of(t, n) | SITE_REFUSAL(JIT_FP));
	l->save = !t->w.mem_ok;
	l->load = t->w.host_ok;
	t->w.fp_ok = true;
}

/* Is the operand checked with its group? Then T_A is its host address, less n->at. */
static bool
grouped(const struct jit_scratch *t, const struct insn *n)
{
	return t->in_line && n->grouped;
}

static uint32_t
taken(const struct jit_scratch *t, const struct insn *n)
{
	if (n->mem && grouped(t, n) && t->through.base != NONE)
		return 1u << T_B | 1u << t->through.base;
	return n->mem || t->in_group ? 1u << T_A : 0;
}

static void
passing(struct jit_scratch *t, struct insn *n)
{
	struct slots s;
	struct jit_form f;

	if (!plan(n, taken(t, n), &s, &f)) {
		jit_refuse(n, JIT_REGISTERS);
		n->live_in = n->live_out = ARITH_FLAGS;
		help(t, n);
		return;
	}
	f.narrow = !t->wide;
	if (n->kind == K_FP)
		jit_need_fp(t, n);
	if (n->mem && !grouped(t, n)) {
		jit_clobber(t, n->live_in);
		jit_linear_address(t, n, n->mem, 0);
		jit_check(t, n, jit_mem_size(n), jit_access_of(n));
	} else if (n->mem) {
		f.disp = n->at;
		if (t->through.base != NONE) {
			f.base = (uint8_t)t->through.base;
			f.index = T_B;
			f.disp += t->through.disp;
		}
	}
	if (needs_host(n))
		jit_need_host(t);
	if (f.base == H_CX)
		e_mov(&t->e, H_CX, T_A);
	load_slots(t, &s);
	if (n->mem)
		jit_access_here(t, n);
	jit_encode(&t->e, &n->in, t->code + (n->off - t->first), &f);
	if (n->may) {
		t->w.host_ok = true;
		t->w.mem_ok = false;
	}
	store_slots(t, &s);
	jit_checked(t);
}

/* BT and friends: the bit index moves the address by operands, what is left of it chooses the bit. */
static void
bits(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;
	unsigned bytes = n->in.operand_width / 8u, g = jit_guest_gpr(n->o[1].reg.value), index;
	struct jit_form f = { .reg = T_B, .rm = NONE, .vvvv = NONE, .opreg = NONE, .base = T_A };

	jit_clobber(t, n->live_in);
	jit_linear_address(t, n, n->mem, 0);
	index = jit_fetch(t, g, T_B);
	if (bytes == 8) {
		e_mov(e, T_B, index);
	} else if (bytes == 4) {
		e_rr(e, true, 0x63, T_B, index); /* movsxd */
	} else {
		e_rex(e, true, T_B, 0, index); /* movsx */
		E_BYTES(e, 0x0f, 0xbf, 0xc0 | (T_B & 7) << 3 | (index & 7));
	}
	e_rex(e, true, 0, 0, T_B);
	E_BYTES(e, 0xc1, 0xf8 | (T_B & 7), bytes == 8 ? 6 : bytes == 4 ? 5 : 4); /* sar */
	e_lea(e, t->wide, T_A, T_A, T_B, bytes == 8 ? 3 : bytes == 4 ? 2 : 1, 0);
	jit_check(t, n, bytes, jit_access_of(n));
	e_mov32(e, T_B, jit_fetch(t, g, T_B));
	e_alu_imm(e, false, 4, T_B, (int32_t)bytes * 8 - 1);
	jit_need_host(t);
	jit_encode(e, &n->in, t->code + (n->off - t->first), &f);
	t->w.mem_ok = false;
	jit_checked(t);
}

static void
lea(struct jit_scratch *t, const struct insn *n)
{
	unsigned g = jit_guest_gpr(n->o[0].reg.value), host = jit_host_reg[g];
	bool w = n->in.operand_width == 64;
	unsigned dst = host != NONE ? host : t->in_group ? T_B : T_A;

	jit_address(t, n, n->mem, dst, w);
	if (host == NONE)
		e_store(&t->e, dst, JIT_OFF_GPR(g));
}

static void
move_sp(struct jit_scratch *t, int32_t by)
{
	e_lea(&t->e, t->wide, H_10, H_10, NONE, 0, by);
}

/* T_A: an address that is in a register. */
static void
take_target(struct jit_scratch *t, unsigned from)
{
	if (t->wide)
		e_mov(&t->e, T_A, from);
	else
		e_mov32(&t->e, T_A, from);
}

/* T_A: host address of the place for one push; returned: displacement from it. */
static int32_t
push_place(struct jit_scratch *t, const struct insn *n)
{
	if (grouped(t, n))
		return n->at;
	e_lea(&t->e, t->wide, T_A, H_10, NONE, 0, -(int32_t)t->stack);
	jit_check(t, n, t->stack, SITE_WRITE | SITE_SS);
	return 0;
}

static int32_t
pop_place(struct jit_scratch *t, const struct insn *n, unsigned from)
{
	if (grouped(t, n))
		return n->at;
	take_target(t, from);
	jit_check(t, n, t->stack, SITE_READ | SITE_SS);
	return 0;
}

static void
value_at(struct jit_scratch *t, unsigned opcode, unsigned reg, int32_t at)
{
	if (t->through.base == NONE)
		e_mem(&t->e, t->wide, opcode, reg, T_A, NONE, 0, at);
	else
		e_mem(&t->e, t->wide, opcode, reg, t->through.base, T_B, 0, t->through.disp + at);
}

static void
store_value(struct jit_scratch *t, unsigned reg, int32_t at)
{
	value_at(t, 0x89, reg, at);
}

static void
load_value(struct jit_scratch *t, unsigned reg, int32_t at)
{
	value_at(t, 0x8b, reg, at);
}

static void
load_operand(struct jit_scratch *t, const struct insn *n)
{
	jit_linear_address(t, n, n->mem, 0);
	jit_check(t, n, t->stack, jit_access_of(n));
	load_value(t, H_CX, 0);
}

static void
push(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];
	int32_t at;

	if (!grouped(t, n))
		jit_clobber(t, n->live_in);
	if (n->mem) {
		load_operand(t, n);
		e_store(&t->e, H_CX, JIT_OFF(hot.scratch));
	}
	at = push_place(t, n);
	if (n->mem) {
		e_load(&t->e, H_CX, JIT_OFF(hot.scratch));
		store_value(t, H_CX, at);
	} else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		jit_access_here(t, n);
		value_at(t, 0xc7, 0, at);
		e32(&t->e, (uint32_t)o->imm.value.s);
	} else {
		unsigned from = jit_fetch(t, jit_guest_gpr(o->reg.value), H_CX);

		jit_access_here(t, n);
		store_value(t, from, at);
	}
	move_sp(t, -(int32_t)t->stack);
	jit_checked(t);
}

static void
push_flags(struct jit_scratch *t, const struct insn *n)
{
	jit_save_flags(t);
	t->w.host_ok = false;
	push_place(t, n);
	e_call(&t->e, t->j->stub.rflags);
	store_value(t, H_CX, 0);
	move_sp(t, -(int32_t)t->stack);
	jit_checked(t);
}

static void
pop(struct jit_scratch *t, const struct insn *n)
{
	unsigned g = jit_guest_gpr(n->o[0].reg.value), host = jit_host_reg[g];
	int32_t at;

	if (!grouped(t, n))
		jit_clobber(t, n->live_in);
	at = pop_place(t, n, H_10);
	jit_access_here(t, n);
	load_value(t, host == NONE ? H_CX : host, at);
	if (host == NONE)
		e_store(&t->e, H_CX, JIT_OFF_GPR(g));
	if (g != RSP)
		move_sp(t, (int32_t)t->stack);
	jit_checked(t);
}

static void
leave(struct jit_scratch *t, const struct insn *n)
{
	jit_clobber(t, n->live_in);
	pop_place(t, n, H_BP);
	e_lea(&t->e, t->wide, H_10, H_BP, NONE, 0, (int32_t)t->stack);
	load_value(t, H_BP, 0);
	jit_checked(t);
}

static void
call(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];
	int32_t at;

	jit_save_flags(t);
	if (!grouped(t, n))
		t->w.host_ok = false;
	if (n->mem) {
		load_operand(t, n);
		e_store(&t->e, H_CX, JIT_OFF(hot.scratch));
	}
	at = push_place(t, n);
	jit_rip_to(t, H_CX, n->off + n->in.length);
	jit_access_here(t, n);
	store_value(t, H_CX, at);
	move_sp(t, -(int32_t)t->stack);
	t->tested = 0;
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		t->w.host_ok = false;
		jit_direct_jump(t, jit_target_of(n));
		return;
	}
	if (n->mem)
		e_load(&t->e, T_A, JIT_OFF(hot.scratch));
	else
		take_target(t, jit_fetch(t, jit_guest_gpr(o->reg.value), T_A));
	jit_note_origin(t, n, JIT_PUSHED);
	jit_far_jump(t);
}

static void
ret(struct jit_scratch *t, const struct insn *n)
{
	int32_t at;

	jit_save_flags(t);
	at = pop_place(t, n, H_10);
	jit_access_here(t, n);
	load_value(t, T_A, at);
	move_sp(t, (int32_t)t->stack);
	t->tested = 0;
	jit_note_origin(t, n, JIT_POPPED);
	jit_far_jump(t);
}

static void
jump(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];

	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		jit_direct_jump(t, jit_target_of(n));
		return;
	}
	jit_clobber(t, ARITH_FLAGS);
	if (n->mem) {
		load_operand(t, n);
		e_mov(&t->e, T_A, H_CX);
		t->tested = 0;
	} else {
		take_target(t, jit_fetch(t, jit_guest_gpr(o->reg.value), T_A));
	}
	jit_note_origin(t, n, JIT_NOT_MOVED);
	jit_far_jump(t);
}

/* Overflow and division by 0 are left to the interpreter: a host exception would be a signal. */
static void
division(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;
	bool w = n->in.operand_width == 64, is_signed = n->in.mnemonic == ZYDIS_MNEMONIC_IDIV;
	uint32_t data, out[2];
	unsigned outs = 0;

	jit_clobber(t, n->live_in);
	if (n->mem) {
		jit_linear_address(t, n, n->mem, 0);
		jit_check(t, n, jit_mem_size(n), jit_access_of(n));
		t->tested = 0;
		e_mem(e, w, 0x8b, H_CX, T_A, NONE, 0, 0);
	} else {
		e_mov(e, H_CX, jit_fetch(t, jit_guest_gpr(n->o[0].reg.value), H_CX));
	}
	if (is_signed) {
		e_mov(e, T_B, H_AX);
		e_rex(e, w, 0, 0, T_B); /* sar r15, 63 or 31 */
		E_BYTES(e, 0xc1, 0xf8 | (T_B & 7), w ? 63 : 31);
		e_rr(e, w, 0x39, H_DX, T_B);
		out[outs++] = e_jump_later(e, 5);
		e_lea(e, w, T_B, H_CX, NONE, 0, 1);
		e_alu_imm(e, w, 7, T_B, 1);
		out[outs++] = e_jump_later(e, 6);
	} else {
		e_rr(e, w, 0x39, H_CX, H_DX); /* cmp rdx, rcx */
		out[outs++] = e_jump_later(e, 3);
	}
	e_rr(e, w, 0xf7, is_signed ? 7 : 6, H_CX);
	data = jit_site_of(t, n) | SITE_REFUSAL(JIT_DIVIDE);
	for (unsigned i = 0; i < outs; i++)
		jit_later(t, LATER_HELP, out[i], data);
	t->w.fp_ok = t->w.host_ok = false;
}

/* AND or OR of the guest's RFLAGS with an immediate. */
static void
change_rflags(struct jit_scratch *t, const struct insn *n, bool set, uint32_t flag)
{
	jit_clobber(t, n->live_in);
	e_cpu(&t->e, false, 0x81, set ? 1 : 4, JIT_OFF(i.c.v.state.rflags));
	e32(&t->e, set ? flag : ~flag);
}

static void
set_if(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;
	uint32_t none;

	change_rflags(t, n, true, FLAG_IF);
	e_cpu(e, false, 0x83, 7, JIT_OFF(i.c.v.requests)); /* cmp dword [requests], 0 */
	e8(e, 0);
	none = e_jump_later(e, 4);
	e_cpu(e, false, 0xc7, 0, JIT_OFF(hot.run_ok));
	e32(e, 0);
	e_here(e, none);
}

void
jit_write_insn(struct jit_scratch *t, struct insn *n)
{
	switch (n->kind) {
	case K_PASS:
	case K_FP:
		passing(t, n);
		break;
	case K_NOP:
		break;
	case K_LEA:
		lea(t, n);
		break;
	case K_PUSH:
		push(t, n);
		break;
	case K_POP:
		pop(t, n);
		break;
	case K_LEAVE:
		leave(t, n);
		break;
	case K_CALL:
		call(t, n);
		break;
	case K_RET:
		ret(t, n);
		break;
	case K_JMP:
		jump(t, n);
		break;
	case K_JCC:
		jit_conditional_jump(t, n);
		break;
	case K_DIV:
		division(t, n);
		break;
	case K_STRING:
		string_help(t, n);
		break;
	case K_SWAPGS:
		swap_gs(t);
		break;
	case K_SYSTEM:
		system_help(t, n);
		break;
	case K_QUICK:
		quick_help(t, n);
		break;
	case K_PUSHF:
		push_flags(t, n);
		break;
	case K_BITS:
		bits(t, n);
		break;
	case K_CLI:
		change_rflags(t, n, false, FLAG_IF);
		break;
	case K_STI:
		set_if(t, n);
		break;
	case K_CLD:
		change_rflags(t, n, false, FLAG_DF);
		break;
	case K_STD:
		change_rflags(t, n, true, FLAG_DF);
		break;
	case K_HELP:
		help(t, n);
		break;
	}
}
