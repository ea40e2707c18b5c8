/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on an installation medium. libarchive walks the file system; the few small files that distributions put there
 * to say who they are are kept, and which of the installers' kernels there are is noted. Everything read is hostile:
 * the number of files, the bytes kept of each and the length of every text are bounded, and texts are reduced to
 * printable characters before anybody sees them.
 *
 *	.disk/info		Debian, Ubuntu     Debian GNU/Linux 12.5.0 "Bookworm" - Official amd64 NETINST with firmware ...
 *	version.info		Debian's netboot   Debian version: 12 (bookworm)
 *	.alpine-release		Alpine             alpine-virt 3.18.4 230928
 *	.treeinfo		Fedora, RHEL kinds [general] family, version, arch, variant
 *	.discinfo		the same, older    time stamp, "Fedora 28", arch
 */
#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/unattended_priv.h"

#define ENTRIES_MAX 400000
#define KEEP_MAX 16384
#define DEPTH_MAX 512 /* length of a path that matters */

enum { DISK_INFO, VERSION_INFO, ALPINE_RELEASE, TREEINFO, DISCINFO, KEPT };
static const char *const kept_names[KEPT] = {
	[DISK_INFO] = ".disk/info",
	[VERSION_INFO] = "version.info",
	[ALPINE_RELEASE] = ".alpine-release",
	[TREEINFO] = ".treeinfo",
	[DISCINFO] = ".discinfo",
};

/* Kernels with their initial RAM disks, in the order of preference. */
static const struct {
	enum host_installer installer;
	const char *kernel, *initrd;
} kernels[] = {
	{ HOST_INSTALLER_DEBIAN, "install.amd/vmlinuz", "install.amd/initrd.gz" },
	{ HOST_INSTALLER_DEBIAN, "install.386/vmlinuz", "install.386/initrd.gz" },
	{ HOST_INSTALLER_DEBIAN, "linux", "initrd.gz" },
	{ HOST_INSTALLER_DEBIAN, "debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz" },
	{ HOST_INSTALLER_UBUNTU, "install/vmlinuz", "install/initrd.gz" },
	{ HOST_INSTALLER_UBUNTU, "casper/vmlinuz", "casper/initrd" },
	{ HOST_INSTALLER_UBUNTU, "casper/vmlinuz", "casper/initrd.lz" },
	{ HOST_INSTALLER_UBUNTU, "casper/vmlinuz.efi", "casper/initrd.lz" },
	{ HOST_INSTALLER_ALPINE, "boot/vmlinuz-virt", "boot/initramfs-virt" },
	{ HOST_INSTALLER_ALPINE, "boot/vmlinuz-lts", "boot/initramfs-lts" },
	{ HOST_INSTALLER_ALPINE, "boot/vmlinuz-vanilla", "boot/initramfs-vanilla" },
	{ HOST_INSTALLER_REDHAT, "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img" },
};

struct scan {
	char *kept[KEPT]; /* NUL-terminated */
	bool kernel[ARRAY_LEN(kernels)], initrd[ARRAY_LEN(kernels)];
	bool subiquity, packages;
};

/* ---- reading an image ---- */

static struct archive *
iso_open(const char *path, struct err *e)
{
	struct archive *a = archive_read_new();

	if (!a)
		abort();
	archive_read_support_format_iso9660(a);
	if (archive_read_open_filename(a, path, 65536)) {
		if (access(path, R_OK))
			err_sys(e, ERR_FILE, errno, "The ISO image '%s' cannot be read", path);
		else
			err_set(e, ERR_FILE, "'%s' is not an ISO image: %s", path,
				archive_error_string(a) ? archive_error_string(a) : "unknown format");
		archive_read_free(a);
		return NULL;
	}
	return a;
}

