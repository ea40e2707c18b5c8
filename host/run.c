/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that run: their lock, their state, starting them and talking to them. vm/protocol.h is the other side.
 *
 * The run directory $LODGE_HOME/run/<uuid>/ has, besides the files of vm/protocol.h:
 *
 *	start		held (OFD write lock) by the front end that is starting the machine
 *	config.json	what the machine's process is to read; removed when it has
 *
 * A machine is locked when either lock is held. Who starts it takes `start`, reads the inventory in a write transaction
 * (so that no change is half way), spawns lodge-vm and lets go when that has reported: from then on its own lock
 *stands.
 *
 * State, in this order: a lock that is held means what status.json says (a final state there: the process is on its
 * last lines, "stopping"); a free one means the final state in status.json, or `aborted` when that is not final;
 *without status.json the machine never ran and the inventory's word counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "vm/protocol.h"

#define FILE_START "start"
#define FILE_CONFIG "config.json"
#define START_TIMEOUT_MS 120000
#define CALL_TIMEOUT_MS 60000
#define POWEROFF_WAIT_MS 20000

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
	static const char *const files[] = { VM_FILE_LOCK, VM_FILE_STATUS, VM_FILE_CONTROL, FILE_START, FILE_CONFIG };
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
vm_locked(struct host *h, const char *uuid)
{
	return lock_held(h, uuid, VM_FILE_LOCK) || lock_held(h, uuid, FILE_START);
}

/* Take the start lock; -1 without *e when someone else has it. */
static int
take_start_lock(struct host *h, const char *uuid)
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
	if (status)
		state_from_status(vm, status, locked);
	else if (locked)
		vm->state = HOST_STARTING;
	json_decref(status);
}

/* ---- starting ---- */

static bool
runnable(const char *path)
{
	return !access(path, X_OK);
}

/* lodge-vm beside this program, where it was installed, or in PATH. free() it. */
static char *
find_program(void)
{
	char self[4096], *path, *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		slash = strrchr(self, '/');
		path = xasprintf("%.*s/lodge-vm", (int)(slash - self), self);
		if (runnable(path))
			return path;
		free(path);
	}
	if (runnable(LODGE_PREFIX "/libexec/lodge-vm"))
		return xstrdup(LODGE_PREFIX "/libexec/lodge-vm");
	if (runnable(LODGE_PREFIX "/bin/lodge-vm"))
		return xstrdup(LODGE_PREFIX "/bin/lodge-vm");
	return xstrdup("lodge-vm");
}

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

/* In the child: nothing of ours but the pipe, and what it says before it can report goes to its log. */
static void __attribute__((noreturn)) become(const char *program, char *const argv[], int ready, const char *log)
{
	sigset_t none;
	int null = open("/dev/null", O_RDWR), err = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	ready = fcntl(ready, F_DUPFD, 10); /* out of the way of the next three */
	dup2(null, 0);
	dup2(null, 1);
	dup2(err >= 0 ? err : null, 2);
	dup2(ready, 3);
	close_range(4, ~0u, 0);
	execvp(program, argv);
	dprintf(3, "{\"error\":{\"code\":\"VBOX_E_FILE_ERROR\",\"text\":\"Cannot run '%s': %s\"}}\n", program,
		strerror(errno));
	_exit(1);
}

static pid_t
spawn(const char *program, char *const argv[], const char *log, int *ready)
{
	int fd[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid)
		become(program, argv, fd[1], log);
	close(fd[1]);
	*ready = fd[0];
	if (pid < 0)
		close(fd[0]);
	return pid;
}

