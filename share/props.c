/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest properties of a running machine: names with values, a time and flags, written by the host, by the guest's
 * drivers and by services in the guest.
 *
 * The store has a lock of its own and may be used from any thread. A change wakes the waiters whose patterns match;
 * their functions are called without the lock. The last changes are remembered, so that a waiter that says what it saw
 * last misses none in between (VirtualBox's GET_NOTIFICATION).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/str.h"
#include "share/share.h"

#define HISTORY 64

struct prop_waiter {
	char *patterns;
	prop_wait_fn *fn;
	void *opaque;
	struct prop_waiter *next;
};

struct props {
	pthread_mutex_t lock;
	struct prop *list[PROPS_MAX]; /* sorted by name */
	int count;
	struct prop history[HISTORY]; /* history[changes % HISTORY] is the next to be overwritten */
	uint64_t changes;
	int64_t last_time;
	struct prop_waiter *waiters;
	void (*changed)(void *opaque);
	void *opaque;
};

/* ---- names, values, flags ---- */

static const struct {
	unsigned bits;
	const char *name;
} flag_names[] = {
	{ PROP_TRANSIENT, "TRANSIENT" },
	{ PROP_RDONLYGUEST | PROP_RDONLYHOST, "READONLY" },
	{ PROP_RDONLYGUEST, "RDONLYGUEST" },
	{ PROP_RDONLYHOST, "RDONLYHOST" },
	{ PROP_TRANSIENT | PROP_TRANSRESET, "TRANSRESET" },
};

/* RFC 3629; nothing above U+10FFFF, no surrogates, no overlong forms. */
static size_t
utf8_sequence(const unsigned char *p, size_t left)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (!n || n > left)
		return 0;
	c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		c = c << 6 | (p[i] & 63);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

bool
share_is_utf8(const char *text, size_t len)
{
	while (len) {
		size_t n = utf8_sequence((const unsigned char *)text, len);

		if (!n)
			return false;
		text += n;
		len -= n;
	}
	return true;
}

bool
prop_name_ok(const char *name)
{
	size_t n = strlen(name);

	return n && n <= PROP_NAME_MAX && !strpbrk(name, "*?|\n") && share_is_utf8(name, n);
}

bool
prop_value_ok(const char *value)
{
	size_t n = strlen(value);

	return n <= PROP_VALUE_MAX && share_is_utf8(value, n);
}

static int
flag_of(const char *word, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(flag_names); i++)
		if (strlen(flag_names[i].name) == len && !strncasecmp(flag_names[i].name, word, len))
			return (int)flag_names[i].bits;
	return -1;
}

bool
prop_flags_parse(const char *text, unsigned *flags)
{
	unsigned all = 0;

	while (*text) {
		size_t skip = strspn(text, " ,"), len = strcspn(text + skip, " ,");
		int bits;

		text += skip;
		if (!len)
			break;
		bits = flag_of(text, len);
		if (bits < 0)
			return false;
		all |= (unsigned)bits;
		text += len;
	}
	*flags = all;
	return true;
}

const char *
prop_flags_text(unsigned flags, char out[PROP_FLAGS_SIZE])
{
	struct {
		unsigned bit;
		const char *name;
	} words[] = {
		{ PROP_TRANSIENT, "TRANSIENT" },
		{ PROP_READONLY, "READONLY" },
		{ PROP_RDONLYGUEST, "RDONLYGUEST" },
		{ PROP_RDONLYHOST, "RDONLYHOST" },
		{ PROP_TRANSRESET, "TRANSRESET" },
	};
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if ((flags & words[i].bit) != words[i].bit)
			continue;
		if (words[i].bit == PROP_READONLY)
			flags &= ~(unsigned)PROP_READONLY;
		n += (size_t)snprintf(out + n, PROP_FLAGS_SIZE - n, "%s%s", n ? ", " : "", words[i].name);
	}
	return out;
}

/* One pattern of `len` characters, with * and ?. */
static bool
match_one(const char *p, size_t len, const char *name)
{
	const char *end = p + len, *star = NULL, *again = NULL;

	while (*name) {
		if (p < end && *p == '*') {
			star = p++;
			again = name;
		} else if (p < end && (*p == '?' || *p == *name)) {
			p++;
			name++;
		} else if (star) {
			p = star + 1;
			name = ++again;
		} else {
			return false;
		}
	}
	while (p < end && *p == '*')
		p++;
	return p == end;
}

