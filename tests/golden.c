/* SPDX-License-Identifier: Apache-2.0 */
/* Running a folder against goldens. */
#include "tests/golden.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "tests/check.h"

struct golden golden_open(const char *dir, const struct ops *ops) {
	return golden_open_as(dir, ops, WEIGHTS_F32);
}

struct golden golden_open_as(const char *dir, const struct ops *ops, enum weight_format format) {
	char err[400] = "";
	struct golden g = { .model = model_open(dir,
		                            &(struct model_options){ .ops = ops,
		                                            .weights = format,
		                                            .threads = 2 },
		                            err, sizeof err) };
	if (g.model)
		g.team = team_create(2, err, sizeof err);
	if (g.team)
		g.w = workspace_create(g.model,
		                &(struct workspace_options){ .team = g.team,
		                                .max_rows = GOLDEN_ROWS,
		                                .max_logit_rows = GOLDEN_ROWS,
		                                .max_sequences = GOLDEN_SEQUENCES,
		                                .kv_bytes = 16 << 20,
		                                .kv = KV_AUTO },
		                err, sizeof err);
	if (g.w)
		g.sampler = sampler_create(ops, g.model->facts.vocab, err, sizeof err);
	if (!g.sampler)
		check_fail(__FILE__, __LINE__, "%s", err);
	if (g.model->facts.output.n > 0)
		sampler_take_logprobs(g.sampler);
	return g;
}

void golden_close(struct golden *g) {
	sampler_destroy(g->sampler);
	workspace_destroy(g->w);
	team_destroy(g->team);
	model_close(g->model);
}

struct plan golden_plan(const struct doc *layers, int of) {
	int64_t list[MAX_LAYERS];
	size_t n = doc_count(layers);
	struct plan plan;
	char err[200] = "";
	if (n == 0) {
		plan_by_rule(PLAN_RULE_PREFIX, of, of, &plan);
		return plan;
	}
	CHECK(n <= MAX_LAYERS);
	for (size_t i = 0; i < n; i++)
		CHECK(doc_as_int(doc_at(layers, i), &list[i]));
	if (!plan_from_list(of, list, n, &plan, err, sizeof err))
		check_fail(__FILE__, __LINE__, "%s", err);
	return plan;
}

int golden_tokens(const struct doc *array, int32_t *ret_tokens) {
	size_t n = doc_count(array);
	CHECK(n <= GOLDEN_ROWS);
	for (size_t i = 0; i < n; i++) {
		int64_t token;
		CHECK(doc_as_int(doc_at(array, i), &token));
		ret_tokens[i] = (int32_t)token;
	}
	return (int)n;
}

double golden_number(const struct doc *object, const char *key, size_t i) {
	double value;
	if (!doc_as_number(doc_at(doc_get(object, key), i), &value))
		check_fail(__FILE__, __LINE__, "the goldens have no %s[%zu]", key, i);
	return value;
}

void golden_near(const char *where, const char *what, double actual, double wanted) {
	if (!(fabs(actual - wanted) <= fmax(1e-4, 1e-6 * fabs(wanted))))
		check_fail(__FILE__, __LINE__, "%s: %s is %.7g, PyTorch says %.7g", where, what,
		                actual, wanted);
}

static void step(struct golden *g, struct sequence *s, enum stack stack, const int32_t *tokens,
                int from, int to) {
	struct row rows[GOLDEN_ROWS];
	CHECK(from < to && to - from <= GOLDEN_ROWS);
	for (int i = from; i < to; i++)
		rows[i - from] = (struct row){
			.sequence = s, .stack = stack, .token = tokens[i], .position = i
		};
	step_run(g->w, rows, to - from);
}

void golden_encode(struct golden *g, struct sequence *s, const int32_t *tokens, int n) {
	step(g, s, STACK_ENCODER, tokens, 0, n);
}

const float *golden_decode(
                struct golden *g, struct sequence *s, const int32_t *tokens, int from, int to) {
	int indices[GOLDEN_ROWS];
	step(g, s, STACK_DECODER, tokens, from, to);
	for (int i = 0; i < to - from; i++)
		indices[i] = i;
	return step_logits(g->w, indices, to - from);
}

int golden_each_folder(const char *file, const struct ops *ops,
                void (*fn)(struct golden *g, const char *where, const struct doc *goldens)) {
	DIR *data = opendir(check_data(""));
	CHECK(data);
	int folders = 0;
	for (struct dirent *entry; (entry = readdir(data));) {
		char name[300], where[400], err[400] = "";
		snprintf(name, sizeof name, "%.255s/%s", entry->d_name, file);
		if (entry->d_name[0] == '.' || access(check_data(name), R_OK) != 0)
			continue;
		size_t len;
		char *text = check_read_file(check_data(name), &len);
		struct doc *goldens = doc_parse(text, len, file, err, sizeof err);
		if (!goldens)
			check_fail(__FILE__, __LINE__, "%s: %s", name, err);
		struct golden g = golden_open(check_data(entry->d_name), ops);
		snprintf(where, sizeof where, "%s, kernels %s", entry->d_name, ops->name);
		fn(&g, where, goldens);
		golden_close(&g);
		doc_free(goldens);
		free(text);
		folders++;
	}
	closedir(data);
	return folders;
}
