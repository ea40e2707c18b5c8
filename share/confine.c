/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a folder's threads may do: no capabilities, no new privileges, and files only beneath their directory. The last
 * is Landlock's (Linux, Documentation/userspace-api/landlock.rst), which is a thread's own affair: each folder's
 * threads are in a domain that knows nothing but that directory, whatever other folders the machine has. The descriptor
 * is the rule's object, so a folder that comes while the machine runs is confined like one that was there before.
 *
 * Landlock before its version 2 (Linux 5.19) forbids moving a file to another directory at all; there, and without
 * Landlock, openat2()'s RESOLVE_BENEATH is what holds guests inside.
 */
#include <linux/landlock.h>
#include <unistd.h>

#include "base/rights.h"
#include "share/private.h"

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ull << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ull << 14)
#endif

#define READS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITES                                                                                                         \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |              \
		LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM |              \
		LANDLOCK_ACCESS_FS_REFER)
#define NEVER                                                                                                          \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                   \
		LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO)

static int
only_beneath(int dir, bool readonly, int version)
{
	uint64_t truncate = version >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0;
	int ruleset = landlock_new(READS | WRITES | NEVER | truncate), r;

	if (ruleset < 0)
		return ruleset;
	r = landlock_allow_at(ruleset, dir, readonly ? READS : READS | WRITES | truncate);
	if (r) {
		close(ruleset);
		return r;
	}
	return landlock_enter(ruleset);
}

int
confine_thread(int dir, bool readonly, bool keep_capabilities)
{
	int version = landlock_version();
	int r = keep_capabilities ? 0 : rights_drop_capabilities();

	if (!r)
		r = rights_no_new_privileges();
	if (!r && version >= 2)
		r = only_beneath(dir, readonly, version);
	return r;
}
