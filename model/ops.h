/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table: everything in the engine that costs arithmetic, behind one struct of functions.
 *
 * There is one table per level: plain C (the reference), AVX2+FMA, AVX-512 with and without VNNI and
 * BF16, and OpenBLAS as the portable backend. The exact tables (all but OpenBLAS) give the same bits
 * on every processor, because every output element has one fixed order of additions that depends
 * neither on the number of rows, nor on threads, nor on the width of a vector:
 *
 *	linear, f32     acc = fmaf(x[k], w[k], acc) from 0, k strictly upwards, one chain per
 *	                element; then + bias; then the activation; then, with `add`, y = y + value
 *	linear, bf16    the same on the weights widened to f32; with VDPBF16PS (avx512-bf16) in
 *	                that instruction's own rounding, inputs rounded to bf16: there, and only
 *	                there, bits differ between levels
 *	linear, int     int8 and int4: model/quantise.h; sums of integers are exact, so their order
 *	                is free
 *	attention       the dots over head_dim are one such chain, and so is the sum over the keys
 *	                of a tile; the tiles are joined in ascending order; a key that a query does
 *	                not see has weight 0
 *	rows            sums and maxima over a row (norm, weights of a tile, softmax): 16 virtual
 *	                lanes, lane j takes the elements j, j + 16, ... in order, and the lanes are
 *	                joined in a fixed tree (8, 4, 2, 1 apart)
 *	functions       max is `a > b ? a : b` in a fixed order; exp, tanh and erf are our own
 *	                polynomials (model/mathf.h); no libm, no reciprocal estimates
 *
 * Any NaN counts as equal to any other. The floating-point environment must be the default one
 * (ops_float_env_ok).
 *
 * Every file that implements a table is compiled with -ffp-contract=off: a fused step is always
 * written as one.
 */
#ifndef FATHOM_MODEL_OPS_H
#define FATHOM_MODEL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum activation {
	ACTIVATION_NONE,
	ACTIVATION_RELU,
	ACTIVATION_GELU,      /* x/2 (1 + erf(x / sqrt 2)) */
	ACTIVATION_GELU_TANH, /* the tanh approximation */
	ACTIVATION_TANH,      /* of classification heads */
	ACTIVATION_SILU,      /* x / (1 + exp(-x)), also called swish */
};

/* Each level has all of those before it. */
enum cpu_level {
	CPU_LEVEL_AUTO = -1,
	CPU_LEVEL_C,
	CPU_LEVEL_AVX2,        /* with FMA and F16C */
	CPU_LEVEL_AVX512,      /* F, BW, DQ, VL */
	CPU_LEVEL_AVX512_VNNI, /* sums of four products of bytes in one instruction */
	CPU_LEVEL_AVX512_BF16, /* sums of two products of bf16 in one instruction */
	CPU_LEVELS
};

/* How the numbers of a weight matrix are kept. */
enum weight_format {
	WEIGHTS_AUTO = -1, /* the checkpoint's own; f16 becomes f32 */
	WEIGHTS_F32,
	WEIGHTS_BF16,
	WEIGHTS_INT8,
	WEIGHTS_INT4,
	WEIGHT_FORMATS
};

/* How cached keys and values are kept. */
enum kv_format {
	KV_AUTO = -1, /* f32 with f32 weights, else bf16 */
	KV_F32,
	KV_BF16, /* rounded to nearest even when stored, widened when read; arithmetic stays f32 */
	KV_FORMATS
};

/*
 * Keys of one KV block; a block's key positions are absolute: block t holds positions 64 t .. 64 t
 * + 63.
 */
#define KV_TILE 64

/* A weight matrix [n_out, n_in], packed by the table that will read it. Immutable. */
struct matrix {
	int n_out, n_in;
	int n_panels; /* units that can be given to different threads: ceil(n_out / ops->panel) */
	enum weight_format format;
	const void *data; /* 64-byte aligned, format_ops::matrix_bytes long */
};

