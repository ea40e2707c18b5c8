/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestcontrol: its line, in every spelling there was, and running programs.
 *
 *	guestcontrol VM [options] run|start|... [options] [--] words     since 5.0
 *	guestcontrol VM exec[ute] --image PATH ... [-- arguments]        4.x
 *	guestcontrol exec[ute] VM PATH|-- PATH arguments ...             before
 *	guestcontrol VM --execute "COMMAND LINE" ...                     as courses teach it: for the guest's shell
 *
 * With run and start, options end at the first word, which is the program unless --exe named it; what is behind belongs
 * to the program.
 */
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "front/vboxmanage/gctl.h"

static const struct site session_site = { "GuestSession",
	"WaitForArray(ComSafeArrayAsInParam(aSessionWaitFlags), 30 * 1000, &enmWaitResult)", 1110,
	"VBoxManageGuestCtrl.cpp" };
static const struct site process_site = { "GuestProcess",
	"WaitForArray(ComSafeArrayAsInParam(aWaitStartFlags), gctlRunGetRemainingTime(msStart, cMsTimeout), "
	"&waitResult)",
	1520, "VBoxManageGuestCtrl.cpp" };

/* Exit statuses of run, and what those of the program are added to. */
enum { EXIT_NOT_ZERO = 16, EXIT_SIGNAL = 18, EXIT_TIMEOUT = 20, EXIT_CANCELLED = 22, EXIT_BASE = 32, EXIT_LAST = 126 };

/* ---- the line ---- */

struct verb_row {
	const char *names; /* first the usual one */
	int (*run)(struct gctl *g);
	bool program;
};

static int
copy_to(struct gctl *g)
{
	return gctl_copy(g, true);
}

static int
copy_from(struct gctl *g)
{
	return gctl_copy(g, false);
}

static const struct verb_row rows[] = {
	{ "run", gctl_run, true },
	{ "start", gctl_run, true },
	{ "exec execute", gctl_run, true },
	{ "copyfrom", copy_from, false },
	{ "copyto cp", copy_to, false },
	{ "mkdir md createdir createdirectory", gctl_mkdir, false },
	{ "rmdir removedir removedirectory", gctl_rmdir, false },
	{ "rm removefile erase del delete", gctl_rm, false },
	{ "mv move ren rename", gctl_mv, false },
	{ "mktemp createtemp createtemporary", gctl_mktemp, false },
	{ "stat", gctl_stat, false },
	{ "fsinfo df mount", gctl_df, false },
	{ "list", gctl_list, false },
	{ "closeprocess", gctl_closeprocess, false },
	{ "closesession", gctl_closesession, false },
	{ "updatega updateadditions updateguestadditions", gctl_updateadditions, false },
	{ "watch", gctl_watch, false },
	{ "waitrunlevel waitforrunlevel", gctl_waitrunlevel, false },
};

static const struct verb_row *
find_row(const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (const char *p = rows[i].names; *p; p += strspn(p, " ")) {
			size_t k = strcspn(p, " ");

			if (k == n && !strncmp(p, word, n))
				return &rows[i];
			p += k;
		}
	return NULL;
}

enum {
	GO_USER = 1,
	GO_PASSWORD,
	GO_PASSWORD_FILE,
	GO_DOMAIN,
	GO_EXE,
	GO_EXECUTE,
	GO_ARG0,
	GO_ARGUMENTS,
	GO_ENVIRONMENT,
	GO_PUTENV,
	GO_CWD,
	GO_FLAGS,
	GO_TIMEOUT,
	GO_WAIT_FOR,
	GO_SESSION_ID,
	GO_SESSION_NAME,
	GO_TARGET,
	GO_SOURCE,
	GO_MODE,
	GO_TMPDIR,
	GO_WAIT_OUT,
	GO_NO_WAIT_OUT,
	GO_WAIT_ERR,
	GO_NO_WAIT_ERR,
	GO_WAIT_EXIT,
	GO_WAIT_START,
	GO_DOS2UNIX,
	GO_UNIX2DOS,
	GO_UNQUOTED,
	GO_ORPHANS,
	GO_PROFILE,
	GO_VERBOSE,
	GO_QUIET,
	GO_PARENTS,
	GO_RECURSIVE,
	GO_FOLLOW,
	GO_NO_REPLACE,
	GO_UPDATE,
	GO_DIRECTORY,
	GO_SECURE,
	GO_FORCE,
	GO_ALL,
	GO_STDIN,
	GO_DRY_RUN,
};

