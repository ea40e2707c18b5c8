/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a program in the guest as one of its users, by either agent.
 *
 * QEMU's agent runs programs as root, without asking, and hands over what they wrote when they have ended. So what it
 * is asked to run is a shell with the script below, which
 *
 *	reads the password from its standard input: it is in no argument and no environment
 *	finds the user, and has the guest itself check the password: PAM's unix_chkpwd, or what computes the hash of
 *	/etc/shadow; or finds that the line of /etc/shadow is the same for which it was right a short while ago, which
 *	the machine's process remembers (vm/logins.h): the check takes longer than all the rest
 *	makes two new files that only root can read, for standard output and error of the program
 *	becomes the user (setpriv or su) and the program, in a session of its own
 *
 * The process that the agent tells is thus the program. Meanwhile the files are read where they grow, which is as good
 * as a stream; what has been read is cut out of them now and then (fallocate), so that they do not fill the guest's
 * disk. What the script has to say comes as its own output, "LODGE:word". Standard input is put in a file before the
 * start. When the connection ends, the machine's process has the agent end the program and remove the files.
 *
 * Our agent does all of that itself (lodge-exec and lodge-poll, agent/main.c): streams are pipes, and it says when
 * there is something to read.
 */
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "host/guest.h"
#include "host/run.h"
#include "vm/protocol.h"

#define READ_PIECE 262144
#define INPUT_PIECE 393216    /* becomes 512 KiB of base64, in a message of at most 1 MiB */
#define CUT_EVERY (16u << 20) /* bytes read of a file before they are cut out of it */
#define POLL_MIN_MS 2
#define POLL_MAX_MS 40
#define OPEN_AFTER_MS 25

static const char account[] =
	"umask 077; IFS= read -r p; IFS= read -r K; e=; while IFS= read -r l; do e=\"$e$l\n\"; done\n"
	"n=; while IFS=: read -r n x i g c h s; do [ \"$n\" = \"$u\" ] && break; n=; done </etc/passwd\n"
	"if [ -z \"$n\" ] && command -v getent >/dev/null; then IFS=: read -r n x i g c h s <<E\n"
	"$(getent passwd \"$u\")\nE\nfi\n"
	"[ -n \"$n\" ] || { echo LODGE:LOGON; exit 1; }\n"
	"L() { while IFS= read -r l; do case $l in \"$u:\"*) return ;; esac; done </etc/shadow; l=; }\n"
	"L 2>/dev/null; B=$l\n"
	"if [ -z \"$K\" ] || [ \"$K\" != \"$B\" ]; then\n"
	"k=; for k in /usr/sbin/unix_chkpwd /sbin/unix_chkpwd /usr/bin/unix_chkpwd; do [ -x $k ] && break; k=; done\n"
	"if [ -n \"$k\" ]; then o=nonull; [ -n \"$p\" ] || o=nullok; printf '%s\\0' \"$p\" | $k \"$u\" $o >/dev/null "
	"2>&1; r=$?\n"
	"else\n"
	"w=; while IFS=: read -r n w x; do [ \"$n\" = \"$u\" ] && break; w=; done </etc/shadow; r=1\n"
	"case $w in\n"
	"'') [ \"$n\" = \"$u\" ] && [ -z \"$p\" ] && r=0 ;;\n"
	"[!$]*) ;;\n"
	"*) t=${w#\\$}; m=${t%%\\$*}; t=${t#*\\$}; t=${t%\\$*}; q=\n"
	"case $m in 6) y=sha512 ;; 5) y=sha256 ;; 1) y=md5 ;; *) y= ;; esac\n"
	"if command -v perl >/dev/null; then q=$(printf '%s\\n' \"$p\" | w=$w perl -e '$_=<STDIN>;chomp;print "
	"crypt($_,$ENV{w})')\n"
	"elif [ -n \"$y\" ] && command -v openssl >/dev/null; then q=$(printf '%s\\n' \"$p\" | openssl passwd -$m "
	"-salt \"$t\" -stdin)\n"
	"elif [ -n \"$y\" ] && command -v cryptpw >/dev/null; then q=$(printf '%s\\n' \"$p\" | cryptpw -P 0 -m $y -S "
	"\"$t\")\n"
	"elif command -v python3 >/dev/null; then q=$(printf '%s\\n' \"$p\" | w=$w python3 -c "
	"'import crypt,os;print(crypt.crypt(input(),os.environ[\"w\"]))')\n"
	"else echo LODGE:CHECK; exit 1; fi\n"
	"[ -n \"$q\" ] && [ \"$q\" = \"$w\" ] && r=0 ;;\n"
	"esac; fi\n"
	"p=; [ $r = 0 ] || { echo LODGE:LOGON; exit 1; }\n"
	"L 2>/dev/null; [ -n \"$B\" ] && [ \"$B\" = \"$l\" ] && printf 'LODGE:RIGHT %s\\n' \"$B\"\n"
	"fi; p= K= B= l=\n";

