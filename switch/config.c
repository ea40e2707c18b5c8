/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading config.json and ports/ID.json (switch/protocol.h). Both are written by host/; they are checked all the same,
 * because a person may edit them. An unknown member is an error that names it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "switch/private.h"

#define FILE_MAX (4u << 20)

bool
parse_ipv4(const char *text, uint32_t *out)
{
	struct in_addr a;

	if (!text || inet_pton(AF_INET, text, &a) != 1)
		return false;
	*out = ntohl(a.s_addr);
	return true;
}

bool
parse_mac(const char *text, uint8_t mac[6])
{
	if (!text || strlen(text) != 12 || strspn(text, "0123456789abcdefABCDEF") != 12)
		return false;
	for (int i = 0; i < 6; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1], 0 };

		mac[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return !(mac[0] & 1);
}

static int
bad(struct err *e, const char *key, const char *what)
{
	return err_set(e, ERR_INVALID, "network configuration: '%s' %s", key, what);
}

/* Members of `o` that are not in the list "a b c " are errors. */
static int
check_members(json_t *o, const char *known, struct err *e)
{
	const char *key;
	json_t *v;

	if (!json_is_object(o))
		return err_set(e, ERR_INVALID, "network configuration: an object is expected");
	json_object_foreach(o, key, v)
	{
		char word[80];

		snprintf(word, sizeof(word), "%.70s ", key);
		if (!strstr(known, word))
			return bad(e, key, "is not known");
	}
	return 0;
}

static int
get_text(json_t *o, const char *key, char *out, size_t size, struct err *e)
{
	json_t *v = json_object_get(o, key);
	const char *s = json_string_value(v);

	if (!v)
		return 0;
	if (!s || strlen(s) >= size)
		return bad(e, key, "has to be a string, and not so long a one");
	strcpy(out, s);
	return 0;
}

static int
get_bool(json_t *o, const char *key, bool *out, struct err *e)
{
	json_t *v = json_object_get(o, key);

	if (v && !json_is_boolean(v))
		return bad(e, key, "has to be true or false");
	if (v)
		*out = json_is_true(v);
	return 0;
}

static int
get_number(json_t *o, const char *key, int64_t min, int64_t max, int64_t *out, struct err *e)
{
	json_t *v = json_object_get(o, key);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
		return bad(e, key, "is out of range");
	*out = json_integer_value(v);
	return 0;
}

static int
get_word(json_t *o, const char *key, const char *const words[], int count, int *out, struct err *e)
{
	const char *s = json_string_value(json_object_get(o, key));

	if (!json_object_get(o, key))
		return 0;
	for (int i = 0; s && i < count; i++)
		if (!strcmp(words[i], s)) {
			*out = i;
			return 0;
		}
	return bad(e, key, "has a value that is not known");
}

static int
get_ipv4(json_t *o, const char *key, uint32_t *out, struct err *e)
{
	json_t *v = json_object_get(o, key);

	if (v && !parse_ipv4(json_string_value(v), out))
		return bad(e, key, "has to be an IPv4 address");
	return 0;
}

/* ---- DHCP ---- */

static int
get_option_set(json_t *o, const char *key, uint8_t set[32], struct err *e)
{
	json_t *list = json_object_get(o, key), *v;
	size_t i;

	if (list && !json_is_array(list))
		return bad(e, key, "has to be a list");
	json_array_foreach(list, i, v)
	{
		if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 254)
			return bad(e, key, "names an option that does not exist");
		set[json_integer_value(v) >> 3] |= (uint8_t)(1 << (json_integer_value(v) & 7));
	}
	return 0;
}

static int
get_options(json_t *o, struct dhcp_scope *s, struct err *e)
{
	json_t *options = json_object_get(o, "options"), *v;
	uint8_t bytes[255];
	const char *key;

	if (options && !json_is_object(options))
		return bad(e, "options", "has to be an object");
	json_object_foreach(options, key, v)
	{
		const char *hex = json_string_value(v);
		size_t n = hex ? strlen(hex) : 1;
		uint64_t number;

		if (!str_to_u64(key, 1, 254, &number) || n % 2 || n / 2 > sizeof(bytes) ||
			strspn(hex, "0123456789abcdefABCDEF") != n)
			return bad(e, "options", "needs numbers from 1 to 254 with hexadecimal values");
		for (size_t i = 0; i < n / 2; i++) {
			char digits[3] = { hex[2 * i], hex[2 * i + 1], 0 };

			bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
		}
		dhcp_option_set(s, (int)number, bytes, n / 2);
	}
	return 0;
}

