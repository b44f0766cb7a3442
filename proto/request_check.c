/* SPDX-License-Identifier: Apache-2.0 */
/* A request as a whole: what must not be missing, and what only several fields together can break. */
#include "proto/reader.h"

/* The field that a route cannot do without. */
struct need {
	const char *field, *advice;
	const char *other, *elsewhere; /* where a body with that field is meant to go */
};

static const struct need needs[REQUEST_KINDS] = {
	[REQUEST_COMPLETION] = { "prompt", "send a text or token ids", "messages",
	                "messages go to /v1/chat/completions" },
	[REQUEST_CHAT] = { "messages", "send at least one message", "prompt",
	                "a prompt goes to /v1/completions" },
	[REQUEST_LOGLIKELIHOOD] = { "input", "send a text or token ids", NULL, NULL },
	[REQUEST_EMBEDDING] = { "input", "send a text or token ids", NULL, NULL },
	[REQUEST_CLASSIFY] = { "input", "send a text, a pair of texts or token ids", NULL, NULL },
	[REQUEST_FILL_MASK] = { "input", "send a text with a mask, or token ids", NULL, NULL },
	[REQUEST_TOKENIZE] = { "prompt", "send a text", NULL, NULL },
	[REQUEST_DETOKENIZE] = { "tokens", "send a list of token ids", NULL, NULL },
};

static bool refuse(struct reader *r, const char *field, const char *sentence) {
	return error_set(r->error, ERROR_INVALID_REQUEST, field, "%s", sentence);
}

static bool check_present(struct reader *r, const json_t *root) {
	const struct need *need = &needs[r->kind];
	const struct request *q = r->request;
	if (r->kind == REQUEST_CHAT ? q->n_messages > 0 : q->n_inputs > 0)
		return true;
	bool stray = need->other && json_object_get(root, need->other);
	return error_set(r->error, ERROR_INVALID_REQUEST, need->field, "%s is missing; %s.",
	                need->field, stray ? need->elsewhere : need->advice);
}

/* Of two texts of which one is translated into the other, neither goes without the other. */
static bool check_targets(struct reader *r, const json_t *root) {
	const struct request *q = r->request;
	const json_t *source = json_object_get(root, "source");
	bool has_source = source && !json_is_null(source);
	if (r->kind != REQUEST_LOGLIKELIHOOD || (!has_source && !q->targets))
		return true;
	if (!has_source)
		return refuse(r, "source", "target needs source, the text that it translates.");
	if (!q->targets)
		return refuse(r, "target", "source needs target, the text that is scored.");
	if (q->n_inputs != q->n_targets)
		return error_set(r->error, ERROR_INVALID_REQUEST, "target",
		                "source holds %zu texts and target %zu; each source needs one "
		                "target.",
		                q->n_inputs, q->n_targets);
	return true;
}

static bool check_bounds(
                struct reader *r, const char *name, long long min_depth, long long max_depth) {
	if (min_depth == 0 || max_depth == 0 || min_depth <= max_depth)
		return true;
	return error_set(r->error, ERROR_INVALID_DEPTH, "min_depth",
	                "min_depth is %lld and max_depth %lld%s; the first must not be greater.",
	                min_depth, max_depth, name);
}

static bool check_depth(struct reader *r) {
	const struct request *q = r->request;
	const char *clash = q->depth.kind != DEPTH_UNSET ? "depth"
	                : q->plan_rule[0]                ? "plan_rule"
	                : q->min_depth > 0               ? "min_depth"
	                : q->max_depth > 0               ? "max_depth"
	                                                 : NULL;
	if (q->has_layers && clash)
		return error_set(r->error, ERROR_INVALID_LAYERS, "layers",
		                "layers is the whole plan; send it without %s.", clash);
	return check_bounds(r, "", q->min_depth, q->max_depth)
	                && check_bounds(r, " (encoder)", q->encoder_min_depth,
	                                q->encoder_max_depth);
}

static bool check_choices(struct reader *r) {
	struct request *q = r->request;
	if (q->best_of == 0)
		q->best_of = q->n;
	if (q->best_of < q->n)
		return error_set(r->error, ERROR_INVALID_REQUEST, "best_of",
		                "best_of is %d and n %d; best_of must not be smaller.", q->best_of,
		                q->n);
	if (q->stream && q->best_of > q->n)
		return refuse(r, "best_of",
		                "A stream cannot wait for the best choices; send best_of equal to "
		                "n or no stream.");
	if (q->stream && q->num_beams.set && q->num_beams.value > 1)
		return refuse(r, "num_beams",
		                "A stream cannot wait for the best hypothesis; send num_beams 1 or "
		                "no stream.");
	return true;
}

bool request_check(struct reader *r, const json_t *root) {
	const struct request *q = r->request;
	if (!check_targets(r, root) || !check_present(r, root) || !check_depth(r)
	                || !check_choices(r))
		return false;
	if (q->max_tokens.set && q->min_tokens > q->max_tokens.value)
		return error_set(r->error, ERROR_INVALID_REQUEST, "min_tokens",
		                "min_tokens is %lld and max_tokens %lld; the first must not be "
		                "greater.",
		                (long long)q->min_tokens, (long long)q->max_tokens.value);
	if (q->include_usage && !q->stream)
		return refuse(r, "stream_options", "stream_options needs \"stream\": true.");
	return true;
}
