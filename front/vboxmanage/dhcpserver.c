/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dhcpserver, and list dhcpservers. What follows --group, --vm or --mac-address on the line is about that group or
 * machine, what follows --global, or stands before any of them, about the network.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "front/vboxmanage/network.h"

static const struct site site = { "DHCPServer", "FindDHCPServerByNetworkName(bstrNetName.raw(), svr.asOutParam())", 610,
	"VBoxManageDHCPServer.cpp" };

enum {
	D_NETWORK,
	D_INTERFACE,
	D_IP,
	D_MASK,
	D_LOWER,
	D_UPPER,
	D_PREFIX6,
	D_ENABLE,
	D_DISABLE,
	D_GLOBAL,
	D_GROUP,
	D_VM,
	D_NIC,
	D_MAC,
	D_SET,
	D_SET_HEX,
	D_DEL,
	D_FORCE,
	D_UNFORCE,
	D_SUPPRESS,
	D_UNSUPPRESS,
	D_MIN,
	D_DEFAULT,
	D_MAX,
	D_FIXED,
	D_REMOVE_CONFIG,
	D_ZAP,
	D_CONDITION, /* and the eleven that follow */
};

#define CONDITION(word, n)                                                                                             \
	{                                                                                                              \
		word, D_CONDITION + (n), OPT_TEXT, 0, 0                                                                \
	}
/* clang-format off */
static const struct opt options[] = {
	{ "network", D_NETWORK, OPT_TEXT, 't', 0 },
	{ "netname", D_NETWORK, OPT_TEXT, 0, 0 },
	{ "interface", D_INTERFACE, OPT_TEXT, 'f', 0 },
	{ "ifname", D_INTERFACE, OPT_TEXT, 0, 0 },
	{ "server-ip", D_IP, OPT_TEXT, 'a', 0 },
	{ "ip", D_IP, OPT_TEXT, 0, 0 },
	{ "netmask", D_MASK, OPT_TEXT, 'm', 0 },
	{ "lower-ip", D_LOWER, OPT_TEXT, 'l', 0 },
	{ "upper-ip", D_UPPER, OPT_TEXT, 'u', 0 },
	{ "ipv6-prefix", D_PREFIX6, OPT_TEXT, 0, 0 }, /* ours */
	{ "enable", D_ENABLE, OPT_FLAG, 'e', 0 },
	{ "disable", D_DISABLE, OPT_FLAG, 'd', 0 },
	{ "global", D_GLOBAL, OPT_FLAG, 'g', 0 },
	{ "group", D_GROUP, OPT_TEXT, 0, 0 },
	{ "vm", D_VM, OPT_TEXT, 'M', 0 },
	{ "nic", D_NIC, OPT_NUMBER, 'n', 0 },
	{ "mac-address", D_MAC, OPT_TEXT, 0, 0 },
	{ "set-opt", D_SET, OPT_NUMBER, 's', 0 },
	{ "set-opt-hex", D_SET_HEX, OPT_NUMBER, 'x', 0 },
	{ "del-opt", D_DEL, OPT_NUMBER, 0, 0 },
	{ "force-opt", D_FORCE, OPT_NUMBER, 0, 0 },
	{ "unforce-opt", D_UNFORCE, OPT_NUMBER, 0, 0 },
	{ "suppress-opt", D_SUPPRESS, OPT_NUMBER, 0, 0 },
	{ "unsuppress-opt", D_UNSUPPRESS, OPT_NUMBER, 0, 0 },
	{ "min-lease-time", D_MIN, OPT_NUMBER, 'q', 0 },
	{ "default-lease-time", D_DEFAULT, OPT_NUMBER, 'L', 0 },
	{ "max-lease-time", D_MAX, OPT_NUMBER, 'Q', 0 },
	{ "fixed-address", D_FIXED, OPT_TEXT, 0, 0 },
	{ "remove-config", D_REMOVE_CONFIG, OPT_FLAG, 0, 0 },
	{ "zap-conditions", D_ZAP, OPT_FLAG, 0, 0 },
	CONDITION("incl-mac", 0), CONDITION("incl-mac-wild", 1), CONDITION("incl-vendor", 2),
	CONDITION("incl-vendor-wild", 3), CONDITION("incl-user", 4), CONDITION("incl-user-wild", 5),
	CONDITION("excl-mac", 6), CONDITION("excl-mac-wild", 7), CONDITION("excl-vendor", 8),
	CONDITION("excl-vendor-wild", 9), CONDITION("excl-user", 10), CONDITION("excl-user-wild", 11),
};
/* clang-format on */

