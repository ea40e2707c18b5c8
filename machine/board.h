/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of one PC, shared by the files that put it together: pc.c (board and life), catalogue.c (devices a user can
 * name), inform.c (what firmware is told). Private to machine/.
 */
#ifndef MACHINE_BOARD_H
#define MACHINE_BOARD_H

#include "dev/dev.h"
#include "machine/acpi.h"
#include "machine/kernel.h"
#include "machine/machine.h"

#define SLOT_PIIX 1
#define SLOT_VGA 2

struct fwcfg;

struct pc {
	struct machine m;
	struct cpus cpus;
	const struct pc_config *c;
	pthread_mutex_t run_lock; /* of the three below */
	bool paused;
	int holds;  /* debuggers that keep the machine from running */
	bool still; /* it stands still, for one reason or the other */
	bool started;

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
	struct i8237 *dma;
	struct fdc *floppy; /* NULL: none */
	struct i8042 *keyboard;
	struct usb_hid *usb_tablet, *usb_keyboard; /* NULL: none */
	struct vga *vga;
	struct vmmdev *guest_device;
	struct fwcfg *fwcfg;
	struct vmgenid *generation;

	struct kernel *kernel;
};

/* catalogue.c: all devices of the configuration. */
int catalogue_build(struct pc *p, struct err *e);

/* inform.c: CMOS and fw_cfg, once all devices have their places. */
void inform_firmware(struct pc *p);
/* What the tables have to say about this machine. */
struct acpi_options inform_acpi(const struct pc *p);
struct smbios_options inform_smbios(const struct pc *p);

#endif
