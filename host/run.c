/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that run: their lock, their state, and starting them. vm/protocol.h is the other side.
 *
 * The run directory $LODGE_HOME/run/<uuid>/ has, besides the files of vm/protocol.h:
 *
 *	start		held (OFD write lock) by the front end that is starting the machine
 *	config.json	what the machine's process is to read; removed when it has
 *
 * A machine is locked when either lock is held. Who starts it takes `start`, reads the inventory in a write transaction
 * (so that no change is half way), spawns lodge-vm and lets go when that has reported: from then on its own lock
 * stands.
 *
 * State, in this order: a lock that is held means what status.json says (a final state there: the process is on its
 * last lines, "stopping"); a free one means the final state in status.json, or `aborted` when that is not final;
 * without status.json the machine never ran and the inventory's word counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "vm/protocol.h"

#define FILE_START "start"
#define FILE_CONFIG "config.json"
#define READY_FD 3
#define START_TIMEOUT_MS 120000
#define STOP_TIMEOUT_MS 2000 /* a start takes less */

char *
vm_run_dir(struct host *h, const char *uuid)
{
	return xasprintf("%s/run/%s", h->home, uuid);
}

static char *
run_file(struct host *h, const char *uuid, const char *file)
{
	return xasprintf("%s/run/%s/%s", h->home, uuid, file);
}

void
vm_forget_run_dir(struct host *h, const char *uuid)
{
	static const char *const files[] = { VM_FILE_LOCK, VM_FILE_STATUS, VM_FILE_CONTROL, VM_FILE_PROPS, FILE_START,
		FILE_CONFIG, "work" };
	char *dir = vm_run_dir(h, uuid);

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char *path = run_file(h, uuid, files[i]);

		unlink(path);
		free(path);
	}
	rmdir(dir);
	free(dir);
}

/* ---- locks ---- */

/* Does anyone hold the OFD write lock on byte 0 of this file? */
static bool
lock_held(struct host *h, const char *uuid, const char *file)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	char *path = run_file(h, uuid, file);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool held = false;

	free(path);
	if (fd < 0)
		return false;
	if (!fcntl(fd, F_OFD_GETLK, &lk))
		held = lk.l_type != F_UNLCK;
	close(fd);
	return held;
}

bool
vm_process_alive(struct host *h, const char *uuid)
{
	return lock_held(h, uuid, VM_FILE_LOCK);
}

bool
vm_locked(struct host *h, const char *uuid)
{
	return lock_held(h, uuid, VM_FILE_LOCK) || lock_held(h, uuid, FILE_START);
}

int
host_vm_wait_end(struct host *h, const char *id, struct err *e)
{
	struct flock lk = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	struct host_vm *vm = host_vm_load(h, id, e);
	char *path;
	int fd, r;

	if (!vm)
		return e->code;
	path = run_file(h, vm->uuid, VM_FILE_LOCK);
	host_vm_free(vm);
	fd = open(path, O_RDWR | O_CLOEXEC);
	free(path);
	if (fd < 0)
		return 0;
	r = fcntl(fd, F_OFD_SETLKW, &lk) ? -errno : 0;
	close(fd);
	return r && r != -EINTR ? err_sys(e, ERR_FAILED, -r, "waiting for the machine '%s' to end", id) : r;
}

int
vm_take_start_lock(struct host *h, const char *uuid)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	char *path = run_file(h, uuid, FILE_START);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	free(path);
	if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &lk)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* ---- state ---- */

static json_t *
read_status(struct host *h, const char *uuid)
{
	char *path = run_file(h, uuid, VM_FILE_STATUS);
	json_t *o = json_load_file(path, 0, NULL);

	free(path);
	return o;
}

/* "2024-05-01T10:00:00.000000000" as nanoseconds since 1970; 0 when it is not. */
static int64_t
parse_time(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	int64_t ns = 0, unit = 100000000;

	if (!rest)
		return 0;
	if (*rest == '.')
		for (rest++; *rest >= '0' && *rest <= '9' && unit; rest++, unit /= 10)
			ns += (*rest - '0') * unit;
	return (int64_t)timegm(&tm) * 1000000000 + ns;
}

static enum host_state
state_of(const char *word, enum host_state fallback)
{
	for (int s = 0; word && s < HOST_STATE_COUNT; s++)
		if (!strcmp(word, host_state_short(s)))
			return (enum host_state)s;
	return fallback;
}

