/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes of networks (switch/protocol.h is the other side): starting, asking, ending, and plugging machines in.
 */
#include "host/netrun.h"
#include "base/bytes.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "switch/protocol.h"
#include "vm/protocol.h"

#define START_MS 20000
#define CALL_S 10

char *
net_dir(struct host *h, const char *id)
{
	return xasprintf("%s/net/%s", host_home(h), id);
}

/* Its directory lets others through to the socket, nowhere else: a machine may run as another user (net/plug.c). */
static int
make_dir(struct host *h, const char *id, struct err *e)
{
	char *dir = net_dir(h, id), *ports = xasprintf("%s/" SWITCH_DIR_PORTS, dir);
	int r = dir_make(ports, 0700, e);

	if (!r && chmod(dir, 0711))
		r = err_sys(e, ERR_FILE, errno, "Cannot set the mode of '%s'", dir);
	free(ports);
	free(dir);
	return r;
}

void
net_forget(struct host *h, const char *id)
{
	static const char *const files[] = { SWITCH_FILE_CONFIG, SWITCH_FILE_LOCK, SWITCH_FILE_PORT,
		SWITCH_FILE_CONTROL, SWITCH_FILE_LEASES, SWITCH_FILE_LOG, SWITCH_FILE_LOG ".1", SWITCH_FILE_TRACE };
	char *dir = net_dir(h, id), *ports = xasprintf("%s/" SWITCH_DIR_PORTS, dir);
	DIR *d = opendir(ports);
	struct dirent *f;

	while (d && (f = readdir(d)))
		if (f->d_name[0] != '.')
			unlinkat(dirfd(d), f->d_name, 0);
	if (d)
		closedir(d);
	rmdir(ports);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char *path = xasprintf("%s/%s", dir, files[i]);

		unlink(path);
		free(path);
	}
	rmdir(dir);
	free(ports);
	free(dir);
}

int
host_net_ids(struct host *h, char ***ids, size_t *count, struct err *e)
{
	char *path = xasprintf("%s/net", host_home(h));
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);

	free(path);
	*ids = xcalloc((size_t)MAX(n, 0) + 1, sizeof(char *));
	*count = 0;
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.')
			(*ids)[(*count)++] = xstrdup(list[i]->d_name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return 0;
}

json_t *
host_net_leases(struct host *h, const char *id)
{
	char *path = xasprintf("%s/net/%s/" SWITCH_FILE_LEASES, host_home(h), id);
	json_t *list = json_load_file(path, 0, NULL);

	free(path);
	return list ? list : json_array();
}

/* ---- asking ---- */

static json_t *
exchange(int fd, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	uint32_t n = text ? (uint32_t)strlen(text) : 0;
	json_t *answer = NULL;
	uint8_t head[4];

	put_le32(head, n);
	if (n && send(fd, head, 4, MSG_NOSIGNAL | MSG_MORE) == 4 && send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n &&
		read_full(fd, head, 4) == 4 && le32(head) && le32(head) <= SWITCH_MESSAGE_MAX) {
		char *reply = xcalloc(le32(head), 1);

		if (read_full(fd, reply, le32(head)) == (ssize_t)le32(head))
			answer = json_loadb(reply, le32(head), 0, NULL);
		free(reply);
	}
	free(text);
	return answer;
}

json_t *
host_net_call(struct host *h, const char *id, const char *method, json_t *params, struct err *e)
{
	json_t *request = json_pack("{s:i, s:s, s:o}", "id", 1, "method", method, "params", params), *answer, *result;
	char *dir = net_dir(h, id);
	int fd = peer_connect(dir, SWITCH_FILE_CONTROL, CALL_S);

	free(dir);
	if (fd < 0) {
		json_decref(request);
		err_set(e, ERR_VM_STATE, "The network '%s' does not run", id);
		return NULL;
	}
	answer = exchange(fd, request);
	close(fd);
	json_decref(request);
	result = json_object_get(answer, "result");
	if (!answer)
		err_set(e, ERR_HOST, "The process of the network '%s' did not answer '%s'", id, method);
	else if (!result)
		protocol_error(json_object_get(answer, "error"), e);
	json_incref(result);
	json_decref(answer);
	return result;
}

