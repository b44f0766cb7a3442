/* SPDX-License-Identifier: Apache-2.0 */
/* From a load to simulated requests. */
#include "bench/simulator/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024 };
#define BACK_OFF_MS 100.0 /* of a client whose request failed, as in fathom bench */

/* ---- depths ---- */

/* The tiers that every server has. */
static double tier(const char *name) {
	static const struct {
		const char *name;
		double fraction;
	} tiers[] = { { "fast", 0.25 }, { "balanced", 0.5 }, { "full", 1 } };
	for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
		if (strcmp(name, tiers[i].name) == 0)
			return tiers[i].fraction;
	}
	return 0;
}

/* "6" or "12x6", by stack; a single number is the main stack's. False: it is neither, or more layers
 * or stacks than the model has. */
static bool set_depth(const struct sim_machine *machine, const char *text, int ret[STACKS]) {
	const struct stack_facts *stack = machine->model->facts.stack;
	int encoder, decoder;
	if (!*text)
		return true;
	if (!load_parse_depth(text, &encoder, &decoder) || decoder > stack[STACK_DECODER].layers
	                || encoder > stack[STACK_ENCODER].layers)
		return false;
	ret[STACK_DECODER] = decoder;
	ret[STACK_ENCODER] = machine->model->facts.kind == KIND_SEQ2SEQ ? encoder : 0;
	return true;
}

static bool choose_depth(
                const struct sim_load *l, const struct load_request *from, struct sim_request *r) {
	const struct stack_facts *stack = l->machine->model->facts.stack;
	double fraction = tier(from->depth);
	r->automatic = strcmp(from->depth, "auto") == 0 || (!*from->depth && sim_has_budget(r));
	if (r->automatic)
		return true;
	for (int s = 0; fraction > 0 && s < STACKS; s++)
		r->depth[s] = (int)ceil(fraction * stack[s].layers);
	return fraction > 0 || set_depth(l->machine, from->depth, r->depth);
}

/* ---- requests ---- */

/* One request of the load. False with one sentence if the machine cannot serve what it asks. */
static bool convert(const struct sim_load *l, const struct load_request *from,
                struct sim_request *ret, char *err, size_t errlen) {
	const struct load_class *class = &l->load->classes[from->kind];
	struct sim_request r = { .arrival_ms = from->arrival_ms,
		.client = -1,
		.prompt_tokens = from->prompt_tokens > 0 ? from->prompt_tokens : 1,
		.max_tokens = from->max_tokens,
		.length = from->length,
		.max_tokens_set = true,
		.priority = from->priority,
		.latency_ms = from->latency_budget_ms,
		.ttft_ms = from->ttft_budget_ms,
		.tpot_ms = from->tpot_budget_ms,
		.deadline_ms = from->deadline_ms,
		.on_miss = class->on_miss,
		.may_step_down = class->allow_step_down,
		.beams = class->num_beams > 0   ? class->num_beams
		                : class->stream ? 1
		                                : 0,
		.kind = from->kind };
	if (r.length <= 0 || r.length > r.max_tokens || class->ignore_eos)
		r.length = r.max_tokens;
	if (!choose_depth(l, from, &r) || !set_depth(l->machine, class->min_depth, r.min_depth)
	                || !set_depth(l->machine, class->max_depth, r.max_depth)) {
		snprintf(err, errlen, "class \"%s\": the model has none of its depths",
		                class->name);
		return false;
	}
	struct subnet subnet;
	if (!r.automatic && !sim_bound_subnet(l->machine, &r, &subnet)) {
		snprintf(err, errlen, "class \"%s\": the model has no depth %s", class->name,
		                from->depth);
		return false;
	}
	*ret = r;
	return true;
}

static bool convert_all(struct sim_load *l, const struct load_request *from, size_t n, char *err,
                size_t errlen) {
	l->requests = calloc(n + 1, sizeof *l->requests);
	if (!l->requests) {
		snprintf(err, errlen, "not enough memory for %zu requests", n);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		if (!convert(l, &from[i], &l->requests[i], err, errlen))
			return false;
	}
	l->n = n;
	return true;
}

/* ---- a closed loop ---- */

static struct sim_request *add(struct sim_load *l) {
	if (l->n % BLOCK == 0) {
		struct sim_request **blocks =
		                realloc(l->blocks, (l->n_blocks + 1) * sizeof *l->blocks);
		if (blocks) {
			l->blocks = blocks;
			blocks[l->n_blocks] = calloc(BLOCK, sizeof **blocks);
		}
		if (!blocks || !blocks[l->n_blocks]) {
			l->failed = true;
			return NULL;
		}
		l->n_blocks++;
	}
	return &l->blocks[l->n / BLOCK][l->n % BLOCK];
}

/* The next request of `client`, which is free from `now_ms` on and pauses at least `pause_ms`; < 0:
 * it is the first. NULL: the load is over. */
static struct sim_request *ask(struct sim_load *l, int client, double now_ms, double pause_ms) {
	struct load_request drawn;
	char ignored[160];
	if (l->load->requests > 0 && l->n >= (size_t)l->load->requests)
		return NULL;
	load_draw(l->load, l->n, &drawn);
	drawn.arrival_ms = now_ms + (pause_ms < 0 ? 0 : fmax(drawn.think_ms, pause_ms));
	if (l->load->seconds > 0 && drawn.arrival_ms >= l->load->seconds * 1e3)
		return NULL;
	struct sim_request *r = add(l);
	if (!r || !convert(l, &drawn, r, ignored, sizeof ignored))
		return NULL;
	r->client = client;
	l->n++;
	return r;
}

struct sim_request *sim_load_next(void *arg, const struct sim_request *ended, double now_ms) {
	(void)now_ms;
	bool failed = ended->end == SIM_REFUSED || ended->end == SIM_EXPIRED;
	return ask(arg, ended->client, ended->done_ms, failed ? BACK_OFF_MS : 0);
}

/* ---- either ---- */

bool sim_load_open(struct sim_load *l, struct load *load, const struct sim_machine *machine,
                char *err, size_t errlen) {
	memset(l, 0, sizeof *l);
	l->load = load;
	l->machine = machine;
	if (load_is_open(load)) {
		struct load_request *drawn = NULL;
		size_t n;
		bool ok = load_schedule(load, &drawn, &n, err, errlen)
		                && convert_all(l, drawn, n, err, errlen);
		free(drawn);
		if (!ok)
			sim_load_close(l);
		return ok;
	}
	struct load_request drawn;
	struct sim_request probe;
	for (int i = 0; i < load->n_classes; i++) {
		load_draw(load, 0, &drawn);
		drawn.kind = i;
		snprintf(drawn.depth, sizeof drawn.depth, "%s", load->classes[i].depth);
		if (!convert(l, &drawn, &probe, err, errlen))
			return false;
	}
	for (int i = 0; i < load->clients; i++)
		ask(l, i, 0, -1);
	if (l->failed)
		snprintf(err, errlen, "not enough memory");
	return !l->failed;
}

void sim_load_close(struct sim_load *l) {
	for (size_t i = 0; i < l->n_blocks; i++)
		free(l->blocks[i]);
	free(l->blocks);
	free(l->requests);
	memset(l, 0, sizeof *l);
}

struct sim_request *sim_load_at(const struct sim_load *l, size_t index) {
	return l->requests ? &l->requests[index] : &l->blocks[index / BLOCK][index % BLOCK];
}
