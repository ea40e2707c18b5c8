/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration document (vm/protocol.h), read and written by the same tables: one row a key, one table an object.
 * What a row cannot say (lists, addresses) has a pair of functions of its own.
 */
#include "vm/config.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "vm/private.h"
#include "vm/protocol.h"

#define DOCUMENT_MAX (1u << 20)

/* ---- tables ---- */

enum kind {
	K_STRING, /* char *, at most `max` bytes */
	K_PATH,	  /* char *, absolute or "" */
	K_CHARS,  /* char[max + 1] */
	K_BOOL,
	K_INT,	/* int, min to max */
	K_I64,	/* int64_t */
	K_U64,	/* uint64_t */
	K_U16,	/* uint16_t */
	K_ENUM, /* int-sized enum, an index into `names` */
	K_LIST, /* `item` for each element: count at `count`, elements at `off`, `size` apart, at most `max` */
	K_OWN,	/* read and write functions */
};

struct key;
struct place {
	const char *object; /* "storage[0].attachments[1]" */
	struct err *e;
};

struct key {
	const char *name;
	enum kind kind;
	size_t off;
	int64_t min, max;
	const char *const *names;
	const struct key *item;
	size_t count, size;
	void (*init)(void *element); /* defaults of a list's element */
	int (*read)(void *object, const json_t *value, const struct place *p);
	json_t *(*write)(const void *object); /* NULL result: leave it out */
};

#define KEY(type, json_name, member, what, low, high)                                                                  \
	{                                                                                                              \
		.name = json_name, .kind = what, .off = offsetof(type, member), .min = low, .max = high                \
	}
#define KEY_ENUM(type, json_name, member, texts)                                                                       \
	{                                                                                                              \
		.name = json_name, .kind = K_ENUM, .off = offsetof(type, member), .names = texts                       \
	}
#define KEY_LIST(type, json_name, member, counter, table, defaults)                                                    \
	{                                                                                                              \
		.name = json_name, .kind = K_LIST, .off = offsetof(type, member), .item = table,                       \
		.count = offsetof(type, counter), .size = sizeof(((type *)0)->member[0]),                              \
		.max = ARRAY_LEN(((type *)0)->member), .init = defaults                                                \
	}
#define KEY_OWN(json_name, reader, writer)                                                                             \
	{                                                                                                              \
		.name = json_name, .kind = K_OWN, .read = reader, .write = writer                                      \
	}

static int read_object(void *object, const json_t *j, const struct key *keys, const struct place *p);

static int
bad(const struct place *p, const char *key, const char *what)
{
	return err_set(
		p->e, ERR_INVALID, "machine configuration: %s%s%s: %s", p->object, p->object[0] ? "." : "", key, what);
}

static void
set_text(char **member, const char *text)
{
	free(*member);
	*member = xstrdup(text);
}

static int
read_text(void *at, const json_t *v, const struct key *k, const struct place *p)
{
	const char *text = json_string_value(v);

	if (!text)
		return bad(p, k->name, "a string is expected");
	if (strlen(text) != json_string_length(v))
		return bad(p, k->name, "the string has a NUL in it");
	if (strlen(text) < (size_t)k->min || strlen(text) > (size_t)k->max)
		return bad(p, k->name, "the string is too short or too long");
	if (k->kind == K_PATH && text[0] && text[0] != '/')
		return bad(p, k->name, "an absolute path is expected");
	if (k->kind == K_CHARS)
		memcpy(at, text, strlen(text) + 1);
	else
		set_text(at, text);
	return 0;
}

static int
read_number(void *at, const json_t *v, const struct key *k, const struct place *p)
{
	int64_t n = json_integer_value(v);
	char text[128];

	if (!json_is_integer(v))
		return bad(p, k->name, "a number is expected");
	if (n < k->min || n > k->max) {
		snprintf(text, sizeof(text), "%lld is not within %lld to %lld", (long long)n, (long long)k->min,
			(long long)k->max);
		return bad(p, k->name, text);
	}
	if (k->kind == K_INT)
		*(int *)at = (int)n;
	else if (k->kind == K_U16)
		*(uint16_t *)at = (uint16_t)n;
	else
		*(int64_t *)at = n;
	return 0;
}

static int
enum_index(const char *const *names, const char *text)
{
	for (int i = 0; text && names[i]; i++)
		if (!strcmp(names[i], text))
			return i;
	return -1;
}

static int
read_enum(void *at, const json_t *v, const struct key *k, const struct place *p)
{
	int n = enum_index(k->names, json_string_value(v));
	struct str text = { 0 };

	if (n >= 0) {
		*(int *)at = n;
		return 0;
	}
	str_add(&text, "one of these is expected:");
	for (int i = 0; k->names[i]; i++)
		str_addf(&text, " %s", k->names[i]);
	bad(p, k->name, text.s);
	str_free(&text);
	return -1;
}

