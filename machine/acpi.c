/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables: what the operating system is told about the board. (ACPI 6.4; MADT and FADT section 5.2, HPET: IA-PC
 * HPET specification 1.0a section 3.2.4)
 *
 *	RSDP -> RSDT, XSDT -> FADT -> FACS, DSDT
 *	                      MADT
 *	                      HPET
 *
 * All but the RSDP are laid one after the other in `tables`. A pointer is written as an offset in it and noted as a
 * link; checksums likewise. Either the firmware resolves the links (it gets them as "etc/table-loader"), or, when no
 * firmware runs, acpi_link() does.
 *
 * The DSDT describes: the PCI root with its windows and interrupt routing through the PIIX3's four links, ISA devices,
 * HPET, processors, the generation ID, and the sleep state S5. There is no S3: the board cannot suspend.
 */
#include "machine/acpi.h"
#include "base/bytes.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "dev/dev.h"
#include "machine/aml.h"

#define TABLE_HEADER 36
#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"

/* ---- tables and links ---- */

static void
add_link(struct acpi_tables *t, enum acpi_link_kind kind, bool in_rsdp, size_t offset, size_t start, size_t size)
{
	assert(t->link_count < (int)ARRAY_LEN(t->links));
	t->links[t->link_count++] =
		(struct acpi_link){ kind, in_rsdp, (uint32_t)offset, (uint32_t)start, (uint32_t)size };
}

/* Append a table: the standard header and `body`. Returns its offset. */
static uint32_t
add_table(struct acpi_tables *t, const char *signature, int revision, const void *body, size_t len)
{
	uint8_t h[TABLE_HEADER] = { 0 };
	size_t at;

	while (t->tables.len % 16)
		str_addn(&t->tables, "", 1);
	at = t->tables.len;
	memcpy(h, signature, 4);
	put_le32(h + 4, (uint32_t)(TABLE_HEADER + len));
	h[8] = (uint8_t)revision;
	memcpy(h + 10, "LODGE ", 6);
	memcpy(h + 16, "LODGEPC ", 8);
	put_le32(h + 24, 1);
	memcpy(h + 28, "LDGE", 4);
	put_le32(h + 32, 1);
	str_addn(&t->tables, (const char *)h, sizeof(h));
	str_addn(&t->tables, body, len);
	return (uint32_t)at;
}

/* Call when all pointers of the table at `at` are linked: the checksum covers them. */
static void
seal_table(struct acpi_tables *t, uint32_t at)
{
	add_link(t, ACPI_LINK_CHECKSUM, false, at + 9, at, le32((uint8_t *)t->tables.s + at + 4));
}

/* A pointer in `tables` at `offset` to the offset `target`. */
static void
set_pointer(struct acpi_tables *t, size_t offset, uint32_t target, int size)
{
	put_le32((uint8_t *)t->tables.s + offset, target);
	add_link(t, ACPI_LINK_POINTER, false, offset, 0, (size_t)size);
}

/* ---- the DSDT ---- */

static void
add_hid(struct aml *a, const char *id)
{
	aml_name(a, "_HID");
	aml_eisaid(a, id);
}

