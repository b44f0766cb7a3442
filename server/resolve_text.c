/* SPDX-License-Identifier: Apache-2.0 */
/* The text half of resolve.h: prompts, sources, targets and pairs become tokens. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "server/compose.h"
#include "server/resolve.h"
#include "server/resolve_parts.h"

enum { LONG_WORDS = 16 };

/* What reads one text: the source side or the target side of a model, which may be the same. */
struct side {
	const struct tokenizer *tokenizer;
	int vocab, context;
};

static struct side source_side(const struct model *model) {
	const struct facts *facts = &model->facts;
	if (facts->kind == KIND_LM)
		return (struct side){ model->tokenizer, facts->vocab, facts->context };
	const struct stack_facts *encoder = &facts->stack[STACK_ENCODER];
	return (struct side){ model->tokenizer, encoder->vocab, encoder->context };
}

static struct side target_side(const struct model *model) {
	const struct facts *facts = &model->facts;
	if (facts->kind != KIND_SEQ2SEQ)
		return source_side(model);
	return (struct side){ model->target_tokenizer, facts->vocab,
		facts->stack[STACK_DECODER].context };
}

const char *resolve_prompt_field(const struct request *request) {
	if (request->targets)
		return "source";
	return request->kind == REQUEST_CHAT                  ? "messages"
	                : request->kind == REQUEST_COMPLETION ? "prompt"
	                                                      : "input";
}

bool resolve_no_memory(struct error *e) {
	return error_set(e, ERROR_INTERNAL, "", "Memory ran out while reading the request.");
}

/* Tokens of one text, and where its second half begins. */
struct tokens {
	int32_t *ids; /* room for one more than n */
	int n, second;
};

static bool copy_ids(const struct side *side, const struct input *input, const char *field,
                struct tokens *out, struct error *e) {
	for (size_t i = 0; i < input->n_tokens; i++) {
		if (input->tokens[i] < 0 || input->tokens[i] >= side->vocab)
			return error_set(e, ERROR_INVALID_REQUEST, field,
			                "Token id %d does not exist; ids go from 0 to %d.",
			                input->tokens[i], side->vocab - 1);
	}
	out->ids = malloc((input->n_tokens + 1) * sizeof *out->ids);
	if (!out->ids)
		return resolve_no_memory(e);
	if (input->n_tokens > 0)
		memcpy(out->ids, input->tokens, input->n_tokens * sizeof *out->ids);
	out->n = out->second = (int)input->n_tokens;
	return true;
}

static bool check_made(const struct side *side, const struct tokens *made, struct error *e) {
	for (int i = 0; i < made->n; i++) {
		if (made->ids[i] < 0 || made->ids[i] >= side->vocab)
			return error_set(e, ERROR_INTERNAL, "",
			                "The tokenizer made id %d, which this model does not have.",
			                made->ids[i]);
	}
	return true;
}

static bool encode(const struct side *side, const struct tokenizer_input *input, struct tokens *out,
                struct error *e) {
	size_t cap = tokenizer_capacity(side->tokenizer, input->len + input->pair_len), n, second;
	if (cap >= SIZE_MAX / sizeof *out->ids - 1)
		return resolve_no_memory(e);
	out->ids = malloc((cap + 1) * sizeof *out->ids);
	if (!out->ids
	                || !tokenizer_encode_input(
	                                side->tokenizer, input, out->ids, cap, &n, &second))
		return resolve_no_memory(e);
	out->n = (int)n;
	out->second = (int)second;
	if (!check_made(side, out, e))
		return false;
	/* Most of `cap` is seldom used. */
	int32_t *fitted = realloc(out->ids, (n + 1) * sizeof *fitted);
	if (fitted)
		out->ids = fitted;
	return true;
}

/*
 * A text of so many bytes is refused unread. It is a guess, if a safe one: a word that the
 * vocabulary lacks can be one token however long it is.
 */
static bool check_bytes(const struct side *side, size_t len, const char *field, struct error *e) {
	size_t context = (size_t)side->context, longest = tokenizer_longest(side->tokenizer);
	if (len <= context * longest * LONG_WORDS)
		return true;
	return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, field,
	                "The text has %zu bytes, far more than the %zu tokens that this model "
	                "takes. Shorten it.",
	                len, context);
}

