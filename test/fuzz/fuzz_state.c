/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the file of a saved state. The input is either a file as it is, or (first byte odd) changes to the parts
 * of a good one, with the checksums put right again, so that what lies behind them is reached: the list of memory, the
 * description, fields of devices and CPUs, all loaded into a machine that has every kind of device.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

#include "base/bytes.h"
#include "test/unit/state/machine.h"

static struct rig rig;
static uint8_t *good;
static size_t good_len;

static int
file_of(const void *p, size_t n)
{
	int fd = memfd_create("state", MFD_CLOEXEC);

	if (fd < 0 || write_full(fd, p, n) != (ssize_t)n)
		abort();
	return fd;
}

static void
build(void)
{
	struct rig_options o = { .ram = 4 << 20, .cpus = 1, .engine = "interp" };
	struct err e = { 0 };
	char dir[] = "/tmp/lodge-fuzz-XXXXXX";
	int fd = memfd_create("good", MFD_CLOEXEC);

	if (!mkdtemp(dir) || rig_open(&rig, dir, &o, NULL, &e) ||
		state_save(fd, pc_machine(rig.pc), pc_cpus(rig.pc), NULL, NULL, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	good_len = (size_t)lseek(fd, 0, SEEK_END);
	good = malloc(good_len);
	if (pread(fd, good, good_len, 0) != (ssize_t)good_len)
		abort();
	close(fd);
}

/* The description of the good file, changed where the input says (u16 place, u8 value), packed again. */
static int
changed_file(const uint8_t *in, size_t len)
{
	uint64_t at = le64(good + 48), packed = le64(good + 56), plain = le64(good + 64);
	uint8_t *text = malloc(plain), *out = malloc(at + ZSTD_compressBound(plain));
	size_t n;
	int fd;

	if (!text || !out || ZSTD_decompress(text, plain, good + at, packed) != plain)
		abort();
	for (; len >= 4; in += 4, len -= 4)
		text[(in[0] | (size_t)in[1] << 8 | (size_t)in[2] << 16) % plain] = in[3];
	memcpy(out, good, at);
	n = ZSTD_compress(out + at, ZSTD_compressBound(plain), text, plain, 1);
	put_le64(out + 16, at + n);
	put_le64(out + 56, n);
	put_le32(out + 76, state_checksum(out + at, n));
	put_le32(out + 80, state_checksum(out, 80));
	fd = file_of(out, at + n);
	free(out);
	free(text);
	return fd;
}

int
LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
	struct state_file *f;
	struct machine *m;
	struct err e = { 0 };

	if (!good)
		build();
	if (!len)
		return 0;
	f = state_open(in[0] & 1 ? changed_file(in + 1, len - 1) : file_of(in + 1, len - 1), "fuzz", &e);
	if (!f)
		return 0;
	m = pc_machine(rig.pc);
	machine_lock(m);
	if (!state_verify(f, &e) && !state_load(f, m, pc_cpus(rig.pc), &e))
		state_load_memory(f, m, -1, &e);
	device_drain_all(m);
	device_reset_all(m);
	cpus_reset(pc_cpus(rig.pc));
	machine_unlock(m);
	state_close(f);
	return 0;
}
