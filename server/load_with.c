/* SPDX-License-Identifier: Apache-2.0 */
/* Words to kernels, formats and threads. */
#include "server/load_with.h"

#include <stdio.h>
#include <string.h>

#include "model/threads.h"

struct load_with load_with_of(const struct config *config) {
	return (struct load_with){ .kernels = config->kernels,
		.cpu_level = config->cpu_level,
		.weights = config->weights,
		.packed_cache = config->packed_cache,
		.verify = config->verify,
		.threads = config->threads };
}

int load_with_threads(const struct load_with *with) {
	return with->threads > 0 ? with->threads : threads_count("");
}

bool load_with_read(const struct load_with *with, struct model_options *ret_options, char *err,
                size_t errlen) {
	struct model_options options = { .packed = PACKED_READ };
	enum cpu_level level;
	if (!cpu_level_parse(with->cpu_level, &level)) {
		snprintf(err, errlen, "The level \"%s\" is not known.", with->cpu_level);
		return false;
	}
	if (!weight_format_parse(with->weights, &options.weights)) {
		snprintf(err, errlen, "The weights \"%s\" are not known.", with->weights);
		return false;
	}
	if (strcmp(with->packed_cache, "off") == 0)
		options.packed = PACKED_IGNORED;
	else if (with->verify)
		options.packed = PACKED_VERIFIED;
	options.threads = load_with_threads(with);
	options.ops = ops_select(with->kernels, level, err, errlen);
	if (!options.ops)
		return false;
	*ret_options = options;
	return true;
}

bool load_with_keeps(const struct config *config) {
	return strcmp(config->packed_cache, "auto") == 0;
}
