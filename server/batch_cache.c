/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs and the prefix cache. A job that uses it opens its prompts with what is held of them;
 * their tiles enter as soon as they are full, and when an answer has ended, those of prompt and
 * answer, since conversations send both back.
 *
 * Requests that come together with one beginning feed it once. Before every step a prompt looks
 * again at what is held of it, and goes on behind that. And it leaves a step to another prompt that
 * has rows in the same step, is further on, and begins alike: those are the rows that it would feed
 * itself. So nobody ever waits for one who rests, ended, or stepped down: such a one has no rows in
 * the step, and the next in order feeds. The first in order never waits.
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

/* Whether it uses the cache, and what it runs at has a place there. */
static bool shares(const struct batch *b, const struct ticket *t) {
	return workspace_prefix(b->workspace) && ticket_uses_cache(t->job)
	                && t->report.n_changes == 0 && !t->failed && t->report.state != JOB_DONE;
}

/* ---- prompts that begin alike ---- */

static bool same_scope(const struct batch *b, const struct job *x, const struct job *y) {
	struct prefix_scope s = batch_scope(x, b->shared_prefixes),
	                    t = batch_scope(y, b->shared_prefixes);
	return s.tenant == t.tenant && s.salt_len == t.salt_len
	                && (s.salt_len == 0 || memcmp(s.salt, t.salt, s.salt_len) == 0);
}

/* Tokens of a job's prompt at `plan` that prompt k of a running one, when it is through, has left in
 * the cache: whole tiles, and not the last token. */
static int alike(const struct batch *b, const struct job *job, int prompt, const struct plan *plan,
                const struct ticket *other, int k) {
	struct past x = ticket_past(job, prompt), y = ticket_past(other->job, k);
	int most = prefix_most_tokens(workspace_prefix(b->workspace), plan), tokens = 0;
	most = x.n - 1 < most ? x.n - 1 : most;
	most = y.n < most ? y.n : most;
	if (!plan_equal(plan, &other->subnet.stack[STACK_DECODER])
	                || !same_scope(b, job, other->job))
		return 0;
	while (tokens + KV_TILE <= most
	                && memcmp(x.tokens + tokens, y.tokens + tokens, KV_TILE * sizeof *x.tokens)
	                                == 0)
		tokens += KV_TILE;
	return tokens;
}

bool batch_is_led(const struct batch *b, const struct ticket *t, int prompt) {
	const struct run_prompt *p = &t->prompts[prompt];
	const struct plan *plan = &t->subnet.stack[STACK_DECODER];
	for (const struct ticket *u = shares(b, t) ? b->running : NULL; u; u = u->next) {
		for (int k = 0; shares(b, u) && k < u->job->n_prompts; k++) {
			const struct run_prompt *q = &u->prompts[k];
			if (q != p && q->sequence && q->fed > q->fed_before && q->fed > p->fed
			                && alike(b, t->job, prompt, plan, u, k) > p->fed)
				return true;
		}
	}
	return false;
}

/* What running prompts that go before will have fed of a prompt that is not fed further than `fed`;
 * `own` (may be NULL) is itself. */
static int find_led(const struct batch *b, const struct job *job, int prompt,
                const struct plan *plan, const struct run_prompt *own, int fed) {
	int led = 0, most = (ticket_past(job, prompt).n - 1) / KV_TILE * KV_TILE;
	bool before = true;
	for (const struct ticket *u = b->running; u && led < most; u = u->next) {
		for (int k = 0; shares(b, u) && k < u->job->n_prompts; k++) {
			const struct run_prompt *q = &u->prompts[k];
			before = before && q != own;
			if (q == own || !q->sequence || q->fed < fed || (q->fed == fed && !before))
				continue;
			int tokens = alike(b, job, prompt, plan, u, k);
			led = tokens > led ? tokens : led;
		}
	}
	return led;
}

void batch_find_leaders(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts; i++) {
			struct run_prompt *p = &t->prompts[i];
			p->led = p->sequence && shares(b, t) ? find_led(b, t->job, i,
			                         &t->subnet.stack[STACK_DECODER], p, p->fed)
			                                     : 0;
		}
	}
}

/* ---- what is held ---- */

int batch_cached(const struct batch *b, const struct job *job, const struct subnet *subnet) {
	const struct prefix *prefix = workspace_prefix(b->workspace);
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	struct prefix_scope scope = batch_scope(job, b->shared_prefixes);
	int tokens = 0;
	for (int i = 0; prefix && ticket_uses_cache(job) && i < job->n_prompts; i++) {
		struct past past = ticket_past(job, i);
		int held = prefix_find(prefix, plan, &scope, past.tokens, past.n - 1);
		int led = find_led(b, job, i, plan, NULL, 0);
		tokens += held > led ? held : led;
	}
	return tokens;
}

size_t batch_shared(const struct batch *b, const struct job *job, int prompt,
                const struct subnet *subnet) {
	if (!workspace_prefix(b->workspace) || !ticket_uses_cache(job))
		return 0;
	struct prefix_scope scope = batch_scope(job, b->shared_prefixes);
	struct past past = ticket_past(job, prompt);
	return workspace_blocks_shared(b->workspace, subnet, &scope, past.tokens, past.n);
}

/* Later groups of a prompt hit what the first one ran: that counts for nothing. */
static void count_cached(struct ticket *t, struct run_prompt *p, int tokens) {
	p->cached += tokens;
	t->job->cached_tokens += tokens;
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
	if (s && t->prompts[prompt].begun == 0)
		count_cached(t, &t->prompts[prompt], sequence_length(s));
	return s;
}

static void catch_up(struct batch *b, struct ticket *t, int prompt) {
	struct run_prompt *p = &t->prompts[prompt];
	struct prefix_scope scope = batch_scope(t->job, b->shared_prefixes);
	struct past past = ticket_past(t->job, prompt);
	p->fed = sequence_catch_up(b->workspace, p->sequence, &scope, past.tokens, past.n);
	if (p->begun == p->group)
		count_cached(t, p, p->fed - p->fed_before);
	p->fed_before = p->fed;
}

void batch_catch_up(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts; i++) {
			struct run_prompt *p = &t->prompts[i];
			p->fed_before = p->fed;
			if (p->sequence && shares(b, t))
				catch_up(b, t, i);
		}
	}
}

/* ---- what enters ---- */

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

void batch_remember_fed(struct batch *b) {
	for (struct ticket *t = b->running; t; t = t->next) {
		for (int i = 0; i < t->job->n_prompts && shares(b, t); i++) {
			const struct run_prompt *p = &t->prompts[i];
			if (!p->sequence || p->fed / KV_TILE == p->fed_before / KV_TILE)
				continue;
			struct prefix_scope scope = batch_scope(t->job, b->shared_prefixes);
			struct prefix_text text = { .tokens = ticket_past(t->job, i).tokens,
				.n = p->fed };
			sequence_remember(b->workspace, p->sequence, &scope, &text);
		}
	}
}

void batch_remember_choice(struct batch *b, const struct ticket *t, int choice) {
	int n = t->progress[choice].n_tokens;
	if (n > 1)
		batch_remember(b, t, ticket_prompt_of(t, choice), t->choices[choice].sequence,
		                t->job->choices[choice].tokens, n - 1);
}
