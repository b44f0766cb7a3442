/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing: tensors of a checkpoint, widened to f32 and turned, into the panels that a kernel table
 * reads. Threads work side by side, each with one chunk of about a megabyte, so that loading needs
 * no more memory than the packed weights and that.
 */
#ifndef FATHOM_MODEL_PACK_H
#define FATHOM_MODEL_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "model/ops.h"
#include "model/safetensors.h"

/* Rows [first, first + rows) of a job, as they lie in the checkpoint. */
struct pack_source {
	const void *data; /* [rows, n_in], or [n_in, rows] if transposed; perhaps unaligned */
	enum dtype dtype; /* F32, F16 or BF16 */
	bool transposed;
	int first, rows;
};

/* One destination: a matrix in panels, or plain f32 rows (n_in = 1 for a vector). */
struct pack_job {
	void *data;
	int n_out, n_in;
	bool panels;
	enum weight_format format;     /* of panels */
	struct pack_source sources[3]; /* together all of the rows, in order */
	int n_sources;
};

struct pack_options {
	const struct ops *ops;
	int threads;
	/* Called on the caller's thread between slices of the work, with the share that is done; may be
	 * NULL. No thread reads a source meanwhile. */
	void (*progress)(void *arg, double share);
	void *arg;
};

/* Does all jobs. The sources have been checked; only memory can run out. */
bool pack_run(const struct pack_job *jobs, size_t n_jobs, const struct pack_options *options,
                char *err, size_t errlen);

#endif
