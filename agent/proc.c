/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs. What they write stays in their pipes until it is asked for, so a program whose output nobody takes waits,
 * and nothing grows here. (Of guest-exec with capture-output the output is kept, up to a bound, as QEMU's agent does.)
 *
 * A program is known from its start until it was forgotten: lodge-close, or guest-exec-status when it has ended. One
 * that was closed while it runs (`orphan`) is forgotten when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/base64.h"

#define PROCS_MAX 64
#define CAPTURE_MAX (16u << 20)
#define READ_MAX 262144

struct proc {
	pid_t pid; /* 0: free */
	int fd[3]; /* our ends; -1: none */
	bool ended, orphan, told;
	bool capture;	   /* of guest-exec: read as it comes */
	struct str got[3]; /* what was captured; [0]: what is still to be written */
	int status;	   /* of wait() */
};

struct procs {
	struct proc p[PROCS_MAX];
};

struct procs *
procs_create(void)
{
	return xcalloc(1, sizeof(struct procs));
}

static struct proc *
find(struct agent *a, const json_t *args)
{
	int64_t pid = int_arg(args, "pid", 0);

	for (int i = 0; i < PROCS_MAX; i++)
		if (pid > 0 && agent_procs(a)->p[i].pid == pid && !agent_procs(a)->p[i].orphan)
			return &agent_procs(a)->p[i];
	return NULL;
}

static struct proc *
find_free(struct agent *a)
{
	for (int i = 0; i < PROCS_MAX; i++)
		if (!agent_procs(a)->p[i].pid)
			return &agent_procs(a)->p[i];
	return NULL;
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
forget(struct proc *p)
{
	for (int i = 0; i < 3; i++) {
		close_fd(&p->fd[i]);
		str_free(&p->got[i]);
	}
	*p = (struct proc){ 0 };
}

/* ---- starting ---- */

struct start {
	const char *path, *cwd;
	char **argv, **env;
	const struct account *as; /* NULL: as we are */
	bool pipe[3];
};

static char **
string_list(const json_t *list, const char *first)
{
	size_t n = json_array_size(list), k = 0;
	char **out = xcalloc(n + 2, sizeof(*out));

	if (first)
		out[k++] = xstrdup(first);
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(list, i));

		if (s)
			out[k++] = xstrdup(s);
	}
	return out;
}

static void
free_list(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

static void
become(const struct start *s, int report)
{
	const struct account *u = s->as;
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (u && (setgroups((size_t)u->group_count, u->groups) || setgid(u->gid) || setuid(u->uid)))
		goto fail;
	if (s->cwd ? chdir(s->cwd) : u && chdir(u->home) && chdir("/"))
		goto fail;
	for (char **e = s->env; *e; e++) {
		if (strchr(*e, '='))
			putenv(*e);
		else
			unsetenv(*e);
	}
	execvp(s->path, s->argv);
fail:
	if (write(report, &errno, sizeof(errno)) < 0)
		_exit(126);
	_exit(127);
}

static void
child(const struct start *s, int ends[3][2], int report)
{
	int null = open("/dev/null", O_RDWR);

	if (s->as) { /* a login's environment and nothing else */
		clearenv();
		setenv("PATH",
			s->as->uid ? "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
				   : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			1);
		setenv("HOME", s->as->home, 1);
		setenv("USER", s->as->name, 1);
		setenv("LOGNAME", s->as->name, 1);
		setenv("SHELL", s->as->shell, 1);
	}
	for (int i = 0; i < 3; i++)
		dup2(s->pipe[i] ? ends[i][i ? 1 : 0] : null, i);
	become(s, report);
}

/* 0; or the errno of what could not be done. */
static int
start(struct proc *p, const struct start *s)
{
	int ends[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } }, report[2] = { -1, -1 }, error = 0;
	pid_t pid;

	for (int i = 0; i < 3; i++)
		if (s->pipe[i] && pipe2(ends[i], O_CLOEXEC))
			error = errno;
	if (!error && pipe2(report, O_CLOEXEC))
		error = errno;
	pid = error ? -1 : fork();
	if (!pid)
		child(s, ends, report[1]);
	if (pid < 0 && !error)
		error = errno;
	for (int i = 0; i < 3; i++)
		close_fd(&ends[i][i ? 1 : 0]);
	close_fd(&report[1]);
	if (!error && read_full(report[0], &error, sizeof(error)) != sizeof(error))
		error = 0;
	close_fd(&report[0]);
	if (error && pid > 0)
		waitpid(pid, NULL, 0);
	for (int i = 0; i < 3; i++) {
		p->fd[i] = ends[i][i ? 0 : 1];
		if (p->fd[i] >= 0 && error)
			close_fd(&p->fd[i]);
		else if (p->fd[i] >= 0)
			fcntl(p->fd[i], F_SETFL, O_NONBLOCK);
	}
	p->pid = error ? 0 : pid;
	return error;
}

