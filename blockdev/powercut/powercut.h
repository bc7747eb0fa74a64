/* SPDX-License-Identifier: MIT */
/*
 * powercut.h - sluice powercut: logs of a disk, and what power cuts would have left of it.
 */
#ifndef POWERCUT_POWERCUT_H
#define POWERCUT_POWERCUT_H

/* argv[0] is "powercut".  The process's exit status. */
int powercut_main(int argc, char **argv);

#endif
