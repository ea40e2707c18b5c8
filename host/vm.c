/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine in memory: from the database, and back into it. Only settings that differ from their default have a row.
 */
#include <stdlib.h>
#include <string.h>

#include "host/inv.h"

#define STATE_SHORT(name, s, l, a, live) [name] = s,
#define STATE_LONG(name, s, l, a, live) [name] = l,
#define STATE_API(name, s, l, a, live) [name] = a,
#define STATE_LIVE(name, s, l, a, live) [name] = live,
static const char *const state_short[] = { HOST_STATES(STATE_SHORT) };
static const char *const state_long[] = { HOST_STATES(STATE_LONG) };
static const char *const state_api[] = { HOST_STATES(STATE_API) };
static const bool state_live[] = { HOST_STATES(STATE_LIVE) };

const char *
host_state_short(enum host_state s)
{
	return state_short[s];
}

const char *
host_state_long(enum host_state s)
{
	return state_long[s];
}

const char *
host_state_api(enum host_state s)
{
	return state_api[s];
}

bool
host_state_live(enum host_state s)
{
	return state_live[s];
}

void
vm_set(struct host_vm *vm, enum host_key key, int slot, const char *value)
{
	char *copy = xstrdup(value);

	free(vm->value[key][slot]);
	vm->value[key][slot] = copy;
}

void
vm_set_place(struct host_vm *vm, const char *folder, const char *name)
{
	char *f = xstrdup(folder), *n = xstrdup(name);

	free(vm->folder);
	free(vm->name);
	free(vm->cfg_file);
	free(vm->snap_folder);
	free(vm->log_folder);
	vm->folder = f;
	vm->name = n;
	vm->cfg_file = xasprintf("%s/%s.vbox", f, n);
	vm->snap_folder = xasprintf("%s/Snapshots", f);
	vm->log_folder = xasprintf("%s/Logs", f);
}

static struct host_vm *
vm_blank(const char *name, const char *folder)
{
	struct host_vm *vm = xcalloc(1, sizeof(*vm));

	for (int k = 0; k < HK_COUNT; k++)
		for (int i = 0; i < host_setting(k)->slots; i++)
			vm->value[k][i] = setting_fallback(k, i);
	vm_set_place(vm, folder, name);
	vm->session = xstrdup("");
	vm->state_file = xstrdup("");
	return vm;
}

struct host_vm *
vm_new(const char *name, const char *folder)
{
	struct host_vm *vm = vm_blank(name, folder);
	struct uuid u = uuid_random();

	uuid_text(&u, vm->uuid);
	for (int i = 0; i < HOST_NICS; i++) {
		char *mac = setting_normal(HK_MACADDRESS, i, "auto", NULL);

		vm_set(vm, HK_MACADDRESS, i, mac);
		free(mac);
	}
	vm_set(vm, HK_HARDWAREUUID, 0, vm->uuid);
	vm->state_time = now_ns();
	return vm;
}

static void
attachment_release(struct host_attachment *a)
{
	free(a->medium);
	free(a->path);
	free(a->format);
}

static void
controller_release(struct host_controller *c)
{
	for (int i = 0; i < c->at_count; i++)
		attachment_release(&c->at[i]);
	free(c->at);
	free(c->name);
}

void
host_vm_free(struct host_vm *vm)
{
	if (!vm)
		return;
	for (int k = 0; k < HK_COUNT; k++)
		for (int i = 0; i < HOST_SLOTS_MAX; i++)
			free(vm->value[k][i]);
	for (int i = 0; i < HOST_NICS; i++)
		free(vm->rules[i]);
	for (int i = 0; i < vm->ctl_count; i++)
		controller_release(&vm->ctl[i]);
	free(vm->ctl);
	vm_shares_free(vm);
	free(vm->name);
	free(vm->folder);
	free(vm->cfg_file);
	free(vm->snap_folder);
	free(vm->log_folder);
	free(vm->session);
	free(vm->state_file);
	free(vm);
}

bool
host_vm_on(const struct host_vm *vm, enum host_key key, int slot)
{
	return !strcmp(vm->value[key][slot], "on");
}

int64_t
host_vm_num(const struct host_vm *vm, enum host_key key, int slot)
{
	return strtoll(vm->value[key][slot], NULL, 10);
}

/* ---- controllers, attachments, rules ---- */

