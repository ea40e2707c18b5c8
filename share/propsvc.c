/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service "VBoxGuestPropSvc": guest properties for guests.
 *
 *	function          parameters (p: buffer, 4, 8: numbers)
 *	1 get             p name, p out: value NUL flags NUL, 8 out: time, 4 out: bytes needed
 *	2 set             p name, p value, p flags
 *	3 set value       p name, p value
 *	4 delete          p name
 *	5 enumerate       p patterns, p out: name value time flags, each with its NUL, and four NULs, 4 out: bytes needed
 *	6 notification    p patterns, 8 in out: time of the last one seen, p out: name value flags, 4 out: bytes needed
 *
 * The last one waits: it ends when something changes, or is cancelled.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "share/private.h"

/* A buffer as a string: NUL-terminated within its size. */
static const char *
text_of(const struct share_parm *p)
{
	return p->size && memchr(p->data, 0, p->size) ? (const char *)p->data : NULL;
}

static int
put_out(const struct str *b, struct share_parm *out, struct share_parm *needed)
{
	needed->value = b->len;
	if (b->len > out->size)
		return SHARE_BUFFER_OVERFLOW;
	memcpy(out->data, b->s, b->len);
	return SHARE_OK;
}

static void
add_text(struct str *b, const char *text)
{
	str_addn(b, text, strlen(text) + 1);
}

static int
get(struct props *props, struct share_call *c)
{
	const char *name = text_of(&c->parm[0]);
	char flags[PROP_FLAGS_SIZE];
	struct str b = { 0 };
	struct prop p;
	int r;

	if (!name)
		return SHARE_INVALID_PARAMETER;
	if (!props_get(props, name, &p))
		return SHARE_NOT_FOUND;
	add_text(&b, p.value);
	add_text(&b, prop_flags_text(p.flags, flags));
	c->parm[2].value = (uint64_t)p.time;
	r = put_out(&b, &c->parm[1], &c->parm[3]);
	str_free(&b);
	return r;
}

static int
set(struct props *props, struct share_call *c, bool with_flags)
{
	const char *name = text_of(&c->parm[0]), *value = text_of(&c->parm[1]);
	const char *text = with_flags ? text_of(&c->parm[2]) : "";
	unsigned flags;

	if (!name || !value || !text || !prop_flags_parse(text, &flags))
		return SHARE_INVALID_PARAMETER;
	return props_set(props, PROP_BY_GUEST, name, value, with_flags ? &flags : NULL);
}

static void
add_row(void *opaque, const struct prop *p)
{
	struct str *b = opaque;
	char flags[PROP_FLAGS_SIZE], when[24];

	add_text(b, p->name);
	add_text(b, p->value);
	snprintf(when, sizeof(when), "%" PRId64, p->time);
	add_text(b, when);
	add_text(b, prop_flags_text(p->flags, flags));
}

/* Patterns come separated by NULs, or by |. */
static char *
patterns_of(const struct share_parm *p)
{
	char *text = xcalloc((size_t)p->size + 1, 1);
	size_t n = p->size;

	memcpy(text, p->data, n);
	while (n && !text[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		if (!text[i])
			text[i] = '|';
	return text;
}

static int
enumerate(struct props *props, struct share_call *c)
{
	char *patterns = patterns_of(&c->parm[0]);
	struct str b = { 0 };
	int r;

	props_each(props, patterns, add_row, &b);
	str_addn(&b, "\0\0\0", 4);
	r = put_out(&b, &c->parm[1], &c->parm[2]);
	str_free(&b);
	free(patterns);
	return r;
}

static int
tell_change(struct share_call *c, const struct prop *p)
{
	char flags[PROP_FLAGS_SIZE];
	struct str b = { 0 };
	int r;

	add_text(&b, p->name);
	add_text(&b, p->value);
	add_text(&b, prop_flags_text(p->flags, flags));
	c->parm[1].value = (uint64_t)p->time;
	r = put_out(&b, &c->parm[2], &c->parm[3]);
	str_free(&b);
	return r;
}

static void
changed(void *opaque, const struct prop *p)
{
	struct share_call *c = opaque;

	call_end(c, tell_change(c, p));
}

static void
notification(struct props *props, struct share_call *c)
{
	char *patterns = patterns_of(&c->parm[0]);
	struct prop now;

	if (!props_wait(props, patterns, (int64_t)c->parm[1].value, changed, c, &now))
		call_end(c, now.name[0] ? tell_change(c, &now) : SHARE_RESOURCE_BUSY);
	free(patterns);
}

static int
remove_one(struct props *props, struct share_call *c)
{
	const char *name = text_of(&c->parm[0]);
	int r = name ? props_delete(props, PROP_BY_GUEST, name) : SHARE_INVALID_PARAMETER;

	return r == SHARE_NOT_FOUND ? SHARE_OK : r; /* it is not there: as wanted */
}

void
propsvc_call(struct share *s, struct share_call *c)
{
	struct props *props = s->o.props;

	if (c->function == 1 && call_has(c, "bb84"))
		call_end(c, get(props, c));
	else if (c->function == 2 && call_has(c, "bbb"))
		call_end(c, set(props, c, true));
	else if (c->function == 3 && call_has(c, "bb"))
		call_end(c, set(props, c, false));
	else if (c->function == 4 && call_has(c, "b"))
		call_end(c, remove_one(props, c));
	else if (c->function == 5 && call_has(c, "bb4"))
		call_end(c, enumerate(props, c));
	else if (c->function == 6 && call_has(c, "b8b4"))
		notification(props, c);
	else
		call_end(c, c->function >= 1 && c->function <= 6 ? SHARE_INVALID_PARAMETER : SHARE_NOT_IMPLEMENTED);
}
