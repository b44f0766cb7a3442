/* SPDX-License-Identifier: Apache-2.0 */
/* Small letters and letters without accents, by Unicode 14 and whatever the locale. Pure. */
#ifndef FATHOM_MODEL_FOLD_H
#define FATHOM_MODEL_FOLD_H

#include <stddef.h>
#include <stdint.h>

enum { FOLD_MAX = 3 }; /* most characters that one becomes */

/* The small form of a character; returns how many characters it is. */
size_t fold_small(uint32_t code, uint32_t out[FOLD_MAX]);

/*
 * What is left of a character's canonical decomposition (NFD) without nonspacing marks. A mark by
 * itself is left as it is: the caller drops those. Characters beyond U+FFFF are left too.
 */
size_t fold_plain(uint32_t code, uint32_t out[FOLD_MAX]);

#endif
