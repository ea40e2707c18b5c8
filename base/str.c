/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		abort();
	return p;
}

char *
xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		abort();
	return p;
}

char *
xstrlower(const char *s)
{
	char *l = xstrdup(s);

	for (char *p = l; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p + 32);
	return l;
}

char *
xstrupper(const char *s)
{
	char *u = xstrdup(s);

	for (char *p = u; *p; p++)
		if (*p >= 'a' && *p <= 'z')
			*p = (char)(*p - 32);
	return u;
}

char *
xvasprintf(const char *fmt, va_list ap)
{
	char *p;

	if (vasprintf(&p, fmt, ap) < 0)
		abort();
	return p;
}

char *
xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	p = xvasprintf(fmt, ap);
	va_end(ap);
	return p;
}

static void
str_room(struct str *b, size_t extra)
{
	if (b->len + extra + 1 <= b->cap)
		return;
	b->cap = MAX(2 * b->cap, b->len + extra + 64);
	b->s = realloc(b->s, b->cap);
	if (!b->s)
		abort();
}

void
str_addn(struct str *b, const char *text, size_t n)
{
	str_room(b, n);
	memcpy(b->s + b->len, text, n);
	b->len += n;
	b->s[b->len] = 0;
}

void
str_add(struct str *b, const char *text)
{
	str_addn(b, text, strlen(text));
}

void
str_addf(struct str *b, const char *fmt, ...)
{
	va_list ap, aq;
	int n;

	va_start(ap, fmt);
	va_copy(aq, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n > 0) {
		str_room(b, (size_t)n);
		vsnprintf(b->s + b->len, (size_t)n + 1, fmt, aq);
		b->len += (size_t)n;
	}
	va_end(aq);
}

void
str_free(struct str *b)
{
	free(b->s);
	*b = (struct str){ 0 };
}

bool
str_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	unsigned long long v;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	v = strtoull(text, &end, hex ? 16 : 10);
	if (errno || *end || end == text || (hex && end == text + 1) || v < min || v > max)
		return false;
	*out = v;
	return true;
}

bool
str_to_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char digits[32];
	size_t n = strspn(text, "0123456789");
	unsigned shift = 0;
	uint64_t v;

	if (!n || n >= sizeof(digits))
		return false;
	memcpy(digits, text, n);
	digits[n] = 0;
	if (text[n]) {
		const char *u = strchr(units, text[n] & ~0x20);

		if (!u || (text[n + 1] && strcasecmp(text + n + 1, "B") && strcasecmp(text + n + 1, "iB")))
			return false;
		shift = 10 * (unsigned)(u - units + 1);
	}
	if (!str_to_u64(digits, 0, UINT64_MAX >> shift, &v))
		return false;
	*out = v << shift;
	return true;
}

bool
str_starts(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

bool
str_ends(const char *s, const char *suffix)
{
	size_t a = strlen(s), b = strlen(suffix);

	return a >= b && !strcmp(s + a - b, suffix);
}

struct uuid
uuid_random(void)
{
	struct uuid u;

	if (getrandom(u.b, sizeof(u.b), 0) != sizeof(u.b))
		abort();
	u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40); /* RFC 4122 section 4.4 */
	u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
	return u;
}

void
uuid_text(const struct uuid *u, char out[37])
{
	static const char hex[] = "0123456789abcdef";
	char *p = out;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[u->b[i] >> 4];
		*p++ = hex[u->b[i] & 15];
	}
	*p = 0;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
uuid_parse(const char *text, struct uuid *out)
{
	size_t n = strlen(text);
	struct uuid u;

	if (n == 38 && text[0] == '{' && text[37] == '}')
		text++;
	else if (n != 36)
		return false;
	for (int i = 0; i < 16; i++) {
		int hi, lo;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		hi = hex_digit(text[0]);
		lo = hi < 0 ? -1 : hex_digit(text[1]);
		if (lo < 0)
			return false;
		u.b[i] = (uint8_t)(hi << 4 | lo);
		text += 2;
	}
	*out = u;
	return true;
}

ssize_t
read_full(int fd, void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = read(fd, (char *)buf + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

ssize_t
write_full(int fd, const void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = write(fd, (const char *)buf + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

void *
file_read(const char *path, size_t max, size_t *len, struct err *e)
{
	char *buf = NULL;
	struct stat st;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "cannot open '%s'", path);
		return NULL;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		err_set(e, ERR_FILE, "'%s' is not a regular file", path);
		goto fail;
	}
	if ((uint64_t)st.st_size > max) {
		err_set(e, ERR_FILE, "'%s' is %lld bytes, more than the %zu allowed here", path, (long long)st.st_size,
			max);
		goto fail;
	}
	buf = malloc((size_t)st.st_size + 1);
	if (!buf) {
		err_set(e, ERR_FAILED, "no memory for %lld bytes of '%s'", (long long)st.st_size, path);
		goto fail;
	}
	n = read_full(fd, buf, (size_t)st.st_size);
	if (n < 0) {
		err_sys(e, ERR_FILE, (int)n, "cannot read '%s'", path);
		goto fail;
	}
	buf[n] = 0;
	*len = (size_t)n;
	close(fd);
	return buf;
fail:
	free(buf);
	close(fd);
	return NULL;
}

int
file_replace(const char *path, const void *data, size_t len, int mode, struct err *e)
{
	char *tmp = xasprintf("%s.%ld.new", path, (long)getpid()), *dir = xstrdup(path), *slash;
	int fd, r;

	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "cannot create '%s'", tmp);
		goto fail;
	}
	r = (int)write_full(fd, data, len);
	if (r < 0 || fsync(fd)) {
		err_sys(e, ERR_FILE, r < 0 ? r : errno, "cannot write '%s'", tmp);
		close(fd);
		goto fail_unlink;
	}
	close(fd);
	if (rename(tmp, path)) {
		err_sys(e, ERR_FILE, errno, "cannot rename '%s' to '%s'", tmp, path);
		goto fail_unlink;
	}
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(tmp);
	free(dir);
	return 0;
fail_unlink:
	unlink(tmp);
fail:
	free(tmp);
	free(dir);
	return -1;
}

int
dir_make(const char *path, int mode, struct err *e)
{
	char *p = xstrdup(path);
	int r = 0;

	for (char *s = p + 1; !r; s++) {
		char c = *s;

		if (c && c != '/')
			continue;
		*s = 0;
		if (mkdir(p, (mode_t)mode) && errno != EEXIST)
			r = err_sys(e, ERR_FILE, errno, "cannot create directory '%s'", p);
		*s = c;
		if (!c)
			break;
	}
	free(p);
	return r;
}
