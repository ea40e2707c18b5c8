/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's vector and mask registers and MXCSR, from v.state to the host's and back.
 *
 * They are loaded when a block comes to its first vector instruction (fp_off != 0) and stay there from block to block;
 * jit_fp_home() brings them back before C code that may use vector registers itself. What runs while they are loaded
 * (run.c, cache.c, mmu.c and what it calls) is compiled for general registers only. An MXCSR with unmasked exceptions
 * is never loaded: such exceptions would be signals; the interpreter runs the instructions then.
 */
#include "cpu/jit/jit.h"

#include "cpu/x86/vec.h"

#define MXCSR_MASKS 0x1f80u

#define EACH16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define EACH16_HIGH(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define EACH8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define STORE_Z(n) "vmovdqa64 %%zmm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_Z(n) "vmovdqa64 64*" #n "(%0), %%zmm" #n "\n\t"
#define STORE_Y(n) "vmovdqa %%ymm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_Y(n) "vmovdqa 64*" #n "(%0), %%ymm" #n "\n\t"
#define STORE_X(n) "movaps %%xmm" #n ", 64*" #n "(%0)\n\t"
#define LOAD_X(n) "movaps 64*" #n "(%0), %%xmm" #n "\n\t"
#define STORE_KQ(n) "kmovq %%k" #n ", 8*" #n "(%0)\n\t"
#define LOAD_KQ(n) "kmovq 8*" #n "(%0), %%k" #n "\n\t"
#define STORE_KW(n) "kmovw %%k" #n ", 8*" #n "(%0)\n\t"
#define LOAD_KW(n) "kmovw 8*" #n "(%0), %%k" #n "\n\t"

bool
jit_fp_load(struct jit_cpu *j)
{
	struct x86_state *s = &j->i.c.v.state;
	const struct vec_host *h = &j->i.c.vec->host;

	if ((s->x87.mxcsr & MXCSR_MASKS) != MXCSR_MASKS)
		return false;
	if (h->avx512)
		__asm__ volatile(EACH16(LOAD_Z) EACH16_HIGH(LOAD_Z) : : "r"(s->zmm) : "memory");
	else if (h->avx)
		__asm__ volatile(EACH16(LOAD_Y) : : "r"(s->zmm) : "memory");
	else
		__asm__ volatile(EACH16(LOAD_X) : : "r"(s->zmm) : "memory");
	if (h->avx512bw)
		__asm__ volatile(EACH8(LOAD_KQ) : : "r"(s->k) : "memory");
	else if (h->avx512)
		__asm__ volatile(EACH8(LOAD_KW) : : "r"(s->k) : "memory");
	__asm__ volatile("ldmxcsr %0" : : "m"(s->x87.mxcsr));
	j->hot.fp_off = 0;
	j->fp_loads++;
	return true;
}

void
jit_fp_store(struct jit_cpu *j)
{
	struct x86_state *s = &j->i.c.v.state;
	const struct vec_host *h = &j->i.c.vec->host;
	const uint32_t mxcsr = MXCSR_MASKS;

	if (h->avx512)
		__asm__ volatile(EACH16(STORE_Z) EACH16_HIGH(STORE_Z) "vzeroupper" : : "r"(s->zmm) : "memory");
	else if (h->avx)
		__asm__ volatile(EACH16(STORE_Y) "vzeroupper" : : "r"(s->zmm) : "memory");
	else
		__asm__ volatile(EACH16(STORE_X) : : "r"(s->zmm) : "memory");
	if (h->avx512bw)
		__asm__ volatile(EACH8(STORE_KQ) : : "r"(s->k) : "memory");
	else if (h->avx512)
		__asm__ volatile(EACH8(STORE_KW) : : "r"(s->k) : "memory");
	__asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(s->x87.mxcsr) : "m"(mxcsr));
	j->hot.fp_off = 1;
}
