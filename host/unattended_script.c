/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates of answers and scripts. They are written as VirtualBox's are, so that those people have made for it work:
 *
 *	@@VBOX_INSERT_NAME@@		the value; with _SH, _ELEMENT, _ATTRIB_DQ or (ours) _YAML behind NAME it is
 *					quoted for a shell, for XML text or attributes, for YAML
 *	@@VBOX_COND_NAME@@ ...		what follows is there when the condition holds; NOT_ before NAME turns it round;
 *	@@VBOX_COND_ELSE@@ ...		conditions nest
 *	@@VBOX_COND_END@@
 *
 * A name that is not in the tables below is an error that says which, on which line: an answer that is silently left
 * out makes an installer stop and ask.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/inv.h"
#include "host/unattended_priv.h"

#define MARK "@@VBOX_"
#define NEST_MAX 16

struct expansion {
	struct str out;
	const char *name;
	const struct script_values *v;
	bool on[NEST_MAX + 1]; /* on[depth]: is text being written? */
	bool seen_else[NEST_MAX + 1];
	int depth;
	int line;
};

/* ---- values ---- */

static char *
host_part(const char *fqdn, bool domain)
{
	size_t n = strcspn(fqdn, ".");

	if (domain)
		return xstrdup(fqdn[n] ? fqdn + n + 1 : "");
	return xasprintf("%.*s", (int)n, fqdn);
}

/* The value of an insert; free() it. NULL: there is none of this name. */
static char *
value_of(const struct script_values *v, const char *name)
{
	const struct host_unattended *u = v->u;
	const struct {
		const char *name, *value;
	} rows[] = {
		{ "USER_LOGIN", u->user },
		{ "USER_PASSWORD", u->password },
		{ "ROOT_PASSWORD", u->password },
		{ "USER_PASSWORD_CRYPTED", v->crypted },
		{ "ROOT_PASSWORD_CRYPTED", v->crypted },
		{ "USER_FULL_NAME", *u->full_name ? u->full_name : u->user },
		{ "PRODUCT_KEY", u->key },
		{ "POST_INSTALL_COMMAND", u->post_command },
		{ "LOCALE", u->locale },
		{ "COUNTRY", u->country },
		{ "LANGUAGE", u->language },
		{ "TIME_ZONE_UX", u->time_zone },
		{ "HOSTNAME_FQDN", u->hostname },
		{ "PROXY", u->proxy },
		{ "OS_ARCH", str_ends(u->detected.ostype, "_64") ? "amd64" : "i386" },
		{ "VOLUME_LABEL", u->detected.label },
		{ "MACHINE_UUID", v->machine_uuid },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!strcmp(name, rows[i].name))
			return xstrdup(rows[i].value);
	if (!strcmp(name, "HOSTNAME_WITHOUT_DOMAIN"))
		return host_part(u->hostname, false);
	if (!strcmp(name, "HOSTNAME_DOMAIN"))
		return host_part(u->hostname, true);
	if (!strcmp(name, "IMAGE_INDEX"))
		return xasprintf("%u", u->image_index);
	return NULL;
}

/* 1, 0; -1: there is none of this name. */
static int
condition_of(const struct script_values *v, const char *name)
{
	const struct host_unattended *u = v->u;
	const struct {
		const char *name;
		bool value;
	} rows[] = {
		{ "IS_INSTALLING_ADDITIONS", u->install_additions },
		{ "HAS_ADDITIONS_ISO", v->has_additions },
		{ "IS_MINIMAL_INSTALLATION", !strcmp(u->packages, "minimal") },
		{ "HAS_POST_INSTALL_COMMAND", *u->post_command },
		{ "HAS_PRODUCT_KEY", *u->key },
		{ "HAS_PROXY", *u->proxy },
		{ "HAS_PACKAGES", u->detected.packages },
		{ "IS_FEDORA", strstr(u->detected.flavor, "Fedora") != NULL },
		{ "IS_RTC_USING_UTC", v->utc },
		{ "IS_FIRMWARE_UEFI", false },
		{ "IS_USER_LOGIN_ADMINISTRATOR", !strcmp(u->user, "Administrator") },
		{ "IS_INSTALLING_TEST_EXEC_SERVICE", false },
		{ "AVOID_UPDATES_OVER_NETWORK", false },
	};

	if (str_starts(name, "NOT_")) {
		int r = condition_of(v, name + 4);

		return r < 0 ? r : !r;
	}
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!strcmp(name, rows[i].name))
			return rows[i].value;
	return -1;
}

/* ---- quoting ---- */

static void
quote_shell(struct str *out, const char *s)
{
	str_add(out, "'");
	for (; *s; s++)
		if (*s == '\'')
			str_add(out, "'\\''");
		else
			str_addn(out, s, 1);
	str_add(out, "'");
}

