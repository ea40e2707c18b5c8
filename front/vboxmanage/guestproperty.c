/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestproperty get, set, unset, enumerate, wait.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

static const struct site machine = { "VirtualBox", "FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())", 560,
	"VBoxManageMisc.cpp" };

static int
guestprop_get(struct cli *c, int argc, char **argv)
{
	char *value, *flags;
	struct err e = { 0 };
	bool verbose = argc == 3 && (!strcmp(argv[2], "--verbose") || !strcmp(argv[2], "-verbose"));
	int64_t when = 0;

	if (argc != 2 && !verbose)
		return fail_syntax(c, "Incorrect parameters");
	if (host_guestprop_get(c->host, argv[0], argv[1], &value, &when, &flags, &e))
		return fail_api(c, &e, &machine);
	if (!value) {
		printf("No value set!\n");
		return 0;
	}
	printf("Value: %s\n", value);
	if (verbose)
		printf("Timestamp: %lld ns\n", (long long)when);
	if (verbose && *flags)
		printf("Flags: %s\n", flags);
	free(value);
	free(flags);
	return 0;
}

static int
guestprop_set(struct cli *c, int argc, char **argv)
{
	const char *value = argc > 2 ? argv[2] : NULL, *flags = NULL;
	struct err e = { 0 };

	if (argc == 5 && (!strcmp(argv[3], "--flags") || !strcmp(argv[3], "-flags")))
		flags = argv[4];
	else if (argc != 2 && argc != 3)
		return fail_syntax(c, "Incorrect parameters");
	return host_guestprop_set(c->host, argv[0], argv[1], value, flags, &e) ? fail_api(c, &e, &machine) : 0;
}

static int
guestprop_unset(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };

	if (argc != 2)
		return fail_syntax(c, "Incorrect parameters");
	return host_guestprop_delete(c->host, argv[0], argv[1], &e) ? fail_api(c, &e, &machine) : 0;
}

/* ---- enumerate ---- */

/* What `enumerate` shows. */
struct listing {
	bool old_format, no_time, no_flags;
	int shown;
	size_t key_width, value_width;
};

static int
measure(void *opaque, const char *name, const char *value, int64_t when, const char *flags)
{
	struct listing *l = opaque;

	l->key_width = MAX(l->key_width, strlen(name));
	l->value_width = MAX(l->value_width, strlen(value));
	return 0;
}

static int
print_guestprop(void *opaque, const char *name, const char *value, int64_t when, const char *flags)
{
	struct listing *l = opaque;
	char stamp[40];

	l->shown++;
	if (l->old_format) {
		printf("Name: %s, value: %s, timestamp: %lld, flags: %s\n", name, value, (long long)when, flags);
		return 0;
	}
	printf("%-*s = '%s'%*s", (int)l->key_width, name, value,
		(int)(l->value_width > strlen(value) ? l->value_width - strlen(value) : 0), "");
	if (!l->no_time)
		printf(" @ %sZ", time_text(when, stamp));
	if (!l->no_flags && *flags)
		printf(" %s", flags);
	putchar('\n');
	return 0;
}

static int
enumerate(struct cli *c, const char *vm, const char *patterns, struct listing *l)
{
	struct err e = { 0 };

	if (host_guestprop_each(c->host, vm, patterns, measure, l, &e) ||
		host_guestprop_each(c->host, vm, patterns, print_guestprop, l, &e))
		return fail_api(c, &e, &machine);
	if (!l->shown)
		printf("No properties found.\n");
	return 0;
}

static int
guestprop_enumerate(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "old-format", 0, OPT_FLAG, 0, 0 },
		{ "no-timestamp", 1, OPT_FLAG, 't', 0 },
		{ "no-flags", 2, OPT_FLAG, 'f', 0 },
		{ "relative", 3, OPT_FLAG, 'r', 0 },
		{ "patterns", 4, OPT_TEXT, 'p', 0 },
		{ "sort", 3, OPT_FLAG, 's', 0 },
		{ "unsort", 3, OPT_FLAG, 'u', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct listing l = { 0 };
	struct str patterns = { 0 };
	const char *vm = NULL;
	int id, status = 0;

	while (!status && (id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			status = 2;
		else if (id == ARG_WORD && !vm)
			vm = a.text;
		else if (id == ARG_WORD || id == 4)
			str_addf(&patterns, "%s%s", patterns.len ? "|" : "", a.text);
		l.old_format |= id == 0;
		l.no_time |= id == 1;
		l.no_flags |= id == 2;
	}
	if (!status && !vm)
		status = fail_syntax(c, "VM name or uuid required");
	if (!status)
		status = enumerate(c, vm, patterns.s, &l);
	str_free(&patterns);
	return status;
}

/* ---- wait ---- */

static int
print_change(void *opaque, const char *name, const char *value, int64_t when, const char *flags)
{
	printf("Name: %s, value: %s, flags: %s\n", name, value, flags);
	return 0;
}

static int
guestprop_wait(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "timeout", 0, OPT_NUMBER, 't', 0 },
		{ "fail-on-timeout", 1, OPT_FLAG, 'f', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *vm = NULL, *patterns = NULL;
	struct err e = { 0 };
	bool fail = false;
	int id, timeout = -1, r;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && vm && patterns)
			return fail_syntax(c, "Incorrect parameters");
		if (id == ARG_WORD && !vm)
			vm = a.text;
		else if (id == ARG_WORD)
			patterns = a.text;
		else if (id == 0)
			timeout = (int)MIN(a.number, (uint64_t)INT32_MAX);
		else
			fail = true;
	}
	if (!vm || !patterns)
		return fail_syntax(c, "Incorrect parameters");
	r = host_guestprop_wait(c->host, vm, patterns, timeout, print_change, NULL, &e);
	if (r < 0)
		return fail_api(c, &e, &machine);
	if (r)
		return 0;
	printf("Time out or interruption while waiting for a notification.\n");
	return fail ? 2 : 0;
}

int
cmd_guestproperty(struct cli *c, int argc, char **argv)
{
	if (!argc)
		return fail_syntax(c, "Incorrect parameters");
	if (!cli_host(c))
		return 1;
	if (!strcmp(argv[0], "get"))
		return guestprop_get(c, argc - 1, argv + 1);
	if (!strcmp(argv[0], "set"))
		return guestprop_set(c, argc - 1, argv + 1);
	if (!strcmp(argv[0], "unset") || !strcmp(argv[0], "delete"))
		return guestprop_unset(c, argc - 1, argv + 1);
	if (!strcmp(argv[0], "enumerate"))
		return guestprop_enumerate(c, argc - 1, argv + 1);
	if (!strcmp(argv[0], "wait"))
		return guestprop_wait(c, argc - 1, argv + 1);
	return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
}
