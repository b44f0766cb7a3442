/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oneDNN 2 in bench-kernels: an inner product whose weights were reordered once into the layout it
 * asks for (format any). f32; bf16 times bf16 with f32 results; u8 times s8 with a scale per channel
 * and f32 results. The only file that knows dnnl.h.
 *
 * Its threads are OpenMP's: as many as ours. Between products they spin for some milliseconds, so
 * `rest` waits until they have parked.
 */
#include <dnnl.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/measure/rival.h"

struct onednn {
	struct rival rival;
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_primitive_desc_t desc;
	dnnl_primitive_t primitive;
	dnnl_memory_t src, weights, bias, dst;
	void *arena, *inputs;
	size_t copies, stride, next;
	float *scales;
};

static void release(struct onednn *d) {
	dnnl_memory_destroy(d->src);
	dnnl_memory_destroy(d->weights);
	dnnl_memory_destroy(d->bias);
	dnnl_memory_destroy(d->dst);
	dnnl_primitive_destroy(d->primitive);
	dnnl_primitive_desc_destroy(d->desc);
	free(d->inputs);
	free(d->scales);
	d->src = d->weights = d->bias = d->dst = NULL;
	d->primitive = NULL;
	d->desc = NULL;
	d->inputs = NULL;
	d->scales = NULL;
}

static dnnl_data_type_t weight_type(enum weight_format format) {
	return format == WEIGHTS_F32 ? dnnl_f32 : format == WEIGHTS_BF16 ? dnnl_bf16 : dnnl_s8;
}

static dnnl_data_type_t input_type(enum weight_format format) {
	return format == WEIGHTS_F32 ? dnnl_f32 : format == WEIGHTS_BF16 ? dnnl_bf16 : dnnl_u8;
}

/* The product, with weights in whatever layout is best, and scales where it is one of integers. */
static bool describe(struct onednn *d, const struct product_case *c) {
	dnnl_dims_t src = { c->rows, c->n_in }, weights = { c->n_out, c->n_in };
	dnnl_dims_t bias = { c->n_out }, dst = { c->rows, c->n_out };
	dnnl_memory_desc_t src_md, weights_md, bias_md, dst_md;
	dnnl_inner_product_desc_t product;
	dnnl_primitive_attr_t attributes;
	dnnl_memory_desc_init_by_tag(&src_md, 2, src, input_type(c->format), dnnl_ab);
	dnnl_memory_desc_init_by_tag(
	                &weights_md, 2, weights, weight_type(c->format), dnnl_format_tag_any);
	dnnl_memory_desc_init_by_tag(&bias_md, 1, bias, dnnl_f32, dnnl_a);
	dnnl_memory_desc_init_by_tag(&dst_md, 2, dst, dnnl_f32, dnnl_ab);
	if (dnnl_inner_product_forward_desc_init(&product, dnnl_forward_inference, &src_md,
	                    &weights_md, &bias_md, &dst_md)
	                != dnnl_success)
		return false;
	dnnl_primitive_attr_create(&attributes);
	if (c->format == WEIGHTS_INT8) {
		d->scales = malloc((size_t)c->n_out * sizeof(float));
		for (int i = 0; d->scales && i < c->n_out; i++)
			d->scales[i] = 0x1p-14f;
		dnnl_primitive_attr_set_output_scales(attributes, c->n_out, 2, d->scales);
	}
	bool made = dnnl_primitive_desc_create(&d->desc, &product, attributes, d->engine, NULL)
	                == dnnl_success;
	dnnl_primitive_attr_destroy(attributes);
	return made && dnnl_primitive_create(&d->primitive, d->desc) == dnnl_success;
}

/* One reorder of n numbers or of a matrix, from `from` in one layout to `to` in another. */
static bool reorder(struct onednn *d, const dnnl_memory_desc_t *from_md, void *from,
                const dnnl_memory_desc_t *to_md, void *to) {
	dnnl_primitive_desc_t desc;
	dnnl_primitive_t primitive;
	dnnl_memory_t source, target;
	if (dnnl_reorder_primitive_desc_create(&desc, from_md, d->engine, to_md, d->engine, NULL)
	                != dnnl_success)
		return false;
	dnnl_primitive_create(&primitive, desc);
	dnnl_memory_create(&source, from_md, d->engine, from);
	dnnl_memory_create(&target, to_md, d->engine, to);
	const dnnl_exec_arg_t arguments[] = { { DNNL_ARG_FROM, source }, { DNNL_ARG_TO, target } };
	bool done = dnnl_primitive_execute(primitive, d->stream, 2, arguments) == dnnl_success
	                && dnnl_stream_wait(d->stream) == dnnl_success;
	dnnl_memory_destroy(source);
	dnnl_memory_destroy(target);
	dnnl_primitive_destroy(primitive);
	dnnl_primitive_desc_destroy(desc);
	return done;
}

