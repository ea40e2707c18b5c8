/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carrying out what the network helper was asked. System calls only, no other program. (netdevice(7), packet(7), the
 * kernel's Documentation/networking/tuntap.rst)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "nethelper/action.h"

static void
request(struct ifreq *r, const char *name)
{
	memset(r, 0, sizeof(*r));
	snprintf(r->ifr_name, sizeof(r->ifr_name), "%s", name);
}

static int
set_up(int s, const char *name)
{
	struct ifreq r;

	request(&r, name);
	if (ioctl(s, SIOCGIFFLAGS, &r))
		return -1;
	r.ifr_flags |= IFF_UP;
	return ioctl(s, SIOCSIFFLAGS, &r);
}

static int
set_ipv4(int s, const struct action *a)
{
	struct sockaddr_in *sin;
	struct ifreq r;

	request(&r, a->name);
	sin = (struct sockaddr_in *)&r.ifr_addr;
	sin->sin_family = AF_INET;
	sin->sin_addr = a->ip; /* 0.0.0.0 takes the address away */
	if (ioctl(s, SIOCSIFADDR, &r))
		return a->has_ip ? -1 : 0;
	if (!a->has_ip)
		return 0;
	sin->sin_addr.s_addr = htonl(a->len ? ~0u << (32 - a->len) : 0);
	return ioctl(s, SIOCSIFNETMASK, &r);
}

/* The global addresses there are, from /proc/net/if_inet6: address index length scope flags name */
static void
drop_ipv6(int s6, const char *name, int index)
{
	FILE *f = fopen("/proc/net/if_inet6", "re");
	unsigned i, len, scope, flags;
	char hex[33], dev[32];

	while (f && fscanf(f, "%32s %x %x %x %x %31s", hex, &i, &len, &scope, &flags, dev) == 6) {
		struct in6_ifreq r = { .ifr6_prefixlen = len, .ifr6_ifindex = index };

		if (strcmp(dev, name) || scope == 0x20) /* link-local */
			continue;
		for (int k = 0; k < 16; k++)
			sscanf(hex + 2 * k, "%2hhx", &r.ifr6_addr.s6_addr[k]);
		ioctl(s6, SIOCDIFADDR, &r);
	}
	if (f)
		fclose(f);
}

static int
set_ipv6(int s, const struct action *a)
{
	struct in6_ifreq r6 = { .ifr6_addr = a->ip6, .ifr6_prefixlen = a->len6 };
	int s6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), result = 0;
	struct ifreq r;

	if (s6 < 0)
		return a->has_ip6 ? -1 : 0;
	request(&r, a->name);
	if (ioctl(s, SIOCGIFINDEX, &r)) {
		close(s6);
		return -1;
	}
	drop_ipv6(s6, a->name, r.ifr_ifindex);
	r6.ifr6_ifindex = r.ifr_ifindex;
	if (a->has_ip6 && ioctl(s6, SIOCSIFADDR, &r6) && errno != EEXIST)
		result = -1;
	close(s6);
	return result;
}

static int
set_mac(int s, const struct action *a)
{
	struct ifreq r;

	request(&r, a->name);
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, a->mac, 6);
	return ioctl(s, SIOCSIFHWADDR, &r);
}

/* A TAP that ends with its descriptor. `name` may hold a %d, and then says which it became. */
static int
open_tap(char name[16], struct err *e)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct ifreq r;

	request(&r, name);
	r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL;
	if (fd < 0)
		return err_sys(e, errno == EACCES || errno == EPERM ? ERR_ACCESS : ERR_HOST, errno,
			"Cannot open /dev/net/tun");
	if (ioctl(fd, TUNSETIFF, &r)) {
		if (errno == EBUSY)
			err_set(e, ERR_IN_USE, "There is an interface '%s' already that is not ours", name);
		else
			err_sys(e, errno == EPERM ? ERR_ACCESS : ERR_HOST, errno, "Cannot make the interface '%s'",
				name);
		close(fd);
		return -1;
	}
	memcpy(name, r.ifr_name, 16);
	name[15] = 0;
	return fd;
}

static int
run_tap(struct action *a, struct err *e)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd = open_tap(a->name, e);

	if (fd >= 0 && (set_mac(s, a) || set_up(s, a->name) || set_ipv4(s, a) || set_ipv6(s, a))) {
		err_sys(e, ERR_HOST, errno, "Cannot set up the interface '%s'", a->name);
		close(fd);
		fd = -1;
	}
	close(s);
	return fd;
}

static int
run_bridge(struct action *a, struct err *e)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd;
	struct ifreq r;
	char bridge[16];

	memcpy(bridge, a->name, sizeof(bridge));
	strcpy(a->name, "lodge%d");
	fd = open_tap(a->name, e);
	if (fd >= 0) {
		request(&r, a->name);
		if (!ioctl(s, SIOCGIFINDEX, &r)) {
			int index = r.ifr_ifindex;

			request(&r, bridge);
			r.ifr_ifindex = index;
		}
		/* EOPNOTSUPP from what is not a bridge */
		if (ioctl(s, SIOCBRADDIF, &r) || set_up(s, a->name)) {
			err_sys(e, ERR_HOST, errno, "Cannot plug into the bridge '%s'", bridge);
			close(fd);
			fd = -1;
		}
	}
	close(s);
	return fd;
}

static int
run_packet(struct action *a, struct err *e)
{
	struct packet_mreq promisc = { .mr_type = PACKET_MR_PROMISC };
	struct sockaddr_ll sa = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	/* without a protocol it hears nothing until it is bound */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
	struct ifreq r;

	if (fd < 0)
		return err_sys(e, errno == EPERM ? ERR_ACCESS : ERR_HOST, errno, "Cannot open a packet socket");
	request(&r, a->name);
	if (ioctl(fd, SIOCGIFHWADDR, &r) || r.ifr_hwaddr.sa_family != ARPHRD_ETHER || ioctl(fd, SIOCGIFINDEX, &r)) {
		close(fd);
		return err_set(e, ERR_NOT_FOUND, "There is no Ethernet interface '%s'", a->name);
	}
	sa.sll_ifindex = promisc.mr_ifindex = r.ifr_ifindex;
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
		setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)) ||
		setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
		setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promisc, sizeof(promisc)) ||
		bind(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		err_sys(e, ERR_HOST, errno, "Cannot listen on the interface '%s'", a->name);
		close(fd);
		return -1;
	}
	return fd;
}

static int
run_address(struct action *a, struct err *e)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = set_ipv4(s, a) || set_ipv6(s, a);

	if (r)
		err_sys(e, ERR_HOST, errno, "Cannot change the addresses of '%s'", a->name);
	close(s);
	return r ? -1 : 0;
}

int
action_run(struct action *a, struct err *e)
{
	switch (a->kind) {
	case ACTION_TAP:
		return run_tap(a, e);
	case ACTION_BRIDGE:
		return run_bridge(a, e);
	case ACTION_PACKET:
		return run_packet(a, e);
	case ACTION_ADDRESS:
		return run_address(a, e);
	}
	return err_set(e, ERR_INVALID, "there is no such action");
}
