/* SPDX-License-Identifier: Apache-2.0 */
/* A viewer of a few lines talks to the server over loopback; the server's loop runs in a thread of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <png.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "display/display.h"

struct fixture {
	pthread_mutex_t lock;
	pthread_t thread;
	struct loop *loop;
	struct rfb *rfb;
	uint32_t color, width;
	uint8_t keys[64];
	size_t keys_len;
	int dx, dy;
	int fd;
	struct pointer_shape shape;
};

static bool
draw(void *opaque, struct surface *s)
{
	struct fixture *f = opaque;

	if (!surface_resize(s, f->width, 48))
		return false;
	for (unsigned i = 0; i < s->width * s->height; i++)
		s->pixels[i] = 0x102030;
	s->pixels[20 * s->width + 70] = f->color; /* in the tile (64, 16) */
	return true;
}

static bool
keys(void *opaque, const uint8_t *codes, size_t n)
{
	struct fixture *f = opaque;

	memcpy(f->keys + f->keys_len, codes, n);
	f->keys_len += n;
	return true;
}

static void
pointer(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	struct fixture *f = opaque;

	f->dx += dx;
	f->dy += dy;
}

static const struct pointer_shape *
shape(void *opaque)
{
	return &((struct fixture *)opaque)->shape;
}

static void *
run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
start(struct fixture *f, const char *password)
{
	struct rfb_options o = { .address = "127.0.0.1", .password = password, .name = "test" };
	struct display_source src = { .opaque = f, .draw = draw, .pointer = shape };
	struct input_sink sink = { .opaque = f, .scancodes = keys, .pointer = pointer };
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval tv = { .tv_sec = 5 };
	struct err e;

	memset(f, 0, sizeof(*f));
	f->width = 128;
	f->color = 0xff0000;
	pthread_mutex_init(&f->lock, NULL);
	f->loop = loop_open(&f->lock);
	f->rfb = rfb_open(f->loop, &o, &src, &sink, &e);
	if (!f->rfb)
		return -1;
	sa.sin_port = htons(rfb_port(f->rfb));
	pthread_create(&f->thread, NULL, run, f->loop);
	f->fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return connect(f->fd, (struct sockaddr *)&sa, sizeof(sa));
}

static int
setup(void **state)
{
	static struct fixture f;

	*state = &f;
	return start(&f, NULL);
}

static int
setup_password(void **state)
{
	static struct fixture f;

	*state = &f;
	return start(&f, "secret");
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	rfb_close(f->rfb);
	loop_close(f->loop);
	close(f->fd);
	return 0;
}

static void
get(struct fixture *f, void *buf, size_t n)
{
	assert_int_equal(read_full(f->fd, buf, n), n);
}

static void
handshake(struct fixture *f)
{
	uint8_t b[64];

	get(f, b, 12);
	assert_memory_equal(b, "RFB 003.008\n", 12);
	assert_int_equal(write(f->fd, "RFB 003.008\n", 12), 12);
	get(f, b, 2);
	assert_memory_equal(b, "\1\1", 2);
	assert_int_equal(write(f->fd, "\1", 1), 1);
	get(f, b, 4);
	assert_memory_equal(b, "\0\0\0\0", 4);
	assert_int_equal(write(f->fd, "\1", 1), 1);
	get(f, b, 24 + 4);
	assert_int_equal(b[1], 128);
	assert_int_equal(b[3], 48);
	assert_memory_equal(b + 20, "\0\0\0\4test", 8);
}

static void
request(struct fixture *f, bool incremental)
{
	uint8_t m[10] = { 3, incremental, 0, 0, 0, 0, 0, 128, 0, 48 };

	assert_int_equal(write(f->fd, m, 10), 10);
}

/* Reads one update of raw rectangles; returns their number, the last one's place, and its last pixel read at (70, 20).
 */
