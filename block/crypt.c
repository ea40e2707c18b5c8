/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypted images: VirtualBox's scheme, AES in XTS mode (IEEE 1619) by sectors of 512 bytes, the tweak being the
 * number of the sector on the disk, 64 bits, little-endian ("plain64").
 *
 * Only data is encrypted, not the tables of a format; a place of the file that was never written is not data, and
 * drivers fill a new place completely (image_needs_fill()). The data's key (DEK) is random; the image carries it
 * wrapped by a password, as the text CRYPT/KeyStore, with the name of the password as CRYPT/KeyId. VirtualBox keeps the
 * same two as properties of the medium in the settings file. The key store, in base64:
 *
 *   offset  size  all numbers little-endian
 *        0     4  "SCNE"
 *        4     2  version 0x0100
 *        6    32  cipher: "AES-XTS256-PLAIN64", "AES-XTS128-PLAIN64"
 *       38    32  key derivation: "PBKDF2-SHA256"
 *       70     4  bytes of the DEK: 64, 32
 *       74    32  digest: PBKDF2 of the DEK with the second salt
 *      106     4  bytes of the digest, 32
 *      110    32  second salt
 *      142     4  rounds for the digest
 *      146    32  first salt
 *      178     4  rounds for the password
 *      182     4  bytes of the wrapped DEK
 *      186    64  the DEK, encrypted with the same cipher, tweak 0, by PBKDF2 of the password with the first salt
 */
#include "block/crypt.h"
#include "base/bytes.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "block/file.h"
#include "block/format.h"

#define STORE_SIZE 250
#define SECTOR 512u
#define PIECE (256u << 10)
#define ROUNDS 200000
#define ROUNDS_MAX 20000000u

enum store_field {
	AT_VERSION = 4,
	AT_CIPHER = 6,
	AT_KDF = 38,
	AT_KEY_LEN = 70,
	AT_DIGEST = 74,
	AT_DIGEST_LEN = 106,
	AT_SALT2 = 110,
	AT_ROUNDS2 = 142,
	AT_SALT1 = 146,
	AT_ROUNDS1 = 178,
	AT_WRAPPED_LEN = 182,
	AT_WRAPPED = 186,
};

struct crypt {
	uint8_t store[STORE_SIZE];
	uint8_t key[64];
	unsigned key_len;
	bool open;
};

static const EVP_CIPHER *
cipher_of(unsigned key_len)
{
	return key_len == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts();
}

/* ---- key stores ---- */

static int
decode_store(const char *text, uint8_t store[STORE_SIZE])
{
	uint8_t raw[512];
	char packed[600];
	size_t n = 0;
	int len;

	for (const char *p = text; *p; p++)
		if (!strchr(" \t\r\n", *p)) {
			if (n == sizeof(packed) - 1)
				return -1;
			packed[n++] = *p;
		}
	packed[n] = 0;
	if (n % 4 || n / 4 * 3 > sizeof(raw))
		return -1;
	len = EVP_DecodeBlock(raw, (const uint8_t *)packed, (int)n);
	if (len < STORE_SIZE)
		return -1;
	memcpy(store, raw, STORE_SIZE);
	return 0;
}

static char *
encode_store(const uint8_t store[STORE_SIZE])
{
	char *text = xcalloc(1, STORE_SIZE * 2);

	EVP_EncodeBlock((uint8_t *)text, store, STORE_SIZE);
	return text;
}

static bool
store_word(const uint8_t *at, const char *word)
{
	return !strncmp((const char *)at, word, 32);
}

/* Everything in it that is used: NULL, or what is wrong. */
static const char *
check_store(const uint8_t s[STORE_SIZE])
{
	unsigned key_len = le32(s + AT_KEY_LEN);

	if (memcmp(s, "SCNE", 4) || le16(s + AT_VERSION) != 0x0100)
		return "its signature is unknown";
	if (!store_word(s + AT_KDF, "PBKDF2-SHA256"))
		return "its key derivation is not PBKDF2-SHA256";
	if (!(store_word(s + AT_CIPHER, "AES-XTS256-PLAIN64") && key_len == 64) &&
		!(store_word(s + AT_CIPHER, "AES-XTS128-PLAIN64") && key_len == 32))
		return "its cipher is neither AES-XTS256-PLAIN64 nor AES-XTS128-PLAIN64";
	if (le32(s + AT_WRAPPED_LEN) != key_len || le32(s + AT_DIGEST_LEN) > 32 || !le32(s + AT_DIGEST_LEN))
		return "its key has an impossible length";
	if (!le32(s + AT_ROUNDS1) || le32(s + AT_ROUNDS1) > ROUNDS_MAX || !le32(s + AT_ROUNDS2) ||
		le32(s + AT_ROUNDS2) > ROUNDS_MAX)
		return "its number of rounds is impossible";
	return NULL;
}

