/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts of words whose tokens the server has counted, and prompts from a file. */
#include "bench/client/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/parts.h"
#include "model/doc.h"

enum { MOST_WORDS = 1024, BATCH = 32, FEW = 64 };

struct word {
	const char *text;
	int len;
	int tokens; /* behind a blank */
	int32_t id; /* its only one */
};

struct prompts {
	struct word words[MOST_WORDS];
	int n_words;
	int n_single;    /* the first of them have one token each */
	double per_word; /* tokens, where words were not counted one by one */
	int special;     /* tokens that the server puts around a text */
	bool exact, ids;
	struct buffer file;
	struct line {
		const char *text;
		size_t len;
	} * lines;
	size_t n_lines;
};

/* ---- a file ---------------------------------------------------------------------------------- */

static bool add_line(struct prompts *p, const char *text, size_t len, size_t *cap) {
	if (len > 0 && text[len - 1] == '\r')
		len--;
	if (len == 0)
		return true;
	if (p->n_lines == *cap) {
		size_t more = *cap ? 2 * *cap : 256;
		struct line *lines = realloc(p->lines, more * sizeof *lines);
		if (!lines)
			return false;
		p->lines = lines;
		*cap = more;
	}
	p->lines[p->n_lines++] = (struct line){ text, len };
	return true;
}

static bool read_lines(struct prompts *p, const struct prompts_options *options, char *err,
                size_t errlen) {
	struct load_random random;
	size_t cap = 0;
	if (!load_slurp(options->file, &p->file, err, errlen))
		return false;
	const char *at = p->file.data, *end = at + p->file.len;
	while (at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((stop ? stop : end) - at);
		if (!add_line(p, at, len, &cap)) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		at += len + 1;
	}
	if (p->n_lines == 0) {
		snprintf(err, errlen, "%.300s has no text", options->file);
		return false;
	}
	load_random_init(&random, options->seed);
	for (size_t i = p->n_lines - 1; i > 0; i--) {
		size_t j = (size_t)load_random_below(&random, i + 1);
		struct line swap = p->lines[i];
		p->lines[i] = p->lines[j];
		p->lines[j] = swap;
	}
	return true;
}

/* ---- words ----------------------------------------------------------------------------------- */

static void split_words(struct prompts *p) {
	const char *at = prompt_words;
	while (*at && p->n_words < MOST_WORDS) {
		size_t len = strcspn(at, " ");
		p->words[p->n_words++] = (struct word){ at, (int)len, 1, 0 };
		at += len + (at[len] == ' ');
	}
}

/* Asks /tokenize; NULL if it has no good answer. */
static struct doc *tokenize(struct client *client, const char *body, size_t len) {
	struct buffer answer = { 0 };
	char ignored[256];
	int status;
	struct doc *doc = NULL;
	if (client_fetch(client, "/tokenize", body, len, &status, &answer, ignored, sizeof ignored)
	                && status == 200 && answer.len > 0)
		doc = doc_parse(answer.data, answer.len, "", ignored, sizeof ignored);
	buffer_finish(&answer);
	return doc;
}

static bool count_of(const struct doc *result, int *ret) {
	int64_t count;
	if (!doc_as_int(doc_get(result, "count"), &count) || count < 0 || count > INT32_MAX)
		return false;
	*ret = (int)count;
	return true;
}

static void open_body(struct buffer *body, const struct prompts_options *options) {
	buffer_clear(body);
	buffer_puts(body, "{");
	if (options->model && options->model[0]) {
		buffer_puts(body, "\"model\":");
		buffer_json_string(body, options->model, strlen(options->model));
		buffer_puts(body, ",");
	}
	buffer_puts(body, "\"prompt\":");
}

/* Counts the tokens of some words, each behind a blank. */
static bool count_batch(struct prompts *p, struct client *client,
                const struct prompts_options *options, int first, int n) {
	struct buffer body = { 0 };
	char text[64];
	open_body(&body, options);
	for (int i = 0; i < n; i++) {
		const struct word *w = &p->words[first + i];
		int len = snprintf(text, sizeof text, " %.*s", w->len, w->text);
		buffer_puts(&body, i ? "," : "[");
		buffer_json_string(&body, text, (size_t)len);
	}
	buffer_puts(&body, "],\"add_special_tokens\":false}");
	struct doc *doc = body.failed ? NULL : tokenize(client, body.data, body.len);
	const struct doc *results = doc_get(doc, "results");
	bool ok = doc_count(results) == (size_t)n;
	for (int i = 0; ok && i < n; i++) {
		const struct doc *result = doc_at(results, (size_t)i);
		int64_t id = 0;
		ok = count_of(result, &p->words[first + i].tokens) && p->words[first + i].tokens > 0
		                && doc_as_int(doc_at(doc_get(result, "tokens"), 0), &id);
		p->words[first + i].id = (int32_t)id;
	}
	doc_free(doc);
	buffer_finish(&body);
	return ok;
}

