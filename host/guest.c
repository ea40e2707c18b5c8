/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to the guest's agent: a connection to the machine's process, whose "agent.call" (vm/protocol.h) passes
 * requests of QEMU's guest agent protocol on, one at a time for all clients.
 *
 * A connection is a session: what is to be undone in the guest if this process dies is told beforehand
 * ("agent.onclose"), so that a killed client leaves neither programs nor files nor open handles there.
 */
#include "host/guest.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/run.h"
#include "vm/protocol.h"

/* ---- small things ---- */

void
sh_quote(struct str *out, const char *text)
{
	str_add(out, "'");
	for (; *text; text++) {
		if (*text == '\'')
			str_add(out, "'\\''");
		else
			str_addn(out, text, 1);
	}
	str_add(out, "'");
}

uint64_t
guest_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- requests ---- */

static void
note_events(struct host_guest *g, json_t *result)
{
	json_t *n = json_object_get(result, "events");

	if (json_is_integer(n))
		g->events = (uint64_t)json_integer_value(n);
}

json_t *
guest_ask(struct host_guest *g, const char *execute, json_t *arguments, uint64_t timeout_ms, struct err *e)
{
	json_t *params = json_pack("{s:s, s:I}", "execute", execute, "timeout_ms", (json_int_t)timeout_ms);
	json_t *result, *back, *error;
	const char *text;

	if (arguments)
		json_object_set_new(params, "arguments", arguments);
	g->agent_error[0] = 0;
	result = vm_line_call(g->fd, g->vm, "agent.call", params, timeout_ms, e);
	if (!result)
		return NULL;
	note_events(g, result);
	back = json_incref(json_object_get(result, "return"));
	error = json_object_get(result, "error");
	if (!back) {
		text = json_string_value(json_object_get(error, "class"));
		snprintf(g->agent_error, sizeof(g->agent_error), "%s", text ? text : "GenericError");
		text = json_string_value(json_object_get(error, "desc"));
		err_set(e, ERR_GUEST, "%.900s", text ? text : "The guest agent reports an error without saying which");
	}
	json_decref(result);
	return back;
}

int
guest_wait(struct host_guest *g, uint64_t timeout_ms, struct err *e)
{
	json_t *result = vm_line_call(g->fd, g->vm, "agent.wait",
		json_pack("{s:I, s:I}", "events", (json_int_t)g->events, "timeout_ms", (json_int_t)timeout_ms),
		timeout_ms, e);

	note_events(g, result);
	json_decref(result);
	return result ? 0 : -1;
}

void
guest_leave(struct host_guest *g, const char *execute, json_t *arguments)
{
	json_array_append_new(g->leave, json_pack("{s:s, s:o}", "execute", execute, "arguments", arguments));
}

void
guest_leave_now(struct host_guest *g)
{
	struct err unused;

	for (size_t i = 0; i < json_array_size(g->leave); i++) {
		json_t *call = json_array_get(g->leave, i);

		json_decref(guest_ask(g, json_string_value(json_object_get(call, "execute")),
			json_incref(json_object_get(call, "arguments")), GUEST_ASK_MS, &unused));
	}
	guest_leave_clear(g);
}

void
guest_leave_clear(struct host_guest *g)
{
	json_array_clear(g->leave);
}

int
guest_leave_tell(struct host_guest *g, struct err *e)
{
	json_t *r = vm_line_call(g->fd, g->vm, "agent.onclose", json_pack("{s:O}", "calls", g->leave), 0, e);

	json_decref(r);
	return r ? 0 : -1;
}

json_t *
guest_session(struct host_guest *g, const char *what, json_t *params, struct err *e)
{
	json_object_set_new(params, "what", json_string(what));
	return vm_line_call(g->fd, g->vm, "agent.session", params, 0, e);
}

