/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NAT in user mode, through libslirp: a TCP/IP stack that turns the guest's connections into sockets of this process,
 * with DHCP, DNS relay and TFTP. Needs no privileges.
 *
 * Theory of operation. libslirp is written for a poll() loop: slirp_pollfds_fill() names every socket with the events
 * wanted, slirp_pollfds_poll() looks at what came. Here each socket has a watch in the machine's loop (table `fds`,
 * indexed by file descriptor, which is also the index libslirp gets). refresh() asks libslirp what it wants and brings
 * the watches up to date; only differences cost a system call. It runs after every dispatch and
 * at the end of a burst of frames from the guest, if one of them may have changed the answer (`stale`); for frames that
 * come alone, from the timer `tick`, which also drives libslirp's own time-outs.
 *
 * VirtualBox's layout for adapter n (0-based): network 10.0.(2+n).0/24, router and host .2, DNS .3, first lease .15.
 * libslirp serves TFTP from the router's address, and its DHCP answers name that as the boot server.
 */
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"

/* Segments joined to a large one. libslirp has windows of 64 KiB: two of these fit, so that one is always on its way.
 */
#define LARGE_SEGMENTS 16
#define LARGE_MTU (NET_MSS4 * LARGE_SEGMENTS + 40)

struct nat_fd {
	struct loop_watch *watch;
	int revents;	     /* SLIRP_POLL_* seen, during a dispatch */
	uint32_t generation; /* of the refresh that last wanted it */
};

/* A watch has no room for both, so each gets this as its opaque. */
struct nat_watch {
	struct nat *nat;
	int fd;
};

struct nat {
	struct net_link *link;
	struct loop *loop;
	Slirp *slirp;
	struct loop_timer tick;
	struct nat_fd *fds; /* indexed by file descriptor */
	struct nat_watch **watch_args;
	int fds_cap, fds_end; /* end: one past the highest with a watch ever */
	uint32_t generation;
	bool dispatching;
	bool stale; /* libslirp may wait for something else since the last refresh() */
	struct nat_rule rules[NAT_RULES_MAX];
	int rule_count;
	bool ipv6;
	uint8_t scratch[NET_FRAME_WIRE + 120];
};

/* ---- sockets ---- */

static void dispatch(struct nat *n);

static void
fd_ready(void *opaque, int ready)
{
	struct nat_watch *w = opaque;
	struct nat *n = w->nat;
	struct nat_fd *f = &n->fds[w->fd];

	f->revents = (ready & LOOP_IN ? SLIRP_POLL_IN : 0) | (ready & LOOP_OUT ? SLIRP_POLL_OUT : 0) |
		     (ready & LOOP_HUP ? SLIRP_POLL_HUP | SLIRP_POLL_ERR : 0);
	dispatch(n);
}

static bool
fds_room(struct nat *n, int fd)
{
	int cap = n->fds_cap ? n->fds_cap : 64;
	struct nat_fd *fds;
	struct nat_watch **args;

	if (fd < n->fds_cap)
		return true;
	while (cap <= fd)
		cap *= 2;
	fds = realloc(n->fds, (size_t)cap * sizeof(*fds));
	if (fds)
		n->fds = fds;
	args = realloc(n->watch_args, (size_t)cap * sizeof(struct nat_watch *));
	if (args)
		n->watch_args = args;
	if (!fds || !args)
		return false;
	memset(fds + n->fds_cap, 0, (size_t)(cap - n->fds_cap) * sizeof(*fds));
	memset(args + n->fds_cap, 0, (size_t)(cap - n->fds_cap) * sizeof(struct nat_watch *));
	n->fds_cap = cap;
	return true;
}

/* slirp_pollfds_fill() wants `events` of `fd`. */
static int
fd_want(int fd, int events, void *opaque)
{
	struct nat *n = opaque;
	int want = (events & SLIRP_POLL_IN ? LOOP_IN : 0) | (events & SLIRP_POLL_OUT ? LOOP_OUT : 0);
	struct nat_fd *f;

	if (fd < 0 || !fds_room(n, fd))
		return -1;
	f = &n->fds[fd];
	f->generation = n->generation;
	if (f->watch) {
		loop_watch_set(f->watch, want);
		return fd;
	}
	if (!n->watch_args[fd]) {
		n->watch_args[fd] = xcalloc(1, sizeof(struct nat_watch));
		*n->watch_args[fd] = (struct nat_watch){ n, fd };
	}
	f->watch = loop_watch_add(n->loop, fd, want, fd_ready, n->watch_args[fd]);
	if (!f->watch)
		return -1;
	n->fds_end = MAX(n->fds_end, fd + 1);
	return fd;
}

