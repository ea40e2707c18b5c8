/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFB server (RFC 6143): what VNC viewers speak.
 *
 * Theory of operation. The server keeps one picture, `shown`: what was drawn last. While some client waits for an
 * update a timer ticks at most 30 times a second: the screen is drawn anew and compared with `shown` in tiles of 64x16
 * pixels; tiles that differ are marked in every client's own damage map. A client that has asked for an update and has
 * damage in it gets it as rectangles of neighbouring tiles. Without clients nothing is drawn at all.
 *
 * States of a client:
 *	VERSION   our version was sent; its 12 bytes are awaited
 *	SECURITY  (3.7, 3.8) the type it picks, one byte
 *	AUTH      the 16 bytes of its answer to our challenge (VNC authentication)
 *	INIT      ClientInit, one byte
 *	NORMAL    messages
 *	DEAD      to be freed when the current callback is done
 *
 * A client is hostile: input is parsed only when whole, from a buffer of 64 KiB; longer messages (cut text) are skipped
 * as they arrive. Output is bounded: no update is made while more than OUT_HIGH bytes wait, and a client that does not
 * finish its handshake within 10 s or does not read for 60 s is dropped.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* DES is what VNC authentication is; nothing else here uses it */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/des.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/log.h"
#include "display/display.h"

#define TILE_W 64u
#define TILE_H 16u
#define IN_MAX 65536u
#define OUT_HIGH (4u << 20)
#define FRAME_NS 33333333u
#define HANDSHAKE_NS 10000000000u
#define STALL_NS 60000000000u

enum { ENC_RAW = 0, ENC_ZRLE = 16, ENC_DESKTOP_SIZE = -223, ENC_CURSOR = -239, ENC_EXT_KEY = -258 };

struct format { /* PixelFormat, RFC 6143 section 7.4 */
	uint8_t bpp, depth, big_endian, true_colour;
	uint16_t max[3];
	uint8_t shift[3];
};

enum client_state { VERSION, SECURITY, AUTH, INIT, NORMAL, DEAD };

struct client {
	struct rfb *rfb;
	struct client *next;
	int fd;
	struct loop_watch *watch;
	enum client_state state;
	int minor; /* 3, 7 or 8 */
	char peer[64];
	uint8_t challenge[16];
	uint8_t in[IN_MAX];
	size_t in_len;
	uint64_t skip; /* bytes of cut text still to be thrown away */
	uint8_t *out;
	size_t out_len, out_off, out_cap;
	uint64_t opened_at, wrote_at;
	struct format fmt;
	bool zrle, desktop_size, ext_key, wants_ext_key_ack, pointer, pointer_sent;
	uint32_t pointer_serial; /* of what it was sent */
	bool waiting;		 /* an update request is open */
	unsigned width, height;	 /* what the client believes */
	uint8_t *damage;	 /* one byte a tile of the client's picture */
	unsigned tiles_x, tiles_y;
	z_stream z;
	bool z_open;
	int px, py; /* last pointer position, -1: none yet */
};

struct rfb {
	struct loop *loop;
	struct display_source src;
	struct input_sink sink;
	char password[9], name[128];
	unsigned clients_max, client_count;
	int fd;
	uint16_t port;
	struct loop_watch *watch;
	struct loop_timer timer;
	struct client *clients;
	struct surface shown, next;
};

static const struct format server_format = { 32, 24, 0, 1, { 255, 255, 255 }, { 16, 8, 0 } };

/* ---- output ---- */

static void
drop(struct client *c, const char *why)
{
	if (c->state == DEAD)
		return;
	log_info("vrde", "viewer %s: %s", c->peer, why);
	c->state = DEAD;
	loop_watch_set(c->watch, 0);
}

static bool
room(struct client *c, size_t n)
{
	if (c->out_off) {
		memmove(c->out, c->out + c->out_off, c->out_len - c->out_off);
		c->out_len -= c->out_off;
		c->out_off = 0;
	}
	if (c->out_len + n > c->out_cap) {
		size_t cap = MAX(2 * c->out_cap, c->out_len + n + 4096);
		uint8_t *p = realloc(c->out, cap);

		if (!p) {
			drop(c, "dropped, no memory for its output");
			return false;
		}
		c->out = p;
		c->out_cap = cap;
	}
	return true;
}

