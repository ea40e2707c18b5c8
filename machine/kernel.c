/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three boot protocols, all of which enter in 32-bit protected mode with flat segments and paging off:
 *
 *	bzImage    the protected-mode part at its preferred address or 1 MiB, entered at its first byte with the zero
 *	           page in ESI. (Linux, Documentation/arch/x86/boot.rst, 32-bit boot protocol.) The real-mode part of
 *	           the file is not run: its header tells what to fill in.
 *	multiboot  ELF, or a flat image described by the multiboot header; EAX magic, EBX information. (Multiboot 0.6.96)
 *	PVH        ELF with a XEN_ELFNOTE_PHYS32_ENTRY note; EBX start information. (Xen, docs/misc/pvh)
 *
 * Low memory while the kernel starts; everything is below the EBDA and in memory the map calls usable:
 *
 *	0x01000  GDT
 *	0x02000  zero page, multiboot information, or PVH start information (4 KiB), memory map behind it
 *	0x04000  module list, command lines
 *	0x10000  kernel command line
 *
 * Every number in a file is untrusted: it is checked against the file's length and against memory before use.
 */
#include "machine/kernel.h"
#include "base/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define GDT_AT 0x1000u
#define INFO_AT 0x2000u
#define MAP_AT 0x3000u
#define LISTS_AT 0x4000u
#define LISTS_END 0x10000u
#define CMDLINE_AT 0x10000u
#define CMDLINE_MAX 0x10000u
#define LOW_START 0x20000u
#define LOW_END 0x9fc00u
#define IMAGE_MAX (1ull << 30)
#define MIB (1ull << 20)

/* ---- places in guest memory ---- */

static int
put(const struct kernel_env *env, uint64_t at, const void *data, size_t len, const char *what, struct err *e)
{
	if (mem_write(env->mem, at, data, len))
		return 0;
	return err_set(e, ERR_INVALID, "%s (%zu bytes at 0x%" PRIx64 ") does not fit into the machine's memory", what,
		len, at);
}

/* Is [at, at+len) memory above the first MiB and below 4 GiB? */
static bool
high_memory(const struct kernel_env *env, uint64_t at, uint64_t len)
{
	return at >= MIB && at <= env->ram_below_4g && len <= env->ram_below_4g - at;
}

/* Is it memory that a kernel may be loaded to: above the first MiB, or below the EBDA and behind what is put there? */
static bool
loadable(const struct kernel_env *env, uint64_t at, uint64_t len)
{
	return high_memory(env, at, len) || (at >= LOW_START && at <= LOW_END && len <= LOW_END - at);
}

/* ---- entering ---- */

static struct x86_seg
flat_segment(uint16_t sel, uint32_t type)
{
	return (struct x86_seg){
		.sel = sel,
		.attr = type | SEG_S | SEG_P | SEG_DB | SEG_G,
		.limit = 0xffffffff,
	};
}

/* Selectors 0x10 and 0x18 as the Linux protocol wants them; multiboot and PVH do not care. */
static int
enter_flat(const struct kernel_env *env, struct x86_state *s, uint32_t entry, struct err *e)
{
	static const uint64_t gdt[] = { 0, 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull, 0x00008b0000000067ull };
	struct x86_seg data = flat_segment(0x18, 3);

	if (put(env, GDT_AT, gdt, sizeof(gdt), "the descriptor table", e))
		return -1;
	s->gdt = (struct x86_table){ GDT_AT, sizeof(gdt) - 1 };
	s->idt = (struct x86_table){ 0, 0 };
	s->seg[SEG_CS] = flat_segment(0x10, 0xb);
	s->seg[SEG_DS] = s->seg[SEG_ES] = s->seg[SEG_SS] = s->seg[SEG_FS] = s->seg[SEG_GS] = data;
	s->seg[SEG_TR] = (struct x86_seg){ .sel = 0x20, .attr = SEG_P | 0xb, .limit = 0x67 };
	s->cr0 = CR0_PE | CR0_ET;
	s->rflags = 2;
	s->rip = entry;
	memset(s->gpr, 0, sizeof(s->gpr));
	return 0;
}