/* One line from the pipe; what came is in `line` at the end of file too. 0, or -1 when there is none in time. */
static int
read_line(int fd, char *line, size_t size)
{
	int64_t deadline = now_ns() + START_TIMEOUT_MS * 1000000ll;
	size_t n = 0;

	while (n + 1 < size) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = (deadline - now_ns()) / 1000000;
		ssize_t r;

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
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

/* An error object of the protocol as ours. */
static int
error_from(json_t *error, struct err *e)
{
	const char *name = json_string_value(json_object_get(error, "code"));
	const char *text = json_string_value(json_object_get(error, "text"));
	enum err_code code = ERR_FAILED;

	for (int i = 0; name && i < ERR_COUNT; i++)
		if (!strcmp(err_info((enum err_code)i)->vbox_name, name)) {
			code = (enum err_code)i;
			break;
		}
	return err_set(e, code, "%s", text ? text : "The machine's process reported an error without saying which");
}

static int
wait_ready(int fd, pid_t pid, const char *log, struct err *e)
{
	char line[8192];
	json_t *o = NULL;
	int r = read_line(fd, line, sizeof(line)), status;

	close(fd);
	if (!r)
		o = json_loads(line, 0, NULL);
	if (!o) {
		/* Still ours and silent: it must not come up after we have said that it did not. */
		kill(pid, SIGKILL);
		r = err_set(e, ERR_VM, "The process of the machine ended before the machine ran; its log is '%s'", log);
	} else if (json_object_get(o, "error")) {
		r = error_from(json_object_get(o, "error"), e);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	json_decref(o);
	return r;
}

static int
run_program(struct host *h, const struct host_vm *vm, const char *config, struct err *e)
{
	char *program = find_program(), *dir = vm_run_dir(h, vm->uuid), *log = fresh_log(vm);
	char *const argv[] = { "lodge-vm", "--config", (char *)config, "--run-dir", dir, "--log", log, "--ready-fd",
		"3", NULL };
	int ready = -1, r;
	pid_t pid = spawn(program, argv, log, &ready);

	if (pid < 0)
		r = err_sys(e, ERR_FAILED, errno, "Could not start a process for the machine '%s'", vm->name);
	else
		r = wait_ready(ready, pid, log, e);
	free(program);
	free(dir);
	free(log);
	return r;
}

/* What the machine's process is told. 0600: the console's password may be in it. */
static int
write_config(struct host *h, const struct host_vm *vm, const char *path, struct err *e)
{
	json_t *o = config_json(h, vm, e);
	int fd, r;

	if (!o)
		return -1;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = fd < 0 ? -1 : json_dumpfd(o, fd, JSON_INDENT(1));
	json_decref(o);
	if (r)
		err_sys(e, ERR_FILE, errno, "Could not write '%s'", path);
	if (fd >= 0)
		close(fd);
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

static int
start_locked(struct host *h, const char *uuid, struct err *e)
{
	struct host_vm *vm = load_settled(h, uuid, e);
	char *config = run_file(h, uuid, FILE_CONFIG);
	json_t *before = read_status(h, uuid);
	int r = -1;

	if (vm && lock_held(h, uuid, VM_FILE_LOCK))
		already_locked(vm->name, e);
	else if (vm && !check_media(vm, e) && !write_config(h, vm, config, e)) {
		r = run_program(h, vm, config, e);
		if (r)
			restore_status(h, uuid, before);
	}
	unlink(config);
	free(config);
	json_decref(before);
	host_vm_free(vm);
	return r;
}

int
host_vm_start(struct host *h, const char *id, const char *session, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	char *dir;
	int lock, r;

	if (!vm)
		return -1;
	dir = vm_run_dir(h, vm->uuid);
	r = dir_make(dir, 0700, e);
	free(dir);
	if (!r) {
		lock = take_start_lock(h, vm->uuid);
		r = lock < 0 ? already_locked(vm->name, e) : start_locked(h, vm->uuid, e);
		if (lock >= 0)
			close(lock);
	}
	host_vm_free(vm);
	return r;
}

/* ---- talking ---- */

/*
 * sun_path has 108 bytes and a home can be longer: connect through the directory's descriptor, which has a short name.
 */
static int
connect_control(struct host *h, const char *uuid)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = CALL_TIMEOUT_MS / 1000 };
	char *path = vm_run_dir(h, uuid);
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	free(path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/" VM_FILE_CONTROL, dir);
	if (fd >= 0 && (dir < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)))) {
		close(fd);
		fd = -1;
	}
	if (dir >= 0)
		close(dir);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return fd;
}