static void
put(struct client *c, const void *data, size_t n)
{
	if (!room(c, n))
		return;
	memcpy(c->out + c->out_len, data, n);
	c->out_len += n;
}

static void
put8(struct client *c, uint8_t v)
{
	put(c, &v, 1);
}

static void
put16(struct client *c, unsigned v)
{
	uint8_t b[2] = { (uint8_t)(v >> 8), (uint8_t)v };

	put(c, b, 2);
}

static void
put32(struct client *c, uint32_t v)
{
	put16(c, v >> 16);
	put16(c, v & 0xffff);
}

static void
send_out(struct client *c)
{
	while (c->state != DEAD && c->out_off < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			drop(c, "closed the connection");
			return;
		}
		c->out_off += (size_t)n;
		c->wrote_at = loop_now();
	}
	if (c->out_off == c->out_len)
		c->out_off = c->out_len = 0;
	if (c->state != DEAD)
		loop_watch_set(c->watch, LOOP_IN | (c->out_len ? LOOP_OUT : 0));
}

/* ---- pixels ---- */

static bool
format_is_ours(const struct format *f)
{
	return !memcmp(f, &server_format, sizeof(*f));
}

static unsigned
put_pixel(const struct format *f, uint32_t rgb, uint8_t *out)
{
	uint32_t v = 0;
	unsigned n = f->bpp / 8;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t gun = rgb >> (16 - 8 * i) & 0xff;

		v |= (gun * f->max[i] + 127) / 255 << f->shift[i];
	}
	for (unsigned i = 0; i < n; i++)
		out[f->big_endian ? n - 1 - i : i] = (uint8_t)(v >> (8 * i));
	return n;
}

/* CPIXEL (section 7.7.5): 3 bytes where depth and guns leave one byte of four unused. */
static unsigned
cpixel_size(const struct format *f, bool *low)
{
	uint32_t used = 0;

	for (unsigned i = 0; i < 3; i++)
		used |= (uint32_t)f->max[i] << f->shift[i];
	if (f->bpp != 32 || f->depth > 24)
		return f->bpp / 8;
	*low = !(used & 0xff000000u);
	return *low || !(used & 0xffu) ? 3 : 4;
}

static unsigned
put_cpixel(const struct format *f, uint32_t rgb, uint8_t *out)
{
	uint8_t px[4];
	bool low = true;
	unsigned n = cpixel_size(f, &low);

	put_pixel(f, rgb, px);
	if (f->bpp == 32 && n == 3)
		/* which three of the four bytes: those that hold guns, in the order of the pixel */
		memcpy(out, px + (low == (bool)f->big_endian ? 1 : 0), 3);
	else
		memcpy(out, px, n);
	return n;
}

static void
encode_raw(struct client *c, const struct surface *s, unsigned x, unsigned y, unsigned w, unsigned h)
{
	size_t n = (size_t)w * h * (c->fmt.bpp / 8);
	uint8_t *out;

	if (!room(c, n))
		return;
	out = c->out + c->out_len;
	for (unsigned row = y; row < y + h; row++) {
		const uint32_t *p = s->pixels + (size_t)row * s->width + x;

		if (format_is_ours(&c->fmt)) {
			memcpy(out, p, 4ull * w);
			out += 4ull * w;
			continue;
		}
		for (unsigned i = 0; i < w; i++)
			out += put_pixel(&c->fmt, p[i], out);
	}
	c->out_len += n;
}

/* Up to 16 colours of a tile; more: 0. */
static unsigned
palette_of(const struct surface *s, unsigned x, unsigned y, unsigned w, unsigned h, uint32_t pal[16])
{
	unsigned n = 0;

	for (unsigned row = y; row < y + h; row++)
		for (unsigned col = x; col < x + w; col++) {
			uint32_t px = s->pixels[(size_t)row * s->width + col] & 0xffffff;
			unsigned i = 0;

			while (i < n && pal[i] != px)
				i++;
			if (i < n)
				continue;
			if (n == 16)
				return 0;
			pal[n++] = px;
		}
	return n;
}

