/* SPDX-License-Identifier: Apache-2.0 */
/*
 * movevm.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"

int
cmd_movevm(struct cli *c, int argc, char **argv)
{
	enum { O_FOLDER, O_TYPE };
	static const struct site site = { "Machine",
		"MoveTo(Bstr(szTargetFolder).raw(), Bstr(pszType).raw(), "
		"progress.asOutParam())",
		735, "VBoxManageMisc.cpp" };
	static const struct opt options[] = {
		{ "folder", O_FOLDER, OPT_TEXT, 'f', 0 },
		{ "type", O_TYPE, OPT_TEXT, 't', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *vm = NULL, *folder = NULL;
	struct host_progress p;
	struct err e = { 0 };
	char *shown;
	int id, r;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == O_FOLDER)
			folder = a.text;
		else if (id == O_TYPE && strcasecmp(a.text, "basic"))
			return fail_argument(c, "Invalid type '%s': there is 'basic'", a.text);
		else if (id == ARG_WORD && vm)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		else if (id == ARG_WORD)
			vm = a.text;
	}
	if (!vm)
		return fail_syntax(c, "VM name required");
	if (!cli_host(c))
		return 1;
	p = stoppable_begin(c);
	r = host_vm_move(c->host, vm, folder, &p, &e);
	if (stoppable_end(c, r ? &e : NULL))
		return 1;
	if (r) {
		fail_plain(c, "Move VM failed");
		return fail_api(c, &e, &site);
	}
	shown = folder ? host_absolute_path(folder) : xstrdup(host_machine_folder(c->host));
	printf("Machine has been successfully moved into %s\n", shown);
	free(shown);
	return 0;
}
