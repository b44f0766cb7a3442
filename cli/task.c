/* SPDX-License-Identifier: Apache-2.0 */
/* What the three tasks share: choosing one, reading files, encoding texts. */
#include "cli/task.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/task_parts.h"

static const struct task_kind *const kinds[] = { &task_lm, &task_classify, &task_translate };

static const struct task_kind *kind_of(
                const char *name, enum model_kind model, char *err, size_t errlen) {
	static const char *const models[] = { [KIND_LM] = "a language model",
		[KIND_ENCODER] = "an encoder",
		[KIND_SEQ2SEQ] = "an encoder-decoder" };
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (name ? strcmp(kinds[i]->name, name) != 0 : kinds[i]->model != model)
			continue;
		if (kinds[i]->model == model)
			return kinds[i];
		snprintf(err, errlen, "the task %s needs %s, and this model is %s", name,
		                models[kinds[i]->model], models[model]);
		return NULL;
	}
	snprintf(err, errlen, "--task is lm, classify or translate, not \"%s\"", name);
	return NULL;
}

struct task *task_open(struct session *session, const struct task_options *options, char *err,
                size_t errlen) {
	const struct task_kind *kind =
	                kind_of(options->kind, session->model->facts.kind, err, errlen);
	struct task *t = kind ? calloc(1, sizeof *t) : NULL;
	if (!t) {
		if (kind)
			snprintf(err, errlen, "memory ran out");
		return NULL;
	}
	t->kind = kind;
	t->session = session;
	t->options = *options;
	if (kind->open(t, err, errlen))
		return t;
	task_close(t);
	return NULL;
}

void task_close(struct task *t) {
	if (!t)
		return;
	t->kind->close(t);
	free(t);
}

bool task_run(struct task *t, const struct subnet *subnet, bool quality, task_progress *progress,
                void *arg, struct task_score *ret_score, char *err, size_t errlen) {
	struct task_score score = { .quality = NAN };
	t->progress = progress;
	t->progress_arg = arg;
	task_report(t, 0);
	if (!t->kind->run(t, subnet, quality, &score, err, errlen))
		return false;
	task_report(t, 1);
	*ret_score = score;
	return true;
}

const char *task_metric(const struct task *t) {
	return t->kind->metric;
}

const char *task_item(const struct task *t) {
	return t->kind->item;
}

long task_items(const struct task *t) {
	return t->items;
}

void task_report(struct task *t, double share) {
	if (t->progress)
		t->progress(t->progress_arg, share);
}

char *task_read_file(const char *path, size_t *ret_len, char *err, size_t errlen) {
	FILE *file = fopen(path, "rb");
	size_t len = 0, cap = 1 << 16, got;
	char *text = file ? malloc(cap + 1) : NULL;
	while (text && (got = fread(text + len, 1, cap - len, file)) > 0) {
		len += got;
		if (len < cap)
			continue;
		char *grown = realloc(text, 2 * cap + 1);
		if (!grown) {
			free(text);
			errno = ENOMEM;
		}
		text = grown;
		cap *= 2;
	}
	bool ok = text && !ferror(file);
	if (!ok)
		snprintf(err, errlen, "%s: %s", path, strerror(errno));
	if (file)
		fclose(file);
	if (!ok) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	*ret_len = len;
	return text;
}

bool task_next_line(const char **at, const char *end, const char **ret_line, size_t *ret_len) {
	if (*at >= end)
		return false;
	const char *line = *at, *newline = memchr(line, '\n', (size_t)(end - line));
	size_t len = newline ? (size_t)(newline - line) : (size_t)(end - line);
	*at = newline ? newline + 1 : end;
	*ret_line = line;
	*ret_len = len > 0 && line[len - 1] == '\r' ? len - 1 : len;
	return true;
}

bool task_encode(const struct task *t, const struct tokenizer *tokenizer, const char *text,
                size_t len, const char *pair, size_t pair_len, bool add_special, struct ids *ret,
                char *err, size_t errlen) {
	struct tokenizer_input input = { .text = text,
		.len = len,
		.pair = pair,
		.pair_len = pair_len,
		.add_special = add_special,
		.pretokenized = t->options.pretokenized };
	size_t cap = tokenizer_capacity(tokenizer, len + pair_len), n, second;
	int32_t *ids = malloc((cap + 1) * sizeof *ids);
	const char *refusal = tokenizer_refusal(tokenizer, &input);
	if (refusal) {
		free(ids);
		snprintf(err, errlen, "%s", refusal);
		return false;
	}
	if (!ids || !tokenizer_encode_input(tokenizer, &input, ids, cap, &n, &second)) {
		free(ids);
		snprintf(err, errlen, "the text \"%.*s\" cannot be encoded",
		                (int)(len < 60 ? len : 60), text);
		return false;
	}
	if (n > INT_MAX / 2) {
		free(ids);
		snprintf(err, errlen, "a text has %zu tokens, which is too many", n);
		return false;
	}
	int32_t *fitted = realloc(ids, (n ? n : 1) * sizeof *ids);
	*ret = (struct ids){ fitted ? fitted : ids, (int)n, (int)second };
	return true;
}

double task_now_ms(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}
