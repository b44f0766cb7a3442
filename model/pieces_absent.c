/* SPDX-License-Identifier: Apache-2.0 */
/* What stands for pieces.cc in a build without libsentencepiece. */
#include <stdio.h>

#include "model/pieces.h"

struct pieces *pieces_load(const char *model, size_t len, char *err, size_t errlen) {
	snprintf(err, errlen,
	                "this folder needs sentencepiece, which this build of fathom does not have "
	                "(configure it with -Dsentencepiece=enabled)");
	return NULL;
}

void pieces_close(struct pieces *p) {
}

bool pieces_encode(const struct pieces *p, const char *text, size_t len, pieces_sink *sink,
                void *arg) {
	return false;
}
