/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring buffer of kernels from 5.10 on is described in vmcoreinfo: an array of descriptors, one of records
 * (time, length), and a ring of text. A descriptor's state word holds its id and two bits of state; the position of its
 * text grows without wrapping and counts modulo the ring's size; a text that would wrap starts at the ring's beginning.
 */
#include "debug/linux.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define INFO_START "OSRELEASE="
#define KERNEL_MAP 0xffffffff80000000ull /* Documentation/arch/x86/x86_64/mm.rst */
#define RECORDS_MAX (1u << 20)
#define TEXT_MAX (1u << 16)

static char *
copy_page(const uint8_t *p)
{
	char *text = xcalloc(PAGE_SIZE + 1, 1);

	memcpy(text, p, PAGE_SIZE);
	if (strstr(text, "\nPAGESIZE=4096\n") && strstr(text, "\nSYMBOL(init_uts_ns)="))
		return text;
	free(text); /* somebody else's text that begins in the same way */
	return NULL;
}

char *
linux_vmcoreinfo(struct machine *m)
{
	char *text = NULL;

	machine_lock(m);
	for (int i = 0; i < m->mem.count && !text; i++) {
		const struct mem_section *s = &m->mem.sections[i];
		uint64_t size = s->last - s->start + 1;

		if (s->kind != MEM_RAM)
			continue;
		for (uint64_t at = 0; at + PAGE_SIZE <= size && !text; at += PAGE_SIZE) {
			const uint8_t *p = s->ram->host + s->ram_offset + at;

			if (!memcmp(p, INFO_START, strlen(INFO_START)))
				text = copy_page(p);
		}
	}
	machine_unlock(m);
	return text;
}

bool
linux_info_value(const char *info, const char *key, char *out, size_t size)
{
	size_t n = strlen(key);

	for (const char *p = info; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		size_t len;

		if (strncmp(p, key, n) || p[n] != '=')
			continue;
		len = strcspn(p + n + 1, "\n");
		if (len >= size)
			return false;
		memcpy(out, p + n + 1, len);
		out[len] = 0;
		return true;
	}
	return false;
}

/* ---- numbers ---- */

struct reader {
	const char *info;
	struct cpu_view *w;
	bool failed;
};

/* SYMBOL() in hexadecimal, everything else in decimal. */
static uint64_t
value(struct reader *r, const char *key)
{
	char text[40], *end;
	uint64_t n = 0;

	if (linux_info_value(r->info, key, text, sizeof(text)) && text[0]) {
		n = strtoull(text, &end, str_starts(key, "SYMBOL(") ? 16 : 10);
		if (!*end)
			return n;
	}
	r->failed = true;
	return 0;
}

static uint64_t
load(struct reader *r, gva_t a, unsigned size)
{
	uint64_t n = 0;

	if (cpu_view_read(r->w, a, &n, size) != size)
		r->failed = true;
	return n;
}

/* The kernel's own page tables, which map all of it whatever process runs. */
static bool
use_kernel_tables(struct reader *r)
{
	uint64_t base = value(r, "NUMBER(phys_base)");
	struct reader other = *r;
	gva_t table = value(r, "SYMBOL(swapper_pg_dir)");

	if (r->failed) {
		*r = other;
		table = value(r, "SYMBOL(init_top_pgt)");
	}
	if (r->failed || table < KERNEL_MAP)
		return false;
	return cpu_view_use_tables(r->w, table - KERNEL_MAP + base);
}

/* ---- the log ---- */

struct ring {
	gva_t descs, infos, data;
	uint64_t count, size, head, tail;
	uint64_t desc_size, state_off, lpos_off, begin_off, next_off;
	uint64_t info_size, ts_off, len_off;
};

