/* SPDX-License-Identifier: Apache-2.0 */
/* quality.json and plans.json. */
#include "model/sidecar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"

static const char *const stack_names[STACKS] = { "encoder", "decoder" };

static bool is_pair(const int layers[STACKS]) {
	return layers[STACK_ENCODER] > 0 && layers[STACK_DECODER] > 0;
}

static enum stack main_stack(const int layers[STACKS]) {
	return layers[STACK_DECODER] > 0 ? STACK_DECODER : STACK_ENCODER;
}

/* The list under `key`: at most one object for each depth. Fails the reader otherwise. */
static const struct doc *read_list(
                struct doc_reader *r, const char *key, const int layers[STACKS]) {
	const struct doc *list = doc_get(r->object, key);
	size_t most = 1;
	for (int s = 0; s < STACKS; s++)
		most *= layers[s] > 0 ? (size_t)layers[s] : 1;
	if (doc_kind(list) != DOC_ARRAY)
		doc_fail(r, "\"%s\" is not a list", key);
	else if (doc_count(list) > most)
		doc_fail(r, "\"%s\" has more entries than the model has depths", key);
	for (size_t i = 0; i < doc_count(list) && !r->failed; i++) {
		if (doc_kind(doc_at(list, i)) != DOC_OBJECT)
			doc_fail(r, "\"%s\" has an entry that is not a JSON object", key);
	}
	return list;
}

/* The depth of each stack that an entry is about. */
static void read_depth(struct doc_reader *entry, const int layers[STACKS], int depth[STACKS]) {
	enum stack speaks = main_stack(layers);
	memcpy(depth, layers, STACKS * sizeof *depth);
	const struct doc *value = doc_get(entry->object, "depth");
	if (doc_kind(value) != DOC_OBJECT || !is_pair(layers)) {
		depth[speaks] = (int)doc_need_int(entry, "depth", 1, layers[speaks]);
		return;
	}
	struct doc_reader pair = *entry;
	pair.object = value;
	for (int s = 0; s < STACKS; s++)
		depth[s] = (int)doc_need_int(&pair, stack_names[s], 1, layers[s]);
	entry->failed = pair.failed;
}

static void fail_twice(struct doc_reader *r, int encoder, int decoder, bool pair) {
	if (pair)
		doc_fail(r, "encoder depth %d with decoder depth %d is listed twice", encoder,
		                decoder);
	else
		doc_fail(r, "depth %d is listed twice", decoder ? decoder : encoder);
}

/* ---- quality.json ---- */

static int by_depth(const void *a, const void *b) {
	const struct depth_quality *x = a, *y = b;
	return x->depth != y->depth ? x->depth - y->depth : x->encoder_depth - y->encoder_depth;
}

static void read_quality(struct doc_reader *r, const int layers[STACKS], const struct doc *list,
                struct depth_quality *quality) {
	const char *metric = doc_read_string(r, "metric", "perplexity");
	const size_t n = doc_count(list);
	if (strlen(metric) == 0 || strlen(metric) >= sizeof quality->metric)
		doc_fail(r, "\"metric\" must be a name of 1 to 31 bytes");
	for (size_t i = 0; i < n && !r->failed; i++) {
		struct doc_reader entry = *r;
		int depth[STACKS];
		entry.object = doc_at(list, i);
		doc_require(&entry, metric);
		quality[i].value = doc_read_number(&entry, metric, -1e30, 1e30, 0);
		read_depth(&entry, layers, depth);
		quality[i].depth = depth[main_stack(layers)];
		quality[i].encoder_depth = is_pair(layers) ? depth[STACK_ENCODER] : 0;
		snprintf(quality[i].metric, sizeof quality[i].metric, "%s", metric);
		r->failed = entry.failed;
	}
	qsort(quality, n, sizeof *quality, by_depth);
	for (size_t i = 1; i < n && !r->failed; i++) {
		if (by_depth(&quality[i - 1], &quality[i]) == 0)
			fail_twice(r, quality[i].encoder_depth, quality[i].depth, is_pair(layers));
	}
}

