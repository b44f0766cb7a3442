/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoders and encoder-decoders: right against double precision, and what must hold bit for bit. A
 * subnet equals the pruned model; a text does not depend on the texts of any length and depth that
 * share its steps, nor on when its decoder rows come; forks share their source.
 */
#include <math.h>

#include "model/workspace.h"
#include "tests/allocations.h"
#include "tests/check.h"
#include "tests/naive.h"
#include "tests/random_model.h"

enum {
	VOCAB = 61,
	SOURCES = 53, /* vocabulary of sources */
	CONTEXT = 100,
	MAX_SOURCE = 150,
	WIDEST = 48,
	MAX_ROWS = 192,
	MAX_JOBS = 12,
	KV_BYTES = 32 << 20,
};

#define ENCODER                                                                                    \
	.vocab = SOURCES, .context = MAX_SOURCE, .positions = POSITIONS_LEARNED,                   \
	.position_offset = 2

static const struct facts shapes[] = {
	/* roberta */
	{ .kind = KIND_ENCODER,
	                .vocab = SOURCES,
	                .context = MAX_SOURCE,
	                .stack[STACK_ENCODER] = { ENCODER, .layers = 6, .dim = 32, .heads = 2,
	                                .ffn = 64, .norm = NORM_POST, .embedding_norm = true,
	                                .activation = ACTIVATION_GELU } },
	/* pre-norm, with token types */
	{ .kind = KIND_ENCODER,
	                .vocab = SOURCES,
	                .context = MAX_SOURCE,
	                .stack[STACK_ENCODER] = { ENCODER, .layers = 3, .dim = 40, .heads = 5,
	                                .ffn = 48, .norm = NORM_PRE, .final_norm = true,
	                                .token_types = 2, .embed_scale = 3,
	                                .activation = ACTIVATION_RELU } },
	/* transformer_wmt_en_de_big */
	{ .kind = KIND_SEQ2SEQ,
	                .vocab = VOCAB,
	                .context = CONTEXT,
	                .tied_output = true,
	                .stack = { [STACK_ENCODER] = { ENCODER, .layers = 6, .dim = 32, .heads = 4,
	                                           .ffn = 64, .norm = NORM_POST,
	                                           .embed_scale = 5.5f,
	                                           .activation = ACTIVATION_RELU },
	                                [STACK_DECODER] = { .layers = 4,
	                                                .dim = 32,
	                                                .heads = 4,
	                                                .ffn = 48,
	                                                .norm = NORM_POST,
	                                                .cross = true,
	                                                .positions = POSITIONS_LEARNED,
	                                                .embed_scale = 5.5f,
	                                                .activation = ACTIVATION_RELU } } },
	/* pre-norm, and stacks of different width */
	{ .kind = KIND_SEQ2SEQ,
	                .vocab = VOCAB,
	                .context = CONTEXT,
	                .output_bias = true,
	                .stack = { [STACK_ENCODER] = { ENCODER, .layers = 3, .dim = 48, .heads = 3,
	                                           .ffn = 40, .norm = NORM_PRE, .final_norm = true,
	                                           .activation = ACTIVATION_GELU },
	                                [STACK_DECODER] = { .layers = 5,
	                                                .dim = 32,
	                                                .heads = 2,
	                                                .ffn = 72,
	                                                .norm = NORM_PRE,
	                                                .final_norm = true,
	                                                .embedding_norm = true,
	                                                .cross = true,
	                                                .positions = POSITIONS_LEARNED,
	                                                .position_offset = 2,
	                                                .activation = ACTIVATION_GELU_TANH } } },
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
	                                .max_sequences = MAX_JOBS,
	                                .kv_bytes = KV_BYTES,
	                                .kv = kv },
	                err, sizeof err);
	if (!w)
		check_fail(__FILE__, __LINE__, "%s", err);
	return w;
}

static struct engine engine_start(const struct ops *ops, const struct facts *shape, int threads) {
	char err[200] = "";
	struct engine e = { .model = random_model_of(ops, shape) };
	e.team = team_create(threads, err, sizeof err);
	if (!e.team)
		check_fail(__FILE__, __LINE__, "%s", err);
	e.w = workspace_for(e.model, e.team);
	return e;
}

