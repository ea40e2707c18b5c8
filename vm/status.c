/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others can see of a machine without talking to it: the lock and status.json in its run directory (formats in
 * vm/protocol.h).
 *
 * The lock is an open file description lock, so it lives exactly as long as this process, however it ends; that is what
 * "aborted" is concluded from.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "vm/private.h"

static const char *const state_texts[] = {
#define ROW(name, text, final) [name] = text,
	VM_STATES(ROW)
#undef ROW
};

const char *
vm_state_text(enum vm_state s)
{
	return (unsigned)s < VM_STATE_COUNT ? state_texts[s] : "unknown";
}

static int
lock_failed(int fd, const char *path, int errnum, struct err *e)
{
	char pid[32] = "?";
	ssize_t n;

	if (errnum != EAGAIN && errnum != EACCES)
		return err_sys(e, ERR_FILE, errnum, "cannot lock %s", path);
	n = pread(fd, pid, sizeof(pid) - 1, 0);
	if (n > 0)
		pid[strcspn(pid, "\n")] = 0;
	return err_set(e, ERR_VM_STATE, "the machine is already running (process %s)", pid);
}

int
vm_lock_take(struct vm *v, struct err *e)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	char *path = NULL, pid[32];
	int r = -1, len;

	v->lock_fd = -1;
	if (!v->o.run_dir)
		return 0;
	path = xasprintf("%s/%s", v->o.run_dir, VM_FILE_LOCK);
	v->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (v->lock_fd < 0) {
		err_sys(e, ERR_FILE, errno, "cannot open %s", path);
		goto out;
	}
	if (fcntl(v->lock_fd, F_OFD_SETLK, &fl) < 0) {
		lock_failed(v->lock_fd, path, errno, e);
		close(v->lock_fd);
		v->lock_fd = -1;
		goto out;
	}
	len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(v->lock_fd, 0) || pwrite(v->lock_fd, pid, (size_t)len, 0) != len)
		log_warn(v->c->name, "cannot write the process number to %s", path);
	r = 0;
out:
	free(path);
	return r;
}

void
vm_lock_drop(struct vm *v)
{
	if (v->lock_fd >= 0)
		close(v->lock_fd);
	v->lock_fd = -1;
}

static void
timestamp(char out[40])
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + strlen(out), 16, ".%09ld", now.tv_nsec);
}

/* The list of `ejected`; once the disks are closed, as it was before. */
static json_t *
ejected(struct vm *v)
{
	json_t *list;

	if (!v->disk_count && v->ejected)
		return json_incref(v->ejected);
	list = json_array();
	for (int i = 0; i < v->disk_count; i++) {
		const struct vm_controller *c = &v->c->controllers[v->disks[i].controller];
		const struct vm_attachment *a = &c->attachments[v->disks[i].attachment];

		if (v->disks[i].ejected && !a->gone)
			json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:s}", "controller", c->name, "port",
							    a->port, "device", a->device, "path", a->path));
	}
	json_decref(v->ejected);
	return json_incref(v->ejected = list);
}

void
vm_status_write(struct vm *v)
{
	struct err e = { 0 };
	char *path, *text;
	json_t *j;

	if (!v->o.run_dir)
		return;
	j = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:s, s:o}", "pid", (int)getpid(), "state",
		vm_state_text(v->state), "since", v->since, "engine", v->engine ? v->engine->name : "", "engine_reason",
		v->engine_why, "vrde_port", (int)vm_console_port(v), "reason", v->outcome.reason, "ejected",
		ejected(v));
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	path = xasprintf("%s/%s", v->o.run_dir, VM_FILE_STATUS);
	if (!text || file_replace(path, text, strlen(text), 0600, &e))
		log_error(v->c->name, "cannot write the status: %s", e.text);
	free(text);
	free(path);
	json_decref(j);
}

void
vm_set_state(struct vm *v, enum vm_state s)
{
	v->state = s;
	timestamp(v->since);
	log_info(v->c->name, "%s%s%s", vm_state_text(s), v->outcome.reason[0] ? ": " : "", v->outcome.reason);
	vm_status_write(v);
	if (s == VM_RUNNING) {
		vm_agent_resumed(v);
		vm_timesync_check(v);
	}
}
