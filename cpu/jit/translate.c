/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block: from its first guest instruction, which somebody jumped to, over conditional jumps that are not taken, to
 * the end of its page, an unconditional transfer, or a limit. translate.h tells how its code is made.
 *
 * Entries: see struct jit_block. What the body expects (`assume`) is chosen by its first use of flags; the entry for
 * the other form is among what is seldom run.
 */
#include <errno.h>
#include <stdlib.h>

#include "cpu/jit/translate.h"

int
jit_translate_open(struct jit_cpu *j)
{
	j->work = calloc(1, sizeof(*j->work));
	if (!j->work)
		return -ENOMEM;
	j->work->j = j;
	return 0;
}

void
jit_translate_close(struct jit_cpu *j)
{
	free(j->work);
	j->work = NULL;
}

/* ---- things to be done behind the block ---- */

struct later *
jit_later(struct jit_scratch *t, enum later_kind kind, uint32_t site, uint32_t data)
{
	struct later *l = &t->later[t->laters++];

	*l = (struct later){ .kind = kind, .site = { site }, .data = data, .back = e_at(&t->e) };
	return l;
}

static void
help_again(struct jit_scratch *t, const struct later *l, enum jit_helper_index helper, uint32_t site)
{
	e_mov_imm32(&t->e, H_CX, site);
	e_mov_imm32(&t->e, T_A, helper);
	e_call(&t->e, t->j->stub.call);
	if (l->load)
		e_call(&t->e, t->j->stub.load);
	e_jmp(&t->e, l->back);
}

static struct jit_link *
link_of(const struct jit_scratch *t, const struct later *l)
{
	return (struct jit_link *)(void *)(t->j->meta + l->data);
}

static void
write_later(struct jit_scratch *t, const struct later *l)
{
	struct emit *e = &t->e;

	for (unsigned i = 0; i < ARRAY_LEN(l->site); i++)
		if (l->site[i])
			e_here(e, l->site[i]);
	if (l->kind == LATER_LINK)
		link_of(t, l)->stub = e_at(e);
	if (l->save && l->kind != LATER_FAR)
		e_call(e, t->j->stub.save);
	switch (l->kind) {
	case LATER_GROUP:
		jit_group_again(t, l);
		break;
	case LATER_LINK:
		e_mov_imm32(e, H_CX, l->data);
		e_jmp(e, t->j->stub.link);
		link_of(t, l)->leaves = (uint8_t)(e_at(e) - 4 - link_of(t, l)->stub);
		break;
	case LATER_FAR:
		jit_far_jump_later(t, l);
		break;
	case LATER_GUARD:
		e_mov_imm32(e, H_CX, l->data);
		e_jmp(e, t->j->stub.cross[t->upper]);
		break;
	case LATER_FP:
		help_again(t, l, HELP_FP, l->data | SITE_FLAGS);
		break;
	case LATER_HELP:
		help_again(t, l, HELP_INTERP, l->data);
		break;
	case LATER_CROSS:
		help_again(t, l, HELP_CROSS, l->data);
		break;
	}
}

/* ---- entries ---- */

static bool
loses_flags(const struct jit_scratch *t, const struct insn *n)
{
	switch (n->kind) {
	case K_NOP:
	case K_LEA:
	case K_JMP:
	case K_JCC:
		return n->mem && n->kind == K_JMP;
	case K_PASS:
	case K_FP:
		return n->mem && !(t->windows && n->grouped);
	default:
		return true;
	}
}

static enum assume
choose_assumption(const struct jit_scratch *t)
{
	if (!t->insn[0].live_in)
		return ASSUME_DEAD;
	if (t->second)
		return ASSUME_MEM;
	for (unsigned i = 0; i < t->count; i++) {
		const struct insn *n = &t->insn[i];

		if (loses_flags(t, n))
			return ASSUME_MEM;
		if (n->kind == K_JCC || n->reads || n->may)
			return ASSUME_HOST;
	}
	return ASSUME_HOST;
}

static void
note_page(struct jit_scratch *t)
{
	struct emit *e = &t->e;

	e_lea(e, t->wide, T_A, T_A, NONE, 0, -(int32_t)t->first);
	e_store(e, T_A, JIT_OFF(hot.page_va));
}

