/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exporting machines: disks as streamOptimized VMDKs, an envelope, a manifest; beside each other (.ovf) or in a tar
 * archive (.ova).
 *
 * The envelope says everything twice: as standard items, for everyone, and as <vbox:Machine>, for VirtualBox and us.
 * Elements of an item are in the order of their names, as the schema of rasd has them.
 *
 * Nothing that exists is written over. A note names all files before the first is made (media_job.c). An .ova is put
 * together in a directory of its own beside its place and moved there when it is whole and on stable storage.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/ovf.h"
#include "host/run.h"

#define STREAM_URL "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
#define ISO_URL "http://www.ecma-international.org/publications/standards/Ecma-119.htm"

struct going {
	const struct host_attachment *at;
	int vm;
	char *name; /* of the file */
	char uuid[37];
	uint64_t capacity, size;
	bool iso;
};

struct export
{
	struct host *h;
	const struct host_export *x;
	struct host_vm **vm;
	struct going *disk;
	int disks, isos;
	char *path, *dir, *stem; /* of the target, where files are made, their common beginning */
	bool ova;
	char **made; /* files, then the directory of an .ova's parts */
	int count;
	int done;
	struct str xml;
	int next_id; /* of items */
};

/* ---- what goes ---- */

static const struct host_export_system *
about(const struct export *m, int i)
{
	return &m->x->system[i];
}

static const char *
system_name(const struct export *m, int i)
{
	return about(m, i)->name ? about(m, i)->name : m->vm[i]->name;
}

static void
add_disk(struct export *m, int vm, const struct host_attachment *a)
{
	struct uuid u = uuid_random();
	struct going *g;
	bool iso = a->type == HOST_DVD;

	m->disk = realloc(m->disk, (size_t)(m->disks + 1) * sizeof(*g));
	if (!m->disk)
		abort();
	g = &m->disk[m->disks++];
	*g = (struct going){ .at = a, .vm = vm, .iso = iso };
	g->name = xasprintf("%s-disk%03d.%s", m->stem, m->disks, iso ? "iso" : "vmdk");
	uuid_text(&u, g->uuid);
}

static int
load_machine(struct export *m, int i, struct err *e)
{
	struct host_vm *vm = m->vm[i] = host_vm_load(m->h, about(m, i)->vm, e);

	if (!vm)
		return -1;
	if (vm_locked(m->h, vm->uuid))
		return vm_busy(vm, e);
	for (int k = 0; k < i; k++)
		if (!strcmp(m->vm[k]->uuid, vm->uuid))
			return err_set(e, ERR_INVALID, "The machine '%s' is named twice", vm->name);
	for (int c = 0; c < vm->ctl_count; c++)
		for (int n = 0; n < vm->ctl[c].at_count; n++) {
			const struct host_attachment *a = &vm->ctl[c].at[n];

			if (a->medium && (a->type == HOST_DISK || (a->type == HOST_DVD && m->x->iso)))
				add_disk(m, i, a);
		}
	return 0;
}

/* ---- where it goes ---- */

static int
place(struct export *m, struct err *e)
{
	const char *slash, *dot;

	m->path = host_absolute_path(m->x->path);
	slash = strrchr(m->path, '/');
	dot = strrchr(slash, '.');
	m->ova = dot && !strcasecmp(dot, ".ova");
	if (!dot || dot == slash + 1 || (!m->ova && strcasecmp(dot, ".ovf")))
		return err_set(e, ERR_FILE, "Appliance file '%s' has neither the suffix .ovf nor .ova", m->path);
	m->stem = strndup(slash + 1, (size_t)(dot - slash - 1));
	if (strchr(m->path, '\n'))
		return err_set(e, ERR_INVALID, "The path '%s' has a line break", m->path);
	m->dir = strndup(m->path, (size_t)MAX(slash - m->path, 1));
	if (access(m->dir, W_OK | X_OK))
		return err_sys(e, ERR_FILE, errno, "Nothing can be written to '%s'", m->dir);
	if (m->ova) {
		char *own = xasprintf("%s/.lodge-%s", m->dir, m->stem);

		free(m->dir);
		m->dir = own;
	}
	return 0;
}

