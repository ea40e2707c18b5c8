/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "net/net.h"
#include "switch/dhcp.h"

enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM };
#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static struct dhcp server;
static uint8_t reply[DHCP_REPLY_MAX];
static size_t reply_len;

static struct dhcp_config
config(void)
{
	return (struct dhcp_config){ .mac = { 8, 0, 0x27, 9, 9, 9 },
		.address = IP(10, 0, 2, 3),
		.netmask = IP(255, 255, 255, 0),
		.lower = IP(10, 0, 2, 4),
		.upper = IP(10, 0, 2, 8),
		.router = IP(10, 0, 2, 1),
		.dns = IP(10, 0, 2, 3),
		.domain = "lab" };
}

static int
setup(void **state)
{
	struct dhcp_config c = config();

	dhcp_open(&server, &c);
	return 0;
}

static int
teardown(void **state)
{
	dhcp_close(&server);
	return 0;
}

struct ask {
	int type;
	uint8_t client;
	uint32_t wanted, server, ciaddr, lease;
	const char *list, *name;
	int64_t now;
};

static uint8_t *
option(uint8_t *p, int code, const void *data, size_t len)
{
	*p++ = (uint8_t)code;
	*p++ = (uint8_t)len;
	memcpy(p, data, len);
	return p + len;
}

static uint8_t *
option_ip(uint8_t *p, int code, uint32_t ip)
{
	ip = htonl(ip);
	return option(p, code, &ip, 4);
}

static size_t
build(const struct ask *a, uint8_t *f)
{
	uint8_t *m = f + 42, *p = m + 240, type = (uint8_t)a->type;
	uint32_t ip = htonl(a->ciaddr);
	size_t len;
	uint16_t sum;

	memset(f, 0, 600);
	memset(f, 0xff, 6);
	memcpy(f + 6, (uint8_t[]){ 8, 0, 0x27, 0, 0, a->client }, 6);
	m[0] = m[1] = 1;
	m[2] = 6;
	memcpy(m + 4, "XXID", 4);
	memcpy(m + 12, &ip, 4);
	memcpy(m + 28, f + 6, 6);
	memcpy(m + 236, "\x63\x82\x53\x63", 4);
	p = option(p, 53, &type, 1);
	if (a->wanted)
		p = option_ip(p, 50, a->wanted);
	if (a->server)
		p = option_ip(p, 54, a->server);
	if (a->lease)
		p = option_ip(p, 51, a->lease);
	if (a->list)
		p = option(p, 55, a->list, strlen(a->list));
	if (a->name)
		p = option(p, 12, a->name, strlen(a->name));
	*p++ = 255;
	len = (size_t)(p - f);
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((len - 14) >> 8);
	f[17] = (uint8_t)(len - 14);
	f[22] = 64;
	f[23] = 17;
	memcpy(f + 26, &ip, 4);
	memset(f + 30, 0xff, 4);
	sum = net_sum_fold(net_sum(0, f + 14, 20));
	memcpy(f + 24, &sum, 2);
	f[35] = 68;
	f[37] = 67;
	f[38] = (uint8_t)((len - 34) >> 8);
	f[39] = (uint8_t)(len - 34);
	return len;
}

static int
ask(struct ask a)
{
	uint8_t frame[700];

	reply_len = dhcp_input(&server, frame, build(&a, frame), a.now, reply);
	if (!reply_len)
		return 0;
	assert_int_equal(net_checksum_verify(reply, reply_len), NET_CSUM_IP | NET_CSUM_L4);
	assert_memory_equal(reply + 46, "XXID", 4);
	assert_int_equal(reply[42 + 240], 53);
	return reply[42 + 242];
}

static uint32_t
yours(void)
{
	uint32_t ip;

	memcpy(&ip, reply + 42 + 16, 4);
	return ntohl(ip);
}

/* Its bytes, or NULL; *len. */
static const uint8_t *
told(int code, int *len)
{
	for (uint8_t *p = reply + 42 + 240; p < reply + reply_len && *p != 255; p += *p ? 2 + p[1] : 1)
		if (*p == code) {
			*len = p[1];
			return p + 2;
		}
	return NULL;
}

static uint32_t
told32(int code)
{
	int len = 0;
	const uint8_t *p = told(code, &len);
	uint32_t v;

	assert_non_null(p);
	assert_int_equal(len, 4);
	memcpy(&v, p, 4);
	return ntohl(v);
}

static uint32_t
lease(uint8_t client, int64_t now)
{
	uint32_t ip;

	assert_int_equal(
		ask((struct ask){ .type = DISCOVER, .client = client, .list = "\1\3\6\17", .now = now }), OFFER);
	ip = yours();
	assert_int_equal(ask((struct ask){ .type = REQUEST,
				 .client = client,
				 .wanted = ip,
				 .server = server.c.address,
				 .list = "\1\3\6\17",
				 .now = now }),
		ACK);
	assert_int_equal(yours(), ip);
	return ip;
}