static const struct opt options[] = {
	{ "username", GO_USER, OPT_TEXT, 'u', 0 },
	{ "user", GO_USER, OPT_TEXT, 0, 0 },
	{ "passwordfile", GO_PASSWORD_FILE, OPT_TEXT, 'p', 0 },
	{ "password", GO_PASSWORD, OPT_TEXT, 0, 0 },
	{ "domain", GO_DOMAIN, OPT_TEXT, 'd', 0 },
	{ "exe", GO_EXE, OPT_TEXT, 'e', 0 },
	{ "image", GO_EXE, OPT_TEXT, 'i', 0 },
	{ "execute", GO_EXECUTE, OPT_TEXT, 0, 0 },
	{ "arg0", GO_ARG0, OPT_TEXT, 0, 0 },
	{ "arguments", GO_ARGUMENTS, OPT_TEXT, 0, 0 },
	{ "environment", GO_ENVIRONMENT, OPT_TEXT, 0, 0 },
	{ "putenv", GO_PUTENV, OPT_TEXT, 'E', 0 },
	{ "cwd", GO_CWD, OPT_TEXT, 'C', 0 },
	{ "flags", GO_FLAGS, OPT_TEXT, 0, 0 },
	{ "timeout", GO_TIMEOUT, OPT_NUMBER, 't', 0 },
	{ "wait-for", GO_WAIT_FOR, OPT_TEXT, 0, 0 },
	{ "session-id", GO_SESSION_ID, OPT_NUMBER, 0, 0 },
	{ "session-name", GO_SESSION_NAME, OPT_TEXT, 0, 0 },
	{ "target-directory", GO_TARGET, OPT_TEXT, 0, 0 },
	{ "source", GO_SOURCE, OPT_TEXT, 0, 0 },
	{ "mode", GO_MODE, OPT_TEXT, 'm', 0 },
	{ "tmpdir", GO_TMPDIR, OPT_TEXT, 0, 0 },
	{ "wait-stdout", GO_WAIT_OUT, OPT_FLAG, 0, 0 },
	{ "no-wait-stdout", GO_NO_WAIT_OUT, OPT_FLAG, 0, 0 },
	{ "wait-stderr", GO_WAIT_ERR, OPT_FLAG, 0, 0 },
	{ "no-wait-stderr", GO_NO_WAIT_ERR, OPT_FLAG, 0, 0 },
	{ "wait-exit", GO_WAIT_EXIT, OPT_FLAG, 0, 0 },
	{ "wait-start", GO_WAIT_START, OPT_FLAG, 0, 0 },
	{ "dos2unix", GO_DOS2UNIX, OPT_FLAG, 0, 0 },
	{ "unix2dos", GO_UNIX2DOS, OPT_FLAG, 0, 0 },
	{ "unquoted-args", GO_UNQUOTED, OPT_FLAG, 0, 0 },
	{ "ignore-orphaned-processes", GO_ORPHANS, OPT_FLAG, 0, 0 },
	{ "ignore-orphaned-process", GO_ORPHANS, OPT_FLAG, 0, 0 },
	{ "profile", GO_PROFILE, OPT_FLAG, 0, 0 },
	{ "verbose", GO_VERBOSE, OPT_FLAG, 'v', 0 },
	{ "quiet", GO_QUIET, OPT_FLAG, 'q', 0 },
	{ "parents", GO_PARENTS, OPT_FLAG, 'P', 0 },
	{ "recursive", GO_RECURSIVE, OPT_FLAG, 'R', 0 },
	{ NULL, GO_RECURSIVE, OPT_FLAG, 'r', 0 },
	{ "follow", GO_FOLLOW, OPT_FLAG, 'L', 0 },
	{ "dereference", GO_FOLLOW, OPT_FLAG, 0, 0 },
	{ "no-replace", GO_NO_REPLACE, OPT_FLAG, 'n', 0 },
	{ "update", GO_UPDATE, OPT_FLAG, 0, 0 },
	{ "directory", GO_DIRECTORY, OPT_FLAG, 0, 0 },
	{ "secure", GO_SECURE, OPT_FLAG, 's', 0 },
	{ "force", GO_FORCE, OPT_FLAG, 'f', 0 },
	{ "all", GO_ALL, OPT_FLAG, 0, 0 },
	{ "stdin", GO_STDIN, OPT_FLAG, 0, 0 },
	{ "dryrun", GO_DRY_RUN, OPT_FLAG, 0, 0 },
};

