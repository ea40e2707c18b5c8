/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI (4.1): the 1.x interface in BAR 4, and for transitional devices also the legacy one (4.1.4.8) in
 * BAR 0, an I/O BAR, so that SeaBIOS, iPXE and old kernels work. MSI-X is in BAR 1.
 *
 *	BAR 4, 16 KiB (each part has a vendor capability that names it)
 *	0x0000 common configuration (4.1.4.3)	0x2000 device configuration (4.1.4.6)
 *	0x1000 ISR status (4.1.4.5)		0x3000 notifications, 4 bytes a queue (4.1.4.4)
 *	BAR 0, 128 ports
 *	 0 u32 device features	 4 u32 driver features	 8 u32 queue address, in pages	12 u16 queue size
 *	14 u16 queue select	16 u16 queue notify	18 u8 status			19 u8 ISR
 *	20 u16, u16 MSI-X vectors of configuration and queue, only while MSI-X is enabled; then the device configuration
 *
 * A fifth capability gives access to BAR 4 through configuration space (4.1.4.7), for firmware that cannot reach it.
 */
#include <linux/virtio_pci.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio.h"

enum {
	PART_COMMON = 0x0000,
	PART_ISR = 0x1000,
	PART_DEVICE = 0x2000,
	PART_NOTIFY = 0x3000,
	PART_SIZE = 0x1000,
	CFG_CAP_LEN = 20,
	CFG_CAP_DATA = 16,
	MODERN_BAR = 4,
	MODERN_SIZE = 0x4000,
	NOTIFY_MULTIPLIER = 4,
	LEGACY_BAR = 0,
	LEGACY_PORTS = 128,
	LEGACY_PAGE_SHIFT = 12,
	LEGACY_ALIGN = 4096,
	MSIX_BAR = 1,
	ISR_QUEUE = 1,
	ISR_CONFIG = 2,
	CAP_VENDOR = 0x09,
};

/* ---- interrupts ---- */

static void
interrupt(struct virtio *v, uint8_t isr, uint16_t vector)
{
	if (pci_msix_enabled(&v->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix(&v->pci, vector);
		return;
	}
	v->isr |= isr;
	pci_intx(&v->pci, 1);
}

void
virtio_queue_interrupt(struct virtio *v, int queue)
{
	interrupt(v, ISR_QUEUE, v->vq[queue].vector);
}

void
virtio_config_changed(struct virtio *v)
{
	v->generation++;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(v, ISR_CONFIG, v->config_vector);
}

void
virtio_broken(struct virtio *v, int queue, const char *what)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	log_guest(v->pci.dev.name, "queue %d: %s; the device needs a reset", queue, what);
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_config_changed(v);
}

static uint8_t
isr_read(struct virtio *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	pci_intx(&v->pci, 0);
	return isr;
}

/* ---- reset, status, queues ---- */

static void
driver_reset(struct virtio *v)
{
	v->status = 0;
	if (v->class->reset)
		v->class->reset(v);
	v->features = 0;
	v->over_asked = 0;
	v->host_sel = v->driver_sel = 0;
	v->queue_sel = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	for (int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		uint16_t max = v->vq[i].num_max;

		v->vq[i] = (struct virtq){ .num = max, .num_max = max, .vector = VIRTIO_NO_VECTOR };
	}
	isr_read(v);
}

void
virtio_power_on(struct device *d)
{
	struct virtio *v = (struct virtio *)d;

	pci_reset(&v->pci);
	driver_reset(v);
}

static void
status_write(struct virtio *v, uint8_t s)
{
	uint8_t old = v->status;

	if (!s) {
		driver_reset(v);
		return;
	}
	/* 2.2.2: a driver of the 1.x interface that took what it was not offered does not get FEATURES_OK */
	if (v->over_asked)
		s &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	v->status = s | (old & VIRTIO_CONFIG_S_NEEDS_RESET);
	if ((s & ~old & VIRTIO_CONFIG_S_DRIVER_OK) && v->class->started)
		v->class->started(v);
}