static int
send_message(int fd, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);
	size_t n = text ? strlen(text) : 0;
	uint8_t head[4];
	int r;

	if (!n || n > VM_MESSAGE_MAX) {
		free(text);
		return -EMSGSIZE;
	}
	put_le32(head, (uint32_t)n);
	r = send(fd, head, sizeof(head), MSG_NOSIGNAL | MSG_MORE) == sizeof(head) ? 0 : -errno;
	for (size_t done = 0; !r && done < n;) {
		ssize_t k = send(fd, text + done, n - done, MSG_NOSIGNAL);

		if (k > 0)
			done += (size_t)k;
		else if (errno != EINTR)
			r = -errno;
	}
	free(text);
	return r;
}

static json_t *
receive_message(int fd)
{
	uint8_t head[4];
	json_t *o = NULL;
	uint32_t n;
	char *text;

	if (read_full(fd, head, sizeof(head)) != sizeof(head))
		return NULL;
	n = le32(head);
	if (!n || n > VM_MESSAGE_MAX)
		return NULL;
	text = xcalloc(n, 1);
	if (read_full(fd, text, n) == (ssize_t)n)
		o = json_loadb(text, n, 0, NULL);
	free(text);
	return o;
}

static int
not_running(const char *name, struct err *e)
{
	return err_set(e, ERR_VM_STATE, "Machine '%s' is not currently running.", name);
}

json_t *
vm_call(struct host *h, const struct host_vm *vm, const char *method, json_t *params, struct err *e)
{
	json_t *request = json_pack("{s:i, s:s, s:o}", "id", 1, "method", method, "params", params);
	json_t *answer = NULL, *result = NULL;
	int fd = connect_control(h, vm->uuid), r;

	if (fd < 0) {
		json_decref(request);
		not_running(vm->name, e);
		return NULL;
	}
	r = send_message(fd, request);
	if (!r)
		answer = receive_message(fd);
	close(fd);
	json_decref(request);
	if (!answer)
		err_set(e, ERR_VM, "The process of machine '%s' did not answer '%s'", vm->name, method);
	else if (json_object_get(answer, "error"))
		error_from(json_object_get(answer, "error"), e);
	else
		result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	return result;
}

static struct host_vm *
load_running(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);

	if (!vm || host_state_live(vm->state))
		return vm;
	not_running(vm->name, e);
	host_vm_free(vm);
	return NULL;
}

/* After a power-off: until the process is gone, so that the next command finds the machine free. */
static void
wait_unlocked(struct host *h, const char *uuid)
{
	for (int ms = 0; ms < POWEROFF_WAIT_MS && lock_held(h, uuid, VM_FILE_LOCK); ms += 2)
		usleep(2000);
}

/* What VirtualBox says about a state in which the request makes no sense. */
static int
check_state(const struct host_vm *vm, enum host_control what, struct err *e)
{
	if (what == HOST_PAUSE && vm->state == HOST_PAUSED)
		return err_set(e, ERR_VM_STATE, "Already paused");
	if (what == HOST_PAUSE && vm->state != HOST_RUNNING)
		return err_set(e, ERR_VM_STATE, "Invalid machine state: %s", host_state_api(vm->state));
	if (what == HOST_RESUME && vm->state != HOST_PAUSED)
		return err_set(e, ERR_VM_STATE, "Cannot resume the machine as it is not paused (machine state: %s)",
			host_state_api(vm->state));
	if (what == HOST_POWER_BUTTON && vm->state != HOST_RUNNING)
		return err_set(e, ERR_VM_STATE, "Invalid machine state: %s", host_state_api(vm->state));
	return 0;
}

