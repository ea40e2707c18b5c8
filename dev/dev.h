/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a PC: every chip's constructor, with its pins as arguments.
 *
 * Rules that hold for all of them:
 * - Constructors are called while the machine is built (machine lock held or no other thread yet), register the device
 *   with device_add() and claim its ports and memory. They cannot fail, apart from running out of memory (abort),
 *   unless they take a `struct err *`. The machine owns what they return; machine_close() destroys it.
 * - A `struct irq` argument is an output pin of the chip: the wire it drives. `<chip>_input()` gives a wire that ends
 *   at the chip. A zeroed wire is an unconnected pin.
 * - All functions are called with the machine lock held, unless they say otherwise.
 * - The order in which pc.c builds: lapic (one a CPU), i8259, ioapic, isairq, i440fx, piix3, then the rest.
 */
#ifndef DEV_DEV_H
#define DEV_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "bus/display.h"
#include "bus/machine.h"
#include "dev/chardev.h"

/* ---- interrupt controllers ---- */

#define LAPIC_BASE 0xfee00000u
#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24
#define ISA_IRQS 16

/*
 * The local APIC of CPU `cpu` (also its APIC ID): xAPIC, x2APIC and timer. Fills m->intc.lapic[cpu], and m->intc.msi;
 * raises m->intc.cpus to cpu + 1. CPU 0 is the boot processor. No ports; its register page is handled by the CPU
 * through m->intc.lapic, not by a memory region.
 */
struct lapic;
struct lapic *lapic_create(struct machine *m, int cpu);
struct irq lapic_input(struct lapic *a, int lint); /* LINT0 or LINT1 */

/*
 * The 8259A pair, ports 0x20-21, 0xa0-a1 and the edge/level registers 0x4d0-4d1. `intr`: the master's INT output, to
 * LINT0 of the boot processor. Fills m->intc.pic_ack.
 */
struct i8259;
struct i8259 *i8259_create(struct machine *m, struct irq intr);
struct irq i8259_input(struct i8259 *p, int n); /* 0-15, not 2 */

/* An 82093AA with 24 pins at `base` (4 KiB claimed). Sends its messages through m->intc.msi. Fills m->intc.eoi. */
struct ioapic;
struct ioapic *ioapic_create(struct machine *m, uint8_t id, gpa_t base);
struct irq ioapic_input(struct ioapic *a, int pin);

/*
 * Splits ISA interrupt n to input n of the 8259s and of the I/O APIC (0 goes to pin 2, as the ACPI override says).
 * Every isairq_input() is a source of its own; sources of one interrupt are ORed. At most 16 sources an interrupt.
 */
struct isairq;
struct isairq *isairq_create(struct machine *m, struct i8259 *pic, struct ioapic *ioapic);
struct irq isairq_input(struct isairq *b, int n);

/* ---- north and south bridge ---- */

/*
 * 82441FX host bridge, PCI 0:0.0, ports 0xcf8-0xcff. `ram` is mapped at 0 by the caller (one region, priority 0,
 * added before this call), also across 0xa0000-0xfffff; this chip covers that hole: 0xc0000-0xfffff by the PAM
 * registers, 0xa0000-0xbffff by SMRAM (a VGA card's region of priority 1 covers the empty hole). `bios`: the firmware;
 * its last 128 KiB (less if it is smaller) show at the top of the first MiB where PAM says PCI. The caller maps it
 * below 4 GiB.
 */
struct device *i440fx_create(struct machine *m, struct ram *ram, struct ram *bios);

/*
 * PIIX3 ISA bridge, PCI `slot`.0 (multifunction), reset control port 0xcf9. Takes over m->pci.set_intx: INTx goes to
 * PIRQ piix3_pirq() and, where 0x60-0x63 route it, on to that ISA interrupt of `isa` (8259 and I/O APIC).
 * Reset leaves PIRQs unrouted; firmware routes them.
 */
static inline int
piix3_pirq(int slot, int pin) /* pin: 1 INTA ... 4 INTD; 0 is PIRQA. SeaBIOS has the same formula. */
{
	return (slot - 1 + pin - 1) & 3;
}
struct device *piix3_create(struct machine *m, int slot, struct isairq *isa);

