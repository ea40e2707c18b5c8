/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of vm/ share.
 *
 * Threads: the owner's (vm_run), the loop's, one a CPU. A request that needs the CPUs to stop cannot be carried out
 * where it arrives (on the loop or a CPU, with the machine lock held): it becomes a `struct vm_job` for the owner.
 * `state` is written by the owner under the machine lock.
 */
#ifndef VM_PRIVATE_H
#define VM_PRIVATE_H

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "debug/debug.h"
#include "display/display.h"
#include "vm/vm.h"

enum vm_job_kind {
	JOB_PAUSE,
	JOB_RESUME,
	JOB_RESET,
	JOB_POWEROFF,
	JOB_SCREENSHOT,
	JOB_DEBUG,
	JOB_SAVE,
	JOB_SNAPSHOT,
	JOB_FORK,
	JOB_UNFORK,
	JOB_BARRIER,
	JOB_FULL,
	JOB_EJECTED,
	JOB_EVENT,
};

struct control;

/* Who asked: a connection and the request's id, so that the answer finds its way. client 0: nobody. */
struct vm_asker {
	uint64_t client;
	json_t *id; /* owned */
};

struct vm_job {
	enum vm_job_kind kind;
	enum machine_event event;
	int status;
	struct vm_asker asker;
	json_t *params; /* owned; NULL: none */
	struct vm_job *next;
};

struct vm_disk {
	struct block *block;
	struct vm *v;
	int controller, attachment; /* places in the configuration */
	struct pc_device *device;
	int unit;		/* its place there */
	struct vm_merge *merge; /* under way; NULL: none */
	bool ejected;		/* the guest has put the disc out, and nobody has put one in since */
};

/* A drive that is to be plugged in. */
struct vm_plug {
	const char *controller, *path, *format, *group; /* NULL: none */
	int port, device;
	bool dvd, nonrotational, discard;
};

#define VM_DISKS_MAX (VM_CONTROLLERS_MAX * 32)

struct vm {
	struct vm_config *c;
	struct vm_options o;
	enum vm_state state;
	char since[40]; /* of the state */
	uint64_t started_ns;
	struct vm_shares *shares; /* NULL: the machine has no guest device */
	struct vm_outcome outcome;
	bool ended;

	struct pc *pc;
	struct machine *m;
	const struct cpu_engine *engine;
	char engine_why[256];
	struct pc_config pcc;
	struct chardev *serial[PC_SERIAL_MAX]; /* the ports own them; NULL: no port */
	struct pc_device devices[PC_DEVICES_MAX];
	int device_count;
	struct audio *audio; /* NULL: what the guest plays goes nowhere */
	struct vm_disk disks[VM_DISKS_MAX];
	int disk_count;
	struct opener *opener;				/* plug.c; NULL: none */
	struct block_limit *disk_limits[VM_GROUPS_MAX]; /* as c->groups */
	struct net_link links[VM_NICS_MAX];		/* as c->nics */
	struct pcap *traces[VM_NICS_MAX];
	struct net_limit *limits[VM_NICS_MAX]; /* of the adapter and those after it in the same group */
	int link_count;
	bool escape_seen; /* Ctrl-A on the terminal */
	struct rfb *rfb;
	struct agent *agent;		/* agentlink.c */
	struct agent_info *agent_info;	/* agentinfo.c */
	struct timesync *timesync;	/* timesync.c */
	struct pc_device *agent_device; /* NULL: none */
	json_t *sessions;		/* in the guest, as clients told */
	struct logins *logins;
	uint64_t next_session;
	struct control *control;
	int lock_fd;
	pthread_t loop_thread;
	struct gdb *gdb; /* NULL: not served */
	FILE *trace_lines;
	int steps_done;

