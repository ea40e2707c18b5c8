/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC: an i440FX/PIIX3 board of the late nineties with today's processors and virtio devices.
 *
 *	0:0.0   82441FX   host bridge
 *	0:1.0   PIIX3     ISA bridge; 0:1.1 its IDE; 0:1.3 power management (PIIX4)
 *	0:2.0   VGA
 *	0:3.0 - devices a user asked for, in order, unless they name a slot
 *
 *	0x00000000  memory, up to PC_RAM_BELOW_4G; the rest from 4 GiB on
 *	0x000a0000  video memory, 0x000c0000 option ROMs and the end of the firmware, until PAM says memory
 *	0xfec00000  I/O APIC, 0xfed00000 HPET, 0xfee00000 local APICs
 *	end of 4 G  firmware
 *
 * build_board() is the parts list.
 */
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dev/dev.h"
#include "machine/acpi.h"
#include "machine/bootorder.h"
#include "machine/bringup.h"
#include "machine/firmware.h"
#include "machine/fwcfg.h"
#include "machine/kernel.h"

#define SLOT_PIIX 1
#define SLOT_VGA 2

struct pc {
	struct machine m;
	struct cpus cpus;
	const struct pc_config *c;
	bool paused, started;

	struct ram *ram, *bios;
	uint32_t ram_below_4g;
	struct mem_region low, high, rom;
	struct e820 map[8];
	int map_count;

	struct i8259 *pic;
	struct ioapic *ioapic;
	struct isairq *isa;
	struct hpet *hpet;
	struct piix4pm *pm;
	struct mc146818 *rtc;
	struct i8042 *keyboard;
	struct vga *vga;
	struct fwcfg *fwcfg;

	struct kernel *kernel;
};

/* ---- memory ---- */

static void
map_region(struct pc *p, struct mem_region *r, const char *name, gpa_t base, uint64_t size, struct ram *ram,
	uint64_t offset)
{
	*r = (struct mem_region){
		.name = name,
		.kind = r == &p->rom ? MEM_ROM : MEM_RAM,
		.enabled = true,
		.base = base,
		.size = size,
		.ram = ram,
		.ram_offset = offset,
	};
	mem_add(&p->m.mem, r);
}

static void
add_map(struct pc *p, uint64_t start, uint64_t len, uint32_t type)
{
	if (len)
		p->map[p->map_count++] = (struct e820){ start, len, type };
}

static int
build_memory(struct pc *p, struct err *e)
{
	uint64_t size = p->c->ram, below = MIN(size, (uint64_t)PC_RAM_BELOW_4G);

	p->ram = ram_create(&p->m.mem, "ram", size);
	if (!p->ram)
		return err_set(e, ERR_HOST, "this host has no %llu MiB of memory for the machine",
			(unsigned long long)(size >> 20));
	p->ram_below_4g = (uint32_t)below;
	map_region(p, &p->low, "ram", 0, below, p->ram, 0);
	if (size > below)
		map_region(p, &p->high, "ram-above-4g", 1ull << 32, size - below, p->ram, below);
	return 0;
}

static int
build_firmware(struct pc *p, struct err *e)
{
	/* A kernel does not need any; the reset vector then finds nothing. */
	if (p->kernel && !p->c->firmware)
		p->bios = ram_create(&p->m.mem, "bios", 1 << 16);
	else
		p->bios = firmware_load(&p->m, p->c->firmware, e);
	if (!p->bios)
		return -1;
	map_region(p, &p->rom, "bios", (1ull << 32) - p->bios->size, p->bios->size, p->bios, 0);
	return 0;
}

/* ---- the board ---- */

