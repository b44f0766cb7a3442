/* SPDX-License-Identifier: Apache-2.0 */
/* What a simulated server is made of: from what a real one says of itself. */
#include "bench/simulator/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "server/cost_file.h"

enum { MOST_BYTES = 16 << 20, DEFAULT_BEAMS = 5 /* of a server */ };

/* ---- weather ---- */

/* SplitMix64 (Steele, Lea, Flood 2014): a number for each state. */
static uint64_t mix(uint64_t x) {
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Above 0, at most 1. */
static double uniform(uint64_t bits) {
	return ((double)(bits >> 11) + 1) * 0x1p-53;
}

double sim_noise_factor(const struct sim_noise *noise, double now_ms) {
	if (noise->sigma <= 0 && noise->spike_share <= 0)
		return 1;
	/* Steps that begin within the same quarter of a millisecond meet the same. */
	uint64_t state = mix(noise->seed ^ mix((uint64_t)(now_ms * 4)));
	double radius = sqrt(-2 * log(uniform(state)));
	double angle = 6.283185307179586 * uniform(mix(state));
	double sigma = noise->sigma;
	double factor = exp(sigma * radius * cos(angle) - 0.5 * sigma * sigma);
	if (uniform(mix(state + 1)) <= noise->spike_share)
		factor *= noise->spike_factor;
	return factor;
}

/* ---- what a server believes ---- */

static void shake(double *table, size_t n, double sigma, uint64_t *state) {
	for (size_t i = 0; i < n; i++) {
		*state = mix(*state);
		double radius = sqrt(-2 * log(uniform(*state)));
		double angle = 6.283185307179586 * uniform(mix(*state + 1));
		table[i] *= exp(sigma * radius * cos(angle));
	}
}

void sim_misfit(struct cost_model *cost, double sigma, uint64_t seed) {
	uint64_t state = mix(seed);
	for (int s = 0; s < STACKS; s++)
		shake(cost->layer_ms[s], COST_POINTS, sigma, &state);
	shake(cost->cross_ms, COST_POINTS, sigma, &state);
	shake(cost->head_ms, COST_POINTS, sigma, &state);
	shake(&cost->attention_ms, 1, sigma, &state);
	shake(&cost->chunk_attention_ms, 1, sigma, &state);
	shake(&cost->source_attention_ms, 1, sigma, &state);
	shake(&cost->constant_ms, 1, sigma, &state);
}

/* ---- a machine by its numbers ---- */

static bool init_model(struct sim_machine *machine, const int layers[STACKS]) {
	memset(machine, 0, sizeof *machine);
	machine->model = calloc(1, sizeof *machine->model);
	if (!machine->model)
		return false;
	struct facts *facts = &machine->model->facts;
	for (int s = 0; s < STACKS; s++)
		facts->stack[s].layers = layers[s];
	bool encodes = layers[STACK_ENCODER] > 0;
	facts->kind = encodes ? KIND_SEQ2SEQ : KIND_LM;
	facts->stack[STACK_DECODER].cross = encodes;
	machine->beams = encodes ? DEFAULT_BEAMS : 0;
	return true;
}

bool sim_machine_init(struct sim_machine *machine, const int layers[STACKS],
                const struct cost_model *cost, const struct cost_limits *limits, size_t kv_blocks) {
	if (!init_model(machine, layers))
		return false;
	machine->cost = *cost;
	machine->level = 1;
	machine->limits = *limits;
	machine->kv_blocks = kv_blocks;
	return ladder_init(&machine->ladder, machine->model, PLAN_RULE_EVEN);
}

void sim_machine_finish(struct sim_machine *machine) {
	ladder_finish(&machine->ladder);
	if (machine->opened) {
		model_close(machine->model);
	} else if (machine->model) {
		free(machine->model->tuned);
		free(machine->model->quality);
		free(machine->model);
	}
	doc_free(machine->depths);
	free(machine->text);
	memset(machine, 0, sizeof *machine);
}

double sim_machine_step_ms(const struct sim_machine *machine, const struct sim_noise *noise,
                const struct cost_step *step, double now_ms) {
	return cost_step_ms(&machine->cost, step) * machine->level
	                * sim_noise_factor(noise, now_ms);
}

bool sim_machine_rung(const struct sim_machine *machine, int index, struct subnet *ret_subnet) {
	return ladder_subnet(&machine->ladder, machine->ladder.rungs[index], ret_subnet);
}

/* ---- from /v1/depths ---- */

/* NUL-terminated; free() it. */
static char *read_text(const char *path, size_t *ret_len, char *err, size_t errlen) {
	const char *slash = strrchr(path, '/');
	char dir[4096] = ".";
	size_t n = slash ? (size_t)(slash - path) : 0;
	if (n >= sizeof dir) {
		snprintf(err, errlen, "the path of the cost model is too long");
		return NULL;
	}
	if (slash)
		snprintf(dir, sizeof dir, "%.*s", (int)(n > 0 ? n : 1), path);
	return file_read(dir, slash ? slash + 1 : path, MOST_BYTES, ret_len, err, errlen);
}

/* "layers": a number, or one for each stack. */
static bool read_layers(const struct doc *depths, int ret_layers[STACKS]) {
	const struct doc *layers = doc_get(depths, "layers");
	int64_t encoder = 0, decoder = 0;
	if (!doc_as_int(layers, &decoder)
	                && (!doc_as_int(doc_get(layers, "encoder"), &encoder)
	                                || !doc_as_int(doc_get(layers, "decoder"), &decoder)))
		return false;
	ret_layers[STACK_ENCODER] = (int)encoder;
	ret_layers[STACK_DECODER] = (int)decoder;
	return encoder >= 0 && encoder <= MAX_LAYERS && decoder >= 1 && decoder <= MAX_LAYERS;
}

static bool read_list(const struct doc *list, int of, struct plan *ret_plan) {
	int64_t layers[MAX_LAYERS];
	char ignored[128];
	size_t n = doc_count(list);
	if (n > MAX_LAYERS)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!doc_as_int(doc_at(list, i), &layers[i]))
			return false;
	}
	return plan_from_list(of, layers, n, ret_plan, ignored, sizeof ignored);
}

