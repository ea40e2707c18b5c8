/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views of a machine as text. What a device holds is printed from its `fields` table, so every device has a view and
 * none needs a line here.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "cpu/trace.h"
#include "debug/debug.h"
#include "debug/linux.h"

static struct vcpu *
cpu_of(const struct debug_info *d)
{
	return d->c->cpu[d->cpu];
}

static bool
address(const struct debug_info *d, const char *text, uint64_t *out)
{
	int reg = text[0] == '$' ? reg_find(d->regs, text + 1) : -1;
	uint8_t value[REG_BYTES_MAX];

	if (reg < 0)
		return str_to_u64(text, 0, UINT64_MAX, out);
	reg_read(d->regs, reg, cpu_of(d), value);
	*out = le64(value);
	return true;
}

/* "ADDRESS [COUNT]" */
static bool
address_and_count(const struct debug_info *d, const char *args, uint64_t *a, uint64_t *n)
{
	char first[64];
	int used = 0;

	if (sscanf(args, "%63s %n", first, &used) != 1)
		return false;
	return address(d, first, a) && (!args[used] || str_to_u64(args + used, 1, 1 << 20, n));
}

/* ---- CPUs ---- */

static void
info_cpus(const struct debug_info *d, const char *args, FILE *f)
{
	static const char *const states[] = { "waits for its start", "runs", "halted", "parked", "shut down" };

	for (int i = 0; i < d->c->count; i++) {
		const struct vcpu *v = d->c->cpu[i];
		const struct x86_state *s = &v->state;

		fprintf(f, "%ccpu%d  %-20s %04x:%016llx  cr3 %012llx  rsp %016llx  flags %llx\n",
			i == d->cpu ? '*' : ' ', i, states[v->run_state], s->seg[SEG_CS].sel,
			(unsigned long long)s->rip, (unsigned long long)s->cr3, (unsigned long long)s->gpr[RSP],
			(unsigned long long)s->rflags);
	}
}

static void
info_registers(const struct debug_info *d, const char *args, FILE *f)
{
	char text[2 * REG_BYTES_MAX + 3];

	fprintf(f, "cpu%d\n", d->cpu);
	for (int i = 0; i < reg_count(d->regs); i++) {
		if (args[0] && strcmp(args, "all") && strcmp(args, reg_name(d->regs, i)))
			continue;
		if (!args[0] && reg_bytes(d->regs, i) > 8)
			continue; /* "all" shows them too */
		reg_text(d->regs, i, cpu_of(d), text);
		fprintf(f, "  %-13s %s\n", reg_name(d->regs, i), text);
	}
}

static void
info_tlb(const struct debug_info *d, const char *args, FILE *f)
{
	cpu_debug_print_tlb(cpu_of(d), f);
}

static void
info_stats(const struct debug_info *d, const char *args, FILE *f)
{
	for (int i = 0; i < d->c->count; i++) {
		struct vcpu *v = d->c->cpu[i];

		fprintf(f, "cpu%d\n", i);
#define ROW(name, text) fprintf(f, "  %-16s %16llu  %s\n", #name, (unsigned long long)v->count.name, text);
		CPU_COUNTERS(ROW)
#undef ROW
		if (v->engine->print_stats)
			v->engine->print_stats(v, f);
	}
}

static void
info_exits(const struct debug_info *d, const char *args, FILE *f)
{
	uint64_t n = 40;

	if (!strcmp(args, "on") || !strcmp(args, "off")) {
		cpu_trace_stop(d->c);
		if (args[1] == 'n' && cpu_trace_start(d->c, NULL))
			fprintf(f, "There is no memory for it.\n");
		else
			fprintf(f, "Exits are %s.\n", args[1] == 'n' ? "counted from now on" : "not counted any more");
	} else if (!d->c->cpu[0]->trace) {
		fprintf(f, "Exits are not counted; 'exits on' begins with it.\n");
	} else {
		if (args[0] && !str_to_u64(args, 1, 100000, &n))
			fprintf(f, "exits [on|off|NUMBER]\n");
		cpu_trace_print(d->c, (unsigned)n, f);
	}
}

