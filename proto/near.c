/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Near misses of our own field names. A mistyped `depth` that was ignored would quietly give
 * another answer at another price, so it is refused with the right name.
 */
#include "proto/fields.h"

#include <ctype.h>
#include <string.h>

enum { NAME_BYTES = 32 };

/* What people call our fields, without underscores and in small letters. */
static const struct {
	const char *said, *meant;
} synonyms[] = {
	{ "numlayers", "depth" },
	{ "nlayers", "depth" },
	{ "layercount", "depth" },
	{ "exitlayer", "depth" },
	{ "numhiddenlayers", "depth" },
	{ "keeplayers", "layers" },
	{ "layerlist", "layers" },
	{ "layerstokeep", "layers" },
	{ "decoderlayerstokeep", "layers" },
	{ "rule", "plan_rule" },
	{ "depthrule", "plan_rule" },
	{ "mindepths", "min_depth" },
	{ "minlayers", "min_depth" },
	{ "maxlayers", "max_depth" },
	{ "stepdown", "allow_step_down" },
	{ "budget", "latency_budget_ms" },
	{ "budgetms", "latency_budget_ms" },
	{ "latency", "latency_budget_ms" },
	{ "latencyms", "latency_budget_ms" },
	{ "latencybudget", "latency_budget_ms" },
	{ "maxlatency", "latency_budget_ms" },
	{ "maxlatencyms", "latency_budget_ms" },
	{ "timebudget", "latency_budget_ms" },
	{ "timebudgetms", "latency_budget_ms" },
	{ "ttft", "ttft_budget_ms" },
	{ "ttftms", "ttft_budget_ms" },
	{ "ttftbudget", "ttft_budget_ms" },
	{ "tpot", "tpot_budget_ms" },
	{ "tpotms", "tpot_budget_ms" },
	{ "tpotbudget", "tpot_budget_ms" },
	{ "itlbudgetms", "tpot_budget_ms" },
	{ "deadline", "deadline_ms" },
	{ "timeout", "deadline_ms" },
	{ "timeoutms", "deadline_ms" },
	{ "onbudgetmiss", "on_miss" },
	{ "expectedlength", "expected_tokens" },
	{ "useprefixcache", "cache_prompt" },
	{ "promptcache", "cache_prompt" },
	{ "speculativedecoding", "speculative" },
	{ "drafttokens", "speculative" },
	{ "draftdepth", "speculative" },
	{ "beams", "num_beams" },
	{ "nbeams", "num_beams" },
	{ "beamsize", "num_beams" },
	{ "beamwidth", "num_beams" },
	{ "lenpen", "length_penalty" },
	{ "lengthpen", "length_penalty" },
	{ "istokenized", "pretokenized" },
	{ "issplitintowords", "pretokenized" },
	{ "poolingtype", "pooling" },
	{ "poolingmode", "pooling" },
	{ "truncation", "truncate" },
	{ "returnlogit", "return_logits" },
	{ "classifier", "head" },
	{ "topn", "top_k" },
};

/* Small letters and digits only. False if the name is too long to be one of ours. */
static bool fold(const char *name, char folded[NAME_BYTES]) {
	size_t n = 0;
	for (; *name; name++) {
		if (!isalnum((unsigned char)*name))
			continue;
		if (n + 1 >= NAME_BYTES)
			return false;
		folded[n++] = (char)tolower((unsigned char)*name);
	}
	folded[n] = '\0';
	return n > 0;
}

static int least(int a, int b) {
	return a < b ? a : b;
}

/* Edits between a and b: insert, delete, replace, or swap two neighbours. */
static int distance(const char *a, const char *b) {
	int d[NAME_BYTES][NAME_BYTES];
	int n = (int)strlen(a), m = (int)strlen(b);
	for (int i = 0; i <= n; i++)
		d[i][0] = i;
	for (int j = 0; j <= m; j++)
		d[0][j] = j;
	for (int i = 1; i <= n; i++) {
		for (int j = 1; j <= m; j++) {
			int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			best = least(best, least(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = least(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[n][m];
}

/* How many edits still make a near miss: none for the shortest names, whose neighbours are many. */
static int tolerance(const char *said, const char *own) {
	size_t n = strlen(own);
	if (n < 5)
		return 0;
	return n > 8 && said[0] == own[0] ? 2 : 1;
}

static bool is_own(const struct field *f, unsigned on) {
	return f->own && (f->on & on);
}

const char *field_near(const char *name, unsigned on) {
	char said[NAME_BYTES], own[NAME_BYTES];
	if (!fold(name, said))
		return NULL;
	for (size_t i = 0; i < sizeof synonyms / sizeof synonyms[0]; i++) {
		const struct field *f = field_find(synonyms[i].meant, on);
		if (f && is_own(f, on) && strcmp(synonyms[i].said, said) == 0)
			return f->name;
	}
	for (size_t i = 0; i < request_fields_count; i++) {
		const struct field *f = &request_fields[i];
		if (is_own(f, on) && fold(f->name, own)
		                && distance(said, own) <= tolerance(said, own))
			return f->name;
	}
	return NULL;
}
