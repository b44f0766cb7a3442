/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tools add to a model folder: quality.json (measured quality by depth) and plans.json (the
 * best plan found for each depth). Pure parsers; a sentence names the file.
 *
 * A depth is a number; of an encoder-decoder it is {"encoder": 6, "decoder": 3}, or a number that
 * stands for the decoder's with the whole encoder. `layers` are the layers of each stack, 0 for one
 * that the model does not have.
 */
#ifndef FATHOM_MODEL_SIDECAR_H
#define FATHOM_MODEL_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>

#include "model/model.h"

/*
 * {"metric": "perplexity", "depths": [{"depth": 12, "perplexity": 31.2}, ...]}: ascending by depth,
 * each depth once. The caller frees *ret.
 */
bool quality_parse(const char *json, size_t len, const int layers[STACKS],
                struct depth_quality **ret, size_t *ret_count, char *err, size_t errlen);

/*
 * {"plans": [{"depth": 6, "layers": [0, 2, 5, 7, 9, 11]}, ...]}, of an encoder-decoder with
 * "layers": {"encoder": [...], "decoder": [...]} where the depth is a pair; in the same way.
 */
bool plans_parse(const char *json, size_t len, const int layers[STACKS], struct subnet **ret,
                size_t *ret_count, char *err, size_t errlen);

#endif
