/* SPDX-License-Identifier: Apache-2.0 */
/* From what to boot, in SeaBIOS's terms. Private to machine/. */
#ifndef MACHINE_BOOTORDER_H
#define MACHINE_BOOTORDER_H

#include "base/str.h"
#include "machine/machine.h"

/* The file "bootorder" for the devices of `c`, which have their PCI places by now. Ends with a NUL. */
void bootorder_text(const struct pc_config *c, struct str *out);

#endif