/*
 * PIIX4 power management, PCI `slot`.3 (8086:7113). Ports: 64 at the base that firmware programs at 0x40 and enables
 * at 0x80 (PM1a event +0, control +4, PM timer +8), GPE0 status and enable at 0xafe0 (4), APMC 0xb2-0xb3: writing
 * PIIX4PM_ACPI_ENABLE there sets SCI_EN, PIIX4PM_ACPI_DISABLE clears it. There is no SMM: register 0x58 says so the way
 * SeaBIOS looks at it (APMC_EN already set). `sci`: interrupt 9, level, active high.
 * SLP_TYP (for ACPI's \_Sx packages): 0 = S5, MACHINE_POWEROFF; 1 = S3, MACHINE_SUSPEND; others are ignored.
 */
#define PIIX4PM_ACPI_ENABLE 0xf1
#define PIIX4PM_ACPI_DISABLE 0xf0
#define PIIX4PM_GPE_BASE 0xafe0
struct piix4pm;
struct piix4pm *piix4pm_create(struct machine *m, int slot, struct irq sci);
void piix4pm_power_button(struct piix4pm *p);
bool piix4pm_acpi_enabled(struct piix4pm *p);	    /* SCI_EN: a guest will see the power button */
void piix4pm_gpe(struct piix4pm *p, int bit);	    /* set GPE0 status bit 0-15 */
void piix4pm_woken(struct piix4pm *p, bool by_rtc); /* leave S3: WAK_STS */

/* ---- timers and clocks ---- */

/* 8254 with ports 0x40-0x43 and the gate and speaker bits of port 0x61. `irq0`: output of counter 0. */
struct device *i8254_create(struct machine *m, struct irq irq0);

/*
 * MC146818 clock and 256 bytes of CMOS: ports 0x70-0x71 and 0x72-0x73 (upper bank). `irq8`: alarm, periodic, update.
 * The clock starts at the host's time plus `offset_s` seconds, in UTC or, if `local_time`, in the host's time zone,
 * and runs on with the virtual clock. CMOS survives reset; bytes 0x00-0x0d belong to the clock, the others are the
 * accessor's (memory sizes 0x15-0x18, 0x30-0x31, 0x34-0x35, 0x5b-0x5d; boot order 0x38, 0x3d; CPUs - 1 in 0x5f).
 */
struct mc146818;
struct mc146818 *mc146818_create(struct machine *m, struct irq irq8, bool local_time, int64_t offset_s);
/*
 * When the host's time of day has moved against the virtual time by more than `slack_ns` since this was last so (in the
 * process that saved the machine, maybe), the date moves as far. Returns how far, ns; 0: not.
 */
int64_t mc146818_follow(struct mc146818 *r, uint64_t slack_ns);
void mc146818_cmos_set(struct mc146818 *r, uint8_t index, uint8_t value);
uint8_t mc146818_cmos_get(struct mc146818 *r, uint8_t index);

/*
 * IA-PC HPET at `base` (1 KiB), three comparators, 64-bit counter of 10 ns periods. `isa`: where legacy replacement
 * sends timers 0 and 1 (interrupts 0 and 8); `ioapic`: its pins 16-23 (and ISA ones) by the routing fields. When there
 * is an HPET, the 8254 and the MC146818 are wired through it: hpet_legacy_input(h, 0) and (h, 1), so that legacy
 * replacement cuts them off.
 */
struct hpet;
#define HPET_BASE 0xfed00000u
struct hpet *hpet_create(struct machine *m, gpa_t base, struct isairq *isa, struct ioapic *ioapic);
struct irq hpet_legacy_input(struct hpet *h, int n);

/* ---- keyboard, mouse, serial ---- */

/* 8042 controller, ports 0x60, 0x64 and 0x92, with a PS/2 keyboard (`irq1`) and a PS/2 wheel mouse (`irq12`). */
struct i8042;
struct i8042 *i8042_create(struct machine *m, struct irq irq1, struct irq irq12);
/*
 * What a person types, as scan code set 1 bytes (prefixes e0, e1; break codes with bit 7), whatever set the guest
 * chose. They queue on the host's side (64 KiB) and are fed to the guest key by key as it reads them. Returns how many
 * bytes were taken: fewer than n when the queue is full.
 */
size_t i8042_type(struct i8042 *k, const uint8_t *set1, size_t n);
/* Motion relative to the last call (dy > 0: towards the user), wheel (dz > 0: towards the user), buttons as a mask:
 * 1 left, 2 right, 4 middle. Motion that the guest has not fetched yet adds up. */