/* The next entry's path without "./"; "" for one without a usable name. NULL at the end; *failed when that is early. */
static const char *
iso_next(struct archive *a, struct archive_entry **entry, bool *failed)
{
	int r = archive_read_next_header(a, entry);
	const char *name;

	*failed = r < ARCHIVE_WARN && r != ARCHIVE_EOF;
	if (r < ARCHIVE_WARN || r == ARCHIVE_EOF)
		return NULL;
	name = archive_entry_pathname(*entry);
	if (!name || strlen(name) > DEPTH_MAX)
		return "";
	while (str_starts(name, "./"))
		name += 2;
	return name;
}

static int
broken(struct archive *a, const char *path, struct err *e)
{
	return err_set(e, ERR_FILE, "'%s' is not a whole ISO image: %s", path,
		archive_error_string(a) ? archive_error_string(a) : "it ends early");
}

static char *
keep(struct archive *a)
{
	char *text = xcalloc(1, KEEP_MAX + 1);
	la_ssize_t n = archive_read_data(a, text, KEEP_MAX);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void
look_at(struct scan *s, struct archive *a, struct archive_entry *entry, const char *name)
{
	if (!strcasecmp(name, "casper/install-sources.yaml"))
		s->subiquity = true;
	if (!strcasecmp(name, "pool") || !strcasecmp(name, "Packages") || !strcasecmp(name, "repodata") ||
		!strcasecmp(name, "BaseOS"))
		s->packages = true;
	if (archive_entry_filetype(entry) != AE_IFREG)
		return;
	for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
		s->kernel[i] |= !strcasecmp(name, kernels[i].kernel);
		s->initrd[i] |= !strcasecmp(name, kernels[i].initrd);
	}
	for (int i = 0; i < KEPT; i++)
		if (!s->kept[i] && !strcasecmp(name, kept_names[i]))
			s->kept[i] = keep(a);
}

static int
scan(const char *path, struct scan *s, struct err *e)
{
	struct archive *a = iso_open(path, e);
	struct archive_entry *entry;
	const char *name;
	bool failed = false;
	int n = 0, r = 0;

	if (!a)
		return -1;
	while (n++ < ENTRIES_MAX && (name = iso_next(a, &entry, &failed)))
		look_at(s, a, entry, name);
	if (failed || n == 1)
		r = broken(a, path, e);
	archive_read_free(a);
	return r;
}

int
iso_copy_file(const char *iso, const char *path, int fd, uint64_t max, uint64_t *size, struct err *e)
{
	struct archive *a = iso_open(iso, e);
	struct archive_entry *entry;
	const char *name = NULL;
	bool failed = false;
	char buf[65536];
	la_ssize_t got = -1;
	int n = 0;

	if (!a)
		return -1;
	*size = 0;
	while (n++ < ENTRIES_MAX && (name = iso_next(a, &entry, &failed)))
		if (!strcasecmp(name, path) && archive_entry_filetype(entry) == AE_IFREG)
			break;
	while (name && (got = archive_read_data(a, buf, sizeof(buf))) > 0) {
		*size += (uint64_t)got;
		if (*size > max) {
			err_set(e, ERR_FILE, "The file '%s' of '%s' is larger than %llu MB", path, iso,
				(unsigned long long)max >> 20);
			break;
		}
		if (write_full(fd, buf, (size_t)got) != got) {
			err_sys(e, ERR_FILE, errno, "The file '%s' of '%s' cannot be copied", path, iso);
			break;
		}
	}
	if (!name)
		err_set(e, ERR_FILE, "There is no file '%s' in '%s'", path, iso);
	else if (got < 0)
		broken(a, iso, e);
	archive_read_free(a);
	return got == 0 ? 0 : -1;
}

/* ---- what the texts say ---- */

/* Copy [from, end) reduced to printable ASCII without quotes of shells. */
static void
take(char *out, size_t size, const char *from, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n && from[i] && k + 1 < size; i++)
		if (from[i] >= ' ' && from[i] < 127)
			out[k++] = from[i];
	while (k && out[k - 1] == ' ')
		k--;
	out[k] = 0;
}

