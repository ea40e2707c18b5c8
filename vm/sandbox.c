/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up rights before the first guest instruction. Whoever breaks out of the guest into this process should find
 * little to do with it:
 *
 *	user            when started as root and configured: another one, with no supplementary groups
 *	capabilities    none, also not by executing something (bounding set), also not through no_new_privs; but for
 *	                the two threads that open what is plugged in later: disks ("opener", plug.c) and folders
 *	                ("shares", share/share.c)
 *	limits          no core files (guest memory)
 *	Landlock        where the kernel has it: nothing can be written outside the run directory, the snapshot folder
 *	                and the disks' images, nothing but the serial ports' sockets removed elsewhere. It covers
 *	                this thread and those made later, which are all that run guest-controlled code except the
 *	                disks' workers
 *	seccomp         the system calls below and no others, for all threads. No execve, no ptrace, no new processes
 *
 * Opening files stays allowed: libslirp reads resolv.conf, a disc may be changed, the status is replaced.
 */
#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rights.h"
#include "vm/private.h"

/* ---- user ---- */

static int
become_user(const char *user, const char *dir, struct err *e)
{
	struct passwd *pw;

	if (geteuid() != 0 || !user[0])
		return 0;
	pw = getpwnam(user);
	if (!pw)
		return err_set(e, ERR_INVALID, "the user '%s' that the machine is to run as does not exist", user);
	if (dir && chown(dir, pw->pw_uid, pw->pw_gid))
		return err_sys(e, ERR_ACCESS, errno, "cannot give %s to '%s'", dir, user);
	if (setgroups(0, NULL) || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) ||
		setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid))
		return err_sys(e, ERR_ACCESS, errno, "cannot become the user '%s'", user);
	return 0;
}

/* ---- Landlock (Linux, Documentation/userspace-api/landlock.rst) ---- */

#define WRITE_RIGHTS                                                                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                  \
		LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |          \
		LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |            \
		LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

/* Best effort: kernels before 5.13, or with Landlock switched off, do without. */
static void
confine_writes(const struct sandbox *s)
{
	int ruleset = landlock_new(WRITE_RIGHTS);

	if (ruleset < 0)
		return;
	for (int i = 0; i < s->removable_count; i++) {
		char *dir = xstrdup(s->removable[i]);

		landlock_allow(ruleset, dirname(dir), LANDLOCK_ACCESS_FS_REMOVE_FILE);
		free(dir);
	}
	for (int i = 0; i < s->writable_count; i++)
		landlock_allow(ruleset, s->writable[i], LANDLOCK_ACCESS_FS_WRITE_FILE);
	if (s->snapshot_dir[0])
		landlock_allow(ruleset, s->snapshot_dir,
			LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG);
	if (!landlock_allow(ruleset, s->writable_dir,
		    LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG))
		landlock_enter(ruleset);
	else
		close(ruleset);
}

/* ---- seccomp ---- */

/* Who needs each: libc, threads, the loop, block/, net/ (libslirp), cpu/ (KVM, generated code), status.c. */
static const int allowed[] = {
	/* files and descriptors */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwritev2),
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(close),
	SCMP_SYS(close_range),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(statx),
	SCMP_SYS(fstatfs),
	SCMP_SYS(statfs),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fcntl),
	SCMP_SYS(flock),
	SCMP_SYS(dup),
	SCMP_SYS(dup2),
	SCMP_SYS(dup3),
	SCMP_SYS(pipe),
	SCMP_SYS(pipe2),
	SCMP_SYS(rename),
	SCMP_SYS(renameat),
	SCMP_SYS(renameat2),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	SCMP_SYS(link),
	SCMP_SYS(linkat),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64),
	SCMP_SYS(getcwd),
	SCMP_SYS(umask),
	SCMP_SYS(ioctl),
	/* memory */
	SCMP_SYS(mmap),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(mprotect),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(memfd_create),
	SCMP_SYS(membarrier),
	SCMP_SYS(mincore),
	SCMP_SYS(mlock),
	SCMP_SYS(munlock),
	/* threads and signals */
	SCMP_SYS(futex),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_getparam),
	SCMP_SYS(sched_getscheduler),
	SCMP_SYS(sched_get_priority_min),
	SCMP_SYS(sched_get_priority_max),
	SCMP_SYS(sched_setscheduler),
	SCMP_SYS(setpriority),
	SCMP_SYS(getpriority),
	SCMP_SYS(arch_prctl),
	SCMP_SYS(prctl),
	SCMP_SYS(capset), /* to give them up, in a thread that was slow, or is made later */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(getcpu),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(rt_sigsuspend),
	SCMP_SYS(rt_sigpending),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(tgkill),
	SCMP_SYS(tkill),
	SCMP_SYS(restart_syscall),
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
	SCMP_SYS(timerfd_gettime),
	SCMP_SYS(timer_create),
	SCMP_SYS(timer_settime),
	SCMP_SYS(timer_delete),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(times),
	SCMP_SYS(getrusage),
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
	/* questions */
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(getrandom),
	SCMP_SYS(sysinfo),
	SCMP_SYS(uname),
	SCMP_SYS(getrlimit),
	SCMP_SYS(prlimit64),
	SCMP_SYS(getpgrp),
	SCMP_SYS(getpgid),
};

