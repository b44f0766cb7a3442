/* SPDX-License-Identifier: Apache-2.0 */
/* A model opened for a command that runs it without a server: eval and search. */
#ifndef FATHOM_CLI_SESSION_H
#define FATHOM_CLI_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "model/model.h"
#include "model/sample.h"

struct session_options {
	const char *model;                                             /* folder */
	const char *kernels, *cpu_level, *weights, *kv, *packed_cache; /* as for fathom serve */
	int threads; /* 0: all that the process may use */
};

extern const struct session_options session_defaults;

struct session {
	struct model *model;
	struct team *team;
	struct sampler *sampler;
	struct workspace *w; /* NULL before session_prepare */
	enum kv_format kv;
	int max_rows, max_logit_rows, max_sequences;
};

/* Loads the folder; false with one sentence. Close it also after a failure. */
bool session_open(
                struct session *s, const struct session_options *options, char *err, size_t errlen);
void session_close(struct session *s);

/* What a task runs at once. */
struct session_size {
	int rows; /* of a step */
	int logit_rows;
	int sequences;
	int tokens, source_tokens; /* of the longest sequence */
};

/* Makes the workspace for steps of this size. */
bool session_prepare(struct session *s, const struct session_size *size, char *err, size_t errlen);

#endif
