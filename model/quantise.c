/* SPDX-License-Identifier: Apache-2.0 */
/* Weights and inputs as integers, and their panels: plain C that all tables share. */
#include "model/quantise.h"

#include <math.h>
#include <string.h>

#include "model/mathf.h"
#include "model/ops.h"

#define ROUND 0x1.8p+23f /* adding it leaves the nearest integer in the low bits */
#define TINY 0x1p-100f   /* magnitudes below count as 0 */

/* How far a try of int4 stretches the largest weight: from 8.5 steps downwards. */
enum { INT4_TRIES = 12 };
#define INT4_FIRST 8.5f
#define INT4_LESS 0.25f

float quantise_scale(const float *x, int n, float *ret_factor) {
	uint32_t largest = 0; /* magnitudes are ordered as their bits are, NaN above infinity */
	for (int i = 0; i < n; i++) {
		uint32_t bits = mathf_bits(x[i]) & 0x7fffffffu;
		largest = bits > largest ? bits : largest;
	}
	*ret_factor = 0;
	if (largest >= mathf_bits(INFINITY))
		return NAN;
	float m = mathf_from_bits(largest);
	if (m < TINY)
		return 0;
	*ret_factor = 127.0f / m;
	return m / 127.0f;
}

/* The nearest integer, the even one of two, of a number far below 2^22. */
static int nearest(float x) {
	return (int)(int32_t)(mathf_bits(x + ROUND) - mathf_bits(ROUND));
}

float quantise_int8(const float *x, int n, int8_t *ret_q) {
	float factor, scale = quantise_scale(x, n, &factor);
	for (int i = 0; i < n; i++)
		ret_q[i] = factor > 0 ? (int8_t)nearest(x[i] * factor) : 0;
	return scale;
}

/* ---- int4 ---- */

enum {
	LANES = 8
}; /* of the sums of a try: lane j takes the inputs j, j + 8, ...; joined in order */

/* sum w q and sum q q over the group, for the integers of one step. */
static void try_step(const float *w, float inverse, float *ret_wq, float *ret_qq) {
	float wq[LANES] = { 0 }, qq[LANES] = { 0 };
	for (int k = 0; k < INT4_GROUP; k += LANES) {
		for (int j = 0; j < LANES; j++) {
			float q = w[k + j] * inverse + ROUND - ROUND;
			q = q < -8.0f ? -8.0f : q;
			q = q > 7.0f ? 7.0f : q;
			wq[j] += w[k + j] * q;
			qq[j] += q * q;
		}
	}
	for (int j = 1; j < LANES; j++) {
		wq[0] += wq[j];
		qq[0] += qq[j];
	}
	*ret_wq = wq[0];
	*ret_qq = qq[0];
}

float quantise_int4_group(const float *w, int count) {
	float group[INT4_GROUP] = { 0 }, end = 0, best = 0, best_gain = 0;
	memcpy(group, w, (size_t)count * sizeof *w);
	for (int k = 0; k < count; k++)
		end = __builtin_fabsf(group[k]) > __builtin_fabsf(end) ? group[k] : end;
	if (__builtin_fabsf(end) < TINY)
		return 0;
	for (int k = 0; k < count; k++)
		group[k] /= end; /* so that no sum leaves the range of floats */
	for (int i = 0; i < 2 * INT4_TRIES; i++) {
		float f = INT4_FIRST - INT4_LESS * (float)(i / 2), wq, qq;
		try_step(group, i % 2 ? f : -f, &wq, &qq);
		/* The squared error is sum w w - gain. */
		float gain = wq * wq / qq;
		if (gain > best_gain) {
			best_gain = gain;
			best = wq / qq;
		}
	}
	return best * end;
}

/* ---- panels ---- */

static size_t panels_of(int panel, int n_out) {
	return ((size_t)n_out + (size_t)panel - 1) / (size_t)panel;
}

static size_t int8_panel_bytes(int panel, int n_in) {
	return ((size_t)n_in + 3) / 4 * (size_t)panel * 4 + (size_t)panel * sizeof(float);
}

size_t int8_panels_bytes(int panel, int n_out, int n_in) {
	return n_in > INT_INPUTS_MAX ? 0 : panels_of(panel, n_out) * int8_panel_bytes(panel, n_in);
}

/* Output c of a panel; w is NULL where there is none. */
static void int8_output_pack(int panel, uint8_t *data, int c, const float *w, int n_in) {
	size_t step = (size_t)panel * 4, quads = ((size_t)n_in + 3) / 4;
	float factor = 0, scale = w ? quantise_scale(w, n_in, &factor) : 0;
	uint8_t *to = data + (size_t)c * 4;
	for (size_t k = 0; k < quads * 4; k++) {
		int q = factor > 0 && k < (size_t)n_in ? nearest(w[k] * factor) : 0;
		to[k / 4 * step + k % 4] = (uint8_t)(q + 128);
	}
	memcpy(data + quads * step + (size_t)c * sizeof scale, &scale, sizeof scale);
}

void int8_panels_pack(int panel, void *data, int n_in, const float *src, int first, int count) {
	int end = (count + panel - 1) / panel * panel;
	for (int row = 0; row < end; row++) {
		uint8_t *at = (uint8_t *)data
		                + (size_t)((first + row) / panel) * int8_panel_bytes(panel, n_in);
		const float *w = row < count ? src + (size_t)row * (size_t)n_in : NULL;
		int8_output_pack(panel, at, row % panel, w, n_in);
	}
}

