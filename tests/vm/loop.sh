#!/bin/sh
# SPDX-License-Identifier: MIT
#
# loop.sh - the kernel refuses to work for a drive's event loop while the guest writes.
#
# A library that is loaded before ours takes the ring away on SIGUSR2.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
cat >break.c <<'END'
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static void take(int sig)
{
	int null = open("/dev/null", O_RDWR);
	for (int fd = 3; fd < 256; fd++) {
		char name[32], to[64];
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(name, to, sizeof(to) - 1);
		to[n > 0 ? n : 0] = 0;
		if (strstr(to, "[io_uring]") || strstr(to, "[eventpoll]"))
			dup2(null, fd);
	}
}
__attribute__((constructor)) static void begin(void)
{
	signal(SIGUSR2, take);
}
END
if ! cc -shared -fPIC -o break.so break.c 2>cc.log; then
	echo "skip all: no compiler: $(tail -n 1 cc.log)"
	exit 0
fi

for how in io_uring,format=qcow2 threads,format=raw io_uring,format=raw,if=ide; do
	format=${how#*format=} format=${format%%,*}
	rm -f disk.img other.img
	"$SLUICE" img create -q -f "$format" disk.img 64M
	"$SLUICE" img create -q -f qcow2 other.img 64M
	LD_PRELOAD=./break.so "$SLUICE" run -kernel @guest -serial stdio -timeout $((50 * slow)) \
		-append "io rw=write bs=4k seconds=$((40 * slow)) flush_every=8 span=8M depth=4" \
		-drive "file=disk.img,aio=$how" -drive file=other.img,format=qcow2 \
		>out 2>err </dev/null &
	pid=$!
	sleep $slow
	kill -USR2 $pid
	wait $pid
	[ $? -eq 1 ] && grep -q 'drive[01]: its event loop failed' err &&
		[ -z "$(sort err | uniq -d)" ]
	verdict "$how: the machine ends, status 1, each drive told once" $?
	"$SLUICE" img check -q other.img >out 2>&1 &&
		{ [ "$format" = raw ] || "$SLUICE" img check -q disk.img >out 2>&1; }
	verdict "$how: and the images are clean" $?
done
exit $status
