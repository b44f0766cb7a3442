/* SPDX-License-Identifier: Apache-2.0 */
/* Depth lists: numbers, ranges, pairs, and explicit lists of layers. */
#include "cli/depths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct list {
	const struct model *model;
	enum plan_rule rule;
	struct subnet *subnets;
	int n, cap;
	char *err;
	size_t errlen;
};

/* An encoder's depth that was not given: all of it. */
enum { WHOLE = -1 };

int depths_args(struct depth_options *o, struct arg *args) {
	const struct arg list[DEPTHS_FLAGS] = {
		{ "depth", ARG_TEXT, &o->depth, 0, 0 },
		{ "rule", ARG_TEXT, &o->rule, 0, 0 },
		{ "layers", ARG_TEXT, &o->layers, 0, 0 },
		{ "decoder-layers", ARG_TEXT, &o->layers, 0, 0 },
		{ "encoder-layers", ARG_TEXT, &o->encoder_layers, 0, 0 },
	};
	memcpy(args, list, sizeof list);
	return DEPTHS_FLAGS;
}

static bool has_two(const struct model *model) {
	return model->facts.kind == KIND_SEQ2SEQ;
}

static int layers_of(const struct model *model, enum stack stack) {
	return model->facts.stack[stack].layers;
}

static bool put(struct list *l, const struct subnet *subnet) {
	if (l->n == l->cap) {
		int cap = l->cap ? 2 * l->cap : 32;
		struct subnet *grown = realloc(l->subnets, (size_t)cap * sizeof *grown);
		if (!grown) {
			snprintf(l->err, l->errlen, "memory ran out");
			return false;
		}
		l->subnets = grown;
		l->cap = cap;
	}
	l->subnets[l->n++] = *subnet;
	return true;
}

static bool check(struct list *l, enum stack stack, long depth) {
	int layers = layers_of(l->model, stack);
	if (depth >= 1 && depth <= layers)
		return true;
	snprintf(l->err, l->errlen, "depth %ld: the model's %s has 1 to %d layers", depth,
	                depths_stack_name(stack), layers);
	return false;
}

/* One depth of the main stack; `encoder`: a seq2seq's other one, or WHOLE. */
static bool add(struct list *l, long encoder, long depth) {
	enum stack main = model_main_stack(l->model);
	struct subnet subnet;
	if (!check(l, main, depth) || (encoder != WHOLE && !check(l, STACK_ENCODER, encoder)))
		return false;
	int depths[STACKS];
	for (int s = 0; s < STACKS; s++)
		depths[s] = layers_of(l->model, (enum stack)s);
	depths[main] = (int)depth;
	if (encoder != WHOLE)
		depths[STACK_ENCODER] = (int)encoder;
	/* All layers are one plan, whatever the rule. */
	bool all = true;
	for (int s = 0; s < STACKS; s++)
		all = all && depths[s] == layers_of(l->model, (enum stack)s);
	if (model_subnet_pair(l->model, all ? PLAN_RULE_EVEN : l->rule, depths, &subnet))
		return put(l, &subnet);
	snprintf(l->err, l->errlen, "the rule %s has no plan for depth %ld",
	                plan_rule_name(l->rule), depth);
	return false;
}

/* All depths, deepest first; of two stacks every t-th part of both. */
static bool add_all(struct list *l) {
	int encoder = layers_of(l->model, STACK_ENCODER);
	int decoder = layers_of(l->model, STACK_DECODER);
	int most = encoder > decoder ? encoder : decoder;
	for (int t = most; t >= 1; t--) {
		bool ok = has_two(l->model) ? add(l, (encoder * t + most - 1) / most,
		                          (decoder * t + most - 1) / most)
		                            : add(l, WHOLE, t);
		if (!ok && l->rule != PLAN_RULE_TUNED)
			return false;
	}
	return l->n > 0;
}

static bool bad_item(struct list *l, const char *item) {
	snprintf(l->err, l->errlen, "\"%s\" is no depth; write %s", item,
	                has_two(l->model) ? "12x6 (encoder x decoder) or 6 (decoder)"
	                                  : "6, 12,6,3 or 1..12");
	return false;
}

/* "6", "1..12", "12x6", "all", "full". */
static bool add_item(struct list *l, const char *item) {
	char *end;
	if (strcmp(item, "all") == 0)
		return add_all(l);
	if (strcmp(item, "full") == 0)
		return add(l, WHOLE, model_layers(l->model));
	long first = strtol(item, &end, 10);
	if (end == item)
		return bad_item(l, item);
	if (*end == '\0')
		return add(l, WHOLE, first);
	if (*end == 'x' && has_two(l->model)) {
		char *after;
		long second = strtol(end + 1, &after, 10);
		return after > end + 1 && *after == '\0' ? add(l, first, second)
		                                         : bad_item(l, item);
	}
	if (strncmp(end, "..", 2) != 0)
		return bad_item(l, item);
	const char *from = end + 2;
	long last = strtol(from, &end, 10);
	if (end == from || *end)
		return bad_item(l, item);
	long step = last >= first ? 1 : -1;
	for (long d = first;; d += step) {
		if (!add(l, WHOLE, d))
			return false;
		if (d == last)
			return true;
	}
}

