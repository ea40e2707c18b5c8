/* SPDX-License-Identifier: Apache-2.0 */
/*
 * startvm and controlvm.
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "front/vboxmanage/network.h"

/* ---- startvm ---- */

static bool
in_path(const char *program)
{
	const char *path = getenv("PATH");

	while (path && *path) {
		size_t n = strcspn(path, ":");
		char *full = xasprintf("%.*s/%s", (int)n, path, program);
		bool found = !access(full, X_OK);

		free(full);
		if (found)
			return true;
		path += n + (path[n] != 0);
	}
	return false;
}

static void
run_viewer(const char *program, int port)
{
	char where[32];
	int null;

	if (fork())
		return;
	setsid();
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	close_range(3, ~0u, 0);
	snprintf(where, sizeof(where), "127.0.0.1::%d", port);
	execlp(program, program, where, NULL);
	_exit(127);
}

/* Open the console in a VNC viewer; when there is none the machine runs all the same. */
static void
open_viewer(struct cli *c, struct host *h, const char *id)
{
	static const char *const viewers[] = { "xtigervncviewer", "vncviewer", "xvnc4viewer", "vinagre",
		"remote-viewer" };
	struct host_vm *vm = host_vm_load(h, id, NULL);
	struct host_change on = { HK_VRDE, 0, "on" };
	struct host_live live = { .vrde_port = -1 };
	const char *display = getenv("DISPLAY");

	if (!display || !*display) {
		warn(c, "No DISPLAY is set: machine '%s' runs without a window", id);
		goto out;
	}
	if (vm && !host_vm_live(h, vm, &live, NULL) && live.vrde_port < 0 && !host_vm_change_live(h, id, &on, NULL))
		host_vm_live(h, vm, &live, NULL);
	for (size_t i = 0; i < ARRAY_LEN(viewers) - 2 && live.vrde_port > 0; i++) {
		if (in_path(viewers[i])) {
			run_viewer(viewers[i], live.vrde_port);
			goto out;
		}
	}
	if (live.vrde_port > 0)
		warn(c,
			"No VNC viewer (xtigervncviewer, vncviewer) is in PATH: machine '%s' runs without a window; "
			"its "
			"console is on port %d",
			id, live.vrde_port);
	else
		warn(c, "The console of machine '%s' cannot be reached: it runs without a window", id);
out:
	host_vm_free(vm);
}

int
start_held(struct host *h, const char *id, struct err *e)
{
	struct host_progress p = signals_hold();
	int r = p.stopped(NULL) ? err_set(e, ERR_FAILED, "Interrupted: the machine '%s' was not started", id)
				: host_vm_start(h, id, &p, e);

	signals_release();
	return r;
}

static int
start_one(struct cli *c, struct host *h, const char *id, const char *type)
{
	static const struct site site = { "Machine",
		"LaunchVMProcess(a->session, sessionType.raw(), ComSafeArrayAsInParam(aBstrEnv), "
		"progress.asOutParam())",
		906, "VBoxManageMisc.cpp" };
	struct host_vm *vm;
	struct err e = { 0 };
	bool window;

	vm = host_vm_load(h, id, &e);
	if (!vm)
		return fail_api(c, &e, &site);
	if (!type)
		type = host_vm_get(vm, HK_DEFAULTFRONTEND, 0);
	window = !strcmp(type, "gui") || !strcmp(type, "separate");
	host_vm_free(vm);
	printf("Waiting for VM \"%s\" to power on...\n", id);
	fflush(stdout);
	if (start_held(h, id, &e))
		return fail_api(c, &e, &site);
	printf("VM \"%s\" has been successfully started.\n", id);
	fflush(stdout);
	if (window)
		open_viewer(c, h, id);
	return 0;
}

static int
check_type(struct cli *c, const char **type)
{
	if (!strcasecmp(*type, "headless") || !strcasecmp(*type, "vrdp"))
		*type = "headless";
	else if (!strcasecmp(*type, "gui") || !strcasecmp(*type, "sdl"))
		*type = "gui";
	else if (!strcasecmp(*type, "separate"))
		*type = "separate";
	else
		return fail_argument(c, "Invalid frontend type '%s'", *type);
	return 0;
}

