/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API of the product: the inventory of this host and every operation on it.
 *
 * The inventory is one SQLite database, $LODGE_HOME/inventory.db ($LODGE_HOME defaults to ~/.local/share/lodge). There
 * is no daemon: each front end opens the database, does its work in one transaction and leaves. Any number of them may
 * run at the same time.
 *
 * A machine's life cycle is guarded by its lock, an OFD lock on $LODGE_HOME/run/<uuid>/lock that its process (lodge-vm)
 * holds as long as it lives. "Is it running?" is always answered by that lock, never by what was written down: a
 * machine that was noted as running and whose lock is free without a final status has died and is `aborted`.
 *
 * Next to the database each machine has a folder with its settings file NAME.vbox, a description in JSON of all the
 * machine is. The database is what counts while the machine is registered; the file is what is left of a machine when
 * it is not, and host_vm_register() reads it back.
 *
 * Conventions: functions return 0 or a pointer, or -1 / NULL with *e filled. Structures returned are snapshots owned by
 * the caller and freed with the function of their name. One `struct host` belongs to one thread. Nothing is left half
 * done by a call that fails.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/net.h"

#define HOST_NICS 8
#define HOST_UARTS 4
#define HOST_BOOTS 4
#define HOST_SLOTS_MAX 8
#define HOST_DISK_PORTS_MAX 30

/* ------------------------------------------------------------------ the inventory itself */

struct host;

/* Open (the first time: create, mode 0700) the inventory. A database written by a newer version is refused. */
struct host *host_open(struct err *e);
void host_close(struct host *h);
const char *host_home(struct host *h);					      /* $LODGE_HOME, absolute */
const char *host_machine_folder(struct host *h);			      /* where new machines get their folders */
int host_set_machine_folder(struct host *h, const char *path, struct err *e); /* "default" for the built-in one */

/* A path as typed, made absolute and cleaned of "." and ".." by text alone. free() it. */
char *host_absolute_path(const char *path);

/* ------------------------------------------------------------------ operating system types */

struct host_ostype {
	const char *id, *description, *family, *family_description;
	bool is_64bit;
	unsigned memory_mb, vram_mb, disk_mb; /* what `createvm --default` gives */
};
/* The row with this id (any case) or description; NULL when there is none. */
const struct host_ostype *host_ostype_find(const char *id);
/* Row `i`, NULL behind the last. */
const struct host_ostype *host_ostype_at(size_t i);

/* ------------------------------------------------------------------ settings */

/*
 * Every setting of a machine is a row of host/settings.c: its key, how many slots it has (adapters, serial ports...),
 * its type, range and default, and which of the values that exist elsewhere have an effect here.
 */
/* clang-format off */
enum host_key {
	HK_OSTYPE, HK_GROUPS, HK_DESCRIPTION, HK_MEMORY, HK_VRAM, HK_CPUS, HK_CPUHOTPLUG, HK_CPUEXECUTIONCAP,
	HK_ACPI, HK_IOAPIC, HK_PAE, HK_LONGMODE, HK_APIC, HK_X2APIC, HK_HPET, HK_HWVIRTEX, HK_NESTEDPAGING,
	HK_LARGEPAGES, HK_VTXVPID, HK_VTXUX, HK_VIRTVMSAVE, HK_NESTEDHWVIRT, HK_PARAVIRTPROVIDER,
	HK_CPUPROFILE, HK_CPUIDPORTABILITY, HK_TRIPLEFAULTRESET, HK_PAGEFUSION, HK_IOMMU, HK_RTCUSEUTC,
	HK_FIRMWARE, HK_CHIPSET, HK_GRAPHICSCONTROLLER, HK_MONITORCOUNT, HK_ACCELERATE3D,
	HK_ACCELERATE2DVIDEO, HK_BIOSLOGOFADEIN, HK_BIOSLOGOFADEOUT, HK_BIOSLOGODISPLAYTIME,
	HK_BIOSLOGOIMAGEPATH, HK_BIOSBOOTMENU, HK_BIOSAPIC, HK_BIOSSYSTEMTIMEOFFSET, HK_BIOSPXEDEBUG,
	HK_BOOT, HK_NIC, HK_NICTYPE, HK_NICSPEED, HK_NICPROMISC, HK_NICBOOTPRIO, HK_NICTRACE,
	HK_NICTRACEFILE, HK_NICBANDWIDTHGROUP, HK_CABLECONNECTED, HK_BRIDGEADAPTER, HK_HOSTONLYADAPTER,
	HK_HOSTONLYNET, HK_INTNET, HK_NATNETWORK, HK_NICGENERICDRV, HK_NICPROPERTY, HK_MACADDRESS, HK_NATNET, HK_NATALIASMODE,
	HK_NATTFTPPREFIX, HK_NATTFTPFILE, HK_NATTFTPSERVER, HK_NATBINDIP, HK_NATSETTINGS,
	HK_NATDNSPASSDOMAIN, HK_NATDNSPROXY, HK_NATDNSHOSTRESOLVER, HK_NATLOCALHOSTREACHABLE, HK_MOUSE,
	HK_KEYBOARD, HK_UART, HK_UARTMODE, HK_UARTTYPE, HK_LPT, HK_AUDIO, HK_AUDIOENABLED, HK_AUDIOIN,
	HK_AUDIOOUT, HK_AUDIOCONTROLLER, HK_AUDIOCODEC, HK_CLIPBOARD, HK_CLIPBOARDTRANSFERS, HK_DRAGANDDROP,
	HK_VRDE, HK_VRDEPORT, HK_VRDEADDRESS, HK_VRDEAUTHTYPE, HK_VRDEAUTHLIBRARY, HK_VRDEMULTICON,
	HK_VRDEREUSECON, HK_VRDEVIDEOCHANNEL, HK_VRDEEXTPACK, HK_VRDEPASSWORD, HK_USBOHCI, HK_USBEHCI,
	HK_USBXHCI, HK_SNAPSHOTFOLDER, HK_HARDWAREUUID, HK_DEFAULTFRONTEND, HK_TPMTYPE, HK_RECORDING,
	HK_AUTOSTARTENABLED, HK_AUTOSTARTDELAY, HK_GUESTMEMORYBALLOON, HK_TELEPORTER, HK_VMPROCPRIORITY,
	HK_TRACINGENABLED, HK_AUTOSTOPTYPE,
	HK_COUNT,
	/* what else a change can ask for; no setting of their own */
	HK_NAME, HK_NATPF_ADD, HK_NATPF_DELETE, HK_NICPROPERTY_SET,
};
/* clang-format on */

