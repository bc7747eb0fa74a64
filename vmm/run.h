/* SPDX-License-Identifier: MIT */
/*
 * run.h - the command `sluice run`.
 */
#ifndef VMM_RUN_H
#define VMM_RUN_H

/* argv[0] is "run".  Returns the exit status. */
int run_main(int argc, char **argv);

#endif