static void
take_line(char *out, size_t size, const char *from)
{
	take(out, size, from, strcspn(from, "\r\n"));
}

/* "12.5.0" -> 12 */
static unsigned
major(const char *version)
{
	return (unsigned)MIN(strtoul(version, NULL, 10), 9999ul);
}

/* FAMILY, the release's number and "_64", whichever of those a type of machine exists for. */
static void
set_ostype(struct host_iso *o, const char *family, unsigned release, const char *suffix, bool is_64)
{
	const char *wide = is_64 ? "_64" : "";

	snprintf(o->ostype, sizeof(o->ostype), "%s%u%s%s", family, release, suffix, wide);
	if (!release || !host_ostype_find(o->ostype))
		snprintf(o->ostype, sizeof(o->ostype), "%s%s", family, wide);
}

/* NAME VERSION "CODENAME" - ..., the line of .disk/info. */
static void
split_disk_info(const char *text, struct host_iso *o)
{
	const char *digit = text, *dash;
	size_t n = strcspn(text, "\r\n");

	while (digit < text + n && !(isdigit((unsigned char)*digit) && digit > text && digit[-1] == ' '))
		digit++;
	take(o->flavor, sizeof(o->flavor), text, (size_t)(digit - text));
	dash = strstr(digit, " - ");
	if (!dash || dash > text + n)
		dash = text + n;
	take(o->version, sizeof(o->version), digit, (size_t)(dash - digit));
}

static bool
line_has(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at && (size_t)(at - text) < strcspn(text, "\r\n");
}

static void
detect_debian(const struct scan *s, struct host_iso *o)
{
	const char *info = s->kept[DISK_INFO], *version = s->kept[VERSION_INFO];
	bool is_32 = s->kernel[1] && !s->kernel[0];

	o->installer = HOST_INSTALLER_DEBIAN;
	if (info && str_starts(info, "Debian")) {
		split_disk_info(info, o);
		is_32 = line_has(info, " i386 ");
	} else if (version) {
		const char *at = strstr(version, "Debian version:");

		strcpy(o->flavor, "Debian GNU/Linux");
		if (at) {
			at += strlen("Debian version:");
			take_line(o->version, sizeof(o->version), at + strspn(at, " \t"));
		}
	}
	set_ostype(o, "Debian", major(o->version), "", !is_32);
}

static void
detect_ubuntu(const struct scan *s, struct host_iso *o)
{
	const char *info = s->kept[DISK_INFO];
	bool is_32 = line_has(info, " i386 "), lts;
	unsigned release;

	split_disk_info(info, o);
	release = major(o->version);
	lts = strstr(o->version, "LTS") != NULL;
	o->installer = s->subiquity || (release >= 20 && strstr(o->flavor, "Server")) ? HOST_INSTALLER_AUTOINSTALL
										      : HOST_INSTALLER_UBUNTU;
	set_ostype(o, "Ubuntu", release, lts ? "_LTS" : "", !is_32);
}

static void
detect_alpine(const struct scan *s, struct host_iso *o)
{
	const char *text = s->kept[ALPINE_RELEASE], *space = strchr(text, ' ');

	o->installer = HOST_INSTALLER_ALPINE;
	take(o->flavor, sizeof(o->flavor), text, strcspn(text, " \r\n"));
	if (space)
		take(o->version, sizeof(o->version), space + 1, strcspn(space + 1, " \r\n"));
	strcpy(o->ostype, "Linux26_64");
	o->packages = true;
}

/* The value of `key` in [general] of .treeinfo. */
static void
tree_value(const char *text, const char *key, char *out, size_t size)
{
	const char *p = strstr(text, "[general]");
	size_t n = strlen(key);

	out[0] = 0;
	while (p && (p = strchr(p, '\n'))) {
		p++;
		if (*p == '[')
			return;
		if (!strncmp(p, key, n) && (p[n] == ' ' || p[n] == '=')) {
			p += n + strspn(p + n, " =");
			take_line(out, size, p);
			return;
		}
	}
}