json_t *
guest_kill_request(int64_t pid, const char *files)
{
	char *script = xasprintf("kill -TERM -%lld 2>/dev/null || kill -TERM %lld 2>/dev/null && "
				 "{ sleep 2; kill -KILL -%lld; kill -KILL %lld; } 2>/dev/null; rm -f -- %s",
		(long long)pid, (long long)pid, (long long)pid, (long long)pid, files);
	json_t *o;

	if (pid)
		o = json_pack("{s:s, s:[s,s], s:[s]}", "path", "/bin/sh", "arg", "-c", script, "env", GUEST_PATH);
	else
		o = json_pack("{s:s, s:[s,s], s:[s]}", "path", "/bin/sh", "arg", "-c", strstr(script, "rm -f -- "),
			"env", GUEST_PATH);
	free(script);
	return o;
}

/* ---- life ---- */

struct host_guest *
guest_connect(struct host *h, const char *vm, struct err *e)
{
	struct host_guest *g = xcalloc(1, sizeof(*g));

	g->h = h;
	g->fd = -1;
	g->leave = json_array();
	g->vm = host_vm_load(h, vm, e);
	if (!g->vm)
		goto fail;
	if (g->vm->state != HOST_RUNNING) {
		err_set(e, ERR_VM_STATE, "Machine \"%s\" is not running (currently %s)!", g->vm->name,
			host_state_long(g->vm->state));
		goto fail;
	}
	g->fd = vm_line_open(h, g->vm, e);
	if (g->fd >= 0)
		return g;
fail:
	host_guest_close(g);
	return NULL;
}

/* Whose agent it is: only ours knows the command. Nothing is started by asking for nothing. */
static int
meet_agent(struct host_guest *g, struct err *e)
{
	json_t *r = guest_ask(g, "lodge-version", NULL, GUEST_ASK_MS, e);

	g->ours = r != NULL;
	json_decref(r);
	return r || g->agent_error[0] ? 0 : -1;
}

struct host_guest *
host_guest_open(
	struct host *h, const char *vm, const char *user, const char *password, const char *session_name, struct err *e)
{
	struct host_guest *g = guest_connect(h, vm, e);
	json_t *r;

	if (!g)
		return NULL;
	if (strchr(user, '\n') || strchr(user, ':') || strchr(password, '\n')) {
		err_set(e, ERR_ACCESS, "The specified user was not able to logon on guest");
		goto fail;
	}
	g->user = xstrdup(user);
	g->password = xstrdup(password);
	if (meet_agent(g, e))
		goto fail;
	r = guest_session(g, "add", json_pack("{s:s, s:s}", "name", session_name, "user", user), e);
	if (!r)
		goto fail;
	g->session = (uint64_t)json_integer_value(json_object_get(r, "id"));
	json_decref(r);
	return g;
fail:
	host_guest_close(g);
	return NULL;
}

void
host_guest_close(struct host_guest *g)
{
	if (!g)
		return;
	if (g->fd >= 0)
		close(g->fd);
	host_vm_free(g->vm);
	json_decref(g->leave);
	free(g->user);
	if (g->password)
		explicit_bzero(g->password, strlen(g->password));
	free(g->password);
	free(g);
}

uint64_t
host_guest_session(const struct host_guest *g)
{
	return g->session;
}

int
host_guest_agent(struct host *h, const char *vm, uint64_t timeout_ms, char **version, bool *ours, struct err *e)
{
	struct host_guest *g = guest_connect(h, vm, e);
	uint64_t end = guest_now_ms() + timeout_ms, now;
	json_t *r = NULL;
	int status = -1;

	*version = NULL;
	while (g && status) {
		status = meet_agent(g, e);
		now = guest_now_ms();
		if (status && (now >= end || guest_wait(g, MIN(end - now, 1000u), e)))
			break;
	}
	if (!status)
		r = guest_ask(g, "guest-info", NULL, GUEST_ASK_MS, e);
	if (r) {
		const char *text = json_string_value(json_object_get(r, "version"));

		*version = xstrdup(text ? text : "");
		*ours = g->ours;
	}
	json_decref(r);
	host_guest_close(g);
	return r ? 0 : -1;
}

