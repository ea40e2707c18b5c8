/* SPDX-License-Identifier: Apache-2.0 */
/* Texts kept in an image as lines "key=value". Private to block/. */
#ifndef BLOCK_LINES_H
#define BLOCK_LINES_H

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* The line of `key` in `text` (may be NULL), and its length with the end of the line; NULL: there is none. */
static inline const char *
lines_find(const char *text, const char *key, size_t *len)
{
	size_t n = strlen(key);

	for (const char *p = text ? text : ""; *p; p += *len) {
		*len = strcspn(p, "\n");
		*len += p[*len] == '\n';
		if (!strncmp(p, key, n) && p[n] == '=')
			return p;
	}
	return NULL;
}

/* The value of `key`; free() it. */
static inline char *
lines_get(const char *text, const char *key)
{
	size_t len;
	const char *line = lines_find(text, key, &len), *value = line ? line + strlen(key) + 1 : NULL;

	return line ? xasprintf("%.*s", (int)strcspn(value, "\n"), value) : NULL;
}

/* `text` (taken) with the line of `key` replaced, or without it when `value` is NULL. */
static inline char *
lines_edit(char *text, const char *key, const char *value)
{
	struct str s = { 0 };
	size_t len;
	const char *line = lines_find(text, key, &len);

	str_addn(&s, text ? text : "", line ? (size_t)(line - text) : text ? strlen(text) : 0);
	if (line)
		str_add(&s, line + len);
	if (value)
		str_addf(&s, "%s=%s\n", key, value);
	free(text);
	return s.s ? s.s : xstrdup("");
}

#endif
