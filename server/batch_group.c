/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: a prompt and the choices, or the beams, that share its blocks. What all of them may ever
 * need is set aside before the group begins: its first sequence holds its own part, the rest is
 * kept free here until forks take it. So nothing that runs ever waits for blocks.
 */
#include <assert.h>

#include "server/batch_parts.h"

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
	int tokens = ticket_sequence_tokens(job, prompt),
	    source = ticket_source_tokens(job, prompt);
	size_t own = workspace_blocks_needed(b->workspace, subnet, tokens);
	struct need need = { .count = count, .blocks = own - batch_shared(b, job, prompt, subnet) };
	/* Forks share the source. */
	if (source > 0)
		need.blocks += workspace_source_blocks(b->workspace, subnet, source);
	if (job->num_beams > 0)
		need.forks = job->num_beams - 1;
	else if (job->max_tokens > 1) /* an answer of one token ends with the prompt */
		need.forks = count - 1;
	if (need.forks > 0) {
		size_t shared = (size_t)(ticket_past(job, prompt).n / KV_TILE) * depth;
		need.fork_blocks = (size_t)need.forks * (own - shared);
	}
	return need;
}

/* The index of the prompt whose next group would begin, or -1. */
static int next_prompt(const struct ticket *t) {
	for (int i = 0; i < t->job->n_prompts && t->job->work == WORK_GENERATE; i++) {
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
 * once. The beams of a search cannot be parted. */
static struct need next_need(const struct batch *b, const struct ticket *t,
                const struct subnet *subnet, int prompt) {
	int count = t->job->best_of - t->prompts[prompt].begun;
	struct need need = need_of(b, t->job, prompt, subnet, count);
	size_t total = workspace_blocks_total(b->workspace);
	while (t->job->num_beams == 0 && need.count > 1
	                && (need.forks + 1 > b->limits.sequences
	                                || need.blocks + need.fork_blocks > total))
		need = need_of(b, t->job, prompt, subnet, need.count - 1);
	return need;
}

bool batch_fits(const struct batch *b, const struct ticket *t, const struct subnet *subnet) {
	if (t->job->work != WORK_GENERATE)
		return batch_sequences(b) + 1 <= b->limits.sequences;
	int prompt = next_prompt(t);
	if (prompt < 0)
		return false;
	struct need need = next_need(b, t, subnet, prompt);
	size_t used = workspace_blocks_reserved(b->workspace) + b->reserved_blocks;
	size_t total = workspace_blocks_total(b->workspace);
	return used + need.blocks + need.fork_blocks <= total
	                && batch_sequences(b) + 1 + need.forks <= b->limits.sequences;
}

/* A job of texts for an encoder needs no blocks. It takes one place: what waits for none counts as
 * queued, and the queue is bounded. */
static void take_place(struct batch *b, struct run_prompt *p) {
	p->reserved_sequences = 1;
	b->reserved_sequences++;
}

void batch_begin_group(struct batch *b, struct ticket *t) {
	if (t->job->work != WORK_GENERATE) {
		take_place(b, &t->prompts[0]);
		return;
	}
	int prompt = next_prompt(t);
	assert(prompt >= 0);
	struct run_prompt *p = &t->prompts[prompt];
	struct need need = next_need(b, t, &t->subnet, prompt);
	p->sequence = batch_open(b, t, prompt);
	assert(p->sequence);
	b->sequences++;
	p->source_fed = false;
	p->fed = p->fed_before = sequence_length(p->sequence);
	p->group = need.count;
	p->begun += need.count;
	p->reserved_blocks = need.fork_blocks;
	p->reserved_sequences = need.forks;
	b->reserved_blocks += need.fork_blocks;
	b->reserved_sequences += need.forks;
	batch_find_leaders(b);
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

/* ---- stepping down ---- */

static void narrow_prompt(struct batch *b, struct ticket *t, struct run_prompt *p, int old_depth) {
	const struct subnet *nested = &t->subnet;
	if (p->sequence)
		sequence_narrow(b->workspace, p->sequence, nested);
	for (int i = 0; p->searching && i < beam_live(p->beam); i++)
		sequence_narrow(b->workspace, beam_sequence(p->beam, i), nested);
	/* Forks need as many blocks for each layer as before, of fewer layers. */
	size_t depth = (size_t)nested->stack[STACK_DECODER].depth;
	size_t blocks = p->reserved_blocks / (size_t)old_depth * depth;
	b->reserved_blocks -= p->reserved_blocks - blocks;
	p->reserved_blocks = blocks;
}

void batch_narrow(struct batch *b, struct ticket *t, const struct plan *plan) {
	assert(t->job->work == WORK_GENERATE);
	int old_depth = t->subnet.stack[STACK_DECODER].depth;
	t->subnet.stack[STACK_DECODER] = *plan;
	t->draft.depth = 0;
	for (int i = 0; i < t->job->n_prompts; i++)
		narrow_prompt(b, t, &t->prompts[i], old_depth);
	for (int i = 0; i < t->job->n_choices; i++) {
		if (t->choices[i].sequence)
			sequence_narrow(b->workspace, t->choices[i].sequence, &t->subnet);
	}
	if (t->report.n_changes < (int)(sizeof t->job->changes / sizeof t->job->changes[0])) {
		t->job->changes[t->report.n_changes++] =
		                (struct job_change){ ticket_most_tokens(t), *plan };
		t->news = true;
	}
}
