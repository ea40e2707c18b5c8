/* SPDX-License-Identifier: Apache-2.0 */
/* Local APICs and the I/O APIC together: four processors that take interrupts when the test says so. */
#include "board.h"

#define CPUS 4

static struct board b;
static struct ioapic *ioapic;

enum {
	TPR = 0x80,
	PPR = 0xa0,
	EOI = 0xb0,
	LDR = 0xd0,
	DFR = 0xe0,
	SVR = 0xf0,
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICR_HIGH = 0x310,
	LVT_TIMER = 0x320,
	LINT0 = 0x350,
	LINT1 = 0x360,
	LVT_ERROR = 0x370,
	INITIAL = 0x380,
	CURRENT = 0x390,
	DIVIDE = 0x3e0,
};

static int
setup(void **state)
{
	struct i8259 *pic;
	struct lapic *bsp = NULL;

	board_open(&b, CPUS);
	for (int i = 0; i < CPUS; i++) {
		struct lapic *a = lapic_create(&b.m, i);

		bsp = bsp ? bsp : a;
		apic_write(&b, i, SVR, 0x1ff);
	}
	pic = i8259_create(&b.m, lapic_input(bsp, 0));
	ioapic = ioapic_create(&b.m, 0, IOAPIC_BASE);
	isairq_create(&b.m, pic, ioapic);
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	return 0;
}

static void
redirect(int pin, uint64_t entry)
{
	mem_store(&b.m.mem, IOAPIC_BASE, 0x11 + 2 * (unsigned)pin, 4);
	mem_store(&b.m.mem, IOAPIC_BASE + 0x10, entry >> 32, 4);
	mem_store(&b.m.mem, IOAPIC_BASE, 0x10 + 2 * (unsigned)pin, 4);
	mem_store(&b.m.mem, IOAPIC_BASE + 0x10, entry & 0xffffffff, 4);
}

static uint32_t
redirection(int pin)
{
	mem_store(&b.m.mem, IOAPIC_BASE, 0x10 + 2 * (unsigned)pin, 4);
	return (uint32_t)mem_load(&b.m.mem, IOAPIC_BASE + 0x10, 4);
}

static void
set_pin(int pin, int level)
{
	struct irq w = ioapic_input(ioapic, pin);

	irq_set(&w, level);
}

static void
the_boot_processor_takes_the_8259s_through_lint0(void **state)
{
	struct irq w = i8259_input(NULL, 3);

	device_reset_all(&b.m);
	w.opaque = b.m.intc.pic_opaque;
	out8(&b, 0x20, 0x11);
	out8(&b, 0x21, 0x40);
	out8(&b, 0x21, 4);
	out8(&b, 0x21, 1);
	out8(&b, 0x21, 0);
	irq_set(&w, 1);
	assert_int_equal(b.cpu[0].intr, 1);
	assert_int_equal(b.cpu[1].intr, 0);
	apic_write(&b, 0, LINT0, 0x10700);
	assert_int_equal(b.cpu[0].intr, 0);
	apic_write(&b, 0, SVR, 0x1ff);
	apic_write(&b, 0, LINT0, 0x700);
	assert_int_equal(apic_ack(&b, 0), 0x43);
	assert_int_equal(b.cpu[0].intr, 0);
	assert_int_equal(apic_ack(&b, 0), -1);
}

static void
priorities_are_by_class_of_sixteen_vectors(void **state)
{
	apic_write(&b, 0, ICR, 0x40000 | 0x41); /* self */
	apic_write(&b, 0, ICR, 0x40000 | 0x45);
	apic_write(&b, 0, ICR, 0x40000 | 0x61);
	assert_int_equal(apic_ack(&b, 0), 0x61);
	assert_int_equal(apic_read(&b, 0, PPR), 0x60);
	assert_int_equal(b.cpu[0].intr, 0);
	assert_int_equal(apic_ack(&b, 0), -1);
	apic_write(&b, 0, EOI, 0);
	assert_int_equal(b.cpu[0].intr, 1);
	assert_int_equal(apic_ack(&b, 0), 0x45);
	assert_int_equal(b.cpu[0].intr, 0); /* 41 is of the same class */
	apic_write(&b, 0, EOI, 0);
	b.m.intc.lapic[0].set_cr8(b.m.intc.lapic[0].opaque, 4);
	assert_int_equal(apic_read(&b, 0, TPR), 0x40);
	assert_int_equal(b.cpu[0].intr, 0);
	b.m.intc.lapic[0].set_cr8(b.m.intc.lapic[0].opaque, 3);
	assert_int_equal(apic_ack(&b, 0), 0x41);
}

