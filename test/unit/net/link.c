/* SPDX-License-Identifier: Apache-2.0 */
/* Links, their queue, packet traces, checksums and segmentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/str.h"
#include "net/net.h"

static const uint8_t mac[6] = { 0x08, 0, 0x27, 1, 2, 3 };

/* An adapter that takes `room` frames and remembers their first payload byte; a backend that keeps what is sent. */
struct ends {
	struct net_link link;
	int room, received, changes;
	uint8_t seen[4096];
	size_t last_len;
	uint8_t sent[80][2000];
	size_t sent_len[80];
	int sent_count;
	bool up;
};

static bool
adapter_receive(void *opaque, const uint8_t *frame, size_t len)
{
	struct ends *t = opaque;

	if (!t->room)
		return false;
	t->room--;
	t->seen[t->received++ % 4096] = frame[14];
	t->last_len = len;
	return true;
}

static void
adapter_link(void *opaque, bool up)
{
	struct ends *t = opaque;

	t->changes++;
	t->up = up;
}

static void
backend_send(void *backend, const uint8_t *frame, size_t len)
{
	struct ends *t = backend;

	assert_true(len <= sizeof(t->sent[0]) && t->sent_count < 80);
	memcpy(t->sent[t->sent_count], frame, len);
	t->sent_len[t->sent_count++] = len;
}

static void
backend_close(void *backend)
{
}

static const struct net_backend_class backend_class = { .name = "test", .send = backend_send, .close = backend_close };

static struct ends *
ends_open(void)
{
	struct ends *t = xcalloc(1, sizeof(*t));

	net_link_init(&t->link, mac);
	t->link.class = &backend_class;
	t->link.backend = t;
	t->link.adapter = (struct net_adapter){ .opaque = t, .receive = adapter_receive, .link_changed = adapter_link };
	return t;
}

static void
ends_close(struct ends *t)
{
	net_link_close(&t->link);
	free(t);
}

static void
frames_without_room_wait_in_order(void **state)
{
	struct ends *t = ends_open();
	uint8_t frame[1000] = { 0 };

	for (int i = 0; i < 100; i++) {
		frame[14] = (uint8_t)i;
		net_deliver(&t->link, frame, 60 + (size_t)i);
	}
	assert_int_equal(t->received, 0);
	for (int i = 0; i < 100; i++) {
		t->room = 1;
		net_adapter_ready(&t->link);
		assert_int_equal(t->received, i + 1);
		assert_int_equal(t->seen[i], i);
		assert_int_equal(t->last_len, 60 + i);
	}
	t->room = 1;
	frame[14] = 200;
	net_deliver(&t->link, frame, 60);
	assert_int_equal(t->seen[100], 200);
	assert_int_equal(t->link.stats.rx_frames, 101);
	ends_close(t);
}

static void
a_full_queue_drops_and_wraps_without_loss_of_order(void **state)
{
	struct ends *t = ends_open();
	uint8_t frame[1500] = { 0 };
	uint8_t next_in = 0, next_out = 0;

	/* different sizes, a little more in than out, until it overflows; then the survivors come out in order */
	srand(1);
	while (!t->link.stats.dropped) {
		frame[14] = next_in++;
		net_deliver(&t->link, frame, 60 + (size_t)rand() % 1400);
		if (rand() % 3) {
			t->room = 1;
			net_adapter_ready(&t->link);
		}
	}
	t->room = 1 << 20;
	net_adapter_ready(&t->link);
	t->room = 0;
	assert_true(t->received > 400);
	for (int i = 0; i < t->received && t->received < 4096; i++)
		assert_int_equal(t->seen[i], next_out++);
	assert_int_equal((uint8_t)(next_in - 1), next_out);
	ends_close(t);
}

static void
an_unplugged_cable_drops_both_ways_and_tells_the_adapter(void **state)
{
	struct ends *t = ends_open();
	uint8_t frame[60] = { 0 };

	t->room = 10;
	net_set_cable(&t->link, false);
	assert_int_equal(t->changes, 1);
	assert_false(t->up);
	net_send(&t->link, frame, 60);
	net_deliver(&t->link, frame, 60);
	assert_int_equal(t->sent_count + t->received, 0);
	assert_int_equal(t->link.stats.dropped, 2);
	net_set_cable(&t->link, true);
	assert_true(t->up);
	net_send(&t->link, frame, 60);
	net_deliver(&t->link, frame, 60);
	assert_int_equal(t->sent_count, 1);
	assert_int_equal(t->received, 1);
	ends_close(t);
}

