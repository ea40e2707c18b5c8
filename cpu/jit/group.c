/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: instructions that follow each other and whose operands lie at distances known now, so that one check of the
 * range covers them: the same base and index, which nothing in between changes, or the stack, where PUSH, POP, CALL,
 * RET and additions to RSP are followed. Instructions without operands in memory may be in between, and conditional
 * jumps: who jumps out of a group has had more checked than was needed, which nobody sees.
 *
 * If the range lies in one page that may be accessed, nothing in a group can fault. That is why those that may end
 * otherwise (divisions, what is left to C) are never in one.
 */
#include "cpu/jit/translate.h"

#define MEMBERS_MAX 32u
#define SPAN_MAX 256

struct builder {
	struct insn *first;
	unsigned size; /* up to the last access */
	bool stack, closed;
	ZydisRegister segment, base, index;
	unsigned scale;
	int32_t sp; /* RSP, from what it was at `first` */
	int32_t low, high, origin;
	unsigned align;
	int32_t align_pos;
	bool write, fp;
};

static bool
is_stack_kind(const struct insn *n)
{
	if (n->mem)
		return false;
	switch (n->kind) {
	case K_PUSH:
	case K_RET:
		return true;
	case K_POP:
		return jit_guest_gpr(n->o[0].reg.value) != RSP;
	case K_CALL:
		return n->o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	default:
		return false;
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
is_operand_kind(const struct jit_scratch *t, const struct insn *n)
{
	return (n->kind == K_PASS || n->kind == K_FP) && n->mem && n->in.address_width == t->stack * 8 &&
	       n->mem->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && !(jit_access_of(n) & SITE_MASKED) &&
	       !any_high_byte(n) && jit_fits_group(n);
}

static bool
is_stack_operand(const struct insn *n)
{
	const ZydisDecodedOperandMem *m = &n->mem->mem;

	return m->base == ZYDIS_REGISTER_RSP && m->index == ZYDIS_REGISTER_NONE && m->segment < ZYDIS_REGISTER_FS;
}

static bool
same_address(const struct builder *b, const struct insn *n)
{
	const ZydisDecodedOperandMem *m = &n->mem->mem;

	if (b->stack)
		return is_stack_operand(n);
	return m->base == b->base && m->index == b->index && m->segment == b->segment &&
	       (m->index == ZYDIS_REGISTER_NONE || m->scale == b->scale);
}

/* Where the access of `n` is, from RSP at the group's start or from the other base. */
static int32_t
position(const struct jit_scratch *t, const struct builder *b, const struct insn *n)
{
	if (n->kind == K_PUSH || n->kind == K_CALL)
		return b->sp - (int32_t)t->stack;
	if (n->kind == K_POP || n->kind == K_RET)
		return b->sp;
	return (int32_t)n->mem->mem.disp.value + (b->stack ? b->sp : 0) +
	       (n->mem->mem.base == ZYDIS_REGISTER_RIP ? n->off + n->in.length : 0);
}

static unsigned
access_size(const struct jit_scratch *t, const struct insn *n)
{
	return is_stack_kind(n) ? t->stack : jit_mem_size(n);
}

/* Several aligned operands have to agree on what alignment of the group's first byte they need. */
static bool
take_alignment(struct builder *b, const struct insn *n, int32_t at, unsigned size)
{
	if (is_stack_kind(n) || !(jit_access_of(n) & SITE_ALIGN))
		return true;
	if (!b->align) {
		b->align = size;
		b->align_pos = at;
		return true;
	}
	return size == b->align && !((at - b->align_pos) & (int32_t)(size - 1));
}

static bool
take_access(const struct jit_scratch *t, struct builder *b, struct insn *n)
{
	unsigned size = access_size(t, n);
	int32_t at = position(t, b, n), low = MIN(b->low, at), high = MAX(b->high, at + (int32_t)size);

	if (high - low > SPAN_MAX || !take_alignment(b, n, at, size))
		return false;
	b->low = low;
	b->high = high;
	b->write |= n->kind == K_PUSH || n->kind == K_CALL ||
		    (n->kind != K_POP && n->kind != K_RET && jit_access_of(n) & SITE_WRITE);
	n->at = at;
	n->grouped = true;
	b->size = (unsigned)(n - b->first) + 1;
	return true;
}

static bool
writes(const struct insn *n, unsigned guest)
{
	for (unsigned i = 0; i < n->in.operand_count; i++) {
		const ZydisDecodedOperand *o = &n->o[i];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && jit_is_gpr(o) &&
			o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && jit_guest_gpr(o->reg.value) == guest)
			return true;
	}
	return false;
}

/* ADD or SUB RSP, imm; LEA RSP, [RSP + imm]. */
static bool
moves_stack(const struct jit_scratch *t, const struct insn *n, int32_t *by)
{
	const ZydisDecodedOperand *o = n->o;

	if (n->in.operand_width != t->stack * 8 || o[0].type != ZYDIS_OPERAND_TYPE_REGISTER || !jit_is_gpr(o) ||
		jit_guest_gpr(o[0].reg.value) != RSP)
		return false;
	if (n->kind == K_LEA && o[1].mem.base == ZYDIS_REGISTER_RSP && o[1].mem.index == ZYDIS_REGISTER_NONE) {
		*by = (int32_t)o[1].mem.disp.value;
		return true;
	}
	if (n->kind != K_PASS || o[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	if (n->in.mnemonic != ZYDIS_MNEMONIC_ADD && n->in.mnemonic != ZYDIS_MNEMONIC_SUB)
		return false;
	*by = (int32_t)o[1].imm.value.s;
	if (n->in.mnemonic == ZYDIS_MNEMONIC_SUB)
		*by = -*by;
	return *by > -65536 && *by < 65536;
}

/* After `n`: is the base still what it was? */
static void
follow(const struct jit_scratch *t, struct builder *b, const struct insn *n)
{
	int32_t by;

	if (b->stack) {
		if (n->kind == K_PUSH || n->kind == K_CALL)
			b->sp -= (int32_t)t->stack;
		else if (n->kind == K_POP)
			b->sp += (int32_t)t->stack;
		else if (moves_stack(t, n, &by))
			b->sp += by;
		else if (writes(n, RSP))
			b->closed = true;
		b->closed |= b->sp < -65536 || b->sp > 65536;
		return;
	}
	if (b->base != ZYDIS_REGISTER_NONE && b->base != ZYDIS_REGISTER_RIP && writes(n, jit_guest_gpr(b->base)))
		b->closed = true;
	if (b->index != ZYDIS_REGISTER_NONE && writes(n, jit_guest_gpr(b->index)))
		b->closed = true;
}

static bool
may_be_between(const struct insn *n)
{
	switch (n->kind) {
	case K_PASS:
	case K_FP:
		return !n->mem && jit_fits_group(n);
	case K_LEA:
		return n->mem->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
	case K_JCC:
	case K_NOP:
		return true;
	default:
		return false;
	}
}

/* False: `n` ends the group before it. */
static bool
take(const struct jit_scratch *t, struct builder *b, struct insn *n)
{
	bool stack_kind = is_stack_kind(n);

	if (stack_kind || is_operand_kind(t, n)) {
		if (b->closed || (stack_kind ? !b->stack : !same_address(b, n)) || !take_access(t, b, n))
			return false;
	} else if (!may_be_between(n)) {
		return false;
	}
	follow(t, b, n);
	return !n->ends;
}

static void
start(const struct jit_scratch *t, struct builder *b, struct insn *n)
{
	*b = (struct builder){ .first = n, .stack = is_stack_kind(n) || is_stack_operand(n) };
	if (n->mem) {
		b->segment = n->mem->mem.segment;
		b->base = n->mem->mem.base;
		b->index = n->mem->mem.index;
		b->scale = n->mem->mem.scale;
	}
	b->low = b->high = b->origin = position(t, b, n);
}

static void
finish(struct builder *b)
{
	struct insn *n = b->first;
	bool from_rsp = is_stack_kind(n);

	n->members = (uint8_t)b->size;
	n->group.low = b->low - (from_rsp ? 0 : b->origin);
	n->group.span = (uint16_t)(b->high - b->low);
	n->group.write = b->write;
	n->group.stack = b->stack;
	n->group.align = (uint8_t)b->align;
	n->group.align_at = b->align ? (uint8_t)((unsigned)(b->align_pos - b->low) & (b->align - 1)) : 0;
	n->group.fp = false;
	for (unsigned i = 0; i < b->size; i++) {
		n[i].at -= b->low;
		n->group.fp |= n[i].kind == K_FP;
	}
}

void
jit_find_groups(struct jit_scratch *t)
{
	unsigned i = 0;

	while (i < t->count) {
		struct insn *n = &t->insn[i];
		struct builder b;

		if (!is_stack_kind(n) && !is_operand_kind(t, n)) {
			i++;
			continue;
		}
		start(t, &b, n);
		for (unsigned k = i; k < t->count && k - i < MEMBERS_MAX; k++)
			if (!take(t, &b, &t->insn[k]))
				break;
		finish(&b);
		i += b.size;
	}
}
