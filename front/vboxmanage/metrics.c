/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics: list, setup, query, enable, disable, collect. VirtualBox's service collects in the background; here a value
 * is taken when one is asked for (host/metrics.h), by `collect` as long as it runs, or by the process that
 * `collect --detach` leaves behind until `disable` or until nothing is enabled.
 */
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "front/vboxmanage/vbm.h"
#include "host/metrics.h"

static const struct site site = { "PerformanceCollector",
	"QueryMetricsData(ComSafeArrayAsInParam(metrics), ComSafeArrayAsInParam(objects))", 470,
	"VBoxManageMetrics.cpp" };

struct request {
	const char *object, *patterns;
	unsigned period, samples;
	bool list, detach;
	bool stamped; /* as collect prints it */
};

static const char *const aggregates[] = { "", ":avg", ":min", ":max" };

/* Was this one of the base and its aggregates asked for? "CPU/Load/User" is itself only, "CPU/Load/User*" all four. */
static bool
asked(const char *patterns, const char *base, const char *suffix)
{
	char *copy, *rest, *word;
	bool found = false;

	if (!patterns)
		return true;
	copy = rest = xstrdup(patterns);
	while (!found && (word = strsep(&rest, ","))) {
		char *colon = strchr(word, ':');

		if (colon)
			*colon++ = 0;
		if (fnmatch(word, base, 0))
			continue;
		if (colon)
			found = *suffix && !fnmatch(colon, suffix + 1, 0);
		else
			found = !*suffix || str_ends(word, "*");
	}
	free(copy);
	return found;
}

/* ---- list ---- */

static void
print_row(void *opaque, const struct host_metric *m)
{
	const struct request *q = opaque;

	for (size_t i = 0; i < ARRAY_LEN(aggregates); i++) {
		char *name = xasprintf("%s%s", m->name, aggregates[i]);

		if (asked(q->patterns, m->name, aggregates[i]))
			printf("%-15s %-40s %-4s %10lld %10lld %10u %10u %s\n", m->object, name, m->unit,
				(long long)m->minimum, (long long)m->maximum, m->enabled ? m->period : 0,
				m->enabled ? m->samples : 0, m->description);
		free(name);
	}
}

static int
list_rows(struct cli *c, struct host_metrics *m, const struct request *q)
{
	struct err e = { 0 };

	printf("%-15s %-40s %-7s %7s %10s %10s %10s %s\n", "Object", "Metric", "Unit", "Minimum", "Maximum", "Period",
		"Count", "Description");
	printf("--------------- ---------------------------------------- ---- ---------- ---------- ---------- "
	       "---------- -----------\n");
	return host_metrics_each(m, q->object, q->patterns, print_row, (void *)(uintptr_t)q, &e)
		       ? fail_api(c, &e, &site)
		       : 0;
}

/* What setup, enable and disable changed, with --list. */
static void
print_affected(void *opaque, const struct host_metric *m)
{
	printf("%-15s %s\n", m->object, m->name);
}

static int
list_affected(struct cli *c, struct host_metrics *m, const struct request *q)
{
	struct err e = { 0 };

	if (!q->list)
		return 0;
	printf("The following metrics were modified:\n\nObject          Metric\n--------------- "
	       "--------------------\n");
	return host_metrics_each(m, q->object, q->patterns, print_affected, NULL, &e) ? fail_api(c, &e, &site) : 0;
}

/* ---- query ---- */

static void
print_value(const struct host_metric *m, double v)
{
	if (!strcmp(m->unit, "%"))
		printf("%.2f%%", v);
	else
		printf("%.0f %s", v, m->unit);
}

static double
aggregate(const struct host_metric *m, const char *which)
{
	double sum = 0, least = m->values[0], most = m->values[0];

	for (size_t i = 0; i < m->count; i++) {
		sum += m->values[i];
		least = MIN(least, m->values[i]);
		most = MAX(most, m->values[i]);
	}
	return !strcmp(which, "avg") ? sum / (double)m->count : !strcmp(which, "min") ? least : most;
}

