/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafting. Before a step, the answers that may be drafted for run some steps of their own at a
 * nested plan; then the cache is rewound, and the step has a row for each drafted token beside the
 * usual one. Each row draws its token as if the answer had been decoded one by one: where that is the
 * drafted one, the next row counts; the first other one is the answer's next token all the same.
 *
 * Drafted tokens stand in the choice's own array, beyond those that are out. No draft goes beyond
 * max_tokens, so it needs no block that plain decoding would not.
 *
 * While prompts are fed nothing is drafted: they share steps with answers, and wait for no draft.
 */
#include <string.h>

#include "server/batch_parts.h"
#include "server/clock.h"

static bool feeds_prompts(const struct batch *b) {
	if (b->prompt_rows == 0)
		return false;
	for (const struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts; i++)
			if (t->prompts[i].sequence)
				return true;
	}
	return false;
}

static bool may_draft(const struct ticket *t) {
	const struct drafter *d = &t->draft;
	int depth = t->subnet.stack[STACK_DECODER].depth;
	return d->on && depth > 1 && d->asked_depth < depth;
}

/* Most tokens that may be drafted for a choice: a further one comes with the verification. */
static int left_of(const struct ticket *t, int choice) {
	return t->job->max_tokens - t->progress[choice].n_tokens - 1;
}

static void add_party(struct batch *b, struct ticket *t, struct speculate_scene *scene) {
	struct speculate_party *p = &b->parties[scene->n];
	*p = (struct speculate_party){ .drafter = &t->draft, .subnet = &t->subnet };
	for (int i = 0; i < t->job->n_choices; i++) {
		const struct sequence *s = t->choices[i].sequence;
		if (!s)
			continue;
		p->rows++;
		p->left = left_of(t, i) > p->left ? left_of(t, i) : p->left;
		p->keys += sequence_length(s)
		                + ticket_source_tokens(t->job, ticket_prompt_of(t, i));
	}
	if (p->rows == 0)
		return;
	p->keys /= p->rows;
	scene->n++;
}

static void add_other(const struct ticket *t, int *rows, struct speculate_scene *scene) {
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	struct scheduled_progress progress;
	batch_progress(t, &progress);
	scene->others += progress.rows;
	scene->attended += plan->depth * progress.keys / 1024;
	for (int i = 0; i < plan->depth; i++)
		rows[plan->layers[i]] += progress.rows;
}

/* Who could be drafted for, and what else the next step has. */
static void look_around(struct batch *b, int rows[MAX_LAYERS], struct speculate_scene *ret_scene) {
	*ret_scene = (struct speculate_scene){ .parties = b->parties,
		.layers = b->model->facts.stack[STACK_DECODER].layers,
		.other_rows = rows,
		.max_rows = b->limits.max_rows };
	memset(rows, 0, MAX_LAYERS * sizeof rows[0]);
	for (struct ticket *t = b->running; t; t = t->next) {
		t->draft.tokens = 0;
		if (t->scheduled.rests || t->report.state == JOB_DONE)
			continue;
		if (may_draft(t))
			add_party(b, t, ret_scene);
		else
			add_other(t, rows, ret_scene);
	}
}

/* ---- steps of drafts ---- */

static void add_draft(struct batch *b, struct ticket *t, int choice) {
	const struct run_choice *c = &t->choices[choice];
	int last = t->progress[choice].n_tokens - 1 + c->drafted;
	b->rows[b->n_rows++] = (struct row){ .sequence = c->sequence,
		.stack = STACK_DECODER,
		.token = t->job->choices[choice].tokens[last],
		.position = sequence_length(c->sequence),
		.at = &t->draft.at };
	batch_want(b, t, WANT_DRAFT, ticket_prompt_of(t, choice), choice);
	const struct plan *plan = &t->draft.at.stack[STACK_DECODER];
	for (int i = 0; i < plan->depth; i++)
		b->row_count[STACK_DECODER][plan->layers[i]]++;
}

