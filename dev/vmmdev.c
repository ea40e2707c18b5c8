/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VirtualBox's guest device, 80ee:cafe, as the drivers in stock Linux kernels (vboxguest, vboxsf) know it.
 *
 * BAR 0 has one port of 32 bits: writing the physical address of a request there carries it out, and when the write is
 * over its status is in memory. BAR 1 is a page with {u32 size, u32 version, u8 have_events}. INTA# is raised while an
 * event is pending that the guest wants to hear of.
 *
 *	request     0 u32 size, 4 u32 version 0x10001, 8 u32 type, 12 i32 status (out), 16 u32 0, 20 u32 requestor, then
 *	            what the type says: see the table `requests`
 *	HGCM        24 u32 flags (1 done, 2 cancelled), 28 i32 result, then
 *	  connect       32 u32 where: 1 or 2, 36 char name[128], 164 u32 client (out)
 *	  disconnect    32 u32 client
 *	  call          32 u32 client, 36 u32 function, 40 u32 parameters, then each
 *	                {u32 type, value}: 16 bytes in a call of type 64, 12 in one of type 32
 *	  page list     {u32 flags (1 to host, 2 from host), u16 offset in the first page, u16 pages, u64 pages[]}, at
 *	                an offset from the beginning of the request
 *
 * A request is copied, checked and then looked at; so are the buffers of calls, and only what was copied is used: the
 * guest may change its memory meanwhile. Buffers in flight have a limit.
 *
 * ---- Calls ----
 * A call goes to share/, which ends it on some thread. The CPU that made it waits for a moment, without the machine
 * lock: most calls (look-ups, opening, reading what the host has cached) are over within microseconds, and then the
 * guest goes on without an interrupt, as after any other request. Otherwise its status says "in progress" and it is
 * completed on the loop, with the event HGCM.
 *
 *	PENDING  --- the worker is done ----> DONE      the CPU completes it
 *	PENDING  --- not over at once ------> ASLEEP    the CPU sleeps, so that the worker has a processor to run on
 *	ASLEEP   --- the worker is done ----> DONE      it wakes the CPU, which completes it
 *	.., ASLEEP - the CPU gives up ------> ASYNC --- the worker is done ---> DONE, on `ended`: the loop completes it
 *
 * A CPU is inside its port access all that time, so the machine can neither be reset nor stopped. A call that the guest
 * cancels is forgotten: nothing is written to its memory any more.
 *
 * Saving: nothing is in flight but calls that wait for a change (guest properties); their addresses are in `waiting`,
 * and they are made again after loading. What guests have open is share/'s, as bytes in `shared`.
 */
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"
#include "share/share.h"

#define REQUEST_MAX (1u << 20)
#define REQUEST_VERSION 0x10001u
#define HEAD 24
#define HGCM_HEAD 32
#define CALL_HEAD 44
#define CALLS_MAX 128
#define CALL_BYTES_MAX (64u << 20)
#define WAITING_MAX 64
#define SPIN_NS 20000
#define SLEEP_NS 1000000
#define IN_PROGRESS 2903 /* VINF_HGCM_ASYNC_EXECUTE */
#define OS_LINUX 0x53000u
#define BALLOON_PAGES 256 /* a MiB at a time */

/* Events. */
enum {
	EVENT_HGCM = 2,
	EVENT_DISPLAY = 4,
	EVENT_RESTORED = 16,
	EVENT_BALLOON = 64,
	EVENT_POINTER = 512,
	EVENTS = 0x7ff
};

/* What the two sides can do about the pointer: bits of the features in a mouse status request. */
enum {
	GUEST_TAKES_PLACES = 1,
	HOST_HAS_PLACES = 2,
	GUEST_NEEDS_HOST_CURSOR = 4,
	HOST_DRAWS_NO_CURSOR = 8,
	GUEST_TELLS_EVENTS_APART = 16
};
#define GUEST_MOUSE_BITS (GUEST_TAKES_PLACES | GUEST_NEEDS_HOST_CURSOR | GUEST_TELLS_EVENTS_APART)

enum { CALL_PENDING, CALL_ASLEEP, CALL_ASYNC, CALL_DONE };

struct call {
	struct share_call c;
	struct vmmdev *d;
	gpa_t at;
	uint8_t *request; /* a copy */
	uint32_t size;
	uint64_t bytes;
	uint32_t lists[SHARE_PARMS_MAX]; /* page list of each buffer, an offset in the request */
	atomic_int state;
	bool cancelled;
	struct call *next, *next_ended;
};

#define FACILITIES 8
struct vmmdev {
	struct pci_dev pci;
	struct share *share;
	struct props *props;
	uint64_t ram, vram;
	bool spins;

