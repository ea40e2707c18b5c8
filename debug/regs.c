/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a CPU as a debugger names them. One list serves gdb's g, p and target description (GDB manual,
 * appendix G.5.7, "i386 Features") and VBoxManage debugvm. Its order is that of the g packet: gdb's own features first,
 * as gdb knows them, then one of ours with what belongs to the system.
 */
#include "base/bytes.h"
#include "debug/debug.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cpu/x86/x86.h"
#include "debug/packet.h"

#define REGS_MAX 320

enum reg_kind {
	REG_PLAIN,    /* `size` bytes of struct x86_state at `offset`, any value */
	REG_ADDRESS,  /* the same, and it has to be canonical */
	REG_RDONLY,   /* the same, never written */
	REG_FLAGS,    /* RFLAGS */
	REG_SELECTOR, /* `offset`: enum seg_name */
	REG_CONTROL,  /* `offset`: number of the control register, or CPU_VIEW_EFER */
	REG_CR8,
	REG_DR67,
	REG_MXCSR,
	REG_FTAG,
	REG_FSEG,  /* always 0 in 64-bit mode's format */
	REG_FLOW,  /* low half of the x87's instruction and data addresses */
	REG_FPART, /* 16 bits of the x87's state, 32 on the wire */
};

struct reg {
	char name[16];
	const char *type, *group;
	uint16_t offset;
	uint8_t kind, feature;
	uint16_t wide; /* bits on the wire */
};

struct reg_set {
	struct reg reg[REGS_MAX];
	int count;
	struct str xml;
};

enum { F_CORE, F_SSE, F_AVX, F_AVX512, F_SEGMENTS, F_SYSTEM, F_COUNT };
static const char *const features[] = { "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.avx",
	"org.gnu.gdb.i386.avx512", "org.gnu.gdb.i386.segments", "org.lodge.x86.system" };

#define AT(member) offsetof(struct x86_state, member)

/* ---- the list ---- */

static void
add(struct reg_set *s, unsigned feature, const char *name, unsigned bits, const char *type, const char *group,
	enum reg_kind kind, size_t offset)
{
	struct reg *r = &s->reg[s->count++];

	snprintf(r->name, sizeof(r->name), "%s", name);
	r->type = type;
	r->group = group;
	r->offset = (uint16_t)offset;
	r->kind = (uint8_t)kind;
	r->feature = (uint8_t)feature;
	r->wide = (uint16_t)bits;
}

static void
add_n(struct reg_set *s, unsigned feature, const char *format, int first, int last, unsigned bits, const char *type,
	size_t offset, size_t step)
{
	for (int i = first; i <= last; i++) {
		char name[16];

		snprintf(name, sizeof(name), format, i);
		add(s, feature, name, bits, type, bits >= 128 ? "vector" : NULL, REG_PLAIN, offset + (size_t)i * step);
	}
}

static void
add_core(struct reg_set *s)
{
	static const char *const gprs[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10",
		"r11", "r12", "r13", "r14", "r15" };
	static const uint8_t place[] = { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15 };
	static const struct {
		const char *name;
		enum seg_name seg;
	} segs[] = { { "cs", SEG_CS }, { "ss", SEG_SS }, { "ds", SEG_DS }, { "es", SEG_ES }, { "fs", SEG_FS },
		{ "gs", SEG_GS } };

	for (unsigned i = 0; i < 16; i++)
		add(s, F_CORE, gprs[i], 64, place[i] == RSP || place[i] == RBP ? "data_ptr" : "int64", NULL, REG_PLAIN,
			AT(gpr) + 8u * place[i]);
	add(s, F_CORE, "rip", 64, "code_ptr", NULL, REG_PLAIN, AT(rip));
	add(s, F_CORE, "eflags", 32, "i386_eflags", NULL, REG_FLAGS, AT(rflags));
	for (unsigned i = 0; i < ARRAY_LEN(segs); i++)
		add(s, F_CORE, segs[i].name, 32, "int32", NULL, REG_SELECTOR, segs[i].seg);
	add_n(s, F_CORE, "st%d", 0, 7, 80, "i387_ext", AT(x87.st), 16);
	add(s, F_CORE, "fctrl", 32, "int", "float", REG_FPART, AT(x87.fcw));
	add(s, F_CORE, "fstat", 32, "int", "float", REG_FPART, AT(x87.fsw));
	add(s, F_CORE, "ftag", 32, "int", "float", REG_FTAG, AT(x87.ftw));
	add(s, F_CORE, "fiseg", 32, "int", "float", REG_FSEG, 0);
	add(s, F_CORE, "fioff", 32, "int", "float", REG_FLOW, AT(x87.fip));
	add(s, F_CORE, "foseg", 32, "int", "float", REG_FSEG, 0);
	add(s, F_CORE, "fooff", 32, "int", "float", REG_FLOW, AT(x87.fdp));
	add(s, F_CORE, "fop", 32, "int", "float", REG_FPART, AT(x87.fop));
}

