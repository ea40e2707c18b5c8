/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostonlyif, hostonlynet, natnetwork, and the lists of networks. (dhcpserver has a file of its own.)
 */
#include "front/vboxmanage/network.h"

#include <arpa/inet.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct site host_site = { "Host",
	"CreateHostOnlyNetworkInterface(hif.asOutParam(), progress.asOutParam())", 82, "VBoxManageHostonly.cpp" };
static const struct site nat_site = { "NATNetwork", "FindNATNetworkByName(Bstr(pNetName).raw(), net.asOutParam())", 300,
	"VBoxManageNATNetwork.cpp" };
static const struct site net_site = { "HostOnlyNetwork",
	"FindHostOnlyNetworkByName(Bstr(strNetworkName).raw(), hostOnlyNetwork.asOutParam())", 310,
	"VBoxManageHostonly.cpp" };

const char *
doc_text(json_t *doc, const char *key)
{
	const char *s = json_string_value(json_object_get(doc, key));

	return s ? s : "";
}

bool
doc_on(json_t *doc, const char *key)
{
	return json_is_true(json_object_get(doc, key));
}

static const char *
yes_no(bool yes)
{
	return yes ? "Yes" : "No";
}

/* ---- hostonlyif ---- */

static int
hostonlyif_create(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };
	char name[16];

	if (argc)
		return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
	progress_begin(c);
	if (host_hostonlyif_create(c->host, name, &e)) {
		progress_end(c, &e);
		return fail_api(c, &e, &host_site);
	}
	progress_end(c, NULL);
	printf("Interface '%s' was successfully created\n", name);
	return 0;
}

/* The document of an interface; NULL after saying that there is none. */
static json_t *
find_interface(struct cli *c, const char *name, int *status)
{
	struct err e = { 0 };
	json_t *doc = host_net_get(c->host, HOST_NET_HOSTONLYIF, name, &e);

	if (!doc)
		*status =
			e.code ? fail_api(c, &e, &host_site) : fail_argument(c, "Could not find interface '%s'", name);
	return doc;
}

static int
hostonlyif_remove(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };
	int status = 0;
	json_t *doc;

	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "No interface name was specified");
	doc = find_interface(c, argv[0], &status);
	json_decref(doc);
	if (!doc)
		return status;
	progress_begin(c);
	if (host_net_remove(c->host, HOST_NET_HOSTONLYIF, argv[0], &e)) {
		progress_end(c, &e);
		return fail_api(c, &e, &host_site);
	}
	progress_end(c, NULL);
	return 0;
}

enum { IF_DHCP, IF_IP, IF_MASK, IF_IP6, IF_LEN6 };

static int
hostonlyif_ipconfig(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "dhcp", IF_DHCP, OPT_FLAG, 'd', 0 },
		{ "ip", IF_IP, OPT_TEXT, 'a', 0 },
		{ "netmask", IF_MASK, OPT_TEXT, 'm', 0 },
		{ "ipv6", IF_IP6, OPT_TEXT, 'b', 0 },
		{ "netmasklengthv6", IF_LEN6, OPT_NUMBER, 'l', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *name = NULL, *ip = NULL, *mask = NULL, *ip6 = NULL;
	uint64_t len6 = 0;
	struct err e = { 0 };
	json_t *doc;
	int id, status = 0;
	bool dhcp = false;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && name)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD)
			name = a.text;
		else if (id == IF_DHCP)
			dhcp = true;
		else if (id == IF_IP)
			ip = a.text;
		else if (id == IF_MASK)
			mask = a.text;
		else if (id == IF_IP6)
			ip6 = a.text;
		else
			len6 = a.number;
	}
	if (!name)
		return fail_syntax(c, "No interface name was specified");
	if (dhcp && (ip || mask || ip6 || len6))
		return fail_syntax(c,
			"You can not use --dhcp with static ip configuration parameters: --ip, --netmask, --ipv6 and "
			"--netmasklengthv6.");
	if (!dhcp && !ip && !ip6)
		return fail_syntax(c, "Neither --dhcp nor --ip nor --ipv6 was specified");
	if ((ip && ip6) || (mask && !ip) || (len6 && !ip6))
		return fail_syntax(c, "You can not use static ip and dhcp, or IPv4 and IPv6, at the same time");
	if (len6 > 128)
		return fail_argument(c, "Invalid --netmasklengthv6 %llu", (unsigned long long)len6);
	doc = find_interface(c, name, &status);
	if (!doc)
		return status;
	if (dhcp || ip)
		json_object_set_new(doc, "dhcp", json_boolean(dhcp));
	if (dhcp) {
		json_object_set_new(doc, "ip", json_string(""));
	} else if (ip) {
		json_object_set_new(doc, "ip", json_string(strcmp(ip, "0.0.0.0") ? ip : ""));
		json_object_set_new(doc, "mask", json_string(mask ? mask : "255.255.255.0"));
	} else {
		json_object_set_new(doc, "ip6", json_string(ip6));
		json_object_set_new(doc, "len6", json_integer(len6 ? (json_int_t)len6 : 64));
	}
	if (host_net_set(c->host, HOST_NET_HOSTONLYIF, name, doc, &e))
		status = fail_api(c, &e, &host_site);
	json_decref(doc);
	return status;
}

