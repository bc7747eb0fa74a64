/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - the command `sluice nbd`.
 */
#ifndef NBD_NBD_H
#define NBD_NBD_H

/* argv[0] is "nbd".  Becomes nbdkit, so it returns only for help and mistakes: the exit status. */
int nbd_main(int argc, char **argv);

#endif
