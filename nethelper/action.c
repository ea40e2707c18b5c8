/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the network helper, read strictly and judged. A request comes from a process that may have been taken
 * over by a guest: a word too many, a sign that does not belong into a name, and it is refused.
 */
#include "nethelper/action.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/ranges.h"
#include "nethelper/protocol.h"

#define WORDS_MAX 5

static int
split(char *text, char *words[WORDS_MAX + 1])
{
	int n = 0;
	char *word;

	while ((word = strsep(&text, " "))) {
		if (!*word || n > WORDS_MAX)
			return -1;
		if (n < WORDS_MAX + 1)
			words[n] = word;
		n++;
	}
	return n;
}

/* Interfaces have up to 15 signs; of those that exist we take the ordinary ones. */
static bool
name_ok(const char *name)
{
	size_t n = strlen(name);

	return n && n < 16 && name[0] != '.' && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

/* vboxnet0 to vboxnet255: never the name of anything else on the host */
static bool
tap_name_ok(const char *name)
{
	uint64_t n;

	return str_starts(name, "vboxnet") && strspn(name + 7, "0123456789") == strlen(name + 7) &&
	       (name[7] != '0' || !name[8]) && str_to_u64(name + 7, 0, 255, &n);
}

static bool
read_mac(const char *text, uint8_t mac[6])
{
	if (strlen(text) != 12 || strspn(text, "0123456789abcdefABCDEF") != 12)
		return false;
	for (int i = 0; i < 6; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1], 0 };

		mac[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return !(mac[0] & 1);
}

/* "a.b.c.d/len" or "x::y/len" */
static bool
read_address(char *text, int family, void *out, unsigned *len)
{
	char *slash = strchr(text, '/');
	uint64_t bits;

	if (!slash || strspn(slash + 1, "0123456789") != strlen(slash + 1) ||
		!str_to_u64(slash + 1, 1, family == AF_INET ? 32 : 128, &bits))
		return false;
	*slash = 0;
	*len = (unsigned)bits;
	return inet_pton(family, text, out) == 1;
}

static bool
read_addresses(char *words[], int n, struct action *a)
{
	if (n > 2)
		return false;
	if (n > 0 && strcmp(words[0], "-")) {
		if (!read_address(words[0], AF_INET, &a->ip, &a->len))
			return false;
		a->has_ip = true;
	}
	if (n > 1 && strcmp(words[1], "-")) {
		if (!read_address(words[1], AF_INET6, &a->ip6, &a->len6))
			return false;
		a->has_ip6 = true;
	}
	return true;
}

int
action_parse(const char *text, struct action *a, struct err *e)
{
	char copy[NETHELPER_MESSAGE_MAX], *words[WORDS_MAX + 1];
	int n;

	memset(a, 0, sizeof(*a));
	if (strlen(text) >= sizeof(copy))
		return err_set(e, ERR_INVALID, "the request is too long");
	strcpy(copy, text);
	n = split(copy, words);
	if (n >= 3 && !strcmp(words[0], "tap") && tap_name_ok(words[1]) && read_mac(words[2], a->mac) &&
		read_addresses(words + 3, n - 3, a))
		a->kind = ACTION_TAP;
	else if (n == 2 && !strcmp(words[0], "bridge") && name_ok(words[1]))
		a->kind = ACTION_BRIDGE;
	else if (n == 2 && !strcmp(words[0], "packet") && name_ok(words[1]))
		a->kind = ACTION_PACKET;
	else if (n >= 1 && n <= 3 && !strcmp(words[0], "address") && read_addresses(words + 1, n - 1, a))
		a->kind = ACTION_ADDRESS;
	else
		return err_set(e, ERR_INVALID, "this is not a request that the network helper knows");
	if (a->kind != ACTION_ADDRESS)
		snprintf(a->name, sizeof(a->name), "%s", words[1]);
	return 0;
}

/* ---- judging ---- */

/* Is there a line "WORD NAME"? */
static bool
line_allows(const char *allowed, const char *word, const char *name)
{
	while (allowed && *allowed) {
		size_t n = strcspn(allowed, "\n");
		char line[128], w[32], v[32], more;

		if (n < sizeof(line)) {
			memcpy(line, allowed, n);
			line[n] = 0;
			line[strcspn(line, "#")] = 0;
			if (sscanf(line, "%31s %31s %c", w, v, &more) == 2 && !strcmp(w, word) && !strcmp(v, name))
				return true;
		}
		allowed += n + (allowed[n] == '\n');
	}
	return false;
}

int
action_permit(const struct action *a, const char *allowed, const char *ranges, struct err *e)
{
	const char *what = a->kind == ACTION_BRIDGE ? "bridge" : "interface";

	if (a->kind == ACTION_BRIDGE || a->kind == ACTION_PACKET) {
		if (line_allows(allowed, what, a->name))
			return 0;
		return err_set(e, ERR_ACCESS,
			"only root may put machines on '%s' of the host, unless a line '%s %s' stands "
			"in " NETHELPER_ALLOWED,
			a->name, what, a->name);
	}
	ranges = ranges ? ranges : RANGES_DEFAULT;
	if ((a->has_ip && !ranges_hold(ranges, AF_INET, &a->ip)) ||
		(a->has_ip6 && !ranges_hold(ranges, AF_INET6, &a->ip6)))
		return err_set(e, ERR_ACCESS,
			"the address is not within the ranges of " RANGES_FILE " (without that file: " RANGES_DEFAULT
			")");
	return 0;
}
