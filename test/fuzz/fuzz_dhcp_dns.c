/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: requests to the DHCP servers (of IPv4 whole frames, their checksums put right), and questions to the DNS of a
 * network.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "net/net.h"
#include "switch/dhcp.h"
#include "switch/dhcp6.h"
#include "switch/dns.h"
#include "test/fuzz/input.h"

static struct dhcp server;
static int64_t now = 1000;

static void
make_server(void)
{
	struct dhcp_config c = { .mac = { 8, 0, 0x27, 9, 9, 9 },
		.address = 0x0a000203,
		.netmask = 0xffffff00,
		.lower = 0x0a000204,
		.upper = 0x0a000210,
		.router = 0x0a000201,
		.dns = 0x0a000203,
		.domain = "lab",
		.boot_file = "pxelinux.0",
		.boot_server = 0x0a000202 };

	c.groups = xcalloc(1, sizeof(*c.groups));
	c.group_count = 1;
	c.groups[0].condition_count = 1;
	c.groups[0].conditions[0] = (struct dhcp_condition){ true, DHCP_VENDOR_WILD, "*PXE*" };
	dhcp_option_set(&c.groups[0], 43, (const uint8_t *)"\1\2\3", 3);
	c.groups[0].forced[43 >> 3] |= 1 << (43 & 7);
	dhcp_open(&server, &c);
}

/* A message with options of its own choice; the answer is within its bounds (the address sanitizer looks). */
static void
dhcp6(struct input *in)
{
	struct dhcp6_config c = { .mac = { 8, 0, 0x27, 9, 9, 9 },
		.prefix = { 0xfd },
		.lease = 3600,
		.domain = "a.lab",
		.dns = (const uint8_t *)"sixteen letters." };
	size_t len = take(in, 2) & 1023;
	uint8_t *m = calloc(1, len + 1), *out = malloc(DHCP6_REPLY_MAX);

	for (size_t i = 0; i < len; i++)
		m[i] = (uint8_t)take(in, 1);
	if (len > 4)
		m[0] = 1 + m[0] % 11;
	if (dhcp6_input(&c, c.mac, m, len, out) > DHCP6_REPLY_MAX)
		__builtin_trap();
	free(out);
	free(m);
}

static void
dhcp(struct input *in)
{
	uint8_t out[DHCP_REPLY_MAX];
	size_t options = take(in, 1), len = 14 + 20 + 8 + 240 + options;
	uint8_t *f = calloc(1, len), *m = f + 42;
	uint16_t sum;

	memcpy(f + 6, (uint8_t[]){ 8, 0, 0x27, 0, 0, (uint8_t)take(in, 1) }, 6);
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((len - 14) >> 8);
	f[17] = (uint8_t)(len - 14);
	f[23] = 17;
	sum = net_sum_fold(net_sum(0, f + 14, 20));
	memcpy(f + 24, &sum, 2);
	f[37] = 67;
	f[38] = (uint8_t)((len - 34) >> 8);
	f[39] = (uint8_t)(len - 34);
	m[0] = m[1] = 1;
	m[2] = 6;
	memcpy(m + 28, f + 6, 6);
	memcpy(m + 236, "\x63\x82\x53\x63", 4);
	if (take(in, 1) & 1)
		put_le32(m + 12, (uint32_t)take(in, 4));
	for (size_t i = 0; i < options; i++)
		m[240 + i] = (uint8_t)take(in, 1);
	if (!(take(in, 1) & 7) && len)
		f[take(in, 2) % len] ^= (uint8_t)take(in, 1);
	now += (int64_t)take(in, 1) * 100;
	size_t n = dhcp_input(&server, f, len, now, out);
	if (n > DHCP_REPLY_MAX || (n && net_checksum_verify(out, n) != (NET_CSUM_IP | NET_CSUM_L4)))
		__builtin_trap();
	/* no two leases of one address, none outside the range */
	for (int i = 0; i < server.lease_count; i++) {
		if (server.leases[i].ip < server.c.lower || server.leases[i].ip > server.c.upper)
			__builtin_trap();
		for (int k = 0; k < i; k++)
			if (server.leases[k].ip == server.leases[i].ip)
				__builtin_trap();
	}
	free(f);
}

static uint32_t
find(void *opaque, const char *name)
{
	return strcmp(name, "web1") ? 0 : 0x0a000205;
}

static bool
find6(void *opaque, const char *name, uint8_t out[16])
{
	memset(out, 0xfd, 16);
	return !strcmp(name, "web6") || !strcmp(name, "web1");
}

static bool
name6(void *opaque, const uint8_t ip[16], char *out, size_t size)
{
	strcpy(out, "web6");
	return ip[15] & 1;
}

static bool
name(void *opaque, uint32_t ip, char *out, size_t size)
{
	strcpy(out, "web1");
	return ip & 1;
}

static void
dns(struct input *in)
{
	struct dns_names n = {
		.domain = "lab",
		.network = 0x0a000200,
		.netmask = 0xffffff00,
		.prefix6 = (const uint8_t *)"\xfd\0\0\0\0\0\0\0",
		.find = find,
		.find6 = find6,
		.name = name,
		.name6 = name6,
	};
	size_t len = take(in, 1), out_len = 0;
	uint8_t *q = calloc(1, len + 12), out[DNS_MAX + 512];

	q[5] = 1;
	for (size_t i = 0; i < len; i++)
		q[12 + i] = (uint8_t)take(in, 1);
	if (dns_query(&n, q, len + 12, take(in, 1) & 1, out, &out_len) == DNS_ANSWERED && out_len > sizeof(out))
		__builtin_trap();
	free(q);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!server.c.address)
		make_server();
	while (in.left > 4) {
		uint32_t what = take(&in, 1);

		if (!(what & 3))
			dns(&in);
		else if (what & 4)
			dhcp(&in);
		else
			dhcp6(&in);
	}
	return 0;
}
