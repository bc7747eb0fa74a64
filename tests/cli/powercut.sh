#!/bin/sh
# SPDX-License-Identifier: MIT
#
# powercut.sh - explore, flushes and replay from end to end, on a log of twenty requests.
#
# A program keeps a counter: the data with the new number first, then the pointer to it, then "saved
# N" on the console.  The careful one flushes in between; the other forgot.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if ! command -v python3 >/dev/null; then
	echo "skip all: no python3"
	exit 0
fi
mkdir tmp "a dir"
export TMPDIR="$PWD/tmp"

# A log of dm-log-writes, which is imported.
cat >make.py <<'PYTHON'
import struct, sys
FLUSH, MARK = 1, 8
entries = []

def entry(sector, n, flags, data=b'', text=b''):
    head = struct.pack('<4Q', sector, n, flags, len(text)) + text
    entries.append(head + bytes(512 - len(head)) + data)

path, careful = sys.argv[1], sys.argv[2] == 'careful'
for i in range(1, 5):
    number = b'%d\n' % i
    entry(8 * i, 8, 0, number + bytes(4096 - len(number)))
    if careful:
        entry(0, 0, FLUSH)
    entry(0, 1, 0, number + bytes(512 - len(number)))
    entry(0, 0, FLUSH)
    entry(0, 0, MARK, text=b'saved %d' % i)
entry(0, 0, FLUSH)
with open(path, 'wb') as f:
    f.write(struct.pack('<3QI', 0x6a736677736872, 1, len(entries), 512).ljust(512, b'\0'))
    f.write(b''.join(entries))
PYTHON
for how in careful careless; do
	python3 make.py dm $how &&
		"$SLUICE" powercut import dm -o "$how.log" --blank --size 1048576 >out 2>err
	verdict "a log of a $how program" $?
done

