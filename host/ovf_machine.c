/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <vbox:Machine>: the machine as VirtualBox's settings files (version 1.15 and on) describe it, which its exports carry
 * in the envelope. One table says where each setting is; reading and writing both go by it.
 *
 * What is read comes from strangers. A value that a setting cannot take here is left at its default and noted down.
 * Paths of the host they come from are not taken over at all: shared folders, files behind serial ports, trace files,
 * directories served by TFTP.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "host/ovf.h"
#include "share/share.h"

/* What an attribute's words mean. */
enum form {
	PLAIN,
	TRUTH,	  /* true, false: on, off */
	UTC,	  /* UTC, local: on, off */
	FIRMWARE, /* "EFI64": efi64 */
	POINTER,  /* "PS2Mouse": ps2 */
	KEYBOARD, /* "PS2Keyboard": ps2 */
	UPPER,	  /* PIIX3 */
	SCREEN,	  /* VBoxVGA, VMSVGA */
	MENU,	  /* MessageAndMenu, MenuOnly, Disabled */
};

static const struct row {
	const char *element; /* below <Hardware>, "BIOS/TimeOffset" */
	const char *attribute;
	enum host_key key;
	enum form form;
} rows[] = {
	/* clang-format off */
	{ "CPU", "hotplug", HK_CPUHOTPLUG, TRUTH },
	{ "CPU", "executionCap", HK_CPUEXECUTIONCAP, PLAIN },
	{ "CPU/PAE", "enabled", HK_PAE, TRUTH },
	{ "CPU/LongMode", "enabled", HK_LONGMODE, TRUTH },
	{ "CPU/X2APIC", "enabled", HK_X2APIC, TRUTH },
	{ "CPU/NestedHWVirt", "enabled", HK_NESTEDHWVIRT, TRUTH },
	{ "Display", "controller", HK_GRAPHICSCONTROLLER, SCREEN },
	{ "Display", "VRAMSize", HK_VRAM, PLAIN },
	{ "Display", "monitorCount", HK_MONITORCOUNT, PLAIN },
	{ "Display", "accelerate3D", HK_ACCELERATE3D, TRUTH },
	{ "HID", "Pointing", HK_MOUSE, POINTER },
	{ "HID", "Keyboard", HK_KEYBOARD, KEYBOARD },
	{ "Chipset", "type", HK_CHIPSET, UPPER },
	{ "Paravirt", "provider", HK_PARAVIRTPROVIDER, PLAIN },
	{ "Firmware", "type", HK_FIRMWARE, FIRMWARE },
	{ "HPET", "enabled", HK_HPET, TRUTH },
	{ "BIOS/IOAPIC", "enabled", HK_IOAPIC, TRUTH },
	{ "BIOS/BootMenu", "mode", HK_BIOSBOOTMENU, MENU },
	{ "BIOS/TimeOffset", "value", HK_BIOSSYSTEMTIMEOFFSET, PLAIN },
	{ "RTC", "localOrUTC", HK_RTCUSEUTC, UTC },
	{ "RemoteDisplay", "enabled", HK_VRDE, TRUTH },
	{ "AudioAdapter", "driver", HK_AUDIO, PLAIN },
	{ "AudioAdapter", "enabled", HK_AUDIOENABLED, TRUTH },
	{ "Clipboard", "mode", HK_CLIPBOARD, PLAIN },
	{ "DragAndDrop", "mode", HK_DRAGANDDROP, PLAIN },
	/* clang-format on */
};

static const char *const devices[][2] = { { "none", "None" }, { "floppy", "Floppy" }, { "dvd", "DVD" },
	{ "disk", "HardDisk" }, { "net", "Network" }, { "usb", "USB" } };

/* What an adapter is attached to: an element below <Adapter>, the attribute with the name, and its setting. */
static const struct attachment {
	const char *nic, *element, *attribute;
	int key; /* -1: no name */
} attachments[] = { { "nat", "NAT", NULL, -1 }, { "bridged", "BridgedInterface", "name", HK_BRIDGEADAPTER },
	{ "intnet", "InternalNetwork", "name", HK_INTNET },
	{ "hostonly", "HostOnlyInterface", "name", HK_HOSTONLYADAPTER },
	{ "natnetwork", "NATNetwork", "name", HK_NATNETWORK },
	{ "generic", "GenericInterface", "driver", HK_NICGENERICDRV }, { "null", NULL, NULL, -1 } };

