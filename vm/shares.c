/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's driver is given: shared folders and guest properties (share/), and what it told.
 *
 * Folders. Those of the configuration are opened before rights are given up. One that comes later is opened by who asks
 * for it, a front end with the rights of its user, and its descriptor comes with the request: this process need not,
 * and cannot, open it. Each folder is served by threads that can touch nothing else (share/confine.c); the CPUs' and
 * the loop's threads have no rights in shared folders at all.
 *
 * Properties live here while the machine runs. They are written to the run directory a moment after a change and at the
 * end; the host library takes them into the inventory from there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/dev.h"
#include "share/share.h"
#include "vm/private.h"
#include "vm/protocol.h"

#define WRITE_DELAY_NS 200000000u
#define HANDLES_MAX 2048
#define WAIT_MAX_MS 30000

/* Who waits for a property. */
struct wait {
	struct vm *v;
	struct vm_asker asker;
	struct loop_timer timer;
	struct prop change;
	bool ended;
	struct wait *next;
};

struct vm_shares {
	struct share *share;
	struct props *props;
	struct loop_timer write_timer;
	atomic_bool dirty;
	struct wait *waits;
};

/* ---- properties on disk ---- */

static void
add_property(void *opaque, const struct prop *p)
{
	char flags[PROP_FLAGS_SIZE];

	json_array_append_new(opaque, json_pack("{s:s, s:s, s:I, s:s}", "name", p->name, "value", p->value, "time",
					      (json_int_t)p->time, "flags", prop_flags_text(p->flags, flags)));
}

static json_t *
properties(struct vm *v, const char *patterns)
{
	json_t *list = json_array();

	props_each(v->shares->props, patterns, add_property, list);
	return list;
}

/* Without fsync: what counts is that it is whole. */
static int
replace(const char *path, const char *text)
{
	char *tmp = xasprintf("%s.new", path);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = fd < 0 ? -errno : 0;

	if (!r && write_full(fd, text, strlen(text)) < 0)
		r = -EIO;
	if (fd >= 0)
		close(fd);
	if (!r && rename(tmp, path))
		r = -errno;
	free(tmp);
	return r;
}

static void
write_properties(struct vm *v)
{
	json_t *o;
	char *path, *text;
	int r;

	if (!v->o.run_dir || !atomic_exchange(&v->shares->dirty, false))
		return;
	o = json_pack("{s:o}", "properties", properties(v, ""));
	text = json_dumps(o, JSON_COMPACT);
	path = xasprintf("%s/%s", v->o.run_dir, VM_FILE_PROPS);
	r = text ? replace(path, text) : -EINVAL;
	if (r)
		log_error(v->c->name, "cannot write guest properties to %s: %s", path, strerror(-r));
	free(path);
	free(text);
	json_decref(o);
}

static void
write_later(void *opaque)
{
	struct vm *v = opaque;

	if (v->shares && !loop_timer_armed(&v->shares->write_timer))
		loop_timer_arm(&v->shares->write_timer, loop_now() + WRITE_DELAY_NS);
}

/* Any thread. */
static void
properties_changed(void *opaque)
{
	struct vm *v = opaque;

	if (!atomic_exchange(&v->shares->dirty, true))
		loop_post(v->m->loop, write_later, v);
}

static void
write_now(void *opaque)
{
	write_properties(opaque);
}

/* ---- life ---- */

/* Each file that a guest has open is a descriptor here. */
static void
raise_descriptor_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= 2 * HANDLES_MAX)
		return;
	r.rlim_cur = MIN(r.rlim_max, (rlim_t)2 * HANDLES_MAX);
	setrlimit(RLIMIT_NOFILE, &r);
}

static int
handles_allowed(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return 256;
	return (int)MIN(r.rlim_cur / 2, (rlim_t)HANDLES_MAX);
}

static void
load_properties(struct vm *v)
{
	for (int i = 0; i < v->c->property_count; i++) {
		const struct vm_property *from = &v->c->properties[i];
		struct prop p = { .time = from->time };

		snprintf(p.name, sizeof(p.name), "%s", from->name);
		snprintf(p.value, sizeof(p.value), "%s", from->value);
		prop_flags_parse(from->flags, &p.flags);
		props_load(v->shares->props, &p);
	}
}

