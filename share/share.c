/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services, their clients, and the threads that carry out calls.
 *
 * A call that touches no file is carried out inside share_submit(). All others go to the queue of the folder they name
 * and are carried out by that folder's threads, which are confined to the folder's directory (confine.c). A thread that
 * finds its queue empty looks at it for a short while longer before it sleeps: a guest's next call usually follows at
 * once, and waking a thread costs more than the call.
 *
 * Folders come and go while the machine runs. Threads inherit the confinement of the thread that makes them, so all
 * folders' threads are made by the starter, a thread from before the process gave up its rights, which does nothing
 * else.
 *
 * A removed folder leaves its place, its name and its number behind: a guest that has mounted it is told so until a
 * folder of that name comes back.
 */
#include "share/share.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "share/private.h"

#define SPIN_NS 40000
#define SPIN_TRY_AGAIN 32

int
share_status(int errnum)
{
	static const struct {
		int errnum, status;
	} rows[] = {
		{ 0, SHARE_OK },
		{ EPERM, SHARE_ACCESS_DENIED },
		{ EACCES, SHARE_ACCESS_DENIED },
		{ ENOENT, SHARE_FILE_NOT_FOUND },
		{ ENOTDIR, SHARE_NOT_A_DIRECTORY },
		{ EISDIR, SHARE_IS_A_DIRECTORY },
		{ EEXIST, SHARE_ALREADY_EXISTS },
		{ ENOTEMPTY, SHARE_DIR_NOT_EMPTY },
		{ EROFS, SHARE_WRITE_PROTECT },
		{ ENOSPC, SHARE_DISK_FULL },
		{ EDQUOT, SHARE_DISK_FULL },
		{ EFBIG, SHARE_FILE_TOO_BIG },
		{ ENAMETOOLONG, SHARE_FILENAME_TOO_LONG },
		{ ELOOP, SHARE_TOO_MANY_SYMLINKS },
		{ EXDEV, SHARE_NOT_SAME_DEVICE },
		{ EMFILE, SHARE_TOO_MANY_OPEN_FILES },
		{ ENFILE, SHARE_TOO_MANY_OPEN_FILES },
		{ ENOMEM, SHARE_NO_MEMORY },
		{ EBUSY, SHARE_RESOURCE_BUSY },
		{ ETXTBSY, SHARE_SHARING_VIOLATION },
		{ EINVAL, SHARE_INVALID_PARAMETER },
		{ EBADF, SHARE_INVALID_HANDLE },
		{ EIO, SHARE_DEV_IO_ERROR },
		{ EILSEQ, SHARE_NO_TRANSLATION },
		{ EAGAIN, SHARE_TRY_AGAIN },
		{ EINTR, SHARE_INTERRUPTED },
		{ EOPNOTSUPP, SHARE_NOT_SUPPORTED },
		{ ENOSYS, SHARE_NOT_SUPPORTED },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].errnum == abs(errnum))
			return rows[i].status;
	return SHARE_GENERAL_FAILURE;
}

bool
call_has(const struct share_call *c, const char *kinds)
{
	size_t n = strlen(kinds);

	if (c->count < 0 || (size_t)c->count != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		enum share_kind want = kinds[i] == '4' ? SHARE_U32 : kinds[i] == '8' ? SHARE_U64 : SHARE_BUF;

		if (c->parm[i].kind != want)
			return false;
	}
	return true;
}

void
call_end(struct share_call *c, int status)
{
	c->status = status;
	c->done(c);
}

/* ---- a folder's threads ---- */

static uint64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * Look at the queue a little longer; one thread at a time. Where that is in vain, because the guest takes its time or
 * others have the processors, it becomes shorter, so that it does not take from the guest what it waits for; now and
 * then the whole time is tried again.
 */
static void
spin(struct folder *f)
{
	bool hit = false;
	uint64_t end;

	if (atomic_exchange(&f->spinning, 1))
		return;
	if (!f->spin_ns || f->misses % SPIN_TRY_AGAIN == SPIN_TRY_AGAIN - 1)
		f->spin_ns = SPIN_NS;
	end = now_ns() + f->spin_ns;
	while (!(hit = atomic_load_explicit(&f->waiting, memory_order_relaxed)) && now_ns() < end)
		for (int i = 0; i < 16; i++)
			__builtin_ia32_pause();
	f->spin_ns = hit ? SPIN_NS : MAX(f->spin_ns / 2, 1000u);
	f->misses = hit ? 0 : f->misses + 1;
	atomic_store(&f->spinning, 0);
}