	uint32_t events, mask, caps, mouse;
	uint32_t pointer_x, pointer_y; /* 0 to 0xffff, over the screen */
	uint32_t guest_version, guest_revision, guest_os,
		guest_interface; /* version: major << 24 | minor << 16 | build */
	uint32_t facility[FACILITIES], facility_status[FACILITIES];
	uint32_t stats[19];
	uint64_t session;
	bool no_time;
	int64_t time_offset_ms;
	uint64_t last_beat; /* virtual time, 0: no heartbeat was asked for */
	uint8_t beating;
	uint32_t hint_width, hint_height, hint_bpp, hint_display; /* the display that somebody wants */
	uint32_t balloon_wanted, balloon;			  /* MiB */
	uint32_t waiting[WAITING_MAX];
	uint8_t shared[SHARE_SAVED_SIZE];

	/* not saved */
	struct call *calls;
	int call_count;
	uint64_t call_bytes;
	pthread_mutex_t ended_lock;
	struct call *ended;
	uint64_t log_window;
	unsigned log_lines;
};

static const struct field vmmdev_fields[] = {
	FIELD(struct vmmdev, events),
	FIELD(struct vmmdev, mask),
	FIELD(struct vmmdev, caps),
	FIELD(struct vmmdev, mouse),
	FIELD(struct vmmdev, pointer_x),
	FIELD(struct vmmdev, pointer_y),
	FIELD(struct vmmdev, guest_version),
	FIELD(struct vmmdev, guest_revision),
	FIELD(struct vmmdev, guest_os),
	FIELD(struct vmmdev, guest_interface),
	FIELD_ARRAY(struct vmmdev, facility),
	FIELD_ARRAY(struct vmmdev, facility_status),
	FIELD_ARRAY(struct vmmdev, stats),
	FIELD(struct vmmdev, session),
	FIELD(struct vmmdev, last_beat),
	FIELD(struct vmmdev, beating),
	FIELD(struct vmmdev, hint_width),
	FIELD(struct vmmdev, hint_height),
	FIELD(struct vmmdev, hint_bpp),
	FIELD(struct vmmdev, hint_display),
	FIELD(struct vmmdev, balloon_wanted),
	FIELD(struct vmmdev, balloon),
	FIELD_ARRAY(struct vmmdev, waiting),
	FIELD_ARRAY(struct vmmdev, shared),
	FIELD_END,
};

static struct mem *
mem_of(struct vmmdev *d)
{
	return &d->pci.dev.m->mem;
}

/* ---- events ---- */

/*
 * What the guest is told of. Drivers of every system act on a wish for another balloon when they hear of it, but only
 * VirtualBox's service, which stock kernels come without, has them ask to be told.
 */
static uint32_t
heard(const struct vmmdev *d)
{
	return d->mask & EVENT_HGCM ? d->mask | EVENT_BALLOON : d->mask;
}

static void
update_irq(struct vmmdev *d)
{
	pci_irq(&d->pci, (d->events & heard(d)) != 0);
}

static void
raise_event(struct vmmdev *d, uint32_t event)
{
	d->events |= event;
	update_irq(d);
}

/* ---- calls: parameters ---- */

/* The address of byte `done` of a page list, and how many bytes are left in that page. */
static gpa_t
page_at(const struct call *k, int i, uint32_t done, uint32_t *left)
{
	const uint8_t *list = k->request + k->lists[i];
	uint32_t off = le16(list + 4) + done;

	*left = PAGE_SIZE - (off & PAGE_MASK);
	return (le64(list + 8 + 8 * (uint64_t)(off >> PAGE_SHIFT)) & ~(uint64_t)PAGE_MASK) + (off & PAGE_MASK);
}

/* Between a buffer and the guest's pages. */
static bool
copy_pages(struct call *k, int i, bool to_guest)
{
	struct share_parm *p = &k->c.parm[i];
	struct mem *mem = mem_of(k->d);

	for (uint32_t done = 0; done < p->size;) {
		uint32_t left;
		gpa_t gpa = page_at(k, i, done, &left);
		uint32_t n = MIN(left, p->size - done);

		if (to_guest ? !mem_write(mem, gpa, p->data + done, n) : !mem_read(mem, gpa, p->data + done, n))
			return false;
		done += n;
	}
	return true;
}

static int
add_buffer(struct call *k, int i, uint32_t size, uint32_t list)
{
	struct share_parm *p = &k->c.parm[i];
	const uint8_t *l = k->request + list;
	uint32_t pages;

	p->kind = SHARE_BUF;
	if (!size)
		return SHARE_OK;
	if (list < CALL_HEAD || k->size < 8 || list > k->size - 8)
		return SHARE_INVALID_PARAMETER;
	pages = le16(l + 6);
	if (!pages || pages > (k->size - list - 8) / 8 || le16(l + 4) >= PAGE_SIZE ||
		size > pages * PAGE_SIZE - le16(l + 4) || !(le32(l) & 3))
		return SHARE_INVALID_PARAMETER;
	if (size > CALL_BYTES_MAX - k->d->call_bytes - k->bytes)
		return SHARE_NO_MEMORY;
	p->data = calloc(1, size); /* what nobody fills is zero */
	if (!p->data)
		return SHARE_NO_MEMORY;
	p->size = size;
	k->bytes += size;
	k->lists[i] = list;
	return le32(l) & 1 && !copy_pages(k, i, false) ? SHARE_INVALID_PARAMETER : SHARE_OK;
}