static int
fd_revents(int idx, void *opaque)
{
	struct nat *n = opaque;

	return idx >= 0 && idx < n->fds_cap ? n->fds[idx].revents : 0;
}

/* libslirp is about to close `fd`, or has just opened it: in both cases what is known of the number is out of date. */
static void
fd_forget(int fd, void *opaque)
{
	struct nat *n = opaque;

	n->stale = true;
	if (fd < 0 || fd >= n->fds_cap)
		return;
	loop_watch_remove(n->fds[fd].watch);
	n->fds[fd].watch = NULL;
	n->fds[fd].revents = 0;
}

/* Bring the watches and the timer up to what libslirp wants now. */
static void
refresh(struct nat *n)
{
	uint32_t timeout_ms = UINT32_MAX;

	n->generation++;
	n->stale = false;
	slirp_pollfds_fill(n->slirp, &timeout_ms, fd_want, n);
	for (int fd = 0; fd < n->fds_end; fd++)
		if (n->fds[fd].watch && n->fds[fd].generation != n->generation)
			loop_watch_set(n->fds[fd].watch, 0);
	if (timeout_ms == UINT32_MAX)
		loop_timer_cancel(&n->tick);
	else
		loop_timer_arm(&n->tick, loop_now() + timeout_ms * UINT64_C(1000000));
}

static void
dispatch(struct nat *n)
{
	n->dispatching = true;
	slirp_pollfds_poll(n->slirp, 0, fd_revents, n);
	n->dispatching = false;
	for (int fd = 0; fd < n->fds_end; fd++)
		n->fds[fd].revents = 0;
	refresh(n);
}

static void
tick(void *opaque)
{
	dispatch(opaque);
}

/* Have refresh() run soon, once for however many calls. */
static void
want_refresh(struct nat *n)
{
	uint64_t now;

	n->stale = true;
	if (n->dispatching || n->link->in_burst)
		return; /* both end with one */
	now = loop_now();
	if (!loop_timer_armed(&n->tick) || n->tick.when > now)
		loop_timer_arm(&n->tick, now);
}

/* ---- what libslirp calls ---- */

static void
deliver_piece(void *opaque, const uint8_t *frame, size_t len)
{
	net_deliver(opaque, frame, len);
}

static void
deliver_large(struct nat *n, const uint8_t *frame, size_t len)
{
	struct net_tcp t;

	if (!net_tcp_find(frame, len, &t)) {
		net_cut_ipv4(frame, len, n->scratch, deliver_piece, n->link);
		return;
	}
	t.mss = be16(frame + t.l3 - 2) == 0x0800 ? NET_MSS4 : NET_MSS6;
	if (net_adapter_takes_large(n->link)) {
		net_deliver_large(n->link, frame, len, t.mss);
	} else { /* the guest took large ones when the connection began, and does no more */
		net_cut_tcp(frame, len, &t, n->scratch, deliver_piece, n->link);
	}
}

static ssize_t
slirp_to_guest(const void *frame, size_t len, void *opaque)
{
	struct nat *n = opaque;

	if (len <= NET_FRAME_WIRE)
		net_deliver(n->link, frame, len);
	else
		deliver_large(n, frame, len);
	return (ssize_t)len;
}

static void
slirp_guest_error(const char *msg, void *opaque)
{
	log_guest("nat", "%s", msg);
}

static int64_t
slirp_clock(void *opaque)
{
	return (int64_t)loop_now();
}

struct nat_timer {
	struct loop_timer lt;
	SlirpTimerCb cb;
	void *cb_opaque;
};

static void
slirp_timer_fire(void *opaque)
{
	struct nat_timer *t = opaque;

	t->cb(t->cb_opaque);
}

static void *
slirp_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct nat *n = opaque;
	struct nat_timer *t = xcalloc(1, sizeof(*t));

	t->cb = cb;
	t->cb_opaque = cb_opaque;
	loop_timer_init(&t->lt, n->loop, slirp_timer_fire, t);
	return t;
}

static void
slirp_timer_free(void *timer, void *opaque)
{
	struct nat_timer *t = timer;

	if (!t)
		return;
	loop_timer_cancel(&t->lt);
	free(t);
}

