/* SPDX-License-Identifier: Apache-2.0 */
/* fathom: a table of contents. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct command {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *meaning;
} commands[] = {
	{ "serve", serve_main, "serve a model over HTTP" },
	{ "generate", generate_main, "continue a prompt once, at one or several depths" },
	{ "inspect", inspect_main, "show layers, parameters and bytes of a model at every depth" },
	{ "eval", eval_main, "measure perplexity, accuracy or BLEU at every depth" },
	{ "search", search_main, "find on data which layers to keep" },
	{ "prune", prune_main, "write a smaller folder that holds one sub-network" },
	{ "bench", bench_main, "send a load to a server and measure its answers" },
	{ "simulate", simulate_main, "try a load on servers under a simulated clock" },
	{ "health", health_main, "ask the server of the same configuration whether it is ready" },
};

static void usage(FILE *out) {
	fputs("fathom serves LayerDrop-trained transformers at the depth each request asks for.\n\n"
	      "usage: fathom COMMAND [FLAGS]   (fathom COMMAND --help lists the flags)\n\n",
	                out);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].meaning);
	fprintf(out, "  %-10s %s\n", "version", "print the version");
}

int main(int argc, char **argv) {
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].main(argc - 1, argv + 1);
	if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
		printf("fathom %s\n", FATHOM_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0
	                || strcmp(argv[1], "-h") == 0) {
		usage(stdout);
		return 0;
	}
	fprintf(stderr, "fathom: unknown command \"%s\"; fathom --help lists them\n", argv[1]);
	return 2;
}