static int
read_list(void *object, const json_t *v, const struct key *k, const struct place *p)
{
	int *count = (int *)((char *)object + k->count);

	if (!json_is_array(v))
		return bad(p, k->name, "a list is expected");
	if (json_array_size(v) > (size_t)k->max)
		return bad(p, k->name, "the list is too long");
	for (size_t i = 0; i < json_array_size(v); i++) {
		char where[256];
		struct place inner = { where, p->e };
		void *element = (char *)object + k->off + i * k->size;

		snprintf(where, sizeof(where), "%s%s%s[%zu]", p->object, p->object[0] ? "." : "", k->name, i);
		k->init(element);
		*count = (int)i + 1;
		if (read_object(element, json_array_get(v, i), k->item, &inner))
			return -1;
	}
	return 0;
}

static int
read_value(void *object, const json_t *v, const struct key *k, const struct place *p)
{
	void *at = (char *)object + k->off;

	switch (k->kind) {
	case K_STRING:
	case K_PATH:
	case K_CHARS:
		return read_text(at, v, k, p);
	case K_BOOL:
		if (!json_is_boolean(v))
			return bad(p, k->name, "true or false is expected");
		*(bool *)at = json_is_true(v);
		return 0;
	case K_INT:
	case K_I64:
	case K_U64:
	case K_U16:
		return read_number(at, v, k, p);
	case K_ENUM:
		return read_enum(at, v, k, p);
	case K_LIST:
		return read_list(object, v, k, p);
	case K_OWN:
		return k->read(object, v, p);
	}
	return -1;
}

static const struct key *
find_key(const struct key *keys, const char *name)
{
	for (; keys->name; keys++)
		if (!strcmp(keys->name, name))
			return keys;
	return NULL;
}

static int
read_object(void *object, const json_t *j, const struct key *keys, const struct place *p)
{
	const char *name;
	json_t *value;

	if (!json_is_object(j))
		return bad(p, "", "an object is expected");
	json_object_foreach((json_t *)j, name, value)
	{
		const struct key *k = find_key(keys, name);

		if (!k)
			return bad(p, name, "nobody knows this key");
		if (json_is_null(value) && k->kind != K_OWN)
			continue;
		if (read_value(object, value, k, p))
			return -1;
	}
	return 0;
}

static json_t *write_object(const void *object, const struct key *keys);

static json_t *
write_list(const void *object, const struct key *k)
{
	json_t *list = json_array();
	int count = *(const int *)((const char *)object + k->count);

	for (int i = 0; i < count; i++)
		json_array_append_new(list, write_object((const char *)object + k->off + (size_t)i * k->size, k->item));
	return list;
}

static json_t *
write_value(const void *object, const struct key *k)
{
	const void *at = (const char *)object + k->off;

	switch (k->kind) {
	case K_STRING:
	case K_PATH:
		return json_string(*(char *const *)at);
	case K_CHARS:
		return json_string(at);
	case K_BOOL:
		return json_boolean(*(const bool *)at);
	case K_INT:
		return json_integer(*(const int *)at);
	case K_U16:
		return json_integer(*(const uint16_t *)at);
	case K_I64:
	case K_U64:
		return json_integer(*(const int64_t *)at);
	case K_ENUM:
		return json_string(k->names[*(const int *)at]);
	case K_LIST:
		return write_list(object, k);
	case K_OWN:
		return k->write(object);
	}
	return NULL;
}

static json_t *
write_object(const void *object, const struct key *keys)
{
	json_t *j = json_object();

	for (; keys->name; keys++) {
		json_t *v = write_value(object, keys);

		if (v)
			json_object_set_new(j, keys->name, v);
	}
	return j;
}

/* ---- values with a form of their own ---- */

static int
read_version(void *object, const json_t *v, const struct place *p)
{
	if (json_integer_value(v) != VM_CONFIG_VERSION)
		return bad(p, "version", "this program reads version 1");
	return 0;
}

static json_t *
write_version(const void *object)
{
	return json_integer(VM_CONFIG_VERSION);
}

static int
read_uuid(void *object, const json_t *v, const struct place *p)
{
	struct vm_config *c = object;

	if (!json_is_string(v) || !uuid_parse(json_string_value(v), &c->uuid))
		return bad(p, "uuid", "a UUID is expected");
	return 0;
}

static json_t *
write_uuid(const void *object)
{
	const struct vm_config *c = object;
	char text[37];

	uuid_text(&c->uuid, text);
	return json_string(text);
}

static const char *const boot_names[] = { "none", "disk", "dvd", "net", "floppy", NULL };

static int
read_boot(void *object, const json_t *v, const struct place *p)
{
	struct vm_config *c = object;

	if (!json_is_array(v) || json_array_size(v) > VM_BOOT_MAX)
		return bad(p, "boot", "a list of at most 4 is expected");
	c->boot_count = 0;
	for (size_t i = 0; i < json_array_size(v); i++) {
		int n = enum_index(boot_names, json_string_value(json_array_get(v, i)));

		if (n < 0)
			return bad(p, "boot", "none, disk, dvd, net, floppy are expected");
		c->boot[c->boot_count++] = (enum vm_boot)n;
	}
	return 0;
}

static json_t *
write_boot(const void *object)
{
	const struct vm_config *c = object;
	json_t *list = json_array();

	for (int i = 0; i < c->boot_count; i++)
		json_array_append_new(list, json_string(boot_names[c->boot[i]]));
	return list;
}