static int
add_folder(struct vm *v, const struct vm_share *s, int fd, struct err *e)
{
	struct share_folder f = {
		.name = s->name,
		.fd = fd,
		.readonly = s->readonly,
		.symlinks = s->symlinks,
		.automount = s->automount,
		.mount_point = s->mount_point,
	};

	if (share_folder_add(v->shares->share, &f, e))
		return -1;
	log_info(v->c->name, "the folder '%s' is shared as '%s'%s", s->path, s->name, s->readonly ? ", read-only" : "");
	return 0;
}

/* A directory that is not there does not keep a machine from starting: its guest does not find the folder. */
static int
add_folders(struct vm *v, struct err *e)
{
	for (int i = 0; i < v->c->share_count; i++) {
		const struct vm_share *s = &v->c->shares[i];
		int fd = open(s->path, O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			log_warn(v->c->name, "the shared folder '%s' is left out: cannot open %s: %s", s->name, s->path,
				strerror(errno));
		else if (add_folder(v, s, fd, e))
			return -1;
	}
	return 0;
}

int
vm_shares_open(struct vm *v, struct err *e)
{
	struct share_options o = {
		.confine = v->c->sandbox, .keep_capabilities = geteuid() == 0 && v->c->user[0], .max_handles = 0
	};
	struct vm_shares *s;

	if (!v->c->guest_device)
		return 0;
	raise_descriptor_limit();
	s = xcalloc(1, sizeof(*s));
	s->props = props_open();
	o.props = s->props;
	o.max_handles = handles_allowed();
	v->shares = s;
	load_properties(v);
	loop_timer_init(&s->write_timer, v->m->loop, write_now, v);
	props_on_change(s->props, properties_changed, v);
	s->share = share_open(&o, e);
	if (s->share && !add_folders(v, e))
		return 0;
	vm_shares_close(v);
	return -1;
}

void
vm_shares_close(struct vm *v)
{
	struct vm_shares *s = v->shares;

	if (!s)
		return;
	props_on_change(s->props, NULL, NULL);
	machine_lock(v->m);
	loop_timer_cancel(&s->write_timer);
	machine_unlock(v->m);
	write_properties(v);
	share_close(s->share);
	while (s->waits) {
		struct wait *w = s->waits;

		s->waits = w->next;
		props_unwait(s->props, w);
		json_decref(w->asker.id);
		free(w);
	}
	props_close(s->props);
	v->shares = NULL;
	free(s);
}

struct share *
vm_share_of(struct vm *v)
{
	return v->shares ? v->shares->share : NULL;
}

struct props *
vm_props(struct vm *v)
{
	return v->shares ? v->shares->props : NULL;
}

/* ---- folders that come and go ---- */

static struct vm_share *
find_share(struct vm *v, const char *name)
{
	for (int i = 0; i < v->c->share_count; i++)
		if (!strcmp(v->c->shares[i].name, name))
			return &v->c->shares[i];
	return NULL;
}

static int
need_shares(struct vm *v, struct err *e)
{
	return v->shares ? 0 : err_set(e, ERR_UNSUPPORTED, "the machine has no guest device");
}

int
vm_share_add(struct vm *v, const json_t *params, int fd, struct err *e)
{
	struct vm_share *s = NULL;

	if (need_shares(v, e) || !(s = vm_config_add_share(v->c, params, e))) {
		close(fd);
		return -1;
	}
	s->transient = true;
	if (!add_folder(v, s, fd, e)) {
		vm_automount_one(v, s, true);
		return 0;
	}
	vm_config_remove_share(v->c, s);
	return -1;
}

int
vm_share_remove(struct vm *v, const char *name, struct err *e)
{
	struct vm_share *s;

	if (need_shares(v, e) || share_folder_remove(v->shares->share, name, e))
		return -1;
	s = find_share(v, name);
	if (s) {
		vm_automount_one(v, s, false);
		vm_config_remove_share(v->c, s);
	}
	return 0;
}

int
vm_share_symlinks(struct vm *v, const char *name, bool allowed, struct err *e)
{
	if (need_shares(v, e))
		return -1;
	share_folder_symlinks(v->shares->share, name, allowed);
	return 0;
}

json_t *
vm_share_list(struct vm *v)
{
	json_t *list = json_array();

	for (int i = 0; i < v->c->share_count; i++) {
		const struct vm_share *s = &v->c->shares[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:b, s:s, s:b}", "name", s->name, "path",
						    s->path, "readonly", s->readonly, "automount", s->automount,
						    "mount_point", s->mount_point, "transient", s->transient));
	}
	return json_pack("{s:o}", "folders", list);
}

/* ---- properties, as the host asks for them ---- */

