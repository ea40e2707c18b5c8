/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved machines: everything a machine is at one moment, in one file, the same for all engines.
 *
 * What is saved: the clocks, each CPU (struct x86_state), what CPUID says, each device by its `fields` table, and every
 * block of guest memory. Disks are not in it: they are images of their own. The format is described in state/file.c.
 *
 * A state is taken from a machine that stands still: CPUs parked, clock stopped, I/O drained (device_drain_all()), by
 * either of
 *	state_save()		all of it, while the machine stands still
 *	state_live_begin()	the devices and CPUs at once, memory as it is at that moment but written while the
 *				machine already runs again
 * and put into a machine that was built the same way and has not run yet:
 *	state_open()		looks at the file; state_model() is for building the CPUs
 *	state_load()		devices, CPUs, clock
 *	state_load_memory()	memory: all at once, or when the guest touches it (userfaultfd)
 *
 * A file is as little to be trusted as a guest: everything in it is checked before it is used, and it is refused as a
 * whole or taken as a whole.
 */
#ifndef STATE_STATE_H
#define STATE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "bus/machine.h"
#include "cpu/cpu.h"

struct state_file;

/* Called now and then with 0-100, by one thread at a time; may be NULL. `stopped` is asked, by any thread, whether to give
 * up, and may be NULL. */
struct state_progress {
	void (*at)(void *opaque, int percent);
	void *opaque;
	bool (*stopped)(void *opaque);
};

/* What a state took. */
struct state_numbers {
	uint64_t memory;  /* bytes of guest memory it stands for */
	uint64_t written; /* bytes of the file */
	uint64_t copied;  /* live: bytes that had to be copied because the guest was about to change them */
	unsigned rounds;  /* live, without userfaultfd: passes over memory */
};

/*
 * Write the machine to `fd` (an empty file, open for writing; stays the caller's). On 0 it is on stable storage. The
 * machine lock is not needed: the machine stands still.
 */
int state_save(int fd, struct machine *m, struct cpus *c, const struct state_progress *p, struct state_numbers *n,
	struct err *e);

/* ---- loading ---- */

/* Takes `fd` over, also on failure. `path` is for messages. Header, table and description are verified here. */
struct state_file *state_open(int fd, const char *path, struct err *e);
void state_close(struct state_file *f); /* NULL: nothing. Not while memory is still being loaded from it */
/* All of the memory's checksums; -1 and *e names the first place that is wrong. */
int state_verify(struct state_file *f, struct err *e);
const struct cpu_model *state_model(const struct state_file *f);
/* In a machine just built: devices, CPUs, clock. Nothing is changed when it fails. Machine lock held. */
int state_load(struct state_file *f, struct machine *m, struct cpus *c, struct err *e);
/*
 * Memory, after state_load(), before anything of the machine runs. With `uffd` (state_uffd_open(); -1: none) memory is
 * loaded when it is touched and by threads in the background, and this returns at once: then `f` must stay until
 * state_load_wait(). Machine lock held.
 */
int state_load_memory(struct state_file *f, struct machine *m, int uffd, struct err *e);
/* Until all memory is there. Any thread, without the machine lock. */
void state_load_wait(struct state_file *f);
bool state_load_busy(struct state_file *f);

/* A userfaultfd that also stops the kernel's own accesses; -1 where that is not allowed (not root, sysctl
 * vm.unprivileged_userfaultfd 0, no rights to /dev/userfaultfd). To be opened before rights are given up. */
int state_uffd_open(void);

/* ---- while it runs ---- */

struct state_live;

/*
 * Phase 1, while the machine runs: with `uffd`, make memory ready for write protection; without, write it once or
 * several times, noting what the guest changes meanwhile. Of `stop` only `stopped` is asked, here and in phase 3. NULL
 * and *e. Without the machine lock, not from a CPU.
 */
struct state_live *state_live_open(
	int fd, struct machine *m, struct cpus *c, int uffd, const struct state_progress *stop, struct err *e);
/* Phase 2, while it stands still: describe it, and fix memory at this moment. */
int state_live_begin(struct state_live *l, struct err *e);
/* Phase 3, while it runs again: write what is left. On 0 the file is on stable storage. */
int state_live_finish(struct state_live *l, const struct state_progress *p, struct state_numbers *n, struct err *e);
/* At any time after open; the machine goes on undisturbed. */
void state_live_close(struct state_live *l);

/* ---- copies that share memory ---- */

#define STATE_LAYERS_MAX 6
struct state_share;

/* To be opened before rights are given up. Never NULL. */
struct state_share *state_share_open(void);
void state_share_close(struct state_share *s);
/*
 * Memory as it is at this moment, in files that copies can map; the machine stands still. Afterwards
 * state_share_layers() gives the descriptors, which stay its own.
 */
int state_share(struct state_share *s, struct machine *m, struct err *e);
/* May come before, while the machine runs: then it need not stand still for long. Without the machine lock. */
void state_share_prepare(struct state_share *s, struct machine *m);
int state_share_layers(const struct state_share *s, int fd[STATE_LAYERS_MAX]);
/* The copy's side, instead of state_load_memory(): takes the descriptors over. */
int state_share_take(struct state_share *s, struct machine *m, const int *fd, int count, struct err *e);
/* A saved state without memory. */
int state_save_description(int fd, struct machine *m, struct cpus *c, struct err *e);

/* ---- for tests and debugging ---- */

/* The description of the machine (everything but memory) as bytes; str_free() it. */
void state_describe(struct str *out, struct machine *m, struct cpus *c);
/* The checksum that a file's header has of itself. */
uint32_t state_checksum(const void *p, size_t n);
/* One line a field, for people: "lapic.tpr 0". */
int state_print(const struct state_file *f, FILE *out);

#endif
