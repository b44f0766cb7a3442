/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the program that records and replays steps. */
#ifndef FATHOM_BENCH_STEPS_H
#define FATHOM_BENCH_STEPS_H

#include "server/cost_file.h"

/* Prints how far off the predictions were, phase by phase. Ends the program on a bad file. */
void steps_replay(const char *path);

#endif
