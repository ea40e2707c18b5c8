/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consoles: the screen as a PNG file or to VNC viewers (RFB), and what people type as scan codes.
 * Everything runs on the loop under the machine lock unless it says otherwise.
 */
#ifndef DISPLAY_DISPLAY_H
#define DISPLAY_DISPLAY_H

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"
#include "bus/display.h"

/* ---- PNG ---- */

/* Encode as an 8-bit RGB PNG in memory; *out is malloc()ed. 0, or -1 when there is no memory. Any thread. */
int png_encode(const struct surface *s, uint8_t **out, size_t *len);
/* ... into a file (replaced atomically). Any thread. */
int png_write(const struct surface *s, const char *path, struct err *e);

/* ---- RFB 3.3, 3.7, 3.8 (RFC 6143) ---- */

struct rfb_options {
	const char *address;  /* "127.0.0.1"; "" or NULL: all IPv4 addresses */
	uint16_t port;	      /* 0: any free one, see rfb_port() */
	uint16_t port_last;   /* try port..port_last; 0: only `port` */
	const char *password; /* NULL or "": no authentication. VNC authentication uses its first 8 bytes */
	const char *name;     /* desktop name */
	unsigned clients_max; /* 0: 8 */
};
struct rfb;
/* Listen; viewers may come and go. NULL and *e when the port is taken. The structs are copied. */
struct rfb *rfb_open(struct loop *l, const struct rfb_options *o, const struct display_source *src,
	const struct input_sink *sink, struct err *e);
void rfb_close(struct rfb *r);
uint16_t rfb_port(const struct rfb *r);
unsigned rfb_clients(const struct rfb *r);

/* ---- keyboard ---- */

/* Scan codes (set 1) of typing UTF-8 `text` on a US keyboard; characters it does not have are an error that names them.
 */
int keys_from_text(const char *text, size_t len, struct str *codes, struct err *e);
/* Make (down) or break code of an X11 keysym; returns its length in out (0: not on this keyboard). */
unsigned keys_from_keysym(uint32_t keysym, bool down, uint8_t out[8]);

#endif
