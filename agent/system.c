/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest is, its time and its interfaces; freezing its file systems; switching it off. Field names are those of
 * QEMU's qga/qapi-schema.json.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/fs.h>
#include <mntent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

#include "agent/agent.h"

/* ---- what it is ---- */

/* A line NAME=value or NAME="value" of os-release(5). */
static void
add_release(json_t *o, const char *text, const char *name, const char *key)
{
	size_t n = strlen(name);

	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncmp(p, name, n) && p[n] == '=') {
			const char *v = p + n + 1 + (p[n + 1] == '"' || p[n + 1] == '\'');

			json_object_set_new(o, key, json_stringn(v, strcspn(v, "\"'\n")));
			return;
		}
}

json_t *
do_get_osinfo(struct agent *a, const json_t *args, struct refusal *r)
{
	size_t n;
	char *text = file_read("/etc/os-release", 65536, &n, NULL);
	struct utsname u;
	json_t *o;

	if (!text)
		text = file_read("/usr/lib/os-release", 65536, &n, NULL);
	uname(&u);
	o = json_pack(
		"{s:s, s:s, s:s}", "kernel-release", u.release, "kernel-version", u.version, "machine", u.machine);
	add_release(o, text, "ID", "id");
	add_release(o, text, "NAME", "name");
	add_release(o, text, "PRETTY_NAME", "pretty-name");
	add_release(o, text, "VERSION", "version");
	add_release(o, text, "VERSION_ID", "version-id");
	free(text);
	return o;
}

json_t *
do_get_host_name(struct agent *a, const json_t *args, struct refusal *r)
{
	char name[256] = "";

	gethostname(name, sizeof(name) - 1);
	return json_pack("{s:s}", "host-name", name);
}

json_t *
do_get_timezone(struct agent *a, const json_t *args, struct refusal *r)
{
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	return json_pack("{s:s, s:I}", "zone", tm.tm_zone ? tm.tm_zone : "UTC", "offset", (json_int_t)tm.tm_gmtoff);
}

json_t *
do_get_users(struct agent *a, const json_t *args, struct refusal *r)
{
	json_t *list = json_array();
	struct utmp u;
	FILE *f = fopen("/var/run/utmp", "re");

	while (f && fread(&u, sizeof(u), 1, f) == 1)
		if (u.ut_type == USER_PROCESS)
			json_array_append_new(
				list, json_pack("{s:s%, s:f}", "user", u.ut_user, strnlen(u.ut_user, UT_NAMESIZE),
					      "login-time", (double)u.ut_tv.tv_sec));
	if (f)
		fclose(f);
	return list;
}

json_t *
do_get_time(struct agent *a, const json_t *args, struct refusal *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return json_integer((json_int_t)ts.tv_sec * 1000000000 + ts.tv_nsec);
}

json_t *
do_set_time(struct agent *a, const json_t *args, struct refusal *r)
{
	int64_t ns = int_arg(args, "time", -1);
	struct timespec ts = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	if (ns < 0)
		return refuse(r, NULL, "Without 'time' there is nothing to set: this agent does not read the RTC");
	return clock_settime(CLOCK_REALTIME, &ts) ? refuse_errno(r, "Failed to set time to guest") : json_object();
}

/* ---- interfaces ---- */

static json_t *
interface(json_t *list, const char *name)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *o = json_array_get(list, i);

		if (!strcmp(text_arg(o, "name"), name))
			return o;
	}
	json_array_append_new(list, json_pack("{s:s, s:[]}", "name", name, "ip-addresses"));
	return json_array_get(list, json_array_size(list) - 1);
}

static int
prefix_of(const struct sockaddr *mask)
{
	const uint8_t *p;
	int size = 0, bits = 0;

	if (!mask)
		return 0;
	p = mask->sa_family == AF_INET ? (const uint8_t *)&((const struct sockaddr_in *)mask)->sin_addr
				       : (const uint8_t *)&((const struct sockaddr_in6 *)mask)->sin6_addr;
	size = mask->sa_family == AF_INET ? 4 : 16;
	for (int i = 0; i < size; i++)
		bits += __builtin_popcount(p[i]);
	return bits;
}