/* ---- notes ---- */

void
notes_add(struct ovf_notes *n, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	str_addf(&n->text, "%s%s", n->text.len ? "; " : "", text);
	free(text);
}

void
notes_set(struct ovf_notes *n, struct host *h, struct host_vm *vm, enum host_key key, int slot, const char *value)
{
	const struct host_setting *s = host_setting(key);
	enum host_check check = host_setting_check(key, slot, value, NULL);
	struct host_change c = { key, slot, value };

	if (check == HOST_VALUE_OK && !vm_apply(h, vm, &c, NULL))
		return;
	if (s->slots > 1)
		notes_add(n, "%s%d=%.60s", s->name, slot + 1, value);
	else
		notes_add(n, "%s=%.60s", s->name, value);
}

/* ---- reading ---- */

static const struct xml *
descend(const struct xml *x, const char *path)
{
	char part[40];

	while (x && *path) {
		size_t n = strcspn(path, "/");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		x = xml_child(x, part);
		path += n + (path[n] == '/');
	}
	return x;
}

static bool
is_true(const char *value)
{
	return value && (!strcasecmp(value, "true") || !strcmp(value, "1"));
}

static char *
from_form(enum form form, const char *value)
{
	char *v;

	switch (form) {
	case TRUTH:
		return xstrdup(is_true(value) ? "on" : "off");
	case UTC:
		return xstrdup(!strcasecmp(value, "UTC") ? "on" : "off");
	case POINTER:
	case KEYBOARD:
		v = xstrlower(value);
		if (str_ends(v, form == POINTER ? "mouse" : "keyboard"))
			v[strlen(v) - (form == POINTER ? 5 : 8)] = 0;
		return v;
	default:
		return xstrdup(value);
	}
}

static void
read_boot(struct host *h, struct host_vm *vm, const struct xml *hw, struct ovf_notes *notes)
{
	const struct xml *boot = xml_child(hw, "Boot");

	for (const struct xml *x = xml_child(boot, "Order"); x; x = xml_again(x)) {
		const char *position = xml_attr(x, "position"), *device = xml_attr(x, "device");
		uint64_t n;

		if (!position || !device || !str_to_u64(position, 1, HOST_BOOTS, &n))
			continue;
		for (size_t i = 0; i < ARRAY_LEN(devices); i++)
			if (!strcasecmp(devices[i][1], device))
				notes_set(notes, h, vm, HK_BOOT, (int)n - 1, devices[i][0]);
	}
}

/* The port is there; where its other end was, was on another host. */
static void
read_uarts(struct host *h, struct host_vm *vm, const struct xml *hw, struct ovf_notes *notes)
{
	for (const struct xml *x = xml_child(xml_child(hw, "UART"), "Port"); x; x = xml_again(x)) {
		const char *slot = xml_attr(x, "slot"), *base = xml_attr(x, "IOBase"), *irq = xml_attr(x, "IRQ");
		const char *mode = xml_attr(x, "hostMode");
		char *value;
		uint64_t n;

		if (!slot || !str_to_u64(slot, 0, HOST_UARTS - 1, &n) || !is_true(xml_attr(x, "enabled")) || !base ||
			!irq)
			continue;
		value = xasprintf("%.10s %.10s", base, irq);
		notes_set(notes, h, vm, HK_UART, (int)n, value);
		free(value);
		if (mode && strcasecmp(mode, "Disconnected"))
			notes_add(notes, "uartmode%d=%.20s,%.200s", (int)n + 1, mode,
				xml_attr(x, "path") ? xml_attr(x, "path") : "");
	}
}

