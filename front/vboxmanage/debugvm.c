/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debugvm: looking into a running machine, and changing what is seen. What VirtualBox has and this does not is refused
 * with a sentence that says why.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/vboxmanage/vbm.h"

static const struct site debugger = { "MachineDebugger", "COMGETTER(Debugger)(ptrDebugger.asOutParam())", 571,
	"VBoxManageDebugVM.cpp" };

/* One line of the command, parsed up to its own arguments. */
struct debug {
	struct cli *c;
	const char *vm;
	struct host_debug q;
	struct err e;
};

static int
print_text(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	fputs(value, stdout);
	return 0;
}

static int
ask(struct debug *d, host_pair_fn *fn, void *opaque)
{
	return host_vm_debug(d->c->host, d->vm, &d->q, fn, opaque, &d->e) ? fail_api(d->c, &d->e, &debugger) : 0;
}

static int
no_arguments(struct debug *d, int argc, char **argv)
{
	return argc ? fail_syntax(d->c, "Too many parameters: '%s'", argv[0]) : 0;
}

/* Takes "--cpu=N" and collects the words; -1: go on. */
static int
cpu_and_words(struct debug *d, int argc, char **argv, const char **words, size_t *count)
{
	static const struct opt options[] = { { "cpu", 0, OPT_NUMBER, 0, 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	int id;

	*count = 0;
	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			words[(*count)++] = a.text;
		else
			d->q.cpu = (int)MIN(a.number, 1000000u);
	}
	return -1;
}

/* ---- registers ---- */

struct pairs {
	size_t count, widest;
	char *name[512], *value[512];
};

static int
collect(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct pairs *p = opaque;

	if (p->count == ARRAY_LEN(p->name))
		return 0;
	p->widest = MAX(p->widest, strlen(name));
	p->name[p->count] = xstrdup(name);
	p->value[p->count++] = xstrdup(value);
	return 0;
}

static int
dbg_getregisters(struct debug *d, int argc, char **argv)
{
	const char **names = xcalloc((size_t)argc + 1, sizeof(*names));
	struct pairs *p = xcalloc(1, sizeof(*p));
	int status = cpu_and_words(d, argc, argv, names, &d->q.count);
	bool all = d->q.count == 1 && !strcmp(names[0], "all");

	if (status < 0 && !d->q.count)
		status = fail_syntax(d->c, "At least one register name is needed, or 'all'");
	if (status < 0) {
		d->q.what = "registers";
		d->q.names = names;
		status = ask(d, collect, p);
	}
	for (size_t i = 0; i < p->count; i++) {
		printf("%-*s = %s\n", all ? (int)p->widest : 0, p->name[i], p->value[i]);
		free(p->name[i]);
		free(p->value[i]);
	}
	free(p);
	free(names);
	return status;
}

static int
dbg_setregisters(struct debug *d, int argc, char **argv)
{
	const char **names = xcalloc((size_t)argc + 1, sizeof(*names)), **values;
	int status = cpu_and_words(d, argc, argv, names, &d->q.count);

	values = xcalloc(d->q.count + 1, sizeof(*values));
	if (status < 0 && !d->q.count)
		status = fail_syntax(d->c, "At least one REGISTER=VALUE is needed");
	for (size_t i = 0; i < d->q.count && status < 0; i++) {
		char *equals = strchr(names[i], '=');

		if (!equals) {
			status = fail_argument(d->c, "Expected REGISTER=VALUE, not '%s'", names[i]);
			break;
		}
		*equals = 0; /* the words are main()'s argv, which is writable */
		values[i] = equals + 1;
	}
	if (status < 0) {
		d->q.what = "setregisters";
		d->q.names = names;
		d->q.values = values;
		status = ask(d, NULL, NULL);
	}
	free(values);
	free(names);
	return status;
}

/* ---- views ---- */

static int
dbg_info(struct debug *d, int argc, char **argv)
{
	struct str args = { 0 };
	const char **words = xcalloc((size_t)argc + 1, sizeof(*words));
	size_t count;
	int status = cpu_and_words(d, argc, argv, words, &count);

	if (status < 0 && !count)
		status = fail_syntax(d->c, "Must specify an info item; 'help' lists them");
	if (status < 0) {
		for (size_t i = 1; i < count; i++)
			str_addf(&args, "%s%s", i > 1 ? " " : "", words[i]);
		d->q.what = "info";
		d->q.item = words[0];
		d->q.args = args.s ? args.s : "";
		status = ask(d, print_text, NULL);
	}
	str_free(&args);
	free(words);
	return status;
}

static int
dbg_stack(struct debug *d, int argc, char **argv)
{
	const char **words = xcalloc((size_t)argc + 1, sizeof(*words));
	size_t count;
	int status = cpu_and_words(d, argc, argv, words, &count);

	if (status < 0 && count)
		status = fail_syntax(d->c, "Too many parameters: '%s'", words[0]);
	free(words);
	d->q.what = "stack";
	return status < 0 ? ask(d, print_text, NULL) : status;
}

static int
dbg_injectnmi(struct debug *d, int argc, char **argv)
{
	d->q.what = "nmi";
	return argc ? no_arguments(d, argc, argv) : ask(d, NULL, NULL);
}

/* ---- the guest's system ---- */

static int
print_os(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	printf("OS %s: %s\n", !strcmp(name, "name") ? "Name" : "Version", value);
	return 0;
}

static int
print_detected(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	if (!strcmp(name, "name"))
		printf("Detected: %s\n", value);
	return 0;
}

static int
dbg_osdetect(struct debug *d, int argc, char **argv)
{
	d->q.what = "osinfo";
	return argc ? no_arguments(d, argc, argv) : ask(d, print_detected, NULL);
}

static int
dbg_osinfo(struct debug *d, int argc, char **argv)
{
	d->q.what = "osinfo";
	return argc ? no_arguments(d, argc, argv) : ask(d, print_os, NULL);
}

static int
dbg_osdmesg(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "lines", 0, OPT_NUMBER, 'n', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(d->c, "Too many parameters: '%s'", a.text);
		if (!a.number)
			return fail_argument(d->c, "The option --lines takes a number from 1 on");
		d->q.lines = (unsigned)MIN(a.number, 1000000u);
	}
	d->q.what = "dmesg";
	return ask(d, print_text, NULL);
}

