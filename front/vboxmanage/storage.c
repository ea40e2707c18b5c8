/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storagectl, storageattach.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"

enum {
	O_NAME,
	O_ADD,
	O_CONTROLLER,
	O_PORTCOUNT,
	O_HOSTIOCACHE,
	O_BOOTABLE,
	O_REMOVE,
	O_RENAME,
	O_STORAGECTL,
	O_PORT,
	O_DEVICE,
	O_TYPE,
	O_MEDIUM,
	O_MTYPE,
	O_NONROTATIONAL,
	O_DISCARD,
	O_HOTPLUGGABLE,
	O_PASSTHROUGH,
	O_TEMPEJECT,
	O_FORCE,
	O_COMMENT,
	O_SETUUID,
	O_GROUP,
	O_REFUSED,
};

static int
change_controller(struct cli *c, const char *vm, const struct host_controller_change *ctl)
{
	static const struct site add = { "Machine",
		"AddStorageController(Bstr(pszCtl).raw(), StorageBus_Null, ctl.asOutParam())", 1132,
		"VBoxManageStorageController.cpp" };
	static const struct site get = { "Machine", "GetStorageControllerByName(Bstr(pszCtl).raw(), ctl.asOutParam())",
		1180, "VBoxManageStorageController.cpp" };
	struct host *h;
	struct err e = { 0 };

	if (!vm || !ctl->name)
		return fail_syntax(c, vm ? "Storage controller name not specified" : "Not enough parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	return host_vm_controller(h, vm, ctl, &e) ? fail_api(c, &e, ctl->add ? &add : &get) : 0;
}

int
cmd_storagectl(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "name", O_NAME, OPT_TEXT, 'n', 0 },
		{ "add", O_ADD, OPT_TEXT, 'a', 0 },
		{ "controller", O_CONTROLLER, OPT_TEXT, 'c', 0 },
		{ "port-count", O_PORTCOUNT, OPT_NUMBER, 'p', 0 },
		{ "sataport-count", O_PORTCOUNT, OPT_NUMBER, 0, 0 },
		{ "host-io-cache", O_HOSTIOCACHE, OPT_ONOFF, 'i', 0 },
		{ "bootable", O_BOOTABLE, OPT_ONOFF, 'b', 0 },
		{ "remove", O_REMOVE, OPT_FLAG, 'r', 0 },
		{ "rename", O_RENAME, OPT_TEXT, 'R', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_controller_change ctl = { .ports = -1, .bootable = -1, .hostiocache = -1 };
	const char *vm = NULL;

	for (;;) {
		switch (args_next(&a)) {
		case O_NAME:
			ctl.name = a.text;
			break;
		case O_ADD:
			ctl.add = a.text;
			break;
		case O_CONTROLLER:
			ctl.type = a.text;
			break;
		case O_PORTCOUNT:
			ctl.ports = (int)MIN(a.number, 100000u);
			break;
		case O_HOSTIOCACHE:
			ctl.hostiocache = a.on;
			break;
		case O_BOOTABLE:
			ctl.bootable = a.on;
			break;
		case O_REMOVE:
			ctl.remove = true;
			break;
		case O_RENAME:
			ctl.rename = a.text;
			break;
		case ARG_WORD:
			if (vm)
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			vm = a.text;
			break;
		case ARG_END:
			return change_controller(c, vm, &ctl);
		default:
			return 2;
		}
	}
}

/* Media that exist elsewhere and not here. */
static int
check_medium(struct cli *c, const char *medium)
{
	if (!medium)
		return 0;
	if (str_starts(medium, "host:"))
		return fail_plain(c, "Drives of the host cannot be used here: attach an image");
	if (!strcmp(medium, "iscsi"))
		return fail_plain(c, "iSCSI targets cannot be attached here");
	return 0;
}

static int
attach(struct cli *c, const char *vm, struct host_attach *at)
{
	static const struct site site = { "Machine",
		"AttachDevice(Bstr(pszCtl).raw(), port, device, deviceType, pMedium2Mount)", 781,
		"VBoxManageStorageController.cpp" };
	struct host *h;
	char *additions = NULL;
	struct err e = { 0 };

	if (!vm || !at->controller)
		return fail_syntax(c, vm ? "Storage controller name not specified" : "Not enough parameters");
	if (at->medium && !strcmp(at->medium, "additions")) {
		at->medium = additions = host_additions_path();
		if (!additions)
			return fail_plain(c, "There is no Guest Additions image here");
	}
	if (check_medium(c, at->medium))
		return 1;
	h = cli_host(c);
	if (!h || !host_vm_attach(h, vm, at, &e)) {
		free(additions);
		return h ? 0 : 1;
	}
	fail_api(c, &e, &site);
	if (str_starts(e.text, "Could not find file for the medium"))
		fail_plain(c, "Invalid UUID or filename \"%s\"", at->medium);
	free(additions);
	return e.code == ERR_USAGE ? 2 : 1;
}

static int
check_mtype(struct args *a)
{
	static const char *const known[] = { "writethrough", "immutable", "shareable", "readonly", "multiattach" };

	if (!strcasecmp(a->text, "normal"))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strcasecmp(a->text, known[i]))
			return fail_plain(a->cli, "Media are of the type normal here, not '%s'", a->text);
	return fail_argument(a->cli, "Invalid --mtype argument '%s'", a->text);
}

