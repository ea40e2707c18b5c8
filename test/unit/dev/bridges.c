/* SPDX-License-Identifier: Apache-2.0 */
/* Host bridge, ISA bridge, power management, HPET, debug exit and test device on one board. */
#include "board.h"

#include <stdlib.h>

#include "base/str.h"

static struct board b;
static struct ram *ram, *bios;
static struct mem_region low, rom;
static struct i8259 *pic;
static struct ioapic *ioapic;
static struct isairq *isa;
static struct piix4pm *pm;
static struct hpet *hpet;

static int
setup(void **state)
{
	struct lapic *bsp;

	board_open(&b, 1);
	ram = ram_create(&b.m.mem, "ram", 2 << 20);
	bios = ram_create(&b.m.mem, "bios", 0x40000);
	low = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = 2 << 20, .ram = ram };
	rom = (struct mem_region){
		.name = "bios", .kind = MEM_ROM, .enabled = true, .base = 0xfffc0000, .size = 0x40000, .ram = bios
	};
	mem_add(&b.m.mem, &low);
	mem_add(&b.m.mem, &rom);
	memset(bios->host, 0xb1, bios->size);
	bios->host[0x3fff0] = 0xea;
	bsp = lapic_create(&b.m, 0);
	apic_write(&b, 0, 0xf0, 0x1ff);
	pic = i8259_create(&b.m, lapic_input(bsp, 0));
	ioapic = ioapic_create(&b.m, 0, IOAPIC_BASE);
	isa = isairq_create(&b.m, pic, ioapic);
	i440fx_create(&b.m, ram, bios);
	piix3_create(&b.m, 1, isa);
	pm = piix4pm_create(&b.m, 1, isairq_input(isa, 9));
	hpet = hpet_create(&b.m, HPET_BASE, isa, ioapic);
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	return 0;
}

static void
config_out(unsigned devfn, unsigned reg, uint32_t v, unsigned size)
{
	out32(&b, 0xcf8, 0x80000000 | devfn << 8 | (reg & 0xfc));
	io_write(&b.m.io, (uint16_t)(0xcfc + (reg & 3)), v, size);
}

static uint32_t
config_in(unsigned devfn, unsigned reg, unsigned size)
{
	out32(&b, 0xcf8, 0x80000000 | devfn << 8 | (reg & 0xfc));
	return io_read(&b.m.io, (uint16_t)(0xcfc + (reg & 3)), size);
}

static uint8_t
load(gpa_t a)
{
	return (uint8_t)mem_load(&b.m.mem, a, 1);
}

static void
store(gpa_t a, uint8_t v)
{
	mem_store(&b.m.mem, a, v, 1);
}

static void
at_reset_the_firmware_shows_below_1_mib(void **state)
{
	assert_int_equal(load(0xffff0), 0xea);
	assert_int_equal(load(0xe0000), 0xb1);
	store(0xe0000, 1);
	assert_int_equal(load(0xe0000), 0xb1);
	assert_int_equal(load(0xc8000), 0xff); /* nothing */
	assert_int_equal(load(0xa0000), 0xff);
	assert_int_equal(load(0x9ffff), 0);
	assert_int_equal(load(0x100000), 0);
	assert_int_equal(load(0xfffffff0), 0xea);
}

static void
pam_shadows_segment_by_segment(void **state)
{
	memset(ram->host + 0xc0000, 0x11, 0x40000);
	config_out(0, 0x59, 0x30, 1); /* F: RAM */
	assert_int_equal(load(0xf0000), 0x11);
	store(0xf0000, 0x22);
	assert_int_equal(ram->host[0xf0000], 0x22);
	config_out(0, 0x59, 0x10, 1); /* read RAM, writes lost */
	store(0xf0000, 0x33);
	assert_int_equal(load(0xf0000), 0x22);
	config_out(0, 0x59, 0x20, 1); /* read ROM, write RAM: the way to shadow in place */
	assert_int_equal(load(0xffff0), 0xea);
	mem_watch_code(ram, 0xff);
	store(0xffff0, load(0xffff0));
	assert_int_equal(ram->gens[0xff], 1); /* whoever holds decoded instructions of that page hears of it */
	mem_store(&b.m.mem, 0xf1004, mem_load(&b.m.mem, 0xf1004, 8), 8);
	config_out(0, 0x59, 0x30, 1);
	assert_int_equal(load(0xffff0), 0xea);
	assert_true(mem_load(&b.m.mem, 0xf1004, 8) == 0xb1b1b1b1b1b1b1b1ull);
	config_out(0, 0x5b, 0x31, 1); /* c8000 read only, cc000 read and write */
	assert_int_equal(load(0xc8000), 0x11);
	store(0xc8000, 0);
	store(0xcc000, 0x44);
	assert_int_equal(load(0xc8000), 0x11);
	assert_int_equal(load(0xcc000), 0x44);
	assert_int_equal(load(0xd0000), 0xff);
	assert_int_equal(config_in(0, 0x58, 4), 0x31003000);
	device_reset_all(&b.m);
	assert_int_equal(load(0xf0000), 0xb1);
	assert_int_equal(load(0xcc000), 0xff);
}

