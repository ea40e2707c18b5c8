/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 against the examples of RFC 4648, section 10. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/str.h"

static const struct {
	const char *bytes, *text;
} examples[] = {
	{ "", "" },
	{ "f", "Zg==" },
	{ "fo", "Zm8=" },
	{ "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" },
	{ "fooba", "Zm9vYmE=" },
	{ "foobar", "Zm9vYmFy" },
};

static void
bytes_become_the_text_of_the_standard_and_come_back(void **state)
{
	for (unsigned i = 0; i < ARRAY_LEN(examples); i++) {
		size_t n = strlen(examples[i].bytes);
		char *text = base64_text(examples[i].bytes, n);

		assert_string_equal(text, examples[i].text);
		assert_int_equal(base64_bytes(text), n);
		assert_memory_equal(text, examples[i].bytes, n);
		free(text);
	}
}

static void
every_byte_comes_back(void **state)
{
	uint8_t all[256];
	char *text;

	for (unsigned i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)(i * 7 + 255);
	text = base64_text(all, sizeof(all));
	assert_int_equal(base64_bytes(text), sizeof(all));
	assert_memory_equal(text, all, sizeof(all));
	free(text);
}

static void
decoding_ends_at_the_first_character_that_is_no_digit(void **state)
{
	char text[] = "Zm9v-Zm9v";

	assert_int_equal(base64_bytes(text), 3);
	assert_memory_equal(text, "foo", 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_become_the_text_of_the_standard_and_come_back),
		cmocka_unit_test(every_byte_comes_back),
		cmocka_unit_test(decoding_ends_at_the_first_character_that_is_no_digit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
