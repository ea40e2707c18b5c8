/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest physical address space.
 *
 * Devices describe it as regions (RAM, ROM, MMIO) with a priority; mem_update() flattens them into an array of
 * disjoint sections sorted by address, published under a sequence lock so that vCPUs look up without the machine lock.
 * Whenever the flat view changes, listeners are told (engines drop their TLBs, KVM moves its slots).
 *
 * THE door: mem_map() is the only way from a guest physical address + length to a host pointer, besides an engine's
 * own TLB, which is filled from mem_find(). Everything a guest names goes through one of the two.
 *
 * Page flags: each 4 KiB page of RAM has a byte of flags and a generation. A writer of guest memory (engine or device)
 * stores first and then looks at the flags: if they are not 0 it calls mem_page_written().
 *   PAGE_CODE  some engine holds decoded or translated instructions of this page. Set by mem_watch_code(), which makes
 *              sure (membarrier) that every store of another thread either is seen by the reader that follows or sees
 *              the flag. A write raises the page's generation; holders compare generations before using what they hold.
 *   PAGE_LOG   the next write is to be noted in the dirty log (live migration, snapshots, display); a write sets the
 *              page's bit in `dirty` and clears PAGE_LOG.
 */
#ifndef BUS_MEM_H
#define BUS_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* guest physical address */
typedef uint64_t gva_t; /* guest virtual (linear) address */

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_MASK 4095u

enum { PAGE_CODE = 1, PAGE_LOG = 2 };

/* A block of host memory that is guest memory: RAM, a ROM image, video memory. */
struct ram {
	const char *name;
	uint8_t *host; /* page aligned */
	/* A file that is this memory, offset for offset, which an engine may map once more while nobody forbids it
	 * (mem_alias_stop()); -1: it can be reached through `host` only. */
	_Atomic int fd;
	uint8_t *large; /* of each 2 MiB of a file: ram_make_large() has been there */
	uint64_t size;	/* multiple of 4 KiB */
	_Atomic uint8_t *flags;
	_Atomic uint32_t *gens;
	uint8_t *dirty; /* one byte a page, set when a logged page is written */
	struct mem *mem;
	struct ram *next;
};

/*
 * Handlers of a port range or an MMIO region. `off` is relative to its start, `size` 1, 2, 4 or 8 within
 * [min_size, max_size]; the dispatcher splits larger accesses (little-endian, ascending) and widens smaller ones where
 * the device says it cannot do them. Bits above `size` in a read's result are ignored.
 */
struct bus_ops {
	uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
	void (*write)(void *opaque, uint64_t off, uint64_t value, unsigned size);
	uint8_t min_size, max_size; /* 0 means 1 and 4 */
};

enum mem_kind { MEM_RAM, MEM_ROM, MEM_MMIO };

/*
 * A region, embedded by whoever owns it. MEM_ROM: reads like RAM, writes are dropped. Higher priority covers lower
 * where both are enabled; equal priorities: the later added covers. After changing base, enabled, kind, ... of a region
 * that is already added, call mem_update().
 */
struct mem_region {
	const char *name;
	enum mem_kind kind;
	bool enabled;
	int priority; /* 0 RAM and ROM, 1 devices, 2 remapping chips (PAM, SMRAM) */
	gpa_t base;
	uint64_t size;
	struct ram *ram; /* MEM_RAM, MEM_ROM */
	uint64_t ram_offset;
	const struct bus_ops *ops; /* MEM_MMIO */
	void *opaque;
	struct mem_region *next;
	uint32_t order;
};

struct mem_section {
	gpa_t start, last; /* inclusive */
	enum mem_kind kind;
	struct ram *ram;
	uint64_t ram_offset; /* of `start` in ram */
	struct mem_region *region;
	uint64_t region_offset; /* of `start` in region */
};

#define MEM_SECTIONS_MAX 512

struct mem_listener {
	void (*changed)(void *opaque);
	/* A page with PAGE_CODE was written, its generation is already raised; on the writer's thread. May be NULL. */
	void (*code_written)(void *opaque, struct ram *ram, uint64_t page);
	/*
	 * For who maps ram->fd once more: pages of `ram` have got flags that writes through such mappings would not
	 * look at (page UINT64_MAX: any of them). When it returns no such write happens any more unnoticed. And: such
	 * mappings are to go, all of them; mem->no_alias is set. On any thread; either may be NULL.
	 */
	void (*watched)(void *opaque, struct ram *ram, uint64_t page);
	void (*unalias)(void *opaque);
	/* For who lets the guest write without looking at page flags (KVM); may be NULL. A round of the dirty log over
	 * `ram` starts; what was written since is to be noted in ram->dirty. */
	void (*log_start)(void *opaque, struct ram *ram);
	void (*log_sync)(void *opaque, struct ram *ram);
	void *opaque;
	struct mem_listener *next;
};

