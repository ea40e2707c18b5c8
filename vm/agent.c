/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of QEMU's guest agent protocol (its qga/qapi-schema.json; docs/interop/qemu-ga.rst): requests and answers
 * are JSON objects, one a line, {"execute":"guest-info"} and {"return":{...}} or {"error":{"class","desc"}}. The agent
 * carries out one request at a time and answers in order, and answers have no names, so all that can go wrong is to
 * take an old answer for a new one. Hence:
 *
 *	closed      no program in the guest has the port open; requests fail at once
 *	strange     open, but what may still be on its way is not known: after opening, after a request that got no
 *	            answer in time, after an answer that made no sense
 *	syncing     guest-sync-delimited with a new number has been sent; all is dropped up to a byte 0xff with that
 *	            number in an answer behind it
 *	ready       nothing is under way
 *	busy        a request is; what comes is its answer
 *
 * A request goes from the queue to the agent when the conversation is ready; in `strange` a sync goes first. Its time
 * is counted from when it was asked for, so that a request that hangs also ends those that wait behind it too long. One
 * that has no answer on success (guest-shutdown) is done when its time is over.
 *
 * An agent may say of itself that something has happened: {"event":...} (ours does, when a process has written or
 * ended). Events are counted, not kept; agent.wait waits for the count to change. Opening and closing of the port count
 * too.
 *
 * The guest is hostile: a line has a bound, nothing but the line is kept, JSON is parsed by jansson with its bounds,
 * and whatever is not an answer makes the conversation `strange`. `answer` may end a connection and so come back here
 * (agent_asker_gone): a request is off the lists before it is answered.
 */
#include "vm/agent.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum talk { CLOSED, STRANGE, SYNCING, READY, BUSY };

struct request {
	struct agent *a;
	struct vm_asker asker; /* client 0: nobody wants the answer */
	char *text;	       /* NULL: waits for events */
	bool no_reply;
	void (*done)(void *opaque, json_t *back); /* of a request of our own */
	void *opaque;
	uint64_t seen;
	struct loop_timer timer;
	struct request *next;
};

struct leftover {
	uint64_t client;
	json_t *calls;
	struct leftover *next;
};

struct agent {
	struct loop *loop;
	struct agent_wires w;
	char *who;
	enum talk talk;
	uint64_t sync_number, events;
	struct request *queue, *current, *waiters; /* current: sent, `busy` */
	unsigned queued;
	struct leftover *leftovers;
	struct str line, out;
	size_t out_done;
	bool delimited; /* the line began with 0xff */
	bool skipping;	/* the rest of a line that is too long */
};

static void go_on(struct agent *a);

/* ---- requests ---- */

static void
request_free(struct request *r)
{
	loop_timer_cancel(&r->timer);
	json_decref(r->asker.id);
	if (r->text) /* it may hold a password */
		explicit_bzero(r->text, strlen(r->text));
	free(r->text);
	free(r);
}

static void
unlink_request(struct request **list, struct request *r)
{
	while (*list && *list != r)
		list = &(*list)->next;
	if (*list)
		*list = r->next;
}

static void
append(struct request **list, struct request *r)
{
	while (*list)
		list = &(*list)->next;
	*list = r;
}

/* The request is on no list. Takes `result` over. */
static void
finish(struct agent *a, struct request *r, json_t *result, const struct err *e)
{
	if (r->done)
		r->done(r->opaque, json_object_get(result, "return"));
	if (r->asker.client)
		a->w.answer(a->w.opaque, &r->asker, result, e);
	else
		json_decref(result);
	request_free(r);
}

static void
fail_current(struct agent *a, enum err_code code, const char *why)
{
	struct request *r = a->current;
	struct err e;

	a->current = NULL;
	if (!r)
		return;
	err_set(&e, code, "%s", why);
	finish(a, r, NULL, &e);
}

static json_t *
with_events(struct agent *a, json_t *o)
{
	json_object_set_new(o, "events", json_integer((json_int_t)a->events));
	return o;
}

