/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings files: NAME.vbox in the machine's folder, a JSON document with all that the machine is.
 *
 *	lodge            1, the version of this format
 *	uuid, name       of the machine
 *	settings         "memory": "1024", "nic": ["nat", "none", ...], ...: each of host/settings.c by its name, as the
 *	                 inventory has it; a list for those with slots
 *	forwards         a list for each adapter of rules "ssh,tcp,127.0.0.1,2222,,22"
 *	controllers      each with name, bus, instance, ports, bootable, hostiocache and attachments: each with port,
 *	                 device, type (disk, dvd), medium (UUID), path, format, nonrotational, discard, hotpluggable,
 *	                 tempeject, passthrough
 *	sharedfolders    each with name, path, readonly, automount, mount_point
 *	extradata        key: value
 *	guestproperties  each with name, value, time (ns since 1970), flags
 *	statefile        of a saved machine
 *	snapshots        each with uuid, parent (its UUID, or ""), name, description, time, statefile, hardware
 * (settings, forwards, controllers as above) and disks: each with controller, port, device, medium, path, format
 *	snapshot         UUID of the one that the machine's current state hangs on
 *
 * While a machine is registered its file is only written. It is replaced by a rename, without fsync: the inventory is
 * what counts.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/inv.h"

#define FILE_VERSION 1
#define FILE_MAX (256u << 20) /* a thousand snapshots */

/* ---- writing ---- */

static json_t *
settings_json(const struct host_vm *vm)
{
	json_t *o = json_object();

	for (int k = 0; k < HK_COUNT; k++) {
		const struct host_setting *s = host_setting(k);
		json_t *list;

		if (s->slots == 1) {
			json_object_set_new(o, s->name, json_string(vm->value[k][0]));
			continue;
		}
		list = json_array();
		for (int i = 0; i < s->slots; i++)
			json_array_append_new(list, json_string(vm->value[k][i]));
		json_object_set_new(o, s->name, list);
	}
	return o;
}

static json_t *
forwards_json(const struct host_vm *vm)
{
	json_t *all = json_array();

	for (int n = 0; n < HOST_NICS; n++) {
		json_t *list = json_array();

		for (int i = 0; i < vm->rule_count[n]; i++) {
			char *text = vm_rule_text(&vm->rules[n][i]);

			json_array_append_new(list, json_string(text));
			free(text);
		}
		json_array_append_new(all, list);
	}
	return all;
}

static json_t *
attachment_json(const struct host_attachment *a)
{
	return json_pack("{s:i, s:i, s:s, s:s*, s:s*, s:s*, s:b, s:b, s:b, s:b, s:b}", "port", a->port, "device",
		a->device, "type", medium_type_word(a->type), "medium", a->medium, "path", a->path, "format", a->format,
		"nonrotational", a->nonrotational, "discard", a->discard, "hotpluggable", a->hotpluggable, "tempeject",
		a->tempeject, "passthrough", a->passthrough);
}

static json_t *
controllers_json(const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];
		json_t *at = json_array();

		for (int k = 0; k < c->at_count; k++)
			json_array_append_new(at, attachment_json(&c->at[k]));
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:i, s:i, s:b, s:b, s:o}", "name", c->name, "bus",
				      bus_of(c->bus)->word, "type", c->type, "instance", c->instance, "ports", c->ports,
				      "bootable", c->bootable, "hostiocache", c->hostiocache, "attachments", at));
	}
	return list;
}

static int
extra_to_json(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	json_object_set_new(opaque, key, json_string(value));
	return 0;
}

static int
property_to_json(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	json_array_append_new(opaque, json_pack("{s:s, s:s, s:I, s:s}", "name", name, "value", value, "time",
					      (json_int_t)time_ns, "flags", flags));
	return 0;
}

json_t *
vboxfile_hardware(const struct host_vm *vm)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "settings", settings_json(vm), "forwards", forwards_json(vm),
		"controllers", controllers_json(vm), "sharedfolders", vm_shares_json(vm));
}