static int
xts_once(const uint8_t *key, unsigned key_len, const uint8_t *in, uint8_t *out, unsigned len, bool encrypt)
{
	static const uint8_t tweak[16];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n, r = -EIO;

	if (c && EVP_CipherInit_ex(c, cipher_of(key_len), NULL, key, tweak, encrypt) &&
		EVP_CipherUpdate(c, out, &n, in, (int)len))
		r = 0;
	EVP_CIPHER_CTX_free(c);
	return r;
}

static int
derive(const void *secret, size_t len, const uint8_t salt[32], unsigned rounds, uint8_t *out, unsigned out_len)
{
	return PKCS5_PBKDF2_HMAC(secret, (int)len, salt, 32, (int)rounds, EVP_sha256(), (int)out_len, out) ? 0 : -EIO;
}

/* The DEK, when `password` is the right one: 0; 1: it is not. */
static int
unwrap(const uint8_t s[STORE_SIZE], const char *password, uint8_t key[64])
{
	unsigned len = le32(s + AT_KEY_LEN), digest_len = le32(s + AT_DIGEST_LEN);
	uint8_t wrap[64], digest[32];
	int r = derive(password, strlen(password), s + AT_SALT1, le32(s + AT_ROUNDS1), wrap, len);

	if (!r)
		r = xts_once(wrap, len, s + AT_WRAPPED, key, len, false);
	if (!r)
		r = derive(key, len, s + AT_SALT2, le32(s + AT_ROUNDS2), digest, digest_len);
	OPENSSL_cleanse(wrap, sizeof(wrap));
	if (r || memcmp(digest, s + AT_DIGEST, digest_len)) {
		OPENSSL_cleanse(key, 64);
		return 1;
	}
	return 0;
}

static int
wrap(uint8_t s[STORE_SIZE], const char *password, const uint8_t key[64])
{
	unsigned len = le32(s + AT_KEY_LEN);
	uint8_t by[64];
	int r;

	if (RAND_bytes(s + AT_SALT1, 32) != 1 || RAND_bytes(s + AT_SALT2, 32) != 1)
		return -EIO;
	put_le32(s + AT_DIGEST_LEN, 32);
	put_le32(s + AT_ROUNDS1, ROUNDS);
	put_le32(s + AT_ROUNDS2, ROUNDS / 10);
	put_le32(s + AT_WRAPPED_LEN, len);
	memset(s + AT_WRAPPED, 0, 64);
	r = derive(password, strlen(password), s + AT_SALT1, ROUNDS, by, len);
	if (!r)
		r = xts_once(by, len, key, s + AT_WRAPPED, len, true);
	if (!r)
		r = derive(key, len, s + AT_SALT2, ROUNDS / 10, s + AT_DIGEST, 32);
	OPENSSL_cleanse(by, sizeof(by));
	return r;
}

char *
block_keystore_new(const char *cipher, const char *password, struct err *e)
{
	uint8_t s[STORE_SIZE] = "SCNE", key[64];
	char *text = NULL;

	put_le16(s + AT_VERSION, 0x0100);
	strncpy((char *)s + AT_CIPHER, cipher, 31);
	strcpy((char *)s + AT_KDF, "PBKDF2-SHA256");
	put_le32(s + AT_KEY_LEN, !strcmp(cipher, "AES-XTS128-PLAIN64") ? 32 : 64);
	if (strcmp(cipher, "AES-XTS128-PLAIN64") && strcmp(cipher, "AES-XTS256-PLAIN64"))
		err_set(e, ERR_UNSUPPORTED, "The cipher '%s' is not AES-XTS256-PLAIN64 or AES-XTS128-PLAIN64", cipher);
	else if (!*password)
		err_set(e, ERR_INVALID, "An empty password encrypts nothing");
	else if (RAND_bytes(key, sizeof(key)) != 1 || wrap(s, password, key))
		err_set(e, ERR_FAILED, "No key can be made: the host's random numbers or its OpenSSL do not work");
	else
		text = encode_store(s);
	OPENSSL_cleanse(key, sizeof(key));
	return text;
}

char *
block_keystore_change(const char *keystore, const char *password, const char *fresh, struct err *e)
{
	uint8_t s[STORE_SIZE], key[64];
	char *text = NULL;

	if (decode_store(keystore, s) || check_store(s))
		err_set(e, ERR_FILE, "The key store of the medium is damaged");
	else if (unwrap(s, password, key))
		err_set(e, ERR_PASSWORD, "The password given is incorrect");
	else if (!*fresh || wrap(s, fresh, key))
		err_set(e, ERR_INVALID, "The new password cannot be used");
	else
		text = encode_store(s);
	OPENSSL_cleanse(key, sizeof(key));
	return text;
}

void
block_keystore_cipher(const char *keystore, char cipher[32])
{
	uint8_t s[STORE_SIZE];

	*cipher = 0;
	if (!decode_store(keystore, s) && !check_store(s))
		memcpy(cipher, s + AT_CIPHER, 19);
}

