#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tracetool.py - compile, check and describe block traces (format: README.md here).

compile LOG OUT   from QEMU's virtio-blk events, as record.sh logs them
check TRACE       every promise of the format, by other means than compile uses; with
                  --image IMG also that each sector of the recorded disk that holds data was written
stats TRACE       the figures

TRACE may be compressed (.zst).

The log tells in which order the device took the requests, and which it had completed before.
QEMU 7.2 has no event for a flush that arrives, but each request is preceded by a virtqueue_pop
with the same address, and of those that Linux sends only the flush has no data, that is one
descriptor each way (header and status).
"""
import argparse
import re
import struct
import subprocess
import sys
from array import array
from collections import Counter, namedtuple

MAGIC = b"SLTRACE1"
HEADER = struct.Struct("<8sIIQ40s")
RECORD = struct.Struct("<IIQ")
READ, WRITE, FLUSH = 0, 1, 2
KINDS = ("read", "write", "flush")

Op = namedtuple("Op", "wait kind sectors sector")


def die(text):
    sys.exit("tracetool: " + text)


# The log: a sequence of ("submit", kind, sector, sectors) and ("complete", index).

EVENT = re.compile(r":(virtqueue_pop|virtio_blk_handle_read|virtio_blk_handle_write|"
                   r"virtio_blk_req_complete) (.*)")


def read_log(path):
    """Yield (name, {field: value}) for each event."""
    with open(path, encoding="ascii", errors="replace") as f:
        for number, line in enumerate(f, 1):
            m = EVENT.search(line)
            if not m:
                die(f"{path}:{number}: not understood: {line.strip()}")
            words = m.group(2).split()
            yield m.group(1), {k: int(v, 0) for k, v in zip(words[::2], words[1::2])}


def target_of(path):
    """The device that was written to, and its virtqueue.  The others are read-only."""
    devices, queues, popped = set(), set(), {}
    for name, f in read_log(path):
        if name == "virtqueue_pop":
            popped[f["elem"]] = f["vq"]
        elif name == "virtio_blk_handle_write":
            devices.add(f["vdev"])
            queues.add(popped[f["req"]])
    if len(devices) != 1 or len(queues) != 1:
        die(f"{len(devices)} devices and {len(queues)} queues were written to, expected 1 and 1")
    return devices.pop(), queues.pop()


def events_of(path):
    """The target's submissions and completions, in order."""
    vdev, vq = target_of(path)
    flying = {}                 # request address -> index
    popped = None               # a pop whose kind is not known yet
    count = 0
    for name, f in read_log(path):
        if name == "virtqueue_pop":
            if f["vq"] != vq:
                continue
            if popped is not None or f["elem"] in flying:
                die("a request of unknown kind, or an address used twice")
            if f["in_num"] > 1 or f["out_num"] > 1:
                popped = f
                continue
            yield ("submit", FLUSH, 0, 0)
            flying[f["elem"]] = count
            count += 1
        elif f["vdev"] != vdev:
            continue
        elif name == "virtio_blk_req_complete":
            if popped is not None and popped["elem"] == f["req"]:
                popped = None           # answered at once: GET_ID
                continue
            if f["status"] != 0:
                die("a request failed during the recording")
            yield ("complete", flying.pop(f["req"]))
        else:
            if popped is None or popped["elem"] != f["req"]:
                die("a read or write that was not popped")
            popped = None
            kind = READ if name == "virtio_blk_handle_read" else WRITE
            yield ("submit", kind, f["sector"], f["nsectors"])
            flying[f["req"]] = count
            count += 1
    if flying or popped:
        die(f"{len(flying)} requests never completed")