void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons);
/* LEDs as the guest set them: 1 scroll, 2 num, 4 caps. */
unsigned i8042_leds(struct i8042 *k);

/* 16550A at ports `port`-`port` + 7. Owns `cd` (NULL: nothing is connected). */
struct device *ns16550_create(struct machine *m, uint16_t port, struct irq irq, struct chardev *cd);

/* ---- for firmware and test kernels ---- */

/* One-byte debug output port of SeaBIOS (0x402): reads 0xe9. Owns `cd`; NULL: lines go to the log. */
struct device *debugcon_create(struct machine *m, uint16_t port, struct chardev *cd);

/* isa-debug-exit at `port`, 1 to 8 ports: a write of v raises MACHINE_DEBUG_EXIT with status (v << 1) | 1. */
struct device *debugexit_create(struct machine *m, uint16_t port, unsigned ports);

/*
 * pc-testdev: 32-bit scratch register 0xe0-0xe3, TLB flush port 0xe4-0xe7, byte scratch 0xe8-0xeb, interrupt lines
 * 0x2000-0x2017 (I/O APIC pins; the first 16 also reach the 8259s), 64 KiB scratch memory at 0xff000000.
 */
struct device *testdev_create(struct machine *m, struct isairq *isa, struct ioapic *ioapic);

/* ---- display ---- */

/*
 * VGA with Bochs VBE in PCI `slot`; `vram_bytes` is rounded up to a power of two from 1 to 256 MiB. `rom` (copied;
 * len 0: none): its video BIOS, shown as the expansion ROM. NULL when there is no memory or the slot is taken.
 * vga_create() makes PCI 1234:1111; vboxvga_create() VirtualBox's adapter, 80ee:beef, with 1 to 64 screens.
 */
struct vga;
struct vga_rom {
	const void *data;
	size_t len;
};
struct vga *vga_create(struct machine *m, int slot, const struct vga_rom *rom, uint64_t vram_bytes);
struct vga *vboxvga_create(
	struct machine *m, int slot, const struct vga_rom *rom, uint64_t vram_bytes, unsigned monitors);
/* For consoles; valid as long as the machine. False: there are fewer screens. */
bool vga_screen(struct vga *v, unsigned n, struct display_source *out);
struct display_source vga_display(struct vga *v); /* the first screen */
/* Somebody would like a screen to be like this; a driver of 80ee:beef is told. Sizes of 0: no wish. False: there are
 * fewer screens. */
struct vga_hint {
	unsigned width, height, bpp; /* bpp 0: as it is */
	bool enabled, placed;	     /* placed: x and y, among the screens, count */
	unsigned x, y;
};
bool vga_hint(struct vga *v, unsigned n, const struct vga_hint *hint);
/* A place of 0 to `max` on the first screen as one on all that a driver's pointer moves over. */
void vga_map_pointer(struct vga *v, unsigned max, unsigned *x, unsigned *y);

/* ---- network adapters ---- */

/*
 * Intel 8254x gigabit Ethernet in PCI `slot` (-1: any free one). `variant`: "82540EM", "82543GC", "82545EM". The link,
 * with its MAC address, stays the caller's and must outlive the device. NULL and *e: no such variant, or the slot is
 * taken.
 */
struct net_link;
struct device *e1000_create(struct machine *m, int slot, const char *variant, struct net_link *link, struct err *e);

/* AMD PCnet, `variant` "Am79C970A" or "Am79C973"; the rest as for e1000_create(). */
struct device *pcnet_create(struct machine *m, int slot, const char *variant, struct net_link *link, struct err *e);

/* ---- the machine's identity ---- */

/* A page of memory at `base` with a random generation ID. vmgenid_set() changes it and tells the guest. */
#define VMGENID_GPE 5
struct vmgenid;
struct uuid;
struct vmgenid *vmgenid_create(struct machine *m, gpa_t base, struct piix4pm *pm);
void vmgenid_set(struct vmgenid *v, const struct uuid *id);

/* ---- VirtualBox's guest device ---- */

/*
 * 80ee:cafe in PCI `slot` (-1: any free one): requests of guests' drivers, and their calls to the services of share/.
 * Both stay the caller's and outlive the device; `props` may be NULL. NULL and *e: the slot is taken.
 */
