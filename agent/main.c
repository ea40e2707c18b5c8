/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lodge's guest agent: QEMU's guest agent protocol on the virtio port org.qemu.guest_agent.0, for guests without that
 * package, with an extension.
 *
 *	lodge-agent [--port PATH] [--foreground]
 *
 * A line is a request and is answered with a line, in order; a byte 0xff begins anew (vm/agent.c is the other side).
 * None of what it does waits: programs run beside it, their output stays in its pipes until it is asked for. The
 * extension:
 *
 *	lodge-version -> {"version"}
 *	lodge-exec {user, password, path, arg:[with its name], env, cwd?, input:bool, quiet:bool} -> {"pid"}
 *	                        a program as a user whose password is right. Errors: classes LodgeLogon, LodgeFile, LodgeExec
 *	lodge-poll {pid, count} -> {"out-data","err-data" (base64),"exited","exitcode"|"signal"}
 *	                        what there is; exited: it has ended and there is no more
 *	lodge-input {pid, buf-b64, eof} -> {"count"}
 *	                        how much of it was taken; eof: there is no more
 *	lodge-close {pid, keep} forget it; unless keep, end it first
 *	{"event":"LODGE_PROCESS"}
 *	                        unasked: lodge-poll would say something new
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/agent.h"

#define PORT_NAME "org.qemu.guest_agent.0"
#define LINE_MAX_BYTES (2u << 20)
#define WATCH_MAX 256

struct agent {
	int port;
	struct str in, out;
	size_t out_done;
	bool delimit, event_owed;
	struct procs *procs;
	struct files *files;
	struct logins *logins;
};

/* ---- small things ---- */

json_t *
refuse(struct refusal *r, const char *class, const char *fmt, ...)
{
	va_list ap;

	r->class = class ? class : "GenericError";
	va_start(ap, fmt);
	vsnprintf(r->text, sizeof(r->text), fmt, ap);
	va_end(ap);
	return NULL;
}

json_t *
refuse_errno(struct refusal *r, const char *what)
{
	return refuse(r, NULL, "%s: %s", what, strerror(errno));
}

const char *
text_arg(const json_t *args, const char *name)
{
	const char *s = json_string_value(json_object_get(args, name));

	return s ? s : "";
}

int64_t
int_arg(const json_t *args, const char *name, int64_t fallback)
{
	json_t *v = json_object_get(args, name);

	return json_is_integer(v) ? json_integer_value(v) : fallback;
}

struct procs *
agent_procs(struct agent *a)
{
	return a->procs;
}

struct files *
agent_files(struct agent *a)
{
	return a->files;
}

struct logins *
agent_logins(struct agent *a)
{
	return a->logins;
}

void
agent_event(struct agent *a)
{
	a->event_owed = true;
}

/* ---- commands ---- */

static command_fn do_ping, do_sync, do_sync_delimited, do_info, do_version;

static const struct command {
	const char *name;
	command_fn *run;
	bool silent; /* no answer on success */
} commands[] = {
	{ "guest-ping", do_ping, false },
	{ "guest-sync", do_sync, false },
	{ "guest-sync-delimited", do_sync_delimited, false },
	{ "guest-info", do_info, false },
	{ "guest-exec", do_exec, false },
	{ "guest-exec-status", do_exec_status, false },
	{ "guest-file-open", do_file_open, false },
	{ "guest-file-close", do_file_close, false },
	{ "guest-file-read", do_file_read, false },
	{ "guest-file-write", do_file_write, false },
	{ "guest-file-seek", do_file_seek, false },
	{ "guest-file-flush", do_file_flush, false },
	{ "guest-get-osinfo", do_get_osinfo, false },
	{ "guest-get-host-name", do_get_host_name, false },
	{ "guest-get-time", do_get_time, false },
	{ "guest-set-time", do_set_time, false },
	{ "guest-get-timezone", do_get_timezone, false },
	{ "guest-get-users", do_get_users, false },
	{ "guest-network-get-interfaces", do_network, false },
	{ "guest-fsfreeze-freeze", do_freeze, false },
	{ "guest-fsfreeze-thaw", do_thaw, false },
	{ "guest-fsfreeze-status", do_freeze_status, false },
	{ "guest-shutdown", do_shutdown, true },
	{ "lodge-version", do_version, false },
	{ "lodge-exec", do_lodge_exec, false },
	{ "lodge-poll", do_lodge_poll, false },
	{ "lodge-input", do_lodge_input, false },
	{ "lodge-close", do_lodge_close, false },
};

static json_t *
do_ping(struct agent *a, const json_t *args, struct refusal *r)
{
	return json_object();
}

static json_t *
do_sync(struct agent *a, const json_t *args, struct refusal *r)
{
	return json_integer(int_arg(args, "id", 0));
}

static json_t *
do_sync_delimited(struct agent *a, const json_t *args, struct refusal *r)
{
	a->delimit = true;
	return do_sync(a, args, r);
}

static json_t *
do_version(struct agent *a, const json_t *args, struct refusal *r)
{
	return json_pack("{s:s}", "version", LODGE_VERSION);
}

static json_t *
do_info(struct agent *a, const json_t *args, struct refusal *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		json_array_append_new(list, json_pack("{s:s, s:b, s:b}", "name", commands[i].name, "enabled", 1,
						    "success-response", !commands[i].silent));
	return json_pack("{s:s, s:o}", "version", LODGE_VERSION, "supported_commands", list);
}

static void
answer(struct agent *a, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT | JSON_ENSURE_ASCII);

	if (a->delimit)
		str_addn(&a->out, "\xff", 1);
	a->delimit = false;
	if (text) {
		str_add(&a->out, text);
		str_add(&a->out, "\n");
	}
	free(text);
}

