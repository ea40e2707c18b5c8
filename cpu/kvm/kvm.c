/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * One VM descriptor a machine, one vCPU descriptor and one shared kvm_run page a vCPU. All interrupt controllers and
 * timers are ours (no in-kernel irqchip): a vector is queued with KVM_INTERRUPT when the CPU can take it, and when it
 * cannot, the interrupt window makes KVM_RUN return as soon as it can. The TPR travels in kvm_run.cr8. IA32_APIC_BASE
 * and IA32_TSC_DEADLINE are taken away from the kernel by an MSR filter; x2APIC registers cannot be filtered, but
 * without an in-kernel APIC the kernel refuses them and hands the refusal to us.
 *
 * Memory slots follow the flat view (mem_listener): RAM read-write, ROM read-only (a write leaves as MMIO and is
 * dropped), page-aligned parts only; the rest leaves as MMIO and ends in bus/mem.c, which knows what is there.
 *
 * Kicking: the requester sets a bit in v.requests, then kvm_run.immediate_exit, then sends a signal if the thread is in
 * run(). run() clears immediate_exit before it looks at the bits, so that either it sees the bit or KVM_RUN returns at
 * once.
 *
 * An exit for a port, MMIO or MSR access is finished by the next KVM_RUN. If the state is wanted before that, or there
 * is an interrupt to queue, the instruction is finished by a KVM_RUN with immediate_exit set: it may end in an
 * exception, and the kernel forgets an interrupt that was queued before that.
 *
 * The guest's TSC is the host's plus the offset of bus/clock.h; run() notices when that changes (pause and resume).
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/x86/x86.h"

#define MSR_APIC_BASE 0x1b
#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
/* Three pages that VT-x without "unrestricted guest" needs in the guest's address space, below the BIOS. */
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull
#define TSS_ADDRESS 0xfffbd000ul

static struct kvm_vcpu *
kvm_of(struct vcpu *v)
{
	return (struct kvm_vcpu *)v;
}

/* ---- memory slots ---- */