/* The server a line is about, and where on the line we are. */
struct work {
	struct cli *c;
	const char *network, *interface; /* one of them */
	char *name;			 /* of the server */
	json_t *doc;
	json_t *scope; /* in doc; what options go into now */
	json_t *individual;
	bool in_group;
};

/* ---- values of options (RFC 2132): as bytes, in hexadecimal ---- */

static char
option_type(uint64_t n)
{
	static const uint8_t addresses[] = { 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 21, 28, 32, 33, 41, 42, 44, 45, 48, 49,
		65, 68, 69, 70, 71, 72, 73, 74, 75, 76, 150 };
	static const uint8_t bytes[] = { 19, 20, 23, 27, 29, 30, 31, 34, 36, 37, 39, 46 };
	static const uint8_t shorts[] = { 13, 22, 26 }, longs[] = { 2, 24, 35, 38 };

	if (memchr(addresses, (int)n, sizeof(addresses)))
		return 'a';
	if (memchr(bytes, (int)n, sizeof(bytes)))
		return '1';
	if (memchr(shorts, (int)n, sizeof(shorts)))
		return '2';
	return memchr(longs, (int)n, sizeof(longs)) ? '4' : 't';
}

static char *
encode_addresses(const char *text)
{
	struct str b = { 0 };

	while (*text) {
		size_t n = strcspn(text, " ,");
		struct in_addr a;
		char ip[16];

		if (n >= sizeof(ip))
			goto bad;
		memcpy(ip, text, n);
		ip[n] = 0;
		if (inet_pton(AF_INET, ip, &a) != 1)
			goto bad;
		str_addf(&b, "%08x", ntohl(a.s_addr));
		text += n + strspn(text + n, " ,");
	}
	if (b.len)
		return b.s;
bad:
	str_free(&b);
	return NULL;
}

static char *
encode(uint64_t number, const char *text)
{
	char type = option_type(number);
	struct str b = { 0 };
	uint64_t v;

	if (type == 'a')
		return encode_addresses(text);
	if (type != 't') {
		int width = type - '0';

		if (!str_to_u64(text, 0, width == 4 ? UINT32_MAX : (1u << 8 * width) - 1, &v))
			return NULL;
		return xasprintf("%0*llx", 2 * width, (unsigned long long)v);
	}
	for (; *text; text++)
		str_addf(&b, "%02x", (unsigned char)*text);
	return b.s;
}

static void
print_value(const char *hex, int number)
{
	char type = option_type((uint64_t)number);
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		char digits[3] = { hex[2 * i], hex[2 * i + 1], 0 };
		unsigned long v = strtoul(digits, NULL, 16);

		if (type == 'a')
			printf("%lu%s", v, i + 1 == n ? "" : i % 4 == 3 ? " " : ".");
		else if (type == 't' && isprint((int)v))
			putchar((int)v);
		else
			printf("%02lx", v);
	}
}

/* ---- the server's document ---- */

static char *
server_name(const struct work *w)
{
	return w->interface ? xasprintf("HostInterfaceNetworking-%s", w->interface) : xstrdup(w->network);
}

static json_t *
member(json_t *o, const char *key, json_t *fresh)
{
	json_t *v = json_object_get(o, key);

	if (v) {
		json_decref(fresh);
		return v;
	}
	json_object_set_new(o, key, fresh);
	return fresh;
}

