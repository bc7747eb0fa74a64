#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bench.sh - what is wrong with a bench command line is said before anything is measured.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0
path= # for the program, if it is not ours

# refuses WORDS ARGUMENT...: exit status 1, the words on standard error, nothing on standard output.
refuses() {
	words=$1
	shift
	timeout 20 env ${path:+PATH="$path"} "$SLUICE" bench "$@" >out 2>err
	got=$?
	if [ $got -eq 1 ] && [ ! -s out ] && grep -qF -e "$words" err; then
		echo "ok refused: $*"
	else
		echo "FAIL refused: $* (exit status $got)"
		sed 's/^/  | /' out err
		status=1
	fi
}

refuses "sluice bench install"
refuses "nonsense" nonsense
refuses "expected writeback, none, writethrough" install --modes fast
refuses "expected raw, qcow2, qcow2+lazy" install --formats raw,vmdk
refuses "expected virtio" install --bus scsi
refuses "raw" install --formats raw,raw
refuses "-repeat" install --repeat 0
refuses "-repeat" install --repeat x
refuses "-timeout" install --timeout
refuses "--no-such-option" install --no-such-option
refuses "word" install word
if [ -w /dev/kvm ]; then
	refuses "/nonexistent" install --dir /nonexistent
	refuses "/nonexistent/x.json" install --json /nonexistent/x.json
	path=/nonexistent
	refuses "qemu-system-x86_64 is not installed" install --qemu
	refuses "gnuplot is not installed" install --plot x.svg
else
	refuses "/dev/kvm" install
fi
exit $status
