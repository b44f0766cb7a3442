/* SPDX-License-Identifier: Apache-2.0 */
/* The handlers that the table of routes names, one file each group. Each answers its call. */
#ifndef FATHOM_SERVER_HANDLERS_H
#define FATHOM_SERVER_HANDLERS_H

#include "server/call.h"

/* submit.c */
void handle_completions(struct call *call);
void handle_chat(struct call *call);
void handle_loglikelihood(struct call *call);
void handle_embeddings(struct call *call);
void handle_classify(struct call *call);
void handle_fill_mask(struct call *call);
void handle_plan(struct call *call);
void handle_cancel(struct call *call);

/* texts.c */
void handle_tokenize(struct call *call);
void handle_detokenize(struct call *call);

/* info.c */
void handle_models(struct call *call);
void handle_model(struct call *call);
void handle_version(struct call *call);

/* depths.c */
void handle_depths(struct call *call);
/* The current generation, or NULL after the call was refused. */
const struct generation *handle_current(struct call *call);

/* admin.c */
void handle_livez(struct call *call);
void handle_readyz(struct call *call);
void handle_metrics(struct call *call);
void handle_drain(struct call *call);
void handle_reload(struct call *call);

/* pages.c */
void handle_openapi(struct call *call);
void handle_page(struct call *call);

#endif