static void
all_of_the_hole_as_ram_is_one_section(void **state)
{
	config_out(0, 0x59, 0x30, 1);
	for (unsigned reg = 0x5a; reg <= 0x5f; reg++)
		config_out(0, reg, 0x33, 1);
	for (int i = 0; i < b.m.mem.count; i++)
		if (b.m.mem.sections[i].start == 0xc0000)
			assert_int_equal(b.m.mem.sections[i].last, 0x1fffff);
}

static void
smram_opens_until_it_is_locked(void **state)
{
	config_out(0, 0x72, 0x4a, 1);
	store(0xa8000, 0x5a);
	assert_int_equal(load(0xa8000), 0x5a);
	config_out(0, 0x72, 0x5a, 1); /* lock closes */
	assert_int_equal(load(0xa8000), 0xff);
	config_out(0, 0x72, 0x4a, 1);
	assert_int_equal(load(0xa8000), 0xff);
	assert_int_equal(config_in(0, 0x72, 1), 0x1a);
	device_reset_all(&b.m);
	config_out(0, 0x72, 0x4a, 1);
	assert_int_equal(load(0xa8000), 0x5a);
}

static void
pirqs_are_routed_shared_and_turned_by_slot(void **state)
{
	b.m.pci.set_intx(b.m.pci.intx_opaque, 3, 1, 1); /* PIRQC */
	assert_int_equal(piix3_pirq(3, 1), 2);
	out8(&b, 0x4d1, 0x0c);
	out8(&b, 0x20, 0x0a);
	out8(&b, 0xa0, 0x0a);
	assert_int_equal(in8(&b, 0xa0), 0); /* not routed after reset */
	config_out(8, 0x62, 11, 1);
	assert_int_equal(in8(&b, 0xa0), 8);
	b.m.pci.set_intx(b.m.pci.intx_opaque, 7, 1, 1); /* PIRQC too */
	b.m.pci.set_intx(b.m.pci.intx_opaque, 7, 1, 0);
	assert_int_equal(in8(&b, 0xa0), 8);		/* slot 3 still holds it */
	b.m.pci.set_intx(b.m.pci.intx_opaque, 4, 1, 1); /* PIRQD */
	config_out(8, 0x63, 11, 1);
	b.m.pci.set_intx(b.m.pci.intx_opaque, 3, 1, 0);
	assert_int_equal(in8(&b, 0xa0), 8); /* slot 4 still holds it */
	config_out(8, 0x63, 0x80, 1);
	assert_int_equal(in8(&b, 0xa0), 0);
	config_out(8, 0x63, 10, 1);
	assert_int_equal(in8(&b, 0xa0), 4);
	config_out(8, 0x63, 2, 1); /* not an interrupt it can have */
	assert_int_equal(in8(&b, 0xa0), 0);
}

static void
port_cf9_resets_and_leaves_the_address_register_alone(void **state)
{
	out32(&b, 0xcf8, 0x80000000);
	out8(&b, 0xcf9, 2);
	assert_int_equal(b.events[MACHINE_RESET], 0);
	out8(&b, 0xcf9, 6);
	assert_int_equal(b.events[MACHINE_RESET], 1);
	assert_int_equal(in32(&b, 0xcf8), 0x80000000);
	assert_int_equal(in8(&b, 0xcf9), 2);
}

#define PM 0x600