static void
info_block(const struct debug_info *d, const char *args, FILE *f)
{
	uint64_t a, n = 1;

	if (!address_and_count(d, args[0] ? args : "$rip", &a, &n))
		fprintf(f, "block ADDRESS|$REGISTER\n");
	else if (!d->c->engine->dump)
		fprintf(f, "The engine '%s' makes no translations.\n", d->c->engine->name);
	else
		d->c->engine->dump(cpu_of(d), a, f);
}

static void
info_disas(const struct debug_info *d, const char *args, FILE *f)
{
	uint64_t a = cpu_view_pc(d->view), n = 10;
	unsigned len;
	char text[128];

	if (args[0] && !address_and_count(d, args, &a, &n)) {
		fprintf(f, "disas [ADDRESS|$REGISTER [COUNT]]\n");
		return;
	}
	fprintf(f, "cpu%d, %u-bit code\n", d->cpu, cpu_view_bits(d->view));
	for (uint64_t i = 0; i < n; i++, a += len ? len : 1) {
		uint8_t code[15] = { 0 };

		len = cpu_view_disassemble(d->view, a, text, sizeof(text));
		cpu_view_read(d->view, a, code, len);
		fprintf(f, "  %016llx  ", (unsigned long long)a);
		for (unsigned k = 0; k < 8; k++)
			fprintf(f, k < len ? "%02x" : "  ", code[k]);
		fprintf(f, "%s %s\n", len > 8 ? ".." : "  ", text);
		if (!strcmp(text, "(not mapped)"))
			break;
	}
}

/* ---- memory ---- */

static void
dump_bytes(FILE *f, uint64_t a, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		fprintf(f, "  %016llx ", (unsigned long long)(a + i));
		for (size_t k = i; k < i + 16; k++)
			fprintf(f, k < n ? " %02x" : "   ", k < n ? p[k] : 0);
		fprintf(f, "  ");
		for (size_t k = i; k < i + 16 && k < n; k++)
			fputc(isprint(p[k]) ? p[k] : '.', f);
		fputc('\n', f);
	}
}

static void
info_x(const struct debug_info *d, const char *args, FILE *f, bool physical)
{
	uint64_t a, n = 64;
	uint8_t buf[4096];
	size_t got;

	if (!address_and_count(d, args, &a, &n) || n > sizeof(buf)) {
		fprintf(f, "%s ADDRESS|$REGISTER [BYTES]: at most %zu\n", physical ? "xp" : "x", sizeof(buf));
		return;
	}
	if (physical)
		got = mem_read(&d->c->m->mem, a, buf, n) ? n : 0;
	else
		got = cpu_view_read(d->view, a, buf, n);
	dump_bytes(f, a, buf, got);
	if (got < n)
		fprintf(f, "  %016llx  there is no memory\n", (unsigned long long)(a + got));
}

static void
info_virtual(const struct debug_info *d, const char *args, FILE *f)
{
	info_x(d, args, f, false);
}

static void
info_physical(const struct debug_info *d, const char *args, FILE *f)
{
	info_x(d, args, f, true);
}

static void
info_translate(const struct debug_info *d, const char *args, FILE *f)
{
	uint64_t a;
	gpa_t gpa;

	if (!address(d, args, &a))
		fprintf(f, "translate ADDRESS|$REGISTER\n");
	else if (cpu_view_translate(d->view, a, &gpa))
		fprintf(f, "%016llx is physical %012llx\n", (unsigned long long)a, (unsigned long long)gpa);
	else
		fprintf(f, "%016llx is not mapped\n", (unsigned long long)a);
}

static void
info_map(const struct debug_info *d, const char *args, FILE *f)
{
	static const char *const kinds[] = { "RAM", "ROM", "MMIO" };
	struct mem *m = &d->c->m->mem;

	machine_lock(d->c->m);
	for (int i = 0; i < m->count; i++) {
		const struct mem_section *s = &m->sections[i];

		fprintf(f, "  %012llx-%012llx  %-4s  %s\n", (unsigned long long)s->start, (unsigned long long)s->last,
			kinds[s->kind], s->region->name);
	}
	machine_unlock(d->c->m);
}

/* ---- devices ---- */

/* VirtualBox's names of what we have under other ones, and what people type. */
static const struct {
	const char *name, *device;
} aliases[] = { { "pic", "i8259" }, { "pit", "i8254" }, { "apic", "lapic" }, { "rtc", "mc146818" },
	{ "keyboard", "i8042" }, { "ps2k", "i8042" }, { "serial", "ns16550" }, { "vgastate", "vga" },
	{ "virtionet", "virtio-net" } };

