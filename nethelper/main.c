/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge-nethelper: reads requests from descriptor 0, judges them, carries them out (nethelper/protocol.h).
 *
 * It runs with rights that its caller does not have, so: it looks at no environment and no argument, opens nothing the
 * caller names, keeps two capabilities and drops the others before it reads anything, and writes each thing it did to
 * the system's log.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/rights.h"
#include "base/str.h"
#include "net/ranges.h"
#include "nethelper/action.h"
#include "nethelper/protocol.h"

/* The text of a file that is root's alone; NULL: it is not, or is not there. free() it. */
static char *
read_root_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid || (st.st_mode & 022) || st.st_size > 65536) {
		close(fd);
		return NULL;
	}
	text = xcalloc(1, 65537);
	n = read_full(fd, text, 65536);
	close(fd);
	text[MAX(n, 0)] = 0;
	return text;
}

static int
judge(const struct action *a, struct err *e)
{
	char *allowed, *ranges;
	int r;

	if (getuid() == 0)
		return 0;
	allowed = read_root_file(NETHELPER_ALLOWED);
	ranges = read_root_file(RANGES_FILE);
	r = action_permit(a, allowed, ranges, e);
	free(allowed);
	free(ranges);
	return r;
}

/* Only the two that the actions need (capabilities(7)), and nothing more by executing anything. */
static int
keep_two_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct have[2] = { 0 }, keep[2] = { 0 };
	uint32_t two = 1u << CAP_NET_ADMIN | 1u << CAP_NET_RAW;

	if (syscall(SYS_capget, &head, have))
		return -1;
	keep[0].permitted = keep[0].effective = have[0].permitted & two;
	if (syscall(SYS_capset, &head, keep) || rights_no_new_privileges())
		return -1;
	return (keep[0].effective & 1u << CAP_NET_ADMIN) ? 0 : 1;
}

static void
answer(const char *text, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd > 0) {
		m.msg_control = control.room;
		m.msg_controllen = sizeof(control.room);
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
	}
	if (sendmsg(0, &m, MSG_NOSIGNAL) < 0)
		syslog(LOG_WARNING, "an answer could not be sent: %m");
}

/* Returns the name of what is open in this session from now on in `mine`. */
static void
serve(const char *text, char mine[16])
{
	char reply[1200];
	struct action a;
	struct err e = { 0 };
	int fd = -1;

	if (action_parse(text, &a, &e))
		;
	else if (a.kind == ACTION_ADDRESS && !str_starts(mine, "vboxnet"))
		err_set(&e, ERR_OBJECT_STATE, "no TAP was made in this session");
	else if (a.kind != ACTION_ADDRESS && *mine)
		err_set(&e, ERR_OBJECT_STATE, "this session has made '%s' already", mine);
	else if (!judge(&a, &e)) {
		if (a.kind == ACTION_ADDRESS)
			memcpy(a.name, mine, 16);
		fd = action_run(&a, &e);
	}
	if (fd < 0) {
		syslog(LOG_NOTICE, "uid %d: '%s' refused: %s", (int)getuid(), text, e.text);
		snprintf(reply, sizeof(reply), "error %s", e.text);
		answer(reply, -1);
		return;
	}
	syslog(LOG_INFO, "uid %d: %s", (int)getuid(), text);
	if (a.kind != ACTION_ADDRESS)
		memcpy(mine, a.name, 16);
	snprintf(reply, sizeof(reply), "ok %s", a.name);
	answer(reply, fd);
	if (fd > 0)
		close(fd);
}

int
main(int argc, char **argv)
{
	char text[NETHELPER_MESSAGE_MAX + 1], mine[16] = "";
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	ssize_t n;
	int rights;

	if (getsockname(0, (struct sockaddr *)&sa, &len) || sa.ss_family != AF_UNIX) {
		fprintf(stderr, "lodge-nethelper is started by Lodge, with a socket as its input\n");
		return 2;
	}
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	clearenv();
	openlog("lodge-nethelper", LOG_PID, LOG_AUTH);
	rights = keep_two_capabilities();
	if (rights) {
		answer(rights > 0 ? "error it has no CAP_NET_ADMIN" : "error it cannot give up its rights", -1);
		return 1;
	}
	while ((n = recv(0, text, sizeof(text) - 1, 0)) > 0) {
		text[n] = 0;
		if (strlen(text) == (size_t)n && (size_t)n < NETHELPER_MESSAGE_MAX)
			serve(text, mine);
		else
			answer("error this is not a request that the network helper knows", -1);
	}
	return 0;
}
