/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host and its guests have in common: shared folders and guest properties, as VirtualBox's guest drivers know
 * them (the services "VBoxSharedFolders" and "VBoxGuestPropSvc" of its host-guest communication manager, HGCM).
 *
 * This layer knows no device and no machine: dev/vmmdev.c carries calls here, vm/ says which folders there are.
 *
 * ---- A call ----
 * The transport copies a guest's parameters into a `struct share_call` of its own, submits it, and is told by `done`,
 * once, on whatever thread it ended on: inside share_submit() or on a worker. Nothing here ever sees guest memory.
 */
#ifndef SHARE_SHARE_H
#define SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Status codes of guests' drivers (VirtualBox's VERR_*, include/uapi/linux/vbox_err.h). */
enum share_status {
	SHARE_OK = 0,
	SHARE_GENERAL_FAILURE = -1,
	SHARE_INVALID_PARAMETER = -2,
	SHARE_INVALID_HANDLE = -4,
	SHARE_NO_MEMORY = -8,
	SHARE_PERMISSION_DENIED = -10,
	SHARE_NOT_IMPLEMENTED = -12,
	SHARE_INVALID_FUNCTION = -36,
	SHARE_NOT_SUPPORTED = -37,
	SHARE_ACCESS_DENIED = -38,
	SHARE_INTERRUPTED = -39,
	SHARE_BUFFER_OVERFLOW = -41,
	SHARE_TOO_MUCH_DATA = -42,
	SHARE_TRY_AGAIN = -52,
	SHARE_NO_TRANSLATION = -58,
	SHARE_NOT_FOUND = -78,
	SHARE_FILE_NOT_FOUND = -102,
	SHARE_PATH_NOT_FOUND = -103,
	SHARE_INVALID_NAME = -104,
	SHARE_ALREADY_EXISTS = -105,
	SHARE_TOO_MANY_OPEN_FILES = -106,
	SHARE_WRITE_PROTECT = -113,
	SHARE_SHARING_VIOLATION = -114,
	SHARE_FILE_LOCK_VIOLATION = -116,
	SHARE_NOT_SAME_DEVICE = -119,
	SHARE_FILENAME_TOO_LONG = -120,
	SHARE_DIR_NOT_EMPTY = -125,
	SHARE_NOT_A_DIRECTORY = -126,
	SHARE_IS_A_DIRECTORY = -127,
	SHARE_FILE_TOO_BIG = -128,
	SHARE_RESOURCE_BUSY = -138,
	SHARE_DISK_FULL = -152,
	SHARE_TOO_MANY_SYMLINKS = -156,
	SHARE_NO_MORE_FILES = -201,
	SHARE_DEV_IO_ERROR = -250,
	SHARE_SERVICE_NOT_FOUND = -2900,
	SHARE_INVALID_CLIENT = -2903,
};
/* An errno as one of them; 0 is SHARE_OK. */
int share_status(int errnum);

bool share_is_utf8(const char *text, size_t len);

/* ------------------------------------------------------------------ guest properties */

#define PROP_NAME_MAX 63 /* bytes, without the NUL */
#define PROP_VALUE_MAX 127
#define PROP_FLAGS_SIZE 64
#define PROPS_MAX 256
#define PROP_WAITERS_MAX 64

enum {
	PROP_TRANSIENT = 2, /* gone when the machine is switched off */
	PROP_RDONLYGUEST = 4,
	PROP_RDONLYHOST = 8,
	PROP_READONLY = 12,
	PROP_TRANSRESET = 16, /* gone when it is reset; has PROP_TRANSIENT too */
};

struct prop {
	char name[PROP_NAME_MAX + 1], value[PROP_VALUE_MAX + 1];
	int64_t time; /* of the last change, ns since 1970 */
	unsigned flags;
	bool deleted; /* only of changes that are told */
};

bool prop_name_ok(const char *name);
bool prop_value_ok(const char *value);
/* "TRANSIENT, RDONLYGUEST", any case, commas or blanks between. False: one of the words is none. */
bool prop_flags_parse(const char *text, unsigned *flags);
const char *prop_flags_text(unsigned flags, char out[PROP_FLAGS_SIZE]); /* out */
/* Patterns with * and ?, separated by |; "" matches all. */
bool prop_match(const char *patterns, const char *name);

/* The properties of a running machine. All functions: any thread, no lock of the caller's needed. */
struct props;
struct props *props_open(void);
void props_close(struct props *s);
/* `changed` is called after each change, on the thread that made it, without locks of the store. */
void props_on_change(struct props *s, void (*changed)(void *opaque), void *opaque);

enum prop_side { PROP_BY_HOST, PROP_BY_GUEST };
/* flags NULL: as they are, none for a new one. An enum share_status. */
int props_set(struct props *s, enum prop_side who, const char *name, const char *value, const unsigned *flags);
int props_delete(struct props *s, enum prop_side who, const char *name);
bool props_get(struct props *s, const char *name, struct prop *out);
/* `fn` is called with the store locked: it must not call back. */
void props_each(struct props *s, const char *patterns, void (*fn)(void *opaque, const struct prop *p), void *opaque);
/* As it was written down: neither a change nor checked against flags. What is not valid is left out. */
void props_load(struct props *s, const struct prop *p);
/* The machine is reset: what has PROP_TRANSRESET goes. */
void props_reset(struct props *s);

/*
 * Wait for a change: NULL with the first one behind time `after` (0: only a future one) in *now, or, with now->name "",
 * when too many wait; else `fn` is called once with the change, without locks, unless props_unwait(opaque) takes it
 * back, which is false when it is too late.
 */
typedef void prop_wait_fn(void *opaque, const struct prop *p);
struct prop_waiter;
struct prop_waiter *props_wait(
	struct props *s, const char *patterns, int64_t after, prop_wait_fn *fn, void *opaque, struct prop *now);
bool props_unwait(struct props *s, void *opaque);

#endif