static void
build_board(struct pc *p)
{
	const struct pc_config *c = p->c;
	struct machine *m = &p->m;
	struct lapic *bsp = lapic_create(m, 0);
	struct irq irq0, irq8;

	for (int i = 1; i < c->cpu.count; i++)
		lapic_create(m, i);
	p->pic = i8259_create(m, lapic_input(bsp, 0));
	p->ioapic = ioapic_create(m, 0, PC_IOAPIC_BASE);
	p->isa = isairq_create(m, p->pic, p->ioapic);
	i440fx_create(m, p->ram, p->bios);
	piix3_create(m, SLOT_PIIX, p->isa);
	p->pm = piix4pm_create(m, SLOT_PIIX, isairq_input(p->isa, PC_SCI_IRQ));
	if (c->hpet) {
		p->hpet = hpet_create(m, PC_HPET_BASE, p->isa, p->ioapic);
		irq0 = hpet_legacy_input(p->hpet, 0);
		irq8 = hpet_legacy_input(p->hpet, 1);
	} else {
		irq0 = isairq_input(p->isa, 0);
		irq8 = isairq_input(p->isa, 8);
	}
	i8254_create(m, irq0);
	p->rtc = mc146818_create(m, irq8, c->rtc_local, c->rtc_offset_s);
	p->keyboard = i8042_create(m, isairq_input(p->isa, 1), isairq_input(p->isa, 12));
	for (int i = 0; i < PC_SERIAL_MAX; i++)
		if (c->serial[i].base)
			ns16550_create(m, c->serial[i].base, isairq_input(p->isa, c->serial[i].irq), c->serial[i].cd);
	p->fwcfg = fwcfg_create(m);
	if (c->firmware_log)
		debugcon_create(m, 0x402, NULL);
}

/* ---- the catalogue: devices a user can name ---- */

static int
make_vga(struct pc *p, struct pc_device *d, struct err *e)
{
	char *path = firmware_search("vgabios-stdvga.bin");
	size_t len = 0;
	void *rom = path ? file_read(path, 1 << 16, &len, NULL) : NULL;

	if (!rom)
		log_warn(p->m.name, "there is no VGA BIOS (vgabios-stdvga.bin) on this host: firmware shows nothing");
	p->vga = vga_create(&p->m, d->slot < 0 ? SLOT_VGA : d->slot, d->vram, rom, rom ? len : 0);
	free(rom);
	free(path);
	d->made = p->vga;
	return p->vga ? 0 : err_set(e, ERR_HOST, "no memory for a VGA with %llu bytes", (unsigned long long)d->vram);
}

static int
make_debug_exit(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = debugexit_create(&p->m, 0xf4, 4);
	return 0;
}

static int
make_testdev(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = testdev_create(&p->m, p->isa, p->ioapic);
	return 0;
}

static struct drive_config
drive_config(const struct pc_drive *d)
{
	return (struct drive_config){
		.block = d->block,
		.cdrom = d->dvd,
		.nonrotational = d->nonrotational,
		.discard = d->discard,
		.serial = d->serial[0] ? d->serial : NULL,
		.ejected = d->ejected,
		.opaque = d->opaque,
	};
}

static int
make_ide(struct pc *p, struct pc_device *d, struct err *e)
{
	struct ide_wires wires = { .irq = { isairq_input(p->isa, 14), isairq_input(p->isa, 15) } };
	struct ide *ide = ide_create(&p->m, SLOT_PIIX, 1, &wires);

	d->made = ide;
	if (!ide)
		return err_set(e, ERR_INVALID, "a machine can have one IDE controller");
	for (int i = 0; i < d->drive_count; i++) {
		struct drive_config c = drive_config(&d->drives[i]);

		if (ide_attach(ide, d->drives[i].unit / 2, d->drives[i].unit % 2, &c, e))
			return -1;
	}
	return 0;
}

static int
make_ahci(struct pc *p, struct pc_device *d, struct err *e)
{
	struct ahci *ahci = ahci_create(&p->m, d->slot, d->ports, e);

	d->made = ahci;
	for (int i = 0; ahci && i < d->drive_count; i++) {
		struct drive_config c = drive_config(&d->drives[i]);

		if (ahci_attach(ahci, d->drives[i].unit, &c, e))
			return -1;
	}
	return ahci ? 0 : -1;
}

