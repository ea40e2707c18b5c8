/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in and out. A network adapter (device) and what it is plugged into (backend) are the two ends of a link:
 *
 *	adapter --net_send()--> backend          backend --net_deliver()--> adapter
 *
 * Frames are Ethernet without FCS, 14 to NET_FRAME_MAX bytes. A *large* frame is TCP that stands for several segments
 * of `mss` bytes of payload (the last may be shorter): its headers are those of the whole, its TCP checksum means
 * nothing. It goes from adapters that leave segmentation to us to those that take joined segments, and is cut up
 * (net_cut_tcp()) where one does not. Everything runs under the machine lock on whichever thread calls. The tap (`nictrace`) sees both directions. A cable can be unplugged: frames are then dropped and the
 * adapter is told.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

#define NET_FRAME_MAX 65550 /* 64 KiB of payload and a header, for segmentation offload later */

#define NET_FRAME_WIRE 1518 /* the longest on a wire: an MTU of 1500, and a VLAN tag */
#define NET_MSS4 1460
#define NET_MSS6 1440
/* A large frame's payload is cut at no less: a guest does not make a thousand frames of each of its own. */
#define NET_MSS_MIN 64

struct pcap;

/* The adapter's side. */
struct net_adapter {
	void *opaque;
	/* A frame from the network. False: no room now; the link keeps it and retries after net_adapter_ready(). */
	bool (*receive)(void *opaque, const uint8_t *frame, size_t len);
	void (*link_changed)(void *opaque, bool up);
	/* The network has room again after net_can_send() said no. May be NULL: then frames beyond its room are
	 * dropped. */
	void (*send_ready)(void *opaque);
	/* Does it take large frames? May be NULL: no. Then receive_large() is as receive(). */
	bool (*takes_large)(void *opaque);
	bool (*receive_large)(void *opaque, const uint8_t *frame, size_t len, unsigned mss);
	/* The link has another MAC address than the adapter was saved with. May be NULL. */
	void (*address_changed)(void *opaque);
};

/* The network's side: nat, ... Each kind is one constant. */
struct net_backend_class {
	const char *name;
	void (*send)(void *backend, const uint8_t *frame, size_t len);
	void (*ready)(void *backend);	  /* the adapter has room again; may be NULL */
	void (*burst_end)(void *backend); /* see net_burst(); may be NULL */
	/* Is there room for a frame, also one that is cut up first? If not, net_send_ready() follows. May be NULL:
	 * always.
	 */
	bool (*room)(void *backend);
	void (*close)(void *backend);
	/* TCP frames longer than the network's MTU may be sent as they are: the far end is a TCP/IP stack, not a wire.
	 */
	bool takes_tso;
	/* Does the far end take large frames now? May be NULL: no. */
	bool (*takes_large)(void *backend);
	void (*send_large)(void *backend, const uint8_t *frame, size_t len, unsigned mss);
};

struct net_stats {
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, dropped;
};

struct net_link {
	const struct net_backend_class *class; /* NULL: nothing plugged in */
	void *backend;
	struct net_adapter adapter;
	struct pcap *trace;
	bool cable;	/* plugged in */
	uint32_t speed; /* kbit/s that the adapter reports, 0: its own usual one */
	uint8_t mac[6];
	struct net_stats stats;
	struct net_queue *queue; /* frames the adapter had no room for; bounded, then dropped */
	struct net_limit *limit; /* NULL: none */
	struct net_queue *held;	 /* frames that wait for the limit; bounded, then dropped */
	struct net_link *limit_next;
	bool send_waits; /* net_can_send() has said no */
	bool in_burst;
};

void net_link_init(struct net_link *l, const uint8_t mac[6]);
void net_link_close(struct net_link *l);				/* closes the backend and the trace */
void net_send(struct net_link *l, const uint8_t *frame, size_t len);	/* adapter calls */
void net_deliver(struct net_link *l, const uint8_t *frame, size_t len); /* backend calls */
void net_adapter_ready(struct net_link *l);				/* adapter calls */
/* Large frames: the adapter asks before it sends one, and the backend before it delivers one. */
bool net_takes_large(const struct net_link *l);
bool net_adapter_takes_large(const struct net_link *l);
void net_send_large(struct net_link *l, const uint8_t *frame, size_t len, unsigned mss);
void net_deliver_large(struct net_link *l, const uint8_t *frame, size_t len, unsigned mss);
void net_set_cable(struct net_link *l, bool plugged);
/*
 * Frames sent between these two calls may be acted on at the second, together: what a network does once for a burst
 * instead of for a frame (waking a switch, asking libslirp what it wants). Do not nest.
 */