/* ---- Linux ---- */

/* Offsets in the setup header (boot.rst) and in the zero page (Documentation/arch/x86/zero-page.rst). */
enum linux_header {
	ACPI_RSDP_ADDR = 0x070,
	E820_ENTRIES = 0x1e8,
	SETUP_SECTS = 0x1f1,
	BOOT_FLAG = 0x1fe,
	JUMP_LENGTH = 0x201,
	HEADER_MAGIC = 0x202,
	VERSION = 0x206,
	TYPE_OF_LOADER = 0x210,
	LOADFLAGS = 0x211,
	CODE32_START = 0x214,
	RAMDISK_IMAGE = 0x218,
	RAMDISK_SIZE = 0x21c,
	CMD_LINE_PTR = 0x228,
	INITRD_ADDR_MAX = 0x22c,
	CMDLINE_SIZE = 0x238,
	PREF_ADDRESS = 0x258,
	INIT_SIZE = 0x260,
	HEADER_END = 0x268,
	E820_TABLE = 0x2d0,
	E820_MAX = 128,
};

static bool
is_linux(const struct kernel_file *f)
{
	return f->len >= HEADER_END && le16(f->data + BOOT_FLAG) == 0xaa55 &&
	       !memcmp(f->data + HEADER_MAGIC, "HdrS", 4);
}

static size_t
linux_setup_size(const struct kernel_file *f)
{
	unsigned sectors = f->data[SETUP_SECTS] ? f->data[SETUP_SECTS] : 4;

	return (sectors + 1) * 512u;
}

static int
check_linux(const struct kernel_file *f, struct err *e)
{
	unsigned version = le16(f->data + VERSION);

	if (version < 0x0202)
		return err_set(e, ERR_UNSUPPORTED, "the Linux kernel has boot protocol %u.%02u; 2.02 is the oldest",
			version >> 8, version & 0xff);
	if (!(f->data[LOADFLAGS] & 1))
		return err_set(e, ERR_UNSUPPORTED, "the Linux kernel is a zImage (loaded low); use a bzImage");
	if (linux_setup_size(f) >= f->len)
		return err_set(e, ERR_FILE, "the Linux kernel is cut off: %zu bytes, its setup alone has %zu", f->len,
			linux_setup_size(f));
	return 0;
}

/*
 * Where the protected-mode code goes. Since protocol 2.10 the kernel names a place and what it needs from there on; a
 * relocatable one loaded lower would still move itself up to that place.
 */
static int
place_linux(const struct kernel *k, const struct kernel_env *env, uint32_t *at, uint64_t *end, struct err *e)
{
	const uint8_t *h = k->image.data;
	uint64_t size = k->image.len - linux_setup_size(&k->image), start = MIB;

	if (le16(h + VERSION) >= 0x020a) {
		start = le64(h + PREF_ADDRESS);
		size = MAX(size, le32(h + INIT_SIZE));
	}
	if (start < MIB || start > UINT32_MAX)
		return err_set(
			e, ERR_FILE, "the Linux kernel wants to be loaded at 0x%" PRIx64 ", which cannot be", start);
	if (!high_memory(env, start, size))
		return err_set(e, ERR_INVALID,
			"the Linux kernel needs %" PRIu64 " MiB of memory to start, the machine has %u",
			(uint64_t)((start + size + MIB - 1) / MIB), (unsigned)(env->ram_below_4g / MIB));
	*at = (uint32_t)start;
	*end = start + size;
	return 0;
}

static int
place_initrd(const struct kernel *k, const struct kernel_env *env, uint8_t *zp, uint64_t kernel_end, struct err *e)
{
	const uint8_t *h = k->image.data;
	uint64_t max = le16(h + VERSION) >= 0x0203 ? le32(h + INITRD_ADDR_MAX) : 0x37ffffff;
	uint64_t top = MIN(max + 1, (uint64_t)env->ram_below_4g), at;
	const struct kernel_file *f = &k->modules[0];

	if (!k->module_count)
		return 0;
	if (f->len > top || top - f->len < kernel_end)
		return err_set(e, ERR_INVALID,
			"the initrd (%zu MiB) does not fit beside the kernel into the machine's %u MiB", f->len >> 20,
			(unsigned)(env->ram_below_4g / MIB));
	at = (top - f->len) & ~(uint64_t)PAGE_MASK;
	if (at < kernel_end)
		return err_set(e, ERR_INVALID, "the initrd (%zu MiB) does not fit beside the kernel", f->len >> 20);
	put_le32(zp + RAMDISK_IMAGE, (uint32_t)at);
	put_le32(zp + RAMDISK_SIZE, (uint32_t)f->len);
	return put(env, at, f->data, f->len, "the initrd", e);
}

