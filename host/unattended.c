/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unattended installation: the values, what of them goes where, and the machine's drives.
 *
 * What an installer gets, by kind (the files come from templates in share/lodge/UnattendedTemplates):
 *
 *	Debian, Ubuntu (preseed)  /preseed.cfg in the initial RAM disk, which debian-installer reads by itself, and
 *				  /vboxpostinstall.sh beside it, run by its late command
 *	Ubuntu (autoinstall)	  user-data and meta-data on a disc labelled CIDATA, where cloud-init looks
 *	Alpine			  an overlay lodge.apkovl.tar.gz on the disc, with answers for setup-alpine and what runs it
 *	Fedora, RHEL kinds	  /ks.cfg in the initial RAM disk; also on the disc, labelled OEMDRV
 *
 * The password is in these only as crypt(3) makes it, with SHA-512, unless somebody's own template asks for it. The
 * answer medium is mode 0600 and goes away when it has done its work: extra data "Lodge/Unattended" (JSON: the medium,
 * where it and the others are, the disk and the sum of its first sector) says what to look for.
 */
#include <crypt.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "host/inv.h"
#include "host/run.h"
#include "host/unattended_boot.h"
#include "host/unattended_priv.h"

#define EXTRA_KEY "Lodge/Unattended"
#define TEMPLATE_MAX (1u << 20)

/* ---- templates ---- */

static const struct kind {
	const char *answers, *post; /* template files */
	const char *label;	    /* of the disc */
	const char *cmdline;	    /* of the installer's kernel */
	bool initrd;		    /* the answers go into the initial RAM disk, under the next name */
	const char *name;
} kinds[] = {
	[HOST_INSTALLER_DEBIAN] = { "debian_preseed.cfg", "debian_postinstall.sh", "LODGE_AUX",
		"auto=true preseed/file=/preseed.cfg priority=critical quiet noprompt noshell --- quiet", true,
		"preseed.cfg" },
	[HOST_INSTALLER_UBUNTU] = { "ubuntu_preseed.cfg", "debian_postinstall.sh", "LODGE_AUX",
		"auto=true preseed/file=/preseed.cfg file=/preseed.cfg priority=critical automatic-ubiquity "
		"boot=casper "
		"quiet noprompt noshell ---",
		true, "preseed.cfg" },
	[HOST_INSTALLER_AUTOINSTALL] = { "ubuntu_autoinstall_user_data", "debian_postinstall.sh", "CIDATA",
		"autoinstall ds=nocloud noprompt ---", false, "user-data" },
	[HOST_INSTALLER_ALPINE] = { "alpine_answers", "alpine_postinstall.sh", "LODGE_AUX",
		"modules=loop,squashfs,sd-mod,usb-storage,sr-mod,cdrom quiet", false, NULL },
	[HOST_INSTALLER_REDHAT] = { "redhat_ks.cfg", "redhat_postinstall.sh", "OEMDRV", "inst.ks=file:/ks.cfg", true,
		"ks.cfg" },
};

/* Beside the programs of a build tree or of an installation. free() it. */
static char *
template_path(const char *name)
{
	static const char *const places[] = { "../share/lodge/UnattendedTemplates",
		"../../templates/UnattendedTemplates", "../../../templates/UnattendedTemplates" };
	char self[4096], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, 0)] = 0;
	slash = strrchr(self, '/');
	for (size_t i = 0; slash && i < ARRAY_LEN(places); i++) {
		*slash = 0;
		path = xasprintf("%s/%s/%s", self, places[i], name);
		*slash = '/';
		if (!access(path, R_OK)) {
			char *clean = host_absolute_path(path);

			free(path);
			return clean;
		}
		free(path);
	}
	return xasprintf(LODGE_PREFIX "/share/lodge/UnattendedTemplates/%s", name);
}

/* ---- checking and filling in ---- */

static void
set_default(char **value, const char *usual)
{
	if (!*value)
		*value = xstrdup(usual);
}

