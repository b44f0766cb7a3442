/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts for an encoder alone. Each goes through one step, whole; a step holds texts of many jobs,
 * lengths and depths. A text's sequence lives for that step only.
 *
 * Whose text goes next: jobs of one priority without a budget share the rows evenly, so that a job
 * of two thousand texts does not block one that comes later with a single text. This is start-time
 * fair queueing (Goyal, Vin, Cheng 1996): the job that has been served least goes first, and a
 * newcomer begins where the text served last did. Priorities and budgets go by the scheduler.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "server/batch_parts.h"

/* ---- whose turn it is ---- */

static bool goes_before(const struct ticket *a, const struct ticket *b) {
	const struct scheduled *x = &a->scheduled, *y = &b->scheduled;
	if (x->priority == y->priority && isinf(x->at.due_ms) && isinf(y->at.due_ms))
		return a->texts.served < b->texts.served;
	return scheduler_precedes(x, y);
}

/* The ticket whose next text enters, NULL if none fits any more. The text of the first of all fits
 * an empty step, so none waits for ever. */
static struct ticket *next_ticket(const struct batch *b) {
	struct ticket *best = NULL;
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->texts.next == t->job->n_prompts
		                || !batch_has_room(b, t->job->prompts[t->texts.next].n_tokens, 0))
			continue;
		if (!best || goes_before(t, best))
			best = t;
	}
	return best;
}

/* ---- rows ---- */

static void want_masks(struct batch *b, struct ticket *t, int prompt, int first_row) {
	const struct job_prompt *jp = &t->job->prompts[prompt];
	for (int i = 0; i < jp->n_masks; i++) {
		batch_want(b, t, WANT_MASK, prompt, i);
		b->wants[b->n_wants - 1].row = first_row + jp->masks[i];
	}
}

static void add_text(struct batch *b, struct ticket *t) {
	int prompt = t->texts.next++, n = t->job->prompts[prompt].n_tokens;
	struct step_text *text = &b->texts[b->n_texts++];
	*text = (struct step_text){ .ticket = t,
		.prompt = prompt,
		.sequence = sequence_open_source(b->workspace, &t->subnet, 0, n),
		.row = b->n_rows };
	assert(text->sequence);
	batch_add_source(b, t, prompt, text->sequence);
	b->class_rows += t->job->work == WORK_CLASSIFY;
	if (t->job->work == WORK_FILL_MASK)
		want_masks(b, t, prompt, text->row);
	b->served = t->texts.served;
	t->texts.served += n;
	t->texts.tokens -= n;
	t->texts.squares -= (double)n * n / 1024;
}

void batch_form_texts(struct batch *b) {
	struct ticket *t;
	while (b->n_texts < b->limits.sequences && (t = next_ticket(b)))
		add_text(b, t);
}

/* ---- results ---- */

static bool all_finite(const float *x, int n) {
	bool finite = true;
	for (int i = 0; i < n; i++)
		finite = finite && isfinite(x[i]);
	return finite;
}

/* The mean of all tokens, special ones included; sums in the order of the tokens. */
static void take_mean(struct batch *b, int row, int n_tokens, int dim, float *out) {
	memset(b->pool, 0, (size_t)dim * sizeof *b->pool);
	for (int i = 0; i < n_tokens; i++) {
		const float *hidden = step_hidden(b->workspace, row + i);
		for (int k = 0; k < dim; k++)
			b->pool[k] += (double)hidden[k];
	}
	for (int k = 0; k < dim; k++)
		out[k] = (float)(b->pool[k] / n_tokens);
}

/* To length 1; a vector of zeros stays. */
static void normalise(float *x, int dim) {
	double sum = 0;
	for (int k = 0; k < dim; k++)
		sum += (double)x[k] * (double)x[k];
	double length = sqrt(sum);
	for (int k = 0; length > 0 && k < dim; k++)
		x[k] = (float)((double)x[k] / length);
}

static void embed(struct batch *b, const struct step_text *text) {
	const struct job *job = text->ticket->job;
	const struct job_prompt *prompt = &job->prompts[text->prompt];
	int dim = b->model->facts.stack[STACK_ENCODER].dim;
	if (job->mean_pooling)
		take_mean(b, text->row, prompt->n_tokens, dim, prompt->output);
	else
		memcpy(prompt->output, step_hidden(b->workspace, text->row),
		                (size_t)dim * sizeof *prompt->output);
	if (!all_finite(prompt->output, dim))
		batch_fail_not_finite(text->ticket);
	else if (job->normalize)
		normalise(prompt->output, dim);
}

static void take_classes(struct batch *b, const struct step_text *text, const float *scores) {
	const struct job *job = text->ticket->job;
	int n = b->model->facts.classifiers[job->classifier].classes;
	memcpy(job->prompts[text->prompt].output, scores, (size_t)n * sizeof *scores);
	if (!all_finite(scores, n))
		batch_fail_not_finite(text->ticket);
}

static bool is_classified(const struct step_text *text, int classifier) {
	const struct job *job = text->ticket->job;
	return job->work == WORK_CLASSIFY && job->classifier == classifier;
}

/* Scores of one classifier for all texts that ask for it, some at a time. */
static void classify(struct batch *b, int classifier) {
	size_t stride = step_classes_stride(b->workspace);
	for (int next = 0; next < b->n_texts;) {
		int first = next, n = 0;
		for (; next < b->n_texts && n < b->max_logit_rows; next++) {
			if (is_classified(&b->texts[next], classifier))
				b->logit_rows[n++] = b->texts[next].row;
		}
		if (n == 0)
			return;
		const float *scores = step_classes(b->workspace, classifier, b->logit_rows, n);
		for (int i = first; i < next; i++) {
			if (!is_classified(&b->texts[i], classifier))
				continue;
			take_classes(b, &b->texts[i], scores);
			scores += stride;
		}
	}
}

void batch_fill_mask(
                struct batch *b, struct ticket *t, int prompt, int index, const float *logits) {
	const struct job *job = t->job;
	const struct job_prompt *jp = &job->prompts[prompt];
	float ignored;
	struct token_logprob *fills = jp->fills + (size_t)index * (size_t)job->n_top;
	if (!sample_logprobs(b->sampler, logits, jp->tokens[jp->masks[index]], job->n_top, &ignored,
	                    fills, NULL))
		batch_fail_not_finite(t);
}

void batch_finish_texts(struct batch *b) {
	for (int i = 0; b->class_rows > 0 && i < b->model->facts.n_classifiers; i++)
		classify(b, i);
	for (int i = 0; i < b->n_texts; i++) {
		struct step_text *text = &b->texts[i];
		struct ticket *t = text->ticket;
		if (t->job->work == WORK_EMBED && !t->failed)
			embed(b, text);
		sequence_close(b->workspace, text->sequence);
		t->prompts[text->prompt].through = true;
		t->prompts_through++;
	}
}
