/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cost model learns from steps, on machines that the test invents: a law for how long steps
 * take, noise on top, neighbours that come and go. What is expected comes from the law.
 */
#include <math.h>

#include "server/cost.h"
#include "tests/check.h"

enum { LAYERS = 12, MOST_CLIENTS = 16 };

static bool near_to(double a, double b, double tolerance) {
	return fabs(a - b) <= tolerance * fabs(b);
}

/* ---- a machine ---- */

static uint64_t noise_state = 1;

/* Uniform in (0, 1). */
static double noise(void) {
	noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
	return ((double)(noise_state >> 11) + 0.5) / (double)(1ull << 53);
}

/* Log-normal with the median 1. */
static double spread(double sigma) {
	return exp(sigma * sqrt(-2 * log(noise())) * cos(6.283185307179586 * noise()));
}

/* Rows are free up to eight. */
static double law_layer(int rows) {
	return 0.01 * (rows > 8 ? rows / 8.0 : 1);
}

static double law_head(int rows) {
	return 0.01 + 0.02 * rows;
}

static double law(const struct cost_step *s) {
	double ms = 0.01 + 0.02 * s->attended + 0.005 * s->chunk_attended;
	for (int l = 0; l < LAYERS; l++)
		ms += s->row_count[STACK_DECODER][l] > 0 ? law_layer(s->row_count[STACK_DECODER][l])
		                                         : 0;
	return ms + (s->logit_rows > 0 ? law_head(s->logit_rows) : 0);
}

/* What a perfect warm-up would say; tables between points are straight, as the law is there. */
static struct cost_model true_model(void) {
	struct cost_model cost = { .constant_ms = 0.01,
		.attention_ms = 0.02,
		.chunk_attention_ms = 0.005,
		.margin = 1,
		.fitted = true };
	for (int i = 0; i < COST_POINTS; i++) {
		cost.layer_ms[STACK_DECODER][i] = law_layer(cost_rows[i]);
		cost.head_ms[i] = law_head(cost_rows[i]);
	}
	return cost;
}

/* The learner, its model, the machine's clock, and a step with its arrays. */
struct world {
	struct cost_learner learner;
	struct cost_model cost;
	double now_ms;
	int count[LAYERS], decode_count[LAYERS];
	struct cost_step step;
};

static struct world *new_world(void) {
	static struct world w;
	memset(&w, 0, sizeof w);
	w.cost = true_model();
	return &w;
}

/* `rows` answers and `prompt` rows of a prompt, all at `depth`. */
static void set_step(struct world *w, int rows, int prompt, int depth, double context) {
	for (int l = 0; l < LAYERS; l++) {
		w->count[l] = l < depth ? rows + prompt : 0;
		w->decode_count[l] = l < depth ? rows : 0;
	}
	w->step = (struct cost_step){ .layers = { [STACK_DECODER] = LAYERS },
		.row_count = { [STACK_DECODER] = w->count },
		.decode_count = w->decode_count,
		.decode_rows = rows,
		.rows = rows + prompt,
		.logit_rows = rows + (prompt > 0),
		.attended = rows * depth * context / 1024,
		.chunk_attended = prompt * depth * 0.5 * prompt / 1024 };
}

/* The step takes `ms`, and is learnt. */
static void take(struct world *w, double ms) {
	w->now_ms += ms;
	cost_learn_step(&w->learner, &w->cost, &w->step, ms, w->now_ms);
}

static void idle(struct world *w, double ms) {
	w->now_ms += ms;
	cost_keep_pace(&w->learner, &w->cost, w->now_ms);
}

/* A mix of steps as a server runs them. */
static void set_random_step(struct world *w) {
	static const int rows[] = { 1, 2, 3, 5, 8, 12, 20 };
	int prompt = noise() < 0.2 ? 16 + (int)(48 * noise()) : 0;
	set_step(w, rows[(int)(7 * noise())], prompt, 1 + (int)(LAYERS * noise()), 400 * noise());
}

/* ---- the tables ---- */

/* The farthest that a prediction at the usual pace is from the law, over plain steps. */
static double worst_error(struct world *w) {
	static const int rows[] = { 1, 2, 4, 6, 8, 12, 16, 20 };
	double worst = 0;
	struct cost_model cost = w->cost;
	cost.pace = 1;
	for (int i = 0; i < 8; i++) {
		for (int depth = 2; depth <= LAYERS; depth += 5) {
			set_step(w, rows[i], 0, depth, 200);
			double error = fabs(cost_step_ms(&cost, &w->step) / law(&w->step) - 1);
			worst = error > worst ? error : worst;
		}
	}
	return worst;
}

