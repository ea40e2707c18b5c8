/* SPDX-License-Identifier: Apache-2.0 */
/* A machine in this process, driven and mistreated through its control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "vm/vm.h"

struct fixture {
	char dir[32];
	struct vm *v;
	struct vm_outcome outcome;
	pthread_t owner;
	bool joined;
};

static void *
owner(void *opaque)
{
	struct fixture *x = opaque;

	vm_run(x->v, &x->outcome);
	return NULL;
}

static struct vm *
make_vm(const char *dir)
{
	struct vm_config *c = vm_config_new("test");
	struct vm_options o = { .run_dir = dir };

	free(c->engine);
	c->engine = xstrdup("interp");
	c->memory_mib = 16;
	c->sandbox = false;
	return vm_open(c, &o);
}

static int
setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));
	struct err e = { 0 };

	log_set_level(LOG_ERROR);
	snprintf(x->dir, sizeof(x->dir), "/tmp/lodge-vm-XXXXXX");
	if (!mkdtemp(x->dir))
		return -1;
	x->v = make_vm(x->dir);
	if (vm_power_on(x->v, &e)) {
		print_error("%s\n", e.text);
		return -1;
	}
	*state = x;
	return pthread_create(&x->owner, NULL, owner, x);
}

static int
teardown(void **state)
{
	struct fixture *x = *state;
	char *command = xasprintf("rm -r %s", x->dir);
	int r;

	if (!x->joined) {
		vm_request_stop(x->v);
		pthread_join(x->owner, NULL);
	}
	vm_close(x->v);
	r = system(command);
	free(command);
	free(x);
	return r;
}

static int
dial(struct fixture *x)
{
	struct timeval limit = { .tv_sec = 20 };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", x->dir, VM_FILE_CONTROL);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void
say(int fd, const char *text)
{
	uint8_t head[4];

	put_le32(head, (uint32_t)strlen(text));
	assert_int_equal(write_full(fd, head, 4), 4);
	assert_int_equal(write_full(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* NULL: the connection was closed. */
static json_t *
hear(int fd)
{
	uint8_t head[4];
	char *text;
	json_t *j;

	if (read_full(fd, head, 4) != 4)
		return NULL;
	text = xcalloc(le32(head) + 1, 1);
	assert_int_equal(read_full(fd, text, le32(head)), le32(head));
	j = json_loads(text, 0, NULL);
	assert_non_null(j);
	free(text);
	return j;
}

/* The code of the error in the answer, "" for a result. The caller compares at once. */
static const char *
ask(int fd, const char *request)
{
	static char code[64];
	const char *c;
	json_t *j;

	say(fd, request);
	j = hear(fd);
	assert_non_null(j);
	c = json_string_value(json_object_get(json_object_get(j, "error"), "code"));
	snprintf(code, sizeof(code), "%s", c ? c : "");
	assert_true(c || json_is_object(json_object_get(j, "result")));
	json_decref(j);
	return code;
}

static void
pause_and_resume_keep_to_the_states(void **state)
{
	int fd = dial(*state);

	assert_string_equal(ask(fd, "{\"id\":1,\"method\":\"resume\"}"), "VBOX_E_INVALID_VM_STATE");
	assert_string_equal(ask(fd, "{\"id\":2,\"method\":\"pause\"}"), "");
	assert_string_equal(ask(fd, "{\"id\":3,\"method\":\"pause\"}"), "VBOX_E_INVALID_VM_STATE");
	assert_string_equal(ask(fd, "{\"id\":4,\"method\":\"acpipowerbutton\"}"), "VBOX_E_INVALID_VM_STATE");
	assert_string_equal(ask(fd, "{\"id\":5,\"method\":\"reset\"}"), "");
	assert_string_equal(ask(fd, "{\"id\":6,\"method\":\"resume\"}"), "");
	assert_string_equal(ask(fd, "{\"id\":7,\"method\":\"reset\"}"), "");
	assert_string_equal(ask(fd, "{\"id\":8,\"method\":\"status\"}"), "");
	assert_string_equal(ask(fd, "{\"id\":9,\"method\":\"stats\",\"params\":{}}"), "");
	assert_string_equal(ask(fd, "{\"id\":10,\"method\":\"screenshot\"}"), "");
	close(fd);
}

static void
answers_come_in_the_order_of_the_requests(void **state)
{
	int fd = dial(*state);

	for (int i = 0; i < 60; i++) {
		char *text = xasprintf("{\"id\":%d,\"method\":\"%s\"}", i,
			i % 3 == 0   ? "pause"
			: i % 3 == 1 ? "status"
				     : "resume");

		say(fd, text);
		free(text);
	}
	for (int i = 0; i < 60; i++) {
		json_t *j = hear(fd);

		assert_int_equal(json_integer_value(json_object_get(j, "id")), i);
		assert_non_null(json_object_get(j, "result"));
		json_decref(j);
	}
	close(fd);
}