/* y[i] = act(W x[i] + bias), or y[i] += W x[i] + bias. */
struct linear {
	const struct matrix *w;
	const float *bias; /* [n_out] or NULL */
	const void *x;     /* [rows] inputs: f32 [n_in], or what format_ops::input made of it */
	size_t x_stride;   /* bytes from one row to the next */
	float *y;          /* row i is y + (y_rows ? y_rows[i] : i) * ldy, [n_out] */
	size_t ldy;
	const int32_t *y_rows; /* scatter map or NULL */
	int rows;
	enum activation activation;
	/* A hint: this thread probably goes on to panels up to here, so that their weights may be asked
	 * for ahead; 0: to none. */
	int ahead_end;
	bool add; /* add the result to y (residual) instead of storing it; activation is then NONE */
};

/*
 * out[i] = (x[r] - mean) / sqrt(var + eps) * gain + bias for r = x_rows ? x_rows[i] : i (the gather
 * of a step).
 */
struct norm {
	const float *x;
	size_t ldx;
	const int32_t *x_rows;
	const float *gain, *bias; /* [dim] */
	float eps;
	int dim;
	/* Row i at out + i * ldo, or, in place of a gather, at the same index as x if out == x. */
	float *out;
	size_t ldo;
	const int32_t *out_rows; /* NULL: i */
};

/*
 * A KV block is [n_heads][head_dim][64] keys, then [n_heads][64][head_dim] values, floats or bf16
 * (16 bits each), 64-byte aligned. Bytes of one:
 */
static inline size_t kv_block_bytes(enum kv_format format, int n_heads, int head_dim) {
	return 2 * KV_TILE * (size_t)n_heads * (size_t)head_dim * (format == KV_BF16 ? 2 : 4);
}

/* Keys and values of consecutive positions on their way into the block that holds them all. */
struct kv_rows {
	void *block;
	enum kv_format format;
	const float *k, *v; /* position + i at + i * ld: n_heads * head_dim floats each */
	size_t ld;
	int position, count; /* absolute; position % 64 + count <= 64 */
	int n_heads, head_dim;
	int head, heads; /* the heads [head, head + heads) are stored; k and v begin with head 0 */
};

/*
 * Causal attention of consecutive queries of one sequence over its cached keys, for one head of one
 * layer. Query i is at absolute position first + i and sees keys 0 .. first + i. Unused positions of
 * a block are finite (blocks are cleared when handed out). Softmax runs tile by tile with a
 * running maximum. Keys beyond a query add 0 times a finite value, which changes nothing: so how
 * many of them a kernel runs over, and which queries share a call, does not show in the result.
 */
struct attend {
	const float *q; /* query i's head at q + i * ldq, head_dim floats */
	size_t ldq;
	float *out; /* likewise; scaled and normalised; disjoint from q */
	size_t ldo;
	int queries, first;
	/* 0: causal, as above. Else every query sees keys 0 .. keys - 1 and `first` is not read; what
	 * the blocks hold from `keys` on is never used, whatever it is. */
	int keys;
	int head, n_heads, head_dim;
	float scale; /* multiplied into q before the dots */
	enum kv_format format;
	void *const *blocks; /* blocks[t] of the keys 64 t .. 64 t + 63, to the last that a query sees */
	float *scratch; /* ops->attend_scratch(head_dim) floats, one per thread, 64-byte aligned */
	/* What this thread is asked for afterwards, or NULL: a hint to fetch its first keys and values
	 * meanwhile. */
	const struct attend *next;
};