TEST(a_wrong_model_is_mended_under_noise) {
	struct world *w = new_world();
	for (int i = 0; i < COST_POINTS; i++) {
		w->cost.layer_ms[STACK_DECODER][i] *= i % 2 ? 2 : 0.6;
		w->cost.head_ms[i] *= 1.5;
	}
	CHECK(worst_error(w) > 0.4);
	for (int i = 0; i < 6000; i++) {
		set_random_step(w);
		take(w, law(&w->step) * spread(0.05));
	}
	CHECK(worst_error(w) < 0.1);
	CHECK(w->cost.step_error[COST_DECODE].p50 < 0.05);
	CHECK(w->cost.step_error[COST_MIXED].p50 < 0.05);
}

TEST(the_median_is_learnt_whatever_the_hiccups) {
	struct world *w = new_world();
	/* Every tenth step takes half as long again: the mean is 1.05, the median hardly more
	 * than 1. */
	for (int i = 0; i < 6000; i++) {
		set_random_step(w);
		take(w, law(&w->step) * spread(0.02) * (noise() < 0.1 ? 1.5 : 1));
	}
	CHECK(worst_error(w) < 0.02);
	CHECK(near_to(w->cost.mean_ratio, 1.05, 0.02));
}

TEST(one_hiccup_in_a_thousand_moves_nothing) {
	struct world *w = new_world();
	for (int i = 0; i < 20000; i++) {
		set_random_step(w);
		double ms = law(&w->step) * spread(0.02);
		take(w, i % 1000 == 500 ? 300 * ms : ms);
		/* Not even the step after it is predicted otherwise. */
		set_step(w, 8, 0, LAYERS, 200);
		if (i > 100)
			CHECK(near_to(cost_step_ms(&w->cost, &w->step), law(&w->step), 0.06));
	}
	CHECK(worst_error(w) < 0.02);
	CHECK(near_to(w->cost.mean_ratio, 1, 0.02));
}

/* ---- the pace ---- */

TEST(a_neighbour_is_followed_and_forgotten_within_three_steps) {
	struct world *w = new_world();
	set_step(w, 8, 0, LAYERS, 200);
	double quiet = law(&w->step);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 200; i++) {
			take(w, quiet * spread(0.01));
			if (i >= 3)
				CHECK(near_to(cost_step_ms(&w->cost, &w->step), quiet, 0.05));
		}
		for (int i = 0; i < 60; i++) {
			take(w, 2 * quiet * spread(0.01));
			if (i >= 3)
				CHECK(near_to(cost_step_ms(&w->cost, &w->step), 2 * quiet, 0.05));
		}
	}
	/* The tables stay those of the undisturbed machine. */
	CHECK(worst_error(w) < 0.05);
}

TEST(an_idle_time_ends_a_pace) {
	struct world *w = new_world();
	set_step(w, 1, 0, 6, 50);
	double quiet = law(&w->step);
	for (int i = 0; i < 50; i++)
		take(w, 3 * quiet);
	CHECK(near_to(cost_step_ms(&w->cost, &w->step), 3 * quiet, 0.05));
	idle(w, 500);
	CHECK(near_to(cost_step_ms(&w->cost, &w->step), quiet, 0.1));
	CHECK(near_to(w->cost.pace, 1, 1e-9));
}

TEST(after_overload_predictions_return_within_a_few_requests) {
	struct world *w = new_world();
	/* Twenty thousand steps of many rows at fifteen times their time. */
	for (int i = 0; i < 20000; i++) {
		set_random_step(w);
		take(w, 15 * law(&w->step) * spread(0.1));
	}
	/* Then short requests, one now and then: ten steps each. */
	set_step(w, 1, 0, 6, 50);
	double quiet = law(&w->step);
	int wrong = 0;
	for (int request = 0; request < 100; request++) {
		idle(w, 300);
		if (!near_to(cost_step_ms(&w->cost, &w->step), quiet, 0.15))
			wrong = request + 1;
		for (int i = 0; i < 10; i++)
			take(w, quiet * spread(0.02));
	}
	CHECK(wrong <= 20);
	CHECK(near_to(w->cost.mean_ratio, 1, 0.1));
}

TEST(a_machine_that_stays_slower_becomes_the_usual_one_for_sums) {
	struct world *w = new_world();
	set_step(w, 8, 0, LAYERS, 200);
	double slow = 1.5 * law(&w->step);
	for (int i = 0; i < 400; i++)
		take(w, slow * spread(0.02));
	/* A request of 400 tokens outlives the present pace. */
	struct subnet subnet = { 0 };
	struct cost_time time;
	static const struct cost_load none;
	static const struct cost_limits limits = { 512, 64, 16, 0 };
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, LAYERS, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet, .choices = 8, .output_tokens = 401 };
	set_step(w, 8, 0, LAYERS, 200.5);
	cost_predict(&w->cost, &limits, &none, &work, &time);
	CHECK(near_to(time.total_ms, 400 * 1.5 * law(&w->step), 0.05));
}

