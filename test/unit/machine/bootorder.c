/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine/bootorder.h"

static void
drives_and_adapters_are_listed_by_kind_then_by_place(void **state)
{
	struct pc_device devices[] = {
		{ .type = "e1000", .link = (struct net_link *)1, .pci_slot = 3 },
		{ .type = "ide",
			.pci_slot = 1,
			.pci_function = 1,
			.drive_count = 2,
			.drives = { { .unit = 0 }, { .unit = 3, .dvd = true } } },
		{ .type = "ahci", .pci_slot = 13, .drive_count = 1, .drives = { { .unit = 10 } } },
		{ .type = "virtio-blk", .pci_slot = 20, .drive_count = 1 },
	};
	struct pc_config *c = xcalloc(1, sizeof(*c));
	struct str s = { 0 };

	c->devices = devices;
	c->device_count = 4;
	c->boot[0] = PC_BOOT_DVD;
	c->boot[1] = PC_BOOT_DISK;
	c->boot[2] = PC_BOOT_NET;
	bootorder_text(c, &s);
	assert_string_equal(s.s, "/pci@i0cf8/ide@1,1/drive@1/disk@1\n"
				 "/pci@i0cf8/ide@1,1/drive@0/disk@0\n"
				 "/pci@i0cf8/sata@d/drive@a/disk@0\n"
				 "/pci@i0cf8/scsi@14/disk@0,0\n"
				 "/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
				 "HALT");
	str_free(&s);
	free(c);
}

static void
what_is_not_bootable_or_not_asked_for_is_left_out(void **state)
{
	struct pc_device devices[] = {
		{ .type = "ahci", .pci_slot = 13, .drive_count = 1, .not_bootable = true },
		{ .type = "virtio-blk", .pci_slot = 20, .drive_count = 1 },
		{ .type = "virtio-net", .link = (struct net_link *)1, .pci_slot = 3 },
	};
	struct pc_config *c = xcalloc(1, sizeof(*c));
	struct str s = { 0 };

	c->devices = devices;
	c->device_count = 3;
	c->boot[0] = PC_BOOT_DISK;
	bootorder_text(c, &s);
	assert_string_equal(s.s, "/pci@i0cf8/scsi@14/disk@0,0\nHALT");
	str_free(&s);
	free(c);
}

static void
adapters_go_by_their_priority_then_by_their_place(void **state)
{
	struct pc_device devices[] = {
		{ .type = "e1000", .link = (struct net_link *)1, .pci_slot = 3 },
		{ .type = "e1000", .link = (struct net_link *)1, .pci_slot = 8, .boot_priority = 4 },
		{ .type = "e1000", .link = (struct net_link *)1, .pci_slot = 9, .boot_priority = 1 },
		{ .type = "e1000", .link = (struct net_link *)1, .pci_slot = 10, .boot_priority = 1 },
	};
	struct pc_config *c = xcalloc(1, sizeof(*c));
	struct str s = { 0 };

	c->devices = devices;
	c->device_count = 4;
	c->boot[0] = PC_BOOT_NET;
	bootorder_text(c, &s);
	assert_string_equal(s.s, "/pci@i0cf8/ethernet@9/ethernet-phy@0\n"
				 "/pci@i0cf8/ethernet@a/ethernet-phy@0\n"
				 "/pci@i0cf8/ethernet@8/ethernet-phy@0\n"
				 "/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
				 "HALT");
	str_free(&s);
	free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drives_and_adapters_are_listed_by_kind_then_by_place),
		cmocka_unit_test(adapters_go_by_their_priority_then_by_their_place),
		cmocka_unit_test(what_is_not_bootable_or_not_asked_for_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
