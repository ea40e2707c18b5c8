/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a fuzz target's adapters send to: a back end that reads each frame's last byte, so that the sanitizer looks at
 * its length, and takes large TCP frames when `large_ok` says so.
 */
#ifndef FUZZ_SINK_H
#define FUZZ_SINK_H

#include "net/net.h"

static bool large_ok;

static void
sink_send(void *backend, const uint8_t *frame, size_t len)
{
	volatile uint8_t last = frame[len - 1];

	(void)last;
}

static void
sink_close(void *backend)
{
}

static bool
sink_takes_large(void *backend)
{
	return large_ok;
}

/* What a switch relies on. */
static void
sink_send_large(void *backend, const uint8_t *frame, size_t len, unsigned mss)
{
	struct net_tcp t;

	if (!net_large_find(frame, len, mss, &t))
		__builtin_trap();
	sink_send(backend, frame, len);
}

static struct net_backend_class sink = { .name = "sink",
	.send = sink_send,
	.close = sink_close,
	.takes_large = sink_takes_large,
	.send_large = sink_send_large };

#endif
