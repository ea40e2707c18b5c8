/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What guests have mapped and open, as bytes in saved states. Little-endian:
 *
 *	u32 version 1
 *	u8[4] of each of 64 clients: service, UTF-8, symbolic links, 0
 *	u32 folders; each: u32 root, u32 maps, u8 length, name
 *	u32 handles; each: u64 id, u32 root, u32 client, u8 kind,
 *	    u8 flags (1 path only, 2 writable, 4 append), u32 listed, u64 device, u64 inode (0: stale),
 *	    u64 time of birth, ns (0: not known; inodes' numbers are used again), u16 length, path in the folder
 *
 * The bytes may come from a file that somebody changed: everything is checked. A handle whose path does not lead to the
 * same file any more, or that does not fit in, becomes stale: calls on it fail until the guest closes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "share/private.h"

#define VERSION 1
#define HANDLE_HEAD 48
#define PATH_ROOM 4096

/* ---- writing ---- */

struct out {
	uint8_t *p;
	size_t n;
};

static bool
room(const struct out *o, size_t n)
{
	return n <= SHARE_SAVED_SIZE - o->n;
}

static void
add32(struct out *o, uint32_t v)
{
	put_le32(o->p + o->n, v);
	o->n += 4;
}

static void
add64(struct out *o, uint64_t v)
{
	put_le64(o->p + o->n, v);
	o->n += 8;
}

static void
add_bytes(struct out *o, const void *p, size_t n)
{
	memcpy(o->p + o->n, p, n);
	o->n += n;
}

static void
save_folders(struct share *s, struct out *o)
{
	size_t at = o->n;
	uint32_t count = 0;

	add32(o, 0);
	for (uint32_t i = 0; i < SHARE_FOLDERS_MAX; i++) {
		struct folder *f = s->folders[i];
		uint8_t len;

		if (!f || !f->maps)
			continue;
		len = (uint8_t)strlen(f->name);
		add32(o, i);
		add32(o, f->maps);
		add_bytes(o, &len, 1);
		add_bytes(o, f->name, len);
		count++;
	}
	put_le32(o->p + at, count);
}

static ssize_t
path_of(int fd, char out[PATH_ROOM])
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, out, PATH_ROOM - 1);
	if (n >= 0)
		out[n] = 0;
	return n;
}

/* When the file was made, ns; 0: not known. */
static uint64_t
birth(int fd)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &x) || !(x.stx_mask & STATX_BTIME))
		return 0;
	return (uint64_t)x.stx_btime.tv_sec * 1000000000u + x.stx_btime.tv_nsec;
}

/* Where the handle's file is in its folder now: "" for the folder itself, NULL when it is not there. */
static const char *
relative_path(struct share *s, const struct handle *h, char path[PATH_ROOM])
{
	struct folder *f = s->folders[h->root];
	char root[PATH_ROOM];
	ssize_t n;

	if (h->fd < 0 || !f || f->fd < 0)
		return NULL;
	n = path_of(f->fd, root);
	if (n < 0 || path_of(h->fd, path) < 0 || strncmp(path, root, (size_t)n))
		return NULL;
	if (n == 1) /* "/" */
		return path + 1;
	return !path[n] ? "" : path[n] == '/' ? path + n + 1 : NULL;
}

static bool
save_handle(struct share *s, const struct handle *h, struct out *o)
{
	char room_for_path[PATH_ROOM];
	const char *path = relative_path(s, h, room_for_path);
	struct stat st = { 0 };
	uint8_t small[2] = { h->kind, (uint8_t)((h->path_only ? 1 : 0) | (h->writable ? 2 : 0) | (h->append ? 4 : 0)) };
	size_t len = path ? strlen(path) : 0;

	if (!path || fstat(h->fd, &st) || !room(o, HANDLE_HEAD + len)) {
		len = 0;
		st.st_ino = 0;
	}
	if (!room(o, HANDLE_HEAD))
		return false;
	add64(o, h->id);
	add32(o, h->root);
	add32(o, h->client);
	add_bytes(o, small, 2);
	add32(o, h->listed);
	add64(o, st.st_dev);
	add64(o, st.st_ino); /* 0: stale */
	add64(o, st.st_ino ? birth(h->fd) : 0);
	put_le16(o->p + o->n, (uint16_t)len);
	o->n += 2;
	if (len)
		add_bytes(o, path, len);
	return true;
}

void
share_save(struct share *s, uint8_t bytes[SHARE_SAVED_SIZE])
{
	struct out o = { bytes, 0 };
	uint32_t count = 0;
	size_t at;

	memset(bytes, 0, SHARE_SAVED_SIZE);
	pthread_mutex_lock(&s->lock);
	add32(&o, VERSION);
	for (int i = 0; i < CLIENTS_MAX; i++) {
		const struct client *cl = &s->clients[i];
		uint8_t b[4] = { cl->service, cl->utf8, cl->symlinks, 0 };

		add_bytes(&o, b, 4);
	}
	save_folders(s, &o);
	at = o.n;
	add32(&o, 0);
	for (int i = 0; i < s->handle_count; i++)
		if (s->handles[i] && save_handle(s, s->handles[i], &o))
			count++;
	put_le32(bytes + at, count);
	pthread_mutex_unlock(&s->lock);
}

/* ---- reading ---- */

struct in {
	const uint8_t *p;
	size_t left;
};

