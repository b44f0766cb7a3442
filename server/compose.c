/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing here allocates per token but the lists of tokens, and only if they were asked for. */
#include "server/compose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"

const char *compose_reason(enum depth_reason reason) {
	static const char *const names[] = { [REASON_EXPLICIT] = "explicit",
		[REASON_BUDGET] = "budget",
		[REASON_OVERLOAD] = "overload",
		[REASON_DEFAULT] = "default" };
	return names[reason];
}

void compose_depth(const struct job *job, const struct subnet *subnet, enum depth_reason reason,
                struct answer_change *changes, struct answer_depth *ret_depth) {
	const struct plan *encoder = &subnet->stack[STACK_ENCODER];
	const struct plan *decoder = &subnet->stack[STACK_DECODER];
	const struct plan *plan = decoder->of > 0 ? decoder : encoder;
	bool two = plan == decoder && encoder->of > 0;
	*ret_depth = (struct answer_depth){ .used = plan->depth,
		.of = plan->of,
		.layers = plan->layers,
		.encoder_used = two ? encoder->depth : 0,
		.encoder_of = two ? encoder->of : 0,
		.encoder_layers = encoder->layers,
		.rule = plan_rule_name(job->policy.rule),
		.reason = compose_reason(reason),
		.changes = changes };
	snprintf(ret_depth->requested, sizeof ret_depth->requested, "%s", job->policy.requested);
	for (int i = 0; changes && i < job->n_changes; i++) {
		const struct job_change *c = &job->changes[i];
		changes[i] = (struct answer_change){ c->at_token, c->plan.depth, c->plan.layers };
		ret_depth->n_changes++;
	}
}

static double between_ms(int64_t from_ns, int64_t to_ns) {
	return from_ns && to_ns > from_ns ? clock_ms(to_ns - from_ns) : 0;
}

/* -1: no budget, else whether all that were set were met. */
static int budget_met(const struct job *job, double total_ms) {
	const struct job_times *t = &job->times;
	int tokens = job->n_choices ? job->choices[0].published.n_tokens : 0;
	double first = between_ms(t->received_ns, t->first_token_ns);
	double rest = between_ms(t->first_token_ns, t->done_ns);
	if (job->latency_budget_ms <= 0 && job->ttft_budget_ms <= 0 && job->tpot_budget_ms <= 0)
		return -1;
	if (job->latency_budget_ms > 0 && total_ms > job->latency_budget_ms)
		return 0;
	if (job->ttft_budget_ms > 0 && first > job->ttft_budget_ms)
		return 0;
	return job->tpot_budget_ms <= 0 || tokens < 2 || rest / (tokens - 1) <= job->tpot_budget_ms;
}

void compose_timings(const struct job *job, struct answer_timings *ret_timings) {
	const struct job_times *t = &job->times;
	double total = between_ms(t->received_ns, t->done_ns);
	*ret_timings = (struct answer_timings){
		.queue_ms = t->joined_ns ? between_ms(t->received_ns, t->joined_ns) : total,
		.prefill_ms = job->prefill_ms,
		.decode_ms = job->decode_ms,
		.total_ms = total,
		.predicted_ms = job->predicted_ms,
		.budget_ms = job->latency_budget_ms > 0 ? job->latency_budget_ms : -1,
		.predicted_tokens = job->predicted_tokens,
		.budget_met = budget_met(job, total),
	};
}

int64_t compose_prompt_tokens(const struct job *job) {
	int64_t n = 0;
	for (int i = 0; i < job->n_prompts; i++) {
		const struct job_prompt *prompt = &job->prompts[i];
		n += prompt->n_tokens + prompt->n_target - prompt->n_forced;
	}
	return n;
}

void compose_usage(const struct job *job, struct answer_usage *ret_usage) {
	*ret_usage = (struct answer_usage){ .prompt_tokens = compose_prompt_tokens(job),
		.cached_tokens = job->cached_tokens,
		.accepted_tokens = job->accepted_tokens,
		.rejected_tokens = job->rejected_tokens };
	for (int i = 0; i < job->n_choices; i++)
		ret_usage->completion_tokens += job->choices[i].published.n_tokens;
}