static char *
document(struct host *h, const struct host_vm *vm, json_t *snapshots, const char *current)
{
	json_t *extra = json_object(), *props = json_array(), *doc;
	char *text;

	if (vm_row(h, vm->uuid) >= 0) {
		host_extra_each(h, vm->uuid, extra_to_json, extra, NULL);
		guestprop_stored_each(h, vm->uuid, property_to_json, props, NULL);
	}
	doc = json_pack("{s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "lodge", FILE_VERSION, "uuid", vm->uuid, "name",
		vm->name, "settings", settings_json(vm), "forwards", forwards_json(vm), "controllers",
		controllers_json(vm), "extradata", extra, "guestproperties", props);
	json_object_set_new(doc, "sharedfolders", vm_shares_json(vm));
	if (vm->state_file[0] && vm->state == HOST_SAVED)
		json_object_set_new(doc, "statefile", json_string(vm->state_file));
	if (!snapshots)
		snapshots = snapshots_json(h, vm);
	if (json_array_size(snapshots)) {
		json_object_set(doc, "snapshots", snapshots);
		json_object_set_new(doc, "snapshot", json_string(current));
	}
	json_decref(snapshots);
	text = json_dumps(doc, JSON_INDENT(1));
	json_decref(doc);
	return text;
}

/* Of the name under which a settings file is written before it is renamed; the number of a process follows. */
#define HALF_WRITTEN "-tmp"

void
vboxfile_remove(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? xasprintf("%.*s", (int)(slash - path), path) : xstrdup(".");
	char *half = xasprintf("%s" HALF_WRITTEN, slash ? slash + 1 : path);
	DIR *d = opendir(dir);
	struct dirent *f;

	while (d && (f = readdir(d)))
		if (str_starts(f->d_name, half))
			unlinkat(dirfd(d), f->d_name, 0);
	if (d)
		closedir(d);
	unlink(path);
	free(half);
	free(dir);
}

static int
replace_file(const char *path, const char *text, struct err *e)
{
	char *tmp = xasprintf("%s" HALF_WRITTEN "%ld", path, (long)getpid());
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;

	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "Could not create the settings file '%s'", path);
		free(tmp);
		return -1;
	}
	n = write_full(fd, text, strlen(text));
	close(fd);
	if (n >= 0 && rename(tmp, path))
		n = -errno;
	if (n < 0) {
		unlink(tmp);
		err_sys(e, ERR_FILE, (int)n, "Could not write the settings file '%s'", path);
	}
	free(tmp);
	return n < 0 ? -1 : 0;
}

static int
write_file(struct host *h, const struct host_vm *vm, json_t *snapshots, const char *current, struct err *e)
{
	char *text = document(h, vm, snapshots, current);
	int r;

	if (!text)
		return err_set(e, ERR_FAILED,
			"The settings of machine '%s' cannot be written down: a value is not UTF-8", vm->name);
	r = replace_file(vm->cfg_file, text, e);
	free(text);
	return r;
}

int
vboxfile_write(struct host *h, const struct host_vm *vm, struct err *e)
{
	return write_file(h, vm, NULL, vm->snapshot, e);
}

int
vboxfile_write_with(struct host *h, const struct host_vm *vm, json_t *snapshots, const char *current, struct err *e)
{
	return write_file(h, vm, json_incref(snapshots), current, e);
}

/* ---- reading ---- */

static int
bad_file(const char *path, const char *what, struct err *e)
{
	return err_set(e, ERR_XML, "Could not load the settings file '%s': %s", path, what);
}

static int
read_setting(struct host_vm *vm, int key, int slot, json_t *v, const char *path, struct err *e)
{
	const char *text = json_string_value(v);
	char *normal;

	if (!text || slot >= host_setting(key)->slots)
		return bad_file(path, "a setting is not a string, or has too many values", e);
	/* An empty text means "not set" for settings whose default it is. */
	if (!*text && !*vm->value[key][slot])
		return 0;
	normal = setting_normal(key, slot, text, e);
	if (!normal)
		return err_wrap(e, "Could not load the settings file '%s'", path);
	vm_set(vm, key, slot, normal);
	free(normal);
	return 0;
}

