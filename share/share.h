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
	SHARE_MEDIA_NOT_PRESENT = -121,
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
/* A time that no change up to now is behind. */
int64_t props_now(struct props *s);
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

/* ------------------------------------------------------------------ services and calls */

enum share_kind { SHARE_NONE, SHARE_U32, SHARE_U64, SHARE_BUF };

struct share_parm {
	enum share_kind kind;
	uint64_t value; /* SHARE_U32, SHARE_U64: in and out */
	uint8_t *data;	/* SHARE_BUF: the transport's, until done() */
	uint32_t size;
};

#define SHARE_PARMS_MAX 32
struct share_call {
	uint32_t client, function;
	int count;
	struct share_parm parm[SHARE_PARMS_MAX];
	int status; /* filled in: an enum share_status */
	void (*done)(struct share_call *c);
	struct share_call *next; /* private, as what follows */
	struct share *share;
	struct folder *folder;
};

struct share;
struct share_options {
	struct props *props;	/* stays the caller's; NULL: no guest properties */
	bool confine;		/* folders' threads give up what they do not need (Landlock, capabilities) */
	bool keep_capabilities; /* but not these: they go when the process becomes another user */
	int max_handles;	/* files and directories that guests can have open; 0: 2048 */
	/* For tests: instead of the system call. */
	int (*openat2)(int dirfd, const char *path, const void *how, size_t size);
};
/* Starts the thread that starts the folders' threads: call it before rights are given up. */
struct share *share_open(const struct share_options *o, struct err *e);
/* Every call has ended, or is a wait, which is forgotten. */
void share_close(struct share *s);

/* ---- folders: any thread ---- */

#define SHARE_FOLDERS_MAX 64
#define SHARE_NAME_MAX 255 /* bytes */
#define SHARE_THREADS 2	   /* a folder */

struct share_folder {
	const char *name;
	int fd; /* the directory, O_PATH is enough; taken over */
	bool readonly;
	bool symlinks; /* the guest may make symbolic links */
	bool automount;
	const char *mount_point; /* of automount; NULL or "": the guest's choice */
};
/* -1 and *e (the descriptor is closed): the name is taken or cannot be, or this host cannot share safely. */
int share_folder_add(struct share *s, const struct share_folder *f, struct err *e);
/* What the guest has open in it is closed; it gets SHARE_MEDIA_NOT_PRESENT until a folder of that name is added. */
int share_folder_remove(struct share *s, const char *name, struct err *e);
/* May the guest make symbolic links there? */
void share_folder_symlinks(struct share *s, const char *name, bool allowed);
int share_open_handles(struct share *s);

/* ---- the transport's side: any thread ---- */

int share_connect(struct share *s, const char *service, uint32_t *client);
int share_disconnect(struct share *s, uint32_t client);
void share_submit(struct share *s, struct share_call *c);
/* True: the call waited for something, has been taken back and will not be told `done`. */
bool share_cancel(struct share *s, struct share_call *c);
/* Wait until nothing is in flight but calls that wait for a change. */
void share_drain(struct share *s);
/* The guest starts anew: nothing in flight; clients and what they have open are forgotten, waits too. */
void share_reset(struct share *s);

/*
 * Clients, mapped folders and open handles as bytes, for saved states; drained before. share_load() reopens what it
 * finds unchanged; the rest answers SHARE_DEV_IO_ERROR until it is closed.
 */
#define SHARE_SAVED_SIZE 65536
void share_save(struct share *s, uint8_t out[SHARE_SAVED_SIZE]);
void share_load(struct share *s, const uint8_t in[SHARE_SAVED_SIZE]);

#endif