static void
a_level_pin_sends_again_after_eoi_while_it_is_high(void **state)
{
	redirect(10, 1ull << 56 | 0x8000 | 0x51);
	set_pin(10, 1);
	assert_int_equal(b.cpu[1].intr, 1);
	assert_int_equal(redirection(10) & 0x4000, 0x4000);
	assert_int_equal(apic_ack(&b, 1), 0x51);
	assert_int_equal(apic_read(&b, 1, TMR + 0x20) >> 17 & 1, 1);
	set_pin(10, 0); /* whatever the line does before the EOI, nothing more is sent */
	set_pin(10, 1);
	assert_int_equal(apic_read(&b, 1, IRR + 0x20), 0);
	apic_write(&b, 1, EOI, 0);
	assert_int_equal(b.cpu[1].intr, 1);
	assert_int_equal(apic_ack(&b, 1), 0x51);
	set_pin(10, 0);
	apic_write(&b, 1, EOI, 0);
	assert_int_equal(b.cpu[1].intr, 0);
	assert_int_equal(redirection(10) & 0x4000, 0);
}

static void
an_edge_pin_sends_once_and_loses_edges_while_masked(void **state)
{
	redirect(4, 0x10051);
	set_pin(4, 1);
	redirect(4, 0x51);
	assert_int_equal(b.cpu[0].intr, 0);
	set_pin(4, 0);
	set_pin(4, 1);
	assert_int_equal(apic_ack(&b, 0), 0x51);
	apic_write(&b, 0, EOI, 0);
	assert_int_equal(b.cpu[0].intr, 0);
}

static void
switching_a_pin_to_edge_and_back_clears_remote_irr(void **state)
{
	redirect(10, 0x8051);
	set_pin(10, 1);
	redirect(10, 0x10051);
	redirect(10, 0x18051);
	assert_int_equal(redirection(10) & 0x4000, 0);
}

static void
a_masked_level_pin_sends_when_it_is_unmasked(void **state)
{
	redirect(10, 0x18051);
	set_pin(10, 1);
	assert_int_equal(b.cpu[0].intr, 0);
	redirect(10, 0x8051);
	assert_int_equal(b.cpu[0].intr, 1);
}

static void
read_only_bits_of_a_redirection_entry_stay(void **state)
{
	redirect(3, 0x1ffff);
	assert_int_equal(redirection(3), 0x1afff);
	mem_store(&b.m.mem, IOAPIC_BASE, 1, 4);
	assert_int_equal(mem_load(&b.m.mem, IOAPIC_BASE + 0x10, 4), 0x170020);
	mem_store(&b.m.mem, IOAPIC_BASE, 0xff, 4);
	mem_store(&b.m.mem, IOAPIC_BASE + 0x10, 0xffffffff, 4);
	assert_int_equal(mem_load(&b.m.mem, IOAPIC_BASE + 0x10, 4), 0);
}

static void
logical_destinations_are_sets_in_the_flat_model(void **state)
{
	for (int i = 0; i < CPUS; i++) {
		apic_write(&b, i, DFR, 0xffffffff);
		apic_write(&b, i, LDR, 1u << (24 + i));
	}
	redirect(5, 0x0aull << 56 | 0x800 | 0x31);
	set_pin(5, 1);
	for (int i = 0; i < CPUS; i++)
		assert_int_equal(b.cpu[i].intr, i & 1);
}

static void
logical_destinations_have_a_cluster_in_the_cluster_model(void **state)
{
	for (int i = 0; i < CPUS; i++) {
		apic_write(&b, i, DFR, 0x0fffffff);
		apic_write(&b, i, LDR, (uint32_t)(i / 2) << 28 | 1u << (24 + i % 2));
	}
	redirect(5, 0x13ull << 56 | 0x800 | 0x31);
	set_pin(5, 1);
	for (int i = 0; i < CPUS; i++)
		assert_int_equal(b.cpu[i].intr, i >= 2);
	redirect(6, 0xf1ull << 56 | 0x800 | 0x32);
	set_pin(6, 1);
	assert_int_equal(b.cpu[0].intr, 1);
	assert_int_equal(b.cpu[1].intr, 0);
}