static int
set_slot(struct kvm_machine *km, unsigned i, const struct kvm_slot *s)
{
	struct kvm_userspace_memory_region r = {
		.slot = i,
		.flags = s->flags,
		.guest_phys_addr = s->gpa,
		.memory_size = s->size,
		.userspace_addr = (uintptr_t)s->host,
	};

	return ioctl(km->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0 ? -errno : 0;
}

/* The page-aligned part of a section; false if there is none or it is not memory. */
static bool
slot_of_section(const struct mem_section *s, struct kvm_slot *out)
{
	gpa_t start = (s->start + PAGE_MASK) & ~(gpa_t)PAGE_MASK, end = (s->last + 1) & ~(gpa_t)PAGE_MASK;

	if (s->kind == MEM_MMIO || start >= end)
		return false;
	*out = (struct kvm_slot){
		.gpa = start,
		.size = end - start,
		.host = s->ram->host + s->ram_offset + (start - s->start),
		.flags = s->kind == MEM_ROM ? KVM_MEM_READONLY : 0,
		.ram = s->ram,
		.ram_offset = s->ram_offset + (start - s->start),
	};
	return ((uintptr_t)out->host & PAGE_MASK) == 0;
}

static bool
same_slot(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->host == b->host &&
	       !((a->flags ^ b->flags) & ~KVM_MEM_LOG_DIRTY_PAGES);
}

static bool
still_wanted(const struct kvm_slot *s, const struct kvm_slot *want, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (same_slot(s, &want[i]))
			return true;
	return false;
}

static bool
have_slot(const struct kvm_machine *km, const struct kvm_slot *want)
{
	for (unsigned i = 0; i < MEM_SECTIONS_MAX; i++)
		if (km->slot[i].host && same_slot(&km->slot[i], want))
			return true;
	return false;
}

/* ---- the dirty log: the kernel's bitmaps into ram->dirty ---- */

static bool
is_logged(const struct kvm_machine *km, const struct ram *ram)
{
	for (unsigned i = 0; i < KVM_LOGGED_MAX; i++)
		if (km->logged[i] == ram)
			return true;
	return false;
}

/* Reads and clears the kernel's bitmap of a slot. */
static void
collect_log(struct kvm_machine *km, unsigned i)
{
	const struct kvm_slot *s = &km->slot[i];
	uint64_t pages = s->size >> PAGE_SHIFT, first = s->ram_offset >> PAGE_SHIFT, *bits;
	struct kvm_dirty_log log = { .slot = i };

	if (!(s->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return;
	bits = calloc((pages + 63) / 64, sizeof(*bits));
	if (!bits)
		abort(); /* out of memory */
	log.dirty_bitmap = bits;
	if (ioctl(km->vm, KVM_GET_DIRTY_LOG, &log) < 0) /* rather too much than too little */
		memset(bits, 0xff, (pages + 63) / 64 * sizeof(*bits));
	for (uint64_t p = 0; p < pages; p++)
		if (bits[p / 64] >> (p % 64) & 1)
			s->ram->dirty[first + p] = 1;
	free(bits);
}

static void
log_sync(void *opaque, struct ram *ram)
{
	struct kvm_machine *km = opaque;

	for (unsigned i = 0; i < MEM_SECTIONS_MAX; i++)
		if (km->slot[i].host && km->slot[i].ram == ram)
			collect_log(km, i);
}

/* From the first round on the kernel logs writes to `ram` for good. */
static void
log_start(void *opaque, struct ram *ram)
{
	struct kvm_machine *km = opaque;
	unsigned n = 0;

	while (n < KVM_LOGGED_MAX && km->logged[n] && km->logged[n] != ram)
		n++;
	if (n == KVM_LOGGED_MAX)
		return;
	km->logged[n] = ram;
	for (unsigned i = 0; i < MEM_SECTIONS_MAX; i++) {
		struct kvm_slot *s = &km->slot[i];

		if (!s->host || s->ram != ram || s->flags & (KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES))
			continue;
		s->flags |= KVM_MEM_LOG_DIRTY_PAGES;
		set_slot(km, i, s);
	}
	log_sync(km, ram); /* forget what was before: the caller clears `dirty` */
}

static void
drop_slot(struct kvm_machine *km, unsigned i)
{
	struct kvm_slot gone = km->slot[i];

	collect_log(km, i);
	gone.size = 0;
	set_slot(km, i, &gone);
	km->slot[i].host = NULL;
}

static int
add_slot(struct kvm_machine *km, const struct kvm_slot *s)
{
	for (unsigned i = 0; i < MEM_SECTIONS_MAX; i++) {
		if (km->slot[i].host)
			continue;
		km->slot[i] = *s;
		if (is_logged(km, s->ram) && !(s->flags & KVM_MEM_READONLY))
			km->slot[i].flags |= KVM_MEM_LOG_DIRTY_PAGES;
		return set_slot(km, i, &km->slot[i]);
	}
	return -ENOSPC;
}

/* Make the kernel's slots those of the flat view: first everything that goes, then what comes, since slots may not
 * overlap. An access in between leaves as MMIO and is served from bus/mem.c. Machine lock held. */
static void
slots_changed(void *opaque)
{
	struct kvm_machine *km = opaque;
	const struct mem *mem = &km->m->mem;
	struct kvm_slot *want = calloc(MEM_SECTIONS_MAX, sizeof(*want));
	unsigned n = 0;

	if (!want)
		abort(); /* out of memory */
	for (int i = 0; i < mem->count; i++)
		n += slot_of_section(&mem->sections[i], &want[n]);
	for (unsigned i = 0; i < MEM_SECTIONS_MAX; i++)
		if (km->slot[i].host && !still_wanted(&km->slot[i], want, n))
			drop_slot(km, i);
	for (unsigned i = 0; i < n; i++) {
		int r = have_slot(km, &want[i]) ? 0 : add_slot(km, &want[i]);
		if (r)
			log_error(km->m->name, "KVM refuses %llu KiB of memory at 0x%llx: %s",
				(unsigned long long)want[i].size >> 10, (unsigned long long)want[i].gpa, strerror(-r));
	}
	free(want);
}

/* ---- CPUID ---- */

static struct kvm_cpuid2 *
cpuid_alloc(unsigned n)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));

	if (!c)
		abort(); /* out of memory */
	c->nent = n;
	return c;
}

