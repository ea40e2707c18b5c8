/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of host/ share: the database handle and its helpers, the in-memory machine, its lock.
 *
 * Every operation that changes a machine has the same shape: begin (BEGIN IMMEDIATE, so the only writer), load the
 * machine, check its lock, edit the structure in memory, vm_store() it, write its settings file, commit. On failure the
 * transaction is rolled back and the structure thrown away.
 */
#ifndef HOST_INV_H
#define HOST_INV_H

#include <jansson.h>
#include <sqlite3.h>

#include "base/str.h"
#include "block/block.h"
#include "host/host.h"

struct host {
	sqlite3 *db;
	char *home;
	char *machine_folder; /* cached; NULL: not asked yet */
	int depth;	      /* of nested begin/commit */
};

/* ---- db.c ---- */

/*
 * Prepare `sql` and bind by `types`: 's' const char * (NULL binds NULL), 'i' int, 'l' int64_t. NULL and *e on failure.
 */
sqlite3_stmt *db_query(struct host *h, struct err *e, const char *sql, const char *types, ...);
/* One row more? 1, 0 at the end, -1 and *e. */
int db_step(struct host *h, sqlite3_stmt *s, struct err *e);
/* Prepare, bind, run to the end. */
int db_run(struct host *h, struct err *e, const char *sql, const char *types, ...);
/* A column as a string that is never NULL and lives until the next step. */
const char *db_text(sqlite3_stmt *s, int column);

/* Write transactions nest; only the outermost counts. After db_rollback() at any depth the whole is gone. */
int db_begin(struct host *h, struct err *e);
int db_commit(struct host *h, struct err *e);
void db_rollback(struct host *h);
/* A consistent view for several reads. */
int db_begin_read(struct host *h, struct err *e);
void db_end_read(struct host *h);

/* The first column of every row as numbers, in *out (free() it); finalises the statement, NULL too. How many, or -1. */
int db_ids(struct host *h, sqlite3_stmt *s, int64_t **out, struct err *e);

/* A member of a JSON object as text, "" when it is missing or something else. */
static inline const char *
json_text(json_t *doc, const char *key)
{
	const char *s = json_string_value(json_object_get(doc, key));

	return s ? s : "";
}

/* ---- peers.c ---- */

/* One of our programs: beside this one (a build tree), in libexec of this tree, or where it is installed. free() it. */
char *peer_program(const char *name);
/* Connect to the socket `file` in `dir`; a read waits `seconds` at most. -1 when nobody is there. */
int peer_connect(const char *dir, const char *file, int seconds);

/* ---- vm.c ---- */

/* The error of a machine that somebody uses: -1. */
int vm_busy(const struct host_vm *vm, struct err *e);
/*
 * A change of a machine: in a transaction, load it (refused while somebody uses it), edit it, store it and its settings
 * file. vm_edit_end() takes what editing gave: 0 keeps the change, anything else undoes it; it releases the machine.
 */
struct host_vm *vm_edit_begin(struct host *h, const char *id, struct err *e);
int vm_edit_end(struct host *h, struct host_vm *vm, int r, struct err *e);
/* As host_vm_load(), of a machine that runs; NULL and *e (ERR_VM_STATE) otherwise. */
struct host_vm *vm_load_running(struct host *h, const char *id, struct err *e);

