/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's requests to the guest device: plain ones, and calls to shared folders and guest properties
 * with page lists, some as a driver makes them and some bent. tools/run-fuzz builds and runs it.
 *
 * The shared folder is a new directory under /tmp, emptied after each input.
 */
#include <dirent.h>
#include <fcntl.h>

#include "base/bytes.h"
#include "share/share.h"
#include "test/fuzz/disks.h"

#define PORT 0xc000u
#define DEVFN (4 << 3)
#define REQUEST 0x1000u
#define PAGES 0x8000u /* buffers, a page each */

static struct vmmdev *dev;
static struct share *share;
static struct props *props;
static char top[] = "/tmp/fuzz-vmmdev-XXXXXX";

static void
start(void)
{
	struct share_folder f = { .name = "src", .symlinks = true };
	struct share_options o = { 0 };
	struct vmmdev_wires w;

	make_machine();
	props = props_open();
	o.props = props;
	o.max_handles = 16;
	o.confine = true; /* whatever it finds, it finds it in there */
	share = share_open(&o, NULL);
	if (!mkdtemp(top))
		abort();
	f.fd = open(top, O_PATH | O_DIRECTORY);
	if (share_folder_add(share, &f, NULL))
		abort();
	w = (struct vmmdev_wires){ share, props, RAM_SIZE, 1 << 20 };
	dev = vmmdev_create(&m, 4, &w, NULL);
}

static void
power_on(void)
{
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x10, PORT, 4);
	pci_config_write(&m.pci, DEVFN, 0x14, 0xfebf0000, 4);
	pci_config_write(&m.pci, DEVFN, 4, 7, 2);
	memset(ram->host, 0, 65536);
}

static void
head(uint8_t *r, uint32_t size, uint32_t type)
{
	put_le32(r, size);
	put_le32(r + 4, 0x10001);
	put_le32(r + 8, type);
}

static void
send(uint32_t at)
{
	io_write(&m.io, PORT, at, 4);
}

static void
plain(struct input *in)
{
	uint8_t *r = ram->host + REQUEST;
	uint32_t n = take(in, 1);

	head(r, take(in, 2), take(in, 1));
	for (uint32_t i = 0; i < n; i++)
		r[24 + i] = (uint8_t)take(in, 1);
	send(REQUEST);
}

static void
connect_to(const char *service)
{
	uint8_t *r = ram->host + REQUEST;

	memset(r, 0, 168);
	head(r, 168, 60);
	put_le32(r + 32, 2);
	strcpy((char *)r + 36, service);
	send(REQUEST);
}

/* Parameters by a string of kinds: 4, 8, s a string, p a buffer, o a buffer of 4096 bytes to be filled. */
static void
call(struct input *in, uint32_t client, uint32_t function, const char *kinds)
{
	uint8_t *r = ram->host + REQUEST, *p = r + 44;
	uint32_t n = (uint32_t)strlen(kinds), list = 44 + 16 * n;

	memset(r, 0, 2048);
	for (uint32_t i = 0; i < n; i++, p += 16) {
		uint32_t len = kinds[i] == 'o' ? 4096 : take(in, 1);
		uint8_t *data = ram->host + PAGES + 4096 * i;

		put_le32(p, kinds[i] == '4' ? 1 : kinds[i] == '8' ? 2 : 10);
		if (kinds[i] == '4' || kinds[i] == '8') {
			put_le64(p + 4, kinds[i] == '4' ? take(in, 1) : (uint64_t)take(in, 1) << 32 | take(in, 1));
			continue;
		}
		if (kinds[i] == 's') {
			put_le16(data, (uint16_t)(len + 1));
			put_le16(data + 2, (uint16_t)len);
			data += 4;
		}
		for (uint32_t k = 0; k < len && kinds[i] != 'o'; k++)
			data[k] = (uint8_t)take(in, 1);
		put_le32(p + 4, len + (kinds[i] == 's' ? 5 : 0));
		put_le32(p + 8, list);
		put_le32(r + list, 3);
		put_le16(r + list + 6, 1);
		put_le64(r + list + 8, PAGES + 4096 * i);
		list += 16;
	}
	head(r, list, 63);
	put_le32(r + 32, client);
	put_le32(r + 36, function);
	put_le32(r + 40, n);
	if (take(in, 1) == 0xff)
		poke_memory(in);
	send(REQUEST);
}

static void
step(struct input *in)
{
	static const char *const folders[] = { "", "44o", "4o", "4sp", "48", "4884o", "4884p", "48884", "4844so44",
		"4844o", "", "4s4", "", "4", "4ss4", "48", "", "s444", "4so", "4sso", "", "4oo84" };
	static const char *const properties[] = { "", "po84", "ppp", "pp", "p", "po4", "p8o4" };
	uint32_t what = take(in, 1), f;

	switch (what & 7) {
	case 0:
		plain(in);
		break;
	case 1:
		connect_to(what & 8 ? "VBoxSharedFolders" : "VBoxGuestPropSvc");
		break;
	case 2:
		f = 1 + what / 8 % 6;
		call(in, take(in, 1), f, properties[f]);
		break;
	case 3:
		poke_memory(in);
		send(take(in, 2));
		break;
	default:
		f = 1 + take(in, 1) % 21;
		call(in, 1, f, folders[f]);
	}
}

static void
empty(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s/* %s/.[!.]*", top, top);
	if (system(command))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	static unsigned runs;

	if (!dev)
		start();
	power_on();
	connect_to("VBoxSharedFolders");
	call(&in, 1, 16, "");
	call(&in, 1, 20, "");
	while (in.left)
		step(&in);
	device_drain_all(&m);
	if (++runs % 256 == 0)
		empty();
	return 0;
}
