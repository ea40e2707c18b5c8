/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PC, put together: board, processors, memory, the devices a user asked for, firmware or a kernel.
 *
 * Life of a `struct pc`:
 *	pc_open()	lock, loop, clock; nothing in it. Back ends (disks, networks) attach to pc->m.loop now
 *	pc_build()	memory, chips, CPUs, devices, tables, firmware: everything at its power-on state, CPUs parked
 *	pc_power_on()	CPU threads start; the first guest instruction runs after this
 *	pc_pause() / pc_resume() / pc_reset()
 *	pc_dismantle()	ends the CPUs' threads, destroys the devices; back ends are not used any more
 *	pc_close()	the loop and the rest; back ends that use the loop are closed before
 *
 * The caller runs pc->m.loop (loop_run) on a thread of its own and must have stopped it before pc_dismantle().
 * All of these functions are called without the machine lock, not from a CPU thread, and one at a time.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "block/block.h"
#include "bus/display.h"
#include "bus/machine.h"
#include "cpu/cpu.h"
#include "dev/chardev.h"
#include "net/net.h"

#define PC_MODULES_MAX 16
#define PC_DRIVES_MAX 64
#define PC_DEVICES_MAX 64
#define PC_SERIAL_MAX 4
#define PC_RAM_BELOW_4G 0xe0000000u /* memory above this size continues at 4 GiB */

/* What SMBIOS tells about maker and product; NULL or "" is left out (SMBIOS 2.8 string number 0). */
struct smbios_strings {
	char bios_vendor[65], bios_version[65];
	char vendor[65], product[65], product_version[65], serial[65], family[65];
	char board_vendor[65], board_product[65];
	char chassis_vendor[65];
};
/* As VirtualBox has them; guests and provisioning tools look at the product's name. */
void smbios_defaults(struct smbios_strings *s);

/* A drive at place `unit` of a controller (IDE: channel * 2 + device; virtio-blk: 0; others: port or target). */
struct pc_drive {
	int unit;
	struct block *block; /* NULL: an empty DVD or floppy drive */
	bool dvd, nonrotational, discard;
	char serial[21]; /* "": one is made up */
	/* The guest has put the disc out; the block is not used any more. Machine lock held. May be NULL. */
	void (*ejected)(void *opaque);
	void *opaque;
};

struct share;
struct props;

/* One device a user can name. `type` is a row of the catalogue (pc_device_type). */
struct pc_device {
	const char *type;
	int slot; /* PCI slot, -1: the first free one */
	int ports;
	int drive_count;
	struct pc_drive drives[PC_DRIVES_MAX];
	struct net_link *link;
	const char *variant;		     /* of an e1000: "82540EM", ...; NULL: that */
	uint64_t vram;			     /* bytes */
	int monitors;			     /* of a vga: 0 for 1234:1111, else screens of VirtualBox's adapter */
	struct chardev *cd;		     /* of a virtio-console or virtio-serial; owned by it once it is made */
	const struct virtio_port_user *port; /* of a virtio-serial without cd */
	void *port_opaque;
	struct share *share; /* of a vmmdev, as `props`: the caller's */
	struct props *props;
	bool no_host_time;	/* of a vmmdev: the guest does not get the host's time of day ... */
	int64_t time_offset_ms; /* ... which it is told with this added */
	bool not_bootable;	/* firmware does not try it */
	int boot_priority;	/* among adapters: 1 first, 4 last but for 0 */
	bool tablet, keyboard;	/* of an xhci: an absolute pointer, a keyboard */
	struct audio *audio;	/* of an ac97 or hda; stays the caller's */
	/* filled in by pc_build(): */
	void *made; /* the device's object */
	int pci_slot, pci_function;
};

struct pc_serial {
	uint16_t base; /* 0: no such port */
	int irq;
	struct chardev *cd; /* owned by the port once pc_build() has succeeded; NULL: nothing is connected */
};

enum pc_boot { PC_BOOT_NONE, PC_BOOT_FLOPPY, PC_BOOT_DISK, PC_BOOT_DVD, PC_BOOT_NET }; /* numbers of CMOS 0x3d */