enum host_type { HT_BOOL, HT_UINT, HT_INT, HT_ENUM, HT_TEXT, HT_SPECIAL };

struct host_setting {
	const char *name; /* "memory", also its key in settings files */
	int slots;	  /* 1: a setting of the machine; more: of each adapter, serial port, ... */
	enum host_type type;
	const char *fallback;  /* value of a new machine; "a|b": of slot 1, and of 2 and all that follow */
	int64_t min, max;      /* HT_UINT, HT_INT; HT_TEXT: longest */
	const char *values;    /* HT_ENUM: all values known, "a|b|c" */
	const char *effective; /* the values that do something here, "a|b"; NULL: all of them */
	const char *why;       /* why the others do not, a clause */
	bool kept; /* the others are kept all the same, for who reads them back: a guest runs as well without */
};
const struct host_setting *host_setting(enum host_key key);

/* WITHOUT_EFFECT: it can be set, and whoever sets it should be told *e. */
enum host_check { HOST_VALUE_OK, HOST_VALUE_MALFORMED, HOST_VALUE_UNSUPPORTED, HOST_VALUE_WITHOUT_EFFECT };
/* Is `value` one that `key` can take? *e (may be NULL) says why not. */
enum host_check host_setting_check(enum host_key key, int slot, const char *value, struct err *e);

/* ------------------------------------------------------------------ machines */

/* X(name, short, long, as errors spell it, a process exists) */
#define HOST_STATES(X)                                                                                                 \
	X(HOST_POWEROFF, "poweroff", "powered off", "PoweredOff", 0)                                                   \
	X(HOST_SAVED, "saved", "saved", "Saved", 0)                                                                    \
	X(HOST_ABORTED, "aborted", "aborted", "Aborted", 0)                                                            \
	X(HOST_STARTING, "starting", "starting", "Starting", 1)                                                        \
	X(HOST_RUNNING, "running", "running", "Running", 1)                                                            \
	X(HOST_PAUSED, "paused", "paused", "Paused", 1)                                                                \
	X(HOST_RESTORING, "restoring", "restoring", "Restoring", 1)                                                    \
	X(HOST_SAVING, "saving", "saving", "Saving", 1)                                                                \
	X(HOST_LIVE_SNAPSHOTTING, "livesnapshotting", "live snapshotting", "LiveSnapshotting", 1)                      \
	X(HOST_ONLINE_SNAPSHOTTING, "onlinesnapshotting", "online snapshotting", "OnlineSnapshotting", 1)              \
	X(HOST_STOPPING, "stopping", "stopping", "Stopping", 1)                                                        \
	X(HOST_GURU, "gurumeditation", "guru meditation", "GuruMeditation", 1)                                         \
	X(HOST_SNAPSHOTTING, "snapshotting", "snapshotting", "Snapshotting", 0)                                        \
	X(HOST_RESTORING_SNAPSHOT, "restoringsnapshot", "restoring snapshot", "RestoringSnapshot", 0)                  \
	X(HOST_DELETING_SNAPSHOT, "deletingsnapshot", "deleting snapshot", "DeletingSnapshot", 0)                      \
	X(HOST_SETTING_UP, "settingup", "setting up", "SettingUp", 0)

