/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte streams for serial ports; see chardev.h.
 *
 * A stream is connected (there are descriptors to read and write) or not. Kinds that serve keep a listening socket and
 * take one client at a time; kinds that call try once a second; a pseudo-terminal is connected while somebody has its
 * other end open, which only polling can tell (a hung-up descriptor would wake the loop for ever).
 *
 * Output goes to the kernel at once as long as nothing is buffered; what it does not take waits in `out` for
 * readiness. A regular file is always ready and unknown to epoll: it is read when its user has room and written as it
 * comes.
 */
#include "dev/chardev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

#define OUT_SIZE 65536u
#define RETRY_NS 1000000000u
#define PTY_POLL_NS 200000000u

#define SAID_SIZE 4096u

struct chardev {
	struct loop *loop;
	enum chardev_kind kind;
	char *path;
	int in, out_fd; /* -1 while not connected; the same number for sockets and terminals of ours */
	int listener;
	struct loop_watch *in_watch, *out_watch, *listen_watch; /* out_watch: only if out_fd is another file */
	struct loop_timer retry;
	bool connected, in_regular, pumping;
	const struct chardev_user *user;
	void *user_opaque;
	size_t (*filter)(void *opaque, uint8_t *bytes, size_t n);
	void *filter_opaque;
	bool stalled; /* a write was cut short: the user waits for writable() */
	uint32_t out_start, out_len;
	uint8_t out[OUT_SIZE];
	uint64_t said_total; /* bytes written so far; the last SAID_SIZE of them are kept */
	uint8_t said[SAID_SIZE];
	struct termios old_termios;
	bool termios_changed;
	int old_flags[2]; /* of standard input and output; -1: not changed */
	union {
		struct sockaddr sa;
		struct sockaddr_un un;
		struct sockaddr_in in;
	} addr;
	socklen_t addr_len; /* 0: not a socket */
};

static const struct {
	const char *name;
	bool takes_arg;
} kinds[] = {
#define CHARDEV_ROW(kind, name, arg) { name, arg },
	CHARDEV_KINDS(CHARDEV_ROW)
#undef CHARDEV_ROW
};

static void on_ready(void *opaque, int ready);
static void on_out_ready(void *opaque, int ready);
static void retry(void *opaque);

/* ---- connected or not ---- */

static void
sync_watches(struct chardev *c)
{
	bool want_in = c->connected && c->user && !c->in_regular && c->user->room(c->user_opaque) > 0;
	bool want_out = c->connected && c->out_len > 0;

	if (c->in_watch)
		loop_watch_set(c->in_watch, (want_in ? LOOP_IN : 0) | (want_out && !c->out_watch ? LOOP_OUT : 0));
	if (c->out_watch)
		loop_watch_set(c->out_watch, want_out ? LOOP_OUT : 0);
}

static void
tell_connected(struct chardev *c, bool there)
{
	c->connected = there;
	if (c->user && c->user->connected)
		c->user->connected(c->user_opaque, there);
}

static void
tell_writable(struct chardev *c)
{
	if (!c->stalled)
		return;
	c->stalled = false;
	if (c->user && c->user->writable)
		c->user->writable(c->user_opaque);
}

static void
disconnect(struct chardev *c)
{
	if (!c->connected)
		return;
	c->out_len = 0;
	tell_connected(c, false);
	if (c->kind == CHARDEV_PTY) {
		sync_watches(c);
		loop_timer_arm(&c->retry, loop_now() + PTY_POLL_NS);
	} else if (c->kind != CHARDEV_STDIO) {
		loop_watch_remove(c->in_watch);
		c->in_watch = NULL;
		close(c->in);
		c->in = c->out_fd = -1;
		if (c->listen_watch)
			loop_watch_set(c->listen_watch, LOOP_IN);
		else if (c->kind == CHARDEV_UNIX_CLIENT || c->kind == CHARDEV_TCP_CLIENT)
			loop_timer_arm(&c->retry, loop_now() + RETRY_NS);
	} else {
		sync_watches(c);
	}
	tell_writable(c);
}

static void
connect_fd(struct chardev *c, int fd)
{
	int one = 1;

	c->in = c->out_fd = fd;
	if (c->kind == CHARDEV_TCP_SERVER || c->kind == CHARDEV_TCP_CLIENT)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->in_watch = loop_watch_add(c->loop, fd, 0, on_ready, c);
	tell_connected(c, true);
	chardev_resume(c);
}

/* ---- data ---- */

