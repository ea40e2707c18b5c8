/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getextradata, setextradata.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/vboxmanage/vbm.h"

static const struct site machine = { "VirtualBox", "FindMachine(Bstr(a->argv[0]).raw(), machine.asOutParam())", 560,
	"VBoxManageMisc.cpp" };

/* ---- extra data ---- */

static int
print_extra(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	printf("Key: %s, Value: %s\n", key, value);
	return 0;
}

int
cmd_getextradata(struct cli *c, int argc, char **argv)
{
	struct host *h;
	struct err e = { 0 };
	char *value;

	if (argc != 2)
		return fail_syntax(c, "Incorrect number of parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	if (!strcmp(argv[1], "enumerate"))
		return host_extra_each(h, argv[0], print_extra, NULL, &e) ? fail_api(c, &e, &machine) : 0;
	if (host_extra_get(h, argv[0], argv[1], &value, &e))
		return fail_api(c, &e, &machine);
	if (value)
		printf("Value: %s\n", value);
	else
		printf("No value set!\n");
	free(value);
	return 0;
}

int
cmd_setextradata(struct cli *c, int argc, char **argv)
{
	const char *value = argc > 2 && *argv[2] ? argv[2] : NULL;
	struct host *h;
	struct err e = { 0 };

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (argc > 3)
		return fail_syntax(c, "Too many parameters");
	h = cli_host(c);
	if (!h)
		return 1;
	return host_extra_set(h, argv[0], argv[1], value, &e) ? fail_api(c, &e, &machine) : 0;
}