static void
enable_pm(void)
{
	config_out(11, 0x40, PM | 1, 4);
	config_out(11, 0x80, 1, 1);
	out8(&b, 0xb2, PIIX4PM_ACPI_ENABLE);
	out8(&b, 0x4d1, 0x02);
	out8(&b, 0xa0, 0x0a);
}

static bool
sci(void)
{
	return in8(&b, 0xa0) & 2;
}

static void
power_management_appears_where_firmware_puts_it(void **state)
{
	assert_int_equal(config_in(11, 0, 4), 0x71138086);
	assert_int_equal(in16(&b, PM + 4), 0xffff);
	enable_pm();
	assert_int_equal(in16(&b, PM + 4), 1);
	config_out(11, 0x40, 0x1001, 4);
	assert_int_equal(in16(&b, PM + 4), 0xffff);
	assert_int_equal(in16(&b, 0x1004), 1);
	config_out(11, 0x80, 0, 1);
	assert_int_equal(in16(&b, 0x1004), 0xffff);
	assert_int_equal(config_in(11, 0x90, 4), 0); /* no SMBus */
}

static void
the_power_button_interrupts_in_acpi_mode(void **state)
{
	enable_pm();
	assert_true(piix4pm_acpi_enabled(pm));
	out16(&b, PM + 2, 0x100);
	piix4pm_power_button(pm);
	assert_int_equal(in16(&b, PM) & 0x100, 0x100);
	assert_true(sci());
	out8(&b, 0xb2, PIIX4PM_ACPI_DISABLE);
	assert_false(sci());
	out8(&b, 0xb2, PIIX4PM_ACPI_ENABLE);
	assert_true(sci());
	out8(&b, PM + 1, 1); /* write one to clear, a byte of it */
	assert_false(sci());
	assert_int_equal(in16(&b, PM) & 0x100, 0);
}

static void
the_pm_timer_counts_24_bits_and_interrupts_when_bit_23_changes(void **state)
{
	enable_pm();
	assert_int_equal(in32(&b, PM + 8), 0);
	board_run(&b, SECOND);
	assert_int_equal(in32(&b, PM + 8), 3579545);
	out16(&b, PM + 2, 1);
	board_run(&b, 1343 * MS);
	assert_false(sci());
	board_run(&b, 2 * MS);
	assert_true(sci());
	out16(&b, PM, 1);
	assert_false(sci());
	board_run(&b, 2344 * MS);
	assert_true(sci());
	assert_in_range(in32(&b, PM + 8), 0, 100000);
	assert_int_equal(in8(&b, PM + 11), 0);
}

static void
sleep_types_power_off_and_suspend(void **state)
{
	enable_pm();
	out16(&b, PM + 4, 0x0001 | 5 << 10 | 0x2000);
	assert_int_equal(b.events[MACHINE_POWEROFF] + b.events[MACHINE_SUSPEND], 0);
	out16(&b, PM + 4, 0x0401);
	assert_int_equal(b.events[MACHINE_SUSPEND], 0);
	out16(&b, PM + 4, 0x2401);
	assert_int_equal(b.events[MACHINE_SUSPEND], 1);
	piix4pm_woken(pm, false);
	assert_int_equal(in16(&b, PM) & 0x8000, 0x8000);
	out16(&b, PM + 4, 0x2001);
	assert_int_equal(b.events[MACHINE_POWEROFF], 1);
	assert_int_equal(in16(&b, PM + 4), 1); /* SLP_EN reads as 0 */
}

static void
general_purpose_events_interrupt(void **state)
{
	enable_pm();
	out16(&b, PIIX4PM_GPE_BASE + 2, 0x8002);
	piix4pm_gpe(pm, 15);
	assert_true(sci());
	out16(&b, PIIX4PM_GPE_BASE, 0x8000);
	assert_false(sci());
	assert_int_equal(in32(&b, PIIX4PM_GPE_BASE), 0x80020000);
}

static uint64_t
hpet_in(unsigned reg)
{
	return mem_load(&b.m.mem, HPET_BASE + reg, 8);
}

static void
hpet_out(unsigned reg, uint64_t v)
{
	mem_store(&b.m.mem, HPET_BASE + reg, v, 8);
}

