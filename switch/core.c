/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch; core.h says what it promises.
 *
 * Theory of operation. Inside, a frame has no tag; its VLAN is a number beside it, and the four bytes of headroom take
 * the tag where a port wants one (put_tag() and drop_tag() move the two addresses, 12 bytes).
 *
 * The destination is looked up in two tables: `own`, the addresses that ports were given (hash with chains through the
 * ports themselves), and `seen`, what was learned behind ports with any_source (open addressing, a bounded probe; when
 * all places of a probe are taken, the oldest gives way). A known address goes to its port directly unless somebody
 * listens in (`listeners`); everything else is a walk over the ports.
 */
#include "switch/core.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "switch/guard.h"

#define OWN_BUCKETS 256
#define SEEN_SLOTS 8192
#define SEEN_PROBE 8
#define SEEN_MS 300000

struct port {
	bool used;
	struct sw_port_config c;
	sw_deliver_fn *deliver;
	void *opaque;
	struct sw_counters n;
	int next_own; /* -1: last of its bucket */
	unsigned learned;
	uint64_t storm_start; /* of the second that is being counted */
	uint32_t storm_count;
};

struct seen {
	uint8_t mac[6];
	uint16_t vlan;
	int16_t port; /* -1: free */
	uint64_t when;
};

struct sw_core {
	struct port port[SW_PORTS_MAX];
	int end; /* one past the last port in use */
	int listeners;
	int own[OWN_BUCKETS];
	struct seen seen[SEEN_SLOTS];
	bool guard;
	uint32_t protected[SW_PROTECTED_MAX];
	int protected_count;
	void (*trace)(void *opaque, const uint8_t *frame, size_t len);
	void *trace_opaque;
};

/* A frame on its way: `f` points to the addresses. */
struct passing {
	uint8_t *f;
	size_t len;
	uint16_t vlan, tci;
	bool tagged; /* as it lies in memory now */
	int from;
	unsigned mss;
	bool patient; /* may come again */
	int no_room;  /* the port it may come again for, -1 */
};

/* ---- addresses ---- */

static uint32_t
hash_mac(const uint8_t *mac, uint32_t salt)
{
	uint64_t v = (uint64_t)le32(mac) | (uint64_t)le16(mac + 4) << 32;

	v = (v ^ salt) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(v >> 40);
}

static bool
same_mac(const uint8_t *a, const uint8_t *b)
{
	return le32(a) == le32(b) && le16(a + 4) == le16(b + 4);
}

/* The first port that was given this address, -1: none. Others with the same follow in the chain. */
static int
own_find(const struct sw_core *c, const uint8_t *mac)
{
	int i = c->own[hash_mac(mac, 0) % OWN_BUCKETS];

	while (i >= 0 && !same_mac(c->port[i].c.mac, mac))
		i = c->port[i].next_own;
	return i;
}

static bool
own_twice(const struct sw_core *c, int i)
{
	for (int k = c->port[i].next_own; k >= 0; k = c->port[k].next_own)
		if (same_mac(c->port[k].c.mac, c->port[i].c.mac))
			return true;
	return false;
}

static void
own_add(struct sw_core *c, int i)
{
	int *bucket = &c->own[hash_mac(c->port[i].c.mac, 0) % OWN_BUCKETS];

	c->port[i].next_own = *bucket;
	*bucket = i;
}

static void
own_remove(struct sw_core *c, int i)
{
	int *at = &c->own[hash_mac(c->port[i].c.mac, 0) % OWN_BUCKETS];

	while (*at >= 0 && *at != i)
		at = &c->port[*at].next_own;
	if (*at == i)
		*at = c->port[i].next_own;
}

static struct seen *
seen_at(struct sw_core *c, const uint8_t *mac, uint16_t vlan, unsigned probe)
{
	return &c->seen[(hash_mac(mac, vlan) + probe) % SEEN_SLOTS];
}