static bool read_layers(struct list *l, const char *text, enum stack stack, struct plan *ret) {
	int64_t layers[MAX_LAYERS];
	size_t n = 0;
	for (const char *at = text;;) {
		char *end;
		long layer = strtol(at, &end, 10);
		if (end == at || n == MAX_LAYERS || (*end && *end != ',')) {
			snprintf(l->err, l->errlen, "\"%s\" is no list of layers; write 0,2,4",
			                text);
			return false;
		}
		layers[n++] = layer;
		if (!*end)
			break;
		at = end + 1;
	}
	return plan_from_list(layers_of(l->model, stack), layers, n, ret, l->err, l->errlen);
}

static bool add_layers(struct list *l, const struct depth_options *o) {
	struct subnet subnet;
	enum stack main = model_main_stack(l->model);
	if (o->depth) {
		snprintf(l->err, l->errlen, "lists of layers and --depth exclude each other");
		return false;
	}
	if (o->encoder_layers && !has_two(l->model)) {
		snprintf(l->err, l->errlen,
		                "--encoder-layers is for encoder-decoders; use --layers");
		return false;
	}
	if (!model_subnet(l->model, PLAN_RULE_EVEN, model_layers(l->model), &subnet))
		return false;
	return (!o->layers || read_layers(l, o->layers, main, &subnet.stack[main]))
	                && (!o->encoder_layers
	                                || read_layers(l, o->encoder_layers, STACK_ENCODER,
	                                                &subnet.stack[STACK_ENCODER]))
	                && put(l, &subnet);
}

static bool add_list(struct list *l, const char *text) {
	char *copy = strdup(text), *rest = copy, *item;
	bool ok = copy != NULL;
	if (!ok)
		snprintf(l->err, l->errlen, "memory ran out");
	while (ok && (item = strsep(&rest, ",")))
		ok = add_item(l, item);
	free(copy);
	return ok;
}

bool depths_read(const struct model *model, const struct depth_options *o,
                struct subnet **ret_subnets, int *ret_n, char *err, size_t errlen) {
	struct list l = {
		.model = model, .rule = model->facts.plan_rule, .err = err, .errlen = errlen
	};
	bool ok;
	if (o->rule && (!plan_rule_parse(o->rule, &l.rule) || l.rule == PLAN_RULE_LAYERS)) {
		snprintf(err, errlen, "--rule is even, ends, prefix or tuned, not \"%s\"", o->rule);
		return false;
	}
	if (o->layers || o->encoder_layers)
		ok = add_layers(&l, o);
	else
		ok = add_list(&l, o->depth ? o->depth : "all");
	if (!ok) {
		free(l.subnets);
		return false;
	}
	*ret_subnets = l.subnets;
	*ret_n = l.n;
	return true;
}

void depths_name(const struct subnet *subnet, char *name, size_t size) {
	int encoder = subnet->stack[STACK_ENCODER].depth,
	    decoder = subnet->stack[STACK_DECODER].depth;
	if (encoder && decoder)
		snprintf(name, size, "%dx%d", encoder, decoder);
	else
		snprintf(name, size, "%d", encoder ? encoder : decoder);
}

void depths_list(const struct plan *plan, const char *separator, char *text, size_t size) {
	size_t n = 0;
	text[0] = '\0';
	for (int i = 0; i < plan->depth && n + 8 < size; i++)
		n += (size_t)snprintf(
		                text + n, size - n, "%s%d", i ? separator : "", plan->layers[i]);
}

/* A run of three or more as "0-11". */
static void list_short(const struct plan *plan, char *text, size_t size) {
	const int16_t *layers = plan->layers;
	const int depth = plan->depth;
	if (depth > 2 && layers[depth - 1] - layers[0] == depth - 1)
		snprintf(text, size, "%d-%d", layers[0], layers[depth - 1]);
	else
		depths_list(plan, " ", text, size);
}

void depths_layers(const struct subnet *subnet, char *text, size_t size) {
	char encoder[MAX_LAYERS * 5], decoder[MAX_LAYERS * 5];
	list_short(&subnet->stack[STACK_ENCODER], encoder, sizeof encoder);
	list_short(&subnet->stack[STACK_DECODER], decoder, sizeof decoder);
	snprintf(text, size, "%s%s%s", encoder, encoder[0] && decoder[0] ? " | " : "", decoder);
}

const char *depths_stack_name(enum stack stack) {
	return stack == STACK_ENCODER ? "encoder" : "decoder";
}

uint64_t depths_parameters(const struct facts *facts, const struct subnet *subnet) {
	int depth[STACKS];
	for (int s = 0; s < STACKS; s++)
		depth[s] = subnet->stack[s].depth;
	return facts_parameters(facts, depth);
}

void depths_put(struct buffer *b, const struct subnet *subnet, enum depths_what what) {
	bool two = subnet->stack[STACK_ENCODER].depth && subnet->stack[STACK_DECODER].depth;
	const char *comma = "";
	if (two)
		buffer_puts(b, "{");
	for (int s = 0; s < STACKS; s++) {
		const struct plan *plan = &subnet->stack[s];
		char text[MAX_LAYERS * 5];
		if (plan->depth == 0)
			continue;
		if (two)
			buffer_printf(b, "%s\"%s\": ", comma, depths_stack_name((enum stack)s));
		comma = ", ";
		depths_list(plan, ", ", text, sizeof text);
		if (what == DEPTHS_LAYERS)
			buffer_printf(b, "[%s]", text);
		else
			buffer_printf(b, "%d", what == DEPTHS_KEPT ? plan->depth : plan->of);
	}
	if (two)
		buffer_puts(b, "}");
}