static void engine_stop(struct engine *e) {
	CHECK_INT(workspace_blocks_reserved(e->w), 0);
	CHECK_INT(workspace_blocks_used(e->w), 0);
	workspace_destroy(e->w);
	team_destroy(e->team);
	random_model_destroy(e->model);
}

static const struct ops *best_table(void) {
	const struct ops *tables[CPU_LEVELS + 1];
	return tables[random_model_tables(tables) - 1];
}

/* ---- jobs: a source, and of a seq2seq a target; what came out ---- */

struct job {
	struct subnet subnet;
	int n_source, n_target;
	int32_t source[MAX_SOURCE], types[MAX_SOURCE], target[CONTEXT];
	struct sequence *s;
	bool encoded;
	int done; /* target rows that have been through a step */
	/* Of the step in progress: */
	int encoder_row, decoder_row; /* -1: none */
	int decoder_rows;
	/* Results */
	float states[MAX_SOURCE * WIDEST];
	float scores[CONTEXT * VOCAB];
};

static struct job jobs[MAX_JOBS], others[MAX_JOBS];

/* A random job at these depths (0: random ones). */
static void job_init(struct job *job, const struct facts *shape, uint64_t seed, int encoder_depth,
                int decoder_depth) {
	uint64_t state = seed;
	int layers[STACKS], depth[STACKS] = { encoder_depth, decoder_depth };
	memset(job, 0, sizeof *job);
	for (int s = 0; s < STACKS; s++) {
		layers[s] = shape->stack[s].layers;
		if (layers[s] == 0)
			continue;
		enum plan_rule rule = (enum plan_rule)random_below(&state, 3);
		int d = depth[s] ? depth[s] : 1 + (int)random_below(&state, (unsigned)layers[s]);
		plan_by_rule(rule, layers[s], d, &job->subnet.stack[s]);
	}
	static const int lengths[] = { 1, 2, 7, 16, 40, 63, 64, 65, 100, 128, 129, 150 };
	job->n_source = lengths[random_below(&state, 12)];
	job->n_target = layers[STACK_DECODER] ? 1 + (int)random_below(&state, 70) : 0;
	for (int i = 0; i < job->n_source; i++) {
		job->source[i] = (int32_t)random_below(&state, SOURCES);
		job->types[i] = i > job->n_source / 2;
	}
	for (int i = 0; i < job->n_target; i++)
		job->target[i] = (int32_t)random_below(&state, VOCAB);
}

static bool job_finished(const struct job *job) {
	return job->encoded && job->done == job->n_target;
}

static int add_source(struct job *job, struct row *rows, int n, int *tiles) {
	int needed = (job->n_source + KV_TILE - 1) / KV_TILE;
	if (job->encoded || n + job->n_source > MAX_ROWS || needed > *tiles)
		return n;
	*tiles -= needed;
	job->encoder_row = n;
	for (int i = 0; i < job->n_source; i++)
		rows[n++] = (struct row){ .sequence = job->s,
			.stack = STACK_ENCODER,
			.token = job->source[i],
			.position = i,
			.type = job->types[i] };
	return n;
}

static int add_target(struct job *job, struct row *rows, int n, int count) {
	count = count < job->n_target - job->done ? count : job->n_target - job->done;
	count = count < MAX_ROWS - n ? count : MAX_ROWS - n;
	if (count == 0)
		return n;
	job->decoder_row = n;
	job->decoder_rows = count;
	for (int i = job->done; i < job->done + count; i++)
		rows[n++] = (struct row){ .sequence = job->s,
			.stack = STACK_DECODER,
			.token = job->target[i],
			.position = i };
	return n;
}

