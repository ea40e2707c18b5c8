/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC: an i440FX/PIIX3 board of the late nineties with today's processors and virtio devices.
 *
 *	0:0.0   82441FX   host bridge
 *	0:1.0   PIIX3     ISA bridge; 0:1.1 its IDE; 0:1.3 power management (PIIX4)
 *	0:2.0   VGA
 *	0:3.0 - devices a user asked for, in order, unless they name a slot
 *
 *	0x00000000  memory, up to PC_RAM_BELOW_4G; the rest from 4 GiB on
 *	0x000a0000  video memory, 0x000c0000 option ROMs and the end of the firmware, until PAM says memory
 *	0xfec00000  I/O APIC, 0xfed00000 HPET, 0xfee00000 local APICs
 *	end of 4 G  firmware
 *
 * build_board() is the parts list; catalogue.c has the devices a user asks for, inform.c what firmware is told.
 */
#include "machine/machine.h"

#include <stdlib.h>
#include <string.h>

#include "machine/board.h"
#include "machine/bringup.h"
#include "machine/firmware.h"
#include "machine/fwcfg.h"

/* ---- memory ---- */

static void
map_region(struct pc *p, struct mem_region *r, const char *name, gpa_t base, uint64_t size, struct ram *ram,
	uint64_t offset)
{
	*r = (struct mem_region){
		.name = name,
		.kind = r == &p->rom ? MEM_ROM : MEM_RAM,
		.enabled = true,
		.base = base,
		.size = size,
		.ram = ram,
		.ram_offset = offset,
	};
	mem_add(&p->m.mem, r);
}

static void
add_map(struct pc *p, uint64_t start, uint64_t len, uint32_t type)
{
	if (len)
		p->map[p->map_count++] = (struct e820){ start, len, type };
}

static int
build_memory(struct pc *p, struct err *e)
{
	uint64_t size = p->c->ram, below = MIN(size, (uint64_t)PC_RAM_BELOW_4G);

	p->ram = p->c->engine && p->c->engine->aliases ? ram_create_file(&p->m.mem, "ram", size)
						       : ram_create(&p->m.mem, "ram", size);
	if (!p->ram)
		return err_set(e, ERR_HOST, "this host has no %llu MiB of memory for the machine",
			(unsigned long long)(size >> 20));
	p->ram_below_4g = (uint32_t)below;
	map_region(p, &p->low, "ram", 0, below, p->ram, 0);
	if (size > below)
		map_region(p, &p->high, "ram-above-4g", 1ull << 32, size - below, p->ram, below);
	return 0;
}

static int
build_firmware(struct pc *p, struct err *e)
{
	/* A kernel does not need any; the reset vector then finds nothing. */
	if (p->kernel && !p->c->firmware)
		p->bios = ram_create(&p->m.mem, "bios", 1 << 16);
	else
		p->bios = firmware_load(&p->m, p->c->firmware, e);
	if (!p->bios)
		return -1;
	map_region(p, &p->rom, "bios", (1ull << 32) - p->bios->size, p->bios->size, p->bios, 0);
	return 0;
}

/* ---- the board ---- */

static void
build_board(struct pc *p)
{
	const struct pc_config *c = p->c;
	struct machine *m = &p->m;
	struct lapic *bsp = lapic_create(m, 0);
	struct irq irq0, irq8;

	for (int i = 1; i < c->cpu.count; i++)
		lapic_create(m, i);
	p->pic = i8259_create(m, lapic_input(bsp, 0));
	p->ioapic = ioapic_create(m, 0, PC_IOAPIC_BASE);
	p->isa = isairq_create(m, p->pic, p->ioapic);
	i440fx_create(m, p->ram, p->bios);
	piix3_create(m, SLOT_PIIX, p->isa);
	p->pm = piix4pm_create(m, SLOT_PIIX, isairq_input(p->isa, PC_SCI_IRQ));
	p->generation = vmgenid_create(m, PC_VMGENID_BASE, p->pm);
	if (c->hpet) {
		p->hpet = hpet_create(m, PC_HPET_BASE, p->isa, p->ioapic);
		irq0 = hpet_legacy_input(p->hpet, 0);
		irq8 = hpet_legacy_input(p->hpet, 1);
	} else {
		irq0 = isairq_input(p->isa, 0);
		irq8 = isairq_input(p->isa, 8);
	}
	i8254_create(m, irq0);
	p->rtc = mc146818_create(m, irq8, c->rtc_local, c->rtc_offset_s);
	p->dma = i8237_create(m);
	p->keyboard = i8042_create(m, isairq_input(p->isa, 1), isairq_input(p->isa, 12));
	for (int i = 0; i < PC_SERIAL_MAX; i++)
		if (c->serial[i].base)
			ns16550_create(m, c->serial[i].base, isairq_input(p->isa, c->serial[i].irq), c->serial[i].cd);
	p->fwcfg = fwcfg_create(m);
	if (c->firmware_log)
		debugcon_create(m, 0x402, NULL);
}

