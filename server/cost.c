/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model: what a step and a request are predicted to take. Arithmetic only. */
#include <math.h>
#include <string.h>

#include "server/cost_parts.h"

const int cost_rows[COST_POINTS] = { 1, 2, 4, 8, 12, 16, 32, 64, 128, 512 };

/* ---- one step ---- */

/* All layers, `count` rows each; NULL: none. Neighbouring layers mostly have as many. */
static double layers_ms(const double *table, const int *count, int layers) {
	double ms = 0, last_ms = 0;
	int last = 0;
	for (int l = 0; count && l < layers; l++) {
		if (count[l] != last) {
			last = count[l];
			last_ms = cost_table_ms(table, last);
		}
		ms += last_ms;
	}
	return ms;
}

double cost_tables_ms(const struct cost_model *cost, const struct cost_step *step) {
	double ms = cost->constant_ms + cost->row_ms * step->rows;
	for (int k = 0; k < STACKS; k++)
		ms += layers_ms(cost->layer_ms[k], step->row_count[k], step->layers[k]);
	ms += layers_ms(cost->cross_ms, step->source_count, step->layers[STACK_DECODER]);
	ms += cost->attention_ms * step->attended;
	ms += cost->chunk_attention_ms * step->chunk_attended;
	ms += cost->source_attention_ms * step->source_attended;
	ms += cost_table_ms(cost->head_ms, step->logit_rows);
	ms += cost->class_ms * step->class_rows;
	return ms;
}

double cost_step_ms(const struct cost_model *cost, const struct cost_step *step) {
	return cost_known(cost->pace) * cost_tables_ms(cost, step);
}

/* ---- a whole request ---- */

#define LEAST_TAIL 1.1
#define MOST_TAIL 1.6

/* What a request adds to a step. */
struct share {
	int rows, source_rows; /* of the decoder and of the encoder */
	int logit_rows, class_rows;
	double attended, chunk_attended, source_attended; /* for one kept layer */
};

/* Milliseconds of a step in which `load` decodes and `share` runs `subnet` beside it. */
static double shared_step(const struct cost_model *cost, const struct cost_load *load,
                const struct subnet *subnet, const struct share *share) {
	const struct plan *encoder = &subnet->stack[STACK_ENCODER];
	const struct plan *decoder = &subnet->stack[STACK_DECODER];
	int count[STACKS][MAX_LAYERS], cross[MAX_LAYERS];
	memset(count[STACK_ENCODER], 0, (size_t)encoder->of * sizeof count[0][0]);
	memset(cross, 0, (size_t)decoder->of * sizeof cross[0]);
	memcpy(count[STACK_DECODER], load->rows, (size_t)decoder->of * sizeof count[0][0]);
	for (int i = 0; i < encoder->depth; i++)
		count[STACK_ENCODER][encoder->layers[i]] = share->source_rows;
	for (int i = 0; i < decoder->depth; i++) {
		count[STACK_DECODER][decoder->layers[i]] += share->rows;
		cross[decoder->layers[i]] = share->source_rows;
	}
	struct cost_step step = { .layers = { encoder->of, decoder->of },
		.row_count = { count[STACK_ENCODER], count[STACK_DECODER] },
		.source_count = cross,
		.rows = load->decode_rows + share->rows + share->source_rows,
		.logit_rows = load->decode_rows + share->logit_rows,
		.class_rows = share->class_rows,
		.attended = load->attended + decoder->depth * share->attended,
		.chunk_attended = decoder->depth * share->chunk_attended,
		.source_attended = encoder->depth * share->source_attended };
	return cost_tables_ms(cost, &step);
}

static int ceil_div(int a, int b) {
	return (a + b - 1) / b;
}

static int greater(int a, int b) {
	return a > b ? a : b;
}

/* Half of the steps with prompts err by less than p50; only one in twenty by more than this. */
static double tail_of(const struct cost_model *cost) {
	double tail = 1 + cost->step_error[COST_MIXED].p95;
	return tail < LEAST_TAIL ? LEAST_TAIL : tail > MOST_TAIL ? MOST_TAIL : tail;
}