static void
seen_free(struct sw_core *c, struct seen *s)
{
	if (s->port >= 0)
		c->port[s->port].learned--;
	s->port = -1;
}

static struct seen *
seen_find(struct sw_core *c, const uint8_t *mac, uint16_t vlan, uint64_t now)
{
	for (unsigned p = 0; p < SEEN_PROBE; p++) {
		struct seen *s = seen_at(c, mac, vlan, p);

		if (s->port < 0 || s->vlan != vlan || !same_mac(s->mac, mac))
			continue;
		if (now - s->when <= SEEN_MS)
			return s;
		seen_free(c, s);
		return NULL;
	}
	return NULL;
}

static void
learn(struct sw_core *c, int port, const uint8_t *mac, uint16_t vlan, uint64_t now)
{
	struct seen *s = seen_find(c, mac, vlan, now), *oldest = NULL;

	for (unsigned p = 0; p < SEEN_PROBE && !s; p++) {
		struct seen *t = seen_at(c, mac, vlan, p);

		if (t->port < 0) {
			oldest = t;
			break;
		}
		if (!oldest || t->when < oldest->when)
			oldest = t;
	}
	if (s && s->port == port) {
		s->when = now;
		return;
	}
	if (c->port[port].learned >= SW_LEARN_MAX)
		return;
	if (!s)
		s = oldest;
	seen_free(c, s);
	memcpy(s->mac, mac, 6);
	s->vlan = vlan;
	s->port = (int16_t)port;
	s->when = now;
	c->port[port].learned++;
}

/* ---- ports ---- */

struct sw_core *
sw_open(void)
{
	struct sw_core *c = xcalloc(1, sizeof(*c));

	for (int i = 0; i < OWN_BUCKETS; i++)
		c->own[i] = -1;
	for (int i = 0; i < SEEN_SLOTS; i++)
		c->seen[i].port = -1;
	return c;
}

void
sw_close(struct sw_core *c)
{
	free(c);
}

static bool
listens(const struct sw_port_config *p)
{
	return p->promisc != SW_DENY && !p->host_side;
}

static void
enter(struct sw_core *c, int i, const struct sw_port_config *config)
{
	c->port[i].c = *config;
	c->port[i].next_own = -1;
	if (config->has_mac)
		own_add(c, i);
	c->listeners += listens(config);
}

static void
leave(struct sw_core *c, int i)
{
	if (c->port[i].c.has_mac)
		own_remove(c, i);
	c->listeners -= listens(&c->port[i].c);
	for (int k = 0; k < SEEN_SLOTS && c->port[i].learned; k++)
		if (c->seen[k].port == i)
			seen_free(c, &c->seen[k]);
}

int
sw_port_add(struct sw_core *c, const struct sw_port_config *config, sw_deliver_fn *deliver, void *opaque)
{
	int i = 0;

	while (i < SW_PORTS_MAX && c->port[i].used)
		i++;
	if (i == SW_PORTS_MAX)
		return -1;
	c->port[i] = (struct port){ .used = true, .deliver = deliver, .opaque = opaque };
	enter(c, i, config);
	c->end = MAX(c->end, i + 1);
	return i;
}

void
sw_port_remove(struct sw_core *c, int i)
{
	leave(c, i);
	c->port[i].used = false;
	while (c->end && !c->port[c->end - 1].used)
		c->end--;
}

void
sw_port_change(struct sw_core *c, int i, const struct sw_port_config *config)
{
	leave(c, i);
	enter(c, i, config);
}

const struct sw_port_config *
sw_port_config(const struct sw_core *c, int i)
{
	return &c->port[i].c;
}

const struct sw_counters *
sw_port_counters(const struct sw_core *c, int i)
{
	return &c->port[i].n;
}

unsigned
sw_port_addresses(const struct sw_core *c, int i)
{
	return c->port[i].learned + c->port[i].c.has_mac;
}

