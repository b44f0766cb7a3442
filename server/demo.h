/* SPDX-License-Identifier: Apache-2.0 */
/* Where the bundled demo model is. */
#ifndef FATHOM_SERVER_DEMO_H
#define FATHOM_SERVER_DEMO_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The folder of the demo: ../deploy/demo from the binary (a source tree), ../share/fathom/demo, or
 * where it was installed. False with a sentence if there is none.
 */
bool demo_find(char *ret_dir, size_t size, char *err, size_t errlen);

#endif