static void
slirp_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct nat_timer *t = timer;

	loop_timer_arm(&t->lt, (uint64_t)MAX(expire_ms, 0) * 1000000u);
}

static void
slirp_notify(void *opaque)
{
	want_refresh(opaque);
}

static const SlirpCb slirp_callbacks = {
	.send_packet = slirp_to_guest,
	.guest_error = slirp_guest_error,
	.clock_get_ns = slirp_clock,
	.timer_new = slirp_timer_new,
	.timer_free = slirp_timer_free,
	.timer_mod = slirp_timer_mod,
	.register_poll_fd = fd_forget,
	.unregister_poll_fd = fd_forget,
	.notify = slirp_notify,
};

/* ---- the link's side ---- */

static bool
is_tcp(const uint8_t *frame)
{
	return frame[12] == 0x08 ? frame[23] == IPPROTO_TCP : frame[20] == IPPROTO_TCP;
}

static void
nat_burst_end(void *backend)
{
	struct nat *n = backend;

	if (n->stale && !n->dispatching)
		refresh(n);
}

/* The place of the MSS (RFC 9293, section 3.7.1) in a SYN of an adapter that takes large frames, or 0. */
static unsigned
mss_place(const uint8_t *frame, size_t len)
{
	struct net_tcp t;

	if (len > NET_FRAME_WIRE || !net_tcp_find(frame, len, &t) || !(frame[t.l4 + 13] & 2))
		return 0;
	for (unsigned at = t.l4 + 20; at + 4 <= t.payload && frame[at]; at += frame[at] == 1 ? 1 : frame[at + 1]) {
		if (frame[at] == 2)
			return frame[at + 1] == 4 && !(at & 1) ? at + 2 : 0;
		if (frame[at] != 1 && frame[at + 1] < 2)
			return 0;
	}
	return 0;
}

/*
 * Of a guest that can take segments which are joined, and whose MTU is the usual one, libslirp hears in its SYN that
 * it takes large ones. Each then costs libslirp, the adapter and the guest once what LARGE_SEGMENTS would.
 */
static const uint8_t *
ask_for_large(struct nat *n, const uint8_t *frame, size_t len)
{
	struct net_tcp t;
	uint32_t sum;
	unsigned at, mss;

	if (!net_adapter_takes_large(n->link) || !(at = mss_place(frame, len)) || !net_tcp_find(frame, len, &t))
		return frame;
	mss = be16(frame + at);
	if (mss != (be16(frame + t.l3 - 2) == 0x0800 ? NET_MSS4 : NET_MSS6))
		return frame;
	memcpy(n->scratch, frame, len);
	put_be16(n->scratch + at, mss * LARGE_SEGMENTS);
	/* RFC 1624, equation 3 */
	sum = (be16(frame + t.l4 + 16) ^ 0xffffu) + (mss ^ 0xffffu) + mss * LARGE_SEGMENTS;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	put_be16(n->scratch + t.l4 + 16, sum ^ 0xffffu);
	return n->scratch;
}

static void
nat_send(void *backend, const uint8_t *frame, size_t len)
{
	struct nat *n = backend;

	slirp_input(n->slirp, ask_for_large(n, frame, len), (int)len);
	/* A datagram for a socket that is there changes nothing in what libslirp waits for. */
	n->stale |= len >= 24 && is_tcp(frame);
	if (n->stale)
		want_refresh(n);
}

static void
nat_close(void *backend)
{
	struct nat *n = backend;

	slirp_cleanup(n->slirp);
	loop_timer_cancel(&n->tick);
	for (int fd = 0; fd < n->fds_end; fd++)
		loop_watch_remove(n->fds[fd].watch);
	for (int fd = 0; fd < n->fds_cap; fd++)
		free(n->watch_args[fd]);
	free(n->watch_args);
	free(n->fds);
	free(n);
}

static const struct net_backend_class nat_class = {
	.name = "nat",
	.send = nat_send,
	.close = nat_close,
	.burst_end = nat_burst_end,
	.takes_tso = true,
};

/* ---- rules ---- */

/* "" is any address. */
static socklen_t
socket_address(const char *ip, uint16_t port, bool v6, struct sockaddr_storage *out)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
	struct sockaddr_in *four = (struct sockaddr_in *)out;

	memset(out, 0, sizeof(*out));
	if (v6) {
		*six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		return !*ip || inet_pton(AF_INET6, ip, &six->sin6_addr) == 1 ? sizeof(*six) : 0;
	}
	*four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	return !*ip || inet_pton(AF_INET, ip, &four->sin_addr) == 1 ? sizeof(*four) : 0;
}

