/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step: what must hold bit for bit. A plan equals the pruned model; an answer does not depend on
 * its neighbours, on how a prompt is cut, on the number of threads, nor on the processor's level.
 * Every panel of a layer is read once in a step, and a step allocates nothing.
 */
#include "model/model.h"
#include "tests/allocations.h"
#include "tests/check.h"
#include "tests/random_model.h"

enum { VOCAB = 97, CONTEXT = 200, MAX_ROWS = 96, MAX_SEQUENCES = 40, PROMPT = 150 };

static const struct stack_facts shapes[] = {
	{ .layers = 12,
	                .dim = 32,
	                .heads = 2,
	                .ffn = 64,
	                .norm = NORM_PRE,
	                .final_norm = true,
	                .activation = ACTIVATION_GELU_TANH,
	                .positions = POSITIONS_LEARNED },
	{ .layers = 6,
	                .dim = 40,
	                .heads = 5,
	                .ffn = 56,
	                .norm = NORM_POST,
	                .embedding_norm = true,
	                .activation = ACTIVATION_RELU,
	                .positions = POSITIONS_LEARNED,
	                .position_offset = 2 },
	{ .layers = 5,
	                .dim = 32,
	                .heads = 1,
	                .ffn = 72,
	                .norm = NORM_PRE,
	                .activation = ACTIVATION_GELU,
	                .positions = POSITIONS_SINUSOIDAL,
	                .embed_scale = 5.5f },
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

struct engine {
	struct model *model;
	struct team *team;
	struct workspace *w;
};

static enum kv_format kv; /* of the workspaces made from now on */

static struct workspace *workspace_for(const struct model *model, struct team *team) {
	char err[200] = "";
	struct workspace *w = workspace_create(model,
	                &(struct workspace_options){ .team = team,
	                                .max_rows = MAX_ROWS,
	                                .max_logit_rows = MAX_ROWS,
	                                .max_sequences = MAX_SEQUENCES,
	                                .kv_bytes = 64 << 20,
	                                .kv = kv },
	                err, sizeof err);
	if (!w)
		check_fail(__FILE__, __LINE__, "%s", err);
	return w;
}

static struct engine engine_start(
                const struct ops *ops, const struct stack_facts *shape, int threads) {
	char err[200] = "";
	struct engine e = { .model = random_model_create(ops, shape, VOCAB, CONTEXT, true) };
	e.team = team_create(threads, err, sizeof err);
	if (!e.team)
		check_fail(__FILE__, __LINE__, "%s", err);
	e.w = workspace_for(e.model, e.team);
	return e;
}

static void engine_stop(struct engine *e) {
	workspace_destroy(e->w);
	team_destroy(e->team);
	random_model_destroy(e->model);
}

static const struct ops *best_table(void) {
	const struct ops *tables[CPU_LEVELS + 1];
	return tables[random_model_tables(tables) - 1];
}

static void random_text(uint64_t seed, int32_t *tokens, int n) {
	for (int i = 0; i < n; i++)
		tokens[i] = (int32_t)random_below(&seed, VOCAB);
}

/* Adds rows for tokens[from..to) of a sequence. */
static int add_rows(struct row *rows, int n, struct sequence *s, const int32_t *tokens, int from,
                int to) {
	for (int i = from; i < to; i++)
		rows[n++] = (struct row){
			.sequence = s, .stack = STACK_DECODER, .token = tokens[i], .position = i
		};
	return n;
}

/* Logits of the last step's rows [first, first + n), packed to [n][VOCAB]. */
static void take_logits(struct workspace *w, int first, int n, float *ret) {
	int indices[MAX_ROWS] = { 0 };
	for (int i = 0; i < n; i++)
		indices[i] = first + i;
	const float *logits = step_logits(w, indices, n);
	for (int i = 0; i < n; i++)
		memcpy(ret + (size_t)i * VOCAB, logits + (size_t)i * step_logits_stride(w),
		                VOCAB * sizeof *ret);
}

/* Runs a text alone, `chunk` tokens a step (0: of random size), and keeps all its logits. */
static void run_alone(struct workspace *w, const struct subnet *subnet, const int32_t *tokens,
                int n, int chunk, float *ret_logits) {
	struct row rows[MAX_ROWS];
	uint64_t state = (uint64_t)n;
	struct sequence *s = sequence_open(w, subnet, n);
	CHECK(s);
	for (int done = 0; done < n;) {
		int count = chunk ? chunk : 1 + (int)random_below(&state, MAX_ROWS);
		if (count > n - done)
			count = n - done;
		add_rows(rows, 0, s, tokens, done, done + count);
		step_run(w, rows, count);
		take_logits(w, 0, count, ret_logits + (size_t)done * VOCAB);
		done += count;
	}
	CHECK_INT(sequence_length(s), n);
	sequence_close(w, s);
}

static bool same_bits(const float *a, const float *b, int rows) {
	return memcmp(a, b, (size_t)rows * VOCAB * sizeof *a) == 0;
}

static float first_logits[CONTEXT * VOCAB], other_logits[CONTEXT * VOCAB];

static void check_pruned(struct engine *e, const struct plan *plan, const int32_t *text, int n) {
	struct subnet subnet = random_model_subnet(plan);
	run_alone(e->w, &subnet, text, n, 7, first_logits);

	struct model *pruned = random_model_prune(e->model, plan);
	struct workspace *w = workspace_for(pruned, e->team);
	struct plan full;
	plan_by_rule(PLAN_RULE_PREFIX, plan->depth, plan->depth, &full);
	struct subnet whole = random_model_subnet(&full);
	run_alone(w, &whole, text, n, 7, other_logits);
	workspace_destroy(w);
	random_model_destroy_pruned(pruned);
	CHECK(same_bits(first_logits, other_logits, n));
}

TEST(a_plan_equals_the_pruned_model_at_every_depth_of_every_shape) {
	int32_t text[20];
	random_text(1, text, 20);
	for (int i = 0; i < SHAPES; i++) {
		struct engine e = engine_start(best_table(), &shapes[i], 2);
		for (int rule = PLAN_RULE_EVEN; rule <= PLAN_RULE_PREFIX; rule++) {
			for (int depth = 1; depth <= shapes[i].layers; depth++) {
				struct plan plan;
				plan_by_rule((enum plan_rule)rule, shapes[i].layers, depth, &plan);
				check_pruned(&e, &plan, text, 20);
			}
		}
		engine_stop(&e);
	}
}

TEST(a_plan_equals_the_pruned_model_for_random_lists) {
	int32_t text[20];
	random_text(2, text, 20);
	uint64_t state = 5;
	struct engine e = engine_start(best_table(), &shapes[0], 2);
	for (int round = 0; round < 50; round++) {
		struct plan plan = { .of = shapes[0].layers };
		while (plan.depth == 0)
			for (int l = 0; l < plan.of; l++)
				if (random_below(&state, 2))
					plan.layers[plan.depth++] = (int16_t)l;
		check_pruned(&e, &plan, text, 20);
	}
	engine_stop(&e);
}

TEST(different_plans_give_different_logits) {
	int32_t text[20];
	random_text(2, text, 20);
	struct engine e = engine_start(best_table(), &shapes[0], 1);
	struct plan a, b;
	plan_by_rule(PLAN_RULE_EVEN, 12, 6, &a);
	plan_by_rule(PLAN_RULE_ENDS, 12, 6, &b);
	struct subnet sa = random_model_subnet(&a), sb = random_model_subnet(&b);
	run_alone(e.w, &sa, text, 20, 20, first_logits);
	run_alone(e.w, &sb, text, 20, 20, other_logits);
	CHECK(!same_bits(first_logits, other_logits, 1));
	engine_stop(&e);
}

TEST(cutting_a_prompt_into_chunks_changes_no_bit) {
	int32_t text[PROMPT];
	random_text(3, text, PROMPT);
	for (int i = 0; i < SHAPES; i++) {
		struct engine e = engine_start(best_table(), &shapes[i], 1);
		struct plan plan;
		plan_by_rule(PLAN_RULE_ENDS, shapes[i].layers, 3, &plan);
		struct subnet subnet = random_model_subnet(&plan);
		run_alone(e.w, &subnet, text, PROMPT, MAX_ROWS, first_logits);
		const int chunks[] = { 1, 5, 63, 64, 65, 0 };
		for (int c = 0; c < 6; c++) {
			run_alone(e.w, &subnet, text, PROMPT, chunks[c], other_logits);
			CHECK(same_bits(first_logits, other_logits, PROMPT));
		}
		engine_stop(&e);
	}
}

TEST(the_number_of_threads_changes_no_bit) {
	int32_t text[PROMPT];
	random_text(4, text, PROMPT);
	for (int threads = 1; threads <= 3; threads++) {
		struct engine e = engine_start(best_table(), &shapes[1], threads);
		struct plan plan;
		plan_by_rule(PLAN_RULE_EVEN, shapes[1].layers, 4, &plan);
		struct subnet subnet = random_model_subnet(&plan);
		run_alone(e.w, &subnet, text, PROMPT, 60,
		                threads == 1 ? first_logits : other_logits);
		if (threads > 1)
			CHECK(same_bits(first_logits, other_logits, PROMPT));
		engine_stop(&e);
	}
}

TEST(every_level_of_the_processor_gives_the_same_bits_as_plain_c) {
	int32_t text[PROMPT];
	random_text(5, text, PROMPT);
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	if (n == 1)
		SKIP("this machine has no level above plain C");
	for (int i = 0; i < SHAPES; i++) {
		for (int t = 0; t < n; t++) {
			struct engine e = engine_start(tables[t], &shapes[i], 2);
			struct plan plan;
			plan_by_rule(PLAN_RULE_EVEN, shapes[i].layers, shapes[i].layers, &plan);
			struct subnet subnet = random_model_subnet(&plan);
			run_alone(e.w, &subnet, text, PROMPT, 0,
			                t == 0 ? first_logits : other_logits);
			engine_stop(&e);
			if (t > 0)
				CHECK(same_bits(first_logits, other_logits, PROMPT));
		}
	}
}

/* A neighbour: a text of its own depth, advanced by a random number of tokens in each step. */
struct neighbour {
	struct sequence *s;
	int32_t text[CONTEXT];
};

/* Opens it anew when it has come to its end. */
static void neighbour_renew(struct workspace *w, struct neighbour *b, uint64_t *state) {
	int layers = shapes[0].layers;
	if (b->s && sequence_length(b->s) < CONTEXT)
		return;
	sequence_close(w, b->s);
	struct plan plan;
	plan_by_rule((enum plan_rule)random_below(state, 3), layers,
	                1 + (int)random_below(state, (unsigned)layers), &plan);
	struct subnet subnet = random_model_subnet(&plan);
	random_text(*state, b->text, CONTEXT);
	b->s = sequence_open(w, &subnet, CONTEXT);
	CHECK(b->s);
}

/* Adds one random chunk for each neighbour as long as `room` rows are left. */
static int neighbours_add(struct workspace *w, struct neighbour *b, int n_b, struct row *rows,
                int n, int room, uint64_t *state) {
	for (int i = 0; i < n_b; i++) {
		neighbour_renew(w, &b[i], state);
		int left = CONTEXT - sequence_length(b[i].s);
		int count = random_below(state, 3) ? 1 : 1 + (int)random_below(state, 20);
		count = count < left ? count : left;
		if (n + count > room)
			count = 1;
		if (n + count > room)
			break;
		int from = sequence_length(b[i].s);
		n = add_rows(rows, n, b[i].s, b[i].text, from, from + count);
	}
	return n;
}

/* Runs text in chunks among n_b neighbours, some rows before and some after its own. */
static void run_among(struct workspace *w, const struct subnet *subnet, const int32_t *text, int n,
                int n_b, float *ret_logits) {
	static struct neighbour neighbours[32];
	struct row rows[MAX_ROWS];
	uint64_t state = (uint64_t)n_b;
	memset(neighbours, 0, sizeof neighbours);
	struct sequence *s = sequence_open(w, subnet, n);
	CHECK(s);
	for (int done = 0; done < n;) {
		int before = (int)random_below(&state, (unsigned)n_b + 1);
		int count = done < 9 ? 9 : random_below(&state, 4) ? 1 : 6;
		count = count < n - done ? count : n - done;
		int first = neighbours_add(w, neighbours, before, rows, 0, 60, &state);
		int total = add_rows(rows, first, s, text, done, done + count);
		total = neighbours_add(w, neighbours + before, n_b - before, rows, total, MAX_ROWS,
		                &state);
		step_run(w, rows, total);
		take_logits(w, first, count, ret_logits + (size_t)done * VOCAB);
		done += count;
	}
	sequence_close(w, s);
	for (int i = 0; i < n_b; i++)
		sequence_close(w, neighbours[i].s);
}

/* At every level, among so many neighbours and then `more` times as many. */
static void check_neighbours(int most, int more) {
	enum { LENGTH = 40 };
	int32_t text[LENGTH];
	random_text(6, text, LENGTH);
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	for (int t = 0; t < n; t++) {
		struct engine e = engine_start(tables[t], &shapes[0], 2);
		struct plan plan;
		plan_by_rule(PLAN_RULE_EVEN, 12, 5, &plan);
		struct subnet subnet = random_model_subnet(&plan);
		run_alone(e.w, &subnet, text, LENGTH, 1, first_logits);
		for (int n_b = 1; n_b <= most; n_b += n_b < 4 ? more : 7) {
			run_among(e.w, &subnet, text, LENGTH, n_b, other_logits);
			CHECK(same_bits(first_logits, other_logits, LENGTH));
		}
		CHECK_INT(workspace_blocks_reserved(e.w), 0);
		CHECK_INT(workspace_blocks_used(e.w), 0);
		engine_stop(&e);
	}
}

TEST(neighbours_of_any_depth_change_no_bit_at_any_level) {
	check_neighbours(32, 1);
}

/* ---- the same in every format of weights and of cached keys and values ---- */

static const struct kind {
	enum weight_format weights;
	enum kv_format kv;
} kinds[] = { { WEIGHTS_BF16, KV_BF16 }, { WEIGHTS_INT8, KV_BF16 }, { WEIGHTS_INT4, KV_BF16 },
	{ WEIGHTS_F32, KV_BF16 }, { WEIGHTS_INT8, KV_F32 } };
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void use(struct kind kind) {
	random_model_use(kind.weights);
	kv = kind.kv;
}

static void use_f32(void) {
	use((struct kind){ WEIGHTS_F32, KV_F32 });
}

TEST(a_plan_equals_the_pruned_model_in_every_format) {
	int32_t text[20];
	random_text(1, text, 20);
	for (int k = 0; k < KINDS; k++) {
		use(kinds[k]);
		for (int i = 0; i < SHAPES; i++) {
			struct engine e = engine_start(best_table(), &shapes[i], 2);
			for (int depth = 1; depth <= shapes[i].layers; depth++) {
				struct plan plan;
				plan_by_rule(PLAN_RULE_EVEN, shapes[i].layers, depth, &plan);
				check_pruned(&e, &plan, text, 20);
			}
			engine_stop(&e);
		}
	}
	use_f32();
}

TEST(chunks_and_threads_change_no_bit_in_any_format) {
	int32_t text[PROMPT];
	struct plan plan;
	random_text(3, text, PROMPT);
	plan_by_rule(PLAN_RULE_ENDS, shapes[0].layers, 3, &plan);
	struct subnet subnet = random_model_subnet(&plan);
	for (int k = 0; k < KINDS; k++) {
		use(kinds[k]);
		for (int threads = 1; threads <= 3; threads++) {
			struct engine e = engine_start(best_table(), &shapes[0], threads);
			const int chunks[] = { MAX_ROWS, 1, 65, 0 };
			for (int c = 0; c < 4; c++) {
				bool first = threads == 1 && c == 0;
				run_alone(e.w, &subnet, text, PROMPT, chunks[c],
				                first ? first_logits : other_logits);
				CHECK(first || same_bits(first_logits, other_logits, PROMPT));
			}
			engine_stop(&e);
		}
	}
	use_f32();
}

TEST(neighbours_change_no_bit_in_any_format_at_any_level) {
	for (int k = 0; k < KINDS; k++) {
		use(kinds[k]);
		check_neighbours(11, 3);
	}
	use_f32();
}

/* BF16 has an instruction of its own, which reads inputs of its own, at one level. */
TEST(every_level_gives_the_same_bits_in_every_format) {
	int32_t text[PROMPT];
	random_text(5, text, PROMPT);
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, shapes[1].layers, shapes[1].layers, &plan);
	struct subnet subnet = random_model_subnet(&plan);
	for (int k = 0; k < KINDS; k++) {
		use(kinds[k]);
		for (int t = 0; t < n; t++) {
			if (kinds[k].weights == WEIGHTS_BF16
			                && tables[t]->formats[WEIGHTS_BF16].input)
				continue;
			struct engine e = engine_start(tables[t], &shapes[1], 2);
			run_alone(e.w, &subnet, text, PROMPT, 0,
			                t == 0 ? first_logits : other_logits);
			engine_stop(&e);
			CHECK(t == 0 || same_bits(first_logits, other_logits, PROMPT));
		}
	}
	use_f32();
}