# The pointer's number must be in the block that it points to, and not less than was said.
cat >check.sh <<'SH'
told=${MARK#saved } n=$(head -c 8 "$1" | tr -d '\0')
found=$(dd if="$1" bs=4096 skip="${n:-0}" count=1 2>/dev/null | head -c 8 | tr -d '\0')
[ -z "$n" ] || [ "$n" = "$found" ] || { echo "$n points to '$found'"; exit 1; }
[ "${n:-0}" -ge "${told:-0}" ] || { echo "$MARK, but it is $n"; exit 1; }
SH

# explore HOW MORE...: with that check; see out and err.
explore() {
	how=$1
	shift
	"$SLUICE" powercut explore "$how.log" --check 'sh check.sh {}' "$@" >out 2>err
}

explore careful --exhaustive && grep -q ', 0 failed; ' out
verdict "the careful program survives every cut" $?
explore careless
[ $? -eq 2 ] && grep -q '^1\. fails if the write of event 1 is lost' out &&
	grep -q 'missing: a flush after event 2 and before event 3; flush #1 (event 5) too' out &&
	grep -q "| 1 points to ''" out
verdict "the other one does not, and the flush is named" $?
cp out told
for jobs in 1 2 5; do
	explore careless --jobs $jobs
	cmp -s out told
	verdict "with $jobs commands at once it says the same" $?
done
explore careless --seed 2 --states 30
[ $? -eq 2 ] && [ "$(sed -n 's/^\([0-9]*\) cuts judged.*/\1/p' out)" -le 40 ]
verdict "fewer cuts are fewer" $?

# The line that repeats a failing cut, with paths that a shell would split.
cp careless.log "a dir/the log.log"
truncate -s 1M "a dir/before.raw"
"$SLUICE" powercut explore "a dir/the log.log" --image "a dir/before.raw" --image-format raw \
	--check 'sh check.sh {}' --html page.html >out 2>err
again=$(sed -n 's/^   again: sluice //p' out | head -n 1)
grep -q -- "--image-format raw" out && eval "\"$SLUICE\" $again" >>out 2>>err &&
	! MARK='' sh check.sh cut.raw >>out
verdict "the failing cut is built again by the line that says how" $?
grep -q 'const D = {clock' page.html && grep -q 'a flush is missing here' page.html &&
	! grep -Eq '(src|href)="?http' page.html
verdict "the timeline is one page" $?
cmp "a dir/before.raw" /dev/zero 2>&1 | grep -q EOF
verdict "the starting image was only read" $?
convert="\"$SLUICE\" img convert -f qcow2 -O raw {} \$SCRATCH/x"
"$SLUICE" powercut explore careless.log --image "a dir/before.raw" --image-format raw \
	--as qcow2 --states 60 --check "$convert && sh check.sh \$SCRATCH/x" >out 2>err
[ $? -eq 2 ] && grep -q '^1\. fails if the write of event 1 is lost' out
verdict "overlays over it are judged alike" $?

explore careless --json
[ $? -eq 2 ] && python3 -c "
import json, re
j, told = json.load(open('out')), open('told').read()
assert '%d cuts judged, %d failed' % (j['cuts'], j['failed']) in told
assert len(j['reasons']) == len(re.findall(r'^\d+\. ', told, re.M))
r = j['reasons'][0]
assert r['missing_flush'] == {'after': 2, 'before': 3} and r['status'] == 1
assert r['lost'] == [{'event': 1, 'sector': 8, 'sectors': 8, 'acknowledged': 2}]
assert r['replay'].startswith('sluice powercut replay careless.log --at ')
" 2>>err
verdict "as JSON it is the same" $?
"$SLUICE" powercut flushes careful.log --check 'sh check.sh {}' --json --html page.html \
	>out 2>err && python3 -c "
import json
j = json.load(open('out'))
assert [f['load_bearing'] for f in j['flushes']] == 8 * [True] + [False]
assert j['load_bearing'] == 8 and j['never_needed'] == 1
" 2>>err && grep -q '8 of 9 flushes bear a load' page.html
verdict "of its nine flushes the careful program needs all but the last" $?
"$SLUICE" powercut flushes careful.log --check 'sh check.sh {}' >out 2>err &&
	[ "$(grep -c 'bears a load: fails if the write of event' out)" -eq 8 ]
verdict "and the table says so" $?
explore careful -p && grep -q 'reading the log: 0 %' err && grep -q ' cuts judged, 0 failed' err
verdict "-p shows progress" $?
timeout -s INT 1 "$SLUICE" powercut explore careful.log --jobs 1 --check 'sleep 0.2' >out 2>err
[ $? -eq 124 ] && grep -q 'interrupted: that is not all' err && grep -q 'cuts judged' out
verdict "interrupted it tells what it has" $?
explore careless --check 'echo x >>{}; sh check.sh {}'
cmp -s out told
verdict "a check may write to its image" $?

# A log that lost its end, or has a wrong bit.
size=$(stat -c %s careless.log)
bad=0
for n in 0 7 55 56 60 72 100 200 $((size / 2)) $((size - 1)); do
	head -c "$n" careless.log >short.log
	"$SLUICE" powercut explore short.log --check true >out 2>err
	s=$?
	[ $s -le 1 ] && [ "$(wc -l <err)" -le 1 ] || bad=$n
	[ "$n" -gt 55 ] || [ $s -eq 1 ] || bad=$n
done
[ $bad -eq 0 ]
verdict "cut off, a log is used as far as it goes, or refused in one line" $?
for at in 0 8 12 16 24 48 57 60 64 68 80 100 $((size / 2)); do
	cp careless.log bad.log
	printf '\377' | dd of=bad.log bs=1 seek=$at conv=notrunc 2>>err
	"$SLUICE" powercut info bad.log >out 2>err
	[ $? -le 1 ] && [ "$(wc -l <err)" -le 1 ] || bad=$at
done
[ $bad -eq 0 ]
verdict "nor does a wrong byte do harm" $?
cp careless.log bad.log
printf '\011' | dd of=bad.log bs=1 seek=8 conv=notrunc 2>>err
"$SLUICE" powercut info bad.log >out 2>err
[ $? -eq 1 ] && grep -q 'a log of version 9; known is' err
verdict "a later version is refused" $?

# refused NAME WORDS ARGUMENTS...: one line, status 1.
refused() {
	what=$1 words=$2
	shift 2
	"$SLUICE" powercut "$@" >out 2>err
	[ $? -eq 1 ] && grep -q -- "$words" err && [ "$(wc -l <err)" -eq 1 ] && [ ! -s out ]
	verdict "$what" $?
}
truncate -s 4096 small.raw
{ cat cut.raw && printf more; } | head -c 1M >other.raw
for command in explore flushes; do
	refused "$command: no log" "which log?" $command --check true
	refused "$command: no check" "--check is missing" $command careful.log
	refused "$command: two logs" "unexpected argument" $command careful.log x.log --check true
	refused "$command: a log that is not there" "No such file" $command no.log --check true
	refused "$command: a folder" "directory" $command tmp --check true
	refused "$command: no number" "not a number" $command careful.log --check true --states x
	refused "$command: no value" "needs a value" $command careful.log --check
	refused "$command: unknown option" "unknown option '--x'" $command careful.log --x
	refused "$command: no such command" "cannot be run" $command careful.log --check /no/such
	refused "$command: another image" "does not hold" $command careful.log --check true \
		--image other.raw --image-format raw
	refused "$command: of another size" "is of 4096 bytes, the disk of the log of 1048576" \
		$command careful.log --check true --image small.raw --image-format raw
	refused "$command: no such folder" "no/page.html" $command careful.log --check true \
		--states 4 --html no/page.html
done
refused "judge: what has no image" "knows nothing of an image" judge careful.log --image check.sh
refused "judge: no image" "--image is missing" judge careful.log
refused "replay: torn, but nothing tears" "is torn" replay careful.log --at 3 --tear none \
	--policy 'subset=all,~1' -o x.raw
[ -z "$(ls -A tmp)" ]
verdict "nothing is left behind" $?

exit $status
