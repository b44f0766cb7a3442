/* SPDX-License-Identifier: Apache-2.0 */
/* The running batch: joining, groups and their blocks, and what a step holds. */
#include "server/batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/batch_parts.h"
#include "server/clock.h"

enum { MOST_LOGIT_ROWS = 64 };

static int least(int a, int b) {
	return a < b ? a : b;
}

/* ---- life ---- */

static bool init_arrays(struct batch *b) {
	b->rows = calloc((size_t)b->limits.max_rows, sizeof *b->rows);
	b->wants = calloc((size_t)b->limits.max_rows, sizeof *b->wants);
	b->logit_rows = calloc((size_t)b->max_logit_rows, sizeof *b->logit_rows);
	b->scratch = malloc(detokenise_scratch(b->model->target_tokenizer));
	return b->rows && b->wants && b->logit_rows && b->scratch;
}

struct batch *batch_create(const struct model *model, const struct batch_options *options,
                char *err, size_t errlen) {
	const struct config *config = options->config;
	struct batch *b = calloc(1, sizeof *b);
	if (!b) {
		snprintf(err, errlen, "not enough memory for a batch");
		return NULL;
	}
	b->model = model;
	b->metrics = options->metrics;
	b->running_last = &b->running;
	b->limits.max_rows = config->max_rows;
	b->limits.prefill_rows = config->prefill_rows;
	/* Each sequence may need a row of every step. */
	b->limits.sequences = least(config->max_running, config->max_rows);
	b->max_logit_rows = least(MOST_LOGIT_ROWS, config->max_rows);
	struct workspace_options workspace = {
		.team = options->team,
		.max_rows = b->limits.max_rows,
		.max_logit_rows = b->max_logit_rows,
		.max_sequences = b->limits.sequences,
		.kv_bytes = options->kv_bytes,
	};
	b->workspace = workspace_create(model, &workspace, err, errlen);
	if (b->workspace)
		b->sampler = sampler_create(model->ops, model->facts.vocab, err, errlen);
	if (!b->sampler) {
		batch_destroy(b);
		return NULL;
	}
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
	free(b->rows);
	free(b->wants);
	free(b->logit_rows);
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

/* ---- groups ---- */

/* What a group of a prompt and `count` choices needs. */
struct need {
	int count;
	int forks;
	size_t blocks;      /* of the first sequence */
	size_t fork_blocks; /* of all forks */
};

static struct need need_of(const struct batch *b, const struct job *job, int prompt,
                const struct subnet *subnet, int count) {
	size_t depth = (size_t)subnet->stack[STACK_DECODER].depth;
	int tokens = ticket_sequence_tokens(job, prompt);
	struct need need = { .count = count };
	need.blocks = workspace_blocks_needed(b->workspace, subnet, tokens);
	/* An answer of one token ends with the prompt: it needs no sequence of its own. */
	if (count > 1 && job->max_tokens > 1) {
		size_t shared = (size_t)(job->prompts[prompt].n_tokens / KV_TILE) * depth;
		need.forks = count - 1;
		need.fork_blocks = (size_t)need.forks * (need.blocks - shared);
	}
	return need;
}

/* The index of the prompt whose next group would begin, or -1. */
static int next_prompt(const struct ticket *t) {
	for (int i = 0; i < t->job->n_prompts; i++) {
		const struct run_prompt *p = &t->prompts[i];
		if (!p->through && !p->sequence && p->group == 0)
			return i;
	}
	return -1;
}

bool batch_has_more(const struct ticket *t) {
	return next_prompt(t) >= 0;
}

/* The prompt's next group: all choices that have not begun, or as many as could ever run at
 * once. */
static struct need next_need(const struct batch *b, const struct ticket *t,
                const struct subnet *subnet, int prompt) {
	int count = t->job->best_of - t->prompts[prompt].begun;
	struct need need = need_of(b, t->job, prompt, subnet, count);
	size_t total = workspace_blocks_total(b->workspace);
	while (need.count > 1
	                && (need.forks + 1 > b->limits.sequences
	                                || need.blocks + need.fork_blocks > total))
		need = need_of(b, t->job, prompt, subnet, need.count - 1);
	return need;
}

bool batch_fits(const struct batch *b, const struct ticket *t, const struct subnet *subnet) {
	int prompt = next_prompt(t);
	if (prompt < 0)
		return false;
	struct need need = next_need(b, t, subnet, prompt);
	size_t used = workspace_blocks_reserved(b->workspace) + b->reserved_blocks;
	size_t total = workspace_blocks_total(b->workspace);
	return used + need.blocks + need.fork_blocks <= total
	                && batch_sequences(b) + 1 + need.forks <= b->limits.sequences;
}

void batch_begin_group(struct batch *b, struct ticket *t) {
	int prompt = next_prompt(t);
	assert(prompt >= 0);
	struct run_prompt *p = &t->prompts[prompt];
	struct need need = next_need(b, t, &t->subnet, prompt);
	p->sequence = sequence_open(
	                b->workspace, &t->subnet, ticket_sequence_tokens(t->job, prompt));
	assert(p->sequence);
	b->sequences++;
	p->fed = 0;
	p->group = need.count;
	p->begun += need.count;
	p->reserved_blocks = need.fork_blocks;
	p->reserved_sequences = need.forks;
	b->reserved_blocks += need.fork_blocks;
	b->reserved_sequences += need.forks;
}

void batch_release_group(struct batch *b, struct run_prompt *p) {
	b->reserved_blocks -= p->reserved_blocks;
	b->reserved_sequences -= p->reserved_sequences;
	p->reserved_blocks = 0;
	p->reserved_sequences = 0;
}

void batch_close(struct batch *b, struct sequence **sequence) {
	if (!*sequence)
		return;
	sequence_close(b->workspace, *sequence);
	*sequence = NULL;
	b->sequences--;
}

void batch_join(struct batch *b, struct ticket *t, int64_t now_ns) {
	t->report.state = JOB_RUNNING;
	t->report.times.joined_ns = now_ns;
	t->next = NULL;
	*b->running_last = t;
	b->running_last = &t->next;
	b->jobs++;
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

void batch_narrow(struct batch *b, struct ticket *t, const struct plan *plan) {
	int old_depth = t->subnet.stack[STACK_DECODER].depth;
	t->subnet.stack[STACK_DECODER] = *plan;
	for (int i = 0; i < t->job->n_prompts; i++) {
		struct run_prompt *p = &t->prompts[i];
		if (p->sequence)
			sequence_narrow(b->workspace, p->sequence, &t->subnet);
		/* Forks need as many blocks for each layer as before, of fewer layers. */
		size_t blocks = p->reserved_blocks / (size_t)old_depth * (size_t)plan->depth;
		b->reserved_blocks -= p->reserved_blocks - blocks;
		p->reserved_blocks = blocks;
	}
	for (int i = 0; i < t->job->n_choices; i++) {
		if (t->choices[i].sequence)
			sequence_narrow(b->workspace, t->choices[i].sequence, &t->subnet);
	}
	if (t->report.n_changes < (int)(sizeof t->job->changes / sizeof t->job->changes[0])) {
		int at = 0;
		for (int i = 0; i < t->job->n_choices; i++)
			at = t->progress[i].n_tokens > at ? t->progress[i].n_tokens : at;
		t->job->changes[t->report.n_changes++] = (struct job_change){ at, *plan };
		t->news = true;
	}
}

/* ---- load ---- */

static void add_load(const struct ticket *t, struct cost_load *load) {
	const struct job *job = t->job;
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	int rows = 0, pending = 0;
	double context = 0;
	for (int i = 0; i < job->n_choices; i++) {
		if (t->choices[i].sequence) {
			rows++;
			context += sequence_length(t->choices[i].sequence);
		}
	}
	for (int i = 0; i < job->n_prompts; i++) {
		const struct run_prompt *p = &t->prompts[i];
		if (!p->sequence)
			continue;
		pending += job->prompts[i].n_tokens - p->fed;
		if (job->max_tokens > 1) {
			rows += p->group;
			context += (double)p->group * job->prompts[i].n_tokens;
		}
	}
	load->decode_rows += rows;
	load->pending += pending;
	load->attended += plan->depth * context / 1024;
	for (int i = 0; i < plan->depth; i++) {
		load->rows[plan->layers[i]] += rows;
		load->pending_rows[plan->layers[i]] += pending;
	}
}

void batch_load(const struct batch *b, const struct ticket *without, struct cost_load *ret_load) {
	memset(ret_load, 0, sizeof *ret_load);
	for (const struct ticket *t = b->running; t; t = t->next) {
		if (t != without && t->report.state != JOB_DONE)
			add_load(t, ret_load);
	}
}

/* ---- forming a step ---- */

static void add_row(struct batch *b, struct ticket *t, struct sequence *s, int32_t token,
                int position, bool chunk) {
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	b->rows[b->n_rows++] = (struct row){
		.sequence = s, .stack = STACK_DECODER, .token = token, .position = position
	};
	for (int i = 0; i < plan->depth; i++)
		b->row_count[plan->layers[i]]++;
	*(chunk ? &b->chunk_attended : &b->attended) += plan->depth * (position + 1) / 1024.0;
}

static void want(struct batch *b, struct ticket *t, enum want_kind kind, int prompt, int index) {
	b->wants[b->n_wants++] = (struct want){
		.ticket = t, .kind = kind, .prompt = prompt, .index = index, .row = b->n_rows - 1
	};
}

static void form_decode(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_choices; i++) {
			struct sequence *s = t->choices[i].sequence;
			if (!s)
				continue;
			int32_t last = t->job->choices[i].tokens[t->progress[i].n_tokens - 1];
			add_row(b, t, s, last, sequence_length(s), false);
			want(b, t, WANT_TOKEN, ticket_prompt_of(t, i), i);
		}
	}
	b->decode_rows = b->n_rows;
}