static void
read_forwards(struct host_vm *vm, int slot, const struct xml *nat, struct ovf_notes *notes)
{
	for (const struct xml *x = xml_child(nat, "Forwarding"); x; x = xml_again(x)) {
		const char *name = xml_attr(x, "name"), *proto = xml_attr(x, "proto"), *hip = xml_attr(x, "hostip");
		const char *hport = xml_attr(x, "hostport"), *gip = xml_attr(x, "guestip");
		const char *gport = xml_attr(x, "guestport");
		char *text = xasprintf("%.200s,%s,%.60s,%.10s,%.60s,%.10s", name ? name : "",
			proto && (!strcmp(proto, "0") || !strcasecmp(proto, "udp")) ? "udp" : "tcp", hip ? hip : "",
			hport ? hport : "", gip ? gip : "", gport ? gport : "");
		struct nat_rule rule;

		if (vm_rule_parse(text, &rule, NULL) || vm_rule_add(vm, slot, &rule, NULL))
			notes_add(notes, "natpf%d=%.100s", slot + 1, text);
		free(text);
	}
}

static void
read_attachment(struct host *h, struct host_vm *vm, int slot, const struct xml *x, struct ovf_notes *notes)
{
	const struct xml *to = NULL;
	const struct attachment *a = attachments;
	const char *name;

	while (a->element && !(to = xml_child(x, a->element)))
		a++;
	notes_set(notes, h, vm, HK_NIC, slot, a->nic);
	name = a->attribute ? xml_attr(to, a->attribute) : NULL;
	if (name && *name)
		notes_set(notes, h, vm, (enum host_key)a->key, slot, name);
	if (!strcmp(a->nic, "nat")) {
		read_forwards(vm, slot, to, notes);
		if ((name = xml_attr(to, "network")) && *name)
			notes_set(notes, h, vm, HK_NATNET, slot, name);
	}
	for (const struct xml *p = xml_child(to, "Property"); p && !strcmp(a->nic, "generic"); p = xml_again(p))
		if (xml_attr(p, "name") && xml_attr(p, "value")) {
			char *pair = xasprintf("%.200s=%.500s", xml_attr(p, "name"), xml_attr(p, "value"));

			vm_apply(h, vm, &(struct host_change){ HK_NICPROPERTY_SET, slot, pair }, NULL);
			free(pair);
		}
}

static void
read_adapter(struct host *h, struct host_vm *vm, const struct xml *x, struct ovf_notes *notes)
{
	const char *slot_text = xml_attr(x, "slot"), *v;
	uint64_t slot;

	if (!slot_text || !str_to_u64(slot_text, 0, HOST_NICS - 1, &slot) || !is_true(xml_attr(x, "enabled")))
		return;
	read_attachment(h, vm, (int)slot, x, notes);
	if ((v = xml_attr(x, "type")))
		notes_set(notes, h, vm, HK_NICTYPE, (int)slot, v);
	if ((v = xml_attr(x, "cable")))
		notes_set(notes, h, vm, HK_CABLECONNECTED, (int)slot, is_true(v) ? "on" : "off");
	if ((v = xml_attr(x, "promiscuousModePolicy")))
		notes_set(notes, h, vm, HK_NICPROMISC, (int)slot,
			!strcmp(v, "AllowAll")	     ? "allow-all"
			: !strcmp(v, "AllowNetwork") ? "allow-vms"
						     : "deny");
}

static void
read_folders(const struct xml *hw, struct ovf_notes *notes)
{
	const struct xml *folders = xml_child(hw, "SharedFolders");

	for (const struct xml *x = xml_child(folders, "SharedFolder"); x; x = xml_again(x))
		notes_add(notes, "shared folder '%.100s'", xml_attr(x, "name") ? xml_attr(x, "name") : "");
}

void
machine_read_settings(struct host *h, struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes)
{
	const struct xml *hw = xml_child(machine, "Hardware");
	char *description = xml_child_text(machine, "Description");

	if (description)
		notes_set(notes, h, vm, HK_DESCRIPTION, 0, description);
	free(description);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *v = xml_attr(descend(hw, rows[i].element), rows[i].attribute);
		char *value = v ? from_form(rows[i].form, v) : NULL;

		if (value)
			notes_set(notes, h, vm, rows[i].key, 0, value);
		free(value);
	}
	read_boot(h, vm, hw, notes);
	read_uarts(h, vm, hw, notes);
	if (xml_child(hw, "Network"))
		vm_set(vm, HK_NIC, 0, "none");
	for (const struct xml *x = xml_child(xml_child(hw, "Network"), "Adapter"); x; x = xml_again(x))
		read_adapter(h, vm, x, notes);
	read_folders(hw, notes);
	for (const struct xml *x = xml_child(descend(hw, "USB/Controllers"), "Controller"); x; x = xml_again(x))
		if (xml_attr(x, "type"))
			notes_set(notes, h, vm,
				!strcasecmp(xml_attr(x, "type"), "EHCI")   ? HK_USBEHCI
				: !strcasecmp(xml_attr(x, "type"), "XHCI") ? HK_USBXHCI
									   : HK_USBOHCI,
				0, "on");
}

