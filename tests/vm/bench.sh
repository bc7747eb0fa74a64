#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bench.sh - one mode of the install bench: rows, JSON, picture, and nothing left behind.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"

plot=
command -v gnuplot >/dev/null && plot="--plot r.svg"
mkdir images
# shellcheck disable=SC2086 # two words or none
"$SLUICE" bench install --modes writethrough --formats raw,qcow2,qcow2+lazy \
	--dir images --json r.json $plot >out 2>err
verdict "the install runs on each format in writethrough" $?
[ "$(grep -c '^writethrough ' out)" -eq 3 ] && [ ! -s err ]
verdict "one row per format, and nothing else on standard error" $?
[ -z "$(ls images)" ]
verdict "nothing is left in the scratch directory" $?

if command -v python3 >/dev/null; then
	python3 - r.json <<'END' >>err 2>&1
import json, sys
rows = json.load(open(sys.argv[1]))["rows"]
assert [r["format"] for r in rows] == ["raw", "qcow2", "qcow2+lazy"]
for r in rows:
    (sample,) = r["sluice"]
    guest, drive = sample["guest"], sample["stats"]["drives"][0]
    assert sample["failed"] is None
    assert r["seconds"] == guest["install"]["usec"] / 1e6 > 0
    assert abs(r["ratio_to_raw"] - r["seconds"] / rows[0]["seconds"]) < 1e-9
    # Without a write cache each write is durable when it is acknowledged, so none is lost count of,
    # and there is at least one fdatasync for each batch that the guest can have had in flight.
    assert drive["writes"] == guest["install"]["writes"] > 0
    assert drive["host_fdatasyncs"] * guest["install"]["depth_max"] >= guest["install"]["writes"]
    assert drive["data_bytes"] >= guest["install"]["write_kib"] * 1024
    assert (drive["metadata_bytes"] == 0) == (r["format"] == "raw")
END
	verdict "the JSON is complete and agrees with itself" $?
else
	echo "skip the JSON is complete and agrees with itself: no python3"
fi
if [ -n "$plot" ]; then
	grep -q '<svg' r.svg && grep -q 'writethrough' r.svg
	verdict "the picture is drawn" $?
else
	echo "skip the picture is drawn: no gnuplot"
fi

"$SLUICE" bench install --modes unsafe --formats raw --dir images --timeout 1 >out 2>err
[ $? -eq 1 ] && grep -q 'FAILED: no end after 1 s' out && [ -z "$(ls images)" ]
verdict "a measurement that takes too long is ended and fails its row" $?

"$SLUICE" bench install --modes unsafe --formats raw,qcow2 --dir images >out 2>err &
pid=$!
sleep $slow
kill -TERM $pid
wait $pid
[ $? -eq 130 ] && grep -q interrupted err && [ -z "$(ls images)" ]
verdict "an interrupted bench cleans up" $?
exit $status
