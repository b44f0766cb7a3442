/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8: reading, writing, checking and mending. Well-formed means Unicode's table 3-7: no overlong
 * forms, no surrogates, nothing above U+10FFFF. Pure functions over bytes.
 */
#ifndef FATHOM_MODEL_UNICODE_H
#define FATHOM_MODEL_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Reads the character at text[0..len) and returns its length in bytes, 1 to 4; 0 if len is 0 or the
 * bytes there are ill-formed or cut off. ret_code may be NULL.
 */
size_t unicode_decode(const char *text, size_t len, uint32_t *ret_code);

/* Writes `code` (a scalar value) to `out` and returns its length; 0 if it is not one. */
size_t unicode_encode(uint32_t code, char out[4]);

/* Length of the longest well-formed beginning of text[0..len) that ends between characters. */
size_t unicode_valid_prefix(const char *text, size_t len);

/*
 * For streams: how many of the first bytes can be passed on now. The rest, at most 3 bytes, begins
 * a character whose further bytes may still come. Ill-formed bytes count as complete: waiting does
 * not mend them (unicode_mend does).
 */
size_t unicode_complete(const char *text, size_t len);

/*
 * Copies text[0..len) to `out` with every ill-formed part replaced by U+FFFD, one for each maximal
 * beginning of a character or else for each byte, as the WHATWG decoder does. `out` must hold 3 *
 * len bytes. Returns the bytes written; they are well-formed.
 */
size_t unicode_mend(const char *text, size_t len, char *out);

#endif
