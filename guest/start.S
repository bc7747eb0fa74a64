/* SPDX-License-Identifier: MIT */
/*
 * start.S - everything of the guest that runs at CPL0.
 *
 * A hypervisor without hardware help interprets CPL0 code one instruction at a time and runs CPL3
 * code natively, so all C code runs at CPL3 and what is here stays at tens of instructions: the way
 * from the loader to CPL3, interrupt handlers that count and say EOI, and the calls that C makes
 * by int3 (function number in eax).  Nothing here uses SSE or moves memory in bulk.
 *
 * Page tables are static: an identity map of the first 8 GiB by 2 MiB pages, open to CPL3.
 * Ports are open to CPL3 twice: by IOPL 3 and by the TSS bitmap, as neither works everywhere.
 *
 * Limit: exceptions never return; they are reported (boot.c) and end the run.
 */
#include "guest/cpu.h"

#define CR0_BITS	0x80010033	/* PG WP NE ET MP PE */
#define CR4_BITS	0x620		/* PAE OSFXSR OSXMMEXCPT */
#define MSR_EFER	0xc0000080
#define EFER_LME_SCE	0x101
#define APIC_EOI	0xfee000b0
#define TSS_LIMIT	(104 + 8193 - 1)

	.section .note.pvh, "a", @note
	.align	4
	.long	4, 8, 18		/* name size, desc size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	entry32

	.section .text.start, "ax", @progbits
	.code32
	.globl	entry32
entry32:				/* PVH: flat 32-bit, no paging, ebx = hvm_start_info */
	cli
	cld
	lgdt	gdt_pointer
	movl	$CR4_BITS, %eax
	movl	%eax, %cr4
	movl	$page_pml4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	movl	$EFER_LME_SCE, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$CR0_BITS, %eax
	movl	%eax, %cr0
	ljmp	$SEL_CODE0, $start64

	.code64
	.globl	entry64
entry64:				/* started in long mode: rbx = hvm_start_info */
	cli
	cld
	movl	%ebx, %ebx		/* a loader keeps it below 4 GiB */
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME_SCE, %eax
	wrmsr
	movl	$CR4_BITS, %eax
	movq	%rax, %cr4
	movl	$page_pml4, %eax
	movq	%rax, %cr3
	movl	$CR0_BITS, %eax
	movq	%rax, %cr0
	lgdt	gdt_pointer
	movl	$stack0_top, %esp
	pushq	$SEL_CODE0
	pushq	$start64
	lretq

start64:
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movl	$SEL_DATA0, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$stack0_top, %esp

	/* The TSS descriptor's base, which no relocation can split. */
	movl	$tss, %eax
	movw	%ax, gdt_tss + 2
	shrl	$16, %eax
	movb	%al, gdt_tss + 4
	movb	%ah, gdt_tss + 7
	lidt	idt_pointer
	movl	$SEL_TSS, %eax
	ltr	%ax

	pushq	$SEL_DATA3
	pushq	$stack3_top - 8		/* as after a call */
	pushq	$FLAGS_CPL3		/* interrupts still off: boot.c fills the IDT first */
	pushq	$SEL_CODE3
	pushq	$guest_start
	movl	%ebx, %edi
	iretq

/* int3 from CPL3: eax = what, edx = argument.  int3 at CPL0 would be an error. */
	.align	16
	.globl	isr_call
isr_call:
	cmpl	$CALL_IDLE, %eax
	jne	1f
	cmpl	irq_events, %edx	/* an interrupt since the caller looked? */
	jne	0f
	sti
	hlt
	cli
0:	iretq
1:	cmpl	$CALL_IRQ_ON, %eax
	jne	1f
	orl	$0x200, 16(%rsp)
	iretq
1:	cmpl	$CALL_HALT, %eax
	jne	1f
0:	cli
	hlt
	jmp	0b
1:	cmpl	$CALL_TRIPLE, %eax
	jne	1f
	lidt	no_idt_pointer
	ud2
1:	iretq

/* Interrupts: IRQ_DEVICES vectors for queues, then the timer, then the spurious vector. */
.macro irq_stub counter, offset=0
	.align	32
	pushq	%rax
	incl	\counter + \offset
	incl	irq_events
	movl	$APIC_EOI, %eax
	movl	$0, (%rax)
	popq	%rax
	iretq