/* libslirp binds UDP ports with SO_REUSEADDR, with which Linux lets two programs share one: ask first. */
static int
udp_port_free(const struct sockaddr_storage *addr, socklen_t len)
{
	int fd = socket(addr->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0, on = 1;

	if (fd < 0)
		return -errno;
	if (addr->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)addr, len))
		r = -errno;
	close(fd);
	return r;
}

static int
rule_error(const struct nat_rule *r, int error, struct err *e)
{
	const char *proto = r->udp ? "udp" : "tcp", *host = *r->host_ip	      ? r->host_ip
							    : nat_rule_is6(r) ? "::"
									      : "0.0.0.0";

	if (error == EADDRINUSE)
		return err_set(e, ERR_IN_USE,
			"NAT rule '%s': %s port %u of host address %s is already in use by another program", r->name,
			proto, r->host_port, host);
	if (error == EACCES)
		return err_set(e, ERR_ACCESS,
			"NAT rule '%s': no permission to listen on %s port %u of host address %s; ports below 1024 "
			"are for root",
			r->name, proto, r->host_port, host);
	return err_sys(e, ERR_HOST, error, "NAT rule '%s': cannot listen on %s port %u of host address %s", r->name,
		proto, r->host_port, host);
}

static int
rule_flags(const struct nat_rule *r)
{
	return (r->udp ? SLIRP_HOSTFWD_UDP : 0) | (nat_rule_is6(r) ? SLIRP_HOSTFWD_V6ONLY : 0);
}

static int
rule_open(struct nat *n, const struct nat_rule *r, struct err *e)
{
	struct sockaddr_storage host, guest;
	bool v6 = nat_rule_is6(r);
	socklen_t host_len = socket_address(r->host_ip, r->host_port, v6, &host),
		  guest_len = socket_address(r->guest_ip, r->guest_port, v6, &guest);

	if (!host_len || !guest_len)
		return err_set(e, ERR_INVALID, "NAT rule '%s': '%s' is not an IPv%d address", r->name,
			host_len ? r->guest_ip : r->host_ip, v6 ? 6 : 4);
	if (v6 && !n->ipv6)
		return err_set(e, ERR_INVALID, "NAT rule '%s' is for IPv6, which this NAT does not have", r->name);
	if (r->udp) {
		int busy = udp_port_free(&host, host_len);

		if (busy)
			return rule_error(r, -busy, e);
	}
	if (slirp_add_hostxfwd(
		    n->slirp, (struct sockaddr *)&host, host_len, (struct sockaddr *)&guest, guest_len, rule_flags(r)))
		return rule_error(r, errno, e);
	n->rules[n->rule_count++] = *r;
	return 0;
}

static struct nat *
nat_of(struct net_link *l, struct err *e)
{
	if (l->class == &nat_class)
		return l->backend;
	err_set(e, ERR_INVALID, "The network adapter is not attached to a NAT");
	return NULL;
}

int
nat_rule_add(struct net_link *l, const struct nat_rule *r, struct err *e)
{
	struct nat *n = nat_of(l, e);

	if (!n)
		return -1;
	if (n->rule_count == NAT_RULES_MAX)
		return err_set(e, ERR_INVALID, "A NAT has at most %d rules", NAT_RULES_MAX);
	for (int i = 0; *r->name && i < n->rule_count; i++)
		if (!strcmp(n->rules[i].name, r->name))
			return err_set(e, ERR_INVALID, "A NAT rule of the name '%s' already exists", r->name);
	if (rule_open(n, r, e))
		return -1;
	want_refresh(n);
	return 0;
}

int
nat_rule_remove(struct net_link *l, const char *name, struct err *e)
{
	struct nat *n = nat_of(l, e);

	for (int i = 0; n && i < n->rule_count; i++) {
		struct nat_rule *r = &n->rules[i];
		struct sockaddr_storage host;
		socklen_t len;

		if (strcmp(r->name, name))
			continue;
		len = socket_address(r->host_ip, r->host_port, nat_rule_is6(r), &host);
		slirp_remove_hostxfwd(n->slirp, (struct sockaddr *)&host, len, rule_flags(r));
		memmove(r, r + 1, (size_t)(n->rule_count - i - 1) * sizeof(*r));
		n->rule_count--;
		want_refresh(n);
		return 0;
	}
	return n ? err_set(e, ERR_NOT_FOUND, "There is no NAT rule of the name '%s'", name) : -1;
}

