/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation ID of a virtual machine ("Virtual Machine Generation ID", Microsoft, 2012): 16 bytes in a page of
 * read-only memory that the guest finds through ACPI (\_SB.VGEN, ADDR). They change when the machine goes on from a
 * copy or from the past (a fork, a clone, a snapshot restored), and the guest is told by general purpose event
 * VMGENID_GPE; it then makes its random numbers anew, before it uses any that its twin has as well.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

struct vmgenid {
	struct device dev;
	struct piix4pm *pm;
	struct ram *ram;
	struct mem_region region;
};

static void
destroy(struct device *d)
{
	struct vmgenid *v = (struct vmgenid *)d;

	mem_remove(&d->m->mem, &v->region);
	free(v);
}

/* The ID is in the page, which is saved with the memory. */
static const struct dev_class class = { .name = "vmgenid", .destroy = destroy };

struct vmgenid *
vmgenid_create(struct machine *m, gpa_t base, struct piix4pm *pm)
{
	struct vmgenid *v = xcalloc(1, sizeof(*v));
	struct uuid random = uuid_random();

	v->ram = ram_create(&m->mem, "vmgenid", PAGE_SIZE);
	if (!v->ram) {
		free(v);
		return NULL;
	}
	device_add(m, &v->dev, &class);
	v->pm = pm;
	memcpy(v->ram->host, random.b, sizeof(random.b));
	v->region = (struct mem_region){ .name = "vmgenid",
		.kind = MEM_ROM,
		.enabled = true,
		.priority = 1,
		.base = base,
		.size = PAGE_SIZE,
		.ram = v->ram };
	mem_add(&m->mem, &v->region);
	return v;
}

void
vmgenid_set(struct vmgenid *v, const struct uuid *id)
{
	memcpy(v->ram->host, id->b, sizeof(id->b));
	piix4pm_gpe(v->pm, VMGENID_GPE);
}
