/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge connect: from the host to a TCP port of a guest, whatever network it is on and without rights over the host's
 * network. As a filter (ssh's ProxyCommand), as a port of the host, or as a SOCKS 5 proxy (RFC 1928) in which machines
 * are called by their names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"
#include "front/lodge/lodge.h"
#include "host/net.h"

/* Both ways until both have ended. */
static void
relay(int in, int out, int sock)
{
	struct pollfd p[2] = { { .fd = in, .events = POLLIN }, { .fd = sock, .events = POLLIN } };
	char piece[65536];

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		for (int i = 0; i < 2; i++) {
			int to = i ? out : sock;
			ssize_t n;

			if (p[i].fd < 0 || !p[i].revents)
				continue;
			n = read(p[i].fd, piece, sizeof(piece));
			if (n > 0 && write_full(to, piece, (size_t)n) == n)
				continue;
			p[i].fd = -1;
			if (shutdown(to, SHUT_WR) && i)
				return; /* what we write to is no socket: nobody wants more */
		}
	}
}

static int
dial(const char *vm, int guest_port, struct err *e)
{
	struct host *h = host_open(e);
	struct sockaddr_in sin = { .sin_family = AF_INET };
	int port = 0, fd = -1, r;
	char where[64];

	if (!h)
		return -1;
	r = host_connect(h, vm, guest_port, &port, where, e);
	host_close(h);
	if (r)
		return -1;
	sin.sin_port = htons((uint16_t)port);
	inet_pton(AF_INET, where, &sin.sin_addr);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sin, sizeof(sin))) {
		err_sys(e, ERR_HOST, errno, "Port %d of machine '%s' cannot be reached (%s:%d)", guest_port, vm, where,
			port);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

static int
listen_on(uint16_t port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) }
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) || listen(fd, 64)) {
		fprintf(stderr, "lodge: port %u of 127.0.0.1: %s\n", port, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- SOCKS ---- */

static bool
read_exact(int fd, uint8_t *p, size_t n)
{
	return read_full(fd, p, n) == (ssize_t)n;
}

/* RFC 1928: version, methods; then version, command, 0, address type, address, port. Names only: a machine's. */
static int
socks_request(int fd, char name[256], int *port)
{
	uint8_t b[260];

	if (!read_exact(fd, b, 2) || b[0] != 5 || !read_exact(fd, b + 2, b[1]) || write_full(fd, "\5\0", 2) != 2)
		return -1;
	if (!read_exact(fd, b, 5) || b[0] != 5)
		return -1;
	if (b[1] != 1 || b[3] != 3) {
		ssize_t n = write_full(fd, b[1] != 1 ? "\5\7\0\1\0\0\0\0\0\0" : "\5\10\0\1\0\0\0\0\0\0", 10);

		return n < 0 ? -1 : -2;
	}
	if (!read_exact(fd, (uint8_t *)name, b[4]) || !read_exact(fd, b + 5, 2))
		return -1;
	name[b[4]] = 0;
	*port = b[5] << 8 | b[6];
	return 0;
}

static void
serve_socks(int fd)
{
	char name[256];
	struct err e = { 0 };
	int port, sock;

	if (socks_request(fd, name, &port))
		return;
	if (str_ends(name, ".lodge"))
		name[strlen(name) - 6] = 0;
	sock = dial(name, port, &e);
	if (write_full(fd, sock >= 0 ? "\5\0\0\1\0\0\0\0\0\0" : "\5\4\0\1\0\0\0\0\0\0", 10) == 10 && sock >= 0)
		relay(fd, fd, sock);
	if (sock < 0)
		fprintf(stderr, "lodge: %s\n", e.text);
}

/* A process a connection. */
static int
serve(int listener, const char *vm, int guest_port)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		if (!fork()) {
			struct err e = { 0 };
			int sock;

			close(listener);
			if (!vm) {
				serve_socks(fd);
				_exit(0);
			}
			sock = dial(vm, guest_port, &e);
			if (sock >= 0)
				relay(fd, fd, sock);
			else
				fprintf(stderr, "lodge: %s\n", e.text);
			_exit(0);
		}
		close(fd);
	}
}

static int
usage(FILE *f, int status)
{
	fprintf(f, "Usage: lodge connect VM PORT                 a TCP port of a guest on standard input and output\n"
		   "       lodge connect --listen PORT VM PORT   as a port of 127.0.0.1, until interrupted\n"
		   "       lodge connect --socks PORT            a SOCKS 5 proxy on 127.0.0.1: the machines' names are "
		   "hosts\n"
		   "\nExample: ssh -o ProxyCommand='lodge connect web1 22' user@web1\n");
	return status;
}

int
lodge_connect(int argc, char **argv)
{
	uint64_t local = 0, port = 0;
	struct err e = { 0 };
	int at = 1, fd;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (argc == 3 && !strcmp(argv[1], "--socks") && str_to_u64(argv[2], 1, 65535, &local)) {
		fd = listen_on((uint16_t)local);
		return fd < 0 ? 1 : serve(fd, NULL, 0);
	}
	if (argc > 2 && !strcmp(argv[1], "--listen") && str_to_u64(argv[2], 1, 65535, &local))
		at = 3;
	if (argc != at + 2 || !str_to_u64(argv[at + 1], 1, 65535, &port))
		return usage(stderr, 2);
	if (local) {
		fd = listen_on((uint16_t)local);
		return fd < 0 ? 1 : serve(fd, argv[at], (int)port);
	}
	fd = dial(argv[at], (int)port, &e);
	if (fd < 0) {
		fprintf(stderr, "lodge: %s\n", e.text);
		return 1;
	}
	relay(STDIN_FILENO, STDOUT_FILENO, fd);
	return 0;
}
