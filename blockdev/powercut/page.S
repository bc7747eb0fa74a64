/* SPDX-License-Identifier: MIT */
/* page.S - the timeline's page, as it is. */
	.section .rodata
	.global powercut_page, powercut_page_end
	.hidden powercut_page, powercut_page_end
powercut_page:
	.incbin POWERCUT_PAGE
powercut_page_end:
	.byte 0
	.section .note.GNU-stack, "", @progbits