/* A path as it was typed becomes absolute. */
static void
make_absolute(char **path)
{
	char *absolute;

	if (!*path || !**path)
		return;
	absolute = host_absolute_path(*path);
	free(*path);
	*path = absolute;
}

static int
check_texts(const struct host_unattended *u, struct err *e)
{
	const struct {
		const char *what, *value;
	} rows[] = { { "user", u->user }, { "full-user-name", u->full_name }, { "key", u->key }, { "proxy", u->proxy },
		{ "extra-install-kernel-parameters", u->kernel_parameters }, { "language", u->language },
		{ "time-zone", u->time_zone } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (const char *p = rows[i].value; *p; p++)
			if ((unsigned char)*p < ' ' || *p == 127 || strlen(rows[i].value) > 1536)
				return err_set(e, ERR_INVALID,
					"Invalid --%s: it has a control character or is too long", rows[i].what);
	for (const char *p = u->password; *p; p++)
		if ((unsigned char)*p < ' ')
			return err_set(e, ERR_INVALID, "The password has a control character");
	if (!*u->password || strlen(u->password) > 256)
		return err_set(e, ERR_INVALID, "A password has from 1 to 256 characters");
	if (strpbrk(u->full_name, ":,\"\\"))
		return err_set(e, ERR_INVALID, "The full user name '%s' has one of : , \" \\", u->full_name);
	return 0;
}

static bool
letters(const char *s, size_t n, int (*is)(int))
{
	for (size_t i = 0; i < n; i++)
		if (!is((unsigned char)s[i]))
			return false;
	return true;
}

/* What Debian's adduser and shadow's useradd take. */
static bool
good_user(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 32 || !islower((unsigned char)s[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && s[i] != '_' && s[i] != '-')
			return false;
	return true;
}

static bool
good_hostname(const char *s)
{
	size_t label = 0;
	bool dot = false;

	if (strlen(s) > 253)
		return false;
	for (; *s; s++) {
		if (*s == '.') {
			if (!label || s[-1] == '-')
				return false;
			dot = true;
			label = 0;
		} else if ((!isalnum((unsigned char)*s) && (*s != '-' || !label)) || ++label > 63) {
			return false;
		}
	}
	return dot && label && s[-1] != '-';
}

static int
check_values(const struct host_unattended *u, struct err *e)
{
	if (check_texts(u, e))
		return -1;
	if (!good_user(u->user))
		return err_set(e, ERR_INVALID,
			"Invalid user name '%s': lower case letters, digits, '-' and '_', beginning with a letter",
			u->user);
	if (!strcmp(u->user, "root"))
		return err_set(e, ERR_INVALID, "The user cannot be root: root gets the same password as the user");
	if (strlen(u->locale) != 5 || u->locale[2] != '_' || !letters(u->locale, 2, islower) ||
		!letters(u->locale + 3, 2, isupper))
		return err_set(e, ERR_INVALID,
			"Invalid locale '%s': Expected two lower cased letters, an underscore, and two upper cased "
			"letters",
			u->locale);
	if (strlen(u->country) != 2 || !letters(u->country, 2, isupper))
		return err_set(e, ERR_INVALID, "Invalid country '%s': Expected two upper cased letters", u->country);
	if (!good_hostname(u->hostname))
		return err_set(e, ERR_INVALID,
			"Invalid host name '%s': a fully qualified name, such as '%s.example.org', is needed",
			u->hostname, u->user);
	if (*u->packages && strcmp(u->packages, "minimal"))
		return err_set(e, ERR_INVALID, "Unknown keyword: %s", u->packages);
	if (u->time_zone[strspn(u->time_zone, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/")])
		return err_set(
			e, ERR_INVALID, "Invalid time zone '%s': a name such as Europe/Berlin is needed", u->time_zone);
	if (u->image_index != 1)
		return err_set(e, ERR_INVALID,
			"There is no image %u on '%s': only installation media of Windows have more than one",
			u->image_index, u->iso);
	if (*u->proxy && !str_starts(u->proxy, "http://") && !str_starts(u->proxy, "https://"))
		return err_set(e, ERR_INVALID, "Invalid proxy '%s': http://HOST:PORT is needed", u->proxy);
	if (u->install_additions && *u->additions_iso && access(u->additions_iso, R_OK))
		return err_sys(e, ERR_FILE, errno, "The disc of the additions '%s' cannot be read", u->additions_iso);
	if (access(u->script_template, R_OK) || access(u->post_template, R_OK))
		return err_sys(e, ERR_FILE, errno, "The template '%s' cannot be read",
			access(u->script_template, R_OK) ? u->script_template : u->post_template);
	return 0;
}

/* The machine's name as a host name. */
static char *
hostname_of(const char *machine)
{
	struct str s = { 0 };

	for (; *machine && s.len < 60; machine++)
		if (isalnum((unsigned char)*machine))
			str_addf(&s, "%c", tolower((unsigned char)*machine));
		else if (s.len && s.s[s.len - 1] != '-')
			str_add(&s, "-");
	while (s.len && s.s[s.len - 1] == '-')
		s.s[--s.len] = 0;
	if (!s.len)
		str_add(&s, "vm");
	str_add(&s, ".myguest.virtualbox.org");
	return s.s;
}

static void
fill_in(const struct host_vm *vm, struct host_unattended *u)
{
	const struct kind *k = &kinds[u->detected.installer];

	set_default(&u->user, "vboxuser");
	set_default(&u->password, "changeme");
	set_default(&u->full_name, "");
	set_default(&u->key, "");
	if (!u->additions_iso && u->install_additions)
		u->additions_iso = host_additions_path();
	set_default(&u->additions_iso, "");
	set_default(&u->locale, "en_US");
	if (!u->country)
		u->country = xasprintf("%s", strlen(u->locale) == 5 ? u->locale + 3 : "US");
	set_default(&u->time_zone, "Etc/UTC");
	set_default(&u->proxy, "");
	if (!strcmp(u->proxy, "none"))
		*u->proxy = 0;
	if (!u->hostname)
		u->hostname = hostname_of(vm->name);
	set_default(&u->packages, "");
	if (!u->aux_base)
		u->aux_base = xasprintf("%s/Unattended-%s-", vm->folder, vm->uuid);
	if (!u->script_template)
		u->script_template = template_path(k->answers);
	if (!u->post_template)
		u->post_template = template_path(k->post);
	set_default(&u->post_command, "");
	set_default(&u->kernel_parameters, "");
	set_default(&u->language, u->detected.languages);
	if (!u->image_index)
		u->image_index = 1;
}

static const struct host_attachment *
first_disk(const struct host_vm *vm)
{
	for (int i = 0; i < vm->ctl_count; i++)
		for (int k = 0; k < vm->ctl[i].at_count; k++)
			if (vm->ctl[i].at[k].type == HOST_DISK && vm->ctl[i].bootable)
				return &vm->ctl[i].at[k];
	return NULL;
}

static int
check_machine(const struct host_vm *vm, const struct host_unattended *u, struct err *e)
{
	const char *type = host_vm_get(vm, HK_OSTYPE, 0);

	if (!first_disk(vm))
		return err_set(e, ERR_NOT_FOUND, "The machine '%s' has no hard disk to install to", vm->name);
	if (u->detected.installer == HOST_INSTALLER_NONE)
		return err_set(e, ERR_UNSUPPORTED,
			"Unattended installation is not supported for '%s'%s%s: it is none of Debian's, Ubuntu's, "
			"Alpine's, "
			"Fedora's or Red Hat's installation media",
			u->iso, *u->detected.flavor ? ", " : "", u->detected.flavor);
	if (str_ends(u->detected.ostype, "_64") && !str_ends(type, "_64") && str_starts(type, u->detected.flavor))
		return err_set(e, ERR_INVALID,
			"The ISO image '%s' is for 64-bit machines, and the machine '%s' is not one", u->iso, vm->name);
	return 0;
}

static struct host_vm *
load_free(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);

	if (vm && host_state_live(vm->state))
		err_set(e, ERR_VM_STATE, "Machine '%s' is currently running", vm->name);
	else if (vm && !vm_check_mutable(vm, e))
		return vm;
	host_vm_free(vm);
	return NULL;
}

int
host_unattended_resolve(struct host *h, const char *id, struct host_unattended *u, struct err *e)
{
	struct host_vm *vm = load_free(h, id, e);
	int r = -1;

	if (!vm)
		return -1;
	make_absolute(&u->iso);
	make_absolute(&u->additions_iso);
	make_absolute(&u->script_template);
	make_absolute(&u->post_template);
	if (u->aux_base && str_ends(u->aux_base, "/")) {
		char *path = xasprintf("%sUnattended-", u->aux_base);

		free(u->aux_base);
		u->aux_base = path;
	}
	make_absolute(&u->aux_base);
	if (!u->iso)
		err_set(e, ERR_USAGE, "No ISO image is given (--iso)");
	else if (!host_iso_detect(u->iso, &u->detected, e) && !check_machine(vm, u, e)) {
		fill_in(vm, u);
		r = check_values(u, e);
	}
	host_vm_free(vm);
	return r;
}

void
host_unattended_release(struct host_unattended *u)
{
	char **texts[] = { &u->iso, &u->user, &u->full_name, &u->key, &u->additions_iso, &u->locale, &u->country,
		&u->time_zone, &u->proxy, &u->hostname, &u->packages, &u->aux_base, &u->script_template,
		&u->post_template, &u->post_command, &u->kernel_parameters, &u->language };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		free(*texts[i]);
		*texts[i] = NULL;
	}
	if (u->password)
		explicit_bzero(u->password, strlen(u->password));
	free(u->password);
	u->password = NULL;
}

/* ---- the answers ---- */

static char *
crypted(const char *password, struct err *e)
{
	char salt[CRYPT_GENSALT_OUTPUT_SIZE];
	struct crypt_data *d = xcalloc(1, sizeof(*d));
	const char *made = NULL;
	char *text = NULL;

	if (crypt_gensalt_rn("$6$", 0, NULL, 0, salt, sizeof(salt)))
		made = crypt_r(password, salt, d);
	if (made && made[0] == '$')
		text = xstrdup(made);
	else
		err_set(e, ERR_FAILED, "The password cannot be encrypted");
	explicit_bzero(d, sizeof(*d));
	free(d);
	return text;
}

static char *
expand_file(const char *path, const struct script_values *v, struct err *e)
{
	size_t len;
	char *text = file_read(path, TEMPLATE_MAX, &len, e), *out;

	if (!text)
		return NULL;
	out = script_expand(text, path, v, e);
	free(text);
	return out;
}

/* The answers and the script of one kind of installer, as files. */
struct answers {
	char *answers, *post, *meta, *tar;
	struct answer_file initrd[4], disc[4];
	size_t initrd_count, disc_count;
};

static void
answers_free(struct answers *a)
{
	char *texts[] = { a->answers, a->post, a->meta };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (texts[i])
			explicit_bzero(texts[i], strlen(texts[i]));
		free(texts[i]);
	}
	free(a->tar);
}

static void
put(struct answer_file *list, size_t *count, const char *path, const char *text)
{
	list[(*count)++] = (struct answer_file){ path, text, strlen(text), str_ends(path, ".sh") ? 0500 : 0400, NULL };
}

/* Alpine unpacks this over its root file system; the files are what `lbu` would save. */
static int
alpine_overlay(struct answers *a, struct err *e)
{
	static const char *const services[][2] = { { "sysinit", "devfs" }, { "sysinit", "dmesg" },
		{ "sysinit", "mdev" }, { "sysinit", "hwdrivers" }, { "sysinit", "modloop" }, { "boot", "hwclock" },
		{ "boot", "modules" }, { "boot", "sysctl" }, { "boot", "hostname" }, { "boot", "bootmisc" },
		{ "boot", "syslog" }, { "shutdown", "mount-ro" }, { "shutdown", "killprocs" }, { "default", "local" } };
	struct answer_file files[ARRAY_LEN(services) + 3];
	char *names[ARRAY_LEN(services)], *targets[ARRAY_LEN(services)];
	size_t n = 0, len;

	for (; n < ARRAY_LEN(services); n++) {
		names[n] = xasprintf("etc/runlevels/%s/%s", services[n][0], services[n][1]);
		targets[n] = xasprintf("/etc/init.d/%s", services[n][1]);
		files[n] = (struct answer_file){ names[n], NULL, 0, 0777, targets[n] };
	}
	files[n++] = (struct answer_file){ "etc/local.d/install.start", a->post, strlen(a->post), 0500, NULL };
	files[n++] = (struct answer_file){ "etc/lodge.answers", a->answers, strlen(a->answers), 0400, NULL };
	a->tar = answer_tar(files, n, &len, e);
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		free(names[i]);
		free(targets[i]);
	}
	a->disc[a->disc_count++] = (struct answer_file){ "lodge.apkovl.tar.gz", a->tar, len, 0400, NULL };
	return a->tar ? 0 : -1;
}

static int
make_answers(const struct script_values *v, struct answers *a, struct err *e)
{
	const struct host_unattended *u = v->u;
	const struct kind *k = &kinds[u->detected.installer];

	a->answers = expand_file(u->script_template, v, e);
	a->post = a->answers ? expand_file(u->post_template, v, e) : NULL;
	if (!a->post)
		return -1;
	if (u->detected.installer == HOST_INSTALLER_ALPINE)
		return alpine_overlay(a, e);
	if (k->initrd) {
		put(a->initrd, &a->initrd_count, k->name, a->answers);
		put(a->initrd, &a->initrd_count, "vboxpostinstall.sh", a->post);
	}
	if (u->detected.installer == HOST_INSTALLER_REDHAT)
		put(a->disc, &a->disc_count, k->name, a->answers);
	if (u->detected.installer == HOST_INSTALLER_AUTOINSTALL) {
		a->meta = xasprintf("instance-id: lodge-%s\n", v->machine_uuid);
		put(a->disc, &a->disc_count, "user-data", a->answers);
		put(a->disc, &a->disc_count, "meta-data", a->meta);
	}
	if (!k->initrd || u->detected.installer == HOST_INSTALLER_REDHAT)
		put(a->disc, &a->disc_count, "vboxpostinstall.sh", a->post);
	return 0;
}

/* "BEFORE --- AFTER": what is behind the dashes also goes to the installed system's kernel, and so does `extra`. */
static char *
command_line(const struct host_unattended *u)
{
	const struct host_iso *d = &u->detected;
	char *line = xasprintf(
		"%s%s%s", kinds[d->installer].cmdline, *u->kernel_parameters ? " " : "", u->kernel_parameters);

	if (d->installer == HOST_INSTALLER_REDHAT && *d->label) {
		struct str label = { 0 };
		char *more;

		for (const char *p = d->label; *p; p++)
			if (*p == ' ')
				str_add(&label, "\\x20");
			else
				str_addn(&label, p, 1);
		more = xasprintf("inst.stage2=hd:LABEL=%s %s", label.s, line);
		str_free(&label);
		free(line);
		return more;
	}
	return line;
}

/* ---- the machine ---- */

struct place {
	const char *controller;
	int port, device;
	bool drive; /* there is a DVD drive */
};

static bool
takes_discs(const struct host_controller *c)
{
	return c->bus == HOST_IDE || c->bus == HOST_SATA || c->bus == HOST_SCSI || c->bus == HOST_SAS ||
	       c->bus == HOST_VIRTIO_SCSI;
}

/* Places for discs in the order the firmware tries them: `drives` only, or free ones too. At most `max`. */
static int
find_places(const struct host_vm *vm, int free_ones, struct place *out, int max)
{
	int n = 0;

	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		for (int p = 0; takes_discs(c) && c->bootable && p < c->ports; p++) {
			for (int d = 0; d < c->devices_per_port && n < max; d++) {
				const struct host_attachment *at = host_vm_attachment(c, p, d);

				if (at ? at->type != HOST_DVD : free_ones-- <= 0)
					continue;
				out[n++] = (struct place){ c->name, p, d, at != NULL };
			}
		}
	}
	return n;
}