void
machine_read_macs(struct host_vm *vm, const struct xml *machine, bool nat_only)
{
	const struct xml *network = xml_child(xml_child(machine, "Hardware"), "Network");

	for (const struct xml *x = xml_child(network, "Adapter"); x; x = xml_again(x)) {
		const char *slot_text = xml_attr(x, "slot"), *mac = xml_attr(x, "MACAddress");
		char *normal;
		uint64_t slot;

		if (!slot_text || !mac || !str_to_u64(slot_text, 0, HOST_NICS - 1, &slot) ||
			(nat_only && strcmp(host_vm_get(vm, HK_NIC, (int)slot), "nat")))
			continue;
		normal = setting_normal(HK_MACADDRESS, (int)slot, mac, NULL);
		if (normal)
			vm_set(vm, HK_MACADDRESS, (int)slot, normal);
		free(normal);
	}
}

/* ---- controllers ---- */

static const struct {
	const char *type; /* as <StorageController> spells it */
	enum host_bus bus;
	const char *ours;
} controller_types[] = { { "AHCI", HOST_SATA, "IntelAhci" }, { "PIIX3", HOST_IDE, "PIIX3" },
	{ "PIIX4", HOST_IDE, "PIIX4" }, { "ICH6", HOST_IDE, "ICH6" }, { "LsiLogic", HOST_SCSI, "LsiLogic" },
	{ "BusLogic", HOST_SCSI, "LsiLogic" }, { "LsiLogicSas", HOST_SAS, "LsiLogicSas" },
	{ "I82078", HOST_FLOPPY_BUS, "I82078" }, { "NVMe", HOST_NVME, "NVMe" },
	{ "VirtioSCSI", HOST_VIRTIO_SCSI, "VirtioSCSI" }, { "VirtioBlk", HOST_VIRTIO_BLK, "VirtioBlk" } };

static bool
has_bus(const struct host_vm *vm, enum host_bus bus)
{
	for (int i = 0; i < vm->ctl_count; i++)
		if (vm->ctl[i].bus == bus)
			return true;
	return false;
}

static void
read_drives(struct host_controller *c, const struct xml *x, struct ovf_notes *notes)
{
	for (const struct xml *d = xml_child(x, "AttachedDevice"); d; d = xml_again(d)) {
		const char *type = xml_attr(d, "type"), *port = xml_attr(d, "port"), *device = xml_attr(d, "device");
		struct host_attachment *a;
		uint64_t p, n;

		if (!type || !port || !device || !strcasecmp(type, "HardDisk") ||
			!str_to_u64(port, 0, (uint64_t)c->max_ports - 1, &p) ||
			!str_to_u64(device, 0, (uint64_t)c->devices_per_port - 1, &n) ||
			host_vm_attachment(c, (int)p, (int)n))
			continue;
		if ((c->bus == HOST_FLOPPY_BUS) != !strcasecmp(type, "Floppy") || c->bus == HOST_VIRTIO_BLK ||
			c->bus == HOST_NVME) {
			notes_add(notes, "a drive of the controller '%.60s'", c->name);
			continue;
		}
		a = vm_attachment_add(c, (int)p, (int)n);
		a->type = c->bus == HOST_FLOPPY_BUS ? HOST_FLOPPY : HOST_DVD;
		a->tempeject = is_true(xml_attr(d, "tempeject"));
		c->ports = MAX(c->ports, (int)p + 1);
	}
}