/* Finds the program and makes the files. */
static const char program[] =
	"cd \"$d\" 2>/dev/null || { [ -n \"$D\" ] && { echo LODGE:DIR; exit 1; }; cd /; }; unset OLDPWD\n"
	"case $f in */*) [ -e \"$f\" ] || { echo LODGE:FILE; exit 1; }\n"
	"[ -x \"$f\" ] && [ ! -d \"$f\" ] || { echo LODGE:EXEC; exit 1; } ;;\n"
	"*) command -v \"$f\" >/dev/null || { echo LODGE:FILE; exit 1; } ;; esac\n"
	"set -C; : >$b.o && : >$b.e || { echo LODGE:TEMP; exit 1; }; set +C\n"
	"export HOME=\"$h\" USER=\"$u\" LOGNAME=\"$u\" SHELL=\"${s:-/bin/sh}\"\n"
	"[ \"$i\" = 0 ] || export PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\n"
	"eval \"$e\"\n"
	"S=; command -v setsid >/dev/null && S=setsid\n"
	"exec >$b.o 2>$b.e <$I\n"
	"if [ \"$i\" = 0 ]; then exec $S \"$@\"\n"
	"elif [ -x /usr/bin/setpriv ] && [ ! -L /usr/bin/setpriv ]; then "
	"exec $S /usr/bin/setpriv --reuid \"$i\" --regid \"$g\" --init-groups -- \"$@\"\n"
	"else export b=; exec $S su -s /bin/sh \"$u\" -c \"exec $a\"; fi\n";

struct stream {
	int64_t handle; /* of the agent; 0: not open */
	uint64_t read, cut;
};

struct run {
	struct host_guest *g;
	struct host_guest_program *p;
	uint64_t start, limit; /* ms; limit 0: none */
	char base[64];	       /* of the files in the guest */
	char files[256];       /* for its shell */
	struct stream out[3];
	bool stopped;	     /* who takes the output wants no more */
	uint64_t open_after; /* ms from the start: most programs have ended by then, and their files are read once */
	char known[VM_LOGIN_LINE_MAX + 1]; /* the guest's line of /etc/shadow for which the password was right; "" */
};

/* ---- both agents ---- */

static int
logon_failed(struct err *e)
{
	return err_set(e, ERR_ACCESS, "The specified user was not able to logon on guest");
}

static const char *
no_such_file(const char *path)
{
	return strchr(path, '/') ? "The specified file was not found on guest"
				 : "The specified file was not found on guest: name it with its directory";
}

static int
put_out(struct run *r, int stream, json_t *b64)
{
	const char *text = json_string_value(b64);
	char *copy;
	size_t n;

	if (!text || !*text || r->stopped)
		return 0;
	copy = xstrdup(text);
	n = base64_bytes(copy);
	if (r->p->output && n && r->p->output(r->p->opaque, stream, copy, n))
		r->stopped = true;
	free(copy);
	return (int)n;
}

