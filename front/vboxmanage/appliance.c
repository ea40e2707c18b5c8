/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import, export.
 *
 * The listing of an import is read by programs: Vagrant looks for "N: Hard disk image: source image=..., target
 * path=..., " and for the suggested name and settings file. It goes to stdout, what is going on to stderr.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"
#include "host/appliance.h"

static void
note(void *opaque, const char *sentence)
{
	warn(opaque, "%s", sentence);
}

/* ---- the listing ---- */

static void
list_disks(const struct host_appliance *a)
{
	struct host_ovf_disk d;

	printf("Disks:\n");
	for (int i = 0; host_appliance_disk(a, i, &d); i++)
		printf("  %s\t%" PRIu64 "\t%" PRId64 "\t%s\t%s\t%" PRId64 "\t%" PRId64 "\t%s\n", d.id, d.capacity,
			d.populated, d.format, d.file, d.size, d.chunk, d.compression);
	printf("\n");
}

/* "Suggested OS type: ..." or what was asked for with an option. */
struct wording {
	enum host_ovf_kind kind;
	const char *suggested, *given, *hint;
};
static const struct wording wordings[] = {
	{ HOST_OVF_OS, "Suggested OS type: \"%s\"", "OS type specified with --ostype: \"%s\"",
		"(change with \"--vsys %u --ostype <type>\"; use \"list ostypes\" to list all possible values)" },
	{ HOST_OVF_NAME, "Suggested VM name \"%s\"", "VM name specified with --vmname: \"%s\"",
		"(change with \"--vsys %u --vmname <name>\")" },
	{ HOST_OVF_GROUP, "Suggested VM group \"%s\"", "VM group specified with --group: \"%s\"",
		"(change with \"--vsys %u --group <group>\")" },
	{ HOST_OVF_SETTINGS, "Suggested VM settings file name \"%s\"",
		"VM settings file name specified with --settingsfile: \"%s\"",
		"(change with \"--vsys %u --settingsfile <filename>\")" },
	{ HOST_OVF_BASE, "Suggested VM base folder \"%s\"", "VM base folder specified with --basefolder: \"%s\"",
		"(change with \"--vsys %u --basefolder <path>\")" },
	{ HOST_OVF_DESCRIPTION, "Description \"%s\"", "Description specified with --description: \"%s\"",
		"(change with \"--vsys %u --description <desc>\")" },
	{ HOST_OVF_CPUS, "Number of CPUs: %s", "No. of CPUs specified with --cpus: %s",
		"(change with \"--vsys %u --cpus <n>\")" },
	{ HOST_OVF_MEMORY, "Guest memory: %s MB", "Guest memory specified with --memory: %s MB",
		"(change with \"--vsys %u --memory <MB>\")" },
};

/* fmt has one %s. */
static void
print_text(const char *fmt, const char *text)
{
	const char *at = strstr(fmt, "%s");

	printf("%.*s%s%s\n", (int)(at - fmt), fmt, text, at + 2);
}

static void
print_hint(const char *fmt, int system)
{
	const char *at = strstr(fmt, "%u");

	printf("    %.*s%d%s\n", (int)(at - fmt), fmt, system, at + 2);
}

static void
list_text(const struct wording *w, const struct host_ovf_unit *u, int system)
{
	print_text(u->given ? w->given : w->suggested, u->value);
	if (!u->given)
		print_hint(w->hint, system);
}

