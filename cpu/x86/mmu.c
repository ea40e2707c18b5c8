/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging and linear memory (SDM 3A chapter 4).
 *
 * The TLB is direct-mapped by linear page, one array for each kind of eye (enum x86_mmu), and holds 4 KiB pieces only.
 * A tag is the page's linear address | the generation in use, so forgetting an address space is taking a new
 * generation:
 *
 *	tlb_gen         the generation of the current PCID, part of every valid tag
 *	pcid_gen[]      those of the PCIDs used lately: MOV CR3 with bit 63 set takes one up again
 *	tlb_global_gen  of global pages; a miss that finds its page in the slot with a valid `global` note moves it into
 *	                the current generation instead of walking
 *
 * Generations run out after 4094; then all arrays are wiped. INVLPG empties one slot in each array; regions of large
 * pages that may have several pieces in the TLB are remembered in hashed bitmaps (`large`, `huge`), and INVLPG of a
 * remembered region empties all slots it can be in (SDM 3A 4.10.4.1 asks for the whole large page).
 *
 * Write tags are only given to pages whose dirty flag is already set, so the first write always walks. Pages that are
 * not plain memory get no tags for engines, but `io` notes here, so that device registers do not cost a walk each time.
 *
 * Compiled for general registers only (Makefile): translated code calls this with the guest's vector registers in the
 * host's.
 *
 * Walks read paging structures as physical memory of the guest; where there is no memory they read all ones. Accessed
 * and dirty flags are set by compare-and-exchange; if another CPU changed the entry meanwhile, the walk starts again.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/str.h"
#include "bus/machine.h"
#include "cpu/debug.h"
#include "cpu/x86/desc.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 32, PTE_D = 64, PTE_PS = 128, PTE_G = 256 };
#define PTE_NX (1ULL << 63)
#define PTE_ADDR 0x000ffffffffff000ULL
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_ID = 16 };

#define PERM(access) (1u << (access))

static inline gva_t
page_of(gva_t a)
{
	return a & ~(gva_t)PAGE_MASK;
}

static inline gva_t
tag_of(const struct soft_cpu *c, gva_t a)
{
	return page_of(a) | c->tlb_gen;
}

static inline struct soft_tlb_meta *
meta_of(struct soft_cpu *c, gva_t a, enum x86_mmu mmu)
{
	return &c->tlb_meta[mmu][(a >> PAGE_SHIFT) & (SOFT_TLB_SIZE - 1)];
}

/* Linear addresses are 32 bits wide outside long mode. */
static inline gva_t
wrap(const struct soft_cpu *c, gva_t a)
{
	return x86_long(c) ? a : (uint32_t)a;
}

static inline bool
within(gva_t a, unsigned len)
{
	return len <= PAGE_SIZE && (a & PAGE_MASK) <= PAGE_SIZE - len;
}

/* ---- generations ---- */

static void
empty_slot(struct soft_tlb_entry *e, struct soft_tlb_meta *m)
{
	e->read = e->write = m->exec = SOFT_TLB_NEVER;
	m->io[X86_READ] = m->io[X86_WRITE] = m->io[X86_EXEC] = m->global = SOFT_TLB_NEVER;
}

static void
forget_pcids(struct soft_cpu *c)
{
	for (size_t i = 0; i < ARRAY_LEN(c->pcid_gen); i++)
		c->pcid_gen[i] = SOFT_TLB_GEN;
}

static inline void
gone(struct soft_cpu *c, enum x86_gone what, gva_t a)
{
	if (c->gone)
		c->gone(c, what, a);
}

static void
wipe(struct soft_cpu *c)
{
	gone(c, X86_GONE_ALL, 0);
	memset(c->tlb, 0, sizeof(c->tlb)); /* generation 0 is never used */
	memset(c->tlb_meta, 0, sizeof(c->tlb_meta));
	forget_pcids(c);
	memset(c->large, 0, sizeof(c->large));
	c->huge = 0;
	c->tlb_last_gen = 0;
	c->tlb_global_gen = 1;
}