static struct share_call *
take_call(struct folder *f)
{
	struct share_call *c;

	if (!atomic_load_explicit(&f->waiting, memory_order_relaxed))
		spin(f);
	pthread_mutex_lock(&f->queue_lock);
	while (!f->queue && !f->stop)
		pthread_cond_wait(&f->queued, &f->queue_lock);
	c = f->queue;
	if (c) {
		f->queue = c->next;
		if (!f->queue)
			f->queue_tail = &f->queue;
		atomic_fetch_sub(&f->waiting, 1);
	}
	pthread_mutex_unlock(&f->queue_lock);
	return c;
}

static void
ended_one(struct share *s)
{
	pthread_mutex_lock(&s->lock);
	if (!--s->active)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

static void *
folder_main(void *opaque)
{
	struct folder *f = opaque;
	struct share *s = f->share;
	struct share_call *c;

	while ((c = take_call(f))) {
		struct client cl;

		pthread_mutex_lock(&s->lock);
		cl = s->clients[c->client % CLIENTS_MAX];
		pthread_mutex_unlock(&s->lock);
		folders_work(s, f, &cl, c);
		c->done(c);
		ended_one(s);
	}
	return NULL;
}

/* Confined before it takes the first call: the starter waits for that. */
struct birth {
	struct folder *f;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool born;
	int result;
};

static void *
birth_main(void *opaque)
{
	struct birth *b = opaque;
	struct folder *f = b->f;
	int r = f->share->o.confine ? confine_thread(f->fd, f->readonly, f->share->o.keep_capabilities) : 0;

	pthread_mutex_lock(&b->lock);
	b->result = r;
	b->born = true;
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
	return r ? NULL : folder_main(f);
}

static int
start_one(struct folder *f)
{
	struct birth b = { .f = f };
	int r;

	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.changed, NULL);
	r = -pthread_create(&f->threads[f->thread_count], NULL, birth_main, &b);
	if (!r) {
		pthread_mutex_lock(&b.lock);
		while (!b.born)
			pthread_cond_wait(&b.changed, &b.lock);
		r = b.result;
		pthread_mutex_unlock(&b.lock);
		f->thread_count++;
	}
	pthread_cond_destroy(&b.changed);
	pthread_mutex_destroy(&b.lock);
	return r;
}

static int
start_threads(struct folder *f)
{
	int r = 0;

	while (!r && f->thread_count < SHARE_THREADS)
		r = start_one(f);
	return r;
}