static void
detect_redhat(const struct scan *s, struct host_iso *o)
{
	const char *tree = s->kept[TREEINFO], *disc = s->kept[DISCINFO];
	char arch[16] = "x86_64";
	const char *family = "RedHat";

	o->installer = HOST_INSTALLER_REDHAT;
	if (tree) {
		tree_value(tree, "family", o->flavor, sizeof(o->flavor));
		tree_value(tree, "version", o->version, sizeof(o->version));
		tree_value(tree, "arch", arch, sizeof(arch));
	} else {
		const char *name = disc + strcspn(disc, "\n") + (strchr(disc, '\n') != NULL);
		const char *digit = name + strcspn(name, "0123456789\r\n");
		const char *third = name + strcspn(name, "\n") + (strchr(name, '\n') != NULL);

		take(o->flavor, sizeof(o->flavor), name, (size_t)(digit - name));
		take(o->version, sizeof(o->version), digit, strcspn(digit, " \r\n"));
		take_line(arch, sizeof(arch), third);
	}
	if (strstr(o->flavor, "Fedora"))
		family = "Fedora";
	else if (strstr(o->flavor, "Oracle"))
		family = "Oracle";
	set_ostype(o, family, strcmp(family, "Fedora") ? major(o->version) : 0, "", !strcmp(arch, "x86_64"));
}

static enum host_installer
kernel_family(enum host_installer i)
{
	return i == HOST_INSTALLER_AUTOINSTALL ? HOST_INSTALLER_UBUNTU : i;
}

static void
choose_kernel(const struct scan *s, struct host_iso *o)
{
	for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
		if (kernels[i].installer != kernel_family(o->installer) || !s->kernel[i] || !s->initrd[i])
			continue;
		snprintf(o->kernel, sizeof(o->kernel), "%s", kernels[i].kernel);
		snprintf(o->initrd, sizeof(o->initrd), "%s", kernels[i].initrd);
		return;
	}
	o->installer = HOST_INSTALLER_NONE;
}

static bool
is_ubuntu(const char *info)
{
	static const char *const names[] = { "Ubuntu", "Kubuntu", "Xubuntu", "Lubuntu", "Edubuntu" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_starts(info, names[i]))
			return true;
	return false;
}

static void
detect(const struct scan *s, struct host_iso *o)
{
	const char *info = s->kept[DISK_INFO];

	o->packages = s->packages;
	strcpy(o->languages, "en-US");
	if (info && is_ubuntu(info))
		detect_ubuntu(s, o);
	else if ((info && str_starts(info, "Debian")) || s->kept[VERSION_INFO])
		detect_debian(s, o);
	else if (s->kept[ALPINE_RELEASE])
		detect_alpine(s, o);
	else if (s->kept[TREEINFO] || s->kept[DISCINFO])
		detect_redhat(s, o);
	else
		o->languages[0] = 0;
	choose_kernel(s, o);
}

/* The primary volume descriptor's volume identifier (ECMA-119 8.4.7). */
static void
read_label(const char *path, char out[33])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char id[32] = "";

	if (fd >= 0 && pread(fd, id, sizeof(id), 16 * 2048 + 40) == (ssize_t)sizeof(id))
		take(out, 33, id, sizeof(id));
	if (fd >= 0)
		close(fd);
}

int
host_iso_detect(const char *path, struct host_iso *out, struct err *e)
{
	struct scan s = { 0 };
	int r = scan(path, &s, e);

	memset(out, 0, sizeof(*out));
	if (!r) {
		read_label(path, out->label);
		detect(&s, out);
	}
	for (int i = 0; i < KEPT; i++)
		free(s.kept[i]);
	return r;
}
