/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leases.json: what DHCP has given out, as a list of
 *
 *	{"mac":"080027aabbcc", "ip":"10.0.2.15", "state":"acked", "issued":1700000000, "time":86400, "name":"web1"}
 *
 * Replaced as a whole at each change, so that a switch that is killed leaves the old or the new file and no lease is
 * lost. Without an fsync, which would hold up every frame: after a power cut of the host its guests are gone as well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "switch/private.h"

json_t *
leases_json(const struct dhcp *d)
{
	json_t *list = json_array();
	int64_t now = time(NULL);

	for (int i = 0; i < d->lease_count; i++) {
		const struct dhcp_lease *l = &d->leases[i];
		char mac[13], ip[16];

		if (l->state == DHCP_OFFERED)
			continue;
		snprintf(mac, sizeof(mac), "%02x%02x%02x%02x%02x%02x", l->mac[0], l->mac[1], l->mac[2], l->mac[3],
			l->mac[4], l->mac[5]);
		snprintf(ip, sizeof(ip), "%u.%u.%u.%u", l->ip >> 24, l->ip >> 16 & 255, l->ip >> 8 & 255, l->ip & 255);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "mac", mac, "ip", ip, "state",
						    dhcp_state_text(l, now), "issued", (json_int_t)l->issued, "time",
						    (json_int_t)l->time, "name", l->name));
	}
	return list;
}

int
leases_save(const char *dir, struct dhcp *d, struct err *e)
{
	char *path = xasprintf("%s/" SWITCH_FILE_LEASES, dir), *new = xasprintf("%s.new", path);
	json_t *list = leases_json(d);
	int r = 0;

	d->changed = false;
	if (json_dump_file(list, new, JSON_INDENT(1)) || rename(new, path))
		r = err_sys(e, ERR_FILE, errno, "Cannot write '%s'", path);
	json_decref(list);
	free(new);
	free(path);
	return r;
}

static bool
read_lease(json_t *o, struct dhcp_lease *l)
{
	const char *mac = json_string_value(json_object_get(o, "mac"));
	const char *state = json_string_value(json_object_get(o, "state"));
	const char *name = json_string_value(json_object_get(o, "name"));

	memset(l, 0, sizeof(*l));
	/* Declined addresses have a group's address for a client, which parse_mac() does not take: they are free again.
	 */
	if (!parse_mac(mac, l->mac) || !parse_ipv4(json_string_value(json_object_get(o, "ip")), &l->ip))
		return false;
	l->state = state && !strcmp(state, "released") ? DHCP_RELEASED : DHCP_ACKED;
	l->issued = json_integer_value(json_object_get(o, "issued"));
	l->time = (uint32_t)json_integer_value(json_object_get(o, "time"));
	snprintf(l->name, sizeof(l->name), "%s", name ? name : "");
	return true;
}

void
leases_load(const char *dir, struct dhcp *d)
{
	char *path = xasprintf("%s/" SWITCH_FILE_LEASES, dir);
	json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, NULL), *v;
	struct dhcp_lease l;
	size_t i;

	json_array_foreach(list, i, v)
	{
		if (read_lease(v, &l))
			dhcp_restore(d, &l);
	}
	if (d->lease_count)
		log_info("dhcp", "%d leases are back from %s", d->lease_count, path);
	d->changed = false;
	json_decref(list);
	free(path);
}
