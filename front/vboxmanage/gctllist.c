/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestcontrol: what runs in the guest (list, closeprocess, closesession, watch), and its agent (waitrunlevel,
 * updateadditions).
 */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "front/vboxmanage/gctl.h"

/* ---- list ---- */

struct listing {
	struct gctl *g;
	bool sessions, processes;
	int session_count, process_count, in_session;
};

static int
print_row(void *opaque, const struct host_guest_row *r)
{
	struct listing *l = opaque;

	if (!r->pid) {
		l->in_session = 0;
		if (!l->session_count++ && l->sessions)
			printf("Active guest sessions:\n");
		if (l->sessions)
			printf("\n\tSession #%-3d ID=%-3llu User=%-16s Name=%s\n", l->session_count - 1,
				(unsigned long long)r->session, r->user, r->name);
		return 0;
	}
	l->process_count++;
	if (l->processes)
		printf("\t\tProcess #%-3d PID=%-6lld %s: %s\n", l->in_session++, (long long)r->pid,
			r->running ? "started" : "terminated", r->command);
	return 0;
}

int
gctl_list(struct gctl *g)
{
	struct listing l = { .g = g };
	struct err e = { 0 };

	if (g->word_count != 1)
		return fail_syntax(g->c, g->word_count ? "Too many parameters" : "Must specify a list category");
	if (!strcmp(g->words[0], "all"))
		l.sessions = l.processes = true;
	else if (!strcmp(g->words[0], "sessions"))
		l.sessions = true;
	else if (!strcmp(g->words[0], "processes"))
		l.sessions = l.processes = true;
	else if (!strcmp(g->words[0], "files"))
		l.sessions = false; /* files are opened and closed within a command: none is open between them */
	else
		return fail_syntax(g->c, "Unknown list category '%s'", g->words[0]);
	if (host_guest_each(g->c->host, g->vm, print_row, &l, &e))
		return gctl_fail(g, &e);
	if (!l.sessions)
		printf("No guest files found\n");
	else if (!l.session_count)
		printf("No active guest sessions found\n");
	else
		printf("\nTotal guest sessions: %d\n", l.session_count);
	if (l.processes && l.session_count)
		printf("Total guest processes: %d\n", l.process_count);
	return 0;
}

/* ---- closing ---- */

#define FOUND_MAX 64

struct search {
	const struct gctl *g;
	uint64_t found[FOUND_MAX];
	int count;
};

static int
match_session(void *opaque, const struct host_guest_row *r)
{
	struct search *s = opaque;
	bool mine = s->g->has_session	 ? r->session == s->g->session
		    : s->g->session_name ? !fnmatch(s->g->session_name, r->name, 0)
					 : true;

	if (!r->pid && mine && s->count < FOUND_MAX)
		s->found[s->count++] = r->session;
	return 0;
}

static int
find_sessions(struct gctl *g, struct search *s)
{
	struct err e = { 0 };

	*s = (struct search){ .g = g };
	return host_guest_each(g->c->host, g->vm, match_session, s, &e) ? gctl_fail(g, &e) : 0;
}

int
gctl_closesession(struct gctl *g)
{
	struct search s;
	struct err e = { 0 };
	int r;

	if (!g->has_session && !g->session_name && !g->all)
		return fail_syntax(g->c, "No session ID specified!");
	r = find_sessions(g, &s);
	if (r)
		return r;
	if (!s.count) {
		if (g->all)
			return 0;
		return g->has_session ? fail_plain(g->c, "Guest session with ID %llu not found",
						(unsigned long long)g->session)
				      : fail_plain(g->c, "No guest session '%s' found", g->session_name);
	}
	for (int i = 0; i < s.count; i++)
		if (host_guest_end(g->c->host, g->vm, s.found[i], 0, &e))
			return gctl_fail(g, &e);
	return 0;
}

int
gctl_closeprocess(struct gctl *g)
{
	struct search s;
	struct err e = { 0 };
	uint64_t pid;
	int r;

	if (!g->has_session && !g->session_name)
		return fail_syntax(g->c, "No session ID specified!");
	if (!g->word_count)
		return fail_syntax(g->c, "At least one PID must be specified to kill!");
	for (int i = 0; i < g->word_count; i++)
		if (!str_to_u64(g->words[i], 2, 1u << 30, &pid))
			return fail_syntax(g->c, "Invalid PID value: '%s'", g->words[i]);
	r = find_sessions(g, &s);
	if (!r && !s.count)
		return fail_plain(
			g->c, "No guest session '%s' found", g->session_name ? g->session_name : "of that ID");
	for (int i = 0; !r && i < g->word_count; i++) {
		bool done = false;

		str_to_u64(g->words[i], 2, 1u << 30, &pid);
		for (int k = 0; k < s.count && !done; k++)
			done = !host_guest_end(g->c->host, g->vm, s.found[k], (int64_t)pid, &e);
		if (!done)
			r = e.code == ERR_NOT_FOUND ? fail_plain(g->c, "No process %s found", g->words[i])
						    : gctl_fail(g, &e);
		else if (g->verbose)
			printf("Process (PID %s) terminated\n", g->words[i]);
	}
	return r;
}