/* A device, which can be left out. */
static void
list_device(const struct host_ovf_unit *u, int system, int unit)
{
	const char *what = u->kind == HOST_OVF_SOUND	     ? "Sound card"
			   : u->kind == HOST_OVF_USB	     ? "USB controller"
			   : u->kind == HOST_OVF_FLOPPY	     ? "Floppy"
			   : u->kind == HOST_OVF_CDROM	     ? "CD-ROM"
			   : u->kind == HOST_OVF_IDE	     ? "IDE controller, type "
			   : u->kind == HOST_OVF_SATA	     ? "SATA controller, type "
			   : u->kind == HOST_OVF_SCSI	     ? "SCSI controller, type "
			   : u->kind == HOST_OVF_NVME	     ? "NVMe controller, type "
			   : u->kind == HOST_OVF_VIRTIO_SCSI ? "VirtioSCSI controller, type "
							     : "VirtIO controller, type ";

	printf("%s%s", what, u->kind >= HOST_OVF_IDE ? u->value : "");
	if (u->ignored) {
		printf(" -- disabled\n");
		return;
	}
	if (u->kind == HOST_OVF_SOUND)
		printf(" (appliance expects \"%s\", can change on import)", u->orig);
	if (u->kind == HOST_OVF_SCSI)
		printf("\n    (change with \"--vsys %d --unit %d --scsitype {LsiLogic}\";\n    disable with \"--vsys "
		       "%d "
		       "--unit %d --ignore\")\n",
			system, unit, system, unit);
	else
		printf("\n    (disable with \"--vsys %d --unit %d --ignore\")\n", system, unit);
}

static void
list_disk(const struct host_ovf_unit *u, int system, int unit)
{
	if (u->ignored) {
		printf("Hard disk image: source image=%s -- disabled\n", u->orig);
		return;
	}
	printf("Hard disk image%s: source image=%s, target path=%s, %s\n", u->given ? " specified with --disk" : "",
		u->orig, u->value, u->extra);
	if (!u->given)
		printf("    (change target path with \"--vsys %d --unit %d --disk path\";\n"
		       "    change controller with \"--vsys %d --unit %d --controller <index>\";\n"
		       "    change controller port with \"--vsys %d --unit %d --port <n>\";\n"
		       "    disable with \"--vsys %d --unit %d --ignore\")\n",
			system, unit, system, unit, system, unit, system, unit);
}

static void
list_license(const struct host_ovf_unit *u, int system, bool accepted, bool show)
{
	if (accepted)
		printf("End-user license agreement (accepted)\n");
	else if (show)
		printf("End-user license agreement\n    (accept with \"--vsys %d --eula accept\"):\n\n%s\n\n", system,
			u->value);
	else
		printf("End-user license agreement\n    (display with \"--vsys %d --eula show\";\n"
		       "    accept with \"--vsys %d --eula accept\")\n",
			system, system);
}

static void
list_unit(const struct host_ovf_system *s, int system, int unit, bool show_license)
{
	static const char *const ignored[] = { [HOST_OVF_PRODUCT] = "Product",
		[HOST_OVF_VENDOR] = "Vendor",
		[HOST_OVF_VERSION] = "Version",
		[HOST_OVF_PRODUCT_URL] = "ProductUrl",
		[HOST_OVF_VENDOR_URL] = "VendorUrl" };
	const struct host_ovf_unit *u = &s->unit[unit];

	printf("%2d: ", unit);
	for (size_t i = 0; i < ARRAY_LEN(wordings); i++)
		if (wordings[i].kind == u->kind) {
			list_text(&wordings[i], u, system);
			return;
		}
	if (u->kind < ARRAY_LEN(ignored) && ignored[u->kind])
		printf("%s (ignored): %s\n", ignored[u->kind], u->value);
	else if (u->kind == HOST_OVF_LICENSE)
		list_license(u, system, s->license_accepted, show_license);
	else if (u->kind == HOST_OVF_NIC)
		printf("Network adapter: orig %s, config %s, extra %s%s\n", u->orig, u->value, u->extra,
			u->ignored ? " -- disabled" : "");
	else if (u->kind == HOST_OVF_DISK)
		list_disk(u, system, unit);
	else
		list_device(u, system, unit);
}

static void
list_systems(const struct host_appliance *a, uint64_t show_license)
{
	for (int i = 0; i < host_appliance_systems(a); i++) {
		const struct host_ovf_system *s = host_appliance_system(a, i);

		printf("%sVirtual system %d:\n", i ? "\n" : "", i);
		for (int u = 0; u < s->units; u++)
			list_unit(s, i, u, show_license >> (i & 63) & 1);
	}
}

