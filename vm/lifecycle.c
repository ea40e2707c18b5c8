/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a machine: power-on is a list of named steps, each with its undo; power-off undoes them all, in reverse,
 * and so does a power-on that fails half-way. The states are described in vm/protocol.h.
 *
 * The order follows who uses whom: disks and networks need the machine's loop; devices need disks and networks; the
 * sandbox closes behind everything that opens files; the loop's thread and the CPUs start last, inside the sandbox.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "state/state.h"
#include "vm/private.h"

/* ---- steps ---- */

/* Blocked here, before any thread is made, signals come out of a descriptor that only the owner reads. */
static int
catch_signals(struct vm *v, struct err *e)
{
	sigset_t set;

	if (!v->o.catch_signals)
		return 0;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	v->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (v->signal_fd < 0)
		return err_sys(e, ERR_HOST, errno, "cannot catch signals");
	pthread_sigmask(SIG_BLOCK, &set, &v->old_signals);
	return 0;
}

static void
release_signals(struct vm *v)
{
	struct signalfd_siginfo taken;

	if (v->signal_fd < 0)
		return;
	while (read(v->signal_fd, &taken, sizeof(taken)) > 0)
		; /* one that came while the machine was ending has been obeyed */
	close(v->signal_fd);
	v->signal_fd = -1;
	v->uffd = -1;
	pthread_sigmask(SIG_SETMASK, &v->old_signals, NULL);
}

static int
choose_engine(struct vm *v, struct err *e)
{
	v->engine = cpu_choose(v->c->engine, v->engine_why, e);
	if (!v->engine)
		return -1;
	log_info(v->c->name, "engine %s: %s", v->engine->name, v->engine_why);
	return 0;
}

static int
open_machine(struct vm *v, struct err *e)
{
	v->pc = pc_open(v->c->name, e);
	if (!v->pc)
		return -1;
	v->m = pc_machine(v->pc);
	v->m->event = vm_machine_wants;
	v->m->event_opaque = v;
	return 0;
}

static void
close_machine(struct vm *v)
{
	pc_close(v->pc);
	v->pc = NULL;
	v->m = NULL;
}

static enum pc_boot
boot_kind(enum vm_boot b)
{
	static const enum pc_boot kinds[] = {
		[VM_BOOT_NONE] = PC_BOOT_NONE,
		[VM_BOOT_DISK] = PC_BOOT_DISK,
		[VM_BOOT_DVD] = PC_BOOT_DVD,
		[VM_BOOT_NET] = PC_BOOT_NET,
		[VM_BOOT_FLOPPY] = PC_BOOT_FLOPPY,
	};

	return kinds[b];
}

static void
fill_pc_config(struct vm *v)
{
	struct pc_config *p = &v->pcc;
	struct vm_config *c = v->c;

	p->ram = c->memory_mib << 20;
	p->cpu = (struct cpu_options){ .count = c->cpus, .engine = v->engine->name, .model = c->cpu_model };
	p->cpu.saved = v->saved ? state_model(v->saved) : NULL;
	p->engine = v->engine;
	p->hpet = c->hpet;
	p->rtc_local = !c->rtc_utc;
	p->rtc_offset_s = c->rtc_offset_ms / 1000;
	p->uuid = c->uuid;
	p->smbios = c->smbios;
	p->firmware = c->firmware[0] ? c->firmware : NULL;
	for (int i = 0, n = 0; i < c->boot_count; i++)
		if (c->boot[i] != VM_BOOT_NONE)
			p->boot[n++] = boot_kind(c->boot[i]);
	p->boot_menu = c->boot_menu;
	p->firmware_log = v->o.firmware_log || log_tracing("firmware");
	p->kernel = c->kernel[0] ? c->kernel : NULL;
	p->initrd = c->initrd[0] ? c->initrd : NULL;
	p->append = c->append;
	p->module_count = c->module_count;
	for (int i = 0; i < c->module_count; i++)
		p->modules[i] = c->modules[i];
	p->devices = v->devices;
	p->device_count = v->device_count;
}

