/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "debug/packet.h"

/* The last event of `bytes`; all before it have to be PACKET_MORE. */
static enum packet_event
feed(struct packet_in *p, const char *bytes, size_t len)
{
	enum packet_event e = PACKET_MORE;

	for (size_t i = 0; i < len; i++) {
		assert_int_equal(e, PACKET_MORE);
		e = packet_feed(p, (uint8_t)bytes[i]);
	}
	return e;
}

static void
any_bytes_survive_a_frame(void **state)
{
	struct packet_in *p = calloc(1, sizeof(*p));
	struct str s = { 0 };
	char data[256];

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (char)i;
	packet_frame(&s, data, sizeof(data));
	assert_int_equal(feed(p, s.s, s.len), PACKET_READY);
	assert_int_equal(p->len, sizeof(data));
	assert_memory_equal(p->data, data, sizeof(data));
	str_free(&s);
	free(p);
}

static void
a_frame_is_as_the_manual_says(void **state)
{
	struct str s = { 0 };

	packet_frame(&s, "OK", 2);
	assert_string_equal(s.s, "$OK#9a");
	str_free(&s);
	packet_frame(&s, "#", 1);
	assert_string_equal(s.s, "$}\x03#80");
	str_free(&s);
}

static void
damage_is_noticed_and_the_next_packet_is_read(void **state)
{
	struct packet_in *p = calloc(1, sizeof(*p));

	assert_int_equal(feed(p, "$OK#9b", 6), PACKET_DAMAGED);
	assert_int_equal(feed(p, "$OK#9x", 6), PACKET_DAMAGED);
	assert_int_equal(feed(p, "noise$lost$OK#9a", 16), PACKET_READY);
	assert_string_equal(p->data, "OK");
	assert_int_equal(feed(p, "+", 1), PACKET_ACK);
	assert_int_equal(feed(p, "-", 1), PACKET_NACK);
	assert_int_equal(feed(p, "\x03", 1), PACKET_BREAK);
	free(p);
}

static void
a_packet_that_is_too_long_is_refused_whatever_its_checksum(void **state)
{
	struct packet_in *p = calloc(1, sizeof(*p));
	struct str s = { 0 };
	char *data = calloc(1, PACKET_MAX + 1);

	memset(data, 'a', PACKET_MAX + 1);
	packet_frame(&s, data, PACKET_MAX);
	assert_int_equal(feed(p, s.s, s.len), PACKET_READY);
	str_free(&s);
	packet_frame(&s, data, PACKET_MAX + 1);
	assert_int_equal(feed(p, s.s, s.len), PACKET_DAMAGED);
	str_free(&s);
	free(data);
	free(p);
}

static void
hexadecimal_numbers_end_where_they_end(void **state)
{
	const char *p = "1fF,", *long_one = "11112222333344445", *none = ",";
	uint8_t two[2];
	uint64_t n;

	assert_true(hex_number(&p, &n));
	assert_int_equal(n, 0x1ff);
	assert_int_equal(*p, ',');
	assert_false(hex_number(&long_one, &n));
	assert_false(hex_number(&none, &n));
	p = "12a";
	assert_false(hex_bytes(&p, two, 2)); /* half a byte is none */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_bytes_survive_a_frame),
		cmocka_unit_test(a_frame_is_as_the_manual_says),
		cmocka_unit_test(damage_is_noticed_and_the_next_packet_is_read),
		cmocka_unit_test(a_packet_that_is_too_long_is_refused_whatever_its_checksum),
		cmocka_unit_test(hexadecimal_numbers_end_where_they_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