bool
host_net_running(struct host *h, const char *id)
{
	char *dir = net_dir(h, id);
	int fd = peer_connect(dir, SWITCH_FILE_CONTROL, CALL_S);

	free(dir);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* ---- starting and ending ---- */

static int
write_config(struct host *h, const char *id, struct err *e)
{
	char *path = xasprintf("%s/net/%s/" SWITCH_FILE_CONFIG, host_home(h), id), *text;
	json_t *c = net_config(h, id, e);
	int r = -1;

	if (c) {
		text = json_dumps(c, JSON_INDENT(1));
		r = file_replace(path, text, strlen(text), 0600, e);
		free(text);
	}
	json_decref(c);
	free(path);
	return r;
}

int
net_tell(struct host *h, const char *id, struct err *e)
{
	struct err none = { 0 };
	json_t *answer;

	if (!host_net_running(h, id))
		return 0;
	if (write_config(h, id, &none)) /* it has been disabled or removed: its machines lose it */
		return host_net_stop(h, id, e);
	answer = host_net_call(h, id, "reload", json_object(), e);
	json_decref(answer);
	return answer ? 0 : -1;
}

static void __attribute__((noreturn)) become(const char *program, const char *dir, int ready)
{
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	ready = fcntl(ready, F_DUPFD, 10);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	dup2(ready, 3);
	close_range(4, ~0u, 0);
	execl(program, program, "--dir", dir, "--ready-fd", "3", NULL);
	dprintf(3, "{\"error\":{\"code\":\"VBOX_E_FILE_ERROR\",\"text\":\"Cannot run '%s': %s\"}}\n", program,
		strerror(errno));
	_exit(1);
}

/* What it has to say when it is there, or why not. */
static json_t *
read_ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char line[2048];
	size_t n = 0;
	ssize_t k = 1;

	while (k > 0 && n < sizeof(line) - 1 && poll(&p, 1, START_MS) == 1) {
		k = read(fd, line + n, sizeof(line) - 1 - n);
		n += (size_t)MAX(k, 0);
		if (memchr(line, '\n', n))
			break;
	}
	line[n] = 0;
	return json_loads(line, 0, NULL);
}

