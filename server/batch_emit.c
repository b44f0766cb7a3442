/* SPDX-License-Identifier: Apache-2.0 */
/* What the scores of a step become: tokens, text, log-probabilities. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "server/batch_parts.h"
#include "server/clock.h"

static bool is_end_symbol(const struct facts *facts, int32_t token) {
	bool found = token == facts->eos;
	for (int i = 0; i < facts->n_eos; i++)
		found = found || token == facts->eos_ids[i];
	return found && token >= 0;
}

void batch_note_time(struct batch *b, struct ticket *t, int64_t *last_ns) {
	struct job_times *times = &t->report.times;
	int64_t now_ns = clock_now_ns();
	if (times->first_token_ns == 0) {
		times->first_token_ns = now_ns;
		metrics_first_token(b->metrics, &t->subnet,
		                clock_ms(now_ns - times->received_ns) * 1e-3);
	}
	if (*last_ns > 0)
		metrics_inter_token(b->metrics, &t->subnet, clock_ms(now_ns - *last_ns) * 1e-3);
	*last_ns = now_ns;
}

/* The token's log-probability where it was asked for or is needed to choose among best_of. */
static bool note_logprob(
                struct batch *b, struct ticket *t, int choice, const float *logits, int32_t token) {
	const struct job *job = t->job;
	struct choice *out = &job->choices[choice];
	int at = t->progress[choice].n_tokens;
	if (!job->want_logprobs && job->best_of == job->n)
		return true;
	float logprob;
	struct token_logprob *tops =
	                job->n_top > 0 ? out->tops + (size_t)at * (size_t)job->n_top : NULL;
	if (!sample_logprobs(b->sampler, logits, token, job->n_top, &logprob, tops, NULL))
		return false;
	out->logprob_sum += logprob;
	if (job->want_logprobs)
		out->logprobs[at] = logprob;
	return true;
}

void batch_add_text(struct batch *b, struct ticket *t, int choice, int32_t token, bool ends) {
	struct run_choice *c = &t->choices[choice];
	struct choice *out = &t->job->choices[choice];
	if (!ends)
		detokenise_add(&c->text, token, b->scratch);
	if (out->token_text_end)
		out->token_text_end[t->progress[choice].n_tokens] = c->text.len;
}

/*
 * Which random numbers the choice draws by. With the client's seed a prompt gives in a list what it
 * gives alone; without, prompts that are the same are samples of their own.
 */
static uint32_t random_stream(const struct job *job, int choice) {
	return (uint32_t)(job->request.seed.set ? choice % job->best_of : choice);
}

bool batch_pick(struct batch *b, const struct ticket *t, int choice, const float *logits,
                int drafted, int32_t *ret_token) {
	const struct job *job = t->job;
	struct past past = ticket_past(job, ticket_prompt_of(t, choice));
	int n = t->progress[choice].n_tokens + drafted;
	struct sampling sampling = job->sampling;
	if (n >= job->min_tokens)
		sampling.n_banned = job->n_never;
	return sample_token(b->sampler, logits, &sampling, past.tokens, (size_t)past.n,
	                job->choices[choice].tokens, (size_t)n, random_stream(job, choice),
	                (uint32_t)(past.n + n), ret_token);
}

bool batch_ends(const struct batch *b, const struct ticket *t, int32_t token) {
	return !t->job->request.ignore_eos && is_end_symbol(&b->model->facts, token);
}

/* Draws a token, stores it, and ends the choice if the token ends it. */
static void draw(struct batch *b, struct ticket *t, int choice, const float *logits) {
	struct job *job = t->job;
	const struct request *request = &job->request;
	struct run_choice *c = &t->choices[choice];
	struct choice *out = &job->choices[choice];
	struct choice_progress *progress = &t->progress[choice];
	int32_t token;
	if (!batch_pick(b, t, choice, logits, 0, &token)
	                || !note_logprob(b, t, choice, logits, token)) {
		batch_fail_not_finite(t);
		return;
	}
	bool ends = batch_ends(b, t, token);
	out->tokens[progress->n_tokens] = token;
	batch_add_text(b, t, choice, token, ends);
	progress->n_tokens++;
	batch_note_time(b, t, &c->last_token_ns);
	t->news = true;

	if (ends) {
		batch_end_choice(b, t, choice, FINISH_STOP, DETAIL_NONE);
		return;
	}
	if (progress->n_tokens <= job->min_tokens) {
		detokenise_skip(&c->text);
	} else {
		out->stop_index = detokenise_stop(
		                &c->text, request->stops, request->stop_lens, request->n_stops);
		if (out->stop_index >= 0) {
			batch_end_choice(b, t, choice, FINISH_STOP, DETAIL_NONE);
			return;
		}
	}
	progress->text_len = detokenise_shown(
	                &c->text, request->stops, request->stop_lens, request->n_stops);
	if (progress->n_tokens == job->max_tokens)
		batch_end_choice(b, t, choice, FINISH_LENGTH, DETAIL_NONE);
}

/*
 * The next token of a choice, if the drafted ones before this row were its tokens. Those of rows
 * after a wrong one are of no use, but what they left in the cache must be finite (kv.h); where it is
 * not, the row's scores are neither.
 */
static void verify(
                struct batch *b, struct ticket *t, const struct want *want, const float *logits) {
	struct run_choice *c = &t->choices[want->index];
	const struct choice_progress *progress = &t->progress[want->index];
	const int32_t *tokens = t->job->choices[want->index].tokens;
	if (progress->finish != FINISH_NONE || want->drafted != c->accepted) {
		c->spoiled = c->spoiled || isnan(logits[0]);
		return;
	}
	bool drafted = want->drafted < c->drafted;
	int32_t guess = drafted ? tokens[progress->n_tokens] : -1;
	draw(b, t, want->index, logits);
	if (drafted && !t->failed && tokens[progress->n_tokens - 1] == guess)
		c->accepted++;
}

