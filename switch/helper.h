/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's talk with lodge-nethelper (nethelper/protocol.h). */
#ifndef SWITCH_HELPER_H
#define SWITCH_HELPER_H

#include "base/err.h"

/* Start the helper, directly and then through sudo, and ask. Its socket in *sock, the descriptor it gave is returned,
 * the name of the interface in `name`; -1 and *e. */
int helper_open(const char *request, int *sock, char name[16], struct err *e);
/* One more request in the same session. */
int helper_ask(int sock, const char *request, char name[16], struct err *e);

#endif
