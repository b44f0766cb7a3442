/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: config.json and generation_config.json into the terms of the one parametrised block.
 *
 * One reader per family (facts_lm.c, facts_encoder.c, facts_seq2seq.c); each key's default is the
 * one that the family's own library has. What the engine would compute differently from that
 * library is refused, by name. Here are the families' table and what holds for all of them.
 */
#include "model/facts.h"

#include <stdio.h>
#include <string.h>

#include "model/doc.h"
#include "model/facts_read.h"

/* Sinusoids are computed, so no file bounds them: at most 1 GiB of them. */
#define MAX_SINUSOIDS ((uint64_t)1 << 28)

enum { MAX_ARCHITECTURES = 5 };

struct family_reader {
	enum family family;
	enum model_kind kind;
	const char *model_type;
	const char *architectures[MAX_ARCHITECTURES]; /* none: any */
	void (*read)(struct doc_reader *r, struct facts *facts, const char *architecture);
};

/* clang-format off */
static const struct family_reader readers[] = {
	{ FAMILY_OPT, KIND_LM, "opt", { "OPTForCausalLM", "OPTModel" }, facts_read_opt },
	{ FAMILY_GPT2, KIND_LM, "gpt2", { "GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel" },
		facts_read_gpt2 },
	{ FAMILY_FATHOM_LM, KIND_LM, "fathom_lm", { "FathomLMForCausalLM" }, facts_read_fathom_lm },
	{ FAMILY_FATHOM_ENCODER, KIND_ENCODER, "fathom_encoder", { NULL },
		facts_read_fathom_encoder },
	{ FAMILY_FATHOM_SEQ2SEQ, KIND_SEQ2SEQ, "fathom_seq2seq", { NULL },
		facts_read_fathom_seq2seq },
	{ FAMILY_ROBERTA, KIND_ENCODER, "roberta",
		{ "RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification" },
		facts_read_roberta },
	{ FAMILY_BERT, KIND_ENCODER, "bert",
		{ "BertModel", "BertForMaskedLM", "BertForPreTraining",
			"BertForSequenceClassification" },
		facts_read_bert },
	{ FAMILY_BART, KIND_SEQ2SEQ, "bart", { "BartForConditionalGeneration", "BartModel" },
		facts_read_bart },
	{ FAMILY_FSMT, KIND_SEQ2SEQ, "fsmt", { "FSMTForConditionalGeneration", "FSMTModel" },
		facts_read_fsmt },
	{ FAMILY_M2M_100, KIND_SEQ2SEQ, "m2m_100",
		{ "M2M100ForConditionalGeneration", "M2M100Model" }, facts_read_m2m_100 },
	{ FAMILY_MARIAN, KIND_SEQ2SEQ, "marian", { "MarianMTModel", "MarianModel" },
		facts_read_marian },
};
/* clang-format on */

#define ALL_FAMILIES                                                                               \
	"opt, gpt2, roberta, bert, bart, fsmt, m2m_100, marian, fathom_lm, fathom_encoder and "    \
	"fathom_seq2seq"

static bool has_architecture(const struct family_reader *reader, const char *arch) {
	for (int a = 0; a < MAX_ARCHITECTURES && reader->architectures[a]; a++) {
		if (strcmp(arch, reader->architectures[a]) == 0)
			return true;
	}
	return false;
}

static const struct family_reader *reader_of(
                struct doc_reader *r, const char *type, const char *arch) {
	char shown[64];
	for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
		const struct family_reader *reader = &readers[i];
		if (type && strcmp(type, reader->model_type) != 0)
			continue;
		if (arch && has_architecture(reader, arch))
			return reader;
		if (type && (!arch || !reader->architectures[0]))
			return reader;
		if (type) {
			doc_fail(r,
			                "\"architectures\" is \"%s\", which of the family %s "
			                "cannot be served",
			                doc_printable(arch, shown, sizeof shown), type);
			return NULL;
		}
	}
	if (type)
		doc_fail(r, "\"model_type\" is \"%s\"; " ALL_FAMILIES " can be loaded",
		                doc_printable(type, shown, sizeof shown));
	else if (arch)
		doc_fail(r, "\"architectures\" is \"%s\"; " ALL_FAMILIES " can be loaded",
		                doc_printable(arch, shown, sizeof shown));
	else
		doc_fail(r, "\"model_type\" is missing");
	return NULL;
}

/* ---- what holds for all families ---- */

static void check_stack(struct doc_reader *r, struct stack_facts *s) {
	facts_check_attention(r, s);
	s->head_dim = s->dim / s->heads;
	bool computed = s->positions == POSITIONS_SINUSOIDAL
	                || s->positions == POSITIONS_SINUSOIDAL_MARIAN;
	uint64_t rows = (uint64_t)s->position_offset + (uint64_t)s->context;
	if (computed && rows * (uint64_t)s->dim > MAX_SINUSOIDS)
		doc_fail(r, "\"max_position_embeddings\" makes a table of sinusoids over 1 GiB");
	if (computed && s->dim < 4)
		doc_fail(r, "\"hidden_size\" must be at least 4 with sinusoidal positions");
	if (s->positions == POSITIONS_SINUSOIDAL_MARIAN && s->dim % 2 != 0)
		doc_fail(r, "\"d_model\" must be even");
}

static void check_seq2seq(struct doc_reader *r, const struct facts *facts) {
	const struct stack_facts *encoder = &facts->stack[STACK_ENCODER];
	const struct stack_facts *decoder = &facts->stack[STACK_DECODER];
	if (facts->shared_embeddings
	                && (encoder->vocab != decoder->vocab || encoder->dim != decoder->dim))
		doc_fail(r,
		                "a shared embedding needs vocabularies and hidden sizes that are "
		                "equal");
}

