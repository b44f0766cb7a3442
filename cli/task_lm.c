/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Perplexity, cut into blocks as fairseq-eval-lm cuts (token_block_dataset.py,
 * lm_context_window_dataset.py): the texts, each closed by the end symbol, are one row of tokens. A
 * block scores --tokens-per-sample less --context-window of them, and is preceded by up to
 * --context-window tokens that it only sees. The first input of all is the start symbol; a later
 * block's first input is the token before it. Models trained with --add-bos-token see <s> before
 * every block, and the end symbol as the first input of all.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/task_parts.h"

enum { DEFAULT_SAMPLE = 512, ROWS = 512, LOGIT_ROWS = 64 };

/* Scores tokens [first, end), seeing those from `context` on. */
struct block {
	int context, first, end;
};

struct lm {
	int32_t *tokens;
	int n_tokens;
	size_t cap_tokens, cap_texts;
	int *ends; /* [n_texts] where each text ends, its end symbol included */
	int n_texts;
	struct block *blocks;
	int n_blocks;
	int32_t start, bos; /* bos: stands before every block; -1: nothing does */
	struct row *rows;
	int *indices;
};

/* ---- texts ---- */

/* The next text of `unit`: a line, what stands between empty lines, or the whole file. */
static bool next_text(const char *unit, const char **at, const char *end, const char **ret_text,
                size_t *ret_len) {
	if (strcmp(unit, "line") == 0)
		return task_next_line(at, end, ret_text, ret_len);
	if (strcmp(unit, "file") != 0) {
		while (*at < end && **at == '\n')
			(*at)++;
	}
	if (*at >= end)
		return false;
	const char *stop = strcmp(unit, "file") == 0 ? NULL
	                                             : memmem(*at, (size_t)(end - *at), "\n\n", 2);
	*ret_text = *at;
	*at = stop ? stop : end;
	*ret_len = (size_t)(*at - *ret_text);
	while (*ret_len > 0 && (*ret_text)[*ret_len - 1] == '\n')
		(*ret_len)--;
	return true;
}

/* Makes room for `more` elements of `size` bytes after the first n; *cap only doubles. */
static bool grow(void *list, size_t n, size_t more, size_t size, size_t *cap) {
	size_t wanted = *cap ? *cap : 1024;
	while (wanted < n + more)
		wanted *= 2;
	if (wanted == *cap)
		return true;
	void *grown = realloc(*(void **)list, wanted * size);
	if (!grown)
		return false;
	*(void **)list = grown;
	*cap = wanted;
	return true;
}

/* A text and its end symbol. */
static bool append(struct lm *lm, const struct ids *ids, int32_t eos) {
	size_t n = (size_t)lm->n_tokens, more = (size_t)ids->n + 1;
	if (n + more > INT32_MAX / 2
	                || !grow(&lm->tokens, n, more, sizeof *lm->tokens, &lm->cap_tokens)
	                || !grow(&lm->ends, (size_t)lm->n_texts, 1, sizeof *lm->ends,
	                                &lm->cap_texts))
		return false;
	memcpy(lm->tokens + n, ids->at, (size_t)ids->n * sizeof *ids->at);
	lm->n_tokens = (int)(n + more);
	lm->tokens[lm->n_tokens - 1] = eos;
	lm->ends[lm->n_texts++] = lm->n_tokens;
	return true;
}

static bool read_texts(struct task *t, struct lm *lm, char *err, size_t errlen) {
	const struct task_options *o = &t->options;
	size_t size, len;
	char *file = task_read_file(o->data, &size, err, errlen);
	const char *at = file, *text;
	bool ok = file != NULL;
	while (ok && (o->limit == 0 || lm->n_texts < o->limit)
	                && next_text(o->unit, &at, file + size, &text, &len)) {
		struct ids ids;
		ok = task_encode(t, t->session->model->tokenizer, text, len, NULL, 0, false, &ids,
		                err, errlen);
		if (!ok)
			break;
		ok = append(lm, &ids, t->session->model->facts.eos);
		if (!ok)
			snprintf(err, errlen, "%s: too many tokens", o->data);
		free(ids.at);
	}
	free(file);
	if (ok && lm->n_tokens == 0) {
		snprintf(err, errlen, "%s: no text", o->data);
		ok = false;
	}
	return ok;
}

/* ---- blocks ---- */