/* The element of doc[key] whose `field` is `value`; a new one when there is none. */
static json_t *
element(json_t *doc, const char *key, const char *field, const char *value)
{
	json_t *list = member(doc, key, json_array()), *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		if (!strcasecmp(doc_text(v, field), value))
			return v;
	}
	v = json_pack("{s:s}", field, value);
	json_array_append_new(list, v);
	return v;
}

static bool
normal_mac(const char *text, char out[13])
{
	int n = 0;

	for (; *text; text++) {
		if (*text == ':' || *text == '-')
			continue;
		if (!isxdigit((unsigned char)*text) || n == 12)
			return false;
		out[n++] = (char)tolower((unsigned char)*text);
	}
	out[n] = 0;
	return n == 12;
}

static int
scope_of_machine(struct work *w, const char *id)
{
	struct err e = { 0 };
	struct host_vm *vm = host_vm_load(w->c->host, id, &e);

	if (!vm)
		return fail_api(w->c, &e, &site);
	w->scope = w->individual = element(w->doc, "individual", "vm", vm->uuid);
	if (!json_object_get(w->scope, "nic"))
		json_object_set_new(w->scope, "nic", json_integer(0));
	w->in_group = false;
	host_vm_free(vm);
	return 0;
}

static int
scope_of_mac(struct work *w, const char *text)
{
	char mac[13];

	if (!normal_mac(text, mac))
		return fail_argument(w->c, "Invalid MAC address '%s'", text);
	w->scope = w->individual = element(w->doc, "individual", "mac", mac);
	w->in_group = false;
	return 0;
}

static int
set_option(struct work *w, struct args *a, bool hex)
{
	uint64_t number = a->number;
	const char *text = args_value(a);
	char key[8], *value;

	if (!text)
		return 2;
	if (number < 1 || number > 254)
		return fail_argument(w->c, "Invalid DHCP option %llu: there are 1 to 254", (unsigned long long)number);
	value = hex ? xstrdup(text) : encode(number, text);
	if (hex && (strlen(text) % 2 || strspn(text, "0123456789abcdefABCDEF") != strlen(text))) {
		free(value);
		value = NULL;
	}
	if (!value || strlen(value) > 510) {
		free(value);
		return fail_argument(w->c, "Invalid value '%s' of DHCP option %d", text, (int)number);
	}
	snprintf(key, sizeof(key), "%d", (int)number);
	json_object_set_new(member(w->scope, "options", json_object()), key, json_string(value));
	free(value);
	return 0;
}

/* Is `number` to be in the list `key` of the scope? */
static void
set_listed(struct work *w, const char *key, uint64_t number, bool in)
{
	json_t *list = member(w->scope, key, json_array());

	for (size_t i = json_array_size(list); i-- > 0;)
		if (json_integer_value(json_array_get(list, i)) == (json_int_t)number)
			json_array_remove(list, i);
	if (in)
		json_array_append_new(list, json_integer((json_int_t)number));
}

static int
add_condition(struct work *w, int n, const char *text)
{
	static const char *const types[] = { "mac", "mac-wild", "vendor", "vendor-wild", "user", "user-wild" };
	char mac[13], colons[18];

	if (!w->in_group)
		return fail_syntax(w->c, "A condition belongs behind --group");
	if (n % 6 == 0) {
		if (!normal_mac(text, mac))
			return fail_argument(w->c, "Invalid MAC address '%s'", text);
		snprintf(colons, sizeof(colons), "%.2s:%.2s:%.2s:%.2s:%.2s:%.2s", mac, mac + 2, mac + 4, mac + 6,
			mac + 8, mac + 10);
		text = colons;
	}
	json_array_append_new(member(w->scope, "conditions", json_array()),
		json_pack("{s:b, s:s, s:s}", "include", n < 6, "type", types[n % 6], "value", text));
	return 0;
}

static void
remove_config(struct work *w)
{
	static const char *const lists[] = { "groups", "individual" };

	for (int k = 0; k < 2; k++) {
		json_t *list = json_object_get(w->doc, lists[k]);

		for (size_t i = json_array_size(list); i-- > 0;)
			if (json_array_get(list, i) == w->scope) {
				json_array_remove(list, i);
				w->scope = member(w->doc, "global", json_object());
				w->individual = NULL;
				return;
			}
	}
	json_object_clear(w->scope);
}

