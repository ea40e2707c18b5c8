/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "VBoxSharedFolders": files for guests.
 *
 *	function            parameters (4, 8: numbers, p: buffer, > out, <> both)
 *	1  query mappings   4 flags, 4<> how many, p> {u32 status, u32 root} each
 *	2  query map name   4 root, p> string
 *	3  create           4 root, p path, p<> createparms: open, create or look up
 *	4  close            4 root, 8 handle
 *	5  read             4 root, 8 handle, 8 offset, 4<> bytes, p> data
 *	6  write            4 root, 8 handle, 8 offset, 4<> bytes, p data
 *	7  lock             4 root, 8 handle, 8 offset, 8 length, 4 flags
 *	8  list             4 root, 8 handle, 4 flags, 4<> bytes, p pattern, p> dirinfo each, 4> resume point, 4> entries
 *	9  information      4 root, 8 handle, 4 flags, 4<> bytes, p<> fsobjinfo or volinfo
 *	11 remove           4 root, p path, 4 flags
 *	13 unmap            4 root
 *	14 rename           4 root, p from, p to, 4 flags
 *	15 flush            4 root, 8 handle
 *	16 set UTF-8        -
 *	17 map              p name, 4> root, 4 delimiter, 4 case sensitive
 *	18 readlink         4 root, p path, p> target
 *	19 symlink          4 root, p new path, p target, p> fsobjinfo
 *	20 set symlinks     -: this client wants to see symbolic links, and follows them itself
 *	21 query map info   4 root, p> name, p> mount point, 8> flags, 4<> version
 *
 * Structures (little-endian, packed; strings are {u16 size, u16 length, bytes, NUL}):
 *	fsobjinfo    0 i64 size, 8 i64 allocated, 16 i64 atime, 24 mtime, 32 ctime, 40 birth (ns since 1970), 48 u32 mode,
 *	             52 u32 additional: 2 Unix, 56 u32 uid, 60 gid, 64 links, 68 device, 72 u64 inode, 80 u32 flags,
 *	             84 generation, 88 rdev; 92 bytes
 *	createparms  0 u64 handle, 8 u32 result, 12 u32 flags, 16 fsobjinfo; 108 bytes
 *	dirinfo      0 fsobjinfo, 92 u16 short name length, 94 u16[14] short name, 122 string
 *	volinfo      0 i64 total, 8 i64 available, 16 u32 unit, 20 u32 sector, 24 u32 serial, 28 u32 longest name,
 *	             32 u8 remote, case sensitive, read-only, unicode, compressed, file compression; 40 bytes
 *
 * Guests stay inside. A path is taken apart: ".." is refused; what leads to the last name is opened with
 * openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS), so that no symbolic link, ours or the guest's, and no rename under
 * way leads out, and the last name is used with that directory's descriptor and never followed when something is made,
 * moved or removed. What is opened has to be a file or a directory. The sticky, setuid and setgid bits stay as the host
 * has them: a guest cannot make programs that run as somebody else here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "share/private.h"

#define PATH_LEN_MAX 4095
#define INFO_SIZE 92
#define CREATE_SIZE 108
#define VOLUME_SIZE 40
#define DIRINFO_NAME 126
#define IO_PIECE (1u << 20)

/* createparms' flags and results */
enum {
	CF_LOOKUP = 1,
	CF_DIRECTORY = 4,
	CF_EXISTS_MASK = 0xf0,
	CF_FAIL_IF_EXISTS = 0x10,
	CF_REPLACE_IF_EXISTS = 0x20,
	CF_OVERWRITE_IF_EXISTS = 0x30,
	CF_NEW_MASK = 0xf00,
	CF_FAIL_IF_NEW = 0x100,
	CF_READ = 0x1000,
	CF_WRITE = 0x2000,
	CF_APPEND = 0x40000,
};
enum { NO_RESULT, PATH_MISSING, FILE_MISSING, FILE_IS_THERE, FILE_MADE, FILE_REPLACED };

enum { INFO_SET = 1, INFO_WHAT_SIZE = 4, INFO_WHAT_FILE = 8, INFO_WHAT_VOLUME = 16 };
enum { MAP_NEW = 1, MF_UTF8 = 1, MF_AUTOMOUNT = 2 };
enum { MIQF_WRITABLE = 1, MIQF_AUTOMOUNT = 2 };
enum { LOCK_CANCEL, LOCK_SHARED, LOCK_EXCLUSIVE, LOCK_MODE = 3, LOCK_WAIT = 4, LOCK_ENTIRE = 8 };

/* What a function works with. */
struct job {
	struct share *s;
	struct folder *f;
	const struct client *cl;
	struct share_call *c;
};

/* ---- paths ---- */

