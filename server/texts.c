/* SPDX-License-Identifier: Apache-2.0 */
/* POST /tokenize and /detokenize. */
#include <stdlib.h>
#include <string.h>

#include "proto/answer.h"
#include "server/compose.h"
#include "server/handlers.h"
#include "server/resolve.h"
#include "server/submit.h"

static void answer_tokens(struct call *call) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	bool target = strcmp(job->request.side, "target") == 0;
	struct answer_vocab vocab = target ? compose_vocab(model) : compose_source_vocab(model);
	struct buffer body = { 0 };
	size_t n = (size_t)job->n_prompts;
	struct answer_tokenized *items = calloc(n + 1, sizeof *items);
	for (size_t i = 0; items && i < n; i++)
		items[i] = (struct answer_tokenized){ job->prompts[i].tokens,
			(size_t)job->prompts[i].n_tokens };
	if (items)
		answer_write_tokenize(&body, items, n, job->request.inputs_were_list,
		                model->facts.context, job->request.return_token_strs, &vocab);
	else
		body.failed = true;
	free(items);
	call_answer(call, 200, NULL, &body);
}

void handle_tokenize(struct call *call) {
	submit_request(call, REQUEST_TOKENIZE, answer_tokens);
}

/* The vocabulary that ids are of: the answers', unless the request says otherwise. */
static const struct tokenizer *tokenizer_of(
                const struct model *model, const struct request *request) {
	return strcmp(request->side, "source") == 0 ? model->tokenizer : model->target_tokenizer;
}

static bool join(const struct tokenizer *t, const struct request *request, struct buffer *text,
                struct error *e) {
	const struct input *input = &request->inputs[0];
	for (size_t k = 0; k < input->n_tokens; k++) {
		size_t len;
		if (!tokenizer_bytes(t, input->tokens[k], &len))
			return error_set(e, ERROR_INVALID_REQUEST, "tokens",
			                "This model has no token %d; ids go from 0 to %d.",
			                input->tokens[k], tokenizer_size(t) - 1);
	}
	compose_text(t, input->tokens, (int)input->n_tokens, SHOW_ALL, text);
	return true;
}

void handle_detokenize(struct call *call) {
	struct request request;
	struct request_limits limits;
	struct error e = { 0 };
	struct buffer text = { 0 }, body = { 0 };
	size_t len;
	const char *sent = exchange_body(call->x, &len);
	submit_limits(call->server->config, &limits);
	if (!sent || !request_parse(REQUEST_DETOKENIZE, sent, len, &limits, &request, &e)) {
		call_fail(call, &e);
		return;
	}
	const struct model *model = generation_model(call->server->current);
	struct depth_spec ignored;
	if (resolve_model_name(model, call->server->config, &request, &ignored, &e)
	                && join(tokenizer_of(model, &request), &request, &text, &e)) {
		answer_write_detokenize(&body, text.data ? text.data : "", text.len);
		body.failed = body.failed || text.failed;
		call_answer(call, 200, NULL, &body);
	} else {
		call_fail(call, &e);
	}
	buffer_finish(&text);
	request_finish(&request);
}