TEST(no_noise_makes_the_tables_run_away) {
	/* A neighbour that comes for some steps and goes, of several rhythms; hiccups on top. */
	static const int rhythm[] = { 2, 4, 7, 20 };
	for (int k = 0; k < 4; k++) {
		for (int quick = 0; quick < 2; quick++) {
			struct world *w = new_world();
			bool disturbed = false;
			for (int i = 0; i < 60000; i++) {
				bool source = i % 24 == 0;
				set_step(w, 5, source ? 40 : 0, LAYERS, 50);
				disturbed ^= noise() * rhythm[k] < 1;
				double ms = law(&w->step) * spread(0.1) * (disturbed ? 2.5 : 1);
				/* Slow at first, then ever quicker, as caches are: pace is late. */
				ms *= quick ? 1.6 - 0.6 * (i % 24) / 23 : 1;
				take(w, noise() < 0.02 ? 6 * ms : ms);
			}
			set_step(w, 5, 0, LAYERS, 50);
			struct cost_model cost = w->cost;
			cost.pace = 1;
			double tables = cost_step_ms(&cost, &w->step) / law(&w->step);
			CHECK(tables > 0.7 && tables < 2.8);
			CHECK(w->cost.pace > 0.3 && w->cost.pace < 5);
		}
	}
}

/* ---- errors ---- */

TEST(the_errors_of_recent_steps_are_told_by_kind) {
	struct world *w = new_world();
	set_step(w, 4, 0, LAYERS, 100);
	double truth = law(&w->step);
	/* Errors of 2 % and, once in ten, of 30 %. The model stays right: above and below. */
	for (int i = 0; i < 4000; i++)
		take(w, truth * (1 + (i % 10 == 9 ? 0.3 : 0.02) * (noise() < 0.5 ? 1 : -1)));
	const struct cost_error *e = &w->cost.step_error[COST_DECODE];
	CHECK(e->p50 > 0.01 && e->p50 < 0.045);
	CHECK(e->p95 > 0.25 && e->p95 < 0.38);
	CHECK(w->cost.step_error[COST_MIXED].p95 == 0 && w->cost.step_error[COST_PREFILL].p95 == 0);
	/* Old ones are forgotten. */
	for (int i = 0; i < COST_STEPS; i++)
		take(w, truth);
	CHECK(e->p95 < 0.05);
}

TEST(a_step_is_of_one_kind) {
	struct world *w = new_world();
	int encoder[LAYERS] = { 7 };
	set_step(w, 3, 0, 4, 10);
	CHECK_INT(cost_kind_of(&w->step), COST_DECODE);
	set_step(w, 3, 9, 4, 10);
	CHECK_INT(cost_kind_of(&w->step), COST_MIXED);
	set_step(w, 0, 9, 4, 10);
	CHECK_INT(cost_kind_of(&w->step), COST_PREFILL);
	w->step.layers[STACK_ENCODER] = LAYERS;
	w->step.row_count[STACK_ENCODER] = encoder;
	CHECK_INT(cost_kind_of(&w->step), COST_ENCODE);
}

/* ---- requests among others ---- */

/* Clients of a closed loop: each asks again, `gap` steps after its answer has ended. */
struct loop {
	int clients, prompt, gap;
	int left[MOST_CLIENTS];   /* tokens; 0: it is away */
	int length[MOST_CLIENTS]; /* of the present answer */
	int away[MOST_CLIENTS];   /* steps */
	double joined_ms[MOST_CLIENTS], predicted_ms[MOST_CLIENTS];
	double error[4000];
	int n;
};

static double context_of(const struct loop *loop) {
	double keys = 0;
	for (int i = 0; i < loop->clients; i++)
		keys += loop->left[i] > 0 ? loop->prompt + loop->length[i] - loop->left[i] : 0;
	return keys;
}

static int running(const struct loop *loop) {
	int n = 0;
	for (int i = 0; i < loop->clients; i++)
		n += loop->left[i] > 0;
	return n;
}

