/* SPDX-License-Identifier: Apache-2.0 */
/* The inventory: machines in and out, changes all or none, settings files, locks and states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"

struct place {
	char dir[64];
	struct host *h;
};

static int
setup(void **state)
{
	struct place *p = xcalloc(1, sizeof(*p));
	struct err e = { 0 };

	strcpy(p->dir, "/tmp/lodge-host.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	setenv("HOME", p->dir, 1);
	setenv("LODGE_HOME", p->dir, 1);
	unsetenv("LODGE_ENGINE");
	p->h = host_open(&e);
	if (!p->h)
		fail_msg("%s", e.text);
	*state = p;
	return 0;
}

static int
teardown(void **state)
{
	struct place *p = *state;
	char *cmd = xasprintf("rm -rf '%s'", p->dir);
	int r;

	host_close(p->h);
	assert_int_equal(chdir("/"), 0);
	r = system(cmd);
	free(cmd);
	free(p);
	return r;
}

static void
make(struct host *h, const char *name)
{
	struct host_vm_create c = { .name = name, .registered = true };
	struct err e = { 0 };
	char uuid[37], *file;

	if (host_vm_create(h, &c, uuid, &file, &e))
		fail_msg("%s", e.text);
	free(file);
}

static struct host_vm *
load(struct host *h, const char *id)
{
	struct err e = { 0 };
	struct host_vm *vm = host_vm_load(h, id, &e);

	if (!vm)
		fail_msg("%s", e.text);
	return vm;
}

static int
change(struct host *h, const char *id, enum host_key key, int slot, const char *value, struct err *e)
{
	struct host_change c = { key, slot, value };

	return host_vm_modify(h, id, &c, 1, e);
}

static void
opening_twice_is_fine_and_sees_the_same(void **state)
{
	struct place *p = *state;
	struct err e = { 0 };
	struct host *second = host_open(&e);
	struct host_vm *vm;

	make(p->h, "a");
	vm = load(second, "a");
	assert_string_equal(vm->name, "a");
	host_vm_free(vm);
	host_close(second);
}

static void
a_new_machine_has_the_defaults(void **state)
{
	struct place *p = *state;
	struct host_vm *vm;

	make(p->h, "a");
	vm = load(p->h, "a");
	for (int k = 0; k < HK_COUNT; k++) {
		for (int i = 0; i < host_setting(k)->slots; i++) {
			char *usual = setting_fallback(k, i);

			if (k != HK_MACADDRESS && k != HK_HARDWAREUUID)
				assert_string_equal(host_vm_get(vm, k, i), usual);
			free(usual);
		}
	}
	assert_string_equal(host_vm_get(vm, HK_NIC, 0), "nat");
	assert_string_equal(host_vm_get(vm, HK_NIC, 1), "none");
	assert_string_equal(host_vm_get(vm, HK_BOOT, 1), "dvd");
	assert_string_equal(host_vm_get(vm, HK_HARDWAREUUID, 0), vm->uuid);
	assert_int_equal(vm->state, HOST_POWEROFF);
	host_vm_free(vm);
}

static void
every_default_is_a_value_its_setting_takes(void **state)
{
	for (int k = 0; k < HK_COUNT; k++) {
		for (int i = 0; i < host_setting(k)->slots; i++) {
			char *usual = setting_fallback(k, i);
			struct err e = { 0 };

			if (*usual && host_setting_check(k, i, usual, &e) != HOST_VALUE_OK)
				fail_msg("%s: %s", host_setting(k)->name, e.text);
			free(usual);
		}
		assert_int_equal(setting_find(host_setting(k)->name), k);
	}
}

static void
a_setting_without_an_effect_says_why(void **state)
{
	for (int k = 0; k < HK_COUNT; k++)
		if (host_setting(k)->effective)
			assert_non_null(host_setting(k)->why);
}

static void
values_are_stored_in_one_form(void **state)
{
	static const struct {
		enum host_key key;
		const char *typed, *stored;
	} rows[] = {
		{ HK_MEMORY, "0x100", "256" },
		{ HK_NICTYPE, "82540em", "82540EM" },
		{ HK_FIRMWARE, "bios", "BIOS" },
		{ HK_MACADDRESS, "080027aabbcc", "080027AABBCC" },
		{ HK_UART, "0x3F8 4", "0x03f8,4" },
		{ HK_UART, "OFF", "off" },
		{ HK_UARTMODE, "tcpserver 2023", "tcpserver,2023" },
		{ HK_UARTMODE, "/dev/ttyS0", "device,/dev/ttyS0" },
		{ HK_UARTMODE, "file /a/../b c", "file,/b c" },
		{ HK_VRDEPORT, "default", "5900-5999" },
		{ HK_VRDEPORT, "5000,5010-5012", "5000,5010-5012" },
		{ HK_NATNET, "default", "nat" },
		{ HK_NATNET, "192.168.7.0/24", "192.168.7.0/24" },
		{ HK_OSTYPE, "debian_64", "Debian_64" },
		{ HK_OSTYPE, "Debian (64-bit)", "Debian_64" },
		{ HK_BIOSSYSTEMTIMEOFFSET, "-3600000", "-3600000" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		char *got = setting_normal(rows[i].key, 0, rows[i].typed, &e);

		if (!got)
			fail_msg("%s: %s", rows[i].typed, e.text);
		assert_string_equal(got, rows[i].stored);
		free(got);
	}
}

static void
values_that_do_not_exist_are_refused(void **state)
{
	static const struct {
		enum host_key key;
		const char *typed;
	} rows[] = {
		{ HK_MEMORY, "3" },
		{ HK_MEMORY, "-1" },
		{ HK_MEMORY, "1e3" },
		{ HK_MEMORY, "" },
		{ HK_MEMORY, "99999999999999999999999" },
		{ HK_HPET, "ON" },
		{ HK_HPET, "1" },
		{ HK_NIC, "" },
		{ HK_NIC, "nat|none" },
		{ HK_MACADDRESS, "0800" },
		{ HK_MACADDRESS, "zz0027AABBCC" },
		{ HK_MACADDRESS, "0900271122334455" },
		{ HK_UART, "0x3f8" },
		{ HK_UART, "0x3f8 1" },
		{ HK_UART, "3f8 4" },
		{ HK_UARTMODE, "file" },
		{ HK_UARTMODE, "" },
		{ HK_UARTMODE, "smoke signal" },
		{ HK_VRDEPORT, "" },
		{ HK_VRDEPORT, "0-5" },
		{ HK_VRDEPORT, "70000" },
		{ HK_VRDEPORT, "5," },
		{ HK_VRDEPORT, "6000-5000" },
		{ HK_NATNET, "192.168.1/24" },
		{ HK_NATNET, "1.2.3.4" },
		{ HK_NATNET, "1.2.3.4.5/24" },
		{ HK_NATNET, "1.2.3.256/24" },
		{ HK_NATNET, "1.2.3.0/30" },
		{ HK_GROUPS, "a" },
		{ HK_GROUPS, "/a/" },
		{ HK_GROUPS, "/a//b" },
		{ HK_HARDWAREUUID, "x" },
		{ HK_OSTYPE, "" },
		{ HK_VRDEPASSWORD, "longer than eight" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (host_setting_check(rows[i].key, 0, rows[i].typed, NULL) != HOST_VALUE_MALFORMED)
			fail_msg("%s took '%s'", host_setting(rows[i].key)->name, rows[i].typed);
	assert_int_equal(host_setting_check(HK_NIC, 8, "nat", NULL), HOST_VALUE_MALFORMED);
	assert_int_equal(host_setting_check(HK_NIC, -1, "nat", NULL), HOST_VALUE_MALFORMED);
	assert_int_equal(host_setting_check(HK_NIC, 0, "cloud", NULL), HOST_VALUE_UNSUPPORTED);
}

static void
of_several_changes_all_or_none_are_made(void **state)
{
	struct place *p = *state;
	struct host_change c[] = { { HK_MEMORY, 0, "512" }, { HK_CPUS, 0, "0" } };
	struct err e = { 0 };
	struct host_vm *vm;

	make(p->h, "a");
	assert_int_equal(host_vm_modify(p->h, "a", c, 2, &e), -1);
	vm = load(p->h, "a");
	assert_int_equal(host_vm_num(vm, HK_MEMORY, 0), 128);
	host_vm_free(vm);
}

static void
a_machine_comes_back_whole_from_its_settings_file(void **state)
{
	struct place *p = *state;
	struct err e = { 0 };
	struct host_vm *vm;
	char uuid[37], *file;

	make(p->h, "a");
	assert_int_equal(change(p->h, "a", HK_DESCRIPTION, 0, "two\nlines \"quoted\" \xc3\xa4", &e), 0);
	assert_int_equal(change(p->h, "a", HK_NATPF_ADD, 3, "x,udp,,53,10.0.2.9,54", &e), 0);
	assert_int_equal(host_extra_set(p->h, "a", "k", "v", &e), 0);
	vm = load(p->h, "a");
	file = xstrdup(vm->cfg_file);
	host_vm_free(vm);
	assert_int_equal(host_vm_unregister(p->h, "a", false, &e), 0);
	assert_null(host_vm_load(p->h, "a", &e));
	assert_int_equal(e.code, ERR_NOT_FOUND);
	if (host_vm_register(p->h, file, uuid, &e))
		fail_msg("%s", e.text);
	vm = load(p->h, uuid);
	assert_string_equal(host_vm_get(vm, HK_DESCRIPTION, 0), "two\nlines \"quoted\" \xc3\xa4");
	assert_int_equal(vm->rule_count[3], 1);
	assert_true(vm->rules[3][0].udp);
	assert_int_equal(vm->rules[3][0].guest_port, 54);
	host_vm_free(vm);
	free(file);
}

static void
a_settings_file_cut_anywhere_is_refused_and_registers_nothing(void **state)
{
	struct place *p = *state;
	struct err e = { 0 };
	struct host_vm **vms, *vm;
	char uuid[37], *file, *text;
	size_t len, count;

	make(p->h, "a");
	vm = load(p->h, "a");
	file = xstrdup(vm->cfg_file);
	host_vm_free(vm);
	text = file_read(file, 1 << 20, &len, &e);
	assert_int_equal(host_vm_unregister(p->h, "a", false, &e), 0);
	for (size_t cut = 0; cut < len - 2; cut += 1 + len / 97) {
		assert_int_equal(truncate(file, (off_t)cut), 0);
		assert_int_equal(host_vm_register(p->h, file, uuid, &e), -1);
		assert_int_equal(file_replace(file, text, len, 0600, &e), 0);
	}
	assert_int_equal(host_vms_load(p->h, &vms, &count, &e), 0);
	assert_int_equal(count, 0);
	host_vms_free(vms, count);
	free(text);
	free(file);
}

static void
a_registered_machine_may_miss_its_disk(void **state)
{
	struct place *p = *state;
	struct host_medium_create m = { .type = HOST_DISK, .path = "d.vdi", .size = 1 << 20 };
	struct host_controller_change ctl = {
		.name = "S", .add = "sata", .ports = -1, .bootable = -1, .hostiocache = -1
	};
	struct host_attach at = { .controller = "S",
		.port = 0,
		.device = 0,
		.type = "hdd",
		.medium = "d.vdi",
		.nonrotational = -1,
		.discard = -1,
		.hotpluggable = -1,
		.tempeject = -1,
		.passthrough = -1 };
	struct err e = { 0 };
	struct host_vm *vm;
	char uuid[37], disk[37], *file;

	assert_int_equal(chdir(p->dir), 0);
	make(p->h, "a");
	if (host_medium_create(p->h, &m, disk, &e) || host_vm_controller(p->h, "a", &ctl, &e) ||
		host_vm_attach(p->h, "a", &at, &e))
		fail_msg("%s", e.text);
	vm = load(p->h, "a");
	file = xstrdup(vm->cfg_file);
	host_vm_free(vm);
	assert_int_equal(host_vm_unregister(p->h, "a", false, &e), 0);
	assert_int_equal(host_medium_close(p->h, HOST_DISK, disk, true, &e), 0);
	if (host_vm_register(p->h, file, uuid, &e))
		fail_msg("%s", e.text);
	vm = load(p->h, "a");
	assert_string_equal(vm->ctl[0].at[0].medium, disk);
	host_vm_free(vm);
	assert_int_equal(host_vm_start(p->h, "a", NULL, &e), -1);
	assert_int_equal(e.code, ERR_FILE);
	free(file);
}

static void
names_that_are_no_file_names_are_refused(void **state)
{
	static const char *const names[] = { "", ".", "..", "a/b", "a\nb", "\x01" };
	struct place *p = *state;
	char uuid[37], *file, longest[300];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct host_vm_create c = { .name = names[i], .registered = true };

		assert_int_equal(host_vm_create(p->h, &c, uuid, &file, NULL), -1);
	}
	memset(longest, 'x', sizeof(longest));
	longest[299] = 0;
	assert_int_equal(host_vm_create(p->h, &(struct host_vm_create){ .name = longest, .registered = true }, uuid,
				 &file, NULL),
		-1);
}

/* A process that holds the lock as a machine's does, until the pipe is closed. */
static pid_t
hold_lock(struct host *h, const char *uuid, int *release)
{
	char *dir = vm_run_dir(h, uuid), *path = xasprintf("%s/lock", dir);
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int go[2], done[2], fd;
	pid_t pid;
	char c;

	dir_make(dir, 0700, NULL);
	assert_int_equal(pipe(go) | pipe(done), 0);
	pid = fork();
	if (!pid) {
		close(done[1]);
		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fcntl(fd, F_OFD_SETLK, &lk) || write(go[1], "x", 1) != 1)
			_exit(1);
		_exit(read(done[0], &c, 1) != 0);
	}
	assert_int_equal(read(go[0], &c, 1), 1);
	close(go[0]);
	close(go[1]);
	close(done[0]);
	*release = done[1];
	free(path);
	free(dir);
	return pid;
}

