/* SPDX-License-Identifier: Apache-2.0 */
/* The running batch: its life, who joins and leaves, and a step from end to end. */
#include "server/batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/batch_parts.h"
#include "server/clock.h"
#include "server/memory.h"

enum { MOST_LOGIT_ROWS = 64 };

static int least(int a, int b) {
	return a < b ? a : b;
}

static int greatest(int a, int b) {
	return a > b ? a : b;
}

/* ---- life ---- */

/* How large a step and a batch may be. */
static void set_limits(struct batch *b, const struct config *config) {
	const struct facts *facts = &b->model->facts;
	struct cost_limits *limits = &b->limits;
	limits->max_rows = config->max_rows;
	limits->prefill_rows = config->prefill_rows;
	limits->most_step_ms = config->max_itl_ms;
	/* Each sequence may need a row of every step. */
	limits->sequences = least(config->max_running, config->max_rows);
	b->max_logit_rows = least(MOST_LOGIT_ROWS, config->max_rows);
	/* The beams of a search run together. */
	if (facts->kind == KIND_SEQ2SEQ) {
		limits->sequences = greatest(limits->sequences, MAX_BEAMS);
		b->max_logit_rows = greatest(b->max_logit_rows, MAX_BEAMS);
	}
	/* A source of any length has room beside the rows of all answers. */
	int source = facts->stack[STACK_ENCODER].layers > 0 ? facts->stack[STACK_ENCODER].context
	                                                    : 0;
	if (facts->kind != KIND_LM)
		limits->max_rows = greatest(limits->max_rows,
		                source + (facts->kind == KIND_SEQ2SEQ ? limits->sequences : 0));
}

static bool init_arrays(struct batch *b) {
	int dim = b->model->facts.stack[STACK_ENCODER].dim;
	b->pool = calloc((size_t)dim + 1, sizeof *b->pool);
	b->texts = calloc((size_t)b->limits.sequences, sizeof *b->texts);
	b->needs = calloc((size_t)b->max_logit_rows, sizeof *b->needs);
	b->rows = calloc((size_t)b->limits.max_rows, sizeof *b->rows);
	b->wants = calloc((size_t)b->limits.max_rows, sizeof *b->wants);
	b->logit_rows = calloc((size_t)b->max_logit_rows, sizeof *b->logit_rows);
	b->parties = calloc((size_t)b->limits.sequences, sizeof *b->parties);
	b->speculator = speculate_create(b->model->facts.stack[STACK_DECODER].layers);
	b->scratch = malloc(detokenise_scratch(b->model->target_tokenizer));
	return b->rows && b->wants && b->logit_rows && b->needs && b->texts && b->pool && b->scratch
	                && b->parties && b->speculator;
}

struct batch *batch_create(const struct model *model, const struct batch_options *options,
                char *err, size_t errlen) {
	struct batch *b = calloc(1, sizeof *b);
	if (!b) {
		snprintf(err, errlen, "not enough memory for a batch");
		return NULL;
	}
	b->model = model;
	b->metrics = options->metrics;
	b->running_last = &b->running;
	set_limits(b, options->config);
	batch_arrange(b, NULL, 0, b->limits.prefill_rows);
	struct workspace_options workspace = {
		.team = options->team,
		.max_rows = b->limits.max_rows,
		.max_logit_rows = b->max_logit_rows,
		.max_sequences = b->limits.sequences,
		.kv_bytes = options->kv_bytes,
		.kv = memory_kv_format(options->config, model),
		.prefix_percent = options->config->prefix_cache,
	};
	b->shared_prefixes = strcmp(options->config->prefix_cache_scope, "shared") == 0;
	b->workspace = workspace_create(model, &workspace, err, errlen);
	if (b->workspace) {
		int vocab = greatest(model->facts.vocab, 1); /* an encoder without that head */
		b->sampler = sampler_create(model->ops, vocab, err, errlen);
	}
	if (!b->sampler) {
		batch_destroy(b);
		return NULL;
	}
	if (model->facts.output.n > 0)
		sampler_take_logprobs(b->sampler);
	b->limits.source_tiles = workspace_source_tiles(b->workspace);
	if (!init_arrays(b)) {
		snprintf(err, errlen, "not enough memory for a batch of %d rows",
		                b->limits.max_rows);
		batch_destroy(b);
		return NULL;
	}
	return b;
}

void batch_destroy(struct batch *b) {
	if (!b)
		return;
	assert(!b->running);
	sampler_destroy(b->sampler);
	workspace_destroy(b->workspace);
	speculate_destroy(b->speculator);
	free(b->parties);
	free(b->rows);
	free(b->wants);
	free(b->texts);
	free(b->logit_rows);
	free(b->needs);
	free(b->pool);
	free(b->scratch);
	free(b);
}

struct workspace *batch_workspace(struct batch *b) {
	return b->workspace;
}

struct sampler *batch_sampler(struct batch *b) {
	return b->sampler;
}

const struct cost_limits *batch_limits(const struct batch *b) {
	return &b->limits;
}

int batch_max_logit_rows(const struct batch *b) {
	return b->max_logit_rows;
}

struct ticket *batch_running(const struct batch *b) {
	return b->running;
}

