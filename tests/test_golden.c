/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine against a program that shares no code with it: tests/data/FOLDER/goldens.json was
 * written by tools/reference.py (PyTorch) for every depth. Logits and log-probabilities must agree
 * within 1e-4, greedy tokens exactly, at every level of this processor and with OpenBLAS.
 *
 * And against itself: a plan of the full folder must equal, bit for bit, the full depth of a folder
 * that tests/prune_folders.py pruned to that plan.
 */
#include <dirent.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/doc.h"
#include "model/model.h"
#include "model/sample.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random_model.h"

enum { MAX_ROWS = 64 };
static const double tolerance = 1e-4;

struct engine {
	struct model *model;
	struct team *team;
	struct workspace *w;
	struct sampler *sampler;
};

static struct engine start(const char *dir, const struct ops *ops) {
	char err[400] = "";
	struct engine e = { .model = model_open(dir,
		                            &(struct model_options){ .ops = ops, .threads = 2 },
		                            err, sizeof err) };
	if (e.model)
		e.team = team_create(2, err, sizeof err);
	if (e.team)
		e.w = workspace_create(e.model,
		                &(struct workspace_options){ .team = e.team,
		                                .max_rows = MAX_ROWS,
		                                .max_logit_rows = MAX_ROWS,
		                                .max_sequences = 1,
		                                .kv_bytes = 16 << 20 },
		                err, sizeof err);
	if (e.w)
		e.sampler = sampler_create(ops, e.model->facts.vocab, err, sizeof err);
	if (!e.sampler)
		check_fail(__FILE__, __LINE__, "%s: %s", dir, err);
	return e;
}

static void stop(struct engine *e) {
	sampler_destroy(e->sampler);
	workspace_destroy(e->w);
	team_destroy(e->team);
	model_close(e->model);
}

/* Runs tokens[from..to) and returns the logits of all of them, one row after another. */
static const float *run(
                struct engine *e, struct sequence *s, const int32_t *tokens, int from, int to) {
	struct row rows[MAX_ROWS];
	int indices[MAX_ROWS] = { 0 };
	for (int i = from; i < to; i++) {
		indices[i - from] = i - from;
		rows[i - from] = (struct row){
			.sequence = s, .stack = STACK_DECODER, .token = tokens[i], .position = i
		};
	}
	step_run(e->w, rows, to - from);
	return step_logits(e->w, indices, to - from);
}

/* An array of numbers of a golden case. */
static double number(const struct doc *c, const char *key, size_t i) {
	double value;
	if (!doc_as_number(doc_at(doc_get(c, key), i), &value))
		check_fail(__FILE__, __LINE__, "goldens.json has no %s[%zu]", key, i);
	return value;
}

static void check_near(const char *where, const char *what, double actual, double wanted) {
	if (!(fabs(actual - wanted) <= tolerance))
		check_fail(__FILE__, __LINE__, "%s: %s is %.7g, PyTorch says %.7g", where, what,
		                actual, wanted);
}

static void check_case(struct engine *e, const char *where, const struct doc *c) {
	int64_t layers[MAX_LAYERS];
	int32_t tokens[MAX_ROWS];
	size_t depth = doc_count(doc_get(c, "layers")), n = doc_count(doc_get(c, "tokens"));
	size_t more = doc_count(doc_get(c, "greedy"));
	CHECK(depth >= 1 && depth <= MAX_LAYERS && n >= 2 && more >= 1 && n + more <= MAX_ROWS);
	for (size_t i = 0; i < depth; i++)
		layers[i] = (int64_t)number(c, "layers", i);
	for (size_t i = 0; i < n; i++)
		tokens[i] = (int32_t)number(c, "tokens", i);

	struct plan plan;
	char err[200];
	CHECK(plan_from_list(model_layers(e->model), layers, depth, &plan, err, sizeof err));
	struct subnet subnet = random_model_subnet(&plan);
	struct sequence *s = sequence_open(e->w, &subnet, (int)(n + more));
	CHECK(s);

	const float *logits = run(e, s, tokens, 0, (int)n);
	size_t stride = step_logits_stride(e->w);
	for (size_t i = 0; i + 1 < n; i++) {
		float logprob;
		CHECK(sample_logprobs(e->sampler, logits + i * stride, tokens[i + 1], 0, &logprob,
		                NULL, NULL));
		check_near(where, "a log-probability", (double)logprob, number(c, "logprobs", i));
	}
	CHECK_INT(doc_count(doc_get(c, "logits_last")), e->model->facts.vocab);
	logits += (n - 1) * stride;
	for (int i = 0; i < e->model->facts.vocab; i++)
		check_near(where, "a logit", (double)logits[i],
		                number(c, "logits_last", (size_t)i));

	struct sampling greedy = { .top_p = 1, .repetition_penalty = 1 };
	for (size_t i = 0; i < more; i++) {
		CHECK(sample_token(e->sampler, logits, &greedy, NULL, 0, NULL, 0, 0, 0,
		                &tokens[n + i]));
		CHECK_INT(tokens[n + i], (int32_t)number(c, "greedy", i));
		logits = run(e, s, tokens, (int)(n + i), (int)(n + i) + 1);
	}
	sequence_close(e->w, s);
}

