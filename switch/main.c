/* SPDX-License-Identifier: Apache-2.0 */
/* lodge-switch: its command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "switch/process.h"

/* What `ps` shows, and what a pattern for "lodge-switch" does not find: the keeper. */
static void
rename_keeper(char **argv)
{
	size_t n = strlen(argv[0]);
	const char *name = "lodge-keeper";

	if (n >= strlen(name)) {
		memset(argv[0], 0, n);
		memcpy(argv[0], name, strlen(name));
	}
}

int
main(int argc, char **argv)
{
	const char *dir = NULL;
	bool foreground = false;
	uint64_t fd = 0;
	int ready = -1;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--dir") && i + 1 < argc)
			dir = argv[++i];
		else if (!strcmp(argv[i], "--foreground"))
			foreground = true;
		else if (!strcmp(argv[i], "--ready-fd") && i + 1 < argc && str_to_u64(argv[i + 1], 0, 1023, &fd)) {
			ready = (int)fd;
			i++;
		} else {
			dir = NULL;
			break;
		}
	}
	if (!dir) {
		fprintf(stderr, "Usage: lodge-switch --dir DIRECTORY [--ready-fd N] [--foreground]\n");
		return 2;
	}
	dir = xstrdup(dir);
	rename_keeper(argv);
	return keeper_run(dir, ready, foreground);
}