static void
write_status(struct host *h, const char *uuid, const char *word)
{
	char *dir = vm_run_dir(h, uuid), *path = xasprintf("%s/status.json", dir), *text;
	struct err e = { 0 };

	text = xasprintf("{\"pid\":1,\"state\":\"%s\",\"since\":\"2024-05-01T10:00:00.500000000\"}", word);
	if (file_replace(path, text, strlen(text), 0600, &e))
		fail_msg("%s", e.text);
	free(text);
	free(path);
	free(dir);
}

static enum host_state
state_of(struct host *h, const char *id)
{
	struct host_vm *vm = load(h, id);
	enum host_state s = vm->state;

	host_vm_free(vm);
	return s;
}

static void
the_lock_decides_whether_a_machine_runs(void **state)
{
	struct place *p = *state;
	struct err e = { 0 };
	struct host_vm *vm;
	int release;
	pid_t pid;
	char uuid[37];

	make(p->h, "a");
	vm = load(p->h, "a");
	strcpy(uuid, vm->uuid);
	host_vm_free(vm);
	pid = hold_lock(p->h, uuid, &release);
	assert_int_equal(state_of(p->h, "a"), HOST_STARTING);
	write_status(p->h, uuid, "running");
	assert_int_equal(state_of(p->h, "a"), HOST_RUNNING);
	assert_int_equal(change(p->h, "a", HK_MEMORY, 0, "64", &e), -1);
	assert_int_equal(e.code, ERR_OBJECT_STATE);
	assert_int_equal(host_vm_unregister(p->h, "a", true, &e), -1);
	assert_int_equal(e.code, ERR_OBJECT_STATE);
	assert_int_equal(host_vm_start(p->h, "a", NULL, &e), -1);
	assert_int_equal(e.code, ERR_OBJECT_STATE);
	write_status(p->h, uuid, "poweroff");
	assert_int_equal(state_of(p->h, "a"), HOST_STOPPING);
	write_status(p->h, uuid, "paused");
	close(release);
	waitpid(pid, NULL, 0);
	assert_int_equal(state_of(p->h, "a"), HOST_ABORTED);
	vm = load(p->h, "a");
	assert_int_equal(vm->state_time, 1714557600500000000);
	host_vm_free(vm);
	assert_int_equal(change(p->h, "a", HK_MEMORY, 0, "64", &e), 0);
	write_status(p->h, uuid, "poweroff");
	assert_int_equal(state_of(p->h, "a"), HOST_POWEROFF);
}