static int
choose_places(struct host_vm *vm, struct place *out, int want, struct err *e)
{
	struct place all[8];
	int drives = find_places(vm, 0, all, 8), n = find_places(vm, MAX(want - drives, 0), all, 8);

	if (n < want)
		return err_set(e, ERR_NOT_FOUND,
			"The machine '%s' has room for %d of the %d discs that the installation needs: add a "
			"controller, or "
			"ports to one, with storagectl",
			vm->name, n, want);
	memcpy(out, all, (size_t)want * sizeof(*out));
	return 0;
}

static int
attach(struct host *h, const struct host_vm *vm, const struct place *p, const char *medium, struct err *e)
{
	struct host_attach a = { .controller = p->controller,
		.port = p->port,
		.device = p->device,
		.type = "dvddrive",
		.medium = medium,
		.nonrotational = -1,
		.discard = -1,
		.hotpluggable = -1,
		.tempeject = -1,
		.passthrough = -1,
		.force = true };

	return host_vm_attach(h, vm->uuid, &a, e);
}

/* The firmware has to come to the disc: it says itself when the disk's turn is (unattended_boot.c). */
static int
order_boot(struct host *h, const struct host_vm *vm, bool disk_starts, struct err *e)
{
	struct host_change c[HOST_BOOTS];
	int dvd = -1, disk = -1;

	for (int i = HOST_BOOTS - 1; i >= 0; i--) {
		if (!strcmp(host_vm_get(vm, HK_BOOT, i), "dvd"))
			dvd = i;
		if (!strcmp(host_vm_get(vm, HK_BOOT, i), "disk"))
			disk = i;
	}
	if (dvd >= 0 && (disk < 0 || dvd < disk || !disk_starts))
		return 0;
	c[0] = (struct host_change){ HK_BOOT, 0, "dvd" };
	c[1] = (struct host_change){ HK_BOOT, 1, "disk" };
	c[2] = (struct host_change){ HK_BOOT, 2, "none" };
	c[3] = (struct host_change){ HK_BOOT, 3, "none" };
	return host_vm_modify(h, vm->uuid, c, HOST_BOOTS, e);
}

