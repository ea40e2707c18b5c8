/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of switch/ share: one network with its ports, its station and its uplink. Everything runs on one
 * thread, the loop's.
 *
 * A frame that comes in while another is being forwarded (libslirp and the station answer at once) waits in `later`
 * until that one is done, so that the switch never stands in the middle of itself.
 */
#ifndef SWITCH_PRIVATE_H
#define SWITCH_PRIVATE_H

#include <jansson.h>
#include <netinet/in.h>

#include "base/loop.h"
#include "base/str.h"
#include "net/net.h"
#include "net/ring.h"
#include "switch/core.h"
#include "switch/dhcp.h"
#include "switch/dns.h"
#include "switch/protocol.h"

#define FORWARDS_MAX 128
#define HOSTS_MAX 1024
#define LATER_BYTES (1u << 20)
#define EXPECT_S 30 /* somebody is about to plug in */

enum net_kind { KIND_INTNET, KIND_NATNETWORK, KIND_HOSTONLY, KIND_HOSTONLYNET, KIND_BRIDGED };
enum uplink_kind { UPLINK_NONE, UPLINK_NAT, UPLINK_HOST, UPLINK_BRIDGE };

struct net_config {
	char name[256], domain[64], interface[16];
	enum net_kind kind;
	enum uplink_kind uplink;
	uint32_t network, netmask, gateway; /* host order; 0: none */
	unsigned prefix;
	bool ipv6, default6;
	bool host_dhcp; /* the gateway is what our DHCP server gives to `mac` */
	struct in6_addr prefix6;
	unsigned prefix6_len;
	char address6[64]; /* "fd00::1/64" of the TAP, or "" */
	uint8_t mac[6];	   /* of the TAP */
	struct nat_rule forwards[FORWARDS_MAX];
	int forward_count;
	bool localhost_reachable, localhost_reachable6, guard, dhcp_enabled;
	char tftp[4096], bootfile[128];
	int linger;
	struct dhcp_config dhcp;
};

/* What an adapter may do, as host/ has written it down. */
struct port_file {
	char token[64], machine[256];
	int slot;
	struct sw_port_config c;
	uint64_t rate;
};

int config_read(const char *dir, struct net_config *c, struct err *e);
void config_free(struct net_config *c);
/* `id`: letters, digits and "-._" only, or it is refused. */
int port_file_read(const char *dir, const char *id, struct port_file *p, struct err *e);
/* "all", "none" or "10,20-30" */
bool trunk_parse(const char *text, struct sw_port_config *c);
bool parse_ipv4(const char *text, uint32_t *out);
bool parse_mac(const char *text, uint8_t mac[6]);

/* ---- ports ---- */

struct network;

struct port {
	struct network *n;
	int sock;
	struct loop_watch *sock_watch, *bell_watch;
	struct loop_timer timer; /* hello is late; or, plugged in: there are tokens again, or it has waited enough */
	char id[64];
	struct port_file file;
	struct wire wire; /* .shared NULL: has not said hello */
	int number;	  /* in the core, -1 */
	int64_t tokens;
	uint64_t tokens_at;
	bool dirty;
	struct port *waits;   /* for room there: this one is not read meanwhile */
	uint64_t hurry_until; /* nobody waits for this one */
	struct port *next, *next_dirty;
};

/* Who has which address: seen in ARP. */
struct host {
	uint32_t ip;
	uint8_t mac[6];
	uint64_t seen;
};

struct host6 {
	uint8_t ip[16], mac[6];
	uint64_t seen;
};

struct station;
struct uplink;
struct control;

struct network {
	const char *dir;
	struct net_config c;
	struct loop *loop;
	pthread_mutex_t lock; /* the loop's; there is one thread */
	struct sw_core *core;
	int dir_fd, listen_fd;
	struct loop_watch *listen_watch;
	struct port *ports, *dirty;
	unsigned port_count;
	uint8_t *frame;	  /* SW_HEADROOM + NET_FRAME_MAX */
	uint8_t *scratch; /* NET_FRAME_MAX, for cutting up */
	bool forwarding;
	uint8_t *later;
	size_t later_len;
	uint64_t later_dropped;
	bool held; /* stays when nobody is plugged in */
	struct loop_timer linger, host_lease;
	struct station *station;
	struct uplink *uplink;
	struct control *control;
	struct pcap *trace;
	struct host hosts[HOSTS_MAX];
	int host_count;
	struct host6 hosts6[HOSTS_MAX];
	int host6_count;
	int tap_fd; /* from the keeper; -1: user mode */
	bool packet;
	int helper; /* socket of the helper's session, -1 */
	char mode[16], mode_reason[512];
};

