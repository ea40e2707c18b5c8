/* SPDX-License-Identifier: Apache-2.0 */
/* The sandbox of a machine's process, entered by children of this one. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rights.h"
#include "vm/private.h"

static pthread_barrier_t entered;

static void
enter(void)
{
	struct err e = { 0 };

	if (sandbox_enter(&(struct sandbox){ .user = "" }, &e))
		_exit(1);
}

/* A disk's worker that did not come to run before. */
static void *
slow(void *opaque)
{
	(void)opaque;
	pthread_barrier_wait(&entered);
	return rights_drop_capabilities() ? "" : NULL;
}

static void
thread_gives_up(void)
{
	pthread_t t;
	void *wrong;

	pthread_barrier_init(&entered, NULL, 2);
	if (pthread_create(&t, NULL, slow, NULL))
		_exit(1);
	enter();
	pthread_barrier_wait(&entered);
	pthread_join(t, &wrong);
	_exit(wrong != NULL);
}

static void
run_program(void)
{
	enter();
	execl("/bin/true", "true", NULL);
	_exit(0);
}

static int
status_of(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		fn();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void
a_thread_that_was_made_before_may_give_up_rights_afterwards(void **state)
{
	(void)state;
	assert_int_equal(status_of(thread_gives_up), 0);
}

static void
a_program_is_not_run(void **state)
{
	int status = status_of(run_program);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_that_was_made_before_may_give_up_rights_afterwards),
		cmocka_unit_test(a_program_is_not_run),
	};

	return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