/* Cuts the end off, but for the symbol that the tokenizer put last. */
static void truncate_to(const struct side *side, bool made, struct tokens *out) {
	if (out->n <= side->context)
		return;
	int32_t last = out->ids[out->n - 1];
	out->n = side->context;
	if (made && tokenizer_is_special(side->tokenizer, last))
		out->ids[out->n - 1] = last;
	if (out->second > out->n)
		out->second = out->n;
}

/* One text as tokens, without regard to how many. */
static bool read_tokens(const struct side *side, const struct request *request,
                const struct input *input, bool special, const char *field, struct tokens *out,
                struct error *e) {
	if (!input->text)
		return copy_ids(side, input, field, out, e);
	const struct tokenizer_input text = { .text = input->text,
		.len = input->text_len,
		.pair = input->pair,
		.pair_len = input->pair_len,
		.add_special = special,
		.pretokenized = request->pretokenized };
	const char *refusal = tokenizer_refusal(side->tokenizer, &text);
	return refusal ? error_set(e, ERROR_INVALID_REQUEST, field, "%s", refusal)
	               : encode(side, &text, out, e);
}

static bool is_empty(const struct model *model, const char *field, bool ids, struct error *e) {
	if (ids && model->facts.bos >= 0)
		return error_set(e, ERROR_INVALID_REQUEST, field,
		                "The list of token ids is empty; send the start symbol (%d) to "
		                "start from nothing.",
		                model->facts.bos);
	return error_set(e, ERROR_INVALID_REQUEST, field,
	                "The prompt is empty and this model has no start symbol; send at least one "
	                "token.");
}

/* A prompt, a source, or a text for an encoder. */
static bool read_source(const struct model *model, const struct request *request,
                const struct input *input, struct job_prompt *prompt, struct error *e) {
	const struct side side = source_side(model);
	const char *field = resolve_prompt_field(request);
	struct tokens tokens = { 0 };
	bool bounded = input->text && !request->truncate;
	bool ok = (!bounded || check_bytes(&side, input->text_len + input->pair_len, field, e))
	                && read_tokens(&side, request, input, true, field, &tokens, e);
	prompt->tokens = tokens.ids;
	if (!ok)
		return false;
	if (request->truncate)
		truncate_to(&side, input->text != NULL, &tokens);
	int32_t bos = model->facts.kind == KIND_LM ? tokenizer_bos(side.tokenizer) : -1;
	prompt->starts_with_bos = input->text && bos >= 0 && tokens.n > 0 && tokens.ids[0] == bos;
	if (tokens.n == 0 && input->text && model->facts.kind == KIND_LM && model->facts.bos >= 0) {
		tokens.ids[tokens.n++] = model->facts.bos;
		prompt->starts_with_bos = true;
	}
	prompt->n_tokens = tokens.n;
	prompt->second = tokens.second;
	return tokens.n > 0 || is_empty(model, field, !input->text, e);
}

/* ---- encoder-decoders ---- */

/* What the decoder begins with; `text` (NULL: none) follows it to be scored. */
static bool read_target(const struct model *model, const struct request *request,
                const struct input *text, struct job_prompt *prompt, struct error *e) {
	const struct facts *facts = &model->facts;
	const struct side side = target_side(model);
	struct tokens tokens = { 0 };
	bool ok = !text
	                || ((!text->text || check_bytes(&side, text->text_len, "target", e))
	                                && read_tokens(&side, request, text, false, "target",
	                                                &tokens, e));
	if (ok && text && tokens.n == 0)
		ok = error_set(e, ERROR_INVALID_REQUEST, "target",
		                "The target is empty; send at least one token.");
	prompt->target = ok ? malloc(((size_t)tokens.n + 2) * sizeof *prompt->target) : NULL;
	if (ok && !prompt->target)
		ok = resolve_no_memory(e);
	if (ok) {
		int32_t *to = prompt->target;
		*to++ = facts->decoder_start;
		/* Ids stand for themselves: nothing is added to them. */
		if (facts->forced_bos >= 0 && (!text || text->text))
			*to++ = facts->forced_bos;
		prompt->n_forced = (int)(to - prompt->target);
		prompt->n_target = prompt->n_forced + tokens.n;
		if (tokens.n > 0)
			memcpy(to, tokens.ids, (size_t)tokens.n * sizeof *to);
	}
	free(tokens.ids);
	return ok;
}