/* ---- core files ---- */

static int
dbg_dumpvmcore(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "filename", 0, OPT_TEXT, 'f', 0 },
		{ "compression", 1, OPT_TEXT, 'c', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	const char *path = NULL;
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(d->c, "Too many parameters: '%s'", a.text);
		if (id == 1)
			return fail_argument(
				d->c, "Core files are not compressed: pages of zeroes take no room in them");
		path = a.text;
	}
	if (!path)
		return fail_syntax(d->c, "The --filename option is required");
	return host_vm_core(d->c->host, d->vm, path, &d->e) ? fail_api(d->c, &d->e, &debugger) : 0;
}

/* ---- counters ---- */

struct counters {
	const char *pattern;
	bool descriptions;
};

static const char *
description(const char *name)
{
	static const char *const texts[][2] = {
		{ "insns", "guest instructions (software engines)" },
		{ "exits_io", "port accesses" },
		{ "exits_mmio", "memory-mapped register accesses" },
		{ "tlb_misses", "TLB misses" },
		{ "blocks", "blocks decoded or translated" },
		{ "blocks_dropped", "blocks dropped for writes to code" },
		{ "flushes", "TLB flushes" },
		{ "exceptions", "exceptions raised in the guest" },
	};
	const char *last = strrchr(name, '/') + 1;

	for (size_t i = 0; i < ARRAY_LEN(texts) && str_starts(name, "/CPU"); i++)
		if (!strcmp(texts[i][0], last))
			return texts[i][1];
	return last;
}

/* Alternatives behind |, each with * and ?. */
static bool
matches(const char *pattern, const char *name)
{
	while (pattern) {
		size_t n = strcspn(pattern, "|");
		char *one = xasprintf("%.*s", (int)n, pattern);
		bool hit = !fnmatch(one, name, 0);

		free(one);
		if (hit)
			return true;
		pattern = pattern[n] ? pattern + n + 1 : NULL;
	}
	return false;
}

