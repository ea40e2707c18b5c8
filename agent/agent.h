/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lodge's guest agent: what its files share. It runs as root in a guest and is linked statically, so that it needs
 * nothing there but a kernel with virtio_console.
 *
 * A command gets its arguments (an object, never NULL) and gives what stands behind "return" (new reference), or NULL
 * after refuse().
 */
#ifndef AGENT_H
#define AGENT_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>

#include "base/str.h"

struct agent;

struct refusal {
	const char *class;
	char text[512];
};

typedef json_t *command_fn(struct agent *a, const json_t *args, struct refusal *r);

/* NULL, for a command to return. class NULL: "GenericError". */
json_t *refuse(struct refusal *r, const char *class, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
json_t *refuse_errno(struct refusal *r, const char *what);
const char *text_arg(const json_t *args, const char *name); /* "" when it is not there */
int64_t int_arg(const json_t *args, const char *name, int64_t fallback);

/* Say that something has happened with a process. */
void agent_event(struct agent *a);

struct procs;
struct procs *agent_procs(struct agent *a);
struct files;
struct files *agent_files(struct agent *a);
struct logins;
struct logins *agent_logins(struct agent *a);

/* ---- proc.c ---- */
struct procs *procs_create(void);
/* Descriptors to be watched, at most `max`; procs_ready() after poll(). */
int procs_watch(struct procs *ps, struct pollfd *out, int max);
void procs_ready(struct agent *a, const struct pollfd *fds, int count);
void procs_reap(struct agent *a);
command_fn do_exec, do_exec_status, do_lodge_exec, do_lodge_poll, do_lodge_input, do_lodge_close;

/* ---- user.c ---- */
struct account {
	char name[256], home[1024], shell[256];
	unsigned uid, gid;
	unsigned groups[256];
	int group_count;
};
struct logins *logins_create(void);
/* The user, if that is the password. */
bool account_login(struct logins *l, const char *name, const char *password, struct account *out);

/* ---- file.c ---- */
struct files *files_create(void);
command_fn do_file_open, do_file_close, do_file_read, do_file_write, do_file_seek, do_file_flush;

/* ---- system.c ---- */
command_fn do_get_osinfo, do_get_host_name, do_get_time, do_set_time, do_get_timezone, do_get_users, do_network,
	do_shutdown, do_freeze, do_thaw, do_freeze_status;

#endif
