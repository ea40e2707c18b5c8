/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the documents of the inventory to what a network's process reads: config.json and ports/ID.json
 * (switch/protocol.h).
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/netrun.h"
#include "switch/protocol.h"

/* ---- names ---- */

/* Anything but letters, digits and "-_." as %XX; no name begins with a dot. */
static void
add_safe(struct str *b, const char *name)
{
	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (isalnum(c) || strchr("-_.", c))
			str_addn(b, name, 1);
		else
			str_addf(b, "%%%02X", c);
	}
}

char *
host_net_id_of(const char *kind, const char *name)
{
	struct str b = { 0 };

	str_addf(&b, "%s-", kind);
	add_safe(&b, name);
	return b.s;
}

static void
split_id(const char *id, char kind[32], char name[512])
{
	size_t n = strcspn(id, "-"), k = 0;

	snprintf(kind, 32, "%.*s", (int)MIN(n, (size_t)31), id);
	id += n + (id[n] != 0);
	while (*id && k < 511) {
		unsigned c;

		if (*id == '%' && sscanf(id + 1, "%2x", &c) == 1) {
			name[k++] = (char)c;
			id += 3;
		} else {
			name[k++] = *id++;
		}
	}
	name[k] = 0;
}

char *
host_net_id(const struct host_vm *vm, int nic)
{
	static const struct {
		const char *mode, *kind;
		enum host_key key;
	} modes[] = { { "natnetwork", "nat", HK_NATNETWORK }, { "hostonly", "hostonly", HK_HOSTONLYADAPTER },
		{ "hostonlynet", "hostonlynet", HK_HOSTONLYNET }, { "intnet", "intnet", HK_INTNET },
		{ "bridged", "bridged", HK_BRIDGEADAPTER } };

	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		if (!strcmp(host_vm_get(vm, HK_NIC, nic), modes[i].mode))
			return host_net_id_of(modes[i].kind, host_vm_get(vm, modes[i].key, nic));
	return NULL;
}

#define HOSTONLYNET_PREFIX "hostonly-"

char *
host_net_id_of_dhcp(struct host *h, const char *name)
{
	json_t *nat;
	char *id;

	if (str_starts(name, HOSTONLY_PREFIX))
		return host_net_id_of("hostonly", name + strlen(HOSTONLY_PREFIX));
	nat = host_net_get(h, HOST_NET_NAT, name, NULL);
	id = host_net_id_of(nat ? "nat" : "intnet", name);
	json_decref(nat);
	return id;
}

/* ---- config.json ---- */

static uint32_t
ipv4_of(const char *text)
{
	struct in_addr a = { 0 };

	return inet_pton(AF_INET, text, &a) == 1 ? ntohl(a.s_addr) : 0;
}

