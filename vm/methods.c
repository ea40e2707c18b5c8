/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be asked of a running machine: one function a row of VM_METHODS (vm/protocol.h), called on the loop under
 * the machine lock. What needs the CPUs to stand still, or takes long, becomes a job for the owner.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/log.h"
#include "dev/dev.h"
#include "vm/private.h"

struct call {
	struct vm *v;
	const json_t *params; /* an object or NULL */
	const struct vm_asker *asker;
	json_t *result;
	struct err *e;
};

#define METHOD(suffix) static enum method_result do_##suffix(struct call *c)

static enum method_result
done(struct call *c, json_t *result)
{
	c->result = result ? result : json_object();
	return METHOD_DONE;
}

static enum method_result
later(struct call *c, enum vm_job_kind kind)
{
	vm_post_job(c->v, (struct vm_job){ .kind = kind, .asker = { c->asker->client, json_incref(c->asker->id) } });
	return METHOD_LATER;
}

static enum method_result
later_with(struct call *c, enum vm_job_kind kind)
{
	vm_post_job(c->v, (struct vm_job){ .kind = kind,
				  .asker = { c->asker->client, json_incref(c->asker->id) },
				  .params = json_incref((json_t *)c->params) });
	return METHOD_LATER;
}

/* ---- parameters ---- */

static bool
get_string(struct call *c, const char *key, const char **out)
{
	*out = json_string_value(json_object_get(c->params, key));
	if (!*out)
		err_set(c->e, ERR_INVALID, "the parameter '%s' has to be a string", key);
	return *out != NULL;
}

static bool
get_int(struct call *c, const char *key, int min, int max, int *out)
{
	json_t *v = json_object_get(c->params, key);
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < min || n > max) {
		err_set(c->e, ERR_INVALID, "the parameter '%s' has to be a number from %d to %d", key, min, max);
		return false;
	}
	*out = (int)n;
	return true;
}

static bool
get_bool(struct call *c, const char *key, bool *out)
{
	json_t *v = json_object_get(c->params, key);

	if (!json_is_boolean(v)) {
		err_set(c->e, ERR_INVALID, "the parameter '%s' has to be true or false", key);
		return false;
	}
	*out = json_is_true(v);
	return true;
}

static bool
need_running(struct call *c)
{
	if (c->v->state == VM_RUNNING || c->v->state == VM_PAUSED)
		return true;
	err_set(c->e, ERR_VM_STATE, "the machine is %s", vm_state_text(c->v->state));
	return false;
}

static bool
get_nic(struct call *c, struct vm_nic **n, struct net_link **l, struct pcap **trace)
{
	int slot;

	if (!get_int(c, "slot", 0, VM_NICS_MAX - 1, &slot))
		return false;
	*n = vm_find_nic(c->v, slot, l, trace);
	if (!*n)
		err_set(c->e, ERR_NOT_FOUND, "the machine has no network adapter %d", slot + 1);
	return *n != NULL;
}

/* ---- state ---- */

static json_t *
describe_nic(struct vm *v, int i)
{
	const struct vm_nic *n = &v->c->nics[i];
	json_t *rules = json_array();

	for (int k = 0; k < n->rule_count; k++) {
		char text[160];

		vm_config_rule_text(&n->rules[k], text, sizeof(text));
		json_array_append_new(rules, json_string(text));
	}
	return json_pack("{s:i, s:b, s:o}", "slot", n->slot, "cable", v->links[i].cable, "forwards", rules);
}

METHOD(status)
{
	struct vm *v = c->v;
	struct display_source src;
	struct surface s = { 0 };
	json_t *nics = json_array();
	char uuid[37];

	if (pc_display(v->pc, &src))
		src.draw(src.opaque, &s);
	for (int i = 0; i < v->link_count; i++)
		json_array_append_new(nics, describe_nic(v, i));
	uuid_text(&v->c->uuid, uuid);
	c->result = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I, s:i, s:i, s:I, s:o, s:i}", "pid",
		(int)getpid(), "state", vm_state_text(v->state), "since", v->since, "engine", v->engine->name,
		"engine_reason", v->engine_why, "vrde_port", (int)vm_console_port(v), "reason", v->outcome.reason,
		"name", v->c->name, "uuid", uuid, "cpus", v->c->cpus, "memory", (json_int_t)v->c->memory_mib, "width",
		(int)s.width, "height", (int)s.height, "uptime_ms",
		(json_int_t)((loop_now() - v->started_ns) / 1000000u), "nics", nics, "vrde_clients",
		v->rfb ? (int)rfb_clients(v->rfb) : 0);
	json_object_set_new(c->result, "additions", vm_additions(v));
	surface_free(&s);
	return done(c, c->result);
}

