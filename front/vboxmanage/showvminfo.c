/* SPDX-License-Identifier: Apache-2.0 */
/*
 * showvminfo: the whole of a machine, for people and for programs. Programs depend on the order of the lines.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/vboxmanage/vbm.h"

static const struct site find_site = { "VirtualBox", "FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())",
	2807, "VBoxManageInfo.cpp" };

const char *
time_text(int64_t ns, char buf[40])
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;
	size_t n;

	gmtime_r(&s, &tm);
	n = strftime(buf, 30, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 40 - n, ".%09d", (int)(ns % 1000000000));
	return buf;
}

static const char *
ostype_description(const struct host_vm *vm)
{
	const struct host_ostype *t = host_ostype_find(host_vm_get(vm, HK_OSTYPE, 0));

	return t ? t->description : host_vm_get(vm, HK_OSTYPE, 0);
}

/* ---- for programs ---- */

static void
print_escaped(const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putchar('\\');
		putchar(*s);
	}
}

/* key="value" */
static bool
has_tablet(const struct host_vm *vm)
{
	return !strcmp(host_vm_get(vm, HK_MOUSE, 0), "usbtablet");
}

static bool
has_usb_keyboard(const struct host_vm *vm)
{
	return !strcmp(host_vm_get(vm, HK_KEYBOARD, 0), "usb");
}

static void
kv(const char *key, const char *value)
{
	printf("%s=\"", key);
	print_escaped(value);
	printf("\"\n");
}

void
show_pair(const char *key, const char *value)
{
	kv(key, value);
}

static void
kn(const char *key, long long value)
{
	printf("%s=%lld\n", key, value);
}

/* key<n>="value" */
static void
kvn(const char *key, int n, const char *value)
{
	char full[64];

	snprintf(full, sizeof(full), "%s%d", key, n);
	kv(full, value);
}

static void
setting(const struct host_vm *vm, const char *label, enum host_key key)
{
	kv(label, host_vm_get(vm, key, 0));
}

static void
number(const struct host_vm *vm, const char *label, enum host_key key)
{
	kn(label, host_vm_num(vm, key, 0));
}

static void
mr_identity(const struct host_vm *vm)
{
	kv("name", vm->name);
	printf("Encryption:     disabled\n");
	setting(vm, "groups", HK_GROUPS);
	kv("ostype", ostype_description(vm));
	kv("UUID", vm->uuid);
	kv("CfgFile", vm->cfg_file);
	kv("SnapFldr", vm->snap_folder);
	kv("LogFldr", vm->log_folder);
	setting(vm, "hardwareuuid", HK_HARDWAREUUID);
}

static void
mr_system(const struct host_vm *vm)
{
	char *nvram = xasprintf("%s/%s.nvram", vm->folder, vm->name);

	number(vm, "memory", HK_MEMORY);
	setting(vm, "pagefusion", HK_PAGEFUSION);
	number(vm, "vram", HK_VRAM);
	number(vm, "cpuexecutioncap", HK_CPUEXECUTIONCAP);
	setting(vm, "hpet", HK_HPET);
	setting(vm, "cpu-profile", HK_CPUPROFILE);
	setting(vm, "chipset", HK_CHIPSET);
	setting(vm, "firmware", HK_FIRMWARE);
	number(vm, "cpus", HK_CPUS);
	setting(vm, "pae", HK_PAE);
	setting(vm, "longmode", HK_LONGMODE);
	setting(vm, "triplefaultreset", HK_TRIPLEFAULTRESET);
	setting(vm, "apic", HK_APIC);
	setting(vm, "x2apic", HK_X2APIC);
	setting(vm, "nested-hw-virt", HK_NESTEDHWVIRT);
	number(vm, "cpuid-portability-level", HK_CPUIDPORTABILITY);
	setting(vm, "bootmenu", HK_BIOSBOOTMENU);
	for (int i = 0; i < HOST_BOOTS; i++)
		kvn("boot", i + 1, host_vm_get(vm, HK_BOOT, i));
	setting(vm, "acpi", HK_ACPI);
	setting(vm, "ioapic", HK_IOAPIC);
	setting(vm, "biosapic", HK_BIOSAPIC);
	number(vm, "biossystemtimeoffset", HK_BIOSSYSTEMTIMEOFFSET);
	kv("BIOS NVRAM File", nvram);
	setting(vm, "rtcuseutc", HK_RTCUSEUTC);
	setting(vm, "hwvirtex", HK_HWVIRTEX);
	setting(vm, "nestedpaging", HK_NESTEDPAGING);
	setting(vm, "largepages", HK_LARGEPAGES);
	setting(vm, "vtxvpid", HK_VTXVPID);
	setting(vm, "vtxux", HK_VTXUX);
	setting(vm, "virtvmsavevmload", HK_VIRTVMSAVE);
	setting(vm, "iommu", HK_IOMMU);
	setting(vm, "paravirtprovider", HK_PARAVIRTPROVIDER);
	kv("effparavirtprovider", "none");
	free(nvram);
}

