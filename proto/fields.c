/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of request fields. Order matters where one field looks at another. */
#include "proto/fields.h"

#include <math.h>
#include <string.h>

#include "proto/reader.h"

#define AT(member) offsetof(struct request, member)
#define FREE INFINITY

static const char *const on_miss_words[] = { "degrade", "reject", "truncate", NULL };
static const char *const plan_rule_words[] = { "even", "ends", "prefix", "tuned", NULL };
static const char *const encoding_words[] = { "float", "base64", NULL };
static const char *const pooling_words[] = { "cls", "mean", NULL };
static const char *const side_words[] = { "source", "target", NULL };

const struct field request_fields[] = {
	{ "model", FIELD_STRING, ON_ALL, AT(model) },
	{ "prompt", FIELD_CUSTOM, ON_COMPLETION | ON_TOKENIZE, .read = read_prompt },
	{ "input", FIELD_CUSTOM, ON_LOGLIKELIHOOD | ON_ENCODER | ON_TOKENIZE, .read = read_prompt },
	{ "source", FIELD_CUSTOM, ON_LOGLIKELIHOOD, .read = read_source },
	{ "target", FIELD_CUSTOM, ON_LOGLIKELIHOOD, .read = read_target },
	{ "pretokenized", FIELD_BOOL, ON_TEXTS, AT(pretokenized), .own = true },
	{ "tokens", FIELD_CUSTOM, ON_DETOKENIZE, .read = read_tokens },
	{ "messages", FIELD_CUSTOM, ON_CHAT, .read = read_messages },

	/* Depth and time: our own. */
	{ "depth", FIELD_CUSTOM, ON_MODEL, .code = ERROR_INVALID_DEPTH, .own = true,
	                .read = read_depth },
	{ "layers", FIELD_CUSTOM, ON_MODEL, .code = ERROR_INVALID_LAYERS, .own = true,
	                .read = read_layers },
	{ "plan_rule", FIELD_WORD, ON_MODEL, AT(plan_rule), .words = plan_rule_words, .own = true },
	{ "min_depth", FIELD_CUSTOM, ON_MODEL, .code = ERROR_INVALID_DEPTH, .own = true,
	                .read = read_min_depth },
	{ "max_depth", FIELD_CUSTOM, ON_MODEL, .code = ERROR_INVALID_DEPTH, .own = true,
	                .read = read_max_depth },
	{ "allow_step_down", FIELD_BOOL, ON_MODEL, AT(allow_step_down), .own = true },
	{ "latency_budget_ms", FIELD_F64, ON_MODEL, AT(latency_budget_ms), 0, FREE, true,
	                .own = true },
	{ "ttft_budget_ms", FIELD_F64, ON_MODEL, AT(ttft_budget_ms), 0, FREE, true, .own = true },
	{ "tpot_budget_ms", FIELD_F64, ON_MODEL, AT(tpot_budget_ms), 0, FREE, true, .own = true },
	{ "deadline_ms", FIELD_F64, ON_MODEL, AT(deadline_ms), 0, FREE, true, BOUND_DEADLINE,
	                .own = true },
	{ "on_miss", FIELD_CHOICE, ON_MODEL, AT(on_miss), .words = on_miss_words, .own = true },
	{ "expected_tokens", FIELD_I64, ON_MODEL, AT(expected_tokens), 1, FREE,
	                .bound = BOUND_MAX_TOKENS, .own = true },
	{ "priority", FIELD_INT, ON_MODEL, AT(priority), -FREE, FREE, .own = true,
	                .read = read_priority },
	{ "cache_prompt", FIELD_BOOL, ON_MODEL, AT(cache_prompt), .own = true },
	{ "cache_salt", FIELD_CUSTOM, ON_MODEL, .own = true, .read = read_cache_salt },
	{ "speculative", FIELD_CUSTOM, ON_GENERATION, .own = true, .read = read_speculative },

	/* Generation, as OpenAI and vLLM name it. */
	{ "max_tokens", FIELD_OPT_I64, ON_GENERATION, AT(max_tokens), 0, FREE,
	                .bound = BOUND_MAX_TOKENS, .read = read_max_tokens },
	{ "max_completion_tokens", FIELD_OPT_I64, ON_GENERATION, AT(max_tokens), 0, FREE,
	                .bound = BOUND_MAX_TOKENS, .read = read_max_tokens },
	{ "min_tokens", FIELD_I64, ON_GENERATION, AT(min_tokens), 0, FREE,
	                .bound = BOUND_MAX_TOKENS, .own = true },
	{ "temperature", FIELD_OPT_F64, ON_GENERATION, AT(temperature), 0, 2 },
	{ "top_p", FIELD_OPT_F64, ON_GENERATION, AT(top_p), 0, 1 },
	{ "top_k", FIELD_OPT_I64, ON_GENERATION, AT(top_k), -1, INT32_MAX, .own = true },
	{ "repetition_penalty", FIELD_OPT_F64, ON_GENERATION, AT(repetition_penalty), 0, 10, true,
	                .own = true },
	{ "presence_penalty", FIELD_OPT_F64, ON_GENERATION, AT(presence_penalty), -2, 2 },
	{ "frequency_penalty", FIELD_OPT_F64, ON_GENERATION, AT(frequency_penalty), -2, 2 },
	{ "logit_bias", FIELD_CUSTOM, ON_GENERATION, .read = read_logit_bias },
	{ "seed", FIELD_OPT_I64, ON_GENERATION, AT(seed), -FREE, FREE },
	{ "n", FIELD_INT, ON_GENERATION, AT(n), 1, FREE, .bound = BOUND_N },
	{ "best_of", FIELD_INT, ON_GENERATION, AT(best_of), 1, FREE, .bound = BOUND_BEST_OF },
	{ "num_beams", FIELD_OPT_I64, ON_COMPLETION, AT(num_beams), 1, FREE, .bound = BOUND_BEAMS,
	                .own = true },
	{ "length_penalty", FIELD_OPT_F64, ON_COMPLETION, AT(length_penalty), -10, 10,
	                .own = true },
	{ "stop", FIELD_CUSTOM, ON_GENERATION, .read = read_stop },
	{ "ignore_eos", FIELD_BOOL, ON_GENERATION, AT(ignore_eos), .own = true },
	{ "echo", FIELD_BOOL, ON_COMPLETION, AT(echo) },
	{ "logprobs", FIELD_INT, ON_COMPLETION, AT(logprobs), 0, FREE,
	                .bound = BOUND_TOP_LOGPROBS },
	{ "logprobs", FIELD_BOOL, ON_CHAT, .read = read_logprobs },
	{ "top_logprobs", FIELD_INT, ON_CHAT, .min = 0, .max = FREE, .bound = BOUND_TOP_LOGPROBS,
	                .read = read_top_logprobs },
	{ "return_token_ids", FIELD_BOOL, ON_GENERATION, AT(return_token_ids), .own = true },
	{ "stream", FIELD_BOOL, ON_GENERATION, AT(stream) },
	{ "stream_options", FIELD_CUSTOM, ON_GENERATION, .read = read_stream_options },
	{ "user", FIELD_STRING, ON_GENERATION | ON_ENCODER, AT(user) },

	/* Encoders. */
	{ "encoding_format", FIELD_CHOICE, ON_EMBEDDING, AT(encoding_format),
	                .words = encoding_words },
	{ "dimensions", FIELD_OPT_I64, ON_EMBEDDING, AT(dimensions), 1, FREE },
	{ "pooling", FIELD_WORD, ON_EMBEDDING, AT(pooling), .words = pooling_words, .own = true },
	{ "normalize", FIELD_BOOL, ON_EMBEDDING, AT(normalize), .own = true },
	{ "truncate", FIELD_BOOL, ON_ENCODER, AT(truncate), .own = true },
	{ "return_logits", FIELD_BOOL, ON_CLASSIFY, AT(return_logits), .own = true },
	{ "head", FIELD_STRING, ON_CLASSIFY, AT(head), .own = true },
	{ "top_k", FIELD_INT, ON_FILL_MASK, AT(fill_top_k), 1, FREE, .bound = BOUND_FILL_TOP_K,
	                .own = true },

	{ "add_special_tokens", FIELD_BOOL, ON_TOKENIZE, AT(add_special_tokens), .own = true },
	{ "return_token_strs", FIELD_BOOL, ON_TOKENIZE, AT(return_token_strs), .own = true },
	{ "side", FIELD_WORD, ON_TOKENIZE | ON_DETOKENIZE, AT(side), .words = side_words,
	                .own = true },
};
const size_t request_fields_count = sizeof request_fields / sizeof request_fields[0];

