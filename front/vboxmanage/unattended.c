/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unattended detect, unattended install.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/unattended.h"
#include "host/unattended.h"

static const struct site site = { "Unattended", "Prepare()", 1183, "VBoxManageMisc.cpp" };

/* ---- detect ---- */

enum { D_ISO, D_MACHINE };

static void
print_detected(struct cli *c, const char *path, const struct host_iso *d)
{
	printf("%s: info: Detected '%s' to be:\n", c->program, path);
	printf("    OS TypeId    = %s\n    OS Version   = %s\n    OS Flavor    = %s\n    OS Languages = %s\n"
	       "    OS Hints     = %s\n    Unattended installation supported = %s\n",
		d->ostype, d->version, d->flavor, d->languages, d->hints, d->installer ? "yes" : "no");
}

static void
print_quoted(const char *name, const char *value)
{
	printf("%s=\"", name);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			putchar('\\');
		putchar(*value);
	}
	puts("\"");
}

static void
print_detected_machine(const struct host_iso *d)
{
	print_quoted("OSTypeId", d->ostype);
	print_quoted("OSVersion", d->version);
	print_quoted("OSFlavor", d->flavor);
	print_quoted("OSLanguages", d->languages);
	print_quoted("OSHints", d->hints);
	printf("IsInstallSupported=\"%s\"\n", d->installer ? "on" : "off");
}

static int
detect(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "iso", D_ISO, OPT_TEXT, 'i', 0 },
		{ "machine-readable", D_MACHINE, OPT_FLAG, 'M', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct err e = { 0 };
	struct host_iso d;
	const char *iso = NULL;
	bool machine = false;
	char *path;
	int id, r;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == D_ISO)
			iso = a.text;
		machine |= id == D_MACHINE;
	}
	if (!iso)
		return fail_syntax(c, "No ISO specified");
	path = host_absolute_path(iso);
	r = host_iso_detect(path, &d, &e) ? fail_api(c, &e, &site) : 0;
	if (!r && machine)
		print_detected_machine(&d);
	else if (!r)
		print_detected(c, path, &d);
	free(path);
	return r;
}

/* ---- install ---- */

enum {
	I_ISO,
	I_USER,
	I_PASSWORD,
	I_PASSWORDFILE,
	I_FULLNAME,
	I_KEY,
	I_ADDITIONS,
	I_NOADDITIONS,
	I_ADDITIONSISO,
	I_LOCALE,
	I_COUNTRY,
	I_TIMEZONE,
	I_PROXY,
	I_HOSTNAME,
	I_PACKAGES,
	I_DRYRUN,
	I_AUXBASE,
	I_IMAGE,
	I_SCRIPT,
	I_POST,
	I_COMMAND,
	I_KERNEL,
	I_LANGUAGE,
	I_START,
	I_TXS,
	I_NOTXS,
	I_VALIDATIONKIT,
};

