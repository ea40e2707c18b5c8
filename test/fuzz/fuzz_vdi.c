/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: what a VDI file may say (images.h). tools/run-fuzz builds and runs it. */
#include "test/fuzz/images.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return image_fuzz(&(struct block_create){ .format = "vdi" }, data, size);
}