/* A list of strings into `out`; returns how many, -1 and *e. */
static int
read_strings(char **out, size_t max, const json_t *v, const char *key, const struct place *p)
{
	if (!json_is_array(v) || json_array_size(v) > max)
		return bad(p, key, "a list of strings (not too many) is expected");
	for (size_t i = 0; i < json_array_size(v); i++)
		if (!json_is_string(json_array_get(v, i)))
			return bad(p, key, "a list of strings is expected");
	for (size_t i = 0; i < json_array_size(v); i++)
		set_text(&out[i], json_string_value(json_array_get(v, i)));
	return (int)json_array_size(v);
}

static json_t *
write_strings(char *const *s, int count)
{
	json_t *list = json_array();

	for (int i = 0; i < count; i++)
		json_array_append_new(list, json_string(s[i]));
	return list;
}

static int
read_modules(void *object, const json_t *v, const struct place *p)
{
	struct vm_config *c = object;

	c->module_count = read_strings(c->modules, PC_MODULES_MAX, v, "modules", p);
	if (c->module_count >= 0)
		return 0;
	c->module_count = 0;
	return -1;
}

static json_t *
write_modules(const void *object)
{
	const struct vm_config *c = object;

	return c->module_count ? write_strings(c->modules, c->module_count) : NULL;
}

static const struct key kernel_keys[] = {
	KEY(struct vm_config, "image", kernel, K_PATH, 0, 4095),
	KEY(struct vm_config, "initrd", initrd, K_PATH, 0, 4095),
	KEY(struct vm_config, "append", append, K_STRING, 0, 65535),
	KEY_OWN("modules", read_modules, write_modules),
	{ 0 },
};

static int
read_kernel(void *object, const json_t *v, const struct place *p)
{
	struct place inner = { "kernel", p->e };

	return json_is_null(v) ? 0 : read_object(object, v, kernel_keys, &inner);
}

static json_t *
write_kernel(const void *object)
{
	const struct vm_config *c = object;

	return c->kernel[0] ? write_object(object, kernel_keys) : NULL;
}

static const struct key smbios_keys[] = {
	KEY(struct smbios_strings, "bios_vendor", bios_vendor, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "bios_version", bios_version, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "vendor", vendor, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "product", product, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "product_version", product_version, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "serial", serial, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "family", family, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "board_vendor", board_vendor, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "board_product", board_product, K_CHARS, 0, 64),
	KEY(struct smbios_strings, "chassis_vendor", chassis_vendor, K_CHARS, 0, 64),
	{ 0 },
};

static int
read_smbios(void *object, const json_t *v, const struct place *p)
{
	struct place inner = { "smbios", p->e };
	struct vm_config *c = object;

	return json_is_null(v) ? 0 : read_object(&c->smbios, v, smbios_keys, &inner);
}

static json_t *
write_smbios(const void *object)
{
	return write_object(&((const struct vm_config *)object)->smbios, smbios_keys);
}

static const struct key vga_keys[] = {
	KEY(struct vm_config, "memory", vga_mib, K_U64, 1, 256),
	KEY(struct vm_config, "vbox", vga_vbox, K_BOOL, 0, 0),
	KEY(struct vm_config, "monitors", vga_monitors, K_INT, 1, 64),
	{ 0 },
};

static int
read_vga(void *object, const json_t *v, const struct place *p)
{
	struct place inner = { "vga", p->e };
	struct vm_config *c = object;

	if (!json_is_null(v))
		return read_object(object, v, vga_keys, &inner);
	c->vga_mib = 0;
	return 0;
}

static json_t *
write_vga(const void *object)
{
	return ((const struct vm_config *)object)->vga_mib ? write_object(object, vga_keys) : json_null();
}

static const struct key vrde_keys[] = {
	KEY(struct vm_config, "enabled", vrde_enabled, K_BOOL, 0, 0),
	KEY(struct vm_config, "address", vrde_address, K_STRING, 0, 63),
	KEY(struct vm_config, "ports", vrde_ports, K_STRING, 1, 255),
	KEY(struct vm_config, "password", vrde_password, K_STRING, 0, 255),
	{ 0 },
};

static int
read_vrde(void *object, const json_t *v, const struct place *p)
{
	struct place inner = { "vrde", p->e };
	struct vm_config *c = object;

	if (json_is_null(v))
		return 0;
	c->vrde = c->vrde_enabled = true;
	return read_object(object, v, vrde_keys, &inner);
}

static json_t *
write_vrde(const void *object)
{
	return ((const struct vm_config *)object)->vrde ? write_object(object, vrde_keys) : NULL;
}

static int
read_devices(void *object, const json_t *v, const struct place *p)
{
	struct vm_config *c = object;
	int n = json_is_null(v) ? 0 : read_strings(c->devices, VM_DEVICES_MAX, v, "devices", p);

	if (n < 0)
		return -1;
	c->device_count = n;
	return 0;
}

static json_t *
write_devices(const void *object)
{
	const struct vm_config *c = object;

	return write_strings(c->devices, c->device_count);
}

