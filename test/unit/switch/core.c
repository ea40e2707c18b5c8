/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "switch/core.h"

struct sink {
	unsigned frames;
	size_t len;
	uint8_t last[SW_FRAME_MAX + 64];
	bool full;
};

static struct sw_core *core;
static struct sink sinks[8];
static uint8_t buffer[SW_FRAME_MAX + 512];
static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 };

static bool
deliver(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct sink *s = opaque;

	if (s->full)
		return false;
	s->frames++;
	s->len = len;
	memcpy(s->last, frame, len);
	return true;
}

static struct sw_port_config
machine(uint8_t number)
{
	struct sw_port_config c = { .mac = { 8, 0, 0x27, 0, 0, number }, .has_mac = true, .trunk = true };

	memset(c.allowed, 0xff, sizeof(c.allowed));
	return c;
}

static int
plug(const struct sw_port_config *c)
{
	int port = sw_port_add(core, c, deliver, NULL);

	sw_port_remove(core, port);
	return sw_port_add(core, c, deliver, &sinks[port]);
}

static int
plug_machine(uint8_t number)
{
	struct sw_port_config c = machine(number);

	return plug(&c);
}

/* vlan -1: no tag */
static void
send_from(int port, const uint8_t *to, uint8_t from, int vlan, unsigned type, const void *payload, size_t len)
{
	uint8_t *f = buffer + SW_HEADROOM, *p = f + 12;

	memset(buffer, 0, 128);
	memcpy(f, to, 6);
	memcpy(f + 6, (uint8_t[]){ 8, 0, 0x27, 0, 0, from }, 6);
	if (vlan >= 0) {
		*p++ = 0x81;
		*p++ = 0;
		*p++ = (uint8_t)(vlan >> 8);
		*p++ = (uint8_t)vlan;
	}
	*p++ = (uint8_t)(type >> 8);
	*p++ = (uint8_t)type;
	if (payload)
		memcpy(p, payload, len);
	p += len;
	sw_input(core, port, f, (size_t)(p - f), 0, 1000);
}

static void
simple(int port, uint8_t to, uint8_t from)
{
	send_from(port, (uint8_t[]){ 8, 0, 0x27, 0, 0, to }, from, -1, 0x88b5, "hello", 5);
}

static int
setup(void **state)
{
	core = sw_open();
	memset(sinks, 0, sizeof(sinks));
	return 0;
}

static int
teardown(void **state)
{
	sw_close(core);
	return 0;
}

static void
a_frame_for_a_machine_goes_to_its_port_only(void **state)
{
	int a = plug_machine(1);

	plug_machine(2);
	plug_machine(3);
	simple(a, 2, 1);
	assert_int_equal(sinks[0].frames, 0);
	assert_int_equal(sinks[1].frames, 1);
	assert_int_equal(sinks[2].frames, 0);
	assert_int_equal(sinks[1].len, 19);
	assert_memory_equal(sinks[1].last + 14, "hello", 5);
}

static void
a_broadcast_goes_to_everyone_but_its_sender(void **state)
{
	int a = plug_machine(1);

	plug_machine(2);
	plug_machine(3);
	send_from(a, all, 1, -1, 0x88b5, "x", 1);
	assert_int_equal(sinks[0].frames, 0);
	assert_int_equal(sinks[1].frames, 1);
	assert_int_equal(sinks[2].frames, 1);
}

static void
a_frame_for_an_unknown_machine_goes_to_the_uplink_only(void **state)
{
	struct sw_port_config up = { .host_side = true, .uplink = true, .any_source = true };
	int a = plug_machine(1);

	plug_machine(2);
	plug(&up);
	simple(a, 9, 1);
	assert_int_equal(sinks[1].frames, 0);
	assert_int_equal(sinks[2].frames, 1);
}

static void
a_machine_cannot_send_from_another_address(void **state)
{
	int a = plug_machine(1);

	plug_machine(2);
	simple(a, 2, 7);
	simple(a, 2, 2);
	assert_int_equal(sinks[1].frames, 0);
	assert_int_equal(sw_port_counters(core, a)->spoofed, 2);
}

static void
even_a_port_with_any_source_cannot_take_anothers_address(void **state)
{
	struct sw_port_config bridge = machine(1);
	int a, c;

	bridge.any_source = true;
	a = plug(&bridge);
	plug_machine(2);
	c = plug_machine(3);
	simple(a, 3, 2);
	assert_int_equal(sw_port_counters(core, a)->spoofed, 1);
	simple(c, 2, 3);
	assert_int_equal(sinks[1].frames, 1);
	assert_int_equal(sinks[0].frames, 0);
}