static int
spawn_switch(struct host *h, const char *id, struct err *e)
{
	char *program = peer_program("lodge-switch"), *dir = net_dir(h, id);
	int fd[2], r = 0;
	json_t *o = NULL;
	pid_t pid = -1;

	if (!pipe2(fd, O_CLOEXEC)) {
		pid = fork();
		if (!pid)
			become(program, dir, fd[1]);
		close(fd[1]);
		if (pid > 0)
			o = read_ready(fd[0]);
		close(fd[0]);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (!o)
		r = err_set(e, ERR_HOST, "The process of the network '%s' did not start", id);
	else if (json_object_get(o, "error"))
		r = protocol_error(json_object_get(o, "error"), e);
	json_decref(o);
	free(program);
	free(dir);
	return r;
}

/* Ports of machines that are not registered any more. */
static void
sweep_ports(struct host *h, const char *id)
{
	char *path = xasprintf("%s/net/%s/" SWITCH_DIR_PORTS, host_home(h), id), uuid[37];
	DIR *d = opendir(path);
	struct dirent *f;

	while (d && (f = readdir(d))) {
		if (f->d_name[0] == '.' || strlen(f->d_name) < 37)
			continue;
		snprintf(uuid, sizeof(uuid), "%.36s", f->d_name);
		if (vm_row(h, uuid) < 0)
			unlinkat(dirfd(d), f->d_name, 0);
	}
	if (d)
		closedir(d);
	free(path);
}

int
host_net_start(struct host *h, const char *id, struct err *e)
{
	sweep_ports(h, id);
	if (make_dir(h, id, e) || write_config(h, id, e))
		return -1;
	return spawn_switch(h, id, e);
}

int
host_net_stop(struct host *h, const char *id, struct err *e)
{
	json_t *answer;

	if (!host_net_running(h, id))
		return 0;
	answer = host_net_call(h, id, "shutdown", json_object(), e);
	json_decref(answer);
	for (int ms = 0; answer && ms < 5000 && host_net_running(h, id); ms += 10)
		usleep(10000);
	return answer ? 0 : -1;
}

/* ---- machines ---- */

static json_t *
nat_backend(const struct host_vm *vm, int n)
{
	json_t *forwards = json_array(), *o;

	for (int i = 0; i < vm->rule_count[n]; i++) {
		char *text = vm_rule_text(&vm->rules[n][i]);

		json_array_append_new(forwards, json_string(text));
		free(text);
	}
	o = json_pack("{s:s, s:s, s:b, s:o}", "type", "nat", "hostname", vm->name, "localhost_reachable",
		host_vm_on(vm, HK_NATLOCALHOSTREACHABLE, n), "forwards", forwards);
	if (strcmp(host_vm_get(vm, HK_NATNET, n), "nat"))
		json_object_set_new(o, "network", json_string(host_vm_get(vm, HK_NATNET, n)));
	if (*host_vm_get(vm, HK_NATTFTPPREFIX, n))
		json_object_set_new(o, "tftp", json_string(host_vm_get(vm, HK_NATTFTPPREFIX, n)));
	if (*host_vm_get(vm, HK_NATTFTPFILE, n))
		json_object_set_new(o, "bootfile", json_string(host_vm_get(vm, HK_NATTFTPFILE, n)));
	return o;
}

/* Generic driver UDPTunnel, properties sport, dport, dest; ours besides: bind, the address to send from. */
static json_t *
tunnel_backend(const struct host_vm *vm, int n, struct err *e)
{
	char *sport = nic_property(vm, n, "sport"), *dport = nic_property(vm, n, "dport"),
	     *dest = nic_property(vm, n, "dest"), *from = nic_property(vm, n, "bind");
	uint64_t local, remote;
	json_t *o = NULL;

	if (!str_to_u64(sport, 1, 65535, &local) || !str_to_u64(dport, 1, 65535, &remote) || !*dest)
		err_set(e, ERR_INVALID,
			"Adapter %d: a UDP tunnel needs the properties sport and dport (ports) and dest (an IPv4 "
			"address)",
			n + 1);
	else
		o = json_pack("{s:s, s:i, s:i, s:s, s:s}", "type", "tunnel", "local_port", (int)local, "remote_port",
			(int)remote, "remote", dest, "local_ip", from);
	free(sport);
	free(dport);
	free(dest);
	free(from);
	return o;
}

/* Generic driver VDE, property network: the directory of the switch's sockets. */
static json_t *
vde_backend(const struct host_vm *vm, int n, struct err *e)
{
	char *path = nic_property(vm, n, "network");
	const char *dir = str_starts(path, "vde://") ? path + 6 : path;
	json_t *o = NULL;

	if (*dir && *dir != '/')
		err_set(e, ERR_INVALID,
			"Adapter %d: the property network is the directory of a VDE switch (vde_switch -s /DIRECTORY), "
			"not '%s'",
			n + 1, path);
	else
		o = json_pack("{s:s, s:s}", "type", "vde", "dir", *dir ? dir : VDE_DEFAULT);
	free(path);
	return o;
}

static json_t *
generic_backend(const struct host_vm *vm, int n, struct err *e)
{
	const char *driver = host_vm_get(vm, HK_NICGENERICDRV, n);

	if (!strcmp(driver, "UDPTunnel"))
		return tunnel_backend(vm, n, e);
	if (!strcmp(driver, "VDE"))
		return vde_backend(vm, n, e);
	err_set(e, ERR_UNSUPPORTED, "There is no generic driver '%s' (adapter %d); there are UDPTunnel and VDE", driver,
		n + 1);
	return NULL;
}

static json_t *
switch_backend(struct host *h, const struct host_vm *vm, int n, const char *id, struct err *e)
{
	char token[33], port[48], *dir;
	json_t *o;

	if (!id[strcspn(id, "-") + 1]) {
		err_set(e, ERR_INVALID, "Adapter %d of machine '%s' is attached to a network without a name", n + 1,
			vm->name);
		return NULL;
	}
	if (make_dir(h, id, e) || net_write_port(h, vm, n, id, token, false, e) || host_net_start(h, id, e)) {
		err_wrap(e, "Adapter %d of machine '%s' (%s)", n + 1, vm->name, id);
		return NULL;
	}
	dir = net_dir(h, id);
	snprintf(port, sizeof(port), "%s-%d", vm->uuid, n);
	o = json_pack("{s:s, s:s, s:s, s:s}", "type", "switch", "dir", dir, "port", port, "token", token);
	free(dir);
	return o;
}

json_t *
host_nic_backend(struct host *h, const struct host_vm *vm, int n, struct err *e)
{
	const char *mode = host_vm_get(vm, HK_NIC, n);
	char *id = host_net_id(vm, n);
	json_t *o;

	if (id)
		o = switch_backend(h, vm, n, id, e);
	else if (!strcmp(mode, "nat"))
		o = nat_backend(vm, n);
	else if (!strcmp(mode, "generic"))
		o = generic_backend(vm, n, e);
	else
		o = json_pack("{s:s}", "type", "none"); /* "null": an adapter whose cable is in nothing */
	free(id);
	return o;
}

/* ---- while they run ---- */

int
host_nic_attach_live(struct host *h, const char *id, int nic, const struct host_change *c, size_t count, struct err *e)
{
	struct host_vm *vm;
	json_t *backend, *answer;
	bool none;

	if (db_begin(h, e))
		return -1;
	vm = vm_load_running(h, id, e);
	if (!vm)
		goto fail;
	none = !strcmp(host_vm_get(vm, HK_NIC, nic), "none");
	for (size_t i = 0; i < count; i++)
		if (vm_apply(h, vm, &c[i], e))
			goto fail;
	if (none || !strcmp(host_vm_get(vm, HK_NIC, nic), "none")) {
		err_set(e, ERR_VM_STATE,
			"An adapter cannot be put into a running machine or taken out of it: adapter %d", nic + 1);
		goto fail;
	}
	backend = host_nic_backend(h, vm, nic, e);
	if (!backend)
		goto fail;
	answer = vm_call(h, vm, "nic.attach", json_pack("{s:i, s:o}", "slot", nic, "backend", backend), e);
	json_decref(answer);
	return vm_edit_end(h, vm, answer ? 0 : -1, e);
fail:
	return vm_edit_end(h, vm, -1, e);
}

int
host_nic_change_live(struct host *h, const char *id, const struct host_change *c, struct err *e)
{
	char token[33], *network = NULL;
	struct host_vm *vm;
	json_t *answer;
	int r = -1;

	if (db_begin(h, e))
		return -1;
	vm = vm_load_running(h, id, e);
	if (!vm || vm_apply(h, vm, c, e))
		goto out;
	network = host_net_id(vm, c->slot);
	if (network && net_write_port(h, vm, c->slot, network, token, true, e))
		goto out;
	if (vm_store(h, vm, e) || vboxfile_write(h, vm, e) || db_commit(h, e))
		goto out;
	r = 0;
	if (network && host_net_running(h, network)) {
		answer = host_net_call(h, network, "reload", json_object(), e);
		r = answer ? 0 : -1;
		json_decref(answer);
	}
out:
	if (r)
		db_rollback(h);
	free(network);
	host_vm_free(vm);
	return r;
}

/* The file is opened here, where it was named; the machine's process may not open files. */
int
host_nic_tracefile_live(struct host *h, const char *id, int nic, const char *path, struct err *e)
{
	struct host_change c = { HK_NICTRACEFILE, nic, path };
	struct host_vm *vm = NULL;
	json_t *answer;
	const char *file;
	int fd, r = -1;

	if (db_begin(h, e))
		return -1;
	vm = vm_load_running(h, id, e);
	if (!vm || vm_apply(h, vm, &c, e))
		goto out;
	file = host_vm_get(vm, HK_NICTRACEFILE, nic);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "Cannot create the packet trace '%s'", file);
		goto out;
	}
	answer = vm_call_fd(h, vm, "nictrace",
		json_pack("{s:i, s:b, s:s}", "slot", nic, "enable", host_vm_on(vm, HK_NICTRACE, nic), "file", file), fd,
		e);
	close(fd);
	json_decref(answer);
	if (answer && !vm_store(h, vm, e) && !vboxfile_write(h, vm, e) && !db_commit(h, e))
		r = 0;
