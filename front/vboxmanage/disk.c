/* SPDX-License-Identifier: Apache-2.0 */
/*
 * createmedium (createhd, createvdi), closemedium, showmediuminfo.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"

/* "disk", "dvd", "floppy" before the rest of a command. */
bool
medium_kind_word(const char *word, enum host_device *type)
{
	static const char *const words[] = { [HOST_DISK] = "disk", [HOST_DVD] = "dvd", [HOST_FLOPPY] = "floppy" };

	for (int i = 0; i < 3; i++) {
		if (!strcmp(word, words[i])) {
			*type = (enum host_device)i;
			return true;
		}
	}
	return false;
}

enum { O_FILENAME, O_SIZE, O_SIZEBYTE, O_FORMAT, O_VARIANT, O_OLD_STATIC, O_OLD_TYPE, O_DIFFPARENT };

/* "Standard", "Fixed", "Split2G", "Stream", or several of them with commas. */
int
medium_variant(struct cli *c, const char *text, bool *fixed, bool *split, bool *stream)
{
	while (*text) {
		size_t n = strcspn(text, ",");

		if (n == 5 && !strncasecmp(text, "Fixed", n))
			*fixed = true;
		else if (n == 7 && !strncasecmp(text, "Split2G", n))
			*split = true;
		else if (n == 6 && !strncasecmp(text, "Stream", n))
			*stream = true;
		else if (n == 3 && !strncasecmp(text, "ESX", n))
			return fail_plain(c,
				"VMDK images of the variant ESX cannot be made here: Standard, Fixed, Split2G and "
				"Stream can");
		else if (n && (n != 8 || strncasecmp(text, "Standard", n)))
			return fail_argument(c,
				"Invalid --variant argument '%s': it is one of Standard, Fixed, Split2G, Stream", text);
		text += n + (text[n] != 0);
	}
	return 0;
}

static int
create(struct cli *c, struct host_medium_create *m, int kind)
{
	static const struct site site = { "Medium", "RTEXITCODE handleCreateMedium(HandlerArg *)", 462,
		"VBoxManageDisk.cpp" };
	struct host *h = cli_host(c);
	struct err e = { 0 };
	char uuid[37] = "";

	if (!h)
		return 1;
	m->progress = progress_at;
	m->opaque = c;
	progress_begin(c);
	if (host_medium_create(h, m, uuid, &e)) {
		progress_end(c, &e);
		fail_plain(c, "Failed to create medium");
		return fail_api(c, &e, &site);
	}
	progress_end(c, NULL);
	if (kind != HOST_NORMAL && host_medium_set_kind(h, m->type, uuid, (enum host_medium_kind)kind, &e))
		return fail_api(c, &e, &site);
	printf("Medium created. UUID: %s\n", uuid);
	return 0;
}

int
cmd_createmedium(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "filename", O_FILENAME, OPT_TEXT, 'f', 0 },
		{ "size", O_SIZE, OPT_NUMBER, 's', 0 },
		{ "size-byte", O_SIZEBYTE, OPT_NUMBER, 'S', 0 },
		{ "format", O_FORMAT, OPT_TEXT, 'o', 0 },
		{ "variant", O_VARIANT, OPT_TEXT, 'm', 0 },
		{ "static", O_OLD_STATIC, OPT_FLAG, 0, 0 },
		{ "type", O_OLD_TYPE, OPT_TEXT, 0, 0 },
		{ "diff-parent", O_DIFFPARENT, OPT_TEXT, 'd', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_medium_create m = { .type = HOST_DISK };
	int kind_of_medium = HOST_NORMAL, r;
	bool kind = false;

	for (;;) {
		switch (args_next(&a)) {
		case O_FILENAME:
			m.path = a.text;
			break;
		case O_SIZE:
			if (a.number > (UINT64_MAX >> 20))
				return fail_argument(c, "Invalid --size argument '%s'", a.text);
			m.size = a.number << 20;
			break;
		case O_SIZEBYTE:
			m.size = a.number;
			break;
		case O_FORMAT:
			m.format = a.text;
			break;
		case O_VARIANT:
			r = medium_variant(c, a.text, &m.fixed, &m.split, &m.stream);
			if (r)
				return r;
			break;
		case O_OLD_STATIC:
			m.fixed = true;
			break;
		case O_OLD_TYPE:
			kind_of_medium = host_medium_kind_of(a.text);
			if (kind_of_medium < 0)
				return fail_argument(c, "Invalid --type argument '%s'", a.text);
			break;
		case O_DIFFPARENT:
			m.parent = a.text;
			break;
		case ARG_WORD:
			if (kind || !medium_kind_word(a.text, &m.type))
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			kind = true;
			break;
		case ARG_END:
			if (!m.path || !*m.path)
				return fail_syntax(c, "Parameter --filename is required");
			if (!m.size && !m.parent)
				return fail_syntax(c, "Parameter --size is required");
			if (m.parent && m.type != HOST_DISK)
				return fail_syntax(c, "Only hard disks have differencing images");
			return m.type == HOST_DVD ? fail_argument(c, "A DVD image cannot be created empty")
						  : create(c, &m, kind_of_medium);
		default:
			return 2;
		}
	}
}

