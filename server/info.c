/* SPDX-License-Identifier: Apache-2.0 */
/* What the server has: models and its version. */
#include <stdio.h>
#include <string.h>

#include "server/compose.h"
#include "server/handlers.h"
#include "server/memory.h"
#include "server/resolve.h"

static void put_string(struct buffer *b, const char *s) {
	buffer_json_string(b, s, strlen(s));
}

static bool has_pairs(const struct model *model) {
	return model->facts.kind == KIND_SEQ2SEQ;
}

/* A number, or {"encoder": e, "decoder": d}. */
static void put_depth(struct buffer *b, const struct model *model, const int depth[STACKS]) {
	if (has_pairs(model))
		buffer_printf(b, "{\"encoder\":%d,\"decoder\":%d}", depth[STACK_ENCODER],
		                depth[STACK_DECODER]);
	else
		buffer_printf(b, "%d", depth[model_main_stack(model)]);
}

static void put_layers(struct buffer *b, const struct model *model) {
	put_depth(b, model,
	                (const int[STACKS]){ model->facts.stack[STACK_ENCODER].layers,
	                                model->facts.stack[STACK_DECODER].layers });
}

static void put_layerdrop(struct buffer *b, const struct stack_facts *stack) {
	if (stack->layerdrop > 0)
		buffer_json_f32(b, stack->layerdrop);
	else
		buffer_puts(b, "null");
}

static void write_layerdrop(struct buffer *b, const struct model *model) {
	const struct stack_facts *stack = model->facts.stack;
	buffer_puts(b, ",\"layerdrop\":");
	if (!has_pairs(model)) {
		put_layerdrop(b, &stack[model_main_stack(model)]);
		return;
	}
	buffer_puts(b, "{\"encoder\":");
	put_layerdrop(b, &stack[STACK_ENCODER]);
	buffer_puts(b, ",\"decoder\":");
	put_layerdrop(b, &stack[STACK_DECODER]);
	buffer_puts(b, "}");
}

/* What the model can be asked, and its classification heads. */
static void write_tasks(struct buffer *b, const struct model *model) {
	const struct facts *facts = &model->facts;
	if (facts->kind == KIND_ENCODER)
		buffer_printf(b, ",\"tasks\":[\"embeddings\"%s%s]",
		                facts->n_classifiers > 0 ? ",\"classify\"" : "",
		                facts->mlm_head ? ",\"fill-mask\"" : "");
	else
		buffer_puts(b, ",\"tasks\":[\"completions\",\"loglikelihood\"]");
	if (facts->mask >= 0 && facts->mlm_head) {
		size_t len;
		const char *mask = tokenizer_bytes(model->tokenizer, facts->mask, &len);
		buffer_puts(b, ",\"mask_token\":");
		buffer_json_string(b, mask, mask ? compose_trimmed(mask, len) : 0);
	}
	if (facts->n_classifiers == 0)
		return;
	buffer_puts(b, ",\"heads\":[");
	for (int i = 0; i < facts->n_classifiers; i++) {
		buffer_puts(b, i ? ",{\"name\":" : "{\"name\":");
		put_string(b, facts->classifiers[i].name);
		buffer_puts(b, ",\"labels\":[");
		for (int k = 0; model->labels && k < facts->classifiers[i].classes; k++) {
			buffer_puts(b, k ? "," : "");
			put_string(b, model->labels[i][k]);
		}
		buffer_puts(b, "]}");
	}
	buffer_puts(b, "]");
}