static int
scope_option(struct work *w, struct args *a, int id)
{
	static const char *const times[] = { "min", "default", "max" };
	struct in_addr ip;
	char key[8];

	switch (id) {
	case D_GLOBAL:
		w->scope = member(w->doc, "global", json_object());
		w->individual = NULL;
		w->in_group = false;
		return 0;
	case D_GROUP:
		w->scope = element(w->doc, "groups", "name", a->text);
		w->individual = NULL;
		w->in_group = true;
		return 0;
	case D_VM:
		return scope_of_machine(w, a->text);
	case D_MAC:
		return scope_of_mac(w, a->text);
	case D_NIC:
		if (!w->individual || !json_object_get(w->individual, "vm") || a->number < 1 || a->number > HOST_NICS)
			return fail_syntax(w->c, "--nic is a number from 1 to %d behind --vm", HOST_NICS);
		json_object_set_new(w->individual, "nic", json_integer((json_int_t)a->number - 1));
		return 0;
	case D_SET:
	case D_SET_HEX:
		return set_option(w, a, id == D_SET_HEX);
	case D_DEL:
		snprintf(key, sizeof(key), "%d", (int)(a->number & 255));
		json_object_del(json_object_get(w->scope, "options"), key);
		return 0;
	case D_FORCE:
	case D_UNFORCE:
	case D_SUPPRESS:
	case D_UNSUPPRESS:
		if (a->number < 1 || a->number > 254)
			return fail_argument(w->c, "Invalid DHCP option '%s'", a->text);
		set_listed(w, id <= D_UNFORCE ? "forced" : "suppressed", a->number, id == D_FORCE || id == D_SUPPRESS);
		return 0;
	case D_MIN:
	case D_DEFAULT:
	case D_MAX:
		if (a->number > INT32_MAX)
			return fail_argument(w->c, "Invalid lease time '%s'", a->text);
		json_object_set_new(w->scope, times[id - D_MIN], json_integer((json_int_t)a->number));
		return 0;
	case D_FIXED:
		if (!w->individual)
			return fail_syntax(w->c, "--fixed-address belongs behind --vm or --mac-address");
		if (*a->text && inet_pton(AF_INET, a->text, &ip) != 1)
			return fail_argument(w->c, "Invalid address '%s'", a->text);
		if (*a->text)
			json_object_set_new(w->individual, "fixed", json_string(a->text));
		else
			json_object_del(w->individual, "fixed");
		return 0;
	case D_REMOVE_CONFIG:
		remove_config(w);
		return 0;
	case D_ZAP:
		json_object_del(w->scope, "conditions");
		return 0;
	default:
		return add_condition(w, id - D_CONDITION, a->text);
	}
}

/* "fd00::/64", or "none": addresses are given out of it by DHCPv6, and it is advertised. */
static int
set_prefix6(struct work *w, const char *text)
{
	size_t n = strcspn(text, "/");
	struct in6_addr a;
	char address[INET6_ADDRSTRLEN];

	if (!strcmp(text, "none")) {
		json_object_del(w->doc, "prefix6");
		return 0;
	}
	if (n >= sizeof(address) || strcmp(text + n, "/64") != 0)
		return fail_argument(w->c, "Invalid IPv6 prefix '%s': it has to be like fd00:1::/64, or none", text);
	memcpy(address, text, n);
	address[n] = 0;
	if (inet_pton(AF_INET6, address, &a) != 1 || (a.s6_addr[0] & 0xe0) == 0 || a.s6_addr[0] >= 0xfe)
		return fail_argument(w->c, "Invalid IPv6 prefix '%s': it has to be like fd00:1::/64, or none", text);
	memset(a.s6_addr + 8, 0, 8);
	inet_ntop(AF_INET6, &a, address, sizeof(address));
	json_object_set_new(w->doc, "prefix6", json_sprintf("%s/64", address));
	return 0;
}

