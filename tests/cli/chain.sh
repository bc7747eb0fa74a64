#!/bin/sh
# SPDX-License-Identifier: MIT
#
# chain.sh - sluice img resize, rebase, commit, amend and info --backing-chain beside qemu-img.
#
# Each command runs twice, once with each program, in a folder of its own; lines that begin with
# "!" prepare both.  Afterwards qemu-img judges the images that ours has left.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip chain: qemu-img or qemu-io is not installed (Debian: qemu-utils)"
	exit 0
fi

rm -rf cq cs
mkdir cq cs

# here FOLDER PROGRAM ARGUMENTS: output and status, the program's name made equal
here() {
	(
		cd "$1" || exit 1
		eval "$2 $3" 2>&1
		echo "status $?"
	) | sed "s/qemu-img/PROGRAM/g; s/sluice img/PROGRAM/g; s,$PWD/$1,DIR,g" >"$1.out"
}

verdict() { # NAME
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' why | head -20
		status=1
	fi
}

while read -r args; do
	case $args in
	"" | \#*) ;;
	!*)
		here cq "${args#!}" ""
		here cs "${args#!}" ""
		diff -u cq.out cs.out >why
		verdict "${args#!}"
		;;
	*)
		here cq qemu-img "$args"
		here cs "$SLUICE img" "$args"
		diff -u cq.out cs.out >why
		verdict "$args"
		;;
	esac
