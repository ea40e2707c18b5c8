/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge net: the networks of this host, who is plugged in where, and what passes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "front/lodge/lodge.h"
#include "host/net.h"

static int
fail(const struct err *e)
{
	fprintf(stderr, "lodge: %s\n", e->text);
	return err_info(e->code)->exit_status ? err_info(e->code)->exit_status : 1;
}

static const char *
text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static long long
number(json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

/* How the host is part of it, in a few words. */
static const char *
mode_words(const char *mode)
{
	static const struct {
		const char *mode, *words;
	} rows[] = { { "user", "through this process (user mode)" }, { "tap", "by a TAP of the host" },
		{ "bridge", "by a TAP in a bridge of the host" }, { "packet", "on an interface of the host" },
		{ "none", "machines among themselves" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!strcmp(mode, rows[i].mode))
			return rows[i].words;
	return mode;
}

/* The networks that have a directory; *status says how it went. */
static char **
all_ids(struct host *h, size_t *count, int *status)
{
	struct err e = { 0 };
	char **ids = NULL;

	*status = host_net_ids(h, &ids, count, &e) ? fail(&e) : 0;
	return ids;
}

static void
free_ids(char **ids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(ids[i]);
	free(ids);
}

/* Does the user mean this one, by its directory's name or by its own? */
static bool
meant(const char *id, const char *wanted)
{
	return !wanted || !strcmp(id, wanted) || !strcmp(id + strcspn(id, "-") + 1, wanted);
}

/* ---- list ---- */

static int
net_list(struct host *h, int argc, char **argv)
{
	size_t count;
	int status;
	char **ids = all_ids(h, &count, &status);

	printf("%-28s %-8s %5s %7s  %s\n", "NETWORK", "STATE", "PORTS", "LEASES", "HOST");
	for (size_t i = 0; i < count; i++) {
		json_t *s = host_net_call(h, ids[i], "status", json_object(), NULL),
		       *leases = host_net_leases(h, ids[i]);

		printf("%-28s %-8s %5zu %7zu  %s%s%s\n", ids[i], s ? "running" : "off",
			json_array_size(json_object_get(s, "ports")), json_array_size(leases),
			s ? mode_words(text(s, "mode")) : "", *text(s, "mode_reason") ? ": " : "",
			text(s, "mode_reason"));
		json_decref(leases);
		json_decref(s);
	}
	free_ids(ids, count);
	return status;
}

/* ---- show: a small drawing ---- */

static void
draw_port(json_t *p, bool last)
{
	const char *mac = text(p, "mac");
	char vlan[24] = "";

	if (number(p, "vlan"))
		snprintf(vlan, sizeof(vlan), "  vlan %lld", number(p, "vlan"));
	printf("  %s %s, adapter %lld  %.2s:%.2s:%.2s:%.2s:%.2s:%.2s  %s%s%s\n", last ? "`--" : "|--",
		text(p, "machine"), number(p, "slot") + 1, mac, mac + 2, mac + 4, mac + 6, mac + 8, mac + 10,
		*text(p, "ip") ? text(p, "ip") : "no address yet", vlan,
		json_is_true(json_object_get(p, "trunk")) && *vlan ? " and tagged ones" : "");
	printf("  %s     in %lld frames, out %lld; dropped: %lld spoofed, %lld guarded, %lld of other VLANs, %lld "
	       "full\n",
		last ? " " : "|", number(p, "in_frames"), number(p, "out_frames"), number(p, "spoofed"),
		number(p, "guarded"), number(p, "bad_vlan"), number(p, "full"));
}

static void
draw(const char *id, json_t *s)
{
	json_t *ports = json_object_get(s, "ports"), *p;
	const char *mode = text(s, "mode"), *interface = text(s, "interface");
	size_t i;

	printf("%s\n", id);
	if (!strcmp(mode, "none"))
		printf("  (no way to the host)\n");
	else
		printf("  host -- %s%s%s%s%s\n", mode_words(mode), strcmp(mode, "user") && *interface ? ", " : "",
			strcmp(mode, "user") ? interface : "", *text(s, "mode_reason") ? ", because " : "",
			text(s, "mode_reason"));
	printf("  |\n");
	json_array_foreach(ports, i, p)
	{
		draw_port(p, i + 1 == json_array_size(ports));
	}
	if (!json_array_size(ports))
		printf("  `-- (nobody is plugged in)\n");
	putchar('\n');
}

static int
net_show(struct host *h, int argc, char **argv)
{
	const char *wanted = argc ? argv[0] : NULL;
	size_t count, shown = 0;
	int status;
	char **ids = all_ids(h, &count, &status);

	for (size_t i = 0; i < count; i++) {
		json_t *s = meant(ids[i], wanted) ? host_net_call(h, ids[i], "status", json_object(), NULL) : NULL;

		if (s) {
			draw(ids[i], s);
			shown++;
		}
		json_decref(s);
	}
	if (!shown && wanted) {
		fprintf(stderr, "lodge: no network '%s' runs\n", wanted);
		status = 1;
	} else if (!shown) {
		printf("No network runs.\n");
	}
	free_ids(ids, count);
	return status;
}

/* ---- top: rates ---- */

/* Every port of every network, by "network/port". */
static json_t *
sample(struct host *h)
{
	json_t *all = json_object(), *p;
	size_t count = 0, k;
	int status;
	char **ids = all_ids(h, &count, &status);

	for (size_t i = 0; i < count; i++) {
		json_t *s = host_net_call(h, ids[i], "status", json_object(), NULL),
		       *uplink = json_object_get(s, "uplink");

		json_array_foreach(json_object_get(s, "ports"), k, p)
		{
			char *key = xasprintf("%s  %s/%lld", ids[i], text(p, "machine"), number(p, "slot") + 1);

			json_object_set(all, key, p);
			free(key);
		}
		if (json_is_object(uplink)) {
			char *key = xasprintf("%s  (host)", ids[i]);

			json_object_set(all, key, uplink);
			free(key);
		}
		json_decref(s);
	}
	free_ids(ids, count);
	return all;
}

static void
rate(double bits)
{
	const char *units[] = { "b/s ", "kb/s", "Mb/s", "Gb/s" };
	int u = 0;

	for (; bits >= 1000 && u < 3; u++)
		bits /= 1000;
	printf(" %7.1f %s", bits, units[u]);
}

static void
print_rates(json_t *before, json_t *after, double seconds)
{
	const char *key;
	json_t *p;

	printf("%-44s %12s %9s %12s %9s %8s\n", "NETWORK  MACHINE/ADAPTER", "SENDS", "FRAMES/S", "RECEIVES", "FRAMES/S",
		"DROPS/S");
	json_object_foreach(after, key, p)
	{
		json_t *old = json_object_get(before, key);
		static const char *const drops[] = { "malformed", "spoofed", "bad_vlan", "guarded", "storms", "full" };
		long long dropped = 0;

		if (!old)
			continue;
		for (size_t i = 0; i < ARRAY_LEN(drops); i++)
			dropped += number(p, drops[i]) - number(old, drops[i]);
		printf("%-43s", key);
		rate((double)(number(p, "in_bytes") - number(old, "in_bytes")) * 8 / seconds);
		printf(" %9.0f", (double)(number(p, "in_frames") - number(old, "in_frames")) / seconds);
		rate((double)(number(p, "out_bytes") - number(old, "out_bytes")) * 8 / seconds);
		printf(" %9.0f %8.0f\n", (double)(number(p, "out_frames") - number(old, "out_frames")) / seconds,
			(double)dropped / seconds);
	}
	fflush(stdout);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Live on a terminal, once elsewhere. */
static int
net_top(struct host *h, int argc, char **argv)
{
	bool live = isatty(STDOUT_FILENO);
	uint64_t seconds = 1;
	json_t *before;
	double then;

	if (argc && !str_to_u64(argv[0], 1, 3600, &seconds)) {
		fprintf(stderr, "lodge: '%s' is not a number of seconds\n", argv[0]);
		return 2;
	}
	before = sample(h);
	then = now();
	do {
		json_t *after;

		sleep((unsigned)seconds);
		after = sample(h);
		if (live)
			printf("\033[H\033[2J");
		print_rates(before, after, now() - then);
		then = now();
		json_decref(before);
		before = after;
	} while (live);
	json_decref(before);
	return 0;
}

/* ---- trace, group ---- */

static char *
find_id(struct host *h, const char *wanted)
{
	size_t count;
	int status;
	char **ids = all_ids(h, &count, &status), *found = NULL;

	for (size_t i = 0; i < count && !found; i++)
		if (meant(ids[i], wanted))
			found = xstrdup(ids[i]);
	free_ids(ids, count);
	return found;
}

static int
net_trace(struct host *h, int argc, char **argv)
{
	struct err e = { 0 };
	json_t *answer;
	char *id;
	bool on;

	if (argc != 2 || (strcmp(argv[1], "on") && strcmp(argv[1], "off"))) {
		fprintf(stderr, "lodge: use: lodge net trace NETWORK on|off\n");
		return 2;
	}
	on = !strcmp(argv[1], "on");
	id = find_id(h, argv[0]);
	answer = host_net_call(h, id ? id : argv[0], "trace", json_pack("{s:b}", "on", on), &e);
	if (answer && on)
		printf("%s/net/%s/trace.pcap\n", host_home(h), id);
	free(id);
	json_decref(answer);
	return answer ? 0 : fail(&e);
}

static int
net_stop(struct host *h, int argc, char **argv)
{
	struct err e = { 0 };
	char *id = argc == 1 ? find_id(h, argv[0]) : NULL;
	int status;

	if (!id) {
		fprintf(stderr,
			argc == 1 ? "lodge: there is no network '%s'\n" : "lodge: use: lodge net stop NETWORK\n",
			argc == 1 ? argv[0] : "");
		return argc == 1 ? 1 : 2;
	}
	status = host_net_stop(h, id, &e) ? fail(&e) : 0;
	free(id);
	return status;
}

static int
list_groups(json_t *groups)
{
	const char *name;
	json_t *g;

	json_object_foreach(groups, name, g)
	{
		printf("%-20s vlan %-5lld trunk %s\n", name, number(g, "vlan"),
			*text(g, "trunk") ? text(g, "trunk") : "none");
	}
	return 0;
}

/* lodge net group NETWORK [NAME [vlan=N] [trunk=LIST] | NAME remove] */
static int
net_group(struct host *h, int argc, char **argv)
{
	struct err e = { 0 };
	json_t *groups, *g;
	uint64_t vlan;
	int status = 0;

	if (!argc) {
		fprintf(stderr, "lodge: use: lodge net group NETWORK [NAME [vlan=N] [trunk=all|none|10,20-30] | NAME "
				"remove]\n");
		return 2;
	}
	if (!strchr(argv[0], '-')) {
		fprintf(stderr, "lodge: name the network with its kind: intnet-%s, nat-%s, hostonly-%s...\n", argv[0],
			argv[0], argv[0]);
		return 2;
	}
	groups = host_net_get(h, HOST_NET_GROUPS, argv[0], &e);
	if (!groups)
		groups = json_object();
	if (argc == 1) {
		status = list_groups(groups);
		json_decref(groups);
		return status;
	}
	g = json_pack("{s:i}", "vlan", 0);
	for (int i = 2; i < argc && !status; i++) {
		if (!strcmp(argv[i], "remove")) {
			json_object_del(groups, argv[1]);
			json_decref(g);
			g = NULL;
			break;
		}
		if (str_starts(argv[i], "vlan=") && str_to_u64(argv[i] + 5, 0, 4094, &vlan))
			json_object_set_new(g, "vlan", json_integer((json_int_t)vlan));
		else if (str_starts(argv[i], "trunk="))
			json_object_set_new(g, "trunk", json_string(argv[i] + 6));
		else
			status = 2;
	}
	if (status)
		fprintf(stderr, "lodge: a port group has vlan=0..4094 and trunk=all, none or a list like 10,20-30\n");
	else {
		if (g)
			json_object_set(groups, argv[1], g);
		if (host_net_set(h, HOST_NET_GROUPS, argv[0], groups, &e))
			status = fail(&e);
	}
	json_decref(g);
	json_decref(groups);
	return status;
}

static const struct {
	const char *name;
	int (*run)(struct host *h, int argc, char **argv);
	const char *help;
} subs[] = {
	{ "list", net_list, "the networks that have been used, and how the host is part of them" },
	{ "show", net_show, "[NETWORK]  who is plugged in where" },
	{ "top", net_top, "[SECONDS]  what passes; live on a terminal" },
	{ "stop", net_stop, "NETWORK  end its process; machines that are plugged in keep running without it" },
	{ "trace", net_trace, "NETWORK on|off  all frames of a network into a pcap file" },
	{ "group", net_group,
		"NETWORK [NAME [vlan=N] [trunk=LIST] | NAME remove]  port groups; an adapter is in one by its\n"
		"         property group=NAME" },
};

int
lodge_net(int argc, char **argv)
{
	struct err e = { 0 };
	struct host *h;
	int status = 2;

	for (size_t i = 0; argc > 1 && i < ARRAY_LEN(subs); i++)
		if (!strcmp(argv[1], subs[i].name)) {
			h = host_open(&e);
			if (!h)
				return fail(&e);
			status = subs[i].run(h, argc - 2, argv + 2);
			host_close(h);
			return status;
		}
	fprintf(argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr, "Usage: lodge net VERB\n\n");
	for (size_t i = 0; i < ARRAY_LEN(subs); i++)
		fprintf(argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr, "  %-6s %s\n", subs[i].name,
			subs[i].help);
	return argc > 1 && !strcmp(argv[1], "--help") ? 0 : 2;
}