static int
server_option(struct work *w, struct args *a, int id)
{
	static const char *const keys[] = {
		[D_IP] = "ip", [D_MASK] = "mask", [D_LOWER] = "lower", [D_UPPER] = "upper"
	};

	switch (id) {
	case D_NETWORK:
	case D_INTERFACE:
		return 0;
	case D_IP:
	case D_MASK:
	case D_LOWER:
	case D_UPPER:
		json_object_set_new(w->doc, keys[id], json_string(a->text));
		return 0;
	case D_PREFIX6:
		return set_prefix6(w, a->text);
	case D_ENABLE:
	case D_DISABLE:
		json_object_set_new(w->doc, "enabled", json_boolean(id == D_ENABLE));
		return 0;
	default:
		return scope_option(w, a, id);
	}
}

/* Which server: looked for over the whole line, because the rest is about it. */
static int
find_server(struct work *w, int argc, char **argv)
{
	struct args a = ARGS(w->c, argc, argv, options);
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(w->c, "Invalid parameter '%s'", a.text);
		if (id == D_NETWORK)
			w->network = a.text;
		else if (id == D_INTERFACE)
			w->interface = a.text;
		else if ((id == D_SET || id == D_SET_HEX) && !args_value(&a))
			return 2;
	}
	if (!w->network == !w->interface)
		return fail_syntax(w->c,
			w->network ? "--network and --interface exclude each other"
				   : "You need to specify either --network or --interface to identify the DHCP server");
	w->name = server_name(w);
	return 0;
}

static int
change(struct cli *c, int argc, char **argv, bool add)
{
	struct args a = ARGS(c, argc, argv, options);
	struct work w = { .c = c };
	struct err e = { 0 };
	int id, status = find_server(&w, argc, argv);

	if (status)
		goto out;
	w.doc = host_net_get(c->host, HOST_NET_DHCP, w.name, &e);
	if (e.code) {
		status = fail_api(c, &e, &site);
		goto out;
	}
	if (add == (w.doc != NULL)) {
		status = fail_argument(c, add ? "DHCP server already exists" : "DHCP server does not exist");
		goto out;
	}
	if (add)
		w.doc = json_pack("{s:b}", "enabled", 0);
	w.scope = member(w.doc, "global", json_object());
	while (!status && (id = args_next(&a)) != ARG_END)
		status = server_option(&w, &a, id);
	for (int i = D_IP; add && !status && i <= D_UPPER; i++) {
		static const char *const keys[] = { "ip", "mask", "lower", "upper" };
		static const char *const words[] = { "server-ip", "netmask", "lower-ip", "upper-ip" };

		if (!*doc_text(w.doc, keys[i - D_IP]))
			status = fail_syntax(c, "Missing required option: --%s", words[i - D_IP]);
	}
	if (!status && host_net_set(c->host, HOST_NET_DHCP, w.name, w.doc, &e))
		status = fail_api(c, &e, &site);
out:
	json_decref(w.doc);
	free(w.name);
	return status;
}

static int
dhcp_add(struct cli *c, int argc, char **argv)
{
	return change(c, argc, argv, true);
}

static int
dhcp_modify(struct cli *c, int argc, char **argv)
{
	return change(c, argc, argv, false);
}

/* The server a line without other options names; NULL after saying what is wrong. free() it. */
static char *
known_server(struct cli *c, int argc, char **argv, int *status)
{
	struct work w = { .c = c };
	json_t *doc;

	*status = find_server(&w, argc, argv);
	if (*status)
		return NULL;
	doc = host_net_get(c->host, HOST_NET_DHCP, w.name, NULL);
	if (!doc) {
		*status = fail_argument(c, "DHCP server does not exist");
		free(w.name);
		return NULL;
	}
	json_decref(doc);
	return w.name;
}

static int
dhcp_remove(struct cli *c, int argc, char **argv)
{
	struct err e = { 0 };
	int status;
	char *name = known_server(c, argc, argv, &status);

	if (name && host_net_remove(c->host, HOST_NET_DHCP, name, &e))
		status = fail_api(c, &e, &site);
	free(name);
	return status;
}

