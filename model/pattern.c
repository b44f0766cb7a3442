/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions with PCRE2: compiled for the processor where it can be, and bounded. */
#include "model/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "model/unicode.h"

enum {
	MATCH_LIMIT = 20 * 1000 * 1000,
	HEAP_LIMIT = 64 * 1024, /* KiB, of one match without JIT */
	MAX_GROUPS = 10,
};

struct pattern {
	pcre2_code *code;
	pcre2_match_context *limits;
	bool jit;
};

struct pattern_match {
	pcre2_match_data *data;
};

struct pattern *pattern_create(const char *pattern, size_t len, char *err, size_t errlen) {
	int code;
	PCRE2_SIZE offset;
	struct pattern *p = calloc(1, sizeof *p);
	if (p)
		p->limits = pcre2_match_context_create(NULL);
	if (!p || !p->limits) {
		snprintf(err, errlen, "out of memory");
		pattern_destroy(p);
		return NULL;
	}
	pcre2_set_match_limit(p->limits, MATCH_LIMIT);
	pcre2_set_heap_limit(p->limits, HEAP_LIMIT);
	p->code = pcre2_compile((PCRE2_SPTR)pattern, len,
	                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
	if (!p->code) {
		char why[120] = "";
		pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
		snprintf(err, errlen, "the pattern is not valid: %s", why);
		pattern_destroy(p);
		return NULL;
	}
	p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
	return p;
}

void pattern_destroy(struct pattern *p) {
	if (!p)
		return;
	pcre2_code_free(p->code);
	pcre2_match_context_free(p->limits);
	free(p);
}

struct pattern_match *pattern_match_create(void) {
	struct pattern_match *m = malloc(sizeof *m);
	if (!m)
		return NULL;
	m->data = pcre2_match_data_create(MAX_GROUPS, NULL);
	if (m->data)
		return m;
	free(m);
	return NULL;
}

void pattern_match_destroy(struct pattern_match *m) {
	if (!m)
		return;
	pcre2_match_data_free(m->data);
	free(m);
}

enum pattern_found pattern_find(const struct pattern *p, struct pattern_match *m, const char *text,
                size_t len, size_t from, size_t *ret_begin, size_t *ret_end) {
	PCRE2_SPTR subject = (PCRE2_SPTR)text;
	int rc = PCRE2_ERROR_JIT_STACKLIMIT;
	if (p->jit)
		rc = pcre2_jit_match(p->code, subject, len, from, 0, m->data, p->limits);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
		rc = pcre2_match(p->code, subject, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
		                m->data, p->limits);
	if (rc == PCRE2_ERROR_NOMATCH)
		return PATTERN_NOT_FOUND;
	const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(m->data);
	/* An end before the beginning: \K and the like. */
	if (rc < 0 || ends[0] < from || ends[1] < ends[0])
		return PATTERN_FAILED;
	*ret_begin = ends[0];
	*ret_end = ends[1];
	return PATTERN_FOUND;
}

/* Appends the replacement of the match that `m` holds. */
static void append_replacement(struct pattern_match *m, const char *text, const char *replacement,
                struct text *out) {
	const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(m->data);
	for (const char *r = replacement; *r; r++) {
		if (*r != '$') {
			text_append(out, r, 1);
			continue;
		}
		int group = *++r - '0';
		if (*r == '$')
			text_append(out, r, 1);
		else if (ends[2 * group] != PCRE2_UNSET)
			text_append(out, text + ends[2 * group],
			                ends[2 * group + 1] - ends[2 * group]);
	}
}

bool pattern_replace(const struct pattern *p, struct pattern_match *m, const char *text, size_t len,
                const char *replacement, struct text *out) {
	size_t done = 0, from = 0, begin, end;
	while (from <= len) {
		enum pattern_found found = pattern_find(p, m, text, len, from, &begin, &end);
		if (found == PATTERN_FAILED)
			return false;
		if (found == PATTERN_NOT_FOUND)
			break;
		text_append(out, text + done, begin - done);
		append_replacement(m, text, replacement, out);
		done = end;
		/* After an empty match the search goes on behind the next character. */
		from = end > begin ? end : end + 1;
		if (end == begin && end < len)
			from = end + unicode_decode(text + end, len - end, NULL);
	}
	text_append(out, text + done, len - done);
	return !out->failed;
}