static int
get_scope(json_t *o, struct dhcp_scope *s, struct err *e)
{
	int64_t min = 0, usual = 0, max = 0;

	if (get_number(o, "min", 0, INT32_MAX, &min, e) || get_number(o, "default", 0, INT32_MAX, &usual, e) ||
		get_number(o, "max", 0, INT32_MAX, &max, e) || get_options(o, s, e) ||
		get_option_set(o, "forced", s->forced, e) || get_option_set(o, "suppressed", s->suppressed, e))
		return -1;
	s->min_lease = (uint32_t)min;
	s->default_lease = (uint32_t)usual;
	s->max_lease = (uint32_t)max;
	return 0;
}

#define SCOPE_MEMBERS "min default max options forced suppressed "

static int
get_conditions(json_t *o, struct dhcp_scope *s, struct err *e)
{
	static const char *const types[] = { "mac", "mac-wild", "vendor", "vendor-wild", "user", "user-wild" };
	json_t *list = json_object_get(o, "conditions"), *v;
	size_t i;

	if (json_array_size(list) > DHCP_CONDITIONS_MAX)
		return bad(e, "conditions", "are too many");
	json_array_foreach(list, i, v)
	{
		struct dhcp_condition *c = &s->conditions[i];
		int type = -1;

		if (check_members(v, "include type value ", e) || get_bool(v, "include", &c->include, e) ||
			get_word(v, "type", types, ARRAY_LEN(types), &type, e) ||
			get_text(v, "value", c->value, sizeof(c->value), e))
			return -1;
		if (type < 0)
			return bad(e, "type", "is missing");
		c->type = (enum dhcp_match)type;
		s->condition_count++;
	}
	return 0;
}

static int
get_groups(json_t *list, struct dhcp_config *c, struct err *e)
{
	json_t *v;
	size_t i;

	if (json_array_size(list) > DHCP_SCOPES_MAX / 2)
		return bad(e, "groups", "are too many");
	c->groups = xcalloc(json_array_size(list) + 1, sizeof(*c->groups));
	json_array_foreach(list, i, v)
	{
		c->group_count++;
		if (check_members(v, SCOPE_MEMBERS "name conditions ", e) || get_scope(v, &c->groups[i], e) ||
			get_conditions(v, &c->groups[i], e))
			return -1;
	}
	return 0;
}

static int
get_individual(json_t *list, struct dhcp_config *c, struct err *e)
{
	json_t *v;
	size_t i;

	if (json_array_size(list) > 4096)
		return bad(e, "individual", "are too many");
	c->individual = xcalloc(json_array_size(list) + 1, sizeof(*c->individual));
	json_array_foreach(list, i, v)
	{
		c->individual_count++;
		if (check_members(v, SCOPE_MEMBERS "mac fixed ", e) || get_scope(v, &c->individual[i], e) ||
			get_ipv4(v, "fixed", &c->individual[i].fixed, e))
			return -1;
		if (!parse_mac(json_string_value(json_object_get(v, "mac")), c->individual[i].mac))
			return bad(e, "mac", "has to be 12 hexadecimal digits");
	}
	return 0;
}

static int
get_dhcp(json_t *o, struct net_config *c, struct err *e)
{
	struct dhcp_config *d = &c->dhcp;
	json_t *global = json_object_get(o, "global");

	if (!o)
		return 0;
	if (check_members(o, "enabled address netmask lower upper global groups individual ", e) ||
		get_bool(o, "enabled", &c->dhcp_enabled, e) || get_ipv4(o, "address", &d->address, e) ||
		get_ipv4(o, "netmask", &d->netmask, e) || get_ipv4(o, "lower", &d->lower, e) ||
		get_ipv4(o, "upper", &d->upper, e))
		return -1;
	if (global && (check_members(global, SCOPE_MEMBERS, e) || get_scope(global, &d->global, e)))
		return -1;
	if (get_groups(json_object_get(o, "groups"), d, e) || get_individual(json_object_get(o, "individual"), d, e))
		return -1;
	if (!c->dhcp_enabled)
		return 0;
	if (!d->address || !d->netmask || !d->lower || d->lower > d->upper || ((d->lower ^ d->upper) & d->netmask) ||
		((d->lower ^ d->address) & d->netmask))
		return bad(e, "dhcp", "needs an address and a range within its netmask");
	return 0;
}

/* ---- the network ---- */

/* "a.b.c.d/len" */
static int
get_network(json_t *o, struct net_config *c, struct err *e)
{
	char text[32] = "", *slash;
	uint64_t bits;

	if (get_text(o, "network", text, sizeof(text), e))
		return -1;
	if (!*text)
		return 0;
	slash = strchr(text, '/');
	if (slash)
		*slash++ = 0;
	if (!slash || !str_to_u64(slash, 8, 30, &bits) || !parse_ipv4(text, &c->network))
		return bad(e, "network", "has to be like 10.0.2.0/24");
	c->prefix = (unsigned)bits;
	c->netmask = ~0u << (32 - bits);
	c->network &= c->netmask;
	return 0;
}

