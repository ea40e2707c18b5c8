/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of state/ share. */
#ifndef STATE_PRIVATE_H
#define STATE_PRIVATE_H

#include <pthread.h>

#include "state/state.h"

#define STATE_CHUNK (128u << 10) /* memory is compressed, checked and loaded in pieces of this size */
#define STATE_CHUNK_PAGES (STATE_CHUNK >> PAGE_SHIFT)
#define STATE_THREADS_MAX 8
#define STATE_RAMS_MAX 64
#define STATE_LEVEL 1 /* of zstd: the disk, not the ratio, should be the limit */

/* One piece of memory in the file; length 0: all zeroes, nothing is stored. */
struct state_chunk {
	uint64_t offset;
	uint32_t length, crc; /* compressed */
};

struct state_ram {
	char name[32];
	uint64_t size;
	uint64_t first; /* index of its first chunk */
	uint64_t chunks;
	struct ram *ram; /* of the machine; NULL until it is found */
};

/* All blocks of memory and their chunks, numbered through. */
struct state_map {
	struct state_ram ram[STATE_RAMS_MAX];
	int rams;
	uint64_t count;
	struct state_chunk *chunk;
};

/* ---- file.c ---- */

uint32_t state_crc(uint32_t crc, const void *p, size_t n); /* CRC-32C */
int state_map_init(struct state_map *map, struct mem *mem, struct err *e);
void state_map_free(struct state_map *map);
/* Where chunk n is in the machine's memory; *len: STATE_CHUNK or less at the end of a block. */
static inline struct mem *
state_mem(const struct state_map *map)
{
	return map->ram[0].ram->mem; /* once they are found */
}
uint8_t *state_chunk_at(const struct state_map *map, uint64_t n, uint32_t *len);
/* The chunk of an address in the machine's memory; UINT64_MAX: none. */
uint64_t state_chunk_of(const struct state_map *map, const void *address);
unsigned state_threads(void);

/* A file being written. Chunks may be given by any thread. */
struct state_writer {
	int fd;
	struct state_map *map;
	_Atomic uint64_t end; /* of what is reserved so far */
};
void state_writer_init(struct state_writer *w, int fd, struct state_map *map);
/* Compressor's memory: one a thread. */
struct state_packer {
	void *zstd;
	uint8_t *out;
	size_t room;
};
int state_packer_open(struct state_packer *p);
void state_packer_close(struct state_packer *p);
/* Compress `data` as chunk n; its length, 0 for zeroes; the CRC is put into the table. -errno. */
int state_pack(struct state_packer *p, struct state_map *map, uint64_t n, const uint8_t *data, uint32_t len);
/* Write what was packed at `offset`. 0 or -errno. */
int state_put(struct state_writer *w, struct state_packer *p, uint64_t n, uint64_t offset);
/* Table, description, header; then it is complete. */
int state_writer_finish(struct state_writer *w, const struct str *description, struct err *e);

/* Is it to be given up? */
static inline bool
state_stopped(const struct state_progress *p)
{
	return p && p->stopped && p->stopped(p->opaque);
}

struct state_file {
	int fd;
	char *path;
	uint64_t size;
	struct str description;
	struct state_map map;
	struct cpu_model model;
	struct state_pager *pager;
};
/* Decompress chunk n into `out`. `scratch` has room for ZSTD_compressBound(STATE_CHUNK). 0 or -errno. */
int state_get(const struct state_file *f, uint64_t n, void *zstd, uint8_t *scratch, uint8_t *out, uint32_t len);
size_t state_bound(void);

/* ---- describe.c ---- */

/* Check the description and take the CPU model out of it. */
int state_parse(struct state_file *f, struct err *e);

/* ---- pager.c ---- */

int state_pager_start(struct state_file *f, struct machine *m, int uffd, struct err *e);

#endif