static char *
in_dir(const struct export *m, const char *name)
{
	return xasprintf("%s/%s", strcmp(m->dir, "/") ? m->dir : "", name);
}

static int
add_made(struct export *m, char *path, struct err *e)
{
	struct stat st;

	m->made = realloc(m->made, (size_t)(m->count + 1) * sizeof(*m->made));
	if (!m->made)
		abort();
	m->made[m->count++] = path;
	if (!lstat(path, &st))
		return err_set(e, ERR_FILE,
			"Appliance file '%s' already exists -- skipping export (VERR_ALREADY_EXISTS)", path);
	return 0;
}

static char *
with_suffix(const struct export *m, const char *suffix)
{
	char *name = xasprintf("%s.%s", m->stem, suffix), *path = in_dir(m, name);

	free(name);
	return path;
}

/* All that will be made; what is there already is not touched. */
static int
list_made(struct export *m, struct err *e)
{
	int r = add_made(m, xstrdup(m->path), e);

	if (m->ova) {
		r = r ? r : add_made(m, with_suffix(m, "ovf"), e);
		r = r ? r : add_made(m, with_suffix(m, "tar"), e);
	}
	if (m->x->manifest && !r)
		r = add_made(m, with_suffix(m, "mf"), e);
	for (int i = 0; i < m->disks && !r; i++)
		r = add_made(m, in_dir(m, m->disk[i].name), e);
	if (m->ova && !r)
		r = add_made(m, xstrdup(m->dir), e);
	return r;
}

static void
undo(struct export *m)
{
	for (int i = 0; i < m->count; i++)
		if (unlink(m->made[i]) && errno == EISDIR)
			rmdir(m->made[i]);
}

/* ---- disks ---- */

static void
disk_at(void *opaque, int percent)
{
	struct export *m = opaque;
	const struct host_progress *p = m->x->progress;

	/* An .ova is written once more: that is its last tenth. */
	if (p && p->percent)
		p->percent(p->opaque, (m->done * 100 + percent) * (m->ova ? 90 : 99) / (MAX(m->disks, 1) * 100));
}

static bool
disk_stopped(void *opaque)
{
	const struct host_progress *p = ((struct export *)opaque)->x->progress;

	return p && p->stopped && p->stopped(p->opaque);
}

static int
write_disk(struct export *m, struct going *g, struct err *e)
{
	struct block_progress p = { disk_at, disk_stopped, m };
	struct block_finder f = medium_finder(m->h);
	char *path = in_dir(m, g->name), *format = xstrlower(g->at->format);
	struct block_create c = { .path = path, .format = "vmdk", .stream = true };
	struct block_info info;
	struct block *from;
	struct stat st;
	struct uuid u;
	int r = -1;

	uuid_parse(g->uuid, &u);
	c.uuid = &u;
	from = block_open_with(g->at->path, g->iso ? "iso" : format, BLOCK_RDONLY, &f, e);
	if (from) {
		block_get_info(from, &info);
		g->capacity = c.size = info.size;
		if (info.encrypted)
			err_set(e, ERR_PASSWORD, "'%s' is encrypted: decrypt it before it is exported", g->at->path);
		else
			r = g->iso ? clone_file(g->at->path, path, e) : block_copy_stream(from, &c, &p, e);
	}
	block_close(from);
	if (!r && !stat(path, &st))
		g->size = (uint64_t)st.st_size;
	free(format);
	free(path);
	return r ? err_wrap(e, "Could not create the exported medium '%s'", g->name) : 0;
}

/* ---- the envelope ---- */

static void
put(struct export *m, const char *text)
{
	str_add(&m->xml, text);
}

