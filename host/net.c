/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inventory of networks: documents by kind and name, checked before they are stored (host/net.h).
 *
 * The table is made when it is first needed: it belongs to no version of the machines' schema and refers to nothing in
 * it.
 */
#include "host/net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "host/inv.h"
#include "host/netrun.h"
#include "net/ranges.h"

static const char *const kinds[] = {
	[HOST_NET_HOSTONLYIF] = "hostonlyif",
	[HOST_NET_HOSTONLYNET] = "hostonlynet",
	[HOST_NET_NAT] = "nat",
	[HOST_NET_DHCP] = "dhcp",
	[HOST_NET_GROUPS] = "groups",
};

static int
make_table(struct host *h, struct err *e)
{
	return db_run(h, e,
		"CREATE TABLE IF NOT EXISTS network(kind TEXT NOT NULL, name TEXT NOT NULL, doc TEXT NOT NULL,"
		" PRIMARY KEY(kind, name)) WITHOUT ROWID",
		"");
}

json_t *
host_net_list(struct host *h, enum host_net kind, struct err *e)
{
	json_t *all = json_object();
	sqlite3_stmt *s;
	int r = -1;

	if (make_table(h, e)) {
		json_decref(all);
		return NULL;
	}
	s = db_query(h, e, "SELECT name, doc FROM network WHERE kind = ? ORDER BY name", "s", kinds[kind]);
	while (s && (r = db_step(h, s, e)) > 0)
		json_object_set_new(all, db_text(s, 0), json_loads(db_text(s, 1), 0, NULL));
	sqlite3_finalize(s);
	if (!r)
		return all;
	json_decref(all);
	return NULL;
}

json_t *
host_net_get(struct host *h, enum host_net kind, const char *name, struct err *e)
{
	json_t *doc = NULL;
	sqlite3_stmt *s;

	if (make_table(h, e))
		return NULL;
	s = db_query(h, e, "SELECT doc FROM network WHERE kind = ? AND name = ?", "ss", kinds[kind], name);
	if (s && db_step(h, s, e) > 0)
		doc = json_loads(db_text(s, 0), 0, NULL);
	sqlite3_finalize(s);
	return doc;
}

/* ---- checks ---- */

static bool
ipv4(const char *text, uint32_t *out)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		return false;
	*out = ntohl(a.s_addr);
	return true;
}

static bool
mask_ok(const char *text, uint32_t *mask)
{
	return ipv4(text, mask) && *mask && !(~*mask & (~*mask + 1));
}

int
host_hostonly_allowed(int family, const char *address, struct err *e)
{
	size_t len;
	char *ranges = file_read(RANGES_FILE, 65536, &len, NULL);
	uint8_t bytes[16];
	bool ok =
		inet_pton(family, address, bytes) == 1 && ranges_hold(ranges ? ranges : RANGES_DEFAULT, family, bytes);

	if (!ok)
		err_set(e, ERR_ACCESS,
			"The address %s is not within the ranges that host-only networks may use (%s); " RANGES_FILE
			" can name others",
			address, ranges ? "see that file" : RANGES_DEFAULT);
	free(ranges);
	return ok ? 0 : -1;
}

static int
check_hostonlyif(json_t *doc, struct err *e)
{
	const char *ip = json_text(doc, "ip"), *mask = json_text(doc, "mask"), *ip6 = json_text(doc, "ip6");
	struct in6_addr a6;
	uint32_t v;

	if (*ip && json_is_true(json_object_get(doc, "dhcp")))
		return err_set(e, ERR_INVALID, "An address that DHCP gives cannot be %s as well", ip);
	if (*ip && !ipv4(ip, &v))
		return err_set(e, ERR_INVALID, "'%s' is not an IPv4 address", ip);
	if (*ip && !mask_ok(mask, &v))
		return err_set(e, ERR_INVALID, "'%s' is not a network mask", mask);
	if (*ip && host_hostonly_allowed(AF_INET, ip, e))
		return -1;
	if (*ip6 && inet_pton(AF_INET6, ip6, &a6) != 1)
		return err_set(e, ERR_INVALID, "'%s' is not an IPv6 address", ip6);
	return *ip6 ? host_hostonly_allowed(AF_INET6, ip6, e) : 0;
}