static const struct kvm_cpuid_entry2 *
supported(const struct kvm_machine *km, uint32_t leaf, uint32_t sub)
{
	static const struct kvm_cpuid_entry2 none;

	for (unsigned i = 0; i < km->supported->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &km->supported->entries[i];
		if (e->function == leaf && (e->index == sub || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	}
	return &none;
}

/* Feature bits the kernel's list does not have because it has no APIC for us, or sets them by itself. */
#define ECX1_OURS (1u << 21 | 1u << 24 | 1u << 27 | 1u << 31) /* x2APIC, TSC deadline, OSXSAVE, hypervisor */
#define EDX1_OURS (1u << 9 | 1u << 28)			      /* APIC, HTT */

/* Take from the model what the kernel does not carry. */
static void
filter_model(const struct kvm_machine *km, struct cpu_model *m)
{
	for (int i = 0; i < m->leaf_count; i++) {
		struct cpuid_leaf *l = &m->leaf[i];
		const struct kvm_cpuid_entry2 *e = supported(km, l->leaf, l->sub);

		switch (l->leaf) {
		case 1:
			l->ecx &= e->ecx | ECX1_OURS;
			l->edx &= e->edx | EDX1_OURS;
			break;
		case 7:
			l->eax &= l->sub ? e->eax : UINT32_MAX;
			l->ebx &= e->ebx;
			l->ecx &= e->ecx;
			l->edx &= e->edx;
			break;
		case 0xd:
			if (l->sub <= 1)
				l->eax &= e->eax;
			break;
		case 0x80000001:
			l->ecx &= e->ecx;
			l->edx &= e->edx;
			break;
		case 0x80000008:
			l->ebx &= e->ebx;
			break;
		case 0x80000021:
			l->eax &= e->eax;
			break;
		}
	}
	m->xcr0_supported &= supported(km, 0xd, 0)->eax;
}

static bool
indexed(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001d;
}

static int
set_cpuid(struct kvm_vcpu *k, struct err *e)
{
	const struct cpu_model *m = &k->v.cpus->model;
	struct kvm_cpuid2 *c = cpuid_alloc((unsigned)m->leaf_count);
	int r;

	for (int i = 0; i < m->leaf_count; i++) {
		struct kvm_cpuid_entry2 *to = &c->entries[i];
		uint32_t out[4];

		to->function = m->leaf[i].leaf;
		to->index = m->leaf[i].sub;
		to->flags = indexed(to->function) ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
		x86_cpuid_lookup(m, &k->v.state, k->v.index, k->v.cpus->count, true, to->function, to->index, out);
		to->eax = out[0];
		to->ebx = out[1];
		to->ecx = out[2];
		to->edx = out[3];
	}
	r = ioctl(k->fd, KVM_SET_CPUID2, c);
	if (r < 0)
		err_sys(e, ERR_HOST, errno, "KVM does not accept the virtual CPU's features");
	free(c);
	return r < 0 ? -1 : 0;
}

/* ---- the machine ---- */

static int
get_supported(struct kvm_machine *km, struct err *e)
{
	km->supported = cpuid_alloc(KVM_CPUID_MAX);
	if (ioctl(km->kvm, KVM_GET_SUPPORTED_CPUID, km->supported) < 0)
		return err_sys(e, ERR_HOST, errno, "KVM does not say which CPU features it supports");
	return 0;
}

static int
take_msrs(struct kvm_machine *km, struct err *e)
{
	uint8_t deny[8] = { 0 }; /* one clear bit an MSR */
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER },
	};
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = {
			{ KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, 1, MSR_APIC_BASE, deny },
			{ KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, 1, MSR_TSC_DEADLINE, deny },
		},
	};

	if (ioctl(km->vm, KVM_ENABLE_CAP, &cap) < 0 || ioctl(km->vm, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return err_sys(e, ERR_HOST, errno, "KVM does not hand over the local APIC's MSRs");
	return 0;
}

static int
open_vm(struct kvm_machine *km, struct err *e)
{
	uint64_t identity = IDENTITY_MAP_ADDRESS;
	const char *missing;
	int size;

	km->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (km->kvm < 0)
		return err_set(e, ERR_HOST, "%s", kvm_open_sentence(errno));
	missing = kvm_missing_capability(km->kvm);
	if (missing)
		return err_set(e, ERR_HOST, "the host's KVM is too old: it lacks %s", missing);
	size = ioctl(km->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	km->vm = ioctl(km->kvm, KVM_CREATE_VM, 0);
	if (km->vm < 0 || size < (int)sizeof(struct kvm_run))
		return err_sys(e, ERR_HOST, errno, "KVM does not create a machine");
	km->run_size = (size_t)size;
	ioctl(km->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	ioctl(km->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);
	return take_msrs(km, e);
}

static void
engine_close_machine(struct cpus *cpus)
{
	struct kvm_machine *km = cpus->engine_data;

	if (!km)
		return;
	machine_lock(cpus->m);
	mem_unlisten(&cpus->m->mem, &km->listener);
	machine_unlock(cpus->m);
	if (km->vm >= 0)
		close(km->vm);
	if (km->kvm >= 0)
		close(km->kvm);
	free(km->supported);
	free(km);
	cpus->engine_data = NULL;
}

static int
engine_open_machine(struct cpus *cpus, struct err *e)
{
	struct kvm_machine *km = calloc(1, sizeof(*km));

	if (!km)
		abort(); /* out of memory */
	km->kvm = km->vm = -1;
	km->m = cpus->m;
	km->listener = (struct mem_listener){
		.changed = slots_changed, .log_start = log_start, .log_sync = log_sync, .opaque = km
	};
	cpus->engine_data = km;
	kvm_kick_install();
	if (open_vm(km, e) || get_supported(km, e)) {
		engine_close_machine(cpus);
		return -1;
	}
	filter_model(km, &cpus->model);
	machine_lock(cpus->m);
	mem_listen(&cpus->m->mem, &km->listener);
	slots_changed(km);
	machine_unlock(cpus->m);
	return 0;
}

/* ---- the vCPU ---- */

static void
engine_close(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	if (k->run)
		munmap(k->run, k->km->run_size);
	if (k->fd >= 0)
		close(k->fd);
	k->run = NULL;
	k->fd = -1;
}

static int
engine_open(struct vcpu *v, struct err *e)
{
	struct kvm_vcpu *k = kvm_of(v);
	void *run;

	k->km = v->cpus->engine_data;
	k->run = NULL;
	k->fd = ioctl(k->km->vm, KVM_CREATE_VCPU, (unsigned long)v->index);
	if (k->fd < 0)
		return err_sys(e, ERR_HOST, errno, "KVM does not create virtual CPU %d", v->index);
	run = mmap(NULL, k->km->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (run == MAP_FAILED) {
		err_sys(e, ERR_HOST, errno, "cannot map KVM's page of virtual CPU %d", v->index);
		engine_close(v);
		return -1;
	}
	k->run = run;
	k->late_exit = CPU_EXIT_COUNT;
	if (set_cpuid(k, e)) {
		engine_close(v);
		return -1;
	}
	return 0;
}

static void
engine_kick(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	if (!k->run)
		return;
	__atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (k->in_run)
		pthread_kill(k->thread, KVM_KICK_SIGNAL);
}

static enum cpu_exit act_on(struct kvm_vcpu *k);

/*
 * KVM_RUN without entering the guest: the instruction that exited last is completed (it may exit again, for the next
 * part of its access). What it ends in besides that is kept for run().
 */
static void
finish(struct kvm_vcpu *k)
{
	while (k->unfinished) {
		k->run->immediate_exit = 1;
		k->run->cr8 = cpu_get_cr8(&k->v);
		k->unfinished = false;
		k->run_valid = true;
		if (ioctl(k->fd, KVM_RUN, 0) >= 0)
			k->late_exit = act_on(k);
	}
}

static void
engine_get_state(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	if (!k->entered)
		return; /* v->state is what was put, and may have been changed since */
	finish(k);
	if (kvm_regs_get(k))
		log_error(v->m->name, "cpu%d: %s", v->index, v->error);
}

/* The state goes to the kernel when it is next needed there: it may be changed until then. */
static void
engine_put_state(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	k->entered = false;
	k->run_valid = false;
	k->injected = false;
}

static bool
enter(struct kvm_vcpu *k)
{
	if (k->entered)
		return true;
	if (kvm_regs_put(k))
		return false;
	k->entered = true;
	k->late_exit = CPU_EXIT_COUNT;
	k->cr8_stale = true;
	k->events_valid = false;
	k->tsc_offset = INT64_MIN;
	k->v.state.nmi_blocked = 0; /* from here on the kernel holds back NMIs */
	return true;
}

static bool
engine_can_inject(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	if (k->injected || k->unfinished)
		return false;
	if (k->run_valid)
		return k->run->ready_for_interrupt_injection && k->run->if_flag;
	return v->state.rflags & FLAG_IF && !v->state.shadow;
}

static void
engine_inject(struct vcpu *v, int vector, bool nmi)
{
	struct kvm_vcpu *k = kvm_of(v);
	struct kvm_interrupt irq = { .irq = (uint32_t)vector };

	if (!enter(k)) {
		log_error(v->m->name, "cpu%d: %s", v->index, v->error);
		return;
	}
	if (ioctl(k->fd, nmi ? KVM_NMI : KVM_INTERRUPT, &irq) < 0) {
		log_error(v->m->name, "cpu%d: KVM does not take interrupt %d: %s", v->index, vector, strerror(errno));
		return;
	}
	if (!nmi)
		k->injected = true;
}

/* The slots were moved when the map changed. */
static void
engine_flush(struct vcpu *v)
{
}

/* ---- time ---- */

/* Guest TSC = host TSC + the clock's offset + IA32_TSC_ADJUST. */
static void
set_tsc(struct kvm_vcpu *k)
{
	struct clock *clock = &k->v.m->clock;
	int64_t offset = __atomic_load_n(&clock->tsc_offset, __ATOMIC_RELAXED);
	uint64_t value = (uint64_t)offset + k->v.state.tsc_adjust;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&value
	};
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry.index = MSR_TSC };

	k->tsc_offset = offset;
	if (!ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr))
		return;
	msr.entry.data = clock_tsc(clock) + k->v.state.tsc_adjust; /* before Linux 5.16: less exact */
	ioctl(k->fd, KVM_SET_MSRS, &msr);
}

/* ---- exits ---- */

static void
exit_io(struct kvm_vcpu *k)
{
	struct kvm_run *r = k->run;
	uint8_t *data = (uint8_t *)r + r->io.data_offset;

	for (uint32_t i = 0; i < r->io.count; i++, data += r->io.size) {
		uint32_t value = 0;

		if (r->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, r->io.size);
			cpu_io_write(&k->v, r->io.port, value, r->io.size);
		} else {
			value = cpu_io_read(&k->v, r->io.port, r->io.size);
			memcpy(data, &value, r->io.size);
		}
	}
}

