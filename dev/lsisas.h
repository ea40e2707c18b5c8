/* SPDX-License-Identifier: Apache-2.0 */
/* What the SAS controller of the Fusion-MPT family says about its ports and drives. Private to dev/lsi*.c. */
#ifndef DEV_LSISAS_H
#define DEV_LSISAS_H

#include <stdbool.h>
#include <stdint.h>

#define LSISAS_TARGETS 8
#define LSISAS_PAGE_MAX 192 /* bytes of the longest page, and room behind it */

/*
 * The extended configuration page `number` of `type` (MPI 6.4) that `address` names, where present[] says at which
 * ports there are drives. Returns the page's length, header included; *there false: there is none at that address,
 * though there are pages of that kind. 0: there are none.
 */
uint32_t lsisas_page(uint8_t type, uint8_t number, uint32_t address, const bool present[LSISAS_TARGETS],
	uint8_t page[LSISAS_PAGE_MAX], bool *there);

#endif