int
host_vm_control(struct host *h, const char *id, enum host_control what, struct err *e)
{
	static const char *const methods[] = {
		[HOST_PAUSE] = "pause",
		[HOST_RESUME] = "resume",
		[HOST_RESET] = "reset",
		[HOST_POWEROFF_NOW] = "poweroff",
		[HOST_POWER_BUTTON] = "acpipowerbutton",
	};
	struct host_vm *vm = load_running(h, id, e);
	json_t *answer = NULL;

	if (!vm)
		return -1;
	if (what == HOST_POWEROFF_NOW && vm->state == HOST_STOPPING) {
		wait_unlocked(h, vm->uuid);
		host_vm_free(vm);
		return 0;
	}
	if (!check_state(vm, what, e))
		answer = vm_call(h, vm, methods[what], json_object(), e);
	if (answer && what == HOST_POWEROFF_NOW)
		wait_unlocked(h, vm->uuid);
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

static const int8_t base64_value[256] = {
#define V(c, v) [c] = (v) + 1
	V('A', 0),
	V('B', 1),
	V('C', 2),
	V('D', 3),
	V('E', 4),
	V('F', 5),
	V('G', 6),
	V('H', 7),
	V('I', 8),
	V('J', 9),
	V('K', 10),
	V('L', 11),
	V('M', 12),
	V('N', 13),
	V('O', 14),
	V('P', 15),
	V('Q', 16),
	V('R', 17),
	V('S', 18),
	V('T', 19),
	V('U', 20),
	V('V', 21),
	V('W', 22),
	V('X', 23),
	V('Y', 24),
	V('Z', 25),
	V('a', 26),
	V('b', 27),
	V('c', 28),
	V('d', 29),
	V('e', 30),
	V('f', 31),
	V('g', 32),
	V('h', 33),
	V('i', 34),
	V('j', 35),
	V('k', 36),
	V('l', 37),
	V('m', 38),
	V('n', 39),
	V('o', 40),
	V('p', 41),
	V('q', 42),
	V('r', 43),
	V('s', 44),
	V('t', 45),
	V('u', 46),
	V('v', 47),
	V('w', 48),
	V('x', 49),
	V('y', 50),
	V('z', 51),
	V('0', 52),
	V('1', 53),
	V('2', 54),
	V('3', 55),
	V('4', 56),
	V('5', 57),
	V('6', 58),
	V('7', 59),
	V('8', 60),
	V('9', 61),
	V('+', 62),
	V('/', 63),
#undef V
};

/* RFC 4648 section 4. Decodes in place; the number of bytes. */
static size_t
base64_decode(char *text)
{
	uint8_t *out = (uint8_t *)text;
	uint32_t bits = 0;
	int have = 0;

	for (const uint8_t *p = (uint8_t *)text; *p && base64_value[*p]; p++) {
		bits = bits << 6 | (uint32_t)(base64_value[*p] - 1);
		have += 6;
		if (have >= 8) {
			have -= 8;
			*out++ = (uint8_t)(bits >> have);
		}
	}
	return (size_t)(out - (uint8_t *)text);
}

static int
save_png(json_t *answer, const char *path, struct err *e)
{
	const char *text = json_string_value(json_object_get(answer, "png"));
	char *abs, *png;
	size_t n;
	int fd, r = 0;

	if (!text)
		return err_set(e, ERR_VM, "The machine's process sent no picture");
	png = xstrdup(text);
	n = base64_decode(png);
	abs = host_absolute_path(path);
	fd = open(abs, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		r = err_sys(e, ERR_FILE, errno, "Failed to create file '%s'", abs);
	else if ((r = (int)write_full(fd, png, n)) < 0)
		r = err_sys(e, ERR_FILE, r, "Failed to write file '%s'", abs);
	if (fd >= 0)
		close(fd);
	free(abs);
	free(png);
	return r < 0 ? -1 : 0;
}

/* One request whose answer says nothing more. `params` is taken over. */
static int
simple_call(struct host *h, const char *id, const char *method, json_t *params, struct err *e)
{
	struct host_vm *vm = load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, method, params, e) : NULL;

	if (!vm)
		json_decref(params);
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

int
host_vm_screenshot(struct host *h, const char *id, const char *png_path, struct err *e)
{
	struct host_vm *vm = load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, "screenshot", json_object(), e) : NULL;
	int r = answer ? save_png(answer, png_path, e) : -1;

	json_decref(answer);
	host_vm_free(vm);
	return r;
}

int
host_vm_scancodes(struct host *h, const char *id, const uint8_t *codes, size_t count, struct err *e)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, json_integer(codes[i]));
	return simple_call(h, id, "keyboard.scancodes", json_pack("{s:o}", "codes", list), e);
}

int
host_vm_type_text(struct host *h, const char *id, const char *utf8, struct err *e)
{
	json_t *text = json_string(utf8);

	if (!text)
		return err_set(e, ERR_INVALID, "The text to type is not UTF-8");
	return simple_call(h, id, "keyboard.string", json_pack("{s:o}", "text", text), e);
}

