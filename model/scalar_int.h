/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8 and int4 products in plain C, as model/quantise.h defines them. A row of inputs is its scale,
 * at 64 bytes its integers, filled up with zeros to whole groups. Part of model/ops_c.c.
 */
enum { ROW_FIRST = 64 };

static size_t c_int_input_bytes(int n_in) {
	return ROW_FIRST + ((size_t)n_in + 63) / 64 * 64;
}

static void c_int_input(const float *x, int n_in, void *ret_input) {
	int8_t *to = (int8_t *)ret_input + ROW_FIRST;
	float scale = quantise_int8(x, n_in, to);
	memset(to + n_in, 0, c_int_input_bytes(n_in) - ROW_FIRST - (size_t)n_in);
	memcpy(ret_input, &scale, sizeof scale);
}

static float row_scale(const void *input) {
	float scale;
	memcpy(&scale, input, sizeof scale);
	return scale;
}

static void c_int8_linear(const struct linear *l, int first_panel, int end_panel) {
	int n_in = l->w->n_in, quads = (n_in + 3) / 4;
	size_t panel_bytes = int8_panels_bytes(PANEL, PANEL, n_in);
	for (int panel = first_panel; panel < end_panel; panel++) {
		const uint8_t *w = (const uint8_t *)l->w->data + (size_t)panel * panel_bytes;
		const float *scales = (const float *)(const void *)(w + quads * PANEL * 4);
		for (int row = 0; row < l->rows; row++) {
			const int8_t *input = (const int8_t *)l->x + (size_t)row * l->x_stride;
			int32_t sums[PANEL] = { 0 };
			float values[PANEL];
			for (int k = 0; k < n_in; k++)
				for (int c = 0; c < PANEL; c++)
					sums[c] += input[ROW_FIRST + k]
					                * (w[(k / 4 * PANEL + c) * 4 + k % 4]
					                                - 128);
			for (int c = 0; c < PANEL; c++)
				values[c] = (float)sums[c] * scales[c] * row_scale(input);
			finish(l, values, row, panel * PANEL);
		}
	}
}

/* The integer sum of one group of one output: weights [2][INT4_GROUP / 16][PANEL][4] at its column. */
static int32_t int4_sum(const int8_t *x, const uint8_t *w) {
	int32_t sum = 0;
	for (int half = 0; half < 2; half++) {
		for (int k = 0; k < INT4_GROUP / 4; k++) {
			int byte = w[(half * INT4_GROUP / 16 + k / 4) * PANEL * 4 + k % 4];
			const int8_t *from = x + half * INT4_GROUP / 2 + k;
			sum += from[0] * ((byte & 15) - 8);
			sum += from[INT4_GROUP / 4] * ((byte >> 4) - 8);
		}
	}
	return sum;
}

static void c_int4_linear(const struct linear *l, int first_panel, int end_panel) {
	enum { GROUP_BYTES = PANEL * (2 + INT4_GROUP / 2) };
	int groups = (l->w->n_in + INT4_GROUP - 1) / INT4_GROUP;
	size_t panel_bytes = int4_panels_bytes(PANEL, PANEL, l->w->n_in);
	for (int panel = first_panel; panel < end_panel; panel++) {
		const uint8_t *w = (const uint8_t *)l->w->data + (size_t)panel * panel_bytes;
		const float *scales = (const float *)(const void *)(w + groups * GROUP_BYTES);
		for (int row = 0; row < l->rows; row++) {
			const int8_t *input = (const int8_t *)l->x + (size_t)row * l->x_stride;
			float values[PANEL];
			for (int c = 0; c < PANEL; c++) {
				float acc = 0;
				for (int g = 0; g < groups; g++) {
					const uint8_t *group = w + g * GROUP_BYTES;
					int16_t s = ((const int16_t *)(const void *)group)[c];
					int32_t sum = int4_sum(input + ROW_FIRST + g * INT4_GROUP,
					                group + PANEL * 2 + c * 4);
					acc = __builtin_fmaf((float)sum, (float)s, acc);
				}
				values[c] = acc * scales[c] * row_scale(input);
			}
			finish(l, values, row, panel * PANEL);
		}
	}
}
