/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the readers of the families share: the limits of counts, words that stand for something, and
 * options that the engine cannot honour. Private to the facts_*.c files. Every function fails the
 * reader with one sentence that names the key.
 */
#ifndef FATHOM_MODEL_FACTS_READ_H
#define FATHOM_MODEL_FACTS_READ_H

#include "model/doc.h"
#include "model/facts.h"

enum {
	MAX_DIM = 65536,
	MAX_FFN = 4 * MAX_DIM,
	MAX_VOCAB = 4 << 20,
	MAX_CONTEXT = 1 << 20,
	MAX_OFFSET = 1024,
	MAX_CLASSES = 65536,
};

/* ---- the families: each fills what its config.json says; facts.c checks the numbers together ---- */

void facts_read_opt(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_gpt2(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_fathom_lm(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_fathom_encoder(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_roberta(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_bert(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_fathom_seq2seq(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_bart(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_fsmt(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_m2m_100(struct doc_reader *r, struct facts *facts, const char *architecture);
void facts_read_marian(struct doc_reader *r, struct facts *facts, const char *architecture);

/* ---- helpers ---- */

/* A stack as our own formats describe it. */
void facts_read_stack(struct doc_reader *r, struct stack_facts *s);

/* What must hold between the numbers of a stack's attention, and the object's own keys about it. */
void facts_check_attention(struct doc_reader *r, const struct stack_facts *s);

/* A reader of the object under `key`; fails `r` if there is none. See facts_leave. */
struct doc_reader facts_enter(struct doc_reader *r, const char *key, char *file, size_t size);
/* Passes a failure of the inner reader on. */
void facts_leave(struct doc_reader *r, const struct doc_reader *inner);

void facts_read_activation(
                struct doc_reader *r, const char *key, const char *fallback, enum activation *ret);
/* Index of the string member among `words`; `fallback` if it is absent. */
int facts_read_word(struct doc_reader *r, const char *key, const char *const *words, int n_words,
                int fallback);
/* Refuses `key` unless it has the one value that the engine computes; absent is that value. */
void facts_only(struct doc_reader *r, const char *key, bool value);
/* Whether a member asks for something: not absent, null, false, 0 or empty. */
bool facts_asks(const struct doc *value);
/* Refuses each of `keys` (ended by NULL) that asks for something. */
void facts_refuse(struct doc_reader *r, const char *const *keys);

/* Refuses options of other architectures that sometimes find their way into these folders. */
void facts_refuse_foreign(struct doc_reader *r);

/* A token id below `vocab`, or -1. */
int32_t facts_read_token(struct doc_reader *r, const char *key, int vocab, int32_t fallback);
/* eos_token_id: one id or a list of them. */
void facts_read_eos(struct doc_reader *r, struct facts *facts);
/* bos, eos and pad, which Hugging Face's classes default to these (-1: none). */
void facts_read_tokens(
                struct doc_reader *r, struct facts *facts, int32_t bos, int32_t eos, int32_t pad);

#endif