static json_t *
live_request(const struct host_change *c, const char **method)
{
	bool on = !strcmp(c->value, "on");

	switch ((int)c->key) {
	case HK_CABLECONNECTED:
		*method = "setlinkstate";
		return json_pack("{s:i, s:b}", "slot", c->slot, "cable", on);
	case HK_NATPF_ADD:
		*method = "natpf.add";
		return json_pack("{s:i, s:s}", "slot", c->slot, "rule", c->value);
	case HK_NATPF_DELETE:
		*method = "natpf.remove";
		return json_pack("{s:i, s:s}", "slot", c->slot, "name", c->value);
	case HK_NICTRACE:
		*method = "nictrace";
		return json_pack("{s:i, s:b}", "slot", c->slot, "enable", on);
	case HK_VRDE:
		*method = "vrde.set";
		return json_pack("{s:b}", "enable", on);
	default:
		return NULL;
	}
}

/* The inventory first, in a transaction that the machine's refusal rolls back. */
int
host_vm_change_live(struct host *h, const char *id, const struct host_change *c, struct err *e)
{
	const char *method = NULL;
	struct host_vm *vm;
	json_t *params, *answer = NULL;

	if (db_begin(h, e))
		return -1;
	vm = load_running(h, id, e);
	if (!vm || vm_apply(h, vm, c, e) || vm_store(h, vm, e))
		goto fail;
	params = live_request(c, &method);
	if (params) {
		answer = vm_call(h, vm, method, params, e);
		if (!answer)
			goto fail;
	}
	json_decref(answer);
	if (vboxfile_write(h, vm, e) || db_commit(h, e))
		goto fail;
	host_vm_free(vm);
	return 0;
fail:
	db_rollback(h);
	host_vm_free(vm);
	return -1;
}

int
host_vm_live(struct host *h, const struct host_vm *vm, struct host_live *out, struct err *e)
{
	json_t *o = vm_call(h, vm, "status", json_object(), e);
	const char *engine;

	*out = (struct host_live){ .width = 720, .height = 400, .depth = 32, .vrde_port = -1 };
	if (!o)
		return -1;
	out->width = (int)json_integer_value(json_object_get(o, "width"));
	out->height = (int)json_integer_value(json_object_get(o, "height"));
	out->vrde_port = (int)json_integer_value(json_object_get(o, "vrde_port"));
	if (out->vrde_port <= 0)
		out->vrde_port = -1;
	out->vrde_client = json_integer_value(json_object_get(o, "vrde_clients")) > 0;
	engine = json_string_value(json_object_get(o, "engine"));
	snprintf(out->engine, sizeof(out->engine), "%s", engine ? engine : "");
	json_decref(o);
	return 0;
}

/* ---- which engine ---- */

int
host_engine(struct host *h, const char *wanted, char *name, size_t name_size, char *why, size_t why_size, struct err *e)
{
	const char *env = getenv("LODGE_ENGINE");
	char *program = find_program(), line[4096];
	int ready = -1, status, r = -1;
	json_t *o = NULL;
	pid_t pid;

	if (!wanted)
		wanted = env && *env ? env : "auto";
	char *const argv[] = { "lodge-vm", "--which-engine", (char *)wanted, "--ready-fd", "3", NULL };
	pid = spawn(program, argv, "/dev/null", &ready);
	free(program);
	if (pid < 0)
		return err_sys(e, ERR_FAILED, errno, "Could not start a process");
	if (!read_line(ready, line, sizeof(line)))
		o = json_loads(line, 0, NULL);
	close(ready);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!o) {
		err_set(e, ERR_HOST, "lodge-vm does not tell which engine it would use");
	} else if (json_object_get(o, "error")) {
		error_from(json_object_get(o, "error"), e);
	} else {
		const char *n = json_string_value(json_object_get(o, "engine"));
		const char *w = json_string_value(json_object_get(o, "engine_reason"));

		snprintf(name, name_size, "%s", n ? n : "");
		snprintf(why, why_size, "%s", w ? w : "");
		r = 0;
	}
	json_decref(o);
	return r;
}
