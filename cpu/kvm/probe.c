/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does KVM work here, and is it the hardware that runs the guest?
 *
 * Asking is not enough: there are hosts where /dev/kvm opens and answers every capability, but 64-bit supervisor code
 * is emulated one instruction at a time. So the probe runs some: a guest in 64-bit mode at CPL 0 that changes its page
 * tables (each change shows other contents at one address, which it adds up), its segment bases and interrupt flag,
 * takes an interrupt, and loops for a million instructions. On hardware that is about a millisecond; there is a
 * deadline of 100 ms, kept by a timer whose signal ends KVM_RUN. The environment variable LODGE_KVM_DEADLINE_MS sets
 * another: a test runs KVM inside an emulator, where it is slow but correct.
 *
 * The guest's memory, 64 KiB at 0 (identity-mapped by the second 2 MiB page too, which differs between the two roots):
 *	0x1000  PML4 A   0x2000  PDPT A   0x3000  PD A: 0 -> 0, 2 MiB -> 2 MiB
 *	0x4000  PML4 B   0x5000  PDPT B   0x6000  PD B: 0 -> 0, 2 MiB -> 4 MiB
 *	0x7000  GDT      0x7100  IDT (256 gates)      0x8100  handler   0x9000  code   0xf000  stack top
 * 2 MiB and 4 MiB hold one page each: the values 1 and 2.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu/kvm/kvm.h"

#define LOW_SIZE 0x10000u
#define PAGE_A 0x200000u
#define PAGE_B 0x400000u
#define ROOT_A 0x1000u
#define ROOT_B 0x4000u
#define GDT 0x7000u
#define IDT 0x7100u
#define HANDLER 0x8100u
#define CODE 0x9000u
#define STACK 0xf000u
#define VECTOR 0x40
#define ROUNDS 1000u
#define INNER 330u /* three instructions each: about 1000 a round */
#define DONE_PORT 0x80
#define DEADLINE_US 100000u
#define DEADLINE_VARIABLE "LODGE_KVM_DEADLINE_MS"

/*
 * RBX = rounds left, R8 and R9 = the two roots, RSI = sum, RDI = PAGE_A; R10 counts interrupts.
 *	round:	mov cr3, r8;  add rsi, [rdi];  mov cr3, r9;  add rsi, [rdi]
 *		cli; mov ecx, 0xc0000102; xor eax, eax; xor edx, edx; wrmsr; swapgs; swapgs; sti
 *		mov ecx, INNER
 *	inner:	add rax, rcx; dec ecx; jnz inner
 *		dec ebx; jnz round
 *		out DONE_PORT, al
 */
static const uint8_t code[] = {
	0x41, 0x0f, 0x22, 0xd8,			    /* mov cr3, r8 */
	0x48, 0x03, 0x37,			    /* add rsi, [rdi] */
	0x41, 0x0f, 0x22, 0xd9,			    /* mov cr3, r9 */
	0x48, 0x03, 0x37,			    /* add rsi, [rdi] */
	0xfa,					    /* cli */
	0xb9, 0x02, 0x01, 0x00, 0xc0,		    /* mov ecx, IA32_KERNEL_GS_BASE */
	0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30,	    /* xor eax, eax; xor edx, edx; wrmsr */
	0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8,	    /* swapgs; swapgs */
	0xfb,					    /* sti */
	0xb9, INNER & 0xff, INNER >> 8, 0x00, 0x00, /* mov ecx, INNER */
	0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9,   /* inner: add rax, rcx; dec ecx; jnz inner */
	0xff, 0xcb, 0x75, 0xcf,			    /* dec ebx; jnz round */
	0xe6, DONE_PORT,			    /* out DONE_PORT, al */
};
static const uint8_t handler[] = { 0x49, 0xff, 0xc2, 0x48, 0xcf }; /* inc r10; iretq */

struct probe {
	int kvm, vm, vcpu;
	uint8_t *low, *a, *b;
	struct kvm_run *run;
	size_t run_size;
	struct timespec start;
	unsigned deadline_us;
	timer_t timer;
	bool timer_made;
	char *reason;
	size_t reason_size;
};

static unsigned
elapsed_us(const struct probe *p)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned)((now.tv_sec - p->start.tv_sec) * 1000000 + (now.tv_nsec - p->start.tv_nsec) / 1000);
}

static unsigned
deadline_us(void)
{
	const char *text = getenv(DEADLINE_VARIABLE);
	unsigned long ms = text ? strtoul(text, NULL, 10) : 0;

	return ms >= 1 && ms <= 60000 ? (unsigned)ms * 1000 : DEADLINE_US;
}

