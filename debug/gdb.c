/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server for gdb's remote serial protocol (GDB manual, appendix E), for one client at a time.
 *
 * All CPUs stop together; each is a thread, numbered from 1. A client that connects finds the machine stopped, one that
 * leaves leaves it running, without breakpoints. Addresses are linear and are translated as the CPU would that is
 * selected; permissions do not count.
 *
 * The server has a thread of its own, which alone touches everything here:
 *
 *	STOPPED  the machine is held; commands are answered
 *	RUNNING  it is not; a CPU's stop (through `wake`), Ctrl-C or the end of the connection bring it back to STOPPED
 *
 * Breakpoints that gdb sets are collected in `points` and handed to the CPUs when they go on, and only if the set is
 * not the one they had: gdb takes all out at each stop and puts them back, and a new set costs retranslation.
 *
 * While a CPU steps, interrupts are held from it ("monitor stepirq on" lets them in), and virtual time stands still
 * whenever the machine is stopped: so a step goes to the next instruction, not into the timer's handler.
 */
#include "debug/gdb.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define SIGINT_NUMBER 2
#define SIGILL_NUMBER 4
#define SIGTRAP_NUMBER 5
#define SIGSEGV_NUMBER 11

/* ---- sending ---- */

static void
send_all(struct gdb *g, const char *data, size_t len)
{
	while (len && g->fd >= 0) {
		ssize_t n = send(g->fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			g->gone = true;
			return;
		}
		data += n;
		len -= (size_t)n;
	}
}

void
gdb_reply_bytes(struct gdb *g, const char *data, size_t len)
{
	str_free(&g->last);
	packet_frame(&g->last, data, len);
	send_all(g, g->last.s, g->last.len);
}

void
gdb_reply(struct gdb *g, const char *text)
{
	gdb_reply_bytes(g, text, strlen(text));
}

/* GDB manual E.2: Enn has no meaning in its number; these are errno's. */
static void
reply_error(struct gdb *g, int number)
{
	char text[8];

	snprintf(text, sizeof(text), "E%02x", number & 0xff);
	gdb_reply(g, text);
}

static void
reply_str(struct gdb *g, struct str *s)
{
	gdb_reply_bytes(g, s->s ? s->s : "", s->len);
	str_free(s);
}

/* ---- CPUs ---- */

static struct vcpu *
selected(struct gdb *g)
{
	return g->c->cpu[g->cpu];
}

static void
look_at(struct gdb *g, int cpu)
{
	g->cpu = cpu;
	cpu_view_load(g->view, selected(g));
}

/* Thread ids: 1 to the number of CPUs; 0: any, -1: all. False: no such thread. */
static bool
thread_id(struct gdb *g, const char **p, int *out)
{
	uint64_t n;

	if (!strncmp(*p, "-1", 2)) {
		*p += 2;
		*out = -1;
		return true;
	}
	if (!hex_number(p, &n) || n > (uint64_t)g->c->count)
		return false;
	*out = (int)n;
	return true;
}

static bool
is_point_type(struct gdb *g, gva_t a, int type)
{
	for (int i = 0; i < g->point_count; i++)
		if (g->points[i].a == a && g->points[i].type == type)
			return true;
	return false;
}

static int
signal_of(const struct vcpu *v)
{
	switch ((enum cpu_debug_reason)v->debug_reason) {
	case CPU_DEBUG_SHUTDOWN:
		return SIGSEGV_NUMBER;
	case CPU_DEBUG_ERROR:
		return SIGILL_NUMBER;
	case CPU_DEBUG_NONE:
		return SIGINT_NUMBER;
	default:
		return SIGTRAP_NUMBER;
	}
}

/* Why the machine stands still: the selected CPU's reason. */
static void
reply_stop(struct gdb *g)
{
	static const char *const watch[] = { "watch", "watch", "rwatch", "awatch" };
	struct vcpu *v = selected(g);
	struct str s = { 0 };

	str_addf(&s, "T%02xthread:%x;", g->first_stop ? SIGTRAP_NUMBER : signal_of(v), g->cpu + 1);
	if (v->debug_reason == CPU_DEBUG_BREAK)
		str_add(&s, is_point_type(g, v->debug_addr, 0) ? "swbreak:;" : "hwbreak:;");
	if (v->debug_reason == CPU_DEBUG_WATCH)
		str_addf(&s, "%s:%llx;", watch[v->debug_watch & 3], (unsigned long long)v->debug_addr);
	reply_str(g, &s);
}

