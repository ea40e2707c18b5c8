/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jumps from block to block: linked inside the page; direct ones to other pages linked behind a guard (struct jit_cross);
 * all others through the jump cache.
 */
#include "cpu/jit/translate.h"

/* Of an indirect jump: whence it came and how it moved RSP, for the case that rip is not canonical. */
void
jit_note_origin(struct jit_scratch *t, const struct insn *n, enum jit_moved moved)
{
	e_cpu(&t->e, false, 0xc7, 0, JIT_OFF(hot.origin));
	e32(&t->e, SITE_MAKE(n->off, n->in.length) | SITE_REFUSAL(moved));
}

/* T_A = rip: through the jump cache. Flags are in memory form. */
void
jit_far_jump(struct jit_scratch *t)
{
	if (t->in_line)
		e_far_jump(&t->e, t->upper, t->j->bmi2, t->j->stub.jump);
	else
		e_jmp(&t->e, t->j->stub.far[t->upper]);
}

void
jit_rip_to(struct jit_scratch *t, unsigned reg, int64_t off)
{
	e_load(&t->e, reg, JIT_OFF(hot.page_va));
	if (off)
		e_lea(&t->e, t->wide, reg, reg, NONE, 0, (int32_t)off);
}

static bool
in_page(int64_t off)
{
	return off >= 0 && off < PAGE_SIZE;
}

/* RCX == 0, or flags Z: the sum is the one in the code. */
static void
compare_sum(struct jit_scratch *t, struct jit_cross *x)
{
	static const uint64_t never = JIT_CROSS_NEVER;
	struct emit *e = &t->e;

	e_load(e, T_A, JIT_OFF(hot.page_va));
	e_load(e, H_CX, JIT_OFF(hot.ctx) + 8u * t->upper);
	E_BYTES(e, 0x49, 0xb8 | (T_B & 7)); /* mov r15, imm64 */
	x->key = e_at(e);
	e_put(e, &never, 8);
	if (x->link.mem) {
		e_rr(e, true, 0x01, T_A, H_CX);
		e_rr(e, true, 0x39, T_B, H_CX);
	} else {
		e_lea(e, true, H_CX, H_CX, T_A, 0, 0);
		e_lea(e, true, H_CX, H_CX, T_B, 0, 0);
	}
}

static struct jit_cross *
new_cross(struct jit_scratch *t, int64_t off, bool mem)
{
	struct jit_cross *x = jit_meta(t->j, sizeof(*x));

	x->link.from = t->b;
	x->link.target = (uint16_t)((uint64_t)off & PAGE_MASK);
	x->link.mem = mem;
	x->link.cross = true;
	x->off = (int32_t)off;
	x->upper = t->upper;
	x->wait = 1;
	x->patience = 4;
	x->next = t->j->crosses;
	t->j->crosses = x;
	return x;
}

/* To another page. `mem`: flags are in memory form, else in the host's. */
static void
cross_jump(struct jit_scratch *t, int64_t off, bool mem)
{
	struct emit *e = &t->e;
	struct jit_cross *x = new_cross(t, off, mem);
	uint32_t data = (uint32_t)((uint8_t *)x - t->j->meta), site;

	compare_sum(t, x);
	if (!mem)
		e_jrcxz(e, 5);
	site = e_jump_later(e, mem ? 5 : 0xff);
	jit_later(t, LATER_GUARD, site, data)->save = !mem;
	e_lea(e, true, T_A, T_A, NONE, 0, (int32_t)(off & -(int64_t)PAGE_SIZE));
	e_store(e, T_A, JIT_OFF(hot.page_va));
	x->link.site = e_jump_later(e, 0xff);
}

void
jit_far_jump_later(struct jit_scratch *t, const struct later *l)
{
	if (t->wide) {
		cross_jump(t, (int32_t)l->data, !l->save);
		return;
	}
	if (l->save)
		e_call(&t->e, t->j->stub.save);
	jit_rip_to(t, T_A, (int32_t)l->data);
	jit_far_jump(t);
}

/* The rel32 at `site` becomes a link to the block at `off`. */
static void
link_site(struct jit_scratch *t, uint32_t site, int64_t off, bool mem)
{
	struct jit_link *l = jit_meta(t->j, sizeof(*l));

	l->from = t->b;
	l->site = site;
	l->target = (uint16_t)off;
	l->mem = mem;
	l->ahead = off > t->now && !t->poll;
	jit_later(t, LATER_LINK, site, (uint32_t)((uint8_t *)l - t->j->meta))->save = !t->w.mem_ok;
}

/* Go to `off` in (or out of) this page. */
void
jit_direct_jump(struct jit_scratch *t, int64_t off)
{
	if (in_page(off)) {
		link_site(t, e_jump_later(&t->e, 0xff), off, !t->w.host_ok);
		return;
	}
	if (t->wide) {
		if (!t->w.host_ok)
			jit_save_flags(t);
		cross_jump(t, off, t->w.mem_ok);
		return;
	}
	jit_save_flags(t);
	jit_rip_to(t, T_A, off);
	jit_far_jump(t);
}

int64_t
jit_target_of(const struct insn *n)
{
	return n->off + n->in.length + n->o[0].imm.value.s;
}

void
jit_conditional_jump(struct jit_scratch *t, const struct insn *n)
{
	int64_t off = jit_target_of(n);
	unsigned cc = n->in.opcode & 15;

	jit_need_host(t);
	if (in_page(off))
		link_site(t, e_jump_later(&t->e, cc), off, false);
	else
		jit_later(t, LATER_FAR, e_jump_later(&t->e, cc), (uint32_t)(int32_t)off)->save = !t->w.mem_ok;
}
