/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the firmware: SeaBIOS comes with the host's package, which puts it where its distribution likes.
 * $LODGE_FIRMWARE_PATH names more directories, looked at first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/firmware.h"

static const char *const directories[] = {
	"/usr/share/seabios",
	"/usr/share/qemu",
	"/usr/share/kvm",
	"/usr/lib/ipxe/qemu",
	"/usr/local/share/qemu",
	LODGE_PREFIX "/share/lodge",
};

static char *
found(const char *dir, size_t len, const char *name)
{
	char *path = xasprintf("%.*s/%s", (int)len, dir, name);

	if (!access(path, R_OK))
		return path;
	free(path);
	return NULL;
}

char *
firmware_search(const char *name)
{
	const char *more = getenv("LODGE_FIRMWARE_PATH");
	char *path = NULL;

	while (more && *more && !path) {
		size_t n = strcspn(more, ":");

		path = found(more, n, name);
		more += n + (more[n] == ':');
	}
	for (size_t i = 0; i < ARRAY_LEN(directories) && !path; i++)
		path = found(directories[i], strlen(directories[i]), name);
	return path;
}

char *
firmware_find(const char *wanted, struct err *e)
{
	char *path;

	if (wanted && wanted[0])
		return xstrdup(wanted);
	path = firmware_search("bios-256k.bin");
	if (!path)
		err_set(e, ERR_NOT_FOUND,
			"there is no SeaBIOS (bios-256k.bin) on this host: install the package 'seabios', or name a "
			"directory in LODGE_FIRMWARE_PATH");
	return path;
}

#define FIRMWARE_MAX (1u << 20)

struct ram *
firmware_load(struct machine *m, const char *wanted, struct err *e)
{
	char *path = firmware_find(wanted, e);
	struct ram *rom = NULL;
	size_t len;
	void *image;

	if (!path)
		return NULL;
	image = file_read(path, FIRMWARE_MAX, &len, e);
	if (!image)
		goto out;
	if (len < 65536 || len % PAGE_SIZE) {
		err_set(e, ERR_FILE, "%s is not a PC firmware: %zu bytes, not 64 KiB or more in whole pages", path,
			len);
		goto out;
	}
	rom = ram_create(&m->mem, "bios", len);
	if (rom)
		memcpy(rom->host, image, len);
	else
		err_set(e, ERR_HOST, "no memory for the firmware");
out:
	free(image);
	free(path);
	return rom;
}
