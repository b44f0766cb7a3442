/* SPDX-License-Identifier: Apache-2.0 */
/* BERT's tokenizing. First cleaning, character by character; then words; then pieces. */
#include "model/wordpiece.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/charset.h"
#include "model/fold.h"
#include "model/unicode.h"

struct wordpiece {
	struct wordpiece_options options;
	struct charset control, marks, punctuation;
};

struct wordpiece *wordpiece_create(
                const struct wordpiece_options *options, char *err, size_t errlen) {
	struct wordpiece *w = calloc(1, sizeof *w);
	if (!w) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	w->options = *options;
	/* ASCII's symbols count as punctuation too. */
	if (charset_init(&w->control, "\\p{Cc}\\p{Cf}\\p{Co}", err, errlen)
	                && charset_init(&w->marks, "\\p{Mn}", err, errlen)
	                && charset_init(&w->punctuation, "\\p{P}!-/:-@\\x5b-`{-~", err, errlen))
		return w;
	wordpiece_destroy(w);
	return NULL;
}

void wordpiece_destroy(struct wordpiece *w) {
	if (!w)
		return;
	charset_finish(&w->control);
	charset_finish(&w->marks);
	charset_finish(&w->punctuation);
	free(w);
}

/* The vocabulary. */

/* The key of a spelling: " play", or "ing" for "##ing". */
static size_t key_of(const char *spelling, size_t len, char key[VOCAB_MAX_TOKEN]) {
	if (len > 2 && memcmp(spelling, "##", 2) == 0) {
		memcpy(key, spelling + 2, len - 2);
		return len - 2;
	}
	key[0] = ' ';
	memcpy(key + 1, spelling, len);
	return len + 1;
}

bool wordpiece_add(struct vocab *v, const char *spelling, size_t len, int64_t id, char *err,
                size_t errlen) {
	char key[VOCAB_MAX_TOKEN];
	if (len == 0 || len >= VOCAB_MAX_TOKEN) {
		snprintf(err, errlen, "token %lld is %zu bytes long, not 1 .. %d", (long long)id,
		                len, VOCAB_MAX_TOKEN - 1);
		return false;
	}
	return vocab_add_text(v, key, key_of(spelling, len, key), id, err, errlen);
}

int32_t wordpiece_find(const struct vocab *v, const char *spelling, size_t len) {
	char key[VOCAB_MAX_TOKEN];
	if (len == 0 || len >= VOCAB_MAX_TOKEN)
		return -1;
	return vocab_find_text(v, key, key_of(spelling, len, key));
}

/* Cleaning. */

static bool is_chinese(uint32_t c) {
	return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf)
	                || (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f)
	                || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf)
	                || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void append(struct text *out, uint32_t code) {
	char bytes[4];
	text_append(out, bytes, unicode_encode(code, bytes));
}

/* Appends a character without its accents if they go, then small if it is to be. */
static void append_folded(const struct wordpiece *w, uint32_t code, struct text *out) {
	uint32_t plain[FOLD_MAX] = { code }, small[FOLD_MAX];
	size_t n = w->options.strip_accents ? fold_plain(code, plain) : 1;
	for (size_t i = 0; i < n; i++) {
		if (w->options.strip_accents && charset_has(&w->marks, plain[i]))
			continue;
		size_t m = 1;
		if (w->options.lower)
			m = fold_small(plain[i], small);
		else
			small[0] = plain[i];
		for (size_t k = 0; k < m; k++)
			append(out, small[k]);
	}
}

static void clean(const struct wordpiece *w, uint32_t code, size_t space, struct text *out) {
	const struct wordpiece_options *o = &w->options;
	bool kept = code == '\t' || code == '\n' || code == '\r';
	if (o->clean && !kept && (code == 0 || code == 0xfffd || charset_has(&w->control, code)))
		return;
	bool apart = o->chinese_apart && is_chinese(code);
	if (space > 0 || apart)
		append(out, ' ');
	if (space == 0)
		append_folded(w, code, out);
	if (apart)
		append(out, ' ');
}

/* Words and pieces. */

struct encoding {
	const struct wordpiece *wordpiece;
	const struct vocab *vocab;
	wordpiece_sink *sink;
	void *arg;
};

/* The longest piece that text[0..len) begins with; its id or -1, and its bytes. */
static int32_t longest_piece(
                const struct vocab *v, const char *text, size_t len, bool first, size_t *ret_len) {
	char key[VOCAB_MAX_TOKEN];
	size_t most = vocab_longest(v), n = len + first < most ? len : most - first;
	key[0] = ' ';
	memcpy(key + first, text, n);
	for (; n > 0; n--) {
		if (n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
			continue; /* inside a character */
		int32_t id = vocab_find_text(v, key, n + first);
		if (id >= 0) {
			*ret_len = n;
			return id;
		}
	}
	return -1;
}

static size_t characters(const char *text, size_t len) {
	size_t n = 0;
	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)text[i] & 0xc0) != 0x80;
	return n;
}

/* A word that cannot be cut wholly is unknown as a whole: so it is cut twice. */
static bool put_word(const struct encoding *e, const char *word, size_t len) {
	const struct wordpiece_options *o = &e->wordpiece->options;
	size_t n;
	bool known = characters(word, len) <= (size_t)o->max_word;
	for (size_t i = 0; known && i < len; i += n)
		known = longest_piece(e->vocab, word + i, len - i, i == 0, &n) >= 0;
	if (!known)
		return e->sink(e->arg, o->unk);
	for (size_t i = 0; i < len; i += n) {
		int32_t id = longest_piece(e->vocab, word + i, len - i, i == 0, &n);
		if (!e->sink(e->arg, id))
			return false;
	}
	return true;
}

static bool put_words(const struct encoding *e, const char *line, size_t len) {
	size_t begin = 0, n;
	for (size_t i = 0; i < len; i += n) {
		uint32_t code;
		size_t space = text_space(line + i, len - i);
		n = unicode_decode(line + i, len - i, &code);
		bool mark = space == 0 && charset_has(&e->wordpiece->punctuation, code);
		if (space == 0 && !mark)
			continue;
		if (i > begin && !put_word(e, line + begin, i - begin))
			return false;
		if (mark && !put_word(e, line + i, n))
			return false;
		n = space > 0 ? space : n;
		begin = i + n;
	}
	return len == begin || put_word(e, line + begin, len - begin);
}

bool wordpiece_encode(const struct wordpiece *w, const struct vocab *v, const char *text,
                size_t len, struct text *scratch, wordpiece_sink *sink, void *arg) {
	struct encoding e = { w, v, sink, arg };
	scratch->len = 0;
	for (size_t i = 0, n; i < len; i += n) {
		uint32_t code;
		n = unicode_decode(text + i, len - i, &code);
		if (n > 0)
			clean(w, code, text_space(text + i, n), scratch);
		n = n ? n : 1;
	}
	return !scratch->failed && put_words(&e, scratch->bytes, scratch->len);
}
