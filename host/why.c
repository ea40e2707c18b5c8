/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a guest does not come up: what can be seen of it from outside, put together for a person.
 *
 * The verdict is the first row of `signs` whose words are on the screen, on a serial port or in the kernel's log. All
 * of that is the guest's text: it is shown, cut to lines, and never acted upon.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"

#define TAIL_LINES 12
#define ANSWER_MS 1500

struct why {
	struct host *h;
	struct host_vm *vm;
	host_say_fn *say;
	void *opaque;
	json_t *consoles; /* NULL: it does not run */
	char *kernel_log, *screen;
};

static void say(struct why *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
say(struct why *w, const char *fmt, ...)
{
	va_list ap;
	char *line;

	va_start(ap, fmt);
	line = xvasprintf(fmt, ap);
	va_end(ap);
	w->say(w->opaque, line);
	free(line);
}

/* ---- what it says of itself ---- */

/* Where the last lines of text[0..end) begin. */
static const char *
tail_of(const char *text, const char *end)
{
	const char *p = end;

	for (int lines = 0; p > text; p--)
		if (p[-1] == '\n' && ++lines == TAIL_LINES)
			break;
	return p;
}

/* The last lines of a text that have something on them. */
static void
say_tail(struct why *w, const char *title, const char *text)
{
	const char *end = text + strlen(text);

	while (end > text && (end[-1] == '\n' || end[-1] == ' '))
		end--;
	if (end == text)
		return;
	say(w, "%s:", title);
	for (const char *p = tail_of(text, end); p < end;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);

		while (n && p[n - 1] == ' ')
			n--;
		if (n)
			say(w, "  | %.*s", (int)MIN(n, 200u), p);
		p = nl ? nl + 1 : end;
	}
}

static int
keep_pair(void *opaque, const char *key, const char *value, int64_t time_ns, const char *flags)
{
	struct why *w = opaque;

	if (!strcmp(key, "text") && !w->kernel_log)
		w->kernel_log = xstrdup(value);
	return 0;
}

static void
look(struct why *w)
{
	struct host_debug q = { .what = "dmesg", .lines = TAIL_LINES };
	struct err unused;

	w->consoles = vm_call(w->h, w->vm, "consoles", json_object(), &unused);
	w->screen = xstrdup(w->consoles ? json_string_value(json_object_get(w->consoles, "screen")) : "");
	if (w->consoles)
		host_vm_debug(w->h, w->vm->uuid, &q, keep_pair, w, &unused);
}

static bool
shows(const struct why *w, const char *words)
{
	json_t *row;
	size_t i;

	if (strstr(w->screen, words) || (w->kernel_log && strstr(w->kernel_log, words)))
		return true;
	json_array_foreach(json_object_get(w->consoles, "serial"), i, row)
	{
		if (strstr(json_string_value(json_object_get(row, "text")), words))
			return true;
	}
	return false;
}

static void
say_verdict(struct why *w)
{
	/* clang-format off */
	static const struct { const char *words, *means; } signs[] = {
		{ "Kernel panic", "the guest's kernel has panicked" },
		{ "No bootable device", "the firmware found nothing to boot from: look at the boot order and what is attached" },
		{ "grub rescue>", "the boot loader GRUB does not find its files" },
		{ "Minimal BASH-like line editing", "the boot loader GRUB waits for a command: it has no menu" },
		{ "(initramfs)", "the guest's kernel started and does not find its root file system" },
		{ "emergency mode", "the guest's system stopped in emergency mode: a file system or a service failed" },
		{ "Out of memory: Kill", "the guest runs out of memory: give it more with modifyvm --memory" },
		{ "login:", "the guest is up and asks for a login" },
	};
	/* clang-format on */

	for (size_t i = 0; i < ARRAY_LEN(signs); i++)
		if (shows(w, signs[i].words)) {
			say(w, "It seems that %s.", signs[i].means);
			return;
		}
}