struct share;
struct props;
struct vmmdev_wires {
	struct share *share;
	struct props *props;
	uint64_t ram, vram;	/* bytes, of the machine */
	bool no_time;		/* the guest does not get the host's time of day ... */
	int64_t time_offset_ms; /* ... which is shown with this added */
};
struct vmmdev;
struct vmmdev *vmmdev_create(struct machine *m, int slot, const struct vmmdev_wires *w, struct err *e);
/* Somebody would like the screen to have this size; the guest's driver is told. 0s: no wish. */
void vmmdev_display_hint(struct vmmdev *d, unsigned display, unsigned width, unsigned height, unsigned bpp);
/* The pointer is there, 0 to 0xffff over the screen. False: the guest's driver does not listen to places. Buttons and
 * the wheel are the mouse's. */
bool vmmdev_place_pointer(struct vmmdev *d, unsigned x, unsigned y);
/* Ask the guest to give up so much memory. -1 and *e: there is not that much. */
int vmmdev_balloon(struct vmmdev *d, uint64_t mib, struct err *e);
/* What the guest's driver has told of itself; major 0: nothing yet. */
struct vmmdev_guest {
	unsigned major, minor, build, revision, os_type, caps;
	unsigned driver_status, service_status; /* 50: active */
	uint64_t silent_ns;			/* since the last heartbeat; 0: none is expected */
	unsigned balloon_mib;
};
void vmmdev_guest(struct vmmdev *d, struct vmmdev_guest *out);

/* ---- disks and CD-ROM drives ---- */

/*
 * What hangs on a cable. The drive uses `block` (attaches it to the machine's loop, drains it in destroy) but does not
 * own it. Texts are copied; NULL: "VBOX HARDDISK" or "VBOX CD-ROM", firmware "1.0", a serial number after the image's
 * UUID, or the drive's place where it has none. They are cut at 20, 40 and 8 characters.
 */
struct block;
struct drive_config {
	struct block *block; /* a disk; or the disc in a CD-ROM drive, NULL: none */
	bool cdrom;
	bool nonrotational; /* disks: IDENTIFY says solid state */
	bool discard;	    /* disks: TRIM gives space back to the image */
	const char *serial, *model, *firmware;
	/* The guest (after its own eject) has put the disc out: the block is not used any more. May be NULL. */
	void (*ejected)(void *opaque);
	void *opaque;
};

/* Interrupts 14 and 15, and which chip it is. */
struct ide_wires {
	struct irq irq[2];
	bool piix3, ich6; /* 8086:7010, 8086:269e instead of PIIX4's 8086:7111 */
};

/*
 * PIIX4 (or PIIX3) IDE as PCI `slot`.`function` (0:1.1 on a PC): two channels of two drives, at the legacy ports
 * 0x1f0-0x1f7, 0x3f6 and 0x170-0x177, 0x376, with bus mastering. NULL when the place is taken.
 */
struct ide;
struct ide *ide_create(struct machine *m, int slot, int function, const struct ide_wires *w);
/* Before power-on. `channel` 0 or 1, `unit` 0 (master) or 1. -1 and *e: the place is taken or does not exist. */
int ide_attach(struct ide *ide, int channel, int unit, const struct drive_config *cfg, struct err *e);
/*
 * Put `medium` into a CD-ROM drive, NULL: take out what is there; at any time. When it returns 0 the old one is not
 * used any more (this waits for reads in flight). -EBUSY: the guest has locked the door, and was told that somebody
 * wants the disc (again later, or `force`). -ENOENT: no CD-ROM drive there.
 */
int ide_change_medium(struct ide *ide, int channel, int unit, struct block *medium, bool force);

/*
 * AHCI 1.3.1 controller (8086:2829, ICH8M) in PCI `slot` (-1: any free one) with 1 to 30 ports. NULL and *e: no such
 * number of ports, or the slot is taken. Attaching and detaching work while the machine runs: the guest sees a hot
 * plug. ahci_detach() waits for I/O in flight; when it returns the block is not used any more; -ENOENT: nothing is
 * there.
 */
struct ahci;
struct ahci *ahci_create(struct machine *m, int slot, int ports, struct err *e);
int ahci_attach(struct ahci *a, int port, const struct drive_config *cfg, struct err *e);
int ahci_detach(struct ahci *a, int port);
int ahci_change_medium(struct ahci *a, int port, struct block *medium, bool force);

