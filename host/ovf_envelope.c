/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OVF envelope (DSP0243): from the XML tree to files, disks and virtual systems.
 *
 * Three generations look different and say the same:
 *	0.9	<Section xsi:type="ovf:DiskSection_Type">, <Content xsi:type="ovf:VirtualSystem_Type">, capacity in bytes
 *	1.x	<DiskSection>, <VirtualSystem>, <Item>
 *	2.x	as 1.x, and disks are <StorageItem>, adapters <EthernetPortItem>
 *
 * Elements are known by their local names; the namespace of the root says that it is an envelope at all.
 *
 * References between the parts are strings from strangers: a disk's file and an item's disk are looked up here, once,
 * and what leads nowhere is refused.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "host/ovf.h"

static const char *const namespaces[] = { "http://schemas.dmtf.org/ovf/envelope/1",
	"http://schemas.dmtf.org/ovf/envelope/2", "http://www.vmware.com/schema/ovf/1/envelope" };

/* "DiskSection", "VirtualSystem", ...: an element's name, or what its xsi:type says. */
static bool
is_section(const struct xml *x, const char *kind)
{
	const char *type = xml_attr(x, "type"), *colon = type ? strchr(type, ':') : NULL;
	size_t n = strlen(kind);

	if (xml_is(x, kind))
		return true;
	if (!type || (!xml_is(x, "Section") && !xml_is(x, "Content")))
		return false;
	type = colon ? colon + 1 : type;
	return !strncmp(type, kind, n) && !strcmp(type + n, "_Type");
}

static const struct xml *
section(const struct xml *parent, const char *kind)
{
	for (const struct xml *c = parent->child; c; c = c->next)
		if (is_section(c, kind))
			return c;
	return NULL;
}

static char *
copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void *
more(void *list, int count, size_t size)
{
	void *p = realloc(list, (size_t)(count + 1) * size);

	if (!p)
		abort();
	memset((char *)p + (size_t)count * size, 0, size);
	return p;
}

uint64_t
ovf_units(const char *text)
{
	static const struct {
		const char *word;
		unsigned shift;
	} words[] = { { "byte", 0 }, { "bytes", 0 }, { "b", 0 }, { "kilobytes", 10 }, { "kb", 10 }, { "megabytes", 20 },
		{ "mb", 20 }, { "gigabytes", 30 }, { "gb", 30 }, { "terabytes", 40 }, { "tb", 40 } };
	char squeezed[40], *end;
	size_t n = 0;
	long power;

	for (; *text; text++)
		if (!isspace((unsigned char)*text)) {
			if (n == sizeof(squeezed) - 1)
				return 0;
			squeezed[n++] = (char)tolower((unsigned char)*text);
		}
	squeezed[n] = 0;
	if (!n)
		return 1;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (!strcmp(squeezed, words[i].word))
			return 1ull << words[i].shift;
	if (!str_starts(squeezed, "byte*2^") || !isdigit((unsigned char)squeezed[7]))
		return 0;
	power = strtol(squeezed + 7, &end, 10);
	return !*end && power <= 50 ? 1ull << power : 0;
}

static int
amount(const char *text, const char *units, uint64_t max, uint64_t *out, const char *what, struct err *e)
{
	uint64_t unit = ovf_units(units ? units : ""), n;

	if (!unit)
		return err_set(e, ERR_XML, "the unit '%.60s' of %s is not known", units, what);
	if (!str_to_u64(text, 0, max / unit, &n))
		return err_set(e, ERR_XML, "%s is '%.60s': a number up to %llu is needed", what, text,
			(unsigned long long)(max / unit));
	*out = n * unit;
	return 0;
}

/* ---- <References> ---- */