static void
redirect(int pin, uint32_t entry)
{
	mem_store(&b.m.mem, IOAPIC_BASE, 0x10 + 2 * (unsigned)pin, 4);
	mem_store(&b.m.mem, IOAPIC_BASE + 0x10, entry, 4);
}

static int
take(void)
{
	int v = apic_ack(&b, 0);

	if (v >= 0)
		apic_write(&b, 0, 0xb0, 0);
	return v;
}

static void
the_hpet_counts_ten_nanoseconds_while_enabled(void **state)
{
	assert_int_equal(hpet_in(0) >> 32, 10000000);
	board_run(&b, MS);
	assert_int_equal(hpet_in(0xf0), 0);
	hpet_out(0xf0, 0xfffffff0);
	hpet_out(0x10, 1);
	board_run(&b, 1000);
	assert_true(hpet_in(0xf0) == 0xfffffff0ull + 100);
	assert_int_equal(mem_load(&b.m.mem, HPET_BASE + 0xf4, 4), 1);
	hpet_out(0x10, 0);
	board_run(&b, MS);
	assert_true(hpet_in(0xf0) == 0xfffffff0ull + 100);
}

static void
a_one_shot_comparator_fires_once_on_its_route(void **state)
{
	redirect(20, 0x61);
	hpet_out(0x10, 1);
	hpet_out(0x120, 20 << 9 | 4);
	hpet_out(0x128, 1000);
	board_run(&b, 9999);
	assert_int_equal(take(), -1);
	board_run(&b, 1);
	assert_int_equal(take(), 0x61);
	assert_int_equal(board_run(&b, 10 * SECOND), 0);
}

static void
a_periodic_comparator_keeps_its_period(void **state)
{
	int n = 0;

	redirect(21, 0x62);
	hpet_out(0x10, 1);
	hpet_out(0x100, 21 << 9 | 4 | 8 | 0x40);
	hpet_out(0x108, 50000);	 /* first match */
	hpet_out(0x108, 100000); /* period: 1 ms */
	for (int i = 0; i < 1000; i++) {
		board_run(&b, MS);
		n += take() == 0x62;
	}
	assert_int_equal(n, 1000);
	assert_int_equal(hpet_in(0x108), 50000 + 1000 * 100000);
	board_set_time(&b, clock_now(&b.m.clock) + SECOND); /* a host that was away */
	assert_int_equal(board_run(&b, 1), 1);
	assert_int_equal(take(), 0x62);
	assert_int_equal(board_run(&b, MS), 1); /* and goes on */
	assert_int_equal(take(), 0x62);
}

static void
a_tiny_period_does_not_swamp_the_host(void **state)
{
	hpet_out(0x10, 1);
	hpet_out(0x100, 21 << 9 | 4 | 8 | 0x40);
	hpet_out(0x108, 1);
	assert_in_range(board_run(&b, 100 * MS), 1, 2100);
	hpet_out(0x108, 0);
	assert_in_range(board_run(&b, 100 * MS), 0, 1);
}

static void
a_level_comparator_holds_its_line_until_status_is_cleared(void **state)
{
	redirect(22, 0x8063);
	hpet_out(0x10, 1);
	hpet_out(0x140, 22 << 9 | 4 | 2);
	hpet_out(0x148, 1000);
	board_run(&b, 20000);
	assert_int_equal(hpet_in(0x20), 4);
	assert_int_equal(take(), 0x63);
	assert_int_equal(take(), 0x63); /* still high */
	hpet_out(0x20, 4);
	take();
	assert_int_equal(take(), -1);
}

static void
legacy_replacement_cuts_off_the_8254(void **state)
{
	struct irq pit = hpet_legacy_input(hpet, 0);

	redirect(2, 0x71);
	irq_set(&pit, 1);
	assert_int_equal(take(), 0x71);
	irq_set(&pit, 0);
	hpet_out(0x10, 3);
	irq_set(&pit, 1);
	irq_set(&pit, 0);
	assert_int_equal(take(), -1);
	hpet_out(0x100, 4);
	hpet_out(0x108, 1000);
	board_run(&b, 20000);
	assert_int_equal(take(), 0x71);
}

static void
a_32_bit_comparator_wraps(void **state)
{
	redirect(20, 0x61);
	hpet_out(0xf0, 0xfffffff0);
	hpet_out(0x120, 20 << 9 | 4 | 0x100);
	hpet_out(0x128, 16);
	hpet_out(0x10, 1);
	board_run(&b, 320);
	assert_int_equal(take(), 0x61);
}

