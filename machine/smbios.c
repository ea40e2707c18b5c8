/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS 2.8 tables: maker, product, serial number, UUID, processors and memory, as dmidecode shows them. (DMTF
 * DSP0134 3.x, section numbers below)
 *
 * A structure is a formatted part, then its strings, each NUL-terminated, then one more NUL; with no strings, two NULs.
 * Fields that name a string hold its number, from 1; 0 means there is none.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/acpi.h"

struct structure {
	uint8_t fixed[96];
	size_t len;
	struct str strings;
	int count;
};

static void
structure_open(struct structure *s, int type, size_t len, unsigned handle)
{
	memset(s, 0, sizeof(*s));
	s->len = len;
	s->fixed[0] = (uint8_t)type;
	s->fixed[1] = (uint8_t)len;
	put_le16(s->fixed + 2, (uint16_t)handle);
}

/* Add `text` and put its number at `offset`. */
static void
set_string(struct structure *s, size_t offset, const char *text)
{
	if (!text[0])
		return;
	s->fixed[offset] = (uint8_t)++s->count;
	str_addn(&s->strings, text, strlen(text) + 1);
}

static void
structure_close(struct structure *s, struct smbios_tables *t, int *structures, size_t *longest)
{
	size_t start = t->tables.len;

	str_addn(&t->tables, (const char *)s->fixed, s->len);
	if (s->count)
		str_addn(&t->tables, s->strings.s, s->strings.len);
	else
		str_addn(&t->tables, "", 1);
	str_addn(&t->tables, "", 1);
	str_free(&s->strings);
	++*structures;
	*longest = MAX(*longest, t->tables.len - start);
}

void
smbios_defaults(struct smbios_strings *s)
{
	static const struct smbios_strings defaults = {
		.bios_vendor = "innotek GmbH",
		.bios_version = "VirtualBox",
		.vendor = "innotek GmbH",
		.product = "VirtualBox",
		.product_version = "1.2",
		.serial = "0",
		.family = "Virtual Machine",
		.board_vendor = "Oracle Corporation",
		.board_product = "VirtualBox",
		.chassis_vendor = "Oracle Corporation",
	};

	*s = defaults;
}

/* 7.1 BIOS information */
static void
make_bios(struct structure *s, const struct smbios_options *o)
{
	structure_open(s, 0, 24, 0x0000);
	set_string(s, 4, o->strings->bios_vendor);
	set_string(s, 5, o->strings->bios_version);
	put_le16(s->fixed + 6, 0xe800); /* segment */
	set_string(s, 8, "12/01/2006");
	s->fixed[9] = 1;		     /* 128 KiB */
	put_le64(s->fixed + 10, 0x00008b80); /* PCI, upgradable, boot from CD, selectable boot, EDD */
	s->fixed[18] = 1;		     /* ACPI */
	s->fixed[19] = 0x18;		     /* UUID holds; this is a virtual machine */
	s->fixed[22] = s->fixed[23] = 0xff;
}

/* 7.2 System information. UUID: the first three fields are little-endian. */
static void
make_system(struct structure *s, const struct smbios_options *o)
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

	structure_open(s, 1, 27, 0x0100);
	set_string(s, 4, o->strings->vendor);
	set_string(s, 5, o->strings->product);
	set_string(s, 6, o->strings->product_version);
	set_string(s, 7, o->strings->serial);
	for (int i = 0; i < 16; i++)
		s->fixed[8 + i] = o->uuid->b[order[i]];
	s->fixed[24] = 6; /* wake-up: power switch */
	set_string(s, 26, o->strings->family);
}

/* 7.3 Base board */
static void
make_board(struct structure *s, const struct smbios_options *o)
{
	structure_open(s, 2, 15, 0x0200);
	set_string(s, 4, o->strings->board_vendor);
	set_string(s, 5, o->strings->board_product);
	set_string(s, 7, o->strings->serial);
	s->fixed[9] = 1; /* a hosting board */
	put_le16(s->fixed + 11, 0x0300);
	s->fixed[13] = 10; /* motherboard */
}

/* 7.4 Chassis */
static void
make_chassis(struct structure *s, const struct smbios_options *o)
{
	structure_open(s, 3, 21, 0x0300);
	set_string(s, 4, o->strings->chassis_vendor);
	s->fixed[5] = 1;			       /* other */
	s->fixed[9] = s->fixed[10] = s->fixed[11] = 3; /* safe */
	s->fixed[12] = 2;
}

/* 7.5 Processor: one socket each */
static void
make_processor(struct structure *s, int n)
{
	char socket[16];

	snprintf(socket, sizeof(socket), "CPU %d", n);
	structure_open(s, 4, 42, 0x0400 + (unsigned)n);
	set_string(s, 4, socket);
	s->fixed[5] = 3;     /* central processor */
	s->fixed[6] = 1;     /* family: other */
	s->fixed[24] = 0x41; /* populated, enabled */
	s->fixed[25] = 1;
	put_le16(s->fixed + 26, 0xffff);
	put_le16(s->fixed + 28, 0xffff);
	put_le16(s->fixed + 30, 0xffff);
	s->fixed[35] = s->fixed[36] = s->fixed[37] = 1;
	put_le16(s->fixed + 38, 4); /* 64 bits */
	put_le16(s->fixed + 40, 1);
}

