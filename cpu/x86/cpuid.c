/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CPUID says (SDM 2A CPUID; AMD APM 3 appendix E).
 *
 * A model is computed once per machine. Feature words are (host & CARRY) | EMULATED, cut down to a named baseline where
 * one was asked for:
 *
 *	CARRY     instructions run on the host with the guest's operands, if the host has them
 *	EMULATED  parts the software engines model themselves, on any host
 *
 * The rest (topology, caches, clocks, names) is made up here, so that it fits the machine: one package of N cores with
 * one thread each. A software engine with a named baseline also has a fixed vendor, family and XSAVE layout: nothing
 * the guest sees then depends on the host, as long as the host has the baseline's instructions.
 *
 * KVM runs guest code on the host itself, so there the host's vendor stays and only what the host has is offered
 * (the KVM engine cuts this down further to what the kernel supports).
 */
#include <cpuid.h>
#include <string.h>

#include "base/str.h"
#include "cpu/x86/x86.h"

#define B(n) (1u << (n))
#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_HYPERVISOR_TIME 0x40000010u
#define LEAF_EXT 0x80000000u
/* The local APIC timer's clock (dev/lapic.c): the "crystal" of leaf 0x15. */
#define CRYSTAL_HZ 1000000000u

/* Feature words. X(name, leaf, sub, register: 0 eax ... 3 edx) */
#define WORDS(X)                                                                                                       \
	X(F1C, 1, 0, 2)                                                                                                \
	X(F1D, 1, 0, 3)                                                                                                \
	X(F7B, 7, 0, 1)                                                                                                \
	X(F7C, 7, 0, 2)                                                                                                \
	X(F7D, 7, 0, 3)                                                                                                \
	X(F71A, 7, 1, 0)                                                                                               \
	X(FXS, 0xd, 1, 0)                                                                                              \
	X(FEC, 0x80000001, 0, 2)                                                                                       \
	X(FED, 0x80000001, 0, 3)                                                                                       \
	X(FE8, 0x80000008, 0, 1)                                                                                       \
	X(FE21, 0x80000021, 0, 0)

#define WORD_ENUM(name, leaf, sub, reg) name,
enum word { WORDS(WORD_ENUM) WORD_COUNT };
#undef WORD_ENUM

static const struct {
	uint32_t leaf, sub;
	int reg;
} words[] = {
#define WORD_ROW(name, leaf, sub, reg) { leaf, sub, reg },
	WORDS(WORD_ROW)
#undef WORD_ROW
};

/* Leaf 1. */
enum { C1_FMA = 12, C1_OSXSAVE = 27, C1_AVX = 28, C1_XSAVE = 26 };
#define F1C_SSE (B(0) | B(1) | B(9) | B(12) | B(19) | B(20) | B(22) | B(23) | B(25))
#define F1C_V2 (B(0) | B(9) | B(13) | B(19) | B(20) | B(23))
#define F1C_EMULATED (B(13) | B(17) | B(21) | B(24) | B(31)) /* CX16, PCID, x2APIC, TSC deadline, hypervisor */
#define F1D_BASE                                                                                                       \
	0x0783fbffu /* FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 MMX FXSR SSE SSE2 */