/* ---- import ---- */

enum {
	O_DRYRUN,
	O_OPTIONS,
	O_VSYS,
	O_OSTYPE,
	O_VMNAME,
	O_GROUP,
	O_SETTINGSFILE,
	O_BASEFOLDER,
	O_DESCRIPTION,
	O_EULA,
	O_CPUS,
	O_MEMORY,
	O_UNIT,
	O_IGNORE,
	O_DISK,
	O_CONTROLLER,
	O_PORT,
	O_SCSITYPE,
};

static const struct opt import_options[] = {
	{ "dry-run", O_DRYRUN, OPT_FLAG, 'n', 0 },
	{ "options", O_OPTIONS, OPT_TEXT, 'O', 0 },
	{ "vsys", O_VSYS, OPT_NUMBER, 's', 0 },
	{ "ostype", O_OSTYPE, OPT_TEXT, 'o', 0 },
	{ "vmname", O_VMNAME, OPT_TEXT, 'V', 0 },
	{ "group", O_GROUP, OPT_TEXT, 0, 0 },
	{ "settings-file", O_SETTINGSFILE, OPT_TEXT, 0, 0 },
	{ "base-folder", O_BASEFOLDER, OPT_TEXT, 0, 0 },
	{ "description", O_DESCRIPTION, OPT_TEXT, 'd', 0 },
	{ "eula", O_EULA, OPT_TEXT, 'L', 0 },
	{ "cpus", O_CPUS, OPT_TEXT, 'c', 0 },
	{ "memory", O_MEMORY, OPT_TEXT, 'm', 0 },
	{ "unit", O_UNIT, OPT_NUMBER, 'u', 0 },
	{ "ignore", O_IGNORE, OPT_FLAG, 'x', 0 },
	{ "disk", O_DISK, OPT_TEXT, 'D', 0 },
	{ "controller", O_CONTROLLER, OPT_NUMBER, 'C', 0 },
	{ "port", O_PORT, OPT_NUMBER, 'E', 0 },
	{ "scsitype", O_SCSITYPE, OPT_TEXT, 'T', 0 },
};

struct importing {
	struct cli *c;
	struct host_appliance *a;
	int system, unit; /* -1: none named yet */
	uint64_t show_license;
};

static const struct site import_site = { "Appliance",
	"ImportMachines(ComSafeArrayAsInParam(options), progress.asOutParam())", 1131, "VBoxManageAppliance.cpp" };

static int
import_words(struct cli *c, struct host_import *how, const char *text)
{
	char *copy = xstrdup(text), *rest = copy, *word;
	int r = 0;

	while (!r && (word = strsep(&rest, ","))) {
		if (!strcasecmp(word, "keepallmacs"))
			how->keep_all_macs = true;
		else if (!strcasecmp(word, "keepnatmacs"))
			how->keep_nat_macs = true;
		else if (!strcasecmp(word, "importtovdi"))
			how->to_vdi = true;
		else if (*word)
			r = fail_argument(c, "Invalid import options '%s'", text);
	}
	free(copy);
	return r;
}

static int
need(struct importing *m, const char *option, bool unit)
{
	if (m->system < 0)
		return fail_syntax(m->c, "Option \"%s\" requires preceding --vsys option.", option);
	if (unit && m->unit < 0)
		return fail_syntax(m->c, "Option \"%s\" requires preceding --vsys and --unit options.", option);
	return 0;
}

static int
apply_text(struct importing *m, int id, const struct args *a, struct err *e)
{
	static const enum host_ovf_kind kinds[] = { [O_OSTYPE] = HOST_OVF_OS,
		[O_VMNAME] = HOST_OVF_NAME,
		[O_GROUP] = HOST_OVF_GROUP,
		[O_SETTINGSFILE] = HOST_OVF_SETTINGS,
		[O_BASEFOLDER] = HOST_OVF_BASE,
		[O_DESCRIPTION] = HOST_OVF_DESCRIPTION,
		[O_CPUS] = HOST_OVF_CPUS,
		[O_MEMORY] = HOST_OVF_MEMORY };

	return host_appliance_set(m->a, m->system, kinds[id], a->text, e);
}

