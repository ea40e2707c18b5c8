/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings of a machine, one row each, and the check of a value against its row.
 *
 * A row says which values exist where our users come from (`values`) and which of them do something here (`effective`).
 * A value that exists but would do nothing is refused with the clause `why`, never stored to look as if it worked.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "host/inv.h"

#define BOOL(key, name, slots, fallback) [key] = { name, slots, HT_BOOL, fallback, 0, 0, NULL, NULL, NULL }
#define ONLY(key, name, slots, value, why) [key] = { name, slots, HT_BOOL, value, 0, 0, NULL, value, why }
#define UINT(key, name, slots, fallback, min, max)                                                                     \
	[key] = { name, slots, HT_UINT, fallback, min, max, NULL, NULL, NULL }
#define UINT_ONLY(key, name, slots, value, max, why) [key] = { name, slots, HT_UINT, value, 0, max, NULL, value, why }
#define ENUM(key, name, slots, fallback, values, effective, why)                                                       \
	[key] = { name, slots, HT_ENUM, fallback, 0, 0, values, effective, why, false }
#define KEPT(key, name, slots, fallback, values, effective, why)                                                       \
	[key] = { name, slots, HT_ENUM, fallback, 0, 0, values, effective, why, true }
#define TEXT(key, name, slots, max) [key] = { name, slots, HT_TEXT, "", 0, max, NULL, NULL, NULL }
#define TEXT_ONLY(key, name, slots, value, why) [key] = { name, slots, HT_TEXT, value, 0, 4096, NULL, value, why }
#define SPECIAL(key, name, slots, fallback) [key] = { name, slots, HT_SPECIAL, fallback, 0, 0, NULL, NULL, NULL }

static const char always[] = "the virtual PC always has it";
static const char engine[] = "the engine that runs the machine decides it";
static const char sound[] = "the sound cards are an AC97 with an AD1980 and an HD Audio controller with a STAC9221";
static const char xhci_only[] = "devices of USB 1 and 2 work on the xHCI controller: use --usbxhci on";
static const char no_usb_boot[] = "a USB disk is one of the disks: use disk";
static const char no_logo[] = "the firmware shows no logo";

