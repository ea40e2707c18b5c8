/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: one small process a network that takes nothing from a guest. It holds the lock and the TAP, starts the
 * switch as its child and starts it again when it dies by a signal or an error. After FAST_DEATHS deaths within a
 * second each it waits longer each time, up to SLOW_MS. It ends with the switch when that ends by itself, and ends it
 * when it is told to end, or when the network's folder is removed: nobody could find it any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "nethelper/protocol.h"
#include "switch/helper.h"
#include "switch/process.h"

#define FAST_DEATHS 5
#define SLOW_MS 2000
#define READY_MS 15000

struct keeper {
	const char *dir;
	int lock_fd, ready_fd;
	int signal_fd, folder_fd; /* signalfd(2); inotify(7) of dir, -1: there is none */
	bool said;		  /* the ready line */
	struct inherited i;
};

static void
say(struct keeper *k, const struct err *e, int pid)
{
	char *text = e ? NULL : xasprintf("{\"ok\":true,\"pid\":%d}\n", pid);
	json_t *o;

	if (k->ready_fd < 0 || k->said) {
		free(text);
		return;
	}
	k->said = true;
	if (e) {
		o = json_pack("{s:{s:s, s:s}}", "error", "code", err_info(e->code)->vbox_name, "text", e->text);
		text = json_dumps(o, JSON_COMPACT);
		json_decref(o);
	}
	if (write_full(k->ready_fd, text, strlen(text)) < 0 || (e && write_full(k->ready_fd, "\n", 1) < 0))
		log_warn("keeper", "nobody waits for the network");
	close(k->ready_fd);
	k->ready_fd = -1;
	free(text);
}

/* ---- the lock ---- */

/* 1: ours, 0: another keeper has it, -1 and *e. */
static int
take_lock(struct keeper *k, struct err *e)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	char *path = xasprintf("%s/" SWITCH_FILE_LOCK, k->dir);

	k->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (k->lock_fd < 0)
		err_sys(e, ERR_FILE, errno, "Cannot open '%s'", path);
	free(path);
	if (k->lock_fd < 0)
		return -1;
	return !fcntl(k->lock_fd, F_OFD_SETLK, &lk);
}

static void
note_pids(struct keeper *k, pid_t child)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%d %d\n", (int)getpid(), (int)child);

	if (pwrite(k->lock_fd, text, (size_t)n, 0) != n || ftruncate(k->lock_fd, n))
		log_warn("keeper", "the lock file cannot be written: %s", strerror(errno));
}

/* Does the switch of another keeper answer? It then waits for who comes. */
static bool
other_answers(struct keeper *k)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval most = { .tv_sec = 1 };
	int dir = open(k->dir, O_PATH | O_DIRECTORY | O_CLOEXEC),
	    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char text[SWITCH_HELLO_MAX];
	bool yes;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/" SWITCH_FILE_PORT, dir);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
	yes = !connect(fd, (struct sockaddr *)&sa, sizeof(sa)) && send(fd, "lodge-port 0", 12, MSG_NOSIGNAL) == 12 &&
	      recv(fd, text, sizeof(text), 0) > 0;
	close(fd);
	close(dir);
	return yes;
}

/* 1: the lock is ours. 0: another keeper's switch is there. -1 and *e. */
static int
wait_for_other(struct keeper *k, struct err *e)
{
	for (int ms = 0; ms < READY_MS; ms += 20) {
		char text[64] = "";
		int keeper, pid, r = take_lock(k, e);

		if (r)
			return r;
		if (pread(k->lock_fd, text, sizeof(text) - 1, 0) > 0 && sscanf(text, "%d %d", &keeper, &pid) == 2 &&
			pid > 0 && other_answers(k)) {
			say(k, NULL, pid);
			return 0;
		}
		close(k->lock_fd);
		usleep(20000);
	}
	return err_set(e, ERR_TIMEOUT, "The network in '%s' is held by a process that does not answer", k->dir);
}

/* ---- the uplink ---- */

static void
mode(struct keeper *k, const char *word, const char *reason)
{
	snprintf(k->i.mode, sizeof(k->i.mode), "%s", word);
	snprintf(k->i.reason, sizeof(k->i.reason), "%.500s", reason);
}

static void
tap_request(const struct net_config *c, char *out, size_t size)
{
	const uint8_t *m = c->mac;
	int n = snprintf(
		out, size, "tap %s %02x%02x%02x%02x%02x%02x", c->interface, m[0], m[1], m[2], m[3], m[4], m[5]);

	if (c->gateway)
		n += snprintf(out + n, size - (size_t)n, " %u.%u.%u.%u/%u", c->gateway >> 24, c->gateway >> 16 & 255,
			c->gateway >> 8 & 255, c->gateway & 255, c->prefix);
	else if (*c->address6)
		n += snprintf(out + n, size - (size_t)n, " -");
	if (*c->address6)
		snprintf(out + n, size - (size_t)n, " %s", c->address6);
}