/* ---- stopping and going on ---- */

static void
hold(struct gdb *g)
{
	uint64_t n;
	ssize_t r;

	if (!g->running)
		return;
	g->ops->hold(g->opaque);
	g->running = false;
	r = read(g->wake, &n, sizeof(n));
	(void)r;
}

static void
release(struct gdb *g)
{
	g->running = true;
	g->first_stop = false;
	g->ops->release(g->opaque);
}

/* A CPU with something to tell: the one that was looked at before others. */
static bool
find_stopped(struct gdb *g)
{
	if (selected(g)->debug_reason != CPU_DEBUG_NONE)
		return true;
	for (int i = 0; i < g->c->count; i++)
		if (g->c->cpu[i]->debug_reason != CPU_DEBUG_NONE) {
			g->cpu = i;
			return true;
		}
	return false;
}

static void
stopped(struct gdb *g)
{
	hold(g);
	find_stopped(g);
	look_at(g, g->cpu);
	reply_stop(g);
}

/* On a CPU's thread. */
static void
cpu_stopped(void *opaque, struct vcpu *v)
{
	struct gdb *g = opaque;
	uint64_t one = 1;
	ssize_t r = write(g->wake, &one, sizeof(one));

	(void)r;
}

static bool
same_breaks(const struct cpu_debug *a, const struct cpu_debug *b)
{
	int found = 0;

	for (int i = 0; i < a->break_count; i++)
		for (int k = 0; k < b->break_count; k++)
			found += a->breaks[i] == b->breaks[k];
	return a->break_count == b->break_count && found == a->break_count;
}

static bool
same_watches(const struct cpu_debug *a, const struct cpu_debug *b)
{
	return a->watch_count == b->watch_count &&
	       !memcmp(a->watches, b->watches, (size_t)a->watch_count * sizeof(a->watches[0]));
}

static bool
add_point(struct gdb *g, struct cpu_debug *d, const struct gdb_point *p)
{
	static const uint8_t kinds[] = { CPU_WATCH_WRITE, CPU_WATCH_READ, CPU_WATCH_WRITE | CPU_WATCH_READ };
	struct cpu_watch w = { .a = p->a, .len = p->len };

	if (p->type < 2)
		return cpu_debug_add_break(g->c, d, p->a);
	w.kind = kinds[p->type - 2];
	return cpu_debug_add_watch(g->c, d, w);
}

/* The set that `points` make. False: it does not fit. */
static bool
make_set(struct gdb *g, struct cpu_debug *d)
{
	memset(d, 0, sizeof(*d));
	d->stopped = cpu_stopped;
	d->opaque = g;
	for (int i = 0; i < g->point_count; i++)
		if (!add_point(g, d, &g->points[i]))
			return false;
	return true;
}

static void
apply_points(struct gdb *g)
{
	struct cpu_debug next;

	make_set(g, &next);
	if (same_breaks(&next, &g->set) && same_watches(&next, &g->set))
		return;
	g->set = next;
	cpu_debug_changed(g->c);
}

static void
go(struct gdb *g, const enum cpu_debug_go *how)
{
	apply_points(g);
	for (int i = 0; i < g->c->count; i++)
		cpu_debug_go(g->c->cpu[i], how[i], g->step_irqs);
	release(g);
}

/* ---- commands: going on ---- */

static void
cmd_continue(struct gdb *g, const char *p)
{
	enum cpu_debug_go how[CPUS_MAX];
	bool step = p[-1] == 's' || p[-1] == 'S';
	uint64_t a;

	if (p[-1] == 'C' || p[-1] == 'S') { /* a signal means nothing to a CPU */
		hex_number(&p, &a);
		if (*p == ';')
			p++;
	}
	if (hex_number(&p, &a))
		selected(g)->state.rip = a;
	for (int i = 0; i < g->c->count; i++)
		how[i] = step && i == g->step_cpu ? CPU_DEBUG_STEP : CPU_DEBUG_RUN;
	go(g, how);
}