/* A generation no tag has yet becomes that of the current PCID. */
static void
take_new_gen(struct soft_cpu *c)
{
	if (c->tlb_last_gen + 1 >= (int)SOFT_TLB_GEN)
		wipe(c);
	c->tlb_gen = ++c->tlb_last_gen;
	c->pcid_gen[x86_pcid(c)] = (uint16_t)c->tlb_gen;
	c->tlb_flushed = 1;
	c->tlb_epoch++;
}

void
x86_tlb_open(struct soft_cpu *c)
{
	forget_pcids(c); /* the arrays are zeroes, and big: they become memory as they are used */
	c->tlb_global_gen = 1;
	c->ram_near.ram = NULL;
	take_new_gen(c);
}

void
x86_tlb_switch(struct soft_cpu *c, bool keep)
{
	uint16_t gen = c->pcid_gen[x86_pcid(c)];

	if (keep && gen != SOFT_TLB_GEN) {
		c->tlb_gen = gen;
		c->tlb_flushed = 1;
		c->tlb_epoch++;
		return;
	}
	c->v.count.flushes++;
	take_new_gen(c);
}

void
x86_tlb_flush(struct soft_cpu *c, bool globals)
{
	c->v.count.flushes++;
	if (globals) {
		gone(c, X86_GONE_ALL, 0);
		forget_pcids(c);
		c->ram_near.ram = NULL;
		if (++c->tlb_global_gen >= SOFT_TLB_GEN)
			wipe(c);
		memset(c->large, 0, sizeof(c->large));
		c->huge = 0;
	}
	take_new_gen(c);
}

void
x86_tlb_flush_pcid(struct soft_cpu *c, unsigned pcid)
{
	if (pcid == x86_pcid(c))
		x86_tlb_flush(c, false);
	else
		c->pcid_gen[pcid & 0xfff] = SOFT_TLB_GEN;
}

void
x86_tlb_flush_pcids(struct soft_cpu *c)
{
	forget_pcids(c);
	x86_tlb_flush(c, false);
}

/* ---- INVLPG ---- */

/* 4 MiB in 32-bit paging, 2 MiB otherwise. */
static inline unsigned
large_shift(const struct soft_cpu *c)
{
	return c->v.state.cr4 & CR4_PAE ? 21 : 22;
}

static inline unsigned
large_hash(const struct soft_cpu *c, gva_t a)
{
	return (unsigned)(a >> large_shift(c)) & 4095;
}

static void
note_large(struct soft_cpu *c, gva_t a, unsigned shift)
{
	unsigned h = large_hash(c, a);

	if (shift == 30)
		c->huge |= 1ULL << ((a >> 30) & 63);
	else
		c->large[h / 64] |= 1ULL << (h % 64);
}

static void
empty_page(struct soft_cpu *c, gva_t a)
{
	for (int mmu = 0; mmu < MMU_COUNT; mmu++)
		empty_slot(x86_tlb_slot(c, a, mmu), meta_of(c, a, mmu));
}

void
x86_tlb_flush_page(struct soft_cpu *c, gva_t a)
{
	unsigned h = large_hash(c, a), shift = large_shift(c);

	c->tlb_epoch++;
	c->tlb_flushed = 1;
	if (c->huge >> ((a >> 30) & 63) & 1) {
		x86_tlb_flush(c, true);
		return;
	}
	if (!(c->large[h / 64] >> (h % 64) & 1)) {
		c->tlb_flushed = page_of(a);
		gone(c, X86_GONE_PAGE, a);
		empty_page(c, a);
		return;
	}
	gone(c, X86_GONE_SPACE, 0);
	a = a >> shift << shift;
	for (gva_t off = 0; off < 1ULL << shift && off < (gva_t)SOFT_TLB_SIZE * PAGE_SIZE; off += PAGE_SIZE)
		empty_page(c, a + off);
}

/* ---- physical memory, for walks and fills ---- */

/* The RAM or ROM section that holds `gpa`, or NULL. */
static const struct mem_section *
memory_at(struct soft_cpu *c, gpa_t gpa)
{
	struct mem_section *s = &c->ram_near, found;

	if (likely(s->ram && gpa - s->start <= s->last - s->start))
		return s;
	if (!mem_find(&c->v.m->mem, gpa, &found) || found.kind == MEM_MMIO || !found.ram)
		return NULL;
	*s = found;
	return s;
}

