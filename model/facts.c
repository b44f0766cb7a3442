/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: config.json and generation_config.json into the terms of the one parametrised block.
 *
 * One reader per family; each key's default is the one that the family's own library has. What the
 * engine would compute differently from that library is refused here, by name.
 */
#include "model/facts.h"

#include <stdio.h>
#include <string.h>

#include "model/doc.h"

enum {
	MAX_DIM = 65536,
	MAX_FFN = 4 * MAX_DIM,
	MAX_VOCAB = 4 << 20,
	MAX_CONTEXT = 1 << 20,
	MAX_OFFSET = 1024,
};

/* Sinusoids are computed, so no file bounds them: at most 1 GiB of them. */
#define MAX_SINUSOIDS ((uint64_t)1 << 28)

/* ---- words ---- */

static bool read_activation(struct doc_reader *r, const char *fallback, enum activation *ret) {
	static const struct {
		const char *name;
		enum activation activation;
	} known[] = {
		{ "relu", ACTIVATION_RELU },
		{ "gelu", ACTIVATION_GELU },
		{ "gelu_python", ACTIVATION_GELU },
		{ "gelu_tanh", ACTIVATION_GELU_TANH },
		{ "gelu_new", ACTIVATION_GELU_TANH },
		{ "gelu_fast", ACTIVATION_GELU_TANH },
		{ "gelu_pytorch_tanh", ACTIVATION_GELU_TANH },
		{ "gelu_python_tanh", ACTIVATION_GELU_TANH },
		{ "gelu_accurate", ACTIVATION_GELU_TANH },
	};
	const char *name = doc_read_string(r, "activation_function", fallback);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strcmp(name, known[i].name) == 0) {
			*ret = known[i].activation;
			return true;
		}
	}
	char shown[40];
	doc_fail(r,
	                "\"activation_function\" is \"%s\"; relu, gelu, gelu_new and gelu_tanh are "
	                "known",
	                doc_printable(name, shown, sizeof shown));
	return false;
}

/* Index of the string member among `words`; `fallback` if it is absent. */
static int read_word(struct doc_reader *r, const char *key, const char *const *words, int n_words,
                int fallback) {
	const char *word = doc_read_string(r, key, words[fallback]);
	for (int i = 0; i < n_words; i++) {
		if (strcmp(word, words[i]) == 0)
			return i;
	}
	char shown[40], list[80];
	size_t used = 0;
	for (int i = 0; i < n_words; i++)
		used += (size_t)snprintf(
		                list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
	doc_fail(r, "\"%s\" is \"%s\", not one of %s", key,
	                doc_printable(word, shown, sizeof shown), list);
	return fallback;
}

/* Refuses `key` unless it has the one value that the engine computes. */
static void only(struct doc_reader *r, const char *key, bool value) {
	if (doc_read_bool(r, key, value) != value)
		doc_fail(r, "\"%s\" must be %s: the engine computes nothing else", key,
		                value ? "true" : "false");
}

/* Whether a member asks for something: not absent, null, false, 0 or empty. */
static bool asks(const struct doc *value) {
	bool flag;
	double number;
	size_t len;
	switch (doc_kind(value)) {
	case DOC_ABSENT:
	case DOC_NULL:
		return false;
	case DOC_BOOL:
		return doc_as_bool(value, &flag) && flag;
	case DOC_INT:
	case DOC_REAL:
		return doc_as_number(value, &number) && number != 0;
	case DOC_STRING:
		return doc_as_string(value, &len) && len > 0;
	case DOC_ARRAY:
	case DOC_OBJECT:
		return doc_count(value) > 0;
	}
	return true;
}

/* Options of other architectures that sometimes find their way into these families' folders. */
static void refuse_foreign_options(struct doc_reader *r) {
	static const char *const foreign[] = {
		"quantization_config",
		"sliding_window",
		"attention_window",
		"attention_types",
		"rope_theta",
		"rope_scaling",
		"rope_parameters",
		"rotary_dim",
		"rotary_pct",
		"partial_rotary_factor",
		"alibi",
		"is_encoder_decoder",
		"add_cross_attention",
		"pruned_heads",
		"num_experts",
		"num_local_experts",
		"adaptive_input",
		"adaptive_softmax_cutoff",
	};
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
		if (asks(doc_get(r->object, foreign[i])))
			doc_fail(r, "\"%s\" asks for something that the engine cannot do",
			                foreign[i]);
	}
}

/* ---- token ids ---- */

