/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder of machine/aml.h. Package lengths are always written in the three-byte form (ACPI 6.4 section 20.2.4),
 * so that aml_end() can fill them in without moving what is behind.
 */
#include "machine/aml.h"
#include "base/bytes.h"

#include <assert.h>
#include <string.h>

#define PKG_LENGTH 3

static void
byte(struct aml *a, unsigned b)
{
	char c = (char)b;

	str_addn(&a->code, &c, 1);
}

static void
bytes(struct aml *a, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		byte(a, (unsigned)(v >> 8 * i) & 0xff);
}

static void
begin(struct aml *a)
{
	assert(a->depth < AML_DEPTH);
	a->open[a->depth].at = a->code.len;
	a->open[a->depth++].buffer = 0;
	bytes(a, 0, PKG_LENGTH);
}

void
aml_end(struct aml *a)
{
	uint8_t *code = (uint8_t *)a->code.s;
	size_t at, len;

	assert(a->depth > 0);
	at = a->open[--a->depth].at;
	if (a->open[a->depth].buffer) {
		bytes(a, 0x79, 2); /* end tag, no checksum */
		code = (uint8_t *)a->code.s;
		put_le16(code + a->open[a->depth].buffer, (uint16_t)(a->code.len - a->open[a->depth].buffer - 2));
	}
	len = a->code.len - at;
	assert(len < 1u << 20);
	code[at] = (uint8_t)(0x80 | (len & 0xf));
	code[at + 1] = (uint8_t)(len >> 4);
	code[at + 2] = (uint8_t)(len >> 12);
}

/* A NameString from an ASL-like path whose segments are exactly four characters each, without dots. */
void
aml_path(struct aml *a, const char *name)
{
	size_t segments;

	while (*name == '\\' || *name == '^')
		byte(a, (uint8_t)*name++);
	segments = strlen(name) / 4;
	assert(strlen(name) % 4 == 0);
	if (segments == 0)
		byte(a, 0);
	else if (segments == 2)
		byte(a, 0x2e);
	else if (segments > 2)
		byte(a, 0x2f), byte(a, (unsigned)segments);
	str_addn(&a->code, name, strlen(name));
}

void
aml_begin_scope(struct aml *a, const char *name)
{
	byte(a, 0x10);
	begin(a);
	aml_path(a, name);
}

void
aml_begin_device(struct aml *a, const char *name)
{
	bytes(a, 0x825b, 2);
	begin(a);
	aml_path(a, name);
}

void
aml_begin_method(struct aml *a, const char *name, int args, bool serialized)
{
	byte(a, 0x14);
	begin(a);
	aml_path(a, name);
	byte(a, (unsigned)args | (serialized ? 8 : 0));
}

void
aml_begin_package(struct aml *a, unsigned elements)
{
	byte(a, 0x12);
	begin(a);
	byte(a, elements);
}

void
aml_begin_if(struct aml *a)
{
	byte(a, 0xa0);
	begin(a);
}

void
aml_begin_field(struct aml *a, const char *region, enum aml_access access)
{
	bytes(a, 0x815b, 2);
	begin(a);
	aml_path(a, region);
	byte(a, access); /* NoLock, Preserve */
}

void
aml_begin_resources(struct aml *a)
{
	byte(a, 0x11);
	begin(a);
	byte(a, 0x0b);
	a->open[a->depth - 1].buffer = a->code.len;
	bytes(a, 0, 2);
}

void
aml_name(struct aml *a, const char *name)
{
	byte(a, 0x08);
	aml_path(a, name);
}

void
aml_op(struct aml *a, enum aml_op op)
{
	byte(a, op);
}

void
aml_int(struct aml *a, uint64_t v)
{
	if (v <= 1)
		byte(a, (unsigned)v);
	else if (v <= 0xff)
		byte(a, 0x0a), bytes(a, v, 1);
	else if (v <= 0xffff)
		byte(a, 0x0b), bytes(a, v, 2);
	else if (v <= 0xffffffff)
		byte(a, 0x0c), bytes(a, v, 4);
	else
		byte(a, 0x0e), bytes(a, v, 8);
}

void
aml_string(struct aml *a, const char *s)
{
	byte(a, 0x0d);
	str_addn(&a->code, s, strlen(s) + 1);
}

static unsigned
hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Three letters of five bits and four hexadecimal digits, big-endian. (ACPI 6.4 section 19.3.4) */
void
aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;

	for (int i = 0; i < 3; i++)
		v = v << 5 | ((unsigned)(id[i] - '@') & 0x1f);
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	byte(a, 0x0c);
	bytes(a, __builtin_bswap32(v), 4);
}

void
aml_region(struct aml *a, const char *name, enum aml_region space, uint64_t offset, uint64_t len)
{
	bytes(a, 0x805b, 2);
	aml_path(a, name);
	byte(a, space);
	aml_int(a, offset);
	aml_int(a, len);
}

void
aml_field(struct aml *a, const char *name, unsigned bits)
{
	assert(bits < 64);
	str_addn(&a->code, name, 4);
	byte(a, bits); /* one-byte PkgLength */
}

void
aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
	bytes(a, 0x47, 1);
	byte(a, 1); /* decodes 16 bits */
	bytes(a, base, 2);
	bytes(a, base, 2);
	byte(a, 1);
	byte(a, len);
}

void
aml_res_irq(struct aml *a, int irq)
{
	byte(a, 0x22);
	bytes(a, 1u << irq, 2);
}

void
aml_res_interrupts(struct aml *a, const uint32_t *gsi, int count)
{
	byte(a, 0x89);
	bytes(a, 2 + 4 * (unsigned)count, 2);
	byte(a, 0x09); /* consumer, level, active high, shared */
	byte(a, (unsigned)count);
	for (int i = 0; i < count; i++)
		bytes(a, gsi[i], 4);
}

void
aml_res_memory32(struct aml *a, uint32_t base, uint32_t len, bool writable)
{
	byte(a, 0x86);
	bytes(a, 9, 2);
	byte(a, writable);
	bytes(a, base, 4);
	bytes(a, len, 4);
}

/* Address space descriptors: word, double word, quad word. (ACPI 6.4 section 6.4.3.5) */
static void
address_space(struct aml *a, unsigned tag, unsigned type, unsigned type_flags, uint64_t first, uint64_t last, int size)
{
	byte(a, tag);
	bytes(a, 3 + 5 * (unsigned)size, 2);
	byte(a, type);
	byte(a, 0x0c); /* producer, positive decode, minimum and maximum fixed */
	byte(a, type_flags);
	bytes(a, 0, size);
	bytes(a, first, size);
	bytes(a, last, size);
	bytes(a, 0, size);
	bytes(a, last - first + 1, size);
}

void
aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, 0x88, 2, 0, first, last, 2);
}

void
aml_res_io_range(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, 0x88, 1, 3, first, last, 2); /* entire range */
}

void
aml_res_memory_range(struct aml *a, uint32_t first, uint32_t last, bool cacheable)
{
	address_space(a, 0x87, 0, cacheable ? 3 : 1, first, last, 4);
}

void
aml_res_memory_range64(struct aml *a, uint64_t first, uint64_t last)
{
	address_space(a, 0x8a, 0, 3, first, last, 8);
}
