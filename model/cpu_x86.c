/* SPDX-License-Identifier: Apache-2.0 */
/* What an x86-64 processor and its operating system can run: CPUID, and XCR0 for the registers. */
#include <cpuid.h>
#include <stdint.h>

#include "model/ops.h"

enum {
	LEAF1_ECX_FMA = 1 << 12,
	LEAF1_ECX_F16C = 1 << 29,
	LEAF1_ECX_OSXSAVE = 1 << 27,
	LEAF1_ECX_AVX = 1 << 28,
	LEAF7_EBX_AVX2 = 1 << 5,
	LEAF7_EBX_AVX512F = 1 << 16,
	LEAF7_EBX_AVX512DQ = 1 << 17,
	LEAF7_EBX_AVX512BW = 1 << 30,
	LEAF7_ECX_AVX512VNNI = 1 << 11,
	LEAF7_1_EAX_AVX512BF16 = 1 << 5,
	XCR0_YMM = 0x6,  /* the system saves xmm and ymm registers */
	XCR0_ZMM = 0xe6, /* and mask and zmm registers */
};
#define LEAF7_EBX_AVX512VL (1u << 31)

static bool has(uint32_t word, uint32_t bits) {
	return (word & bits) == bits;
}

static uint32_t enabled_registers(void) {
	uint32_t low, high;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

enum cpu_level cpu_level_detect(void) {
	uint32_t a, b, c, d, leaf7;
	if (!__get_cpuid(1, &a, &b, &c, &d))
		return CPU_LEVEL_C;
	if (!has(c, LEAF1_ECX_FMA | LEAF1_ECX_F16C | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX))
		return CPU_LEVEL_C;
	uint32_t registers = enabled_registers();
	if (!has(registers, XCR0_YMM) || !__get_cpuid_count(7, 0, &a, &leaf7, &c, &d))
		return CPU_LEVEL_C;
	if (!has(leaf7, LEAF7_EBX_AVX2))
		return CPU_LEVEL_C;
	uint32_t wide = LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW
	                | LEAF7_EBX_AVX512VL;
	if (!has(leaf7, wide) || !has(registers, XCR0_ZMM))
		return CPU_LEVEL_AVX2;
	if (!has(c, LEAF7_ECX_AVX512VNNI))
		return CPU_LEVEL_AVX512;
	bool bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, LEAF7_1_EAX_AVX512BF16);
	return bf16 ? CPU_LEVEL_AVX512_BF16 : CPU_LEVEL_AVX512_VNNI;
}
