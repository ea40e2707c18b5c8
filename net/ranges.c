/* SPDX-License-Identifier: Apache-2.0 */
#include "net/ranges.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#include "base/str.h"

static bool
within(int family, const void *address, const void *network, unsigned bits)
{
	const uint8_t *a = address, *n = network;
	unsigned whole = bits / 8, rest = bits % 8;

	if (bits > (family == AF_INET ? 32u : 128u) || memcmp(a, n, whole))
		return false;
	return !rest || !((a[whole] ^ n[whole]) >> (8 - rest));
}

static bool
range_holds(const char *word, size_t len, int family, const void *address)
{
	char text[64], *slash;
	uint8_t network[16];
	uint64_t bits = family == AF_INET ? 32 : 128;

	if (len >= sizeof(text))
		return false;
	memcpy(text, word, len);
	text[len] = 0;
	slash = strchr(text, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(family, text, network) != 1 || (slash && !str_to_u64(slash, 0, bits, &bits)))
		return false;
	return within(family, address, network, (unsigned)bits);
}

bool
ranges_hold(const char *ranges, int family, const void *address)
{
	while (*ranges) {
		size_t line = strcspn(ranges, "\n");
		const char *p = ranges, *end = ranges + line;

		while (p < end && *p != '#') {
			size_t n = strcspn(p, " \t,\r\n#");

			n = MIN(n, (size_t)(end - p));
			if (n && range_holds(p, n, family, address))
				return true;
			p += n;
			if (p < end && *p != '#')
				p++;
		}
		ranges = end + (*end == '\n');
	}
	return false;
}
