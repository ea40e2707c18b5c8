/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the control socket of a machine in this process. The input is what a client sends; where it starts with
 * '{' it is put into a frame first, so that methods are reached and not only the framing. Power-offs are defused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/vm.h"

static struct sockaddr_un address = { .sun_family = AF_UNIX };

static void *
owner(void *opaque)
{
	struct vm_outcome out;

	vm_run(opaque, &out);
	abort(); /* nothing here may end the machine */
}

static void
start_machine(void)
{
	struct vm_config *c = vm_config_new("fuzz");
	static char dir[] = "/tmp/lodge-fuzz-control-XXXXXX";
	struct vm_options o = { .run_dir = dir };
	pthread_t thread;
	struct err e;
	struct vm *v;

	log_set_level(LOG_ERROR);
	if (!mkdtemp(dir))
		abort();
	free(c->engine);
	c->engine = xstrdup("interp");
	c->memory_mib = 16;
	c->sandbox = false;
	c->vrde = true;
	vm_config_add_nic(c)->backend = VM_NET_NAT;
	v = vm_open(c, &o);
	if (vm_power_on(v, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	pthread_create(&thread, NULL, owner, v);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", dir, VM_FILE_CONTROL);
}

static void
defuse(char *text, size_t n, const char *word)
{
	char *p;

	while ((p = memmem(text, n, word, strlen(word))))
		*p = 'x';
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool framed = size && data[0] == '{';
	char answer[4096], *text;
	int fd;

	if (!address.sun_path[0])
		start_machine();
	text = xcalloc(size + 5, 1);
	memcpy(text + 4, data, size);
	put_le32(text, (uint32_t)size);
	defuse(text + 4, size, "poweroff");
	defuse(text + 4, size, "quit");
	defuse(text + 4, size, "\\u"); /* the same, written otherwise */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		if (write(fd, framed ? text : text + 4, framed ? size + 4 : size) >= 0)
			shutdown(fd, SHUT_WR);
		while (read(fd, answer, sizeof(answer)) > 0)
			;
	}
	close(fd);
	free(text);
	return 0;
}