static bool
is_bridge(const char *name)
{
	char *path = xasprintf("/sys/class/net/%s/bridge", name);
	bool yes = !access(path, F_OK);

	free(path);
	return yes;
}

/* Host-only networks do without a TAP if they must; there is no bridging without the helper. */
static int
get_uplink(struct keeper *k, const struct net_config *c, struct err *e)
{
	char request[NETHELPER_MESSAGE_MAX];
	bool bridge = c->uplink == UPLINK_BRIDGE && is_bridge(c->interface);

	k->i.tap_fd = k->i.helper = -1;
	if (c->uplink == UPLINK_NONE || c->uplink == UPLINK_NAT) {
		mode(k, c->uplink == UPLINK_NONE ? "none" : "user", "");
		return 0;
	}
	if (c->uplink == UPLINK_HOST)
		tap_request(c, request, sizeof(request));
	else
		snprintf(request, sizeof(request), "%s %s", bridge ? "bridge" : "packet", c->interface);
	k->i.tap_fd = helper_open(request, &k->i.helper, k->i.interface, e);
	if (k->i.tap_fd < 0 && c->uplink == UPLINK_BRIDGE)
		return err_wrap(e, "Cannot plug machines into the host's interface '%s'", c->interface);
	if (k->i.tap_fd < 0) {
		mode(k, "user", e->text);
		log_warn("keeper", "network '%s' works without an interface of the host: %s", c->name, e->text);
		return 0;
	}
	k->i.packet = c->uplink == UPLINK_BRIDGE && !bridge;
	mode(k, c->uplink == UPLINK_HOST ? "tap" : bridge ? "bridge" : "packet", "");
	return 0;
}

/* ---- the child ---- */

static void __attribute__((noreturn)) be_the_switch(struct keeper *k, int ready)
{
	struct err e = { 0 };
	sigset_t none;
	int r;

	prctl(PR_SET_NAME, "lodge-switch");
	if (str_starts(program_invocation_name, "lodge-keeper"))
		memcpy(program_invocation_name, "lodge-switch", 12);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close(k->lock_fd); /* the lock is the keeper's alone */
	close(k->signal_fd);
	if (k->folder_fd >= 0)
		close(k->folder_fd);
	if (k->ready_fd >= 0)
		close(k->ready_fd);
	r = network_run(k->dir, &k->i, ready, &e);
	if (r)
		dprintf(ready, "%s", e.text);
	_exit(r ? 3 : 0);
}

/* The child has sent its byte, or the text of why not. */
static int
wait_ready(int fd, struct err *e)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[1024];
	ssize_t n = -1;

	if (poll(&p, 1, READY_MS) == 1)
		n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n == 1)
		return 0;
	text[MAX(n, 0)] = 0;
	return err_set(e, ERR_HOST, "%s", n > 0 ? text : "the switch of the network did not start");
}

/* A switch is one that the lock file names: who ends all that it names leaves none behind. If the keeper is killed before
 * it has written that, the child ends. */
static void
await_note(int go)
{
	char c;

	if (read(go, &c, 1) != 1)
		_exit(0);
	close(go);
}

static pid_t
start_switch(struct keeper *k, struct err *e)
{
	int fd[2], go[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		return err_sys(e, ERR_HOST, errno, "Cannot start the switch of a network");
	if (pipe2(go, O_CLOEXEC)) {
		close(fd[0]);
		close(fd[1]);
		return err_sys(e, ERR_HOST, errno, "Cannot start the switch of a network");
	}
	pid = fork();
	if (!pid) {
		close(fd[0]);
		close(go[1]);
		await_note(go[0]);
		be_the_switch(k, fd[1]);
	}
	close(fd[1]);
	close(go[0]);
	if (pid < 0) {
		close(fd[0]);
		close(go[1]);
		return err_sys(e, ERR_HOST, errno, "Cannot start the switch of a network");
	}
	note_pids(k, pid);
	if (write(go[1], "", 1) != 1)
		log_warn("keeper", "the switch was gone at once");
	close(go[1]);
	if (wait_ready(fd[0], e)) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -1;
	}
	return pid;
}

static bool
folder_gone(const struct keeper *k)
{
	struct stat st;

	return !fstat(k->lock_fd, &st) && !st.st_nlink;
}

