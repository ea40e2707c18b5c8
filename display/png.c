/* SPDX-License-Identifier: Apache-2.0 */
/* A surface as a PNG file through libpng: 8-bit RGB, fast compression (a screenshot of text is small either way). */
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "display/display.h"

struct sink {
	uint8_t *data;
	size_t len, cap;
};

static void
sink_write(png_structp png, png_bytep data, size_t n)
{
	struct sink *s = png_get_io_ptr(png);

	if (s->len + n > s->cap) {
		size_t cap = MAX(2 * s->cap, s->len + n + 4096);
		uint8_t *p = realloc(s->data, cap);

		if (!p)
			png_error(png, "out of memory");
		s->data = p;
		s->cap = cap;
	}
	memcpy(s->data + s->len, data, n);
	s->len += n;
}

static void
sink_flush(png_structp png)
{
}

static void
quiet(png_structp png, png_const_charp text)
{
}

static void
row_rgb(const uint32_t *pixels, unsigned width, uint8_t *out)
{
	for (unsigned x = 0; x < width; x++) {
		*out++ = (uint8_t)(pixels[x] >> 16);
		*out++ = (uint8_t)(pixels[x] >> 8);
		*out++ = (uint8_t)pixels[x];
	}
}

int
png_encode(const struct surface *s, uint8_t **out, size_t *len)
{
	struct sink *sink = xcalloc(1, sizeof(*sink));
	uint8_t *row = xcalloc(s->width, 3);
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, quiet);
	png_infop info = png ? png_create_info_struct(png) : NULL;
	int r = -1;

	if (!info || !s->width || setjmp(png_jmpbuf(png)))
		goto done;
	png_set_write_fn(png, sink, sink_write, sink_flush);
	png_set_IHDR(png, info, s->width, s->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_set_compression_level(png, 3);
	png_write_info(png, info);
	for (unsigned y = 0; y < s->height; y++) {
		row_rgb(s->pixels + (size_t)y * s->width, s->width, row);
		png_write_row(png, row);
	}
	png_write_end(png, info);
	*out = sink->data;
	*len = sink->len;
	sink->data = NULL;
	r = 0;
done:
	png_destroy_write_struct(&png, &info);
	free(row);
	free(sink->data);
	free(sink);
	return r;
}

int
png_write(const struct surface *s, const char *path, struct err *e)
{
	uint8_t *data;
	size_t len;
	int r;

	if (png_encode(s, &data, &len))
		return err_set(e, ERR_FAILED, "no memory to encode a picture of %ux%u pixels", s->width, s->height);
	r = file_replace(path, data, len, 0644, e);
	free(data);
	return r;
}
