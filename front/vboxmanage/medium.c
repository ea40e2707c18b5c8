/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on media: modifymedium, mediumproperty, clonemedium, convertfromraw, encryptmedium, checkmediumpwd,
 * internalcommands sethduuid.
 *
 * While it is under way SIGINT, SIGTERM and SIGHUP are kept back and asked for: whoever does the work undoes it then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "base/stop.h"
#include "front/vboxmanage/vbm.h"

/* ---- progress that can be stopped ---- */

static bool
stopped(void *opaque)
{
	return stop_wanted();
}

struct host_progress
signals_hold(void)
{
	stop_hold();
	return (struct host_progress){ .stopped = stopped };
}

void
signals_release(void)
{
	stop_release();
}

struct host_progress
stoppable_begin(struct cli *c)
{
	stop_hold();
	progress_begin(c);
	return (struct host_progress){ .percent = progress_at, .stopped = stopped, .opaque = c };
}

bool
stoppable_end(struct cli *c, const struct err *e)
{
	if (!stop_release() || !e) {
		progress_end(c, e);
		return false;
	}
	fputs("CANCELED\n", stderr);
	c->progress = -1;
	return true;
}

/* ---- modifymedium ---- */

enum {
	O_TYPE,
	O_AUTORESET,
	O_PROPERTY,
	O_COMPACT,
	O_RESIZE,
	O_RESIZEBYTE,
	O_MOVE,
	O_SETLOCATION,
	O_DESCRIPTION,
	O_PASSWORD
};

struct change {
	enum host_device type;
	const char *id, *kind, *property, *move, *location, *description;
	int autoreset; /* -1: not asked */
	bool compact, resize;
	uint64_t size;
	const char *password_file;
	char *password;
};

static const struct site put_site = { "Medium", "COMSETTER(Type)((MediumType_T)enmMediumType)", 643,
	"VBoxManageDisk.cpp" };

static int
change_kind(struct cli *c, struct host *h, const struct change *x)
{
	int kind = host_medium_kind_of(x->kind);
	struct err e = { 0 };

	if (kind < 0)
		return fail_argument(c, "Invalid medium type '%s'", x->kind);
	return host_medium_set_kind(h, x->type, x->id, (enum host_medium_kind)kind, &e) ? fail_api(c, &e, &put_site)
											: 0;
}

static int
change_property(struct cli *c, struct host *h, const struct change *x)
{
	static const struct site site = { "Medium", "SetProperty(Bstr(pszProperty).raw(), Bstr(pszValue).raw())", 657,
		"VBoxManageDisk.cpp" };
	const char *sign = strchr(x->property, '=');
	struct err e = { 0 };
	char *key;
	int r;

	if (!sign || sign == x->property)
		return fail_argument(c, "Invalid --property argument '%s'", x->property);
	key = xasprintf("%.*s", (int)(sign - x->property), x->property);
	r = host_medium_set_property(h, x->type, x->id, key, sign[1] ? sign + 1 : NULL, &e);
	free(key);
	return r ? fail_api(c, &e, &site) : 0;
}

static int
compact(struct cli *c, struct host *h, const struct change *x)
{
	static const struct site site = { "Medium", "Compact(pProgress.asOutParam())", 670, "VBoxManageDisk.cpp" };
	struct host_progress p = stoppable_begin(c);
	struct err e = { 0 };
	int r = host_medium_compact(h, x->id, x->password, &p, &e);

	if (stoppable_end(c, r ? &e : NULL) || !r)
		return r ? 1 : 0;
	fail_plain(c, "Failed to compact medium");
	return fail_api(c, &e, &site);
}

static int
resize(struct cli *c, struct host *h, const struct change *x)
{
	static const struct site site = { "Medium", "Resize(cbResize, pProgress.asOutParam())", 695,
		"VBoxManageDisk.cpp" };
	struct host_progress p = stoppable_begin(c);
	struct err e = { 0 };
	int r = host_medium_resize(h, x->id, x->size, x->password, &p, &e);

	if (stoppable_end(c, r ? &e : NULL) || !r)
		return r ? 1 : 0;
	fail_plain(c, "Failed to resize medium");
	return fail_api(c, &e, &site);
}

