/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV pool and sequences: accounts of blocks, sharing, copying on write, stepping down. What a
 * sequence computes is held against a sequence that shares nothing.
 */
#include <math.h>
#include <unistd.h>

#include "model/kv.h"
#include "model/workspace.h"
#include "tests/check.h"
#include "tests/random_model.h"

enum { VOCAB = 61, CONTEXT = 400, LAYERS = 6 };

static const struct stack_facts shape = { .layers = LAYERS,
	.dim = 32,
	.heads = 2,
	.ffn = 48,
	.norm = NORM_PRE,
	.final_norm = true,
	.activation = ACTIVATION_RELU,
	.positions = POSITIONS_LEARNED };

struct engine {
	struct model *model;
	struct team *team;
	struct workspace *w;
};

static const struct ops *best_table(void) {
	const struct ops *tables[CPU_LEVELS + 1];
	return tables[random_model_tables(tables) - 1];
}

static enum kv_format kv; /* of the engines started from now on */

/* An engine whose pool has `blocks` blocks. */
static struct engine start(int blocks) {
	char err[200] = "";
	struct engine e = { .model = random_model_create(
		                            best_table(), &shape, VOCAB, CONTEXT, false) };
	e.team = team_create(2, err, sizeof err);
	size_t block_bytes = 2 * KV_TILE * 32 * (size_t)(kv == KV_BF16 ? 2 : 4);
	e.w = workspace_create(e.model,
	                &(struct workspace_options){ .team = e.team,
	                                .max_rows = 128,
	                                .max_logit_rows = 1,
	                                .max_sequences = 8,
	                                .kv_bytes = (size_t)blocks * block_bytes + block_bytes / 2,
	                                .kv = kv },
	                err, sizeof err);
	if (!e.team || !e.w)
		check_fail(__FILE__, __LINE__, "%s", err);
	CHECK_INT(workspace_block_bytes(e.w), block_bytes);
	CHECK_INT(workspace_blocks_total(e.w), blocks);
	return e;
}

static void stop(struct engine *e) {
	workspace_destroy(e->w);
	team_destroy(e->team);
	random_model_destroy(e->model);
}

static struct subnet subnet_of(enum plan_rule rule, int depth) {
	struct plan plan;
	plan_by_rule(rule, LAYERS, depth, &plan);
	return random_model_subnet(&plan);
}

/* The token that a test's text number `text` has at a position. */
static int32_t token_at(int text, int position) {
	return (position * 7 + text * 13 + position * position % 11) % VOCAB;
}

/* Advances a sequence to `length` with tokens of a text; the last row's logits stay valid. */
static const float *advance(struct engine *e, struct sequence *s, int text, int length) {
	struct row rows[128];
	int n = 0;
	while (sequence_length(s) < length) {
		int from = sequence_length(s);
		for (n = 0; n < 128 && from + n < length; n++)
			rows[n] = (struct row){ .sequence = s,
				.stack = STACK_DECODER,
				.token = token_at(text, from + n),
				.position = from + n };
		step_run(e->w, rows, n);
	}
	return step_logits(e->w, (int[]){ n - 1 }, 1);
}

/* Logits after `prefix` tokens of text 1 and then tokens of `text` up to `length`, in a workspace
 * of its own. */
static void expected(const struct subnet *subnet, int prefix, int text, int length, float *ret) {
	struct engine e = start(LAYERS * 7);
	struct sequence *s = sequence_open(e.w, subnet, CONTEXT);
	CHECK(s);
	const float *logits = advance(&e, s, 1, prefix);
	if (length > prefix)
		logits = advance(&e, s, text, length);
	memcpy(ret, logits, VOCAB * sizeof *ret);
	stop(&e);
}

static void check_same(const float *logits, const float *wanted) {
	CHECK(memcmp(logits, wanted, VOCAB * sizeof *logits) == 0);
}

