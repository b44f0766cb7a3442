/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a job to the plain structs of an answer (proto/answer.h). Loop thread; what points into the
 * job lives as long as it.
 */
#ifndef FATHOM_SERVER_COMPOSE_H
#define FATHOM_SERVER_COMPOSE_H

#include "proto/answer.h"
#include "server/job.h"

enum { COMPOSE_CHANGES = sizeof(((struct job *)0)->changes) / sizeof(struct job_change) };

/*
 * The depth of a plan that was chosen. `changes` (COMPOSE_CHANGES of them) is where the step-downs
 * go; NULL while the job runs.
 */
void compose_depth(const struct job *job, const struct subnet *subnet, enum depth_reason reason,
                struct answer_change *changes, struct answer_depth *ret_depth);
/* Of a job that has ended. */
void compose_timings(const struct job *job, struct answer_timings *ret_timings);
int64_t compose_prompt_tokens(const struct job *job); /* of the client's: sources and targets */
void compose_usage(const struct job *job, struct answer_usage *ret_usage);
struct answer_vocab compose_vocab(const struct model *model); /* of answers */
struct answer_vocab compose_source_vocab(const struct model *model);
const char *compose_reason(enum depth_reason reason);

/* Tokens with their log-probabilities, and where the next one begins in the text. */
struct token_list {
	struct answer_token *tokens; /* [cap] */
	struct answer_top *tops;     /* [cap][n_top] */
	size_t n, cap;
	int n_top;
	size_t text_offset; /* characters */
};
/* Room for `cap` tokens; false if memory ran out. */
bool token_list_init(struct token_list *list, size_t cap, int n_top);
void token_list_finish(struct token_list *list);
/*
 * Tokens [from, to) of a prompt, or of what is scored after a source; the first of a text has no
 * log-probability. False if memory ran out.
 */
bool token_list_add_prompt(struct token_list *list, const struct model *model,
                const struct job_prompt *prompt, int from, int to);
/*
 * Tokens [from, to) of an answer. Where one begins counts all text before it, shown or not: a stop
 * string's tokens are listed too.
 */
void token_list_add_choice(struct token_list *list, const struct model *model,
                const struct choice *choice, int from, int to);

/*
 * Appends the text of tokens as people read it. Special tokens are left out, but for `shown`: one
 * of them, or SHOW_ALL.
 */
enum { SHOW_NONE = -1, SHOW_ALL = -2 };
void compose_text(const struct tokenizer *t, const int32_t *ids, int n, int32_t shown,
                struct buffer *out);

/* The length of a token's text without the space that ends a word. */
size_t compose_trimmed(const char *bytes, size_t len);

/* The text of prompt i as `echo` repeats it. */
void compose_prompt_text(
                const struct model *model, const struct job *job, int i, struct buffer *out);

/* finish_reason, finish_detail, stop_reason and score of a choice that has ended. */
void compose_finish(const struct job *job, const struct choice *choice,
                const struct choice_progress *seen, struct answer_choice *to);

/* Sentences for `warnings`; free the strings and the list. NULL with 0 if there are none. */
char **compose_warnings(const struct job *job, size_t *ret_n);
void compose_warnings_free(char **warnings, size_t n);

#endif
