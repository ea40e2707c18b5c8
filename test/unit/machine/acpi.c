/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "machine/acpi.h"

#define BASE 0x7fe0000u

static const struct acpi_options options = {
	.cpus = 4,
	.hpet = true,
	.ram_below_4g = 512u << 20,
	.serial_base = { 0x3f8, 0x2f8 },
	.serial_irq = { 4, 3 },
};

static uint8_t
sum(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *b++);
	return s;
}

static const uint8_t *
table_at(const struct acpi_tables *t, uint64_t address)
{
	assert_in_range(address, BASE, BASE + t->tables.len - 36);
	return (const uint8_t *)t->tables.s + (address - BASE);
}

static void
a_linked_rsdp_has_both_checksums(void **state)
{
	struct acpi_tables t;

	acpi_build(&t, &options);
	acpi_link(&t, BASE);
	assert_memory_equal(t.rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(t.rsdp, 20), 0);
	assert_int_equal(sum(t.rsdp, 36), 0);
	acpi_free(&t);
}

static void
every_table_of_the_rsdt_and_the_xsdt_is_the_same_and_sums_to_zero(void **state)
{
	struct acpi_tables t;
	const uint8_t *rsdt, *xsdt;
	uint32_t count;

	acpi_build(&t, &options);
	acpi_link(&t, BASE);
	rsdt = table_at(&t, le32(t.rsdp + 16));
	xsdt = table_at(&t, le64(t.rsdp + 24));
	count = (le32(rsdt + 4) - 36) / 4;
	assert_int_equal(count, 3);
	assert_int_equal((le32(xsdt + 4) - 36) / 8, count);
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *table = table_at(&t, le32(rsdt + 36 + 4 * i));

		assert_ptr_equal(table, table_at(&t, le64(xsdt + 36 + 8 * i)));
		assert_int_equal(sum(table, le32(table + 4)), 0);
	}
	assert_int_equal(sum(rsdt, le32(rsdt + 4)), 0);
	assert_int_equal(sum(xsdt, le32(xsdt + 4)), 0);
	acpi_free(&t);
}

static void
the_loader_script_leads_to_the_same_bytes_as_linking_here(void **state)
{
	struct acpi_tables here, there;
	struct str script = { 0 };

	acpi_build(&here, &options);
	acpi_build(&there, &options);
	acpi_link(&here, BASE);
	acpi_loader_script(&there, &script);
	assert_int_equal(script.len % 128, 0);
	for (size_t at = 0; at < script.len; at += 128) {
		const uint8_t *e = (const uint8_t *)script.s + at, *p = e + 60;
		uint8_t *file = !strcmp((const char *)e + 4, "etc/acpi/rsdp") ? there.rsdp : (uint8_t *)there.tables.s;

		if (le32(e) == 2)
			put_le32(file + le32(p + 56), le32(file + le32(p + 56)) + BASE);
		else if (le32(e) == 3)
			file[le32(p)] = (uint8_t)(file[le32(p)] - sum(file + le32(p + 4), le32(p + 8)));
	}
	assert_memory_equal(there.rsdp, here.rsdp, sizeof(here.rsdp));
	assert_memory_equal(there.tables.s, here.tables.s, here.tables.len);
	str_free(&script);
	acpi_free(&here);
	acpi_free(&there);
}

/* Find the DSDT by its signature, write it to a file and let ACPICA's disassembler and compiler judge it. */
static void
acpica_accepts_the_dsdt(void **state)
{
	char dir[] = "/tmp/lodge-acpi-XXXXXX", command[512];
	struct acpi_tables t;
	const uint8_t *fadt, *dsdt;
	FILE *f;
	int r;

	if (access("/usr/bin/iasl", X_OK)) {
		print_message("SKIPPED: there is no /usr/bin/iasl (package acpica-tools)\n");
		skip();
	}
	acpi_build(&t, &options);
	acpi_link(&t, BASE);
	fadt = table_at(&t, le32(table_at(&t, le32(t.rsdp + 16)) + 36));
	dsdt = table_at(&t, le32(fadt + 40));
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_non_null(mkdtemp(dir));
	snprintf(command, sizeof(command), "%s/dsdt.aml", dir);
	f = fopen(command, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(dsdt, 1, le32(dsdt + 4), f), le32(dsdt + 4));
	fclose(f);
	snprintf(command, sizeof(command),
		"cd %s && iasl -d dsdt.aml >out 2>&1 && ! grep -i error out && iasl -p again dsdt.dsl >out 2>&1 && "
		"grep -q ' 0 Errors, 0 Warnings' out || { cat out; exit 1; }",
		dir);
	r = system(command);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(r, 0);
	acpi_free(&t);
}

static void
the_smbios_anchor_describes_structures_that_end_with_type_127(void **state)
{
	struct smbios_strings strings;
	struct smbios_tables t;
	struct uuid uuid = uuid_random();
	const uint8_t *p, *end;
	unsigned count = 0, last = 0;

	smbios_defaults(&strings);
	smbios_build(&t, &(struct smbios_options){ &strings, &uuid, 2, 8ull << 30, 0xe0000000u });
	smbios_place(&t, BASE);
	assert_int_equal(sum(t.anchor, sizeof(t.anchor)), 0);
	assert_int_equal(sum(t.anchor + 16, 15), 0);
	assert_int_equal(le32(t.anchor + 24), BASE);
	assert_int_equal(le16(t.anchor + 22), t.tables.len);
	for (p = (const uint8_t *)t.tables.s, end = p + t.tables.len; p < end; count++) {
		last = p[0];
		p += p[1];
		while (p + 1 < end && (p[0] || p[1]))
			p++;
		p += 2;
	}
	assert_ptr_equal(p, end);
	assert_int_equal(last, 127);
	assert_int_equal(count, le16(t.anchor + 28));
	smbios_free(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_linked_rsdp_has_both_checksums),
		cmocka_unit_test(every_table_of_the_rsdt_and_the_xsdt_is_the_same_and_sums_to_zero),
		cmocka_unit_test(the_loader_script_leads_to_the_same_bytes_as_linking_here),
		cmocka_unit_test(acpica_accepts_the_dsdt),
		cmocka_unit_test(the_smbios_anchor_describes_structures_that_end_with_type_127),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