static void check_folder(const char *name, const struct ops *ops) {
	char dir[1024], path[1100], where[512], err[400] = "";
	snprintf(dir, sizeof dir, "%s", check_data(name));
	snprintf(path, sizeof path, "%s/goldens.json", dir);
	size_t len;
	char *text = check_read_file(path, &len);
	struct doc *goldens = doc_parse(text, len, "goldens.json", err, sizeof err);
	if (!goldens)
		check_fail(__FILE__, __LINE__, "%s", err);
	struct engine e = start(dir, ops);
	const struct doc *cases = doc_get(goldens, "cases");
	CHECK(doc_count(cases) > 0);
	for (size_t i = 0; i < doc_count(cases); i++) {
		snprintf(where, sizeof where, "%s, case %zu, kernels %s", name, i, ops->name);
		check_case(&e, where, doc_at(cases, i));
	}
	stop(&e);
	doc_free(goldens);
	free(text);
}

/* Calls check_folder for every folder of tests/data that has goldens. */
static void check_all_folders(const struct ops *ops) {
	DIR *data = opendir(check_data(""));
	CHECK(data);
	int folders = 0;
	for (struct dirent *entry; (entry = readdir(data));) {
		char name[300];
		snprintf(name, sizeof name, "%.255s/goldens.json", entry->d_name);
		if (entry->d_name[0] == '.' || access(check_data(name), R_OK) != 0)
			continue;
		check_folder(entry->d_name, ops);
		folders++;
	}
	closedir(data);
	CHECK(folders >= 4);
}

TEST(plain_c_agrees_with_pytorch_at_every_depth) {
	check_all_folders(ops_c());
}

TEST(every_level_of_the_processor_agrees_with_pytorch) {
	const struct ops *tables[4];
	int n = random_model_tables(tables);
	if (n == 1)
		SKIP("this machine has no level above plain C");
	for (int t = 1; t < n; t++)
		check_all_folders(tables[t]);
}

TEST(openblas_agrees_with_pytorch) {
	if (!ops_blas())
		SKIP("built without OpenBLAS");
	check_all_folders(ops_blas());
}

/* Logits of a text, all rows, at a plan; malloc'd. */
static float *score(const char *dir, const struct plan *plan, const int32_t *tokens, int n,
                int *ret_vocab) {
	const struct ops *tables[4];
	int n_tables = random_model_tables(tables);
	struct engine e = start(dir, tables[n_tables - 1]);
	struct plan full;
	plan_by_rule(PLAN_RULE_PREFIX, model_layers(e.model), model_layers(e.model), &full);
	struct subnet subnet = random_model_subnet(plan ? plan : &full);
	struct sequence *s = sequence_open(e.w, &subnet, n);
	CHECK(s);
	const float *logits = run(&e, s, tokens, 0, n);
	size_t vocab = (size_t)e.model->facts.vocab;
	float *copy = malloc((size_t)n * vocab * sizeof *copy);
	CHECK(copy);
	for (int i = 0; i < n; i++)
		memcpy(copy + (size_t)i * vocab, logits + (size_t)i * step_logits_stride(e.w),
		                vocab * sizeof *copy);
	*ret_vocab = (int)vocab;
	stop(&e);
	return copy;
}

/* The kept layers are the name of a pruned folder: "0-2-5". */
static void check_pruned(const char *full_dir, const char *out, const char *name, int layers) {
	struct plan plan = { .of = layers };
	for (const char *p = name; *p; p += *p == '-')
		plan.layers[plan.depth++] = (int16_t)strtol(p, (char **)&p, 10);
	char dir[1024];
	snprintf(dir, sizeof dir, "%s/%s", out, name);
	int32_t tokens[24];
	for (int i = 0; i < 24; i++)
		tokens[i] = (i * i * 7 + i * 31 + 5) % 290;
	int vocab = 0, pruned_vocab = 0;
	float *a = score(full_dir, &plan, tokens, 24, &vocab);
	float *b = score(dir, NULL, tokens, 24, &pruned_vocab);
	CHECK_INT(vocab, pruned_vocab);
	if (memcmp(a, b, 24 * (size_t)vocab * sizeof *a) != 0)
		check_fail(__FILE__, __LINE__, "%s: layers %s differ from the pruned folder",
		                full_dir, name);
	free(a);
	free(b);
}

static void check_pruned_folders(const char *name) {
	char dir[1024], script[1024], command[4096], err[400];
	snprintf(dir, sizeof dir, "%s", check_data(name));
	snprintf(script, sizeof script, "%s", check_data("../prune_folders.py"));
	char *out = folder_create();
	snprintf(command, sizeof command, "python3 '%s' '%s' '%s'", script, dir, out);
	int status = system(command);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		folder_remove(out);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
			SKIP("needs python3, to write the pruned folders");
		check_fail(__FILE__, __LINE__, "%s failed", command);
	}
	struct model *model = model_open(dir,
	                &(struct model_options){ .ops = ops_c(), .threads = 1 }, err, sizeof err);
	CHECK(model);
	int layers = model_layers(model), folders = 0;
	model_close(model);
	DIR *pruned = opendir(out);
	CHECK(pruned);
	for (struct dirent *entry; (entry = readdir(pruned));) {
		if (entry->d_name[0] == '.')
			continue;
		check_pruned(dir, out, entry->d_name, layers);
		folders++;
	}
	closedir(pruned);
	folder_remove(out);
	CHECK(folders > layers);
}

TEST(a_plan_of_an_opt_folder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-opt");
}

TEST(a_plan_of_a_gpt2_folder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-gpt2");
}

TEST(a_plan_of_a_post_norm_folder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-fathom-sin-post");
}