struct pte {
	void *host; /* NULL: not memory */
	struct ram *ram;
	uint64_t page;
	uint64_t value;
};

/* Entries are naturally aligned, so they never leave the 4 KiB piece of a section they begin in. */
static uint64_t
read_pte(struct soft_cpu *c, gpa_t gpa, unsigned size, struct pte *p)
{
	const struct mem_section *s = memory_at(c, gpa);
	uint64_t off;

	p->value = UINT64_MAX;
	p->host = NULL;
	if (unlikely(!s || s->last - gpa < size - 1))
		return p->value;
	off = s->ram_offset + (gpa - s->start);
	p->ram = s->ram;
	p->page = off >> PAGE_SHIFT;
	if (s->kind == MEM_RAM)
		p->host = s->ram->host + off;
	p->value = size == 8 ? __atomic_load_n((uint64_t *)(s->ram->host + off), __ATOMIC_RELAXED)
			     : __atomic_load_n((uint32_t *)(s->ram->host + off), __ATOMIC_RELAXED);
	return p->value;
}

static void
ram_written(struct soft_cpu *c, struct ram *ram, uint64_t page)
{
	uint8_t flags = atomic_load_explicit(&ram->flags[page], memory_order_relaxed);

	if (likely(!flags))
		return;
	if (flags & PAGE_CODE)
		c->code_written = true;
	mem_page_written(ram, page);
}

