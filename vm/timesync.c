/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's time of day.
 *
 * A guest counts time by the machine's virtual clock, which stands still while the machine is saved, paused or asleep
 * with its host, and which nobody sets. So the host's time of day moves against it, in jumps. Looked at whenever the
 * machine begins to run and every few seconds while it does; after a jump
 *
 *	the RTC moves as far (mc146818_follow(), which also says whether there was one),
 *	the agent is asked to set the guest's clock, and after that what the clock says, until that is right or it has
 *	been tried a few times (the answer to the first tells little: QEMU's agent also fails when the clock is set
 *	and only the program hwclock is missing).
 *
 * A service of VirtualBox's additions needs nothing from here: it compares the VMMDev's time with the guest's by
 * itself, at once when the session's number is another one than before (dev/vmmdev.c).
 *
 * With "host_time": false none of it happens: the guest keeps the time it has, also in the RTC.
 */
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "vm/agent.h"

#define MS 1000000ll
#define LOOK_NS (5000 * MS)
#define SLACK_NS (200 * MS)
#define TRIES 5

struct timesync {
	struct vm *v;
	struct loop_timer timer;
	unsigned tries; /* left; 0: the guest's time is right, or nothing helps */
	bool asking, begun;
	int64_t asked_ns; /* when the guest was asked for its time: the time of day */
};

static int64_t
time_of_day(const struct vm *v)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 * MS + t.tv_nsec + v->c->rtc_offset_ms * MS;
}

static void tell(struct timesync *t);

static void
has_time(void *opaque, json_t *back)
{
	struct timesync *t = opaque;
	json_int_t ns = json_integer_value(back);

	t->asking = false;
	if (!json_is_integer(back))
		return; /* the timer comes again */
	if (ns > t->asked_ns - SLACK_NS && ns < time_of_day(t->v) + SLACK_NS) {
		log_info(t->v->c->name, "the guest's clock is right");
		t->tries = 0;
	} else {
		tell(t);
	}
}

static void
was_told(void *opaque, json_t *back)
{
	struct timesync *t = opaque;

	t->asked_ns = time_of_day(t->v);
	agent_ask(t->v->agent, "guest-get-time", NULL, has_time, t);
}

static void
tell(struct timesync *t)
{
	if (!t->tries || t->asking || !t->v->agent || !agent_is_open(t->v->agent))
		return;
	t->tries--;
	t->asking = true;
	agent_ask(
		t->v->agent, "guest-set-time", json_pack("{s:I}", "time", (json_int_t)time_of_day(t->v)), was_told, t);
}

static void
look(void *opaque)
{
	struct timesync *t = opaque;
	struct vm *v = t->v;
	int64_t moved;

	loop_timer_arm(&t->timer, loop_now() + LOOK_NS);
	if (v->state != VM_RUNNING || !v->c->host_time)
		return;
	if (!t->begun && !v->c->state[0])
		pc_follow_host_time(v->pc, 0); /* it took a moment to begin; the guest has read nothing yet */
	t->begun = true;
	moved = pc_follow_host_time(v->pc, SLACK_NS);
	if (moved) {
		log_info(v->c->name, "the guest's time was %.1f s behind the host's: the RTC is set",
			(double)moved / 1e9);
		t->tries = TRIES;
	}
	tell(t);
}

void
vm_timesync_check(struct vm *v)
{
	if (v->timesync)
		look(v->timesync);
}

void
vm_timesync_start(struct vm *v)
{
	struct timesync *t = xcalloc(1, sizeof(*t));

	t->v = v;
	loop_timer_init(&t->timer, v->m->loop, look, t);
	v->timesync = t;
}

void
vm_timesync_stop(struct vm *v)
{
	if (!v->timesync)
		return;
	loop_timer_cancel(&v->timesync->timer);
	free(v->timesync);
	v->timesync = NULL;
}