#define HOST_STATE_ENUM(name, s, l, a, live) name,
enum host_state { HOST_STATES(HOST_STATE_ENUM) HOST_STATE_COUNT };
#undef HOST_STATE_ENUM

const char *host_state_short(enum host_state s);
const char *host_state_long(enum host_state s);
const char *host_state_api(enum host_state s);
bool host_state_live(enum host_state s); /* a process exists for it */

enum host_device { HOST_DISK, HOST_DVD, HOST_FLOPPY };
enum host_bus {
	HOST_IDE,
	HOST_SATA,
	HOST_VIRTIO_BLK,
	HOST_FLOPPY_BUS,
	HOST_SCSI,
	HOST_SAS,
	HOST_USB,
	HOST_NVME,
	HOST_VIRTIO_SCSI
};

/* VirtualBox's types of media; what each does is in doc/disks.md. */
enum host_medium_kind {
	HOST_NORMAL,
	HOST_IMMUTABLE,
	HOST_WRITETHROUGH,
	HOST_SHAREABLE,
	HOST_READONLY,
	HOST_MULTIATTACH,
	HOST_MEDIUM_KINDS
};
const char *host_medium_kind_word(enum host_medium_kind k);
int host_medium_kind_of(const char *word); /* any case; -1 */

struct host_attachment {
	int port, device;
	enum host_device type;
	enum host_medium_kind kind; /* of the medium */
	char *medium;		    /* UUID; NULL: an empty drive */
	char *path;		    /* location of the medium; NULL with an empty drive */
	char *format;		    /* of the medium, lower case as block/ names it; NULL with an empty drive */
	bool nonrotational, discard, hotpluggable, tempeject, passthrough;
	bool ejected; /* it runs, and its guest has put the disc out for the time being (tempeject) */
};

struct host_controller {
	char *name;
	enum host_bus bus;
	const char *type; /* "IntelAhci", "PIIX4"... as VirtualBox spells it */
	int instance, ports, max_ports, devices_per_port;
	bool bootable, hostiocache;
	struct host_attachment *at;
	int at_count; /* sorted by port, device */
};

struct host_share {
	char *name, *path;
	char *mount_point; /* "": the guest's choice */
	bool readonly, automount;
};

struct host_vm {
	char uuid[37];
	char *name;
	char *folder;	/* absolute */
	char *cfg_file; /* folder/NAME.vbox */
	char *snap_folder, *log_folder;
	enum host_state state;
	int64_t state_time;		       /* when it changed, nanoseconds since 1970 */
	char *session;			       /* "headless" while it runs */
	char *state_file;		       /* of a saved machine; "" else */
	char snapshot[37];		       /* the one it goes back to and the next one's parent; "": none */
	char *value[HK_COUNT][HOST_SLOTS_MAX]; /* never NULL within the setting's slots */
	struct nat_rule *rules[HOST_NICS];     /* sorted by name */
	int rule_count[HOST_NICS];
	struct host_controller *ctl;
	int ctl_count;
	struct host_share *shares; /* sorted by name */
	int share_count;
};

/* `id`: a UUID, with or without braces, or a name. ERR_NOT_FOUND in VirtualBox's words. */
struct host_vm *host_vm_load(struct host *h, const char *id, struct err *e);
void host_vm_free(struct host_vm *vm);
static inline const char *
host_vm_get(const struct host_vm *vm, enum host_key key, int slot)
{
	return vm->value[key][slot];
}
bool host_vm_on(const struct host_vm *vm, enum host_key key, int slot); /* is it "on"? */
int64_t host_vm_num(const struct host_vm *vm, enum host_key key, int slot);
/* The attachment at a place, or NULL. */
const struct host_attachment *host_vm_attachment(const struct host_controller *c, int port, int device);

/* All machines in the order they were registered. Free each and then the array: host_vms_free(). */
int host_vms_load(struct host *h, struct host_vm ***out, size_t *count, struct err *e);
void host_vms_free(struct host_vm **vms, size_t count);

struct host_vm_create {
	const char *name;
	const char *ostype;	 /* NULL: "Other" */
	const char *base_folder; /* NULL: host_machine_folder() */
	const char *groups;	 /* NULL: "/" */
	const char *uuid;	 /* NULL: random */
	bool registered;	 /* put it into the inventory at once */
	bool defaults;		 /* memory, controllers and so on as its OS type suggests */
};
/* Makes the folder and the settings file. uuid and cfg_file tell what was made; free() cfg_file. */
int host_vm_create(struct host *h, const struct host_vm_create *c, char uuid[37], char **cfg_file, struct err *e);
int host_vm_register(struct host *h, const char *cfg_file, char uuid[37], struct err *e);
/* With `delete_files` its settings, logs and the disks attached to no one else go too; files of other people that lie
 * in the folder stay, and so does the folder then. */