static void
pump_in(struct chardev *c)
{
	uint8_t buf[1024];
	size_t room;

	if (c->pumping) /* receive() made room and says so: the loop below sees it */
		return;
	c->pumping = true;
	while (c->connected && c->user && c->in >= 0 && (room = c->user->room(c->user_opaque)) > 0) {
		ssize_t n = read(c->in, buf, MIN(room, sizeof(buf)));

		if (n > 0) {
			size_t left = c->filter ? c->filter(c->filter_opaque, buf, (size_t)n) : (size_t)n;

			if (left)
				c->user->receive(c->user_opaque, buf, left);
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (c->kind == CHARDEV_STDIO) { /* the end of input is not the end of output */
			loop_watch_remove(c->in_watch);
			c->in_watch = NULL;
			c->in = -1;
		} else {
			disconnect(c);
		}
		break;
	}
	c->pumping = false;
}

/* A socket whose other end has gone gives an error here, not a signal to the process. */
static ssize_t
write_some(struct chardev *c, const void *p, size_t n)
{
	if (c->addr_len)
		return send(c->out_fd, p, n, MSG_NOSIGNAL);
	return write(c->out_fd, p, n);
}

static void
pump_out(struct chardev *c)
{
	while (c->connected && c->out_len) {
		uint32_t run = MIN(c->out_len, OUT_SIZE - c->out_start);
		ssize_t n = write_some(c, c->out + c->out_start, run);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			disconnect(c);
			return;
		}
		c->out_start = (c->out_start + (uint32_t)n) % OUT_SIZE;
		c->out_len -= (uint32_t)n;
	}
	if (c->out_len < OUT_SIZE / 2)
		tell_writable(c);
}

static void
on_ready(void *opaque, int ready)
{
	struct chardev *c = opaque;

	if (ready & LOOP_OUT)
		pump_out(c);
	if (ready & LOOP_IN)
		pump_in(c);
	else if (ready & LOOP_HUP)
		disconnect(c);
	sync_watches(c);
}

static void
on_out_ready(void *opaque, int ready)
{
	struct chardev *c = opaque;

	pump_out(c);
	sync_watches(c);
}

void
chardev_resume(struct chardev *c)
{
	if (c->in_regular)
		pump_in(c);
	sync_watches(c);
}

static size_t
keep_said(struct chardev *c, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		c->said[c->said_total++ % SAID_SIZE] = p[i];
	return n;
}

size_t
chardev_said(const struct chardev *c, char *buf, size_t size)
{
	uint64_t at = c->said_total > SAID_SIZE ? c->said_total - SAID_SIZE : 0;
	size_t len = 0;
	bool escape = false; /* within "ESC [ ... letter": colours, places on the screen */

	for (; at < c->said_total && len + 1 < size; at++) {
		uint8_t b = c->said[at % SAID_SIZE];

		if (b == 0x1b)
			escape = true;
		else if (escape)
			escape = b < '@' || b == '[' || b > '~';
		else if (b == '\n' || (b >= ' ' && b <= '~'))
			buf[len++] = (char)b;
	}
	buf[len] = 0;
	return len;
}

size_t
chardev_write(struct chardev *c, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	size_t taken = 0;

	if (!c->connected)
		return keep_said(c, p, n);
	if (!c->out_len) {
		ssize_t w = write_some(c, p, n);

		if (w < 0 && errno != EAGAIN && errno != EINTR) {
			disconnect(c);
			return keep_said(c, p, n);
		}
		taken = w > 0 ? (size_t)w : 0;
	}
	for (; taken < n && c->out_len < OUT_SIZE; taken++)
		c->out[(c->out_start + c->out_len++) % OUT_SIZE] = p[taken];
	c->stalled = taken < n;
	if (c->out_len)
		sync_watches(c);
	return keep_said(c, p, taken);
}

void
chardev_attach(struct chardev *c, const struct chardev_user *u, void *opaque)
{
	c->user = u;
	c->user_opaque = opaque;
	if (u)
		chardev_resume(c);
	else
		sync_watches(c);
}

void
chardev_set_filter(struct chardev *c, size_t (*filter)(void *opaque, uint8_t *bytes, size_t n), void *opaque)
{
	struct termios t;

	c->filter = filter;
	c->filter_opaque = opaque;
	if (c->termios_changed && !tcgetattr(c->in, &t)) {
		t.c_lflag &= ~(tcflag_t)ISIG;
		tcsetattr(c->in, TCSANOW, &t);
	}
}

bool
chardev_connected(const struct chardev *c)
{
	return c->connected;
}

const char *
chardev_path(const struct chardev *c)
{
	return c->path ? c->path : "";
}

/* ---- opening ---- */

static int
set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	return flags;
}