/* <name>text</name>, escaped, with a line for itself. */
static void
element(struct export *m, const char *indent, const char *name, const char *text)
{
	str_addf(&m->xml, "%s<%s>", indent, name);
	xml_escape(&m->xml, text);
	str_addf(&m->xml, "</%s>\n", name);
}

static bool
old(const struct export *m)
{
	return m->x->version == HOST_OVF_09;
}

static void
section_begin(struct export *m, const char *indent, const char *kind, const char *info)
{
	if (old(m))
		str_addf(&m->xml, "%s<Section xsi:type=\"ovf:%s_Type\">\n", indent, kind);
	else
		str_addf(&m->xml, "%s<%s>\n", indent, kind);
	str_addf(&m->xml, "%s  <Info>%s</Info>\n", indent, info);
}

static void
section_end(struct export *m, const char *indent, const char *kind)
{
	str_addf(&m->xml, "%s</%s>\n", indent, old(m) ? "Section" : kind);
}

static void
write_references(struct export *m)
{
	put(m, m->disks ? "  <References>\n" : "  <References/>\n");
	for (int i = 0; i < m->disks; i++) {
		str_addf(&m->xml, "    <File ovf:id=\"file%d\" ovf:href=\"", i + 1);
		xml_escape(&m->xml, m->disk[i].name);
		str_addf(&m->xml, "\" ovf:size=\"%llu\"/>\n", (unsigned long long)m->disk[i].size);
	}
	put(m, m->disks ? "  </References>\n" : "");
	section_begin(m, "  ", "DiskSection", "List of the virtual disks used in the package");
	for (int i = 0; i < m->disks; i++)
		str_addf(&m->xml,
			"    <Disk ovf:capacity=\"%llu\" ovf:diskId=\"vmdisk%d\" ovf:fileRef=\"file%d\" "
			"ovf:format=\"%s\" "
			"vbox:uuid=\"%s\"/>\n",
			(unsigned long long)m->disk[i].capacity, i + 1, i + 1, m->disk[i].iso ? ISO_URL : STREAM_URL,
			m->disk[i].uuid);
	section_end(m, "  ", "DiskSection");
}

/* The name of the network that an adapter is on, as VirtualBox writes it; NULL: there is no adapter. */
static const char *
network_name(const struct host_vm *vm, int slot)
{
	static const char *const names[][2] = { { "nat", "NAT" }, { "bridged", "Bridged" }, { "intnet", "Internal" },
		{ "hostonly", "HostOnly" }, { "hostonlynet", "HostOnly" }, { "natnetwork", "NATNetwork" },
		{ "generic", "Generic" }, { "null", "Null" } };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(host_vm_get(vm, HK_NIC, slot), names[i][0]))
			return names[i][1];
	return NULL;
}

static bool
network_seen(const struct export *m, int vm, int slot, const char *name)
{
	for (int i = 0; i <= vm; i++)
		for (int n = 0; n < HOST_NICS && (i < vm || n < slot); n++) {
			const char *other = network_name(m->vm[i], n);

			if (other && !strcmp(other, name))
				return true;
		}
	return false;
}

static void
write_networks(struct export *m)
{
	section_begin(m, "  ", "NetworkSection", "Logical networks used in the package");
	for (int i = 0; i < m->x->systems; i++)
		for (int n = 0; n < HOST_NICS; n++) {
			const char *name = network_name(m->vm[i], n);

			if (name && !network_seen(m, i, n, name))
				str_addf(&m->xml,
					"    <Network ovf:name=\"%s\">\n"
					"      <Description>Logical network used by this appliance.</Description>\n"
					"    </Network>\n",
					name);
		}
	section_end(m, "  ", "NetworkSection");
}

/* An item; what is NULL or 0 is left out. */
struct item {
	const char *address, *caption, *connection, *description, *units, *resource, *subtype;
	int place; /* on its parent, plus 1 */
	int parent;
	bool automatic;
	unsigned type;
	long long quantity;
};