static void
debug_exit_reports_its_value(void **state)
{
	debugexit_create(&b.m, 0xf4, 4);
	out32(&b, 0xf4, 0x10);
	assert_int_equal(b.events[MACHINE_DEBUG_EXIT], 1);
	assert_int_equal(b.status, 33);
}

static void
the_test_device_raises_lines_and_remembers(void **state)
{
	testdev_create(&b.m, isa, ioapic);
	redirect(18, 0x55);
	out8(&b, 0x2000 + 18, 1);
	assert_int_equal(take(), 0x55);
	out8(&b, 0x4d0, 0x20);
	out8(&b, 0x20, 0x0a);
	out32(&b, 0x2005, 1);
	assert_int_equal(in8(&b, 0x20) & 0x20, 0x20);
	out8(&b, 0x2005, 0);
	assert_int_equal(in8(&b, 0x20) & 0x20, 0);
	out32(&b, 0xe0, 0x12345678);
	assert_int_equal(in8(&b, 0xe1), 0x56);
	out16(&b, 0xe2, 0xabcd);
	assert_int_equal(in32(&b, 0xe0), 0xabcd5678);
	mem_store(&b.m.mem, 0xff00fffc, 0x11223344, 4);
	assert_int_equal(mem_load(&b.m.mem, 0xff00fffd, 2), 0x2233);
}

static void
no_sequence_of_register_writes_hurts(void **state)
{
	uint64_t seed = 21;

	testdev_create(&b.m, isa, ioapic);
	i8254_create(&b.m, hpet_legacy_input(hpet, 0));
	for (int i = 0; i < 60000; i++) {
		uint32_t r = board_random(&seed), v = board_random(&seed);

		switch (r & 7) {
		case 0:
			config_out(r >> 3 & 1 ? 8 : r >> 4 & 1 ? 11 : 0, r >> 8 & 0xff, v, 4);
			break;
		case 1:
			config_in(r >> 3 & 15, r >> 8 & 0xff, 4);
			break;
		case 2:
			mem_store(&b.m.mem, HPET_BASE + (r >> 8 & 0x1fc), v & (r & 0x8000 ? ~0u : 0xff), r & 8 ? 8 : 4);
			break;
		case 3:
			mem_load(&b.m.mem, HPET_BASE + (r >> 8 & 0x1fc), 4);
			break;
		case 4:
			mem_store(&b.m.mem, 0xa0000 + (r >> 8 & 0x5ffff), v, 8);
			break;
		case 5:
			io_write(&b.m.io, (uint16_t)(r >> 8), v, 1u << (r >> 4 & 1));
			break;
		case 6:
			b.m.pci.set_intx(b.m.pci.intx_opaque, r >> 8 & 31, 1 + (r >> 13 & 3), v & 1);
			break;
		case 7:
			board_run(&b, r & 0x3ffff0);
			break;
		}
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(at_reset_the_firmware_shows_below_1_mib),
		T(pam_shadows_segment_by_segment),
		T(all_of_the_hole_as_ram_is_one_section),
		T(smram_opens_until_it_is_locked),
		T(pirqs_are_routed_shared_and_turned_by_slot),
		T(port_cf9_resets_and_leaves_the_address_register_alone),
		T(power_management_appears_where_firmware_puts_it),
		T(the_power_button_interrupts_in_acpi_mode),
		T(the_pm_timer_counts_24_bits_and_interrupts_when_bit_23_changes),
		T(sleep_types_power_off_and_suspend),
		T(general_purpose_events_interrupt),
		T(the_hpet_counts_ten_nanoseconds_while_enabled),
		T(a_one_shot_comparator_fires_once_on_its_route),
		T(a_periodic_comparator_keeps_its_period),
		T(a_tiny_period_does_not_swamp_the_host),
		T(a_level_comparator_holds_its_line_until_status_is_cleared),
		T(legacy_replacement_cuts_off_the_8254),
		T(a_32_bit_comparator_wraps),
		T(debug_exit_reports_its_value),
		T(the_test_device_raises_lines_and_remembers),
		T(no_sequence_of_register_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
