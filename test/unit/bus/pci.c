/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "bus/machine.h"

struct card {
	struct pci_dev pci;
	uint32_t reg;
};

static struct machine m;
static struct card *card;
static int pins[PCI_SLOTS][5];
static uint64_t msi_addr;
static uint32_t msi_data, msi_count;

static uint64_t
reg_read(void *opaque, uint64_t off, unsigned size)
{
	return off ? 0x1000 + off : ((struct card *)opaque)->reg;
}

static void
reg_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	((struct card *)opaque)->reg = (uint32_t)value;
}

static const struct bus_ops reg_ops = { reg_read, reg_write, 1, 4 };

static void
reset(struct device *d)
{
	pci_reset((struct pci_dev *)d);
}

static void
destroy(struct device *d)
{
	pci_remove(d->m, (struct pci_dev *)d);
	free(d);
}

static const struct dev_class class = { .name = "card", .reset = reset, .destroy = destroy };

static void
set_intx(void *opaque, int slot, int pin, int level)
{
	pins[slot][pin] = level;
}

static void
msi(void *opaque, uint64_t addr, uint32_t data)
{
	msi_addr = addr;
	msi_data = data;
	msi_count++;
}

static struct card *
make_card(int slot, int function)
{
	struct card *c = xcalloc(1, sizeof(*c));

	c->pci.vendor = 0x1234;
	c->pci.device = 0x5678;
	c->pci.class = 0x020000;
	c->pci.intx_pin = 1;
	c->pci.bars[0] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 0x2000, .ops = &reg_ops, .opaque = c };
	c->pci.bars[1] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 32, .ops = &reg_ops, .opaque = c };
	c->pci.bars[2] = (struct pci_bar){
		.kind = PCI_BAR_MEM64, .prefetchable = true, .size = 1ull << 33, .ops = &reg_ops, .opaque = c
	};
	pci_add_msi(&c->pci);
	pci_add_msix(&c->pci, 4, 3);
	if (pci_add(&m, &c->pci, &class, slot, function)) {
		free(c);
		return NULL;
	}
	return c;
}

static int
setup(void **state)
{
	assert_int_equal(machine_open(&m, "test"), 0);
	memset(pins, 0, sizeof(pins));
	msi_count = 0;
	m.pci.set_intx = set_intx;
	m.intc.msi = msi;
	pci_add_ports(&m);
	card = make_card(5, 0);
	return 0;
}

static int
teardown(void **state)
{
	machine_close(&m);
	return 0;
}

static uint32_t
config_in(unsigned reg, unsigned size)
{
	io_write(&m.io, 0xcf8, 0x80000000 | 5 << 11 | (reg & 0xfc), 4);
	return io_read(&m.io, (uint16_t)(0xcfc + (reg & 3)), size);
}

static void
config_out(unsigned reg, uint32_t value, unsigned size)
{
	io_write(&m.io, 0xcf8, 0x80000000 | 5 << 11 | (reg & 0xfc), 4);
	io_write(&m.io, (uint16_t)(0xcfc + (reg & 3)), value, size);
}

static void
mechanism_1_finds_the_card_and_nothing_elsewhere(void **state)
{
	assert_int_equal(config_in(0, 4), 0x56781234);
	assert_int_equal(config_in(2, 2), 0x5678);
	assert_int_equal(config_in(11, 1), 2);
	assert_int_equal(io_read(&m.io, 0xcf8, 4), 0x80000000 | 5 << 11 | 8);
	io_write(&m.io, 0xcf8, 0x80000000 | 6 << 11, 4);
	assert_int_equal(io_read(&m.io, 0xcfc, 4), 0xffffffff);
	io_write(&m.io, 0xcf8, 0x80010000 | 5 << 11, 4); /* another bus */
	assert_int_equal(io_read(&m.io, 0xcfc, 4), 0xffffffff);
	io_write(&m.io, 0xcf8, 5 << 11, 4); /* not enabled */
	assert_int_equal(io_read(&m.io, 0xcfc, 4), 0xffffffff);
}

static void
identity_is_read_only(void **state)
{
	config_out(0, 0xffffffff, 4);
	config_out(8, 0xffffffff, 4);
	assert_int_equal(config_in(0, 4), 0x56781234);
	assert_int_equal(config_in(8, 4), 0x02000000);
	config_out(0x3c, 0xffff, 2);
	assert_int_equal(config_in(0x3c, 2), 0x01ff);
}

static void
all_ones_in_a_bar_read_back_as_its_size(void **state)
{
	config_out(4, 3, 2);
	config_out(0x10, 0xffffffff, 4);
	assert_int_equal(config_in(0x10, 4), 0xffffe000);
	config_out(0x14, 0xffffffff, 4);
	assert_int_equal(config_in(0x14, 4), 0xffffffe1);
	config_out(0x18, 0xffffffff, 4);
	config_out(0x1c, 0xffffffff, 4);
	assert_int_equal(config_in(0x18, 4), 0xc);
	assert_int_equal(config_in(0x1c, 4), 0xfffffffe);
	/* While it is sized with decoding on the card is nowhere. */
	assert_int_equal(m.mem.count, 0);
}

