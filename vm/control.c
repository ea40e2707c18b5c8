/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: framing, connections, order of answers. What the methods do is in methods.c; the protocol in
 * vm/protocol.h.
 *
 * Clients are not trusted to be well-behaved, so nothing here waits for one: sockets do not block, input is read in
 * bounded pieces into a buffer that grows to the message announced and no further, a client whose answers pile up is
 * dropped, and there are at most CLIENTS_MAX of them.
 *
 * A connection's states: reading a message; waiting for an answer that was put off (`busy`: nothing is read meanwhile,
 * which keeps answers in order); closing (`doomed`: what is buffered is still written, nothing is read).
 *
 * All of it runs on the loop under the machine lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "vm/private.h"

#define CLIENTS_MAX 32
#define OUTPUT_MAX (2u * VM_REPLY_MAX)
#define READ_PIECE 16384

struct client {
	struct control *control;
	uint64_t number;
	int fd;
	struct loop_watch *watch;
	struct str in, out;
	size_t out_done;
	bool busy, doomed;
	int fds[8]; /* to go with the next bytes */
	int fd_count;
	int passed_fd; /* came with the last request; 0: none */
	struct client *next;
};

struct control {
	struct vm *v;
	char *path;
	int fd;
	struct loop_watch *watch;
	struct client *clients;
	unsigned count;
	uint64_t next_number;
};

static void
close_fds(struct client *c)
{
	while (c->fd_count)
		close(c->fds[--c->fd_count]);
}

/* As send(); descriptors go along once. */
static ssize_t
client_send(struct client *c)
{
	struct iovec iov = { c->out.s + c->out_done, c->out.len - c->out_done };
	char space[CMSG_SPACE(sizeof(c->fds))] = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (c->fd_count) {
		struct cmsghdr *h;

		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE((size_t)c->fd_count * sizeof(int));
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN((size_t)c->fd_count * sizeof(int));
		memcpy(CMSG_DATA(h), c->fds, (size_t)c->fd_count * sizeof(int));
	}
	n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		close_fds(c);
	return n;
}

static void
client_close(struct client *c)
{
	struct client **p = &c->control->clients;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	c->control->count--;
	vm_agent_client_gone(c->control->v, c->number);
	loop_watch_remove(c->watch);
	close_fds(c);
	close(c->fd);
	if (c->passed_fd > 0)
		close(c->passed_fd);
	str_free(&c->in);
	str_free(&c->out);
	free(c);
}

static void
client_watch(struct client *c)
{
	int events = c->out.len > c->out_done ? LOOP_OUT : 0;

	if (!c->busy && !c->doomed)
		events |= LOOP_IN;
	loop_watch_set(c->watch, events);
}

/* Write what the socket takes. False: the client is gone (and freed). */
static bool
client_flush(struct client *c)
{
	while (c->out_done < c->out.len) {
		ssize_t n = client_send(c);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			client_close(c);
			return false;
		}
		c->out_done += (size_t)n;
	}
	if (c->out_done == c->out.len) {
		str_free(&c->out);
		c->out = (struct str){ 0 };
		c->out_done = 0;
		if (c->doomed) {
			client_close(c);
			return false;
		}
	}
	client_watch(c);
	return true;
}

/* A frame of `message` behind `out`; an answer too large for the protocol becomes an error. */
static void
add_frame(struct str *out, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);
	uint8_t head[4];
	size_t len = text ? strlen(text) : 0;

	if (text && len <= VM_REPLY_MAX) {
		put_le32(head, (uint32_t)len);
		str_addn(out, (const char *)head, sizeof(head));
		str_addn(out, text, len);
	}
	free(text);
}

static json_t *
make_answer(json_t *id, json_t *result, const struct err *e)
{
	json_t *message = json_object();

	json_object_set(message, "id", id ? id : json_null());
	if (result)
		json_object_set_new(message, "result", result);
	else
		json_object_set_new(message, "error",
			json_pack("{s:s, s:s}", "code", err_info(e->code)->vbox_name, "text", e->text));
	return message;
}