	int wake_fd;   /* eventfd: something is in `jobs`, or stop_requested */
	int signal_fd; /* -1: signals are not ours */
	sigset_t old_signals;
	_Atomic bool stop_requested;
	_Atomic bool cancel; /* who asked for a saved state, a snapshot or a fork wants it no more */
	pthread_mutex_t jobs_lock;
	struct vm_job *jobs, **jobs_tail;
	unsigned events_queued; /* bit n: machine_event n is in `jobs`; a guest cannot queue it twice */
	struct vm_asker poweroff_asker;
	struct vm_throttle *throttle;

	json_t *ejected;	   /* discs that the guest put out, as status.json has them; NULL: none yet */
	struct state_file *saved;  /* that the machine came from; NULL: none */
	int uffd;		   /* -1: none */
	struct state_share *share; /* memory that copies have too */
	enum vm_state state_before;
};

/* Who is told how far a long job is. */
struct vm_progress {
	struct vm *v;
	struct vm_asker *asker;
};

/* ---- jobs.c ---- */
/* Queue work for the owner; any thread. Takes over `asker.id`. */
void vm_post_job(struct vm *v, struct vm_job job);
/* struct machine's `event`: the guest, or a chip, asks for something. */
void vm_machine_wants(void *opaque, enum machine_event what, int status);
/* Carry out jobs until the machine is to end: v->outcome says how. */
void vm_jobs_run(struct vm *v);
void vm_jobs_drop(struct vm *v);

/* ---- lifecycle.c ---- */
/* Open or close the console server as configured. Machine lock held. */
int vm_console_open(struct vm *v, struct err *e);
void vm_console_close(struct vm *v);
/* Serve it on these ports from now on; on an error it stays where it is. */
int vm_console_move(struct vm *v, const char *ports, struct err *e);

/* ---- save.c: owner's thread, without the machine lock ---- */
int vm_state_open(struct vm *v, struct err *e);
void vm_state_close(struct vm *v);
int vm_state_load(struct vm *v, struct err *e);
/* Write the machine to the new file `path`; on 0 it stands still and is to end. Otherwise it goes on. */
int vm_save(struct vm *v, const char *path, struct vm_asker *asker, struct err *e);
/* "snapshot.take" of vm/protocol.h: its result. */
json_t *vm_snapshot(struct vm *v, json_t *params, struct vm_asker *asker, struct err *e);
/* "fork": its result; descriptors to go with it, to be closed: fds[0] to fds[*count - 1]. */
json_t *vm_fork(struct vm *v, json_t *params, int fds[8], int *count, struct err *e);
/* Take a fork's overlays off again. */
json_t *vm_unfork(struct vm *v, json_t *params, struct err *e);

/* ---- debug.c ---- */
int vm_debug_open(struct vm *v, struct err *e);
int vm_debug_start(struct vm *v, struct err *e);
void vm_debug_close(struct vm *v);
/* "debug" of vm/protocol.h: its result. Owner's thread, without the machine lock. */
json_t *vm_debug(struct vm *v, const json_t *params, struct err *e);

/* ---- parts.c: from the configuration to pc_config and back ends ---- */
int vm_open_disks(struct vm *v, struct err *e);
void vm_close_disks(struct vm *v);
int vm_open_serial(struct vm *v, struct err *e);
void vm_close_serial(struct vm *v); /* only what no port has taken over */
int vm_list_devices(struct vm *v, struct err *e);
struct vm_disk *vm_find_disk(struct vm *v, const char *controller, int port, int device);
/* ---- nics.c ---- */
int vm_open_networks(struct vm *v, struct err *e);
void vm_close_networks(struct vm *v);
/* Plug adapter `i` (of c->nics) into something else, as `backend` of the configuration has it; on an error it stays
 * as it is, or, when the new place cannot be opened, is left without one. Machine lock held. */
