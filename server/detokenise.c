/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens become text: torn characters and stop strings. */
#include "server/detokenise.h"

#include <string.h>

#include "model/unicode.h"

enum { TORN = sizeof((struct detokeniser *)0)->torn };

size_t detokenise_scratch(const struct tokenizer *t) {
	return tokenizer_stream_room(t) + TORN;
}

void detokenise_begin(struct detokeniser *d, const struct tokenizer *t, bool words, char *text) {
	d->tokenizer = t;
	d->text = text;
	d->len = d->n_torn = d->searched = 0;
	d->cut = false;
	if (words)
		tokenizer_stream_begin_words(t, &d->stream);
	else
		tokenizer_stream_begin(t, &d->stream);
}

void detokenise_follow(struct detokeniser *d, int32_t before, size_t cap) {
	if (tokenizer_stream_room(d->tokenizer) <= cap)
		tokenizer_stream_add(d->tokenizer, &d->stream, before, d->text);
}

/* Appends what is whole of the torn bytes and `len` more, which lie behind them in `scratch`. */
static void append(struct detokeniser *d, char *scratch, size_t len) {
	memcpy(scratch, d->torn, d->n_torn);
	len += d->n_torn;
	size_t whole = unicode_complete(scratch, len);
	d->len += unicode_mend(scratch, whole, d->text + d->len);
	d->n_torn = len - whole;
	memcpy(d->torn, scratch + whole, d->n_torn);
}

void detokenise_add(struct detokeniser *d, int32_t token, char *scratch) {
	append(d, scratch,
	                tokenizer_stream_add(d->tokenizer, &d->stream, token, scratch + d->n_torn));
}

bool detokenise_end(struct detokeniser *d, char *scratch) {
	if (d->cut)
		return false;
	size_t held = tokenizer_stream_end(d->tokenizer, &d->stream, scratch + d->n_torn);
	append(d, scratch, held);
	d->len += unicode_mend(d->torn, d->n_torn, d->text + d->len);
	d->n_torn = 0;
	return held > 0;
}

void detokenise_skip(struct detokeniser *d) {
	d->searched = d->len;
}

int detokenise_stop(struct detokeniser *d, char *const *stops, const size_t *lens, size_t n) {
	int found = -1;
	const char *first = NULL;
	for (size_t i = 0; i < n; i++) {
		if (lens[i] == 0)
			continue;
		size_t from = d->searched < lens[i] ? 0 : d->searched - lens[i] + 1;
		const char *at = memmem(d->text + from, d->len - from, stops[i], lens[i]);
		if (at && (!first || at < first)) {
			first = at;
			found = (int)i;
		}
	}
	if (first) {
		d->len = (size_t)(first - d->text);
		d->n_torn = 0;
		d->cut = true;
	}
	d->searched = d->len;
	return found;
}

size_t detokenise_shown(
                const struct detokeniser *d, char *const *stops, const size_t *lens, size_t n) {
	size_t held = 0;
	for (size_t i = 0; i < n; i++) {
		size_t k = lens[i] > 0 ? lens[i] - 1 : 0;
		if (k > d->len)
			k = d->len;
		while (k > held && memcmp(d->text + d->len - k, stops[i], k) != 0)
			k--;
		if (k > held)
			held = k;
	}
	return d->len - held;
}
