/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host-executed instructions: the guest's vector, x87 and bit-manipulation instructions run on the host's units with
 * the guest's operands. Guest and host are the same architecture, so there is nothing to emulate: an instruction is
 * brought into a normal form that means the same in the host's 64-bit code (its memory operand becomes [RSI], its
 * general registers are renamed, ignored bits and prefixes dropped), and a thunk (vec_emit.c) runs that form on a
 * struct x86_state. Instructions that differ in displacement, segment or code size only share one normal form, one op
 * and one thunk.
 *
 * Which instructions: a list of instruction sets, each with the CPUID bits that offer it. What the guest's CPUID does
 * not show is not compiled, and the caller raises #UD.
 *
 * The decoder is not trusted to know every encoding the host refuses: see the signals in vec_emit.c. That an access is
 * as large as the decoder says is tested for every form (test/unit/cpu/vec_diff.c).
 */
#include "cpu/x86/vec.h"

#include <stdlib.h>
#include <string.h>

/* ---- what CPUID offers ---- */

enum cpuid_word { W_NONE, W_1C, W_1D, W_7B, W_7C, W_7D, W_71A, W_8C, W_DA, W_COUNT };

static const struct {
	uint32_t leaf, sub;
	uint8_t reg;
} words[W_COUNT] = {
	[W_1C] = { 1, 0, 2 },
	[W_1D] = { 1, 0, 3 },
	[W_7B] = { 7, 0, 1 },
	[W_7C] = { 7, 0, 2 },
	[W_7D] = { 7, 0, 3 },
	[W_71A] = { 7, 1, 0 },
	[W_8C] = { 0x80000001, 0, 2 },
	[W_DA] = { 13, 1, 0 },
};