/* The kernel cuts accesses at page boundaries, so any length up to 8 may come. */
static void
exit_mmio(struct kvm_vcpu *k)
{
	struct kvm_run *r = k->run;
	unsigned len = r->mmio.len <= 8 ? r->mmio.len : 8;

	for (unsigned done = 0, n; done < len; done += n) {
		uint64_t value = 0;

		for (n = 8; n > len - done;)
			n /= 2;
		if (r->mmio.is_write) {
			memcpy(&value, r->mmio.data + done, n);
			cpu_mmio_write(&k->v, r->mmio.phys_addr + done, value, n);
		} else {
			value = cpu_mmio_read(&k->v, r->mmio.phys_addr + done, n);
			memcpy(r->mmio.data + done, &value, n);
		}
	}
	k->cr8_stale = true;
}

static bool
is_apic_msr(uint32_t msr)
{
	return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= 0x800 && msr <= 0x8ff);
}

/* The kernel derives CPUID's APIC bit from its own copy. */
static void
copy_apic_base(struct kvm_vcpu *k)
{
	struct kvm_sregs s;

	if (ioctl(k->fd, KVM_GET_SREGS, &s) < 0)
		return;
	s.apic_base = k->v.m->intc.lapic[k->v.index].base;
	ioctl(k->fd, KVM_SET_SREGS, &s);
}