done <<'END'
# info, layer by layer
!qemu-img create -q -f qcow2 b 1M
!qemu-img create -q -f qcow2 -b b -F qcow2 m
!qemu-img create -q -f qcow2 -b m -F qcow2 t 2M
!qemu-img create -q -f raw r 1000
!qemu-img create -q -f qcow2 -b $PWD/r -F raw x
!qemu-img create -q -f qcow2 -o data_file=df,data_file_raw=on,extended_l2=on y 1M
info --backing-chain t
info --backing-chain --output=json t
info --backing-chain r
info --backing-chain --output=json x
info --output=json y
info y
# external data files
!qemu-img create -q -f qcow2 -o data_file=dg e 1000k
!qemu-io -c 'write -P 5 100k 300k' e >/dev/null
!qemu-img create -q -f qcow2 -o data_file=dh,data_file_raw=on h 1M
!qemu-io -c 'write -P 6 0 200k' h >/dev/null
!qemu-io -c 'discard 64k 128k' -c 'write -z 512k 128k' e >/dev/null
!qemu-io -c 'write -z 64k 1k' h >/dev/null
check e
check --output=json h
map e
map --output=json e
map --output=json h
measure -O qcow2 e
compare e h
compare -f raw dh h
snapshot -c s e
snapshot -l e
convert -O qcow2 -c -o data_file=c.data e c
convert -O qcow2 -o data_file=c.data e c
compare e c
map --output=json c
resize e 1500k
resize h 1500k
!stat -c '%n %s' dg
map --output=json h
resize --shrink e 300k
!stat -c '%n %s' dg
check e
compare e c
amend -o data_file=nope e
map e
amend -o data_file= --image-opts file.filename=e,data-file.filename=dg
info e
map e
map --image-opts file.filename=e,data-file.driver=file,data-file.filename=dg
map --image-opts file.filename=e,data-file.filename=nope
check --image-opts driver=qcow2,file.filename=e,data-file.filename=nope
check -r all --image-opts driver=qcow2,file.filename=e,data-file.filename=nope
check --image-opts driver=qcow2,file.filename=e,data-file.filename=dg
map --image-opts file.filename=x,data-file.filename=dg
map --image-opts file.filename=e,data-file=dg
amend -o data_file_raw=on h
amend -o data_file_raw=off h
info h
amend -o data_file_raw=on h
!rm dh
map h
!qemu-img rebase -u -b t -F qcow2 b
info --backing-chain t
info --backing-chain m
!rm m
info --backing-chain t
info nope
info -f qcow2 r
info -f foo t
# resize: words
!rm -f *; qemu-img create -q -f qcow2 a 1M; qemu-img create -q -f raw r 1M
!qemu-img create -q -f qcow2 -o compat=0.10 s2 1M; qemu-img snapshot -c x s2
resize a 2M
resize a 1M
resize --shrink a 1M
resize a +1M
resize --shrink a -1M
resize -q a 3M
resize a 0
resize a
resize
resize a foo
resize --shrink a -10G
resize -f raw r 2M
resize -f raw --shrink r 1M
resize -f raw r 512k
resize --preallocation=foo a 5M
resize --preallocation=full --shrink a 1M
resize -f raw --preallocation=metadata r 5M
resize -f raw --preallocation=falloc r 5M
resize s2 2M
resize a 1E
resize a 8E
resize nope 1M
resize -f foo a 1M
resize --shrink a 1000
resize a 5M x
resize -f raw r +1
# resize: content
!qemu-img create -q -f qcow2 l 1M; qemu-io -c 'write -P 5 0 1M' l >/dev/null
resize --shrink l 100k
resize l 300k
!qemu-io -r -c 'read -P 5 0 100k' -c 'read -P 0 128k 172k' l | grep -c verif
!qemu-img check l
resize --preallocation=metadata l 1M
!qemu-img check l | head -2
resize --preallocation=full l 2M
!qemu-io -r -c 'read -P 5 0 100k' -c 'read -P 0 128k 1920k' l | grep -c verif
!qemu-img create -q -f raw base 4M; qemu-io -f raw -c 'write -P 7 0 4M' base >/dev/null
!qemu-img create -q -f qcow2 -o cluster_size=4k -b base -F raw o 1000k
resize o 3M
!qemu-io -r -c 'read -P 7 0 1000k' -c 'read -P 0 1000k 2072k' o | grep -c verif
!qemu-img check o | head -1
!qemu-img create -q -f qcow2 -o cluster_size=512 n 64M; qemu-io -c 'write -P 1 0 20M' n >/dev/null
resize --shrink n 1M
!qemu-io -r -c 'read -P 1 0 1M' n | grep -c verif
!qemu-img check n | head -2
!qemu-img create -q -f qcow2 c 1M; qemu-io -c 'write -c -P 6 0 256k' c >/dev/null
!qemu-io -c 'write -c -P 7 512k 256k' c >/dev/null
resize --shrink c 128k
!qemu-io -r -c 'read -P 6 0 128k' c | grep -c verif
!qemu-img check c | head -1
# rebase
!rm -f *; qemu-img create -q -f qcow2 b0 1M; qemu-img create -q -f qcow2 b1 1M
!qemu-img create -q -f qcow2 -b b0 -F qcow2 o; qemu-img create -q -f qcow2 -b o -F qcow2 t
!qemu-io -c 'write -P 1 0 64k' b0 >/dev/null; qemu-io -c 'write -P 2 64k 64k' b1 >/dev/null
rebase -b b1 -F qcow2 o
!qemu-img map o; qemu-img check o; qemu-img info o | grep back
rebase -b b0 o
rebase -b nope -F qcow2 o
rebase -u -b nope -F qcow2 o
rebase -b b0 -F qcow2 o
rebase -u -b b0 -F qcow2 o
rebase -u -b '' o
!qemu-img info o | grep -c back
rebase -b '' o
rebase o
rebase -b b0
rebase -F foo -b b0 o
rebase -f foo -b b0 o
rebase -f raw -b b0 -F qcow2 o
rebase -t foo -b b0 o
rebase -T foo -b b0 o
rebase -u -b b0 o
rebase -u -b $(printf %01020d 1) -F qcow2 o
!qemu-img info o | grep -c 0001
rebase -u -b x -F raw o
!xxd -l 1024 o
# commit
!rm -f *; qemu-img create -q -f qcow2 b 1M; qemu-img create -q -f qcow2 -b b -F qcow2 m
!qemu-img create -q -f qcow2 -b m -F qcow2 t 2M; qemu-io -c 'write -P 1 0 64k' b >/dev/null
!qemu-io -c 'write -P 2 64k 64k' m >/dev/null; qemu-io -c 'write -P 3 128k 64k' t >/dev/null
commit t
!qemu-img map t; qemu-img check t; qemu-img check m
commit -d t
commit b
commit
commit nope
commit -b nope t
!qemu-io -c 'write -P 7 1500k 64k' -c 'write -z 128k 64k' t >/dev/null
commit -q -b b t
!qemu-io -r -c 'read -P 1 0 64k' -c 'read -P 0 128k 64k' -c 'read -P 7 1500k 64k' b | grep -c verif
!qemu-img compare b t
commit -t foo t
commit -f foo t
commit -b m -d t
commit -r 1M t
commit t x
commit -b b m
commit -b t t
!qemu-img check m | head -1; qemu-img check b | head -1
!qemu-img create -q -f raw r 1M; qemu-img create -q -f qcow2 -b r -F raw o 2M
!qemu-io -c 'write -P 1 0 64k' o > /dev/null
commit o
!stat -c %s r; qemu-img map o; qemu-img check o
!qemu-img create -q -f qcow2 -o cluster_size=512 c 2M
!qemu-img create -q -f qcow2 -o cluster_size=1k -b c -F qcow2 d 5M
!qemu-io -c 'write -P 1 0 3M' d >/dev/null
commit d
!qemu-img check c | head -1; qemu-img check d | head -1; qemu-img map d | wc -l | grep -c .
!qemu-io -r -c 'read -P 1 0 3M' -c 'read -P 0 3M 2M' d | grep -c verif
!qemu-img create -q -f qcow2 c 1M; qemu-img create -q -f qcow2 -b c -F qcow2 d
!qemu-io -c 'write -c -P 1 0 256k' d >/dev/null
commit d
!qemu-img check c | head -1; qemu-img check d | head -1; qemu-img map d | wc -l | grep -c .
!qemu-io -r -c 'read -P 1 0 256k' d | grep -c verif
# amend
!rm -f *; qemu-img create -q -f qcow2 a 1M; qemu-img create -q -f qcow2 -o compat=0.10 a2 1M
!qemu-img create -q -f raw r 1M; qemu-img create -q -f qcow2 -b a -F qcow2 o 2M
!qemu-io -c 'write -P 3 0 1M' a >/dev/null; qemu-io -c 'write -z 0 128k' o >/dev/null
!qemu-io -c 'write -P 4 256k 64k' -c 'write -z 1500k 64k' o >/dev/null
!qemu-img create -q -f qcow2 z 1M; qemu-io -c 'write -P 3 0 1M' -c 'write -z 0 512k' z >/dev/null
amend -o compat=0.10 a
!xxd -l 1024 a
amend -o lazy_refcounts=on a
amend -o compat=0.42 a
amend -o compat=v3,lazy_refcounts=on a
!xxd -l 1024 a
amend -o refcount_bits=3 a
amend -o refcount_bits=8 a2
amend -o data_file=x a
amend -o data_file_raw=on a
amend -o encryption=on a
amend -o encrypt.state=active a
amend -o cluster_size=32k a
amend -o foo a
amend -o , a
amend -f raw -o size=5M r
amend r
amend -o compat=v3
amend -f foo -o compat=v3 a
amend -t foo -o compat=v3 a
amend -o help
amend -o help a
amend -f qcow2 -o help
amend -o size=2M,lazy_refcounts=off a
!qemu-img check a; qemu-img info a | grep -v disk.size
amend -o compat=0.10 o
!qemu-io -r -c 'read -P 0 0 128k' -c 'read -P 3 128k 128k' o | grep -c verif
!qemu-io -r -c 'read -P 4 256k 64k' -c 'read -P 3 320k 704k' -c 'read -P 0 1M 1M' o | grep -c verif
!qemu-img check o | head -1; qemu-img info o | grep -v disk.size
amend -o compat=0.10 z
!qemu-io -r -c 'read -P 0 0 512k' -c 'read -P 3 512k 512k' z | grep -c verif
!qemu-img check z | head -1; qemu-img info z | grep -v disk.size
# A disk whose header says less than its tables map.
!qemu-img create -q -f qcow2 y 1M; qemu-io -c 'write -P 3 0 1M' -c 'write -z 0 512k' y >/dev/null
!printf '\0\2\0\0' | dd of=y bs=1 seek=28 conv=notrunc 2>/dev/null
amend -o compat=0.10 y
!qemu-img check y | head -1; qemu-img info y | grep -v disk.size
END

# Within the last cluster qemu-img 7.2 shows again what was cut off.
"$SLUICE" img create -q -f qcow2 z 1M && qemu-io -c 'write -P 5 0 1M' z >/dev/null &&
	"$SLUICE" img resize -q --shrink z 100k && "$SLUICE" img resize -q z 1M &&
	qemu-io -r -c 'read -P 5 0 100k' -c 'read -P 0 100k 924k' z >why && ! grep -q failed why
verdict "what was cut off does not come back"

exit $status
