/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer medium: an ISO 9660 image that starts an installer of another medium with answers added.
 *
 *	BOOT.BIN	the loader (unattended_boot.c), an El Torito image without emulation
 *	SETUP.BIN	the kernel's real-mode part with its header filled in, the command line behind it
 *	KERNEL.BIN	the kernel's protected-mode part
 *	INITRD.IMG	the installer's initial RAM disk, and a cpio archive of ours behind it; the kernel unpacks both
 *	...		files that an installer looks for on a disc by its label
 *
 * libarchive writes the image. Where it put the files is then looked up in the root directory, and the loader's
 * parameters are written into its copy. The kernel's header is that of the Linux boot protocol
 * (Documentation/arch/x86/boot.rst); the kernel comes from a hostile medium and every number in it is checked.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "host/inv.h"
#include "host/unattended_boot.h"
#include "host/unattended_priv.h"

#define KERNEL_MAX (128u << 20)
#define INITRD_MAX (1u << 30)
#define SECTOR 2048
#define KERNEL_AT 0x100000u
#define MIB (1u << 20)

/* ---- bytes in memory ---- */

struct blob {
	uint8_t *data;
	size_t len, cap;
};

static la_ssize_t
blob_write(struct archive *a, void *opaque, const void *data, size_t n)
{
	struct blob *b = opaque;

	if (b->len + n > b->cap) {
		b->cap = (b->len + n) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	memcpy(b->data + b->len, data, n);
	b->len += n;
	return (la_ssize_t)n;
}

static void
describe(struct archive_entry *entry, const char *path, uint64_t size, int mode)
{
	archive_entry_clear(entry);
	archive_entry_set_pathname(entry, path);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, (mode_t)mode);
	archive_entry_set_size(entry, (la_int64_t)size);
	archive_entry_set_mtime(entry, 1, 0);
}

static bool
add_file(struct archive *a, struct archive_entry *entry, const struct answer_file *f)
{
	describe(entry, f->path, f->target ? 0 : f->len, f->mode);
	if (f->target) {
		archive_entry_set_filetype(entry, AE_IFLNK);
		archive_entry_set_symlink(entry, f->target);
	} else if (S_ISDIR(f->mode)) {
		archive_entry_set_filetype(entry, AE_IFDIR);
		archive_entry_set_perm(entry, (mode_t)f->mode & 07777);
	}
	return !archive_write_header(a, entry) &&
	       (f->target || archive_write_data(a, f->data, f->len) == (la_ssize_t)f->len);
}

/* An archive in memory; format and filter are set. Takes `a`. */
static void *
archive_files(struct archive *a, const struct answer_file *files, size_t count, size_t *len, struct err *e)
{
	struct archive_entry *entry = archive_entry_new();
	struct blob b = { 0 };
	bool ok;

	if (!entry)
		abort();
	archive_write_set_bytes_in_last_block(a, 1);
	ok = !archive_write_open(a, &b, NULL, blob_write, NULL);
	for (size_t i = 0; ok && i < count; i++)
		ok = add_file(a, entry, &files[i]);
	ok = ok && !archive_write_close(a);
	if (!ok) {
		err_set(e, ERR_FAILED, "The answers cannot be packed: %s", archive_error_string(a));
		free(b.data);
		b.data = NULL;
	}
	archive_entry_free(entry);
	archive_write_free(a);
	*len = b.len;
	return b.data;
}

void *
answer_tar(const struct answer_file *files, size_t count, size_t *len, struct err *e)
{
	struct archive *a = archive_write_new();

	if (!a)
		abort();
	archive_write_set_format_ustar(a);
	archive_write_add_filter_gzip(a);
	return archive_files(a, files, count, len, e);
}

static void *
cpio(const struct answer_file *files, size_t count, size_t *len, struct err *e)
{
	struct archive *a = archive_write_new();

	if (!a)
		abort();
	archive_write_set_format_cpio_newc(a);
	return archive_files(a, files, count, len, e);
}

/* ---- the kernel ---- */

