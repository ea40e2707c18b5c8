/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers about this host and the machines that run, as VirtualBox's performance collector keeps them: for each object
 * and base metric ("CPU/Load/User") the last `samples` values.
 *
 * There is no daemon that collects: a value is taken whenever somebody asks (host_metrics_sample()), and loads and
 * rates are means since the value before; the first, since the host started. The values and settings are kept in
 * $LODGE_HOME/metrics.json, under a lock between open and close.
 */
#ifndef HOST_METRICS_H
#define HOST_METRICS_H

#include "host/host.h"

struct host_metrics;

struct host_metric {
	const char *object; /* "host" or a machine's name */
	const char *name, *unit, *description;
	int64_t minimum, maximum;
	unsigned period, samples; /* seconds; values kept */
	bool enabled;
	size_t count;
	const double *values; /* oldest first */
};
typedef void host_metric_fn(void *opaque, const struct host_metric *m);

struct host_metrics *host_metrics_open(struct host *h, struct err *e);
/* Write down what has changed and let others in. */
int host_metrics_close(struct host_metrics *m, struct err *e);

/*
 * The metrics of `object` ("*", "host", a machine's name or UUID) whose names one of `patterns` fits: a list with
 * commas,
 * "*" for anything; NULL: all. 0, or -1 when there is no such machine.
 */
int host_metrics_each(struct host_metrics *m, const char *object, const char *patterns, host_metric_fn *fn,
	void *opaque, struct err *e);
/* Take a value of every enabled metric. */
void host_metrics_sample(struct host_metrics *m);
/* Keep `samples` values, `period` seconds apart, beginning anew. */
int host_metrics_setup(struct host_metrics *m, const char *object, const char *patterns, unsigned period,
	unsigned samples, struct err *e);
int host_metrics_enable(struct host_metrics *m, const char *object, const char *patterns, bool on, struct err *e);
/* Who samples in the background: a process number, 0: nobody. */
int host_metrics_collector(struct host_metrics *m);
void host_metrics_set_collector(struct host_metrics *m, int pid);

#endif