/* As the engine would when it joins, after `joined` others at the same boundary. */
static void predict(struct world *w, struct loop *loop, int client, int joined) {
	static const struct cost_limits limits = { 512, 512, 16, 0 };
	struct subnet subnet = { 0 };
	struct cost_time time;
	int others = running(loop);
	struct cost_load load = { .decode_rows = others,
		.attended = LAYERS * context_of(loop) / 1024,
		.recent_rows = w->cost.recent_rows,
		.recent_keys = w->cost.recent_keys };
	load.pending = loop->prompt * joined;
	for (int l = 0; l < LAYERS; l++) {
		load.rows[l] = others;
		load.pending_rows[l] = load.pending;
	}
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, LAYERS, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet,
		.prompt_tokens = loop->prompt,
		.longest_prompt = loop->prompt,
		.choices = 1,
		.output_tokens = loop->length[client] };
	cost_predict(&w->cost, &limits, &load, &work, &time);
	loop->predicted_ms[client] = time.total_ms;
	loop->joined_ms[client] = w->now_ms;
}

/* One step of the loop, whose clients ask for `least` to `most` tokens. */
static void turn(struct world *w, struct loop *loop, int least, int most) {
	int rows = running(loop), prompts = 0;
	double keys = context_of(loop);
	for (int i = 0; i < loop->clients; i++) {
		if (loop->left[i] > 0 || loop->away[i]-- > 0)
			continue;
		loop->length[i] = least + (int)((most - least + 1) * noise());
		predict(w, loop, i, prompts);
		loop->left[i] = loop->length[i];
		prompts++;
	}
	if (rows + prompts == 0) {
		idle(w, 0.05);
		return;
	}
	set_step(w, rows, prompts * loop->prompt, LAYERS, rows > 0 ? keys / rows : 0);
	w->step.logit_rows = rows + prompts;
	w->step.chunk_attended = prompts * LAYERS * 0.5 * loop->prompt * loop->prompt / 1024;
	take(w, law(&w->step) * spread(0.02));
	for (int i = 0; i < loop->clients; i++) {
		if (loop->left[i] == 0 || --loop->left[i] > 0)
			continue;
		double actual = w->now_ms - loop->joined_ms[i];
		loop->away[i] = loop->gap;
		loop->error[loop->n++ % 4000] = fabs(actual / loop->predicted_ms[i] - 1);
	}
}

static int compare(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Errors of the last two thousand of three thousand requests. */
static void run_loop(struct loop *loop, int least, int most, double *ret_p50, double *ret_p95) {
	struct world *w = new_world();
	while (loop->n < 3000)
		turn(w, loop, least, most);
	qsort(loop->error + 1000, 2000, sizeof loop->error[0], compare);
	*ret_p50 = loop->error[2000];
	*ret_p95 = loop->error[1000 + 1900];
}

TEST(requests_among_others_are_predicted) {
	static const int clients[] = { 1, 2, 8, 16 };
	for (int i = 0; i < 4; i++) {
		static struct loop loop;
		double p50, p95;
		loop = (struct loop){ .clients = clients[i], .prompt = 48, .gap = 1 };
		run_loop(&loop, 32, 96, &p50, &p95);
		CHECK(p50 < 0.05 && p95 < 0.15);
	}
}

TEST(clients_that_come_and_go_together_are_predicted) {
	static struct loop loop;
	double p50, p95;
	/* When the first of them asks, nobody else runs. */
	loop = (struct loop){ .clients = 8, .prompt = 48, .gap = 2 };
	run_loop(&loop, 64, 64, &p50, &p95);
	CHECK(p50 < 0.05 && p95 < 0.15);
}

TEST(an_idle_server_expects_nobody) {
	struct world *w = new_world();
	static const struct cost_limits limits = { 512, 64, 16, 0 };
	struct subnet subnet = { 0 };
	struct cost_time time;
	for (int i = 0; i < 500; i++) {
		set_step(w, 12, i % 4 == 0 ? 64 : 0, LAYERS, 200);
		take(w, law(&w->step));
	}
	CHECK(near_to(w->cost.recent_rows, 12, 0.01));
	/* Of every four steps one holds a prompt, for twelve rows. */
	set_step(w, 12, 64, LAYERS, 200);
	double extra = law(&w->step);
	set_step(w, 12, 0, LAYERS, 200);
	extra -= law(&w->step);
	CHECK(near_to(w->cost.interference_ms, extra / 4 / 12, 0.1));
	idle(w, 1000);
	CHECK(w->cost.recent_rows < 0.5);
	struct cost_load load = { .recent_rows = w->cost.recent_rows,
		.recent_keys = w->cost.recent_keys };
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, LAYERS, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet, .choices = 1, .output_tokens = 11 };
	cost_predict(&w->cost, &limits, &load, &work, &time);
	set_step(w, 1, 0, LAYERS, 5.5);
	CHECK(near_to(time.total_ms, 10 * law(&w->step), 0.05));
}
