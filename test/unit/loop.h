/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests whose links have a loop that runs: on a thread of its own, under `lock`. And a directory `dir` that is gone
 * afterwards.
 */
#ifndef TEST_UNIT_LOOP_H
#define TEST_UNIT_LOOP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/str.h"

static char dir[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;
static pthread_t thread;

static void *
run_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
begin_loop(void)
{
	loop = loop_open(&lock);
	return loop ? pthread_create(&thread, NULL, run_loop, loop) : -1;
}

static void
end_loop(void)
{
	loop_stop(loop);
	pthread_join(thread, NULL);
	loop_close(loop);
}

/* A fresh one: /tmp/NAME-XXXXXX. */
static int
make_dir(const char *name)
{
	snprintf(dir, sizeof(dir), "/tmp/%s-XXXXXX", name);
	return mkdtemp(dir) ? 0 : -1;
}

static int
remove_dir(void)
{
	char *rm = xasprintf("rm -rf %s", dir);
	int r = system(rm);

	free(rm);
	return r ? -1 : 0;
}

#endif
