/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The architectural state of one x86 CPU, in one format for all engines. (Intel SDM volumes 1 and 3, "SDM" below.)
 *
 * This is what is saved, migrated, compared by tests, shown by debuggers. Engines may keep parts of it elsewhere while
 * running (lazy flags, registers in the host's registers); after get_state all of it is here.
 */
#ifndef CPU_X86_STATE_H
#define CPU_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum seg_name { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/*
 * A segment register with its hidden part. `attr` is bits 40-55 of the descriptor without the limit bits, i.e.
 * attr[7:0] = P DPL S Type, attr[15:12] = G D/B L AVL (the layout of VMX "access rights", SDM 3C 24.4.1):
 * bit 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable (null selector loaded).
 * `limit` is in bytes, inclusive, after applying G.
 */
struct x86_seg {
	uint16_t sel;
	uint32_t attr;
	uint32_t limit;
	uint64_t base;
};
#define SEG_TYPE 0x000fu
#define SEG_S 0x0010u
#define SEG_DPL(attr) (((attr) >> 5) & 3)
#define SEG_P 0x0080u
#define SEG_AVL 0x1000u
#define SEG_L 0x2000u
#define SEG_DB 0x4000u
#define SEG_G 0x8000u
#define SEG_UNUSABLE 0x10000u

struct x86_table { /* GDTR, IDTR */
	uint64_t base;
	uint16_t limit;
};

enum {
	FLAG_CF = 1 << 0,
	FLAG_PF = 1 << 2,
	FLAG_AF = 1 << 4,
	FLAG_ZF = 1 << 6,
	FLAG_SF = 1 << 7,
	FLAG_TF = 1 << 8,
	FLAG_IF = 1 << 9,
	FLAG_DF = 1 << 10,
	FLAG_OF = 1 << 11,
	FLAG_IOPL = 3 << 12,
	FLAG_NT = 1 << 14,
	FLAG_RF = 1 << 16,
	FLAG_VM = 1 << 17,
	FLAG_AC = 1 << 18,
	FLAG_VIF = 1 << 19,
	FLAG_VIP = 1 << 20,
	FLAG_ID = 1 << 21,
};
enum {
	CR0_PE = 1 << 0,
	CR0_MP = 1 << 1,
	CR0_EM = 1 << 2,
	CR0_TS = 1 << 3,
	CR0_ET = 1 << 4,
	CR0_NE = 1 << 5,
	CR0_WP = 1 << 16,
	CR0_AM = 1 << 18,
	CR0_NW = 1 << 29,
	CR0_CD = 1 << 30,
};
#define CR0_PG 0x80000000u
enum {
	CR4_VME = 1 << 0,
	CR4_PVI = 1 << 1,
	CR4_TSD = 1 << 2,
	CR4_DE = 1 << 3,
	CR4_PSE = 1 << 4,
	CR4_PAE = 1 << 5,
	CR4_MCE = 1 << 6,
	CR4_PGE = 1 << 7,
	CR4_PCE = 1 << 8,
	CR4_OSFXSR = 1 << 9,
	CR4_OSXMMEXCPT = 1 << 10,
	CR4_UMIP = 1 << 11,
	CR4_LA57 = 1 << 12,
	CR4_FSGSBASE = 1 << 16,
	CR4_PCIDE = 1 << 17,
	CR4_OSXSAVE = 1 << 18,
	CR4_SMEP = 1 << 20,
	CR4_SMAP = 1 << 21,
	CR4_PKE = 1 << 22,
};
enum { EFER_SCE = 1 << 0, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11, EFER_FFXSR = 1 << 14 };

enum x86_vector {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19,
};

/* x87 and MMX registers and environment, in the layout of FXSAVE64's first 160 bytes (SDM 1 table 10-2); the XMM part
 * of that layout is not used: XMM, YMM and ZMM registers are `zmm`. 16-byte aligned. */
struct x87_state {
	uint16_t fcw, fsw;
	uint8_t ftw; /* abridged: one bit a register, 1 = not empty */
	uint8_t reserved;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16]; /* ST0-ST7 (top-relative), low 10 bytes */
};

#define MTRR_VARIABLE 8

struct x86_state {
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags; /* bit 1 always set */
	struct x86_seg seg[SEG_COUNT];
	struct x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4;
	uint64_t xcr0;
	uint64_t dr[8]; /* 0-3, 6, 7 */
	uint64_t efer;
	/* MSRs. CR8 and IA32_APIC_BASE live in the local APIC. FS.base and GS.base are seg[].base. */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable, spec_ctrl, tsc_adjust, mcg_status;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[MTRR_VARIABLE], mtrr_mask[MTRR_VARIABLE];
	uint64_t kvm_unused; /* keeps the layout stable */
	uint64_t pdpte[4];   /* PAE paging: loaded by MOV CR3 (SDM 3A 4.4.1) */
	/* interruptibility */
	uint8_t shadow; /* 1: interrupts are blocked until the next instruction has retired (STI, MOV SS, POP SS) */
	uint8_t nmi_blocked; /* until IRET */
	uint8_t smm;
	uint8_t pad;
	uint32_t smbase;
	struct x87_state x87 __attribute__((aligned(16)));
	uint8_t zmm[32][64] __attribute__((aligned(64))); /* XMM, YMM, ZMM 0-31 */
	uint64_t k[8];					  /* AVX-512 opmask */
};

/* What CPUID says; computed once per machine from the host, the engine's abilities and the chosen baseline. */
struct cpuid_leaf {
	uint32_t leaf, sub, eax, ebx, ecx, edx;
};
struct cpu_model {
	char name[32];
	int leaf_count;
	struct cpuid_leaf leaf[96];
	uint64_t xcr0_supported;
	uint64_t cr4_supported;
	uint64_t efer_supported;
	unsigned phys_bits, virt_bits;
};

#endif