enum { PARM_32 = 1, PARM_64 = 2, PARM_LINEAR_FIRST = 4, PARM_LINEAR_LAST = 9, PARM_PAGES = 10 };

static uint32_t
parm_size(const struct call *k)
{
	return le32(k->request + 8) == 63 ? 16 : 12;
}

static int
add_parm(struct call *k, int i)
{
	const uint8_t *p = k->request + CALL_HEAD + (uint32_t)i * parm_size(k);
	uint32_t type = le32(p);

	if (type == PARM_32)
		k->c.parm[i] = (struct share_parm){ .kind = SHARE_U32, .value = le32(p + 4) };
	else if (type == PARM_64)
		k->c.parm[i] = (struct share_parm){ .kind = SHARE_U64, .value = le64(p + 4) };
	else if (type == PARM_PAGES)
		return add_buffer(k, i, le32(p + 4), le32(p + 8));
	else if (type >= PARM_LINEAR_FIRST && type <= PARM_LINEAR_LAST && !le32(p + 4))
		k->c.parm[i].kind = SHARE_BUF; /* an empty one; drivers give all others as pages */
	else
		return SHARE_INVALID_PARAMETER;
	return SHARE_OK;
}

static int
add_parms(struct call *k)
{
	uint32_t count;
	int r = SHARE_OK;

	if (k->size < CALL_HEAD)
		return SHARE_INVALID_PARAMETER;
	count = le32(k->request + 40);
	if (count > SHARE_PARMS_MAX || count > (k->size - CALL_HEAD) / parm_size(k))
		return SHARE_INVALID_PARAMETER;
	k->c.client = le32(k->request + 32);
	k->c.function = le32(k->request + 36);
	k->c.count = (int)count;
	for (int i = 0; i < (int)count && !r; i++)
		r = add_parm(k, i);
	return r;
}

/* What came out of it, into the guest's request and pages. */
static void
put_parms(struct call *k)
{
	for (int i = 0; i < k->c.count; i++) {
		struct share_parm *p = &k->c.parm[i];
		gpa_t at = k->at + CALL_HEAD + (uint32_t)i * parm_size(k) + 4;
		uint8_t value[8];

		put_le64(value, p->value);
		if (p->kind == SHARE_U32)
			mem_write(mem_of(k->d), at, value, 4);
		else if (p->kind == SHARE_U64)
			mem_write(mem_of(k->d), at, value, 8);
		else if (p->size && le32(k->request + k->lists[i]) & 2)
			copy_pages(k, i, true);
	}
}

/* ---- calls: life ---- */

static void
free_call(struct call *k)
{
	for (int i = 0; i < k->c.count; i++)
		free(k->c.parm[i].data);
	free(k->request);
	free(k);
}

static void
unlink_call(struct call *k)
{
	struct call **at = &k->d->calls;

	while (*at && *at != k)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = k->next;
	k->d->call_count--;
	k->d->call_bytes -= k->bytes;
}

/* An HGCM request is over: status, result and the flag that says so. */
static void
put_result(struct vmmdev *d, gpa_t at, int status, int result)
{
	uint8_t b[8];

	put_le32(b, 1);
	put_le32(b + 4, (uint32_t)result);
	mem_write(mem_of(d), at + HEAD, b, 8);
	put_le32(b, (uint32_t)status);
	mem_write(mem_of(d), at + 12, b, 4);
}

static void
complete(struct call *k)
{
	unlink_call(k);
	if (!k->cancelled) {
		put_parms(k);
		put_result(k->d, k->at, SHARE_OK, k->c.status);
	}
	free_call(k);
}

/* On the loop: those that took longer. */
static void
complete_ended(void *opaque)
{
	struct vmmdev *d = opaque;
	struct call *k;

	for (;;) {
		pthread_mutex_lock(&d->ended_lock);
		k = d->ended;
		if (k)
			d->ended = k->next_ended;
		pthread_mutex_unlock(&d->ended_lock);
		if (!k)
			return;
		complete(k);
		raise_event(d, EVENT_HGCM);
	}
}