/* ---- watching ---- */

int
procs_watch(struct procs *ps, struct pollfd *out, int max)
{
	int n = 0;

	for (struct proc *p = ps->p; p < ps->p + PROCS_MAX; p++) {
		if (p->pid && p->got[0].len && n < max)
			out[n++] = (struct pollfd){ p->fd[0], POLLOUT, 0 };
		for (int i = 1; p->pid && !p->told && i < 3; i++)
			if (p->fd[i] >= 0 && n < max)
				out[n++] = (struct pollfd){ p->fd[i], POLLIN, 0 };
	}
	return n;
}

/* Write what waits; the end of it closes the pipe. */
static void
feed(struct proc *p)
{
	ssize_t n = write(p->fd[0], p->got[0].s, p->got[0].len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		p->got[0].len -= (size_t)n;
		memmove(p->got[0].s, p->got[0].s + n, p->got[0].len);
	}
	if (n <= 0 || !p->got[0].len) {
		p->got[0].len = 0;
		close_fd(&p->fd[0]);
	}
}

static void
capture(struct proc *p, int i)
{
	char buf[65536];
	ssize_t n = read(p->fd[i], buf, sizeof(buf));

	if (n > 0 && p->orphan)
		return; /* nobody wants it, but it may be written */
	if (n > 0 && p->got[i].len + (size_t)n <= CAPTURE_MAX)
		str_addn(&p->got[i], buf, (size_t)n);
	else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(&p->fd[i]);
}

static void
proc_ready(struct agent *a, struct proc *p, int i)
{
	if (!i) {
		feed(p);
	} else if (p->capture) {
		capture(p, i);
	} else {
		p->told = true;
		agent_event(a);
	}
}

void
procs_ready(struct agent *a, const struct pollfd *fds, int count)
{
	for (int k = 0; k < count; k++)
		for (struct proc *p = agent_procs(a)->p; fds[k].revents && p < agent_procs(a)->p + PROCS_MAX; p++)
			for (int i = 0; p->pid && i < 3; i++)
				if (p->fd[i] == fds[k].fd)
					proc_ready(a, p, i);
}

void
procs_reap(struct agent *a)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (struct proc *p = agent_procs(a)->p; p < agent_procs(a)->p + PROCS_MAX; p++)
			if (p->pid == pid && !p->ended) {
				p->ended = true;
				p->status = status;
				if (p->orphan)
					forget(p);
				else
					agent_event(a);
			}
}

/* ---- commands ---- */

static void
add_end(const struct proc *p, json_t *o)
{
	if (WIFEXITED(p->status))
		json_object_set_new(o, "exitcode", json_integer(WEXITSTATUS(p->status)));
	else
		json_object_set_new(o, "signal", json_integer(WTERMSIG(p->status)));
}

static void
add_data(json_t *o, const char *name, const void *bytes, size_t n)
{
	char *text = base64_text(bytes, n);

	if (n)
		json_object_set_new(o, name, json_string(text));
	free(text);
}

json_t *
do_exec(struct agent *a, const json_t *args, struct refusal *r)
{
	struct proc *p = find_free(a);
	bool keep = json_is_true(json_object_get(args, "capture-output"));
	json_t *input = json_object_get(args, "input-data"), *env = json_object_get(args, "env");
	struct start s = { .path = text_arg(args, "path"), .pipe = { json_is_string(input), keep, keep } };
	char *text;
	int error;

	if (!p)
		return refuse(r, NULL, "Too many programs run (%d)", PROCS_MAX);
	s.argv = string_list(json_object_get(args, "arg"), s.path);
	s.env = string_list(env, NULL);
	error = start(p, &s);
	free_list(s.argv);
	free_list(s.env);
	if (error)
		return refuse(r, NULL, "Failed to execute child process \"%.256s\" (%s)", s.path, strerror(error));
	p->capture = true;
	if (json_is_string(input)) {
		text = xstrdup(json_string_value(input));
		str_addn(&p->got[0], text, base64_bytes(text));
		explicit_bzero(text, strlen(text));
		free(text);
		feed(p);
	}
	return json_pack("{s:I}", "pid", (json_int_t)p->pid);
}

json_t *
do_exec_status(struct agent *a, const json_t *args, struct refusal *r)
{
	struct proc *p = find(a, args);
	json_t *o;

	if (!p || !p->capture)
		return refuse(r, NULL, "PID %lld does not exist", (long long)int_arg(args, "pid", 0));
	procs_reap(a);
	for (int i = 1; i < 3; i++)
		for (size_t before = 0; p->fd[i] >= 0 && p->ended && (!before || p->got[i].len > before);) {
			before = p->got[i].len + !p->got[i].len;
			capture(p, i);
		}
	o = json_pack("{s:b}", "exited", p->ended);
	if (!p->ended)
		return o;
	add_end(p, o);
	add_data(o, "out-data", p->got[1].s, p->got[1].len);
	add_data(o, "err-data", p->got[2].s, p->got[2].len);
	forget(p);
	return o;
}

