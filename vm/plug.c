/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives that come and go, disks for which the host has no room, limits of bandwidth.
 *
 * Opening. After the sandbox is closed the threads made then cannot open files for writing (Landlock). An image that is
 * plugged in later is opened by a thread that was made before, with the rights of who started the machine; who asks
 * waits for it.
 *
 * Hot plug. The place of a drive that was taken out stays in the lists, marked `gone`, and is used again for the next
 * one at that place: drives and jobs hold pointers to it.
 *
 * A full disk. Requests without room are held by block/; the machine is paused, with the reason in its status. Resuming
 * tries them again, and when there is still no room it is paused again. What would have to wait for them to end (saving
 * the machine) is refused meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/private.h"

/* ---- opening ---- */

struct opener {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, asked, answered;
	const char *path, *format;
	int flags;
	struct block *block;
	struct err err;
};

static void *
opener_main(void *opaque)
{
	struct opener *o = opaque;

	pthread_mutex_lock(&o->lock);
	while (!o->stop) {
		if (!o->asked) {
			pthread_cond_wait(&o->changed, &o->lock);
			continue;
		}
		o->block = block_open(o->path, o->format, o->flags, &o->err);
		o->asked = false;
		o->answered = true;
		pthread_cond_broadcast(&o->changed);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

int
vm_opener_start(struct vm *v, struct err *e)
{
	struct opener *o = xcalloc(1, sizeof(*o));
	sigset_t all, old;
	int r;

	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->changed, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&o->thread, NULL, opener_main, o);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		pthread_setname_np(o->thread, "opener");
	if (r) {
		free(o);
		return err_sys(e, ERR_HOST, r, "cannot start a thread");
	}
	v->opener = o;
	return 0;
}

void
vm_opener_stop(struct vm *v)
{
	struct opener *o = v->opener;

	v->opener = NULL;
	pthread_mutex_lock(&o->lock);
	o->stop = true;
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
	pthread_join(o->thread, NULL);
	pthread_cond_destroy(&o->changed);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

struct block *
vm_open_image(struct vm *v, const char *path, const char *format, int flags, struct err *e)
{
	struct opener *o = v->opener;
	struct block *b;

	if (!o)
		return block_open(path, format, flags, e);
	pthread_mutex_lock(&o->lock);
	o->path = path;
	o->format = format && format[0] ? format : NULL;
	o->flags = flags;
	o->err = (struct err){ 0 };
	o->answered = false;
	o->asked = true;
	pthread_cond_broadcast(&o->changed);
	while (!o->answered)
		pthread_cond_wait(&o->changed, &o->lock);
	b = o->block;
	if (!b)
		*e = o->err;
	pthread_mutex_unlock(&o->lock);
	return b;
}

/* ---- a full disk ---- */

/* block.h's `full`: on the loop, machine lock held. */
static void
disk_full(void *opaque)
{
	struct vm_disk *d = opaque;

	vm_post_job(d->v, (struct vm_job){ .kind = JOB_FULL });
}

static bool
is_locked(struct vm_disk *d)
{
	struct block_info info = { 0 };

	if (d->block)
		block_get_info(d->block, &info);
	return info.locked;
}

int
vm_give_password(struct vm *v, const char *id, const char *password, bool *complete, struct err *e)
{
	int given = 0;

	*complete = true;
	for (int i = 0; i < v->disk_count; i++) {
		struct vm_disk *d = &v->disks[i];
		char *own = is_locked(d) ? block_get_text(d->block, "CRYPT/KeyId") : NULL;
		bool asked = own && !strcmp(own, id);

		free(own);
		if (asked && block_unlock(d->block, password, e))
			return -1;
		given += asked;
		if (is_locked(d))
			*complete = false;
	}
	return given ? 0
		     : err_set(e, ERR_NOT_FOUND, "No disk of the machine waits for a password with the name '%s'", id);
}

static struct vm_disk *
find_full(struct vm *v)
{
	for (int i = 0; i < v->disk_count; i++)
		if (v->disks[i].block && block_is_full(v->disks[i].block))
			return &v->disks[i];
	return NULL;
}

bool
vm_is_full(struct vm *v, struct err *e)
{
	struct vm_disk *d = find_full(v);

	if (d && is_locked(d))
		err_set(e, ERR_VM_STATE, "the password of '%s' is missing", block_path(d->block));
	else if (d)
		err_set(e, ERR_VM_STATE,
			"the host has no room for what the guest has written to '%s': make room and resume the machine "
			"first",
			block_path(d->block));
	return d != NULL;
}

void
vm_full_pause(struct vm *v)
{
	struct vm_disk *d = find_full(v);

	if (!d || (v->state != VM_RUNNING && v->state != VM_PAUSED))
		return;
	pc_pause(v->pc);
	machine_lock(v->m);
	if (is_locked(d)) {
		snprintf(v->outcome.reason, sizeof(v->outcome.reason), "the password of '%.200s' is missing",
			block_path(d->block));
		log_warn(v->c->name, "'%s' is encrypted: the machine is paused until its password is given",
			block_path(d->block));
		vm_set_state(v, VM_PAUSED);
		machine_unlock(v->m);
		return;
	}
	snprintf(
		v->outcome.reason, sizeof(v->outcome.reason), "no room on the host for '%.200s'", block_path(d->block));
	log_error(v->c->name,
		"the host has no room for '%s': the machine is paused until it is resumed; nothing is lost",
		block_path(d->block));
	vm_set_state(v, VM_PAUSED);
	machine_unlock(v->m);
}

/* The machine is about to be resumed. */
void
vm_full_retry(struct vm *v)
{
	machine_lock(v->m);
	for (int i = 0; i < v->disk_count; i++)
		if (v->disks[i].block)
			block_retry(v->disks[i].block);
	v->outcome.reason[0] = 0;
	machine_unlock(v->m);
}

/* ---- bandwidth ---- */

int
vm_groups_open(struct vm *v, struct err *e)
{
	for (int i = 0; i < v->c->group_count; i++)
		v->disk_limits[i] = block_limit_create(v->c->groups[i].limit);
	return 0;
}

void
vm_groups_close(struct vm *v)
{
	for (int i = 0; i < VM_GROUPS_MAX; i++) {
		block_limit_free(v->disk_limits[i]);
		v->disk_limits[i] = NULL;
	}
}

static int
find_group(struct vm *v, const char *name)
{
	for (int i = 0; i < v->c->group_count; i++)
		if (!strcmp(v->c->groups[i].name, name))
			return i;
	return -1;
}

int
vm_group_set(struct vm *v, const char *name, uint64_t limit, struct err *e)
{
	int i = find_group(v, name);

	if (i < 0)
		return err_set(e, ERR_NOT_FOUND, "the machine was started without the bandwidth group '%s'", name);
	v->c->groups[i].limit = limit;
	block_limit_set(v->disk_limits[i], limit);
	return 0;
}

/* Of block_open(): does the controller want the host's page cache? */
int
vm_cache_flags(const struct vm_disk *d)
{
	return d->v->c->controllers[d->controller].hostiocache ? 0 : BLOCK_DIRECT;
}

/* What every image of a disk is given when it is opened. */
void
vm_disk_opened(struct vm_disk *d)
{
	struct vm_attachment *a = &d->v->c->controllers[d->controller].attachments[d->attachment];
	int group = find_group(d->v, a->group);

	block_hold_when_full(d->block, disk_full, d);
	if (group >= 0)
		block_set_limit(d->block, d->v->disk_limits[group]);
}

/* ---- hot plug ---- */

static struct vm_controller *
find_controller(struct vm *v, const char *name, int *n)
{
	for (*n = 0; *n < v->c->controller_count; (*n)++)
		if (!strcmp(v->c->controllers[*n].name, name))
			return &v->c->controllers[*n];
	return NULL;
}

static struct pc_device *
find_device(struct vm *v, int controller)
{
	static const char *const types[] = { [VM_IDE] = "ide",
		[VM_AHCI] = "ahci",
		[VM_VIRTIO_SCSI] = "virtio-scsi",
		[VM_NVME] = "nvme",
		[VM_USB] = "xhci",
		[VM_LSILOGIC] = "lsilogic",
		[VM_LSISAS] = "lsisas",
		[VM_FLOPPY] = "floppy" };
	enum vm_controller_type type = v->c->controllers[controller].type;
	int before = 0;

	if (type == VM_VIRTIO)
		return NULL;
	for (int i = 0; i < controller; i++)
		before += v->c->controllers[i].type == type;
	for (int i = 0; i < v->device_count; i++)
		if (!strcmp(v->devices[i].type, types[type]) && !before--)
			return &v->devices[i];
	return NULL;
}

/* A place in the lists: the one of a drive that is gone, or a new one. NULL and *e. */
static struct vm_disk *
make_place(struct vm *v, int controller, int port, int device, struct err *e)
{
	struct vm_controller *c = &v->c->controllers[controller];
	struct vm_disk *d;

	for (int i = 0; i < v->disk_count; i++) {
		struct vm_attachment *a;

		d = &v->disks[i];
		a = &c->attachments[d->attachment];
		if (d->controller != controller || a->port != port || a->device != device)
			continue;
		if (a->gone)
			return d;
		err_set(e, ERR_IN_USE, "there is a drive already at port %d of controller '%s'", port, c->name);
		return NULL;
	}
	if (c->attachment_count == VM_ATTACHMENTS_MAX || v->disk_count == VM_DISKS_MAX) {
		err_set(e, ERR_INVALID, "the machine has too many disks");
		return NULL;
	}
	vm_config_add_attachment(c, port, device)->gone = true;
	d = &v->disks[v->disk_count++];
	*d = (struct vm_disk){ .v = v, .controller = controller, .attachment = c->attachment_count - 1 };
	return d;
}

static void
set_text(char **member, const char *text)
{
	free(*member);
	*member = xstrdup(text ? text : "");
}

int
vm_plug_in(struct vm *v, const struct vm_plug *p, struct err *e)
{
	int n;
	struct vm_controller *c = find_controller(v, p->controller, &n);
	struct pc_device *device = c ? find_device(v, n) : NULL;
	struct vm_attachment *a;
	struct pc_drive drive;
	struct vm_disk *d;

	if (!c)
		return err_set(e, ERR_NOT_FOUND, "the machine has no controller '%s'", p->controller);
	if (!device)
		return err_set(e, ERR_VM_STATE, "controller '%s' does not support hot-plugging", p->controller);
	d = make_place(v, n, p->port, p->device, e);
	if (!d)
		return -1;
	a = &c->attachments[d->attachment];
	a->type = p->dvd ? VM_DVD : VM_DISK;
	a->nonrotational = p->nonrotational;
	a->discard = p->discard;
	a->readonly = false;
	set_text(&a->path, p->path);
	set_text(&a->format, p->format);
	set_text(&a->group, p->group);
	set_text(&a->serial, "");
	d->block = NULL;
	if (a->path[0]) {
		d->block = vm_open_image(v, a->path, a->format, vm_cache_flags(d) | (p->dvd ? BLOCK_RDONLY : 0), e);
		if (!d->block)
			return -1;
		vm_disk_opened(d);
	}
	d->device = device;
	d->unit = p->port;
	drive = vm_drive_of(d);
	if (pc_attach_drive(v->pc, device, &drive, e)) {
		block_close(d->block);
		d->block = NULL;
		return -1;
	}
	a->gone = false;
	log_info(v->c->name, "'%s' is plugged into port %d of controller '%s'", a->path, p->port, c->name);
	return 0;
}

int
vm_plug_out(struct vm *v, struct vm_disk *d, struct err *e)
{
	struct vm_controller *c = &v->c->controllers[d->controller];
	struct vm_attachment *a = &c->attachments[d->attachment];

	if (d->merge)
		return err_set(e, ERR_IN_USE, "images of '%s' are being merged", a->path);
	if (pc_detach_drive(v->pc, d->device, d->unit, e))
		return -1;
	block_close(d->block);
	d->block = NULL;
	a->gone = true;
	log_info(v->c->name, "'%s' is unplugged from port %d of controller '%s'", a->path, a->port, c->name);
	set_text(&a->path, "");
	return 0;
}
