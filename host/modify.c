/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing the settings of a machine that does not run.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"

/* A serial port cannot sit where another one does. */
static int
check_uarts(const struct host_vm *vm, struct err *e)
{
	for (int a = 0; a < HOST_UARTS; a++)
		for (int b = a + 1; b < HOST_UARTS; b++)
			if (strcmp(vm->value[HK_UART][a], "off") &&
				!strncmp(vm->value[HK_UART][a], vm->value[HK_UART][b], 6))
				return err_set(e, ERR_INVALID, "Serial ports %d and %d have the same I/O base %.6s",
					a + 1, b + 1, vm->value[HK_UART][a]);
	return 0;
}

int
vm_rule_parse(const char *text, struct nat_rule *rule, struct err *e)
{
	if (nat_rule_parse(text, rule, e))
		return -1;
	if (!rule->name[0])
		snprintf(rule->name, sizeof(rule->name), "%s_%u_%u", rule->udp ? "udp" : "tcp", rule->host_port,
			rule->guest_port);
	return 0;
}

static int
apply_natpf_add(struct host_vm *vm, const struct host_change *c, struct err *e)
{
	struct nat_rule rule;

	return vm_rule_parse(c->value, &rule, e) ? -1 : vm_rule_add(vm, c->slot, &rule, e);
}

/* "name=value" among the lines of the adapter's properties; an empty value takes it out. */
static int
apply_property(struct host_vm *vm, const struct host_change *c, struct err *e)
{
	const char *equals = strchr(c->value, '='), *p = host_vm_get(vm, HK_NICPROPERTY, c->slot);
	size_t n = equals ? (size_t)(equals - c->value) : 0;
	struct str b = { 0 };

	if (!n || strchr(c->value, '\n'))
		return err_set(e, ERR_INVALID, "Invalid property '%s' of adapter %d: it has the form name=value",
			c->value, c->slot + 1);
	str_add(&b, "");
	while (*p) {
		size_t line = strcspn(p, "\n");

		if (strncmp(p, c->value, n + 1))
			str_addf(&b, "%s%.*s", b.len ? "\n" : "", (int)line, p);
		p += line + (p[line] != 0);
	}
	if (equals[1])
		str_addf(&b, "%s%s", b.len ? "\n" : "", c->value);
	vm_set(vm, HK_NICPROPERTY, c->slot, b.s);
	str_free(&b);
	return 0;
}

/* Move the machine's folder along with its name when it is named after the machine, and always the settings file. */
static int
apply_name(struct host *h, struct host_vm *vm, const char *name, struct err *e)
{
	char *slash = strrchr(vm->folder, '/'), *folder;
	bool follows = slash && !strcmp(slash + 1, vm->name);
	struct stat st;

	if (!strcmp(name, vm->name))
		return 0;
	folder = follows ? xasprintf("%.*s/%s", (int)(slash - vm->folder), vm->folder, name) : xstrdup(vm->folder);
	if (follows && !stat(folder, &st)) {
		err_set(e, ERR_FILE,
			"Could not rename the directory '%s' to '%s' to save the settings file (VERR_ALREADY_EXISTS)",
			vm->folder, folder);
		free(folder);
		return -1;
	}
	vm_set_place(vm, folder, name);
	free(folder);
	return 0;
}

int
vm_apply(struct host *h, struct host_vm *vm, const struct host_change *c, struct err *e)
{
	char *normal;

	switch ((int)c->key) {
	case HK_NAME:
		return apply_name(h, vm, c->value, e);
	case HK_NATPF_ADD:
		return apply_natpf_add(vm, c, e);
	case HK_NATPF_DELETE:
		return vm_rule_remove(vm, c->slot, c->value, e);
	case HK_NICPROPERTY_SET:
		return apply_property(vm, c, e);
	}
	normal = setting_normal(c->key, c->slot, c->value, e);
	if (!normal)
		return -1;
	/* A path is meant as seen from where it was typed. */
	if ((c->key == HK_NICTRACEFILE || c->key == HK_NATTFTPPREFIX) && *normal) {
		char *path = host_absolute_path(normal);

		free(normal);
		normal = path;
	}
	vm_set(vm, c->key, c->slot, normal);
	free(normal);
	return 0;
}

