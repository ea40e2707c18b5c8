/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port forwarding rules as text. In a file of its own because the inventory reads them without linking libslirp.
 */
#include "net/net.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

/* "" or an address of the family? */
static bool
ip_ok(const char *text, int family)
{
	struct in6_addr ip;

	return !*text || inet_pton(family, text, &ip) == 1;
}

static int
rule_field(char **rest, const char **field)
{
	*field = strsep(rest, ",");
	return *field ? 0 : -1;
}

static bool
parse_port(const char *text, uint16_t *out)
{
	uint64_t v;

	if (!str_to_u64(text, 1, 65535, &v))
		return false;
	*out = (uint16_t)v;
	return true;
}

static int
check_address(const char *rule, const char *text, int family, struct err *e)
{
	if (ip_ok(text, family))
		return 0;
	return err_set(
		e, ERR_INVALID, "NAT rule '%s': '%s' is not an IPv%d address", rule, text, family == AF_INET ? 4 : 6);
}

static int
parse(const char *text, int family, struct nat_rule *out, struct err *e)
{
	const char *name, *proto, *host_ip, *host_port, *guest_ip, *guest_port;
	char copy[256], *rest = copy;
	struct nat_rule r = { 0 };

	if (strlen(text) >= sizeof(copy))
		return err_set(e, ERR_INVALID, "NAT rule '%.40s...' is too long", text);
	strcpy(copy, text);
	if (rule_field(&rest, &name) || rule_field(&rest, &proto) || rule_field(&rest, &host_ip) ||
		rule_field(&rest, &host_port) || rule_field(&rest, &guest_ip) || rule_field(&rest, &guest_port) || rest)
		return err_set(e, ERR_INVALID,
			"NAT rule '%s' must have six fields: name,tcp|udp,hostip,hostport,guestip,guestport", text);
	if (strlen(name) >= sizeof(r.name))
		return err_set(
			e, ERR_INVALID, "NAT rule name '%s' is longer than %zu characters", name, sizeof(r.name) - 1);
	r.udp = !strcasecmp(proto, "udp");
	if (!r.udp && strcasecmp(proto, "tcp"))
		return err_set(e, ERR_INVALID, "NAT rule '%s': the protocol is 'tcp' or 'udp', not '%s'", text, proto);
	if (check_address(text, host_ip, family, e) || check_address(text, guest_ip, family, e))
		return -1;
	if (family == AF_INET6 && !*guest_ip)
		return err_set(e, ERR_INVALID, "NAT rule '%s': the guest's IPv6 address is missing", text);
	if (!parse_port(host_port, &r.host_port))
		return err_set(e, ERR_INVALID, "NAT rule '%s': '%s' is not a port number (1-65535)", text, host_port);
	if (!parse_port(guest_port, &r.guest_port))
		return err_set(e, ERR_INVALID, "NAT rule '%s': '%s' is not a port number (1-65535)", text, guest_port);
	strcpy(r.name, name);
	snprintf(r.host_ip, sizeof(r.host_ip), "%s", host_ip);
	snprintf(r.guest_ip, sizeof(r.guest_ip), "%s", guest_ip);
	*out = r;
	return 0;
}

int
nat_rule_parse(const char *text, struct nat_rule *out, struct err *e)
{
	return parse(text, AF_INET, out, e);
}

int
nat_rule_parse6(const char *text, struct nat_rule *out, struct err *e)
{
	return parse(text, AF_INET6, out, e);
}

bool
nat_rule_is6(const struct nat_rule *r)
{
	return strchr(r->guest_ip, ':');
}