#define F1D_CLFSH B(19)
/* Leaf 7 EBX: AVX-512 F DQ IFMA CD BW VL. */
#define F7B_AVX512 (B(16) | B(17) | B(28) | B(30) | B(31))
#define F7B_EMULATED (B(0) | B(1) | B(7) | B(9) | B(10) | B(20)) /* FSGSBASE TSC_ADJUST SMEP ERMS INVPCID SMAP */
#define F7B_CARRY (B(3) | B(5) | B(6) | B(8) | B(13) | F7B_AVX512 | B(18) | B(19) | B(21) | B(23) | B(24) | B(29))
/* Leaf 7 ECX: VBMI VBMI2 GFNI VAES VPCLMULQDQ VNNI BITALG VPOPCNTDQ MOVDIRI MOVDIR64B. */
#define F7C_CARRY (B(1) | B(6) | B(8) | B(9) | B(10) | B(11) | B(12) | B(14) | B(27) | B(28))
#define F7C_AVX512 (B(1) | B(6) | B(11) | B(12) | B(14))
#define F7C_EMULATED (B(2) | B(22)) /* UMIP, RDPID */
/* Leaf 7 EDX: AVX512_FP16; Intel's SPEC_CTRL, STIBP, ARCH_CAPABILITIES, SSBD; FSRM. */
#define F7D_AVX512 B(23)
#define F7D_SPECULATION (B(26) | B(27) | B(29) | B(31))
#define F7D_FSRM B(4)
/* 0x80000001. */
#define FEC_EMULATED B(0)	/* LAHF in 64-bit mode */
#define FEC_CARRY (B(5) | B(8)) /* ABM, PREFETCHW */
#define FEC_TOPOEXT B(22)
#define FED_EMULATED (B(11) | B(20) | B(26) | B(27) | B(29)) /* SYSCALL NX 1G RDTSCP LM */
#define FED_AMD_COPY 0x0183f3ffu			     /* the bits of leaf 1 that AMD repeats here */
#define FED_MMXEXT B(22)
/* 0x80000008 EBX of AMD: IBPB IBRS STIBP, IBRS_PREFERRED IBRS_SAME_MODE, SSBD SSB_NO BTC_NO. */
#define FE8_EMULATED (B(12) | B(14) | B(15) | B(18) | B(19) | B(24) | B(26) | B(29))
/* 0x80000021 EAX of AMD: LFENCE serialises, null selectors clear the base, automatic IBRS, SRSO_NO. */
#define FE21_EMULATED (B(2) | B(6) | B(8) | B(29))

static const uint32_t emulated[WORD_COUNT] = {
	[F1C] = F1C_EMULATED,
	[F1D] = F1D_BASE | F1D_CLFSH,
	[F7B] = F7B_EMULATED,
	[F7C] = F7C_EMULATED,
	[F7D] = F7D_FSRM,
	[FEC] = FEC_EMULATED,
	[FED] = FED_EMULATED,
};

static const uint32_t carry[WORD_COUNT] = {
	[F1C] = F1C_SSE | B(13) | B(C1_XSAVE) | B(C1_AVX) | B(29) | B(30),
	[F1D] = F1D_BASE | F1D_CLFSH,
	[F7B] = F7B_CARRY,
	[F7C] = F7C_CARRY,
	[F7D] = F7D_AVX512,
	[F71A] = B(4) | B(5), /* AVX-VNNI, AVX512_BF16 */
	[FXS] = B(0) | B(1) | B(2),
	[FEC] = FEC_CARRY,
	[FED] = FED_MMXEXT,
};

/* Beyond what the software engines carry, a guest on KVM may have these of the host's. */
static const uint32_t kvm_more[WORD_COUNT] = {
	[F1C] = F1C_EMULATED,
	[F7B] = F7B_EMULATED,
	[F7C] = F7C_EMULATED | B(25),
	[F7D] = F7D_FSRM | F7D_SPECULATION | B(10) | B(14),
	[F71A] = B(10) | B(11) | B(12) | B(23),
	[FXS] = 0,
	[FEC] = FEC_EMULATED | B(6) | B(7) | B(11) | B(16) | B(21),
	[FED] = FED_EMULATED,
	[FE8] = FE8_EMULATED | B(0) | B(9) | B(16) | B(17),
	[FE21] = FE21_EMULATED,
};

/*
 * Named baselines, after the levels of the x86-64 psABI; v3 adds AES, PCLMULQDQ and RDRAND, which every CPU of that
 * level has. System features (EMULATED) are in all of them.
 */
static const struct baseline {
	const char *name;
	uint32_t f1c, f7b, fec;
	uint32_t signature; /* leaf 1 EAX of the software engines */
} baselines[] = {
	{ "x86-64", 0, 0, 0, 0x000006fb },
	{ "x86-64-v2", F1C_V2, 0, 0, 0x000106a5 },
	{ "x86-64-v3", F1C_V2 | B(1) | B(12) | B(22) | B(25) | B(C1_XSAVE) | B(C1_AVX) | B(29) | B(30),
		B(3) | B(5) | B(8), B(5), 0x000306c3 },
	{ "x86-64-v4", F1C_V2 | B(1) | B(12) | B(22) | B(25) | B(C1_XSAVE) | B(C1_AVX) | B(29) | B(30),
		B(3) | B(5) | B(8) | F7B_AVX512 | B(18) | B(19) | B(23) | B(24), B(5) | B(8), 0x00050654 },
};