/* One ZRLE tile (section 7.7.6): solid, packed palette or raw. Returns its length; out has room for 1 + 4 * 64 * 64. */
static size_t
zrle_tile(const struct format *f, const struct surface *s, unsigned x, unsigned y, unsigned w, unsigned h, uint8_t *out)
{
	uint32_t pal[16];
	unsigned n = palette_of(s, x, y, w, h, pal), bits = n <= 2 ? 1 : n <= 4 ? 2 : 4;
	uint8_t *start = out;

	*out++ = (uint8_t)n;
	for (unsigned i = 0; i < n; i++)
		out += put_cpixel(f, pal[i], out);
	for (unsigned row = y; row < y + h && n != 1; row++) {
		unsigned acc = 0, have = 0;

		for (unsigned col = x; col < x + w; col++) {
			uint32_t px = s->pixels[(size_t)row * s->width + col] & 0xffffff;
			unsigned i = 0;

			if (!n) {
				out += put_cpixel(f, px, out);
				continue;
			}
			while (pal[i] != px)
				i++;
			acc = acc << bits | i;
			have += bits;
			if (have == 8) {
				*out++ = (uint8_t)acc;
				acc = have = 0;
			}
		}
		if (have)
			*out++ = (uint8_t)(acc << (8 - have));
	}
	return (size_t)(out - start);
}

static void
deflate_some(struct client *c, const uint8_t *data, size_t n, int flush)
{
	c->z.next_in = (uint8_t *)data;
	c->z.avail_in = (unsigned)n;
	do {
		if (!room(c, 8192))
			return;
		c->z.next_out = c->out + c->out_len;
		c->z.avail_out = 8192;
		deflate(&c->z, flush);
		c->out_len += 8192 - c->z.avail_out;
	} while (c->z.avail_in || !c->z.avail_out);
}

static void
encode_zrle(struct client *c, const struct surface *s, unsigned x, unsigned y, unsigned w, unsigned h)
{
	uint8_t *tile = xcalloc(1, 1 + 4 * 64 * 64 + 64);
	size_t at;

	put32(c, 0);
	at = c->out_len;
	for (unsigned ty = y; ty < y + h; ty += 64)
		for (unsigned tx = x; tx < x + w; tx += 64) {
			size_t n = zrle_tile(&c->fmt, s, tx, ty, MIN(64u, x + w - tx), MIN(64u, y + h - ty), tile);

			deflate_some(c, tile, n, Z_NO_FLUSH);
		}
	deflate_some(c, NULL, 0, Z_SYNC_FLUSH);
	free(tile);
	if (c->state != DEAD) {
		uint32_t n = htonl((uint32_t)(c->out_len - at));

		memcpy(c->out + at - 4, &n, 4);
	}
}

/* ---- damage and updates ---- */

static void
set_size(struct client *c, unsigned width, unsigned height)
{
	c->width = width;
	c->height = height;
	c->tiles_x = (width + TILE_W - 1) / TILE_W;
	c->tiles_y = (height + TILE_H - 1) / TILE_H;
	free(c->damage);
	c->damage = xcalloc(c->tiles_x, c->tiles_y);
	memset(c->damage, 1, (size_t)c->tiles_x * c->tiles_y);
}

static bool
tile_differs(const struct surface *a, const struct surface *b, unsigned tx, unsigned ty)
{
	unsigned x = tx * TILE_W, y = ty * TILE_H, w = MIN(TILE_W, a->width - x), h = MIN(TILE_H, a->height - y);

	for (unsigned row = y; row < y + h; row++) {
		size_t at = (size_t)row * a->width + x;

		if (memcmp(a->pixels + at, b->pixels + at, 4ull * w))
			return true;
	}
	return false;
}

static void
mark(struct rfb *r, unsigned tx, unsigned ty)
{
	for (struct client *c = r->clients; c; c = c->next)
		if (tx < c->tiles_x && ty < c->tiles_y)
			c->damage[ty * c->tiles_x + tx] = 1;
}

/* Draw the screen and note what changed. */
static void
refresh(struct rfb *r)
{
	struct surface swap;

	if (!r->src.draw || !r->src.draw(r->src.opaque, &r->next))
		return;
	if (r->next.width != r->shown.width || r->next.height != r->shown.height) {
		for (unsigned y = 0; y * TILE_H < r->next.height; y++)
			for (unsigned x = 0; x * TILE_W < r->next.width; x++)
				mark(r, x, y);
	} else {
		for (unsigned y = 0; y * TILE_H < r->next.height; y++)
			for (unsigned x = 0; x * TILE_W < r->next.width; x++)
				if (tile_differs(&r->shown, &r->next, x, y))
					mark(r, x, y);
	}
	swap = r->shown;
	r->shown = r->next;
	r->next = swap;
}

