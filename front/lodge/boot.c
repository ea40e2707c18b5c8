/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lodge boot`: a machine without an inventory, in this process, gone when it ends. For developers and tests.
 *
 * Each option is a row of `options`; it changes the same configuration that lodge-vm reads from a file. Exit statuses
 * are even, apart from the debug-exit device's, which are odd.
 */
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "front/lodge/lodge.h"
#include "vm/vm.h"

enum exit_status {
	STATUS_OFF = 0,
	STATUS_USAGE = 2,
	STATUS_HOST = 4,
	STATUS_TRIPLE_FAULT = 6,
	STATUS_ENGINE = 8,
	STATUS_TIMEOUT = 10,
	STATUS_STOPPED = 12,
	STATUS_RESET = 14,
};

struct boot {
	struct vm_config *c;
	struct vm_options o;
	char *png, *text;
	char *block;
	bool stats, quiet;
	bool dvd_first;
	uint64_t started;
	struct err e;
};

/* ---- "value,key=value,..." ---- */

/* Cut the next comma-separated part off *text; NULL at the end. */
static char *
next_part(char **text)
{
	char *part = *text;

	if (!part)
		return NULL;
	*text = strchr(part, ',');
	if (*text)
		*(*text)++ = 0;
	return part;
}

/* The value if `part` is "key=value". */
static char *
value_of(char *part, const char *key)
{
	size_t n = strlen(key);

	return !strncmp(part, key, n) && part[n] == '=' ? part + n + 1 : NULL;
}

static int
bad(struct boot *b, const char *option, const char *text)
{
	return err_set(&b->e, ERR_USAGE, "%s: '%s' is not understood; see 'lodge boot --help'", option, text);
}

static void
set_text(char **member, const char *text)
{
	free(*member);
	*member = xstrdup(text);
}

/* The absolute form of a path that has to exist, so that errors and the status name the file. */
static int
set_file(struct boot *b, char **member, const char *path)
{
	char *real = realpath(path, NULL);

	free(*member);
	*member = real ? real : xstrdup("");
	return real ? 0 : err_set(&b->e, ERR_FILE, "cannot open %s: there is no such file", path);
}

/* ---- one function an option ---- */

static int
opt_engine(struct boot *b, char *arg)
{
	set_text(&b->c->engine, arg);
	return 0;
}

static int
opt_cpu_model(struct boot *b, char *arg)
{
	set_text(&b->c->cpu_model, arg);
	return 0;
}

static int
opt_cpus(struct boot *b, char *arg)
{
	uint64_t n;

	if (!str_to_u64(arg, 1, CPUS_MAX, &n))
		return bad(b, "--cpus", arg);
	b->c->cpus = (int)n;
	return 0;
}

/* MiB, or with a unit ("2G"). */
static int
opt_memory(struct boot *b, char *arg)
{
	uint64_t n;

	if (str_to_u64(arg, 4, 1 << 20, &n))
		b->c->memory_mib = n;
	else if (arg[0] && !strchr("0123456789", arg[strlen(arg) - 1]) && str_to_size(arg, &n) && n >> 20 >= 4 &&
		 n >> 20 <= 1 << 20)
		b->c->memory_mib = n >> 20;
	else
		return bad(b, "--memory", arg);
	return 0;
}

static int
opt_kernel(struct boot *b, char *arg)
{
	return set_file(b, &b->c->kernel, arg);
}

static int
opt_initrd(struct boot *b, char *arg)
{
	return set_file(b, &b->c->initrd, arg);
}

static int
opt_append(struct boot *b, char *arg)
{
	set_text(&b->c->append, arg);
	return 0;
}

static int
opt_module(struct boot *b, char *arg)
{
	if (b->c->module_count == PC_MODULES_MAX)
		return err_set(&b->e, ERR_USAGE, "--module: there can be %d", PC_MODULES_MAX);
	set_text(&b->c->modules[b->c->module_count++], arg);
	return 0;
}

static struct vm_controller *
controller(struct boot *b, const char *bus)
{
	static const char *const names[] = {
		[VM_IDE] = "ide",
		[VM_AHCI] = "ahci",
		[VM_VIRTIO] = "virtio",
		[VM_VIRTIO_SCSI] = "virtio-scsi",
		[VM_NVME] = "nvme",
		[VM_LSILOGIC] = "lsilogic",
		[VM_LSISAS] = "lsisas",
		[VM_FLOPPY] = "floppy",
		[VM_USB] = "usb",
	};
	struct vm_config *c = b->c;

	for (int i = 0; i < c->controller_count; i++)
		if (!strcmp(c->controllers[i].name, bus))
			return &c->controllers[i];
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(names[i], bus)) {
			struct vm_controller *n = &c->controllers[c->controller_count++];

			n->name = xstrdup(bus);
			n->model = xstrdup("");
			n->type = (enum vm_controller_type)i;
			n->bootable = n->hostiocache = true;
			return n;
		}
	err_set(&b->e, ERR_USAGE,
		"there is no bus '%s'; there are ide, ahci, virtio, virtio-scsi, nvme, lsilogic, lsisas and usb", bus);
	return NULL;
}

/* IDE has two devices a port; the others one. */
static struct vm_attachment *
add_drive(struct boot *b, const char *bus, enum vm_drive_type type, const char *path)
{
	struct vm_controller *c = controller(b, bus);
	struct vm_attachment *a;
	int n;

	if (!c)
		return NULL;
	n = c->attachment_count;
	a = vm_config_add_attachment(c,
		c->type == VM_IDE      ? n / 2
		: c->type == VM_FLOPPY ? 0
				       : n,
		c->type == VM_IDE      ? n % 2
		: c->type == VM_FLOPPY ? n
				       : 0);
	a->type = type;
	c->ports = MAX(c->ports, a->port + 1);
	return set_file(b, &a->path, path) ? NULL : a;
}

static int
drive(struct boot *b, const char *option, enum vm_drive_type type, const char *bus, char *arg)
{
	char *path = next_part(&arg), *part, *v;
	const char *format = "", *serial = "";
	struct vm_attachment *a;
	bool readonly = false;

	while ((part = next_part(&arg))) {
		if ((v = value_of(part, "bus")))
			bus = v;
		else if ((v = value_of(part, "format")))
			format = v;
		else if ((v = value_of(part, "serial")))
			serial = v;
		else if ((v = value_of(part, "readonly")) && (!strcmp(v, "on") || !strcmp(v, "off")))
			readonly = !strcmp(v, "on");
		else
			return bad(b, option, part);
	}
	a = add_drive(b, bus, type, path);
	if (!a)
		return -1;
	a->readonly = readonly;
	set_text(&a->format, format);
	set_text(&a->serial, serial);
	return 0;
}

static int
opt_disk(struct boot *b, char *arg)
{
	return drive(b, "--disk", VM_DISK, "ahci", arg);
}

static int
opt_cdrom(struct boot *b, char *arg)
{
	b->dvd_first = true;
	return drive(b, "--cdrom", VM_DVD, "ide", arg);
}

static int
opt_floppy(struct boot *b, char *arg)
{
	return drive(b, "--floppy", VM_FLOPPY_DRIVE, "floppy", arg);
}

/* NAME=DIRECTORY, then ro, symlinks */
static int
opt_share(struct boot *b, char *arg)
{
	char *what = next_part(&arg), *part, *dir = strchr(what, '=');
	struct vm_share *s;

	if (!dir || b->c->share_count == VM_SHARES_MAX)
		return bad(b, "--share", what);
	*dir++ = 0;
	s = &b->c->shares[b->c->share_count++];
	s->name = xstrdup(what);
	s->mount_point = xstrdup("");
	b->c->guest_device = true;
	while ((part = next_part(&arg))) {
		if (!strcmp(part, "ro"))
			s->readonly = true;
		else if (!strcmp(part, "symlinks"))
			s->symlinks = true;
		else
			return bad(b, "--share", part);
	}
	return set_file(b, &s->path, dir);
}

static int
opt_boot(struct boot *b, char *arg)
{
	static const char *const names[] = { "none", "disk", "dvd", "net", "floppy" };
	char *part;

	b->dvd_first = false;
	b->c->boot_count = 0;
	while ((part = next_part(&arg))) {
		size_t i = 0;

		while (i < ARRAY_LEN(names) && strcmp(names[i], part))
			i++;
		if (i == ARRAY_LEN(names) || b->c->boot_count == VM_BOOT_MAX)
			return bad(b, "--boot", part);
		b->c->boot[b->c->boot_count++] = (enum vm_boot)i;
	}
	return 0;
}

/* tcp:127.0.0.1:8080-:80 */
static int
add_forward(struct boot *b, struct vm_nic *n, const char *text)
{
	char proto[4], host[16] = "", guest[16] = "", rule[128];
	unsigned host_port, guest_port;
	const char *p = strchr(text, ':'), *dash;
	int used = 0;

	if (!p || p - text > 3 || n->rule_count == NAT_RULES_MAX)
		return bad(b, "--nic hostfwd", text);
	snprintf(proto, sizeof(proto), "%.*s", (int)(p - text), text);
	dash = strchr(++p, '-');
	if (!dash ||
		(sscanf(p, "%15[0-9.]:%u-%n", host, &host_port, &used) < 2 &&
			sscanf(p, ":%u-%n", &host_port, &used) < 1) ||
		p + used != dash + 1)
		return bad(b, "--nic hostfwd", text);
	p = dash + 1;
	used = 0;
	if ((sscanf(p, "%15[0-9.]:%u%n", guest, &guest_port, &used) < 2 &&
		    sscanf(p, ":%u%n", &guest_port, &used) < 1) ||
		p[used])
		return bad(b, "--nic hostfwd", text);
	snprintf(rule, sizeof(rule), "fwd%d,%s,%s,%u,%s,%u", n->rule_count, proto, host, host_port, guest, guest_port);
	return nat_rule_parse(rule, &n->rules[n->rule_count++], &b->e);
}

static int
nic_part(struct boot *b, struct vm_nic *n, char *part)
{
	char *v;

	if ((v = value_of(part, "hostfwd")))
		return add_forward(b, n, v);
	if ((v = value_of(part, "tftp")))
		return set_file(b, &n->tftp, v);
	if ((v = value_of(part, "bootfile")))
		set_text(&n->bootfile, v);
	else if ((v = value_of(part, "hostname")))
		set_text(&n->hostname, v);
	else if ((v = value_of(part, "net")))
		set_text(&n->network, v);
	else if ((v = value_of(part, "model")) && (!strcmp(v, "e1000") || !strcmp(v, "virtio")))
		n->model = v[0] == 'v' ? VM_VIRTIO_NET : VM_E1000;
	else
		return bad(b, "--nic", part);
	return 0;
}

static int
opt_nic(struct boot *b, char *arg)
{
	char *part = next_part(&arg);
	struct vm_nic *n;

	if (b->c->nic_count == VM_NICS_MAX)
		return err_set(&b->e, ERR_USAGE, "--nic: there can be %d", VM_NICS_MAX);
	n = vm_config_add_nic(b->c);
	if (!strcmp(part, "nat"))
		n->backend = VM_NET_NAT;
	else if (strcmp(part, "none"))
		return bad(b, "--nic", part);
	while ((part = next_part(&arg)))
		if (nic_part(b, n, part))
			return -1;
	return 0;
}

static int
opt_trace(struct boot *b, char *arg)
{
	if (!b->c->nic_count)
		return err_set(&b->e, ERR_USAGE, "--trace-pcap comes behind the --nic that it traces");
	set_text(&b->c->nics[b->c->nic_count - 1].trace, arg);
	return 0;
}

static int
opt_serial(struct boot *b, char *arg)
{
	static const struct {
		const char *prefix;
		enum vm_serial_mode mode;
	} modes[] = {
		{ "stdio", VM_SERIAL_STDIO },
		{ "null", VM_SERIAL_DISCONNECTED },
		{ "pty", VM_SERIAL_PTY },
		{ "file:", VM_SERIAL_FILE },
		{ "unix-server:", VM_SERIAL_SERVER },
		{ "unix-client:", VM_SERIAL_CLIENT },
		{ "tcp-server:", VM_SERIAL_TCP_SERVER },
		{ "tcp-client:", VM_SERIAL_TCP_CLIENT },
	};
	struct vm_serial *s;

	if (b->c->serial_count == VM_SERIAL_MAX)
		return err_set(&b->e, ERR_USAGE, "--serial: there can be %d", VM_SERIAL_MAX);
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		bool takes = str_ends(modes[i].prefix, ":");

		if (takes ? !str_starts(arg, modes[i].prefix) : strcmp(arg, modes[i].prefix))
			continue;
		s = vm_config_add_serial(b->c);
		s->mode = modes[i].mode;
		if (takes)
			set_text(&s->path, arg + strlen(modes[i].prefix));
		return 0;
	}
	return bad(b, "--serial", arg);
}

static int
opt_device(struct boot *b, char *arg)
{
	const struct {
		const char *name;
		bool *on;
	} ours[] = { { "xhci", &b->c->usb }, { "usb-tablet", &b->c->usb_tablet },
		{ "usb-keyboard", &b->c->usb_keyboard }, { "ac97", &b->c->audio } };
	size_t n = strcspn(arg, "=");

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (!strcmp(arg, ours[i].name)) {
			*ours[i].on = true;
			return 0;
		}
	if (str_starts(arg, "ac97=") || !strcmp(arg, "hda") || str_starts(arg, "hda=")) {
		b->c->audio = true;
		b->c->hda = arg[0] == 'h';
		if (arg[n])
			set_text(&b->c->audio_file, arg + n + 1);
		return !arg[n] || arg[n + 1] == '/' ? 0 : bad(b, "--device of sound, an absolute path", arg + n + 1);
	}
	if (b->c->device_count == VM_DEVICES_MAX)
		return err_set(&b->e, ERR_USAGE, "--device: there can be %d", VM_DEVICES_MAX);
	set_text(&b->c->devices[b->c->device_count++], arg);
	return 0;
}

/* The agent's channel as another program takes it: the protocol itself, on a socket. */
static int
opt_agent(struct boot *b, char *arg)
{
	char *device = xasprintf("virtio-serial=unix-server:%s", arg);
	int r = arg[0] == '/' ? opt_device(b, device) : bad(b, "--agent", arg);

	free(device);
	return r;
}

static int
opt_display(struct boot *b, char *arg)
{
	uint64_t port;

	if (!strcmp(arg, "none"))
		return 0;
	if (str_starts(arg, "png:") && arg[4]) {
		set_text(&b->png, arg + 4);
		return 0;
	}
	if (str_starts(arg, "text:") && arg[5]) {
		set_text(&b->text, arg + 5);
		return 0;
	}
	if (!str_starts(arg, "vnc:") || !str_to_u64(arg + 4, 1, 65535, &port))
		return bad(b, "--display", arg);
	b->c->vrde = b->c->vrde_enabled = true;
	set_text(&b->c->vrde_ports, arg + 4);
	return 0;
}

static int
opt_timeout(struct boot *b, char *arg)
{
	uint64_t s;

	if (!str_to_u64(arg, 1, 1 << 30, &s))
		return bad(b, "--timeout", arg);
	b->o.timeout_ms = s * 1000;
	return 0;
}

static int
opt_firmware(struct boot *b, char *arg)
{
	return set_file(b, &b->c->firmware, arg);
}

static int
opt_name(struct boot *b, char *arg)
{
	set_text(&b->c->name, arg);
	return 0;
}

static int
opt_log(struct boot *b, char *arg)
{
	int r = log_open_file(arg);

	log_set_level(LOG_INFO);
	return r ? err_sys(&b->e, ERR_FILE, r, "cannot open the log file %s", arg) : 0;
}

static int
opt_firmware_log(struct boot *b, char *arg)
{
	b->o.firmware_log = true;
	log_set_level(LOG_INFO);
	return 0;
}

static int
opt_stats(struct boot *b, char *arg)
{
	b->stats = true;
	return 0;
}

static int
opt_gdb(struct boot *b, char *arg)
{
	b->o.gdb = arg;
	return 0;
}

static int
opt_gdb_wait(struct boot *b, char *arg)
{
	b->o.gdb_wait = true;
	return 0;
}

static int
opt_trace_exits(struct boot *b, char *arg)
{
	if (strcmp(arg, "exits") && (!str_starts(arg, "exits:") || !arg[6]))
		return bad(b, "--trace", arg);
	b->o.trace_exits = true;
	b->o.trace_file = arg[5] ? arg + 6 : NULL;
	return 0;
}

static int
opt_dump_block(struct boot *b, char *arg)
{
	set_text(&b->block, arg);
	return 0;
}

static int
opt_verbose(struct boot *b, char *arg)
{
	log_set_level(LOG_INFO);
	return 0;
}

static int
opt_no_reset(struct boot *b, char *arg)
{
	b->o.end_on_reset = true;
	return 0;
}

static int
opt_boot_menu(struct boot *b, char *arg)
{
	b->c->boot_menu = true;
	return 0;
}

static int
opt_no_hpet(struct boot *b, char *arg)
{
	b->c->hpet = false;
	return 0;
}

static int
opt_vga(struct boot *b, char *arg)
{
	b->c->vga_vbox = !strcmp(arg, "vbox");
	if (!b->c->vga_vbox && strcmp(arg, "plain"))
		return err_set(&b->e, ERR_INVALID, "'%s' is no kind of VGA: plain or vbox", arg);
	return 0;
}

static int
opt_no_vga(struct boot *b, char *arg)
{
	b->c->vga_mib = 0;
	return 0;
}

static int
opt_no_sandbox(struct boot *b, char *arg)
{
	b->c->sandbox = false;
	return 0;
}

static const struct boot_option {
	const char *name, *argument;
	int (*set)(struct boot *b, char *arg);
	const char *help;
} options[] = {
	{ "engine", "E", opt_engine, "auto (default, or $LODGE_ENGINE), kvm, jit or interp" },
	{ "cpu-model", "M", opt_cpu_model, "host (default) or a named baseline" },
	{ "cpus", "N", opt_cpus, "virtual CPUs, 1 to 64 (1)" },
	{ "memory", "MB", opt_memory, "memory in MiB, or with a unit: 2G (128)" },
	{ "kernel", "F", opt_kernel, "boot this bzImage, multiboot or PVH kernel directly" },
	{ "initrd", "F", opt_initrd, "its initial RAM disk" },
	{ "append", "S", opt_append, "its command line" },
	{ "module", "\"F ARGS\"", opt_module, "a multiboot or PVH module; may be repeated" },
	{ "disk",
		"F[,bus=ahci|ide|virtio|virtio-scsi|nvme|lsilogic|lsisas|usb][,readonly=on][,format=raw|vdi][,serial="
		"S]",
		opt_disk, "a disk image; may be repeated" },
	{ "cdrom", "F[,bus=ide|ahci|virtio-scsi|lsilogic|lsisas]", opt_cdrom, "a CD image; may be repeated" },
	{ "floppy", "F[,readonly=on]", opt_floppy, "a floppy image; may be repeated" },
	{ "boot", "LIST", opt_boot, "what firmware tries, of disk, dvd, net, floppy (dvd,disk with --cdrom)" },
	{ "boot-menu", NULL, opt_boot_menu, "firmware offers its boot menu" },
	{ "firmware", "F", opt_firmware, "a firmware image instead of the host's SeaBIOS" },
	{ "nic", "nat[,model=e1000|virtio][,hostfwd=tcp:127.0.0.1:8080-:80]...[,net=CIDR][,tftp=DIR][,bootfile=F]",
		opt_nic, "a network adapter behind NAT, or 'none': no cable; may be repeated" },
	{ "trace-pcap", "F", opt_trace, "frames of the --nic before it, in libpcap's format" },
	{ "serial", "stdio|file:F|pty|unix-server:F|unix-client:F|tcp-server:PORT|tcp-client:ADDR|null", opt_serial,
		"a serial port, COM1 first. On a terminal Ctrl-A x ends the machine" },
	{ "device", "NAME", opt_device,
		"ac97[=WAVE-FILE], hda[=WAVE-FILE], debug-exit, testdev, usb-keyboard, usb-tablet, xhci, virtio-rng, "
		"virtio-balloon, "
		"virtio-console[=BACKEND], virtio-serial[=BACKEND]" },
	{ "agent", "PATH", opt_agent, "the guest agent's channel on a unix socket, an absolute path" },
	{ "share", "NAME=DIR[,ro][,symlinks]", opt_share,
		"a shared folder for 'mount -t vboxsf NAME ...'; symlinks: the guest may make them; may be repeated" },
	{ "display", "none|vnc:PORT|png:F|text:F", opt_display,
		"serve the screen on 127.0.0.1, or save it when the machine ends" },
	{ "stats", NULL, opt_stats, "print the CPUs' counters when the machine ends" },
	{ "gdb", "PORT|PATH", opt_gdb, "serve gdb on 127.0.0.1 or a unix socket: gdb -ex 'target remote :PORT'" },
	{ "gdb-wait", NULL, opt_gdb_wait, "do not start the CPUs before gdb says so" },
	{ "trace", "exits[:F]", opt_trace_exits,
		"count where code leaves full speed and print it at the end; each event to F" },
	{ "dump-block", "ADDR[,F]", opt_dump_block, "when the machine ends, print what the translator made of ADDR" },
	{ "timeout", "SECONDS", opt_timeout, "end the machine after this time" },
	{ "no-reset", NULL, opt_no_reset, "end instead of resetting when the guest asks for a reset" },
	{ "no-hpet", NULL, opt_no_hpet, "leave the HPET out" },
	{ "vga", "KIND", opt_vga, "plain (default), or vbox: VirtualBox's adapter" },
	{ "no-vga", NULL, opt_no_vga, "leave the VGA out" },
	{ "no-sandbox", NULL, opt_no_sandbox, "keep all privileges (for debuggers)" },
	{ "name", "S", opt_name, "the machine's name, in the log" },
	{ "log", "F", opt_log, "write the log to a file" },
	{ "verbose", NULL, opt_verbose, "write the log to standard error" },
	{ "firmware-log", NULL, opt_firmware_log, "log what firmware writes to port 0x402" },
};

static const struct {
	int status;
	const char *text;
} statuses[] = {
	{ STATUS_OFF, "the guest switched itself off" },
	{ STATUS_USAGE, "wrong arguments" },
	{ STATUS_HOST, "the machine could not be started (a file, a port, memory, the host)" },
	{ STATUS_TRIPLE_FAULT, "a CPU shut down (triple fault)" },
	{ STATUS_ENGINE, "the machine could not go on" },
	{ STATUS_TIMEOUT, "--timeout was reached" },
	{ STATUS_STOPPED, "ended from outside: a signal, Ctrl-A x" },
	{ STATUS_RESET, "the guest asked for a reset, with --no-reset" },
};

static void
usage(FILE *f)
{
	fprintf(f, "Usage: lodge boot [OPTION]...\n\nRuns a machine until it ends; nothing of it stays.\n\n");
	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		fprintf(f, "  --%s%s%s\n      %s\n", options[i].name, options[i].argument ? " " : "",
			options[i].argument ? options[i].argument : "", options[i].help);
	fprintf(f, "\nExit status:\n");
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
		fprintf(f, "  %3d  %s\n", statuses[i].status, statuses[i].text);
	fprintf(f, "  odd  (v << 1) | 1, the guest wrote v to the debug-exit device\n");
}

/* 0: go on; otherwise *status is the result. */
static int
parse(struct boot *b, int argc, char **argv, int *status)
{
	struct option longs[ARRAY_LEN(options) + 2] = { 0 };
	int i, o;

	for (size_t k = 0; k < ARRAY_LEN(options); k++)
		longs[k] = (struct option){ options[k].name, options[k].argument ? required_argument : no_argument,
			NULL, (int)k + 1000 };
	longs[ARRAY_LEN(options)] = (struct option){ "help", no_argument, NULL, 'h' };
	while ((o = getopt_long(argc, argv, "h", longs, &i)) != -1) {
		if (o == 'h') {
			usage(stdout);
			*status = 0;
			return 1;
		}
		if (o < 1000) {
			*status = STATUS_USAGE;
			return 1;
		}
		if (options[o - 1000].set(b, optarg)) {
			fprintf(stderr, "lodge: %s\n", b->e.text);
			*status = b->e.code == ERR_USAGE || b->e.code == ERR_INVALID ? STATUS_USAGE : STATUS_HOST;
			return 1;
		}
	}
	if (optind == argc)
		return 0;
	fprintf(stderr, "lodge: '%s' is not an option; see 'lodge boot --help'\n", argv[optind]);
	*status = STATUS_USAGE;
	return 1;
}

/* ---- the end ---- */

static void
save_screen(struct boot *b, struct vm *v)
{
	unsigned width, height;
	uint8_t *png;
	size_t len;
	struct err e;

	if (vm_screenshot(v, 0, &png, &len, &width, &height, &e) == 0) {
		if (file_replace(b->png, png, len, 0644, &e))
			fprintf(stderr, "lodge: %s\n", e.text);
		free(png);
	} else {
		fprintf(stderr, "lodge: %s\n", e.text);
	}
}

static void
save_text(struct boot *b, struct vm *v)
{
	char text[64 * 1024];
	struct err e;

	if (file_replace(b->text, text, vm_screen_text(v, text, sizeof(text)), 0644, &e))
		fprintf(stderr, "lodge: %s\n", e.text);
}

static void
print_stats(struct boot *b, struct vm *v)
{
	struct cpus *c = pc_cpus(vm_pc(v));
	double seconds = (double)(loop_now() - b->started) / 1e9;
	const char *why, *engine = vm_engine(v, &why);
	uint64_t insns = 0, misses = 0;

	fprintf(stderr, "engine %s (%s), %.2f s\n", engine, why, seconds);
	for (int i = 0; i < c->count; i++) {
		struct cpu_counters *n = &c->cpu[i]->count;

		fprintf(stderr, "cpu%d\n", i);
#define ROW(name, text) fprintf(stderr, "  %-16s %16llu  %s\n", #name, (unsigned long long)n->name, text);
		CPU_COUNTERS(ROW)
#undef ROW
		if (c->engine->print_stats)
			c->engine->print_stats(c->cpu[i], stderr);
		insns += n->insns;
		misses += n->tlb_misses;
	}
	if (insns && !strcmp(engine, "interp")) /* a translator does not count what it translated */
		fprintf(stderr, "%.1f million instructions a second over all, %.0f TLB misses in a million\n",
			(double)insns / seconds / 1e6, (double)misses * 1e6 / (double)insns);
}

/* "ADDR[,FILE]", on every CPU that has something there. */
static void
dump_block(struct boot *b, struct vm *v)
{
	struct cpus *c = pc_cpus(vm_pc(v));
	char *rest = b->block, *address = next_part(&rest);
	FILE *f = rest ? fopen(rest, "w") : stderr;
	uint64_t a;

	if (!f)
		fprintf(stderr, "lodge: cannot write %s\n", rest);
	else if (!str_to_u64(address, 0, UINT64_MAX, &a))
		fprintf(stderr, "lodge: --dump-block: '%s' is not an address\n", address);
	else if (!c->engine->dump)
		fprintf(stderr, "lodge: the engine '%s' makes no translations\n", c->engine->name);
	else
		for (int i = 0; i < c->count; i++)
			c->engine->dump(c->cpu[i], a, f);
	if (f && f != stderr)
		fclose(f);
}

static void
ending(struct vm *v, void *opaque)
{
	struct boot *b = opaque;

	if (b->png)
		save_screen(b, v);
	if (b->text)
		save_text(b, v);
	if (b->stats)
		print_stats(b, v);
	if (b->block)
		dump_block(b, v);
	vm_print_trace(v, stderr);
}

static int
exit_status(const struct vm_outcome *out)
{
	switch (out->end) {
	case VM_END_GUEST_OFF:
		return STATUS_OFF;
	case VM_END_DEBUG_EXIT:
		return out->status & 0xff;
	case VM_END_TRIPLE_FAULT:
		return STATUS_TRIPLE_FAULT;
	case VM_END_ERROR:
		return STATUS_ENGINE;
	case VM_END_TIMEOUT:
		return STATUS_TIMEOUT;
	case VM_END_RESET:
		return STATUS_RESET;
	case VM_END_STOPPED:
	case VM_END_SAVED:
	case VM_END_NONE:
		break;
	}
	return STATUS_STOPPED;
}

static int
run(struct boot *b)
{
	struct vm_outcome out;
	struct vm *v = vm_open(b->c, &b->o);

	b->c = NULL;
	b->started = loop_now();
	signal(SIGPIPE, SIG_IGN);
	if (vm_power_on(v, &b->e)) {
		vm_close(v);
		fprintf(stderr, "lodge: %s\n", b->e.text);
		return STATUS_HOST;
	}
	vm_run(v, &out);
	vm_close(v);
	if (out.end != VM_END_GUEST_OFF && out.end != VM_END_DEBUG_EXIT)
		fprintf(stderr, "lodge: %s\n", out.reason);
	return exit_status(&out);
}

int
lodge_boot(int argc, char **argv)
{
	const char *engine = getenv("LODGE_ENGINE");
	struct boot b = { .c = vm_config_new("boot") };
	int status;

	b.o = (struct vm_options){
		.foreground = true, .catch_signals = true, .end_on_guru = true, .ending = ending, .opaque = &b
	};
	log_set_level(LOG_ERROR); /* what a guest does wrong is not the user's problem; --verbose shows it */
	if (engine && engine[0])
		set_text(&b.c->engine, engine);
	if (parse(&b, argc, argv, &status))
		goto out;
	if (b.dvd_first) {
		b.c->boot[0] = VM_BOOT_DVD;
		b.c->boot[1] = VM_BOOT_DISK;
	}
	if (b.o.gdb_wait && !b.o.gdb) {
		fprintf(stderr, "lodge: --gdb-wait needs --gdb\n");
		status = STATUS_USAGE;
		goto out;
	}
	if (vm_config_check(b.c, &b.e)) {
		fprintf(stderr, "lodge: %s\n", b.e.text);
		status = STATUS_USAGE;
		goto out;
	}
	status = run(&b);
out:
	vm_config_free(b.c);
	free(b.png);
	free(b.block);
	free(b.text);
	return status;
}
