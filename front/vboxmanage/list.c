/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list and hostinfo.
 */
#include <cpuid.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "front/vboxmanage/network.h"
#include "front/vboxmanage/vbm.h"

static const struct site inventory = { "VirtualBox", "COMGETTER(Machines)(ComSafeArrayAsOutParam(machines))", 1700,
	"VBoxManageList.cpp" };

/* How a list is wanted. */
struct how {
	bool full, sorted;
};

static int
by_name(const void *a, const void *b)
{
	return strcasecmp((*(struct host_vm *const *)a)->name, (*(struct host_vm *const *)b)->name);
}

static int
list_machines(struct cli *c, const struct how *how, bool only_running)
{
	struct host_vm **vms;
	struct err e = { 0 };
	size_t count;

	if (host_vms_load(c->host, &vms, &count, &e))
		return fail_api(c, &e, &inventory);
	if (how->sorted)
		qsort(vms, count, sizeof(*vms), by_name);
	for (size_t i = 0; i < count; i++) {
		if (only_running && vms[i]->state != HOST_RUNNING && vms[i]->state != HOST_PAUSED &&
			vms[i]->state != HOST_LIVE_SNAPSHOTTING && vms[i]->state != HOST_ONLINE_SNAPSHOTTING)
			continue;
		if (how->full)
			show_vm(c, vms[i]);
		else
			printf("\"%s\" {%s}\n", vms[i]->name, vms[i]->uuid);
	}
	host_vms_free(vms, count);
	return 0;
}

static int
list_vms(struct cli *c, const struct how *how)
{
	return list_machines(c, how, false);
}

static int
list_runningvms(struct cli *c, const struct how *how)
{
	return list_machines(c, how, true);
}

static int
list_media(struct cli *c, const struct how *how, enum host_device type)
{
	struct host_medium *m;
	struct err e = { 0 };
	size_t count;

	if (host_media_load(c->host, type, &m, &count, &e))
		return fail_api(c, &e, &inventory);
	for (size_t i = 0; i < count; i++) {
		show_medium(&m[i], how->full);
		putchar('\n');
	}
	host_media_free(m, count);
	return 0;
}

static int
list_hdds(struct cli *c, const struct how *how)
{
	return list_media(c, how, HOST_DISK);
}

static int
list_dvds(struct cli *c, const struct how *how)
{
	return list_media(c, how, HOST_DVD);
}

static int
list_floppies(struct cli *c, const struct how *how)
{
	return list_media(c, how, HOST_FLOPPY);
}

static void
print_ostype(const struct host_ostype *t)
{
	printf("ID:          %s\nDescription: %s\nFamily ID:   %s\nFamily Desc: %s\n64 bit:      %s\n\n", t->id,
		t->description, t->family, t->family_description, t->is_64bit ? "true" : "false");
}

static int
list_ostypes(struct cli *c, const struct how *how)
{
	const struct host_ostype *t;

	for (size_t i = 0; (t = host_ostype_at(i)); i++)
		print_ostype(t);
	return 0;
}

static void
print_cpu(const struct host_cpu *cpu)
{
	static const char *const yes_no[] = { "no", "yes" };

	printf("Processor online count: %u\nProcessor count: %u\n", cpu->online, cpu->count);
	printf("Processor online core count: %u\nProcessor core count: %u\n", cpu->online_cores, cpu->cores);
	printf("Processor supports HW virtualization: %s\n", yes_no[cpu->hw_virt]);
	printf("Processor supports PAE: %s\n", yes_no[cpu->pae]);
	printf("Processor supports long mode: %s\n", yes_no[cpu->long_mode]);
	printf("Processor supports nested paging: %s\n", yes_no[cpu->nested_paging]);
	printf("Processor supports unrestricted guest: %s\n", yes_no[cpu->unrestricted]);
	printf("Processor supports nested HW virtualization: %s\n", yes_no[cpu->nested_virt]);
	printf("Processor supports virt. vmsave/vmload: %s\n", yes_no[cpu->vmsave]);
	for (unsigned i = 0; i < cpu->count; i++) {
		if (cpu->mhz[i])
			printf("Processor#%u speed: %u MHz\n", i, cpu->mhz[i]);
		else
			printf("Processor#%u speed: unknown\n", i);
		printf("Processor#%u description: %s\n", i, cpu->model);
	}
}

