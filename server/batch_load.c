/* SPDX-License-Identifier: Apache-2.0 */
/* What runs, as the scheduler and the cost model see it. */
#include <string.h>

#include "server/batch_parts.h"

/* Texts for an encoder alone. Their tiles matter to nobody who asks about what runs. */
static void count_texts(const struct ticket *t, struct scheduled_progress *p) {
	p->sources = t->job->n_prompts - t->texts.next;
	p->source_tokens = (int)t->texts.tokens;
	p->source_squares = t->texts.squares;
}

/* Rows of answers, of those that the prompt being fed will have, and of a search. */
static void count_rows(const struct ticket *t, int i, struct scheduled_progress *p) {
	const struct job *job = t->job;
	const struct run_prompt *prompt = &t->prompts[i];
	int past = ticket_past(job, i).n, source = ticket_source_tokens(job, i);
	if (prompt->searching) {
		int live = beam_live(prompt->beam);
		p->rows += live;
		p->keys += (double)live * (past + prompt->searched + source);
		p->choices_left += live;
	} else if (job->num_beams > 0 && !prompt->through) {
		p->choices_left += job->num_beams;
	}
	if (!prompt->sequence)
		return;
	int coming = job->num_beams > 0 ? job->num_beams : job->max_tokens > 1 ? prompt->group : 0;
	p->coming_rows += coming;
	p->coming_keys += (double)coming * (past + source);
}

/* What is left of a prompt before it answers. */
static void count_prompt(const struct ticket *t, int i, struct scheduled_progress *p) {
	const struct run_prompt *prompt = &t->prompts[i];
	int past = ticket_past(t->job, i).n, source = ticket_source_tokens(t->job, i);
	if (prompt->through || prompt->searching)
		return;
	if (prompt->sequence)
		p->prompt_tokens += past - (prompt->led > prompt->fed ? prompt->led : prompt->fed);
	else if (prompt->group == 0)
		p->later_tokens += past;
	if (source == 0 || prompt->source_fed)
		return;
	p->sources++;
	p->source_tokens += source;
	p->source_tiles += (source + KV_TILE - 1) / KV_TILE;
	p->source_squares += (double)source * source / 1024;
}

void batch_progress(const struct ticket *t, struct scheduled_progress *ret_progress) {
	const struct job *job = t->job;
	struct scheduled_progress p = { .tokens_out = ticket_most_tokens(t),
		.first_out = t->report.times.first_token_ns > 0,
		.can_end = batch_can_end(t),
		.more = batch_has_more(t) };
	if (job->work != WORK_GENERATE)
		count_texts(t, &p);
	for (int i = 0; i < job->n_prompts && job->work == WORK_GENERATE; i++) {
		count_rows(t, i, &p);
		count_prompt(t, i, &p);
	}
	for (int i = 0; i < job->n_choices; i++) {
		const struct sequence *s = t->choices[i].sequence;
		p.rows += s != NULL;
		if (s)
			p.keys += sequence_length(s)
			                + ticket_source_tokens(job, ticket_prompt_of(t, i));
		p.choices_left += job->num_beams == 0 && t->progress[i].finish == FINISH_NONE;
	}
	*ret_progress = p;
}

void batch_load(const struct batch *b, const struct ticket *without, struct cost_load *ret_load) {
	memset(ret_load, 0, sizeof *ret_load);
	for (const struct ticket *t = b->running; t; t = t->next) {
		struct scheduled_progress progress;
		if (t == without || t->report.state == JOB_DONE)
			continue;
		batch_progress(t, &progress);
		scheduler_add_load(&progress, &t->subnet, ret_load);
	}
}
