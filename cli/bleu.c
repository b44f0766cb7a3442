/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLEU. The tokeniser's regular expressions are four passes over bytes: all classes they test are
 * ASCII, so that a byte of a longer character behaves as its character does.
 */
#include "cli/bleu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/text.h"

/* ---- 13a ---- */

static void put(struct text *s, char c) {
	text_append(s, &c, 1);
}

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

static bool is_point(char c) {
	return c == '.' || c == ',';
}

/* What stands apart from its neighbours: ASCII punctuation but for ' , - and . */
static bool stands_apart(char c) {
	return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&')
	                || (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/* Every `from` in `s` becomes `to`. */
static void replace(struct text *s, const char *from, const char *to) {
	struct text next = { .failed = s->failed };
	size_t n = strlen(from);
	for (size_t i = 0; i < s->len;) {
		if (s->len - i >= n && memcmp(s->bytes + i, from, n) == 0) {
			text_append(&next, to, strlen(to));
			i += n;
		} else {
			put(&next, s->bytes[i++]);
		}
	}
	free(s->bytes);
	*s = next;
}

/* Marks and entities of the old NIST format, one after the other: "&amp;lt;" becomes "<". */
static void clean(struct text *s, const char *text, size_t len) {
	static const char *const replacements[][2] = { { "<skipped>", "" }, { "-\n", "" },
		{ "\n", " " }, { "&quot;", "\"" }, { "&amp;", "&" }, { "&lt;", "<" },
		{ "&gt;", ">" } };
	text_append(s, text, len);
	for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++)
		replace(s, replacements[i][0], replacements[i][1]);
	struct text spaced = { .failed = s->failed };
	put(&spaced, ' ');
	text_append(&spaced, s->bytes, s->len);
	put(&spaced, ' ');
	free(s->bytes);
	*s = spaced;
}

static void pass_apart(struct text *out, const struct text *in) {
	for (size_t i = 0; i < in->len; i++) {
		bool apart = stands_apart(in->bytes[i]);
		if (apart)
			put(out, ' ');
		put(out, in->bytes[i]);
		if (apart)
			put(out, ' ');
	}
}

/* ([^0-9])([.,]) -> "\1 \2 " */
static void pass_point_after(struct text *out, const struct text *in) {
	for (size_t i = 0; i < in->len; i++) {
		put(out, in->bytes[i]);
		if (i + 1 < in->len && !is_digit(in->bytes[i]) && is_point(in->bytes[i + 1])) {
			put(out, ' ');
			put(out, in->bytes[++i]);
			put(out, ' ');
		}
	}
}

/* ([.,])([^0-9]) -> " \1 \2" */
static void pass_point_before(struct text *out, const struct text *in) {
	for (size_t i = 0; i < in->len; i++) {
		bool point = i + 1 < in->len && is_point(in->bytes[i])
		                && !is_digit(in->bytes[i + 1]);
		if (point)
			put(out, ' ');
		put(out, in->bytes[i]);
		if (point) {
			put(out, ' ');
			put(out, in->bytes[++i]);
		}
	}
}

/* ([0-9])(-) -> "\1 \2 " */
static void pass_dash(struct text *out, const struct text *in) {
	for (size_t i = 0; i < in->len; i++) {
		put(out, in->bytes[i]);
		if (i + 1 < in->len && is_digit(in->bytes[i]) && in->bytes[i + 1] == '-') {
			put(out, ' ');
			put(out, in->bytes[++i]);
			put(out, ' ');
		}
	}
}

/* Runs of white space (what Python's str.split() splits at) become one space; none at the ends. */
static void pass_spaces(struct text *out, const struct text *in) {
	for (size_t i = 0; i < in->len;) {
		size_t skip = text_space(in->bytes + i, in->len - i);
		if (!skip) {
			put(out, in->bytes[i++]);
			continue;
		}
		i += skip;
		if (out->len > 0 && out->bytes[out->len - 1] != ' ')
			put(out, ' ');
	}
	if (out->len > 0 && out->bytes[out->len - 1] == ' ')
		out->len--;
}

char *bleu_tokenise(const char *text, size_t len) {
	static void (*const passes[])(struct text *, const struct text *) = { pass_apart,
		pass_point_after, pass_point_before, pass_dash, pass_spaces };
	struct text s = { 0 };
	/* sacrebleu takes white space off the end of every line first. */
	clean(&s, text, text_without_space_behind(text, len));
	for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
		struct text next = { .failed = s.failed };
		passes[i](&next, &s);
		free(s.bytes);
		s = next;
	}
	put(&s, '\0');
	if (!s.failed)
		return s.bytes;
	free(s.bytes);
	return NULL;
}