static void
exit_rdmsr(struct kvm_vcpu *k)
{
	uint64_t value = 0;
	uint32_t msr = k->run->msr.index;
	bool ok = is_apic_msr(msr) && cpu_apic_msr_read(&k->v, msr, &value);

	if (!ok)
		log_guest(k->v.m->name, "cpu%d: RDMSR 0x%x: there is no such register", k->v.index, msr);
	k->run->msr.data = value;
	k->run->msr.error = !ok;
}

static void
exit_wrmsr(struct kvm_vcpu *k)
{
	uint32_t msr = k->run->msr.index;
	bool ok = is_apic_msr(msr) && cpu_apic_msr_write(&k->v, msr, k->run->msr.data);

	if (!ok)
		log_guest(k->v.m->name, "cpu%d: WRMSR 0x%x = 0x%llx: there is no such register or value", k->v.index,
			msr, (unsigned long long)k->run->msr.data);
	if (ok && msr == MSR_APIC_BASE)
		copy_apic_base(k);
	k->run->msr.error = !ok;
	k->cr8_stale = true;
}

static enum cpu_exit
exit_internal(struct kvm_vcpu *k)
{
	const struct x86_state *s = &k->v.state;
	const struct kvm_run *r = k->run;

	engine_get_state(&k->v);
	snprintf(k->v.error, sizeof(k->v.error),
		"KVM cannot go on (internal error %u, data 0x%llx 0x%llx) at %04x:%llx, cr0 %llx, cr3 %llx, cr4 %llx, "
		"efer %llx",
		r->internal.suberror, (unsigned long long)(r->internal.ndata > 0 ? r->internal.data[0] : 0),
		(unsigned long long)(r->internal.ndata > 1 ? r->internal.data[1] : 0), s->seg[SEG_CS].sel,
		(unsigned long long)s->rip, (unsigned long long)s->cr0, (unsigned long long)s->cr3,
		(unsigned long long)s->cr4, (unsigned long long)s->efer);
	return CPU_EXIT_ERROR;
}