/* Adds rows of a job to a step, a random number of them in a random place. */
static int job_add(struct engine *e, struct job *job, struct row *rows, int n, int *tiles,
                uint64_t *state) {
	job->encoder_row = job->decoder_row = -1;
	if (job_finished(job) || random_below(state, 4) == 0)
		return n;
	if (!job->s)
		job->s = sequence_open_source(e->w, &job->subnet, job->n_target, job->n_source);
	CHECK(job->s);
	int count = random_below(state, 2) ? 1 : 1 + (int)random_below(state, 30);
	bool decoder_first = random_below(state, 2);
	int room = MAX_ROWS - n - (job->encoded ? 0 : job->n_source);
	if (decoder_first && room >= count && (job->encoded || *tiles >= 3)) {
		n = add_target(job, rows, n, count);
		return add_source(job, rows, n, tiles);
	}
	n = add_source(job, rows, n, tiles);
	bool ready = job->encoded || job->encoder_row >= 0;
	return ready && random_below(state, 2) ? add_target(job, rows, n, count) : n;
}

static void job_take(struct engine *e, struct job *job) {
	size_t dim = (size_t)e->model->facts.stack[STACK_ENCODER].dim;
	if (job->encoder_row >= 0) {
		for (int i = 0; i < job->n_source; i++)
			memcpy(job->states + (size_t)i * dim,
			                step_hidden(e->w, job->encoder_row + i),
			                dim * sizeof(float));
		job->encoded = true;
	}
	if (job->decoder_row >= 0) {
		int indices[MAX_ROWS];
		for (int i = 0; i < job->decoder_rows; i++)
			indices[i] = job->decoder_row + i;
		const float *logits = step_logits(e->w, indices, job->decoder_rows);
		for (int i = 0; i < job->decoder_rows; i++)
			memcpy(job->scores + (size_t)(job->done + i) * VOCAB,
			                logits + (size_t)i * step_logits_stride(e->w),
			                VOCAB * sizeof(float));
		job->done += job->decoder_rows;
	}
	if (job_finished(job)) {
		sequence_close(e->w, job->s);
		job->s = NULL;
	}
}

/* Runs jobs to their end in steps that mix them at random. */
static void run_jobs(struct engine *e, struct job *all, int n_jobs, uint64_t seed) {
	struct row rows[MAX_ROWS];
	uint64_t state = seed;
	for (bool finished = false; !finished;) {
		int n = 0, tiles = workspace_source_tiles(e->w);
		unsigned from = random_below(&state, (unsigned)n_jobs);
		for (unsigned i = 0; i < (unsigned)n_jobs; i++) {
			struct job *job = &all[(from + i) % (unsigned)n_jobs];
			n = job_add(e, job, rows, n, &tiles, &state);
		}
		if (n == 0)
			continue;
		step_run(e->w, rows, n);
		finished = true;
		for (int i = 0; i < n_jobs; i++) {
			job_take(e, &all[i]);
			finished &= job_finished(&all[i]);
		}
	}
}

static void check_same(const struct job *a, const struct job *b, int dim) {
	CHECK(memcmp(a->states, b->states, (size_t)(a->n_source * dim) * sizeof(float)) == 0);
	CHECK(memcmp(a->scores, b->scores, (size_t)(a->n_target * VOCAB) * sizeof(float)) == 0);
}

/* ---- right ---- */

static void check_near(const float *actual, const double *wanted, int n) {
	for (int i = 0; i < n; i++)
		if (!(fabs((double)actual[i] - wanted[i]) < 1e-4))
			check_fail(__FILE__, __LINE__, "number %d is %.7g, expected %.7g", i,
			                (double)actual[i], wanted[i]);
}

/* A job's results against double precision. */
static void check_right(const struct engine *e, const struct job *job) {
	static double source[MAX_SOURCE * WIDEST], target[CONTEXT * WIDEST], scores[VOCAB];
	const struct facts *facts = &e->model->facts;
	int dim = facts->stack[STACK_ENCODER].dim;
	naive_run(e->model, STACK_ENCODER, &job->subnet.stack[STACK_ENCODER], job->source,
	                job->types, job->n_source, NULL, 0, source);
	check_near(job->states, source, job->n_source * dim);
	if (job->n_target == 0)
		return;
	naive_run(e->model, STACK_DECODER, &job->subnet.stack[STACK_DECODER], job->target, NULL,
	                job->n_target, source, job->n_source, target);
	for (int i = 0; i < job->n_target; i++) {
		naive_scores(e->model, target + i * facts->stack[STACK_DECODER].dim, scores);
		check_near(job->scores + (size_t)i * VOCAB, scores, VOCAB);
	}
}

