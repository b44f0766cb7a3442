/* SPDX-License-Identifier: Apache-2.0 */
/* What runs, as the cost model sees it. */
#include <string.h>

#include "server/batch_parts.h"

/* Rows of every step, and what they attend to. */
struct rows {
	int n;
	double context; /* keys that all of them see */
};

static void add_rows(struct rows *rows, int n, int length, int source) {
	rows->n += n;
	rows->context += (double)n * (length + source);
}

/* Texts of `tokens` tokens together that an encoder still has to read. */
static void add_sources(
                const struct ticket *t, int64_t tokens, double squares, struct cost_load *load) {
	const struct plan *encoder = &t->subnet.stack[STACK_ENCODER],
	                  *decoder = &t->subnet.stack[STACK_DECODER];
	load->pending_source += (int)tokens;
	load->pending_source_attended += encoder->depth * squares;
	for (int i = 0; i < encoder->depth; i++)
		load->pending_source_rows[encoder->layers[i]] += (int)tokens;
	for (int i = 0; i < decoder->depth; i++)
		load->pending_cross_rows[decoder->layers[i]] += (int)tokens;
}

/* A group whose prompt is not through, or whose search runs. */
static void add_prompt(const struct ticket *t, int i, struct rows *rows, struct cost_load *load,
                int *pending) {
	const struct job *job = t->job;
	const struct run_prompt *p = &t->prompts[i];
	int past = ticket_past(job, i).n, source = ticket_source_tokens(job, i);
	if (p->searching)
		add_rows(rows, beam_live(p->beam), past + p->searched, source);
	if (!p->sequence)
		return;
	*pending += past - p->fed;
	if (source > 0 && !p->source_fed)
		add_sources(t, source, (double)source * source / 1024, load);
	if (job->num_beams > 0)
		add_rows(rows, job->num_beams, past, source);
	else if (job->max_tokens > 1)
		add_rows(rows, p->group, past, source);
}

static void add_load(const struct ticket *t, struct cost_load *load) {
	const struct job *job = t->job;
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	struct rows rows = { 0, 0 };
	int pending = 0;
	if (job->work != WORK_GENERATE) {
		add_sources(t, t->texts.tokens, t->texts.squares, load);
		return;
	}
	for (int i = 0; i < job->n_choices; i++) {
		if (t->choices[i].sequence)
			add_rows(&rows, 1, sequence_length(t->choices[i].sequence),
			                ticket_source_tokens(job, ticket_prompt_of(t, i)));
	}
	for (int i = 0; i < job->n_prompts; i++)
		add_prompt(t, i, &rows, load, &pending);
	load->decode_rows += rows.n;
	load->pending += pending;
	load->attended += plan->depth * rows.context / 1024;
	for (int i = 0; i < plan->depth; i++) {
		load->rows[plan->layers[i]] += rows.n;
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