struct host_controller *
vm_controller(struct host_vm *vm, const char *name)
{
	for (int i = 0; i < vm->ctl_count; i++)
		if (!strcmp(vm->ctl[i].name, name))
			return &vm->ctl[i];
	return NULL;
}

struct host_controller *
vm_controller_add(struct host_vm *vm, const char *name)
{
	struct host_controller *c;

	vm->ctl = realloc(vm->ctl, (size_t)(vm->ctl_count + 1) * sizeof(*vm->ctl));
	if (!vm->ctl)
		abort();
	c = &vm->ctl[vm->ctl_count++];
	memset(c, 0, sizeof(*c));
	c->name = xstrdup(name);
	c->hostiocache = true;
	return c;
}

void
vm_controller_remove(struct host_vm *vm, struct host_controller *c)
{
	int i = (int)(c - vm->ctl);

	controller_release(c);
	memmove(c, c + 1, (size_t)(vm->ctl_count - i - 1) * sizeof(*c));
	vm->ctl_count--;
}

const struct host_attachment *
host_vm_attachment(const struct host_controller *c, int port, int device)
{
	for (int i = 0; i < c->at_count; i++)
		if (c->at[i].port == port && c->at[i].device == device)
			return &c->at[i];
	return NULL;
}

struct host_attachment *
vm_attachment_add(struct host_controller *c, int port, int device)
{
	int i = 0;

	c->at = realloc(c->at, (size_t)(c->at_count + 1) * sizeof(*c->at));
	if (!c->at)
		abort();
	while (i < c->at_count && (c->at[i].port < port || (c->at[i].port == port && c->at[i].device < device)))
		i++;
	memmove(&c->at[i + 1], &c->at[i], (size_t)(c->at_count - i) * sizeof(*c->at));
	c->at_count++;
	memset(&c->at[i], 0, sizeof(c->at[i]));
	c->at[i].port = port;
	c->at[i].device = device;
	return &c->at[i];
}

void
vm_attachment_remove(struct host_controller *c, struct host_attachment *a)
{
	int i = (int)(a - c->at);

	attachment_release(a);
	memmove(a, a + 1, (size_t)(c->at_count - i - 1) * sizeof(*a));
	c->at_count--;
}

int
vm_rule_add(struct host_vm *vm, int nic, const struct nat_rule *r, struct err *e)
{
	struct nat_rule *list = vm->rules[nic];
	int n = vm->rule_count[nic], i = 0;

	if (n >= NAT_RULES_MAX)
		return err_set(e, ERR_INVALID, "An adapter can have at most %d port forwarding rules", NAT_RULES_MAX);
	for (int k = 0; k < n; k++) {
		if (!strcmp(list[k].name, r->name))
			return err_set(e, ERR_INVALID, "A NAT rule of this name already exists");
		if (list[k].udp == r->udp && list[k].host_port == r->host_port && !strcmp(list[k].host_ip, r->host_ip))
			return err_set(e, ERR_INVALID, "A NAT rule for this host port and this host IP already exists");
	}
	list = realloc(list, (size_t)(n + 1) * sizeof(*list));
	if (!list)
		abort();
	while (i < n && strcmp(list[i].name, r->name) < 0)
		i++;
	memmove(&list[i + 1], &list[i], (size_t)(n - i) * sizeof(*list));
	list[i] = *r;
	vm->rules[nic] = list;
	vm->rule_count[nic]++;
	return 0;
}

int
vm_rule_remove(struct host_vm *vm, int nic, const char *name, struct err *e)
{
	struct nat_rule *list = vm->rules[nic];
	int n = vm->rule_count[nic];

	for (int i = 0; i < n; i++) {
		if (strcmp(list[i].name, name))
			continue;
		memmove(&list[i], &list[i + 1], (size_t)(n - i - 1) * sizeof(*list));
		vm->rule_count[nic]--;
		return 0;
	}
	return err_set(e, ERR_INVALID, "There is no NAT rule of the name '%s' on adapter %d", name, nic + 1);
}

char *
vm_rule_text(const struct nat_rule *r)
{
	return xasprintf("%s,%s,%s,%u,%s,%u", r->name, r->udp ? "udp" : "tcp", r->host_ip, r->host_port, r->guest_ip,
		r->guest_port);
}

/* ---- from the database ---- */