int vm_replug(struct vm *v, int i, const json_t *backend, struct err *e);
/* Trace into `fd`, which is taken over, or into what there was (-1). Machine lock held. */
int vm_trace_nic(struct vm *v, int i, bool on, int fd, const char *name, struct err *e);
/* The groups' limits, by name. */
int vm_set_bandwidth(struct vm *v, const char *group, uint64_t bytes_per_second, struct err *e);
/* `backend` into *n. (config.c) */
int vm_config_backend(struct vm_nic *n, const json_t *backend, struct err *e);
/* NULL: no adapter in `slot`. */
struct vm_nic *vm_find_nic(struct vm *v, int slot, struct net_link **link, struct pcap **trace);
/* Open and insert, or eject (path NULL). Machine lock held. */
int vm_change_medium(struct vm *v, struct vm_disk *d, const char *path, bool force, struct err *e);

/* A disk as machine/ takes it. */
struct pc_drive vm_drive_of(struct vm_disk *d);

/* ---- plug.c ---- */
int vm_opener_start(struct vm *v, struct err *e);
void vm_opener_stop(struct vm *v);
/* As block_open(), also when the sandbox is closed. Any thread; format "" or NULL: found out. */
struct block *vm_open_image(struct vm *v, const char *path, const char *format, int flags, struct err *e);
/* A disk has its image, just opened. */
int vm_cache_flags(const struct vm_disk *d);
void vm_disk_opened(struct vm_disk *d);
/* The password called `id`, for all disks that wait for it. *complete: none waits for another one. Machine lock held.
 */
int vm_give_password(struct vm *v, const char *id, const char *password, bool *complete, struct err *e);
int vm_groups_open(struct vm *v, struct err *e);
void vm_groups_close(struct vm *v);
/* The rest with the machine lock held, unless it says otherwise. */
int vm_group_set(struct vm *v, const char *name, uint64_t limit, struct err *e);
int vm_plug_in(struct vm *v, const struct vm_plug *p, struct err *e);
int vm_plug_out(struct vm *v, struct vm_disk *d, struct err *e);
/* Is the host without room for what the guest has written? Then *e says so. */
bool vm_is_full(struct vm *v, struct err *e);
/* Owner's thread, without the lock: pause because of it; try again. */
void vm_full_pause(struct vm *v);
void vm_full_retry(struct vm *v);

/* ---- throttle.c ---- */
int vm_throttle_open(struct vm *v, struct err *e);
void vm_throttle_close(struct vm *v);
/* Machine lock held. */
void vm_throttle_set(struct vm *v, int percent);

enum method_result { METHOD_DONE, METHOD_FAILED, METHOD_LATER };

/* ---- shares.c ---- */
int vm_shares_open(struct vm *v, struct err *e);
void vm_shares_close(struct vm *v);
/* What a guest device is given; NULL: there is none. */
struct share *vm_share_of(struct vm *v);
/* The guest properties of the running machine, for whoever writes them from within this process; NULL: none. */
struct props *vm_props(struct vm *v);
/* The rest with the machine lock held. `params` of "share.add"; the descriptor is taken over. */
int vm_share_add(struct vm *v, const json_t *params, int fd, struct err *e);
int vm_share_remove(struct vm *v, const char *name, struct err *e);
int vm_share_symlinks(struct vm *v, const char *name, bool allowed, struct err *e);
json_t *vm_share_list(struct vm *v);
json_t *vm_prop_list(struct vm *v, const char *patterns, struct err *e);
int vm_prop_set(struct vm *v, const char *name, const char *value, const char *flags, struct err *e);
enum method_result vm_prop_wait(struct vm *v, const char *patterns, int64_t after, int timeout_ms,
	const struct vm_asker *asker, json_t **result, struct err *e);
json_t *vm_additions(struct vm *v);

/* ---- status.c ---- */
int vm_lock_take(struct vm *v, struct err *e);
void vm_lock_drop(struct vm *v);
void vm_status_write(struct vm *v);
void vm_set_state(struct vm *v, enum vm_state s);

