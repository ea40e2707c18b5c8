/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/logins.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"

#define LOGINS_MAX 16
#define LOGIN_S 600
#define ROUNDS 1000
#define HASH 32

struct login {
	uint8_t hash[HASH];
	char *line; /* NULL: free */
	time_t until;
};

struct logins {
	struct uuid salt;
	unsigned next;
	struct login login[LOGINS_MAX];
};

struct logins *
logins_create(void)
{
	struct logins *l = xcalloc(1, sizeof(*l));

	l->salt = uuid_random();
	return l;
}

static void
forget(struct login *k)
{
	if (k->line)
		explicit_bzero(k->line, strlen(k->line));
	free(k->line);
	explicit_bzero(k, sizeof(*k));
}

void
logins_destroy(struct logins *l)
{
	for (int i = 0; l && i < LOGINS_MAX; i++)
		forget(&l->login[i]);
	free(l);
}

static time_t
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Of the password under the salt and the user's name. False: it cannot be made, and nothing is known. */
static bool
hash_of(const struct logins *l, const char *user, const char *password, uint8_t out[HASH])
{
	struct str salt = { 0 };
	bool fine;

	str_addn(&salt, (const char *)l->salt.b, sizeof(l->salt.b));
	str_add(&salt, user);
	fine = PKCS5_PBKDF2_HMAC(password, (int)strlen(password), (const uint8_t *)salt.s, (int)salt.len, ROUNDS,
		       EVP_sha256(), HASH, out) == 1;
	str_free(&salt);
	return fine;
}

static struct login *
find(struct logins *l, const uint8_t hash[HASH])
{
	for (struct login *k = l->login; k < l->login + LOGINS_MAX; k++)
		if (k->line && !CRYPTO_memcmp(k->hash, hash, HASH))
			return k;
	return NULL;
}

const char *
logins_find(struct logins *l, const char *user, const char *password)
{
	uint8_t hash[HASH];
	struct login *k;

	if (!hash_of(l, user, password, hash))
		return NULL;
	k = find(l, hash);
	if (k && k->until <= seconds())
		forget(k);
	return k ? k->line : NULL;
}

void
logins_add(struct logins *l, const char *user, const char *password, const char *line)
{
	uint8_t hash[HASH];
	struct login *k;

	if (strlen(line) > VM_LOGIN_LINE_MAX || strchr(line, '\n') || !hash_of(l, user, password, hash))
		return;
	k = find(l, hash);
	if (!k)
		k = &l->login[l->next++ % LOGINS_MAX];
	forget(k);
	memcpy(k->hash, hash, HASH);
	k->line = xstrdup(line);
	k->until = seconds() + LOGIN_S;
}
