/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers in the vectors of the x86 tables, first what does not depend on their width. A vec holds
 * any 32 bits in a lane here. Included after the table's vectors.
 */

/* The same 32 bits in every lane. */
static inline vec vec_set_bits(const void *p) {
	int32_t bits;
	memcpy(&bits, p, sizeof bits);
#ifdef __AVX512F__
	return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
#else
	return _mm256_castsi256_ps(_mm256_set1_epi32(bits));
#endif
}

/* 32 integers: in the lower half of the result the sum of those at 0 and 1 of every four, above it of
 * those at 2 and 3. */
static inline uint32_t bytes_sums(const int8_t *from) {
	__m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)from);
	__m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
	__m128i eight = _mm_add_epi16(
	                _mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
	__m128i four = _mm_add_epi16(eight, _mm_unpackhi_epi64(eight, eight));
	return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi16(four, _mm_srli_epi64(four, 32)));
}

/* 16 integers in 16 bits each, every four in the order 0, 2, 1, 3. */
static inline void bytes_spread(const int8_t *from, int16_t *to) {
	const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
	__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)from);
	__m256i words = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, order));
	_mm256_storeu_si256((__m256i *)(void *)to, words);
}