METHOD(pause)
{
	return later(c, JOB_PAUSE);
}

METHOD(resume)
{
	return later(c, JOB_RESUME);
}

METHOD(reset)
{
	return later(c, JOB_RESET);
}

METHOD(poweroff)
{
	return later(c, JOB_POWEROFF);
}

METHOD(savestate)
{
	const char *path;

	c->v->cancel = false;
	return get_string(c, "path", &path) ? later_with(c, JOB_SAVE) : METHOD_FAILED;
}

METHOD(barrier)
{
	return later(c, JOB_BARRIER);
}

METHOD(fork)
{
	c->v->cancel = false;
	return later_with(c, JOB_FORK);
}

METHOD(snapshot_take)
{
	c->v->cancel = false;
	return later_with(c, JOB_SNAPSHOT);
}

METHOD(cancel)
{
	c->v->cancel = true;
	vm_merges_give_up(c->v);
	return done(c, NULL);
}

METHOD(overlay_remove)
{
	return later_with(c, JOB_UNFORK);
}

METHOD(debug)
{
	const char *what;

	return get_string(c, "what", &what) ? later_with(c, JOB_DEBUG) : METHOD_FAILED;
}

METHOD(screenshot)
{
	return later_with(c, JOB_SCREENSHOT);
}

METHOD(acpipowerbutton)
{
	if (c->v->state != VM_RUNNING) {
		err_set(c->e, ERR_VM_STATE, "the machine is %s", vm_state_text(c->v->state));
		return METHOD_FAILED;
	}
	return done(c, json_pack("{s:b}", "handled", pc_power_button(c->v->pc)));
}

/* ---- keyboard ---- */

static enum method_result
type_codes(struct call *c, const uint8_t *codes, size_t n, json_t *result)
{
	struct input_sink sink = pc_input(c->v->pc);

	if (!n || sink.scancodes(sink.opaque, codes, n))
		return done(c, result);
	json_decref(result);
	err_set(c->e, ERR_VM, "the guest does not read its keyboard: the queue is full");
	return METHOD_FAILED;
}

METHOD(keyboard_scancodes)
{
	json_t *list = json_object_get(c->params, "codes");
	uint8_t codes[4096];
	size_t n = json_array_size(list);

	if (!need_running(c))
		return METHOD_FAILED;
	if (!json_is_array(list) || n > sizeof(codes)) {
		err_set(c->e, ERR_INVALID, "the parameter 'codes' has to be a list of at most %zu bytes",
			sizeof(codes));
		return METHOD_FAILED;
	}
	for (size_t i = 0; i < n; i++) {
		json_t *code = json_array_get(list, i);

		if (!json_is_integer(code) || json_integer_value(code) < 0 || json_integer_value(code) > 255) {
			err_set(c->e, ERR_INVALID, "scan code %zu is not a number from 0 to 255", i + 1);
			return METHOD_FAILED;
		}
		codes[i] = (uint8_t)json_integer_value(code);
	}
	return type_codes(c, codes, n, NULL);
}

METHOD(keyboard_string)
{
	struct str codes = { 0 };
	const char *text;
	enum method_result r;

	if (!need_running(c) || !get_string(c, "text", &text))
		return METHOD_FAILED;
	if (keys_from_text(text, strlen(text), &codes, c->e)) {
		str_free(&codes);
		return METHOD_FAILED;
	}
	r = type_codes(c, (const uint8_t *)codes.s, codes.len, NULL);
	str_free(&codes);
	return r;
}

/* ---- networks ---- */

METHOD(setlinkstate)
{
	struct net_link *l;
	struct vm_nic *n;
	bool cable;

	if (!need_running(c) || !get_nic(c, &n, &l, NULL) || !get_bool(c, "cable", &cable))
		return METHOD_FAILED;
	net_set_cable(l, cable);
	n->cable = cable;
	return done(c, NULL);
}

