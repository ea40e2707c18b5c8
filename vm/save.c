/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines are written down and go on from there: saved states (state/), snapshots of memory and disks.
 *
 * Resuming. The file is opened and verified early, because what the guest was told of its CPUs decides how they are
 * made; its contents are put into the machine when everything is built and nothing has run. Memory comes when it is
 * touched, where userfaultfd is allowed (the descriptor is opened before rights are given up).
 *
 * Saving. The owner parks the CPUs, all I/O in flight is completed, what the guest had written goes to the disks; then
 * the file is written, and the machine ends as `saved`, or goes on when that failed.
 *
 * A snapshot. The same, but the machine goes on: disks get an overlay each in front (block_push_overlay()), memory is
 * fixed and written later (state_live_*). A disk that cannot get one undoes those that did.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "state/state.h"
#include "vm/private.h"

/* ---- resuming ---- */

int
vm_state_open(struct vm *v, struct err *e)
{
	int fd;

	v->uffd = state_uffd_open();
	v->share = state_share_open();
	if (v->o.copy_count) {
		v->saved = state_open(v->o.copy_fds[0], "of the machine that is copied", e);
		return v->saved ? 0 : -1;
	}
	if (!v->c->state[0])
		return 0;
	fd = open(v->c->state, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot open the saved state '%s'", v->c->state);
	v->saved = state_open(fd, v->c->state, e);
	if (!v->saved)
		return -1;
	if (!state_verify(v->saved, e))
		return 0;
	state_close(v->saved);
	v->saved = NULL;
	return -1;
}

void
vm_state_close(struct vm *v)
{
	state_close(v->saved);
	v->saved = NULL;
	if (v->uffd >= 0)
		close(v->uffd);
	v->uffd = -1;
	state_share_close(v->share);
	v->share = NULL;
}

/* Memory, from the file or from the layers that the machine has in common with the one it is a copy of. */
static int
load_memory(struct vm *v, struct err *e)
{
	if (!v->o.copy_count)
		return state_load_memory(v->saved, v->m, v->uffd, e);
	return state_share_take(v->share, v->m, v->o.copy_fds + 1, v->o.copy_count - 1, e);
}

/* The guest is another one now: it is told, and its adapters have addresses of their own. */
static void
new_generation(struct vm *v)
{
	struct uuid id;

	if (!uuid_parse(v->c->generation, &id))
		return;
	pc_set_generation(v->pc, &id);
	for (int i = 0; i < v->link_count && v->o.copy_count; i++)
		if (v->links[i].adapter.address_changed)
			v->links[i].adapter.address_changed(v->links[i].adapter.opaque);
}

int
vm_state_load(struct vm *v, struct err *e)
{
	int r;

	if (!v->saved)
		return 0;
	machine_lock(v->m);
	r = state_load(v->saved, v->m, pc_cpus(v->pc), e) || load_memory(v, e);
	if (!r)
		new_generation(v);
	machine_unlock(v->m);
	log_info(v->c->name, r ? "the saved state '%s' is not taken" : "resumes from '%s'", v->c->state);
	return r;
}

/* Memory that is still being loaded cannot be saved, or watched for changes. */
static void
all_loaded(struct vm *v)
{
	if (v->saved)
		state_load_wait(v->saved);
}

/* ---- standing still ---- */

static struct vm_attachment *
attachment_of(struct vm *v, const struct vm_disk *d)
{
	return &v->c->controllers[d->controller].attachments[d->attachment];
}

/* CPUs parked, clock stopped, nothing in flight; what the guest thinks is on its disks is there. */
static int
stand_still(struct vm *v, struct err *e)
{
	int r = 0;

	pc_pause(v->pc);
	machine_lock(v->m);
	device_drain_all(v->m);
	for (int i = 0; i < v->disk_count && !r; i++)
		if (v->disks[i].block && !attachment_of(v, &v->disks[i])->readonly)
			r = block_flush(v->disks[i].block);
	machine_unlock(v->m);
	return r && r != -EROFS ? err_sys(e, ERR_FILE, r, "cannot write what the guest has given to its disks") : 0;
}

static void
tell_progress(void *opaque, int percent)
{
	struct vm_progress *p = opaque;

	machine_lock(p->v->m);
	if (p->v->control)
		control_progress(p->v->control, p->asker, percent);
	machine_unlock(p->v->m);
}

static bool
is_cancelled(void *opaque)
{
	return ((struct vm_progress *)opaque)->v->cancel;
}

/* What failed was given up: say that. */
static int
check_cancelled(struct vm *v, const char *what, struct err *e)
{
	return v->cancel ? err_set(e, ERR_FAILED, "%s of machine '%s' was cancelled; it goes on as before", what,
				   v->c->name)
			 : 0;
}

static int
create_file(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_sys(e, ERR_FILE, errno, "cannot create '%s'", path) : fd;
}

/* ---- saved states ---- */

int
vm_save(struct vm *v, const char *path, struct vm_asker *asker, struct err *e)
{
	struct vm_progress p = { v, asker };
	struct state_progress sp = { tell_progress, &p, is_cancelled };
	enum vm_state before = v->state;
	struct state_numbers n;
	uint64_t start = loop_now();
	int fd, r;

	if (before != VM_RUNNING && before != VM_PAUSED)
		return err_set(e, ERR_VM_STATE,
			"Cannot save the execution state as the machine is not running or paused "
			"(machine state: %s)",
			vm_state_text(before));
	fd = create_file(path, e);
	if (fd < 0)
		return -1;
	all_loaded(v);
	machine_lock(v->m);
	vm_set_state(v, VM_SAVING);
	machine_unlock(v->m);
	r = stand_still(v, e) || state_save(fd, v->m, pc_cpus(v->pc), &sp, &n, e) ? -1 : 0;
	r = check_cancelled(v, "Saving the state", e) ? -1 : r;
	close(fd);
	if (!r) {
		log_info(v->c->name, "saved to '%s': %llu MiB of memory in %llu KiB, %llu ms", path,
			(unsigned long long)n.memory >> 20, (unsigned long long)n.written >> 10,
			(unsigned long long)(loop_now() - start) / 1000000);
		return 0;
	}
	unlink(path);
	machine_lock(v->m);
	vm_set_state(v, before);
	machine_unlock(v->m);
	if (before == VM_RUNNING)
		pc_resume(v->pc);
	return r;
}

/* ---- snapshots ---- */

/* What is asked for, checked: a disk and its overlay each. */
struct overlay {
	struct vm_disk *disk;
	const char *path, *format;
	struct uuid uuid;
	char *old_path, *old_format;
};

static int
read_overlay(struct vm *v, json_t *j, struct overlay *o, struct err *e)
{
	const char *controller = json_string_value(json_object_get(j, "controller"));
	const char *uuid = json_string_value(json_object_get(j, "uuid"));
	json_t *port = json_object_get(j, "port"), *device = json_object_get(j, "device");

	o->path = json_string_value(json_object_get(j, "path"));
	o->format = json_string_value(json_object_get(j, "format"));
	if (!controller || !o->path || o->path[0] != '/' || !uuid || !uuid_parse(uuid, &o->uuid) ||
		!json_is_integer(port) || !json_is_integer(device))
		return err_set(e, ERR_INVALID, "an element of 'disks' is not one");
	o->disk = vm_find_disk(v, controller, (int)json_integer_value(port), (int)json_integer_value(device));
	if (!o->disk || !o->disk->block)
		return err_set(e, ERR_NOT_FOUND, "controller '%s' has no disk at port %d, device %d", controller,
			(int)json_integer_value(port), (int)json_integer_value(device));
	return 0;
}

static int
read_overlays(struct vm *v, json_t *list, struct overlay *o, int *count, struct err *e)
{
	*count = (int)json_array_size(list);
	if (*count > VM_DISKS_MAX)
		return err_set(e, ERR_INVALID, "there are too many disks");
	for (int i = 0; i < *count; i++)
		if (read_overlay(v, json_array_get(list, (size_t)i), &o[i], e))
			return -1;
	return 0;
}

static void
set_image(struct vm *v, struct vm_disk *d, const char *path, const char *format)
{
	struct vm_attachment *a = attachment_of(v, d);
	char *p = xstrdup(path), *f = xstrdup(format ? format : "");

	free(a->path);
	free(a->format);
	a->path = p;
	a->format = f;
}

/* Take the overlay off again, with what the guest wrote in between. */
static int
pop_overlay(struct vm *v, struct overlay *o, struct err *e)
{
	if (block_merge_offline(o->disk->block, 0, BLOCK_MERGE_DOWN, NULL, e)) {
		log_error(v->c->name, "the overlay '%s' stays: %s", o->path, e->text);
		return -1;
	}
	unlink(o->path);
	set_image(v, o->disk, o->old_path, o->old_format);
	return 0;
}

static void
pop_overlays(struct vm *v, struct overlay *o, int count)
{
	struct err e = { 0 };

	while (count-- > 0)
		pop_overlay(v, &o[count], &e);
}

static int
push_overlays(struct vm *v, struct overlay *o, int count, struct err *e)
{
	for (int i = 0; i < count; i++) {
		if (!block_push_overlay(o[i].disk->block, o[i].path, o[i].format, &o[i].uuid, e))
			continue;
		pop_overlays(v, o, i);
		return -1;
	}
	for (int i = 0; i < count; i++) {
		struct vm_attachment *a = attachment_of(v, o[i].disk);

		o[i].old_path = xstrdup(a->path);
		o[i].old_format = xstrdup(a->format);
		set_image(v, o[i].disk, o[i].path, o[i].format);
	}
	return 0;
}

static json_t *
numbers_json(const struct state_numbers *n, uint64_t stopped_ns, uint64_t whole_ns)
{
	return json_pack("{s:f, s:f, s:I, s:I, s:I, s:i}", "stopped_ms", (double)stopped_ns / 1e6, "ms",
		(double)whole_ns / 1e6, "memory", (json_int_t)n->memory, "written", (json_int_t)n->written, "copied",
		(json_int_t)n->copied, "rounds", (int)n->rounds);
}

/* From here on the machine is written down as it is at this moment. *stopped: how long it stood still, ns. */
static int
fix_moment(struct vm *v, struct state_live *l, struct overlay *o, int count, uint64_t *stopped, struct err *e)
{
	bool was_running = v->state_before == VM_RUNNING;
	uint64_t start;
	int r;

	/* Most of what the guest wrote goes to the disks while it still runs. */
	for (int i = 0; i < count; i++)
		block_flush(o[i].disk->block);
	start = loop_now();
	r = stand_still(v, e);
	if (!r && l)
		r = state_live_begin(l, e);
	if (!r)
		r = push_overlays(v, o, count, e);
	if (was_running)
		pc_resume(v->pc);
	*stopped = loop_now() - start;
	return r;
}

json_t *
vm_snapshot(struct vm *v, json_t *params, struct vm_asker *asker, struct err *e)
{
	const char *path = json_string_value(json_object_get(params, "path"));
	struct overlay *o = xcalloc(VM_DISKS_MAX, sizeof(*o));
	struct vm_progress p = { v, asker };
	struct state_progress sp = { tell_progress, &p, is_cancelled };
	struct state_numbers n = { 0 };
	struct state_live *l = NULL;
	uint64_t start = loop_now(), stopped = 0;
	bool pushed = false;
	int fd = -1, r, count = 0;

	v->state_before = v->state;
	if (v->state != VM_RUNNING && v->state != VM_PAUSED) {
		r = err_set(e, ERR_VM_STATE,
			"Cannot take a snapshot of the machine while it is changing the state "
			"(machine state: %s)",
			vm_state_text(v->state));
		goto out;
	}
	r = read_overlays(v, json_object_get(params, "disks"), o, &count, e);
	for (int i = 0; i < count && !r; i++)
		if (o[i].disk->merge)
			r = err_set(e, ERR_OBJECT_STATE, "Images of the disk '%s' are being merged",
				attachment_of(v, o[i].disk)->path);
	if (r)
		goto out;
	all_loaded(v);
	machine_lock(v->m);
	vm_set_state(v, v->state == VM_RUNNING ? VM_LIVE_SNAPSHOTTING : VM_SNAPSHOTTING);
	machine_unlock(v->m);
	if (path) {
		fd = create_file(path, e);
		l = fd < 0 ? NULL : state_live_open(fd, v->m, pc_cpus(v->pc), v->uffd, &sp, e);
		r = l ? 0 : -1;
	}
	if (!r)
		r = fix_moment(v, l, o, count, &stopped, e);
	if (!r) {
		pushed = true;
		if (l)
			r = state_live_finish(l, &sp, &n, e);
	}
	r = check_cancelled(v, "The snapshot", e) ? -1 : r;
	state_live_close(l);
	if (fd >= 0)
		close(fd);
	if (r && pushed) {
		/* The memory could not be written, or nobody wants it any more: the machine goes on without a snapshot, on the disks it had. */
		pop_overlays(v, o, count);
	}
	if (r && path)
		unlink(path);
	machine_lock(v->m);
	vm_set_state(v, v->state_before);
	machine_unlock(v->m);
	if (!r)
		log_info(v->c->name,
			"snapshot: the guest stood still for %.1f ms; %llu MiB of memory in %llu KiB, %llu KiB copied "
			"for it, %llu ms",
			(double)stopped / 1e6, (unsigned long long)n.memory >> 20, (unsigned long long)n.written >> 10,
			(unsigned long long)n.copied >> 10, (unsigned long long)(loop_now() - start) / 1000000);
out:
	for (int i = 0; i < count; i++) {
		free(o[i].old_path);
		free(o[i].old_format);
	}
	free(o);
	return r ? NULL : numbers_json(&n, stopped, loop_now() - start);
}

/* ---- copies ---- */

/* The state without memory, in a file without a name. */
static int
describe(struct vm *v, struct err *e)
{
	int fd = memfd_create("lodge-state", MFD_CLOEXEC);

	if (fd < 0)
		return err_sys(e, ERR_HOST, errno, "cannot describe the machine");
	if (!state_save_description(fd, v->m, pc_cpus(v->pc), e))
		return fd;
	close(fd);
	return -1;
}

static int
add_layers(struct vm *v, int fds[8], int *count, struct err *e)
{
	int layer[STATE_LAYERS_MAX], n = state_share_layers(v->share, layer);

	for (int i = 0; i < n; i++) {
		int fd = fcntl(layer[i], F_DUPFD_CLOEXEC, 3);

		if (fd < 0)
			return err_sys(e, ERR_HOST, errno, "no file descriptor is free");
		fds[(*count)++] = fd;
	}
	return 0;
}

json_t *
vm_fork(struct vm *v, json_t *params, int fds[8], int *count, struct err *e)
{
	struct overlay *o = xcalloc(VM_DISKS_MAX, sizeof(*o));
	uint64_t start = loop_now();
	int r, disks = 0;

	v->state_before = v->state;
	if (v->state != VM_RUNNING && v->state != VM_PAUSED) {
		r = err_set(e, ERR_VM_STATE, "the machine is %s and cannot be copied", vm_state_text(v->state));
		goto out;
	}
	r = read_overlays(v, json_object_get(params, "disks"), o, &disks, e);
	if (r)
		goto out;
	all_loaded(v);
	state_share_prepare(v->share, v->m);
	start = loop_now();
	r = check_cancelled(v, "The fork", e);
	if (r)
		goto out;
	r = stand_still(v, e);
	if (!r)
		r = state_share(v->share, v->m, e);
	if (!r) {
		fds[0] = describe(v, e);
		*count = fds[0] >= 0;
		r = fds[0] < 0 ? -1 : add_layers(v, fds, count, e);
	}
	if (!r)
		r = push_overlays(v, o, disks, e);
	if (v->state == VM_RUNNING)
		pc_resume(v->pc);
	if (r)
		while (*count)
			close(fds[--*count]);
out:
	for (int i = 0; i < disks; i++) {
		free(o[i].old_path);
		free(o[i].old_format);
	}
	free(o);
	return r ? NULL : json_pack("{s:f}", "stopped_ms", (double)(loop_now() - start) / 1e6);
}

/* The overlay is what the guest writes to, and what was before it is known. */
static int
check_overlay(struct vm *v, json_t *j, struct overlay *o, struct err *e)
{
	const char *path = json_string_value(json_object_get(j, "parent"));
	const char *format = json_string_value(json_object_get(j, "parent_format"));

	if (!path || path[0] != '/' || !format)
		return err_set(e, ERR_INVALID, "an element of 'disks' does not say what was before");
	if (strcmp(attachment_of(v, o->disk)->path, o->path))
		return err_set(e, ERR_OBJECT_STATE, "'%s' is not what the disk is written to", o->path);
	o->old_path = (char *)(uintptr_t)path;
	o->old_format = (char *)(uintptr_t)format;
	return 0;
}

json_t *
vm_unfork(struct vm *v, json_t *params, struct err *e)
{
	struct overlay *o = xcalloc(VM_DISKS_MAX, sizeof(*o));
	json_t *list = json_object_get(params, "disks");
	int count, r = read_overlays(v, list, o, &count, e);

	for (int i = 0; i < count && !r; i++)
		r = check_overlay(v, json_array_get(list, (size_t)i), &o[i], e);
	for (int i = 0; i < count && !r; i++)
		r = pop_overlay(v, &o[i], e);
	free(o);
	return r ? NULL : json_object();
}
