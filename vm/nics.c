/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's network adapters and what they are plugged into: when it starts, and while it runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/private.h"

static int
open_trace(struct vm *v, int i, struct err *e)
{
	struct vm_nic *n = &v->c->nics[i];

	if (!n->trace[0])
		return 0;
	v->traces[i] = pcap_open(n->trace, e);
	if (!v->traces[i])
		return -1;
	if (n->trace_on)
		v->links[i].trace = v->traces[i];
	return 0;
}

static int
open_nat(struct vm *v, int i, struct err *e)
{
	struct vm_nic *n = &v->c->nics[i];
	struct nat_options o = {
		.adapter = n->slot,
		.network = n->network[0] ? n->network : NULL,
		.hostname = n->hostname[0] ? n->hostname : NULL,
		.tftp_root = n->tftp[0] ? n->tftp : NULL,
		.bootfile = n->bootfile[0] ? n->bootfile : NULL,
		.localhost_reachable = n->localhost_reachable,
		.rule_count = n->rule_count,
	};

	memcpy(o.rules, n->rules, sizeof(o.rules));
	return nat_open(&v->links[i], v->m->loop, &o, e);
}

static int
open_backend(struct vm *v, int i, struct err *e)
{
	struct vm_nic *n = &v->c->nics[i];
	struct plug_options plug = { n->dir, n->port, n->token };
	struct tunnel_options tunnel = { n->local_port, n->remote_port, n->local_ip, n->remote };

	switch (n->backend) {
	case VM_NET_NONE:
		return 0;
	case VM_NET_NULL:
		null_open(&v->links[i]);
		return 0;
	case VM_NET_NAT:
		return open_nat(v, i, e);
	case VM_NET_SWITCH:
		return plug_open(&v->links[i], v->m->loop, &plug, e);
	case VM_NET_TUNNEL:
		return tunnel_open(&v->links[i], v->m->loop, &tunnel, e);
	case VM_NET_VDE:
		return vde_open(&v->links[i], v->m->loop, n->dir, e);
	}
	return err_set(e, ERR_INVALID, "network adapter %d has an attachment that nobody knows", n->slot + 1);
}

/* The limit of the adapter's speed, or of its group: that of an adapter before it, or a new one. */
static void
join_group(struct vm *v, int i)
{
	struct vm_nic *n = &v->c->nics[i];
	struct net_limit *limit = NULL;

	if (!n->group[0] && !n->speed)
		return;
	for (int k = 0; k < i && !limit && n->group[0]; k++)
		if (!strcmp(v->c->nics[k].group, n->group))
			limit = v->limits[k];
	v->limits[i] =
		limit ? limit : net_limit_open(v->m->loop, n->group[0] ? n->bandwidth : n->speed * UINT64_C(125));
	net_link_limit(&v->links[i], v->limits[i]);
}

int
vm_set_bandwidth(struct vm *v, const char *group, uint64_t rate, struct err *e)
{
	bool any = false;

	for (int i = 0; i < v->link_count; i++)
		if (!strcmp(v->c->nics[i].group, group) && v->limits[i]) {
			net_limit_set(v->limits[i], rate);
			v->c->nics[i].bandwidth = rate;
			any = true;
		}
	return any ? 0 : err_set(e, ERR_NOT_FOUND, "no network adapter is in the bandwidth group '%s'", group);
}

int
vm_open_networks(struct vm *v, struct err *e)
{
	for (int i = 0; i < v->c->nic_count; i++) {
		struct vm_nic *n = &v->c->nics[i];

		net_link_init(&v->links[i], n->mac);
		v->links[i].cable = n->cable;
		v->links[i].speed = (uint32_t)n->speed;
		v->link_count = i + 1;
		join_group(v, i);
		if (open_trace(v, i, e) || open_backend(v, i, e)) {
			vm_close_networks(v);
			return -1;
		}
	}
	return 0;
}

void
vm_close_networks(struct vm *v)
{
	for (int i = 0; i < v->link_count; i++) {
		v->links[i].trace = NULL; /* net_link_close() would close it, and it may be switched off */
		net_link_close(&v->links[i]);
		pcap_close(v->traces[i]);
		v->traces[i] = NULL;
	}
	for (int i = v->link_count - 1; i >= 0; i--) {
		bool shared = false;

		for (int k = 0; k < i; k++)
			shared |= v->limits[k] == v->limits[i];
		if (v->limits[i] && !shared)
			net_limit_close(v->limits[i]);
		v->limits[i] = NULL;
	}
	v->link_count = 0;
}

int
vm_replug(struct vm *v, int i, const json_t *backend, struct err *e)
{
	struct vm_nic *n = &v->c->nics[i];

	if (vm_config_backend(n, backend, e))
		return -1;
	net_unplug(&v->links[i]);
	if (open_backend(v, i, e)) {
		n->backend = VM_NET_NONE;
		return err_wrap(e, "network adapter %d is left without a network", n->slot + 1);
	}
	log_info(v->c->name, "network adapter %d is plugged into %s", n->slot + 1,
		v->links[i].class ? v->links[i].class->name : "nothing");
	return 0;
}

int
vm_trace_nic(struct vm *v, int i, bool on, int fd, const char *name, struct err *e)
{
	struct pcap *fresh = fd >= 0 ? pcap_open_fd(fd, name, e) : NULL;

	if (fd >= 0 && !fresh)
		return -1;
	if (fresh) {
		v->links[i].trace = NULL;
		pcap_close(v->traces[i]);
		v->traces[i] = fresh;
	}
	if (on && !v->traces[i])
		return err_set(e, ERR_INVALID, "network adapter %d has no trace file", v->c->nics[i].slot + 1);
	v->links[i].trace = on ? v->traces[i] : NULL;
	return 0;
}

struct vm_nic *
vm_find_nic(struct vm *v, int slot, struct net_link **link, struct pcap **trace)
{
	for (int i = 0; i < v->link_count; i++)
		if (v->c->nics[i].slot == slot) {
			if (link)
				*link = &v->links[i];
			if (trace)
				*trace = v->traces[i];
			return &v->c->nics[i];
		}
	return NULL;
}