int host_vm_unregister(struct host *h, const char *id, bool delete_files, struct err *e);

/*
 * Of what takes long; each member may be NULL. `stopped` is asked now and then whether to give up: then all is as before,
 * and the call fails. `too_late` is called once when that is wanted of what can only be finished by now.
 */
struct host_progress {
	void (*percent)(void *opaque, int percent);
	bool (*stopped)(void *opaque);
	void *opaque;
	void (*too_late)(void *opaque);
};

/* The machine's folder with all in it goes below `folder` (NULL: where new machines go). It does not run. */
int host_vm_move(struct host *h, const char *id, const char *folder, const struct host_progress *p, struct err *e);

struct host_change {
	enum host_key key;
	int slot; /* 0-based */
	const char *value;
};
/* All of the changes or none. Refused while the machine runs. */
int host_vm_modify(struct host *h, const char *id, const struct host_change *c, size_t count, struct err *e);

/* ------------------------------------------------------------------ storage */

struct host_controller_change {
	const char *name;
	const char *add;	   /* bus name: creates it */
	const char *type;	   /* "IntelAhci"...; NULL: as it is, or the bus's usual one */
	int ports;		   /* -1: unchanged */
	int bootable, hostiocache; /* -1, 0, 1 */
	const char *rename;
	bool remove;
};
int host_vm_controller(struct host *h, const char *id, const struct host_controller_change *c, struct err *e);

struct host_attach {
	const char *controller;
	int port, device;   /* -1: the only one there is */
	const char *type;   /* "hdd", "dvddrive", "fdd"; NULL: what is there, or what the medium is */
	const char *medium; /* "none", "emptydrive", a UUID or a path; NULL: keep */
	int nonrotational, discard, hotpluggable, tempeject, passthrough; /* -1: unchanged */
	bool force;	     /* unmount although the guest has locked the drive */
	const char *comment; /* description of the medium; NULL: unchanged */
	const char *setuuid; /* the medium gets this UUID, "": a random one; NULL: keeps its own */
	const char *group;   /* of bandwidth, "none": out of it; NULL: unchanged */
};
/*
 * On a running machine: the medium in a drive that has one can change, and drives of controllers that know hot plug
 * (SATA, virtio-scsi, NVMe) can come and, when they are hot-pluggable, go.
 */
int host_vm_attach(struct host *h, const char *id, const struct host_attach *a, struct err *e);

/* Bandwidth groups of disks (those of adapters: host/net.h): bytes a second, 0: no limit; -1: remove the group. */
int host_disk_group_set(struct host *h, const char *id, const char *name, int64_t rate, struct err *e);
bool host_disk_group(struct host *h, const char *id, const char *name, uint64_t *rate); /* false: there is none */
/* The group of what is attached there; free() it. NULL: none. */
char *host_disk_group_of(struct host *h, const char *id, const char *controller, int port, int device);

struct host_pair {
	char *key, *value;
};

struct host_medium {
	char uuid[37];
	char parent[37]; /* "": it is a base image */
	enum host_device type;
	enum host_medium_kind kind;
	bool autoreset;
	bool encrypted;
	char cipher[32], password_id[256];
	char *path, *format,
		*variant; /* format upper case as VirtualBox shows it: "VDI", "VMDK", "VHD", "QCOW2", "RAW" */
	char *description;
	uint64_t size, on_disk; /* bytes */
	bool missing;		/* the file is not there */
	bool has_parent;	/* it is a differencing image, registered or not */
	bool nameless;		/* the image carries no UUID; the registry gave it one */
	bool in_use;		/* a running machine has it */
	bool in_use_below;	/* or an image that reads through to it */
	char **user_names, (*user_uuids)[37];
	int users; /* machines it is attached to */
	char (*children)[37];
	int child_count;
	struct host_pair *properties;
	int property_count;
};
void host_medium_free(struct host_medium *m);
/* Registered media of a kind, oldest first. */
int host_media_load(struct host *h, enum host_device type, struct host_medium **out, size_t *count, struct err *e);
void host_media_free(struct host_medium *m, size_t count);
/* `id`: a UUID or a path. A file that exists is looked at though it be unknown, and not registered. */
struct host_medium *host_medium_load(struct host *h, enum host_device type, const char *id, struct err *e);

struct host_medium_create {
	enum host_device type;
	const char *path;
	const char *format; /* "VDI", "VMDK", "VHD", "QCOW2", "RAW"; NULL: VDI, or RAW for floppies */
	bool fixed;
	bool split;  /* into files of 2 GB: VMDK */
	bool stream; /* streamOptimized: VMDK */
	uint64_t size;
	const char *parent; /* UUID or path: a differencing image on it; size does not count then */
	void (*progress)(void *opaque, int percent);
	void *opaque;
};
int host_medium_create(struct host *h, const struct host_medium_create *c, char uuid[37], struct err *e);
int host_medium_close(struct host *h, enum host_device type, const char *id, bool delete_file, struct err *e);

