/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: host/metrics.h says what they are.
 *
 * metrics.json: {"collector": PID, "rows": {"OBJECT NAME": {"period", "samples", "off": true, "values": [...]}},
 * "counters": {"OBJECT": {"time": seconds, NAME: number, ...}}}; OBJECT is "host" or a machine's UUID. Counters are
 * what loads and rates are differences of. Rows of machines that do not run go.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/metrics.h"
#include "host/run.h"
#include "vm/protocol.h"

#define FILE_NAME "metrics.json"
#define SHORTEST_S 0.05 /* values of rates are at least so far apart */

enum kind { LOAD, VALUE, RATE };
/* clang-format off */
static const struct metric {
	const char *name, *unit;
	enum kind kind; /* LOAD: percent of the counter "total"; RATE: of a counter, a second */
	int64_t maximum;
	const char *description;
} host_rows[] = {
	{ "CPU/Load/User", "%", LOAD, 100, "Percentage of processor time spent in user mode." },
	{ "CPU/Load/Kernel", "%", LOAD, 100, "Percentage of processor time spent in kernel mode." },
	{ "CPU/Load/Idle", "%", LOAD, 100, "Percentage of processor time spent idling." },
	{ "CPU/MHz", "MHz", VALUE, INT32_MAX, "Average of current frequency of all processors." },
	{ "RAM/Usage/Total", "kB", VALUE, INT32_MAX, "Total physical memory installed." },
	{ "RAM/Usage/Used", "kB", VALUE, INT32_MAX, "Physical memory currently occupied." },
	{ "RAM/Usage/Free", "kB", VALUE, INT32_MAX, "Physical memory currently available to applications." },
	{ "FS/{/}/Usage/Total", "MB", VALUE, INT32_MAX, "Size of the root file system." },
	{ "FS/{/}/Usage/Used", "MB", VALUE, INT32_MAX, "Space of the root file system that is occupied." },
	{ "FS/{/}/Usage/Free", "MB", VALUE, INT32_MAX, "Space of the root file system that is free." },
	{ "Net/Rate/Rx", "B/s", RATE, INT32_MAX, "Bytes a second that the host's interfaces receive." },
	{ "Net/Rate/Tx", "B/s", RATE, INT32_MAX, "Bytes a second that the host's interfaces transmit." },
}, machine_rows[] = {
	{ "CPU/Load/User", "%", LOAD, 100, "Percentage of processor time spent in user mode by the VM process." },
	{ "CPU/Load/Kernel", "%", LOAD, 100, "Percentage of processor time spent in kernel mode by the VM process." },
	{ "RAM/Usage/Used", "kB", VALUE, INT32_MAX, "Size of resident portion of VM process in memory." },
	{ "Disk/Usage/Used", "MB", VALUE, INT32_MAX, "Actual size of all VM disks combined." },
	{ "Net/Rate/Rx", "B/s", RATE, INT32_MAX, "Network receive rate." },
	{ "Net/Rate/Tx", "B/s", RATE, INT32_MAX, "Network transmit rate." },
};
/* clang-format on */

struct host_metrics {
	struct host *h;
	int lock;
	char *path;
	json_t *doc;
	struct host_vm **vms;
	size_t vm_count;
};

/* An object as the file knows it. */
struct object {
	struct host_vm *vm; /* NULL: the host */
	const struct metric *rows;
	size_t count;
};

static struct object
host_object(void)
{
	return (struct object){ NULL, host_rows, ARRAY_LEN(host_rows) };
}

static struct object
machine_object(struct host_vm *vm)
{
	return (struct object){ vm, machine_rows, ARRAY_LEN(machine_rows) };
}

static const char *
object_key(const struct object *o)
{
	return o->vm ? o->vm->uuid : "host";
}

/* ---- opening and closing ---- */

static json_t *
member(json_t *parent, const char *key)
{
	json_t *o = json_object_get(parent, key);

	if (!json_is_object(o)) {
		o = json_object();
		json_object_set_new(parent, key, o);
	}
	return o;
}

static bool
runs(const struct host_metrics *m, const char *uuid)
{
	for (size_t i = 0; i < m->vm_count; i++)
		if (!strncmp(m->vms[i]->uuid, uuid, 36) && host_state_live(m->vms[i]->state))
			return true;
	return !strncmp(uuid, "host", 4);
}

static void
forget_the_dead(struct host_metrics *m, const char *list)
{
	json_t *o = member(m->doc, list), *v;
	const char *key;
	void *next;

	json_object_foreach_safe(o, next, key, v)
	{
		if (!runs(m, key))
			json_object_del(o, key);
	}
}