static void
mr_state(const struct host_vm *vm)
{
	char stamp[40];

	kv("VMState", host_state_short(vm->state));
	kv("VMStateChangeTime", time_text(vm->state_time, stamp));
	if (vm->state == HOST_SAVED)
		kv("VMStateFile", vm->state_file);
	setting(vm, "graphicscontroller", HK_GRAPHICSCONTROLLER);
	number(vm, "monitorcount", HK_MONITORCOUNT);
	setting(vm, "accelerate3d", HK_ACCELERATE3D);
	setting(vm, "accelerate2dvideo", HK_ACCELERATE2DVIDEO);
	setting(vm, "teleporterenabled", HK_TELEPORTER);
	kn("teleporterport", 0);
	kv("teleporteraddress", "");
	kv("teleporterpassword", "");
	setting(vm, "tracing-enabled", HK_TRACINGENABLED);
	kv("tracing-allow-vm-access", "off");
	kv("tracing-config", "");
	setting(vm, "autostart-enabled", HK_AUTOSTARTENABLED);
	number(vm, "autostart-delay", HK_AUTOSTARTDELAY);
	kv("defaultfrontend", strcmp(host_vm_get(vm, HK_DEFAULTFRONTEND, 0), "default")
				      ? host_vm_get(vm, HK_DEFAULTFRONTEND, 0)
				      : "");
	setting(vm, "vmprocpriority", HK_VMPROCPRIORITY);
}

static void
mr_controllers(const struct host_vm *vm)
{
	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		kvn("storagecontrollername", i, c->name);
		kvn("storagecontrollertype", i, c->type);
		printf("storagecontrollerinstance%d=\"%d\"\n", i, c->instance);
		printf("storagecontrollermaxportcount%d=\"%d\"\n", i, c->max_ports);
		printf("storagecontrollerportcount%d=\"%d\"\n", i, c->ports);
		kvn("storagecontrollerbootable", i, c->bootable ? "on" : "off");
	}
}

/* "NAME-what-P-D"="value"; `what` is empty for the medium itself. */
static void
mr_slot(const struct host_controller *c, const char *what, int port, int device, const char *value)
{
	putchar('"');
	print_escaped(c->name);
	printf("-%s%s%d-%d\"=\"", what, *what ? "-" : "", port, device);
	print_escaped(value);
	printf("\"\n");
}

static const char *
on_off(bool on)
{
	return on ? "on" : "off";
}

static void
mr_attachment(const struct host_controller *c, const struct host_attachment *a)
{
	int p = a->port, d = a->device;

	if (!a->path) {
		mr_slot(c, "", p, d, "emptydrive");
		mr_slot(c, "IsEjected", p, d, "off");
		return;
	}
	mr_slot(c, "", p, d, a->path);
	mr_slot(c, "ImageUUID", p, d, a->medium);
	if (a->type == HOST_DVD) {
		mr_slot(c, "tempeject", p, d, on_off(a->tempeject));
		mr_slot(c, "IsEjected", p, d, on_off(a->ejected));
	}
	if (!strcmp(c->name, "SATA") || !strcmp(c->name, "USB"))
		mr_slot(c, "hot-pluggable", p, d, on_off(a->hotpluggable));
	mr_slot(c, "nonrotational", p, d, on_off(a->nonrotational));
	mr_slot(c, "discard", p, d, on_off(a->discard));
}

static void
mr_attachments(const struct host_vm *vm)
{
	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		for (int p = 0; p < c->ports; p++) {
			for (int d = 0; d < c->devices_per_port; d++) {
				const struct host_attachment *a = host_vm_attachment(c, p, d);

				if (a)
					mr_attachment(c, a);
				else
					mr_slot(c, "", p, d, "none");
			}
		}
	}
}