/* Any thread. */
static void
call_ended(struct share_call *c)
{
	struct call *k = container_of(c, struct call, c);
	struct vmmdev *d = k->d;

	int was = atomic_exchange(&k->state, CALL_DONE);

	if (was == CALL_ASLEEP) /* the call may be gone by now: nobody else's sleep is harmed by the wake-up */
		syscall(SYS_futex, &k->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	if (was != CALL_ASYNC)
		return;
	pthread_mutex_lock(&d->ended_lock);
	k->next_ended = d->ended;
	d->ended = k;
	pthread_mutex_unlock(&d->ended_lock);
	loop_post(d->pci.dev.m->loop, complete_ended, d);
}

static void
sleep_a_moment(struct call *k)
{
	struct timespec t = { .tv_nsec = SLEEP_NS };
	int pending = CALL_PENDING;

	if (atomic_compare_exchange_strong(&k->state, &pending, CALL_ASLEEP))
		syscall(SYS_futex, &k->state, FUTEX_WAIT_PRIVATE, CALL_ASLEEP, &t, NULL, 0);
}

/* Without the machine lock: is it over soon? */
static void
wait_a_moment(struct call *k)
{
	struct machine *m = k->d->pci.dev.m;
	uint64_t end;

	machine_unlock(m);
	end = loop_now() + SPIN_NS;
	while (atomic_load_explicit(&k->state, memory_order_acquire) != CALL_DONE && loop_now() < end)
		for (int i = 0; i < 16; i++)
			__builtin_ia32_pause();
	sleep_a_moment(k);
	machine_lock(m);
}

/* A request that is a call, copied: takes `request` over. Returns its status for the header. */
static int
make_call(struct vmmdev *d, gpa_t at, uint8_t *request, uint32_t size, bool spin)
{
	struct call *k = xcalloc(1, sizeof(*k));
	int r;

	k->d = d;
	k->at = at;
	k->request = request;
	k->size = size;
	r = d->call_count < CALLS_MAX ? add_parms(k) : SHARE_RESOURCE_BUSY;
	if (r) {
		free_call(k);
		put_result(d, at, r, r);
		return r;
	}
	k->next = d->calls;
	d->calls = k;
	d->call_count++;
	d->call_bytes += k->bytes;
	k->c.done = call_ended;
	share_submit(d->share, &k->c);
	if (spin && d->spins && atomic_load(&k->state) == CALL_PENDING && k->c.folder)
		wait_a_moment(k);
	for (int s = atomic_load(&k->state); s != CALL_DONE;)
		if (atomic_compare_exchange_weak(&k->state, &s, CALL_ASYNC))
			return IN_PROGRESS;
	complete(k);
	return SHARE_OK;
}

/* The guest does not wait for it any more. */
static int
cancel(struct vmmdev *d, gpa_t at)
{
	for (struct call *k = d->calls; k; k = k->next) {
		if (k->at != at || k->cancelled)
			continue;
		k->cancelled = true;
		if (share_cancel(d->share, &k->c)) {
			unlink_call(k);
			free_call(k);
		}
		return SHARE_OK;
	}
	return SHARE_NOT_FOUND;
}

/* Nothing is carried out any more; calls that wait stay. */
static void
settle(struct vmmdev *d)
{
	share_drain(d->share);
	complete_ended(d);
}

/* Forget what waits, too. */
static void
drop_calls(struct vmmdev *d)
{
	struct call *k, *next;

	share_drain(d->share);
	for (k = d->calls; k; k = next) {
		next = k->next;
		k->cancelled = true;
		if (share_cancel(d->share, &k->c)) {
			unlink_call(k);
			free_call(k);
		}
	}
	complete_ended(d);
}

/* ---- requests: each may change its copy, which is written back, and returns its status ---- */

static int
mouse_status(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 8) == 2) {
		d->mouse = le32(r + 24);
		return SHARE_OK;
	}
	put_le32(r + 24, (d->mouse & GUEST_MOUSE_BITS) | HOST_HAS_PLACES | HOST_DRAWS_NO_CURSOR);
	put_le32(r + 28, d->pointer_x);
	put_le32(r + 32, d->pointer_y);
	return SHARE_OK;
}

static int
host_version(struct vmmdev *d, uint8_t *r)
{
	put_le16(r + 24, 7);
	put_le16(r + 26, 0);
	put_le32(r + 28, 10);
	put_le32(r + 32, 158379);
	put_le32(r + 36, 1); /* page lists */
	return SHARE_OK;
}

static int
host_time(struct vmmdev *d, uint8_t *r)
{
	struct timespec t;

	if (d->no_time)
		return SHARE_NOT_SUPPORTED;
	clock_gettime(CLOCK_REALTIME, &t);
	put_le64(r + 24, (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + (uint64_t)d->time_offset_ms);
	return SHARE_OK;
}

/* Memory that a hypervisor of old wanted for itself: none. */
static int
hypervisor_info(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 8) == 20) {
		put_le32(r + 24, 0);
		put_le32(r + 28, 0);
		return SHARE_OK;
	}
	return le32(r + 28) ? SHARE_INVALID_PARAMETER : SHARE_OK;
}