/* Set A and D bits unless the entry has changed since it was read: then false. */
static bool
set_pte_bits(struct soft_cpu *c, struct pte *p, unsigned size, uint64_t bits)
{
	uint64_t old = p->value, new = old | bits;
	uint32_t old32 = (uint32_t)old;
	bool ok;

	if ((old & bits) == bits || !p->host)
		return true;
	if (size == 8)
		ok = __atomic_compare_exchange_n(
			(uint64_t *)p->host, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	else
		ok = __atomic_compare_exchange_n(
			(uint32_t *)p->host, &old32, (uint32_t) new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	if (ok)
		ram_written(c, p->ram, p->page);
	return ok;
}

/* ---- walks ---- */

struct walk {
	gpa_t gpa; /* of the 4 KiB page */
	bool user, write, nx, global, dirty;
	unsigned shift; /* of the page in the paging structures */
	unsigned size;	/* of an entry */
	int depth;
	struct pte pte[4]; /* as read, the leaf last */
};

static inline void
walk_leaf(struct walk *w, gva_t a, uint64_t base, uint64_t pte, unsigned shift)
{
	uint64_t mask = (1ULL << shift) - 1;

	w->shift = shift;
	w->gpa = (base & ~mask) | (a & mask & ~(uint64_t)PAGE_MASK);
	w->global = pte & PTE_G;
	w->dirty = pte & PTE_D;
}

/* PAE and 4-level paging from `level` (4: PML4, 1: page table) down. Returns 0 or PF_RSVD etc. | 0x100 for a fault. */
#define WALK_FAULT 0x100u

static unsigned
walk64(struct soft_cpu *c, gva_t a, struct walk *w, uint64_t table, int level, uint64_t rsvd)
{
	if (!(c->v.state.efer & EFER_NXE))
		rsvd |= PTE_NX;
	for (;; level--) {
		unsigned shift = PAGE_SHIFT + 9 * (unsigned)(level - 1);
		uint64_t bad = rsvd, v;
		bool large = false;

		v = read_pte(c, table + ((a >> shift) & 511) * 8, 8, &w->pte[w->depth++]);
		if (!(v & PTE_P))
			return WALK_FAULT;
		if (level > 1 && v & PTE_PS) {
			if (level == 2 || (level == 3 && c->page_1g)) {
				large = true;
				bad |= ((1ULL << shift) - 1) & ~0x1fffULL; /* bit 12 is PAT */
			} else {
				bad |= PTE_PS;
			}
		}
		if (v & bad)
			return WALK_FAULT | PF_P | PF_RSVD;
		w->user &= (v & PTE_U) != 0;
		w->write &= (v & PTE_W) != 0;
		w->nx |= (v & PTE_NX) != 0;
		if (large || level == 1) {
			walk_leaf(w, a, v & PTE_ADDR, v, shift);
			return 0;
		}
		table = v & PTE_ADDR;
	}
}

/* 32-bit paging with PSE-36 (SDM 3A 4.3). */
static unsigned
walk32(struct soft_cpu *c, gva_t a, struct walk *w)
{
	uint32_t v = (uint32_t)read_pte(c, (c->v.state.cr3 & 0xfffff000) + (a >> 22) * 4, 4, &w->pte[w->depth++]);

	if (!(v & PTE_P))
		return WALK_FAULT;
	w->user = v & PTE_U;
	w->write = v & PTE_W;
	if (v & PTE_PS && c->v.state.cr4 & CR4_PSE) {
		uint64_t high = (uint64_t)(v & 0x1fe000) << 19; /* bits 20:13 are bits 39:32 */

		if (v & (1u << 21) || high & c->rsvd)
			return WALK_FAULT | PF_P | PF_RSVD;
		walk_leaf(w, a, (v & 0xffc00000) | high, v, 22);
		return 0;
	}
	v = (uint32_t)read_pte(c, (v & 0xfffff000) + ((a >> 12) & 1023) * 4, 4, &w->pte[w->depth++]);
	if (!(v & PTE_P))
		return WALK_FAULT;
	w->user &= (v & PTE_U) != 0;
	w->write &= (v & PTE_W) != 0;
	walk_leaf(w, a, v & 0xfffff000, v, 12);
	return 0;
}

static unsigned
walk_pae(struct soft_cpu *c, gva_t a, struct walk *w)
{
	uint64_t pdpte = c->v.state.pdpte[(a >> 30) & 3];

	if (!(pdpte & PTE_P))
		return WALK_FAULT;
	return walk64(c, a, w, pdpte & PTE_ADDR, 2, c->rsvd | 0x7ff0000000000000ULL);
}

/* Translate without looking at rights. 0: *w is filled; otherwise the P and RSVD bits of the error code | WALK_FAULT.
 */
static unsigned
walk(struct soft_cpu *c, gva_t a, struct walk *w)
{
	const struct x86_state *s = &c->v.state;

	w->depth = 0;
	w->user = w->write = true;
	w->nx = false;
	if (!(s->cr0 & CR0_PG)) {
		w->gpa = page_of((uint32_t)a);
		w->shift = PAGE_SHIFT;
		w->global = false;
		w->dirty = true;
		return 0;
	}
	c->v.count.page_walks++;
	if (!(s->cr4 & CR4_PAE)) {
		w->size = 4;
		return walk32(c, (uint32_t)a, w);
	}
	w->size = 8;
	if (s->efer & EFER_LMA)
		return walk64(c, a, w, s->cr3 & PTE_ADDR, 4, c->rsvd);
	return walk_pae(c, (uint32_t)a, w);
}

/* What may be done with the page (SDM 3A 4.6.1). */
static unsigned
permissions(const struct soft_cpu *c, const struct walk *w, enum x86_mmu mmu)
{
	const struct x86_state *s = &c->v.state;
	bool exec = !w->nx;
	unsigned p;

	if (!(s->cr0 & CR0_PG))
		return PERM(X86_READ) | PERM(X86_WRITE) | PERM(X86_EXEC);
	if (mmu == MMU_USER) {
		if (!w->user)
			return 0;
		p = PERM(X86_READ) | (w->write ? PERM(X86_WRITE) : 0);
		return p | (exec ? PERM(X86_EXEC) : 0);
	}
	p = w->user && s->cr4 & CR4_SMEP ? 0 : exec ? PERM(X86_EXEC) : 0;
	if (w->user && mmu == MMU_KERNEL_SMAP && s->cr4 & CR4_SMAP)
		return p;
	p |= PERM(X86_READ);
	return w->write || !(s->cr0 & CR0_WP) ? p | PERM(X86_WRITE) : p;
}

static _Noreturn void
page_fault(struct soft_cpu *c, gva_t a, enum x86_access access, enum x86_mmu mmu, unsigned bits)
{
	struct x86_state *s = &c->v.state;
	bool id = (s->cr4 & CR4_PAE && s->efer & EFER_NXE) || s->cr4 & CR4_SMEP;

	if (access == X86_WRITE)
		bits |= PF_W;
	if (mmu == MMU_USER)
		bits |= PF_U;
	if (access == X86_EXEC && id)
		bits |= PF_ID;
	s->cr2 = a;
	x86_raise_error(c, EXC_PF, bits & ~WALK_FAULT);
}

static bool
set_accessed(struct soft_cpu *c, struct walk *w, bool dirty)
{
	for (int i = 0; i < w->depth; i++) {
		uint64_t bits = PTE_A | (dirty && i == w->depth - 1 ? PTE_D : 0);

		if (!set_pte_bits(c, &w->pte[i], w->size, bits))
			return false;
	}
	w->dirty |= dirty;
	return true;
}

/* Walk, check, set A and D. Returns the permissions of `mmu`. */
static unsigned
translate(struct soft_cpu *c, gva_t a, enum x86_access access, enum x86_mmu mmu, struct walk *w)
{
	unsigned fault, p;

	do {
		fault = walk(c, a, w);
		if (fault)
			page_fault(c, a, access, mmu, fault);
		p = permissions(c, w, mmu);
		if (!(p & PERM(access)))
			page_fault(c, a, access, mmu, PF_P);
	} while (!set_accessed(c, w, access == X86_WRITE));
	return p;
}

bool
x86_translate(struct soft_cpu *c, gva_t a, gpa_t *gpa)
{
	struct walk w;

	a = wrap(c, a);
	if ((x86_long(c) && !x86_canonical(a)) || walk(c, a, &w))
		return false;
	*gpa = w.gpa | (a & PAGE_MASK);
	return true;
}

/* ---- filling the TLB ---- */

static void
give_tags(struct soft_tlb_entry *e, struct soft_tlb_meta *m, gva_t tag, unsigned perms, enum mem_kind kind)
{
	bool ram = kind == MEM_RAM, readable = kind != MEM_MMIO;

	e->read = readable && perms & PERM(X86_READ) ? tag : SOFT_TLB_NEVER;
	e->write = ram && perms & PERM(X86_WRITE) ? tag : SOFT_TLB_NEVER;
	m->exec = readable && perms & PERM(X86_EXEC) ? tag : SOFT_TLB_NEVER;
	m->io[X86_READ] = !readable && perms & PERM(X86_READ) ? tag : SOFT_TLB_NEVER;
	m->io[X86_WRITE] = !ram && perms & PERM(X86_WRITE) ? tag : SOFT_TLB_NEVER;
	m->io[X86_EXEC] = !readable && perms & PERM(X86_EXEC) ? tag : SOFT_TLB_NEVER;
}

static struct soft_tlb_entry *
fill(struct soft_cpu *c, gva_t a, enum x86_mmu mmu, const struct walk *w, unsigned perms)
{
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, mmu);
	struct soft_tlb_meta *m = meta_of(c, a, mmu);
	const struct mem_section *s = memory_at(c, w->gpa);
	uint64_t off;

	if (!w->dirty)
		perms &= ~PERM(X86_WRITE);
	if (unlikely(c->v.debug) && !c->exact && cpu_debug_watched(&c->v, a))
		perms &= PERM(X86_EXEC);
	m->gpa = w->gpa;
	m->global = w->global && c->v.state.cr4 & CR4_PGE ? page_of(a) | c->tlb_global_gen : SOFT_TLB_NEVER;
	/* Only whole pages of memory: anything smaller is sorted out by the bus. */
	if (!s || s->last - w->gpa < PAGE_MASK || ((s->ram_offset + (w->gpa - s->start)) & PAGE_MASK)) {
		give_tags(e, m, tag_of(c, a), perms, MEM_MMIO);
		return e;
	}
	off = s->ram_offset + (w->gpa - s->start);
	m->ram = s->ram;
	m->page = off >> PAGE_SHIFT;
	e->flags = &s->ram->flags[m->page];
	if (s->ram->fd >= 0)
		ram_make_large(s->ram, m->page);
	e->delta = (uintptr_t)(s->ram->host + off) - page_of(a);
	give_tags(e, m, tag_of(c, a), perms, s->kind);
	return e;
}

/* A global page that was loaded under another PCID or before a MOV CR3. */
static void
move_global(const struct soft_cpu *c, struct soft_tlb_entry *e, struct soft_tlb_meta *m, gva_t tag)
{
	gva_t *const tags[] = { &e->read, &e->write, &m->exec, &m->io[0], &m->io[1], &m->io[2] };

	for (size_t i = 0; i < ARRAY_LEN(tags); i++)
		if (*tags[i] != SOFT_TLB_NEVER && *tags[i])
			*tags[i] = tag;
}

static inline bool
has_tag(const struct soft_tlb_entry *e, const struct soft_tlb_meta *m, enum x86_access access, gva_t tag)
{
	return (access == X86_READ ? e->read : access == X86_WRITE ? e->write : m->exec) == tag || m->io[access] == tag;
}

struct soft_tlb_entry *
x86_tlb_fill(struct soft_cpu *c, gva_t a, enum x86_access access, enum x86_mmu mmu, gpa_t *gpa)
{
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, mmu);
	struct soft_tlb_meta *m = meta_of(c, a, mmu);
	gva_t tag = tag_of(c, a);
	struct walk w;
	unsigned p;

	if (unlikely(c->v.debug) && access != X86_EXEC && !c->exact && cpu_debug_watched(&c->v, a))
		x86_raise(c, X86_RETRY);
	if (m->global == (page_of(a) | c->tlb_global_gen))
		move_global(c, e, m, tag);
	if (!has_tag(e, m, access, tag)) {
		c->v.count.tlb_misses++;
		p = translate(c, a, access, mmu, &w);
		if (w.shift > PAGE_SHIFT)
			note_large(c, a, w.shift);
		e = fill(c, a, mmu, &w, p);
		/* A supervisor page looks the same to both kernel eyes. */
		if (mmu != MMU_USER && !w.user && c->v.state.cr4 & CR4_SMAP)
			fill(c, a, mmu == MMU_KERNEL ? MMU_KERNEL_SMAP : MMU_KERNEL, &w, p);
	}
	if (gpa)
		*gpa = m->gpa | (a & PAGE_MASK);
	return e;
}