static void
request(struct agent *a, const char *line, size_t len)
{
	json_t *message = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL), *result = NULL, *o;
	json_t *args = json_object_get(message, "arguments"), *none = json_object();
	const char *name = json_string_value(json_object_get(message, "execute"));
	const struct command *c = NULL;
	struct refusal r = { .class = "GenericError" };

	for (size_t i = 0; name && i < ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i].name, name))
			c = &commands[i];
	if (c)
		result = c->run(a, json_is_object(args) ? args : none, &r);
	else if (name)
		refuse(&r, "CommandNotFound", "The command %.64s has not been found", name);
	else
		refuse(&r, NULL, "That is not a request");
	o = result ? json_pack("{s:o}", "return", result)
		   : json_pack("{s:{s:s, s:s}}", "error", "class", r.class, "desc", r.text);
	if (!result || !c->silent)
		answer(a, o);
	json_decref(o);
	json_decref(none);
	json_decref(message);
}

/* ---- the port ---- */

static void
take(struct agent *a, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((uint8_t)p[i] == 0xff) {
			a->in.len = 0;
		} else if (p[i] == '\n') {
			if (a->in.len)
				request(a, a->in.s, a->in.len);
			if (a->in.s)
				explicit_bzero(a->in.s, a->in.len);
			a->in.len = 0;
		} else if (a->in.len < LINE_MAX_BYTES) {
			str_addn(&a->in, p + i, 1);
		}
	}
}

static void
flush(struct agent *a)
{
	if (a->event_owed && a->out_done == a->out.len) {
		a->event_owed = false;
		str_add(&a->out, "{\"event\":\"LODGE_PROCESS\"}\n");
	}
	while (a->out_done < a->out.len) {
		ssize_t n = write(a->port, a->out.s + a->out_done, MIN(a->out.len - a->out_done, (size_t)32768));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		a->out_done += (size_t)n;
	}
	if (a->out.len > 65536)
		str_free(&a->out);
	a->out.len = a->out_done = 0;
}

/* Where the port is: udev's name, or (without udev) the one whose name the kernel tells. free() it. */
static char *
find_port(void)
{
	char *found = NULL;
	size_t n;
	glob_t g;

	if (!access("/dev/virtio-ports/" PORT_NAME, F_OK))
		return xstrdup("/dev/virtio-ports/" PORT_NAME);
	if (glob("/sys/class/virtio-ports/*/name", 0, NULL, &g))
		return NULL;
	for (size_t i = 0; i < g.gl_pathc && !found; i++) {
		char *text = file_read(g.gl_pathv[i], 65536, &n, NULL);

		if (text && str_starts(text, PORT_NAME)) {
			*strrchr(g.gl_pathv[i], '/') = 0;
			found = xasprintf("/dev/%s", strrchr(g.gl_pathv[i], '/') + 1);
		}
		free(text);
	}
	globfree(&g);
	return found;
}

/* Until it is there and nobody else has it. */
static int
open_port(const char *wanted)
{
	bool said = false;

	for (;;) {
		char *path = wanted ? xstrdup(wanted) : find_port();
		int fd = path ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;

		if (fd < 0 && !said)
			fprintf(stderr, "lodge-agent: waiting for the port %s: %s\n", path ? path : PORT_NAME,
				path ? strerror(errno) : "it is not there");
		said = true;
		free(path);
		if (fd >= 0)
			return fd;
		poll(NULL, 0, 1000);
	}
}

static void
drain_signals(struct agent *a, int fd)
{
	struct signalfd_siginfo s;

	while (read(fd, &s, sizeof(s)) == sizeof(s))
		if (s.ssi_signo != SIGCHLD)
			exit(0);
	procs_reap(a);
}

/* False: nobody is at the host's end for now. */
static bool
read_port(struct agent *a)
{
	char buf[65536];
	ssize_t n = read(a->port, buf, sizeof(buf));

	if (n > 0)
		take(a, buf, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void
serve(struct agent *a, int signals)
{
	struct pollfd fds[WATCH_MAX];

	for (;;) {
		int count;

		flush(a);
		fds[0] = (struct pollfd){ a->port, POLLIN | (a->out_done < a->out.len ? POLLOUT : 0), 0 };
		fds[1] = (struct pollfd){ signals, POLLIN, 0 };
		count = 2 + procs_watch(a->procs, fds + 2, WATCH_MAX - 2);
		if (poll(fds, (nfds_t)count, -1) < 0)
			continue;
		if (fds[1].revents)
			drain_signals(a, signals);
		procs_ready(a, fds + 2, count - 2);
		if (fds[0].revents & POLLIN ? !read_port(a) : fds[0].revents & (POLLHUP | POLLERR))
			poll(NULL, 0, 100); /* a restored machine, or a host that is away */
	}
}

static int
catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct agent a = { .port = -1 };
	const char *port = NULL;
	bool foreground = false;
	int c;

	while ((c = getopt_long(argc, argv, "p:fV", options, NULL)) != -1) {
		if (c == 'V') {
			puts("lodge-agent " LODGE_VERSION);
			return 0;
		}
		if (c == '?') {
			fprintf(stderr, "Usage: lodge-agent [--port PATH] [--foreground]\n");
			return 2;
		}
		foreground |= c == 'f';
		if (c == 'p')
			port = optarg;
	}
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (!foreground && daemon(0, 0)) {
		perror("lodge-agent");
		return 1;
	}
	c = catch_signals();
	a.procs = procs_create();
	a.files = files_create();
	a.logins = logins_create();
	a.port = open_port(port);
	serve(&a, c);
}
