/* SPDX-License-Identifier: Apache-2.0 */
/* From a request to a job: defaults are filled in, lengths are checked. */
#include "server/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "server/resolve_parts.h"

enum { LARGE_BYTES = 16384 };

bool resolve_is_large(const struct request *request) {
	size_t bytes = 0;
	for (size_t i = 0; i < request->n_inputs; i++)
		bytes += request->inputs[i].text_len + request->inputs[i].pair_len;
	for (size_t i = 0; i < request->n_targets; i++)
		bytes += request->targets[i].text_len;
	for (size_t i = 0; i < request->n_messages; i++)
		bytes += request->messages[i].content_len;
	return bytes > LARGE_BYTES;
}

/* ---- lengths ---- */

static bool too_long(const char *field, int context, int has, int64_t answer, struct error *e) {
	if (answer == 0)
		return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
		                "This model's maximum context length is %d tokens, but the %s has "
		                "%d.",
		                context, field, has);
	return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
	                "This model's maximum context length is %d tokens. However, you requested "
	                "%lld tokens (%d in the %s, %lld in the completion). Reduce the length of "
	                "the %s or of the completion.",
	                context, (long long)(has + answer), has, field, (long long)answer, field);
}

/* Tokens of the longest prompt; of an encoder-decoder, of the longest target. */
static int longest_past(const struct job *job) {
	int longest = 0;
	for (int i = 0; i < job->n_prompts; i++) {
		const struct job_prompt *p = &job->prompts[i];
		int n = p->target ? p->n_target : p->n_tokens;
		longest = n > longest ? n : longest;
	}
	return longest;
}

/* Texts that go through an encoder must fit it by themselves. */
static bool check_sources(const struct model *model, const struct job *job, struct error *e) {
	int context = model->facts.stack[STACK_ENCODER].context;
	const char *field = resolve_prompt_field(&job->request);
	bool cut = job->request.kind == REQUEST_EMBEDDING || job->request.kind == REQUEST_CLASSIFY;
	if (model->facts.kind == KIND_LM)
		return true;
	for (int i = 0; i < job->n_prompts; i++) {
		if (job->prompts[i].n_tokens <= context)
			continue;
		if (cut)
			return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
			                "This model's maximum context length is %d tokens, but the "
			                "%s has %d; shorten it or send \"truncate\": true.",
			                context, field, job->prompts[i].n_tokens);
		return too_long(field, context, job->prompts[i].n_tokens, 0, e);
	}
	return true;
}

static bool check_max_tokens(const struct request *request, struct error *e) {
	if (request->max_tokens.value > 0)
		return true;
	if (request->kind == REQUEST_CHAT)
		return error_set(e, ERROR_INVALID_REQUEST, "max_tokens",
		                "max_tokens is 0; ask for at least one token.");
	return request->echo
	                || error_set(e, ERROR_INVALID_REQUEST, "max_tokens",
	                                "max_tokens is 0, which needs \"echo\": true; ask for at "
	                                "least one token.");
}

/* Tokens of an answer when the request does not say. */
static int default_tokens(const struct model *model, const struct config *config) {
	if (model->defaults.max_tokens > 0)
		return model->defaults.max_tokens;
	return model->facts.kind == KIND_SEQ2SEQ ? config->default_target_tokens
	                                         : config->default_max_tokens;
}