static int
power_status(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 24) != 2)
		return SHARE_NOT_SUPPORTED; /* pausing and saving itself */
	log_info(d->pci.dev.m->name, "the guest's driver switches the machine off");
	machine_event(d->pci.dev.m, MACHINE_POWEROFF, 0);
	return SHARE_OK;
}

static int
acknowledge(struct vmmdev *d, uint8_t *r)
{
	uint32_t pending = d->events & heard(d);

	put_le32(r + 24, pending);
	d->events &= ~pending;
	update_irq(d);
	return SHARE_OK;
}

static int
filter_mask(struct vmmdev *d, uint8_t *r)
{
	d->mask = ((d->mask & ~le32(r + 28)) | le32(r + 24)) & EVENTS;
	update_irq(d);
	return SHARE_OK;
}

static void
set_property(struct vmmdev *d, const char *name, const char *value)
{
	if (d->props)
		props_set(d->props, PROP_BY_HOST, name, value, NULL);
}

/* What a service in the guest would tell; a driver knows this much. */
static void
tell_properties(struct vmmdev *d)
{
	char text[32];

	snprintf(text, sizeof(text), "%u.%u.%u", d->guest_version >> 24, d->guest_version >> 16 & 0xff,
		d->guest_version & 0xffff);
	set_property(d, "/VirtualBox/GuestAdd/Version", text);
	set_property(d, "/VirtualBox/GuestAdd/VersionExt", text);
	snprintf(text, sizeof(text), "%u", d->guest_revision);
	set_property(d, "/VirtualBox/GuestAdd/Revision", text);
	if ((d->guest_os & 0xff000) == (OS_LINUX & 0xff000))
		set_property(d, "/VirtualBox/GuestInfo/OS/Product", "Linux");
}

static int
guest_info(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 24) >> 16 != 1)
		return SHARE_INVALID_PARAMETER - 9; /* VERR_VERSION_MISMATCH */
	d->guest_interface = le32(r + 24);
	d->guest_os = le32(r + 28);
	log_info(d->pci.dev.m->name, "the guest's driver speaks version %#x, its system is of type %#x",
		d->guest_interface, d->guest_os);
	if (d->guest_version)
		tell_properties(d);
	return SHARE_OK;
}

static int
guest_info2(struct vmmdev *d, uint8_t *r)
{
	d->guest_version =
		(uint32_t)(le16(r + 24) & 0xff) << 24 | (uint32_t)(le16(r + 26) & 0xff) << 16 | (le32(r + 28) & 0xffff);
	d->guest_revision = le32(r + 32);
	if (d->guest_os)
		tell_properties(d);
	return SHARE_OK;
}

static int
guest_status(struct vmmdev *d, uint8_t *r)
{
	uint32_t facility = le32(r + 24);

	for (int i = 0; i < FACILITIES; i++)
		if (!d->facility[i] || d->facility[i] == facility) {
			d->facility[i] = facility;
			d->facility_status[i] = le32(r + 28);
			break;
		}
	return SHARE_OK;
}

static int
capabilities(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 8) == 55)
		d->caps = le32(r + 24) | 4;
	else
		d->caps = (d->caps | le32(r + 24)) & ~le32(r + 28);
	return SHARE_OK;
}

/* 51 has no display, 54 has one, 80 also its place. */
static int
display_change(struct vmmdev *d, uint8_t *r)
{
	uint32_t type = le32(r + 8);

	put_le32(r + 24, d->hint_width);
	put_le32(r + 28, d->hint_height);
	put_le32(r + 32, d->hint_bpp);
	if (type >= 54)
		put_le32(r + 40, d->hint_display);
	if (type == 80) {
		put_le32(r + 44, 0);
		put_le32(r + 48, 0);
		r[52] = 1; /* enabled */
		r[53] = 0; /* its place stays */
	}
	return SHARE_OK;
}

static int
mode_supported(struct vmmdev *d, uint8_t *r)
{
	uint8_t *p = r + (le32(r + 8) == 57 ? 28 : 24);
	uint64_t width = le32(p), height = le32(p + 4), bpp = le32(p + 8);
	bool fits = width <= 16384 && height <= 16384 && (bpp == 16 || bpp == 24 || bpp == 32) &&
		    width * height * bpp / 8 <= d->vram;

	put_le32(p + 12, fits);
	return SHARE_OK;
}

/* Nothing of that kind is wanted: zeroes behind the header. */
static int
nothing(struct vmmdev *d, uint8_t *r)
{
	memset(r + HEAD, 0, MIN(le32(r), 36u) - HEAD);
	return SHARE_OK;
}

static int
taken(struct vmmdev *d, uint8_t *r)
{
	return SHARE_OK;
}

static int
no_credentials(struct vmmdev *d, uint8_t *r)
{
	put_le32(r + 24, 0);
	return SHARE_NOT_FOUND;
}

