/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process may use of its machine: processor cores and memory, as the affinity mask and the
 * control groups (version 2 and 1) allow. Files are read below `root`, which is "" for the running
 * system; tests point it at a folder with their own proc/ and sys/. Missing files mean no limit.
 */
#ifndef FATHOM_MODEL_THREADS_H
#define FATHOM_MODEL_THREADS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * How many compute threads to run: the physical cores this process may run on, or the whole part of
 * its CPU quota if that is less; at least 1.
 */
int threads_count(const char *root);

/*
 * The processors to hold compute threads on, at most `cap` of them, into `cpus`: none for "off", for
 * "auto" the first logical processor of every physical core that this process may run on, else those
 * of a list such as "0-3,8", which it must be allowed to use. False with a sentence in `err`.
 */
bool threads_pins(const char *root, const char *text, int *cpus, int cap, int *ret_n, char *err,
                size_t errlen);

/* Physical cores that the logical processors cpus[0..n) belong to; one each where it is not known. */
int threads_physical_cores(const char *root, const int *cpus, int n);

/* CPU quota of the control group and those above it, in processors (1.5 for instance); 0: none. */
double threads_cpu_quota(const char *root);

/*
 * Bytes of memory this process may use: the machine's, or the least limit of its control group and
 * those above it; 0 if nothing is known.
 */
size_t threads_memory_limit(const char *root);

#endif