static int
parse_file(struct ovf *o, const struct xml *x, struct err *e)
{
	const char *id = xml_attr(x, "id"), *href = xml_attr(x, "href"), *compression = xml_attr(x, "compression");
	const char *size = xml_attr(x, "size");
	struct ovf_file *f;

	if (!id || !href || !*id || !*href)
		return err_set(e, ERR_XML, "a file of <References> has no id or no href");
	if (o->files == OVF_DISKS_MAX)
		return err_set(e, ERR_XML, "it has more than %d files", OVF_DISKS_MAX);
	for (int i = 0; i < o->files; i++)
		if (!strcmp(o->file[i].id, id))
			return err_set(e, ERR_XML, "two files have the id '%.60s'", id);
	if (compression && *compression && strcmp(compression, "gzip") && strcmp(compression, "identity"))
		return err_set(e, ERR_UNSUPPORTED, "the file '%.200s' is compressed with '%.60s': gzip can be used",
			href, compression);
	if (xml_attr(x, "chunkSize"))
		return err_set(e, ERR_UNSUPPORTED, "the file '%.200s' is cut into chunks, which cannot be used", href);
	o->file = more(o->file, o->files, sizeof(*o->file));
	f = &o->file[o->files++];
	f->id = xstrdup(id);
	f->href = xstrdup(href);
	f->gzip = compression && !strcmp(compression, "gzip");
	return size ? amount(size, NULL, 1ull << 62, &f->size, "the size of a file", e) : 0;
}

static int
parse_references(struct ovf *o, const struct xml *root, struct err *e)
{
	const struct xml *refs = xml_child(root, "References");

	for (const struct xml *x = xml_child(refs, "File"); x; x = xml_again(x))
		if (parse_file(o, x, e))
			return -1;
	return 0;
}

static int
find_file(const struct ovf *o, const char *id)
{
	for (int i = 0; i < o->files; i++)
		if (!strcmp(o->file[i].id, id))
			return i;
	return -1;
}

/* ---- <DiskSection> ---- */

static int
parse_disk(struct ovf *o, const struct xml *x, struct err *e)
{
	const char *id = xml_attr(x, "diskId"), *ref = xml_attr(x, "fileRef"), *format = xml_attr(x, "format");
	const char *capacity = xml_attr(x, "capacity"), *populated = xml_attr(x, "populatedSize");
	struct ovf_disk *d;

	if (!id || !*id || !capacity)
		return err_set(e, ERR_XML, "a disk of <DiskSection> has no diskId or no capacity");
	if (o->disks == OVF_DISKS_MAX)
		return err_set(e, ERR_XML, "it has more than %d disks", OVF_DISKS_MAX);
	o->disk = more(o->disk, o->disks, sizeof(*o->disk));
	d = &o->disk[o->disks++];
	d->id = xstrdup(id);
	d->format = xstrdup(format ? format : "");
	d->uuid = copy(xml_attr(x, "uuid"));
	d->parent = copy(xml_attr(x, "parentRef"));
	d->file = ref && *ref ? find_file(o, ref) : -1;
	if (ref && *ref && d->file < 0)
		return err_set(e, ERR_XML, "the disk '%.60s' is in the file '%.60s', which <References> does not have",
			id, ref);
	if (populated && amount(populated, NULL, 1ull << 62, &d->populated, "the populated size of a disk", e))
		return -1;
	return amount(capacity, xml_attr(x, "capacityAllocationUnits"), 1ull << 50, &d->capacity,
		"the capacity of a disk", e);
}

static int
parse_disks(struct ovf *o, const struct xml *root, struct err *e)
{
	const struct xml *s = section(root, "DiskSection");

	for (const struct xml *x = xml_child(s, "Disk"); x; x = xml_again(x))
		if (parse_disk(o, x, e))
			return -1;
	return 0;
}

/* ---- operating systems: CIM_OperatingSystem.OsType (CIM schema 2.37) ---- */

