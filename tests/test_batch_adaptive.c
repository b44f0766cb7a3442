/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Language models with an adaptive softmax in the running batch: only the scores that are read are
 * computed, and no answer shows it.
 */
#include "tests/check.h"
#include "tests/running.h"

static const char *const folders[] = { "tiny-lm-adaptive", "tiny-lm-bands" };

/* A bias of nothing: all scores are then computed. */
static const char all_scores[] = ",\"logit_bias\":{\"5\":0}";

static struct ticket *run(const char *more, const char *even_more) {
	char body[512];
	snprintf(body, sizeof body,
	                "{\"prompt\":[2,14,38,76,13],\"max_tokens\":24,\"ignore_eos\":true%s%s}",
	                more, even_more);
	struct ticket *t = running_join(REQUEST_COMPLETION, body);
	running_all();
	CHECK_INT(t->job->error.code, ERROR_NONE);
	return t;
}

static void check_same(const char *more) {
	for (size_t f = 0; f < 2; f++) {
		running_open(folders[f]);
		CHECK(running_rig.model->facts.output.n > 0);
		struct ticket *some = run(more, ""), *all = run(more, all_scores);
		const struct job *job = some->job;
		for (int i = 0; i < job->n_choices; i++) {
			const struct choice *x = &job->choices[i], *y = &all->job->choices[i];
			size_t n = (size_t)some->progress[i].n_tokens;
			CHECK_INT(n, 24);
			CHECK(memcmp(x->tokens, y->tokens, n * sizeof *x->tokens) == 0);
			CHECK(!x->logprobs
			                || memcmp(x->logprobs, y->logprobs, n * sizeof *x->logprobs)
			                                == 0);
			CHECK(!x->tops
			                || memcmp(x->tops, y->tops,
			                                   n * (size_t)job->n_top * sizeof *x->tops)
			                                == 0);
		}
		running_destroy(some);
		running_destroy(all);
		running_close();
	}
}

TEST(greedy_answers_need_the_best_score_only) {
	check_same(",\"temperature\":0");
}

TEST(alternatives_are_the_best_scores) {
	check_same(",\"temperature\":0,\"logprobs\":7");
}

TEST(top_k_needs_as_many) {
	check_same(",\"temperature\":1.5,\"top_k\":30,\"top_p\":0.9,\"seed\":3,\"n\":3,"
	           "\"logprobs\":0");
}

TEST(all_are_there_for_a_draw_without_top_k) {
	check_same(",\"temperature\":1.5,\"seed\":3,\"logprobs\":2");
}

TEST(penalties_see_all_scores) {
	check_same(",\"temperature\":0,\"frequency_penalty\":1.5,\"repetition_penalty\":1.3");
}

TEST(the_best_of_several_are_told_by_exact_sums) {
	check_same(",\"temperature\":1.2,\"top_k\":5,\"seed\":9,\"n\":1,\"best_of\":4");
}

TEST(greedy_answers_are_those_of_all_scores_taken_alone) {
	for (size_t f = 0; f < 2; f++) {
		running_open(folders[f]);
		struct ticket *t = run(",\"temperature\":0", "");
		const struct job *job = t->job;
		int32_t expected[24];
		rig_greedy(&running_rig, &job->policy.subnet.stack[STACK_DECODER],
		                job->prompts[0].tokens, job->prompts[0].n_tokens, 24, expected,
		                NULL);
		CHECK(memcmp(job->choices[0].tokens, expected, sizeof expected) == 0);
		running_destroy(t);
		running_close();
	}
}

TEST(a_prompt_is_scored_by_its_own_tokens) {
	for (size_t f = 0; f < 2; f++) {
		static const char body[] = "{\"input\":[2,95,14,60,85,7,30,90]}";
		running_open(folders[f]);
		struct ticket *t = running_join(REQUEST_LOGLIKELIHOOD, body);
		struct ticket *tops = running_join(REQUEST_COMPLETION,
		                "{\"prompt\":[2,95,14,60,85,7,30,90],\"echo\":true,"
		                "\"logprobs\":20,\"max_tokens\":0}");
		running_all();
		const float *x = t->job->prompts[0].logprobs, *y = tops->job->prompts[0].logprobs;
		CHECK(memcmp(x + 1, y + 1, 7 * sizeof *x) == 0);
		for (int i = 1; i < 8; i++)
			CHECK(x[i] < 0 && x[i] > -1000);
		running_destroy(t);
		running_destroy(tops);
		running_close();
	}
}