/* One entry of "depths" or of "pairs" that `auto` may choose. */
static bool read_entry(const struct doc *entry, const int layers[STACKS], struct subnet *ret) {
	const struct doc *lists = doc_get(entry, "layers");
	memset(ret, 0, sizeof *ret);
	if (layers[STACK_ENCODER] == 0)
		return read_list(lists, layers[STACK_DECODER], &ret->stack[STACK_DECODER]);
	return read_list(doc_get(lists, "encoder"), layers[STACK_ENCODER],
	                       &ret->stack[STACK_ENCODER])
	                && read_list(doc_get(lists, "decoder"), layers[STACK_DECODER],
	                                &ret->stack[STACK_DECODER]);
}

/* By what a subnet costs: a decoder's layer is a third larger than an encoder's, and runs for every
 * token of the answer (ladder.c). */
static int compare_subnets(const void *a, const void *b) {
	const struct plan *x = ((const struct subnet *)a)->stack,
	                  *y = ((const struct subnet *)b)->stack;
	int cost_x = 3 * x[STACK_ENCODER].depth + 32 * x[STACK_DECODER].depth;
	int cost_y = 3 * y[STACK_ENCODER].depth + 32 * y[STACK_DECODER].depth;
	return cost_x - cost_y;
}

/* The server's own ladder: its plans, whatever rule made them. */
static bool read_ladder(struct sim_machine *machine, const int layers[STACKS]) {
	const struct doc *pairs = doc_get(machine->depths, "pairs");
	const struct doc *list = pairs ? pairs : doc_get(machine->depths, "depths");
	struct model *model = machine->model;
	size_t n = doc_count(list);
	model->tuned = calloc(n + 1, sizeof *model->tuned);
	machine->ladder.rungs = calloc(n + 1, sizeof *machine->ladder.rungs);
	if (!model->tuned || !machine->ladder.rungs)
		return false;
	for (size_t i = 0; i < n; i++) {
		bool automatic = true;
		struct subnet *subnet = &model->tuned[model->n_tuned];
		if (pairs
		                && (!doc_as_bool(doc_get(doc_at(list, i), "auto"), &automatic)
		                                || !automatic))
			continue;
		if (!read_entry(doc_at(list, i), layers, subnet))
			return false;
		model->n_tuned++;
	}
	qsort(model->tuned, model->n_tuned, sizeof *model->tuned, compare_subnets);
	for (size_t i = 0; i < model->n_tuned; i++) {
		for (int s = 0; s < STACKS; s++)
			machine->ladder.rungs[i][s] = model->tuned[i].stack[s].depth;
	}
	machine->ladder.n = (int)model->n_tuned;
	machine->ladder.model = model;
	return model->n_tuned > 0;
}