/* ---- images ---- */

int
crypt_open(struct image *b, struct err *e)
{
	char *text = b->format->get_text ? b->format->get_text(b, "CRYPT/KeyStore") : NULL;
	const char *wrong;
	struct crypt *c;

	if (!text)
		return 0;
	c = xcalloc(1, sizeof(*c));
	wrong = decode_store(text, c->store) ? "it is not base64, or too short" : check_store(c->store);
	free(text);
	if (wrong) {
		free(c);
		return err_set(e, ERR_FILE, "The key store of '%s' is not good: %s", b->path, wrong);
	}
	c->key_len = le32(c->store + AT_KEY_LEN);
	b->crypt = c;
	return 0;
}

void
crypt_close(struct crypt *c)
{
	if (!c)
		return;
	OPENSSL_cleanse(c, sizeof(*c));
	free(c);
}

bool
crypt_locked(const struct crypt *c)
{
	return c && !c->open;
}

void
crypt_share(struct crypt *c, const struct crypt *from)
{
	if (!c || !from || !from->open || memcmp(c->store, from->store, STORE_SIZE))
		return;
	memcpy(c->key, from->key, sizeof(c->key));
	c->open = true;
}

int
block_unlock(struct block *b, const char *password, struct err *e)
{
	struct image *before = NULL;

	for (struct image *i = b->top; i; before = i, i = i->backing) {
		if (before)
			crypt_share(i->crypt, before->crypt);
		if (!crypt_locked(i->crypt))
			continue;
		if (unwrap(i->crypt->store, password, i->crypt->key))
			return err_set(e, ERR_PASSWORD, "The password given for '%s' is incorrect", i->path);
		i->crypt->open = true;
	}
	return 0;
}

static int
work(struct crypt *c, const uint8_t *in, uint8_t *out, uint64_t len, uint64_t off, bool encrypt)
{
	EVP_CIPHER_CTX *x;
	int n, r = 0;

	if (!c->open)
		return -ENOKEY;
	if ((len | off) % SECTOR)
		return -EINVAL;
	x = EVP_CIPHER_CTX_new();
	if (!x || !EVP_CipherInit_ex(x, cipher_of(c->key_len), NULL, c->key, NULL, encrypt))
		r = -ENOMEM;
	for (uint64_t at = 0; at < len && !r; at += SECTOR) {
		uint8_t tweak[16] = { 0 };

		put_le64(tweak, (off + at) / SECTOR);
		if (!EVP_CipherInit_ex(x, NULL, NULL, NULL, tweak, encrypt) ||
			!EVP_CipherUpdate(x, out + at, &n, in + at, SECTOR))
			r = -EIO;
	}
	EVP_CIPHER_CTX_free(x);
	return r;
}

int
crypt_decrypt(struct crypt *c, const uint8_t *in, uint8_t *out, uint64_t len, uint64_t off)
{
	return work(c, in, out, len, off, false);
}

int
crypt_encrypt(struct crypt *c, const uint8_t *in, uint8_t *out, uint64_t len, uint64_t off)
{
	return work(c, in, out, len, off, true);
}

int
image_data_read(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at,
	uint64_t off)
{
	uint8_t *buf;
	int r = 0;

	if (!b->crypt)
		return direct_readv(b, fd, iov, iovcnt, skip, len, at);
	buf = malloc(MIN(len, PIECE));
	if (!buf)
		return -ENOMEM;
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		n = MIN(PIECE, len - done);
		r = direct_readv(b, fd, &(struct iovec){ buf, n }, 1, 0, n, at + done);
		if (!r)
			r = crypt_decrypt(b->crypt, buf, buf, n, off + done);
		if (!r)
			iov_fill(iov, iovcnt, skip + done, buf, n);
	}
	free(buf);
	return r;
}

int
image_data_write(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at,
	uint64_t off)
{
	uint8_t *buf;
	int r = 0;

	if (!b->crypt)
		return direct_writev(b, fd, iov, iovcnt, skip, len, at);
	buf = malloc(MIN(len, PIECE));
	if (!buf)
		return -ENOMEM;
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		n = MIN(PIECE, len - done);
		iov_copy(iov, iovcnt, skip + done, buf, n);
		r = crypt_encrypt(b->crypt, buf, buf, n, off + done);
		if (!r)
			r = direct_writev(b, fd, &(struct iovec){ buf, n }, 1, 0, n, at + done);
	}
	free(buf);
	return r;
}

int
image_data_zero(struct image *b, int fd, uint64_t len, uint64_t at, uint64_t off)
{
	static const uint8_t zeroes[65536];
	int r = 0;

	if (!b->crypt)
		return file_zero(fd, at, len);
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		struct iovec iov = { (void *)zeroes, 0 };

		n = iov.iov_len = MIN(sizeof(zeroes), len - done);
		r = image_data_write(b, fd, &iov, 1, 0, n, at + done, off + done);
	}
	return r;
}