#define F(word, bit) ((word) << 5 | (bit))
#define F_AVX F(W_1C, 28)
#define F_VL F(W_7B, 31)
#define AVX512_ROWS(set, feature)                                                                                      \
	[ZYDIS_ISA_SET_##set##_128] = { feature, F_VL }, [ZYDIS_ISA_SET_##set##_256] = { feature, F_VL },              \
	[ZYDIS_ISA_SET_##set##_512] = { feature }

/* Both bits must be there. Sets without a row are not run here. */
static const uint16_t isa_set[ZYDIS_ISA_SET_MAX_VALUE + 1][2] = {
	[ZYDIS_ISA_SET_X87] = { F(W_1D, 0) },
	[ZYDIS_ISA_SET_FCMOV] = { F(W_1D, 0), F(W_1D, 15) },
	[ZYDIS_ISA_SET_PPRO] = { F(W_1D, 0), F(W_1D, 15) }, /* FCOMI; all others are not x87 and refused */
	[ZYDIS_ISA_SET_PENTIUMMMX] = { F(W_1D, 23) },
	[ZYDIS_ISA_SET_FXSAVE] = { F(W_1D, 24) },
	[ZYDIS_ISA_SET_FXSAVE64] = { F(W_1D, 24) },
	[ZYDIS_ISA_SET_SSE] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_SSEMXCSR] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_SSE_PREFETCH] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_PREFETCH_NOP] = { F(W_1D, 0) },
	[ZYDIS_ISA_SET_CLFSH] = { F(W_1D, 19) },
	[ZYDIS_ISA_SET_CLFLUSHOPT] = { F(W_7B, 23) },
	[ZYDIS_ISA_SET_CLWB] = { F(W_7B, 24) },
	[ZYDIS_ISA_SET_CLDEMOTE] = { F(W_7C, 25) },
	[ZYDIS_ISA_SET_SSE2] = { F(W_1D, 26) },
	[ZYDIS_ISA_SET_SSE2MMX] = { F(W_1D, 26) },
	[ZYDIS_ISA_SET_SSE3] = { F(W_1C, 0) },
	[ZYDIS_ISA_SET_SSE3X87] = { F(W_1C, 0) },
	[ZYDIS_ISA_SET_SSSE3] = { F(W_1C, 9) },
	[ZYDIS_ISA_SET_SSSE3MMX] = { F(W_1C, 9) },
	[ZYDIS_ISA_SET_SSE4] = { F(W_1C, 19) },
	[ZYDIS_ISA_SET_SSE42] = { F(W_1C, 20) },
	[ZYDIS_ISA_SET_SSE4A] = { F(W_8C, 6) },
	[ZYDIS_ISA_SET_POPCNT] = { F(W_1C, 23) },
	[ZYDIS_ISA_SET_LZCNT] = { F(W_8C, 5) },
	[ZYDIS_ISA_SET_BMI1] = { F(W_7B, 3) },
	[ZYDIS_ISA_SET_BMI2] = { F(W_7B, 8) },
	[ZYDIS_ISA_SET_ADOX_ADCX] = { F(W_7B, 19) },
	[ZYDIS_ISA_SET_MOVBE] = { F(W_1C, 22) },
	[ZYDIS_ISA_SET_RDRAND] = { F(W_1C, 30) },
	[ZYDIS_ISA_SET_RDSEED] = { F(W_7B, 18) },
	[ZYDIS_ISA_SET_AES] = { F(W_1C, 25) },
	[ZYDIS_ISA_SET_PCLMULQDQ] = { F(W_1C, 1) },
	[ZYDIS_ISA_SET_SHA] = { F(W_7B, 29) },
	[ZYDIS_ISA_SET_GFNI] = { F(W_7C, 8) },
	[ZYDIS_ISA_SET_AVX] = { F_AVX },
	[ZYDIS_ISA_SET_AVX2] = { F(W_7B, 5) },
	[ZYDIS_ISA_SET_AVX2GATHER] = { F(W_7B, 5) },
	[ZYDIS_ISA_SET_AVXAES] = { F(W_1C, 25), F_AVX },
	[ZYDIS_ISA_SET_AVX_GFNI] = { F(W_7C, 8), F_AVX },
	[ZYDIS_ISA_SET_AVX_VNNI] = { F(W_71A, 4) },
	[ZYDIS_ISA_SET_F16C] = { F(W_1C, 29), F_AVX },
	[ZYDIS_ISA_SET_FMA] = { F(W_1C, 12), F_AVX },
	[ZYDIS_ISA_SET_VAES] = { F(W_7C, 9), F_AVX },
	[ZYDIS_ISA_SET_VPCLMULQDQ] = { F(W_7C, 10), F_AVX },
	[ZYDIS_ISA_SET_MOVDIR] = { F(W_7C, 27), F(W_7C, 28) },
	[ZYDIS_ISA_SET_XSAVE] = { F(W_1C, 26) },
	[ZYDIS_ISA_SET_XSAVEOPT] = { F(W_DA, 0) },
	[ZYDIS_ISA_SET_XSAVEC] = { F(W_DA, 1) },
	[ZYDIS_ISA_SET_XSAVES] = { F(W_DA, 3) },
	AVX512_ROWS(AVX512F, F(W_7B, 16)),
	[ZYDIS_ISA_SET_AVX512F_128N] = { F(W_7B, 16) },
	[ZYDIS_ISA_SET_AVX512F_KOP] = { F(W_7B, 16) },
	[ZYDIS_ISA_SET_AVX512F_SCALAR] = { F(W_7B, 16) },
	AVX512_ROWS(AVX512DQ, F(W_7B, 17)),
	[ZYDIS_ISA_SET_AVX512DQ_128N] = { F(W_7B, 17) },
	[ZYDIS_ISA_SET_AVX512DQ_KOP] = { F(W_7B, 17) },
	[ZYDIS_ISA_SET_AVX512DQ_SCALAR] = { F(W_7B, 17) },
	AVX512_ROWS(AVX512BW, F(W_7B, 30)),
	[ZYDIS_ISA_SET_AVX512BW_128N] = { F(W_7B, 30) },
	[ZYDIS_ISA_SET_AVX512BW_KOP] = { F(W_7B, 30) },
	AVX512_ROWS(AVX512CD, F(W_7B, 28)),
	AVX512_ROWS(AVX512_IFMA, F(W_7B, 21)),
	AVX512_ROWS(AVX512_VBMI, F(W_7C, 1)),
	AVX512_ROWS(AVX512_VBMI2, F(W_7C, 6)),
	AVX512_ROWS(AVX512_GFNI, F(W_7C, 8)),
	AVX512_ROWS(AVX512_VAES, F(W_7C, 9)),
	AVX512_ROWS(AVX512_VPCLMULQDQ, F(W_7C, 10)),
	AVX512_ROWS(AVX512_VNNI, F(W_7C, 11)),
	AVX512_ROWS(AVX512_BITALG, F(W_7C, 12)),
	AVX512_ROWS(AVX512_VPOPCNTDQ, F(W_7C, 14)),
	AVX512_ROWS(AVX512_VP2INTERSECT, F(W_7D, 8)),
	AVX512_ROWS(AVX512_FP16, F(W_7D, 23)),
	[ZYDIS_ISA_SET_AVX512_FP16_128N] = { F(W_7D, 23) },
	[ZYDIS_ISA_SET_AVX512_FP16_SCALAR] = { F(W_7D, 23) },
	AVX512_ROWS(AVX512_BF16, F(W_71A, 5)),
};