struct sub {
	const char *name;
	int (*run)(struct cli *c, int argc, char **argv);
};

static int
run_sub(struct cli *c, const struct sub *subs, size_t count, int argc, char **argv)
{
	if (!argc)
		return fail_syntax(c, "Not enough parameters");
	for (size_t i = 0; i < count; i++)
		if (!strcmp(argv[0], subs[i].name))
			return cli_host(c) ? subs[i].run(c, argc - 1, argv + 1) : 1;
	return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
}

int
cmd_hostonlyif(struct cli *c, int argc, char **argv)
{
	static const struct sub subs[] = { { "create", hostonlyif_create }, { "remove", hostonlyif_remove },
		{ "ipconfig", hostonlyif_ipconfig } };

	return run_sub(c, subs, ARRAY_LEN(subs), argc, argv);
}

/* ---- lists of interfaces ---- */

/* VirtualBox makes a UUID of an interface's name and MAC address; a script only compares it. */
static void
print_netif(const struct host_netif *n, bool dhcp, const char *status)
{
	unsigned char name[16] = { 0 };

	memcpy(name, n->name, strnlen(n->name, sizeof(name)));
	printf("Name:            %s\n", n->name);
	printf("GUID:            %02x%02x%02x%02x-%02x%02x-4%x%02x-8000-%.2s%.2s%.2s%.2s%.2s%.2s\n", name[3], name[2],
		name[1], name[0], name[5], name[4], name[7] & 15u, name[6], n->mac, n->mac + 3, n->mac + 6, n->mac + 9,
		n->mac + 12, n->mac + 15);
	printf("DHCP:            %s\nIPAddress:       %s\nNetworkMask:     %s\nIPV6Address:     %s\n",
		dhcp ? "Enabled" : "Disabled", n->ip, n->mask, n->ip6);
	printf("IPV6NetworkMaskPrefixLength: %u\nHardwareAddress: %s\n", n->prefix6, n->mac);
	printf("MediumType:      Ethernet\nWireless:        %s\nStatus:          %s\n", n->wireless ? "Yes" : "No",
		status);
	printf("VBoxNetworkName: HostInterfaceNetworking-%s\n\n", n->name);
}

/* Host-only interfaces, ours and other users', are no interfaces to bridge to. */
int
list_bridgedifs(struct cli *c, bool full)
{
	struct host_netif *list;
	struct err e = { 0 };
	size_t count;

	if (host_netifs(&list, &count, &e))
		return fail_api(c, &e, &host_site);
	for (size_t i = 0; i < count; i++)
		if (!str_starts(list[i].name, "vboxnet") && !str_starts(list[i].name, "lodge"))
			print_netif(&list[i], false, list[i].up ? "Up" : "Down");
	free(list);
	return 0;
}

