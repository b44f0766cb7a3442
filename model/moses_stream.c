/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moses' detokenizing, in three stages: where words end ("@-@" joins its neighbours), entities, and
 * what space goes before a word.
 */
#include "model/moses_stream.h"

#include <string.h>

#include "model/unicode.h"

/* One call: where it writes. */
struct writing {
	const struct moses *moses;
	struct moses_stream *s;
	char *out;
	size_t len;
};

static void give(struct writing *w, const char *bytes, size_t len) {
	memcpy(w->out + w->len, bytes, len);
	w->len += len;
	w->s->begun = w->s->begun || len > 0;
}

/* The space before a word, unless the one before asked for none or this is the first. */
static void give_space(struct writing *w) {
	if (w->s->begun && !w->s->no_space)
		give(w, " ", 1);
}

/* Third stage: words. */

/* Chinese, Japanese and Korean characters, as detokenizer.perl lists their blocks. */
static bool is_cjk(uint32_t c) {
	return (c >= 0x1100 && c <= 0x11ff) || (c >= 0x2e80 && c <= 0xa4cf)
	                || (c >= 0xa840 && c <= 0xa87f) || (c >= 0xac00 && c <= 0xd7af)
	                || (c >= 0xf900 && c <= 0xfaff) || (c >= 0xfe30 && c <= 0xfe4f)
	                || (c >= 0xff65 && c <= 0xffdc) || (c >= 0x20000 && c <= 0x2ffff);
}

static bool is_one_of(const char *ascii, uint32_t c) {
	return c > 0 && c < 0x80 && strchr(ascii, (int)c);
}

/* What a word is that consists of such characters only. */
static enum moses_word word_of(const struct moses *m, uint32_t c) {
	if (is_one_of(",.?!:;\\%}])", c))
		return MOSES_CLOSING;
	if (is_one_of("'\"`", c) || c == 0x201e || c == 0x201c)
		return MOSES_QUOTING;
	if (is_one_of("([{", c) || c == 0xbf || c == 0xa1
	                || charset_has(&moses_sets(m)->currency, c))
		return MOSES_OPENING;
	return MOSES_GIVEN;
}

/* The kind of the quotation marks in `run`: a number that is the same for those that pair up. */
static uint64_t quote_of(const struct moses_stream *s) {
	bool typographic = true;
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < s->n_run; i++) {
		typographic = typographic && (s->run[i] & 0x80); /* of these only „ and “ are */
		h = (h ^ (unsigned char)s->run[i]) * UINT64_C(0x100000001b3);
	}
	return typographic || (s->n_run == 1 && s->run[0] == '"') ? 0 : h;
}

/* Opens a quotation if it is not open, else closes it; whether it was open. */
static bool toggle(struct moses_stream *s, uint64_t quote) {
	for (int i = 0; i < s->n_open; i++) {
		if (s->open[i] == quote) {
			s->open[i] = s->open[--s->n_open];
			return true;
		}
	}
	if (s->n_open < MOSES_QUOTES)
		s->open[s->n_open++] = quote;
	return false;
}

static bool is_open(const struct moses_stream *s, uint64_t quote) {
	for (int i = 0; i < s->n_open; i++) {
		if (s->open[i] == quote)
			return true;
	}
	return false;
}

static bool is_apostrophe(const struct moses_stream *s) {
	return s->n_run == 1 && s->run[0] == '\'';
}

/* Gives out the marks that the word consists of. */
static void give_marks(struct writing *w) {
	struct moses_stream *s = w->s;
	bool close; /* to the word before */
	if (s->word != MOSES_QUOTING) {
		close = s->word == MOSES_CLOSING;
	} else {
		uint64_t quote = quote_of(s);
		bool possessive = moses_is_english(w->moses) && is_apostrophe(s) && s->before == 's'
		                && !is_open(s, quote);
		close = possessive || toggle(s, quote);
	}
	if (!close)
		give_space(w);
	give(w, s->run, s->n_run);
	s->no_space = !close;
	s->n_run = 0;
}

/* The word turns out to be more than marks: gives out those that it begins with. */
static void give_beginning(struct writing *w, uint32_t c) {
	struct moses_stream *s = w->s;
	bool contraction = moses_is_english(w->moses) && s->word == MOSES_QUOTING
	                && is_apostrophe(s) && charset_has(&moses_sets(w->moses)->alphabetic, c)
	                && charset_has(&moses_sets(w->moses)->alphanumeric, s->before);
	if (!contraction)
		give_space(w);
	give(w, s->run, s->n_run);
	s->n_run = 0;
}

