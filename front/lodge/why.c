/* SPDX-License-Identifier: Apache-2.0 */
/* lodge why: what can be seen of a guest that does not come up; lodge wait: wait for it, and say why when it does not.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/str.h"
#include "front/lodge/lodge.h"
#include "host/host.h"

static void
print_line(void *opaque, const char *line)
{
	fprintf(opaque, "%s\n", line);
}

static int
complain(const struct err *e)
{
	fprintf(stderr, "lodge: %s\n", e->text);
	return 1;
}

int
lodge_why(int argc, char **argv)
{
	struct err e = { 0 };
	struct host *h;
	int r;

	if (argc != 2 || argv[1][0] == '-') {
		bool help = argc == 2 && !strcmp(argv[1], "--help");

		fprintf(help ? stdout : stderr,
			"Usage: lodge why VM\n"
			"Tells what can be seen of a guest from outside: its screen, what its serial ports and its "
			"kernel\n"
			"said last, whether it uses its network and what answers on its forwarded ports.\n");
		return help ? 0 : 2;
	}
	h = host_open(&e);
	r = !h || host_vm_why(h, argv[1], print_line, stdout, &e) ? complain(&e) : 0;
	host_close(h);
	return r;
}

/* ---- wait ---- */

/* Does a server in the guest speak on this port of the host? NAT takes the connection whether one is there or not. */
static bool
answers(uint16_t port)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char byte;
	bool up = false;

	if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to)) && poll(&p, 1, 2000) == 1)
		up = recv(fd, &byte, 1, 0) == 1;
	if (fd >= 0)
		close(fd);
	return up;
}

/* The port of this host that leads to `guest_port`; 0: none. */
static uint16_t
forwarded(const struct host_vm *vm, uint16_t guest_port)
{
	for (int n = 0; n < HOST_NICS; n++)
		for (int i = 0; i < vm->rule_count[n]; i++)
			if (vm->rules[n][i].guest_port == guest_port && !vm->rules[n][i].udp)
				return vm->rules[n][i].host_port;
	return 0;
}

static int
give_up(struct host *h, const char *id, const char *text)
{
	struct err e = { 0 };

	fprintf(stderr, "lodge: %s\n", text);
	host_vm_why(h, id, print_line, stderr, &e);
	return 1;
}

static int
wait_for(struct host *h, const char *id, uint16_t guest_port, unsigned seconds)
{
	uint64_t until = loop_now() + seconds * 1000000000ull;
	struct err e = { 0 };
	struct host_vm *vm;
	char text[160];
	uint16_t port;
	bool lives;

	do {
		vm = host_vm_load(h, id, &e);
		if (!vm)
			return complain(&e);
		lives = host_state_live(vm->state);
		port = forwarded(vm, guest_port);
		snprintf(text, sizeof(text), "the machine is %s", host_state_long(vm->state));
		host_vm_free(vm);
		if (!lives)
			return give_up(h, id, text);
		if (!port) {
			fprintf(stderr,
				"lodge: no port of this host leads to port %u of the guest: modifyvm --natpf1 makes "
				"one\n",
				guest_port);
			return 2;
		}
		if (answers(port))
			return 0;
		usleep(200000);
	} while (loop_now() < until);
	snprintf(text, sizeof(text), "port %u of the guest did not answer in %u s", guest_port, seconds);
	return give_up(h, id, text);
}

int
lodge_wait(int argc, char **argv)
{
	uint64_t port = 22, seconds = 120;
	const char *vm = NULL;
	struct err e = { 0 };
	struct host *h;
	int r;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--port") && i + 1 < argc && str_to_u64(argv[i + 1], 1, 65535, &port))
			i++;
		else if (!strcmp(argv[i], "--timeout") && i + 1 < argc && str_to_u64(argv[i + 1], 1, 86400, &seconds))
			i++;
		else
			vm = argv[i][0] != '-' && !vm ? argv[i] : "";
	}
	if (!vm || !*vm) {
		bool help = argc == 2 && !strcmp(argv[1], "--help");

		fprintf(help ? stdout : stderr, "Usage: lodge wait VM [--port PORT] [--timeout SECONDS]\n"
						"Waits until a server in the guest speaks on its PORT (22: ssh), which "
						"a forwarding rule has to lead\n"
						"to, at most SECONDS (120). When it does not, the exit status is 1 and "
						"'lodge why' tells the rest.\n");
		return help ? 0 : 2;
	}
	h = host_open(&e);
	r = h ? wait_for(h, vm, (uint16_t)port, (unsigned)seconds) : complain(&e);
	host_close(h);
	return r;
}