static int
refuse(struct probe *p, const char *what)
{
	snprintf(p->reason, p->reason_size, "KVM does not work: %s: %s", what, strerror(errno));
	return -1;
}

/* ---- what it asks ---- */

const char *
kvm_open_sentence(int error)
{
	switch (error) {
	case ENOENT:
		return "there is no /dev/kvm: this CPU has no VT-x or AMD-V that can be used, or the kvm module is not "
		       "loaded";
	case EACCES:
	case EPERM:
		return "no permission to open /dev/kvm: be root or a member of the group kvm";
	case EBUSY:
		return "/dev/kvm is busy: another hypervisor uses the CPU's virtualization";
	default:
		return "/dev/kvm cannot be opened: the CPU's virtualization cannot be used here";
	}
}

const char *
kvm_missing_capability(int kvm)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
		{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
		{ KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM" },
		{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
		{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
		{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
		{ KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI" },
		{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
		{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR (Linux 5.10)" },
		{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER (Linux 5.10)" },
	};

	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return "API version 12";
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (ioctl(kvm, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return needed[i].name;
	return NULL;
}

/* ---- what it runs ---- */

static void
put64(uint8_t *at, uint64_t v)
{
	memcpy(at, &v, 8);
}

static void
write_tables(struct probe *p)
{
	enum { PRESENT_WRITABLE = 3, LARGE = 0x80 };

	for (unsigned root = ROOT_A, page = PAGE_A;; root = ROOT_B, page = PAGE_B) {
		put64(p->low + root, (root + 0x1000) | PRESENT_WRITABLE);
		put64(p->low + root + 0x1000, (root + 0x2000) | PRESENT_WRITABLE);
		put64(p->low + root + 0x2000, LARGE | PRESENT_WRITABLE);
		put64(p->low + root + 0x2008, page | LARGE | PRESENT_WRITABLE);
		if (root == ROOT_B)
			break;
	}
	put64(p->low + GDT + 8, 0x00af9b000000ffffull);	 /* 64-bit code */
	put64(p->low + GDT + 16, 0x00cf93000000ffffull); /* data */
	put64(p->low + IDT + 16 * VECTOR, (HANDLER & 0xffff) | 8ull << 16 | 0x8e00ull << 32);
	memcpy(p->low + HANDLER, handler, sizeof(handler));
	memcpy(p->low + CODE, code, sizeof(code));
	p->a[0] = 1;
	p->b[0] = 2;
}

static int
add_memory(struct probe *p, unsigned slot, uint64_t gpa, size_t size, uint8_t **host)
{
	struct kvm_userspace_memory_region r = { .slot = slot, .guest_phys_addr = gpa, .memory_size = size };

	*host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*host == MAP_FAILED) {
		*host = NULL;
		return refuse(p, "no memory");
	}
	r.userspace_addr = (uintptr_t)*host;
	return ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0 ? refuse(p, "it takes no memory") : 0;
}

static int
make_vm(struct probe *p)
{
	uint64_t identity = 0xfffbc000;

	p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return refuse(p, "it creates no machine");
	ioctl(p->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	ioctl(p->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (add_memory(p, 0, 0, LOW_SIZE, &p->low) || add_memory(p, 1, PAGE_A, PAGE_SIZE, &p->a) ||
		add_memory(p, 2, PAGE_B, PAGE_SIZE, &p->b))
		return -1;
	write_tables(p);
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return refuse(p, "it creates no virtual CPU");
	p->run_size = (size_t)ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return refuse(p, "the virtual CPU cannot be mapped");
	}
	return 0;
}

static int
set_cpuid(struct probe *p)
{
	union {
		struct kvm_cpuid2 c;
		char room[sizeof(struct kvm_cpuid2) + KVM_CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
	} u = { .c.nent = KVM_CPUID_MAX };

	if (ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, &u.c) < 0 || ioctl(p->vcpu, KVM_SET_CPUID2, &u.c) < 0)
		return refuse(p, "CPUID cannot be set");
	return 0;
}

static int
set_registers(struct probe *p)
{
	struct kvm_segment cs = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment ds = {
		.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_regs r = {
		.rip = CODE, .rsp = STACK, .rflags = 0x202, .rbx = ROUNDS, .rdi = PAGE_A, .r8 = ROOT_A, .r9 = ROOT_B
	};
	struct kvm_interrupt irq = { .irq = VECTOR };
	struct kvm_sregs s;

	if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
		return refuse(p, "registers cannot be read");
	s.cs = cs;
	s.ds = s.es = s.ss = s.fs = s.gs = ds;
	s.gdt = (struct kvm_dtable){ .base = GDT, .limit = 23 };
	s.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xfff };
	s.cr0 = 0x80000033;
	s.cr3 = ROOT_A;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(p->vcpu, KVM_SET_REGS, &r) < 0)
		return refuse(p, "registers cannot be set");
	if (ioctl(p->vcpu, KVM_INTERRUPT, &irq) < 0)
		return refuse(p, "it takes no interrupt");
	return 0;
}

/* From the deadline on the signal repeats, so that one that comes just before KVM_RUN does no harm. */
static int
start_timer(struct probe *p)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_KICK_SIGNAL };
	struct itimerspec when = { .it_interval.tv_nsec = 1000000 };
	unsigned spent = elapsed_us(p), left;

	kvm_kick_install();
	ev._sigev_un._tid = (int)syscall(SYS_gettid);
	left = spent < p->deadline_us ? p->deadline_us - spent : 1;
	when.it_value = (struct timespec){ .tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000 };
	if (timer_create(CLOCK_MONOTONIC, &ev, &p->timer) < 0)
		return refuse(p, "no timer");
	p->timer_made = true;
	timer_settime(p->timer, 0, &when, NULL);
	return 0;
}

static void
too_slow(struct probe *p)
{
	struct kvm_regs r = { .rbx = ROUNDS };
	unsigned long done;

	ioctl(p->vcpu, KVM_GET_REGS, &r);
	done = r.rbx <= ROUNDS
		       ? (ROUNDS - (unsigned long)r.rbx) * (3ul * INNER + 17) + (INNER - (r.rcx % (INNER + 1))) * 3
		       : 0;
	snprintf(p->reason, p->reason_size,
		"/dev/kvm is here but emulates 64-bit supervisor code: %lu of a million instructions in %u ms, where "
		"hardware takes 1 ms",
		done, elapsed_us(p) / 1000);
}

static int
check_result(struct probe *p)
{
	struct kvm_regs r;

	if (ioctl(p->vcpu, KVM_GET_REGS, &r) < 0)
		return refuse(p, "registers cannot be read");
	if (r.rsi == 3ull * ROUNDS && r.r10 == 1 && r.rbx == 0)
		return 0;
	snprintf(p->reason, p->reason_size,
		"KVM does not run code correctly here: sum %llu instead of %u, %llu interrupts instead of 1",
		(unsigned long long)r.rsi, 3 * ROUNDS, (unsigned long long)r.r10);
	return -1;
}

static int
run_code(struct probe *p)
{
	for (;;) {
		int r = ioctl(p->vcpu, KVM_RUN, 0);

		if (r < 0 && errno != EINTR && errno != EAGAIN)
			return refuse(p, "KVM_RUN");
		if (r >= 0 && p->run->exit_reason == KVM_EXIT_IO && p->run->io.port == DONE_PORT)
			return check_result(p);
		if (r >= 0 && p->run->exit_reason != KVM_EXIT_INTR) {
			snprintf(p->reason, p->reason_size,
				"KVM does not run 64-bit supervisor code here: it stopped for reason %u",
				p->run->exit_reason);
			return -1;
		}
		if (elapsed_us(p) >= p->deadline_us) {
			too_slow(p);
			return -1;
		}
	}
}

static void
clean_up(struct probe *p)
{
	if (p->timer_made)
		timer_delete(p->timer);
	if (p->run)
		munmap(p->run, p->run_size);
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
	if (p->low)
		munmap(p->low, LOW_SIZE);
	if (p->a)
		munmap(p->a, PAGE_SIZE);
	if (p->b)
		munmap(p->b, PAGE_SIZE);
	close(p->kvm);
}

void
kvm_probe(struct cpu_probe *out)
{
	struct probe p = { .vm = -1, .vcpu = -1, .reason = out->reason, .reason_size = sizeof(out->reason) };
	const char *missing;

	clock_gettime(CLOCK_MONOTONIC, &p.start);
	p.deadline_us = deadline_us();
	out->usable = false;
	p.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p.kvm < 0) {
		snprintf(out->reason, sizeof(out->reason), "%s", kvm_open_sentence(errno));
		out->microseconds = elapsed_us(&p);
		return;
	}
	missing = kvm_missing_capability(p.kvm);
	if (missing)
		snprintf(out->reason, sizeof(out->reason), "the host's KVM is too old: it lacks %s", missing);
	else if (!make_vm(&p) && !set_cpuid(&p) && !set_registers(&p) && !start_timer(&p) && !run_code(&p)) {
		out->usable = true;
		snprintf(out->reason, sizeof(out->reason), "a million instructions of kernel code took %u us",
			elapsed_us(&p));
	}
	clean_up(&p);
	out->microseconds = elapsed_us(&p);
}