void net_burst(struct net_link *l);
void net_burst_end(struct net_link *l);
/* Adapters that can wait ask before they send; false: send_ready() follows. */
bool net_can_send(struct net_link *l);
void net_send_ready(struct net_link *l); /* backend calls */
/* Frames wait for the adapter: do not deliver more than cannot wait elsewhere. */
bool net_link_waiting(const struct net_link *l);
/*
 * For a backend whose frames are the datagrams of a socket, when `fd` is readable: deliver some, until there are no more
 * or frames wait for the adapter. `watch`, the socket's, then waits for nothing: ready() sets it to LOOP_IN again.
 * `frame` has NET_FRAME_MAX bytes; the backend still has to be there when this returns.
 */
void net_receive(struct net_link *l, int fd, struct loop_watch *watch, uint8_t *frame);
/* Take out what is plugged in, if anything; something else may be plugged in then. */
void net_unplug(struct net_link *l);
static inline bool
net_link_up(const struct net_link *l)
{
	return l->cable && l->class;
}

/* ---- NAT through libslirp: VirtualBox's layout for adapter n (0-based): network 10.0.(2+n).0/24, gateway .2, DNS .3,
 * TFTP .4, first lease .15 ---- */

struct nat_rule {
	char name[64]; /* may be empty for lodge boot */
	bool udp;
	char host_ip[46]; /* "" = all addresses (0.0.0.0, or :: where guest_ip is of IPv6) */
	uint16_t host_port;
	char guest_ip[46]; /* "" = the first lease; there is none of IPv6 */
	uint16_t guest_port;
};
#define NAT_RULES_MAX 64

struct nat_options {
	int adapter;		  /* 0-based, picks the network */
	const char *network;	  /* "192.168.1.0/24" instead, or NULL */
	const char *hostname;	  /* given by DHCP; may be NULL */
	const char *tftp_root;	  /* may be NULL */
	const char *bootfile;	  /* may be NULL */
	bool localhost_reachable; /* guest may reach services on the host's loopback through .2 */
	bool ipv6;		  /* besides IPv4: ::2 is the host, ::3 DNS */
	const uint8_t *prefix6;	  /* the first 8 bytes of its addresses; NULL: fd17:625c:f037:<2+adapter>::/64 */
	bool no_dhcp;		  /* somebody else gives out addresses */
	bool isolated;		  /* DHCP, TFTP and the rules work; nothing else leaves */
	uint32_t router, dns;	  /* other hosts of the network than .2 and .3 (host order); 0: those */
	struct nat_rule rules[NAT_RULES_MAX];
	int rule_count;
};
/* Plug `l` into a new NAT. A port that is taken is an error that names it. */
int nat_open(struct net_link *l, struct loop *loop, const struct nat_options *o, struct err *e);
/* On a running machine. */
int nat_rule_add(struct net_link *l, const struct nat_rule *r, struct err *e);
int nat_rule_remove(struct net_link *l, const char *name, struct err *e);
/* "name,tcp|udp,hostip,hostport,guestip,guestport" as VBoxManage --natpf has it. */
int nat_rule_parse(const char *text, struct nat_rule *out, struct err *e);
/* The same with IPv6 addresses; guestip has to be there. */
int nat_rule_parse6(const char *text, struct nat_rule *out, struct err *e);
bool nat_rule_is6(const struct nat_rule *r);

/* ---- A port of a network that several machines share (switch/protocol.h) ---- */

struct plug_options {
	const char *dir; /* of the network */
	const char *port, *token;
};
/*
 * Plug `l` into the switch. When it does not run just now, frames are dropped until it does; its first refusal is an
 * error, later ones are logged. The switch is looked for again and again, also from within a sandbox.
 */
int plug_open(struct net_link *l, struct loop *loop, const struct plug_options *o, struct err *e);

/* ---- A tunnel: each frame is a UDP datagram (VirtualBox's generic driver UDPTunnel) ---- */

struct tunnel_options {
	uint16_t local_port, remote_port;
	const char *local_ip; /* "" or NULL: all addresses */
	const char *remote;   /* address of the other end */
};
int tunnel_open(struct net_link *l, struct loop *loop, const struct tunnel_options *o, struct err *e);