struct kernel {
	uint8_t *file;
	size_t len, setup; /* of the file, of its real-mode part */
	uint32_t initrd_at, initrd_max;
	unsigned cmdline_max;
};

/* An unlinked file beside `path`. */
static int
scratch(const char *path, struct err *e)
{
	char *name = xasprintf("%s.XXXXXX", path);
	int fd = mkostemp(name, O_CLOEXEC);

	if (fd < 0)
		err_sys(e, ERR_FILE, errno, "A file beside '%s' cannot be made", path);
	else
		unlink(name);
	free(name);
	return fd;
}

static int
read_kernel_file(const struct answer_media *m, struct kernel *k, struct err *e)
{
	uint64_t size;
	int fd = scratch(m->out, e), r;

	if (fd < 0)
		return -1;
	r = iso_copy_file(m->iso, m->kernel, fd, KERNEL_MAX, &size, e);
	if (!r) {
		k->file = xcalloc(1, size + 1);
		k->len = (size_t)size;
		if (pread(fd, k->file, k->len, 0) != (ssize_t)k->len)
			r = err_sys(e, ERR_FILE, errno, "The kernel of '%s' cannot be read", m->iso);
	}
	close(fd);
	return r;
}

/* Where things go: the initial RAM disk behind what the kernel needs to unpack itself. */
static int
check_kernel(const struct answer_media *m, struct kernel *k, struct err *e)
{
	const uint8_t *f = k->file;
	uint64_t end;

	if (k->len < 1024 || memcmp(f + 0x202, "HdrS", 4) || le16(f + 0x206) < 0x0206)
		return err_set(e, ERR_UNSUPPORTED, "'%s' of '%s' is not a Linux kernel that can be started here",
			m->kernel, m->iso);
	k->setup = ((f[0x1f1] ? f[0x1f1] : 4u) + 1u) * 512u;
	if (k->setup >= k->len || k->setup > ANSWER_SETUP_STACK - 0x2000 || !(f[0x211] & 1))
		return err_set(
			e, ERR_UNSUPPORTED, "The header of the kernel '%s' of '%s' is broken", m->kernel, m->iso);
	end = KERNEL_AT + (uint64_t)k->len;
	if (le16(f + 0x206) >= 0x020a) {
		uint64_t preferred = le64(f + 0x258), needs = le32(f + 0x260);

		end = MAX(end, MAX(preferred, KERNEL_AT) + needs);
	}
	k->initrd_max = le32(f + 0x22c);
	k->cmdline_max = MIN(le32(f + 0x238), (uint32_t)(ANSWER_SETUP_SIZE - ANSWER_SETUP_STACK - 1));
	if (end > 0x30000000)
		return err_set(e, ERR_UNSUPPORTED, "The kernel '%s' of '%s' wants to be too high in memory", m->kernel,
			m->iso);
	k->initrd_at = (uint32_t)(end + MIB - 1) & ~(MIB - 1);
	if (strlen(m->cmdline) > k->cmdline_max)
		return err_set(e, ERR_INVALID,
			"The command line of the installer's kernel has %zu characters; %u are possible",
			strlen(m->cmdline), k->cmdline_max);
	return 0;
}

/* The real-mode part with what a loader has to fill in; ANSWER_SETUP_SIZE bytes, free() it. */
static uint8_t *
make_setup(const struct answer_media *m, const struct kernel *k, uint32_t initrd_len)
{
	uint8_t *s = xcalloc(1, ANSWER_SETUP_SIZE);

	memcpy(s, k->file, k->setup);
	s[0x210] = 0xff; /* a loader without a number */
	s[0x211] |= 0x80;
	put_le16(s + 0x224, ANSWER_SETUP_STACK - 0x200); /* end of the heap */
	put_le32(s + 0x218, k->initrd_at);
	put_le32(s + 0x21c, initrd_len);
	put_le32(s + 0x228, ANSWER_SETUP_AT + ANSWER_SETUP_STACK);
	memcpy(s + ANSWER_SETUP_STACK, m->cmdline, strlen(m->cmdline));
	return s;
}

/* ---- the image ---- */