static int
read_mac(void *object, const json_t *v, const struct place *p)
{
	const char *text = json_string_value(v);
	struct vm_nic *n = object;

	if (json_is_null(v))
		return 0;
	if (!text || strlen(text) != 12 || strspn(text, "0123456789abcdefABCDEF") != 12)
		return bad(p, "mac", "12 hexadecimal digits are expected");
	for (int i = 0; i < 6; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1], 0 };

		n->mac[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return n->mac[0] & 1 ? bad(p, "mac", "this is a multicast address") : 0;
}

static json_t *
write_mac(const void *object)
{
	const uint8_t *m = ((const struct vm_nic *)object)->mac;

	return json_sprintf("%02x%02x%02x%02x%02x%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static int
read_forwards(void *object, const json_t *v, const struct place *p)
{
	struct vm_nic *n = object;

	if (json_is_null(v))
		return 0;
	if (!json_is_array(v) || json_array_size(v) > NAT_RULES_MAX)
		return bad(p, "forwards", "a list of at most 64 rules is expected");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const char *text = json_string_value(json_array_get(v, i));

		if (!text)
			return bad(p, "forwards", "a list of strings is expected");
		if (nat_rule_parse(text, &n->rules[n->rule_count], p->e))
			return err_wrap(p->e, "machine configuration: %s.forwards[%zu]", p->object, i);
		n->rule_count++;
	}
	return 0;
}

static json_t *
write_forwards(const void *object)
{
	const struct vm_nic *n = object;
	json_t *list = json_array();

	for (int i = 0; i < n->rule_count; i++) {
		char text[160];

		vm_config_rule_text(&n->rules[i], text, sizeof(text));
		json_array_append_new(list, json_string(text));
	}
	return list;
}

void
vm_config_rule_text(const struct nat_rule *r, char *out, size_t size)
{
	snprintf(out, size, "%s,%s,%s,%u,%s,%u", r->name, r->udp ? "udp" : "tcp", r->host_ip, r->host_port, r->guest_ip,
		r->guest_port);
}

static const char *const backend_names[] = { "none", "nat", "null", "switch", "tunnel", "vde", NULL };
static const struct key backend_keys[] = {
	KEY_ENUM(struct vm_nic, "type", backend, backend_names),
	KEY(struct vm_nic, "network", network, K_STRING, 0, 63),
	KEY(struct vm_nic, "hostname", hostname, K_STRING, 0, 255),
	KEY(struct vm_nic, "tftp", tftp, K_PATH, 0, 4095),
	KEY(struct vm_nic, "bootfile", bootfile, K_STRING, 0, 127),
	KEY(struct vm_nic, "localhost_reachable", localhost_reachable, K_BOOL, 0, 0),
	KEY_OWN("forwards", read_forwards, write_forwards),
	KEY(struct vm_nic, "dir", dir, K_PATH, 0, 4095),
	KEY(struct vm_nic, "port", port, K_STRING, 0, 63),
	KEY(struct vm_nic, "token", token, K_STRING, 0, 63),
	KEY(struct vm_nic, "local_port", local_port, K_U16, 0, 65535),
	KEY(struct vm_nic, "remote_port", remote_port, K_U16, 0, 65535),
	KEY(struct vm_nic, "local_ip", local_ip, K_STRING, 0, 15),
	KEY(struct vm_nic, "remote", remote, K_STRING, 0, 15),
	{ 0 },
};

static int
read_backend(void *object, const json_t *v, const struct place *p)
{
	char where[300];
	struct place inner = { where, p->e };

	snprintf(where, sizeof(where), "%s.backend", p->object);
	return json_is_null(v) ? 0 : read_object(object, v, backend_keys, &inner);
}

static json_t *
write_backend(const void *object)
{
	return write_object(object, backend_keys);
}

/* ---- the objects ---- */

static const char *const drive_names[] = { "disk", "dvd", "floppy", NULL };
static const struct key attachment_keys[] = {
	KEY(struct vm_attachment, "port", port, K_INT, 0, VM_ATTACHMENTS_MAX - 1),
	KEY(struct vm_attachment, "device", device, K_INT, 0, 1),
	KEY_ENUM(struct vm_attachment, "type", type, drive_names),
	KEY(struct vm_attachment, "path", path, K_PATH, 0, 4095),
	KEY(struct vm_attachment, "format", format, K_STRING, 0, 15),
	KEY(struct vm_attachment, "readonly", readonly, K_BOOL, 0, 0),
	KEY(struct vm_attachment, "shared", shared, K_BOOL, 0, 0),
	KEY(struct vm_attachment, "serial", serial, K_STRING, 0, 20),
	KEY(struct vm_attachment, "nonrotational", nonrotational, K_BOOL, 0, 0),
	KEY(struct vm_attachment, "discard", discard, K_BOOL, 0, 0),
	KEY(struct vm_attachment, "group", group, K_STRING, 0, 255),
	{ 0 },
};

static void
attachment_init(void *element)
{
	struct vm_attachment *a = element;

	a->path = xstrdup("");
	a->format = xstrdup("");
	a->serial = xstrdup("");
	a->group = xstrdup("");
}

static const char *const controller_names[] = { "ide", "ahci", "virtio", "virtio-scsi", "nvme", "lsilogic", "floppy",
	"usb", "lsisas", NULL };
static const struct key controller_keys[] = {
	KEY(struct vm_controller, "name", name, K_STRING, 1, 255),
	KEY_ENUM(struct vm_controller, "type", type, controller_names),
	KEY(struct vm_controller, "ports", ports, K_INT, 1, VM_ATTACHMENTS_MAX),
	KEY(struct vm_controller, "bootable", bootable, K_BOOL, 0, 0),
	KEY(struct vm_controller, "hostiocache", hostiocache, K_BOOL, 0, 0),
	KEY(struct vm_controller, "model", model, K_STRING, 0, 15),
	KEY_LIST(struct vm_controller, "attachments", attachments, attachment_count, attachment_keys, attachment_init),
	{ 0 },
};

static void
controller_init(void *element)
{
	struct vm_controller *c = element;

	c->name = xstrdup("");
	c->model = xstrdup("");
	c->bootable = c->hostiocache = true;
}

static const struct key group_keys[] = {
	KEY(struct vm_group, "name", name, K_STRING, 1, 255),
	KEY(struct vm_group, "limit", limit, K_U64, 0, INT64_MAX / 2),
	{ 0 },
};

static void
group_init(void *element)
{
	((struct vm_group *)element)->name = xstrdup("");
}

static const char *const nic_names[] = { "e1000", "virtio", "82543GC", "82545EM", "Am79C970A", "Am79C973", NULL };
static const struct key nic_keys[] = {
	KEY(struct vm_nic, "slot", slot, K_INT, 0, VM_NICS_MAX - 1),
	KEY_ENUM(struct vm_nic, "model", model, nic_names),
	KEY_OWN("mac", read_mac, write_mac),
	KEY(struct vm_nic, "cable", cable, K_BOOL, 0, 0),
	KEY_OWN("backend", read_backend, write_backend),
	KEY(struct vm_nic, "trace", trace, K_PATH, 0, 4095),
	KEY(struct vm_nic, "trace_on", trace_on, K_BOOL, 0, 0),
	KEY(struct vm_nic, "bandwidth_group", group, K_STRING, 0, 255),
	KEY(struct vm_nic, "bandwidth", bandwidth, K_U64, 0, INT64_MAX / 4),
	KEY(struct vm_nic, "speed", speed, K_U64, 0, 4000000),
	KEY(struct vm_nic, "boot_priority", boot_priority, K_INT, 0, 4),
	{ 0 },
};

static void
nic_init(void *element)
{
	struct vm_nic *n = element;

	vm_mac_random(n->mac);
	n->cable = n->localhost_reachable = n->trace_on = true;
	n->network = xstrdup("");
	n->hostname = xstrdup("");
	n->tftp = xstrdup("");
	n->bootfile = xstrdup("");
	n->dir = xstrdup("");
	n->port = xstrdup("");
	n->token = xstrdup("");
	n->local_ip = xstrdup("");
	n->remote = xstrdup("");
	n->group = xstrdup("");
	n->trace = xstrdup("");
}

static const char *const serial_names[] = { "disconnected", "file", "stdio", "pty", "server", "client", "tcpserver",
	"tcpclient", "device", NULL };
static const struct key serial_keys[] = {
	KEY(struct vm_serial, "port", port, K_INT, 0, VM_SERIAL_MAX - 1),
	KEY(struct vm_serial, "base", base, K_U16, 0x100, 0xfff8),
	KEY(struct vm_serial, "irq", irq, K_INT, 3, 15),
	KEY_ENUM(struct vm_serial, "mode", mode, serial_names),
	KEY(struct vm_serial, "path", path, K_STRING, 0, 4095),
	{ 0 },
};

static void
serial_init(void *element)
{
	((struct vm_serial *)element)->path = xstrdup("");
}

static const struct key share_keys[] = {
	KEY(struct vm_share, "name", name, K_STRING, 1, 255),
	KEY(struct vm_share, "path", path, K_PATH, 1, 4095),
	KEY(struct vm_share, "readonly", readonly, K_BOOL, 0, 0),
	KEY(struct vm_share, "symlinks", symlinks, K_BOOL, 0, 0),
	KEY(struct vm_share, "automount", automount, K_BOOL, 0, 0),
	KEY(struct vm_share, "mount_point", mount_point, K_STRING, 0, 255),
	{ 0 },
};

static void
share_init(void *element)
{
	struct vm_share *s = element;

	s->name = xstrdup("");
	s->path = xstrdup("");
	s->mount_point = xstrdup("");
}

static const struct key property_keys[] = {
	KEY(struct vm_property, "name", name, K_STRING, 1, 63),
	KEY(struct vm_property, "value", value, K_STRING, 0, 127),
	KEY(struct vm_property, "time", time, K_I64, 0, INT64_MAX),
	KEY(struct vm_property, "flags", flags, K_STRING, 0, 127),
	{ 0 },
};

static void
property_init(void *element)
{
	struct vm_property *p = element;

	p->name = xstrdup("");
	p->value = xstrdup("");
	p->flags = xstrdup("");
}

static const char *const triple_fault_names[] = { "stop", "reset", NULL };
static const struct key config_keys[] = {
	KEY_OWN("version", read_version, write_version),
	KEY(struct vm_config, "name", name, K_STRING, 1, 255),
	KEY_OWN("uuid", read_uuid, write_uuid),
	KEY(struct vm_config, "memory", memory_mib, K_U64, 4, 1 << 20),
	KEY(struct vm_config, "cpus", cpus, K_INT, 1, CPUS_MAX),
	KEY(struct vm_config, "engine", engine, K_STRING, 1, 15),
	KEY(struct vm_config, "cpu_model", cpu_model, K_STRING, 1, 31),
	KEY(struct vm_config, "hpet", hpet, K_BOOL, 0, 0),
	KEY(struct vm_config, "rtc_utc", rtc_utc, K_BOOL, 0, 0),
	KEY(struct vm_config, "host_time", host_time, K_BOOL, 0, 0),
	KEY(struct vm_config, "rtc_offset_ms", rtc_offset_ms, K_I64, INT64_MIN / 2, INT64_MAX / 2),
	KEY(struct vm_config, "sandbox", sandbox, K_BOOL, 0, 0),
	KEY(struct vm_config, "user", user, K_STRING, 0, 63),
	KEY(struct vm_config, "log", log, K_PATH, 0, 4095),
	KEY(struct vm_config, "state", state, K_PATH, 0, 4095),
	KEY(struct vm_config, "snapshot_dir", snapshot_dir, K_PATH, 0, 4095),
	KEY(struct vm_config, "generation", generation, K_STRING, 0, 36),
	KEY_ENUM(struct vm_config, "triple_fault", triple_fault, triple_fault_names),
	KEY_OWN("boot", read_boot, write_boot),
	KEY(struct vm_config, "cpu_cap", cpu_cap, K_INT, 1, 100),
	KEY(struct vm_config, "boot_menu", boot_menu, K_BOOL, 0, 0),
	KEY(struct vm_config, "firmware", firmware, K_PATH, 0, 4095),
	KEY_OWN("kernel", read_kernel, write_kernel),
	KEY_OWN("smbios", read_smbios, write_smbios),
	KEY_OWN("vga", read_vga, write_vga),
	KEY(struct vm_config, "usb", usb, K_BOOL, 0, 0),
	KEY(struct vm_config, "usb_tablet", usb_tablet, K_BOOL, 0, 0),
	KEY(struct vm_config, "usb_keyboard", usb_keyboard, K_BOOL, 0, 0),
	KEY(struct vm_config, "audio", audio, K_BOOL, 0, 0),
	KEY(struct vm_config, "hda", hda, K_BOOL, 0, 0),
	KEY(struct vm_config, "audio_file", audio_file, K_PATH, 0, 4095),
	KEY_LIST(struct vm_config, "storage", controllers, controller_count, controller_keys, controller_init),
	KEY_LIST(struct vm_config, "bandwidth", groups, group_count, group_keys, group_init),
	KEY_LIST(struct vm_config, "nics", nics, nic_count, nic_keys, nic_init),
	KEY_LIST(struct vm_config, "serial", serial, serial_count, serial_keys, serial_init),
	KEY_OWN("vrde", read_vrde, write_vrde),
	KEY(struct vm_config, "agent", agent, K_BOOL, 0, 0),
	KEY_OWN("devices", read_devices, write_devices),
	KEY(struct vm_config, "guest_device", guest_device, K_BOOL, 0, 0),
	KEY_LIST(struct vm_config, "shares", shares, share_count, share_keys, share_init),
	KEY_LIST(struct vm_config, "properties", properties, property_count, property_keys, property_init),
	{ 0 },
};

/* ---- life ---- */

struct vm_config *
vm_config_new(const char *name)
{
	struct vm_config *c = xcalloc(1, sizeof(*c));

	c->name = xstrdup(name);
	c->uuid = uuid_random();
	c->memory_mib = 128;
	c->cpus = 1;
	c->engine = xstrdup("auto");
	c->cpu_model = xstrdup("host");
	c->hpet = c->rtc_utc = c->host_time = c->sandbox = true;
	c->cpu_cap = 100;
	c->user = xstrdup("");
	c->log = xstrdup("");
	c->state = xstrdup("");
	c->snapshot_dir = xstrdup("");
	c->generation = xstrdup("");
	c->boot_count = 2;
	c->boot[0] = VM_BOOT_DISK;
	c->boot[1] = VM_BOOT_DVD;
	c->firmware = xstrdup("");
	c->kernel = xstrdup("");
	c->initrd = xstrdup("");
	c->append = xstrdup("");
	smbios_defaults(&c->smbios);
	c->vga_mib = 16;
	c->vga_monitors = 1;
	c->audio_file = xstrdup("");
	c->vrde_address = xstrdup("127.0.0.1");
	c->vrde_ports = xstrdup("5900-5999");
	c->vrde_password = xstrdup("");
	return c;
}

static void
free_members(void *object, const struct key *keys)
{
	for (; keys->name; keys++) {
		if (keys->kind == K_STRING || keys->kind == K_PATH)
			free(*(char **)((char *)object + keys->off));
		for (int i = 0; keys->kind == K_LIST && i < *(int *)((char *)object + keys->count); i++)
			free_members((char *)object + keys->off + (size_t)i * keys->size, keys->item);
	}
}

void
vm_config_free(struct vm_config *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->nic_count; i++)
		free_members(&c->nics[i], backend_keys);
	free_members(c, config_keys);
	free_members(c, kernel_keys);
	free_members(c, vrde_keys);
	for (int i = 0; i < PC_MODULES_MAX; i++)
		free(c->modules[i]);
	for (int i = 0; i < VM_DEVICES_MAX; i++)
		free(c->devices[i]);
	free(c);
}

