/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"

static struct vm_config *
parse(const char *text, struct err *e)
{
	*e = (struct err){ 0 };
	return vm_config_parse(text, strlen(text), e);
}

static void
a_name_is_enough_and_the_rest_has_defaults(void **state)
{
	struct err e;
	struct vm_config *c = parse("{\"version\":1,\"name\":\"web1\"}", &e);

	assert_non_null(c);
	assert_string_equal(c->name, "web1");
	assert_int_equal(c->memory_mib, 128);
	assert_int_equal(c->cpus, 1);
	assert_string_equal(c->engine, "auto");
	assert_int_equal(c->boot_count, 2);
	assert_int_equal(c->vga_mib, 16);
	assert_true(c->hpet && c->rtc_utc && c->sandbox);
	assert_false(c->vrde);
	assert_string_equal(c->smbios.product, "VirtualBox");
	vm_config_free(c);
}

static const char everything[] =
	"{\"version\":1,\"name\":\"a\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\",\"memory\":512,\"cpus\":2,"
	"\"engine\":\"interp\",\"cpu_model\":\"host\",\"hpet\":false,\"rtc_utc\":false,\"rtc_offset_ms\":-5000,"
	"\"sandbox\":false,\"user\":\"nobody\",\"log\":\"/l\",\"triple_fault\":\"reset\",\"boot\":[\"dvd\",\"net\"],"
	"\"boot_menu\":true,\"firmware\":\"/f\",\"kernel\":{\"image\":\"/k\",\"initrd\":\"/i\",\"append\":\"x y\","
	"\"modules\":[\"/m 1\"]},\"smbios\":{\"product\":\"P\"},\"vga\":{\"memory\":32},"
	"\"storage\":[{\"name\":\"IDE\",\"type\":\"ide\",\"attachments\":[{\"port\":1,\"device\":1,\"type\":\"dvd\"}]},"
	"{\"name\":\"SATA\",\"type\":\"ahci\",\"bootable\":false,\"attachments\":[{\"port\":3,\"path\":\"/d.vdi\","
	"\"format\":\"vdi\",\"readonly\":true,\"serial\":\"S\",\"nonrotational\":true,\"discard\":true}]}],"
	"\"nics\":[{\"slot\":1,\"model\":\"virtio\",\"mac\":\"0800271A2B3C\",\"cable\":false,\"backend\":{\"type\":"
	"\"nat\","
	"\"network\":\"192.168.5.0/24\",\"hostname\":\"h\",\"tftp\":\"/"
	"t\",\"bootfile\":\"b\",\"localhost_reachable\":false,"
	"\"forwards\":[\"ssh,tcp,127.0.0.1,2222,,22\"]},\"trace\":\"/p\",\"trace_on\":false}],"
	"\"serial\":[{\"port\":1,\"mode\":\"file\",\"path\":\"/s\"}],"
	"\"vrde\":{\"enabled\":false,\"address\":\"\",\"ports\":\"5901\",\"password\":\"x\"},\"devices\":[\"virtio-"
	"rng\"]}";

static void
every_key_is_read(void **state)
{
	static const uint8_t mac[6] = { 0x08, 0, 0x27, 0x1a, 0x2b, 0x3c };
	struct err e;
	struct vm_config *c = parse(everything, &e);

	assert_string_equal(e.text, "");
	assert_non_null(c);
	assert_int_equal(c->rtc_offset_ms, -5000);
	assert_int_equal(c->triple_fault, VM_TRIPLE_FAULT_RESET);
	assert_int_equal(c->boot[1], VM_BOOT_NET);
	assert_string_equal(c->modules[0], "/m 1");
	assert_int_equal(c->controllers[0].attachments[0].type, VM_DVD);
	assert_int_equal(c->controllers[1].ports, 4);
	assert_string_equal(c->controllers[1].attachments[0].serial, "S");
	assert_memory_equal(c->nics[0].mac, mac, 6);
	assert_int_equal(c->nics[0].rules[0].guest_port, 22);
	assert_int_equal(c->serial[0].base, 0x2f8);
	assert_int_equal(c->serial[0].irq, 3);
	assert_true(c->vrde);
	assert_false(c->vrde_enabled);
	vm_config_free(c);
}