out:
	if (r)
		db_rollback(h);
	host_vm_free(vm);
	return r;
}

/* ---- bandwidth groups: extra data "Lodge/Bandwidth/NAME", bytes a second ---- */

uint64_t
host_bandwidth(struct host *h, const struct host_vm *vm, const char *group)
{
	char *key = xasprintf("Lodge/Bandwidth/%s", group), *value = NULL;
	uint64_t rate = 0;

	if (!host_extra_get(h, vm->uuid, key, &value, NULL) && value)
		str_to_u64(value, 0, INT64_MAX / 4, &rate);
	free(value);
	free(key);
	return rate;
}

int
host_bandwidth_set(struct host *h, const char *id, const char *group, int64_t rate, struct err *e)
{
	char *key = xasprintf("Lodge/Bandwidth/%s", group), value[32];
	struct host_vm *vm = host_vm_load(h, id, e);
	struct err unused;
	int r = -1;

	snprintf(value, sizeof(value), "%lld", (long long)rate);
	if (vm)
		r = host_extra_set(h, id, key, rate < 0 ? NULL : value, e);
	if (!r && host_state_live(vm->state))
		json_decref(vm_call(h, vm, "bandwidth",
			json_pack("{s:s, s:I}", "group", group, "rate", (json_int_t)MAX(rate, 0)), &unused));
	host_vm_free(vm);
	free(key);
	return r;
}