static unsigned
read_update(struct fixture *f, unsigned *x, unsigned *y, uint32_t *pixel)
{
	uint8_t h[4], r[12];
	unsigned n;

	get(f, h, 4);
	assert_int_equal(h[0], 0);
	n = (unsigned)(h[2] << 8 | h[3]);
	for (unsigned i = 0; i < n; i++) {
		unsigned w, hgt;
		uint32_t *px;

		get(f, r, 12);
		*x = (unsigned)(r[0] << 8 | r[1]);
		*y = (unsigned)(r[2] << 8 | r[3]);
		w = (unsigned)(r[4] << 8 | r[5]);
		hgt = (unsigned)(r[6] << 8 | r[7]);
		px = malloc(4ul * w * hgt);
		get(f, px, 4ul * w * hgt);
		if (*x <= 70 && 70 < *x + w && *y <= 20 && 20 < *y + hgt)
			*pixel = px[(20 - *y) * w + 70 - *x];
		free(px);
	}
	return n;
}

static void
a_viewer_sees_the_whole_picture_and_then_only_the_tile_that_changed(void **state)
{
	struct fixture *f = *state;
	unsigned x, y;
	uint32_t pixel = 0;

	handshake(f);
	request(f, false);
	assert_int_equal(read_update(f, &x, &y, &pixel), 3);
	assert_int_equal(pixel, 0xff0000);
	pthread_mutex_lock(&f->lock);
	f->color = 0x00ff00;
	pthread_mutex_unlock(&f->lock);
	request(f, true);
	assert_int_equal(read_update(f, &x, &y, &pixel), 1);
	assert_int_equal(x, 64);
	assert_int_equal(y, 16);
	assert_int_equal(pixel, 0x00ff00);
}

static void
keys_and_the_pointer_reach_the_machine(void **state)
{
	struct fixture *f = *state;
	/* 'A' down and up, then Left down (e0 4b), pointer to (10, 10) and (15, 8), then a request that must be
	 * answered */
	static const uint8_t msgs[] = { 4, 1, 0, 0, 0, 0, 0, 'A', 4, 0, 0, 0, 0, 0, 0, 'A', 4, 1, 0, 0, 0, 0, 0xff,
		0x51, 5, 0, 0, 10, 0, 10, 5, 0, 0, 15, 0, 8 };
	unsigned x, y;
	uint32_t pixel;

	handshake(f);
	assert_int_equal(write(f->fd, msgs, sizeof(msgs)), sizeof(msgs));
	request(f, false);
	read_update(f, &x, &y, &pixel);
	assert_int_equal(f->keys_len, 4);
	assert_memory_equal(f->keys, "\x1e\x9e\xe0\x4b", 4);
	assert_int_equal(f->dx, 5);
	assert_int_equal(f->dy, -2);
}

static void
a_viewer_that_can_is_sent_the_pointer(void **state)
{
	static const uint8_t encodings[] = { 2, 0, 0, 1, 0xff, 0xff, 0xff, 0x11 };
	static const uint32_t pixels[] = { 0xff112233, 0, 0x80445566, 0x7f000000 };
	struct fixture *f = *state;
	uint8_t b[64];
	uint32_t px;
	unsigned x, y;

	handshake(f);
	assert_int_equal(write(f->fd, encodings, sizeof(encodings)), sizeof(encodings));
	request(f, false);
	assert_int_equal(read_update(f, &x, &y, &px), 3); /* none was ever shown: not a word about it */
	pthread_mutex_lock(&f->lock);
	f->shape = (struct pointer_shape){ 5, true, 2, 2, 1, 0, pixels };
	pthread_mutex_unlock(&f->lock);
	request(f, true);
	get(f, b, 4 + 12 + 16 + 2);
	assert_memory_equal(b, "\0\0\0\1\0\1\0\0\0\2\0\2\xff\xff\xff\x11", 16);
	assert_memory_equal(b + 16, "\x33\x22\x11", 3);
	assert_memory_equal(b + 32, "\x80\x80", 2); /* a bit for what is half opaque or more */
	pthread_mutex_lock(&f->lock);
	f->shape = (struct pointer_shape){ .serial = 6 };
	pthread_mutex_unlock(&f->lock);
	request(f, true);
	get(f, b, 16);
	assert_memory_equal(b, "\0\0\0\1\0\0\0\0\0\0\0\0\xff\xff\xff\x11", 16);
}

