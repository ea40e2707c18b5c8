/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of OVF import and export share (DSP0243, "Open Virtualization Format", 0.9 to 2.1). Private to host/.
 *
 *	ovf_xml		XML from strangers as a tree
 *	ovf_envelope	the envelope: files, disks, virtual systems and their items
 *	ovf_package	where it all lies: beside the .ovf, or inside an .ova; the manifest
 *	ovf_plan	what an import would make: the units that `import --dry-run` lists
 *	ovf_machine	<vbox:Machine>, VirtualBox's own description inside of the envelope, both ways
 *	ovf_import, ovf_export
 */
#ifndef HOST_OVF_H
#define HOST_OVF_H

#include "host/appliance.h"
#include "host/inv.h"
#include "host/ovf_xml.h"

#define OVF_SYSTEMS_MAX 64
#define OVF_ITEMS_MAX 1024
#define OVF_DISKS_MAX 256

/* CIM_ResourceAllocationSettingData.ResourceType */
enum ovf_type {
	OVF_CPU = 3,
	OVF_MEMORY = 4,
	OVF_IDE = 5,
	OVF_SCSI = 6,
	OVF_NIC = 10,
	OVF_FLOPPY = 14,
	OVF_CD = 15,
	OVF_DVD = 16,
	OVF_DISK = 17,
	OVF_STORAGE = 20, /* "other storage": AHCI, NVMe, virtio-scsi by ResourceSubType */
	OVF_USB = 23,
	OVF_SOUND = 35,
};

/* Strings belong to the structure unless said otherwise. */
struct ovf_file {
	char *id, *href;
	bool gzip;
	uint64_t size; /* 0: not said */
};
struct ovf_disk {
	char *id, *format, *uuid;     /* format: a URL; "" when it is not said. uuid: vbox:uuid, or NULL */
	char *parent;		      /* parentRef, or NULL */
	int file;		      /* index, -1: an empty disk */
	uint64_t capacity, populated; /* bytes; populated 0: not said */
};
struct ovf_item {
	unsigned type;
	char *id, *parent, *address, *on_parent, *subtype, *resource, *network, *name; /* NULL: not there */
	uint64_t quantity;							       /* memory: bytes */
	bool required;
};
struct ovf_system {
	char *id, *name, *ostype; /* ostype: an identifier of host_ostype_find() */
	char *product, *vendor, *version, *product_url, *vendor_url, *description, *license;
	struct ovf_item *item;
	int items;
	const struct xml *machine; /* <vbox:Machine>, in the envelope's tree, or NULL */
	bool by_virtualbox;	   /* VirtualBox (or we) wrote it */
};
struct ovf {
	struct xml *tree;
	struct ovf_file *file;
	int files;
	struct ovf_disk *disk;
	int disks;
	struct ovf_system *system;
	int systems;
};

/* ---- ovf_envelope.c ---- */

struct ovf *ovf_parse(const char *text, size_t len, const char *what, struct err *e);
void ovf_free(struct ovf *o);
/* "byte * 2^20", "MegaBytes", NULL: bytes of one unit, 0: not known. */
uint64_t ovf_units(const char *text);
/* CIM_OperatingSystem.OsType of an operating system type, for the envelope. */
unsigned ovf_os_number(const struct host_ostype *t);

/* ---- ovf_package.c ---- */

struct ovf_digest {
	char *file, hex[129];
	const char *algorithm; /* OpenSSL's name */
};
struct ovf_package {
	char *path, *dir; /* of the .ovf or .ova, absolute, and where it lies */
	char *name;	  /* of the envelope, as the manifest has it */
	bool ova;
	char *text; /* the envelope */
	size_t len;
	struct ovf_digest *digest;
	int digests;
};
/* Reads the envelope, and checks it against the manifest if there is one. */
struct ovf_package *package_open(const char *path, struct err *e);
void package_free(struct ovf_package *p);
/*
 * The path of the file `f`, whole, unpacked and as the manifest says; free() it. What has to be written for that goes
 * to the directory `scratch`. `limit`: bytes that a compressed file may unpack to. NULL and *e.
 */
char *package_fetch(struct ovf_package *p, const struct ovf_file *f, const char *scratch, uint64_t limit,
	const struct block_progress *progress, struct err *e);
/* Is `name` one that a file of a package may have: relative, and staying inside? */
bool package_name_ok(const char *name);
/* The digest of a file in hexadecimal. */
int package_digest(
	const char *path, const char *algorithm, char hex[129], const struct block_progress *progress, struct err *e);

/* ---- ovf_plan.c ---- */

/* What a disk unit is about. */
struct plan_disk {
	int unit;	  /* index in host_ovf_system.unit */
	int disk, file;	  /* of the envelope; -1: none */
	bool iso;	  /* a disc for a drive, not a disk */
	const char *uuid; /* vbox:uuid or NULL */
	int controller;	  /* unit of its controller */
	enum host_bus bus;
	int port, device;
};
struct plan {
	struct plan_disk *disk;
	int disks;
	bool floppy, cdrom;
};
/* Fill a->system from the envelope. */
int plan_make(struct host *h, struct host_appliance *a, struct err *e);
void plan_free(struct host_appliance *a);
/* The format of a disk as block/ names it, from its URL; NULL: its contents say. */
const char *plan_format(const char *url);
const struct host_ovf_unit *plan_unit(const struct host_ovf_system *s, enum host_ovf_kind kind);

struct host_appliance {
	struct host *h;
	struct ovf_package *package;
	struct ovf *ovf;
	struct host_ovf_system *system;
	struct plan *plan; /* one a system */
	int systems;
};

/* ---- ovf_machine.c ---- */

/* Collects what could not be taken over. */
struct ovf_notes {
	struct str text;
};
/* Settings, adapters, extra data and guest properties of <vbox:Machine>; what cannot be had here goes to `notes`. */
void machine_read_settings(struct host *h, struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes);
/* The adapters' MAC addresses stay those of `machine`: all, or of those behind NAT. */
void machine_read_macs(struct host_vm *vm, const struct xml *machine, bool nat_only);
/* Controllers, with empty drives. `find` tells where the disk of a UUID goes. */
void machine_read_controllers(struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes);
/* Where <vbox:Machine> has the disk `uuid`. */
bool machine_find_disk(const struct xml *machine, const char *uuid, const char **controller, int *port, int *device);
/* Extra data and guest properties, once the machine is in the inventory. */
int machine_read_pairs(
	struct host *h, const struct host_vm *vm, const struct xml *machine, struct ovf_notes *notes, struct err *e);
/* Append <vbox:Machine>; uuids: of the exported disks by controller, port and device, see ovf_export.c. */
void machine_write(struct host *h, struct str *out, const struct host_vm *vm, bool macs, bool nat_macs,
	const char *(*disk_uuid)(void *opaque, const struct host_attachment *a), void *opaque);

/* A setting as the appliance has it, or a note that it cannot be had. */
void notes_set(struct ovf_notes *n, struct host *h, struct host_vm *vm, enum host_key key, int slot, const char *value);
void notes_add(struct ovf_notes *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
