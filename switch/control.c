/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a network: requests of host/ (switch/protocol.h), one connection each. Only the owner of the
 * directory can reach it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "switch/helper.h"
#include "switch/process.h"

#define CLIENTS_MAX 32

struct client {
	struct control *k;
	int fd;
	struct loop_watch *watch;
	struct str in;
	struct client *next;
};

struct control {
	struct network *n;
	int fd;
	struct loop_watch *watch;
	struct client *clients;
	int count;
};

/* ---- methods ---- */

static void
ip_text(uint32_t ip, char out[16])
{
	snprintf(out, 16, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static void
add_counters(json_t *o, const struct sw_counters *n)
{
#define ROW(name, text) json_object_set_new(o, #name, json_integer((json_int_t)n->name));
	SW_COUNTERS(ROW)
#undef ROW
}

static json_t *
describe_port(struct network *n, const struct port *p)
{
	const uint8_t *m = p->file.c.mac;
	uint32_t ip = port_ip(n, p);
	char mac[13], text[16] = "";
	json_t *o;

	snprintf(mac, sizeof(mac), "%02x%02x%02x%02x%02x%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	if (ip)
		ip_text(ip, text);
	o = json_pack("{s:s, s:s, s:i, s:s, s:i, s:b, s:s, s:I, s:i}", "port", p->id, "machine", p->file.machine,
		"slot", p->file.slot, "mac", mac, "vlan", (int)p->file.c.vlan, "trunk", p->file.c.trunk, "ip", text,
		"rate", (json_int_t)p->file.rate, "addresses", (int)sw_port_addresses(n->core, p->number));
	add_counters(o, sw_port_counters(n->core, p->number));
	return o;
}

static json_t *
do_status(struct network *n, json_t *params, struct err *e)
{
	json_t *ports = json_array(), *uplink = json_null(), *o;
	struct dhcp *d = station_dhcp(n);

	for (struct port *p = n->ports; p; p = p->next)
		if (p->number >= 0)
			json_array_append_new(ports, describe_port(n, p));
	if (uplink_port(n) >= 0) {
		uplink = json_object();
		add_counters(uplink, sw_port_counters(n->core, uplink_port(n)));
	}
	o = json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "pid", (int)getpid(), "name", n->c.name, "mode",
		n->mode, "mode_reason", n->mode_reason, "interface", n->c.interface, "ports", ports, "uplink", uplink,
		"leases", d ? leases_json(d) : json_array());
	return o;
}

static json_t *
do_reload(struct network *n, json_t *params, struct err *e)
{
	return network_reload(n, e) ? NULL : json_object();
}

static json_t *
do_connect(struct network *n, json_t *params, struct err *e)
{
	json_int_t port = json_integer_value(json_object_get(params, "port"));
	uint32_t ip;
	int r;

	if (!parse_ipv4(json_string_value(json_object_get(params, "ip")), &ip) || port < 1 || port > 65535) {
		err_set(e, ERR_INVALID, "'ip' and 'port' are needed");
		return NULL;
	}
	r = uplink_connect(n, ip, (uint16_t)port, e);
	return r < 0 ? NULL : json_pack("{s:i}", "port", r);
}

static void
trace_frame(void *opaque, const uint8_t *frame, size_t len)
{
	pcap_frame(opaque, frame, len);
}

static json_t *
do_trace(struct network *n, json_t *params, struct err *e)
{
	bool on = json_is_true(json_object_get(params, "on"));
	char *path = xasprintf("%s/" SWITCH_FILE_TRACE, n->dir);
	struct pcap *trace = on ? pcap_open(path, e) : NULL;

	free(path);
	if (on && !trace)
		return NULL;
	sw_trace(n->core, trace ? trace_frame : NULL, trace);
	pcap_close(n->trace);
	n->trace = trace;
	return json_object();
}

static json_t *
do_dhcp(struct network *n, json_t *params, struct err *e)
{
	station_serve(n, json_is_true(json_object_get(params, "on")));
	return json_object();
}

static json_t *
do_hold(struct network *n, json_t *params, struct err *e)
{
	n->held = true;
	loop_timer_cancel(&n->linger);
	return json_object();
}

static json_t *
do_shutdown(struct network *n, json_t *params, struct err *e)
{
	loop_stop(n->loop);
	return json_object();
}

static const struct {
	const char *name;
	json_t *(*call)(struct network *n, json_t *params, struct err *e);
} methods[] = {
	{ "status", do_status },
	{ "reload", do_reload },
	{ "connect", do_connect },
	{ "trace", do_trace },
	{ "dhcp", do_dhcp },
	{ "hold", do_hold },
	{ "shutdown", do_shutdown },
};

static json_t *
call(struct network *n, json_t *request, struct err *e)
{
	const char *name = json_string_value(json_object_get(request, "method"));

	for (size_t i = 0; name && i < ARRAY_LEN(methods); i++)
		if (!strcmp(methods[i].name, name))
			return methods[i].call(n, json_object_get(request, "params"), e);
	err_set(e, ERR_UNSUPPORTED, "there is no method '%.64s'", name ? name : "");
	return NULL;
}

/* ---- connections ---- */

static void
client_close(struct client *c)
{
	struct client **at = &c->k->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->k->count--;
	loop_watch_remove(c->watch);
	close(c->fd);
	str_free(&c->in);
	free(c);
}

/* The client waits for it and has read everything before; what does not go out within the socket's time is lost. */
static void
reply(struct client *c, json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT);
	size_t n = text ? strlen(text) : 0, done = 0;
	uint8_t head[4];

	put_le32(head, (uint32_t)n);
	if (n && send(c->fd, head, 4, MSG_NOSIGNAL | MSG_MORE) == 4)
		while (done < n) {
			ssize_t k = send(c->fd, text + done, n - done, MSG_NOSIGNAL);

			if (k <= 0)
				break;
			done += (size_t)k;
		}
	free(text);
	json_decref(o);
}

static void
answer(struct client *c, const char *text, size_t len)
{
	json_t *request = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *result;
	struct err e = { 0 };

	result = call(c->k->n, request, &e);
	if (result)
		reply(c, json_pack("{s:O?, s:o}", "id", json_object_get(request, "id"), "result", result));
	else
		reply(c, json_pack("{s:O?, s:{s:s, s:s}}", "id", json_object_get(request, "id"), "error", "code",
				 err_info(e.code)->vbox_name, "text", e.text));
	json_decref(request);
}

static void
client_ready(void *opaque, int ready)
{
	struct client *c = opaque;
	char piece[8192];
	ssize_t n = recv(c->fd, piece, sizeof(piece), MSG_DONTWAIT);
	uint32_t len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(c);
		return;
	}
	str_addn(&c->in, piece, (size_t)n);
	while (c->in.len >= 4) {
		len = le32(c->in.s);
		if (!len || len > SWITCH_MESSAGE_MAX) {
			client_close(c);
			return;
		}
		if (c->in.len - 4 < len)
			return;
		answer(c, c->in.s + 4, len);
		memmove(c->in.s, c->in.s + 4 + len, c->in.len - 4 - len);
		c->in.len -= 4 + len;
	}
}

