/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/depths: what each depth runs, costs and is worth. A model with two stacks has a list for each,
 * the other stack whole, and a list of pairs. */
#include <string.h>

#include "server/cost_file.h"
#include "server/handlers.h"
#include "server/ladder.h"

/* What the entries are made from. */
struct page {
	struct buffer *b;
	const struct model *model;
	struct cost_model cost;
	struct cost_file file; /* the same with what belongs to it */
	struct ladder ladder;
	bool pairs;
};

const struct generation *handle_current(struct call *call) {
	struct error e;
	if (call->server->current)
		return call->server->current;
	error_set(&e, ERROR_MODEL_LOADING, NULL, "The model is still loading; retry in a moment.");
	call_fail(call, &e);
	return NULL;
}

static void put_string(struct buffer *b, const char *s) {
	buffer_json_string(b, s, strlen(s));
}

static void put_plan(struct buffer *b, const struct plan *plan) {
	for (int i = 0; i < plan->depth; i++)
		buffer_printf(b, "%s%d", i ? "," : "[", plan->layers[i]);
	buffer_puts(b, "]");
}

static int encoder_depth_of(const struct page *page, const int depth[STACKS]) {
	return page->pairs ? depth[STACK_ENCODER] : 0;
}

static void write_quality(const struct page *page, const int depth[STACKS]) {
	const struct model *model = page->model;
	bool open = false;
	for (size_t i = 0; i < model->n_quality; i++) {
		const struct depth_quality *q = &model->quality[i];
		if (q->depth != depth[model_main_stack(model)]
		                || q->encoder_depth != encoder_depth_of(page, depth))
			continue;
		buffer_puts(page->b, open ? "," : ",\"quality\":{");
		put_string(page->b, q->metric);
		buffer_puts(page->b, ":");
		buffer_json_f64(page->b, q->value);
		open = true;
	}
	if (open)
		buffer_puts(page->b, "}");
}

/* The kept layers of both stacks and the output. */
static size_t weight_bytes(const struct model *model, const int depth[STACKS]) {
	static const struct subnet none;
	size_t bytes = model_subnet_bytes(model, &none);
	for (int s = 0; s < STACKS; s++)
		bytes += (size_t)depth[s] * model->weights.layer_bytes[s];
	return bytes;
}

/* Parameters, bytes, milliseconds and quality. */
static void write_worth(const struct page *page, const struct subnet *subnet) {
	const struct model *model = page->model;
	struct buffer *b = page->b;
	int depth[STACKS];
	for (int s = 0; s < STACKS; s++)
		depth[s] = subnet->stack[s].depth;
	buffer_printf(b, ",\"parameters\":%llu,\"weight_bytes\":%zu,\"prefill_ms_per_token\":",
	                (unsigned long long)facts_parameters(&model->facts, depth),
	                weight_bytes(model, depth));
	buffer_json_f64(b, cost_prefill_ms(&page->cost, depth));
	if (model->facts.kind != KIND_ENCODER) {
		buffer_puts(b, ",\"decode_ms_per_token\":");
		buffer_json_f64(b, cost_decode_ms(&page->cost, depth));
	}
	write_quality(page, depth);
}

/* ---- one stack ---- */

/* The depths of one stack, the other one whole; a list. */
static void write_stack(const struct page *page, enum stack stack) {
	const struct stack_facts *facts = page->model->facts.stack;
	struct subnet subnet;
	bool first = true;
	buffer_puts(page->b, "[");
	for (int d = 1; d <= facts[stack].layers; d++) {
		int depth[STACKS] = { facts[STACK_ENCODER].layers, facts[STACK_DECODER].layers };
		depth[stack] = d;
		/* Tuned plans need not have every depth. */
		if (!ladder_subnet(&page->ladder, depth, &subnet))
			continue;
		buffer_printf(page->b, "%s{\"depth\":%d,\"layers\":", first ? "" : ",", d);
		put_plan(page->b, &subnet.stack[stack]);
		write_worth(page, &subnet);
		buffer_puts(page->b, "}");
		first = false;
	}
	buffer_puts(page->b, "]");
}

/* ---- pairs ---- */

static bool on_ladder(const struct ladder *ladder, const int depth[STACKS]) {
	bool found = false;
	for (int i = 0; i < ladder->n; i++)
		found = found || memcmp(ladder->rungs[i], depth, sizeof ladder->rungs[i]) == 0;
	return found;
}

static bool is_measured(const struct model *model, const int depth[STACKS]) {
	bool found = false;
	for (size_t i = 0; i < model->n_quality; i++)
		found = found
		                || (model->quality[i].encoder_depth == depth[STACK_ENCODER]
		                                && model->quality[i].depth == depth[STACK_DECODER]);
	return found;
}