/* A server runs with its network. start: the network runs; stop: it is switched off until restart or the next start. */
static int
dhcp_run(struct cli *c, int argc, char **argv, bool stop, bool start)
{
	struct err e = { 0 };
	int status;
	char *name = known_server(c, argc, argv, &status), *id = name ? host_net_id_of_dhcp(c->host, name) : NULL;
	json_t *answer;

	if (name && stop) {
		if (host_net_running(c->host, id)) {
			answer = host_net_call(c->host, id, "dhcp", json_pack("{s:b}", "on", 0), &e);
			if (!answer)
				status = fail_api(c, &e, &site);
			json_decref(answer);
		} else if (!start) {
			status = fail_plain(c, "The DHCP server of network '%s' does not run", name);
		}
	}
	if (name && start && !status) {
		if (host_net_start(c->host, id, &e))
			status = fail_api(c, &e, &site);
		else
			json_decref(host_net_call(c->host, id, "dhcp", json_pack("{s:b}", "on", 1), NULL));
	}
	free(name);
	free(id);
	return status;
}

static int
dhcp_start(struct cli *c, int argc, char **argv)
{
	return dhcp_run(c, argc, argv, false, true);
}

static int
dhcp_restart(struct cli *c, int argc, char **argv)
{
	return dhcp_run(c, argc, argv, true, true);
}

static int
dhcp_stop(struct cli *c, int argc, char **argv)
{
	return dhcp_run(c, argc, argv, true, false);
}

/* ---- findlease ---- */

static void
print_time(const char *label, int64_t when)
{
	time_t t = (time_t)when;
	struct tm tm;
	char text[40];

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000000000Z", &tm);
	printf("%s%s (%lld)\n", label, text, (long long)when);
}

static void
print_lease(json_t *l)
{
	int64_t issued = json_integer_value(json_object_get(l, "issued")),
		ttl = json_integer_value(json_object_get(l, "time"));
	int64_t left = issued + ttl - time(NULL);
	const char *m = doc_text(l, "mac");

	printf("IP Address:  %s\nMAC Address: %.2s:%.2s:%.2s:%.2s:%.2s:%.2s\nState:       %s\n", doc_text(l, "ip"), m,
		m + 2, m + 4, m + 6, m + 8, m + 10, left > 0 ? doc_text(l, "state") : "expired");
	print_time("Issued:      ", issued);
	print_time("Expire:      ", issued + ttl);
	printf("TTL:         %lld sec, currently %lld sec left\n", (long long)ttl, (long long)MAX(left, (int64_t)0));
}

static int
dhcp_findlease(struct cli *c, int argc, char **argv)
{
	struct args a = ARGS(c, argc, argv, options);
	const char *wanted = NULL;
	json_t *leases, *l;
	char mac[13], *name, *id;
	bool found = false;
	int status, o;
	size_t i;

	while ((o = args_next(&a)) != ARG_END) {
		if (o == ARG_BAD)
			return 2;
		if (o == D_MAC)
			wanted = a.text;
	}
	if (!wanted)
		return fail_syntax(c, "You need to specify a MAC address too look for");
	if (!normal_mac(wanted, mac))
		return fail_argument(c, "Invalid MAC address '%s'", wanted);
	name = known_server(c, argc, argv, &status);
	if (!name)
		return status;
	id = host_net_id_of_dhcp(c->host, name);
	leases = host_net_leases(c->host, id);
	json_array_foreach(leases, i, l)
	{
		if (!strcasecmp(doc_text(l, "mac"), mac)) {
			print_lease(l);
			found = true;
		}
	}
	if (!found)
		status = fail_plain(c, "No lease of '%s' was found in network '%s'", wanted, name);
	json_decref(leases);
	free(id);
	free(name);
	return status;
}

