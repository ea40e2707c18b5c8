/* SPDX-License-Identifier: Apache-2.0 */
/* The DHCPv6 server as a function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "switch/dhcp6.h"

static const struct dhcp6_config server = {
	.mac = { 8, 0, 0x27, 9, 9, 9 }, .prefix = { 0xfd, 0, 0, 0x56 }, .lease = 3600, .domain = "lab.test"
};
static const uint8_t mac[6] = { 8, 0, 0x27, 0, 0, 1 };
static uint8_t message[600], out[DHCP6_REPLY_MAX];
static size_t len;

static void
begin(uint8_t type)
{
	memcpy(message, (uint8_t[]){ type, 1, 2, 3 }, 4);
	len = 4;
}

static uint8_t *
option(unsigned code, size_t n)
{
	uint8_t *p = message + len;

	put_be16(p, code);
	put_be16(p + 2, (unsigned)n);
	memset(p + 4, 0, n);
	len += 4 + n;
	return p + 4;
}

static void
client(void)
{
	memcpy(option(1, 10), "\0\3\0\1\x08\0\x27\0\0\1", 10);
}

static void
server_id(void)
{
	memcpy(option(2, 10), "\0\3\0\1\x08\0\x27\x09\x09\x09", 10);
}

/* An IA with `count` addresses of which the first is `first`. */
static void
ia(const uint8_t first[16], unsigned count)
{
	uint8_t *p = option(3, 12 + 28 * count);

	p[3] = 7;
	for (unsigned i = 0; i < count; i++) {
		put_be16(p + 12 + 28 * i, 5);
		put_be16(p + 14 + 28 * i, 24);
		memcpy(p + 16 + 28 * i, first, 16);
		p[16 + 28 * i + 15] += (uint8_t)i;
	}
}

static size_t
ask(void)
{
	return dhcp6_input(&server, mac, message, len, out);
}

/* An option of the answer, NULL: it has none. */
static const uint8_t *
find(size_t n, unsigned code, size_t *option_len)
{
	for (size_t at = 4; at + 4 <= n; at += 4 + be16(out + at + 2))
		if (be16(out + at) == code) {
			*option_len = be16(out + at + 2);
			return out + at + 4;
		}
	return NULL;
}

static void
check_address(size_t n)
{
	uint8_t own[16];
	size_t l;
	const uint8_t *p = find(n, 3, &l);

	dhcp6_address(&server, mac, own);
	assert_memory_equal(own, "\xfd\0\0\x56\0\0\0\0\0\xd6\x08\0\x27\0\0\1", 16);
	assert_non_null(p);
	assert_int_equal(p[3], 7);
	assert_int_equal(be32(p + 4), 1800);
	assert_int_equal(be32(p + 8), 2880);
	assert_int_equal(be16(p + 12), 5);
	assert_memory_equal(p + 16, own, 16);
	assert_int_equal(be32(p + 36), 3600);
}

static void
a_client_is_offered_and_given_the_address_of_its_mac(void **state)
{
	static const uint8_t none[16];
	size_t n, l;

	begin(1);
	client();
	ia(none, 0);
	n = ask();
	assert_int_equal(out[0], 2);
	assert_memory_equal(out + 1, message + 1, 3);
	check_address(n);
	assert_memory_equal(find(n, 1, &l), "\0\3\0\1\x08\0\x27\0\0\1", 10);
	assert_memory_equal(find(n, 24, &l), "\3lab\4test", 10);
	assert_int_equal(l, 10);
	begin(3);
	client();
	server_id();
	ia(none, 0);
	n = ask();
	assert_int_equal(out[0], 7);
	check_address(n);
	begin(1);
	client();
	option(14, 0);
	ia(none, 0);
	n = ask();
	assert_int_equal(out[0], 7); /* at once */
	assert_non_null(find(n, 14, &l));
}

static void
renewing_keeps_the_address_and_ends_others(void **state)
{
	static const uint8_t other[16] = { 0xfd, 1, [15] = 5 };
	uint8_t own[16];
	const uint8_t *p;
	size_t n, l;

	for (int type = 5; type <= 6; type++) {
		begin((uint8_t)type);
		client();
		if (type == 5)
			server_id();
		ia(other, 2);
		n = ask();
		check_address(n);
		p = find(n, 3, &l);
		assert_int_equal(l, 12 + 3 * 28);
		assert_memory_equal(p + 44, other, 16);
		assert_int_equal(be32(p + 60), 0);
	}
	dhcp6_address(&server, mac, own);
	begin(4);
	client();
	ia(own, 1);
	assert_memory_equal(find(ask(), 13, &l), "\0\0", 2);
	begin(4);
	client();
	ia(other, 1);
	assert_memory_equal(find(ask(), 13, &l), "\0\4", 2); /* not of this link */
	begin(8);
	client();
	server_id();
	ia(own, 1);
	assert_memory_equal(find(ask(), 13, &l), "\0\0", 2);
}

static void
what_is_not_for_this_server_or_malformed_has_no_answer(void **state)
{
	static const uint8_t none[16];

	begin(3); /* names no server */
	client();
	ia(none, 0);
	assert_int_equal(ask(), 0);
	begin(3); /* names another */
	client();
	memset(option(2, 10), 1, 10);
	ia(none, 0);
	assert_int_equal(ask(), 0);
	begin(1); /* nobody asks */
	ia(none, 0);
	assert_int_equal(ask(), 0);
	begin(4); /* asks about nothing */
	client();
	assert_int_equal(ask(), 0);
	begin(2); /* a server's */
	client();
	assert_int_equal(ask(), 0);
	begin(1);
	client();
	put_be16(message + 6, 500); /* longer than there is */
	assert_int_equal(ask(), 0);
	len = 3;
	assert_int_equal(ask(), 0);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_is_offered_and_given_the_address_of_its_mac),
		cmocka_unit_test(renewing_keeps_the_address_and_ends_others),
		cmocka_unit_test(what_is_not_for_this_server_or_malformed_has_no_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