static int
build_parts(struct vm *v, struct err *e)
{
	int r;

	if (vm_list_devices(v, e))
		return -1;
	fill_pc_config(v);
	r = pc_build(v->pc, &v->pcc, e);
	for (int i = 0; i < PC_SERIAL_MAX && (!r || pc_owns_serial(v->pc)); i++) {
		v->serial[i] = r ? NULL : v->pcc.serial[i].cd;
		v->pcc.serial[i].cd = NULL; /* the ports own them now */
	}
	if (r)
		pc_dismantle(v->pc);
	return r;
}

static void
dismantle(struct vm *v)
{
	pc_dismantle(v->pc);
}

/* The first free port of a list like "5900,6000-6010". */
static int
open_on_ports(struct vm *v, struct rfb_options *o, const struct display_source *src, const struct input_sink *sink,
	struct err *e)
{
	const char *p = v->c->vrde_ports;

	while (*p) {
		unsigned first, last;
		int n = 0;

		if (sscanf(p, "%u-%u%n", &first, &last, &n) < 2 || !n) {
			if (sscanf(p, "%u%n", &first, &n) < 1)
				break;
			last = first;
		}
		if (first > 65535 || last > 65535 || last < first)
			break;
		o->port = (uint16_t)first;
		o->port_last = (uint16_t)last;
		v->rfb = rfb_open(v->m->loop, o, src, sink, e);
		if (v->rfb)
			return 0;
		p += n;
		if (*p != ',')
			return *p ? err_set(e, ERR_INVALID, "'%s' is not a list of ports", v->c->vrde_ports) : -1;
		p++;
	}
	return err_set(e, ERR_INVALID, "'%s' is not a list of ports", v->c->vrde_ports);
}

int
vm_console_open(struct vm *v, struct err *e)
{
	struct rfb_options o = {
		.address = v->c->vrde_address,
		.password = v->c->vrde_password,
		.name = v->c->name,
	};
	struct display_source src;
	struct input_sink sink = pc_input(v->pc);

	if (v->rfb)
		return 0;
	if (!pc_display(v->pc, &src))
		return err_set(e, ERR_INVALID, "the console server needs a VGA");
	if (open_on_ports(v, &o, &src, &sink, e))
		return -1;
	log_info(v->c->name, "console server on %s port %u", v->c->vrde_address, rfb_port(v->rfb));
	return 0;
}

void
vm_console_close(struct vm *v)
{
	if (v->rfb)
		rfb_close(v->rfb);
	v->rfb = NULL;
}

int
vm_console_move(struct vm *v, const char *ports, struct err *e)
{
	struct rfb *old = v->rfb;
	char *before = v->c->vrde_ports;

	v->c->vrde_ports = xstrdup(ports);
	v->rfb = NULL;
	if (old && vm_console_open(v, e)) {
		free(v->c->vrde_ports);
		v->c->vrde_ports = before;
		v->rfb = old;
		return -1;
	}
	if (old)
		rfb_close(old);
	free(before);
	return 0;
}

static int
open_console(struct vm *v, struct err *e)
{
	int r;

	if (!v->c->vrde || !v->c->vrde_enabled)
		return 0;
	machine_lock(v->m);
	r = vm_console_open(v, e);
	machine_unlock(v->m);
	return r;
}

static void
close_console(struct vm *v)
{
	machine_lock(v->m);
	vm_console_close(v);
	machine_unlock(v->m);
}

static int
open_control(struct vm *v, struct err *e)
{
	char *path;

	if (!v->o.run_dir)
		return 0;
	path = xasprintf("%s/%s", v->o.run_dir, VM_FILE_CONTROL);
	v->control = control_open(v, path, e);
	free(path);
	return v->control ? 0 : -1;
}

static void
close_control(struct vm *v)
{
	machine_lock(v->m);
	control_close(v->control);
	v->control = NULL;
	machine_unlock(v->m);
}