static void all_right_with(const struct ops *ops, int n_jobs) {
	for (int shape = 0; shape < SHAPES; shape++) {
		struct engine e = engine_start(ops, &shapes[shape], 2);
		for (int i = 0; i < n_jobs; i++)
			job_init(&jobs[i], &shapes[shape], (uint64_t)(100 * shape + i), 0, 0);
		run_jobs(&e, jobs, n_jobs, (uint64_t)shape);
		for (int i = 0; i < n_jobs; i++)
			check_right(&e, &jobs[i]);
		engine_stop(&e);
	}
}

TEST(texts_of_every_shape_agree_with_double_precision) {
	all_right_with(best_table(), MAX_JOBS);
}

TEST(openblas_agrees_with_double_precision) {
	if (!ops_blas())
		SKIP("built without OpenBLAS");
	all_right_with(ops_blas(), 5);
}

/* Squared distance of a job's scores from double precision where keys and values are kept so. */
static double distance(const struct engine *e, const struct job *job, enum kv_format kept) {
	static double source[MAX_SOURCE * WIDEST], target[CONTEXT * WIDEST], scores[VOCAB];
	double sum = 0;
	naive_run(e->model, STACK_ENCODER, &job->subnet.stack[STACK_ENCODER], job->source,
	                job->types, job->n_source, NULL, 0, source);
	naive_run_kv(e->model, STACK_DECODER, &job->subnet.stack[STACK_DECODER], kept, job->target,
	                NULL, job->n_target, source, job->n_source, target);
	for (int i = 0; i < job->n_target; i++) {
		naive_scores(e->model, target + i * e->model->facts.stack[STACK_DECODER].dim,
		                scores);
		for (int k = 0; k < VOCAB; k++)
			sum += pow(scores[k] - (double)job->scores[i * VOCAB + k], 2);
	}
	return sum;
}

/*
 * Sums differ in their last bits, so that a few numbers round to the other neighbour; everything
 * else is equal. Without rounding, or with cutting, all of them would be off.
 */
TEST(with_bf16_keys_and_values_decoders_are_near_those_of_rounded_ones_in_double_precision) {
	double near = 0, far = 0;
	kv = KV_BF16;
	for (int shape = 0; shape < SHAPES; shape++) {
		if (shapes[shape].stack[STACK_DECODER].layers == 0)
			continue;
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		for (int i = 0; i < MAX_JOBS; i++)
			job_init(&jobs[i], &shapes[shape], (uint64_t)(100 * shape + i), 0, 0);
		run_jobs(&e, jobs, MAX_JOBS, (uint64_t)shape);
		for (int i = 0; i < MAX_JOBS; i++) {
			near += distance(&e, &jobs[i], KV_BF16);
			far += distance(&e, &jobs[i], KV_F32);
		}
		engine_stop(&e);
	}
	kv = KV_F32;
	CHECK(far > 0);
	CHECK(near < 0.02 * far);
}

/* ---- the same bits ---- */

static void check_neighbours(void) {
	for (int shape = 0; shape < SHAPES; shape++) {
		int dim = shapes[shape].stack[STACK_ENCODER].dim;
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		for (int round = 0; round < 6; round++) {
			for (int i = 0; i < MAX_JOBS; i++) {
				job_init(&jobs[i], &shapes[shape], (uint64_t)(100 * round + i), 0,
				                0);
				others[i] = jobs[i];
				run_jobs(&e, &jobs[i], 1, (uint64_t)i);
			}
			run_jobs(&e, others, MAX_JOBS, (uint64_t)round);
			for (int i = 0; i < MAX_JOBS; i++)
				check_same(&jobs[i], &others[i], dim);
		}
		engine_stop(&e);
	}
}

