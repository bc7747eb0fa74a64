#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh - sluice run: how a machine ends, and with which exit status.
#
# The guests are a few instructions each, put together here, and the built-in one.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"

# ends NAME STATUS WORDS ARGUMENT...: sluice run ends so, with these words (none: '') on stderr.
ends() {
	name=$1 want=$2 words=$3
	shift 3
	timeout $((30 * slow)) "$SLUICE" run "$@" >out 2>err </dev/null
	got=$?
	[ $got -eq "$want" ] &&
		if [ -n "$words" ]; then grep -qF -e "$words" err; else [ ! -s err ]; fi
	verdict "$name (status $got)" $?
}

# kernel NAME: 32-bit instructions on stdin to an ELF file with a PVH entry at its first byte.
kernel() {
	{
		echo '.section .note.Xen, "a", @note; .long 4, 4, 18; .asciz "Xen"; .long _start'
		echo '.text; .globl _start; _start:'
		cat
	} >"$1.s"
	cc -m32 -nostdlib -static -no-pie -Wl,-N,-Ttext-segment=0x100000 \
		-Wl,--build-id=none,-z,noexecstack \
		-o "$1" "$1.s" 2>>cc.log
}

exit_with='out %al, $0xf4; 1: hlt; jmp 1b'
if ! kernel status7 <<END; then
	mov \$7, %al; $exit_with
END
	echo "skip all: no compiler for the guests: $(tail -n 1 cc.log)"
	exit 0
fi

# The guest's own end.
ends "the built-in guest says hello" 0 '' -kernel @guest -append hello
grep -q 'guest: done status=0' out
verdict "what it writes to the serial port is on stdout" $?
ends "the guest's own status" 7 '' -kernel status7
ends "options with two dashes and =" 7 '' --kernel=status7 --m=64M --smp=1
kernel poweroff <<END
	mov \$0x604, %dx; mov \$0x2000, %ax; out %ax, %dx; 1: hlt; jmp 1b
END
ends "power-off" 0 '' -kernel poweroff
kernel spin <<END
	1: jmp 1b
END
ends "time-out while computing" 3 "did not end within 1 s" -kernel spin -timeout 1
kernel halt <<END
	1: cli; hlt; jmp 1b
END
ends "time-out while halted, two vCPUs" 3 "did not end" -kernel halt -timeout 1 -smp 2
ends "a large memory, four vCPUs" 7 '' -kernel status7 -m 5G -smp 4
ends "a second processor answers" 0 '' -kernel @guest -append smp -smp 2

# Resets: memory is kept, so that a counter tells how often.
kernel count_resets <<END
	mov 0x200000, %eax; inc %eax; mov %eax, 0x200000; cmp \$3, %eax; je 2f
	mov \$0xfe, %al; out %al, \$0x64; 1: hlt; jmp 1b
	2: $exit_with
END
ends "the keyboard controller resets" 3 '' -kernel count_resets -stats stats.json
grep -q '"resets": 2' stats.json
verdict "the resets are counted" $?
ends "-no-reboot ends at the first" 0 '' -kernel count_resets -no-reboot
kernel count_faults <<END
	mov 0x200000, %eax; inc %eax; mov %eax, 0x200000; cmp \$3, %eax; je 2f
	lidt 3f; ud2; 3: .long 0, 0
	2: $exit_with
END
ends "a triple fault resets, and is told" 3 "triple fault" -kernel count_faults
[ "$(wc -l <err)" -eq 1 ]
verdict "but told once" $?
kernel data_again <<END
	.data; d: .long 0; .text
	mov d, %eax; incl d; mov 0x200000, %ecx; incl 0x200000; test %ecx, %ecx; jnz 2f
	mov \$0xcf9, %dx; mov \$6, %al; out %al, %dx; 1: hlt; jmp 1b
	2: add \$9, %al; $exit_with
END
ends "after a reset the kernel's data are as new" 9 '' -kernel data_again

