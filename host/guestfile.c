/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the guest, as its user sees them: everything is done by a small script for the guest's sh in the user's
 * session, so that the guest's own permissions decide. Names go in as arguments, never into the script's text.
 *
 * Copying to the guest writes beside the place and renames, so that a copy that was interrupted leaves the old file.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/guest.h"

#define DEPTH_MAX 64

static char *
script2(struct host_guest *g, const char *text, const char *a, const char *b, int in, struct err *e)
{
	char *args[] = { (char *)a, (char *)b, NULL };

	return host_guest_script(g, text, args, in, e);
}

/* ---- looking ---- */

int
host_guest_stat(struct host_guest *g, const char *path, bool follow, struct host_guest_stat *out, struct err *e)
{
	char *text = script2(g,
		"[ -e \"$1\" ] || [ -L \"$1\" ] || { echo missing; exit 0; }\n"
		"stat $2 -c '%A %s %i %h %a %u %g %U %G %Y %X %Z' -- \"$1\"",
		path, follow ? "-L" : "", -1, e);
	char kind[16] = "";
	long long mtime, atime, ctime;
	unsigned long long size, inode, links;
	int n;

	if (!text)
		return -1;
	n = sscanf(text, "%15s %llu %llu %llu %o %u %u %63s %63s %lld %lld %lld", kind, &size, &inode, &links,
		&out->mode, &out->uid, &out->gid, out->owner, out->group, &mtime, &atime, &ctime);
	if (!strcmp(kind, "missing"))
		err_set(e, ERR_NOT_FOUND, "No such file or directory on guest: '%s'", path);
	else if (n != 12)
		err_set(e, ERR_GUEST, "The guest tells nothing that makes sense about '%s'", path);
	free(text);
	if (n != 12)
		return -1;
	out->kind = kind[0] == '-' ? 'f' : kind[0];
	out->size = size;
	out->inode = inode;
	out->links = links;
	out->mtime = mtime;
	out->atime = atime;
	out->ctime = ctime;
	return 0;
}

/* ---- to the guest ---- */

static const char *
last_part(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n && path[n - 1] != '/')
		n--;
	return path + n;
}

static char *
join(const char *dir, const char *name)
{
	size_t n = strlen(dir);

	return xasprintf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static int
put_file(struct host_guest *g, int fd, const struct stat *st, const char *from, const char *to,
	const struct host_guest_copy *c, struct err *e)
{
	char *opts = xasprintf("%s %lld %03o",
		c->no_replace ? "keep"
		: c->update   ? "update"
			      : "over",
		(long long)st->st_mtime, st->st_mode & 0777);
	char *text = script2(g,
		"set -- \"$1\" $2\n"
		"[ $2 = keep ] && [ -e \"$1\" ] && exec cat >/dev/null\n"
		"[ $2 = update ] && [ -e \"$1\" ] && [ $(stat -L -c %Y -- \"$1\") -ge $3 ] && exec cat >/dev/null\n"
		"case $1 in -*) set -- \"./$1\" $2 $3 $4 ;; esac\n"
		"if [ -e \"$1\" ] && [ ! -f \"$1\" ] || [ -L \"$1\" ]; then exec cat >\"$1\"; fi\n"
		"t=$1.lodge-$$; trap 'rm -f \"$t\"' 0; set -C\n"
		"cat >\"$t\" && chmod $4 \"$t\" && mv -f -- \"$t\" \"$1\"",
		to, opts, fd, e);

	free(opts);
	if (!text)
		return err_wrap(e, "Copying '%s' to '%s' on the guest", from, to);
	free(text);
	if (c->said)
		c->said(c->opaque, from, to);
	return 0;
}

static int put_tree(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e);

static int
put_directory(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e)
{
	struct dirent *entry;
	char *text;
	DIR *d;
	int r = 0;

	if (!c->recursive)
		return err_set(e, ERR_FILE, "'%s' is a directory: copy it with --recursive", from);
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_FILE, "'%s' is nested too deeply", from);
	text = script2(g, "mkdir -p -- \"$1\"", to, "", -1, e);
	if (!text)
		return err_wrap(e, "Making the directory '%s' on the guest", to);
	free(text);
	d = opendir(from);
	if (!d)
		return err_sys(e, ERR_FILE, errno, "Cannot read the directory '%s'", from);
	while (!r && (entry = readdir(d))) {
		char *a, *b;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		a = join(from, entry->d_name);
		b = join(to, entry->d_name);
		r = put_tree(g, a, b, c, depth + 1, e);
		free(a);
		free(b);
	}
	closedir(d);
	return r;
}