/* clang-format off */
static const struct host_setting settings[HK_COUNT] = {
	SPECIAL(HK_OSTYPE, "ostype", 1, "Other"),
	SPECIAL(HK_GROUPS, "groups", 1, "/"),
	TEXT(HK_DESCRIPTION, "description", 1, 65536),
	UINT(HK_MEMORY, "memory", 1, "128", 4, 1048576),
	UINT(HK_VRAM, "vram", 1, "16", 1, 256),
	UINT(HK_CPUS, "cpus", 1, "1", 1, 64),
	ONLY(HK_CPUHOTPLUG, "cpuhotplug", 1, "off", "virtual CPUs cannot be added while a machine runs"),
	[HK_CPUEXECUTIONCAP] = { "cpuexecutioncap", 1, HT_UINT, "100", 1, 100, NULL, NULL, NULL },
	ONLY(HK_ACPI, "acpi", 1, "on", always),
	ONLY(HK_IOAPIC, "ioapic", 1, "on", always),
	ONLY(HK_PAE, "pae", 1, "on", always),
	ONLY(HK_LONGMODE, "longmode", 1, "on", always),
	ONLY(HK_APIC, "apic", 1, "on", always),
	ONLY(HK_X2APIC, "x2apic", 1, "on", always),
	BOOL(HK_HPET, "hpet", 1, "off"),
	ONLY(HK_HWVIRTEX, "hwvirtex", 1, "on", engine),
	ONLY(HK_NESTEDPAGING, "nestedpaging", 1, "on", engine),
	ONLY(HK_LARGEPAGES, "largepages", 1, "on", engine),
	ONLY(HK_VTXVPID, "vtxvpid", 1, "on", engine),
	ONLY(HK_VTXUX, "vtxux", 1, "on", engine),
	ONLY(HK_VIRTVMSAVE, "virtvmsavevmload", 1, "on", engine),
	ONLY(HK_NESTEDHWVIRT, "nestedhwvirt", 1, "off", "a guest cannot run hardware-assisted guests of its own"),
	KEPT(HK_PARAVIRTPROVIDER, "paravirtprovider", 1, "default", "none|default|legacy|minimal|hyperv|kvm",
		"none|default", "guests get no paravirtualization interface"),
	TEXT_ONLY(HK_CPUPROFILE, "cpuprofile", 1, "host", "guests see the host's CPU as far as the engine offers it"),
	UINT_ONLY(HK_CPUIDPORTABILITY, "cpuidportabilitylevel", 1, "0", 3, "guests see the host's CPU as far as the engine "
		"offers it"),
	BOOL(HK_TRIPLEFAULTRESET, "triplefaultreset", 1, "off"),
	ONLY(HK_PAGEFUSION, "pagefusion", 1, "off", "the memory of machines is not merged"),
	ENUM(HK_IOMMU, "iommu", 1, "none", "none|automatic|amd|intel", "none", "the virtual PC has no IOMMU"),
	BOOL(HK_RTCUSEUTC, "rtcuseutc", 1, "off"),
	ENUM(HK_FIRMWARE, "firmware", 1, "BIOS", "bios|efi|efi32|efi64", "bios", "the virtual PC starts from a BIOS"),
	ENUM(HK_CHIPSET, "chipset", 1, "piix3", "piix3|ich9", "piix3", "the virtual PC has the PIIX3 chip set"),
	KEPT(HK_GRAPHICSCONTROLLER, "graphicscontroller", 1, "vboxvga", "none|vboxvga|vmsvga|vboxsvga",
		"none|vboxvga|vboxsvga", "the virtual PC has a plain VGA with Bochs VBE modes then; the ones that guests' "
		"drivers resize are vboxvga and vboxsvga"),
	UINT(HK_MONITORCOUNT, "monitorcount", 1, "1", 1, 64),
	ONLY(HK_ACCELERATE3D, "accelerate3d", 1, "off", "the virtual graphics card has no 3D"),
	ONLY(HK_ACCELERATE2DVIDEO, "accelerate2dvideo", 1, "off", "the virtual graphics card has no video overlay"),
	ONLY(HK_BIOSLOGOFADEIN, "bioslogofadein", 1, "off", no_logo),
	ONLY(HK_BIOSLOGOFADEOUT, "bioslogofadeout", 1, "off", no_logo),
	UINT_ONLY(HK_BIOSLOGODISPLAYTIME, "bioslogodisplaytime", 1, "0", 3600000, no_logo),
	TEXT_ONLY(HK_BIOSLOGOIMAGEPATH, "bioslogoimagepath", 1, "", no_logo),
	ENUM(HK_BIOSBOOTMENU, "biosbootmenu", 1, "disabled", "disabled|menuonly|messageandmenu", "disabled|messageandmenu",
		"the firmware has no boot menu without its message"),
	ENUM(HK_BIOSAPIC, "biosapic", 1, "apic", "disabled|apic|x2apic", "apic", "the firmware starts with the APIC on"),
	[HK_BIOSSYSTEMTIMEOFFSET] = { "biossystemtimeoffset", 1, HT_INT, "0", -4000000000000, 4000000000000, NULL,
		NULL, NULL },
	ONLY(HK_BIOSPXEDEBUG, "biospxedebug", 1, "off", "the boot ROM of the network card has no debug output"),
	ENUM(HK_BOOT, "boot", HOST_BOOTS, "floppy|dvd|disk|none", "none|floppy|dvd|disk|net|usb", "none|floppy|dvd|disk|net", no_usb_boot),
	ENUM(HK_NIC, "nic", HOST_NICS, "nat|none", "none|null|nat|bridged|intnet|hostonly|generic|natnetwork|hostonlynet|cloud",
		"none|null|nat|bridged|intnet|hostonly|generic|natnetwork|hostonlynet", "there is no cloud"),
	ENUM(HK_NICTYPE, "nictype", HOST_NICS, "82540EM", "Am79C970A|Am79C973|Am79C960|82540EM|82543GC|82545EM|virtio|NE1000|"
		"NE2000|WD8003|WD8013|ELNK2|ELNK1|usbnet", "Am79C970A|Am79C973|82540EM|82543GC|82545EM|virtio",
		"use Am79C970A, Am79C973, 82540EM, 82543GC, 82545EM or virtio"),
	UINT(HK_NICSPEED, "nicspeed", HOST_NICS, "0", 0, 4000000),
	ENUM(HK_NICPROMISC, "nicpromisc", HOST_NICS, "deny", "deny|allow-vms|allow-all", NULL, NULL),
	UINT(HK_NICBOOTPRIO, "nicbootprio", HOST_NICS, "0", 0, 4),
	BOOL(HK_NICTRACE, "nictrace", HOST_NICS, "off"),
	TEXT(HK_NICTRACEFILE, "nictracefile", HOST_NICS, 4000),
	[HK_NICBANDWIDTHGROUP] = { "nicbandwidthgroup", HOST_NICS, HT_TEXT, "none", 0, 200, NULL, NULL, NULL },
	BOOL(HK_CABLECONNECTED, "cableconnected", HOST_NICS, "on"),
	TEXT(HK_BRIDGEADAPTER, "bridgeadapter", HOST_NICS, 15),
	TEXT(HK_HOSTONLYADAPTER, "hostonlyadapter", HOST_NICS, 15),
	TEXT(HK_HOSTONLYNET, "hostonlynet", HOST_NICS, 200),
	[HK_INTNET] = { "intnet", HOST_NICS, HT_TEXT, "intnet", 0, 200, NULL, NULL, NULL },
	[HK_NATNETWORK] = { "natnetwork", HOST_NICS, HT_TEXT, "NatNetwork", 0, 200, NULL, NULL, NULL },
	TEXT(HK_NICGENERICDRV, "nicgenericdrv", HOST_NICS, 64),
	TEXT(HK_NICPROPERTY, "nicproperty", HOST_NICS, 4000),
	SPECIAL(HK_MACADDRESS, "macaddress", HOST_NICS, ""),
	SPECIAL(HK_NATNET, "natnet", HOST_NICS, "nat"),
	TEXT_ONLY(HK_NATALIASMODE, "nataliasmode", HOST_NICS, "default", "NAT has one way to rewrite addresses"),
	TEXT(HK_NATTFTPPREFIX, "nattftpprefix", HOST_NICS, 4000),
	TEXT(HK_NATTFTPFILE, "nattftpfile", HOST_NICS, 127),
	TEXT_ONLY(HK_NATTFTPSERVER, "nattftpserver", HOST_NICS, "", "NAT serves TFTP itself"),
	TEXT_ONLY(HK_NATBINDIP, "natbindip", HOST_NICS, "", "NAT uses the address the host's routes give"),
	TEXT_ONLY(HK_NATSETTINGS, "natsettings", HOST_NICS, "0,64,64,64,64", "NAT sizes its buffers itself"),
	ONLY(HK_NATDNSPASSDOMAIN, "natdnspassdomain", HOST_NICS, "on", "NAT always passes the domain name on"),
	/* NAT always answers DNS on its .3 by asking the host's name server: what both of these ask for, and what a guest
	 * of a machine with both off gets too. They are kept because scripts read them back. */
	BOOL(HK_NATDNSPROXY, "natdnsproxy", HOST_NICS, "off"),
	BOOL(HK_NATDNSHOSTRESOLVER, "natdnshostresolver", HOST_NICS, "off"),
	BOOL(HK_NATLOCALHOSTREACHABLE, "natlocalhostreachable", HOST_NICS, "on"),
	ENUM(HK_MOUSE, "mouse", 1, "ps2", "ps2|usb|usbtablet|usbmultitouch|usbmtscreenpluspad", "ps2|usbtablet",
		"the pointers there are, are ps2 and usbtablet"),
	ENUM(HK_KEYBOARD, "keyboard", 1, "ps2", "ps2|usb", NULL, NULL),
	SPECIAL(HK_UART, "uart", HOST_UARTS, "off"),
	SPECIAL(HK_UARTMODE, "uartmode", HOST_UARTS, "disconnected"),
	ENUM(HK_UARTTYPE, "uarttype", HOST_UARTS, "16550A", "16450|16550A|16750", "16550A", "serial ports are 16550A"),
	TEXT_ONLY(HK_LPT, "lpt", 2, "off", "the virtual PC has no parallel port"),
	/* Other drivers than file are heard by nobody: a machine runs without a person beside it. */
	ENUM(HK_AUDIO, "audio", 1, "none", "none|null|file|default|dsound|was|oss|alsa|pulse|coreaudio", NULL, NULL),
	BOOL(HK_AUDIOENABLED, "audioenabled", 1, "off"),
	BOOL(HK_AUDIOIN, "audioin", 1, "off"),
	BOOL(HK_AUDIOOUT, "audioout", 1, "off"),
	ENUM(HK_AUDIOCONTROLLER, "audiocontroller", 1, "ac97", "ac97|hda|sb16", "ac97|hda", sound),
	ENUM(HK_AUDIOCODEC, "audiocodec", 1, "ad1980", "stac9700|ad1980|stac9221|sb16", "ad1980|stac9221", sound),
	KEPT(HK_CLIPBOARD, "clipboard", 1, "disabled", "disabled|hosttoguest|guesttohost|bidirectional", "disabled",
		"the clipboard is not shared with guests"),
	ENUM(HK_CLIPBOARDTRANSFERS, "clipboardfiletransfers", 1, "disabled", "enabled|disabled", "disabled",
		"the clipboard is not shared with guests"),
	KEPT(HK_DRAGANDDROP, "draganddrop", 1, "disabled", "disabled|hosttoguest|guesttohost|bidirectional", "disabled",
		"nothing can be dragged into a guest or out of it"),
	BOOL(HK_VRDE, "vrde", 1, "off"),
	SPECIAL(HK_VRDEPORT, "vrdeport", 1, "5900-5999"),
	TEXT(HK_VRDEADDRESS, "vrdeaddress", 1, 45),
	ENUM(HK_VRDEAUTHTYPE, "vrdeauthtype", 1, "null", "null|external|guest", "null",
		"a console is protected by the property VNCPassword"),
	TEXT_ONLY(HK_VRDEAUTHLIBRARY, "vrdeauthlibrary", 1, "default", "a console is protected by the property VNCPassword"),
	ONLY(HK_VRDEMULTICON, "vrdemulticon", 1, "on", "a console always takes several viewers"),
	ONLY(HK_VRDEREUSECON, "vrdereusecon", 1, "off", "a new viewer never throws out another"),
	ONLY(HK_VRDEVIDEOCHANNEL, "vrdevideochannel", 1, "off", "the VNC protocol has no video channel"),
	ENUM(HK_VRDEEXTPACK, "vrdeextpack", 1, "default", "default|VNC", NULL, NULL),
	TEXT(HK_VRDEPASSWORD, "vrdepassword", 1, 8),
	ONLY(HK_USBOHCI, "usbohci", 1, "off", xhci_only),
	ONLY(HK_USBEHCI, "usbehci", 1, "off", xhci_only),
	BOOL(HK_USBXHCI, "usbxhci", 1, "off"),
	TEXT_ONLY(HK_SNAPSHOTFOLDER, "snapshotfolder", 1, "default", "snapshots are kept in the machine's folder"),
	SPECIAL(HK_HARDWAREUUID, "hardwareuuid", 1, ""),
	ENUM(HK_DEFAULTFRONTEND, "defaultfrontend", 1, "default", "default|headless|gui|separate", NULL, NULL),
	ENUM(HK_TPMTYPE, "tpmtype", 1, "none", "none|1.2|2.0|host|swtpm", "none", "the virtual PC has no TPM"),
	ONLY(HK_RECORDING, "recording", 1, "off", "the screen cannot be recorded"),
	BOOL(HK_AUTOSTARTENABLED, "autostartenabled", 1, "off"),
	UINT(HK_AUTOSTARTDELAY, "autostartdelay", 1, "0", 0, 3600),
	ENUM(HK_AUTOSTOPTYPE, "autostoptype", 1, "disabled", "disabled|savestate|poweroff|acpishutdown", NULL, NULL),
	UINT_ONLY(HK_GUESTMEMORYBALLOON, "guestmemoryballoon", 1, "0", 1048576, "the size of a balloon cannot be set"),
	ONLY(HK_TELEPORTER, "teleporter", 1, "off", "machines cannot be teleported"),
	ENUM(HK_VMPROCPRIORITY, "vmprocpriority", 1, "default", "default|flat|low|normal|high", "default|normal",
		"a machine's process runs at the priority of what started it"),
	ONLY(HK_TRACINGENABLED, "tracingenabled", 1, "off", "LODGE_TRACE switches traces on"),
};
/* clang-format on */

