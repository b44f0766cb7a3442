/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the cost model: reading its tables. */
#ifndef FATHOM_SERVER_COST_PARTS_H
#define FATHOM_SERVER_COST_PARTS_H

#include "server/cost.h"

/* `rows` lies between the points `low` and `low + 1`, at `weight` of the upper one. Beyond the last
 * point the weight exceeds 1: the last segment goes on. */
struct cost_place {
	int low;
	double weight;
};

/* The points are the powers of two up to 128, and 12 between 8 and 16, and 512. */
static inline struct cost_place cost_place_of(int rows) {
	static const double width[COST_POINTS - 1] = { 1.0 / 1, 1.0 / 2, 1.0 / 4, 1.0 / 4, 1.0 / 4,
		1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 384 };
	int low = rows >= 128 ? COST_POINTS - 2 : 31 - __builtin_clz((unsigned)rows) + (rows >= 12);
	return (struct cost_place){ low, (rows - cost_rows[low]) * width[low] };
}

static inline double cost_table_ms(const double *table, int rows) {
	if (rows <= 0)
		return 0;
	struct cost_place p = cost_place_of(rows);
	return table[p.low] + p.weight * (table[p.low + 1] - table[p.low]);
}

/* A step by the tables alone, whatever the pace. */
double cost_tables_ms(const struct cost_model *cost, const struct cost_step *step);

static inline double cost_known(double factor) {
	return factor > 0 ? factor : 1;
}

#endif
