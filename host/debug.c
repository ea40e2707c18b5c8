/* SPDX-License-Identifier: Apache-2.0 */
/* Looking into a running machine: the method "debug" of vm/protocol.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "vm/protocol.h"

static json_t *
list(const char *const *texts, size_t count)
{
	json_t *a = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(a, json_string(texts[i]));
	return a;
}

static json_t *
parameters(const struct host_debug *q)
{
	json_t *p = json_pack("{s:s, s:i}", "what", q->what, "cpu", q->cpu);

	if (q->names)
		json_object_set_new(p, "names", list(q->names, q->count));
	if (q->values)
		json_object_set_new(p, "values", list(q->values, q->count));
	if (q->item)
		json_object_set_new(p, "item", json_string(q->item));
	if (q->args)
		json_object_set_new(p, "args", json_string(q->args));
	if (q->level)
		json_object_set_new(p, "level", json_string(q->level));
	if (q->listen)
		json_object_set_new(p, "listen", json_string(q->listen));
	if (q->lines)
		json_object_set_new(p, "lines", json_integer(q->lines));
	return p;
}

int
host_vm_debug(struct host *h, const char *id, const struct host_debug *q, host_pair_fn *fn, void *opaque, struct err *e)
{
	struct host_vm *vm = vm_load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, "debug", parameters(q), e) : NULL, *pair;
	size_t i;

	json_array_foreach(json_object_get(answer, "pairs"), i, pair)
	{
		const char *name = json_string_value(json_array_get(pair, 0));
		const char *value = json_string_value(json_array_get(pair, 1));

		if (fn && name && value)
			fn(opaque, name, value, 0, "");
	}
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

/* ---- counters ---- */

/* "/CPU0/insns" and so on: members that are numbers, under what the lists' members are called by `keys`. */
static void
each_number(json_t *object, const char *prefix, host_pair_fn *fn, void *opaque)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		char *name, text[24];

		if (!json_is_integer(value) || !strcmp(key, "port") || !strcmp(key, "device") || !strcmp(key, "slot"))
			continue; /* where it is, not how much */
		name = xasprintf("%s/%s", prefix, key);
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
		fn(opaque, name, text, 0, "");
		free(name);
	}
}

int
host_vm_counters(struct host *h, const char *id, host_pair_fn *fn, void *opaque, struct err *e)
{
	static const char *const lists[][2] = { { "cpus", "CPU" }, { "disks", "Disk" }, { "nics", "NIC" } };
	struct host_vm *vm = vm_load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, "stats", json_object(), e) : NULL, *row;
	size_t i;

	for (size_t k = 0; answer && k < ARRAY_LEN(lists); k++)
		json_array_foreach(json_object_get(answer, lists[k][0]), i, row)
		{
			char prefix[32];

			snprintf(prefix, sizeof(prefix), "/%s%zu", lists[k][1], i);
			each_number(row, prefix, fn, opaque);
		}
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

/* ---- core files ---- */

static int
copy_file(int from, int to)
{
	uint8_t *buf = xcalloc(1 << 16, 1);
	off_t at = 0, end = lseek(from, 0, SEEK_END);
	int r = ftruncate(to, end) ? -errno : 0;

	/* holes stay holes */
	while (!r && at < end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
		ssize_t n = pread(from, buf, 1 << 16, at);

		if (n > 0 && pwrite(to, buf, (size_t)n, at) != n)
			r = errno ? -errno : -ENOSPC;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		at += n;
	}
	free(buf);
	return r;
}

static int
take_away(const char *from, const char *to, struct err *e)
{
	int in, out, r;

	if (!rename(from, to))
		return 0;
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = out < 0 ? -errno : copy_file(in, out);
	if (out >= 0 && close(out) && !r)
		r = -errno;
	if (in >= 0)
		close(in);
	if (r && out >= 0)
		unlink(to);
	unlink(from);
	return r ? err_sys(e, ERR_FILE, r, "Cannot write '%s'", to) : 0;
}

int
host_vm_core(struct host *h, const char *id, const char *path, struct err *e)
{
	struct host_debug q = { .what = "core" };
	struct host_vm *vm = vm_load_running(h, id, e);
	char *dir, *made, *to;
	int r;

	if (!vm)
		return -1;
	dir = vm_run_dir(h, vm->uuid);
	made = xasprintf("%s/" VM_FILE_CORE, dir);
	to = host_absolute_path(path);
	if (!access(to, F_OK)) {
		r = err_set(e, ERR_FILE, "The file '%s' exists already", to);
	} else {
		unlink(made); /* of somebody who was interrupted */
		r = host_vm_debug(h, id, &q, NULL, NULL, e) || take_away(made, to, e) ? -1 : 0;
	}
	free(to);
	free(made);
	free(dir);
	host_vm_free(vm);
	return r;
}