/*
 * GPT2Config's own id of both symbols stays behind in many a folder whose vocabulary is smaller;
 * there it names no token, and no token is ever it.
 */
static int32_t read_token(struct doc_reader *r, const char *key, const struct facts *facts) {
	const int last = facts->vocab - 1, gpt2_default = 50256;
	bool lenient = facts->family == FAMILY_GPT2 && last < gpt2_default;
	int64_t id = doc_read_int(r, key, -1, lenient ? gpt2_default : last, -1);
	return id > last ? -1 : (int32_t)id;
}

static bool add_eos(struct facts *facts, int32_t id) {
	if (id < 0 || id == facts->eos)
		return true;
	if (facts->eos < 0) {
		facts->eos = id;
		return true;
	}
	for (int i = 0; i < facts->n_eos; i++) {
		if (facts->eos_ids[i] == id)
			return true;
	}
	if (facts->n_eos == (int)(sizeof facts->eos_ids / sizeof *facts->eos_ids))
		return false;
	facts->eos_ids[facts->n_eos++] = id;
	return true;
}

/* eos_token_id: one id or a list of them. */
static void read_eos(struct doc_reader *r, struct facts *facts) {
	const struct doc *value = doc_get(r->object, "eos_token_id");
	if (doc_kind(value) != DOC_ARRAY) {
		if (!add_eos(facts, read_token(r, "eos_token_id", facts)))
			doc_fail(r, "\"eos_token_id\" is one end symbol too many");
		return;
	}
	for (size_t i = 0; i < doc_count(value); i++) {
		int64_t id;
		if (!doc_as_int(doc_at(value, i), &id) || id < 0 || id >= facts->vocab) {
			doc_fail(r, "\"eos_token_id\" must hold whole numbers from 0 to %d",
			                facts->vocab - 1);
			return;
		}
		if (!add_eos(facts, (int32_t)id)) {
			doc_fail(r, "\"eos_token_id\" lists more than %zu end symbols",
			                1 + sizeof facts->eos_ids / sizeof *facts->eos_ids);
			return;
		}
	}
}

static void read_tokens(struct doc_reader *r, struct facts *facts) {
	facts->eos = -1;
	facts->bos = read_token(r, "bos_token_id", facts);
	read_eos(r, facts);
	/* Fine-tunes often name a padding id beyond the table; the engine never looks it up. */
	facts->pad = (int32_t)doc_read_int(r, "pad_token_id", -1, INT32_MAX, -1);
	if (facts->pad >= facts->vocab)
		facts->pad = -1;
}

/* ---- families ---- */

static void read_opt(struct doc_reader *r, struct facts *facts, struct stack_facts *s) {
	s->dim = (int)doc_need_int(r, "hidden_size", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "num_hidden_layers", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "num_attention_heads", 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, "ffn_dim", 1, MAX_FFN);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	if (doc_read_int(r, "word_embed_proj_dim", 1, MAX_DIM, s->dim) != s->dim)
		doc_fail(r,
		                "\"word_embed_proj_dim\" must equal \"hidden_size\": projected "
		                "embeddings are not supported");
	only(r, "enable_bias", true);
	only(r, "layer_norm_elementwise_affine", true);
	bool pre = doc_read_bool(r, "do_layer_norm_before", true);
	s->norm = pre ? NORM_PRE : NORM_POST;
	s->final_norm = pre && !doc_read_bool(r, "_remove_final_layer_norm", false);
	read_activation(r, "relu", &s->activation);
	s->norm_eps = 1e-5f;
	s->positions = POSITIONS_LEARNED;
	s->position_offset = 2;
	s->embed_scale = 1;
}

static void read_gpt2(struct doc_reader *r, struct facts *facts, struct stack_facts *s) {
	s->dim = (int)doc_need_int(r, "n_embd", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "n_layer", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "n_head", 1, MAX_DIM);
	s->ffn = (int)doc_read_int(r, "n_inner", 1, MAX_FFN, 4 * (int64_t)s->dim);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	bool has_positions = doc_kind(doc_get(r->object, "n_positions")) != DOC_ABSENT;
	const char *positions = has_positions ? "n_positions" : "n_ctx";
	facts->context = (int)doc_need_int(r, positions, 1, MAX_CONTEXT);
	only(r, "scale_attn_weights", true);
	only(r, "scale_attn_by_inverse_layer_idx", false);
	s->norm = NORM_PRE;
	s->final_norm = true;
	read_activation(r, "gelu_new", &s->activation);
	s->norm_eps = (float)doc_read_number(r, "layer_norm_epsilon", 0, 1, 1e-5);
	s->positions = POSITIONS_LEARNED;
	s->embed_scale = 1;
}

