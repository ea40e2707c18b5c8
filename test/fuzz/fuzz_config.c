/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: the configuration document. What is accepted has to survive being written and read again. */
#include <stdlib.h>
#include <string.h>

#include "vm/config.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_config *c = vm_config_parse((const char *)data, size, NULL), *again;
	char *text;

	if (!c)
		return 0;
	text = vm_config_dump(c);
	if (!text)
		abort();
	again = vm_config_parse(text, strlen(text), NULL);
	if (!again)
		abort();
	free(text);
	vm_config_free(again);
	vm_config_free(c);
	return 0;
}
