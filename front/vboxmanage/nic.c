/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be done to the adapters of a running machine (controlvm), and their bandwidth groups (bandwidthctl).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* ---- bandwidthctl ---- */

/* "20m" is 20 megabits a second; k, m, g are bits, K, M, G bytes, a plain number megabytes. */
static bool
parse_limit(const char *text, uint64_t *rate)
{
	static const struct {
		char unit;
		uint64_t bytes;
	} units[] = { { 'k', 125 }, { 'm', 125000 }, { 'g', 125000000 }, { 'K', 1024 }, { 'M', 1 << 20 },
		{ 'G', 1 << 30 } };
	size_t n = strlen(text);
	uint64_t unit = 1 << 20, v;
	char number[24];

	if (!n || n >= sizeof(number))
		return false;
	memcpy(number, text, n + 1);
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (text[n - 1] == units[i].unit) {
			unit = units[i].bytes;
			number[n - 1] = 0;
			break;
		}
	if (!isdigit((unsigned char)number[0]) || !str_to_u64(number, 0, UINT32_MAX, &v))
		return false;
	*rate = v * unit;
	return true;
}

#define PREFIX "Lodge/Bandwidth/"
#define DISK_PREFIX "Lodge/DiskBandwidth/"

struct listing {
	bool readable, titled; /* titled: as part of showvminfo */
	int count;
};

static void
print_rate(uint64_t rate, bool network)
{
	static const char *const units[] = { "", "kilo", "mega", "giga" };
	uint64_t bytes = rate, bits = rate * 8;
	int byte_unit = 0, bit_unit = 0;

	if (!rate) {
		printf("none (disabled)\n");
		return;
	}
	for (; bytes % 1024 == 0 && byte_unit < 3; byte_unit++)
		bytes /= 1024;
	for (; bits % 1000 == 0 && bit_unit < 3; bit_unit++)
		bits /= 1000;
	if (network)
		printf("%llu %sbits/sec (%llu %sbytes/sec)\n", (unsigned long long)bits, units[bit_unit],
			(unsigned long long)bytes, units[byte_unit]);
	else
		printf("%llu %sbytes/sec\n", (unsigned long long)bytes, units[byte_unit]);
}

static int
print_group(void *opaque, const char *key, const char *value, int64_t time, const char *flags)
{
	struct listing *l = opaque;
	bool disk = str_starts(key, DISK_PREFIX), network = str_starts(key, PREFIX);
	const char *name = key + strlen(disk ? DISK_PREFIX : PREFIX), *type = disk ? "Disk" : "Network";
	uint64_t rate;

	if ((!disk && !network) || !str_to_u64(value, 0, INT64_MAX, &rate))
		return 0;
	if (l->readable) {
		printf("BandwidthGroup%d=%s,%s,%llu\n", l->count++, name, type, (unsigned long long)rate);
		return 0;
	}
	if (l->titled && !l->count)
		printf("Bandwidth groups:\n\n");
	l->count++;
	printf("Name: '%s', Type: %s, Limit: ", name, type);
	print_rate(rate, network);
	return 0;
}

void
show_bandwidth_groups(struct cli *c, const struct host_vm *vm, bool readable)
{
	struct listing l = { .readable = readable, .titled = true };
	struct err unused = { 0 };

	host_extra_each(c->host, vm->uuid, print_group, &l, &unused);
	if (!readable)
		printf(l.count ? "\n" : "Bandwidth groups:  <none>\n\n");
}

static int
list_groups(struct cli *c, const char *vm, bool readable)
{
	struct listing l = { .readable = readable };
	struct err e = { 0 };

	if (host_extra_each(c->host, vm, print_group, &l, &e))
		return fail_api(c, &e, &site);
	if (!l.count && !readable)
		printf("Bandwidth groups: <none>\n");
	return 0;
}