/* vCont;action[:thread];... The first that fits a thread counts; a thread that none fits stays. */
static void
cmd_vcont(struct gdb *g, const char *p)
{
	enum cpu_debug_go how[CPUS_MAX];
	bool set[CPUS_MAX] = { false };

	for (int i = 0; i < g->c->count; i++)
		how[i] = CPU_DEBUG_STAY;
	while (*p == ';') {
		char action = *++p;
		int thread = -1;
		uint64_t signal;

		if (!action || !strchr("cCsS", action)) {
			reply_error(g, EINVAL);
			return;
		}
		p++;
		if (action == 'C' || action == 'S')
			hex_number(&p, &signal);
		if (*p == ':' && (p++, !thread_id(g, &p, &thread))) {
			reply_error(g, EINVAL);
			return;
		}
		for (int i = 0; i < g->c->count; i++) {
			if (set[i] || (thread > 0 && thread != i + 1))
				continue;
			set[i] = true;
			how[i] = action == 's' || action == 'S' ? CPU_DEBUG_STEP : CPU_DEBUG_RUN;
		}
	}
	go(g, how);
}

static void
cmd_vcont_what(struct gdb *g, const char *p)
{
	gdb_reply(g, "vCont;c;C;s;S");
}

static void
cmd_detach(struct gdb *g, const char *p)
{
	gdb_reply(g, "OK");
	g->gone = true;
}

static void
cmd_kill(struct gdb *g, const char *p)
{
	if (p[-1] != 'k')
		gdb_reply(g, "OK");
	g->gone = true;
	g->ops->quit(g->opaque);
}

static void
cmd_why(struct gdb *g, const char *p)
{
	reply_stop(g);
}

/* ---- commands: threads ---- */

static void
cmd_select(struct gdb *g, const char *p)
{
	char what = *p++;
	int thread;

	if ((what != 'g' && what != 'c') || !thread_id(g, &p, &thread)) {
		reply_error(g, EINVAL);
		return;
	}
	if (thread > 0 && what == 'c')
		g->step_cpu = thread - 1;
	if (thread > 0 && what == 'g')
		look_at(g, thread - 1);
	gdb_reply(g, "OK");
}

static void
cmd_alive(struct gdb *g, const char *p)
{
	int thread;

	if (thread_id(g, &p, &thread) && thread > 0)
		gdb_reply(g, "OK");
	else
		reply_error(g, EINVAL);
}

static void
cmd_current(struct gdb *g, const char *p)
{
	char text[16];

	snprintf(text, sizeof(text), "QC%x", g->cpu + 1);
	gdb_reply(g, text);
}

static void
cmd_threads(struct gdb *g, const char *p)
{
	struct str s = { 0 };

	for (int i = 0; i < g->c->count; i++)
		str_addf(&s, "%s%x", i ? "," : "m", i + 1);
	reply_str(g, &s);
}

static void
cmd_no_more_threads(struct gdb *g, const char *p)
{
	gdb_reply(g, "l");
}

/* "CPU 1, halted, ring 0" */
static void
describe_cpu(struct gdb *g, int i, char *out, size_t size)
{
	static const char *const states[] = { [VCPU_WAIT_SIPI] = "waits for its start",
		[VCPU_RUN] = "runs",
		[VCPU_HALT] = "halted",
		[VCPU_PARKED] = "parked",
		[VCPU_DEAD] = "shut down" };
	const struct vcpu *v = g->c->cpu[i];

	snprintf(out, size, "CPU %d, %s, ring %u", i, states[v->run_state], SEG_DPL(v->state.seg[SEG_SS].attr));
}

static void
cmd_thread_text(struct gdb *g, const char *p)
{
	struct str s = { 0 };
	char text[64];
	int thread;

	if (!thread_id(g, &p, &thread) || thread < 1) {
		reply_error(g, EINVAL);
		return;
	}
	describe_cpu(g, thread - 1, text, sizeof(text));
	hex_add(&s, text, strlen(text));
	reply_str(g, &s);
}

/* ---- commands: registers ---- */

static void
cmd_read_all(struct gdb *g, const char *p)
{
	struct str s = { 0 };
	uint8_t value[REG_BYTES_MAX];

	for (int i = 0; i < reg_count(g->regs); i++) {
		reg_read(g->regs, i, selected(g), value);
		hex_add(&s, value, reg_bytes(g->regs, i));
	}
	reply_str(g, &s);
}

