/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the machine in the inventory to the configuration document that its process reads (vm/protocol.h).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/net.h"
#include "host/run.h"
#include "vm/protocol.h"

char *
engine_name(struct host *h, const char *uuid, struct err *e)
{
	const char *env = getenv("LODGE_ENGINE");
	char *value = NULL;

	if (env && *env)
		return xstrdup(env);
	if (uuid && host_extra_get(h, uuid, "Lodge/Engine", &value, e))
		return NULL;
	if (!value && host_extra_get(h, NULL, "Lodge/Engine", &value, e))
		return NULL;
	return value ? value : xstrdup("auto");
}

/* Disks tell the guest a serial number that follows from their UUID: its first and last four bytes. */
static void
disk_serial(const char *uuid_string, char out[21])
{
	struct uuid u;

	if (!uuid_parse(uuid_string, &u))
		memset(&u, 0, sizeof(u));
	snprintf(out, 21, "VB%02x%02x%02x%02x-%02x%02x%02x%02x", u.b[0], u.b[1], u.b[2], u.b[3], u.b[15], u.b[14],
		u.b[13], u.b[12]);
}

static json_t *
attachment(const struct host_attachment *a)
{
	static const char *const types[] = { [HOST_DISK] = "disk", [HOST_DVD] = "dvd", [HOST_FLOPPY] = "floppy" };
	char serial[21], format[16] = "";
	json_t *o = json_pack("{s:i, s:i, s:s}", "port", a->port, "device", a->device, "type", types[a->type]);

	if (a->path)
		json_object_set_new(o, "path", json_string(a->path));
	if (a->type != HOST_DISK)
		return o;
	disk_serial(a->medium, serial);
	json_object_set_new(o, "serial", json_string(serial));
	for (size_t i = 0; i < sizeof(format) - 1 && a->format[i]; i++)
		format[i] = (char)tolower((unsigned char)a->format[i]);
	json_object_set_new(o, "format", json_string(format));
	json_object_set_new(o, "nonrotational", json_boolean(a->nonrotational));
	json_object_set_new(o, "discard", json_boolean(a->discard));
	return o;
}

static json_t *
storage(struct host *h, const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];
		json_t *at = json_array(), *o;

		for (int k = 0; k < c->at_count; k++) {
			char *group = host_disk_group_of(h, vm->uuid, c->name, c->at[k].port, c->at[k].device);

			o = attachment(&c->at[k]);
			medium_open_mode(&c->at[k], o);
			if (group)
				json_object_set_new(o, "group", json_string(group));
			free(group);
			json_array_append_new(at, o);
		}
		o = json_pack("{s:s, s:s, s:b, s:o}", "name", c->name, "type", bus_of(c->bus)->vm_type, "bootable",
			c->bootable, "attachments", at);
		/* 30 ports is what a controller has when nobody asked; firmware and guests probe each of them. */
		if (c->bus != HOST_IDE && c->ports < c->max_ports)
			json_object_set_new(o, "ports", json_integer(c->ports));
		if (c->bus == HOST_IDE && strcmp(c->type, bus_of(c->bus)->type))
			json_object_set_new(o, "model", json_string(c->type));
		if (!c->hostiocache)
			json_object_set_new(o, "hostiocache", json_false());
		json_array_append_new(list, o);
	}
	return list;
}

static int
add_group(void *opaque, const char *key, const char *value, int64_t time, const char *flags)
{
	uint64_t rate;

	if (str_starts(key, DISK_GROUP_KEY) && str_to_u64(value, 0, INT64_MAX / 4, &rate))
		json_array_append_new(opaque,
			json_pack("{s:s, s:I}", "name", key + strlen(DISK_GROUP_KEY), "limit", (json_int_t)rate));
	return 0;
}

static json_t *
groups(struct host *h, const struct host_vm *vm)
{
	json_t *list = json_array();
	struct err unused;

	host_extra_each(h, vm->uuid, add_group, list, &unused);
	return list;
}

