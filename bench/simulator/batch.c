/* SPDX-License-Identifier: Apache-2.0 */
/* A running batch in numbers. It mirrors server/batch_form.c and batch_group.c. */
#include "bench/simulator/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"

static int least(int a, int b) {
	return a < b ? a : b;
}

static int tiles_of(int tokens) {
	return (tokens + KV_TILE - 1) / KV_TILE;
}

/* ---- who runs ---- */

bool sim_batch_init(struct sim_batch *b, const struct cost_limits *limits, const int layers[STACKS],
                size_t kv_blocks) {
	memset(b, 0, sizeof *b);
	b->limits = *limits;
	b->kv_blocks = kv_blocks;
	for (int s = 0; s < STACKS; s++) {
		b->layers[s] = b->step.layers[s] = layers[s];
		b->step.row_count[s] = layers[s] > 0 ? b->row_count[s] : NULL;
	}
	if (layers[STACK_ENCODER] > 0 && layers[STACK_DECODER] > 0)
		b->step.source_count = b->source_count;
	b->step.decode_count = b->decode_count;
	b->runs = calloc((size_t)limits->sequences, sizeof *b->runs);
	return b->runs;
}

void sim_batch_finish(struct sim_batch *b) {
	free(b->runs);
	b->runs = NULL;
}

size_t sim_batch_blocks(const struct sim_work *work, const struct subnet *subnet) {
	size_t depth = (size_t)subnet->stack[STACK_DECODER].depth;
	/* The last token drawn is never fed, but in a beam search. */
	int answer = work->max_tokens > 0 && !work->beams ? work->max_tokens - 1 : work->max_tokens;
	size_t own = depth * (size_t)tiles_of(work->prompt + answer);
	size_t shared = (size_t)(work->prompt / KV_TILE) * depth;
	int forks = work->beams || work->max_tokens > 1 ? work->places - 1 : 0;
	return own + depth * (size_t)tiles_of(work->source) + (size_t)forks * (own - shared);
}

bool sim_batch_fits(const struct sim_batch *b, const struct sim_work *work,
                const struct subnet *subnet) {
	return b->sequences + work->places <= b->limits.sequences
	                && b->blocks + sim_batch_blocks(work, subnet) <= b->kv_blocks;
}

void sim_batch_join(struct sim_batch *b, struct sim_run *run, const struct sim_work *work,
                const struct subnet *subnet) {
	assert(sim_batch_fits(b, work, subnet));
	*run = (struct sim_run){ .work = *work, .subnet = subnet };
	run->blocks = sim_batch_blocks(work, subnet);
	b->blocks += run->blocks;
	b->sequences += work->places;
	b->runs[b->n++] = run;
}

void sim_batch_leave(struct sim_batch *b, struct sim_run *run) {
	int at = 0;
	while (b->runs[at] != run)
		at++;
	memmove(b->runs + at, b->runs + at + 1, (size_t)(b->n - at - 1) * sizeof *b->runs);
	b->n--;
	b->blocks -= run->blocks;
	b->sequences -= run->work.places;
}

void sim_batch_narrow(struct sim_batch *b, struct sim_run *run, const struct subnet *subnet) {
	b->blocks -= run->blocks;
	run->subnet = subnet;
	run->blocks = sim_batch_blocks(&run->work, subnet);
	b->blocks += run->blocks;
}

/* ---- the rows of a step ---- */

static void count_rows(int *counts, const struct plan *plan, int rows) {
	for (int i = 0; i < plan->depth; i++)
		counts[plan->layers[i]] += rows;
}

static void form_answers(struct sim_batch *b) {
	double attended = 0;
	for (int i = 0; i < b->n; i++) {
		struct sim_run *run = b->runs[i];
		const struct plan *plan = &run->subnet->stack[STACK_DECODER];
		run->row_now = run->answering && !run->rests;
		if (!run->row_now)
			continue;
		int keys = run->work.prompt + run->out + run->work.source, rows = run->work.places;
		count_rows(b->row_count[STACK_DECODER], plan, rows);
		attended += (double)plan->depth * rows * keys;
		b->step.rows += rows;
	}
	b->step.attended = attended / 1024;
	b->step.logit_rows = b->step.decode_rows = b->step.rows;
	memcpy(b->decode_count, b->row_count[STACK_DECODER],
	                (size_t)b->layers[STACK_DECODER] * sizeof *b->decode_count);
}

