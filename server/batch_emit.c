/* SPDX-License-Identifier: Apache-2.0 */
/* What the logits of a step become: tokens, text, log-probabilities, ends. */
#include <assert.h>
#include <string.h>

#include "server/batch_parts.h"
#include "server/clock.h"

/* ---- ends ---- */

void batch_end_choice(struct batch *b, struct ticket *t, int choice, enum finish finish,
                enum finish_detail detail) {
	const struct request *request = &t->job->request;
	struct run_choice *c = &t->choices[choice];
	struct choice_progress *progress = &t->progress[choice];
	if (progress->finish != FINISH_NONE)
		return;
	batch_close(b, &c->sequence);
	if (detokenise_end(&c->text, b->scratch)) {
		int *stop = &t->job->choices[choice].stop_index;
		*stop = detokenise_stop(
		                &c->text, request->stops, request->stop_lens, request->n_stops);
		finish = *stop >= 0 ? FINISH_STOP : finish;
	}
	progress->text_len = c->text.len;
	progress->finish = finish;
	progress->detail = detail;
	t->choices_done++;
	t->news = true;
}

static double ms_between(int64_t from_ns, int64_t to_ns) {
	return from_ns > 0 && to_ns > from_ns ? clock_ms(to_ns - from_ns) : 0;
}

void batch_end(struct batch *b, struct ticket *t, const struct error *error) {
	struct job_times *times = &t->report.times;
	for (int i = 0; i < t->job->n_choices; i++)
		batch_close(b, &t->choices[i].sequence);
	for (int i = 0; i < t->job->n_prompts; i++) {
		batch_release_group(b, &t->prompts[i]);
		batch_close(b, &t->prompts[i].sequence);
	}
	if (error)
		t->job->error = *error;
	times->done_ns = clock_now_ns();
	if (times->first_token_ns > 0) {
		t->report.prefill_ms = ms_between(times->joined_ns, times->first_token_ns);
		t->report.decode_ms = ms_between(times->first_token_ns, times->done_ns);
	} else {
		t->report.prefill_ms = ms_between(times->joined_ns, times->done_ns);
	}
	t->report.state = JOB_DONE;
	t->news = true;
}

void batch_settle(struct batch *b, struct ticket *t) {
	if (t->prompts_through == t->job->n_prompts && t->choices_done == t->job->n_choices)
		batch_end(b, t, NULL);
}

void batch_fail(struct batch *b, struct ticket *t, const struct error *error) {
	batch_end(b, t, error);
}

/* All choices end here with what they have. */
static void cut(struct batch *b, struct ticket *t, enum finish_detail detail) {
	for (int i = 0; i < t->job->n_choices; i++)
		batch_end_choice(b, t, i, FINISH_LENGTH, detail);
	batch_end(b, t, NULL);
}

/* Whether an answer could end now: a token is out, and what was asked of the prompts is done. */
static bool has_answer(const struct ticket *t) {
	if (!ticket_has_token(t))
		return false;
	for (int i = 0; t->job->want_prompt_logprobs && i < t->job->n_prompts; i++) {
		if (!t->prompts[i].scored)
			return false;
	}
	return true;
}

static void expire(struct batch *b, struct ticket *t, int64_t now_ns, double step_ms) {
	const struct job *job = t->job;
	if (job->deadline_ns > 0 && now_ns >= job->deadline_ns) {
		bool started = t->report.times.first_token_ns > 0;
		metrics_deadline_exceeded(b->metrics, started ? STAGE_DECODE : STAGE_PREFILL);
		if (has_answer(t)) {
			cut(b, t, DETAIL_DEADLINE);
			return;
		}
		struct error e = { 0 };
		error_set(&e, ERROR_DEADLINE_EXCEEDED, "",
		                "The deadline passed before the answer could begin; allow more "
		                "time or "
		                "ask "
		                "for a shallower depth.");
		batch_end(b, t, &e);
		return;
	}
	if (job->on_miss != ON_MISS_TRUNCATE || job->latency_budget_ms <= 0 || !has_answer(t))
		return;
	double spent_ms = ms_between(t->report.times.received_ns, now_ns);
	if (spent_ms + step_ms > job->latency_budget_ms)
		cut(b, t, DETAIL_BUDGET);
}