const struct host_setting *
host_setting(enum host_key key)
{
	return &settings[key];
}

int
setting_find(const char *name)
{
	for (int k = 0; k < HK_COUNT; k++)
		if (!strcmp(settings[k].name, name))
			return k;
	return -1;
}

char *
setting_fallback(enum host_key key, int slot)
{
	const char *p = settings[key].fallback;

	for (; slot && p[strcspn(p, "|")]; slot--)
		p += strcspn(p, "|") + 1;
	return strndup(p, strcspn(p, "|"));
}

/* The word of the list "a|b|c" that equals `word` whatever the case; its length in *len. */
static const char *
word_find(const char *list, const char *word, size_t *len)
{
	size_t n = strlen(word);

	for (const char *p = list; n; p++) {
		*len = strcspn(p, "|");
		if (*len == n && !strncasecmp(p, word, n))
			return p;
		p += *len;
		if (!*p)
			break;
	}
	return NULL;
}

static char *
normal_enum(const struct host_setting *s, const char *value)
{
	size_t n;
	const char *w = word_find(s->values, value, &n);

	if (w && !strcmp(s->name, "firmware") && n == 4)
		return xstrdup("BIOS");
	return w ? strndup(w, n) : NULL;
}

static char *
normal_number(const struct host_setting *s, const char *value)
{
	uint64_t v;
	bool minus = s->type == HT_INT && value[0] == '-';

	if (minus) {
		if (!str_to_u64(value + 1, 0, (uint64_t)-s->min, &v))
			return NULL;
		return xasprintf("%s%" PRIu64, v ? "-" : "", v);
	}
	if (!str_to_u64(value, s->type == HT_INT ? 0 : (uint64_t)s->min, (uint64_t)s->max, &v))
		return NULL;
	return xasprintf("%" PRIu64, v);
}