static void read_fathom_lm(struct doc_reader *r, struct facts *facts, struct stack_facts *s) {
	static const char *const norms[] = { [NORM_PRE] = "pre", [NORM_POST] = "post" };
	static const char *const positions[] = { [POSITIONS_NONE] = "none",
		[POSITIONS_LEARNED] = "learned",
		[POSITIONS_SINUSOIDAL] = "sinusoidal" };
	s->dim = (int)doc_need_int(r, "hidden_size", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "num_hidden_layers", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "num_attention_heads", 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, "intermediate_size", 1, MAX_FFN);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	s->norm = (enum norm_place)read_word(r, "norm", norms, 2, NORM_PRE);
	s->final_norm = doc_read_bool(r, "final_norm", s->norm == NORM_PRE);
	s->embedding_norm = doc_read_bool(r, "embedding_norm", false);
	read_activation(r, "relu", &s->activation);
	s->norm_eps = (float)doc_read_number(r, "layer_norm_eps", 0, 1, 1e-5);
	s->positions = (enum positions)read_word(r, "positions", positions, 3, POSITIONS_LEARNED);
	s->position_offset = (int)doc_read_int(r, "position_offset", 0, MAX_OFFSET, 2);
	s->embed_scale = (float)doc_read_number(r, "embed_scale", 1e-6, 1e6, 1);
}

struct reader {
	enum family family;
	const char *model_type;
	const char *architectures[3];
	void (*read)(struct doc_reader *r, struct facts *facts, struct stack_facts *s);
};

static const struct reader readers[] = {
	{ FAMILY_OPT, "opt", { "OPTForCausalLM", "OPTModel" }, read_opt },
	{ FAMILY_GPT2, "gpt2", { "GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel" },
	                read_gpt2 },
	{ FAMILY_FATHOM_LM, "fathom_lm", { "FathomLMForCausalLM" }, read_fathom_lm },
};

static const struct reader *reader_of(struct doc_reader *r) {
	const size_t n_readers = sizeof readers / sizeof *readers;
	const char *type = doc_read_string(r, "model_type", NULL);
	const char *arch = doc_as_string(doc_at(doc_get(r->object, "architectures"), 0), NULL);
	char shown[64];
	for (size_t i = 0; i < n_readers; i++) {
		const struct reader *reader = &readers[i];
		if (type && strcmp(type, reader->model_type) != 0)
			continue;
		for (size_t a = 0; arch && a < 3 && reader->architectures[a]; a++) {
			if (strcmp(arch, reader->architectures[a]) == 0)
				return reader;
		}
		if (type && !arch)
			return reader;
		if (type) {
			doc_fail(r,
			                "\"architectures\" is \"%s\", which is not a language "
			                "model of the family %s",
			                doc_printable(arch, shown, sizeof shown), type);
			return NULL;
		}
	}
	if (type)
		doc_fail(r, "\"model_type\" is \"%s\"; opt, gpt2 and fathom_lm can be loaded",
		                doc_printable(type, shown, sizeof shown));
	else if (arch)
		doc_fail(r,
		                "\"architectures\" is \"%s\"; opt, gpt2 and fathom_lm models can "
		                "be loaded",
		                doc_printable(arch, shown, sizeof shown));
	else
		doc_fail(r, "\"model_type\" is missing");
	return NULL;
}

