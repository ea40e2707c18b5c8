/* SPDX-License-Identifier: Apache-2.0 */
/* Installing guests with nobody at the keyboard. */
#ifndef VBM_UNATTENDED_H
#define VBM_UNATTENDED_H

#include "front/vboxmanage/vbm.h"

int cmd_unattended(struct cli *c, int argc, char **argv);

#endif