void
x86_page_written(struct soft_cpu *c, struct soft_tlb_entry *e)
{
	struct soft_tlb_meta *m = x86_tlb_meta(c, e);

	ram_written(c, m->ram, m->page);
}

/* ---- checks that come with every data access ---- */

/* Data breakpoints (SDM 3B 18.2.4): one that overlaps [a, a+len) is reported after the instruction. */
static void
check_data_bp(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access)
{
	static const uint8_t lengths[] = { 1, 2, 8, 4 };
	uint64_t dr7 = c->v.state.dr[7];

	if (access == X86_EXEC)
		return;
	if (c->dr_armed & DR_DEBUGGER)
		cpu_debug_access(&c->v, a, len, access == X86_WRITE);
	for (int i = 0; i < 4; i++) {
		unsigned how = (dr7 >> (16 + 4 * i)) & 15, size = lengths[how >> 2];
		gva_t at = c->v.state.dr[i] & ~(gva_t)(size - 1);

		if (!(c->dr_armed >> i & 1) || !(how & 1))
			continue;
		if ((how & 3) == 1 && access == X86_READ)
			continue;
		if (a < at + size && at < a + len)
			c->pending_db |= 1u << i;
	}
}

static inline void
check_access(struct soft_cpu *c, gva_t a, unsigned size, enum x86_access access, enum x86_mmu mmu)
{
	if (unlikely(c->ac_check) && mmu == MMU_USER && a & (size - 1))
		x86_raise_error(c, EXC_AC, 0);
	if (unlikely(c->dr_armed))
		check_data_bp(c, a, size, access);
}