static int
print_counter(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	const struct counters *o = opaque;

	if (o->pattern && !matches(o->pattern, name))
		return 0;
	printf("<Counter c=\"%s\" unit=\"%s\" name=\"%s\"", value, strstr(name, "bytes") ? "bytes" : "times", name);
	if (o->descriptions)
		printf(" desc=\"%s\"", description(name));
	printf("/>\n");
	return 0;
}

static int
dbg_statistics(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "reset", 0, OPT_FLAG, 'r', 0 }, { "descriptions", 1, OPT_FLAG, 'd', 0 },
		{ "pattern", 2, OPT_TEXT, 'p', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	struct counters o = { 0 };
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(d->c, "Too many parameters: '%s'", a.text);
		if (id == 0)
			return fail_argument(d->c, "Counters are not reset: take two readings and subtract");
		if (id == 1)
			o.descriptions = true;
		else
			o.pattern = a.text;
	}
	printf("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n<Statistics>\n");
	if (host_vm_counters(d->c->host, d->vm, print_counter, &o, &d->e))
		return fail_api(d->c, &d->e, &debugger);
	printf("</Statistics>\n");
	return 0;
}

/* ---- samples ---- */

#define PLACES_MAX 65536u

struct place {
	char where[48];
	unsigned count;
};
struct samples {
	struct place *place;
	unsigned places, taken, cpus;
};

static int
note_sample(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct samples *s = opaque;

	s->cpus++;
	for (unsigned i = 0; i < s->places; i++)
		if (!strcmp(s->place[i].where, value)) {
			s->place[i].count++;
			return 0;
		}
	if (s->places < PLACES_MAX) {
		snprintf(s->place[s->places].where, sizeof(s->place[0].where), "%s", value);
		s->place[s->places++].count = 1;
	}
	return 0;
}

static int
most_first(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->count != y->count ? (x->count > y->count ? -1 : 1) : strcmp(x->where, y->where);
}

static int
write_samples(struct debug *d, struct samples *s, const char *path)
{
	FILE *f = fopen(path, "wx");

	if (!f)
		return fail_plain(d->c, "Cannot make the file '%s': %s", path, strerror(errno));
	qsort(s->place, s->places, sizeof(*s->place), most_first);
	fprintf(f, "%u samples, %u of virtual CPUs\n", s->taken, s->cpus);
	for (unsigned i = 0; i < s->places; i++)
		fprintf(f, "%8u %6.2f %%  %s\n", s->place[i].count, 100.0 * s->place[i].count / s->cpus,
			s->place[i].where);
	return fclose(f) ? fail_plain(d->c, "Cannot write the file '%s': %s", path, strerror(errno)) : 0;
}

static int
dbg_guestsample(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "filename", 0, OPT_TEXT, 'f', 0 },
		{ "sample-interval-us", 1, OPT_NUMBER, 'i', 0 }, { "sample-time-us", 2, OPT_NUMBER, 't', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	uint64_t interval = 1000, time_us = 0;
	struct samples s = { 0 };
	struct timespec wait;
	const char *path = NULL;
	int id, status = 0;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(d->c, "Too many parameters: '%s'", a.text);
		if (id == 0)
			path = a.text;
		else
			*(id == 1 ? &interval : &time_us) = a.number;
	}
	if (!path || !time_us)
		return fail_syntax(d->c, "The options --filename and --sample-time-us are required");
	if (interval < 100 || interval > 1000000 || time_us > 3600000000u)
		return fail_argument(d->c, "The interval is from 100 to 1000000 us, the time at most an hour");
	wait = (struct timespec){ (time_t)(interval / 1000000), (long)(interval % 1000000 * 1000) };
	s.place = xcalloc(PLACES_MAX, sizeof(*s.place));
	d->q.what = "sample";
	for (uint64_t done = 0; done < time_us && !status; done += interval) {
		status = ask(d, note_sample, &s);
		s.taken++;
		nanosleep(&wait, NULL);
	}
	if (!status)
		status = write_samples(d, &s, path);
	free(s.place);
	return status;
}

