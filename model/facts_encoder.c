/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of encoders: our own fathom_encoder (fairseq's roberta), and Hugging Face's roberta and
 * bert, whose architecture says which heads the checkpoint has.
 */
#include "model/facts_read.h"

#include <stdio.h>
#include <string.h>

/* ---- classification heads ---- */

static void read_classifier(
                struct doc_reader *r, const struct doc *entry, struct classifier_facts *ret) {
	struct doc_reader head = *r;
	head.object = entry;
	if (doc_kind(entry) != DOC_OBJECT) {
		doc_fail(r, "\"classification_heads\" holds something that is not a JSON object");
		return;
	}
	const char *name = doc_read_string(&head, "name", "");
	if (strlen(name) == 0 || strlen(name) >= sizeof ret->name)
		doc_fail(&head, "\"name\" of a classification head must be 1 to %zu bytes long",
		                sizeof ret->name - 1);
	else
		memcpy(ret->name, name, strlen(name) + 1);
	size_t classes = doc_count(doc_get(entry, "labels"));
	if (doc_kind(doc_get(entry, "labels")) != DOC_ARRAY)
		classes = (size_t)doc_need_int(&head, "classes", 2, MAX_CLASSES);
	if (classes < 2 || classes > MAX_CLASSES)
		doc_fail(&head, "\"labels\" of a classification head must list 2 to %d classes",
		                MAX_CLASSES);
	ret->classes = (int)classes;
	facts_read_activation(&head, "activation", "tanh", &ret->activation);
	facts_leave(r, &head);
}

static void read_classifiers(struct doc_reader *r, struct facts *facts) {
	const struct doc *list = doc_get(r->object, "classification_heads");
	if (!facts_asks(list))
		return;
	if (doc_kind(list) != DOC_ARRAY || doc_count(list) > MAX_CLASSIFIERS) {
		doc_fail(r, "\"classification_heads\" is not a list of at most %d heads",
		                MAX_CLASSIFIERS);
		return;
	}
	for (size_t i = 0; i < doc_count(list) && !r->failed; i++) {
		struct classifier_facts *c = &facts->classifiers[facts->n_classifiers];
		read_classifier(r, doc_at(list, i), c);
		for (int k = 0; k < facts->n_classifiers && !r->failed; k++) {
			if (strcmp(facts->classifiers[k].name, c->name) == 0)
				doc_fail(r, "\"classification_heads\" has two of one name");
		}
		facts->n_classifiers++;
	}
}

/* ---- our own ---- */

static void read_pooling(struct doc_reader *r, struct facts *facts) {
	static const char *const poolings[] = { "mean", "cls" };
	facts->mean_pooling = facts_read_word(r, "fathom_pooling", poolings, 2, 0) == 0;
}

void facts_read_fathom_encoder(
                struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	char file[64];
	struct doc_reader in = facts_enter(r, "encoder", file, sizeof file);
	facts_read_stack(&in, &facts->stack[STACK_ENCODER]);
	facts_leave(r, &in);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts->mlm_head = doc_read_bool(r, "mlm_head", false);
	facts_read_activation(r, "mlm_activation", "gelu", &facts->mlm_activation);
	facts->output_bias = facts->mlm_head;
	read_classifiers(r, facts);
	read_pooling(r, facts);
	facts_read_tokens(r, facts, -1, -1, -1);
	facts->mask = facts_read_token(r, "mask_token_id", facts->vocab, -1);
}

/* ---- Hugging Face ---- */

/* Number of classes of a ...ForSequenceClassification. */
static int read_class_count(struct doc_reader *r) {
	const struct doc *labels = doc_get(r->object, "id2label");
	const char *problem = doc_read_string(r, "problem_type", "single_label_classification");
	char shown[40];
	if (strcmp(problem, "single_label_classification") != 0)
		doc_fail(r,
		                "\"problem_type\" is \"%s\"; only single_label_classification can "
		                "be served",
		                doc_printable(problem, shown, sizeof shown));
	int64_t n = doc_read_int(r, "num_labels", 1, MAX_CLASSES, 2);
	if (doc_kind(labels) == DOC_OBJECT)
		n = (int64_t)doc_count(labels);
	else if (facts_asks(labels))
		doc_fail(r, "\"id2label\" is not a JSON object");
	if (n < 2 || n > MAX_CLASSES)
		doc_fail(r,
		                "\"id2label\" has %lld classes: a head with one is a regression, "
		                "which cannot be served",
		                (long long)n);
	return (int)n;
}

/* What bert and roberta share. */
static void read_bert_like(struct doc_reader *r, struct facts *facts, const char *architecture) {
	static const char *const foreign[] = { "is_decoder", "embedding_size", NULL };
	struct stack_facts *s = &facts->stack[STACK_ENCODER];
	s->dim = (int)doc_need_int(r, "hidden_size", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, "num_hidden_layers", 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, "num_attention_heads", 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, "intermediate_size", 1, MAX_FFN);
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts_read_activation(r, "hidden_act", "gelu", &s->activation);
	s->norm_eps = (float)doc_read_number(r, "layer_norm_eps", 0, 1, 1e-12);
	s->norm = NORM_POST;
	s->embedding_norm = true;
	s->embed_scale = 1;
	s->positions = POSITIONS_LEARNED;
	const char *kind = doc_read_string(r, "position_embedding_type", "absolute");
	char shown[40];
	if (strcmp(kind, "absolute") != 0)
		doc_fail(r, "\"position_embedding_type\" is \"%s\"; only absolute is computed",
		                doc_printable(kind, shown, sizeof shown));
	facts_refuse(r, foreign);
	facts->mlm_head = architecture
	                && (strstr(architecture, "ForMaskedLM")
	                                || strstr(architecture, "ForPreTraining"));
	facts->output_bias = facts->mlm_head;
	if (architecture && strstr(architecture, "ForSequenceClassification")) {
		struct classifier_facts *c = &facts->classifiers[0];
		facts->n_classifiers = 1;
		snprintf(c->name, sizeof c->name, "classifier");
		c->classes = read_class_count(r);
		c->activation = ACTIVATION_TANH;
	}
	facts->mask = -1;
	read_pooling(r, facts);
}

void facts_read_roberta(struct doc_reader *r, struct facts *facts, const char *architecture) {
	struct stack_facts *s = &facts->stack[STACK_ENCODER];
	read_bert_like(r, facts, architecture);
	facts->mlm_activation = ACTIVATION_GELU;
	/* Positions count from the padding id + 1, and no token but row 0 of the types is used. */
	s->position_offset = 1 + (int)doc_read_int(r, "pad_token_id", 0, MAX_OFFSET - 1, 1);
	int rows = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	if (rows <= s->position_offset)
		doc_fail(r, "\"max_position_embeddings\" leaves no row after the padding's");
	s->context = rows - s->position_offset;
	s->constant_types = (int)doc_read_int(r, "type_vocab_size", 0, 1024, 2);
	facts_read_tokens(r, facts, 0, 2, 1);
}

void facts_read_bert(struct doc_reader *r, struct facts *facts, const char *architecture) {
	struct stack_facts *s = &facts->stack[STACK_ENCODER];
	read_bert_like(r, facts, architecture);
	facts->mlm_activation = s->activation;
	s->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	int types = (int)doc_read_int(r, "type_vocab_size", 0, 1024, 2);
	s->token_types = types > 1 ? types : 0;
	s->constant_types = types == 1;
	facts_read_tokens(r, facts, -1, -1, 0);
}

/* ---- sentence-transformers ---- */

bool facts_parse_pooling(
                const char *json, size_t len, struct facts *facts, char *err, size_t errlen) {
	static const char *const others[] = { "pooling_mode_max_tokens",
		"pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens",
		"pooling_mode_lasttoken", NULL };
	const char *file = "1_Pooling/config.json";
	struct doc *doc = doc_parse(json, len, file, err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = { .object = doc, .file = file, .err = err, .errlen = errlen };
	if (doc_kind(doc) != DOC_OBJECT)
		doc_fail(&r, "not a JSON object");
	facts_refuse(&r, others);
	bool cls = doc_read_bool(&r, "pooling_mode_cls_token", false);
	bool mean = doc_read_bool(&r, "pooling_mode_mean_tokens", false);
	if (cls == mean)
		doc_fail(&r,
		                "must pool by either \"pooling_mode_cls_token\" or "
		                "\"pooling_mode_mean_tokens\"");
	doc_free(doc);
	if (r.failed)
		return false;
	facts->mean_pooling = mean;
	return true;
}
