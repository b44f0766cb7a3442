/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of the families share. */
#include "model/facts_read.h"

#include <stdio.h>
#include <string.h>

/* ---- words ---- */

void facts_read_activation(
                struct doc_reader *r, const char *key, const char *fallback, enum activation *ret) {
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
		{ "tanh", ACTIVATION_TANH },
		{ "silu", ACTIVATION_SILU },
		{ "swish", ACTIVATION_SILU },
	};
	const char *name = doc_read_string(r, key, fallback);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strcmp(name, known[i].name) == 0) {
			*ret = known[i].activation;
			return;
		}
	}
	char shown[40];
	doc_fail(r, "\"%s\" is \"%s\"; relu, gelu, gelu_new, gelu_tanh, silu and tanh are known",
	                key, doc_printable(name, shown, sizeof shown));
}

int facts_read_word(struct doc_reader *r, const char *key, const char *const *words, int n_words,
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

/* ---- options ---- */

void facts_only(struct doc_reader *r, const char *key, bool value) {
	if (doc_read_bool(r, key, value) != value)
		doc_fail(r, "\"%s\" must be %s: the engine computes nothing else", key,
		                value ? "true" : "false");
}

bool facts_asks(const struct doc *value) {
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

void facts_refuse(struct doc_reader *r, const char *const *keys) {
	for (; *keys; keys++) {
		if (facts_asks(doc_get(r->object, *keys)))
			doc_fail(r, "\"%s\" asks for something that the engine cannot do", *keys);
	}
}

void facts_refuse_foreign(struct doc_reader *r) {
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
		"relative_attention_num_buckets",
		"alibi",
		"add_cross_attention",
		"cross_attention_hidden_size",
		"pruned_heads",
		"num_experts",
		"num_local_experts",
		"adapters",
		"adaptive_softmax_cutoff",
		NULL,
	};
	facts_refuse(r, foreign);
}

/* ---- objects ---- */

struct doc_reader facts_enter(struct doc_reader *r, const char *key, char *file, size_t size) {
	const struct doc *object = doc_get(r->object, key);
	if (doc_kind(object) == DOC_ABSENT)
		doc_fail(r, "\"%s\" is missing", key);
	else if (doc_kind(object) != DOC_OBJECT)
		doc_fail(r, "\"%s\" is not a JSON object", key);
	struct doc_reader inner = *r;
	snprintf(file, size, "%s: \"%s\"", r->file, key);
	inner.object = object;
	inner.file = file;
	return inner;
}

void facts_leave(struct doc_reader *r, const struct doc_reader *inner) {
	r->failed = r->failed || inner->failed;
}

void facts_check_attention(struct doc_reader *r, const struct stack_facts *s) {
	int head_dim = s->dim / s->heads;
	if (s->dim % s->heads != 0)
		doc_fail(r, "%d attention heads do not divide a hidden size of %d", s->heads,
		                s->dim);
	if (doc_read_int(r, "head_dim", 1, MAX_DIM, head_dim) != head_dim)
		doc_fail(r, "\"head_dim\" must be hidden size / heads = %d", head_dim);
	if (doc_read_int(r, "num_key_value_heads", 1, MAX_DIM, s->heads) != s->heads)
		doc_fail(r, "\"num_key_value_heads\" must equal the attention heads");
}

void facts_read_stack(struct doc_reader *r, struct stack_facts *s) {
	static const char *const norms[] = { [NORM_PRE] = "pre", [NORM_POST] = "post" };
	static const char *const positions[] = { [POSITIONS_NONE] = "none",
		[POSITIONS_LEARNED] = "learned",
		[POSITIONS_SINUSOIDAL] = "sinusoidal" };
	s->dim = (int)doc_need_int(r, "hidden_size", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "num_hidden_layers", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "num_attention_heads", 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, "intermediate_size", 1, MAX_FFN);
	s->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	s->norm = (enum norm_place)facts_read_word(r, "norm", norms, 2, NORM_PRE);
	s->final_norm = doc_read_bool(r, "final_norm", s->norm == NORM_PRE);
	s->embedding_norm = doc_read_bool(r, "embedding_norm", false);
	facts_read_activation(r, "activation_function", "relu", &s->activation);
	s->norm_eps = (float)doc_read_number(r, "layer_norm_eps", 0, 1, 1e-5);
	s->positions = (enum positions)facts_read_word(
	                r, "positions", positions, 3, POSITIONS_LEARNED);
	s->position_offset = (int)doc_read_int(r, "position_offset", 0, MAX_OFFSET, 2);
	s->embed_scale = (float)doc_read_number(r, "embed_scale", 1e-6, 1e6, 1);
	s->layerdrop = (float)doc_read_number(r, "layerdrop", 0, 1, 0);
	facts_check_attention(r, s);
	facts_refuse_foreign(r);
}

/* ---- token ids ---- */

/*
 * GPT2Config's own id of both symbols stays behind in many a folder whose vocabulary is smaller;
 * there it names no token, and no token is ever it.
 */
enum { GPT2_DEFAULT = 50256 };

int32_t facts_read_token(struct doc_reader *r, const char *key, int vocab, int32_t fallback) {
	return (int32_t)doc_read_int(r, key, -1, vocab - 1, fallback < vocab ? fallback : -1);
}

/* A symbol that text starts or ends with. */
static int32_t read_symbol(struct doc_reader *r, const char *key, const struct facts *facts,
                int32_t fallback) {
	const int last = facts->vocab - 1;
	if (facts->family != FAMILY_GPT2 || last >= GPT2_DEFAULT)
		return facts_read_token(r, key, facts->vocab, fallback);
	int64_t id = doc_read_int(r, key, -1, GPT2_DEFAULT, -1);
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

void facts_read_eos(struct doc_reader *r, struct facts *facts) {
	const struct doc *value = doc_get(r->object, "eos_token_id");
	if (doc_kind(value) != DOC_ARRAY) {
		if (!add_eos(facts, read_symbol(r, "eos_token_id", facts, facts->eos)))
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

void facts_read_tokens(
                struct doc_reader *r, struct facts *facts, int32_t bos, int32_t eos, int32_t pad) {
	facts->bos = read_symbol(r, "bos_token_id", facts, bos);
	facts->eos = -1;
	facts_read_eos(r, facts);
	if (facts->eos < 0 && eos < facts->vocab
	                && doc_kind(doc_get(r->object, "eos_token_id")) == DOC_ABSENT)
		facts->eos = eos;
	/* Fine-tunes often name a padding id beyond the table; the engine never looks it up. */
	facts->pad = (int32_t)doc_read_int(r, "pad_token_id", -1, INT32_MAX, pad);
	if (facts->pad >= facts->vocab)
		facts->pad = -1;
}
