/* SPDX-License-Identifier: Apache-2.0 */
/* One conversion, for bench/convert.py: convert SOURCE FORMAT TARGET FORMAT sync|nosync */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"

int
main(int argc, char **argv)
{
	struct err e = { 0 };
	struct block *from, *to = NULL;
	struct block_info info;
	int r = 1;

	if (argc != 6)
		return 2;
	from = block_open(argv[1], argv[2], BLOCK_RDONLY, &e);
	if (from) {
		block_get_info(from, &info);
		if (!block_create(
			    &(struct block_create){
				    .path = argv[3], .format = argv[4], .size = info.size, .unsafe = true },
			    &e))
			to = block_open(argv[3], argv[4], BLOCK_UNSAFE, &e);
		if (to)
			r = block_copy(
				&(struct block_copy){ .from = from, .to = to, .sync = !strcmp(argv[5], "sync") }, &e);
	}
	if (r)
		fprintf(stderr, "convert: %s\n", e.text);
	block_close(to);
	block_close(from);
	return r != 0;
}