static void
put_e820(uint8_t *p, const struct e820 *m)
{
	put_le64(p, m->start);
	put_le64(p + 8, m->len);
	put_le32(p + 16, m->type);
}

static int
put_cmdline(const struct kernel *k, const struct kernel_env *env, size_t max, struct err *e)
{
	size_t len = strlen(k->append);

	if (len >= CMDLINE_MAX || len > max)
		return err_set(e, ERR_INVALID, "the kernel's command line has %zu characters; this kernel takes %zu",
			len, MIN(max, (size_t)CMDLINE_MAX - 1));
	return put(env, CMDLINE_AT, k->append, len + 1, "the command line", e);
}

static int
load_linux(const struct kernel *k, const struct kernel_env *env, struct x86_state *s, struct err *e)
{
	const uint8_t *h = k->image.data;
	size_t setup = linux_setup_size(&k->image), header = 0x202u + h[JUMP_LENGTH];
	uint8_t zp[PAGE_SIZE] = { 0 };
	uint64_t end = 0;
	uint32_t at = 0;

	if (place_linux(k, env, &at, &end, e) ||
		put_cmdline(k, env, le16(h + VERSION) >= 0x0206 ? le32(h + CMDLINE_SIZE) : 255, e))
		return -1;
	memcpy(zp + SETUP_SECTS, h + SETUP_SECTS, MIN(header, (size_t)0x290) - SETUP_SECTS);
	zp[TYPE_OF_LOADER] = 0xff;
	put_le32(zp + CODE32_START, at);
	put_le32(zp + CMD_LINE_PTR, CMDLINE_AT);
	put_le64(zp + ACPI_RSDP_ADDR, env->rsdp);
	zp[E820_ENTRIES] = (uint8_t)MIN(env->map_count, E820_MAX);
	for (int i = 0; i < zp[E820_ENTRIES]; i++)
		put_e820(zp + E820_TABLE + 20 * i, &env->map[i]);
	if (place_initrd(k, env, zp, end, e) || put(env, INFO_AT, zp, sizeof(zp), "the zero page", e) ||
		put(env, at, h + setup, k->image.len - setup, "the kernel", e) || enter_flat(env, s, at, e))
		return -1;
	s->gpr[RSI] = INFO_AT;
	return 0;
}

/* ---- ELF ---- */

enum { ELF_PT_LOAD = 1, ELF_PT_NOTE = 4, ELF_HEADERS_MAX = 128, XEN_NOTE_PHYS32_ENTRY = 18 };

struct elf_segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

static bool
is_elf(const struct kernel_file *f)
{
	/* i386 or x86-64, little-endian, 32- or 64-bit */
	return f->len >= 64 && !memcmp(f->data, "\177ELF", 4) && (f->data[4] == 1 || f->data[4] == 2) &&
	       f->data[5] == 1 && (le16(f->data + 18) == 3 || le16(f->data + 18) == 62);
}

static bool
is_elf64(const struct kernel_file *f)
{
	return f->data[4] == 2;
}

static uint64_t
elf_entry(const struct kernel_file *f)
{
	return is_elf64(f) ? le64(f->data + 24) : le32(f->data + 24);
}

