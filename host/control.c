/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to machines that run: one connection to the control socket, one request, one answer (vm/protocol.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/bytes.h"
#include "host/inv.h"
#include "host/run.h"
#include "vm/protocol.h"

#define CALL_S 60
#define POWEROFF_WAIT_MS 20000
#define ENDING_MS 2000

int
protocol_error(json_t *error, struct err *e)
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

/* The head of a message, with a descriptor. */
static int
send_fd(int sock, const uint8_t *head, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .head = {
			      .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { (void *)(uintptr_t)head, 4 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(int));
	return sendmsg(sock, &m, MSG_NOSIGNAL) == 4 ? 0 : -errno;
}

static int
send_message(int fd, json_t *message, int pass)
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
	if (pass >= 0)
		r = send_fd(fd, head, pass);
	else
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

/* Descriptors that came with bytes. */
struct received {
	int fds[8], count;
};

/* As read_full(); descriptors are kept, or closed when nobody wants them. */
static bool
receive_full(int fd, void *buf, size_t n, struct received *got)
{
	uint8_t *p = buf;

	while (n) {
		char space[CMSG_SPACE(8 * sizeof(int))];
		struct iovec iov = { p, n };
		struct msghdr msg = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
		};
		ssize_t k = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h)) {
			size_t count = h->cmsg_type == SCM_RIGHTS ? (h->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

			for (size_t i = 0; i < count; i++) {
				int passed;

				memcpy(&passed, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
				if (got && got->count < 8)
					got->fds[got->count++] = passed;
				else
					close(passed);
			}
		}
		p += k;
		n -= (size_t)k;
	}
	return true;
}

static json_t *
receive_message(int fd, struct received *got)
{
	uint8_t head[4];
	json_t *o = NULL;
	uint32_t n;
	char *text;

	if (!receive_full(fd, head, sizeof(head), got))
		return NULL;
	n = le32(head);
	if (!n || n > VM_REPLY_MAX)
		return NULL;
	text = xcalloc(n, 1);
	if (receive_full(fd, text, n, got))
		o = json_loadb(text, n, 0, NULL);
	free(text);
	return o;
}

static int
not_running(const char *name, struct err *e)
{
	return err_set(e, ERR_VM_STATE, "Machine '%s' is not currently running.", name);
}

static bool
is_stopped(const struct host_progress *p)
{
	return p && p->stopped && p->stopped(p->opaque);
}

/*
 * Until something can be read. Meanwhile the machine's process is told, over another connection, that who
 * asked wants no more: it answers the request all the same.
 */
static void
wait_readable(int fd, struct host *h, const struct host_vm *vm, const struct host_progress *p)
{
	struct pollfd w = { .fd = fd, .events = POLLIN };

	do
		if (is_stopped(p))
			json_decref(vm_call(h, vm, "cancel", json_object(), NULL));
	while (p && p->stopped && poll(&w, 1, STOP_LOOK_MS) <= 0);
}

/* The answer, after what may come before it of how far the machine's process is. */
static json_t *
receive_answer(int fd, struct host *h, const struct host_vm *vm, const struct host_progress *p, struct received *got)
{
	json_t *o, *percent;

	for (;;) {
		wait_readable(fd, h, vm, p);
		o = receive_message(fd, got);
		percent = json_object_get(o, "progress");
		if (!percent)
			return o;
		if (p && p->percent)
			p->percent(p->opaque, (int)json_integer_value(percent));
		json_decref(o);
	}
}

/* Over a connection there is; its result, or NULL and *e. `params` is taken over. */
static json_t *
ask(int fd, struct host *h, const struct host_vm *vm, const char *method, json_t *params, int pass,
	const struct host_progress *p, struct received *got, struct err *e)
{
	json_t *request = json_pack("{s:i, s:s, s:o}", "id", 1, "method", method, "params", params);
	json_t *answer = NULL, *result = NULL;
	int r = send_message(fd, request, pass);

	if (!r && p) {
		struct timeval forever = { 0 };

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	}
	if (!r)
		answer = receive_answer(fd, h, vm, p, got);
	json_decref(request);
	if (!answer)
		err_set(e, ERR_VM, "The process of machine '%s' did not answer '%s'", vm->name, method);
	else if (json_object_get(answer, "error"))
		protocol_error(json_object_get(answer, "error"), e);
	else
		result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	return result;
}

int
vm_line_open(struct host *h, const struct host_vm *vm, struct err *e)
{
	char *dir = vm_run_dir(h, vm->uuid);
	int fd = peer_connect(dir, VM_FILE_CONTROL, CALL_S);

	free(dir);
	return fd < 0 ? not_running(vm->name, e) : fd;
}

json_t *
vm_line_call(int fd, const struct host_vm *vm, const char *method, json_t *params, uint64_t ms, struct err *e)
{
	struct timeval limit = { .tv_sec = (time_t)(ms / 1000) + CALL_S };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return ask(fd, NULL, vm, method, params, -1, NULL, NULL, e);
}

/* There is no answer because somebody else has ended the machine, in order, just now. */
static bool
ended_meanwhile(struct host *h, const struct host_vm *vm)
{
	struct host_vm *now;
	bool ended;

	for (int ms = 0; ms < ENDING_MS && vm_process_alive(h, vm->uuid); ms += 2)
		usleep(2000);
	if (vm_process_alive(h, vm->uuid))
		return false;
	now = host_vm_load(h, vm->uuid, NULL);
	ended = !now || now->state != HOST_ABORTED;
	host_vm_free(now);
	return ended;
}

static json_t *
call(struct host *h, const struct host_vm *vm, const char *method, json_t *params, int pass,
	const struct host_progress *p, struct received *got, struct err *e)
{
	int fd = vm_line_open(h, vm, e);
	json_t *result;

	if (fd < 0) {
		json_decref(params);
		return NULL;
	}
	result = ask(fd, h, vm, method, params, pass, p, got, e);
	close(fd);
	if (!result && e && e->code == ERR_VM && ended_meanwhile(h, vm))
		not_running(vm->name, e);
	return result;
}

json_t *
vm_call_fd(struct host *h, const struct host_vm *vm, const char *method, json_t *params, int pass, struct err *e)
{
	return call(h, vm, method, params, pass, NULL, NULL, e);
}

json_t *
vm_call_long(struct host *h, const struct host_vm *vm, const char *method, json_t *params,
	const struct host_progress *p, struct err *e)
{
	return call(h, vm, method, params, -1, p, NULL, e);
}

json_t *
vm_call_fds(struct host *h, const struct host_vm *vm, const char *method, json_t *params, const struct host_progress *p,
	int fds[8], int *fd_count, struct err *e)
{
	struct received got = { .count = 0 };
	json_t *answer = call(h, vm, method, params, -1, p, &got, e);

	memcpy(fds, got.fds, sizeof(got.fds));
	*fd_count = got.count;
	return answer;
}

json_t *
vm_call(struct host *h, const struct host_vm *vm, const char *method, json_t *params, struct err *e)
{
	return vm_call_long(h, vm, method, params, NULL, e);
}

void
vm_wait_gone(struct host *h, const char *uuid)
{
	for (int ms = 0; ms < POWEROFF_WAIT_MS && vm_process_alive(h, uuid); ms += 2)
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
	struct host_vm *vm = vm_load_running(h, id, e);
	json_t *answer = NULL;

	if (!vm)
		return -1;
	if (what == HOST_POWEROFF_NOW && vm->state == HOST_STOPPING) {
		vm_wait_gone(h, vm->uuid);
		host_vm_free(vm);
		return 0;
	}
	if (!check_state(vm, what, e))
		answer = vm_call(h, vm, methods[what], json_object(), e);
	if (answer && what == HOST_POWEROFF_NOW)
		vm_wait_gone(h, vm->uuid);
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
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
	n = base64_bytes(png);
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
	struct host_vm *vm = vm_load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, method, params, e) : NULL;

	if (!vm)
		json_decref(params);
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

int
host_vm_screenshot(struct host *h, const char *id, int screen, const char *png_path, struct err *e)
{
	struct host_vm *vm = vm_load_running(h, id, e);
	json_t *answer = vm ? vm_call(h, vm, "screenshot", json_pack("{s:i}", "screen", screen), e) : NULL;
	int r = answer ? save_png(answer, png_path, e) : -1;

	json_decref(answer);
	host_vm_free(vm);
	return r;
}

int
host_vm_add_password(struct host *h, const char *id, const char *name, const char *password, struct err *e)
{
	return simple_call(h, id, "disk.password", json_pack("{s:s, s:s}", "name", name, "password", password), e);
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

int
host_vm_display_hint(struct host *h, const char *id, const struct host_display_hint *hint, struct err *e)
{
	json_t *params = json_pack("{s:i, s:i, s:i, s:i, s:b}", "display", hint->display, "width", hint->width,
		"height", hint->height, "bpp", hint->bpp, "enabled", hint->enabled);

	if (hint->placed) {
		json_object_set_new(params, "x", json_integer(hint->x));
		json_object_set_new(params, "y", json_integer(hint->y));
	}
	return simple_call(h, id, "display.hint", params, e);
}

int
host_vm_balloon(struct host *h, const char *id, int mib, struct err *e)
{
	return simple_call(h, id, "balloon", json_pack("{s:i}", "mib", mib), e);
}

static json_t *
live_request(const struct host_change *c, const char **method)
{
	bool on = !strcmp(c->value, "on");
	struct nat_rule rule;
	json_t *params;
	char *text;

	switch ((int)c->key) {
	case HK_CABLECONNECTED:
		*method = "setlinkstate";
		return json_pack("{s:i, s:b}", "slot", c->slot, "cable", on);
	case HK_NATPF_ADD:
		*method = "natpf.add";
		if (vm_rule_parse(c->value, &rule, NULL))
			return NULL;
		text = vm_rule_text(&rule);
		params = json_pack("{s:i, s:s}", "slot", c->slot, "rule", text);
		free(text);
		return params;
	case HK_NATPF_DELETE:
		*method = "natpf.remove";
		return json_pack("{s:i, s:s}", "slot", c->slot, "name", c->value);
	case HK_NICTRACE:
		*method = "nictrace";
		return json_pack("{s:i, s:b}", "slot", c->slot, "enable", on);
	case HK_CPUEXECUTIONCAP:
		*method = "cpu_cap";
		return json_pack("{s:i}", "percent", atoi(c->value));
	case HK_VRDEPORT:
		*method = "vrde.set";
		return json_pack("{s:s}", "ports", c->value);
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
	vm = vm_load_running(h, id, e);
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
	const char *engine, *version;
	json_t *additions;

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
	additions = json_object_get(o, "additions");
	version = json_string_value(json_object_get(additions, "version"));
	out->additions_level = (int)json_integer_value(json_object_get(additions, "run_level"));
	if (version && *version)
		snprintf(out->additions, sizeof(out->additions), "%.20s r%d", version,
			(int)json_integer_value(json_object_get(additions, "revision")));
	json_decref(o);
	return 0;
}