/* ---- accesses within one page ---- */

static inline uint64_t
host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)p;
	case 2: {
		uint16_t v;

		memcpy(&v, p, 2);
		return v;
	}
	case 4: {
		uint32_t v;

		memcpy(&v, p, 4);
		return v;
	}
	default: {
		uint64_t v;

		memcpy(&v, p, 8);
		return v;
	}
	}
}

static inline void
host_store(void *p, uint64_t value, unsigned size)
{
	switch (size) {
	case 1:
		*(uint8_t *)p = (uint8_t)value;
		break;
	case 2:
		memcpy(p, &value, 2);
		break;
	case 4:
		memcpy(p, &value, 4);
		break;
	default:
		memcpy(p, &value, 8);
		break;
	}
}

static inline void *
host_at(const struct soft_tlb_entry *e, gva_t a)
{
	return (void *)(uintptr_t)(a + e->delta);
}

/* The largest power of two that fits `len` and keeps the access aligned: what a bus would see. */
static unsigned
bus_piece(gpa_t gpa, unsigned len)
{
	unsigned n = 8;

	while (n > len || gpa & (n - 1))
		n /= 2;
	return n;
}

static void
io_load(struct soft_cpu *c, gpa_t gpa, uint8_t *buf, unsigned len)
{
	while (len) {
		unsigned n = bus_piece(gpa, len);
		uint64_t v = cpu_mmio_read(&c->v, gpa, n);

		memcpy(buf, &v, n);
		gpa += n;
		buf += n;
		len -= n;
	}
}