static void
driver_features_write(struct virtio *v, uint32_t value)
{
	unsigned shift = v->driver_sel * 32;
	uint64_t bits = (uint64_t)value << (shift & 63), mask = (uint64_t)UINT32_MAX << (shift & 63);

	if (v->driver_sel > 1 || (v->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	v->features = (v->features & ~mask) | (bits & v->host_features);
	if (bits & ~v->host_features)
		v->over_asked = 1;
}

static struct virtq *
selected(struct virtio *v)
{
	return v->queue_sel < VIRTIO_QUEUES_MAX && v->vq[v->queue_sel].num_max ? &v->vq[v->queue_sel] : NULL;
}

static uint16_t
valid_vector(struct virtio *v, uint32_t vector)
{
	return vector < v->pci.msix_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void
queue_num_write(struct virtio *v, uint32_t num)
{
	struct virtq *q = selected(v);

	if (q && !q->enabled && num && num <= q->num_max && !(num & (num - 1)))
		q->num = (uint16_t)num;
}

static void
kick(struct virtio *v, uint32_t queue)
{
	if (queue < VIRTIO_QUEUES_MAX && v->vq[queue].enabled && virtio_running(v))
		v->class->kick(v, (int)queue);
}

/* ---- device configuration ---- */

static uint32_t
config_read(struct virtio *v, unsigned off, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_MAX + 8] = { 0 };

	if (off >= v->class->config_len)
		return 0;
	v->class->config_read(v, config);
	memset(config + v->class->config_len, 0, sizeof(config) - v->class->config_len);
	return size == 1 ? config[off] : size == 2 ? le16(config + off) : le32(config + off);
}

static void
config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	if (v->class->config_write && off < v->class->config_len && size <= v->class->config_len - off)
		v->class->config_write(v, off, value, size);
}

/* ---- the 1.x interface ---- */

static uint32_t
half(uint64_t value, unsigned off)
{
	return (uint32_t)(off & 4 ? value >> 32 : value);
}

static uint32_t
common_read(struct virtio *v, unsigned off)
{
	struct virtq *q = selected(v);

	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return v->host_sel;
	case VIRTIO_PCI_COMMON_DF:
		return v->host_sel < 2 ? (uint32_t)(v->host_features >> (32 * v->host_sel)) : 0;
	case VIRTIO_PCI_COMMON_GFSELECT:
		return v->driver_sel;
	case VIRTIO_PCI_COMMON_GF:
		return v->driver_sel < 2 ? (uint32_t)(v->features >> (32 * v->driver_sel)) : 0;
	case VIRTIO_PCI_COMMON_MSIX:
		return v->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ: {
		uint32_t n = 0;

		while (n < VIRTIO_QUEUES_MAX && v->vq[n].num_max)
			n++;
		return n;
	}
	case VIRTIO_PCI_COMMON_STATUS:
		return v->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return v->generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return v->queue_sel;
	}
	if (!q)
		return 0;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->num;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return q->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return v->queue_sel;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return half(q->desc, off - VIRTIO_PCI_COMMON_Q_DESCLO);
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return half(q->avail, off - VIRTIO_PCI_COMMON_Q_AVAILLO);
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return half(q->used, off - VIRTIO_PCI_COMMON_Q_USEDLO);
	}
	return 0;
}

static void
put_half(uint64_t *value, unsigned off, uint32_t v)
{
	if (off & 4)
		*value = (*value & UINT32_MAX) | (uint64_t)v << 32;
	else
		*value = (*value & ~(uint64_t)UINT32_MAX) | v;
}

static void
queue_write(struct virtio *v, struct virtq *q, unsigned off, uint32_t value)
{
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_MSIX:
		q->vector = valid_vector(v, value);
		return;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		queue_num_write(v, value);
		return;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			q->enabled = 1;
		return;
	}
	if (q->enabled) /* 4.1.4.3.2: addresses are set before */
		return;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		put_half(&q->desc, off - VIRTIO_PCI_COMMON_Q_DESCLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		put_half(&q->avail, off - VIRTIO_PCI_COMMON_Q_AVAILLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		put_half(&q->used, off - VIRTIO_PCI_COMMON_Q_USEDLO, value);
		break;
	}
}

