/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest-file-*: files opened by number, as root. Whoever reads the end of a file has "eof" and may read on when it has
 * grown.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/base64.h"

#define FILES_MAX 64
#define READ_MAX (1 << 20)

struct files {
	int fd[FILES_MAX]; /* handle - 1; 0: free */
};

struct files *
files_create(void)
{
	return xcalloc(1, sizeof(struct files));
}

static int
find(struct agent *a, const json_t *args, struct refusal *r)
{
	int64_t h = int_arg(args, "handle", 0);

	if (h >= 1 && h <= FILES_MAX && agent_files(a)->fd[h - 1])
		return agent_files(a)->fd[h - 1];
	refuse(r, NULL, "handle '%lld' has not been found", (long long)h);
	return -1;
}

/* fopen()'s modes as open() has them; -1: none of them. */
static int
open_flags(const char *mode)
{
	bool plus = strchr(mode, '+') != NULL;

	switch (mode[0]) {
	case 'r':
		return plus ? O_RDWR : O_RDONLY;
	case 'w':
		return (plus ? O_RDWR : O_WRONLY) | O_CREAT | O_TRUNC;
	case 'a':
		return (plus ? O_RDWR : O_WRONLY) | O_CREAT | O_APPEND;
	default:
		return -1;
	}
}

json_t *
do_file_open(struct agent *a, const json_t *args, struct refusal *r)
{
	const char *path = text_arg(args, "path"), *mode = text_arg(args, "mode");
	int flags = open_flags(*mode ? mode : "r"), h = 0, fd;

	if (flags < 0)
		return refuse(r, NULL, "invalid file open mode '%.16s'", mode);
	while (h < FILES_MAX && agent_files(a)->fd[h])
		h++;
	if (h == FILES_MAX)
		return refuse(r, NULL, "too many files are open (%d)", FILES_MAX);
	fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0)
		return refuse(r, NULL, "failed to open file '%.256s' (mode: '%.16s'): %s", path, mode, strerror(errno));
	agent_files(a)->fd[h] = fd;
	return json_integer(h + 1);
}

json_t *
do_file_close(struct agent *a, const json_t *args, struct refusal *r)
{
	int fd = find(a, args, r);

	if (fd < 0)
		return NULL;
	agent_files(a)->fd[int_arg(args, "handle", 0) - 1] = 0;
	return close(fd) ? refuse_errno(r, "failed to close handle") : json_object();
}

json_t *
do_file_read(struct agent *a, const json_t *args, struct refusal *r)
{
	int fd = find(a, args, r);
	size_t count = (size_t)MAX(MIN(int_arg(args, "count", 4096), READ_MAX), 1);
	json_t *o = NULL;
	char *buf, *text;
	ssize_t n;

	if (fd < 0)
		return NULL;
	buf = xcalloc(1, count);
	n = read_full(fd, buf, count);
	if (n >= 0) {
		text = base64_text(buf, (size_t)n);
		o = json_pack("{s:I, s:s, s:b}", "count", (json_int_t)n, "buf-b64", text, "eof", (size_t)n < count);
		free(text);
	} else {
		refuse(r, NULL, "failed to read file: %s", strerror((int)-n));
	}
	free(buf);
	return o;
}

json_t *
do_file_write(struct agent *a, const json_t *args, struct refusal *r)
{
	int fd = find(a, args, r);
	char *text;
	ssize_t n;

	if (fd < 0)
		return NULL;
	text = xstrdup(text_arg(args, "buf-b64"));
	n = write_full(fd, text, base64_bytes(text));
	free(text);
	return n < 0 ? refuse(r, NULL, "failed to write to file: %s", strerror((int)-n))
		     : json_pack("{s:I, s:b}", "count", (json_int_t)n, "eof", 0);
}

json_t *
do_file_seek(struct agent *a, const json_t *args, struct refusal *r)
{
	static const char *const names[] = { "set", "cur", "end" };
	json_t *whence = json_object_get(args, "whence");
	int fd = find(a, args, r), how = (int)int_arg(args, "whence", 0);
	off_t at;

	if (fd < 0)
		return NULL;
	for (int i = 0; i < 3; i++)
		if (json_is_string(whence) && !strcmp(json_string_value(whence), names[i]))
			how = i;
	at = lseek(fd, int_arg(args, "offset", 0), how == 1 ? SEEK_CUR : how == 2 ? SEEK_END : SEEK_SET);
	return at < 0 ? refuse_errno(r, "failed to seek file")
		      : json_pack("{s:I, s:b}", "position", (json_int_t)at, "eof", 0);
}

json_t *
do_file_flush(struct agent *a, const json_t *args, struct refusal *r)
{
	return find(a, args, r) < 0 ? NULL : json_object();
}