static int
list_hostinfo(struct cli *c, const struct how *how)
{
	struct host_hw hw;
	struct timespec now;
	char stamp[40];

	clock_gettime(CLOCK_REALTIME, &now);
	host_hw_get(&hw);
	printf("Host Information:\n\nHost time: %sZ\n",
		time_text((int64_t)now.tv_sec * 1000000000 + now.tv_nsec, stamp));
	print_cpu(&hw.cpu);
	printf("Memory size: %llu MByte\nMemory available: %llu MByte\nOperating system: %s\n"
	       "Operating system version: %s\n",
		(unsigned long long)hw.memory_mb, (unsigned long long)hw.memory_free_mb, hw.os, hw.release);
	host_hw_release(&hw);
	return 0;
}

int
cmd_hostinfo(struct cli *c, int argc, char **argv)
{
	char name[32], why[1024];
	struct err e = { 0 };

	if (argc)
		return fail_syntax(c, "Invalid parameter '%s'", argv[0]);
	if (!cli_host(c))
		return 1;
	list_hostinfo(c, NULL);
	if (host_engine(c->host, NULL, name, sizeof(name), why, sizeof(why), &e))
		printf("Engine: unknown\nEngine reason: %s\n", e.text);
	else
		printf("Engine: %s\nEngine reason: %s\n", name, why);
	return 0;
}

static void
property(const char *label, const char *value)
{
	int n = printf("%s:", label);

	printf("%*s %s\n", n < 32 ? 32 - n : 0, "", value);
}

/* What the virtual PC has of each kind of controller. */
static void
print_buses(void)
{
	static const struct {
		const char *name;
		int controllers, ports, devices;
	} buses[] = { { "IDE", 1, 2, 2 }, { "SATA", 1, 30, 1 }, { "SCSI", 1, 16, 1 }, { "SAS", 1, 8, 1 },
		{ "NVMe", 1, 64, 1 }, { "virtio-scsi", 1, 64, 1 }, { "virtio-blk", 1, 30, 1 }, { "Floppy", 1, 1, 2 } };
	char label[64], value[16];

	for (size_t i = 0; i < ARRAY_LEN(buses); i++) {
		snprintf(value, sizeof(value), "%d", buses[i].controllers);
		snprintf(label, sizeof(label), "Maximum PIIX3 %s Controllers", buses[i].name);
		property(label, value);
		snprintf(label, sizeof(label), "Maximum ICH9 %s Controllers", buses[i].name);
		property(label, "0");
		snprintf(value, sizeof(value), "%d", buses[i].ports);
		snprintf(label, sizeof(label), "Maximum %s Port count", buses[i].name);
		property(label, value);
		snprintf(value, sizeof(value), "%d", buses[i].devices);
		snprintf(label, sizeof(label), "Maximum Devices per %s Port", buses[i].name);
		property(label, value);
	}
}

static int
list_systemproperties(struct cli *c, const struct how *how)
{
	char *additions = host_additions_path();

	property("API version", "7_0");
	property("Minimum guest RAM size", "4 Megabytes");
	property("Maximum guest RAM size", "1048576 Megabytes");
	property("Minimum video RAM size", "1 Megabytes");
	property("Maximum video RAM size", "256 Megabytes");
	property("Maximum guest monitor count", "1");
	property("Minimum guest CPU count", "1");
	property("Maximum guest CPU count", "64");
	property("Virtual disk limit (info)", "1125899906842624 Bytes");
	property("Maximum Serial Port count", "4");
	property("Maximum Parallel Port count", "0");
	property("Maximum Boot Position", "4");
	property("Maximum PIIX3 Network Adapter count", "8");
	property("Maximum ICH9 Network Adapter count", "0");
	print_buses();
	property("Default machine folder", host_machine_folder(c->host));
	property("Raw-mode Supported", "no");
	property("Exclusive HW virtualization use", "off");
	property("Default hard disk format", "VDI");
	property("VRDE auth library", "");
	property("Webservice auth. library", "");
	property("Remote desktop ExtPack", "");
	property("VM encryption ExtPack", "");
	property("Log history count", "3");
	property("Default frontend", "");
	property("Default audio driver", "none");
	property("Autostart database path", "");
	property("Default Guest Additions ISO", additions ? additions : "");
	free(additions);
	property("Logging Level", "all");
	property("Proxy Mode", "NoProxy");
	property("Proxy URL", "");
	property("User language", "en_US");
	return 0;
}