struct host_medium_clone {
	const char *from, *to; /* UUID or path; `to` a UUID or path of a medium that exists with `existing` */
	enum host_device type;
	const char *format;   /* NULL: the source's */
	const char *password; /* of an encrypted one; the copy has the same key and password. NULL: none */
	bool fixed, split, stream, existing;
	const struct host_progress *progress;
};
/* *format (free() it) and uuid: of what was made. */
int host_medium_clone(struct host *h, const struct host_medium_clone *c, char uuid[37], char **format, struct err *e);

/* A raw image, or what comes from `fd`, becomes an image that is not registered. */
struct host_convert {
	const char *from; /* NULL: fd */
	int fd;
	uint64_t size; /* of what comes from fd */
	const char *to, *format, *uuid;
	bool fixed, split, stream;
	const struct host_progress *progress;
};
int host_convert_raw(const struct host_convert *c, struct err *e);

int host_medium_set_kind(struct host *h, enum host_device type, const char *id, enum host_medium_kind k, struct err *e);
int host_medium_set_autoreset(struct host *h, const char *id, bool on, struct err *e);
int host_medium_set_description(struct host *h, enum host_device type, const char *id, const char *text, struct err *e);
/* password: of an encrypted disk; NULL: none. Without it an encrypted one is refused where its data has to be read. */
int host_medium_resize(struct host *h, const char *id, uint64_t size, const char *password,
	const struct host_progress *p, struct err *e);
int host_medium_compact(
	struct host *h, const char *id, const char *password, const struct host_progress *p, struct err *e);
/* Move the files; `to` is a path or a directory. uuid: of what was moved. */
int host_medium_move(struct host *h, enum host_device type, const char *id, const char *to,
	const struct host_progress *p, char uuid[37], struct err *e);
/* The files were moved already: say where. */
int host_medium_set_location(struct host *h, enum host_device type, const char *id, const char *to, struct err *e);
/* value NULL: remove it. */
int host_medium_set_property(
	struct host *h, enum host_device type, const char *id, const char *key, const char *value, struct err *e);
/* uuid NULL: a random one. The medium must not be registered. */
int host_image_set_uuid(const char *path, const char *uuid, struct err *e);

/*
 * Encrypt, decrypt or change the password of a disk. password NULL: it is not encrypted; fresh NULL: it is not to be.
 * cipher NULL: AES-XTS256-PLAIN64.
 */
struct host_medium_encrypt {
	const char *id, *password, *fresh, *cipher, *password_id;
	const struct host_progress *progress;
};
int host_medium_encrypt(struct host *h, const struct host_medium_encrypt *c, struct err *e);
/* 0: it is the password; ERR_PASSWORD: it is not. */
int host_medium_check_password(struct host *h, const char *id, const char *password, struct err *e);

/* ------------------------------------------------------------------ extra data and guest properties */

/* `id`: a machine, or "global" / NULL. *value NULL: not set; free() it. */
int host_extra_get(struct host *h, const char *id, const char *key, char **value, struct err *e);
int host_extra_set(
	struct host *h, const char *id, const char *key, const char *value, struct err *e); /* NULL: remove */
typedef int host_pair_fn(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags);
int host_extra_each(struct host *h, const char *id, host_pair_fn *fn, void *opaque, struct err *e);

/*
 * Guest properties (host/guestprop.c): names of 1-63 bytes, values of at most 127. Of a machine that runs they are what
 * its process has, which its guest reads and writes too; of one that does not, what the inventory has.
 */
/* *value NULL: there is none. free() both. */
int host_guestprop_get(
	struct host *h, const char *id, const char *name, char **value, int64_t *time_ns, char **flags, struct err *e);
/* value NULL: remove. flags: "TRANSIENT, RDONLYGUEST..."; NULL: as they are. ERR_ACCESS: it is read-only. */
int host_guestprop_set(
	struct host *h, const char *id, const char *name, const char *value, const char *flags, struct err *e);
static inline int
host_guestprop_delete(struct host *h, const char *id, const char *name, struct err *e)
{
	return host_guestprop_set(h, id, name, NULL, NULL, e);
}
/* patterns: "/VirtualBox/GuestInfo/...|..."; NULL: all. Sorted by name; ends when `fn` returns something else than 0.
 */
int host_guestprop_each(
	struct host *h, const char *id, const char *patterns, host_pair_fn *fn, void *opaque, struct err *e);
/*
 * Wait until a property that `patterns` match changes, also while the machine starts or stops. 1: `fn` was called with
 * it (value "" and flags "" when it was removed); 0: timeout_ms (-1: none) have passed.
 */
int host_guestprop_wait(struct host *h, const char *id, const char *patterns, int timeout_ms, host_pair_fn *fn,
	void *opaque, struct err *e);

