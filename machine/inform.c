/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What firmware is told about the machine: memory sizes, boot order and the number of CPUs in CMOS (RBIL CMOS.LST; QEMU
 * and Bochs for what is above 0x30), everything else as items of the firmware configuration device.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "machine/board.h"
#include "machine/bootorder.h"
#include "machine/firmware.h"
#include "machine/fwcfg.h"

static void
set_cmos16(struct pc *p, uint8_t index, uint64_t value)
{
	if (value > 0xffff)
		value = 0xffff;
	mc146818_cmos_set(p->rtc, index, (uint8_t)value);
	mc146818_cmos_set(p->rtc, index + 1, (uint8_t)(value >> 8));
}

/* Types of the drives, and the equipment byte: FPU, PS/2 mouse, floppy drives. */
static void
fill_floppies(struct pc *p)
{
	uint8_t a = p->floppy ? fdc_drive_type(p->floppy, 0) : 0, b = p->floppy ? fdc_drive_type(p->floppy, 1) : 0;

	mc146818_cmos_set(p->rtc, 0x10, (uint8_t)(a << 4 | b));
	mc146818_cmos_set(p->rtc, 0x14, (uint8_t)(0x06 | (a || b ? 1 : 0) | (a && b ? 0x40 : 0)));
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
	fill_floppies(p);
	mc146818_cmos_set(p->rtc, 0x39, 0x55); /* LBA translation for all disks */
	mc146818_cmos_set(p->rtc, 0x3d, (uint8_t)(c->boot[0] | c->boot[1] << 4));
	mc146818_cmos_set(p->rtc, 0x38, (uint8_t)(c->boot[2] << 4 | 1)); /* bit 0: no floppy signature check */
	mc146818_cmos_set(p->rtc, 0x5f, (uint8_t)(c->cpu.count - 1));
}

struct acpi_options
inform_acpi(const struct pc *p)
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

struct smbios_options
inform_smbios(const struct pc *p)
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
	struct acpi_options o = inform_acpi(p);
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
	struct smbios_options o = inform_smbios(p);
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
			give_boot_rom(p, "e1000", "pxe-e1000.rom", "pci8086,1004.rom");
			give_boot_rom(p, "e1000", "pxe-e1000.rom", "pci8086,100f.rom");
			give_boot_rom(p, "pcnet", "pxe-pcnet.rom", "pci1022,2000.rom");
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

void
inform_firmware(struct pc *p)
{
	fill_cmos(p);
	fill_fwcfg(p);
}
