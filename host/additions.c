/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The additions disc: where it is, what is on it, and putting it into a guest that has an agent already.
 *
 * From a disc only the root directory's VBoxLinuxAdditions.run is taken (ECMA-119: the volume descriptor in sector 16,
 * its root directory record at byte 156, records of a length in their first byte). The disc may be anybody's: all that
 * is read is bounded by its size.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/bytes.h"
#include "host/guest.h"

#define SECTOR 2048u
#define INSTALLER "VBoxLinuxAdditions.run"
#define INSTALLER_MAX (64u << 20)
#define PIECE 393216

char *
host_additions_path(void)
{
	static const char *const places[] = { "../VBoxGuestAdditions.iso", "../share/lodge/VBoxGuestAdditions.iso" };
	char self[4096], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, 0)] = 0;
	slash = strrchr(self, '/');
	for (size_t i = 0; slash && i < ARRAY_LEN(places); i++) {
		path = xasprintf("%.*s/%s", (int)(slash - self), self, places[i]);
		if (!access(path, R_OK)) {
			char *whole = realpath(path, NULL);

			free(path);
			return whole;
		}
		free(path);
	}
	path = xstrdup(LODGE_PREFIX "/share/lodge/VBoxGuestAdditions.iso");
	if (!access(path, R_OK))
		return path;
	free(path);
	return NULL;
}

/* ---- out of a disc ---- */

/* A record's name is "VBOXLINU.RUN;1", or (Rock Ridge: an entry NM behind it) the long one. */
static bool
named(const uint8_t *record, size_t len)
{
	size_t name = record[32];

	if (33 + name > len)
		return false;
	if (name >= 4 && !strncasecmp((const char *)record + 33, "VBOXLINUXADDITIONS", MIN(name, 18u)) && name > 18)
		return true;
	for (size_t at = 33 + name + !(name & 1); at + 5 <= len && record[at + 2] >= 4; at += record[at + 2]) {
		size_t n = record[at + 2];

		if (at + n > len)
			return false;
		if (record[at] == 'N' && record[at + 1] == 'M' && n == 5 + strlen(INSTALLER) &&
			!strncasecmp((const char *)record + at + 5, INSTALLER, n - 5))
			return true;
	}
	return false;
}

static bool
find_record(const uint8_t *dir, size_t size, uint32_t *sector, uint32_t *bytes)
{
	for (size_t at = 0; at + 34 <= size;) {
		size_t len = dir[at];

		if (!len) { /* none crosses a sector */
			at = (at / SECTOR + 1) * SECTOR;
			continue;
		}
		if (len < 34 || len > size - at)
			return false;
		if (named(dir + at, len)) {
			*sector = le32(dir + at + 2);
			*bytes = le32(dir + at + 10);
			return true;
		}
		at += len;
	}
	return false;
}

static void *
read_at(int fd, uint64_t at, size_t n)
{
	uint8_t *buf = xcalloc(1, n + 1);
	size_t done = 0;
	ssize_t k = 1;

	while (done < n && (k = pread(fd, buf + done, n - done, (off_t)(at + done))) > 0)
		done += (size_t)k;
	if (done == n)
		return buf;
	free(buf);
	return NULL;
}

/* The installer on the disc `path`; free() it. NULL and *e. */
static void *
read_installer(const char *path, size_t *size, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *head = NULL, *dir = NULL;
	uint32_t sector, bytes;
	void *out = NULL;

	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "Cannot open the additions disc '%s'", path);
		return NULL;
	}
	head = read_at(fd, 16 * SECTOR, SECTOR);
	if (head && !memcmp(head + 1, "CD001", 5) && le32(head + 166) <= 16 * SECTOR)
		dir = read_at(fd, (uint64_t)le32(head + 158) * SECTOR, le32(head + 166));
	if (dir && find_record(dir, le32(head + 166), &sector, &bytes) && bytes <= INSTALLER_MAX) {
		out = read_at(fd, (uint64_t)sector * SECTOR, bytes);
		*size = bytes;
	}
	if (!out)
		err_set(e, ERR_FILE, "'%s' is not an additions disc: there is no %s on it", path, INSTALLER);
	close(fd);
	free(head);
	free(dir);
	return out;
}

/* ---- into a guest ---- */

/* A script for root's shell, run by the agent itself: its exit status; *out is what it says. -1 and *e. */
static int
as_root(struct host_guest *g, const char *script, uint64_t timeout_ms, char **out, struct err *e)
{
	json_t *o = guest_ask(g, "guest-exec",
		json_pack("{s:s, s:[s,s], s:[s], s:b}", "path", "/bin/sh", "arg", "-c", script, "env", GUEST_PATH,
			"capture-output", 1),
		GUEST_ASK_MS, e);
	int64_t pid = json_integer_value(json_object_get(o, "pid"));
	uint64_t end = guest_now_ms() + timeout_ms;
	const char *text;
	int status;

	*out = NULL;
	while (o && !json_is_true(json_object_get(o, "exited"))) {
		if (json_object_get(o, "exited"))
			poll(NULL, 0, 100);
		json_decref(o);
		if (guest_now_ms() > end)
			return err_set(e, ERR_TIMEOUT, "The guest did not respond within time");
		o = guest_ask(g, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)pid), GUEST_ASK_MS, e);
	}
	if (!o)
		return -1;
	text = json_string_value(json_object_get(o, "out-data"));
	*out = xstrdup(text ? text : "");
	(*out)[base64_bytes(*out)] = 0;
	status = (int)json_integer_value(json_object_get(o, "exitcode"));
	json_decref(o);
	return status;
}

