/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: kernel images for direct boot. The first byte says what the image is made from (nothing, a good bzImage,
 * a multiboot ELF, a flat multiboot image, a 64-bit PVH ELF), the second how many modules there are; then come changes
 * to it in 7-byte steps of (offset, length, value), or the image itself.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "bus/machine.h"
#include "machine/kernel.h"
#include "test/fuzz/input.h"

#define RAM_SIZE (8u << 20)
#define IMAGE 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine m;
static struct mem_region region;

static void
build(void)
{
	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	region = (struct mem_region){
		.name = "ram", .enabled = true, .size = RAM_SIZE, .ram = ram_create(&m.mem, "ram", RAM_SIZE)
	};
	mem_add(&m.mem, &region);
}

static void
make_linux(uint8_t *p)
{
	p[0x1f1] = 1;
	put_le16(p + 0x1fe, 0xaa55);
	p[0x201] = 0x66;
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x020f);
	p[0x211] = 1;
	put_le32(p + 0x22c, 0x7fffffff);
	put_le32(p + 0x238, 2047);
	put_le64(p + 0x258, 1 << 20);
	put_le32(p + 0x260, 1 << 20);
}

static void
make_elf32(uint8_t *p)
{
	memcpy(p, "\177ELF\1\1\1", 7);
	put_le16(p + 16, 2);
	put_le16(p + 18, 3);
	put_le32(p + 24, 1 << 20);
	put_le32(p + 28, 52);
	put_le16(p + 42, 32);
	put_le16(p + 44, 2);
	for (unsigned i = 0; i < 2; i++) {
		put_le32(p + 52 + 32 * i, 1);
		put_le32(p + 56 + 32 * i, 4096 + 256 * i);
		put_le32(p + 64 + 32 * i, (1 << 20) + 4096 * i);
		put_le32(p + 68 + 32 * i, 256);
		put_le32(p + 72 + 32 * i, 512);
	}
}

static void
make_multiboot(uint8_t *p, uint32_t flags)
{
	put_le32(p + 512, 0x1badb002);
	put_le32(p + 516, flags);
	put_le32(p + 520, 0u - 0x1badb002 - flags);
	put_le32(p + 524, (1 << 20) + 512);
	put_le32(p + 528, 1 << 20);
	put_le32(p + 532, (1 << 20) + 4096);
	put_le32(p + 536, (1 << 20) + 8192);
	put_le32(p + 540, (1 << 20) + 600);
}

static void
make_pvh(uint8_t *p)
{
	memcpy(p, "\177ELF\2\1\1", 7);
	put_le16(p + 16, 2);
	put_le16(p + 18, 62);
	put_le64(p + 24, 1 << 20);
	put_le64(p + 32, 64);
	put_le16(p + 54, 56);
	put_le16(p + 56, 2);
	put_le32(p + 64, 1);
	put_le64(p + 72, 4096);
	put_le64(p + 80, 1 << 20);
	put_le64(p + 88, 1 << 20);
	put_le64(p + 96, 256);
	put_le64(p + 104, 512);
	put_le32(p + 120, 4); /* PT_NOTE */
	put_le64(p + 128, 2048);
	put_le64(p + 152, 20);
	put_le32(p + 2048, 4);
	put_le32(p + 2052, 4);
	put_le32(p + 2056, 18);
	memcpy(p + 2060, "Xen", 4);
	put_le32(p + 2064, 1 << 20);
}

static void
make_image(struct kernel_file *f, unsigned kind, struct input *in)
{
	if (kind == 0) {
		f->len = in->left;
		f->data = xcalloc(f->len + !f->len, 1);
		memcpy(f->data, in->p, f->len);
		return;
	}
	f->len = IMAGE;
	f->data = xcalloc(f->len, 1);
	if (kind == 1)
		make_linux(f->data);
	if (kind == 2)
		make_elf32(f->data);
	if (kind == 2 || kind == 3)
		make_multiboot(f->data, kind == 3 ? 0x10003 : 3);
	if (kind == 4)
		make_pvh(f->data);
	while (in->left) {
		unsigned at = (unsigned)take(in, 2), n = (unsigned)take(in, 1) & 7;
		uint64_t value = take(in, 4);

		if (n == 7) { /* cut it off */
			f->len = MIN(f->len, at + !at);
			f->data = realloc(f->data, f->len);
			continue;
		}
		if (n == 5) /* large values of 64 bits */
			value = ~value;
		for (unsigned i = 0; i < (n > 4 ? 8 : n) && at + i < f->len; i++)
			f->data[at + i] = (uint8_t)(value >> (8 * i));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct e820 map[] = { { 0, 0x9fc00, 1 }, { 1 << 20, RAM_SIZE - (1 << 20), 1 } };
	struct input in = { data, size };
	struct kernel *k = xcalloc(1, sizeof(*k));
	struct x86_state s = { 0 };
	struct err e = { 0 };
	unsigned kind, modules;

	if (!m.loop)
		build();
	kind = (unsigned)take(&in, 1) % 5;
	modules = (unsigned)take(&in, 1);
	k->append = xstrdup("console=ttyS0");
	k->module_count = (int)(modules & 3);
	for (int i = 0; i < k->module_count; i++) {
		k->modules[i].len = modules > 250 ? RAM_SIZE : modules;
		k->modules[i].data = xcalloc(k->modules[i].len, 1);
		k->modules[i].cmdline = xstrdup("/module");
	}
	make_image(&k->image, kind, &in);
	if (!kernel_identify(k, &e)) {
		struct kernel_env env = { &m.mem, map, 2, RAM_SIZE, 0xf0000 };
		int r = kernel_load(k, &env, &s, &e);

		if (r && !e.text[0])
			abort();
	} else if (!e.text[0]) {
		abort();
	}
	kernel_free(k);
	return 0;
}
