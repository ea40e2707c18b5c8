/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of unattended installation share. */
#ifndef HOST_UNATTENDED_PRIV_H
#define HOST_UNATTENDED_PRIV_H

#include "base/str.h"
#include "host/unattended.h"

/* ---- unattended_iso.c ---- */

/* The contents of one file of an ISO image, at most `max` bytes, to `fd`; *size of it. */
int iso_copy_file(const char *iso, const char *path, int fd, uint64_t max, uint64_t *size, struct err *e);

/* ---- unattended_script.c ---- */

struct script_values {
	const struct host_unattended *u;
	const char *machine_uuid;
	const char *kernel; /* file name of the kernel, for Alpine's flavours */
	char *crypted;	    /* the password, crypt(5) */
	bool utc, has_additions;
};
/* A template with its places filled in; `name` is for errors. free() it. NULL and *e. */
char *script_expand(const char *text, const char *name, const struct script_values *v, struct err *e);

/* ---- unattended_media.c ---- */

struct answer_file {
	const char *path;
	const void *data;
	size_t len;
	int mode;
	const char *target; /* of a symbolic link, else NULL */
};
struct answer_media {
	const char *out; /* a new file */
	const char *label;
	const char *iso, *kernel, *initrd; /* the installer, on another medium */
	const char *cmdline;
	const struct answer_file *in_initrd; /* files added to its initial RAM disk */
	size_t in_initrd_count;
	const struct answer_file *on_disc; /* files in the root directory */
	size_t on_disc_count;
	uint32_t disk_sum; /* FNV-1a of the disk's first sector */
};
/* *memory: MiB a machine needs at least to load it. */
int answer_media_write(const struct answer_media *m, unsigned *memory, struct err *e);
/* A gzipped tar of files, for Alpine's overlays; free() it. */
void *answer_tar(const struct answer_file *files, size_t count, size_t *len, struct err *e);
uint32_t answer_sum(const uint8_t sector[512]);

#endif
