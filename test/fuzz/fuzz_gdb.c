/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a client of gdb's server that says anything, to a machine with two CPUs under the interpreter. Input:
 * raw bytes for the server, or, where a piece begins with a byte below 32, that command's prefix and its text framed
 * with a right checksum. The session has to end by itself when the client is gone; CPUs that run are stopped then.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "debug/debug.h"
#include "debug/packet.h"
#include "test/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define RAM_SIZE (1u << 20)

static const char *const prefixes[] = { "?", "g", "G", "p", "P", "m", "M", "X", "Z0,", "z0,", "Z2,", "Hg", "Hc", "T",
	"vCont;", "vCont?", "s", "c", "qSupported",
	"qXfer:features:read:target.xml:", "qXfer:threads:read::", "qThreadExtraInfo,", "qRcmd,", "QStartNoAckMode",
	"qfThreadInfo", "qC", "D", "vKill", "S", "C", "Z3,", "Z4," };

static struct machine m;
static struct cpus cpus;
static struct mem_region region;
static struct gdb *gdb;

static void
op_hold(void *opaque)
{
	cpus_pause(&cpus);
}

static void
op_release(void *opaque)
{
	cpus_resume(&cpus);
}

static int
op_reset(void *opaque, struct err *e)
{
	cpus_reset(&cpus);
	return 0;
}

static void
op_quit(void *opaque)
{
}

static const struct debug_ops ops = { op_hold, op_release, op_reset, op_quit };

static uint8_t
get_cr8(void *opaque)
{
	return 0;
}

static void
set_cr8(void *opaque, uint8_t value)
{
}

static void
nothing(void *opaque, enum machine_event what, int status)
{
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct cpu_options o = { .count = 2 };
	struct err e = { 0 };
	struct ram *ram;

	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	m.event = nothing;
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &region);
	mem_update(&m.mem);
	for (int i = 0; i < 2; i++)
		m.intc.lapic[i] = (struct lapic_port){ .get_cr8 = get_cr8, .set_cr8 = set_cr8, .base = 0xfee00800 };
	if (cpus_open(&cpus, &m, &cpu_engine_interp, &o, &e) || cpus_start(&cpus, &e))
		abort();
	cpus_pause(&cpus);
	gdb = gdb_open(NULL, &cpus, &ops, NULL, true, &e);
	return gdb ? 0 : 1;
}

static void
add_piece(struct str *out, struct input *in)
{
	unsigned what = (unsigned)take(in, 1);
	size_t len = (size_t)take(in, 1);
	struct str packet = { 0 };

	len = MIN(len, in->left);
	if (what < ARRAY_LEN(prefixes)) {
		str_add(&packet, prefixes[what]);
		str_addn(&packet, (const char *)in->p, len);
		packet_frame(out, packet.s, packet.len);
		str_free(&packet);
	} else if (len) {
		str_addn(out, (const char *)in->p, len);
	}
	in->p += len;
	in->left -= len;
}

/* Swallow answers, so that the server never waits for us. */
static void *
listen_all(void *opaque)
{
	char buf[4096];

	while (recv(*(int *)opaque, buf, sizeof(buf), 0) > 0)
		;
	return NULL;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct str out = { 0 };
	pthread_t listener;
	int fds[2];

	while (in.left)
		add_piece(&out, &in);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		abort();
	pthread_create(&listener, NULL, listen_all, &fds[0]);
	if (out.len && out.len < 100000)
		send(fds[0], out.s, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fds[0], SHUT_WR);
	cpus_pause(&cpus);
	cpus_reset(&cpus);
	gdb_serve(gdb, fds[1]);
	cpus_pause(&cpus);
	shutdown(fds[1], SHUT_RDWR);
	close(fds[1]);
	pthread_join(listener, NULL);
	close(fds[0]);
	str_free(&out);
	return 0;
}