static const struct baseline *
baseline_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(baselines); i++)
		if (!strcmp(name, baselines[i].name))
			return &baselines[i];
	return NULL;
}

bool
x86_model_known(const char *name)
{
	return !strcmp(name, "host") || baseline_find(name);
}

/* ---- building ---- */

struct build {
	struct cpu_model *m;
	const struct baseline *base; /* NULL: host */
	bool software, amd;
	int cpus;
	uint64_t tsc_hz;
	uint32_t word[WORD_COUNT];
};

static void
add(struct build *b, uint32_t leaf, uint32_t sub, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	struct cpu_model *m = b->m;

	if (m->leaf_count < (int)ARRAY_LEN(m->leaf))
		m->leaf[m->leaf_count++] = (struct cpuid_leaf){ leaf, sub, eax, ebx, ecx, edx };
}

static bool
host_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	out[0] = out[1] = out[2] = out[3] = 0;
	return __get_cpuid_count(leaf, sub, &out[0], &out[1], &out[2], &out[3]);
}

static uint32_t
host_word(enum word w)
{
	uint32_t out[4], max[4];

	/* subleaf 1 of leaf 7 is there only if subleaf 0 says so */
	if (words[w].leaf == 7 && words[w].sub && (!host_cpuid(7, 0, max) || max[0] < words[w].sub))
		return 0;
	host_cpuid(words[w].leaf, words[w].sub, out);
	return out[words[w].reg];
}

/* Instructions that make no sense without the registers they work on, or without the host's XSAVE. */
static void
drop_orphans(uint32_t *w)
{
	bool avx = w[F1C] & B(C1_AVX) && w[F1C] & B(C1_XSAVE);
	bool avx512 = avx && (w[F7B] & (F7B_AVX512)) == (F7B_AVX512);

	if (!avx) {
		w[F1C] &= ~(B(C1_AVX) | B(C1_FMA) | B(29));
		w[F7B] &= ~B(5);
		w[F7C] &= ~(B(9) | B(10));
		w[F71A] &= ~(B(4) | B(23));
	}
	if (!avx512) {
		w[F7B] &= ~(F7B_AVX512 | B(21));
		w[F7C] &= ~F7C_AVX512;
		w[F7D] &= ~F7D_AVX512;
		w[F71A] &= ~B(5);
	}
	if (!(w[F1C] & B(C1_XSAVE)))
		w[FXS] = 0;
}

static void
cut_to_baseline(struct build *b)
{
	uint32_t *w = b->word, system = b->software ? 0 : UINT32_MAX;

	w[F1C] &= b->base->f1c | F1C_EMULATED;
	w[F7B] &= b->base->f7b | F7B_EMULATED;
	w[F7C] &= F7C_EMULATED;
	w[F7D] &= F7D_FSRM | F7D_SPECULATION;
	w[F71A] = 0;
	w[FXS] &= b->base->f1c & B(C1_XSAVE) ? B(0) | B(1) | B(2) : 0;
	w[FEC] &= b->base->fec | FEC_EMULATED | FEC_TOPOEXT;
	w[FED] &= FED_EMULATED | FED_AMD_COPY;
	w[FE8] &= FE8_EMULATED | system;
}

static void
choose_words(struct build *b)
{
	uint32_t *w = b->word;

	for (int i = 0; i < WORD_COUNT; i++) {
		uint32_t host = host_word((enum word)i);

		w[i] = b->software ? (host & carry[i]) | emulated[i] : host & (carry[i] | kvm_more[i]);
	}
	w[F1C] |= B(31);
	if (b->software && b->amd) {
		w[FE8] |= FE8_EMULATED;
		w[FE21] |= FE21_EMULATED;
	} else if (b->software) {
		w[F7D] |= F7D_SPECULATION;
	}
	if (b->base)
		cut_to_baseline(b);
	if (b->amd) {
		w[FED] |= w[F1D] & FED_AMD_COPY;
		w[FEC] |= FEC_TOPOEXT;
	} else {
		w[FED] &= FED_EMULATED;
		w[FE21] = 0;
	}
	if (b->cpus > 1)
		w[F1D] |= B(28);
	drop_orphans(w);
}