/* Products with weights of one format. All NULL where a table has none for it. */
struct format_ops {
	const char *arithmetic; /* one sentence for /v1/models */
	size_t (*matrix_bytes)(int n_out, int n_in);
	/*
	 * Packs rows [first, first + count) of W, given row-major as src[count][n_in], into data.
	 * first is a multiple of panel; count is too, unless these are the last rows (their panel is
	 * then filled up with zeros). Rows of different panels may be packed by different threads.
	 */
	void (*pack)(void *data, int n_in, const float *src, int first, int count);
	/* Writes row `out` of W, n_in floats, as the products use it: embeddings are looked up so. */
	void (*unpack_row)(const struct matrix *w, int out, float *dst);
	/*
	 * Bytes of a row of inputs as `linear` reads it, a multiple of 64, and how it is made of n_in
	 * floats. NULL: linear reads the floats themselves. A row starts at a multiple of 64 bytes.
	 */
	size_t (*input_bytes)(int n_in);
	void (*input)(const float *x, int n_in, void *ret_input);
	/* Outputs of the panels [first_panel, end_panel). Disjoint ranges may run on different
	 * threads. */
	void (*linear)(const struct linear *l, int first_panel, int end_panel);
};

struct ops {
	const char *name; /* a level's name, or "blas" */
	bool exact; /* same bits on every processor, whatever the neighbours (bf16: see above) */
	int panel;  /* output channels in one panel */

	struct format_ops formats[WEIGHT_FORMATS];

	/* Rows [first, end). */
	void (*norm)(const struct norm *n, int first, int end);
	/* Different positions and heads of a block may be stored by different threads. */
	void (*kv_store)(const struct kv_rows *rows);
	void (*attend)(const struct attend *a);
	size_t (*attend_scratch)(int head_dim);
	/* Largest of x[0..n) and sum of exp(x - largest), both in the fixed order: one block of
	 * columns of a softmax. */
	void (*max_sum_exp)(const float *x, int n, float *ret_max, float *ret_sum);
};

/*
 * The tables, static; NULL where they are not built (ops_blas without OpenBLAS, x86 levels
 * elsewhere). The first call of each must not race with another. ops_blas sets OpenBLAS to one
 * thread.
 */
const struct ops *ops_c(void);
const struct ops *ops_avx2(void);
const struct ops *ops_avx512(void);
const struct ops *ops_avx512_vnni(void);
const struct ops *ops_avx512_bf16(void);
const struct ops *ops_blas(void);

/* Whether OpenBLAS multiplies correctly here: a few products against the C table. A sentence if not. */
bool ops_blas_check(char *err, size_t errlen);
/* Which core and options OpenBLAS runs with, for the log; NULL where it is not built. */
const char *ops_blas_description(void);

/*
 * Whether this thread rounds to nearest and keeps denormal numbers, as all tables assume. New
 * threads inherit the setting of the thread that creates them.
 */
bool ops_float_env_ok(void);

/* The table of a level; NULL where it is not built. Whether the machine can run it is not asked. */
const struct ops *ops_of_level(enum cpu_level level);

/* The highest level this processor and operating system can run (CPUID and XCR0). */
enum cpu_level cpu_level_detect(void);
/* "auto", "c", "avx2", "avx512", "avx512-vnni", "avx512-bf16"; false if unknown. */
bool cpu_level_parse(const char *name, enum cpu_level *ret_level);
const char *cpu_level_name(enum cpu_level level);

/* "auto", "f32", "bf16", "int8", "int4"; false if unknown. */
bool weight_format_parse(const char *name, enum weight_format *ret_format);
const char *weight_format_name(enum weight_format format);
/* "auto", "f32", "bf16"; false if unknown. */
bool kv_format_parse(const char *name, enum kv_format *ret_format);
const char *kv_format_name(enum kv_format format);

/*
 * Chooses a table. `kernels` is "auto", "native" or "blas". A level above what the machine has is
 * refused with a sentence, and so is an OpenBLAS that fails its check. "auto" takes our own kernels
 * where there is an overlay for the processor or a level is given, else OpenBLAS. NULL on failure.
 * Called at start, from one thread.
 */
const struct ops *ops_select(const char *kernels, enum cpu_level level, char *err, size_t errlen);

#endif