static void
put_rect(struct client *c, unsigned x, unsigned y, unsigned w, unsigned h, int32_t encoding)
{
	put16(c, x);
	put16(c, y);
	put16(c, w);
	put16(c, h);
	put32(c, (uint32_t)encoding);
}

/* The next run of damaged tiles in a row at or behind (*tx, *ty), clipped to what both sides have. False: no more. */
static bool
next_run(struct client *c, unsigned *tx, unsigned *ty, unsigned *len)
{
	for (; *ty < c->tiles_y; ++*ty, *tx = 0)
		for (; *tx < c->tiles_x; ++*tx) {
			if (!c->damage[*ty * c->tiles_x + *tx])
				continue;
			for (*len = 0; *tx + *len < c->tiles_x && c->damage[*ty * c->tiles_x + *tx + *len]; ++*len)
				;
			return true;
		}
	return false;
}

static void
send_damage(struct client *c)
{
	const struct surface *s = &c->rfb->shown;
	unsigned tx = 0, ty = 0, n = 0, len;
	unsigned w = MIN(c->width, s->width), h = MIN(c->height, s->height);
	size_t count_at;

	if (!next_run(c, &tx, &ty, &len))
		return;
	put8(c, 0); /* FramebufferUpdate, section 7.6.1 */
	put8(c, 0);
	put16(c, 0);
	count_at = c->out_len - 2;
	do {
		unsigned x = tx * TILE_W, y = ty * TILE_H;

		memset(&c->damage[ty * c->tiles_x + tx], 0, len);
		if (x < w && y < h) {
			unsigned rw = MIN(len * TILE_W, w - x), rh = MIN(TILE_H, h - y);

			put_rect(c, x, y, rw, rh, c->zrle ? ENC_ZRLE : ENC_RAW);
			if (c->zrle)
				encode_zrle(c, s, x, y, rw, rh);
			else
				encode_raw(c, s, x, y, rw, rh);
			n++;
		}
		tx += len;
	} while (c->state != DEAD && n < 0xfff0 && next_run(c, &tx, &ty, &len));
	if (c->state == DEAD)
		return;
	c->out[count_at] = (uint8_t)(n >> 8);
	c->out[count_at + 1] = (uint8_t)n;
	c->waiting = false;
}

static void
send_new_size(struct client *c)
{
	set_size(c, c->rfb->shown.width, c->rfb->shown.height);
	put8(c, 0);
	put8(c, 0);
	put16(c, 1);
	put_rect(c, 0, 0, c->width, c->height, ENC_DESKTOP_SIZE);
	c->waiting = false;
}

static void
send_ext_key_ack(struct client *c)
{
	put8(c, 0);
	put8(c, 0);
	put16(c, 1);
	put_rect(c, 0, 0, 0, 0, ENC_EXT_KEY);
	c->wants_ext_key_ack = false;
	c->waiting = false;
}

/* Cursor, section 7.8.1: the pixels in the client's format, a bit for each that is not transparent. No size: none. */
static void
send_pointer(struct client *c, const struct pointer_shape *p)
{
	unsigned w = p->visible ? p->width : 0, h = p->visible ? p->height : 0;
	struct surface s = { w, h, (uint32_t *)p->pixels };

	put8(c, 0);
	put8(c, 0);
	put16(c, 1);
	put_rect(c, w ? p->hot_x : 0, w ? p->hot_y : 0, w, h, ENC_CURSOR);
	if (w)
		encode_raw(c, &s, 0, 0, w, h);
	for (unsigned y = 0; y < h; y++)
		for (unsigned x = 0; x < w; x += 8) {
			uint8_t bits = 0;

			for (unsigned i = 0; i < 8 && x + i < w; i++)
				if (p->pixels[y * w + x + i] >> 31)
					bits |= (uint8_t)(0x80 >> i);
			put8(c, bits);
		}
	c->pointer_sent = true;
	c->pointer_serial = p->serial;
	c->waiting = false;
}