struct mem {
	struct mem_region *regions;
	struct ram *rams;
	struct mem_listener *listeners;
	_Atomic uint32_t seq; /* odd while `sections` is being replaced */
	int count;
	uint32_t next_order;
	_Atomic unsigned no_alias; /* mem_alias_stop() */
	struct mem_section sections[MEM_SECTIONS_MAX];
};

int mem_open(struct mem *m);
void mem_close(struct mem *m);

/* `size` bytes of zeroed guest memory (private anonymous, transparent huge pages asked for); NULL if there is none. */
struct ram *ram_create(struct mem *m, const char *name, uint64_t size);

/* The same as a file with an `fd` where the host gives such memory large pages too; else as above. */
struct ram *ram_create_file(struct mem *m, const char *name, uint64_t size);
/* A page of a file is being used: let the host have the 2 MiB around it in a large page. Any thread. */
void ram_make_large(struct ram *r, uint64_t page);
/*
 * What depends on `host` being the only way to memory (userfaultfd) stands between these two; they nest. Nobody maps
 * ram->fd meanwhile. Any thread.
 */
void mem_alias_stop(struct mem *m);
void mem_alias_go(struct mem *m);
/* Something else was mapped at `host`, or will be: the file is no more what the memory is. For good. */
void ram_forget_file(struct ram *r);
/* [at, at + len) of a block's `host` becomes zeroes and costs the host nothing until it is touched. 0 or -errno. */
int mem_discard(struct mem *m, void *at, uint64_t len);
/* Was [at, at + len) of a block never touched? Then it is zeroes, and better not read: that would cost memory. False
 * where that is not known. */
bool mem_untouched(const struct mem *m, const void *at, uint64_t len);

void mem_add(struct mem *m, struct mem_region *r);
void mem_remove(struct mem *m, struct mem_region *r);
void mem_update(struct mem *m); /* flatten again and tell listeners, if anything changed */
void mem_listen(struct mem *m, struct mem_listener *l);
void mem_unlisten(struct mem *m, struct mem_listener *l);

/* The section that holds `gpa`, copied. False: nothing is there (reads as all ones, writes dropped). Any thread. */
bool mem_find(struct mem *m, gpa_t gpa, struct mem_section *out);

/*
 * Host pointer to [gpa, gpa+len) if all of it is one stretch of RAM (or ROM and !write); NULL otherwise. Valid while
 * the machine lock is held, or, for I/O in flight, until mem_unmap() (RAM blocks are never freed before the machine).
 * After writing through it, call mem_written() (mem_unmap() does).
 */
void *mem_map(struct mem *m, gpa_t gpa, uint64_t len, bool write);
void mem_unmap(struct mem *m, gpa_t gpa, uint64_t len, bool written);
void mem_written(struct mem *m, gpa_t gpa, uint64_t len);

/* Copies for descriptors and registers; cross pages and sections. False if any byte is not RAM (ROM for reads);
 * then nothing is written (write) or the buffer is zeroed (read). Any thread. */
bool mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len);
bool mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len);

/* Any access, dispatched to RAM or a handler, as a CPU does it. Machine lock held for MMIO. size 1, 2, 4, 8. */
uint64_t mem_load(struct mem *m, gpa_t gpa, unsigned size);
void mem_store(struct mem *m, gpa_t gpa, uint64_t value, unsigned size);

/* Slow path of a store whose page has flags; see the head of this file. `page` indexes ram->flags. Any thread. */
void mem_page_written(struct ram *ram, uint64_t page);
/* Set PAGE_CODE with the ordering described above; cheap when it is already set. Any thread. */
void mem_watch_code(struct ram *ram, uint64_t page);
/* Start a dirty-log round over [offset, offset+len) of `ram`: sets PAGE_LOG, clears dirty. Machine lock held. */
void mem_log_start(struct ram *ram, uint64_t offset, uint64_t len);
/* Before looking at `dirty`: collect what engines know. Machine lock held. */
void mem_log_sync(struct ram *ram);

/* Split and widen accesses for `ops`; shared by MMIO and ports. */
uint64_t bus_read(const struct bus_ops *ops, void *opaque, uint64_t off, unsigned size);
void bus_write(const struct bus_ops *ops, void *opaque, uint64_t off, uint64_t value, unsigned size);

#endif