static int
get_prefix6(json_t *o, struct net_config *c, struct err *e)
{
	char text[64] = "", *slash;
	uint64_t bits;

	if (get_text(o, "prefix6", text, sizeof(text), e))
		return -1;
	if (!*text)
		return 0;
	slash = strchr(text, '/');
	if (slash)
		*slash++ = 0;
	if (!slash || !str_to_u64(slash, 1, 128, &bits) || inet_pton(AF_INET6, text, &c->prefix6) != 1)
		return bad(e, "prefix6", "has to be like fd00::/64");
	c->prefix6_len = (unsigned)bits;
	c->ipv6 = true;
	return 0;
}

static int
get_forwards(json_t *list, struct net_config *c, struct err *e)
{
	json_t *v;
	size_t i;

	if (json_array_size(list) > FORWARDS_MAX)
		return bad(e, "forwards", "are too many");
	json_array_foreach(list, i, v)
	{
		const char *text = json_string_value(v);

		if (!text)
			return bad(e, "forwards", "has to be a list of strings");
		if (strchr(text, ':') ? nat_rule_parse6(text, &c->forwards[i], e)
				      : nat_rule_parse(text, &c->forwards[i], e))
			return -1;
		c->forward_count++;
	}
	return 0;
}

static int
get_config(json_t *o, struct net_config *c, struct err *e)
{
	static const char *const kinds[] = { "intnet", "natnetwork", "hostonly", "hostonlynet", "bridged" };
	static const char *const uplinks[] = { "none", "nat", "host", "bridge" };
	int kind = KIND_INTNET, uplink = UPLINK_NONE;
	int64_t linger = 5, version = 0;
	char mac[16] = "";

	if (check_members(o,
		    "version name kind network gateway host_dhcp prefix6 default6 uplink interface mac address6 domain "
		    "forwards "
		    "localhost_reachable localhost_reachable6 tftp bootfile guard linger dhcp ",
		    e) ||
		get_number(o, "version", SWITCH_CONFIG_VERSION, SWITCH_CONFIG_VERSION, &version, e) ||
		get_text(o, "name", c->name, sizeof(c->name), e) ||
		get_word(o, "kind", kinds, ARRAY_LEN(kinds), &kind, e) || get_network(o, c, e) ||
		get_ipv4(o, "gateway", &c->gateway, e) || get_prefix6(o, c, e) ||
		get_bool(o, "default6", &c->default6, e) || get_bool(o, "host_dhcp", &c->host_dhcp, e) ||
		get_word(o, "uplink", uplinks, ARRAY_LEN(uplinks), &uplink, e) ||
		get_text(o, "interface", c->interface, sizeof(c->interface), e) ||
		get_text(o, "mac", mac, sizeof(mac), e) ||
		get_text(o, "address6", c->address6, sizeof(c->address6), e) ||
		get_text(o, "domain", c->domain, sizeof(c->domain), e) ||
		get_forwards(json_object_get(o, "forwards"), c, e) ||
		get_bool(o, "localhost_reachable", &c->localhost_reachable, e) ||
		get_bool(o, "localhost_reachable6", &c->localhost_reachable6, e) ||
		get_text(o, "tftp", c->tftp, sizeof(c->tftp), e) ||
		get_text(o, "bootfile", c->bootfile, sizeof(c->bootfile), e) ||
		get_number(o, "linger", -1, 86400, &linger, e) || get_dhcp(json_object_get(o, "dhcp"), c, e))
		return -1;
	c->kind = (enum net_kind)kind;
	c->uplink = (enum uplink_kind)uplink;
	c->linger = (int)linger;
	c->guard = c->dhcp_enabled || c->ipv6 || c->uplink == UPLINK_NAT;
	if (get_bool(o, "guard", &c->guard, e))
		return -1;
	if (!version || !*c->name)
		return bad(e, version ? "name" : "version", "is missing");
	if (*mac && !parse_mac(mac, c->mac))
		return bad(e, "mac", "has to be 12 hexadecimal digits");
	if (c->uplink == UPLINK_NAT && (!c->netmask || !c->gateway))
		return bad(e, "uplink", "of kind nat needs 'network' and 'gateway'");
	return 0;
}

static json_t *
load(const char *path, struct err *e)
{
	json_error_t where;
	json_t *o;
	size_t len;
	char *text = file_read(path, FILE_MAX, &len, e);

	if (!text)
		return NULL;
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	if (!o)
		err_set(e, ERR_INVALID, "'%s' is not JSON: line %d: %s", path, where.line, where.text);
	free(text);
	return o;
}