static void
add_vectors(struct reg_set *s, uint64_t xcr0)
{
	add_n(s, F_SSE, "xmm%d", 0, 15, 128, "vec128", AT(zmm), 64);
	add(s, F_SSE, "mxcsr", 32, "i386_mxcsr", "vector", REG_MXCSR, AT(x87.mxcsr));
	if (!(xcr0 & 4))
		return;
	add_n(s, F_AVX, "ymm%dh", 0, 15, 128, "uint128", AT(zmm) + 16, 64);
	if ((xcr0 & 0xe0) != 0xe0)
		return;
	add_n(s, F_AVX512, "k%d", 0, 7, 64, "uint64", AT(k), 8);
	add_n(s, F_AVX512, "zmm%dh", 0, 15, 256, "v2ui128", AT(zmm) + 32, 64);
	add_n(s, F_AVX512, "xmm%d", 16, 31, 128, "vec128", AT(zmm), 64);
	add_n(s, F_AVX512, "ymm%dh", 16, 31, 128, "uint128", AT(zmm) + 16, 64);
	add_n(s, F_AVX512, "zmm%dh", 16, 31, 256, "v2ui128", AT(zmm) + 32, 64);
}

static void
system64(struct reg_set *s, const char *name, enum reg_kind kind, size_t offset)
{
	add(s, F_SYSTEM, name, 64, "int64", "system", kind, offset);
}

static void
add_hidden(struct reg_set *s, const char *name, enum seg_name seg)
{
	size_t at = AT(seg) + seg * sizeof(struct x86_seg);
	char text[16];

	if (seg != SEG_FS && seg != SEG_GS) { /* those have names of their own */
		snprintf(text, sizeof(text), "%s_base", name);
		add(s, F_SYSTEM, text, 64, "int64", "system", REG_RDONLY, at + offsetof(struct x86_seg, base));
	}
	snprintf(text, sizeof(text), "%s_lim", name);
	add(s, F_SYSTEM, text, 32, "int32", "system", REG_RDONLY, at + offsetof(struct x86_seg, limit));
	snprintf(text, sizeof(text), "%s_attr", name);
	add(s, F_SYSTEM, text, 32, "int32", "system", REG_RDONLY, at + offsetof(struct x86_seg, attr));
}

static void
add_system(struct reg_set *s)
{
	static const char *const segs[] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };

	add(s, F_SEGMENTS, "fs_base", 64, "int", NULL, REG_ADDRESS, AT(seg[SEG_FS].base));
	add(s, F_SEGMENTS, "gs_base", 64, "int", NULL, REG_ADDRESS, AT(seg[SEG_GS].base));
	system64(s, "k_gs_base", REG_ADDRESS, AT(kernel_gs_base));
	system64(s, "cr0", REG_CONTROL, 0);
	system64(s, "cr2", REG_PLAIN, AT(cr2));
	system64(s, "cr3", REG_CONTROL, 3);
	system64(s, "cr4", REG_CONTROL, 4);
	system64(s, "cr8", REG_CR8, 8);
	system64(s, "efer", REG_CONTROL, CPU_VIEW_EFER);
	system64(s, "xcr0", REG_RDONLY, AT(xcr0));
	for (int i = 0; i < 8; i++) {
		char name[16];

		if (i == 4 || i == 5)
			continue;
		snprintf(name, sizeof(name), "dr%d", i);
		system64(s, name, i < 4 ? REG_ADDRESS : REG_DR67, AT(dr) + 8u * (unsigned)i);
	}
	add(s, F_SYSTEM, "ldtr", 16, "int16", "system", REG_SELECTOR, SEG_LDTR);
	add(s, F_SYSTEM, "tr", 16, "int16", "system", REG_SELECTOR, SEG_TR);
	for (int i = 0; i < SEG_COUNT; i++)
		add_hidden(s, segs[i], (enum seg_name)i);
	system64(s, "gdtr_base", REG_ADDRESS, AT(gdt.base));
	add(s, F_SYSTEM, "gdtr_lim", 16, "int16", "system", REG_PLAIN, AT(gdt.limit));
	system64(s, "idtr_base", REG_ADDRESS, AT(idt.base));
	add(s, F_SYSTEM, "idtr_lim", 16, "int16", "system", REG_PLAIN, AT(idt.limit));
	system64(s, "star", REG_PLAIN, AT(star));
	system64(s, "lstar", REG_ADDRESS, AT(lstar));
	system64(s, "cstar", REG_ADDRESS, AT(cstar));
	system64(s, "sfmask", REG_RDONLY, AT(sfmask));
	system64(s, "tsc_aux", REG_RDONLY, AT(tsc_aux));
	system64(s, "sysenter_cs", REG_PLAIN, AT(sysenter_cs));
	system64(s, "sysenter_esp", REG_ADDRESS, AT(sysenter_esp));
	system64(s, "sysenter_eip", REG_ADDRESS, AT(sysenter_eip));
	system64(s, "pat", REG_RDONLY, AT(pat));
}

