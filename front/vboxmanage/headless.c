/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VBoxHeadless: VBoxManage under another name, which starts one machine and stays until it has ended. Being told to
 * stop (SIGINT, SIGTERM, SIGHUP) switches the machine off.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>

#include "front/vboxmanage/vbm.h"

static const struct site start_site = { "Machine", "LaunchVMProcess", 0, "VBoxHeadless.cpp" };
static const struct site console_site = { "Console", "PowerDown(progress.asOutParam())", 0, "VBoxHeadless.cpp" };

static void
told_to_stop(int number)
{
	/* what waits returns */
}

/* From here on those signals end what waits, and nothing else. */
static void
catch_signals(void)
{
	struct sigaction a = { .sa_handler = told_to_stop };

	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
}

static int
set_vrde(struct cli *c, const char *vm, const char *vrde)
{
	struct host_change change = { HK_VRDE, 0, vrde };
	struct err e = { 0 };

	if (!vrde || !strcasecmp(vrde, "config"))
		return 0;
	return host_vm_change_live(c->host, vm, &change, &e) ? fail_api(c, &e, &console_site) : 0;
}

static int
run_to_the_end(struct cli *c, const char *vm, const char *vrde)
{
	struct err e = { 0 };

	if (!cli_host(c))
		return 1;
	catch_signals();
	if (host_vm_start(c->host, vm, NULL, &e))
		return fail_api(c, &e, &start_site);
	printf("VM \"%s\" has been successfully started.\n", vm);
	fflush(stdout);
	if (set_vrde(c, vm, vrde))
		return 1;
	switch (host_vm_wait_end(c->host, vm, &e)) {
	case 0:
		return 0;
	case -EINTR:
		e = (struct err){ 0 };
		return host_vm_control(c->host, vm, HOST_POWEROFF_NOW, &e) && e.code != ERR_VM_STATE
			       ? fail_api(c, &e, &console_site)
			       : 0;
	default:
		return fail_api(c, &e, &start_site);
	}
}

int
cmd_headless(struct cli *c, int argc, char **argv)
{
	static const struct verb usage = { "--startvm", NULL, "VM [--vrde on|off|config]", "web1 --vrde on", false };
	static const struct opt options[] = {
		{ "startvm", 0, OPT_TEXT, 's', 0 },
		{ "vrde", 1, OPT_TEXT, 'v', 0 },
		{ "help", 2, OPT_FLAG, 'h', 0 },
		{ "version", 3, OPT_FLAG, 'V', 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *vm = NULL, *vrde = NULL;
	int id;

	c->verb = &usage;
	while ((id = args_next(&a)) != ARG_END) {
		if (id == 0) {
			vm = a.text;
		} else if (id == 1) {
			vrde = a.text;
			if (strcasecmp(vrde, "on") && strcasecmp(vrde, "off") && strcasecmp(vrde, "config"))
				return fail_argument(c, "Invalid value '%s' for --vrde: on, off or config", vrde);
		} else if (id == 2) {
			print_usage(c, &usage, false);
			return 0;
		} else if (id == 3) {
			printf(VBM_VERSION "r" VBM_REVISION "\n");
			return 0;
		} else {
			return id == ARG_WORD ? fail_syntax(c, "Invalid parameter '%s'", a.text) : 2;
		}
	}
	return vm ? run_to_the_end(c, vm, vrde) : fail_syntax(c, "No machine is named: use --startvm");
}
