/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: a guest's accesses to the AC'97 sound card and its buffer descriptors. tools/run-fuzz builds and runs
 * it. */
#include "test/fuzz/disks.h"

#define MIXER 0xc000
#define MASTERS 0xc100
#define DEVFN (5 << 3)

static struct device *card;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t now = 0;

	if (!card) {
		make_machine();
		card = ac97_create(&m, 5, NULL, NULL);
	}
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x10, MIXER, 4);
	pci_config_write(&m.pci, DEVFN, 0x14, MASTERS, 4);
	pci_config_write(&m.pci, DEVFN, 4, 5, 2);
	clock_set(&m.clock, 0, 0);
	memset(ram->host, 0, 65536);
	while (in.left) {
		uint8_t op = (uint8_t)take(&in, 1);
		unsigned width = 1u << (op >> 4 & 3) > 4 ? 4 : 1u << (op >> 4 & 3);

		switch (op & 7) {
		case 0:
			io_write(&m.io, (uint16_t)(MIXER + (take(&in, 1) & 0x7e)), take(&in, 2), 2);
			break;
		case 1:
			io_write(&m.io, (uint16_t)(MASTERS + (take(&in, 1) & 0x3f)), take(&in, 4), width);
			break;
		case 2:
			io_read(&m.io, (uint16_t)(MASTERS + (take(&in, 1) & 0x3f)), width);
			break;
		case 3:
			poke_memory(&in);
			break;
		case 4: /* a master that runs */
			io_write(&m.io, (uint16_t)(MASTERS + (op & 0x30) % 0x30), take(&in, 2), 4);
			io_write(&m.io, (uint16_t)(MASTERS + (op & 0x30) % 0x30 + 5), take(&in, 1), 1);
			io_write(&m.io, (uint16_t)(MASTERS + (op & 0x30) % 0x30 + 11), 0x1d, 1);
			break;
		case 5:
			clock_set(&m.clock, now += take(&in, 4), 0);
			break;
		default:
			io_read(&m.io, (uint16_t)(MIXER + (take(&in, 1) & 0x7f)), 2);
		}
	}
	return 0;
}