TEST(opening_reserves_the_whole_length_and_stepping_takes_it) {
	struct engine e = start(20);
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 3);
	CHECK_INT(workspace_blocks_needed(e.w, &subnet, 64), 3);
	CHECK_INT(workspace_blocks_needed(e.w, &subnet, 65), 6);
	struct sequence *s = sequence_open(e.w, &subnet, 200);
	CHECK_INT(workspace_blocks_reserved(e.w), 12);
	CHECK_INT(workspace_blocks_used(e.w), 0);
	advance(&e, s, 1, 64);
	CHECK_INT(workspace_blocks_used(e.w), 3);
	advance(&e, s, 1, 65);
	CHECK_INT(workspace_blocks_used(e.w), 6);
	CHECK_INT(workspace_blocks_reserved(e.w), 12);
	sequence_close(e.w, s);
	CHECK_INT(workspace_blocks_reserved(e.w), 0);
	CHECK_INT(workspace_blocks_used(e.w), 0);
	stop(&e);
}

TEST(a_sequence_that_does_not_fit_now_is_not_opened) {
	struct engine e = start(20);
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 3);
	struct sequence *a = sequence_open(e.w, &subnet, 200),
	                *b = sequence_open(e.w, &subnet, 100);
	CHECK(a && b); /* 12 and 6 */
	CHECK(!sequence_open(e.w, &subnet, 64));
	CHECK_INT(workspace_blocks_reserved(e.w), 18);
	sequence_close(e.w, b);
	CHECK(sequence_open(e.w, &subnet, 64));
	stop(&e);
}

TEST(more_sequences_than_agreed_are_not_opened) {
	struct engine e = start(50);
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 1);
	struct sequence *s = NULL;
	for (int i = 0; i < 8; i++) {
		s = sequence_open(e.w, &subnet, 10);
		CHECK(s);
	}
	CHECK(!sequence_open(e.w, &subnet, 10));
	CHECK(!sequence_fork(e.w, s, 10));
	sequence_close(e.w, s);
	CHECK(sequence_open(e.w, &subnet, 10));
	stop(&e);
}

static void check_leaks(void) {
	float wanted[VOCAB];
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 4);
	expected(&subnet, 70, 1, 70, wanted);
	struct engine e = start(8);
	struct sequence *s = sequence_open(e.w, &subnet, 100);
	advance(&e, s, 2, 100);
	sequence_close(e.w, s);
	memset(e.w->kv.base, 0xff, e.w->kv.total * e.w->kv.block_bytes); /* NaN */
	s = sequence_open(e.w, &subnet, 100);
	check_same(advance(&e, s, 1, 70), wanted);
	stop(&e);
}

TEST(a_block_that_held_nan_leaks_nothing_to_the_next_sequence) {
	for (kv = KV_F32; kv < KV_FORMATS; kv++)
		check_leaks();
	kv = KV_F32;
}

TEST(a_block_handed_out_again_is_all_zero_once_settled) {
	char err[200] = "";
	struct kv_pool pool;
	CHECK(kv_init(&pool, 16384, 2 * 16384, err, sizeof err));
	CHECK(kv_promise(&pool, 1));
	unsigned char *block = kv_take(&pool);
	kv_settle(&pool, 0, 1);
	kv_forget(&pool);
	memset(block, 0xff, pool.block_bytes);
	kv_release(&pool, block);
	CHECK(kv_promise(&pool, 1));
	CHECK(kv_take(&pool) == block);
	kv_settle(&pool, 0, 2);
	kv_settle(&pool, 1, 2);
	for (size_t i = 0; i < pool.block_bytes; i++)
		CHECK(block[i] == 0);
	kv_finish(&pool);
}

