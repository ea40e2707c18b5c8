/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images in the making.
 *
 * A command that takes long to make an image writes a note first: a file in $LODGE_HOME/run/media with two or more
 * lines, what is being made and where, that it keeps locked (OFD) as long as it runs. When it has ended, either way, it
 * removes the note. A note whose lock is free belongs to a command that was killed: whoever comes next removes the
 * image, its further files (VMDK), and the note. A path that the inventory has by then was finished, and stays.
 *
 * A machine that is created is noted likewise, and one that is deleted with its files: the note is there before the
 * inventory loses the machine, and what is left of its files when it has is removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/inv.h"

struct media_job {
	char *note;
	int fd;
};

static char *
notes_dir(struct host *h)
{
	return xasprintf("%s/run/media", h->home);
}

static bool
lock_note(int fd)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_SETLK, &lk);
}

/* The text of a note; NULL and *e when a path would break it into more lines. */
static char *
note_text(const char *what, char *const *paths, int count, struct err *e)
{
	struct str text = { 0 };

	str_addf(&text, "%s\n", what);
	for (int i = 0; i < count; i++) {
		if (strchr(paths[i], '\n')) {
			err_set(e, ERR_INVALID, "The path '%s' has a line break", paths[i]);
			str_free(&text);
			return NULL;
		}
		str_addf(&text, "%s\n", paths[i]);
	}
	return text.s;
}

struct media_job *
media_job_begin(struct host *h, const char *what, const char *path, struct err *e)
{
	char *copy = xstrdup(path);
	struct media_job *j = media_job_begin_all(h, what, &copy, 1, e);

	free(copy);
	return j;
}

