/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LSI SAS1068: how the ports and drives of the SAS controller are found ("Fusion-MPT Message Passing Interface
 * Specification" 1.5, 6.4: extended configuration pages). All else of the controller is that of lsilogic.c: both speak
 * the same messages.
 *
 * A driver does not try addresses, as it does on parallel SCSI, but reads these pages: how many ports ("phys") there
 * are (SAS I/O unit 0), what is at each (SAS phy 0), and what kind of device that is (SAS device 0), with the address
 * (bus and target) that its commands are to have. Here each port has one cable to one drive, and the drive at port N is
 * target N. There are no expanders.
 *
 * All pages begin with: 0 version, 2 number, 3 type (0xf), u16 at 4 length in words, 6 extended type. Behind it:
 *
 *	I/O unit 0      12 phys; from 16 on for each: 0 port, 3 link rate, 4 what the controller is there, u16 at 8
 *	                handle of the device, u16 at 10 handle of the controller's own end
 *	I/O unit 1      16 phys; from 20 on for each: 0 port, 3 link rates allowed, 4 what the controller is there
 *	I/O unit 2, 3   how targets are numbered; limits of errors
 *	device 0        u16 at 8 slot, u16 at 10 enclosure, u64 at 12 SAS address, u16 at 20 handle of the parent, 22 phy,
 *	                u16 at 24 handle, 26 target, 27 bus, u32 at 28 what it is, u16 at 32 flags, 34 port
 *	phy 0           u16 at 8 handle of the controller's end, u64 at 12 SAS address, u16 at 20 handle of the device,
 *	                u32 at 24 what that is, 28 and 29 link rates
 *	phy 1           counters of errors
 *	enclosure 0     u64 at 12 its name, u16 at 20 flags, u16 at 22 handle, u16 at 24 slots
 *
 * Handles: 1 to 8 the controller's own ends, 17 to 24 the drives.
 */
#include "dev/lsisas.h"

#include <string.h>

#include "base/bytes.h"

#define OWN_HANDLE 1u
#define DRIVE_HANDLE 17u
#define ENCLOSURE_HANDLE 1u
/* NAA 3: an address that its owner made up. The lowest byte is the drive's target, 0xff the controller. */
#define SAS_ADDRESS 0x3000000000010d00ull

enum { IO_UNIT = 0x10, EXPANDER = 0x11, DEVICE = 0x12, PHY = 0x13, ENCLOSURE = 0x15 };
enum { RATES = 0x98, RATE_3_0 = 9 }; /* 1.5 to 3 Gbit/s; 3 Gbit/s */
/* What a device is */
enum {
	END_DEVICE = 1,
	INITIATOR = 0x40 | 0x20 | 0x10, /* SSP, STP, SMP */
	SSP_TARGET = 0x400,
	DIRECT = 0x800,
};
enum { DEVICE_PRESENT = 1, DEVICE_MAPPED = 2 };
enum { FORM_NEXT = 0, FORM_TARGET = 1, FORM_HANDLE = 2 }; /* bits 31:28 of a page address */

static uint32_t
begin(uint8_t *p, uint8_t version, uint8_t number, uint8_t type, uint32_t len)
{
	p[0] = version;
	p[2] = number;
	p[3] = 0xf;
	put_le16(p + 4, (uint16_t)(len / 4));
	p[6] = type;
	return len;
}

static uint32_t
io_unit(uint8_t number, const bool *present, uint8_t *p)
{
	switch (number) {
	case 0:
		p[12] = LSISAS_TARGETS;
		for (uint32_t i = 0; i < LSISAS_TARGETS; i++) {
			uint8_t *phy = p + 16 + 16 * (size_t)i;

			phy[0] = (uint8_t)i;
			phy[3] = present[i] ? RATE_3_0 : 0;
			put_le32(phy + 4, present[i] ? END_DEVICE | INITIATOR : 0);
			put_le16(phy + 8, (uint16_t)(present[i] ? DRIVE_HANDLE + i : 0));
			put_le16(phy + 10, (uint16_t)(OWN_HANDLE + i));
		}
		return begin(p, 4, 0, IO_UNIT, 16 + 16 * LSISAS_TARGETS);
	case 1:
		p[16] = LSISAS_TARGETS;
		for (uint32_t i = 0; i < LSISAS_TARGETS; i++) {
			uint8_t *phy = p + 20 + 12 * (size_t)i;

			phy[0] = (uint8_t)i;
			phy[3] = RATES;
			put_le32(phy + 4, END_DEVICE | INITIATOR);
		}
		return begin(p, 7, 1, IO_UNIT, 20 + 12 * LSISAS_TARGETS);
	case 2:
		p[8] = LSISAS_TARGETS;
		p[17] = 1 << 1; /* targets are numbered by the ports */
		put_le16(p + 18, LSISAS_TARGETS);
		return begin(p, 6, 2, IO_UNIT, 20);
	case 3:
		return begin(p, 0, 3, IO_UNIT, 44);
	}
	return 0;
}

/* Which of the controller's ends (0 to 7) or drives (8 to 15) a page address names; -1: none. */
static int
find_device(uint32_t address, const bool *present)
{
	uint32_t form = address >> 28, handle = address & 0xffff;

	if (form == FORM_TARGET) {
		uint32_t target = address & 0xff;

		return !(address & 0xff00) && target < LSISAS_TARGETS && present[target] ? LSISAS_TARGETS + (int)target
											 : -1;
	}
	for (int i = 0; i < 2 * LSISAS_TARGETS && form != 3; i++) {
		uint32_t mine =
			i < LSISAS_TARGETS ? OWN_HANDLE + (uint32_t)i : DRIVE_HANDLE + (uint32_t)i - LSISAS_TARGETS;

		if (i >= LSISAS_TARGETS && !present[i - LSISAS_TARGETS])
			continue;
		if ((form == FORM_HANDLE && handle == mine) ||
			(form == FORM_NEXT && (handle == 0xffff || handle < mine)))
			return i;
	}
	return -1;
}

static uint32_t
device(uint8_t number, uint32_t address, const bool *present, uint8_t *p, bool *there)
{
	int found = find_device(address, present), port = found % LSISAS_TARGETS;
	bool drive = found >= LSISAS_TARGETS;

	if (number > 2)
		return 0;
	*there = found >= 0;
	if (found < 0)
		port = 0;
	if (number == 2) {
		put_le64(p + 8, SAS_ADDRESS | (drive ? (uint32_t)port : 0xff));
		return begin(p, 1, 2, DEVICE, 20);
	}
	put_le64(p + 12, SAS_ADDRESS | (drive ? (uint32_t)port : 0xff));
	put_le16(p + 24, (uint16_t)((drive ? DRIVE_HANDLE : OWN_HANDLE) + (uint32_t)port));
	p[26] = (uint8_t)port;
	if (number == 1)
		return begin(p, 0, 1, DEVICE, 48);
	put_le16(p + 8, (uint16_t)port);
	put_le16(p + 10, ENCLOSURE_HANDLE);
	put_le16(p + 20, (uint16_t)(drive ? OWN_HANDLE + (uint32_t)port : 0));
	p[22] = (uint8_t)port;
	put_le32(p + 28, END_DEVICE | (drive ? SSP_TARGET | DIRECT : INITIATOR));
	put_le16(p + 32, drive ? DEVICE_PRESENT | DEVICE_MAPPED : DEVICE_PRESENT);
	p[34] = (uint8_t)port;
	return begin(p, 5, 0, DEVICE, 36);
}

static uint32_t
phy(uint8_t number, uint32_t address, const bool *present, uint8_t *p, bool *there)
{
	uint32_t i = address & 0xff;

	if (number > 1)
		return 0;
	*there = address >> 28 <= 1 && i < LSISAS_TARGETS;
	if (number == 1)
		return begin(p, 0, 1, PHY, 28);
	if (!*there)
		return begin(p, 1, 0, PHY, 36);
	put_le16(p + 8, (uint16_t)(OWN_HANDLE + i));
	put_le64(p + 12, SAS_ADDRESS | 0xff);
	p[28] = p[29] = RATES;
	if (present[i]) {
		put_le16(p + 20, (uint16_t)(DRIVE_HANDLE + i));
		put_le32(p + 24, END_DEVICE | SSP_TARGET | DIRECT);
	}
	return begin(p, 1, 0, PHY, 36);
}

static uint32_t
enclosure(uint8_t number, uint32_t address, uint8_t *p, bool *there)
{
	uint32_t handle = address & 0xffff;

	if (number != 0)
		return 0;
	*there = address >> 28 == 0 ? handle == 0xffff || handle < ENCLOSURE_HANDLE
				    : address >> 28 == 1 && handle == ENCLOSURE_HANDLE;
	put_le64(p + 12, SAS_ADDRESS | 0xff);
	put_le16(p + 20, 2); /* the controller itself is it */
	put_le16(p + 22, ENCLOSURE_HANDLE);
	put_le16(p + 24, LSISAS_TARGETS);
	return begin(p, 1, 0, ENCLOSURE, 40);
}

uint32_t
lsisas_page(uint8_t type, uint8_t number, uint32_t address, const bool present[LSISAS_TARGETS],
	uint8_t page[LSISAS_PAGE_MAX], bool *there)
{
	memset(page, 0, LSISAS_PAGE_MAX);
	*there = true;
	switch (type) {
	case IO_UNIT:
		return io_unit(number, present, page);
	case DEVICE:
		return device(number, address, present, page, there);
	case PHY:
		return phy(number, address, present, page, there);
	case ENCLOSURE:
		return enclosure(number, address, page, there);
	case EXPANDER: /* there is none */
		*there = false;
		return number < 2 ? begin(page, 3, number, EXPANDER, 40) : 0;
	}
	return 0;
}