int
folders_open_beneath(struct share *s, int dir, const char *path, int flags, int mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.mode = (uint64_t)mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	int fd = -1;

	/* EAGAIN: something was renamed while ".." of a symbolic link was followed. */
	for (int i = 0; i < 16; i++) {
		fd = s->o.openat2 ? s->o.openat2(dir, path, &how, sizeof(how))
				  : (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd >= 0 ? fd : -errno;
}

int
folders_probe(struct share *s, int fd)
{
	int r = folders_open_beneath(s, fd, ".", O_PATH | O_DIRECTORY, 0);

	if (r < 0)
		return -r;
	close(r);
	return 0;
}

/* EXDEV is how openat2() says that a path leads out. */
static int
path_status(int errnum)
{
	return errnum == EXDEV ? SHARE_ACCESS_DENIED : share_status(errnum);
}

static int
refused_part(const char *p, size_t n)
{
	if (n > 255)
		return SHARE_FILENAME_TOO_LONG;
	return n == 2 && p[0] == '.' && p[1] == '.' ? SHARE_INVALID_NAME : SHARE_OK;
}

/* A path parameter as "a/b/c", "" for the folder itself. */
static int
get_path(const struct share_parm *p, char out[PATH_LEN_MAX + 1])
{
	size_t size = p->size, len, n = 0;
	const char *text, *end;

	if (size < 4)
		return SHARE_INVALID_PARAMETER;
	len = le16(p->data + 2);
	if (len > size - 4)
		return SHARE_INVALID_PARAMETER;
	if (len > PATH_LEN_MAX)
		return SHARE_FILENAME_TOO_LONG;
	text = (const char *)p->data + 4;
	if (memchr(text, 0, len))
		return SHARE_INVALID_NAME;
	for (end = text + len; text < end;) {
		const char *slash = memchr(text, '/', (size_t)(end - text));
		size_t part = (size_t)((slash ? slash : end) - text);
		int r = refused_part(text, part);

		if (r)
			return r;
		if (part && !(part == 1 && text[0] == '.')) {
			if (n)
				out[n++] = '/';
			memcpy(out + n, text, part);
			n += part;
		}
		text += part + 1;
	}
	out[n] = 0;
	return SHARE_OK;
}

/* The directory of the last name of `path`, and that name; to be closed. -errno. */
static int
open_parent(const struct job *j, char *path, const char **name)
{
	char *slash = strrchr(path, '/');
	int fd;

	if (!*path)
		return -EBUSY; /* the folder itself */
	if (!slash) {
		*name = path;
		return folders_open_beneath(j->s, j->f->fd, ".", O_PATH | O_DIRECTORY, 0);
	}
	*slash = 0;
	*name = slash + 1;
	fd = folders_open_beneath(j->s, j->f->fd, path, O_PATH | O_DIRECTORY, 0);
	*slash = '/';
	return fd;
}

/* get_path() and open_parent(): a status, and at SHARE_OK *dir, to be closed, and the last name, within `path`. */
static int
open_named(const struct job *j, const struct share_parm *p, char path[PATH_LEN_MAX + 1], const char **name, int *dir)
{
	int r = get_path(p, path);

	if (r)
		return r;
	*dir = open_parent(j, path, name);
	return *dir < 0 ? path_status(-*dir) : SHARE_OK;
}

static int
open_path(const struct job *j, const char *path, int flags)
{
	return folders_open_beneath(j->s, j->f->fd, *path ? path : ".", flags | (j->cl->symlinks ? O_NOFOLLOW : 0), 0);
}

/* What `path` is, without opening it. 0 or -errno. */
static int
stat_path(const struct job *j, const char *path, struct stat *st)
{
	int fd = open_path(j, path, O_PATH), r;

	if (fd < 0)
		return fd;
	r = fstat(fd, st) ? -errno : 0;
	close(fd);
	return r;
}

/* ---- structures ---- */

static int64_t
ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static void
put_info(uint8_t *p, const struct stat *st)
{
	put_le64(p, (uint64_t)st->st_size);
	put_le64(p + 8, (uint64_t)st->st_blocks * 512);
	put_le64(p + 16, (uint64_t)ns_of(&st->st_atim));
	put_le64(p + 24, (uint64_t)ns_of(&st->st_mtim));
	put_le64(p + 32, (uint64_t)ns_of(&st->st_ctim));
	put_le64(p + 40, (uint64_t)ns_of(&st->st_ctim));
	put_le32(p + 48, st->st_mode);
	put_le32(p + 52, 2);
	put_le32(p + 56, st->st_uid);
	put_le32(p + 60, st->st_gid);
	put_le32(p + 64, (uint32_t)st->st_nlink);
	put_le32(p + 68, (uint32_t)st->st_dev);
	put_le64(p + 72, st->st_ino);
	put_le32(p + 80, 0);
	put_le32(p + 84, 0);
	put_le32(p + 88, (uint32_t)st->st_rdev);
}

/* UTF-8 as UTF-16; what is not UTF-8 becomes U+FFFD. Units written, at most `max`. */
static size_t
to_utf16(const char *text, uint8_t *out, size_t max)
{
	size_t units = 0;

	for (size_t left = strlen(text); left;) {
		size_t n = 1;
		uint32_t c = 0xfffd;

		while (n <= 4 && n <= left && !share_is_utf8(text, n))
			n++;
		if (n <= 4 && n <= left) {
			c = n == 1 ? (uint8_t)text[0] : (uint8_t)text[0] & (0x7fu >> n);
			for (size_t i = 1; i < n; i++)
				c = c << 6 | ((uint8_t)text[i] & 63);
		} else {
			n = 1;
		}
		if (units + (c > 0xffff ? 2 : 1) > max)
			break;
		if (c > 0xffff) {
			put_le16(out + 2 * units++, (uint16_t)(0xd800 + ((c - 0x10000) >> 10)));
			c = 0xdc00 + ((c - 0x10000) & 0x3ff);
		}
		put_le16(out + 2 * units++, (uint16_t)c);
		text += n;
		left -= n;
	}
	return units;
}

/* A string in the client's encoding into a buffer whose header says how much room there is. */
static int
put_string(struct share_parm *p, const char *text, bool utf8)
{
	uint8_t wide[2 * SHARE_NAME_MAX + 2];
	size_t n = utf8 ? strlen(text) : 2 * to_utf16(text, wide, SHARE_NAME_MAX), end = utf8 ? 1 : 2, room;

	if (p->size < 4)
		return SHARE_INVALID_PARAMETER;
	room = MIN(le16(p->data), p->size - 4u);
	if (n + end > room)
		return SHARE_BUFFER_OVERFLOW;
	put_le16(p->data + 2, (uint16_t)n);
	memcpy(p->data + 4, utf8 ? (const void *)text : wide, n);
	memset(p->data + 4 + n, 0, end);
	return SHARE_OK;
}

/* ---- functions without files ---- */

static struct folder *
folder_of(struct share *s, const struct share_parm *root)
{
	return root->value < SHARE_FOLDERS_MAX ? s->folders[root->value] : NULL;
}

/* Does the name in a string parameter, in the client's encoding, say `name`? */
static bool
names(const struct share_parm *p, bool utf8, const char *name)
{
	uint8_t wide[2 * SHARE_NAME_MAX];
	size_t len, n;

	if (p->size < 4)
		return false;
	len = MIN(le16(p->data + 2), p->size - 4u);
	n = utf8 ? strlen(name) : 2 * to_utf16(name, wide, SHARE_NAME_MAX);
	return len == n && !memcmp(p->data + 4, utf8 ? (const void *)name : wide, n);
}

static int
map(struct share *s, struct client *cl, struct share_call *c)
{
	for (int i = 0; i < SHARE_FOLDERS_MAX; i++) {
		struct folder *f = s->folders[i];

		if (!f || f->fd < 0 || !names(&c->parm[0], cl->utf8, f->name))
			continue;
		f->maps++;
		c->parm[1].value = f->root;
		return SHARE_OK;
	}
	return SHARE_FILE_NOT_FOUND;
}

static int
unmap(struct share *s, struct share_call *c)
{
	struct folder *f = folder_of(s, &c->parm[0]);

	if (!f || !f->maps)
		return SHARE_FILE_NOT_FOUND;
	f->maps--;
	return SHARE_OK;
}

static int
query_mappings(struct share *s, struct share_call *c)
{
	uint32_t room = (uint32_t)MIN(c->parm[1].value, c->parm[2].size / 8u), n = 0;

	for (int i = 0; i < SHARE_FOLDERS_MAX; i++) {
		struct folder *f = s->folders[i];

		if (!f || f->fd < 0 || (c->parm[0].value & MF_AUTOMOUNT && !f->automount))
			continue;
		if (n < room) {
			put_le32(c->parm[2].data + 8 * n, MAP_NEW);
			put_le32(c->parm[2].data + 8 * n + 4, f->root);
		}
		n++;
	}
	c->parm[1].value = n;
	return n > room ? SHARE_BUFFER_OVERFLOW : SHARE_OK;
}

static int
query_name(struct share *s, struct client *cl, struct share_call *c)
{
	struct folder *f = folder_of(s, &c->parm[0]);

	return f && f->fd >= 0 ? put_string(&c->parm[1], f->name, cl->utf8) : SHARE_INVALID_PARAMETER;
}

static int
query_info(struct share *s, struct client *cl, struct share_call *c)
{
	struct folder *f = folder_of(s, &c->parm[0]);
	int r;

	if (!f || f->fd < 0)
		return SHARE_INVALID_PARAMETER;
	c->parm[3].value = (f->readonly ? 0u : MIQF_WRITABLE) | (f->automount ? MIQF_AUTOMOUNT : 0u);
	r = put_string(&c->parm[1], f->name, cl->utf8);
	return r ? r : put_string(&c->parm[2], f->mount_point, cl->utf8);
}

/* Share's lock held. */
static int
quick(struct share *s, struct client *cl, struct share_call *c, bool *mine)
{
	*mine = true;
	switch (c->function) {
	case 1:
		return call_has(c, "44b") ? query_mappings(s, c) : SHARE_INVALID_PARAMETER;
	case 2:
		return call_has(c, "4b") ? query_name(s, cl, c) : SHARE_INVALID_PARAMETER;
	case 13:
		return call_has(c, "4") ? unmap(s, c) : SHARE_INVALID_PARAMETER;
	case 16:
		cl->utf8 = true;
		return SHARE_OK;
	case 17:
		return call_has(c, "b444") ? map(s, cl, c) : SHARE_INVALID_PARAMETER;
	case 20:
		cl->symlinks = true;
		return SHARE_OK;
	case 21:
		return call_has(c, "4bb84") ? query_info(s, cl, c) : SHARE_INVALID_PARAMETER;
	default:
		*mine = c->function < 3 || c->function == 10 || c->function == 12 || c->function > 19;
		return SHARE_NOT_IMPLEMENTED;
	}
}

bool
folders_quick(struct share *s, struct client *cl, struct share_call *c)
{
	bool mine;

	pthread_mutex_lock(&s->lock);
	c->status = quick(s, cl, c, &mine);
	pthread_mutex_unlock(&s->lock);
	return mine;
}

/* ---- create, open, look up ---- */

struct opening {
	uint32_t flags, mode;
	char path[PATH_LEN_MAX + 1];
	int fd;
	bool path_only, made;
	struct stat st;
	uint32_t result;
};

static int
open_flags(const struct opening *o)
{
	uint32_t rw = o->flags & (CF_READ | CF_WRITE);
	int flags = rw == (CF_READ | CF_WRITE) ? O_RDWR : rw == CF_WRITE ? O_WRONLY : O_RDONLY;

	if (rw & CF_WRITE && o->flags & CF_APPEND)
		flags |= O_APPEND;
	return flags | O_NONBLOCK | O_NOCTTY | (o->flags & CF_DIRECTORY ? O_DIRECTORY : 0);
}

/* 0, or an errno. */
static int
open_existing(const struct job *j, struct opening *o)
{
	bool attributes = !(o->flags & (CF_READ | CF_WRITE));

	o->fd = open_path(j, o->path, open_flags(o));
	/* Who may not read a file can still own it, and change its mode. */
	if (o->fd == -EACCES && attributes) {
		o->fd = open_path(j, o->path, O_PATH);
		o->path_only = true;
	}
	if (o->fd < 0)
		return -o->fd;
	if (fstat(o->fd, &o->st))
		return errno;
	return S_ISREG(o->st.st_mode) || S_ISDIR(o->st.st_mode) ? 0 : EPERM;
}

static int
make_new(const struct job *j, struct opening *o)
{
	const char *name;
	int dir = open_parent(j, o->path, &name), r = 0;
	int mode = (int)(o->mode & 0777);

	if (dir < 0)
		return -dir;
	if (o->flags & CF_DIRECTORY) {
		if (mkdirat(dir, name, (mode_t)(mode ? mode : 0755)))
			r = errno;
		else
			o->fd = folders_open_beneath(j->s, dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	} else {
		o->fd = openat(dir, name, (open_flags(o) & ~O_DIRECTORY) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			mode ? mode : 0644);
		r = o->fd < 0 ? errno : 0;
	}
	close(dir);
	if (!r && o->fd < 0)
		r = -o->fd;
	if (!r && fstat(o->fd, &o->st))
		r = errno;
	o->made = !r;
	return r;
}

/* How it ended, for `result`; false: it is the call's status. */
static bool
as_result(int errnum, uint32_t *result)
{
	*result = errnum == ENOENT ? FILE_MISSING : errnum == ENOTDIR ? PATH_MISSING : FILE_IS_THERE;
	return errnum == ENOENT || errnum == ENOTDIR || errnum == EEXIST;
}

static int
empty_file(struct opening *o)
{
	uint32_t act = o->flags & CF_EXISTS_MASK;

	o->result = FILE_IS_THERE;
	if (act != CF_REPLACE_IF_EXISTS && act != CF_OVERWRITE_IF_EXISTS)
		return 0;
	if (!S_ISREG(o->st.st_mode) || o->path_only)
		return EEXIST;
	if (ftruncate(o->fd, 0) || fstat(o->fd, &o->st))
		return errno;
	o->result = FILE_REPLACED;
	return 0;
}

/* Another may make or remove it between the two looks. */
static int
open_or_make(const struct job *j, struct opening *o)
{
	bool must_be_new = (o->flags & CF_EXISTS_MASK) == CF_FAIL_IF_EXISTS;
	bool may_be_new = !(o->flags & CF_NEW_MASK);
	int r = ENOENT;

	for (int i = 0; i < 3; i++) {
		if (!must_be_new || !may_be_new) {
			r = open_existing(j, o);
			if (!r)
				return must_be_new ? EEXIST : empty_file(o);
			if (r != ENOENT || !may_be_new)
				return r;
		}
		r = make_new(j, o);
		if (!r)
			o->result = FILE_MADE;
		if (r != EEXIST || must_be_new)
			return r;
	}
	return r;
}

static int
keep_handle(const struct job *j, struct opening *o, uint8_t *parms)
{
	struct handle h = {
		.root = j->f->root,
		.client = j->c->client,
		.fd = o->fd,
		.path_only = o->path_only,
		.writable = o->flags & CF_WRITE,
		.append = o->flags & CF_APPEND,
		.kind = S_ISDIR(o->st.st_mode) ? HANDLE_DIR : HANDLE_FILE,
	};
	uint64_t id = handle_add(j->s, &h);

	if (id == HANDLE_NIL)
		return SHARE_TOO_MANY_OPEN_FILES;
	put_le64(parms, id);
	put_le32(parms + 8, o->result);
	put_info(parms + 16, &o->st);
	o->fd = -1;
	return SHARE_OK;
}

static int
look_up(const struct job *j, struct opening *o, uint8_t *parms)
{
	int r = -stat_path(j, o->path, &o->st);

	if (!r)
		put_info(parms + 16, &o->st);
	put_le32(parms + 8, FILE_IS_THERE);
	if (r && as_result(r, &o->result)) {
		put_le32(parms + 8, o->result);
		r = 0;
	}
	return path_status(r);
}

static int
create(const struct job *j)
{
	uint8_t *parms = j->c->parm[2].data;
	struct opening o = { .fd = -1 };
	int r;

	if (!call_has(j->c, "4bb") || j->c->parm[2].size < CREATE_SIZE)
		return SHARE_INVALID_PARAMETER;
	o.flags = le32(parms + 12);
	o.mode = le32(parms + 16 + 48);
	put_le64(parms, HANDLE_NIL);
	put_le32(parms + 8, NO_RESULT);
	r = get_path(&j->c->parm[1], o.path);
	if (r)
		return r;
	if (o.flags & CF_LOOKUP)
		return look_up(j, &o, parms);
	if (j->f->readonly) {
		uint32_t act = o.flags & CF_EXISTS_MASK;

		if (o.flags & CF_WRITE || act == CF_REPLACE_IF_EXISTS || act == CF_OVERWRITE_IF_EXISTS)
			return SHARE_WRITE_PROTECT;
		if (!(o.flags & CF_NEW_MASK) && stat_path(j, o.path, &o.st))
			return SHARE_WRITE_PROTECT;
		o.flags |= CF_FAIL_IF_NEW;
	}
	r = open_or_make(j, &o);
	if (!r) {
		r = keep_handle(j, &o, parms);
	} else if (as_result(r, &o.result)) {
		put_le32(parms + 8, o.result);
		r = SHARE_OK;
	} else {
		r = path_status(r);
	}
	if (o.fd >= 0)
		close(o.fd);
	return r;
}

/* ---- files that are open ---- */

/* The handle in the second parameter; its file must be there. */
static struct handle *
get_handle(const struct job *j, int *status)
{
	struct handle *h = handle_get(j->s, j->c->client, j->f->root, j->c->parm[1].value);

	*status = SHARE_OK;
	if (!h) {
		*status = SHARE_INVALID_HANDLE;
	} else if (h->fd < 0) {
		handle_put(j->s, h);
		h = NULL;
		*status = SHARE_DEV_IO_ERROR; /* it was open when the machine was saved, and is not what it was */
	}
	return h;
}

/* Bytes done, or -errno when there were none. */
static int64_t
transfer(int fd, uint8_t *data, uint32_t len, uint64_t offset, bool write)
{
	uint32_t done = 0;

	while (done < len) {
		uint32_t piece = MIN(len - done, IO_PIECE);
		off_t at = (off_t)(offset + done);
		ssize_t n = write ? pwrite(fd, data + done, piece, at) : pread(fd, data + done, piece, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return done ? (int64_t)done : -errno;
		if (!n)
			break;
		done += (uint32_t)n;
	}
	return done;
}

static int
read_or_write(const struct job *j, bool write)
{
	struct share_call *c = j->c;
	struct handle *h;
	uint32_t len;
	int64_t n;
	int r;

	if (!call_has(c, "4884b"))
		return SHARE_INVALID_PARAMETER;
	len = (uint32_t)MIN(c->parm[3].value, c->parm[4].size);
	c->parm[3].value = 0;
	if (c->parm[2].value > (uint64_t)INT64_MAX - len)
		return SHARE_INVALID_PARAMETER;
	h = get_handle(j, &r);
	if (!h)
		return r;
	if (h->kind == HANDLE_DIR)
		n = -EISDIR;
	else
		n = transfer(h->fd, c->parm[4].data, len, c->parm[2].value, write);
	handle_put(j->s, h);
	if (n < 0)
		return n == -EBADF ? SHARE_ACCESS_DENIED : share_status((int)-n);
	c->parm[3].value = (uint64_t)n;
	return SHARE_OK;
}

static int
lock_range(const struct job *j)
{
	struct share_call *c = j->c;
	struct flock lk = { .l_whence = SEEK_SET };
	uint32_t flags, mode;
	struct handle *h;
	int r;

	if (!call_has(c, "48884"))
		return SHARE_INVALID_PARAMETER;
	flags = (uint32_t)c->parm[4].value;
	mode = flags & LOCK_MODE;
	if (c->parm[2].value > INT64_MAX || c->parm[3].value > INT64_MAX - c->parm[2].value || mode == LOCK_MODE)
		return SHARE_INVALID_PARAMETER;
	if (!(flags & LOCK_ENTIRE)) {
		lk.l_start = (off_t)c->parm[2].value;
		lk.l_len = (off_t)c->parm[3].value;
	}
	lk.l_type = mode == LOCK_CANCEL ? F_UNLCK : mode == LOCK_SHARED ? F_RDLCK : F_WRLCK;
	h = get_handle(j, &r);
	if (!h)
		return r;
	r = fcntl(h->fd, F_OFD_SETLK, &lk) ? errno : 0;
	handle_put(j->s, h);
	if (r == EAGAIN || r == EACCES) /* nobody waits on a folder's thread */
		return flags & LOCK_WAIT ? SHARE_NOT_SUPPORTED : SHARE_FILE_LOCK_VIOLATION;
	return share_status(r);
}

static int
flush(const struct job *j)
{
	struct handle *h;
	int r;

	if (!call_has(j->c, "48"))
		return SHARE_INVALID_PARAMETER;
	h = get_handle(j, &r);
	if (!h)
		return r;
	r = fsync(h->fd) ? errno : 0;
	handle_put(j->s, h);
	return share_status(r);
}

/* ---- lists ---- */

/* What is listed as `name`; false: a client that does not know symbolic links does not see one that leads nowhere. */
static bool
stat_entry(const struct job *j, struct handle *h, const char *name, struct stat *st)
{
	int fd;

	if (fstatat(h->fd, name, st, AT_SYMLINK_NOFOLLOW))
		return false;
	if (!S_ISLNK(st->st_mode) || j->cl->symlinks)
		return true;
	fd = folders_open_beneath(j->s, h->fd, name, O_PATH, 0);
	if (fd < 0)
		return false;
	if (fstat(fd, st)) {
		close(fd);
		return false;
	}
	close(fd);
	return true;
}

/* * and ? as in shells, without their brackets. */
static bool
wild(const char *pattern, const char *name)
{
	return !*pattern || !strcmp(pattern, "*.*") || (!strchr(pattern, '|') && prop_match(pattern, name));
}

static int
start_list(struct handle *h)
{
	int fd;

	if (h->dir)
		return 0;
	fd = openat(h->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	h->dir = fdopendir(fd);
	if (!h->dir) {
		close(fd);
		return ENOMEM;
	}
	for (uint32_t i = 0; i < h->listed && readdir(h->dir); i++)
		; /* where it was when the machine was saved */
	return 0;
}

static void
put_entry(uint8_t *p, const struct stat *st, const char *name, size_t len)
{
	memset(p, 0, DIRINFO_NAME);
	put_info(p, st);
	put_le16(p + 122, (uint16_t)(len + 1));
	put_le16(p + 124, (uint16_t)len);
	memcpy(p + DIRINFO_NAME, name, len + 1);
}

/* Handle's lock held. */
static int
fill_list(const struct job *j, struct handle *h, const char *pattern)
{
	struct share_call *c = j->c;
	uint32_t room = (uint32_t)MIN(c->parm[3].value, c->parm[5].size), used = 0, count = 0;
	bool one = c->parm[2].value & 1;
	struct dirent *d;
	int r = SHARE_NO_MORE_FILES;

	while (!(one && count)) {
		long at = telldir(h->dir);
		struct stat st;
		size_t len;

		errno = 0;
		d = readdir(h->dir);
		if (!d) {
			r = errno ? share_status(errno) : SHARE_NO_MORE_FILES;
			break;
		}
		len = strlen(d->d_name);
		if (!wild(pattern, d->d_name) || !stat_entry(j, h, d->d_name, &st)) {
			h->listed++;
			continue;
		}
		if (DIRINFO_NAME + len + 1 > room - used) {
			seekdir(h->dir, at);
			r = SHARE_BUFFER_OVERFLOW;
			break;
		}
		put_entry(c->parm[5].data + used, &st, d->d_name, len);
		used += (uint32_t)(DIRINFO_NAME + len + 1);
		h->listed++;
		count++;
	}
	c->parm[3].value = used;
	c->parm[6].value = 0;
	c->parm[7].value = count;
	return count ? SHARE_OK : r;
}

static int
list(const struct job *j)
{
	char pattern[PATH_LEN_MAX + 1] = "", *slash;
	struct handle *h;
	int r = SHARE_OK;

	if (!call_has(j->c, "4844bb44"))
		return SHARE_INVALID_PARAMETER;
	if (j->c->parm[4].size)
		r = get_path(&j->c->parm[4], pattern);
	if (r)
		return r;
	slash = strrchr(pattern, '/');
	h = get_handle(j, &r);
	if (!h)
		return r;
	pthread_mutex_lock(&h->lock);
	r = h->kind == HANDLE_DIR ? start_list(h) : ENOTDIR;
	r = r ? share_status(r) : fill_list(j, h, slash ? slash + 1 : pattern);
	pthread_mutex_unlock(&h->lock);
	handle_put(j->s, h);
	return r;
}

/* ---- information ---- */

static int
volume_info(const struct job *j)
{
	struct share_parm *out = &j->c->parm[4];
	struct statfs fs;
	uint8_t *p = out->data;

	if (MIN(j->c->parm[3].value, out->size) < VOLUME_SIZE)
		return SHARE_BUFFER_OVERFLOW;
	if (fstatfs(j->f->fd, &fs))
		return share_status(errno);
	memset(p, 0, VOLUME_SIZE);
	put_le64(p, (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize);
	put_le64(p + 8, (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize);
	put_le32(p + 16, (uint32_t)fs.f_bsize);
	put_le32(p + 20, 512);
	put_le32(p + 28, (uint32_t)MIN(fs.f_namelen, 255));
	p[33] = 1;
	p[34] = j->f->readonly;
	p[35] = 1;
	j->c->parm[3].value = VOLUME_SIZE;
	return SHARE_OK;
}

static int
get_info(const struct job *j, struct handle *h)
{
	struct stat st;

	if (MIN(j->c->parm[3].value, j->c->parm[4].size) < INFO_SIZE)
		return SHARE_BUFFER_OVERFLOW;
	if (fstat(h->fd, &st))
		return share_status(errno);
	put_info(j->c->parm[4].data, &st);
	j->c->parm[3].value = INFO_SIZE;
	return SHARE_OK;
}

static struct timespec
time_of(const uint8_t *p)
{
	int64_t ns = (int64_t)le64(p), s = ns / 1000000000, rest = ns % 1000000000;

	if (!ns)
		return (struct timespec){ 0, UTIME_OMIT };
	if (rest < 0) {
		rest += 1000000000;
		s--;
	}
	return (struct timespec){ s, rest };
}

static int
set_attributes(struct handle *h, const uint8_t *p)
{
	uint32_t mode = le32(p + 48);
	struct timespec times[2] = { time_of(p + 16), time_of(p + 24) };
	bool timed = times[0].tv_nsec != UTIME_OMIT || times[1].tv_nsec != UTIME_OMIT;
	char path[32];
	struct stat st;

	/* A descriptor that can only be a path cannot be given to fchmod(). */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", h->fd);
	if (mode) {
		if (fstat(h->fd, &st))
			return errno;
		mode = (st.st_mode & 07000) | (mode & 0777);
		if (h->path_only ? fchmodat(AT_FDCWD, path, mode, 0) : fchmod(h->fd, mode))
			return errno;
	}
	if (timed && (h->path_only ? utimensat(AT_FDCWD, path, times, 0) : futimens(h->fd, times)))
		return errno;
	return 0;
}

static int
set_info(const struct job *j, struct handle *h, uint32_t what)
{
	uint8_t *p = j->c->parm[4].data;
	struct stat st;
	int r = 0;

	if (j->f->readonly)
		return SHARE_WRITE_PROTECT;
	if (MIN(j->c->parm[3].value, j->c->parm[4].size) < INFO_SIZE)
		return SHARE_INVALID_PARAMETER;
	if (what & INFO_WHAT_FILE)
		r = set_attributes(h, p);
	else if (h->kind != HANDLE_FILE)
		r = EISDIR;
	else if (le64(p) > INT64_MAX)
		r = EFBIG;
	else if (ftruncate(h->fd, (off_t)le64(p)))
		r = errno == EBADF || errno == EINVAL ? EACCES : errno;
	if (!r && fstat(h->fd, &st))
		r = errno;
	if (!r)
		put_info(p, &st);
	return share_status(r);
}

static int
information(const struct job *j)
{
	uint32_t flags;
	struct handle *h;
	int r;

	if (!call_has(j->c, "4844b"))
		return SHARE_INVALID_PARAMETER;
	flags = (uint32_t)j->c->parm[2].value;
	if (flags == INFO_WHAT_VOLUME)
		return volume_info(j);
	h = get_handle(j, &r);
	if (!h)
		return r;
	if (flags == INFO_WHAT_FILE)
		r = get_info(j, h);
	else if (flags == (INFO_SET | INFO_WHAT_FILE) || flags == (INFO_SET | INFO_WHAT_SIZE))
		r = set_info(j, h, flags);
	else
		r = SHARE_NOT_SUPPORTED;
	handle_put(j->s, h);
	return r;
}

/* ---- names ---- */

static int
remove_name(const struct job *j)
{
	char path[PATH_LEN_MAX + 1];
	const char *name;
	int dir, r;

	if (!call_has(j->c, "4b4"))
		return SHARE_INVALID_PARAMETER;
	if (j->f->readonly)
		return SHARE_WRITE_PROTECT;
	r = open_named(j, &j->c->parm[1], path, &name, &dir);
	if (r)
		return r;
	r = unlinkat(dir, name, j->c->parm[2].value & 2 ? AT_REMOVEDIR : 0) ? errno : 0;
	close(dir);
	return share_status(r);
}

static int
move(int from, const char *old, int to, const char *new, bool replace)
{
	struct stat st;

	if (!renameat2(from, old, to, new, replace ? 0 : RENAME_NOREPLACE))
		return 0;
	/* Not every file system can be told not to replace. */
	if (errno != EINVAL || replace)
		return errno;
	if (!fstatat(to, new, &st, AT_SYMLINK_NOFOLLOW))
		return EEXIST;
	return renameat(from, old, to, new) ? errno : 0;
}

static int
rename_name(const struct job *j)
{
	char old_path[PATH_LEN_MAX + 1], new_path[PATH_LEN_MAX + 1];
	const char *old, *new;
	int from, to, r;

	if (!call_has(j->c, "4bb4"))
		return SHARE_INVALID_PARAMETER;
	if (j->f->readonly)
		return SHARE_WRITE_PROTECT;
	r = open_named(j, &j->c->parm[1], old_path, &old, &from);
	if (r)
		return r;
	r = open_named(j, &j->c->parm[2], new_path, &new, &to);
	if (r) {
		close(from);
		return r;
	}
	/* A directory without the flag: Linux's driver sends none for them, and means rename(2). */
	r = move(from, old, to, new, j->c->parm[3].value & 4 || !j->c->parm[3].value);
	close(from);
	close(to);
	return share_status(r);
}

static int
read_link(const struct job *j)
{
	struct share_parm *out = &j->c->parm[2];
	char path[PATH_LEN_MAX + 1];
	const char *name;
	ssize_t n;
	int dir, r;

	if (!call_has(j->c, "4bb") || !out->size)
		return SHARE_INVALID_PARAMETER;
	r = open_named(j, &j->c->parm[1], path, &name, &dir);
	if (r)
		return r;
	n = readlinkat(dir, name, (char *)out->data, out->size);
	r = n < 0 ? errno : 0;
	close(dir);
	if (r)
		return share_status(r);
	if ((size_t)n >= out->size)
		return SHARE_BUFFER_OVERFLOW;
	out->data[n] = 0;
	return SHARE_OK;
}

static int
make_link(const struct job *j)
{
	const struct share_parm *t = &j->c->parm[2];
	char path[PATH_LEN_MAX + 1], target[PATH_LEN_MAX + 1];
	const char *name;
	struct stat st;
	size_t len;
	int dir, r;

	if (!call_has(j->c, "4bbb") || t->size < 4 || j->c->parm[3].size < INFO_SIZE)
		return SHARE_INVALID_PARAMETER;
	if (j->f->readonly || !j->f->symlinks)
		return SHARE_WRITE_PROTECT;
	len = le16(t->data + 2);
	if (!len || len > t->size - 4 || len > PATH_LEN_MAX || memchr(t->data + 4, 0, len))
		return SHARE_INVALID_PARAMETER;
	memcpy(target, t->data + 4, len);
	target[len] = 0;
	r = open_named(j, &j->c->parm[1], path, &name, &dir);
	if (r)
		return r;
	r = symlinkat(target, dir, name) || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) ? errno : 0;
	close(dir);
	if (!r)
		put_info(j->c->parm[3].data, &st);
	return share_status(r);
}

/* ---- the table ---- */

static int
do_close(const struct job *j)
{
	if (!call_has(j->c, "48"))
		return SHARE_INVALID_PARAMETER;
	return handle_close(j->s, j->c->client, j->f->root, j->c->parm[1].value) ? SHARE_OK : SHARE_INVALID_HANDLE;
}

static int
do_read(const struct job *j)
{
	return read_or_write(j, false);
}

static int
do_write(const struct job *j)
{
	return j->f->readonly ? SHARE_WRITE_PROTECT : read_or_write(j, true);
}

void
folders_work(struct share *s, struct folder *f, const struct client *cl, struct share_call *c)
{
	static int (*const functions[])(const struct job *j) = {
		[3] = create,
		[4] = do_close,
		[5] = do_read,
		[6] = do_write,
		[7] = lock_range,
		[8] = list,
		[9] = information,
		[11] = remove_name,
		[14] = rename_name,
		[15] = flush,
		[18] = read_link,
		[19] = make_link,
	};
	struct job j = { s, f, cl, c };

	if (c->function >= ARRAY_LEN(functions) || !functions[c->function])
		c->status = SHARE_NOT_IMPLEMENTED;
	else if (!cl->utf8)
		c->status = SHARE_NOT_SUPPORTED; /* paths in UTF-16 */
	else
		c->status = functions[c->function](&j);
}