static void
cmd_write_all(struct gdb *g, const char *p)
{
	uint8_t value[REG_BYTES_MAX];

	for (int i = 0; i < reg_count(g->regs) && *p; i++) {
		unsigned n = reg_bytes(g->regs, i);
		enum reg_result r;

		memset(value, 0, sizeof(value));
		if (!strncmp(p, "xxxxxxxx", n < 4 ? 2 * n : 8)) { /* not known to the client */
			p += strlen(p) < 2 * n ? strlen(p) : 2 * n;
			continue;
		}
		if (!hex_bytes(&p, value, n)) {
			reply_error(g, EINVAL);
			return;
		}
		r = reg_write(g->regs, i, selected(g), g->view, value);
		if (r == REG_REFUSED) {
			reply_error(g, EINVAL);
			return;
		}
	}
	gdb_reply(g, "OK");
}

static void
cmd_read_one(struct gdb *g, const char *p)
{
	struct str s = { 0 };
	uint8_t value[REG_BYTES_MAX];
	uint64_t n;

	if (!hex_number(&p, &n) || n >= (uint64_t)reg_count(g->regs)) {
		reply_error(g, EINVAL);
		return;
	}
	reg_read(g->regs, (int)n, selected(g), value);
	hex_add(&s, value, reg_bytes(g->regs, (int)n));
	reply_str(g, &s);
}

static void
cmd_write_one(struct gdb *g, const char *p)
{
	uint8_t value[REG_BYTES_MAX] = { 0 };
	uint64_t n;

	if (!hex_number(&p, &n) || n >= (uint64_t)reg_count(g->regs) || *p++ != '=' ||
		!hex_bytes(&p, value, reg_bytes(g->regs, (int)n))) {
		reply_error(g, EINVAL);
		return;
	}
	switch (reg_write(g->regs, (int)n, selected(g), g->view, value)) {
	case REG_OK:
		gdb_reply(g, "OK");
		break;
	case REG_READ_ONLY:
		reply_error(g, EPERM);
		break;
	default:
		reply_error(g, EINVAL);
	}
}

/* ---- commands: memory ---- */

static bool
range(const char **p, uint64_t *a, uint64_t *len)
{
	return hex_number(p, a) && *(*p)++ == ',' && hex_number(p, len);
}

static void
cmd_read_memory(struct gdb *g, const char *p)
{
	uint8_t buf[PACKET_MAX / 2 - 16];
	struct str s = { 0 };
	uint64_t a, len;
	size_t n;

	if (!range(&p, &a, &len)) {
		reply_error(g, EINVAL);
		return;
	}
	n = cpu_view_read(g->view, a, buf, MIN(len, sizeof(buf)));
	if (!n && len) {
		reply_error(g, EFAULT);
		return;
	}
	hex_add(&s, buf, n);
	reply_str(g, &s);
}

static void
write_memory(struct gdb *g, uint64_t a, const void *data, size_t len)
{
	if (cpu_view_write(g->view, a, data, len) == len)
		gdb_reply(g, "OK");
	else
		reply_error(g, EFAULT);
}

static void
cmd_write_memory(struct gdb *g, const char *p)
{
	uint8_t buf[PACKET_MAX / 2];
	uint64_t a, len;

	if (!range(&p, &a, &len) || *p++ != ':' || len > sizeof(buf) || !hex_bytes(&p, buf, (size_t)len))
		reply_error(g, EINVAL);
	else
		write_memory(g, a, buf, (size_t)len);
}

static void
cmd_write_binary(struct gdb *g, const char *p)
{
	const char *end = g->in.data + g->in.len;
	uint64_t a, len;

	if (!range(&p, &a, &len) || *p++ != ':' || (uint64_t)(end - p) < len)
		reply_error(g, EINVAL);
	else
		write_memory(g, a, p, (size_t)len);
}

/* ---- commands: breakpoints ---- */

/* type,address,kind; kind is the length of what a watchpoint watches. */
static bool
parse_point(const char *p, struct gdb_point *out)
{
	uint64_t type, a, kind;

	if (!hex_number(&p, &type) || *p++ != ',' || !range(&p, &a, &kind) || type > 4 ||
		(type >= 2 && (!kind || kind > PAGE_SIZE)))
		return false;
	*out = (struct gdb_point){ .a = a, .len = type < 2 ? 0 : (uint32_t)kind, .type = (int)type };
	return true;
}

