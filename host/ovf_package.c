/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an appliance lies.
 *
 *	DIR/NAME.ovf	the envelope; DIR/NAME.mf its manifest, if there is one; the files it names are beside it
 *	NAME.ova	a tar archive (ustar, GNU or pax) of the same: the envelope is its first entry NAME.ovf
 *
 * The manifest has a line for each file, "SHA256(box.ovf)= hexadecimal"; SHA1 and SHA512 are taken as well. A file
 * whose digest is another than it says is refused. A file it does not mention is taken, like one without a manifest.
 *
 * An archive is read from its beginning for each file that is fetched; entries that are not wanted are skipped by
 * seeking. Only regular files count, their names have no part "..", and nothing is written but to the scratch
 * directory, under a name of our own.
 */
#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "host/ovf.h"

#define PIECE (1u << 20)
#define MANIFEST_MAX (1u << 20)
#define ENTRIES_MAX 4096
#define DIGESTS_MAX 1024

bool
package_name_ok(const char *name)
{
	const char *p = name;

	if (!*name || *name == '/' || strlen(name) > 1000 || strstr(name, "://"))
		return false;
	for (const char *q = name; *q; q++)
		if (iscntrl((unsigned char)*q) || *q == '\\')
			return false;
	while (*p) {
		size_t n = strcspn(p, "/");

		if (!n || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n + (p[n] == '/');
	}
	return name[strlen(name) - 1] != '/';
}

/* ---- digests ---- */

static void
to_hex(const unsigned char *d, unsigned n, char hex[129])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < n; i++) {
		hex[2 * i] = digits[d[i] >> 4];
		hex[2 * i + 1] = digits[d[i] & 15];
	}
	hex[2 * n] = 0;
}

static EVP_MD_CTX *
digest_begin(const char *algorithm)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (!ctx || !EVP_DigestInit_ex(ctx, EVP_get_digestbyname(algorithm), NULL))
		abort();
	return ctx;
}

static void
digest_end(EVP_MD_CTX *ctx, char hex[129])
{
	unsigned char d[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	EVP_DigestFinal_ex(ctx, d, &n);
	to_hex(d, n, hex);
	EVP_MD_CTX_free(ctx);
}

static void
digest_text(const char *algorithm, const char *text, size_t len, char hex[129])
{
	EVP_MD_CTX *ctx = digest_begin(algorithm);

	EVP_DigestUpdate(ctx, text, len);
	digest_end(ctx, hex);
}

static bool
is_stopped(const struct block_progress *p)
{
	return p && p->stopped && p->stopped(p->opaque);
}

static int
cancelled(struct err *e)
{
	return err_set(e, ERR_FAILED, "It was cancelled");
}

int
package_digest(
	const char *path, const char *algorithm, char hex[129], const struct block_progress *progress, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t *buf = malloc(PIECE);
	EVP_MD_CTX *ctx;
	ssize_t n = 0;
	int r = 0;

	if (fd < 0 || !buf) {
		err_sys(e, ERR_FILE, errno, "'%s' cannot be read", path);
		free(buf);
		return -1;
	}
	ctx = digest_begin(algorithm);
	while (!r && (n = read_full(fd, buf, PIECE)) > 0) {
		EVP_DigestUpdate(ctx, buf, (size_t)n);
		if (is_stopped(progress))
			r = cancelled(e);
	}
	if (n < 0)
		r = err_sys(e, ERR_FILE, (int)n, "'%s' cannot be read", path);
	digest_end(ctx, hex);
	free(buf);
	close(fd);
	return r;
}

static const char *
algorithm_of(const char *word, size_t n)
{
	static const char *const names[][2] = { { "SHA1", "SHA1" }, { "SHA256", "SHA256" }, { "SHA512", "SHA512" } };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strlen(names[i][0]) == n && !strncasecmp(word, names[i][0], n))
			return names[i][1];
	return NULL;
}