static int
read_first_sector(struct host *h, const char *path, uint8_t sector[512], struct err *e)
{
	struct block_finder finder = medium_finder(h);
	struct block *b = block_open_with(path, NULL, BLOCK_RDONLY, &finder, e);
	int r;

	if (!b)
		return -1;
	r = block_read(b, sector, 512, 0);
	block_close(b);
	return r ? err_sys(e, ERR_FILE, r, "The disk '%s' cannot be read", path) : 0;
}

static bool
starts_with_code(const uint8_t sector[512])
{
	return sector[0] && le32(sector) != ANSWER_BOOT_GENERIC && sector[510] == 0x55 && sector[511] == 0xaa;
}

static json_t *
place_json(const struct place *p, const char *path)
{
	return json_pack("{s:s, s:i, s:i, s:s}", "controller", p->controller, "port", p->port, "device", p->device,
		"path", path);
}

/* Everything of the machine that changes, in one transaction. */
static int
reconfigure(struct host *h, struct host_vm *vm, const struct host_unattended *u, const char *aux, uint32_t sum,
	bool disk_starts, struct err *e)
{
	bool additions = u->install_additions && *u->additions_iso;
	const char *media[] = { aux, u->iso, u->additions_iso };
	int n = additions ? 3 : 2;
	json_t *note = json_pack("{s:s, s:I, s:[]}", "aux", aux, "sum", (json_int_t)sum, "discs");
	char *text = NULL;
	struct place places[3];

	if (db_begin(h, e)) {
		json_decref(note);
		return -1;
	}
	if (choose_places(vm, places, n, e) || order_boot(h, vm, disk_starts, e))
		goto fail;
	for (int i = 0; i < n; i++) {
		if (attach(h, vm, &places[i], media[i], e))
			goto fail;
		json_array_append_new(json_object_get(note, "discs"), place_json(&places[i], media[i]));
	}
	text = json_dumps(note, JSON_COMPACT);
	if (!text || host_extra_set(h, vm->uuid, EXTRA_KEY, text, e) || db_commit(h, e))
		goto fail;
	free(text);
	json_decref(note);
	return 0;
fail:
	db_rollback(h);
	free(text);
	json_decref(note);
	return -1;
}

