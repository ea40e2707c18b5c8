/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of VBoxManage share. A command parses its arguments, makes one host_ call and prints; where a text or
 * an exit status is VirtualBox's it is said here, never in host/.
 *
 * Exit statuses: 0 done, 1 it could not be done, 2 the command line makes no sense. What a script reads goes to stdout;
 * progress and errors go to stderr.
 */
#ifndef VBM_H
#define VBM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "host/host.h"

#define VBM_VERSION "7.0.10"
#define VBM_REVISION "158379"

struct verb;

struct cli {
	const char *program; /* what errors begin with: the name we were called by */
	const struct verb *verb;
	struct host *host; /* opened when first asked for: cli_host() */
	bool logo, detailed;
	int progress; /* the percentage shown last, -1: no progress under way */
};

struct verb {
	const char *name;
	int (*run)(struct cli *c, int argc, char **argv); /* argv[0] is behind the verb */
	const char *usage;				  /* lines; the first words, program and verb, are added */
	const char *example;
	bool alias; /* not listed */
};
const struct verb *verb_find(const char *name);
const struct verb *verb_at(size_t i); /* NULL behind the last */

/* The inventory; NULL after printing why not. */
struct host *cli_host(struct cli *c);

/* ---- out.c: each returns the exit status to leave with ---- */