/* ---- control.c ---- */
struct control *control_open(struct vm *v, const char *path, struct err *e);
void control_close(struct control *c);
/* Answer a request that was put off. Takes `result` over; NULL: *e is sent. Machine lock held. */
void control_answer(struct control *c, struct vm_asker *a, json_t *result, const struct err *e);
/* Tell who asked that the request is under way. Machine lock held. */
void control_progress(struct control *c, const struct vm_asker *a, int percent);
/* Descriptors that go with the next answer of who asked; taken over. Machine lock held. */
void control_attach(struct control *c, const struct vm_asker *a, const int *fds, int count);
/* A descriptor of the connection that outlives control_close(); -1. Machine lock held. */
int control_keep(struct control *c, const struct vm_asker *a);
/* The descriptor that came with the request, now the caller's; -1. Machine lock held. */
int control_take_fd(struct control *c, const struct vm_asker *a);
/* Send one last message on such a descriptor and close it. */
void control_last_words(int fd, json_t *id, json_t *result);
unsigned control_clients(const struct control *c);

/* ---- methods.c ---- */
/*
 * Carry out one request under the machine lock: DONE with *result (new), FAILED with *e, or LATER: somebody calls
 * control_answer().
 */
enum method_result method_call(struct vm *v, const char *name, const json_t *params, const struct vm_asker *asker,
	json_t **result, struct err *e);
/* ---- agentlink.c ---- */
enum vm_agent_request { AGENT_STATUS, AGENT_CALL, AGENT_WAIT, AGENT_ONCLOSE, AGENT_SESSION, AGENT_LOGIN };
int vm_agent_open(struct vm *v, struct err *e);
void vm_agent_close(struct vm *v);
/* The device is the agent's channel. */
void vm_agent_wire(struct vm *v, struct pc_device *d);
/* The rest: machine lock held. The requests "agent.*" of vm/protocol.h. */
enum method_result vm_agent_method(struct vm *v, enum vm_agent_request what, const json_t *params,
	const struct vm_asker *asker, json_t **result, struct err *e);
int vm_agent_session(struct vm *v, const json_t *params, uint64_t client, json_t **result, struct err *e);
/* A connection of the control socket has ended. */
void vm_agent_client_gone(struct vm *v, uint64_t client);
void vm_agent_resumed(struct vm *v);
/* ---- agentinfo.c: machine lock held ---- */
void vm_agent_info_start(struct vm *v);
void vm_agent_info_stop(struct vm *v);
void vm_agent_info_opened(struct vm *v, bool open);
/* ---- timesync.c: machine lock held ---- */
void vm_timesync_start(struct vm *v);
void vm_timesync_stop(struct vm *v);
/* The machine runs (again), or an agent has come: the time is looked at now. */
void vm_timesync_check(struct vm *v);
/* ---- automount.c: machine lock held ---- */
struct vm_share;
void vm_automount(struct vm *v);
/* One folder that has come, or is about to go; nothing if it is not to be mounted. */
void vm_automount_one(struct vm *v, const struct vm_share *s, bool mount);
/* ---- merge.c: machine lock held ---- */
enum method_result vm_merge_start(
	struct vm *v, struct vm_disk *d, const char *child, bool up, const struct vm_asker *asker, struct err *e);
int vm_merge_finish(struct vm *v, struct vm_disk *d, struct err *e);
void vm_merge_cancel(struct vm_disk *d);
/* Those that somebody waits for and that left both images' contents as they were. */
void vm_merges_give_up(struct vm *v);

/* Result of "screenshot"; owner's thread, no lock. */
json_t *method_screenshot(struct vm *v, const json_t *params, struct err *e);

/* ---- sandbox.c ---- */
struct sandbox {
	const char *user;		/* "": stay who we are */
	const char *writable_dir;	/* files can be made and replaced here; NULL: no limits by place */
	char *removable[VM_SERIAL_MAX]; /* sockets that may be removed at the end */
	int removable_count;
	const char *snapshot_dir;    /* as writable_dir; "": none */
	const char *const *writable; /* files that may be written to: the images of the disks */
	int writable_count;
	bool shares; /* folders are shared: what their threads need is allowed */
};
/* No new privileges, no capabilities, the configured user, resource limits, seccomp; for all threads there are. */
int sandbox_enter(const struct sandbox *s, struct err *e);

#endif