static int
write_medium(const struct host_vm *vm, const struct host_unattended *u, const struct script_values *v, const char *aux,
	uint32_t sum, struct err *e)
{
	struct answers a = { 0 };
	char *cmdline = command_line(u);
	unsigned memory = 0;
	int r = make_answers(v, &a, e);

	if (!r) {
		struct answer_media m = { .out = aux,
			.label = kinds[u->detected.installer].label,
			.iso = u->iso,
			.kernel = u->detected.kernel,
			.initrd = u->detected.initrd,
			.cmdline = cmdline,
			.in_initrd = a.initrd,
			.in_initrd_count = a.initrd_count,
			.on_disc = a.disc,
			.on_disc_count = a.disc_count,
			.disk_sum = sum };

		r = answer_media_write(&m, &memory, e);
	}
	if (!r && (int64_t)memory > host_vm_num(vm, HK_MEMORY, 0)) {
		r = err_set(e, ERR_INVALID,
			"The installer of '%s' needs at least %u MB of memory, and the machine '%s' has %lld: modifyvm "
			"--memory "
			"gives it more",
			u->iso, memory, vm->name, (long long)host_vm_num(vm, HK_MEMORY, 0));
		unlink(aux);
	}
	answers_free(&a);
	free(cmdline);
	return r;
}