/* Is it to be ended, and why? */
static bool
over(struct run *r)
{
	uint64_t now = guest_now_ms();

	struct pollfd cancel = { .fd = r->p->cancel, .events = POLLIN };

	if (r->stopped || poll(&cancel, 1, 0) > 0) {
		r->p->end = HOST_GUEST_CANCELLED;
		return true;
	}
	if (r->limit && now - r->start >= r->limit) {
		r->p->end = HOST_GUEST_TIMEOUT;
		return true;
	}
	return false;
}

static bool
take_end(struct host_guest_program *p, const json_t *status)
{
	json_t *code = json_object_get(status, "exitcode"), *signal = json_object_get(status, "signal");

	if (!json_is_true(json_object_get(status, "exited")))
		return false;
	p->end = signal ? HOST_GUEST_SIGNALLED : HOST_GUEST_EXITED;
	p->status = (int)json_integer_value(signal ? signal : code);
	return true;
}

static void
note_process(struct run *r)
{
	struct str text = { 0 };
	struct err unused;
	json_t *command;

	for (char *const *a = r->p->argv; *a && text.len < 400; a++)
		str_addf(&text, "%s%.200s", a == r->p->argv ? "" : " ", *a);
	command = json_string(text.s ? text.s : r->p->path);
	if (command)
		json_decref(guest_session(r->g, "process",
			json_pack("{s:I, s:{s:I, s:o}}", "id", (json_int_t)r->g->session, "process", "pid",
				(json_int_t)r->p->pid, "command", command),
			&unused));
	str_free(&text);
}

static void
let_go(struct run *r)
{
	struct err unused;

	r->g->stays = true;
	json_decref(guest_session(r->g, "detach", json_pack("{s:I}", "id", (json_int_t)r->g->session), &unused));
}

/* ---- QEMU's agent ---- */

static bool
good_name(const char *name, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '_')
			return false;
	return n && !isdigit((unsigned char)name[0]);
}

/* What goes to the script's standard input: the password, then the environment as a shell reads it. */
static int
secret_input(const struct run *r, struct str *out, struct err *e)
{
	str_addf(out, "%s\n%s\n", r->g->password, r->known);
	for (char *const *v = r->p->env; v && *v; v++) {
		size_t n = strcspn(*v, "=");

		if (!good_name(*v, n))
			return err_set(e, ERR_INVALID, "'%s' is not NAME=VALUE", *v);
		if (!(*v)[n]) {
			str_addf(out, "unset %s\n", *v);
			continue;
		}
		str_addf(out, "export %.*s=", (int)n, *v);
		sh_quote(out, *v + n + 1);
		str_add(out, "\n");
	}
	return 0;
}

static void
assign(struct str *s, const char *name, const char *value)
{
	str_addf(s, "%s=", name);
	sh_quote(s, value);
	str_add(s, "\n");
}

static char *
launcher(const struct run *r)
{
	const struct host_guest_program *p = r->p;
	bool renamed = strcmp(p->argv[0], p->path) != 0;
	struct str s = { 0 }, args = { 0 };

	sh_quote(&args, p->path);
	for (char *const *a = p->argv + 1; *a; a++) {
		str_add(&args, " ");
		sh_quote(&args, *a);
	}
	assign(&s, "u", r->g->user);
	str_addf(&s, "b=%s; I=%s%s\n", r->base, p->in >= 0 ? r->base : "/dev/null", p->in >= 0 ? ".i" : "");
	str_add(&s, account);
	assign(&s, "f", p->path);
	assign(&s, "D", p->cwd ? p->cwd : "");
	str_add(&s, "d=${D:-$h}\n");
	if (renamed) { /* only bash can give it another name */
		str_addf(&s, "[ -x /bin/bash ] || { echo LODGE:NAME; exit 1; }\n"
			     "set -- /bin/bash -c 'n=$1; shift; exec -a \"$n\" \"$@\"' bash ");
		sh_quote(&s, p->argv[0]);
		str_addf(&s, " %s\na='/bin/bash -c '\\''n=$1; shift; exec -a \"$n\" \"$@\"'\\'' bash '", args.s);
		str_add(&s, "\n");
	} else {
		str_addf(&s, "set -- %s\n", args.s);
	}
	if (!renamed)
		assign(&s, "a", args.s);
	str_add(&s, program);
	str_free(&args);
	return s.s;
}