static void
add_env(struct gctl *g, const char *text)
{
	g->env = realloc(g->env, (size_t)(g->env_count + 2) * sizeof(*g->env));
	if (!g->env)
		abort();
	g->env[g->env_count++] = xstrdup(text);
	g->env[g->env_count] = NULL;
}

/* "A=B 'C=D E'" in words, as a shell takes quotes. */
static void
split(const char *text, void (*add)(struct gctl *g, const char *word), struct gctl *g)
{
	while (*(text += strspn(text, " \t\n"))) {
		struct str word = { 0 };
		char quote = 0;

		str_add(&word, "");
		for (; *text && (quote || !strchr(" \t\n", *text)); text++) {
			if (quote ? *text == quote : *text == '"' || *text == '\'')
				quote = quote ? 0 : *text;
			else if (*text == '\\' && quote != '\'' && text[1])
				str_addn(&word, ++text, 1);
			else
				str_addn(&word, text, 1);
		}
		add(g, word.s);
		str_free(&word);
	}
}

/* Nobody who lists the host's processes is to see it. */
static const char *
hide(struct gctl *g, const char *text)
{
	g->typed_password = xstrdup(text);
	memset((char *)(uintptr_t)text, 'x', strlen(text));
	return g->typed_password;
}

static int
take_wait_for(struct gctl *g, const char *text)
{
	g->wait_exit |= strstr(text, "exit") != NULL;
	g->wait_out |= strstr(text, "stdout") != NULL;
	g->wait_err |= strstr(text, "stderr") != NULL;
	return strspn(text, "exitsdour,") == strlen(text) ? 0 : fail_syntax(g->c, "Invalid parameter '%s'", text);
}

static int
take_option(struct gctl *g, struct args *a, int id)
{
	struct {
		int id;
		const char **to;
	} texts[] = {
		{ GO_USER, &g->user },
		{ GO_PASSWORD_FILE, &g->password_file },
		{ GO_DOMAIN, &g->domain },
		{ GO_EXE, &g->program },
		{ GO_EXECUTE, &g->command },
		{ GO_ARG0, &g->arg0 },
		{ GO_ARGUMENTS, &g->arguments },
		{ GO_CWD, &g->cwd },
		{ GO_SESSION_NAME, &g->session_name },
		{ GO_TARGET, &g->target },
		{ GO_SOURCE, &g->source },
		{ GO_MODE, &g->mode },
		{ GO_TMPDIR, &g->tmpdir },
	};
	struct {
		int id;
		bool *to;
	} flags[] = {
		{ GO_WAIT_OUT, &g->wait_out },
		{ GO_NO_WAIT_OUT, &g->no_out },
		{ GO_WAIT_ERR, &g->wait_err },
		{ GO_NO_WAIT_ERR, &g->no_err },
		{ GO_WAIT_EXIT, &g->wait_exit },
		{ GO_WAIT_START, &g->wait_start },
		{ GO_DOS2UNIX, &g->dos2unix },
		{ GO_UNIX2DOS, &g->unix2dos },
		{ GO_ORPHANS, &g->orphans },
		{ GO_VERBOSE, &g->verbose },
		{ GO_QUIET, &g->quiet },
		{ GO_PARENTS, &g->parents },
		{ GO_RECURSIVE, &g->recursive },
		{ GO_FOLLOW, &g->follow },
		{ GO_NO_REPLACE, &g->no_replace },
		{ GO_UPDATE, &g->update },
		{ GO_DIRECTORY, &g->directory },
		{ GO_SECURE, &g->secure },
		{ GO_FORCE, &g->force },
		{ GO_ALL, &g->all },
		{ GO_STDIN, &g->input },
		{ GO_EXE, &g->exe },
		{ GO_DRY_RUN, &g->dry_run },
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].id == id)
			*texts[i].to = a->text;
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		if (flags[i].id == id)
			*flags[i].to = true;
	switch (id) {
	case GO_PASSWORD:
		g->password = hide(g, a->text);
		return 0;
	case GO_ENVIRONMENT:
		split(a->text, add_env, g);
		return 0;
	case GO_PUTENV:
		add_env(g, a->text);
		return 0;
	case GO_TIMEOUT:
		g->timeout_ms = a->number;
		g->has_timeout = true;
		return 0;
	case GO_SESSION_ID:
		g->session = a->number;
		g->has_session = true;
		return 0;
	case GO_WAIT_FOR:
		return take_wait_for(g, a->text);
	case GO_FLAGS:
		return *a->text ? fail_argument(g->c, "--flags '%s': flags of versions before 4.0 are not known here",
					  a->text)
				: 0;
	case GO_PROFILE:
		return fail_argument(g->c, "--profile loads a user's profile on Windows: no guest here has one");
	default: /* --unquoted-args: of Windows' command lines; elsewhere arguments are a list */
		return 0;
	}
}