/* ---- identification ---- */

static void
add_vendor(struct build *b, uint32_t leaf, uint32_t max)
{
	uint32_t host[4];

	host_cpuid(0, 0, host);
	if (b->base && b->software)
		add(b, leaf, 0, max, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
	else if (leaf && !b->amd)
		add(b, leaf, 0, max, 0, 0, 0);
	else
		add(b, leaf, 0, max, host[1], host[2], host[3]);
}

static uint32_t
signature(const struct build *b)
{
	uint32_t host[4];

	if (b->base && b->software)
		return b->base->signature;
	host_cpuid(1, 0, host);
	return host[0] & 0x0fff3fff;
}

static void
add_brand(struct build *b)
{
	uint32_t text[12] = { 0 };
	char *s = (char *)text;

	if (b->base && b->software) {
		strcpy(s, "Lodge Virtual CPU ");
		strcat(s, b->base->name);
	} else if (__get_cpuid_max(LEAF_EXT, NULL) >= 0x80000004) {
		for (uint32_t i = 0; i < 3; i++)
			host_cpuid(0x80000002 + i, 0, &text[4 * i]);
	} else {
		strcpy(s, "Lodge Virtual CPU");
	}
	for (uint32_t i = 0; i < 3; i++)
		add(b, 0x80000002 + i, 0, text[4 * i], text[4 * i + 1], text[4 * i + 2], text[4 * i + 3]);
}

/* ---- topology and caches ---- */

static unsigned
log2_up(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

/* Deterministic caches, leaf 4 and 0x8000001d: L1 of 32 KiB, L2 of 1 MiB each core, L3 of 16 MiB shared. */
static void
add_caches(struct build *b, uint32_t leaf)
{
	static const struct {
		uint32_t type_level, ways, sets;
	} cache[] = { { 1 | 1 << 5, 8, 64 }, { 2 | 1 << 5, 8, 64 }, { 3 | 2 << 5, 16, 1024 },
		{ 3 | 3 << 5, 16, 16384 } };
	uint32_t cores = (1u << log2_up((unsigned)b->cpus)) - 1;

	for (uint32_t i = 0; i < ARRAY_LEN(cache); i++) {
		uint32_t shared = i == 3 ? (uint32_t)b->cpus - 1 : 0;
		uint32_t eax = cache[i].type_level | B(8) | shared << 14;

		if (leaf == 4)
			eax |= MIN(cores, 63u) << 26;
		add(b, leaf, i, eax, (cache[i].ways - 1) << 22 | 63, cache[i].sets - 1, 0);
	}
}

/* Extended topology, leaves 0xb and 0x1f; EDX is filled in for each CPU. */
static void
add_topology(struct build *b, uint32_t leaf)
{
	add(b, leaf, 0, 0, 1, 0 | 1 << 8, 0);
	add(b, leaf, 1, log2_up((unsigned)b->cpus), (uint32_t)b->cpus, 1 | 2 << 8, 0);
}

/* ---- XSAVE (leaf 0xd) ---- */

/* Offset and size in the standard format; `host` layouts may leave out gaps of components they do not have. */
static const struct {
	unsigned bit;
	uint32_t size, offset;
} components[] = { { 2, 256, 576 }, { 5, 64, 1088 }, { 6, 512, 1152 }, { 7, 1024, 1664 } };

static void
add_xsave(struct build *b)
{
	uint64_t xcr0 = 3;
	uint32_t end = 576, host[4];

	if (!(b->word[F1C] & B(C1_XSAVE))) {
		b->m->xcr0_supported = 1;
		return;
	}
	if (b->word[F1C] & B(C1_AVX))
		xcr0 |= 4;
	if (b->word[F7B] & B(16))
		xcr0 |= 0xe0;
	b->m->xcr0_supported = xcr0;
	for (size_t i = 0; i < ARRAY_LEN(components); i++) {
		uint32_t bit = components[i].bit, size = components[i].size, offset = components[i].offset;

		if (!(xcr0 >> bit & 1))
			continue;
		host_cpuid(0xd, bit, host);
		if (host[0] == size && !(b->base && b->software))
			offset = host[1];
		add(b, 0xd, bit, size, offset, 0, 0);
		end = MAX(end, offset + size);
	}
	add(b, 0xd, 0, (uint32_t)xcr0, 0, end, 0);
	add(b, 0xd, 1, b->word[FXS], 0, 0, 0);
}

/* ---- clocks (leaves 0x15, 0x16) ---- */

/*
 * The ratio TSC : crystal as a fraction whose numerator times the crystal's kHz stays in 32 bits, because kernels
 * multiply so. Continued fraction: the error is far below 1 ppm.
 */
static void
clock_ratio(uint64_t tsc_hz, uint32_t *num, uint32_t *den)
{
	uint64_t n = tsc_hz, d = CRYSTAL_HZ, p0 = 1, q0 = 0, p1 = n / d, q1 = 1;

	while (n % d) {
		uint64_t rest = n % d, a, p, q;

		n = d;
		d = rest;
		a = n / d;
		p = a * p1 + p0;
		q = a * q1 + q0;
		if (p > UINT32_MAX / (CRYSTAL_HZ / 1000) || q > UINT32_MAX)
			break;
		p0 = p1;
		q0 = q1;
		p1 = p;
		q1 = q;
	}
	*num = (uint32_t)p1;
	*den = (uint32_t)q1;
}

static void
add_clocks(struct build *b)
{
	uint32_t num, den, mhz = (uint32_t)(b->tsc_hz / 1000000);

	clock_ratio(b->tsc_hz, &num, &den);
	add(b, 0x15, 0, den, num, num ? CRYSTAL_HZ : 0, 0);
	add(b, 0x16, 0, mhz, mhz, 100, 0);
}

/* ---- the leaves ---- */

static void
add_basic(struct build *b)
{
	const uint32_t *w = b->word;

	add_vendor(b, 0, b->amd ? 0x16 : 0x1f);
	add(b, 1, 0, signature(b), 8 << 8, w[F1C], w[F1D]);
	if (!b->amd) {
		add(b, 2, 0, 0x00feff01, 0, 0, 0); /* "see leaf 4" */
		add_caches(b, 4);
	}
	add(b, 6, 0, B(2), 0, 0, 0); /* ARAT */
	add(b, 7, 0, 2, w[F7B], w[F7C], w[F7D]);
	add(b, 7, 1, w[F71A], 0, 0, 0);
	add(b, 7, 2, 0, 0, 0, b->software && !b->amd ? B(4) : 0); /* BHI_CTRL */
	add_topology(b, 0xb);
	add_xsave(b);
	add_clocks(b);
	if (!b->amd)
		add_topology(b, 0x1f);
}

/* The convention of VMware's knowledge base 1009458: kHz of TSC and APIC timer in leaf 0x40000010. */
static void
add_hypervisor(struct build *b)
{
	uint32_t sig[3];

	memcpy(sig, "LodgeLodgeLo", 12);
	add(b, LEAF_HYPERVISOR, 0, LEAF_HYPERVISOR_TIME, sig[0], sig[1], sig[2]);
	add(b, LEAF_HYPERVISOR_TIME, 0, (uint32_t)(b->tsc_hz / 1000), CRYSTAL_HZ / 1000, 0, 0);
}

static void
add_amd(struct build *b)
{
	uint32_t n = (uint32_t)b->cpus;

	add(b, 0x80000005, 0, 0xff40ff40, 0xff40ff40, 32u << 24 | 8 << 16 | 1 << 8 | 64,
		32u << 24 | 8 << 16 | 1 << 8 | 64);
	add(b, 0x80000006, 0, 0, 0x42004200, 1024u << 16 | 8 << 12 | 1 << 8 | 64, 32u << 18 | 8 << 12 | 1 << 8 | 64);
	add(b, 0x80000007, 0, 0, 0, 0, B(8));
	add(b, 0x80000008, 0, b->m->phys_bits | b->m->virt_bits << 8, b->word[FE8], (n - 1) | log2_up(n) << 12, 0);
	add_caches(b, 0x8000001d);
	add(b, 0x8000001e, 0, 0, 0, 0, 0);
	add(b, 0x80000021, 0, b->word[FE21], 0, 0, 0);
}

static void
add_extended(struct build *b)
{
	add_vendor(b, LEAF_EXT, b->amd ? 0x80000021 : 0x80000008);
	add(b, 0x80000001, 0, b->amd ? signature(b) : 0, 0, b->word[FEC], b->word[FED]);
	add_brand(b);
	if (b->amd) {
		add_amd(b);
		return;
	}
	add(b, 0x80000006, 0, 0, 0, 1024u << 16 | 8 << 12 | 64, 0);
	add(b, 0x80000007, 0, 0, 0, 0, B(8)); /* invariant TSC */
	add(b, 0x80000008, 0, b->m->phys_bits | b->m->virt_bits << 8, 0, 0, 0);
}

static uint64_t
cr4_bits(const uint32_t *w)
{
	uint64_t cr4 = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
		       CR4_OSFXSR | CR4_OSXMMEXCPT;

	cr4 |= w[F1C] & B(17) ? CR4_PCIDE : 0;
	cr4 |= w[F1C] & B(C1_XSAVE) ? CR4_OSXSAVE : 0;
	cr4 |= w[F7B] & B(0) ? CR4_FSGSBASE : 0;
	cr4 |= w[F7B] & B(7) ? CR4_SMEP : 0;
	cr4 |= w[F7B] & B(20) ? CR4_SMAP : 0;
	cr4 |= w[F7C] & B(2) ? CR4_UMIP : 0;
	return cr4;
}

static unsigned
phys_bits(void)
{
	uint32_t host[4];

	if (!host_cpuid(0x80000008, 0, host) || !(host[0] & 0xff))
		return 36;
	return MIN(host[0] & 0xff, 46u);
}

static bool
host_is_amd(void)
{
	uint32_t host[4];

	host_cpuid(0, 0, host);
	return host[1] == 0x68747541 || host[1] == 0x6f677948; /* AuthenticAMD, HygonGenuine */
}

void
x86_model_init(struct cpu_model *m, const char *name, bool software, int cpus, uint64_t tsc_hz)
{
	struct build b = { .m = m, .base = baseline_find(name), .software = software, .cpus = cpus, .tsc_hz = tsc_hz };

	memset(m, 0, sizeof(*m));
	strncpy(m->name, name, sizeof(m->name) - 1);
	b.amd = host_is_amd() && !(b.base && software);
	m->phys_bits = b.base ? 40 : phys_bits();
	m->virt_bits = 48;
	choose_words(&b);
	m->cr4_supported = cr4_bits(b.word);
	m->efer_supported = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	if (b.word[FE21] & B(8))
		m->efer_supported |= 1 << 21; /* automatic IBRS */
	add_basic(&b);
	add_hypervisor(&b);
	add_extended(&b);
}

/* ---- looking up ---- */

static const struct cpuid_leaf *
find(const struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == leaf && m->leaf[i].sub == sub)
			return &m->leaf[i];
	return NULL;
}

/* Where a guest finds features it then relies on. What tells of speculation only (7 EDX 26-31, 0x80000008 EBX,
 * 0x80000021) may differ: the registers that go with it are there in all engines. */
static const struct feature_word {
	uint32_t leaf, sub;
	size_t reg; /* in struct cpuid_leaf */
	const char *name;
	uint32_t mask;
} feature_words[] = {
	{ 1, 0, offsetof(struct cpuid_leaf, ecx), "1 ECX", ~B(C1_OSXSAVE) },
	{ 1, 0, offsetof(struct cpuid_leaf, edx), "1 EDX", UINT32_MAX },
	{ 7, 0, offsetof(struct cpuid_leaf, ebx), "7 EBX", UINT32_MAX },
	{ 7, 0, offsetof(struct cpuid_leaf, ecx), "7 ECX", UINT32_MAX },
	{ 7, 0, offsetof(struct cpuid_leaf, edx), "7 EDX", ~(F7D_SPECULATION | B(10) | B(14)) },
	{ 7, 1, offsetof(struct cpuid_leaf, eax), "7.1 EAX", UINT32_MAX },
	{ 0xd, 1, offsetof(struct cpuid_leaf, eax), "0xd.1 EAX", UINT32_MAX },
	{ 0x80000001, 0, offsetof(struct cpuid_leaf, ecx), "0x80000001 ECX", UINT32_MAX },
	{ 0x80000001, 0, offsetof(struct cpuid_leaf, edx), "0x80000001 EDX", UINT32_MAX },
};

static uint32_t
word_of(const struct cpu_model *m, const struct feature_word *w)
{
	const struct cpuid_leaf *l = find(m, w->leaf, w->sub);
	uint32_t value = 0;

	if (l)
		memcpy(&value, (const uint8_t *)l + w->reg, sizeof(value));
	return value & w->mask;
}

int
x86_model_take(struct cpu_model *m, const struct cpu_model *saved, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];
		uint32_t more = word_of(saved, w) & ~word_of(m, w);

		if (more)
			return err_set(e, ERR_HOST,
				"the saved machine uses a processor feature that this host or engine does not have "
				"(CPUID leaf %s, bit %d)",
				w->name, __builtin_ctz(more));
	}
	if (saved->xcr0_supported & ~m->xcr0_supported || saved->cr4_supported & ~m->cr4_supported ||
		saved->efer_supported & ~m->efer_supported || saved->phys_bits > m->phys_bits ||
		saved->virt_bits > m->virt_bits)
		return err_set(e, ERR_HOST,
			"the saved machine uses processor registers or addresses that this host or engine does not "
			"have");
	*m = *saved;
	return 0;
}

