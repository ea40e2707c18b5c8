/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be done to the adapters of a running machine (controlvm).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/network.h"

static const struct site site = { "NetworkAdapter", "COMSETTER(AttachmentType)(type)", 900, "VBoxManageControlVM.cpp" };

/* Which setting the word behind the mode goes into. */
static const struct mode {
	const char *word, *mode;
	int key; /* -1: none */
} modes[] = {
	{ "null", "null", -1 },
	{ "nat", "nat", -1 },
	{ "bridged", "bridged", HK_BRIDGEADAPTER },
	{ "intnet", "intnet", HK_INTNET },
	{ "hostonly", "hostonly", HK_HOSTONLYADAPTER },
	{ "hostonlynet", "hostonlynet", HK_HOSTONLYNET },
	{ "natnetwork", "natnetwork", HK_NATNETWORK },
	{ "generic", "generic", HK_NICGENERICDRV },
};

int
ctl_nic(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	struct host_change changes[2];
	const struct mode *m = NULL;
	struct err e = { 0 };
	size_t count = 1;

	if (argc < 1 || argc > 2)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'nic%d'", slot + 1);
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		if (!strcmp(argv[0], modes[i].word))
			m = &modes[i];
	if (!m)
		return fail_argument(c, "Invalid type '%s' specfied for NIC %d", argv[0], slot + 1);
	if (m->key >= 0 && argc < 2 && m->key != HK_INTNET && m->key != HK_NATNETWORK)
		return fail_syntax(c, "Missing argument to '%s'", argv[0]);
	if (m->key < 0 && argc > 1)
		return fail_syntax(c, "Invalid parameter '%s'", argv[1]);
	changes[0] = (struct host_change){ HK_NIC, slot, m->mode };
	if (argc == 2)
		changes[count++] = (struct host_change){ (enum host_key)m->key, slot, argv[1] };
	return host_nic_attach_live(c->host, vm, slot, changes, count, &e) ? fail_api(c, &e, &site) : 0;
}

static int
change(struct cli *c, const char *vm, enum host_key key, int slot, const char *value)
{
	struct host_change ch = { key, slot, value };
	struct err e = { 0 };

	return host_nic_change_live(c->host, vm, &ch, &e) ? fail_api(c, &e, &site) : 0;
}

int
ctl_nicpromisc(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'nicpromisc%d'", slot + 1);
	if (host_setting_check(HK_NICPROMISC, slot, argv[0], NULL) != HOST_VALUE_OK)
		return fail_argument(c, "Unknown promiscuous mode policy '%s'", argv[0]);
	return change(c, vm, HK_NICPROMISC, slot, argv[0]);
}

int
ctl_nicproperty(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'nicproperty%d'", slot + 1);
	if (!strchr(argv[0], '='))
		return fail_argument(c, "Invalid nicproperty%d argument '%s'", slot + 1, argv[0]);
	return change(c, vm, HK_NICPROPERTY_SET, slot, argv[0]);
}

int
ctl_nictracefile(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	struct err e = { 0 };

	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'nictracefile%d'", slot + 1);
	return host_nic_tracefile_live(c->host, vm, slot, argv[0], &e) ? fail_api(c, &e, &site) : 0;
}