static void
add_number(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

/* As SeaBIOS lays it out for an i440FX. */
uint32_t
pci_hole(uint32_t ram_below_4g)
{
	return ram_below_4g <= 0x80000000u ? 0x80000000u : ram_below_4g <= 0xc0000000u ? 0xc0000000u : 0xe0000000u;
}

static void
add_root_windows(struct aml *a, const struct acpi_options *o)
{
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_bus_range(a, 0, 255);
	aml_res_io(a, 0xcf8, 8);
	aml_res_io_range(a, 0, 0xcf7);
	aml_res_io_range(a, 0xd00, 0xffff);
	aml_res_memory_range(a, 0xa0000, 0xbffff, true);
	aml_res_memory_range(a, pci_hole(o->ram_below_4g), PC_IOAPIC_BASE - 1, false);
	aml_end(a);
}

static const char *const links[4] = { "LNKA", "LNKB", "LNKC", "LNKD" };

/* Slot s, pin p is wired to link (s - 1 + p) mod 4, as on boards of the time (and as dev/piix3.c drives them). */
static void
add_interrupt_routing(struct aml *a)
{
	aml_name(a, "_PRT");
	aml_begin_package(a, PCI_SLOTS * 4);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < 4; pin++) {
			aml_begin_package(a, 4);
			aml_int(a, slot << 16 | 0xffff);
			aml_int(a, pin);
			aml_path(a, links[(slot + 3 + pin) % 4]);
			aml_int(a, 0);
			aml_end(a);
		}
	aml_end(a);
}

struct isa_row {
	const char *name, *id;
	uint16_t base, base2;
	uint8_t len, len2;
	int irq;
};

static void
add_isa_device(struct aml *a, const struct isa_row *r)
{
	aml_begin_device(a, r->name);
	add_hid(a, r->id);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	if (r->base)
		aml_res_io(a, r->base, r->len);
	if (r->base2)
		aml_res_io(a, r->base2, r->len2);
	if (r->irq >= 0)
		aml_res_irq(a, r->irq);
	aml_end(a);
	aml_end(a);
}

static void
add_isa_bridge(struct aml *a, const struct acpi_options *o)
{
	static const struct isa_row rows[] = {
		{ "RTC_", "PNP0B00", 0x70, 0, 2, 0, 8 },
		{ "TIMR", "PNP0100", 0x40, 0, 4, 0, -1 },
		{ "PIC_", "PNP0000", 0x20, 0xa0, 2, 2, 2 },
		{ "KBD_", "PNP0303", 0x60, 0x64, 1, 1, 1 },
		{ "MOU_", "PNP0F13", 0, 0, 0, 0, 12 },
	};

	aml_begin_device(a, "ISA_");
	add_number(a, "_ADR", 0x00010000);
	aml_region(a, "PIRR", AML_PCI_CONFIG, 0x60, 4); /* PIRQRC[A:D] */
	aml_begin_field(a, "PIRR", AML_BYTE_ACC);
	aml_field(a, "PRQA", 8), aml_field(a, "PRQB", 8), aml_field(a, "PRQC", 8), aml_field(a, "PRQD", 8);
	aml_end(a);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		add_isa_device(a, &rows[i]);
	for (int i = 0; i < PC_SERIAL_MAX; i++) {
		char name[5];

		if (!o->serial_base[i])
			continue;
		snprintf(name, sizeof(name), "COM%d", i + 1);
		aml_begin_device(a, name);
		add_hid(a, "PNP0501");
		add_number(a, "_UID", (unsigned)i + 1);
		aml_name(a, "_CRS");
		aml_begin_resources(a);
		aml_res_io(a, o->serial_base[i], 8);
		aml_res_irq(a, o->serial_irq[i]);
		aml_end(a);
		aml_end(a);
	}
	aml_end(a);
}

static void
add_pci_root(struct aml *a, const struct acpi_options *o)
{
	aml_begin_device(a, "PCI0");
	add_hid(a, "PNP0A03");
	add_number(a, "_UID", 0);
	add_number(a, "_BBN", 0);
	add_root_windows(a, o);
	add_isa_bridge(a, o);
	aml_end(a);
}

/*
 * One interrupt link: which ISA interrupt a PIRQ line is routed to; bit 7 of its register set means none.
 * (82371SB data sheet, PIRQRC; ACPI 6.4 section 6.2.13, 6.2.16)
 */