bool
prop_match(const char *patterns, const char *name)
{
	if (!*patterns)
		return true;
	for (;;) {
		size_t len = strcspn(patterns, "|");

		if (match_one(patterns, len, name))
			return true;
		patterns += len;
		if (!*patterns++)
			return false;
	}
}

/* ---- the store ---- */

struct props *
props_open(void)
{
	struct props *s = xcalloc(1, sizeof(*s));

	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void
free_waiter(struct prop_waiter *w)
{
	free(w->patterns);
	free(w);
}

void
props_close(struct props *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->count; i++)
		free(s->list[i]);
	while (s->waiters) {
		struct prop_waiter *w = s->waiters;

		s->waiters = w->next;
		free_waiter(w);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void
props_on_change(struct props *s, void (*changed)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&s->lock);
	s->changed = changed;
	s->opaque = opaque;
	pthread_mutex_unlock(&s->lock);
}

/* Place of `name`, or where it belongs. */
static bool
find(const struct props *s, const char *name, int *place)
{
	int low = 0, high = s->count;

	while (low < high) {
		int middle = (low + high) / 2, c = strcmp(s->list[middle]->name, name);

		if (!c) {
			*place = middle;
			return true;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*place = low;
	return false;
}

static int64_t
new_time(struct props *s)
{
	struct timespec t;
	int64_t now;

	clock_gettime(CLOCK_REALTIME, &t);
	now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	s->last_time = MAX(now, s->last_time + 1); /* no two changes have the same */
	return s->last_time;
}

/* Take out of the list, in order, the waiters that `p` wakes. Lock held. */
static struct prop_waiter *
take_waiters(struct props *s, const struct prop *p)
{
	struct prop_waiter *woken = NULL, **tail = &woken, **at = &s->waiters;

	while (*at) {
		struct prop_waiter *w = *at;

		if (!prop_match(w->patterns, p->name)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = NULL;
		*tail = w;
		tail = &w->next;
	}
	return woken;
}

/* Note the change and unlock. */
static void
publish(struct props *s, const struct prop *p)
{
	struct prop change = *p;
	struct prop_waiter *woken;
	void (*changed)(void *) = s->changed;
	void *opaque = s->opaque;

	s->history[s->changes++ % HISTORY] = change;
	woken = take_waiters(s, &change);
	pthread_mutex_unlock(&s->lock);
	while (woken) {
		struct prop_waiter *w = woken;

		woken = w->next;
		w->fn(w->opaque, &change);
		free_waiter(w);
	}
	if (changed)
		changed(opaque);
}

static int
insert(struct props *s, int place, const char *name)
{
	if (s->count == PROPS_MAX)
		return -1;
	memmove(&s->list[place + 1], &s->list[place], (size_t)(s->count - place) * sizeof(s->list[0]));
	s->list[place] = xcalloc(1, sizeof(struct prop));
	snprintf(s->list[place]->name, sizeof(s->list[place]->name), "%s", name);
	s->count++;
	return 0;
}

static void
take_out(struct props *s, int place)
{
	free(s->list[place]);
	s->count--;
	memmove(&s->list[place], &s->list[place + 1], (size_t)(s->count - place) * sizeof(s->list[0]));
}

static bool
may_write(const struct prop *p, enum prop_side who)
{
	return !(p->flags & (who == PROP_BY_GUEST ? PROP_RDONLYGUEST : PROP_RDONLYHOST));
}

int
props_set(struct props *s, enum prop_side who, const char *name, const char *value, const unsigned *flags)
{
	int place, r = SHARE_OK;
	struct prop *p;

	if (!prop_name_ok(name) || !prop_value_ok(value))
		return SHARE_INVALID_PARAMETER;
	pthread_mutex_lock(&s->lock);
	if (!find(s, name, &place))
		r = insert(s, place, name) ? SHARE_TOO_MUCH_DATA : SHARE_OK;
	else if (!may_write(s->list[place], who))
		r = SHARE_PERMISSION_DENIED;
	if (r) {
		pthread_mutex_unlock(&s->lock);
		return r;
	}
	p = s->list[place];
	snprintf(p->value, sizeof(p->value), "%s", value);
	if (flags)
		p->flags = *flags;
	p->time = new_time(s);
	p->deleted = false;
	publish(s, p);
	return SHARE_OK;
}

int
props_delete(struct props *s, enum prop_side who, const char *name)
{
	struct prop gone;
	int place;

	pthread_mutex_lock(&s->lock);
	if (!find(s, name, &place)) {
		pthread_mutex_unlock(&s->lock);
		return SHARE_NOT_FOUND;
	}
	if (!may_write(s->list[place], who)) {
		pthread_mutex_unlock(&s->lock);
		return SHARE_PERMISSION_DENIED;
	}
	gone = *s->list[place];
	gone.value[0] = 0;
	gone.time = new_time(s);
	gone.deleted = true;
	take_out(s, place);
	publish(s, &gone);
	return SHARE_OK;
}

void
props_load(struct props *s, const struct prop *p)
{
	int place;

	if (!prop_name_ok(p->name) || !prop_value_ok(p->value))
		return;
	pthread_mutex_lock(&s->lock);
	if (find(s, p->name, &place) || !insert(s, place, p->name)) {
		*s->list[place] = *p;
		s->last_time = MAX(s->last_time, p->time);
	}
	pthread_mutex_unlock(&s->lock);
}

int64_t
props_now(struct props *s)
{
	int64_t now;

	pthread_mutex_lock(&s->lock);
	now = new_time(s);
	pthread_mutex_unlock(&s->lock);
	return now;
}

bool
props_get(struct props *s, const char *name, struct prop *out)
{
	bool found;
	int place;

	pthread_mutex_lock(&s->lock);
	found = find(s, name, &place);
	if (found)
		*out = *s->list[place];
	pthread_mutex_unlock(&s->lock);
	return found;
}

void
props_each(struct props *s, const char *patterns, void (*fn)(void *opaque, const struct prop *p), void *opaque)
{
	pthread_mutex_lock(&s->lock);
	for (int i = 0; i < s->count; i++)
		if (prop_match(patterns, s->list[i]->name))
			fn(opaque, s->list[i]);
	pthread_mutex_unlock(&s->lock);
}

void
props_reset(struct props *s)
{
	char name[PROP_NAME_MAX + 1];
	bool any = true;

	while (any) {
		any = false;
		pthread_mutex_lock(&s->lock);
		for (int i = 0; i < s->count && !any; i++)
			if (s->list[i]->flags & PROP_TRANSRESET) {
				s->list[i]->flags &= ~(unsigned)PROP_RDONLYHOST;
				memcpy(name, s->list[i]->name, sizeof(name));
				any = true;
			}
		pthread_mutex_unlock(&s->lock);
		if (any)
			props_delete(s, PROP_BY_HOST, name);
	}
}

/* ---- waiting ---- */

/* The first remembered change behind time `after` that `patterns` match. Lock held. */
static bool
find_change(const struct props *s, const char *patterns, int64_t after, struct prop *out)
{
	uint64_t first = s->changes > HISTORY ? s->changes - HISTORY : 0;

	for (uint64_t i = first; i < s->changes; i++) {
		const struct prop *p = &s->history[i % HISTORY];

		if (p->time > after && prop_match(patterns, p->name)) {
			*out = *p;
			return true;
		}
	}
	return false;
}

struct prop_waiter *
props_wait(struct props *s, const char *patterns, int64_t after, prop_wait_fn *fn, void *opaque, struct prop *now)
{
	struct prop_waiter *w = NULL, **tail;
	int n = 0;

	pthread_mutex_lock(&s->lock);
	if (after <= 0 || !find_change(s, patterns, after, now)) {
		for (tail = &s->waiters; *tail; tail = &(*tail)->next)
			n++;
		if (n < PROP_WAITERS_MAX) {
			w = xcalloc(1, sizeof(*w));
			*w = (struct prop_waiter){ .patterns = xstrdup(patterns), .fn = fn, .opaque = opaque };
			*tail = w;
		} else {
			now->name[0] = 0;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return w;
}

bool
props_unwait(struct props *s, void *opaque)
{
	struct prop_waiter **at, *w;

	pthread_mutex_lock(&s->lock);
	for (at = &s->waiters; *at && (*at)->opaque != opaque;)
		at = &(*at)->next;
	w = *at;
	if (w)
		*at = w->next;
	pthread_mutex_unlock(&s->lock);
	if (w)
		free_waiter(w);
	return w != NULL;
}