/*
 * NVM Express 1.4 controller (80ee:4e56) in PCI `slot` (-1: any free one): port n is namespace n + 1. The serial number
 * and the model are the controller's. Attaching and detaching work while the machine runs: the guest gets the event
 * "namespace attributes changed". There are no CD-ROM drives. Otherwise as AHCI's.
 */
#define NVME_NAMESPACES 64
struct nvme;
struct nvme *nvme_create(struct machine *m, int slot, int ports, struct err *e);
int nvme_attach(struct nvme *n, int port, const struct drive_config *cfg, struct err *e);
int nvme_detach(struct nvme *n, int port);

/*
 * LSI Logic 53C1030 (1000:0030): parallel SCSI with the Fusion-MPT interface and 16 targets. PCI `slot` (-1: any free
 * one). Parallel SCSI knows no hot plug: attach before power-on. Otherwise as AHCI's.
 */
#define LSILOGIC_TARGETS 16
struct lsilogic;
struct lsilogic *lsilogic_create(struct machine *m, int slot, struct err *e);
/* The same for serial attached SCSI, with ports 0 to 7. */
struct lsilogic *lsisas_create(struct machine *m, int slot, struct err *e);
int lsilogic_attach(struct lsilogic *l, int target, const struct drive_config *cfg, struct err *e);
int lsilogic_change_medium(struct lsilogic *l, int target, struct block *medium, bool force);

/* ---- sound ---- */

/*
 * AC'97 (8086:2415) in PCI `slot` (-1: any free one). What it plays goes to `sink` (NULL: nowhere), which stays the
 * caller's and must outlive the device.
 */
struct audio;
struct device *ac97_create(struct machine *m, int slot, struct audio *sink, struct err *e);
/* HD Audio (8086:2668 with a STAC9221); otherwise as AC'97's. */
struct device *hda_create(struct machine *m, int slot, struct audio *sink, struct err *e);
/* A WAVE file, made anew. */
struct audio *audio_file_open(const char *path, struct err *e);
void audio_close(struct audio *a); /* NULL: nothing */

/* ---- USB ---- */

/*
 * xHCI 1.1 controller (8086:1e31) in PCI `slot` (-1: any free one) with XHCI_PORTS ports that take something; its
 * devices (dev/usb.h, which has what can be done to them) are plugged in before power-on.
 */
#define XHCI_PORTS 8
struct xhci;
struct usb_hid;
struct xhci *xhci_create(struct machine *m, int slot, struct err *e);
struct usb_hid *xhci_add_tablet(struct xhci *x, struct err *e);
struct usb_hid *xhci_add_keyboard(struct xhci *x, struct err *e);
int xhci_attach(struct xhci *x, int port, const struct drive_config *cfg, struct err *e);
/* 0 to 32767 in each direction; wheel clicks, down positive; enum of bus/display.h for buttons. */
void usb_tablet_move(struct usb_hid *h, unsigned x, unsigned y, int wheel, unsigned buttons);
/* Codes of set 1. False: there is no room, nothing was taken. */
bool usb_keyboard_type(struct usb_hid *h, const uint8_t *set1, size_t n);
bool usb_hid_listening(const struct usb_hid *h); /* the guest has configured it */

/* ---- floppy drives, and what they need ---- */

/*
 * The pair of 8237A DMA controllers of a PC with its page registers: channels 0-3 move bytes, 5-7 words, below 16 MiB.
 * i8237_transfer() is the device's side: move up to `len` bytes between `buf` and the memory that the guest has
 * programmed for `channel`, in the direction the guest has programmed. Returns bytes moved (less: the channel is
 * masked, the transfer goes the other way, or its count ran out) and sets *tc when the count ran out. `write`: to
 * memory.
 */
struct i8237;
struct i8237 *i8237_create(struct machine *m);
size_t i8237_transfer(struct i8237 *d, int channel, void *buf, size_t len, bool write, bool *tc);

/*
 * 82077AA floppy controller at 0x3f0-0x3f5 and 0x3f7 with two drives for 3.5" disks, on DMA channel 2. `irq6`: edge.
 * The drives are there from the beginning, fdc_set_drive() says with what in them (NULL: nothing), before power-on;
 * fdc_change_medium() at any time: when it returns the old image is not used any more. -ENOENT: no such drive. -EINVAL:
 * the image is of no size that a floppy disk has.
 */
