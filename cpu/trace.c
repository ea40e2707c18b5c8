/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of (reason, rip, object) with a count, open addressing, of a fixed size: what does not fit any more is
 * counted by reason only, and the summary says how many.
 */
#include "cpu/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE 16384u
#define PROBES 16u

struct row {
	uint64_t rip, object, count;
	uint8_t kind;
};

struct cpu_trace {
	FILE *lines;
	uint64_t written, lost, total[CPU_TRACE_COUNT];
	struct row row[TABLE];
};

static const struct {
	const char *text, *object;
} kinds[] = {
#define ROW(name, text, object) [name] = { text, object },
	CPU_TRACES(ROW)
#undef ROW
};

void
cpu_trace_stop(struct cpus *c)
{
	for (int i = 0; i < c->count; i++) {
		free(c->cpu[i]->trace);
		c->cpu[i]->trace = NULL;
	}
}

int
cpu_trace_start(struct cpus *c, FILE *lines)
{
	for (int i = 0; i < c->count; i++) {
		struct cpu_trace *t = calloc(1, sizeof(*t));

		if (!t) {
			cpu_trace_stop(c);
			return -ENOMEM;
		}
		t->lines = lines;
		free(c->cpu[i]->trace);
		c->cpu[i]->trace = t;
	}
	return 0;
}

static struct row *
find(struct cpu_trace *t, enum cpu_trace_kind kind, uint64_t rip, uint64_t object)
{
	uint64_t h = ((rip ^ object << 20) + (uint64_t)kind * 0x100000001b3ull) * 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < PROBES; i++) {
		struct row *r = &t->row[((h >> 40) + i) % TABLE];

		if (!r->count) {
			*r = (struct row){ rip, object, 0, (uint8_t)kind };
			return r;
		}
		if (r->rip == rip && r->object == object && r->kind == kind)
			return r;
	}
	return NULL;
}

static void
print_object(const struct cpu_engine *g, int kind, uint64_t object, FILE *f)
{
	if (kind == CPU_TRACE_INTERPRETED && g->refusal)
		fprintf(f, "%s\n", g->refusal((unsigned)object));
	else if (kinds[kind].object[0])
		fprintf(f, "%s %llx\n", kinds[kind].object, (unsigned long long)object);
	else
		fputc('\n', f);
}

void
cpu_trace(struct vcpu *v, enum cpu_trace_kind kind, uint64_t rip, uint64_t object)
{
	struct cpu_trace *t = v->trace;
	struct row *r = find(t, kind, rip, object);

	t->total[kind]++;
	if (r)
		r->count++;
	else
		t->lost++;
	if (t->lines && t->written < CPU_TRACE_LINES_MAX) {
		uint64_t now = clock_now(&v->m->clock);

		t->written++;
		fprintf(t->lines, "%llu.%06llu cpu%d %-11s rip %016llx ", (unsigned long long)(now / 1000000000u),
			(unsigned long long)(now / 1000u % 1000000u), v->index, kinds[kind].text,
			(unsigned long long)rip);
		print_object(v->engine, kind, object, t->lines);
	}
}

uint64_t
cpu_trace_rip(struct vcpu *v)
{
	return v->engine->current_rip ? v->engine->current_rip(v) : v->state.rip;
}

/* ---- the summary ---- */

static int
by_place(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->rip != y->rip)
		return x->rip < y->rip ? -1 : 1;
	return x->object < y->object ? -1 : x->object > y->object;
}

static int
by_count(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->count > y->count ? -1 : x->count < y->count ? 1 : by_place(a, b);
}

/* All rows of all CPUs, those of one place added up. */
static struct row *
gather(struct cpus *c, size_t *n)
{
	struct row *all = calloc((size_t)c->count * TABLE, sizeof(*all));
	size_t m = 0, out = 0;

	for (int i = 0; all && i < c->count; i++)
		for (unsigned k = 0; k < TABLE; k++)
			if (c->cpu[i]->trace->row[k].count)
				all[m++] = c->cpu[i]->trace->row[k];
	if (m)
		qsort(all, m, sizeof(*all), by_place);
	for (size_t i = 0; i < m; i++) {
		if (out && !by_place(&all[out - 1], &all[i]))
			all[out - 1].count += all[i].count;
		else
			all[out++] = all[i];
	}
	if (out)
		qsort(all, out, sizeof(*all), by_count);
	*n = out;
	return all;
}

static void
print_totals(struct cpus *c, FILE *f)
{
	uint64_t lost = 0;

	fprintf(f, "exits by reason\n");
	for (int kind = 0; kind < CPU_TRACE_COUNT; kind++) {
		uint64_t sum = 0;

		for (int i = 0; i < c->count; i++)
			sum += c->cpu[i]->trace->total[kind];
		fprintf(f, "  %16llu  %s\n", (unsigned long long)sum, kinds[kind].text);
	}
	for (int i = 0; i < c->count; i++)
		lost += c->cpu[i]->trace->lost;
	if (lost)
		fprintf(f, "  %16llu  of them at places there was no room to note\n", (unsigned long long)lost);
}

void
cpu_trace_print(struct cpus *c, unsigned most, FILE *f)
{
	struct row *all;
	size_t n;

	if (!c->cpu[0]->trace)
		return;
	print_totals(c, f);
	all = gather(c, &n);
	fprintf(f, "exits by place\n");
	for (size_t i = 0; all && i < n && i < most; i++) {
		fprintf(f, "  %16llu  %-11s rip %016llx  ", (unsigned long long)all[i].count, kinds[all[i].kind].text,
			(unsigned long long)all[i].rip);
		print_object(c->engine, all[i].kind, all[i].object, f);
	}
	free(all);
}
