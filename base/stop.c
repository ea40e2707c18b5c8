/* SPDX-License-Identifier: Apache-2.0 */
/* See stop.h. A signal that is blocked stays pending: that is where it is looked for. */
#include <signal.h>
#include <stddef.h>
#include <time.h>

#include "base/stop.h"

static sigset_t
stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

void
stop_hold(void)
{
	sigset_t set = stop_signals();

	sigprocmask(SIG_BLOCK, &set, NULL);
}

bool
stop_wanted(void)
{
	sigset_t pending;

	sigpending(&pending);
	return sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) || sigismember(&pending, SIGHUP);
}

bool
stop_release(void)
{
	sigset_t set = stop_signals();
	struct timespec now = { 0 };
	bool wanted = stop_wanted();

	while (stop_wanted() && sigtimedwait(&set, NULL, &now) > 0)
		;
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return wanted;
}