/* What the client has not been told of the pointer; NULL: it knows all, or it is part of the picture. */
static const struct pointer_shape *
new_pointer(const struct client *c)
{
	const struct pointer_shape *p = NULL;

	if (c->pointer && c->rfb->src.pointer)
		p = c->rfb->src.pointer(c->rfb->src.opaque);
	/* One that was never visible is not mentioned: clients show their own. */
	return p && (c->pointer_sent ? c->pointer_serial != p->serial : p->visible) ? p : NULL;
}

static void
update_client(struct client *c)
{
	const struct surface *s = &c->rfb->shown;
	const struct pointer_shape *pointer;

	if (c->state != NORMAL || !c->waiting || c->out_len - c->out_off > OUT_HIGH || !s->pixels)
		return;
	if (c->wants_ext_key_ack)
		send_ext_key_ack(c);
	else if (c->desktop_size && (c->width != s->width || c->height != s->height))
		send_new_size(c);
	else if ((pointer = new_pointer(c)))
		send_pointer(c, pointer);
	else
		send_damage(c);
	send_out(c);
}

static void
free_client(struct client *c)
{
	loop_watch_remove(c->watch);
	close(c->fd);
	if (c->z_open)
		deflateEnd(&c->z);
	OPENSSL_cleanse(c->in, sizeof(c->in));
	free(c->damage);
	free(c->out);
	free(c);
}

static void
reap(struct rfb *r)
{
	for (struct client **p = &r->clients; *p;) {
		struct client *c = *p;

		if (c->state != DEAD) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		r->client_count--;
		free_client(c);
	}
}

static bool
check_stalled(struct client *c, uint64_t now)
{
	if (c->state != NORMAL && now - c->opened_at > HANDSHAKE_NS)
		drop(c, "dropped, its handshake took more than 10 s");
	else if (c->out_len && now - c->wrote_at > STALL_NS)
		drop(c, "dropped, it has not read anything for 60 s");
	return c->state == DEAD;
}

static void
tick(void *opaque)
{
	struct rfb *r = opaque;
	uint64_t now = loop_now();
	bool wanted = false;

	for (struct client *c = r->clients; c; c = c->next)
		wanted |= !check_stalled(c, now) && c->state == NORMAL && c->waiting;
	if (wanted)
		refresh(r);
	for (struct client *c = r->clients; c; c = c->next)
		update_client(c);
	reap(r);
	if (r->clients)
		loop_timer_arm(&r->timer, now + (wanted ? FRAME_NS : 10 * FRAME_NS));
}

/* ---- input ---- */

static bool
take_format(struct client *c, const uint8_t *p)
{
	struct format f = { .bpp = p[0],
		.depth = p[1],
		.big_endian = p[2] != 0,
		.true_colour = p[3] != 0,
		.max = { be16(p + 4), be16(p + 6), be16(p + 8) },
		.shift = { p[10], p[11], p[12] } };

	if ((f.bpp != 8 && f.bpp != 16 && f.bpp != 32) || !f.true_colour)
		return false;
	for (int i = 0; i < 3; i++)
		if (f.shift[i] >= f.bpp || (uint64_t)f.max[i] << f.shift[i] >= 1ull << f.bpp)
			return false;
	c->fmt = f;
	return true;
}

static void
take_encodings(struct client *c, const uint8_t *p, unsigned n)
{
	bool had_ext_key = c->ext_key;

	c->zrle = c->desktop_size = c->ext_key = c->pointer = false;
	for (unsigned i = 0; i < n; i++) {
		int32_t enc = (int32_t)be32(p + 4 * i);

		c->zrle |= enc == ENC_ZRLE;
		c->desktop_size |= enc == ENC_DESKTOP_SIZE;
		c->ext_key |= enc == ENC_EXT_KEY;
		c->pointer |= enc == ENC_CURSOR;
	}
	c->wants_ext_key_ack |= c->ext_key && !had_ext_key;
	if (c->zrle && !c->z_open)
		c->zrle = c->z_open = deflateInit(&c->z, Z_BEST_SPEED) == Z_OK;
}

static void
take_request(struct client *c, bool incremental)
{
	c->waiting = true;
	if (!incremental)
		memset(c->damage, 1, (size_t)c->tiles_x * c->tiles_y);
	if (!loop_timer_armed(&c->rfb->timer) || c->rfb->timer.when > loop_now() + FRAME_NS)
		loop_timer_arm(&c->rfb->timer, loop_now() + FRAME_NS / 4);
}