static int
enter_sandbox(struct vm *v, struct err *e)
{
	struct sandbox s = { .user = v->c->user, .writable_dir = v->o.run_dir, .snapshot_dir = v->c->snapshot_dir };
	const char **images = NULL;
	int r;

	if (!v->c->sandbox)
		return 0;
	/* A snapshot that is deleted is merged into the one before it. */
	for (int i = 0; i < v->disk_count; i++) {
		struct block_info info;

		for (int k = 0; v->disks[i].block && block_chain_info(v->disks[i].block, k, &info); k++) {
			images = realloc(images, (size_t)(s.writable_count + 1) * sizeof(*images));
			if (!images)
				abort();
			if (strcmp(info.format, "iso"))
				images[s.writable_count++] = info.path;
		}
	}
	s.writable = images;
	s.shares = v->shares != NULL;

	for (int i = 0; i < v->c->serial_count; i++)
		if (v->c->serial[i].mode == VM_SERIAL_SERVER)
			s.removable[s.removable_count++] = v->c->serial[i].path;
	r = sandbox_enter(&s, e);
	free(images);
	return r;
}

static void *
loop_main(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
start_loop(struct vm *v, struct err *e)
{
	int r = pthread_create(&v->loop_thread, NULL, loop_main, v->m->loop);

	return r ? err_sys(e, ERR_HOST, r, "cannot start a thread") : 0;
}

static void
stop_loop(struct vm *v)
{
	loop_stop(v->m->loop);
	pthread_join(v->loop_thread, NULL);
}

static int
start_cpus(struct vm *v, struct err *e)
{
	v->started_ns = loop_now();
	return pc_power_on(v->pc, e);
}

static void
stop_cpus(struct vm *v)
{
	pc_pause(v->pc);
	machine_lock(v->m);
	for (int i = 0; i < v->disk_count; i++)
		vm_merge_cancel(&v->disks[i]);
	machine_unlock(v->m);
	if (v->o.ending)
		v->o.ending(v, v->o.opaque);
}

static const struct step {
	const char *name;
	int (*take)(struct vm *v, struct err *e);
	void (*undo)(struct vm *v);
} steps[] = {
	{ "lock the machine", vm_lock_take, vm_lock_drop },
	{ "catch signals", catch_signals, release_signals },
	{ "choose an engine", choose_engine, NULL },
	{ "open the machine", open_machine, close_machine },
	{ "open the saved state", vm_state_open, vm_state_close },
	{ "start the opener of images", vm_opener_start, vm_opener_stop },
	{ "open the shared folders", vm_shares_open, vm_shares_close },
	{ "set the limits of bandwidth", vm_groups_open, vm_groups_close },
	{ "open the disks", vm_open_disks, vm_close_disks },
	{ "plug in the networks", vm_open_networks, vm_close_networks },
	{ "connect the serial lines", vm_open_serial, vm_close_serial },
	{ "open the guest agent's channel", vm_agent_open, vm_agent_close },
	{ "build the parts", build_parts, dismantle },
	{ "load the saved state", vm_state_load, NULL },
	{ "open the console", open_console, close_console },
	{ "open the control socket", open_control, close_control },
	{ "open the debugger", vm_debug_open, vm_debug_close },
	{ "enter the sandbox", enter_sandbox, NULL },
	{ "start the loop", start_loop, stop_loop },
	{ "start the CPUs", start_cpus, stop_cpus },
	{ "hold the CPUs to their share", vm_throttle_open, vm_throttle_close },
	{ "start the debugger", vm_debug_start, NULL },
};

/* The lock goes last of all, when the final status is written: see finish(). */
static void
undo_steps(struct vm *v, int down_to)
{
	while (v->steps_done > down_to) {
		const struct step *s = &steps[--v->steps_done];

		if (s->undo)
			s->undo(v);
	}
}

/* ---- life ---- */

struct vm *
vm_open(struct vm_config *c, const struct vm_options *o)
{
	struct vm *v = xcalloc(1, sizeof(*v));

	v->c = c;
	v->o = *o;
	v->state = VM_STARTING;
	v->lock_fd = -1;
	v->jobs_tail = &v->jobs;
	pthread_mutex_init(&v->jobs_lock, NULL);
	v->signal_fd = -1;
	v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return v;
}

void
vm_close(struct vm *v)
{
	if (!v)
		return;
	undo_steps(v, 0);
	vm_jobs_drop(v);
	if (v->wake_fd >= 0)
		close(v->wake_fd);
	json_decref(v->ejected);
	pthread_mutex_destroy(&v->jobs_lock);
	vm_config_free(v->c);
	free(v);
}

/* Nothing is left of the attempt, and the status says so to whoever looks later. */
static void
fail_power_on(struct vm *v, const struct err *e)
{
	if (!v->steps_done) /* without the lock the status is somebody else's */
		return;
	undo_steps(v, 1);
	snprintf(v->outcome.reason, sizeof(v->outcome.reason), "%.200s", e->text);
	vm_set_state(v, VM_POWEROFF);
	undo_steps(v, 0);
}

int
vm_power_on(struct vm *v, struct err *e)
{
	if (v->wake_fd < 0)
		return err_set(e, ERR_HOST, "no file descriptor is free");
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		if (log_tracing("vm"))
			log_line(LOG_TRACE, v->c->name, "power-on: %s", steps[i].name);
		if (steps[i].take(v, e)) {
			log_info(v->c->name, "power-on failed (%s): %s", steps[i].name, e->text);
			fail_power_on(v, e);
			return -1;
		}
		v->steps_done = (int)i + 1;
		if (i == 0)
			vm_set_state(v, v->c->state[0] ? VM_RESTORING : VM_STARTING);
	}
	machine_lock(v->m);
	vm_set_state(v, VM_RUNNING);
	machine_unlock(v->m);
	return 0;
}

