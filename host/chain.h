/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differencing images and the media they hang on, shared by snapshot.c, prune.c and clone.c.
 */
#ifndef HOST_CHAIN_H
#define HOST_CHAIN_H

#include "host/inv.h"

/* A differencing image to be made for one disk. */
struct overlay {
	char *controller;
	int port, device;
	char uuid[37], parent[37]; /* media */
	char *path;
	const char *format; /* as block/ names it */
	char *parent_path, *parent_format;
};

/* The format, and suffix, that differencing images of a disk in `format` get: the same, or VDI. */
const char *diff_format(const char *format, const char **suffix);
/* A new one in the snapshot folder of `vm`, for the disk at `a`. */
void overlay_name(
	struct overlay *o, const struct host_vm *vm, const struct host_controller *c, const struct host_attachment *a);
/* One for each hard disk of `vm`, in the snapshot folder of `to`. */
struct overlay *overlays_plan(const struct host_vm *vm, const struct host_vm *to, int *count);
int overlay_create(const struct overlay *o, struct err *e);
int overlay_register(struct host *h, const struct overlay *o, struct err *e);
/* Attached in the place of its parent. */
int overlay_attach(struct host_vm *vm, const struct overlay *o);
/* For the files of a work: a list that recovery can read. */
json_t *overlays_json(const struct overlay *o, int count);
/* Parameters of "snapshot.take" and "fork"; state_file "": none. */
json_t *overlays_request(const struct overlay *o, int count, const char *state_file);
void overlays_free(struct overlay *o, int count);

/* ---- chain.c: media and their parents ---- */

struct medium_row {
	int64_t id, parent; /* parent 0: none */
	char uuid[37];
	char *path, *format;
};
/* 1: found, 0: there is none, -1 and *e. */
int medium_row_load(struct host *h, const char *uuid, struct medium_row *m, struct err *e);
int medium_row_by_id(struct host *h, int64_t id, struct medium_row *m, struct err *e);
void medium_row_free(struct medium_row *m);
/* The ids of what reads through to medium `id`; free() them. The number of them, or -1. */
int medium_children(struct host *h, int64_t id, int64_t **out, struct err *e);
/* A differencing medium that nobody has any more goes out of the registry, and its path into `trash`. */
int medium_drop_if_unused(struct host *h, const char *uuid, json_t *trash, struct err *e);
/* Register what the image at `path` reads through to, and that it does. Images that cannot be opened stay as they are.
 */
int medium_note_parents(struct host *h, const char *path, struct err *e);

/* ---- snapshot.c ---- */

/* The machine of a snapshot with its disks where they are now. Name, UUID and folder are those of `vm`. */
struct host_vm *snapshot_machine(struct host *h, const struct host_vm *vm, const char *uuid, struct err *e);
void snapshot_fix_disks(struct host *h, const char *uuid, json_t *doc);

/* ---- saved.c ---- */

/* Copy a file, sharing its blocks where the file system can. Not over an existing one. */
int clone_file(const char *from, const char *to, struct err *e);

#endif
