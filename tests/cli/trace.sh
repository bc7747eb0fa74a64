#!/bin/sh
# SPDX-License-Identifier: MIT
#
# trace.sh - the recorded installation is well formed, and tracetool.py finds where a guest waited.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
tool="$SRC/guest/trace/tracetool.py"
status=0
if ! command -v python3 >/dev/null || ! command -v zstd >/dev/null; then
	echo "python3 or zstd is missing"
	exit 77
fi

verdict() {
	if [ "$1" -eq 0 ]; then
		echo "ok $2"
	else
		echo "FAIL $2"
		sed 's/^/  | /' out
		status=1
	fi
}

log() { echo "1@1.0:$*"; }
pop() { log virtqueue_pop vq 0x1 elem "$1" in_num "$2" out_num "$3"; }
write() { pop "$1" 1 2; log virtio_blk_handle_write vdev 0x9 req "$1" sector "$2" nsectors "$3"; }
read_() { pop "$1" 2 1; log virtio_blk_handle_read vdev 0x9 req "$1" sector "$2" nsectors "$3"; }
flush() { pop "$1" 1 1; }
end() { for r; do log virtio_blk_req_complete vdev 0x9 req "$r" status 0; done; }

# waits NAME WAIT_FOR...: the log on standard input gives records with these waits.
waits() {
	name=$1
	shift
	cat >log
	python3 "$tool" compile --disk-bytes 1048576 --name t log t.trace >out 2>&1 &&
		python3 "$tool" check t.trace >>out 2>&1 &&
		tail -c +65 t.trace | od -An -v -tu4 -w16 | awk '{ printf "%s ", $1 }' >got &&
		echo "got: $(cat got) want: $*" >>out &&
		[ "$(cat got)" = "$* " ]
	verdict $? "$name"
}

{ write 0xa 0 8; write 0xb 8 8; end 0xa; write 0xc 16 8; end 0xb 0xc; write 0xa 24 8; end 0xa; } |
	waits "a request waits for what had completed" 0 0 1 3
{ write 0xa 0 8; write 0xb 8 8; end 0xb; write 0xc 16 8; end 0xa 0xc; } |
	waits "a request does not wait for what was in flight" 0 0 0
{ write 0xa 0 8; write 0xb 8 8; end 0xb; flush 0xc; end 0xa 0xc; } |
	waits "a flush waits for a write that had completed" 0 0 2
{ write 0xa 0 8; flush 0xc; write 0xb 8 8; end 0xc; write 0xd 16 8; end 0xa 0xb 0xd; } |
	waits "nothing passes a flush that had completed" 0 0 0 2
{ write 0xa 0 8; write 0xb 64 8; write 0xc 7 2; end 0xa 0xb 0xc; } |
	waits "writes that overlap keep their order" 0 0 1
{ write 0xf 64 8; end 0xf; read_ 0xa 0 8; read_ 0xb 0 8; write 0xc 0 1; end 0xa 0xb 0xc; } |
	waits "reads overlap, a write waits for them" 0 1 1 3

python3 "$tool" compile --disk-bytes 1024 --name t log t.trace >out 2>&1 &&
	! python3 "$tool" check t.trace >>out 2>&1 && grep -q 'disk has 2' out
verdict $? "a request past the end of the disk is refused"

trace="$SRC/guest/trace/debian-install.trace.zst"
python3 "$tool" check "$trace" >out 2>&1
verdict $? "the recorded installation is well formed"
zstd -dcq "$trace" >all && head -c -16 all >short
python3 "$tool" check short >out 2>&1
grep -q 'bytes are not' out
verdict $? "a recording that lost its end is refused"
exit $status