/* clang-format off */
static const struct opt options[] = {
	{ "iso", I_ISO, OPT_TEXT, 'i', 0 },
	{ "user", I_USER, OPT_TEXT, 'u', 0 },
	{ "password", I_PASSWORD, OPT_TEXT, 'p', 0 },
	{ "user-password", I_PASSWORD, OPT_TEXT, 0, 0 },
	{ "password-file", I_PASSWORDFILE, OPT_TEXT, 'X', 0 },
	{ "user-password-file", I_PASSWORDFILE, OPT_TEXT, 0, 0 },
	{ "full-user-name", I_FULLNAME, OPT_TEXT, 'U', 0 },
	{ "key", I_KEY, OPT_TEXT, 'k', 0 },
	{ "install-additions", I_ADDITIONS, OPT_FLAG, 'A', 0 },
	{ "no-install-additions", I_NOADDITIONS, OPT_FLAG, 'N', 0 },
	{ "additions-iso", I_ADDITIONSISO, OPT_TEXT, 'a', 0 },
	{ "locale", I_LOCALE, OPT_TEXT, 'l', 0 },
	{ "country", I_COUNTRY, OPT_TEXT, 'Y', 0 },
	{ "time-zone", I_TIMEZONE, OPT_TEXT, 'z', 0 },
	{ "proxy", I_PROXY, OPT_TEXT, 'y', 0 },
	{ "hostname", I_HOSTNAME, OPT_TEXT, 'H', 0 },
	{ "package-selection-adjustment", I_PACKAGES, OPT_TEXT, 's', 0 },
	{ "dry-run", I_DRYRUN, OPT_FLAG, 'D', 0 },
	{ "auxiliary-base-path", I_AUXBASE, OPT_TEXT, 'x', 0 },
	{ "image-index", I_IMAGE, OPT_NUMBER, 'm', 0 },
	{ "script-template", I_SCRIPT, OPT_TEXT, 'c', 0 },
	{ "post-install-template", I_POST, OPT_TEXT, 'C', 0 },
	{ "post-install-command", I_COMMAND, OPT_TEXT, 'P', 0 },
	{ "extra-install-kernel-parameters", I_KERNEL, OPT_TEXT, 'I', 0 },
	{ "language", I_LANGUAGE, OPT_TEXT, 'L', 0 },
	{ "start-vm", I_START, OPT_TEXT, 'S', 0 },
	{ "install-txs", I_TXS, OPT_FLAG, 't', 0 },
	{ "no-install-txs", I_NOTXS, OPT_FLAG, 'T', 0 },
	{ "validation-kit-iso", I_VALIDATIONKIT, OPT_TEXT, 'K', 0 },
};
/* clang-format on */

struct wish {
	struct host_unattended u;
	const char *vm, *session;
	bool dry;
};

/* The text that an option fills, NULL for one of another kind. */
static char **
text_of(struct host_unattended *u, int id)
{
	char **const texts[] = {
		[I_ISO] = &u->iso,
		[I_USER] = &u->user,
		[I_PASSWORD] = &u->password,
		[I_FULLNAME] = &u->full_name,
		[I_KEY] = &u->key,
		[I_ADDITIONSISO] = &u->additions_iso,
		[I_LOCALE] = &u->locale,
		[I_COUNTRY] = &u->country,
		[I_TIMEZONE] = &u->time_zone,
		[I_PROXY] = &u->proxy,
		[I_HOSTNAME] = &u->hostname,
		[I_AUXBASE] = &u->aux_base,
		[I_SCRIPT] = &u->script_template,
		[I_POST] = &u->post_template,
		[I_COMMAND] = &u->post_command,
		[I_KERNEL] = &u->kernel_parameters,
		[I_LANGUAGE] = &u->language,
	};

	return (size_t)id < ARRAY_LEN(texts) ? texts[id] : NULL;
}

static void
set_text(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
}

static void
add_packages(struct host_unattended *u, const char *word)
{
	char *both = u->packages ? xasprintf("%s;%s", u->packages, word) : xstrdup(word);

	if (!u->packages || strcmp(u->packages, word)) {
		free(u->packages);
		u->packages = both;
	} else {
		free(both);
	}
}

static int
take(struct args *a, int id, struct wish *w)
{
	char **text = text_of(&w->u, id);

	if (text) {
		set_text(text, a->text);
		if (id == I_PASSWORD) /* not for those who list processes */
			memset((char *)a->text, '*', strlen(a->text));
		return 0;
	}
	switch (id) {
	case I_PASSWORDFILE:
		free(w->u.password);
		w->u.password = read_password(a->cli, strcmp(a->text, "stdin") ? a->text : "-", "Enter password: ");
		return w->u.password ? 0 : 1;
	case I_ADDITIONS:
	case I_NOADDITIONS:
		w->u.install_additions = id == I_ADDITIONS;
		return 0;
	case I_PACKAGES:
		add_packages(&w->u, a->text);
		return 0;
	case I_DRYRUN:
		w->dry = true;
		return 0;
	case I_IMAGE:
		w->u.image_index = (unsigned)MIN(a->number, 0xffffffffull);
		return 0;
	case I_START:
		w->session = a->text;
		return 0;
	case I_NOTXS:
		return 0;
	default:
		return fail_plain(a->cli, "The option %s is not available here: it is for tests of VirtualBox itself",
			a->spelled);
	}
}

