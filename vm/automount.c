/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders that the guest is to have mounted without being asked: through its agent, whichever it is.
 *
 * What VirtualBox's service does in a guest: NAME is mounted by the kernel's vboxsf at its mount point, or at
 * MountDir/MountPrefixNAME (guest properties /VirtualBox/GuestAdd/SharedFolders/MountDir and MountPrefix, which are
 * /media and sf_ where nobody set them), for root and the group vboxsf; where the guest has no such group all its users
 * can read. It is asked for when the agent has come up, once more soon after, and when a folder is added; a place where
 * something is mounted already is left alone. A folder that is removed is unmounted.
 *
 * Names and places are arguments of the script, never part of it. What becomes of it is the guest's affair.
 */
#include <stdlib.h>
#include <string.h>

#include "share/share.h"
#include "vm/agent.h"

#define DIR_KEY "/VirtualBox/GuestAdd/SharedFolders/MountDir"
#define PREFIX_KEY "/VirtualBox/GuestAdd/SharedFolders/MountPrefix"

/* $1 folder, $2 place, relative to $3; the options follow from whether there is the group. */
/* `is` runs $1 when something is mounted there; /proc/mounts writes blanks as \040. */
#define PLACE                                                                                                          \
	"n=$1 at=$2; case $at in /*) ;; *) at=$3/$at ;; esac\n"                                                        \
	"is() { while read -r what where type x; do case $where in *\\\\*) where=$(printf %b \"$where\") ;; esac\n"    \
	"[ \"$where\" != \"$at\" ] || \"$@\"; done </proc/mounts; }\n"

static const char mount_script[] =
	PLACE "is exit\n"
	      "o=dmode=0755,fmode=0755; while IFS=: read -r g x i r; do\n"
	      "[ \"$g\" != vboxsf ] || o=gid=$i,dmode=0770,fmode=0770; done </etc/group\n"
	      "modprobe -q vboxsf; mkdir -p \"$at\" && mount -t vboxsf -o \"uid=0,$o\" \"$n\" \"$at\"\n";

static const char unmount_script[] = PLACE "gone() { [ \"$type\" != vboxsf ] || umount \"$at\"; }; is gone\n";

static void
ignore(void *opaque, json_t *back)
{
}

static void
property(struct vm *v, const char *key, const char *fallback, char out[PROP_VALUE_MAX + 1])
{
	struct prop p;

	snprintf(out, PROP_VALUE_MAX + 1, "%s", props_get(vm_props(v), key, &p) && *p.value ? p.value : fallback);
}

static void
ask(struct vm *v, const struct vm_share *s, const char *script)
{
	char dir[PROP_VALUE_MAX + 1], prefix[PROP_VALUE_MAX + 1], *at;
	bool given = s->mount_point && *s->mount_point && !strchr(s->mount_point, ':'); /* "E:" is Windows' */

	property(v, DIR_KEY, "/media", dir);
	property(v, PREFIX_KEY, "sf_", prefix);
	at = given ? xstrdup(s->mount_point) : xasprintf("%s%s", prefix, s->name);
	agent_ask(v->agent, "guest-exec",
		json_pack("{s:s, s:[s,s,s,s,s,s], s:[s]}", "path", "/bin/sh", "arg", "-c", script, "sh", s->name, at,
			dir, "env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		ignore, NULL);
	free(at);
}

static bool
can_ask(struct vm *v)
{
	return v->agent && vm_props(v) && v->state == VM_RUNNING && agent_is_open(v->agent);
}

void
vm_automount(struct vm *v)
{
	for (int i = 0; can_ask(v) && i < v->c->share_count; i++)
		vm_automount_one(v, &v->c->shares[i], true);
}

void
vm_automount_one(struct vm *v, const struct vm_share *s, bool mount)
{
	if (s->automount && can_ask(v))
		ask(v, s, mount ? mount_script : unmount_script);
}