bool quality_parse(const char *json, size_t len, const int layers[STACKS],
                struct depth_quality **ret, size_t *ret_count, char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "quality.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = {
		.object = doc, .file = "quality.json", .err = err, .errlen = errlen
	};
	const struct doc *list = read_list(&r, "depths", layers);
	size_t n = doc_count(list);
	struct depth_quality *quality = r.failed ? NULL : calloc(n + 1, sizeof *quality);
	if (quality)
		read_quality(&r, layers, list, quality);
	else
		doc_fail(&r, "out of memory");
	doc_free(doc);
	if (r.failed) {
		free(quality);
		return false;
	}
	*ret_count = n;
	*ret = quality;
	return true;
}

/* ---- plans.json ---- */

/* One stack's list. */
static void read_plan(struct doc_reader *r, const struct doc *list, const char *key, int layers,
                int depth, struct plan *ret) {
	int64_t kept[MAX_LAYERS];
	char why[160];
	if (doc_kind(list) != DOC_ARRAY || doc_count(list) != (size_t)depth) {
		doc_fail(r, "\"%s\" of depth %d is not a list of %d layers", key, depth, depth);
		return;
	}
	for (int i = 0; i < depth; i++) {
		if (!doc_as_int(doc_at(list, (size_t)i), &kept[i])) {
			doc_fail(r, "\"%s\" of depth %d must hold whole numbers", key, depth);
			return;
		}
	}
	if (!plan_from_list(layers, kept, (size_t)depth, ret, why, sizeof why))
		doc_fail(r, "\"%s\" of depth %d: %s", key, depth, why);
}

static void read_subnet(struct doc_reader *r, const int layers[STACKS], struct subnet *ret) {
	int depth[STACKS];
	const struct doc *lists = doc_get(r->object, "layers");
	enum stack speaks = main_stack(layers);
	read_depth(r, layers, depth);
	for (int s = 0; s < STACKS && !r->failed; s++) {
		if (layers[s] == 0)
			continue;
		if (is_pair(layers) && doc_kind(doc_get(r->object, "depth")) == DOC_OBJECT)
			read_plan(r, doc_get(lists, stack_names[s]), stack_names[s], layers[s],
			                depth[s], &ret->stack[s]);
		else if (s == (int)speaks)
			read_plan(r, lists, "layers", layers[s], depth[s], &ret->stack[s]);
		else
			plan_by_rule(PLAN_RULE_EVEN, layers[s], layers[s], &ret->stack[s]);
	}
}

static int by_plan_depth(const void *a, const void *b) {
	const struct plan *x = ((const struct subnet *)a)->stack;
	const struct plan *y = ((const struct subnet *)b)->stack;
	int decoder = x[STACK_DECODER].depth - y[STACK_DECODER].depth;
	return decoder ? decoder : x[STACK_ENCODER].depth - y[STACK_ENCODER].depth;
}

static void read_plans(struct doc_reader *r, const int layers[STACKS], const struct doc *list,
                struct subnet *plans) {
	const size_t n = doc_count(list);
	for (size_t i = 0; i < n && !r->failed; i++) {
		struct doc_reader entry = *r;
		entry.object = doc_at(list, i);
		read_subnet(&entry, layers, &plans[i]);
		r->failed = entry.failed;
	}
	qsort(plans, n, sizeof *plans, by_plan_depth);
	for (size_t i = 1; i < n && !r->failed; i++) {
		if (by_plan_depth(&plans[i - 1], &plans[i]) == 0)
			fail_twice(r, plans[i].stack[STACK_ENCODER].depth,
			                plans[i].stack[STACK_DECODER].depth, is_pair(layers));
	}
}

bool plans_parse(const char *json, size_t len, const int layers[STACKS], struct subnet **ret,
                size_t *ret_count, char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "plans.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = { .object = doc, .file = "plans.json", .err = err, .errlen = errlen };
	const struct doc *list = read_list(&r, "plans", layers);
	size_t n = doc_count(list);
	struct subnet *plans = r.failed ? NULL : calloc(n + 1, sizeof *plans);
	if (plans)
		read_plans(&r, layers, list, plans);
	else
		doc_fail(&r, "out of memory");
	doc_free(doc);
	if (r.failed) {
		free(plans);
		return false;
	}
	*ret_count = n;
	*ret = plans;
	return true;
}