static int
check_hostonlynet(json_t *doc, struct err *e)
{
	uint32_t mask, lower, upper;

	if (!mask_ok(json_text(doc, "mask"), &mask))
		return err_set(e, ERR_INVALID, "'%s' is not a network mask", json_text(doc, "mask"));
	if (!ipv4(json_text(doc, "lower"), &lower) || !ipv4(json_text(doc, "upper"), &upper) || lower > upper ||
		((lower ^ upper) & mask))
		return err_set(e, ERR_INVALID, "'%s' to '%s' is not a range of addresses of one network",
			json_text(doc, "lower"), json_text(doc, "upper"));
	return host_hostonly_allowed(AF_INET, json_text(doc, "lower"), e);
}

/* "name:tcp|udp:[hostip]:hostport:[guestip]:guestport" into the form of NAT's own rules */
int
natnet_rule_parse(const char *text, struct nat_rule *r, struct err *e)
{
	char name[64], proto[8], host[64] = "", guest[64] = "", *comma;
	unsigned host_port, guest_port;
	int end = 0;

	if ((sscanf(text, "%63[^:]:%7[^:]:[%63[^]]]:%u:[%63[^]]]:%u%n", name, proto, host, &host_port, guest,
		     &guest_port, &end) != 6 ||
		    text[end]) &&
		(host[0] = 0, end = 0,
			sscanf(text, "%63[^:]:%7[^:]:[]:%u:[%63[^]]]:%u%n", name, proto, &host_port, guest, &guest_port,
				&end) != 5 ||
				text[end]))
		return err_set(e, ERR_INVALID,
			"Invalid port-forward rule '%s': it has the form "
			"NAME:tcp|udp:[HOSTIP]:HOSTPORT:[GUESTIP]:GUESTPORT",
			text);
	comma = xasprintf("%s,%s,%s,%u,%s,%u", name, proto, host, host_port, guest, guest_port);
	end = strchr(guest, ':') ? nat_rule_parse6(comma, r, e) : nat_rule_parse(comma, r, e);
	free(comma);
	return end;
}

/* The directory is opened from inside the switch's sandbox, so it has to be said in full. */
static int
check_tftp(json_t *doc, struct err *e)
{
	const char *dir = json_text(doc, "tftp");
	struct stat st;

	if (!*dir)
		return 0;
	if (*dir != '/' || stat(dir, &st) || !S_ISDIR(st.st_mode))
		return err_set(e, ERR_INVALID, "'%s' is not the full path of a directory that TFTP can serve", dir);
	return 0;
}

/*
 * A network that routers advertise for SLAAC (RFC 4862) is a /64, of global (RFC 4291, 2.5.4) or unique local (RFC 4193)
 * addresses. The document has it in its usual spelling afterwards.
 */
static int
check_prefix6(json_t *doc, struct err *e)
{
	static const uint8_t none[8];
	const char *text = json_text(doc, "prefix6");
	size_t n = strcspn(text, "/");
	char address[INET6_ADDRSTRLEN] = "";
	struct in6_addr a;

	if (!*text)
		return 0; /* of an older inventory: without IPv6 */
	if (n < sizeof(address))
		memcpy(address, text, n);
	if (inet_pton(AF_INET6, address, &a) != 1 || (text[n] && strcmp(text + n, "/64") != 0))
		return err_set(e, ERR_INVALID,
			"Invalid IPv6 prefix '%s': it has the form fd17:625c:f037:2::/64, with 64 bits", text);
	if ((a.s6_addr[0] & 0xe0) != 0x20 && (a.s6_addr[0] & 0xfe) != 0xfc)
		return err_set(e, ERR_INVALID,
			"Invalid IPv6 prefix '%s': it is not of unicast addresses (2000::/3 or fc00::/7)", text);
	if (memcmp(a.s6_addr + 8, none, 8) != 0)
		return err_set(e, ERR_INVALID, "Invalid IPv6 prefix '%s': its last 64 bits have to be 0", text);
	inet_ntop(AF_INET6, &a, address, sizeof(address));
	json_object_set_new(doc, "prefix6", json_sprintf("%s/64", address));
	return 0;
}

