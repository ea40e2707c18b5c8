/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the translator made, for people: a block as guest bytes and as host code, both disassembled, and its counters.
 *
 * A block's record says where its hot code is. What is seldom run stands elsewhere in the arena and is found as what
 * the hot code jumps to: followed up to the next unconditional jump, it is shown behind the hot code.
 */
#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cpu/debug.h"
#include "cpu/jit/jit.h"

#define COLD_MAX 64
#define COLD_BYTES 4096u

static const char *const refusal_text[] = {
#define ROW(name, text) [name] = text,
	JIT_REFUSALS(ROW)
#undef ROW
};

const char *
jit_refusal(unsigned reason)
{
	return reason < JIT_REFUSAL_COUNT ? refusal_text[reason] : "unknown";
}

/* ---- blocks ---- */

static const struct jit_block *
block_at(const struct jit_cpu *j, uint32_t at)
{
	for (unsigned i = 0; i < JIT_BUCKETS; i++)
		for (const struct jit_block *b = j->hash[i]; b; b = b->next)
			if (at >= b->start && at < b->end)
				return b;
	return NULL;
}

struct listing {
	const struct jit_cpu *j;
	const struct jit_block *b;
	FILE *f;
	uint32_t cold[COLD_MAX]; /* where what is seldom run begins */
	int cold_count;
};

static void
note_cold(struct listing *l, uint32_t at)
{
	for (int i = 0; i < l->cold_count; i++)
		if (l->cold[i] == at)
			return;
	if (l->cold_count < COLD_MAX)
		l->cold[l->cold_count++] = at;
}

/* Where a jump goes, in words; cold code is noted. */
static void
print_target(struct listing *l, uint64_t target)
{
	const struct jit_block *to;
	uint32_t at;

	if (target < (uintptr_t)l->j->rx || target - (uintptr_t)l->j->rx >= l->j->arena_size)
		return;
	at = (uint32_t)(target - (uintptr_t)l->j->rx);
	if (at < l->j->start) {
		fprintf(l->f, "   ; stub at +%x", at);
		return;
	}
	to = block_at(l->j, at);
	if (to == l->b)
		return;
	if (to)
		fprintf(l->f, "   ; block of page offset %03x", (unsigned)(to->host & PAGE_MASK));
	else
		note_cold(l, at);
}

static void
print_bytes(FILE *f, const uint8_t *p, unsigned len)
{
	for (unsigned i = 0; i < 10; i++)
		fprintf(f, i < len ? "%02x" : "  ", i < len ? p[i] : 0);
	fprintf(f, "%s ", len > 10 ? ".." : "  ");
}

/* From `at` to `end`, or, with `end` 0, to the first unconditional jump. */
static void
print_host(struct listing *l, uint32_t at, uint32_t end)
{
	const struct jit_block *b = l->b;
	uint32_t limit = end ? end : MIN(at + COLD_BYTES, l->j->arena_size);
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;
	ZydisDecoder d;
	uint64_t target;
	char text[128];

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	while (at < limit) {
		const uint8_t *p = l->j->rw + at;
		uint64_t where = (uintptr_t)l->j->rx + at;

		if (at == b->far_entry || at == b->near_entry || at == b->mem_entry)
			fprintf(l->f, "    %s%s%s\n", at == b->far_entry ? "far entry " : "",
				at == b->mem_entry ? "entry with flags in memory " : "",
				at == b->near_entry ? "entry with flags in the host's" : "");
		if (ZYAN_FAILED(ZydisDecoderDecodeFull(&d, p, limit - at, &in, o)))
			break;
		cpu_disassemble(64, p, limit - at, where, text, sizeof(text));
		fprintf(l->f, "    +%06x  ", at);
		print_bytes(l->f, p, in.length);
		fputs(text, l->f);
		if (o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o[0].imm.is_relative &&
			ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&in, &o[0], where, &target)))
			print_target(l, target);
		fputc('\n', l->f);
		at += in.length;
		if (!end && (in.mnemonic == ZYDIS_MNEMONIC_JMP || in.mnemonic == ZYDIS_MNEMONIC_RET))
			break;
	}
}

static void
print_guest(const struct jit_block *b, gva_t a, FILE *f)
{
	char text[128];
	unsigned len;

	for (unsigned at = 0; at < b->bytes; at += len) {
		len = cpu_disassemble(64, b->code + at, b->bytes - at, a + at, text, sizeof(text));
		if (!len)
			break;
		fprintf(f, "    %016llx  ", (unsigned long long)(a + at));
		print_bytes(f, b->code + at, len);
		fprintf(f, "%s\n", text);
	}
}