static int
load_settings(struct host *h, struct host_vm *vm, int64_t row, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "SELECT key, slot, value FROM setting WHERE machine = ?", "l", row);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		int key = setting_find(db_text(s, 0)), slot = sqlite3_column_int(s, 1);

		if (key >= 0 && slot >= 0 && slot < host_setting(key)->slots)
			vm_set(vm, key, slot, db_text(s, 2));
	}
	sqlite3_finalize(s);
	return r;
}

static int
load_rules(struct host *h, struct host_vm *vm, int64_t row, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT slot, name, udp, host_ip, host_port, guest_ip, guest_port FROM natrule WHERE machine = ?", "l",
		row);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		struct nat_rule rule = { .udp = sqlite3_column_int(s, 2) };
		int slot = sqlite3_column_int(s, 0);

		snprintf(rule.name, sizeof(rule.name), "%s", db_text(s, 1));
		snprintf(rule.host_ip, sizeof(rule.host_ip), "%s", db_text(s, 3));
		rule.host_port = (uint16_t)sqlite3_column_int(s, 4);
		snprintf(rule.guest_ip, sizeof(rule.guest_ip), "%s", db_text(s, 5));
		rule.guest_port = (uint16_t)sqlite3_column_int(s, 6);
		if (slot >= 0 && slot < HOST_NICS)
			vm_rule_add(vm, slot, &rule, NULL);
	}
	sqlite3_finalize(s);
	return r;
}

static void
load_attachment(struct host_controller *c, sqlite3_stmt *s)
{
	struct host_attachment *a = vm_attachment_add(c, sqlite3_column_int(s, 1), sqlite3_column_int(s, 2));

	a->type = (enum host_device)medium_type_of(db_text(s, 3));
	a->nonrotational = sqlite3_column_int(s, 4);
	a->discard = sqlite3_column_int(s, 5);
	a->hotpluggable = sqlite3_column_int(s, 6);
	a->tempeject = sqlite3_column_int(s, 7);
	a->passthrough = sqlite3_column_int(s, 8);
	if (sqlite3_column_type(s, 9) == SQLITE_NULL)
		return;
	a->medium = xstrdup(db_text(s, 9));
	a->path = xstrdup(db_text(s, 10));
	a->format = xstrdup(db_text(s, 11));
	a->kind = (enum host_medium_kind)MAX(host_medium_kind_of(db_text(s, 12)), 0);
}

static int
load_attachments(struct host *h, struct host_vm *vm, int64_t row, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT c.name, a.port, a.device, a.type, a.nonrotational, a.discard, a.hotpluggable, a.tempeject,"
		" a.passthrough, m.uuid, m.path, m.format, m.kind FROM attachment a JOIN controller c ON c.id = "
		"a.controller"
		" LEFT JOIN medium m ON m.id = a.medium WHERE c.machine = ?",
		"l", row);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		struct host_controller *c = vm_controller(vm, db_text(s, 0));

		if (c && medium_type_of(db_text(s, 3)) >= 0)
			load_attachment(c, s);
	}
	sqlite3_finalize(s);
	return r;
}

static int
load_controllers(struct host *h, struct host_vm *vm, int64_t row, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT name, bus, instance, ports, bootable, hostiocache, type FROM controller WHERE machine = ? "
		"ORDER BY id",
		"l", row);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		const struct bus_row *bus = bus_row(db_text(s, 1));
		struct host_controller *c;

		if (!bus)
			continue;
		c = vm_controller_add(vm, db_text(s, 0));
		c->bus = bus->bus;
		c->type = controller_type(bus, db_text(s, 6));
		c->max_ports = bus->max_ports;
		c->devices_per_port = bus->devices;
		c->instance = sqlite3_column_int(s, 2);
		c->ports = sqlite3_column_int(s, 3);
		c->bootable = sqlite3_column_int(s, 4);
		c->hostiocache = sqlite3_column_int(s, 5);
	}
	sqlite3_finalize(s);
	return r < 0 ? -1 : load_attachments(h, vm, row, e);
}

