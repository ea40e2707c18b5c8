/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of the guest agent's protocol: in step after anything, one request at a time, bounds.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "vm/agent.h"

struct bench {
	pthread_mutex_t lock;
	struct loop *loop;
	pthread_t thread;
	struct agent *a;
	struct str sent; /* by us to the guest */
	size_t room;
	char last[1100]; /* answer, as JSON or the error's text */
	uint64_t last_client;
	int answers;
	enum err_code code;
	pthread_cond_t answered;
};

static size_t
on_write(void *opaque, const void *bytes, size_t n)
{
	struct bench *b = opaque;

	n = MIN(n, b->room);
	b->room -= n;
	str_addn(&b->sent, bytes, n);
	return n;
}

static void
on_answer(void *opaque, struct vm_asker *asker, json_t *result, const struct err *e)
{
	struct bench *b = opaque;
	char *text = result ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	snprintf(b->last, sizeof(b->last), "%s", text ? text : e->text);
	b->code = result ? ERR_NONE : e->code;
	b->last_client = asker->client;
	b->answers++;
	free(text);
	json_decref(result);
	pthread_cond_signal(&b->answered);
}

static void *
run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
setup(void **state)
{
	struct bench *b = xcalloc(1, sizeof(*b));
	struct agent_wires w = { .write = on_write, .answer = on_answer, .opaque = b };

	log_set_level(LOG_ERROR);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->answered, NULL);
	b->room = 1 << 20;
	b->loop = loop_open(&b->lock);
	pthread_create(&b->thread, NULL, run, b->loop);
	pthread_mutex_lock(&b->lock);
	b->a = agent_create(b->loop, "test", &w);
	*state = b;
	return 0;
}

static int
teardown(void **state)
{
	struct bench *b = *state;

	agent_destroy(b->a);
	pthread_mutex_unlock(&b->lock);
	loop_stop(b->loop);
	pthread_join(b->thread, NULL);
	loop_close(b->loop);
	str_free(&b->sent);
	free(b);
	return 0;
}

static int
ask(struct bench *b, uint64_t client, const char *what, int timeout_ms)
{
	json_t *params = json_pack("{s:s, s:i}", "execute", what, "timeout_ms", timeout_ms);
	struct vm_asker asker = { client, json_integer((json_int_t)client) };
	struct err e = { 0 };
	int r = agent_call(b->a, asker, params, &e);

	if (r) {
		json_decref(asker.id);
		snprintf(b->last, sizeof(b->last), "%s", e.text);
	}
	json_decref(params);
	return r;
}

static void
guest_says(struct bench *b, const char *text)
{
	agent_receive(b->a, (const uint8_t *)text, strlen(text));
}

static void
answer_sync(struct bench *b)
{
	char *at = NULL, text[64];

	for (char *p = b->sent.s; p && (p = strstr(p, "\"id\":")); p++)
		at = p;
	assert_non_null(at);
	snprintf(text, sizeof(text), "\xff{\"return\": %llu}\n", strtoull(at + 5, NULL, 10));
	guest_says(b, text);
}

static void
wait_answer(struct bench *b, int count)
{
	while (b->answers < count)
		pthread_cond_wait(&b->answered, &b->lock);
}

