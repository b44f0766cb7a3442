/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a buffer to a file, or in a file's place. */
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4400 };

bool output_check(const char *path, char *err, size_t errlen) {
	if (!path || strcmp(path, "-") == 0)
		return true;
	struct stat there;
	bool ok;
	if (stat(path, &there) == 0) {
		errno = S_ISDIR(there.st_mode) ? EISDIR : 0;
		ok = errno == 0 && access(path, W_OK) == 0;
	} else {
		FILE *out = fopen(path, "w");
		ok = out != NULL;
		if (out) {
			fclose(out);
			unlink(path);
		}
	}
	if (!ok)
		snprintf(err, errlen, "%.400s cannot be written: %s", path, strerror(errno));
	return ok;
}

bool output_write(const char *path, const struct buffer *b, char *err, size_t errlen) {
	FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
	bool ok = out && !b->failed && fwrite(b->data, 1, b->len, out) == b->len;
	if (out)
		ok = (out == stdout ? fflush(out) : fclose(out)) == 0 && ok;
	if (!ok)
		snprintf(err, errlen, "%.400s could not be written", path);
	return ok;
}

bool output_replace(const char *path, const struct buffer *b, char *err, size_t errlen) {
	char fresh[PATH_SIZE];
	snprintf(fresh, sizeof fresh, "%s.new", path);
	if (!output_write(fresh, b, err, errlen))
		return false;
	if (rename(fresh, path) == 0)
		return true;
	snprintf(err, errlen, "%.400s could not be replaced", path);
	unlink(fresh);
	return false;
}