/* What an adapter is attached to, by mode: its key for programs, and how people read it. */
static const struct attachment_row {
	const char *mode, *key, *text; /* text: with one %s for the name */
	enum host_key name;
} attachment_rows[] = {
	{ "bridged", "bridgeadapter", "Bridged Interface '%s'", HK_BRIDGEADAPTER },
	{ "intnet", "intnet", "Internal Network '%s'", HK_INTNET },
	{ "hostonly", "hostonlyadapter", "Host-only Interface '%s'", HK_HOSTONLYADAPTER },
	{ "hostonlynet", "hostonly-network", "Host Only Network '%s'", HK_HOSTONLYNET },
	{ "natnetwork", "nat-network", "NAT Network '%s'", HK_NATNETWORK },
	{ "generic", "generic", "Generic '%s'", HK_NICGENERICDRV },
};

static const struct attachment_row *
attachment_row(const struct host_vm *vm, int n)
{
	for (size_t i = 0; i < ARRAY_LEN(attachment_rows); i++)
		if (!strcmp(host_vm_get(vm, HK_NIC, n), attachment_rows[i].mode))
			return &attachment_rows[i];
	return NULL;
}

static void
mr_nic_place(const struct host_vm *vm, int n)
{
	const struct attachment_row *r = attachment_row(vm, n);

	if (r)
		kvn(r->key, n + 1, host_vm_get(vm, r->name, n));
}

static const char *
nic_place(const struct host_vm *vm, int n, char text[256])
{
	const struct attachment_row *r = attachment_row(vm, n);
	const char *name = r ? host_vm_get(vm, r->name, n) : "", *mark = r ? strstr(r->text, "%s") : NULL;

	if (!r)
		return strcmp(host_vm_get(vm, HK_NIC, n), "nat") ? "none" : "NAT";
	snprintf(text, 256, "%.*s%.200s%s", (int)(mark - r->text), r->text, name, mark + 2);
	return text;
}

static void
mr_nic(const struct host_vm *vm, int n)
{
	const char *mode = host_vm_get(vm, HK_NIC, n);
	bool nat = !strcmp(mode, "nat");

	if (!strcmp(mode, "none")) {
		kvn("nic", n + 1, "none");
		return;
	}
	if (nat)
		kvn("natnet", n + 1, host_vm_get(vm, HK_NATNET, n));
	mr_nic_place(vm, n);
	kvn("macaddress", n + 1, host_vm_get(vm, HK_MACADDRESS, n));
	kvn("cableconnected", n + 1, host_vm_get(vm, HK_CABLECONNECTED, n));
	kvn("nic", n + 1, strcmp(mode, "generic") ? mode : "Generic");
	kvn("nictype", n + 1, host_vm_get(vm, HK_NICTYPE, n));
	kvn("nicspeed", n + 1, host_vm_get(vm, HK_NICSPEED, n));
	if (!nat)
		return;
	printf("mtu=\"0\"\nsockSnd=\"64\"\nsockRcv=\"64\"\ntcpWndSnd=\"64\"\ntcpWndRcv=\"64\"\n");
	for (int i = 0; i < vm->rule_count[n]; i++) {
		const struct nat_rule *r = &vm->rules[n][i];

		printf("Forwarding(%d)=\"", i);
		print_escaped(r->name);
		printf(",%s,%s,%u,%s,%u\"\n", r->udp ? "udp" : "tcp", r->host_ip, r->host_port, r->guest_ip,
			r->guest_port);
	}
}

static void
mr_ports(const struct host_vm *vm)
{
	kv("hidpointing", has_tablet(vm) ? "usbtablet" : "ps2mouse");
	kv("hidkeyboard", has_usb_keyboard(vm) ? "usbkbd" : "ps2kbd");
	for (int i = 0; i < HOST_UARTS; i++) {
		const char *place = host_vm_get(vm, HK_UART, i), *mode = host_vm_get(vm, HK_UARTMODE, i);

		kvn("uart", i + 1, place);
		if (!strcmp(place, "off"))
			continue;
		kvn("uartmode", i + 1, str_starts(mode, "device,") ? mode + 7 : mode);
		kvn("uarttype", i + 1, host_vm_get(vm, HK_UARTTYPE, i));
	}
	for (int i = 0; i < 2; i++)
		kvn("lpt", i + 1, host_vm_get(vm, HK_LPT, i));
	kv("audio", host_vm_on(vm, HK_AUDIOENABLED, 0) ? host_vm_get(vm, HK_AUDIO, 0) : "none");
	setting(vm, "audio_out", HK_AUDIOOUT);
	setting(vm, "audio_in", HK_AUDIOIN);
	setting(vm, "clipboard", HK_CLIPBOARD);
	setting(vm, "draganddrop", HK_DRAGANDDROP);
}