static void *
starter_main(void *opaque)
{
	struct share *s = opaque;

	pthread_mutex_lock(&s->lock);
	while (!s->starter_stop) {
		struct folder *f = s->start;

		if (!s->start_asked) {
			pthread_cond_wait(&s->start_changed, &s->lock);
			continue;
		}
		s->start_asked = false;
		pthread_mutex_unlock(&s->lock);
		s->start_result = start_threads(f);
		pthread_mutex_lock(&s->lock);
		s->start_answered = true;
		pthread_cond_broadcast(&s->start_changed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Share's lock held; one at a time, which the caller's being under the machine's lock sees to. */
static int
ask_starter(struct share *s, struct folder *f)
{
	s->start = f;
	s->start_answered = false;
	s->start_asked = true;
	pthread_cond_broadcast(&s->start_changed);
	while (!s->start_answered)
		pthread_cond_wait(&s->start_changed, &s->lock);
	return s->start_result;
}

static void
stop_threads(struct folder *f)
{
	pthread_mutex_lock(&f->queue_lock);
	f->stop = true;
	pthread_cond_broadcast(&f->queued);
	pthread_mutex_unlock(&f->queue_lock);
	while (f->thread_count)
		pthread_join(f->threads[--f->thread_count], NULL);
	f->stop = false;
}

/* ---- folders ---- */

static struct folder *
find_folder(struct share *s, const char *name)
{
	for (int i = 0; i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i] && !strcmp(s->folders[i]->name, name))
			return s->folders[i];
	return NULL;
}

static void
free_folder(struct folder *f)
{
	if (f->fd >= 0)
		close(f->fd);
	pthread_cond_destroy(&f->queued);
	pthread_mutex_destroy(&f->queue_lock);
	free(f->mount_point);
	free(f->name);
	free(f);
}

static struct folder *
new_folder(struct share *s, const char *name, uint32_t root)
{
	struct folder *f = xcalloc(1, sizeof(*f));

	f->share = s;
	f->name = xstrdup(name);
	f->root = root;
	f->fd = -1;
	f->mount_point = xstrdup("");
	f->queue_tail = &f->queue;
	pthread_mutex_init(&f->queue_lock, NULL);
	pthread_cond_init(&f->queued, NULL);
	s->folders[root] = f;
	return f;
}

/* Where a folder of that name goes: where one was, an empty place, or that of one that is gone. Lock held. */
static struct folder *
place_for(struct share *s, const char *name)
{
	struct folder *f = find_folder(s, name);

	for (uint32_t i = 0; !f && i < SHARE_FOLDERS_MAX; i++)
		if (!s->folders[i])
			return new_folder(s, name, i);
	for (uint32_t i = 0; !f && i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i]->fd < 0 && !s->folders[i]->maps) {
			free_folder(s->folders[i]);
			return new_folder(s, name, i);
		}
	return f;
}

static int
check_folder(struct share *s, const struct share_folder *f, struct err *e)
{
	size_t n = strlen(f->name);
	int r;

	if (!n || n > SHARE_NAME_MAX || strchr(f->name, '/') || !share_is_utf8(f->name, n))
		return err_set(e, ERR_INVALID,
			"'%s' cannot be the name of a shared folder: it has 1 to %d bytes of UTF-8 and no '/'", f->name,
			SHARE_NAME_MAX);
	r = folders_probe(s, f->fd);
	if (r == ENOSYS)
		return err_set(e, ERR_UNSUPPORTED,
			"This host's kernel has no openat2() (Linux 5.6), without which a guest cannot be kept inside "
			"the shared folder '%s'",
			f->name);
	return r ? err_sys(e, ERR_FILE, r, "The directory of the shared folder '%s' cannot be opened", f->name) : 0;
}

static int
fill_folder(struct share *s, struct folder *f, const struct share_folder *from, struct err *e)
{
	struct stat st = { 0 };
	int r;

	fstat(from->fd, &st);
	f->fd = from->fd;
	f->place = (uint64_t)st.st_dev << 48 ^ (uint64_t)st.st_ino;
	f->readonly = from->readonly;
	f->symlinks = from->symlinks;
	f->automount = from->automount;
	free(f->mount_point);
	f->mount_point = xstrdup(from->mount_point ? from->mount_point : "");
	r = ask_starter(s, f);
	if (!r)
		return 0;
	pthread_mutex_unlock(&s->lock);
	stop_threads(f);
	pthread_mutex_lock(&s->lock);
	f->fd = -1;
	return err_sys(e, ERR_HOST, r, "The threads of the shared folder '%s' cannot be started", from->name);
}

int
share_folder_add(struct share *s, const struct share_folder *from, struct err *e)
{
	int r = check_folder(s, from, e);

	if (!r) {
		struct folder *f;

		pthread_mutex_lock(&s->lock);
		f = place_for(s, from->name);
		if (!f)
			r = err_set(e, ERR_INVALID, "A machine can have %d shared folders", SHARE_FOLDERS_MAX);
		else if (f->fd >= 0)
			r = err_set(e, ERR_IN_USE, "Shared folder named '%s' already exists", from->name);
		else
			r = fill_folder(s, f, from, e);
		pthread_mutex_unlock(&s->lock);
	}
	if (r)
		close(from->fd);
	return r;
}

/* Calls that are in its queue, or come before it is gone, find no folder. */
static void
take_away(struct share *s, struct folder *f)
{
	int fd;

	stop_threads(f);
	handles_close(s, UINT32_MAX, f->root);
	pthread_mutex_lock(&s->lock);
	fd = f->fd;
	f->fd = -1;
	pthread_mutex_unlock(&s->lock);
	close(fd);
	while (f->queue) {
		struct share_call *c = f->queue;

		f->queue = c->next;
		atomic_fetch_sub(&f->waiting, 1);
		call_end(c, SHARE_MEDIA_NOT_PRESENT);
		ended_one(s);
	}
	f->queue_tail = &f->queue;
}

int
share_folder_remove(struct share *s, const char *name, struct err *e)
{
	struct folder *f;

	pthread_mutex_lock(&s->lock);
	f = find_folder(s, name);
	if (f && f->fd < 0)
		f = NULL;
	pthread_mutex_unlock(&s->lock);
	if (!f)
		return err_set(e, ERR_NOT_FOUND, "Could not find a shared folder named '%s'", name);
	take_away(s, f);
	return 0;
}

void
share_folder_symlinks(struct share *s, const char *name, bool allowed)
{
	struct folder *f;

	pthread_mutex_lock(&s->lock);
	f = find_folder(s, name);
	if (f)
		f->symlinks = allowed;
	pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

struct share *
share_open(const struct share_options *o, struct err *e)
{
	struct share *s = xcalloc(1, sizeof(*s));
	sigset_t all, old;
	int r;

	s->o = *o;
	s->handle_max = o->max_handles ? o->max_handles : 2048;
	s->handles = xcalloc((size_t)s->handle_max, sizeof(*s->handles));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	pthread_cond_init(&s->start_changed, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->starter, NULL, starter_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r) {
		pthread_setname_np(s->starter, "shares");
		return s;
	}
	err_sys(e, ERR_HOST, r, "cannot start a thread for shared folders");
	free(s->handles);
	free(s);
	return NULL;
}

void
share_close(struct share *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->starter_stop = true;
	pthread_cond_broadcast(&s->start_changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->starter, NULL);
	for (int i = 0; i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i])
			stop_threads(s->folders[i]);
	handles_close(s, UINT32_MAX, UINT32_MAX);
	for (int i = 0; i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i])
			free_folder(s->folders[i]);
	pthread_cond_destroy(&s->start_changed);
	pthread_cond_destroy(&s->idle);
	pthread_mutex_destroy(&s->lock);
	free(s->handles);
	free(s);
}

