/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: fw_cfg by port and by DMA, with commands that the guest lays down anywhere. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bus/machine.h"
#include "machine/fwcfg.h"
#include "test/fuzz/input.h"

#define RAM_SIZE 0x4000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine m;
static struct mem_region region;
static struct ram *ram;

static void
build(void)
{
	struct fwcfg *f;

	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &region);
	f = fwcfg_create(&m);
	fwcfg_add_file(f, "etc/ten", "0123456789", 10);
	fwcfg_add_file(f, "etc/none", "", 0);
	fwcfg_add_int(f, FWCFG_IRQ0_OVERRIDE, 1, 4);
}

static void
command(struct input *in)
{
	uint32_t words[4], at = (uint32_t)take(in, 2);

	words[0] = __builtin_bswap32((uint32_t)take(in, 1) | (uint32_t)take(in, 2) << 16);
	words[1] = __builtin_bswap32((uint32_t)take(in, 4));
	words[2] = __builtin_bswap32((uint32_t)take(in, 1));
	words[3] = __builtin_bswap32((uint32_t)take(in, 4));
	mem_write(&m.mem, at, words, sizeof(words));
	io_write(&m.io, 0x518, __builtin_bswap32(at), 4);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!m.loop)
		build();
	device_reset_all(&m);
	while (in.left) {
		unsigned op = (unsigned)take(&in, 1), width = 1u << (op >> 2 & 3) & 7;
		uint16_t port = (uint16_t)(0x510 + (op >> 4));

		switch (op & 3) {
		case 0:
			io_write(&m.io, port, (uint32_t)take(&in, 4), width ? width : 4);
			break;
		case 1:
			io_read(&m.io, port, width ? width : 4);
			break;
		case 2:
			command(&in);
			break;
		case 3:
			io_write(&m.io, 0x510, (uint32_t)take(&in, 2), 2);
			break;
		}
	}
	return 0;
}
