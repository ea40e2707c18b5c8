/* SPDX-License-Identifier: Apache-2.0 */
/* The other processes of the product as this one meets them: where their programs are, and how to reach one that runs.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/inv.h"

char *
peer_program(const char *name)
{
	static const char *const places[] = { "", "../libexec/lodge/" };
	char self[4096], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, 0)] = 0;
	slash = strrchr(self, '/');
	for (size_t i = 0; slash && i < ARRAY_LEN(places); i++) {
		path = xasprintf("%.*s/%s%s", (int)(slash - self), self, places[i], name);
		if (!access(path, X_OK))
			return path;
		free(path);
	}
	return xasprintf(LODGE_PREFIX "/libexec/lodge/%s", name);
}

/* sun_path has 108 bytes and a home can be longer: connect through the directory's descriptor, which has a short name.
 */
int
peer_connect(const char *dir, const char *file, int seconds)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval most = { .tv_sec = seconds };
	int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", at, file);
	if (fd >= 0 && (at < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)))) {
		close(fd);
		fd = -1;
	}
	if (at >= 0)
		close(at);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
	return fd;
}
