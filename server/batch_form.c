/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of a step of a model that generates: one for each running choice and each live beam,
 * then sources, whole, and chunks of what the decoder reads before it answers.
 *
 * While answers grow, the rows of prompts are bounded, so that a long prompt delays them little. A
 * source cannot be cut: the first one of a step may pass the bound.
 */
#include <string.h>

#include "server/batch_parts.h"

static int least(int a, int b) {
	return a < b ? a : b;
}

static int tiles_of(int tokens) {
	return (tokens + KV_TILE - 1) / KV_TILE;
}

void batch_want(struct batch *b, struct ticket *t, enum want_kind kind, int prompt, int index) {
	b->wants[b->n_wants++] = (struct want){
		.ticket = t, .kind = kind, .prompt = prompt, .index = index, .row = b->n_rows - 1
	};
}

/* ---- sources ---- */

bool batch_has_room(const struct batch *b, int tokens, int more_rows) {
	return tokens + more_rows <= b->limits.max_rows - b->n_rows
	                && tiles_of(tokens) <= b->limits.source_tiles - b->source_tiles;
}

void batch_add_source(struct batch *b, struct ticket *t, int prompt, struct sequence *s) {
	const struct job_prompt *jp = &t->job->prompts[prompt];
	const struct plan *encoder = &t->subnet.stack[STACK_ENCODER],
	                  *decoder = &t->subnet.stack[STACK_DECODER];
	int n = jp->n_tokens;
	bool pair = b->model->facts.stack[STACK_ENCODER].token_types > 1 && jp->second > 0;
	for (int i = 0; i < n; i++)
		b->rows[b->n_rows++] = (struct row){ .sequence = s,
			.stack = STACK_ENCODER,
			.token = jp->tokens[i],
			.position = i,
			.type = pair && i >= jp->second };
	b->source_tiles += tiles_of(n);
	b->source_attended += encoder->depth * ((double)n * n / 1024);
	for (int i = 0; i < encoder->depth; i++)
		b->row_count[STACK_ENCODER][encoder->layers[i]] += n;
	for (int i = 0; i < decoder->depth; i++)
		b->source_count[decoder->layers[i]] += n;
}

/* ---- decoder rows ---- */

static void add_row(struct batch *b, struct ticket *t, int prompt, struct sequence *s,
                int32_t token, int position, bool chunk) {
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	int keys = position + 1 + ticket_source_tokens(t->job, prompt);
	b->rows[b->n_rows++] = (struct row){
		.sequence = s, .stack = STACK_DECODER, .token = token, .position = position
	};
	for (int i = 0; i < plan->depth; i++)
		b->row_count[STACK_DECODER][plan->layers[i]]++;
	*(chunk ? &b->chunk_attended : &b->attended) += plan->depth * keys / 1024.0;
}

static void form_beams(struct batch *b, struct ticket *t, int prompt) {
	const struct run_prompt *p = &t->prompts[prompt];
	for (int i = 0; p->searching && i < beam_live(p->beam); i++) {
		struct sequence *s = beam_sequence(p->beam, i);
		add_row(b, t, prompt, s, beam_token(p->beam, i), sequence_length(s), false);
		batch_want(b, t, WANT_BEAM, prompt, i);
	}
}

/* The last token, and those that were drafted after it. They read the same past. */
static void form_choice(struct batch *b, struct ticket *t, int choice) {
	const struct run_choice *c = &t->choices[choice];
	const int32_t *tokens = t->job->choices[choice].tokens;
	int prompt = ticket_prompt_of(t, choice), last = t->progress[choice].n_tokens - 1;
	int position = sequence_length(c->sequence);
	for (int i = 0; i <= c->drafted; i++) {
		add_row(b, t, prompt, c->sequence, tokens[last + i], position + i, i > 0);
		batch_want(b, t, WANT_TOKEN, prompt, choice);
		b->wants[b->n_wants - 1].drafted = i;
	}
	b->drafted_rows += c->drafted;
}

static void form_answers(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->scheduled.rests)
			continue;
		for (int i = 0; i < t->job->n_choices; i++) {
			if (t->choices[i].sequence)
				form_choice(b, t, i);
		}
		for (int i = 0; i < t->job->n_prompts && t->job->num_beams > 0; i++)
			form_beams(b, t, i);
	}
	b->decode_rows = b->n_rows;
	memcpy(b->decode_count, b->row_count[STACK_DECODER], sizeof b->decode_count);
}

static void form_chunk(struct batch *b, struct ticket *t, int prompt, int rows) {
	struct run_prompt *p = &t->prompts[prompt];
	struct past past = ticket_past(t->job, prompt);
	for (int i = 0; i < rows; i++) {
		int position = p->fed++;
		add_row(b, t, prompt, p->sequence, past.tokens[position], position, true);
		if (p->fed < past.n) {
			if (t->job->want_prompt_logprobs && !p->scored)
				batch_want(b, t, WANT_SCORE, prompt, position);
		} else if (t->job->num_beams > 0) {
			batch_begin_search(b, t, prompt);
			batch_want(b, t, WANT_BEAM, prompt, 0);
		} else if (t->job->max_tokens > 0) {
			batch_want(b, t, WANT_FIRST, prompt, position);
		}
	}
}

/* What of the bound on rows is left. */
struct room {
	int rows;
	bool source; /* one has passed */
};

/* The source, if it has not been read; false if it must wait. */
static bool form_source(struct batch *b, struct ticket *t, int prompt, struct room *room) {
	struct run_prompt *p = &t->prompts[prompt];
	int n = ticket_source_tokens(t->job, prompt);
	if (n == 0 || p->source_fed)
		return true;
	/* With the first row of what follows, so that an answer can begin at once. */
	if (!batch_has_room(b, n, 1) || (n + 1 > room->rows && room->source))
		return false;
	batch_add_source(b, t, prompt, p->sequence);
	p->source_fed = true;
	room->source = true;
	room->rows = n + 1 > room->rows ? 1 : room->rows - n;
	return true;
}

static void form_prompts_of(struct batch *b, struct ticket *t, struct room *room) {
	for (int i = 0; i < t->job->n_prompts && room->rows > 0; i++) {
		struct run_prompt *p = &t->prompts[i];
		if (!p->sequence || batch_is_led(b, t, i) || !form_source(b, t, i, room))
			continue;
		int rows = least(ticket_past(t->job, i).n - p->fed, room->rows);
		form_chunk(b, t, i, rows);
		room->rows -= rows;
	}
}

static void form_prompts(struct batch *b) {
	struct room room = { .rows = b->limits.max_rows - b->n_rows };
	if (b->decode_rows > 0)
		room.rows = least(room.rows, b->prompt_rows);
	for (int i = 0; b->order && i < b->n_order; i++)
		form_prompts_of(b, ticket_of(b->order[i]), &room);
	for (struct ticket *t = b->order ? NULL : b->running; t; t = t->next)
		form_prompts_of(b, t, &room);
}

void batch_form(struct batch *b) {
	form_answers(b);
	form_prompts(b);
}
