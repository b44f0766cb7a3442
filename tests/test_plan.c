/* SPDX-License-Identifier: Apache-2.0 */
/* Plans. Expected lists are those that fairseq, Hugging Face and DynaBERT publish; nesting is held
 * against trying every choice. */
#include "model/plan.h"
#include "tests/check.h"

/* Writes "0,2,4" into a static buffer. */
static const char *list(const struct plan *plan) {
	static char text[2048];
	size_t n = 0;
	text[0] = '\0';
	for (int i = 0; i < plan->depth; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, i ? ",%d" : "%d", plan->layers[i]);
	return text;
}

static const char *rule(enum plan_rule rule, int of, int depth) {
	static struct plan plan;
	plan_by_rule(rule, of, depth, &plan);
	CHECK_INT(plan.of, of);
	CHECK_INT(plan.depth, depth);
	return list(&plan);
}

TEST(even_gives_the_lists_of_fairseq_and_dynabert) {
	CHECK_STR(rule(PLAN_RULE_EVEN, 16, 8), "0,2,4,6,8,10,12,14");
	CHECK_STR(rule(PLAN_RULE_EVEN, 12, 9), "0,1,2,4,5,6,8,9,10");
	CHECK_STR(rule(PLAN_RULE_EVEN, 12, 3), "0,4,8");
	CHECK_STR(rule(PLAN_RULE_EVEN, 16, 6), "0,2,5,8,10,13");
	CHECK_STR(rule(PLAN_RULE_EVEN, 12, 6), "0,2,4,6,8,10");
	CHECK_STR(rule(PLAN_RULE_EVEN, 1, 1), "0");
}

/* Hugging Face's hand-written table for 16 -> 8 (0,2,4,6,8,10,12,15) is the one that departs from
 * the published formula; the formula is the contract. */
TEST(ends_gives_the_lists_of_hugging_face_distillation) {
	CHECK_STR(rule(PLAN_RULE_ENDS, 12, 6), "0,2,4,7,9,11");
	CHECK_STR(rule(PLAN_RULE_ENDS, 12, 3), "0,6,11");
	CHECK_STR(rule(PLAN_RULE_ENDS, 16, 8), "0,2,4,6,9,11,13,15");
	CHECK_STR(rule(PLAN_RULE_ENDS, 12, 1), "0");
	CHECK_STR(rule(PLAN_RULE_ENDS, 12, 2), "0,11");
}

TEST(prefix_keeps_the_first_layers) {
	CHECK_STR(rule(PLAN_RULE_PREFIX, 12, 4), "0,1,2,3");
}

TEST(every_rule_is_ascending_in_range_and_whole_at_full_depth) {
	enum plan_rule rules[] = { PLAN_RULE_EVEN, PLAN_RULE_ENDS, PLAN_RULE_PREFIX };
	for (int r = 0; r < 3; r++) {
		for (int of = 1; of <= MAX_LAYERS; of += of < 40 ? 1 : 9) {
			for (int depth = 1; depth <= of; depth++) {
				struct plan plan;
				plan_by_rule(rules[r], of, depth, &plan);
				CHECK(plan.layers[0] == 0);
				for (int i = 1; i < depth; i++)
					CHECK(plan.layers[i] > plan.layers[i - 1]);
				CHECK(plan.layers[depth - 1] < of);
				if (depth == of)
					CHECK_INT(plan.layers[depth - 1], of - 1);
			}
		}
	}
}

static bool from_list(int of, const int64_t *layers, size_t n, struct plan *plan, char err[200]) {
	err[0] = '\0';
	return plan_from_list(of, layers, n, plan, err, 200);
}

TEST(a_good_list_is_taken_as_it_is) {
	struct plan plan;
	char err[200];
	CHECK(from_list(12, (int64_t[]){ 0, 5, 11 }, 3, &plan, err));
	CHECK_STR(list(&plan), "0,5,11");
	CHECK_INT(plan.of, 12);
}

TEST(a_bad_list_is_refused_with_a_sentence_that_names_the_layer) {
	struct plan plan = { .of = 77 };
	char err[200];
	CHECK(!from_list(12, NULL, 0, &plan, err));
	CHECK(strstr(err, "empty"));
	CHECK(!from_list(12, (int64_t[]){ 0, 12 }, 2, &plan, err));
	CHECK_STR(err, "layer 12 does not exist: layers go from 0 to 11");
	CHECK(!from_list(12, (int64_t[]){ -1 }, 1, &plan, err));
	CHECK(strstr(err, "layer -1 "));
	CHECK(!from_list(12, (int64_t[]){ 3, 3 }, 2, &plan, err));
	CHECK_STR(err, "layer 3 is listed twice");
	CHECK(!from_list(12, (int64_t[]){ 5, 2 }, 2, &plan, err));
	CHECK(strstr(err, "layer 2 follows layer 5"));
	CHECK(!from_list(12, (int64_t[]){ 4294967296 }, 1, &plan, err));
	CHECK_INT(plan.of, 77); /* written only on success */
}