static void
print_block(const struct jit_cpu *j, const struct jit_block *b, gva_t a, FILE *f)
{
	struct listing l = { .j = j, .b = b, .f = f };

	fprintf(f, "cpu%d: block at %016llx, mode %llx, tier %u, %u guest bytes in %u host bytes\n  guest\n",
		j->i.c.v.index, (unsigned long long)a, (unsigned long long)b->key, b->tier, b->bytes,
		b->end - b->start);
	print_guest(b, a, f);
	fprintf(f, "  host\n");
	print_host(&l, b->start, b->end);
	for (int i = 0; i < l.cold_count; i++) {
		fprintf(f, "  host, seldom run\n");
		print_host(&l, l.cold[i], 0);
	}
}

void
jit_dump(struct vcpu *v, gva_t a, FILE *f)
{
	const struct jit_cpu *j = (const struct jit_cpu *)v;
	struct mem_section s;
	uintptr_t host = 0;
	unsigned found = 0;
	gpa_t gpa;

	if (x86_translate((struct soft_cpu *)v, a, &gpa) && mem_find(&v->m->mem, gpa, &s) && s.ram)
		host = (uintptr_t)(s.ram->host + s.ram_offset + (gpa - s.start));
	for (unsigned i = 0; host && i < JIT_BUCKETS; i++)
		for (const struct jit_block *b = j->hash[i]; b; b = b->next)
			if (host - b->host < b->bytes) {
				print_block(j, b, a - (host - b->host), f);
				found++;
			}
	if (!found)
		fprintf(f, "cpu%d: %s\n", v->index,
			host ? "nothing was translated there" : "that address is not mapped to memory now");
}

/* ---- counters ---- */

struct refusal {
	uint64_t count;
	const char *text;
};

static int
by_count(const void *a, const void *b)
{
	const struct refusal *x = a, *y = b;

	return x->count > y->count ? -1 : x->count < y->count;
}

static void
row(FILE *f, const char *name, uint64_t value, const char *text)
{
	fprintf(f, "  %-16s %16llu  %s\n", name, (unsigned long long)value, text);
}

/* What the interpreter did, most frequent first. */
static void
print_refusals(const struct jit_cpu *j, FILE *f)
{
	struct refusal list[JIT_REFUSAL_COUNT];
	uint64_t sum = 0;

	for (int n = 0; n < JIT_REFUSAL_COUNT; n++) {
		list[n] = (struct refusal){ j->refused[n], refusal_text[n] };
		sum += j->refused[n];
	}
	qsort(list, JIT_REFUSAL_COUNT, sizeof(list[0]), by_count);
	row(f, "interpreted", sum, "instructions left to the interpreter in 64-bit mode, of these");
	for (int n = 0; n < JIT_REFUSAL_COUNT && list[n].count; n++)
		row(f, "", list[n].count, list[n].text);
}

static double
ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

void
jit_print_stats(struct vcpu *v, FILE *f)
{
	const struct jit_cpu *j = (const struct jit_cpu *)v;
	double ms = ratio(clock_now(&v->m->clock), 1000000),
	       spent = ratio(j->translate_ticks * 1000, v->m->clock.tsc_hz);

	print_refusals(j, f);
	row(f, "guest bytes", j->guest_bytes, "translated");
	row(f, "hot bytes", j->guest_bytes_hot, "of them translated again, since hot");
	row(f, "promoted", j->promoted, "blocks that became hot");
	row(f, "host bytes", j->host_bytes, "made of them");
	row(f, "cold bytes", j->cold_bytes, "beside them, seldom run");
	fprintf(f, "  %-16s %16.2f  host bytes a guest byte; %.2f with the cold ones\n", "expansion",
		ratio(j->host_bytes, j->guest_bytes), ratio(j->host_bytes + j->cold_bytes, j->guest_bytes));
	fprintf(f, "  %-16s %16.1f  ms in translation, %.2f %% of virtual time; %.0f ns a guest byte\n", "translation",
		spent, ms > 0 ? 100 * spent / ms : 0, ratio((uint64_t)(spent * 1e6), j->guest_bytes));
	row(f, "code memory", j->used + (j->cold - j->cold_start), "bytes in use");
	row(f, "", j->arena_size, "bytes there are");
	row(f, "full", j->drops - 1, "times all code was dropped: no room, or a debugger's breakpoints changed");
	row(f, "missed", j->missed, "memory accesses left to C");
	fprintf(f,
		"  %-16s %16.1f  TLB misses a ms of virtual time; hits happen in translated code and are not counted\n",
		"TLB", ms > 0 ? (double)v->count.tlb_misses / ms : 0);
	row(f, "window pages", j->win.maps, "mapped for user code");
	row(f, "faults", j->win.faults, "of the host that asked for them");
	row(f, "spaces", j->win.dropped, "times all of one address space were taken away; all at once:");
	row(f, "", j->win.full, "times, since there were too many");
	row(f, "loaded", j->fp_loads, "times the vector registers");
	row(f, "looked up", j->looked_up, "jumps found in C");
}