void print_logo(struct cli *c, bool to_stderr);
void print_usage(struct cli *c, const struct verb *v, bool to_stderr);
int fail_syntax(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));   /* 2, with the usage */
int fail_argument(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* 2 */
int fail_plain(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));    /* 1 */
void warn(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Where an error comes from, for its Details and Context lines. */
struct site {
	const char *component; /* "Machine", "VirtualBox", "Medium", "Console" */
	const char *call;
	int line;
	const char *file;
};
int fail_api(struct cli *c, const struct err *e, const struct site *s); /* 1; 2 for ERR_USAGE */

/* "0%...10%..." on stderr. end: with 100 or with the code of *e. */
void progress_begin(struct cli *c);
void progress_at(void *cli, int percent);
void progress_end(struct cli *c, const struct err *e);

/* ---- medium.c: what Ctrl-C must not leave half done ---- */

/*
 * SIGINT, SIGTERM and SIGHUP wait in between, and what came is forgotten: whoever held them has said how it went.
 * `stopped` of what is returned tells whether one came.
 */
struct host_progress signals_hold(void);
void signals_release(void);

/* The same with progress, for what those signals stop and undo. */

struct host_progress stoppable_begin(struct cli *c);
/* `e`: NULL when it was done. True: it was not because of a signal, which is taken care of. */
bool stoppable_end(struct cli *c, const struct err *e);

/* ---- run.c ---- */

/* host_vm_start() while signals wait: it runs, or it does not and never will. */
int start_held(struct host *h, const char *id, struct err *e);

/* ---- args.c ---- */

enum opt_kind { OPT_FLAG, OPT_TEXT, OPT_NUMBER, OPT_ONOFF };

/*
 * An option. `name` is the hyphenated spelling; hyphens inside are optional on the command line, one or two lead. With
 * `slots` a number from 1 to slots ends it. `id` is the caller's.
 */
struct opt {
	const char *name;
	int id;
	enum opt_kind kind;
	char letter;
	int slots;
};

struct args {
	struct cli *cli;
	int argc, at;
	char **argv;
	const struct opt *opts;
	size_t count;
	bool only_words; /* behind "--" */
	/* what args_next() found */
	int id, slot;	     /* slot: 0-based */
	const char *spelled; /* the option as typed, without its value */
	const char *text;
	uint64_t number;
	bool on;
};
#define ARGS(c, n, v, table)                                                                                           \
	((struct args){ .cli = (c), .argc = (n), .argv = (v), .opts = (table), .count = ARRAY_LEN(table) })

enum { ARG_END = -1, ARG_WORD = -2, ARG_BAD = -3 };
/* The next option's id, ARG_WORD with `text`, ARG_END, or ARG_BAD after printing why (leave with 2). */
int args_next(struct args *a);
/* One more value for the option just found; NULL after printing that it is missing. */
const char *args_value(struct args *a);
/* The next argument if it is not an option, without taking it. */
const char *args_peek(const struct args *a);

/* ---- absent.c: why a command, or one of controlvm, is not here; NULL: VirtualBox has none of that name ---- */
const char *absent_verb(const char *name);
/* `argv`: what stands behind it. "": nothing is to be done, for it is so already; NULL: it is not one of them. */
const char *absent_control(const char *word, int argc, char **argv);

/* ---- response.c ---- */
/* The words of the file and behind them those given; 0, or the status to leave with. All is to be free()d. */
int response_file(struct cli *c, const char *path, int argc, char **argv, int *out_argc, char ***out_argv);

/* ---- sharedfolder.c, for showvminfo ---- */
void show_shares_machine_readable(struct cli *c, const struct host_vm *vm, bool live);
void show_bandwidth_groups(struct cli *c, const struct host_vm *vm, bool readable);
void show_shares(struct cli *c, const struct host_vm *vm, bool live);
void show_pair(const char *key, const char *value); /* key="value", quoted; showvminfo.c */

/* ---- the commands ---- */

int cmd_createvm(struct cli *c, int argc, char **argv);
int cmd_registervm(struct cli *c, int argc, char **argv);
int cmd_unregistervm(struct cli *c, int argc, char **argv);
int cmd_modifyvm(struct cli *c, int argc, char **argv);
int cmd_createmedium(struct cli *c, int argc, char **argv);
int cmd_modifymedium(struct cli *c, int argc, char **argv);
int cmd_mediumproperty(struct cli *c, int argc, char **argv);
int cmd_clonemedium(struct cli *c, int argc, char **argv);
int cmd_convertfromraw(struct cli *c, int argc, char **argv);
int cmd_encryptmedium(struct cli *c, int argc, char **argv);
int cmd_checkmediumpwd(struct cli *c, int argc, char **argv);
int cmd_internalcommands(struct cli *c, int argc, char **argv);
int cmd_closemedium(struct cli *c, int argc, char **argv);
int cmd_showmediuminfo(struct cli *c, int argc, char **argv);
int cmd_storagectl(struct cli *c, int argc, char **argv);
int cmd_storageattach(struct cli *c, int argc, char **argv);
int cmd_startvm(struct cli *c, int argc, char **argv);
int cmd_headless(struct cli *c, int argc, char **argv); /* of VBoxHeadless; argv[0] is its first argument */
int cmd_controlvm(struct cli *c, int argc, char **argv);
int cmd_list(struct cli *c, int argc, char **argv);
int cmd_hostinfo(struct cli *c, int argc, char **argv);
int cmd_showvminfo(struct cli *c, int argc, char **argv);
int cmd_getextradata(struct cli *c, int argc, char **argv);
int cmd_setextradata(struct cli *c, int argc, char **argv);
int cmd_setproperty(struct cli *c, int argc, char **argv);
int cmd_guestproperty(struct cli *c, int argc, char **argv);
int cmd_guestcontrol(struct cli *c, int argc, char **argv);
int cmd_sharedfolder(struct cli *c, int argc, char **argv);
int cmd_snapshot(struct cli *c, int argc, char **argv);
int cmd_metrics(struct cli *c, int argc, char **argv);
int cmd_debugvm(struct cli *c, int argc, char **argv);
int cmd_discardstate(struct cli *c, int argc, char **argv);
int cmd_adoptstate(struct cli *c, int argc, char **argv);
int cmd_clonevm(struct cli *c, int argc, char **argv);
int cmd_import(struct cli *c, int argc, char **argv);
int cmd_export(struct cli *c, int argc, char **argv);
int cmd_movevm(struct cli *c, int argc, char **argv);

/* A machine as people read it, and as programs do. */
int show_vm(struct cli *c, const struct host_vm *vm);
int show_vm_machine_readable(struct cli *c, const struct host_vm *vm);
/* "disk", "dvd", "floppy" before the rest of a command. */
bool medium_kind_word(const char *word, enum host_device *type);
/* A password: the first line of a file, or "-": asked for. NULL after saying why; free() it. */
char *read_password(struct cli *c, const char *file, const char *prompt);
/* The words of --variant; 0, or the status to leave with. */
int medium_variant(struct cli *c, const char *text, bool *fixed, bool *split, bool *stream);
void show_medium(const struct host_medium *m, bool full);
/* ---- snapshot.c ---- */
void show_snapshots(const struct host_snapshot *s, size_t count, bool details);
void show_snapshots_machine_readable(const struct host_snapshot *s, size_t count);
/* "2022-12-17T09:55:20.000000000" */
const char *time_text(int64_t ns, char buf[40]);

#endif