json_t *
do_lodge_exec(struct agent *a, const json_t *args, struct refusal *r)
{
	struct account *user = xcalloc(1, sizeof(*user));
	struct proc *p = find_free(a);
	bool quiet = json_is_true(json_object_get(args, "quiet"));
	json_t *cwd = json_object_get(args, "cwd"), *result = NULL;
	struct start s = { .path = text_arg(args, "path"),
		.cwd = json_string_value(cwd),
		.as = user,
		.pipe = { json_is_true(json_object_get(args, "input")), !quiet, !quiet } };
	int error;

	if (!account_login(agent_logins(a), text_arg(args, "user"), text_arg(args, "password"), user)) {
		refuse(r, "LodgeLogon", "User or password are not right");
	} else if (!p) {
		refuse(r, NULL, "Too many programs run (%d)", PROCS_MAX);
	} else {
		s.argv = string_list(json_object_get(args, "arg"), NULL);
		s.env = string_list(json_object_get(args, "env"), NULL);
		error = s.argv[0] ? start(p, &s) : EINVAL;
		free_list(s.argv);
		free_list(s.env);
		if (error == ENOENT || error == ENOTDIR)
			refuse(r, "LodgeFile", "There is no program '%.256s'", s.path);
		else if (error)
			refuse(r, "LodgeExec", "'%.256s' cannot be run: %s", s.path, strerror(error));
		else
			result = json_pack("{s:I}", "pid", (json_int_t)p->pid);
	}
	free(user);
	return result;
}

static size_t
take_output(struct proc *p, int i, size_t count, json_t *o, const char *name)
{
	char *buf;
	size_t n = 0;
	ssize_t got = 0;

	if (p->fd[i] < 0)
		return 0;
	buf = xcalloc(1, count);
	while (n < count && (got = read(p->fd[i], buf + n, count - n)) > 0)
		n += (size_t)got;
	if (n < count && (!got || (errno != EAGAIN && errno != EINTR)))
		close_fd(&p->fd[i]);
	add_data(o, name, buf, n);
	free(buf);
	return n;
}

json_t *
do_lodge_poll(struct agent *a, const json_t *args, struct refusal *r)
{
	int64_t count = int_arg(args, "count", 65536);
	struct proc *p = find(a, args);
	json_t *o;
	size_t n;

	if (!p || p->capture)
		return refuse(r, NULL, "PID %lld does not exist", (long long)int_arg(args, "pid", 0));
	procs_reap(a);
	o = json_object();
	n = take_output(p, 1, (size_t)MAX(MIN(count, READ_MAX), 1), o, "out-data");
	n += take_output(p, 2, (size_t)MAX(MIN(count, READ_MAX), 1), o, "err-data");
	p->told = false;
	json_object_set_new(o, "exited", json_boolean(p->ended && !n));
	if (p->ended && !n)
		add_end(p, o);
	return o;
}

json_t *
do_lodge_input(struct agent *a, const json_t *args, struct refusal *r)
{
	struct proc *p = find(a, args);
	char *text;
	ssize_t taken = 0;
	size_t n;

	if (!p || p->capture)
		return refuse(r, NULL, "PID %lld does not exist", (long long)int_arg(args, "pid", 0));
	text = xstrdup(text_arg(args, "buf-b64"));
	n = base64_bytes(text);
	if (p->fd[0] >= 0 && n)
		taken = write(p->fd[0], text, n);
	if (p->fd[0] < 0 || (taken < 0 && errno != EAGAIN && errno != EINTR))
		taken = (ssize_t)n; /* it reads no more */
	if (json_is_true(json_object_get(args, "eof")) && taken == (ssize_t)n)
		close_fd(&p->fd[0]);
	free(text);
	return json_pack("{s:I}", "count", (json_int_t)MAX(taken, 0));
}

json_t *
do_lodge_close(struct agent *a, const json_t *args, struct refusal *r)
{
	struct proc *p = find(a, args);
	bool keep = json_is_true(json_object_get(args, "keep"));

	if (!p || p->capture)
		return json_object();
	if (!p->ended && !keep && kill(-p->pid, SIGTERM))
		kill(p->pid, SIGTERM);
	/* With its pipes closed it ends at the next thing it says; a deaf one is killed. */
	if (!p->ended && !keep && !fork()) {
		poll(NULL, 0, 2000);
		kill(-p->pid, SIGKILL);
		_exit(0);
	}
	for (int i = 0; i < 3; i++)
		if (!keep || !i)
			close_fd(&p->fd[i]);
	p->capture = true;
	p->told = false;
	p->orphan = true;
	if (p->ended)
		forget(p);
	return json_object();
}