struct pc_config {
	uint64_t ram; /* bytes, multiple of 1 MiB */
	struct cpu_options cpu;
	const struct cpu_engine *engine;
	bool hpet;
	bool rtc_local;	      /* the RTC shows the host's local time instead of UTC ... */
	int64_t rtc_offset_s; /* ... plus this */
	struct uuid uuid;
	struct smbios_strings smbios;

	const char *firmware; /* file; NULL: found by firmware_find() */
	enum pc_boot boot[4];
	bool boot_menu;
	bool firmware_log; /* what the firmware writes to port 0x402 goes to the log */

	/* Direct boot: NULL kernel means that the firmware boots. */
	const char *kernel, *initrd, *append;
	const char *modules[PC_MODULES_MAX];
	int module_count;

	struct pc_serial serial[PC_SERIAL_MAX];
	struct pc_device *devices; /* the caller's, stays until pc_close() */
	int device_count;
};

struct pc;

struct pc *pc_open(const char *name, struct err *e);
/* -1 and *e: then pc_close() is what is left to do. `c` must stay until pc_close(). */
int pc_build(struct pc *p, const struct pc_config *c, struct err *e);
int pc_power_on(struct pc *p, struct err *e);
void pc_pause(struct pc *p);
void pc_resume(struct pc *p);
/* The same for debuggers, counted: the machine runs when it is neither paused nor held. Any thread but a CPU's or the
 * loop's; these four and pc_reset() may be called at the same time. */
void pc_hold(struct pc *p);
void pc_release(struct pc *p);
/* All devices and CPUs to power-on state, kernel loaded again; leaves the machine as it was, running or paused. */
int pc_reset(struct pc *p, struct err *e);
/* After pc_build() has failed: are the serial ports there, and own what they are connected to? */
bool pc_owns_serial(const struct pc *p);
void pc_dismantle(struct pc *p); /* also after pc_build() has failed */
void pc_close(struct pc *p);	 /* NULL: nothing */

struct machine *pc_machine(struct pc *p);
struct cpus *pc_cpus(struct pc *p);

/*
 * Hot plug: a drive comes to, or goes from, place `unit` of the controller `d` while the machine runs. When the second
 * returns 0 its image is not used any more. -1 and *e: this kind of controller cannot do that, the place is taken, or
 * empty. Machine lock held.
 */
int pc_attach_drive(struct pc *p, struct pc_device *d, const struct pc_drive *drive, struct err *e);
int pc_detach_drive(struct pc *p, struct pc_device *d, int unit, struct err *e);

/*
 * Put `medium` (NULL: nothing) into the DVD or floppy drive at `unit` of `d`. On 0 the old one is not used any more. -1
 * and *e: there is no such drive, or the guest has locked its door and `force` is false. Machine lock held.
 */
int pc_change_medium(struct pc *p, struct pc_device *d, int unit, struct block *medium, bool force, struct err *e);
/* The machine goes on from a copy of another, or from its own past: tell the guest. Machine lock held. */
void pc_set_generation(struct pc *p, const struct uuid *id);
/* Press the power button. False: the guest does not listen to it. Machine lock held. */
bool pc_power_button(struct pc *p);
/* What a person types and does with the mouse; what the screen shows (false: there is no VGA). Machine lock held. */
struct input_sink pc_input(struct pc *p);
bool pc_display(struct pc *p, struct display_source *out);
/* ... on a screen; pc_display() is the first. False: there are fewer. */
bool pc_screen(struct pc *p, unsigned screen, struct display_source *out);
struct vga *pc_vga(struct pc *p); /* NULL: there is none */

/* VirtualBox's guest device, dev/dev.h; NULL: there is none. */
struct vmmdev *pc_guest_device(struct pc *p);
/* The RTC, as mc146818_follow(); machine lock held. */
int64_t pc_follow_host_time(struct pc *p, uint64_t slack_ns);

/* The name of row n of the catalogue of devices; NULL behind the last. */
const char *pc_device_type(int n);

/* The path of the firmware to use: `wanted`, or SeaBIOS where distributions put it. NULL and *e. free() it. */
char *firmware_find(const char *wanted, struct err *e);

#endif
