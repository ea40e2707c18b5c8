/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what an OVF envelope may say, and an OVA around it. The first byte chooses: an envelope alone, the same
 * with what is planned from it and VirtualBox's part read into a machine, or a tar archive. tools/run-fuzz builds and
 * runs it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/ovf.h"

static struct host *host;
static char home[] = "/tmp/lodge-fuzz-ovf-XXXXXX";

static void
clean_up(void)
{
	char *command = xasprintf("rm -rf %s", home);

	host_close(host);
	if (system(command))
		_exit(1);
	free(command);
}

static void
begin(void)
{
	struct err e = { 0 };

	if (host)
		return;
	log_set_level(LOG_ERROR);
	if (!mkdtemp(home))
		abort();
	setenv("LODGE_HOME", home, 1);
	setenv("HOME", home, 1);
	host = host_open(&e);
	if (!host)
		abort();
	atexit(clean_up);
}

/* All that a dry run does, and what an import would make of VirtualBox's part. */
static void
use(struct host_appliance *a)
{
	struct host_ovf_change change = { .controller = 8, .port = 1 };
	struct host_ovf_disk d;

	for (int i = 0; host_appliance_disk(a, i, &d); i++)
		package_name_ok(d.file);
	for (int i = 0; i < host_appliance_systems(a); i++) {
		const struct xml *machine = a->ovf->system[i].machine;
		struct host_vm *vm = vm_new("fuzz", "/tmp/fuzz");
		struct ovf_notes notes = { 0 };
		const char *name;
		int port, device;

		machine_read_settings(host, vm, machine, &notes);
		machine_read_macs(vm, machine, true);
		machine_read_controllers(vm, machine, &notes);
		machine_find_disk(machine, "00000000-0000-0000-0000-000000000001", &name, &port, &device);
		host_appliance_set(a, i, HOST_OVF_NAME, "other", NULL);
		for (int u = 0; u < host_appliance_system(a, i)->units; u++)
			host_appliance_change(a, i, u, &change, NULL);
		str_free(&notes.text);
		host_vm_free(vm);
	}
}

static void
read_appliance(const char *suffix, const uint8_t *data, size_t size)
{
	char *path = xasprintf("%s/a.%s", home, suffix);
	struct host_appliance *a;
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(data, 1, size, f) != size || fclose(f))
		abort();
	a = host_appliance_read(host, path, NULL);
	if (a)
		use(a);
	host_appliance_free(a);
	free(path);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ovf *o;

	begin();
	if (size < 2)
		return 0;
	if (data[0] == 'T') {
		read_appliance("ova", data + 1, size - 1);
	} else if (data[0] == 'O') {
		read_appliance("ovf", data + 1, size - 1);
	} else {
		o = ovf_parse((const char *)data, size, "fuzz", NULL);
		ovf_free(o);
	}
	return 0;
}