static void
take_key(struct client *c, bool down, uint32_t keysym)
{
	uint8_t codes[8];
	unsigned n = keys_from_keysym(keysym, down, codes);

	if (n && c->rfb->sink.scancodes)
		c->rfb->sink.scancodes(c->rfb->sink.opaque, codes, n);
}

/* QEMU's extended key event carries the XT code: set 1, with 0x80 for the 0xe0 prefix. */
static void
take_ext_key(struct client *c, bool down, uint32_t keysym, uint32_t xt)
{
	uint8_t codes[2] = { 0xe0, (uint8_t)((xt & 0x7f) | (down ? 0 : 0x80)) };
	bool e0 = xt & 0x80 || xt >> 8 == 0xe0;

	if (!xt || xt > 0xffff) {
		take_key(c, down, keysym);
		return;
	}
	if (c->rfb->sink.scancodes)
		c->rfb->sink.scancodes(c->rfb->sink.opaque, e0 ? codes : codes + 1, e0 ? 2 : 1);
}

/* A guest with a tablet hears of the place; for one with a mouse it becomes motion. */
static void
take_pointer(struct client *c, unsigned mask, int x, int y)
{
	unsigned buttons =
		(mask & 1 ? POINTER_LEFT : 0) | (mask & 2 ? POINTER_MIDDLE : 0) | (mask & 4 ? POINTER_RIGHT : 0);
	int dz = mask & 8 ? -1 : mask & 16 ? 1 : 0, dx = 0, dy = 0;

	if (c->px >= 0) {
		dx = x - c->px;
		dy = y - c->py;
	}
	c->px = x;
	c->py = y;
	if (c->rfb->sink.place && c->width && c->height &&
		c->rfb->sink.place(c->rfb->sink.opaque, (unsigned)x * POINTER_MAX / MAX(c->width - 1, 1u),
			(unsigned)y * POINTER_MAX / MAX(c->height - 1, 1u), dz, buttons))
		return;
	if (c->rfb->sink.pointer)
		c->rfb->sink.pointer(c->rfb->sink.opaque, dx, dy, dz, buttons);
}

/* One message from p[0..n): the bytes it used, 0 when it is not whole yet, -1 when it is wrong. (section 7.5) */
static ssize_t
take_message(struct client *c, const uint8_t *p, size_t n)
{
	size_t need;

	switch (p[0]) {
	case 0: /* SetPixelFormat */
		if (n < 20)
			return 0;
		return take_format(c, p + 4) ? 20 : -1;
	case 2: /* SetEncodings */
		if (n < 4)
			return 0;
		need = 4 + 4ull * be16(p + 2);
		if (need > IN_MAX)
			return -1;
		if (n < need)
			return 0;
		take_encodings(c, p + 4, be16(p + 2));
		return (ssize_t)need;
	case 3: /* FramebufferUpdateRequest */
		if (n < 10)
			return 0;
		take_request(c, p[1]);
		return 10;
	case 4: /* KeyEvent */
		if (n < 8)
			return 0;
		take_key(c, p[1], be32(p + 4));
		return 8;
	case 5: /* PointerEvent */
		if (n < 6)
			return 0;
		take_pointer(c, p[1], be16(p + 2), be16(p + 4));
		return 6;
	case 6: /* ClientCutText: there is no clipboard in the guest to give it to */
		if (n < 8)
			return 0;
		c->skip = be32(p + 4);
		return 8;
	case 255: /* QEMU client message; 0: extended key event */
		if (n < 2)
			return 0;
		if (p[1] != 0)
			return -1;
		if (n < 12)
			return 0;
		take_ext_key(c, be16(p + 2), be32(p + 4), be32(p + 8));
		return 12;
	}
	return -1;
}

static void
put_format(struct client *c, const struct format *f)
{
	put8(c, f->bpp);
	put8(c, f->depth);
	put8(c, f->big_endian);
	put8(c, f->true_colour);
	for (int i = 0; i < 3; i++)
		put16(c, f->max[i]);
	for (int i = 0; i < 3; i++)
		put8(c, f->shift[i]);
	put(c, "\0\0\0", 3);
}

