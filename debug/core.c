/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine as an ELF core file (System V ABI, ELF-64 object file format; the notes are those of Linux' kdump, so
 * that crash and readelf know them):
 *
 *	ELF header
 *	program headers   PT_NOTE, then one PT_LOAD a stretch of RAM or ROM: p_paddr is its guest physical address
 *	notes             "CORE"/NT_PRSTATUS for each CPU, "VMCOREINFO" as the guest's kernel wrote it, and "LODGE" with
 *	                  all registers as text
 *	memory            page aligned; pages of zeroes are holes in the file
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/str.h"
#include "debug/debug.h"
#include "debug/linux.h"

#define LOADS_MAX 64

static void
add_note(struct str *s, const char *name, uint32_t type, const void *data, size_t len)
{
	Elf64_Nhdr head = { .n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = (uint32_t)len, .n_type = type };
	static const char zero[4] = "";

	str_addn(s, (const char *)&head, sizeof(head));
	str_addn(s, name, head.n_namesz);
	str_addn(s, zero, -head.n_namesz & 3);
	str_addn(s, data, len);
	str_addn(s, zero, -len & 3);
}

/* struct elf_prstatus of x86-64: 336 bytes, the process number at 32, 27 registers of 8 bytes from 112. */
enum { STATUS_SIZE = 336, STATUS_PID = 32, STATUS_REGS = 112 };

static void
add_status(struct str *s, const struct vcpu *v)
{
	const struct x86_state *st = &v->state;
	const uint64_t *g = st->gpr;
	const uint64_t regs[] = { g[R15], g[R14], g[R13], g[R12], g[RBP], g[RBX], g[R11], g[R10], g[R9], g[R8], g[RAX],
		g[RCX], g[RDX], g[RSI], g[RDI], UINT64_MAX /* of a system call: none */, st->rip, st->seg[SEG_CS].sel,
		st->rflags, g[RSP], st->seg[SEG_SS].sel, st->seg[SEG_FS].base, st->seg[SEG_GS].base,
		st->seg[SEG_DS].sel, st->seg[SEG_ES].sel, st->seg[SEG_FS].sel, st->seg[SEG_GS].sel };
	uint8_t status[STATUS_SIZE] = { 0 };

	put_le32(status + STATUS_PID, (uint32_t)v->index + 1);
	memcpy(status + STATUS_REGS, regs, sizeof(regs));
	add_note(s, "CORE", NT_PRSTATUS, status, sizeof(status));
}

static void
add_registers(struct str *s, const struct debug_info *d)
{
	char text[2 * REG_BYTES_MAX + 3];
	struct str all = { 0 };

	for (int i = 0; i < d->c->count; i++)
		for (int n = 0; n < reg_count(d->regs); n++) {
			reg_text(d->regs, n, d->c->cpu[i], text);
			str_addf(&all, "cpu%d.%s=%s\n", i, reg_name(d->regs, n), text);
		}
	add_note(s, "LODGE", 0x4c47, all.s, all.len);
	str_free(&all);
}

static void
make_notes(const struct debug_info *d, struct str *s)
{
	char *info = linux_vmcoreinfo(d->c->m);

	for (int i = 0; i < d->c->count; i++)
		add_status(s, d->c->cpu[i]);
	if (info)
		add_note(s, "VMCOREINFO", 0, info, strlen(info));
	free(info);
	add_registers(s, d);
}

/* What a file has room to say of memory; RAM first of all. */
static int
list_memory(struct machine *m, struct mem_section *out)
{
	int n = 0;

	machine_lock(m);
	for (int i = 0; i < m->mem.count && n < LOADS_MAX; i++)
		if (m->mem.sections[i].kind != MEM_MMIO && m->mem.sections[i].ram)
			out[n++] = m->mem.sections[i];
	machine_unlock(m);
	return n;
}

static bool
is_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static int
write_memory(int fd, const struct mem_section *s, uint64_t at)
{
	const uint8_t *p = s->ram->host + s->ram_offset;
	uint64_t size = s->last - s->start + 1;

	for (uint64_t done = 0; done < size;) {
		size_t n = MIN(size - done, 65536u);
		ssize_t r = mem_untouched(s->ram->mem, p + done, n) || is_zero(p + done, n)
				    ? (ssize_t)n
				    : pwrite(fd, p + done, n, (off_t)(at + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -ENOSPC;
		done += (uint64_t)r;
	}
	return 0;
}

static uint64_t
round_page(uint64_t n)
{
	return (n + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
}

static int
write_core(int fd, const struct debug_info *d)
{
	struct mem_section *list = xcalloc(LOADS_MAX, sizeof(*list));
	Elf64_Phdr *ph = xcalloc(LOADS_MAX + 1, sizeof(*ph));
	int n = list_memory(d->c->m, list), r = 0;
	Elf64_Ehdr eh = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(eh),
		.e_ehsize = sizeof(eh),
		.e_phentsize = sizeof(*ph),
		.e_phnum = (uint16_t)(n + 1),
	};
	struct str out = { 0 }, notes = { 0 };
	uint64_t at;

	make_notes(d, &notes);
	ph[0] = (Elf64_Phdr){ .p_type = PT_NOTE,
		.p_offset = sizeof(eh) + (size_t)(n + 1) * sizeof(*ph),
		.p_filesz = notes.len,
		.p_align = 4 };
	at = round_page(ph[0].p_offset + notes.len);
	for (int i = 0; i < n; i++) {
		uint64_t size = list[i].last - list[i].start + 1;

		ph[i + 1] = (Elf64_Phdr){ .p_type = PT_LOAD,
			.p_flags = PF_R | PF_W | PF_X,
			.p_offset = at,
			.p_paddr = list[i].start,
			.p_filesz = size,
			.p_memsz = size };
		at = round_page(at + size);
	}
	str_addn(&out, (const char *)&eh, sizeof(eh));
	str_addn(&out, (const char *)ph, (size_t)(n + 1) * sizeof(*ph));
	str_addn(&out, notes.s, notes.len);
	if (write_full(fd, out.s, out.len) != (ssize_t)out.len || ftruncate(fd, (off_t)at))
		r = errno ? -errno : -ENOSPC;
	for (int i = 0; i < n && !r; i++)
		r = write_memory(fd, &list[i], ph[i + 1].p_offset);
	str_free(&out);
	str_free(&notes);
	free(ph);
	free(list);
	return r;
}

int
debug_core_write(const struct debug_info *d, const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "cannot make the core file %s", path);
	errno = 0;
	r = write_core(fd, d);
	if (close(fd) && !r)
		r = -errno;
	if (!r)
		return 0;
	unlink(path);
	return err_sys(e, ERR_FILE, r, "cannot write the core file %s", path);
}
