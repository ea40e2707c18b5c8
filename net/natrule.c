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

/* "" or an IPv4 address? */
static bool
ip_ok(const char *text)
{
	struct in_addr ip;

	return !*text || inet_pton(AF_INET, text, &ip) == 1;
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

int
nat_rule_parse(const char *text, struct nat_rule *out, struct err *e)
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
	if (!ip_ok(host_ip))
		return err_set(e, ERR_INVALID, "NAT rule '%s': '%s' is not an IPv4 address", text, host_ip);
	if (!ip_ok(guest_ip))
		return err_set(e, ERR_INVALID, "NAT rule '%s': '%s' is not an IPv4 address", text, guest_ip);
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