/* ------------------------------------------------------------------ shared folders */

struct host_share_change {
	const char *name, *path;
	int readonly, automount; /* -1: unchanged, or off for a new one */
	bool transient;		 /* of the running machine, gone when it ends */
	const char *mount_point; /* NULL: unchanged */
};
int host_share_add(struct host *h, const char *id, const struct host_share_change *c, struct err *e);
int host_share_remove(struct host *h, const char *id, const struct host_share_change *c, struct err *e);
int host_share_modify(struct host *h, const char *id, const struct host_share_change *c, struct err *e);
/* How many transient ones the machine has; 0 when it does not run. host_shares_free(). */
int host_shares_transient(struct host *h, const struct host_vm *vm, struct host_share **out);
void host_shares_free(struct host_share *list, int count);

/* ------------------------------------------------------------------ running machines */

/*
 * Operations that make or remove files are written down before they begin, and what a killed one left is put right by
 * whoever opens the inventory next: finished where everything needed is there, else undone. Called by front ends after
 * host_open(); `say` is called with a sentence for each.
 */
void host_recover(struct host *h, void (*say)(void *opaque, const char *sentence), void *opaque);

/* Write the running machine down and end it. On failure, and when it is stopped, it goes on. */
int host_vm_save_state(struct host *h, const char *id, const struct host_progress *p, struct err *e);
/* Throw a saved state away: the machine is powered off then. */
int host_vm_discard_state(struct host *h, const char *id, struct err *e);
/* Take a file as the saved state of a machine that is powered off; it is copied into its snapshot folder. */
int host_vm_adopt_state(struct host *h, const char *id, const char *path, struct err *e);

/*
 * Returns when the machine runs (its first instruction is about to be executed) or has failed to. A saved machine goes
 * on where it was. p, or NULL: once p->stopped() says so a machine that does not report soon is given up; that it runs
 * is never undone. The processes that start have a session of their own: Ctrl-C does not reach them.
 */
int host_vm_start(struct host *h, const char *id, const struct host_progress *p, struct err *e);
/* Returns 0 when the machine's process has ended, however it did, or -EINTR when a signal was handled first. */
int host_vm_wait_end(struct host *h, const char *id, struct err *e);

/* All of these fail with ERR_VM_STATE when the machine does not run. After HOST_POWEROFF_NOW its process is gone. */
enum host_control { HOST_PAUSE, HOST_RESUME, HOST_RESET, HOST_POWEROFF_NOW, HOST_POWER_BUTTON };
int host_vm_control(struct host *h, const char *id, enum host_control what, struct err *e);
/* The password called `name` for the running machine's encrypted disks; when it was the last one the machine goes on.
 */
int host_vm_add_password(struct host *h, const char *id, const char *name, const char *password, struct err *e);
int host_vm_screenshot(struct host *h, const char *id, int screen, const char *png_path, struct err *e);
int host_vm_scancodes(struct host *h, const char *id, const uint8_t *codes, size_t count, struct err *e);
/* Wishes that the guest's driver is told: a size of the screen, so much memory given up. */
struct host_display_hint {
	int display, width, height, bpp; /* width and height 0: no wish any more */
	bool enabled, placed;		 /* placed: x and y count */
	int x, y;
};
int host_vm_display_hint(struct host *h, const char *id, const struct host_display_hint *hint, struct err *e);
int host_vm_balloon(struct host *h, const char *id, int mib, struct err *e);
int host_vm_type_text(struct host *h, const char *id, const char *utf8, struct err *e);
/* Changes to a running machine; kept in its settings too. `value` as in host_change. */
int host_vm_change_live(struct host *h, const char *id, const struct host_change *c, struct err *e);
/* What is on its screen and which port its VRDE server listens on (-1: none). */
struct host_live {
	int width, height, depth, vrde_port;
	bool vrde_client;
	char engine[16];
	int additions_level; /* 1: the guest has drivers that talk to us, 2: services too */
	char additions[40];  /* their version, "6.0.0 r127566"; "": none */
};
int host_vm_live(struct host *h, const struct host_vm *vm, struct host_live *out, struct err *e);

/*
 * Why does the guest not answer? `say` gets lines for a person: what the machine does, a verdict where the screen, the
 * serial ports or the kernel's log give one, their last lines, and how its network stands. Works for machines that have
 * ended too. Takes up to a second or two: forwarded ports are tried.
 */
typedef void host_say_fn(void *opaque, const char *line);
int host_vm_why(struct host *h, const char *id, host_say_fn *say, void *opaque, struct err *e);

/* ------------------------------------------------------------------ snapshots */

/*
 * A snapshot is the machine's settings, its disks, and, if it ran, its memory at one moment. Snapshots of a machine are
 * a tree; the machine's current state hangs below one of them (host_vm.snapshot). A disk of a snapshot is never written
 * to again: what comes after goes to differencing images, in the machine's snapshot folder.
 */