static const char *token_bytes(const void *context, int32_t token, size_t *ret_len) {
	return tokenizer_bytes(context, token, ret_len);
}

struct answer_vocab compose_vocab(const struct model *model) {
	return (struct answer_vocab){ model->target_tokenizer, token_bytes };
}

struct answer_vocab compose_source_vocab(const struct model *model) {
	return (struct answer_vocab){ model->tokenizer, token_bytes };
}

/* ---- tokens ---- */

bool token_list_init(struct token_list *list, size_t cap, int n_top) {
	size_t tops;
	*list = (struct token_list){ .cap = cap, .n_top = n_top };
	if (__builtin_mul_overflow(cap, (size_t)n_top, &tops))
		return false;
	list->tokens = calloc(cap + 1, sizeof *list->tokens);
	list->tops = calloc(tops + 1, sizeof *list->tops);
	return list->tokens && list->tops;
}

void token_list_finish(struct token_list *list) {
	free(list->tokens);
	free(list->tops);
	*list = (struct token_list){ 0 };
}

static struct answer_token *add_token(
                struct token_list *list, const struct model *model, int32_t id) {
	struct answer_token *token = &list->tokens[list->n++];
	token->token = id;
	token->bytes = tokenizer_bytes(model->target_tokenizer, id, &token->len);
	if (!token->bytes) {
		token->bytes = "";
		token->len = 0;
	}
	token->text_offset = list->text_offset;
	return token;
}

/* Characters of well-formed UTF-8 (of ill-formed: about), counted by their first bytes. */
static size_t characters(const char *s, size_t len) {
	size_t n = 0;
	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n;
}

static void add_logprob(struct token_list *list, struct answer_token *token, float logprob,
                const struct token_logprob *tops) {
	token->has_logprob = true;
	token->logprob = logprob;
	token->n_top = tops ? list->n_top : 0;
	struct answer_top *to = list->tops + (list->n - 1) * (size_t)list->n_top;
	for (int i = 0; i < token->n_top; i++)
		to[i] = (struct answer_top){ tops[i].token, tops[i].logprob };
	token->top = to;
}

bool token_list_add_prompt(struct token_list *list, const struct model *model,
                const struct job_prompt *prompt, int from, int to) {
	const struct tokenizer *t = model->target_tokenizer;
	const int32_t *ids = prompt->target ? prompt->target : prompt->tokens;
	struct tokenizer_stream stream;
	char *piece = malloc(tokenizer_stream_room(t) + 1);
	if (!piece)
		return false;
	tokenizer_stream_begin(t, &stream);
	for (int i = from; i < to; i++) {
		struct answer_token *token = add_token(list, model, ids[i]);
		list->text_offset +=
		                characters(piece, tokenizer_stream_add(t, &stream, ids[i], piece));
		if (prompt->logprobs && (i > 0 || prompt->has_first))
			add_logprob(list, token, prompt->logprobs[i],
			                prompt->tops ? prompt->tops + (size_t)i * (size_t)list->n_top
			                             : NULL);
	}
	free(piece);
	return true;
}

void token_list_add_choice(struct token_list *list, const struct model *model,
                const struct choice *choice, int from, int to) {
	const size_t *ends = choice->token_text_end;
	for (int i = from; i < to; i++) {
		struct answer_token *token = add_token(list, model, choice->tokens[i]);
		size_t begin = ends && i > 0 ? ends[i - 1] : 0, end = ends ? ends[i] : 0;
		list->text_offset += characters(choice->text + begin, end - begin);
		if (choice->logprobs)
			add_logprob(list, token, choice->logprobs[i],
			                choice->tops ? choice->tops + (size_t)i * (size_t)list->n_top
			                             : NULL);
	}
}