static void
add_link_device(struct aml *a, int n)
{
	static const uint32_t choices[] = { 5, 10, 11 };
	static const uint32_t none[] = { 0 };
	char reg[] = "\\_SB_PCI0ISA_PRQA";

	reg[sizeof(reg) - 2] = (char)('A' + n);
	aml_begin_device(a, links[n]);
	add_hid(a, "PNP0C0F");
	add_number(a, "_UID", (unsigned)n);
	aml_name(a, "_PRS");
	aml_begin_resources(a);
	aml_res_interrupts(a, choices, ARRAY_LEN(choices));
	aml_end(a);

	aml_begin_method(a, "_STA", 0, false);
	aml_begin_if(a);
	aml_op(a, AML_AND), aml_path(a, reg), aml_int(a, 0x80), aml_op(a, AML_ZERO);
	aml_op(a, AML_RETURN), aml_int(a, 0x09);
	aml_end(a);
	aml_op(a, AML_RETURN), aml_int(a, 0x0b);
	aml_end(a);

	aml_begin_method(a, "_DIS", 0, false);
	aml_op(a, AML_OR), aml_path(a, reg), aml_int(a, 0x80), aml_path(a, reg);
	aml_end(a);

	aml_name(a, "PRR0");
	aml_begin_resources(a);
	aml_res_interrupts(a, none, 1);
	aml_end(a);
	aml_begin_method(a, "_CRS", 0, true);
	aml_op(a, AML_CREATE_DWORD_FIELD), aml_path(a, "PRR0"), aml_int(a, 5), aml_path(a, "PRRI");
	aml_op(a, AML_STORE), aml_path(a, reg), aml_op(a, AML_LOCAL0);
	aml_begin_if(a);
	aml_op(a, AML_AND), aml_op(a, AML_LOCAL0), aml_int(a, 0x80), aml_op(a, AML_ZERO);
	aml_op(a, AML_STORE), aml_op(a, AML_ZERO), aml_op(a, AML_LOCAL0);
	aml_end(a);
	aml_op(a, AML_STORE), aml_op(a, AML_LOCAL0), aml_path(a, "PRRI");
	aml_op(a, AML_RETURN), aml_path(a, "PRR0");
	aml_end(a);

	aml_begin_method(a, "_SRS", 1, true);
	aml_op(a, AML_CREATE_DWORD_FIELD), aml_op(a, AML_ARG0), aml_int(a, 5), aml_path(a, "NEWI");
	aml_op(a, AML_STORE), aml_path(a, "NEWI"), aml_path(a, reg);
	aml_end(a);
	aml_end(a);
}

