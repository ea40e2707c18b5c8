/* SPDX-License-Identifier: Apache-2.0 */
/* What the files about networks have among themselves. */
#ifndef HOST_NETRUN_H
#define HOST_NETRUN_H

#include "host/net.h"

/* What VirtualBox calls the network of a host-only interface, and its DHCP server, begins so. */
#define HOSTONLY_PREFIX "HostInterfaceNetworking-"

/* A network's documents have changed: write its configuration anew and, if it runs, have it read that. */
int net_tell(struct host *h, const char *id, struct err *e);
/* Remove the directory of a network that does not run. */
void net_forget(struct host *h, const char *id);
char *net_dir(struct host *h, const char *id);
/* config.json of the network `id`. */
json_t *net_config(struct host *h, const char *id, struct err *e);
/* ports/ID.json of an adapter; `token` NULL: keep the one there is. */
int net_write_port(
	struct host *h, const struct host_vm *vm, int nic, const char *id, char token[33], bool keep, struct err *e);
/* A value of the adapter's properties, "" when it has none. free() it. */
char *nic_property(const struct host_vm *vm, int nic, const char *key);
int natnet_rule_parse(const char *text, struct nat_rule *r, struct err *e);

#endif
