/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which passwords were right lately: only with the same user and password, and not for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "vm/logins.h"

static void
a_login_is_known_with_its_own_user_and_password_only(void **state)
{
	struct logins *l = logins_create();

	assert_null(logins_find(l, "joe", "secret"));
	logins_add(l, "joe", "secret", "joe:$y$hash:1::::::");
	assert_string_equal(logins_find(l, "joe", "secret"), "joe:$y$hash:1::::::");
	assert_null(logins_find(l, "joe", "secret2"));
	assert_null(logins_find(l, "joe", ""));
	assert_null(logins_find(l, "root", "secret"));
	assert_null(logins_find(l, "", "joesecret"));
	logins_destroy(l);
}

static void
a_newer_line_takes_the_place_of_the_older(void **state)
{
	struct logins *l = logins_create();

	logins_add(l, "joe", "secret", "one");
	logins_add(l, "joe", "secret", "two");
	assert_string_equal(logins_find(l, "joe", "secret"), "two");
	logins_destroy(l);
}

static void
the_oldest_is_forgotten_and_long_lines_are_not_kept(void **state)
{
	struct logins *l = logins_create();
	char name[16], line[VM_LOGIN_LINE_MAX + 2];

	for (int i = 0; i < 17; i++) {
		snprintf(name, sizeof(name), "user%d", i);
		logins_add(l, name, "x", name);
	}
	assert_null(logins_find(l, "user0", "x"));
	assert_string_equal(logins_find(l, "user1", "x"), "user1");
	assert_string_equal(logins_find(l, "user16", "x"), "user16");
	memset(line, 'a', sizeof(line) - 1);
	line[sizeof(line) - 1] = 0;
	logins_add(l, "long", "x", line);
	logins_add(l, "lines", "x", "one\ntwo");
	assert_null(logins_find(l, "long", "x"));
	assert_null(logins_find(l, "lines", "x"));
	logins_destroy(l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_login_is_known_with_its_own_user_and_password_only),
		cmocka_unit_test(a_newer_line_takes_the_place_of_the_older),
		cmocka_unit_test(the_oldest_is_forgotten_and_long_lines_are_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