static void put(struct writing *w, uint32_t c, const char *bytes, size_t len) {
	struct moses_stream *s = w->s;
	enum moses_word word = word_of(w->moses, c);
	s->last = c;
	if (s->word == MOSES_EMPTY) {
		s->word = word;
		if (word == MOSES_GIVEN) {
			if (!(is_cjk(c) && is_cjk(s->before)))
				give_space(w);
			s->no_space = false;
		}
	} else if (s->word != MOSES_GIVEN && word != s->word) {
		give_beginning(w, c);
		s->word = MOSES_GIVEN;
		s->no_space = false;
	}
	if (s->word == MOSES_GIVEN) {
		give(w, bytes, len);
		return;
	}
	if (s->n_run + len > sizeof s->run) {
		give_marks(w);
		s->word = MOSES_GIVEN;
		give(w, bytes, len);
		return;
	}
	memcpy(s->run + s->n_run, bytes, len);
	s->n_run += (uint16_t)len;
}

/* Second stage: entities. */

static const struct {
	const char *name;
	char character;
} entities[] = {
	{ "&bar;", '|' },
	{ "&#124;", '|' },
	{ "&lt;", '<' },
	{ "&gt;", '>' },
	{ "&bra;", '[' },
	{ "&ket;", ']' },
	{ "&quot;", '"' },
	{ "&apos;", '\'' },
	{ "&#91;", '[' },
	{ "&#93;", ']' },
	{ "&amp;", '&' },
};

static void flush_entity(struct writing *w) {
	struct moses_stream *s = w->s;
	for (int i = 0; i < s->n_entity; i++)
		put(w, (unsigned char)s->entity[i], &s->entity[i], 1);
	s->n_entity = 0;
}

/* Whether the entity so far is the beginning of one; gives its character if it is complete. */
static bool take_entity(struct writing *w) {
	struct moses_stream *s = w->s;
	for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
		size_t len = strlen(entities[i].name);
		if (s->n_entity > len || memcmp(entities[i].name, s->entity, s->n_entity) != 0)
			continue;
		if (s->n_entity == len) {
			s->n_entity = 0;
			put(w, (unsigned char)entities[i].character, &entities[i].character, 1);
		}
		return true;
	}
	return false;
}

static void feed(struct writing *w, uint32_t c, const char *bytes, size_t len) {
	struct moses_stream *s = w->s;
	if (s->n_entity > 0 && len == 1) {
		s->entity[s->n_entity++] = *bytes;
		if (take_entity(w))
			return;
		s->n_entity--;
	}
	flush_entity(w);
	if (c == '&')
		s->entity[s->n_entity++] = '&';
	else
		put(w, c, bytes, len);
}

static void finish_word(struct writing *w) {
	struct moses_stream *s = w->s;
	flush_entity(w);
	if (s->word == MOSES_EMPTY)
		return;
	if (s->word != MOSES_GIVEN)
		give_marks(w);
	s->before = s->last;
	s->word = MOSES_EMPTY;
}

/* First stage: where words end. */

static const char MARK[] = "@-@";
enum { MARK_LEN = sizeof MARK - 1 };

/* The word that begins is no "@-@": the one before is complete. */
static void open_word(struct writing *w) {
	struct moses_stream *s = w->s;
	if (s->ended)
		finish_word(w);
	s->ended = false;
	s->in_word = true;
	for (int i = 0; i < s->n_mark; i++)
		feed(w, (unsigned char)MARK[i], &MARK[i], 1);
	s->n_mark = 0;
}

static void end_word(struct writing *w) {
	struct moses_stream *s = w->s;
	if (!s->in_word && s->n_mark == MARK_LEN) {
		feed(w, '-', "-", 1);
		s->n_mark = 0;
		s->ended = false;
		s->space_taken = true;
		return;
	}
	if (!s->in_word)
		open_word(w);
	s->in_word = false;
	s->ended = true;
	s->space_taken = false;
}

size_t moses_stream_add(const struct moses *m, struct moses_stream *s, const char *part, size_t len,
                bool ends, char *out) {
	struct writing w = { .moses = m, .s = s, .out = out };
	for (size_t i = 0, n; i < len; i += n) {
		uint32_t c;
		n = unicode_decode(part + i, len - i, &c);
		if (n == 0)
			return w.len; /* not reached with well-formed text */
		if (!s->in_word && !s->space_taken && s->n_mark < MARK_LEN
		                && c == (unsigned char)MARK[s->n_mark]) {
			s->n_mark++;
			continue;
		}
		if (!s->in_word)
			open_word(&w);
		feed(&w, c, part + i, n);
	}
	if (ends)
		end_word(&w);
	return w.len;
}

size_t moses_stream_end(const struct moses *m, struct moses_stream *s, char *out) {
	struct writing w = { .moses = m, .s = s, .out = out };
	if (s->in_word || s->n_mark > 0)
		end_word(&w);
	finish_word(&w);
	return w.len;
}
