/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/display.h"

#include <stdlib.h>

bool
surface_resize(struct surface *s, unsigned width, unsigned height)
{
	uint32_t *p;

	if (s->pixels && s->width == width && s->height == height)
		return true;
	if (!width || !height || width > SURFACE_MAX || height > SURFACE_MAX)
		return false;
	p = calloc((size_t)width * height, sizeof(*p));
	if (!p)
		return false;
	free(s->pixels);
	*s = (struct surface){ .width = width, .height = height, .pixels = p };
	return true;
}

void
surface_free(struct surface *s)
{
	free(s->pixels);
	*s = (struct surface){ 0 };
}
