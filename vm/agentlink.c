/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest agent's channel in a machine: the virtio port, the control socket's requests about it, and the list of what
 * clients do through it.
 *
 * Why here, in the machine's process, and not in the clients: the channel is one stream without names for answers, so
 * somebody has to take turns for all clients at once and to find back into step after a client was killed half-way;
 * only this process is there all the time. And the bytes of a hostile guest are taken apart inside the sandbox. What
 * the requests are, users, programs and files, is not known here: host/guest.c makes them.
 *
 * Sessions and their processes are only a list that clients keep here for each other (`guestcontrol list`): one belongs
 * to its connection and goes with it, unless it was let go ("detach").
 */
#include <stdlib.h>
#include <string.h>

#include "dev/dev.h"
#include "vm/agent.h"
#include "vm/logins.h"

#define SESSIONS_MAX 64
#define PROCESSES_MAX 256

static size_t
write_port(void *opaque, const void *bytes, size_t n)
{
	struct vm *v = opaque;

	return v->agent_device && v->agent_device->made ? virtio_serial_write(v->agent_device->made, bytes, n) : 0;
}

static void
answer(void *opaque, struct vm_asker *asker, json_t *result, const struct err *e)
{
	struct vm *v = opaque;

	if (v->control)
		control_answer(v->control, asker, result, e);
	else
		json_decref(result);
}

static void
port_opened(void *opaque, bool open)
{
	struct vm *v = opaque;

	agent_opened(v->agent, open);
	vm_agent_info_opened(v, open);
}

static size_t
port_receive(void *opaque, const uint8_t *bytes, size_t n)
{
	struct vm *v = opaque;

	return agent_receive(v->agent, bytes, n);
}

static void
port_writable(void *opaque)
{
	struct vm *v = opaque;

	agent_writable(v->agent);
}

static const struct virtio_port_user port_user = {
	.opened = port_opened,
	.receive = port_receive,
	.writable = port_writable,
};

void
vm_agent_wire(struct vm *v, struct pc_device *d)
{
	d->port = &port_user;
	d->port_opaque = v;
	v->agent_device = d;
}

int
vm_agent_open(struct vm *v, struct err *e)
{
	struct agent_wires w = { .write = write_port, .answer = answer, .opaque = v };

	v->agent = agent_create(v->m->loop, v->c->name, &w);
	v->sessions = json_array();
	v->logins = logins_create();
	machine_lock(v->m);
	vm_agent_info_start(v);
	vm_timesync_start(v);
	machine_unlock(v->m);
	return 0;
}

void
vm_agent_close(struct vm *v)
{
	machine_lock(v->m);
	vm_timesync_stop(v);
	vm_agent_info_stop(v);
	agent_destroy(v->agent);
	v->agent = NULL;
	machine_unlock(v->m);
	json_decref(v->sessions);
	v->sessions = NULL;
	logins_destroy(v->logins);
	v->logins = NULL;
}

void
vm_agent_resumed(struct vm *v)
{
	if (v->agent)
		agent_writable(v->agent);
}

/* ---- sessions ---- */

static json_t *
find_session(struct vm *v, json_int_t id, size_t *place)
{
	size_t count = json_array_size(v->sessions);

	for (*place = 0; *place < count; (*place)++) {
		json_t *s = json_array_get(v->sessions, *place);

		if (json_integer_value(json_object_get(s, "id")) == id)
			return s;
	}
	return NULL;
}

static int
session_add(struct vm *v, const json_t *p, uint64_t client, json_t **result, struct err *e)
{
	const char *name = json_string_value(json_object_get(p, "name"));
	const char *user = json_string_value(json_object_get(p, "user"));

	if (!name || !user || strlen(name) > 255 || strlen(user) > 255)
		return err_set(e, ERR_INVALID, "a session has a 'name' and a 'user'");
	if (json_array_size(v->sessions) >= SESSIONS_MAX)
		return err_set(e, ERR_IPRT, "There are %d guest sessions already", SESSIONS_MAX);
	v->next_session++;
	json_array_append_new(
		v->sessions, json_pack("{s:I, s:s, s:s, s:I, s:[]}", "id", (json_int_t)v->next_session, "name", name,
				     "user", user, "client", (json_int_t)client, "processes"));
	*result = json_pack("{s:I}", "id", (json_int_t)v->next_session);
	return 0;
}

