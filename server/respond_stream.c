/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of a stream. Each choice's text goes out as it comes; the chunks that carry finish_reason
 * wait for the end of the job, when its timings are known.
 */
#include <string.h>

#include "server/clock.h"
#include "server/compose.h"
#include "server/resolve.h"
#include "server/respond.h"

enum { ENOUGH_BYTES = 65536 }; /* of events that the client has not taken */

/* What is new of one choice. */
struct piece {
	struct answer_choice choice;
	struct token_list list;
	struct buffer text; /* of an echoed prompt */
};

static void write_piece(struct call *call, struct piece *piece, bool final, struct buffer *out) {
	struct respond *r = call->respond;
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	struct answer_vocab vocab = compose_vocab(model);
	struct answer_change changes[COMPOSE_CHANGES];
	struct answer_depth depth;
	struct answer_timings timings;
	struct answer a = { .kind = job->kind,
		.id = job->id,
		.model = resolve_served_name(model, call->server->config),
		.created = job->created,
		.choices = &piece->choice,
		.n_choices = 1,
		.vocab = &vocab };
	if (final || !r->depth_sent) {
		compose_depth(job, &r->subnet, r->reason, final ? changes : NULL, &depth);
		a.depth = &depth;
	}
	if (!r->depth_sent) {
		a.warnings = (const char *const *)r->warnings;
		a.n_warnings = r->n_warnings;
	}
	r->depth_sent = true;
	if (final) {
		compose_timings(job, &timings);
		a.timings = &timings;
	}
	answer_write_chunk(out, &a);
	token_list_finish(&piece->list);
	buffer_finish(&piece->text);
}

static void write_echo(struct call *call, int i, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	struct sent *sent = &call->respond->sent[i];
	int p = i / job->best_of;
	const struct job_prompt *prompt = &job->prompts[p];
	struct piece piece = { .choice = { .index = i, .first = true } };
	compose_prompt_text(model, job, p, &piece.text);
	piece.choice.text = piece.text.data;
	piece.choice.text_len = piece.text.len;
	if (job->want_logprobs && token_list_init(&piece.list, (size_t)prompt->n_tokens, job->n_top)
	                && token_list_add_prompt(&piece.list, model, prompt, 0, prompt->n_tokens)) {
		piece.choice.logprobs = true;
		piece.choice.tokens = piece.list.tokens;
		piece.choice.n_tokens = piece.list.n;
		sent->text_offset = piece.list.text_offset;
	}
	sent->echoed = sent->begun = true;
	write_piece(call, &piece, false, out);
}

static void write_new(struct call *call, int i, bool final, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	const struct choice *choice = &job->choices[i];
	const struct choice_progress *seen = &call->respond->seen[i];
	struct sent *sent = &call->respond->sent[i];
	int n = seen->n_tokens - sent->tokens;
	struct piece piece = { .choice = { .index = i,
		                               .text = choice->text + sent->text,
		                               .text_len = seen->text_len - sent->text,
		                               .first = !sent->begun } };
	if (job->want_logprobs && token_list_init(&piece.list, (size_t)n, job->n_top)) {
		piece.list.text_offset = sent->text_offset;
		token_list_add_choice(&piece.list, model, choice, sent->tokens, seen->n_tokens);
		piece.choice.logprobs = true;
		piece.choice.tokens = piece.list.tokens;
		piece.choice.n_tokens = piece.list.n;
		sent->text_offset = piece.list.text_offset;
	}
	if (job->request.return_token_ids) {
		piece.choice.token_ids = choice->tokens + sent->tokens;
		piece.choice.n_token_ids = (size_t)n;
	}
	if (final)
		compose_finish(job, choice, seen, &piece.choice);
	sent->begun = true;
	sent->finished = final;
	sent->tokens = seen->n_tokens;
	sent->text = seen->text_len;
	write_piece(call, &piece, final, out);
}

/* Appends what is due of one choice. */
static void write_choice(struct call *call, int i, struct buffer *out) {
	struct respond *r = call->respond;
	const struct job *job = call->job;
	const struct choice_progress *seen = &r->seen[i];
	struct sent *sent = &r->sent[i];
	bool started = seen->n_tokens > 0 || r->job_done;
	bool failed = r->job_done && job->error.code != ERROR_NONE;
	bool final = r->job_done && !failed && !sent->finished;
	bool tokens = seen->n_tokens > sent->tokens
	                && (job->want_logprobs || job->request.return_token_ids);
	if (job->request.echo && started && !failed && !sent->echoed)
		write_echo(call, i, out);
	if (final || tokens || seen->text_len > sent->text || (seen->n_tokens > 0 && !sent->begun))
		write_new(call, i, final, out);
}

static void write_usage(struct call *call, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	struct answer_vocab vocab = compose_vocab(model);
	struct answer_usage usage;
	compose_usage(job, &usage);
	answer_write_chunk(out,
	                &(struct answer){ .kind = job->kind,
	                                .id = job->id,
	                                .model = resolve_served_name(model, call->server->config),
	                                .created = job->created,
	                                .usage = &usage,
	                                .vocab = &vocab });
}

enum fill respond_fill_stream(void *user, struct buffer *out) {
	struct call *call = user;
	struct respond *r = call->respond;
	const struct job *job = call->job;
	size_t before = out->len;
	if (r->ping_due)
		answer_write_ping(out);
	r->ping_due = false;
	for (int i = 0; i < job->n_choices; i++) {
		write_choice(call, i, out);
		if (out->len >= ENOUGH_BYTES && i + 1 < job->n_choices)
			return FILL_MORE;
	}
	if (out->len > before)
		r->last_out_ns = clock_now_ns();
	if (!r->job_done)
		return FILL_MORE;
	if (job->error.code != ERROR_NONE) {
		answer_write_error_event(out, &job->error, call->request_id);
		return FILL_END;
	}
	if (job->request.include_usage)
		write_usage(call, out);
	answer_write_done(out);
	return FILL_END;
}