static json_t *
ipv4_json(uint32_t ip)
{
	return json_sprintf("%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static json_t *
network_json(uint32_t ip, uint32_t mask)
{
	uint32_t n = ip & mask;

	return json_sprintf("%u.%u.%u.%u/%d", n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255, __builtin_popcount(mask));
}

/* A machine's adapter may be named instead of its address. */
static json_t *
individual_json(struct host *h, json_t *list)
{
	json_t *out = json_array(), *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		json_t *copy = json_deep_copy(v);
		const char *id = json_string_value(json_object_get(v, "vm"));
		struct host_vm *vm = id ? host_vm_load(h, id, NULL) : NULL;
		json_int_t nic = json_integer_value(json_object_get(v, "nic"));

		if (vm && nic >= 0 && nic < HOST_NICS)
			json_object_set_new(copy, "mac", json_string(host_vm_get(vm, HK_MACADDRESS, (int)nic)));
		json_object_del(copy, "vm");
		json_object_del(copy, "nic");
		if (json_object_get(copy, "mac"))
			json_array_append(out, copy);
		json_decref(copy);
		host_vm_free(vm);
	}
	return out;
}

static void
add_dhcp(struct host *h, json_t *config, const char *server)
{
	json_t *doc = host_net_get(h, HOST_NET_DHCP, server, NULL), *o, *v;

	if (!doc)
		return;
	o = json_pack("{s:b, s:s, s:s, s:s, s:s}", "enabled", json_is_true(json_object_get(doc, "enabled")), "address",
		json_text(doc, "ip"), "netmask", json_text(doc, "mask"), "lower", json_text(doc, "lower"), "upper",
		json_text(doc, "upper"));
	if ((v = json_object_get(doc, "global")))
		json_object_set(o, "global", v);
	if ((v = json_object_get(doc, "groups")))
		json_object_set(o, "groups", v);
	if ((v = json_object_get(doc, "individual")))
		json_object_set_new(o, "individual", individual_json(h, v));
	json_object_set_new(config, "dhcp", o);
	if (*json_text(doc, "prefix6") && strcmp(json_text(config, "kind"), "natnetwork") != 0)
		json_object_set_new(config, "prefix6", json_string(json_text(doc, "prefix6")));
	if (!json_object_get(config, "network"))
		json_object_set_new(config, "network",
			network_json(ipv4_of(json_text(doc, "ip")), ipv4_of(json_text(doc, "mask"))));
	json_decref(doc);
}

static void
add_forwards(json_t *out, json_t *list)
{
	json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		struct nat_rule r;
		char *text;

		if (natnet_rule_parse(json_string_value(v), &r, NULL))
			continue;
		text = vm_rule_text(&r);
		json_array_append_new(out, json_string(text));
		free(text);
	}
}

static int
nat_config(struct host *h, json_t *c, const char *name, struct err *e)
{
	json_t *doc = host_net_get(h, HOST_NET_NAT, name, e);
	const char *network = json_text(doc, "network");
	char ip[32];
	json_t *forwards;

	if (!doc)
		return err_set(e, ERR_NOT_FOUND, "There is no NAT network named '%s'", name);
	if (!json_is_true(json_object_get(doc, "enabled"))) {
		json_decref(doc);
		return err_set(e, ERR_OBJECT_STATE, "The NAT network '%s' is disabled", name);
	}
	snprintf(ip, sizeof(ip), "%.*s", (int)strcspn(network, "/"), network);
	json_object_set_new(c, "kind", json_string("natnetwork"));
	json_object_set_new(c, "uplink", json_string("nat"));
	json_object_set_new(c, "network", json_string(network));
	json_object_set_new(c, "gateway",
		ipv4_json((ipv4_of(ip) & ~0u << (32 - strtoul(network + strcspn(network, "/") + 1, NULL, 10))) + 1));
	forwards = json_array();
	add_forwards(forwards, json_object_get(doc, "forwards"));
	if (json_is_true(json_object_get(doc, "ipv6")))
		add_forwards(forwards, json_object_get(doc, "forwards6"));
	json_object_set_new(c, "forwards", forwards);
	if (*json_text(doc, "tftp"))
		json_object_set_new(c, "tftp", json_string(json_text(doc, "tftp")));
	if (*json_text(doc, "bootfile"))
		json_object_set_new(c, "bootfile", json_string(json_text(doc, "bootfile")));
	json_object_set_new(c, "localhost_reachable", json_boolean(json_array_size(json_object_get(doc, "loopbacks"))));
	if (json_is_true(json_object_get(doc, "ipv6"))) {
		json_object_set_new(
			c, "localhost_reachable6", json_boolean(json_array_size(json_object_get(doc, "loopbacks6"))));
		json_object_set_new(c, "prefix6", json_string(json_text(doc, "prefix6")));
		json_object_set(c, "default6", json_object_get(doc, "default6"));
	}
	json_decref(doc);
	add_dhcp(h, c, name);
	return 0;
}