static void
addresses_behind_a_port_with_any_source_are_learned_and_bounded(void **state)
{
	struct sw_port_config bridge = machine(1);
	int a, b;

	bridge.any_source = true;
	a = plug(&bridge);
	b = plug_machine(2);
	for (int i = 0; i < 5000; i++) {
		uint8_t *f = buffer + SW_HEADROOM;

		memset(f, 0, 64);
		memcpy(f, (uint8_t[]){ 8, 0, 0x27, 0, 0, 2 }, 6);
		memcpy(f + 6, (uint8_t[]){ 2, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i }, 6);
		sw_input(core, a, f, 64, 0, 5);
	}
	assert_int_equal(sinks[1].frames, 5000);
	assert_int_equal(sw_port_addresses(core, a), SW_LEARN_MAX + 1);
	send_from(b, (uint8_t[]){ 2, 0, 0, 0, 0, 0 }, 2, -1, 0x88b5, NULL, 0);
	assert_int_equal(sinks[0].frames, 1);
	sw_port_remove(core, a);
	send_from(b, (uint8_t[]){ 2, 0, 0, 0, 0, 0 }, 2, -1, 0x88b5, NULL, 0);
	assert_int_equal(sinks[0].frames, 1);
}

static void
what_was_learned_is_forgotten_after_five_minutes(void **state)
{
	struct sw_port_config up = { .host_side = true, .any_source = true };
	int a = plug_machine(1), u = plug(&up);
	uint8_t *f = buffer + SW_HEADROOM;

	for (int i = 0; i < 2; i++) {
		memset(f, 0, 64);
		memcpy(f, (uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }, 6);
		f[6] = 2;
		sw_input(core, u, f, 64, 0, 1000);
	}
	assert_int_equal(sw_port_addresses(core, u), 1);
	memset(f, 0, 64);
	f[0] = 2;
	memcpy(f + 6, (uint8_t[]){ 8, 0, 0x27, 0, 0, 1 }, 6);
	sw_input(core, a, f, 64, 0, 1000 + 300001);
	assert_int_equal(sw_port_addresses(core, u), 0);
}

static void
an_access_port_takes_no_tags_and_sees_its_vlan_only(void **state)
{
	struct sw_port_config one = machine(1), two = machine(2), three = machine(3), trunk = machine(4);
	int a;

	one.trunk = two.trunk = three.trunk = false;
	one.vlan = two.vlan = 10;
	three.vlan = 20;
	a = plug(&one);
	plug(&two);
	plug(&three);
	plug(&trunk);
	send_from(a, all, 1, -1, 0x88b5, "v", 1);
	assert_int_equal(sinks[1].frames, 1);
	assert_int_equal(sinks[1].len, 15);
	assert_int_equal(sinks[2].frames, 0);
	assert_int_equal(sinks[3].frames, 1);
	assert_int_equal(sinks[3].len, 19);
	assert_memory_equal(sinks[3].last + 12, "\x81\x00\x00\x0a\x88\xb5v", 7);
	send_from(a, all, 1, 20, 0x88b5, "v", 1);
	assert_int_equal(sinks[2].frames, 0);
	assert_int_equal(sw_port_counters(core, a)->bad_vlan, 1);
	simple(a, 3, 1);
	assert_int_equal(sinks[2].frames, 0);
}

static void
a_trunk_reaches_each_vlan_with_its_tag(void **state)
{
	struct sw_port_config one = machine(1), trunk = machine(4);
	int t;

	one.trunk = false;
	one.vlan = 10;
	memset(trunk.allowed, 0, sizeof(trunk.allowed));
	sw_vlan_allow(&trunk, 10);
	plug(&one);
	t = plug(&trunk);
	send_from(t, all, 4, 10, 0x88b5, "v", 1);
	assert_int_equal(sinks[0].frames, 1);
	assert_int_equal(sinks[0].len, 15);
	send_from(t, all, 4, 11, 0x88b5, "v", 1);
	assert_int_equal(sw_port_counters(core, t)->bad_vlan, 1);
	send_from(t, all, 4, -1, 0x88b5, "v", 1);
	assert_int_equal(sinks[0].frames, 1);
}

