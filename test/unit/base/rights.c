/* SPDX-License-Identifier: Apache-2.0 */
/* Each test gives up rights in a process of its own, whose status says what it could still do. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rights.h"

static int
status_of(int (*child)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		_exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int
owner_changes_after_dropping(void)
{
	char path[] = "/tmp/rights.XXXXXX";
	int fd = mkstemp(path), r;

	if (fd < 0 || fchown(fd, 1, 1))
		return 77; /* not root: there is nothing to lose */
	rights_empty_bounding_set();
	r = rights_drop_capabilities();
	if (!r)
		r = fchown(fd, 0, 0) ? 0 : 1;
	unlink(path);
	return r || prctl(PR_CAPBSET_READ, 0, 0, 0, 0) ? 1 : 0;
}

static void
dropped_capabilities_are_gone_for_later_programs_too(void **state)
{
	int status = status_of(owner_changes_after_dropping);

	(void)state;
	if (status == 77)
		skip();
	assert_int_equal(status, 0);
}

static int
privileges_after_giving_up(void)
{
	return rights_no_new_privileges() || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}

static void
no_new_privileges_is_set(void **state)
{
	(void)state;
	assert_int_equal(status_of(privileges_after_giving_up), 0);
}

static int
files_beneath_allowed(void)
{
	char dir[] = "/tmp/rights.XXXXXX";
	int ruleset, in, out, r;

	if (!mkdtemp(dir) || rights_no_new_privileges())
		return 2;
	ruleset = landlock_new(LANDLOCK_ACCESS_FS_READ_DIR);
	if (ruleset < 0 || landlock_allow(ruleset, "/nonexistent", LANDLOCK_ACCESS_FS_READ_DIR) != -ENOENT)
		return 3;
	if (landlock_allow(ruleset, dir, LANDLOCK_ACCESS_FS_READ_DIR) || landlock_enter(ruleset))
		return 4;
	in = open(dir, O_RDONLY | O_DIRECTORY);
	out = open("/etc", O_RDONLY | O_DIRECTORY);
	r = in >= 0 && out < 0 && errno == EACCES ? 0 : 5;
	rmdir(dir);
	return r;
}

static void
landlock_leaves_what_was_allowed(void **state)
{
	(void)state;
	if (landlock_version() < 1)
		skip();
	assert_int_equal(status_of(files_beneath_allowed), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dropped_capabilities_are_gone_for_later_programs_too),
		cmocka_unit_test(no_new_privileges_is_set),
		cmocka_unit_test(landlock_leaves_what_was_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