int
cmd_dhcpserver(struct cli *c, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *c, int argc, char **argv);
	} subs[] = { { "add", dhcp_add }, { "modify", dhcp_modify }, { "remove", dhcp_remove }, { "start", dhcp_start },
		{ "restart", dhcp_restart }, { "stop", dhcp_stop }, { "findlease", dhcp_findlease } };

	if (!argc)
		return fail_syntax(c, "Not enough parameters");
	for (size_t i = 0; i < ARRAY_LEN(subs); i++)
		if (!strcmp(argv[0], subs[i].name))
			return cli_host(c) ? subs[i].run(c, argc - 1, argv + 1) : 1;
	return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
}

/* ---- list dhcpservers ---- */

static void
print_lease_time(const char *label, json_t *scope, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(scope, key));

	if (v)
		printf("    %s %lld sec\n", label, (long long)v);
	else
		printf("    %s default\n", label);
}

static void
print_numbers(const char *label, json_t *list)
{
	json_t *v;
	size_t i;

	printf("    %s ", label);
	if (!json_array_size(list))
		printf("None");
	json_array_foreach(list, i, v)
	{
		printf("%s%d", i ? ", " : "", (int)json_integer_value(v));
	}
	putchar('\n');
}

static void
print_scope(json_t *scope, const char *mask)
{
	const char *number;
	json_t *v;

	print_lease_time("minLeaseTime:    ", scope, "min");
	print_lease_time("defaultLeaseTime:", scope, "default");
	print_lease_time("maxLeaseTime:    ", scope, "max");
	print_numbers("Forced options:  ", json_object_get(scope, "forced"));
	print_numbers("Suppressed opts.:", json_object_get(scope, "suppressed"));
	if (mask)
		printf("        1/legacy: %s\n", mask);
	json_object_foreach(json_object_get(scope, "options"), number, v)
	{
		printf("        %s/legacy: ", number);
		print_value(json_string_value(v), (int)strtol(number, NULL, 10));
		putchar('\n');
	}
}

static void
print_groups(json_t *list)
{
	json_t *v, *k;
	size_t i, j;

	if (!json_array_size(list))
		printf("Groups:               None\n");
	json_array_foreach(list, i, v)
	{
		printf("Group:                %s\n", doc_text(v, "name"));
		print_scope(v, NULL);
		json_array_foreach(json_object_get(v, "conditions"), j, k)
		{
			printf("    %s %s: %s\n", doc_on(k, "include") ? "Include" : "Exclude", doc_text(k, "type"),
				doc_text(k, "value"));
		}
	}
}

static void
print_individual(json_t *list)
{
	json_t *v;
	size_t i;

	if (!json_array_size(list))
		printf("Individual Configs:   None\n");
	json_array_foreach(list, i, v)
	{
		if (json_object_get(v, "vm"))
			printf("Individual Config:    VM NIC: %s %d\n", doc_text(v, "vm"),
				(int)json_integer_value(json_object_get(v, "nic")) + 1);
		else
			printf("Individual Config:    MAC %s\n", doc_text(v, "mac"));
		print_scope(v, NULL);
		if (*doc_text(v, "fixed"))
			printf("    Fixed Address:    %s\n", doc_text(v, "fixed"));
		else
			printf("    Fixed Address:    dynamic\n");
	}
}

int
list_dhcpservers(struct cli *c, bool full)
{
	struct err e = { 0 };
	json_t *all = host_net_list(c->host, HOST_NET_DHCP, &e), *doc;
	const char *name;
	bool first = true;

	if (!all)
		return fail_api(c, &e, &site);
	json_object_foreach(all, name, doc)
	{
		printf("%sNetworkName:    %s\nDhcpd IP:       %s\nLowerIPAddress: %s\nUpperIPAddress: %s\n"
		       "NetworkMask:    %s\nEnabled:        %s\nGlobal Configuration:\n",
			first ? "" : "\n", name, doc_text(doc, "ip"), doc_text(doc, "lower"), doc_text(doc, "upper"),
			doc_text(doc, "mask"), doc_on(doc, "enabled") ? "Yes" : "No");
		print_scope(json_object_get(doc, "global"), doc_text(doc, "mask"));
		print_groups(json_object_get(doc, "groups"));
		print_individual(json_object_get(doc, "individual"));
		first = false;
	}
	json_decref(all);
	return 0;
}
