/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting lodge-nethelper and asking it. It is looked for beside this program, where it is installed, and, without
 * rights of its own (file capabilities), tried through `sudo -n`, which asks for no password.
 */
#include "switch/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "nethelper/protocol.h"

#define ANSWER_MS 10000

static char *
find_helper(void)
{
	char self[4096], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, 0)] = 0;
	slash = strrchr(self, '/');
	if (slash) {
		path = xasprintf("%.*s/lodge-nethelper", (int)(slash - self), self);
		if (!access(path, X_OK))
			return path;
		free(path);
	}
	return xstrdup(LODGE_PREFIX "/libexec/lodge/lodge-nethelper");
}

static int
spawn(const char *program, bool sudo)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -1;
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		signal(SIGPIPE, SIG_DFL);
		dup2(pair[1], 0);
		dup2(null, 1);
		dup2(null, 2);
		close_range(3, ~0u, 0);
		if (sudo)
			execlp("sudo", "sudo", "-n", program, NULL);
		else
			execl(program, program, NULL);
		_exit(127);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return -1;
	}
	return pair[0];
}

int
helper_ask(int sock, const char *request, char name[16], struct err *e)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char text[1200];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};
	struct pollfd ready = { .fd = sock, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t n;
	int fd = 0;

	/* What it has to say may be there before we ask: that it has no rights. */
	if (send(sock, request, strlen(request), MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return err_sys(e, ERR_HOST, errno, "the network helper cannot be asked");
	if (poll(&ready, 1, ANSWER_MS) != 1)
		return err_set(e, ERR_TIMEOUT, "the network helper does not answer");
	n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	if (n < 0 && errno == ECONNRESET) /* it ended without reading the request; what it said before comes now */
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return err_set(e, ERR_ACCESS, "the network helper cannot be started with the rights it needs");
	text[n] = 0;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	if (!str_starts(text, "ok "))
		return err_set(
			e, ERR_ACCESS, "the network helper says: %s", str_starts(text, "error ") ? text + 6 : text);
	snprintf(name, 16, "%.15s", text + 3);
	return fd;
}

int
helper_open(const char *request, int *sock, char name[16], struct err *e)
{
	char *program = find_helper();
	int fd = -1;

	if (access(program, X_OK)) {
		err_set(e, ERR_NOT_FOUND, "there is no network helper (%s)", program);
		free(program);
		return -1;
	}
	for (int sudo = 0; sudo < (geteuid() ? 2 : 1) && fd < 0; sudo++) {
		*sock = spawn(program, sudo);
		if (*sock < 0) {
			err_sys(e, ERR_HOST, errno, "the network helper cannot be started");
			break;
		}
		fd = helper_ask(*sock, request, name, sudo ? NULL : e); /* sudo has nothing to say that helps */
		if (fd < 0) {
			close(*sock);
			*sock = -1;
		}
	}
	free(program);
	return fd;
}
