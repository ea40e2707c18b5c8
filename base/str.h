/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small helpers every layer uses: checked sizes, growing strings, numbers and UUIDs as text, whole-file reads.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Allocation of a few bytes that the process cannot do without: aborts when there is no memory. Zeroed. */
void *xcalloc(size_t n, size_t size);
char *xstrdup(const char *s);
/* A copy with ASCII letters in the other case; free() it. */
char *xstrlower(const char *s);
char *xstrupper(const char *s);
char *xvasprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A string that grows; `s` is always NUL-terminated once something was added. Zero-initialise; str_free() at the end.
 */
struct str {
	char *s;
	size_t len, cap;
};
void str_add(struct str *b, const char *text);
void str_addf(struct str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_addn(struct str *b, const char *text, size_t n);
void str_free(struct str *b);

/* All of `text` as a number, decimal or 0x-hexadecimal, within [min, max]. False otherwise; *out untouched. */
bool str_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* "64", "64K", "20M", "4G", "1T" (1024s) as bytes. */
bool str_to_size(const char *text, uint64_t *out);

bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* A random (version 4) UUID, RFC 4122; its text form is lower case, 36 characters. */
struct uuid {
	uint8_t b[16];
};
struct uuid uuid_random(void);
void uuid_text(const struct uuid *u, char out[37]);
/* With or without braces, any case. */
bool uuid_parse(const char *text, struct uuid *out);

/* The whole of a file, NUL-terminated, at most `max` bytes; *len without the NUL. NULL and *e on failure; free() it. */
void *file_read(const char *path, size_t max, size_t *len, struct err *e);
/* Write a new file beside `path`, fsync, rename over it, fsync the directory. */
int file_replace(const char *path, const void *data, size_t len, int mode, struct err *e);
/* Read or write exactly n bytes unless end of file or an error. Returns bytes done or -errno. */
ssize_t read_full(int fd, void *buf, size_t n);
ssize_t write_full(int fd, const void *buf, size_t n);
/* mkdir -p with `mode`. */
int dir_make(const char *path, int mode, struct err *e);

#endif
