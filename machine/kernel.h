/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting a kernel without firmware: Linux bzImage, multiboot 1, PVH. Private to machine/.
 *
 * kernel_read() checks and keeps the files (a reset loads again, when no file can be opened any more); kernel_load()
 * puts everything into guest memory and returns the state the boot processor starts with.
 */
#ifndef MACHINE_KERNEL_H
#define MACHINE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "bus/mem.h"
#include "cpu/x86/state.h"
#include "machine/machine.h"

enum kernel_kind { KERNEL_LINUX, KERNEL_MULTIBOOT, KERNEL_PVH };

struct kernel_file {
	uint8_t *data;
	size_t len;
	char *cmdline; /* of a module */
};

struct kernel {
	enum kernel_kind kind;
	struct kernel_file image;
	struct kernel_file modules[PC_MODULES_MAX]; /* initrd first */
	int module_count;
	char *append;
	uint32_t header; /* multiboot: where its header is; PVH: the entry point */
};

/* One row of the memory map; type 1 memory, 2 reserved, 3 ACPI. */
struct e820 {
	uint64_t start, len;
	uint32_t type;
};

struct kernel_env {
	struct mem *mem;
	const struct e820 *map;
	int map_count;
	uint32_t ram_below_4g;
	uint32_t rsdp; /* guest address */
};

struct kernel *kernel_read(const struct pc_config *c, struct err *e);
void kernel_free(struct kernel *k); /* NULL: nothing */

/* Which kind an image is; -1 and *e when it is none of them. Fills k->kind and k->header from k->image. */
int kernel_identify(struct kernel *k, struct err *e);

int kernel_load(const struct kernel *k, const struct kernel_env *env, struct x86_state *s, struct err *e);

#endif