/* ---- A port of a VDE switch, found by the directory of its sockets (VirtualBox's generic driver VDE) ---- */
#define VDE_DEFAULT "/var/run/vde.ctl"
int vde_open(struct net_link *l, struct loop *loop, const char *path, struct err *e);

/* ---- A network that is not there: link up, frames go nowhere ---- */
void null_open(struct net_link *l);

/* ---- Bandwidth: links that share a limit send so many bytes a second together, and no more ---- */

struct net_limit;
struct net_limit *net_limit_open(struct loop *loop, uint64_t bytes_per_second);
void net_limit_close(struct net_limit *m);			    /* no link may use it any more */
void net_limit_set(struct net_limit *m, uint64_t bytes_per_second); /* 0: none */
void net_link_limit(struct net_link *l, struct net_limit *m);	    /* NULL: none */

/* ---- Checksums and segmentation, for adapters that offer them to their guest (RFC 1071, RFC 9293) ---- */

/* Add `len` bytes to the one's complement sum `sum` (0 to begin). Pieces but the last must be of even length. */
uint64_t net_sum(uint64_t sum, const void *data, size_t len);
/* The 16 bits to store (in memory order, use memcpy) for a sum; the complement. */
uint16_t net_sum_fold(uint64_t sum);

/* What was found about a frame's checksums. NET_CSUM_IP: it has an IPv4 header; NET_CSUM_L4: it has a TCP or UDP
 * checksum, and is not a fragment; the _BAD bits: that checksum is wrong. */
enum { NET_CSUM_IP = 1, NET_CSUM_IP_BAD = 2, NET_CSUM_L4 = 4, NET_CSUM_L4_BAD = 8 };
int net_checksum_verify(const uint8_t *frame, size_t len);

/*
 * Cut a TCP frame (IPv4 or IPv6 at offset `l3`, TCP at `l4`, payload at `payload`) into frames of at most `mss` bytes
 * of payload, with lengths, IPv4 identifications, sequence numbers, flags and checksums put right, and net_send() each.
 * `scratch` is the caller's, of at least payload + mss bytes. The caller has checked l3 < l4 < payload <= len, that the
 * headers lie within these bounds (40 and 20 bytes), and mss > 0. With mss >= len - payload, one frame is sent.
 */
void net_send_tso(struct net_link *l, const uint8_t *frame, size_t len, unsigned l3, unsigned l4, unsigned payload,
	unsigned mss, uint8_t *scratch);

/* Where the headers of a TCP frame are; mss is left alone. False: it is none, or its headers are not all there. */
struct net_tcp {
	unsigned l3, l4, payload, mss;
};
bool net_tcp_find(const uint8_t *frame, size_t len, struct net_tcp *t);
/* What a large frame has to be: TCP whose lengths are true, with something to send in segments of `mss` bytes. */
bool net_large_find(const uint8_t *frame, size_t len, unsigned mss, struct net_tcp *t);
/* The complete TCP checksum into a frame whose own means nothing. */
void net_tcp_finish(uint8_t *frame, size_t len, const struct net_tcp *t);
/* Cut as net_send_tso() does, each segment to `emit`. The bounds are those of net_send_tso(). */
void net_cut_tcp(const uint8_t *frame, size_t len, const struct net_tcp *t, uint8_t *scratch,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);
/* The sum of a TCP packet's pseudo header, to go uncomplemented into its checksum field (virtio 1.1, 5.1.6.4.1). */
uint16_t net_tcp_pseudo(const uint8_t *frame, size_t len, const struct net_tcp *t);
/* Cut an IPv4 frame into fragments for an MTU of 1500 (RFC 791, section 3.2); other frames go to `emit` as they are.
 * `scratch` has NET_FRAME_WIRE bytes. */
void net_cut_ipv4(const uint8_t *frame, size_t len, uint8_t *scratch,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);

/* ---- pcap (libpcap file format 2.4, nanoseconds magic no: microseconds, linktype 1) ---- */
struct pcap *pcap_open(const char *path, struct err *e);
/* Into a file that is open already; takes `fd` over, also when it fails. `name` is for messages. */
struct pcap *pcap_open_fd(int fd, const char *name, struct err *e);
void pcap_frame(struct pcap *p, const uint8_t *frame, size_t len);
void pcap_close(struct pcap *p);

#endif
