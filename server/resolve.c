/* SPDX-License-Identifier: Apache-2.0 */
/* From a request to a job: prompts become tokens, defaults are filled in, lengths are checked. */
#include "server/resolve.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "server/resolve_parts.h"

enum { LARGE_BYTES = 16384 };

bool resolve_is_large(const struct request *request) {
	size_t bytes = 0;
	for (size_t i = 0; i < request->n_inputs; i++)
		bytes += request->inputs[i].text ? request->inputs[i].text_len : 0;
	for (size_t i = 0; i < request->n_messages; i++)
		bytes += request->messages[i].content_len;
	return bytes > LARGE_BYTES;
}

static bool no_memory(struct error *e) {
	return error_set(e, ERROR_INTERNAL, "", "Memory ran out while reading the request.");
}

/* ---- prompts ---- */

/* Name of the field that the prompts came in. */
static const char *prompt_field(const struct request *request) {
	return request->kind == REQUEST_CHAT                  ? "messages"
	                : request->kind == REQUEST_COMPLETION ? "prompt"
	                                                      : "input";
}

static bool copy_ids(const struct model *model, const struct input *input,
                struct job_prompt *prompt, const char *field, struct error *e) {
	int vocab = model->facts.vocab;
	for (size_t i = 0; i < input->n_tokens; i++) {
		if (input->tokens[i] < 0 || input->tokens[i] >= vocab)
			return error_set(e, ERROR_INVALID_REQUEST, field,
			                "Token id %d does not exist; ids go from 0 to %d.",
			                input->tokens[i], vocab - 1);
	}
	prompt->tokens = malloc((input->n_tokens + 1) * sizeof *prompt->tokens);
	if (!prompt->tokens)
		return no_memory(e);
	if (input->n_tokens > 0)
		memcpy(prompt->tokens, input->tokens, input->n_tokens * sizeof *prompt->tokens);
	prompt->n_tokens = (int)input->n_tokens;
	return true;
}

static bool check_tokens(
                const struct model *model, const struct job_prompt *prompt, struct error *e) {
	for (int i = 0; i < prompt->n_tokens; i++) {
		if (prompt->tokens[i] < 0 || prompt->tokens[i] >= model->facts.vocab)
			return error_set(e, ERROR_INTERNAL, "",
			                "The tokenizer made id %d, which this model does not have.",
			                prompt->tokens[i]);
	}
	return true;
}

static bool encode(const struct model *model, const char *text, size_t len, bool special,
                struct job_prompt *prompt, struct error *e) {
	const struct tokenizer *t = model->tokenizer;
	size_t cap = len + tokenizer_added(t) + 1, n;
	prompt->tokens = malloc(cap * sizeof *prompt->tokens);
	if (!prompt->tokens
	                || !tokenizer_encode(t, text, len, special, prompt->tokens, cap - 1, &n))
		return no_memory(e);
	prompt->n_tokens = (int)n;
	int32_t bos = tokenizer_bos(t);
	prompt->starts_with_bos = special && bos >= 0 && n > 0 && prompt->tokens[0] == bos;
	if (!check_tokens(model, prompt, e))
		return false;
	/* Most of `cap` is seldom used. */
	int32_t *fitted = realloc(prompt->tokens, (n + 1) * sizeof *fitted);
	if (fitted)
		prompt->tokens = fitted;
	return true;
}

static bool encode_bounded(const struct model *model, const char *text, size_t len,
                struct job_prompt *prompt, const char *field, struct error *e) {
	size_t context = (size_t)model->facts.context;
	size_t longest = tokenizer_longest(model->tokenizer);
	if (len > context * longest)
		return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
		                "The text has %zu bytes; this model takes %zu tokens, which is at "
		                "most %zu bytes. Shorten it.",
		                len, context, context * longest);
	if (!encode(model, text, len, true, prompt, e))
		return false;
	if (prompt->n_tokens == 0 && model->facts.bos >= 0) {
		prompt->tokens[0] = model->facts.bos;
		prompt->n_tokens = 1;
		prompt->starts_with_bos = true;
	}
	return true;
}