/* What follows from the rest. */
static void
complete(struct net_config *c)
{
	struct dhcp_config *d = &c->dhcp;

	memcpy(d->mac, (uint8_t[]){ 0x08, 0x00, 0x27, 0xff, 0xff, 0x03 }, 6);
	d->mac[3] = (uint8_t)(c->network >> 24 ^ c->network >> 16);
	d->mac[4] = (uint8_t)(c->network >> 8);
	d->router = c->uplink == UPLINK_NAT ? c->gateway : 0;
	d->dns = c->dhcp_enabled ? d->address : 0;
	snprintf(d->domain, sizeof(d->domain), "%s", c->domain);
	snprintf(d->boot_file, sizeof(d->boot_file), "%s", c->bootfile);
	/* libslirp serves TFTP from its host address */
	d->boot_server = *c->tftp ? (c->uplink == UPLINK_NAT ? c->network + 2 : c->gateway) : 0;
}

int
config_read(const char *dir, struct net_config *c, struct err *e)
{
	char *path = xasprintf("%s/" SWITCH_FILE_CONFIG, dir);
	json_t *o = load(path, e);
	int r = -1;

	memset(c, 0, sizeof(*c));
	if (o) {
		r = get_config(o, c, e);
		if (r)
			config_free(c);
		else
			complete(c);
	}
	json_decref(o);
	free(path);
	return r;
}

void
config_free(struct net_config *c)
{
	dhcp_config_free(&c->dhcp);
}

/* ---- ports ---- */

bool
trunk_parse(const char *text, struct sw_port_config *c)
{
	c->trunk = strcmp(text, "none") != 0;
	memset(c->allowed, !strcmp(text, "all") ? 0xff : 0, sizeof(c->allowed));
	if (!strcmp(text, "all") || !strcmp(text, "none"))
		return true;
	while (*text) {
		size_t n = strcspn(text, ",");
		char part[16], *dash;
		uint64_t a, b;

		if (n >= sizeof(part))
			return false;
		memcpy(part, text, n);
		part[n] = 0;
		dash = strchr(part, '-');
		if (dash)
			*dash++ = 0;
		if (!str_to_u64(part, 1, 4094, &a) || (dash && !str_to_u64(dash, a, 4094, &b)))
			return false;
		for (uint64_t v = a; v <= (dash ? b : a); v++)
			sw_vlan_allow(c, (unsigned)v);
		text += n + (text[n] == ',');
	}
	return true;
}

static int
get_port(json_t *o, struct port_file *p, struct err *e)
{
	static const char *const policies[] = { "deny", "allow-vms", "allow-all" };
	int64_t slot = 0, vlan = 0, rate = 0, storm = 0;
	char trunk[256] = "all";
	int promisc = SW_DENY;

	if (check_members(o, "token machine slot mac promisc any_source vlan trunk rate storm ", e) ||
		get_text(o, "token", p->token, sizeof(p->token), e) ||
		get_text(o, "machine", p->machine, sizeof(p->machine), e) || get_number(o, "slot", 0, 63, &slot, e) ||
		get_word(o, "promisc", policies, 3, &promisc, e) || get_number(o, "vlan", 0, 4094, &vlan, e) ||
		get_text(o, "trunk", trunk, sizeof(trunk), e) || get_number(o, "rate", 0, INT64_MAX / 4, &rate, e) ||
		get_number(o, "storm", 0, INT32_MAX, &storm, e))
		return -1;
	if (strlen(p->token) != 32)
		return bad(e, "token", "has to have 32 characters");
	if (!parse_mac(json_string_value(json_object_get(o, "mac")), p->c.mac))
		return bad(e, "mac", "has to be 12 hexadecimal digits");
	if (!trunk_parse(trunk, &p->c))
		return bad(e, "trunk", "has to be all, none or like 10,20-30");
	p->slot = (int)slot;
	p->rate = (uint64_t)rate;
	p->c.has_mac = true;
	p->c.promisc = (enum sw_promisc)promisc;
	p->c.vlan = (uint16_t)vlan;
	p->c.storm = (uint32_t)storm;
	p->c.any_source = promisc != SW_DENY;
	return get_bool(o, "any_source", &p->c.any_source, e);
}

int
port_file_read(const char *dir, const char *id, struct port_file *p, struct err *e)
{
	char *path;
	json_t *o;
	int r = -1;

	memset(p, 0, sizeof(*p));
	if (!*id || *id == '.' || id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")])
		return err_set(e, ERR_INVALID, "'%.60s' is not the name of a port", id);
	path = xasprintf("%s/" SWITCH_DIR_PORTS "/%s.json", dir, id);
	o = load(path, e);
	if (o)
		r = get_port(o, p, e);
	json_decref(o);
	free(path);
	return r;
}
