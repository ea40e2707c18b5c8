/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host is: its CPUs, memory, kernel and network interfaces.
 */
#include <arpa/inet.h>
#include <cpuid.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/str.h"
#include "host/host.h"

/* The words of the "flags" line and one line a processor. */
static void
read_cpuinfo(struct host_cpu *c)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[8192], *colon;
	unsigned cpu = 0;

	while (f && fgets(line, sizeof(line), f)) {
		colon = strchr(line, ':');
		if (!colon)
			continue;
		colon += colon[1] == ' ' ? 2 : 1;
		colon[strcspn(colon, "\n")] = 0;
		if (str_starts(line, "processor"))
			cpu = (unsigned)strtoul(colon, NULL, 10);
		else if (str_starts(line, "model name"))
			snprintf(c->model, sizeof(c->model), "%s", colon);
		else if (str_starts(line, "cpu MHz") && cpu < c->count)
			c->mhz[cpu] = (unsigned)strtod(colon, NULL);
		else if (str_starts(line, "cpu cores"))
			c->cores = (unsigned)strtoul(colon, NULL, 10);
	}
	if (f)
		fclose(f);
}

/* CPUID as Intel SDM volume 2 and AMD APM volume 3 have it; what needs an MSR to tell is left out. */
static void
read_cpuid(struct host_cpu *c)
{
	unsigned a, b, ecx, d;

	if (__get_cpuid(1, &a, &b, &ecx, &d)) {
		c->hw_virt = ecx >> 5 & 1; /* VMX */
		c->pae = d >> 6 & 1;
	}
	if (__get_cpuid(0x80000001, &a, &b, &ecx, &d)) {
		c->hw_virt |= ecx >> 2 & 1; /* SVM */
		c->long_mode = d >> 29 & 1;
	}
	if (c->hw_virt && __get_cpuid(0x8000000a, &a, &b, &ecx, &d)) {
		c->nested_paging = d & 1;
		c->vmsave = d >> 15 & 1;
	}
}

void
host_hw_get(struct host_hw *out)
{
	struct sysinfo si;
	struct utsname un;

	memset(out, 0, sizeof(*out));
	out->cpu.online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	out->cpu.count = MAX((unsigned)sysconf(_SC_NPROCESSORS_CONF), out->cpu.online);
	out->cpu.mhz = xcalloc(out->cpu.count, sizeof(*out->cpu.mhz));
	read_cpuinfo(&out->cpu);
	if (!out->cpu.cores || out->cpu.cores > out->cpu.count)
		out->cpu.cores = out->cpu.count;
	out->cpu.online_cores = MIN(out->cpu.cores, out->cpu.online);
	read_cpuid(&out->cpu);
	if (!sysinfo(&si)) {
		out->memory_mb = (uint64_t)si.totalram * si.mem_unit >> 20;
		out->memory_free_mb = (uint64_t)(si.freeram + si.bufferram) * si.mem_unit >> 20;
	}
	if (!uname(&un)) {
		snprintf(out->os, sizeof(out->os), "%.63s", un.sysname);
		snprintf(out->release, sizeof(out->release), "%.64s", un.release);
	}
}

void
host_hw_release(struct host_hw *hw)
{
	free(hw->cpu.mhz);
	hw->cpu.mhz = NULL;
}

static struct host_netif *
netif_named(struct host_netif *list, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	return NULL;
}

static void
read_mac(struct host_netif *n)
{
	char path[80];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/net/%s/address", n->name);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%17s", n->mac) != 1)
		snprintf(n->mac, sizeof(n->mac), "00:00:00:00:00:00");
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/sys/class/net/%s/wireless", n->name);
	n->wireless = !access(path, F_OK);
}

static unsigned
prefix_length(const struct in6_addr *mask)
{
	unsigned n = 0;

	for (int i = 0; i < 16; i++)
		n += (unsigned)__builtin_popcount(mask->s6_addr[i]);
	return n;
}

static void
add_address(struct host_netif *n, const struct ifaddrs *a)
{
	if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && !strcmp(n->ip, "0.0.0.0")) {
		inet_ntop(AF_INET, &((struct sockaddr_in *)a->ifa_addr)->sin_addr, n->ip, sizeof(n->ip));
		if (a->ifa_netmask)
			inet_ntop(AF_INET, &((struct sockaddr_in *)a->ifa_netmask)->sin_addr, n->mask, sizeof(n->mask));
	} else if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET6 && !n->ip6[0]) {
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr, n->ip6, sizeof(n->ip6));
		if (a->ifa_netmask)
			n->prefix6 = prefix_length(&((struct sockaddr_in6 *)a->ifa_netmask)->sin6_addr);
	}
}

int
host_netifs(struct host_netif **out, size_t *count, struct err *e)
{
	struct ifaddrs *list;

	*out = NULL;
	*count = 0;
	if (getifaddrs(&list))
		return err_set(e, ERR_HOST, "The network interfaces of this host cannot be listed");
	for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
		struct host_netif *n = netif_named(*out, *count, a->ifa_name);

		if (a->ifa_flags & IFF_LOOPBACK)
			continue;
		if (!n) {
			*out = realloc(*out, (*count + 1) * sizeof(**out));
			if (!*out)
				abort();
			n = memset(&(*out)[(*count)++], 0, sizeof(*n));
			snprintf(n->name, sizeof(n->name), "%s", a->ifa_name);
			strcpy(n->ip, "0.0.0.0");
			strcpy(n->mask, "0.0.0.0");
			n->up = a->ifa_flags & IFF_UP;
			read_mac(n);
		}
		add_address(n, a);
	}
	freeifaddrs(list);
	return 0;
}