/* What the network's DHCP server gave to the interface itself, if it did. */
static void
leased_address(struct cli *c, const char *name, const char *id, const char *mac, struct host_netif *n)
{
	char *server = xasprintf("HostInterfaceNetworking-%s", name);
	json_t *doc = host_net_get(c->host, HOST_NET_DHCP, server, NULL), *leases = host_net_leases(c->host, id), *v;
	size_t i;

	json_array_foreach(leases, i, v)
	{
		if (!doc || strcmp(doc_text(v, "mac"), mac) != 0 || strcmp(doc_text(v, "state"), "acked") != 0)
			continue;
		snprintf(n->ip, sizeof(n->ip), "%s", doc_text(v, "ip"));
		snprintf(n->mask, sizeof(n->mask), "%s", doc_text(doc, "mask"));
	}
	json_decref(leases);
	json_decref(doc);
	free(server);
}

int
list_hostonlyifs(struct cli *c, bool full)
{
	struct err e = { 0 };
	json_t *all = host_net_list(c->host, HOST_NET_HOSTONLYIF, &e), *doc;
	const char *name;

	if (!all)
		return fail_api(c, &e, &host_site);
	json_object_foreach(all, name, doc)
	{
		struct host_netif n = { 0 };
		const char *m = doc_text(doc, "mac");
		char *id = host_net_id_of("hostonly", name);
		bool dhcp = doc_on(doc, "dhcp");

		snprintf(n.name, sizeof(n.name), "%s", name);
		snprintf(n.ip, sizeof(n.ip), "%s", *doc_text(doc, "ip") ? doc_text(doc, "ip") : "0.0.0.0");
		snprintf(n.mask, sizeof(n.mask), "%s", *doc_text(doc, "ip") ? doc_text(doc, "mask") : "0.0.0.0");
		snprintf(n.ip6, sizeof(n.ip6), "%s", doc_text(doc, "ip6"));
		n.prefix6 = (unsigned)json_integer_value(json_object_get(doc, "len6"));
		snprintf(n.mac, sizeof(n.mac), "%.2s:%.2s:%.2s:%.2s:%.2s:%.2s", m, m + 2, m + 4, m + 6, m + 8, m + 10);
		if (dhcp)
			leased_address(c, name, id, m, &n);
		print_netif(&n, dhcp, host_net_running(c->host, id) ? "Up" : "Down");
		free(id);
	}
	json_decref(all);
	return 0;
}

/* ---- hostonlynet ---- */

enum { HN_NAME, HN_ID, HN_MASK, HN_LOWER, HN_UPPER, HN_ENABLE, HN_DISABLE };

/* The network that --name or --id names: its name (free() it) and document. */
static json_t *
find_hostonlynet(struct cli *c, const char *name, const char *id, char **found)
{
	json_t *all = host_net_list(c->host, HOST_NET_HOSTONLYNET, NULL), *doc, *hit = NULL;
	const char *key;

	*found = NULL;
	json_object_foreach(all, key, doc)
	{
		if (!hit && ((name && !strcmp(name, key)) || (id && !strcasecmp(id, doc_text(doc, "id"))))) {
			*found = xstrdup(key);
			hit = json_incref(doc);
		}
	}
	json_decref(all);
	return hit;
}

static json_t *
new_hostonlynet(struct cli *c)
{
	json_t *all = host_net_list(c->host, HOST_NET_HOSTONLYNET, NULL), *doc;
	struct uuid u = uuid_random();
	const char *key;
	int number = 0;
	char text[37];

	json_object_foreach(all, key, doc)
	{
		number = MAX(number, (int)json_integer_value(json_object_get(doc, "number")) + 1);
	}
	json_decref(all);
	uuid_text(&u, text);
	return json_pack("{s:s, s:b, s:i}", "id", text, "enabled", 1, "number", number % 128);
}