/* ---- from the host to a guest ---- */

static const char *
port_address(json_t *status, const char *uuid, int nic)
{
	json_t *v;
	size_t i;
	char id[48];

	snprintf(id, sizeof(id), "%s-%d", uuid, nic);
	json_array_foreach(json_object_get(status, "ports"), i, v)
	{
		if (!strcmp(json_string_value(json_object_get(v, "port")), id))
			return json_string_value(json_object_get(v, "ip"));
	}
	return "";
}

/* Through the network's switch, in user mode; with a TAP the host has the guest's address itself. 1: not this way. */
static int
connect_network(struct host *h, const struct host_vm *vm, int nic, const char *id, int to, int *port, char where[64],
	struct err *e)
{
	json_t *status = host_net_call(h, id, "status", json_object(), e), *answer;
	const char *ip = port_address(status, vm->uuid, nic),
		   *mode = json_string_value(json_object_get(status, "mode"));
	int r = 1;

	if (!status || !*ip || !strcmp(mode, "none") || str_starts(id, "bridged-")) {
		err_set(e, ERR_NOT_FOUND, "Adapter %d (%s): %s", nic + 1, id,
			!status ? "the network does not run"
			: !*ip	? "the guest has no address yet"
				: "the host has no side in this network");
	} else if (!strcmp(mode, "tap")) {
		snprintf(where, 64, "%s", ip);
		*port = to;
		r = 0;
	} else {
		answer = host_net_call(h, id, "connect", json_pack("{s:s, s:i}", "ip", ip, "port", to), e);
		*port = (int)json_integer_value(json_object_get(answer, "port"));
		snprintf(where, 64, "127.0.0.1");
		r = answer ? 0 : 1;
		json_decref(answer);
	}
	json_decref(status);
	return r;
}

/* A rule of the adapter's own NAT, for a moment: gone with the machine's process, never in its settings. */
static int
connect_nat(struct host *h, const struct host_vm *vm, int nic, int to, int *port, char where[64], struct err *e)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sin);
	json_t *answer;
	char rule[160];

	for (int i = 0; i < vm->rule_count[nic]; i++) {
		const struct nat_rule *r = &vm->rules[nic][i];

		if (!r->udp && r->guest_port == to) {
			snprintf(where, 64, "%s",
				*r->host_ip && strcmp(r->host_ip, "0.0.0.0") ? r->host_ip : "127.0.0.1");
			*port = r->host_port;
			close(fd);
			return 0;
		}
	}
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) || getsockname(fd, (struct sockaddr *)&sin, &len)) {
		close(fd);
		return err_sys(e, ERR_HOST, errno, "No port of the host is free");
	}
	close(fd);
	*port = ntohs(sin.sin_port);
	snprintf(rule, sizeof(rule), "lodge-connect-%d,tcp,127.0.0.1,%d,,%d", *port, *port, to);
	answer = vm_call(h, vm, "natpf.add", json_pack("{s:i, s:s}", "slot", nic, "rule", rule), e);
	snprintf(where, 64, "127.0.0.1");
	json_decref(answer);
	return answer ? 0 : 1;
}

int
host_connect(struct host *h, const char *id, int to, int *port, char where[64], struct err *e)
{
	struct host_vm *vm = vm_load_running(h, id, e);
	int r = 1;

	if (!vm)
		return -1;
	err_set(e, ERR_NOT_FOUND, "Machine '%s' has no adapter that the host can reach it through", vm->name);
	for (int n = 0; n < HOST_NICS && r; n++) {
		char *network = host_net_id(vm, n);

		if (network)
			r = connect_network(h, vm, n, network, to, port, where, e);
		else if (!strcmp(host_vm_get(vm, HK_NIC, n), "nat"))
			r = connect_nat(h, vm, n, to, port, where, e);
		free(network);
	}
	host_vm_free(vm);
	return r ? -1 : 0;
}