/* How many program headers there are, all within the file; -1 and *e otherwise. */
static int
elf_segments(const struct kernel_file *f, struct err *e)
{
	uint64_t off = is_elf64(f) ? le64(f->data + 32) : le32(f->data + 28);
	unsigned size = le16(f->data + (is_elf64(f) ? 54 : 42)), count = le16(f->data + (is_elf64(f) ? 56 : 44));

	if (!count || count > ELF_HEADERS_MAX || size < (is_elf64(f) ? 56 : 32) || off > f->len ||
		(uint64_t)size * count > f->len - off)
		return err_set(e, ERR_FILE,
			"the ELF file's program headers (%u of %u bytes at 0x%" PRIx64 ") are not in its %zu bytes",
			count, size, off, f->len);
	return (int)count;
}

/* Number n of them; false when it names bytes that are not in the file. */
static bool
elf_segment(const struct kernel_file *f, int n, struct elf_segment *s)
{
	uint64_t off = is_elf64(f) ? le64(f->data + 32) : le32(f->data + 28);
	const uint8_t *p = f->data + off + (uint64_t)n * le16(f->data + (is_elf64(f) ? 54 : 42));

	if (is_elf64(f))
		*s = (struct elf_segment){ le32(p), le64(p + 8), le64(p + 16), le64(p + 24), le64(p + 32),
			le64(p + 40) };
	else
		*s = (struct elf_segment){ le32(p), le32(p + 4), le32(p + 8), le32(p + 12), le32(p + 16),
			le32(p + 20) };
	return s->offset <= f->len && s->filesz <= f->len - s->offset;
}

static int
clear(const struct kernel_env *env, uint64_t at, uint64_t len, struct err *e)
{
	static const uint8_t zeroes[PAGE_SIZE];

	while (len) {
		size_t n = (size_t)MIN(len, (uint64_t)sizeof(zeroes));

		if (put(env, at, zeroes, n, "the kernel's empty data", e))
			return -1;
		at += n;
		len -= n;
	}
	return 0;
}

/* All loadable segments to their physical addresses; *end: behind the last. */
static int
load_elf(const struct kernel_file *f, const struct kernel_env *env, uint64_t *end, struct err *e)
{
	int count = elf_segments(f, e);
	struct elf_segment s;

	*end = MIB;
	for (int i = 0; i < count; i++) {
		bool whole = elf_segment(f, i, &s);

		if (s.type != ELF_PT_LOAD || !s.memsz)
			continue;
		if (!whole || s.filesz > s.memsz)
			return err_set(e, ERR_FILE, "the ELF file is cut off: segment %d ends behind its %zu bytes", i,
				f->len);
		if (!loadable(env, s.paddr, s.memsz))
			return err_set(e, ERR_INVALID,
				"segment %d of the ELF file (0x%" PRIx64 " bytes at 0x%" PRIx64
				") is not within the memory for kernels (128 to 639 KiB, 1 to %u MiB)",
				i, s.memsz, s.paddr, (unsigned)(env->ram_below_4g / MIB));
		if (put(env, s.paddr, f->data + s.offset, (size_t)s.filesz, "the kernel", e) ||
			clear(env, s.paddr + s.filesz, s.memsz - s.filesz, e))
			return -1;
		*end = MAX(*end, s.paddr + s.memsz);
	}
	return count < 0 ? -1 : 0;
}

/* The PVH entry point in one segment of notes; false: there is none. */
static bool
pvh_note(const uint8_t *p, uint64_t len, uint32_t *entry)
{
	while (len >= 12) {
		uint64_t name = (le32(p) + 3ull) & ~3ull, desc = (le32(p + 4) + 3ull) & ~3ull;
		uint32_t type = le32(p + 8), desc_len = le32(p + 4);

		if (name > len - 12 || desc > len - 12 - name)
			return false;
		if (type == XEN_NOTE_PHYS32_ENTRY && le32(p) == 4 && !memcmp(p + 12, "Xen", 4) && desc_len >= 4) {
			*entry = le32(p + 12 + name);
			return true;
		}
		p += 12 + name + desc;
		len -= 12 + name + desc;
	}
	return false;
}

static bool
find_pvh(const struct kernel_file *f, uint32_t *entry)
{
	int count = elf_segments(f, NULL);
	struct elf_segment s;

	for (int i = 0; i < count; i++)
		if (elf_segment(f, i, &s) && s.type == ELF_PT_NOTE && pvh_note(f->data + s.offset, s.filesz, entry))
			return true;
	return false;
}