/* Sets max_tokens: an explicit one must fit the context, a default one is cut to fit. */
static bool settle_lengths(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	bool seq2seq = model->facts.kind == KIND_SEQ2SEQ;
	int context = seq2seq ? model->facts.stack[STACK_DECODER].context : model->facts.context;
	int longest = longest_past(job);
	const char *field = seq2seq ? "target" : resolve_prompt_field(request);
	if (!check_sources(model, job, e))
		return false;
	if (job->work != WORK_GENERATE)
		return true;
	if (request->kind == REQUEST_LOGLIKELIHOOD)
		return longest <= context || too_long(field, context, longest, 0, e);

	int64_t max = default_tokens(model, config);
	if (request->max_tokens.set) {
		max = request->max_tokens.value;
		if (!check_max_tokens(request, e))
			return false;
		if (seq2seq && longest + max > context)
			return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
			                "max_tokens is %lld, but an answer of this model has at "
			                "most %d tokens; ask for fewer.",
			                (long long)max, context - longest);
		if (longest + max > context)
			return too_long(field, context, longest, max, e);
	} else if (longest + 1 > context) {
		return too_long(field, context, longest, 1, e);
	} else if (longest + max > context) {
		max = context - longest;
	}
	job->max_tokens = (int)max;
	if (request->min_tokens > max)
		return error_set(e, ERROR_INVALID_REQUEST, "min_tokens",
		                "min_tokens is %lld, but at most %d tokens will be generated.",
		                (long long)request->min_tokens, job->max_tokens);
	job->min_tokens = (int)request->min_tokens;
	if (seq2seq && job->min_tokens == 0) /* as fairseq: no answer is empty */
		job->min_tokens = 1;
	job->expected_tokens =
	                request->expected_tokens > max ? (int)max : (int)request->expected_tokens;
	return true;
}

/* ---- sampling ---- */

static double or_default(struct opt_f64 value, double fallback) {
	return value.set ? value.value : fallback;
}

static bool settle_seed(const struct request *request, uint64_t *ret_seed, struct error *e) {
	if (request->seed.set) {
		*ret_seed = (uint64_t)request->seed.value;
		return true;
	}
	ssize_t n;
	do {
		n = getrandom(ret_seed, sizeof *ret_seed, 0);
	} while (n < 0 && errno == EINTR);
	return n == sizeof *ret_seed
	                || error_set(e, ERROR_INTERNAL, "", "No random seed could be had.");
}

static bool settle_bias(const struct model *model, struct job *job, struct error *e) {
	const struct request *request = &job->request;
	size_t n = request->n_logit_bias;
	if (n == 0)
		return true;
	job->bias = calloc(n, sizeof *job->bias);
	if (!job->bias)
		return resolve_no_memory(e);
	for (size_t i = 0; i < n; i++) {
		int32_t token = request->logit_bias[i].token;
		if (token < 0 || token >= model->facts.vocab)
			return error_set(e, ERROR_INVALID_REQUEST, "logit_bias",
			                "Token id %d in logit_bias does not exist; ids go from 0 "
			                "to %d.",
			                token, model->facts.vocab - 1);
		job->bias[i] = (struct logit_bias){ token, request->logit_bias[i].bias };
	}
	job->sampling.bias = job->bias;
	job->sampling.n_bias = (int)n;
	return true;
}

/* What must not be drawn: fairseq's models never answer padding, and before min_tokens there is no
 * end symbol. */
static bool settle_banned(const struct model *model, struct job *job, struct error *e) {
	const struct facts *facts = &model->facts;
	bool no_pad = facts->pad >= 0
	                && (facts->kind == KIND_SEQ2SEQ || tokenizer_is_fairseq(model->tokenizer));
	bool no_end = facts->eos >= 0 && job->min_tokens > 0;
	if (!no_pad && !no_end)
		return true;
	job->banned = calloc((size_t)facts->n_eos + 2, sizeof *job->banned);
	if (!job->banned)
		return resolve_no_memory(e);
	int n = 0;
	if (no_pad)
		job->banned[n++] = facts->pad;
	job->n_never = n;
	if (no_end) {
		job->banned[n++] = facts->eos;
		memcpy(job->banned + n, facts->eos_ids, (size_t)facts->n_eos * sizeof *job->banned);
		n += facts->n_eos;
	}
	job->sampling.banned = job->banned;
	job->sampling.n_banned = n;
	return true;
}