static void check_levels(enum weight_format format) {
	enum { N = 5 };
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	random_model_use(format);
	/* BF16's own instruction, at the last level, rounds its own way. */
	n -= format == WEIGHTS_BF16 && tables[n - 1]->formats[format].input;
	for (int shape = 0; shape < SHAPES; shape++) {
		int dim = shapes[shape].stack[STACK_ENCODER].dim;
		for (int t = 0; t <= n; t++) {
			struct job *to = t == 0 ? jobs : others;
			struct engine e = engine_start(tables[t % n], &shapes[shape], t + 1);
			for (int i = 0; i < N; i++)
				job_init(&to[i], &shapes[shape], (uint64_t)(7 * i + 1), 0, 0);
			run_jobs(&e, to, N, (uint64_t)t);
			for (int i = 0; t > 0 && i < N; i++)
				check_same(&jobs[i], &others[i], dim);
			engine_stop(&e);
		}
	}
}

TEST(neither_threads_nor_the_level_of_the_processor_change_a_bit) {
	for (int f = 0; f < WEIGHT_FORMATS; f++)
		check_levels((enum weight_format)f);
	random_model_use(WEIGHTS_F32);
}

static struct subnet whole_of(const struct subnet *subnet) {
	struct subnet whole = { 0 };
	for (int s = 0; s < STACKS; s++)
		if (subnet->stack[s].depth > 0)
			plan_by_rule(PLAN_RULE_PREFIX, subnet->stack[s].depth,
			                subnet->stack[s].depth, &whole.stack[s]);
	return whole;
}

static void check_pruned_pairs(void) {
	for (int shape = 0; shape < SHAPES; shape++) {
		const struct stack_facts *stack = shapes[shape].stack;
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		int pairs = stack[STACK_ENCODER].layers
		                * (stack[STACK_DECODER].layers ? stack[STACK_DECODER].layers : 1);
		for (int pair = 0; pair < pairs; pair++) {
			int encoder = pair % stack[STACK_ENCODER].layers + 1;
			int decoder = pair / stack[STACK_ENCODER].layers + 1;
			job_init(&jobs[0], &shapes[shape], (uint64_t)pair, encoder, decoder);
			others[0] = jobs[0];
			run_jobs(&e, jobs, 1, 1);

			struct model *model = random_model_prune_to(e.model, &jobs[0].subnet);
			struct engine pruned = { model, e.team, workspace_for(model, e.team) };
			others[0].subnet = whole_of(&jobs[0].subnet);
			run_jobs(&pruned, others, 1, 2);
			check_same(&jobs[0], &others[0], stack[STACK_ENCODER].dim);
			workspace_destroy(pruned.w);
			random_model_destroy_pruned(model);
		}
		engine_stop(&e);
	}
}

TEST(texts_of_other_length_and_depth_in_a_step_change_no_bit) {
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		random_model_use((enum weight_format)f);
		check_neighbours();
	}
	random_model_use(WEIGHTS_F32);
}

TEST(a_subnet_equals_the_pruned_model_at_every_pair_of_depths) {
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		random_model_use((enum weight_format)f);
		check_pruned_pairs();
	}
	random_model_use(WEIGHTS_F32);
}

TEST(different_sources_give_different_answers) {
	struct engine e = engine_start(best_table(), &shapes[2], 1);
	job_init(&jobs[0], &shapes[2], 3, 0, 0);
	others[0] = jobs[0];
	others[0].source[jobs[0].n_source - 1] ^= 1;
	run_jobs(&e, jobs, 1, 1);
	run_jobs(&e, others, 1, 1);
	CHECK(memcmp(jobs[0].scores, others[0].scores, VOCAB * sizeof(float)) != 0);
	engine_stop(&e);
}