static int
apply_unit(struct importing *m, int id, const struct args *a, struct err *e)
{
	struct host_ovf_change x = { .controller = -1, .port = -1 };

	if (id == O_IGNORE)
		x.ignore = true;
	else if (id == O_DISK)
		x.disk = a->text;
	else if (id == O_SCSITYPE)
		x.controller_type = a->text;
	else if (id == O_CONTROLLER)
		x.controller = (int)MIN(a->number, 100000u);
	else
		x.port = (int)MIN(a->number, 100000u);
	return host_appliance_change(m->a, m->system, m->unit, &x, e);
}

static int
apply_eula(struct importing *m, const struct args *a, struct err *e)
{
	if (!strcasecmp(a->text, "accept"))
		return host_appliance_accept_license(m->a, m->system, e);
	if (strcasecmp(a->text, "show"))
		return err_set(e, ERR_USAGE, "Argument to --eula must be either \"show\" or \"accept\".");
	m->show_license |= 1ull << (m->system & 63);
	return 0;
}

/* One option that changes the plan. */
static int
apply_option(struct importing *m, int id, const struct args *a)
{
	struct err e = { 0 };
	int r = need(m, a->spelled, id > O_UNIT);

	if (r)
		return r;
	if (id == O_EULA)
		r = apply_eula(m, a, &e);
	else
		r = id < O_UNIT ? apply_text(m, id, a, &e) : apply_unit(m, id, a, &e);
	return r ? fail_api(m->c, &e, &import_site) : 0;
}

static int
apply_options(struct importing *m, int argc, char **argv)
{
	struct args a = ARGS(m->c, argc, argv, import_options);
	int id, r = 0;

	while (!r && (id = args_next(&a)) != ARG_END) {
		if (id == O_VSYS) {
			m->system = (int)MIN(a.number, 100000u);
			m->unit = -1;
		} else if (id == O_UNIT) {
			m->unit = (int)MIN(a.number, 100000u);
			r = need(m, a.spelled, false);
		} else if (id >= 0 && id != O_DRYRUN && id != O_OPTIONS) {
			r = apply_option(m, id, &a);
		}
	}
	return r;
}

static int
run_import(struct importing *m, struct host_import *how, bool dry_run, int argc, char **argv)
{
	struct host_progress p;
	struct err e = { 0 };
	int r = apply_options(m, argc, argv);

	if (r)
		return r;
	list_disks(m->a);
	list_systems(m->a, m->show_license);
	if (dry_run)
		return 0;
	p = stoppable_begin(m->c);
	how->progress = &p;
	r = host_appliance_import(m->a, how, &e);
	if (stoppable_end(m->c, r ? &e : NULL))
		return 1;
	if (r) {
		fail_plain(m->c, "Appliance import failed");
		return fail_api(m->c, &e, &import_site);
	}
	printf("Successfully imported the appliance.\n");
	return 0;
}

/* The file and the options that do not depend on what is in it. */
static int
import_line(struct cli *c, int argc, char **argv, const char **path, bool *dry_run, struct host_import *how)
{
	struct args a = ARGS(c, argc, argv, import_options);
	int id, r = 0;

	while (!r && (id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && *path)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD)
			*path = a.text;
		else if (id == O_DRYRUN)
			*dry_run = true;
		else if (id == O_OPTIONS)
			r = import_words(c, how, a.text);
	}
	if (!r && !*path)
		r = fail_syntax(c, "Not enough arguments for \"import\" command.");
	return r;
}