static int
statistics(struct vmmdev *d, uint8_t *r)
{
	for (int i = 0; i < (int)ARRAY_LEN(d->stats); i++)
		d->stats[i] = le32(r + 24 + 4 * i);
	return SHARE_OK;
}

static int
balloon_wanted(struct vmmdev *d, uint8_t *r)
{
	put_le32(r + 24, d->balloon_wanted);
	put_le32(r + 28, (uint32_t)(d->ram >> 20));
	return SHARE_OK;
}

/* The guest gives a MiB up, or takes one back, which reads as zeroes. */
static int
balloon_change(struct vmmdev *d, uint8_t *r)
{
	bool inflate = le32(r + 28);

	if (le32(r + 24) != BALLOON_PAGES || (inflate && d->balloon >= d->balloon_wanted) || (!inflate && !d->balloon))
		return SHARE_INVALID_PARAMETER;
	for (int i = 0; i < BALLOON_PAGES && inflate; i++) {
		gpa_t page = le64(r + 32 + 8 * i) & ~(uint64_t)PAGE_MASK;
		void *host = mem_map(mem_of(d), page, PAGE_SIZE, true);

		if (!host)
			return SHARE_INVALID_PARAMETER;
		mem_discard(mem_of(d), host, PAGE_SIZE);
		mem_written(mem_of(d), page, PAGE_SIZE);
	}
	d->balloon = inflate ? d->balloon + 1 : d->balloon - 1;
	return SHARE_OK;
}

/* At most 20 lines in 10 s. */
static int
log_string(struct vmmdev *d, uint8_t *r)
{
	uint64_t window = clock_now(&d->pci.dev.m->clock) / 10000000000u;
	uint32_t n = MIN(le32(r) - HEAD, 256u);
	char text[257];

	if (window != d->log_window)
		d->log_lines = 0;
	d->log_window = window;
	if (d->log_lines++ >= 20)
		return SHARE_OK;
	for (uint32_t i = 0; i < n; i++)
		text[i] = r[HEAD + i] >= 0x20 && r[HEAD + i] < 0x7f ? (char)r[HEAD + i] : r[HEAD + i] ? ' ' : 0;
	text[n] = 0;
	log_info(d->pci.dev.m->name, "the guest says: %s", text);
	return SHARE_OK;
}

static int
session_id(struct vmmdev *d, uint8_t *r)
{
	put_le64(r + 24, d->session);
	return SHARE_OK;
}

static int
heartbeat(struct vmmdev *d, uint8_t *r)
{
	if (le32(r + 8) == 220) {
		d->beating = r[32] != 0;
		put_le64(r + 24, 2000000000u);
	}
	d->last_beat = d->beating ? clock_now(&d->pci.dev.m->clock) : 0;
	return SHARE_OK;
}

static int
hgcm_connect(struct vmmdev *d, uint8_t *r)
{
	uint32_t where = le32(r + 32), client = 0;
	int s = SHARE_INVALID_PARAMETER;

	if ((where == 1 || where == 2) && memchr(r + 36, 0, 128))
		s = share_connect(d->share, (const char *)r + 36, &client);
	put_le32(r + 164, client);
	put_le32(r + 24, 1);
	put_le32(r + 28, (uint32_t)s);
	return s;
}

static int
hgcm_disconnect(struct vmmdev *d, uint8_t *r)
{
	struct call *next;
	int s;

	for (struct call *k = d->calls; k; k = next) {
		next = k->next;
		if (k->c.client == le32(r + 32) && share_cancel(d->share, &k->c)) {
			unlink_call(k);
			free_call(k);
		}
	}
	s = share_disconnect(d->share, le32(r + 32));
	put_le32(r + 24, 1);
	put_le32(r + 28, (uint32_t)s);
	return s;
}

static int
hgcm_cancel2(struct vmmdev *d, uint8_t *r)
{
	return cancel(d, le32(r + 24));
}

static const struct {
	uint32_t type, size; /* size: the least it has */
	int (*serve)(struct vmmdev *d, uint8_t *r);
} requests[] = {
	{ 1, 36, mouse_status },
	{ 2, 36, mouse_status },
	{ 4, 40, host_version },
	{ 5, 24, taken }, /* idle */
	{ 10, 32, host_time },
	{ 20, 32, hypervisor_info },
	{ 21, 32, hypervisor_info },
	{ 30, 28, power_status },
	{ 41, 28, acknowledge },
	{ 42, 32, filter_mask },
	{ 50, 32, guest_info },
	{ 51, 40, display_change },
	{ 52, 40, mode_supported },
	{ 53, 28, nothing }, /* height reduction */
	{ 54, 44, display_change },
	{ 55, 28, capabilities },
	{ 56, 32, capabilities },
	{ 57, 44, mode_supported },
	{ 58, 168, guest_info2 },
	{ 59, 36, guest_status },
	{ 60, 168, hgcm_connect },
	{ 61, 36, hgcm_disconnect },
	{ 65, 28, hgcm_cancel2 },
	{ 73, 32, nothing }, /* seamless mode */
	{ 80, 56, display_change },
	{ 100, 28, no_credentials },
	{ 110, 100, statistics },
	{ 111, 36, balloon_wanted },
	{ 112, 32, nothing }, /* an interval of statistics */
	{ 113, 32 + 8 * BALLOON_PAGES, balloon_change },
	{ 150, 32, nothing }, /* remote desktop */
	{ 200, 25, log_string },
	{ 210, 36, nothing }, /* CPUs that come and go */
	{ 215, 28, nothing }, /* page sharing */
	{ 217, 32, session_id },
	{ 219, 24, heartbeat },
	{ 220, 36, heartbeat },
};