static void
mr_vrde(const struct host_vm *vm, const struct host_live *live)
{
	const char *address = host_vm_get(vm, HK_VRDEADDRESS, 0);

	setting(vm, "vrde", HK_VRDE);
	if (!host_vm_on(vm, HK_VRDE, 0))
		return;
	kn("vrdeport", live->vrde_port);
	setting(vm, "vrdeports", HK_VRDEPORT);
	kv("vrdeaddress", *address ? address : *host_vm_get(vm, HK_VRDEPASSWORD, 0) ? "0.0.0.0" : "127.0.0.1");
	setting(vm, "vrdeauthtype", HK_VRDEAUTHTYPE);
	setting(vm, "vrdemulticon", HK_VRDEMULTICON);
	setting(vm, "vrdereusecon", HK_VRDEREUSECON);
	setting(vm, "vrdevideochannel", HK_VRDEVIDEOCHANNEL);
	setting(vm, "vrdeproperty[TCP/Ports]", HK_VRDEPORT);
	printf("vrdeproperty[TCP/Address]=%s%s%s\n", *address ? "\"" : "", *address ? address : "<not set>",
		*address ? "\"" : "");
}

static void
mr_recording(void)
{
	printf("recording_enabled=\"off\"\nrecording_screens=1\n "
	       "rec_screen0\nrec_screen_enabled=\"off\"\nrec_screen_id=0\n"
	       "rec_screen_video_enabled=\"on\"\nrec_screen_audio_enabled=\"off\"\nrec_screen_dest=\"File\"\n"
	       "rec_screen_dest_filename=\"\"\nrec_screen_opts=\"\"\nrec_screen_video_res_xy=\"1024x768\"\n"
	       "rec_screen_video_rate_kbps=512\nrec_screen_video_fps=25\n");
}

int
show_vm_machine_readable(struct cli *c, const struct host_vm *vm)
{
	bool live = vm->state == HOST_RUNNING || vm->state == HOST_PAUSED;
	struct host_live now = { .width = 720, .height = 400, .vrde_port = -1 };
	struct host_snapshot *list = NULL;
	size_t count = 0;

	if (live)
		host_vm_live(c->host, vm, &now, NULL);
	mr_identity(vm);
	mr_system(vm);
	mr_state(vm);
	mr_controllers(vm);
	mr_attachments(vm);
	for (int n = 0; n < HOST_NICS; n++)
		mr_nic(vm, n);
	mr_ports(vm);
	if (live) {
		kv("SessionName", vm->session);
		printf("VideoMode=\"%d,%d,0\"@0,0 1\n", now.width, now.height);
	}
	mr_vrde(vm, &now);
	setting(vm, "usb", HK_USBOHCI);
	setting(vm, "ehci", HK_USBEHCI);
	setting(vm, "xhci", HK_USBXHCI);
	show_bandwidth_groups(c, vm, true);
	show_shares_machine_readable(c, vm, live);
	if (live)
		printf("VRDEActiveConnection=\"%s\"\nVRDEClients==%d\n", on_off(now.vrde_client), now.vrde_client);
	mr_recording();
	if (*host_vm_get(vm, HK_DESCRIPTION, 0))
		setting(vm, "description", HK_DESCRIPTION);
	if (!host_snapshots_load(c->host, vm->uuid, &list, &count, NULL))
		show_snapshots_machine_readable(list, count);
	host_snapshots_free(list, count);
	number(vm, "GuestMemoryBalloon", HK_GUESTMEMORYBALLOON);
	if (live) {
		printf("GuestOSType=\"%s\"\nGuestAdditionsRunLevel=%d\n", host_vm_get(vm, HK_OSTYPE, 0),
			now.additions_level);
		if (now.additions[0])
			printf("GuestAdditionsVersion=\"%s\"\n", now.additions);
	}
	return 0;
}

/* ---- for people ---- */