static void write_meta(struct buffer *b, const struct model *model, const int depth[STACKS]) {
	static const char *const kinds[] = { [KIND_LM] = "decoder",
		[KIND_ENCODER] = "encoder",
		[KIND_SEQ2SEQ] = "encoder-decoder" };
	buffer_puts(b, "{\"family\":");
	put_string(b, facts_family_name(model->facts.family));
	buffer_printf(b, ",\"kind\":\"%s\",\"layers\":", kinds[model->facts.kind]);
	put_layers(b, model);
	buffer_puts(b, ",\"depth\":");
	put_depth(b, model, depth);
	buffer_puts(b, ",\"dtype\":");
	put_string(b, model->dtype);
	write_layerdrop(b, model);
	write_tasks(b, model);
	buffer_puts(b, ",\"arithmetic\":");
	put_string(b, model_arithmetic(model));
	buffer_printf(b, ",\"exact\":%s,\"weights\":\"%s\"", model_exact(model) ? "true" : "false",
	                weight_format_name(model->weights.format));
}

/* One entry of the list; `depth` is what the name stands for. */
static void write_model(struct buffer *b, const struct server *server, const char *id,
                const int depth[STACKS]) {
	const struct model *model = generation_model(server->current);
	struct snapshot snapshot;
	engine_snapshot(server->current->engine, &snapshot);
	buffer_puts(b, "{\"id\":");
	put_string(b, id);
	buffer_printf(b,
	                ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"fathom\","
	                "\"max_model_len\":%d,\"meta\":",
	                (long long)server->loaded, model->facts.context);
	write_meta(b, model, depth);
	struct weight_sizes sizes = weights_sizes(&model->weights);
	buffer_printf(b, ",\"kv\":\"%s\",\"weight_bytes\":%zu",
	                kv_format_name(memory_kv_format(server->config, model)),
	                model->weights.bytes);
	buffer_printf(b,
	                ",\"memory\":{\"layers\":%zu,\"vocabulary\":%zu,\"other\":%zu,"
	                "\"workspace\":%zu}",
	                sizes.layers, sizes.vocabulary, sizes.other, snapshot.scratch_bytes);
	buffer_printf(b, ",\"kv_pool_bytes\":%zu", snapshot.kv_total * snapshot.block_bytes);
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
	if (!handle_current(call))
		return;
	const struct model *model = generation_model(server->current);
	const char *first = resolve_served_name(model, config);
	const struct depth_spec full = { .kind = DEPTH_FULL };
	int depth[STACKS];
	resolve_spec(model, config, &full, depth, NULL);
	buffer_puts(&b, "{\"object\":\"list\",\"data\":[");
	write_model(&b, server, first, depth);
	for (int i = 1; i < config->n_served_model_names; i++) {
		buffer_puts(&b, ",");
		write_model(&b, server, config->served_model_names[i], depth);
	}
	for (int i = 0; i < config->n_tiers; i++) {
		snprintf(id, sizeof id, "%s@%s", first, config->tiers[i].name);
		buffer_puts(&b, ",");
		resolve_tier(model, config, config->tiers[i].name, depth);
		write_model(&b, server, id, depth);
	}
	buffer_puts(&b, "]}");
	call_answer(call, 200, NULL, &b);
}

/* The depth that a name such as NAME@6 or NAME@fast stands for; all layers for NAME and NAME@auto. */
static bool named_depth(const struct model *model, const struct config *config,
                const struct request *request, int ret_depth[STACKS], struct error *e) {
	struct depth_spec spec;
	if (!resolve_model_name(model, config, request, &spec, e))
		return false;
	if (spec.kind == DEPTH_UNSET || spec.kind == DEPTH_AUTO)
		spec.kind = DEPTH_FULL;
	if (resolve_spec(model, config, &spec, ret_depth, NULL))
		return true;
	return error_set(e, ERROR_MODEL_NOT_FOUND, "model", "This model has the depths 1 to %d.",
	                model_layers(model));
}

void handle_model(struct call *call) {
	const struct server *server = call->server;
	struct request request = { .model = (char *)call_path_id(call) };
	int depth[STACKS];
	struct buffer b = { 0 };
	struct error e;
	if (!handle_current(call))
		return;
	const struct model *model = generation_model(server->current);
	if (!named_depth(model, server->config, &request, depth, &e)) {
		call_fail(call, &e);
		return;
	}
	write_model(&b, server, request.model, depth);
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