static void
put_reason(struct client *c, const char *text)
{
	put32(c, (uint32_t)strlen(text));
	put(c, text, strlen(text));
}

/* The DES key is the password with the bits of each byte reversed (section 7.2.2, as all implementations have it). */
static void
vnc_response(const char password[9], const uint8_t challenge[16], uint8_t out[16])
{
	DES_key_schedule ks;
	DES_cblock key;

	for (int i = 0; i < 8; i++) {
		uint8_t b = (uint8_t)password[i], r = 0;

		for (int k = 0; k < 8; k++)
			r |= (uint8_t)((b >> k & 1) << (7 - k));
		key[i] = r;
	}
	DES_set_key_unchecked(&key, &ks);
	for (int i = 0; i < 16; i += 8)
		DES_ecb_encrypt((const_DES_cblock *)(challenge + i), (DES_cblock *)(out + i), &ks, DES_ENCRYPT);
	OPENSSL_cleanse(&ks, sizeof(ks));
	OPENSSL_cleanse(key, sizeof(key));
}

static void
send_challenge(struct client *c)
{
	if (getrandom(c->challenge, sizeof(c->challenge), 0) != sizeof(c->challenge)) {
		drop(c, "dropped, no random numbers for its challenge");
		return;
	}
	put(c, c->challenge, sizeof(c->challenge));
	c->state = AUTH;
}

static ssize_t
take_version(struct client *c, const uint8_t *p, size_t n)
{
	bool secret = c->rfb->password[0];
	int major, minor;

	if (n < 12)
		return 0;
	if (sscanf((const char *)p, "RFB %3d.%3d\n", &major, &minor) != 2 || major != 3)
		return -1;
	c->minor = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
	if (c->minor == 3) {
		put32(c, secret ? 2 : 1);
		c->state = INIT;
		if (secret)
			send_challenge(c);
	} else {
		put8(c, 1);
		put8(c, secret ? 2 : 1);
		c->state = SECURITY;
	}
	return 12;
}

static ssize_t
take_security(struct client *c, const uint8_t *p, size_t n)
{
	bool secret = c->rfb->password[0];

	if (p[0] != (secret ? 2 : 1))
		return -1;
	if (secret) {
		send_challenge(c);
	} else {
		if (c->minor == 8)
			put32(c, 0);
		c->state = INIT;
	}
	return 1;
}

static ssize_t
take_auth(struct client *c, const uint8_t *p, size_t n)
{
	uint8_t expected[16];

	if (n < 16)
		return 0;
	vnc_response(c->rfb->password, c->challenge, expected);
	if (CRYPTO_memcmp(expected, p, 16)) {
		put32(c, 1);
		if (c->minor == 8)
			put_reason(c, "wrong password");
		send_out(c);
		drop(c, "refused, wrong password");
		return 16;
	}
	put32(c, 0);
	c->state = INIT;
	return 16;
}

static ssize_t
take_init(struct client *c, const uint8_t *p, size_t n)
{
	refresh(c->rfb);
	if (!c->rfb->shown.pixels)
		return -1;
	set_size(c, c->rfb->shown.width, c->rfb->shown.height);
	put16(c, c->width);
	put16(c, c->height);
	put_format(c, &server_format);
	put_reason(c, c->rfb->name);
	c->state = NORMAL;
	return 1;
}

static ssize_t
take_some(struct client *c, const uint8_t *p, size_t n)
{
	switch (c->state) {
	case VERSION:
		return take_version(c, p, n);
	case SECURITY:
		return take_security(c, p, n);
	case AUTH:
		return take_auth(c, p, n);
	case INIT:
		return take_init(c, p, n);
	case NORMAL:
		return take_message(c, p, n);
	case DEAD:
		break;
	}
	return -1;
}

