/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet trace (VBoxManage --nictrace): a libpcap file, format 2.4.
 *
 *	file header, 24 bytes			record header, 16 bytes, then the frame
 *	 0 u32 0xa1b2c3d4 (microseconds)	 0 u32 seconds since 1970
 *	 4 u16 2, 6 u16 4 (version)		 4 u32 microseconds
 *	 8 u32 0 (time zone), 12 u32 0		 8 u32 bytes kept
 *	16 u32 longest frame			12 u32 bytes on the wire
 *	20 u32 1 (Ethernet)
 * All in the byte order of the writer. (IETF draft-ietf-opsawg-pcap)
 *
 * One writev() a frame, so that a trace is complete up to the moment a process dies. When the file cannot grow any
 * more it is cut back to its last whole record, one line says so, and tracing ends.
 */
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

struct pcap {
	int fd; /* -1: writing failed, tracing is over */
	off_t size;
	char *path;
};

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, longest, network;
};

struct record_header {
	uint32_t sec, usec, kept, length;
};

struct pcap *
pcap_open(const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0) {
		err_sys(e, ERR_FILE, errno, "Cannot create the packet trace '%s'", path);
		return NULL;
	}
	return pcap_open_fd(fd, path, e);
}

struct pcap *
pcap_open_fd(int fd, const char *path, struct err *e)
{
	struct file_header h = { 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1 };
	struct pcap *p;
	ssize_t n;

	n = write_full(fd, &h, sizeof(h));
	if (n != (ssize_t)sizeof(h)) {
		err_sys(e, ERR_FILE, n < 0 ? (int)-n : ENOSPC, "Cannot write the packet trace '%s'", path);
		close(fd);
		return NULL;
	}
	p = xcalloc(1, sizeof(*p));
	*p = (struct pcap){ .fd = fd, .size = sizeof(h), .path = xstrdup(path) };
	return p;
}

static void
stop(struct pcap *p, int error)
{
	int cut = ftruncate(p->fd, p->size);

	(void)cut; /* a pipe has no size; then the reader sees a short last record */
	log_warn("nictrace", "Packet trace '%s' ends after %lld bytes: %s", p->path, (long long)p->size,
		strerror(error));
	close(p->fd);
	p->fd = -1;
}

void
pcap_frame(struct pcap *p, const uint8_t *frame, size_t len)
{
	struct timespec now;
	struct record_header h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)frame, len } };
	ssize_t n;

	if (!p || p->fd < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	h = (struct record_header){ (uint32_t)now.tv_sec, (uint32_t)(now.tv_nsec / 1000), (uint32_t)len,
		(uint32_t)len };
	do
		n = writev(p->fd, iov, 2);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)(sizeof(h) + len))
		p->size += n;
	else
		stop(p, n < 0 ? errno : ENOSPC);
}

void
pcap_close(struct pcap *p)
{
	if (!p)
		return;
	if (p->fd >= 0)
		close(p->fd);
	free(p->path);
	free(p);
}
