/* SPDX-License-Identifier: Apache-2.0 */
/* What the server has: models, depths, version. */
#include <stdio.h>
#include <string.h>

#include "server/cost.h"
#include "server/handlers.h"
#include "server/resolve.h"

/* The current generation, or NULL after the call was refused. */
static const struct generation *current_or_fail(struct call *call) {
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

static double trained_layerdrop(const struct model *model) {
	return model->facts.stack[STACK_DECODER].layerdrop;
}

/* One entry of the list; `depth` is what the name stands for. */
static void write_model(struct buffer *b, const struct server *server, const char *id, int depth) {
	const struct model *model = generation_model(server->current);
	struct snapshot snapshot;
	engine_snapshot(server->current->engine, &snapshot);
	buffer_puts(b, "{\"id\":");
	put_string(b, id);
	buffer_printf(b,
	                ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"fathom\","
	                "\"max_model_len\":%d,\"meta\":{\"family\":",
	                (long long)server->loaded, model->facts.context);
	put_string(b, facts_family_name(model->facts.family));
	buffer_printf(b, ",\"layers\":%d,\"depth\":%d,\"dtype\":", model_layers(model), depth);
	put_string(b, model->dtype);
	buffer_puts(b, ",\"layerdrop\":");
	if (trained_layerdrop(model) > 0)
		buffer_json_f32(b, model->facts.stack[STACK_DECODER].layerdrop);
	else
		buffer_puts(b, "null");
	buffer_puts(b, ",\"arithmetic\":");
	put_string(b, model->ops->arithmetic);
	buffer_printf(b, ",\"exact\":%s,\"weight_bytes\":%zu,\"kv_pool_bytes\":%zu",
	                model->ops->exact ? "true" : "false", model->weights.bytes,
	                snapshot.kv_total * snapshot.block_bytes);
	if (model->note[0]) {
		buffer_puts(b, ",\"note\":");
		put_string(b, model->note);
	}
	buffer_puts(b, "}}");
}

void handle_models(struct call *call) {
	const struct server *server = call->server;
	const struct config *config = server->config;
	struct buffer b = { 0 };
	char id[512];
	if (!current_or_fail(call))
		return;
	const struct model *model = generation_model(server->current);
	const char *first = resolve_served_name(model, config);
	buffer_puts(&b, "{\"object\":\"list\",\"data\":[");
	write_model(&b, server, first, model_layers(model));
	for (int i = 1; i < config->n_served_model_names; i++) {
		buffer_puts(&b, ",");
		write_model(&b, server, config->served_model_names[i], model_layers(model));
	}
	for (int i = 0; i < config->n_tiers; i++) {
		snprintf(id, sizeof id, "%s@%s", first, config->tiers[i].name);
		buffer_puts(&b, ",");
		write_model(&b, server, id, resolve_tier(model, config, config->tiers[i].name));
	}
	buffer_puts(&b, "]}");
	call_answer(call, 200, NULL, &b);
}

/* The depth that a name such as NAME@6 or NAME@fast stands for. */
static int named_depth(const struct model *model, const struct config *config,
                const struct depth_spec *spec) {
	if (spec->kind == DEPTH_NUMBER)
		return (int)spec->decoder;
	if (spec->kind == DEPTH_NAME)
		return resolve_tier(model, config, spec->name);
	return model_layers(model);
}

void handle_model(struct call *call) {
	const struct server *server = call->server;
	struct request request = { .model = (char *)call_path_id(call) };
	struct depth_spec spec;
	struct buffer b = { 0 };
	struct error e;
	if (!current_or_fail(call))
		return;
	const struct model *model = generation_model(server->current);
	bool known = resolve_model_name(model, server->config, &request, &spec, &e);
	int depth = known ? named_depth(model, server->config, &spec) : 0;
	if (known && (depth < 1 || depth > model_layers(model)))
		known = error_set(&e, ERROR_MODEL_NOT_FOUND, "model",
		                "This model has the depths 1 to %d.", model_layers(model));
	if (!known) {
		call_fail(call, &e);
		return;
	}
	write_model(&b, server, request.model, depth);
	call_answer(call, 200, NULL, &b);
}

static void write_quality(struct buffer *b, const struct model *model, int depth) {
	bool open = false;
	for (size_t i = 0; i < model->n_quality; i++) {
		if (model->quality[i].depth != depth)
			continue;
		buffer_puts(b, open ? "," : ",\"quality\":{");
		put_string(b, model->quality[i].metric);
		buffer_puts(b, ":");
		buffer_json_f64(b, model->quality[i].value);
		open = true;
	}
	if (open)
		buffer_puts(b, "}");
}

static void write_depth(struct buffer *b, const struct model *model, const struct cost_model *cost,
                const struct subnet *subnet) {
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	int depths[STACKS] = { 0 };
	depths[STACK_DECODER] = plan->depth;
	buffer_printf(b, "{\"depth\":%d,\"layers\":[", plan->depth);
	for (int i = 0; i < plan->depth; i++)
		buffer_printf(b, "%s%d", i ? "," : "", plan->layers[i]);
	buffer_printf(b, "],\"parameters\":%llu,\"weight_bytes\":%zu,\"prefill_ms_per_token\":",
	                (unsigned long long)facts_parameters(&model->facts, depths),
	                model_subnet_bytes(model, subnet));
	buffer_json_f64(b, cost_prefill_ms(cost, depths));
	buffer_puts(b, ",\"decode_ms_per_token\":");
	buffer_json_f64(b, cost_decode_ms(cost, depths));
	write_quality(b, model, plan->depth);
	buffer_puts(b, "}");
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
	struct subnet subnet;
	struct buffer b = { 0 };
	bool first = true;
	if (!current_or_fail(call))
		return;
	const struct model *model = generation_model(call->server->current);
	enum plan_rule rule = default_rule(call->server, model);
	engine_snapshot(call->server->current->engine, &snapshot);
	buffer_printf(&b, "{\"layers\":%d,\"rule\":\"%s\",\"depths\":[", model_layers(model),
	                plan_rule_name(rule));
	for (int depth = 1; depth <= model_layers(model); depth++) {
		/* All layers are one plan, whatever the rule. */
		enum plan_rule by = depth == model_layers(model) ? PLAN_RULE_EVEN : rule;
		if (!model_subnet(model, by, depth, &subnet))
			continue; /* tuned plans need not have every depth */
		buffer_puts(&b, first ? "" : ",");
		write_depth(&b, model, &snapshot.cost, &subnet);
		first = false;
	}
	buffer_puts(&b, "]}");
	call_answer(call, 200, NULL, &b);
}

void handle_version(struct call *call) {
	struct buffer b = { 0 };
	buffer_puts(&b, "{\"name\":\"fathom\",\"version\":");
	put_string(&b, FATHOM_VERSION);
	buffer_puts(&b, ",\"compiler\":");
	put_string(&b, __VERSION__);
	buffer_puts(&b, ",\"kernels\":");
	put_string(&b, call->server->ops->name);
	buffer_puts(&b, ",\"http_library\":");
	put_string(&b, http_library());
	buffer_puts(&b, "}");
	call_answer(call, 200, NULL, &b);
}