static int
find_point(struct gdb *g, const struct gdb_point *p)
{
	for (int i = 0; i < g->point_count; i++)
		if (g->points[i].a == p->a && g->points[i].len == p->len && g->points[i].type == p->type)
			return i;
	return -1;
}

static void
cmd_insert(struct gdb *g, const char *p)
{
	struct cpu_debug trial;
	struct gdb_point point;

	if (!parse_point(p, &point)) {
		reply_error(g, EINVAL);
		return;
	}
	if (find_point(g, &point) >= 0) {
		gdb_reply(g, "OK");
		return;
	}
	if (g->point_count == GDB_POINTS_MAX) {
		reply_error(g, ENOSPC);
		return;
	}
	g->points[g->point_count++] = point;
	if (make_set(g, &trial)) {
		gdb_reply(g, "OK");
		return;
	}
	g->point_count--;
	reply_error(g, ENOSPC);
}

static void
cmd_remove(struct gdb *g, const char *p)
{
	struct gdb_point point;
	int i;

	if (!parse_point(p, &point)) {
		reply_error(g, EINVAL);
		return;
	}
	i = find_point(g, &point);
	if (i >= 0) /* in the order of their coming, so that the same set looks the same */
		memmove(&g->points[i], &g->points[i + 1], (size_t)(--g->point_count - i) * sizeof(point));
	gdb_reply(g, "OK");
}

/* ---- commands: what the server can do ---- */

static void
cmd_supported(struct gdb *g, const char *p)
{
	char text[160];

	snprintf(text, sizeof(text),
		"PacketSize=%x;qXfer:features:read+;qXfer:threads:read+;QStartNoAckMode+;vContSupported+;swbreak+;"
		"hwbreak+",
		PACKET_MAX - 8);
	gdb_reply(g, text);
}

static void
cmd_no_ack(struct gdb *g, const char *p)
{
	gdb_reply(g, "OK");
	g->no_ack = true;
}

/* "offset,length" of a document. */
static void
transfer(struct gdb *g, const char *p, const char *document)
{
	size_t size = strlen(document);
	struct str s = { 0 };
	uint64_t off, len;

	if (!range(&p, &off, &len)) {
		reply_error(g, EINVAL);
		return;
	}
	off = MIN(off, size);
	len = MIN(MIN(len, size - off), PACKET_MAX / 2 - 16); /* escapes may double it */
	str_add(&s, off + len < size ? "m" : "l");
	str_addn(&s, document + off, (size_t)len);
	reply_str(g, &s);
}

static void
cmd_features(struct gdb *g, const char *p)
{
	if (strncmp(p, "target.xml:", 11))
		reply_error(g, ENOENT);
	else
		transfer(g, p + 11, reg_target_xml(g->regs));
}

static void
cmd_thread_list(struct gdb *g, const char *p)
{
	struct str s = { 0 };
	char text[64];

	str_add(&s, "<?xml version=\"1.0\"?><threads>");
	for (int i = 0; i < g->c->count; i++) {
		describe_cpu(g, i, text, sizeof(text));
		str_addf(&s, "<thread id=\"%x\" core=\"%d\" name=\"cpu%d\">%s</thread>", i + 1, i, i, text);
	}
	str_add(&s, "</threads>");
	transfer(g, p, s.s);
	str_free(&s);
}

static void
cmd_attached(struct gdb *g, const char *p)
{
	gdb_reply(g, "1");
}

static void
cmd_ok(struct gdb *g, const char *p)
{
	gdb_reply(g, "OK");
}

static void
cmd_monitor(struct gdb *g, const char *p)
{
	char line[512];
	size_t n = strlen(p) / 2;

	if (n >= sizeof(line) || !hex_bytes(&p, line, n)) {
		reply_error(g, EINVAL);
		return;
	}
	line[n] = 0;
	gdb_monitor(g, line);
}