/* Ask for a program and wait for its end; its output. For a moment's work as root. */
static char *
quick(struct run *r, const char *script, struct err *e)
{
	json_t *o = guest_ask(r->g, "guest-exec",
		json_pack("{s:s, s:[s,s], s:[s], s:b}", "path", "/bin/sh", "arg", "-c", script, "env", GUEST_PATH,
			"capture-output", 1),
		GUEST_ASK_MS, e);
	int64_t pid = json_integer_value(json_object_get(o, "pid"));
	uint64_t end = guest_now_ms() + GUEST_ASK_MS;
	const char *text;
	char *out = NULL;

	while (o && !json_is_true(json_object_get(o, "exited"))) {
		if (json_object_get(o, "exited"))
			poll(NULL, 0, POLL_MIN_MS);
		json_decref(o);
		if (guest_now_ms() > end) {
			err_set(e, ERR_TIMEOUT, "The guest did not respond within time");
			return NULL;
		}
		o = guest_ask(r->g, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)pid), GUEST_ASK_MS, e);
	}
	if (!o)
		return NULL;
	text = json_string_value(json_object_get(o, "out-data"));
	out = xstrdup(text ? text : "");
	out[base64_bytes(out)] = 0;
	json_decref(o);
	return out;
}

static int
write_piece(struct run *r, int64_t handle, const void *bytes, size_t n, struct err *e)
{
	char *b64 = base64_text(bytes, n);
	json_t *o = guest_ask(r->g, "guest-file-write",
		json_pack("{s:I, s:s}", "handle", (json_int_t)handle, "buf-b64", b64), GUEST_ASK_MS, e);
	json_int_t done = json_integer_value(json_object_get(o, "count"));

	free(b64);
	json_decref(o);
	if (!o)
		return err_wrap(e, "Writing a temporary file in the guest");
	return done == (json_int_t)n ? 0 : err_set(e, ERR_GUEST, "The guest has no room for a temporary file");
}

/* Standard input, to its end, into a file. */
static int
spool_input(struct run *r, struct err *e)
{
	char *script = xasprintf("umask 077; set -C; : >%s.i && echo ok", r->base);
	char *made = quick(r, script, e), *buf;
	char *path = xasprintf("%s.i", r->base);
	json_t *o = NULL;
	ssize_t n;
	int result = -1;

	if (made && strcmp(made, "ok\n"))
		err_set(e, ERR_GUEST, "The guest has no room for a temporary file");
	else if (made)
		o = guest_ask(
			r->g, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", "r+"), GUEST_ASK_MS, e);
	free(script);
	free(made);
	free(path);
	if (!o)
		return -1;
	buf = xcalloc(1, INPUT_PIECE);
	result = 0;
	while (!result && (n = read_full(r->p->in, buf, INPUT_PIECE)) > 0)
		result = over(r) ? err_set(e, ERR_TIMEOUT, "It took too long to send the standard input")
				 : write_piece(r, json_integer_value(o), buf, (size_t)n, e);
	free(buf);
	json_decref(
		guest_ask(r->g, "guest-file-close", json_pack("{s:O}", "handle", o), GUEST_ASK_MS, result ? NULL : e));
	json_decref(o);
	return result;
}

/* ---- a password that was right lately ---- */

static void
recall_login(struct run *r)
{
	struct err unused;
	json_t *o = vm_line_call(r->g->fd, r->g->vm, "agent.login",
		json_pack("{s:s, s:s}", "user", r->g->user, "password", r->g->password), 0, &unused);
	const char *line = json_string_value(json_object_get(o, "line"));

	snprintf(r->known, sizeof(r->known), "%s", line ? line : "");
	json_decref(o);
}

/* The guest says so, with its line; it is believed about its own users. */
static void
note_login(struct run *r, const char *line)
{
	struct err unused;
	json_t *o = json_pack("{s:s, s:s, s:s}", "user", r->g->user, "password", r->g->password, "line", line);

	if (o && strlen(line) <= VM_LOGIN_LINE_MAX)
		json_decref(vm_line_call(r->g->fd, r->g->vm, "agent.login", json_incref(o), 0, &unused));
	json_decref(o);
}

/* What is to happen when we are gone, whatever the reason. */
static int
leave_word(struct run *r, struct err *e)
{
	bool keep = r->p->orphan || r->p->detach;

	guest_leave_clear(r->g);
	guest_leave(r->g, "guest-exec", guest_kill_request(keep ? 0 : r->p->pid, r->files));
	for (int i = 1; i < 3; i++)
		if (r->out[i].handle)
			guest_leave(
				r->g, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)r->out[i].handle));
	return guest_leave_tell(r->g, e);
}

