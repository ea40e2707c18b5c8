/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up rights, for a process or thread that is about to touch what a guest made. Nothing here can be taken back.
 *
 * What is given up belongs to the calling thread and to those it makes later. Landlock (Linux,
 * Documentation/userspace-api/landlock.rst) is missing before Linux 5.13 and where it is switched off; who calls
 * decides whether to do without.
 *
 *	int ruleset = landlock_new(rights that are to be withheld but where they are allowed);
 *	landlock_allow(ruleset, directory, rights);  ...
 *	landlock_enter(ruleset);
 */
#ifndef BASE_RIGHTS_H
#define BASE_RIGHTS_H

#include <stdint.h>

/* Programs run from here on have no capabilities either. Needs CAP_SETPCAP; without it there is nothing to drop. */
void rights_empty_bounding_set(void);

/* Every capability is gone. Returns 0 or -errno. */
int rights_drop_capabilities(void);

/* Set-user-ID bits and file capabilities no longer count. Returns 0 or -errno. */
int rights_no_new_privileges(void);

/* The version of the kernel's Landlock, 1 and up; -errno where there is none. */
int landlock_version(void);

/* A set of rules over `handled` (LANDLOCK_ACCESS_FS_*). Returns its descriptor or -errno. */
int landlock_new(uint64_t handled);

/* Beneath the directory or file, `rights` are allowed. Returns 0 or -errno: one that does not exist is -ENOENT. */
int landlock_allow(int ruleset, const char *path, uint64_t rights);
int landlock_allow_at(int ruleset, int dir, uint64_t rights);

/* The rules hold from here on. Returns 0 or -errno; the descriptor is closed either way. */
int landlock_enter(int ruleset);

#endif