static void
print_values(const struct request *q, const char *stamp, const struct host_metric *m, const char *suffix)
{
	char *name = xasprintf("%s%s", m->name, suffix);

	if (q->stamped)
		printf("%-12s %-10s %-20s ", stamp, m->object, name);
	else
		printf("%-15s %-40s ", m->object, name);
	if (*suffix)
		print_value(m, aggregate(m, suffix + 1));
	for (size_t i = 0; !*suffix && i < m->count; i++) {
		if (i)
			printf(", ");
		print_value(m, m->values[i]);
	}
	putchar('\n');
	free(name);
}

static void
print_data(void *opaque, const struct host_metric *m)
{
	const struct request *q = opaque;
	struct timespec now;
	char stamp[32];
	struct tm tm;
	size_t n;

	if (!m->enabled || !m->count)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	n = strftime(stamp, sizeof(stamp), "%H:%M:%S", &tm);
	snprintf(stamp + n, sizeof(stamp) - n, ".%03ld", now.tv_nsec / 1000000);
	for (size_t i = 0; i < ARRAY_LEN(aggregates); i++)
		if (asked(q->patterns, m->name, aggregates[i]))
			print_values(q, stamp, m, aggregates[i]);
}

static int
query(struct cli *c, struct host_metrics *m, const struct request *q)
{
	struct err e = { 0 };

	host_metrics_sample(m);
	printf("%-15s %-40s %s\n", "Object", "Metric", "Values");
	printf("--------------- ---------------------------------------- "
	       "--------------------------------------------\n");
	return host_metrics_each(m, q->object, q->patterns, print_data, (void *)(uintptr_t)q, &e)
		       ? fail_api(c, &e, &site)
		       : 0;
}

/* ---- setup, enable, disable ---- */

static int
setup(struct cli *c, struct host_metrics *m, const struct request *q)
{
	struct err e = { 0 };

	if (host_metrics_setup(m, q->object, q->patterns, q->period, q->samples, &e))
		return fail_api(c, &e, &site);
	host_metrics_sample(m);
	return list_affected(c, m, q);
}

static void
count_enabled(void *opaque, const struct host_metric *m)
{
	*(int *)opaque += m->enabled;
}

static int
enable(struct cli *c, struct host_metrics *m, const struct request *q, bool on)
{
	struct err e = { 0 };
	int left = 0;

	if (host_metrics_enable(m, q->object, q->patterns, on, &e))
		return fail_api(c, &e, &site);
	host_metrics_each(m, "*", NULL, count_enabled, &left, &e);
	if (!left) /* the collector in the background sees that it is no longer the one */
		host_metrics_set_collector(m, 0);
	return list_affected(c, m, q);
}

/* ---- collect ---- */

/* Sleep and take values until interrupted, or, in the background, until somebody else is the collector. */
static int
collect_loop(struct cli *c, const struct request *q, bool background)
{
	struct timespec period = { .tv_sec = q->period };
	struct host_metrics *m;
	struct err e = { 0 };
	unsigned taken = 0;
	bool ours = true;
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);

	if (!background)
		printf("%-12s %-10s %-20s %s\n------------ ---------- -------------------- --------------------\n",
			"Time stamp", "Object", "Metric", "Value");
	while (ours) {
		fflush(stdout);
		m = sigtimedwait(&ends, NULL, &period) > 0 ? NULL : host_metrics_open(c->host, &e);
		if (!m)
			break;
		ours = !background || host_metrics_collector(m) == getpid();
		if (ours)
			host_metrics_sample(m);
		if (!background && ++taken % q->samples == 0)
			host_metrics_each(m, q->object, q->patterns, print_data, (void *)(uintptr_t)q, &e);
		host_metrics_close(m, &e);
	}
	return 0;
}

