/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options as VBoxManage takes them: `--opt value`, `--opt=value`, `--opt:value`, one dash or two, hyphens inside left
 * out or not, before or after the other words.
 */
#include <string.h>

#include "front/vboxmanage/vbm.h"

/* Does `typed` (behind its dashes) spell `o`? Its slot and where its value begins, if it has one in the same word. */
static bool
matches(const struct opt *o, const char *typed, int *slot, const char **value)
{
	const char *n = o->name;
	uint64_t number = 0;

	while (*n) {
		if (*n == '-') {
			n++;
		} else if (*typed == '-') {
			typed++;
		} else if (*n == *typed) {
			n++;
			typed++;
		} else {
			return false;
		}
	}
	*slot = 0;
	if (o->slots) {
		const char *digits = typed += *typed == '-';

		while (*typed >= '0' && *typed <= '9' && typed - digits < 4)
			number = number * 10 + (uint64_t)(*typed++ - '0');
		if (typed == digits || number < 1 || number > (uint64_t)o->slots)
			return false;
		*slot = (int)number - 1;
	}
	*value = *typed == '=' || *typed == ':' ? typed + 1 : NULL;
	return !*typed || *value;
}

static const struct opt *
find_option(struct args *a, const char *word, const char **value)
{
	bool two = word[1] == '-';

	*value = NULL;
	for (size_t i = 0; i < a->count; i++) {
		if (!two && a->opts[i].letter && word[1] == a->opts[i].letter && !word[2])
			return &a->opts[i];
		if (a->opts[i].name && matches(&a->opts[i], word + 1 + two, &a->slot, value))
			return &a->opts[i];
	}
	return NULL;
}

const char *
args_value(struct args *a)
{
	if (a->at < a->argc)
		return a->argv[a->at++];
	fail_syntax(a->cli, "Missing argument to option: %s", a->spelled);
	return NULL;
}

const char *
args_peek(const struct args *a)
{
	return a->at < a->argc && a->argv[a->at][0] != '-' ? a->argv[a->at] : NULL;
}

static int
convert(struct args *a, const struct opt *o)
{
	if (o->kind == OPT_NUMBER && !str_to_u64(a->text, 0, UINT64_MAX, &a->number)) {
		fail_syntax(a->cli, "Invalid value '%s' for option %s: a number is needed", a->text, a->spelled);
		return ARG_BAD;
	}
	if (o->kind == OPT_ONOFF) {
		a->on = !strcmp(a->text, "on");
		if (!a->on && strcmp(a->text, "off")) {
			fail_syntax(
				a->cli, "Invalid value '%s' for option %s: it is 'on' or 'off'", a->text, a->spelled);
			return ARG_BAD;
		}
	}
	return a->id;
}

int
args_next(struct args *a)
{
	const char *word, *value;
	const struct opt *o;

	if (a->at >= a->argc)
		return ARG_END;
	word = a->argv[a->at++];
	if (!a->only_words && !strcmp(word, "--")) {
		a->only_words = true;
		return args_next(a);
	}
	a->text = word;
	if (a->only_words || word[0] != '-' || !word[1])
		return ARG_WORD;
	a->spelled = word;
	o = find_option(a, word, &value);
	if (!o || (value && o->kind == OPT_FLAG)) {
		fail_syntax(a->cli, "Unknown option: %s", word);
		return ARG_BAD;
	}
	a->id = o->id;
	if (o->kind == OPT_FLAG)
		return a->id;
	a->text = value ? value : args_value(a);
	return a->text ? convert(a, o) : ARG_BAD;
}