static void
a_second_tag_does_not_lead_into_another_vlan(void **state)
{
	struct sw_port_config one = machine(1), two = machine(2), trunk = machine(4);
	int a;

	one.trunk = two.trunk = false;
	one.vlan = 10;
	trunk.vlan = 10; /* the trunk carries 10 without a tag */
	a = plug(&one);
	plug(&two);
	plug(&trunk);
	/* a priority tag, which an access port takes, and a tag of VLAN 20 behind it */
	send_from(a, all, 1, 0, 0x8100, "\x00\x14\x88\xb5", 4);
	assert_int_equal(sinks[2].frames, 0);
	assert_int_equal(sw_port_counters(core, a)->bad_vlan, 1);
}

static void
promiscuous_ports_see_what_their_policy_allows(void **state)
{
	struct sw_port_config vms = machine(3), everything = machine(4), host = { .host_side = true, .has_mac = true };
	int a = plug_machine(1), h;

	plug_machine(2);
	vms.promisc = SW_ALLOW_VMS;
	everything.promisc = SW_ALLOW_ALL;
	plug(&vms);
	plug(&everything);
	memcpy(host.mac, (uint8_t[]){ 8, 0, 0x27, 0, 0, 5 }, 6);
	h = plug(&host);
	simple(a, 2, 1);
	assert_int_equal(sinks[2].frames, 1);
	assert_int_equal(sinks[3].frames, 1);
	simple(a, 5, 1);
	assert_int_equal(sinks[2].frames, 1);
	assert_int_equal(sinks[3].frames, 2);
	simple(h, 1, 5);
	assert_int_equal(sinks[2].frames, 1);
	assert_int_equal(sinks[3].frames, 3);
}

static void
two_machines_with_one_address_both_get_its_frames(void **state)
{
	int a = plug_machine(1);

	plug_machine(2);
	plug_machine(2);
	simple(a, 2, 1);
	assert_int_equal(sinks[1].frames, 1);
	assert_int_equal(sinks[2].frames, 1);
}

static void
a_storm_is_cut_off_and_other_frames_are_not(void **state)
{
	struct sw_port_config noisy = machine(1);
	int a;

	noisy.storm = 10;
	a = plug(&noisy);
	plug_machine(2);
	for (int i = 0; i < 100; i++)
		send_from(a, all, 1, -1, 0x88b5, "x", 1);
	assert_int_equal(sinks[1].frames, 10);
	assert_int_equal(sw_port_counters(core, a)->storms, 90);
	simple(a, 2, 1);
	assert_int_equal(sinks[1].frames, 11);
}

static void
frames_that_are_too_short_or_long_or_from_a_group_are_dropped(void **state)
{
	int a = plug_machine(1);
	uint8_t *f = buffer + SW_HEADROOM;

	plug_machine(2);
	memset(f, 0, sizeof(buffer) - SW_HEADROOM);
	memcpy(f, (uint8_t[]){ 8, 0, 0x27, 0, 0, 2, 8, 0, 0x27, 0, 0, 1 }, 12);
	sw_input(core, a, f, 13, 0, 0);
	sw_input(core, a, f, SW_FRAME_MAX + 1, 0, 0);
	sw_input(core, a, f, 0, 0, 0);
	f[6] = 9;
	sw_input(core, a, f, 60, 0, 0);
	assert_int_equal(sinks[1].frames, 0);
	assert_int_equal(sw_port_counters(core, a)->malformed, 4);
}

static void
a_frame_that_finds_no_room_is_counted(void **state)
{
	int a = plug_machine(1), b = plug_machine(2);

	sinks[1].full = true;
	simple(a, 2, 1);
	assert_int_equal(sw_port_counters(core, b)->full, 1);
	assert_int_equal(sw_port_counters(core, b)->out_frames, 0);
}