void batch_expire(struct batch *b, int64_t now_ns, double step_ms) {
	for (struct ticket *t = b->running; t; t = t->next) {
		if (t->report.state != JOB_DONE)
			expire(b, t, now_ns, step_ms);
	}
}

/* ---- tokens ---- */

static void fail_not_finite(struct ticket *t) {
	error_set(&t->job->error, ERROR_INTERNAL, "",
	                "The model's output for this request is not finite; try another prompt or "
	                "depth.");
	t->failed = true;
}

static bool is_end_symbol(const struct facts *facts, int32_t token) {
	bool found = token == facts->eos;
	for (int i = 0; i < facts->n_eos; i++)
		found = found || token == facts->eos_ids[i];
	return found && token >= 0;
}

static void note_time(struct batch *b, struct ticket *t, struct run_choice *c) {
	int64_t now_ns = clock_now_ns();
	if (t->report.times.first_token_ns == 0) {
		t->report.times.first_token_ns = now_ns;
		metrics_first_token(b->metrics, &t->subnet,
		                ms_between(t->report.times.received_ns, now_ns) * 1e-3);
	}
	if (c->last_token_ns > 0)
		metrics_inter_token(b->metrics, &t->subnet,
		                ms_between(c->last_token_ns, now_ns) * 1e-3);
	c->last_token_ns = now_ns;
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

static void add_text(struct batch *b, struct ticket *t, int choice, int32_t token, bool ends) {
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

/* Draws a token, stores it, and ends the choice if the token ends it. */
static void draw(struct batch *b, struct ticket *t, int choice, const float *logits) {
	struct job *job = t->job;
	const struct request *request = &job->request;
	struct run_choice *c = &t->choices[choice];
	struct choice *out = &job->choices[choice];
	struct choice_progress *progress = &t->progress[choice];
	const struct job_prompt *prompt = &job->prompts[ticket_prompt_of(t, choice)];

	struct sampling sampling = job->sampling;
	if (progress->n_tokens >= job->min_tokens)
		sampling.n_banned = 0;
	int32_t token;
	if (!sample_token(b->sampler, logits, &sampling, prompt->tokens, (size_t)prompt->n_tokens,
	                    out->tokens, (size_t)progress->n_tokens, random_stream(job, choice),
	                    (uint32_t)(prompt->n_tokens + progress->n_tokens), &token)
	                || !note_logprob(b, t, choice, logits, token)) {
		fail_not_finite(t);
		return;
	}
	bool ends = !request->ignore_eos && is_end_symbol(&b->model->facts, token);
	out->tokens[progress->n_tokens] = token;
	add_text(b, t, choice, token, ends);
	progress->n_tokens++;
	note_time(b, t, c);
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
	int token = want->index + 1;
	struct token_logprob *tops =
	                job->n_top > 0 ? prompt->tops + (size_t)token * (size_t)job->n_top : NULL;
	if (!sample_logprobs(b->sampler, logits, prompt->tokens[token], job->n_top,
	                    &prompt->logprobs[token], tops, NULL))
		fail_not_finite(t);
}

void batch_emit(struct batch *b) {
	size_t stride = step_logits_stride(b->workspace);
	for (int done = 0; done < b->n_wants;) {
		int n = b->n_wants - done;
		if (n > b->max_logit_rows)
			n = b->max_logit_rows;
		for (int i = 0; i < n; i++)
			b->logit_rows[i] = b->wants[done + i].row;
		const float *logits = step_logits(b->workspace, b->logit_rows, n);
		for (int i = 0; i < n; i++) {
			const struct want *want = &b->wants[done + i];
			const float *row = logits + (size_t)i * stride;
			if (want->ticket->failed)
				continue;
			if (want->kind == WANT_SCORE)
				score(b, want->ticket, want, row);
			else if (want->kind == WANT_FIRST)
				begin_choices(b, want->ticket, want->prompt, row);
			else
				draw(b, want->ticket, want->index, row);
		}
		done += n;
	}
}