/* ---- the target description ---- */

static void
describe_types(struct reg_set *s, unsigned feature)
{
	static const char *const flags[] = { "CF", "", "PF", "", "AF", "", "ZF", "SF", "TF", "IF", "DF", "OF", "", "",
		"NT", "", "RF", "VM", "AC", "VIF", "VIP", "ID" };
	static const char *const mxcsr[] = { "IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM",
		"PM", "", "", "FZ" };
	const char *const *names = feature == F_CORE ? flags : mxcsr;
	unsigned count = feature == F_CORE ? ARRAY_LEN(flags) : ARRAY_LEN(mxcsr);

	if (feature == F_AVX512)
		str_add(&s->xml, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
				 "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
				 "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>"
				 "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
				 "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"uint128\" type=\"uint128\"/>"
				 "</union>");
	if (feature == F_SSE)
		str_add(&s->xml, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
				 "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
				 "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
				 "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
				 "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
				 "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
				 "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
				 "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
				 "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
				 "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/>"
				 "</union>");
	if (feature != F_CORE && feature != F_SSE)
		return;
	str_addf(&s->xml, "<flags id=\"%s\" size=\"4\">", feature == F_CORE ? "i386_eflags" : "i386_mxcsr");
	for (unsigned i = 0; i < count; i++)
		if (names[i][0])
			str_addf(&s->xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", names[i], i, i);
	str_add(&s->xml, "</flags>");
}

static void
describe(struct reg_set *s)
{
	unsigned open = F_COUNT;

	str_add(&s->xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
			 "<architecture>i386:x86-64</architecture>");
	for (int i = 0; i < s->count; i++) {
		const struct reg *r = &s->reg[i];

		if (r->feature != open) {
			str_addf(&s->xml, "%s<feature name=\"%s\">", open == F_COUNT ? "" : "</feature>",
				features[r->feature]);
			open = r->feature;
			describe_types(s, open);
		}
		str_addf(&s->xml, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%d\"", r->name, r->wide,
			r->type, i);
		if (r->group)
			str_addf(&s->xml, " group=\"%s\"", r->group);
		str_add(&s->xml, "/>");
	}
	str_add(&s->xml, "</feature></target>");
}

struct reg_set *
reg_set_open(const struct cpu_model *m)
{
	struct reg_set *s = xcalloc(1, sizeof(*s));

	add_core(s);
	add_vectors(s, m->xcr0_supported);
	add_system(s);
	describe(s);
	return s;
}

void
reg_set_close(struct reg_set *s)
{
	if (s)
		str_free(&s->xml);
	free(s);
}

const char *
reg_target_xml(const struct reg_set *s)
{
	return s->xml.s;
}

int
reg_count(const struct reg_set *s)
{
	return s->count;
}

int
reg_find(const struct reg_set *s, const char *name)
{
	if (!strcmp(name, "rflags"))
		name = "eflags";
	for (int i = 0; i < s->count; i++)
		if (!strcmp(s->reg[i].name, name))
			return i;
	return -1;
}

const char *
reg_name(const struct reg_set *s, int n)
{
	return s->reg[n].name;
}

unsigned
reg_bytes(const struct reg_set *s, int n)
{
	return s->reg[n].wide / 8u;
}

/* ---- the x87's tags: one bit a register in the state, two in the debugger's eyes (SDM 1 8.1.7) ---- */

static unsigned
tag_of(const uint8_t st[10])
{
	unsigned exponent = le16(st + 8) & 0x7fffu;
	uint64_t mantissa = le64(st);

	if (!exponent && !mantissa)
		return 1;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static uint16_t
full_tags(const struct x87_state *x)
{
	unsigned top = x->fsw >> 11 & 7, tags = 0;

	for (unsigned i = 0; i < 8; i++)
		tags |= (x->ftw >> i & 1 ? tag_of(x->st[(i - top) & 7]) : 3u) << (2 * i);
	return (uint16_t)tags;
}

static uint8_t
short_tags(uint16_t tags)
{
	unsigned out = 0;

	for (unsigned i = 0; i < 8; i++)
		out |= (unsigned)((tags >> (2 * i) & 3) != 3) << i;
	return (uint8_t)out;
}

/* ---- access ---- */

static uint64_t
control(struct vcpu *v, unsigned n)
{
	const struct x86_state *s = &v->state;

	return n == CPU_VIEW_EFER ? s->efer : n == 0 ? s->cr0 : n == 3 ? s->cr3 : s->cr4;
}

void
reg_read(const struct reg_set *set, int n, struct vcpu *v, uint8_t out[REG_BYTES_MAX])
{
	const struct reg *r = &set->reg[n];
	const struct x86_state *s = &v->state;
	const uint8_t *at = (const uint8_t *)s + r->offset;

	memset(out, 0, REG_BYTES_MAX);
	switch ((enum reg_kind)r->kind) {
	case REG_SELECTOR:
		put_le16(out, s->seg[r->offset].sel);
		break;
	case REG_CONTROL:
		put_le64(out, control(v, r->offset));
		break;
	case REG_CR8:
		out[0] = cpu_get_cr8(v);
		break;
	case REG_FTAG:
		put_le16(out, full_tags(&s->x87));
		break;
	case REG_FSEG:
		break;
	case REG_FLOW:
		memcpy(out, at, 4);
		break;
	case REG_FPART:
		memcpy(out, at, 2);
		break;
	default:
		memcpy(out, at, r->wide / 8u);
		break;
	}
}

#define FLAGS_WRITABLE 0x3f7fd5u

static enum reg_result
write_control(struct vcpu *v, struct cpu_view *w, unsigned n, uint64_t value)
{
	if (n != 8 && value == control(v, n))
		return REG_OK;
	return cpu_view_set_control(w, (int)n, value) ? REG_OK : REG_REFUSED;
}

enum reg_result
reg_write(const struct reg_set *set, int n, struct vcpu *v, struct cpu_view *w, const uint8_t in[REG_BYTES_MAX])
{
	const struct reg *r = &set->reg[n];
	struct x86_state *s = &v->state;
	uint8_t *at = (uint8_t *)s + r->offset, now[REG_BYTES_MAX];
	uint64_t value = r->wide >= 64 ? le64(in) : le32(in) & (r->wide == 16 ? 0xffffu : UINT32_MAX);
	enum reg_result result = REG_OK;

	reg_read(set, n, v, now);
	if (!memcmp(now, in, r->wide / 8u))
		return REG_OK;
	switch ((enum reg_kind)r->kind) {
	case REG_PLAIN:
		memcpy(at, in, r->wide / 8u);
		break;
	case REG_ADDRESS:
		if (!x86_canonical(value))
			return REG_REFUSED;
		memcpy(at, in, r->wide / 8u);
		break;
	case REG_FLAGS:
		s->rflags = (value & FLAGS_WRITABLE) | 2;
		break;
	case REG_SELECTOR:
		if (r->offset >= SEG_LDTR)
			return REG_READ_ONLY;
		result = cpu_view_set_segment(w, (enum seg_name)r->offset, (uint16_t)value) ? REG_OK : REG_REFUSED;
		break;
	case REG_CONTROL:
	case REG_CR8:
		result = write_control(v, w, r->offset, value);
		break;
	case REG_DR67:
		memcpy(at, &(uint64_t){ value & UINT32_MAX }, 8);
		break;
	case REG_MXCSR:
		s->x87.mxcsr = (uint32_t)value & 0xffff;
		break;
	case REG_FTAG:
		s->x87.ftw = short_tags((uint16_t)value);
		break;
	case REG_FLOW:
		memcpy(at, in, 4);
		break;
	case REG_FPART:
		memcpy(at, in, 2);
		break;
	case REG_FSEG:
	case REG_RDONLY:
		return REG_READ_ONLY;
	}
	cpu_view_load(w, v);
	return result;
}

/* ---- as text ---- */

void
reg_text(const struct reg_set *s, int n, struct vcpu *v, char out[2 * REG_BYTES_MAX + 3])
{
	uint8_t value[REG_BYTES_MAX];
	unsigned bytes = reg_bytes(s, n);

	reg_read(s, n, v, value);
	out += snprintf(out, 3, "0x");
	while (bytes--)
		out += snprintf(out, 3, "%02x", value[bytes]);
}

bool
reg_parse(const struct reg_set *s, int n, const char *text, uint8_t out[REG_BYTES_MAX])
{
	unsigned bytes = reg_bytes(s, n);
	size_t len = strlen(text);
	uint64_t value;

	memset(out, 0, REG_BYTES_MAX);
	if (strncmp(text, "0x", 2) && strncmp(text, "0X", 2)) {
		if (!str_to_u64(text, 0, UINT64_MAX, &value) || (bytes < 8 && value >> (8 * bytes)))
			return false;
		memcpy(out, &value, bytes < 8 ? bytes : 8);
		return true;
	}
	if (len == 2)
		return false;
	for (size_t i = 0; i < len - 2; i++) {
		int d = hex_digit(text[len - 1 - i]);

		if (d < 0 || (d && i / 2 >= bytes))
			return false;
		if (i / 2 < bytes)
			out[i / 2] |= (uint8_t)(d << (4 * (i & 1)));
	}
	return true;
}