struct host_metrics *
host_metrics_open(struct host *h, struct err *e)
{
	struct host_metrics *m = xcalloc(1, sizeof(*m));
	char *lock = xasprintf("%s/" FILE_NAME ".lock", host_home(h));

	m->h = h;
	m->path = xasprintf("%s/" FILE_NAME, host_home(h));
	m->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (m->lock < 0 || flock(m->lock, LOCK_EX)) {
		err_sys(e, ERR_FILE, errno, "Cannot lock '%s'", lock);
		goto fail;
	}
	if (host_vms_load(h, &m->vms, &m->vm_count, e))
		goto fail;
	m->doc = json_load_file(m->path, 0, NULL);
	if (!json_is_object(m->doc)) {
		json_decref(m->doc);
		m->doc = json_object();
	}
	forget_the_dead(m, "rows");
	forget_the_dead(m, "counters");
	free(lock);
	return m;
fail:
	if (m->lock >= 0)
		close(m->lock);
	free(lock);
	free(m->path);
	free(m);
	return NULL;
}

int
host_metrics_close(struct host_metrics *m, struct err *e)
{
	char *text = json_dumps(m->doc, JSON_COMPACT);
	int r = text ? file_replace(m->path, text, strlen(text), 0600, e)
		     : err_set(e, ERR_FAILED, "The metrics cannot be written down");

	free(text);
	json_decref(m->doc);
	host_vms_free(m->vms, m->vm_count);
	close(m->lock);
	free(m->path);
	free(m);
	return r;
}

/* ---- which ones ---- */

static bool
fits(const char *patterns, const char *name)
{
	char *copy, *rest, *word;
	bool found = false;

	if (!patterns)
		return true;
	copy = rest = xstrdup(patterns);
	while (!found && (word = strsep(&rest, ","))) {
		word[strcspn(word, ":")] = 0; /* aggregates belong to their base */
		found = !fnmatch(word, name, 0);
	}
	free(copy);
	return found;
}

typedef void row_fn(struct host_metrics *m, const struct object *o, const struct metric *row, void *opaque);

static void
each_row(struct host_metrics *m, const struct object *o, const char *patterns, row_fn *fn, void *opaque)
{
	for (size_t i = 0; i < o->count; i++)
		if (fits(patterns, o->rows[i].name))
			fn(m, o, &o->rows[i], opaque);
}

static int
each_object(struct host_metrics *m, const char *which, const char *patterns, row_fn *fn, void *opaque, struct err *e)
{
	bool all = !which || !strcmp(which, "*");
	struct object o = host_object();

	if (all || !strcmp(which, "host"))
		each_row(m, &o, patterns, fn, opaque);
	if (!all && strcmp(which, "host")) {
		struct host_vm *vm = host_vm_load(m->h, which, e);

		if (!vm)
			return -1;
		o = machine_object(vm);
		if (host_state_live(vm->state))
			each_row(m, &o, patterns, fn, opaque);
		host_vm_free(vm);
	}
	for (size_t i = 0; all && i < m->vm_count; i++) {
		o = machine_object(m->vms[i]);
		if (host_state_live(m->vms[i]->state))
			each_row(m, &o, patterns, fn, opaque);
	}
	return 0;
}

static json_t *
settings_of(struct host_metrics *m, const struct object *o, const struct metric *row)
{
	char *key = xasprintf("%s %s", object_key(o), row->name);
	json_t *s = member(member(m->doc, "rows"), key);

	free(key);
	return s;
}

static unsigned
number_of(json_t *s, const char *key, unsigned fallback)
{
	json_int_t v = json_integer_value(json_object_get(s, key));

	return v > 0 && v <= 1000000 ? (unsigned)v : fallback;
}

/* ---- reading ---- */

struct reading {
	json_t *values, *counters; /* by the metric's name; counters also "total" and "time" */
};

static void
put(json_t *o, const char *key, double v)
{
	json_object_set_new(o, key, json_real(v));
}

static void
read_host_cpu(struct reading *r)
{
	unsigned long long t[8] = { 0 };
	FILE *f = fopen("/proc/stat", "re");
	double total = 0;
	int n = 0;

	if (f) {
		n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5],
			&t[6], &t[7]);
		fclose(f);
	}
	for (int i = 0; i < n && i < 8; i++)
		total += (double)t[i];
	put(r->counters, "total", total);
	put(r->counters, "CPU/Load/User", (double)(t[0] + t[1]));
	put(r->counters, "CPU/Load/Kernel", (double)(t[2] + t[5] + t[6]));
	put(r->counters, "CPU/Load/Idle", (double)(t[3] + t[4]));
}