/* ---- counts ---- */

struct words {
	const char **at; /* [n + 1]: the last is the text's end */
	int n;
};

static bool split(const char *text, struct words *ret) {
	size_t len = strlen(text), n = 0;
	ret->at = calloc(len + 2, sizeof *ret->at);
	if (!ret->at)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (i == 0 || text[i - 1] == ' ')
			ret->at[n++] = text + i;
	}
	ret->at[n] = text + len + 1;
	ret->n = (int)n;
	return true;
}

/* An n-gram: its text and how often it is there. */
struct gram {
	const char *text;
	size_t len;
	int count;
};

static int compare(const void *a, const void *b) {
	const struct gram *x = a, *y = b;
	size_t len = x->len < y->len ? x->len : y->len;
	int order = memcmp(x->text, y->text, len);
	return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* The different n-grams, sorted; NULL if memory ran out. */
static struct gram *grams(const struct words *words, int order, int *ret_n) {
	int n = words->n - order + 1, kept = 0;
	struct gram *list = calloc(n > 0 ? (size_t)n : 1, sizeof *list);
	*ret_n = 0;
	if (!list || n <= 0)
		return list;
	for (int i = 0; i < n; i++)
		list[i] = (struct gram){ words->at[i],
			(size_t)(words->at[i + order] - words->at[i] - 1), 1 };
	qsort(list, (size_t)n, sizeof *list, compare);
	for (int i = 0; i < n; i++) {
		if (kept > 0 && compare(&list[kept - 1], &list[i]) == 0)
			list[kept - 1].count++;
		else
			list[kept++] = list[i];
	}
	*ret_n = kept;
	return list;
}

static bool add_order(struct bleu *b, const struct words *h, const struct words *r, int order) {
	int n_h, n_r;
	struct gram *in_h = grams(h, order, &n_h), *in_r = grams(r, order, &n_r);
	for (int i = 0, k = 0; in_h && in_r && i < n_h; i++) {
		while (k < n_r && compare(&in_r[k], &in_h[i]) < 0)
			k++;
		if (k < n_r && compare(&in_r[k], &in_h[i]) == 0)
			b->correct[order - 1] += in_h[i].count < in_r[k].count ? in_h[i].count
			                                                       : in_r[k].count;
	}
	if (h->n >= order)
		b->total[order - 1] += h->n - order + 1;
	bool ok = in_h && in_r;
	free(in_h);
	free(in_r);
	return ok;
}

bool bleu_add(struct bleu *b, const char *hypothesis, size_t hypothesis_len, const char *reference,
                size_t reference_len) {
	char *h = bleu_tokenise(hypothesis, hypothesis_len);
	char *r = bleu_tokenise(reference, reference_len);
	struct words in_h = { 0 }, in_r = { 0 };
	bool ok = h && r && split(h, &in_h) && split(r, &in_r);
	if (ok) {
		b->hypothesis_len += in_h.n;
		b->reference_len += in_r.n;
	}
	for (int order = 1; ok && order <= BLEU_ORDER; order++)
		ok = add_order(b, &in_h, &in_r, order);
	free(in_h.at);
	free(in_r.at);
	free(h);
	free(r);
	return ok;
}

double bleu_score(const struct bleu *b) {
	double log_sum = 0, smooth = 1;
	bool any = false;
	for (int i = 0; i < BLEU_ORDER; i++) {
		if (b->total[i] == 0)
			return 0;
		any = any || b->correct[i] > 0;
		double precision = b->correct[i] > 0 ? (double)b->correct[i] / (double)b->total[i]
		                                     : 1 / ((smooth *= 2) * (double)b->total[i]);
		log_sum += log(precision);
	}
	if (!any || b->hypothesis_len == 0)
		return 0;
	double penalty = b->hypothesis_len < b->reference_len
	                ? exp(1 - (double)b->reference_len / (double)b->hypothesis_len)
	                : 1;
	return 100 * penalty * exp(log_sum / BLEU_ORDER);
}
