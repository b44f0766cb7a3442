/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafting in the running batch: answers are those of plain decoding, whatever is asked of them and
 * whoever runs beside them; and when it pays to draft.
 */
#include <stdio.h>

#include "tests/check.h"
#include "tests/random_model.h"
#include "tests/running.h"

enum { ROUNDS = 40, SIDE_BY_SIDE = 5 };

static const struct cost_model unknown; /* as much is drafted as may be */

static void run_all(bool draft) {
	for (int i = 0; batch_jobs(running_batch) > 0; i++) {
		CHECK(i < 10000);
		batch_speculate(running_batch, draft ? &unknown : NULL);
		running_step();
	}
}

/* A request of random wishes; `speculative` is its field of that name. */
static void random_body(uint64_t seed, const char *speculative, char *ret, size_t size) {
	static const char *const wishes[] = {
		"",
		",\"temperature\":0.8",
		",\"temperature\":1.5,\"top_k\":20",
		",\"temperature\":0.9,\"top_p\":0.8,\"presence_penalty\":1.5",
		",\"repetition_penalty\":1.3",
		",\"temperature\":0.7,\"frequency_penalty\":0.9,\"logit_bias\":{\"17\":3}",
		",\"temperature\":1,\"n\":3",
		",\"temperature\":1,\"n\":2,\"best_of\":4",
	};
	static const char *const ends[] = { "", ",\"ignore_eos\":true", ",\"min_tokens\":9",
		",\"stop\":[\"e\",\"the\"]", ",\"logprobs\":2",
		",\"logprobs\":0,\"stop\":[\"a\"]" };
	uint64_t state = seed;
	int32_t prompt[12];
	int n = 1 + (int)random_below(&state, 12), depth = 2 + (int)random_below(&state, 2);
	size_t len = (size_t)snprintf(ret, size, "{\"prompt\":[");
	for (int i = 0; i < n; i++) {
		prompt[i] = 10 + (int32_t)random_below(&state, 200);
		len += (size_t)snprintf(ret + len, size - len, "%s%d", i ? "," : "", prompt[i]);
	}
	snprintf(ret + len, size - len,
	                "],\"seed\":%u,\"max_tokens\":%u,\"temperature\":0%s%s,\"depth\":%d%s}",
	                random_below(&state, 1000), 9 + random_below(&state, 40), "",
	                ends[random_below(&state, 6)], depth, speculative);
	/* The wish takes the place of temperature 0. */
	const char *wish = wishes[random_below(&state, 8)];
	char *zero = strstr(ret, ",\"temperature\":0"), rest[512];
	if (strstr(wish, "temperature")) {
		snprintf(rest, sizeof rest, "%s", zero + strlen(",\"temperature\":0"));
		snprintf(zero, size - (size_t)(zero - ret), "%s%s", wish, rest);
	} else {
		snprintf(rest, sizeof rest, "%s", zero);
		snprintf(zero, size - (size_t)(zero - ret), "%s%s", wish, rest);
	}
}

static void check_same(const struct job *a, const struct job *b) {
	CHECK_INT(a->error.code, b->error.code);
	for (int i = 0; i < a->n_choices; i++) {
		const struct choice *x = &a->choices[i], *y = &b->choices[i];
		int n = x->published.n_tokens;
		CHECK_INT(y->published.n_tokens, n);
		CHECK_INT(y->published.finish, x->published.finish);
		CHECK_INT(y->stop_index, x->stop_index);
		CHECK(memcmp(x->tokens, y->tokens, (size_t)n * sizeof *x->tokens) == 0);
		CHECK_INT(y->published.text_len, x->published.text_len);
		CHECK(memcmp(x->text, y->text, x->published.text_len) == 0);
		if (x->logprobs)
			CHECK(memcmp(x->logprobs, y->logprobs, (size_t)n * sizeof *x->logprobs)
			                == 0);
		if (x->tops)
			CHECK(memcmp(x->tops, y->tops, (size_t)(n * a->n_top) * sizeof *x->tops)
			                == 0);
	}
}

