/* SPDX-License-Identifier: Apache-2.0 */
/* A model, a team and a workspace, without a server. */
#include "cli/session.h"

#include <stdio.h>
#include <string.h>

#include "server/load_with.h"

const struct session_options session_defaults = { .kernels = "auto",
	.cpu_level = "auto",
	.weights = "auto",
	.kv = "auto",
	.packed_cache = "auto" };

bool session_open(struct session *s, const struct session_options *options, char *err,
                size_t errlen) {
	struct load_with with = { .kernels = options->kernels,
		.cpu_level = options->cpu_level,
		.weights = options->weights,
		.packed_cache = options->packed_cache,
		.threads = options->threads };
	struct model_options model;
	memset(s, 0, sizeof *s);
	if (!kv_format_parse(options->kv, &s->kv)) {
		snprintf(err, errlen, "the format \"%s\" of keys and values is not known",
		                options->kv);
		return false;
	}
	if (!load_with_read(&with, &model, err, errlen))
		return false;
	s->model = model_open(options->model, &model, err, errlen);
	if (s->model)
		s->team = team_create(model.threads, err, errlen);
	if (s->team)
		s->sampler = sampler_create(model.ops, s->model->facts.vocab, err, errlen);
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
	enum kv_format kv = model_kv_format(s->model, s->kv);
	size_t block = kv_block_bytes(kv, decoder->heads, decoder->head_dim);
	size_t blocks = per_layer * (size_t)decoder->layers * (size_t)size->sequences;
	struct workspace_options options = { .team = s->team,
		.max_rows = size->rows,
		.max_logit_rows = size->logit_rows,
		.max_sequences = size->sequences,
		.kv_bytes = blocks ? blocks * block : (size_t)1 << 20,
		.kv = kv };
	s->max_rows = size->rows;
	s->max_logit_rows = size->logit_rows;
	s->max_sequences = size->sequences;
	s->w = workspace_create(s->model, &options, err, errlen);
	return s->w;
}