static void
zrle_decodes_to_the_same_pixels(void **state)
{
	static const uint8_t encodings[] = { 2, 0, 0, 1, 0, 0, 0, 16 };
	struct fixture *f = *state;
	uint8_t h[16], *z, tile[64 * 16 * 4 + 16];
	z_stream s = { 0 };
	uint32_t len;

	handshake(f);
	assert_int_equal(write(f->fd, encodings, sizeof(encodings)), sizeof(encodings));
	request(f, false);
	get(f, h, 4);
	get(f, h, 12); /* first rectangle: the first row of tiles, 128x16, one colour */
	assert_int_equal(h[11], 16);
	get(f, h, 4);
	len = ntohl(*(uint32_t *)h);
	assert_in_range(len, 1, 4096);
	z = malloc(len);
	get(f, z, len);
	assert_int_equal(inflateInit(&s), Z_OK);
	s.next_in = z;
	s.avail_in = len;
	s.next_out = tile;
	s.avail_out = sizeof(tile);
	assert_int_equal(inflate(&s, Z_SYNC_FLUSH), Z_OK);
	assert_int_equal(s.total_out, 8); /* two tiles: solid + 3 bytes each */
	assert_int_equal(tile[0], 1);
	assert_memory_equal(tile + 1, "\x30\x20\x10", 3);
	inflateEnd(&s);
	free(z);
}

static void
a_wrong_password_is_refused_with_a_reason(void **state)
{
	struct fixture *f = *state;
	uint8_t b[64];

	get(f, b, 12);
	assert_int_equal(write(f->fd, "RFB 003.008\n", 12), 12);
	get(f, b, 2);
	assert_memory_equal(b, "\1\2", 2);
	assert_int_equal(write(f->fd, "\2", 1), 1);
	get(f, b, 16);
	assert_int_equal(write(f->fd, b, 16), 16); /* echoing the challenge is not knowing the secret */
	get(f, b, 4);
	assert_int_equal(b[3], 1);
	get(f, b, 4);
	get(f, b, b[3]);
	assert_memory_equal(b, "wrong", 5);
	assert_int_equal(read(f->fd, b, 1), 0);
}

static void
nonsense_ends_the_connection_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	uint8_t b[64];

	handshake(f);
	assert_int_equal(write(f->fd, "\xee\xee\xee\xee", 4), 4);
	assert_int_equal(read(f->fd, b, 1), 0);
}

static void
text_becomes_scan_codes_with_shift_held(void **state)
{
	struct str codes = { 0 };
	struct err e;

	assert_int_equal(keys_from_text("aB\n", 3, &codes, &e), 0);
	assert_int_equal(codes.len, 8);
	assert_memory_equal(codes.s, "\x1e\x9e\x2a\x30\xb0\xaa\x1c\x9c", 8);
	assert_int_equal(keys_from_text("x\xc3\xa4", 3, &codes, &e), -1);
	assert_non_null(strstr(e.text, "byte 1"));
	str_free(&codes);
}

static void
a_png_decodes_to_the_pixels_it_was_made_of(void **state)
{
	struct surface s = { 0 };
	png_image img = { .version = PNG_IMAGE_VERSION };
	uint8_t *data, rgb[6 * 3];
	size_t len;

	assert_true(surface_resize(&s, 3, 2));
	for (unsigned i = 0; i < 6; i++)
		s.pixels[i] = 0x010203 * (i + 1);
	assert_int_equal(png_encode(&s, &data, &len), 0);
	assert_true(png_image_begin_read_from_memory(&img, data, len));
	img.format = PNG_FORMAT_RGB;
	assert_int_equal(img.width, 3);
	assert_true(png_image_finish_read(&img, NULL, rgb, 0, NULL));
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(rgb[3 * i] << 16 | rgb[3 * i + 1] << 8 | rgb[3 * i + 2], s.pixels[i]);
	free(data);
	surface_free(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_viewer_sees_the_whole_picture_and_then_only_the_tile_that_changed),
		T(keys_and_the_pointer_reach_the_machine),
		T(a_viewer_that_can_is_sent_the_pointer),
		T(zrle_decodes_to_the_same_pixels),
		cmocka_unit_test_setup_teardown(a_wrong_password_is_refused_with_a_reason, setup_password, teardown),
		T(nonsense_ends_the_connection_and_nothing_else),
		cmocka_unit_test(text_becomes_scan_codes_with_shift_held),
		cmocka_unit_test(a_png_decodes_to_the_pixels_it_was_made_of),
	};

	return cmocka_run_group_tests_name("display/rfb", tests, NULL, NULL);
}