/* Requests of random wishes, one by one without drafts, then side by side with them. */
static void check_drafted(uint64_t first_round, uint64_t end) {
	static const char *const fields[] = { ",\"speculative\":true",
		",\"speculative\":{\"draft_depth\":1}",
		",\"speculative\":{\"draft_depth\":1,\"draft_tokens\":3}", "" };
	int64_t accepted = 0, rejected = 0;
	for (uint64_t round = first_round; round < end; round++) {
		char body[2048];
		struct ticket *plain[SIDE_BY_SIDE], *drafted[SIDE_BY_SIDE];
		for (int i = 0; i < SIDE_BY_SIDE; i++) {
			random_body(round * SIDE_BY_SIDE + (uint64_t)i, "", body, sizeof body);
			plain[i] = running_join(REQUEST_COMPLETION, body);
			run_all(false);
			running_deliver(plain[i]);
		}
		for (int i = 0; i < SIDE_BY_SIDE; i++) {
			random_body(round * SIDE_BY_SIDE + (uint64_t)i,
			                fields[(round + (uint64_t)i) % 4], body, sizeof body);
			drafted[i] = running_join(REQUEST_COMPLETION, body);
			for (uint64_t k = 0; k < round % 4 && batch_jobs(running_batch) > 0; k++) {
				batch_speculate(running_batch, &unknown);
				running_step();
			}
		}
		run_all(true);
		for (int i = 0; i < SIDE_BY_SIDE; i++) {
			running_deliver(drafted[i]);
			check_same(plain[i]->job, drafted[i]->job);
			accepted += drafted[i]->job->accepted_tokens;
			rejected += drafted[i]->job->rejected_tokens;
			CHECK_INT(plain[i]->job->accepted_tokens, 0);
			running_destroy(plain[i]);
			running_destroy(drafted[i]);
		}
	}
	CHECK(accepted > 2 * (int64_t)(end - first_round));
	CHECK(rejected > 2 * (int64_t)(end - first_round));
}

TEST(drafted_answers_are_those_of_plain_decoding) {
	running_open("tiny-opt");
	running_rig.config.max_running = 4 * SIDE_BY_SIDE;
	running_reopen(16 << 20);
	check_drafted(0, ROUNDS);
	running_close();
}

TEST(drafted_answers_are_those_of_plain_decoding_at_every_precision) {
	static const enum weight_format formats[] = { WEIGHTS_F32, WEIGHTS_BF16, WEIGHTS_INT8,
		WEIGHTS_INT4 };
	for (int i = 0; i < 8; i++) {
		char err[512] = "";
		running_open("tiny-opt");
		batch_destroy(running_batch);
		running_batch = NULL;
		model_close(running_rig.model);
		running_rig.model = model_open(check_data("tiny-opt"),
		                &(struct model_options){ .ops = ops_c(),
		                                .threads = 1,
		                                .weights = formats[i / 2] },
		                err, sizeof err);
		CHECK(running_rig.model);
		running_rig.config.max_running = 4 * SIDE_BY_SIDE;
		strcpy(running_rig.config.kv, i % 2 ? "bf16" : "f32");
		running_reopen(16 << 20);
		check_drafted(ROUNDS + 6 * (uint64_t)i, ROUNDS + 6 * (uint64_t)i + 6);
		running_close();
	}
}

TEST(a_draft_as_deep_as_the_plan_is_refused) {
	struct rig rig;
	rig_open(&rig, "tiny-opt");
	rig_refused(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":\"a\",\"depth\":2,\"speculative\":{\"draft_depth\":2}}",
	                ERROR_INVALID_DEPTH, "speculative.draft_depth");
	rig_refused(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":\"a\",\"speculative\":{\"draft_depth\":99}}",
	                ERROR_INVALID_DEPTH, "speculative.draft_depth");
	rig_close(&rig);
}

TEST(the_server_says_who_is_drafted_for_where_the_request_does_not) {
	struct rig rig;
	rig_open(&rig, "tiny-opt");
	static const struct {
		const char *option, *body;
		bool on;
	} cases[] = {
		{ "off", "{\"prompt\":\"a\"}", false },
		{ "on", "{\"prompt\":\"a\"}", true },
		{ "on", "{\"prompt\":\"a\",\"speculative\":false}", false },
		{ "off", "{\"prompt\":\"a\",\"speculative\":true}", true },
		{ "never", "{\"prompt\":\"a\",\"speculative\":true}", false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		strcpy(rig.config.speculative, cases[i].option);
		struct job *job = rig_job(&rig, REQUEST_COMPLETION, cases[i].body);
		CHECK_INT(job->draft.on, cases[i].on);
		job_destroy(job);
	}
	rig_close(&rig);
}

/* ---- when it pays ---- */

/* A machine on which rows are free up to 8, and everything is layers. */
static struct cost_model machine(void) {
	struct cost_model cost = { .fitted = true, .constant_ms = 0.1 };
	for (int i = 0; i < COST_POINTS; i++) {
		double rows = cost_rows[i];
		cost.layer_ms[STACK_DECODER][i] = rows <= 8 ? 1 : rows / 8;
	}
	return cost;
}

enum { LAYERS = 24 };

struct one {
	struct subnet subnet;
	struct drafter drafter;
	struct speculate_party party;
};

static void one_begin(struct one *o) {
	memset(o, 0, sizeof *o);
	o->drafter = (struct drafter){ .on = true, .most = 12, .rule = PLAN_RULE_EVEN };
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, LAYERS, &o->subnet.stack[STACK_DECODER]);
	o->party = (struct speculate_party){
		.drafter = &o->drafter, .subnet = &o->subnet, .rows = 1, .left = 100, .keys = 50
	};
}

/* Tokens for each of which nothing is drafted in vain, and how many steps were paid for them, where
 * each drafted token is right with a chance that depends on the draft's depth. */