.endm
	.align	32
	.globl	irq_stubs
irq_stubs:
	.set	i, 0
	.rept	IRQ_DEVICES
	irq_stub irq_device, (4 * i)
	.set	i, i + 1
	.endr
	irq_stub irq_ticks
	.align	32
	iretq				/* spurious: no EOI */

/* Exceptions: note the facts, then go on at CPL3 in exception_main(). */
	.align	16
	.globl	isr_stubs
isr_stubs:
	.set	i, 0
	.rept	32
	.align	16
	.if !(i == 8 || (i >= 10 && i <= 14) || i == 17 || i == 21 || i == 29 || i == 30)
	pushq	$0
	.endif
	pushq	$i
	jmp	exception
	.set	i, i + 1
	.endr

exception:				/* vector, error, rip, cs, flags, rsp, ss */
	incl	exception_depth
	cmpl	$1, exception_depth
	jne	1f
	movl	$exception_info, %edi
	popq	%rax
	movq	%rax, (%rdi)
	popq	%rax
	movq	%rax, 8(%rdi)
	movq	(%rsp), %rax
	movq	%rax, 16(%rdi)
	movq	%cr2, %rax
	movq	%rax, 24(%rdi)
	movq	8(%rsp), %rax
	movq	%rax, 32(%rdi)
	movq	24(%rsp), %rax
	movq	%rax, 40(%rdi)
	movq	$exception_main, (%rsp)
	movq	$SEL_CODE3, 8(%rsp)
	movq	$FLAGS_CPL3, 16(%rsp)
	movq	$stack_exception_top - 8, 24(%rsp)
	movq	$SEL_DATA3, 32(%rsp)
	iretq
1:	movl	$STATUS_EXCEPTION, %eax	/* an exception in the report of one */
	outb	%al, $DEBUG_EXIT_PORT
	cli
	hlt
	jmp	1b

/* What an application processor runs after its SIPI: copied to AP_TRAMPOLINE by boot.c. */
	.code16
	.globl	ap_start, ap_end
ap_start:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	AP_TRAMPOLINE + ap_gdt_pointer - ap_start
	movl	$CR4_BITS, %eax
	movl	%eax, %cr4
	movl	$page_pml4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	movl	$EFER_LME_SCE, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$CR0_BITS, %eax
	movl	%eax, %cr0
	ljmpl	$SEL_CODE0, $ap_start64
	.align	4
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_end:
	.code64
ap_start64:
	lock incl ap_count
1:	cli
	hlt
	jmp	1b

	.data
	.align	16
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x08 code, CPL0 */
	.quad	0x00cf93000000ffff	/* 0x10 data, CPL0 */
	.quad	0x00cff3000000ffff	/* 0x18 data, CPL3 */
	.quad	0x00affb000000ffff	/* 0x20 code, CPL3 */
gdt_tss:
	.word	TSS_LIMIT, 0
	.byte	0, 0x89, 0, 0
	.quad	0
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
idt_pointer:
	.word	256 * 16 - 1
	.quad	idt
no_idt_pointer:
	.word	0
	.quad	0

	.section .data.page, "aw", @progbits
	.align	4096
page_pml4:
	.quad	page_pdpt + 7
	.fill	511, 8, 0
page_pdpt:
	.set	i, 0
	.rept	MAPPED_GIB
	.quad	page_pd + 4096 * i + 7
	.set	i, i + 1
	.endr
	.fill	512 - MAPPED_GIB, 8, 0
page_pd:
	.set	i, 0
	.rept	512 * MAPPED_GIB
	.quad	(i << 21) + 0x87	/* present, writable, user, 2 MiB */
	.set	i, i + 1
	.endr
	.align	4096
tss:
	.long	0
	.quad	stack0_top, 0, 0
	.quad	0, 0, 0, 0, 0, 0, 0, 0
	.quad	0
	.word	0, 104			/* offset of the I/O bitmap */
	.fill	8192, 1, 0
	.byte	0xff
	.if . - tss - 1 != TSS_LIMIT
	.error "TSS size"
	.endif

	.section .bss.page, "aw", @nobits
	.align	4096
	.globl	idt
idt:	.skip	256 * 16
	.skip	4096
stack0_top:
	.skip	65536
stack3_top:
	.skip	8192
stack_exception_top:

	.section .note.GNU-stack, "", @progbits
