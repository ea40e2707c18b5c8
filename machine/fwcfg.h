/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The firmware configuration device of QEMU's PCs (QEMU, docs/specs/fw_cfg): how SeaBIOS learns about the machine.
 * Private to machine/.
 */
#ifndef MACHINE_FWCFG_H
#define MACHINE_FWCFG_H

#include <stddef.h>
#include <stdint.h>

#include "bus/machine.h"

enum fwcfg_key {
	FWCFG_SIGNATURE = 0x00,
	FWCFG_ID = 0x01,
	FWCFG_UUID = 0x02,
	FWCFG_RAM_SIZE = 0x03,
	FWCFG_NOGRAPHIC = 0x04,
	FWCFG_NB_CPUS = 0x05,
	FWCFG_NUMA = 0x0d,
	FWCFG_BOOT_MENU = 0x0e,
	FWCFG_MAX_CPUS = 0x0f,
	FWCFG_FILE_DIR = 0x19,
	FWCFG_FILE_FIRST = 0x20,
	FWCFG_ITEMS = 0x60,
	FWCFG_IRQ0_OVERRIDE = 0x8002, /* architecture's own keys have bit 15 */
};

struct fwcfg;
struct fwcfg *fwcfg_create(struct machine *m);
/* The bytes of an item, copied. A later call for the same key replaces. */
void fwcfg_add(struct fwcfg *f, unsigned key, const void *data, size_t len);
void fwcfg_add_int(struct fwcfg *f, unsigned key, uint64_t value, unsigned size);
void fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len);

#endif