static int
read_settings(struct host_vm *vm, json_t *o, const char *path, struct err *e)
{
	const char *name;
	json_t *v;

	json_object_foreach(o, name, v)
	{
		int key = setting_find(name);

		if (key < 0) {
			err_set(e, ERR_XML, "Could not load the settings file '%s': unknown setting '%s'", path, name);
			return -1;
		}
		if (!json_is_array(v)) {
			if (read_setting(vm, key, 0, v, path, e))
				return -1;
			continue;
		}
		for (size_t i = 0; i < json_array_size(v); i++)
			if (read_setting(vm, key, (int)i, json_array_get(v, i), path, e))
				return -1;
	}
	return 0;
}

static int
read_forwards(struct host_vm *vm, json_t *all, struct err *e)
{
	for (size_t n = 0; n < json_array_size(all) && n < HOST_NICS; n++) {
		json_t *list = json_array_get(all, n), *text;
		size_t i;

		json_array_foreach(list, i, text)
		{
			struct nat_rule rule;

			if (nat_rule_parse(json_is_string(text) ? json_string_value(text) : "", &rule, e) ||
				vm_rule_add(vm, (int)n, &rule, e))
				return -1;
		}
	}
	return 0;
}

static int
read_attachment(struct host *h, struct host_controller *c, json_t *o, struct err *e)
{
	int port = 0, device = 0, type, nonrot = 0, discard = 0, hot = 0, eject = 0, pass = 0;
	const char *word = "", *medium = NULL, *path = NULL, *format = "";
	struct host_attachment *a;
	char uuid[37];

	if (json_unpack(o, "{s:i, s:i, s:s, s?s, s?s, s?s, s?b, s?b, s?b, s?b, s?b}", "port", &port, "device", &device,
		    "type", &word, "medium", &medium, "path", &path, "format", &format, "nonrotational", &nonrot,
		    "discard", &discard, "hotpluggable", &hot, "tempeject", &eject, "passthrough", &pass))
		return err_set(e, ERR_XML, "an attachment is not complete");
	type = medium_type_of(word);
	if (type < 0 || port < 0 || port >= c->max_ports || device < 0 || device >= c->devices_per_port ||
		host_vm_attachment(c, port, device))
		return err_set(
			e, ERR_XML, "the attachment at port %d, device %d of '%s' cannot be", port, device, c->name);
	a = vm_attachment_add(c, port, device);
	a->type = (enum host_device)type;
	a->nonrotational = nonrot;
	a->discard = discard;
	a->hotpluggable = hot;
	a->tempeject = eject;
	a->passthrough = pass;
	if (!path)
		return 0;
	if (medium && medium_register(h, a->type, medium, path, format, e))
		return -1;
	if (medium_get(h, a->type, path, uuid, &a->path, &a->format, e))
		return -1;
	a->medium = xstrdup(uuid);
	return 0;
}

static int
read_controller(struct host *h, struct host_vm *vm, json_t *o, struct err *e)
{
	const char *name = "", *bus_word = "", *type = "";
	int instance = 0, ports = 1, bootable = 1, cache = 0;
	const struct bus_row *bus;
	struct host_controller *c;
	json_t *at = NULL, *v;
	size_t i;

	if (json_unpack(o, "{s:s, s:s, s?s, s?i, s?i, s?b, s?b, s?o}", "name", &name, "bus", &bus_word, "type", &type,
		    "instance", &instance, "ports", &ports, "bootable", &bootable, "hostiocache", &cache, "attachments",
		    &at))
		return err_set(e, ERR_XML, "a storage controller is not complete");
	bus = bus_row(bus_word);
	if (!bus || !bus->type || vm_controller(vm, name) || ports < 1 || ports > bus->max_ports)
		return err_set(e, ERR_XML, "the storage controller '%s' cannot be", name);
	c = vm_controller_add(vm, name);
	c->bus = bus->bus;
	c->type = controller_type(bus, type);
	c->max_ports = bus->max_ports;
	c->devices_per_port = bus->devices;
	c->instance = instance;
	c->ports = ports;
	c->bootable = bootable;
	c->hostiocache = cache;
	json_array_foreach(at, i, v) if (read_attachment(h, c, v, e)) return -1;
	return 0;
}