static void
line(const char *label, const char *value)
{
	int n = printf("%s:", label);

	printf("%*s %s\n", n < 28 ? 28 - n : 0, "", value);
}

static void
show_audio(const struct host_vm *vm)
{
	static const struct {
		const char *word, *name;
	} drivers[] = { { "none", "Null" }, { "null", "Null" }, { "file", "File" }, { "default", "Default" },
		{ "alsa", "ALSA" }, { "oss", "OSS" }, { "pulse", "PulseAudio" }, { "dsound", "DirectSound" },
		{ "was", "Windows Audio Session" }, { "coreaudio", "CoreAudio" } };
	const char *driver = host_vm_get(vm, HK_AUDIO, 0);
	bool on = host_vm_on(vm, HK_AUDIOENABLED, 0) && strcmp(driver, "none");
	bool hda = !strcmp(host_vm_get(vm, HK_AUDIOCONTROLLER, 0), "hda");
	char *text = xstrdup("disabled");

	for (size_t i = 0; on && i < ARRAY_LEN(drivers); i++)
		if (!strcmp(driver, drivers[i].word)) {
			free(text);
			text = xasprintf("enabled (Driver: %s, Controller: %s)", drivers[i].name,
				hda ? "HDA, Codec: STAC9221" : "AC97, Codec: AD1980");
		}
	line("Audio", text);
	line("Audio playback", host_vm_on(vm, HK_AUDIOOUT, 0) ? "enabled" : "disabled");
	line("Audio capture", host_vm_on(vm, HK_AUDIOIN, 0) ? "enabled" : "disabled");
	free(text);
}

static void
line_unit(const struct host_vm *vm, const char *label, enum host_key key, const char *unit)
{
	char value[64];

	snprintf(value, sizeof(value), "%s%s", host_vm_get(vm, key, 0), unit);
	line(label, value);
}

static void
line_enabled(const struct host_vm *vm, const char *label, enum host_key key)
{
	line(label, host_vm_on(vm, key, 0) ? "enabled" : "disabled");
}

static void
show_identity(const struct host_vm *vm)
{
	line("Name", vm->name);
	printf("Encryption:     disabled\n");
	line("Groups", host_vm_get(vm, HK_GROUPS, 0));
	line("Guest OS", ostype_description(vm));
	line("UUID", vm->uuid);
	line("Config file", vm->cfg_file);
	line("Snapshot folder", vm->snap_folder);
	line("Log folder", vm->log_folder);
	line("Hardware UUID", host_vm_get(vm, HK_HARDWAREUUID, 0));
	line_unit(vm, "Memory size", HK_MEMORY, "MB");
	line_enabled(vm, "Page Fusion", HK_PAGEFUSION);
	line_unit(vm, "VRAM size", HK_VRAM, "MB");
	line_unit(vm, "CPU exec cap", HK_CPUEXECUTIONCAP, "%");
	line_enabled(vm, "HPET", HK_HPET);
	line("CPUProfile", host_vm_get(vm, HK_CPUPROFILE, 0));
	line("Chipset", host_vm_get(vm, HK_CHIPSET, 0));
	line("Firmware", host_vm_get(vm, HK_FIRMWARE, 0));
	line("Number of CPUs", host_vm_get(vm, HK_CPUS, 0));
	line_enabled(vm, "PAE", HK_PAE);
	line_enabled(vm, "Long Mode", HK_LONGMODE);
	line_enabled(vm, "Triple Fault Reset", HK_TRIPLEFAULTRESET);
	line_enabled(vm, "APIC", HK_APIC);
	line_enabled(vm, "X2APIC", HK_X2APIC);
	line_enabled(vm, "Nested VT-x/AMD-V", HK_NESTEDHWVIRT);
	line("CPUID Portability Level", host_vm_get(vm, HK_CPUIDPORTABILITY, 0));
	line("CPUID overrides", "None");
}

static void
show_boot(const struct host_vm *vm)
{
	static const char *const words[][2] = { { "floppy", "Floppy" }, { "dvd", "DVD" }, { "disk", "HardDisk" },
		{ "net", "Network" }, { "usb", "USB" }, { "none", "Not Assigned" } };
	const char *menu = host_vm_get(vm, HK_BIOSBOOTMENU, 0);
	char label[32];

	line("Boot menu mode", strcmp(menu, "messageandmenu") ? menu : "message and menu");
	for (int i = 0; i < HOST_BOOTS; i++) {
		snprintf(label, sizeof(label), "Boot Device %d", i + 1);
		for (size_t k = 0; k < ARRAY_LEN(words); k++)
			if (!strcmp(words[k][0], host_vm_get(vm, HK_BOOT, i)))
				line(label, words[k][1]);
	}
}