static void
accept_client(void *opaque, int ready)
{
	struct control *k = opaque;
	int fd = accept4(k->fd, NULL, NULL, SOCK_CLOEXEC);
	struct timeval most = { .tv_sec = 1 };
	struct client *c;

	if (fd < 0)
		return;
	if (k->count == CLIENTS_MAX) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	c = xcalloc(1, sizeof(*c));
	*c = (struct client){ .k = k, .fd = fd, .next = k->clients };
	c->watch = loop_watch_add(k->n->loop, fd, LOOP_IN, client_ready, c);
	k->clients = c;
	k->count++;
	if (!c->watch)
		client_close(c);
}

int
control_open(struct network *n, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct control *k = xcalloc(1, sizeof(*k));

	n->control = k;
	k->n = n;
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/" SWITCH_FILE_CONTROL, n->dir_fd);
	unlinkat(n->dir_fd, SWITCH_FILE_CONTROL, 0);
	if (k->fd < 0 || bind(k->fd, (struct sockaddr *)&sa, sizeof(sa)) ||
		fchmodat(n->dir_fd, SWITCH_FILE_CONTROL, 0600, 0) || listen(k->fd, CLIENTS_MAX))
		return err_sys(e, ERR_HOST, errno, "Cannot listen on '%s/" SWITCH_FILE_CONTROL "'", n->dir);
	k->watch = loop_watch_add(n->loop, k->fd, LOOP_IN, accept_client, k);
	return k->watch ? 0 : err_set(e, ERR_HOST, "no memory for a network");
}

void
control_close(struct network *n)
{
	struct control *k = n->control;

	if (!k)
		return;
	while (k->clients)
		client_close(k->clients);
	loop_watch_remove(k->watch);
	if (k->fd >= 0)
		close(k->fd);
	free(k);
	n->control = NULL;
}
