/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors parser: what it accepts, each thing it refuses, and files damaged at random. */
#include "model/safetensors.h"

#include <math.h>

#include "tests/check.h"
#include "tests/folder.h"

static char err[400];

/* Parses `header` in front of `data` zero bytes. */
static bool parse(const char *header, size_t data, struct tensor_table *table) {
	size_t n = strlen(header), len = 8 + n + data;
	unsigned char *bytes = calloc(1, len);
	CHECK(bytes != NULL);
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)((uint64_t)n >> 8 * i);
	memcpy(bytes + 8, header, n);
	err[0] = '\0';
	bool ok = safetensors_parse(bytes, len, len, table, err, sizeof err);
	free(bytes);
	return ok;
}

/* Whether it is refused with a sentence that contains `why`. */
static void check_refused(const char *header, size_t data, const char *why) {
	struct tensor_table table;
	if (parse(header, data, &table))
		check_fail(__FILE__, __LINE__, "accepted: %s", header);
	if (!strstr(err, why) || !is_sentence(err))
		check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err, why);
}

TEST(tensors_are_found_by_name_with_shape_and_place) {
	struct tensor_table table;
	const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
	                     "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
	                     "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}  ";
	CHECK(parse(header, 16, &table));
	CHECK_INT(table.count, 2);
	const struct tensor *a = safetensors_find(&table, "a"), *b = safetensors_find(&table, "b");
	CHECK(a && b && !safetensors_find(&table, "c")
	                && !safetensors_find(&table, "__metadata__"));
	CHECK_INT(a->rank, 0);
	CHECK_INT(a->count, 1);
	CHECK_INT(a->offset, 8 + strlen(header));
	CHECK_INT(b->dtype, DTYPE_F16);
	CHECK_INT(b->rank, 2);
	CHECK_INT(b->shape[0], 2);
	CHECK_INT(b->shape[1], 3);
	CHECK_INT(b->count, 6);
	CHECK_INT(b->offset, 8 + strlen(header) + 4);
	CHECK_INT(b->bytes, 12);
	safetensors_finish(&table);
}

TEST(a_file_without_tensors_is_accepted) {
	struct tensor_table table;
	CHECK(parse("{}", 0, &table));
	CHECK_INT(table.count, 0);
	CHECK(!safetensors_find(&table, "a"));
	safetensors_finish(&table);
}

TEST(an_empty_tensor_is_accepted) {
	struct tensor_table table;
	CHECK(parse("{\"a\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]},"
	            "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
	                3, &table));
	CHECK_INT(safetensors_find(&table, "b")->dtype, DTYPE_OTHER);
	safetensors_finish(&table);
}

TEST(a_short_file_is_refused) {
	struct tensor_table table;
	for (size_t len = 0; len < 8; len++) {
		CHECK(!safetensors_parse("\2\0\0\0\0\0\0\0{}", len, len, &table, err, sizeof err));
		CHECK(is_sentence(err));
	}
}

TEST(a_header_longer_than_the_file_is_refused) {
	struct tensor_table table;
	CHECK(!safetensors_parse("\3\0\0\0\0\0\0\0{}", 10, 10, &table, err, sizeof err));
	CHECK(strstr(err, "cut off"));
}

TEST(a_header_longer_than_16_mib_is_refused) {
	struct tensor_table table;
	CHECK(!safetensors_parse("\1\0\0\1\0\0\0\0{}", 10, 1u << 30, &table, err, sizeof err));
	CHECK(strstr(err, "16 MiB"));
	CHECK(!safetensors_parse(
	                "\377\377\377\377\377\377\377\377{}", 10, 10, &table, err, sizeof err));
	CHECK(strstr(err, "16 MiB"));
}

TEST(a_header_that_is_no_object_is_refused) {
	check_refused("[]", 0, "not a JSON object");
	check_refused(" {}", 0, "not a JSON object");
	check_refused("", 0, "not a JSON object");
	check_refused("{\"a\":", 0, "not valid JSON");
	check_refused("{} x", 0, "not valid JSON");
	check_refused("{\"__metadata__\":3}", 0, "__metadata__");
}

TEST(a_name_given_twice_is_refused) {
	check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
	              "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
	                4, "duplicate");
}

TEST(text_that_is_not_utf8_is_refused) {
	check_refused("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	                "not valid JSON");
}

TEST(an_odd_name_is_shown_without_its_control_characters) {
	check_refused("{\"a\\n\\u001b[31m\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "a??[31m");
}

TEST(an_entry_that_is_no_object_is_refused) {
	check_refused("{\"weight\":[1]}", 0, "\"weight\"");
}

TEST(a_missing_or_unknown_dtype_is_refused) {
	check_refused("{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"w\" has no dtype");
	check_refused("{\"w\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	                "\"w\" has an unknown dtype");
}

TEST(a_bad_shape_is_refused) {
	check_refused("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no shape");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
	                "whole numbers");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
	                "whole numbers");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[true],\"data_offsets\":[0,4]}}", 4,
	                "whole numbers");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],"
	              "\"data_offsets\":[0,4]}}",
	                4, "more than 8 dimensions");
}

