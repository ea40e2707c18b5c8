/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving and restoring the x87 and vector state, against the bare CPU: FXSAVE, XSAVE, XSAVEOPT, XSAVEC, FNSAVE and what
 * undoes them, with random masks, components in their initial state, and spoilt headers.
 *
 * FPU_SEED=n repeats a run.
 */
#include "bare.h"

enum kind { SAVE, RESTORE };

static const struct insn {
	const char *name;
	uint8_t len, bytes[5];
	unsigned align;
} saves[] = {
	{ "fxsave", 3, { 0x0f, 0xae, 0x03 }, 16 },
	{ "fxsave64", 4, { 0x48, 0x0f, 0xae, 0x03 }, 16 },
	{ "xsave", 3, { 0x0f, 0xae, 0x23 }, 64 },
	{ "xsave64", 4, { 0x48, 0x0f, 0xae, 0x23 }, 64 },
	{ "xsaveopt", 3, { 0x0f, 0xae, 0x33 }, 64 },
	{ "xsaveopt64", 4, { 0x48, 0x0f, 0xae, 0x33 }, 64 },
	{ "xsavec", 3, { 0x0f, 0xc7, 0x23 }, 64 },
	{ "xsavec64", 4, { 0x48, 0x0f, 0xc7, 0x23 }, 64 },
	{ "fnsave", 2, { 0xdd, 0x33 }, 1 },
	{ "fnsave 16", 3, { 0x66, 0xdd, 0x33 }, 1 },
	{ "fnstenv", 2, { 0xd9, 0x33 }, 1 },
	{ "fnstenv 16", 3, { 0x66, 0xd9, 0x33 }, 1 },
	{ "stmxcsr", 3, { 0x0f, 0xae, 0x1b }, 1 },
}, restores[] = {
	{ "fxrstor", 3, { 0x0f, 0xae, 0x0b }, 16 },
	{ "fxrstor64", 4, { 0x48, 0x0f, 0xae, 0x0b }, 16 },
	{ "xrstor", 3, { 0x0f, 0xae, 0x2b }, 64 },
	{ "xrstor64", 4, { 0x48, 0x0f, 0xae, 0x2b }, 64 },
	{ "frstor", 2, { 0xdd, 0x23 }, 1 },
	{ "frstor 16", 3, { 0x66, 0xdd, 0x23 }, 1 },
	{ "fldenv", 2, { 0xd9, 0x23 }, 1 },
	{ "fldenv 16", 3, { 0x66, 0xd9, 0x23 }, 1 },
	{ "ldmxcsr", 3, { 0x0f, 0xae, 0x13 }, 1 },
};

static const struct vec_op *
compile(struct fixture *f, const struct insn *i)
{
	ZydisDecoder d;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, i->bytes, i->len, &in, o)));
	return vec_compile(f->c, i->bytes, i->len, &in, o);
}

/* Some components in their initial state; EDX:EAX a mask of those the guest has. */
static void
some_state(struct fixture *f, struct x86_state *s)
{
	random_state(f, s);
	s->x87.fip = rnd() >> 17;
	s->x87.fdp = rnd() >> 17;
	s->x87.fop = (uint16_t)(rnd() & 0x7ff);
	s->x87.fsw &= 0x7f7f; /* no pending exceptions: the frame's own instructions would see them */
	s->x87.fsw &= (uint16_t) ~(0x3f & ~s->x87.fcw);
	if (chance(20)) {
		memset(&s->x87, 0, 24);
		memset(s->x87.st, 0, sizeof(s->x87.st));
		s->x87.fcw = 0x37f;
	}
	for (unsigned i = 0; i < 16; i++) {
		if (seed & 0x100)
			memset(s->zmm[i], 0, 16);
		if (seed & 0x200)
			memset(s->zmm[i] + 16, 0, 16);
		if (seed & 0x400)
			memset(s->zmm[i] + 32, 0, 32);
		if (seed & 0x800)
			memset(s->zmm[16 + i], 0, 64);
	}
	if (chance(40))
		memset(s->k, 0, sizeof(s->k));
	if (chance(30))
		s->x87.mxcsr = 0x1f80;
	s->gpr[RAX] = chance(40) ? 0xe7 : rnd() & 0xe7;
	s->gpr[RDX] = 0;
}

static gva_t
place(const struct insn *i)
{
	gva_t a = VA + PAGE_SIZE + below(16) * 64;

	return chance(10) ? a + 1 + below(63) : i->align == 1 ? a + below(64) : a;
}

