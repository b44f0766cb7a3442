/* SPDX-License-Identifier: Apache-2.0 */
/* What to load a model with, out of the words that flags and the configuration have for it. */
#ifndef FATHOM_SERVER_LOAD_WITH_H
#define FATHOM_SERVER_LOAD_WITH_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "model/model.h"

struct load_with {
	const char *kernels, *cpu_level, *weights, *packed_cache;
	bool verify;
	int threads; /* 0: all that the process may use */
};

struct load_with load_with_of(const struct config *config);

/* Everything but `progress`. False with one sentence. From one thread. */
bool load_with_read(const struct load_with *with, struct model_options *ret_options, char *err,
                size_t errlen);

/* The threads that it stands for. */
int load_with_threads(const struct load_with *with);

/* Whether a packed file may be written too. */
bool load_with_keeps(const struct config *config);

#endif