#define NETWORK_LIST(name)                                                                                             \
	static int network_##name(struct cli *c, const struct how *how)                                                \
	{                                                                                                              \
		return list_##name(c, how->full);                                                                      \
	}
NETWORK_LIST(bridgedifs)
NETWORK_LIST(hostonlyifs)
NETWORK_LIST(hostonlynets)
NETWORK_LIST(natnetworks)
NETWORK_LIST(dhcpservers)
NETWORK_LIST(intnets)

static int
list_nothing(struct cli *c, const struct how *how)
{
	return 0;
}

static int
list_extpacks(struct cli *c, const struct how *how)
{
	printf("Extension Packs: 0\n");
	return 0;
}

static int
list_usbhost(struct cli *c, const struct how *how)
{
	printf("Host USB Devices:\n\n<none>\n\n");
	return 0;
}

static int
list_usbfilters(struct cli *c, const struct how *how)
{
	printf("Global USB Device Filters:\n\n<none>\n\n");
	return 0;
}

static int
list_screenshotformats(struct cli *c, const struct how *how)
{
	printf("Supported screen shot formats: PNG\n");
	return 0;
}

/* Block devices of this host whose names begin with one of the two prefixes, as /sys/block has them. */
static int
each_block_device(const char *prefix, const char *other, void (*show)(const char *name))
{
	struct dirent **list;
	int n = scandir("/sys/block", &list, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (str_starts(list[i]->d_name, prefix) || (other && str_starts(list[i]->d_name, other)))
			show(list[i]->d_name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return 0;
}

/* A drive has no UUID of its own: it follows from its name, as with host-only interfaces. */
static void
show_host_drive(const char *name)
{
	printf("UUID:         %08x-0000-4000-8000-%012x\nName:         /dev/%s\n\n",
		0x6472u << 16 | (unsigned char)name[0], (unsigned)atoi(name + strcspn(name, "0123456789")), name);
}

static int
list_hostdvds(struct cli *c, const struct how *how)
{
	return each_block_device("sr", NULL, show_host_drive);
}

static int
list_hostfloppies(struct cli *c, const struct how *how)
{
	return each_block_device("fd", NULL, show_host_drive);
}

static void
show_host_disk(const char *name)
{
	char path[320];
	unsigned long long sectors = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/size", name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%llu", &sectors) != 1)
		sectors = 0;
	if (f)
		fclose(f);
	printf("Drive:       /dev/%s\nSize:        %llu MBytes\n\n", name, sectors / 2048);
}

static int
list_hostdrives(struct cli *c, const struct how *how)
{
	each_block_device("sd", "nvme", show_host_disk);
	return each_block_device("vd", NULL, show_host_disk);
}

static int
list_hddbackends(struct cli *c, const struct how *how)
{
	static const struct {
		const char *id, *text, *extensions;
	} rows[] = {
		{ "VMDK", "VMDK", "vmdk (HardDisk)" },
		{ "VDI", "VDI", "vdi (HardDisk)" },
		{ "VHD", "VHD", "vhd (HardDisk)" },
		{ "VHDX", "VHDX", "vhdx (HardDisk)" },
		{ "QCOW2", "QCOW2", "qcow2 (HardDisk)" },
		{ "RAW", "RAW", "img (HardDisk,Floppy),iso (DVD)" },
	};

	printf("Supported hard disk backends:\n\n");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		printf("Backend %zu: id='%s' description='%s' capabilities=0x0 extensions='%s'\n", i, rows[i].id,
			rows[i].text, rows[i].extensions);
	return 0;
}