static void
lowest_priority_chooses_the_least_busy_processor(void **state)
{
	for (int i = 0; i < CPUS; i++)
		apic_write(&b, i, LDR, 1u << (24 + i));
	apic_write(&b, 0, TPR, 0x20);
	apic_write(&b, 1, TPR, 0x30);
	apic_write(&b, 2, TPR, 0x10);
	apic_write(&b, 3, TPR, 0x40);
	redirect(5, 0x0full << 56 | 0x900 | 0x61);
	set_pin(5, 1);
	for (int i = 0; i < CPUS; i++)
		assert_int_equal(b.cpu[i].intr, i == 2);
}

static void
an_msi_is_an_interrupt_message(void **state)
{
	b.m.intc.msi(b.m.intc.msi_opaque, 0xfee03000, 0x0071);
	assert_int_equal(apic_ack(&b, 3), 0x71);
	b.m.intc.msi(b.m.intc.msi_opaque, 0xfeeff000, 0x0072);
	for (int i = 0; i < CPUS; i++)
		assert_int_equal(apic_read(&b, i, IRR + 0x30) >> 18 & 1, 1);
	b.m.intc.msi(b.m.intc.msi_opaque, 0xfee01000, 0x0400);
	assert_int_equal(b.cpu[1].nmi, 1);
}

static void
ipis_reach_by_number_and_by_shorthand(void **state)
{
	apic_write(&b, 0, ICR_HIGH, 2u << 24);
	apic_write(&b, 0, ICR, 0x4500);
	assert_int_equal(b.cpu[2].init, 1);
	apic_write(&b, 0, ICR, 0x8500); /* INIT level de-assert: nothing */
	assert_int_equal(b.cpu[2].init, 1);
	apic_write(&b, 0, ICR, 0x4610);
	assert_int_equal(b.cpu[2].sipi, 1);
	assert_int_equal(b.cpu[2].vector, 0x10);
	apic_write(&b, 0, ICR, 0xc4400); /* NMI to all but self */
	apic_write(&b, 0, ICR, 0x84055); /* to all */
	for (int i = 0; i < CPUS; i++) {
		assert_int_equal(b.cpu[i].nmi, i != 0);
		assert_int_equal(apic_ack(&b, i), 0x55);
	}
}

static void
illegal_vectors_are_errors_that_can_interrupt(void **state)
{
	apic_write(&b, 0, LVT_ERROR, 0xfe);
	apic_write(&b, 0, ICR, 0x40005);
	assert_int_equal(apic_ack(&b, 0), 0xfe);
	assert_int_equal(apic_read(&b, 0, ESR), 0);
	apic_write(&b, 0, ESR, 0);
	assert_int_equal(apic_read(&b, 0, ESR), 0x20);
	apic_write(&b, 0, ESR, 0);
	assert_int_equal(apic_read(&b, 0, ESR), 0);
	apic_write(&b, 0, LVT_ERROR, 0x05); /* its own vector is illegal: no recursion */
	apic_write(&b, 0, 0x40, 1);
	apic_write(&b, 0, ESR, 0);
	assert_int_equal(apic_read(&b, 0, ESR), 0x80);
}

static void
a_one_shot_timer_fires_once_at_its_time(void **state)
{
	apic_write(&b, 0, DIVIDE, 3); /* 16 */
	apic_write(&b, 0, LVT_TIMER, 0x81);
	apic_write(&b, 0, INITIAL, 1000);
	board_run(&b, 8000);
	assert_int_equal(apic_read(&b, 0, CURRENT), 500);
	board_run(&b, 7999);
	assert_int_equal(b.cpu[0].intr, 0);
	board_run(&b, 1);
	assert_int_equal(apic_ack(&b, 0), 0x81);
	assert_int_equal(apic_read(&b, 0, CURRENT), 0);
	apic_write(&b, 0, EOI, 0);
	assert_int_equal(board_run(&b, SECOND), 0);
}

static void
a_periodic_timer_does_not_drift(void **state)
{
	apic_write(&b, 0, DIVIDE, 11); /* 1 */
	apic_write(&b, 0, LVT_TIMER, 0x20081);
	apic_write(&b, 0, INITIAL, 1000001);
	for (int i = 1; i <= 1000; i++) {
		board_run(&b, 1000001 - (i == 1));
		assert_int_equal(b.cpu[0].intr, i > 1);
		if (i > 1) {
			assert_int_equal(apic_ack(&b, 0), 0x81);
			apic_write(&b, 0, EOI, 0);
		}
	}
	/* A host that is late by many periods delivers one tick. */
	board_set_time(&b, clock_now(&b.m.clock) + SECOND);
	board_run(&b, 1);
	assert_int_equal(apic_ack(&b, 0), 0x81);
	apic_write(&b, 0, EOI, 0);
	assert_int_equal(b.cpu[0].intr, 0);
}

