/* SPDX-License-Identifier: Apache-2.0 */
/* Documents that are part of the program: the contract and the page. */
#include "proto/openapi.h"
#include "server/handlers.h"
#include "server/page.h"

void handle_openapi(struct call *call) {
	struct fields fields;
	call_common_fields(call, &fields);
	fields_add(&fields, "Content-Type", "application/json");
	exchange_answer_static(call->x, 200, fields.items, fields.n, proto_openapi_json,
	                proto_openapi_json_len);
}

void handle_page(struct call *call) {
	struct fields fields;
	struct error e;
	if (!call->server->config->page) {
		error_set(&e, ERROR_NOT_FOUND, NULL,
		                "The page is turned off; the contract is at /openapi.json.");
		call_fail(call, &e);
		return;
	}
	call_common_fields(call, &fields);
	fields_add(&fields, "Content-Type", "text/html; charset=utf-8");
	fields_add(&fields, "Content-Security-Policy", "%s", page_policy);
	fields_add(&fields, "Referrer-Policy", "no-referrer");
	exchange_answer_static(call->x, 200, fields.items, fields.n, page_html, page_html_len);
}
