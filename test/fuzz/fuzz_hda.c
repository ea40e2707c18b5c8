/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: a guest's accesses to the HD Audio controller, its verbs and its lists of buffers. tools/run-fuzz builds
 * and runs it. */
#include "test/fuzz/disks.h"
#include "test/fuzz/timers.h"

#define BAR 0xe0000000u
#define DEVFN (5 << 3)

static struct device *card;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t now = 0;

	if (!card) {
		make_machine();
		card = hda_create(&m, 5, NULL, NULL);
	}
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x10, BAR, 4);
	pci_config_write(&m.pci, DEVFN, 4, 6, 2);
	clock_set(&m.clock, 0, 0);
	memset(ram->host, 0, 65536);
	mem_store(&m.mem, BAR + 8, 1, 4);
	while (in.left) {
		uint8_t op = (uint8_t)take(&in, 1);
		unsigned width = 1u << (op >> 4 & 3) > 4 ? 4 : 1u << (op >> 4 & 3);
		uint64_t stream = BAR + 0x80 + 0x20 * (op >> 4 & 1);

		switch (op & 7) {
		case 0:
			mem_store(&m.mem, BAR + (take(&in, 1) & ~(width - 1)), take(&in, 4), width);
			break;
		case 1:
			mem_load(&m.mem, BAR + (take(&in, 1) & ~(width - 1)), width);
			break;
		case 2: /* a verb at once */
			mem_store(&m.mem, BAR + 0x60, take(&in, 4), 4);
			mem_store(&m.mem, BAR + 0x68, 1, 2);
			break;
		case 3:
			poke_memory(&in);
			break;
		case 4: /* a stream that runs */
			mem_store(&m.mem, stream + 0x18, take(&in, 2) & 0xff80, 4);
			mem_store(&m.mem, stream + 8, take(&in, 2), 4);
			mem_store(&m.mem, stream + 0x12, take(&in, 2), 2);
			mem_store(&m.mem, stream, 0x100006, 4);
			break;
		case 5:
			clock_set(&m.clock, now += take(&in, 4), 0);
			break;
		case 6: /* the rings */
			mem_store(&m.mem, BAR + 0x4c, 2, 1);
			mem_store(&m.mem, BAR + 0x5c, 7, 1);
			mem_store(&m.mem, BAR + 0x48, take(&in, 1), 2);
			break;
		default:
			expire_timers(&m);
		}
	}
	return 0;
}