/* ---- watch ---- */

#define ROWS_MAX 512

struct seen {
	struct {
		uint64_t session;
		int64_t pid;
		bool running;
	} row[ROWS_MAX];
	int count;
	const struct seen *before;
};

static int
watch_row(void *opaque, const struct host_guest_row *r)
{
	struct seen *s = opaque;
	bool known = false, ran = false;

	if (s->count == ROWS_MAX)
		return 0;
	for (int i = 0; i < s->before->count; i++)
		if (s->before->row[i].session == r->session && s->before->row[i].pid == r->pid) {
			known = true;
			ran = s->before->row[i].running;
		}
	if (!known && !r->pid)
		printf("Session ID=%llu \"%s\" registered\n", (unsigned long long)r->session, r->name);
	else if (!known)
		printf("Process PID=%lld \"%s\" of session ID=%llu registered\n", (long long)r->pid, r->command,
			(unsigned long long)r->session);
	if (r->pid && !r->running && (!known || ran))
		printf("Process PID=%lld terminated\n", (long long)r->pid);
	s->row[s->count].session = r->session;
	s->row[s->count].pid = r->pid;
	s->row[s->count++].running = r->running;
	return 0;
}

static void
tell_gone(const struct seen *old, const struct seen *now)
{
	for (int i = 0; i < old->count; i++) {
		bool there = false;

		for (int k = 0; k < now->count; k++)
			there |= now->row[k].session == old->row[i].session && now->row[k].pid == old->row[i].pid;
		if (!there && !old->row[i].pid)
			printf("Session ID=%llu unregistered\n", (unsigned long long)old->row[i].session);
	}
}

int
gctl_watch(struct gctl *g)
{
	struct seen *now = xcalloc(1, sizeof(*now)), *before = xcalloc(1, sizeof(*before));
	time_t end = time(NULL) + (time_t)((g->timeout_ms + 999) / 1000);
	struct err e = { 0 };
	int r = 0;

	while (!r) {
		struct seen *t = before;

		now->count = 0;
		now->before = before;
		if (host_guest_each(g->c->host, g->vm, watch_row, now, &e))
			r = gctl_fail(g, &e);
		else
			tell_gone(before, now);
		fflush(stdout);
		before = now;
		now = t;
		if (g->has_timeout && time(NULL) >= end)
			break;
		usleep(200000);
	}
	free(now);
	free(before);
	return r;
}

/* ---- the agent ---- */

int
gctl_waitrunlevel(struct gctl *g)
{
	static const char *const levels[] = { "system", "userland", "desktop" };
	uint64_t timeout = g->has_timeout ? g->timeout_ms : 3600000;
	struct err e = { 0 };
	char *version;
	bool ours;
	size_t level = 0;

	if (g->word_count != 1)
		return fail_syntax(g->c, g->word_count ? "Too many parameters" : "Missing run level to wait for");
	while (level < ARRAY_LEN(levels) && strcmp(g->words[0], levels[level]))
		level++;
	if (level == ARRAY_LEN(levels))
		return fail_syntax(g->c, "Invalid run level specified. Valid values are: system, userland, desktop");
	if (level == 2)
		return fail_argument(
			g->c, "'desktop': no agent here tells when a desktop is there; wait for 'userland'");
	if (host_guest_agent(g->c->host, g->vm, timeout, &version, &ours, &e)) {
		if (e.code == ERR_IPRT || e.code == ERR_TIMEOUT) {
			err_set(&e, ERR_TIMEOUT, "Run level was not reached within time: no guest agent answers");
			fail_api(
				g->c, &e, &(struct site){ "Guest", "waitForRunLevel()", 1, "VBoxManageGuestCtrl.cpp" });
			gctl_why(g);
			return 1;
		}
		return gctl_fail(g, &e);
	}
	if (g->verbose)
		printf("Run level reached: %s agent %s\n", ours ? "Lodge's" : "QEMU's", version);
	free(version);
	return 0;
}

int
gctl_updateadditions(struct gctl *g)
{
	struct err e = { 0 };
	char *said;

	if (g->word_count)
		return fail_argument(g->c, "The installer takes no arguments ('%s')", g->words[0]);
	if (host_guest_update(g->c->host, g->vm, g->source, g->has_timeout ? g->timeout_ms : 180000, &said, &e))
		return gctl_fail(g, &e);
	if (g->verbose)
		fputs(said, stdout);
	if (!g->quiet)
		printf("Guest Additions successfully updated\n");
	free(said);
	return 0;
}
