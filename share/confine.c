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
#include <errno.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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
drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2];

	memset(none, 0, sizeof(none));
	return syscall(SYS_capset, &head, none) ? -errno : 0;
}

static int
landlock(int dir, bool readonly, int version)
{
	uint64_t truncate = version >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0;
	struct landlock_ruleset_attr attr = { .handled_access_fs = READS | WRITES | NEVER | truncate };
	struct landlock_path_beneath_attr rule = {
		.allowed_access = readonly ? READS : READS | WRITES | truncate,
		.parent_fd = dir,
	};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0), r = 0;

	if (ruleset < 0)
		return -errno;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) ||
		syscall(SYS_landlock_restrict_self, ruleset, 0))
		r = -errno;
	close(ruleset);
	return r;
}

int
confine_thread(int dir, bool readonly, bool keep_capabilities)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int r = keep_capabilities ? 0 : drop_capabilities();

	if (!r && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		r = -errno;
	if (!r && version >= 2)
		r = landlock(dir, readonly, version);
	return r;
}
