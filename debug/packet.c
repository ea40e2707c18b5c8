/* SPDX-License-Identifier: Apache-2.0 */
#include "debug/packet.h"

#include <string.h>

int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool
hex_number(const char **p, uint64_t *out)
{
	uint64_t n = 0;
	int digits = 0;

	for (int d; (d = hex_digit(**p)) >= 0; (*p)++) {
		if (n >> 60)
			return false;
		n = n << 4 | (unsigned)d;
		digits++;
	}
	*out = n;
	return digits > 0;
}

bool
hex_bytes(const char **p, void *out, size_t n)
{
	uint8_t *o = out;

	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit((*p)[0]), lo = hi < 0 ? -1 : hex_digit((*p)[1]);

		if (lo < 0)
			return false;
		o[i] = (uint8_t)(hi << 4 | lo);
		*p += 2;
	}
	return true;
}

void
hex_add(struct str *out, const void *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = data;

	for (size_t i = 0; i < n; i++)
		str_addn(out, (const char[]){ digits[b[i] >> 4], digits[b[i] & 15] }, 2);
}

static void
add_byte(struct packet_in *p, uint8_t byte)
{
	if (p->len < PACKET_MAX)
		p->data[p->len++] = (char)byte;
	else
		p->too_long = true;
}

static enum packet_event
outside(struct packet_in *p, uint8_t byte)
{
	switch (byte) {
	case '$':
		p->state = PACKET_DATA;
		p->len = 0;
		p->sum = 0;
		p->too_long = false;
		return PACKET_MORE;
	case '+':
		return PACKET_ACK;
	case '-':
		return PACKET_NACK;
	case 3:
		return PACKET_BREAK;
	default:
		return PACKET_MORE;
	}
}

static enum packet_event
inside(struct packet_in *p, uint8_t byte)
{
	if (byte == '#') {
		p->state = PACKET_SUM1;
		return PACKET_MORE;
	}
	if (byte == '$') /* the rest of the one before was lost */
		return outside(p, byte);
	p->sum = (uint8_t)(p->sum + byte);
	if (byte == '}')
		p->state = PACKET_ESCAPE;
	else
		add_byte(p, byte);
	return PACKET_MORE;
}

enum packet_event
packet_feed(struct packet_in *p, uint8_t byte)
{
	int digit;

	switch (p->state) {
	case PACKET_OUTSIDE:
		return outside(p, byte);
	case PACKET_DATA:
		return inside(p, byte);
	case PACKET_ESCAPE:
		p->sum = (uint8_t)(p->sum + byte);
		add_byte(p, byte ^ 0x20);
		p->state = PACKET_DATA;
		return PACKET_MORE;
	case PACKET_SUM1:
	case PACKET_SUM2:
		digit = hex_digit((char)byte);
		if (digit < 0) {
			p->state = PACKET_OUTSIDE;
			return PACKET_DAMAGED;
		}
		p->given = (uint8_t)(p->given << 4 | digit);
		if (p->state == PACKET_SUM1) {
			p->state = PACKET_SUM2;
			return PACKET_MORE;
		}
		break;
	}
	p->state = PACKET_OUTSIDE;
	p->data[p->len] = 0;
	return p->given == p->sum && !p->too_long ? PACKET_READY : PACKET_DAMAGED;
}

void
packet_frame(struct str *out, const char *data, size_t len)
{
	uint8_t sum = 0;

	str_add(out, "$");
	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (c == '#' || c == '$' || c == '}' || c == '*') {
			str_add(out, "}");
			sum = (uint8_t)(sum + '}');
			c ^= 0x20;
		}
		str_addn(out, &c, 1);
		sum = (uint8_t)(sum + (uint8_t)c);
	}
	str_addf(out, "#%02x", sum);
}