static void read_common(struct doc_reader *r, struct facts *facts) {
	static const char *const seq2seq_only[] = { "is_encoder_decoder", NULL };
	if (facts->family != FAMILY_FSMT)
		facts->tied_output = facts->output.n == 0
		                && doc_read_bool(r, "tie_word_embeddings", true);
	const char *rule = doc_read_string(r, "fathom_plan_rule", "even");
	if (!plan_rule_parse(rule, &facts->plan_rule) || facts->plan_rule == PLAN_RULE_LAYERS)
		doc_fail(r, "\"fathom_plan_rule\" must be even, ends, prefix or tuned");
	if (facts->kind != KIND_SEQ2SEQ)
		facts_refuse(r, seq2seq_only);
	if (facts->family != FAMILY_FATHOM_LM && facts_asks(doc_get(r->object, "adaptive_input")))
		doc_fail(r, "\"adaptive_input\" is known of fathom_lm only");
	facts_refuse_foreign(r);
	for (int i = 0; i < STACKS; i++) {
		struct stack_facts *s = &facts->stack[i];
		if (s->layers == 0)
			continue;
		if (s->vocab == 0)
			s->vocab = facts->vocab;
		s->cross = facts->kind == KIND_SEQ2SEQ && i == STACK_DECODER;
		check_stack(r, s);
		facts->context = s->context; /* the last stack is the one that speaks */
	}
	if (facts->kind == KIND_SEQ2SEQ)
		check_seq2seq(r, facts);
	if (facts->input.n && facts->tied_output)
		doc_fail(r,
		                "\"tie_word_embeddings\" must be false: an adaptive input cannot "
		                "be a plain output");
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
	facts.mask = facts.decoder_start = facts.forced_bos = -1;
	if (doc_kind(doc) != DOC_OBJECT)
		doc_fail(&r, "not a JSON object");
	const char *type = doc_read_string(&r, "model_type", NULL);
	const char *arch = doc_as_string(doc_at(doc_get(doc, "architectures"), 0), NULL);
	const struct family_reader *reader = r.failed ? NULL : reader_of(&r, type, arch);
	if (reader && !r.failed) {
		facts.family = reader->family;
		facts.kind = reader->kind;
		reader->read(&r, &facts, arch);
		if (!r.failed)
			read_common(&r, &facts);
	}
	doc_free(doc);
	if (r.failed)
		return false;
	*ret_facts = facts;
	return true;
}

/* ---- generation_config.json ---- */

static void read_beams(struct doc_reader *r, struct generation_defaults *d) {
	d->num_beams = (int)doc_read_int(r, "num_beams", 0, 1024, 0);
	d->length_penalty = doc_read_number(r, "length_penalty", -100, 100, 1);
}

static void read_sampling(
                struct doc_reader *r, const struct facts *facts, struct generation_defaults *d) {
	d->temperature = doc_read_number(r, "temperature", 0, 2, d->temperature);
	if (!doc_read_bool(r, "do_sample", true))
		d->temperature = 0;
	d->top_p = doc_read_number(r, "top_p", 1e-6, 1, d->top_p);
	d->repetition_penalty =
	                doc_read_number(r, "repetition_penalty", 0.01, 100, d->repetition_penalty);
	d->top_k = (int)doc_read_int(r, "top_k", -1, INT32_MAX, 0);
	d->top_k = d->top_k < 0 || d->top_k >= facts->vocab ? 0 : d->top_k;
	d->max_tokens = (int)doc_read_int(r, "max_new_tokens", 0, MAX_CONTEXT, 0);
}

static bool parse_generation(const char *json, size_t len, const char *file, bool old,
                struct facts *facts, struct generation_defaults *ret_defaults, char *err,
                size_t errlen) {
	struct generation_defaults d = {
		.temperature = 1, .top_p = 1, .repetition_penalty = 1, .length_penalty = 1
	};
	if (!json) {
		*ret_defaults = d;
		return true;
	}
	struct doc *doc = doc_parse(json, len, file, err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = { .object = doc, .file = file, .err = err, .errlen = errlen };
	struct facts more = *facts;
	if (doc_kind(doc) != DOC_OBJECT)
		doc_fail(&r, "not a JSON object");
	read_beams(&r, &d);
	if (!old) {
		read_sampling(&r, facts, &d);
		facts_read_eos(&r, &more);
	}
	if (!old && facts->kind == KIND_SEQ2SEQ) {
		more.decoder_start = facts_read_token(
		                &r, "decoder_start_token_id", facts->vocab, facts->decoder_start);
		more.forced_bos = facts_read_token(
		                &r, "forced_bos_token_id", facts->vocab, facts->forced_bos);
		if (more.decoder_start < 0)
			doc_fail(&r, "\"decoder_start_token_id\" is missing");
	}
	doc_free(doc);
	if (r.failed)
		return false;
	*facts = more;
	*ret_defaults = d;
	return true;
}

bool facts_parse_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen) {
	return parse_generation(json, len, "generation_config.json", false, facts, ret_defaults,
	                err, errlen);
}

bool facts_parse_old_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen) {
	return parse_generation(json, len, "config.json", true, facts, ret_defaults, err, errlen);
}

const char *facts_family_name(enum family family) {
	for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
		if (readers[i].family == family)
			return readers[i].model_type;
	}
	return "unknown";
}