int ports_open(struct network *n, struct err *e);
void ports_close(struct network *n);
void ports_reload(struct network *n);
/* The address of a machine's port, 0: not known. */
uint32_t port_ip(struct network *n, const struct port *p);

/* Nobody is plugged in: end in so many seconds, unless the network is to stay. */
void net_linger(struct network *n, int seconds);
/* A frame enters at a port of the core that is not a machine's. */
void net_inject(struct network *n, int port, const uint8_t *frame, size_t len, unsigned mss);
/* For who takes no large frames: cut it up. */
void net_cut(struct network *n, const uint8_t *frame, size_t len, unsigned mss,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);
/* Between the two, frames go in with sw_input(); the end sends what was delivered on its way. */
void net_begin(struct network *n);
void net_end(struct network *n);

/* ---- station.c: the switch's own address on the network ---- */

int station_open(struct network *n, struct err *e);
void station_close(struct network *n);
/* After the configuration has changed. */
void station_reload(struct network *n);
/* Answer DHCP requests, if that is configured, or not. */
void station_serve(struct network *n, bool on);
struct dhcp *station_dhcp(struct network *n); /* NULL: none is running */
/* What is known of who sends from where; ARP. */
void hosts_note(struct network *n, uint32_t ip, const uint8_t mac[6]);

/*
 * Where names are asked for over IPv6: ::3 of a NAT network's prefix; in other networks the station has an address as
 * those it gives to machines.
 */
void names6(const struct net_config *c, uint8_t out[16]);
/* The option of a router advertisement that says so (RFC 8106, section 5.1). */
#define RDNSS 25
#define RDNSS_BYTES 24
void put_rdnss(const struct net_config *c, uint8_t out[RDNSS_BYTES]);

/* ---- hosts6.c: who has which IPv6 address ---- */

/* An ICMPv6 message with hop limit 255 in `frame`. */
void hosts6_hear(struct network *n, const uint8_t *frame, const uint8_t *icmp, size_t len);
void hosts6_note(struct network *n, const uint8_t ip[16], const uint8_t mac[6]);
/* The address of `mac` that its name stands for; false: none is known. */
bool hosts6_find(const struct network *n, const uint8_t mac[6], uint8_t out[16]);
const uint8_t *hosts6_owner(const struct network *n, const uint8_t ip[16]); /* NULL: nobody */

/* ---- hostlease.c ---- */

/* Where the host's interface has its address by DHCP: it becomes the network's gateway. */
void hostlease_take(struct network *n);
void hostlease_renew(void *network);

/* ---- resolver.c: questions of machines to the host's name servers ---- */

/* Who asks, and where the answer goes. */
struct asker {
	uint8_t mac[6];
	uint16_t port;
	bool six;
	uint32_t ip;
	uint8_t ip6[16], asked6[16]; /* its address, and ours */
};

struct resolver;
typedef void resolver_answer_fn(void *opaque, const struct asker *to, const uint8_t *payload, size_t len);
struct resolver *resolver_open(struct loop *loop, resolver_answer_fn *answer, void *opaque);
void resolver_close(struct resolver *r);
/* False: it was not sent (too many are under way, no name server). */
bool resolver_ask(struct resolver *r, const struct asker *from, const uint8_t *query, size_t len);

/* ---- leases.c ---- */

void leases_load(const char *dir, struct dhcp *d);
int leases_save(const char *dir, struct dhcp *d, struct err *e);
json_t *leases_json(const struct dhcp *d);

/* ---- uplink.c ---- */

int uplink_open(struct network *n, struct err *e);
void uplink_close(struct network *n);
void uplink_reload(struct network *n);
int uplink_port(const struct network *n); /* in the core, -1 */
/* 127.0.0.1:port leads to ip:to_port from now on. Its number, or -1 and *e. */
int uplink_connect(struct network *n, uint32_t ip, uint16_t to_port, struct err *e);

/* ---- control.c ---- */

int control_open(struct network *n, struct err *e);
void control_close(struct network *n);

/* ---- sandbox.c ---- */

int switch_sandbox(const char *dir, const char *tftp, struct err *e);

#endif
