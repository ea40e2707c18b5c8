/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the floppy controller and the DMA controllers. tools/run-fuzz builds and runs it.
 */
#include "test/fuzz/disks.h"

static struct fdc *fdc;
static struct block *floppy, *small;

static void
out(uint16_t port, uint32_t value)
{
	io_write(&m.io, port, value, 1);
}

/* Channel 2 ready for 1 to 64 KiB somewhere in the first MiB. */
static void
program_dma(struct input *in)
{
	uint32_t at = take(in, 2), count = take(in, 2);

	out(0x0a, 6);
	out(0x0c, 0);
	out(0x04, at & 0xff);
	out(0x04, at >> 8);
	out(0x05, count & 0xff);
	out(0x05, count >> 8);
	out(0x81, take(in, 1) & 15);
	out(0x0b, take(in, 1));
	out(0x0a, 2);
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);

	switch (op & 7) {
	case 0:
		out((uint16_t)(0x3f0 + (op >> 3 & 7)), take(in, 1));
		break;
	case 1:
		io_read(&m.io, (uint16_t)(0x3f0 + (op >> 3 & 7)), 1);
		break;
	case 2:
		program_dma(in);
		break;
	case 3: /* a command of nine bytes */
		for (int i = 0; i < 9; i++)
			out(0x3f5, take(in, 1));
		break;
	case 4:
		device_drain_all(&m);
		break;
	case 5:
		for (int i = 0; i < (op >> 3) * 64; i++)
			io_read(&m.io, 0x3f5, 1);
		break;
	case 6:
		fdc_change_medium(fdc, op >> 3 & 1, op & 0x80 ? floppy : op & 0x40 ? small : NULL);
		break;
	case 7:
		out((uint16_t)(take(in, 1) & 0xdf), take(in, 1));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!fdc) {
		make_machine();
		floppy = memory_image("floppy", 1474560);
		small = memory_image("small", 737280);
		fdc = fdc_create(&m, (struct irq){ 0 }, i8237_create(&m));
		fdc_set_drive(fdc, 0, NULL, NULL);
		fdc_set_drive(fdc, 1, NULL, NULL);
	}
	fdc_change_medium(fdc, 1, NULL);
	fdc_change_medium(fdc, 0, floppy);
	device_reset_all(&m);
	out(0x3f2, 0x1c);
	out(0x3f7, 0);
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