static void
read_controller(struct host_vm *vm, const struct xml *x, struct ovf_notes *notes)
{
	const char *name = xml_attr(x, "name"), *type = xml_attr(x, "type"), *ports = xml_attr(x, "PortCount");
	const char *bootable = xml_attr(x, "Bootable");
	const struct bus_row *row;
	struct host_controller *c;
	size_t i = 0;
	uint64_t n;

	while (type && i < ARRAY_LEN(controller_types) && strcasecmp(controller_types[i].type, type))
		i++;
	if (!name || !*name || strlen(name) > 250 || !type || i == ARRAY_LEN(controller_types) ||
		has_bus(vm, controller_types[i].bus) || vm_controller(vm, name)) {
		notes_add(notes, "controller '%.60s'", name ? name : "");
		return;
	}
	row = bus_of(controller_types[i].bus);
	c = vm_controller_add(vm, name);
	c->bus = row->bus;
	c->type = controller_type(row, controller_types[i].ours);
	c->max_ports = row->max_ports;
	c->devices_per_port = row->devices;
	c->ports = ports && str_to_u64(ports, (uint64_t)row->min_ports, (uint64_t)row->max_ports, &n) ? (int)n
												      : row->ports;
	c->bootable = !bootable || is_true(bootable);
	c->hostiocache = is_true(xml_attr(x, "useHostIOCache"));
	read_drives(c, x, notes);
}

/* In older exports they stand beside <Hardware>, in newer ones below it. */
static const struct xml *
storage_of(const struct xml *machine)
{
	const struct xml *s = xml_child(machine, "StorageControllers");

	return s ? s : xml_child(xml_child(machine, "Hardware"), "StorageControllers");
}

void
machine_read_controllers(struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes)
{
	const struct xml *storage = storage_of(machine);

	for (const struct xml *x = xml_child(storage, "StorageController"); x; x = xml_again(x))
		read_controller(vm, x, notes);
}

static bool
same_uuid(const char *a, const char *b)
{
	struct uuid x, y;

	return a && b && uuid_parse(a, &x) && uuid_parse(b, &y) && !memcmp(&x, &y, sizeof(x));
}

bool
machine_find_disk(const struct xml *machine, const char *uuid, const char **controller, int *port, int *device)
{
	const struct xml *storage = storage_of(machine);

	for (const struct xml *x = xml_child(storage, "StorageController"); x; x = xml_again(x))
		for (const struct xml *d = xml_child(x, "AttachedDevice"); d; d = xml_again(d)) {
			const char *p = xml_attr(d, "port"), *n = xml_attr(d, "device");
			uint64_t port64, device64;

			if (!same_uuid(uuid, xml_attr(xml_child(d, "Image"), "uuid")) || !p || !n ||
				!str_to_u64(p, 0, 255, &port64) || !str_to_u64(n, 0, 255, &device64))
				continue;
			*controller = xml_attr(x, "name");
			*port = (int)port64;
			*device = (int)device64;
			return *controller;
		}
	return false;
}

/* ---- extra data, guest properties ---- */

/* Keys that change what programs of this host do are not for strangers to set. */
static int
read_extra(struct host *h, const struct host_vm *vm, const struct xml *x, struct ovf_notes *notes, struct err *e)
{
	const char *name = xml_attr(x, "name"), *value = xml_attr(x, "value");

	if (!name || !*name || !value || strlen(name) > 255 || strlen(value) > 16384)
		return 0;
	if (str_starts(name, "VBoxInternal") || str_starts(name, "Lodge/")) {
		notes_add(notes, "extra data '%.100s'", name);
		return 0;
	}
	return db_run(h, e, "INSERT OR REPLACE INTO extra VALUES(?, ?, ?)", "lss", vm_row(h, vm->uuid), name, value);
}

static int
read_property(struct host *h, const struct host_vm *vm, const struct xml *x, struct err *e)
{
	const char *name = xml_attr(x, "name"), *value = xml_attr(x, "value"), *flags = xml_attr(x, "flags");
	char words[PROP_FLAGS_SIZE];
	unsigned bits = 0;

	/* Those that cannot be here are not worth a machine. */
	if (!name || !value || !prop_name_ok(name) || strlen(value) > PROP_VALUE_MAX || !prop_value_ok(value))
		return 0;
	if (!flags || !prop_flags_parse(flags, &bits))
		bits = 0;
	prop_flags_text(bits, words);
	return db_run(h, e, "INSERT OR REPLACE INTO guestprop VALUES(?, ?, ?, ?, ?)", "lssls", vm_row(h, vm->uuid),
		name, value, now_ns(), words);
}

