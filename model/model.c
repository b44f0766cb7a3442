/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model folder: its facts, tokenizer, weights and what tools have measured about it. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/doc.h"
#include "model/file.h"
#include "model/labels.h"
#include "model/sidecar.h"

enum { MAX_JSON = 1 << 20 };

/* ---- the folder's parts; each returns false with a sentence that starts with the file's name ---- */

/* The folder's base name: of "a/b///" it is "b". */
static void set_base_name(const char *dir, char *name, size_t size) {
	size_t end = strlen(dir);
	while (end > 1 && dir[end - 1] == '/')
		end--;
	size_t start = end;
	while (start > 0 && dir[start - 1] != '/')
		start--;
	snprintf(name, size, "%.*s", (int)(end - start), dir + start);
}

/* "." and ".." have no name of their own: the real path has. */
static void set_name(struct model *m, const char *dir) {
	set_base_name(dir, m->name, sizeof m->name);
	if (strcmp(m->name, ".") != 0 && strcmp(m->name, "..") != 0)
		return;
	char *path = realpath(dir, NULL);
	if (path)
		set_base_name(path, m->name, sizeof m->name);
	free(path);
}

/* Our own keys, which any family's config.json may carry. */
static bool read_own_keys(struct model *m, const char *json, size_t len, char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "config.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = {
		.object = doc, .file = "config.json", .err = err, .errlen = errlen
	};
	const char *name = doc_read_string(&r, "fathom_name", m->name);
	const char *note = doc_read_string(&r, "fathom_note", "");
	/* Clients write NAME@6 for depth 6. */
	if (strlen(name) == 0 || strlen(name) >= sizeof m->name
	                || (name != m->name && strpbrk(name, "@ \t\r\n")))
		doc_fail(&r,
		                "\"fathom_name\" must be 1 to %zu bytes long, without \"@\" and "
		                "spaces",
		                sizeof m->name - 1);
	if (strlen(note) >= sizeof m->note)
		doc_fail(&r, "\"fathom_note\" must be at most %zu bytes long", sizeof m->note - 1);
	if (!r.failed) {
		memmove(m->name, name, strlen(name) + 1);
		memcpy(m->note, note, strlen(note) + 1);
	}
	doc_free(doc);
	return !r.failed;
}

static bool read_config(struct model *m, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *json = file_read(dir, "config.json", MAX_JSON, &len, err, errlen);
	if (!json)
		return false;
	bool ok = facts_parse(json, len, &m->facts, err, errlen)
	                && read_own_keys(m, json, len, err, errlen)
	                && labels_parse(json, len, &m->facts, &m->labels, err, errlen);
	free(json);
	return ok;
}

/* A file that may be absent: then *ret_json is NULL. */
static bool read_optional(const char *dir, const char *name, char **ret_json, size_t *ret_len,
                char *err, size_t errlen) {
	*ret_json = NULL;
	*ret_len = 0;
	if (!file_exists(dir, name))
		return true;
	*ret_json = file_read(dir, name, MAX_JSON, ret_len, err, errlen);
	return *ret_json != NULL;
}

static bool read_generation(struct model *m, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *json;
	bool old = m->facts.kind == KIND_SEQ2SEQ && !file_exists(dir, "generation_config.json");
	const char *file = old ? "config.json" : "generation_config.json";
	if (!read_optional(dir, file, &json, &len, err, errlen))
		return false;
	bool ok = (old ? facts_parse_old_generation : facts_parse_generation)(
	                json, len, &m->facts, &m->defaults, err, errlen);
	free(json);
	return ok;
}

/* What sentence-transformers add to a folder of an encoder. */
static bool read_pooling(struct model *m, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *json;
	if (m->facts.kind != KIND_ENCODER)
		return true;
	if (file_exists(dir, "2_Dense")) {
		snprintf(err, errlen, "2_Dense: the engine computes no projection after pooling");
		return false;
	}
	if (!read_optional(dir, "1_Pooling/config.json", &json, &len, err, errlen))
		return false;
	bool ok = !json || facts_parse_pooling(json, len, &m->facts, err, errlen);
	free(json);
	return ok;
}

/* Layers of each stack. */
static void count_layers(const struct model *m, int layers[STACKS]) {
	for (int s = 0; s < STACKS; s++)
		layers[s] = m->facts.stack[s].layers;
}

static bool read_quality_file(struct model *m, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *json;
	int layers[STACKS];
	count_layers(m, layers);
	if (!read_optional(dir, "quality.json", &json, &len, err, errlen))
		return false;
	bool ok = !json
	                || quality_parse(
	                                json, len, layers, &m->quality, &m->n_quality, err, errlen);
	free(json);
	return ok;
}

