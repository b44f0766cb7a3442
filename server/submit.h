/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a request from its body to the engine: parse, apply headers, make tokens (large inputs
 * on the tokeniser's thread), submit; and the way out for those that leave early. Loop thread only.
 */
#ifndef FATHOM_SERVER_SUBMIT_H
#define FATHOM_SERVER_SUBMIT_H

#include "proto/request.h"
#include "server/call.h"

/*
 * Parses the call's body as `kind`, makes it a job of the current generation, and calls
 * `start(call)` once call->job is there; or answers with what is wrong.
 */
void submit_request(struct call *call, enum request_kind kind, void (*start)(struct call *call));
/* The same for a request that was parsed already; takes it over. */
void submit_parsed(struct call *call, struct request *request, void (*start)(struct call *call));

void submit_limits(const struct config *config, struct request_limits *ret_limits);

/* Ends the call's work with an error; false if none is being done. */
bool submit_cancel(struct call *call, enum error_code code);

/* The exchange is over: what is still being done for it is cancelled. */
void submit_end(struct call *call);

#endif