static int
check_nat(json_t *doc, struct err *e)
{
	const char *network = json_text(doc, "network"), *slash = strchr(network, '/');
	char ip[16] = "";
	struct nat_rule rule;
	json_t *v;
	uint64_t bits;
	uint32_t a;
	size_t i;

	if (slash && slash - network < 16)
		memcpy(ip, network, (size_t)(slash - network));
	if (!slash || !ipv4(ip, &a) || !str_to_u64(slash + 1, 8, 27, &bits))
		return err_set(e, ERR_INVALID, "Invalid network '%s': it has the form 10.0.2.0/24, with 8 to 27 bits",
			network);
	for (int six = 0; six < 2; six++)
		json_array_foreach(json_object_get(doc, six ? "forwards6" : "forwards"), i, v)
		{
			if (natnet_rule_parse(json_string_value(v), &rule, e))
				return -1;
			if (nat_rule_is6(&rule) != six)
				return err_set(e, ERR_INVALID, "Port-forward rule '%s' is not for IPv%d",
					json_string_value(v), six ? 6 : 4);
		}
	return check_prefix6(doc, e) || check_tftp(doc, e) ? -1 : 0;
}

static int
check_dhcp(json_t *doc, struct err *e)
{
	uint32_t ip, mask, lower, upper;

	if (!ipv4(json_text(doc, "ip"), &ip))
		return err_set(e, ERR_INVALID, "'%s' is not an IPv4 address of a DHCP server", json_text(doc, "ip"));
	if (!mask_ok(json_text(doc, "mask"), &mask))
		return err_set(e, ERR_INVALID, "'%s' is not a network mask", json_text(doc, "mask"));
	if (!ipv4(json_text(doc, "lower"), &lower) || !ipv4(json_text(doc, "upper"), &upper) || lower > upper)
		return err_set(e, ERR_INVALID, "'%s' to '%s' is not a range of addresses", json_text(doc, "lower"),
			json_text(doc, "upper"));
	if (((ip ^ lower) | (ip ^ upper)) & mask)
		return err_set(e, ERR_INVALID, "The DHCP server %s and its range %s to %s are not in one network",
			json_text(doc, "ip"), json_text(doc, "lower"), json_text(doc, "upper"));
	return 0;
}

static int
check_doc(enum host_net kind, const char *name, json_t *doc, struct err *e)
{
	if (!*name || strlen(name) > 200 || strchr(name, '/'))
		return err_set(e, ERR_INVALID, "Invalid network name '%s'", name);
	switch (kind) {
	case HOST_NET_HOSTONLYIF:
		return check_hostonlyif(doc, e);
	case HOST_NET_HOSTONLYNET:
		return check_hostonlynet(doc, e);
	case HOST_NET_NAT:
		return check_nat(doc, e);
	case HOST_NET_DHCP:
		return check_dhcp(doc, e);
	case HOST_NET_GROUPS:
		return 0;
	}
	return -1;
}

/* ---- changing ---- */

static int
store(struct host *h, enum host_net kind, const char *name, json_t *doc, struct err *e)
{
	char *text = json_dumps(doc, JSON_COMPACT);
	int r;

	if (!text)
		return err_set(e, ERR_INVALID, "The network '%s' cannot be written down: a value is not UTF-8", name);
	r = db_run(h, e, "INSERT OR REPLACE INTO network VALUES(?, ?, ?)", "sss", kinds[kind], name, text);
	free(text);
	return r;
}