static void
a_request_goes_out_behind_a_sync_and_comes_back(void **state)
{
	struct bench *b = *state;

	assert_int_equal(ask(b, 1, "guest-ping", 5000), -1);
	assert_string_equal(b->last, "No guest agent runs in the guest");
	agent_opened(b->a, true);
	assert_int_equal(ask(b, 1, "guest-ping", 5000), 0);
	assert_int_equal((uint8_t)b->sent.s[0], 0xff);
	assert_null(strstr(b->sent.s, "guest-ping"));
	guest_says(b, "{\"return\": {\"left\": \"over\"}}\n{\"return\": 1}\n");
	assert_int_equal(b->answers, 0);
	answer_sync(b);
	assert_non_null(strstr(b->sent.s, "{\"execute\":\"guest-ping\"}\n"));
	guest_says(b, "{\"return\":");
	assert_int_equal(b->answers, 0);
	guest_says(b, " {}}\n");
	assert_int_equal(b->answers, 1);
	assert_non_null(strstr(b->last, "\"return\":{}"));
	/* in step: the next needs no sync */
	assert_int_equal(ask(b, 1, "guest-info", 5000), 0);
	guest_says(b, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
	assert_non_null(strstr(b->last, "\"desc\":\"no\""));
}

static void
requests_of_two_askers_take_turns(void **state)
{
	struct bench *b = *state;

	agent_opened(b->a, true);
	ask(b, 1, "guest-one", 5000);
	ask(b, 2, "guest-two", 5000);
	answer_sync(b);
	assert_null(strstr(b->sent.s, "guest-two"));
	guest_says(b, "{\"return\": 11}\n");
	assert_int_equal(b->last_client, 1);
	assert_non_null(strstr(b->sent.s, "guest-two"));
	guest_says(b, "{\"return\": 22}\n");
	assert_int_equal(b->last_client, 2);
	assert_non_null(strstr(b->last, "22"));
}

static void
an_answer_that_comes_too_late_is_nobodys(void **state)
{
	struct bench *b = *state;

	agent_opened(b->a, true);
	ask(b, 1, "guest-slow", 30);
	answer_sync(b);
	wait_answer(b, 1);
	assert_int_equal(b->code, ERR_TIMEOUT);
	ask(b, 2, "guest-next", 5000);
	guest_says(b, "{\"return\": \"late\"}\n");
	assert_int_equal(b->answers, 1);
	answer_sync(b);
	guest_says(b, "{\"return\": \"mine\"}\n");
	assert_int_equal(b->last_client, 2);
	assert_non_null(strstr(b->last, "mine"));
}

static void
a_request_behind_one_that_hangs_ends_in_its_own_time(void **state)
{
	struct bench *b = *state;

	agent_opened(b->a, true);
	ask(b, 1, "guest-hangs", 60000);
	ask(b, 2, "guest-waits", 30);
	wait_answer(b, 1);
	assert_int_equal(b->last_client, 2);
	assert_int_equal(b->code, ERR_TIMEOUT);
}

static void
a_guest_that_goes_away_answers_all_who_wait(void **state)
{
	struct bench *b = *state;

	agent_opened(b->a, true);
	ask(b, 1, "guest-one", 5000);
	ask(b, 2, "guest-two", 5000);
	agent_opened(b->a, false);
	assert_int_equal(b->answers, 2);
	assert_int_equal(b->code, ERR_IPRT);
}

static void
a_line_without_end_is_cut_and_nothing_is_kept(void **state)
{
	struct bench *b = *state;
	uint8_t *much = xcalloc(1, 1 << 20);

	memset(much, 'x', 1 << 20);
	agent_opened(b->a, true);
	ask(b, 1, "guest-much", 5000);
	answer_sync(b);
	for (int i = 0; i < 5; i++)
		agent_receive(b->a, much, 1 << 20);
	assert_int_equal(b->answers, 1);
	assert_int_equal(b->code, ERR_IPRT);
	free(much);
	guest_says(b, "\n");
	ask(b, 2, "guest-next", 5000);
	answer_sync(b);
	guest_says(b, "{\"return\": 5}\n");
	assert_int_equal(b->code, ERR_NONE);
}

static void
nonsense_is_an_error_and_not_an_answer_to_the_next(void **state)
{
	struct bench *b = *state;

	agent_opened(b->a, true);
	ask(b, 1, "guest-one", 5000);
	answer_sync(b);
	guest_says(b, "[1, 2\n");
	assert_int_equal(b->code, ERR_IPRT);
	ask(b, 1, "guest-two", 5000);
	guest_says(b, "{\"return\": \"guessed\"}\n");
	assert_int_equal(b->answers, 1);
}

static void
who_has_gone_is_not_answered_and_what_it_left_is_asked(void **state)
{
	struct bench *b = *state;
	json_t *left = json_pack("{s:[{s:s}]}", "calls", "execute", "guest-clean-up");
	struct err e;

	agent_opened(b->a, true);
	ask(b, 1, "guest-one", 5000);
	assert_int_equal(agent_onclose(b->a, 1, left, &e), 0);
	json_decref(left);
	agent_asker_gone(b->a, 1);
	answer_sync(b);
	guest_says(b, "{\"return\": 1}\n");
	assert_int_equal(b->answers, 0);
	assert_non_null(strstr(b->sent.s, "guest-clean-up"));
}

static void
waiting_ends_with_an_event(void **state)
{
	struct bench *b = *state;
	json_t *params;
	struct err e;

	agent_opened(b->a, true);
	params = json_pack("{s:I, s:i}", "events", (json_int_t)agent_events(b->a), "timeout_ms", 60000);
	ask(b, 1, "guest-one", 5000);
	answer_sync(b);
	assert_int_equal(agent_wait(b->a, (struct vm_asker){ 2, json_integer(2) }, params, &e), 0);
	guest_says(b, "{\"event\": \"LODGE_PROCESS\"}\n");
	assert_int_equal(b->answers, 1);
	assert_int_equal(b->last_client, 2);
	/* Seen before: at once. */
	assert_int_equal(agent_wait(b->a, (struct vm_asker){ 3, json_integer(3) }, params, &e), 0);
	wait_answer(b, 2);
	assert_int_equal(b->last_client, 3);
	json_decref(params);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(a_request_goes_out_behind_a_sync_and_comes_back),
		TEST(requests_of_two_askers_take_turns),
		TEST(an_answer_that_comes_too_late_is_nobodys),
		TEST(a_request_behind_one_that_hangs_ends_in_its_own_time),
		TEST(a_guest_that_goes_away_answers_all_who_wait),
		TEST(a_line_without_end_is_cut_and_nothing_is_kept),
		TEST(nonsense_is_an_error_and_not_an_answer_to_the_next),
		TEST(who_has_gone_is_not_answered_and_what_it_left_is_asked),
		TEST(waiting_ends_with_an_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
