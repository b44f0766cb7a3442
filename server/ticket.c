/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's record of a job: its memory, and what passes between the two threads. */
#include "server/ticket.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A search's memory. False if it is not to be had. */
static bool create_beams(struct ticket *t) {
	const struct job *job = t->job;
	for (; t->n_beams < job->n_prompts && job->num_beams > 0; t->n_beams++) {
		struct run_prompt *p = &t->prompts[t->n_beams];
		p->beam = beam_create(job->num_beams, job->max_tokens);
		if (!p->beam)
			return false;
	}
	return true;
}

static void count_texts(struct ticket *t) {
	for (int i = 0; i < t->job->n_prompts && t->job->work != WORK_GENERATE; i++) {
		int n = t->job->prompts[i].n_tokens;
		t->texts.tokens += n;
		t->texts.squares += (double)n * n / 1024;
	}
	t->texts.all_tokens = t->texts.tokens;
}

/*
 * The answer of a language model goes on where its prompt ends: between words stands a space, unless
 * the client has put it there.
 */
static void follow_prompt(struct ticket *t, int choice) {
	const struct job *job = t->job;
	int p = ticket_prompt_of(t, choice);
	const struct job_prompt *prompt = &job->prompts[p];
	const struct input *input =
	                (size_t)p < job->request.n_inputs ? &job->request.inputs[p] : NULL;
	bool spaced = input && input->text_len > 0
	                && isspace((unsigned char)input->text[input->text_len - 1]);
	if (prompt->target || prompt->n_tokens == 0 || spaced)
		return;
	detokenise_follow(&t->choices[choice].text, prompt->tokens[prompt->n_tokens - 1],
	                job->choices[choice].text_cap);
}

struct ticket *ticket_create(struct job *job, const struct tokenizer *answers) {
	struct ticket *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	size_t choices = (size_t)job->n_choices + 1; /* never an empty array */
	t->job = job;
	t->prompts = calloc((size_t)job->n_prompts + 1, sizeof *t->prompts);
	t->choices = calloc(choices, sizeof *t->choices);
	t->progress = calloc(choices, sizeof *t->progress);
	t->mail = calloc(choices, sizeof *t->mail);
	if (!t->prompts || !t->choices || !t->progress || !t->mail || !create_beams(t)) {
		ticket_destroy(t);
		return NULL;
	}
	t->report.times = job->times;
	t->draft = (struct drafter){ .on = job->draft.on,
		.asked_depth = job->draft.depth,
		.most = job->draft.tokens,
		.rule = job->draft.rule,
		.sampled = job->sampling.temperature != 0 };
	for (int i = 0; i < job->n_choices; i++) {
		detokenise_begin(&t->choices[i].text, answers, job->request.pretokenized,
		                job->choices[i].text);
		follow_prompt(t, i);
	}
	count_texts(t);
	return t;
}

void ticket_destroy(struct ticket *t) {
	if (!t)
		return;
	for (int i = 0; i < t->n_beams; i++)
		beam_destroy(t->prompts[i].beam);
	free(t->prompts);
	free(t->choices);
	free(t->progress);
	free(t->mail);
	free(t);
}

int ticket_most_tokens(const struct ticket *t) {
	int most = 0;
	for (int i = 0; i < t->job->n_choices; i++)
		most = t->progress[i].n_tokens > most ? t->progress[i].n_tokens : most;
	for (int i = 0; i < t->job->n_prompts; i++)
		most = t->prompts[i].searched > most ? t->prompts[i].searched : most;
	return most;
}

void ticket_publish(struct ticket *t) {
	memcpy(t->mail, t->progress, (size_t)t->job->n_choices * sizeof *t->mail);
	t->mail_report = t->report;
	t->news = false;
}

static double mean_logprob(const struct choice *c) {
	int n = c->published.n_tokens;
	return n > 0 ? c->logprob_sum / n : -1e300;
}

/* Puts the n best of each prompt's best_of choices first; equal ones keep their order. */
static void sort_choices(struct job *job) {
	for (int p = 0; p < job->n_prompts; p++) {
		for (int k = 0; k < job->n; k++) {
			int to = p * job->n + k, best = p * job->best_of + k;
			for (int i = best + 1; i < (p + 1) * job->best_of; i++) {
				if (mean_logprob(&job->choices[i])
				                > mean_logprob(&job->choices[best]))
					best = i;
			}
			/* Those between move one up, so that their order stays. */
			struct choice chosen = job->choices[best];
			memmove(&job->choices[to + 1], &job->choices[to],
			                (size_t)(best - to) * sizeof chosen);
			job->choices[to] = chosen;
		}
	}
}

void ticket_deliver(struct ticket *t) {
	struct job *job = t->job;
	const struct run_report *r = &t->mail_report;
	for (int i = 0; i < job->n_choices; i++)
		job->choices[i].published = t->mail[i];
	job->state = r->state;
	job->n_changes = r->n_changes;
	job->times = r->times;
	job->prefill_ms = r->prefill_ms;
	job->decode_ms = r->decode_ms;
	if (r->state == JOB_DONE && job->best_of > job->n)
		sort_choices(job);
}
