/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of an image file, read in pages and written back in a safe order. Private to block/.
 *
 * A driver reads and changes its tables here. A change has a phase, 1 to META_PHASES - 1; a commit writes the changed
 * pages of phase 1, makes the file stable, writes those of phase 2, makes it stable, and so on. So a change of phase 1
 * goes to the disk together with the data before it, and each later phase only when all earlier ones, and all data
 * that had been written when the commit began, are there. All changes within one page have the same phase.
 *
 * Clean pages are dropped when there are many; the memory is bounded as long as the driver commits when meta_full().
 */
#ifndef BLOCK_META_H
#define BLOCK_META_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define META_PHASES 6

struct meta;

/*
 * Tables of `fd`; page_size is 512 or 4096. `lock` is the driver's. `unsafe`: a commit writes, and waits for nothing.
 * NULL: no memory.
 */
struct meta *meta_open(int fd, unsigned page_size, pthread_mutex_t *lock, bool unsafe);
/* What the tables speak of is in the file `fd`: it is made stable whenever theirs is, and before. */
void meta_sync_also(struct meta *m, int fd);
void meta_close(struct meta *m); /* forgets what was not committed */

/* With the lock held. 0 or -errno; past the end of the file there are zeroes. */
int meta_get(struct meta *m, uint64_t off, void *buf, uint64_t len);
int meta_put(struct meta *m, uint64_t off, const void *buf, uint64_t len, int phase);
/* Whole pages become zero without being read. */
int meta_clear(struct meta *m, uint64_t off, uint64_t len, int phase);

int meta_get32le(struct meta *m, uint64_t off, uint32_t *value);
int meta_put32le(struct meta *m, uint64_t off, uint32_t value, int phase);
int meta_get64be(struct meta *m, uint64_t off, uint64_t *value);
int meta_put64be(struct meta *m, uint64_t off, uint64_t value, int phase);

/* Without the lock, from any thread. */
bool meta_dirty(struct meta *m);
bool meta_full(struct meta *m);
/* Everything that was changed, and written to the file, before the call is on stable storage after it. 0 or -errno. */
int meta_commit(struct meta *m);

#endif