static void
a_memory_bar_moves_with_its_register_and_hides_behind_the_command_bit(void **state)
{
	card->reg = 0xcafe;
	config_out(0x10, 0xe0000000, 4);
	assert_int_equal((uint32_t)mem_load(&m.mem, 0xe0000000, 4), 0xffffffff);
	config_out(4, 2, 2);
	assert_int_equal(mem_load(&m.mem, 0xe0000000, 4), 0xcafe);
	assert_int_equal(mem_load(&m.mem, 0xe0001ffc, 4), 0x2ffc);
	config_out(0x10, 0xd0000000, 4);
	assert_int_equal((uint32_t)mem_load(&m.mem, 0xe0000000, 4), 0xffffffff);
	assert_int_equal(mem_load(&m.mem, 0xd0000000, 4), 0xcafe);
	config_out(4, 0, 2);
	assert_int_equal((uint32_t)mem_load(&m.mem, 0xd0000000, 4), 0xffffffff);
}

static void
an_io_bar_moves_and_uncovers_what_was_there(void **state)
{
	card->reg = 0x77;
	config_out(4, 1, 2);
	config_out(0x14, 0x0ce0, 4); /* ends at 0xcff: over the configuration ports */
	assert_int_equal(io_read(&m.io, 0x0ce0, 1), 0x77);
	/* The guest has covered its own way in; the card's reset takes it away. */
	pci_reset(&card->pci);
	assert_int_equal(io_read(&m.io, 0x0ce0, 1), 0xff);
	assert_int_equal(config_in(0, 4), 0x56781234);
}

static void
a_64_bit_bar_goes_above_4_gib(void **state)
{
	card->reg = 0x1234;
	config_out(4, 2, 2);
	config_out(0x18, 0, 4);
	config_out(0x1c, 0x10, 4);
	assert_int_equal(mem_load(&m.mem, 0x1000000000ull, 4), 0x1234);
	assert_int_equal(config_in(0x18, 4), 0xc);
}

static void
functions_that_share_a_pin_are_ored(void **state)
{
	struct card *second = make_card(5, 1);

	assert_non_null(second);
	assert_null(make_card(5, 1));
	pci_intx(&card->pci, 1);
	pci_intx(&second->pci, 1);
	pci_intx(&card->pci, 0);
	assert_int_equal(pins[5][1], 1);
	pci_intx(&second->pci, 0);
	assert_int_equal(pins[5][1], 0);
}

static void
intx_obeys_the_disable_bit_and_shows_in_status(void **state)
{
	pci_intx(&card->pci, 1);
	assert_int_equal(pins[5][1], 1);
	assert_int_equal(config_in(6, 2) & 8, 8);
	config_out(4, 0x400, 2);
	assert_int_equal(pins[5][1], 0);
	assert_int_equal(config_in(6, 2) & 8, 8);
	config_out(4, 0, 2);
	assert_int_equal(pins[5][1], 1);
	pci_reset(&card->pci);
	assert_int_equal(pins[5][1], 0);
}

static unsigned
find_capability(uint8_t id)
{
	unsigned at;

	assert_int_equal(config_in(6, 2) & 0x10, 0x10);
	for (at = config_in(0x34, 1); at && config_in(at, 1) != id;)
		at = config_in(at + 1, 1);
	return at;
}

static void
msi_replaces_intx(void **state)
{
	unsigned at = find_capability(5);

	config_out(4, 4, 2);
	pci_irq(&card->pci, 1);
	assert_int_equal(pins[5][1], 1);
	pci_irq(&card->pci, 0);
	config_out(at + 4, 0xfee01000, 4);
	config_out(at + 12, 0x41, 2);
	config_out(at + 2, 0x81, 2);
	pci_irq(&card->pci, 1);
	assert_int_equal(pins[5][1], 0);
	assert_int_equal(msi_count, 1);
	assert_true(msi_addr == 0xfee01000);
	assert_int_equal(msi_data, 0x41);
	pci_irq(&card->pci, 1); /* no rising edge */
	assert_int_equal(msi_count, 1);
	config_out(4, 0, 2); /* no bus master: no message */
	pci_irq(&card->pci, 0);
	pci_irq(&card->pci, 1);
	assert_int_equal(msi_count, 1);
}

