/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts: rows at a nested plan, and forgetting them. Whatever was drafted, verifying gives the bits
 * of decoding token by token, at every level and cache format, with forks, and whatever the draft
 * left behind.
 */
#include <math.h>

#include "model/kv.h"
#include "model/workspace.h"
#include "tests/check.h"
#include "tests/random_model.h"

enum { VOCAB = 97, CONTEXT = 200, MAX_ROWS = 64, LENGTH = 140, LAYERS = 8, MOST_DRAFTED = 6 };

static const struct stack_facts shape = { .layers = LAYERS,
	.dim = 32,
	.heads = 2,
	.ffn = 64,
	.norm = NORM_PRE,
	.final_norm = true,
	.activation = ACTIVATION_GELU_TANH,
	.positions = POSITIONS_LEARNED };

struct engine {
	struct model *model;
	struct team *team;
	struct workspace *w;
};

static struct engine engine_start(const struct ops *ops, enum kv_format kv) {
	char err[200] = "";
	struct engine e = { .model = random_model_create(ops, &shape, VOCAB, CONTEXT, true) };
	e.team = team_create(2, err, sizeof err);
	CHECK(e.team);
	e.w = workspace_create(e.model,
	                &(struct workspace_options){ .team = e.team,
	                                .max_rows = MAX_ROWS,
	                                .max_logit_rows = MAX_ROWS,
	                                .max_sequences = 8,
	                                .kv_bytes = 16 << 20,
	                                .kv = kv },
	                err, sizeof err);
	CHECK(e.w);
	return e;
}

static void engine_stop(struct engine *e) {
	CHECK_INT(workspace_blocks_reserved(e->w), 0);
	workspace_destroy(e->w);
	team_destroy(e->team);
	random_model_destroy(e->model);
}

static struct subnet even(int depth) {
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, depth, &plan);
	return random_model_subnet(&plan);
}

static struct subnet nested(const struct subnet *subnet, int depth) {
	struct plan plan;
	plan_nested(&subnet->stack[STACK_DECODER], PLAN_RULE_EVEN, depth, &plan);
	return random_model_subnet(&plan);
}

static void random_text(uint64_t seed, int32_t *tokens, int n) {
	for (int i = 0; i < n; i++)
		tokens[i] = (int32_t)random_below(&seed, VOCAB);
}

/* One step over tokens[0..n) of a sequence from its end on; its logits, packed. */
static void advance(struct workspace *w, struct sequence *s, const struct subnet *at,
                const int32_t *tokens, int n, float *ret_logits) {
	struct row rows[MAX_ROWS];
	int indices[MAX_ROWS] = { 0 }, from = sequence_length(s);
	for (int i = 0; i < n; i++) {
		rows[i] = (struct row){ .sequence = s,
			.stack = STACK_DECODER,
			.token = tokens[i],
			.position = from + i,
			.at = at };
		indices[i] = i;
	}
	step_run(w, rows, n);
	const float *logits = step_logits(w, indices, n);
	for (int i = 0; i < n; i++)
		memcpy(ret_logits + (size_t)i * VOCAB, logits + (size_t)i * step_logits_stride(w),
		                VOCAB * sizeof *ret_logits);
}

static bool same_bits(const float *a, const float *b, int rows) {
	return memcmp(a, b, (size_t)rows * VOCAB * sizeof *a) == 0;
}

static float plain[CONTEXT * VOCAB], drafted[CONTEXT * VOCAB], scratch[MAX_ROWS * VOCAB];

static void run_plain(struct workspace *w, const struct subnet *subnet, const int32_t *text) {
	struct sequence *s = sequence_open(w, subnet, LENGTH);
	for (int i = 0; i < LENGTH; i++)
		advance(w, s, NULL, text + i, 1, plain + (size_t)i * VOCAB);
	sequence_close(w, s);
}

/* A guess of text[from..from + n), right as far as it goes: `right` tokens. */
static void guess(const int32_t *text, int from, int n, int right, int32_t *ret) {
	for (int i = 0; i < n; i++)
		ret[i] = i < right ? text[from + i] : (text[from + i] + 1 + i) % VOCAB;
}

/* The same text by drafts of random length and luck at random nested plans. */
static void run_drafted(struct workspace *w, const struct subnet *subnet, const int32_t *text,
                uint64_t *state, bool clear) {
	struct sequence *s = sequence_open(w, subnet, LENGTH);
	advance(w, s, NULL, text, 5, drafted);
	while (sequence_length(s) < LENGTH) {
		int from = sequence_length(s), left = LENGTH - from - 1;
		int k = (int)random_below(state, MOST_DRAFTED + 1);
		k = k < left ? k : left;
		int right = (int)random_below(state, (unsigned)k + 1);
		int32_t tokens[MOST_DRAFTED + 1] = { text[from] };
		guess(text, from + 1, k, right, tokens + 1);
		struct subnet at = nested(subnet,
		                1 + (int)random_below(state, (unsigned)subnet->stack[1].depth));
		for (int i = 0; i < k; i++)
			advance(w, s, &at, tokens + i, 1, scratch);
		sequence_rewind(w, s, from, false);
		advance(w, s, NULL, tokens, k + 1, scratch);
		memcpy(drafted + (size_t)from * VOCAB, scratch,
		                (size_t)(right + 1) * VOCAB * sizeof *scratch);
		sequence_rewind(w, s, from + right + 1, clear);
		CHECK_INT(sequence_length(s), from + right + 1);
	}
	sequence_close(w, s);
}

