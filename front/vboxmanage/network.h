/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs and lists of networks. */
#ifndef VBM_NETWORK_H
#define VBM_NETWORK_H

#include "front/vboxmanage/vbm.h"
#include "host/net.h"

int cmd_hostonlyif(struct cli *c, int argc, char **argv);
int cmd_hostonlynet(struct cli *c, int argc, char **argv);
int cmd_natnetwork(struct cli *c, int argc, char **argv);
int cmd_dhcpserver(struct cli *c, int argc, char **argv);
int cmd_bandwidthctl(struct cli *c, int argc, char **argv);

int list_bridgedifs(struct cli *c, bool full);
int list_hostonlyifs(struct cli *c, bool full);
int list_hostonlynets(struct cli *c, bool full);
int list_natnetworks(struct cli *c, bool full);
int list_dhcpservers(struct cli *c, bool full);
int list_intnets(struct cli *c, bool full);

/* controlvm nicN, nicpromiscN, nicpropertyN, nictracefileN: the words behind that. */
int ctl_nic(struct cli *c, const char *vm, int slot, int argc, char **argv);
int ctl_nicpromisc(struct cli *c, const char *vm, int slot, int argc, char **argv);
int ctl_nicproperty(struct cli *c, const char *vm, int slot, int argc, char **argv);
int ctl_nictracefile(struct cli *c, const char *vm, int slot, int argc, char **argv);

const char *doc_text(json_t *doc, const char *key);
bool doc_on(json_t *doc, const char *key);

#endif