static void
field(struct export *m, const char *prefix, const char *name, const char *text)
{
	if (!text)
		return;
	str_addf(&m->xml, "        <%s:%s>", prefix, name);
	xml_escape(&m->xml, text);
	str_addf(&m->xml, "</%s:%s>\n", prefix, name);
}

static void
number(struct export *m, const char *prefix, const char *name, long long n)
{
	if (n > 0)
		str_addf(&m->xml, "        <%s:%s>%lld</%s:%s>\n", prefix, name, n, prefix, name);
}

/* Returns the item's identifier. */
static int
write_item(struct export *m, const struct item *it)
{
	bool new = m->x->version == HOST_OVF_20;
	const char *tag = new && it->resource	       ? "StorageItem"
			  : new && it->type == OVF_NIC ? "EthernetPortItem"
						       : "Item";
	const char *p = tag[0] == 'S' ? "sasd" : tag[0] == 'E' ? "epasd" : "rasd";

	str_addf(&m->xml, "      <%s>\n", tag);
	field(m, p, "Address", it->address);
	if (it->place)
		str_addf(&m->xml, "        <%s:AddressOnParent>%d</%s:AddressOnParent>\n", p, it->place - 1, p);
	field(m, p, "AllocationUnits", it->units);
	if (it->automatic)
		field(m, p, "AutomaticAllocation", "true");
	field(m, p, "Caption", it->caption);
	field(m, p, "Connection", it->connection);
	field(m, p, "Description", it->description);
	if (!old(m))
		field(m, p, "ElementName", it->caption);
	field(m, p, "HostResource", it->resource);
	number(m, p, old(m) ? "InstanceId" : "InstanceID", ++m->next_id);
	number(m, p, "Parent", it->parent);
	field(m, p, "ResourceSubType", it->subtype);
	number(m, p, "ResourceType", it->type);
	number(m, p, "VirtualQuantity", it->quantity);
	str_addf(&m->xml, "      </%s>\n", tag);
	return m->next_id;
}

static int
disk_of(const struct export *m, const struct host_attachment *a)
{
	for (int i = 0; i < m->disks; i++)
		if (m->disk[i].at == a)
			return i;
	return -1;
}

static void
write_drive(struct export *m, const struct host_attachment *a, int controller, int on_parent)
{
	static const char *const captions[] = { [HOST_DISK] = "disk", [HOST_DVD] = "cdrom", [HOST_FLOPPY] = "floppy" };
	static const unsigned types[] = { [HOST_DISK] = OVF_DISK, [HOST_DVD] = OVF_CD, [HOST_FLOPPY] = OVF_FLOPPY };
	int disk = disk_of(m, a);
	char *caption = xasprintf("%s%d", captions[a->type], m->next_id + 1), *resource = NULL;

	if (disk >= 0)
		resource = xasprintf("%s/disk/vmdisk%d", old(m) ? "" : "ovf:", disk + 1);
	if (a->type != HOST_DISK || disk >= 0)
		write_item(m, &(struct item){ .place = on_parent + 1,
				      .automatic = true,
				      .caption = caption,
				      .description = a->type == HOST_DISK  ? "Disk Image"
						     : a->type == HOST_DVD ? "CD-ROM Drive"
									   : "Floppy Drive",
				      .resource = resource,
				      .parent = controller,
				      .type = types[a->type] });
	free(caption);
	free(resource);
}