static void
add_hpet_device(struct aml *a)
{
	aml_begin_device(a, "HPET");
	add_hid(a, "PNP0103");
	add_number(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_memory32(a, PC_HPET_BASE, 0x400, false);
	aml_end(a);
	aml_end(a);
}

static void
add_processors(struct aml *a, int cpus)
{
	for (int i = 0; i < cpus; i++) {
		char name[5];

		snprintf(name, sizeof(name), "C%03X", (unsigned)i & 0xfff);
		aml_begin_device(a, name);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		add_number(a, "_UID", (unsigned)i);
		aml_end(a);
	}
}

/* Where the generation ID is (dev/vmgenid.c), and what happens when it changes. */
static void
add_generation_id(struct aml *a)
{
	aml_begin_device(a, "VGEN");
	aml_name(a, "_HID");
	aml_string(a, "LODG0001");
	aml_name(a, "_CID");
	aml_string(a, "VM_Gen_Counter");
	aml_name(a, "_DDN");
	aml_string(a, "VM_Gen_Counter");
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_memory32(a, PC_VMGENID_BASE, PAGE_SIZE, false);
	aml_end(a);
	aml_name(a, "ADDR");
	aml_begin_package(a, 2);
	aml_int(a, PC_VMGENID_BASE);
	aml_int(a, 0);
	aml_end(a);
	aml_end(a);
}

static void
add_events(struct aml *a)
{
	char name[] = "_E00";

	name[3] = (char)('0' + VMGENID_GPE);
	aml_begin_scope(a, "\\_GPE");
	aml_begin_method(a, name, 0, false);
	aml_op(a, AML_NOTIFY), aml_path(a, "\\_SB_VGEN"), aml_int(a, 0x80);
	aml_end(a);
	aml_end(a);
}

/* SLP_TYP of soft off is 0 in the PIIX4 (82371AB data sheet, PMCNTRL). */
static void
add_sleep_states(struct aml *a)
{
	aml_name(a, "\\_S5_");
	aml_begin_package(a, 4);
	for (int i = 0; i < 4; i++)
		aml_int(a, 0);
	aml_end(a);
}

static uint32_t
add_dsdt(struct acpi_tables *t, const struct acpi_options *o)
{
	struct aml a = { 0 };
	uint32_t at;

	add_sleep_states(&a);
	aml_begin_scope(&a, "\\_SB_");
	add_pci_root(&a, o);
	for (int i = 0; i < 4; i++)
		add_link_device(&a, i);
	if (o->hpet)
		add_hpet_device(&a);
	add_generation_id(&a);
	add_processors(&a, o->cpus);
	aml_begin_scope(&a, "PCI0");
	add_interrupt_routing(&a);
	aml_end(&a);
	aml_end(&a);
	add_events(&a);
	at = add_table(t, "DSDT", 2, a.code.s, a.code.len);
	seal_table(t, at);
	str_free(&a.code);
	return at;
}

/* ---- the other tables ---- */

static uint32_t
add_facs(struct acpi_tables *t)
{
	uint8_t facs[64] = "FACS";
	size_t at;

	while (t->tables.len % 64)
		str_addn(&t->tables, "", 1);
	at = t->tables.len;
	put_le32(facs + 4, sizeof(facs));
	facs[32] = 1; /* version */
	str_addn(&t->tables, (const char *)facs, sizeof(facs));
	return (uint32_t)at;
}

/* Generic Address Structure in I/O space. */
static void
put_gas(uint8_t *p, unsigned bits, uint64_t port)
{
	p[0] = 1;
	p[1] = (uint8_t)bits;
	p[3] = bits == 8 ? 1 : bits == 16 ? 2 : 3;
	put_le64(p + 4, port);
}

enum fadt_flags {
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_SLP_BUTTON = 1 << 5, /* set: there is no fixed sleep button */
	FADT_RTC_S4 = 1 << 7,
	FADT_RESET_REG = 1 << 10,
};

/* Offsets are those of the whole table, ACPI 6.4 table 5.9; revision 3 of it ends with X_GPE1_BLK. */
static uint32_t
add_fadt(struct acpi_tables *t, uint32_t facs, uint32_t dsdt)
{
	uint8_t table[244] = { 0 }, *f = table;
	uint32_t at;

	put_le16(f + 46, PC_SCI_IRQ);
	put_le32(f + 48, 0xb2); /* SMI_CMD */
	f[52] = PC_ACPI_ENABLE;
	f[53] = PC_ACPI_DISABLE;
	put_le32(f + 56, PC_PM_BASE);	  /* PM1a_EVT_BLK */
	put_le32(f + 64, PC_PM_BASE + 4); /* PM1a_CNT_BLK */
	put_le32(f + 76, PC_PM_BASE + 8); /* PM_TMR_BLK */
	put_le32(f + 80, PC_GPE_BASE);	  /* GPE0_BLK */
	f[88] = 4;
	f[89] = 2;
	f[91] = 4;
	f[92] = 4;
	put_le16(f + 96, 0xfff);  /* P_LVL2_LAT: no C2 */
	put_le16(f + 98, 0xfff);  /* P_LVL3_LAT: no C3 */
	f[106] = 0;		  /* DAY_ALRM */
	f[108] = 0x32;		  /* CENTURY */
	put_le16(f + 109, 1 | 2); /* legacy devices, i8042 */
	put_le32(f + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RTC_S4 | FADT_RESET_REG);
	put_gas(f + 116, 8, 0xcf9);
	f[128] = 0x06; /* RESET_VALUE: hard reset */
	put_gas(f + 148, 32, PC_PM_BASE);
	put_gas(f + 172, 16, PC_PM_BASE + 4);
	put_gas(f + 208, 32, PC_PM_BASE + 8);
	put_gas(f + 220, 32, PC_GPE_BASE);

	at = add_table(t, "FACP", 3, table + TABLE_HEADER, sizeof(table) - TABLE_HEADER);
	set_pointer(t, at + 36, facs, 4);
	set_pointer(t, at + 40, dsdt, 4);
	set_pointer(t, at + 140, dsdt, 8); /* X_DSDT */
	seal_table(t, at);
	return at;
}

static void
add_bytes(struct str *s, const void *p, size_t n)
{
	str_addn(s, p, n);
}

static void
add_override(struct str *s, int irq, int gsi, int flags)
{
	uint8_t e[10] = { 2, 10, 0, (uint8_t)irq };

	put_le32(e + 4, (uint32_t)gsi);
	put_le16(e + 8, (uint16_t)flags);
	add_bytes(s, e, sizeof(e));
}

#define MADT_HIGH_LEVEL 0x0d /* active high, level triggered */

static uint32_t
add_madt(struct acpi_tables *t, const struct acpi_options *o)
{
	static const int pci_irqs[] = { 5, 9, 10, 11 };
	uint8_t head[8], ioapic[12] = { 1, 12, 0 }, nmi[6] = { 4, 6, 0xff, 0, 0, 1 };
	struct str s = { 0 };
	uint32_t at;

	put_le32(head, PC_LAPIC_BASE);
	put_le32(head + 4, 1); /* PCAT_COMPAT: there are 8259s too */
	add_bytes(&s, head, sizeof(head));
	for (int i = 0; i < o->cpus; i++) {
		uint8_t lapic[8] = { 0, 8, (uint8_t)i, (uint8_t)i, 1 };

		add_bytes(&s, lapic, sizeof(lapic));
	}
	put_le32(ioapic + 4, PC_IOAPIC_BASE);
	add_bytes(&s, ioapic, sizeof(ioapic));
	add_override(&s, 0, 2, 0);
	for (size_t i = 0; i < ARRAY_LEN(pci_irqs); i++)
		add_override(&s, pci_irqs[i], pci_irqs[i], MADT_HIGH_LEVEL);
	add_bytes(&s, nmi, sizeof(nmi)); /* LINT1 of all processors */
	at = add_table(t, "APIC", 3, s.s, s.len);
	seal_table(t, at);
	str_free(&s);
	return at;
}

static uint32_t
add_hpet(struct acpi_tables *t)
{
	uint8_t body[20] = { 0 };
	uint32_t at;

	put_le32(body, 0x8086a201); /* event timer block ID: 3 timers, 64 bits, legacy routing */
	body[5] = 64;		    /* GAS in memory */
	put_le64(body + 8, PC_HPET_BASE);
	at = add_table(t, "HPET", 1, body, sizeof(body));
	seal_table(t, at);
	return at;
}

/* RSDT (4-byte entries) or XSDT (8-byte entries). */
static uint32_t
add_root_table(struct acpi_tables *t, const char *signature, int entry, const uint32_t *tables, int count)
{
	uint8_t body[64] = { 0 };
	uint32_t at = add_table(t, signature, 1, body, (size_t)(entry * count));

	for (int i = 0; i < count; i++)
		set_pointer(t, at + TABLE_HEADER + (size_t)(entry * i), tables[i], entry);
	seal_table(t, at);
	return at;
}

static void
make_rsdp(struct acpi_tables *t, uint32_t rsdt, uint32_t xsdt)
{
	uint8_t *r = t->rsdp;

	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "LODGE ", 6);
	r[15] = 2;
	put_le32(r + 16, rsdt);
	put_le32(r + 20, sizeof(t->rsdp));
	put_le64(r + 24, xsdt);
	add_link(t, ACPI_LINK_POINTER, true, 16, 0, 4);
	add_link(t, ACPI_LINK_POINTER, true, 24, 0, 8);
	add_link(t, ACPI_LINK_CHECKSUM, true, 8, 0, 20);
	add_link(t, ACPI_LINK_CHECKSUM, true, 32, 0, sizeof(t->rsdp));
}

