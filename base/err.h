/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors a person reads.
 *
 * A function that can fail in a way a user has to understand takes `struct err *e` as its last argument, fills it once,
 * at the place that knows the values, and returns -1 or NULL. Callers add context with err_wrap() or pass it up; only a
 * front end prints. A function whose failure a program decides on returns 0 or -errno and stays silent.
 *
 * The code table has one row a kind of failure and one column a dialect, so that no front end invents its own mapping.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stdint.h>

/* X(name, VirtualBox code name, its number, exit status of `lodge`) */
#define ERR_TABLE(X)                                                                                                   \
	X(ERR_NONE, "NS_OK", 0x00000000u, 0)                                                                           \
	X(ERR_FAILED, "NS_ERROR_FAILURE", 0x80004005u, 1)                                                              \
	X(ERR_INVALID, "E_INVALIDARG", 0x80070057u, 2)                                                                 \
	X(ERR_ACCESS, "E_ACCESSDENIED", 0x80070005u, 1)                                                                \
	X(ERR_NOT_FOUND, "VBOX_E_OBJECT_NOT_FOUND", 0x80bb0001u, 1)                                                    \
	X(ERR_VM_STATE, "VBOX_E_INVALID_VM_STATE", 0x80bb0002u, 1)                                                     \
	X(ERR_VM, "VBOX_E_VM_ERROR", 0x80bb0003u, 1)                                                                   \
	X(ERR_FILE, "VBOX_E_FILE_ERROR", 0x80bb0004u, 1)                                                               \
	X(ERR_IPRT, "VBOX_E_IPRT_ERROR", 0x80bb0005u, 1)                                                               \
	X(ERR_PDM, "VBOX_E_PDM_ERROR", 0x80bb0006u, 1)                                                                 \
	X(ERR_OBJECT_STATE, "VBOX_E_INVALID_OBJECT_STATE", 0x80bb0007u, 1)                                             \
	X(ERR_HOST, "VBOX_E_HOST_ERROR", 0x80bb0008u, 1)                                                               \
	X(ERR_UNSUPPORTED, "VBOX_E_NOT_SUPPORTED", 0x80bb0009u, 1)                                                     \
	X(ERR_XML, "VBOX_E_XML_ERROR", 0x80bb000au, 1)                                                                 \
	X(ERR_SESSION, "VBOX_E_INVALID_SESSION_STATE", 0x80bb000bu, 1)                                                 \
	X(ERR_IN_USE, "VBOX_E_OBJECT_IN_USE", 0x80bb000cu, 1)                                                          \
	X(ERR_PASSWORD, "VBOX_E_PASSWORD_INCORRECT", 0x80bb000du, 1)                                                   \
	X(ERR_GUEST, "VBOX_E_GSTCTL_GUEST_ERROR", 0x80bb000fu, 1)                                                      \
	X(ERR_TIMEOUT, "VBOX_E_TIMEOUT", 0x80bb0010u, 1)                                                               \
	X(ERR_USAGE, "E_INVALIDARG", 0x80070057u, 2)

#define ERR_ENUM(name, vbox, num, status) name,
enum err_code { ERR_TABLE(ERR_ENUM) ERR_COUNT };
#undef ERR_ENUM

struct err {
	enum err_code code;
	char text[1024]; /* one sentence or more: what, where, which value, what to do; no trailing newline */
};

struct err_info {
	const char *name;      /* "ERR_NOT_FOUND" */
	const char *vbox_name; /* "VBOX_E_OBJECT_NOT_FOUND" */
	uint32_t vbox_number;  /* 0x80bb0001 */
	int exit_status;
};

/* The row of `code`; a code out of range gives the row of ERR_FAILED. */
const struct err_info *err_info(enum err_code code);

/* Fill *e (may be NULL: then only the return value tells) and return -1. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": <strerror(errnum)>" behind the text. `errnum` may be negative (a -errno). */
int err_sys(struct err *e, enum err_code code, int errnum, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Put "<text>: " in front of the text already there. Returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
