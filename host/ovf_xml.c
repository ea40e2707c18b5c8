/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small tree over expat. What a document can cost is bounded before it is built: bytes, depth, elements and
 * attributes. A document type declaration ends the parsing, so there are no entities but XML's own five.
 */
#include <ctype.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "host/ovf_xml.h"

struct building {
	XML_Parser parser;
	struct xml *root, *at;
	int depth, nodes;
	const char *refused; /* why it was stopped */
};

static void
refuse(struct building *b, const char *why)
{
	if (!b->refused)
		b->refused = why;
	XML_StopParser(b->parser, XML_FALSE);
}

/* expat's names are "URI local" or "local". */
static const char *
local_name(const char *name)
{
	const char *blank = strrchr(name, ' ');

	return blank ? blank + 1 : name;
}

static void
add_attributes(struct building *b, struct xml *x, const char **atts)
{
	struct xml_attr **end = &x->attr;

	for (; atts[0] && !b->refused; atts += 2) {
		struct xml_attr *a = xcalloc(1, sizeof(*a));

		a->name = xstrdup(local_name(atts[0]));
		a->value = xstrdup(atts[1]);
		*end = a;
		end = &a->next;
		if (++b->nodes > XML_NODES_MAX)
			refuse(b, "it has too many elements and attributes");
	}
}

static void
on_start(void *opaque, const char *name, const char **atts)
{
	struct building *b = opaque;
	const char *local = local_name(name);
	struct xml *x;

	if (b->refused)
		return;
	if (++b->depth > XML_DEPTH_MAX || ++b->nodes > XML_NODES_MAX) {
		refuse(b, b->depth > XML_DEPTH_MAX ? "its elements are nested too deeply"
						   : "it has too many elements and attributes");
		return;
	}
	x = xcalloc(1, sizeof(*x));
	x->name = xstrdup(local);
	x->ns = strndup(name, local > name ? (size_t)(local - name - 1) : 0);
	x->parent = b->at;
	str_add(&x->text, "");
	if (!b->at)
		b->root = x;
	else if (b->at->last)
		b->at->last->next = x;
	else
		b->at->child = x;
	if (b->at)
		b->at->last = x;
	b->at = x;
	add_attributes(b, x, atts);
}

static void
on_end(void *opaque, const char *name)
{
	struct building *b = opaque;

	if (b->refused || !b->at)
		return;
	b->depth--;
	b->at = b->at->parent;
}

static void
on_text(void *opaque, const char *text, int len)
{
	struct building *b = opaque;

	if (!b->refused && b->at)
		str_addn(&b->at->text, text, (size_t)len);
}

static void
on_doctype(void *opaque, const char *name, const char *sysid, const char *pubid, int internal)
{
	refuse(opaque, "it has a document type declaration");
}

struct xml *
xml_parse(const char *text, size_t len, const char *what, struct err *e)
{
	struct building b = { 0 };
	enum XML_Status s;

	if (len > XML_SIZE_MAX) {
		err_set(e, ERR_XML, "'%s' has %zu bytes: more than the %u that are read", what, len, XML_SIZE_MAX);
		return NULL;
	}
	b.parser = XML_ParserCreateNS(NULL, ' ');
	if (!b.parser)
		abort();
	XML_SetUserData(b.parser, &b);
	XML_SetElementHandler(b.parser, on_start, on_end);
	XML_SetCharacterDataHandler(b.parser, on_text);
	XML_SetStartDoctypeDeclHandler(b.parser, on_doctype);
	s = XML_Parse(b.parser, text, (int)len, 1);
	if (b.refused)
		err_set(e, ERR_XML, "'%s' cannot be read: line %lu: %s", what, XML_GetCurrentLineNumber(b.parser),
			b.refused);
	else if (s != XML_STATUS_OK)
		err_set(e, ERR_XML, "'%s' cannot be read: line %lu: %s", what, XML_GetCurrentLineNumber(b.parser),
			XML_ErrorString(XML_GetErrorCode(b.parser)));
	XML_ParserFree(b.parser);
	if (s == XML_STATUS_OK && !b.refused)
		return b.root;
	xml_free(b.root);
	return NULL;
}

void
xml_free(struct xml *x)
{
	while (x) {
		struct xml *next = x->next;

		xml_free(x->child);
		for (struct xml_attr *a = x->attr, *n; a; a = n) {
			n = a->next;
			free(a->name);
			free(a->value);
			free(a);
		}
		str_free(&x->text);
		free(x->ns);
		free(x->name);
		free(x);
		x = next;
	}
}

bool
xml_is(const struct xml *x, const char *name)
{
	return !strcmp(x->name, name);
}

const struct xml *
xml_child(const struct xml *x, const char *name)
{
	const struct xml *c = x ? x->child : NULL;

	while (c && strcmp(c->name, name))
		c = c->next;
	return c;
}

const struct xml *
xml_again(const struct xml *x)
{
	const struct xml *c = x->next;

	while (c && strcmp(c->name, x->name))
		c = c->next;
	return c;
}

const char *
xml_attr(const struct xml *x, const char *name)
{
	for (const struct xml_attr *a = x ? x->attr : NULL; a; a = a->next)
		if (!strcmp(a->name, name))
			return a->value;
	return NULL;
}

char *
xml_child_text(const struct xml *x, const char *name)
{
	const struct xml *c = xml_child(x, name);
	const char *s = c ? c->text.s : "";
	size_t n;

	while (isspace((unsigned char)*s))
		s++;
	n = strlen(s);
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return n ? strndup(s, n) : NULL;
}

void
xml_escape(struct str *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '&')
			str_add(out, "&amp;");
		else if (c == '<')
			str_add(out, "&lt;");
		else if (c == '>')
			str_add(out, "&gt;");
		else if (c == '"')
			str_add(out, "&quot;");
		else if (c == '\n' || c == '\t')
			str_addf(out, "&#%d;", c);
		else if (c >= ' ') /* XML 1.0 has no other control characters */
			str_addn(out, text, 1);
	}
}