static int
hostonlynet_change(struct cli *c, int argc, char **argv, const char *verb)
{
	static const struct opt options[] = {
		{ "name", HN_NAME, OPT_TEXT, 'n', 0 },
		{ "id", HN_ID, OPT_TEXT, 'i', 0 },
		{ "netmask", HN_MASK, OPT_TEXT, 'm', 0 },
		{ "lower-ip", HN_LOWER, OPT_TEXT, 'l', 0 },
		{ "upper-ip", HN_UPPER, OPT_TEXT, 'u', 0 },
		{ "enable", HN_ENABLE, OPT_FLAG, 'e', 0 },
		{ "disable", HN_DISABLE, OPT_FLAG, 'd', 0 },
	};
	static const char *const keys[] = { [HN_MASK] = "mask", [HN_LOWER] = "lower", [HN_UPPER] = "upper" };
	struct args a = ARGS(c, argc, argv, options);
	const char *name = NULL, *uuid = NULL;
	json_t *changes = json_object(), *doc;
	struct err e = { 0 };
	char *found;
	int id, status = 0;

	while (!status && (id = args_next(&a)) != ARG_END) {
		if (id < 0)
			status = id == ARG_BAD ? 2 : fail_syntax(c, "Invalid parameter '%s'", a.text);
		else if (id == HN_NAME)
			name = a.text;
		else if (id == HN_ID)
			uuid = a.text;
		else if (id >= HN_ENABLE)
			json_object_set_new(changes, "enabled", json_boolean(id == HN_ENABLE));
		else
			json_object_set_new(changes, keys[id], json_string(a.text));
	}
	if (!status && !name && !uuid)
		status = fail_syntax(c, "The --name parameter must be specified");
	if (status) {
		json_decref(changes);
		return status;
	}
	doc = find_hostonlynet(c, name, uuid, &found);
	if (!strcmp(verb, "add") && doc)
		status = fail_argument(c, "Host-only network '%s' already exists", found);
	else if (strcmp(verb, "add") && !doc)
		status = fail_argument(c, "Host-only network '%s' does not exist", name ? name : uuid);
	else if (!strcmp(verb, "remove") && host_net_remove(c->host, HOST_NET_HOSTONLYNET, found, &e))
		status = fail_api(c, &e, &net_site);
	if (!status && strcmp(verb, "remove")) {
		if (!doc)
			doc = new_hostonlynet(c);
		json_object_update(doc, changes);
		if (host_net_set(c->host, HOST_NET_HOSTONLYNET, found ? found : name, doc, &e))
			status = fail_api(c, &e, &net_site);
	}
	json_decref(doc);
	json_decref(changes);
	free(found);
	return status;
}

static int
hostonlynet_add(struct cli *c, int argc, char **argv)
{
	return hostonlynet_change(c, argc, argv, "add");
}

static int
hostonlynet_modify(struct cli *c, int argc, char **argv)
{
	return hostonlynet_change(c, argc, argv, "modify");
}

static int
hostonlynet_remove(struct cli *c, int argc, char **argv)
{
	return hostonlynet_change(c, argc, argv, "remove");
}

int
cmd_hostonlynet(struct cli *c, int argc, char **argv)
{
	static const struct sub subs[] = { { "add", hostonlynet_add }, { "modify", hostonlynet_modify },
		{ "remove", hostonlynet_remove } };

	return run_sub(c, subs, ARRAY_LEN(subs), argc, argv);
}

int
list_hostonlynets(struct cli *c, bool full)
{
	struct err e = { 0 };
	json_t *all = host_net_list(c->host, HOST_NET_HOSTONLYNET, &e), *doc;
	const char *name;

	if (!all)
		return fail_api(c, &e, &net_site);
	json_object_foreach(all, name, doc)
	{
		printf("Name:            %s\nGUID:            %s\n\nState:           %s\nNetworkMask:     %s\n"
		       "LowerIP:         %s\nUpperIP:         %s\nVBoxNetworkName: hostonly-%s\n\n",
			name, doc_text(doc, "id"), doc_on(doc, "enabled") ? "Enabled" : "Disabled",
			doc_text(doc, "mask"), doc_text(doc, "lower"), doc_text(doc, "upper"), name);
	}
	json_decref(all);
	return 0;
}

/* ---- natnetwork ---- */

#define NAT_PREFIX6 "fd17:625c:f037:2::/64"

