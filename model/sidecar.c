/* SPDX-License-Identifier: Apache-2.0 */
/* quality.json and plans.json. */
#include "model/sidecar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"

/* The list under `key`: at most one object for each depth. Fails the reader otherwise. */
static const struct doc *read_list(struct doc_reader *r, const char *key, int layers) {
	const struct doc *list = doc_get(r->object, key);
	if (doc_kind(list) != DOC_ARRAY)
		doc_fail(r, "\"%s\" is not a list", key);
	else if (doc_count(list) > (size_t)layers)
		doc_fail(r, "\"%s\" has more entries than the model has depths", key);
	for (size_t i = 0; i < doc_count(list) && !r->failed; i++) {
		if (doc_kind(doc_at(list, i)) != DOC_OBJECT)
			doc_fail(r, "\"%s\" has an entry that is not a JSON object", key);
	}
	return list;
}

/* The entry's depth; `seen` has room for 1 + layers. */
static int read_depth(struct doc_reader *r, struct doc_reader *entry, int layers, bool *seen) {
	int depth = (int)doc_need_int(entry, "depth", 1, layers);
	if (!entry->failed && seen[depth])
		doc_fail(entry, "depth %d is listed twice", depth);
	seen[depth] = true;
	r->failed = r->failed || entry->failed;
	return depth;
}

static int by_depth(const void *a, const void *b) {
	return ((const struct depth_quality *)a)->depth - ((const struct depth_quality *)b)->depth;
}

static void read_quality(
                struct doc_reader *r, int layers, struct depth_quality **ret, size_t *ret_count) {
	bool seen[MAX_LAYERS + 1] = { false };
	const struct doc *list = read_list(r, "depths", layers);
	const char *metric = doc_read_string(r, "metric", "perplexity");
	if (strlen(metric) == 0 || strlen(metric) >= sizeof((*ret)->metric))
		doc_fail(r, "\"metric\" must be a name of 1 to 31 bytes");
	struct depth_quality *quality =
	                r->failed ? NULL : calloc(doc_count(list) + 1, sizeof *quality);
	if (!quality)
		doc_fail(r, "out of memory");
	for (size_t i = 0; i < doc_count(list) && !r->failed; i++) {
		struct doc_reader entry = *r;
		entry.object = doc_at(list, i);
		doc_require(&entry, metric);
		quality[i].value = doc_read_number(&entry, metric, -1e30, 1e30, 0);
		quality[i].depth = read_depth(r, &entry, layers, seen);
		snprintf(quality[i].metric, sizeof quality[i].metric, "%s", metric);
	}
	if (r->failed) {
		free(quality);
		return;
	}
	*ret_count = doc_count(list);
	qsort(quality, *ret_count, sizeof *quality, by_depth);
	*ret = quality;
}

bool quality_parse(const char *json, size_t len, int layers, struct depth_quality **ret,
                size_t *ret_count, char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "quality.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = {
		.object = doc, .file = "quality.json", .err = err, .errlen = errlen
	};
	read_quality(&r, layers, ret, ret_count);
	doc_free(doc);
	return !r.failed;
}

static void read_plan(struct doc_reader *r, int layers, int depth, struct plan *ret) {
	int64_t kept[MAX_LAYERS];
	char why[160];
	const struct doc *list = doc_get(r->object, "layers");
	if (doc_kind(list) != DOC_ARRAY || doc_count(list) != (size_t)depth) {
		doc_fail(r, "\"layers\" of depth %d is not a list of %d layers", depth, depth);
		return;
	}
	for (int i = 0; i < depth; i++) {
		if (!doc_as_int(doc_at(list, (size_t)i), &kept[i])) {
			doc_fail(r, "\"layers\" of depth %d must hold whole numbers", depth);
			return;
		}
	}
	if (!plan_from_list(layers, kept, (size_t)depth, ret, why, sizeof why))
		doc_fail(r, "\"layers\" of depth %d: %s", depth, why);
}

static int by_plan_depth(const void *a, const void *b) {
	return ((const struct subnet *)a)->stack[STACK_DECODER].depth
	                - ((const struct subnet *)b)->stack[STACK_DECODER].depth;
}

static void read_plans(struct doc_reader *r, int layers, struct subnet **ret, size_t *ret_count) {
	bool seen[MAX_LAYERS + 1] = { false };
	const struct doc *list = read_list(r, "plans", layers);
	struct subnet *plans = r->failed ? NULL : calloc(doc_count(list) + 1, sizeof *plans);
	if (!plans)
		doc_fail(r, "out of memory");
	for (size_t i = 0; i < doc_count(list) && !r->failed; i++) {
		struct doc_reader entry = *r;
		entry.object = doc_at(list, i);
		int depth = read_depth(r, &entry, layers, seen);
		if (!r->failed)
			read_plan(&entry, layers, depth, &plans[i].stack[STACK_DECODER]);
		r->failed = entry.failed;
	}
	if (r->failed) {
		free(plans);
		return;
	}
	*ret_count = doc_count(list);
	qsort(plans, *ret_count, sizeof *plans, by_plan_depth);
	*ret = plans;
}

bool plans_parse(const char *json, size_t len, int layers, struct subnet **ret, size_t *ret_count,
                char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "plans.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = { .object = doc, .file = "plans.json", .err = err, .errlen = errlen };
	read_plans(&r, layers, ret, ret_count);
	doc_free(doc);
	return !r.failed;
}