static bool read_plans_file(struct model *m, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *json;
	int layers[STACKS];
	count_layers(m, layers);
	if (!read_optional(dir, "plans.json", &json, &len, err, errlen))
		return false;
	bool ok = !json || plans_parse(json, len, layers, &m->tuned, &m->n_tuned, err, errlen);
	free(json);
	if (ok && m->facts.plan_rule == PLAN_RULE_TUNED && m->n_tuned == 0) {
		snprintf(err, errlen,
		                "config.json: \"fathom_plan_rule\" is \"tuned\", but plans.json "
		                "lists no plan");
		return false;
	}
	return ok;
}

static bool fits(const struct tokenizer *t, int vocab, const char *key, char *err, size_t errlen) {
	if (tokenizer_size(t) <= vocab)
		return true;
	snprintf(err, errlen, "config.json: \"%s\" is %d, but the tokenizer knows ids up to %d",
	                key, vocab, tokenizer_size(t) - 1);
	return false;
}

/* Hugging Face's config.json does not say which token is the mask; its tokenizers know two names. */
static int32_t find_mask(const struct tokenizer *t) {
	static const char *const names[] = { "<mask>", "[MASK]" };
	for (int32_t id = tokenizer_size(t) - 1; id >= 0; id--) {
		size_t len;
		const char *bytes =
		                tokenizer_is_special(t, id) ? tokenizer_bytes(t, id, &len) : NULL;
		for (int i = 0; bytes && i < 2; i++) {
			if (len == strlen(names[i]) && memcmp(bytes, names[i], len) == 0)
				return id;
		}
	}
	return -1;
}

static bool open_tokenizers(struct model *m, const char *dir, char *err, size_t errlen) {
	m->tokenizer = tokenizer_open(dir, err, errlen);
	if (!m->tokenizer)
		return false;
	m->target_tokenizer = m->tokenizer;
	if (m->facts.mlm_head && m->facts.mask < 0)
		m->facts.mask = find_mask(m->tokenizer);
	if (m->facts.kind != KIND_SEQ2SEQ)
		return fits(m->tokenizer, m->facts.vocab, "vocab_size", err, errlen);
	/* fairseq ends every source so; other families' tokenizer files say what they do. */
	if (m->facts.family == FAMILY_FATHOM_SEQ2SEQ)
		tokenizer_end_with(m->tokenizer, m->facts.eos);
	struct tokenizer *target = tokenizer_open_target(dir, err, errlen);
	if (target)
		m->target_tokenizer = target;
	else if (err[0])
		return false;
	return fits(m->tokenizer, m->facts.stack[STACK_ENCODER].vocab, "source_vocab_size", err,
	                       errlen)
	                && fits(m->target_tokenizer, m->facts.vocab, "vocab_size", err, errlen);
}

/* ---- the model ---- */

static bool open_parts(struct model *m, const char *dir, const struct model_options *options,
                char *err, size_t errlen) {
	set_name(m, dir);
	m->ops = options->ops;
	/* The weights last: they take the longest, and everything else can be refused before. */
	if (!read_config(m, dir, err, errlen) || !read_generation(m, dir, err, errlen)
	                || !read_pooling(m, dir, err, errlen)
	                || !read_quality_file(m, dir, err, errlen)
	                || !read_plans_file(m, dir, err, errlen)
	                || !open_tokenizers(m, dir, err, errlen))
		return false;
	if (options->without_weights)
		return true;
	struct weights_options how = { .ops = m->ops,
		.format = options->weights,
		.threads = options->threads,
		.packed = options->packed,
		.progress = options->progress,
		.progress_arg = options->progress_arg };
	if (!weights_load(dir, &m->facts, &how, &m->weights, err, errlen))
		return false;
	snprintf(m->dtype, sizeof m->dtype, "%s", m->weights.dtype);
	return true;
}

/* People who have a fairseq checkpoint have one file, or a folder around it. */
static bool is_folder(const char *dir, char *err, size_t errlen) {
	static const char *const names[] = { "model.pt", "checkpoint.pt", "checkpoint_best.pt" };
	struct stat st;
	if (stat(dir, &st) == 0 && S_ISREG(st.st_mode)) {
		snprintf(err, errlen,
		                "a file, not a model folder: if fairseq wrote it, convert it with "
		                "tools/convert_fairseq.py %s --out NEW",
		                dir);
		return false;
	}
	for (size_t i = 0; !file_exists(dir, "config.json") && i < sizeof names / sizeof *names;
	                i++) {
		if (!file_exists(dir, names[i]))
			continue;
		snprintf(err, errlen,
		                "config.json: absent: convert fairseq's %s with "
		                "tools/convert_fairseq.py %s/%s --out NEW",
		                names[i], dir, names[i]);
		return false;
	}
	return true;
}