/* The terminal hands over every key as it is pressed, without echo; Ctrl-C still ends the process. */
static int
open_stdio(struct chardev *c, struct err *e)
{
	struct termios t;
	struct stat st;

	c->old_flags[0] = set_nonblocking(STDIN_FILENO);
	c->old_flags[1] = set_nonblocking(STDOUT_FILENO);
	if (isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &c->old_termios)) {
		t = c->old_termios;
		t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		t.c_iflag &= ~(tcflag_t)(ICRNL | IXON);
		t.c_cc[VMIN] = 1;
		t.c_cc[VTIME] = 0;
		c->termios_changed = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
	}
	c->in = STDIN_FILENO;
	c->out_fd = STDOUT_FILENO;
	c->in_regular = !fstat(STDIN_FILENO, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
	if (!c->in_regular)
		c->in_watch = loop_watch_add(c->loop, STDIN_FILENO, 0, on_ready, c);
	c->out_watch = loop_watch_add(c->loop, STDOUT_FILENO, 0, on_out_ready, c);
	c->connected = true;
	return 0;
}

static int
open_file(struct chardev *c, const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot create '%s' for a serial port", path);
	c->path = xstrdup(path);
	c->out_fd = fd;
	c->connected = true;
	return 0;
}

static int
open_device(struct chardev *c, const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct termios t;

	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot open the device '%s' for a serial port", path);
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	c->path = xstrdup(path);
	connect_fd(c, fd);
	return 0;
}

static int
open_pty(struct chardev *c, struct err *e)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	char name[64];
	struct termios t;

	if (fd < 0 || grantpt(fd) || unlockpt(fd) || ptsname_r(fd, name, sizeof(name))) {
		err_sys(e, ERR_HOST, errno, "Cannot make a pseudo-terminal for a serial port");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	c->path = xstrdup(name);
	c->in = c->out_fd = fd;
	c->in_watch = loop_watch_add(c->loop, fd, 0, on_ready, c);
	retry(c);
	return 0;
}

static int
unix_address(struct chardev *c, const char *path, struct err *e)
{
	if (strlen(path) >= sizeof(c->addr.un.sun_path))
		return err_set(e, ERR_INVALID, "The socket path '%s' is longer than %zu characters", path,
			sizeof(c->addr.un.sun_path) - 1);
	c->addr.un.sun_family = AF_UNIX;
	strcpy(c->addr.un.sun_path, path);
	c->addr_len = sizeof(c->addr.un);
	c->path = xstrdup(path);
	return 0;
}

static int
tcp_address(struct chardev *c, const char *text, struct err *e)
{
	const char *port = strrchr(text, ':');
	char host[64] = "127.0.0.1";
	uint64_t n;

	if (port && (size_t)(port - text) < sizeof(host) && port != text) {
		memcpy(host, text, (size_t)(port - text));
		host[port - text] = '\0';
	}
	if (!strcmp(host, "localhost"))
		strcpy(host, "127.0.0.1");
	if (!str_to_u64(port ? port + 1 : text, 1, 65535, &n) || inet_pton(AF_INET, host, &c->addr.in.sin_addr) != 1)
		return err_set(e, ERR_INVALID,
			"'%s' is not a TCP address for a serial port: PORT or IPV4-ADDRESS:PORT is expected", text);
	c->addr.in.sin_family = AF_INET;
	c->addr.in.sin_port = htons((uint16_t)n);
	c->addr_len = sizeof(c->addr.in);
	c->path = xasprintf("%s:%u", host, (unsigned)n);
	return 0;
}

static void
on_client(void *opaque, int ready)
{
	struct chardev *c = opaque;
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (c->connected) {
		close(fd);
		return;
	}
	loop_watch_set(c->listen_watch, 0); /* others wait in the queue until this one leaves */
	connect_fd(c, fd);
}

/* A socket file that nobody listens to is a left-over of a process that died. */
static void
remove_stale(const struct chardev *c)
{
	struct stat st;
	int fd;

	if (c->kind != CHARDEV_UNIX_SERVER || stat(c->path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &c->addr.sa, c->addr_len) && errno == ECONNREFUSED)
		unlink(c->path);
	close(fd);
}

static int
open_server(struct chardev *c, struct err *e)
{
	int one = 1;

	remove_stale(c);
	c->listener = socket(c->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0)
		return err_sys(e, ERR_HOST, errno, "Cannot make a socket for a serial port");
	if (c->kind == CHARDEV_TCP_SERVER)
		setsockopt(c->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(c->listener, &c->addr.sa, c->addr_len) || listen(c->listener, 1)) {
		err_sys(e, ERR_HOST, errno, "Cannot listen on '%s' for a serial port", c->path);
		close(c->listener);
		c->listener = -1; /* nothing of ours to unlink */
		return -1;
	}
	c->listen_watch = loop_watch_add(c->loop, c->listener, LOOP_IN, on_client, c);
	return 0;
}

