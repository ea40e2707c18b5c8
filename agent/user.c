/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may log in, out of /etc/passwd, /etc/shadow and /etc/group (passwd(5), shadow(5), group(5)). Read by hand: libc's
 * functions load modules, which a static program cannot.
 *
 * The hashes of today are slow on purpose (yescrypt: some hundredth of a second of a real CPU, several times that of a
 * translated one), and each guestcontrol logs in anew. So who has given the right password once is known for a while by
 * a cheaper hash of it under a random salt of this process, as long as /etc/shadow has the same line. Both hashes are
 * in the memory of root's own process, where the password itself has passed.
 */
#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/agent.h"

#define FIELDS 9
#define LOGINS_MAX 8
#define LOGIN_S 600

struct logins {
	char salt[64]; /* of the cheaper hash; "": there is none yet */
	unsigned next;
	struct login {
		char *shadow, *quick; /* NULL: free */
		time_t until;
	} login[LOGINS_MAX];
};

struct logins *
logins_create(void)
{
	return xcalloc(1, sizeof(struct logins));
}

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
same(const char *a, const char *b)
{
	size_t n = strlen(a);
	int differ = 0;

	if (n != strlen(b))
		return false;
	for (size_t i = 0; i < n; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

/* The password's hash as `setting` says; free() it. NULL: that is no setting. */
static char *
hash_of(const char *password, const char *setting)
{
	struct crypt_data *data = xcalloc(1, sizeof(*data));
	const char *made = crypt_r(password, setting, data);
	char *out = made && made[0] != '*' ? xstrdup(made) : NULL;

	explicit_bzero(data, sizeof(*data));
	free(data);
	return out;
}

static char *
quick_hash(struct logins *l, const char *password)
{
	struct uuid u;
	char text[37];

	if (!l->salt[0]) {
		u = uuid_random();
		uuid_text(&u, text);
		snprintf(l->salt, sizeof(l->salt), "$5$rounds=1000$%.8s%.4s%.4s$", text, text + 9, text + 24);
	}
	return hash_of(password, l->salt);
}

static bool
known(struct logins *l, const char *shadow, const char *quick)
{
	for (struct login *k = l->login; k < l->login + LOGINS_MAX; k++)
		if (k->shadow && k->until > time(NULL) && same(k->shadow, shadow) && same(k->quick, quick))
			return true;
	return false;
}

static void
remember(struct logins *l, const char *shadow, const char *quick)
{
	struct login *k = &l->login[l->next++ % LOGINS_MAX];

	free(k->shadow);
	free(k->quick);
	*k = (struct login){ xstrdup(shadow), xstrdup(quick), time(NULL) + LOGIN_S };
}

/* `hash`: of /etc/shadow. */
static bool
password_right(struct logins *l, const char *hash, const char *password)
{
	char *quick, *made = NULL;
	bool right;

	if (!*hash)
		return !*password;
	if (*hash == '!' || *hash == '*')
		return false;
	quick = quick_hash(l, password);
	right = quick && known(l, hash, quick);
	if (!right) {
		made = hash_of(password, hash);
		right = made && same(made, hash);
		if (right && quick)
			remember(l, hash, quick);
	}
	free(made);
	free(quick);
	return right;
}

/* Days since 1970 after which the account is closed. */
static bool
expired(const char *day)
{
	return *day && time(NULL) / 86400 >= strtol(day, NULL, 10);
}

bool
account_login(struct logins *l, const char *name, const char *password, struct account *out)
{
	char *user[FIELDS], *shadow[FIELDS], *line = find_line("/etc/passwd", name, user), *secret;
	bool right = false;

	if (!line || !*name)
		return false;
	secret = find_line("/etc/shadow", name, shadow);
	if (secret)
		right = password_right(l, shadow[1], password) && !expired(shadow[7]);
	else if (strcmp(user[1], "x"))
		right = password_right(l, user[1], password);
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
