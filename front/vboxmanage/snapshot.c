/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot, discardstate, adoptstate; the lines about snapshots that showvminfo shares with `snapshot list`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

static const struct site machine = { "Machine", "FindMachine(Bstr(pszVM).raw(), ptrMachine.asOutParam())", 0,
	"VBoxManageSnapshot.cpp" };
static const struct site find = { "Machine", "FindSnapshot(Bstr(a->argv[2]).raw(), pSnapshot.asOutParam())", 495,
	"VBoxManageSnapshot.cpp" };

/* ---- the tree ---- */

/* The number of each snapshot among its parent's children: "-1-2" for the machine-readable form, "" for the root. */
static char **
node_names(const struct host_snapshot *s, size_t count)
{
	char **name = xcalloc(count + 1, sizeof(*name));

	for (size_t i = 0; i < count; i++) {
		const char *parent = "";
		int number = 1;

		for (size_t k = 0; k < i; k++) {
			if (!strcmp(s[k].uuid, s[i].parent))
				parent = name[k];
			number += s[i].depth > 0 && !strcmp(s[k].parent, s[i].parent);
		}
		name[i] = s[i].depth ? xasprintf("%s-%d", parent, number) : xstrdup("");
	}
	return name;
}

static void
print_escaped(const char *key, const char *node, const char *value)
{
	printf("%s%s=\"", key, node);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			putchar('\\');
		putchar(*value);
	}
	printf("\"\n");
}

void
show_snapshots_machine_readable(const struct host_snapshot *s, size_t count)
{
	char **node = node_names(s, count), *full;

	for (size_t i = 0; i < count; i++) {
		print_escaped("SnapshotName", node[i], s[i].name);
		print_escaped("SnapshotUUID", node[i], s[i].uuid);
		if (s[i].description[0])
			print_escaped("SnapshotDescription", node[i], s[i].description);
		if (!s[i].current)
			continue;
		print_escaped("CurrentSnapshotName", "", s[i].name);
		print_escaped("CurrentSnapshotUUID", "", s[i].uuid);
		full = xasprintf("SnapshotName%s", node[i]);
		print_escaped("CurrentSnapshotNode", "", full);
		free(full);
	}
	for (size_t i = 0; i < count; i++)
		free(node[i]);
	free(node);
}

void
show_snapshots(const struct host_snapshot *s, size_t count, bool details)
{
	char time[40];

	for (size_t i = 0; i < count; i++) {
		int indent = 3 + 3 * s[i].depth;

		printf("%*sName: %s (UUID: %s)%s\n", indent, "", s[i].name, s[i].uuid, s[i].current ? " *" : "");
		if (details) {
			printf("%*sTaken: %s\n", indent, "", time_text(s[i].time, time));
			printf("%*sMachine: %s\n", indent, "", s[i].state_file[0] ? "running, memory saved" : "off");
			if (s[i].state_file[0])
				printf("%*sState file: %s\n", indent, "", s[i].state_file);
		}
		if (s[i].description[0])
			printf("%*sDescription:\n%s\n", indent, "", s[i].description);
	}
}

static int
cmd_list_snapshots(struct cli *c, const char *vm, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "details", 0, OPT_FLAG, 'D', 0 },
		{ "machinereadable", 1, OPT_FLAG, 'M', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	bool details = false, readable = false;
	struct host_snapshot *s;
	struct err e = { 0 };
	size_t count;
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		details |= id == 0;
		readable |= id == 1;
	}
	if (details && readable)
		return fail_syntax(c, "--details and --machinereadable exclude each other");
	if (host_snapshots_load(c->host, vm, &s, &count, &e))
		return fail_api(c, &e, &machine);
	if (!count)
		printf("This machine does not have any snapshots\n");
	else if (readable)
		show_snapshots_machine_readable(s, count);
	else
		show_snapshots(s, count, details);
	host_snapshots_free(s, count);
	return count ? 0 : 1;
}

/* ---- taking ---- */

enum { T_DESCRIPTION, T_LIVE, T_PAUSE, T_UNIQUE, T_UUID };

/* "Number", "Timestamp", "Space", "Force" of --uniquename: a name no other snapshot has. free() it. */
static char *
unique_name(struct cli *c, const char *vm, const char *name, const char *how)
{
	struct host_snapshot *s;
	size_t count;
	char *out = xstrdup(name);

	if (host_snapshots_load(c->host, vm, &s, &count, NULL))
		return out;
	for (int n = 1;; n++) {
		size_t i = 0;

		while (i < count && strcmp(s[i].name, out))
			i++;
		if (i == count)
			break;
		free(out);
		out = strstr(how, "Space") ? xasprintf("%s %d", name, n) : xasprintf("%s%d", name, n);
	}
	host_snapshots_free(s, count);
	return out;
}

