/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define GUEST_LINES_MAX 16

/* lint: globals: the log is process-wide by design (style.md, habit 9) */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd = STDERR_FILENO;
static char destination[4096];
static enum log_level max_level = LOG_INFO;

int
log_open_file(const char *path)
{
	int n = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (n < 0)
		return -errno;
	pthread_mutex_lock(&lock);
	if (fd != STDERR_FILENO)
		close(fd);
	fd = n;
	snprintf(destination, sizeof(destination), "%s", path);
	pthread_mutex_unlock(&lock);
	return 0;
}

void
log_set_level(enum log_level level)
{
	max_level = level;
}

enum log_level
log_get_level(void)
{
	return max_level;
}

const char *
log_destination(void)
{
	return destination;
}

static void
vlog(enum log_level level, const char *who, const char *fmt, va_list ap)
{
	static const char *const names[] = { "error", "warning", "info", "trace" };
	char buf[1200];
	struct timespec ts;
	struct tm tm;
	int n = 0, r;

	if (level > max_level)
		return;
	if (fd != STDERR_FILENO) {
		clock_gettime(CLOCK_REALTIME, &ts);
		gmtime_r(&ts.tv_sec, &tm);
		n = (int)strftime(buf, sizeof(buf), "%FT%T", &tm);
		n += snprintf(buf + n, sizeof(buf) - n, ".%03ldZ ", ts.tv_nsec / 1000000);
	}
	n += snprintf(buf + n, sizeof(buf) - n, "%s: ", who);
	if (level != LOG_INFO)
		n += snprintf(buf + n, sizeof(buf) - n, "%s: ", names[level]);
	if (n < (int)sizeof(buf) - 1) {
		r = vsnprintf(buf + n, sizeof(buf) - n, fmt, ap);
		if (r > 0)
			n += r;
	}
	if (n > (int)sizeof(buf) - 2)
		n = sizeof(buf) - 2;
	buf[n++] = '\n';
	pthread_mutex_lock(&lock);
	/* A log that cannot be written (disk full) must not stop the machine. */
	r = (int)write(fd, buf, (size_t)n);
	(void)r;
	pthread_mutex_unlock(&lock);
}

void
log_line(enum log_level level, const char *who, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(level, who, fmt, ap);
	va_end(ap);
}

void
log_guest_limited(_Atomic unsigned *count, const char *who, const char *fmt, ...)
{
	unsigned n = (*count)++;
	va_list ap;

	if (n >= GUEST_LINES_MAX)
		return;
	va_start(ap, fmt);
	vlog(LOG_WARN, who, fmt, ap);
	va_end(ap);
	if (n == GUEST_LINES_MAX - 1)
		log_line(LOG_WARN, who, "(further messages of this kind are not shown)");
}

bool
log_tracing(const char *group)
{
	const char *env = getenv("LODGE_TRACE"), *p;
	size_t n = strlen(group);

	if (!env)
		return false;
	if (!strcmp(env, "all"))
		return true;
	for (p = env; (p = strstr(p, group)); p += n)
		if ((p == env || p[-1] == ',') && (!p[n] || p[n] == ','))
			return true;
	return false;
}