struct fdc;
struct fdc *fdc_create(struct machine *m, struct irq irq6, struct i8237 *dma);
int fdc_set_drive(struct fdc *f, int unit, struct block *medium, struct err *e);
int fdc_change_medium(struct fdc *f, int unit, struct block *medium);
/* The drive's type as CMOS byte 0x10 has it (a nibble): 4 is 1.44 MB, 5 is 2.88 MB, 0 no drive. */
uint8_t fdc_drive_type(const struct fdc *f, int unit);

/* ---- virtio, over PCI ---- */

/*
 * All of them: PCI `slot` (-1: any free one); NULL and *e when it is taken. VIRTIO_MODERN: only the 1.x interface;
 * otherwise transitional, which also shows the legacy one to firmware and old drivers.
 */
enum { VIRTIO_MODERN = 1 };

/* A disk. `b` stays the caller's and must outlive the device. `serial`: at most 20 characters, or NULL. */
struct block;
struct device *virtio_blk_create(
	struct machine *m, int slot, unsigned flags, struct block *b, const char *serial, struct err *e);

/*
 * A SCSI host with `targets` (1 to VIRTIO_SCSI_TARGETS) ports. Attaching and detaching work while the machine runs: the
 * guest is told. Otherwise as AHCI's.
 */
#define VIRTIO_SCSI_TARGETS 64
struct virtio_scsi;
struct virtio_scsi *virtio_scsi_create(struct machine *m, int slot, unsigned flags, int targets, struct err *e);
int virtio_scsi_attach(struct virtio_scsi *d, int target, const struct drive_config *cfg, struct err *e);
int virtio_scsi_detach(struct virtio_scsi *d, int target);
int virtio_scsi_change_medium(struct virtio_scsi *d, int target, struct block *medium, bool force);

/* A network adapter; the link, with its MAC address, stays the caller's and must outlive the device. */
struct device *virtio_net_create(struct machine *m, int slot, unsigned flags, struct net_link *link, struct err *e);

/* A console of one port. Owns `cd` once it succeeded (NULL: nothing is connected). */
struct device *virtio_console_create(struct machine *m, int slot, unsigned flags, struct chardev *cd, struct err *e);

/*
 * A serial port with a name that programs in the guest find it by; at the host's end either `u` (with `opaque`), or
 * `cd`, which the device owns once it succeeded. Everything below and all callbacks: machine lock held.
 */
struct virtio_port_user {
	/* A program in the guest has opened or closed the port; also after a state was loaded. May be NULL. */
	void (*opened)(void *opaque, bool open);
	/* Bytes from the guest; how many of them were taken. Fewer than n: the rest comes after virtio_serial_resume().
	 */
	size_t (*receive)(void *opaque, const uint8_t *bytes, size_t n);
	/* virtio_serial_write() that took less than it was given can take more now. May be NULL. */
	void (*writable)(void *opaque);
};
#define VIRTIO_SERIAL_AGENT "org.qemu.guest_agent.0" /* the name that the packaged guest agents look for */
struct device *virtio_serial_create(struct machine *m, int slot, unsigned flags, const char *name,
	const struct virtio_port_user *u, void *opaque, struct chardev *cd, struct err *e);
/* Bytes for the guest; how many it had room for. None while it has not opened the port or the machine stands still. */
size_t virtio_serial_write(struct device *dev, const void *bytes, size_t n);
void virtio_serial_resume(struct device *dev);
bool virtio_serial_is_open(const struct device *dev);

/* Entropy from the host's kernel, 1 MiB a second at most. */
struct device *virtio_rng_create(struct machine *m, int slot, unsigned flags, struct err *e);

/* A memory balloon; it starts empty. */
struct virtio_balloon;
struct virtio_balloon *virtio_balloon_create(struct machine *m, int slot, unsigned flags, struct err *e);
/* Ask the guest to give up `bytes` in all; what it has given up so far. */
void virtio_balloon_set(struct virtio_balloon *d, uint64_t bytes);
uint64_t virtio_balloon_actual(struct virtio_balloon *d);
/* The last numbers the guest's driver told (UINT64_MAX: not told), and ask it for fresh ones. False: none yet. */
struct balloon_stats {
	uint64_t at;							  /* virtual time, ns */
	uint64_t free, total, available, caches, swapped_in, swapped_out; /* bytes */
	uint64_t major_faults, minor_faults;
};
bool virtio_balloon_stats(struct virtio_balloon *d, struct balloon_stats *out);

#endif