/* The end of a prompt: each choice of the group draws its first token; those that go on share the
 * prompt's blocks. */
static void begin_choices(struct batch *b, struct ticket *t, int prompt, const float *logits) {
	struct run_prompt *p = &t->prompts[prompt];
	const struct job *job = t->job;
	int tokens = ticket_sequence_tokens(job, prompt);
	int first = prompt * job->best_of + p->begun - p->group;
	struct sequence *base = p->sequence;
	bool taken = false;

	p->scored = true; /* its scores precede this row in the list */
	batch_remember(b, t, prompt, base, NULL, 0);
	if (p->begun == p->group && ticket_uses_cache(job))
		metrics_prefix(b->metrics, p->cached);
	batch_release_group(b, p);
	for (int i = first; i < first + p->group && !t->failed; i++) {
		draw(b, t, i, logits);
		if (t->failed || t->progress[i].finish != FINISH_NONE)
			continue;
		if (!taken) {
			t->choices[i].sequence = base;
			taken = true;
			continue;
		}
		t->choices[i].sequence = sequence_fork(b->workspace, base, tokens);
		assert(t->choices[i].sequence); /* its blocks were kept free */
		b->sequences++;
	}
	if (taken)
		p->sequence = NULL;
}

static void score(struct batch *b, struct ticket *t, const struct want *want, const float *logits) {
	const struct job *job = t->job;
	struct job_prompt *prompt = &job->prompts[want->prompt];
	int at = want->index + 1;
	struct token_logprob *tops =
	                job->n_top > 0 ? prompt->tops + (size_t)at * (size_t)job->n_top : NULL;
	if (!sample_logprobs(b->sampler, logits, ticket_past(job, want->prompt).tokens[at],
	                    job->n_top, &prompt->logprobs[at], tops, NULL))
		batch_fail_not_finite(t);
}

/* ---- which scores are read ---- */

/* How many of the best scores the draw of a token can depend on; -1: all. */
static int scores_drawn_from(const struct job *job) {
	const struct sampling *s = &job->sampling;
	/* A bias lifts any token to the top, and penalties may be negative or sink what was there. */
	if (s->n_bias > 0 || s->repetition_penalty != 1 || s->presence_penalty != 0
	                || s->frequency_penalty != 0)
		return -1;
	/* The draw goes over the mass of all, and top_p alone cuts by it. */
	if (s->temperature != 0 && s->top_k == 0)
		return -1;
	/* The best token, or the top_k best, among which top_p cuts: what is banned stands aside for
	 * as many others. Temperature keeps the order. */
	return (s->temperature == 0 ? 1 : s->top_k) + s->n_banned;
}

/*
 * With an adaptive softmax the scores are log-probabilities, so that one of them is exact without
 * the others: a drawn token is among the best, and alternatives are the best themselves.
 */
static struct logit_need need_of(const struct want *want) {
	const struct job *job = want->ticket->job;
	struct logit_need need = { .top = job->n_top, .target = -1 };
	int drawn;
	switch (want->kind) {
	case WANT_SCORE:
		need.target = ticket_past(job, want->prompt).tokens[want->index + 1];
		break;
	case WANT_BEAM:
		need = beam_need(want->ticket->prompts[want->prompt].beam);
		break;
	case WANT_DRAFT:
		need.top = scores_drawn_from(job);
		break;
	case WANT_FIRST:
	case WANT_TOKEN:
		drawn = scores_drawn_from(job);
		if (drawn < 0 || drawn > need.top)
			need.top = drawn;
		break;
	case WANT_MASK:
		break;
	}
	return need;
}

/* ---- all of them ---- */

/* How many wants go together from `first` on: as many as can, but no search is parted. */
static int take_wants(const struct batch *b, int first) {
	int n = b->n_wants - first;
	if (n <= b->max_logit_rows)
		return n;
	n = b->max_logit_rows;
	while (b->wants[first + n].kind == WANT_BEAM && b->wants[first + n].index > 0)
		n--;
	return n;
}

static void emit(struct batch *b, const struct want *want, const float *scores, size_t stride) {
	struct ticket *t = want->ticket;
	if (t->failed)
		return;
	switch (want->kind) {
	case WANT_SCORE:
		score(b, t, want, scores);
		break;
	case WANT_FIRST:
		begin_choices(b, t, want->prompt, scores);
		break;
	case WANT_TOKEN:
		verify(b, t, want, scores);
		break;
	case WANT_DRAFT:
		batch_propose(b, t, want->index, scores);
		break;
	case WANT_BEAM:
		if (want->index == 0)
			batch_advance_search(b, t, want->prompt, scores, stride);
		break;
	case WANT_MASK:
		batch_fill_mask(b, t, want->prompt, want->index, scores);
		break;
	}
}

void batch_emit(struct batch *b) {
	size_t stride = step_logits_stride(b->workspace);
	for (int done = 0; done < b->n_wants;) {
		int n = take_wants(b, done);
		for (int i = 0; i < n; i++) {
			b->logit_rows[i] = b->wants[done + i].row;
			b->needs[i] = need_of(&b->wants[done + i]);
		}
		const float *scores = step_logits_needed(b->workspace, b->logit_rows, b->needs, n);
		for (int i = 0; i < n; i++)
			emit(b, &b->wants[done + i], scores + (size_t)i * stride, stride);
		done += n;
	}
}