void
acpi_build(struct acpi_tables *t, const struct acpi_options *o)
{
	uint32_t tables[8];
	uint32_t facs, dsdt;
	int n = 0;

	memset(t, 0, sizeof(*t));
	facs = add_facs(t);
	dsdt = add_dsdt(t, o);
	tables[n++] = add_fadt(t, facs, dsdt);
	tables[n++] = add_madt(t, o);
	if (o->hpet)
		tables[n++] = add_hpet(t);
	make_rsdp(t, add_root_table(t, "RSDT", 4, tables, n), add_root_table(t, "XSDT", 8, tables, n));
}

void
acpi_free(struct acpi_tables *t)
{
	str_free(&t->tables);
}

/* ---- the two readers of the links ---- */

enum loader_command { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum loader_zone { LOADER_HIGH = 1, LOADER_FSEG = 2 };

/* An entry is 128 bytes: command, then names of 56 bytes and numbers, packed. (QEMU, docs/specs/fw_cfg: table-loader)
 */
static uint8_t *
loader_entry(uint8_t e[128], enum loader_command command, const char *file)
{
	memset(e, 0, 128);
	put_le32(e, command);
	memcpy(e + 4, file, strlen(file));
	return e + 4 + 56;
}

static void
loader_allocate(struct str *out, const char *file, unsigned align, enum loader_zone zone)
{
	uint8_t e[128], *p = loader_entry(e, LOADER_ALLOCATE, file);

	put_le32(p, align);
	p[4] = (uint8_t)zone;
	str_addn(out, (const char *)e, sizeof(e));
}

void
acpi_loader_script(const struct acpi_tables *t, struct str *out)
{
	loader_allocate(out, RSDP_FILE, 16, LOADER_FSEG);
	loader_allocate(out, TABLES_FILE, 64, LOADER_HIGH);
	for (int i = 0; i < t->link_count; i++) {
		const struct acpi_link *l = &t->links[i];
		bool pointer = l->kind == ACPI_LINK_POINTER;
		uint8_t e[128];
		uint8_t *p = loader_entry(
			e, pointer ? LOADER_ADD_POINTER : LOADER_ADD_CHECKSUM, l->in_rsdp ? RSDP_FILE : TABLES_FILE);

		if (pointer) {
			memcpy(p, TABLES_FILE, sizeof(TABLES_FILE));
			put_le32(p + 56, l->offset);
			p[60] = (uint8_t)l->size;
		} else {
			put_le32(p, l->offset);
			put_le32(p + 4, l->start);
			put_le32(p + 8, l->size);
		}
		str_addn(out, (const char *)e, sizeof(e));
	}
}

void
acpi_link(struct acpi_tables *t, uint32_t base)
{
	for (int i = 0; i < t->link_count; i++) {
		const struct acpi_link *l = &t->links[i];
		uint8_t *file = l->in_rsdp ? t->rsdp : (uint8_t *)t->tables.s;
		uint8_t sum = 0;

		if (l->kind == ACPI_LINK_POINTER) {
			put_le32(file + l->offset, le32(file + l->offset) + base);
			continue;
		}
		for (uint32_t k = 0; k < l->size; k++)
			sum = (uint8_t)(sum + file[l->start + k]);
		file[l->offset] = (uint8_t)(file[l->offset] - sum);
	}
}
