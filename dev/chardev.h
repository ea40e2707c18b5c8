/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of a serial port go: a file, the terminal, a pseudo-terminal, a socket, or nowhere.
 *
 * Nothing here blocks: output is buffered up to a bound and written as the other side takes it; input is read only
 * while its user has room. All functions and callbacks run under the machine lock.
 */
#ifndef DEV_CHARDEV_H
#define DEV_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

struct chardev;

/* X(kind, "name", takes an argument) */
#define CHARDEV_KINDS(X)                                                                                               \
	X(CHARDEV_NULL, "null", false)		    /* output vanishes, there is no input */                           \
	X(CHARDEV_STDIO, "stdio", false)	    /* standard input and output of the process */                     \
	X(CHARDEV_FILE, "file", true)		    /* argument: path; created or truncated; output only */            \
	X(CHARDEV_PTY, "pty", false)		    /* a new pseudo-terminal, see chardev_path() */                    \
	X(CHARDEV_UNIX_SERVER, "unix-server", true) /* path: listens, one client at a time */                          \
	X(CHARDEV_UNIX_CLIENT, "unix-client", true) /* path: connects, reconnects once a second */                     \
	X(CHARDEV_TCP_SERVER, "tcp-server", true)   /* port, on 127.0.0.1 */                                           \
	X(CHARDEV_TCP_CLIENT, "tcp-client", true)   /* 127.0.0.1:port or port */                                       \
	X(CHARDEV_DEVICE, "device", true)	    /* path of a host character device or FIFO */

#define CHARDEV_ENUM(kind, name, arg) kind,
enum chardev_kind { CHARDEV_KINDS(CHARDEV_ENUM) CHARDEV_KIND_COUNT };
#undef CHARDEV_ENUM

struct chardev_user {
	/* How many bytes may come now. */
	size_t (*room)(void *opaque);
	/* Input; n is at most what room() said. */
	void (*receive)(void *opaque, const uint8_t *bytes, size_t n);
	/* chardev_write() that took less than it was given can take more now. May be NULL. */
	void (*writable)(void *opaque);
	/* The other side came or went. May be NULL. */
	void (*connected)(void *opaque, bool there);
};

/* `arg` is as the table says, else NULL. NULL and *e on failure. */
struct chardev *chardev_open(struct loop *l, enum chardev_kind kind, const char *arg, struct err *e);
/* "kind" or "kind:argument" as the names above have it, e.g. "file:/tmp/log". */
struct chardev *chardev_parse(struct loop *l, const char *text, struct err *e);
/* Writes what is buffered as far as that needs no waiting, restores the terminal, removes the socket, frees. */
void chardev_close(struct chardev *c);

/* One user at a time; NULL detaches. */
void chardev_attach(struct chardev *c, const struct chardev_user *u, void *opaque);
/*
 * For keys that are commands to the program, not for the guest: `filter` sees all input first, may change it, and
 * returns how many of the n bytes are left. With a filter, a terminal also hands over Ctrl-C and the like.
 */
void chardev_set_filter(struct chardev *c, size_t (*filter)(void *opaque, uint8_t *bytes, size_t n), void *opaque);
/* room() went from none to some. */
void chardev_resume(struct chardev *c);
/* Takes up to n bytes, returns how many; while nobody is connected all are dropped, and n is returned. */
size_t chardev_write(struct chardev *c, const void *bytes, size_t n);
/* The last of what was written, whoever was there to read it, as printable lines; the length, at most size - 1. */
size_t chardev_said(const struct chardev *c, char *buf, size_t size);
bool chardev_connected(const struct chardev *c);
/* The pseudo-terminal's name, the socket's path, ...; "" if there is none. Valid until chardev_close(). */
const char *chardev_path(const struct chardev *c);

#endif
