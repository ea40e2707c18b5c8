/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's agent tells of the guest becomes guest properties, under the names that VirtualBox's additions use:
 *
 *	/VirtualBox/GuestInfo/OS/Product, Release, Version, LoggedInUsers, LoggedInUsersList, NoLoggedInUsers
 *	/VirtualBox/GuestInfo/Net/Count, Net/N/Name, MAC, Status, V4/IP, V4/Netmask, V4/Broadcast
 *
 * Asked a moment after the agent has opened its port, a few times soon after that (addresses come late), and then four
 * times a minute. Net/N counts the machine's adapters as they are plugged in (by their MAC addresses), then what else
 * there is; the loopback is left out. All of it is TRANSIENT: with the machine off there is none.
 *
 * A guest whose own additions tell the same overwrites it, and the other way round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "share/share.h"
#include "vm/agent.h"

#define SECOND 1000000000ull
#define SOON 4 /* how often it is asked soon after the opening */
#define INTERFACES_MAX 32

struct agent_info {
	struct vm *v;
	struct loop_timer timer;
	unsigned asked; /* since the port was opened */
	int count;	/* of Net/N that there are */
};

static void put(struct vm *v, const char *value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void
put(struct vm *v, const char *value, const char *fmt, ...)
{
	static const unsigned flags = PROP_TRANSIENT | PROP_TRANSRESET;
	char name[PROP_NAME_MAX + 1], text[PROP_VALUE_MAX + 1];
	struct prop old;
	va_list ap;
	int n = snprintf(name, sizeof(name), "/VirtualBox/GuestInfo/");

	va_start(ap, fmt);
	vsnprintf(name + n, sizeof(name) - (size_t)n, fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "%s", value ? value : "");
	if (!prop_name_ok(name) || !prop_value_ok(text))
		return;
	if (!value)
		props_delete(vm_props(v), PROP_BY_GUEST, name);
	else if (!props_get(vm_props(v), name, &old) || strcmp(old.value, text) != 0)
		props_set(vm_props(v), PROP_BY_GUEST, name, text, &flags);
}

static const char *
text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void
take_os(void *opaque, json_t *back)
{
	struct agent_info *i = opaque;
	bool windows = !strcmp(text_of(back, "id"), "mswindows");

	if (!json_is_object(back) || !vm_props(i->v))
		return;
	put(i->v, windows ? text_of(back, "pretty-name") : "Linux", "OS/Product");
	put(i->v, text_of(back, "kernel-release"), "OS/Release");
	put(i->v, text_of(back, "kernel-version"), "OS/Version");
}

static void
take_users(void *opaque, json_t *back)
{
	struct agent_info *i = opaque;
	struct str list = { 0 };
	char count[16];
	int n = 0;

	if (!json_is_array(back) || !vm_props(i->v))
		return;
	str_add(&list, "");
	for (size_t k = 0; k < json_array_size(back) && list.len < PROP_VALUE_MAX; k++) {
		const char *name = text_of(json_array_get(back, k), "user");

		if (*name)
			str_addf(&list, "%s%.32s", n++ ? "," : "", name);
	}
	snprintf(count, sizeof(count), "%d", n);
	put(i->v, count, "OS/LoggedInUsers");
	put(i->v, n ? "false" : "true", "OS/NoLoggedInUsers");
	put(i->v, n ? list.s : NULL, "OS/LoggedInUsersList");
	str_free(&list);
}

/* ---- interfaces ---- */

static void
mac_text(const char *from, char out[13])
{
	size_t n = 0;

	for (; *from && n < 12; from++)
		if (*from != ':')
			out[n++] = (char)(*from >= 'a' && *from <= 'f' ? *from - 32 : *from);
	out[n] = 0;
}

/* The machine's adapter with that address; VM_NICS_MAX: none. */
static int
slot_of(struct vm *v, const char *mac)
{
	char text[13];

	for (int i = 0; i < v->c->nic_count; i++) {
		const uint8_t *m = v->c->nics[i].mac;

		snprintf(text, sizeof(text), "%02X%02X%02X%02X%02X%02X", m[0], m[1], m[2], m[3], m[4], m[5]);
		if (!strcmp(text, mac))
			return v->c->nics[i].slot;
	}
	return VM_NICS_MAX;
}

static void
put_address(struct vm *v, int n, const json_t *address)
{
	unsigned a, b, c, d, prefix = (unsigned)json_integer_value(json_object_get(address, "prefix"));
	uint32_t ip, mask, all;
	char text[32];

	if (sscanf(text_of(address, "ip-address"), "%u.%u.%u.%u", &a, &b, &c, &d) != 4 || (a | b | c | d) > 255 ||
		prefix > 32)
		return;
	ip = a << 24 | b << 16 | c << 8 | d;
	mask = prefix ? 0xffffffffu << (32 - prefix) : 0;
	all = ip | ~mask;
	put(v, text_of(address, "ip-address"), "Net/%d/V4/IP", n);
	snprintf(text, sizeof(text), "%u.%u.%u.%u", mask >> 24, mask >> 16 & 255, mask >> 8 & 255, mask & 255);
	put(v, text, "Net/%d/V4/Netmask", n);
	snprintf(text, sizeof(text), "%u.%u.%u.%u", all >> 24, all >> 16 & 255, all >> 8 & 255, all & 255);
	put(v, text, "Net/%d/V4/Broadcast", n);
}

static const json_t *
first_v4(const json_t *interface)
{
	json_t *list = json_object_get(interface, "ip-addresses");

	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(text_of(json_array_get(list, i), "ip-address-type"), "ipv4"))
			return json_array_get(list, i);
	return NULL;
}

