/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the warm-up: warmup.c (what is measured) and warmup_steps.c (the steps that
 * are measured). */
#ifndef FATHOM_SERVER_WARMUP_PARTS_H
#define FATHOM_SERVER_WARMUP_PARTS_H

#include "server/batch.h"

enum { MOST_SEQUENCES = 64, MOST_FIGURES = 128 };

struct warmup {
	struct batch *batch;
	struct workspace *workspace;
	const struct model *model;
	const struct cost_limits *limits;
	bool (*keep_going)(void *arg);
	void *arg;
	int64_t until_ns;                        /* of the present part */
	struct row *rows;                        /* [max_rows] */
	double levels[MOST_FIGURES], spread_sum; /* of each figure: see low_quantile */
	int counted;
};

static inline const struct stack_facts *warmup_stack(const struct warmup *w, enum stack stack) {
	return &w->model->facts.stack[stack];
}

static inline bool warmup_has_pairs(const struct warmup *w) {
	return warmup_stack(w, STACK_ENCODER)->layers > 0
	                && warmup_stack(w, STACK_DECODER)->layers > 0;
}

/* `depth` of `stack`, and `other` of the other one, if the model has it. */
bool warmup_subnet(const struct warmup *w, enum stack stack, int depth, int other,
                struct subnet *ret_subnet);

/* `count` rows of one sequence from position `at` on, appended to the step's *n rows. */
void warmup_add_rows(
                struct warmup *w, enum stack stack, int *n, struct sequence *s, int at, int count);

/* A step of the first n rows. */
double warmup_run_ms(struct warmup *w, int n);

/*
 * A sequence for `tokens` rows of `stack`; a decoder's source is one token. May run a step, which
 * takes the rows. NULL if the pool cannot hold it.
 */
struct sequence *warmup_open(
                struct warmup *w, enum stack stack, const struct subnet *subnet, int tokens);

/* How many texts of `tokens` tokens a step takes. */
int warmup_texts_in_a_step(const struct warmup *w, enum stack stack, int tokens);

/* One step of `rows` rows from position 0 on, in texts of at most `text` tokens; negative if the
 * pool cannot hold them. */
double warmup_texts_ms(struct warmup *w, enum stack stack, const struct subnet *subnet, int rows,
                int text);

/* One step of `rows` rows as they mostly come, at warmup_subnet's depths; negative if the pool
 * cannot hold them. */
double warmup_depth_ms(struct warmup *w, enum stack stack, int depth, int other, int rows);
/* Whether those rows are beams of searches. Else the texts are as long as warmup_text_length. */
bool warmup_is_search(const struct warmup *w, enum stack stack, int rows);
int warmup_text_length(const struct warmup *w, enum stack stack, int rows);

#endif