/* What of the bound on rows is left. */
struct room {
	int rows, tiles;
	bool source; /* one has passed */
};

/* A source enters whole, with the first row of what follows; false if it must wait. */
static bool form_source(struct sim_batch *b, struct sim_run *run, struct room *room) {
	const struct plan *encoder = &run->subnet->stack[STACK_ENCODER];
	int n = run->work.source;
	if (n == 0 || run->source_fed)
		return true;
	if (n + 1 > b->limits.max_rows - b->step.rows || (n + 1 > room->rows && room->source)
	                || (b->limits.source_tiles > 0 && tiles_of(n) > room->tiles))
		return false;
	count_rows(b->row_count[STACK_ENCODER], encoder, n);
	count_rows(b->source_count, &run->subnet->stack[STACK_DECODER], n);
	b->step.rows += n;
	b->step.source_attended += encoder->depth * ((double)n * n / 1024);
	run->source_now = room->source = true;
	room->tiles -= tiles_of(n);
	room->rows = n + 1 > room->rows ? 1 : room->rows - n;
	return true;
}

static void form_chunk(struct sim_batch *b, struct sim_run *run, int rows) {
	const struct plan *plan = &run->subnet->stack[STACK_DECODER];
	/* Row k of the chunk sees fed + k + 1 keys of its own past. */
	double keys = (double)rows * (run->fed + run->work.source) + 0.5 * rows * (rows + 1.0);
	count_rows(b->row_count[STACK_DECODER], plan, rows);
	b->step.chunk_attended += plan->depth * keys / 1024;
	b->step.rows += rows;
	run->chunk = rows;
	if (run->fed + rows == run->work.prompt && run->work.length > 0)
		b->step.logit_rows++;
}

const struct cost_step *sim_batch_form(struct sim_batch *b, int prompt_rows) {
	struct cost_step *step = &b->step;
	memset(b->row_count[STACK_ENCODER], 0, (size_t)b->layers[STACK_ENCODER] * sizeof(int));
	memset(b->row_count[STACK_DECODER], 0, (size_t)b->layers[STACK_DECODER] * sizeof(int));
	memset(b->source_count, 0, (size_t)b->layers[STACK_DECODER] * sizeof(int));
	step->rows = step->logit_rows = 0;
	step->chunk_attended = step->source_attended = 0;
	form_answers(b);
	struct room room = { .rows = b->limits.max_rows - step->rows,
		.tiles = b->limits.source_tiles };
	if (step->rows > 0)
		room.rows = least(room.rows, prompt_rows);
	for (int i = 0; i < b->n; i++) {
		struct sim_run *run = b->runs[i];
		run->chunk = 0;
		run->source_now = false;
		if (run->answering || run->rests || room.rows <= 0 || !form_source(b, run, &room))
			continue;
		int rows = least(run->work.prompt - run->fed, room.rows);
		form_chunk(b, run, rows);
		room.rows -= rows;
	}
	return step->rows > 0 ? step : NULL;
}

/* ---- after a step ---- */

void sim_batch_advance(struct sim_batch *b) {
	for (int i = 0; i < b->n; i++) {
		struct sim_run *run = b->runs[i];
		run->out += run->row_now;
		run->source_fed = run->source_fed || run->source_now;
		run->fed += run->chunk;
		if (run->chunk > 0 && run->fed == run->work.prompt) {
			run->answering = true;
			run->out = run->work.length > 0 ? 1 : 0;
		}
	}
}

bool sim_run_is_done(const struct sim_run *run) {
	return run->answering && run->out >= run->work.length;
}