static int
launch(struct run *r, struct err *e)
{
	struct str secret = { 0 };
	char *script, *b64;
	json_t *o = NULL;
	uint64_t sent;

	recall_login(r);
	if (leave_word(r, e) || (r->p->in >= 0 && spool_input(r, e)) || secret_input(r, &secret, e)) {
		str_free(&secret);
		return -1;
	}
	script = launcher(r);
	b64 = base64_text(secret.s, secret.len);
	sent = guest_now_ms();
	o = guest_ask(r->g, "guest-exec",
		json_pack("{s:s, s:[s,s,s], s:[s], s:s, s:b}", "path", "/bin/sh", "arg", "-c", script, "sh", "env",
			GUEST_PATH, "input-data", b64, "capture-output", 1),
		GUEST_ASK_MS, e);
	explicit_bzero(b64, strlen(b64));
	explicit_bzero(secret.s, secret.len);
	free(b64);
	free(script);
	str_free(&secret);
	if (!o && !strcmp(r->g->agent_error, "CommandNotFound"))
		return err_set(e, ERR_IPRT,
			"The guest agent does not allow to run programs: see its option for blocked "
			"commands in the guest (%s)",
			"guest-exec");
	if (!o)
		return -1;
	r->p->pid = json_integer_value(json_object_get(o, "pid"));
	json_decref(o);
	/* A start took it so long; the script and the program are several. */
	r->open_after = guest_now_ms() - r->start + MAX(10 * (guest_now_ms() - sent), (uint64_t)OPEN_AFTER_MS);
	note_process(r);
	return leave_word(r, e);
}

/* What the script said when it did not become the program. */
static int
launcher_said(struct run *r, const json_t *status, struct err *e)
{
	const char *b64 = json_string_value(json_object_get(status, "out-data")), *word;
	char *text = xstrdup(b64 ? b64 : ""), *said;
	int result = 0;

	said = text;
	said[base64_bytes(said)] = 0;
	if (str_starts(said, "LODGE:RIGHT ")) {
		char *end = said + strcspn(said, "\n");

		said = *end ? end + 1 : end;
		*end = 0;
		note_login(r, text + strlen("LODGE:RIGHT "));
	}
	word = str_starts(said, "LODGE:") ? said + 6 : "";
	if (str_starts(word, "LOGON"))
		result = logon_failed(e);
	else if (str_starts(word, "FILE"))
		result = err_set(e, ERR_NOT_FOUND, "%s", no_such_file(r->p->path));
	else if (str_starts(word, "EXEC"))
		result = err_set(e, ERR_GUEST, "The specified file is not an executable format on guest");
	else if (str_starts(word, "DIR"))
		result = err_set(e, ERR_GUEST, "The working directory '%s' cannot be entered in the guest", r->p->cwd);
	else if (str_starts(word, "TEMP"))
		result = err_set(e, ERR_GUEST, "The guest has no room for a temporary file in /tmp");
	else if (str_starts(word, "NAME"))
		result = err_set(
			e, ERR_GUEST, "The guest has no bash, which is needed to start a program under another name");
	else if (str_starts(word, "CHECK"))
		result = err_set(e, ERR_GUEST,
			"The guest has nothing that can check a password (unix_chkpwd, perl, openssl, cryptpw, "
			"python3)");
	free(text);
	return result;
}

