/* SPDX-License-Identifier: Apache-2.0 */
/* BLEU against sacrebleu 2: the expected words and scores were printed by it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bleu.h"
#include "tests/check.h"

TEST(words_are_those_of_13a) {
	static const char *const cases[][2] = {
		/* clang-format off */
		{ "Hello, world!", "Hello , world !" },
		{ "It costs $3.50 (or 1,000.25 yen).", "It costs $ 3.50 ( or 1,000.25 yen ) ." },
		{ "A well-known 5-year-old's toy...", "A well-known 5 - year-old's toy . . ." },
		{ "&quot;Yes&quot; &amp;lt;b&gt;", "\" Yes \" < b >" },
		{ "U.S.A. and e.g., etc.", "U . S . A . and e . g . , etc ." },
		{ "3-4, 5.-6", "3 - 4 , 5 . -6" },
		{ "„Grüße“ aus München: 20.000 Häuser, 50%!", "„Grüße“ aus München : 20.000 Häuser , 50 % !" },
		{ "a/b\\c [x]{y}~`_^", "a / b \\ c [ x ] { y } ~ ` _ ^" },
		{ "tabs\tand  two spaces", "tabs and two spaces" },
		{ "..,.", ". . , ." },
		{ "1.2.3,4,5", "1.2.3,4,5" },
		{ "end.", "end ." },
		{ "café. naïve,ok", "café . naïve , ok" },
		{ "a b　c", "a b c" },
		{ "-<skipped> x -", "- x -" },
		{ "x y 7-", "x y 7 -" },
		{ "", "" },
		/* clang-format on */
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *words = bleu_tokenise(cases[i][0], strlen(cases[i][0]));
		CHECK_STR(words, cases[i][1]);
		free(words);
	}
}

static double score_of(const char *const (*pairs)[2], size_t n) {
	struct bleu b = { 0 };
	for (size_t i = 0; i < n; i++)
		CHECK(bleu_add(&b, pairs[i][0], strlen(pairs[i][0]), pairs[i][1],
		                strlen(pairs[i][1])));
	return bleu_score(&b);
}

static void check_score(const char *hypothesis, const char *reference, double wanted) {
	const char *pair[1][2] = { { hypothesis, reference } };
	CHECK(fabs(score_of(pair, 1) - wanted) < 1e-9);
}

TEST(scores_are_sacrebleus) {
	check_score("the cat sat on the mat", "the cat sat on the mat", 100.00000000000004);
	check_score("The cat is on the mat.", "There is a cat on the mat.", 39.44243648327556);
	check_score("Tom went home, 3-4 times (at least).", "Tom went home 3-4 times, at least.",
	                32.774568052975916);
	check_score("the the the the the", "the cat the dog the", 14.058533129758727);
}

TEST(a_corpus_is_one_text_with_a_penalty_for_being_short) {
	static const char *const pairs[][2] = { { "a b c d", "a b c e" }, { "e f", "e f g h i" } };
	CHECK(fabs(score_of(pairs, 2) - 38.13359638251549) < 1e-9);
}

TEST(nothing_in_common_or_no_four_words_is_zero) {
	check_score("x y z", "a b c", 0);
	check_score("word", "word", 0);
	check_score("", "a word", 0);
	CHECK(bleu_score(&(struct bleu){ 0 }) == 0);
}
