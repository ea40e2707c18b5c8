/* SPDX-License-Identifier: Apache-2.0 */
/* A whole PC with every kind of device, that no guest runs on: for the tests and the fuzz target of saved states. */
#ifndef TEST_STATE_MACHINE_H
#define TEST_STATE_MACHINE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/block.h"
#include "dev/dev.h"
#include "machine/machine.h"
#include "state/state.h"

#define DISKS 4

struct rig {
	struct pc *pc;
	struct pc_config c;
	struct pc_device dev[16];
	struct block *disk[DISKS];
	struct net_link link[2];
	char kernel[32];
};

struct rig_options {
	uint64_t ram;
	int cpus;
	const char *engine;
	bool fewer; /* without the network adapters */
};

static inline struct block *
rig_disk(const char *dir, int n)
{
	struct block_create bc = { .format = "raw", .size = 1 << 20 };
	char *path = xasprintf("%s/disk%d", dir, n);
	struct err e = { 0 };
	struct block *b;

	bc.path = path;
	if (access(path, F_OK) && block_create(&bc, &e))
		fprintf(stderr, "%s\n", e.text);
	b = block_open(path, "raw", 0, &e);
	if (!b)
		fprintf(stderr, "%s\n", e.text);
	free(path);
	return b;
}

static inline void
rig_drive(struct pc_device *d, const char *type, struct block *b, int unit)
{
	*d = (struct pc_device){ .type = type, .slot = -1, .ports = 1, .drive_count = 1 };
	d->drives[0] = (struct pc_drive){ .unit = unit, .block = b };
}

static inline int
rig_open(struct rig *r, const char *dir, const struct rig_options *o, const struct cpu_model *saved, struct err *e)
{
	static const uint8_t macs[2][6] = { { 8, 0, 0x27, 1, 2, 3 }, { 8, 0, 0x27, 4, 5, 6 } };
	int n = 0;

	memset(r, 0, sizeof(*r));
	log_set_level(LOG_ERROR);
	r->pc = pc_open("rig", e);
	if (!r->pc)
		return -1;
	r->c = (struct pc_config){ .ram = o->ram, .hpet = true };
	r->c.engine = cpu_choose(o->engine, (char[256]){ 0 }, e);
	r->c.cpu = (struct cpu_options){ .count = o->cpus, .engine = o->engine, .model = "x86-64-v2", .saved = saved };
	r->c.serial[0].base = 0x3f8;
	r->c.serial[0].irq = 4;
	for (int i = 0; i < DISKS; i++)
		r->disk[i] = rig_disk(dir, i);
	r->dev[n++] = (struct pc_device){ .type = "vga", .slot = -1, .vram = 8 << 20 };
	rig_drive(&r->dev[n++], "ide", r->disk[0], 0);
	rig_drive(&r->dev[n++], "ahci", r->disk[1], 0);
	rig_drive(&r->dev[n++], "virtio-blk", r->disk[2], 0);
	rig_drive(&r->dev[n++], "virtio-scsi", r->disk[3], 0);
	r->dev[n++] = (struct pc_device){ .type = "virtio-rng", .slot = -1 };
	r->dev[n++] = (struct pc_device){ .type = "virtio-balloon", .slot = -1 };
	r->dev[n++] = (struct pc_device){ .type = "virtio-console", .slot = -1 };
	for (int i = 0; i < 2 && !o->fewer; i++) {
		net_link_init(&r->link[i], macs[i]);
		r->dev[n++] = (struct pc_device){ .type = i ? "virtio-net" : "e1000", .slot = -1, .link = &r->link[i] };
	}
	r->c.devices = r->dev;
	r->c.device_count = n;
	return r->c.engine ? pc_build(r->pc, &r->c, e) : -1;
}

static inline void
rig_close(struct rig *r)
{
	if (r->pc) {
		pc_dismantle(r->pc);
		pc_close(r->pc);
	}
	for (int i = 0; i < DISKS; i++)
		if (r->disk[i])
			block_close(r->disk[i]);
	for (int i = 0; i < 2; i++)
		if (r->link[i].queue || r->link[i].class)
			net_link_close(&r->link[i]);
}

#endif