static void
time_is_over(void *opaque)
{
	struct request *r = opaque;
	struct agent *a = r->a;
	struct err e;

	if (!r->text) {
		unlink_request(&a->waiters, r);
		finish(a, r, with_events(a, json_object()), NULL);
		return;
	}
	if (r == a->current) {
		bool fine = r->no_reply && a->talk == BUSY;

		a->current = NULL;
		if (a->talk != CLOSED)
			a->talk = STRANGE;
		if (fine) {
			finish(a, r, with_events(a, json_pack("{s:{}}", "return")), NULL);
			go_on(a);
			return;
		}
	} else {
		unlink_request(&a->queue, r);
		a->queued--;
	}
	err_set(&e, ERR_TIMEOUT, "The guest agent did not answer in time: the guest hangs, or is very busy");
	finish(a, r, NULL, &e);
	go_on(a);
}

static uint64_t
time_of(const json_t *params)
{
	json_int_t ms = json_integer_value(json_object_get(params, "timeout_ms"));

	if (ms <= 0)
		ms = AGENT_TIMEOUT_MS;
	return (uint64_t)MIN(ms, (json_int_t)AGENT_TIMEOUT_MAX);
}

static struct request *
new_request(struct agent *a, struct vm_asker asker, const json_t *params)
{
	struct request *r = xcalloc(1, sizeof(*r));

	r->a = a;
	r->asker = asker;
	loop_timer_init(&r->timer, a->loop, time_is_over, r);
	loop_timer_arm(&r->timer, loop_now() + time_of(params) * 1000000u);
	return r;
}

/* The line of {"execute", "arguments"}; NULL and *e. */
static char *
request_text(const json_t *call, struct err *e)
{
	const char *name = json_string_value(json_object_get(call, "execute"));
	json_t *arguments = json_object_get(call, "arguments"), *o;
	char *text, *line;

	if (!name || strlen(name) > 63 || (arguments && !json_is_object(arguments))) {
		err_set(e, ERR_INVALID, "a request is {\"execute\":\"guest-...\",\"arguments\":{}}");
		return NULL;
	}
	o = json_pack("{s:s}", "execute", name);
	if (arguments)
		json_object_set(o, "arguments", arguments);
	text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(o);
	line = xasprintf("%s\n", text ? text : "{}");
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return line;
}

/* ---- to the guest ---- */

/* It may hold a password. */
static void
forget_output(struct agent *a)
{
	if (a->out.s)
		explicit_bzero(a->out.s, a->out.len);
	str_free(&a->out);
	a->out_done = 0;
}

static void
flush(struct agent *a)
{
	while (a->out_done < a->out.len) {
		size_t n = a->w.write(a->w.opaque, a->out.s + a->out_done, a->out.len - a->out_done);

		if (!n)
			return;
		a->out_done += n;
	}
	forget_output(a);
}

static void
send_sync(struct agent *a)
{
	struct uuid u = uuid_random();

	/* Whatever the guest prepared, it cannot know the number. 52 bits: an integer in every JSON there is. */
	memcpy(&a->sync_number, u.b, sizeof(a->sync_number));
	a->sync_number >>= 12;
	forget_output(a); /* what an agent that does not read was to hear; the byte ends it where it was cut */
	str_addf(&a->out, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%llu}}\n",
		(unsigned long long)a->sync_number);
	a->talk = SYNCING;
}

/* Whatever can be sent is. */
static void
go_on(struct agent *a)
{
	if (!a->current && a->queue && a->talk != CLOSED) {
		a->current = a->queue;
		a->queue = a->current->next;
		a->current->next = NULL;
		a->queued--;
		if (a->talk == STRANGE)
			send_sync(a);
	}
	if (a->current && a->talk == READY) {
		str_add(&a->out, a->current->text);
		a->talk = BUSY;
	}
	flush(a);
}

void
agent_writable(struct agent *a)
{
	flush(a);
}

/* ---- from the guest ---- */

static void
count_event(struct agent *a)
{
	a->events++;
	while (a->waiters) {
		struct request *r = a->waiters;

		a->waiters = r->next;
		finish(a, r, with_events(a, json_object()), NULL);
	}
}

