/* SPDX-License-Identifier: MIT */
/*
 * img.h - the image tool: sluice img SUBCOMMAND ..., arguments and output as in qemu-img.
 */
#ifndef IMG_IMG_H
#define IMG_IMG_H

/* argv[0] is "img".  The process's exit status. */
int img_main(int argc, char **argv);

#endif