static void
state_from_status(struct host_vm *vm, json_t *status, bool locked)
{
	enum host_state s = state_of(json_string_value(json_object_get(status, "state")), HOST_STARTING);
	int64_t t = parse_time(json_string_value(json_object_get(status, "since")));

	if (t)
		vm->state_time = t;
	if (locked)
		vm->state = host_state_live(s) ? s : HOST_STOPPING;
	else
		vm->state = host_state_live(s) ? HOST_ABORTED : s;
	free(vm->session);
	vm->session = xstrdup(locked ? "headless" : "");
}

/* What is being done to a machine whose process does not exist. */
static enum host_state
state_of_work(struct host *h, const char *uuid)
{
	static const struct {
		const char *what;
		enum host_state state;
	} rows[] = {
		{ "take", HOST_SNAPSHOTTING },
		{ "restore", HOST_RESTORING_SNAPSHOT },
		{ "delete", HOST_DELETING_SNAPSHOT },
		{ "adopt", HOST_SETTING_UP },
		{ "clone", HOST_SETTING_UP },
	};
	sqlite3_stmt *s = db_query(h, NULL, "SELECT what FROM work WHERE uuid = ?", "s", uuid);
	enum host_state state = HOST_STARTING;

	if (s && db_step(h, s, NULL) > 0)
		for (size_t i = 0; i < ARRAY_LEN(rows); i++)
			if (!strcmp(db_text(s, 0), rows[i].what))
				state = rows[i].state;
	sqlite3_finalize(s);
	return state;
}

void
vm_resolve_resting(struct host *h, struct host_vm *vm)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT state, state_time FROM machine WHERE uuid = ?", "s", vm->uuid);
	json_t *status = read_status(h, vm->uuid);

	if (s && db_step(h, s, NULL) > 0) {
		vm->state = state_of(db_text(s, 0), HOST_POWEROFF);
		vm->state_time = sqlite3_column_int64(s, 1);
	}
	sqlite3_finalize(s);
	if (status)
		state_from_status(vm, status, false);
	json_decref(status);
}

/* The drive that an entry of "ejected" is about, while it still has that disc; else NULL. */
static struct host_attachment *
ejected_drive(struct host_vm *vm, json_t *entry)
{
	const char *name = json_string_value(json_object_get(entry, "controller")),
		   *path = json_string_value(json_object_get(entry, "path"));
	struct host_controller *c = name ? vm_controller(vm, name) : NULL;
	struct host_attachment *a = c ? (struct host_attachment *)host_vm_attachment(c,
						(int)json_integer_value(json_object_get(entry, "port")),
						(int)json_integer_value(json_object_get(entry, "device")))
				      : NULL;

	return a && a->path && path && !strcmp(a->path, path) ? a : NULL;
}

/* A disc that the guest has put out: gone from the settings, or away until the machine is started again. */
static void
apply_ejected(struct host_vm *vm, json_t *list, bool locked)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		struct host_attachment *a = ejected_drive(vm, json_array_get(list, i));

		if (!a)
			continue;
		a->ejected = a->tempeject && locked;
		if (a->tempeject)
			continue;
		free(a->medium);
		free(a->path);
		free(a->format);
		a->medium = a->path = a->format = NULL;
	}
}

int
vm_settle_ejected(struct host *h, const char *uuid, struct err *e)
{
	json_t *status = read_status(h, uuid), *list = json_object_get(status, "ejected");
	int r = 0;

	for (size_t i = 0; i < json_array_size(list) && !r; i++) {
		json_t *o = json_array_get(list, i);

		r = db_run(h, e,
			"UPDATE attachment SET medium = NULL WHERE tempeject = 0 AND port = ? AND device = ? AND"
			" medium = (SELECT id FROM medium WHERE path = ?) AND controller = (SELECT c.id FROM controller"
			" c JOIN machine m ON m.id = c.machine WHERE m.uuid = ? AND c.name = ?)",
			"iisss", (int)json_integer_value(json_object_get(o, "port")),
			(int)json_integer_value(json_object_get(o, "device")),
			json_string_value(json_object_get(o, "path")), uuid,
			json_string_value(json_object_get(o, "controller")));
	}
	json_decref(status);
	return r;
}

void
vm_forget_ejected(struct host *h, const char *uuid)
{
	json_t *status = read_status(h, uuid);
	char *path = run_file(h, uuid, VM_FILE_STATUS);

	if (json_array_size(json_object_get(status, "ejected")) && !vm_locked(h, uuid)) {
		json_object_del(status, "ejected");
		json_dump_file(status, path, 0);
	}
	free(path);
	json_decref(status);
}