void
sw_guard(struct sw_core *c, bool on, const uint32_t *protected, int count)
{
	c->guard = on;
	c->protected_count = MIN(count, SW_PROTECTED_MAX);
	if (c->protected_count > 0)
		memcpy(c->protected, protected, (size_t)c->protected_count * sizeof(*protected));
}

void
sw_trace(struct sw_core *c, void (*fn)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	c->trace = fn;
	c->trace_opaque = opaque;
}

/* ---- tags (802.1Q 9.3: TPID 0x8100, then 3 bits of priority, 1 drop eligible, 12 of VLAN) ---- */

static void
drop_tag(struct passing *p)
{
	memmove(p->f + 4, p->f, 12);
	p->f += 4;
	p->len -= 4;
	p->tagged = false;
}

static void
put_tag(struct passing *p)
{
	unsigned tci = (p->tci & 0xf000u) | p->vlan;

	p->f -= 4;
	p->len += 4;
	memmove(p->f, p->f + 4, 12);
	p->f[12] = 0x81;
	p->f[13] = 0x00;
	p->f[14] = (uint8_t)(tci >> 8);
	p->f[15] = (uint8_t)tci;
	p->tagged = true;
}

static bool
carries(const struct sw_port_config *c, unsigned vlan)
{
	return c->trunk && vlan && (c->allowed[vlan >> 3] >> (vlan & 7) & 1);
}

static bool
member(const struct sw_port_config *c, unsigned vlan)
{
	return vlan == c->vlan || carries(c, vlan);
}

/* Which VLAN the frame is of, without its tag afterwards. False: none the port is in. */
static bool
take_vlan(struct passing *p, const struct sw_port_config *c)
{
	unsigned vlan;

	p->vlan = c->vlan;
	if (p->len < 18 || be16(p->f + 12) != 0x8100)
		return true;
	p->tci = (uint16_t)be16(p->f + 14);
	vlan = p->tci & 0xfff;
	if (vlan && !carries(c, vlan))
		return false;
	if (vlan)
		p->vlan = (uint16_t)vlan;
	drop_tag(p);
	return true;
}

/* ---- checks ---- */

static bool
source_ok(const struct sw_core *c, const struct sw_port_config *config, int port, const uint8_t *source)
{
	int owner;

	if (config->has_mac && same_mac(source, config->mac))
		return true;
	if (!config->any_source)
		return false;
	owner = own_find(c, source);
	return owner < 0 || owner == port;
}

static bool
storm_ok(struct port *p, uint64_t now)
{
	if (!p->c.storm)
		return true;
	if (now - p->storm_start >= 1000) {
		p->storm_start = now;
		p->storm_count = 0;
	}
	return p->storm_count++ < p->c.storm;
}

static bool
admit(struct sw_core *c, struct passing *p, uint64_t now)
{
	struct port *port = &c->port[p->from];

	port->n.in_frames++;
	port->n.in_bytes += p->len;
	if (p->len < 14 || p->len > (p->mss ? SW_LARGE_MAX : SW_FRAME_MAX) || (p->f[6] & 1)) {
		port->n.malformed++;
		return false;
	}
	if (!source_ok(c, &port->c, p->from, p->f + 6)) {
		port->n.spoofed++;
		return false;
	}
	if (!take_vlan(p, &port->c)) {
		port->n.bad_vlan++;
		return false;
	}
	if (c->guard && !port->c.may_serve && !guard_allows(p->f, p->len, c->protected, c->protected_count)) {
		port->n.guarded++;
		return false;
	}
	if ((p->f[0] & 1) && !storm_ok(port, now)) {
		port->n.storms++;
		return false;
	}
	return true;
}

/* ---- out ---- */