int
cmd_startvm(struct cli *c, int argc, char **argv)
{
	static const struct opt options[] = {
		{ "type", 0, OPT_TEXT, 't', 0 },
		{ "putenv", 1, OPT_TEXT, 'E', 0 },
		{ "password", 2, OPT_TEXT, 0, 0 },
		{ "password-id", 2, OPT_TEXT, 0, 0 },
	};
	struct args a = ARGS(c, argc, argv, options);
	const char *type = NULL, **vms = xcalloc((size_t)argc + 1, sizeof(*vms));
	int id, count = 0, status = 0;
	struct host *h = NULL;

	while (!status && (id = args_next(&a)) != ARG_END) {
		if (id == ARG_WORD)
			vms[count++] = a.text;
		else if (id == 0) {
			type = a.text;
			status = check_type(c, &type);
		} else if (id == 1)
			putenv((char *)a.text);
		else
			status = id == ARG_BAD ? 2 : fail_plain(c, "The option %s is not available here", a.spelled);
	}
	if (!status && !count)
		status = fail_syntax(c, "at least one VM name or uuid required");
	if (!status && !(h = cli_host(c)))
		status = 1;
	for (int i = 0; i < count && h; i++)
		if (start_one(c, h, vms[i], type))
			status = 1;
	free(vms);
	return status;
}

/* ---- controlvm ---- */

static const struct site console = { "Console", "LockMachine(a->session, LockType_Shared)", 365,
	"VBoxManageControlVM.cpp" };

static int
control(struct cli *c, const char *vm, enum host_control what, const char *call)
{
	struct site site = { "Console", call, 403, "VBoxManageControlVM.cpp" };
	struct err e = { 0 };

	if (what == HOST_POWEROFF_NOW)
		progress_begin(c);
	if (host_vm_control(c->host, vm, what, &e)) {
		progress_end(c, &e);
		return fail_api(c, &e, &site);
	}
	progress_end(c, NULL);
	return 0;
}

static int
ctl_screenshot(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	static const struct site site = { "Display",
		"TakeScreenShotToArray(iScreen, width, height, BitmapFormat_PNG, ComSafeArrayAsOutParam(saScreenshot))",
		1720, "VBoxManageControlVM.cpp" };
	struct err e = { 0 };
	uint64_t screen = 0;

	if (argc < 1 || argc > 2)
		return fail_syntax(c, "Incorrect number of parameters");
	if (argc == 2 && !str_to_u64(argv[1], 0, 63, &screen))
		return fail_argument(c, "Invalid screen number '%s'", argv[1]);
	return host_vm_screenshot(c->host, vm, (int)screen, argv[0], &e) ? fail_api(c, &e, &site) : 0;
}

/* NAME FILE|- [--removeonsuspend yes|no]: a machine that is suspended keeps its disks open here, and their keys. */
static int
ctl_password(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	static const struct site site = { "Console",
		"AddEncryptionPassword(Bstr(argv[2]).raw(), Bstr(strPassword).raw(), fRemoveOnSuspend)", 2010,
		"VBoxManageControlVM.cpp" };
	struct err e = { 0 };
	char *password;
	int r;

	if (argc != 2 && !(argc == 4 && !strcmp(argv[2], "--removeonsuspend")))
		return fail_syntax(c, "Incorrect number of parameters");
	if (argc == 4 && strcmp(argv[3], "no"))
		return fail_plain(c, "Passwords are not removed when a machine is suspended: use --removeonsuspend no");
	password = read_password(c, argv[1], "Enter password: ");
	if (!password)
		return 1;
	r = host_vm_add_password(c->host, vm, argv[0], password, &e);
	free(password);
	return r ? fail_api(c, &e, &site) : 0;
}

static int
ctl_scancodes(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	uint8_t *codes;
	struct err e = { 0 };
	int r;

	if (!argc)
		return fail_syntax(c,
			"Missing argument to '%s'. Expected IBM PC AT set 2 keyboard scancode(s) as hex byte(s)",
			"keyboardputscancode");
	codes = xcalloc((size_t)argc, 1);
	for (int i = 0; i < argc; i++) {
		char *end;
		unsigned long v = strtoul(argv[i], &end, 16);

		if (!isxdigit((unsigned char)argv[i][0]) || *end || v > 0xff) {
			free(codes);
			return fail_argument(c, "Error: '%s' is not a hex byte!", argv[i]);
		}
		codes[i] = (uint8_t)v;
	}
	r = host_vm_scancodes(c->host, vm, codes, (size_t)argc, &e);
	free(codes);
	return r ? fail_api(c, &e, &console) : 0;
}

static int
ctl_string(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	struct err e = { 0 };

	if (!argc)
		return fail_syntax(c, "Missing argument to '%s'. Expected ASCII string(s)", "keyboardputstring");
	for (int i = 0; i < argc; i++)
		if (host_vm_type_text(c->host, vm, argv[i], &e))
			return fail_api(c, &e, &console);
	return 0;
}