static void
a_client_gets_an_address_and_what_it_asks_for(void **state)
{
	int len;

	assert_int_equal(lease(1, 0), IP(10, 0, 2, 4));
	assert_int_equal(told32(1), IP(255, 255, 255, 0));
	assert_int_equal(told32(3), IP(10, 0, 2, 1));
	assert_int_equal(told32(6), IP(10, 0, 2, 3));
	assert_int_equal(told32(54), IP(10, 0, 2, 3));
	assert_int_equal(told32(51), 86400);
	assert_int_equal(told32(58), 43200);
	assert_memory_equal(told(15, &len), "lab", 3);
	assert_null(told(42, &len));
	assert_true(server.changed);
}

static void
clients_get_different_addresses_and_the_same_again(void **state)
{
	uint32_t one = lease(1, 0), two = lease(2, 0);

	assert_int_not_equal(one, two);
	assert_int_equal(lease(1, 10), one);
	assert_int_equal(lease(1, 10000000), one); /* long after it has run out */
}

static void
renewing_keeps_the_address_and_the_end_moves(void **state)
{
	uint32_t ip = lease(1, 0);

	assert_int_equal(ask((struct ask){ .type = REQUEST, .client = 1, .ciaddr = ip, .now = 40000 }), ACK);
	assert_int_equal(yours(), ip);
	assert_memory_equal(reply, ((uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }), 6);
	assert_int_equal(dhcp_find(&server, (uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }, 86500)->ip, ip);
	assert_null(dhcp_find(&server, (uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }, 40000 + 86400));
}

static void
a_full_range_gives_nothing_until_a_lease_runs_out(void **state)
{
	for (uint8_t i = 1; i <= 5; i++)
		lease(i, i);
	assert_int_equal(ask((struct ask){ .type = DISCOVER, .client = 6, .now = 100 }), 0);
	assert_int_equal(server.count_full, 1);
	assert_int_equal(lease(6, 86402), IP(10, 0, 2, 4)); /* the first to run out */
	assert_int_equal(
		ask((struct ask){ .type = REQUEST, .client = 1, .ciaddr = IP(10, 0, 2, 4), .now = 86410 }), NAK);
}

static void
an_address_of_another_network_is_refused(void **state)
{
	assert_int_equal(ask((struct ask){ .type = REQUEST, .client = 1, .wanted = IP(192, 168, 1, 5) }), NAK);
	assert_memory_equal(reply, "\xff\xff\xff\xff\xff\xff", 6);
	assert_int_equal(ask((struct ask){ .type = REQUEST, .client = 1, .wanted = IP(10, 0, 2, 1) }), NAK);
}

static void
a_client_that_takes_anothers_offer_frees_ours(void **state)
{
	ask((struct ask){ .type = DISCOVER, .client = 1 });
	assert_int_equal(server.lease_count, 1);
	assert_int_equal(
		ask((struct ask){ .type = REQUEST, .client = 1, .wanted = yours(), .server = IP(10, 0, 2, 77) }), 0);
	assert_int_equal(server.lease_count, 0);
}

static void
a_client_that_comes_back_after_the_leases_were_lost_keeps_its_address(void **state)
{
	assert_int_equal(ask((struct ask){ .type = REQUEST, .client = 1, .wanted = IP(10, 0, 2, 7) }), ACK);
	assert_int_equal(yours(), IP(10, 0, 2, 7));
}

static void
a_fixed_address_is_its_clients_alone(void **state)
{
	struct dhcp_config c = config();

	c.individual = xcalloc(1, sizeof(*c.individual));
	c.individual_count = 1;
	memcpy(c.individual[0].mac, (uint8_t[]){ 8, 0, 0x27, 0, 0, 9 }, 6);
	c.individual[0].fixed = IP(10, 0, 2, 4);
	dhcp_option_set(&c.individual[0], 6, (uint8_t[]){ 8, 8, 8, 8 }, 4);
	dhcp_reconfigure(&server, &c);
	assert_int_equal(lease(1, 0), IP(10, 0, 2, 5));
	assert_int_equal(lease(9, 0), IP(10, 0, 2, 4));
	assert_int_equal(told32(6), IP(8, 8, 8, 8));
	assert_int_equal(ask((struct ask){ .type = REQUEST, .client = 1, .wanted = IP(10, 0, 2, 4) }), NAK);
}