int
cmd_import(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Appliance", "Read(Bstr(strAbsPath).raw(), progressRead.asOutParam())", 446,
		"VBoxManageAppliance.cpp" };
	struct host_import how = { .note = note, .opaque = c };
	struct importing m = { .c = c, .system = -1, .unit = -1 };
	const char *path = NULL;
	bool dry_run = false;
	struct err e = { 0 };
	int r = import_line(c, argc, argv, &path, &dry_run, &how);

	if (r)
		return r;
	if (!cli_host(c))
		return 1;
	progress_begin(c);
	m.a = host_appliance_read(c->host, path, &e);
	progress_end(c, m.a ? NULL : &e);
	if (!m.a) {
		fail_plain(c, "Appliance read failed");
		return fail_api(c, &e, &site);
	}
	fprintf(stderr, "Interpreting %s...\nOK.\n", host_appliance_path(m.a));
	r = run_import(&m, &how, dry_run, argc, argv);
	host_appliance_free(m.a);
	return r;
}

/* ---- export ---- */

enum {
	X_OUTPUT,
	X_LEGACY,
	X_OVF09,
	X_OVF10,
	X_OVF20,
	X_OPC,
	X_MANIFEST,
	X_ISO,
	X_OPTIONS,
	X_VSYS,
	X_VMNAME,
	X_PRODUCT,
	X_PRODUCTURL,
	X_VENDOR,
	X_VENDORURL,
	X_VERSION,
	X_DESCRIPTION,
	X_EULA,
	X_EULAFILE,
};

#define SYSTEMS_MAX 32

struct exporting {
	struct host_export x;
	struct host_export_system system[SYSTEMS_MAX];
	int current;		  /* --vsys */
	char *texts[SYSTEMS_MAX]; /* of license files */
};

static int
export_words(struct cli *c, struct host_export *x, const char *text)
{
	char *copy = xstrdup(text), *rest = copy, *word;
	int r = 0;

	while (!r && (word = strsep(&rest, ","))) {
		if (!strcasecmp(word, "manifest"))
			x->manifest = true;
		else if (!strcasecmp(word, "iso"))
			x->iso = true;
		else if (!strcasecmp(word, "nomacs"))
			x->no_macs = true;
		else if (!strcasecmp(word, "nomacsbutnat"))
			x->no_macs_but_nat = true;
		else if (*word)
			r = fail_argument(c, "Invalid export options '%s'", text);
	}
	free(copy);
	return r;
}

static int
export_about(struct cli *c, struct exporting *m, int id, const struct args *a)
{
	struct host_export_system *s = &m->system[MAX(m->current, 0)];
	struct err e = { 0 };
	size_t len;

	if (m->current < 0)
		return fail_syntax(c, "Option \"%s\" requires preceding --vsys option.", a->spelled);
	if (id == X_EULAFILE) {
		free(m->texts[m->current]);
		m->texts[m->current] = file_read(a->text, 1 << 20, &len, &e);
		if (!m->texts[m->current])
			return fail_plain(c,
				"Cannot read license file \"%s\" which should be included in the "
				"virtual system %d.",
				a->text, m->current);
		s->license = m->texts[m->current];
		return 0;
	}
	*(id == X_VMNAME	      ? &s->name
		: id == X_PRODUCT     ? &s->product
		: id == X_PRODUCTURL  ? &s->product_url
		: id == X_VENDOR      ? &s->vendor
		: id == X_VENDORURL   ? &s->vendor_url
		: id == X_VERSION     ? &s->version
		: id == X_DESCRIPTION ? &s->description
				      : &s->license) = a->text;
	return 0;
}

static int
export_option(struct cli *c, struct exporting *m, int id, const struct args *a)
{
	switch (id) {
	case X_OUTPUT:
		m->x.path = a->text;
		return 0;
	case X_LEGACY:
	case X_OVF09:
		m->x.version = HOST_OVF_09;
		return 0;
	case X_OVF10:
		m->x.version = HOST_OVF_10;
		return 0;
	case X_OVF20:
		m->x.version = HOST_OVF_20;
		return 0;
	case X_OPC:
		return fail_argument(c, "Exports to the Oracle cloud (OPC) cannot be made: use --ovf10 or --ovf20");
	case X_MANIFEST:
		m->x.manifest = true;
		return 0;
	case X_ISO:
		m->x.iso = true;
		return 0;
	case X_OPTIONS:
		return export_words(c, &m->x, a->text);
	case X_VSYS:
		if (a->number >= SYSTEMS_MAX)
			return fail_argument(c, "Invalid --vsys argument '%s'", a->text);
		m->current = (int)a->number;
		return 0;
	case ARG_WORD:
		if (m->x.systems == SYSTEMS_MAX)
			return fail_argument(c, "No more than %d machines can be exported together", SYSTEMS_MAX);
		m->system[m->x.systems++].vm = a->text;
		return 0;
	case ARG_BAD:
		return 2;
	default:
		return export_about(c, m, id, a);
	}
}