/* ---- sessions of all clients ---- */

static json_t *
all_sessions(struct host_guest *g, struct err *e)
{
	json_t *r = guest_session(g, "list", json_object(), e), *list = json_incref(json_object_get(r, "sessions"));

	json_decref(r);
	return list;
}

/* Asked of the kernel, not of the agent, who forgets what it has told once. */
static bool
still_runs(struct host_guest *g, int64_t pid)
{
	struct err unused;
	char *path = xasprintf("/proc/%lld/stat", (long long)pid);
	json_t *r = guest_ask(
		g, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", "r"), GUEST_ASK_MS, &unused);

	if (r)
		json_decref(guest_ask(g, "guest-file-close", json_pack("{s:O}", "handle", r), GUEST_ASK_MS, &unused));
	json_decref(r);
	free(path);
	return r != NULL;
}

static int
tell_session(struct host_guest *g, json_t *s, int (*fn)(void *opaque, const struct host_guest_row *r), void *opaque)
{
	struct host_guest_row row = {
		.session = (uint64_t)json_integer_value(json_object_get(s, "id")),
		.name = json_string_value(json_object_get(s, "name")),
		.user = json_string_value(json_object_get(s, "user")),
		.running = true,
	};
	json_t *list = json_object_get(s, "processes");
	int r = fn(opaque, &row);

	for (size_t i = 0; !r && i < json_array_size(list); i++) {
		row.pid = json_integer_value(json_object_get(json_array_get(list, i), "pid"));
		row.command = json_string_value(json_object_get(json_array_get(list, i), "command"));
		row.running = still_runs(g, row.pid);
		r = fn(opaque, &row);
	}
	return r;
}

int
host_guest_each(struct host *h, const char *vm, int (*fn)(void *opaque, const struct host_guest_row *r), void *opaque,
	struct err *e)
{
	struct host_guest *g = guest_connect(h, vm, e);
	json_t *list = g ? all_sessions(g, e) : NULL;
	int r = list ? 0 : -1;

	for (size_t i = 0; !r && i < json_array_size(list); i++)
		r = tell_session(g, json_array_get(list, i), fn, opaque);
	json_decref(list);
	host_guest_close(g);
	return r;
}

static int
end_processes(struct host_guest *g, json_t *s, int64_t pid, struct err *e)
{
	json_t *list = json_object_get(s, "processes"), *r;
	bool any = !pid;

	for (size_t i = 0; i < json_array_size(list); i++) {
		int64_t p = json_integer_value(json_object_get(json_array_get(list, i), "pid"));

		if ((pid && p != pid) || p <= 1 || !still_runs(g, p))
			continue;
		any = true;
		r = guest_ask(g, "guest-exec", guest_kill_request(p, ""), GUEST_ASK_MS, e);
		json_decref(r);
		if (!r)
			return -1;
	}
	return any ? 0 : err_set(e, ERR_NOT_FOUND, "The session has no process %lld that runs", (long long)pid);
}

int
host_guest_end(struct host *h, const char *vm, uint64_t session, int64_t pid, struct err *e)
{
	struct host_guest *g = guest_connect(h, vm, e);
	json_t *list = g ? all_sessions(g, e) : NULL, *gone;
	int r = list ? err_set(e, ERR_NOT_FOUND, "There is no guest session %llu", (unsigned long long)session) : -1;

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *s = json_array_get(list, i);

		if ((uint64_t)json_integer_value(json_object_get(s, "id")) != session)
			continue;
		r = end_processes(g, s, pid, e);
		if (r || pid)
			break;
		gone = guest_session(g, "remove", json_pack("{s:I}", "id", (json_int_t)session), e);
		r = gone ? 0 : -1;
		json_decref(gone);
	}
	json_decref(list);
	host_guest_close(g);
	return r;
}