/* The DHCP server that comes with a NAT network: .3, and all from .4 on. */
static int
store_nat_dhcp(struct host *h, const char *name, json_t *nat, struct err *e)
{
	json_t *doc = host_net_get(h, HOST_NET_DHCP, name, e), *fresh;
	const char *network = json_text(nat, "network"), *slash = strchr(network, '/');
	char ip[16] = "", text[4][16];
	uint32_t a = 0, bits = (uint32_t)strtoul(slash + 1, NULL, 10), mask = ~0u << (32 - bits), all[4];
	int r;

	memcpy(ip, network, (size_t)(slash - network));
	ipv4(ip, &a);
	a &= mask;
	all[0] = a + 3;
	all[1] = mask;
	all[2] = a + 4;
	all[3] = (a | ~mask) - 1;
	for (int i = 0; i < 4; i++)
		snprintf(text[i], 16, "%u.%u.%u.%u", all[i] >> 24, all[i] >> 16 & 255, all[i] >> 8 & 255, all[i] & 255);
	fresh = json_pack("{s:s, s:s, s:s, s:s, s:b}", "ip", text[0], "mask", text[1], "lower", text[2], "upper",
		text[3], "enabled", json_is_true(json_object_get(nat, "dhcp")));
	if (!doc)
		doc = json_object();
	json_object_update(doc, fresh); /* options and fixed addresses stay */
	r = store(h, HOST_NET_DHCP, name, doc, e);
	json_decref(fresh);
	json_decref(doc);
	return r;
}

static char *
id_of(struct host *h, enum host_net kind, const char *name)
{
	switch (kind) {
	case HOST_NET_HOSTONLYIF:
		return host_net_id_of("hostonly", name);
	case HOST_NET_HOSTONLYNET:
		return host_net_id_of("hostonlynet", name);
	case HOST_NET_NAT:
		return host_net_id_of("nat", name);
	default:
		return host_net_id_of_dhcp(h, name);
	}
}

/* Where the host's interface has its address by DHCP, that has to be within the ranges as one that is said. */
static int
check_host_dhcp(struct host *h, enum host_net kind, const char *name, json_t *doc, struct err *e)
{
	bool is_server = kind == HOST_NET_DHCP && str_starts(name, HOSTONLY_PREFIX);
	json_t *other;
	char *server;
	int r = 0;

	if (!is_server && kind != HOST_NET_HOSTONLYIF)
		return 0;
	server = xasprintf(HOSTONLY_PREFIX "%s", name);
	other = is_server ? host_net_get(h, HOST_NET_HOSTONLYIF, name + strlen(HOSTONLY_PREFIX), NULL)
			  : host_net_get(h, HOST_NET_DHCP, server, NULL);
	if (other && json_is_true(json_object_get(is_server ? other : doc, "dhcp")))
		r = host_hostonly_allowed(AF_INET, json_text(is_server ? doc : other, "lower"), e);
	json_decref(other);
	free(server);
	return r;
}

int
host_net_set(struct host *h, enum host_net kind, const char *name, json_t *doc, struct err *e)
{
	char *id;
	int r;

	if (check_doc(kind, name, doc, e) || check_host_dhcp(h, kind, name, doc, e) || db_begin(h, e))
		return -1;
	if (make_table(h, e) || store(h, kind, name, doc, e) ||
		(kind == HOST_NET_NAT && store_nat_dhcp(h, name, doc, e)) || db_commit(h, e)) {
		db_rollback(h);
		return -1;
	}
	id = id_of(h, kind, name);
	r = net_tell(h, id, e);
	free(id);
	return r;
}