/* One item for a controller, or for a channel of an IDE controller. */
static void
write_controller(struct export *m, const struct host_controller *c, int channel)
{
	static const struct {
		enum host_bus bus;
		const char *name, *description, *subtype;
		unsigned type;
	} rows[] = { { HOST_IDE, "ideController", "IDE Controller", "PIIX4", OVF_IDE },
		{ HOST_SATA, "sataController", "SATA Controller", "AHCI", OVF_STORAGE },
		{ HOST_SCSI, "SCSIController", "SCSI Controller", "lsilogic", OVF_SCSI },
		{ HOST_SAS, "SASController", "SAS Controller", "lsilogicsas", OVF_SCSI },
		{ HOST_NVME, "NVMeController", "NVMe Controller", "NVMe", OVF_STORAGE },
		{ HOST_VIRTIO_SCSI, "virtioSCSIController", "VirtioSCSI Controller", "VirtioSCSI", OVF_SCSI },
		{ HOST_VIRTIO_BLK, "virtioController", "VirtIO Controller", "VirtioBlk", OVF_STORAGE } };
	char address[8], *caption;
	int id = -1;

	snprintf(address, sizeof(address), "%d", channel < 0 ? 0 : channel);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].bus == c->bus) {
			caption = xasprintf("%s%s", rows[i].name, address);
			id = write_item(m, &(struct item){ .address = address,
						   .caption = caption,
						   .description = rows[i].description,
						   .subtype = c->bus == HOST_IDE ? c->type : rows[i].subtype,
						   .type = rows[i].type });
			free(caption);
		}
	for (int n = 0; n < c->at_count; n++)
		if (channel < 0)
			write_drive(m, &c->at[n], id, c->at[n].port);
		else if (c->at[n].port == channel)
			write_drive(m, &c->at[n], id, c->at[n].device);
}

static void
write_adapters(struct export *m, const struct host_vm *vm)
{
	for (int i = 0; i < HOST_NICS; i++) {
		const char *type = host_vm_get(vm, HK_NICTYPE, i), *name = network_name(vm, i);
		char *caption;

		if (!name)
			continue;
		caption = xasprintf("Ethernet adapter on '%s'", name);
		write_item(m, &(struct item){ .automatic = true,
				      .caption = caption,
				      .connection = name,
				      .subtype = !strcmp(type, "virtio")     ? "VirtioNet"
						 : str_starts(type, "Am79C") ? "PCNet32"
									     : "E1000",
				      .type = OVF_NIC });
		free(caption);
	}
}

static void
write_hardware(struct export *m, int i)
{
	const struct host_vm *vm = m->vm[i];
	const char *memory = host_vm_get(vm, HK_MEMORY, 0), *cpus = host_vm_get(vm, HK_CPUS, 0);
	char *cpu_caption = xasprintf("%s virtual CPU", cpus), *memory_caption = xasprintf("%s MB of memory", memory);

	section_begin(m, "    ", "VirtualHardwareSection", "Virtual hardware requirements for a virtual machine");
	put(m, "      <System>\n");
	if (!old(m))
		element(m, "        ", "vssd:ElementName", "Virtual Hardware Family");
	element(m, "        ", old(m) ? "vssd:InstanceId" : "vssd:InstanceID", "0");
	element(m, "        ", "vssd:VirtualSystemIdentifier", system_name(m, i));
	element(m, "        ", "vssd:VirtualSystemType", "virtualbox-2.2");
	put(m, "      </System>\n");
	m->next_id = 0;
	write_item(m, &(struct item){ .caption = cpu_caption,
			      .description = "Number of virtual CPUs",
			      .type = OVF_CPU,
			      .quantity = atoll(cpus) });
	write_item(m, &(struct item){ .units = "MegaBytes",
			      .caption = memory_caption,
			      .description = "Memory Size",
			      .type = OVF_MEMORY,
			      .quantity = atoll(memory) });
	for (int c = 0; c < vm->ctl_count; c++) {
		write_controller(m, &vm->ctl[c], vm->ctl[c].bus == HOST_IDE ? 0 : -1);
		if (vm->ctl[c].bus == HOST_IDE)
			write_controller(m, &vm->ctl[c], 1);
	}
	write_adapters(m, vm);
	section_end(m, "    ", "VirtualHardwareSection");
	free(cpu_caption);
	free(memory_caption);
}