static void
read_host_memory(struct reading *r)
{
	unsigned long long total = 0, available = 0, v;
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemTotal: %llu", &v) == 1)
			total = v;
		if (sscanf(line, "MemAvailable: %llu", &v) == 1)
			available = v;
	}
	if (f)
		fclose(f);
	put(r->values, "RAM/Usage/Total", (double)total);
	put(r->values, "RAM/Usage/Used", (double)(total - available));
	put(r->values, "RAM/Usage/Free", (double)available);
}

static void
read_host_rest(struct reading *r)
{
	unsigned long long rx = 0, tx = 0, a, b;
	char line[512], name[64];
	struct statvfs fs;
	struct host_hw hw;
	double mhz = 0;
	FILE *f = fopen("/proc/net/dev", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " %63[^:]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", name, &a, &b) == 3 &&
			strcmp(name, "lo")) {
			rx += a;
			tx += b;
		}
	if (f)
		fclose(f);
	put(r->counters, "Net/Rate/Rx", (double)rx);
	put(r->counters, "Net/Rate/Tx", (double)tx);
	host_hw_get(&hw);
	for (unsigned i = 0; i < hw.cpu.count; i++)
		mhz += hw.cpu.mhz[i];
	put(r->values, "CPU/MHz", mhz / (hw.cpu.count ? hw.cpu.count : 1));
	host_hw_release(&hw);
	if (statvfs("/", &fs))
		return;
	put(r->values, "FS/{/}/Usage/Total", (double)fs.f_blocks * (double)fs.f_frsize / 1048576);
	put(r->values, "FS/{/}/Usage/Used", (double)(fs.f_blocks - fs.f_bfree) * (double)fs.f_frsize / 1048576);
	put(r->values, "FS/{/}/Usage/Free", (double)fs.f_bavail * (double)fs.f_frsize / 1048576);
}

static int
process_of(struct host *h, const char *uuid)
{
	char *dir = vm_run_dir(h, uuid), *path = xasprintf("%s/" VM_FILE_LOCK, dir);
	FILE *f = fopen(path, "re");
	int pid = 0;

	if (f && fscanf(f, "%d", &pid) != 1)
		pid = 0;
	if (f)
		fclose(f);
	free(path);
	free(dir);
	return pid;
}

/* proc(5): /proc/PID/stat and statm */
static void
read_process(struct reading *r, int pid)
{
	unsigned long long user = 0, kernel = 0, pages = 0;
	char path[64], text[1024] = "", *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (f) {
		text[fread(text, 1, sizeof(text) - 1, f)] = 0;
		fclose(f);
	}
	p = strrchr(text, ')'); /* behind the name, which can hold anything */
	if (p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &kernel) != 2)
		user = kernel = 0;
	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*u %llu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	put(r->counters, "CPU/Load/User", (double)user);
	put(r->counters, "CPU/Load/Kernel", (double)kernel);
	put(r->values, "RAM/Usage/Used", (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024);
}

struct traffic {
	double rx, tx;
};

static int
add_traffic(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	struct traffic *t = opaque;

	if (str_starts(key, "/NIC") && str_ends(key, "/rx_bytes"))
		t->rx += strtod(value, NULL);
	if (str_starts(key, "/NIC") && str_ends(key, "/tx_bytes"))
		t->tx += strtod(value, NULL);
	return 0;
}

static double
disk_megabytes(const struct host_vm *vm)
{
	struct stat st;
	double sum = 0;

	for (int i = 0; i < vm->ctl_count; i++)
		for (int k = 0; k < vm->ctl[i].at_count; k++) {
			const struct host_attachment *a = &vm->ctl[i].at[k];

			if (a->type == HOST_DISK && a->path && !stat(a->path, &st))
				sum += (double)st.st_blocks * 512 / 1048576;
		}
	return sum;
}

static void
read_machine(struct host_metrics *m, const struct host_vm *vm, struct reading *r)
{
	struct traffic t = { 0 };
	struct reading host = { json_object(), json_object() };
	struct err unused;

	read_host_cpu(&host);
	json_object_set(r->counters, "total", json_object_get(host.counters, "total"));
	json_decref(host.values);
	json_decref(host.counters);
	read_process(r, process_of(m->h, vm->uuid));
	put(r->values, "Disk/Usage/Used", disk_megabytes(vm));
	if (!host_vm_counters(m->h, vm->uuid, add_traffic, &t, &unused)) {
		put(r->counters, "Net/Rate/Rx", t.rx);
		put(r->counters, "Net/Rate/Tx", t.tx);
	}
}

/* What a counter grew by since the last reading; a first reading grew from nothing. */
static double
growth(const struct reading *r, json_t *before, const char *name)
{
	double d = json_number_value(json_object_get(r->counters, name)) -
		   json_number_value(json_object_get(before, name));

	return d > 0 ? d : 0;
}