static void
what_is_dumped_reads_back_the_same(void **state)
{
	struct err e;
	struct vm_config *c = parse(everything, &e), *d;
	char *first = vm_config_dump(c), *second;

	d = parse(first, &e);
	assert_string_equal(e.text, "");
	assert_non_null(d);
	second = vm_config_dump(d);
	assert_string_equal(first, second);
	free(first);
	free(second);
	vm_config_free(c);
	vm_config_free(d);
}

static void
wrong_documents_are_refused_with_the_place(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{ "", "line" },
		{ "[]", "version" },
		{ "{\"name\":\"a\"}", "version" },
		{ "{\"version\":2,\"name\":\"a\"}", "version" },
		{ "{\"version\":1}", "name" },
		{ "{\"version\":1,\"name\":\"a\",\"name\":\"b\"}", "duplicate" },
		{ "{\"version\":1,\"name\":\"a\",\"colour\":1}", "colour" },
		{ "{\"version\":1,\"name\":\"a\",\"memory\":\"512\"}", "memory" },
		{ "{\"version\":1,\"name\":\"a\",\"memory\":1}", "memory" },
		{ "{\"version\":1,\"name\":\"a\",\"memory\":99999999999}", "memory" },
		{ "{\"version\":1,\"name\":\"a\",\"cpus\":65}", "cpus" },
		{ "{\"version\":1,\"name\":\"a\",\"cpus\":1.5}", "cpus" },
		{ "{\"version\":1,\"name\":\"a\\u0000b\"}", "line" },
		{ "{\"version\":1,\"name\":\"a\",\"firmware\":\"relative\"}", "firmware" },
		{ "{\"version\":1,\"name\":\"a\",\"boot\":[\"usb\"]}", "boot" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"name\":\"x\",\"type\":\"scsi\"}]}",
			"storage[0].type" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"name\":\"x\",\"type\":\"ide\",\"attachments\":"
		  "[{\"port\":0},{\"prot\":1}]}]}",
			"storage[0].attachments[1].prot" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"name\":\"x\",\"type\":\"ide\",\"attachments\":"
		  "[{\"port\":2,\"type\":\"dvd\"}]}]}",
			"no port 2" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"name\":\"x\",\"type\":\"ahci\",\"attachments\":"
		  "[{\"port\":2,\"type\":\"dvd\"},{\"port\":2,\"type\":\"dvd\"}]}]}",
			"twice" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"name\":\"x\",\"type\":\"ahci\",\"attachments\":[{}]}]"
		  "}",
			"path" },
		{ "{\"version\":1,\"name\":\"a\",\"storage\":[{\"type\":\"ide\"}]}", "no name" },
		{ "{\"version\":1,\"name\":\"a\",\"nics\":[{\"slot\":8}]}", "nics[0].slot" },
		{ "{\"version\":1,\"name\":\"a\",\"nics\":[{\"mac\":\"0\"}]}", "mac" },
		{ "{\"version\":1,\"name\":\"a\",\"nics\":[{\"mac\":\"010000000000\"}]}", "mac" },
		{ "{\"version\":1,\"name\":\"a\",\"nics\":[{\"slot\":1},{\"slot\":1}]}", "twice" },
		{ "{\"version\":1,\"name\":\"a\",\"nics\":[{\"backend\":{\"type\":\"nat\",\"forwards\":[\"x\"]}}]}",
			"forwards[0]" },
		{ "{\"version\":1,\"name\":\"a\",\"serial\":[{\"port\":0,\"mode\":\"file\"}]}", "path" },
		{ "{\"version\":1,\"name\":\"a\",\"devices\":[\"floppy\"]}", "floppy" },
		{ "{\"version\":1,\"name\":\"a\",\"kernel\":{\"append\":\"x\"}}", "kernel" },
		{ "{\"version\":1,\"name\":\"a\"} x", "line" },
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct err e;

		assert_null(parse(wrong[i].text, &e));
		if (!strstr(e.text, wrong[i].says))
			fail_msg("%s: '%s' does not say '%s'", wrong[i].text, e.text, wrong[i].says);
	}
}

static void
every_prefix_of_a_document_is_refused(void **state)
{
	struct err e;

	for (size_t n = 0; n + 1 < sizeof(everything) - 1; n++)
		assert_null(vm_config_parse(everything, n, &e));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_enough_and_the_rest_has_defaults),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(what_is_dumped_reads_back_the_same),
		cmocka_unit_test(wrong_documents_are_refused_with_the_place),
		cmocka_unit_test(every_prefix_of_a_document_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
