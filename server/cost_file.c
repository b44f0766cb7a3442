/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model as JSON. One table of members writes and reads it. */
#include "server/cost_file.h"

#include <stdio.h>
#include <string.h>

#define MOST_MS 1e7 /* of anything: a file that says more is wrong */

/* A number, or `n` of them, at `offset` in struct cost_model. */
struct member {
	const char *name;
	size_t offset;
	int n; /* 0: one number; else a list */
	double least, most;
	bool optional; /* 0 stands for "not known" */
};

#define NUMBER(name, low, high)                                                                    \
	{ #name, offsetof(struct cost_model, name), 0, low, high }
#define LEARNT(name, low, high)                                                                    \
	{ #name, offsetof(struct cost_model, name), 0, low, high, true }
#define LIST(name)                                                                                 \
	{ #name, offsetof(struct cost_model, name), COST_POINTS, 0, MOST_MS }

static const struct member members[] = {
	LIST(cross_ms),
	LIST(head_ms),
	NUMBER(attention_ms, 0, MOST_MS),
	NUMBER(chunk_attention_ms, 0, MOST_MS),
	NUMBER(source_attention_ms, 0, MOST_MS),
	NUMBER(class_ms, 0, MOST_MS),
	NUMBER(constant_ms, 0, MOST_MS),
	NUMBER(row_ms, 0, MOST_MS),
	LEARNT(pace, 0, 1000),
	LEARNT(mean_ratio, 0, 1000),
	LEARNT(jitter, 0, 1000),
	LEARNT(interference_ms, 0, MOST_MS),
	NUMBER(margin, 1, 1000),
	NUMBER(margin_rescued, 1, 1000),
	NUMBER(answer_ratio, 0, 1),
	NUMBER(target_ratio, 0, 1000),
};
enum { MEMBERS = sizeof members / sizeof members[0] };

static const char *const stack_names[STACKS] = {
	[STACK_ENCODER] = "encoder", [STACK_DECODER] = "decoder"
};
static const char *const kind_names[COST_KINDS] = { [COST_DECODE] = "decode",
	[COST_PREFILL] = "prefill",
	[COST_MIXED] = "mixed",
	[COST_ENCODE] = "encode" };

const char *cost_kind_name(enum cost_kind kind) {
	return kind_names[kind];
}

/* ---- writing ---- */

static void write_list(struct buffer *out, const char *name, const double *values, int n) {
	buffer_printf(out, "\"%s\":[", name);
	for (int i = 0; i < n; i++) {
		buffer_puts(out, i ? "," : "");
		buffer_json_f64(out, values[i]);
	}
	buffer_puts(out, "]");
}

static void write_error(struct buffer *out, const char *name, struct cost_error error) {
	buffer_printf(out, "\"%s\":{\"p50\":", name);
	buffer_json_f64(out, error.p50);
	buffer_puts(out, ",\"p95\":");
	buffer_json_f64(out, error.p95);
	buffer_puts(out, "}");
}

static void write_errors(struct buffer *out, const struct cost_model *cost) {
	bool first = true;
	buffer_puts(out, ",\"step_error\":{");
	for (int k = 0; k < COST_KINDS; k++) {
		if (!(cost->step_error[k].p95 > 0))
			continue;
		buffer_puts(out, first ? "" : ",");
		write_error(out, kind_names[k], cost->step_error[k]);
		first = false;
	}
	buffer_puts(out, "},");
	write_error(out, "request_error", (struct cost_error){ cost->error_p50, cost->error_p95 });
}

void cost_write(const struct cost_file *file, struct buffer *out) {
	const struct cost_model *cost = &file->cost;
	const struct cost_limits *limits = &file->limits;
	buffer_printf(out, "{\"layers\":{\"encoder\":%d,\"decoder\":%d},\"rows\":[",
	                file->layers[STACK_ENCODER], file->layers[STACK_DECODER]);
	for (int i = 0; i < COST_POINTS; i++)
		buffer_printf(out, "%s%d", i ? "," : "", cost_rows[i]);
	buffer_puts(out, "],\"layer_ms\":{");
	bool first = true;
	for (int k = 0; k < STACKS; k++) {
		if (file->layers[k] <= 0)
			continue;
		buffer_puts(out, first ? "" : ",");
		write_list(out, stack_names[k], cost->layer_ms[k], COST_POINTS);
		first = false;
	}
	buffer_puts(out, "}");
	for (int i = 0; i < MEMBERS; i++) {
		const struct member *m = &members[i];
		const double *value = (const double *)((const char *)cost + m->offset);
		buffer_puts(out, ",");
		if (m->n > 0) {
			write_list(out, m->name, value, m->n);
			continue;
		}
		buffer_printf(out, "\"%s\":", m->name);
		buffer_json_f64(out, *value);
	}
	write_errors(out, cost);
	buffer_printf(out,
	                ",\"limits\":{\"max_rows\":%d,\"prefill_rows\":%d,\"sequences\":%d,"
	                "\"source_tiles\":%d",
	                limits->max_rows, limits->prefill_rows, limits->sequences,
	                limits->source_tiles);
	if (limits->most_step_ms > 0) {
		buffer_puts(out, ",\"most_step_ms\":");
		buffer_json_f64(out, limits->most_step_ms);
	}
	buffer_printf(out, "},\"kv_blocks\":%lld}", (long long)file->kv_blocks);
}

/* ---- reading ---- */

static void read_list(struct doc_reader *r, const char *key, double *ret_values) {
	const struct doc *list = doc_get(r->object, key);
	if (doc_kind(list) != DOC_ARRAY || doc_count(list) != COST_POINTS) {
		doc_fail(r, "%s must be a list of %d numbers", key, COST_POINTS);
		return;
	}
	for (int i = 0; i < COST_POINTS; i++) {
		double value = -1;
		if (!doc_as_number(doc_at(list, (size_t)i), &value) || value < 0 || value > MOST_MS)
			doc_fail(r, "%s[%d] must be a number of milliseconds", key, i);
		ret_values[i] = value;
	}
}

static double read_number(struct doc_reader *r, const struct member *m) {
	if (!m->optional)
		doc_require(r, m->name);
	return doc_read_number(r, m->name, m->least, m->most, m->least);
}

/* A reader of the object `key`, which goes on with the failure of `outer`. */
static struct doc_reader inner(struct doc_reader *outer, const char *key) {
	struct doc_reader r = *outer;
	doc_require(outer, key);
	r.object = doc_get(outer->object, key);
	r.failed = outer->failed;
	return r;
}

static void check_rows(struct doc_reader *r) {
	const struct doc *list = doc_get(r->object, "rows");
	bool same = doc_count(list) == COST_POINTS;
	for (int i = 0; i < COST_POINTS && same; i++) {
		int64_t rows = 0;
		same = doc_as_int(doc_at(list, (size_t)i), &rows) && rows == cost_rows[i];
	}
	if (!same)
		doc_fail(r, "rows is not the list of row counts that this version uses");
}

static void read_stacks(struct doc_reader *r, struct cost_file *file) {
	struct doc_reader layers = inner(r, "layers"), tables = inner(r, "layer_ms");
	for (int k = 0; k < STACKS && !r->failed; k++) {
		file->layers[k] = (int)doc_need_int(&layers, stack_names[k], 0, MAX_LAYERS);
		if (file->layers[k] > 0)
			read_list(&tables, stack_names[k], file->cost.layer_ms[k]);
		r->failed = layers.failed || tables.failed;
	}
	if (!r->failed && file->layers[STACK_ENCODER] + file->layers[STACK_DECODER] == 0)
		doc_fail(r, "layers says that there are none");
}

static struct cost_error read_error(struct doc_reader *r, const char *key) {
	struct doc_reader pair = *r;
	pair.object = doc_get(r->object, key);
	struct cost_error error = { .p50 = doc_read_number(&pair, "p50", 0, 1e6, 0),
		.p95 = doc_read_number(&pair, "p95", 0, 1e6, 0) };
	r->failed = pair.failed;
	return error;
}

static void read_errors(struct doc_reader *r, struct cost_model *cost) {
	struct cost_error request = read_error(r, "request_error");
	struct doc_reader steps = *r;
	steps.object = doc_get(r->object, "step_error");
	cost->error_p50 = request.p50;
	cost->error_p95 = request.p95;
	for (int k = 0; k < COST_KINDS; k++)
		cost->step_error[k] = read_error(&steps, kind_names[k]);
	r->failed = steps.failed;
}

static void read_limits(struct doc_reader *r, struct cost_limits *limits) {
	struct doc_reader l = inner(r, "limits");
	if (l.failed)
		return;
	limits->max_rows = (int)doc_need_int(&l, "max_rows", 1, 1 << 24);
	limits->prefill_rows = (int)doc_need_int(&l, "prefill_rows", 1, 1 << 24);
	limits->sequences = (int)doc_need_int(&l, "sequences", 1, 1 << 24);
	limits->source_tiles = (int)doc_need_int(&l, "source_tiles", 0, 1 << 24);
	limits->most_step_ms = doc_read_number(&l, "most_step_ms", 0, MOST_MS, 0);
	r->failed = l.failed;
}

bool cost_read(const struct doc *doc, const char *name, struct cost_file *ret_file, char *err,
                size_t errlen) {
	const struct doc *within = doc_get(doc, "cost_model");
	struct doc_reader r = {
		.object = within ? within : doc, .file = name, .err = err, .errlen = errlen
	};
	struct cost_file file;
	memset(&file, 0, sizeof file);
	if (!doc_get(r.object, "rows"))
		doc_fail(&r, "there is no cost_model: this is no answer of GET /v1/depths");
	if (!r.failed)
		check_rows(&r);
	if (!r.failed)
		read_stacks(&r, &file);
	for (int i = 0; i < MEMBERS && !r.failed; i++) {
		const struct member *m = &members[i];
		double *value = (double *)((char *)&file.cost + m->offset);
		if (m->n > 0)
			read_list(&r, m->name, value);
		else
			*value = read_number(&r, m);
	}
	if (!r.failed)
		read_errors(&r, &file.cost);
	if (!r.failed)
		read_limits(&r, &file.limits);
	if (!r.failed)
		file.kv_blocks = doc_need_int(&r, "kv_blocks", 0, INT64_MAX);
	if (r.failed)
		return false;
	file.cost.fitted = true;
	*ret_file = file;
	return true;
}