static void
machines_cannot_serve_dhcp_advertise_routes_or_answer_for_the_gateway(void **state)
{
	uint32_t gateway = 0x0102000a; /* 10.0.2.1 */
	int a = plug_machine(1);
	uint8_t arp[28] = { 0, 1, 8, 0, 6, 4, 0, 2, 8, 0, 0x27, 0, 0, 1, 10, 0, 2, 1 };
	uint8_t dhcp[28] = { 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, [20] = 0, 67, 0, 68 };
	uint8_t ra[56] = { 0x60, [4] = 0, 16, 58, 255, [40] = 134 };
	uint8_t hidden[64] = { 0x60, [4] = 0, 24, 0, 255, [40] = 58, 0, [48] = 134 };
	uint8_t twice[72] = { 0x60, [4] = 0, 32, 60, 255, [40] = 44, 0, [48] = 58, [56] = 134 };

	plug_machine(2);
	sw_guard(core, true, &gateway, 1);
	send_from(a, all, 1, -1, 0x0806, arp, sizeof(arp));
	send_from(a, all, 1, -1, 0x0800, dhcp, sizeof(dhcp));
	send_from(a, all, 1, -1, 0x86dd, ra, sizeof(ra));
	send_from(a, all, 1, -1, 0x86dd, hidden, sizeof(hidden));
	send_from(a, all, 1, -1, 0x86dd, twice, sizeof(twice));
	send_from(a, all, 1, 0, 0x0800, dhcp, sizeof(dhcp));
	assert_int_equal(sinks[1].frames, 0);
	assert_int_equal(sw_port_counters(core, a)->guarded, 6);
	arp[17] = 9; /* its own */
	send_from(a, all, 1, -1, 0x0806, arp, sizeof(arp));
	dhcp[21] = 68, dhcp[23] = 67; /* a client */
	send_from(a, all, 1, -1, 0x0800, dhcp, sizeof(dhcp));
	ra[40] = 133; /* a solicitation */
	send_from(a, all, 1, -1, 0x86dd, ra, sizeof(ra));
	assert_int_equal(sinks[1].frames, 3);
	arp[13] = 7; /* speaks for another machine */
	send_from(a, all, 1, -1, 0x0806, arp, sizeof(arp));
	assert_int_equal(sinks[1].frames, 3);
}

static void
ports_come_and_go_without_a_trace(void **state)
{
	for (int round = 0; round < 1000; round++) {
		int a = plug_machine(1), b = plug_machine(2);

		simple(a, 2, 1);
		sw_port_remove(core, a);
		simple(b, 1, 2);
		sw_port_remove(core, b);
	}
	assert_int_equal(sinks[1].frames, 1000);
	assert_int_equal(sinks[0].frames, 0);
}

static void
what_had_no_room_may_come_again_and_counts_once(void **state)
{
	int a = plug_machine(1), b = plug_machine(2);
	uint8_t f[SW_HEADROOM + 60] = { 0 };

	memcpy(f + SW_HEADROOM, (uint8_t[]){ 8, 0, 0x27, 0, 0, 2, 8, 0, 0x27, 0, 0, 1, 0x88, 0xb5 }, 14);
	sinks[b].full = true;
	assert_int_equal(sw_try(core, a, f + SW_HEADROOM, 60, 0, 1000), b);
	assert_int_equal(sw_port_counters(core, a)->in_frames, 0);
	assert_int_equal(sw_port_counters(core, b)->full, 0);
	sinks[b].full = false;
	assert_int_equal(sw_try(core, a, f + SW_HEADROOM, 60, 0, 1000), -1);
	assert_int_equal(sinks[b].frames, 1);
	assert_int_equal(sw_port_counters(core, a)->in_frames, 1);
	memset(f + SW_HEADROOM, 0xff, 6); /* a group: the others have it already */
	sinks[b].full = true;
	assert_int_equal(sw_try(core, a, f + SW_HEADROOM, 60, 0, 1000), -1);
	assert_int_equal(sw_port_counters(core, b)->full, 1);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(a_frame_for_a_machine_goes_to_its_port_only),
		T(a_broadcast_goes_to_everyone_but_its_sender),
		T(a_frame_for_an_unknown_machine_goes_to_the_uplink_only),
		T(a_machine_cannot_send_from_another_address),
		T(even_a_port_with_any_source_cannot_take_anothers_address),
		T(addresses_behind_a_port_with_any_source_are_learned_and_bounded),
		T(what_was_learned_is_forgotten_after_five_minutes),
		T(an_access_port_takes_no_tags_and_sees_its_vlan_only),
		T(a_trunk_reaches_each_vlan_with_its_tag),
		T(a_second_tag_does_not_lead_into_another_vlan),
		T(promiscuous_ports_see_what_their_policy_allows),
		T(two_machines_with_one_address_both_get_its_frames),
		T(a_storm_is_cut_off_and_other_frames_are_not),
		T(frames_that_are_too_short_or_long_or_from_a_group_are_dropped),
		T(a_frame_that_finds_no_room_is_counted),
		T(what_had_no_room_may_come_again_and_counts_once),
		T(machines_cannot_serve_dhcp_advertise_routes_or_answer_for_the_gateway),
		T(ports_come_and_go_without_a_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
