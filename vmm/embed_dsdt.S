/* SPDX-License-Identifier: MIT */
/*
 * embed_dsdt.S - the ACPI table of devices that iasl made from dsdt.asl (EMBED_DSDT), as bytes.
 */
	.section .rodata
	.global embed_dsdt_data, embed_dsdt_data_end
	.balign 16
embed_dsdt_data:
	.incbin EMBED_DSDT
embed_dsdt_data_end:
	.byte 0

	.section .note.GNU-stack, "", @progbits
