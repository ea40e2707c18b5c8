/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Installing a guest with nobody at its keyboard: what is on an installation medium, the answers to the questions its
 * installer would ask, and a medium that starts it with them. doc/unattended.md tells the whole of it.
 *
 * The order of calls: host_unattended_resolve() fills in what was not given and changes nothing;
 * host_unattended_install() makes the medium and puts it and the others into the machine's drives, all or nothing.
 */
#ifndef HOST_UNATTENDED_H
#define HOST_UNATTENDED_H

#include "host/host.h"

/* The installers there are answers for. */
enum host_installer {
	HOST_INSTALLER_NONE,
	HOST_INSTALLER_DEBIAN,	    /* debian-installer, preseed */
	HOST_INSTALLER_UBUNTU,	    /* debian-installer or ubiquity, preseed */
	HOST_INSTALLER_AUTOINSTALL, /* Ubuntu's subiquity, cloud-init */
	HOST_INSTALLER_ALPINE,	    /* setup-alpine */
	HOST_INSTALLER_REDHAT,	    /* anaconda, kickstart */
};

/* An installation medium. Every text is printable, of bounded length, and may be "". */
struct host_iso {
	enum host_installer installer;
	char ostype[32]; /* as in host_ostype; "" when nobody knows */
	char version[64], flavor[64], languages[32], hints[32];
	char label[33];		       /* of the volume */
	char kernel[128], initrd[128]; /* paths on it; "" without an installer that is known */
	bool packages;		       /* it carries what is installed; else that comes over the network */
};
/* The file is hostile. ERR_FILE when it cannot be read as an ISO 9660 file system; what is not recognised is no error.
 */
int host_iso_detect(const char *path, struct host_iso *out, struct err *e);

/* What is asked for. NULL (false, 0) is filled in by host_unattended_resolve(), which owns the texts afterwards. */
struct host_unattended {
	char *iso, *user, *password, *full_name, *key, *additions_iso, *locale, *country, *time_zone, *proxy, *hostname,
		*packages, /* "minimal" or "" */
		*aux_base, *script_template, *post_template, *post_command, *kernel_parameters, *language;
	bool install_additions;
	unsigned image_index;
	struct host_iso detected;
};
/* Check what was given, look at the ISO, fill in the rest. Refused for a machine that is not switched off. */
int host_unattended_resolve(struct host *h, const char *id, struct host_unattended *u, struct err *e);
/* After resolve: make the answer medium (AUX_BASEaux.iso, mode 0600) and attach it, the ISO and the additions. */
int host_unattended_install(struct host *h, const char *id, const struct host_unattended *u, struct err *e);
void host_unattended_release(struct host_unattended *u);

/*
 * Answer media whose work is done are taken out of their drives and removed: the guest has put it out, or the machine
 * does not run and its disk starts with what the installer left. Called by host_recover(); errors are left for the next
 * time.
 */
void host_unattended_settle(struct host *h);
/*
 * A machine that goes takes its answer medium with it: where it is (to be freed; NULL: there is none), to be asked while
 * there is a machine, and its removal, for which no machine may have it in a drive.
 */
char *host_unattended_medium(struct host *h, const char *uuid);
void host_unattended_remove(struct host *h, const char *path);

#endif