/* The network of each adapter runs when this comes back. */
static json_t *
nic(struct host *h, const struct host_vm *vm, int n, struct err *e)
{
	const char *type = host_vm_get(vm, HK_NICTYPE, n), *model = strcmp(type, "82540EM") ? type : "e1000";
	const char *file = host_vm_get(vm, HK_NICTRACEFILE, n), *group = host_vm_get(vm, HK_NICBANDWIDTHGROUP, n);
	bool traced = host_vm_on(vm, HK_NICTRACE, n);
	json_t *backend = host_nic_backend(h, vm, n, e), *o;
	char *usual;

	if (!backend)
		return NULL;
	o = json_pack("{s:i, s:s, s:s, s:b, s:o}", "slot", n, "model", model, "mac", host_vm_get(vm, HK_MACADDRESS, n),
		"cable", host_vm_on(vm, HK_CABLECONNECTED, n), "backend", backend);
	if (*file || traced) {
		usual = xasprintf("%s/nic%d.pcap", vm->log_folder, n + 1);
		json_object_set_new(o, "trace", json_string(*file ? file : usual));
		json_object_set_new(o, "trace_on", json_boolean(traced));
		free(usual);
	}
	json_object_set_new(o, "speed", json_integer((json_int_t)host_vm_num(vm, HK_NICSPEED, n)));
	json_object_set_new(o, "boot_priority", json_integer((json_int_t)host_vm_num(vm, HK_NICBOOTPRIO, n)));
	if (*group && strcmp(group, "none")) {
		if (host_vm_num(vm, HK_NICSPEED, n)) {
			json_decref(o);
			err_set(e, ERR_INVALID,
				"Adapter %d of machine '%s' has a speed (--nicspeed%d) and a bandwidth group: only one "
				"of them "
				"can limit it",
				n + 1, vm->name, n + 1);
			return NULL;
		}
		json_object_set_new(o, "bandwidth_group", json_string(group));
		json_object_set_new(o, "bandwidth", json_integer((json_int_t)host_bandwidth(h, vm, group)));
	}
	return o;
}

static int
add_nics(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	json_t *list = json_array(), *o;

	json_object_set_new(doc, "nics", list);
	for (int n = 0; n < HOST_NICS; n++) {
		if (!strcmp(host_vm_get(vm, HK_NIC, n), "none"))
			continue;
		o = nic(h, vm, n, e);
		if (!o)
			return -1;
		json_array_append_new(list, o);
	}
	return 0;
}

static json_t *
serial(const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < HOST_UARTS; i++) {
		const char *place = host_vm_get(vm, HK_UART, i), *mode = host_vm_get(vm, HK_UARTMODE, i);
		const char *comma = strchr(place, ','), *arg = strchr(mode, ',');
		size_t mode_len = strcspn(mode, ",");
		json_t *o;

		if (!comma)
			continue;
		o = json_pack("{s:i, s:i, s:i, s:s%}", "port", i, "base", (int)strtol(place, NULL, 16), "irq",
			(int)strtol(comma + 1, NULL, 10), "mode", mode, mode_len);
		if (arg)
			json_object_set_new(o, "path", json_string(arg + 1));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *
boot(const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < HOST_BOOTS; i++)
		json_array_append_new(list, json_string(host_vm_get(vm, HK_BOOT, i)));
	return list;
}

/*
 * The console is always configured, so that it can be switched on later. No address means, as in VirtualBox, all of
 * the host's; a console that no password protects stays on the loopback unless an address is asked for.
 */
static json_t *
vrde(const struct host_vm *vm)
{
	const char *address = host_vm_get(vm, HK_VRDEADDRESS, 0), *password = host_vm_get(vm, HK_VRDEPASSWORD, 0);

	if (!*address)
		address = *password ? "0.0.0.0" : "127.0.0.1";
	return json_pack("{s:b, s:s, s:s, s:s}", "enabled", host_vm_on(vm, HK_VRDE, 0), "address", address, "ports",
		host_vm_get(vm, HK_VRDEPORT, 0), "password", password);
}

