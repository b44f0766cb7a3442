/* SPDX-License-Identifier: Apache-2.0 */
/* How choices and tickets end: by themselves, at a time, or with an error. */
#include "server/batch_parts.h"
#include "server/clock.h"

void batch_end_choice(struct batch *b, struct ticket *t, int choice, enum finish finish,
                enum finish_detail detail) {
	const struct request *request = &t->job->request;
	struct run_choice *c = &t->choices[choice];
	struct choice_progress *progress = &t->progress[choice];
	if (progress->finish != FINISH_NONE)
		return;
	batch_remember_choice(b, t, choice);
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
	for (int i = 0; i < t->job->n_choices; i++) {
		batch_remember_choice(b, t, i);
		batch_close(b, &t->choices[i].sequence);
	}
	for (int i = 0; i < t->job->n_prompts; i++) {
		batch_close_search(b, &t->prompts[i]);
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

void batch_fail_not_finite(struct ticket *t) {
	error_set(&t->job->error, ERROR_INTERNAL, "",
	                "The model's output for this request is not finite; try another prompt or "
	                "depth.");
	t->failed = true;
}

/* ---- time ---- */

void batch_cut(struct batch *b, struct ticket *t, enum finish_detail detail) {
	for (int i = 0; i < t->job->n_prompts; i++) {
		if (t->prompts[i].searching)
			batch_cut_search(b, t, i, detail);
	}
	for (int i = 0; i < t->job->n_choices; i++)
		batch_end_choice(b, t, i, FINISH_LENGTH, detail);
	batch_end(b, t, NULL);
}

bool batch_can_end(const struct ticket *t) {
	if (ticket_most_tokens(t) == 0)
		return false;
	for (int i = 0; t->job->want_prompt_logprobs && i < t->job->n_prompts; i++) {
		if (!t->prompts[i].scored)
			return false;
	}
	return true;
}
