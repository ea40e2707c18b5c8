/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What VBoxManage writes that is not data: errors, usage, progress.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

void
print_logo(struct cli *c, bool to_stderr)
{
	if (c->logo)
		fprintf(to_stderr ? stderr : stdout,
			"Lodge " LODGE_VERSION ", command line of VirtualBox " VBM_VERSION "\n"
			"Licensed under the Apache License 2.0\n\n");
}

void
print_usage(struct cli *c, const struct verb *v, bool to_stderr)
{
	FILE *out = to_stderr ? stderr : stdout;

	fprintf(out, "Usage:\n\n");
	for (const char *p = v->usage; *p;) {
		size_t n = strcspn(p, "\n");
		bool more = *p == ' '; /* a line that goes on */

		fprintf(out, "  %s%s%s%s%.*s\n", more ? "" : c->program, more ? "" : " ", more ? "    " : v->name,
			n && !more ? " " : "", (int)n, p);
		p += n + (p[n] != 0);
	}
	if (v->example)
		fprintf(out, "\nExample:\n\n  %s %s %s\n", c->program, v->name, v->example);
}

/* Each line gets the prefix; an empty one stands alone. */
static void
print_message(struct cli *c, const char *kind, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n)
			fprintf(stderr, "%s: %s: %.*s\n", c->program, kind, (int)n, text);
		else
			fputc('\n', stderr);
		text += n + (text[n] != 0);
	}
}

static void
vmessage(struct cli *c, const char *kind, const char *fmt, va_list ap)
{
	char *text;

	fflush(stdout);
	text = xvasprintf(fmt, ap);
	print_message(c, kind, text);
	free(text);
}

int
fail_syntax(struct cli *c, const char *fmt, ...)
{
	va_list ap;

	print_logo(c, true);
	va_start(ap, fmt);
	vmessage(c, "error", fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (c->verb)
		print_usage(c, c->verb, true);
	else
		fprintf(stderr, "Usage:\n\n  %s COMMAND ARGUMENTS...\n  %s help [COMMAND]\n", c->program, c->program);
	return 2;
}

int
fail_argument(struct cli *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmessage(c, "error", fmt, ap);
	va_end(ap);
	return 2;
}

int
fail_plain(struct cli *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmessage(c, "error", fmt, ap);
	va_end(ap);
	return 1;
}

void
warn(struct cli *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmessage(c, "warning", fmt, ap);
	va_end(ap);
}

/* Some failures come from a place of their own, whichever command met them. */
static const struct site *
own_site(const struct err *e, const struct site *s)
{
	static const struct site find_machine = { "VirtualBox",
		"FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())", 2807, "VBoxManageInfo.cpp" };
	static const struct site open_medium = { "Medium",
		"OpenMedium(Bstr(pszFilenameOrUuid).raw(), enmDevType, enmAccessMode, fForceNewUuidOnOpen, "
		"pMedium.asOutParam())",
		201, "VBoxManageDisk.cpp" };

	if (str_starts(e->text, "Could not find a registered machine"))
		return &find_machine;
	if (str_starts(e->text, "Could not find file for the medium"))
		return &open_medium;
	return s;
}

int
fail_api(struct cli *c, const struct err *e, const struct site *s)
{
	const struct err_info *info = err_info(e->code);

	if (e->code == ERR_USAGE)
		return fail_syntax(c, "%s", e->text);
	fflush(stdout);
	print_message(c, "error", e->text);
	if (e->code == ERR_VM_STATE && str_ends(e->text, "is not currently running."))
		return 1;
	s = own_site(e, s);
	fprintf(stderr, "%s: error: Details: code %s (0x%08x), component %sWrap, interface I%s, callee nsISupports\n",
		c->program, info->vbox_name, info->vbox_number, s->component, s->component);
	fprintf(stderr, "%s: error: Context: \"%s\" at line %d of file %s\n", c->program, s->call, s->line, s->file);
	return 1;
}

/* ---- progress ---- */

void
progress_begin(struct cli *c)
{
	fflush(stdout);
	c->progress = 0;
	if (!c->detailed)
		fputs("0%...", stderr);
	fflush(stderr);
}

void
progress_at(void *cli, int percent)
{
	struct cli *c = cli;

	if (c->progress < 0)
		return;
	if (c->detailed && percent != c->progress) {
		fprintf(stderr, "(1/1) %s %02d%%\n", c->verb->name, percent);
		c->progress = percent;
		return;
	}
	for (; !c->detailed && c->progress + 10 <= percent && c->progress < 100;) {
		c->progress += 10;
		fprintf(stderr, c->progress < 100 ? "%d%%..." : "%d%%", c->progress);
	}
	fflush(stderr);
}

void
progress_end(struct cli *c, const struct err *e)
{
	if (c->progress < 0)
		return;
	if (!e)
		progress_at(c, 100);
	else
		fputs(err_info(e->code)->vbox_name, stderr);
	if (!c->detailed || e)
		fputc('\n', stderr);
	c->progress = -1;
}
