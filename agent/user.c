/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may log in, out of /etc/passwd, /etc/shadow and /etc/group (passwd(5), shadow(5), group(5)). Read by hand: libc's
 * functions load modules, which a static program cannot.
 */
#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/agent.h"

#define FIELDS 9

/* The line of `path` whose first field is `name`, in its fields; free() it. NULL: none. */
static char *
find_line(const char *path, const char *name, char *field[FIELDS])
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *rest = line;

		line[strcspn(line, "\n")] = 0;
		for (int i = 0; i < FIELDS; i++)
			field[i] = rest ? strsep(&rest, ":") : (char *)"";
		if (!strcmp(field[0], name)) {
			fclose(f);
			return line;
		}
	}
	if (f)
		fclose(f);
	free(line);
	return NULL;
}

static bool
member(char *list, const char *name)
{
	char *word;

	while ((word = strsep(&list, ",")))
		if (!strcmp(word, name))
			return true;
	return false;
}

static void
read_groups(struct account *a)
{
	FILE *f = fopen("/etc/group", "re");
	char *line = NULL;
	size_t size = 0;

	a->groups[a->group_count++] = a->gid;
	while (f && getline(&line, &size, f) > 0 && a->group_count < (int)ARRAY_LEN(a->groups)) {
		char *rest = line, *gid;

		line[strcspn(line, "\n")] = 0;
		strsep(&rest, ":");
		strsep(&rest, ":");
		gid = strsep(&rest, ":");
		if (gid && rest && member(rest, a->name))
			a->groups[a->group_count++] = (unsigned)strtoul(gid, NULL, 10);
	}
	if (f)
		fclose(f);
	free(line);
}

static bool
password_right(const char *hash, const char *password)
{
	struct crypt_data data = { 0 };
	const char *made;
	size_t n;
	int differ = 0;

	if (!*hash)
		return !*password;
	if (*hash == '!' || *hash == '*')
		return false;
	made = crypt_r(password, hash, &data);
	n = made ? strlen(made) : 0;
	if (!made || n != strlen(hash) || made[0] == '*')
		return false;
	for (size_t i = 0; i < n; i++)
		differ |= made[i] ^ hash[i];
	explicit_bzero(&data, sizeof(data));
	return !differ;
}

/* Days since 1970 after which the account is closed. */
static bool
expired(const char *day)
{
	return *day && time(NULL) / 86400 >= strtol(day, NULL, 10);
}

bool
account_login(const char *name, const char *password, struct account *out)
{
	char *user[FIELDS], *shadow[FIELDS], *line = find_line("/etc/passwd", name, user), *secret;
	bool right = false;

	if (!line || !*name)
		return false;
	secret = find_line("/etc/shadow", name, shadow);
	if (secret)
		right = password_right(shadow[1], password) && !expired(shadow[7]);
	else if (strcmp(user[1], "x"))
		right = password_right(user[1], password);
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
	*out = (struct account){ .uid = (unsigned)strtoul(user[2], NULL, 10),
		.gid = (unsigned)strtoul(user[3], NULL, 10) };
	snprintf(out->name, sizeof(out->name), "%s", name);
	snprintf(out->home, sizeof(out->home), "%s", *user[5] ? user[5] : "/");
	snprintf(out->shell, sizeof(out->shell), "%s", *user[6] ? user[6] : "/bin/sh");
	free(line);
	if (right)
		read_groups(out);
	return right;
}