static void form_chunk(struct batch *b, struct ticket *t, int prompt, int rows) {
	struct run_prompt *p = &t->prompts[prompt];
	const struct job_prompt *jp = &t->job->prompts[prompt];
	for (int i = 0; i < rows; i++) {
		int position = p->fed++;
		add_row(b, t, p->sequence, jp->tokens[position], position, true);
		if (p->fed < jp->n_tokens) {
			if (t->job->want_prompt_logprobs && !p->scored)
				want(b, t, WANT_SCORE, prompt, position);
		} else if (t->job->max_tokens > 0) {
			want(b, t, WANT_FIRST, prompt, position);
		}
	}
}

static void form_prompts(struct batch *b) {
	int room = b->limits.max_rows - b->n_rows;
	if (b->decode_rows > 0)
		room = least(room, b->limits.prefill_rows);
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts && room > 0; i++) {
			struct run_prompt *p = &t->prompts[i];
			if (!p->sequence)
				continue;
			int rows = least(t->job->prompts[i].n_tokens - p->fed, room);
			form_chunk(b, t, i, rows);
			room -= rows;
		}
	}
}

/* Prompts that were only scored, and those whose last token has run. */
static void pass_prompts(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts; i++) {
			struct run_prompt *p = &t->prompts[i];
			if (!p->sequence || p->fed < t->job->prompts[i].n_tokens)
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
		if (p->through || p->sequence || p->fed < job->prompts[i].n_tokens)
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

void batch_step(struct batch *b, struct batch_stats *ret_stats) {
	b->n_rows = b->n_wants = 0;
	b->attended = b->chunk_attended = 0;
	memset(b->row_count, 0, sizeof b->row_count);
	form_decode(b);
	form_prompts(b);
	assert(b->n_rows > 0);
	step_run(b->workspace, b->rows, b->n_rows);
	batch_emit(b);
	pass_prompts(b);
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->report.state == JOB_DONE)
			continue;
		if (t->failed) {
			batch_end(b, t, NULL);
			continue;
		}
		finish_prompts(b, t);
		batch_settle(b, t);
	}
	*ret_stats = (struct batch_stats){
		.step = { .layers = { [STACK_DECODER] = model_layers(b->model) },
		                .row_count = { [STACK_DECODER] = b->row_count },
		                .rows = b->n_rows,
		                .logit_rows = b->n_wants,
		                .attended = b->attended,
		                .chunk_attended = b->chunk_attended },
		.decode_rows = b->decode_rows,
		.prompt_rows = b->n_rows - b->decode_rows,
	};
}
