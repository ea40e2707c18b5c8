/* SPDX-License-Identifier: Apache-2.0 */
/* A machine without a CPU for tests of disk controllers: 1 MiB of memory, images in memory, fields saved and loaded. */
#ifndef TEST_UNIT_DEV_SMALL_H
#define TEST_UNIT_DEV_SMALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "block/block.h"
#include "bus/machine.h"
#include "dev/dev.h"

#define RAM_SIZE (1u << 20)

struct small {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	int irq, messages;
};

static inline void
small_irq(void *opaque, int slot, int pin, int level)
{
	((struct small *)opaque)->irq = level;
}

static inline void
small_message(void *opaque, uint64_t addr, uint32_t data)
{
	((struct small *)opaque)->messages++;
}

/* Sector n begins with its number; the other bytes are its low byte. */
static inline struct block *
small_image(const char *name, uint64_t size, uint32_t sector)
{
	char path[64];
	int fd = memfd_create(name, MFD_CLOEXEC);
	uint8_t *buf = calloc(1, size);
	struct block *b;

	for (uint64_t i = 0; i < size / sector; i++) {
		memset(buf + i * sector, (int)i, sector);
		put_le64(buf + i * sector, i);
	}
	assert_int_equal(write(fd, buf, size), (ssize_t)size);
	free(buf);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, "raw", 0, NULL);
	assert_non_null(b);
	close(fd);
	return b;
}

static inline void
small_open(struct small *s)
{
	memset(s, 0, sizeof(*s));
	log_set_level(LOG_ERROR);
	assert_int_equal(machine_open(&s->m, "test"), 0);
	machine_lock(&s->m);
	pci_add_ports(&s->m);
	s->ram = ram_create(&s->m.mem, "ram", RAM_SIZE);
	s->region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = s->ram };
	mem_add(&s->m.mem, &s->region);
	mem_update(&s->m.mem);
	s->m.pci.set_intx = small_irq;
	s->m.pci.intx_opaque = s;
	s->m.intc.msi = small_message;
	s->m.intc.msi_opaque = s;
}

static inline void
small_close(struct small *s)
{
	machine_unlock(&s->m);
	machine_close(&s->m);
}

static inline size_t
small_fields(struct device *d, uint8_t *blob, bool load)
{
	size_t n = 0;

	for (const struct field *f = d->class->fields; f->name; f++) {
		uint8_t *p = (uint8_t *)d + f->offset;
		size_t len = (size_t)f->size * f->count;

		if (load)
			memcpy(p, blob + n, len);
		else
			memcpy(blob + n, p, len);
		n += len;
	}
	return n;
}

/* Save the device, reset it, load it again: the guest must not notice. */
static inline void
small_save_and_load(struct small *s, void *device, bool pci)
{
	struct device *d = device;
	struct pci_dev *p = device;
	uint8_t *blob = malloc(1 << 20), config[256];

	device_drain_all(&s->m);
	if (pci)
		memcpy(config, p->config, 256);
	assert_true(small_fields(d, blob, false) < 1 << 20);
	d->class->reset(d);
	small_fields(d, blob, true);
	if (pci) {
		memcpy(p->config, config, 256);
		pci_loaded(p);
	}
	d->class->loaded(d);
	free(blob);
}

#endif