static void
try_connect(struct chardev *c)
{
	int fd = socket(c->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* EINPROGRESS (TCP): readiness tells how it ended, by the first write or read. */
	if (fd >= 0 && (!connect(fd, &c->addr.sa, c->addr_len) || errno == EINPROGRESS)) {
		connect_fd(c, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
	loop_timer_arm(&c->retry, loop_now() + RETRY_NS);
}

static void
poll_pty(struct chardev *c)
{
	struct pollfd p = { .fd = c->in, .events = POLLOUT };

	if (poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP)) {
		tell_connected(c, true);
		chardev_resume(c);
		/* Without room for input nothing is watched: look again whether it is still there. */
	}
	loop_timer_arm(&c->retry, loop_now() + PTY_POLL_NS);
}

static void
retry(void *opaque)
{
	struct chardev *c = opaque;
	struct pollfd p = { .fd = c->in, .events = POLLOUT };

	if (c->kind != CHARDEV_PTY) {
		try_connect(c);
		return;
	}
	if (!c->connected)
		poll_pty(c);
	else if (poll(&p, 1, 0) > 0 && p.revents & POLLHUP)
		disconnect(c);
	else
		loop_timer_arm(&c->retry, loop_now() + PTY_POLL_NS);
}

static int
open_kind(struct chardev *c, const char *arg, struct err *e)
{
	switch (c->kind) {
	case CHARDEV_STDIO:
		return open_stdio(c, e);
	case CHARDEV_FILE:
		return open_file(c, arg, e);
	case CHARDEV_PTY:
		return open_pty(c, e);
	case CHARDEV_UNIX_SERVER:
		return unix_address(c, arg, e) ? -1 : open_server(c, e);
	case CHARDEV_TCP_SERVER:
		return tcp_address(c, arg, e) ? -1 : open_server(c, e);
	case CHARDEV_UNIX_CLIENT:
	case CHARDEV_TCP_CLIENT:
		if (c->kind == CHARDEV_UNIX_CLIENT ? unix_address(c, arg, e) : tcp_address(c, arg, e))
			return -1;
		try_connect(c);
		return 0;
	case CHARDEV_DEVICE:
		return open_device(c, arg, e);
	default:
		return 0;
	}
}

struct chardev *
chardev_open(struct loop *l, enum chardev_kind kind, const char *arg, struct err *e)
{
	struct chardev *c;

	if (kinds[kind].takes_arg && (!arg || !*arg)) {
		err_set(e, ERR_INVALID, "A serial port of the kind '%s' needs an argument", kinds[kind].name);
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	c->loop = l;
	c->kind = kind;
	c->in = c->out_fd = c->listener = -1;
	c->old_flags[0] = c->old_flags[1] = -1;
	loop_timer_init(&c->retry, l, retry, c);
	if (open_kind(c, arg, e)) {
		chardev_close(c);
		return NULL;
	}
	return c;
}

struct chardev *
chardev_parse(struct loop *l, const char *text, struct err *e)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);

	for (unsigned k = 0; k < CHARDEV_KIND_COUNT; k++)
		if (strlen(kinds[k].name) == len && !strncmp(kinds[k].name, text, len))
			return chardev_open(l, k, colon ? colon + 1 : NULL, e);
	err_set(e, ERR_INVALID,
		"'%s' is not a serial port back end: null, stdio, file:PATH, pty, unix-server:PATH, unix-client:PATH, "
		"tcp-server:PORT, tcp-client:PORT or device:PATH is expected",
		text);
	return NULL;
}

static void
close_stdio(struct chardev *c)
{
	if (c->termios_changed)
		tcsetattr(STDIN_FILENO, TCSANOW, &c->old_termios);
	for (int fd = 0; fd < 2; fd++)
		if (c->old_flags[fd] >= 0)
			fcntl(fd, F_SETFL, c->old_flags[fd]);
}

void
chardev_close(struct chardev *c)
{
	if (!c)
		return;
	c->user = NULL;
	pump_out(c);
	loop_timer_cancel(&c->retry);
	loop_watch_remove(c->in_watch);
	loop_watch_remove(c->out_watch);
	loop_watch_remove(c->listen_watch);
	if (c->kind == CHARDEV_STDIO)
		close_stdio(c);
	else if (c->out_fd >= 0)
		close(c->out_fd);
	if (c->listener >= 0) {
		close(c->listener);
		if (c->kind == CHARDEV_UNIX_SERVER)
			unlink(c->path);
	}
	free(c->path);
	free(c);
}
