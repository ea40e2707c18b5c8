/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The networks of this host: what exists, and the processes that carry them.
 *
 * A network is a document in the inventory, a JSON object under its kind and name:
 *
 *	HOST_NET_HOSTONLYIF	"vboxnet0"	{"mac":"0a0027000000", "ip":"192.168.56.1", "mask":"255.255.255.0",
 *						 "ip6":"", "len6":0, "dhcp":false}
 *	HOST_NET_HOSTONLYNET	"lab"		{"mask", "lower", "upper", "enabled":true, "id":UUID}
 *	HOST_NET_NAT		"NatNetwork"	{"network":"10.0.2.0/24", "enabled":true, "dhcp":true, "ipv6":false,
 *						 "prefix6":"fd17:...::/64", "default6":false,
 *						 "forwards":["ssh:tcp:[127.0.0.1]:2222:[10.0.2.4]:22"],
 *						 "forwards6":[with IPv6], "tftp":"/path", "bootfile":"x",
 *"loopbacks":["127.0.0.1=2"]} HOST_NET_DHCP		network's name	{"ip", "mask", "lower", "upper", "enabled":true,
 *"global":SCOPE, "groups":[SCOPE with "name", "conditions"], "individual":[SCOPE with "mac" or "vm" and "nic",
 *"fixed"]} HOST_NET_GROUPS		network's name	port groups: {"web":{"vlan":10},
 *"uplinks":{"vlan":0,"trunk":"10,20-30"}}
 *
 * SCOPE as in switch/protocol.h. Internal networks need no document: they are when a machine is attached to one.
 *
 * Each network that machines are plugged into has a directory $LODGE_HOME/net/ID and a process (switch/protocol.h),
 * started when the first machine is, or by net_start(). What changes in a document is told to a process that runs.
 */
#ifndef HOST_NET_H
#define HOST_NET_H

#include <jansson.h>
#include <stdbool.h>

#include "host/host.h"

enum host_net { HOST_NET_HOSTONLYIF, HOST_NET_HOSTONLYNET, HOST_NET_NAT, HOST_NET_DHCP, HOST_NET_GROUPS };

/* The document, a new reference; NULL without *e being set when there is none, and with *e on an error: give an *e
 * whose code is ERR_NONE. */
json_t *host_net_get(struct host *h, enum host_net kind, const char *name, struct err *e);
/* All of a kind as an object, name to document, in the order of their names. NULL and *e. */
json_t *host_net_list(struct host *h, enum host_net kind, struct err *e);
/* Check the document, store it, tell the network's process. A NAT network brings its DHCP server along. */
int host_net_set(struct host *h, enum host_net kind, const char *name, json_t *doc, struct err *e);
/* Remove it. A network that machines are plugged into stays (ERR_IN_USE). */
int host_net_remove(struct host *h, enum host_net kind, const char *name, struct err *e);

/* A new vboxnetN, its name in `name`. */
int host_hostonlyif_create(struct host *h, char name[16], struct err *e);
/* May a host-only network have this address (/etc/vbox/networks.conf)? */
int host_hostonly_allowed(int family, const char *address, struct err *e);

/* The names of internal networks that machines are attached to. free() each and the array. */
int host_intnets(struct host *h, char ***names, size_t *count, struct err *e);

/* The network an adapter is attached to, as a directory's name ("nat-NatNetwork"); NULL: none of those. free() it. */
char *host_net_id(const struct host_vm *vm, int nic);
/* The directory's name of a network by its kind ("nat", "hostonly", "hostonlynet", "intnet", "bridged"). free() it. */
char *host_net_id_of(const char *kind, const char *name);
/* The directory's name of the network that a DHCP server named `name` serves. free() it. */
char *host_net_id_of_dhcp(struct host *h, const char *name);

/* Start the process of a network, unless it runs. */
int host_net_start(struct host *h, const char *id, struct err *e);
/* End it. Machines keep running without a network. 0 also when it does not run. */
int host_net_stop(struct host *h, const char *id, struct err *e);
bool host_net_running(struct host *h, const char *id);
/* One request of switch/protocol.h; `params` is taken over. NULL and *e; ERR_VM_STATE: it does not run. */
json_t *host_net_call(struct host *h, const char *id, const char *method, json_t *params, struct err *e);
/* All that have a directory. free() each and the array. */
int host_net_ids(struct host *h, char ***ids, size_t *count, struct err *e);
/* leases.json of a network: a list, empty when there is none. */
json_t *host_net_leases(struct host *h, const char *id);

/*
 * The "backend" of adapter `nic` for the machine's configuration (vm/protocol.h), having seen to it that its network
 * runs and lets the machine in. NULL and *e.
 */
json_t *host_nic_backend(struct host *h, const struct host_vm *vm, int nic, struct err *e);
/* Bytes a second of a bandwidth group of the machine, 0: no limit. */
uint64_t host_bandwidth(struct host *h, const struct host_vm *vm, const char *group);

/* Attach an adapter of a running machine to something else: all of the changes, kept in its settings. */
int host_nic_attach_live(
	struct host *h, const char *id, int nic, const struct host_change *c, size_t count, struct err *e);
/* Other changes of a running machine's adapter that its network has to know: promiscuous policy, properties. */
int host_nic_change_live(struct host *h, const char *id, const struct host_change *c, struct err *e);
/* Trace into another file from now on. */
int host_nic_tracefile_live(struct host *h, const char *id, int nic, const char *path, struct err *e);
/* Limit of a bandwidth group: stored, and told to the machine if it runs. rate -1: remove. */
int host_bandwidth_set(struct host *h, const char *id, const char *group, int64_t rate, struct err *e);

/* 127.0.0.1:*port of the host leads to `port_of_guest` of the machine, if there is a way. */
int host_connect(struct host *h, const char *id, int port_of_guest, int *port, char where[64], struct err *e);

#endif