TEST(nested_equals_the_rule_where_the_rule_lies_within) {
	for (int of = 1; of <= 20; of++) {
		for (int outer = 1; outer <= of; outer++) {
			struct plan p, target, nested;
			plan_by_rule(PLAN_RULE_EVEN, of, outer, &p);
			for (int depth = 1; depth <= outer; depth++) {
				plan_by_rule(PLAN_RULE_EVEN, of, depth, &target);
				plan_nested(&p, PLAN_RULE_EVEN, depth, &nested);
				CHECK(plan_contains(&p, &nested));
				CHECK_INT(nested.of, of);
				if (plan_contains(&p, &target))
					CHECK(plan_equal(&nested, &target));
			}
		}
	}
}

TEST(even_plans_nest_in_45_of_66_pairs_of_depths_at_12_layers) {
	int pairs = 0, nests = 0;
	for (int outer = 1; outer <= 12; outer++) {
		for (int inner = 1; inner < outer; inner++) {
			struct plan a, b;
			plan_by_rule(PLAN_RULE_EVEN, 12, outer, &a);
			plan_by_rule(PLAN_RULE_EVEN, 12, inner, &b);
			pairs++;
			nests += plan_contains(&a, &b);
		}
	}
	CHECK_INT(pairs, 66);
	CHECK_INT(nests, 45);
}

/* Tries every choice of `depth` layers out of the plan, lower layers first. */
static void nested_by_force(const struct plan *plan, const struct plan *target, struct plan *ret) {
	int least = 1 << 30;
	for (unsigned n = 0; n < 1u << plan->depth; n++) {
		/* Bit depth - 1 - i of the set stands for layer i: larger sets come first in
		 * lexicographic order of their layers, for sets of one size. */
		unsigned set = (1u << plan->depth) - 1 - n;
		if (__builtin_popcount(set) != target->depth)
			continue;
		struct plan choice = { .of = plan->of };
		int distance = 0;
		for (int i = 0; i < plan->depth; i++) {
			if (set >> (plan->depth - 1 - i) & 1) {
				distance += abs(plan->layers[i] - target->layers[choice.depth]);
				choice.layers[choice.depth++] = plan->layers[i];
			}
		}
		if (distance < least) {
			least = distance;
			*ret = choice;
		}
	}
}

TEST(nested_is_the_least_total_distance_with_lower_layers_on_ties) {
	unsigned state = 1;
	for (int round = 0; round < 400; round++) {
		struct plan p = { 0 }, target, nested, expected;
		p.of = 4 + round % 13;
		for (int l = 0; l < p.of && p.depth < 10; l++) {
			state = state * 1103515245u + 12345u;
			if (state >> 16 & 1)
				p.layers[p.depth++] = (int16_t)l;
		}
		enum plan_rule by = (enum plan_rule)(round % 3);
		for (int depth = 1; depth <= p.depth; depth++) {
			plan_by_rule(by, p.of, depth, &target);
			plan_nested(&p, by, depth, &nested);
			nested_by_force(&p, &target, &expected);
			CHECK(plan_equal(&nested, &expected));
		}
	}
}

TEST(nested_fits_its_table_at_the_largest_stack) {
	struct plan p, nested;
	plan_by_rule(PLAN_RULE_EVEN, MAX_LAYERS, MAX_LAYERS, &p);
	for (int depth = 1; depth <= MAX_LAYERS; depth++) {
		struct plan target;
		plan_by_rule(PLAN_RULE_ENDS, MAX_LAYERS, depth, &target);
		plan_nested(&p, PLAN_RULE_ENDS, depth, &nested);
		CHECK(plan_equal(&nested, &target));
	}
}

TEST(rank_is_the_index_among_kept_layers) {
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, 12, 6, &plan);
	CHECK_INT(plan_rank(&plan, 0), 0);
	CHECK_INT(plan_rank(&plan, 6), 3);
	CHECK_INT(plan_rank(&plan, 10), 5);
	CHECK_INT(plan_rank(&plan, 7), -1);
	CHECK_INT(plan_rank(&plan, 11), -1);
}

TEST(plans_of_different_stacks_are_neither_equal_nor_nested) {
	struct plan a, b;
	plan_by_rule(PLAN_RULE_PREFIX, 12, 4, &a);
	plan_by_rule(PLAN_RULE_PREFIX, 16, 4, &b);
	CHECK(!plan_equal(&a, &b));
	CHECK(!plan_contains(&a, &b));
}

TEST(rule_names_parse_back) {
	for (int r = PLAN_RULE_EVEN; r <= PLAN_RULE_LAYERS; r++) {
		enum plan_rule back;
		CHECK(plan_rule_parse(plan_rule_name((enum plan_rule)r), &back));
		CHECK_INT(back, r);
	}
	enum plan_rule back;
	CHECK(!plan_rule_parse("evenly", &back));
}
