/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks: found by guest physical address and mode, so that they survive changes of the address space.
 *
 * Memory comes from chunks that are allocated as needed and never given back one by one; when the limit is reached all
 * blocks are dropped together. A block whose page was written is compared with the copy of its bytes: the same, and it
 * lives on with the page's new generation; different, and it is taken out of the table and decoded anew.
 *
 * Order of events against stores of other CPUs and devices: the page is watched, then its generation is read, then its
 * bytes (bus/mem.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "cpu/interp/op.h"

#define CHUNK_SIZE (256u << 10)
#define CHUNKS_MAX 64
#define HASH_SIZE 16384u
#define BLOCK_BYTES_MAX (sizeof(struct block) + (BLOCK_OPS + 1) * sizeof(struct op) + BLOCK_BYTES + 32)
#define KEY_SINGLE (1ull << 32)
#define KEY_CS_FLAT (1ull << 33)

struct interp_cache {
	struct block *hash[HASH_SIZE];
	uint8_t *chunk[CHUNKS_MAX];
	unsigned chunks; /* allocated */
	unsigned current;
	size_t used; /* of the current chunk */
	/* for code that has no page: what is not plain memory */
	uint8_t floating[BLOCK_BYTES_MAX] __attribute__((aligned(16)));
	_Atomic uint32_t floating_gen;
};

int
interp_open(struct interp_cpu *i)
{
	i->cache = calloc(1, sizeof(*i->cache));
	if (!i->cache)
		return -ENOMEM;
	i->rmw_flag = 1;
	i->rmw_entry.flags = &i->rmw_flag;
	i->reg_entry.flags = &i->reg_flag;
	i->tracing = log_tracing("interp");
	i->c.hot.zero = 0;
	return 0;
}

void
interp_close(struct interp_cpu *i)
{
	if (!i->cache)
		return;
	for (unsigned k = 0; k < i->cache->chunks; k++)
		free(i->cache->chunk[k]);
	free(i->cache);
	i->cache = NULL;
}

void
interp_flush(struct interp_cpu *i)
{
	struct interp_cache *k = i->cache;

	memset(k->hash, 0, sizeof(k->hash));
	memset(i->target, 0, sizeof(i->target));
	k->current = 0;
	k->used = 0;
	HOT.link = NULL;
}

/* Room for the largest block; what it does not need is given back by commit(). */
static struct block *
reserve(struct interp_cpu *i)
{
	struct interp_cache *k = i->cache;

	if (k->chunks && k->used + BLOCK_BYTES_MAX <= CHUNK_SIZE)
		return (struct block *)(k->chunk[k->current] + k->used);
	if (k->chunks && k->current + 1 < k->chunks) {
		k->current++;
		k->used = 0;
	} else if (k->chunks < CHUNKS_MAX && (k->chunk[k->chunks] = aligned_alloc(64, CHUNK_SIZE))) {
		k->current = k->chunks++;
		k->used = 0;
	} else if (k->chunks) {
		interp_flush(i);
	} else {
		abort(); /* out of memory for the first chunk */
	}
	return (struct block *)(k->chunk[k->current] + k->used);
}

static void
commit(struct interp_cpu *i, size_t size)
{
	i->cache->used += (size + 31) & ~(size_t)31;
}

static inline struct block **
bucket(struct interp_cpu *i, gpa_t gpa, uint64_t key)
{
	uint64_t h = (gpa + key * 0x9e3779b97f4a7c15ull) * 0x9e3779b97f4a7c15ull;

	return &i->cache->hash[h >> 50];
}
_Static_assert(HASH_SIZE == 1 << (64 - 50), "bucket() shifts by this");

static void
unhash(struct interp_cpu *i, struct block *b)
{
	struct block **p = bucket(i, b->gpa, b->key);

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
}

/* ---- pages ---- */

static gva_t
code_linear(struct interp_cpu *i, uint64_t rip)
{
	if (i->c.mode == X86_LONG64)
		return rip;
	return (uint32_t)(ST.seg[SEG_CS].base + rip);
}

/* The entry of an executable page; its exec tag may be missing: not plain memory. Raises #PF. */
static struct soft_tlb_entry *
code_page(struct interp_cpu *i, gva_t a, gpa_t *gpa)
{
	struct soft_tlb_entry *e = x86_tlb_slot(&i->c, a, i->c.mmu);
	const struct soft_tlb_meta *m = x86_tlb_meta(&i->c, e);

	if (likely(m->exec == ((a & ~(gva_t)PAGE_MASK) | i->c.tlb_gen))) {
		*gpa = m->gpa | (a & PAGE_MASK);
		return e;
	}
	return x86_tlb_fill(&i->c, a, X86_EXEC, i->c.mmu, gpa);
}

static inline bool
is_plain(struct interp_cpu *i, struct soft_tlb_entry *e, gva_t a)
{
	return x86_tlb_meta(&i->c, e)->exec == ((a & ~(gva_t)PAGE_MASK) | i->c.tlb_gen);
}

static void
watch(struct block_page *p, const struct soft_tlb_meta *m)
{
	p->ram = m->ram;
	p->page = m->page;
	mem_watch_code(m->ram, m->page);
	p->gen = atomic_load_explicit(&m->ram->gens[m->page], memory_order_acquire);
}

static inline bool
page_current(const struct block_page *p)
{
	return atomic_load_explicit(&p->ram->gens[p->page], memory_order_relaxed) == p->gen;
}

/* The second page of a crossing instruction, as it is mapped now. NULL: not plain memory. */
static struct soft_tlb_entry *
second_page(struct interp_cpu *i, gva_t a)
{
	gva_t next = (a & ~(gva_t)PAGE_MASK) + PAGE_SIZE;
	struct soft_tlb_entry *e;
	gpa_t gpa;

	if (i->c.mode != X86_LONG64)
		next = (uint32_t)next;
	e = code_page(i, next, &gpa);
	return is_plain(i, e, next) ? e : NULL;
}

/* ---- decoding ---- */

static void
finish_block(struct interp_cpu *i, struct block *b, unsigned ops, const uint8_t *code, unsigned bytes, bool ended)
{
	uint8_t *copy;

	b->insns = (uint16_t)ops;
	b->bytes = (uint8_t)bytes;
	if (!ended) {
		memset(&b->ops[ops], 0, sizeof(b->ops[ops]));
		b->ops[ops].fn = interp_op_end;
		b->ops[ops].off = (uint8_t)bytes;
		ops++;
	}
	copy = (uint8_t *)&b->ops[ops];
	memcpy(copy, code, bytes);
	b->code = copy;
	i->c.v.count.blocks++;
}

static size_t
block_size(const struct block *b)
{
	return (size_t)(b->code + b->bytes - (const uint8_t *)b);
}

/*
 * Backwards over the block: operations whose flags nobody can see take the handler that does not compute them, and
 * comparisons take the one that includes the jump behind them (which keeps its own operation, for its operands).
 */
static void
choose_handlers(struct block *b, const struct op_traits *t, unsigned ops)
{
	bool seen = true;

	for (unsigned k = ops; k-- > 0;) {
		if (!seen && t[k].quiet)
			b->ops[k].fn = t[k].quiet;
		else if (k + 1 < ops && t[k + 1].condition < 16 && t[k].fused && t[k].fused[t[k + 1].condition])
			b->ops[k].fn = t[k].fused[t[k + 1].condition];
		if (t[k].effect == FLAGS_UNKNOWN)
			seen = true;
		else if (t[k].effect == FLAGS_WRITTEN)
			seen = false;
	}
}

/* Decode up to `most` instructions; returns false when the first one needs more bytes. */
static bool
decode_run(struct interp_cpu *i, struct block *b, const uint8_t *code, unsigned avail, unsigned most)
{
	struct op_traits traits[BLOCK_OPS];
	unsigned ops = 0, at = 0;
	enum decode_result r = DECODE_OK;

	while (ops < most && at < BLOCK_BYTES - 15 && r == DECODE_OK && at < avail) {
		struct op *op = &b->ops[ops];

		memset(op, 0, sizeof(*op));
		op->off = (uint8_t)at;
		r = interp_decode(i, code + at, avail - at, op, &traits[ops]);
		if (r == DECODE_MORE)
			break;
		at += op->len;
		ops++;
	}
	if (!ops)
		return false;
	choose_handlers(b, traits, ops);
	finish_block(i, b, ops, code, at, r == DECODE_END);
	return true;
}

static void
start_block(struct block *b, gpa_t gpa, uint64_t key)
{
	memset(b, 0, sizeof(*b));
	b->gpa = gpa;
	b->key = key;
}

/* One instruction that is not in plain memory, or partly so: decoded each time. */
static struct block *
floating_block(struct interp_cpu *i, gva_t a, gpa_t gpa)
{
	struct block *b = (struct block *)i->cache->floating;
	uint8_t code[15];
	unsigned here = PAGE_SIZE - (a & PAGE_MASK), n = here < 15 ? here : 15;

	start_block(b, gpa, 0);
	b->genp = &i->cache->floating_gen;
	x86_fetch_bytes(&i->c, a, code, n);
	if (!decode_run(i, b, code, n, 1)) {
		x86_fetch_bytes(&i->c, a, code, 15);
		decode_run(i, b, code, 15, 1);
	}
	/* links must not lead back here */
	i->cache->floating_gen++;
	return b;
}

static struct block *
crossing_block(struct interp_cpu *i, struct block *b, gva_t a, const uint8_t *start, unsigned here)
{
	struct soft_tlb_entry *e = second_page(i, a);
	uint8_t code[15];

	if (!e)
		return floating_block(i, a, b->gpa);
	watch(&b->second, x86_tlb_meta(&i->c, e));
	b->second_gpa = x86_tlb_meta(&i->c, e)->gpa;
	b->flags |= BLOCK_CROSS;
	memcpy(code, start, here);
	memcpy(code + here, (const uint8_t *)((a & ~(gva_t)PAGE_MASK) + PAGE_SIZE + e->delta), 15 - here);
	decode_run(i, b, code, 15, 1);
	return b;
}

static struct block *
build(struct interp_cpu *i, gva_t a, gpa_t gpa, struct soft_tlb_entry *e, uint64_t key)
{
	struct block *b, **head, *made;
	uint8_t code[BLOCK_BYTES + 16];
	unsigned avail = PAGE_SIZE - (a & PAGE_MASK);

	if (unlikely(vec_full(&i->c))) {
		interp_flush(i);
		vec_flush(&i->c);
	}
	b = reserve(i);
	if (avail > sizeof(code))
		avail = sizeof(code);
	start_block(b, gpa, key);
	watch(&b->first, x86_tlb_meta(&i->c, e));
	memcpy(code, (const uint8_t *)(a + e->delta), avail);
	made = b;
	if (!decode_run(i, b, code, avail, key & KEY_SINGLE ? 1 : BLOCK_OPS))
		made = crossing_block(i, b, a, code, avail);
	if (made != b)
		return made;
	b->genp = &b->first.ram->gens[b->first.page];
	b->gen = b->first.gen;
	commit(i, block_size(b));
	head = bucket(i, gpa, key);
	b->hash_next = *head;
	*head = b;
	return b;
}

/* ---- finding ---- */

static bool
same_bytes(struct interp_cpu *i, struct block *b, gva_t a, struct soft_tlb_entry *e, struct soft_tlb_entry *e2)
{
	unsigned here = PAGE_SIZE - (a & PAGE_MASK);

	watch(&b->first, x86_tlb_meta(&i->c, e));
	if (!e2)
		return !memcmp(b->code, (const uint8_t *)(a + e->delta), b->bytes);
	watch(&b->second, x86_tlb_meta(&i->c, e2));
	return !memcmp(b->code, (const uint8_t *)(a + e->delta), here) &&
	       !memcmp(b->code + here, (const uint8_t *)((a & ~(gva_t)PAGE_MASK) + PAGE_SIZE + e2->delta),
		       b->bytes - here);
}

/* Is this block still what memory says? If not, it is dead from now on. */
static bool
validate(struct interp_cpu *i, struct block *b, gva_t a, struct soft_tlb_entry *e)
{
	struct soft_tlb_entry *e2 = NULL;

	if (b->flags & BLOCK_CROSS) {
		e2 = second_page(i, a);
		if (!e2 || x86_tlb_meta(&i->c, e2)->gpa != b->second_gpa) {
			unhash(i, b);
			return false;
		}
		if (page_current(&b->first) && page_current(&b->second))
			return true;
	} else if (likely(page_current(&b->first) && b->first.ram == x86_tlb_meta(&i->c, e)->ram)) {
		return true;
	}
	if (b->first.ram == x86_tlb_meta(&i->c, e)->ram && b->first.page == x86_tlb_meta(&i->c, e)->page &&
		same_bytes(i, b, a, e, e2)) {
		b->gen = b->first.gen;
		return true;
	}
	b->flags |= BLOCK_DEAD;
	b->gen = b->first.gen - 1;
	unhash(i, b);
	i->c.v.count.blocks_dropped++;
	return false;
}

static void
check_limit(struct interp_cpu *i, uint64_t rip, unsigned bytes)
{
	if (!i->cs_flat && (rip > ST.seg[SEG_CS].limit || bytes - 1 > ST.seg[SEG_CS].limit - rip))
		x86_gp(&i->c, 0);
}

struct block *
interp_find(struct interp_cpu *i, bool single)
{
	uint64_t rip = ST.rip, key = i->c.mode_key | (single ? KEY_SINGLE : 0) | (i->cs_flat ? KEY_CS_FLAT : 0);
	struct soft_tlb_entry *e;
	struct block *b;
	gva_t a;
	gpa_t gpa;

	if (i->c.mode == X86_LONG64 && !x86_canonical(rip))
		x86_gp(&i->c, 0);
	check_limit(i, rip, 1);
	a = code_linear(i, rip);
	e = code_page(i, a, &gpa);
	if (!is_plain(i, e, a))
		return floating_block(i, a, gpa);
	for (b = *bucket(i, gpa, key); b; b = b->hash_next)
		if (b->gpa == gpa && b->key == key)
			break;
	if (!b || !validate(i, b, a, e))
		b = build(i, a, gpa, code_page(i, a, &gpa), key);
	if (!i->cs_flat && rip + b->bytes - 1 > ST.seg[SEG_CS].limit) {
		if (!single)
			return interp_find(i, true);
		check_limit(i, rip, b->bytes);
	}
	return b;
}
