/* SPDX-License-Identifier: Apache-2.0 */
/* The contract as it is served at /openapi.json; made from openapi.yaml when building. */
#ifndef FATHOM_PROTO_OPENAPI_H
#define FATHOM_PROTO_OPENAPI_H

#include <stddef.h>

extern const char proto_openapi_json[]; /* NUL-terminated */
extern const size_t proto_openapi_json_len;

#endif