int
machine_read_pairs(
	struct host *h, const struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes, struct err *e)
{
	const struct xml *extra = xml_child(machine, "ExtraData");
	const struct xml *properties = xml_child(xml_child(machine, "Hardware"), "GuestProperties");

	for (const struct xml *x = xml_child(extra, "ExtraDataItem"); x; x = xml_again(x))
		if (read_extra(h, vm, x, notes, e))
			return -1;
	for (const struct xml *x = xml_child(properties, "GuestProperty"); x; x = xml_again(x))
		if (read_property(h, vm, x, e))
			return -1;
	return 0;
}

/* ---- writing ---- */

static void
add_attr(struct str *out, const char *name, const char *value)
{
	str_addf(out, " %s=\"", name);
	xml_escape(out, value);
	str_add(out, "\"");
}

static char *
to_form(enum form form, const char *value)
{
	char *v;

	switch (form) {
	case TRUTH:
		return xstrdup(!strcmp(value, "on") ? "true" : "false");
	case UTC:
		return xstrdup(!strcmp(value, "on") ? "UTC" : "local");
	case FIRMWARE:
	case UPPER:
		return xstrupper(value);
	case SCREEN:
		v = xstrupper(value);
		if (str_starts(v, "VBOX"))
			memcpy(v, "VBox", 4);
		return v;
	case POINTER:
		return xstrdup(!strcmp(value, "ps2")	     ? "PS2Mouse"
			       : !strcmp(value, "usbtablet") ? "USBTablet"
							     : "USBMouse");
	case KEYBOARD:
		return xstrdup(!strcmp(value, "ps2") ? "PS2Keyboard" : "USBKeyboard");
	case MENU:
		return xstrdup(!strcmp(value, "disabled")   ? "Disabled"
			       : !strcmp(value, "menuonly") ? "MenuOnly"
							    : "MessageAndMenu");
	default:
		v = xstrdup(value);
		*v = (char)toupper((unsigned char)*v);
		return v;
	}
}

/* The element and its attributes; one of its parent too where it has one ("BIOS/TimeOffset"). */
static void
write_rows(struct str *out, const struct host_vm *vm, const char *element)
{
	const char *slash = strchr(element, '/');

	str_addf(out, "<%s", slash ? slash + 1 : element);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *v;

		if (strcmp(rows[i].element, element))
			continue;
		v = to_form(rows[i].form, host_vm_get(vm, rows[i].key, 0));
		add_attr(out, rows[i].attribute, v);
		free(v);
	}
	str_add(out, "/>\n");
}

static void
write_cpu_and_memory(struct str *out, const struct host_vm *vm)
{
	str_addf(out, "        <CPU count=\"%s\" hotplug=\"%s\">\n", host_vm_get(vm, HK_CPUS, 0),
		host_vm_on(vm, HK_CPUHOTPLUG, 0) ? "true" : "false");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (str_starts(rows[i].element, "CPU/")) {
			str_add(out, "          ");
			write_rows(out, vm, rows[i].element);
		}
	str_addf(out, "        </CPU>\n        <Memory RAMSize=\"%s\"/>\n", host_vm_get(vm, HK_MEMORY, 0));
}

static void
write_boot(struct str *out, const struct host_vm *vm)
{
	str_add(out, "        <Boot>\n");
	for (int i = 0; i < HOST_BOOTS; i++)
		for (size_t k = 0; k < ARRAY_LEN(devices); k++)
			if (!strcmp(devices[k][0], host_vm_get(vm, HK_BOOT, i)))
				str_addf(out, "          <Order position=\"%d\" device=\"%s\"/>\n", i + 1,
					devices[k][1]);
	str_add(out, "        </Boot>\n");
}

static void
write_bios(struct str *out, const struct host_vm *vm)
{
	str_add(out, "        <BIOS>\n          ");
	write_rows(out, vm, "BIOS/IOAPIC");
	str_add(out, "          ");
	write_rows(out, vm, "BIOS/BootMenu");
	str_add(out, "          ");
	write_rows(out, vm, "BIOS/TimeOffset");
	str_add(out, "        </BIOS>\n");
}