static void
put_interface(struct vm *v, int n, const json_t *o)
{
	const json_t *address = first_v4(o);
	char mac[13];

	mac_text(text_of(o, "hardware-address"), mac);
	put(v, text_of(o, "name"), "Net/%d/Name", n);
	put(v, mac, "Net/%d/MAC", n);
	put(v, address ? "Up" : "Down", "Net/%d/Status", n);
	if (address) {
		put_address(v, n, address);
		return;
	}
	put(v, NULL, "Net/%d/V4/IP", n);
	put(v, NULL, "Net/%d/V4/Netmask", n);
	put(v, NULL, "Net/%d/V4/Broadcast", n);
}

static void
forget_interface(struct vm *v, int n)
{
	static const char *const keys[] = { "Name", "MAC", "Status", "V4/IP", "V4/Netmask", "V4/Broadcast" };

	for (size_t k = 0; k < ARRAY_LEN(keys); k++)
		put(v, NULL, "Net/%d/%s", n, keys[k]);
}

static void
take_interfaces(void *opaque, json_t *back)
{
	struct agent_info *i = opaque;
	char text[16];
	int n = 0;

	if (!json_is_array(back) || !vm_props(i->v))
		return;
	for (int slot = 0; slot <= VM_NICS_MAX; slot++)
		for (size_t k = 0; k < json_array_size(back) && n < INTERFACES_MAX; k++) {
			json_t *o = json_array_get(back, k);
			char mac[13];

			mac_text(text_of(o, "hardware-address"), mac);
			if (strcmp(text_of(o, "name"), "lo") != 0 && *mac && slot_of(i->v, mac) == slot)
				put_interface(i->v, n++, o);
		}
	snprintf(text, sizeof(text), "%d", n);
	put(i->v, text, "Net/Count");
	for (int k = n; k < i->count; k++)
		forget_interface(i->v, k);
	i->count = n;
}

/* ---- when ---- */

static void
ask_now(void *opaque)
{
	struct agent_info *i = opaque;
	struct vm *v = i->v;

	loop_timer_arm(&i->timer, loop_now() + (i->asked < SOON ? 3 : 15) * SECOND);
	if (!agent_is_open(v->agent) || v->state != VM_RUNNING || !vm_props(v))
		return;
	if (i->asked == 0 || i->asked == SOON) /* what it needs may come a little later than the agent */
		vm_automount(v);
	if (i->asked++ == 0)
		agent_ask(v->agent, "guest-get-osinfo", NULL, take_os, i);
	agent_ask(v->agent, "guest-get-users", NULL, take_users, i);
	agent_ask(v->agent, "guest-network-get-interfaces", NULL, take_interfaces, i);
}

void
vm_agent_info_opened(struct vm *v, bool open)
{
	struct agent_info *i = v->agent_info;

	if (!i)
		return;
	i->asked = 0;
	if (open)
		loop_timer_arm(&i->timer, loop_now() + SECOND);
	else
		loop_timer_cancel(&i->timer);
}

void
vm_agent_info_start(struct vm *v)
{
	struct agent_info *i = xcalloc(1, sizeof(*i));

	i->v = v;
	loop_timer_init(&i->timer, v->m->loop, ask_now, i);
	v->agent_info = i;
}

void
vm_agent_info_stop(struct vm *v)
{
	if (!v->agent_info)
		return;
	loop_timer_cancel(&v->agent_info->timer);
	free(v->agent_info);
	v->agent_info = NULL;
}