/* Everything is taken apart and the status final before who asked for it is answered and the lock is given up. */
static void
finish(struct vm *v)
{
	int fd;

	machine_lock(v->m);
	vm_set_state(v, v->outcome.end == VM_END_SAVED ? VM_SAVING : VM_STOPPING);
	fd = v->control ? control_keep(v->control, &v->poweroff_asker) : -1;
	machine_unlock(v->m);
	undo_steps(v, 1);
	vm_set_state(v, v->outcome.end == VM_END_SAVED ? VM_SAVED : VM_POWEROFF);
	control_last_words(fd, v->poweroff_asker.id, json_object());
	undo_steps(v, 0);
}

void
vm_run(struct vm *v, struct vm_outcome *out)
{
	vm_jobs_run(v);
	finish(v);
	*out = v->outcome;
}

/* ---- views ---- */

const struct vm_config *
vm_config_of(const struct vm *v)
{
	return v->c;
}

struct pc *
vm_pc(struct vm *v)
{
	return v->pc;
}

const char *
vm_engine(const struct vm *v, const char **why)
{
	*why = v->engine_why;
	return v->engine ? v->engine->name : "";
}

uint16_t
vm_console_port(const struct vm *v)
{
	return v->rfb ? rfb_port(v->rfb) : 0;
}

size_t
vm_screen_text(struct vm *v, char *buf, size_t size)
{
	struct display_source src;
	size_t n = 0;

	machine_lock(v->m);
	if (pc_display(v->pc, &src) && src.text)
		n = src.text(src.opaque, buf, size);
	machine_unlock(v->m);
	return n;
}

int
vm_screenshot(
	struct vm *v, unsigned screen, uint8_t **png, size_t *len, unsigned *width, unsigned *height, struct err *e)
{
	struct surface s = { 0 };
	struct display_source src;
	bool drawn;
	int r;

	machine_lock(v->m);
	drawn = pc_screen(v->pc, screen, &src) && src.draw(src.opaque, &s);
	machine_unlock(v->m);
	if (!drawn) {
		surface_free(&s);
		return screen ? err_set(e, ERR_VM, "there is nothing on screen %u of the machine", screen)
			      : err_set(e, ERR_VM, "the machine has no picture to take");
	}
	*width = s.width;
	*height = s.height;
	r = png_encode(&s, png, len);
	surface_free(&s);
	return r ? err_set(e, ERR_HOST, "no memory for the picture") : 0;
}