/* Returns where ways that need no poll come in: in tier 1 they are sampled too, or what follows a hot block without a
 * jump backwards would stay as it is. */
static uint32_t
write_poll(struct jit_scratch *t, uint32_t stop)
{
	struct emit *e = &t->e;
	uint32_t body;

	e_load32(e, H_CX, JIT_OFF(hot.run_ok));
	e_jrcxz(e, stop - (e_at(e) + 2));
	body = e_at(e);
	if (t->tier == 1) {
		e_load32(e, H_CX, JIT_OFF(hot.sample));
		e_lea(e, false, H_CX, H_CX, NONE, 0, -1);
		e_store32(e, H_CX, JIT_OFF(hot.sample));
		e_jrcxz(e, stop - (e_at(e) + 2));
	}
	return body;
}

/* The entry for the form of flags that the body does not expect. */
static void
write_other_entry(struct jit_scratch *t, enum assume assume, uint32_t poll)
{
	struct jit_block *b = t->b;
	struct emit *e = &t->e;

	if (assume == ASSUME_MEM) {
		b->near_entry = e_at(e);
		e_call(e, t->j->stub.save);
		e_jmp(e, poll);
	} else if (assume == ASSUME_HOST) {
		b->far_entry = e_at(e);
		note_page(t);
		b->mem_entry = e_at(e);
		e_call(e, t->j->stub.load);
		e_jmp(e, poll);
	}
}

/* Returns where the body looks whether it may run. */
static uint32_t
write_entries(struct jit_scratch *t, enum assume assume)
{
	struct emit *e = &t->e;
	struct jit_block *b = t->b;
	uint32_t stop = e_at(e), poll, body;

	/* JRCXZ reaches 128 bytes: what it leads to comes first */
	e_call(e, assume == ASSUME_HOST ? t->j->stub.poll_host : t->j->stub.poll_mem);
	e8(e, 0xa9); /* test eax, imm32: never run, tells jit_poll() the block */
	e32(e, (uint32_t)((uint8_t *)b - t->j->meta));
	if (assume != ASSUME_HOST) {
		b->far_entry = e_at(e);
		note_page(t);
	}
	poll = e_at(e);
	if (assume != ASSUME_HOST)
		b->mem_entry = poll;
	if (assume != ASSUME_MEM)
		b->near_entry = poll;
	t->w.fp_ok = false;
	t->w.host_ok = assume != ASSUME_MEM;
	t->w.mem_ok = assume == ASSUME_MEM;
	body = write_poll(t, stop);
	b->host_body = assume != ASSUME_MEM ? body : 0;
	b->mem_body = assume != ASSUME_HOST ? body : 0;
	return poll;
}

/* Is the second page still the one the instruction's end was read from? */
static void
write_cross_guard(struct jit_scratch *t)
{
	struct emit *e = &t->e;
	uint64_t at = (uint64_t)(uintptr_t)&t->b->cross;
	struct insn *n = &t->insn[0];

	jit_clobber(t, n->live_in);
	e_load(e, H_CX, JIT_OFF(hot.page_va));
	e_cpu(e, true, 0x33, H_CX, JIT_OFF(hot.ctx) + 8u * t->b->upper); /* xor */
	E_BYTES(e, 0x49, 0xb8 | (T_B & 7));				 /* mov r15, imm64 */
	e_put(e, &at, 8);
	e_mem(e, true, 0x3b, H_CX, T_B, NONE, 0, 0); /* cmp */
	jit_later(t, LATER_CROSS, e_jump_later(e, 5), jit_site_of(t, n) | SITE_REFUSAL(JIT_CROSSING));
}

/* ---- blocks ---- */

static struct jit_block *
new_block(struct jit_scratch *t, struct soft_tlb_entry *e, unsigned bytes)
{
	struct jit_block *b = jit_meta(t->j, sizeof(*b) + bytes);
	struct soft_tlb_meta *m = x86_tlb_meta(&t->j->i.c, e);

	b->host = t->host;
	b->key = t->key;
	b->page = jit_page_of(t->j, m->ram, m->page, true);
	b->first = (uint16_t)t->first;
	b->bytes = (uint16_t)bytes;
	b->bytes_first = (uint16_t)MIN(bytes, t->here);
	b->tier = (uint8_t)t->tier;
	b->cross = UINT64_MAX;
	b->upper = t->upper;
	b->shared = t->tier == 1 && jit_has_twin(t->j, t->upper);
	if (t->second) {
		m = x86_tlb_meta(&t->j->i.c, t->second);
		b->second = jit_page_of(t->j, m->ram, m->page, true);
		b->host_second = (uintptr_t)(m->ram->host + (m->page << PAGE_SHIFT));
		mem_watch_code(m->ram, m->page);
	}
	memcpy(b->code, t->code, bytes);
	return b;
}