static int
list_hostcpuids(struct cli *c, const struct how *how)
{
	static const unsigned bases[] = { 0, 0x80000000u };
	unsigned eax, ebx, ecx, edx, last;

	printf("Host CPUIDs:\n\nLeaf no.  EAX      EBX      ECX      EDX\n");
	for (size_t b = 0; b < ARRAY_LEN(bases); b++) {
		last = __get_cpuid_max(bases[b], NULL);
		for (unsigned leaf = bases[b]; last >= bases[b] && leaf <= last; leaf++) {
			__cpuid_count(leaf, 0, eax, ebx, ecx, edx);
			printf("%08x  %08x %08x %08x %08x\n", leaf, eax, ebx, ecx, edx);
		}
	}
	return 0;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every group some machine is in, and "/". */
static int
list_groups(struct cli *c, const struct how *how)
{
	struct host_vm **vms;
	struct err e = { 0 };
	size_t count, n = 1;
	char **groups;

	if (host_vms_load(c->host, &vms, &count, &e))
		return fail_api(c, &e, &inventory);
	groups = xcalloc(1, sizeof(*groups));
	groups[0] = xstrdup("/");
	for (size_t i = 0; i < count; i++) {
		char *copy = xstrdup(host_vm_get(vms[i], HK_GROUPS, 0)), *rest = copy, *word;

		while ((word = strsep(&rest, ","))) {
			groups = realloc(groups, (n + 1) * sizeof(*groups));
			if (!groups)
				abort();
			groups[n++] = xstrdup(word);
		}
		free(copy);
	}
	host_vms_free(vms, count);
	qsort(groups, n, sizeof(*groups), by_text);
	for (size_t i = 0; i < n; i++)
		if (!i || strcmp(groups[i], groups[i - 1]))
			printf("\"%s\"\n", groups[i]);
	for (size_t i = 0; i < n; i++)
		free(groups[i]);
	free(groups);
	return 0;
}

static const struct list {
	const char *name;
	int (*run)(struct cli *c, const struct how *how);
} lists[] = {
	{ "vms", list_vms },
	{ "runningvms", list_runningvms },
	{ "ostypes", list_ostypes },
	{ "hostdvds", list_hostdvds },
	{ "hostfloppies", list_hostfloppies },
	{ "intnets", network_intnets },
	{ "bridgedifs", network_bridgedifs },
	{ "hostonlyifs", network_hostonlyifs },
	{ "hostonlynets", network_hostonlynets },
	{ "natnets", network_natnetworks },
	{ "natnetworks", network_natnetworks },
	{ "dhcpservers", network_dhcpservers },
	{ "hostinfo", list_hostinfo },
	{ "hostcpuids", list_hostcpuids },
	{ "hddbackends", list_hddbackends },
	{ "hdds", list_hdds },
	{ "dvds", list_dvds },
	{ "floppies", list_floppies },
	{ "usbhost", list_usbhost },
	{ "usbfilters", list_usbfilters },
	{ "systemproperties", list_systemproperties },
	{ "extpacks", list_extpacks },
	{ "groups", list_groups },
	{ "webcams", list_nothing },
	{ "screenshotformats", list_screenshotformats },
	{ "cpu-profiles", list_nothing },
	{ "hostdrives", list_hostdrives },
	{ "cloudproviders", list_nothing },
	{ "cloudprofiles", list_nothing },
	{ "cloudnets", list_nothing },
	{ "updates", list_nothing },
};

static const struct list *
find_list(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		if (!strcmp(word, lists[i].name))
			return &lists[i];
	return NULL;
}

int
cmd_list(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "long", 0, OPT_FLAG, 'l', 0 },
		{ "sorted", 1, OPT_FLAG, 's', 0 },
		{ "multiple", 2, OPT_FLAG, 'm', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const struct list *l = NULL;
	struct how how = { 0 };

	for (;;) {
		switch (args_next(&a)) {
		case 0:
			how.full = true;
			break;
		case 1:
			how.sorted = true;
			break;
		case 2:
			break;
		case ARG_WORD:
			if (l)
				return fail_syntax(c, "Too many subcommands for \"list\" command.");
			l = find_list(a.text);
			if (!l)
				return fail_syntax(c, "Unknown subcommand \"%s\".", a.text);
			break;
		case ARG_END:
			if (!l)
				return fail_syntax(c, "Missing subcommand for \"list\" command.");
			return cli_host(c) ? l->run(c, &how) : 1;
		default:
			return 2;
		}
	}
}
