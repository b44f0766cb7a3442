/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens, sorted by text: the tokens that begin with the bytes seen so far are one range of
 * the array, which narrows with every byte. So a place in the text costs at most the longest token
 * times the logarithm of their number.
 */
#include "model/added.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

enum pass { NOT_NORMALIZED, NORMALIZED, PASSES };

struct added {
	struct added_token *tokens; /* [count], sorted by text once sealed */
	size_t count, capacity;
	bool first[PASSES][256]; /* whether a token of the pass begins with the byte */
};

struct added *added_create(void) {
	return calloc(1, sizeof(struct added));
}

void added_destroy(struct added *a) {
	if (!a)
		return;
	for (size_t i = 0; i < a->count; i++)
		free((char *)a->tokens[i].text);
	free(a->tokens);
	free(a);
}

const struct added_token *added_find_text(const struct added *a, const char *text, size_t len) {
	for (size_t i = 0; i < a->count; i++) {
		const struct added_token *t = &a->tokens[i];
		if (t->len == len && memcmp(t->text, text, len) == 0)
			return t;
	}
	return NULL;
}

const struct added_token *added_tokens(const struct added *a, size_t *ret_count) {
	*ret_count = a->count;
	return a->tokens;
}

size_t added_shortest(const struct added *a) {
	size_t shortest = SIZE_MAX;
	for (size_t i = 0; i < a->count; i++) {
		if (a->tokens[i].len < shortest)
			shortest = a->tokens[i].len;
	}
	return shortest;
}

/* Room for one more token. */
static bool make_room(struct added *a) {
	if (a->count < a->capacity)
		return true;
	size_t capacity = a->capacity * 2 + 16;
	struct added_token *tokens = realloc(a->tokens, capacity * sizeof *tokens);
	if (!tokens)
		return false;
	a->tokens = tokens;
	a->capacity = capacity;
	return true;
}

bool added_add(struct added *a, const struct added_token *token, char *err, size_t errlen) {
	if (token->len == 0 || token->len > ADDED_MAX_TOKEN) {
		snprintf(err, errlen, "added token %d is %zu bytes long, not 1 .. %d", token->id,
		                token->len, ADDED_MAX_TOKEN);
		return false;
	}
	struct added_token *same =
	                (struct added_token *)added_find_text(a, token->text, token->len);
	if (same && same->id != token->id) {
		snprintf(err, errlen, "added tokens %d and %d have the same text", same->id,
		                token->id);
		return false;
	}
	if (same) {
		const char *text = same->text;
		*same = *token;
		same->text = text;
		return true;
	}
	if (a->count == ADDED_MAX_COUNT) {
		snprintf(err, errlen, "there are more than %d added tokens", ADDED_MAX_COUNT);
		return false;
	}
	char *text = make_room(a) ? malloc(token->len) : NULL;
	if (!text) {
		snprintf(err, errlen, "out of memory at added token %d", token->id);
		return false;
	}
	memcpy(text, token->text, token->len);
	a->tokens[a->count] = *token;
	a->tokens[a->count++].text = text;
	return true;
}

static int by_text(const void *a, const void *b) {
	const struct added_token *x = a, *y = b;
	int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
	return order ? order : (x->len > y->len) - (x->len < y->len);
}

void added_seal(struct added *a) {
	if (a->count)
		qsort(a->tokens, a->count, sizeof *a->tokens, by_text);
	for (size_t i = 0; i < a->count; i++) {
		const struct added_token *t = &a->tokens[i];
		a->first[t->normalized ? NORMALIZED : NOT_NORMALIZED][(unsigned char)t->text[0]] =
		                true;
	}
}

/* The first of tokens[low..high) whose byte `depth` is at least `byte`; all share the bytes before. */
static size_t lower_bound(const struct added *a, size_t low, size_t high, size_t depth, int byte) {
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct added_token *t = &a->tokens[middle];
		int at = t->len > depth ? (unsigned char)t->text[depth] : -1;
		if (at < byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The longest token of the pass that text[0..len) begins with, or NULL. */
static const struct added_token *longest_here(
                const struct added *a, enum pass pass, const char *text, size_t len) {
	const struct added_token *best = NULL;
	size_t low = 0, high = a->count;
	for (size_t depth = 0; depth < len && low < high; depth++) {
		int byte = (unsigned char)text[depth];
		low = lower_bound(a, low, high, depth, byte);
		high = lower_bound(a, low, high, depth, byte + 1);
		const struct added_token *t = &a->tokens[low];
		if (low < high && t->len == depth + 1 && t->normalized == (pass == NORMALIZED))
			best = t;
	}
	return best;
}

/* Unicode's White_Space. */
static bool is_space(uint32_t c) {
	return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680
	                || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f
	                || c == 0x205f || c == 0x3000;
}

/* Bytes of white space at the beginning of text[0..len). */
static size_t spaces_after(const char *text, size_t len) {
	size_t i = 0;
	for (;;) {
		uint32_t code;
		size_t n = unicode_decode(text + i, len - i, &code);
		if (n == 0 || !is_space(code))
			return i;
		i += n;
	}
}

/* Bytes of white space at the end of text[0..len). */
static size_t spaces_before(const char *text, size_t len) {
	size_t end = len;
	for (;;) {
		size_t n = 1;
		while (n < 3 && n < end && ((unsigned char)text[end - n] & 0xc0) == 0x80)
			n++;
		uint32_t code;
		if (end == 0 || unicode_decode(text + end - n, n, &code) != n || !is_space(code))
			return len - end;
		end -= n;
	}
}

struct walk {
	const struct added *added;
	added_sink *sink;
	void *arg;
};

static bool split_pass(const struct walk *w, enum pass pass, const char *text, size_t len) {
	if (pass == PASSES)
		return w->sink(w->arg, NULL, text, len);
	const bool *first = w->added->first[pass];
	size_t done = 0;
	for (size_t i = 0; i < len;) {
		const struct added_token *t = NULL;
		if (first[(unsigned char)text[i]])
			t = longest_here(w->added, pass, text + i, len - i);
		if (!t) {
			i++;
			continue;
		}
		size_t begin = i, end = i + t->len;
		if (t->lstrip)
			begin -= spaces_before(text + done, begin - done);
		if (t->rstrip)
			end += spaces_after(text + end, len - end);
		if (begin > done && !split_pass(w, pass + 1, text + done, begin - done))
			return false;
		if (!w->sink(w->arg, t, text + begin, end - begin))
			return false;
		done = i = end;
	}
	return done == len || split_pass(w, pass + 1, text + done, len - done);
}

bool added_split(const struct added *a, const char *text, size_t len, added_sink *sink, void *arg) {
	struct walk walk = { a, sink, arg };
	return split_pass(&walk, NOT_NORMALIZED, text, len);
}