void
vm_resolve_state(struct host *h, struct host_vm *vm, const char *stored, int64_t stored_time)
{
	bool locked = vm_locked(h, vm->uuid);
	json_t *status = read_status(h, vm->uuid);

	vm->state = state_of(stored, HOST_POWEROFF);
	vm->state_time = stored_time;
	/* Between the two looks it may have started; or ended, and then its last word is there now. */
	if (locked != vm_locked(h, vm->uuid)) {
		locked = !locked;
		json_decref(status);
		status = read_status(h, vm->uuid);
	}
	if (locked && !vm_process_alive(h, vm->uuid))
		vm->state = state_of_work(h, vm->uuid);
	else if (status)
		state_from_status(vm, status, locked);
	else if (locked)
		vm->state = HOST_STARTING;
	apply_ejected(vm, json_object_get(status, "ejected"), locked);
	json_decref(status);
}

int
vm_set_final_state(struct host *h, const char *uuid, enum host_state s, const char *state_file, struct err *e)
{
	char *path = run_file(h, uuid, VM_FILE_STATUS);
	int r = vm_settle_ejected(h, uuid, e);

	r = r ? r
	      : db_run(h, e, "UPDATE machine SET state = ?, state_time = ?, state_file = ? WHERE uuid = ?", "slss",
			host_state_short(s), now_ns(), state_file, uuid);

	if (!r)
		unlink(path); /* what its process said last */
	free(path);
	return r;
}

/* ---- starting ---- */

/* Keep the last logs: VBox.log becomes VBox.log.1 and so on. */
static char *
fresh_log(const struct host_vm *vm)
{
	char *log = xasprintf("%s/VBox.log", vm->log_folder);

	mkdir(vm->log_folder, 0700);
	for (int i = 3; i > 0; i--) {
		char *from = i > 1 ? xasprintf("%s.%d", log, i - 1) : xstrdup(log), *to = xasprintf("%s.%d", log, i);

		rename(from, to);
		free(from);
		free(to);
	}
	return log;
}

/* In the child: nothing of ours but the pipe, as descriptor `at`; what it says before it can report goes to its log. */
static void __attribute__((noreturn))
become(const char *program, char *const argv[], int ready, int at, const char *log, const int *fds, int fd_count)
{
	sigset_t none;
	int high[8], null = open("/dev/null", O_RDWR), err = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	setsid(); /* Ctrl-C is for whoever waits for us */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	ready = fcntl(ready, F_DUPFD, 10); /* out of the way of the next three */
	dup2(null, 0);
	dup2(null, 1);
	dup2(err >= 0 ? err : null, 2);
	for (int i = 0; i < fd_count; i++) /* out of the way of where they go */
		high[i] = fcntl(fds[i], F_DUPFD, 20);
	dup2(ready, at);
	for (int i = 0; i < fd_count; i++)
		dup2(high[i], at + 1 + i);
	close_range(at < 3 ? 3 : (unsigned)(at + fd_count) + 1, ~0u, 0);
	execvp(program, argv);
	dprintf(at, "{\"error\":{\"code\":\"VBOX_E_FILE_ERROR\",\"text\":\"Cannot run '%s': %s\"}}\n", program,
		strerror(errno));
	_exit(1);
}

static pid_t
spawn(const char *program, char *const argv[], int at, const char *log, const int *fds, int fd_count, int *ready)
{
	int fd[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid)
		become(program, argv, fd[1], at, log, fds, fd_count);
	close(fd[1]);
	*ready = fd[0];
	if (pid < 0)
		close(fd[0]);
	return pid;
}

/*
 * One line from the pipe; what came is in `line` at the end of file too. 0, or -1 when there is none in time, which is
 * short once p->stopped() says so.
 */
static int
read_line(int fd, const struct host_progress *p, char *line, size_t size)
{
	int64_t deadline = now_ns() + START_TIMEOUT_MS * 1000000ll;
	bool stopped = false;
	size_t n = 0;

	while (n + 1 < size) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		int64_t left = (deadline - now_ns()) / 1000000;
		ssize_t r;

		if (!stopped && p && p->stopped(p->opaque)) {
			stopped = true;
			deadline = now_ns() + STOP_TIMEOUT_MS * 1000000ll;
			continue;
		}
		if (left <= 0)
			break;
		r = poll(&pfd, 1, p && left > STOP_LOOK_MS ? STOP_LOOK_MS : (int)left);
		if (!r)
			continue;
		if (r < 0)
			break;
		r = read(fd, line + n, size - 1 - n);
		if (r <= 0)
			break;
		n += (size_t)r;
		if (memchr(line, '\n', n))
			break;
	}
	line[n] = 0;
	return n ? 0 : -1;
}