static int
parse(struct gctl *g, int argc, char **argv)
{
	struct args a = ARGS(g->c, argc, argv, options);
	const struct verb_row *row = NULL;
	int id;

	g->words = xcalloc((size_t)argc + 1, sizeof(char *));
	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id != ARG_WORD) {
			if (take_option(g, &a, id))
				return 2;
			continue;
		}
		if (!row && !a.only_words && (row = find_row(a.text))) {
			g->sub = a.text;
			g->old = str_starts(a.text, "exec");
			continue;
		}
		if (!g->vm && !a.only_words) {
			g->vm = a.text;
			continue;
		}
		g->words[g->word_count++] = (char *)(uintptr_t)a.text;
		/* Behind the program everything is its own. */
		if (g->vm && ((row && row->program && !g->old) || a.only_words)) {
			while (a.at < argc)
				g->words[g->word_count++] = argv[a.at++];
		}
	}
	return 0;
}

static bool
runs_program(const struct gctl *g)
{
	const struct verb_row *row = g->sub ? find_row(g->sub) : NULL;

	return !row || row->program;
}

static int
check(struct gctl *g)
{
	if (!g->vm)
		return fail_syntax(g->c, "No VM specified");
	if (!g->sub && !g->program && !g->command && !g->word_count)
		return fail_syntax(g->c, "No subcommand specified");
	if (!g->sub) {
		if (!g->program && !g->command)
			return fail_syntax(g->c, "Invalid command '%s'", g->words[0]);
		g->sub = "execute";
		g->old = true;
	}
	if (runs_program(g) && !g->program && !g->command && !g->word_count)
		return fail_syntax(g->c, "No executable specified!");
	if (g->domain && *g->domain)
		return fail_argument(g->c, "--domain '%s': only Windows guests have domains", g->domain);
	return 0;
}

/* ---- who ---- */

static int
take_password(struct gctl *g)
{
	bool typed = !strcmp(g->password_file, "stdin") || !strcmp(g->password_file, "-");
	int fd = typed ? STDIN_FILENO : open(g->password_file, O_RDONLY | O_CLOEXEC);
	struct termios old, quiet;
	bool terminal = typed && !tcgetattr(fd, &old);
	char line[1024];
	size_t n = 0;

	if (fd < 0)
		return fail_plain(g->c, "Failed to open password file \"%s\"", g->password_file);
	if (terminal) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(fd, TCSAFLUSH, &quiet);
		fprintf(stderr, "Password of %s: ", g->user);
	}
	while (n < sizeof(line) - 1 && read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = 0;
	if (n && line[n - 1] == '\r')
		line[n - 1] = 0;
	if (terminal) {
		tcsetattr(fd, TCSAFLUSH, &old);
		fputc('\n', stderr);
	}
	if (!typed)
		close(fd);
	g->password = g->typed_password = xstrdup(line);
	explicit_bzero(line, sizeof(line));
	return 0;
}