/* Until it is over, or it is time to end; then true. Other children (the helper) come and go. */
static bool
watch_switch(struct keeper *k, pid_t pid, int *status)
{
	struct pollfd p[] = { { .fd = k->signal_fd, .events = POLLIN }, { .fd = k->folder_fd, .events = POLLIN } };

	for (;;) {
		struct signalfd_siginfo got = { .ssi_signo = SIGCHLD };
		pid_t who = waitpid(-1, status, WNOHANG);
		uint8_t events[4096];

		if (who == pid)
			return false;
		if (who > 0)
			continue;
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents && read(k->signal_fd, &got, sizeof(got)) != sizeof(got))
			continue;
		if (p[1].revents && read(k->folder_fd, events, sizeof(events)) < 0)
			continue;
		if (got.ssi_signo == SIGCHLD && !folder_gone(k))
			continue;
		if (got.ssi_signo == SIGCHLD)
			log_info("keeper", "the network's folder was removed: ending");
		kill(pid, SIGKILL);
		while (waitpid(pid, status, 0) < 0 && errno == EINTR)
			;
		return true;
	}
}

static uint64_t
seconds(void)
{
	return loop_now() / 1000000000u;
}

static int
open_watches(struct keeper *k, struct err *e)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	k->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (k->signal_fd < 0)
		return err_sys(e, ERR_HOST, errno, "Cannot wait for signals");
	k->folder_fd = inotify_init1(IN_CLOEXEC);
	if (k->folder_fd < 0 || inotify_add_watch(k->folder_fd, k->dir, IN_DELETE) < 0)
		log_warn("keeper", "cannot watch the network's folder: %s", strerror(errno));
	return 0;
}

static int
keep(struct keeper *k, struct err *e)
{
	int deaths = 0;

	for (;;) {
		uint64_t began = seconds();
		pid_t pid = start_switch(k, e);
		int status = 0;

		if (pid < 0 && !k->said)
			return -1;
		if (pid > 0)
			say(k, NULL, (int)pid);
		else
			log_error("keeper", "%s", e->text);
		if (pid > 0 && (watch_switch(k, pid, &status) || (WIFEXITED(status) && !WEXITSTATUS(status))))
			return 0;
		if (pid > 0)
			log_error("keeper", "the switch died (%s %d): starting another",
				WIFSIGNALED(status) ? "signal" : "status",
				WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		deaths = seconds() - began > 1 ? 0 : deaths + 1;
		if (deaths > FAST_DEATHS)
			usleep(MIN(100000u << MIN(deaths - FAST_DEATHS, 8), SLOW_MS * 1000u));
	}
}

/* ---- life ---- */

static void
detach(struct keeper *k)
{
	char *log = xasprintf("%s/" SWITCH_FILE_LOG, k->dir), *old = xasprintf("%s.1", log);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fork())
		_exit(0);
	setsid();
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	if (null > 2)
		close(null);
	rename(log, old);
	log_open_file(log);
	free(old);
	free(log);
}

static int
end(struct keeper *k, const struct err *e)
{
	if (e) {
		log_error("keeper", "%s", e->text);
		say(k, e, 0);
	}
	if (k->i.tap_fd >= 0)
		close(k->i.tap_fd);
	if (k->i.helper >= 0)
		close(k->i.helper);
	return e ? 1 : 0;
}

int
keeper_run(const char *dir, int ready_fd, bool foreground)
{
	struct keeper k = { .dir = dir, .lock_fd = -1, .ready_fd = ready_fd, .i = { .tap_fd = -1, .helper = -1 } };
	struct net_config c;
	struct err e = { 0 };
	int r;

	prctl(PR_SET_NAME, "lodge-keeper");
	signal(SIGPIPE, SIG_IGN);
	if (ready_fd >= 0)
		fcntl(ready_fd, F_SETFD, FD_CLOEXEC);
	r = wait_for_other(&k, &e);
	if (r <= 0)
		return end(&k, r < 0 ? &e : NULL);
	if (!foreground)
		detach(&k);
	note_pids(&k, 0);
	if (config_read(dir, &c, &e))
		return end(&k, &e);
	r = get_uplink(&k, &c, &e);
	config_free(&c);
	if (r || open_watches(&k, &e) || keep(&k, &e))
		return end(&k, &e);
	/* So that nobody takes the sockets for those of a network that is there. */
	for (int i = 0; i < 2; i++) {
		char *path = xasprintf("%s/%s", dir, i ? SWITCH_FILE_PORT : SWITCH_FILE_CONTROL);

		unlink(path);
		free(path);
	}
	return end(&k, NULL);
}
