/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Response files: "@FILE" in front of, or in place of, the command stands for the words in the file. Words are split
 * and quoted as a shell does it ('...', "..." with \" \\ \$ \`, and \ before any character; \ at the end of a line goes
 * on), without anything being expanded; a line that begins with # is a comment.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

#define RESPONSE_MAX (1u << 20)

struct words {
	char **list;
	size_t count;
};

static void
add_word(struct words *w, const struct str *text)
{
	w->list = realloc(w->list, (w->count + 2) * sizeof(*w->list));
	if (!w->list)
		abort();
	w->list[w->count++] = strndup(text->s ? text->s : "", text->len);
	w->list[w->count] = NULL;
}

/* From an opening quote to behind the closing one; NULL: there is none. */
static const char *
take_quoted(const char *p, struct str *word)
{
	char quote = *p++;

	for (; *p && *p != quote; p++) {
		if (quote == '"' && *p == '\\' && p[1] && strchr("\"\\$`", p[1]))
			p++;
		str_addn(word, p, 1);
	}
	return *p ? p + 1 : NULL;
}

/* One word at `p`; where the next begins, NULL when a quotation does not end. */
static const char *
take_word(const char *p, struct words *w)
{
	struct str word = { 0 };

	while (p && *p && !isspace((unsigned char)*p)) {
		if (*p == '\'' || *p == '"') {
			p = take_quoted(p, &word);
		} else if (p[0] == '\\' && p[1] == '\n') {
			p += 2;
		} else {
			if (*p == '\\' && p[1])
				p++;
			str_addn(&word, p++, 1);
		}
	}
	if (p)
		add_word(w, &word);
	str_free(&word);
	return p;
}

static int
split(const char *p, struct words *w)
{
	bool line_begins = true;

	while (p && *p) {
		if (*p == '#' && line_begins)
			p += strcspn(p, "\n");
		line_begins = *p == '\n' || (line_begins && isspace((unsigned char)*p));
		if (!*p)
			break;
		if (isspace((unsigned char)*p))
			p++;
		else if (p[0] == '\\' && p[1] == '\n')
			p += 2;
		else
			p = take_word(p, w);
	}
	return p ? 0 : -1;
}

int
response_file(struct cli *c, const char *path, int argc, char **argv, int *out_argc, char ***out_argv)
{
	struct words w = { 0 };
	struct err e = { 0 };
	size_t len;
	char *text = file_read(path, RESPONSE_MAX, &len, &e);
	int r;

	if (!text)
		return fail_argument(c, "Reading the response file '%s' failed: %s", path, e.text);
	r = strlen(text) == len ? split(text, &w) : -1;
	free(text);
	if (r)
		return fail_argument(
			c, "The response file '%s' is not text, or has a quotation that does not end", path);
	w.list = realloc(w.list, (w.count + (size_t)argc + 1) * sizeof(*w.list));
	if (!w.list)
		abort();
	for (int i = 0; i < argc; i++)
		w.list[w.count++] = xstrdup(argv[i]);
	w.list[w.count] = NULL;
	*out_argc = (int)w.count;
	*out_argv = w.list;
	return 0;
}
