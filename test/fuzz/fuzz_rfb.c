/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a VNC viewer may send. The server's file is part of this one, so that its callbacks are called in
 * turn without a loop or a network: a UNIX socket takes the place of TCP.
 *
 * Input: one byte of flags (1 password, 2 no handshake of ours, 4 an answer that is right; which version in bits 3-4),
 * then pieces: one byte length (0: the screen changes, 255: 4 KiB) and the bytes.
 */
#include "display/rfb.c"

#include <sys/un.h>

#include "test/fuzz/input.h"

#define PIECES_MAX 100 /* each draws the screen */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sockaddr_un where = { .sun_family = AF_UNIX };
static int listener;
static unsigned shade;

static bool
draw_screen(void *opaque, struct surface *s)
{
	if (!surface_resize(s, shade & 4 ? 150 : 65, shade & 8 ? 90 : 30))
		return false;
	for (unsigned i = 0; i < s->width * s->height; i++)
		s->pixels[i] = (i * (shade & 1 ? 7919u : 1u) / 64 * shade) & 0xffffff;
	return true;
}

static bool
take_codes(void *opaque, const uint8_t *codes, size_t n)
{
	if (n < 1 || n > 8)
		abort();
	return shade & 1;
}

static void
take_motion(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	if (buttons > 7)
		abort();
}

static void
set_up(void)
{
	log_set_level(LOG_ERROR);
	loop = loop_open(&lock);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	snprintf(where.sun_path + 1, sizeof(where.sun_path) - 1, "lodge-fuzz-rfb-%d", (int)getpid());
	if (!loop || bind(listener, (struct sockaddr *)&where, sizeof(where)) || listen(listener, 4))
		abort();
}

/* What the server has to say is thrown away; then it hears `n` bytes. */
static void
say(struct rfb *r, int fd, const void *data, size_t n)
{
	static uint8_t heard[65536];

	while (recv(fd, heard, sizeof(heard), MSG_DONTWAIT) > 0)
		;
	if (send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && n && r->clients)
		abort();
	for (int i = 0; i < 3 && r->clients; i++)
		client_ready(r->clients, LOOP_IN);
	tick(r);
}

static void
shake_hands(struct rfb *r, int fd, unsigned flags)
{
	static const char *const versions[] = { "RFB 003.008\n", "RFB 003.007\n", "RFB 003.003\n", "RFB 003.889\n" };
	unsigned version = flags >> 3 & 3;
	uint8_t secret[16];

	say(r, fd, versions[version], 12);
	if (version != 2)
		say(r, fd, flags & 1 ? "\2" : "\1", 1);
	if (flags & 1 && r->clients) {
		vnc_response(r->password, r->clients->challenge, secret);
		secret[0] ^= flags & 4 ? 0 : 1;
		say(r, fd, secret, 16);
	}
	say(r, fd, "\1", 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned flags = (unsigned)take(&in, 1);
	struct rfb_options o = { .address = "127.0.0.1", .password = flags & 1 ? "secret" : NULL, .name = "fuzz" };
	struct display_source src = { .draw = draw_screen };
	struct input_sink sink = { .scancodes = take_codes, .pointer = take_motion };
	struct rfb *r;
	int fd, tcp;

	if (!loop)
		set_up();
	pthread_mutex_lock(&lock);
	shade = 1;
	r = rfb_open(loop, &o, &src, &sink, NULL);
	if (!r)
		abort();
	tcp = r->fd;
	r->fd = listener;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&where, sizeof(where)))
		abort();
	accept_ready(r, LOOP_IN);
	if (!(flags & 2))
		shake_hands(r, fd, flags);
	for (int i = 0; i < PIECES_MAX && in.left && r->clients; i++) {
		size_t n = (size_t)take(&in, 1);

		n = MIN(n == 255 ? 4096 : n, in.left);
		if (!n)
			shade++;
		say(r, fd, in.p, n);
		in.p += n;
		in.left -= n;
	}
	r->fd = tcp;
	rfb_close(r);
	close(fd);
	pthread_mutex_unlock(&lock);
	return 0;
}
