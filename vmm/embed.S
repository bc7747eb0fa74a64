/* SPDX-License-Identifier: MIT */
/*
 * embed.S - the test guest and the trace of an install, as bytes in the program.
 *
 * EMBED_GUEST and EMBED_TRACE are the files' names; the Makefile gives them and knows
 * that this depends on the files.
 */
	.section .rodata
	.macro embed name, file
	.global \name, \name\()_end
	.balign 16
\name:
	.incbin "\file"
\name\()_end:
	.byte 0
	.endm

	embed embed_guest_data, EMBED_GUEST
	embed embed_trace_data, EMBED_TRACE

	.section .note.GNU-stack, "", @progbits