TEST(every_format_is_near_f32_and_not_the_same) {
	int32_t text[20];
	struct plan plan;
	random_text(2, text, 20);
	plan_by_rule(PLAN_RULE_EVEN, shapes[0].layers, 2, &plan);
	struct subnet subnet = random_model_subnet(&plan);
	for (int k = -1; k < KINDS; k++) {
		use(k < 0 ? (struct kind){ WEIGHTS_F32, KV_F32 } : kinds[k]);
		struct engine e = engine_start(best_table(), &shapes[0], 1);
		run_alone(e.w, &subnet, text, 20, 20, k < 0 ? first_logits : other_logits);
		engine_stop(&e);
		double difference = 0, size = 0;
		for (int i = 0; k >= 0 && i < 20 * VOCAB; i++) {
			double d = (double)other_logits[i] - (double)first_logits[i];
			difference += d * d;
			size += (double)first_logits[i] * (double)first_logits[i];
		}
		CHECK(k < 0 || (difference > 0 && difference < 0.1 * size));
	}
	use_f32();
}

/* A kernel table that counts how often each panel of each matrix is read. */
static struct {
	const struct model *model;
	int reads[64][64]; /* of matrix 4 l + {0 qkv, 1 out, 2 up, 3 down}, by panel */
	int others;
} counted;
static const struct ops *counted_ops;