static const struct {
	unsigned number;
	const char *type;
} os_numbers[] = {
	/* The first of a type is the one it is written as. */
	{ 1, "Other" },
	{ 102, "Other_64" },
	{ 15, "Windows31" },
	{ 16, "Windows95" },
	{ 17, "Windows98" },
	{ 18, "WindowsNT4" },
	{ 37, "WindowsMe" },
	{ 58, "Windows2000" },
	{ 67, "WindowsXP" },
	{ 68, "WindowsXP_64" },
	{ 69, "Windows2003" },
	{ 70, "Windows2003_64" },
	{ 73, "WindowsVista" },
	{ 74, "WindowsVista_64" },
	{ 76, "Windows2008" },
	{ 77, "Windows2008_64" },
	{ 103, "Windows2008_64" },
	{ 105, "Windows7_64" },
	{ 113, "Windows2012_64" },
	{ 114, "Windows8_64" },
	{ 115, "Windows81_64" },
	{ 116, "Windows2012_64" },
	{ 120, "Windows10_64" },
	{ 119, "Windows2016_64" },
	{ 121, "Windows2016_64" },
	{ 79, "RedHat" },
	{ 80, "RedHat_64" },
	{ 82, "OpenSUSE" },
	{ 83, "OpenSUSE_64" },
	{ 84, "OpenSUSE" },
	{ 85, "OpenSUSE_64" },
	{ 89, "Mandriva" },
	{ 90, "Mandriva_64" },
	{ 91, "Turbolinux" },
	{ 92, "Turbolinux_64" },
	{ 93, "Ubuntu" },
	{ 94, "Ubuntu_64" },
	{ 95, "Debian" },
	{ 96, "Debian_64" },
	{ 97, "Linux24" },
	{ 98, "Linux24_64" },
	{ 99, "Linux26" },
	{ 100, "Linux26_64" },
	{ 36, "Linux26" },
	{ 101, "Linux26_64" },
	{ 106, "RedHat" },
	{ 107, "RedHat_64" },
	{ 108, "Oracle" },
	{ 109, "Oracle_64" },
	{ 29, "Solaris" },
	{ 30, "Solaris" },
	{ 42, "FreeBSD" },
	{ 78, "FreeBSD_64" },
	{ 41, "NetBSD" },
	{ 40, "OpenBSD" },
	{ 12, "OS2" },
	{ 21, "Netware" },
};

unsigned
ovf_os_number(const struct host_ostype *t)
{
	for (size_t i = 0; t && i < ARRAY_LEN(os_numbers); i++)
		if (!strcmp(os_numbers[i].type, t->id))
			return os_numbers[i].number;
	if (t && !strcmp(t->family, "Linux"))
		return t->is_64bit ? 101 : 36;
	return t && t->is_64bit ? 102 : 1;
}

/* vmw:osType: "debian11_64Guest", "ubuntu64Guest", "windows9Server64Guest": what it begins with decides. */
static const char *
vmware_type(const char *text)
{
	static const struct {
		const char *prefix, *type, *type64;
	} rows[] = { { "debian", "Debian", "Debian_64" }, { "ubuntu", "Ubuntu", "Ubuntu_64" },
		{ "centos", "RedHat", "RedHat_64" }, { "rhel", "RedHat", "RedHat_64" },
		{ "fedora", "Fedora", "Fedora_64" }, { "oracleLinux", "Oracle", "Oracle_64" },
		{ "opensuse", "OpenSUSE", "OpenSUSE_64" }, { "sles", "OpenSUSE", "OpenSUSE_64" },
		{ "freebsd", "FreeBSD", "FreeBSD_64" }, { "solaris", "Solaris", "Solaris_64" },
		{ "windows7", "Windows7", "Windows7_64" }, { "windows8", "Windows8", "Windows8_64" },
		{ "windows9", "Windows10", "Windows10_64" }, { "other24x", "Linux24", "Linux24_64" },
		{ "other26x", "Linux26", "Linux26_64" }, { "other3x", "Linux26", "Linux26_64" },
		{ "other4x", "Linux26", "Linux26_64" }, { "other5x", "Linux26", "Linux26_64" },
		{ "otherLinux", "Linux26", "Linux26_64" } };

	for (size_t i = 0; text && i < ARRAY_LEN(rows); i++)
		if (str_starts(text, rows[i].prefix))
			return strstr(text, "64") ? rows[i].type64 : rows[i].type;
	return NULL;
}

static void
parse_os(struct ovf_system *s, const struct xml *x)
{
	char *vbox = xml_child_text(x, "OSType");
	const char *id = NULL, *number = xml_attr(x, "id");
	uint64_t n;

	if (vbox && host_ostype_find(vbox))
		id = host_ostype_find(vbox)->id;
	s->by_virtualbox |= vbox != NULL;
	if (!id)
		id = vmware_type(xml_attr(x, "osType"));
	if (!id && number && str_to_u64(number, 0, 100000, &n))
		for (size_t i = 0; i < ARRAY_LEN(os_numbers) && !id; i++)
			if (os_numbers[i].number == n)
				id = os_numbers[i].type;
	if (id && host_ostype_find(id)) {
		free(s->ostype);
		s->ostype = xstrdup(host_ostype_find(id)->id);
	}
	free(vbox);
}