struct host_snapshot {
	char uuid[37], parent[37]; /* parent "": it is the root */
	char *name, *description;
	int64_t time;	  /* nanoseconds since 1970 */
	char *state_file; /* "": the machine was off */
	bool current;
	int depth; /* 0: the root */
};
/* The tree depth first, children in the order of their making. */
int host_snapshots_load(struct host *h, const char *id, struct host_snapshot **out, size_t *count, struct err *e);
void host_snapshots_free(struct host_snapshot *s, size_t count);

struct host_snapshot_numbers {
	double stopped_ms; /* how long the guest stood still; 0: it did not run */
	double ms;
	uint64_t memory, written;
};
struct host_snapshot_take {
	const char *name, *description;
	const char *uuid; /* NULL: random */
	bool live;	  /* VirtualBox's word; the guest stands still as short as it can in any case */
	bool disks_only;  /* not the memory of a running machine */
	const struct host_progress *progress;
};
int host_snapshot_take(struct host *h, const char *id, const struct host_snapshot_take *t, char uuid[37],
	struct host_snapshot_numbers *n, struct err *e);
/* `snapshot`: its name or UUID; NULL: the current one. Fill name and uuid of what was found. */
int host_snapshot_find(struct host *h, const char *id, const char *snapshot, struct host_snapshot *out, struct err *e);
void host_snapshot_release(struct host_snapshot *s);
int host_snapshot_restore(
	struct host *h, const char *id, const char *snapshot, const struct host_progress *p, struct err *e);
/* Its disks are merged into what hangs on them, also while the machine runs. */
int host_snapshot_delete(
	struct host *h, const char *id, const char *snapshot, const struct host_progress *p, struct err *e);
/* The machine as it was. */
struct host_vm *host_snapshot_machine(struct host *h, const char *id, const char *snapshot, struct err *e);
/* NULL: unchanged. */
int host_snapshot_edit(
	struct host *h, const char *id, const char *snapshot, const char *name, const char *description, struct err *e);

/* ------------------------------------------------------------------ clones */

enum host_clone_mode { HOST_CLONE_MACHINE, HOST_CLONE_CHILDREN, HOST_CLONE_ALL };
struct host_clone {
	const char *name; /* NULL: "<source> Clone" */
	const char *uuid, *base_folder, *groups;
	const char *snapshot; /* clone this one instead of the current state */
	enum host_clone_mode mode;
	bool link; /* disks read through to those of the snapshot */
	bool registered, keep_all_macs, keep_nat_macs, keep_disk_names, keep_hwuuids;
	const struct host_progress *progress; /* stopped, nothing is left of the clone */
};
/* *name (free() it) and uuid: what was made. */
int host_vm_clone(
	struct host *h, const char *id, const struct host_clone *c, char **name, char uuid[37], struct err *e);

/* ------------------------------------------------------------------ debugging a running machine */

/* A request of the method "debug" (vm/protocol.h); what a request does not need is NULL or 0. */
struct host_debug {
	const char *what;
	int cpu;
	size_t count; /* of names, and values */
	const char *const *names, *const *values;
	const char *item, *args, *level, *listen;
	unsigned lines;
};
/* `fn` gets each pair of the answer (time and flags mean nothing). May be NULL. */
int host_vm_debug(
	struct host *h, const char *id, const struct host_debug *q, host_pair_fn *fn, void *opaque, struct err *e);
/* Counters: "/CPU0/exits_io" and its value. */
int host_vm_counters(struct host *h, const char *id, host_pair_fn *fn, void *opaque, struct err *e);
/* Write an ELF core of the machine to the new file `path`. */
int host_vm_core(struct host *h, const char *id, const char *path, struct err *e);

/* ------------------------------------------------------------------ forks */

struct host_forked {
	char *name; /* free() it; NULL: it was not started */
	char uuid[37];
	double ms; /* that starting it took */
};
/* `count` running copies of a running machine, named "PREFIX-1" and on (NULL: its name). out: room for `count`. */
int host_vm_fork(struct host *h, const char *id, const char *prefix, int count, const struct host_progress *p,
	struct host_forked *out, double *stopped_ms, struct err *e);

/* ------------------------------------------------------------------ inside the guest of a running machine */

/*
 * A user's session in the guest, through its agent (QEMU's, or ours). ERR_VM_STATE: the machine does not run; ERR_IPRT:
 * no agent, or it does not answer. Whether user and password are right is found out in the guest by what is done first;
 * ERR_ACCESS then. The session ends when it is closed, or when this process does: programs that still run are ended,
 * unless they were started to stay.
 */
struct host_guest;
struct host_guest *host_guest_open(struct host *h, const char *vm, const char *user, const char *password,
	const char *session_name, struct err *e);
void host_guest_close(struct host_guest *g); /* NULL: nothing */
uint64_t host_guest_session(const struct host_guest *g);