static int
install(struct host *h, struct host_vm *vm, const struct host_unattended *u, struct err *e)
{
	char *aux = xasprintf("%saux.iso", u->aux_base);
	struct script_values v = { .u = u,
		.machine_uuid = vm->uuid,
		.utc = host_vm_on(vm, HK_RTCUSEUTC, 0),
		.has_additions = u->install_additions && *u->additions_iso };
	char *before = host_unattended_medium(h, vm->uuid);
	uint8_t sector[512];
	struct media_job *job = NULL;
	int r = read_first_sector(h, first_disk(vm)->path, sector, e);

	if (!r)
		v.crypted = crypted(u->password, e);
	if (v.crypted && (job = media_job_begin(h, "an answer medium", aux, e))) {
		unlink(aux); /* of an installation before */
		r = write_medium(vm, u, &v, aux, answer_sum(sector), e);
		if (!r && reconfigure(h, vm, u, aux, answer_sum(sector), starts_with_code(sector), e)) {
			unlink(aux);
			r = -1;
		}
		if (!r && before && strcmp(before, aux) != 0)
			host_unattended_remove(h, before);
		media_job_end(job);
	} else {
		r = -1;
	}
	free(v.crypted);
	free(before);
	free(aux);
	return r;
}

int
host_unattended_install(struct host *h, const char *id, const struct host_unattended *u, struct err *e)
{
	struct host_vm *vm = load_free(h, id, e);
	int r = vm ? install(h, vm, u, e) : -1;

	host_vm_free(vm);
	return r;
}