static bool read_prompt_of(const struct model *model, const struct request *request,
                const struct input *input, struct job_prompt *prompt, struct error *e) {
	const char *field = prompt_field(request);
	if (!input->text) {
		if (!copy_ids(model, input, prompt, field, e))
			return false;
	} else if (request->kind == REQUEST_TOKENIZE) {
		return encode(model, input->text, input->text_len, request->add_special_tokens,
		                prompt, e);
	} else if (!encode_bounded(model, input->text, input->text_len, prompt, field, e)) {
		return false;
	}
	if (prompt->n_tokens > 0 || request->kind == REQUEST_TOKENIZE)
		return true;
	if (model->facts.bos >= 0)
		return error_set(e, ERROR_INVALID_REQUEST, field,
		                "The list of token ids is empty; send the start symbol (%d) to "
		                "start "
		                "from nothing.",
		                model->facts.bos);
	return error_set(e, ERROR_INVALID_REQUEST, field,
	                "The prompt is empty and this model has no start symbol; send at least one "
	                "token.");
}

/* "Role: content\n" for each message, then "Assistant:". Free the text. */
static char *plain_chat(const struct request *request, size_t *ret_len) {
	static const char last[] = "Assistant:";
	size_t size = sizeof last;
	for (size_t i = 0; i < request->n_messages; i++)
		size += strlen(request->messages[i].role) + 3 + request->messages[i].content_len;
	char *text = malloc(size), *to = text;
	if (!text)
		return NULL;
	for (size_t i = 0; i < request->n_messages; i++) {
		const struct message *m = &request->messages[i];
		char *role = to;
		to = stpcpy(to, m->role);
		*role = (char)toupper((unsigned char)*role);
		to = stpcpy(to, ": ");
		memcpy(to, m->content, m->content_len);
		to += m->content_len;
		*to++ = '\n';
	}
	to = stpcpy(to, last);
	*ret_len = (size_t)(to - text);
	return text;
}

/* The bundled demo is a folder called "demo"; without --model nothing else is served. */
static bool chat_is_plain(const struct model *model, const struct config *config) {
	if (strcmp(config->chat_template, "plain") == 0)
		return true;
	bool is_auto = strcmp(config->chat_template, "none") != 0;
	return is_auto && (!config->model || strcmp(model->name, "demo") == 0);
}

static bool read_chat(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	if (!chat_is_plain(model, config))
		return error_set(e, ERROR_NOT_SUPPORTED, "",
		                "This model is not tuned for chat and no chat template is set; use "
		                "/v1/completions, or start the server with --chat-template plain.");
	size_t len;
	char *text = plain_chat(&job->request, &len);
	if (!text)
		return no_memory(e);
	job->n_prompts = 1;
	job->prompts = calloc(1, sizeof *job->prompts);
	bool ok = job->prompts ? encode_bounded(model, text, len, &job->prompts[0], "messages", e)
	                       : no_memory(e);
	free(text);
	return ok;
}

static bool read_prompts(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	if (request->kind == REQUEST_CHAT)
		return read_chat(model, config, job, e);
	job->prompts = calloc(request->n_inputs ? request->n_inputs : 1, sizeof *job->prompts);
	if (!job->prompts)
		return no_memory(e);
	job->n_prompts = (int)request->n_inputs;
	for (int i = 0; i < job->n_prompts; i++) {
		if (!read_prompt_of(model, request, &request->inputs[i], &job->prompts[i], e))
			return false;
	}
	return true;
}

/* ---- lengths ---- */

static bool too_long(
                const struct job *job, int context, int prompt, int64_t answer, struct error *e) {
	const char *field = prompt_field(&job->request);
	if (answer == 0)
		return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
		                "This model's maximum context length is %d tokens, but the %s has "
		                "%d.",
		                context, field, prompt);
	return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
	                "This model's maximum context length is %d tokens. However, you requested "
	                "%lld tokens (%d in the %s, %lld in the completion). Reduce the length of "
	                "the %s or of the completion.",
	                context, (long long)(prompt + answer), prompt, field, (long long)answer,
	                field);
}

