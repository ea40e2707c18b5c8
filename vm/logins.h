/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has given the right password of a user of the guest a short while ago, for guestcontrol with QEMU's agent.
 *
 * The guest checks a password itself, which takes it long on purpose (yescrypt: a tenth of a second of a translated
 * CPU). What is remembered is the guest's line of /etc/shadow for which it was right; the guest compares that line with
 * the one it has before it believes. Passwords are not kept, only a hash of them under a salt of this process.
 */
#ifndef VM_LOGINS_H
#define VM_LOGINS_H

#include "vm/protocol.h"

struct logins;

struct logins *logins_create(void);
void logins_destroy(struct logins *l); /* NULL: nothing */
/* The line for which it was right within the last ten minutes; NULL: it is not known. Valid until the next call. */
const char *logins_find(struct logins *l, const char *user, const char *password);
/* `line`: at most VM_LOGIN_LINE_MAX bytes, longer ones are not remembered. The oldest of 16 is forgotten for it. */
void logins_add(struct logins *l, const char *user, const char *password, const char *line);

#endif