static json_t *
property_json(const struct prop *p)
{
	char flags[PROP_FLAGS_SIZE];

	return json_pack("{s:s, s:s, s:I, s:s}", "name", p->name, "value", p->value, "time", (json_int_t)p->time,
		"flags", prop_flags_text(p->flags, flags));
}

json_t *
vm_prop_list(struct vm *v, const char *patterns, struct err *e)
{
	return need_shares(v, e) ? NULL : json_pack("{s:o}", "properties", properties(v, patterns));
}

int
vm_prop_set(struct vm *v, const char *name, const char *value, const char *flags, struct err *e)
{
	unsigned bits = 0;
	int r;

	if (need_shares(v, e))
		return -1;
	if (flags && !prop_flags_parse(flags, &bits))
		return err_set(e, ERR_INVALID, "Invalid flags '%s'", flags);
	if (value)
		r = props_set(v->shares->props, PROP_BY_HOST, name, value, flags ? &bits : NULL);
	else
		r = props_delete(v->shares->props, PROP_BY_HOST, name);
	if (r == SHARE_PERMISSION_DENIED)
		return err_set(e, ERR_ACCESS, "The guest property '%s' is read-only for the host", name);
	if (r == SHARE_TOO_MUCH_DATA)
		return err_set(e, ERR_INVALID, "A machine has at most %d guest properties", PROPS_MAX);
	if (r && r != SHARE_NOT_FOUND)
		return err_set(e, ERR_INVALID, "Invalid guest property '%s'", name);
	return 0;
}

/* ---- waiting ---- */

static void
end_wait(struct wait *w, json_t *result)
{
	struct wait **at = &w->v->shares->waits;

	while (*at && *at != w)
		at = &(*at)->next;
	if (*at)
		*at = w->next;
	loop_timer_cancel(&w->timer);
	if (w->v->control)
		control_answer(w->v->control, &w->asker, result, NULL);
	else
		json_decref(result);
	json_decref(w->asker.id);
	free(w);
}

/* On the loop. */
static void
tell_change(void *opaque)
{
	struct wait *w = opaque;

	end_wait(w, property_json(&w->change));
}

/* Any thread. */
static void
change_seen(void *opaque, const struct prop *p)
{
	struct wait *w = opaque;

	w->change = *p;
	loop_post(w->v->m->loop, tell_change, w);
}

static void
wait_timeout(void *opaque)
{
	struct wait *w = opaque;

	if (!props_unwait(w->v->shares->props, w))
		return; /* it changed just now: tell_change() is on its way */
	end_wait(w, json_pack("{s:I}", "now", (json_int_t)props_now(w->v->shares->props)));
}

enum method_result
vm_prop_wait(struct vm *v, const char *patterns, int64_t after, int timeout_ms, const struct vm_asker *asker,
	json_t **result, struct err *e)
{
	struct prop now = { .name = "" };
	struct wait *w;

	if (need_shares(v, e))
		return METHOD_FAILED;
	w = xcalloc(1, sizeof(*w));
	w->v = v;
	loop_timer_init(&w->timer, v->m->loop, wait_timeout, w);
	if (!props_wait(v->shares->props, patterns, after, change_seen, w, &now)) {
		free(w);
		if (now.name[0]) {
			*result = property_json(&now);
			return METHOD_DONE;
		}
		err_set(e, ERR_FAILED, "too many wait for guest properties of this machine");
		return METHOD_FAILED;
	}
	w->asker = (struct vm_asker){ asker->client, json_incref(asker->id) };
	w->next = v->shares->waits;
	v->shares->waits = w;
	loop_timer_arm(&w->timer, loop_now() + (uint64_t)MIN(timeout_ms, WAIT_MAX_MS) * 1000000);
	return METHOD_LATER;
}

/* ---- what the guest's driver told ---- */

json_t *
vm_additions(struct vm *v)
{
	struct vmmdev *d = pc_guest_device(v->pc);
	struct vmmdev_guest g;
	char version[48];

	if (!d)
		return json_null();
	vmmdev_guest(d, &g);
	snprintf(version, sizeof(version), "%u.%u.%u", g.major, g.minor, g.build);
	return json_pack("{s:s, s:i, s:i, s:i, s:b, s:i, s:I}", "version", g.major ? version : "", "revision",
		(int)g.revision, "run_level",
		g.service_status == 50	? 2
		: g.driver_status == 50 ? 1
					: 0,
		"os_type", (int)g.os_type, "graphics", (g.caps & 4) != 0, "balloon", (int)g.balloon_mib, "silent_ms",
		(json_int_t)(g.silent_ns / 1000000));
}