void compose_text(const struct tokenizer *t, const int32_t *ids, int n, int32_t shown,
                struct buffer *out) {
	struct tokenizer_stream stream;
	char *piece = malloc(tokenizer_stream_room(t) + 1);
	if (!piece) {
		out->failed = true;
		return;
	}
	tokenizer_stream_begin(t, &stream);
	for (int i = 0; i < n; i++) {
		bool show = shown == SHOW_ALL || ids[i] == shown;
		if (show && tokenizer_is_special(t, ids[i])) {
			size_t len = 0;
			const char *bytes = tokenizer_bytes(t, ids[i], &len);
			buffer_append(out, bytes, len);
		} else {
			buffer_append(out, piece, tokenizer_stream_add(t, &stream, ids[i], piece));
		}
	}
	buffer_append(out, piece, tokenizer_stream_end(t, &stream, piece));
	free(piece);
}

size_t compose_trimmed(const char *bytes, size_t len) {
	return len > 1 && bytes[len - 1] == ' ' ? len - 1 : len;
}

void compose_prompt_text(
                const struct model *model, const struct job *job, int i, struct buffer *out) {
	const struct job_prompt *prompt = &job->prompts[i];
	if (job->kind != REQUEST_CHAT && job->request.inputs[i].text)
		buffer_append(out, job->request.inputs[i].text, job->request.inputs[i].text_len);
	else
		compose_text(model->tokenizer, prompt->tokens, prompt->n_tokens, SHOW_NONE, out);
}

/* Of a beam search, or of its narrowest kind, the greedy one; samples have none. */
static bool score_of(const struct job *job, const struct choice *choice,
                const struct choice_progress *seen, double *ret_score) {
	bool searched = job->prompts[0].target && job->sampling.temperature == 0;
	if (!searched || !job->want_logprobs || seen->n_tokens == 0)
		return false;
	*ret_score = job->num_beams > 0
	                ? choice->score
	                : choice->logprob_sum / pow(seen->n_tokens, job->length_penalty);
	return true;
}

void compose_finish(const struct job *job, const struct choice *choice,
                const struct choice_progress *seen, struct answer_choice *to) {
	to->finish_reason = seen->finish == FINISH_STOP ? "stop" : "length";
	to->finish_detail = seen->detail == DETAIL_DEADLINE ? "deadline"
	                : seen->detail == DETAIL_BUDGET     ? "budget"
	                                                    : NULL;
	if (seen->finish == FINISH_STOP && choice->stop_index >= 0)
		to->stop_reason = job->request.stops[choice->stop_index];
	to->has_score = score_of(job, choice, seen, &to->score);
}

/* ---- warnings ---- */

/* What of a request had no effect on its answer, beside fields that nobody knows. */
static size_t list_effects(const struct job *job, const char *sentences[3]) {
	const struct request *request = &job->request;
	bool seq2seq = job->n_prompts > 0 && job->prompts[0].target;
	size_t n = 0;
	if (seq2seq && request->num_beams.set && request->temperature.value > 0)
		sentences[n++] = "temperature was ignored: num_beams asks for a search, which does "
		                 "not sample.";
	if (job->num_beams > 1 && request->logprobs > 0)
		sentences[n++] = "logprobs lists no alternatives: a hypothesis of a beam search "
		                 "knows its own tokens only.";
	if (job->num_beams > 1 && request->speculative.kind == SPECULATIVE_ON)
		sentences[n++] = "speculative was ignored: the hypotheses of a beam search are not "
		                 "drafted.";
	return n;
}

char **compose_warnings(const struct job *job, size_t *ret_n) {
	const struct request *request = &job->request;
	const char *effects[3];
	size_t n_effects = list_effects(job, effects);
	*ret_n = 0;
	if (request->n_unknown + n_effects == 0)
		return NULL;
	char **warnings = calloc(request->n_unknown + n_effects, sizeof *warnings);
	for (size_t i = 0; warnings && i < n_effects; i++) {
		warnings[*ret_n] = strdup(effects[i]);
		*ret_n += warnings[*ret_n] != NULL;
	}
	for (size_t i = 0; warnings && i < request->n_unknown; i++) {
		char *sentence;
		if (asprintf(&sentence, "The field \"%s\" is not known here and was ignored.",
		                    request->unknown[i])
		                < 0)
			break;
		warnings[(*ret_n)++] = sentence;
	}
	return warnings;
}

void compose_warnings_free(char **warnings, size_t n) {
	for (size_t i = 0; i < n; i++)
		free(warnings[i]);
	free(warnings);
}