/* ---- a kernel without firmware ---- */

static void
make_kernel_map(struct pc *p)
{
	p->map_count = 0;
	add_map(p, 0, 0x9fc00, 1);
	add_map(p, 0x9fc00, 0x400, 2);
	add_map(p, 0xe0000, 0x20000, 2);
	add_map(p, 0x100000, p->ram_below_4g - 0x100000, 1);
	add_map(p, 1ull << 32, p->c->ram - p->ram_below_4g, 1);
}

static int
start_kernel(struct pc *p, struct err *e)
{
	struct acpi_options a = inform_acpi(p);
	struct smbios_options s = inform_smbios(p);
	struct vcpu *bsp = p->cpus.cpu[0];
	struct kernel_env env;

	make_kernel_map(p);
	if (bringup_chipset(&p->m, p->ram_below_4g, e))
		return -1;
	env = (struct kernel_env){
		.mem = &p->m.mem,
		.map = p->map,
		.map_count = p->map_count,
		.ram_below_4g = p->ram_below_4g,
		.rsdp = bringup_tables(&p->m, &a, &s, e),
	};
	if (!env.rsdp || kernel_load(p->kernel, &env, &bsp->state, e))
		return -1;
	bsp->engine->put_state(bsp);
	return 0;
}

/* ---- life ---- */

struct pc *
pc_open(const char *name, struct err *e)
{
	struct pc *p = xcalloc(1, sizeof(*p));
	int r = machine_open(&p->m, name);

	if (r) {
		err_sys(e, ERR_HOST, r, "cannot make a machine");
		free(p);
		return NULL;
	}
	p->paused = p->still = true;
	pthread_mutex_init(&p->run_lock, NULL);
	return p;
}

/* What power-on and reset share: everything is in its reset state, the CPUs are parked. Machine lock held. */
static int
begin(struct pc *p, struct err *e)
{
	device_reset_all(&p->m);
	return p->kernel ? start_kernel(p, e) : 0;
}

static int
build_parts(struct pc *p, struct err *e)
{
	if (build_memory(p, e) || build_firmware(p, e))
		return -1;
	build_board(p);
	if (catalogue_build(p, e))
		return -1;
	inform_firmware(p);
	return 0;
}

int
pc_build(struct pc *p, const struct pc_config *c, struct err *e)
{
	int r;

	p->c = c;
	if (c->ram < 2u << 20 || c->ram % (1u << 20))
		return err_set(e, ERR_INVALID, "a machine's memory is a whole number of MiB from 2 on");
	if (c->kernel && c->kernel[0]) {
		p->kernel = kernel_read(c, e);
		if (!p->kernel)
			return -1;
	}
	machine_lock(&p->m);
	r = build_parts(p, e);
	machine_unlock(&p->m);
	if (r || cpus_open(&p->cpus, &p->m, c->engine, &c->cpu, e))
		return -1;
	machine_lock(&p->m);
	r = begin(p, e);
	machine_unlock(&p->m);
	return r;
}

int
pc_power_on(struct pc *p, struct err *e)
{
	p->started = true;
	if (cpus_start(&p->cpus, e))
		return -1;
	if (p->holds) /* who holds it may look at once */
		cpus_pause(&p->cpus);
	pc_resume(p);
	return 0;
}

/* The machine stands still while somebody wants it to. `run_lock` is held. */
static void
settle(struct pc *p, bool still)
{
	if (still == p->still)
		return;
	if (still)
		cpus_pause(&p->cpus);
	machine_lock(&p->m);
	if (still)
		clock_stop(&p->m.clock);
	else
		clock_start(&p->m.clock);
	machine_unlock(&p->m);
	if (!still)
		cpus_resume(&p->cpus);
	p->still = still;
}

