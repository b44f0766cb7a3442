/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a model may take: the KV pool's default, and whether a second model fits. */
#ifndef FATHOM_SERVER_MEMORY_H
#define FATHOM_SERVER_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "model/model.h"

/*
 * Bytes of the KV pool: what the configuration says, else a quarter of the memory limit less
 * `taken` (the weights, and what other models hold), but not more than its sequences could use.
 */
size_t memory_kv_bytes(const struct config *config, const struct model *model, size_t taken);

/* The format of cached keys and values that the configuration stands for. */
enum kv_format memory_kv_format(const struct config *config, const struct model *model);

/*
 * Whether the folder's weights fit beside what the process holds now. `expansion` is the bytes in
 * memory for each byte of a weight file, as the running model has it. False with one sentence.
 */
bool memory_fits(const char *dir, double expansion, char *err, size_t errlen);

/* Bytes of the folder's weight files; 0 if there are none. */
size_t memory_weight_files(const char *dir);

#endif