static void
write_nat(struct str *out, const struct host_vm *vm, int slot)
{
	str_add(out, "            <NAT");
	if (strcmp(host_vm_get(vm, HK_NATNET, slot), "nat"))
		add_attr(out, "network", host_vm_get(vm, HK_NATNET, slot));
	if (!vm->rule_count[slot]) {
		str_add(out, "/>\n");
		return;
	}
	str_add(out, ">\n");
	for (int i = 0; i < vm->rule_count[slot]; i++) {
		const struct nat_rule *r = &vm->rules[slot][i];
		char *text = vm_rule_text(r), *rest = text, *field[6] = { 0 };

		for (int k = 0; k < 6; k++)
			field[k] = strsep(&rest, ",");
		str_add(out, "              <Forwarding");
		add_attr(out, "name", field[0]);
		str_addf(out, " proto=\"%d\"", r->udp ? 0 : 1);
		if (field[2] && *field[2])
			add_attr(out, "hostip", field[2]);
		str_addf(out, " hostport=\"%u\"", r->host_port);
		if (field[4] && *field[4])
			add_attr(out, "guestip", field[4]);
		str_addf(out, " guestport=\"%u\"/>\n", r->guest_port);
		free(text);
	}
	str_add(out, "            </NAT>\n");
}

static void
write_attachment(struct str *out, const struct host_vm *vm, int slot)
{
	const char *nic = host_vm_get(vm, HK_NIC, slot);

	if (!strcmp(nic, "nat")) {
		write_nat(out, vm, slot);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(attachments); i++)
		if (!strcmp(nic, attachments[i].nic) && attachments[i].attribute) {
			str_addf(out, "            <%s", attachments[i].element);
			add_attr(out, attachments[i].attribute,
				host_vm_get(vm, (enum host_key)attachments[i].key, slot));
			str_add(out, "/>\n");
		}
}

static void
write_network(struct str *out, const struct host_vm *vm, bool macs, bool nat_macs)
{
	str_add(out, "        <Network>\n");
	for (int i = 0; i < HOST_NICS; i++) {
		const char *nic = host_vm_get(vm, HK_NIC, i), *policy = host_vm_get(vm, HK_NICPROMISC, i);

		if (!strcmp(nic, "none"))
			continue;
		str_addf(out, "          <Adapter slot=\"%d\" enabled=\"true\"", i);
		if (macs || (nat_macs && !strcmp(nic, "nat")))
			add_attr(out, "MACAddress", host_vm_get(vm, HK_MACADDRESS, i));
		if (strcmp(policy, "deny"))
			add_attr(out, "promiscuousModePolicy",
				!strcmp(policy, "allow-all") ? "AllowAll" : "AllowNetwork");
		str_addf(out, " cable=\"%s\"", host_vm_on(vm, HK_CABLECONNECTED, i) ? "true" : "false");
		add_attr(out, "type", host_vm_get(vm, HK_NICTYPE, i));
		str_add(out, ">\n");
		write_attachment(out, vm, i);
		str_add(out, "          </Adapter>\n");
	}
	str_add(out, "        </Network>\n");
}

static void
write_uarts(struct str *out, const struct host_vm *vm)
{
	bool any = false;

	for (int i = 0; i < HOST_UARTS; i++) {
		const char *v = host_vm_get(vm, HK_UART, i), *comma = strchr(v, ',');

		if (!comma)
			continue;
		str_addf(out,
			"%s          <Port slot=\"%d\" enabled=\"true\" IOBase=\"%.*s\" IRQ=\"%s\" "
			"hostMode=\"Disconnected\"/>\n",
			any ? "" : "        <UART>\n", i, (int)(comma - v), v, comma + 1);
		any = true;
	}
	str_add(out, any ? "        </UART>\n" : "");
}

