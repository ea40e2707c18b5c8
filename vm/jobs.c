/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work for the owner's thread: what the control socket's clients, the guest and signals ask for. Most of it needs the
 * CPUs to stand still, so it cannot be done where it arises, which is on the loop or on a CPU under the machine lock.
 *
 * Jobs are carried out one after the other in the order of their coming. The states they are allowed in are those of
 * vm/protocol.h. What a guest can cause is bounded: each machine event is queued at most once.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/private.h"

/* ---- the queue ---- */

static void
wake_owner(struct vm *v)
{
	uint64_t one = 1;
	ssize_t r = write(v->wake_fd, &one, sizeof(one));

	(void)r; /* a full counter wakes just as well */
}

void
vm_post_job(struct vm *v, struct vm_job job)
{
	unsigned bit = job.kind == JOB_EVENT ? 1u << job.event : 0;
	struct vm_job *j = NULL;

	pthread_mutex_lock(&v->jobs_lock);
	if (!(v->events_queued & bit)) {
		v->events_queued |= bit;
		j = xcalloc(1, sizeof(*j));
		*j = job;
		j->next = NULL;
		*v->jobs_tail = j;
		v->jobs_tail = &j->next;
	}
	pthread_mutex_unlock(&v->jobs_lock);
	if (j)
		wake_owner(v);
}

static struct vm_job *
take_job(struct vm *v)
{
	struct vm_job *j;

	pthread_mutex_lock(&v->jobs_lock);
	j = v->jobs;
	if (j) {
		v->jobs = j->next;
		if (!v->jobs)
			v->jobs_tail = &v->jobs;
		if (j->kind == JOB_EVENT)
			v->events_queued &= ~(1u << j->event);
	}
	pthread_mutex_unlock(&v->jobs_lock);
	return j;
}

static void
free_job(struct vm_job *j)
{
	json_decref(j->asker.id);
	json_decref(j->params);
	free(j);
}

/* A reset makes void what the guest asked for before it. The CPUs are parked. */
static void
drop_events(struct vm *v)
{
	struct vm_job **p, *j;

	pthread_mutex_lock(&v->jobs_lock);
	for (p = &v->jobs; (j = *p);) {
		if (j->kind == JOB_EVENT) {
			*p = j->next;
			free_job(j);
		} else {
			p = &j->next;
		}
	}
	v->jobs_tail = p;
	v->events_queued = 0;
	pthread_mutex_unlock(&v->jobs_lock);
}

void
vm_request_stop(struct vm *v)
{
	v->stop_requested = true;
	wake_owner(v);
}

/* bus/machine.h: the guest, or a chip, asks for something. On a CPU's or the loop's thread, under the machine lock. */
void
vm_machine_wants(void *opaque, enum machine_event what, int status)
{
	vm_post_job(opaque, (struct vm_job){ .kind = JOB_EVENT, .event = what, .status = status });
}

/* ---- carrying them out ---- */

static void
set_state_locked(struct vm *v, enum vm_state s)
{
	machine_lock(v->m);
	vm_set_state(v, s);
	machine_unlock(v->m);
}

static void
answer(struct vm *v, struct vm_job *j, json_t *result, const struct err *e)
{
	machine_lock(v->m);
	if (v->control)
		control_answer(v->control, &j->asker, result, e);
	else
		json_decref(result);
	machine_unlock(v->m);
}

static int
wrong_state(struct vm *v, const char *what, struct err *e)
{
	return err_set(e, ERR_VM_STATE, "the machine is %s and cannot be %s", vm_state_text(v->state), what);
}

static int
do_pause(struct vm *v, struct err *e)
{
	if (v->state != VM_RUNNING)
		return wrong_state(v, "paused", e);
	pc_pause(v->pc);
	set_state_locked(v, VM_PAUSED);
	return 0;
}

static int
do_resume(struct vm *v, struct err *e)
{
	if (v->state != VM_PAUSED)
		return wrong_state(v, "resumed", e);
	vm_full_retry(v);
	pc_resume(v->pc);
	set_state_locked(v, VM_RUNNING);
	return 0;
}

static json_t *
do_fork(struct vm *v, struct vm_job *j, struct err *e)
{
	int fds[8], count = 0;
	json_t *result = vm_fork(v, j->params, fds, &count, e);

	machine_lock(v->m);
	if (v->control)
		control_attach(v->control, &j->asker, fds, count);
	machine_unlock(v->m);
	return result;
}

/* The machine ends when it is written down. Who asked is answered at the very end. False: it goes on, *e says why. */
static bool
do_save(struct vm *v, struct vm_job *j, struct err *e)
{
	if (vm_save(v, json_string_value(json_object_get(j->params, "path")), &j->asker, e))
		return false;
	json_decref(v->poweroff_asker.id);
	v->poweroff_asker = j->asker;
	j->asker.id = NULL;
	return true;
}

static int
do_reset(struct vm *v, struct err *e)
{
	if (v->state != VM_RUNNING && v->state != VM_PAUSED && v->state != VM_GURU)
		return wrong_state(v, "reset", e);
	pc_pause(v->pc);
	drop_events(v);
	if (pc_reset(v->pc, e))
		return -1;
	if (v->state != VM_PAUSED)
		pc_resume(v->pc);
	if (v->state == VM_GURU) {
		v->outcome = (struct vm_outcome){ 0 };
		set_state_locked(v, VM_RUNNING);
	}
	return 0;
}

static void
end(struct vm *v, enum vm_end how, int status, const char *reason)
{
	if (v->ended)
		return;
	v->ended = true;
	v->outcome.end = how;
	v->outcome.status = status;
	snprintf(v->outcome.reason, sizeof(v->outcome.reason), "%s", reason);
}

