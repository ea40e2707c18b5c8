/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the firmware configuration device. The input is a list of 8-byte steps: a port access (which, size,
 * value), or, with the top bit set, bytes of the guest memory that DMA commands are read from.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "bus/machine.h"
#include "machine/fwcfg.h"

#define RAM_SIZE (1u << 20)

static struct machine m;
static struct ram *ram;
static struct mem_region region;

static void
make_machine(void)
{
	static const uint8_t big[100000] = { 1 };

	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz") || !(ram = ram_create(&m.mem, "ram", RAM_SIZE)))
		abort();
	region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &region);
	fwcfg_add_file(fwcfg_create(&m), "etc/big", big, sizeof(big));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t ports[] = { 0x510, 0x511, 0x514, 0x518, 0x512, 0x516, 0x51b, 0x511 };
	static const uint8_t sizes[] = { 1, 2, 4, 2 };

	if (!ram)
		make_machine();
	machine_lock(&m);
	device_reset_all(&m);
	for (; size >= 8; data += 8, size -= 8) {
		if (data[0] & 0x80)
			memcpy(ram->host + (le16(data + 1) & 0xff8), data + 3, 5);
		else if (data[0] & 0x40)
			io_read(&m.io, ports[data[0] & 7], sizes[data[0] >> 3 & 3]);
		else
			io_write(&m.io, ports[data[0] & 7], le32(data + 4), sizes[data[0] >> 3 & 3]);
	}
	machine_unlock(&m);
	return 0;
}