/* ---- the log ---- */

static int
print_setting(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	if (!opaque || !strcmp(opaque, name))
		printf("log%s=%s\n", !strcmp(name, "dest") ? "dest" : "", value);
	return 0;
}

static int
dbg_log(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "release", 0, OPT_FLAG, 'r', 0 }, { "debug", 1, OPT_FLAG, 'd', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == 1)
			return fail_argument(d->c, "There is one log, and it is the release log");
		if (id == ARG_WORD)
			d->q.level = a.text;
	}
	d->q.what = "log";
	return ask(d, d->q.level ? NULL : print_setting, "level");
}

static int
dbg_logdest(struct debug *d, int argc, char **argv)
{
	if (argc)
		return fail_argument(d->c,
			"Where the log goes is settled when the machine starts: its process cannot open other files");
	d->q.what = "log";
	return ask(d, print_setting, "dest");
}

static int
dbg_logflags(struct debug *d, int argc, char **argv)
{
	return fail_argument(d->c, "Log lines have one form: UTC time, who, level, sentence. There are no flags");
}

static int
dbg_show(struct debug *d, int argc, char **argv)
{
	static const struct opt options[] = { { "human-readable", 0, OPT_FLAG, 'H', 0 },
		{ "sh-export", 1, OPT_FLAG, 'e', 0 }, { "sh-eval", 2, OPT_FLAG, 'E', 0 },
		{ "cmd-set", 3, OPT_FLAG, 's', 0 } };
	struct args a = ARGS(d->c, argc, argv, options);
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && strcmp(a.text, "logrel-settings") && strcmp(a.text, "log-settings"))
			return fail_argument(d->c, "There is no setting '%s'; there is log-settings", a.text);
		if (id > 0)
			return fail_argument(d->c, "%s: the log is not set by environment variables", a.spelled);
	}
	d->q.what = "log";
	return ask(d, print_setting, NULL);
}

/* ---- gdb, which VirtualBox configures before the machine starts ---- */

static int
print_port(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	printf("gdb is served: target remote 127.0.0.1:%s\n", value);
	return 0;
}

static int
dbg_gdb(struct debug *d, int argc, char **argv)
{
	uint64_t port;

	if (argc != 1)
		return fail_syntax(d->c, "Missing argument: a port (0: any) or 'off'");
	if (strcmp(argv[0], "off") && !str_to_u64(argv[0], 0, 65535, &port))
		return fail_argument(
			d->c, "'%s' is not a port: a machine that runs may not make sockets elsewhere", argv[0]);
	d->q.what = "gdb";
	d->q.listen = strcmp(argv[0], "off") ? argv[0] : "";
	return ask(d, print_port, NULL);
}

static const struct {
	const char *name;
	int (*run)(struct debug *d, int argc, char **argv);
} subcommands[] = {
	{ "dumpvmcore", dbg_dumpvmcore },
	{ "gdb", dbg_gdb },
	{ "getregisters", dbg_getregisters },
	{ "guestsample", dbg_guestsample },
	{ "info", dbg_info },
	{ "injectnmi", dbg_injectnmi },
	{ "log", dbg_log },
	{ "logdest", dbg_logdest },
	{ "logflags", dbg_logflags },
	{ "osdetect", dbg_osdetect },
	{ "osdmesg", dbg_osdmesg },
	{ "osinfo", dbg_osinfo },
	{ "setregisters", dbg_setregisters },
	{ "show", dbg_show },
	{ "stack", dbg_stack },
	{ "statistics", dbg_statistics },
};

int
cmd_debugvm(struct cli *c, int argc, char **argv)
{
	struct debug d = { .c = c };

	if (argc < 2)
		return fail_syntax(c, argc ? "Must specify a sub-command" : "Must specify a machine and a sub-command");
	d.vm = argv[0];
	for (size_t i = 0; i < ARRAY_LEN(subcommands); i++)
		if (!strcmp(subcommands[i].name, argv[1]))
			return cli_host(c) ? subcommands[i].run(&d, argc - 2, argv + 2) : 1;
	return fail_syntax(c, "Invalid sub-command '%s'", argv[1]);
}