static void
set_paused(struct pc *p, bool paused)
{
	pthread_mutex_lock(&p->run_lock);
	p->paused = paused;
	settle(p, p->paused || p->holds);
	pthread_mutex_unlock(&p->run_lock);
}

void
pc_resume(struct pc *p)
{
	set_paused(p, false);
}

void
pc_pause(struct pc *p)
{
	set_paused(p, true);
}

static void
hold(struct pc *p, int holds)
{
	pthread_mutex_lock(&p->run_lock);
	p->holds += holds;
	settle(p, p->paused || p->holds);
	pthread_mutex_unlock(&p->run_lock);
}

void
pc_hold(struct pc *p)
{
	hold(p, 1);
}

void
pc_release(struct pc *p)
{
	hold(p, -1);
}

int
pc_reset(struct pc *p, struct err *e)
{
	int r;

	pthread_mutex_lock(&p->run_lock);
	settle(p, true);
	machine_lock(&p->m);
	device_drain_all(&p->m);
	cpus_reset(&p->cpus);
	r = begin(p, e);
	machine_unlock(&p->m);
	if (r)
		p->paused = true;
	settle(p, p->paused || p->holds);
	pthread_mutex_unlock(&p->run_lock);
	return r;
}

bool
pc_owns_serial(const struct pc *p)
{
	return p->fwcfg != NULL; /* made right after them */
}

void
pc_dismantle(struct pc *p)
{
	if (p->started)
		pc_pause(p);
	cpus_close(&p->cpus);
	machine_lock(&p->m);
	device_drain_all(&p->m);
	machine_destroy_devices(&p->m);
	machine_unlock(&p->m);
}

void
pc_close(struct pc *p)
{
	if (!p)
		return;
	machine_close(&p->m);
	pthread_mutex_destroy(&p->run_lock);
	kernel_free(p->kernel);
	free(p);
}

struct machine *
pc_machine(struct pc *p)
{
	return &p->m;
}

struct cpus *
pc_cpus(struct pc *p)
{
	return &p->cpus;
}

void
pc_set_generation(struct pc *p, const struct uuid *id)
{
	if (p->generation)
		vmgenid_set(p->generation, id);
}

/* ---- people ---- */

bool
pc_power_button(struct pc *p)
{
	bool heard = piix4pm_acpi_enabled(p->pm);

	piix4pm_power_button(p->pm);
	return heard;
}

static bool
type_scancodes(void *opaque, const uint8_t *codes, size_t n)
{
	struct pc *p = opaque;

	if (p->usb_keyboard && usb_hid_listening(p->usb_keyboard))
		return usb_keyboard_type(p->usb_keyboard, codes, n);
	return i8042_type(p->keyboard, codes, n) == n;
}

static void
move_pointer(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	struct pc *p = opaque;

	i8042_mouse(p->keyboard, dx, dy, dz, buttons);
}

/* The tablet hears of places, or else the driver of the guest device, beside a mouse that stands still. */
static bool
place_pointer(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
	struct pc *p = opaque;

	if (p->vga)
		vga_map_pointer(p->vga, POINTER_MAX, &x, &y);
	if (p->usb_tablet && usb_hid_listening(p->usb_tablet)) {
		usb_tablet_move(p->usb_tablet, x, y, dz, buttons);
		return true;
	}
	if (!p->guest_device ||
		!vmmdev_place_pointer(p->guest_device, x * 0xffff / POINTER_MAX, y * 0xffff / POINTER_MAX))
		return false;
	i8042_mouse(p->keyboard, 0, 0, dz, buttons);
	return true;
}

struct input_sink
pc_input(struct pc *p)
{
	return (struct input_sink){
		.opaque = p, .scancodes = type_scancodes, .pointer = move_pointer, .place = place_pointer
	};
}

int64_t
pc_follow_host_time(struct pc *p, uint64_t slack_ns)
{
	return mc146818_follow(p->rtc, slack_ns);
}

struct vmmdev *
pc_guest_device(struct pc *p)
{
	return p->guest_device;
}

bool
pc_display(struct pc *p, struct display_source *out)
{
	return pc_screen(p, 0, out);
}

bool
pc_screen(struct pc *p, unsigned screen, struct display_source *out)
{
	return p->vga && vga_screen(p->vga, screen, out);
}

struct vga *
pc_vga(struct pc *p)
{
	return p->vga;
}