/* Fill `at` from the option just read; the status to leave with, or 0. */
static int
attach_option(struct args *a, int id, struct host_attach *at)
{
	switch (id) {
	case O_STORAGECTL:
		at->controller = a->text;
		return 0;
	case O_PORT:
		at->port = (int)MIN(a->number, 100000u);
		return 0;
	case O_DEVICE:
		at->device = (int)MIN(a->number, 100000u);
		return 0;
	case O_TYPE:
		at->type = a->text;
		return 0;
	case O_MEDIUM:
		at->medium = a->text;
		return 0;
	case O_MTYPE:
		return check_mtype(a);
	case O_NONROTATIONAL:
		at->nonrotational = a->on;
		return 0;
	case O_DISCARD:
		at->discard = a->on;
		return 0;
	case O_HOTPLUGGABLE:
		at->hotpluggable = a->on;
		return 0;
	case O_PASSTHROUGH:
		at->passthrough = a->on;
		return 0;
	case O_TEMPEJECT:
		at->tempeject = a->on;
		return 0;
	case O_FORCE:
		at->force = true;
		return 0;
	case O_COMMENT:
		at->comment = a->text;
		return 0;
	case O_SETUUID:
		at->setuuid = a->text;
		return 0;
	case O_GROUP:
		at->group = a->text;
		return 0;
	default:
		return fail_plain(a->cli, "The option %s is not available here", a->spelled);
	}
}

int
cmd_storageattach(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "storagectl", O_STORAGECTL, OPT_TEXT, 's', 0 },
		{ "port", O_PORT, OPT_NUMBER, 'p', 0 },
		{ "device", O_DEVICE, OPT_NUMBER, 'd', 0 },
		{ "type", O_TYPE, OPT_TEXT, 't', 0 },
		{ "medium", O_MEDIUM, OPT_TEXT, 'm', 0 },
		{ "mtype", O_MTYPE, OPT_TEXT, 'M', 0 },
		{ "non-rotational", O_NONROTATIONAL, OPT_ONOFF, 'n', 0 },
		{ "discard", O_DISCARD, OPT_ONOFF, 'u', 0 },
		{ "hot-pluggable", O_HOTPLUGGABLE, OPT_ONOFF, 'o', 0 },
		{ "passthrough", O_PASSTHROUGH, OPT_ONOFF, 'h', 0 },
		{ "temp-eject", O_TEMPEJECT, OPT_ONOFF, 'e', 0 },
		{ "force-unmount", O_FORCE, OPT_FLAG, 'f', 0 },
		{ "comment", O_COMMENT, OPT_TEXT, 'C', 0 },
		{ "set-uuid", O_SETUUID, OPT_TEXT, 'q', 0 },
		{ "set-parent-uuid", O_REFUSED, OPT_TEXT, 'Q', 0 },
		{ "bandwidth-group", O_GROUP, OPT_TEXT, 'b', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_attach at = { .port = -1,
		.device = -1,
		.nonrotational = -1,
		.discard = -1,
		.hotpluggable = -1,
		.passthrough = -1,
		.tempeject = -1 };
	const char *vm = NULL;
	int id, r;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && vm)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD) {
			vm = a.text;
			continue;
		}
		r = attach_option(&a, id, &at);
		if (r)
			return r;
	}
	return attach(c, vm, &at);
}