static void
write_about(struct export *m, int i)
{
	const struct host_export_system *s = about(m, i);
	const char *description = s->description ? s->description : host_vm_get(m->vm[i], HK_DESCRIPTION, 0);

	if (s->product || s->vendor || s->version || s->product_url || s->vendor_url) {
		section_begin(m, "    ", "ProductSection", "Meta-information about the installed software");
		element(m, "      ", "Product", s->product ? s->product : "");
		element(m, "      ", "Vendor", s->vendor ? s->vendor : "");
		element(m, "      ", "Version", s->version ? s->version : "");
		element(m, "      ", "ProductUrl", s->product_url ? s->product_url : "");
		element(m, "      ", "VendorUrl", s->vendor_url ? s->vendor_url : "");
		section_end(m, "    ", "ProductSection");
	}
	if (*description) {
		section_begin(m, "    ", "AnnotationSection", "A human-readable annotation");
		element(m, "      ", "Annotation", description);
		section_end(m, "    ", "AnnotationSection");
	}
	if (s->license) {
		section_begin(m, "    ", "EulaSection", "License agreement for the virtual system");
		element(m, "      ", "License", s->license);
		section_end(m, "    ", "EulaSection");
	}
}

static void
write_os(struct export *m, const struct host_vm *vm)
{
	const struct host_ostype *t = host_ostype_find(host_vm_get(vm, HK_OSTYPE, 0));

	str_addf(&m->xml, "    <%s ovf:id=\"%u\"%s>\n", old(m) ? "Section" : "OperatingSystemSection", ovf_os_number(t),
		old(m) ? " xsi:type=\"ovf:OperatingSystemSection_Type\"" : "");
	element(m, "      ", "Info", "The kind of installed guest operating system");
	element(m, "      ", "Description", t->id);
	str_addf(&m->xml, "      <vbox:OSType ovf:required=\"false\">%s</vbox:OSType>\n", t->id);
	section_end(m, "    ", "OperatingSystemSection");
}

static const char *
disk_uuid(void *opaque, const struct host_attachment *a)
{
	const struct export *m = opaque;
	int i = disk_of(m, a);

	return i < 0 ? NULL : m->disk[i].uuid;
}

static void
write_system(struct export *m, int i)
{
	bool macs = !m->x->no_macs && !m->x->no_macs_but_nat;

	put(m, old(m) ? "  <Content ovf:id=\"" : "  <VirtualSystem ovf:id=\"");
	xml_escape(&m->xml, system_name(m, i));
	put(m, old(m) ? "\" xsi:type=\"ovf:VirtualSystem_Type\">\n" : "\">\n");
	put(m, "    <Info>A virtual machine</Info>\n");
	write_about(m, i);
	write_os(m, m->vm[i]);
	write_hardware(m, i);
	machine_write(m->h, &m->xml, m->vm[i], macs, m->x->no_macs_but_nat, disk_uuid, m);
	put(m, old(m) ? "  </Content>\n" : "  </VirtualSystem>\n");
}

static void
write_envelope(struct export *m)
{
	static const char *const uris[] = { [HOST_OVF_09] = "http://www.vmware.com/schema/ovf/1/envelope",
		[HOST_OVF_10] = "http://schemas.dmtf.org/ovf/envelope/1",
		[HOST_OVF_20] = "http://schemas.dmtf.org/ovf/envelope/2" };
	static const char *const versions[] = { [HOST_OVF_09] = "0.9", [HOST_OVF_10] = "1.0", [HOST_OVF_20] = "2.0" };
	const char *uri = uris[m->x->version], *cim = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_";
	bool many = m->x->systems > 1;

	str_addf(&m->xml,
		"<?xml version=\"1.0\"?>\n<Envelope ovf:version=\"%s\" xml:lang=\"en-US\" xmlns=\"%s\" "
		"xmlns:ovf=\"%s\" "
		"xmlns:rasd=\"%sResourceAllocationSettingData\" xmlns:vssd=\"%sVirtualSystemSettingData\" ",
		versions[m->x->version], uri, uri, cim, cim);
	if (m->x->version == HOST_OVF_20)
		put(m, "xmlns:sasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
		       "CIM_StorageAllocationSettingData.xsd\" xmlns:epasd=\"http://schemas.dmtf.org/wbem/wscim/1/"
		       "cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd\" ");
	put(m, "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" "
	       "xmlns:vbox=\"http://www.virtualbox.org/ovf/machine\">\n");
	write_references(m);
	write_networks(m);
	if (many)
		put(m, old(m) ? "  <Content ovf:id=\"machines\" xsi:type=\"ovf:VirtualSystemCollection_Type\">\n"
			      : "  <VirtualSystemCollection ovf:id=\"machines\">\n");
	if (many)
		put(m, "    <Info>A collection of virtual machines</Info>\n");
	for (int i = 0; i < m->x->systems; i++)
		write_system(m, i);
	if (many)
		put(m, old(m) ? "  </Content>\n" : "  </VirtualSystemCollection>\n");
	put(m, "</Envelope>\n");
}