static int
put_link(struct host_guest *g, const char *from, const char *to, struct err *e)
{
	char target[4096];
	ssize_t n = readlink(from, target, sizeof(target) - 1);
	char *text;

	if (n < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot read the link '%s'", from);
	target[n] = 0;
	text = script2(g, "ln -sfn -- \"$2\" \"$1\"", to, target, -1, e);
	free(text);
	return text ? 0 : err_wrap(e, "Making the link '%s' on the guest", to);
}

static int
put_tree(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e)
{
	struct stat st;
	int fd, r;

	if (depth && !c->follow ? lstat(from, &st) : stat(from, &st))
		return err_sys(e, ERR_FILE, errno, "Cannot read '%s'", from);
	if (S_ISLNK(st.st_mode))
		return put_link(g, from, to, e);
	if (S_ISDIR(st.st_mode))
		return put_directory(g, from, to, c, depth, e);
	if (!S_ISREG(st.st_mode) && depth)
		return 0; /* sockets and the like have nothing to copy */
	fd = open(from, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot read '%s'", from);
	r = put_file(g, fd, &st, from, to, c, e);
	close(fd);
	return r;
}

/* Into `to`, when that is a directory. */
static char *
target_of(struct host_guest *g, const char *from, const char *to, struct err *e)
{
	struct host_guest_stat st;
	struct err why = { 0 };

	if (!host_guest_stat(g, to, true, &st, &why))
		return st.kind == 'd' ? join(to, last_part(from)) : xstrdup(to);
	if (why.code != ERR_NOT_FOUND) {
		*e = why;
		return NULL;
	}
	if (!str_ends(to, "/"))
		return xstrdup(to);
	err_set(e, ERR_NOT_FOUND, "There is no directory '%s' on the guest", to);
	return NULL;
}

int
host_guest_copy_to(
	struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, struct err *e)
{
	char *target = target_of(g, from, to, e);
	int r = target ? put_tree(g, from, target, c, 0, e) : -1;

	free(target);
	return r;
}

/* ---- from the guest ---- */

struct sink {
	int fd, error;
	struct str err;
};

static int
to_file(void *opaque, int stream, const void *bytes, size_t n)
{
	struct sink *s = opaque;
	ssize_t r;

	if (stream == 2) {
		if (s->err.len < 900)
			str_addn(&s->err, bytes, MIN(n, 900 - s->err.len));
		return 0;
	}
	r = write_full(s->fd, bytes, n);
	if (r < 0)
		s->error = (int)-r;
	return s->error;
}

/* Into a new file beside the place, which it then takes. */
static int
get_file(struct host_guest *g, const char *from, const char *to, const struct host_guest_stat *st,
	const struct host_guest_copy *c, struct err *e)
{
	char *temp = xasprintf("%s.lodge-%d", to, (int)getpid());
	char *const argv[] = { (char *)"cat", (char *)"--", (char *)from, NULL };
	struct sink s = { .fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) };
	struct host_guest_program p = {
		.path = "/bin/cat", .argv = argv, .in = -1, .output = to_file, .opaque = &s, .cancel = -1
	};
	mode_t mask = umask(0);
	int r = -1;

	umask(mask);
	if (s.fd < 0)
		err_sys(e, ERR_FILE, errno, "Cannot make '%s'", temp);
	else
		r = host_guest_run(g, &p, e);
	if (!r && s.error)
		r = err_sys(e, ERR_FILE, s.error, "Cannot write '%s'", temp);
	else if (!r && (p.end != HOST_GUEST_EXITED || p.status))
		r = err_set(e, ERR_GUEST, "Reading '%s' on the guest: %.*s", from,
			(int)strcspn(s.err.s ? s.err.s : "", "\n"), s.err.s ? s.err.s : "");
	if (!r && (fchmod(s.fd, (st->mode & 0777) & ~mask) || rename(temp, to)))
		r = err_sys(e, ERR_FILE, errno, "Cannot make '%s'", to);
	if (s.fd >= 0)
		close(s.fd);
	if (r)
		unlink(temp);
	else if (c->said)
		c->said(c->opaque, from, to);
	str_free(&s.err);
	free(temp);
	return r;
}

static int get_tree(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e);

/* The guest names what is in a directory; a name that would lead elsewhere is not followed. */
static int
get_directory(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e)
{
	char *list, *at, *name;
	int r = 0;

	if (!c->recursive)
		return err_set(e, ERR_FILE, "'%s' is a directory on the guest: copy it with --recursive", from);
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_FILE, "'%s' on the guest is nested too deeply", from);
	if (mkdir(to, 0777) && errno != EEXIST)
		return err_sys(e, ERR_FILE, errno, "Cannot make the directory '%s'", to);
	list = script2(g,
		"cd -- \"$1\" && for f in .* *; do [ -e \"$f\" ] || [ -L \"$f\" ] && printf '%s/\\n' \"$f\"; done; :",
		from, "", -1, e);
	if (!list)
		return err_wrap(e, "Reading the directory '%s' on the guest", from);
	/* Names end with "/\n", which none has inside. */
	for (at = list; !r && *at; at = name) {
		char *a, *b;

		name = strstr(at, "/\n");
		if (!name)
			break;
		*name = 0;
		name += 2;
		if (!*at || !strcmp(at, ".") || !strcmp(at, "..") || strchr(at, '/'))
			continue;
		a = join(from, at);
		b = join(to, at);
		r = get_tree(g, a, b, c, depth + 1, e);
		free(a);
		free(b);
	}
	free(list);
	return r;
}