static int
move(struct cli *c, struct host *h, const struct change *x)
{
	static const struct site site = { "Medium", "MoveTo(Bstr(pszNewLocation).raw(), pProgress.asOutParam())", 720,
		"VBoxManageDisk.cpp" };
	struct host_progress p = stoppable_begin(c);
	struct err e = { 0 };
	char uuid[37];
	int r = host_medium_move(h, x->type, x->id, x->move, &p, uuid, &e);

	if (stoppable_end(c, r ? &e : NULL))
		return 1;
	if (r) {
		fail_plain(c, "Failed to move medium");
		return fail_api(c, &e, &site);
	}
	printf("Move medium with UUID %s finished\n", uuid);
	return 0;
}

static int
set_location(struct cli *c, struct host *h, const struct change *x)
{
	static const struct site site = { "Medium", "COMSETTER(Location)(Bstr(pszNewLocation).raw())", 738,
		"VBoxManageDisk.cpp" };
	struct host_medium *m;
	struct err e = { 0 };

	if (host_medium_set_location(h, x->type, x->id, x->location, &e))
		return fail_api(c, &e, &site);
	m = host_medium_load(h, x->type, x->location, NULL);
	printf("Set new location of medium with UUID %s finished\n", m ? m->uuid : x->id);
	host_medium_free(m);
	return 0;
}

static int
change_medium(struct cli *c, const struct change *x)
{
	struct host *h = cli_host(c);
	struct err e = { 0 };
	int r = 0;

	if (!h)
		return 1;
	if (x->kind)
		r = change_kind(c, h, x);
	if (!r && x->autoreset >= 0 && host_medium_set_autoreset(h, x->id, x->autoreset, &e))
		r = fail_api(c, &e, &put_site);
	if (!r && x->property)
		r = change_property(c, h, x);
	if (!r && x->compact)
		r = compact(c, h, x);
	if (!r && x->resize)
		r = resize(c, h, x);
	if (!r && x->move)
		r = move(c, h, x);
	if (!r && x->location)
		r = set_location(c, h, x);
	if (!r && x->description) {
		if (host_medium_set_description(h, x->type, x->id, x->description, &e))
			return fail_api(c, &e, &put_site);
		printf("Medium description has been changed.\n");
	}
	return r;
}

/* Take the option `id` into `x`; 0, or the status to leave with. */
static int
take_change(struct args *a, int id, struct change *x)
{
	switch (id) {
	case O_TYPE:
		x->kind = a->text;
		return 0;
	case O_AUTORESET:
		x->autoreset = a->on;
		return 0;
	case O_PROPERTY:
		x->property = a->text;
		return 0;
	case O_COMPACT:
		x->compact = true;
		return 0;
	case O_RESIZE:
	case O_RESIZEBYTE:
		if (id == O_RESIZE && a->number > UINT64_MAX >> 20)
			return fail_argument(a->cli, "Invalid --resize argument '%s'", a->text);
		x->resize = true;
		x->size = id == O_RESIZE ? a->number << 20 : a->number;
		return 0;
	case O_MOVE:
		x->move = a->text;
		return 0;
	case O_SETLOCATION:
		x->location = a->text;
		return 0;
	case O_DESCRIPTION:
		x->description = a->text;
		return 0;
	case O_PASSWORD:
		x->password_file = a->text;
		return 0;
	default:
		if (x->id)
			return fail_syntax(a->cli, "Invalid parameter '%s'", a->text);
		x->id = a->text;
		return 0;
	}
}

int
cmd_modifymedium(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "type", O_TYPE, OPT_TEXT, 't', 0 },
		{ "autoreset", O_AUTORESET, OPT_ONOFF, 'z', 0 },
		{ "property", O_PROPERTY, OPT_TEXT, 'p', 0 },
		{ "compact", O_COMPACT, OPT_FLAG, 'c', 0 },
		{ "resize", O_RESIZE, OPT_NUMBER, 'r', 0 },
		{ "resize-byte", O_RESIZEBYTE, OPT_NUMBER, 'R', 0 },
		{ "move", O_MOVE, OPT_TEXT, 'm', 0 },
		{ "set-location", O_SETLOCATION, OPT_TEXT, 'l', 0 },
		{ "description", O_DESCRIPTION, OPT_TEXT, 'd', 0 },
		{ "password", O_PASSWORD, OPT_TEXT, 0, 0 },
	};
	struct change x = { .type = HOST_DISK, .autoreset = -1 };
	struct args a = ARGS(c, argc, argv, options);
	bool kind = false;
	int id, r;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && !kind && !x.id && medium_kind_word(a.text, &x.type)) {
			kind = true;
			continue;
		}
		r = take_change(&a, id, &x);
		if (r)
			return r;
	}
	if (!x.id)
		return fail_syntax(c, "Medium name or UUID required");
	if (!x.kind && x.autoreset < 0 && !x.property && !x.compact && !x.resize && !x.move && !x.location &&
		!x.description)
		return fail_syntax(c, "No operation specified");
	if (x.password_file && !x.compact && !x.resize)
		return fail_syntax(c, "--password is for --compact and --resize");
	if (x.password_file && !(x.password = read_password(c, x.password_file, "Enter password: ")))
		return 1;
	r = change_medium(c, &x);
	free(x.password);
	return r;
}

