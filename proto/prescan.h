/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at a JSON body before it is parsed: how deep and how many values. A parsed value costs up
 * to eighty times its bytes, so a small body could otherwise take a lot of memory and time.
 */
#ifndef FATHOM_PROTO_PRESCAN_H
#define FATHOM_PROTO_PRESCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/error.h"

/*
 * False with `ret_error` filled if the body nests deeper than max_depth or holds more than
 * max_values values (keys count too). It does not say whether the body is JSON: ill-formed text
 * passes, unless it breaks a bound.
 */
bool prescan_check(const char *body, size_t len, int max_depth, int max_values,
                struct error *ret_error);

#endif