TEST(a_shape_whose_product_overflows_is_refused) {
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
	              "\"data_offsets\":[0,0]}}",
	                0, "too large");
	/* 2^62 elements of 4 bytes are 2^64 bytes: 0 to a product that wraps. */
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],"
	              "\"data_offsets\":[0,0]}}",
	                0, "do not fit");
}

TEST(offsets_that_do_not_fit_the_shape_are_refused) {
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
	                "do not fit");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
	                "ordered pair");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
	                "ordered pair");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4,
	                "ordered pair");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],"
	              "\"data_offsets\":[0,99999999999999999999]}}",
	                4, "not valid JSON");
}

TEST(a_tensor_beyond_the_end_of_the_file_is_refused) {
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
	                "beyond the end");
}

TEST(gaps_overlaps_and_left_over_bytes_are_refused) {
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
	                "belong to no tensor");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
	              "\"v\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
	                6, "overlaps");
	check_refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
	                "the tensors end at byte 4");
}

TEST(more_than_65536_tensors_are_refused) {
	size_t room = 70000 * 70, used = 0;
	char *header = malloc(room);
	CHECK(header != NULL);
	for (int i = 0; i < 65537; i++)
		used += (size_t)snprintf(header + used, room - used,
		                "%c\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
		                i ? ',' : '{', i);
	snprintf(header + used, room - used, "}");
	check_refused(header, 0, "more than 65536");
	free(header);
}

TEST(f16_widens_exactly) {
	static const struct {
		uint16_t half;
		float value;
	} known[] = {
		/* from IEEE 754: largest, smallest normal, largest and smallest subnormal */
		{ 0x3c00, 1.0f },
		{ 0xc000, -2.0f },
		{ 0x7bff, 65504.0f },
		{ 0x0400, 0x1p-14f },
		{ 0x03ff, 0x1.ff8p-15f },
		{ 0x0001, 0x1p-24f },
		{ 0x8001, -0x1p-24f },
		{ 0x3555, 0x1.554p-2f },
		{ 0x7c00, INFINITY },
		{ 0xfc00, -INFINITY },
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		float got;
		dtype_widen(&got, &known[i].half, DTYPE_F16, 1);
		CHECK(got == known[i].value);
	}
	float zero, nan;
	dtype_widen(&zero, &(uint16_t){ 0x8000 }, DTYPE_F16, 1);
	dtype_widen(&nan, &(uint16_t){ 0x7e01 }, DTYPE_F16, 1);
	CHECK(zero == 0 && signbit(zero) && isnan(nan));
}

TEST(every_f16_widens_to_what_its_bits_say) {
	for (int i = 0; i < 0x7c00; i++) {
		float got, expected = (float)(i & 1023);
		expected = i >> 10 ? ldexpf(1024 + expected, (i >> 10) - 25)
		                   : ldexpf(expected, -24);
		dtype_widen(&got, &(uint16_t){ (uint16_t)i }, DTYPE_F16, 1);
		CHECK(got == expected);
	}
}

TEST(bf16_widens_exactly_from_any_address) {
	unsigned char bytes[] = { 0xee, 0x80, 0x3f, 0x00, 0xc0, 0x01, 0x00 };
	float got[3];
	dtype_widen(got, bytes + 1, DTYPE_BF16, 3);
	CHECK(got[0] == 1.0f && got[1] == -2.0f && got[2] == 0x1p-133f);
}

TEST(damaged_files_are_refused_with_a_sentence_or_read_within_their_bounds) {
	struct tensor_file file = { 0 };
	tensor_file_add(&file, "decoder.embed_tokens.weight", "F32", 5, 4);
	tensor_file_add(&file, "decoder.layers.0.fc1.weight", "F16", 3, 4);
	tensor_file_add(&file, "decoder.layers.0.fc1.bias", "BF16", 3, 0);
	size_t len, n, refused = 0, rounds = 20000;
	unsigned char *whole = tensor_file_finish(&file, &len);
	uint64_t state = 1;
	for (size_t i = 0; i < rounds; i++) {
		struct tensor_table table;
		unsigned char *bytes = damage(whole, len, &state, &n);
		err[0] = '\0';
		if (safetensors_parse(bytes, n, n, &table, err, sizeof err)) {
			for (size_t t = 0; t < table.count; t++)
				CHECK(table.tensors[t].offset <= n
				                && table.tensors[t].bytes
				                                <= n - table.tensors[t].offset);
			safetensors_finish(&table);
		} else {
			CHECK(is_sentence(err));
			refused++;
		}
		free(bytes);
	}
	CHECK(refused > rounds / 2);
	free(whole);
}