static void add_block(struct lm *lm, int first, int end, int sample, int window) {
	int seen = window < first ? window : first;
	if (end - first + seen > sample)
		seen = sample > end - first ? sample - (end - first) : 0;
	lm->blocks[lm->n_blocks++] =
	                (struct block){ .context = first - seen, .first = first, .end = end };
}

static bool cut(struct task *t, struct lm *lm, char *err, size_t errlen) {
	const struct task_options *o = &t->options;
	const int sample = o->tokens_per_sample, size = sample - o->context_window;
	lm->blocks = calloc((size_t)lm->n_texts + (size_t)lm->n_tokens / (size_t)size + 1,
	                sizeof *lm->blocks);
	if (!lm->blocks) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	if (strcmp(o->sample_break_mode, "none") == 0) {
		for (int at = 0; at < lm->n_tokens; at += size)
			add_block(lm, at, at + size < lm->n_tokens ? at + size : lm->n_tokens,
			                sample, o->context_window);
		return true;
	}
	bool join = strcmp(o->sample_break_mode, "complete") == 0;
	int first = 0;
	for (int i = 0; i < lm->n_texts; i++) {
		int begin = i > 0 ? lm->ends[i - 1] : 0;
		if (lm->ends[i] - begin > sample) {
			snprintf(err, errlen,
			                "%s: text %d has %d tokens, more than --tokens-per-sample "
			                "(%d) holds; use --sample-break-mode none",
			                o->data, i + 1, lm->ends[i] - begin, sample);
			return false;
		}
		if (begin > first && (!join || lm->ends[i] - first > size)) {
			add_block(lm, first, begin, sample, o->context_window);
			first = begin;
		}
	}
	add_block(lm, first, lm->n_tokens, sample, o->context_window);
	return true;
}

static bool check_options(struct task *t, const struct lm *lm, char *err, size_t errlen) {
	struct task_options *o = &t->options;
	const struct facts *facts = &t->session->model->facts;
	const int longest = facts->context - (lm->bos >= 0);
	if (o->tokens_per_sample == 0)
		o->tokens_per_sample = longest < DEFAULT_SAMPLE ? longest : DEFAULT_SAMPLE;
	if (o->tokens_per_sample > longest)
		snprintf(err, errlen, "--tokens-per-sample is %d, but the model's context is %d",
		                o->tokens_per_sample, longest);
	else if (o->context_window >= o->tokens_per_sample)
		snprintf(err, errlen, "--context-window must be below --tokens-per-sample (%d)",
		                o->tokens_per_sample);
	else if (strcmp(o->sample_break_mode, "none") != 0
	                && strcmp(o->sample_break_mode, "complete") != 0
	                && strcmp(o->sample_break_mode, "eos") != 0)
		snprintf(err, errlen, "--sample-break-mode is none, complete or eos");
	else if (strcmp(o->unit, "line") != 0 && strcmp(o->unit, "paragraph") != 0
	                && strcmp(o->unit, "file") != 0)
		snprintf(err, errlen, "--unit is line, paragraph or file");
	else if (facts->eos < 0)
		snprintf(err, errlen, "the model has no end symbol");
	else
		return true;
	return false;
}

static void choose_start(struct lm *lm, const struct model *model) {
	int32_t eos = model->facts.eos;
	lm->start = tokenizer_bos(model->tokenizer);
	lm->bos = -1;
	if (tokenizer_is_fairseq(model->tokenizer) && lm->start >= 0 && lm->start != eos) {
		lm->bos = lm->start;
		lm->start = eos;
	}
	if (lm->start < 0)
		lm->start = eos;
}

static bool open_lm(struct task *t, char *err, size_t errlen) {
	struct lm *lm = t->data = calloc(1, sizeof *lm);
	const struct model *model = t->session->model;
	if (!lm) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	choose_start(lm, model);
	if (!check_options(t, lm, err, errlen) || !read_texts(t, lm, err, errlen)
	                || !cut(t, lm, err, errlen))
		return false;
	t->items = lm->n_tokens;
	int sample = t->options.tokens_per_sample + (lm->bos >= 0);
	int rows = sample > ROWS ? sample : ROWS;
	if (t->options.batch > 0)
		rows = t->options.batch * sample;
	lm->rows = calloc((size_t)rows, sizeof *lm->rows);
	lm->indices = calloc(LOGIT_ROWS, sizeof *lm->indices);
	if (!lm->rows || !lm->indices) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	/* Short blocks: a step holds as many as it has tiles of keys. */
	int sequences = t->options.batch > 0 ? t->options.batch : 1 + rows / KV_TILE;
	return session_prepare(t->session,
	                &(struct session_size){ .rows = rows,
	                                .logit_rows = LOGIT_ROWS,
	                                .sequences = sequences,
	                                .tokens = sample },
	                err, errlen);
}