/* What all families share, and what must hold between the numbers. */
static void read_common(struct doc_reader *r, struct facts *facts, struct stack_facts *s) {
	facts->tied_output = doc_read_bool(r, "tie_word_embeddings", true);
	s->layerdrop = (float)doc_read_number(r, "layerdrop", 0, 1, 0);
	read_tokens(r, facts);
	const char *rule = doc_read_string(r, "fathom_plan_rule", "even");
	if (!plan_rule_parse(rule, &facts->plan_rule) || facts->plan_rule == PLAN_RULE_LAYERS)
		doc_fail(r, "\"fathom_plan_rule\" must be even, ends, prefix or tuned");
	if (s->dim % s->heads != 0)
		doc_fail(r, "%d attention heads do not divide a hidden size of %d", s->heads,
		                s->dim);
	s->head_dim = s->dim / s->heads;
	if (doc_read_int(r, "head_dim", 1, MAX_DIM, s->head_dim) != s->head_dim)
		doc_fail(r, "\"head_dim\" must be hidden size / heads = %d", s->head_dim);
	if (doc_read_int(r, "num_key_value_heads", 1, MAX_DIM, s->heads) != s->heads)
		doc_fail(r, "\"num_key_value_heads\" must equal the attention heads");
	uint64_t rows = (uint64_t)s->position_offset + (uint64_t)facts->context;
	if (s->positions == POSITIONS_SINUSOIDAL && rows * (uint64_t)s->dim > MAX_SINUSOIDS)
		doc_fail(r, "\"max_position_embeddings\" makes a table of sinusoids over 1 GiB");
	if (s->positions == POSITIONS_SINUSOIDAL && s->dim < 4)
		doc_fail(r, "\"hidden_size\" must be at least 4 with sinusoidal positions");
	refuse_foreign_options(r);
}

bool facts_parse(const char *json, size_t len, struct facts *ret_facts, char *err, size_t errlen) {
	struct doc *doc = doc_parse(json, len, "config.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = {
		.object = doc, .file = "config.json", .err = err, .errlen = errlen
	};
	struct facts facts;
	memset(&facts, 0, sizeof facts);
	if (doc_kind(doc) != DOC_OBJECT)
		doc_fail(&r, "not a JSON object");
	const struct reader *reader = r.failed ? NULL : reader_of(&r);
	if (reader && !r.failed) {
		facts.family = reader->family;
		reader->read(&r, &facts, &facts.stack[STACK_DECODER]);
		if (!r.failed)
			read_common(&r, &facts, &facts.stack[STACK_DECODER]);
	}
	doc_free(doc);
	if (r.failed)
		return false;
	*ret_facts = facts;
	return true;
}

bool facts_parse_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen) {
	struct generation_defaults d = { .temperature = 1, .top_p = 1, .repetition_penalty = 1 };
	if (!json) {
		*ret_defaults = d;
		return true;
	}
	const char *file = "generation_config.json";
	struct doc *doc = doc_parse(json, len, file, err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = { .object = doc, .file = file, .err = err, .errlen = errlen };
	struct facts with_ends = *facts;
	if (doc_kind(doc) != DOC_OBJECT)
		doc_fail(&r, "not a JSON object");
	d.temperature = doc_read_number(&r, "temperature", 0, 2, d.temperature);
	if (!doc_read_bool(&r, "do_sample", true))
		d.temperature = 0;
	d.top_p = doc_read_number(&r, "top_p", 1e-6, 1, d.top_p);
	d.repetition_penalty =
	                doc_read_number(&r, "repetition_penalty", 0.01, 100, d.repetition_penalty);
	d.top_k = (int)doc_read_int(&r, "top_k", -1, INT32_MAX, 0);
	d.top_k = d.top_k < 0 || d.top_k >= facts->vocab ? 0 : d.top_k;
	d.max_tokens = (int)doc_read_int(&r, "max_new_tokens", 0, MAX_CONTEXT, 0);
	read_eos(&r, &with_ends);
	doc_free(doc);
	if (r.failed)
		return false;
	*facts = with_ends;
	*ret_defaults = d;
	return true;
}

const char *facts_family_name(enum family family) {
	for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
		if (readers[i].family == family)
			return readers[i].model_type;
	}
	return "unknown";
}

uint64_t facts_parameters(const struct facts *facts, const int depth[STACKS]) {
	uint64_t total = 0, head_dim = 0;
	for (int i = 0; i < STACKS; i++) {
		const struct stack_facts *s = &facts->stack[i];
		if (s->layers == 0)
			continue;
		uint64_t dim = (uint64_t)s->dim, ffn = (uint64_t)s->ffn;
		uint64_t attention = 4 * (dim * dim + dim), norms = 4 * dim;
		uint64_t feed_forward = 2 * dim * ffn + ffn + dim;
		total += (uint64_t)depth[i] * (attention + feed_forward + norms);
		total += (uint64_t)facts->vocab * dim;
		if (s->positions == POSITIONS_LEARNED)
			total += (uint64_t)(s->position_offset + facts->context) * dim;
		total += 2 * dim * ((uint64_t)s->embedding_norm + (uint64_t)s->final_norm);
		head_dim = dim; /* the last stack is the one that speaks */
	}
	return facts->tied_output ? total : total + (uint64_t)facts->vocab * head_dim;
}