static void
a_timer_of_one_nanosecond_does_not_swamp_the_host(void **state)
{
	apic_write(&b, 0, DIVIDE, 11);
	apic_write(&b, 0, LVT_TIMER, 0x20081);
	apic_write(&b, 0, INITIAL, 1);
	assert_in_range(board_run(&b, 100 * MS), 1, 2100);
}

static void
a_masked_timer_counts_without_a_host_timer(void **state)
{
	apic_write(&b, 0, LVT_TIMER, 0x30081);
	apic_write(&b, 0, INITIAL, 1000000);
	assert_int_equal(board_run(&b, MS / 2), 0);
	assert_int_equal(apic_read(&b, 0, CURRENT), 750000);
	apic_write(&b, 0, LVT_TIMER, 0x20081);
	board_run(&b, 3 * MS / 2);
	assert_int_equal(b.cpu[0].intr, 1);
}

static void
the_tsc_deadline_fires_when_the_guests_tsc_gets_there(void **state)
{
	uint64_t hz = b.m.clock.tsc_hz, v = 1;

	assert_true(apic_wrmsr(&b, 0, 0x6e0, 12345)); /* ignored in other modes */
	assert_true(apic_rdmsr(&b, 0, 0x6e0, &v));
	assert_true(v == 0);
	apic_write(&b, 0, LVT_TIMER, 0x40082);
	assert_true(apic_wrmsr(&b, 0, 0x6e0, hz / 100));
	assert_true(apic_rdmsr(&b, 0, 0x6e0, &v));
	assert_true(v == hz / 100);
	board_run(&b, 9990000);
	assert_int_equal(b.cpu[0].intr, 0);
	board_run(&b, 20000);
	assert_int_equal(b.cpu[0].intr, 1);
	assert_true(apic_rdmsr(&b, 0, 0x6e0, &v));
	assert_true(v == 0);
	assert_int_equal(apic_ack(&b, 0), 0x82);
	apic_write(&b, 0, EOI, 0);
	assert_true(apic_wrmsr(&b, 0, 0x6e0, 1)); /* past: at once */
	assert_int_equal(b.cpu[0].intr, 1);
}

static void
x2apic_registers_are_msrs(void **state)
{
	uint64_t v;

	assert_false(apic_rdmsr(&b, 1, 0x802, &v));	   /* still xAPIC */
	assert_false(apic_wrmsr(&b, 1, 0x1b, 0xfee00400)); /* x2APIC without enable */
	assert_true(apic_wrmsr(&b, 1, 0x1b, 0xfee00c00));
	assert_int_equal(apic_read(&b, 1, 0x20), 0xffffffff);
	assert_true(apic_rdmsr(&b, 1, 0x802, &v));
	assert_int_equal(v, 1);
	assert_true(apic_rdmsr(&b, 1, 0x80d, &v));
	assert_int_equal(v, 2);			    /* cluster 0, bit 1 */
	assert_false(apic_rdmsr(&b, 1, 0x80e, &v)); /* no DFR */
	assert_false(apic_rdmsr(&b, 1, 0x831, &v)); /* ICR is one register */
	assert_false(apic_wrmsr(&b, 1, 0x80b, 1));  /* EOI takes 0 only */
	assert_false(apic_wrmsr(&b, 1, 0x802, 5));
	assert_false(apic_wrmsr(&b, 1, 0x808, 0x100));
	assert_true(apic_wrmsr(&b, 1, 0x830, 3ull << 32 | 0x4066));
	assert_int_equal(apic_ack(&b, 3), 0x66);
	assert_true(apic_wrmsr(&b, 1, 0x83f, 0x77)); /* self IPI */
	assert_int_equal(apic_ack(&b, 1), 0x77);
	assert_true(apic_wrmsr(&b, 1, 0x80b, 0));
	assert_false(apic_wrmsr(&b, 1, 0x1b, 0xfee00800)); /* no way back but through off */
	assert_true(apic_wrmsr(&b, 1, 0x1b, 0xfee00000));
	assert_true(apic_wrmsr(&b, 1, 0x1b, 0xfee00800));
	assert_int_equal(apic_read(&b, 1, SVR), 0xff);
}