struct model *model_open(
                const char *dir, const struct model_options *options, char *err, size_t errlen) {
	char why[400];
	struct model *m = calloc(1, sizeof *m);
	if (!m) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	if (is_folder(dir, why, sizeof why) && open_parts(m, dir, options, why, sizeof why))
		return m;
	model_close(m);
	snprintf(err, errlen, "%s: %s", dir, why);
	return NULL;
}

void model_close(struct model *model) {
	if (!model)
		return;
	weights_finish(&model->weights);
	if (model->target_tokenizer != model->tokenizer)
		tokenizer_close(model->target_tokenizer);
	tokenizer_close(model->tokenizer);
	labels_free(model->labels, &model->facts);
	free(model->quality);
	free(model->tuned);
	free(model);
}

bool model_keep_packed(const struct model *model, const char *dir, bool (*go_on)(void *arg),
                void *arg, char *err, size_t errlen) {
	return weights_keep(&model->weights, model->ops, dir, go_on, arg, err, errlen);
}

const char *model_arithmetic(const struct model *model) {
	return model->ops->formats[model->weights.format].arithmetic;
}

bool model_exact(const struct model *model) {
	bool rounds = model->weights.format == WEIGHTS_BF16
	                && model->ops->formats[WEIGHTS_BF16].input;
	return model->ops->exact && !rounds;
}

enum kv_format model_kv_format(const struct model *model, enum kv_format wanted) {
	if (wanted != KV_AUTO)
		return wanted;
	return model->weights.format == WEIGHTS_F32 ? KV_F32 : KV_BF16;
}

enum stack model_main_stack(const struct model *model) {
	return model->facts.stack[STACK_DECODER].layers > 0 ? STACK_DECODER : STACK_ENCODER;
}

int model_layers(const struct model *model) {
	return model->facts.stack[model_main_stack(model)].layers;
}

bool model_subnet(const struct model *model, enum plan_rule rule, int depth,
                struct subnet *ret_subnet) {
	const struct stack_facts *stack = model->facts.stack;
	int depths[STACKS] = { stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers };
	depths[model_main_stack(model)] = depth;
	return model_subnet_pair(model, rule, depths, ret_subnet);
}

/* The plan file's entry with these depths, of the stacks that the model has. */
static const struct subnet *tuned_pair(const struct model *model, const int depth[STACKS]) {
	for (size_t i = 0; i < model->n_tuned; i++) {
		bool same = true;
		for (int s = 0; s < STACKS; s++)
			same = same
			                && (model->facts.stack[s].layers == 0
			                                || model->tuned[i].stack[s].depth
			                                                == depth[s]);
		if (same)
			return &model->tuned[i];
	}
	return NULL;
}

bool model_subnet_pair(const struct model *model, enum plan_rule rule, const int depth[STACKS],
                struct subnet *ret_subnet) {
	const struct stack_facts *stack = model->facts.stack;
	if (rule == PLAN_RULE_LAYERS)
		return false;
	for (int s = 0; s < STACKS; s++) {
		if (stack[s].layers > 0 && (depth[s] < 1 || depth[s] > stack[s].layers))
			return false;
	}
	if (rule == PLAN_RULE_TUNED) {
		const struct subnet *tuned = tuned_pair(model, depth);
		if (tuned)
			*ret_subnet = *tuned;
		return tuned != NULL;
	}
	memset(ret_subnet, 0, sizeof *ret_subnet);
	for (int s = 0; s < STACKS; s++) {
		if (stack[s].layers > 0)
			plan_by_rule(rule, stack[s].layers, depth[s], &ret_subnet->stack[s]);
	}
	return true;
}

static size_t matrix_size(const struct model *model, const struct matrix *m) {
	return m->data ? model->ops->formats[m->format].matrix_bytes(m->n_out, m->n_in) : 0;
}

/* Of a seq2seq's layer, what is read once per source and not in every step. */
static size_t source_bytes(const struct model *model) {
	const struct layer_weights *layer = model->weights.stack[STACK_DECODER].layers;
	return model->facts.kind == KIND_SEQ2SEQ ? matrix_size(model, &layer->cross_kv.w) : 0;
}

size_t model_subnet_bytes(const struct model *model, const struct subnet *subnet) {
	const struct weights *w = &model->weights;
	const struct adaptive_weights *a = &w->adaptive;
	enum stack speaks = model_main_stack(model);
	size_t bytes = matrix_size(model, &w->output.w) + matrix_size(model, &a->words.w)
	                + matrix_size(model, &a->classes.w);
	for (int b = 0; b + 1 < model->facts.output.n; b++)
		bytes += matrix_size(model, &a->reduce[b].w) + matrix_size(model, &a->tail[b].w);
	size_t layer = w->layer_bytes[speaks] - source_bytes(model);
	return bytes + (size_t)subnet->stack[speaks].depth * layer;
}
