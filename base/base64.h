/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as text: RFC 4648, section 4. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stddef.h>

/* `n` bytes as a string, padded; free() it. */
char *base64_text(const void *bytes, size_t n);
/* Decode in place up to the first character that is no digit (padding, the end). How many bytes. */
size_t base64_bytes(char *text);

#endif
