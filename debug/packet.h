/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framing of gdb's remote serial protocol (GDB manual, appendix E.1): $data#checksum, escapes, acknowledgements.
 */
#ifndef DEBUG_PACKET_H
#define DEBUG_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define PACKET_MAX 0x8000u /* bytes of data, both ways */

enum packet_event {
	PACKET_MORE,	/* nothing yet */
	PACKET_READY,	/* data[0..len) is a packet; data[len] is 0 */
	PACKET_DAMAGED, /* its checksum is wrong, or it is too long: ask for it again */
	PACKET_ACK,	/* "+" */
	PACKET_NACK,	/* "-" */
	PACKET_BREAK,	/* 0x03 outside of a packet: stop */
};

/* Zero-initialise. */
struct packet_in {
	enum { PACKET_OUTSIDE, PACKET_DATA, PACKET_ESCAPE, PACKET_SUM1, PACKET_SUM2 } state;
	bool too_long;
	uint8_t sum, given;
	size_t len;
	char data[PACKET_MAX + 1];
};

enum packet_event packet_feed(struct packet_in *p, uint8_t byte);

/* Add `$data#xx` to `out`, escaping what needs it. */
void packet_frame(struct str *out, const char *data, size_t len);

/* Value of a hexadecimal digit, or -1. */
int hex_digit(char c);
/* A hexadecimal number at *p, which moves behind it. False: no digit there, or more than 64 bits. */
bool hex_number(const char **p, uint64_t *out);
/* Exactly n bytes from 2n digits at *p. */
bool hex_bytes(const char **p, void *out, size_t n);
void hex_add(struct str *out, const void *data, size_t n);

#endif