/* ---- files ---- */

static int
write_text(const char *path, const struct str *text, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	ssize_t n = fd < 0 ? -errno : write_full(fd, text->s, text->len);

	if (n >= 0 && fsync(fd))
		n = -errno;
	if (fd >= 0)
		close(fd);
	return n < 0 ? err_sys(e, ERR_FILE, (int)n, "'%s' cannot be written", path) : 0;
}

static int
write_manifest(struct export *m, const char *ovf, struct err *e)
{
	char *path = with_suffix(m, "mf"), *file, hex[129];
	struct str text = { 0 };
	int r = 0;

	for (int i = -1; i < m->disks && !r; i++) {
		struct block_progress p = { NULL, disk_stopped, m };

		file = i < 0 ? xstrdup(ovf) : in_dir(m, m->disk[i].name);
		r = package_digest(file, "SHA256", hex, &p, e);
		str_addf(&text, "SHA256 (%s)= %s\n", strrchr(file, '/') + 1, hex);
		free(file);
	}
	r = r ? r : write_text(path, &text, e);
	str_free(&text);
	free(path);
	return r;
}

/* One part of the archive. */
static int
add_part(struct export *m, struct archive *a, const char *path, struct err *e)
{
	struct archive_entry *entry = archive_entry_new();
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
	uint8_t *buf = malloc(1 << 20);
	struct stat st;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, &st) || !buf || !entry) {
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be read", path);
		goto out;
	}
	archive_entry_set_pathname(entry, strrchr(path, '/') + 1);
	archive_entry_set_size(entry, st.st_size);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, 0644);
	archive_entry_set_mtime(entry, st.st_mtime, 0);
	if (archive_write_header(a, entry) != ARCHIVE_OK)
		r = err_set(e, ERR_FILE, "'%s' cannot be written: %s", m->path, archive_error_string(a));
	while (!r && (n = read_full(fd, buf, 1 << 20)) > 0) {
		if (archive_write_data(a, buf, (size_t)n) != n)
			r = err_set(e, ERR_FILE, "'%s' cannot be written: %s", m->path, archive_error_string(a));
		else if (disk_stopped(m))
			r = err_set(e, ERR_FAILED, "It was cancelled");
	}
	if (!r && n < 0)
		r = err_sys(e, ERR_FILE, (int)n, "'%s' cannot be read", path);
out:
	archive_entry_free(entry);
	free(buf);
	if (fd >= 0)
		close(fd);
	return r;
}

/* All parts in the order of DSP0243: envelope, manifest, files. */
static int
add_parts(struct export *m, struct archive *a, const char *ovf, struct err *e)
{
	int r = add_part(m, a, ovf, e);

	if (!r && m->x->manifest) {
		char *mf = with_suffix(m, "mf");

		r = add_part(m, a, mf, e);
		free(mf);
	}
	for (int i = 0; i < m->disks && !r; i++) {
		char *file = in_dir(m, m->disk[i].name);

		r = add_part(m, a, file, e);
		unlink(file); /* room for the next ones */
		free(file);
	}
	return r;
}

