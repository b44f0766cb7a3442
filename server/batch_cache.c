/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs and the prefix cache. A job that uses it opens its prompts with what is held of them;
 * when a prompt is through, its whole tiles enter, and when an answer has ended, those of prompt and
 * answer, since conversations send both back.
 *
 * An answer's text decides what of its sequence has been verified, not the sequence's length: its
 * last token has not run, and rows beyond may have been drafts.
 */
#include <string.h>

#include "server/batch_parts.h"

struct prefix_scope batch_scope(const struct job *job, bool shared) {
	const char *salt = job->request.cache_salt;
	return (struct prefix_scope){
		.tenant = shared ? 0 : job->key, .salt = salt, .salt_len = salt ? strlen(salt) : 0
	};
}

int batch_cached(const struct batch *b, const struct job *job, const struct subnet *subnet) {
	const struct prefix *prefix = workspace_prefix(b->workspace);
	struct prefix_scope scope = batch_scope(job, b->shared_prefixes);
	int tokens = 0;
	for (int i = 0; prefix && ticket_uses_cache(job) && i < job->n_prompts; i++) {
		struct past past = ticket_past(job, i);
		tokens += prefix_find(prefix, &subnet->stack[STACK_DECODER], &scope, past.tokens,
		                past.n - 1);
	}
	return tokens;
}

struct sequence *batch_open(struct batch *b, struct ticket *t, int prompt) {
	struct job *job = t->job;
	struct past past = ticket_past(job, prompt);
	int tokens = ticket_sequence_tokens(job, prompt);
	if (!workspace_prefix(b->workspace) || !ticket_uses_cache(job))
		return sequence_open_source(b->workspace, &t->subnet, tokens,
		                ticket_source_tokens(job, prompt));
	struct prefix_scope scope = batch_scope(job, b->shared_prefixes);
	struct sequence *s = sequence_open_cached(
	                b->workspace, &t->subnet, tokens, &scope, past.tokens, past.n);
	/* Later groups of a prompt hit what the first one ran. */
	if (s && t->prompts[prompt].begun == 0) {
		job->cached_tokens += sequence_length(s);
		metrics_prefix(b->metrics, sequence_length(s));
	}
	return s;
}

void batch_remember(struct batch *b, const struct ticket *t, int prompt, const struct sequence *s,
                const int32_t *answer, int n) {
	if (!s || t->failed || !workspace_prefix(b->workspace) || !ticket_uses_cache(t->job))
		return;
	struct prefix_scope scope = batch_scope(t->job, b->shared_prefixes);
	struct past past = ticket_past(t->job, prompt);
	struct prefix_text text = {
		.tokens = past.tokens, .n = past.n, .more = answer, .n_more = n
	};
	sequence_remember(b->workspace, s, &scope, &text);
}

void batch_remember_choice(struct batch *b, const struct ticket *t, int choice) {
	int n = t->progress[choice].n_tokens;
	if (n > 1)
		batch_remember(b, t, ticket_prompt_of(t, choice), t->choices[choice].sequence,
		                t->job->choices[choice].tokens, n - 1);
}