static int
upload(struct host_guest *g, const char *path, const char *bytes, size_t size, struct err *e)
{
	json_t *h =
		guest_ask(g, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", "r+"), GUEST_ASK_MS, e);
	int r = h ? 0 : -1;

	for (size_t at = 0; !r && at < size; at += PIECE) {
		size_t n = MIN(size - at, (size_t)PIECE);
		char *b64 = base64_text(bytes + at, n);
		json_t *o = guest_ask(
			g, "guest-file-write", json_pack("{s:O, s:s}", "handle", h, "buf-b64", b64), GUEST_ASK_MS, e);

		if (!o)
			r = -1;
		else if ((size_t)json_integer_value(json_object_get(o, "count")) != n)
			r = err_set(e, ERR_GUEST, "The guest has no room for the additions in /tmp");
		json_decref(o);
		free(b64);
	}
	if (h)
		json_decref(
			guest_ask(g, "guest-file-close", json_pack("{s:O}", "handle", h), GUEST_ASK_MS, r ? NULL : e));
	json_decref(h);
	return r;
}

/* *file: the installer's in the guest, which may outlive it there; NULL or to be freed. */
static int
install(struct host_guest *g, const char *bytes, size_t size, char **said, char **file, struct err *e)
{
	char *name = NULL, *script, *text = NULL;
	int r = as_root(g, "umask 077; mktemp /tmp/lodge-additions.XXXXXX", GUEST_ASK_MS, &name, e);

	if (name)
		name[strcspn(name, "\n")] = 0;
	if (!r && !str_starts(name, "/tmp/lodge-additions."))
		r = err_set(e, ERR_GUEST, "The guest cannot make a file in /tmp");
	if (!r)
		r = upload(g, name, bytes, size, e);
	script = xasprintf("sh '%s' --nox11 2>&1; r=$?; rm -f '%s'; exit $r", name ? name : "", name ? name : "");
	/* The installer has the new agent take the old one's place, which may be before its end is told. */
	if (!r)
		r = as_root(g, script, 120000, &text, e);
	if (r > 0)
		err_set(e, ERR_GUEST, "The installation in the guest failed: %.800s", text);
	/* The agent that was asked is gone, or the new one knows of no such program: whether it worked is seen next. */
	if (r < 0 && name && (e->code == ERR_IPRT || (e->code == ERR_GUEST && strstr(e->text, "does not exist"))))
		r = 0;
	*said = r ? NULL : xstrdup(text ? text : "");
	free(text);
	free(script);
	*file = name;
	return r ? -1 : 0;
}

/* Where stopping the old agent ended what it had started, nobody has removed the file. */
static void
remove_installer(struct host *h, const char *vm, const char *file)
{
	struct err unused;
	struct host_guest *g = file && str_starts(file, "/tmp/lodge-additions.") ? guest_connect(h, vm, &unused) : NULL;
	char *script, *said = NULL;

	if (!g)
		return;
	script = xasprintf("rm -f '%s'", file);
	as_root(g, script, GUEST_ASK_MS, &said, &unused);
	free(script);
	free(said);
	host_guest_close(g);
}

int
host_guest_update(struct host *h, const char *vm, const char *iso, uint64_t timeout_ms, char **said, struct err *e)
{
	struct host_guest *g = NULL;
	char *path = iso ? host_absolute_path(iso) : host_additions_path(), *version = NULL, *file = NULL;
	uint64_t end;
	size_t size = 0;
	void *bytes = NULL;
	bool ours = false;
	int r = -1;

	*said = NULL;
	if (!path)
		err_set(e, ERR_NOT_FOUND, "There is no additions disc here: name one with --source");
	else
		bytes = read_installer(path, &size, e);
	if (bytes)
		g = guest_connect(h, vm, e);
	if (g)
		r = install(g, bytes, size, said, &file, e);
	host_guest_close(g);
	free(bytes);
	free(path);
	end = guest_now_ms() + timeout_ms; /* of the agent's start: sending the installer takes what it takes */
	while (!r && !ours) {
		r = host_guest_agent(h, vm, 5000, &version, &ours, e);
		free(version);
		if (r && guest_now_ms() < end && (e->code == ERR_IPRT || e->code == ERR_TIMEOUT))
			r = 0;
		if (!r && !ours && guest_now_ms() >= end)
			r = err_set(e, ERR_TIMEOUT, "The additions are installed, but their agent does not answer");
		if (!r && !ours)
			poll(NULL, 0, 100);
	}
	remove_installer(h, vm, file);
	free(file);
	return r;
}