TEST(what_blocks_and_tiles_held_before_changes_no_bit) {
	for (int shape = 0; shape < SHAPES; shape++) {
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		for (int i = 0; i < 4; i++)
			job_init(&jobs[i], &shapes[shape], (uint64_t)(40 + i), 0, 0);
		memcpy(others, jobs, 4 * sizeof *jobs);
		run_jobs(&e, jobs, 4, 1);
		if (e.w->kv.total)
			memset(e.w->kv.base, 0xff, e.w->kv.total * e.w->kv.block_bytes); /* NaN */
		size_t tile = 2 * KV_TILE * (size_t)shapes[shape].stack[STACK_ENCODER].dim;
		for (size_t i = 0; i < (size_t)e.w->n_source_tiles * tile; i++)
			e.w->source_kv[i] = NAN;
		run_jobs(&e, others, 4, 2);
		for (int i = 0; i < 4; i++)
			check_same(&jobs[i], &others[i], shapes[shape].stack[STACK_ENCODER].dim);
		engine_stop(&e);
	}
}

/* ---- accounts ---- */

/* A job whose source is through the encoder and whose target is not begun. */
static void encode(struct engine *e, struct job *job) {
	struct row rows[MAX_ROWS];
	int tiles = workspace_source_tiles(e->w);
	job->s = sequence_open_source(e->w, &job->subnet, job->n_target, job->n_source);
	CHECK(job->s);
	step_run(e->w, rows, add_source(job, rows, 0, &tiles));
	job->encoded = true;
}

/* The rest of a job that is encoded. */
static void decode(struct engine *e, struct job *job) {
	struct row rows[MAX_ROWS];
	job->encoder_row = -1;
	while (!job_finished(job)) {
		step_run(e->w, rows, add_target(job, rows, 0, 9));
		job_take(e, job);
	}
}

static size_t tiles_of(int tokens) {
	return ((size_t)tokens + KV_TILE - 1) / KV_TILE;
}

TEST(a_source_takes_blocks_for_each_kept_decoder_layer) {
	struct engine e = engine_start(best_table(), &shapes[2], 1);
	job_init(&jobs[0], &shapes[2], 5, 4, 3);
	struct job *job = &jobs[0];
	job->n_source = 130;
	job->n_target = 70;
	size_t source = workspace_source_blocks(e.w, &job->subnet, 130);
	CHECK_INT(source, 3 * 3);
	CHECK_INT(workspace_blocks_needed(e.w, &job->subnet, 70), 3 * 2);
	job->s = sequence_open_source(e.w, &job->subnet, 70, 130);
	CHECK_INT(workspace_blocks_reserved(e.w), 3 * 5);
	CHECK_INT(workspace_blocks_used(e.w), 0);
	sequence_close(e.w, job->s);
	CHECK_INT(workspace_blocks_reserved(e.w), 0);
	encode(&e, job);
	CHECK_INT(workspace_blocks_used(e.w), 3 * 3);
	CHECK_INT(workspace_blocks_reserved(e.w), 3 * 5);
	decode(&e, job);
	engine_stop(&e);
}

TEST(forks_share_their_source_and_each_goes_its_own_way) {
	for (int shape = 2; shape < SHAPES; shape++) {
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		job_init(&jobs[0], &shapes[shape], 77, 0, 3);
		jobs[0].n_target = 50;
		for (int i = 1; i < 4; i++) {
			jobs[i] = jobs[0];
			for (int k = 0; k < 50; k++)
				jobs[i].target[k] = (jobs[0].target[k] + i * (k > 8)) % VOCAB;
		}
		memcpy(others, jobs, 4 * sizeof *jobs);
		run_jobs(&e, others, 4, 1);

		encode(&e, &jobs[0]);
		struct row rows[MAX_ROWS];
		jobs[0].encoder_row = -1;
		step_run(e.w, rows, add_target(&jobs[0], rows, 0, 9));
		job_take(&e, &jobs[0]);
		size_t before = workspace_blocks_used(e.w);
		for (int i = 1; i < 4; i++) {
			jobs[i].s = sequence_fork(e.w, jobs[0].s, 50);
			CHECK(jobs[i].s);
			jobs[i].encoded = true;
			jobs[i].done = 9;
			memcpy(jobs[i].scores, jobs[0].scores, 9 * VOCAB * sizeof(float));
			memcpy(jobs[i].states, others[i].states, sizeof jobs[i].states);
		}
		CHECK_INT(workspace_blocks_used(e.w), before);
		memcpy(jobs[0].states, others[0].states, sizeof jobs[0].states);
		decode(&e, &jobs[0]); /* its end leaves the source to the others */
		run_jobs(&e, jobs + 1, 3, 4);
		for (int i = 0; i < 4; i++)
			check_same(&jobs[i], &others[i], 1);
		engine_stop(&e);
	}
}