static void
common_write(struct virtio *v, unsigned off, uint32_t value)
{
	struct virtq *q = selected(v);

	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		v->host_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		v->driver_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		driver_features_write(v, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		v->config_vector = valid_vector(v, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		status_write(v, (uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		v->queue_sel = (uint16_t)value;
		break;
	default:
		if (q)
			queue_write(v, q, off, value);
	}
}

static uint64_t
modern_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio *v = opaque;
	unsigned at = (unsigned)off & (PART_SIZE - 1);

	switch (off & ~(uint64_t)(PART_SIZE - 1)) {
	case PART_COMMON:
		return common_read(v, at);
	case PART_ISR:
		return at ? 0 : isr_read(v);
	case PART_DEVICE:
		return config_read(v, at, size);
	default:
		return 0;
	}
}

static void
modern_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio *v = opaque;
	unsigned at = (unsigned)off & (PART_SIZE - 1);

	switch (off & ~(uint64_t)(PART_SIZE - 1)) {
	case PART_COMMON:
		common_write(v, at, (uint32_t)value);
		break;
	case PART_DEVICE:
		config_write(v, at, (uint32_t)value, size);
		break;
	case PART_NOTIFY:
		kick(v, at / NOTIFY_MULTIPLIER);
		break;
	}
}

static const struct bus_ops modern_ops = { modern_read, modern_write, 1, 4 };

/* ---- the legacy interface ---- */

static unsigned
legacy_config_start(struct virtio *v)
{
	return VIRTIO_PCI_CONFIG_OFF(pci_msix_enabled(&v->pci));
}

static uint64_t
legacy_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio *v = opaque;
	struct virtq *q = selected(v);
	unsigned start = legacy_config_start(v);

	if (off >= start)
		return config_read(v, (unsigned)off - start, size);
	switch (off) {
	case VIRTIO_PCI_HOST_FEATURES:
		return (uint32_t)v->host_features;
	case VIRTIO_PCI_GUEST_FEATURES:
		return (uint32_t)v->features;
	case VIRTIO_PCI_QUEUE_PFN:
		return q && q->enabled ? q->desc >> LEGACY_PAGE_SHIFT : 0;
	case VIRTIO_PCI_QUEUE_NUM:
		return q ? q->num_max : 0;
	case VIRTIO_PCI_QUEUE_SEL:
		return v->queue_sel;
	case VIRTIO_PCI_STATUS:
		return v->status;
	case VIRTIO_PCI_ISR:
		return isr_read(v);
	case VIRTIO_MSI_CONFIG_VECTOR:
		return v->config_vector;
	case VIRTIO_MSI_QUEUE_VECTOR:
		return q ? q->vector : VIRTIO_NO_VECTOR;
	default:
		return 0;
	}
}

/* The legacy layout (2.6.2): one run of pages, the used ring at the next page boundary. Page 0 gives the queue up. */
static void
legacy_queue_address(struct virtq *q, uint32_t page)
{
	if (!page) {
		*q = (struct virtq){ .num = q->num_max, .num_max = q->num_max, .vector = q->vector };
		return;
	}
	q->num = q->num_max;
	q->desc = (uint64_t)page << LEGACY_PAGE_SHIFT;
	q->avail = q->desc + 16u * q->num;
	q->used = (q->avail + 6 + 2u * q->num + LEGACY_ALIGN - 1) & ~(uint64_t)(LEGACY_ALIGN - 1);
	q->enabled = 1;
}

static void
legacy_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio *v = opaque;
	struct virtq *q = selected(v);
	unsigned start = legacy_config_start(v);

	if (off >= start) {
		config_write(v, (unsigned)off - start, (uint32_t)value, size);
		return;
	}
	switch (off) {
	case VIRTIO_PCI_GUEST_FEATURES:
		v->features = (uint32_t)value & v->host_features; /* no FEATURES_OK here: just what there is */
		break;
	case VIRTIO_PCI_QUEUE_PFN:
		if (q)
			legacy_queue_address(q, (uint32_t)value);
		break;
	case VIRTIO_PCI_QUEUE_SEL:
		v->queue_sel = (uint16_t)value;
		break;
	case VIRTIO_PCI_QUEUE_NOTIFY:
		kick(v, (uint16_t)value);
		break;
	case VIRTIO_PCI_STATUS:
		status_write(v, (uint8_t)value);
		break;
	case VIRTIO_MSI_CONFIG_VECTOR:
		v->config_vector = valid_vector(v, (uint16_t)value);
		break;
	case VIRTIO_MSI_QUEUE_VECTOR:
		if (q)
			q->vector = valid_vector(v, (uint16_t)value);
		break;
	}
}

static const struct bus_ops legacy_ops = { legacy_read, legacy_write, 1, 4 };

/* ---- BAR 4 through configuration space (4.1.4.7): bar at 4, offset at 8, length at 12, data at 16 ---- */

/* The place in BAR 4 that the capability names, and its size; false: it names nothing that can be accessed. */
static bool
window(struct virtio *v, unsigned reg, unsigned size, uint32_t *off, uint32_t *len)
{
	const uint8_t *c = v->pci.config + v->cfg_cap;
	unsigned data = v->cfg_cap + (unsigned)CFG_CAP_DATA;

	*off = le32(c + 8);
	*len = le32(c + 12);
	return reg < data + 4 && reg + size > data && c[4] == MODERN_BAR && (*len == 1 || *len == 2 || *len == 4) &&
	       !(*off & (*len - 1)) && *off <= MODERN_SIZE - *len;
}

