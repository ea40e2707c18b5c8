/* SPDX-License-Identifier: Apache-2.0 */
/* In a guest: turn the sound up and play a second of a 440 Hz triangle, 48000 frames of two channels, through /dev/dsp.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/soundcard.h>
#include <unistd.h>

#define RATE 48000

int
main(void)
{
	int mixer = open("/dev/mixer", O_RDWR), dsp = open("/dev/dsp", O_WRONLY);
	int loud = 100 | 100 << 8, format = AFMT_S16_LE, two = 2, rate = RATE;
	static int16_t frames[RATE][2];

	if (mixer < 0 || dsp < 0 || ioctl(mixer, SOUND_MIXER_WRITE_PCM, &loud) ||
		ioctl(dsp, SNDCTL_DSP_SETFMT, &format) || ioctl(dsp, SNDCTL_DSP_CHANNELS, &two) ||
		ioctl(dsp, SNDCTL_DSP_SPEED, &rate)) {
		perror("tone");
		return 1;
	}
	for (int i = 0; i < SOUND_MIXER_NRDEVICES; i++) { /* what the card has of them */
		int v = loud;

		printf("%d:%d ", i, ioctl(mixer, MIXER_WRITE(i), &v));
	}
	for (int i = 0; i < RATE; i++) {
		int place = i * 440 % RATE; /* of RATE, in its period */
		int v = place < RATE / 2 ? place : RATE - place;

		frames[i][0] = frames[i][1] = (int16_t)(v - RATE / 4);
	}
	if (write(dsp, frames, sizeof(frames)) != (ssize_t)sizeof(frames) || ioctl(dsp, SNDCTL_DSP_SYNC, 0)) {
		perror("tone");
		return 1;
	}
	return 0;
}