static void
add_address(json_t *o, const struct ifaddrs *i)
{
	const struct sockaddr_ll *ll = (const struct sockaddr_ll *)i->ifa_addr;
	bool v4 = i->ifa_addr->sa_family == AF_INET;
	char text[INET6_ADDRSTRLEN];

	if (i->ifa_addr->sa_family == AF_PACKET && ll->sll_halen == 6) {
		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", ll->sll_addr[0], ll->sll_addr[1],
			ll->sll_addr[2], ll->sll_addr[3], ll->sll_addr[4], ll->sll_addr[5]);
		json_object_set_new(o, "hardware-address", json_string(text));
	}
	if (!v4 && i->ifa_addr->sa_family != AF_INET6)
		return;
	inet_ntop(i->ifa_addr->sa_family,
		v4 ? (const void *)&((const struct sockaddr_in *)i->ifa_addr)->sin_addr
		   : (const void *)&((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr,
		text, sizeof(text));
	json_array_append_new(
		json_object_get(o, "ip-addresses"), json_pack("{s:s, s:s, s:i}", "ip-address", text, "ip-address-type",
							    v4 ? "ipv4" : "ipv6", "prefix", prefix_of(i->ifa_netmask)));
}

json_t *
do_network(struct agent *a, const json_t *args, struct refusal *r)
{
	json_t *list = json_array();
	struct ifaddrs *all, *i;

	if (getifaddrs(&all)) {
		json_decref(list);
		return refuse_errno(r, "getifaddrs failed");
	}
	for (i = all; i; i = i->ifa_next)
		if (i->ifa_addr)
			add_address(interface(list, i->ifa_name), i);
	freeifaddrs(all);
	return list;
}

/* ---- freezing ---- */

#define MOUNTS_MAX 64

/* (Un)freeze what is mounted from a device; how many that were. Nothing is remembered but that it was done. */
static int
each_mount(unsigned long what)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	char *seen[MOUNTS_MAX];
	struct mntent *m;
	int count = 0, done = 0;

	while (f && (m = getmntent(f)) && count < MOUNTS_MAX) {
		int fd = -1, k = 0;

		if (m->mnt_fsname[0] != '/' || hasmntopt(m, "ro"))
			continue;
		while (k < count && strcmp(seen[k], m->mnt_fsname) != 0)
			k++;
		if (k < count)
			continue;
		seen[count++] = xstrdup(m->mnt_fsname);
		fd = open(m->mnt_dir, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && !ioctl(fd, what, 0))
			done++;
		if (fd >= 0)
			close(fd);
	}
	if (f)
		endmntent(f);
	while (count)
		free(seen[--count]);
	return done;
}

/* Whether it was done is a file's being there, in memory: an agent that is started anew knows. */
#define FROZEN "/run/lodge-agent.frozen"

json_t *
do_freeze(struct agent *a, const json_t *args, struct refusal *r)
{
	int fd = open(FROZEN, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	sync();
	return json_integer(each_mount(FIFREEZE));
}

json_t *
do_thaw(struct agent *a, const json_t *args, struct refusal *r)
{
	int count = each_mount(FITHAW);

	unlink(FROZEN);
	return json_integer(count);
}

json_t *
do_freeze_status(struct agent *a, const json_t *args, struct refusal *r)
{
	return json_string(access(FROZEN, F_OK) ? "thawed" : "frozen");
}

/* ---- off ---- */

json_t *
do_shutdown(struct agent *a, const json_t *args, struct refusal *r)
{
	const char *mode = text_arg(args, "mode");
	const char *program = !strcmp(mode, "reboot") ? "reboot" : !strcmp(mode, "halt") ? "halt" : "poweroff";
	int status;
	pid_t pid;

	if (*mode && strcmp(mode, "powerdown") && strcmp(mode, program))
		return refuse(r, NULL, "mode is invalid (valid values are: halt|powerdown|reboot");
	pid = fork();
	if (!pid) {
		setsid();
		execlp(program, program, NULL);
		_exit(127);
	}
	if (pid < 0 || (waitpid(pid, &status, 0) == pid && status)) /* init systems' commands come back at once */
		return refuse(r, NULL, "'%s' failed in the guest", program);
	return json_object();
}
