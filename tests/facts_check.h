/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of config.json share: parsing, adding keys, and refusals by sentence. */
#ifndef FATHOM_TESTS_FACTS_CHECK_H
#define FATHOM_TESTS_FACTS_CHECK_H

#include "model/facts.h"

#include "tests/check.h"
#include "tests/folder.h"

static char err[400];

static inline bool parse(const char *json, struct facts *facts) {
	err[0] = '\0';
	return facts_parse(json, strlen(json), facts, err, sizeof err);
}

static inline void must_parse(const char *json, struct facts *facts) {
	if (!parse(json, facts))
		check_fail(__FILE__, __LINE__, "%s", err);
}

/* `base` with its final brace replaced by `, more }`. */
static inline const char *with(const char *base, const char *more) {
	static char json[4096];
	snprintf(json, sizeof json, "%.*s, %s}", (int)strlen(base) - 1, base, more);
	return json;
}

/* `base` with its one occurrence of `old` replaced. */
static inline const char *changed(const char *base, const char *old, const char *replacement) {
	static char json[4096];
	const char *at = strstr(base, old);
	CHECK(at != NULL);
	snprintf(json, sizeof json, "%.*s%s%s", (int)(at - base), base, replacement,
	                at + strlen(old));
	return json;
}

static inline void check_refused(const char *json, const char *why) {
	struct facts facts;
	if (parse(json, &facts))
		check_fail(__FILE__, __LINE__, "accepted: %s", json);
	if (!strstr(err, why) || strncmp(err, "config.json: ", 13) != 0 || !is_sentence(err))
		check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err, why);
}

/* Parameters at these depths. */
static inline long long parameters(const struct facts *facts, int encoder, int decoder) {
	return (long long)facts_parameters(facts, (int[STACKS]){ encoder, decoder });
}

#endif
