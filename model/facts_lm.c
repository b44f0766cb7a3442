/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of decoder language models: opt, gpt2 and our own fathom_lm, with adaptive vocabularies. */
#include "model/facts_read.h"

#include <math.h>

void facts_read_opt(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	struct stack_facts *s = &facts->stack[STACK_DECODER];
	s->dim = (int)doc_need_int(r, "hidden_size", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "num_hidden_layers", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "num_attention_heads", 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, "ffn_dim", 1, MAX_FFN);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	s->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	if (doc_read_int(r, "word_embed_proj_dim", 1, MAX_DIM, s->dim) != s->dim)
		doc_fail(r,
		                "\"word_embed_proj_dim\" must equal \"hidden_size\": projected "
		                "embeddings are not supported");
	facts_only(r, "enable_bias", true);
	facts_only(r, "layer_norm_elementwise_affine", true);
	bool pre = doc_read_bool(r, "do_layer_norm_before", true);
	s->norm = pre ? NORM_PRE : NORM_POST;
	s->final_norm = pre && !doc_read_bool(r, "_remove_final_layer_norm", false);
	facts_read_activation(r, "activation_function", "relu", &s->activation);
	s->norm_eps = 1e-5f;
	s->positions = POSITIONS_LEARNED;
	s->position_offset = 2;
	s->embed_scale = 1;
	s->layerdrop = (float)doc_read_number(r, "layerdrop", 0, 1, 0);
	facts_read_tokens(r, facts, -1, -1, -1);
}

void facts_read_gpt2(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	struct stack_facts *s = &facts->stack[STACK_DECODER];
	s->dim = (int)doc_need_int(r, "n_embd", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "n_layer", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "n_head", 1, MAX_DIM);
	s->ffn = (int)doc_read_int(r, "n_inner", 1, MAX_FFN, 4 * (int64_t)s->dim);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	bool has_positions = doc_kind(doc_get(r->object, "n_positions")) != DOC_ABSENT;
	const char *positions = has_positions ? "n_positions" : "n_ctx";
	s->context = (int)doc_need_int(r, positions, 1, MAX_CONTEXT);
	facts_only(r, "scale_attn_weights", true);
	facts_only(r, "scale_attn_by_inverse_layer_idx", false);
	s->norm = NORM_PRE;
	s->final_norm = true;
	facts_read_activation(r, "activation_function", "gelu_new", &s->activation);
	s->norm_eps = (float)doc_read_number(r, "layer_norm_epsilon", 0, 1, 1e-5);
	s->positions = POSITIONS_LEARNED;
	s->embed_scale = 1;
	s->layerdrop = (float)doc_read_number(r, "layerdrop", 0, 1, 0);
	facts_read_tokens(r, facts, -1, -1, -1);
}

/* ---- adaptive vocabularies ---- */

/* dim // divisor as Python divides floats, with which fairseq computed the width of a band. */
static int band_dim(int dim, double divisor) {
	double whole = floor((dim - fmod(dim, divisor)) / divisor + 0.5);
	return whole >= 1 && whole <= dim ? (int)whole : 0;
}

/* "cutoffs" and "factor": the last band ends with the vocabulary. */
static void read_bands(struct doc_reader *r, int vocab, int dim, struct band_facts *ret) {
	const struct doc *cutoffs = doc_get(r->object, "cutoffs");
	double factor = doc_read_number(r, "factor", 1, 1024, 4);
	size_t n = doc_count(cutoffs);
	if (doc_kind(cutoffs) != DOC_ARRAY || n == 0) {
		doc_fail(r, "\"cutoffs\" is not a list of whole numbers");
		return;
	}
	for (size_t i = 0; i < n && !r->failed; i++) {
		int64_t end, last = i ? ret->end[i - 1] : 0;
		if (!doc_as_int(doc_at(cutoffs, i), &end) || end <= last || end > vocab)
			doc_fail(r, "\"cutoffs\" must rise, and not above the vocabulary of %d",
			                vocab);
		else if (i + 1 + (end < vocab) > MAX_BANDS)
			doc_fail(r, "\"cutoffs\" makes more than %d bands", MAX_BANDS);
		else
			ret->end[ret->n++] = (int)end;
	}
	if (r->failed)
		return;
	if (ret->end[ret->n - 1] < vocab)
		ret->end[ret->n++] = vocab;
	for (int b = 0; b < ret->n; b++) {
		ret->dim[b] = band_dim(dim, pow(factor, b));
		if (ret->dim[b] == 0)
			doc_fail(r, "\"factor\" leaves band %d no width", b);
	}
}

static bool same_bands(const struct band_facts *a, const struct band_facts *b) {
	bool same = a->n == b->n;
	for (int i = 0; same && i < a->n; i++)
		same = a->end[i] == b->end[i] && a->dim[i] == b->dim[i];
	return same;
}

static void read_adaptive(struct doc_reader *r, struct facts *facts) {
	char file[64];
	int dim = facts->stack[STACK_DECODER].dim;
	if (facts_asks(doc_get(r->object, "adaptive_input"))) {
		struct doc_reader in = facts_enter(r, "adaptive_input", file, sizeof file);
		read_bands(&in, facts->vocab, dim, &facts->input);
		facts_leave(r, &in);
	}
	if (!facts_asks(doc_get(r->object, "adaptive_softmax")))
		return;
	struct doc_reader out = facts_enter(r, "adaptive_softmax", file, sizeof file);
	read_bands(&out, facts->vocab, dim, &facts->output);
	if (!out.failed && facts->output.n < 2)
		doc_fail(&out, "\"cutoffs\" leaves no band for rare words");
	facts->tied_bands = doc_read_bool(&out, "tie_weights", false);
	facts->tied_projections = doc_read_bool(&out, "tie_projections", false);
	if (facts->tied_bands && !same_bands(&facts->input, &facts->output))
		doc_fail(&out,
		                "\"tie_weights\" needs an \"adaptive_input\" of the same cutoffs "
		                "and factor");
	if (facts->tied_projections && !facts->tied_bands)
		doc_fail(&out, "\"tie_projections\" needs \"tie_weights\"");
	facts_leave(r, &out);
}

void facts_read_fathom_lm(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	facts_read_stack(r, &facts->stack[STACK_DECODER]);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts_read_tokens(r, facts, -1, -1, -1);
	if (!r->failed)
		read_adaptive(r, facts);
}