static void
take_answer(struct agent *a, json_t *message)
{
	json_t *back = json_object_get(message, "return"), *error = json_object_get(message, "error");
	struct request *r = a->current;

	a->current = NULL;
	if (!back && !json_is_object(error)) {
		struct err e;

		a->talk = STRANGE;
		err_set(&e, ERR_IPRT, "The guest agent answered with something that is not an answer");
		finish(a, r, NULL, &e);
		return;
	}
	a->talk = READY;
	finish(a, r, with_events(a, back ? json_pack("{s:O}", "return", back) : json_pack("{s:O}", "error", error)),
		NULL);
}

static void
take_line(struct agent *a)
{
	json_t *message;

	/* Nothing but the number is waited for, and it stands behind the delimiter. */
	if (a->talk == SYNCING && !a->delimited)
		return;
	if (!a->current && a->talk != READY)
		return;
	message = json_loadb(a->line.s ? a->line.s : "", a->line.len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(message) && json_object_get(message, "event")) {
		count_event(a);
	} else if (a->talk == SYNCING) {
		json_t *number = json_object_get(message, "return");

		if (json_is_integer(number) && (uint64_t)json_integer_value(number) == a->sync_number)
			a->talk = READY;
	} else if (a->talk == BUSY && a->current) {
		take_answer(a, message);
	} else {
		a->talk = a->talk == READY ? STRANGE : a->talk;
	}
	json_decref(message);
}

static void
line_too_long(struct agent *a)
{
	str_free(&a->line);
	a->skipping = true;
	log_guest(a->who, "the guest agent sends a line of more than %u bytes", AGENT_LINE_MAX);
	if (a->talk == READY || a->talk == BUSY) {
		a->talk = STRANGE;
		fail_current(a, ERR_IPRT, "The guest agent answered with more than can be taken");
	}
}

/* Up to the end of a line or a delimiter, or all; how many bytes that were. */
static size_t
take_piece(struct agent *a, const uint8_t *p, size_t n)
{
	size_t k = 0;

	while (k < n && p[k] != '\n' && p[k] != 0xff)
		k++;
	if (!a->skipping && k) {
		if (a->line.len + k > AGENT_LINE_MAX)
			line_too_long(a);
		else
			str_addn(&a->line, (const char *)p, k);
	}
	if (k == n)
		return n;
	if (p[k] == '\n' && !a->skipping)
		take_line(a);
	a->skipping = false;
	a->delimited = p[k] == 0xff;
	if (a->line.len > 65536) /* a rare one */
		str_free(&a->line);
	a->line.len = 0;
	return k + 1;
}

size_t
agent_receive(struct agent *a, const uint8_t *bytes, size_t n)
{
	for (size_t done = 0; done < n;)
		done += take_piece(a, bytes + done, n - done);
	go_on(a);
	return n;
}

void
agent_opened(struct agent *a, bool open)
{
	struct err e;

	a->talk = open ? STRANGE : CLOSED;
	forget_output(a);
	a->line.len = 0;
	a->skipping = a->delimited = false;
	fail_current(a, ERR_IPRT, "The guest agent ended, or the guest was reset");
	while (!open && a->queue) {
		struct request *r = a->queue;

		a->queue = r->next;
		a->queued--;
		err_set(&e, ERR_IPRT, "The guest agent ended, or the guest was reset");
		finish(a, r, NULL, &e);
	}
	count_event(a);
	go_on(a);
}

/* ---- askers ---- */

int
agent_call(struct agent *a, struct vm_asker asker, const json_t *params, struct err *e)
{
	struct request *r;
	char *text;

	if (a->talk == CLOSED)
		return err_set(e, ERR_IPRT, "No guest agent runs in the guest");
	if (a->queued >= AGENT_QUEUE_MAX)
		return err_set(e, ERR_IPRT, "Too many requests wait for the guest agent (%d)", AGENT_QUEUE_MAX);
	text = request_text(params, e);
	if (!text)
		return -1;
	r = new_request(a, asker, params);
	r->text = text;
	r->no_reply = json_is_true(json_object_get(params, "no_reply"));
	append(&a->queue, r);
	a->queued++;
	go_on(a);
	return 0;
}

void
agent_ask(
	struct agent *a, const char *execute, json_t *arguments, void (*done)(void *opaque, json_t *back), void *opaque)
{
	json_t *params = json_pack("{s:s}", "execute", execute);
	struct request *r = NULL, **p = &a->queue;
	struct err unused;

