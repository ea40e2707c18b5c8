/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jumps from block to block: linked inside the page, through the jump cache elsewhere.
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