METHOD(natpf_add)
{
	struct net_link *l;
	struct nat_rule rule;
	struct vm_nic *n;
	const char *text;

	if (!need_running(c) || !get_nic(c, &n, &l, NULL) || !get_string(c, "rule", &text) ||
		nat_rule_parse(text, &rule, c->e))
		return METHOD_FAILED;
	if (n->backend != VM_NET_NAT || n->rule_count == NAT_RULES_MAX) {
		err_set(c->e, ERR_INVALID, "network adapter %d %s", n->slot + 1,
			n->backend != VM_NET_NAT ? "is not attached to NAT" : "has too many rules");
		return METHOD_FAILED;
	}
	if (nat_rule_add(l, &rule, c->e))
		return METHOD_FAILED;
	n->rules[n->rule_count++] = rule;
	return done(c, NULL);
}

METHOD(natpf_remove)
{
	struct net_link *l;
	struct vm_nic *n;
	const char *name;

	if (!need_running(c) || !get_nic(c, &n, &l, NULL) || !get_string(c, "name", &name))
		return METHOD_FAILED;
	if (n->backend != VM_NET_NAT) {
		err_set(c->e, ERR_INVALID, "network adapter %d is not attached to NAT", n->slot + 1);
		return METHOD_FAILED;
	}
	if (nat_rule_remove(l, name, c->e))
		return METHOD_FAILED;
	for (int i = 0; i < n->rule_count; i++)
		if (!strcmp(n->rules[i].name, name)) {
			memmove(&n->rules[i], &n->rules[i + 1], (size_t)(n->rule_count - i - 1) * sizeof(n->rules[0]));
			n->rule_count--;
			break;
		}
	return done(c, NULL);
}