/* ---- masks ---- */

static bool find_masks(const struct model *model, struct job_prompt *prompt, struct error *e) {
	int32_t mask = model->facts.mask;
	for (int i = 0; i < prompt->n_tokens; i++)
		prompt->n_masks += prompt->tokens[i] == mask;
	if (prompt->n_masks == 0) {
		size_t len = 0;
		const char *bytes = tokenizer_bytes(model->tokenizer, mask, &len);
		return error_set(e, ERROR_INVALID_REQUEST, "input",
		                "The text has no mask; write %.*s where a token is to be found.",
		                bytes ? (int)compose_trimmed(bytes, len) : 0, bytes ? bytes : "");
	}
	prompt->masks = malloc((size_t)prompt->n_masks * sizeof *prompt->masks);
	if (!prompt->masks)
		return resolve_no_memory(e);
	for (int i = 0, k = 0; i < prompt->n_tokens; i++) {
		if (prompt->tokens[i] == mask)
			prompt->masks[k++] = i;
	}
	return true;
}

/* ---- chat ---- */

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
	struct input input = { 0 };
	input.text = plain_chat(&job->request, &input.text_len);
	if (!input.text)
		return resolve_no_memory(e);
	job->n_prompts = 1;
	job->prompts = calloc(1, sizeof *job->prompts);
	bool ok = job->prompts ? read_source(model, &job->request, &input, &job->prompts[0], e)
	                       : resolve_no_memory(e);
	free(input.text);
	return ok;
}

/* ---- all of them ---- */

static bool read_one(const struct model *model, const struct request *request, int i,
                struct job_prompt *prompt, struct error *e) {
	if (!read_source(model, request, &request->inputs[i], prompt, e))
		return false;
	if (model->facts.kind == KIND_SEQ2SEQ)
		return read_target(model, request, request->targets ? &request->targets[i] : NULL,
		                prompt, e);
	return request->kind != REQUEST_FILL_MASK || find_masks(model, prompt, e);
}

/* /tokenize: tokens of any number, of either side. */
static bool read_plain(const struct model *model, const struct request *request, int i,
                struct job_prompt *prompt, struct error *e) {
	bool target = strcmp(request->side, "target") == 0;
	const struct side side = target ? target_side(model) : source_side(model);
	struct tokens tokens = { 0 };
	bool ok = read_tokens(&side, request, &request->inputs[i], request->add_special_tokens,
	                resolve_prompt_field(request), &tokens, e);
	prompt->tokens = tokens.ids;
	prompt->n_tokens = tokens.n;
	return ok;
}

/* A text to score comes as `input`, or where it is a translation as source and target. */
static bool check_sides(const struct model *model, const struct request *request, struct error *e) {
	bool pairs = model->facts.kind == KIND_SEQ2SEQ;
	if (request->kind != REQUEST_LOGLIKELIHOOD || pairs == (request->targets != NULL))
		return true;
	return error_set(e, ERROR_INVALID_REQUEST, pairs ? "input" : "source",
	                pairs ? "This checkpoint is an encoder-decoder; send source and target."
	                      : "This checkpoint is a language model; send the text as input.");
}

bool resolve_prompts(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	if (request->kind == REQUEST_CHAT)
		return read_chat(model, config, job, e);
	if (!check_sides(model, request, e))
		return false;
	job->prompts = calloc(request->n_inputs ? request->n_inputs : 1, sizeof *job->prompts);
	if (!job->prompts)
		return resolve_no_memory(e);
	job->n_prompts = (int)request->n_inputs;
	for (int i = 0; i < job->n_prompts; i++) {
		struct job_prompt *prompt = &job->prompts[i];
		bool ok = request->kind == REQUEST_TOKENIZE
		                ? read_plain(model, request, i, prompt, e)
		                : read_one(model, request, i, prompt, e);
		if (!ok)
			return false;
	}
	return true;
}