static const uint8_t *
take(struct in *in, size_t n)
{
	const uint8_t *p = in->p;

	if (n > in->left)
		return NULL;
	in->p += n;
	in->left -= n;
	return p;
}

/* The folder that is called so now gets the number it had; the guest of a folder that is gone keeps a place. */
static void
place_folder(struct share *s, uint32_t root, uint32_t maps, const char *name)
{
	struct folder *now = NULL, *there = s->folders[root];

	for (int i = 0; i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i] && !strcmp(s->folders[i]->name, name))
			now = s->folders[i];
	if (!now) {
		int empty = 0;

		while (empty < SHARE_FOLDERS_MAX && s->folders[empty])
			empty++;
		if (empty == SHARE_FOLDERS_MAX)
			return;
		now = xcalloc(1, sizeof(*now));
		now->share = s;
		now->fd = -1;
		now->name = xstrdup(name);
		now->mount_point = xstrdup("");
		now->queue_tail = &now->queue;
		pthread_mutex_init(&now->queue_lock, NULL);
		pthread_cond_init(&now->queued, NULL);
		now->root = (uint32_t)empty;
		s->folders[empty] = now;
		there = s->folders[root];
	}
	if (there != now) {
		s->folders[now->root] = there;
		if (there)
			there->root = now->root;
		s->folders[root] = now;
		now->root = root;
	}
	now->maps = maps;
}

static bool
load_folders(struct share *s, struct in *in)
{
	const uint8_t *p = take(in, 4);
	uint32_t count = p ? le32(p) : UINT32_MAX;

	if (count > SHARE_FOLDERS_MAX)
		return false;
	while (count--) {
		const uint8_t *head = take(in, 9), *name = head ? take(in, head[8]) : NULL;
		char text[256];

		if (!name || le32(head) >= SHARE_FOLDERS_MAX || !head[8] || memchr(name, 0, head[8]))
			return false;
		memcpy(text, name, head[8]);
		text[head[8]] = 0;
		place_folder(s, le32(head), le32(head + 4), text);
	}
	return true;
}

/* The same file as it was, or -1. */
static int
reopen(struct share *s, const struct handle *h, const char *path, const uint8_t *identity)
{
	struct folder *f = s->folders[h->root];
	int flags = h->path_only ? O_PATH : (h->writable ? O_RDWR : O_RDONLY) | (h->append ? O_APPEND : 0), fd;
	struct stat st;

	if (!le64(identity + 8) || !f || f->fd < 0 || (f->readonly && h->writable))
		return -1;
	flags |= h->kind == HANDLE_DIR ? O_DIRECTORY : 0;
	fd = folders_open_beneath(s, f->fd, *path ? path : ".", flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
	if (fd == -EACCES && h->writable)
		fd = folders_open_beneath(s, f->fd, path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return -1;
	if (!fstat(fd, &st) && st.st_dev == le64(identity) && st.st_ino == le64(identity + 8) &&
		birth(fd) == le64(identity + 16))
		return fd;
	close(fd);
	return -1;
}

/* A path of our own making: no "..", no NUL. */
static bool
path_ok(const uint8_t *p, size_t len)
{
	return len < PATH_ROOM && !memchr(p, 0, len) && !memmem(p, len, "..", 2);
}

static bool
load_handle(struct share *s, struct in *in)
{
	const uint8_t *p = take(in, HANDLE_HEAD), *name;
	char path[PATH_ROOM];
	struct handle *h;
	uint32_t place;
	uint16_t len;

	if (!p)
		return false;
	len = le16(p + 46);
	name = take(in, len);
	place = (uint32_t)le64(p) - 1;
	if (!name || place >= (uint32_t)s->handle_max || le32(p + 8) >= SHARE_FOLDERS_MAX ||
		le32(p + 12) >= CLIENTS_MAX || p[16] > HANDLE_DIR || s->handles[place])
		return false;
	h = xcalloc(1, sizeof(*h));
	*h = (struct handle){ .id = le64(p), .root = le32(p + 8), .client = le32(p + 12), .refs = 1, .kind = p[16] };
	h->path_only = p[17] & 1;
	h->writable = p[17] & 2;
	h->append = p[17] & 4;
	h->listed = le32(p + 18);
	pthread_mutex_init(&h->lock, NULL);
	h->fd = -1;
	if (path_ok(name, len)) {
		memcpy(path, name, len);
		path[len] = 0;
		h->fd = reopen(s, h, path, p + 22);
	}
	s->handles[place] = h;
	s->handle_count = MAX(s->handle_count, (int)place + 1);
	s->next_serial = MAX(s->next_serial, (uint32_t)(h->id >> 32));
	return true;
}

void
share_load(struct share *s, const uint8_t bytes[SHARE_SAVED_SIZE])
{
	struct in in = { bytes, SHARE_SAVED_SIZE };
	const uint8_t *p = take(&in, 4);
	uint32_t count;

	if (le32(p) != VERSION)
		return;
	share_reset(s);
	pthread_mutex_lock(&s->lock);
	for (int i = 0; i < CLIENTS_MAX; i++) {
		p = take(&in, 4);
		if (i && p[0] <= SERVICE_PROPS)
			s->clients[i] = (struct client){ .service = p[0], .utf8 = p[1], .symlinks = p[2] };
	}
	if (load_folders(s, &in)) {
		p = take(&in, 4);
		count = p ? le32(p) : 0;
		for (uint32_t i = 0; i < count && load_handle(s, &in); i++)
			;
	}
	pthread_mutex_unlock(&s->lock);
}