static int
check_new_name(struct host *h, const struct host_vm *vm, const char *old, struct err *e)
{
	sqlite3_stmt *s;
	int r;

	if (!strcmp(old, vm->name))
		return 0;
	if (!*vm->name || strchr(vm->name, '/') || strlen(vm->name) > 200)
		return err_set(
			e, ERR_INVALID, "Invalid machine name '%s': it must have 1 to 200 bytes and no '/'", vm->name);
	s = db_query(h, e, "SELECT 1 FROM machine WHERE name = ?", "s", vm->name);
	r = s ? db_step(h, s, e) : -1;
	sqlite3_finalize(s);
	if (r > 0)
		return err_set(e, ERR_FILE, "A machine named '%s' already exists (VERR_ALREADY_EXISTS)", vm->name);
	return r;
}

int
folder_moved(struct host *h, const char *from, const char *to, struct err *e)
{
	if (!strcmp(from, to))
		return 0;
	return db_run(h, e,
		       "UPDATE medium SET path = ?1 || substr(path, length(?2) + 1)"
		       " WHERE substr(path, 1, length(?2) + 1) = ?2 || '/'",
		       "ss", to, from) ||
	       db_run(h, e,
		       "UPDATE snapshot SET state_file = ?1 || substr(state_file, length(?2) + 1)"
		       " WHERE substr(state_file, 1, length(?2) + 1) = ?2 || '/'",
		       "ss", to, from);
}

static int
move_files(const struct host_vm *vm, const char *old_folder, const char *old_cfg, struct err *e)
{
	char *moved;
	int r = 0;

	if (!strcmp(old_cfg, vm->cfg_file))
		return 0;
	if (strcmp(old_folder, vm->folder) && rename(old_folder, vm->folder))
		return err_sys(e, ERR_FILE, errno,
			"Could not rename the directory '%s' to '%s' to save the settings file", old_folder,
			vm->folder);
	moved = xasprintf("%s%s", vm->folder, strrchr(old_cfg, '/'));
	if (rename(moved, vm->cfg_file) && errno != ENOENT)
		r = err_sys(e, ERR_FILE, errno, "Could not rename the settings file '%s' to '%s'", moved, vm->cfg_file);
	free(moved);
	if (r)
		rename(vm->folder, old_folder);
	return r;
}

static void
move_back(const struct host_vm *vm, const char *old_folder, const char *old_cfg)
{
	char *moved = xasprintf("%s%s", vm->folder, strrchr(old_cfg, '/'));

	rename(vm->cfg_file, moved);
	free(moved);
	rename(vm->folder, old_folder);
}

int
host_vm_modify(struct host *h, const char *id, const struct host_change *c, size_t count, struct err *e)
{
	char *folder = NULL, *cfg = NULL, *name = NULL;
	struct host_vm *vm = vm_edit_begin(h, id, e);
	bool moved = false;

	if (!vm)
		return -1;
	if (vm_check_mutable(vm, e))
		goto fail;
	folder = xstrdup(vm->folder);
	cfg = xstrdup(vm->cfg_file);
	name = xstrdup(vm->name);
	for (size_t i = 0; i < count; i++)
		if (vm_apply(h, vm, &c[i], e))
			goto fail;
	if (check_uarts(vm, e) || check_new_name(h, vm, name, e))
		goto fail;
	if (move_files(vm, folder, cfg, e))
		goto fail;
	moved = strcmp(cfg, vm->cfg_file) != 0;
	if (vm_store(h, vm, e) || folder_moved(h, folder, vm->folder, e) || vboxfile_write(h, vm, e) || db_commit(h, e))
		goto fail;
	free(folder);
	free(cfg);
	free(name);
	host_vm_free(vm);
	return 0;
fail:
	db_rollback(h);
	if (moved)
		move_back(vm, folder, cfg);
	free(folder);
	free(cfg);
	free(name);
	host_vm_free(vm);
	return -1;
}