/* Extra data "Lodge/Devices": a comma-separated list of the optional devices of vm/protocol.h. */
static int
add_devices(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	json_t *list = json_array();
	char *value = NULL, *rest, *word;

	if (host_extra_get(h, vm->uuid, "Lodge/Devices", &value, e)) {
		json_decref(list);
		return -1;
	}
	rest = value;
	while (rest && (word = strsep(&rest, ",")))
		if (*word)
			json_array_append_new(list, json_string(word));
	free(value);
	json_object_set_new(doc, "devices", list);
	return 0;
}

/* The guest agent's channel is there unless extra data "Lodge/Agent" says "off". */
static int
add_agent(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	char *value = NULL;

	if (host_extra_get(h, vm->uuid, "Lodge/Agent", &value, e))
		return -1;
	json_object_set_new(doc, "agent", json_boolean(!value || strcmp(value, "off") != 0));
	free(value);
	return 0;
}

/* Global extra data "Lodge/User": who the process of a machine becomes when root starts it. */
static int
add_user(struct host *h, json_t *doc, struct err *e)
{
	char *value = NULL;

	if (geteuid())
		return 0;
	if (host_extra_get(h, NULL, "Lodge/User", &value, e))
		return -1;
	if (value)
		json_object_set_new(doc, "user", json_string(value));
	free(value);
	return 0;
}

/* A saved machine goes on. Snapshots, also of memory, are made by the machine's process: their folder has to be there.
 */
static int
add_state(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	char generation[37];

	if (dir_make(vm->snap_folder, 0700, e))
		return err_wrap(e, "Could not create the snapshot folder of machine '%s'", vm->name);
	json_object_set_new(doc, "snapshot_dir", json_string(vm->snap_folder));
	if (vm->state == HOST_SAVED)
		json_object_set_new(doc, "state", json_string(vm->state_file));
	/* From a snapshot, a machine can start more than once. */
	if (vm->state == HOST_SAVED && snapshot_owns_state(h, vm->state_file)) {
		struct uuid u = uuid_random();

		uuid_text(&u, generation);
		json_object_set_new(doc, "generation", json_string(generation));
	}
	return 0;
}

/* VirtualBox's guest device is always there. */
/* The guest is not to get the host's time of day. */
static bool
time_is_kept(struct host *h, const struct host_vm *vm)
{
	char *value = NULL;
	bool yes;

	host_extra_get(h, vm->uuid, HOST_TIME_KEY, &value, NULL);
	yes = value && !strcmp(value, "1");
	free(value);
	return yes;
}

static int
add_guest_device(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e)
{
	json_t *props = guestprop_config(h, vm, e);

	if (!props)
		return -1;
	json_object_set_new(doc, "host_time", json_boolean(!time_is_kept(h, vm)));
	json_object_set_new(doc, "guest_device", json_true());
	json_object_set_new(doc, "shares", vm_shares_config(h, vm));
	json_object_set_new(doc, "properties", props);
	return 0;
}

/* The USB controller and what is plugged in, and the sound card. */
static int
add_usb_and_audio(const struct host_vm *vm, json_t *doc, struct err *e)
{
	bool usb = host_vm_on(vm, HK_USBXHCI, 0), tablet = !strcmp(host_vm_get(vm, HK_MOUSE, 0), "usbtablet");
	bool keyboard = !strcmp(host_vm_get(vm, HK_KEYBOARD, 0), "usb"), disks = false;
	const char *driver = host_vm_get(vm, HK_AUDIO, 0);
	bool hda = !strcmp(host_vm_get(vm, HK_AUDIOCONTROLLER, 0), "hda");
	char *file;

	for (int i = 0; i < vm->ctl_count; i++)
		disks |= vm->ctl[i].bus == HOST_USB;
	if (!usb && (tablet || keyboard || disks))
		return err_set(e, ERR_INVALID,
			"The machine '%s' has a USB %s and no USB controller: modifyvm --usbxhci on gives it one",
			vm->name,
			tablet	   ? "tablet"
			: keyboard ? "keyboard"
				   : "storage controller");
	json_object_set_new(doc, "usb", json_boolean(usb));
	json_object_set_new(doc, "usb_tablet", json_boolean(tablet));
	json_object_set_new(doc, "usb_keyboard", json_boolean(keyboard));
	if (!host_vm_on(vm, HK_AUDIOENABLED, 0) || !strcmp(driver, "none"))
		return 0;
	if (!hda && !strcmp(host_vm_get(vm, HK_AUDIOCODEC, 0), "stac9221"))
		return err_set(e, ERR_INVALID,
			"The machine '%s' has the audio codec stac9221, which belongs to --audio-controller hda",
			vm->name);
	json_object_set_new(doc, "audio", json_true());
	json_object_set_new(doc, "hda", json_boolean(hda));
	if (!strcmp(driver, "file") && host_vm_on(vm, HK_AUDIOOUT, 0)) {
		file = xasprintf("%s/audio.wav", vm->folder);
		json_object_set_new(doc, "audio_file", json_string(file));
		free(file);
	}
	return 0;
}

