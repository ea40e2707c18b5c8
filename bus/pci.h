/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One PCI bus (bus 0) of 32 slots: configuration space, BARs, INTx routing, MSI and MSI-X. (PCI Local Bus 3.0)
 *
 * A device embeds `struct pci_dev` at its start (which starts with `struct device`), fills in the identity, adds BARs
 * and capabilities, and calls pci_add(). This file handles the header registers, maps and unmaps BARs as the guest
 * moves them, and hides them behind the command register's enable bits. Machine lock held throughout.
 */
#ifndef BUS_PCI_H
#define BUS_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/device.h"
#include "bus/irq.h"
#include "bus/mem.h"

#define PCI_SLOTS 32
#define PCI_FUNCTIONS 8
#define PCI_BARS 7 /* six and the expansion ROM (index 6) */

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_ROM };

struct pci_bar {
	enum pci_bar_kind kind;
	bool prefetchable;
	uint64_t size; /* power of two */
	const struct bus_ops *ops;
	void *opaque;
	struct ram *ram;	  /* instead of ops: video memory, option ROMs */
	struct mem_region region; /* private */
	int io_handle;		  /* private; -1 when not mapped */
	uint64_t mapped_at;	  /* private */
};

struct pci_dev {
	struct device dev;
	uint16_t vendor, device, subvendor, subdevice;
	uint8_t revision;
	uint32_t class;	  /* 24 bits: base class, subclass, interface */
	uint8_t intx_pin; /* 0 none, 1 INTA# ... */
	bool multifunction;
	struct pci_bar bars[PCI_BARS];

	/* Called after the common part took effect; may be NULL. `reg` is the byte offset. */
	void (*config_written)(struct pci_dev *d, unsigned reg, uint32_t value, unsigned size);

	/* Called before a read, so that registers that are not storage can be brought up to date; may be NULL. */
	void (*config_reading)(struct pci_dev *d, unsigned reg, unsigned size);

	/* filled in by pci_add() */
	uint8_t slot, function;
	uint8_t config[256];
	uint8_t writable[256]; /* mask of bits the guest may change */
	uint8_t intx_level;
	uint8_t msi_cap, msix_cap; /* config offsets, 0: absent */
	uint8_t cap_end;	   /* next free byte for capabilities */
	uint16_t msix_vectors;
	uint8_t *msix_table; /* 16 bytes a vector, in guest layout */
	uint8_t *msix_pba;
};

struct pci_bus {
	struct pci_dev *devs[PCI_SLOTS * PCI_FUNCTIONS];
	uint32_t config_address; /* port 0xcf8 */
	/* INTx of (slot, pin) to interrupt controller inputs: the south bridge (PIIX3) sets this. */
	void (*set_intx)(void *opaque, int slot, int pin, int level);
	void *intx_opaque;
};

/*
 * Put `d` at `slot` (-1: the first free slot from 3 on) and `function`. Registers the device under `class`.
 * 0, or -1 when the place is taken or the bus is full (then `d` holds nothing but itself). All FIELDS of pci_dev itself
 * are saved by bus/.
 */
int pci_add(struct machine *m, struct pci_dev *d, const struct dev_class *class, int slot, int function);
void pci_remove(struct machine *m, struct pci_dev *d); /* frees BARs; part of a PCI device's destroy */

/* Reserve `len` bytes of configuration space for a capability; returns its offset, 0 if there is no room. */
uint8_t pci_add_capability(struct pci_dev *d, uint8_t id, unsigned len);
/* MSI with one vector. */
void pci_add_msi(struct pci_dev *d);
/* MSI-X with table and PBA in BAR `bar` (this call makes that BAR a 4 KiB-multiple MEM32 BAR of its own). */
void pci_add_msix(struct pci_dev *d, int bar, unsigned vectors);

/* Drive INTx (level). With MSI or MSI-X enabled by the guest INTx is silent: use pci_msi()/pci_msix(). */
void pci_intx(struct pci_dev *d, int level);
bool pci_msi_enabled(struct pci_dev *d);
bool pci_msix_enabled(struct pci_dev *d);
void pci_msi(struct pci_dev *d);
void pci_msix(struct pci_dev *d, unsigned vector); /* pends if masked */
/* The ordinary case: level INTx, or on a rising level one MSI. */
void pci_irq(struct pci_dev *d, int level);

static inline bool
pci_bus_master(const struct pci_dev *d)
{
	return d->config[4] & 4;
}

/* Configuration mechanism #1 and anyone who needs it (ECAM later). devfn = slot << 3 | function. */
uint32_t pci_config_read(struct pci_bus *b, unsigned devfn, unsigned reg, unsigned size);
void pci_config_write(struct pci_bus *b, unsigned devfn, unsigned reg, uint32_t value, unsigned size);
/* Ports 0xcf8-0xcff; called by the host bridge's constructor. */
void pci_add_ports(struct machine *m);
/* Power-on state of one device's configuration space (its dev_class reset calls this). */
void pci_reset(struct pci_dev *d);
/*
 * What saves a machine: pci_fields for every function, and, where msix_vectors is not 0, msix_table (16 bytes a vector)
 * and msix_pba (a bit a vector, whole 8 bytes). After restoring them pci_loaded() maps the BARs and drives INTx.
 */
extern const struct field pci_fields[];
void pci_loaded(struct pci_dev *d);

#endif