struct host_vm *vm_new(const char *name, const char *folder); /* all settings at their defaults, random MACs */
void vm_set(struct host_vm *vm, enum host_key key, int slot, const char *value);
/* Replace all rows of the machine by what the structure says; a new row when it is not known. */
int vm_store(struct host *h, const struct host_vm *vm, struct err *e);
/* The row number of a registered machine, or -1. */
int64_t vm_row(struct host *h, const char *uuid);
/* The row of the machine `id` (UUID or name) names; -1 and *e. (extra.c) */
int64_t vm_row_of(struct host *h, const char *id, struct err *e);
/* Rewrite the settings file after a change of what is in it, and commit. (extra.c) */
int vm_commit_with_file(struct host *h, const char *id, struct err *e);
/* `fn` for each row of key, value, time, flags; finalises the statement. (extra.c) */
int db_each_pair(struct host *h, sqlite3_stmt *s, host_pair_fn *fn, void *opaque, struct err *e);
/* The guest properties as the inventory has them, whatever a running machine says. (guestprop.c) */
int guestprop_stored_each(struct host *h, const char *uuid, host_pair_fn *fn, void *opaque, struct err *e);
/* Names the paths that follow from folder and name. */
void vm_set_place(struct host_vm *vm, const char *folder, const char *name);
struct host_controller *vm_controller(struct host_vm *vm, const char *name);
struct host_controller *vm_controller_add(struct host_vm *vm, const char *name);
void vm_controller_remove(struct host_vm *vm, struct host_controller *c);
struct host_attachment *vm_attachment_add(struct host_controller *c, int port, int device);
void vm_attachment_remove(struct host_controller *c, struct host_attachment *a);
/* Rules stay sorted by name. */
int vm_rule_add(struct host_vm *vm, int nic, const struct nat_rule *r, struct err *e);
int vm_rule_remove(struct host_vm *vm, int nic, const char *name, struct err *e);
/* As nat_rule_parse(); a rule without a name gets one. */
int vm_rule_parse(const char *text, struct nat_rule *rule, struct err *e);
char *vm_rule_text(const struct nat_rule *r); /* "name,tcp,ip,port,ip,port" */

/* ---- share.c ---- */

#define SHARE_SYMLINKS_KEY "VBoxInternal2/SharedFoldersEnableSymlinksCreate/"
#define HOST_TIME_KEY "VBoxInternal/Devices/VMMDev/0/Config/GetHostTimeDisabled"
int vm_share_insert(struct host_vm *vm, const struct host_share *s, struct err *e); /* copies */
void vm_shares_free(struct host_vm *vm);
int vm_shares_load(struct host *h, struct host_vm *vm, int64_t row, struct err *e);
int vm_shares_store(struct host *h, const struct host_vm *vm, int64_t row, struct err *e);
json_t *vm_shares_json(const struct host_vm *vm);
int vm_shares_read(struct host_vm *vm, const json_t *list, struct err *e);
json_t *vm_shares_config(struct host *h, const struct host_vm *vm); /* as vm/protocol.h has them */
/* Extra data has changed: a running machine is told when it is about symbolic links. */
void vm_symlinks_changed(struct host *h, const char *id, const char *key, const char *value);

/* ---- vboxfile.c ---- */

/* What a settings file has of a machine's hardware: "settings", "forwards", "controllers". New reference. */
json_t *vboxfile_hardware(const struct host_vm *vm);
/* Put it into a machine made by vm_new(); media are registered as for vboxfile_read(). */
int vboxfile_read_hardware(struct host *h, struct host_vm *vm, json_t *doc, const char *path, struct err *e);

int vboxfile_write(struct host *h, const struct host_vm *vm, struct err *e);
/* The file, and what commands that were killed while they wrote it have left beside it. */
void vboxfile_remove(const char *path);
/* Of a machine that is not in the inventory, with these snapshots. */
int vboxfile_write_with(
	struct host *h, const struct host_vm *vm, json_t *snapshots, const char *current, struct err *e);
/* The machine a settings file describes; media it mentions are registered when `h` has them or their file exists. */
struct host_vm *vboxfile_read(struct host *h, const char *path, json_t **extra, struct err *e);
/* Add extra data and guest properties from the document of vboxfile_read(). */
int vboxfile_restore_pairs(struct host *h, const struct host_vm *vm, json_t *doc, struct err *e);

/* ---- settings.c ---- */

/* `value` in the one way it is stored (lower case words, decimal numbers...). free() it. NULL and *e when it is not one
 * the setting can take. */
char *setting_normal(enum host_key key, int slot, const char *value, struct err *e);
char *setting_fallback(enum host_key key, int slot); /* free() it */
int setting_find(const char *name);		     /* enum host_key or -1 */

/* ---- modify.c ---- */

int vm_apply(struct host *h, struct host_vm *vm, const struct host_change *c, struct err *e);
/* A machine's folder is elsewhere: so are the disks and states of snapshots that lie in it. Inside a transaction. */
int folder_moved(struct host *h, const char *from, const char *to, struct err *e);

/* ---- move.c ---- */

/* A "move" was interrupted: the machine is where the inventory says. */
void move_recover(struct host *h, const char *uuid, json_t *files);