static void
groups_options_and_lease_times_follow_from_who_asks(void **state)
{
	struct dhcp_config c = config();
	int len;

	c.global.default_lease = 1000;
	c.global.max_lease = 2000;
	dhcp_option_set(&c.global, 42, (uint8_t[]){ 1, 2, 3, 4 }, 4);
	c.global.forced[42 >> 3] |= 1 << (42 & 7);
	c.groups = xcalloc(1, sizeof(*c.groups));
	c.group_count = 1;
	c.groups[0].condition_count = 2;
	c.groups[0].conditions[0] = (struct dhcp_condition){ true, DHCP_MAC_WILD, "08:00:27:*" };
	c.groups[0].conditions[1] = (struct dhcp_condition){ false, DHCP_MAC, "08:00:27:00:00:02" };
	c.groups[0].suppressed[3 >> 3] |= 1 << 3;
	dhcp_reconfigure(&server, &c);
	lease(1, 0);
	assert_null(told(3, &len));
	assert_int_equal(told32(42), IP(1, 2, 3, 4));
	assert_int_equal(told32(51), 1000);
	lease(2, 0);
	assert_int_equal(told32(3), IP(10, 0, 2, 1));
	ask((struct ask){ .type = DISCOVER, .client = 3, .lease = 500000 });
	assert_int_equal(told32(51), 2000);
	ask((struct ask){ .type = DISCOVER, .client = 3, .lease = 1 });
	assert_int_equal(told32(51), 60);
}

static void
released_and_declined_addresses_are_treated_as_such(void **state)
{
	uint32_t ip = lease(1, 0);

	ask((struct ask){ .type = RELEASE, .client = 1, .ciaddr = ip });
	assert_null(dhcp_find(&server, (uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }, 1));
	assert_int_equal(lease(1, 5), ip);
	ask((struct ask){ .type = DECLINE, .client = 1, .wanted = ip, .now = 6 });
	assert_int_not_equal(lease(1, 7), ip);
	ask((struct ask){ .type = RELEASE, .client = 2, .ciaddr = ip }); /* not its own */
	assert_int_not_equal(lease(2, 8), ip);
}

static void
a_host_name_is_kept_when_it_is_one(void **state)
{
	ask((struct ask){ .type = DISCOVER, .client = 1, .name = "web-1.example" });
	assert_string_equal(server.leases[0].name, "web-1");
	ask((struct ask){ .type = DISCOVER, .client = 2, .name = "a b;rm" });
	assert_string_equal(server.leases[1].name, "");
}

static void
leases_come_back_from_a_file_when_they_still_fit(void **state)
{
	struct dhcp_lease good = { DHCP_ACKED, { 8, 0, 0x27, 0, 0, 3 }, IP(10, 0, 2, 6), 0, 1000, "x" }, bad = good;

	bad.mac[5] = 4;
	dhcp_restore(&server, &good);
	dhcp_restore(&server, &bad); /* the same address */
	bad.ip = IP(10, 9, 9, 9);
	dhcp_restore(&server, &bad);
	assert_int_equal(server.lease_count, 1);
	assert_int_equal(lease(3, 500), IP(10, 0, 2, 6));
}

static void
malformed_requests_get_no_answer(void **state)
{
	struct ask a = { .type = DISCOVER, .client = 1 };
	uint8_t frame[700];
	size_t len = build(&a, frame);

	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(dhcp_input(&server, frame, cut, 0, reply), 0);
	frame[6] ^= 2; /* Ethernet says another than the message */
	assert_int_equal(dhcp_input(&server, frame, len, 0, reply), 0);
	frame[6] ^= 2;
	frame[42 + 24] = 10; /* through a relay */
	assert_int_equal(dhcp_input(&server, frame, len, 0, reply), 0);
	frame[42 + 24] = 0;
	frame[42 + 241] = 200; /* an option beyond the end */
	assert_int_equal(dhcp_input(&server, frame, len, 0, reply), 0);
}

static void
patterns_match_as_people_expect(void **state)
{
	assert_true(dhcp_wild("08:00:*", "08:00:27:01:02:03"));
	assert_true(dhcp_wild("*PXE*", "iPXEClient"));
	assert_true(dhcp_wild("a?c", "ABC"));
	assert_false(dhcp_wild("a?c", "ac"));
	assert_true(dhcp_wild("*", ""));
	assert_false(dhcp_wild("", "x"));
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(a_client_gets_an_address_and_what_it_asks_for),
		T(clients_get_different_addresses_and_the_same_again),
		T(renewing_keeps_the_address_and_the_end_moves),
		T(a_full_range_gives_nothing_until_a_lease_runs_out),
		T(an_address_of_another_network_is_refused),
		T(a_client_that_takes_anothers_offer_frees_ours),
		T(a_client_that_comes_back_after_the_leases_were_lost_keeps_its_address),
		T(a_fixed_address_is_its_clients_alone),
		T(groups_options_and_lease_times_follow_from_who_asks),
		T(released_and_declined_addresses_are_treated_as_such),
		T(a_host_name_is_kept_when_it_is_one),
		T(leases_come_back_from_a_file_when_they_still_fit),
		T(malformed_requests_get_no_answer),
		T(patterns_match_as_people_expect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