/* Queue an answer. Takes `result` over. */
static void
client_answer(struct client *c, json_t *id, json_t *result, const struct err *e)
{
	json_t *message = make_answer(id, result, e);

	add_frame(&c->out, message);
	json_decref(message);
	if (c->out.len - c->out_done > OUTPUT_MAX)
		c->doomed = true;
}

/* The client does not speak the protocol: say so and hang up. */
static void
client_refuse(struct client *c, const char *what)
{
	struct err e;

	err_set(&e, ERR_INVALID, "%s", what);
	client_answer(c, NULL, NULL, &e);
	c->doomed = true;
}

static void
client_request(struct client *c, const char *text, size_t len)
{
	json_t *message = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *params, *result = NULL;
	const char *method = json_string_value(json_object_get(message, "method"));
	json_t *id = json_object_get(message, "id");
	struct vm_asker asker = { c->number, id };
	struct err e = { 0 };

	params = json_object_get(message, "params");
	if (!method || !id || (params && !json_is_object(params)) || (!json_is_integer(id) && !json_is_string(id))) {
		client_refuse(c, "a request is {\"id\":n,\"method\":\"...\",\"params\":{}}");
	} else {
		switch (method_call(c->control->v, method, params, &asker, &result, &e)) {
		case METHOD_DONE:
			client_answer(c, id, result, NULL);
			break;
		case METHOD_FAILED:
			client_answer(c, id, NULL, &e);
			break;
		case METHOD_LATER:
			c->busy = true;
			break;
		}
	}
	json_decref(message);
}

/* Carry out the requests that are complete. */
static void
client_parse(struct client *c)
{
	size_t done = 0;

	while (!c->busy && !c->doomed && c->in.len - done >= 4) {
		uint32_t len = le32(c->in.s + done);

		if (!len || len > VM_MESSAGE_MAX) {
			client_refuse(c, "a message has 1 to 1048576 bytes");
			break;
		}
		if (c->in.len - done - 4 < len)
			break;
		client_request(c, c->in.s + done + 4, len);
		done += 4 + len;
	}
	if (done) {
		memmove(c->in.s, c->in.s + done, c->in.len - done);
		c->in.len -= done;
	}
}

/* At most one descriptor is kept, the last that came. */
static ssize_t
receive(struct client *c, char *piece, size_t size)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { piece, size };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int))) {
		if (c->passed_fd > 0)
			close(c->passed_fd);
		memcpy(&c->passed_fd, CMSG_DATA(h), sizeof(int));
	}
	return n;
}

/* One piece, so that a busy client does not keep the loop. False: the client is gone. */
static bool
client_read(struct client *c)
{
	char piece[READ_PIECE];
	ssize_t n = receive(c, piece, sizeof(piece));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		client_close(c);
		return false;
	}
	str_addn(&c->in, piece, (size_t)n);
	client_parse(c);
	return true;
}

static void
client_ready(void *opaque, int ready)
{
	struct client *c = opaque;

	if (ready & LOOP_HUP && !(ready & LOOP_IN)) {
		client_close(c);
		return;
	}
	if (ready & LOOP_IN && !c->busy && !c->doomed && !client_read(c))
		return;
	client_flush(c);
}