/* CPU_EXIT_COUNT: go on running. */
static enum cpu_exit
act_on(struct kvm_vcpu *k)
{
	struct kvm_run *r = k->run;

	switch (r->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(k);
		k->unfinished = true;
		return CPU_EXIT_COUNT;
	case KVM_EXIT_MMIO:
		exit_mmio(k);
		k->unfinished = true;
		return CPU_EXIT_COUNT;
	case KVM_EXIT_X86_RDMSR:
		exit_rdmsr(k);
		k->unfinished = true;
		return CPU_EXIT_COUNT;
	case KVM_EXIT_X86_WRMSR:
		exit_wrmsr(k);
		k->unfinished = true;
		return CPU_EXIT_COUNT;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR:
	case KVM_EXIT_SET_TPR:
		return CPU_EXIT_COUNT;
	case KVM_EXIT_HLT:
		return CPU_EXIT_HALT;
	case KVM_EXIT_SHUTDOWN:
		engine_get_state(&k->v);
		return CPU_EXIT_SHUTDOWN;
	case KVM_EXIT_DEBUG:
		return kvm_debug_exit(k) ? CPU_EXIT_DEBUG : CPU_EXIT_COUNT;
	case KVM_EXIT_INTERNAL_ERROR:
		return exit_internal(k);
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(k->v.error, sizeof(k->v.error), "the CPU refuses the guest's state (KVM entry failure 0x%llx)",
			(unsigned long long)r->fail_entry.hardware_entry_failure_reason);
		return CPU_EXIT_ERROR;
	default:
		snprintf(k->v.error, sizeof(k->v.error), "KVM stopped for a reason that is not known here (%u)",
			r->exit_reason);
		return CPU_EXIT_ERROR;
	}
}