static int
write_property(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct str *out = opaque;

	/* What a guest says of itself while it runs does not travel. */
	if (flags && strcasestr(flags, "TRANS"))
		return 0;
	str_add(out, "          <GuestProperty");
	add_attr(out, "name", name);
	add_attr(out, "value", value);
	str_addf(out, " timestamp=\"%lld\"", (long long)time_ns);
	add_attr(out, "flags", flags ? flags : "");
	str_add(out, "/>\n");
	return 0;
}

static int
write_extra(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	struct str *out = opaque;

	str_add(out, "        <ExtraDataItem");
	add_attr(out, "name", key);
	add_attr(out, "value", value);
	str_add(out, "/>\n");
	return 0;
}

static const char *
type_word(const struct host_controller *c)
{
	for (size_t i = 0; i < ARRAY_LEN(controller_types); i++)
		if (!strcmp(controller_types[i].ours, c->type))
			return controller_types[i].type;
	return c->type;
}

static void
write_drive(struct str *out, const struct host_attachment *a, const char *uuid)
{
	static const char *const types[] = { [HOST_DISK] = "HardDisk", [HOST_DVD] = "DVD", [HOST_FLOPPY] = "Floppy" };

	if (a->type == HOST_DISK && !uuid)
		return;
	str_addf(out, "            <AttachedDevice%s type=\"%s\" hotpluggable=\"%s\" port=\"%d\" device=\"%d\"",
		a->type == HOST_DVD ? " passthrough=\"false\"" : "", types[a->type], a->hotpluggable ? "true" : "false",
		a->port, a->device);
	if (uuid)
		str_addf(out, ">\n              <Image uuid=\"{%s}\"/>\n            </AttachedDevice>\n", uuid);
	else
		str_add(out, "/>\n");
}

void
machine_write(struct host *h, struct str *out, const struct host_vm *vm, bool macs, bool nat_macs,
	const char *(*disk_uuid)(void *opaque, const struct host_attachment *a), void *opaque)
{
	struct str pairs = { 0 };

	str_addf(out, "    <vbox:Machine ovf:required=\"false\" version=\"1.16-linux\" uuid=\"{%s}\"", vm->uuid);
	add_attr(out, "name", vm->name);
	add_attr(out, "OSType", host_vm_get(vm, HK_OSTYPE, 0));
	str_add(out, ">\n      <ovf:Info>Complete VirtualBox machine configuration in VirtualBox format</ovf:Info>\n");
	host_extra_each(h, vm->uuid, write_extra, &pairs, NULL);
	if (pairs.len)
		str_addf(out, "      <ExtraData>\n%s      </ExtraData>\n", pairs.s);
	str_free(&pairs);
	if (*host_vm_get(vm, HK_DESCRIPTION, 0)) {
		str_add(out, "      <Description>");
		xml_escape(out, host_vm_get(vm, HK_DESCRIPTION, 0));
		str_add(out, "</Description>\n");
	}
	str_add(out, "      <Hardware>\n");
	write_cpu_and_memory(out, vm);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (strchr(rows[i].element, '/') || !strcmp(rows[i].element, "CPU") ||
			(i && !strcmp(rows[i].element, rows[i - 1].element)))
			continue;
		str_add(out, "        ");
		write_rows(out, vm, rows[i].element);
	}
	write_boot(out, vm);
	write_bios(out, vm);
	write_network(out, vm, macs, nat_macs);
	write_uarts(out, vm);
	pairs = (struct str){ 0 };
	host_guestprop_each(h, vm->uuid, NULL, write_property, &pairs, NULL);
	if (pairs.len)
		str_addf(out, "        <GuestProperties>\n%s        </GuestProperties>\n", pairs.s);
	str_free(&pairs);
	str_add(out, "      </Hardware>\n      <StorageControllers>\n");
	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		str_add(out, "        <StorageController");
		add_attr(out, "name", c->name);
		str_addf(out, " type=\"%s\" PortCount=\"%d\" useHostIOCache=\"%s\" Bootable=\"%s\">\n", type_word(c),
			c->ports, c->hostiocache ? "true" : "false", c->bootable ? "true" : "false");
		for (int k = 0; k < c->at_count; k++)
			write_drive(out, &c->at[k], disk_uuid(opaque, &c->at[k]));
		str_add(out, "        </StorageController>\n");
	}
	str_add(out, "      </StorageControllers>\n    </vbox:Machine>\n");
}
