/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging images of a disk while the guest uses it: what is left to do when a snapshot is deleted (host/prune.c).
 *
 * One merge for each disk at a time, in the states of block/block.h: RUNNING, READY, then finished or cancelled by who
 * asked. merge.start is answered when it is READY; until then who asked hears how far it is. It goes on when nobody
 * listens any more: whoever deletes the snapshot again asks for the same merge and finds it under way, or READY.
 *
 * All of it runs on the loop under the machine lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/private.h"

#define TELL_NS 200000000u

struct vm_merge {
	struct vm *v;
	struct vm_disk *disk;
	struct block_merge *merge;
	enum block_merge_way way;
	char *child;
	bool top;	       /* the child is what the guest writes to */
	struct vm_asker asker; /* client 0: nobody waits */
	struct loop_timer tell;
	int percent;
};

static void
forget(struct vm_merge *g)
{
	loop_timer_cancel(&g->tell);
	json_decref(g->asker.id);
	g->disk->merge = NULL;
	free(g->child);
	free(g);
}

static void
answer(struct vm_merge *g, const struct err *e)
{
	if (g->asker.client && g->v->control)
		control_answer(g->v->control, &g->asker, e ? NULL : json_object(), e);
	json_decref(g->asker.id);
	g->asker = (struct vm_asker){ 0 };
}

static void
merge_ended(void *opaque, struct block_merge *m)
{
	struct vm_merge *g = opaque;
	struct err e = { 0 };

	loop_timer_cancel(&g->tell);
	if (block_merge_poll(m, NULL, &e) == BLOCK_MERGE_READY) {
		log_info(g->v->c->name, "'%s' is merged %s", g->child, g->way == BLOCK_MERGE_UP ? "up" : "down");
		answer(g, NULL);
		return;
	}
	log_error(g->v->c->name, "'%s' cannot be merged: %s", g->child, e.text);
	block_merge_cancel(m);
	answer(g, &e);
	forget(g);
}

static void
tell_progress(void *opaque)
{
	struct vm_merge *g = opaque;
	if (block_merge_poll(g->merge, &g->percent, NULL) != BLOCK_MERGE_RUNNING)
		return;
	if (g->asker.client && g->v->control)
		control_progress(g->v->control, &g->asker, g->percent);
	loop_timer_arm(&g->tell, loop_now() + TELL_NS);
}

/* The place of the image at `path` in the chain; -1: it is not there. */
static int
depth_of(struct block *b, const char *path)
{
	struct block_info info;

	for (int i = 0; block_chain_info(b, i, &info); i++)
		if (info.path && !strcmp(info.path, path))
			return i;
	return -1;
}

static int
start(struct vm *v, struct vm_disk *d, const char *child, enum block_merge_way way, struct err *e)
{
	int depth = depth_of(d->block, child);
	struct vm_merge *g;

	if (depth < 0)
		return err_set(e, ERR_NOT_FOUND, "'%s' is not an image of this disk", child);
	g = xcalloc(1, sizeof(*g));
	g->v = v;
	g->disk = d;
	g->way = way;
	g->top = depth == 0;
	g->child = xstrdup(child);
	loop_timer_init(&g->tell, v->m->loop, tell_progress, g);
	d->merge = g;
	g->merge = block_merge_start(d->block, depth, way, merge_ended, g, e);
	if (g->merge) {
		loop_timer_arm(&g->tell, loop_now() + TELL_NS);
		return 0;
	}
	forget(g);
	return -1;
}

enum method_result
vm_merge_start(struct vm *v, struct vm_disk *d, const char *child, bool up, const struct vm_asker *asker, struct err *e)
{
	enum block_merge_way way = up ? BLOCK_MERGE_UP : BLOCK_MERGE_DOWN;

	if (!d->merge && start(v, d, child, way, e))
		return METHOD_FAILED;
	if (!d->merge)
		return METHOD_DONE;
	if (strcmp(d->merge->child, child) || d->merge->way != way) {
		err_set(e, ERR_OBJECT_STATE, "Another image of this disk ('%s') is being merged", d->merge->child);
		return METHOD_FAILED;
	}
	if (block_merge_poll(d->merge->merge, NULL, NULL) == BLOCK_MERGE_READY)
		return METHOD_DONE;
	json_decref(d->merge->asker.id);
	d->merge->asker = (struct vm_asker){ asker->client, json_incref(asker->id) };
	return METHOD_LATER;
}

int
vm_merge_finish(struct vm *v, struct vm_disk *d, struct err *e)
{
	struct vm_merge *g = d->merge;
	struct block_info info;
	int r;

	if (!g || block_merge_poll(g->merge, NULL, NULL) != BLOCK_MERGE_READY)
		return err_set(e, ERR_OBJECT_STATE, "No merge of this disk is ready");
	r = block_merge_finish(g->merge, e);
	if (!r && g->top && g->way == BLOCK_MERGE_DOWN && block_chain_info(d->block, 0, &info)) {
		struct vm_attachment *a = &v->c->controllers[d->controller].attachments[d->attachment];

		free(a->path);
		a->path = xstrdup(info.path);
		free(a->format);
		a->format = xstrdup(info.format);
	}
	forget(g);
	return r;
}

void
vm_merge_cancel(struct vm_disk *d)
{
	struct vm_merge *g = d->merge;
	struct err e;

	if (!g)
		return;
	block_merge_cancel(g->merge);
	err_set(&e, ERR_VM_STATE, "The merge was given up");
	answer(g, &e);
	forget(g);
}

void
vm_merges_give_up(struct vm *v)
{
	for (int i = 0; i < v->disk_count; i++) {
		struct vm_merge *g = v->disks[i].merge;

		if (g && g->asker.client && g->way == BLOCK_MERGE_UP)
			vm_merge_cancel(&v->disks[i]);
	}
}