/* ---- the loop ---- */

static uint32_t
held(struct kvm_vcpu *k)
{
	return (engine_can_inject(&k->v) ? 0 : REQ_INTR) | k->v.debug_hold;
}

static void
before_entry(struct kvm_vcpu *k)
{
	struct kvm_run *r = k->run;

	if (k->cr8_stale) {
		r->cr8 = cpu_get_cr8(&k->v);
		k->cr8_stale = false;
	}
	if (k->tsc_offset != __atomic_load_n(&k->v.m->clock.tsc_offset, __ATOMIC_RELAXED))
		set_tsc(k);
	r->request_interrupt_window = (k->v.requests & ~k->v.debug_hold & REQ_INTR) != 0;
}

static void
after_exit(struct kvm_vcpu *k, uint64_t cr8)
{
	k->run_valid = true;
	k->injected = false;
	k->unfinished = false;
	if (k->run->cr8 != cr8)
		cpu_set_cr8(&k->v, (uint8_t)k->run->cr8);
}

static enum cpu_exit
take_late_exit(struct kvm_vcpu *k)
{
	enum cpu_exit x = k->late_exit;

	k->late_exit = CPU_EXIT_COUNT;
	return x;
}

static enum cpu_exit
run_until_exit(struct kvm_vcpu *k)
{
	enum cpu_exit x = CPU_EXIT_COUNT;
	uint64_t cr8;
	int r;

	while (x == CPU_EXIT_COUNT) {
		if (k->v.requests)
			finish(k);
		if (k->late_exit != CPU_EXIT_COUNT)
			return take_late_exit(k);
		__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (k->v.requests & ~held(k))
			return CPU_EXIT_REQUEST;
		before_entry(k);
		cr8 = k->run->cr8;
		r = ioctl(k->fd, KVM_RUN, 0);
		if (r < 0 && errno != EINTR && errno != EAGAIN) {
			snprintf(k->v.error, sizeof(k->v.error), "KVM_RUN failed: %s", strerror(errno));
			return CPU_EXIT_ERROR;
		}
		after_exit(k, cr8);
		if (r >= 0)
			x = act_on(k);
	}
	return x;
}

static enum cpu_exit
engine_run(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	enum cpu_exit x;

	if (!enter(k))
		return CPU_EXIT_ERROR;
	k->thread = pthread_self();
	k->in_run = true;
	x = run_until_exit(k);
	k->in_run = false;
	return x;
}

/* ---- kicking ---- */

static void
on_kick(int sig)
{
}

void
kvm_kick_install(void)
{
	struct sigaction sa = { .sa_handler = on_kick };
	sigset_t set;

	sigemptyset(&sa.sa_mask);
	sigaction(KVM_KICK_SIGNAL, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* threads made later inherit this */
}

static int
engine_debug(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);

	return enter(k) ? kvm_debug_set(k) : -1; /* the kernel notes where a step begins */
}

static uint64_t
engine_current_rip(struct vcpu *v)
{
	struct kvm_regs r;

	return ioctl(kvm_of(v)->fd, KVM_GET_REGS, &r) < 0 ? v->state.rip : r.rip;
}

const struct cpu_engine cpu_engine_kvm = {
	.name = "kvm",
	.vcpu_size = sizeof(struct kvm_vcpu),
	.probe = kvm_probe,
	.open_machine = engine_open_machine,
	.close_machine = engine_close_machine,
	.open = engine_open,
	.close = engine_close,
	.run = engine_run,
	.kick = engine_kick,
	.get_state = engine_get_state,
	.put_state = engine_put_state,
	.can_inject = engine_can_inject,
	.inject = engine_inject,
	.flush = engine_flush,
	.debug = engine_debug,
	.current_rip = engine_current_rip,
};