static const char *
text_of(const char *const rows[][2], size_t count, const char *word)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(rows[i][0], word))
			return rows[i][1];
	return word;
}

static const char *
graphics_text(const char *word)
{
	static const char *const rows[][2] = { { "none", "Null" }, { "vboxvga", "VBoxVGA" }, { "vmsvga", "VMSVGA" },
		{ "vboxsvga", "VBoxSVGA" } };

	return text_of(rows, ARRAY_LEN(rows), word);
}

static const char *
provider_text(const char *word)
{
	static const char *const rows[][2] = { { "none", "None" }, { "default", "Default" }, { "legacy", "Legacy" },
		{ "minimal", "Minimal" }, { "hyperv", "HyperV" }, { "kvm", "KVM" } };

	return text_of(rows, ARRAY_LEN(rows), word);
}

static void
show_system(const struct host_vm *vm)
{
	char *nvram = xasprintf("%s/%s.nvram", vm->folder, vm->name), state[96], stamp[40];

	show_boot(vm);
	line_enabled(vm, "ACPI", HK_ACPI);
	line_enabled(vm, "IOAPIC", HK_IOAPIC);
	line("BIOS APIC mode", "APIC");
	line_unit(vm, "Time offset", HK_BIOSSYSTEMTIMEOFFSET, "ms");
	line("BIOS NVRAM File", nvram);
	line("RTC", host_vm_on(vm, HK_RTCUSEUTC, 0) ? "UTC" : "local time");
	line_enabled(vm, "Hardware Virtualization", HK_HWVIRTEX);
	line_enabled(vm, "Nested Paging", HK_NESTEDPAGING);
	line_enabled(vm, "Large Pages", HK_LARGEPAGES);
	line_enabled(vm, "VT-x VPID", HK_VTXVPID);
	line_enabled(vm, "VT-x Unrestricted Exec.", HK_VTXUX);
	line_enabled(vm, "AMD-V Virt. Vmsave/Vmload", HK_VIRTVMSAVE);
	line("IOMMU", "None");
	line("Paravirt. Provider", provider_text(host_vm_get(vm, HK_PARAVIRTPROVIDER, 0)));
	line("Effective Paravirt. Prov.", "None");
	snprintf(state, sizeof(state), "%s (since %s)", host_state_long(vm->state), time_text(vm->state_time, stamp));
	line("State", state);
	line("Graphics Controller", graphics_text(host_vm_get(vm, HK_GRAPHICSCONTROLLER, 0)));
	line("Monitor count", host_vm_get(vm, HK_MONITORCOUNT, 0));
	line_enabled(vm, "3D Acceleration", HK_ACCELERATE3D);
	line_enabled(vm, "2D Video Acceleration", HK_ACCELERATE2DVIDEO);
	line_enabled(vm, "Teleporter Enabled", HK_TELEPORTER);
	line("Teleporter Port", "0");
	line("Teleporter Address", "");
	line("Teleporter Password", "");
	line_enabled(vm, "Tracing Enabled", HK_TRACINGENABLED);
	line("Allow Tracing to Access VM", "disabled");
	line("Tracing Configuration", "");
	line_enabled(vm, "Autostart Enabled", HK_AUTOSTARTENABLED);
	line("Autostart Delay", host_vm_get(vm, HK_AUTOSTARTDELAY, 0));
	line("Default Frontend", strcmp(host_vm_get(vm, HK_DEFAULTFRONTEND, 0), "default")
					 ? host_vm_get(vm, HK_DEFAULTFRONTEND, 0)
					 : "");
	line("VM process priority", host_vm_get(vm, HK_VMPROCPRIORITY, 0));
	free(nvram);
}

static void
show_storage(const struct host_vm *vm)
{
	if (!vm->ctl_count) {
		line("Storage Controllers", "<none>");
		return;
	}
	printf("Storage Controllers:\n");
	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		printf("#%d: '%s', Type: %s, Instance: %d, Ports: %d (max %d), %s\n", i, c->name, c->type, c->instance,
			c->ports, c->max_ports, c->bootable ? "Bootable" : "Not bootable");
		for (int k = 0; k < c->at_count; k++) {
			const struct host_attachment *a = &c->at[k];

			if (a->path)
				printf("  Port %d, Unit %d: UUID: %s\n    Location: \"%s\"\n", a->port, a->device,
					a->medium, a->path);
			else
				printf("  Port %d, Unit %d: Empty\n", a->port, a->device);
		}
	}
}