/* Sets max_tokens: an explicit one must fit the context, a default one is cut to fit. */
static bool settle_lengths(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	int context = model->facts.context, longest = 0;
	for (int i = 0; i < job->n_prompts; i++) {
		if (job->prompts[i].n_tokens > longest)
			longest = job->prompts[i].n_tokens;
	}
	if (request->kind == REQUEST_LOGLIKELIHOOD)
		return longest <= context || too_long(job, context, longest, 0, e);

	int64_t max = model->defaults.max_tokens > 0 ? model->defaults.max_tokens
	                                             : config->default_max_tokens;
	if (request->max_tokens.set) {
		max = request->max_tokens.value;
		if (max == 0 && request->kind == REQUEST_CHAT)
			return error_set(e, ERROR_INVALID_REQUEST, "max_tokens",
			                "max_tokens is 0; ask for at least one token.");
		if (max == 0 && !request->echo)
			return error_set(e, ERROR_INVALID_REQUEST, "max_tokens",
			                "max_tokens is 0, which needs \"echo\": true; ask for at "
			                "least "
			                "one token.");
		if (longest + max > context)
			return too_long(job, context, longest, max, e);
	} else if (longest + 1 > context) {
		return too_long(job, context, longest, 1, e);
	} else if (longest + max > context) {
		max = context - longest;
	}
	job->max_tokens = (int)max;
	if (request->min_tokens > max)
		return error_set(e, ERROR_INVALID_REQUEST, "min_tokens",
		                "min_tokens is %lld, but at most %d tokens will be generated.",
		                (long long)request->min_tokens, job->max_tokens);
	job->min_tokens = (int)request->min_tokens;
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
		return no_memory(e);
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

/* End symbols: they must not be drawn before min_tokens. */
static bool settle_banned(const struct model *model, struct job *job, struct error *e) {
	const struct facts *facts = &model->facts;
	if (facts->eos < 0 || job->min_tokens == 0)
		return true;
	job->banned = calloc((size_t)facts->n_eos + 1, sizeof *job->banned);
	if (!job->banned)
		return no_memory(e);
	job->banned[0] = facts->eos;
	memcpy(job->banned + 1, facts->eos_ids, (size_t)facts->n_eos * sizeof *job->banned);
	job->sampling.banned = job->banned;
	job->sampling.n_banned = facts->n_eos + 1;
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

static bool settle_choices(const struct model *model, struct job *job, struct error *e) {
	const struct request *request = &job->request;
	job->n = request->n > 0 ? request->n : 1;
	job->best_of = request->best_of > 0 ? request->best_of : job->n;
	if (request->kind == REQUEST_LOGLIKELIHOOD || request->kind == REQUEST_TOKENIZE) {
		job->n = job->best_of = 0;
		job->want_prompt_logprobs = request->kind == REQUEST_LOGLIKELIHOOD;
		return true;
	}
	if (job->best_of < job->n || (request->stream && job->best_of > job->n))
		return error_set(e, ERROR_INVALID_REQUEST, "best_of",
		                "best_of must not be smaller than n, nor greater in a stream.");
	job->n_choices = job->n_prompts * job->best_of;
	job->stream = request->stream;
	job->want_logprobs = request->logprobs >= 0;
	job->n_top = request->logprobs > 0 ? request->logprobs : 0;
	if (job->n_top > model->facts.vocab)
		job->n_top = model->facts.vocab;
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
	if (request->deadline_expired)
		return error_set(e, ERROR_DEADLINE_EXCEEDED, "",
		                "The deadline had passed before the request arrived.");
	struct depth_spec ignored;
	if (request->kind == REQUEST_TOKENIZE)
		return resolve_model_name(model, config, request, &ignored, e)
		                && read_prompts(model, config, job, e)
		                && settle_choices(model, job, e);
	if (!resolve_policy(model, config, request, &job->policy, e)
	                || !read_prompts(model, config, job, e)
	                || !settle_lengths(model, config, job, e) || !settle_sampling(model, job, e)
	                || !settle_choices(model, job, e) || !check_listed(config, job, e))
		return false;
	settle_time(job);
	return job_allocate(job, tokenizer_longest(model->tokenizer), e);
}

struct job *resolve_job(const struct model *model, const struct config *config,
                struct request *request, struct error *e) {
	struct job *job = calloc(1, sizeof *job);
	if (!job) {
		request_finish(request);
		no_memory(e);
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