/* "SHA256 (name)= hex" */
static int
parse_digest(struct ovf_package *p, const char *line, size_t len, struct err *e)
{
	const char *open = memchr(line, '(', len), *close = NULL, *equals, *hex, *end = line + len;
	struct ovf_digest *d;
	size_t word;

	for (const char *q = end; open && q-- > open && !close;)
		if (*q == ')')
			close = q;
	equals = close ? memchr(close, '=', (size_t)(end - close)) : NULL;
	if (!open || !equals || p->digests == DIGESTS_MAX)
		return err_set(e, ERR_FILE, "its line '%.*s' is not of the form SHA256(FILE)= DIGEST",
			(int)MIN(len, 100u), line);
	word = (size_t)(open - line);
	while (word && isblank((unsigned char)line[word - 1]))
		word--;
	hex = equals + 1;
	while (hex < end && isblank((unsigned char)*hex))
		hex++;
	while (end > hex && isspace((unsigned char)end[-1]))
		end--;
	p->digest = realloc(p->digest, (size_t)(p->digests + 1) * sizeof(*d));
	if (!p->digest)
		abort();
	d = &p->digest[p->digests];
	d->algorithm = algorithm_of(line, word);
	if (!d->algorithm)
		return err_set(e, ERR_UNSUPPORTED, "its digest '%.*s' is not known: SHA1, SHA256 and SHA512 are",
			(int)MIN(word, 40u), line);
	if ((size_t)(end - hex) != 2 * (size_t)EVP_MD_get_size(EVP_get_digestbyname(d->algorithm)))
		return err_set(e, ERR_FILE, "its digest '%.*s' has the wrong length", (int)MIN(end - hex, 140), hex);
	for (int i = 0; hex + i < end; i++)
		d->hex[i] = (char)tolower((unsigned char)hex[i]);
	d->hex[end - hex] = 0;
	d->file = strndup(open + 1, (size_t)(close - open - 1));
	p->digests++;
	return 0;
}

static int
parse_manifest(struct ovf_package *p, const char *text, size_t len, struct err *e)
{
	for (size_t at = 0; at < len;) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t n = end ? (size_t)(end - text) - at : len - at;
		bool blank = true;

		for (size_t i = at; i < at + n; i++)
			blank &= isspace((unsigned char)text[i]) != 0;
		if (!blank && parse_digest(p, text + at, n, e))
			return err_wrap(e, "The manifest of '%s' cannot be used", p->path);
		at += n + 1;
	}
	return 0;
}

static const struct ovf_digest *
digest_of(const struct ovf_package *p, const char *name)
{
	for (int i = 0; i < p->digests; i++)
		if (!strcmp(p->digest[i].file, name))
			return &p->digest[i];
	return NULL;
}

static int
compare_digest(const struct ovf_package *p, const struct ovf_digest *d, const char *hex, struct err *e)
{
	if (!strcmp(d->hex, hex))
		return 0;
	return err_set(e, ERR_FILE,
		"The %s digest of '%s' in '%s' is %s, and the manifest says %s: the file was damaged or changed",
		d->algorithm, d->file, p->path, hex, d->hex);
}

/* ---- archives ---- */

static struct archive *
open_archive(const struct ovf_package *p, struct err *e)
{
	struct archive *a = archive_read_new();

	if (!a)
		abort();
	archive_read_support_format_tar(a);
	if (archive_read_open_filename(a, p->path, 1 << 16) != ARCHIVE_OK) {
		err_set(e, ERR_FILE, "'%s' cannot be read as an OVA: %s", p->path, archive_error_string(a));
		archive_read_free(a);
		return NULL;
	}
	return a;
}