/* ---- afterwards ---- */

char *
host_unattended_medium(struct host *h, const char *uuid)
{
	char *text = NULL, *path = NULL;
	json_t *note;

	if (host_extra_get(h, uuid, EXTRA_KEY, &text, NULL) || !text)
		return NULL;
	note = json_loads(text, 0, NULL);
	if (*json_text(note, "aux"))
		path = xstrdup(json_text(note, "aux"));
	json_decref(note);
	free(text);
	return path;
}

/* The note may have come with somebody's settings file: only what looks like a medium that we made goes. */
void
host_unattended_remove(struct host *h, const char *path)
{
	struct stat st;

	host_medium_close(h, HOST_DVD, path, false, NULL);
	if (str_ends(path, "aux.iso") && !lstat(path, &st) && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0600)
		unlink(path);
}

/* The drive that has the disc; NULL: the disc is not where it was put. */
static const struct host_attachment *
drive_with(const struct host_vm *vm, json_t *disc)
{
	const struct host_attachment *at = NULL;

	for (int i = 0; i < vm->ctl_count; i++)
		if (!strcmp(vm->ctl[i].name, json_text(disc, "controller")))
			at = host_vm_attachment(&vm->ctl[i], (int)json_integer_value(json_object_get(disc, "port")),
				(int)json_integer_value(json_object_get(disc, "device")));
	return at && at->path && !strcmp(at->path, json_text(disc, "path")) ? at : NULL;
}