/* ---- clients ---- */

int
share_connect(struct share *s, const char *name, uint32_t *client)
{
	enum service service = !strcmp(name, "VBoxSharedFolders")		 ? SERVICE_FOLDERS
			       : !strcmp(name, "VBoxGuestPropSvc") && s->o.props ? SERVICE_PROPS
										 : SERVICE_NONE;
	int r = SHARE_NO_MEMORY;

	if (service == SERVICE_NONE)
		return SHARE_SERVICE_NOT_FOUND;
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 1; i < CLIENTS_MAX && r; i++)
		if (s->clients[i].service == SERVICE_NONE) {
			s->clients[i] = (struct client){ .service = service };
			*client = i;
			r = SHARE_OK;
		}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int
share_disconnect(struct share *s, uint32_t client)
{
	bool known;

	pthread_mutex_lock(&s->lock);
	known = client && client < CLIENTS_MAX && s->clients[client].service != SERVICE_NONE;
	if (known)
		s->clients[client] = (struct client){ 0 };
	pthread_mutex_unlock(&s->lock);
	if (!known)
		return SHARE_INVALID_CLIENT;
	handles_close(s, client, UINT32_MAX);
	return SHARE_OK;
}

/* ---- calls ---- */

/* Into the queue of the folder whose number is the first parameter. */
static void
enqueue(struct share *s, struct share_call *c)
{
	struct folder *f = NULL;
	bool here = false;

	pthread_mutex_lock(&s->lock);
	if (c->count && c->parm[0].kind == SHARE_U32 && c->parm[0].value < SHARE_FOLDERS_MAX)
		f = s->folders[c->parm[0].value];
	here = f && f->fd >= 0;
	if (here) {
		s->active++;
		c->next = NULL;
		c->folder = f;
		pthread_mutex_lock(&f->queue_lock);
		*f->queue_tail = c;
		f->queue_tail = &c->next;
		atomic_fetch_add(&f->waiting, 1);
		if (!atomic_load(&f->spinning)) /* a thread that spins looks at the queue before it sleeps */
			pthread_cond_signal(&f->queued);
		pthread_mutex_unlock(&f->queue_lock);
	}
	pthread_mutex_unlock(&s->lock);
	if (!here)
		call_end(c, f ? SHARE_MEDIA_NOT_PRESENT : SHARE_INVALID_PARAMETER);
}

void
share_submit(struct share *s, struct share_call *c)
{
	struct client *cl = c->client && c->client < CLIENTS_MAX ? &s->clients[c->client] : NULL;

	c->share = s;
	c->status = SHARE_OK;
	if (!cl || cl->service == SERVICE_NONE)
		call_end(c, SHARE_INVALID_CLIENT);
	else if (cl->service == SERVICE_PROPS)
		propsvc_call(s, c);
	else if (folders_quick(s, cl, c))
		c->done(c);
	else
		enqueue(s, c);
}

bool
share_cancel(struct share *s, struct share_call *c)
{
	return s->o.props && props_unwait(s->o.props, c);
}

void
share_drain(struct share *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->active)
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void
share_reset(struct share *s)
{
	share_drain(s);
	handles_close(s, UINT32_MAX, UINT32_MAX);
	pthread_mutex_lock(&s->lock);
	memset(s->clients, 0, sizeof(s->clients));
	for (int i = 0; i < SHARE_FOLDERS_MAX; i++)
		if (s->folders[i])
			s->folders[i]->maps = 0;
	pthread_mutex_unlock(&s->lock);
}
