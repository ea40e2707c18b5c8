/* SPDX-License-Identifier: Apache-2.0 */
/* `lodge`: the table of its verbs. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "front/lodge/lodge.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{ "boot", lodge_boot, "run a throw-away machine in this process; 'lodge boot --help' lists its options" },
	{ "net", lodge_net, "the networks of this host: list, show, top, trace, group" },
	{ "connect", lodge_connect, "from the host to a TCP port of a guest" },
	{ "why", lodge_why, "what can be seen of a guest that does not come up" },
	{ "wait", lodge_wait, "wait until a guest answers; when it does not, say why" },
	{ "autostart", lodge_autostart, "start or stop the machines that go with the host" },
	{ "fork", lodge_fork, "make running copies of a running machine; 'lodge fork --help' says more" },
};

static int
usage(FILE *f, int status)
{
	fprintf(f, "Usage: lodge VERB [OPTION]...\n       lodge --help | --version\n\nVerbs:\n");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		fprintf(f, "  %-8s %s\n", verbs[i].name, verbs[i].help);
	fprintf(f, "\nMachines that stay are made and driven with VBoxManage.\n");
	return status;
}

int
main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (!strcmp(verb, "--help") || !strcmp(verb, "-h") || !strcmp(verb, "help"))
		return usage(stdout, 0);
	if (!strcmp(verb, "--version") || !strcmp(verb, "-V")) {
		printf("lodge %s\n", LODGE_VERSION);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!strcmp(verb, verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	if (verb[0])
		fprintf(stderr, "lodge: there is no verb '%s'\n", verb);
	return usage(stderr, 2);
}