/* Where COM1 to COM4 are. */
static void
complete_serial(struct vm_serial *s)
{
	static const struct {
		uint16_t base;
		int irq;
	} com[VM_SERIAL_MAX] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

	if (!s->base)
		s->base = com[s->port].base;
	if (!s->irq)
		s->irq = com[s->port].irq;
}

/* Defaults that depend on other members. */
static void
complete(struct vm_config *c)
{
	for (int i = 0; i < c->serial_count; i++)
		complete_serial(&c->serial[i]);
	c->guest_device |= c->share_count != 0;
	for (int i = 0; i < c->controller_count; i++)
		for (int k = 0; k < c->controllers[i].attachment_count; k++)
			c->controllers[i].ports =
				MAX(c->controllers[i].ports, c->controllers[i].attachments[k].port + 1);
}

int
vm_config_backend(struct vm_nic *n, const json_t *v, struct err *e)
{
	struct place place = { "backend", e };
	struct vm_nic fresh = { 0 }, old = *n;

	nic_init(&fresh);
	if (read_object(&fresh, v, backend_keys, &place)) {
		free_members(&fresh, backend_keys);
		free(fresh.group);
		free(fresh.trace);
		return -1;
	}
	free_members(&old, backend_keys);
	memcpy(fresh.mac, old.mac, 6);
	free(fresh.group);
	free(fresh.trace);
	fresh.slot = old.slot;
	fresh.model = old.model;
	fresh.cable = old.cable;
	fresh.group = old.group;
	fresh.bandwidth = old.bandwidth;
	fresh.trace = old.trace;
	fresh.trace_on = old.trace_on;
	*n = fresh;
	return 0;
}