static int
get_link(struct host_guest *g, const char *from, const char *to, struct err *e)
{
	char *target = script2(g, "readlink -- \"$1\"", from, "", -1, e);
	int r = 0;

	if (!target)
		return -1;
	target[strcspn(target, "\n")] = 0;
	if (symlink(target, to) && (errno != EEXIST || unlink(to) || symlink(target, to)))
		r = err_sys(e, ERR_FILE, errno, "Cannot make the link '%s'", to);
	free(target);
	return r;
}

static int
get_tree(struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, int depth,
	struct err *e)
{
	struct host_guest_stat st;
	struct stat here;

	if (host_guest_stat(g, from, !depth || c->follow, &st, e))
		return -1;
	if (st.kind == 'l')
		return get_link(g, from, to, e);
	if (st.kind == 'd') /* not through a link that this copy has made */
		return depth && !lstat(to, &here) && !S_ISDIR(here.st_mode)
			       ? err_set(e, ERR_FILE, "'%s' is there and is not a directory", to)
			       : get_directory(g, from, to, c, depth, e);
	if (st.kind != 'f' && depth)
		return 0;
	if (!stat(to, &here) && (c->no_replace || (c->update && here.st_mtime >= st.mtime)))
		return 0;
	return get_file(g, from, to, &st, c, e);
}

int
host_guest_copy_from(
	struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, struct err *e)
{
	struct stat st;
	bool dir = !stat(to, &st) && S_ISDIR(st.st_mode);
	char *target;
	int r;

	if (!dir && str_ends(to, "/"))
		return err_set(e, ERR_FILE, "There is no directory '%s'", to);
	target = dir ? join(to, last_part(from)) : xstrdup(to);
	r = get_tree(g, from, target, c, 0, e);
	free(target);
	return r;
}
