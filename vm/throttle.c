/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The share of a host CPU that each virtual CPU may use: `modifyvm --cpuexecutioncap`.
 *
 * Every TICK_NS a virtual CPU is credited its share of the time that went by and charged what its thread really used of
 * a host CPU; in debt it rests (cpu/cpu.h) until the credit is positive again. A CPU that slept keeps at most BURST_NS
 * times its share, so that it is quick after a pause without going over the share for long. Nothing runs at 100 %.
 *
 * Runs on the loop under the machine lock.
 */
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "vm/private.h"

#define TICK_NS 10000000u
#define BURST_NS 50000000

struct vm_throttle {
	struct vm *v;
	struct loop_timer timer;
	int percent;
	uint64_t last; /* when the account was looked at */
	int64_t credit[CPUS_MAX], used[CPUS_MAX];
};

static int64_t
used_by(const struct vcpu *cpu)
{
	struct timespec t = { 0 };
	clockid_t clock;

	if (!cpu->started || pthread_getcpuclockid(cpu->thread, &clock) || clock_gettime(clock, &t))
		return 0;
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
settle(struct vm_throttle *t, int i, uint64_t elapsed)
{
	struct vcpu *cpu = pc_cpus(t->v->pc)->cpu[i];
	int64_t used = used_by(cpu), most = (int64_t)BURST_NS * t->percent / 100;

	t->credit[i] += (int64_t)elapsed * t->percent / 100 - (used - t->used[i]);
	t->credit[i] = MIN(t->credit[i], most);
	t->used[i] = used;
	cpu_rest(cpu, t->credit[i] < 0);
}

static void
tick(void *opaque)
{
	struct vm_throttle *t = opaque;
	uint64_t now = loop_now();

	for (int i = 0; i < pc_cpus(t->v->pc)->count; i++)
		settle(t, i, now - t->last);
	t->last = now;
	loop_timer_arm(&t->timer, now + TICK_NS);
}

void
vm_throttle_set(struct vm *v, int percent)
{
	struct vm_throttle *t = v->throttle;

	t->percent = percent;
	loop_timer_cancel(&t->timer);
	for (int i = 0; i < pc_cpus(v->pc)->count; i++) {
		t->credit[i] = 0;
		t->used[i] = used_by(pc_cpus(v->pc)->cpu[i]);
		cpu_rest(pc_cpus(v->pc)->cpu[i], false);
	}
	t->last = loop_now();
	if (percent < 100)
		loop_timer_arm(&t->timer, t->last + TICK_NS);
	log_info(v->c->name, "each CPU may use %d %% of a host's", percent);
}

int
vm_throttle_open(struct vm *v, struct err *e)
{
	v->throttle = xcalloc(1, sizeof(*v->throttle));
	v->throttle->v = v;
	loop_timer_init(&v->throttle->timer, v->m->loop, tick, v->throttle);
	machine_lock(v->m);
	if (v->c->cpu_cap < 100)
		vm_throttle_set(v, v->c->cpu_cap);
	machine_unlock(v->m);
	return 0;
}

void
vm_throttle_close(struct vm *v)
{
	if (!v->throttle)
		return;
	machine_lock(v->m);
	loop_timer_cancel(&v->throttle->timer);
	for (int i = 0; i < pc_cpus(v->pc)->count; i++)
		cpu_rest(pc_cpus(v->pc)->cpu[i], false);
	machine_unlock(v->m);
	free(v->throttle);
	v->throttle = NULL;
}