struct vm_nic *
vm_config_add_nic(struct vm_config *c)
{
	struct vm_nic *n = &c->nics[c->nic_count++];

	nic_init(n);
	n->slot = c->nic_count - 1;
	return n;
}

struct vm_share *
vm_config_add_share(struct vm_config *c, const void *json, struct err *e)
{
	struct place place = { "share", e };
	struct vm_share *s = &c->shares[c->share_count];

	if (c->share_count == VM_SHARES_MAX) {
		err_set(e, ERR_INVALID, "A machine can have %d shared folders", VM_SHARES_MAX);
		return NULL;
	}
	*s = (struct vm_share){ 0 };
	share_init(s);
	c->share_count++;
	if (!read_object(s, json, share_keys, &place))
		return s;
	vm_config_remove_share(c, s);
	return NULL;
}

void
vm_config_remove_share(struct vm_config *c, struct vm_share *s)
{
	free_members(s, share_keys);
	c->share_count--;
	memmove(s, s + 1, (size_t)(&c->shares[c->share_count] - s) * sizeof(*s));
}

struct vm_attachment *
vm_config_add_attachment(struct vm_controller *c, int port, int device)
{
	struct vm_attachment *a = &c->attachments[c->attachment_count++];

	attachment_init(a);
	a->port = port;
	a->device = device;
	return a;
}