# Where KVM cannot go on: there is no code at a device's address.
kernel lost <<END
	mov \$0xd0000000, %eax; jmp *%eax
END
ends "KVM gives up" 4 "KVM gave up" -kernel lost
grep -q 'rip 0xd0000000' err
verdict "and the message says where" $?

# Mistakes.
ends "a missing kernel" 1 "nothing.elf: No such file" -kernel nothing.elf
echo "just text" >text
ends "a kernel that is no ELF file" 1 "CONFIG_PVH=y" -kernel text
cc -m32 -nostdlib -static -no-pie -Wl,--build-id=none -x assembler -o plain - <<END
	.globl _start; _start: hlt
END
ends "an ELF file without a PVH entry" 1 "no PVH entry" -kernel plain
ends "a missing initrd" 1 "nothing.gz: No such file" -kernel status7 -initrd nothing.gz
truncate -s 200M large
ends "an initrd that does not fit" 1 "larger -m" -kernel status7 -initrd large
ends "a missing image" 1 "nothing.img: No such file" -kernel status7 \
	-drive file=nothing.img,format=raw
ends "a bad size" 1 "-m 12Q" -kernel status7 -m 12Q
ends "an unknown option" 1 "'-frobnicate'" -kernel status7 -frobnicate
ends "no option at all" 1 "-kernel"
ends "a bad path for the serial port" 1 "/nonexistent/x" -kernel status7 -serial file:/nonexistent/x
ends "a bad path for the figures" 1 "/nonexistent/x" -kernel status7 -stats /nonexistent/x
ends "nothing is opened before all is understood" 1 "-smp 0" -kernel status7 \
	-serial file:made -stats made2 -smp 0
[ ! -e made ] && [ ! -e made2 ]
verdict "and nothing was" $?
"$SLUICE" frobnicate >out 2>err
[ $? -eq 1 ] && grep -q "'frobnicate'; expected run" err
verdict "an unknown command" $?

# Signals.  timeout(1) sends them, because a shell's background jobs ignore SIGINT.
for s in INT:130 TERM:143 HUP:129; do
	timeout --preserve-status -s "${s%:*}" $slow \
		"$SLUICE" run -kernel halt -stats s.json >out 2>err </dev/null
	[ $? -eq "${s#*:}" ] && grep -q "\"exit\": ${s#*:}" s.json && [ ! -s err ]
	verdict "SIG${s%:*} ends cleanly" $?
done

# The serial port.
kernel echo_sum <<END
	mov \$40, %ecx; xor %ebx, %ebx
	1: mov \$0x3fd, %dx; in %dx, %al; test \$1, %al; jz 1b
	mov \$0x3f8, %dx; in %dx, %al; out %al, %dx; add %al, %bl; loop 1b
	mov %bl, %al; $exit_with
END
digits=0123456789012345678901234567890123456789
printf '%s more' $digits |
	timeout $((30 * slow)) "$SLUICE" run -kernel echo_sum >out 2>err
[ $? -eq $((4 * (48 * 10 + 45) % 256)) ] && [ "$(cat out)" = $digits ]
verdict "input from a pipe arrives whole and in order" $?
ends "output to a file" 0 '' -kernel @guest -append hello -serial file:log
[ ! -s out ] && grep -q 'status=0' log
verdict "is in the file alone" $?
ends "no serial port at all" 0 '' -kernel @guest -append hello -serial null
[ ! -s out ]
verdict "prints nothing" $?
kernel chatter <<END
	mov \$0x3f8, %dx; 1: out %al, %dx; jmp 1b
END
{
	timeout $((30 * slow)) "$SLUICE" run -kernel chatter -timeout 2 2>err
	echo $? >rc
} | sleep $((4 + slow))
[ "$(cat rc)" -eq 3 ]
verdict "a reader that does not read does not keep the machine from ending" $?
{
	timeout $((30 * slow)) "$SLUICE" run -kernel @guest -append hello 2>err
	echo $? >rc
} | :
[ "$(cat rc)" -eq 0 ]
verdict "a reader that goes away does not end the guest" $?
timeout $((30 * slow)) "$SLUICE" run -kernel status7 <&- >&- 2>&-
[ $? -eq 7 ]
verdict "standard descriptors may be closed" $?

