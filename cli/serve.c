/* SPDX-License-Identifier: Apache-2.0 */
/* fathom serve: reads the configuration and runs the server. */
#include "server/serve.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "config/config.h"
#include "server/log.h"

int serve_main(int argc, char **argv) {
	struct config config;
	bool help;
	char err[512], ignored[512];
	const char *mode = argc > 1 ? argv[1] : "";
	if (strcmp(mode, "--help-markdown") == 0) {
		config_help(stdout, true);
		return 0;
	}
	bool print = strcmp(mode, "--print-config") == 0;
	bool ok = config_load(&config, argc - 1 - print, argv + 1 + print, environ, &help, ignored,
	                sizeof ignored, err, sizeof err);
	if (help) {
		puts("usage: fathom serve [--config FILE] [FLAGS]\n"
		     "       fathom serve --print-config [FLAGS]   (what they come to, as a file "
		     "for --config)\n"
		     "       fathom serve --help-markdown          (this list as a table)");
		config_help(stdout, false);
		config_finish(&config);
		return 0;
	}
	if (!ok) {
		fprintf(stderr, "fathom serve: %s\n", err);
		config_finish(&config);
		return 2;
	}
	if (print) {
		config_dump(&config, stdout);
		config_finish(&config);
		return 0;
	}
	log_configure(config.log_level, config.log_format);
	if (*ignored)
		log_event(LOG_WARN, "environment_ignored", { "variables", LOG_STR(ignored) },
		                { "reason",
		                                LOG_STR("set by Kubernetes for services called "
		                                        "fathom or fathom-...") });
	int status = serve_run(&config);
	config_finish(&config);
	return status;
}