static bool
add_fd(struct archive *a, struct archive_entry *entry, const char *name, int fd, uint64_t size)
{
	char buf[65536];
	uint64_t at = 0;

	describe(entry, name, size, 0400);
	if (archive_write_header(a, entry))
		return false;
	while (at < size) {
		size_t want = (size_t)MIN(size - at, (uint64_t)sizeof(buf));

		if (pread(fd, buf, want, (off_t)at) != (ssize_t)want ||
			archive_write_data(a, buf, want) != (la_ssize_t)want)
			return false;
		at += want;
	}
	return true;
}

struct pieces {
	uint8_t *setup;
	const struct kernel *kernel;
	int initrd;
	uint64_t initrd_len;
};

static bool
set_options(struct archive *a, const char *label)
{
	return !archive_write_set_format_iso9660(a) && !archive_write_add_filter_none(a) &&
	       !archive_write_set_format_option(a, "iso9660", "volume-id", label) &&
	       !archive_write_set_format_option(a, "iso9660", "boot", "boot.bin") &&
	       !archive_write_set_format_option(a, "iso9660", "boot-type", "no-emulation") &&
	       !archive_write_set_format_option(a, "iso9660", "boot-load-size", "4") &&
	       !archive_write_set_format_option(a, "iso9660", "rockridge", "useful") &&
	       !archive_write_set_format_option(a, "iso9660", "joliet", NULL) &&
	       !archive_write_set_format_option(a, "iso9660", "zisofs", NULL) &&
	       !archive_write_set_format_option(a, "iso9660", "pad", NULL);
}

static int
write_image(const struct answer_media *m, const struct pieces *p, int fd, struct err *e)
{
	struct archive *a = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	struct answer_file boot = { "boot.bin", answer_boot, ANSWER_BOOT_SIZE, 0400, NULL };
	struct answer_file setup = { "setup.bin", p->setup, ANSWER_SETUP_SIZE, 0400, NULL };
	struct answer_file kernel = { "kernel.bin", p->kernel->file + p->kernel->setup,
		p->kernel->len - p->kernel->setup, 0400, NULL };
	bool ok;

	if (!a || !entry)
		abort();
	ok = set_options(a, m->label) && !archive_write_open_fd(a, fd) && add_file(a, entry, &boot) &&
	     add_file(a, entry, &setup) && add_file(a, entry, &kernel) &&
	     add_fd(a, entry, "initrd.img", p->initrd, p->initrd_len);
	for (size_t i = 0; ok && i < m->on_disc_count; i++)
		ok = add_file(a, entry, &m->on_disc[i]);
	ok = ok && !archive_write_close(a);
	if (!ok)
		err_set(e, ERR_FILE, "The answer medium '%s' cannot be written: %s", m->out,
			archive_error_string(a) ? archive_error_string(a) : strerror(errno));
	archive_entry_free(entry);
	archive_write_free(a);
	return ok ? 0 : -1;
}

/* A file of the root directory of the image that was just written: where it starts and how long it is (ECMA-119 9.1).
 */
static bool
find_file(int fd, const char *name, uint32_t *lba, uint32_t *len)
{
	uint8_t pvd[SECTOR], dir[8 * SECTOR];
	uint32_t size;

	if (pread(fd, pvd, sizeof(pvd), 16 * SECTOR) != SECTOR)
		return false;
	size = MIN(le32(pvd + 156 + 10), (uint32_t)sizeof(dir));
	if (pread(fd, dir, size, (off_t)le32(pvd + 156 + 2) * SECTOR) != (ssize_t)size)
		return false;
	for (uint32_t at = 0; at + 34 <= size;) {
		const uint8_t *r = dir + at;

		if (!r[0]) { /* to the next sector */
			at = (at / SECTOR + 1) * SECTOR;
			continue;
		}
		if (at + r[0] > size || r[0] < 33u + r[32])
			return false;
		if (r[32] >= strlen(name) && !strncasecmp((const char *)r + 33, name, strlen(name)) &&
			(r[32] == strlen(name) || r[33 + strlen(name)] == ';')) {
			*lba = le32(r + 2);
			*len = le32(r + 10);
			return true;
		}
		at += r[0];
	}
	return false;
}

