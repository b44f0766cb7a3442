/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for rival_onednn.c in a build without oneDNN. */
#include "bench/measure/rival.h"

struct rival *rival_onednn(int threads) {
	(void)threads;
	return NULL;
}
