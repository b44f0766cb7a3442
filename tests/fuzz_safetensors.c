/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libFuzzer entry for the safetensors parser and the widening of what it lets through. Built with
 * clang and -Dfuzz=true; run as `fuzz_safetensors CORPUS_FOLDER`.
 */
#include <stdint.h>
#include <stdlib.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct tensor_table table;
	char err[400];
	if (!safetensors_parse(data, size, size, &table, err, sizeof err))
		return 0;
	for (size_t i = 0; i < table.count; i++) {
		const struct tensor *t = &table.tensors[i];
		if (safetensors_find(&table, t->name) != t)
			abort();
		if (t->dtype == DTYPE_OTHER || t->count == 0)
			continue;
		float *wide = malloc(t->count * sizeof *wide);
		if (wide)
			dtype_widen(wide, data + t->offset, t->dtype, t->count);
		free(wide);
	}
	safetensors_finish(&table);
	return 0;
}