static const char beams[] = "Use num_beams on /v1/completions.";
static const char send_input[] = "Only text is read; send input.";
static const char leave_out[] = "Leave the field out.";
static const char no_constraint[] = "Output cannot be constrained; leave the field out.";
static const char no_tools[] = "Tools cannot be called; leave the field out.";
static const char text_only[] = "Only text is read and written; leave the field out.";

const struct refused_field request_refused[] = {
	{ "suffix", ON_COMPLETION, "[\"\"]", "Text cannot be inserted; leave the field out." },
	{ "num_beams", ON_CHAT, "[1]", beams },
	{ "use_beam_search", ON_GENERATION, "[false]", beams },
	{ "length_penalty", ON_CHAT, "[1]", beams },
	{ "early_stopping", ON_GENERATION, "[false]",
	                "A search ends when num_beams hypotheses have." },
	{ "no_repeat_ngram_size", ON_GENERATION, "[0]", leave_out },
	{ "num_return_sequences", ON_GENERATION, "[1]", "Use n." },
	{ "min_p", ON_GENERATION, "[0]", "Use top_p or top_k." },
	{ "prompt_logprobs", ON_GENERATION, "[]", "Use /v1/loglikelihood, or echo with logprobs." },
	{ "top_logprobs", ON_COMPLETION, "[0]", "Send the number as logprobs." },
	{ "echo", ON_CHAT, "[false]", "Use it on /v1/completions." },
	{ "stop_token_ids", ON_GENERATION, "[[]]", "Use stop." },
	{ "include_stop_str_in_output", ON_GENERATION, "[false]", leave_out },
	{ "skip_special_tokens", ON_GENERATION, "[true]", "Use return_token_ids to see them." },
	{ "spaces_between_special_tokens", ON_GENERATION, "[true]", leave_out },
	{ "truncate_prompt_tokens", ON_GENERATION | ON_LOGLIKELIHOOD | ON_TOKENIZE, "[]",
	                "Shorten the prompt." },
	{ "truncate_prompt_tokens", ON_ENCODER, "[]", "Use truncate." },
	{ "add_special_tokens", ON_COMPLETION | ON_LOGLIKELIHOOD | ON_ENCODER, "[true]",
	                "Send token ids: nothing is added to them." },
	{ "add_special_tokens", ON_CHAT, "[false]", leave_out },
	{ "allowed_token_ids", ON_GENERATION, "[]", "Use logit_bias." },
	{ "bad_words", ON_GENERATION, "[[]]", "Use logit_bias." },
	{ "logits_processors", ON_GENERATION, "[[]]", leave_out },
	{ "return_tokens_as_token_ids", ON_GENERATION, "[false]", "Use return_token_ids." },
	{ "prompt_embeds", ON_GENERATION, "[]", "Send a text or token ids." },
	{ "kv_transfer_params", ON_GENERATION, "[]", leave_out },
	{ "response_format", ON_GENERATION, "[{\"type\": \"text\"}]", no_constraint },
	{ "structured_outputs", ON_GENERATION, "[]", no_constraint },
	{ "structural_tag", ON_GENERATION, "[]", no_constraint },
	{ "guided_json", ON_GENERATION, "[]", no_constraint },
	{ "guided_regex", ON_GENERATION, "[]", no_constraint },
	{ "guided_choice", ON_GENERATION, "[]", no_constraint },
	{ "guided_grammar", ON_GENERATION, "[]", no_constraint },
	{ "guided_decoding_backend", ON_GENERATION, "[]", no_constraint },
	{ "guided_whitespace_pattern", ON_GENERATION, "[]", no_constraint },
	{ "tools", ON_GENERATION, "[[]]", no_tools },
	{ "tool_choice", ON_GENERATION, "[\"none\", \"auto\"]", no_tools },
	{ "functions", ON_GENERATION, "[[]]", no_tools },
	{ "function_call", ON_GENERATION, "[\"none\", \"auto\"]", no_tools },
	{ "web_search_options", ON_GENERATION, "[]", no_tools },
	{ "modalities", ON_GENERATION, "[[\"text\"]]", text_only },
	{ "audio", ON_GENERATION, "[]", text_only },
	{ "mm_processor_kwargs", ON_GENERATION, "[]", text_only },
	{ "prediction", ON_GENERATION, "[]", leave_out },
	{ "reasoning_effort", ON_GENERATION, "[\"none\"]", leave_out },
	{ "verbosity", ON_GENERATION, "[\"medium\"]", leave_out },
	{ "documents", ON_GENERATION, "[[]]", "Put the text into a message." },
	{ "chat_template", ON_GENERATION, "[]", "The server's own template is used." },
	{ "chat_template_kwargs", ON_GENERATION, "[{}]", "The server's own template is used." },
	{ "add_generation_prompt", ON_GENERATION, "[true]", "Use /v1/completions." },
	{ "continue_final_message", ON_GENERATION, "[false]", "Use /v1/completions." },
	{ "messages", ON_TOKENIZE, "[]", "Send the text as prompt." },
	{ "messages", ON_EMBEDDING | ON_CLASSIFY, "[]", send_input },
	{ "embed_dtype", ON_EMBEDDING, "[\"float32\"]", "Use encoding_format." },
	{ "endianness", ON_EMBEDDING, "[\"native\", \"little\"]", leave_out },
	{ "activation", ON_CLASSIFY, "[true]", "Use return_logits." },
	{ "use_activation", ON_CLASSIFY, "[true]", "Use return_logits." },
	{ "targets", ON_FILL_MASK, "[]", "Use a greater top_k." },
};
const size_t request_refused_count = sizeof request_refused / sizeof request_refused[0];

double field_max(const struct field *field, const struct request_limits *limits) {
	switch (field->bound) {
	case BOUND_NONE:
		break;
	case BOUND_N:
		return limits->n;
	case BOUND_BEST_OF:
		return limits->best_of;
	case BOUND_BEAMS:
		return limits->beams;
	case BOUND_FILL_TOP_K:
		return limits->fill_top_k;
	case BOUND_TOP_LOGPROBS:
		return limits->top_logprobs;
	case BOUND_MAX_TOKENS:
		return limits->max_tokens;
	case BOUND_DEADLINE:
		return limits->deadline_ms;
	}
	return field->max;
}

const struct field *field_find(const char *name, unsigned on) {
	for (size_t i = 0; i < request_fields_count; i++) {
		const struct field *f = &request_fields[i];
		if ((f->on & on) && strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}

const struct refused_field *field_find_refused(const char *name, unsigned on) {
	for (size_t i = 0; i < request_refused_count; i++) {
		const struct refused_field *f = &request_refused[i];
		if ((f->on & on) && strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}
