/* SPDX-License-Identifier: Apache-2.0 */
/* The boot loader of answer media. */
#ifndef HOST_UNATTENDED_BOOT_H
#define HOST_UNATTENDED_BOOT_H

#include <stdint.h>

/* The loader as it is put on the medium, 2048 bytes; a struct of parameters is written into it at PARAMS_AT. */
#define ANSWER_BOOT_SIZE 2048
#define ANSWER_BOOT_PARAMS 0x40
#define ANSWER_BOOT_SEGMENTS 4
extern const uint8_t answer_boot[ANSWER_BOOT_SIZE];

/*
 * The first four bytes, little endian, of the code that libparted writes into the first sector with a new partition
 * table: it starts the active partition, where nothing is yet. Debian's installer replaces it near its end, by GRUB's.
 */
#define ANSWER_BOOT_GENERIC 0x1000b8fau

/* Little endian, no padding. */
struct answer_boot_params {
	char magic[8];	/* "LODGEBOO" */
	uint32_t sum;	/* FNV-1a of the disk's first sector as it was when the medium was made */
	uint32_t count; /* of segments */
	struct {
		uint32_t lba, sectors; /* of 2048 bytes */
		uint32_t at;	       /* guest physical */
	} segment[ANSWER_BOOT_SEGMENTS];
};

/* Where the loader puts the kernel's real-mode part, and offsets in that. Linux boot protocol, "Loading The Rest of The
 * Kernel". */
#define ANSWER_SETUP_AT 0x10000
#define ANSWER_SETUP_STACK 0xe000
#define ANSWER_SETUP_SIZE 0xf000 /* with the command line, which is at ANSWER_SETUP_STACK */

#endif