void int8_panels_unpack_row(int panel, const struct matrix *w, int out, float *dst) {
	const uint8_t *data = (const uint8_t *)w->data
	                + (size_t)(out / panel) * int8_panel_bytes(panel, w->n_in);
	size_t step = (size_t)panel * 4, c = (size_t)(out % panel);
	float scale;
	memcpy(&scale, data + ((size_t)w->n_in + 3) / 4 * step + c * sizeof scale, sizeof scale);
	for (size_t k = 0; k < (size_t)w->n_in; k++)
		dst[k] = (float)(data[k / 4 * step + c * 4 + k % 4] - 128) * scale;
}

enum { GROUP_QUADS = INT4_GROUP / 8 }; /* in the bytes of one group and output */

static size_t int4_group_bytes(int panel) {
	return (size_t)panel * (sizeof(int16_t) + INT4_GROUP / 2);
}

static size_t int4_groups(int n_in) {
	return ((size_t)n_in + INT4_GROUP - 1) / INT4_GROUP;
}

static size_t int4_panel_bytes(int panel, int n_in) {
	return int4_groups(n_in) * int4_group_bytes(panel) + (size_t)panel * sizeof(float);
}

size_t int4_panels_bytes(int panel, int n_out, int n_in) {
	return n_in > INT_INPUTS_MAX ? 0 : panels_of(panel, n_out) * int4_panel_bytes(panel, n_in);
}

/* Where input k of a group's output c is: its byte after the group's scales, and the shift in it. */
static size_t int4_at(int panel, int c, int k, int *ret_shift) {
	int half = k / (INT4_GROUP / 2), in = k % (INT4_GROUP / 2);
	int quad = half * (GROUP_QUADS / 2) + in % (INT4_GROUP / 4) / 4;
	*ret_shift = in / (INT4_GROUP / 4) * 4;
	return ((size_t)quad * (size_t)panel + (size_t)c) * 4 + (size_t)(k % 4);
}

/* One group of output c with the scale s, `step` being s as a weight's. */
static void int4_group_pack(int panel, uint8_t *group, int c, int16_t s, float step, const float *w,
                int count) {
	float inverse = s ? 1.0f / step : 0;
	uint8_t *bytes = group + (size_t)panel * sizeof s;
	memcpy(group + (size_t)c * sizeof s, &s, sizeof s);
	for (int k = 0; k < INT4_GROUP; k++) {
		float v = k < count ? w[k] * inverse : 0;
		int q = nearest(v < -8.0f ? -8.0f : v > 7.0f ? 7.0f : v), shift;
		uint8_t *to = bytes + int4_at(panel, c, k, &shift);
		*to = (uint8_t)((*to & (0xf0 >> shift)) | (q + 8) << shift);
	}
}

/* Output c of a panel; w is NULL where there is none. */
static void int4_output_pack(int panel, uint8_t *data, int c, const float *w, int n_in) {
	float t[(INT_INPUTS_MAX + INT4_GROUP - 1) / INT4_GROUP] = { 0 }, factor = 0, largest = 0;
	int groups = (int)int4_groups(n_in);
	float scale = w ? quantise_scale(w, n_in, &factor) : 0;
	if (factor > 0) {
		for (int g = 0; g < groups; g++) {
			int from = g * INT4_GROUP;
			int count = n_in - from < INT4_GROUP ? n_in - from : INT4_GROUP;
			t[g] = quantise_int4_group(w + from, count);
			float size = __builtin_fabsf(t[g]);
			largest = size > largest ? size : largest;
		}
		scale = largest / 32767.0f;
	}
	for (int g = 0; g < groups; g++) {
		int from = g * INT4_GROUP;
		int16_t s = factor > 0 ? (int16_t)nearest(t[g] / scale) : 0;
		int4_group_pack(panel, data + (size_t)g * int4_group_bytes(panel), c, s,
		                (float)s * scale, w ? w + from : NULL,
		                factor > 0 ? n_in - from : 0);
	}
	memcpy(data + (size_t)groups * int4_group_bytes(panel) + (size_t)c * sizeof scale, &scale,
	                sizeof scale);
}

void int4_panels_pack(int panel, void *data, int n_in, const float *src, int first, int count) {
	int end = (count + panel - 1) / panel * panel;
	for (int row = 0; row < end; row++) {
		uint8_t *at = (uint8_t *)data
		                + (size_t)((first + row) / panel) * int4_panel_bytes(panel, n_in);
		const float *w = row < count ? src + (size_t)row * (size_t)n_in : NULL;
		int4_output_pack(panel, at, row % panel, w, n_in);
	}
}

void int4_panels_unpack_row(int panel, const struct matrix *w, int out, float *dst) {
	const uint8_t *data = (const uint8_t *)w->data
	                + (size_t)(out / panel) * int4_panel_bytes(panel, w->n_in);
	int c = out % panel, shift;
	float scale;
	memcpy(&scale,
	                data + int4_groups(w->n_in) * int4_group_bytes(panel)
	                                + (size_t)c * sizeof scale,
	                sizeof scale);
	for (int k = 0; k < w->n_in; k++) {
		const uint8_t *group = data + (size_t)(k / INT4_GROUP) * int4_group_bytes(panel);
		int16_t s;
		memcpy(&s, group + (size_t)c * sizeof s, sizeof s);
		size_t at = int4_at(panel, c, k % INT4_GROUP, &shift);
		int q = (group[(size_t)panel * sizeof s + at] >> shift & 15) - 8;
		dst[k] = (float)q * ((float)s * scale);
	}
}