static void
parse(struct client *c)
{
	size_t used = 0;

	while (used < c->in_len && c->state != DEAD) {
		ssize_t n;

		if (c->skip) {
			n = (ssize_t)MIN(c->skip, c->in_len - used);
			c->skip -= (uint64_t)n;
			used += (size_t)n;
			continue;
		}
		n = take_some(c, c->in + used, c->in_len - used);
		if (n < 0)
			drop(c, "dropped, it sent something that is not RFB");
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	memmove(c->in, c->in + used, c->in_len - used);
	c->in_len -= used;
}

static void
client_ready(void *opaque, int ready)
{
	struct client *c = opaque;
	struct rfb *r = c->rfb;

	if (ready & (LOOP_IN | LOOP_HUP)) {
		ssize_t n = recv(c->fd, c->in + c->in_len, IN_MAX - c->in_len, MSG_DONTWAIT);

		if (n > 0) {
			c->in_len += (size_t)n;
			parse(c);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			drop(c, "closed the connection");
		}
	}
	if (c->state != DEAD)
		send_out(c);
	reap(r);
}

static void
accept_ready(void *opaque, int ready)
{
	struct rfb *r = opaque;
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int fd = accept4(r->fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;
	struct client *c;
	char ip[INET_ADDRSTRLEN] = "?";

	if (fd < 0)
		return;
	c = r->client_count < r->clients_max ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	inet_ntop(AF_INET, &sa.sin_addr, ip, sizeof(ip));
	snprintf(c->peer, sizeof(c->peer), "%s:%u", ip, ntohs(sa.sin_port));
	c->rfb = r;
	c->fd = fd;
	c->px = -1;
	c->fmt = server_format;
	c->opened_at = c->wrote_at = loop_now();
	c->watch = loop_watch_add(r->loop, fd, LOOP_IN, client_ready, c);
	if (!c->watch) {
		close(fd);
		free(c);
		return;
	}
	c->next = r->clients;
	r->clients = c;
	r->client_count++;
	log_info("vrde", "viewer %s: connected", c->peer);
	put(c, "RFB 003.008\n", 12);
	send_out(c);
	if (!loop_timer_armed(&r->timer))
		loop_timer_arm(&r->timer, loop_now() + 10 * FRAME_NS);
}

/* ---- life ---- */

static int
listen_on(const char *address, uint16_t first, uint16_t last, uint16_t *port, struct err *e)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY) };
	socklen_t len = sizeof(sa);
	int fd, one = 1, saved = 0;

	if (address && address[0] && inet_pton(AF_INET, address, &sa.sin_addr) != 1)
		return err_set(e, ERR_INVALID, "'%s' is not an IPv4 address for the remote display", address);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, ERR_HOST, errno, "cannot make a socket for the remote display");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	for (unsigned p = first; p <= MAX(first, last); p++) {
		sa.sin_port = htons((uint16_t)p);
		if (!bind(fd, (struct sockaddr *)&sa, sizeof(sa)) && !listen(fd, 8)) {
			getsockname(fd, (struct sockaddr *)&sa, &len);
			*port = ntohs(sa.sin_port);
			return fd;
		}
		saved = errno;
	}
	close(fd);
	return err_sys(e, ERR_IN_USE, saved, "the remote display cannot listen on port %u of %s", first,
		address && address[0] ? address : "all addresses");
}

struct rfb *
rfb_open(struct loop *l, const struct rfb_options *o, const struct display_source *src, const struct input_sink *sink,
	struct err *e)
{
	struct rfb *r = xcalloc(1, sizeof(*r));

	r->loop = l;
	r->src = *src;
	r->sink = *sink;
	r->clients_max = o->clients_max ? o->clients_max : 8;
	snprintf(r->password, sizeof(r->password), "%s", o->password ? o->password : "");
	snprintf(r->name, sizeof(r->name), "%s", o->name ? o->name : "Lodge");
	r->fd = listen_on(o->address, o->port, o->port_last, &r->port, e);
	if (r->fd < 0) {
		free(r);
		return NULL;
	}
	loop_timer_init(&r->timer, l, tick, r);
	r->watch = loop_watch_add(l, r->fd, LOOP_IN, accept_ready, r);
	return r;
}

void
rfb_close(struct rfb *r)
{
	if (!r)
		return;
	for (struct client *c = r->clients; c; c = c->next)
		c->state = DEAD;
	reap(r);
	loop_timer_cancel(&r->timer);
	loop_watch_remove(r->watch);
	close(r->fd);
	surface_free(&r->shown);
	surface_free(&r->next);
	OPENSSL_cleanse(r->password, sizeof(r->password));
	free(r);
}

uint16_t
rfb_port(const struct rfb *r)
{
	return r->port;
}

unsigned
rfb_clients(const struct rfb *r)
{
	return r->client_count;
}