static void
a_status_file_that_is_damaged_does_no_harm(void **state)
{
	static const char *const words[] = { "", "\",", "nonsense", "saved" };
	struct place *p = *state;
	struct host_vm *vm;
	char uuid[37], *dir;

	make(p->h, "a");
	vm = load(p->h, "a");
	strcpy(uuid, vm->uuid);
	host_vm_free(vm);
	dir = vm_run_dir(p->h, uuid);
	dir_make(dir, 0700, NULL);
	free(dir);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		write_status(p->h, uuid, words[i]);
		vm = load(p->h, "a");
		assert_false(host_state_live(vm->state));
		host_vm_free(vm);
	}
}

static void
calls_to_a_machine_that_does_not_run_say_so(void **state)
{
	struct place *p = *state;
	struct err e = { 0 };

	make(p->h, "a");
	assert_int_equal(host_vm_control(p->h, "a", HOST_POWEROFF_NOW, &e), -1);
	assert_int_equal(e.code, ERR_VM_STATE);
	assert_string_equal(e.text, "Machine 'a' is not currently running.");
	assert_int_equal(host_vm_type_text(p->h, "a", "x", &e), -1);
	assert_int_equal(host_vm_type_text(p->h, "a", "\xff", &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
}

static json_t *
config_of(struct host *h, const char *id)
{
	struct host_vm *vm = load(h, id);
	struct err e = { 0 };
	json_t *o = config_json(h, vm, &e);

	if (!o)
		fail_msg("%s", e.text);
	host_vm_free(vm);
	return o;
}

static const char *
text_at(json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static void
the_configuration_says_what_the_settings_say(void **state)
{
	struct place *p = *state;
	struct host_change c[] = {
		{ HK_MEMORY, 0, "777" },
		{ HK_CPUS, 0, "3" },
		{ HK_RTCUSEUTC, 0, "on" },
		{ HK_NIC, 1, "nat" },
		{ HK_NICTYPE, 1, "virtio" },
		{ HK_NATPF_ADD, 1, "ssh,tcp,,2222,,22" },
		{ HK_UART, 0, "0x3f8 4" },
		{ HK_UARTMODE, 0, "file /tmp/x" },
		{ HK_VRDEPASSWORD, 0, "secret" },
		{ HK_GRAPHICSCONTROLLER, 0, "none" },
		{ HK_NICTRACE, 0, "on" },
	};
	struct err e = { 0 };
	json_t *o, *nic, *uart;

	make(p->h, "a");
	if (host_vm_modify(p->h, "a", c, ARRAY_LEN(c), &e))
		fail_msg("%s", e.text);
	o = config_of(p->h, "a");
	assert_int_equal(json_integer_value(json_object_get(o, "memory")), 777);
	assert_int_equal(json_integer_value(json_object_get(o, "cpus")), 3);
	assert_true(json_is_true(json_object_get(o, "rtc_utc")));
	assert_true(json_is_null(json_object_get(o, "vga")));
	assert_string_equal(text_at(o, "engine"), "auto");
	assert_int_equal(json_array_size(json_object_get(o, "nics")), 2);
	nic = json_array_get(json_object_get(o, "nics"), 0);
	assert_true(str_ends(text_at(nic, "trace"), "/Logs/nic1.pcap"));
	nic = json_array_get(json_object_get(o, "nics"), 1);
	assert_int_equal(json_integer_value(json_object_get(nic, "slot")), 1);
	assert_string_equal(text_at(nic, "model"), "virtio");
	nic = json_object_get(json_object_get(nic, "backend"), "forwards");
	assert_string_equal(json_string_value(json_array_get(nic, 0)), "ssh,tcp,,2222,,22");
	uart = json_array_get(json_object_get(o, "serial"), 0);
	assert_int_equal(json_integer_value(json_object_get(uart, "base")), 0x3f8);
	assert_int_equal(json_integer_value(json_object_get(uart, "irq")), 4);
	assert_string_equal(text_at(uart, "mode"), "file");
	assert_string_equal(text_at(uart, "path"), "/tmp/x");
	assert_string_equal(text_at(json_object_get(o, "vrde"), "address"), "0.0.0.0");
	json_decref(o);
}

static void
a_console_without_a_password_stays_on_the_loopback(void **state)
{
	struct place *p = *state;
	json_t *o;

	make(p->h, "a");
	o = config_of(p->h, "a");
	assert_string_equal(text_at(json_object_get(o, "vrde"), "address"), "127.0.0.1");
	json_decref(o);
}

static void
the_engine_is_the_environments_then_the_machines_then_the_hosts(void **state)
{
	struct place *p = *state;
	struct host_vm *vm;
	struct err e = { 0 };
	char *name;

	make(p->h, "a");
	vm = load(p->h, "a");
	host_extra_set(p->h, NULL, "Lodge/Engine", "kvm", &e);
	name = engine_name(p->h, vm->uuid, &e);
	assert_string_equal(name, "kvm");
	free(name);
	host_extra_set(p->h, "a", "Lodge/Engine", "interp", &e);
	name = engine_name(p->h, vm->uuid, &e);
	assert_string_equal(name, "interp");
	free(name);
	setenv("LODGE_ENGINE", "jit", 1);
	name = engine_name(p->h, vm->uuid, &e);
	assert_string_equal(name, "jit");
	free(name);
	host_vm_free(vm);
}

static void
paths_are_made_absolute_by_text_alone(void **state)
{
	struct place *p = *state;
	static const char *const rows[][2] = { { "/a/./b//c/../d", "/a/b/d" }, { "/..", "/" }, { "/", "/" },
		{ "/a/b/../../../c", "/c" }, { "/a/", "/a" } };
	char *got, *want;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		got = host_absolute_path(rows[i][0]);
		assert_string_equal(got, rows[i][1]);
		free(got);
	}
	assert_int_equal(chdir(p->dir), 0);
	got = host_absolute_path("x/../y");
	want = xasprintf("%s/y", p->dir);
	assert_string_equal(got, want);
	free(got);
	free(want);
}

static void
writers_at_the_same_time_lose_nothing(void **state)
{
	struct place *p = *state;
	struct host_vm *vm;
	struct err e = { 0 };

	make(p->h, "a");
	for (int i = 0; i < 8; i++) {
		if (fork())
			continue;
		struct host *h = host_open(&e);

		for (int k = 0; h && k < 5; k++) {
			char *rule = xasprintf("r%d-%d,tcp,,%d,,22", i, k, 1000 + 10 * i + k);

			if (change(h, "a", HK_NATPF_ADD, 0, rule, &e))
				_exit(1);
			free(rule);
		}
		_exit(!h);
	}
	for (int i = 0; i < 8; i++) {
		int status = -1;

		wait(&status);
		assert_int_equal(status, 0);
	}
	vm = load(p->h, "a");
	assert_int_equal(vm->rule_count[0], 40);
	host_vm_free(vm);
}

static void
a_writer_that_dies_in_the_middle_changes_nothing(void **state)
{
	struct place *p = *state;
	struct host_vm *vm;
	struct err e = { 0 };
	int status;

	make(p->h, "a");
	if (!fork()) {
		struct host *h = host_open(&e);

		if (!h || db_begin(h, &e) || db_run(h, &e, "DELETE FROM machine", ""))
			_exit(1);
		_exit(0); /* without commit, without closing */
	}
	wait(&status);
	assert_int_equal(status, 0);
	vm = load(p->h, "a");
	host_vm_free(vm);
	assert_int_equal(change(p->h, "a", HK_MEMORY, 0, "64", &e), 0);
}

static void
os_types_are_found_by_id_and_have_sensible_rows(void **state)
{
	size_t n = 0;
	const struct host_ostype *t;

	for (; (t = host_ostype_at(n)); n++) {
		assert_ptr_equal(host_ostype_find(t->id), t);
		assert_ptr_equal(host_ostype_find(t->description), t);
		assert_int_equal(t->is_64bit, str_ends(t->id, "_64"));
		assert_true(t->memory_mb >= 4 && t->vram_mb >= 1);
	}
	assert_true(n >= 100);
	assert_null(host_ostype_find("Frobnix"));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(opening_twice_is_fine_and_sees_the_same),
		T(a_new_machine_has_the_defaults),
		cmocka_unit_test(every_default_is_a_value_its_setting_takes),
		cmocka_unit_test(a_setting_without_an_effect_says_why),
		cmocka_unit_test(values_are_stored_in_one_form),
		cmocka_unit_test(values_that_do_not_exist_are_refused),
		T(of_several_changes_all_or_none_are_made),
		T(a_machine_comes_back_whole_from_its_settings_file),
		T(a_settings_file_cut_anywhere_is_refused_and_registers_nothing),
		T(a_registered_machine_may_miss_its_disk),
		T(names_that_are_no_file_names_are_refused),
		T(the_lock_decides_whether_a_machine_runs),
		T(a_status_file_that_is_damaged_does_no_harm),
		T(calls_to_a_machine_that_does_not_run_say_so),
		T(the_configuration_says_what_the_settings_say),
		T(a_console_without_a_password_stays_on_the_loopback),
		T(the_engine_is_the_environments_then_the_machines_then_the_hosts),
		T(paths_are_made_absolute_by_text_alone),
		T(writers_at_the_same_time_lose_nothing),
		T(a_writer_that_dies_in_the_middle_changes_nothing),
		cmocka_unit_test(os_types_are_found_by_id_and_have_sensible_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
