/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a guest's agent sends (vm/agent.c). Input: pieces of one byte (what: 0-3 bytes from the guest, 4 a
 * request, 5 a wait, 6 the port closes or opens, 7 an asker goes, 8 the answer to a sync that was sent, 9 time passes)
 * and, for the first kind, a byte of length and that many bytes. Each asker is answered at most once; none after it has
 * gone.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ASKERS 8

struct bench {
	struct agent *a;
	uint64_t asked[ASKERS + 1], answered[ASKERS + 1];
	bool gone[ASKERS + 1];
	unsigned long long sync;
	char sent[65536];
	size_t room;
};

static size_t
on_write(void *opaque, const void *bytes, size_t n)
{
	struct bench *b = opaque;
	const char *id;

	n = n < b->room ? n : b->room;
	b->room -= n;
	if (n < sizeof(b->sent)) {
		memcpy(b->sent, bytes, n);
		b->sent[n] = 0;
		id = strstr(b->sent, "\"id\":");
		if (id)
			b->sync = strtoull(id + 5, NULL, 10);
	}
	return n;
}

static void
on_answer(void *opaque, struct vm_asker *asker, json_t *result, const struct err *e)
{
	struct bench *b = opaque;

	if (asker->client < 1 || asker->client > ASKERS || b->gone[asker->client])
		abort();
	if (++b->answered[asker->client] > b->asked[asker->client])
		abort();
	json_decref(result);
}

static void
sync_answer(struct bench *b)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "\xff{\"return\": %llu}\n", b->sync);

	agent_receive(b->a, (uint8_t *)text, (size_t)n);
}

static void
step(struct bench *b, uint8_t what, uint8_t arg)
{
	struct vm_asker asker = { 1 + arg % ASKERS, NULL };
	json_t *params = json_pack("{s:s, s:i}", "execute", "guest-info", "timeout_ms", 1 + arg);
	struct err e;

	switch (what) {
	case 4:
	case 5:
		asker.id = json_integer(1);
		b->gone[asker.client] = false;
		b->asked[asker.client]++;
		if (what == 4 ? agent_call(b->a, asker, params, &e) : agent_wait(b->a, asker, params, &e)) {
			b->asked[asker.client]--;
			json_decref(asker.id);
		}
		break;
	case 6:
		agent_opened(b->a, arg & 1);
		break;
	case 7:
		agent_asker_gone(b->a, asker.client);
		b->gone[asker.client] = true;
		break;
	case 8:
		sync_answer(b);
		break;
	default:
		b->room = (size_t)arg * 64;
		agent_writable(b->a);
	}
	json_decref(params);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct bench b = { .room = 4096 };
	struct agent_wires w = { .write = on_write, .answer = on_answer, .opaque = &b };
	struct loop *l;

	log_set_level(LOG_ERROR);
	l = loop_open(&lock);
	b.a = agent_create(l, "fuzz", &w);
	agent_opened(b.a, true);
	while (size >= 2) {
		uint8_t what = data[0] % 10, arg = data[1];

		data += 2;
		size -= 2;
		if (what < 4) {
			size_t n = arg < size ? arg : size;

			agent_receive(b.a, data, n);
			data += n;
			size -= n;
		} else {
			step(&b, what, arg);
		}
	}
	agent_destroy(b.a);
	loop_close(l);
	return 0;
}