static int
parse(struct args *a, struct wish *w)
{
	int id, r;

	while ((id = args_next(a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && w->vm)
			return fail_syntax(a->cli, "VM name/UUID given more than once!");
		if (id == ARG_WORD)
			w->vm = a->text;
		else if ((r = take(a, id, w)))
			return r;
	}
	if (!w->vm)
		return fail_syntax(a->cli, "Missing VM name/UUID");
	if (strcmp(w->session, "none") && strcmp(w->session, "headless") && strcmp(w->session, "gui") &&
		strcmp(w->session, "separate"))
		return fail_syntax(a->cli, "Unknown session type '%s': gui, headless or separate", w->session);
	return 0;
}

static void
print_values(const struct host_unattended *u)
{
	const struct {
		const char *name, *value;
	} rows[] = { { "isoPath", u->iso }, { "user", u->user }, { "password", "********" },
		{ "fullUserName", u->full_name }, { "productKey", u->key }, { "additionsIsoPath", u->additions_iso },
		{ "installGuestAdditions", u->install_additions ? "true" : "false" }, { "validationKitIsoPath", "" },
		{ "installTestExecService", "false" }, { "locale", u->locale }, { "country", u->country },
		{ "timeZone", u->time_zone }, { "proxy", u->proxy }, { "hostname", u->hostname },
		{ "packageSelectionAdjustments", u->packages }, { "auxiliaryBasePath", u->aux_base },
		{ "imageIndex", "1" }, { "scriptTemplatePath", u->script_template },
		{ "postInstallScriptTemplatePath", u->post_template }, { "postInstallCommand", u->post_command },
		{ "extraInstallKernelParameters", u->kernel_parameters }, { "language", u->language },
		{ "detectedOSTypeId", u->detected.ostype }, { "detectedOSVersion", u->detected.version },
		{ "detectedOSFlavor", u->detected.flavor }, { "detectedOSLanguages", u->detected.languages },
		{ "detectedOSHints", u->detected.hints } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		printf("  %32s = %s\n", rows[i].name, rows[i].value);
}

static int
run(struct cli *c, struct host *h, struct wish *w, const struct host_vm *vm)
{
	bool starts = strcmp(w->session, "none") && !w->dry;
	struct err e = { 0 };

	printf("%s: info: %s unattended installation of %s in machine '%s' (%s).\n", c->program,
		starts ? "Starting" : "Preparing", host_vm_get(vm, HK_OSTYPE, 0), vm->name, vm->uuid);
	if (host_unattended_resolve(h, vm->uuid, &w->u, &e) ||
		(!w->dry && host_unattended_install(h, vm->uuid, &w->u, &e)))
		return fail_api(c, &e, &site);
	printf("%s: info: Using values:\n", c->program);
	print_values(&w->u);
	if (starts && start_held(h, vm->uuid, &e))
		return fail_api(c, &e, &site);
	if (starts)
		printf("%s: info: VM '%s' (%s) has been successfully started.\n", c->program, vm->name, vm->uuid);
	else
		printf("%s: info: VM '%s' (%s) is ready to be started (e.g. VBoxManage startvm).\n", c->program,
			vm->name, vm->uuid);
	return 0;
}

static int
install(struct cli *c, int argc, char **argv)
{
	struct args a = ARGS(c, argc, argv, options);
	struct wish w = { .session = "none" };
	struct host_vm *vm = NULL;
	struct err e = { 0 };
	struct host *h = NULL;
	int r = parse(&a, &w);

	if (!r && !(h = cli_host(c)))
		r = 1;
	if (!r && !(vm = host_vm_load(h, w.vm, &e)))
		r = fail_api(c, &e, &site);
	if (!r)
		r = run(c, h, &w, vm);
	host_vm_free(vm);
	host_unattended_release(&w.u);
	return r;
}

int
cmd_unattended(struct cli *c, int argc, char **argv)
{
	if (!argc)
		return fail_syntax(c, "No subcommand specified");
	if (!strcmp(argv[0], "detect"))
		return detect(c, argc - 1, argv + 1);
	if (!strcmp(argv[0], "install"))
		return install(c, argc - 1, argv + 1);
	return fail_syntax(c, "Unknown subcommand '%s'", argv[0]);
}
