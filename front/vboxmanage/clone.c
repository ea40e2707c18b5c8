/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clonevm.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"

enum { O_SNAPSHOT, O_MODE, O_OPTIONS, O_NAME, O_GROUPS, O_BASEFOLDER, O_UUID, O_REGISTER };

static int
parse_mode(struct cli *c, struct host_clone *k, const char *text)
{
	if (!strcasecmp(text, "machine"))
		k->mode = HOST_CLONE_MACHINE;
	else if (!strcasecmp(text, "machineandchildren"))
		k->mode = HOST_CLONE_CHILDREN;
	else if (!strcasecmp(text, "all"))
		k->mode = HOST_CLONE_ALL;
	else
		return fail_argument(c, "Invalid clone mode '%s'", text);
	return 0;
}

static int
parse_options(struct cli *c, struct host_clone *k, const char *text)
{
	char *copy = xstrdup(text), *rest = copy, *word;
	int r = 0;

	while (!r && (word = strsep(&rest, ","))) {
		if (!strcasecmp(word, "link"))
			k->link = true;
		else if (!strcasecmp(word, "keepallmacs"))
			k->keep_all_macs = true;
		else if (!strcasecmp(word, "keepnatmacs"))
			k->keep_nat_macs = true;
		else if (!strcasecmp(word, "keepdisknames"))
			k->keep_disk_names = true;
		else if (!strcasecmp(word, "keephwuuids"))
			k->keep_hwuuids = true;
		else if (*word)
			r = fail_argument(c, "Invalid clone options '%s'", text);
	}
	free(copy);
	return r;
}

int
cmd_clonevm(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Machine",
		"CloneTo(trgMachine, mode, ComSafeArrayAsInParam(options), progress.asOutParam())", 644,
		"VBoxManageMisc.cpp" };
	static const struct opt options[] = {
		{ "snapshot", O_SNAPSHOT, OPT_TEXT, 's', 0 },
		{ "mode", O_MODE, OPT_TEXT, 'm', 0 },
		{ "options", O_OPTIONS, OPT_TEXT, 'o', 0 },
		{ "name", O_NAME, OPT_TEXT, 'n', 0 },
		{ "groups", O_GROUPS, OPT_TEXT, 'g', 0 },
		{ "base-folder", O_BASEFOLDER, OPT_TEXT, 'p', 0 },
		{ "uuid", O_UUID, OPT_TEXT, 'u', 0 },
		{ "register", O_REGISTER, OPT_FLAG, 'r', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_progress progress;
	struct host_clone k = { .progress = &progress };
	const char *source = NULL;
	char *name = NULL, uuid[37];
	struct err e = { 0 };
	int id, r = 0;

	while (!r && (id = args_next(&a)) != ARG_END) {
		switch (id) {
		case O_SNAPSHOT:
			k.snapshot = a.text;
			break;
		case O_MODE:
			r = parse_mode(c, &k, a.text);
			break;
		case O_OPTIONS:
			r = parse_options(c, &k, a.text);
			break;
		case O_NAME:
			k.name = a.text;
			break;
		case O_GROUPS:
			k.groups = a.text;
			break;
		case O_BASEFOLDER:
			k.base_folder = a.text;
			break;
		case O_UUID:
			k.uuid = a.text;
			break;
		case O_REGISTER:
			k.registered = true;
			break;
		case ARG_WORD:
			if (source)
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			source = a.text;
			break;
		default:
			return 2;
		}
	}
	if (r)
		return r;
	if (!source)
		return fail_syntax(c, "VM name required");
	if (!cli_host(c))
		return 1;
	progress = stoppable_begin(c);
	r = host_vm_clone(c->host, source, &k, &name, uuid, &e);
	if (stoppable_end(c, r ? &e : NULL))
		return 1;
	if (r)
		return fail_api(c, &e, &site);
	printf("Machine has been successfully cloned as \"%s\"\n", name);
	free(name);
	return 0;
}