static bool read_rule(struct sim_machine *machine) {
	const char *rule = doc_as_string(doc_get(machine->depths, "rule"), NULL);
	if (!rule || !plan_rule_parse(rule, &machine->rule))
		return false;
	machine->ladder.rule = machine->rule;
	machine->model->facts.plan_rule = machine->rule;
	return true;
}

/* Layers and ladder. */
static bool take(struct sim_machine *machine, const char *path, char *err, size_t errlen) {
	int layers[STACKS];
	struct doc *depths = machine->depths;
	if (!read_layers(depths, layers)) {
		snprintf(err, errlen,
		                "%s: this is not what GET /v1/depths of a model that "
		                "generates answers",
		                path);
		return false;
	}
	if (!init_model(machine, layers)) {
		snprintf(err, errlen, "not enough memory");
		return false;
	}
	machine->depths = depths;
	/* The cost model alone: every depth, by rule even. */
	if (!doc_get(depths, "rule"))
		return ladder_init(&machine->ladder, machine->model, PLAN_RULE_EVEN);
	if (!read_rule(machine) || !read_ladder(machine, layers)) {
		snprintf(err, errlen, "%s: its list of depths cannot be read", path);
		return false;
	}
	return true;
}

void sim_machine_write(const struct sim_machine *machine, struct buffer *out) {
	struct cost_file file = { .cost = machine->cost,
		.limits = machine->limits,
		.kv_blocks = (int64_t)machine->kv_blocks };
	for (int s = 0; s < STACKS; s++)
		file.layers[s] = machine->model->facts.stack[s].layers;
	cost_write(&file, out);
}

bool sim_machine_read(struct sim_machine *machine, const char *path, char *err, size_t errlen) {
	struct cost_file file;
	size_t len;
	memset(machine, 0, sizeof *machine);
	char *text = read_text(path, &len, err, errlen);
	struct doc *depths = text ? doc_parse(text, len, path, err, errlen) : NULL;
	if (!depths) {
		free(text);
		return false;
	}
	machine->depths = depths;
	if (!cost_read(depths, path, &file, err, errlen) || !take(machine, path, err, errlen)) {
		machine->depths = depths;
		machine->text = text;
		sim_machine_finish(machine);
		return false;
	}
	if (doc_get(depths, "rule"))
		machine->text = text;
	else
		free(text);
	machine->cost = file.cost;
	/* The tables are usual steps; how busy the neighbours were just then is no part of them. */
	machine->cost.pace = machine->cost.mean_ratio = machine->cost.jitter = 0;
	machine->level = 1;
	machine->limits = file.limits;
	machine->kv_blocks = (size_t)file.kv_blocks;
	return true;
}