static char *
normal_text(const struct host_setting *s, const char *value)
{
	return strlen(value) <= (size_t)s->max ? xstrdup(value) : NULL;
}

static char *
normal_mac(const char *value)
{
	char *mac;

	if (!strcasecmp(value, "auto")) {
		struct uuid u = uuid_random();

		return xasprintf("080027%02X%02X%02X", u.b[0], u.b[1], u.b[2]);
	}
	if (strlen(value) != 12 || strspn(value, "0123456789abcdefABCDEF") != 12)
		return NULL;
	mac = xstrdup(value);
	for (char *p = mac; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	if (strchr("13579BDF", mac[1])) { /* a multicast address is nobody's own */
		free(mac);
		return NULL;
	}
	return mac;
}

/* "/a,/b/c": absolute, no empty parts. */
static char *
normal_groups(const char *value)
{
	if (!*value)
		return xstrdup("/");
	for (const char *p = value; *p;) {
		size_t n = strcspn(p, ",");

		if (p[0] != '/' || (n > 1 && p[n - 1] == '/') || memmem(p, n, "//", 2))
			return NULL;
		p += n + (p[n] == ',');
	}
	return xstrdup(value);
}

/* "off", or "0x3f8 4" in the form "0x03f8,4". */
static char *
normal_uart(const char *value)
{
	char base[16];
	size_t n = strcspn(value, " ,");
	uint64_t b, irq;

	if (!strcasecmp(value, "off"))
		return xstrdup("off");
	if (!value[n] || n >= sizeof(base))
		return NULL;
	memcpy(base, value, n);
	base[n] = 0;
	if (!str_to_u64(base, 0x100, 0xfff8, &b) || !str_to_u64(value + n + 1, 2, 15, &irq))
		return NULL;
	return xasprintf("0x%04x,%d", (unsigned)b, (int)irq);
}

/* "mode" or "mode,argument". A lone path is a device of the host. */
static char *
normal_uartmode(const char *value)
{
	static const char modes[] = "server|client|tcpserver|tcpclient|file|pty|device";
	size_t n = strcspn(value, " ,"), len;
	char *mode = strndup(value, n), *out = NULL, *path;
	const char *w = word_find(modes, mode, &len), *arg = value + n + (value[n] != 0);

	free(mode);
	if (!strcasecmp(value, "disconnected"))
		return xstrdup("disconnected");
	if (value[0] == '/')
		return xasprintf("device,%s", value);
	if (!w || !*arg)
		return NULL;
	if (str_starts(w, "tcp"))
		return xasprintf("%.*s,%s", (int)len, w, arg);
	path = host_absolute_path(arg);
	out = xasprintf("%.*s,%s", (int)len, w, path);
	free(path);
	return out;
}

static bool
port_list_ok(const char *value)
{
	while (*value) {
		size_t n = strcspn(value, ",");
		char *part = strndup(value, n), *dash = strchr(part, '-');
		uint64_t a, b;
		bool ok;

		if (dash)
			*dash++ = 0;
		ok = str_to_u64(part, 1, 65535, &a) && (!dash || (str_to_u64(dash, a, 65535, &b)));
		free(part);
		if (!ok || (value[n] && !value[n + 1]))
			return false;
		value += n + (value[n] != 0);
	}
	return true;
}

static char *
normal_vrdeport(const char *value)
{
	if (!strcmp(value, "0") || !strcasecmp(value, "default"))
		return setting_fallback(HK_VRDEPORT, 0);
	return *value && port_list_ok(value) ? xstrdup(value) : NULL;
}

/* "default" or "nat" for the usual network, else "a.b.c.d/n". */
static char *
normal_natnet(const char *value)
{
	const char *slash = strchr(value, '/');
	char *ip;
	bool ok;
	uint64_t bits, octet;

	if (!strcasecmp(value, "default") || !strcasecmp(value, "nat"))
		return xstrdup("nat");
	if (!slash || !str_to_u64(slash + 1, 8, 27, &bits))
		return NULL;
	ip = strndup(value, (size_t)(slash - value));
	ok = true;
	for (int i = 0; i < 4 && ok; i++) {
		char *save = ip, *dot = strsep(&save, ".");

		ok = str_to_u64(dot, 0, 255, &octet) && (i == 3) == !save;
		if (save)
			memmove(ip, save, strlen(save) + 1);
	}
	free(ip);
	return ok ? xstrdup(value) : NULL;
}

static char *
normal_hardwareuuid(const char *value)
{
	struct uuid u;
	char text[37];

	if (!uuid_parse(value, &u))
		return NULL;
	uuid_text(&u, text);
	return xstrdup(text);
}

static char *
normal_special(enum host_key key, const char *value)
{
	const struct host_ostype *t;

	switch (key) {
	case HK_OSTYPE:
		t = host_ostype_find(value);
		return t ? xstrdup(t->id) : NULL;
	case HK_GROUPS:
		return normal_groups(value);
	case HK_MACADDRESS:
		return normal_mac(value);
	case HK_UART:
		return normal_uart(value);
	case HK_UARTMODE:
		return normal_uartmode(value);
	case HK_VRDEPORT:
		return normal_vrdeport(value);
	case HK_NATNET:
		return normal_natnet(value);
	case HK_HARDWAREUUID:
		return normal_hardwareuuid(value);
	default:
		return NULL;
	}
}

static char *
normal_form(enum host_key key, const char *value)
{
	const struct host_setting *s = &settings[key];

	switch (s->type) {
	case HT_BOOL:
		return !strcmp(value, "on") || !strcmp(value, "off") ? xstrdup(value) : NULL;
	case HT_UINT:
	case HT_INT:
		return normal_number(s, value);
	case HT_ENUM:
		return normal_enum(s, value);
	case HT_TEXT:
		return normal_text(s, value);
	case HT_SPECIAL:
		return normal_special(key, value);
	}
	return NULL;
}

static char *
setting_label(enum host_key key, int slot)
{
	const struct host_setting *s = &settings[key];

	return s->slots > 1 ? xasprintf("%s%d", s->name, slot + 1) : xstrdup(s->name);
}

static void
complain_malformed(enum host_key key, int slot, const char *value, struct err *e)
{
	const struct host_setting *s = &settings[key];
	char *label = setting_label(key, slot);

	if (key == HK_OSTYPE)
		err_set(e, ERR_NOT_FOUND, "'%s' is not a valid Guest OS type", value);
	else if (s->type == HT_BOOL)
		err_set(e, ERR_INVALID, "Invalid value '%s' for %s: must be 'on' or 'off'", value, label);
	else if (s->type == HT_UINT || s->type == HT_INT)
		err_set(e, ERR_INVALID, "Invalid %s: '%s' (must be in range [%" PRId64 ", %" PRId64 "])", label, value,
			s->min, s->max);
	else if (s->type == HT_ENUM)
		err_set(e, ERR_INVALID, "Invalid value '%s' for %s: must be one of %s", value, label, s->values);
	else
		err_set(e, ERR_INVALID, "Invalid value '%s' for %s", value, label);
	free(label);
}

enum host_check
host_setting_check(enum host_key key, int slot, const char *value, struct err *e)
{
	const struct host_setting *s;
	char *normal, *label;
	size_t len;
	bool ok;

	if (key >= HK_COUNT)
		return HOST_VALUE_OK;
	s = &settings[key];
	normal = slot >= 0 && slot < s->slots ? normal_form(key, value) : NULL;
	if (!normal) {
		complain_malformed(key, slot, value, e);
		return HOST_VALUE_MALFORMED;
	}
	if (!s->effective || !strcmp(s->effective, normal) || word_find(s->effective, normal, &len)) {
		free(normal);
		return HOST_VALUE_OK;
	}
	ok = s->effective[0] == 0;
	label = setting_label(key, slot);
	if (s->kept) {
		err_set(e, ERR_UNSUPPORTED, "%s '%s' has no effect here: %s", label, normal, s->why);
		free(label);
		free(normal);
		return HOST_VALUE_WITHOUT_EFFECT;
	}
	err_set(e, ERR_UNSUPPORTED, "%s cannot be %s%s%s here: %s", label, ok ? "set" : "'", ok ? "" : normal,
		ok ? "" : "'", s->why);
	free(label);
	free(normal);
	return HOST_VALUE_UNSUPPORTED;
}

char *
setting_normal(enum host_key key, int slot, const char *value, struct err *e)
{
	enum host_check c = host_setting_check(key, slot, value, e);

	return c == HOST_VALUE_OK || c == HOST_VALUE_WITHOUT_EFFECT ? normal_form(key, value) : NULL;
}
