/* SPDX-License-Identifier: Apache-2.0 */
/* Looks in three places, in the order demo.h gives. */
#include "server/demo.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_model(const char *dir) {
	char path[4600];
	snprintf(path, sizeof path, "%s/config.json", dir);
	return access(path, R_OK) == 0;
}

/* The folder `below`, seen from the binary's own. */
static bool beside_binary(const char *below, char *ret_dir, size_t size) {
	char binary[4096], path[4400];
	ssize_t n = readlink("/proc/self/exe", binary, sizeof binary - 1);
	if (n <= 0)
		return false;
	binary[n] = '\0';
	snprintf(path, sizeof path, "%s/%s", dirname(binary), below);
	char *resolved = realpath(path, NULL);
	bool found = resolved && has_model(resolved);
	if (found)
		snprintf(ret_dir, size, "%s", resolved);
	free(resolved);
	return found;
}

bool demo_find(char *ret_dir, size_t size, char *err, size_t errlen) {
	if (beside_binary("../deploy/demo", ret_dir, size)
	                || beside_binary("../share/fathom/demo", ret_dir, size))
		return true;
	snprintf(ret_dir, size, "%s/demo", FATHOM_DATADIR);
	if (has_model(ret_dir))
		return true;
	snprintf(err, errlen, "The bundled demo model is not there; name a folder with --model.");
	return false;
}