static bool
has_subleaves(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001d;
}

/* Bytes of the XSAVE area for what XCR0 enables. */
static uint32_t
xsave_size(const struct cpu_model *m, uint64_t xcr0, bool compact)
{
	uint32_t end = 576;

	for (uint32_t bit = 2; bit < 8; bit++) {
		const struct cpuid_leaf *l = find(m, 0xd, bit);

		if (!l || !(xcr0 >> bit & 1))
			continue;
		end = compact ? (l->ecx & 2 ? (end + 63) & ~63u : end) + l->eax : MAX(end, l->ebx + l->eax);
	}
	return end;
}

static void
fill_in(const struct cpu_model *m, const struct x86_state *s, uint32_t index, uint32_t cpus, bool apic_on,
	uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	switch (leaf) {
	case 1:
		out[1] |= index << 24 | (1u << log2_up(cpus)) << 16;
		out[2] = s->cr4 & CR4_OSXSAVE ? out[2] | B(C1_OSXSAVE) : out[2] & ~B(C1_OSXSAVE);
		if (!apic_on)
			out[3] &= ~B(9);
		break;
	case 0xb:
	case 0x1f:
		out[2] |= sub & 0xff;
		out[3] = index;
		break;
	case 0xd:
		if (sub == 0 && out[0])
			out[1] = xsave_size(m, s->xcr0, false);
		else if (sub == 1 && out[0] & B(1))
			out[1] = xsave_size(m, s->xcr0, true);
		break;
	case 0x80000001:
		if (!apic_on)
			out[3] &= ~B(9);
		break;
	case 0x8000001e:
		out[0] = index;
		out[1] = index;
		break;
	default:
		break;
	}
}

