/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestcontrol on files: copyto, copyfrom, mkdir, rmdir, rm, mv, mktemp, stat, fsinfo. Each is a word or two for the
 * guest's shell, in the user's session.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/vboxmanage/gctl.h"

/* Run `script` with the words; print what it says when `print`. */
static int
with_words(struct gctl *g, const char *script, char *const *words, bool print)
{
	struct host_guest *s = gctl_open(g);
	struct err e = { 0 };
	char *text = s ? host_guest_script(s, script, words, -1, &e) : NULL;

	host_guest_close(s);
	if (!s)
		return 1;
	if (!text)
		return gctl_fail(g, &e);
	if (print || g->verbose)
		fputs(text, stdout);
	free(text);
	return 0;
}

static int
need_words(struct gctl *g, int n, const char *what)
{
	return g->word_count < n ? fail_syntax(g->c, "No %s specified!", what) : 0;
}

/* An octal mode, or none. */
static int
check_mode(struct gctl *g)
{
	if (!g->mode || (*g->mode && strspn(g->mode, "01234567") == strlen(g->mode) && strlen(g->mode) <= 4))
		return 0;
	return fail_syntax(g->c, "Invalid mode '%s': it is an octal number", g->mode);
}

static void
say_copied(void *opaque, const char *from, const char *to)
{
	struct gctl *g = opaque;

	if (g->verbose)
		printf("Copied \"%s\" to \"%s\"\n", from, to);
}

int
gctl_copy(struct gctl *g, bool to)
{
	struct host_guest_copy c = { .recursive = g->recursive,
		.follow = g->follow,
		.no_replace = g->no_replace,
		.update = g->update,
		.said = say_copied,
		.opaque = g };
	int count = g->target ? g->word_count : g->word_count - 1;
	const char *target = g->target ? g->target : g->word_count ? g->words[g->word_count - 1] : NULL;
	struct host_guest *s;
	struct err e = { 0 };
	int r = 0;

	if (!target || count < 1)
		return fail_syntax(g->c, count < 1 && target ? "No sources specified!" : "No destination specified!");
	for (int i = 0; g->dry_run && i < count; i++)
		printf("Would copy \"%s\" to \"%s\"\n", g->words[i], target);
	if (g->dry_run)
		return 0;
	for (int i = 0; !r && i < count; i++) {
		/* A session runs one program at a time, and several make one. */
		s = gctl_open(g);
		if (!s)
			return 1;
		if (to ? host_guest_copy_to(s, g->words[i], target, &c, &e)
		       : host_guest_copy_from(s, g->words[i], target, &c, &e))
			r = gctl_fail(g, &e);
		host_guest_close(s);
		g->password_file = NULL; /* it was read */
	}
	return r;
}

int
gctl_mkdir(struct gctl *g)
{
	char *script;
	int r = need_words(g, 1, "directory to create");

	if (!r)
		r = check_mode(g);
	if (r)
		return r;
	script = xasprintf(
		"exec mkdir %s %s%s -- \"$@\"", g->parents ? "-p" : "", g->mode ? "-m " : "", g->mode ? g->mode : "");
	r = with_words(g, script, g->words, false);
	free(script);
	return r;
}

int
gctl_rmdir(struct gctl *g)
{
	int r = need_words(g, 1, "directory to remove");

	return r ? r
		 : with_words(g,
			   g->recursive ? "for d; do [ -d \"$d\" ] && [ ! -L \"$d\" ] || { echo \"not a directory: "
					  "$d\" >&2; exit 1; }; "
					  "rm -r -- \"$d\" || exit 1; done"
					: "exec rmdir -- \"$@\"",
			   g->words, false);
}

int
gctl_rm(struct gctl *g)
{
	int r = need_words(g, 1, "file to remove");

	return r ? r : with_words(g, g->force ? "exec rm -f -- \"$@\"" : "exec rm -- \"$@\"", g->words, false);
}

int
gctl_mv(struct gctl *g)
{
	int r = g->word_count < 2 ? fail_syntax(g->c, g->word_count ? "No destination specified!"
								    : "No source(s) to move specified!")
				  : 0;

	return r ? r : with_words(g, "exec mv -- \"$@\"", g->words, false);
}

int
gctl_mktemp(struct gctl *g)
{
	char *script;
	int r = need_words(g, 1, "template");

	if (!r)
		r = check_mode(g);
	if (r)
		return r;
	if (g->word_count > 1)
		return fail_syntax(g->c, "More than one template specified!");
	if (!strstr(g->words[0], "XXX"))
		return fail_syntax(g->c, "The template '%s' has no XXX in it", g->words[0]);
	if (strchr(g->words[0], '/') && g->tmpdir)
		return fail_syntax(g->c, "The template '%s' has a directory in it, and --tmpdir is given", g->words[0]);
	script =
		xasprintf("t=$1; case $t in */*) ;; *) t=${2:-/tmp}/$t ;; esac; f=$(mktemp %s \"$t\") || exit 1; %s%s%s"
			  "echo \"%s name: $f\"",
			g->directory ? "-d" : "", g->mode ? "chmod " : "", g->mode ? g->mode : "",
			g->mode ? " \"$f\" && " : "", g->directory ? "Directory" : "File");
	r = with_words(
		g, script, (char *[]){ g->words[0], (char *)(uintptr_t)(g->tmpdir ? g->tmpdir : ""), NULL }, true);
	free(script);
	return r;
}

static const char *
time_of(int64_t s, char out[40])
{
	time_t t = (time_t)s;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return out;
}

static const char *
kind_of(char kind)
{
	return kind == 'f'   ? "file"
	       : kind == 'd' ? "directory"
	       : kind == 'l' ? "symlink"
	       : kind == 'p' ? "fifo"
	       : kind == 's' ? "socket"
	       : kind == 'c' ? "device char"
	       : kind == 'b' ? "device block"
			     : "unknown";
}

static void
print_stat(const char *name, const struct host_guest_stat *st)
{
	char stamp[40];

	printf("  File: '%s'\n", name);
	printf("  Size: %-17llu  Type: %s\n", (unsigned long long)st->size, kind_of(st->kind));
	printf(" INode: %-17llu  Links: %llu\n", (unsigned long long)st->inode, (unsigned long long)st->links);
	printf("  Mode: %04o\n", st->mode);
	printf(" Owner: %4u/%-12s  Group: %4u/%s\n", st->uid, st->owner, st->gid, st->group);
	printf("Change: %s\n", time_of(st->ctime, stamp));
	printf("Modify: %s\n", time_of(st->mtime, stamp));
	printf("Access: %s\n", time_of(st->atime, stamp));
}

int
gctl_stat(struct gctl *g)
{
	struct host_guest *s;
	struct host_guest_stat st;
	struct err e = { 0 };
	int r = need_words(g, 1, "element(s) to check");

	for (int i = 0; !r && i < g->word_count; i++) {
		s = gctl_open(g);
		g->password_file = NULL;
		if (!s)
			return 1;
		if (host_guest_stat(s, g->words[i], g->follow, &st, &e))
			r = gctl_fail(g, &e);
		else
			print_stat(g->words[i], &st);
		host_guest_close(s);
	}
	return r;
}

int
gctl_df(struct gctl *g)
{
	return with_words(g, g->word_count ? "exec df -k -- \"$@\"" : "exec df -k", g->words, true);
}
