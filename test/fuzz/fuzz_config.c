/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a machine's configuration document. What is taken can be written and read again, and says the same then;
 * what is not is refused with a text.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static const char good[] =
	"{\"version\":1,\"name\":\"a\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\",\"memory\":512,\"cpus\":2,"
	"\"engine\":\"interp\",\"hpet\":false,\"rtc_utc\":false,\"rtc_offset_ms\":-5000,\"user\":\"nobody\","
	"\"log\":\"/l\",\"triple_fault\":\"reset\",\"boot\":[\"dvd\",\"net\"],\"kernel\":{\"image\":\"/k\",\"modules\":"
	"[\"/m 1\"]},\"smbios\":{\"product\":\"P\"},\"vga\":{\"memory\":32},\"storage\":[{\"name\":\"IDE\",\"type\":"
	"\"ide\",\"attachments\":[{\"port\":1,\"device\":1,\"type\":\"dvd\"}]},{\"name\":\"SATA\",\"type\":\"ahci\","
	"\"bootable\":false,\"attachments\":[{\"port\":3,\"path\":\"/d.vdi\",\"format\":\"vdi\",\"serial\":\"S\"}]}],"
	"\"nics\":[{\"slot\":1,\"model\":\"virtio\",\"mac\":\"0800271A2B3C\",\"backend\":{\"type\":\"nat\","
	"\"network\":\"192.168.5.0/24\",\"forwards\":[\"ssh,tcp,127.0.0.1,2222,,22\"]},\"trace\":\"/p\"}],"
	"\"serial\":[{\"port\":1,\"base\":760,\"irq\":3,\"mode\":\"file\",\"path\":\"/s\"}],\"vrde\":{\"address\":\"\","
	"\"ports\":\"5901,6000-6010\",\"password\":\"x\"},\"devices\":[\"virtio-rng\",\"virtio-console=null\"]}";

/* Random bytes seldom are JSON: now and then begin with a document that is. */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	if ((size < 2 || seed % 50 == 0) && sizeof(good) <= max_size) {
		memcpy(data, good, sizeof(good) - 1);
		size = sizeof(good) - 1;
	}
	return LLVMFuzzerMutate(data, size, max_size);
}

static void
dump_and_read(const struct vm_config *c)
{
	char *first = vm_config_dump(c), *second;
	struct err e = { 0 };
	struct vm_config *again = first ? vm_config_parse(first, strlen(first), &e) : NULL;

	if (!again)
		abort();
	second = vm_config_dump(again);
	if (strcmp(first, second))
		abort();
	free(first);
	free(second);
	vm_config_free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = { 0 };
	struct vm_config *c = vm_config_parse((const char *)data, size, &e);

	if (!c && !e.text[0])
		abort();
	if (c && !vm_config_check(c, &e))
		dump_and_read(c);
	vm_config_free(c);
	return 0;
}