/* Bytes of a block of a model whose weights are kept so. */
static size_t bytes_of_auto(enum weight_format weights) {
	char err[200] = "";
	struct engine e = { .model = random_model_create(
		                            best_table(), &shape, VOCAB, CONTEXT, false) };
	e.model->weights.format = weights;
	e.team = team_create(1, err, sizeof err);
	e.w = workspace_create(e.model,
	                &(struct workspace_options){ .team = e.team,
	                                .max_rows = 8,
	                                .max_logit_rows = 1,
	                                .max_sequences = 2,
	                                .kv_bytes = 1 << 20,
	                                .kv = KV_AUTO },
	                err, sizeof err);
	CHECK(e.w);
	size_t bytes = workspace_block_bytes(e.w);
	stop(&e);
	return bytes;
}

TEST(keys_and_values_are_f32_with_f32_weights_and_else_bf16_unless_somebody_chooses) {
	size_t floats = 2 * KV_TILE * 32 * sizeof(float);
	CHECK_INT(bytes_of_auto(WEIGHTS_F32), floats);
	CHECK_INT(bytes_of_auto(WEIGHTS_BF16), floats / 2);
	CHECK_INT(bytes_of_auto(WEIGHTS_INT8), floats / 2);
	CHECK_INT(bytes_of_auto(WEIGHTS_INT4), floats / 2);
}

TEST(unused_blocks_cost_no_memory) {
	char err[200] = "";
	struct model *model = random_model_create(best_table(), &shape, VOCAB, CONTEXT, false);
	struct team *team = team_create(1, err, sizeof err);
	struct workspace *w = workspace_create(model,
	                &(struct workspace_options){ .team = team,
	                                .max_rows = 8,
	                                .max_logit_rows = 1,
	                                .max_sequences = 2,
	                                .kv_bytes = (size_t)4 << 30 },
	                err, sizeof err);
	CHECK(w);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long size = 0, rss = 0;
	CHECK(f && fscanf(f, "%lu %lu", &size, &rss) == 2);
	fclose(f);
	CHECK(size * page > (size_t)4 << 30);
	CHECK(rss * page < (size_t)1 << 30);
	workspace_destroy(w);
	team_destroy(team);
	random_model_destroy(model);
}

TEST(a_pool_without_room_for_one_block_is_refused_with_a_sentence) {
	char err[200] = "";
	struct kv_pool pool;
	CHECK(!kv_init(&pool, 16384, 16383, err, sizeof err));
	CHECK_STR(err, "the KV pool of 16383 bytes is too small: one block takes 16384 bytes");
	CHECK(kv_init(&pool, 16384, 16384, err, sizeof err));
	kv_finish(&pool);
}

static void check_forks(void) {
	float parent_wanted[VOCAB], child_wanted[VOCAB];
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 2);
	expected(&subnet, 100, 1, 110, parent_wanted);
	expected(&subnet, 100, 2, 110, child_wanted);
	for (int child_first = 0; child_first < 2; child_first++) {
		struct engine e = start(20);
		struct sequence *s = sequence_open(e.w, &subnet, 128);
		advance(&e, s, 1, 100);
		CHECK_INT(workspace_blocks_used(e.w), 4);
		struct sequence *fork = sequence_fork(e.w, s, 200);
		CHECK_INT(sequence_length(fork), 100);
		CHECK_INT(workspace_blocks_used(e.w), 4);
		/* The child shares 2 full blocks, copies 2 and adds 2 x 2. */
		CHECK_INT(workspace_blocks_reserved(e.w), 4 + 6);
		if (child_first)
			check_same(advance(&e, fork, 2, 110), child_wanted);
		check_same(advance(&e, s, 1, 110), parent_wanted);
		if (!child_first)
			check_same(advance(&e, fork, 2, 110), child_wanted);
		CHECK_INT(workspace_blocks_used(e.w), 6);
		CHECK_INT(workspace_blocks_reserved(e.w), 10);
		sequence_close(e.w, s);
		CHECK_INT(workspace_blocks_used(e.w), 4);
		CHECK_INT(workspace_blocks_reserved(e.w), 8);
		sequence_close(e.w, fork);
		CHECK_INT(workspace_blocks_reserved(e.w), 0);
		stop(&e);
	}
}