enum {
	NN_NAME,
	NN_NETWORK,
	NN_ENABLE,
	NN_DISABLE,
	NN_DHCP,
	NN_IPV6,
	NN_PREFIX6,
	NN_DEFAULT6,
	NN_FORWARD,
	NN_FORWARD6,
	NN_LOOPBACK,
	NN_LOOPBACK6,
	NN_TFTP,
	NN_BOOTFILE,
};

/* What stands in front of the first ':' (rules) or the whole (loopbacks). */
static void
list_delete(json_t *list, const char *name, char end)
{
	size_t n = strlen(name);

	for (size_t i = json_array_size(list); i-- > 0;) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!strncmp(text, name, n) && (text[n] == end || !text[n]))
			json_array_remove(list, i);
	}
}

/* "RULE", or "delete NAME" */
static int
change_list(struct args *a, json_t *doc, const char *key, char end)
{
	json_t *list = json_object_get(doc, key);
	const char *name;

	if (!list) {
		list = json_array();
		json_object_set_new(doc, key, list);
	}
	if (strcmp(a->text, "delete")) {
		char *rule_name = strndup(a->text, strcspn(a->text, end == '=' ? "=" : ":"));

		list_delete(list, rule_name, end);
		free(rule_name);
		json_array_append_new(list, json_string(a->text));
		return 0;
	}
	name = args_value(a);
	if (!name)
		return 2;
	list_delete(list, name, end);
	return 0;
}

static int
nat_option(struct args *a, json_t *doc, int id)
{
	switch (id) {
	case NN_NETWORK:
		json_object_set_new(doc, "network", json_string(a->text));
		return 0;
	case NN_ENABLE:
	case NN_DISABLE:
		json_object_set_new(doc, "enabled", json_boolean(id == NN_ENABLE));
		return 0;
	case NN_DHCP:
		json_object_set_new(doc, "dhcp", json_boolean(a->on));
		return 0;
	case NN_IPV6:
		json_object_set_new(doc, "ipv6", json_boolean(a->on));
		return 0;
	case NN_PREFIX6:
		json_object_set_new(doc, "prefix6", json_string(*a->text ? a->text : NAT_PREFIX6));
		return 0;
	case NN_DEFAULT6:
		json_object_set_new(doc, "default6", json_boolean(a->on));
		return 0;
	case NN_FORWARD:
		return change_list(a, doc, "forwards", ':');
	case NN_FORWARD6:
		return change_list(a, doc, "forwards6", ':');
	case NN_TFTP:
	case NN_BOOTFILE:
		json_object_set_new(doc, id == NN_TFTP ? "tftp" : "bootfile", json_string(a->text));
		return 0;
	case NN_LOOPBACK:
		return change_list(a, doc, "loopbacks", '=');
	case NN_LOOPBACK6:
		if (strcmp(a->text, "delete") != 0 && strcmp(a->text, "::1=2") != 0)
			return fail_argument(
				a->cli, "Invalid loopback mapping '%s': only ::1=2 can be mapped", a->text);
		return change_list(a, doc, "loopbacks6", '=');
	}
	return 0;
}