static void
io_store(struct soft_cpu *c, gpa_t gpa, const uint8_t *buf, unsigned len)
{
	while (len) {
		unsigned n = bus_piece(gpa, len);
		uint64_t v = 0;

		memcpy(&v, buf, n);
		cpu_mmio_write(&c->v, gpa, v, n);
		gpa += n;
		buf += n;
		len -= n;
	}
}

static void
page_load(struct soft_cpu *c, gva_t a, void *buf, unsigned len, enum x86_access access, enum x86_mmu mmu)
{
	gpa_t gpa;
	struct soft_tlb_entry *e = x86_tlb_fill(c, a, access, mmu, &gpa);

	if ((access == X86_EXEC ? x86_tlb_meta(c, e)->exec : e->read) == tag_of(c, a))
		memcpy(buf, host_at(e, a), len);
	else if (access == X86_EXEC)
		memset(buf, 0xff, len);
	else
		io_load(c, gpa, buf, len);
}

static void
page_store(struct soft_cpu *c, gva_t a, const void *buf, unsigned len, enum x86_mmu mmu)
{
	gpa_t gpa;
	struct soft_tlb_entry *e = x86_tlb_fill(c, a, X86_WRITE, mmu, &gpa);

	if (e->write != tag_of(c, a)) {
		io_store(c, gpa, buf, len);
		return;
	}
	memcpy(host_at(e, a), buf, len);
	if (*e->flags)
		x86_page_written(c, e);
}

/* ---- accesses of any length ---- */

static unsigned
first_part(gva_t a, unsigned len)
{
	unsigned n = PAGE_SIZE - (unsigned)(a & PAGE_MASK);

	return n < len ? n : len;
}

static void
probe_pages(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, enum x86_mmu mmu)
{
	while (len) {
		unsigned n = first_part(a, len);

		x86_tlb_fill(c, a, access, mmu, NULL);
		a = wrap(c, a + n);
		len -= n;
	}
}

void
x86_probe(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, enum x86_mmu mmu)
{
	probe_pages(c, a, len, access, mmu);
}

static void
load_parts(struct soft_cpu *c, gva_t a, uint8_t *buf, unsigned len, enum x86_access access, enum x86_mmu mmu)
{
	if (!within(a, len))
		probe_pages(c, a, len, access, mmu);
	while (len) {
		unsigned n = first_part(a, len);

		page_load(c, a, buf, n, access, mmu);
		a = wrap(c, a + n);
		buf += n;
		len -= n;
	}
}

static void
store_parts(struct soft_cpu *c, gva_t a, const uint8_t *buf, unsigned len, enum x86_mmu mmu)
{
	if (!within(a, len))
		probe_pages(c, a, len, X86_WRITE, mmu);
	while (len) {
		unsigned n = first_part(a, len);

		page_store(c, a, buf, n, mmu);
		a = wrap(c, a + n);
		buf += n;
		len -= n;
	}
}