/* ---- mediumproperty ---- */

static int
get_property(struct cli *c, const struct host_medium *m, const char *key)
{
	for (int i = 0; i < m->property_count; i++) {
		if (strcmp(m->properties[i].key, key))
			continue;
		printf("%s=%s\n", key, m->properties[i].value);
		return 0;
	}
	return fail_plain(c, "Property '%s' of medium '%s' is not set", key, m->path);
}

int
cmd_mediumproperty(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Medium", "SetProperty(Bstr(pszProperty).raw(), Bstr(pszValue).raw())", 2051,
		"VBoxManageDisk.cpp" };
	enum host_device type = HOST_DISK;
	int at = argc > 0 && medium_kind_word(argv[0], &type), left = argc - at, r;
	struct host_medium *m;
	struct err e = { 0 };
	struct host *h;
	bool set = left == 4 && !strcmp(argv[at], "set"), get = left == 3 && !strcmp(argv[at], "get");

	if (!set && !get && !(left == 3 && !strcmp(argv[at], "delete")))
		return fail_syntax(c, "Invalid parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	if (!get)
		return host_medium_set_property(h, type, argv[at + 1], argv[at + 2], set ? argv[at + 3] : NULL, &e)
			       ? fail_api(c, &e, &site)
			       : 0;
	m = host_medium_load(h, type, argv[at + 1], &e);
	if (!m)
		return fail_api(c, &e, &site);
	r = get_property(c, m, argv[at + 2]);
	host_medium_free(m);
	return r;
}

/* ---- clonemedium ---- */

enum { O_FORMAT, O_VARIANT, O_EXISTING, O_STATIC, O_UUID, O_CLONE_PASSWORD };

static int
clone_medium(struct cli *c, struct host_medium_clone *k)
{
	static const struct site site = { "Medium",
		"CloneTo(pDstMedium, ComSafeArrayAsInParam(l_variants), NULL, "
		"pProgress.asOutParam())",
		1063, "VBoxManageDisk.cpp" };
	struct host *h = cli_host(c);
	struct host_progress p;
	char uuid[37], *format = NULL;
	struct err e = { 0 };
	int r;

	if (!h)
		return 1;
	p = stoppable_begin(c);
	k->progress = &p;
	r = host_medium_clone(h, k, uuid, &format, &e);
	if (stoppable_end(c, r ? &e : NULL))
		return 1;
	if (r) {
		fail_plain(c, "Failed to clone medium");
		return fail_api(c, &e, &site);
	}
	printf("Clone medium created in format '%s'. UUID: %s\n", format, uuid);
	free(format);
	return 0;
}

int
cmd_clonemedium(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "format", O_FORMAT, OPT_TEXT, 'o', 0 },
		{ "variant", O_VARIANT, OPT_TEXT, 'm', 0 },
		{ "existing", O_EXISTING, OPT_FLAG, 'E', 0 },
		{ "static", O_STATIC, OPT_FLAG, 0, 0 },
		{ "password", O_CLONE_PASSWORD, OPT_TEXT, 0, 0 },
	};
	struct host_medium_clone k = { .type = HOST_DISK };
	const char *password = NULL;
	char *secret = NULL;
	struct args a = ARGS(c, argc, argv, options);
	bool kind = false;
	int r;

	for (;;) {
		switch (args_next(&a)) {
		case O_FORMAT:
			k.format = a.text;
			break;
		case O_VARIANT:
			r = medium_variant(c, a.text, &k.fixed, &k.split, &k.stream);
			if (r)
				return r;
			break;
		case O_EXISTING:
			k.existing = true;
			break;
		case O_STATIC:
			k.fixed = true;
			break;
		case O_CLONE_PASSWORD:
			password = a.text;
			break;
		case ARG_WORD:
			if (!kind && !k.from && medium_kind_word(a.text, &k.type))
				kind = true;
			else if (!k.from)
				k.from = a.text;
			else if (!k.to)
				k.to = a.text;
			else
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			break;
		case ARG_END:
			if (!k.from || !k.to)
				return fail_syntax(c, k.from ? "Mandatory output UUID or filename parameter missing"
							     : "Mandatory UUID or input filename parameter missing");
			if (k.existing && (k.format || k.fixed || k.split || k.stream))
				return fail_syntax(c, "Specified options which cannot be used with --existing");
			if (password && !(secret = read_password(c, password, "Enter password: ")))
				return 1;
			k.password = secret;
			r = clone_medium(c, &k);
			free(secret);
			return r;
		default:
			return 2;
		}
	}
}