/* The longest prefix first where one begins another. */
static const struct {
	const char *prefix;
	void (*run)(struct gdb *g, const char *p); /* p: behind the prefix */
} commands[] = {
	{ "?", cmd_why },
	{ "c", cmd_continue },
	{ "C", cmd_continue },
	{ "s", cmd_continue },
	{ "S", cmd_continue },
	{ "vCont?", cmd_vcont_what },
	{ "vCont", cmd_vcont },
	{ "vKill", cmd_kill },
	{ "D", cmd_detach },
	{ "k", cmd_kill },
	{ "H", cmd_select },
	{ "T", cmd_alive },
	{ "g", cmd_read_all },
	{ "G", cmd_write_all },
	{ "p", cmd_read_one },
	{ "P", cmd_write_one },
	{ "m", cmd_read_memory },
	{ "M", cmd_write_memory },
	{ "X", cmd_write_binary },
	{ "Z", cmd_insert },
	{ "z", cmd_remove },
	{ "qSupported", cmd_supported },
	{ "QStartNoAckMode", cmd_no_ack },
	{ "qXfer:features:read:", cmd_features },
	{ "qXfer:threads:read::", cmd_thread_list },
	{ "qfThreadInfo", cmd_threads },
	{ "qsThreadInfo", cmd_no_more_threads },
	{ "qThreadExtraInfo,", cmd_thread_text },
	{ "qAttached", cmd_attached },
	{ "qSymbol", cmd_ok },
	{ "qRcmd,", cmd_monitor },
	{ "qC", cmd_current },
};

static void
act_on_packet(struct gdb *g)
{
	const char *p = g->in.data;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		size_t n = strlen(commands[i].prefix);

		if (!strncmp(p, commands[i].prefix, n)) {
			commands[i].run(g, p + n);
			return;
		}
	}
	gdb_reply(g, ""); /* not supported */
}

/* ---- a client ---- */

static void
take_byte(struct gdb *g, uint8_t byte)
{
	switch (packet_feed(&g->in, byte)) {
	case PACKET_READY:
		if (!g->no_ack)
			send_all(g, "+", 1);
		if (!g->running)
			act_on_packet(g);
		break;
	case PACKET_DAMAGED:
		if (!g->no_ack)
			send_all(g, "-", 1);
		break;
	case PACKET_NACK:
		if (g->last.s)
			send_all(g, g->last.s, g->last.len);
		break;
	case PACKET_BREAK:
		if (g->running)
			stopped(g);
		break;
	case PACKET_ACK:
	case PACKET_MORE:
		break;
	}
}

static void
take_bytes(struct gdb *g)
{
	uint8_t buf[4096];
	ssize_t n = recv(g->fd, buf, sizeof(buf), 0);

	if (n <= 0 && !(n < 0 && errno == EINTR))
		g->gone = true;
	/* A web page can make a browser send anything to this port, but not first of all. */
	if (n > 0 && !g->heard && !memchr("$+-\3", buf[0], 4)) {
		log_warn(g->c->m->name, "gdb: who connected does not speak gdb's protocol");
		g->gone = true;
	}
	g->heard = true;
	for (ssize_t i = 0; i < n && !g->gone; i++)
		take_byte(g, buf[i]);
}

/* Wait for the client, a CPU, or the end of it all. */
static void
wait_for_client(struct gdb *g)
{
	struct pollfd p[] = { { .fd = g->fd, .events = POLLIN }, { .fd = g->quit, .events = POLLIN },
		{ .fd = g->running ? g->wake : -1, .events = POLLIN } };

	if (poll(p, 3, -1) < 0)
		return;
	if (p[1].revents) {
		if (g->running)
			gdb_reply(g, "W00");
		g->gone = true;
		return;
	}
	if (p[2].revents)
		stopped(g);
	else if (p[0].revents)
		take_bytes(g);
}

static void
forget_client(struct gdb *g)
{
	memset(&g->in, 0, sizeof(g->in));
	g->no_ack = g->gone = g->step_irqs = g->heard = false;
	g->point_count = 0;
	g->cpu = g->step_cpu = 0;
	str_free(&g->last);
}

void
gdb_serve(struct gdb *g, int fd)
{
	struct err e;

	forget_client(g);
	hold(g);
	make_set(g, &g->set);
	if (cpu_debug_attach(g->c, &g->set, &e)) {
		log_error(g->c->m->name, "gdb: %s", e.text);
		release(g);
		return;
	}
	g->fd = fd;
	g->first_stop = true;
	look_at(g, 0);
	while (!g->gone)
		wait_for_client(g);
	hold(g);
	cpu_debug_detach(g->c);
	g->fd = -1;
	release(g);
}