struct media_job *
media_job_begin_all(struct host *h, const char *what, char *const *paths, int count, struct err *e)
{
	char *dir, *text = note_text(what, paths, count, e), uuid[37];
	struct uuid u = uuid_random();
	struct media_job *j;

	if (!text)
		return NULL;
	dir = notes_dir(h);
	j = xcalloc(1, sizeof(*j));

	uuid_text(&u, uuid);
	j->note = xasprintf("%s/%s", dir, uuid);
	j->fd = dir_make(dir, 0700, e) ? -1 : open(j->note, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (j->fd < 0 || !lock_note(j->fd) || write_full(j->fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		err_sys(e, ERR_FILE, errno, "The note '%s' cannot be written", j->note);
		media_job_end(j);
		j = NULL;
	}
	free(dir);
	free(text);
	return j;
}

void
media_job_end(struct media_job *j)
{
	if (!j)
		return;
	unlink(j->note);
	if (j->fd >= 0)
		close(j->fd);
	free(j->note);
	free(j);
}

/* The further files that a VMDK makes, though its descriptor may not be there yet. */
static void
remove_parts(const char *path)
{
	const char *slash = strrchr(path, '/');
	int stem = (int)strlen(slash + 1) - (str_ends(path, ".vmdk") ? 5 : 0);
	char *dir = xasprintf("%.*s", (int)(slash - path), path), *flat, *numbered;
	struct dirent *de;
	DIR *d = opendir(*dir ? dir : "/");

	flat = xasprintf("%.*s-flat.vmdk", stem, slash + 1);
	numbered = xasprintf("%.*s-X000.vmdk", stem, slash + 1);
	while (d && (de = readdir(d))) {
		const char *n = de->d_name, *tail = n + stem;
		bool part = strlen(n) == strlen(numbered) && !strncmp(n, numbered, (size_t)stem + 1) &&
			    !fnmatch("-[fs][0-9][0-9][0-9].vmdk", tail, 0);

		if (part || !strcmp(n, flat))
			unlinkat(dirfd(d), n, 0);
	}
	if (d)
		closedir(d);
	free(dir);
	free(flat);
	free(numbered);
}

/* An image that is to replace another one is made in a directory of its own beside that. */
static void
remove_own_directory(const char *path)
{
	char *dir = xasprintf("%.*s", (int)(strrchr(path, '/') - path), path), *name = strrchr(dir, '/');

	if (name && str_starts(name + 1, ".lodge-"))
		rmdir(dir);
	free(dir);
}

/* It may have been killed between the renaming and the inventory. `made`: the file in its own directory. */
static void
recover_encryption(struct host *h, const char *made)
{
	char *dir = xasprintf("%.*s", (int)(strrchr(made, '/') - made), made), *target;

	target = xasprintf("%.*s%s", (int)(strrchr(dir, '/') - dir), dir, strrchr(made, '/'));
	medium_sync_key(h, target, NULL);
	free(dir);
	free(target);
}

/* Does the inventory have it? Then it was finished. */
static bool
is_known(struct host *h, const char *path)
{
	sqlite3_stmt *s = db_query(h, NULL,
		"SELECT 1 FROM medium WHERE path = ?1 UNION"
		" SELECT 1 FROM machine WHERE folder || '/' || name || '.vbox' = ?1",
		"s", path);
	bool known = !s || db_step(h, s, NULL) != 0;

	sqlite3_finalize(s);
	return known;
}

static bool
is_no_image(const char *path)
{
	static const char *const ends[] = { ".vbox", ".ova", ".ovf", ".mf", ".sav" };
	const char *name = strrchr(path, '/');

	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (str_ends(path, ends[i]))
			return true;
	return name && str_starts(name + 1, "VBox.log");
}

/* True: there was something. */
static bool
remove_made(struct host *h, const char *path)
{
	struct stat st;
	bool there;

	if (path[0] != '/' || is_known(h, path))
		return false;
	if (str_ends(path, ".vmdk"))
		remove_parts(path);
	there = !lstat(path, &st);
	if (str_ends(path, ".vbox"))
		vboxfile_remove(path);
	if (!there)
		return false;
	if (S_ISDIR(st.st_mode))
		return !rmdir(path);
	/* Only what may be an image is looked into: it may have further files. */
	if (is_no_image(path))
		unlink(path);
	else if (block_remove(path, NULL))
		unlink(path);
	return true;
}

/* Whose notes are of several files and directories. */
static bool
is_of_several(const char *text)
{
	return str_starts(text, "import\n") || str_starts(text, "export\n") || str_starts(text, "creation\n") ||
	       str_starts(text, "deletion\n");
}

/*
 * What an import, an export or the creation of a machine had begun, or its deletion had still to do: files and
 * directories. A machine that is to be deleted comes first: while the inventory has it nothing is done.
 */
static void
recover_all(
	struct host *h, const char *what, char *lines, void (*say)(void *opaque, const char *sentence), void *opaque)
{
	char *rest = lines, *path, *first = NULL, *sentence;
	bool deletion = !strcmp(what, "deletion"), any = false;

	while ((path = strsep(&rest, "\n")))
		if (*path) {
			if (!first && deletion && is_known(h, path))
				return;
			first = first ? first : path;
			any |= remove_made(h, path);
		}
	sentence = any && first ? xasprintf("An interrupted %s of '%s' was %s", what, first,
					  deletion ? "completed" : "undone")
				: NULL;
	if (sentence && say)
		say(opaque, sentence);
	free(sentence);
}

static void
recover_note(struct host *h, const char *note, void (*say)(void *opaque, const char *sentence), void *opaque)
{
	int fd = open(note, O_RDWR | O_CLOEXEC);
	char *text, *path, *end, *sentence;
	size_t len;

	if (fd < 0 || !lock_note(fd)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	text = file_read(note, 1 << 20, &len, NULL);
	path = text ? strchr(text, '\n') : NULL;
	end = path ? strchr(path + 1, '\n') : NULL;
	if (end && is_of_several(text)) {
		*path = 0;
		recover_all(h, text, path + 1, say, opaque);
	} else if (end && path[1] == '/') {
		*path++ = 0;
		*end = 0;
		if (str_ends(path, ".vmdk"))
			remove_parts(path);
		if (!access(path, F_OK))
			block_remove(path, NULL);
		remove_own_directory(path);
		if (!strcmp(text, "encryptmedium"))
			recover_encryption(h, path);
		sentence = xasprintf("'%s', which an interrupted %s had left unfinished, was removed", path, text);
		if (say)
			say(opaque, sentence);
		free(sentence);
	}
	unlink(note);
	free(text);
	close(fd);
}

void
media_recover(struct host *h, void (*say)(void *opaque, const char *sentence), void *opaque)
{
	char *dir = notes_dir(h);
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		char *note = de->d_name[0] != '.' ? xasprintf("%s/%s", dir, de->d_name) : NULL;

		if (note)
			recover_note(h, note, say, opaque);
		free(note);
	}
	if (d)
		closedir(d);
	free(dir);
}