static int
session_process(json_t *s, const json_t *p, struct err *e)
{
	json_t *list = json_object_get(s, "processes"), *pid = json_object_get(p, "pid"),
	       *command = json_object_get(p, "command");

	if (!json_is_integer(pid) || !json_is_string(command) || json_string_length(command) > 4096)
		return err_set(e, ERR_INVALID, "a process has a 'pid' and a 'command'");
	if (json_array_size(list) >= PROCESSES_MAX)
		json_array_remove(list, 0);
	json_array_append(list, (json_t *)p);
	return 0;
}

int
vm_agent_session(struct vm *v, const json_t *p, uint64_t client, json_t **result, struct err *e)
{
	const char *what = json_string_value(json_object_get(p, "what"));
	size_t place;
	json_t *s;

	if (!what)
		return err_set(e, ERR_INVALID, "'what' is add, process, detach, remove or list");
	if (!strcmp(what, "add"))
		return session_add(v, p, client, result, e);
	if (!strcmp(what, "list")) {
		*result = json_pack("{s:o}", "sessions", json_deep_copy(v->sessions));
		return 0;
	}
	s = find_session(v, json_integer_value(json_object_get(p, "id")), &place);
	if (!s)
		return err_set(e, ERR_NOT_FOUND, "There is no such guest session");
	if (!strcmp(what, "process"))
		return session_process(s, json_object_get(p, "process"), e);
	if (!strcmp(what, "detach"))
		json_object_set_new(s, "client", json_integer(0));
	else if (!strcmp(what, "remove"))
		json_array_remove(v->sessions, place);
	else
		return err_set(e, ERR_INVALID, "'what' is add, process, detach, remove or list");
	return 0;
}

void
vm_agent_client_gone(struct vm *v, uint64_t client)
{
	if (!v->agent)
		return;
	for (size_t i = json_array_size(v->sessions); i--;) {
		json_t *s = json_array_get(v->sessions, i);

		if (json_integer_value(json_object_get(s, "client")) == (json_int_t)client)
			json_array_remove(v->sessions, i);
	}
	agent_asker_gone(v->agent, client);
}

/* ---- requests ---- */

static int
login(struct vm *v, const json_t *p, json_t **result, struct err *e)
{
	const char *user = json_string_value(json_object_get(p, "user"));
	const char *password = json_string_value(json_object_get(p, "password"));
	const char *line = json_string_value(json_object_get(p, "line"));

	if (!user || !password || strlen(user) > 255 || strlen(password) > 4096)
		return err_set(e, ERR_INVALID, "a login has a 'user' and a 'password'");
	if (line)
		logins_add(v->logins, user, password, line);
	else if ((line = logins_find(v->logins, user, password)))
		*result = json_pack("{s:s}", "line", line);
	return 0;
}

static bool
can_talk(struct vm *v, struct err *e)
{
	if (!v->c->agent)
		err_set(e, ERR_UNSUPPORTED, "The machine has no channel for a guest agent");
	else if (v->state != VM_RUNNING)
		err_set(e, ERR_VM_STATE, "The guest cannot be asked: the machine is %s", vm_state_text(v->state));
	else
		return true;
	return false;
}

enum method_result
vm_agent_method(struct vm *v, enum vm_agent_request what, const json_t *params, const struct vm_asker *asker,
	json_t **result, struct err *e)
{
	struct vm_asker later = { asker->client, json_incref(asker->id) };
	int r = -1;

	switch (what) {
	case AGENT_STATUS:
		*result = json_pack("{s:b, s:b, s:I}", "open", agent_is_open(v->agent), "ready",
			agent_in_sync(v->agent), "events", (json_int_t)agent_events(v->agent));
		r = 1;
		break;
	case AGENT_CALL:
		if (can_talk(v, e))
			r = agent_call(v->agent, later, params, e);
		break;
	case AGENT_WAIT:
		r = agent_wait(v->agent, later, params, e);
		break;
	case AGENT_ONCLOSE:
		r = agent_onclose(v->agent, asker->client, params, e) ? -1 : 1;
		break;
	case AGENT_SESSION:
		r = vm_agent_session(v, params, asker->client, result, e) ? -1 : 1;
		break;
	case AGENT_LOGIN:
		r = login(v, params, result, e) ? -1 : 1;
		break;
	}
	if (r)
		json_decref(later.id);
	if (r > 0 && !*result)
		*result = json_object();
	return r < 0 ? METHOD_FAILED : r ? METHOD_DONE : METHOD_LATER;
}