/* Tokens of `text`, with or without special ones; < 0: no answer. */
static int count_text(struct client *client, const struct prompts_options *options,
                const char *text, bool special) {
	struct buffer body = { 0 };
	int count = -1;
	open_body(&body, options);
	buffer_json_string(&body, text, strlen(text));
	buffer_printf(&body, ",\"add_special_tokens\":%s}", special ? "true" : "false");
	struct doc *doc = body.failed ? NULL : tokenize(client, body.data, body.len);
	if (!count_of(doc, &count))
		count = -1;
	doc_free(doc);
	buffer_finish(&body);
	return count;
}

/* Words of one token to the front. */
static void sort_words(struct prompts *p) {
	for (int i = 0; i < p->n_words; i++) {
		if (p->words[i].tokens != 1)
			continue;
		struct word swap = p->words[p->n_single];
		p->words[p->n_single++] = p->words[i];
		p->words[i] = swap;
	}
}

static void calibrate(
                struct prompts *p, struct client *client, const struct prompts_options *options) {
	int with = count_text(client, options, "the", true);
	int without = count_text(client, options, "the", false);
	p->per_word = 1.3; /* of usual byte-pair encodings of English */
	p->special = with > without && without > 0 ? with - without : 0;
	if (without < 0)
		return;
	p->exact = true;
	for (int i = 0; p->exact && i < p->n_words; i += BATCH) {
		int left = p->n_words - i;
		p->exact = count_batch(p, client, options, i, left < BATCH ? left : BATCH);
	}
	if (p->exact) {
		sort_words(p);
		return;
	}
	int all = count_text(client, options, prompt_words, false);
	if (all > 0)
		p->per_word = (double)all / p->n_words;
}

struct prompts *prompts_create(struct client *client, const struct prompts_options *options,
                char *err, size_t errlen) {
	struct prompts *p = calloc(1, sizeof *p);
	bool ok = p;
	snprintf(err, errlen, "memory ran out");
	if (!p)
		return NULL;
	p->ids = options->ids;
	if (options->file) {
		ok = read_lines(p, options, err, errlen);
		if (options->ids) {
			snprintf(err, errlen, "token ids and lines of a file exclude each other");
			ok = false;
		}
	} else {
		split_words(p);
		calibrate(p, client, options);
		if (p->ids && p->n_single < FEW) {
			snprintf(err, errlen,
			                "token ids need a server whose /tokenize takes a list of "
			                "texts and knows common words as single tokens");
			ok = false;
		}
	}
	if (ok)
		return p;
	prompts_destroy(p);
	return NULL;
}

void prompts_destroy(struct prompts *p) {
	if (!p)
		return;
	buffer_finish(&p->file);
	free(p->lines);
	free(p);
}

bool prompts_are_exact(const struct prompts *p) {
	return p->exact;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_ids(
                const struct prompts *p, struct load_random *random, int n, struct buffer *out) {
	buffer_puts(out, "[");
	for (int i = 0; i < n; i++) {
		uint64_t at = load_random_below(random, (uint64_t)p->n_single);
		buffer_printf(out, "%s%d", i ? "," : "", (int)p->words[at].id);
	}
	buffer_puts(out, "]");
}

/* Words whose tokens add up to `n`. */
static void write_words(
                const struct prompts *p, struct load_random *random, double n, struct buffer *out) {
	bool any = false;
	buffer_puts(out, "\"");
	while (n > 0 || !any) {
		/* Near the end only words of one token hit the length. */
		bool single = p->exact && n < 8 && p->n_single > 0;
		int words = single ? p->n_single : p->n_words;
		const struct word *w = &p->words[load_random_below(random, (uint64_t)words)];
		/* Also before the first: so it was counted. */
		buffer_puts(out, " ");
		buffer_append(out, w->text, (size_t)w->len);
		n -= p->exact ? w->tokens : p->per_word;
		any = true;
	}
	buffer_puts(out, "\"");
}

void prompts_write(const struct prompts *p, const struct load_request *request, size_t index,
                struct buffer *out) {
	struct load_random random;
	if (p->n_lines > 0) {
		const struct line *line = &p->lines[index % p->n_lines];
		buffer_json_string(out, line->text, line->len);
		return;
	}
	load_random_init(&random, request->seed);
	int n = request->prompt_tokens;
	if (p->ids)
		write_ids(p, &random, n, out);
	else
		write_words(p, &random, n > p->special ? n - p->special : 1, out);
}
