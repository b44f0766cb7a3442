/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan of a folder must equal, bit for bit, the full depth of a folder that tests/prune_folders.py
 * pruned to that plan: in all families, with both stacks pruned, and in every format of weights.
 */
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"
#include "tests/folder.h"
#include "tests/golden.h"
#include "tests/random_model.h"

enum { TOKENS = 24 };

/* Some text: a subnet of `name` as prune_folders.py names a folder: "0-2-5", or "0-2+1" for both
 * stacks. Without a name all layers are kept. */
static struct subnet subnet_of(const struct model *model, const char *name) {
	struct subnet subnet = { 0 };
	int s = model->facts.stack[STACK_ENCODER].layers ? STACK_ENCODER : STACK_DECODER;
	for (int i = 0; i < STACKS; i++) {
		int layers = model->facts.stack[i].layers;
		if (layers > 0)
			plan_by_rule(PLAN_RULE_PREFIX, layers, layers, &subnet.stack[i]);
		if (name)
			subnet.stack[i].depth = 0;
	}
	for (const char *p = name; p && *p; p++) {
		struct plan *plan = &subnet.stack[s];
		plan->layers[plan->depth++] = (int16_t)strtol(p, (char **)&p, 10);
		s += *p == '+';
		if (!*p)
			break;
	}
	return subnet;
}

/* What comes out of a text: of an encoder all states, else all scores. malloc'd; *ret_n floats. */
static float *results(const char *dir, const char *name, enum weight_format format, size_t *ret_n) {
	const struct ops *tables[CPU_LEVELS + 1];
	int n_tables = random_model_tables(tables);
	struct golden g = golden_open_as(dir, tables[n_tables - 1], format);
	const struct facts *facts = &g.model->facts;
	struct subnet subnet = subnet_of(g.model, name);
	bool encoder = facts->stack[STACK_ENCODER].layers > 0;
	bool decoder = facts->stack[STACK_DECODER].layers > 0;
	int32_t tokens[TOKENS];
	for (int i = 0; i < TOKENS; i++)
		tokens[i] = (i * i * 7 + i * 31 + 5) % (facts->vocab - 10);
	struct sequence *s = sequence_open_source(
	                g.w, &subnet, decoder ? TOKENS : 0, encoder ? TOKENS : 0);
	CHECK(s);
	if (encoder)
		golden_encode(&g, s, tokens, TOKENS);
	size_t width = (size_t)(decoder ? facts->vocab : facts->stack[STACK_ENCODER].dim);
	float *copy = malloc(TOKENS * width * sizeof *copy);
	CHECK(copy);
	const float *scores = decoder ? golden_decode(&g, s, tokens, 0, TOKENS) : NULL;
	for (int i = 0; i < TOKENS; i++)
		memcpy(copy + (size_t)i * width,
		                decoder ? scores + (size_t)i * step_logits_stride(g.w)
		                        : step_hidden(g.w, i),
		                width * sizeof *copy);
	sequence_close(g.w, s);
	golden_close(&g);
	*ret_n = TOKENS * width;
	return copy;
}

static void check_pruned(const char *full_dir, const char *out, const char *name,
                enum weight_format format) {
	char dir[1024];
	snprintf(dir, sizeof dir, "%s/%s", out, name);
	size_t n, n_pruned;
	float *a = results(full_dir, name, format, &n), *b = results(dir, NULL, format, &n_pruned);
	CHECK_INT(n, n_pruned);
	if (memcmp(a, b, n * sizeof *a) != 0)
		check_fail(__FILE__, __LINE__, "%s: layers %s differ from the pruned folder in %s",
		                full_dir, name, weight_format_name(format));
	free(a);
	free(b);
}

static void check_pruned_folders(const char *name) {
	char dir[1024], script[1024], command[4096];
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
	int folders = 0;
	DIR *pruned = opendir(out);
	CHECK(pruned);
	for (struct dirent *entry; (entry = readdir(pruned));) {
		if (entry->d_name[0] == '.')
			continue;
		for (int f = 0; f < WEIGHT_FORMATS; f++)
			check_pruned(dir, out, entry->d_name, (enum weight_format)f);
		folders++;
	}
	closedir(pruned);
	folder_remove(out);
	CHECK(folders > 5);
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

TEST(a_plan_of_an_adaptive_folder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-lm-adaptive");
}

TEST(a_plan_of_an_encoder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-encoder");
}

TEST(a_subnet_of_a_post_norm_encoder_decoder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-mt-post");
}

TEST(a_subnet_of_a_pre_norm_encoder_decoder_equals_the_folder_pruned_to_it) {
	check_pruned_folders("tiny-mt-pre");
}