int batch_jobs(const struct batch *b) {
	return b->jobs;
}

int batch_sequences(const struct batch *b) {
	return b->sequences + b->reserved_sequences;
}

/* ---- joining and leaving ---- */

void batch_join(struct batch *b, struct ticket *t, int64_t now_ns) {
	t->report.state = JOB_RUNNING;
	t->report.times.joined_ns = now_ns;
	t->next = NULL;
	*b->running_last = t;
	b->running_last = &t->next;
	b->jobs++;
	t->texts.served = b->served;
	batch_begin_group(b, t);
}

struct ticket *batch_take_ended(struct batch *b) {
	for (struct ticket **at = &b->running; *at; at = &(*at)->next) {
		struct ticket *t = *at;
		if (t->report.state != JOB_DONE)
			continue;
		*at = t->next;
		if (b->running_last == &t->next)
			b->running_last = at;
		t->next = NULL;
		b->jobs--;
		return t;
	}
	return NULL;
}

/* ---- a step ---- */

void batch_arrange(struct batch *b, struct scheduled *const *order, int n, int prompt_rows) {
	b->order = order;
	b->n_order = n;
	b->prompt_rows = prompt_rows;
}

void batch_speculate(struct batch *b, const struct cost_model *cost) {
	b->cost = cost;
}

void batch_learn_ratio(struct batch *b, const struct batch_stats *stats, double ratio) {
	if (stats->could_draft && stats->prompt_rows == 0)
		speculate_learn_step(b->speculator,
		                stats->step.drafted_rows > 0 ? SPECULATE_VERIFY : SPECULATE_PLAIN,
		                ratio);
}

/* Prompts that were only scored, and those whose last token has run. */
static void pass_prompts(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts; i++) {
			struct run_prompt *p = &t->prompts[i];
			if (!p->sequence || p->fed < ticket_past(t->job, i).n)
				continue;
			/* After batch_emit only a prompt without an answer still has it. */
			batch_release_group(b, p);
			batch_close(b, &p->sequence);
		}
	}
}

static void finish_prompts(struct batch *b, struct ticket *t) {
	struct job *job = t->job;
	for (int i = 0; i < job->n_prompts; i++) {
		struct run_prompt *p = &t->prompts[i];
		if (p->through || p->sequence || p->fed < ticket_past(job, i).n)
			continue;
		p->scored = true;
		p->group = 0;
		if (job->max_tokens > 0 && p->begun < job->best_of)
			continue;
		p->through = true;
		t->prompts_through++;
		for (int k = 0; job->max_tokens == 0 && k < job->best_of; k++)
			batch_end_choice(b, t, i * job->best_of + k, FINISH_LENGTH, DETAIL_NONE);
	}
}

static void begin_step(struct batch *b) {
	b->n_rows = b->n_wants = b->n_texts = b->class_rows = 0;
	b->decode_rows = b->source_tiles = 0;
	b->attended = b->chunk_attended = b->source_attended = 0;
	memset(b->row_count, 0, sizeof b->row_count);
	memset(b->source_count, 0, sizeof b->source_count);
	memset(b->decode_count, 0, sizeof b->decode_count);
	batch_catch_up(b);
}

static void tell(const struct batch *b, struct batch_stats *ret_stats) {
	struct cost_step step = { .rows = b->n_rows,
		.decode_rows = b->decode_rows,
		.decode_count = b->decode_count,
		.drafted_rows = b->drafted_rows,
		.logit_rows = b->n_wants,
		.class_rows = b->class_rows,
		.attended = b->attended,
		.chunk_attended = b->chunk_attended,
		.source_attended = b->source_attended };
	for (int s = 0; s < STACKS; s++) {
		step.layers[s] = b->model->facts.stack[s].layers;
		step.row_count[s] = step.layers[s] > 0 ? b->row_count[s] : NULL;
	}
	if (b->model->facts.stack[STACK_DECODER].cross)
		step.source_count = b->source_count;
	*ret_stats = (struct batch_stats){ .step = step,
		.decode_rows = b->decode_rows,
		.prompt_rows = b->n_rows - b->decode_rows,
		.draft_ms = b->draft_ms,
		.could_draft = b->may_draft };
}

void batch_step(struct batch *b, struct batch_stats *ret_stats) {
	bool encoder = b->model->facts.kind == KIND_ENCODER;
	if (!encoder)
		batch_draft(b);
	begin_step(b);
	if (encoder)
		batch_form_texts(b);
	else
		batch_form(b);
	assert(b->n_rows > 0);
	step_run(b->workspace, b->rows, b->n_rows);
	batch_remember_fed(b);
	if (b->n_wants > 0)
		batch_emit(b);
	if (b->drafted_rows > 0)
		batch_settle_drafts(b);
	if (encoder)
		batch_finish_texts(b);
	else
		pass_prompts(b);
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->report.state == JOB_DONE)
			continue;
		if (t->failed) {
			batch_end(b, t, NULL);
			continue;
		}
		if (!encoder)
			finish_prompts(b, t);
		batch_settle(b, t);
	}
	batch_find_leaders(b);
	tell(b, ret_stats);
	batch_arrange(b, NULL, 0, b->limits.prefill_rows);
}