static int
wait_ready(int fd, pid_t pid, const char *log, const struct host_progress *p, struct err *e)
{
	char line[8192];
	json_t *o = NULL;
	int r = read_line(fd, p, line, sizeof(line)), status;

	close(fd);
	if (!r)
		o = json_loads(line, 0, NULL);
	if (!o) {
		/* Still ours and silent: it must not come up after we have said that it did not. Without a reader for
		 * its report the machine's process ends too. */
		kill(pid, SIGKILL);
		r = err_set(e, ERR_VM, "The process of the machine %s; its log is '%s'",
			p && p->stopped(p->opaque) ? "had not started it when this was interrupted"
						   : "ended before the machine ran",
			log);
	} else if (json_object_get(o, "error")) {
		r = protocol_error(json_object_get(o, "error"), e);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	json_decref(o);
	return r;
}

static int
run_program(struct host *h, const struct host_vm *vm, const char *config, const int *fds, int fd_count,
	const struct host_progress *p, struct err *e)
{
	char number[16];
	char *program = peer_program("lodge-vm"), *dir = vm_run_dir(h, vm->uuid), *log = fresh_log(vm);
	char *const argv[] = { "lodge-vm", "--config", (char *)config, "--run-dir", dir, "--log", log, "--ready-fd",
		"3", fd_count ? "--copy-fds" : NULL, number, NULL };
	int ready = -1, r;
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd_count);
	pid = spawn(program, argv, READY_FD, log, fds, fd_count, &ready);

	if (pid < 0)
		r = err_sys(e, ERR_FAILED, errno, "Could not start a process for the machine '%s'", vm->name);
	else
		r = wait_ready(ready, pid, log, p, e);
	free(program);
	free(dir);
	free(log);
	return r;
}

/* 0600: the console's password may be in it. */
static int
dump_config(json_t *o, const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;

	r = fd < 0 ? -1 : json_dumpfd(o, fd, JSON_INDENT(1));
	if (r)
		err_sys(e, ERR_FILE, errno, "Could not write '%s'", path);
	if (fd >= 0)
		close(fd);
	return r;
}

/* What the machine's process is told. */
static int
write_config(struct host *h, const struct host_vm *vm, const char *path, struct err *e)
{
	json_t *o = config_json(h, vm, e);
	int r = o ? dump_config(o, path, e) : -1;

	json_decref(o);
	return r;
}

static int
already_locked(const char *name, struct err *e)
{
	return err_set(e, ERR_OBJECT_STATE,
		"The machine '%s' is already locked by a session (or being locked or unlocked)", name);
}

/* The machine as it is at this moment, with no change under way. */
static struct host_vm *
load_settled(struct host *h, const char *uuid, struct err *e)
{
	struct host_vm *vm;

	if (db_begin(h, e))
		return NULL;
	vm = host_vm_load(h, uuid, e);
	db_rollback(h);
	return vm;
}

static int
check_media(const struct host_vm *vm, struct err *e)
{
	struct stat st;

	for (int i = 0; i < vm->ctl_count; i++)
		for (int k = 0; k < vm->ctl[i].at_count; k++)
			if (vm->ctl[i].at[k].path && stat(vm->ctl[i].at[k].path, &st))
				return err_set(e, ERR_FILE, "Could not open the medium '%s' (%s)",
					vm->ctl[i].at[k].path,
					errno == ENOENT ? "VERR_FILE_NOT_FOUND" : strerror(errno));
	return 0;
}

/* A start that failed leaves the state as it was. */
static void
restore_status(struct host *h, const char *uuid, json_t *before)
{
	char *path = run_file(h, uuid, VM_FILE_STATUS);

	if (!lock_held(h, uuid, VM_FILE_LOCK)) {
		if (before)
			json_dump_file(before, path, 0);
		else
			unlink(path);
	}
	free(path);
}