static void write_pair(const struct page *page, const int depth[STACKS], bool *first) {
	struct subnet subnet;
	if (!ladder_subnet(&page->ladder, depth, &subnet))
		return;
	buffer_printf(page->b,
	                "%s{\"depth\":{\"encoder\":%d,\"decoder\":%d},\"layers\":{\"encoder\":",
	                *first ? "" : ",", depth[STACK_ENCODER], depth[STACK_DECODER]);
	put_plan(page->b, &subnet.stack[STACK_ENCODER]);
	buffer_puts(page->b, ",\"decoder\":");
	put_plan(page->b, &subnet.stack[STACK_DECODER]);
	buffer_printf(page->b, "},\"auto\":%s", on_ladder(&page->ladder, depth) ? "true" : "false");
	write_worth(page, &subnet);
	buffer_puts(page->b, "}");
	*first = false;
}

/* Those that `auto` may choose, and those that were measured besides. */
static void write_pairs(const struct page *page) {
	const struct model *model = page->model;
	bool first = true;
	buffer_puts(page->b, ",\"pairs\":[");
	for (int e = 1; e <= model->facts.stack[STACK_ENCODER].layers; e++) {
		for (int d = 1; d <= model->facts.stack[STACK_DECODER].layers; d++) {
			const int depth[STACKS] = { e, d };
			if (is_measured(model, depth) || on_ladder(&page->ladder, depth))
				write_pair(page, depth, &first);
		}
	}
	buffer_puts(page->b, "]");
}

/* ---- all ---- */

static void write_quantiles(const struct page *page, double p50, double p95) {
	buffer_puts(page->b, "\"p50\":");
	buffer_json_f64(page->b, p50);
	buffer_puts(page->b, ",\"p95\":");
	buffer_json_f64(page->b, p95);
}

/* How far predictions were off, of the last requests and of the last steps of each kind; and what
 * they are made from. */
static void write_cost(const struct page *page) {
	struct buffer *b = page->b;
	const char *comma = "";
	if (!page->cost.fitted)
		return;
	buffer_puts(b, ",\"prediction_error\":{");
	write_quantiles(page, page->cost.error_p50, page->cost.error_p95);
	buffer_puts(b, ",\"steps\":{");
	for (int k = 0; k < COST_KINDS; k++) {
		const struct cost_error *e = &page->cost.step_error[k];
		if (!(e->p95 > 0))
			continue;
		buffer_printf(b, "%s\"%s\":{", comma, cost_kind_name((enum cost_kind)k));
		write_quantiles(page, e->p50, e->p95);
		buffer_puts(b, "}");
		comma = ",";
	}
	buffer_puts(b, "}},\"cost_model\":");
	cost_write(&page->file, b);
}

static void write_page(const struct page *page) {
	const struct model *model = page->model;
	const struct stack_facts *stack = model->facts.stack;
	const char *rule = plan_rule_name(page->ladder.rule);
	if (!page->pairs) {
		buffer_printf(page->b,
		                "{\"layers\":%d,\"rule\":\"%s\",\"depths\":", model_layers(model),
		                rule);
		write_stack(page, model_main_stack(model));
	} else {
		buffer_printf(page->b,
		                "{\"layers\":{\"encoder\":%d,\"decoder\":%d},\"rule\":\"%s\"",
		                stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers, rule);
		buffer_printf(page->b, ",\"encoder\":{\"layers\":%d,\"depths\":",
		                stack[STACK_ENCODER].layers);
		write_stack(page, STACK_ENCODER);
		buffer_printf(page->b, "},\"decoder\":{\"layers\":%d,\"depths\":",
		                stack[STACK_DECODER].layers);
		write_stack(page, STACK_DECODER);
		buffer_puts(page->b, "}");
		write_pairs(page);
	}
	buffer_printf(page->b, ",\"weights\":\"%s\"", weight_format_name(model->weights.format));
	write_cost(page);
	buffer_puts(page->b, "}");
}

/* The rule that a depth becomes layers by if the request names none. */
static enum plan_rule default_rule(const struct server *server, const struct model *model) {
	enum plan_rule rule = model->facts.plan_rule;
	if (server->config->plan_rule[0])
		plan_rule_parse(server->config->plan_rule, &rule);
	return rule;
}

void handle_depths(struct call *call) {
	struct snapshot snapshot;
	struct buffer b = { 0 };
	struct error e;
	if (!handle_current(call))
		return;
	const struct model *model = generation_model(call->server->current);
	engine_snapshot(call->server->current->engine, &snapshot);
	struct page page = { .b = &b,
		.model = model,
		.cost = snapshot.cost,
		.file = { .cost = snapshot.cost,
		                .limits = snapshot.limits,
		                .kv_blocks = (int64_t)snapshot.kv_total,
		                .layers = { model->facts.stack[STACK_ENCODER].layers,
		                                model->facts.stack[STACK_DECODER].layers } },
		.pairs = model->facts.kind == KIND_SEQ2SEQ };
	if (ladder_init(&page.ladder, model, default_rule(call->server, model))) {
		write_page(&page);
		call_answer(call, 200, NULL, &b);
	} else {
		error_set(&e, ERROR_INTERNAL, NULL, "The server has no memory for this answer.");
		call_fail(call, &e);
	}
	ladder_finish(&page.ladder);
}
