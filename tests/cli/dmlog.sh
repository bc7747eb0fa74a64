#!/bin/sh
# SPDX-License-Identifier: MIT
#
# dmlog.sh - logs of dm-log-writes, in and out, and what is built from them.
#
# Python writes and replays that format by itself, from the kernel's description of it, so that the
# program is not its own judge.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if ! command -v python3 >/dev/null; then
	echo "skip all: no python3"
	exit 0
fi

cat >dm.py <<'PYTHON'
import random, struct, sys
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SIZE = 4 << 20

def entry(f, sector, n, flags, data=b'', text=b'', unit=512):
    f.write(struct.pack('<4Q', sector, n, flags, len(text)) + text +
            bytes(unit - 32 - len(text)) + data)

# A log as the kernel makes it: its entries, and the disk after each one.
def make(path, unit):
    rng, n = random.Random(unit), 0
    with open(path, 'wb') as f:
        f.write(bytes(unit))
        for i in range(200):
            kind = rng.choice(['write'] * 6 + ['flush', 'fua', 'discard', 'mark', 'both'])
            count = rng.randrange(1, 9)
            sector = rng.randrange(SIZE // unit - count)
            data = rng.choice([bytes(unit * count), rng.randbytes(unit * count)])
            if kind == 'write':
                entry(f, sector, count, 0, data, unit=unit)
            elif kind == 'fua':
                entry(f, sector, count, FUA, data, unit=unit)
            elif kind == 'both':
                entry(f, sector, count, FUA | FLUSH, data, unit=unit)
            elif kind == 'discard':
                entry(f, sector, count, DISCARD, unit=unit)
            elif kind == 'flush':
                entry(f, 0, 0, FLUSH, unit=unit)
            else:
                entry(f, 0, 0, MARK, text=b'mark %d' % i, unit=unit)
            n += 1
        entry(f, 0, 0, MARK, text=b'dm-log-writes-end', unit=unit)
        f.seek(0)
        f.write(struct.pack('<3QI', 0x6a736677736872, 1, n + 1, unit))

def entries(path):
    with open(path, 'rb') as f:
        magic, version, n, unit = struct.unpack('<3QI', f.read(28))
        assert magic == 0x6a736677736872 and version == 1
        f.seek(unit)
        for i in range(n):
            block = f.read(unit)
            sector, count, flags, length = struct.unpack('<4Q', block[:32])
            data = f.read(count * unit) if not flags & (DISCARD | MARK) else b''
            assert len(block) == unit and len(data) in (0, count * unit)
            yield sector * unit, count * unit, flags, data, block[32:32 + length]
        assert not f.read(1)

# All of it, as replay-log does.
def replay(path, image):
    disk = bytearray(SIZE)
    for off, length, flags, data, text in entries(path):
        disk[off:off + length] = bytes(length) if flags & DISCARD else data
    open(image, 'wb').write(disk)

# What is in the log, without how it is cut up: one with FLUSH and data counts as two.
def show(path):
    for off, length, flags, data, text in entries(path):
        if flags & FLUSH:
            print('flush')
        if flags & MARK:
            print('mark', text)
        elif length:
            print(flags & ~FLUSH, off, length, hash(data) if data else '')

{'make': lambda a: make(a[0], int(a[1])), 'replay': lambda a: replay(*a),
 'show': lambda a: show(*a)}[sys.argv[1]](sys.argv[2:])
PYTHON
export PYTHONHASHSEED=1

for unit in 512 4096; do
	rm -f dm log out.dm disk.raw want.raw
	python3 dm.py make dm $unit &&
		"$SLUICE" powercut import dm -o log --blank --size 4194304 >out 2>err
	verdict "a log with sectors of $unit bytes is imported" $?
	"$SLUICE" powercut export log -o out.dm >out 2>err &&
		python3 dm.py show dm >want && python3 dm.py show out.dm >got && sort want >a &&
		sort got >b && cmp a b
	verdict "what is exported has the same entries" $?
	"$SLUICE" powercut replay log --at end --policy all -o disk.raw >out 2>err &&
		python3 dm.py replay dm want.raw && cmp want.raw disk.raw
	verdict "replayed to its end it is what replay-log makes of it" $?
	python3 dm.py replay out.dm got.raw && cmp want.raw got.raw
	verdict "and so is the exported one" $?
done

# A flush in the middle: what stands before it is in every cut after it.
"$SLUICE" powercut info log --json >out 2>err &&
	python3 -c "
import json
i = json.load(open('out'))
assert i['blank'] and i['disk_bytes'] == 4194304 and i['guest']['failed'] == 0
assert sum(p['writes'] for p in i['parts']) == i['guest']['writes'] > 50
assert i['guest']['flushes'] > 10 and i['guest']['discards'] > 5 and i['marks'] > 5
assert 0 < i['at_risk_most']['writes'] < i['guest']['writes']
" 2>>err
verdict "info counts them" $?

# The same seed, the same image; another one, another.
for n in 1 2 3; do
	seed=$((n / 3 + 1))
	"$SLUICE" powercut replay log --at 300 --policy torn --seed $seed -o torn$n.raw >out 2>err
done
cmp -s torn1.raw torn2.raw && ! cmp -s torn1.raw torn3.raw
verdict "a seed is an image" $?
truncate -s 4M start.raw
"$SLUICE" powercut replay log --at 300 --policy torn --seed 1 --image start.raw -f qcow2 \
	-o torn.qcow2 >out 2>err && "$SLUICE" img compare torn1.raw torn.qcow2 >out &&
	"$SLUICE" img info torn.qcow2 | grep -q 'backing file.*start.raw'
verdict "an overlay holds the same" $?

# refused NAME WORDS ARGUMENTS...: one line, status 1, no file.
refused() {
	what=$1 words=$2
	shift 2
	"$SLUICE" powercut "$@" >out 2>err
	[ $? -eq 1 ] && grep -q "$words" err && [ "$(wc -l <err)" -eq 1 ] && [ ! -e no.raw ]
	verdict "$what" $?
}
refused "an image is no log" "no log of dm-log-writes" import start.raw -o no.raw
refused "a log is not written over" "exists" export log -o out.dm
refused "nor an image" "exists already" replay log --at 3 -o start.raw
refused "a cut after the end" "no number from 0" replay log --at 1000000 -o no.raw
refused "an unknown policy" "expected none, all" replay log --at 3 --policy some -o no.raw
refused "a write that is not at risk" "no write that is at risk" \
	replay log --at 300 --policy subset=all,-2 -o no.raw
refused "an image that the log did not begin with" "does not hold" \
	replay log --at 3 --image want.raw -o no.raw
refused "a log that is none" "no log of a disk" info start.raw
head -c 3000 dm >short.dm
refused "a log that is cut off" "cut off" import short.dm -o no.raw

exit $status