/* 7.17 Physical memory array */
static void
make_memory_array(struct structure *s, const struct smbios_options *o)
{
	structure_open(s, 16, 23, 0x1000);
	s->fixed[4] = 3; /* on the board */
	s->fixed[5] = 3; /* system memory */
	s->fixed[6] = 3; /* no error correction */
	if (o->ram >> 10 < 0x80000000u) {
		put_le32(s->fixed + 7, (uint32_t)(o->ram >> 10));
	} else {
		put_le32(s->fixed + 7, 0x80000000u);
		put_le64(s->fixed + 15, o->ram);
	}
	put_le16(s->fixed + 11, 0xfffe);
	put_le16(s->fixed + 13, 1);
}

/* 7.18 Memory device */
static void
make_memory_device(struct structure *s, const struct smbios_options *o)
{
	uint64_t mib = o->ram >> 20;

	structure_open(s, 17, 40, 0x1100);
	put_le16(s->fixed + 4, 0x1000);
	put_le16(s->fixed + 6, 0xfffe);
	put_le16(s->fixed + 8, 0xffff);
	put_le16(s->fixed + 10, 0xffff);
	put_le16(s->fixed + 12, (uint16_t)(mib < 0x7fff ? mib : 0x7fff));
	s->fixed[14] = 9; /* DIMM */
	set_string(s, 16, "DIMM 0");
	s->fixed[18] = 7; /* RAM */
	put_le16(s->fixed + 19, 2);
	if (mib >= 0x7fff)
		put_le32(s->fixed + 28, (uint32_t)mib);
}

/* 7.20 Memory array mapped address; the last byte is in KiB. */
static void
make_mapping(struct structure *s, int n, uint64_t first, uint64_t len)
{
	structure_open(s, 19, 31, 0x1300 + (unsigned)n);
	if ((first + len) >> 10 < 0xffffffffu) {
		put_le32(s->fixed + 4, (uint32_t)(first >> 10));
		put_le32(s->fixed + 8, (uint32_t)((first + len - 1) >> 10));
	} else {
		put_le32(s->fixed + 4, 0xffffffffu);
		put_le32(s->fixed + 8, 0xffffffffu);
		put_le64(s->fixed + 15, first);
		put_le64(s->fixed + 23, first + len - 1);
	}
	put_le16(s->fixed + 12, 0x1000);
	s->fixed[14] = 1;
}

/* 5.2.1: the 32-bit entry point. */
static void
make_anchor(struct smbios_tables *t, int structures, size_t longest)
{
	uint8_t *a = t->anchor;

	memcpy(a, "_SM_", 4);
	a[5] = sizeof(t->anchor);
	a[6] = 2;
	a[7] = 8;
	put_le16(a + 8, (uint16_t)longest);
	memcpy(a + 16, "_DMI_", 5);
	put_le16(a + 22, (uint16_t)t->tables.len);
	put_le16(a + 28, (uint16_t)structures);
	a[30] = 0x28;
}

void
smbios_build(struct smbios_tables *t, const struct smbios_options *o)
{
	size_t longest = 0;
	struct structure s;
	int n = 0;

	memset(t, 0, sizeof(*t));
	make_bios(&s, o), structure_close(&s, t, &n, &longest);
	make_system(&s, o), structure_close(&s, t, &n, &longest);
	make_board(&s, o), structure_close(&s, t, &n, &longest);
	make_chassis(&s, o), structure_close(&s, t, &n, &longest);
	for (int i = 0; i < o->cpus; i++)
		make_processor(&s, i), structure_close(&s, t, &n, &longest);
	make_memory_array(&s, o), structure_close(&s, t, &n, &longest);
	make_memory_device(&s, o), structure_close(&s, t, &n, &longest);
	make_mapping(&s, 0, 0, o->ram_below_4g), structure_close(&s, t, &n, &longest);
	if (o->ram > o->ram_below_4g)
		make_mapping(&s, 1, 1ull << 32, o->ram - o->ram_below_4g), structure_close(&s, t, &n, &longest);
	structure_open(&s, 32, 11, 0x2000), structure_close(&s, t, &n, &longest); /* 7.33: no boot error */
	structure_open(&s, 127, 4, 0x7f00), structure_close(&s, t, &n, &longest); /* 7.45: the end */
	make_anchor(t, n, longest);
}

static uint8_t
checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

void
smbios_place(struct smbios_tables *t, uint32_t base)
{
	uint8_t *a = t->anchor;

	put_le32(a + 24, base);
	a[21] = 0;
	a[21] = checksum(a + 16, 15);
	a[4] = 0;
	a[4] = checksum(a, sizeof(t->anchor));
}

void
smbios_free(struct smbios_tables *t)
{
	str_free(&t->tables);
}