static void
why_line(void *opaque, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

/* Behind an error that says no more than that time is over: what can be seen of the guest from outside. */
void
gctl_why(struct gctl *g)
{
	struct err unused = { 0 };

	fflush(stdout);
	host_vm_why(g->c->host, g->vm, why_line, NULL, &unused);
}

int
gctl_fail(struct gctl *g, const struct err *e)
{
	if (e->code == ERR_TIMEOUT) {
		fail_api(g->c, e, &session_site);
		gctl_why(g);
		return 1;
	}
	if (e->code == ERR_VM_STATE && str_starts(e->text, "Machine \""))
		return fail_plain(g->c, "%s", e->text);
	if (e->code == ERR_IPRT && str_starts(e->text, "No guest agent")) {
		struct err ready;

		err_set(&ready, ERR_IPRT, "The guest execution service is not ready (yet)");
		return fail_api(g->c, &ready, &session_site);
	}
	if (e->code == ERR_ACCESS) {
		struct err refused;

		err_set(&refused, ERR_IPRT, "%s", e->text);
		return fail_api(g->c, &refused, &session_site);
	}
	if (e->code == ERR_NOT_FOUND && !str_starts(e->text, "Could not find a registered")) {
		struct err missing;

		err_set(&missing, ERR_IPRT, "%s", e->text);
		return fail_api(g->c, &missing, &process_site);
	}
	return fail_api(g->c, e, e->code == ERR_GUEST ? &process_site : &session_site);
}

struct host_guest *
gctl_open(struct gctl *g)
{
	struct passwd *pw;
	struct host_guest *s;
	struct err e = { 0 };
	char *name;

	if (!g->user && (pw = getpwuid(getuid())))
		g->user = pw->pw_name;
	if (g->password_file && take_password(g))
		return NULL;
	name = g->session_name ? xstrdup(g->session_name)
			       : xasprintf("[%d] VBoxManage Guest Control [%s] - %s", (int)getpid(), g->vm, g->sub);
	s = host_guest_open(g->c->host, g->vm, g->user ? g->user : "", g->password ? g->password : "", name, &e);
	free(name);
	if (!s)
		gctl_fail(g, &e);
	return s;
}

/* ---- run ---- */

/* A descriptor that can be read from when somebody wants us to end; -1: then we just end. */
static int
catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct output {
	const struct gctl *g;
	bool shown[3];
	char last[3]; /* byte of each stream */
};

/* Line ends as the other system has them. */
static int
convert(struct output *o, int stream, FILE *to, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (o->g->dos2unix && o->last[stream] == '\r' && bytes[i] != '\n')
			fputc('\r', to);
		if (o->g->unix2dos && bytes[i] == '\n' && o->last[stream] != '\r')
			fputc('\r', to);
		if (!o->g->dos2unix || bytes[i] != '\r')
			fputc(bytes[i], to);
		o->last[stream] = bytes[i];
	}
	return fflush(to);
}

static int
show(void *opaque, int stream, const void *bytes, size_t n)
{
	struct output *o = opaque;
	FILE *to = stream == 1 ? stdout : stderr;

	if (!o->shown[stream])
		return 0;
	if (o->g->dos2unix || o->g->unix2dos)
		return convert(o, stream, to, bytes, n);
	return write_full(fileno(to), bytes, n) == (ssize_t)n ? 0 : -1;
}

static void
add_word(struct gctl *g, const char *word)
{
	g->words = realloc(g->words, (size_t)(g->word_count + 2) * sizeof(*g->words));
	if (!g->words)
		abort();
	g->words[g->word_count++] = xstrdup(word); /* kept to the end */
	g->words[g->word_count] = NULL;
}

/*
 * argv of the program. Until 6.1 what stood behind --exe began with the program's own name, since 7.0 it does not: a
 * first word that is the program's name is taken for one.
 */