static bool
find_ring(struct reader *r, struct ring *k)
{
	gva_t prb = load(r, value(r, "SYMBOL(prb)"), 8);
	gva_t desc = prb + value(r, "OFFSET(printk_ringbuffer.desc_ring)");
	gva_t text = prb + value(r, "OFFSET(printk_ringbuffer.text_data_ring)");
	uint64_t counter = value(r, "OFFSET(atomic_long_t.counter)"), bits, size_bits;

	bits = load(r, desc + value(r, "OFFSET(prb_desc_ring.count_bits)"), 4);
	k->descs = load(r, desc + value(r, "OFFSET(prb_desc_ring.descs)"), 8);
	k->infos = load(r, desc + value(r, "OFFSET(prb_desc_ring.infos)"), 8);
	k->head = load(r, desc + value(r, "OFFSET(prb_desc_ring.head_id)") + counter, 8);
	k->tail = load(r, desc + value(r, "OFFSET(prb_desc_ring.tail_id)") + counter, 8);
	size_bits = load(r, text + value(r, "OFFSET(prb_data_ring.size_bits)"), 4);
	k->data = load(r, text + value(r, "OFFSET(prb_data_ring.data)"), 8);
	k->desc_size = value(r, "SIZE(prb_desc)");
	k->state_off = value(r, "OFFSET(prb_desc.state_var)") + counter;
	k->lpos_off = value(r, "OFFSET(prb_desc.text_blk_lpos)");
	k->begin_off = value(r, "OFFSET(prb_data_blk_lpos.begin)");
	k->next_off = value(r, "OFFSET(prb_data_blk_lpos.next)");
	k->info_size = value(r, "SIZE(printk_info)");
	k->ts_off = value(r, "OFFSET(printk_info.ts_nsec)");
	k->len_off = value(r, "OFFSET(printk_info.text_len)");
	if (r->failed || bits > 20 || size_bits > 30 || size_bits < 4)
		return false;
	k->count = 1ull << bits;
	k->size = 1ull << size_bits;
	return true;
}

/* One record, each of its lines with the time in front. False: it has no text (any more). */
static bool
print_record(struct reader *r, const struct ring *k, uint64_t id, FILE *f)
{
	gva_t desc = k->descs + (id & (k->count - 1)) * k->desc_size,
	      info = k->infos + (id & (k->count - 1)) * k->info_size;
	uint64_t state = load(r, desc + k->state_off, 8), begin = load(r, desc + k->lpos_off + k->begin_off, 8);
	uint64_t next = load(r, desc + k->lpos_off + k->next_off, 8), ts = load(r, info + k->ts_off, 8);
	uint64_t len = load(r, info + k->len_off, 2), at = begin & (k->size - 1);
	static const uint64_t bits = 3ull << 62;
	char *text, *line, *rest;

	if (r->failed || (state & ~bits) != (id & ~bits) || (state >> 62 != 1 && state >> 62 != 2) || begin & 1)
		return false;
	if ((begin ^ next) & ~(k->size - 1)) /* it did not fit before the end */
		at = 0;
	if (len > TEXT_MAX || at + 8 + len > k->size)
		return false;
	text = xcalloc(len + 1, 1);
	if (cpu_view_read(r->w, k->data + at + 8, text, len) != len)
		r->failed = true;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		for (char *p = line; *p; p++)
			if ((uint8_t)*p < ' ' || (uint8_t)*p > '~') /* the guest does not talk to terminals here */
				*p = *p == '\t' ? ' ' : '?';
		fprintf(f, "[%5llu.%06llu] %s\n", (unsigned long long)(ts / 1000000000u),
			(unsigned long long)(ts / 1000u % 1000000u), line);
	}
	free(text);
	return true;
}

static int
print_log(struct reader *r, unsigned lines, FILE *f, struct err *e)
{
	struct ring k;
	uint64_t n;

	if (!use_kernel_tables(r) || !find_ring(r, &k))
		return err_set(
			e, ERR_VM, "the guest's kernel does not say where its log is (Linux 5.10 or later does)");
	n = MIN((k.head - k.tail) & (k.count - 1), (uint64_t)RECORDS_MAX) + 1;
	if (lines)
		n = MIN(n, (uint64_t)lines);
	for (uint64_t i = n; i-- > 0;)
		print_record(r, &k, k.head - i, f);
	return 0;
}

int
linux_dmesg(struct machine *m, struct cpu_view *w, unsigned lines, FILE *f, struct err *e)
{
	struct reader r = { .info = linux_vmcoreinfo(m), .w = w };
	int result;

	if (!r.info)
		return err_set(e, ERR_VM, "no Linux kernel was found in the guest's memory");
	result = print_log(&r, lines, f, e);
	free((char *)r.info);
	return result;
}