# The terminal, in one that script(1) makes.
# in_terminal INPUT COMMAND: the command sees stty's words before and after; its status is in rc.
in_terminal() {
	cat >session <<END
before=\$(stty -g)
$2
echo \$? >rc
[ "\$(stty -g)" = "\$before" ] && echo same >mode
END
	rm -f rc mode
	{
		sleep $slow
		# shellcheck disable=SC2059 # the input is a format, for its escapes
		printf "$1"
		sleep $slow
	} | timeout $((30 * slow)) script -qec "sh session" /dev/null >out 2>&1
	:
}
if command -v script >/dev/null && command -v stty >/dev/null; then
	in_terminal '\003' "\$SLUICE run -kernel halt -timeout $((20 * slow))"
	[ "$(cat rc)" -eq 130 ] && [ -e mode ]
	verdict "Ctrl-C ends the machine and the terminal is put back" $?
	in_terminal '\001x' "\$SLUICE run -kernel halt -timeout $((20 * slow))"
	[ "$(cat rc)" -eq 130 ] && [ -e mode ]
	verdict "Ctrl-A x does too" $?
	kernel key <<END
		1: mov \$0x3fd, %dx; in %dx, %al; test \$1, %al; jz 1b
		mov \$0x3f8, %dx; in %dx, %al; $exit_with
END
	in_terminal '\001\003' "\$SLUICE run -kernel key -timeout $((20 * slow))"
	[ "$(cat rc)" -eq 3 ] && [ -e mode ]
	verdict "Ctrl-A Ctrl-C is a Ctrl-C for the guest" $?
	in_terminal '\r' "\$SLUICE run -kernel key -timeout $((20 * slow))"
	[ "$(cat rc)" -eq 13 ] && [ -e mode ]
	verdict "keys reach the guest untranslated" $?
	for s in ABRT SEGV TERM; do
		in_terminal '' \
			"timeout --preserve-status --foreground -s $s $slow \
				\$SLUICE run -kernel halt"
		[ "$(cat rc)" -ge 128 ] && [ -e mode ]
		verdict "SIG$s puts the terminal back" $?
	done
else
	echo "skip terminal: no script or stty"
fi

# /dev/kvm missing, useless or forbidden, in a mount namespace where that is permitted.
if unshare -m true 2>/dev/null; then
	unshare -m sh -c 'mount -t tmpfs none /dev && exec "$SLUICE" run -kernel status7' >out 2>err
	[ $? -eq 1 ] && grep -q '/dev/kvm is missing: load the module' err &&
		[ "$(wc -l <err)" -eq 1 ]
	verdict "no /dev/kvm: one line says what to do" $?
	unshare -m sh -c 'mount --bind /dev/zero /dev/kvm && exec "$SLUICE" run -kernel status7' \
		>out 2>err </dev/null
	[ $? -eq 1 ] && grep -q '/dev/kvm is not KVM' err
	verdict "a /dev/kvm that is something else" $?
else
	echo "skip no /dev/kvm: no permission for a mount namespace"
fi
if [ "$(stat -c %a /dev/kvm)" = 600 ] && setpriv --reuid 65534 --clear-groups true 2>/dev/null; then
	chmod 755 . && chmod 644 status7
	setpriv --reuid 65534 --clear-groups "$SLUICE" run -kernel status7 >out 2>err
	got=$?
	if grep -q 'Permission denied$' err; then
		echo "skip forbidden /dev/kvm: others may not read this directory"
	else
		[ $got -eq 1 ] && grep -q "no permission to open /dev/kvm: join the group" err
		verdict "a forbidden /dev/kvm" $?
	fi
else
	echo "skip forbidden /dev/kvm: it is open to others, or no setpriv"
fi
exit $status