static int
serve(struct vmmdev *d, uint8_t *r, uint32_t size)
{
	uint32_t type = le32(r + 8);

	for (size_t i = 0; i < ARRAY_LEN(requests); i++)
		if (requests[i].type == type)
			return size < requests[i].size ? SHARE_INVALID_PARAMETER : requests[i].serve(d, r);
	return SHARE_NOT_IMPLEMENTED;
}

/* ---- the port ---- */

/* The request at `at`, copied; NULL when there is none. */
static uint8_t *
fetch(struct vmmdev *d, gpa_t at, uint32_t *size)
{
	uint8_t head[HEAD], *r;

	if (!mem_read(mem_of(d), at, head, HEAD))
		return NULL;
	*size = le32(head);
	if (*size < HEAD || *size > REQUEST_MAX || le32(head + 4) != REQUEST_VERSION)
		return NULL;
	r = malloc(*size);
	if (!r || !mem_read(mem_of(d), at, r, *size)) {
		free(r);
		return NULL;
	}
	memcpy(r, head, HEAD); /* it may have changed meanwhile */
	return r;
}

static void
put_status(struct vmmdev *d, gpa_t at, int status)
{
	uint8_t b[4];

	put_le32(b, (uint32_t)status);
	mem_write(mem_of(d), at + 12, b, 4);
}

static void
request(struct vmmdev *d, gpa_t at)
{
	uint32_t size, type;
	uint8_t *r = fetch(d, at, &size);

	if (!r) {
		log_guest(d->pci.dev.m->name, "vmmdev: there is no request at %#llx", (unsigned long long)at);
		put_status(d, at, SHARE_INVALID_PARAMETER);
		return;
	}
	type = le32(r + 8);
	if (type == 62 || type == 63) {
		int status = make_call(d, at, r, size, true);

		if (status == IN_PROGRESS)
			put_status(d, at, status);
		return;
	}
	if (type == 64) {
		put_status(d, at, cancel(d, at));
	} else {
		put_le32(r + 12, (uint32_t)serve(d, r, size));
		mem_write(mem_of(d), at, r, MIN(size, 256u)); /* nothing is answered behind that */
	}
	free(r);
}

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	return UINT32_MAX;
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	if (off == 0 && size == 4)
		request(opaque, (gpa_t)value);
}

static const struct bus_ops port_ops = { port_read, port_write, 4, 4 };

static uint64_t
page_read(void *opaque, uint64_t off, unsigned size)
{
	struct vmmdev *d = opaque;

	if (off == 0)
		return PAGE_SIZE;
	if (off == 4)
		return 1;
	return off == 8 ? (d->events & heard(d)) != 0 : 0;
}

static void
page_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
}

static const struct bus_ops page_ops = { page_read, page_write, 4, 4 };

/* ---- the host's side ---- */

void
vmmdev_display_hint(struct vmmdev *d, unsigned display, unsigned width, unsigned height, unsigned bpp)
{
	d->hint_display = display;
	d->hint_width = width;
	d->hint_height = height;
	d->hint_bpp = bpp;
	raise_event(d, EVENT_DISPLAY);
}

bool
vmmdev_place_pointer(struct vmmdev *d, unsigned x, unsigned y)
{
	if (!(d->mouse & GUEST_TAKES_PLACES))
		return false;
	if (x != d->pointer_x || y != d->pointer_y) {
		d->pointer_x = x;
		d->pointer_y = y;
		raise_event(d, EVENT_POINTER);
	}
	return true;
}

int
vmmdev_balloon(struct vmmdev *d, uint64_t mib, struct err *e)
{
	if (mib >= d->ram >> 20)
		return err_set(e, ERR_INVALID,
			"A balloon of %llu MiB does not fit into a machine with %llu MiB of memory",
			(unsigned long long)mib, (unsigned long long)(d->ram >> 20));
	d->balloon_wanted = (uint32_t)mib;
	raise_event(d, EVENT_BALLOON);
	return 0;
}