static bool
any_huge(const struct export *m)
{
	for (int i = 0; i < m->disks; i++)
		if (m->disk[i].size >= 8ull << 30) /* what an ustar header can say */
			return true;
	return false;
}

static int
write_archive(struct export *m, const char *ovf, struct err *e)
{
	char *tar = with_suffix(m, "tar");
	int fd = open(tar, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), r = 0;
	struct archive *a = archive_write_new();

	if (fd < 0) {
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be created", tar);
		goto out;
	}
	if (any_huge(m))
		archive_write_set_format_gnutar(a);
	else
		archive_write_set_format_ustar(a);
	archive_write_set_bytes_per_block(a, 1 << 16);
	archive_write_set_bytes_in_last_block(a, 1);
	if (archive_write_open_fd(a, fd) != ARCHIVE_OK)
		r = err_set(e, ERR_FILE, "'%s' cannot be written: %s", m->path, archive_error_string(a));
	r = r ? r : add_parts(m, a, ovf, e);
	if (!r && archive_write_close(a) != ARCHIVE_OK)
		r = err_set(e, ERR_FILE, "'%s' cannot be written: %s", m->path, archive_error_string(a));
	if (!r && fsync(fd))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be written", m->path);
	/* Not over a file that came meanwhile. */
	if (!r && link(tar, m->path))
		r = err_sys(e, ERR_FILE, errno, "Appliance file '%s' cannot be created", m->path);
out:
	archive_write_free(a);
	if (fd >= 0)
		close(fd);
	free(tar);
	return r;
}

static int
carry_out(struct export *m, struct err *e)
{
	char *ovf = m->ova ? with_suffix(m, "ovf") : xstrdup(m->path);
	int r = m->ova ? dir_make(m->dir, 0700, e) : 0;

	for (int i = 0; i < m->disks && !r; i++) {
		r = write_disk(m, &m->disk[i], e);
		m->done++;
	}
	if (!r) {
		write_envelope(m);
		r = write_text(ovf, &m->xml, e);
	}
	if (!r && m->x->manifest)
		r = write_manifest(m, ovf, e);
	if (!r && m->ova)
		r = write_archive(m, ovf, e);
	/* The parts are in the archive now: all but the target, which is the first. */
	for (int i = 1; i < m->count && m->ova && !r; i++)
		if (unlink(m->made[i]) && errno == EISDIR)
			rmdir(m->made[i]);
	free(ovf);
	return r;
}

static void
export_free(struct export *m)
{
	for (int i = 0; i < m->x->systems; i++)
		host_vm_free(m->vm[i]);
	for (int i = 0; i < m->disks; i++)
		free(m->disk[i].name);
	for (int i = 0; i < m->count; i++)
		free(m->made[i]);
	free(m->made);
	free(m->vm);
	free(m->disk);
	free(m->path);
	free(m->dir);
	free(m->stem);
	str_free(&m->xml);
}

static void
tell_about_states(const struct export *m)
{
	for (int i = 0; i < m->x->systems && m->x->note; i++)
		if (m->vm[i]->state == HOST_SAVED) {
			char *text =
				xasprintf("The saved state of machine '%s' is not exported: its disks are as after a "
					  "power cut",
					m->vm[i]->name);

			m->x->note(m->x->opaque, text);
			free(text);
		}
}

int
host_appliance_export(struct host *h, const struct host_export *x, struct err *e)
{
	struct export m = { .h = h, .x = x };
	struct media_job *job = NULL;
	int r = place(&m, e);

	m.vm = xcalloc((size_t)x->systems + 1, sizeof(*m.vm));
	for (int i = 0; i < x->systems && !r; i++)
		r = load_machine(&m, i, e);
	r = r ? r : list_made(&m, e);
	if (!r) {
		tell_about_states(&m);
		job = media_job_begin_all(h, "export", m.made, m.count, e);
		r = job ? 0 : -1;
	}
	if (job) {
		r = carry_out(&m, e);
		if (r)
			undo(&m);
	}
	media_job_end(job);
	export_free(&m);
	return r;
}
