/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"

static void
numbers_are_whole_and_within_their_range(void **state)
{
	uint64_t v = 7;

	assert_true(str_to_u64("0x1F", 0, 100, &v));
	assert_int_equal(v, 31);
	assert_true(str_to_u64("18446744073709551615", 0, UINT64_MAX, &v));
	assert_true(v == UINT64_MAX);
	assert_false(str_to_u64("18446744073709551616", 0, UINT64_MAX, &v));
	assert_false(str_to_u64("", 0, 9, &v));
	assert_false(str_to_u64("0x", 0, 9, &v));
	assert_false(str_to_u64("-1", 0, UINT64_MAX, &v));
	assert_false(str_to_u64(" 1", 0, 9, &v));
	assert_false(str_to_u64("1x", 0, 9, &v));
	assert_false(str_to_u64("10", 0, 9, &v));
	assert_true(v == UINT64_MAX);
}

static void
sizes_take_units_of_1024(void **state)
{
	uint64_t v;

	assert_true(str_to_size("20M", &v));
	assert_int_equal(v, 20 << 20);
	assert_true(str_to_size("3k", &v));
	assert_int_equal(v, 3072);
	assert_true(str_to_size("1GiB", &v));
	assert_int_equal(v, 1 << 30);
	assert_false(str_to_size("16777216T", &v)); /* 2^64 */
	assert_false(str_to_size("M", &v));
	assert_false(str_to_size("5X", &v));
}

static void
a_uuid_survives_its_text_form_in_braces_and_capitals(void **state)
{
	struct uuid a = uuid_random(), b;
	char text[37], braced[40];

	uuid_text(&a, text);
	assert_int_equal(text[14], '4');
	assert_true(uuid_parse(text, &b));
	assert_memory_equal(&a, &b, sizeof(a));
	braced[0] = '{';
	for (int i = 0; i < 36; i++)
		braced[i + 1] = (char)(text[i] >= 'a' ? text[i] - 32 : text[i]);
	strcpy(braced + 37, "}");
	assert_true(uuid_parse(braced, &b));
	assert_memory_equal(&a, &b, sizeof(a));
	text[8] = 'x';
	assert_false(uuid_parse(text, &b));
	assert_false(uuid_parse("12345", &b));
}

static void
replacing_a_file_leaves_the_new_content_and_no_temporary(void **state)
{
	char dir[] = "/tmp/lodge-test-XXXXXX", path[64], cmd[128];
	struct err e;
	size_t len;
	char *data;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/f", dir);
	assert_int_equal(file_replace(path, "one", 3, 0600, &e), 0);
	assert_int_equal(file_replace(path, "second", 6, 0600, &e), 0);
	data = file_read(path, 100, &len, &e);
	assert_non_null(data);
	assert_int_equal(len, 6);
	assert_string_equal(data, "second");
	free(data);
	assert_null(file_read(path, 5, &len, &e));
	assert_non_null(strstr(e.text, "more than the 5 allowed"));
	snprintf(cmd, sizeof(cmd), "test $(ls -A %s | wc -l) = 1 && rm -r %s", dir, dir);
	assert_int_equal(system(cmd), 0);
}

static void
errors_keep_their_context_in_front(void **state)
{
	struct err e;

	assert_int_equal(err_set(&e, ERR_FILE, "cannot open '%s'", "x.vdi"), -1);
	assert_int_equal(err_wrap(&e, "machine '%s'", "web"), -1);
	assert_string_equal(e.text, "machine 'web': cannot open 'x.vdi'");
	assert_string_equal(err_info(e.code)->vbox_name, "VBOX_E_FILE_ERROR");
	assert_int_equal(err_info(e.code)->vbox_number, 0x80bb0004);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_whole_and_within_their_range),
		cmocka_unit_test(sizes_take_units_of_1024),
		cmocka_unit_test(a_uuid_survives_its_text_form_in_braces_and_capitals),
		cmocka_unit_test(replacing_a_file_leaves_the_new_content_and_no_temporary),
		cmocka_unit_test(errors_keep_their_context_in_front),
	};

	return cmocka_run_group_tests_name("base/str", tests, NULL, NULL);
}
