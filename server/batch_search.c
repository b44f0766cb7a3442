/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beam searches among what runs. A search owns the sequences of its live beams; what its group may
 * still need is kept free as for other forks, so that live beams and what is kept are always the
 * same sum.
 */
#include <assert.h>
#include <string.h>

#include "server/batch_parts.h"

void batch_begin_search(struct batch *b, struct ticket *t, int prompt) {
	const struct job *job = t->job;
	const struct facts *facts = &b->model->facts;
	struct run_prompt *p = &t->prompts[prompt];
	struct beam_options options = { .beams = job->num_beams,
		.length_penalty = job->length_penalty,
		.max_tokens = job->max_tokens,
		.min_tokens = job->min_tokens,
		.eos = facts->eos,
		.pad = facts->pad,
		.unk = -1,
		.sequence_tokens = ticket_sequence_tokens(job, prompt) };
	beam_begin(p->beam, &options, p->sequence);
	p->sequence = NULL;
	p->searching = true;
	p->searched = 0;
	p->scored = true;
}

/* Live beams were `live` and their blocks `blocks`: what became free is kept for the group. */
static void count_beams(struct batch *b, struct run_prompt *p, int live, size_t blocks) {
	int more = beam_live(p->beam) - live;
	size_t now = workspace_blocks_reserved(b->workspace);
	assert(now <= blocks + p->reserved_blocks && more <= p->reserved_sequences);
	b->sequences += more;
	b->reserved_sequences -= more;
	p->reserved_sequences -= more;
	b->reserved_blocks += blocks - now; /* either may be the larger one: sums come out right */
	p->reserved_blocks += blocks - now;
}

/* ---- the end ---- */

/* An end symbol that was forced at the limit comes after max_tokens tokens: it is in the score. */
static void take_hypothesis(
                struct batch *b, struct ticket *t, int choice, const struct hypothesis *h) {
	const struct job *job = t->job;
	struct choice *out = &job->choices[choice];
	struct choice_progress *progress = &t->progress[choice];
	int n = h->n_tokens < out->cap ? h->n_tokens : out->cap;
	memcpy(out->tokens, h->tokens, (size_t)n * sizeof *out->tokens);
	if (out->logprobs)
		memcpy(out->logprobs, h->logprobs, (size_t)n * sizeof *out->logprobs);
	/* A hypothesis knows its own tokens only. */
	for (int i = 0; out->tops && i < n * job->n_top; i++)
		out->tops[i] = (struct token_logprob){ h->tokens[i / job->n_top],
			h->logprobs[i / job->n_top] };
	for (progress->n_tokens = 0; progress->n_tokens < n; progress->n_tokens++)
		batch_add_text(b, t, choice, out->tokens[progress->n_tokens],
		                out->tokens[progress->n_tokens] == b->model->facts.eos);
	out->logprob_sum = h->sum;
	out->score = h->score;
}

/* The best hypotheses become the prompt's choices. There are as many, but for a search that was cut
 * early: then the last choices stay empty. */
static void finish(struct batch *b, struct ticket *t, int prompt, enum finish_detail detail) {
	const struct job *job = t->job;
	struct run_prompt *p = &t->prompts[prompt];
	for (int i = 0; i < job->best_of; i++) {
		int choice = prompt * job->best_of + i;
		struct hypothesis h = { .ended = false };
		if (i < beam_hypotheses(p->beam)) {
			beam_hypothesis(p->beam, i, &h);
			take_hypothesis(b, t, choice, &h);
		}
		batch_end_choice(b, t, choice, h.ended ? FINISH_STOP : FINISH_LENGTH,
		                h.ended ? DETAIL_NONE : detail);
	}
	p->searching = false;
	batch_release_group(b, p);
}

void batch_advance_search(
                struct batch *b, struct ticket *t, int prompt, const float *logits, size_t stride) {
	struct run_prompt *p = &t->prompts[prompt];
	int live = beam_live(p->beam);
	size_t blocks = workspace_blocks_reserved(b->workspace);
	if (!beam_advance(p->beam, b->workspace, b->sampler, logits, stride)) {
		batch_fail_not_finite(t);
		return;
	}
	count_beams(b, p, live, blocks);
	p->searched++;
	batch_note_time(b, t, &p->last_token_ns);
	if (beam_live(p->beam) == 0)
		finish(b, t, prompt, DETAIL_NONE);
}

void batch_cut_search(struct batch *b, struct ticket *t, int prompt, enum finish_detail detail) {
	struct run_prompt *p = &t->prompts[prompt];
	int live = beam_live(p->beam);
	size_t blocks = workspace_blocks_reserved(b->workspace);
	beam_cut(p->beam, b->workspace);
	count_beams(b, p, live, blocks);
	finish(b, t, prompt, detail);
}

void batch_close_search(struct batch *b, struct run_prompt *p) {
	if (!p->searching)
		return;
	int live = beam_live(p->beam);
	size_t blocks = workspace_blocks_reserved(b->workspace);
	beam_close(p->beam, b->workspace);
	count_beams(b, p, live, blocks);
	p->searching = false;
	batch_release_group(b, p);
}