static int
nat_change(struct cli *c, int argc, char **argv, bool add)
{
	static const struct opt options[] = {
		{ "netname", NN_NAME, OPT_TEXT, 't', 0 },
		{ "network", NN_NETWORK, OPT_TEXT, 'n', 0 },
		{ "enable", NN_ENABLE, OPT_FLAG, 'e', 0 },
		{ "disable", NN_DISABLE, OPT_FLAG, 'd', 0 },
		{ "dhcp", NN_DHCP, OPT_ONOFF, 'h', 0 },
		{ "ipv6", NN_IPV6, OPT_ONOFF, '6', 0 },
		{ "ipv6-prefix", NN_PREFIX6, OPT_TEXT, 0, 0 },
		{ "ipv6-default", NN_DEFAULT6, OPT_ONOFF, 0, 0 },
		{ "port-forward-4", NN_FORWARD, OPT_TEXT, 'p', 0 },
		{ "port-forward-6", NN_FORWARD6, OPT_TEXT, 'P', 0 },
		{ "loopback-4", NN_LOOPBACK, OPT_TEXT, 'l', 0 },
		{ "loopback-6", NN_LOOPBACK6, OPT_TEXT, 'L', 0 },
		{ "tftp-prefix", NN_TFTP, OPT_TEXT, 0, 0 }, /* these two are ours */
		{ "tftp-file", NN_BOOTFILE, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	json_t *doc = NULL, *stored;
	const char *name = NULL;
	struct err e = { 0 };
	int id, status = 0;

	/* The name first, wherever it stands: the options change what is there. */
	for (int i = 0; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--netname") || !strcmp(argv[i], "-t") || !strcmp(argv[i], "-netname"))
			name = argv[i + 1];
	for (int i = 0; i < argc; i++)
		if (str_starts(argv[i], "--netname="))
			name = argv[i] + 10;
	if (!name)
		return fail_syntax(c, "You need to specify the --netname option");
	stored = host_net_get(c->host, HOST_NET_NAT, name, &e);
	if (add && stored) {
		json_decref(stored);
		return fail_plain(c, "NAT network '%s' already exists", name);
	}
	if (!add && !stored)
		return fail_plain(c, "NAT network '%s' does not exist", name);
	doc = stored ? stored
		     : json_pack("{s:b, s:b, s:b, s:s, s:b}", "enabled", 1, "dhcp", 1, "ipv6", 0, "prefix6",
			       NAT_PREFIX6, "default6", 0);
	while (!status && (id = args_next(&a)) != ARG_END) {
		if (id < 0)
			status = id == ARG_BAD ? 2 : fail_syntax(c, "Invalid parameter '%s'", a.text);
		else if (id != NN_NAME)
			status = nat_option(&a, doc, id);
	}
	if (!status && !*doc_text(doc, "network"))
		status = fail_syntax(c, "You need to specify the --network option");
	if (!status && host_net_set(c->host, HOST_NET_NAT, name, doc, &e))
		status = fail_api(c, &e, &nat_site);
	json_decref(doc);
	return status;
}

static int
nat_add(struct cli *c, int argc, char **argv)
{
	return nat_change(c, argc, argv, true);
}

static int
nat_modify(struct cli *c, int argc, char **argv)
{
	return nat_change(c, argc, argv, false);
}

/* --netname NAME of a network that exists; NULL after saying what is wrong. */
static const char *
nat_name(struct cli *c, int argc, char **argv, int *status)
{
	static const struct opt options[] = { { "netname", NN_NAME, OPT_TEXT, 't', 0 } };
	struct args a = ARGS(c, argc, argv, options);
	const char *name = NULL;
	json_t *doc;
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id < 0) {
			*status = id == ARG_BAD ? 2 : fail_syntax(c, "Invalid parameter '%s'", a.text);
			return NULL;
		}
		name = a.text;
	}
	if (!name) {
		*status = fail_syntax(c, "You need to specify the --netname option");
		return NULL;
	}
	doc = host_net_get(c->host, HOST_NET_NAT, name, NULL);
	if (!doc)
		*status = fail_plain(c, "NAT network '%s' does not exist", name);
	json_decref(doc);
	return doc ? name : NULL;
}

static int
nat_remove(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };
	int status = 0;
	const char *name = nat_name(c, argc, argv, &status);

	if (!name)
		return status;
	return host_net_remove(c->host, HOST_NET_NAT, name, &e) ? fail_api(c, &e, &nat_site) : 0;
}

static int
nat_run(struct cli *c, int argc, char **argv, bool start)
{
	struct err e = { 0 };
	int status = 0, r;
	const char *name = nat_name(c, argc, argv, &status);
	char *id;

	if (!name)
		return status;
	id = host_net_id_of("nat", name);
	r = start ? host_net_start(c->host, id, &e) : host_net_stop(c->host, id, &e);
	if (start && !r)
		json_decref(host_net_call(c->host, id, "hold", json_object(), NULL));
	free(id);
	return r ? fail_api(c, &e, &nat_site) : 0;
}