static int
close_medium(struct cli *c, enum host_device type, const char *id, bool delete_file)
{
	static const struct site closing = { "Medium", "Close()", 1785, "VBoxManageDisk.cpp" };
	static const struct site deleting = { "Medium", "DeleteStorage(pProgress.asOutParam())", 1755,
		"VBoxManageDisk.cpp" };
	struct host *h = cli_host(c);
	struct err e = { 0 };

	if (!h)
		return 1;
	if (host_medium_close(h, type, id, delete_file, &e)) {
		if (delete_file && e.code != ERR_NOT_FOUND)
			fail_plain(c, "Failed to delete medium");
		return fail_api(c, &e, delete_file ? &deleting : &closing);
	}
	if (delete_file) {
		progress_begin(c);
		progress_end(c, NULL);
	}
	return 0;
}

int
cmd_closemedium(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = { { "delete", 0, OPT_FLAG, 'r', 0 } };
	struct args a = ARGS(c, argc, argv, options);
	enum host_device type = HOST_DISK;
	bool delete_file = false, kind = false;
	const char *id = NULL;

	for (;;) {
		switch (args_next(&a)) {
		case 0:
			delete_file = true;
			break;
		case ARG_WORD:
			if (!kind && !id && medium_kind_word(a.text, &type)) {
				kind = true;
				break;
			}
			if (id)
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			id = a.text;
			break;
		case ARG_END:
			return id ? close_medium(c, type, id, delete_file)
				  : fail_syntax(c, "Medium name or UUID required");
		default:
			return 2;
		}
	}
}

static const char *
medium_state(const struct host_medium *m)
{
	if (m->missing)
		return "inaccessible";
	if (m->in_use)
		return m->type == HOST_DISK ? "locked write" : "locked read";
	return m->in_use_below ? "locked read" : "created";
}

static void
show_list(const char *label, const char *item, bool first)
{
	printf("%-16s%s\n", first ? label : "", item);
}

static void
show_users(const struct host_medium *m)
{
	for (int i = 0; i < m->users; i++) {
		char *item = xasprintf("%s (UUID: %s)", m->user_names[i], m->user_uuids[i]);

		show_list("In use by VMs:", item, !i);
		free(item);
	}
	for (int i = 0; i < m->child_count; i++)
		show_list("Child UUIDs:", m->children[i], !i);
}

/* VirtualBox's words for the variants of all formats. */
static const char *
variant_words(const struct host_medium *m)
{
	if (*m->parent || !strcmp(m->variant, "differencing"))
		return "differencing default";
	if (!strcmp(m->variant, "streamOptimized"))
		return "dynamic streamOptimized";
	if (str_starts(m->variant, "twoGb"))
		return str_ends(m->variant, "Flat") ? "fixed split2G" : "dynamic split2G";
	return !strcmp(m->variant, "fixed") || str_ends(m->variant, "Flat") ? "fixed default" : "dynamic default";
}

static void
show_encryption(const struct host_medium *m, bool full)
{
	printf("Encryption:     %s\n", m->encrypted ? "enabled" : "disabled");
	if (!full || !m->encrypted)
		return;
	printf("Cipher:         %s\n", m->cipher);
	printf("Password ID:    %s\n", m->password_id);
}

static void
show_properties(const struct host_medium *m)
{
	for (int i = 0; i < m->property_count; i++)
		if (!str_starts(m->properties[i].key, "CRYPT/"))
			printf("Property:       %s=%s\n", m->properties[i].key, m->properties[i].value);
}

static void
show_kind(const struct host_medium *m)
{
	if (m->type != HOST_DISK)
		printf("Type:           %s\n", m->type == HOST_DVD ? "readonly" : "writethrough");
	else
		printf("Type:           %s (%s)\n", host_medium_kind_word(m->kind),
			*m->parent ? "differencing" : "base");
}

void
show_medium(const struct host_medium *m, bool full)
{
	printf("UUID:           %s\n", m->uuid);
	if (m->type == HOST_DISK)
		printf("Parent UUID:    %s\n", *m->parent ? m->parent : "base");
	printf("State:          %s\n", medium_state(m));
	if (full && *m->description)
		printf("Description:    %s\n", m->description);
	show_kind(m);
	if (full && *m->parent)
		printf("Auto-Reset:     %s\n", m->autoreset ? "on" : "off");
	printf("Location:       %s\n", m->path);
	printf("Storage format: %s\n", m->format);
	if (full)
		printf("Format variant: %s\n", variant_words(m));
	printf("Capacity:       %llu MBytes\n", (unsigned long long)(m->size >> 20));
	if (full)
		printf("Size on disk:   %llu MBytes\n", (unsigned long long)((m->on_disk + 0xfffff) >> 20));
	show_encryption(m, full);
	if (full) {
		show_properties(m);
		show_users(m);
	}
}

int
cmd_showmediuminfo(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "VirtualBox",
		"OpenMedium(Bstr(pszFilenameOrUuid).raw(), enmDevType, enmAccessMode, fForceNewUuidOnOpen, "
		"pMedium.asOutParam())",
		201, "VBoxManageDisk.cpp" };
	enum host_device type = HOST_DISK;
	struct host_medium *m;
	struct err e = { 0 };
	struct host *h;
	int at = argc > 1 && medium_kind_word(argv[0], &type);

	if (argc != at + 1 || argv[at][0] == '-')
		return fail_syntax(c, argc ? "Invalid parameter '%s'" : "Medium name or UUID required",
			argc ? argv[argc - 1] : "");
	h = cli_host(c);
	if (!h)
		return 1;
	m = host_medium_load(h, type, argv[at], &e);
	if (!m)
		return fail_api(c, &e, &site);
	show_medium(m, true);
	host_medium_free(m);
	return 0;
}
