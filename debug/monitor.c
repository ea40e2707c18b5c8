/* SPDX-License-Identifier: Apache-2.0 */
/* gdb's "monitor" command: what the protocol has no packet for. Anything that is not a row here is an item of info.c.
 */
#include <stdlib.h>
#include <string.h>

#include "debug/gdb.h"

#define CHUNK 4096

/* Text in "O" packets (GDB manual E.4, qRcmd). */
static void
say(struct gdb *g, const char *text, size_t len)
{
	while (len) {
		size_t n = MIN(len, CHUNK);
		struct str s = { 0 };

		str_add(&s, "O");
		hex_add(&s, text, n);
		gdb_reply_bytes(g, s.s, s.len);
		str_free(&s);
		text += n;
		len -= n;
	}
}

static bool
do_reset(struct gdb *g, const char *args, FILE *f)
{
	struct err e;

	if (g->ops->reset(g->opaque, &e)) {
		fprintf(f, "%s\n", e.text);
	} else {
		cpu_view_load(g->view, g->c->cpu[g->cpu]);
		fprintf(f, "The machine is in its power-on state; tell gdb: maintenance flush register-cache\n");
	}
	return true;
}

static bool
do_quit(struct gdb *g, const char *args, FILE *f)
{
	g->ops->quit(g->opaque);
	return true;
}

static bool
do_stepirq(struct gdb *g, const char *args, FILE *f)
{
	if (!strcmp(args, "on") || !strcmp(args, "off"))
		g->step_irqs = !strcmp(args, "on");
	else if (args[0])
		fprintf(f, "stepirq: it is on or off\n");
	fprintf(f, "Interrupts are %s during single steps.\n", g->step_irqs ? "taken" : "held back");
	return true;
}

static bool do_help(struct gdb *g, const char *args, FILE *f);

static const struct {
	const char *name;
	bool (*run)(struct gdb *g, const char *args, FILE *f);
	const char *help;
} rows[] = {
	{ "help", do_help, "this text" },
	{ "reset", do_reset, "all devices and CPUs to their power-on state" },
	{ "quit", do_quit, "end the machine" },
	{ "stepirq", do_stepirq, "on|off: may interrupts be taken during a single step? (off)" },
};

static bool
do_help(struct gdb *g, const char *args, FILE *f)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		fprintf(f, "%-14s %s\n", rows[i].name, rows[i].help);
	return false; /* info.c has more */
}

void
gdb_monitor(struct gdb *g, char *line)
{
	struct debug_info d = { .c = g->c, .view = g->view, .regs = g->regs, .cpu = g->cpu };
	char *args, *text = NULL, help[] = "help";
	bool done = false;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		abort(); /* out of memory */
	line += strspn(line, " ");
	if (!strncmp(line, "info ", 5))
		line += 5 + strspn(line + 5, " ");
	args = line + strcspn(line, " ");
	if (*args)
		*args++ = 0;
	args += strspn(args, " ");
	if (!*line)
		line = help;
	for (size_t i = 0; i < ARRAY_LEN(rows) && !done; i++)
		if (!strcmp(line, rows[i].name))
			done = rows[i].run(g, args, f);
	if (!done && !debug_info_print(&d, line, args, f))
		fprintf(f, "There is no '%s'; 'monitor help' lists what there is.\n", line);
	fclose(f);
	say(g, text, len);
	free(text);
	gdb_reply(g, "OK");
}