/* ---- opening ---- */

/* "a.b.c.d/len" as network and mask; the layout needs room up to .15 */
static int
parse_network(const char *text, struct in_addr *net, struct in_addr *mask, struct err *e)
{
	const char *slash = strchr(text, '/');
	char ip[16];
	uint64_t bits;

	if (!slash || (size_t)(slash - text) >= sizeof(ip) || !str_to_u64(slash + 1, 8, 27, &bits))
		return err_set(e, ERR_INVALID, "NAT network '%s' must be like 10.0.2.0/24, with 8 to 27 bits", text);
	memcpy(ip, text, (size_t)(slash - text));
	ip[slash - text] = 0;
	if (inet_pton(AF_INET, ip, net) != 1)
		return err_set(e, ERR_INVALID, "NAT network '%s': '%s' is not an IPv4 address", text, ip);
	mask->s_addr = htonl(~0u << (32 - bits));
	net->s_addr &= mask->s_addr;
	return 0;
}

static struct in_addr
host_in(struct in_addr net, uint32_t host)
{
	return (struct in_addr){ htonl(ntohl(net.s_addr) | host) };
}

static struct in6_addr
address6(const struct nat_options *o, uint8_t host)
{
	struct in6_addr a = { .s6_addr = { 0xfd, 0x17, 0x62, 0x5c, 0xf0, 0x37, 0, (uint8_t)(2 + o->adapter) } };

	if (o->prefix6)
		memcpy(a.s6_addr, o->prefix6, 8);
	a.s6_addr[15] = host;
	return a;
}

static int
fill_config(SlirpConfig *c, const struct nat_options *o, struct err *e)
{
	char standard[24];
	struct in_addr net = { 0 }, mask = { 0 };

	snprintf(standard, sizeof(standard), "10.0.%d.0/24", 2 + o->adapter);
	if (parse_network(o->network && *o->network ? o->network : standard, &net, &mask, e))
		return -1;
	*c = (SlirpConfig){
		.version = 4,
		.restricted = o->isolated,
		.in_enabled = true,
		.vnetwork = net,
		.vnetmask = mask,
		.vhost = o->router ? (struct in_addr){ htonl(o->router) } : host_in(net, 2),
		.vnameserver = o->dns ? (struct in_addr){ htonl(o->dns) } : host_in(net, 3),
		.vdhcp_start = host_in(net, 15),
		.in6_enabled = o->ipv6,
		.vprefix_addr6 = address6(o, 0),
		.vprefix_len = 64,
		.vhost6 = address6(o, 2),
		.vnameserver6 = address6(o, 3),
		.vhostname = o->hostname,
		.tftp_path = o->tftp_root,
		.bootfile = o->bootfile,
		.if_mtu = LARGE_MTU,
		.if_mru = LARGE_MTU,
		.disable_host_loopback = !o->localhost_reachable,
		.disable_dhcp = o->no_dhcp,
	};
	return 0;
}

int
nat_open(struct net_link *l, struct loop *loop, const struct nat_options *o, struct err *e)
{
	struct nat *n;
	SlirpConfig config;

	if (o->adapter < 0 || o->adapter > 200 || o->rule_count < 0 || o->rule_count > NAT_RULES_MAX)
		return err_set(e, ERR_INVALID, "NAT for adapter %d with %d rules is out of range", o->adapter + 1,
			o->rule_count);
	if (l->class)
		return err_set(e, ERR_OBJECT_STATE, "The network adapter is already attached to '%s'", l->class->name);
	if (fill_config(&config, o, e))
		return -1;
	n = xcalloc(1, sizeof(*n));
	n->link = l;
	n->loop = loop;
	n->ipv6 = o->ipv6;
	loop_timer_init(&n->tick, loop, tick, n);
	n->slirp = slirp_new(&config, &slirp_callbacks, n);
	if (!n->slirp) {
		free(n->fds);
		free(n);
		return err_set(e, ERR_HOST, "Cannot start the NAT of network adapter %d: libslirp refused its settings",
			o->adapter + 1);
	}
	for (int i = 0; i < o->rule_count; i++) {
		if (rule_open(n, &o->rules[i], e)) {
			nat_close(n);
			return -1;
		}
	}
	l->class = &nat_class;
	l->backend = n;
	want_refresh(n);
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
	return 0;
}