static void
x2apic_logical_destinations_and_device_messages_meet(void **state)
{
	for (int i = 0; i < CPUS; i++)
		assert_true(apic_wrmsr(&b, i, 0x1b, 0xfee00c00 | (i ? 0 : 0x100)));
	assert_true(apic_wrmsr(&b, 0, 0x830, 0x0aull << 32 | 0x4800 | 0x68));
	for (int i = 0; i < CPUS; i++)
		assert_int_equal(b.cpu[i].intr, i & 1);
	redirect(5, 4ull << 56 | 0x800 | 0x31);
	set_pin(5, 1);
	assert_int_equal(b.cpu[2].intr, 1);
}

static void
a_software_disabled_apic_masks_its_table_and_takes_nothing(void **state)
{
	apic_write(&b, 0, LVT_TIMER, 0x81);
	apic_write(&b, 0, SVR, 0xff);
	assert_int_equal(apic_read(&b, 0, LVT_TIMER), 0x10081);
	apic_write(&b, 0, LVT_TIMER, 0x81);
	assert_int_equal(apic_read(&b, 0, LVT_TIMER), 0x10081);
	apic_write(&b, 1, ICR, 0x4044);
	assert_int_equal(b.cpu[0].intr, 0);
	apic_write(&b, 1, ICR, 0x4400);
	assert_int_equal(b.cpu[0].nmi, 1);
}

static void
lint1_is_the_nmi_button(void **state)
{
	struct irq w = lapic_input(b.m.intc.lapic[0].opaque, 1);

	irq_set(&w, 1);
	assert_int_equal(b.cpu[0].nmi, 0); /* masked */
	irq_set(&w, 0);
	apic_write(&b, 0, LINT1, 0x400);
	irq_set(&w, 1);
	irq_set(&w, 1);
	assert_int_equal(b.cpu[0].nmi, 1);
}

static void
no_sequence_of_register_writes_hurts(void **state)
{
	uint64_t seed = 42, v;

	for (int i = 0; i < 300000; i++) {
		uint32_t r = board_random(&seed), reg = board_random(&seed) & 0x3ff;
		int cpu = (int)(r & 3);

		switch (r >> 2 & 7) {
		case 0:
			apic_write(&b, cpu, reg << 4 & 0xff0, board_random(&seed));
			break;
		case 1:
			apic_read(&b, cpu, reg << 2 & 0xfff);
			break;
		case 2:
			apic_wrmsr(&b, cpu, 0x800 + (reg & 0xff), board_random(&seed) & (r & 0x100 ? 0xff : ~0u));
			break;
		case 3:
			apic_wrmsr(&b, cpu, r & 0x100 ? 0x1b : 0x6e0, 0xfee00000 | (board_random(&seed) & 0xc00));
			break;
		case 4:
			apic_ack(&b, cpu);
			break;
		case 5:
			mem_store(&b.m.mem, IOAPIC_BASE, reg, 4);
			mem_store(&b.m.mem, IOAPIC_BASE + (r & 0x100 ? 0x10 : 0x40), board_random(&seed), 4);
			break;
		case 6:
			set_pin((int)(reg % IOAPIC_PINS), r >> 8 & 1);
			break;
		case 7:
			apic_rdmsr(&b, cpu, 0x800 + (reg & 0xff), &v);
			board_run(&b, r >> 8 & 0xfff);
			break;
		}
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_boot_processor_takes_the_8259s_through_lint0),
		T(priorities_are_by_class_of_sixteen_vectors),
		T(a_level_pin_sends_again_after_eoi_while_it_is_high),
		T(an_edge_pin_sends_once_and_loses_edges_while_masked),
		T(switching_a_pin_to_edge_and_back_clears_remote_irr),
		T(a_masked_level_pin_sends_when_it_is_unmasked),
		T(read_only_bits_of_a_redirection_entry_stay),
		T(logical_destinations_are_sets_in_the_flat_model),
		T(logical_destinations_have_a_cluster_in_the_cluster_model),
		T(lowest_priority_chooses_the_least_busy_processor),
		T(an_msi_is_an_interrupt_message),
		T(ipis_reach_by_number_and_by_shorthand),
		T(illegal_vectors_are_errors_that_can_interrupt),
		T(a_one_shot_timer_fires_once_at_its_time),
		T(a_periodic_timer_does_not_drift),
		T(a_timer_of_one_nanosecond_does_not_swamp_the_host),
		T(a_masked_timer_counts_without_a_host_timer),
		T(the_tsc_deadline_fires_when_the_guests_tsc_gets_there),
		T(x2apic_registers_are_msrs),
		T(x2apic_logical_destinations_and_device_messages_meet),
		T(a_software_disabled_apic_masks_its_table_and_takes_nothing),
		T(lint1_is_the_nmi_button),
		T(no_sequence_of_register_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
