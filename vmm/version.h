/* SPDX-License-Identifier: MIT */
/*
 * version.h - which release this is.
 */
#ifndef VMM_VERSION_H
#define VMM_VERSION_H

#define SLUICE_VERSION "0.1.0"

#endif