/* `s` stands on a row of MACHINE_COLUMNS. */
static struct host_vm *
load_row(struct host *h, sqlite3_stmt *s, struct err *e)
{
	struct host_vm *vm = vm_blank(db_text(s, 2), db_text(s, 3));
	int64_t row = sqlite3_column_int64(s, 0);

	snprintf(vm->uuid, sizeof(vm->uuid), "%s", db_text(s, 1));
	vm_set(vm, HK_HARDWAREUUID, 0, vm->uuid);
	if (load_settings(h, vm, row, e) || load_rules(h, vm, row, e) || load_controllers(h, vm, row, e) ||
		vm_shares_load(h, vm, row, e)) {
		host_vm_free(vm);
		return NULL;
	}
	free(vm->state_file);
	vm->state_file = xstrdup(db_text(s, 6));
	snprintf(vm->snapshot, sizeof(vm->snapshot), "%s", db_text(s, 7));
	vm_resolve_state(h, vm, db_text(s, 4), sqlite3_column_int64(s, 5));
	return vm;
}

#define MACHINE_COLUMNS                                                                                                \
	"SELECT id, uuid, name, folder, state, state_time, state_file,"                                                \
	" (SELECT s.uuid FROM snapshot s WHERE s.id = machine.snapshot) FROM machine "

static int
not_found(const char *id, bool is_uuid, struct err *e)
{
	if (is_uuid)
		return err_set(e, ERR_NOT_FOUND, "Could not find a registered machine with UUID {%s}", id);
	return err_set(e, ERR_NOT_FOUND, "Could not find a registered machine named '%s'", id);
}

static sqlite3_stmt *
find_machine(struct host *h, const char *id, struct err *e)
{
	char text[37];
	struct uuid u;
	bool is_uuid = uuid_parse(id, &u);
	sqlite3_stmt *s;
	int r;

	if (is_uuid) {
		uuid_text(&u, text);
		id = text;
	}
	s = db_query(h, e, is_uuid ? MACHINE_COLUMNS "WHERE uuid = ?" : MACHINE_COLUMNS "WHERE name = ?", "s", id);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0)
		return s;
	if (!r)
		not_found(id, is_uuid, e);
	sqlite3_finalize(s);
	return NULL;
}

struct host_vm *
host_vm_load(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm = NULL;
	sqlite3_stmt *s;

	if (db_begin_read(h, e))
		return NULL;
	s = find_machine(h, id, e);
	if (s)
		vm = load_row(h, s, e);
	sqlite3_finalize(s);
	db_end_read(h);
	return vm;
}

int
vm_busy(const struct host_vm *vm, struct err *e)
{
	return err_set(
		e, ERR_OBJECT_STATE, "The machine '%s' is already locked for a session (or being unlocked)", vm->name);
}

struct host_vm *
vm_edit_begin(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm;

	if (db_begin(h, e))
		return NULL;
	vm = host_vm_load(h, id, e);
	if (vm && !vm_locked(h, vm->uuid))
		return vm;
	if (vm)
		vm_busy(vm, e);
	db_rollback(h);
	host_vm_free(vm);
	return NULL;
}

int
vm_edit_end(struct host *h, struct host_vm *vm, int r, struct err *e)
{
	if (!r && (vm_store(h, vm, e) || vboxfile_write(h, vm, e) || db_commit(h, e)))
		r = -1;
	if (r)
		db_rollback(h);
	host_vm_free(vm);
	return r;
}

struct host_vm *
vm_load_running(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);

	if (!vm || host_state_live(vm->state))
		return vm;
	err_set(e, ERR_VM_STATE, "Machine '%s' is not currently running.", vm->name);
	host_vm_free(vm);
	return NULL;
}

int
host_vms_load(struct host *h, struct host_vm ***out, size_t *count, struct err *e)
{
	sqlite3_stmt *s;
	int r = -1;

	*out = NULL;
	*count = 0;
	if (db_begin_read(h, e))
		return -1;
	s = db_query(h, e, MACHINE_COLUMNS "ORDER BY id", "");
	while (s && (r = db_step(h, s, e)) > 0) {
		struct host_vm *vm = load_row(h, s, e);

		if (!vm) {
			r = -1;
			break;
		}
		*out = realloc(*out, (*count + 1) * sizeof(**out));
		if (!*out)
			abort();
		(*out)[(*count)++] = vm;
	}
	sqlite3_finalize(s);
	db_end_read(h);
	if (r < 0)
		host_vms_free(*out, *count);
	return r < 0 ? -1 : 0;
}

void
host_vms_free(struct host_vm **vms, size_t count)
{
	for (size_t i = 0; i < count; i++)
		host_vm_free(vms[i]);
	free(vms);
}