/* WIDTH HEIGHT BPP [DISPLAY [yes|no [X Y]]] */
static int
ctl_video_hint(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	static const uint64_t max[] = { 16384, 16384, 32, 63, 0, 32767, 32767 };
	struct host_display_hint hint = { .enabled = true };
	uint64_t v[7] = { 0 };
	struct err e = { 0 };

	if (argc < 3 || argc == 6 || argc > 7)
		return fail_syntax(c, "Incorrect number of parameters");
	for (int i = 0; i < argc; i++) {
		if (i == 4 && !strcmp(argv[i], "no"))
			hint.enabled = false;
		else if (i == 4 ? strcmp(argv[i], "yes") : !str_to_u64(argv[i], 0, max[i], &v[i]))
			return fail_argument(c, "Error parsing display size '%s'", argv[i]);
	}
	hint.width = (int)v[0];
	hint.height = (int)v[1];
	hint.bpp = (int)v[2];
	hint.display = (int)v[3];
	hint.placed = argc == 7;
	hint.x = (int)v[5];
	hint.y = (int)v[6];
	return host_vm_display_hint(c->host, vm, &hint, &e) ? fail_api(c, &e, &console) : 0;
}

static int
ctl_balloon(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	struct err e = { 0 };
	uint64_t mib;

	if (argc != 1)
		return fail_syntax(c, "Missing argument to '%s'", "guestmemoryballoon");
	if (!str_to_u64(argv[0], 0, 1 << 20, &mib))
		return fail_argument(c, "Error parsing guest memory balloon size '%s'", argv[0]);
	return host_vm_balloon(c->host, vm, (int)mib, &e) ? fail_api(c, &e, &console) : 0;
}

static int
ctl_file(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	struct err e = { 0 };
	char *text;
	size_t len;
	int r;

	if (argc != 1)
		return fail_syntax(c, "Missing argument to '%s'. Expected one file name", "keyboardputfile");
	text = file_read(argv[0], 64 << 10, &len, &e);
	if (!text)
		return fail_plain(c, "%s", e.text);
	r = host_vm_type_text(c->host, vm, text, &e);
	free(text);
	return r ? fail_api(c, &e, &console) : 0;
}

static int
change(struct cli *c, const char *vm, enum host_key key, int slot, const char *value)
{
	struct host_change ch = { key, slot, value };
	struct err e = { 0 };

	return host_vm_change_live(c->host, vm, &ch, &e) ? fail_api(c, &e, &console) : 0;
}

static int
on_off(struct cli *c, const char *vm, enum host_key key, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument: 'on' or 'off'");
	if (strcmp(argv[0], "on") && strcmp(argv[0], "off"))
		return fail_argument(c, "Invalid parameter '%s': it is 'on' or 'off'", argv[0]);
	return change(c, vm, key, slot, argv[0]);
}

static int
ctl_linkstate(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return on_off(c, vm, HK_CABLECONNECTED, slot, argc, argv);
}

static int
ctl_nictrace(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return on_off(c, vm, HK_NICTRACE, slot, argc, argv);
}

static int
ctl_vrde(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return on_off(c, vm, HK_VRDE, 0, argc, argv);
}

static int
ctl_cpu_cap(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'cpuexecutioncap'");
	return change(c, vm, HK_CPUEXECUTIONCAP, 0, argv[0]);
}

static int
ctl_natpf(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[0], "delete"))
		return change(c, vm, HK_NATPF_DELETE, slot, argv[1]);
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'natpf%d'", slot + 1);
	return change(c, vm, HK_NATPF_ADD, slot, argv[0]);
}

static int
ctl_pause(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return control(c, vm, HOST_PAUSE, "Pause()");
}

static int
ctl_resume(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return control(c, vm, HOST_RESUME, "Resume()");
}

static int
ctl_reset(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return control(c, vm, HOST_RESET, "Reset()");
}

static int
ctl_poweroff(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return control(c, vm, HOST_POWEROFF_NOW, "PowerDown(progress.asOutParam())");
}

static int
ctl_savestate(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	static const struct site site = { "Console", "SaveState(progress.asOutParam())", 480,
		"VBoxManageControlVM.cpp" };
	struct host_progress progress;
	struct err e = { 0 };
	int r;

	if (argc)
		return fail_syntax(c, "Too many parameters");
	progress = stoppable_begin(c);
	r = host_vm_save_state(c->host, vm, &progress, &e);
	stoppable_end(c, r ? &e : NULL);
	return r ? fail_api(c, &e, &site) : 0;
}

/* Vagrant's and Packer's users write "shutdown": the button asks the guest, --force does not. */
static int
ctl_shutdown(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc > 1 || (argc && strcmp(argv[0], "--force")))
		return fail_syntax(c, "Invalid parameter '%s'", argv[argc - 1]);
	return argc ? control(c, vm, HOST_POWEROFF_NOW, "PowerDown(progress.asOutParam())")
		    : control(c, vm, HOST_POWER_BUTTON, "PowerButton()");
}