	if (arguments)
		json_object_set_new(params, "arguments", arguments);
	if (agent_call(a, (struct vm_asker){ 0 }, params, &unused)) {
		done(opaque, NULL);
	} else {
		for (; *p; p = &(*p)->next)
			r = *p;
		r = r ? r : a->current;
		r->done = done;
		r->opaque = opaque;
	}
	json_decref(params);
}

int
agent_wait(struct agent *a, struct vm_asker asker, const json_t *params, struct err *e)
{
	struct request *r = new_request(a, asker, params);

	r->seen = (uint64_t)json_integer_value(json_object_get(params, "events"));
	/* The answer comes through the timer at once, not from within the question. */
	if (r->seen != a->events)
		loop_timer_arm(&r->timer, loop_now());
	append(&a->waiters, r);
	return 0;
}

static struct leftover **
find_leftover(struct agent *a, uint64_t client)
{
	struct leftover **p = &a->leftovers;

	while (*p && (*p)->client != client)
		p = &(*p)->next;
	return p;
}

int
agent_onclose(struct agent *a, uint64_t client, const json_t *params, struct err *e)
{
	json_t *calls = json_object_get(params, "calls");
	struct leftover **p = find_leftover(a, client), *l;

	if (!json_is_array(calls) || json_array_size(calls) > AGENT_LEFTOVERS_MAX)
		return err_set(e, ERR_INVALID, "'calls' has to be a list of at most %d requests", AGENT_LEFTOVERS_MAX);
	for (size_t i = 0; i < json_array_size(calls); i++) {
		char *text = request_text(json_array_get(calls, i), e);

		if (!text)
			return -1;
		free(text);
	}
	l = *p;
	if (!l) {
		l = xcalloc(1, sizeof(*l));
		l->client = client;
		*p = l;
	}
	json_decref(l->calls);
	l->calls = json_incref(calls);
	return 0;
}

static void
send_leftovers(struct agent *a, uint64_t client)
{
	struct leftover **p = find_leftover(a, client), *l = *p;
	struct err unused;

	if (!l)
		return;
	*p = l->next;
	for (size_t i = 0; i < json_array_size(l->calls); i++)
		agent_call(a, (struct vm_asker){ 0 }, json_array_get(l->calls, i), &unused);
	json_decref(l->calls);
	free(l);
}

void
agent_asker_gone(struct agent *a, uint64_t client)
{
	struct request *next;

	for (struct request *r = a->waiters; r; r = next) {
		next = r->next;
		if (r->asker.client == client) {
			unlink_request(&a->waiters, r);
			request_free(r);
		}
	}
	for (struct request *r = a->queue; r; r = next) {
		next = r->next;
		if (r->asker.client == client) {
			unlink_request(&a->queue, r);
			a->queued--;
			request_free(r);
		}
	}
	if (a->current && a->current->asker.client == client)
		a->current->asker.client = 0;
	send_leftovers(a, client);
}

/* ---- life ---- */

bool
agent_is_open(const struct agent *a)
{
	return a->talk != CLOSED;
}

bool
agent_in_sync(const struct agent *a)
{
	return a->talk == READY || a->talk == BUSY;
}

uint64_t
agent_events(const struct agent *a)
{
	return a->events;
}

struct agent *
agent_create(struct loop *l, const char *who, const struct agent_wires *w)
{
	struct agent *a = xcalloc(1, sizeof(*a));

	a->loop = l;
	a->w = *w;
	a->who = xstrdup(who);
	a->events = 1;
	return a;
}

static void
drop_all(struct request *r)
{
	while (r) {
		struct request *next = r->next;

		request_free(r);
		r = next;
	}
}

void
agent_destroy(struct agent *a)
{
	if (!a)
		return;
	drop_all(a->queue);
	drop_all(a->waiters);
	drop_all(a->current);
	while (a->leftovers) {
		struct leftover *next = a->leftovers->next;

		json_decref(a->leftovers->calls);
		free(a->leftovers);
		a->leftovers = next;
	}
	str_free(&a->line);
	forget_output(a);
	free(a->who);
	free(a);
}
