/* SPDX-License-Identifier: Apache-2.0 */
/* fairseq's dictionaries. */
#include <stdio.h>

#include "model/tokenizer_parts.h"

struct tokenizer *tokenizer_open_fairseq(const char *dir, bool target, char *err, size_t errlen) {
	(void)dir, (void)target;
	snprintf(err, errlen, TOKENIZER_FAIRSEQ_FILE ": such folders are not supported");
	return NULL;
}
