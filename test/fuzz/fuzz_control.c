/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the control socket of a machine that runs, from framing to methods. Input: pieces of one byte (0-29: the
 * method with that number in vm/protocol.h, its parameters in what follows; others: a frame as it is; 255: no frame at
 * all), two bytes length, and the text. A connection that is not closed within 20 s is a finding, and so is an answer
 * that is not JSON.
 */
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "test/fuzz/input.h"
#include "vm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static const char *const methods[] = {
#define METHOD_NAME(name, function) name,
	VM_METHODS(METHOD_NAME)
#undef METHOD_NAME
};

static const char *const parameters[] = { "{}", "{\"codes\":[30,158,224,300]}", "{\"text\":\"Hello \\u00e9\\n\"}",
	"{\"slot\":0,\"cable\":false}", "{\"slot\":0,\"rule\":\"w,tcp,127.0.0.1,0,,80\"}",
	"{\"slot\":0,\"name\":\"w\"}", "{\"slot\":0,\"enable\":true}",
	"{\"controller\":\"IDE\",\"port\":1,\"device\":0,\"path\":null,\"force\":true}",
	"{\"controller\":\"IDE\",\"port\":1,\"device\":0,\"path\":\"/dev/null\"}", "{\"enable\":false}" };

static const char document[] =
	"{\"version\":1,\"name\":\"fuzz\",\"memory\":4,\"engine\":\"interp\",\"sandbox\":false,\"firmware\":\"%s\","
	"\"vga\":{\"memory\":1},\"storage\":[{\"name\":\"IDE\",\"type\":\"ide\",\"attachments\":[{\"port\":1,\"type\":"
	"\"dvd\"}]}],\"nics\":[{\"slot\":0,\"backend\":{\"type\":\"nat\"}}],\"vrde\":{\"address\":\"127.0.0.1\"}}";

static char dir[] = "/tmp/lodge-fuzz-control-XXXXXX";
static struct vm *machine;
static pthread_t owner;
static _Atomic bool ended;

static void *
run(void *opaque)
{
	struct vm_outcome out;

	vm_run(machine, &out);
	ended = true;
	return NULL;
}

/* Firmware of nothing but HLT. */
static char *
make_firmware(void)
{
	char *path = xasprintf("%s/firmware", dir);
	static uint8_t halts[1 << 16];
	FILE *f = fopen(path, "w");

	memset(halts, 0xf4, sizeof(halts));
	if (!f || fwrite(halts, 1, sizeof(halts), f) != sizeof(halts) || fclose(f))
		abort();
	return path;
}

static void
start(void)
{
	static char *firmware;
	struct vm_options o = { .run_dir = dir };
	struct err e = { 0 };
	struct vm_config *c;
	char *text;

	if (!firmware) {
		log_set_level(LOG_ERROR);
		if (!mkdtemp(dir))
			abort();
		firmware = make_firmware();
	}
	text = xasprintf(document, firmware);
	c = vm_config_parse(text, strlen(text), &e);
	free(text);
	if (c)
		machine = vm_open(c, &o);
	ended = false;
	if (!c || vm_power_on(machine, &e) || pthread_create(&owner, NULL, run, NULL)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
}

static void
finish(void)
{
	pthread_join(owner, NULL);
	vm_close(machine);
	machine = NULL;
}

static int
dial(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 20 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", dir, VM_FILE_CONTROL);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void
add_piece(struct str *out, unsigned what, const char *text, size_t len)
{
	struct str frame = { 0 };
	uint8_t head[4];

	if (what < 30) {
		str_addf(&frame, "{\"id\":%u,\"method\":\"%s\",\"params\":", what, methods[what % ARRAY_LEN(methods)]);
		str_addn(&frame, text, len);
		str_add(&frame, "}");
	} else {
		str_addn(&frame, text, len);
	}
	put_le32(head, (uint32_t)frame.len);
	if (what != 255)
		str_addn(out, (const char *)head, 4);
	if (frame.len)
		str_addn(out, frame.s, frame.len);
	str_free(&frame);
}

/* Everything until the connection ends. */
static void
hear_all(int fd)
{
	uint8_t head[4];

	while (read_full(fd, head, 4) == 4) {
		uint32_t len = le32(head);
		char *text = xcalloc((size_t)len + 1, 1);
		json_t *j = NULL;

		if (read_full(fd, text, len) == (ssize_t)len) {
			j = json_loadb(text, len, 0, NULL);
			if (!j)
				abort();
		}
		json_decref(j);
		free(text);
	}
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	const char *text = parameters[seed / 7 % ARRAY_LEN(parameters)];
	size_t len = strlen(text);

	if (seed % 5 || size + len + 3 > max_size)
		return LLVMFuzzerMutate(data, size, max_size);
	data[size] = (uint8_t)(seed / 97 % ARRAY_LEN(methods));
	data[size + 1] = (uint8_t)len;
	data[size + 2] = 0;
	memcpy(data + size + 3, text, len);
	return size + len + 3;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct str out = { 0 };
	struct timeval before, after;
	int fd;

	if (!machine)
		start();
	while (in.left) {
		unsigned what = (unsigned)take(&in, 1);
		size_t len = (size_t)take(&in, 2);

		len = MIN(len, in.left);
		add_piece(&out, what, (const char *)in.p, len);
		in.p += len;
		in.left -= len;
	}
	gettimeofday(&before, NULL);
	fd = dial();
	if (fd >= 0) {
		if (out.len)
			send(fd, out.s, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		shutdown(fd, SHUT_WR);
		hear_all(fd);
		close(fd);
	}
	gettimeofday(&after, NULL);
	if (after.tv_sec - before.tv_sec > 18)
		abort();
	str_free(&out);
	if (ended || fd < 0)
		finish();
	return 0;
}