static const struct cpuid_leaf *
find_leaf(const struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == leaf && m->leaf[i].sub == sub)
			return &m->leaf[i];
	return NULL;
}

static bool
has_feature(const struct cpu_model *m, unsigned feature)
{
	unsigned word = feature >> 5;
	const struct cpuid_leaf *l = find_leaf(m, words[word].leaf, words[word].sub);
	uint32_t value;

	if (!l)
		return false;
	value = words[word].reg == 0 ? l->eax : words[word].reg == 1 ? l->ebx : words[word].reg == 2 ? l->ecx : l->edx;
	return value >> (feature & 31) & 1;
}

bool
vec_is_x87(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode >= 0xd8 && in->opcode <= 0xdf;
}

bool
vec_offered(struct soft_cpu *c, const ZydisDecodedInstruction *in)
{
	unsigned set = in->meta.isa_set;
	const struct cpu_model *m = &c->v.cpus->model;

	if (set > ZYDIS_ISA_SET_MAX_VALUE || !isa_set[set][0] || (set == ZYDIS_ISA_SET_PPRO && !vec_is_x87(in)))
		return false;
	return has_feature(m, isa_set[set][0]) && (!isa_set[set][1] || has_feature(m, isa_set[set][1]));
}

/* ---- the cache ---- */

#define KEY_START offsetof(struct vec_op, gate)
#define KEY_SIZE (offsetof(struct vec_op, next) - KEY_START)

