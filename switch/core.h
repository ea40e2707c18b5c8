/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch itself: frames in at one port, out at others. No descriptors, no clock, no memory allocation per frame: it
 * is a function of what is put in, so it is tested and fuzzed by itself.
 *
 * Every port belongs to the host's side (uplink, TAP, the switch's own station) or is a machine's. A machine's port has
 * the address it was given. What a port may do, all decided here:
 *
 *	source address	its own, unless `any_source`; another port's own address never (spoofing)
 *	VLANs		access: untagged frames only, they belong to `vlan`; trunk: tagged ones of the VLANs in
 *			`allowed` as well. Frames of a VLAN reach its ports only. 0 is the network without a tag
 *	receiving	its own address, groups, and what `promisc` lets it see besides
 *	serving		answers of DHCP servers and routers' advertisements, and ARP in the name of a protected address,
 *			come from ports with `may_serve` only, when the switch is told to guard them
 *	storms		at most `storm` group-addressed frames a second
 *
 * IEEE 802.1Q-2018 for tags and learning. Who is behind a port with `any_source` is learned, at most SW_LEARN_MAX
 * addresses a port, and forgotten after 300 s.
 */
#ifndef SWITCH_CORE_H
#define SWITCH_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SW_PORTS_MAX 512
#define SW_FRAME_MAX 16384 /* longest frame that is forwarded */
#define SW_LARGE_MAX 65550 /* the same of a large frame (net/net.h) */
#define SW_HEADROOM 4	   /* writable bytes before and */
#define SW_TAILROOM 0	   /* behind a frame given to sw_input() */
#define SW_LEARN_MAX 128
#define SW_PROTECTED_MAX 4

enum sw_promisc { SW_DENY, SW_ALLOW_VMS, SW_ALLOW_ALL };

struct sw_port_config {
	uint8_t mac[6];
	bool has_mac;
	bool host_side;	 /* not a machine */
	bool uplink;	 /* what nobody is known to want goes there too */
	bool any_source; /* other addresses than `mac` may be behind it */
	bool may_serve;
	enum sw_promisc promisc;
	bool trunk;
	uint16_t vlan;	      /* of untagged frames */
	uint8_t allowed[512]; /* a bit a VLAN: those a trunk carries with a tag */
	uint32_t storm;	      /* 0: no limit */
};

/* What happened at a port; X(name, text). In: from the port into the switch. */
#define SW_COUNTERS(X)                                                                                                 \
	X(in_frames, "frames in")                                                                                      \
	X(in_bytes, "bytes in")                                                                                        \
	X(out_frames, "frames out")                                                                                    \
	X(out_bytes, "bytes out")                                                                                      \
	X(malformed, "shorter or longer than a frame, or from a group address")                                        \
	X(spoofed, "from an address that is not the port's")                                                           \
	X(bad_vlan, "of a VLAN that the port is not in")                                                               \
	X(guarded, "pretended to be a server or a router")                                                             \
	X(storms, "over the limit of group-addressed frames")                                                          \
	X(full, "not delivered, the receiver did not keep up")
struct sw_counters {
#define SW_COUNTER(name, text) uint64_t name;
	SW_COUNTERS(SW_COUNTER)
#undef SW_COUNTER
};

struct sw_core;

/*
 * Deliver to whoever is behind the port. False: no room. The frame is valid during the call. `mss` is not 0: it is a
 * large one (net/net.h), and may be 4 bytes longer than SW_LARGE_MAX by its tag.
 */
typedef bool sw_deliver_fn(void *opaque, const uint8_t *frame, size_t len, unsigned mss);

struct sw_core *sw_open(void);
void sw_close(struct sw_core *c);

/* A new port's number, or -1 when there are too many. */
int sw_port_add(struct sw_core *c, const struct sw_port_config *config, sw_deliver_fn *deliver, void *opaque);
void sw_port_remove(struct sw_core *c, int port);
/* Other rules for a port that stays plugged in; what was learned behind it is forgotten. */
void sw_port_change(struct sw_core *c, int port, const struct sw_port_config *config);
const struct sw_port_config *sw_port_config(const struct sw_core *c, int port);
const struct sw_counters *sw_port_counters(const struct sw_core *c, int port);
/* How many addresses are known behind the port, its own among them. */
unsigned sw_port_addresses(const struct sw_core *c, int port);

/* Do machines have to be kept from serving DHCP and routes, and from answering ARP for these addresses (network order)?
 */
void sw_guard(struct sw_core *c, bool on, const uint32_t *protected, int count);

/* Every frame that passes the checks is shown to `fn`, without its tag; NULL: to nobody. */
void sw_trace(struct sw_core *c, void (*fn)(void *opaque, const uint8_t *frame, size_t len), void *opaque);

/*
 * A frame comes in at `port`. It lies in a buffer of the caller with SW_HEADROOM bytes before it, and is written to.
 * `now_ms` is any clock that does not go back.
 */
void sw_input(struct sw_core *c, int port, uint8_t *frame, size_t len, unsigned mss, uint64_t now_ms);
/*
 * The same, but when the frame was for one port only and that had no room, the port's number comes back and nothing
 * has been counted: the frame, of which this copy is spoilt, can come again, here or to sw_input(). Otherwise -1.
 */
int sw_try(struct sw_core *c, int port, uint8_t *frame, size_t len, unsigned mss, uint64_t now_ms);

static inline void
sw_vlan_allow(struct sw_port_config *p, unsigned vlan)
{
	p->allowed[vlan >> 3 & 511] |= (uint8_t)(1u << (vlan & 7));
}

#endif