static void
say_consoles(struct why *w)
{
	char title[64];
	json_t *row;
	size_t i;

	if (!*w->screen)
		say(w, "The screen shows a picture: 'VBoxManage controlvm %s screenshotpng FILE' saves it.",
			w->vm->name);
	say_tail(w, "Its screen", w->screen);
	json_array_foreach(json_object_get(w->consoles, "serial"), i, row)
	{
		snprintf(title, sizeof(title), "Its serial port %d",
			(int)json_integer_value(json_object_get(row, "port")) + 1);
		say_tail(w, title, json_string_value(json_object_get(row, "text")));
	}
	if (w->kernel_log)
		say_tail(w, "The log of its kernel", w->kernel_log);
}

/* ---- its network ---- */

/* What a TCP port of this host answers within ANSWER_MS. */
static void
try_port(uint16_t port, char *out, size_t size)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char said[64];
	ssize_t n;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		snprintf(out, size, "cannot be connected to (%s)", strerror(errno));
	} else if (poll(&p, 1, ANSWER_MS) != 1) {
		snprintf(out, size, "is open, and nothing came from the guest in %.1f s", ANSWER_MS / 1000.0);
	} else {
		n = recv(fd, said, sizeof(said) - 1, 0);
		said[MAX(n, 0)] = 0;
		for (char *c = said; *c; c++)
			if (*c < ' ' || *c > '~')
				*c = 0;
		if (n > 0)
			snprintf(out, size, "answers \"%s\"", said);
		else
			snprintf(out, size, "is closed from the guest's side: nothing listens there");
	}
	if (fd >= 0)
		close(fd);
}

static void
say_rules(struct why *w, int n)
{
	char answer[128];

	for (int i = 0; i < w->vm->rule_count[n]; i++) {
		const struct nat_rule *r = &w->vm->rules[n][i];

		if (r->udp)
			continue;
		try_port(r->host_port, answer, sizeof(answer));
		say(w, "  port %u, forwarded to the guest's %u (%s), %s", r->host_port, r->guest_port, r->name, answer);
	}
}

static void
say_network(struct why *w)
{
	struct err unused;
	json_t *stats = vm_call(w->h, w->vm, "stats", json_object(), &unused), *row;
	size_t i;

	json_array_foreach(json_object_get(stats, "nics"), i, row)
	{
		int n = (int)json_integer_value(json_object_get(row, "slot"));
		long long sent = json_integer_value(json_object_get(row, "tx_frames")),
			  got = json_integer_value(json_object_get(row, "rx_frames"));

		if (n < 0 || n >= HOST_NICS)
			continue;
		say(w, "Adapter %d (%s, cable %s): the guest sent %lld frames and received %lld%s", n + 1,
			host_vm_get(w->vm, HK_NIC, n), host_vm_on(w->vm, HK_CABLECONNECTED, n) ? "in" : "out", sent,
			got, sent ? "" : ": it does not use the adapter, or not yet");
		say_rules(w, n);
	}
	json_decref(stats);
}

/* ---- all of it ---- */

static void
say_log(struct why *w)
{
	char *path = xasprintf("%s/VBox.log", w->vm->log_folder), *text;
	struct err unused;
	size_t len;

	text = file_read(path, 1 << 20, &len, &unused);
	if (text)
		say_tail(w, path, text);
	free(text);
	free(path);
}

int
host_vm_why(struct host *h, const char *id, host_say_fn *fn, void *opaque, struct err *e)
{
	struct why w = { .h = h, .say = fn, .opaque = opaque };

	w.vm = host_vm_load(h, id, e);
	if (!w.vm)
		return -1;
	say(&w, "Machine '%s' is %s.", w.vm->name, host_state_long(w.vm->state));
	if (host_state_live(w.vm->state))
		look(&w);
	if (w.consoles) {
		say_verdict(&w);
		say_consoles(&w);
		say_network(&w);
	} else {
		say_log(&w);
	}
	json_decref(w.consoles);
	free(w.kernel_log);
	free(w.screen);
	host_vm_free(w.vm);
	return 0;
}