/* ---- modules and lists, shared by multiboot and PVH ---- */

struct placed {
	uint64_t at, len;
	uint32_t cmdline; /* guest address */
};

/* Put modules on pages of their own from `*end` on, and their command lines behind `lists`. */
static int
place_modules(const struct kernel *k, const struct kernel_env *env, uint64_t end, uint32_t lists, struct placed *out,
	struct err *e)
{
	for (int i = 0; i < k->module_count; i++) {
		const struct kernel_file *f = &k->modules[i];
		size_t len = strlen(f->cmdline) + 1;

		end = (end + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
		if (!high_memory(env, end, f->len) || len > LISTS_END - lists)
			return err_set(e, ERR_INVALID, "module %d (%zu bytes) does not fit into the machine's memory",
				i, f->len);
		if (put(env, end, f->data, f->len, "a module", e) ||
			put(env, lists, f->cmdline, len, "a module's line", e))
			return -1;
		out[i] = (struct placed){ end, f->len, lists };
		end += f->len;
		lists += (uint32_t)len;
	}
	return 0;
}

/* ---- multiboot ---- */

enum multiboot {
	MULTIBOOT_MAGIC = 0x1badb002,
	MULTIBOOT_LOADED = 0x2badb002,
	MULTIBOOT_SEARCH = 8192,
	MULTIBOOT_VIDEO = 1 << 2,
	MULTIBOOT_KNOWN = 7, /* page-aligned modules, memory information, video mode */
	MULTIBOOT_ADDRESSES = 1 << 16,
	INFO_MEMORY = 1 << 0,
	INFO_CMDLINE = 1 << 2,
	INFO_MODULES = 1 << 3,
	INFO_MAP = 1 << 6,
	INFO_LOADER = 1 << 9,
};

static bool
find_multiboot(const struct kernel_file *f, uint32_t *header)
{
	for (uint32_t at = 0; at + 12 <= f->len && at + 12 <= MULTIBOOT_SEARCH; at += 4) {
		const uint8_t *p = f->data + at;

		if (le32(p) == MULTIBOOT_MAGIC && le32(p) + le32(p + 4) + le32(p + 8) == 0) {
			*header = at;
			return true;
		}
	}
	return false;
}

static int
check_multiboot(const struct kernel *k, struct err *e)
{
	const struct kernel_file *f = &k->image;
	uint32_t flags = le32(f->data + k->header + 4);

	if (flags & 0xffff & ~MULTIBOOT_KNOWN)
		return err_set(e, ERR_UNSUPPORTED,
			"the multiboot kernel insists on features this loader does not have (flags 0x%x)", flags);
	if (flags & MULTIBOOT_ADDRESSES && f->len - k->header < 32)
		return err_set(e, ERR_FILE, "the multiboot kernel is cut off in its header");
	if (flags & MULTIBOOT_VIDEO && f->len - k->header >= 48 && le32(f->data + k->header + 32) == 0)
		return err_set(e, ERR_UNSUPPORTED,
			"the multiboot kernel asks for a graphics mode; there is none without firmware");
	if (!(flags & MULTIBOOT_ADDRESSES) && !is_elf(f))
		return err_set(
			e, ERR_FILE, "the multiboot kernel is neither an ELF file nor says where it is to be loaded");
	return 0;
}

/* The address fields of the header: a flat image. (Multiboot 3.1.3) */
static int
load_flat(const struct kernel *k, const struct kernel_env *env, uint64_t *end, struct err *e)
{
	const uint8_t *h = k->image.data + k->header;
	uint32_t header = le32(h + 12), load = le32(h + 16), load_end = le32(h + 20), bss_end = le32(h + 24);
	uint64_t from, len;

	if (load > header || header - load > k->header)
		return err_set(e, ERR_FILE, "the multiboot header's load address 0x%x is not in the file", load);
	from = k->header - (header - load);
	len = load_end ? (uint64_t)load_end - load : k->image.len - from;
	if (load_end && load_end < load)
		return err_set(e, ERR_FILE, "the multiboot header's load addresses 0x%x to 0x%x run backwards", load,
			load_end);
	if (len > k->image.len - from)
		return err_set(e, ERR_FILE,
			"the multiboot kernel is cut off: %" PRIu64 " bytes to load, %zu in the file", len,
			k->image.len);
	*end = MAX((uint64_t)load + len, (uint64_t)bss_end);
	if (!loadable(env, load, *end - load))
		return err_set(e, ERR_INVALID,
			"the multiboot kernel (0x%x to 0x%" PRIx64 ") is not within the machine's memory", load, *end);
	return put(env, load, k->image.data + from, (size_t)len, "the kernel", e) ||
			       clear(env, load + len, *end - load - len, e)
		       ? -1
		       : 0;
}

static int
load_multiboot(const struct kernel *k, const struct kernel_env *env, struct x86_state *s, struct err *e)
{
	const uint8_t *h = k->image.data + k->header;
	bool flat = le32(h + 4) & MULTIBOOT_ADDRESSES;
	uint8_t info[88] = { 0 }, map[24 * 32] = { 0 }, list[16 * PC_MODULES_MAX] = { 0 };
	struct placed placed[PC_MODULES_MAX];
	static const char loader[] = "lodge";
	uint32_t lists = LISTS_AT + sizeof(list), rows = (uint32_t)MIN(env->map_count, 32);
	uint64_t end;

	if (flat ? load_flat(k, env, &end, e) : load_elf(&k->image, env, &end, e))
		return -1;
	if (put(env, lists, loader, sizeof(loader), "the loader's name", e) ||
		place_modules(k, env, end, lists + sizeof(loader), placed, e) || put_cmdline(k, env, CMDLINE_MAX, e))
		return -1;
	for (int i = 0; i < k->module_count; i++) {
		put_le32(list + 16 * i, (uint32_t)placed[i].at);
		put_le32(list + 16 * i + 4, (uint32_t)(placed[i].at + placed[i].len));
		put_le32(list + 16 * i + 8, placed[i].cmdline);
	}
	for (uint32_t i = 0; i < rows; i++) {
		put_le32(map + 24 * i, 20);
		put_e820(map + 24 * i + 4, &env->map[i]);
	}
	put_le32(info, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER);
	put_le32(info + 4, 639);
	put_le32(info + 8, (uint32_t)((env->ram_below_4g - MIB) >> 10));
	put_le32(info + 16, CMDLINE_AT);
	put_le32(info + 20, (uint32_t)k->module_count);
	put_le32(info + 24, LISTS_AT);
	put_le32(info + 44, 24 * rows);
	put_le32(info + 48, MAP_AT);
	put_le32(info + 64, lists);
	if (put(env, INFO_AT, info, sizeof(info), "the multiboot information", e) ||
		put(env, MAP_AT, map, sizeof(map), "the memory map", e) ||
		put(env, LISTS_AT, list, sizeof(list), "the module list", e) ||
		enter_flat(env, s, flat ? le32(h + 28) : (uint32_t)elf_entry(&k->image), e))
		return -1;
	s->gpr[RAX] = MULTIBOOT_LOADED;
	s->gpr[RBX] = INFO_AT;
	return 0;
}

/* ---- PVH (Xen, public/arch-x86/hvm/start_info.h) ---- */

static int
load_pvh(const struct kernel *k, const struct kernel_env *env, struct x86_state *s, struct err *e)
{
	uint8_t info[56] = { 0 }, map[24 * 32] = { 0 }, list[32 * PC_MODULES_MAX] = { 0 };
	uint32_t rows = (uint32_t)MIN(env->map_count, 32);
	struct placed placed[PC_MODULES_MAX];
	uint64_t end;

	if (load_elf(&k->image, env, &end, e) || place_modules(k, env, end, LISTS_AT + sizeof(list), placed, e) ||
		put_cmdline(k, env, CMDLINE_MAX, e))
		return -1;
	for (int i = 0; i < k->module_count; i++) {
		put_le64(list + 32 * i, placed[i].at);
		put_le64(list + 32 * i + 8, placed[i].len);
		put_le64(list + 32 * i + 16, placed[i].cmdline);
	}
	for (uint32_t i = 0; i < rows; i++)
		put_e820(map + 24 * i, &env->map[i]);
	put_le32(info, 0x336ec578); /* "xEn3" with bit 31 */
	put_le32(info + 4, 1);
	put_le32(info + 12, (uint32_t)k->module_count);
	put_le64(info + 16, k->module_count ? LISTS_AT : 0);
	put_le64(info + 24, CMDLINE_AT);
	put_le64(info + 32, env->rsdp);
	put_le64(info + 40, MAP_AT);
	put_le32(info + 48, rows);
	if (put(env, INFO_AT, info, sizeof(info), "the start information", e) ||
		put(env, MAP_AT, map, sizeof(map), "the memory map", e) ||
		put(env, LISTS_AT, list, sizeof(list), "the module list", e) || enter_flat(env, s, k->header, e))
		return -1;
	s->gpr[RBX] = INFO_AT;
	return 0;
}

/* ---- from files to memory ---- */

int
kernel_identify(struct kernel *k, struct err *e)
{
	if (is_linux(&k->image)) {
		k->kind = KERNEL_LINUX;
		return check_linux(&k->image, e);
	}
	if (find_multiboot(&k->image, &k->header)) {
		k->kind = KERNEL_MULTIBOOT;
		return check_multiboot(k, e);
	}
	if (is_elf(&k->image) && find_pvh(&k->image, &k->header)) {
		k->kind = KERNEL_PVH;
		return 0;
	}
	if (is_elf(&k->image))
		return err_set(e, ERR_UNSUPPORTED, "the ELF file has neither a multiboot header nor a PVH entry point");
	return err_set(e, ERR_FILE, "the file is not a kernel: no Linux bzImage, multiboot or PVH image");
}

static int
read_one(struct kernel_file *f, const char *path, const char *cmdline, struct err *e)
{
	f->cmdline = xstrdup(cmdline);
	f->data = file_read(path, IMAGE_MAX, &f->len, e);
	return f->data ? 0 : -1;
}

/* "path arguments": the module's command line is all of it, as boot loaders do. */
static int
read_module(struct kernel *k, const char *text, struct err *e)
{
	char *path = xasprintf("%.*s", (int)strcspn(text, " "), text);
	int r = read_one(&k->modules[k->module_count], path, text, e);

	free(path);
	k->module_count++;
	return r;
}

struct kernel *
kernel_read(const struct pc_config *c, struct err *e)
{
	struct kernel *k = xcalloc(1, sizeof(*k));

	k->append = xstrdup(c->append ? c->append : "");
	if (read_one(&k->image, c->kernel, "", e))
		goto fail;
	if (c->initrd && c->initrd[0] && read_module(k, c->initrd, e))
		goto fail;
	for (int i = 0; i < c->module_count && k->module_count < PC_MODULES_MAX; i++)
		if (read_module(k, c->modules[i], e))
			goto fail;
	if (kernel_identify(k, e)) {
		err_wrap(e, "%s", c->kernel);
		goto fail;
	}
	if (k->kind == KERNEL_LINUX && c->module_count) {
		err_set(e, ERR_INVALID, "a Linux kernel takes an initrd, not modules");
		goto fail;
	}
	return k;
fail:
	kernel_free(k);
	return NULL;
}

void
kernel_free(struct kernel *k)
{
	if (!k)
		return;
	free(k->image.data);
	free(k->image.cmdline);
	for (int i = 0; i < k->module_count; i++) {
		free(k->modules[i].data);
		free(k->modules[i].cmdline);
	}
	free(k->append);
	free(k);
}

int
kernel_load(const struct kernel *k, const struct kernel_env *env, struct x86_state *s, struct err *e)
{
	if (env->ram_below_4g < 2 * MIB)
		return err_set(e, ERR_INVALID, "a kernel needs at least 2 MiB of memory");
	switch (k->kind) {
	case KERNEL_LINUX:
		return load_linux(k, env, s, e);
	case KERNEL_MULTIBOOT:
		return load_multiboot(k, env, s, e);
	case KERNEL_PVH:
		return load_pvh(k, env, s, e);
	}
	return -1;
}
