/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything about one machine, as read from the JSON document that vm/protocol.h describes. The parser is strict: a
 * key nobody knows, a wrong type, a value out of range are errors that name the place ("storage[0].attachments[1]:
 * unknown key ...").
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "machine/machine.h"
#include "net/net.h"

#define VM_NICS_MAX 8
#define VM_SERIAL_MAX 4
#define VM_CONTROLLERS_MAX 8
#define VM_ATTACHMENTS_MAX 64
#define VM_BOOT_MAX 4
#define VM_DEVICES_MAX 16
#define VM_GROUPS_MAX 32

enum vm_boot { VM_BOOT_NONE, VM_BOOT_DISK, VM_BOOT_DVD, VM_BOOT_NET, VM_BOOT_FLOPPY };
enum vm_controller_type {
	VM_IDE,
	VM_AHCI,
	VM_VIRTIO,
	VM_VIRTIO_SCSI,
	VM_NVME,
	VM_LSILOGIC,
	VM_FLOPPY,
	VM_USB,
	VM_LSISAS
};
enum vm_drive_type { VM_DISK, VM_DVD, VM_FLOPPY_DRIVE };
enum vm_nic_model { VM_E1000, VM_VIRTIO_NET, VM_82543GC, VM_82545EM, VM_AM79C970A, VM_AM79C973 };
enum vm_nic_backend { VM_NET_NONE, VM_NET_NAT, VM_NET_NULL, VM_NET_SWITCH, VM_NET_TUNNEL, VM_NET_VDE };
enum vm_triple_fault { VM_TRIPLE_FAULT_STOP, VM_TRIPLE_FAULT_RESET };
enum vm_serial_mode {
	VM_SERIAL_DISCONNECTED,
	VM_SERIAL_FILE,
	VM_SERIAL_STDIO,
	VM_SERIAL_PTY,
	VM_SERIAL_SERVER,
	VM_SERIAL_CLIENT,
	VM_SERIAL_TCP_SERVER,
	VM_SERIAL_TCP_CLIENT,
	VM_SERIAL_DEVICE,
};

/* All strings are owned by the configuration and never NULL ("" when not given) unless it says so. */
struct vm_attachment {
	int port, device;
	enum vm_drive_type type;
	char *path; /* "": an empty drive */
	char *format;
	bool readonly, nonrotational, discard;
	bool shared; /* other machines write to it too */
	char *serial;
	char *group; /* of bandwidth; "": none */
	bool gone;   /* was unplugged while the machine ran */
};

struct vm_controller {
	char *name;
	enum vm_controller_type type;
	int ports;
	bool bootable;
	bool hostiocache; /* false: the data of its images goes past the host's page cache */
	char *model;	  /* of an ide: "PIIX3"; "": PIIX4 */
	int attachment_count;
	struct vm_attachment attachments[VM_ATTACHMENTS_MAX];
};

struct vm_nic {
	int slot;
	enum vm_nic_model model;
	uint8_t mac[6];
	bool cable;
	enum vm_nic_backend backend;
	char *network, *hostname, *tftp, *bootfile; /* nat */
	bool localhost_reachable;
	char *dir, *port, *token;	  /* switch; dir also of vde */
	uint16_t local_port, remote_port; /* tunnel */
	char *local_ip, *remote;
	int boot_priority;  /* 1 first, 4 last but for 0 */
	uint64_t speed;	    /* kbit/s it reports and sends at most, 0: the usual one, no limit */
	char *group;	    /* of adapters that share `bandwidth`; "": none */
	uint64_t bandwidth; /* bytes a second, 0: no limit */
	struct nat_rule rules[NAT_RULES_MAX];
	int rule_count;
	char *trace;
	bool trace_on;
};

#define VM_SHARES_MAX 64
#define VM_PROPERTIES_MAX 256

struct vm_share {
	char *name, *path, *mount_point;
	bool readonly, symlinks, automount;
	bool transient; /* came while the machine ran */
};

struct vm_property {
	char *name, *value, *flags;
	int64_t time;
};

/* Disks that share a limit of bandwidth. */
struct vm_group {
	char *name;
	uint64_t limit; /* bytes a second, 0: none */
};

struct vm_serial {
	int port;
	uint16_t base;
	int irq;
	enum vm_serial_mode mode;
	char *path;
};

struct vm_config {
	char *name;
	struct uuid uuid;
	uint64_t memory_mib;
	int cpus;
	char *engine, *cpu_model;
	bool hpet, rtc_utc, host_time, sandbox, boot_menu;
	enum vm_triple_fault triple_fault;
	int64_t rtc_offset_ms;
	int cpu_cap; /* percent of a host CPU that each virtual one may use */
	char *user, *log;
	char *state, *snapshot_dir, *generation;
	int boot_count;
	enum vm_boot boot[VM_BOOT_MAX];
	char *firmware;
	char *kernel, *initrd, *append; /* kernel "": none */
	int module_count;
	char *modules[PC_MODULES_MAX];
	struct smbios_strings smbios;
	uint64_t vga_mib; /* 0: none */
	bool vga_vbox;	  /* VirtualBox's adapter instead of a plain one ... */
	int vga_monitors; /* ... with so many screens */
	bool usb, usb_tablet, usb_keyboard;
	bool audio;	  /* an AC'97 */
	bool hda;	  /* an HD Audio controller instead of it */
	char *audio_file; /* where what it plays goes; "": nowhere */
	int controller_count;
	struct vm_controller controllers[VM_CONTROLLERS_MAX];
	int nic_count;
	struct vm_nic nics[VM_NICS_MAX];
	int group_count;
	struct vm_group groups[VM_GROUPS_MAX];
	int serial_count;
	struct vm_serial serial[VM_SERIAL_MAX];
	bool vrde, vrde_enabled;
	char *vrde_address, *vrde_ports, *vrde_password;
	bool agent;
	bool guest_device;
	int share_count;
	struct vm_share shares[VM_SHARES_MAX];
	int property_count;
	struct vm_property properties[VM_PROPERTIES_MAX];
	int device_count;
	char *devices[VM_DEVICES_MAX];
};

/* The defaults of vm/protocol.h, with `name`. Free with vm_config_free(). Never NULL. */
struct vm_config *vm_config_new(const char *name);
void vm_config_free(struct vm_config *c); /* NULL: nothing */

/* NULL and *e when the text is not such a document. */
struct vm_config *vm_config_parse(const char *text, size_t len, struct err *e);
struct vm_config *vm_config_read(const char *path, struct err *e);

/* The document of `c`, for vm_config_parse(). free() it. */
char *vm_config_dump(const struct vm_config *c);

/* What the parser cannot see in one value: places taken twice, a kernel without image... 0, or -1 and *e. */
int vm_config_check(const struct vm_config *c, struct err *e);

/* One more adapter, in the first slot that is free, or serial port, with defaults. There must be room. */
struct vm_nic *vm_config_add_nic(struct vm_config *c);
struct vm_serial *vm_config_add_serial(struct vm_config *c);
/* One more shared folder, as "share.add" of the protocol has it. NULL and *e. (Its name is checked by share/.) */
struct vm_share *vm_config_add_share(struct vm_config *c, const void *json, struct err *e);
void vm_config_remove_share(struct vm_config *c, struct vm_share *s);
struct vm_attachment *vm_config_add_attachment(struct vm_controller *c, int port, int device);

/* A rule as nat_rule_parse() reads it. */
void vm_config_rule_text(const struct nat_rule *r, char *out, size_t size);

/* The catalogue's name of a row of `devices` ("virtio-console=file:/x" is a "virtio-console"); NULL: not one of those
 * that may stand there. */
const char *vm_device_type(const char *text);

/* A new MAC address: 08:00:27 and three random bytes. */
void vm_mac_random(uint8_t mac[6]);

#endif
