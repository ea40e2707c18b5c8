/* SPDX-License-Identifier: Apache-2.0 */
/* Where the sound of a machine goes. Private to dev/ but for audio_file_open(), which is in dev.h. */
#ifndef DEV_AUDIO_H
#define DEV_AUDIO_H

#include <stddef.h>
#include <stdint.h>

#include "dev/dev.h"

/* `count` frames of two 16-bit samples at `rate` a second; `rate` may change between calls. NULL sink: nothing. */
void audio_play(struct audio *a, const int16_t *frames, size_t count, unsigned rate);

#endif