def compile_events(events):
    """Records with wait_for, and how many requests were in flight after each submission."""
    ops, done, depths = [], bytearray(), []
    settled = 0         # all ops before this one have completed
    barrier = 0         # one past the last flush that has completed
    last_write = 0      # one past the last write that has completed
    held = Counter()
    for event in events:
        if event[0] == "complete":
            i = event[1]
            done[i] = 1
            if ops[i].kind == FLUSH:
                barrier = max(barrier, i + 1)
            elif ops[i].kind == WRITE:
                last_write = max(last_write, i + 1)
            while settled < len(ops) and done[settled]:
                settled += 1
            continue
        _, kind, sector, sectors = event
        wait = max(settled, barrier, ops[-1].wait if ops else 0)
        if kind == FLUSH:
            if last_write > wait:
                held["flush"] += 1
            wait = max(wait, last_write)
        for j in range(len(ops) - 1, wait - 1, -1):
            o = ops[j]
            if WRITE not in (kind, o.kind):
                continue
            if o.sector < sector + sectors and sector < o.sector + o.sectors:
                held["overlap"] += 1
                wait = j + 1
                break
        ops.append(Op(wait, kind, sectors, sector))
        done.append(0)
        depths.append(sum(1 for j in range(settled, len(ops)) if not done[j]))
    return ops, depths, held


def store(path, ops, disk_bytes, name):
    with open(path, "wb") as f:
        f.write(HEADER.pack(MAGIC, len(ops), 0, disk_bytes, name.encode("ascii")))
        for o in ops:
            f.write(RECORD.pack(o.wait, o.kind << 28 | o.sectors, o.sector))


def load(path):
    if path.endswith(".zst"):
        data = subprocess.run(["zstd", "-dcq", path], check=True, stdout=subprocess.PIPE).stdout
    else:
        with open(path, "rb") as f:
            data = f.read()
    if len(data) < HEADER.size:
        die(f"{path}: too short")
    magic, count, zero, disk_bytes, name = HEADER.unpack_from(data)
    if magic != MAGIC or zero != 0 or disk_bytes % 512:
        die(f"{path}: bad header")
    if len(data) != HEADER.size + count * RECORD.size:
        die(f"{path}: {len(data)} bytes are not {count} records")
    ops = [Op(w, k >> 28, k & 0xfffffff, s) for w, k, s in RECORD.iter_unpack(data[HEADER.size:])]
    return ops, disk_bytes, name.rstrip(b"\0").decode("ascii")


def check(ops, disk_bytes):
    """Replays the records against a map of the disk that remembers the last user of each sector."""
    end = disk_bytes // 512
    wrote = array("I", bytes(4 * end))      # 1 + index of the last write to the sector
    used = array("I", bytes(4 * end))       # 1 + index of the last read or write
    before = 0
    for i, o in enumerate(ops):
        if o.kind not in (READ, WRITE, FLUSH):
            die(f"op {i}: unknown kind {o.kind}")
        if o.wait > i or o.wait < before:
            die(f"op {i}: wait_for {o.wait} (previous {before})")
        before = o.wait
        if o.kind == FLUSH:
            if o.sectors or o.sector:
                die(f"op {i}: a flush with a range")
            continue
        if o.sectors == 0 or o.sector + o.sectors > end:
            die(f"op {i}: {o.sectors} sectors at {o.sector}, disk has {end}")
        span = slice(o.sector, o.sector + o.sectors)
        if max((used if o.kind == WRITE else wrote)[span]) > o.wait:
            die(f"op {i}: overlaps an earlier one that may be in flight")
        mark = array("I", [i + 1]) * o.sectors
        used[span] = mark
        if o.kind == WRITE:
            wrote[span] = mark
    return wrote