void
x86_load_bytes(struct soft_cpu *c, gva_t a, void *buf, unsigned len, enum x86_mmu mmu)
{
	if (unlikely(c->dr_armed) && len)
		check_data_bp(c, a, len, X86_READ);
	load_parts(c, a, buf, len, X86_READ, mmu);
}

void
x86_store_bytes(struct soft_cpu *c, gva_t a, const void *buf, unsigned len, enum x86_mmu mmu)
{
	store_parts(c, a, buf, len, mmu);
	if (unlikely(c->dr_armed) && len)
		check_data_bp(c, a, len, X86_WRITE);
}

void
x86_fetch_bytes(struct soft_cpu *c, gva_t a, void *buf, unsigned len)
{
	load_parts(c, a, buf, len, X86_EXEC, c->cpl == 3 ? MMU_USER : x86_sys_mmu(c));
}

/* ---- accesses of one operand ---- */

static uint64_t __attribute__((noinline)) load_slow(struct soft_cpu *c, gva_t a, unsigned size, enum x86_mmu mmu)
{
	struct soft_tlb_entry *e;
	uint64_t v = 0;
	gpa_t gpa;

	check_access(c, a, size, X86_READ, mmu);
	if (!within(a, size)) {
		load_parts(c, a, (uint8_t *)&v, size, X86_READ, mmu);
		return v;
	}
	e = x86_tlb_fill(c, a, X86_READ, mmu, &gpa);
	if (e->read == tag_of(c, a))
		return host_load(host_at(e, a), size);
	v = cpu_mmio_read(&c->v, gpa, size);
	return host_load(&v, size); /* bits above `size` are undefined in the bus's answer */
}

uint64_t
x86_load(struct soft_cpu *c, gva_t a, unsigned size, enum x86_mmu mmu)
{
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, mmu);

	if (likely(e->read == tag_of(c, a) && within(a, size) && !c->dr_armed && !c->ac_check))
		return host_load(host_at(e, a), size);
	return load_slow(c, a, size, mmu);
}

static void __attribute__((noinline))
store_slow(struct soft_cpu *c, gva_t a, uint64_t value, unsigned size, enum x86_mmu mmu)
{
	struct soft_tlb_entry *e;
	gpa_t gpa;

	check_access(c, a, size, X86_WRITE, mmu);
	if (!within(a, size)) {
		store_parts(c, a, (const uint8_t *)&value, size, mmu);
		return;
	}
	e = x86_tlb_fill(c, a, X86_WRITE, mmu, &gpa);
	if (e->write != tag_of(c, a)) {
		cpu_mmio_write(&c->v, gpa, value, size);
		return;
	}
	host_store(host_at(e, a), value, size);
	if (*e->flags)
		x86_page_written(c, e);
}

void
x86_store(struct soft_cpu *c, gva_t a, uint64_t value, unsigned size, enum x86_mmu mmu)
{
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, mmu);

	if (unlikely(e->write != tag_of(c, a) || !within(a, size) || c->dr_armed || c->ac_check)) {
		store_slow(c, a, value, size, mmu);
		return;
	}
	host_store(host_at(e, a), value, size);
	if (unlikely(*e->flags))
		x86_page_written(c, e);
}

void *
x86_host(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, enum x86_mmu mmu, struct soft_tlb_entry **e)
{
	struct soft_tlb_entry *t = x86_tlb_slot(c, a, mmu);
	gva_t tag = tag_of(c, a), have;

	if (!within(a, len))
		return NULL;
	if (!has_tag(t, meta_of(c, a, mmu), access, tag))
		t = x86_tlb_fill(c, a, access, mmu, NULL);
	have = access == X86_READ ? t->read : access == X86_WRITE ? t->write : x86_tlb_meta(c, t)->exec;
	if (have != tag)
		return NULL;
	if (unlikely(c->dr_armed))
		check_data_bp(c, a, len, access);
	if (e)
		*e = t;
	return host_at(t, a);
}
