/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge-vm: the process of one machine. How it is started and what it promises its starter is in vm/protocol.h.
 *
 * In the background there are two processes for a moment: the one that was started waits until the machine runs (or
 * does not), passes that on and exits; its child, in a session of its own and without the starter's terminal, is the
 * machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "cpu/cpu.h"
#include "vm/vm.h"

struct arguments {
	const char *config, *run_dir, *log, *which_engine;
	int ready_fd, copy_count;
	bool foreground;
};

static void
usage(FILE *f)
{
	fprintf(f, "Usage: lodge-vm --config FILE --run-dir DIR [--log FILE] [--ready-fd N] [--foreground]\n"
		   "       lodge-vm --which-engine auto|kvm|jit|interp\n"
		   "Runs the machine that FILE describes. Started by lodge and VBoxManage.\n");
}

static int
parse_arguments(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "run-dir", required_argument, NULL, 'd' },
		{ "log", required_argument, NULL, 'l' },
		{ "ready-fd", required_argument, NULL, 'r' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "copy-fds", required_argument, NULL, 'k' },
		{ "which-engine", required_argument, NULL, 'e' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	uint64_t n;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			a->config = optarg;
			break;
		case 'd':
			a->run_dir = optarg;
			break;
		case 'l':
			a->log = optarg;
			break;
		case 'r':
			if (!str_to_u64(optarg, 3, 1 << 20, &n)) {
				fprintf(stderr, "lodge-vm: --ready-fd takes the number of a descriptor, not '%s'\n",
					optarg);
				return -1;
			}
			a->ready_fd = (int)n;
			break;
		case 'k':
			if (!str_to_u64(optarg, 2, ARRAY_LEN(((struct vm_options *)0)->copy_fds), &n)) {
				fprintf(stderr, "lodge-vm: --copy-fds takes a number from 2 on, not '%s'\n", optarg);
				return -1;
			}
			a->copy_count = (int)n;
			break;
		case 'f':
			a->foreground = true;
			break;
		case 'e':
			a->which_engine = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		case 'V':
			printf("lodge-vm %s\n", LODGE_VERSION);
			exit(0);
		default:
			return -1;
		}
	}
	if (((a->config && a->run_dir) || a->which_engine) && optind == argc && (!a->copy_count || a->ready_fd >= 3))
		return 0;
	usage(stderr);
	return -1;
}

/* Descriptors that the starter forgot to close are not the guest's business. Those of a copy follow `keep`. */
static void
close_others(int keep, int copies)
{
	if (keep < 3) {
		close_range(3, ~0u, 0);
		return;
	}
	if (keep > 3)
		close_range(3, (unsigned)keep - 1, 0);
	close_range((unsigned)(keep + copies) + 1, ~0u, 0);
}

/* -1: nobody reads it any more. */
static int
report(int fd, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT), *line;
	int r = 0;

	json_decref(message);
	line = xasprintf("%s\n", text ? text : "{}");
	if (fd >= 0) {
		r = write_full(fd, line, strlen(line)) == (ssize_t)strlen(line) ? 0 : -1;
		close(fd);
	}
	free(line);
	free(text);
	return r;
}

static void
report_failure(int fd, const struct err *e)
{
	report(fd, json_pack("{s:{s:s, s:s}}", "error", "code", err_info(e->code)->vbox_name, "text", e->text));
}

static int
report_success(int fd, struct vm *v)
{
	const char *why, *engine = vm_engine(v, &why);

	return report(fd, json_pack("{s:b, s:i, s:s, s:s, s:i}", "ok", 1, "pid", (int)getpid(), "engine", engine,
				  "engine_reason", why, "vrde_port", (int)vm_console_port(v)));
}

static void
detach_output(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/* The machine, from reading its configuration to its end. Returns the exit status. */
static int
run_machine(const struct arguments *a, int ready)
{
	struct vm_options o = { .run_dir = a->run_dir, .foreground = a->foreground, .catch_signals = true };
	struct vm_outcome outcome;
	struct err e = { 0 };
	struct vm_config *c = vm_config_read(a->config, &e);
	const char *log;
	struct vm *v;
	int r;

	o.copy_count = a->copy_count;
	for (int i = 0; i < a->copy_count; i++)
		o.copy_fds[i] = a->ready_fd + 1 + i;

	if (!c) {
		report_failure(ready, &e);
		return 1;
	}
	log = a->log ? a->log : c->log;
	if (log[0] && (r = log_open_file(log))) {
		err_sys(&e, ERR_FILE, r, "cannot open the log file %s", log);
		report_failure(ready, &e);
		vm_config_free(c);
		return 1;
	}
	v = vm_open(c, &o);
	signal(SIGPIPE, SIG_IGN);
	if (vm_power_on(v, &e)) {
		report_failure(ready, &e);
		vm_close(v);
		return 1;
	}
	/* Who gave the start up has said that it does not run. */
	if (report_success(ready, v)) {
		log_warn(c->name, "whoever started the machine did not wait for it: it does not run");
		vm_close(v);
		return 1;
	}
	vm_run(v, &outcome);
	vm_close(v);
	return 0;
}

/* What the child said, passed on. Returns the exit status of the process that was started. */
static int
wait_for_child(int from, int ready)
{
	char line[2048];
	ssize_t n = read_full(from, line, sizeof(line) - 1);

	if (n <= 0) {
		struct err e;

		err_set(&e, ERR_VM, "the machine's process ended before the machine ran");
		report_failure(ready, &e);
		if (ready < 0)
			fprintf(stderr, "lodge-vm: %s\n", e.text);
		return 1;
	}
	line[n] = 0;
	if (ready >= 0)
		write_full(ready, line, (size_t)n);
	if (str_starts(line, "{\"ok\":true"))
		return 0;
	if (ready < 0)
		fprintf(stderr, "lodge-vm: %s", line);
	return 1;
}

/* One line on stdout, as the report of a machine that runs. */
static int
tell_engine(const char *name)
{
	const struct cpu_engine *engine;
	struct err e = { 0 };
	char why[256] = "";

	engine = cpu_choose(name, why, &e);
	if (engine)
		report(dup(1), json_pack("{s:s, s:s}", "engine", engine->name, "engine_reason", why));
	else
		report_failure(dup(1), &e);
	return engine ? 0 : 1;
}

int
main(int argc, char **argv)
{
	struct arguments a = { .ready_fd = -1 };
	int pipe_fds[2];
	pid_t child;

	if (parse_arguments(argc, argv, &a))
		return 2;
	if (a.which_engine)
		return tell_engine(a.which_engine);
	close_others(a.ready_fd, a.copy_count);
	if (a.ready_fd >= 0 && fcntl(a.ready_fd, F_SETFD, FD_CLOEXEC)) {
		fprintf(stderr, "lodge-vm: descriptor %d is not open\n", a.ready_fd);
		return 2;
	}
	if (a.foreground)
		return run_machine(&a, a.ready_fd);
	if (pipe2(pipe_fds, O_CLOEXEC)) {
		perror("lodge-vm: pipe");
		return 1;
	}
	child = fork();
	if (child < 0) {
		perror("lodge-vm: fork");
		return 1;
	}
	if (child) {
		close(pipe_fds[1]);
		return wait_for_child(pipe_fds[0], a.ready_fd);
	}
	close(pipe_fds[0]);
	if (a.ready_fd >= 0)
		close(a.ready_fd);
	setsid();
	detach_output();
	return run_machine(&a, pipe_fds[1]);
}