static void
a_trace_is_a_pcap_file_with_both_directions(void **state)
{
	struct ends *t = ends_open();
	char path[] = "/tmp/lodge-pcap-XXXXXX";
	uint8_t frame[60] = { 1, 2, 3 }, *file;
	struct err e;
	size_t len;

	close(mkstemp(path));
	t->room = 1;
	t->link.trace = pcap_open(path, &e);
	assert_non_null(t->link.trace);
	net_send(&t->link, frame, 60);
	net_deliver(&t->link, frame, 50);
	ends_close(t);
	file = file_read(path, 4096, &len, &e);
	assert_non_null(file);
	assert_int_equal(len, 24 + 16 + 60 + 16 + 50);
	assert_int_equal(le32(file), 0xa1b2c3d4);
	assert_int_equal(le16(file + 4), 2);
	assert_int_equal(le16(file + 6), 4);
	assert_int_equal(le32(file + 20), 1);
	assert_int_equal(le32(file + 24 + 8), 60);
	assert_memory_equal(file + 40, frame, 60);
	assert_int_equal(le32(file + 100 + 12), 50);
	free(file);
	unlink(path);
}

static void
a_full_disk_ends_the_trace_and_nothing_else(void **state)
{
	struct err e;
	uint8_t frame[60] = { 0 };

	assert_null(pcap_open("/dev/full", &e));
	assert_non_null(strstr(e.text, "/dev/full"));
	pcap_frame(NULL, frame, 60);
	assert_null(pcap_open("/nonexistent/x.pcap", &e));
}

/* ---- checksums ---- */

static uint16_t
slow_sum(const uint8_t *p, size_t n)
{
	uint32_t s = 0;

	for (size_t i = 0; i < n; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return htons((uint16_t)~s);
}

static void
sums_match_the_definition_at_every_length_and_alignment(void **state)
{
	uint8_t buf[300];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 37 + 11);
	for (size_t at = 0; at < 9; at++)
		for (size_t n = 0; n < 280; n++)
			assert_int_equal(net_sum_fold(net_sum(0, buf + at, n)), slow_sum(buf + at, n));
}

/* Ethernet + IPv4 + TCP + n bytes of payload, checksums left as they are. */
static size_t
make_tcp(uint8_t *f, size_t n)
{
	memset(f, 0, 54);
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((40 + n) >> 8);
	f[17] = (uint8_t)(40 + n);
	f[19] = 7; /* identification */
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
	f[34] = 1;
	f[36] = 2;
	memcpy(f + 38, "\xff\xff\xff\x00", 4); /* sequence: wraps in the test */
	f[46] = 0x50;
	f[47] = 0x80 | 0x10 | 8 | 1; /* CWR ACK PSH FIN */
	for (size_t i = 0; i < n; i++)
		f[54 + i] = (uint8_t)(i >> 3);
	return 54 + n;
}

static void
a_segmented_frame_arrives_whole_with_valid_checksums(void **state)
{
	struct ends *t = ends_open();
	static uint8_t frame[60000], scratch[2000], whole[60000];
	size_t len = make_tcp(frame, 50001), got = 0;

	net_send_tso(&t->link, frame, len, 14, 34, 54, 1460, scratch);
	assert_int_equal(t->sent_count, (50001 + 1459) / 1460);
	for (int i = 0; i < t->sent_count; i++) {
		uint8_t *s = t->sent[i];
		bool last = i == t->sent_count - 1;
		uint32_t seq;

		assert_int_equal(net_checksum_verify(s, t->sent_len[i]), NET_CSUM_IP | NET_CSUM_L4);
		assert_int_equal(s[18] << 8 | s[19], 7 + i);
		assert_int_equal(s[16] << 8 | s[17], t->sent_len[i] - 14);
		memcpy(&seq, s + 38, 4);
		assert_int_equal(ntohl(seq), (uint32_t)(0xffffff00u + got));
		assert_int_equal(s[47], 0x10 | (last ? 9 : 0) | (i ? 0 : 0x80));
		memcpy(whole + got, s + 54, t->sent_len[i] - 54);
		got += t->sent_len[i] - 54;
	}
	assert_int_equal(got, 50001);
	assert_memory_equal(whole, frame + 54, got);
	t->sent[0][60] ^= 1;
	assert_int_equal(net_checksum_verify(t->sent[0], t->sent_len[0]), NET_CSUM_IP | NET_CSUM_L4 | NET_CSUM_L4_BAD);
	t->sent[1][16] ^= 1;
	assert_int_not_equal(net_checksum_verify(t->sent[1], t->sent_len[1]), NET_CSUM_IP | NET_CSUM_L4);
	t->sent[2][22] ^= 1;
	assert_int_equal(net_checksum_verify(t->sent[2], t->sent_len[2]), NET_CSUM_IP | NET_CSUM_IP_BAD);
	ends_close(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_without_room_wait_in_order),
		cmocka_unit_test(a_full_queue_drops_and_wraps_without_loss_of_order),
		cmocka_unit_test(an_unplugged_cable_drops_both_ways_and_tells_the_adapter),
		cmocka_unit_test(a_trace_is_a_pcap_file_with_both_directions),
		cmocka_unit_test(a_full_disk_ends_the_trace_and_nothing_else),
		cmocka_unit_test(sums_match_the_definition_at_every_length_and_alignment),
		cmocka_unit_test(a_segmented_frame_arrives_whole_with_valid_checksums),
	};

	return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