/* ---- bandwidth.c: extra data "Lodge/DiskBandwidth/NAME" has the limit, "Lodge/DiskGroup/CONTROLLER:PORT:DEVICE" the
 * group of a disk ---- */

#define DISK_GROUP_KEY "Lodge/DiskBandwidth/"
int disk_group_join(struct host *h, const struct host_vm *vm, const char *controller, int port, int device,
	const char *group, struct err *e); /* NULL: leave it */
int disk_groups_rename(struct host *h, const struct host_vm *vm, const char *from, const char *to, struct err *e);

/* ---- storage.c ---- */

struct bus_row {
	const char *word; /* "sata" */
	enum host_bus bus;
	const char *type;    /* the usual type; NULL: this bus cannot be had */
	const char *vm_type; /* as the machine's configuration has it */
	int ports, max_ports, min_ports, devices;
};
const struct bus_row *bus_row(const char *word);
const struct bus_row *bus_of(enum host_bus b);
/* The word for a type of controller of that bus as VirtualBox spells it; the bus's usual one when `type` is none. */
const char *controller_type(const struct bus_row *bus, const char *type);

/* ---- media.c ---- */

/*
 * The registered medium `id` (UUID or path) of that kind; a file that is not known yet is opened, checked and
 * registered. Fills uuid, path (free() it) and format (free() it).
 */
int medium_get(struct host *h, enum host_device type, const char *id, char uuid[37], char **path, char **format,
	struct err *e);
/*
 * A settings file mentions the medium at `path`: register it under `uuid` and with `format` unless it is known. The
 * file need not be there now.
 */
int medium_register(
	struct host *h, enum host_device type, const char *uuid, const char *path, const char *format, struct err *e);
/* The registry knows the key store that the image at `path` carries, or that it has none. */
int medium_sync_key(struct host *h, const char *path, struct err *e);
/* Finds the parents of images by their UUID in the registry. */
struct block_finder medium_finder(struct host *h);
/* value NULL: remove it. Inside a transaction. */
int medium_put_property(struct host *h, const char *uuid, const char *key, const char *value, struct err *e);
const char *medium_type_word(enum host_device t); /* "disk", "dvd", "floppy" */
int medium_type_of(const char *word);

/* ---- media_kind.c ---- */

enum host_medium_kind medium_kind(struct host *h, const char *uuid);
bool medium_kind_many(enum host_medium_kind k);	     /* several machines can have it attached */
bool medium_kind_snapshots(enum host_medium_kind k); /* it is a part of snapshots */
/* How the machine's process is to open it: "readonly", "shared". */
void medium_open_mode(const struct host_attachment *a, json_t *o);
/*
 * A machine attaches the medium: of some kinds it gets a differencing image of its own instead, which uuid, path and
 * format tell then. Inside a transaction.
 */
int medium_attach_as(
	struct host *h, const struct host_vm *vm, char uuid[37], char **path, char **format, struct err *e);
/* The machine is switched on: its differencing images with auto-reset become empty. */
int medium_reset(struct host *h, const struct host_vm *vm, struct err *e);

/* ---- media_job.c ---- */

/*
 * A file that is being made: noted in $LODGE_HOME/run/media while it is, so that one that a killed process left is
 * taken away by the next command. NULL and *e.
 */
struct media_job;
struct media_job *media_job_begin(struct host *h, const char *what, const char *path, struct err *e);
/* The same for several files and directories; those are removed when they are empty, so they come last. */
struct media_job *media_job_begin_all(struct host *h, const char *what, char *const *paths, int count, struct err *e);
/* The file is whole, and stays; or gone. */
void media_job_end(struct media_job *j);
void media_recover(struct host *h, void (*say)(void *opaque, const char *sentence), void *opaque);

/* ---- work.c ---- */

/*
 * Write down that `what` ("take", "restore"...) is under way on the machine, in a transaction of its own. `files`: a
 * JSON object of lists, kept as it is. 0: the work is the caller's until work_end(); -1 and *e: somebody else's is
 * under way.
 */
struct work {
	struct host *h;
	char uuid[37];
	int lock;
};
int work_begin(
	struct host *h, const struct host_vm *vm, const char *what, json_t *files, struct work *w, struct err *e);
