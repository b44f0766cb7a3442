/* SPDX-License-Identifier: Apache-2.0 */
/* Between task.c and the files of the three tasks. */
#ifndef FATHOM_CLI_TASK_PARTS_H
#define FATHOM_CLI_TASK_PARTS_H

#include "cli/task.h"

/* Token ids of one text. */
struct ids {
	int32_t *at;
	int n;
	int second; /* first token of a pair's second text; n without one */
};

struct task_kind {
	const char *name, *metric, *item;
	enum model_kind model;
	bool (*open)(struct task *t, char *err, size_t errlen);
	void (*close)(struct task *t);
	bool (*run)(struct task *t, const struct subnet *subnet, bool quality,
	                struct task_score *score, char *err, size_t errlen);
};

struct task {
	const struct task_kind *kind;
	struct session *session;
	struct task_options options;
	void *data; /* the kind's own */
	long items;
	task_progress *progress; /* while it runs */
	void *progress_arg;
};

extern const struct task_kind task_lm, task_classify, task_translate;

void task_report(struct task *t, double share);

/* A whole file, NUL-terminated beyond *ret_len; free it. NULL with a sentence. */
char *task_read_file(const char *path, size_t *ret_len, char *err, size_t errlen);

/* The next line of `text`, without its end ("\n" or "\r\n"); false at the end. */
bool task_next_line(const char **at, const char *end, const char **ret_line, size_t *ret_len);

/* Encodes a text (`pair` may be NULL); free ret->at. False with a sentence naming `where`. */
bool task_encode(const struct task *t, const struct tokenizer *tokenizer, const char *text,
                size_t len, const char *pair, size_t pair_len, bool add_special, struct ids *ret,
                char *err, size_t errlen);

/* Milliseconds of a clock that only goes forward. */
double task_now_ms(void);

#endif