static json_t *
parse_file(const char *path, struct err *e)
{
	json_error_t je;
	size_t len = 0;
	char *text = file_read(path, FILE_MAX, &len, e);
	json_t *doc;

	if (!text) {
		err_wrap(e, "Could not find or read the settings file '%s'", path);
		return NULL;
	}
	doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	free(text);
	if (!doc)
		err_set(e, ERR_XML, "Could not load the settings file '%s': line %d: %s", path, je.line, je.text);
	return doc;
}

/* The folder a settings file lies in and the name its file name says. */
static void
place_of(const char *path, char **folder, char **name)
{
	const char *slash = strrchr(path, '/');

	*folder = strndup(path, (size_t)(slash - path));
	*name = xstrdup(slash + 1);
	if (str_ends(*name, ".vbox"))
		(*name)[strlen(*name) - 5] = 0;
}

int
vboxfile_read_hardware(struct host *h, struct host_vm *vm, json_t *doc, const char *path, struct err *e)
{
	json_t *v;
	size_t i;

	if (read_settings(vm, json_object_get(doc, "settings"), path, e) ||
		read_forwards(vm, json_object_get(doc, "forwards"), e))
		return -1;
	json_array_foreach(json_object_get(doc, "controllers"), i, v) if (read_controller(h, vm, v, e)) return -1;
	return vm_shares_read(vm, json_object_get(doc, "sharedfolders"), e);
}

struct host_vm *
vboxfile_read(struct host *h, const char *path, json_t **out, struct err *e)
{
	json_t *doc = parse_file(path, e), *settings = NULL, *forwards = NULL, *ctls = NULL, *v;
	const char *uuid = "", *name = "";
	char *folder, *file_name;
	struct host_vm *vm = NULL;
	struct uuid u;
	int version = 0;
	size_t i;

	if (!doc)
		return NULL;
	if (json_unpack(doc, "{s:i, s:s, s:s, s:o, s?o, s?o}", "lodge", &version, "uuid", &uuid, "name", &name,
		    "settings", &settings, "forwards", &forwards, "controllers", &ctls) ||
		version != FILE_VERSION || !uuid_parse(uuid, &u)) {
		bad_file(path, "it is not a settings file of this program's version", e);
		goto fail;
	}
	place_of(path, &folder, &file_name);
	vm = vm_new(file_name, folder);
	free(folder);
	free(file_name);
	uuid_text(&u, vm->uuid);
	vm_set(vm, HK_HARDWAREUUID, 0, vm->uuid);
	if (read_settings(vm, settings, path, e))
		goto fail;
	if (read_forwards(vm, forwards, e))
		goto fail_wrap;
	json_array_foreach(ctls, i, v) if (read_controller(h, vm, v, e)) goto fail_wrap;
	if (vm_shares_read(vm, json_object_get(doc, "sharedfolders"), e))
		goto fail_wrap;
	*out = doc;
	return vm;
fail_wrap:
	err_wrap(e, "Could not load the settings file '%s'", path);
fail:
	host_vm_free(vm);
	json_decref(doc);
	return NULL;
}

int
vboxfile_restore_pairs(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	json_t *v, *list = json_object_get(doc, "guestproperties");
	const char *key, *current = json_string_value(json_object_get(doc, "snapshot"));
	const char *state_file = json_string_value(json_object_get(doc, "statefile"));
	size_t i;

	json_object_foreach(json_object_get(doc, "extradata"), key,
		v) if (json_is_string(v) && host_extra_set(h, vm->uuid, key, json_string_value(v), e)) return -1;
	json_array_foreach(list, i, v)
	{
		const char *name = NULL, *value = NULL, *flags = "";

		if (!json_unpack(v, "{s:s, s:s, s?s}", "name", &name, "value", &value, "flags", &flags) &&
			host_guestprop_set(h, vm->uuid, name, value, flags, e))
			return -1;
	}
	if (snapshots_restore_json(h, vm, json_object_get(doc, "snapshots"), current ? current : "", e))
		return -1;
	return state_file ? vm_set_final_state(h, vm->uuid, HOST_SAVED, state_file, e) : 0;
}