static void
quote_xml(struct str *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '&')
			str_add(out, "&amp;");
		else if (*s == '<')
			str_add(out, "&lt;");
		else if (*s == '>')
			str_add(out, "&gt;");
		else if (*s == '"')
			str_add(out, "&quot;");
		else
			str_addn(out, s, 1);
	}
}

/* A JSON string is a double-quoted YAML scalar. */
static void
quote_yaml(struct str *out, const char *s)
{
	json_t *j = json_string(s);
	char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;

	str_add(out, text ? text : "\"\"");
	free(text);
	json_decref(j);
}

static void
add_raw(struct str *out, const char *s)
{
	str_add(out, s);
}

static const struct {
	const char *suffix;
	void (*add)(struct str *out, const char *s);
} quotings[] = {
	{ "_SH", quote_shell },
	{ "_ELEMENT", quote_xml },
	{ "_ATTRIB_DQ", quote_xml },
	{ "_YAML", quote_yaml },
	{ "", add_raw },
};

static bool
insert(struct expansion *x, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(quotings); i++) {
		size_t n = strlen(name), k = strlen(quotings[i].suffix);
		char *bare, *value;

		if (!str_ends(name, quotings[i].suffix))
			continue;
		bare = xasprintf("%.*s", (int)(n - k), name);
		value = value_of(x->v, bare);
		free(bare);
		if (!value)
			continue;
		if (x->on[x->depth])
			quotings[i].add(&x->out, value);
		explicit_bzero(value, strlen(value));
		free(value);
		return true;
	}
	return false;
}

/* ---- the walk ---- */

static int
wrong(struct expansion *x, const char *what, const char *mark, struct err *e)
{
	return err_set(e, ERR_INVALID, "%s:%d: %s '@@VBOX_%s@@'", x->name, x->line, what, mark);
}

static int
begin_condition(struct expansion *x, const char *mark, struct err *e)
{
	int holds = condition_of(x->v, mark + strlen("COND_"));

	if (holds < 0)
		return wrong(x, "there is no condition", mark, e);
	if (x->depth == NEST_MAX)
		return wrong(x, "conditions are nested too deep at", mark, e);
	x->on[x->depth + 1] = x->on[x->depth] && holds;
	x->seen_else[++x->depth] = false;
	return 0;
}

static int
turn_condition(struct expansion *x, const char *mark, struct err *e)
{
	if (!x->depth || x->seen_else[x->depth])
		return wrong(x, "there is no condition before", mark, e);
	x->on[x->depth] = x->on[x->depth - 1] && !x->on[x->depth];
	x->seen_else[x->depth] = true;
	return 0;
}

static int
mark(struct expansion *x, const char *text, struct err *e)
{
	if (!strcmp(text, "COND_ELSE"))
		return turn_condition(x, text, e);
	if (!strcmp(text, "COND_END"))
		return x->depth-- ? 0 : wrong(x, "there is no condition before", text, e);
	if (str_starts(text, "COND_"))
		return begin_condition(x, text, e);
	if (str_starts(text, "INSERT_") && insert(x, text + strlen("INSERT_")))
		return 0;
	return wrong(x, "there is no place", text, e);
}

static void
literal(struct expansion *x, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x->line += text[i] == '\n';
	if (x->on[x->depth])
		str_addn(&x->out, text, n);
}

/* A condition alone on its line takes the line with it. */
static const char *
skip_line_end(const char *begin, const char *from, const char *after, const char *text)
{
	bool alone = (from == begin || from[-1] == '\n') && *after == '\n';

	return alone && str_starts(text, "COND_") ? after + 1 : after;
}

static int
walk(struct expansion *x, const char *begin, struct err *e)
{
	const char *p = begin, *at, *end;

	while ((at = strstr(p, MARK))) {
		char text[96];
		size_t n;

		literal(x, p, (size_t)(at - p));
		end = strstr(at + strlen(MARK), "@@");
		n = end ? (size_t)(end - at) - strlen(MARK) : sizeof(text);
		if (n >= sizeof(text) || memchr(at, '\n', end ? (size_t)(end - at) : 0))
			return err_set(
				e, ERR_INVALID, "%s:%d: a place begins and does not end on its line", x->name, x->line);
		snprintf(text, sizeof(text), "%.*s", (int)n, at + strlen(MARK));
		if (mark(x, text, e))
			return -1;
		p = skip_line_end(begin, at, end + 2, text);
		x->line += p > end + 2;
	}
	literal(x, p, strlen(p));
	if (x->depth)
		return err_set(e, ERR_INVALID, "%s: a condition is not ended with @@VBOX_COND_END@@", x->name);
	return 0;
}

char *
script_expand(const char *text, const char *name, const struct script_values *v, struct err *e)
{
	struct expansion x = { .name = name, .v = v, .on = { true }, .line = 1 };

	str_add(&x.out, "");
	if (!walk(&x, text, e))
		return x.out.s;
	str_free(&x.out);
	return NULL;
}