static void
wrong_parameters_are_answered_with_an_error(void **state)
{
	static const char *const requests[] = {
		"{\"id\":1,\"method\":\"nothing\"}",
		"{\"id\":1,\"method\":\"keyboard.scancodes\",\"params\":{\"codes\":[256]}}",
		"{\"id\":1,\"method\":\"keyboard.scancodes\",\"params\":{\"codes\":7}}",
		"{\"id\":1,\"method\":\"keyboard.string\"}",
		"{\"id\":1,\"method\":\"setlinkstate\",\"params\":{\"slot\":0,\"cable\":true}}",
		"{\"id\":1,\"method\":\"natpf.add\",\"params\":{\"slot\":-1}}",
		"{\"id\":1,\"method\":\"natpf.remove\",\"params\":{\"slot\":1e9}}",
		"{\"id\":1,\"method\":\"nictrace\",\"params\":{\"slot\":0}}",
		"{\"id\":1,\"method\":\"medium.change\",\"params\":{\"controller\":\"x\",\"port\":0,\"device\":0}}",
		"{\"id\":1,\"method\":\"vrde.set\",\"params\":{\"enable\":1}}",
	};
	int fd = dial(*state);

	for (size_t i = 0; i < ARRAY_LEN(requests); i++)
		assert_string_not_equal(ask(fd, requests[i]), "");
	close(fd);
}

static void
who_does_not_speak_the_protocol_is_told_and_disconnected(void **state)
{
	static const char *const requests[] = { "x", "[]", "{}", "{\"id\":1}", "{\"id\":{},\"method\":\"status\"}",
		"{\"id\":1,\"method\":\"status\",\"params\":[]}" };

	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		int fd = dial(*state);
		json_t *j;

		say(fd, requests[i]);
		j = hear(fd);
		assert_non_null(json_object_get(j, "error"));
		assert_null(hear(fd));
		json_decref(j);
		close(fd);
	}
	for (uint32_t len = 0; len <= 0x100001u; len += 0x100001u) {
		int fd = dial(*state);
		uint8_t head[4];
		json_t *j;

		put_le32(head, len);
		assert_int_equal(write_full(fd, head, 4), 4);
		j = hear(fd);
		assert_non_null(json_object_get(j, "error"));
		assert_null(hear(fd));
		json_decref(j);
		close(fd);
	}
}

static void
silent_slow_and_greedy_clients_do_not_keep_others_waiting(void **state)
{
	int silent = dial(*state), half = dial(*state), greedy = dial(*state), fd;
	uint8_t head[4];

	put_le32(head, 1 << 20);
	assert_int_equal(write_full(half, head, 3), 3);
	for (int i = 0; i < 2000; i++) { /* never reads its answers */
		static const char request[] = "\x1c\0\0\0{\"id\":1,\"method\":\"status\"} ";

		if (send(greedy, request, sizeof(request) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
	}
	fd = dial(*state);
	assert_string_equal(ask(fd, "{\"id\":1,\"method\":\"status\"}"), "");
	close(fd);
	close(silent);
	close(half);
	close(greedy);
}

static void
more_clients_than_there_is_room_for_are_turned_away(void **state)
{
	int fds[64], fd;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = dial(*state);
	assert_string_equal(ask(fds[0], "{\"id\":1,\"method\":\"status\"}"), "");
	assert_null(hear(fds[63]));
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	usleep(200000);
	fd = dial(*state);
	assert_string_equal(ask(fd, "{\"id\":1,\"method\":\"status\"}"), "");
	close(fd);
}

static void
a_second_machine_cannot_use_the_same_directory(void **state)
{
	struct fixture *x = *state;
	struct vm *second = make_vm(x->dir);
	struct err e = { 0 };
	int fd;

	assert_int_equal(vm_power_on(second, &e), -1);
	assert_int_equal(e.code, ERR_VM_STATE);
	vm_close(second);
	fd = dial(x);
	assert_string_equal(ask(fd, "{\"id\":1,\"method\":\"status\"}"), "");
	close(fd);
}

static void
power_off_is_answered_when_the_status_says_so(void **state)
{
	struct fixture *x = *state;
	char *path = xasprintf("%s/%s", x->dir, VM_FILE_STATUS), *text;
	int fd = dial(x);
	struct err e;
	size_t len;

	assert_string_equal(ask(fd, "{\"id\":1,\"method\":\"poweroff\"}"), "");
	text = file_read(path, 4096, &len, &e);
	assert_non_null(text);
	assert_non_null(strstr(text, "\"state\":\"poweroff\""));
	pthread_join(x->owner, NULL);
	x->joined = true;
	assert_int_equal(x->outcome.end, VM_END_STOPPED);
	free(text);
	free(path);
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pause_and_resume_keep_to_the_states),
		TEST(answers_come_in_the_order_of_the_requests),
		TEST(wrong_parameters_are_answered_with_an_error),
		TEST(who_does_not_speak_the_protocol_is_told_and_disconnected),
		TEST(silent_slow_and_greedy_clients_do_not_keep_others_waiting),
		TEST(more_clients_than_there_is_room_for_are_turned_away),
		TEST(a_second_machine_cannot_use_the_same_directory),
		TEST(power_off_is_answered_when_the_status_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
