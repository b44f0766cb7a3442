/* SPDX-License-Identifier: Apache-2.0 */
/* The steps that the warm-up measures: rows of texts, prompts and searches that nobody asked for. */
#include "server/clock.h"
#include "server/warmup_parts.h"

enum { SENTENCE = 32 };

static int32_t token_at(const struct warmup *w, enum stack stack, int i) {
	int vocab = warmup_stack(w, stack)->vocab;
	return (int32_t)((unsigned)i * 7919u
	                % (unsigned)(vocab > 0 ? vocab : w->model->facts.vocab));
}

/* `depth` of `stack`, and `other` of the other one, if the model has it. */
bool warmup_subnet(const struct warmup *w, enum stack stack, int depth, int other,
                struct subnet *ret_subnet) {
	int depths[STACKS];
	for (int s = 0; s < STACKS; s++)
		depths[s] = warmup_stack(w, (enum stack)s)->layers > 0 ? other : 0;
	depths[stack] = depth;
	return model_subnet_pair(w->model, PLAN_RULE_EVEN, depths, ret_subnet);
}

/* `count` rows of one sequence from position `at` on, appended to the step's rows. */
void warmup_add_rows(
                struct warmup *w, enum stack stack, int *n, struct sequence *s, int at, int count) {
	for (int i = 0; i < count; i++)
		w->rows[(*n)++] = (struct row){ .sequence = s,
			.stack = stack,
			.token = token_at(w, stack, at + i),
			.position = at + i };
}

double warmup_run_ms(struct warmup *w, int n) {
	int64_t before = clock_now_ns();
	step_run(w->workspace, w->rows, n);
	return clock_ms(clock_now_ns() - before);
}

/* A sequence for `tokens` rows of `stack`; a decoder's source is one token. NULL if the pool cannot
 * hold it. */
struct sequence *warmup_open(
                struct warmup *w, enum stack stack, const struct subnet *subnet, int tokens) {
	if (stack == STACK_ENCODER)
		return sequence_open_source(
		                w->workspace, subnet, warmup_has_pairs(w) ? 1 : 0, tokens);
	if (!warmup_has_pairs(w))
		return sequence_open(w->workspace, subnet, tokens);
	struct sequence *s = sequence_open_source(w->workspace, subnet, tokens, 1);
	if (s) {
		int n = 0;
		warmup_add_rows(w, STACK_ENCODER, &n, s, 0, 1);
		step_run(w->workspace, w->rows, n);
	}
	return s;
}

/* How many texts of `tokens` tokens a step takes. */
int warmup_texts_in_a_step(const struct warmup *w, enum stack stack, int tokens) {
	int most = w->limits->sequences < MOST_SEQUENCES ? w->limits->sequences : MOST_SEQUENCES;
	int tiles = (tokens + KV_TILE - 1) / KV_TILE;
	if (stack == STACK_ENCODER && workspace_source_tiles(w->workspace) / tiles < most)
		most = workspace_source_tiles(w->workspace) / tiles;
	return most;
}

/* One step of `rows` rows from position 0 on, in texts of at most `text` tokens; negative if the
 * pool cannot hold them. */
double warmup_texts_ms(struct warmup *w, enum stack stack, const struct subnet *subnet, int rows,
                int text) {
	struct sequence *open[MOST_SEQUENCES];
	int most = warmup_texts_in_a_step(w, stack, text), texts = 0, n = 0;
	double ms = -1;
	for (int left = rows; left > 0 && texts < most; texts++) {
		int count = left < text ? left : text;
		open[texts] = warmup_open(w, stack, subnet, count);
		if (!open[texts])
			break;
		left -= count;
	}
	for (int i = 0; i < texts; i++) {
		int left = rows - n;
		warmup_add_rows(w, stack, &n, open[i], 0, left < text ? left : text);
	}
	if (n == rows)
		ms = warmup_run_ms(w, n);
	while (texts > 0)
		sequence_close(w->workspace, open[--texts]);
	return ms;
}

/* Whether so many rows of a step are beams, most of the time. */
bool warmup_is_search(const struct warmup *w, enum stack stack, int rows) {
	return warmup_has_pairs(w) && stack == STACK_DECODER && rows > 1 && rows <= MOST_SEQUENCES
	                && rows <= w->limits->sequences;
}

/* One step of `rows` decoder rows as a search has them: each in a sequence of its own, every second
 * one forked just before. */
static double beams_step_ms(struct warmup *w, const struct subnet *subnet, int rows) {
	struct sequence *open[MOST_SEQUENCES] = { NULL };
	int bases = (rows + 1) / 2, n = 0;
	double ms = -1;
	bool ready = true;
	for (int i = 0; i < bases && ready; i++) {
		open[i] = warmup_open(w, STACK_DECODER, subnet, 2);
		ready = open[i] != NULL;
	}
	for (int i = 0; i < bases && ready; i++)
		warmup_add_rows(w, STACK_DECODER, &n, open[i], 0, 1);
	if (ready) {
		warmup_run_ms(w, n);
		int64_t before = clock_now_ns();
		for (int i = bases; i < rows && ready; i++) {
			open[i] = sequence_fork(w->workspace, open[i - bases], 2);
			ready = open[i] != NULL;
		}
		n = 0;
		for (int i = 0; i < rows && ready; i++)
			warmup_add_rows(w, STACK_DECODER, &n, open[i], 1, 1);
		if (ready)
			step_run(w->workspace, w->rows, n);
		ms = ready ? clock_ms(clock_now_ns() - before) : -1;
	}
	for (int i = 0; i < rows; i++)
		sequence_close(w->workspace, open[i]);
	return ms;
}

/* How long the texts of such a step are: a prompt fills the context. An encoder's texts are as long
 * as a sentence if so many fit, since what they attend to is to be told from what a row takes. */
int warmup_text_length(const struct warmup *w, enum stack stack, int rows) {
	int context = warmup_stack(w, stack)->context, length = context;
	if (stack == STACK_ENCODER)
		length = SENTENCE;
	while (length < context && length * warmup_texts_in_a_step(w, stack, length) < rows)
		length *= 2;
	length = length < context ? length : context;
	return rows < length ? rows : length;
}

double warmup_depth_ms(struct warmup *w, enum stack stack, int depth, int other, int rows) {
	struct subnet subnet;
	if (!warmup_subnet(w, stack, depth, other, &subnet))
		return -1;
	if (warmup_is_search(w, stack, rows))
		return beams_step_ms(w, &subnet, rows);
	return warmup_texts_ms(w, stack, &subnet, rows, warmup_text_length(w, stack, rows));
}
