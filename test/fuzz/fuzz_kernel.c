/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: kernel images. The first byte chooses a start (nothing, a bzImage, a multiboot ELF, a PVH ELF), the rest
 * is either the image or changes to it in 6-byte steps of (offset, value).
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "bus/machine.h"
#include "machine/kernel.h"

#define RAM_SIZE (8u << 20)

static struct machine m;
static struct ram *ram;
static struct mem_region region;

static void
make_machine(void)
{
	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz") || !(ram = ram_create(&m.mem, "ram", RAM_SIZE)))
		abort();
	region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &region);
}

static void
start_linux(uint8_t *p)
{
	p[0x1f1] = 1;
	put_le16(p + 0x1fe, 0xaa55);
	p[0x201] = 0x66;
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x020f);
	p[0x211] = 1;
	put_le32(p + 0x22c, 0x7fffffff);
	put_le32(p + 0x238, 2047);
	put_le64(p + 0x258, 2 << 20);
	put_le32(p + 0x260, 0x10000);
}

static void
start_elf(uint8_t *p, bool pvh)
{
	memcpy(p, "\177ELF\1\1\1", 7);
	put_le16(p + 18, 3);
	put_le32(p + 24, 1 << 20);
	put_le32(p + 28, 52);
	put_le16(p + 42, 32);
	put_le16(p + 44, 2);
	put_le32(p + 52, 1);
	put_le32(p + 56, 2048);
	put_le32(p + 64, 1 << 20);
	put_le32(p + 68, 256);
	put_le32(p + 72, 512);
	put_le32(p + 84, 4);
	put_le32(p + 88, 1024);
	put_le32(p + 100, 20);
	if (pvh) {
		put_le32(p + 1024, 4);
		put_le32(p + 1028, 4);
		put_le32(p + 1032, 18);
		memcpy(p + 1036, "Xen", 4);
	} else {
		put_le32(p + 1024, 0x1badb002);
		put_le32(p + 1028, 3);
		put_le32(p + 1032, (uint32_t) - (0x1badb002 + 3));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct e820 map[] = { { 0, 0x9fc00, 1 }, { 1 << 20, RAM_SIZE - (1 << 20), 1 } };
	struct kernel_env env = { &m.mem, map, 2, RAM_SIZE, 0xf0000 };
	struct kernel *k;
	struct x86_state s;
	unsigned kind;

	if (!ram)
		make_machine();
	if (size < 2)
		return 0;
	env.mem = &m.mem;
	kind = data[0] & 3;
	k = xcalloc(1, sizeof(*k));
	k->append = xstrdup("x");
	k->module_count = data[0] >> 2 & 1;
	if (k->module_count)
		k->modules[0] = (struct kernel_file){ xcalloc(100, 1), 100, xstrdup("m") };
	data++, size--;
	k->image.len = kind ? 4096 : size;
	k->image.data = xcalloc(k->image.len, 1);
	if (kind == 0)
		memcpy(k->image.data, data, size);
	else if (kind == 1)
		start_linux(k->image.data);
	else
		start_elf(k->image.data, kind == 3);
	for (; kind && size >= 6; data += 6, size -= 6)
		memcpy(k->image.data + le16(data) % (4096 - 4), data + 2, 4);
	if (!kernel_identify(k, NULL))
		kernel_load(k, &env, &s, NULL);
	kernel_free(k);
	return 0;
}