/* It runs: its saved state is of the past, and its file goes unless a snapshot has it too. */
static void
forget_state(struct host *h, const struct host_vm *vm)
{
	if (!vm->state_file[0])
		return;
	if (!snapshot_owns_state(h, vm->state_file))
		unlink(vm->state_file);
	db_run(h, NULL, "UPDATE machine SET state_file = '' WHERE uuid = ?", "s", vm->uuid);
}

static int
start_locked(struct host *h, const char *uuid, const struct host_progress *p, struct err *e)
{
	struct host_vm *vm = load_settled(h, uuid, e);
	char *config = run_file(h, uuid, FILE_CONFIG);
	json_t *before = read_status(h, uuid);
	int r = -1;

	if (vm)
		vm_resolve_resting(h, vm); /* not what our own lock makes of it */

	if (vm && lock_held(h, uuid, VM_FILE_LOCK))
		already_locked(vm->name, e);
	else if (vm && !check_media(vm, e) && (*vm->state_file || !medium_reset(h, vm, e)) &&
		 !vm_settle_ejected(h, uuid, e) && !write_config(h, vm, config, e)) {
		r = run_program(h, vm, config, NULL, 0, p, e);
		if (r)
			restore_status(h, uuid, before);
		else
			forget_state(h, vm);
	}
	unlink(config);
	free(config);
	json_decref(before);
	host_vm_free(vm);
	return r;
}

int
host_vm_start(struct host *h, const char *id, const struct host_progress *p, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	char *dir;
	int lock, r;

	if (!vm)
		return -1;
	dir = vm_run_dir(h, vm->uuid);
	r = dir_make(dir, 0700, e) || work_check_disks(h, vm, e) ? -1 : 0;
	free(dir);
	if (!r) {
		lock = vm_take_start_lock(h, vm->uuid);
		r = lock < 0 ? already_locked(vm->name, e) : start_locked(h, vm->uuid, p, e);
		if (lock >= 0)
			close(lock);
	}
	host_vm_free(vm);
	return r;
}

int
vm_start_copy(struct host *h, const char *uuid, const char *engine, const int *fds, int fd_count, struct err *e)
{
	char *dir = vm_run_dir(h, uuid), *path = run_file(h, uuid, FILE_CONFIG);
	struct host_vm *vm = host_vm_load(h, uuid, e);
	json_t *config = NULL;
	struct uuid generation = uuid_random();
	char text[37];
	int r = vm ? dir_make(dir, 0700, e) : -1;

	if (!r)
		config = config_json(h, vm, e);
	if (config) {
		uuid_text(&generation, text);
		json_object_set_new(config, "engine", json_string(engine));
		json_object_set_new(config, "generation", json_string(text));
	}
	r = config ? dump_config(config, path, e) : -1;
	if (!r)
		r = run_program(h, vm, path, fds, fd_count, NULL, e);
	unlink(path);
	json_decref(config);
	host_vm_free(vm);
	free(path);
	free(dir);
	return r;
}

/* ---- which engine ---- */

/* What lodge-vm prints about its choice. NULL and *e. */
static json_t *
ask_engine(const char *wanted, struct err *e)
{
	char *program = peer_program("lodge-vm"), line[4096];
	char *const argv[] = { "lodge-vm", "--which-engine", (char *)wanted, NULL };
	int out = -1, status;
	pid_t pid = spawn(program, argv, 1, "/dev/null", NULL, 0, &out);
	json_t *o = NULL;

	free(program);
	if (pid < 0) {
		err_sys(e, ERR_FAILED, errno, "Could not start a process");
		return NULL;
	}
	if (!read_line(out, NULL, line, sizeof(line)))
		o = json_loads(line, 0, NULL);
	close(out);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!o)
		err_set(e, ERR_HOST, "lodge-vm does not tell which engine it would use");
	return o;
}

int
host_engine(struct host *h, const char *wanted, char *name, size_t name_size, char *why, size_t why_size, struct err *e)
{
	char *choice = wanted ? xstrdup(wanted) : engine_name(h, NULL, e);
	json_t *o = choice ? ask_engine(choice, e) : NULL;
	const char *n = json_string_value(json_object_get(o, "engine"));
	const char *w = json_string_value(json_object_get(o, "engine_reason"));
	int r = o ? 0 : -1;

	if (o && json_object_get(o, "error"))
		r = protocol_error(json_object_get(o, "error"), e);
	snprintf(name, name_size, "%s", n ? n : "");
	snprintf(why, why_size, "%s", w ? w : "");
	json_decref(o);
	free(choice);
	return r;
}
