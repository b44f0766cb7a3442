/* SPDX-License-Identifier: Apache-2.0 */
/* Labels: the names of the classes of every classification head, in the model's own order. Pure. */
#ifndef FATHOM_MODEL_LABELS_H
#define FATHOM_MODEL_LABELS_H

#include <stdbool.h>
#include <stddef.h>

#include "model/facts.h"

/*
 * Reads them from config.json: "labels" of each of our "classification_heads", or Hugging Face's
 * "id2label"; LABEL_0, LABEL_1, ... where there are none. *ret_labels is [n_classifiers][classes],
 * NULL without classifiers; free it with labels_free. Facts are those of the same config.json.
 */
bool labels_parse(const char *json, size_t len, const struct facts *facts, char ****ret_labels,
                char *err, size_t errlen);
void labels_free(char ***labels, const struct facts *facts);

#endif