static int
make_e1000(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = e1000_create(&p->m, d->slot, d->variant ? d->variant : "82540EM", d->link, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_blk(struct pc *p, struct pc_device *d, struct err *e)
{
	const struct pc_drive *drive = &d->drives[0];

	d->made = virtio_blk_create(&p->m, d->slot, 0, drive->block, drive->serial[0] ? drive->serial : NULL, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_net(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_net_create(&p->m, d->slot, 0, d->link, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_console(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_console_create(&p->m, d->slot, 0, d->cd, e);
	if (d->made)
		d->cd = NULL;
	return d->made ? 0 : -1;
}

static int
make_virtio_rng(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_rng_create(&p->m, d->slot, 0, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_balloon(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_balloon_create(&p->m, d->slot, 0, e);
	return d->made ? 0 : -1;
}

static const struct device_type {
	const char *name;
	int (*make)(struct pc *p, struct pc_device *d, struct err *e);
} catalogue[] = {
	{ "vga", make_vga },
	{ "ide", make_ide },
	{ "ahci", make_ahci },
	{ "e1000", make_e1000 },
	{ "virtio-blk", make_virtio_blk },
	{ "virtio-net", make_virtio_net },
	{ "virtio-console", make_virtio_console },
	{ "virtio-rng", make_virtio_rng },
	{ "virtio-balloon", make_virtio_balloon },
	{ "debug-exit", make_debug_exit },
	{ "testdev", make_testdev },
};

const char *
pc_device_type(int n)
{
	return n >= 0 && n < (int)ARRAY_LEN(catalogue) ? catalogue[n].name : NULL;
}

/* Where on the PCI bus `d` went: the place that was empty in `before`. */
static void
note_place(struct pc *p, struct pc_device *d, struct pci_dev *const before[])
{
	for (size_t i = 0; i < ARRAY_LEN(p->m.pci.devs); i++)
		if (p->m.pci.devs[i] && !before[i]) {
			d->pci_slot = p->m.pci.devs[i]->slot;
			d->pci_function = p->m.pci.devs[i]->function;
		}
}

static int
build_device(struct pc *p, struct pc_device *d, struct err *e)
{
	struct pci_dev *before[ARRAY_LEN(p->m.pci.devs)];

	memcpy(before, p->m.pci.devs, sizeof(before));
	for (size_t i = 0; i < ARRAY_LEN(catalogue); i++)
		if (!strcmp(d->type, catalogue[i].name)) {
			if (catalogue[i].make(p, d, e))
				return -1;
			note_place(p, d, before);
			return 0;
		}
	return err_set(e, ERR_INVALID, "there is no device '%s'", d->type);
}

static int
build_devices(struct pc *p, struct err *e)
{
	for (int i = 0; i < p->c->device_count; i++)
		if (build_device(p, &p->c->devices[i], e))
			return -1;
	return 0;
}

/* ---- what firmware is told ---- */

static void
set_cmos16(struct pc *p, uint8_t index, uint64_t value)
{
	if (value > 0xffff)
		value = 0xffff;
	mc146818_cmos_set(p->rtc, index, (uint8_t)value);
	mc146818_cmos_set(p->rtc, index + 1, (uint8_t)(value >> 8));
}

static void
fill_cmos(struct pc *p)
{
	const struct pc_config *c = p->c;
	uint64_t above = (c->ram - p->ram_below_4g) >> 16;

	set_cmos16(p, 0x15, 640);
	set_cmos16(p, 0x17, (p->ram_below_4g >> 10) - 1024);
	set_cmos16(p, 0x30, (p->ram_below_4g >> 10) - 1024);
	set_cmos16(p, 0x34, p->ram_below_4g > 16u << 20 ? (p->ram_below_4g - (16u << 20)) >> 16 : 0);
	set_cmos16(p, 0x5b, above & 0xffff);
	mc146818_cmos_set(p->rtc, 0x5d, (uint8_t)(above >> 16));
	mc146818_cmos_set(p->rtc, 0x14, 0x06); /* equipment: FPU, PS/2 mouse; no floppy */
	mc146818_cmos_set(p->rtc, 0x39, 0x55); /* LBA translation for all disks */
	mc146818_cmos_set(p->rtc, 0x3d, (uint8_t)(c->boot[0] | c->boot[1] << 4));
	mc146818_cmos_set(p->rtc, 0x38, (uint8_t)(c->boot[2] << 4 | 1)); /* bit 0: no floppy signature check */
	mc146818_cmos_set(p->rtc, 0x5f, (uint8_t)(c->cpu.count - 1));
}

static struct acpi_options
acpi_options(const struct pc *p)
{
	struct acpi_options o = {
		.cpus = p->c->cpu.count,
		.hpet = p->c->hpet,
		.ram_below_4g = p->ram_below_4g,
	};

	for (int i = 0; i < PC_SERIAL_MAX; i++) {
		o.serial_base[i] = p->c->serial[i].base;
		o.serial_irq[i] = p->c->serial[i].irq;
	}
	return o;
}

static struct smbios_options
smbios_options(const struct pc *p)
{
	return (struct smbios_options){
		.strings = &p->c->smbios,
		.uuid = &p->c->uuid,
		.cpus = p->c->cpu.count,
		.ram = p->c->ram,
		.ram_below_4g = p->ram_below_4g,
	};
}

static void
give_acpi(struct pc *p)
{
	struct acpi_options o = acpi_options(p);
	struct acpi_tables t;
	struct str script = { 0 };

	acpi_build(&t, &o);
	acpi_loader_script(&t, &script);
	fwcfg_add_file(p->fwcfg, "etc/acpi/tables", t.tables.s, t.tables.len);
	fwcfg_add_file(p->fwcfg, "etc/acpi/rsdp", t.rsdp, sizeof(t.rsdp));
	fwcfg_add_file(p->fwcfg, "etc/table-loader", script.s, script.len);
	str_free(&script);
	acpi_free(&t);
}

static void
give_smbios(struct pc *p)
{
	struct smbios_options o = smbios_options(p);
	struct smbios_tables t;

	smbios_build(&t, &o);
	smbios_place(&t, 0);
	fwcfg_add_file(p->fwcfg, "etc/smbios/smbios-tables", t.tables.s, t.tables.len);
	fwcfg_add_file(p->fwcfg, "etc/smbios/smbios-anchor", t.anchor, sizeof(t.anchor));
	smbios_free(&t);
}

static void
give_memory_map(struct pc *p)
{
	uint8_t map[20 * 2];
	uint64_t above = p->c->ram - p->ram_below_4g;

	memset(map, 0, sizeof(map));
	put_le64(map + 8, p->ram_below_4g);
	put_le32(map + 16, 1);
	put_le64(map + 20, 1ull << 32);
	put_le64(map + 28, above);
	put_le32(map + 36, 1);
	fwcfg_add_file(p->fwcfg, "etc/e820", map, above ? 40 : 20);
}

/*
 * Network adapters have no ROM of their own here; firmware takes the boot code for a PCI identity from a file of this
 * name. (SeaBIOS, docs/Runtime_config: pciVVVV,DDDD.rom)
 */
static void
give_boot_rom(struct pc *p, const char *type, const char *file, const char *name)
{
	char *path;
	size_t len;
	void *rom;
	int i = 0;

	while (i < p->c->device_count && strcmp(p->c->devices[i].type, type))
		i++;
	if (i == p->c->device_count)
		return;
	path = firmware_search(file);
	rom = path ? file_read(path, 1 << 18, &len, NULL) : NULL;
	if (rom)
		fwcfg_add_file(p->fwcfg, name, rom, len);
	else
		log_warn(p->m.name, "there is no %s on this host (package ipxe-qemu): no boot from the network", file);
	free(rom);
	free(path);
}

static void
give_boot_order(struct pc *p)
{
	struct str order = { 0 };

	bootorder_text(p->c, &order);
	fwcfg_add_file(p->fwcfg, "bootorder", order.s, order.len);
	str_free(&order);
	for (size_t i = 0; i < ARRAY_LEN(p->c->boot); i++)
		if (p->c->boot[i] == PC_BOOT_NET) {
			give_boot_rom(p, "e1000", "pxe-e1000.rom", "pci8086,100e.rom");
			give_boot_rom(p, "virtio-net", "pxe-virtio.rom", "pci1af4,1000.rom");
		}
}

static void
fill_fwcfg(struct pc *p)
{
	const struct pc_config *c = p->c;
	uint64_t no_numa[1 + CPUS_MAX] = { 0 };
	struct fwcfg *f = p->fwcfg;
	uint8_t wait[2];

	put_le16(wait, 2000);
	fwcfg_add(f, FWCFG_UUID, c->uuid.b, sizeof(c->uuid.b));
	fwcfg_add_int(f, FWCFG_RAM_SIZE, p->ram_below_4g, 8);
	fwcfg_add_int(f, FWCFG_NOGRAPHIC, p->vga == NULL, 2);
	fwcfg_add_int(f, FWCFG_NB_CPUS, (unsigned)c->cpu.count, 2);
	fwcfg_add_int(f, FWCFG_MAX_CPUS, (unsigned)c->cpu.count, 2);
	fwcfg_add_int(f, FWCFG_BOOT_MENU, c->boot_menu, 2);
	fwcfg_add(f, FWCFG_NUMA, no_numa, 8 * (1 + (size_t)c->cpu.count));
	fwcfg_add_int(f, FWCFG_IRQ0_OVERRIDE, 1, 4);
	fwcfg_add_file(f, "etc/boot-menu-wait", wait, sizeof(wait));
	give_boot_order(p);
	give_memory_map(p);
	give_acpi(p);
	give_smbios(p);
}

/* ---- a kernel without firmware ---- */

static void
make_kernel_map(struct pc *p)
{
	p->map_count = 0;
	add_map(p, 0, 0x9fc00, 1);
	add_map(p, 0x9fc00, 0x400, 2);
	add_map(p, 0xe0000, 0x20000, 2);
	add_map(p, 0x100000, p->ram_below_4g - 0x100000, 1);
	add_map(p, 1ull << 32, p->c->ram - p->ram_below_4g, 1);
}

static int
start_kernel(struct pc *p, struct err *e)
{
	struct acpi_options a = acpi_options(p);
	struct smbios_options s = smbios_options(p);
	struct vcpu *bsp = p->cpus.cpu[0];
	struct kernel_env env;

	make_kernel_map(p);
	if (bringup_chipset(&p->m, p->ram_below_4g, e))
		return -1;
	env = (struct kernel_env){
		.mem = &p->m.mem,
		.map = p->map,
		.map_count = p->map_count,
		.ram_below_4g = p->ram_below_4g,
		.rsdp = bringup_tables(&p->m, &a, &s, e),
	};
	if (!env.rsdp || kernel_load(p->kernel, &env, &bsp->state, e))
		return -1;
	bsp->engine->put_state(bsp);
	return 0;
}

/* ---- life ---- */

struct pc *
pc_open(const char *name, struct err *e)
{
	struct pc *p = xcalloc(1, sizeof(*p));
	int r = machine_open(&p->m, name);

	if (r) {
		err_sys(e, ERR_HOST, r, "cannot make a machine");
		free(p);
		return NULL;
	}
	p->paused = true;
	return p;
}

/* What power-on and reset share: everything is in its reset state, the CPUs are parked. Machine lock held. */
static int
begin(struct pc *p, struct err *e)
{
	device_reset_all(&p->m);
	return p->kernel ? start_kernel(p, e) : 0;
}

static int
build_parts(struct pc *p, struct err *e)
{
	if (build_memory(p, e) || build_firmware(p, e))
		return -1;
	build_board(p);
	if (build_devices(p, e))
		return -1;
	fill_cmos(p);
	fill_fwcfg(p);
	return 0;
}

int
pc_build(struct pc *p, const struct pc_config *c, struct err *e)
{
	int r;

	p->c = c;
	if (c->ram < 2u << 20 || c->ram % (1u << 20))
		return err_set(e, ERR_INVALID, "a machine's memory is a whole number of MiB from 2 on");
	if (c->kernel && c->kernel[0]) {
		p->kernel = kernel_read(c, e);
		if (!p->kernel)
			return -1;
	}
	machine_lock(&p->m);
	r = build_parts(p, e);
	machine_unlock(&p->m);
	if (r || cpus_open(&p->cpus, &p->m, c->engine, &c->cpu, e))
		return -1;
	machine_lock(&p->m);
	r = begin(p, e);
	machine_unlock(&p->m);
	return r;
}

int
pc_power_on(struct pc *p, struct err *e)
{
	p->started = true;
	if (cpus_start(&p->cpus, e))
		return -1;
	pc_resume(p);
	return 0;
}

void
pc_resume(struct pc *p)
{
	if (!p->paused)
		return;
	machine_lock(&p->m);
	clock_start(&p->m.clock);
	machine_unlock(&p->m);
	cpus_resume(&p->cpus);
	p->paused = false;
}

void
pc_pause(struct pc *p)
{
	if (p->paused)
		return;
	cpus_pause(&p->cpus);
	machine_lock(&p->m);
	clock_stop(&p->m.clock);
	machine_unlock(&p->m);
	p->paused = true;
}

int
pc_reset(struct pc *p, struct err *e)
{
	bool paused = p->paused;
	int r;

	pc_pause(p);
	machine_lock(&p->m);
	device_drain_all(&p->m);
	cpus_reset(&p->cpus);
	r = begin(p, e);
	machine_unlock(&p->m);
	if (!paused && !r)
		pc_resume(p);
	return r;
}

void
pc_dismantle(struct pc *p)
{
	if (p->started)
		pc_pause(p);
	cpus_close(&p->cpus);
	machine_lock(&p->m);
	device_drain_all(&p->m);
	machine_destroy_devices(&p->m);
	machine_unlock(&p->m);
}

void
pc_close(struct pc *p)
{
	if (!p)
		return;
	machine_close(&p->m);
	kernel_free(p->kernel);
	free(p);
}

struct machine *
pc_machine(struct pc *p)
{
	return &p->m;
}

struct cpus *
pc_cpus(struct pc *p)
{
	return &p->cpus;
}

/* ---- people ---- */

int
pc_change_medium(struct pc *p, struct pc_device *d, int unit, struct block *medium, bool force, struct err *e)
{
	int r = -ENOENT;

	if (!strcmp(d->type, "ide"))
		r = ide_change_medium(d->made, unit / 2, unit % 2, medium, force);
	else if (!strcmp(d->type, "ahci"))
		r = ahci_change_medium(d->made, unit, medium, force);
	if (r == -EBUSY)
		return err_set(e, ERR_IN_USE, "the guest has locked the drive; try again, or force it");
	return r ? err_set(e, ERR_NOT_FOUND, "there is no DVD drive at place %d of this controller", unit) : 0;
}

bool
pc_power_button(struct pc *p)
{
	bool heard = piix4pm_acpi_enabled(p->pm);

	piix4pm_power_button(p->pm);
	return heard;
}

static bool
type_scancodes(void *opaque, const uint8_t *codes, size_t n)
{
	struct pc *p = opaque;

	return i8042_type(p->keyboard, codes, n) == n;
}

static void
move_pointer(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	struct pc *p = opaque;

	i8042_mouse(p->keyboard, dx, dy, dz, buttons);
}

struct input_sink
pc_input(struct pc *p)
{
	return (struct input_sink){ .opaque = p, .scancodes = type_scancodes, .pointer = move_pointer };
}

bool
pc_display(struct pc *p, struct display_source *out)
{
	if (p->vga)
		*out = vga_display(p->vga);
	return p->vga != NULL;
}
