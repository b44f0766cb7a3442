/* SPDX-License-Identifier: Apache-2.0 */
/* The encoder half of resolve.h: pooling, heads, and how much an answer may hold. */
#include <stdio.h>
#include <string.h>

#include "server/resolve.h"
#include "server/resolve_parts.h"

static bool settle_embedding(const struct model *model, const struct config *config,
                struct job *job, struct error *e) {
	const struct request *request = &job->request;
	int dim = model->facts.stack[STACK_ENCODER].dim;
	if (request->dimensions.set && request->dimensions.value != dim)
		return error_set(e, ERROR_UNSUPPORTED_PARAMETER, "dimensions",
		                "The vectors of this model have %d dimensions and are not "
		                "shortened; leave dimensions out.",
		                dim);
	long long values = (long long)job->n_prompts * dim;
	if (values > config->embedding_values)
		return error_set(e, ERROR_INVALID_REQUEST, "input",
		                "The answer would hold %lld numbers, at most %d are allowed; send "
		                "fewer texts.",
		                values, config->embedding_values);
	job->work = WORK_EMBED;
	job->mean_pooling = request->pooling[0] ? strcmp(request->pooling, "mean") == 0
	                                        : model->facts.mean_pooling;
	job->normalize = request->normalize;
	return true;
}

/* Names of all heads, in quotes. */
static void list_heads(const struct facts *facts, char *text, size_t size) {
	size_t n = 0;
	text[0] = '\0';
	for (int i = 0; i < facts->n_classifiers && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s\"%s\"", i ? ", " : "",
		                facts->classifiers[i].name);
}

static bool settle_classifier(const struct model *model, struct job *job, struct error *e) {
	const struct facts *facts = &model->facts;
	const char *head = job->request.head;
	char names[320];
	job->work = WORK_CLASSIFY;
	for (int i = 0; head && i < facts->n_classifiers; i++) {
		if (strcmp(facts->classifiers[i].name, head) == 0) {
			job->classifier = i;
			return true;
		}
	}
	if (!head && facts->n_classifiers == 1)
		return true;
	list_heads(facts, names, sizeof names);
	return error_set(e, ERROR_INVALID_REQUEST, "head", "%s; send head as one of %s.",
	                head ? "This checkpoint has no classification head of that name"
	                     : "This checkpoint has several classification heads",
	                names);
}

/* Every fill comes with its whole text. */
static bool settle_masks(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	long long listed = 0;
	job->work = WORK_FILL_MASK;
	job->n_top = job->request.fill_top_k;
	if (job->n_top > model->facts.vocab)
		job->n_top = model->facts.vocab;
	for (int i = 0; i < job->n_prompts; i++)
		listed += (long long)job->prompts[i].n_masks * job->n_top
		                * job->prompts[i].n_tokens;
	if (listed <= config->logprob_entries)
		return true;
	return error_set(e, ERROR_INVALID_REQUEST, "top_k",
	                "The texts of the answer would hold %lld tokens, at most %d are allowed; "
	                "ask for fewer masks or a smaller top_k.",
	                listed, config->logprob_entries);
}

bool resolve_encoder(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	switch (job->request.kind) {
	case REQUEST_EMBEDDING:
		return settle_embedding(model, config, job, e);
	case REQUEST_CLASSIFY:
		return settle_classifier(model, job, e);
	case REQUEST_FILL_MASK:
		return settle_masks(model, config, job, e);
	default:
		return true;
	}
}