struct vm_serial *
vm_config_add_serial(struct vm_config *c)
{
	struct vm_serial *s = &c->serial[c->serial_count++];

	serial_init(s);
	s->port = c->serial_count - 1;
	complete_serial(s);
	return s;
}

struct vm_config *
vm_config_parse(const char *text, size_t len, struct err *e)
{
	struct vm_config *c = vm_config_new("");
	struct place top = { "", e };
	json_error_t why;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

	if (!j) {
		err_set(e, ERR_INVALID, "machine configuration: line %d: %s", why.line, why.text);
		goto fail;
	}
	if (!json_object_get(j, "version")) {
		bad(&top, "version", "missing");
		goto fail;
	}
	if (read_object(c, j, config_keys, &top))
		goto fail;
	complete(c);
	if (vm_config_check(c, e))
		goto fail;
	json_decref(j);
	return c;
fail:
	json_decref(j);
	vm_config_free(c);
	return NULL;
}

struct vm_config *
vm_config_read(const char *path, struct err *e)
{
	struct vm_config *c;
	size_t len;
	char *text = file_read(path, DOCUMENT_MAX, &len, e);

	if (!text)
		return NULL;
	c = vm_config_parse(text, len, e);
	free(text);
	return c;
}

char *
vm_config_dump(const struct vm_config *c)
{
	json_t *j = write_object(c, config_keys);
	char *text = json_dumps(j, JSON_INDENT(2));

	json_decref(j);
	return text;
}

void
vm_mac_random(uint8_t mac[6])
{
	static const uint8_t oui[3] = { 0x08, 0x00, 0x27 };

	memcpy(mac, oui, 3);
	if (getrandom(mac + 3, 3, 0) != 3)
		memset(mac + 3, 0x42, 3);
}