/* The CPUs cannot go on: keep the machine for inspection, or end it where nobody would look. */
static void
guru(struct vm *v, enum vm_end how, const char *reason)
{
	if (v->o.end_on_guru) {
		end(v, how, 0, reason);
		return;
	}
	pc_pause(v->pc);
	snprintf(v->outcome.reason, sizeof(v->outcome.reason), "%s", reason);
	set_state_locked(v, VM_GURU);
}

static void
guest_reset(struct vm *v, const char *why)
{
	struct err e;

	log_guest(v->c->name, "reset: %s", why);
	if (v->o.end_on_reset)
		end(v, VM_END_RESET, 0, why);
	else if (do_reset(v, &e))
		guru(v, VM_END_ERROR, e.text);
}

static void
act_on_event(struct vm *v, enum machine_event what, int status)
{
	if (v->state != VM_RUNNING && v->state != VM_PAUSED)
		return;
	switch (what) {
	case MACHINE_RESET:
		guest_reset(v, "the guest reset the machine");
		break;
	case MACHINE_POWEROFF:
		end(v, VM_END_GUEST_OFF, 0, "the guest switched off");
		break;
	case MACHINE_SUSPEND:
		log_guest(v->c->name, "the guest asked for S3, which this machine does not offer");
		break;
	case MACHINE_TRIPLE_FAULT:
		if (v->c->triple_fault == VM_TRIPLE_FAULT_RESET)
			guest_reset(v, "triple fault");
		else
			guru(v, VM_END_TRIPLE_FAULT, "triple fault");
		break;
	case MACHINE_DEBUG_EXIT:
		end(v, VM_END_DEBUG_EXIT, status, "debug exit");
		break;
	case MACHINE_ERROR:
		guru(v, VM_END_ERROR,
			status >= 0 && status < pc_cpus(v->pc)->count && pc_cpus(v->pc)->cpu[status]->error[0]
				? pc_cpus(v->pc)->cpu[status]->error
				: "the machine cannot go on");
		break;
	}
}

static void
act_on_request(struct vm *v, struct vm_job *j)
{
	struct err e = { 0 };
	json_t *result = NULL;

	switch (j->kind) {
	case JOB_PAUSE:
		result = do_pause(v, &e) ? NULL : json_object();
		break;
	case JOB_RESUME:
		result = do_resume(v, &e) ? NULL : json_object();
		break;
	case JOB_RESET:
		log_info(v->c->name, "reset from outside");
		result = do_reset(v, &e) ? NULL : json_object();
		break;
	case JOB_SCREENSHOT:
		result = method_screenshot(v, j->params, &e);
		break;
	case JOB_DEBUG:
		result = vm_debug(v, j->params, &e);
		break;
	case JOB_SAVE:
		if (!vm_is_full(v, &e) && do_save(v, j, &e)) {
			end(v, VM_END_SAVED, 0, "saved");
			return;
		}
		break;
	case JOB_BARRIER:
		result = json_object();
		break;
	case JOB_FORK:
		result = do_fork(v, j, &e);
		break;
	case JOB_UNFORK:
		result = vm_unfork(v, j->params, &e);
		break;
	case JOB_SNAPSHOT:
		result = vm_is_full(v, &e) ? NULL : vm_snapshot(v, j->params, &j->asker, &e);
		break;
	case JOB_POWEROFF:
		json_decref(v->poweroff_asker.id);
		v->poweroff_asker = j->asker;
		j->asker.id = NULL;
		end(v, VM_END_STOPPED, 0, "powered off");
		return;
	case JOB_EJECTED:
		machine_lock(v->m);
		vm_status_write(v);
		machine_unlock(v->m);
		return;
	case JOB_FULL:
		vm_full_pause(v);
		return;
	case JOB_EVENT:
		return;
	}
	answer(v, j, result, &e);
}

static void
act_on_jobs(struct vm *v)
{
	struct vm_job *j;

	while (!v->ended && (j = take_job(v))) {
		if (j->kind == JOB_EVENT)
			act_on_event(v, j->event, j->status);
		else
			act_on_request(v, j);
		free_job(j);
	}
}

/* How long to wait, for poll(); the time may also be up. */
static int
time_left(struct vm *v)
{
	uint64_t now = loop_now(), deadline = v->started_ns + v->o.timeout_ms * 1000000u;

	if (!v->o.timeout_ms)
		return -1;
	if (now < deadline)
		return (int)MIN((deadline - now) / 1000000u + 1, (uint64_t)1 << 30);
	end(v, VM_END_TIMEOUT, 0, "the time is up");
	return 0;
}

static void
wait_for_work(struct vm *v)
{
	struct pollfd p[2] = { { .fd = v->wake_fd, .events = POLLIN }, { .fd = v->signal_fd, .events = POLLIN } };
	int ms = time_left(v);
	uint64_t count;
	ssize_t r;

	if (poll(p, 2, ms) <= 0)
		return;
	if (p[0].revents) {
		r = read(v->wake_fd, &count, sizeof(count));
		(void)r;
	}
	if (p[1].revents)
		v->stop_requested = true;
}

void
vm_jobs_run(struct vm *v)
{
	while (!v->ended) {
		if (v->stop_requested)
			end(v, VM_END_STOPPED, 0, "stopped from outside");
		act_on_jobs(v);
		if (!v->ended)
			wait_for_work(v);
	}
}

void
vm_jobs_drop(struct vm *v)
{
	struct vm_job *j;

	while ((j = take_job(v)))
		free_job(j);
	json_decref(v->poweroff_asker.id);
}