enum host_guest_end {
	HOST_GUEST_STARTED, /* and left alone */
	HOST_GUEST_EXITED,
	HOST_GUEST_SIGNALLED,
	HOST_GUEST_TIMEOUT, /* it was ended */
	HOST_GUEST_CANCELLED,
};
struct host_guest_program {
	const char *path;
	char *const *argv; /* with its name, up to a NULL */
	char *const *env;  /* "NAME=VALUE" beside what a login has, up to a NULL; NULL: nothing */
	const char *cwd;   /* NULL: the home directory */
	uint64_t timeout_ms;
	int in; /* a descriptor that its standard input comes from; -1: it has none */
	/* What it writes: stream 1 or 2. Not 0: no more is wanted, and the program is ended. NULL: thrown away. */
	int (*output)(void *opaque, int stream, const void *bytes, size_t n);
	void *opaque;
	int cancel;  /* a descriptor that can be read from when the program is to be ended; -1: none */
	bool detach; /* come back as soon as it runs, and let it run */
	bool orphan; /* it may run on after a timeout and without us */
	/* filled in: */
	int64_t pid;
	enum host_guest_end end;
	int status; /* of exit, or the signal */
};
/* ERR_NOT_FOUND: there is no such program. */
int host_guest_run(struct host_guest *g, struct host_guest_program *p, struct err *e);

/* A script for the guest's sh with "$1"...: its output (free() it) if it ends with 0, otherwise NULL and *e (ERR_GUEST)
 * with what it wrote to standard error. in: as above. */
char *host_guest_script(struct host_guest *g, const char *script, char *const *args, int in, struct err *e);

/* Files; errors as host_guest_script(). */
struct host_guest_stat {
	char kind; /* 'f', 'd', 'l' or another as ls has it */
	uint64_t size, inode, links;
	unsigned mode, uid, gid;
	char owner[64], group[64];
	int64_t mtime, atime, ctime; /* s */
};
/* ERR_NOT_FOUND: no such file. */
int host_guest_stat(struct host_guest *g, const char *path, bool follow, struct host_guest_stat *out, struct err *e);
struct host_guest_copy {
	bool recursive, follow, no_replace, update;
	void (*said)(void *opaque, const char *from, const char *to); /* each file; may be NULL */
	void *opaque;
};
int host_guest_copy_to(
	struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, struct err *e);
int host_guest_copy_from(
	struct host_guest *g, const char *from, const char *to, const struct host_guest_copy *c, struct err *e);

/* What clients do in the guest now: fn() once a session (pid 0) and once a process of it. Needs no session. */
struct host_guest_row {
	uint64_t session;
	const char *name, *user;
	int64_t pid;
	const char *command;
	bool running;
};
int host_guest_each(struct host *h, const char *vm, int (*fn)(void *opaque, const struct host_guest_row *r),
	void *opaque, struct err *e);
/* End a process of a session, or (pid 0) the session with all of them. */
int host_guest_end(struct host *h, const char *vm, uint64_t session, int64_t pid, struct err *e);

/* Does an agent answer, and whose: its version (free() it), "" as `ours` when it is QEMU's. ERR_IPRT: none, after
 * waiting for timeout_ms for one. */
int host_guest_agent(struct host *h, const char *vm, uint64_t timeout_ms, char **version, bool *ours, struct err *e);

/* The disc with our agent; free() it. NULL: it is not installed. */
char *host_additions_path(void);
/* Install the agent on the disc `iso` (NULL: ours) through the agent there is, and wait until it answers. *said: what
 * the installer said; free() it. */
int host_guest_update(struct host *h, const char *vm, const char *iso, uint64_t timeout_ms, char **said, struct err *e);

/* ------------------------------------------------------------------ the machine this runs on */

struct host_cpu {
	unsigned online, count, online_cores, cores;
	char model[96];
	unsigned *mhz; /* one a processor, 0 unknown */
	bool hw_virt, pae, long_mode, nested_paging, unrestricted, nested_virt, vmsave;
};
struct host_hw {
	struct host_cpu cpu;
	uint64_t memory_mb, memory_free_mb;
	char os[64], release[128];
};
void host_hw_get(struct host_hw *out);
void host_hw_release(struct host_hw *hw);

struct host_netif {
	char name[16], ip[16], mask[16], ip6[46], mac[18];
	unsigned prefix6;
	bool up, wireless;
};
/* Interfaces a bridge could use. *out is free()d. */
int host_netifs(struct host_netif **out, size_t *count, struct err *e);

/* Which engine `startvm` would use for a setting of "auto|kvm|jit|interp" (NULL: LODGE_ENGINE, else the host's extra
 * data "Lodge/Engine", else auto) and why, as the machine's program tells. */
int host_engine(
	struct host *h, const char *wanted, char *name, size_t name_size, char *why, size_t why_size, struct err *e);

#endif