/* ---- <VirtualHardwareSection> ---- */

/* Types that say nothing about a machine: others' video cards, communication devices, graphics. */
static bool
known_type(uint64_t type)
{
	static const unsigned types[] = { 0, 1, OVF_CPU, OVF_MEMORY, OVF_IDE, OVF_SCSI, OVF_NIC, 13, OVF_FLOPPY, OVF_CD,
		OVF_DVD, OVF_DISK, 18, 19, OVF_STORAGE, 21, 22, OVF_USB, 24, OVF_SOUND };

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i] == type)
			return true;
	return false;
}

static int
item_quantity(struct ovf_item *it, const struct xml *x, struct err *e)
{
	char *quantity = xml_child_text(x, "VirtualQuantity"), *units = xml_child_text(x, "AllocationUnits");
	int r = 0;

	/* What a memory item counts in was not said by everyone: megabytes then. Other items' units mean nothing. */
	if (quantity && it->type == OVF_MEMORY)
		r = amount(quantity, units ? units : "MB", 1ull << 50, &it->quantity, "the amount of memory", e);
	else if (quantity && it->type == OVF_CPU)
		r = amount(quantity, NULL, 65536, &it->quantity, "the number of CPUs", e);
	free(quantity);
	free(units);
	return r;
}

static int
parse_item(struct ovf_system *s, const struct xml *x, struct err *e)
{
	char *type = xml_child_text(x, "ResourceType");
	const char *required = xml_attr(x, "required");
	struct ovf_item *it;
	uint64_t n;
	int r = 0;

	if (!type || !str_to_u64(type, 0, 100000, &n)) {
		free(type);
		return err_set(e, ERR_XML, "an item of the virtual hardware has no ResourceType");
	}
	free(type);
	if (s->items == OVF_ITEMS_MAX)
		return err_set(e, ERR_XML, "a virtual system has more than %d items", OVF_ITEMS_MAX);
	s->item = more(s->item, s->items, sizeof(*s->item));
	it = &s->item[s->items++];
	it->type = (unsigned)n;
	it->required = !required || (strcmp(required, "false") && strcmp(required, "0"));
	it->id = xml_child_text(x, "InstanceID");
	if (!it->id)
		it->id = xml_child_text(x, "InstanceId"); /* 0.9 */
	it->parent = xml_child_text(x, "Parent");
	it->address = xml_child_text(x, "Address");
	it->on_parent = xml_child_text(x, "AddressOnParent");
	it->subtype = xml_child_text(x, "ResourceSubType");
	it->resource = xml_child_text(x, "HostResource");
	it->network = xml_child_text(x, "Connection");
	it->name = xml_child_text(x, "ElementName");
	if (!it->name)
		it->name = xml_child_text(x, "Caption");
	r = item_quantity(it, x, e);
	if (!r && it->required && !known_type(n))
		r = err_set(e, ERR_UNSUPPORTED,
			"the virtual hardware '%.60s' (ResourceType %u) is required, and there is no such device here",
			it->name ? it->name : "", it->type);
	return r;
}

static bool
is_item(const struct xml *x)
{
	return xml_is(x, "Item") || xml_is(x, "StorageItem") || xml_is(x, "EthernetPortItem");
}

/* With <DeploymentOptionSection> an item can be for one configuration only: the default one has those without a mark.
 */
static int
parse_hardware(struct ovf_system *s, const struct xml *x, struct err *e)
{
	char *type = xml_child_text(xml_child(x, "System"), "VirtualSystemType");

	if (type && str_starts(type, "virtualbox"))
		s->by_virtualbox = true;
	free(type);
	for (const struct xml *c = x->child; c; c = c->next)
		if (is_item(c) && !xml_attr(c, "configuration") && parse_item(s, c, e))
			return -1;
	return 0;
}

/* ---- virtual systems ---- */

static void
replace(char **at, char *text)
{
	if (!text)
		return;
	free(*at);
	*at = text;
}