static void
write_group(struct jit_scratch *t, unsigned first)
{
	struct insn *n = &t->insn[first];
	struct later *l;
	unsigned mine;

	if (n->group.fp)
		jit_need_fp(t, n);
	jit_group_check(t, n);
	mine = t->laters - 1;
	t->in_group = true;
	for (unsigned i = 0; i < n->members; i++) {
		t->now = n[i].off;
		jit_write_insn(t, &n[i]);
	}
	t->in_group = false;
	t->through.base = NONE;
	l = &t->later[mine];
	l->after = t->w;
	l->back = e_at(&t->e);
	l->end = t->accesses;
}

static void
write_body(struct jit_scratch *t)
{
	const struct insn *last = &t->insn[t->count - 1];

	for (unsigned i = 0; i < t->count;) {
		struct insn *n = &t->insn[i];

		t->now = n->off;
		if (t->in_line && n->members) {
			write_group(t, i);
			i += n->members;
			continue;
		}
		jit_write_insn(t, n);
		i++;
	}
	if (!last->ends || last->kind == K_HELP || last->kind == K_SYSTEM ||
		(t->second && last->kind != K_CALL && last->kind != K_RET && last->kind != K_JMP))
		jit_direct_jump(t, last->off + last->in.length);
}

static void
write_block(struct jit_scratch *t)
{
	enum assume assume = choose_assumption(t);
	uint32_t poll;

	t->b->start = e_at(&t->e);
	poll = write_entries(t, assume);
	if (t->second)
		write_cross_guard(t);
	write_body(t);
	/* what is seldom run goes elsewhere, so that hot code is dense */
	t->b->end = e_at(&t->e);
	t->e.p = t->j->rw + t->j->cold;
	t->in_line = false;
	write_other_entry(t, assume, poll);
	for (unsigned i = 0; i < t->laters; i++)
		write_later(t, &t->later[i]);
}

struct jit_block *
jit_translate(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e, uint64_t key, unsigned tier)
{
	struct jit_scratch *t = j->work;
	const struct soft_cpu *c = &j->i.c;
	struct soft_tlb_meta *m = x86_tlb_meta(&j->i.c, e);
	unsigned bytes;

	jit_make_room(j);
	jit_close_window(j);
	t->first = a & PAGE_MASK;
	t->here = t->avail = MIN(PAGE_SIZE - t->first, JIT_BLOCK_BYTES);
	t->upper = a >> 63;
	t->host = a + e->delta;
	t->key = key;
	t->tier = tier;
	t->wide = c->mode == X86_LONG64;
	t->stack = t->wide ? 8 : 4;
	t->smp = c->v.cpus->count > 1;
	t->second = NULL;
	t->in_line = tier > 1;
	t->in_group = t->asks = false;
	t->through.base = NONE;
	t->accesses = 0;
	t->windows = t->in_line && t->wide && key & X86_KEY_OWN;
	t->tested = 0;
	t->laters = 0;
	t->w.mmu = (enum x86_mmu)c->mmu;
	mem_watch_code(m->ram, m->page);
	memcpy(t->code, (const void *)t->host, t->avail);
	bytes = jit_decode(t, a);
	jit_find_liveness(t);
	if (t->in_line)
		jit_find_groups(t);
	t->b = new_block(t, e, bytes);
	t->e = (struct emit){ j->rw + j->used, j->rw, 0 };
	write_block(t);
	j->guest_bytes += bytes;
	j->guest_bytes_hot += tier > 1 ? bytes : 0;
	j->host_bytes += t->b->end - j->used;
	j->cold_bytes += e_at(&t->e) - j->cold;
	j->cold = e_at(&t->e);
	j->used = t->b->end;
	jit_add(j, t->b);
	j->i.c.v.count.blocks++;
	return t->b;
}