static void
accept_client(void *opaque, int ready)
{
	struct control *k = opaque;
	int fd = accept4(k->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c;

	if (fd < 0)
		return;
	if (k->count >= CLIENTS_MAX) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->control = k;
	c->number = ++k->next_number;
	c->fd = fd;
	c->watch = loop_watch_add(k->v->m->loop, fd, LOOP_IN, client_ready, c);
	if (!c->watch) {
		close(fd);
		free(c);
		return;
	}
	c->next = k->clients;
	k->clients = c;
	k->count++;
}

static struct client *
find_client(struct control *k, uint64_t number)
{
	struct client *c = k->clients;

	while (c && c->number != number)
		c = c->next;
	return c;
}

void
control_answer(struct control *k, struct vm_asker *a, json_t *result, const struct err *e)
{
	struct client *c = a->client ? find_client(k, a->client) : NULL;

	if (!c) {
		json_decref(result);
		return;
	}
	client_answer(c, a->id, result, e);
	c->busy = false;
	client_parse(c);
	client_flush(c);
}

void
control_attach(struct control *k, const struct vm_asker *a, const int *fds, int count)
{
	struct client *c = a->client ? find_client(k, a->client) : NULL;

	for (int i = 0; i < count; i++)
		if (c && c->fd_count < (int)ARRAY_LEN(c->fds))
			c->fds[c->fd_count++] = fds[i];
		else
			close(fds[i]);
}

void
control_progress(struct control *k, const struct vm_asker *a, int percent)
{
	struct client *c = a->client ? find_client(k, a->client) : NULL;
	json_t *message;

	if (!c || c->out.len > c->out_done) /* who does not read misses some */
		return;
	message = json_pack("{s:O, s:i}", "id", a->id, "progress", percent);
	add_frame(&c->out, message);
	json_decref(message);
	client_flush(c);
}

int
control_take_fd(struct control *k, const struct vm_asker *a)
{
	struct client *c = a->client ? find_client(k, a->client) : NULL;
	int fd = c && c->passed_fd > 0 ? c->passed_fd : -1;

	if (c)
		c->passed_fd = 0;
	return fd;
}

int
control_keep(struct control *k, const struct vm_asker *a)
{
	struct client *c = a->client ? find_client(k, a->client) : NULL;

	return c ? fcntl(c->fd, F_DUPFD_CLOEXEC, 3) : -1;
}

void
control_last_words(int fd, json_t *id, json_t *result)
{
	json_t *message = make_answer(id, result, NULL);
	struct str frame = { 0 };

	if (fd >= 0) {
		add_frame(&frame, message);
		if (send(fd, frame.s, frame.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			log_warn("control", "the answer to the power-off could not be sent");
		close(fd);
	}
	str_free(&frame);
	json_decref(message);
}

unsigned
control_clients(const struct control *c)
{
	return c->count;
}

/* ---- life ---- */

/* A path too long for a socket address is reached through the directory's descriptor. */
static int
bind_socket(int fd, const char *path, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	mode_t old;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, ERR_FILE,
			"the path of the control socket is too long (%zu characters, at most %zu): %s", strlen(path),
			sizeof(sa.sun_path) - 1, path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	unlink(path); /* the lock says that nobody else uses it */
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	umask(old);
	if (r || listen(fd, 16))
		return err_sys(e, ERR_FILE, errno, "cannot listen on %s", path);
	return 0;
}

struct control *
control_open(struct vm *v, const char *path, struct err *e)
{
	struct control *k = xcalloc(1, sizeof(*k));

	k->v = v;
	k->path = xstrdup(path);
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (k->fd < 0) {
		err_sys(e, ERR_HOST, errno, "cannot make a socket");
		goto fail;
	}
	if (bind_socket(k->fd, path, e))
		goto fail;
	machine_lock(v->m);
	k->watch = loop_watch_add(v->m->loop, k->fd, LOOP_IN, accept_client, k);
	machine_unlock(v->m);
	if (k->watch)
		return k;
	err_set(e, ERR_HOST, "cannot watch the control socket");
fail:
	if (k->fd >= 0)
		close(k->fd);
	free(k->path);
	free(k);
	return NULL;
}

void
control_close(struct control *k)
{
	if (!k)
		return;
	while (k->clients)
		client_close(k->clients);
	loop_watch_remove(k->watch);
	close(k->fd);
	unlink(k->path);
	free(k->path);
	free(k);
}
