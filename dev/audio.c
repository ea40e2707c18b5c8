/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sound into a file: WAVE, 16 bits, two channels, 48000 frames a second, whatever the guest plays with ("Multimedia
 * Programming Interface and Data Specifications 1.0", RIFF WAVE). The lengths in its header are brought up to date
 * every second of sound and at the end, so that the file is whole whenever it is looked at. It ends at FILE_MAX: a
 * guest cannot fill the host's disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/audio.h"

#define RATE 48000u
#define HEADER 44u
#define FILE_MAX (1u << 30)

struct audio {
	int fd;
	uint32_t data, shown; /* bytes behind the header: in the file, and as its header says */
	bool failed;
	uint32_t phase; /* of the resampling, 16.16, between `last` and the next frame */
	int16_t last[2];
};

static void
write_header(struct audio *a)
{
	uint8_t h[HEADER] = "RIFF....WAVEfmt ";

	put_le32(h + 4, HEADER - 8 + a->data);
	put_le32(h + 16, 16);
	put_le16(h + 20, 1);
	put_le16(h + 22, 2);
	put_le32(h + 24, RATE);
	put_le32(h + 28, RATE * 4);
	put_le16(h + 32, 4);
	put_le16(h + 34, 16);
	memcpy(h + 36, "data", 4);
	put_le32(h + 40, a->data);
	if (pwrite(a->fd, h, sizeof(h), 0) != (ssize_t)sizeof(h))
		a->failed = true;
	a->shown = a->data;
}

struct audio *
audio_file_open(const char *path, struct err *e)
{
	struct audio *a = xcalloc(1, sizeof(*a));

	a->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (a->fd >= 0)
		write_header(a);
	if (a->fd < 0 || a->failed) {
		err_sys(e, ERR_FILE, errno, "cannot write sound to %s", path);
		if (a->fd >= 0)
			close(a->fd);
		free(a);
		return NULL;
	}
	return a;
}

void
audio_close(struct audio *a)
{
	if (!a)
		return;
	write_header(a);
	close(a->fd);
	free(a);
}

static void
append(struct audio *a, const uint8_t *bytes, size_t n)
{
	if (a->failed || n > FILE_MAX - a->data)
		return;
	if (pwrite(a->fd, bytes, n, HEADER + (off_t)a->data) != (ssize_t)n) {
		log_error("audio", "sound cannot be written: %s", strerror(errno));
		a->failed = true;
		return;
	}
	a->data += (uint32_t)n;
	if (a->data - a->shown >= RATE * 4)
		write_header(a);
}

/* Linear between two frames; `step` input frames an output frame, 16.16. */
void
audio_play(struct audio *a, const int16_t *frames, size_t count, unsigned rate)
{
	uint32_t step = (uint32_t)(((uint64_t)rate << 16) / RATE);
	uint8_t out[4096];
	size_t n = 0;

	if (!a || !step)
		return;
	for (size_t i = 0; i < count; i++) {
		const int16_t *f = frames + 2 * i;

		for (; a->phase < 0x10000; a->phase += step) {
			for (int c = 0; c < 2; c++) {
				int32_t v = a->last[c] + (int32_t)(((int64_t)(f[c] - a->last[c]) * a->phase) >> 16);

				put_le16(out + n + 2 * c, (uint16_t)v);
			}
			n += 4;
			if (n == sizeof(out)) {
				append(a, out, n);
				n = 0;
			}
		}
		a->phase -= 0x10000;
		memcpy(a->last, f, sizeof(a->last));
	}
	append(a, out, n);
}