TEST(drafting_and_verifying_gives_the_bits_of_plain_decoding_at_every_level) {
	int32_t text[LENGTH];
	random_text(1, text, LENGTH);
	uint64_t state = 2;
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	for (int t = 0; t < n; t++) {
		for (int kv = KV_F32; kv <= KV_BF16; kv++) {
			struct engine e = engine_start(tables[t], (enum kv_format)kv);
			for (int depth = 1; depth <= LAYERS; depth += 3) {
				struct subnet subnet = even(depth);
				run_plain(e.w, &subnet, text);
				run_drafted(e.w, &subnet, text, &state, depth > 4);
				CHECK(same_bits(plain, drafted, LENGTH));
			}
			engine_stop(&e);
		}
	}
}

TEST(a_draft_equals_a_sequence_that_goes_on_at_the_nested_plan) {
	int32_t text[LENGTH];
	random_text(3, text, LENGTH);
	struct engine e = engine_start(ops_c(), KV_F32);
	struct subnet subnet = even(6);
	for (int depth = 1; depth <= 6; depth++) {
		struct subnet at = nested(&subnet, depth);
		struct sequence *s = sequence_open(e.w, &subnet, LENGTH);
		advance(e.w, s, NULL, text, 62, scratch);
		struct sequence *narrow = sequence_fork(e.w, s, LENGTH);
		CHECK(sequence_narrow(e.w, narrow, &at));
		for (int i = 62; i < 70; i++) {
			advance(e.w, narrow, NULL, text + i, 1, plain);
			advance(e.w, s, &at, text + i, 1, drafted);
			CHECK(same_bits(plain, drafted, 1));
		}
		sequence_close(e.w, narrow);
		sequence_close(e.w, s);
	}
	engine_stop(&e);
}

TEST(drafts_of_a_fork_leave_the_other_as_it_was) {
	int32_t text[LENGTH];
	random_text(4, text, LENGTH);
	struct engine e = engine_start(ops_c(), KV_F32);
	struct subnet subnet = even(5), at = nested(&subnet, 2);
	run_plain(e.w, &subnet, text);
	struct sequence *s = sequence_open(e.w, &subnet, LENGTH);
	advance(e.w, s, NULL, text, 40, scratch);
	/* What was rewound is not shared. */
	advance(e.w, s, &at, text, 30, scratch);
	sequence_rewind(e.w, s, 40, false);
	struct sequence *fork = sequence_fork(e.w, s, LENGTH);
	int32_t wrong[40];
	random_text(5, wrong, 40);
	for (int i = 40; i < LENGTH - 30; i += 2) {
		advance(e.w, fork, &at, wrong, 30, scratch);
		sequence_rewind(e.w, fork, i, false);
		advance(e.w, s, NULL, text + i, 2, drafted);
		CHECK(same_bits(plain + (size_t)i * VOCAB, drafted, 2));
		advance(e.w, fork, NULL, text + i, 2, drafted);
		CHECK(same_bits(plain + (size_t)i * VOCAB, drafted, 2));
	}
	sequence_close(e.w, fork);
	sequence_close(e.w, s);
	engine_stop(&e);
}

TEST(drafts_share_steps_with_others) {
	int32_t text[LENGTH];
	random_text(6, text, LENGTH);
	struct engine e = engine_start(ops_c(), KV_F32);
	struct subnet subnet = even(6), at = nested(&subnet, 2), other = even(3);
	run_plain(e.w, &other, text);
	struct sequence *s = sequence_open(e.w, &subnet, LENGTH);
	struct sequence *b = sequence_open(e.w, &other, LENGTH);
	for (int i = 0; i < LENGTH; i++) {
		struct row rows[2] = {
			{ .sequence = s, .stack = STACK_DECODER, .token = 1, .at = &at },
			{ .sequence = b, .stack = STACK_DECODER, .token = text[i], .position = i },
		};
		step_run(e.w, rows, 2);
		CHECK(same_bits(plain + (size_t)i * VOCAB, step_logits(e.w, (int[]){ 1 }, 1), 1));
		sequence_rewind(e.w, s, 0, false);
	}
	sequence_close(e.w, b);
	sequence_close(e.w, s);
	engine_stop(&e);
}

/* What no run of a sound model would leave. */
static void spoil(struct workspace *w, const struct sequence *s, int from, int to) {
	float nan[32];
	for (int i = 0; i < 32; i++)
		nan[i] = NAN;
	for (int r = 0; r < s->subnet.stack[STACK_DECODER].depth; r++)
		for (int i = from; i < to; i++)
			w->ops->kv_store(&(struct kv_rows){
			                .block = s->table[r * w->table_stride + i / KV_TILE],
			                .format = w->kv_format,
			                .k = nan,
			                .v = nan,
			                .position = i,
			                .count = 1,
			                .n_heads = 2,
			                .head_dim = 16,
			                .heads = 2,
			});
}

TEST(what_was_not_finite_leaves_no_trace_when_it_is_cleared) {
	int32_t text[LENGTH];
	random_text(7, text, LENGTH);
	for (int kv = KV_F32; kv <= KV_BF16; kv++) {
		struct engine e = engine_start(ops_c(), (enum kv_format)kv);
		struct subnet subnet = even(4);
		run_plain(e.w, &subnet, text);
		struct sequence *s = sequence_open(e.w, &subnet, LENGTH);
		advance(e.w, s, NULL, text, 60, scratch);
		advance(e.w, s, NULL, text, 10, scratch);
		spoil(e.w, s, 60, 70);
		sequence_rewind(e.w, s, 60, true);
		for (int i = 60; i < 70; i++) {
			advance(e.w, s, NULL, text + i, 1, drafted);
			CHECK(same_bits(plain + (size_t)i * VOCAB, drafted, 1));
		}
		sequence_close(e.w, s);
		engine_stop(&e);
	}
}