static int matrix_number(const struct matrix *w) {
	const struct stack_weights *stack = &counted.model->weights.stack[STACK_DECODER];
	for (int l = 0; l < counted.model->facts.stack[STACK_DECODER].layers; l++) {
		const struct layer_weights *layer = &stack->layers[l];
		const struct matrix *of[] = { &layer->qkv.w, &layer->out.w, &layer->up.w,
			&layer->down.w };
		for (int i = 0; i < 4; i++)
			if (w->data == of[i]->data)
				return 4 * l + i;
	}
	return -1;
}

static void counting_linear(const struct linear *l, int first_panel, int end_panel) {
	int number = matrix_number(l->w);
	for (int panel = first_panel; panel < end_panel; panel++) {
		if (number < 0)
			__atomic_fetch_add(&counted.others, 1, __ATOMIC_RELAXED);
		else
			__atomic_fetch_add(&counted.reads[number][panel], 1, __ATOMIC_RELAXED);
	}
	counted_ops->formats[WEIGHTS_F32].linear(l, first_panel, end_panel);
}

TEST(a_step_of_three_depths_reads_each_kept_layer_once_and_no_other) {
	struct ops counting = *ops_c();
	counting.formats[WEIGHTS_F32].linear = counting_linear;
	counted_ops = ops_c();
	struct engine e = engine_start(&counting, &shapes[0], 2);
	memset(&counted, 0, sizeof counted);
	counted.model = e.model;

	/* Together 0, 3, 4, 6, 8 and 9. */
	static const struct plan plans[] = {
		{ .of = 12, .depth = 3, .layers = { 0, 4, 8 } },
		{ .of = 12, .depth = 4, .layers = { 0, 3, 6, 9 } },
		{ .of = 12, .depth = 1, .layers = { 8 } },
	};
	static const bool kept[12] = { [0] = 1, [3] = 1, [4] = 1, [6] = 1, [8] = 1, [9] = 1 };
	struct row rows[MAX_ROWS];
	int32_t text[40];
	random_text(8, text, 40);
	int n = 0;
	for (int i = 0; i < 3; i++) {
		struct subnet subnet = random_model_subnet(&plans[i]);
		struct sequence *s = sequence_open(e.w, &subnet, 40);
		n = add_rows(rows, n, s, text, 0, i == 1 ? 40 : 1);
	}
	step_run(e.w, rows, n);

	const struct stack_weights *stack = &e.model->weights.stack[STACK_DECODER];
	for (int l = 0; l < 12; l++) {
		const int panels[] = { stack->layers[l].qkv.w.n_panels,
			stack->layers[l].out.w.n_panels, stack->layers[l].up.w.n_panels,
			stack->layers[l].down.w.n_panels };
		for (int i = 0; i < 4; i++)
			for (int panel = 0; panel < 64; panel++)
				CHECK_INT(counted.reads[4 * l + i][panel],
				                kept[l] && panel < panels[i]);
	}
	CHECK_INT(counted.others, 0);

	int last = n - 1;
	step_logits(e.w, &last, 1);
	CHECK_INT(counted.others, e.model->weights.output.w.n_panels);
	engine_stop(&e);
}

TEST(a_step_allocates_nothing) {
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	for (int t = 0; t < n; t++) {
		struct engine e = engine_start(tables[t], &shapes[0], 2);
		int32_t text[MAX_ROWS];
		random_text(9, text, MAX_ROWS);
		struct plan plan;
		plan_by_rule(PLAN_RULE_EVEN, 12, 6, &plan);
		struct subnet subnet = random_model_subnet(&plan);
		struct row rows[MAX_ROWS];
		int before = allocations();
		CHECK(before > 0); /* the counter is linked in */
		struct sequence *s = sequence_open(e.w, &subnet, CONTEXT);
		add_rows(rows, 0, s, text, 0, MAX_ROWS - 1);
		step_run(e.w, rows, MAX_ROWS - 1);
		struct sequence *fork = sequence_fork(e.w, s, CONTEXT);
		add_rows(rows, 0, fork, text, MAX_ROWS - 1, MAX_ROWS);
		step_run(e.w, rows, 1);
		step_logits(e.w, (int[]){ 0 }, 1);
		sequence_close(e.w, fork);
		sequence_close(e.w, s);
		CHECK_INT(allocations() - before, 0);
		engine_stop(&e);
	}
}
