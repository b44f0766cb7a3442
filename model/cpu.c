/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel table runs: names of levels, the choice, and what a thread's arithmetic must be. */
#include <stdio.h>
#include <string.h>

#include "model/ops.h"

static const char *const level_names[CPU_LEVELS] = { "c", "avx2", "avx512", "avx512-vnni",
	"avx512-bf16" };
static const char *const format_names[WEIGHT_FORMATS] = { "f32", "bf16", "int8", "int4" };

bool cpu_level_parse(const char *name, enum cpu_level *ret_level) {
	if (strcmp(name, "auto") == 0) {
		*ret_level = CPU_LEVEL_AUTO;
		return true;
	}
	for (int i = CPU_LEVEL_C; i < CPU_LEVELS; i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret_level = (enum cpu_level)i;
			return true;
		}
	}
	return false;
}

const char *cpu_level_name(enum cpu_level level) {
	return level == CPU_LEVEL_AUTO ? "auto" : level_names[level];
}

bool weight_format_parse(const char *name, enum weight_format *ret_format) {
	if (strcmp(name, "auto") == 0) {
		*ret_format = WEIGHTS_AUTO;
		return true;
	}
	for (int i = 0; i < WEIGHT_FORMATS; i++) {
		if (strcmp(name, format_names[i]) == 0) {
			*ret_format = (enum weight_format)i;
			return true;
		}
	}
	return false;
}

const char *weight_format_name(enum weight_format format) {
	return format == WEIGHTS_AUTO ? "auto" : format_names[format];
}

bool kv_format_parse(const char *name, enum kv_format *ret_format) {
	enum weight_format format;
	if (!weight_format_parse(name, &format) || format > WEIGHTS_BF16)
		return false;
	*ret_format = format == WEIGHTS_AUTO ? KV_AUTO : format == WEIGHTS_F32 ? KV_F32 : KV_BF16;
	return true;
}

const char *kv_format_name(enum kv_format format) {
	return format == KV_AUTO ? "auto" : format == KV_F32 ? "f32" : "bf16";
}

bool ops_float_env_ok(void) {
	volatile float smallest_normal = 0x1p-126f, denormal = 0x1p-127f, one = 1.0f;
	volatile float quarter_step = 0x1p-25f, most_of_a_step = 0x1.8p-24f;
	if (smallest_normal * 0.5f != denormal || denormal * 2.0f != smallest_normal)
		return false;
	return one + quarter_step == one && one + most_of_a_step > one
	                && -one - quarter_step == -one && -one - most_of_a_step < -one;
}

const struct ops *ops_of_level(enum cpu_level level) {
	switch (level) {
	case CPU_LEVEL_AVX512_BF16:
		return ops_avx512_bf16();
	case CPU_LEVEL_AVX512_VNNI:
		return ops_avx512_vnni();
	case CPU_LEVEL_AVX512:
		return ops_avx512();
	case CPU_LEVEL_AVX2:
		return ops_avx2();
	default:
		return ops_c();
	}
}

static const struct ops *select_blas(char *err, size_t errlen) {
	const struct ops *blas = ops_blas();
	if (!blas) {
		snprintf(err, errlen, "this build has no OpenBLAS: use other kernels");
		return NULL;
	}
	return ops_blas_check(err, errlen) ? blas : NULL;
}

const struct ops *ops_select(const char *kernels, enum cpu_level level, char *err, size_t errlen) {
	bool automatic = strcmp(kernels, "auto") == 0;
	if (!automatic && strcmp(kernels, "native") != 0 && strcmp(kernels, "blas") != 0) {
		snprintf(err, errlen, "kernels \"%s\" are unknown: use auto, native or blas",
		                kernels);
		return NULL;
	}
	enum cpu_level best = cpu_level_detect();
	if (level > best) {
		snprintf(err, errlen, "cpu level %s is not available here: the highest is %s",
		                cpu_level_name(level), cpu_level_name(best));
		return NULL;
	}
	if (strcmp(kernels, "blas") == 0)
		return select_blas(err, errlen);
	if (automatic && level == CPU_LEVEL_AUTO && best == CPU_LEVEL_C && ops_blas())
		return select_blas(err, errlen);
	return ops_of_level(level == CPU_LEVEL_AUTO ? best : level);
}