static uint64_t
field_value(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

static void
print_field(FILE *f, const struct device *dev, const struct field *x)
{
	const uint8_t *p = (const uint8_t *)dev + x->offset;
	bool opaque = x->size > 8;
	size_t bytes = (size_t)x->size * x->count, shown = MIN(opaque ? bytes : x->count, 64u);

	fprintf(f, "  %-24s", x->name);
	for (size_t i = 0; i < shown; i++) {
		if (i && i % 16 == 0)
			fprintf(f, "\n  %-24s", "");
		if (opaque)
			fprintf(f, " %02x", p[i]);
		else
			fprintf(f, " %0*llx", 2 * (int)x->size,
				(unsigned long long)field_value(p + i * x->size, x->size));
	}
	if (shown < (opaque ? bytes : x->count))
		fprintf(f, " ... (%zu bytes in all)", bytes);
	fputc('\n', f);
}

static void
print_device(FILE *f, const struct device *dev)
{
	fprintf(f, "%s\n", dev->name);
	for (const struct field *x = dev->class->fields; x && x->name; x++)
		print_field(f, dev, x);
	if (!dev->class->fields)
		fprintf(f, "  has no state\n");
}

/* By its name, or all of a class. */
static bool
info_device(const struct debug_info *d, const char *name, FILE *f)
{
	bool found = false;

	for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
		if (!strcmp(aliases[i].name, name))
			name = aliases[i].device;
	machine_lock(d->c->m);
	for (const struct device *dev = d->c->m->devices; dev; dev = dev->next)
		if (!strcmp(dev->name, name) || !strcmp(dev->class->name, name)) {
			print_device(f, dev);
			found = true;
		}
	machine_unlock(d->c->m);
	return found;
}

static void
info_devices(const struct debug_info *d, const char *args, FILE *f)
{
	machine_lock(d->c->m);
	for (const struct device *dev = d->c->m->devices; dev; dev = dev->next)
		fprintf(f, "  %s\n", dev->name);
	machine_unlock(d->c->m);
}

static void
print_bars(FILE *f, const struct pci_dev *p)
{
	for (unsigned n = 0; n < 6; n++) {
		uint32_t bar = le32(&p->config[0x10 + 4 * n]);

		if (bar)
			fprintf(f, "       BAR%u %s at %x\n", n, bar & 1 ? "ports" : "memory",
				bar & (bar & 1 ? ~3u : ~15u));
	}
}

static void
info_pci(const struct debug_info *d, const char *args, FILE *f)
{
	struct pci_bus *b = &d->c->m->pci;

	machine_lock(d->c->m);
	for (unsigned i = 0; i < ARRAY_LEN(b->devs); i++) {
		const struct pci_dev *p = b->devs[i];

		if (!p)
			continue;
		fprintf(f, "  %02x.%u  %04x:%04x  class %02x%02x  %-14s command %04x status %04x%s%s\n", i >> 3, i & 7,
			le16(&p->config[0]), le16(&p->config[2]), p->config[11], p->config[10], p->dev.name,
			le16(&p->config[4]), le16(&p->config[6]), p->config[0x3d] ? "  INT" : "",
			p->config[0x3d] ? (const char[]){ (char)('@' + p->config[0x3d]), 0 } : "");
		print_bars(f, p);
	}
	machine_unlock(d->c->m);
}

static void
info_clock(const struct debug_info *d, const char *args, FILE *f)
{
	struct clock *c = &d->c->m->clock;

	fprintf(f, "  virtual time  %llu ns\n  TSC           %llu at %llu Hz\n", (unsigned long long)clock_now(c),
		(unsigned long long)clock_tsc(c), (unsigned long long)c->tsc_hz);
}

/* ---- the stack ---- */

/* What stands before a return address ends in a call. */
static bool
behind_call(struct cpu_view *w, gva_t a)
{
	uint8_t code[7];
	char text[96];

	for (unsigned len = 2; len <= sizeof(code); len++)
		if (cpu_view_read(w, a - len, code, len) == len &&
			cpu_disassemble(cpu_view_bits(w), code, len, a - len, text, sizeof(text)) == len &&
			!strncmp(text, "call", 4))
			return true;
	return false;
}

void
debug_info_stack(const struct debug_info *d, FILE *f)
{
	const struct x86_state *s = &cpu_of(d)->state;
	unsigned word = cpu_view_bits(d->view) / 8, shown = 0;
	gva_t sp = s->seg[SEG_SS].base + s->gpr[RSP];
	uint64_t value;
	char text[128];

	if (word == 8)
		sp = s->gpr[RSP];
	cpu_view_disassemble(d->view, cpu_view_pc(d->view), text, sizeof(text));
	fprintf(f, "cpu%d, ring %u\n  #0  %016llx  %s\n", d->cpu, cpu_view_cpl(d->view),
		(unsigned long long)cpu_view_pc(d->view), text);
	for (unsigned i = 0; i < 1024 && shown < 32; i++, sp += word) {
		value = 0;
		if (cpu_view_read(d->view, sp, &value, word) != word)
			break;
		if (value > 0xffff && behind_call(d->view, value))
			fprintf(f, "  #%-2u %016llx  on the stack at %016llx\n", ++shown, (unsigned long long)value,
				(unsigned long long)sp);
	}
	fprintf(f, "Without symbols this is every return address that is on the stack, stale ones too.\n");
}

static void
info_stack(const struct debug_info *d, const char *args, FILE *f)
{
	debug_info_stack(d, f);
}

static void
info_dmesg(const struct debug_info *d, const char *args, FILE *f)
{
	uint64_t lines = 0;
	struct err e;

	if (args[0] && !str_to_u64(args, 1, 1 << 20, &lines))
		fprintf(f, "dmesg [LINES]\n");
	else if (linux_dmesg(d->c->m, d->view, (unsigned)lines, f, &e))
		fprintf(f, "%s\n", e.text);
	cpu_view_load(d->view, cpu_of(d));
}

/* ---- the table ---- */

static void info_help(const struct debug_info *d, const char *args, FILE *f);

static const struct {
	const char *name;
	void (*print)(const struct debug_info *d, const char *args, FILE *f);
	const char *help;
} items[] = {
	{ "help", info_help, "this text" },
	{ "cpus", info_cpus, "where each CPU is" },
	{ "registers", info_registers, "[all|NAME]: of the selected CPU" },
	{ "cpumguest", info_registers, "the same" },
	{ "stack", info_stack, "return addresses on the stack" },
	{ "disas", info_disas, "[ADDRESS [COUNT]]: disassemble in the CPU's present mode" },
	{ "x", info_virtual, "ADDRESS [BYTES]: memory by linear address" },
	{ "xp", info_physical, "ADDRESS [BYTES]: memory by physical address" },
	{ "translate", info_translate, "ADDRESS: the physical address of a linear one" },
	{ "tlb", info_tlb, "the software TLB of the selected CPU" },
	{ "translations", info_stats, "the engine's counters" },
	{ "stats", info_stats, "the same" },
	{ "block", info_block, "ADDRESS: what the translator made of the code there" },
	{ "exits", info_exits, "[on|off|NUMBER]: count exits by place; show the most frequent" },
	{ "phys", info_map, "the map of physical memory" },
	{ "dmesg", info_dmesg, "[LINES]: the log of a Linux guest's kernel" },
	{ "clock", info_clock, "virtual time" },
	{ "devices", info_devices, "names of all devices; each is an item of its own" },
	{ "pci", info_pci, "the PCI bus" },
};

static void
info_help(const struct debug_info *d, const char *args, FILE *f)
{
	for (size_t i = 0; i < ARRAY_LEN(items); i++)
		fprintf(f, "%-14s %s\n", items[i].name, items[i].help);
	fprintf(f, "%-14s the state of a device, as:", "DEVICE");
	for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
		fprintf(f, " %s", aliases[i].name);
	fprintf(f, " ioapic hpet ...\n");
}

bool
debug_info_print(const struct debug_info *d, const char *item, const char *args, FILE *f)
{
	for (size_t i = 0; i < ARRAY_LEN(items); i++)
		if (!strcmp(items[i].name, item)) {
			items[i].print(d, args, f);
			return true;
		}
	return info_device(d, item, f);
}
