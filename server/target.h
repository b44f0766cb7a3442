/* SPDX-License-Identifier: Apache-2.0 */
/* From a request target to a path. */
#ifndef FATHOM_SERVER_TARGET_H
#define FATHOM_SERVER_TARGET_H

/*
 * "http://host/a%20b?c" and "/a%20b?c" become "/a b"; a '%' that starts no escape stays. Free with
 * free(). NULL if memory ran out. guard_target must have passed it, or the path may end early.
 */
char *target_path(const char *target);

#endif
