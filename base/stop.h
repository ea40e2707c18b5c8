/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C (SIGINT), SIGTERM and SIGHUP, kept back while something is under way that undoes itself when it is asked to stop. For
 * programs with one thread at that time.
 */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdbool.h>

void stop_hold(void);
/* Has one come since stop_hold()? */
bool stop_wanted(void);
/* They do again what they usually do. One that came is forgotten, and told: true. */
bool stop_release(void);

#endif