static bool settle_sampling(const struct model *model, struct job *job, struct error *e) {
	const struct request *request = &job->request;
	const struct generation_defaults *defaults = &model->defaults;
	struct sampling *s = &job->sampling;
	s->temperature = (float)or_default(request->temperature, defaults->temperature);
	s->top_p = (float)or_default(request->top_p, defaults->top_p);
	s->top_k = request->top_k.set ? (int)request->top_k.value : defaults->top_k;
	if (s->top_k < 0 || s->top_k >= model->facts.vocab)
		s->top_k = 0;
	s->repetition_penalty = (float)or_default(
	                request->repetition_penalty, defaults->repetition_penalty);
	s->presence_penalty = (float)or_default(request->presence_penalty, 0);
	s->frequency_penalty = (float)or_default(request->frequency_penalty, 0);
	return settle_seed(request, &s->seed, e) && settle_bias(model, job, e)
	                && settle_banned(model, job, e);
}

/* ---- the job ---- */

static bool settle_choices(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	if (request->kind != REQUEST_COMPLETION && request->kind != REQUEST_CHAT) {
		job->want_prompt_logprobs = request->kind == REQUEST_LOGLIKELIHOOD;
		return true;
	}
	if (!resolve_search(model, config, job, e) || !resolve_draft(config, job, e))
		return false;
	job->stream = request->stream;
	job->want_logprobs = request->logprobs >= 0;
	job->n_top = request->logprobs > 0 ? request->logprobs : 0;
	if (job->n_top > model->facts.vocab)
		job->n_top = model->facts.vocab;
	if (job->num_beams > 0) /* a hypothesis knows its own tokens only */
		job->n_top = 0;
	job->want_prompt_logprobs = request->echo && job->want_logprobs;
	return true;
}

/* What an answer lists is written at once by the loop thread; a stream comes in pieces. */
static bool check_listed(const struct config *config, const struct job *job, struct error *e) {
	const struct request *request = &job->request;
	int64_t tokens = 0;
	if (job->want_logprobs)
		tokens += (int64_t)job->n_prompts * job->n * job->max_tokens;
	for (int i = 0; job->want_prompt_logprobs && i < job->n_prompts; i++)
		tokens += (int64_t)job->n * job->prompts[i].n_tokens;
	int64_t entries = tokens * (1 + job->n_top);
	if (request->stream || entries <= config->logprob_entries)
		return true;
	return error_set(e, ERROR_INVALID_REQUEST, "logprobs",
	                "The answer would list up to %lld log-probabilities, at most %d are "
	                "allowed; ask "
	                "for fewer %s or alternatives.",
	                (long long)entries, config->logprob_entries,
	                request->n_inputs > 1 ? "prompts, tokens" : "tokens");
}

static void settle_time(struct job *job) {
	const struct request *request = &job->request;
	job->latency_budget_ms = request->latency_budget_ms;
	job->ttft_budget_ms = request->ttft_budget_ms;
	job->tpot_budget_ms = request->tpot_budget_ms;
	job->on_miss = request->on_miss;
	job->priority = request->priority;
	job->predicted_ms = -1;
}

static bool build(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	struct depth_spec ignored;
	if (request->kind == REQUEST_TOKENIZE)
		return resolve_model_name(model, config, request, &ignored, e)
		                && resolve_prompts(model, config, job, e);
	if (request->deadline_expired)
		return error_set(e, ERROR_DEADLINE_EXCEEDED, "",
		                "The deadline had passed before the request arrived.");
	if (!resolve_route(model, request->kind, e)
	                || !resolve_policy(model, config, request, &job->policy, e)
	                || !resolve_prompts(model, config, job, e)
	                || !resolve_encoder(model, config, job, e)
	                || !settle_lengths(model, config, job, e) || !settle_sampling(model, job, e)
	                || !settle_choices(model, config, job, e) || !check_listed(config, job, e))
		return false;
	settle_time(job);
	return job_allocate(job, model, e);
}

struct job *resolve_job(const struct model *model, const struct config *config,
                struct request *request, struct error *e) {
	struct job *job = calloc(1, sizeof *job);
	if (!job) {
		request_finish(request);
		resolve_no_memory(e);
		return NULL;
	}
	job->request = *request;
	memset(request, 0, sizeof *request);
	job->kind = job->request.kind;
	if (build(model, config, job, e))
		return job;
	job_destroy(job);
	return NULL;
}
