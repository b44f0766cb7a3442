/* SPDX-License-Identifier: Apache-2.0 */
/* Which routes a checkpoint can serve, and which one to call instead. */
#include "server/resolve.h"

/* What each kind of model has no part for: bits of enum request_kind. */
#define ROUTE(kind) (1u << (kind))
static const struct {
	unsigned lacks;
	const char *is;
} kinds[] = {
	[KIND_LM] = { ROUTE(REQUEST_EMBEDDING) | ROUTE(REQUEST_CLASSIFY) | ROUTE(REQUEST_FILL_MASK),
	                "is a language model without such a head" },
	[KIND_ENCODER] = { ROUTE(REQUEST_COMPLETION) | ROUTE(REQUEST_CHAT)
	                                | ROUTE(REQUEST_LOGLIKELIHOOD),
	                "is an encoder, which neither writes nor scores texts" },
	[KIND_SEQ2SEQ] = { ROUTE(REQUEST_CHAT) | ROUTE(REQUEST_EMBEDDING) | ROUTE(REQUEST_CLASSIFY)
	                                | ROUTE(REQUEST_FILL_MASK),
	                "is an encoder-decoder, which makes one text of another" },
};

/* The route that shows best what a model can do. */
static const char *working_route(const struct facts *facts) {
	if (facts->kind != KIND_ENCODER)
		return "/v1/completions";
	return facts->n_classifiers > 0 ? "/classify" : "/v1/embeddings";
}

bool resolve_route(const struct model *model, enum request_kind kind, struct error *e) {
	const struct facts *facts = &model->facts;
	const char *is = kinds[facts->kind].is;
	bool lacks = (kinds[facts->kind].lacks & ROUTE(kind)) != 0;
	if (!lacks && kind == REQUEST_CLASSIFY && facts->n_classifiers == 0) {
		lacks = true;
		is = "has no classification head";
	} else if (!lacks && kind == REQUEST_FILL_MASK && (!facts->mlm_head || facts->mask < 0)) {
		lacks = true;
		is = "has no masked-LM head";
	}
	return !lacks
	                || error_set(e, ERROR_NOT_SUPPORTED, NULL,
	                                "This checkpoint %s; POST %s works.", is,
	                                working_route(facts));
}