/* In the background, with nothing of the caller's open; it opens the inventory for itself. */
static int
collect_detached(struct cli *c, const struct request *q)
{
	struct host_metrics *m;
	struct err e = { 0 };
	int null, ready[2];
	char byte;

	host_close(c->host);
	c->host = NULL;
	if (pipe2(ready, O_CLOEXEC))
		return fail_plain(c, "Cannot start the collector");
	fflush(stdout);
	if (fork()) {
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			return fail_plain(c, "The collector could not start");
		return 0;
	}
	setsid();
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	dup2(ready[1], 3);
	close_range(4, ~0u, 0); /* before the inventory is opened: its descriptors are not the caller's */
	c->host = host_open(&e);
	m = c->host ? host_metrics_open(c->host, &e) : NULL;
	if (!m)
		_exit(1);
	host_metrics_set_collector(m, getpid());
	host_metrics_close(m, &e);
	if (write(3, "", 1) != 1)
		_exit(1);
	close(3);
	collect_loop(c, q, true);
	_exit(0);
}

static int
collect(struct cli *c, const struct request *q)
{
	struct host_metrics *m;
	struct err e = { 0 };
	int status;

	m = host_metrics_open(c->host, &e);
	if (!m)
		return fail_api(c, &e, &site);
	status = setup(c, m, q);
	if (host_metrics_close(m, &e) && !status)
		status = fail_api(c, &e, &site);
	if (status)
		return status;
	return q->detach ? collect_detached(c, q) : collect_loop(c, q, false);
}

/* ---- the command ---- */

static int
parse(struct cli *c, int argc, char **argv, struct request *q)
{
	static const struct opt options[] = {
		{ "period", 0, OPT_NUMBER, 'p', 0 },
		{ "samples", 1, OPT_NUMBER, 's', 0 },
		{ "list", 2, OPT_FLAG, 'l', 0 },
		{ "detach", 3, OPT_FLAG, 'd', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	int id, words = 0;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id < 2 && id >= 0 && (a.number < 1 || a.number > 86400))
			return fail_argument(c, "Invalid value '%s' for '%s'", a.text, a.spelled);
		if (id == 0)
			q->period = (unsigned)a.number;
		else if (id == 1)
			q->samples = (unsigned)a.number;
		else if (id == ARG_WORD && words == 2)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		else if (id == ARG_WORD)
			*(words++ ? &q->patterns : &q->object) = a.text;
		q->list |= id == 2;
		q->detach |= id == 3;
	}
	if (q->object && !strcmp(q->object, "*"))
		q->object = NULL;
	if (q->patterns && !strcmp(q->patterns, "*"))
		q->patterns = NULL;
	return 0;
}

int
cmd_metrics(struct cli *c, int argc, char **argv)
{
	static const char *const verbs[] = { "list", "setup", "query", "enable", "disable", "collect" };
	struct request q = { .period = 1, .samples = 1 };
	struct host_metrics *m;
	struct err e = { 0 };
	size_t verb = 0;
	int status;

	if (!argc)
		return fail_syntax(c, "Subcommand missing");
	while (verb < ARRAY_LEN(verbs) && strcmp(argv[0], verbs[verb]))
		verb++;
	if (verb == ARRAY_LEN(verbs))
		return fail_syntax(c, "Invalid subcommand '%s'", argv[0]);
	status = parse(c, argc - 1, argv + 1, &q);
	if (status || !cli_host(c))
		return status ? status : 1;
	q.stamped = verb == 5;
	if (verb == 5)
		return collect(c, &q);
	m = host_metrics_open(c->host, &e);
	if (!m)
		return fail_api(c, &e, &site);
	status = verb == 0   ? list_rows(c, m, &q)
		 : verb == 1 ? setup(c, m, &q)
		 : verb == 2 ? query(c, m, &q)
			     : enable(c, m, &q, verb == 3);
	if (host_metrics_close(m, &e) && !status)
		status = fail_api(c, &e, &site);
	return status;
}