void
x86_cpuid_lookup(const struct cpu_model *m, const struct x86_state *s, int index, int cpus, bool apic_on, uint32_t leaf,
	uint32_t sub, uint32_t out[4])
{
	const struct cpuid_leaf *l = find(m, leaf, has_subleaves(leaf) ? sub : 0), *max;

	memset(out, 0, 4 * sizeof(*out));
	if (l) {
		out[0] = l->eax;
		out[1] = l->ebx;
		out[2] = l->ecx;
		out[3] = l->edx;
	}
	max = find(m, leaf & 0xc0000000, 0);
	if (max && leaf <= max->eax)
		fill_in(m, s, (uint32_t)index, (uint32_t)cpus, apic_on, leaf, sub, out);
}

void
x86_cpuid(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	const struct lapic_port *lapic = &c->v.m->intc.lapic[c->v.index];
	bool apic_on = !lapic->msr_read || lapic->base & 1u << 11;
	uint32_t out[4];

	x86_cpuid_lookup(&c->v.cpus->model, s, c->v.index, c->v.cpus->count, apic_on, (uint32_t)s->gpr[RAX],
		(uint32_t)s->gpr[RCX], out);
	s->gpr[RAX] = out[0];
	s->gpr[RBX] = out[1];
	s->gpr[RCX] = out[2];
	s->gpr[RDX] = out[3];
}
