/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told of a Linux guest from outside, without symbols: its kernel keeps a page of text for crash dumps
 * (Documentation/admin-guide/kdump/vmcoreinfo.rst), which says where things are and how they are laid out. The text is
 * the guest's and is not believed.
 */
#ifndef DEBUG_LINUX_H
#define DEBUG_LINUX_H

#include "bus/machine.h"
#include "cpu/debug.h"

/* The text of that page, at most 4 KiB; NULL: there is none in the guest's memory. free() it. */
char *linux_vmcoreinfo(struct machine *m);
/* The value behind "key=" in it, up to the end of the line; false: not there, or too long. */
bool linux_info_value(const char *info, const char *key, char *out, size_t size);
/* The kernel's log, its last `lines` (0: all) as dmesg shows them. 0, or -1 and *e. `w` was loaded from a CPU. */
int linux_dmesg(struct machine *m, struct cpu_view *w, unsigned lines, FILE *f, struct err *e);

#endif
