/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch takes frames from guests, so it keeps as little as a machine does: no capabilities, no new ones, no core
 * files; with Landlock it writes in its own directory only and reads there, in /etc (resolv.conf) and what TFTP
 * serves; and the system calls below, none of which starts a program.
 */
#include <errno.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/resource.h>

#include "base/rights.h"
#include "switch/private.h"

/* Landlock (Linux, Documentation/userspace-api/landlock.rst), version 1 */
#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_RIGHTS                                                                                                   \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |                \
		LANDLOCK_ACCESS_FS_MAKE_SOCK)
#define OTHER_RIGHTS                                                                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_CHAR |                   \
		LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |           \
		LANDLOCK_ACCESS_FS_MAKE_SYM)

/* Best effort: kernels before 5.13, or with Landlock switched off, do without. */
static void
confine_files(const char *dir, const char *tftp)
{
	int ruleset = landlock_new(READ_RIGHTS | WRITE_RIGHTS | OTHER_RIGHTS);

	if (ruleset < 0)
		return;
	landlock_allow(ruleset, dir, READ_RIGHTS | WRITE_RIGHTS);
	landlock_allow(ruleset, "/etc", READ_RIGHTS);
	landlock_allow(ruleset, "/run/systemd/resolve", READ_RIGHTS);
	landlock_allow(ruleset, "/usr/share/zoneinfo", READ_RIGHTS);
	landlock_allow(ruleset, "/proc", READ_RIGHTS);
	if (*tftp)
		landlock_allow(ruleset, tftp, READ_RIGHTS);
	landlock_enter(ruleset);
}

static const int allowed[] = {
	/* files: configuration, leases, TFTP, traces, the log */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(statx),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fcntl),
	SCMP_SYS(rename),
	SCMP_SYS(renameat),
	SCMP_SYS(renameat2),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64),
	SCMP_SYS(getcwd),
	SCMP_SYS(umask),
	SCMP_SYS(ioctl),
	SCMP_SYS(dup),
	SCMP_SYS(pipe2),
	/* memory */
	SCMP_SYS(mmap),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(mprotect),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(memfd_create),
	/* process */
	SCMP_SYS(futex),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid), /* by GLib for random numbers, without /dev/urandom: a libslirp that is opened anew */
	SCMP_SYS(gettid),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(tgkill),
	SCMP_SYS(getrandom),
	SCMP_SYS(uname),
	SCMP_SYS(sysinfo),
	SCMP_SYS(sched_yield),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(prctl),
	SCMP_SYS(rseq),
	SCMP_SYS(set_robust_list),
	/* waiting and time */
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(select),
	SCMP_SYS(pselect6),
	SCMP_SYS(eventfd2),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	/* network */
	SCMP_SYS(socket),
	SCMP_SYS(socketpair),
	SCMP_SYS(bind),
	SCMP_SYS(listen),
	SCMP_SYS(accept),
	SCMP_SYS(accept4),
	SCMP_SYS(connect),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(sendto),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(recvmmsg),
};

static int
load_filter(struct err *e)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = f ? 0 : -ENOMEM;

	for (size_t i = 0; i < ARRAY_LEN(allowed) && !r; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!r)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return r ? err_sys(e, ERR_HOST, r, "cannot install the system call filter") : 0;
}

int
switch_sandbox(const char *dir, const char *tftp, struct err *e)
{
	struct rlimit no_core = { 0, 0 };
	int r;

	rights_empty_bounding_set();
	r = rights_drop_capabilities();
	if (r)
		return err_sys(e, ERR_HOST, r, "cannot drop capabilities");
	setrlimit(RLIMIT_CORE, &no_core);
	r = rights_no_new_privileges();
	if (r)
		return err_sys(e, ERR_HOST, r, "cannot give up new privileges");
	confine_files(dir, tftp);
	return load_filter(e);
}