/* There is more in `files` by now: write that down before it is made, in a transaction of its own. */
int work_note(struct work *w, json_t *files, struct err *e);
/* Inside the transaction that makes it count: from here on it is to be finished, not undone, if it is interrupted. */
int work_done(struct work *w, json_t *files, struct err *e);
void work_end(struct work *w);
/* It cannot go on, and all of it is still needed, so the next command tries: as if this process were killed now. */
void work_leave(struct work *w);
/* -1 and *e: a work that was interrupted could not be put right, and the machine's disks are not those of the inventory. */
int work_check_disks(struct host *h, const struct host_vm *vm, struct err *e);

enum work_outcome { WORK_UNDONE, WORK_FINISHED, WORK_STUCK };
/* The files of such a list, those that are there. */
void work_remove_files(json_t *list);
/* Those that are empty. */
void work_remove_folders(json_t *folders);

/* ---- snapshot.c ---- */

/* Of an interrupted "take". Finished: the new files are there and count. Undone: they are not needed. Stuck, and *e: the
 * guest has written, or writes, to them. */
enum work_outcome snapshot_recover_take(struct host *h, const char *uuid, json_t *files, struct err *e);
/* Until the machine's process, if there is one, has done what it was asked for before. */
void snapshot_wait_for_process(struct host *h, const char *uuid);
/* The overlays that a machine got for a "fork" that was interrupted stay its own. -1 and *e: all of them are needed. */
int snapshot_recover_fork(struct host *h, const char *uuid, json_t *files, struct err *e);
/* Go on with a "delete" that was interrupted. */
int snapshot_recover_delete(struct host *h, const char *uuid, json_t *files, struct err *e);
/* Is the saved state `path` one of a snapshot? */
bool snapshot_owns_state(struct host *h, const char *path);
/* A place for a new file in the snapshot folder: "FOLDER/2024-05-01T10-00-00-000000000Z.sav". Makes the folder. */
char *snapshot_state_path(const struct host_vm *vm, struct err *e);
/* All snapshots for the settings file; JSON array, root first, each with its parent's UUID. */
json_t *snapshots_json(struct host *h, const struct host_vm *vm);
int snapshots_restore_json(struct host *h, const struct host_vm *vm, json_t *list, const char *current, struct err *e);
/* ---- chain.c ---- */

/* Take the machine out of the inventory with all media that only it had; the paths of what is left to be removed are
 * appended to `out`. Inside a transaction. */
int machine_drop(struct host *h, const struct host_vm *vm, json_t *out, struct err *e);

/* ---- run.c ---- */

/* Is the machine's process alive or just being started by someone? */
bool vm_locked(struct host *h, const char *uuid);
/* Fill vm->state, state_time, session. */
void vm_resolve_state(struct host *h, struct host_vm *vm, const char *stored_state, int64_t stored_time);
char *vm_run_dir(struct host *h, const char *uuid);
void vm_forget_run_dir(struct host *h, const char *uuid);
/* One request to a running machine. NULL and *e; ERR_VM_STATE when it is not running. `params` is taken over. */
json_t *vm_call(struct host *h, const struct host_vm *vm, const char *method, json_t *params, struct err *e);
/* The same for what takes long; `p` may be NULL. */
json_t *vm_call_long(struct host *h, const struct host_vm *vm, const char *method, json_t *params,
	const struct host_progress *p, struct err *e);
/* After a power-off: until the process is gone, so that the next command finds the machine free. */
void vm_wait_gone(struct host *h, const char *uuid);
/* The state of a machine that does not run is `s` from now on, whatever it was last. Inside a transaction. */
/* What the guest has ejected for good is no longer attached, on the disk too. In a transaction, or not. */
int vm_settle_ejected(struct host *h, const char *uuid, struct err *e);
/* vm_store() has it: the process, which has ended, said it last. */
void vm_forget_ejected(struct host *h, const char *uuid);
int vm_set_final_state(struct host *h, const char *uuid, enum host_state s, const char *state_file, struct err *e);
/* The same, with a descriptor to go along (-1: none). */
json_t *vm_call_fd(
	struct host *h, const struct host_vm *vm, const char *method, json_t *params, int pass, struct err *e);

int64_t now_ns(void);

#endif