static void
show_rules(const struct host_vm *vm, int n)
{
	char label[32];

	snprintf(label, sizeof(label), "NIC %d Settings:", n + 1);
	printf("%-17s MTU: 0, Socket (send: 64, receive: 64), TCP Window (send:64, receive: 64)\n", label);
	for (int i = 0; i < vm->rule_count[n]; i++) {
		const struct nat_rule *r = &vm->rules[n][i];

		snprintf(label, sizeof(label), "NIC %d Rule(%d):", n + 1, i);
		printf("%-17s name = %s, protocol = %s, host ip = %s, host port = %u, guest ip = %s, guest port = %u\n",
			label, r->name, r->udp ? "udp" : "tcp", r->host_ip, r->host_port, r->guest_ip, r->guest_port);
	}
}

static void
show_nic(const struct host_vm *vm, int n)
{
	const char *mode = host_vm_get(vm, HK_NIC, n), *file = host_vm_get(vm, HK_NICTRACEFILE, n);
	char label[16], value[8192], where[256];

	snprintf(label, sizeof(label), "NIC %d", n + 1);
	if (!strcmp(mode, "none")) {
		line(label, "disabled");
		return;
	}
	snprintf(value, sizeof(value),
		"MAC: %s, Attachment: %s, Cable connected: %s, Trace: %s (file: %s), Type: %s, Reported speed: %d "
		"Mbps, Boot "
		"priority: %s, Promisc Policy: %s, Bandwidth group: %s",
		host_vm_get(vm, HK_MACADDRESS, n), nic_place(vm, n, where), host_vm_get(vm, HK_CABLECONNECTED, n),
		host_vm_get(vm, HK_NICTRACE, n), *file ? file : "none", host_vm_get(vm, HK_NICTYPE, n),
		(int)(host_vm_num(vm, HK_NICSPEED, n) / 1000), host_vm_get(vm, HK_NICBOOTPRIO, n),
		host_vm_get(vm, HK_NICPROMISC, n), host_vm_get(vm, HK_NICBANDWIDTHGROUP, n));
	line(label, value);
	if (!strcmp(mode, "nat"))
		show_rules(vm, n);
}

static void
show_uart(const struct host_vm *vm, int i)
{
	const char *place = host_vm_get(vm, HK_UART, i), *mode = host_vm_get(vm, HK_UARTMODE, i);
	const char *comma = strchr(mode, ',');
	char label[16], value[4300];

	snprintf(label, sizeof(label), "UART %d", i + 1);
	if (!strcmp(place, "off")) {
		line(label, "disabled");
		return;
	}
	if (comma)
		snprintf(value, sizeof(value), "I/O base: %.6s, IRQ: %s, attached to %.*s '%s', %s", place, place + 7,
			(int)(comma - mode), mode, comma + 1, host_vm_get(vm, HK_UARTTYPE, i));
	else
		snprintf(value, sizeof(value), "I/O base: %.6s, IRQ: %s, disconnected, %s", place, place + 7,
			host_vm_get(vm, HK_UARTTYPE, i));
	line(label, value);
}

static void
show_vrde(const struct host_vm *vm, const struct host_live *live)
{
	const char *address = host_vm_get(vm, HK_VRDEADDRESS, 0);
	char value[256];

	if (!host_vm_on(vm, HK_VRDE, 0)) {
		line("VRDE", "disabled");
		return;
	}
	if (!*address)
		address = *host_vm_get(vm, HK_VRDEPASSWORD, 0) ? "0.0.0.0" : "127.0.0.1";
	snprintf(value, sizeof(value),
		"enabled (Address %s, Ports %.60s, MultiConn: on, ReuseSingleConn: off, Authentication type: null)",
		address, host_vm_get(vm, HK_VRDEPORT, 0));
	line("VRDE", value);
	if (live->vrde_port > 0) {
		snprintf(value, sizeof(value), "%d", live->vrde_port);
		line("VRDE port", value);
	}
}