int cost_prompt_rows(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct subnet *subnet, double keys, int rows) {
	if (!cost->fitted || limits->most_step_ms <= 0 || load->decode_rows == 0)
		return rows;
	double times = fmax(cost_known(cost->pace), cost_known(cost->mean_ratio));
	struct share none = { 0 };
	double alone = times * shared_step(cost, load, subnet, &none);
	double most = fmax(limits->most_step_ms / tail_of(cost), (1 + COST_LEAST_SHARE) * alone);
	/* The most multiples of the fewest rows that are within. */
	int low = 1, high = rows / COST_LEAST_ROWS + 1;
	while (high - low > 1) {
		int middle = (low + high) / 2, n = middle * COST_LEAST_ROWS;
		struct share share = {
			.rows = n, .logit_rows = 1, .chunk_attended = n * keys / 1024
		};
		if (times * shared_step(cost, load, subnet, &share) <= most)
			low = middle;
		else
			high = middle;
	}
	if (high > rows / COST_LEAST_ROWS)
		return rows; /* what is left of a multiple, too */
	return low * COST_LEAST_ROWS < rows ? low * COST_LEAST_ROWS : rows;
}

/* Milliseconds until the prompt and source tokens that go before have run. */
static double pending_ms(const struct cost_model *cost, const struct cost_load *load,
                const struct subnet *subnet, int chunk) {
	int pending = load->pending + load->pending_source;
	if (pending <= 0)
		return 0;
	int steps = ceil_div(pending, chunk), of[STACKS];
	int count[STACKS][MAX_LAYERS], cross[MAX_LAYERS];
	for (int k = 0; k < STACKS; k++)
		of[k] = subnet->stack[k].of;
	for (int l = 0; l < of[STACK_ENCODER]; l++)
		count[STACK_ENCODER][l] = ceil_div(load->pending_source_rows[l], steps);
	for (int l = 0; l < of[STACK_DECODER]; l++) {
		count[STACK_DECODER][l] = load->rows[l] + ceil_div(load->pending_rows[l], steps);
		cross[l] = ceil_div(load->pending_cross_rows[l], steps);
	}
	struct cost_step step = { .layers = { of[STACK_ENCODER], of[STACK_DECODER] },
		.row_count = { count[STACK_ENCODER], count[STACK_DECODER] },
		.source_count = cross,
		.rows = load->decode_rows + ceil_div(pending, steps),
		.logit_rows = load->decode_rows + 1,
		.attended = load->attended,
		.source_attended = load->pending_source_attended / steps };
	return steps * cost_tables_ms(cost, &step);
}

/* Steps that the texts take: they enter whole, however small the chunks are. */
static int source_steps(const struct cost_limits *limits, const struct cost_work *work, int chunk) {
	if (work->sources <= 0)
		return 0;
	int side_by_side = chunk / ceil_div(work->source_tokens, work->sources);
	int steps = ceil_div(work->sources, greater(side_by_side, 1));
	if (limits->source_tiles > 0)
		steps = greater(steps, ceil_div(work->source_tiles, limits->source_tiles));
	return steps;
}

/* What a row of a prompt sees on average: all that is cached and half of the rest. Prompts are taken
 * as equally long, and as equally cached. */
static double keys_seen(const struct cost_work *work) {
	double cached = work->prompt_tokens > 0
	                ? (double)work->cached_tokens / work->prompt_tokens * work->longest_prompt
	                : 0;
	return 0.5 * (work->longest_prompt + 1 + cached) + work->longest_source;
}

/* Sources and prompts, up to and with the step that gives the first tokens. A source's first
 * decoder row runs in the step of its encoder rows. */
static double prompt_ms(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct cost_work *work, int chunk) {
	int rows = work->prompt_tokens - work->cached_tokens, tokens = rows + work->source_tokens;
	if (tokens <= 0)
		return 0;
	int steps = greater(ceil_div(tokens, greater(chunk, work->longest_source)),
	                source_steps(limits, work, chunk));
	struct share share = { .rows = ceil_div(rows, steps),
		.source_rows = ceil_div(work->source_tokens, steps),
		.class_rows = ceil_div(work->class_rows, steps),
		.source_attended = work->source_attended / steps };
	double keys = keys_seen(work);
	share.chunk_attended = share.rows * keys / 1024;
	bool scored = work->scored_tokens > 0;
	share.logit_rows = scored ? ceil_div(work->scored_tokens, steps) : work->prompt_tokens > 0;
	/* Only the last step needs the logits of a prompt that is not scored. */
	double last = shared_step(cost, load, work->subnet, &share);
	if (steps == 1)
		return last;
	if (!scored)
		share.logit_rows = 0;
	return shared_step(cost, load, work->subnet, &share) * (steps - 1) + last;
}

/* The present pace holds for about so long; what comes after is as it is in the mean. */
#define PACE_HOLDS_MS 100.0