/* Is it in use by an adapter? */
static int
check_adapters(struct cli *c, const struct host_vm *vm, const char *group)
{
	for (int i = 0; i < HOST_NICS; i++)
		if (!strcmp(host_vm_get(vm, HK_NICBANDWIDTHGROUP, i), group))
			return fail_plain(c, "The bandwidth group '%s' is still in use by adapter %d", group, i + 1);
	return 0;
}

static bool
network_group(struct cli *c, const char *vm, const char *name)
{
	char *key = xasprintf(PREFIX "%s", name), *value = NULL;
	struct err unused;
	bool found = !host_extra_get(c->host, vm, key, &value, &unused) && value;

	free(value);
	free(key);
	return found;
}

/* rate -1: remove it. */
static int
change_group(struct cli *c, const char *vm, const char *name, bool disk, int64_t rate)
{
	struct err e = { 0 };
	int r = disk ? host_disk_group_set(c->host, vm, name, rate, &e)
		     : host_bandwidth_set(c->host, vm, name, rate, &e);

	return r ? fail_api(c, &e, &site) : 0;
}

static int
group_verb(struct cli *c, char verb, const char *id, const char *name, const char *type, int64_t rate)
{
	struct err e = { 0 };
	struct host_vm *vm = host_vm_load(c->host, id, &e);
	bool network, disk;
	uint64_t unused;
	int status = 0;

	if (!vm)
		return fail_api(c, &e, &site);
	network = network_group(c, id, name);
	disk = host_disk_group(c->host, id, name, &unused);
	if (verb == 'r' && network)
		status = check_adapters(c, vm, name);
	host_vm_free(vm);
	if (status)
		return status;
	if (verb == 'a' && (network || disk))
		return fail_plain(c, "Bandwidth group named '%s' already exists", name);
	if (verb != 'a' && !network && !disk) {
		err_set(&e, ERR_NOT_FOUND, "Could not find a bandwidth group named '%s'", name);
		return fail_api(c, &e, &site);
	}
	if (verb == 'a')
		disk = !strcasecmp(type, "disk");
	return change_group(c, id, name, disk, verb == 'r' ? -1 : rate);
}

int
cmd_bandwidthctl(struct cli *c, int argc, char **argv)
{
	enum { B_TYPE, B_LIMIT, B_READABLE };
	static const struct opt options[] = {
		{ "type", B_TYPE, OPT_TEXT, 't', 0 },
		{ "limit", B_LIMIT, OPT_TEXT, 'l', 0 },
		{ "machinereadable", B_READABLE, OPT_FLAG, 'M', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *words[3] = { NULL }, *limit = NULL, *type = NULL;
	bool readable = false;
	uint64_t rate = 0;
	int id, n = 0;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && n == 3)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD)
			words[n++] = a.text;
		else if (id == B_TYPE)
			type = a.text;
		else if (id == B_LIMIT)
			limit = a.text;
		else
			readable = true;
	}
	if (n < 2)
		return fail_syntax(c, "Not enough parameters");
	if (strcmp(words[1], "list") && strcmp(words[1], "add") && strcmp(words[1], "set") &&
		strcmp(words[1], "remove"))
		return fail_syntax(c, "Invalid parameter '%s'", words[1]);
	if (!cli_host(c))
		return 1;
	if (!strcmp(words[1], "list"))
		return list_groups(c, words[0], readable);
	if (n < 3 || !*words[2])
		return fail_syntax(c, "Bandwidth group name must not be empty!");
	if (!strcmp(words[1], "add") && (!type || (strcasecmp(type, "disk") && strcasecmp(type, "network"))))
		return fail_argument(
			c, type ? "Invalid bandwidth group type '%s'" : "Parameter --type is required", type);
	if (strcmp(words[1], "remove") && (!limit || !parse_limit(limit, &rate)))
		return fail_argument(
			c, limit ? "Invalid bandwidth limit '%s'" : "Parameter --limit is required", limit);
	return group_verb(c, words[1][0], words[0], words[2], type, (int64_t)rate);
}