static void
parse_about(struct ovf_system *s, const struct xml *x)
{
	if (is_section(x, "OperatingSystemSection")) {
		parse_os(s, x);
	} else if (is_section(x, "ProductSection") && !s->product) {
		s->product = xml_child_text(x, "Product");
		s->vendor = xml_child_text(x, "Vendor");
		s->version = xml_child_text(x, "Version");
		s->product_url = xml_child_text(x, "ProductUrl");
		s->vendor_url = xml_child_text(x, "VendorUrl");
	} else if (is_section(x, "AnnotationSection")) {
		replace(&s->description, xml_child_text(x, "Annotation"));
	} else if (is_section(x, "EulaSection")) {
		replace(&s->license, xml_child_text(x, "License"));
	} else if (xml_is(x, "Machine")) {
		s->machine = x;
		s->by_virtualbox = true;
	}
}

static int
parse_system(struct ovf *o, const struct xml *x, struct err *e)
{
	const char *id = xml_attr(x, "id");
	struct ovf_system *s;

	if (o->systems == OVF_SYSTEMS_MAX)
		return err_set(e, ERR_XML, "it has more than %d virtual systems", OVF_SYSTEMS_MAX);
	o->system = more(o->system, o->systems, sizeof(*o->system));
	s = &o->system[o->systems++];
	s->id = xstrdup(id ? id : "");
	s->ostype = xstrdup("Other");
	s->name = xml_child_text(x, "Name");
	if (!s->name)
		s->name = xstrdup(s->id);
	for (const struct xml *c = x->child; c; c = c->next)
		parse_about(s, c);
	for (const struct xml *c = x->child; c; c = c->next) {
		/* One of several hardware sections is to be chosen: the first. */
		if (!is_section(c, "VirtualHardwareSection"))
			continue;
		return parse_hardware(s, c, e);
	}
	return 0;
}

/* Systems can lie in collections, and these in others. */
static int
parse_content(struct ovf *o, const struct xml *parent, struct err *e)
{
	for (const struct xml *c = parent->child; c; c = c->next) {
		if (is_section(c, "VirtualSystem") && parse_system(o, c, e))
			return err_wrap(e, "virtual system '%.100s'", o->system[o->systems - 1].id);
		if (is_section(c, "VirtualSystemCollection") && parse_content(o, c, e))
			return -1;
	}
	return 0;
}

struct ovf *
ovf_parse(const char *text, size_t len, const char *what, struct err *e)
{
	struct xml *tree = xml_parse(text, len, what, e);
	struct ovf *o;
	bool ours = false;

	if (!tree)
		return NULL;
	o = xcalloc(1, sizeof(*o));
	o->tree = tree;
	for (size_t i = 0; i < ARRAY_LEN(namespaces); i++)
		ours |= !strcmp(tree->ns, namespaces[i]) && xml_is(tree, "Envelope");
	if (!ours) {
		err_set(e, ERR_XML, "'%s' is no OVF envelope: its root element is <%.60s> of '%.100s'", what,
			tree->name, tree->ns);
		goto fail;
	}
	if (parse_references(o, tree, e) || parse_disks(o, tree, e) || parse_content(o, tree, e)) {
		err_wrap(e, "'%s' cannot be used", what);
		goto fail;
	}
	if (!o->systems) {
		err_set(e, ERR_XML, "'%s' cannot be used: it has no virtual system", what);
		goto fail;
	}
	return o;
fail:
	ovf_free(o);
	return NULL;
}

static void
system_release(struct ovf_system *s)
{
	for (int i = 0; i < s->items; i++) {
		struct ovf_item *it = &s->item[i];

		free(it->id);
		free(it->parent);
		free(it->address);
		free(it->on_parent);
		free(it->subtype);
		free(it->resource);
		free(it->network);
		free(it->name);
	}
	free(s->item);
	free(s->id);
	free(s->name);
	free(s->ostype);
	free(s->product);
	free(s->vendor);
	free(s->version);
	free(s->product_url);
	free(s->vendor_url);
	free(s->description);
	free(s->license);
}

void
ovf_free(struct ovf *o)
{
	if (!o)
		return;
	for (int i = 0; i < o->files; i++) {
		free(o->file[i].id);
		free(o->file[i].href);
	}
	for (int i = 0; i < o->disks; i++) {
		free(o->disk[i].id);
		free(o->disk[i].format);
		free(o->disk[i].uuid);
		free(o->disk[i].parent);
	}
	for (int i = 0; i < o->systems; i++)
		system_release(&o->system[i]);
	free(o->file);
	free(o->disk);
	free(o->system);
	xml_free(o->tree);
	free(o);
}