static int
hostonly_config(struct host *h, json_t *c, const char *name, struct err *e)
{
	json_t *doc = host_net_get(h, HOST_NET_HOSTONLYIF, name, e);
	char *server = xasprintf(HOSTONLY_PREFIX "%s", name);
	const char *ip = json_text(doc, "ip"), *ip6 = json_text(doc, "ip6");
	bool dhcp = json_is_true(json_object_get(doc, "dhcp"));

	if (!doc) {
		free(server);
		return err_set(e, ERR_NOT_FOUND, "The host-only interface '%s' does not exist", name);
	}
	json_object_set_new(c, "kind", json_string("hostonly"));
	json_object_set_new(c, "uplink", json_string("host"));
	json_object_set_new(c, "interface", json_string(name));
	json_object_set_new(c, "mac", json_string(json_text(doc, "mac")));
	if (dhcp) {
		json_object_set_new(c, "host_dhcp", json_true());
	} else if (*ip) {
		json_object_set_new(c, "network", network_json(ipv4_of(ip), ipv4_of(json_text(doc, "mask"))));
		json_object_set_new(c, "gateway", json_string(ip));
	}
	if (*ip6)
		json_object_set_new(c, "address6",
			json_sprintf("%s/%d", ip6, (int)json_integer_value(json_object_get(doc, "len6"))));
	add_dhcp(h, c, server);
	free(server);
	json_decref(doc);
	return 0;
}

/* The host has the first address of the range's network; .2 on (or the range) is given out. */
static int
hostonlynet_config(struct host *h, json_t *c, const char *name, struct err *e)
{
	json_t *doc = host_net_get(h, HOST_NET_HOSTONLYNET, name, e);
	uint32_t mask, lower, upper, host;
	char interface[16];

	if (!doc)
		return err_set(e, ERR_NOT_FOUND, "There is no host-only network named '%s'", name);
	if (!json_is_true(json_object_get(doc, "enabled"))) {
		json_decref(doc);
		return err_set(e, ERR_OBJECT_STATE, "The host-only network '%s' is disabled", name);
	}
	mask = ipv4_of(json_text(doc, "mask"));
	lower = ipv4_of(json_text(doc, "lower"));
	upper = ipv4_of(json_text(doc, "upper"));
	host = (lower & mask) + 1;
	/* A TAP has to have one of the names the helper makes; from 128 on they belong to these networks. */
	snprintf(interface, sizeof(interface), "vboxnet%u",
		128 + (unsigned)json_integer_value(json_object_get(doc, "number")));
	json_object_set_new(c, "kind", json_string("hostonlynet"));
	json_object_set_new(c, "uplink", json_string("host"));
	json_object_set_new(c, "interface", json_string(interface));
	json_object_set_new(
		c, "mac", json_sprintf("0a002701%04x", (unsigned)json_integer_value(json_object_get(doc, "number"))));
	json_object_set_new(c, "network", network_json(lower, mask));
	json_object_set_new(c, "gateway", ipv4_json(host));
	if (lower <= host + 1)
		lower = host + 2; /* the host, and the DHCP server behind it */
	json_object_set_new(c, "dhcp",
		json_pack("{s:b, s:o, s:o, s:o, s:o}", "enabled", lower <= upper, "address", ipv4_json(host + 1),
			"netmask", ipv4_json(mask), "lower", ipv4_json(lower), "upper", ipv4_json(upper)));
	json_decref(doc);
	return 0;
}

json_t *
net_config(struct host *h, const char *id, struct err *e)
{
	json_t *c = json_pack("{s:i}", "version", SWITCH_CONFIG_VERSION);
	char kind[32], name[512], domain[64] = "";
	size_t n = 0;
	int r = 0;

	split_id(id, kind, name);
	for (const char *p = name; *p && n < sizeof(domain) - 1; p++)
		domain[n++] = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '-';
	json_object_set_new(c, "name", json_string(name));
	json_object_set_new(c, "domain", json_string(domain));
	if (!strcmp(kind, "nat"))
		r = nat_config(h, c, name, e);
	else if (!strcmp(kind, "hostonly"))
		r = hostonly_config(h, c, name, e);
	else if (!strcmp(kind, "hostonlynet"))
		r = hostonlynet_config(h, c, name, e);
	else if (!strcmp(kind, "bridged")) {
		json_object_set_new(c, "kind", json_string("bridged"));
		json_object_set_new(c, "uplink", json_string("bridge"));
		json_object_set_new(c, "interface", json_string(name));
	} else if (!strcmp(kind, "intnet"))
		add_dhcp(h, c, name);
	else
		r = err_set(e, ERR_INVALID, "There is no network '%s'", id);
	if (!r)
		return c;
	json_decref(c);
	return NULL;
}