/* ---- what one value cannot show ---- */

static int
check_controller(const struct vm_controller *c, struct err *e)
{
	static const struct {
		int ports, devices;
		bool dvd;
	} limits[] = {
		[VM_IDE] = { 2, 2, true },
		[VM_AHCI] = { 30, 1, true },
		[VM_VIRTIO] = { 30, 1, false },
		[VM_VIRTIO_SCSI] = { 64, 1, true },
		[VM_NVME] = { 64, 1, false },
		[VM_LSILOGIC] = { 16, 1, true },
		[VM_FLOPPY] = { 1, 2, false },
		[VM_USB] = { 8, 1, false },
		[VM_LSISAS] = { 8, 1, true },
	};

	if (!c->name[0])
		return err_set(e, ERR_INVALID, "machine configuration: a storage controller has no name");
	for (int i = 0; i < c->attachment_count; i++) {
		const struct vm_attachment *a = &c->attachments[i];

		if (a->port >= limits[c->type].ports || a->device >= limits[c->type].devices)
			return err_set(e, ERR_INVALID, "controller '%s' (%s) has no port %d, device %d", c->name,
				controller_names[c->type], a->port, a->device);
		if (a->type == VM_DISK && !a->path[0])
			return err_set(
				e, ERR_INVALID, "controller '%s', port %d: a disk needs a path", c->name, a->port);
		if (a->type == VM_DVD && !limits[c->type].dvd)
			return err_set(e, ERR_UNSUPPORTED, "controller '%s': %s has no DVD drives", c->name,
				controller_names[c->type]);
		if ((a->type == VM_FLOPPY_DRIVE) != (c->type == VM_FLOPPY))
			return err_set(
				e, ERR_INVALID, "controller '%s': floppy drives are for floppy controllers", c->name);
		for (int k = 0; k < i; k++)
			if (c->attachments[k].port == a->port && c->attachments[k].device == a->device)
				return err_set(e, ERR_INVALID, "controller '%s': port %d, device %d is taken twice",
					c->name, a->port, a->device);
	}
	return 0;
}

static int
check_places(const struct vm_config *c, struct err *e)
{
	for (int i = 0; i < c->nic_count; i++)
		for (int k = 0; k < i; k++)
			if (c->nics[i].slot == c->nics[k].slot)
				return err_set(e, ERR_INVALID, "network adapter %d is there twice", c->nics[i].slot);
	for (int i = 0; i < c->serial_count; i++)
		for (int k = 0; k < i; k++)
			if (c->serial[i].port == c->serial[k].port || c->serial[i].base == c->serial[k].base)
				return err_set(e, ERR_INVALID, "serial port %d is there twice", c->serial[i].port);
	for (int i = 0, ide = 0, floppy = 0; i < c->controller_count; i++) {
		ide += c->controllers[i].type == VM_IDE;
		floppy += c->controllers[i].type == VM_FLOPPY;
		if (ide > 1 || floppy > 1)
			return err_set(
				e, ERR_INVALID, "a machine can have one %s controller", ide > 1 ? "IDE" : "floppy");
	}
	return 0;
}

static int
check_serial(const struct vm_serial *s, struct err *e)
{
	bool needs = s->mode != VM_SERIAL_DISCONNECTED && s->mode != VM_SERIAL_STDIO && s->mode != VM_SERIAL_PTY;

	if (needs && !s->path[0])
		return err_set(
			e, ERR_INVALID, "serial port %d: mode '%s' needs a path", s->port, serial_names[s->mode]);
	return 0;
}

const char *
vm_device_type(const char *text)
{
	static const char *const types[] = { "virtio-rng", "virtio-balloon", "virtio-console", "virtio-serial",
		"debug-exit", "testdev" };
	size_t n = strcspn(text, "=");

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strlen(types[i]) == n && !strncmp(types[i], text, n))
			return text[n] && strcmp(types[i], "virtio-console") && strcmp(types[i], "virtio-serial")
				       ? NULL
				       : types[i];
	return NULL;
}

static int
check_device(const char *text, struct err *e)
{
	if (vm_device_type(text))
		return 0;
	return err_set(e, ERR_INVALID,
		"there is no device '%s'; there are virtio-rng, virtio-balloon, virtio-console[=BACKEND], "
		"virtio-serial[=BACKEND], debug-exit and testdev",
		text);
}

int
vm_config_check(const struct vm_config *c, struct err *e)
{
	if (!c->name[0])
		return err_set(e, ERR_INVALID, "machine configuration: name: missing");
	if (!c->kernel[0] && (c->initrd[0] || c->append[0] || c->module_count))
		return err_set(e, ERR_INVALID, "an initrd, modules or a command line need a kernel");
	for (int i = 0; i < c->controller_count; i++)
		if (check_controller(&c->controllers[i], e))
			return -1;
	for (int i = 0; i < c->serial_count; i++)
		if (check_serial(&c->serial[i], e))
			return -1;
	for (int i = 0; i < c->device_count; i++)
		if (check_device(c->devices[i], e))
			return -1;
	return check_places(c, e);
}