TEST(a_fork_shares_full_blocks_and_copies_the_last_when_written) {
	for (kv = KV_F32; kv < KV_FORMATS; kv++)
		check_forks();
	kv = KV_F32;
}

static void check_both_forks(void) {
	float parent_wanted[VOCAB], child_wanted[VOCAB];
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 6);
	expected(&subnet, 70, 1, 71, parent_wanted);
	expected(&subnet, 70, 2, 71, child_wanted);
	struct engine e = start(40);
	struct sequence *s = sequence_open(e.w, &subnet, 100);
	advance(&e, s, 1, 70);
	struct sequence *fork = sequence_fork(e.w, s, 100);
	struct row rows[] = {
		{ .sequence = s, .stack = STACK_DECODER, .token = token_at(1, 70), .position = 70 },
		{ .sequence = fork,
		                .stack = STACK_DECODER,
		                .token = token_at(2, 70),
		                .position = 70 },
	};
	step_run(e.w, rows, 2);
	check_same(step_logits(e.w, (int[]){ 0 }, 1), parent_wanted);
	check_same(step_logits(e.w, (int[]){ 1 }, 1), child_wanted);
	stop(&e);
}

TEST(both_forks_may_write_in_the_same_step) {
	for (kv = KV_F32; kv < KV_FORMATS; kv++)
		check_both_forks();
	kv = KV_F32;
}

TEST(a_fork_needs_no_copy_when_its_past_fills_its_blocks) {
	struct engine e = start(20);
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 2);
	struct sequence *s = sequence_open(e.w, &subnet, 128);
	advance(&e, s, 1, 128);
	struct sequence *fork = sequence_fork(e.w, s, 128);
	CHECK(fork);
	CHECK_INT(workspace_blocks_reserved(e.w), 4);
	stop(&e);
}

TEST(a_fork_is_refused_when_its_blocks_are_not_free) {
	struct engine e = start(9);
	struct subnet subnet = subnet_of(PLAN_RULE_EVEN, 2);
	struct sequence *s = sequence_open(e.w, &subnet, 128);
	advance(&e, s, 1, 100);
	CHECK(!sequence_fork(e.w, s, 257)); /* 4 in use, 2 x (5 - 1) more */
	CHECK_INT(workspace_blocks_reserved(e.w), 4);
	CHECK(sequence_fork(e.w, s, 192));
	CHECK_INT(workspace_blocks_reserved(e.w), 8);
	stop(&e);
}

/* Opens, forks, advances and closes at random in a pool that is always nearly full; a lost or
 * doubled promise would soon assert or leave a rest. */
TEST(random_forks_never_run_dry_and_leave_nothing_behind) {
	struct engine e = start(60);
	struct sequence *open[8] = { NULL };
	uint64_t state = 3;
	for (int round = 0; round < 1500; round++) {
		struct sequence **s = &open[random_below(&state, 8)];
		unsigned action = random_below(&state, 10);
		if (!*s) {
			struct sequence *from = open[random_below(&state, 8)];
			int tokens = 1 + (int)random_below(&state, CONTEXT);
			struct subnet subnet = subnet_of(
			                PLAN_RULE_PREFIX, 1 + (int)random_below(&state, 4));
			if (!from)
				*s = sequence_open(e.w, &subnet, tokens);
			else if (tokens >= sequence_length(from))
				*s = sequence_fork(e.w, from, tokens);
		} else if (action == 0) {
			sequence_close(e.w, *s);
			*s = NULL;
		} else if (action == 1) {
			int depth = sequence_subnet(*s)->stack[STACK_DECODER].depth;
			struct subnet subnet = subnet_of(PLAN_RULE_PREFIX,
			                1 + (int)random_below(&state, (unsigned)depth));
			CHECK(sequence_narrow(e.w, *s, &subnet));
		} else if (sequence_length(*s) < (*s)->tokens) {
			int left = (*s)->tokens - sequence_length(*s);
			int count = 1 + (int)random_below(&state, 40);
			advance(&e, *s, 1, sequence_length(*s) + (count < left ? count : left));
		}
		CHECK(workspace_blocks_used(e.w) <= workspace_blocks_reserved(e.w));
		CHECK(workspace_blocks_reserved(e.w) <= workspace_blocks_total(e.w));
	}
	for (int i = 0; i < 8; i++)
		sequence_close(e.w, open[i]);
	CHECK_INT(workspace_blocks_reserved(e.w), 0);
	CHECK_INT(workspace_blocks_used(e.w), 0);
	stop(&e);
}

