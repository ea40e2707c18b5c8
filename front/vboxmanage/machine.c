/* SPDX-License-Identifier: Apache-2.0 */
/*
 * createvm, registervm, unregistervm, setproperty.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

enum { O_NAME, O_OSTYPE, O_REGISTER, O_BASEFOLDER, O_GROUPS, O_UUID, O_DEFAULT, O_REFUSED };

static int
created(struct cli *c, const struct host_vm_create *vm)
{
	static const struct site site = { "Machine",
		"CreateMachine(bstrSettingsFile.raw(), bstrName.raw(), ComSafeArrayAsInParam(groups), "
		"bstrOsTypeId.raw(), "
		"createFlags.raw(), NULL, NULL, NULL, machine.asOutParam())",
		336, "VBoxManageMisc.cpp" };
	struct host *h = cli_host(c);
	struct err e = { 0 };
	char uuid[37], *file;
	int r;

	if (!h)
		return 1;
	signals_hold();
	r = host_vm_create(h, vm, uuid, &file, &e);
	signals_release();
	if (r)
		return fail_api(c, &e, &site);
	printf("Virtual machine '%s' is created%s.\nUUID: %s\nSettings file: '%s'\n", vm->name,
		vm->registered ? " and registered" : "", uuid, file);
	free(file);
	return 0;
}

int
cmd_createvm(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "name", O_NAME, OPT_TEXT, 'n', 0 },
		{ "os-type", O_OSTYPE, OPT_TEXT, 'o', 0 },
		{ "register", O_REGISTER, OPT_FLAG, 'r', 0 },
		{ "base-folder", O_BASEFOLDER, OPT_TEXT, 'p', 0 },
		{ "settings-file", O_REFUSED, OPT_TEXT, 's', 0 },
		{ "groups", O_GROUPS, OPT_TEXT, 'g', 0 },
		{ "uuid", O_UUID, OPT_TEXT, 'u', 0 },
		{ "default", O_DEFAULT, OPT_FLAG, 'd', 0 },
		{ "cipher", O_REFUSED, OPT_TEXT, 'c', 0 },
		{ "password-id", O_REFUSED, OPT_TEXT, 0, 0 },
		{ "password", O_REFUSED, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_vm_create vm = { 0 };

	for (;;) {
		switch (args_next(&a)) {
		case O_NAME:
			vm.name = a.text;
			break;
		case O_OSTYPE:
			vm.ostype = a.text;
			break;
		case O_REGISTER:
			vm.registered = true;
			break;
		case O_BASEFOLDER:
			vm.base_folder = a.text;
			break;
		case O_GROUPS:
			vm.groups = a.text;
			break;
		case O_UUID:
			vm.uuid = a.text;
			break;
		case O_DEFAULT:
			vm.defaults = true;
			break;
		case O_REFUSED:
			return fail_plain(c, "The option %s is not available here", a.spelled);
		case ARG_WORD:
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		case ARG_END:
			return vm.name ? created(c, &vm) : fail_syntax(c, "Parameter --name is required");
		default:
			return 2;
		}
	}
}

int
cmd_registervm(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "VirtualBox",
		"OpenMachine(Bstr(strVmFile).raw(), NULL, machine.asOutParam())", 99, "VBoxManageMisc.cpp" };
	struct host *h;
	struct err e = { 0 };
	char uuid[37];

	if (argc != 1 || argv[0][0] == '-')
		return fail_syntax(
			c, argc ? "Invalid parameter '%s'" : "Not enough parameters", argc ? argv[argc - 1] : "");
	h = cli_host(c);
	if (!h)
		return 1;
	return host_vm_register(h, argv[0], uuid, &e) ? fail_api(c, &e, &site) : 0;
}

static int
unregister(struct cli *c, const char *vm, bool delete_files)
{
	static const struct site site = { "Machine",
		"Unregister(fDelete ? CleanupMode_DetachAllReturnHardDisksOnly : CleanupMode_DetachAllReturnNone, "
		"ComSafeArrayAsOutParam(aMedia))",
		182, "VBoxManageMisc.cpp" };
	struct host *h;
	struct err e = { 0 };
	int r = -1;

	signals_hold();
	h = cli_host(c);
	if (h)
		r = host_vm_unregister(h, vm, delete_files, &e);
	signals_release();
	if (!h)
		return 1;
	if (r)
		return fail_api(c, &e, &site);
	if (delete_files) {
		progress_begin(c);
		progress_end(c, NULL);
	}
	return 0;
}

int
cmd_unregistervm(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = { { "delete", 0, OPT_FLAG, 'd', 0 },
		{ "delete-all", 0, OPT_FLAG, 'a', 0 } };
	struct args a = ARGS(c, argc, argv, options);
	const char *vm = NULL;
	bool delete_files = false;

	for (;;) {
		switch (args_next(&a)) {
		case 0:
			delete_files = true;
			break;
		case ARG_WORD:
			if (vm)
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			vm = a.text;
			break;
		case ARG_END:
			return vm ? unregister(c, vm, delete_files) : fail_syntax(c, "VM name required");
		default:
			return 2;
		}
	}
}

int
cmd_setproperty(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "VirtualBox",
		"COMSETTER(DefaultMachineFolder)(bstrDefaultMachineFolder.raw())", 1010, "VBoxManageMisc.cpp" };
	struct host *h;
	struct err e = { 0 };

	if (argc != 2)
		return fail_syntax(c, argc < 2 ? "Not enough parameters" : "Too many parameters");
	if (strcmp(argv[0], "machinefolder"))
		return fail_plain(c, "The property '%s' cannot be set here; 'machinefolder' can", argv[0]);
	h = cli_host(c);
	if (!h)
		return 1;
	return host_set_machine_folder(h, argv[1], &e) ? fail_api(c, &e, &site) : 0;
}
