/* SPDX-License-Identifier: Apache-2.0 */
/* The data of an encrypted image: AES in XTS mode, by sectors of the disk. Private to block/. See crypt.c. */
#ifndef BLOCK_CRYPT_H
#define BLOCK_CRYPT_H

#include <stdbool.h>
#include <stdint.h>

struct crypt;

/* Is the key not known yet? NULL is not encrypted. */
bool crypt_locked(const struct crypt *c);
/* The same key as `from`'s. Either may be NULL. */
void crypt_share(struct crypt *c, const struct crypt *from);
/* In place or from one buffer to another; `off` and `len` are multiples of 512, of the disk. 0 or -errno. Any thread.
 */
int crypt_decrypt(struct crypt *c, const uint8_t *in, uint8_t *out, uint64_t len, uint64_t off);
int crypt_encrypt(struct crypt *c, const uint8_t *in, uint8_t *out, uint64_t len, uint64_t off);

#endif