/* Of prefix plans the deeper one's first layers hold what the shallower one would have written. */
static void check_narrowing(void) {
	float wanted[VOCAB];
	struct subnet deep = subnet_of(PLAN_RULE_PREFIX, 5);
	struct subnet shallow = subnet_of(PLAN_RULE_PREFIX, 2);
	expected(&shallow, 90, 1, 140, wanted);
	struct engine e = start(20);
	struct sequence *s = sequence_open(e.w, &deep, 192);
	advance(&e, s, 1, 90);
	CHECK_INT(workspace_blocks_used(e.w), 10);
	CHECK_INT(workspace_blocks_reserved(e.w), 15);
	CHECK(sequence_narrow(e.w, s, &shallow));
	CHECK_INT(workspace_blocks_used(e.w), 4);
	CHECK_INT(workspace_blocks_reserved(e.w), 6);
	CHECK_INT(sequence_subnet(s)->stack[STACK_DECODER].depth, 2);
	check_same(advance(&e, s, 1, 140), wanted);
	sequence_close(e.w, s);
	CHECK_INT(workspace_blocks_reserved(e.w), 0);
	stop(&e);
}

TEST(narrowing_a_prefix_plan_goes_on_as_if_it_had_always_been_narrow) {
	for (kv = KV_F32; kv < KV_FORMATS; kv++)
		check_narrowing();
	kv = KV_F32;
}

TEST(narrowing_keeps_the_blocks_of_the_kept_layers) {
	struct engine e = start(20);
	struct subnet deep = subnet_of(PLAN_RULE_EVEN, 6), shallow = subnet_of(PLAN_RULE_ENDS, 3);
	struct sequence *s = sequence_open(e.w, &deep, 100);
	advance(&e, s, 1, 100);
	void *kept[3][2];
	for (int r = 0; r < 3; r++)
		for (int t = 0; t < 2; t++)
			kept[r][t] = s->table[shallow.stack[STACK_DECODER].layers[r]
			                                * e.w->table_stride
			                + t];
	CHECK(sequence_narrow(e.w, s, &shallow));
	for (int r = 0; r < 3; r++)
		for (int t = 0; t < 2; t++)
			CHECK(s->table[r * e.w->table_stride + t] == kept[r][t]);
	stop(&e);
}

TEST(narrowing_to_a_plan_that_is_not_nested_is_refused) {
	struct engine e = start(20);
	struct subnet even = subnet_of(PLAN_RULE_EVEN, 3), ends = subnet_of(PLAN_RULE_ENDS, 2);
	struct sequence *s = sequence_open(e.w, &even, 100);
	advance(&e, s, 1, 10);
	CHECK(!sequence_narrow(e.w, s, &ends)); /* 0,2,4 has no layer 5 */
	CHECK(!sequence_narrow(e.w, s, &(struct subnet){ 0 }));
	CHECK_INT(sequence_subnet(s)->stack[STACK_DECODER].depth, 3);
	CHECK_INT(workspace_blocks_reserved(e.w), 6);
	stop(&e);
}
