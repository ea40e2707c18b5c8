/* SPDX-License-Identifier: Apache-2.0 */
/* lodge fork: running copies of a running machine. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stop.h"
#include "base/str.h"
#include "front/lodge/lodge.h"
#include "host/host.h"

static int
usage(FILE *f, int status)
{
	fprintf(f,
		"Usage: lodge fork VM [--count N] [--name PREFIX] [--verbose]\n"
		"Makes N (default 1) running copies of the running machine VM, called PREFIX-1, PREFIX-2... (default:\n"
		"its name). They share its memory and disks until they write to them; each has its own UUID, MAC\n"
		"addresses, forwarded ports and random numbers. The names of the copies are printed.\n");
	return status;
}

static void
say(void *opaque, const char *sentence)
{
	fprintf(stderr, "lodge: warning: %s\n", sentence);
}

static void
print_ports(struct host *h, const char *id)
{
	struct host_vm *vm = host_vm_load(h, id, NULL);

	for (int n = 0; vm && n < HOST_NICS; n++)
		for (int i = 0; i < vm->rule_count[n]; i++)
			printf(" %s=%u", vm->rules[n][i].name, vm->rules[n][i].host_port);
	host_vm_free(vm);
}

static bool
stopped(void *opaque)
{
	return stop_wanted();
}

static void
show_bar(void *opaque, int percent)
{
	static const char full[] = "##################################################";

	fprintf(stderr, "\r[%-50.*s] %3d %%%s", percent / 2, full, percent, percent == 100 ? "\n" : "");
}

static int
run(const char *vm, const char *prefix, int count, bool verbose)
{
	struct err e = { 0 };
	struct host *h = host_open(&e);
	struct host_forked *out = xcalloc((size_t)count, sizeof(*out));
	struct host_progress progress = { .percent = count > 1 && isatty(STDERR_FILENO) ? show_bar : NULL,
		.stopped = stopped };
	double stopped_ms;
	int r = -1;

	if (h) {
		host_recover(h, say, NULL);
		stop_hold();
		r = host_vm_fork(h, vm, prefix, count, &progress, out, &stopped_ms, &e);
		stop_release();
	}
	for (int i = 0; i < count && out[i].name; i++) {
		printf("%s", out[i].name);
		if (verbose) {
			printf(" {%s}", out[i].uuid);
			print_ports(h, out[i].uuid);
			fprintf(stderr, "%s was started in %.0f ms\n", out[i].name, out[i].ms);
		}
		putchar('\n');
		free(out[i].name);
	}
	if (r)
		fprintf(stderr, "lodge: %s\n", e.text);
	else if (verbose)
		fprintf(stderr, "%s stood still for %.0f ms\n", vm, stopped_ms);
	free(out);
	host_close(h);
	return r ? 1 : 0;
}

int
lodge_fork(int argc, char **argv)
{
	static const struct option options[] = {
		{ "count", required_argument, NULL, 'n' },
		{ "name", required_argument, NULL, 'p' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *prefix = NULL;
	bool verbose = false;
	uint64_t count = 1;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'n':
			if (!str_to_u64(optarg, 1, 1000, &count)) {
				fprintf(stderr, "lodge: --count takes a number from 1 to 1000, not '%s'\n", optarg);
				return 2;
			}
			break;
		case 'p':
			prefix = optarg;
			break;
		case 'v':
			verbose = true;
			break;
		case 'h':
			return usage(stdout, 0);
		default:
			return 2;
		}
	}
	if (optind + 1 != argc)
		return usage(stderr, 2);
	return run(argv[optind], prefix, (int)count, verbose);
}
