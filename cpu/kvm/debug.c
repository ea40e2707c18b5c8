/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A debugger's wishes through KVM_SET_GUEST_DEBUG (Linux, Documentation/virt/kvm/api.rst 4.88): single steps, and the
 * four debug registers of the host for breakpoints first, then watchpoints. While any is in use the guest's own debug
 * registers are not honoured.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/debug.h"
#include "cpu/kvm/kvm.h"

enum { DR7_FIXED = 0x400, DR7_GE = 0x200 };

/* The four bits of DR7 for one register: what is watched, and how long it is (SDM 3B 18.2.4). */
static uint64_t
condition(const struct cpu_watch *w)
{
	uint64_t len = w->len == 8 ? 2 : w->len - 1;

	return (w->kind & CPU_WATCH_READ ? 3u : 1u) | len << 2;
}

static void
fill_registers(const struct cpu_debug *d, __u64 reg[8])
{
	int n = 0;

	reg[7] = DR7_FIXED;
	for (int i = 0; i < d->break_count && n < CPU_DEBUG_KVM_SLOTS; i++, n++) {
		reg[n] = d->breaks[i];
		reg[7] |= 2ull << (2 * n) | DR7_GE;
	}
	for (int i = 0; i < d->watch_count && n < CPU_DEBUG_KVM_SLOTS; i++, n++) {
		reg[n] = d->watches[i].a;
		reg[7] |= 2ull << (2 * n) | DR7_GE | condition(&d->watches[i]) << (16 + 4 * n);
	}
}

int
kvm_debug_set(struct kvm_vcpu *k)
{
	const struct cpu_debug *d = k->v.debug;
	struct kvm_guest_debug g = { 0 };

	if (d)
		g.control = KVM_GUESTDBG_ENABLE | (k->v.debug_step ? KVM_GUESTDBG_SINGLESTEP : 0);
	if (d && d->break_count + d->watch_count) {
		g.control |= KVM_GUESTDBG_USE_HW_BP;
		fill_registers(d, g.arch.debugreg);
	}
	if (ioctl(k->fd, KVM_SET_GUEST_DEBUG, &g) >= 0)
		return 0;
	snprintf(k->v.error, sizeof(k->v.error), "KVM does not debug this CPU: %s", strerror(errno));
	return -errno;
}

bool
kvm_debug_exit(struct kvm_vcpu *k)
{
	const struct kvm_debug_exit_arch *x = &k->run->debug.arch;
	const struct cpu_debug *d = k->v.debug;
	int hit = __builtin_ffs((int)(x->dr6 & 15)) - 1;

	if (!d)
		return false;
	if (hit >= 0 && hit < d->break_count) {
		k->v.debug_reason = CPU_DEBUG_BREAK;
		k->v.debug_addr = x->pc;
	} else if (hit >= 0 && hit - d->break_count < d->watch_count) {
		k->v.debug_reason = CPU_DEBUG_WATCH;
		k->v.debug_watch = d->watches[hit - d->break_count].kind;
		k->v.debug_addr = d->watches[hit - d->break_count].a;
	} else {
		k->v.debug_reason = CPU_DEBUG_STEPPED;
	}
	return true;
}