static void play(struct speculator *s, struct one *o, int rounds, int others,
                double (*chance)(int depth), double *ret_tokens, double *ret_ms) {
	static const int none[MAX_LAYERS];
	int rows[MAX_LAYERS];
	for (int l = 0; l < LAYERS; l++)
		rows[l] = others;
	struct cost_model cost = machine();
	struct speculate_scene scene = { .parties = &o->party,
		.n = 1,
		.layers = LAYERS,
		.others = others,
		.other_rows = others ? rows : none,
		.max_rows = 512 };
	uint64_t state = 1;
	*ret_tokens = *ret_ms = 0;
	for (int i = 0; i < rounds; i++) {
		speculate_decide(s, &cost, &scene);
		int k = o->drafter.tokens, right = 0;
		double draft = k > 0 ? o->drafter.depth + 0.1 : 0;
		double n = k + 1 + others;
		while (right < k && random_below(&state, 1000) < 1000 * chance(o->drafter.depth))
			right++;
		*ret_ms += k * draft + (n <= 8 ? 1 : n / 8) * LAYERS + 0.1;
		*ret_tokens += right + 1;
		if (k > 0)
			speculate_learn(s, &o->drafter, &o->subnet, k, right);
	}
}

static double never(int depth) {
	return 0;
}

static double good_from_six(int depth) {
	return depth >= 6 ? 0.9 : 0.1;
}

static double good_from_three(int depth) {
	return depth >= 3 ? 0.8 : 0.1;
}

TEST(drafts_that_are_never_right_cost_less_than_two_percent) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 200, 0, never, &tokens, &ms);
	play(s, &o, 2000, 0, never, &tokens, &ms);
	CHECK(ms / tokens < 1.02 * (LAYERS + 0.1));
	speculate_destroy(s);
}

TEST(the_first_answer_of_a_new_server_loses_little_more_than_two_steps) {
	for (int n = 64; n <= 512; n *= 2) {
		struct speculator *s = speculate_create(LAYERS);
		struct one o;
		one_begin(&o);
		double tokens, ms;
		play(s, &o, n, 0, never, &tokens, &ms);
		/* Two steps, and half a percent of all. */
		CHECK(ms < (1.005 * tokens + 2.05) * (LAYERS + 0.1));
		speculate_destroy(s);
	}
}

static double sometimes(int depth) {
	return 0.12;
}

TEST(answers_whose_drafts_are_seldom_right_lose_less_than_a_percent) {
	struct speculator *s = speculate_create(LAYERS);
	double all_tokens = 0, all_ms = 0;
	for (int i = 0; i < 50; i++) {
		struct one o;
		one_begin(&o);
		double tokens, ms;
		play(s, &o, 64, 0, sometimes, &tokens, &ms);
		all_tokens += tokens;
		all_ms += ms;
	}
	CHECK(all_ms / all_tokens < 1.01 * (LAYERS + 0.1));
	speculate_destroy(s);
}

TEST(the_first_answer_whose_drafts_pay_gains_at_once) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 15, 0, good_from_three, &tokens, &ms);
	CHECK(tokens / ms > 1.5 / (LAYERS + 0.1));
	speculate_destroy(s);
}

TEST(drafts_that_become_right_are_found_out) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 300, 0, never, &tokens, &ms);
	CHECK_INT(o.drafter.tokens, 0);
	play(s, &o, 2000, 0, good_from_six, &tokens, &ms);
	play(s, &o, 100, 0, good_from_six, &tokens, &ms);
	CHECK(tokens / ms > 1.5 / (LAYERS + 0.1));
	speculate_destroy(s);
}

TEST(the_draft_that_pays_best_is_found) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 200, 0, good_from_six, &tokens, &ms);
	play(s, &o, 500, 0, good_from_six, &tokens, &ms);
	CHECK_INT(o.drafter.depth, 6);
	/* The best number of tokens, by hand: 1 + 0.9 + 0.81 + ... over 6.1 k + 24.1. */
	double best = 0, expected = 1, power = 1;
	for (int k = 1; k <= 7; k++) {
		expected += power *= 0.9;
		double rate = expected / (6.1 * k + 24.1);
		best = rate > best ? rate : best;
	}
	CHECK(tokens / ms > 0.95 * best);
	speculate_destroy(s);
}

TEST(eight_others_lose_nothing_to_drafts_that_fail) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 1000, 8, never, &tokens, &ms);
	/* What a step of nine rows takes. */
	CHECK(ms / 1000 < 1.01 * (LAYERS * 9 / 8.0 + 0.1));
	speculate_destroy(s);
}

TEST(others_keep_their_pace) {
	struct speculator *s = speculate_create(LAYERS);
	struct one o;
	one_begin(&o);
	double tokens, ms;
	play(s, &o, 200, 0, good_from_six, &tokens, &ms);
	play(s, &o, 300, 3, good_from_six, &tokens, &ms);
	CHECK(ms / 300 < SPECULATE_PATIENCE * (LAYERS + 0.1));
	speculate_destroy(s);
}
