/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appliances: machines in the Open Virtualization Format, a directory with an .ovf file or one .ova file.
 * doc/appliances.md.
 *
 * Importing has two steps, as VBoxManage shows it: read the appliance into numbered units that say what would be made
 * ("suggested VM name", "hard disk image"), which the caller may change, then make it.
 */
#ifndef HOST_APPLIANCE_H
#define HOST_APPLIANCE_H

#include "host/host.h"

enum host_ovf_kind {
	HOST_OVF_OS,
	HOST_OVF_NAME,
	HOST_OVF_PRODUCT,
	HOST_OVF_VENDOR,
	HOST_OVF_VERSION,
	HOST_OVF_PRODUCT_URL,
	HOST_OVF_VENDOR_URL,
	HOST_OVF_GROUP,
	HOST_OVF_SETTINGS,
	HOST_OVF_BASE,
	HOST_OVF_DESCRIPTION,
	HOST_OVF_LICENSE,
	HOST_OVF_CPUS,
	HOST_OVF_MEMORY, /* MiB */
	HOST_OVF_SOUND,
	HOST_OVF_USB,
	HOST_OVF_NIC,
	HOST_OVF_FLOPPY,
	HOST_OVF_CDROM,
	HOST_OVF_IDE,
	HOST_OVF_SATA,
	HOST_OVF_SCSI,
	HOST_OVF_NVME,
	HOST_OVF_VIRTIO_SCSI,
	HOST_OVF_VIRTIO_BLK,
	HOST_OVF_DISK,
};

struct host_ovf_unit {
	enum host_ovf_kind kind;
	char *orig;	     /* what the appliance says; a disk: its file */
	char *value;	     /* what will be made; a disk: its path */
	char *extra;	     /* "slot=0;type=NAT", "controller=10;port=0" */
	bool ignored, given; /* given: the caller set it */
};
struct host_ovf_system {
	struct host_ovf_unit *unit;
	int units;
	bool license_accepted;
};
struct host_ovf_disk {
	const char *id, *format, *file;
	uint64_t capacity;
	int64_t size, chunk, populated; /* -1: not said */
	const char *compression;
};

struct host_appliance;
/* Read the appliance at `path` and plan its import. NULL and *e. */
struct host_appliance *host_appliance_read(struct host *h, const char *path, struct err *e);
void host_appliance_free(struct host_appliance *a);
const char *host_appliance_path(const struct host_appliance *a);
int host_appliance_systems(const struct host_appliance *a);
const struct host_ovf_system *host_appliance_system(const struct host_appliance *a, int system);
/* Disk `i` of the envelope; false behind the last. */
bool host_appliance_disk(const struct host_appliance *a, int i, struct host_ovf_disk *out);

/* Change what will be made: the one unit of that kind (name, operating system, ...). */
int host_appliance_set(struct host_appliance *a, int system, enum host_ovf_kind kind, const char *value, struct err *e);
int host_appliance_accept_license(struct host_appliance *a, int system, struct err *e);
/* A unit by its number: what becomes of it is up to its kind. NULL, -1, false: as it is. */
struct host_ovf_change {
	bool ignore;
	const char *disk;	     /* path of a hard disk image, or a directory that ends in '/' */
	const char *controller_type; /* of a SCSI controller */
	int controller, port;	     /* of a hard disk image: unit, port */
};
int host_appliance_change(
	struct host_appliance *a, int system, int unit, const struct host_ovf_change *c, struct err *e);

struct host_import {
	bool keep_all_macs, keep_nat_macs, to_vdi;
	const struct host_progress *progress;
	/* What could not be taken over as it is, a sentence each. */
	void (*note)(void *opaque, const char *sentence);
	void *opaque;
};
/* Make the machines: all or none. */
int host_appliance_import(struct host_appliance *a, const struct host_import *i, struct err *e);

/* What one machine is exported with. NULL: not said. */
struct host_export_system {
	const char *vm, *name, *product, *product_url, *vendor, *vendor_url, *version, *description, *license;
};
enum host_ovf_version { HOST_OVF_09, HOST_OVF_10, HOST_OVF_20 };
struct host_export {
	const char *path; /* .ovf or .ova; must not exist */
	enum host_ovf_version version;
	bool manifest, iso; /* iso: discs in drives too */
	bool no_macs, no_macs_but_nat;
	const struct host_export_system *system;
	int systems;
	const struct host_progress *progress;
	void (*note)(void *opaque, const char *sentence);
	void *opaque;
};
int host_appliance_export(struct host *h, const struct host_export *x, struct err *e);

#endif