static bool
open_streams(struct run *r)
{
	static const char letters[] = "-oe";
	struct err unused;
	bool all = true;

	for (int i = 1; i < 3; i++) {
		char *path = xasprintf("%s.%c", r->base, letters[i]);
		json_t *o = r->out[i].handle ? NULL
					     : guest_ask(r->g, "guest-file-open",
						       json_pack("{s:s, s:s}", "path", path, "mode", "r"), GUEST_ASK_MS,
						       &unused);

		if (o)
			r->out[i].handle = json_integer_value(o);
		json_decref(o);
		free(path);
		all &= r->out[i].handle != 0;
	}
	return all;
}

/* Its blocks are given back to the guest; reading goes on behind. */
static void
cut_file(struct run *r, int i)
{
	struct stream *s = &r->out[i];
	char *script = xasprintf("fallocate -p -o 0 -l %llu %s.%c", (unsigned long long)s->read, r->base, "-oe"[i]);
	struct err unused;

	json_decref(guest_ask(r->g, "guest-exec",
		json_pack("{s:s, s:[s,s], s:[s]}", "path", "/bin/sh", "arg", "-c", script, "env", GUEST_PATH),
		GUEST_ASK_MS, &unused));
	s->cut = s->read;
	free(script);
}

/* What a stream has now; *any: there was something. */
static int
read_stream(struct run *r, int i, bool *any, struct err *e)
{
	struct stream *s = &r->out[i];
	json_t *o = guest_ask(r->g, "guest-file-read",
		json_pack("{s:I, s:i}", "handle", (json_int_t)s->handle, "count", READ_PIECE), GUEST_ASK_MS, e);
	int n;

	if (!o)
		return -1;
	n = put_out(r, i, json_object_get(o, "buf-b64"));
	json_decref(o);
	*any |= n > 0;
	s->read += (uint64_t)n;
	if (s->read - s->cut >= CUT_EVERY)
		cut_file(r, i);
	return 0;
}

/* All there is in both. */
static int
drain(struct run *r, struct err *e)
{
	bool any = true;

	while (any && !over(r)) {
		any = false;
		if (read_stream(r, 1, &any, e) || read_stream(r, 2, &any, e))
			return -1;
	}
	return 0;
}

static int
watch(struct run *r, struct err *e)
{
	uint64_t pause = POLL_MIN_MS;
	bool opened = false, any;

	for (;;) {
		json_t *o = guest_ask(
			r->g, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)r->p->pid), GUEST_ASK_MS, e);
		bool ended = o && take_end(r->p, o);
		int bad = !o || (ended && launcher_said(r, o, e));

		json_decref(o);
		if (bad)
			return -1;
		if (!opened && (ended || guest_now_ms() - r->start >= r->open_after)) {
			opened = open_streams(r);
			if (!opened && ended)
				return err_set(e, ERR_GUEST, "The output of the program cannot be read in the guest");
			if (opened && leave_word(r, e))
				return -1;
		}
		any = false;
		if (opened && (ended ? drain(r, e) : read_stream(r, 1, &any, e) || read_stream(r, 2, &any, e)))
			return -1;
		if (ended && !r->stopped)
			return 0;
		if (over(r))
			return 0;
		pause = any ? POLL_MIN_MS : MIN(pause + pause / 2, (uint64_t)POLL_MAX_MS);
		poll(NULL, 0, (int)pause);
	}
}