static int
nat_start(struct cli *c, int argc, char **argv)
{
	return nat_run(c, argc, argv, true);
}

static int
nat_stop(struct cli *c, int argc, char **argv)
{
	return nat_run(c, argc, argv, false);
}

static void
gateway_text(const char *network, char out[16])
{
	struct in_addr a = { 0 };
	char ip[16];

	snprintf(ip, sizeof(ip), "%.*s", (int)MIN(strcspn(network, "/"), (size_t)15), network);
	inet_pton(AF_INET, ip, &a);
	a.s_addr = htonl((ntohl(a.s_addr) & ~0u << (32 - strtoul(network + strcspn(network, "/") + 1, NULL, 10))) + 1);
	inet_ntop(AF_INET, &a, out, 16);
}

static void
print_items(const char *title, json_t *list)
{
	json_t *v;
	size_t i;

	if (json_array_size(list))
		printf("%s\n", title);
	json_array_foreach(list, i, v)
	{
		printf("        %s\n", json_string_value(v));
	}
}

static void
print_nat(const char *name, json_t *doc, bool full)
{
	char gateway[16];

	gateway_text(doc_text(doc, "network"), gateway);
	printf("Name:         %s\n", name);
	if (full)
		printf("Enabled:      %s\n", yes_no(doc_on(doc, "enabled")));
	printf("Network:      %s\nGateway:      %s\nDHCP Server:  %s\nIPv6:         %s\nIPv6 Prefix:  %s\n"
	       "IPv6 Default: %s\n",
		doc_text(doc, "network"), gateway, yes_no(doc_on(doc, "dhcp")), yes_no(doc_on(doc, "ipv6")),
		doc_text(doc, "prefix6"), yes_no(doc_on(doc, "default6")));
	if (full) {
		print_items("Port-forwarding (ipv4)", json_object_get(doc, "forwards"));
		print_items("Port-forwarding (ipv6)", json_object_get(doc, "forwards6"));
		print_items("loopback mappings (ipv4)", json_object_get(doc, "loopbacks"));
		if (json_array_size(json_object_get(doc, "loopbacks6")))
			print_items("loopback mappings (ipv6)", json_object_get(doc, "loopbacks6"));
	}
	putchar('\n');
}

int
list_natnetworks(struct cli *c, bool full)
{
	struct err e = { 0 };
	json_t *all = host_net_list(c->host, HOST_NET_NAT, &e), *doc;
	const char *name;

	if (!all)
		return fail_api(c, &e, &nat_site);
	json_object_foreach(all, name, doc)
	{
		print_nat(name, doc, full);
	}
	json_decref(all);
	return 0;
}

static int
nat_list(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };
	json_t *all = host_net_list(c->host, HOST_NET_NAT, &e), *doc;
	const char *name;
	int found = 0;

	if (argc > 1)
		return fail_syntax(c, "Too many parameters");
	if (!all)
		return fail_api(c, &e, &nat_site);
	printf("NAT Networks:\n\n");
	json_object_foreach(all, name, doc)
	{
		if (argc && fnmatch(argv[0], name, 0))
			continue;
		print_nat(name, doc, true);
		found++;
	}
	printf("%d %s found\n", found, found == 1 ? "network" : "networks");
	json_decref(all);
	return 0;
}

int
cmd_natnetwork(struct cli *c, int argc, char **argv)
{
	static const struct sub subs[] = { { "add", nat_add }, { "modify", nat_modify }, { "remove", nat_remove },
		{ "start", nat_start }, { "stop", nat_stop }, { "list", nat_list } };

	return run_sub(c, subs, ARRAY_LEN(subs), argc, argv);
}

/* ---- internal networks ---- */

int
list_intnets(struct cli *c, bool full)
{
	struct err e = { 0 };
	char **names;
	size_t count;

	if (host_intnets(c->host, &names, &count, &e))
		return fail_api(c, &e, &host_site);
	for (size_t i = 0; i < count; i++) {
		printf("Name:        %s\n", names[i]);
		free(names[i]);
	}
	free(names);
	return 0;
}