/* The disc is still where it was put: take it out and forget it. */
static bool
take_out(struct host *h, const struct host_vm *vm, json_t *disc)
{
	struct place p = { json_text(disc, "controller"), (int)json_integer_value(json_object_get(disc, "port")),
		(int)json_integer_value(json_object_get(disc, "device")), true };

	return !drive_with(vm, disc) || !attach(h, vm, &p, "emptydrive", NULL);
}

static bool
is_done(struct host *h, const struct host_vm *vm, json_t *note)
{
	const struct host_attachment *disk = first_disk(vm);
	uint8_t sector[512];

	if (host_state_live(vm->state))
		return !drive_with(
			vm, json_array_get(json_object_get(note, "discs"), 0)); /* the guest has ejected it */
	return vm->state != HOST_SAVED && disk && !read_first_sector(h, disk->path, sector, NULL) &&
	       starts_with_code(sector) &&
	       answer_sum(sector) != (uint32_t)json_integer_value(json_object_get(note, "sum"));
}

static void
settle(struct host *h, const char *uuid, json_t *note)
{
	struct host_vm *vm = host_vm_load(h, uuid, NULL);
	json_t *discs = json_object_get(note, "discs"), *disc;
	const char *aux = json_text(note, "aux");
	bool all = true;
	size_t i;

	if (vm && is_done(h, vm, note)) {
		json_array_foreach(discs, i, disc) all &= take_out(h, vm, disc);
		if (all) {
			host_unattended_remove(h, aux);
			host_extra_set(h, uuid, EXTRA_KEY, NULL, NULL);
		}
	}
	host_vm_free(vm);
}

void
host_unattended_settle(struct host *h)
{
	sqlite3_stmt *s = db_query(h, NULL,
		"SELECT m.uuid, x.value FROM extra x JOIN machine m ON m.id = x.machine WHERE x.key = ?", "s",
		EXTRA_KEY);
	char uuids[32][37];
	json_t *notes[32];
	int n = 0;

	while (s && n < 32 && db_step(h, s, NULL) > 0) {
		snprintf(uuids[n], 37, "%s", db_text(s, 0));
		notes[n] = json_loads(db_text(s, 1), 0, NULL);
		n += notes[n] != NULL;
	}
	sqlite3_finalize(s);
	while (n > 0) {
		n--;
		settle(h, uuids[n], notes[n]);
		json_decref(notes[n]);
	}
}