static int
run_with_qemus(struct run *r, struct err *e)
{
	struct uuid u = uuid_random();
	char text[37];
	json_t *o;

	uuid_text(&u, text);
	snprintf(r->base, sizeof(r->base), "/tmp/.lodge-%s", text);
	snprintf(r->files, sizeof(r->files), "%s.o %s.e %s.i", r->base, r->base, r->base);
	if (launch(r, e))
		return -1;
	if (!r->p->detach) {
		if (watch(r, e))
			return -1;
		if (r->p->end == HOST_GUEST_EXITED || r->p->end == HOST_GUEST_SIGNALLED) {
			r->p->orphan = true; /* nothing is left to end */
			leave_word(r, e);
		}
		return 0;
	}
	/* It runs when it has got past the password, or has ended already. */
	r->p->end = HOST_GUEST_STARTED;
	while (!open_streams(r)) {
		o = guest_ask(
			r->g, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)r->p->pid), GUEST_ASK_MS, e);
		if (!o || (take_end(r->p, o) && launcher_said(r, o, e))) {
			json_decref(o);
			return -1;
		}
		json_decref(o);
		if (over(r))
			return err_set(e, ERR_TIMEOUT, "The guest did not respond within time");
		poll(NULL, 0, POLL_MIN_MS);
	}
	let_go(r);
	r->p->end = HOST_GUEST_STARTED;
	return leave_word(r, e);
}

/* ---- ours ---- */

static json_t *
our_arguments(const struct run *r)
{
	json_t *argv = json_array(), *env = json_array();
	json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:o, s:b, s:b}", "user", r->g->user, "password", r->g->password,
		"path", r->p->path, "arg", argv, "env", env, "input", r->p->in >= 0, "quiet", r->p->detach);

	for (char *const *a = r->p->argv; *a; a++)
		json_array_append_new(argv, json_string(*a));
	for (char *const *v = r->p->env; v && *v; v++)
		json_array_append_new(env, json_string(*v));
	if (r->p->cwd)
		json_object_set_new(o, "cwd", json_string(r->p->cwd));
	return o;
}

static int
our_error(struct run *r, struct err *e)
{
	if (!strcmp(r->g->agent_error, "LodgeLogon"))
		return logon_failed(e);
	if (!strcmp(r->g->agent_error, "LodgeFile"))
		return err_set(e, ERR_NOT_FOUND, "%s", no_such_file(r->p->path));
	if (!strcmp(r->g->agent_error, "LodgeExec"))
		return err_set(e, ERR_GUEST, "The specified file is not an executable format on guest");
	return -1;
}

struct feed {
	char buf[65536];
	size_t len;
	bool eof, told;
};

/* Pass input on as far as there is some. */
static int
our_input(struct run *r, struct feed *f, struct err *e)
{
	struct pollfd ready = { .fd = r->p->in, .events = POLLIN };
	json_t *o;
	char *b64;
	size_t taken;

	if (r->p->in < 0 || f->told)
		return 0;
	if (!f->len && !f->eof && poll(&ready, 1, 0) > 0) {
		ssize_t n = read(r->p->in, f->buf, sizeof(f->buf));

		if (n > 0)
			f->len = (size_t)n;
		else if (!n || errno != EINTR)
			f->eof = true;
	}
	if (!f->len && !f->eof)
		return 0;
	b64 = base64_text(f->buf, f->len);
	o = guest_ask(r->g, "lodge-input",
		json_pack("{s:I, s:s, s:b}", "pid", (json_int_t)r->p->pid, "buf-b64", b64, "eof", f->eof), GUEST_ASK_MS,
		e);
	free(b64);
	if (!o)
		return -1;
	taken = MIN((size_t)json_integer_value(json_object_get(o, "count")), f->len);
	json_decref(o);
	memmove(f->buf, f->buf + taken, f->len - taken);
	f->len -= taken;
	f->told = f->eof && !f->len;
	return 0;
}

