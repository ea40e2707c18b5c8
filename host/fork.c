/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lodge fork`: running copies of a machine that runs.
 *
 * The machine's process stops it for a moment, puts its memory into files that can be mapped by others, and an overlay
 * in front of each disk (vm/save.c). Each copy is a machine of its own in the inventory, with a UUID, MAC addresses and
 * disks (overlays on the same images) of its own; its process is given the descriptors of the memory. Its guest goes on
 * where the other was, with a new generation ID; names of hosts inside are left to it.
 *
 * When it is stopped, the copies that run already are switched off and go, and then the machine's overlays, into what is
 * behind them: while that lasts the work is noted as one that has not changed the inventory yet.
 *
 * What two machines cannot both have is changed: ports of the host that are forwarded become free ones, serial ports go
 * to files of their own or are not connected.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/run.h"

#define COPIES_MAX 1000

struct copy {
	struct host_vm *vm;
	struct overlay *o;
	bool folder_made;
};

struct forking {
	struct host *h;
	struct host_vm *from;
	struct overlay *own; /* the machine's new overlays */
	int disks;
	struct copy *copy;
	int count;
	int fds[8], fd_count;
	char engine[16];
	const struct host_progress *progress;
};

/* ---- what a copy is ---- */

static bool
name_taken(struct host *h, const char *name)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT 1 FROM machine WHERE name = ?", "s", name);
	bool taken = !s || db_step(h, s, NULL) != 0;

	sqlite3_finalize(s);
	return taken;
}

/* A TCP or UDP port of the host that nobody uses now; 0: none. */
static uint16_t
free_port(bool udp, const char *ip)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	uint16_t port = 0;

	if (*ip)
		inet_pton(AF_INET, ip, &sa.sin_addr);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&sa, len) && !getsockname(fd, (struct sockaddr *)&sa, &len))
		port = ntohs(sa.sin_port);
	if (fd >= 0)
		close(fd);
	return port;
}

static void
own_ports(struct host_vm *vm)
{
	for (int n = 0; n < HOST_NICS; n++)
		for (int i = 0; i < vm->rule_count[n]; i++)
			vm->rules[n][i].host_port = free_port(vm->rules[n][i].udp, vm->rules[n][i].host_ip);
}

static void
own_serial_ports(struct host_vm *vm)
{
	for (int i = 0; i < HOST_UARTS; i++) {
		const char *mode = host_vm_get(vm, HK_UARTMODE, i);
		char *own;

		if (strncmp(mode, "file,", 5)) {
			vm_set(vm, HK_UARTMODE, i, "disconnected");
			continue;
		}
		own = xasprintf("%s.%s", mode, vm->name);
		vm_set(vm, HK_UARTMODE, i, own);
		free(own);
	}
}

static void
copy_machine(struct forking *f, struct copy *c, const char *name)
{
	char *folder = xasprintf("%s/%s", host_machine_folder(f->h), name);

	c->vm = vm_new(name, folder);
	free(folder);
	for (int k = 0; k < HK_COUNT; k++)
		for (int i = 0; i < host_setting((enum host_key)k)->slots; i++)
			if (k != HK_MACADDRESS && k != HK_HARDWAREUUID)
				vm_set(c->vm, (enum host_key)k, i, host_vm_get(f->from, (enum host_key)k, i));
	for (int n = 0; n < HOST_NICS; n++)
		for (int i = 0; i < f->from->rule_count[n]; i++)
			vm_rule_add(c->vm, n, &f->from->rules[n][i], NULL);
	own_ports(c->vm);
	own_serial_ports(c->vm);
}

static const struct overlay *
overlay_at(const struct copy *c, int disks, const char *controller, const struct host_attachment *a)
{
	for (int i = 0; i < disks; i++)
		if (!strcmp(c->o[i].controller, controller) && c->o[i].port == a->port && c->o[i].device == a->device)
			return &c->o[i];
	return NULL;
}

static void
copy_controllers(struct forking *f, struct copy *c)
{
	for (int i = 0; i < f->from->ctl_count; i++) {
		const struct host_controller *old = &f->from->ctl[i];
		struct host_controller *t = vm_controller_add(c->vm, old->name);
		char *name = t->name;

		*t = *old;
		t->name = name;
		t->at = NULL;
		t->at_count = 0;
		for (int n = 0; n < old->at_count; n++) {
			const struct host_attachment *a = &old->at[n];
			const struct overlay *o = overlay_at(c, f->disks, old->name, a);
			struct host_attachment *to = vm_attachment_add(t, a->port, a->device);

			*to = *a;
			to->medium = a->medium ? xstrdup(o ? o->uuid : a->medium) : NULL;
			to->path = a->path ? xstrdup(o ? o->path : a->path) : NULL;
			to->format = a->format ? xstrdup(o ? o->format : a->format) : NULL;
		}
	}
}

static int
plan_copies(struct forking *f, const char *prefix, struct err *e)
{
	int number = 0;

	for (int i = 0; i < f->count; i++) {
		char *name = NULL;
		struct stat st;
		int disks;

		do {
			free(name);
			name = xasprintf("%s-%d", prefix, ++number);
		} while (name_taken(f->h, name));
		copy_machine(f, &f->copy[i], name);
		free(name);
		if (!stat(f->copy[i].vm->cfg_file, &st))
			return err_set(
				e, ERR_FILE, "Machine settings file '%s' already exists", f->copy[i].vm->cfg_file);
		f->copy[i].folder_made = stat(f->copy[i].vm->folder, &st) != 0;
		f->copy[i].o = overlays_plan(f->from, f->copy[i].vm, &disks);
		copy_controllers(f, &f->copy[i]);
	}
	return 0;
}

/* ---- carrying it out ---- */

static int
check_stopped(const struct forking *f, struct err *e)
{
	const struct host_progress *p = f->progress;

	return p && p->stopped && p->stopped(p->opaque)
		       ? err_set(e, ERR_FAILED, "The fork of machine '%s' was cancelled; it goes on as before",
				 f->from->name)
		       : 0;
}

static json_t *
all_paths(const struct forking *f)
{
	json_t *list = json_array();

	for (int k = 0; k < f->count; k++) {
		for (int i = 0; i < f->disks; i++)
			json_array_append_new(list, json_string(f->copy[k].o[i].path));
		json_array_append_new(list, json_string(f->copy[k].vm->cfg_file));
	}
	return list;
}

static json_t *
all_folders(const struct forking *f)
{
	json_t *list = json_array();

	for (int k = 0; k < f->count; k++) {
		json_array_append_new(list, json_string(f->copy[k].vm->snap_folder));
		json_array_append_new(list, json_string(f->copy[k].vm->folder));
	}
	return list;
}

static int
store_copy(struct forking *f, struct copy *c, struct err *e)
{
	for (int i = 0; i < f->disks; i++)
		if (overlay_register(f->h, &c->o[i], e))
			return -1;
	return vm_store(f->h, c->vm, e) || vboxfile_write(f->h, c->vm, e) ? -1 : 0;
}

static int
make_images(struct forking *f, struct err *e)
{
	for (int k = 0; k < f->count; k++) {
		if (dir_make(f->copy[k].vm->snap_folder, 0700, e))
			return -1;
		for (int i = 0; i < f->disks; i++)
			if (overlay_create(&f->copy[k].o[i], e))
				return -1;
		if (check_stopped(f, e))
			return -1;
	}
	return 0;
}

/* The machine itself has new overlays, whatever becomes of the copies. */
static int
store_own(struct forking *f, struct work *w, json_t *files, struct err *e)
{
	struct host_vm *now = NULL;
	int r = db_begin(f->h, e);

	if (!r)
		now = host_vm_load(f->h, f->from->uuid, e);
	r = r || !now ? -1 : 0;
	for (int i = 0; i < f->disks && !r; i++)
		r = overlay_register(f->h, &f->own[i], e) || overlay_attach(now, &f->own[i]);
	for (int k = 0; k < f->count && !r; k++)
		r = store_copy(f, &f->copy[k], e);
	r = r || vm_store(f->h, now, e) || vboxfile_write(f->h, now, e) || work_done(w, files, e) || db_commit(f->h, e);
	if (r)
		db_rollback(f->h);
	host_vm_free(now);
	return r ? -1 : 0;
}

static int
stop_and_share(struct forking *f, double *stopped_ms, struct err *e)
{
	json_t *answer = vm_call_fds(
		f->h, f->from, "fork", overlays_request(f->own, f->disks, ""), f->progress, f->fds, &f->fd_count, e);

	if (!answer)
		return -1;
	*stopped_ms = json_number_value(json_object_get(answer, "stopped_ms"));
	json_decref(answer);
	return f->fd_count >= 2 ? 0 : err_set(e, ERR_VM, "The process of the machine did not hand over its memory");
}

static int
start_copies(struct forking *f, struct host_forked *out, struct err *e)
{
	int r = 0;

	for (int k = 0; k < f->count && !r; k++) {
		int64_t start = now_ns();

		r = check_stopped(f, e);
		if (r)
			break;
		r = vm_start_copy(f->h, f->copy[k].vm->uuid, f->engine, f->fds, f->fd_count, e);
		out[k].name = xstrdup(f->copy[k].vm->name);
		snprintf(out[k].uuid, sizeof(out[k].uuid), "%s", f->copy[k].vm->uuid);
		out[k].ms = (double)(now_ns() - start) / 1e6;
		if (r)
			err_wrap(e, "Could not start the copy '%s'", f->copy[k].vm->name);
		else if (f->progress && f->progress->percent)
			f->progress->percent(f->progress->opaque, 100 * (k + 1) / f->count);
	}
	return r;
}

/* ---- taking it back ---- */

static void
remove_copies(struct forking *f, struct host_forked *out)
{
	for (int k = 0; k < f->count; k++) {
		const char *uuid = f->copy[k].vm->uuid;

		if (vm_process_alive(f->h, uuid))
			host_vm_control(f->h, uuid, HOST_POWEROFF_NOW, NULL);
		host_vm_unregister(f->h, uuid, true, NULL);
		free(out[k].name);
		out[k].name = NULL;
	}
}

/* The machine's overlays go. `stored`: the inventory knows of them. */
static int
remove_own(struct forking *f, struct work *w, json_t *files, bool stored)
{
	struct err e = { 0 };
	json_t *answer;

	if (stored && work_note(w, files, &e))
		return 0; /* they stay, as the inventory says */
	answer = vm_call_long(f->h, f->from, "overlay.remove", overlays_request(f->own, f->disks, ""), NULL, &e);
	json_decref(answer);
	return snapshot_recover_fork(f->h, f->from->uuid, files, &e);
}

/* False: it was not stopped. Else *e says so; *left: the machine's overlays are still to be put right. */
static bool
take_back(struct forking *f, struct work *w, json_t *files, bool stored, struct host_forked *out, bool *left,
	struct err *e)
{
	if (!check_stopped(f, e))
		return false;
	if (stored)
		remove_copies(f, out);
	work_remove_files(json_object_get(files, "created"));
	work_remove_folders(json_object_get(files, "folders"));
	*left = remove_own(f, w, files, stored);
	return true;
}

static void
forking_free(struct forking *f)
{
	for (int k = 0; k < f->count; k++) {
		overlays_free(f->copy[k].o, f->copy[k].o ? f->disks : 0);
		host_vm_free(f->copy[k].vm);
	}
	while (f->fd_count)
		close(f->fds[--f->fd_count]);
	free(f->copy);
	overlays_free(f->own, f->disks);
	host_vm_free(f->from);
}

static int
check(struct forking *f, struct err *e)
{
	struct host_live live;

	if (f->from->state != HOST_RUNNING && f->from->state != HOST_PAUSED)
		return err_set(e, ERR_VM_STATE, "Machine '%s' is not currently running.", f->from->name);
	if (f->count < 1 || f->count > COPIES_MAX)
		return err_set(e, ERR_INVALID, "The number of copies is from 1 to %d", COPIES_MAX);
	if (host_vm_live(f->h, f->from, &live, e))
		return -1;
	snprintf(f->engine, sizeof(f->engine), "%s", live.engine);
	return 0;
}

int
host_vm_fork(struct host *h, const char *id, const char *prefix, int count, const struct host_progress *p,
	struct host_forked *out, double *stopped_ms, struct err *e)
{
	struct forking f = { .h = h, .count = count, .progress = p };
	json_t *files = NULL, *created = NULL;
	struct err why = { 0 };
	bool left = false;
	struct work w;
	int r = -1;

	*stopped_ms = 0;
	f.from = host_vm_load(h, id, e);
	if (!f.from || check(&f, e)) {
		host_vm_free(f.from);
		return -1;
	}
	f.own = overlays_plan(f.from, f.from, &f.disks);
	f.copy = xcalloc((size_t)count, sizeof(*f.copy));
	if (plan_copies(&f, prefix ? prefix : f.from->name, e))
		goto out;
	created = all_paths(&f);
	files = json_pack("{s:O, s:o, s:o}", "created", created, "overlays", overlays_json(f.own, f.disks), "folders",
		all_folders(&f));
	if (work_begin(h, f.from, "fork", files, &w, e))
		goto out;
	r = stop_and_share(&f, stopped_ms, e);
	if (!r && (make_images(&f, e) || store_own(&f, &w, files, e))) {
		/* The machine has its new overlays all the same. */
		if (!take_back(&f, &w, files, false, out, &left, e)) {
			left = snapshot_recover_fork(h, f.from->uuid, files, &why);
			work_remove_files(created);
		}
		r = -1;
	} else if (!r) {
		r = start_copies(&f, out, e);
		if (r)
			take_back(&f, &w, files, true, out, &left, e);
	}
	if (left)
		work_leave(&w);
	else
		work_end(&w);
out:
	json_decref(created);
	json_decref(files);
	forking_free(&f);
	return r;
}
