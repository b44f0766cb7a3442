/* SPDX-License-Identifier: Apache-2.0 */
/* Whole answers of finished jobs. */
#include <stdlib.h>

#include "server/compose.h"
#include "server/resolve.h"
#include "server/respond.h"

/* The parts of a whole answer that need memory of their own. */
struct parts {
	struct answer_choice *choices; /* [n] */
	struct token_list *lists;      /* [n] */
	struct buffer *texts;          /* [n] of echoed prompts */
	size_t n;
};

static bool parts_init(struct parts *parts, size_t n) {
	*parts = (struct parts){ .n = n };
	parts->choices = calloc(n + 1, sizeof *parts->choices);
	parts->lists = calloc(n + 1, sizeof *parts->lists);
	parts->texts = calloc(n + 1, sizeof *parts->texts);
	return parts->choices && parts->lists && parts->texts;
}

static void parts_finish(struct parts *parts) {
	for (size_t i = 0; i < parts->n; i++) {
		if (parts->lists)
			token_list_finish(&parts->lists[i]);
		if (parts->texts)
			buffer_finish(&parts->texts[i]);
	}
	free(parts->choices);
	free(parts->lists);
	free(parts->texts);
}

static bool compose_choice(const struct call *call, struct parts *parts, int i) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	const struct choice *from = &job->choices[i];
	const struct choice_progress *seen = &call->respond->seen[i];
	const struct job_prompt *prompt = &job->prompts[i / job->n];
	bool echo = job->request.echo;
	struct answer_choice *to = &parts->choices[i];
	*to = (struct answer_choice){
		.index = i, .text = from->text, .text_len = seen->text_len, .first = true
	};
	if (echo) {
		compose_prompt_text(model, job, i / job->n, &parts->texts[i]);
		buffer_append(&parts->texts[i], from->text, seen->text_len);
		to->text = parts->texts[i].data;
		to->text_len = parts->texts[i].len;
	}
	if (job->want_logprobs) {
		struct token_list *list = &parts->lists[i];
		int before = echo ? prompt->n_tokens : 0;
		if (!token_list_init(list, (size_t)before + (size_t)seen->n_tokens, job->n_top)
		                || !token_list_add_prompt(list, model, prompt, 0, before))
			return false;
		token_list_add_choice(list, model, from, 0, seen->n_tokens);
		to->logprobs = true;
		to->tokens = list->tokens;
		to->n_tokens = list->n;
	}
	if (job->request.return_token_ids) {
		to->token_ids = from->tokens;
		to->n_token_ids = (size_t)seen->n_tokens;
	}
	compose_finish(job, from, seen, to);
	return !parts->texts[i].failed;
}

void respond_meta(const struct call *call, struct respond_meta *ret_meta) {
	const struct job *job = call->job;
	const struct respond *r = call->respond;
	const struct model *model = generation_model(call->generation);
	compose_depth(job, &job->subnet, job->reason, ret_meta->changes, &ret_meta->depth);
	compose_timings(job, &ret_meta->timings);
	compose_usage(job, &ret_meta->usage);
	ret_meta->meta = (struct answer_meta){ .id = job->id,
		.model = resolve_served_name(model, call->server->config),
		.created = job->created,
		.usage = &ret_meta->usage,
		.depth = &ret_meta->depth,
		.timings = &ret_meta->timings,
		.warnings = (const char *const *)r->warnings,
		.n_warnings = r->n_warnings };
}

void respond_write_answer(struct call *call, struct buffer *out) {
	const struct job *job = call->job;
	struct answer_vocab vocab = compose_vocab(generation_model(call->generation));
	struct respond_meta m;
	struct parts parts;
	int n = job->n_prompts * job->n;
	bool ok = parts_init(&parts, (size_t)n);
	for (int i = 0; i < n && ok; i++)
		ok = compose_choice(call, &parts, i);
	respond_meta(call, &m);
	struct answer a = { .kind = job->kind,
		.id = m.meta.id,
		.model = m.meta.model,
		.created = m.meta.created,
		.choices = parts.choices,
		.n_choices = (size_t)n,
		.usage = m.meta.usage,
		.depth = m.meta.depth,
		.timings = m.meta.timings,
		.warnings = m.meta.warnings,
		.n_warnings = m.meta.n_warnings,
		.vocab = &vocab };
	if (ok)
		answer_write(out, &a);
	else
		out->failed = true;
	parts_finish(&parts);
}

/* The tokens that were scored: not those that stand before the client's own. */
static bool list_scored(const struct model *model, const struct job_prompt *prompt,
                struct token_list *list) {
	int from = prompt->target ? prompt->n_forced : prompt->starts_with_bos;
	int to = prompt->target ? prompt->n_target : prompt->n_tokens;
	return token_list_init(list, (size_t)to, 0)
	                && token_list_add_prompt(list, model, prompt, from, to);
}

void respond_write_loglikelihood(struct call *call, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	size_t n = (size_t)job->n_prompts;
	struct token_list *lists = calloc(n + 1, sizeof *lists);
	struct answer_score *scores = calloc(n + 1, sizeof *scores);
	struct respond_meta m;
	bool ok = lists && scores;
	for (size_t i = 0; i < n && ok; i++) {
		ok = list_scored(model, &job->prompts[i], &lists[i]);
		scores[i] = (struct answer_score){ lists[i].tokens, lists[i].n };
	}
	respond_meta(call, &m);
	if (ok)
		answer_write_loglikelihood(out, &m.meta, scores, n);
	else
		out->failed = true;
	for (size_t i = 0; lists && i < n; i++)
		token_list_finish(&lists[i]);
	free(lists);
	free(scores);
}