/* A matrix of floats in the layout `to_md`; numbers in -1 .. 1 become -127 .. 127 or 1 .. 255. */
static bool convert(struct onednn *d, const float *from, int rows, int columns,
                const dnnl_memory_desc_t *to_md, void *to) {
	size_t n = (size_t)rows * (size_t)columns;
	dnnl_dims_t dims = { rows, columns };
	dnnl_memory_desc_t plain;
	void *scaled = malloc(n * sizeof(float));
	bool bytes = to_md->data_type == dnnl_s8 || to_md->data_type == dnnl_u8;
	int8_t *small = scaled;
	if (!scaled)
		return false;
	memcpy(scaled, from, bytes ? 0 : n * sizeof(float));
	for (size_t i = 0; bytes && i < n; i++)
		small[i] = (int8_t)(lrintf(from[i] * 127)
		                + (to_md->data_type == dnnl_u8 ? 128 : 0));
	dnnl_memory_desc_init_by_tag(&plain, 2, dims, bytes ? to_md->data_type : dnnl_f32, dnnl_ab);
	bool done = reorder(d, &plain, scaled, to_md, to);
	free(scaled);
	return done;
}

static bool onednn_prepare(struct rival *rival, const struct product_case *c) {
	struct onednn *d = (struct onednn *)rival;
	release(d);
	if (c->format == WEIGHTS_INT4 || c->activation != ACTIVATION_NONE || !describe(d, c))
		return false;
	const dnnl_memory_desc_t *src_md =
	                dnnl_primitive_desc_query_md(d->desc, dnnl_query_src_md, 0);
	const dnnl_memory_desc_t *weights_md =
	                dnnl_primitive_desc_query_md(d->desc, dnnl_query_weights_md, 0);
	size_t bytes = dnnl_memory_desc_get_size(weights_md);
	d->inputs = aligned_alloc(64, (dnnl_memory_desc_get_size(src_md) + 63) / 64 * 64);
	if (arena_stride(bytes) > ARENA_BYTES || !d->inputs
	                || !convert(d, c->weights, c->n_out, c->n_in, weights_md, d->arena)
	                || !convert(d, c->x, c->rows, c->n_in, src_md, d->inputs))
		return false;
	d->copies = arena_fill(d->arena, bytes);
	d->stride = arena_stride(bytes);
	dnnl_memory_create(&d->src, src_md, d->engine, d->inputs);
	dnnl_memory_create(&d->weights, weights_md, d->engine, d->arena);
	dnnl_memory_create(&d->bias,
	                dnnl_primitive_desc_query_md(d->desc, dnnl_query_weights_md, 1), d->engine,
	                (void *)c->bias);
	return dnnl_memory_create(&d->dst,
	                       dnnl_primitive_desc_query_md(d->desc, dnnl_query_dst_md, 0),
	                       d->engine, c->y)
	                == dnnl_success;
}

static void onednn_run(struct rival *rival, int turns) {
	struct onednn *d = (struct onednn *)rival;
	const dnnl_exec_arg_t arguments[] = { { DNNL_ARG_SRC, d->src },
		{ DNNL_ARG_WEIGHTS, d->weights }, { DNNL_ARG_BIAS, d->bias },
		{ DNNL_ARG_DST, d->dst } };
	for (int turn = 0; turn < turns; turn++) {
		dnnl_memory_set_data_handle(
		                d->weights, (char *)d->arena + d->next++ % d->copies * d->stride);
		dnnl_primitive_execute(d->primitive, d->stream, 4, arguments);
		dnnl_stream_wait(d->stream);
	}
}

static void onednn_rest(struct rival *rival) {
	(void)rival;
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
}

static void onednn_destroy(struct rival *rival) {
	struct onednn *d = (struct onednn *)rival;
	release(d);
	dnnl_stream_destroy(d->stream);
	dnnl_engine_destroy(d->engine);
	free(d->arena);
	free(d);
}

struct rival *rival_onednn(int threads) {
	struct onednn *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	omp_set_num_threads(threads);
	d->arena = arena_create();
	if (!d->arena || dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success
	                || dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags)
	                                != dnnl_success) {
		free(d->arena);
		free(d);
		return NULL;
	}
	const dnnl_version_t *v = dnnl_version();
	d->rival.prepare = onednn_prepare;
	d->rival.run = onednn_run;
	d->rival.rest = onednn_rest;
	d->rival.destroy = onednn_destroy;
	snprintf(d->rival.name, sizeof d->rival.name, "oneDNN %d.%d.%d", v->major, v->minor,
	                v->patch);
	return &d->rival;
}