TEST(stepping_down_frees_the_source_of_the_dropped_layers) {
	struct engine e = engine_start(best_table(), &shapes[3], 2);
	job_init(&jobs[0], &shapes[3], 9, 2, 5);
	struct subnet nested = jobs[0].subnet;
	plan_nested(&jobs[0].subnet.stack[STACK_DECODER], PLAN_RULE_EVEN, 2,
	                &nested.stack[STACK_DECODER]);
	others[0] = jobs[0];
	others[0].subnet = nested;
	run_jobs(&e, others, 1, 1);

	encode(&e, &jobs[0]);
	memcpy(jobs[0].states, others[0].states, sizeof jobs[0].states);
	CHECK(sequence_narrow(e.w, jobs[0].s, &nested));
	CHECK_INT(workspace_blocks_used(e.w), 2 * tiles_of(jobs[0].n_source));
	CHECK_INT(workspace_blocks_reserved(e.w),
	                2 * (tiles_of(jobs[0].n_source) + tiles_of(jobs[0].n_target)));
	decode(&e, &jobs[0]);
	check_same(&jobs[0], &others[0], 1);

	/* Before the source has come, and never with another encoder. */
	jobs[0].s = sequence_open_source(e.w, &jobs[0].subnet, 10, 100);
	struct subnet other = nested;
	plan_by_rule(PLAN_RULE_EVEN, 3, 1, &other.stack[STACK_ENCODER]);
	CHECK(!sequence_narrow(e.w, jobs[0].s, &other));
	CHECK(sequence_narrow(e.w, jobs[0].s, &nested));
	CHECK_INT(workspace_blocks_reserved(e.w), 2 * (2 + 1));
	sequence_close(e.w, jobs[0].s);
	engine_stop(&e);
}

TEST(a_source_that_finds_no_blocks_is_not_opened) {
	struct engine e = engine_start(best_table(), &shapes[2], 1);
	job_init(&jobs[0], &shapes[2], 5, 1, 4);
	size_t needed = workspace_blocks_needed(e.w, &jobs[0].subnet, 64)
	                + workspace_source_blocks(e.w, &jobs[0].subnet, 65);
	size_t leave = needed - 1;
	CHECK(kv_promise(&e.w->kv, workspace_blocks_total(e.w) - leave));
	CHECK(!sequence_open_source(e.w, &jobs[0].subnet, 64, 65));
	CHECK_INT(kv_available(&e.w->kv), leave);
	kv_withdraw(&e.w->kv, 1);
	struct sequence *s = sequence_open_source(e.w, &jobs[0].subnet, 64, 65);
	CHECK(s);
	sequence_close(e.w, s);
	kv_withdraw(&e.w->kv, workspace_blocks_total(e.w) - needed);
	engine_stop(&e);
}

TEST(an_encoder_needs_no_blocks) {
	char err[200] = "";
	struct engine e = engine_start(best_table(), &shapes[0], 1);
	struct workspace *w = workspace_create(e.model,
	                &(struct workspace_options){ .team = e.team,
	                                .max_rows = 20,
	                                .max_logit_rows = 1,
	                                .max_sequences = 2,
	                                .kv_bytes = 1 },
	                err, sizeof err);
	CHECK(w);
	CHECK_INT(workspace_blocks_total(w), 0);
	CHECK(workspace_source_tiles(w) >= 1);
	job_init(&jobs[0], &shapes[0], 1, 0, 0);
	struct sequence *a = sequence_open_source(w, &jobs[0].subnet, 0, 20);
	struct sequence *b = sequence_open_source(w, &jobs[0].subnet, 0, 20);
	CHECK(a && b && !sequence_open_source(w, &jobs[0].subnet, 0, 20));
	sequence_close(w, a);
	sequence_close(w, b);
	workspace_destroy(w);
	engine_stop(&e);
}