static int
export_line(struct cli *c, struct exporting *m, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "output", X_OUTPUT, OPT_TEXT, 'o', 0 },
		{ "legacy09", X_LEGACY, OPT_FLAG, 0, 0 },
		{ "ovf09", X_OVF09, OPT_FLAG, 0, 0 },
		{ "ovf10", X_OVF10, OPT_FLAG, 0, 0 },
		{ "ovf20", X_OVF20, OPT_FLAG, 0, 0 },
		{ "opc10", X_OPC, OPT_FLAG, 0, 0 },
		{ "manifest", X_MANIFEST, OPT_FLAG, 'm', 0 },
		{ "iso", X_ISO, OPT_FLAG, 'I', 0 },
		{ "options", X_OPTIONS, OPT_TEXT, 'O', 0 },
		{ "vsys", X_VSYS, OPT_NUMBER, 's', 0 },
		{ "vmname", X_VMNAME, OPT_TEXT, 0, 0 },
		{ "product", X_PRODUCT, OPT_TEXT, 'p', 0 },
		{ "producturl", X_PRODUCTURL, OPT_TEXT, 'P', 0 },
		{ "vendor", X_VENDOR, OPT_TEXT, 'n', 0 },
		{ "vendorurl", X_VENDORURL, OPT_TEXT, 'N', 0 },
		{ "version", X_VERSION, OPT_TEXT, 'v', 0 },
		{ "description", X_DESCRIPTION, OPT_TEXT, 'd', 0 },
		{ "eula", X_EULA, OPT_TEXT, 'e', 0 },
		{ "eulafile", X_EULAFILE, OPT_TEXT, 'E', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	int id, r = 0;

	while (!r && (id = args_next(&a)) != ARG_END)
		r = export_option(c, m, id, &a);
	if (r)
		return r;
	if (!m->x.systems)
		return fail_syntax(c, "At least one machine must be specified with the export command.");
	if (!m->x.path)
		return fail_syntax(c, "Missing --output argument with export command.");
	for (int i = m->x.systems; i < SYSTEMS_MAX; i++)
		if (m->system[i].name || m->system[i].product || m->system[i].license)
			return fail_argument(c,
				"Invalid index %d with -vsys option; you specified only %d virtual system(s).", i,
				m->x.systems);
	return 0;
}

int
cmd_export(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Appliance",
		"Write(strOvfFormat.raw(), ComSafeArrayAsInParam(options), Bstr(strOutputFile).raw(), "
		"progress.asOutParam())",
		1564, "VBoxManageAppliance.cpp" };
	struct exporting m = { .x = { .version = HOST_OVF_10, .note = note, .opaque = c }, .current = -1 };
	struct host_progress p;
	struct err e = { 0 };
	int r = export_line(c, &m, argc, argv);

	m.x.system = m.system;
	if (!r && !cli_host(c))
		r = 1;
	if (r)
		goto out;
	p = stoppable_begin(c);
	m.x.progress = &p;
	r = host_appliance_export(c->host, &m.x, &e);
	if (stoppable_end(c, r ? &e : NULL)) {
		r = 1;
	} else if (r) {
		fail_plain(c, "Appliance write failed");
		r = fail_api(c, &e, &site);
	} else {
		printf("Successfully exported %d machine(s).\n", m.x.systems);
	}
out:
	for (int i = 0; i < SYSTEMS_MAX; i++)
		free(m.texts[i]);
	return r;
}