/* ---- convertfromraw ---- */

static int
convert(struct cli *c, struct host_convert *k)
{
	struct host_progress p = signals_hold();
	struct err e = { 0 };
	int r;

	fprintf(stderr, "Converting from raw image file=\"%s\" to file=\"%s\"...\n", k->from ? k->from : "stdin",
		k->to);
	fprintf(stderr, "Creating %s image with size %llu bytes (%lluMB)...\n", k->fixed ? "fixed" : "dynamic",
		(unsigned long long)k->size, (unsigned long long)((k->size + 0xfffff) >> 20));
	k->progress = &p;
	r = host_convert_raw(k, &e);
	if (stop_release() && r) {
		fputs("CANCELED\n", stderr);
		return 1;
	}
	return r ? fail_plain(c, "Cannot create the disk image \"%s\": %s", k->to, e.text) : 0;
}

/* The size of the source; 0 after saying why there is none. */
static uint64_t
source_size(struct cli *c, const char *from, const char *size)
{
	uint64_t bytes = 0;
	off_t end_at;
	FILE *f;

	if (!strcmp(from, "stdin")) {
		if (!size || !str_to_u64(size, 1, UINT64_MAX >> 1, &bytes))
			fail_argument(c,
				size ? "Invalid size parameter '%s'" : "The size of the disk on stdin is needed", size);
		return bytes;
	}
	f = fopen(from, "re");
	end_at = f && !fseeko(f, 0, SEEK_END) ? ftello(f) : 0;
	if (!f)
		fail_plain(c, "Cannot open file \"%s\": %s", from, strerror(errno));
	else if (end_at <= 0)
		fail_plain(c, "Cannot get image size for file \"%s\": it is empty, or not a file", from);
	if (f)
		fclose(f);
	return end_at > 0 ? (uint64_t)end_at : 0;
}

int
cmd_convertfromraw(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "format", O_FORMAT, OPT_TEXT, 'o', 0 },
		{ "variant", O_VARIANT, OPT_TEXT, 'm', 0 },
		{ "static", O_STATIC, OPT_FLAG, 's', 0 },
		{ "uuid", O_UUID, OPT_TEXT, 'u', 0 },
	};
	struct host_convert k = { .format = "VDI", .fd = 0 };
	struct args a = ARGS(c, argc, argv, options);
	const char *from = NULL, *size = NULL;
	int r;

	for (;;) {
		switch (args_next(&a)) {
		case O_FORMAT:
			k.format = a.text;
			break;
		case O_VARIANT:
			r = medium_variant(c, a.text, &k.fixed, &k.split, &k.stream);
			if (r)
				return r;
			break;
		case O_STATIC:
			k.fixed = true;
			break;
		case O_UUID:
			k.uuid = a.text;
			break;
		case ARG_WORD:
			if (!from)
				from = a.text;
			else if (!k.to)
				k.to = a.text;
			else if (!size && !strcmp(from, "stdin"))
				size = a.text;
			else
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			break;
		case ARG_END:
			if (!from || !k.to)
				return fail_syntax(c, "Incorrect number of parameters");
			k.size = source_size(c, from, size);
			k.from = strcmp(from, "stdin") ? from : NULL;
			return k.size ? convert(c, &k) : 1;
		default:
			return 2;
		}
	}
}

/* ---- encryptmedium, checkmediumpwd ---- */

enum { O_OLD, O_NEW, O_CIPHER, O_ID };

/* A line from the terminal, not shown, or from whatever stdin is; NULL: there is none. free() it. */
static char *
ask_password(const char *prompt)
{
	struct termios was, quiet;
	bool tty = isatty(0) && !tcgetattr(0, &was);
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (tty) {
		fprintf(stderr, "%s", prompt);
		quiet = was;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSAFLUSH, &quiet);
	}
	n = getline(&line, &cap, stdin);
	if (tty) {
		tcsetattr(0, TCSAFLUSH, &was);
		fputc('\n', stderr);
	}
	if (n < 0) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\r\n")] = 0;
	return line;
}