/* For the threads of shared folders, each confined to its directory (share/confine.c). */
static const int for_shares[] = {
	SCMP_SYS(openat2),
	SCMP_SYS(mkdirat),
	SCMP_SYS(symlinkat),
	SCMP_SYS(fchmod),
	SCMP_SYS(fchmodat),
	SCMP_SYS(utimensat),
	SCMP_SYS(landlock_create_ruleset),
	SCMP_SYS(landlock_add_rule),
	SCMP_SYS(landlock_restrict_self),
};

/* Refused with an error, not with death: libraries try these and can do without. */
static const int refused[] = {
	SCMP_SYS(clone3), /* glibc falls back to clone(), whose flags a filter can see */
	SCMP_SYS(getgroups),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(setrlimit),
	SCMP_SYS(io_uring_setup),
	SCMP_SYS(symlink),
	SCMP_SYS(symlinkat),
	SCMP_SYS(mkdir),
	SCMP_SYS(mkdirat),
	SCMP_SYS(chmod),
	SCMP_SYS(fchmod),
	SCMP_SYS(fchmodat),
	SCMP_SYS(chown),
	SCMP_SYS(fchown),
	SCMP_SYS(mbind),
	SCMP_SYS(set_mempolicy),
	SCMP_SYS(get_mempolicy),
};

static bool
is_for_shares(int call)
{
	for (size_t i = 0; i < ARRAY_LEN(for_shares); i++)
		if (for_shares[i] == call)
			return true;
	return false;
}

static int
fill_filter(scmp_filter_ctx f, bool shares)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(for_shares) && shares && !r; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, for_shares[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(allowed) && !r; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(refused) && !r; i++)
		r = shares && is_for_shares(refused[i])
			    ? 0
			    : seccomp_rule_add(f, SCMP_ACT_ERRNO(refused[i] == SCMP_SYS(clone3) ? ENOSYS : EPERM),
				      refused[i], 0);
	/* Threads, never processes. */
	if (!r)
		r = seccomp_rule_add(
			f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	/* A signal to ourselves: abort(). */
	if (!r)
		r = seccomp_rule_add(
			f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
	return r;
}

static int
load_filter(bool shares, struct err *e)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = f ? 0 : -ENOMEM;

	if (!r)
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!r)
		r = fill_filter(f, shares);
	if (!r)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return r ? err_sys(e, ERR_HOST, r, "cannot install the system call filter") : 0;
}

int
sandbox_enter(const struct sandbox *s, struct err *e)
{
	struct rlimit none = { 0, 0 };
	int r;

	rights_empty_bounding_set(); /* while there still is the right to */
	if (become_user(s->user, s->writable_dir, e))
		return -1;
	r = rights_drop_capabilities();
	if (r)
		return err_sys(e, ERR_HOST, r, "cannot drop capabilities");
	/* Root without capabilities is an ordinary user: better to hear of it now than when the status is written. */
	if (s->writable_dir && access(s->writable_dir, W_OK | X_OK))
		return err_sys(e, ERR_ACCESS, errno, "the user with the number %d cannot write to %s", (int)geteuid(),
			s->writable_dir);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	r = rights_no_new_privileges();
	if (r)
		return err_sys(e, ERR_HOST, r, "cannot give up new privileges");
	if (s->writable_dir)
		confine_writes(s);
	return load_filter(s->shares, e);
}