static void *
serve(void *opaque)
{
	struct gdb *g = opaque;

	for (;;) {
		struct pollfd p[] = { { .fd = g->listener, .events = POLLIN }, { .fd = g->quit, .events = POLLIN } };
		int fd, one = 1;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
		fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		log_info(g->c->m->name, "gdb: a client has come");
		gdb_serve(g, fd);
		log_info(g->c->m->name, "gdb: the client has gone");
		close(fd);
	}
}

/* ---- life ---- */

static int
listen_tcp(struct gdb *g, uint16_t port, struct err *e)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t len = sizeof(sa);
	int one = 1;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	g->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (g->listener < 0)
		return err_sys(e, ERR_HOST, errno, "cannot make a socket for gdb");
	setsockopt(g->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(g->listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(g->listener, 1))
		return err_sys(e, ERR_HOST, errno, "cannot listen for gdb on 127.0.0.1 port %u", port);
	getsockname(g->listener, (struct sockaddr *)&sa, &len);
	g->port = ntohs(sa.sin_port);
	return 0;
}

static int
listen_unix(struct gdb *g, const char *path, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int probe;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, ERR_INVALID, "the path of gdb's socket is longer than %zu bytes: %s",
			sizeof(sa.sun_path) - 1, path);
	memcpy(sa.sun_path, path, strlen(path));
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe >= 0 && connect(probe, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno == ECONNREFUSED)
		unlink(path); /* a socket that nobody listens on any more */
	if (probe >= 0)
		close(probe);
	g->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (g->listener < 0)
		return err_sys(e, ERR_HOST, errno, "cannot make a socket for gdb");
	fchmod(g->listener, 0600); /* before anybody can see it */
	if (bind(g->listener, (struct sockaddr *)&sa, sizeof(sa)))
		return err_sys(e, ERR_HOST, errno, "cannot listen for gdb on %s", path);
	g->path = xstrdup(path);
	if (chmod(path, 0600) || listen(g->listener, 1))
		return err_sys(e, ERR_HOST, errno, "cannot listen for gdb on %s", path);
	return 0;
}

struct gdb *
gdb_open(const char *where, struct cpus *c, const struct debug_ops *ops, void *opaque, bool wait, struct err *e)
{
	struct gdb *g = xcalloc(1, sizeof(*g));
	uint64_t port;

	g->c = c;
	g->ops = ops;
	g->opaque = opaque;
	g->running = !wait;
	g->fd = g->listener = -1;
	g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->quit = eventfd(0, EFD_CLOEXEC);
	g->regs = reg_set_open(&c->model);
	g->view = cpu_view_open(c);
	if (!c->engine->debug)
		err_set(e, ERR_UNSUPPORTED, "the engine '%s' cannot be debugged", c->engine->name);
	else if (g->wake < 0 || g->quit < 0 || !g->view)
		err_set(e, ERR_HOST, "no memory or file descriptor for the debugger");
	else if (!where ||
		 !(str_to_u64(where, 0, 65535, &port) ? listen_tcp(g, (uint16_t)port, e) : listen_unix(g, where, e)))
		return g;
	gdb_close(g);
	return NULL;
}

int
gdb_start(struct gdb *g, struct err *e)
{
	int r = pthread_create(&g->thread, NULL, serve, g);

	if (r)
		return err_sys(e, ERR_HOST, r, "cannot start a thread");
	g->started = true;
	return 0;
}

void
gdb_close(struct gdb *g)
{
	uint64_t one = 1;
	ssize_t r;

	if (!g)
		return;
	r = write(g->quit, &one, sizeof(one));
	(void)r;
	if (g->started)
		pthread_join(g->thread, NULL);
	if (g->listener >= 0)
		close(g->listener);
	if (g->path)
		unlink(g->path);
	free(g->path);
	if (g->wake >= 0)
		close(g->wake);
	if (g->quit >= 0)
		close(g->quit);
	str_free(&g->last);
	reg_set_close(g->regs);
	cpu_view_close(g->view);
	free(g);
}

unsigned
gdb_port(const struct gdb *g)
{
	return g->port;
}
