/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modifyvm: one table of all option spellings. Most name a setting of host/ and carry one value; the few that take two,
 * or mean something else, have a case of their own. All of the line is one change: it is made whole or not at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

/* Options that are not simply "setting = value"; the others have their enum host_key as id. */
enum {
	M_NAME = HK_COUNT + 100,
	M_NATPF,
	M_UART,
	M_UARTMODE,
	M_LPT,
	M_LPTMODE,
	M_AUDIO,
	M_USB,
	M_VRDEPROPERTY,
	M_NICPROPERTY,
	M_VRDP_ON,
	M_VRDP_PORT,
	M_VRDP_ADDRESS,
	M_VRDP_AUTHTYPE,
	M_VRDP_MULTICON,
	M_REFUSED,
	M_REFUSED_FLAG,
};

/* clang-format off */
static const struct opt options[] = {
	{ "name", M_NAME, OPT_TEXT, 0, 0 },
	{ "groups", HK_GROUPS, OPT_TEXT, 0, 0 },
	{ "description", HK_DESCRIPTION, OPT_TEXT, 0, 0 },
	{ "os-type", HK_OSTYPE, OPT_TEXT, 0, 0 },
	{ "memory", HK_MEMORY, OPT_TEXT, 0, 0 },
	{ "page-fusion", HK_PAGEFUSION, OPT_TEXT, 0, 0 },
	{ "vram", HK_VRAM, OPT_TEXT, 0, 0 },
	{ "firmware", HK_FIRMWARE, OPT_TEXT, 0, 0 },
	{ "chipset", HK_CHIPSET, OPT_TEXT, 0, 0 },
	{ "acpi", HK_ACPI, OPT_TEXT, 0, 0 },
	{ "ioapic", HK_IOAPIC, OPT_TEXT, 0, 0 },
	{ "pae", HK_PAE, OPT_TEXT, 0, 0 },
	{ "long-mode", HK_LONGMODE, OPT_TEXT, 0, 0 },
	{ "cpuid-portability-level", HK_CPUIDPORTABILITY, OPT_TEXT, 0, 0 },
	{ "apic", HK_APIC, OPT_TEXT, 0, 0 },
	{ "x2apic", HK_X2APIC, OPT_TEXT, 0, 0 },
	{ "hpet", HK_HPET, OPT_TEXT, 0, 0 },
	{ "hwvirtex", HK_HWVIRTEX, OPT_TEXT, 0, 0 },
	{ "nested-paging", HK_NESTEDPAGING, OPT_TEXT, 0, 0 },
	{ "large-pages", HK_LARGEPAGES, OPT_TEXT, 0, 0 },
	{ "vtx-vpid", HK_VTXVPID, OPT_TEXT, 0, 0 },
	{ "vtx-ux", HK_VTXUX, OPT_TEXT, 0, 0 },
	{ "virt-vmsave-vmload", HK_VIRTVMSAVE, OPT_TEXT, 0, 0 },
	{ "nested-hw-virt", HK_NESTEDHWVIRT, OPT_TEXT, 0, 0 },
	{ "paravirt-provider", HK_PARAVIRTPROVIDER, OPT_TEXT, 0, 0 },
	{ "paravirt-debug", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "cpus", HK_CPUS, OPT_TEXT, 0, 0 },
	{ "cpu-hotplug", HK_CPUHOTPLUG, OPT_TEXT, 0, 0 },
	{ "cpu-execution-cap", HK_CPUEXECUTIONCAP, OPT_TEXT, 0, 0 },
	{ "cpu-profile", HK_CPUPROFILE, OPT_TEXT, 0, 0 },
	{ "plug-cpu", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "unplug-cpu", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "cpuid-set", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "cpuid-remove", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "cpuid-remove-all", M_REFUSED_FLAG, OPT_FLAG, 0, 0 },
	{ "spec-ctrl", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "ibpb-on-vm-exit", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "ibpb-on-vm-entry", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "l1d-flush-on-sched", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "l1d-flush-on-vm-entry", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "mds-clear-on-sched", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "mds-clear-on-vm-entry", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "triple-fault-reset", HK_TRIPLEFAULTRESET, OPT_TEXT, 0, 0 },
	{ "iommu", HK_IOMMU, OPT_TEXT, 0, 0 },
	{ "rtc-use-utc", HK_RTCUSEUTC, OPT_TEXT, 0, 0 },
	{ "graphicscontroller", HK_GRAPHICSCONTROLLER, OPT_TEXT, 0, 0 },
	{ "monitor-count", HK_MONITORCOUNT, OPT_TEXT, 0, 0 },
	{ "accelerate-3d", HK_ACCELERATE3D, OPT_TEXT, 0, 0 },
	{ "accelerate-2d-video", HK_ACCELERATE2DVIDEO, OPT_TEXT, 0, 0 },
	{ "bios-logo-fade-in", HK_BIOSLOGOFADEIN, OPT_TEXT, 0, 0 },
	{ "bios-logo-fade-out", HK_BIOSLOGOFADEOUT, OPT_TEXT, 0, 0 },
	{ "bios-logo-display-time", HK_BIOSLOGODISPLAYTIME, OPT_TEXT, 0, 0 },
	{ "bios-logo-image-path", HK_BIOSLOGOIMAGEPATH, OPT_TEXT, 0, 0 },
	{ "bios-boot-menu", HK_BIOSBOOTMENU, OPT_TEXT, 0, 0 },
	{ "bios-apic", HK_BIOSAPIC, OPT_TEXT, 0, 0 },
	{ "bios-system-time-offset", HK_BIOSSYSTEMTIMEOFFSET, OPT_TEXT, 0, 0 },
	{ "bios-pxe-debug", HK_BIOSPXEDEBUG, OPT_TEXT, 0, 0 },
	{ "system-uuid-le", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "boot", HK_BOOT, OPT_TEXT, 0, HOST_BOOTS },
	{ "hda", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "hdb", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "hdc", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "hdd", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "dvd", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "floppy", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "sata", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "sataport", M_REFUSED, OPT_TEXT, 0, 30 },
	{ "idecontroller", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "scsi", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "scsitype", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "synthcpu", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "nic", HK_NIC, OPT_TEXT, 0, HOST_NICS },
	{ "nic-type", HK_NICTYPE, OPT_TEXT, 0, HOST_NICS },
	{ "nic-speed", HK_NICSPEED, OPT_TEXT, 0, HOST_NICS },
	{ "nic-promisc", HK_NICPROMISC, OPT_TEXT, 0, HOST_NICS },
	{ "nic-boot-prio", HK_NICBOOTPRIO, OPT_TEXT, 0, HOST_NICS },
	{ "nic-trace", HK_NICTRACE, OPT_TEXT, 0, HOST_NICS },
	{ "nic-trace-file", HK_NICTRACEFILE, OPT_TEXT, 0, HOST_NICS },
	{ "nic-property", M_NICPROPERTY, OPT_TEXT, 0, HOST_NICS },
	{ "nic-bandwidth-group", HK_NICBANDWIDTHGROUP, OPT_TEXT, 0, HOST_NICS },
	{ "cable-connected", HK_CABLECONNECTED, OPT_TEXT, 0, HOST_NICS },
	{ "bridge-adapter", HK_BRIDGEADAPTER, OPT_TEXT, 0, HOST_NICS },
	{ "host-only-adapter", HK_HOSTONLYADAPTER, OPT_TEXT, 0, HOST_NICS },
	{ "host-only-net", HK_HOSTONLYNET, OPT_TEXT, 0, HOST_NICS },
	{ "intnet", HK_INTNET, OPT_TEXT, 0, HOST_NICS },
	{ "cloud-network", M_REFUSED, OPT_TEXT, 0, HOST_NICS },
	{ "nat-network", HK_NATNETWORK, OPT_TEXT, 0, HOST_NICS },
	{ "nic-generic-drv", HK_NICGENERICDRV, OPT_TEXT, 0, HOST_NICS },
	{ "mac-address", HK_MACADDRESS, OPT_TEXT, 0, HOST_NICS },
	{ "nat-net", HK_NATNET, OPT_TEXT, 0, HOST_NICS },
	{ "nat-pf", M_NATPF, OPT_TEXT, 0, HOST_NICS },
	{ "nat-alias-mode", HK_NATALIASMODE, OPT_TEXT, 0, HOST_NICS },
	{ "nat-tftp-prefix", HK_NATTFTPPREFIX, OPT_TEXT, 0, HOST_NICS },
	{ "nat-tftp-file", HK_NATTFTPFILE, OPT_TEXT, 0, HOST_NICS },
	{ "nat-tftp-server", HK_NATTFTPSERVER, OPT_TEXT, 0, HOST_NICS },
	{ "nat-bind-ip", HK_NATBINDIP, OPT_TEXT, 0, HOST_NICS },
	{ "nat-settings", HK_NATSETTINGS, OPT_TEXT, 0, HOST_NICS },
	{ "nat-dns-pass-domain", HK_NATDNSPASSDOMAIN, OPT_TEXT, 0, HOST_NICS },
	{ "nat-dns-proxy", HK_NATDNSPROXY, OPT_TEXT, 0, HOST_NICS },
	{ "nat-dns-host-resolver", HK_NATDNSHOSTRESOLVER, OPT_TEXT, 0, HOST_NICS },
	{ "nat-localhostreachable", HK_NATLOCALHOSTREACHABLE, OPT_TEXT, 0, HOST_NICS },
	{ "mouse", HK_MOUSE, OPT_TEXT, 0, 0 },
	{ "keyboard", HK_KEYBOARD, OPT_TEXT, 0, 0 },
	{ "uart", M_UART, OPT_TEXT, 0, HOST_UARTS },
	{ "uart-mode", M_UARTMODE, OPT_TEXT, 0, HOST_UARTS },
	{ "uart-type", HK_UARTTYPE, OPT_TEXT, 0, HOST_UARTS },
	{ "lpt", M_LPT, OPT_TEXT, 0, 2 },
	{ "lpt-mode", M_LPTMODE, OPT_TEXT, 0, 2 },
	{ "audio", M_AUDIO, OPT_TEXT, 0, 0 },
	{ "audio-driver", HK_AUDIO, OPT_TEXT, 0, 0 },
	{ "audio-enabled", HK_AUDIOENABLED, OPT_TEXT, 0, 0 },
	{ "audio-in", HK_AUDIOIN, OPT_TEXT, 0, 0 },
	{ "audio-out", HK_AUDIOOUT, OPT_TEXT, 0, 0 },
	{ "audio-controller", HK_AUDIOCONTROLLER, OPT_TEXT, 0, 0 },
	{ "audio-codec", HK_AUDIOCODEC, OPT_TEXT, 0, 0 },
	{ "clipboard", HK_CLIPBOARD, OPT_TEXT, 0, 0 },
	{ "clipboard-mode", HK_CLIPBOARD, OPT_TEXT, 0, 0 },
	{ "clipboard-file-transfers", HK_CLIPBOARDTRANSFERS, OPT_TEXT, 0, 0 },
	{ "drag-and-drop", HK_DRAGANDDROP, OPT_TEXT, 0, 0 },
	{ "vrde", HK_VRDE, OPT_TEXT, 0, 0 },
	{ "vrde-ext-pack", HK_VRDEEXTPACK, OPT_TEXT, 0, 0 },
	{ "vrde-property", M_VRDEPROPERTY, OPT_TEXT, 0, 0 },
	{ "vrde-port", HK_VRDEPORT, OPT_TEXT, 0, 0 },
	{ "vrde-address", HK_VRDEADDRESS, OPT_TEXT, 0, 0 },
	{ "vrde-auth-type", HK_VRDEAUTHTYPE, OPT_TEXT, 0, 0 },
	{ "vrde-auth-library", HK_VRDEAUTHLIBRARY, OPT_TEXT, 0, 0 },
	{ "vrde-multi-con", HK_VRDEMULTICON, OPT_TEXT, 0, 0 },
	{ "vrde-reuse-con", HK_VRDEREUSECON, OPT_TEXT, 0, 0 },
	{ "vrde-video-channel", HK_VRDEVIDEOCHANNEL, OPT_TEXT, 0, 0 },
	{ "vrde-video-channel-quality", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "vrdp", M_VRDP_ON, OPT_TEXT, 0, 0 },
	{ "vrdp-port", M_VRDP_PORT, OPT_TEXT, 0, 0 },
	{ "vrdp-address", M_VRDP_ADDRESS, OPT_TEXT, 0, 0 },
	{ "vrdp-auth-type", M_VRDP_AUTHTYPE, OPT_TEXT, 0, 0 },
	{ "vrdp-multi-con", M_VRDP_MULTICON, OPT_TEXT, 0, 0 },
	{ "usb", M_USB, OPT_TEXT, 0, 0 },
	{ "usb-ohci", HK_USBOHCI, OPT_TEXT, 0, 0 },
	{ "usb-ehci", HK_USBEHCI, OPT_TEXT, 0, 0 },
	{ "usb-xhci", HK_USBXHCI, OPT_TEXT, 0, 0 },
	{ "usb-rename", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "snapshot-folder", HK_SNAPSHOTFOLDER, OPT_TEXT, 0, 0 },
	{ "hardware-uuid", HK_HARDWAREUUID, OPT_TEXT, 0, 0 },
	{ "default-frontend", HK_DEFAULTFRONTEND, OPT_TEXT, 0, 0 },
	{ "tpm-type", HK_TPMTYPE, OPT_TEXT, 0, 0 },
	{ "tpm-location", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording", HK_RECORDING, OPT_TEXT, 0, 0 },
	{ "recording-screens", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-file", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-max-size", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-max-time", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-opts", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-video-fps", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-video-rate", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "recording-video-res", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocap", HK_RECORDING, OPT_TEXT, 0, 0 },
	{ "videocapscreens", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapfile", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapres", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocaprate", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapfps", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapmaxtime", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapmaxsize", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "videocapopts", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "autostart-enabled", HK_AUTOSTARTENABLED, OPT_TEXT, 0, 0 },
	{ "autostart-delay", HK_AUTOSTARTDELAY, OPT_TEXT, 0, 0 },
	{ "autostop-type", HK_AUTOSTOPTYPE, OPT_TEXT, 0, 0 },
	{ "guest-memory-balloon", HK_GUESTMEMORYBALLOON, OPT_TEXT, 0, 0 },
	{ "guest-debug-provider", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "guest-debug-io-provider", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "guest-debug-address", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "guest-debug-port", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "teleporter", HK_TELEPORTER, OPT_TEXT, 0, 0 },
	{ "teleporter-port", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "teleporter-address", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "teleporter-password", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "teleporter-password-file", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "fault-tolerance", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "vm-execution-engine", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "hwvirtex-excl", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "vm-process-priority", HK_VMPROCPRIORITY, OPT_TEXT, 0, 0 },
	{ "tracing-enabled", HK_TRACINGENABLED, OPT_TEXT, 0, 0 },
	{ "tracing-config", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "tracing-allow-vm-access", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "pci-attach", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "pci-detach", M_REFUSED, OPT_TEXT, 0, 0 },
	{ "usb-card-reader", M_REFUSED, OPT_TEXT, 0, 0 },
};
/* clang-format on */

static const struct site site = { "Machine", "LockMachine(a->session, LockType_Write)", 640, "VBoxManageModifyVM.cpp" };

/* The changes asked for so far. Values are copies. */
struct changes {
	struct host_change *list;
	size_t count;
};

static void
add_change(struct changes *all, enum host_key key, int slot, const char *value)
{
	all->list = realloc(all->list, (all->count + 1) * sizeof(*all->list));
	if (!all->list)
		abort();
	all->list[all->count++] = (struct host_change){ key, slot, xstrdup(value) };
}

static void
changes_free(struct changes *all)
{
	for (size_t i = 0; i < all->count; i++)
		free((char *)all->list[i].value);
	free(all->list);
}

/* How VirtualBox complains about a value that does not exist. */
static int
malformed(struct args *a, enum host_key key, int slot, const struct err *e)
{
	const struct host_setting *s = host_setting(key);
	struct err range = { .code = ERR_INVALID };
	uint64_t v;

	if (key == HK_NIC)
		return fail_plain(a->cli, "Invalid type '%s' specfied for NIC %d", a->text, slot + 1);
	if (key == HK_NICTYPE)
		return fail_plain(a->cli, "Invalid NIC type '%s' specified for NIC %d", a->text, slot + 1);
	if (key == HK_BOOT)
		return fail_argument(a->cli, "Invalid boot device '%s'", a->text);
	if (s->type == HT_ENUM)
		return fail_plain(a->cli, "Invalid --%s argument '%s'", s->name, a->text);
	if (s->type == HT_BOOL ||
		((s->type == HT_UINT || s->type == HT_INT) && !str_to_u64(a->text, 0, UINT64_MAX, &v)))
		return fail_syntax(a->cli, "Invalid value '%s' for option %s", a->text, a->spelled);
	if (key == HK_MEMORY || key == HK_VRAM)
		err_set(&range, ERR_INVALID, "Invalid %s size: %s MB (must be in range [%d, %d] MB)",
			key == HK_VRAM ? "VRAM" : "RAM", a->text, (int)s->min, (int)s->max);
	else if (key == HK_CPUS)
		err_set(&range, ERR_INVALID, "Invalid virtual CPU count: %s (must be in range [%d, %d])", a->text,
			(int)s->min, (int)s->max);
	else
		range = *e;
	return fail_api(a->cli, &range, &site);
}

static int
set(struct args *a, struct changes *all, enum host_key key, int slot, const char *value)
{
	struct err e = { 0 };

	a->text = value;
	switch (host_setting_check(key, slot, value, &e)) {
	case HOST_VALUE_MALFORMED:
		return malformed(a, key, slot, &e);
	case HOST_VALUE_UNSUPPORTED:
		return fail_api(a->cli, &e, &site);
	case HOST_VALUE_WITHOUT_EFFECT:
		warn(a->cli, "%s", e.text);
		add_change(all, key, slot, value);
		break;
	case HOST_VALUE_OK:
		add_change(all, key, slot, value);
	}
	return 0;
}

static int
option_natpf(struct args *a, struct changes *all)
{
	const char *name;

	if (strcmp(a->text, "delete")) {
		add_change(all, HK_NATPF_ADD, a->slot, a->text);
		return 0;
	}
	name = args_value(a);
	if (!name)
		return 2;
	add_change(all, HK_NATPF_DELETE, a->slot, name);
	return 0;
}

/* Two words as one value, "first second". */
static int
option_pair(struct args *a, struct changes *all, enum host_key key)
{
	const char *first = a->text, *second = args_value(a);
	char *value;
	int r;

	if (!second)
		return 2;
	value = xasprintf("%s %s", first, second);
	r = set(a, all, key, a->slot, value);
	free(value);
	return r;
}

static int
option_uartmode(struct args *a, struct changes *all)
{
	if (!strcmp(a->text, "disconnected") || a->text[0] == '/')
		return set(a, all, HK_UARTMODE, a->slot, a->text);
	return option_pair(a, all, HK_UARTMODE);
}

static int
option_vrdeproperty(struct args *a, struct changes *all)
{
	const char *equals = strchr(a->text, '=');
	size_t n = equals ? (size_t)(equals - a->text) : 0;

	if (!equals)
		return fail_argument(a->cli, "Invalid key=value pair '%s'", a->text);
	if (n == 9 && !memcmp(a->text, "TCP/Ports", n))
		return set(a, all, HK_VRDEPORT, 0, equals + 1);
	if (n == 11 && !memcmp(a->text, "TCP/Address", n))
		return set(a, all, HK_VRDEADDRESS, 0, equals + 1);
	if (n == 11 && !memcmp(a->text, "VNCPassword", n))
		return set(a, all, HK_VRDEPASSWORD, 0, equals + 1);
	return fail_plain(a->cli,
		"The VRDE property '%.*s' is not known here; TCP/Ports, TCP/Address and VNCPassword are", (int)n,
		a->text);
}

static int
option_vrdp(struct args *a, struct changes *all, int id)
{
	static const enum host_key keys[] = { HK_VRDE, HK_VRDEPORT, HK_VRDEADDRESS, HK_VRDEAUTHTYPE, HK_VRDEMULTICON };
	enum host_key key = keys[id - M_VRDP_ON];

	fprintf(stderr, "Warning: '%s' is deprecated. Use '--%s'.\n", a->spelled, host_setting(key)->name);
	return set(a, all, key, 0, a->text);
}

static int
option_special(struct args *a, struct changes *all, int id)
{
	switch (id) {
	case M_NAME:
		add_change(all, HK_NAME, 0, a->text);
		return 0;
	case M_NATPF:
		return option_natpf(a, all);
	case M_NICPROPERTY:
		if (!strchr(a->text, '='))
			return fail_argument(a->cli, "Invalid --nic-property%d argument '%s'", a->slot + 1, a->text);
		add_change(all, HK_NICPROPERTY_SET, a->slot, a->text);
		return 0;
	case M_UART:
		return strcmp(a->text, "off") ? option_pair(a, all, HK_UART) : set(a, all, HK_UART, a->slot, "off");
	case M_UARTMODE:
		return option_uartmode(a, all);
	case M_LPT:
		return strcmp(a->text, "off") ? option_pair(a, all, HK_LPT) : set(a, all, HK_LPT, a->slot, "off");
	case M_AUDIO:
		fprintf(stderr,
			"Warning: --audio is deprecated and will be removed soon. Use --audio-driver instead!\n");
		return set(a, all, HK_AUDIO, 0, a->text) ||
		       set(a, all, HK_AUDIOENABLED, 0, strcmp(a->text, "none") ? "on" : "off");
	case M_USB:
		if (strcmp(a->text, "on"))
			return set(a, all, HK_USBOHCI, 0, a->text);
		warn(a->cli, "The USB controller is an xHCI, for USB 1, 2 and 3: this is --usb-xhci on");
		return set(a, all, HK_USBXHCI, 0, a->text);
	case M_VRDEPROPERTY:
		return option_vrdeproperty(a, all);
	case M_VRDP_ON:
	case M_VRDP_PORT:
	case M_VRDP_ADDRESS:
	case M_VRDP_AUTHTYPE:
	case M_VRDP_MULTICON:
		return option_vrdp(a, all, id);
	default:
		return fail_plain(a->cli, "The option %s is not available here", a->spelled);
	}
}

/* Parse the whole line. 0, or the status to leave with. */
static int
parse(struct args *a, const char **vm, struct changes *all)
{
	int id, r;

	while ((id = args_next(a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD) {
			if (*vm)
				return fail_syntax(a->cli, "Invalid parameter '%s'", a->text);
			*vm = a->text;
			continue;
		}
		r = id < HK_COUNT ? set(a, all, (enum host_key)id, a->slot, a->text) : option_special(a, all, id);
		if (r)
			return r;
	}
	return *vm ? 0 : fail_syntax(a->cli, "Not enough parameters");
}

int
cmd_modifyvm(struct cli *c, int argc, char **argv)
{
	struct args a = ARGS(c, argc, argv, options);
	struct changes all = { 0 };
	const char *vm = NULL;
	struct err e = { 0 };
	struct host *h;
	int r = parse(&a, &vm, &all);

	if (!r) {
		h = cli_host(c);
		if (!h)
			r = 1;
		else if (host_vm_modify(h, vm, all.list, all.count, &e))
			r = fail_api(c, &e, &site);
	}
	changes_free(&all);
	return r;
}