static int
set_params(const struct answer_media *m, const struct kernel *k, int fd, struct err *e)
{
	static const char *const names[] = { "SETUP.BIN", "KERNEL.BIN", "INITRD.IMG" };
	const uint32_t places[] = { ANSWER_SETUP_AT, KERNEL_AT, k->initrd_at };
	uint8_t raw[16 + 12 * ANSWER_BOOT_SEGMENTS] = "LODGEBOO";
	uint32_t lba, len;

	put_le32(raw + 8, m->disk_sum);
	put_le32(raw + 12, ARRAY_LEN(names));
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!find_file(fd, names[i], &lba, &len))
			return err_set(e, ERR_FAILED, "The answer medium has no '%s'", names[i]);
		put_le32(raw + 16 + 12 * i, lba);
		put_le32(raw + 20 + 12 * i, (len + SECTOR - 1) / SECTOR);
		put_le32(raw + 24 + 12 * i, places[i]);
	}
	if (!find_file(fd, "BOOT.BIN", &lba, &len) ||
		pwrite(fd, raw, sizeof(raw), (off_t)lba * SECTOR + ANSWER_BOOT_PARAMS) != (ssize_t)sizeof(raw) ||
		fsync(fd))
		return err_sys(e, ERR_FILE, errno, "The answer medium '%s' cannot be finished", m->out);
	return 0;
}

/* The installer's initial RAM disk and ours behind it, at a multiple of four. */
static int
make_initrd(const struct answer_media *m, int fd, uint64_t *len, struct err *e)
{
	size_t n;
	void *extra;
	int r;

	if (iso_copy_file(m->iso, m->initrd, fd, INITRD_MAX, len, e))
		return -1;
	extra = cpio(m->in_initrd, m->in_initrd_count, &n, e);
	if (!extra)
		return -1;
	*len = (*len + 3) & ~3ull;
	r = pwrite(fd, extra, n, (off_t)*len) == (ssize_t)n ? 0 : -1;
	if (r)
		err_sys(e, ERR_FILE, errno, "The answer medium '%s' cannot be written", m->out);
	*len += n;
	explicit_bzero(extra, n);
	free(extra);
	return r;
}

static int
write_whole(const struct answer_media *m, const struct kernel *k, int initrd, unsigned *memory, struct err *e)
{
	struct pieces p = { .kernel = k, .initrd = initrd };
	int fd, r;

	if (make_initrd(m, initrd, &p.initrd_len, e))
		return -1;
	if (p.initrd_len > k->initrd_max || k->initrd_at > k->initrd_max - p.initrd_len)
		return err_set(e, ERR_UNSUPPORTED, "The initial RAM disk '%s' of '%s' is too large", m->initrd, m->iso);
	*memory = (unsigned)((k->initrd_at + p.initrd_len) >> 20) + 32;
	fd = open(m->out, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "The answer medium '%s' cannot be made", m->out);
	p.setup = make_setup(m, k, (uint32_t)p.initrd_len);
	r = write_image(m, &p, fd, e) || set_params(m, k, fd, e) ? -1 : 0;
	free(p.setup);
	close(fd);
	if (r)
		unlink(m->out);
	return r;
}

int
answer_media_write(const struct answer_media *m, unsigned *memory, struct err *e)
{
	struct kernel k = { 0 };
	int initrd = -1, r = -1;

	if (!read_kernel_file(m, &k, e) && !check_kernel(m, &k, e) && (initrd = scratch(m->out, e)) >= 0)
		r = write_whole(m, &k, initrd, memory, e);
	if (initrd >= 0)
		close(initrd);
	free(k.file);
	return r;
}

uint32_t
answer_sum(const uint8_t sector[512])
{
	uint32_t sum = 0x811c9dc5;

	for (int i = 0; i < 512; i++)
		sum = (sum ^ sector[i]) * 0x01000193;
	return sum;
}