static void
msix_vectors_pend_while_masked(void **state)
{
	unsigned at = find_capability(0x11);
	gpa_t table = 0xe8000000, pba;

	assert_int_equal(config_in(at + 2, 2), 2); /* three vectors */
	assert_int_equal(config_in(at + 4, 4), 4);
	pba = table + (config_in(at + 8, 4) & ~7u);
	config_out(0x20, (uint32_t)table, 4);
	config_out(4, 6, 2);
	config_out(at + 2, 0x8000, 2);
	assert_int_equal(mem_load(&m.mem, table + 16 + 12, 4), 1); /* masked after reset */
	mem_store(&m.mem, table + 16, 0xfee02000, 4);
	mem_store(&m.mem, table + 16 + 8, 0x52, 4);
	pci_msix(&card->pci, 1);
	assert_int_equal(msi_count, 0);
	assert_int_equal(mem_load(&m.mem, pba, 8), 2);
	mem_store(&m.mem, pba, 0, 8); /* read-only */
	mem_store(&m.mem, table + 16 + 12, 0, 4);
	assert_int_equal(msi_count, 1);
	assert_int_equal(msi_data, 0x52);
	assert_int_equal(mem_load(&m.mem, pba, 8), 0);
	config_out(at + 2, 0xc000, 2); /* all masked */
	pci_msix(&card->pci, 1);
	assert_int_equal(msi_count, 1);
	config_out(at + 2, 0x8000, 2);
	assert_int_equal(msi_count, 2);
	pci_msix(&card->pci, 3); /* there is no fourth */
	assert_int_equal(msi_count, 2);
}

static void
a_message_to_memory_is_a_write(void **state)
{
	struct ram *ram = ram_create(&m.mem, "ram", 1 << 20);
	struct mem_region r = { .name = "ram", .kind = MEM_RAM, .enabled = true, .size = 1 << 20, .ram = ram };
	unsigned at = find_capability(5);

	mem_add(&m.mem, &r);
	config_out(4, 4, 2);
	config_out(at + 4, 0x8000, 4);
	config_out(at + 12, 0xbeef, 2);
	config_out(at + 2, 1, 2);
	pci_msi(&card->pci);
	assert_int_equal(msi_count, 0);
	assert_int_equal(mem_load(&m.mem, 0x8000, 4), 0xbeef);
	mem_remove(&m.mem, &r);
}

static void
slots_run_out_quietly(void **state)
{
	int made = 0;

	while (make_card(-1, 0))
		made++;
	assert_int_equal(made, 28); /* 3-31 without 5 */
}

static void
a_later_port_range_covers_and_its_removal_uncovers(void **state)
{
	struct card other = { .reg = 2 };
	int h;

	card->reg = 1;
	assert_int_not_equal(io_add(&m.io, 0x100, 16, &reg_ops, card), -1);
	h = io_add(&m.io, 0x108, 1, &reg_ops, &other);
	assert_int_equal(io_read(&m.io, 0x108, 1), 2);
	assert_int_equal(io_read(&m.io, 0x104, 4), 0x1004);
	/* A wide access belongs to the range it begins in. */
	assert_int_equal(io_read(&m.io, 0x106, 4), 0x1006);
	/* One that runs over the end is taken apart. */
	assert_int_equal(io_read(&m.io, 0x108, 2), 0x0902);
	io_remove(&m.io, h);
	assert_int_equal(io_read(&m.io, 0x108, 1), 0x08);
	io_add(&m.io, 0x104, 8, &reg_ops, &other);
	h = io_add(&m.io, 0x100, 16, &reg_ops, card);
	assert_int_equal(io_read(&m.io, 0x105, 1), 0x05);
	io_remove(&m.io, h);
	assert_int_equal(io_read(&m.io, 0x105, 1), 0x01); /* the younger of the two beneath */
	assert_int_equal(io_read(&m.io, 0x103, 1), 0x03);
	assert_int_equal(io_read(&m.io, 0xffff, 4), 0xffffffff);
	assert_int_equal(io_add(&m.io, 0xfff0, 17, &reg_ops, card), -1);
	assert_int_equal(io_add(&m.io, 0xfff0, 0, &reg_ops, card), -1);
}

static void
no_sequence_of_configuration_writes_hurts(void **state)
{
	uint64_t seed = 3;

	for (int i = 0; i < 30000; i++) {
		uint32_t r;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		r = (uint32_t)(seed >> 32);
		pci_config_write(&m.pci, 5 << 3 | (r & 1), r >> 8 & 0xff, (uint32_t)seed ^ r, 1u << (r >> 1 & 1));
		pci_config_write(&m.pci, 5 << 3, r >> 16 & 0xff, (uint32_t)seed ^ r, 4);
		pci_config_read(&m.pci, r >> 3 & 0x1ff, r >> 12 & 0x1ff, 4);
		pci_irq(&card->pci, r & 1);
		pci_msix(&card->pci, r >> 1 & 7);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(mechanism_1_finds_the_card_and_nothing_elsewhere),
		T(identity_is_read_only),
		T(all_ones_in_a_bar_read_back_as_its_size),
		T(a_memory_bar_moves_with_its_register_and_hides_behind_the_command_bit),
		T(an_io_bar_moves_and_uncovers_what_was_there),
		T(a_64_bit_bar_goes_above_4_gib),
		T(functions_that_share_a_pin_are_ored),
		T(intx_obeys_the_disable_bit_and_shows_in_status),
		T(msi_replaces_intx),
		T(msix_vectors_pend_while_masked),
		T(a_message_to_memory_is_a_write),
		T(slots_run_out_quietly),
		T(a_later_port_range_covers_and_its_removal_uncovers),
		T(no_sequence_of_configuration_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