TEST(a_step_has_tiles_for_the_longest_text) {
	for (int shape = 0; shape < SHAPES; shape++) {
		struct engine e = engine_start(best_table(), &shapes[shape], 1);
		CHECK(workspace_source_tiles(e.w) >= (int)tiles_of(MAX_SOURCE));
		engine_stop(&e);
	}
}

/* ---- economy ---- */

/* A kernel table that counts the panels that are read. */
static const struct ops *counted_ops;
static int counted_panels;

static void counting_linear(const struct linear *l, int first_panel, int end_panel) {
	__atomic_fetch_add(&counted_panels, end_panel - first_panel, __ATOMIC_RELAXED);
	counted_ops->formats[WEIGHTS_F32].linear(l, first_panel, end_panel);
}

TEST(a_step_of_many_texts_reads_every_kept_matrix_once) {
	struct ops counting = *ops_c();
	counting.formats[WEIGHTS_F32].linear = counting_linear;
	counted_ops = ops_c();
	struct engine e = engine_start(&counting, &shapes[3], 2);
	struct row rows[MAX_ROWS];
	/* One text is being answered, two come in, one of them with its first token. */
	job_init(&jobs[0], &shapes[3], 1, 2, 2);
	encode(&e, &jobs[0]);
	int n = add_target(&jobs[0], rows, 0, 1), tiles = 9;
	for (int i = 1; i < 3; i++) {
		job_init(&jobs[i], &shapes[3], (uint64_t)i, 1, 1 + 3 * (i - 1));
		jobs[i].n_source = 20;
		jobs[i].s = sequence_open_source(e.w, &jobs[i].subnet, 9, 20);
		n = add_source(&jobs[i], rows, n, &tiles);
	}
	n = add_target(&jobs[1], rows, n, 1);
	int together = 0;
	for (int l = 0; l < 5; l++) {
		const struct layer_weights *w = &e.model->weights.stack[STACK_DECODER].layers[l];
		bool source = false, answer = false;
		for (int i = 0; i < 3; i++) {
			bool kept = plan_rank(&jobs[i].subnet.stack[STACK_DECODER], l) >= 0;
			source |= i > 0 && kept;
			answer |= i < 2 && kept;
		}
		together += source * w->cross_kv.w.n_panels;
		together += answer
		                * (w->qkv.w.n_panels + w->out.w.n_panels + w->cross_q.w.n_panels
		                                + w->cross_out.w.n_panels + w->up.w.n_panels
		                                + w->down.w.n_panels);
	}
	for (int l = 0; l < 3; l++) {
		const struct layer_weights *w = &e.model->weights.stack[STACK_ENCODER].layers[l];
		if (plan_rank(&jobs[1].subnet.stack[STACK_ENCODER], l) >= 0
		                || plan_rank(&jobs[2].subnet.stack[STACK_ENCODER], l) >= 0)
			together += w->qkv.w.n_panels + w->out.w.n_panels + w->up.w.n_panels
			                + w->down.w.n_panels;
	}
	counted_panels = 0;
	step_run(e.w, rows, n);
	CHECK_INT(counted_panels, together);
	for (int i = 0; i < 3; i++)
		sequence_close(e.w, jobs[i].s);
	engine_stop(&e);
}

TEST(a_step_with_sources_allocates_nothing) {
	for (int shape = 0; shape < SHAPES; shape++) {
		struct engine e = engine_start(best_table(), &shapes[shape], 2);
		for (int i = 0; i < 4; i++)
			job_init(&jobs[i], &shapes[shape], (uint64_t)i, 0, 0);
		int before = allocations();
		CHECK(before > 0); /* the counter is linked in */
		run_jobs(&e, jobs, 4, 1);
		CHECK_INT(allocations() - before, 0);
		engine_stop(&e);
	}
}