static void
show_rest(struct cli *c, const struct host_vm *vm, const struct host_live *live)
{
	line("Pointing Device", has_tablet(vm) ? "USB Tablet" : "PS/2 Mouse");
	line("Keyboard Device", has_usb_keyboard(vm) ? "USB Keyboard" : "PS/2 Keyboard");
	for (int i = 0; i < HOST_UARTS; i++)
		show_uart(vm, i);
	line("LPT 1", "disabled");
	line("LPT 2", "disabled");
	show_audio(vm);
	line("Clipboard Mode", "disabled");
	line("Drag and drop Mode", "disabled");
	show_vrde(vm, live);
	line("OHCI USB", "disabled");
	line("EHCI USB", "disabled");
	line("xHCI USB", host_vm_on(vm, HK_USBXHCI, 0) ? "enabled" : "disabled");
	printf("\nUSB Device Filters:\n<none>\n\n");
	show_bandwidth_groups(c, vm, false);
	show_shares(c, vm, vm->state == HOST_RUNNING || vm->state == HOST_PAUSED);
}

int
show_vm(struct cli *c, const struct host_vm *vm)
{
	bool live = vm->state == HOST_RUNNING || vm->state == HOST_PAUSED;
	struct host_live now = { .vrde_port = -1 };
	struct host_snapshot *list = NULL;
	size_t count = 0;
	char mode[64];

	if (live)
		host_vm_live(c->host, vm, &now, NULL);
	show_identity(vm);
	show_system(vm);
	show_storage(vm);
	for (int n = 0; n < HOST_NICS; n++)
		show_nic(vm, n);
	show_rest(c, vm, &now);
	if (live) {
		snprintf(mode, sizeof(mode), "%dx%dx%d at 0,0 enabled", now.width, now.height, now.depth);
		line("Session name", vm->session);
		line("Video mode", mode);
		line("VRDE Connection", now.vrde_client ? "active" : "not active");
		line("Engine", now.engine);
		putchar('\n');
	}
	line("Recording enabled", "no");
	line("Recording screens", "1");
	putchar('\n');
	if (*host_vm_get(vm, HK_DESCRIPTION, 0))
		printf("Description:\n%s\n", host_vm_get(vm, HK_DESCRIPTION, 0));
	if (!host_snapshots_load(c->host, vm->uuid, &list, &count, NULL) && count) {
		printf("* Snapshots:\n\n");
		show_snapshots(list, count, false);
		putchar('\n');
	}
	host_snapshots_free(list, count);
	printf("* Guest:\n\n");
	line_unit(vm, "Configured memory balloon", HK_GUESTMEMORYBALLOON, "MB");
	putchar('\n');
	return 0;
}

/* showvminfo --log N: that log of the machine as it is. */
static int
show_log(struct cli *c, const struct host_vm *vm, uint64_t n)
{
	char *path = n ? xasprintf("%s/VBox.log.%llu", vm->log_folder, (unsigned long long)n)
		       : xasprintf("%s/VBox.log", vm->log_folder);
	FILE *f = fopen(path, "re");
	char buf[65536];
	size_t k;

	if (f)
		while ((k = fread(buf, 1, sizeof(buf), f)) > 0)
			fwrite(buf, 1, k, stdout);
	if (f)
		fclose(f);
	free(path);
	return 0;
}

int
cmd_showvminfo(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "machinereadable", 0, OPT_FLAG, 'M', 0 },
		{ "details", 1, OPT_FLAG, 'D', 0 },
		{ "log", 2, OPT_NUMBER, 'l', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	bool readable = false, log = false;
	const char *id = NULL;
	uint64_t log_number = 0;
	struct host_vm *vm;
	struct err e = { 0 };
	int o;

	while ((o = args_next(&a)) != ARG_END) {
		if (o == ARG_BAD)
			return 2;
		if (o == ARG_WORD && id)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (o == ARG_WORD)
			id = a.text;
		readable |= o == 0;
		if (o == 2) {
			log = true;
			log_number = a.number;
		}
	}
	if (!id)
		return fail_syntax(c, "VM name or UUID required");
	if (!cli_host(c))
		return 1;
	vm = host_vm_load(c->host, id, &e);
	if (!vm)
		return fail_api(c, &e, &find_site);
	o = log ? show_log(c, vm, log_number) : readable ? show_vm_machine_readable(c, vm) : show_vm(c, vm);
	host_vm_free(vm);
	return o;
}