static double
value_of(const struct reading *r, json_t *before, const struct metric *row)
{
	double total = growth(r, before, "total"), seconds = growth(r, before, "time");

	switch (row->kind) {
	case LOAD:
		return total > 0 ? MIN(100, growth(r, before, row->name) * 100 / total) : 0;
	case RATE:
		return seconds > 0 ? growth(r, before, row->name) / seconds : 0;
	default:
		return json_number_value(json_object_get(r->values, row->name));
	}
}

static void
keep(struct host_metrics *m, const struct object *o, const struct metric *row, double value)
{
	json_t *s = settings_of(m, o, row), *values = json_object_get(s, "values");

	if (json_is_true(json_object_get(s, "off")))
		return;
	if (!json_is_array(values)) {
		values = json_array();
		json_object_set_new(s, "values", values);
	}
	json_array_append_new(values, json_real(value));
	while (json_array_size(values) > number_of(s, "samples", 1))
		json_array_remove(values, 0);
}

static double
seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
sample_object(struct host_metrics *m, const struct object *o)
{
	json_t *all = member(m->doc, "counters"), *before = json_object_get(all, object_key(o));
	struct reading r = { json_object(), json_object() };

	put(r.counters, "time", seconds_now());
	if (!before || growth(&r, before, "time") >= SHORTEST_S) {
		if (o->vm) {
			read_machine(m, o->vm, &r);
		} else {
			read_host_cpu(&r);
			read_host_memory(&r);
			read_host_rest(&r);
		}
		for (size_t i = 0; i < o->count; i++)
			keep(m, o, &o->rows[i], value_of(&r, before, &o->rows[i]));
		json_object_set(all, object_key(o), r.counters);
	}
	json_decref(r.values);
	json_decref(r.counters);
}

void
host_metrics_sample(struct host_metrics *m)
{
	struct object o = host_object();

	sample_object(m, &o);
	for (size_t i = 0; i < m->vm_count; i++) {
		o = machine_object(m->vms[i]);
		if (host_state_live(m->vms[i]->state))
			sample_object(m, &o);
	}
}

/* ---- what callers do with rows ---- */

struct show {
	host_metric_fn *fn;
	void *opaque;
};

static void
show_row(struct host_metrics *m, const struct object *o, const struct metric *row, void *opaque)
{
	const struct show *show = opaque;
	json_t *s = settings_of(m, o, row), *list = json_object_get(s, "values"), *v;
	double *values = xcalloc(json_array_size(list) + 1, sizeof(*values));
	struct host_metric x = {
		.object = o->vm ? o->vm->name : "host",
		.name = row->name,
		.unit = row->unit,
		.description = row->description,
		.maximum = row->maximum,
		.period = number_of(s, "period", 1),
		.samples = number_of(s, "samples", 1),
		.enabled = !json_is_true(json_object_get(s, "off")),
		.values = values,
	};
	size_t i;

	json_array_foreach(list, i, v)
	{
		values[x.count++] = json_number_value(v);
	}
	show->fn(show->opaque, &x);
	free(values);
}

int
host_metrics_each(struct host_metrics *m, const char *object, const char *patterns, host_metric_fn *fn, void *opaque,
	struct err *e)
{
	struct show show = { fn, opaque };

	return each_object(m, object, patterns, show_row, &show, e);
}

static void
setup_row(struct host_metrics *m, const struct object *o, const struct metric *row, void *opaque)
{
	const unsigned *numbers = opaque;
	json_t *s = settings_of(m, o, row);

	json_object_set_new(s, "period", json_integer(numbers[0]));
	json_object_set_new(s, "samples", json_integer(numbers[1]));
	json_object_del(s, "values");
	json_object_del(s, "off");
}

int
host_metrics_setup(struct host_metrics *m, const char *object, const char *patterns, unsigned period, unsigned samples,
	struct err *e)
{
	unsigned numbers[] = { period, samples };

	return each_object(m, object, patterns, setup_row, numbers, e);
}

static void
enable_row(struct host_metrics *m, const struct object *o, const struct metric *row, void *opaque)
{
	json_object_set_new(settings_of(m, o, row), "off", json_boolean(!*(bool *)opaque));
}

int
host_metrics_enable(struct host_metrics *m, const char *object, const char *patterns, bool on, struct err *e)
{
	return each_object(m, object, patterns, enable_row, &on, e);
}

int
host_metrics_collector(struct host_metrics *m)
{
	return (int)json_integer_value(json_object_get(m->doc, "collector"));
}

void
host_metrics_set_collector(struct host_metrics *m, int pid)
{
	json_object_set_new(m->doc, "collector", json_integer(pid));
}