/* The first line of a file, or "-": asked for. NULL after saying why. free() it. */
char *
read_password(struct cli *c, const char *file, const char *prompt)
{
	struct err e = { 0 };
	size_t len;
	char *text = strcmp(file, "-") ? file_read(file, 4096, &len, &e) : ask_password(prompt);

	if (text)
		text[strcspn(text, "\r\n")] = 0;
	else
		fail_plain(c, "The password cannot be read: %s", e.text[0] ? e.text : "there is nothing on stdin");
	return text;
}

static int
encrypt(struct cli *c, struct host_medium_encrypt *k)
{
	static const struct site site = { "Medium",
		"ChangeEncryption(Bstr(strPasswordOld).raw(), Bstr(pszCipher).raw(), "
		"Bstr(strPasswordNew).raw(), Bstr(pszNewPasswordId).raw(), "
		"pProgress.asOutParam())",
		2155, "VBoxManageDisk.cpp" };
	struct host *h = cli_host(c);
	struct host_progress p;
	struct err e = { 0 };
	int r;

	if (!h)
		return 1;
	p = stoppable_begin(c);
	k->progress = &p;
	r = host_medium_encrypt(h, k, &e);
	if (stoppable_end(c, r ? &e : NULL) || !r)
		return r ? 1 : 0;
	fail_plain(c, "Failed to encrypt medium");
	return fail_api(c, &e, &site);
}

int
cmd_encryptmedium(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "new-password", O_NEW, OPT_TEXT, 'n', 0 },
		{ "old-password", O_OLD, OPT_TEXT, 'o', 0 },
		{ "cipher", O_CIPHER, OPT_TEXT, 'c', 0 },
		{ "new-password-id", O_ID, OPT_TEXT, 'i', 0 },
	};
	struct host_medium_encrypt k = { 0 };
	struct args a = ARGS(c, argc, argv, options);
	const char *old = NULL, *fresh = NULL;
	char *was = NULL, *is = NULL;
	int id, r = 1;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && k.id)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		*(id == O_OLD		 ? &old
			: id == O_NEW	 ? &fresh
			: id == O_CIPHER ? &k.cipher
			: id == O_ID	 ? &k.password_id
					 : &k.id) = a.text;
	}
	if (!k.id)
		return fail_syntax(c, "Medium name or UUID required");
	if (!old && !fresh)
		return fail_syntax(c, "No password specified");
	if (fresh && !old && !k.password_id)
		return fail_syntax(c, "A new password must always have a valid identifier set at the same time");
	if ((!old || (was = read_password(c, old, "Enter old password: "))) &&
		(!fresh || (is = read_password(c, fresh, "Enter new password: ")))) {
		k.password = was;
		k.fresh = is;
		r = encrypt(c, &k);
	}
	free(was);
	free(is);
	return r;
}

int
cmd_checkmediumpwd(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Medium", "CheckEncryptionPassword(Bstr(strPassword).raw())", 2215,
		"VBoxManageDisk.cpp" };
	struct err e = { 0 };
	struct host *h;
	char *password;
	int r;

	if (argc != 2)
		return fail_syntax(c, "Invalid number of arguments: %d", argc);
	password = read_password(c, argv[1], "Enter password: ");
	h = password ? cli_host(c) : NULL;
	r = h ? host_medium_check_password(h, argv[0], password, &e) : -1;
	free(password);
	if (!h)
		return 1;
	if (!r)
		printf("The given password is correct\n");
	return r ? fail_api(c, &e, &site) : 0;
}

/* ---- internalcommands ---- */

int
cmd_internalcommands(struct cli *c, int argc, char **argv)
{
	struct uuid u = uuid_random();
	struct err e = { 0 };
	char text[37];

	if (argc < 1 || strcmp(argv[0], "sethduuid"))
		return fail_syntax(c, argc ? "Invalid command '%s'" : "No command specified", argc ? argv[0] : "");
	if (argc < 2 || argc > 3)
		return fail_syntax(c, "Not enough parameters");
	if (argc == 3 && !uuid_parse(argv[2], &u))
		return fail_argument(c, "Invalid UUID parameter");
	uuid_text(&u, text);
	if (host_image_set_uuid(argv[1], text, &e))
		return fail_plain(c, "Cannot set a new UUID: %s", e.text);
	printf("UUID changed to: %s\n", text);
	return 0;
}
