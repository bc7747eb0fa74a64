/* SPDX-License-Identifier: MIT */
/*
 * io.h - the disk exerciser: sluice io ..., options, commands and output as in qemu-io.
 */
#ifndef IO_IO_H
#define IO_IO_H

/* argv[0] is "io".  The process's exit status. */
int io_main(int argc, char **argv);

#endif