static char **
make_argv(struct gctl *g)
{
	char **argv;
	int first = 0, n = 0;
	const char *slash;

	if (g->arguments)
		split(g->arguments, add_word, g);
	argv = xcalloc((size_t)g->word_count + 5, sizeof(*argv));
	if (g->command) {
		g->program = "/bin/sh";
		argv[n++] = (char *)"sh";
		argv[n++] = (char *)"-c";
		argv[n++] = (char *)(uintptr_t)g->command;
		g->arg0 = "/bin/sh";
		argv[0] = (char *)"/bin/sh";
		if (g->word_count)
			argv[n++] = (char *)"sh";
	} else {
		if (!g->program)
			g->program = g->words[first++];
		slash = strrchr(g->program, '/');
		argv[n++] = (char *)(uintptr_t)(g->arg0 ? g->arg0 : g->program);
		if (g->exe && !g->old && !g->arg0 && g->word_count && !first &&
			(!strcmp(g->words[0], g->program) || (slash && !strcmp(g->words[0], slash + 1))))
			first = 1;
	}
	for (int i = first; i < g->word_count; i++)
		argv[n++] = g->words[i];
	return argv;
}

static int
exit_status(const struct gctl *g, const struct host_guest_program *p)
{
	switch (p->end) {
	case HOST_GUEST_EXITED:
		if (!p->status)
			return 0;
		return g->old ? EXIT_NOT_ZERO : p->status + EXIT_BASE < EXIT_LAST ? p->status + EXIT_BASE : EXIT_LAST;
	case HOST_GUEST_SIGNALLED:
		return EXIT_SIGNAL;
	case HOST_GUEST_TIMEOUT:
		return EXIT_TIMEOUT;
	case HOST_GUEST_CANCELLED:
		return EXIT_CANCELLED;
	default:
		return 0;
	}
}

static void
tell_end(const struct gctl *g, const struct host_guest_program *p)
{
	if (p->end == HOST_GUEST_STARTED && !g->quiet)
		printf("Process '%s' (PID %lld) started\n", p->path, (long long)p->pid);
	if (!g->verbose)
		return;
	if (p->end == HOST_GUEST_EXITED)
		fprintf(stderr, "Process '%s' (PID %lld) terminated: exit code %d\n", p->path, (long long)p->pid,
			p->status);
	else if (p->end == HOST_GUEST_SIGNALLED)
		fprintf(stderr, "Process '%s' (PID %lld) terminated by signal %d\n", p->path, (long long)p->pid,
			p->status);
	else if (p->end == HOST_GUEST_TIMEOUT)
		fprintf(stderr, "Process '%s' (PID %lld) timed out%s\n", p->path, (long long)p->pid,
			g->orphans ? " and goes on" : ", it was ended");
}

int
gctl_run(struct gctl *g)
{
	bool started = !strcmp(g->sub, "start") || (g->old && !g->wait_out && !g->wait_err && !g->wait_exit);
	struct output o = { .g = g };
	struct host_guest *s = gctl_open(g);
	struct err e = { 0 };
	char **argv;
	int r;

	if (!s)
		return 1;
	argv = make_argv(g);
	o.shown[1] = g->old ? g->wait_out : !g->no_out;
	o.shown[2] = g->old ? g->wait_err : !g->no_err;
	struct host_guest_program p = {
		.path = g->program,
		.argv = argv,
		.env = g->env,
		.cwd = g->cwd,
		.timeout_ms = g->has_timeout ? g->timeout_ms : 0,
		.in = g->input && !started ? STDIN_FILENO : -1,
		.output = show,
		.opaque = &o,
		.cancel = catch_signals(),
		.detach = started,
		.orphan = g->orphans,
	};
	fflush(stdout);
	r = host_guest_run(s, &p, &e) ? gctl_fail(g, &e) : exit_status(g, &p);
	if (!e.code)
		tell_end(g, &p);
	host_guest_close(s);
	if (p.cancel >= 0)
		close(p.cancel);
	free(argv);
	return r;
}

/* ---- the command ---- */

int
cmd_guestcontrol(struct cli *c, int argc, char **argv)
{
	struct gctl g = { .c = c };
	int r = parse(&g, argc, argv);

	if (!r)
		r = check(&g);
	if (!r)
		r = cli_host(c) ? find_row(g.sub)->run(&g) : 1;
	for (int i = 0; i < g.env_count; i++)
		free(g.env[i]);
	free(g.env);
	free(g.words);
	if (g.typed_password)
		explicit_bzero(g.typed_password, strlen(g.typed_password));
	free(g.typed_password);
	return r;
}