static void close_lm(struct task *t) {
	struct lm *lm = t->data;
	if (!lm)
		return;
	free(lm->tokens);
	free(lm->ends);
	free(lm->blocks);
	free(lm->rows);
	free(lm->indices);
	free(lm);
}

/* ---- running ---- */

/* Scores the rows of the last step: row i predicts token targets[i]; -1: not scored. */
static bool score_rows(struct task *t, struct lm *lm, const int32_t *targets, int n, double *sum,
                char *err, size_t errlen) {
	struct session *s = t->session;
	size_t stride = step_logits_stride(s->w);
	struct logit_need needs[LOGIT_ROWS];
	for (int at = 0; at < n;) {
		int m = 0;
		for (; at < n && m < LOGIT_ROWS; at++) {
			if (targets[at] < 0)
				continue;
			needs[m] = (struct logit_need){ .top = 0, .target = targets[at] };
			lm->indices[m++] = at;
		}
		if (m == 0)
			break;
		const float *logits = step_logits_needed(s->w, lm->indices, needs, m);
		for (int i = 0; i < m; i++) {
			float logprob;
			if (!sample_logprobs(s->sampler, logits + (size_t)i * stride,
			                    needs[i].target, 0, &logprob, NULL, NULL)) {
				snprintf(err, errlen, "the model's scores are not finite");
				return false;
			}
			*sum -= (double)logprob;
		}
	}
	return true;
}

/* Runs as many blocks as a step holds, from block `from` on; returns how many, 0 on failure. */
static int run_step(struct task *t, const struct subnet *subnet, int from, double *sum, char *err,
                size_t errlen) {
	struct lm *lm = t->data;
	struct session *s = t->session;
	struct sequence *open[1 + ROWS];
	int n = 0, count = 0;
	int32_t *targets = malloc((size_t)s->max_rows * sizeof *targets);
	if (!targets) {
		snprintf(err, errlen, "memory ran out");
		return 0;
	}
	while (from + count < lm->n_blocks && count < s->max_sequences && count <= ROWS) {
		const struct block *b = &lm->blocks[from + count];
		int before = lm->bos >= 0, length = b->end - b->context + before;
		if (n + length > s->max_rows)
			break;
		struct sequence *sequence = sequence_open(s->w, subnet, length);
		if (!sequence)
			break;
		open[count++] = sequence;
		if (before) {
			targets[n] = -1;
			lm->rows[n++] = (struct row){
				.sequence = sequence, .stack = STACK_DECODER, .token = lm->bos
			};
		}
		for (int i = b->context; i < b->end; i++) {
			targets[n] = i < b->first ? -1 : lm->tokens[i];
			lm->rows[n++] = (struct row){ .sequence = sequence,
				.stack = STACK_DECODER,
				.token = i > 0 ? lm->tokens[i - 1] : lm->start,
				.position = i - b->context + before };
		}
	}
	bool ok = count > 0;
	if (ok) {
		step_run(s->w, lm->rows, n);
		ok = score_rows(t, lm, targets, n, sum, err, errlen);
	} else {
		snprintf(err, errlen, "memory ran out");
	}
	for (int i = 0; i < count; i++)
		sequence_close(s->w, open[i]);
	free(targets);
	return ok ? count : 0;
}

static bool run_lm(struct task *t, const struct subnet *subnet, bool quality,
                struct task_score *score, char *err, size_t errlen) {
	struct lm *lm = t->data;
	double sum = 0, began = task_now_ms();
	for (int i = 0; i < lm->n_blocks;) {
		int done = run_step(t, subnet, i, &sum, err, errlen);
		if (done == 0)
			return false;
		i += done;
		task_report(t, (double)i / lm->n_blocks);
	}
	score->ms = task_now_ms() - began;
	score->items = lm->n_tokens;
	score->loss = sum / lm->n_tokens;
	if (quality)
		score->quality = exp(score->loss);
	return true;
}

const struct task_kind task_lm = { .name = "lm",
	.metric = "perplexity",
	.item = "token",
	.model = KIND_LM,
	.open = open_lm,
	.close = close_lm,
	.run = run_lm };