static void
emit(struct sw_core *c, struct passing *p, int to)
{
	struct port *port = &c->port[to];
	bool tag = p->vlan != port->c.vlan;

	if (tag && !p->tagged)
		put_tag(p);
	else if (!tag && p->tagged)
		drop_tag(p);
	/* A second tag would be taken for the first one there, and lead into a VLAN of the sender's choice. */
	if (!tag && p->len >= 14 && be16(p->f + 12) == 0x8100) {
		c->port[p->from].n.bad_vlan++;
		return;
	}
	if (!port->deliver(port->opaque, p->f, p->len, p->mss)) {
		if (p->patient)
			p->no_room = to;
		else
			port->n.full++;
		return;
	}
	port->n.out_frames++;
	port->n.out_bytes += p->len;
}

/* May `q` see a frame from `from` to the machine or host at `to` (-1: unknown)? */
static bool
listens_in(const struct sw_core *c, const struct port *q, int from, int to)
{
	if (!listens(&q->c))
		return false;
	if (q->c.promisc == SW_ALLOW_ALL)
		return true;
	return !c->port[from].c.host_side && (to < 0 || !c->port[to].c.host_side);
}

/* Groups go to everyone; `to` with an unknown address to those who may have it behind them. */
static bool
wants(const struct sw_core *c, const struct port *q, int i, const struct passing *p, bool group, int to, bool twice)
{
	if (group || i == to)
		return true;
	if (twice && q->c.has_mac && same_mac(q->c.mac, c->port[to].c.mac))
		return true;
	if (to < 0 && (q->c.uplink || q->c.any_source))
		return true;
	return listens_in(c, q, p->from, to);
}

static void
spread(struct sw_core *c, struct passing *p, bool group, int to)
{
	bool twice = to >= 0 && c->port[to].c.has_mac && own_twice(c, to);

	for (int i = 0; i < c->end; i++) {
		const struct port *q = &c->port[i];

		if (i != p->from && q->used && member(&q->c, p->vlan) && wants(c, q, i, p, group, to, twice))
			emit(c, p, i);
	}
}

static int
find(struct sw_core *c, const uint8_t *mac, uint16_t vlan, uint64_t now)
{
	int to = own_find(c, mac);
	const struct seen *s;

	if (to >= 0)
		return to;
	s = seen_find(c, mac, vlan, now);
	return s ? s->port : -1;
}

static void
input(struct sw_core *c, struct passing *p, uint64_t now)
{
	const struct port *from = &c->port[p->from];
	bool group;
	int to = -1;

	if (!admit(c, p, now))
		return;
	if (from->c.any_source && !(from->c.has_mac && same_mac(p->f + 6, from->c.mac)))
		learn(c, p->from, p->f + 6, p->vlan, now);
	if (c->trace)
		c->trace(c->trace_opaque, p->f, p->len);
	group = p->f[0] & 1;
	if (!group)
		to = find(c, p->f, p->vlan, now);
	if (group || to < 0 || c->listeners || (c->port[to].c.has_mac && own_twice(c, to))) {
		p->patient = false; /* some may have it already */
		spread(c, p, group, to);
	} else if (to != p->from && member(&c->port[to].c, p->vlan)) {
		emit(c, p, to);
	}
}

static bool
in_use(const struct sw_core *c, int port)
{
	return port >= 0 && port < c->end && c->port[port].used;
}

void
sw_input(struct sw_core *c, int port, uint8_t *frame, size_t len, unsigned mss, uint64_t now)
{
	if (in_use(c, port))
		input(c, &(struct passing){ .f = frame, .len = len, .from = port, .mss = mss, .no_room = -1 }, now);
}

int
sw_try(struct sw_core *c, int port, uint8_t *frame, size_t len, unsigned mss, uint64_t now)
{
	struct passing p = { .f = frame, .len = len, .from = port, .mss = mss, .no_room = -1, .patient = !c->trace };

	if (!in_use(c, port))
		return -1;
	input(c, &p, now);
	if (p.no_room >= 0) {
		c->port[port].n.in_frames--;
		c->port[port].n.in_bytes -= len;
	}
	return p.no_room;
}