static bool
attempt(struct fixture *f, const struct insn *i, const struct vec_op *op, const struct x86_state *start)
{
	struct x86_state *s = &f->c->v.state, bare = *start;
	struct outcome eb, es;
	bool bad;

	*s = *start;
	run_bare(&bare, i->bytes, i->len);
	es = run_soft(f, op, start->gpr[RBX]);
	eb = bare_outcome(EXC_MF);
	if (eb.vector && eb.vector == es.vector)
		return false; /* XRSTOR may have loaded some of it */
	bad = eb.vector != es.vector;
	bad |= states_differ(&bare, s);
	if (i->name[0] == 'x') /* other loads put the frame's own pointers there */
		bad |= differ("fip", &bare.x87.fip, &s->x87.fip, 16);
	bad |= memory_differs(f);
	if (bad && !quiet)
		printf("%s: exception bare %d, soft %d; at %llx, mask %llx, in use %llx, mxcsr %x\n", i->name,
			eb.vector, es.vector, (unsigned long long)start->gpr[RBX], (unsigned long long)start->gpr[RAX],
			(unsigned long long)in_use(start), start->x87.mxcsr);
	return bad;
}

static void
set_memory(struct fixture *f, const uint8_t *from)
{
	memcpy(f->ram->host + PAGES + PAGE_SIZE, from, 2 * PAGE_SIZE);
	memcpy(f->host + PAGE_SIZE, from, 2 * PAGE_SIZE);
}

/* A second time if it differed: the kernel may have come in between and left a component marked as in use. */
static unsigned
once(struct fixture *f, const struct insn *i, const struct x86_state *start)
{
	static uint8_t before[2 * PAGE_SIZE];
	const struct vec_op *op = compile(f, i);

	if (!op)
		return 0; /* this host's CPUID does not have it */
	memcpy(before, f->ram->host + PAGES + PAGE_SIZE, sizeof(before));
	quiet = true;
	if (!attempt(f, i, op, start))
		return 0;
	quiet = false;
	set_memory(f, before);
	return attempt(f, i, op, start);
}

static void
begin(void)
{
	const char *text = getenv("FPU_SEED");

	take_signals();
	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	printf("FPU_SEED=%llu\n", (unsigned long long)seed);
}

static void
what_is_saved_is_what_the_bare_cpu_saves(void **state)
{
	struct fixture *f = *state;
	struct x86_state start;
	unsigned bad = 0;

	begin();
	for (unsigned n = 0; n < 6000 && bad < 20; n++) {
		const struct insn *i = &saves[below(sizeof(saves) / sizeof(saves[0]))];

		some_state(f, &start);
		random_memory(f);
		start.gpr[RBX] = place(i);
		bad += once(f, i, &start);
	}
	assert_int_equal(bad, 0);
}

/* Change the area that was saved: what a hostile or careless guest restores. */
static unsigned
spoil(struct fixture *f, gva_t a)
{
	unsigned at = chance(50) ? 512 + below(64) : chance(50) ? below(32) : below(576);
	uint8_t bit = (uint8_t)(1u << below(8));

	if (at < 24 && at % 8 > 4) /* upper bits of the pointers: the host may have 57 bits of address */
		return 0;
	if (at == 512 + 2 || at == 520 + 2) /* AMX's components: the host has them, the guest does not */
		return 0;
	((uint8_t *)a)[at] ^= bit;
	f->ram->host[PAGES + (a - VA) + at] ^= bit;
	return at << 8 | bit;
}

static void
what_is_restored_is_what_the_bare_cpu_restores(void **state)
{
	struct fixture *f = *state;
	struct x86_state start;
	unsigned bad = 0, spoilt;

	begin();
	for (unsigned n = 0; n < 10000 && bad < 20; n++) {
		const struct insn *i = &restores[below(sizeof(restores) / sizeof(restores[0]))];
		const struct insn *from =
			i->align > 1 ? &saves[i->align == 16 ? below(2) : 2 + below(6)] : &saves[8 + below(2)];
		gva_t a = VA + PAGE_SIZE + below(16) * 64;

		random_memory(f);
		memset((void *)a, 0, PAGE_SIZE);
		memset(f->ram->host + PAGES + (a - VA), 0, PAGE_SIZE);
		some_state(f, &start);
		start.gpr[RBX] = a;
		bad += once(f, from, &start);
		some_state(f, &start);
		start.gpr[RBX] = chance(5) ? a + below(64) : a;
		spoilt = chance(40) ? spoil(f, a) : 0;
		if (once(f, i, &start)) {
			printf("saved with %s, byte %u changed by %02x\n", from->name, spoilt >> 8, spoilt & 0xff);
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_saved_is_what_the_bare_cpu_saves, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_restored_is_what_the_bare_cpu_restores, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