static bool
plugged_in(struct host *h, const char *id)
{
	json_t *status = host_net_call(h, id, "status", json_object(), NULL);
	bool any = json_array_size(json_object_get(status, "ports")) > 0;

	json_decref(status);
	return any;
}

int
host_net_remove(struct host *h, enum host_net kind, const char *name, struct err *e)
{
	bool whole = kind == HOST_NET_HOSTONLYIF || kind == HOST_NET_HOSTONLYNET || kind == HOST_NET_NAT;
	char *id = id_of(h, kind, name);
	int r = -1;

	if (whole && plugged_in(h, id)) {
		err_set(e, ERR_IN_USE, "Machines are plugged into the network '%s'", name);
		goto out;
	}
	if (db_begin(h, e))
		goto out;
	if (make_table(h, e) ||
		db_run(h, e, "DELETE FROM network WHERE kind = ? AND name = ?", "ss", kinds[kind], name) ||
		(kind == HOST_NET_NAT &&
			db_run(h, e, "DELETE FROM network WHERE kind = 'dhcp' AND name = ?", "s", name)) ||
		db_commit(h, e)) {
		db_rollback(h);
		goto out;
	}
	r = whole ? host_net_stop(h, id, e) : net_tell(h, id, e);
	if (whole && !r)
		net_forget(h, id);
out:
	free(id);
	return r;
}

/* ---- host-only interfaces ---- */

int
host_hostonlyif_create(struct host *h, char name[16], struct err *e)
{
	json_t *all, *doc;
	char mac[13], ip[16] = "", *id;
	int n = 0, r;

	if (db_begin(h, e))
		return -1;
	all = host_net_list(h, HOST_NET_HOSTONLYIF, e);
	if (!all)
		goto fail;
	/* One that is not ours, of another user of this host, is passed over too. */
	do {
		snprintf(name, 16, "vboxnet%d", n);
	} while ((json_object_get(all, name) || if_nametoindex(name)) && ++n < 256);
	json_decref(all);
	if (n == 256) {
		err_set(e, ERR_FAILED, "There are 256 host-only interfaces already");
		goto fail;
	}
	snprintf(mac, sizeof(mac), "0a00270000%02x", n);
	snprintf(ip, sizeof(ip), "192.168.%d.1", 56 + n);
	if (n > 7 || host_hostonly_allowed(AF_INET, ip, NULL))
		ip[0] = 0;
	doc = json_pack("{s:s, s:s, s:s, s:s, s:i}", "mac", mac, "ip", ip, "mask", *ip ? "255.255.255.0" : "", "ip6",
		"", "len6", 0);
	r = store(h, HOST_NET_HOSTONLYIF, name, doc, e);
	json_decref(doc);
	if (r || db_commit(h, e))
		goto fail;
	id = host_net_id_of("hostonly", name);
	r = host_net_start(h, id, e);
	free(id);
	if (r)
		host_net_remove(h, HOST_NET_HOSTONLYIF, name, NULL);
	return r;
fail:
	db_rollback(h);
	return -1;
}

/* ---- internal networks ---- */

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int
host_intnets(struct host *h, char ***names, size_t *count, struct err *e)
{
	struct host_vm **vms;
	size_t n, kept = 0;

	*names = NULL;
	*count = 0;
	if (host_vms_load(h, &vms, &n, e))
		return -1;
	*names = xcalloc(n * HOST_NICS + 1, sizeof(char *));
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < HOST_NICS; k++)
			if (!strcmp(host_vm_get(vms[i], HK_NIC, k), "intnet"))
				(*names)[(*count)++] = xstrdup(host_vm_get(vms[i], HK_INTNET, k));
	host_vms_free(vms, n);
	qsort(*names, *count, sizeof(char *), by_text);
	for (size_t i = 0; i < *count; i++) {
		if (kept && !strcmp((*names)[kept - 1], (*names)[i]))
			free((*names)[i]);
		else
			(*names)[kept++] = (*names)[i];
	}
	*count = kept;
	return 0;
}
