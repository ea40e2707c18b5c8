/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bandwidth groups of disks. They are extra data of the machine, so they go wherever its settings go.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/inv.h"
#include "host/net.h"
#include "host/run.h"

#define MEMBER_KEY "Lodge/DiskGroup/"

bool
host_disk_group(struct host *h, const char *id, const char *name, uint64_t *rate)
{
	char *key = xasprintf(DISK_GROUP_KEY "%s", name), *value = NULL;
	struct err unused;
	bool found = !host_extra_get(h, id, key, &value, &unused) && value;

	*rate = 0;
	if (found)
		str_to_u64(value, 0, INT64_MAX / 4, rate);
	free(value);
	free(key);
	return found;
}

char *
host_disk_group_of(struct host *h, const char *id, const char *controller, int port, int device)
{
	char *key = xasprintf(MEMBER_KEY "%s:%d:%d", controller, port, device), *value = NULL;
	struct err unused;

	if (host_extra_get(h, id, key, &value, &unused))
		value = NULL;
	free(key);
	return value;
}

struct search {
	const char *group, *controller;
	char found[300];
};

static int
find_member(void *opaque, const char *key, const char *value, int64_t time, const char *flags)
{
	struct search *s = opaque;

	if (str_starts(key, MEMBER_KEY) && (!s->group || !strcmp(value, s->group)) &&
		(!s->controller || (str_starts(key + strlen(MEMBER_KEY), s->controller) &&
					   key[strlen(MEMBER_KEY) + strlen(s->controller)] == ':')))
		snprintf(s->found, sizeof(s->found), "%s", key);
	return 0;
}

int
disk_group_join(struct host *h, const struct host_vm *vm, const char *controller, int port, int device,
	const char *group, struct err *e)
{
	char *key = xasprintf(MEMBER_KEY "%s:%d:%d", controller, port, device), *old = NULL;
	uint64_t rate;
	int r = 0;

	if (group && !host_disk_group(h, vm->uuid, group, &rate))
		r = err_set(e, ERR_NOT_FOUND, "Could not find a bandwidth group named '%s'", group);
	if (!r && !group && (host_extra_get(h, vm->uuid, key, &old, e) || !old))
		group = NULL;
	else if (!r)
		r = host_extra_set(h, vm->uuid, key, group, e);
	free(old);
	free(key);
	return r;
}

int
disk_groups_rename(struct host *h, const struct host_vm *vm, const char *from, const char *to, struct err *e)
{
	for (;;) {
		struct search s = { .controller = from };
		char *value = NULL, *key;
		int r;

		if (host_extra_each(h, vm->uuid, find_member, &s, e))
			return -1;
		if (!s.found[0])
			return 0;
		if (host_extra_get(h, vm->uuid, s.found, &value, e) || !value)
			return -1;
		key = to ? xasprintf(MEMBER_KEY "%s%s", to, s.found + strlen(MEMBER_KEY) + strlen(from)) : NULL;
		r = host_extra_set(h, vm->uuid, s.found, NULL, e) ||
		    (key && host_extra_set(h, vm->uuid, key, value, e));
		free(key);
		free(value);
		if (r)
			return -1;
	}
}

int
host_disk_group_set(struct host *h, const char *id, const char *name, int64_t rate, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	struct search s = { .group = name };
	char *key, value[32];
	int r;

	if (!vm)
		return -1;
	key = xasprintf(DISK_GROUP_KEY "%s", name);
	snprintf(value, sizeof(value), "%lld", (long long)rate);
	r = host_extra_each(h, vm->uuid, find_member, &s, e);
	if (!r && rate < 0 && s.found[0])
		r = err_set(e, ERR_IN_USE, "The bandwidth group '%s' is still in use", name);
	if (!r)
		r = host_extra_set(h, vm->uuid, key, rate < 0 ? NULL : value, e);
	/* A group that came when the machine ran has no disk in it before the next start. */
	if (!r && host_state_live(vm->state) && rate >= 0) {
		struct err unused;

		json_decref(vm_call(h, vm, "bandwidth.set",
			json_pack("{s:s, s:I}", "name", name, "limit", (json_int_t)rate), &unused));
	}
	free(key);
	host_vm_free(vm);
	return r;
}
