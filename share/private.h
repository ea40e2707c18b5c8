/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of share/ have among themselves.
 *
 * `lock` of a share guards its tables: clients, folders, handles, and the counters in them. It is never held over a
 * system call that touches a shared file. Folders and handles are counted: a thread that works with one holds a
 * reference; the descriptor is closed with the last.
 */
#ifndef SHARE_PRIVATE_H
#define SHARE_PRIVATE_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/str.h"
#include "share/share.h"

#define CLIENTS_MAX 64
#define HANDLE_NIL UINT64_MAX

enum service { SERVICE_NONE, SERVICE_FOLDERS, SERVICE_PROPS };

struct client {
	uint8_t service;
	bool utf8;     /* names are UTF-8, not UTF-16 */
	bool symlinks; /* wants to see symbolic links as such */
};

struct folder {
	char *name;
	int fd; /* -1: removed */
	bool readonly, symlinks, automount;
	char *mount_point;
	uint32_t root;	/* its number for guests, its place in the table */
	uint32_t maps;	/* how often guests have mapped it */
	uint64_t place; /* device and inode of the directory, mixed */
	struct share *share;

	pthread_mutex_t queue_lock;
	pthread_cond_t queued;
	struct share_call *queue, **queue_tail;
	atomic_int waiting; /* calls in the queue */
	atomic_int spinning;
	uint32_t spin_ns, misses; /* how long a thread spins; how often in a row in vain. Of the thread that spins */
	bool stop;
	pthread_t threads[SHARE_THREADS];
	int thread_count;
};

struct handle {
	uint64_t id;
	uint32_t root, client;
	int refs; /* under the share's lock; one is the table's */
	int fd;	  /* -1: stale */
	bool path_only, writable, append;
	uint8_t kind; /* of HANDLE_* */
	pthread_mutex_t lock;
	DIR *dir; /* of a listing under way; owns a descriptor of its own */
	uint32_t listed;
};
enum { HANDLE_FILE, HANDLE_DIR };

struct share {
	struct share_options o;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	int active; /* calls in folders' queues or being carried out */
	struct client clients[CLIENTS_MAX];
	struct folder *folders[SHARE_FOLDERS_MAX];
	struct handle **handles;
	int handle_count, handle_max;
	uint32_t next_serial;

	/* The thread that starts threads. */
	pthread_t starter;
	pthread_cond_t start_changed;
	struct folder *start;
	bool start_asked, start_answered, starter_stop;
	int start_result;
};

/* ---- folders.c ---- */
/* Functions without files: carried out at once. False: it is not one of them. */
bool folders_quick(struct share *s, struct client *cl, struct share_call *c);
/* On a thread of the folder. */
void folders_work(struct share *s, struct folder *f, const struct client *cl, struct share_call *c);
/* 0 or an errno: can this directory be shared safely? */
int folders_probe(struct share *s, int fd);
/* openat2() with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS; a descriptor or -errno. */
int folders_open_beneath(struct share *s, int dir, const char *path, int flags, int mode);

/* ---- handles.c ---- */
/* Takes fd over. HANDLE_NIL: there are too many. */
uint64_t handle_add(struct share *s, const struct handle *h);
/* With a reference; NULL: there is none like that. */
struct handle *handle_get(struct share *s, uint32_t client, uint32_t root, uint64_t id);
void handle_put(struct share *s, struct handle *h);
bool handle_close(struct share *s, uint32_t client, uint32_t root, uint64_t id);
/* Those of a client, of a folder, or (UINT32_MAX) of all. */
void handles_close(struct share *s, uint32_t client, uint32_t root);

/* ---- propsvc.c ---- */
void propsvc_call(struct share *s, struct share_call *c);

/* ---- confine.c ---- */
/* This thread can from now on only do what a folder's server needs: beneath `dir`. 0 or -errno. */
int confine_thread(int dir, bool readonly, bool keep_capabilities);

/* ---- share.c ---- */
/* Are the parameters of these kinds? '4' SHARE_U32, '8' SHARE_U64, 'b' SHARE_BUF, one a parameter. */
bool call_has(const struct share_call *c, const char *kinds);
void call_end(struct share_call *c, int status);

#endif