static uint32_t
facility_status(const struct vmmdev *d, uint32_t facility)
{
	for (int i = 0; i < FACILITIES; i++)
		if (d->facility[i] == facility)
			return d->facility_status[i];
	return 0;
}

void
vmmdev_guest(struct vmmdev *d, struct vmmdev_guest *out)
{
	*out = (struct vmmdev_guest){
		.major = d->guest_version >> 24,
		.minor = d->guest_version >> 16 & 0xff,
		.build = d->guest_version & 0xffff,
		.revision = d->guest_revision,
		.os_type = d->guest_os,
		.caps = d->caps,
		.driver_status = facility_status(d, 20),
		.service_status = facility_status(d, 100),
		.balloon_mib = d->balloon,
	};
	if (d->beating)
		out->silent_ns = MAX(clock_now(&d->pci.dev.m->clock) - d->last_beat, UINT64_C(1));
}

/* ---- life ---- */

static void
vmmdev_reset(struct device *dev)
{
	struct vmmdev *d = (struct vmmdev *)dev;
	struct uuid u = uuid_random();

	drop_calls(d);
	share_reset(d->share);
	if (d->props)
		props_reset(d->props);
	pci_reset(&d->pci);
	d->events = d->mask = d->caps = d->mouse = d->pointer_x = d->pointer_y = 0;
	d->guest_version = d->guest_revision = d->guest_os = d->guest_interface = 0;
	memset(d->facility, 0, sizeof(d->facility));
	memset(d->facility_status, 0, sizeof(d->facility_status));
	memset(d->stats, 0, sizeof(d->stats));
	memset(d->waiting, 0, sizeof(d->waiting));
	d->last_beat = d->beating = 0;
	d->hint_width = d->hint_height = d->hint_bpp = d->hint_display = 0;
	d->balloon = 0;
	d->session = le64(u.b);
	update_irq(d);
}

static void
vmmdev_drain(struct device *dev)
{
	struct vmmdev *d = (struct vmmdev *)dev;
	int n = 0;

	settle(d);
	memset(d->waiting, 0, sizeof(d->waiting));
	for (struct call *k = d->calls; k && n < WAITING_MAX; k = k->next)
		if (!k->cancelled)
			d->waiting[n++] = (uint32_t)k->at;
	share_save(d->share, d->shared);
}

/* On the loop, when the machine's memory is there: the calls that waited are made again. */
static void
call_again(void *opaque)
{
	struct vmmdev *d = opaque;

	for (int i = 0; i < WAITING_MAX; i++) {
		uint32_t at = d->waiting[i], size;
		uint8_t *r = at ? fetch(d, at, &size) : NULL;

		d->waiting[i] = 0;
		if (!r)
			continue;
		if (le32(r + 8) != 62 && le32(r + 8) != 63)
			free(r);
		else if (make_call(d, at, r, size, false) != IN_PROGRESS)
			raise_event(d, EVENT_HGCM);
	}
}

static void
vmmdev_loaded(struct device *dev)
{
	struct vmmdev *d = (struct vmmdev *)dev;
	struct uuid u = uuid_random();

	drop_calls(d);
	share_load(d->share, d->shared);
	d->session = le64(u.b); /* services in the guest notice by it */
	d->events |= EVENT_RESTORED;
	loop_post(dev->m->loop, call_again, d);
	update_irq(d);
}

static void
vmmdev_destroy(struct device *dev)
{
	struct vmmdev *d = (struct vmmdev *)dev;

	drop_calls(d);
	share_reset(d->share);
	pci_remove(dev->m, &d->pci);
	pthread_mutex_destroy(&d->ended_lock);
	free(d);
}

static const struct dev_class vmmdev_class = {
	.name = "vmmdev",
	.fields = vmmdev_fields,
	.reset = vmmdev_reset,
	.loaded = vmmdev_loaded,
	.destroy = vmmdev_destroy,
	.drain = vmmdev_drain,
};

struct vmmdev *
vmmdev_create(struct machine *m, int slot, const struct vmmdev_wires *w, struct err *e)
{
	struct vmmdev *d = xcalloc(1, sizeof(*d));
	struct pci_dev *p = &d->pci;

	d->share = w->share;
	d->props = w->props;
	d->ram = w->ram;
	d->vram = w->vram;
	d->no_time = w->no_time;
	d->time_offset_ms = w->time_offset_ms;
	d->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	pthread_mutex_init(&d->ended_lock, NULL);
	p->vendor = 0x80ee;
	p->device = 0xcafe;
	p->class = 0x088000;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 32, .ops = &port_ops, .opaque = d };
	p->bars[1] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = PAGE_SIZE, .ops = &page_ops, .opaque = d };
	if (pci_add(m, p, &vmmdev_class, slot, 0)) {
		free(d);
		err_set(e, ERR_IN_USE, "PCI slot %d for the guest device is taken", slot);
		return NULL;
	}
	vmmdev_reset(&p->dev);
	return d;
}
