/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getextradata, setextradata, guestcontrol, sharedfolder.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

static const struct site machine = { "VirtualBox", "FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())", 560,
	"VBoxManageMisc.cpp" };

/* ---- extra data ---- */

static int
print_extra(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	printf("Key: %s, Value: %s\n", key, value);
	return 0;
}

int
cmd_getextradata(struct cli *c, int argc, char **argv)
{
	struct host *h;
	struct err e = { 0 };
	char *value;

	if (argc != 2)
		return fail_syntax(c, "Incorrect number of parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	if (!strcmp(argv[1], "enumerate"))
		return host_extra_each(h, argv[0], print_extra, NULL, &e) ? fail_api(c, &e, &machine) : 0;
	if (host_extra_get(h, argv[0], argv[1], &value, &e))
		return fail_api(c, &e, &machine);
	if (value)
		printf("Value: %s\n", value);
	else
		printf("No value set!\n");
	free(value);
	return 0;
}

int
cmd_setextradata(struct cli *c, int argc, char **argv)
{
	const char *value = argc > 2 && *argv[2] ? argv[2] : NULL;
	struct host *h;
	struct err e = { 0 };

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (argc > 3)
		return fail_syntax(c, "Too many parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	return host_extra_set(h, argv[0], argv[1], value, &e) ? fail_api(c, &e, &machine) : 0;
}

/* ---- guestcontrol ---- */

static const char *const subcommands[] = { "run", "start", "exec", "execute", "copyfrom", "copyto", "cp", "mkdir", "md",
	"createdir", "createdirectory", "rmdir", "removedir", "removedirectory", "rm", "removefile", "mv", "move",
	"ren", "rename", "mktemp", "createtemp", "createtemporary", "mount", "stat", "df", "fsinfo", "list",
	"closeprocess", "closesession", "updatega", "updateadditions", "updateguestadditions", "watch",
	"waitrunlevel" };

static bool
is_subcommand(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(subcommands); i++)
		if (!strcmp(word, subcommands[i]))
			return true;
	return false;
}

/* What it was asked to do. Enough to tell a sensible line from a mistyped one: no guest here can carry it out yet. */
struct guest_line {
	const char *vm, *sub, *program, *user;
};

static int
parse_guest_line(struct cli *c, int argc, char **argv, struct guest_line *g)
{
	static const struct opt options[] = {
		{ "username", 1, OPT_TEXT, 'u', 0 },
		{ "password", 0, OPT_TEXT, 0, 0 },
		{ "passwordfile", 0, OPT_TEXT, 'p', 0 },
		{ "domain", 0, OPT_TEXT, 'd', 0 },
		{ "exe", 2, OPT_TEXT, 'e', 0 },
		{ "image", 2, OPT_TEXT, 'i', 0 },
		{ "execute", 2, OPT_TEXT, 0, 0 },
		{ "arg0", 0, OPT_TEXT, 0, 0 },
		{ "arguments", 0, OPT_TEXT, 0, 0 },
		{ "environment", 0, OPT_TEXT, 0, 0 },
		{ "putenv", 0, OPT_TEXT, 'E', 0 },
		{ "cwd", 0, OPT_TEXT, 'C', 0 },
		{ "flags", 0, OPT_TEXT, 0, 0 },
		{ "timeout", 0, OPT_TEXT, 't', 0 },
		{ "wait-for", 0, OPT_TEXT, 0, 0 },
		{ "session-id", 0, OPT_TEXT, 0, 0 },
		{ "session-name", 0, OPT_TEXT, 0, 0 },
		{ "target-directory", 0, OPT_TEXT, 0, 0 },
		{ "source", 0, OPT_TEXT, 0, 0 },
		{ "mode", 0, OPT_TEXT, 'm', 0 },
		{ "tmpdir", 0, OPT_TEXT, 0, 0 },
		{ "wait-stdout", 0, OPT_FLAG, 0, 0 },
		{ "no-wait-stdout", 0, OPT_FLAG, 0, 0 },
		{ "wait-stderr", 0, OPT_FLAG, 0, 0 },
		{ "no-wait-stderr", 0, OPT_FLAG, 0, 0 },
		{ "wait-exit", 0, OPT_FLAG, 0, 0 },
		{ "wait-start", 0, OPT_FLAG, 0, 0 },
		{ "dos2unix", 0, OPT_FLAG, 0, 0 },
		{ "unix2dos", 0, OPT_FLAG, 0, 0 },
		{ "unquoted-args", 0, OPT_FLAG, 0, 0 },
		{ "ignore-orphaned-processes", 0, OPT_FLAG, 0, 0 },
		{ "profile", 0, OPT_FLAG, 0, 0 },
		{ "verbose", 0, OPT_FLAG, 'v', 0 },
		{ "quiet", 0, OPT_FLAG, 'q', 0 },
		{ "parents", 0, OPT_FLAG, 'P', 0 },
		{ "recursive", 0, OPT_FLAG, 'R', 0 },
		{ "follow", 0, OPT_FLAG, 'L', 0 },
		{ "no-replace", 0, OPT_FLAG, 'n', 0 },
		{ "update", 0, OPT_FLAG, 0, 0 },
		{ "directory", 0, OPT_FLAG, 0, 0 },
		{ "secure", 0, OPT_FLAG, 's', 0 },
		{ "force", 0, OPT_FLAG, 'f', 0 },
		{ "all", 0, OPT_FLAG, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == 1)
			g->user = a.text;
		else if (id == 2)
			g->program = a.text;
		else if (id == ARG_WORD && !g->sub && !a.only_words && is_subcommand(a.text))
			g->sub = a.text;
		else if (id == ARG_WORD && !g->vm)
			g->vm = a.text;
		else if (id == ARG_WORD && !g->program)
			g->program = a.text;
		/* Behind the program everything is its own. */
		if (id == ARG_WORD && g->program && g->vm && (g->sub || a.only_words))
			break;
	}
	return 0;
}

static bool
runs_program(const struct guest_line *g)
{
	return !g->sub || !strcmp(g->sub, "run") || !strcmp(g->sub, "start") || str_starts(g->sub, "exec");
}

static int
check_guest_line(struct cli *c, const struct guest_line *g)
{
	if (!g->vm)
		return fail_syntax(c, "No VM specified");
	if (!g->sub && !g->program)
		return fail_syntax(c, "No subcommand specified");
	if (runs_program(g) && !g->program)
		return fail_syntax(c, "No executable specified!");
	return 0;
}

int
cmd_guestcontrol(struct cli *c, int argc, char **argv)
{
	static const struct site session = { "GuestSession",
		"WaitForArray(ComSafeArrayAsInParam(aSessionWaitFlags), 30 * 1000, &enmWaitResult)", 1110,
		"VBoxManageGuestCtrl.cpp" };
	struct guest_line g = { 0 };
	struct host_vm *vm;
	struct err e = { 0 };
	int r = parse_guest_line(c, argc, argv, &g);

	if (!r)
		r = check_guest_line(c, &g);
	if (r)
		return r;
	if (!cli_host(c))
		return 1;
	vm = host_vm_load(c->host, g.vm, &e);
	if (!vm)
		return fail_api(c, &e, &machine);
	if (vm->state != HOST_RUNNING)
		r = fail_plain(
			c, "Machine \"%s\" is not running (currently %s)!", vm->name, host_state_long(vm->state));
	host_vm_free(vm);
	if (r)
		return r;
	err_set(&e, ERR_IPRT, "The guest execution service is not ready (yet)");
	return fail_api(c, &e, &session);
}

/* ---- sharedfolder ---- */

int
cmd_sharedfolder(struct cli *c, int argc, char **argv)
{
	struct host_vm *vm;
	struct err e = { 0 };

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (strcmp(argv[0], "add") && strcmp(argv[0], "remove"))
		return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
	if (!cli_host(c))
		return 1;
	vm = host_vm_load(c->host, argv[1], &e);
	if (!vm)
		return fail_api(c, &e, &machine);
	host_vm_free(vm);
	return fail_plain(c, "Shared folders are not available here: copy files over the network instead");
}
