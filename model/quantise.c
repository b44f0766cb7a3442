/* SPDX-License-Identifier: Apache-2.0 */
/* Weights and inputs as integers, and their panels: plain C that all tables share. */
#include "model/quantise.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "model/mathf.h"
#include "model/ops.h"

#define TINY 0x1p-100f /* magnitudes below count as 0 */

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
	return (int)(int32_t)(mathf_bits(x + MATHF_ROUND) - mathf_bits(MATHF_ROUND));
}

float quantise_int8(const float *x, int n, int8_t *ret_q) {
	float factor, scale = quantise_scale(x, n, &factor);
	for (int i = 0; i < n; i++)
		ret_q[i] = factor > 0 ? (int8_t)nearest(x[i] * factor) : 0;
	return scale;
}

/* ---- int4 ---- */

/* The lanes of the sums of a try; any compiler makes vectors of the machine's width of them. */
typedef float lanes __attribute__((vector_size(32)));
typedef int32_t lanes_mask __attribute__((vector_size(32)));
enum { LANES = 8 };

/* sum v q and sum q q over the group for q = round(v f), the |v| being at most 1. */
static void try_step(const float *v, float f, float *ret_vq, float *ret_qq) {
	const lanes one = { 1, 1, 1, 1, 1, 1, 1, 1 };
	lanes vq = { 0 }, qq = { 0 };
	for (int k = 0; k < INT4_GROUP; k += LANES) {
		lanes from, q;
		memcpy(&from, v + k, sizeof from);
		q = from * f + MATHF_ROUND - MATHF_ROUND; /* -8 .. 8, since 8.5 goes to 8 */
		q -= (lanes)((lanes_mask)one & (q > 7.0f));
		vq += from * q;
		qq += q * q;
	}
	*ret_vq = vq[0];
	*ret_qq = qq[0];
	for (int j = 1; j < LANES; j++) {
		*ret_vq += vq[j];
		*ret_qq += qq[j];
	}
}

float quantise_int4_group(const float *w, int count) {
	static const float tries[] = { -8.5f, 8.5f, -8, 8, -7.5f, 7.5f, -7, -6.5f, -6 };
	float v[INT4_GROUP] = { 0 }, end = 0, best = 0, best_gain = 0;
	for (int k = 0; k < count; k++)
		end = __builtin_fabsf(w[k]) > __builtin_fabsf(end) ? w[k] : end;
	if (__builtin_fabsf(end) < TINY)
		return 0;
	for (int k = 0; k < count; k++)
		v[k] = w[k] / end;
	for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
		float vq, qq;
		try_step(v, tries[i], &vq, &qq);
		float gain = vq * vq / qq; /* the squared error is sum v v - gain */
		if (gain > best_gain) {
			best_gain = gain;
			best = vq / qq;
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

/* Where the byte of input k of a group's output c is, after the scales: low bits or high ones. */
static size_t int4_at(int panel, int c, int k) {
	int half = k / (INT4_GROUP / 2), in = k % (INT4_GROUP / 4);
	int quad = half * (INT4_GROUP / 16) + in / 4;
	return ((size_t)quad * (size_t)panel + (size_t)c) * 4 + (size_t)(in % 4);
}

static bool int4_is_high(int k) {
	return k % (INT4_GROUP / 2) >= INT4_GROUP / 4;
}

/* One group of output c with the scale s, `step` being s as a weight's. */
static void int4_group_pack(int panel, uint8_t *group, int c, int16_t s, float step, const float *w,
                int count) {
	float inverse = s ? 1.0f / step : 0;
	uint8_t q[INT4_GROUP], *bytes = group + (size_t)panel * sizeof s;
	memcpy(group + (size_t)c * sizeof s, &s, sizeof s);
	memset(q, 8, sizeof q);
	for (int k = 0; k < count; k++) {
		float v = w[k] * inverse;
		v = v < -8.0f ? -8.0f : v;
		q[k] = (uint8_t)(nearest(v > 7.0f ? 7.0f : v) + 8);
	}
	for (int k = 0; k < INT4_GROUP; k++)
		if (!int4_is_high(k))
			bytes[int4_at(panel, c, k)] = (uint8_t)(q[k] | q[k + INT4_GROUP / 4] << 4);
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
		int count = n_in - from < INT4_GROUP ? n_in - from : INT4_GROUP;
		int16_t s = factor > 0 ? (int16_t)nearest(t[g] / scale) : 0;
		int4_group_pack(panel, data + (size_t)g * int4_group_bytes(panel), c, s,
		                (float)s * scale, s ? w + from : NULL, s ? count : 0);
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
	int c = out % panel;
	float scale;
	memcpy(&scale,
	                data + int4_groups(w->n_in) * int4_group_bytes(panel)
	                                + (size_t)c * sizeof scale,
	                sizeof scale);
	for (int k = 0; k < w->n_in; k++) {
		const uint8_t *group = data + (size_t)(k / INT4_GROUP) * int4_group_bytes(panel);
		int16_t s;
		memcpy(&s, group + (size_t)c * sizeof s, sizeof s);
		size_t at = (size_t)panel * sizeof s + int4_at(panel, c, k % INT4_GROUP);
		int q = (group[at] >> (int4_is_high(k) ? 4 : 0) & 15) - 8;
		dst[k] = (float)q * ((float)s * scale);
	}
}
