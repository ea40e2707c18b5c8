/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge autostart: what the host's init calls when it comes up and goes down (doc/vagrant.md has a unit). Machines with
 * `modifyvm --autostart-enabled on` are started in the order of their delays, each no earlier than its own; on the way
 * down each ends as its --autostop-type says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/str.h"
#include "front/lodge/lodge.h"
#include "host/host.h"

#define SHUTDOWN_S 60 /* for a guest that was asked to turn itself off */

static int
usage(FILE *f, int status)
{
	fprintf(f, "Usage: lodge autostart start|stop [--dry-run]\n"
		   "start: start the machines that have --autostart-enabled on, in the order of --autostart-delay.\n"
		   "stop: end them as their --autostop-type says: disabled, savestate, poweroff or acpishutdown.\n"
		   "--dry-run: only say which and how.\n");
	return status;
}

static int
by_delay(const void *a, const void *b)
{
	int64_t d = host_vm_num(*(struct host_vm *const *)a, HK_AUTOSTARTDELAY, 0),
		k = host_vm_num(*(struct host_vm *const *)b, HK_AUTOSTARTDELAY, 0);

	return (d > k) - (d < k);
}

static int
complain(const struct host_vm *vm, const char *what, const struct err *e)
{
	fprintf(stderr, "lodge: %s cannot be %s: %s\n", vm->name, what, e->text);
	return 1;
}

static int
start_one(struct host *h, const struct host_vm *vm, uint64_t begun, bool dry)
{
	int64_t delay = host_vm_num(vm, HK_AUTOSTARTDELAY, 0);
	struct err e = { 0 };
	uint64_t passed;

	if (host_state_live(vm->state))
		return 0;
	printf("%s starts after %lld s\n", vm->name, (long long)delay);
	fflush(stdout);
	if (dry)
		return 0;
	passed = (loop_now() - begun) / 1000000000;
	if (passed < (uint64_t)delay)
		sleep((unsigned)((uint64_t)delay - passed));
	return host_vm_start(h, vm->uuid, NULL, &e) ? complain(vm, "started", &e) : 0;
}

/* Ask the guest, and wait for it; what does not answer is turned off. */
static int
shut_down(struct host *h, const struct host_vm *vm, struct err *e)
{
	struct host_vm *now;
	bool lives = true;

	if (host_vm_control(h, vm->uuid, HOST_POWER_BUTTON, e))
		return -1;
	for (int i = 0; i < SHUTDOWN_S * 10 && lives; i++) {
		usleep(100000);
		now = host_vm_load(h, vm->uuid, e);
		lives = now && host_state_live(now->state);
		host_vm_free(now);
	}
	return lives ? host_vm_control(h, vm->uuid, HOST_POWEROFF_NOW, e) : 0;
}

static int
stop_one(struct host *h, const struct host_vm *vm, bool dry)
{
	const char *how = host_vm_get(vm, HK_AUTOSTOPTYPE, 0);
	struct err e = { 0 };
	int r;

	if (!host_state_live(vm->state) || !strcmp(how, "disabled"))
		return 0;
	printf("%s: %s\n", vm->name, how);
	fflush(stdout);
	if (dry)
		return 0;
	if (!strcmp(how, "savestate"))
		r = host_vm_save_state(h, vm->uuid, NULL, &e);
	else if (!strcmp(how, "poweroff"))
		r = host_vm_control(h, vm->uuid, HOST_POWEROFF_NOW, &e);
	else
		r = shut_down(h, vm, &e);
	return r ? complain(vm, "stopped", &e) : 0;
}

static void
say(void *opaque, const char *sentence)
{
	fprintf(stderr, "lodge: warning: %s\n", sentence);
}

static int
run(bool start, bool dry)
{
	struct err e = { 0 };
	struct host *h = host_open(&e);
	uint64_t begun = loop_now();
	struct host_vm **vms;
	size_t count;
	int status = 0;

	if (h)
		host_recover(h, say, NULL);
	if (!h || host_vms_load(h, &vms, &count, &e)) {
		fprintf(stderr, "lodge: %s\n", e.text);
		host_close(h);
		return 1;
	}
	qsort(vms, count, sizeof(*vms), by_delay);
	for (size_t i = 0; i < count; i++)
		if (start && host_vm_on(vms[i], HK_AUTOSTARTENABLED, 0))
			status |= start_one(h, vms[i], begun, dry);
		else if (!start)
			status |= stop_one(h, vms[i], dry);
	host_vms_free(vms, count);
	host_close(h);
	return status;
}

int
lodge_autostart(int argc, char **argv)
{
	bool dry = argc == 3 && !strcmp(argv[2], "--dry-run");

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if ((argc != 2 && !dry) || (strcmp(argv[1], "start") && strcmp(argv[1], "stop")))
		return usage(stderr, 2);
	return run(!strcmp(argv[1], "start"), dry);
}