METHOD(nictrace)
{
	const char *file = json_string_value(json_object_get(c->params, "file"));
	struct net_link *l;
	struct vm_nic *n;
	bool enable;
	int fd = -1;

	if (!need_running(c) || !get_nic(c, &n, &l, NULL) || !get_bool(c, "enable", &enable))
		return METHOD_FAILED;
	if (file) {
		fd = control_take_fd(c->v->control, c->asker);
		if (fd < 0) {
			err_set(c->e, ERR_INVALID, "no descriptor came with the name of the trace file");
			return METHOD_FAILED;
		}
	}
	if (vm_trace_nic(c->v, (int)(n - c->v->c->nics), enable, fd, file, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(nic_attach)
{
	struct vm_nic *n;

	if (!need_running(c) || !get_nic(c, &n, NULL, NULL))
		return METHOD_FAILED;
	if (vm_replug(c->v, (int)(n - c->v->c->nics), json_object_get(c->params, "backend"), c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(bandwidth)
{
	json_t *rate = json_object_get(c->params, "rate");
	const char *group;

	if (!need_running(c) || !get_string(c, "group", &group))
		return METHOD_FAILED;
	if (!json_is_integer(rate) || json_integer_value(rate) < 0 || json_integer_value(rate) > INT64_MAX / 4) {
		err_set(c->e, ERR_INVALID, "the parameter 'rate' has to be a number of bytes a second");
		return METHOD_FAILED;
	}
	if (vm_set_bandwidth(c->v, group, (uint64_t)json_integer_value(rate), c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

/* ---- media, console ---- */

static struct vm_disk *
get_disk(struct call *c)
{
	const char *controller;
	struct vm_disk *d;
	int port, device;

	if (!get_string(c, "controller", &controller) || !get_int(c, "port", 0, VM_ATTACHMENTS_MAX - 1, &port) ||
		!get_int(c, "device", 0, 1, &device))
		return NULL;
	d = vm_find_disk(c->v, controller, port, device);
	if (!d)
		err_set(c->e, ERR_NOT_FOUND, "controller '%s' has no drive at port %d, device %d", controller, port,
			device);
	return d;
}

METHOD(drive_attach)
{
	struct vm_plug p = {
		.path = json_string_value(json_object_get(c->params, "path")),
		.format = json_string_value(json_object_get(c->params, "format")),
		.group = json_string_value(json_object_get(c->params, "group")),
		.dvd = json_is_true(json_object_get(c->params, "dvd")),
		.nonrotational = json_is_true(json_object_get(c->params, "nonrotational")),
		.discard = json_is_true(json_object_get(c->params, "discard")),
	};

	if (!need_running(c) || !get_string(c, "controller", &p.controller) ||
		!get_int(c, "port", 0, VM_ATTACHMENTS_MAX - 1, &p.port) || !get_int(c, "device", 0, 1, &p.device) ||
		vm_plug_in(c->v, &p, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(drive_detach)
{
	struct vm_disk *d;

	if (!need_running(c) || !(d = get_disk(c)) || vm_plug_out(c->v, d, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(bandwidth_set)
{
	json_t *limit = json_object_get(c->params, "limit");
	const char *name;

	if (!get_string(c, "name", &name))
		return METHOD_FAILED;
	if (!json_is_integer(limit) || json_integer_value(limit) < 0) {
		err_set(c->e, ERR_INVALID, "the parameter 'limit' has to be a number of bytes a second");
		return METHOD_FAILED;
	}
	if (vm_group_set(c->v, name, (uint64_t)json_integer_value(limit), c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(disk_password)
{
	const char *name, *password;
	bool complete;

	if (!get_string(c, "name", &name) || !get_string(c, "password", &password) ||
		vm_give_password(c->v, name, password, &complete, c->e))
		return METHOD_FAILED;
	/* What waited for it goes on, as VirtualBox has it. */
	return complete && c->v->state == VM_PAUSED ? later(c, JOB_RESUME) : done(c, NULL);
}

METHOD(medium_change)
{
	json_t *path = json_object_get(c->params, "path"), *force = json_object_get(c->params, "force");
	struct vm_disk *d;

	if (!need_running(c) || !(d = get_disk(c)))
		return METHOD_FAILED;
	if (vm_change_medium(c->v, d, json_string_value(path), json_is_true(force), c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

static struct vm_disk *
get_image_disk(struct call *c)
{
	const char *controller;
	struct vm_disk *d;
	int port, device;

	if (!get_string(c, "controller", &controller) || !get_int(c, "port", 0, 255, &port) ||
		!get_int(c, "device", 0, 1, &device))
		return NULL;
	d = vm_find_disk(c->v, controller, port, device);
	if (d && d->block)
		return d;
	err_set(c->e, ERR_NOT_FOUND, "controller '%s' has no disk at port %d, device %d", controller, port, device);
	return NULL;
}

METHOD(merge_start)
{
	struct vm_disk *d = need_running(c) ? get_image_disk(c) : NULL;
	const char *child, *way;
	enum method_result r;

	if (!d || !get_string(c, "child", &child) || !get_string(c, "way", &way))
		return METHOD_FAILED;
	r = vm_merge_start(c->v, d, child, !strcmp(way, "up"), c->asker, c->e);
	return r == METHOD_DONE ? done(c, NULL) : r;
}

METHOD(merge_finish)
{
	struct vm_disk *d = get_image_disk(c);

	return d && !vm_merge_finish(c->v, d, c->e) ? done(c, NULL) : METHOD_FAILED;
}

METHOD(merge_cancel)
{
	struct vm_disk *d = get_image_disk(c);

	if (!d)
		return METHOD_FAILED;
	vm_merge_cancel(d);
	return done(c, NULL);
}

/* ---- the guest's driver ---- */

METHOD(share_add)
{
	int fd = control_take_fd(c->v->control, c->asker);

	if (fd < 0) {
		err_set(c->e, ERR_INVALID, "no descriptor of a directory came with the request");
		return METHOD_FAILED;
	}
	return vm_share_add(c->v, c->params, fd, c->e) ? METHOD_FAILED : done(c, NULL);
}

METHOD(share_remove)
{
	const char *name;

	return get_string(c, "name", &name) && !vm_share_remove(c->v, name, c->e) ? done(c, NULL) : METHOD_FAILED;
}

METHOD(share_symlinks)
{
	const char *name;
	bool allowed;

	if (!get_string(c, "name", &name) || !get_bool(c, "allowed", &allowed) ||
		vm_share_symlinks(c->v, name, allowed, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(share_list)
{
	return done(c, vm_share_list(c->v));
}

METHOD(guestprop_list)
{
	const char *patterns = json_string_value(json_object_get(c->params, "patterns"));
	json_t *list = vm_prop_list(c->v, patterns ? patterns : "", c->e);

	return list ? done(c, list) : METHOD_FAILED;
}

METHOD(guestprop_set)
{
	const char *value = json_string_value(json_object_get(c->params, "value"));
	const char *flags = json_string_value(json_object_get(c->params, "flags"));
	const char *name;

	if (!get_string(c, "name", &name) || vm_prop_set(c->v, name, value, flags, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(guestprop_wait)
{
	json_int_t after = json_integer_value(json_object_get(c->params, "after"));
	const char *patterns;
	int timeout;

	if (!get_string(c, "patterns", &patterns) || !get_int(c, "timeout_ms", 0, 30000, &timeout))
		return METHOD_FAILED;
	return vm_prop_wait(c->v, patterns, after, timeout, c->asker, &c->result, c->e);
}

static struct vmmdev *
get_guest_device(struct call *c)
{
	struct vmmdev *d = pc_guest_device(c->v->pc);

	if (!d)
		err_set(c->e, ERR_UNSUPPORTED, "the machine has no guest device");
	return d;
}

METHOD(display_hint)
{
	struct vmmdev *d = pc_guest_device(c->v->pc);
	struct vga *vga = pc_vga(c->v->pc);
	bool placed = json_object_get(c->params, "x") != NULL, enabled = true;
	int display, width, height, bpp, x = 0, y = 0;

	if (!get_int(c, "display", 0, 63, &display) || !get_int(c, "width", 0, 16384, &width) ||
		!get_int(c, "height", 0, 16384, &height) || !get_int(c, "bpp", 0, 32, &bpp) ||
		(json_object_get(c->params, "enabled") && !get_bool(c, "enabled", &enabled)) ||
		(placed && (!get_int(c, "x", 0, 32767, &x) || !get_int(c, "y", 0, 32767, &y))))
		return METHOD_FAILED;
	if (!d || !vga) {
		err_set(c->e, ERR_UNSUPPORTED, "the machine has no %s", d ? "graphics controller" : "guest device");
		return METHOD_FAILED;
	}
	if (!vga_hint(vga, (unsigned)display,
		    &(struct vga_hint){ (unsigned)width, (unsigned)height, (unsigned)bpp, enabled, placed, (unsigned)x,
			    (unsigned)y })) {
		err_set(c->e, ERR_INVALID, "the machine has no display %d", display);
		return METHOD_FAILED;
	}
	vmmdev_display_hint(d, (unsigned)display, (unsigned)width, (unsigned)height, (unsigned)bpp);
	return done(c, NULL);
}

METHOD(balloon)
{
	struct vmmdev *d = get_guest_device(c);
	int mib;

	if (!d || !get_int(c, "mib", 0, 1 << 20, &mib) || vmmdev_balloon(d, (uint64_t)mib, c->e))
		return METHOD_FAILED;
	return done(c, NULL);
}

METHOD(vrde_set)
{
	const char *ports = json_string_value(json_object_get(c->params, "ports"));
	bool enable = c->v->rfb != NULL;

	if (ports ? vm_console_move(c->v, ports, c->e) : !get_bool(c, "enable", &enable))
		return METHOD_FAILED;
	if (enable && vm_console_open(c->v, c->e))
		return METHOD_FAILED;
	if (!enable)
		vm_console_close(c->v);
	vm_status_write(c->v);
	return done(c, json_pack("{s:i}", "port", (int)vm_console_port(c->v)));
}

METHOD(consoles)
{
	struct display_source src;
	json_t *serial = json_array();
	char text[8192];
	size_t n = 0;

	if (pc_display(c->v->pc, &src) && src.text)
		n = src.text(src.opaque, text, sizeof(text));
	for (size_t i = 0; i < n; i++)
		if (text[i] != '\n' && (text[i] < ' ' || text[i] > '~'))
			text[i] = ' ';
	c->result = json_pack("{s:s%, s:o}", "screen", text, n, "serial", serial);
	for (int i = 0; i < PC_SERIAL_MAX; i++)
		if (c->v->serial[i]) {
			chardev_said(c->v->serial[i], text, sizeof(text));
			json_array_append_new(serial, json_pack("{s:i, s:s}", "port", i, "text", text));
		}
	return done(c, c->result);
}

METHOD(cpu_cap)
{
	int percent;

	if (!get_int(c, "percent", 1, 100, &percent))
		return METHOD_FAILED;
	vm_throttle_set(c->v, percent);
	return done(c, NULL);
}

/* ---- numbers ---- */

static json_t *
cpu_stats(struct vcpu *v)
{
	json_t *j = json_object();

#define ROW(name, text)                                                                                                \
	json_object_set_new(j, #name, json_integer((json_int_t)__atomic_load_n(&v->count.name, __ATOMIC_RELAXED)));
	CPU_COUNTERS(ROW)
#undef ROW
	return j;
}

static json_t *
disk_stats(struct vm *v, struct vm_disk *d)
{
	struct vm_controller *c = &v->c->controllers[d->controller];
	struct vm_attachment *a = &c->attachments[d->attachment];
	struct block_stats s = { 0 };

	if (d->block)
		block_get_stats(d->block, &s);
	return json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "controller", c->name, "port", a->port,
		"device", a->device, "reads", (json_int_t)s.reads, "writes", (json_int_t)s.writes, "flushes",
		(json_int_t)s.flushes, "bytes_read", (json_int_t)s.bytes_read, "bytes_written",
		(json_int_t)s.bytes_written, "errors", (json_int_t)s.errors);
}

static json_t *
nic_stats(struct vm *v, int i)
{
	const struct net_stats *s = &v->links[i].stats;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "slot", v->c->nics[i].slot, "tx_frames",
		(json_int_t)s->tx_frames, "tx_bytes", (json_int_t)s->tx_bytes, "rx_frames", (json_int_t)s->rx_frames,
		"rx_bytes", (json_int_t)s->rx_bytes, "dropped", (json_int_t)s->dropped);
}

METHOD(stats)
{
	json_t *cpu_list = json_array(), *disks = json_array(), *nics = json_array();
	struct vm *v = c->v;

	for (int i = 0; i < pc_cpus(v->pc)->count; i++)
		json_array_append_new(cpu_list, cpu_stats(pc_cpus(v->pc)->cpu[i]));
	for (int i = 0; i < v->disk_count; i++)
		if (!v->c->controllers[v->disks[i].controller].attachments[v->disks[i].attachment].gone)
			json_array_append_new(disks, disk_stats(v, &v->disks[i]));
	for (int i = 0; i < v->link_count; i++)
		json_array_append_new(nics, nic_stats(v, i));
	return done(c, json_pack("{s:o, s:o, s:o}", "cpus", cpu_list, "disks", disks, "nics", nics));
}

/* ---- the guest agent ---- */

static enum method_result
ask_agent(struct call *c, enum vm_agent_request what)
{
	return vm_agent_method(c->v, what, c->params, c->asker, &c->result, c->e);
}

METHOD(agent_status)
{
	return ask_agent(c, AGENT_STATUS);
}

METHOD(agent_call)
{
	return ask_agent(c, AGENT_CALL);
}

METHOD(agent_wait)
{
	return ask_agent(c, AGENT_WAIT);
}

METHOD(agent_onclose)
{
	return ask_agent(c, AGENT_ONCLOSE);
}

METHOD(agent_session)
{
	return ask_agent(c, AGENT_SESSION);
}

METHOD(agent_login)
{
	return ask_agent(c, AGENT_LOGIN);
}

/* ---- pictures ---- */

json_t *
method_screenshot(struct vm *v, const json_t *params, struct err *e)
{
	json_int_t screen = json_integer_value(json_object_get(params, "screen"));
	unsigned width, height;
	uint8_t *png;
	size_t len;
	json_t *j;
	char *text;

	if (vm_screenshot(v, screen >= 0 && screen < 64 ? (unsigned)screen : 64, &png, &len, &width, &height, e))
		return NULL;
	if (len > VM_REPLY_MAX / 2) {
		free(png);
		err_set(e, ERR_VM, "the picture is too large to send (%zu bytes)", len);
		return NULL;
	}
	text = base64_text(png, len);
	j = json_pack("{s:i, s:i, s:s}", "width", (int)width, "height", (int)height, "png", text);
	free(text);
	free(png);
	return j;
}

/* ---- the table ---- */

static const struct {
	const char *name;
	enum method_result (*call)(struct call *c);
} methods[] = {
#define ROW(name, suffix) { name, do_##suffix },
	VM_METHODS(ROW)
#undef ROW
};

enum method_result
method_call(struct vm *v, const char *name, const json_t *params, const struct vm_asker *asker, json_t **result,
	struct err *e)
{
	struct call c = { .v = v, .params = params, .asker = asker, .e = e };

	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (!strcmp(methods[i].name, name)) {
			enum method_result r = methods[i].call(&c);

			*result = c.result;
			return r;
		}
	err_set(e, ERR_UNSUPPORTED, "there is no method '%.64s'", name);
	return METHOD_FAILED;
}
