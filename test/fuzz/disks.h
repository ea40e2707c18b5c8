/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets of the disk controllers share: a machine with 1 MiB of memory, a disk and a disc. */
#ifndef FUZZ_DISKS_H
#define FUZZ_DISKS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "block/block.h"
#include "bus/machine.h"
#include "dev/dev.h"

#define RAM_SIZE (1u << 20)

static struct machine m;
static struct ram *ram;
static struct mem_region ram_region;
static struct block *disk, *disc, *other;

static struct block *
memory_image(const char *name, uint64_t size)
{
	char path[64];
	int fd = memfd_create(name, MFD_CLOEXEC);
	struct block *b;

	if (ftruncate(fd, (off_t)size))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, "raw", 0, NULL);
	if (!b)
		abort();
	return b;
}

static void
make_machine(void)
{
	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	machine_lock(&m);
	pci_add_ports(&m);
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	ram_region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &ram_region);
	mem_update(&m.mem);
	disk = memory_image("disk", 16 << 20);
	disc = memory_image("disc", 2 << 20);
	other = memory_image("other", 64 << 10);
}

/* The input as a stream of numbers; zeroes behind its end. */
struct input {
	const uint8_t *p;
	size_t left;
};

static uint32_t
take(struct input *in, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->p++ << (8 * i);
	return v;
}

/* Put up to 32 bytes of input into memory, mostly in its first 64 KiB. */
static void
poke_memory(struct input *in)
{
	uint32_t at = take(in, 2), n = take(in, 1) & 31;

	for (uint32_t i = 0; i < n; i++)
		ram->host[(at + i) % RAM_SIZE] = (uint8_t)take(in, 1);
}

#endif
