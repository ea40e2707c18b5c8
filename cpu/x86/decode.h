/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zydis, and what Zydis 4.0 gets wrong.
 *
 * Not part of x86.h, so that who includes that need not see Zydis.
 */
#ifndef CPU_X86_DECODE_H
#define CPU_X86_DECODE_H

#include <Zydis/Zydis.h>

/* As ZydisDecoderDecodeFull(). `o` has ZYDIS_MAX_OPERAND_COUNT rows. */
static inline ZyanStatus
x86_decode(const ZydisDecoder *z, const void *code, unsigned avail, ZydisDecodedInstruction *in, ZydisDecodedOperand *o)
{
	ZyanStatus s = ZydisDecoderDecodeFull(z, code, avail, in, o);

	/* VEX forms of LZCNT, TZCNT and others, of Knights Corner, are nobody else's. */
	if (ZYAN_SUCCESS(s) && in->meta.isa_set >= ZYDIS_ISA_SET_KNCE && in->meta.isa_set <= ZYDIS_ISA_SET_KNC_PF_HINT)
		return ZYDIS_STATUS_DECODING_ERROR;
	/* With 32-bit addresses, REX.B and a SIB byte without base it shows R13D as the base and no displacement. */
	if (ZYAN_FAILED(s) || in->address_width != 32 || !(in->attributes & ZYDIS_ATTRIB_HAS_SIB) ||
		in->raw.modrm.mod || in->raw.sib.base != 5)
		return s;
	for (unsigned i = 0; i < in->operand_count; i++)
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY && o[i].mem.base == ZYDIS_REGISTER_R13D) {
			o[i].mem.base = ZYDIS_REGISTER_NONE;
			o[i].mem.disp.has_displacement = ZYAN_TRUE;
			o[i].mem.disp.value = in->raw.disp.value;
		}
	return s;
}

#endif