/* Rows of those for whom `j` tokens are drafted and one more is to be. */
static void form_drafts(struct batch *b, int j) {
	b->n_rows = b->n_wants = 0;
	memset(b->row_count, 0, sizeof b->row_count);
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->draft.tokens <= j)
			continue;
		for (int i = 0; i < t->job->n_choices; i++) {
			const struct run_choice *c = &t->choices[i];
			if (c->sequence && c->drafted == j && !c->drafts_end && left_of(t, i) > j)
				add_draft(b, t, i);
		}
	}
}

void batch_propose(struct batch *b, struct ticket *t, int choice, const float *logits) {
	struct run_choice *c = &t->choices[choice];
	int at = t->progress[choice].n_tokens + c->drafted;
	int32_t token;
	/* A draft whose scores cannot be used ends; whether the answer's can be is another matter. */
	if (!batch_pick(b, t, choice, logits, c->drafted, &token)) {
		c->drafts_end = true;
		return;
	}
	t->job->choices[choice].tokens[at] = token;
	c->drafted++;
	c->drafts_end = batch_ends(b, t, token);
}

static void run_drafts(struct batch *b, int64_t *last_ns) {
	const int *const rows[STACKS] = { NULL, b->row_count[STACK_DECODER] };
	step_run(b->workspace, b->rows, b->n_rows);
	batch_emit(b);
	int64_t now_ns = clock_now_ns();
	metrics_step(b->metrics, PHASE_DRAFT, clock_ms(now_ns - *last_ns) * 1e-3, b->n_rows, rows);
	*last_ns = now_ns;
}

/* The draft is forgotten: the choice is where it was, with tokens to try. */
static void rewind_drafts(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; t->draft.tokens > 0 && i < t->job->n_choices; i++) {
			struct sequence *s = t->choices[i].sequence;
			int past = ticket_past(t->job, ticket_prompt_of(t, i)).n;
			if (s)
				sequence_rewind(b->workspace, s, past + t->progress[i].n_tokens - 1,
				                false);
		}
	}
}

void batch_draft(struct batch *b) {
	const struct cost_model *cost = b->cost;
	struct speculate_scene scene;
	int rows[MAX_LAYERS];
	b->cost = NULL;
	b->draft_ms = 0;
	b->drafted_rows = 0;
	b->may_draft = false;
	for (struct ticket *t = b->running; t; t = t->next)
		t->draft.tokens = 0;
	if (!cost || feeds_prompts(b))
		return;
	look_around(b, rows, &scene);
	b->may_draft = scene.n > 0;
	if (scene.n == 0)
		return;
	speculate_decide(b->speculator, cost, &scene);
	int64_t began_ns = clock_now_ns(), last_ns = began_ns;
	double predicted_ms = 0;
	for (int j = 0;; j++) {
		form_drafts(b, j);
		if (b->n_rows == 0)
			break;
		run_drafts(b, &last_ns);
		predicted_ms += speculate_draft_ms(cost, &scene, j + 1);
	}
	if (last_ns == began_ns)
		return;
	rewind_drafts(b);
	b->draft_ms = clock_ms(clock_now_ns() - began_ns);
	if (cost->fitted && predicted_ms > 0)
		speculate_learn_step(b->speculator, SPECULATE_DRAFT, b->draft_ms / predicted_ms);
}

/* ---- verification ---- */

static void settle_choice(struct batch *b, struct ticket *t, int choice) {
	struct run_choice *c = &t->choices[choice];
	struct job *job = t->job;
	int past = ticket_past(job, ticket_prompt_of(t, choice)).n;
	if (c->drafted > 0) {
		speculate_learn(b->speculator, &t->draft, &t->subnet, c->drafted, c->accepted);
		metrics_drafted(b->metrics, c->drafted, c->accepted);
		job->accepted_tokens += c->accepted;
		job->rejected_tokens += c->drafted - c->accepted;
		if (c->sequence)
			sequence_rewind(b->workspace, c->sequence,
			                past + t->progress[choice].n_tokens - 1, c->spoiled);
	}
	c->drafted = c->accepted = 0;
	c->drafts_end = c->spoiled = false;
}

void batch_settle_drafts(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; t->draft.tokens > 0 && i < t->job->n_choices; i++)
			settle_choice(b, t, i);
	}
}
