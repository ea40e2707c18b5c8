/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `guestcontrol` share: the line as it was understood. */
#ifndef GCTL_H
#define GCTL_H

#include "front/vboxmanage/vbm.h"

struct gctl {
	struct cli *c;
	const char *vm, *sub;
	const char *user, *password, *password_file, *domain;
	char *typed_password; /* owned */
	bool verbose, quiet;
	/* programs */
	const char *program, *arg0, *cwd, *arguments, *command;
	char **env;
	int env_count;
	uint64_t timeout_ms;
	bool has_timeout, no_out, no_err, wait_out, wait_err, wait_exit, orphans, dos2unix, unix2dos, input, old, exe;
	/* files */
	bool recursive, parents, follow, no_replace, update, force, directory, secure, machine_readable, dry_run;
	const char *target, *mode, *tmpdir, *source;
	/* lists */
	bool all, wait_start;
	uint64_t session;
	bool has_session;
	const char *session_name;
	/* what is left */
	char **words;
	int word_count;
};

/* A session as the line's user; NULL after printing why not. */
struct host_guest *gctl_open(struct gctl *g);
int gctl_fail(struct gctl *g, const struct err *e); /* 1, or 2; of a time-out with gctl_why() */
void gctl_why(struct gctl *g);			    /* to standard error */

int gctl_run(struct gctl *g); /* run, start, exec, execute */
int gctl_copy(struct gctl *g, bool to);
int gctl_mkdir(struct gctl *g);
int gctl_rmdir(struct gctl *g);
int gctl_rm(struct gctl *g);
int gctl_mv(struct gctl *g);
int gctl_mktemp(struct gctl *g);
int gctl_stat(struct gctl *g);
int gctl_df(struct gctl *g);
int gctl_list(struct gctl *g);
int gctl_closeprocess(struct gctl *g);
int gctl_closesession(struct gctl *g);
int gctl_watch(struct gctl *g);
int gctl_waitrunlevel(struct gctl *g);
int gctl_updateadditions(struct gctl *g);

#endif