/* Ctrl+Alt+Del, as somebody at the keyboard would ask for it (set 1 codes). */
static int
ctl_reboot(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	static const uint8_t keys[] = { 0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d };
	struct err e = { 0 };

	if (argc > 1 || (argc && strcmp(argv[0], "--force")))
		return fail_syntax(c, "Invalid parameter '%s'", argv[argc - 1]);
	if (argc)
		return control(c, vm, HOST_RESET, "Reset()");
	return host_vm_scancodes(c->host, vm, keys, sizeof(keys), &e) ? fail_api(c, &e, &console) : 0;
}

static int
ctl_autostart(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return on_off(c, vm, HK_AUTOSTARTENABLED, 0, argc, argv);
}

static int
ctl_autostart_delay(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'autostart-delay'");
	return change(c, vm, HK_AUTOSTARTDELAY, 0, argv[0]);
}

static int
ctl_audioout(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return on_off(c, vm, HK_AUDIOOUT, 0, argc, argv);
}

static int
ctl_vrdeport(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	if (argc != 1)
		return fail_syntax(c, argc ? "Too many parameters" : "Missing argument to 'vrdeport'");
	return change(c, vm, HK_VRDEPORT, 0, argv[0]);
}

static int
ctl_power_button(struct cli *c, const char *vm, int slot, int argc, char **argv)
{
	return control(c, vm, HOST_POWER_BUTTON, "PowerButton()");
}

static const struct control {
	const char *name;
	int (*run)(struct cli *c, const char *vm, int slot, int argc, char **argv);
	int slots;
} controls[] = {
	{ "pause", ctl_pause, 0 },
	{ "resume", ctl_resume, 0 },
	{ "reset", ctl_reset, 0 },
	{ "poweroff", ctl_poweroff, 0 },
	{ "savestate", ctl_savestate, 0 },
	{ "acpipowerbutton", ctl_power_button, 0 },
	{ "shutdown", ctl_shutdown, 0 },
	{ "reboot", ctl_reboot, 0 },
	{ "autostart-enabled", ctl_autostart, 0 },
	{ "autostart-delay", ctl_autostart_delay, 0 },
	{ "audioout", ctl_audioout, 0 },
	{ "vrdeport", ctl_vrdeport, 0 },
	{ "screenshotpng", ctl_screenshot, 0 },
	{ "addencpassword", ctl_password, 0 },
	{ "keyboardputscancode", ctl_scancodes, 0 },
	{ "keyboardputstring", ctl_string, 0 },
	{ "keyboardputfile", ctl_file, 0 },
	{ "setvideomodehint", ctl_video_hint, 0 },
	{ "guestmemoryballoon", ctl_balloon, 0 },
	{ "vrde", ctl_vrde, 0 },
	{ "cpuexecutioncap", ctl_cpu_cap, 0 },
	{ "setlinkstate", ctl_linkstate, HOST_NICS },
	{ "natpf", ctl_natpf, HOST_NICS },
	{ "nictrace", ctl_nictrace, HOST_NICS },
	{ "nictracefile", ctl_nictracefile, HOST_NICS },
	{ "nicpromisc", ctl_nicpromisc, HOST_NICS },
	{ "nicproperty", ctl_nicproperty, HOST_NICS },
	{ "nic", ctl_nic, HOST_NICS },
};

static const struct control *
find_control(const char *word, int *slot)
{
	for (size_t i = 0; i < ARRAY_LEN(controls); i++) {
		const struct control *k = &controls[i];
		size_t n = strlen(k->name);
		uint64_t number;

		*slot = 0;
		if (!k->slots && !strcmp(word, k->name))
			return k;
		if (k->slots && !strncmp(word, k->name, n) && str_to_u64(word + n, 1, (uint64_t)k->slots, &number)) {
			*slot = (int)number - 1;
			return k;
		}
	}
	return NULL;
}

int
cmd_controlvm(struct cli *c, int argc, char **argv)
{
	const struct control *k;
	struct host_vm *vm;
	struct err e = { 0 };
	const char *why;
	int slot;

	if (argc < 2)
		return fail_syntax(c, "Not enough parameters");
	if (!cli_host(c))
		return 1;
	vm = host_vm_load(c->host, argv[0], &e);
	if (!vm)
		return fail_api(c, &e, &console);
	if (!host_state_live(vm->state)) {
		host_vm_free(vm);
		return fail_plain(c, "Machine '%s' is not currently running.", argv[0]);
	}
	host_vm_free(vm);
	k = find_control(argv[1], &slot);
	if (k)
		return k->run(c, argv[0], slot, argc - 2, argv + 2);
	why = absent_control(argv[1], argc - 2, argv + 2);
	if (why)
		return *why ? fail_plain(c, "'%s' is not available here: %s", argv[1], why) : 0;
	return fail_syntax(c, "Invalid parameter '%s'", argv[1]);
}