/* ---- ports ---- */

char *
nic_property(const struct host_vm *vm, int nic, const char *key)
{
	const char *p = host_vm_get(vm, HK_NICPROPERTY, nic);
	size_t n = strlen(key);

	while (*p) {
		size_t line = strcspn(p, "\n");

		if (line > n && !strncmp(p, key, n) && p[n] == '=')
			return strndup(p + n + 1, line - n - 1);
		p += line + (p[line] != 0);
	}
	return xstrdup("");
}

/* The properties vlan, trunk, storm, mac-spoofing, and group, which names a port group of the network. */
static int
add_properties(struct host *h, const struct host_vm *vm, int nic, const char *id, json_t *o, struct err *e)
{
	char *group = nic_property(vm, nic, "group"), *vlan = nic_property(vm, nic, "vlan"),
	     *trunk = nic_property(vm, nic, "trunk"), *spoof = nic_property(vm, nic, "mac-spoofing"),
	     *storm = nic_property(vm, nic, "storm");
	json_t *groups = *group ? host_net_get(h, HOST_NET_GROUPS, id, NULL) : NULL,
	       *g = json_object_get(groups, group);
	uint64_t v;
	int r = 0;

	if (*group && !g)
		r = err_set(e, ERR_NOT_FOUND, "The network of adapter %d of machine '%s' has no port group '%s'",
			nic + 1, vm->name, group);
	if (g) {
		json_object_set(o, "vlan", json_object_get(g, "vlan"));
		json_object_set_new(o, "trunk",
			json_object_get(g, "trunk") ? json_incref(json_object_get(g, "trunk")) : json_string("none"));
		if (json_object_get(g, "storm"))
			json_object_set(o, "storm", json_object_get(g, "storm"));
	}
	if (*vlan && str_to_u64(vlan, 0, 4094, &v)) {
		json_object_set_new(o, "vlan", json_integer((json_int_t)v));
		json_object_set_new(o, "trunk", json_string("none"));
	}
	if (*trunk)
		json_object_set_new(o, "trunk", json_string(trunk));
	if (*storm && str_to_u64(storm, 0, INT32_MAX, &v))
		json_object_set_new(o, "storm", json_integer((json_int_t)v));
	if (*spoof)
		json_object_set_new(o, "any_source", json_boolean(!strcmp(spoof, "allow")));
	json_decref(groups);
	free(group);
	free(vlan);
	free(trunk);
	free(spoof);
	free(storm);
	return r;
}

int
net_write_port(
	struct host *h, const struct host_vm *vm, int nic, const char *id, char token[33], bool keep, struct err *e)
{
	char *path = xasprintf("%s/net/%s/" SWITCH_DIR_PORTS "/%s-%d.json", host_home(h), id, vm->uuid, nic),
	     *text = NULL;
	json_t *o, *old = keep ? json_load_file(path, 0, NULL) : NULL;
	int r = -1;

	if (old)
		snprintf(token, 33, "%s", json_text(old, "token"));
	else
		for (int i = 0; i < 2; i++) {
			struct uuid u = uuid_random();

			for (int k = 0; k < 8; k++) /* without the bytes that are fixed in a UUID */
				snprintf(token + 16 * i + 2 * k, 3, "%02x", u.b[k < 6 ? k : k + 4]);
		}
	o = json_pack("{s:s, s:s, s:i, s:s, s:s}", "token", token, "machine", vm->name, "slot", nic, "mac",
		host_vm_get(vm, HK_MACADDRESS, nic), "promisc", host_vm_get(vm, HK_NICPROMISC, nic));
	if (!add_properties(h, vm, nic, id, o, e)) {
		text = json_dumps(o, JSON_INDENT(1));
		r = file_replace(path, text, strlen(text), 0600, e);
	}
	free(text);
	json_decref(o);
	json_decref(old);
	free(path);
	return r;
}
