/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: the rules, the checks, and nesting. Pure integer arithmetic. */
#include "model/plan.h"
