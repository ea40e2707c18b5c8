/* SPDX-License-Identifier: Apache-2.0 */
#include "block/crypt.h"

#include <errno.h>

#include "block/file.h"
#include "block/format.h"

int
crypt_open(struct image *b, struct err *e)
{
	return 0;
}

void
crypt_close(struct crypt *c)
{
}

bool
crypt_locked(const struct crypt *c)
{
	return false;
}

void
crypt_share(struct crypt *c, const struct crypt *from)
{
}

int
image_data_read(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at,
	uint64_t off)
{
	return file_readv(fd, iov, iovcnt, skip, len, at);
}

int
image_data_write(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at,
	uint64_t off)
{
	return file_writev(fd, iov, iovcnt, skip, len, at);
}

int
image_data_zero(struct image *b, int fd, uint64_t len, uint64_t at, uint64_t off)
{
	return file_zero(fd, at, len);
}