static uint32_t
hash_op(const struct vec_op *op)
{
	const uint8_t *p = (const uint8_t *)op + KEY_START;
	uint64_t h = (uintptr_t)op->run >> 4;

	for (size_t i = 0; i < KEY_SIZE; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

static struct vec_op *
new_op(struct vec_cache *vc)
{
	struct vec_chunk *ch = vc->chunks;

	if (vc->ops >= VEC_OPS_MAX)
		return NULL;
	if (!ch || ch->used == VEC_CHUNK) {
		ch = calloc(1, sizeof(*ch));
		if (!ch)
			return NULL;
		ch->next = vc->chunks;
		vc->chunks = ch;
	}
	vc->ops++;
	return &ch->op[ch->used++];
}

static const struct vec_op *
intern(struct vec_cache *vc, const struct vec_op *key, const struct vec_form *f)
{
	uint32_t hash = hash_op(key);
	struct vec_op **bucket = &vc->bucket[hash % VEC_BUCKETS], *op;

	for (op = *bucket; op; op = op->next)
		if (op->hash == hash && op->run == key->run &&
			!memcmp((const char *)op + KEY_START, (const char *)key + KEY_START, KEY_SIZE))
			return op;
	op = new_op(vc);
	if (!op)
		return NULL;
	memcpy(op, key, sizeof(*op));
	op->hash = hash;
	op->next = *bucket;
	*bucket = op;
	return op;
}

static void
drop_ops(struct vec_cache *vc)
{
	struct vec_chunk *next;

	for (struct vec_chunk *ch = vc->chunks; ch; ch = next) {
		next = ch->next;
		free(ch);
	}
	vc->chunks = NULL;
	vc->ops = 0;
	memset(vc->bucket, 0, sizeof(vc->bucket));
}

static void
find_components(struct vec_cache *vc, const struct cpu_model *m)
{
	const struct cpuid_leaf *l;

	for (unsigned i = 2; i < 8; i++) {
		l = find_leaf(m, 13, i);
		if (l && l->eax && l->eax <= 1024)
			vc->component[i] = (struct vec_component){ l->ebx, l->eax, l->ecx & 2 };
	}
	vc->compaction = has_feature(m, F(W_DA, 1));
}

void
vec_open(struct soft_cpu *c)
{
	struct vec_cache *vc;

	if (c->vec)
		return;
	vc = aligned_alloc(64, (sizeof(*vc) + 63) & ~(size_t)63);
	if (!vc)
		abort(); /* out of memory */
	memset(vc, 0, sizeof(*vc));
	vec_host_detect(&vc->host);
	vec_signals_install();
	find_components(vc, &c->v.cpus->model);
	c->vec = vc;
}

void
vec_close(struct soft_cpu *c)
{
	if (!c->vec)
		return;
	drop_ops(c->vec);
	vec_arena_close(c->vec);
	free(c->vec);
	c->vec = NULL;
}

bool
vec_full(struct soft_cpu *c)
{
	return c->vec && c->vec->ops > VEC_OPS_MAX / 2;
}

void
vec_flush(struct soft_cpu *c)
{
	if (!c->vec)
		return;
	drop_ops(c->vec);
	c->vec->used = VEC_ARENA_SIZE; /* starts over with the next thunk */
}

/* ---- the interface ---- */

const struct vec_op *
vec_compile(struct soft_cpu *c, const uint8_t *bytes, unsigned len, const void *zydis_insn, const void *zydis_operands)
{
	const ZydisDecodedInstruction *in = zydis_insn;
	struct vec_form f = { .in = in, .operand = zydis_operands, .reg = -1, .rm = -1, .vvvv = -1, .is4 = -1 };
	struct vec_op op;

	memset(&op, 0, sizeof(op));
	switch (in->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
		op.encoding = VEC_LEGACY;
		break;
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		op.encoding = VEC_VEX;
		break;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		op.encoding = VEC_EVEX;
		break;
	default:
		return NULL;
	}
	if (in->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		return NULL;
	if (op.encoding != VEC_LEGACY && (c->mode == X86_REAL || c->mode == X86_VM86))
		return NULL;
	if (!vec_offered(c, in) && !vec_is_bit_scan(in))
		return NULL;
	vec_open(c);
	vec_signals_thread(c->vec);
	if (!vec_describe(c, &op, &f, bytes))
		return NULL;
	return intern(c->vec, &op, &f);
}

static void
check_gate(struct soft_cpu *c, const struct vec_gate *g)
{
	const struct x86_state *s = &c->v.state;

	if (s->cr0 & g->cr0_ud || ~s->cr4 & g->cr4_need || ~s->xcr0 & g->xcr0_need)
		x86_ud(c);
	if (s->cr0 & g->cr0_nm || (g->cr0_mp && (s->cr0 & g->cr0_mp) == g->cr0_mp))
		x86_raise(c, EXC_NM);
}

static inline void
pass_gate(struct soft_cpu *c, const struct vec_gate *g)
{
	const struct x86_state *s = &c->v.state;

	if ((s->cr0 & (g->cr0_ud | g->cr0_nm | g->cr0_mp)) | (~s->cr4 & g->cr4_need) | (~s->xcr0 & g->xcr0_need))
		check_gate(c, g);
}

void
vec_check_first(struct soft_cpu *c, const struct vec_op *op)
{
	pass_gate(c, &op->gate);
	if ((op->x87 && !op->x87_nowait) || op->mmx)
		vec_check_pending(c);
}

void
vec_run(struct soft_cpu *c, const struct vec_op *op, gva_t a, uint64_t seg_base)
{
	pass_gate(c, &op->gate);
	op->run(c, (struct vec_op *)op, a, seg_base);
}

unsigned
vec_mem_size(const struct vec_op *op)
{
	return op->mem_size;
}

bool
vec_mem_write(const struct vec_op *op)
{
	return op->mem_write;
}

bool
vec_uses_flags(const struct vec_op *op)
{
	return op->uses_flags;
}
