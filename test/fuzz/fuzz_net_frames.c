/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: frames, as a hostile guest sends them, into the NAT, the checksum verifier and the segmenter. The NAT is
 * an isolated one, so that nothing leaves the host. tools/run-fuzz builds and runs it.
 */
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "net/net.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;
static struct net_link nat, wire;
static unsigned room;
static uint8_t scratch[70000];

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	net_checksum_verify(frame, len);
	return room++ % 3 != 0;
}

static void
sink_send(void *backend, const uint8_t *frame, size_t len)
{
	net_checksum_verify(frame, len);
}

static void
sink_close(void *backend)
{
}

static const struct net_backend_class sink = { .name = "sink", .send = sink_send, .close = sink_close };

static bool
takes_large(void *opaque)
{
	return true;
}

static void
emit(void *opaque, const uint8_t *frame, size_t len)
{
	if (len > NET_FRAME_WIRE + 120)
		__builtin_trap();
}

/* What a NAT does with frames above the MTU. */
static void
cut(const uint8_t *frame, size_t len)
{
	struct net_tcp t;

	if (len > NET_FRAME_WIRE && !net_tcp_find(frame, len, &t) && len >= 34 && frame[12] == 8 && !frame[13] &&
		14u + (frame[16] << 8 | frame[17]) <= len && (frame[14] & 15) >= 5 &&
		(frame[16] << 8 | frame[17]) >= (frame[14] & 15) * 4)
		net_cut_ipv4(frame, len, scratch, emit, NULL);
	if (!net_tcp_find(frame, len, &t))
		return;
	t.mss = NET_MSS4;
	net_cut_tcp(frame, len, &t, scratch, emit, NULL);
	net_tcp_pseudo(frame, len, &t);
}

static void
make_links(void)
{
	static const uint8_t mac[6] = { 8, 0, 0x27, 1, 2, 3 };
	struct nat_options o = { .isolated = true, .ipv6 = true, .hostname = "fuzz", .tftp_root = "/nonexistent" };

	log_set_level(LOG_ERROR);
	loop = loop_open(&lock);
	net_link_init(&nat, mac);
	nat.adapter.receive = receive;
	nat.adapter.takes_large = takes_large;
	net_link_init(&wire, mac);
	wire.class = &sink;
	if (nat_open(&nat, loop, &o, NULL))
		__builtin_trap();
}

/* As the adapters do it: they check the headers' places, and nothing else. */
static void
segment(const uint8_t *frame, size_t len)
{
	unsigned l4 = frame[0], payload = frame[1], mss = 64 + (unsigned)(frame[2] << 8 | frame[3]);

	if (l4 < 14 + 40 || payload < l4 + 20 || payload > len || payload + mss > sizeof(scratch))
		return;
	net_send_tso(&wire, frame, len, 14, l4, payload, mss, scratch);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!loop)
		make_links();
	while (size > 3) {
		size_t len = MIN((size_t)(data[0] | data[1] << 8), size - 3);
		uint8_t kind = data[2];
		uint8_t *frame = malloc(len + 14);

		memcpy(frame, data + 3, len);
		memset(frame + len, 0, 14);
		/* most inputs should get past Ethernet */
		if (len >= 14 && kind & 3) {
			memcpy(frame, "\x52\x55\x0a\x00\x02\x02\x08\x00\x27\x01\x02\x03", 12);
			frame[12] = (kind & 3) == 3 ? 0x86 : 8;
			frame[13] = (kind & 3) == 3 ? 0xdd : (kind & 3) == 2 ? 6 : 0;
		}
		net_checksum_verify(frame, len);
		if (kind & 4)
			segment(frame, len + 14);
		else if (kind & 8)
			cut(frame, len);
		else
			net_send(&nat, frame, len);
		net_adapter_ready(&nat);
		free(frame);
		data += 3 + len;
		size -= 3 + len;
	}
	return 0;
}