/* While input may come, it is looked for often. */
static uint64_t
our_pause(struct run *r, const struct feed *f)
{
	uint64_t ms = r->p->in >= 0 && !f->told ? 5 : 100, now = guest_now_ms();

	if (r->limit)
		ms = MIN(ms, r->limit > now - r->start ? r->limit - (now - r->start) : 1);
	return ms;
}

static int
our_watch(struct run *r, struct err *e)
{
	struct feed *f = xcalloc(1, sizeof(*f));
	int result = 0;

	while (!result) {
		json_t *o = guest_ask(r->g, "lodge-poll",
			json_pack("{s:I, s:i}", "pid", (json_int_t)r->p->pid, "count", READ_PIECE), GUEST_ASK_MS, e);
		int n = o ? put_out(r, 1, json_object_get(o, "out-data")) +
					put_out(r, 2, json_object_get(o, "err-data"))
			  : 0;
		bool ended = o && !n && take_end(r->p, o);

		json_decref(o);
		if (!o)
			result = -1;
		else if (ended || over(r))
			break;
		else if (our_input(r, f, e) || (!n && guest_wait(r->g, our_pause(r, f), e)))
			result = -1;
	}
	free(f);
	return result;
}

static int
run_with_ours(struct run *r, struct err *e)
{
	json_t *o = guest_ask(r->g, "lodge-exec", our_arguments(r), GUEST_ASK_MS, e);

	if (!o)
		return our_error(r, e);
	r->p->pid = json_integer_value(json_object_get(o, "pid"));
	json_decref(o);
	note_process(r);
	guest_leave_clear(r->g);
	guest_leave(r->g, "lodge-close",
		json_pack("{s:I, s:b}", "pid", (json_int_t)r->p->pid, "keep", r->p->orphan || r->p->detach));
	if (guest_leave_tell(r->g, e))
		return -1;
	if (!r->p->detach)
		return our_watch(r, e);
	let_go(r);
	r->p->end = HOST_GUEST_STARTED;
	return 0;
}

int
host_guest_run(struct host_guest *g, struct host_guest_program *p, struct err *e)
{
	struct run r = { .g = g, .p = p, .start = guest_now_ms(), .limit = p->timeout_ms };

	guest_leave_now(g);
	return g->ours ? run_with_ours(&r, e) : run_with_qemus(&r, e);
}

/* ---- scripts ---- */

struct texts {
	struct str out, err;
};

static int
collect(void *opaque, int stream, const void *bytes, size_t n)
{
	struct texts *t = opaque;
	struct str *s = stream == 1 ? &t->out : &t->err;

	if (s->len + n > 16u << 20)
		return -1;
	str_addn(s, bytes, n);
	return 0;
}

char *
host_guest_script(struct host_guest *g, const char *script, char *const *args, int in, struct err *e)
{
	char **argv;
	size_t count = 0;
	struct texts t = { 0 };
	struct host_guest_program p = { .path = "/bin/sh", .in = in, .output = collect, .opaque = &t, .cancel = -1 };
	int r;

	while (args && args[count])
		count++;
	argv = xcalloc(count + 5, sizeof(*argv));
	argv[0] = (char *)"/bin/sh";
	argv[1] = (char *)"-c";
	argv[2] = (char *)script;
	argv[3] = (char *)"sh";
	for (size_t i = 0; i < count; i++)
		argv[4 + i] = args[i];
	p.argv = argv;
	r = host_guest_run(g, &p, e);
	free(argv);
	if (!r && (p.end != HOST_GUEST_EXITED || p.status)) {
		size_t n = t.err.len;

		while (n && t.err.s[n - 1] == '\n')
			n--;
		r = err_set(e, ERR_GUEST, "%.*s", (int)MIN(n, (size_t)900), n ? t.err.s : "It failed in the guest");
	}
	str_free(&t.err);
	if (!r && !t.out.s)
		str_add(&t.out, "");
	if (r)
		str_free(&t.out);
	return r ? NULL : t.out.s;
}