def check_image(path, wrote, disk_bytes):
    zero = bytes(512)
    data = lost = 0
    with open(path, "rb") as f:
        for sector in range(disk_bytes // 512):
            if f.read(512) != zero:
                data += 1
                lost += wrote[sector] == 0
        if f.read(1):
            die(f"{path}: larger than the recorded disk")
    if lost:
        die(f"{path}: {lost} sectors with data were never written")
    print(f"{path}: {data} sectors with data, each written by the trace")


def size_class(sectors):
    """The smallest power of two in KiB, from 4, that holds it."""
    return max(4, 1 << ((sectors + 1) // 2 - 1).bit_length())


def median(values):
    return sorted(values)[len(values) // 2]


def print_stats(ops, disk_bytes, name):
    print(f"{name}: {len(ops)} requests on a disk of {disk_bytes >> 20} MiB")
    for kind in (READ, WRITE, FLUSH):
        sizes = [o.sectors for o in ops if o.kind == kind]
        text = f"  {KINDS[kind]:6}{len(sizes):8}"
        if kind != FLUSH and sizes:
            text += (f"  {sum(sizes) / 2048:8.1f} MiB, median {median(sizes) / 2:g} KiB, "
                     f"largest {max(sizes) / 2:g} KiB")
        print(text)
    unaligned = sum(1 for o in ops if (o.sector | o.sectors) % 8)
    touched = bytearray(disk_bytes // 512)
    again = 0
    for o in ops:
        if o.kind == WRITE:
            again += touched.count(1, o.sector, o.sector + o.sectors)
            touched[o.sector:o.sector + o.sectors] = b"\1" * o.sectors
    print(f"  not 4 KiB aligned: {unaligned}")
    highest = max(o.sector + o.sectors for o in ops) - 1
    print(f"  highest sector used: {highest} of {disk_bytes // 512}")
    print(f"  written at least once: {touched.count(1) / 2048:.1f} MiB, "
          f"again: {again / 2048:.1f} MiB")

    print("\n  size       reads  writes")
    reads = Counter(size_class(o.sectors) for o in ops if o.kind == READ)
    writes = Counter(size_class(o.sectors) for o in ops if o.kind == WRITE)
    for kib in sorted(set(reads) | set(writes)):
        print(f"  <={kib:5} KiB {reads[kib]:6} {writes[kib]:7}")

    # In flight at most, if the disk completes nothing that need not be complete.
    depth = [i + 1 - o.wait for i, o in enumerate(ops)]
    print(f"\n  may be in flight: average {sum(depth) / len(depth):.1f}, "
          f"median {median(depth)}, max {max(depth)}")
    classes = Counter(1 << (d - 1).bit_length() for d in depth)
    print("  depth    requests")
    for d in sorted(classes):
        print(f"  <={d:5} {classes[d]:9}")
    gaps, since = [], 0
    for o in ops:
        if o.kind == FLUSH:
            gaps.append(since)
            since = 0
        elif o.kind == WRITE:
            since += 1
    if gaps:
        print(f"  writes between flushes: median {median(gaps)}, max {max(gaps)}, "
              f"none {gaps.count(0)} times")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    c = sub.add_parser("compile")
    c.add_argument("--disk-bytes", type=int, required=True)
    c.add_argument("--name", required=True)
    c.add_argument("log")
    c.add_argument("out")
    c = sub.add_parser("check")
    c.add_argument("--image")
    c.add_argument("trace")
    c = sub.add_parser("stats")
    c.add_argument("trace")
    a = p.parse_args()
    if a.command == "compile":
        if len(a.name) > 39:
            die("the name is longer than 39 characters")
        ops, depths, held = compile_events(events_of(a.log))
        if not ops:
            die("the log holds no request")
        store(a.out, ops, a.disk_bytes, a.name)
        print(f"{len(ops)} requests; in flight while recording: average "
              f"{sum(depths) / len(depths):.1f}, max {max(depths)}; order added for "
              f"{held['overlap']} overlaps and {held['flush']} flushes")
        return
    ops, disk_bytes, name = load(a.trace)
    wrote = check(ops, disk_bytes)
    if a.command == "stats":
        print_stats(ops, disk_bytes, name)
    else:
        print(f"{a.trace}: {len(ops)} records, all well formed")
        if a.image:
            check_image(a.image, wrote, disk_bytes)


main()