static int
check_screens(const struct host_vm *vm, struct err *e)
{
	long long count = (long long)host_vm_num(vm, HK_MONITORCOUNT, 0);

	if (count == 1 || strcmp(host_vm_get(vm, HK_GRAPHICSCONTROLLER, 0), "vmsvga"))
		return 0;
	return err_set(e, ERR_INVALID,
		"The machine '%s' has %lld monitors and the graphics controller vmsvga, which here has one: modifyvm "
		"--graphicscontroller vboxsvga gives it all",
		vm->name, count);
}

/* vboxsvga is vboxvga and registers for 3D, which Linux's driver does not use; vmsvga is not there: see settings.c. */
static json_t *
vga(const struct host_vm *vm)
{
	const char *kind = host_vm_get(vm, HK_GRAPHICSCONTROLLER, 0);

	if (!strcmp(kind, "none"))
		return json_null();
	return json_pack("{s:I, s:b, s:I}", "memory", (json_int_t)host_vm_num(vm, HK_VRAM, 0), "vbox",
		!strcmp(kind, "vboxvga") || !strcmp(kind, "vboxsvga"), "monitors",
		(json_int_t)host_vm_num(vm, HK_MONITORCOUNT, 0));
}

json_t *
config_json(struct host *h, const struct host_vm *vm, struct err *e)
{
	char *engine = engine_name(h, vm->uuid, e);
	json_t *o;

	if (!engine)
		return NULL;
	if (check_screens(vm, e)) {
		free(engine);
		return NULL;
	}
	o = json_pack("{s:i, s:s, s:s, s:I, s:I, s:s, s:b, s:b, s:I, s:s, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}",
		"version", VM_CONFIG_VERSION, "name", vm->name, "uuid", host_vm_get(vm, HK_HARDWAREUUID, 0), "memory",
		(json_int_t)host_vm_num(vm, HK_MEMORY, 0), "cpus", (json_int_t)host_vm_num(vm, HK_CPUS, 0), "engine",
		engine, "hpet", host_vm_on(vm, HK_HPET, 0), "rtc_utc", host_vm_on(vm, HK_RTCUSEUTC, 0), "rtc_offset_ms",
		(json_int_t)host_vm_num(vm, HK_BIOSSYSTEMTIMEOFFSET, 0), "triple_fault",
		host_vm_on(vm, HK_TRIPLEFAULTRESET, 0) ? "reset" : "stop", "cpu_cap",
		(json_int_t)host_vm_num(vm, HK_CPUEXECUTIONCAP, 0), "boot_menu",
		!strcmp(host_vm_get(vm, HK_BIOSBOOTMENU, 0), "messageandmenu"), "boot", boot(vm), "vga", vga(vm),
		"storage", storage(h, vm), "bandwidth", groups(h, vm), "serial", serial(vm), "vrde", vrde(vm));
	free(engine);
	if (!o)
		err_set(e, ERR_FAILED, "The configuration of machine '%s' cannot be written down: a value is not UTF-8",
			vm->name);
	else if (add_guest_device(h, vm, o, e) || add_nics(h, vm, o, e) || add_devices(h, vm, o, e) ||
		 add_usb_and_audio(vm, o, e) || add_agent(h, vm, o, e) || add_user(h, o, e) || add_state(h, vm, o, e)) {
		json_decref(o);
		return NULL;
	}
	return o;
}
