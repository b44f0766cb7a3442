/* SPDX-License-Identifier: Apache-2.0 */
/* A model, a team and a workspace, without a server. */
#include "cli/session.h"

#include <stdio.h>
#include <string.h>

#include "model/threads.h"

const struct session_options session_defaults = { .kernels = "auto", .cpu_level = "auto" };

bool session_open(struct session *s, const struct session_options *options, char *err,
                size_t errlen) {
	enum cpu_level level;
	memset(s, 0, sizeof *s);
	if (!cpu_level_parse(options->cpu_level, &level)) {
		snprintf(err, errlen, "the level \"%s\" is not known", options->cpu_level);
		return false;
	}
	const struct ops *ops = ops_select(options->kernels, level, err, errlen);
	if (!ops)
		return false;
	int threads = options->threads > 0 ? options->threads : threads_count("");
	struct model_options model = { .ops = ops, .threads = threads };
	s->model = model_open(options->model, &model, err, errlen);
	if (s->model)
		s->team = team_create(threads, err, errlen);
	if (s->team)
		s->sampler = sampler_create(ops, s->model->facts.vocab, err, errlen);
	if (s->sampler && s->model->facts.output.n > 0)
		sampler_take_logprobs(s->sampler);
	return s->sampler;
}

void session_close(struct session *s) {
	workspace_destroy(s->w);
	sampler_destroy(s->sampler);
	team_destroy(s->team);
	model_close(s->model);
	memset(s, 0, sizeof *s);
}

static size_t blocks_of(int tokens) {
	return ((size_t)tokens + KV_TILE - 1) / KV_TILE;
}

bool session_prepare(struct session *s, const struct session_size *size, char *err, size_t errlen) {
	const struct stack_facts *decoder = &s->model->facts.stack[STACK_DECODER];
	size_t per_layer = blocks_of(size->tokens) + blocks_of(size->source_tokens);
	size_t block = 2 * (size_t)KV_TILE * (size_t)decoder->dim * sizeof(float);
	size_t blocks = per_layer * (size_t)decoder->layers * (size_t)size->sequences;
	struct workspace_options options = { .team = s->team,
		.max_rows = size->rows,
		.max_logit_rows = size->logit_rows,
		.max_sequences = size->sequences,
		.kv_bytes = blocks ? blocks * block : (size_t)1 << 20 };
	s->max_rows = size->rows;
	s->max_logit_rows = size->logit_rows;
	s->max_sequences = size->sequences;
	s->w = workspace_create(s->model, &options, err, errlen);
	return s->w;
}
