/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sharedfolder add, remove, modify; the lines of showvminfo about them and about what the guest's driver told.
 */
#include <stdio.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

static const struct site machine = { "Machine",
	"CreateSharedFolder(Bstr(pszName).raw(), Bstr(pszHostPath).raw(), fWritable, fAutoMount, "
	"Bstr(pszAutoMountPoint).raw())",
	1039, "VBoxManageMisc.cpp" };

/* "true", "false", as `modify` has it. -1 */
static int
truth(const char *text)
{
	if (!strcmp(text, "true") || !strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "1"))
		return 1;
	return !strcmp(text, "false") || !strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "0") ? 0 : -1;
}

enum { O_NAME, O_PATH, O_READONLY, O_TRANSIENT, O_AUTOMOUNT, O_MOUNT_POINT };

static int
parse(struct cli *c, int argc, char **argv, bool modify, const char **vm, struct host_share_change *s)
{
	const struct opt options[] = {
		{ "name", O_NAME, OPT_TEXT, 'n', 0 },
		{ "hostpath", O_PATH, OPT_TEXT, 'p', 0 },
		{ "readonly", O_READONLY, modify ? OPT_TEXT : OPT_FLAG, 'r', 0 },
		{ "transient", O_TRANSIENT, OPT_FLAG, 't', 0 },
		{ "automount", O_AUTOMOUNT, modify ? OPT_TEXT : OPT_FLAG, 'a', 0 },
		{ "auto-mount-point", O_MOUNT_POINT, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	int id, yes;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		yes = id == O_READONLY || id == O_AUTOMOUNT ? (modify ? truth(a.text) : 1) : 0;
		if (yes < 0)
			return fail_syntax(c, "Invalid value '%s' for %s", a.text, a.spelled);
		if (id == ARG_WORD && *vm)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD)
			*vm = a.text;
		else if (id == O_NAME)
			s->name = a.text;
		else if (id == O_PATH)
			s->path = a.text;
		else if (id == O_READONLY)
			s->readonly = yes;
		else if (id == O_AUTOMOUNT)
			s->automount = yes;
		else if (id == O_TRANSIENT)
			s->transient = true;
		else
			s->mount_point = a.text;
	}
	if (!*vm)
		return fail_syntax(c, "Machine name or UUID is missing");
	return s->name ? 0 : fail_syntax(c, "Missing required option: --name");
}

int
cmd_sharedfolder(struct cli *c, int argc, char **argv)
{
	struct host_share_change s = { .readonly = -1, .automount = -1 };
	bool add = argc && !strcmp(argv[0], "add"), modify = argc && !strcmp(argv[0], "modify");
	const char *vm = NULL;
	struct err e = { 0 };
	int r;

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (!add && !modify && strcmp(argv[0], "remove"))
		return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
	r = parse(c, argc - 1, argv + 1, modify, &vm, &s);
	if (r)
		return r;
	if (add && !s.path)
		return fail_syntax(c, "Missing required option: --hostpath");
	if (!cli_host(c))
		return 1;
	r = add	     ? host_share_add(c->host, vm, &s, &e)
	    : modify ? host_share_modify(c->host, vm, &s, &e)
		     : host_share_remove(c->host, vm, &s, &e);
	if (!r)
		return 0;
	return e.code == ERR_VM_STATE && s.transient ? fail_plain(c, "%s", e.text) : fail_api(c, &e, &machine);
}

/* ---- showvminfo ---- */

void
show_shares_machine_readable(struct cli *c, const struct host_vm *vm, bool live)
{
	struct host_share *list = NULL;
	int n = live ? host_shares_transient(c->host, vm, &list) : 0;

	for (int i = 0; i < vm->share_count; i++) {
		char key[48];

		snprintf(key, sizeof(key), "SharedFolderNameMachineMapping%d", i + 1);
		show_pair(key, vm->shares[i].name);
		snprintf(key, sizeof(key), "SharedFolderPathMachineMapping%d", i + 1);
		show_pair(key, vm->shares[i].path);
	}
	for (int i = 0; i < n; i++) {
		char key[48];

		snprintf(key, sizeof(key), "SharedFolderNameTransientMapping%d", i + 1);
		show_pair(key, list[i].name);
		snprintf(key, sizeof(key), "SharedFolderPathTransientMapping%d", i + 1);
		show_pair(key, list[i].path);
	}
	host_shares_free(list, n);
}

static void
show_share(const struct host_share *s, const char *kind)
{
	printf("Name: '%s', Host path: '%s' (%s), %s%s", s->name, s->path, kind, s->readonly ? "readonly" : "writable",
		s->automount ? ", auto-mount" : "");
	if (*s->mount_point)
		printf(", mount-point: '%s'", s->mount_point);
	putchar('\n');
}

void
show_shares(struct cli *c, const struct host_vm *vm, bool live)
{
	struct host_share *list = NULL;
	int n = live ? host_shares_transient(c->host, vm, &list) : 0;

	printf("Shared folders:%s\n", n || vm->share_count ? "" : "              <none>");
	if (n || vm->share_count)
		putchar('\n');
	for (int i = 0; i < vm->share_count; i++)
		show_share(&vm->shares[i], "machine mapping");
	for (int i = 0; i < n; i++)
		show_share(&list[i], "transient mapping");
	putchar('\n');
	host_shares_free(list, n);
}