/* The next regular file: 1; 0 at the end; -1 and *e. `seen` counts entries. */
static int
next_entry(const struct ovf_package *p, struct archive *a, int *seen, const char **name, int64_t *size, struct err *e)
{
	struct archive_entry *entry;
	int r;

	while ((r = archive_read_next_header(a, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
		if (++*seen > ENTRIES_MAX)
			return err_set(e, ERR_FILE, "'%s' has more than %d entries", p->path, ENTRIES_MAX);
		*name = archive_entry_pathname(entry);
		if (archive_entry_filetype(entry) == AE_IFDIR)
			continue;
		if (!*name || !package_name_ok(*name))
			return err_set(e, ERR_FILE, "'%s' has an entry with the name '%.200s', which could leave it",
				p->path, *name ? *name : "");
		if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
			return err_set(e, ERR_FILE, "'%s' has the entry '%.200s', which is no file", p->path, *name);
		*size = archive_entry_size(entry);
		return 1;
	}
	if (r == ARCHIVE_EOF)
		return 0;
	return err_set(e, ERR_FILE, "'%s' cannot be read as an OVA: %s", p->path, archive_error_string(a));
}

static char *
read_entry(const struct ovf_package *p, struct archive *a, const char *name, int64_t size, size_t max, struct err *e)
{
	char *buf;
	la_ssize_t n;

	if (size < 0 || (uint64_t)size > max) {
		err_set(e, ERR_FILE, "'%s' in '%s' has %lld bytes: more than the %zu that are read", name, p->path,
			(long long)size, max);
		return NULL;
	}
	buf = malloc((size_t)size + 1);
	if (!buf)
		abort();
	n = archive_read_data(a, buf, (size_t)size);
	if (n != size) {
		err_set(e, ERR_FILE, "'%s' in '%s' cannot be read: %s", name, p->path,
			n < 0 ? archive_error_string(a) : "it is truncated");
		free(buf);
		return NULL;
	}
	buf[size] = 0;
	return buf;
}

/* The envelope, and the manifest that has its name. */
static int
read_archive_texts(struct ovf_package *p, char **manifest, size_t *manifest_len, struct err *e)
{
	struct archive *a = open_archive(p, e);
	const char *name;
	int64_t size;
	int seen = 0, r = a ? 1 : -1;

	while (r > 0 && (r = next_entry(p, a, &seen, &name, &size, e)) > 0) {
		if (!p->name && str_ends(name, ".ovf")) {
			p->name = xstrdup(name);
			p->text = read_entry(p, a, name, size, XML_SIZE_MAX, e);
			p->len = p->text ? (size_t)size : 0;
			r = p->text ? 1 : -1;
		} else if (!*manifest && str_ends(name, ".mf")) {
			*manifest = read_entry(p, a, name, size, MANIFEST_MAX, e);
			*manifest_len = *manifest ? (size_t)size : 0;
			r = *manifest ? 1 : -1;
		}
	}
	if (a)
		archive_read_free(a);
	if (!r && !p->text)
		r = err_set(e, ERR_FILE, "'%s' has no .ovf file", p->path);
	return r;
}

/* ---- beside the envelope ---- */

/* A regular file, and not by way of a link: a package of a stranger must not name files of ours. */
static char *
file_beside(const struct ovf_package *p, const char *name, struct err *e)
{
	char *path = xasprintf("%s/%s", strcmp(p->dir, "/") ? p->dir : "", name);
	struct stat st;

	/* What is between may be a link too. */
	for (char *slash = path + strlen(p->dir) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = 0;
		if (!lstat(path, &st) && !S_ISDIR(st.st_mode)) {
			err_set(e, ERR_FILE, "'%s' is no directory", path);
			free(path);
			return NULL;
		}
	}
	if (lstat(path, &st))
		err_sys(e, ERR_FILE, errno, "The appliance's file '%s' cannot be found", path);
	else if (!S_ISREG(st.st_mode))
		err_set(e, ERR_FILE, "The appliance's file '%s' is no regular file", path);
	else
		return path;
	free(path);
	return NULL;
}

static int
read_texts_beside(struct ovf_package *p, char **manifest, size_t *manifest_len, struct err *e)
{
	char *path = xasprintf("%.*s.mf", (int)(strlen(p->path) - 4), p->path);

	p->name = xstrdup(strrchr(p->path, '/') + 1);
	p->text = file_read(p->path, XML_SIZE_MAX, &p->len, e);
	if (p->text && !access(path, F_OK))
		*manifest = file_read(path, MANIFEST_MAX, manifest_len, e);
	else
		free(path), path = NULL;
	if (p->text && path && !*manifest) {
		free(path);
		return -1;
	}
	free(path);
	return p->text ? 0 : err_wrap(e, "The appliance '%s' cannot be read", p->path);
}

/* ---- both ---- */

struct ovf_package *
package_open(const char *path, struct err *e)
{
	struct ovf_package *p = xcalloc(1, sizeof(*p));
	char *manifest = NULL, hex[129];
	size_t manifest_len = 0;
	const struct ovf_digest *d;
	int r;

	p->path = host_absolute_path(path);
	p->dir = xasprintf("%.*s", (int)MAX(strrchr(p->path, '/') - p->path, 1), p->path);
	p->ova = strlen(p->path) > 4 && !strcasecmp(p->path + strlen(p->path) - 4, ".ova");
	if (!p->ova && (strlen(p->path) < 5 || strcasecmp(p->path + strlen(p->path) - 4, ".ovf")))
		r = err_set(e, ERR_FILE, "Appliance file '%s' has neither the suffix .ovf nor .ova", p->path);
	else if (access(p->path, R_OK))
		r = err_sys(e, ERR_FILE, errno, "The appliance '%s' cannot be read", p->path);
	else
		r = p->ova ? read_archive_texts(p, &manifest, &manifest_len, e)
			   : read_texts_beside(p, &manifest, &manifest_len, e);
	if (!r && manifest)
		r = parse_manifest(p, manifest, manifest_len, e);
	if (!r && (d = digest_of(p, p->name))) {
		digest_text(d->algorithm, p->text, p->len, hex);
		r = compare_digest(p, d, hex, e);
	}
	free(manifest);
	if (!r)
		return p;
	package_free(p);
	return NULL;
}

void
package_free(struct ovf_package *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->digests; i++)
		free(p->digest[i].file);
	free(p->digest);
	free(p->path);
	free(p->dir);
	free(p->name);
	free(p->text);
	free(p);
}

/* ---- fetching ---- */

static int
create_new(const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		err_sys(e, ERR_FILE, errno, "'%s' cannot be created", path);
	return fd;
}

static void
tell(const struct block_progress *p, uint64_t done, uint64_t all)
{
	if (p && p->percent && all)
		p->percent(p->opaque, (int)(MIN(done, all) * 100 / all));
}

/* The entry that the archive stands at, into `fd`. No more than the archive itself has bytes: no sparse monsters. */
static int
copy_entry(struct ovf_package *p, struct archive *a, int fd, int64_t size, EVP_MD_CTX *digest,
	const struct block_progress *progress, struct err *e)
{
	uint8_t *buf = malloc(PIECE);
	int64_t done = 0;
	struct stat st;
	la_ssize_t n = 0;
	int r = 0;

	if (!buf)
		abort();
	if (stat(p->path, &st) || size < 0 || size > st.st_size)
		r = err_set(e, ERR_FILE, "an entry claims to have %lld bytes, and the archive has %lld",
			(long long)size, (long long)st.st_size);
	while (!r && (n = archive_read_data(a, buf, PIECE)) > 0) {
		ssize_t w = done + n > size ? -EFBIG : write_full(fd, buf, (size_t)n);

		done += n;
		if (digest)
			EVP_DigestUpdate(digest, buf, (size_t)n);
		if (w != n)
			r = err_sys(e, ERR_FILE, w < 0 ? (int)w : -EIO, "it cannot be written");
		else if (is_stopped(progress))
			r = cancelled(e);
		tell(progress, (uint64_t)done, (uint64_t)size);
	}
	if (!r && (n < 0 || done != size))
		r = err_set(e, ERR_FILE, "%s", n < 0 ? archive_error_string(a) : "it is truncated");
	free(buf);
	return r;
}

static int
extract(struct ovf_package *p, const char *href, const char *to, const struct block_progress *progress, struct err *e)
{
	const struct ovf_digest *d = digest_of(p, href);
	struct archive *a = open_archive(p, e);
	EVP_MD_CTX *ctx = NULL;
	char hex[129];
	const char *name;
	int64_t size;
	int seen = 0, fd = -1, r = a ? 1 : -1;

	while (r > 0 && (r = next_entry(p, a, &seen, &name, &size, e)) > 0)
		if (!strcmp(name, href))
			break;
	if (!r)
		r = err_set(e, ERR_FILE, "'%s' does not have the file '%s' that its envelope names", p->path, href);
	if (r > 0) {
		fd = create_new(to, e);
		r = fd < 0 ? -1 : 0;
	}
	if (!r) {
		ctx = d ? digest_begin(d->algorithm) : NULL;
		r = copy_entry(p, a, fd, size, ctx, progress, e);
		if (r)
			err_wrap(e, "'%s' cannot be taken out of '%s'", href, p->path);
		if (ctx)
			digest_end(ctx, hex);
		if (!r && d)
			r = compare_digest(p, d, hex, e);
	}
	if (fd >= 0)
		close(fd);
	if (a)
		archive_read_free(a);
	return r;
}

static int
unpack(const char *from, const char *to, uint64_t limit, const struct block_progress *progress, struct err *e)
{
	gzFile in = gzopen(from, "rbe");
	int out = in ? create_new(to, e) : -1, n = 0, r = 0;
	uint8_t *buf = malloc(PIECE);
	uint64_t done = 0;

	if (!in)
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be read", from);
	else if (out < 0 || !buf || gzdirect(in))
		r = out < 0 ? -1 : err_set(e, ERR_FILE, "'%s' is not compressed with gzip", from);
	while (!r && (n = gzread(in, buf, PIECE)) > 0) {
		done += (uint64_t)n;
		if (done > limit)
			r = err_set(e, ERR_FILE, "'%s' unpacks to more than the %llu bytes that its disk can need",
				from, (unsigned long long)limit);
		else if (write_full(out, buf, (size_t)n) != n)
			r = err_sys(e, ERR_FILE, errno, "'%s' cannot be written", to);
		else if (is_stopped(progress))
			r = cancelled(e);
	}
	n = in && gzclose_r(in) != Z_OK ? -1 : n;
	if (!r && n < 0)
		r = err_set(e, ERR_FILE, "'%s' cannot be unpacked: it is damaged or truncated", from);
	if (out >= 0)
		close(out);
	free(buf);
	return r;
}

char *
package_fetch(struct ovf_package *p, const struct ovf_file *f, const char *scratch, uint64_t limit,
	const struct block_progress *progress, struct err *e)
{
	char *path = NULL, *plain = xasprintf("%s/plain", scratch), hex[129];
	const struct ovf_digest *d = digest_of(p, f->href);
	int r = 0;

	if (!package_name_ok(f->href)) {
		err_set(e, ERR_FILE, "The envelope of '%s' names the file '%.200s', which is not in the package",
			p->path, f->href);
		free(plain);
		return NULL;
	}
	if (p->ova) {
		path = xasprintf("%s/packed", scratch);
		unlink(path);
		r = extract(p, f->href, path, progress, e);
	} else {
		path = file_beside(p, f->href, e);
		r = path ? 0 : -1;
		if (!r && d) {
			r = package_digest(path, d->algorithm, hex, progress, e);
			r = r ? r : compare_digest(p, d, hex, e);
		}
	}
	if (!r && f->gzip) {
		unlink(plain);
		r = unpack(path, plain, limit, progress, e);
		if (p->ova)
			unlink(path);
		free(path);
		path = plain;
		plain = NULL;
	}
	free(plain);
	if (!r)
		return path;
	free(path);
	return NULL;
}
