/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware files of the host. Private to machine/; firmware_find() is in machine/machine.h. */
#ifndef MACHINE_FIRMWARE_H
#define MACHINE_FIRMWARE_H

#include "machine/machine.h"

/* The path of the file `name` in one of the places for firmware; NULL when there is none. free() it. */
char *firmware_search(const char *name);

/* The image as a block of guest memory of its size; NULL and *e. The caller maps it. */
struct ram *firmware_load(struct machine *m, const char *wanted, struct err *e);

#endif
