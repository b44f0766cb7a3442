/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands. Each takes the arguments after its name (argv[0] is the name) and returns an
 * exit status.
 */
#ifndef FATHOM_CLI_CLI_H
#define FATHOM_CLI_CLI_H

int serve_main(int argc, char **argv);
int generate_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int health_main(int argc, char **argv);
int inspect_main(int argc, char **argv);
int eval_main(int argc, char **argv);
int search_main(int argc, char **argv);
int prune_main(int argc, char **argv);
int simulate_main(int argc, char **argv);

#endif