/* What steps of `table_ms` by the tables will take, the next ones first. */
static double expected_ms(const struct cost_model *cost, double table_ms) {
	double pace = cost_known(cost->pace) * cost_known(cost->jitter);
	double mean = cost_known(cost->mean_ratio);
	double times = table_ms / PACE_HOLDS_MS;
	double held = times > 0 ? (1 - exp(-times)) / times : 1;
	return table_ms * (mean + (pace - mean) * held);
}

/* `load` as it will be in the mean: with those who are expected, if they are more than run now, like
 * those that run, else like the newcomer; and no one's past is shorter than it usually is.
 * Returns how many rows are expected. */
static int expect(const struct cost_load *load, const struct subnet *subnet, int own_rows,
                struct cost_load *ret_load) {
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	int others = load->decode_rows;
	int more = (int)lround(load->recent_rows) - own_rows - others;
	*ret_load = *load;
	if (more > 0 && plan->of > 0) {
		double factor = others > 0 ? (double)more / others : 0;
		for (int l = 0; l < plan->of; l++)
			ret_load->rows[l] += (int)lround(factor * load->rows[l]);
		for (int i = 0; i < plan->depth && others == 0; i++)
			ret_load->rows[plan->layers[i]] = more;
		ret_load->decode_rows += more;
		ret_load->attended += factor * load->attended;
	}
	ret_load->attended = fmax(ret_load->attended, ret_load->decode_rows * load->recent_keys);
	return more > 0 ? more : 0;
}

/* One token of `rows` answers beside all others, and what the prompts of others add; and what those
 * who are expected read first. */
static double token_ms(const struct cost_model *cost, const struct cost_load *load,
                const struct cost_work *work, int rows, double *ret_prompts_ms) {
	double keys = work->longest_prompt + 0.5 * work->output_tokens + work->longest_source;
	struct share share = { .rows = rows, .logit_rows = rows, .attended = rows * keys / 1024 };
	struct cost_load expected;
	int coming = expect(load, work->subnet, rows, &expected);
	/* Their requests have as many rows as this one. */
	*ret_prompts_ms = cost->recent_prompt_ms * coming / rows;
	return shared_step(cost, &expected, work->subnet, &share)
	                + cost->interference_ms * expected.decode_rows;
}

void cost_predict(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct cost_work *work,
                struct cost_time *ret_time) {
	bool decodes = load->decode_rows > 0;
	int chunk = limits->max_rows - load->decode_rows;
	if (decodes && chunk > limits->prefill_rows)
		chunk = limits->prefill_rows;
	if (decodes && work->prompt_tokens > work->cached_tokens)
		chunk = cost_prompt_rows(cost, limits, load, work->subnet, keys_seen(work), chunk);
	if (chunk < 1)
		chunk = 1;
	struct cost_time t = { 0 };
	double first = pending_ms(cost, load, work->subnet, chunk)
	                + prompt_ms(cost, limits, load, work, chunk);
	t.total_ms = t.first_ms = expected_ms(cost, first);
	if (work->output_tokens > 0) {
		int free = limits->sequences - load->decode_rows;
		int rows = work->choices < free ? work->choices : free;
		if (rows < 1)
			rows = 1;
		int waves = ceil_div(work->choices, rows);
		double prompts, token = token_ms(cost, load, work, rows, &prompts);
		double further = (double)work->output_tokens * waves - 1;
		prompts = further > 0 ? prompts : 0;
		t.total_ms = expected_ms(cost, first + prompts + token * further);
		t.token_ms = further > 0 ? (t.total_ms - t.first_ms) / further
		                         : expected_ms(cost, token);
	}
	*ret_time = t;
}

double cost_decode_ms(const struct cost_model *cost, const int depth[STACKS]) {
	return cost->constant_ms + cost->row_ms + cost->head_ms[0]
	                + depth[STACK_DECODER] * cost->layer_ms[STACK_DECODER][0];
}

double cost_prefill_ms(const struct cost_model *cost, const int depth[STACKS]) {
	int rows = 128, encoder = depth[STACK_ENCODER], decoder = depth[STACK_DECODER];
	double ms = cost->constant_ms + cost->row_ms * rows;
	if (encoder > 0)
		ms += encoder * cost_table_ms(cost->layer_ms[STACK_ENCODER], rows)
		                + decoder * cost_table_ms(cost->cross_ms, rows)
		                + cost->source_attention_ms * encoder * rows * rows / 1024;
	else
		ms += cost->head_ms[0]
		                + decoder * cost_table_ms(cost->layer_ms[STACK_DECODER], rows)
		                + cost->chunk_attention_ms * decoder * rows * 0.5 * rows / 1024;
	return ms / rows;
}
