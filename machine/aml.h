/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small encoder for ACPI Machine Language: every call appends one construct; begin/end pairs nest. (ACPI 6.4 ch. 20)
 *
 *	aml_begin_device(a, "RTC_");
 *	aml_name(a, "_HID"), aml_eisaid(a, "PNP0B00");
 *	aml_end(a);
 *
 * Names are path strings as in ASL, each segment padded to four characters: "\\_SB_", "_CRS", "^PCI0ISA_" is two
 * segments. Terms are written in prefix order, operator first, operands after it.
 */
#ifndef MACHINE_AML_H
#define MACHINE_AML_H

#include <stdint.h>

#include "base/str.h"

#define AML_DEPTH 16

struct aml {
	struct str code; /* bytes, may hold NULs */
	int depth;
	struct {
		size_t at;     /* where the PkgLength is */
		size_t buffer; /* of a resource template: where its size is; else 0 */
	} open[AML_DEPTH];
};

/* Opcodes that stand alone or are followed by their operands. */
enum aml_op {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_LOCAL0 = 0x60,
	AML_LOCAL1 = 0x61,
	AML_ARG0 = 0x68,
	AML_ARG1 = 0x69,
	AML_STORE = 0x70,  /* source, target */
	AML_AND = 0x7b,	   /* a, b, target (AML_ZERO: none) */
	AML_OR = 0x7d,	   /* the same */
	AML_NOTIFY = 0x86, /* object, value */
	AML_RETURN = 0xa4,
	AML_CREATE_DWORD_FIELD = 0x8a, /* buffer, byte index, name */
};

enum aml_region { AML_SYSTEM_MEMORY, AML_SYSTEM_IO, AML_PCI_CONFIG };
enum aml_access { AML_ANY_ACC, AML_BYTE_ACC, AML_WORD_ACC, AML_DWORD_ACC };

void aml_begin_scope(struct aml *a, const char *name);
void aml_begin_device(struct aml *a, const char *name);
void aml_begin_method(struct aml *a, const char *name, int args, bool serialized);
void aml_begin_package(struct aml *a, unsigned elements);
void aml_begin_if(struct aml *a);
/* After aml_region(); the fields that follow are aml_field() only. */
void aml_begin_field(struct aml *a, const char *region, enum aml_access access);
void aml_begin_resources(struct aml *a);
/* Closes the innermost construct. */
void aml_end(struct aml *a);

void aml_name(struct aml *a, const char *name); /* Name (name, ...): the value follows */
void aml_path(struct aml *a, const char *name); /* a reference */
void aml_op(struct aml *a, enum aml_op op);
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_region(struct aml *a, const char *name, enum aml_region space, uint64_t offset, uint64_t len);
void aml_field(struct aml *a, const char *name, unsigned bits);

/* Resource descriptors, inside aml_begin_resources(). (ACPI 6.4 section 6.4) */
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_irq(struct aml *a, int irq);				/* ISA: edge, high, exclusive */
void aml_res_interrupts(struct aml *a, const uint32_t *gsi, int count); /* level, high, shared */
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len, bool writable);
void aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_range(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_range(struct aml *a, uint32_t first, uint32_t last, bool cacheable);
void aml_res_memory_range64(struct aml *a, uint64_t first, uint64_t last);

#endif