static void
config_space_read(struct pci_dev *p, unsigned reg, unsigned size)
{
	struct virtio *v = (struct virtio *)p;
	uint32_t off, len;

	if (window(v, reg, size, &off, &len))
		put_le32(p->config + v->cfg_cap + CFG_CAP_DATA, (uint32_t)modern_read(v, off, len));
}

static void
config_space_written(struct pci_dev *p, unsigned reg, uint32_t value, unsigned size)
{
	struct virtio *v = (struct virtio *)p;
	uint32_t off, len, data = le32(p->config + v->cfg_cap + CFG_CAP_DATA);

	if (window(v, reg, size, &off, &len))
		modern_write(v, off, len == 4 ? data : data & ((1u << 8 * len) - 1), len);
}

static void
add_window(struct virtio *v)
{
	uint8_t at = pci_add_capability(&v->pci, CAP_VENDOR, CFG_CAP_LEN);

	v->cfg_cap = at;
	v->pci.config[at + 2] = CFG_CAP_LEN;
	v->pci.config[at + 3] = VIRTIO_PCI_CAP_PCI_CFG;
	v->pci.writable[at + 4] = 0xff;
	memset(v->pci.writable + at + 8, 0xff, 12);
	v->pci.config_reading = config_space_read;
	v->pci.config_written = config_space_written;
}

/* ---- the device ---- */

static uint8_t
add_part(struct virtio *v, uint8_t type, uint32_t offset, unsigned len)
{
	uint8_t at = pci_add_capability(&v->pci, CAP_VENDOR, len);
	uint8_t *c = v->pci.config + at;

	c[2] = (uint8_t)len;
	c[3] = type;
	c[4] = MODERN_BAR;
	put_le32(c + 8, offset);
	put_le32(c + 12, PART_SIZE);
	return at;
}

static void
add_parts(struct virtio *v)
{
	uint8_t at;

	add_part(v, VIRTIO_PCI_CAP_COMMON_CFG, PART_COMMON, 16);
	add_part(v, VIRTIO_PCI_CAP_ISR_CFG, PART_ISR, 16);
	add_part(v, VIRTIO_PCI_CAP_DEVICE_CFG, PART_DEVICE, 16);
	at = add_part(v, VIRTIO_PCI_CAP_NOTIFY_CFG, PART_NOTIFY, 20);
	put_le32(v->pci.config + at + 16, NOTIFY_MULTIPLIER);
	add_window(v);
}

static void
fill_pci(struct virtio *v, const struct virtio_class *class)
{
	struct pci_dev *p = &v->pci;

	p->vendor = 0x1af4;
	p->device = v->transitional ? class->legacy_id : (uint16_t)(0x1040 + class->id);
	p->revision = v->transitional ? 0 : 1;
	p->subvendor = 0x1af4;
	p->subdevice = v->transitional ? class->id : 0x1100;
	p->class = class->pci_class;
	p->intx_pin = 1;
	if (v->transitional)
		p->bars[LEGACY_BAR] =
			(struct pci_bar){ .kind = PCI_BAR_IO, .size = LEGACY_PORTS, .ops = &legacy_ops, .opaque = v };
	p->bars[MODERN_BAR] = (struct pci_bar){
		.kind = PCI_BAR_MEM64, .prefetchable = true, .size = MODERN_SIZE, .ops = &modern_ops, .opaque = v
	};
}

int
virtio_add(struct machine *m, struct virtio *v, const struct virtio_class *class, int slot, bool modern,
	const uint16_t *sizes, int queues)
{
	v->class = class;
	v->transitional = class->legacy_id && !modern;
	v->host_features |= VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
			    VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_ANY_LAYOUT);
	for (int i = 0; i < queues && i < VIRTIO_QUEUES_MAX; i++)
		v->vq[i].num_max = sizes[i];
	fill_pci(v, class);
	pci_add_msix(&v->pci, MSIX_BAR, (unsigned)queues + 1);
	add_parts(v);
	if (pci_add(m, &v->pci, &class->dev, slot, 0))
		return -1;
	virtio_power_on(&v->pci.dev);
	return 0;
}

void
virtio_remove(struct virtio *v)
{
	pci_remove(v->pci.dev.m, &v->pci);
}

void
virtio_loaded(struct device *d)
{
	struct virtio *v = (struct virtio *)d;

	v->features &= v->host_features;
	v->config_vector = valid_vector(v, v->config_vector);
	for (int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		struct virtq *q = &v->vq[i];

		if (!q->num || q->num > VIRTQ_SIZE_MAX || (q->num & (q->num - 1)))
			q->enabled = 0;
		q->vector = valid_vector(v, q->vector);
	}
}