int64_t
vm_row(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT id FROM machine WHERE uuid = ?", "s", uuid);
	int64_t row = s && db_step(h, s, NULL) > 0 ? sqlite3_column_int64(s, 0) : -1;

	sqlite3_finalize(s);
	return row;
}

/* ---- into the database ---- */

static int
store_settings(struct host *h, const struct host_vm *vm, int64_t row, struct err *e)
{
	for (int k = 0; k < HK_COUNT; k++) {
		for (int i = 0; i < host_setting(k)->slots; i++) {
			char *fallback = setting_fallback(k, i);
			bool usual = !strcmp(vm->value[k][i], fallback);

			free(fallback);
			if (usual)
				continue;
			if (db_run(h, e, "INSERT INTO setting VALUES(?, ?, ?, ?)", "lsis", row, host_setting(k)->name,
				    i, vm->value[k][i]))
				return -1;
		}
	}
	return 0;
}

static int
store_rules(struct host *h, const struct host_vm *vm, int64_t row, struct err *e)
{
	for (int n = 0; n < HOST_NICS; n++) {
		for (int i = 0; i < vm->rule_count[n]; i++) {
			const struct nat_rule *r = &vm->rules[n][i];

			if (db_run(h, e, "INSERT INTO natrule VALUES(?, ?, ?, ?, ?, ?, ?, ?)", "lisisisi", row, n,
				    r->name, (int)r->udp, r->host_ip, (int)r->host_port, r->guest_ip,
				    (int)r->guest_port))
				return -1;
		}
	}
	return 0;
}

static int
store_attachments(struct host *h, const struct host_controller *c, int64_t ctl, struct err *e)
{
	for (int i = 0; i < c->at_count; i++) {
		const struct host_attachment *a = &c->at[i];

		if (db_run(h, e,
			    "INSERT INTO attachment VALUES(?, ?, ?, ?, (SELECT id FROM medium WHERE uuid = ?),"
			    " ?, ?, ?, ?, ?)",
			    "liissiiiii", ctl, a->port, a->device, medium_type_word(a->type), a->medium,
			    (int)a->nonrotational, (int)a->discard, (int)a->hotpluggable, (int)a->tempeject,
			    (int)a->passthrough))
			return -1;
	}
	return 0;
}

static int
store_controllers(struct host *h, const struct host_vm *vm, int64_t row, struct err *e)
{
	for (int i = 0; i < vm->ctl_count; i++) {
		const struct host_controller *c = &vm->ctl[i];

		if (db_run(h, e,
			    "INSERT INTO controller(machine, name, bus, type, instance, ports, bootable, hostiocache)"
			    " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
			    "lsssiiii", row, c->name, bus_of(c->bus)->word, c->type, c->instance, c->ports,
			    (int)c->bootable, (int)c->hostiocache))
			return -1;
		if (store_attachments(h, c, sqlite3_last_insert_rowid(h->db), e))
			return -1;
	}
	return 0;
}

/* The machine's own row: made when it is new. */
static int64_t
store_row(struct host *h, const struct host_vm *vm, struct err *e)
{
	int64_t row = vm_row(h, vm->uuid);

	if (row < 0) {
		if (db_run(h, e, "INSERT INTO machine(uuid, name, folder, state, state_time) VALUES(?, ?, ?, ?, ?)",
			    "ssssl", vm->uuid, vm->name, vm->folder, "poweroff", vm->state_time))
			return -1;
		return sqlite3_last_insert_rowid(h->db);
	}
	if (db_run(h, e, "UPDATE machine SET name = ?, folder = ? WHERE id = ?", "ssl", vm->name, vm->folder, row) ||
		db_run(h, e, "DELETE FROM setting WHERE machine = ?", "l", row) ||
		db_run(h, e, "DELETE FROM natrule WHERE machine = ?", "l", row) ||
		db_run(h, e, "DELETE FROM controller WHERE machine = ?", "l", row))
		return -1;
	return row;
}

int
vm_store(struct host *h, const struct host_vm *vm, struct err *e)
{
	int64_t row = store_row(h, vm, e);

	if (row < 0 || store_settings(h, vm, row, e) || store_rules(h, vm, row, e) || vm_shares_store(h, vm, row, e))
		return -1;
	if (store_controllers(h, vm, row, e))
		return -1;
	vm_forget_ejected(h, vm->uuid);
	return 0;
}
