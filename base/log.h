/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one fact a line, a sentence with its numbers, prefixed by who says it ("web1/ahci0: ...").
 *
 * Lines go to stderr until log_open_file() names a file. Levels: error, warn, info are always written; trace only for
 * groups switched on by LODGE_TRACE=group,group (or "all"). Counters, not log lines, belong on hot paths; a message a
 * guest can cause goes through log_guest(), which drops repeats.
 * Thread-safe. The log is one of the few process-wide states.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_TRACE };

/* Append to `path` (created 0600) from now on. Returns 0 or -errno; on failure the old destination stays. */
int log_open_file(const char *path);

/* Lines below `level` are dropped (default LOG_INFO; LOG_WARN suits front ends). */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* What log_open_file() was given; "": standard error. The text stays until the next call of that. */
const char *log_destination(void);

void log_line(enum log_level level, const char *who, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error(who, ...) log_line(LOG_ERROR, who, __VA_ARGS__)
#define log_warn(who, ...) log_line(LOG_WARN, who, __VA_ARGS__)
#define log_info(who, ...) log_line(LOG_INFO, who, __VA_ARGS__)

/* For what a guest did wrong: at most 16 lines from one call site, the last of them saying so. */
#define log_guest(who, ...)                                                                                            \
	do {                                                                                                           \
		static _Atomic unsigned log_guest_count;                                                               \
		log_guest_limited(&log_guest_count, who, __VA_ARGS__);                                                 \
	} while (0)
void log_guest_limited(_Atomic unsigned *count, const char *who, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Is trace group `group` on? Cheap enough for a slow path, not for a hot one. */
bool log_tracing(const char *group);

#endif