static int
cmd_take(struct cli *c, const char *vm, int argc, char **argv)
{
	static const struct site site = { "Machine",
		"TakeSnapshot(name.raw(), desc.raw(), fPause, snapId.asOutParam(), pProgress.asOutParam())", 435,
		"VBoxManageSnapshot.cpp" };
	static const struct opt options[] = {
		{ "description", T_DESCRIPTION, OPT_TEXT, 'd', 0 },
		{ "desc", T_DESCRIPTION, OPT_TEXT, 0, 0 },
		{ "live", T_LIVE, OPT_FLAG, 'l', 0 },
		{ "pause", T_PAUSE, OPT_FLAG, 'p', 0 },
		{ "uniquename", T_UNIQUE, OPT_TEXT, 'n', 0 },
		{ "uuid", T_UUID, OPT_TEXT, 'u', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	struct host_progress progress;
	struct host_snapshot_take t = { .progress = &progress };
	struct host_snapshot_numbers n;
	const char *unique = NULL;
	struct err e = { 0 };
	char uuid[37], *name;
	int id, r;

	while ((id = args_next(&a)) != ARG_END) {
		switch (id) {
		case T_DESCRIPTION:
			t.description = a.text;
			break;
		case T_LIVE:
			t.live = true;
			break;
		case T_PAUSE:
			break;
		case T_UNIQUE:
			unique = a.text;
			break;
		case T_UUID:
			t.uuid = a.text;
			break;
		case ARG_WORD:
			if (t.name)
				return fail_syntax(c, "Invalid parameter '%s'", a.text);
			t.name = a.text;
			break;
		default:
			return 2;
		}
	}
	if (!t.name || !*t.name)
		return fail_syntax(c, "Missing snapshot name");
	name = unique ? unique_name(c, vm, t.name, unique) : xstrdup(t.name);
	t.name = name;
	progress = stoppable_begin(c);
	r = host_snapshot_take(c->host, vm, &t, uuid, &n, &e);
	stoppable_end(c, r ? &e : NULL);
	free(name);
	if (r)
		return fail_api(c, &e, &site);
	printf("Snapshot taken. UUID: %s\n", uuid);
	if (n.ms > 0 && c->detailed)
		fprintf(stderr,
			"The guest stood still for %.1f ms of %.0f ms; %.0f MiB of memory are %.0f MiB on disk.\n",
			n.stopped_ms, n.ms, (double)n.memory / 1048576, (double)n.written / 1048576);
	return 0;
}

/* ---- restoring, deleting, editing ---- */

static int
cmd_restore(struct cli *c, const char *vm, const char *snapshot)
{
	static const struct site site = { "Machine", "RestoreSnapshot(pSnapshot, pProgress.asOutParam())", 512,
		"VBoxManageSnapshot.cpp" };
	struct host_progress progress;
	struct host_snapshot s;
	struct err e = { 0 };
	int r;

	if (host_snapshot_find(c->host, vm, snapshot, &s, &e))
		return snapshot ? fail_api(c, &e, &find) : fail_plain(c, "%s", e.text);
	printf("Restoring snapshot '%s' (%s)\n", s.name, s.uuid);
	fflush(stdout);
	progress = stoppable_begin(c);
	r = host_snapshot_restore(c->host, vm, s.uuid, &progress, &e);
	stoppable_end(c, r ? &e : NULL);
	host_snapshot_release(&s);
	return r ? fail_api(c, &e, &site) : 0;
}

static void
goes_on(void *cli)
{
	fputs("\nIt cannot be taken back any more: images of the snapshot are merged already. It goes on to its end.\n",
		stderr);
}

static int
cmd_delete(struct cli *c, const char *vm, const char *snapshot)
{
	static const struct site site = { "Machine", "DeleteSnapshot(bstrSnapGuid.raw(), pProgress.asOutParam())", 520,
		"VBoxManageSnapshot.cpp" };
	struct host_progress progress;
	struct host_snapshot s;
	struct err e = { 0 };
	int r;

	if (host_snapshot_find(c->host, vm, snapshot, &s, &e))
		return fail_api(c, &e, &find);
	printf("Deleting snapshot '%s' (%s)\n", s.name, s.uuid);
	fflush(stdout);
	progress = stoppable_begin(c);
	progress.too_late = goes_on;
	r = host_snapshot_delete(c->host, vm, s.uuid, &progress, &e);
	stoppable_end(c, r ? &e : NULL);
	host_snapshot_release(&s);
	return r ? fail_api(c, &e, &site) : 0;
}

static int
cmd_edit(struct cli *c, const char *vm, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "current", 0, OPT_FLAG, 'c', 0 },
		{ "name", 1, OPT_TEXT, 'n', 0 },
		{ "description", 2, OPT_TEXT, 'd', 0 },
		{ "desc", 2, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *snapshot = NULL, *name = NULL, *description = NULL;
	bool current = false;
	struct err e = { 0 };
	int id;

	while ((id = args_next(&a)) != ARG_END) {
		if (id == ARG_BAD)
			return 2;
		if (id == ARG_WORD && snapshot)
			return fail_syntax(c, "Invalid parameter '%s'", a.text);
		if (id == ARG_WORD)
			snapshot = a.text;
		else if (id == 0)
			current = true;
		else if (id == 1)
			name = a.text;
		else
			description = a.text;
	}
	if (current == (snapshot != NULL))
		return fail_syntax(c, current ? "--current and a name exclude each other" : "Missing snapshot name");
	if (name && !*name)
		return fail_argument(c, "The name of a snapshot cannot be empty");
	return host_snapshot_edit(c->host, vm, snapshot, name, description, &e) ? fail_api(c, &e, &find) : 0;
}

static int
cmd_show(struct cli *c, const char *vm, const char *snapshot)
{
	struct host_snapshot s;
	struct host_vm *m;
	struct err e = { 0 };
	int r;

	if (host_snapshot_find(c->host, vm, snapshot, &s, &e))
		return fail_api(c, &e, &find);
	m = host_snapshot_machine(c->host, vm, s.uuid, &e);
	host_snapshot_release(&s);
	if (!m)
		return fail_api(c, &e, &find);
	r = show_vm(c, m);
	host_vm_free(m);
	return r;
}

int
cmd_snapshot(struct cli *c, int argc, char **argv)
{
	struct host_vm *vm;
	struct err e = { 0 };
	const char *word;

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (!cli_host(c))
		return 1;
	vm = host_vm_load(c->host, argv[0], &e);
	if (!vm)
		return fail_api(c, &e, &machine);
	host_vm_free(vm);
	word = argv[1];
	if (!strcmp(word, "take"))
		return cmd_take(c, argv[0], argc - 2, argv + 2);
	if (!strcmp(word, "list"))
		return cmd_list_snapshots(c, argv[0], argc - 2, argv + 2);
	if (!strcmp(word, "edit"))
		return cmd_edit(c, argv[0], argc - 2, argv + 2);
	if (!strcmp(word, "restorecurrent"))
		return argc > 2 ? fail_syntax(c, "Too many parameters") : cmd_restore(c, argv[0], NULL);
	if (strcmp(word, "restore") && strcmp(word, "delete") && strcmp(word, "showvminfo"))
		return fail_syntax(c, "Invalid parameter '%s'", word);
	if (argc != 3)
		return fail_syntax(c, argc < 3 ? "Expecting snapshot name" : "Too many parameters");
	return word[0] == 'r' ? cmd_restore(c, argv[0], argv[2])
			      : (word[0] == 'd' ? cmd_delete : cmd_show)(c, argv[0], argv[2]);
}

/* ---- saved states ---- */

int
cmd_discardstate(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Machine", "DiscardSavedState(true)", 730, "VBoxManageMisc.cpp" };
	struct err e = { 0 };

	if (argc != 1)
		return fail_syntax(c, "Incorrect number of parameters");
	if (!cli_host(c))
		return 1;
	return host_vm_discard_state(c->host, argv[0], &e) ? fail_api(c, &e, &site) : 0;
}

int
cmd_adoptstate(struct cli *c, int argc, char **argv)
{
	static const struct site site = { "Machine", "AdoptSavedState(Bstr(szStateFileAbs).raw())", 780,
		"VBoxManageMisc.cpp" };
	struct err e = { 0 };

	if (argc != 2)
		return fail_syntax(c, "Incorrect number of parameters");
	if (!cli_host(c))
		return 1;
	return host_vm_adopt_state(c->host, argv[0], argv[1], &e) ? fail_api(c, &e, &site) : 0;
}
