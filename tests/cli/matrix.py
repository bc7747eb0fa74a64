#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images of every kind, written by one tool and read, checked and written on by the other.

A combination is one value of each property below.  All pairs of values that are possible come up in
some combination of the short run; MATRIX=all goes through all combinations.  In each, sluice and
qemu-img are the maker of the image in turn:

  the maker     creates it, packs clusters, writes, zeroes, discards, takes a snapshot, writes on
  both          check it: clean; its contents are those of a model
  the other     writes on
  both          check, compare
  the other     applies and deletes the snapshot; both check, compare with what it was taken of
  the maker     converts it to a new image with the same properties; both check, compare

The model is a byte array, so neither tool is believed.
"""

import itertools
import os
import random
import subprocess
import sys
import zlib

SIZE = 6 * 1024 * 1024 + 1536
BACKING = 4 * 1024 * 1024 + 512
KIB = 1024
MIB = 1024 * KIB

PROPERTIES = {
    "compat": ["1.1", "0.10"],
    "cluster_size": [64 * KIB, 512, 4 * KIB, 2 * MIB],
    "refcount_bits": [16, 1, 8, 64],
    "lazy": ["off", "on"],
    "compression": ["zlib", "zstd"],
    "extended_l2": ["off", "on"],
    "backing": ["none", "raw", "qcow2"],
    "snapshot": ["no", "yes"],
    "data": ["inside", "file", "raw"],
}

TOOLS = {
    "sluice": ([os.environ["SLUICE"], "img"], [os.environ["SLUICE"], "io"]),
    "qemu": (["qemu-img"], ["qemu-io"]),
}


def possible(c):
    """Does the format allow it?"""
    if c["compat"] == "0.10" and (
        c["refcount_bits"] != 16
        or c["lazy"] == "on"
        or c["compression"] == "zstd"
        or c["extended_l2"] == "on"
        or c["data"] != "inside"
    ):
        return False
    if c["extended_l2"] == "on" and c["cluster_size"] < 16 * KIB:
        return False
    if c["snapshot"] == "yes" and (c["refcount_bits"] == 1 or c["data"] != "inside"):
        return False
    return c["data"] != "raw" or c["backing"] == "none"


def combinations():
    values = itertools.product(*PROPERTIES.values())
    return [c for c in (dict(zip(PROPERTIES, v)) for v in values) if possible(c)]


def pairs(c):
    return set(itertools.combinations(c.items(), 2))


def covering(every):
    """Few of them, with every pair of values that comes up at all."""
    missing = set().union(*map(pairs, every))
    chosen = []
    while missing:
        best = max(every, key=lambda c: len(pairs(c) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


class Failed(Exception):
    pass


def run(command):
    p = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
    )
    text = p.stdout.decode(errors="replace")
    if p.returncode:
        raise Failed(f"status {p.returncode}: {' '.join(command)}\n{text}")
    return text


def img(tool, *args):
    return run(TOOLS[tool][0] + list(args))


def io(tool, name, commands):
    args = [a for c in commands for a in ("-c", c)]
    text = run(TOOLS[tool][1] + ["-f", "qcow2"] + args + [name])
    if "failed" in text:
        raise Failed(f"{tool} io {name}: {commands}\n{text}")


class Image:
    """One image, what it must hold, and who does what to it."""

    def __init__(self, c, maker):
        self.c, self.maker = c, maker
        self.other = "qemu" if maker == "sluice" else "sluice"
        self.rng = random.Random(zlib.crc32(repr(sorted(c.items())).encode()))
        self.model = bytearray(SIZE)
        self.options = (
            f"compat={c['compat']},cluster_size={c['cluster_size']},"
            f"refcount_bits={c['refcount_bits']},lazy_refcounts={c['lazy']}"
        )
        if c["compat"] != "0.10":
            self.options += f",compression_type={c['compression']},extended_l2={c['extended_l2']}"

    def data_options(self, name):
        if self.c["data"] == "inside":
            return ""
        raw = ",data_file_raw=on" if self.c["data"] == "raw" else ""
        return f",data_file={name}{raw}"

    def create(self):
        backing = []
        if self.c["backing"] != "none":
            low = bytes(self.rng.randrange(1, 256) for _ in range(BACKING // 4096 + 1))
            low = b"".join(
                (bytes([b]) if i % 3 else b"\0") * 4096 for i, b in enumerate(low)
            )[:BACKING]
            self.model[:BACKING] = low
            with open("below.raw", "wb") as f:
                f.write(low)
            if self.c["backing"] == "qcow2":
                img(self.maker, "convert", "-f", "raw", "-O", "qcow2", "below.raw", "below.qcow2")
            backing = ["-b", f"below.{self.c['backing']}", "-F", self.c["backing"]]
        img(
            self.maker, "create", "-q", "-f", "qcow2", "-o",
            self.options + self.data_options("image.data"), *backing, "image", str(SIZE),
        )  # fmt: skip

    def put(self, off, length, byte):
        self.model[off : off + length] = bytes([byte]) * length

    def place(self, longest):
        length = self.rng.choice([512, 1000, 4096, 65536, self.rng.randrange(1, longest)])
        off = self.rng.randrange(0, SIZE - length)
        if self.rng.random() < 0.5:
            off -= off % 512
            length += -length % 512
        return off, min(length, SIZE - off)

    def change(self):
        """The next commands, done to the model too."""
        kind = self.rng.randrange(6)
        off, length = self.place(700 * KIB)
        if kind < 3:
            byte = self.rng.randrange(1, 256)
            self.put(off, length, byte)
            return [f"write -P {byte} {off} {length}"]
        self.put(off, length, 0)
        if kind == 3:
            return [f"write -z {off} {length}"]
        if kind == 4:
            return [f"write -z -u {off} {length}"]
        return [f"discard {off} {length}", f"write -z {off} {length}"]

    def work(self, tool, n):
        io(tool, "image", [c for _ in range(n) for c in self.change()])

    def pack(self, tool):
        """Whole clusters, before anything else is written; a data file has none."""
        unit = self.c["cluster_size"]
        if self.c["data"] != "inside":
            return
        commands = []
        for k in self.rng.sample(range(SIZE // unit), min(6, SIZE // unit)):
            byte = self.rng.randrange(1, 256)
            self.put(k * unit, unit, byte)
            commands.append(f"write -c -P {byte} {k * unit} {unit}")
        io(tool, "image", commands)

    def judge(self, name="image"):
        with open("model", "wb") as f:
            f.write(self.model)
        for tool in TOOLS:
            img(tool, "check", "-q", "-f", "qcow2", name)
            img(tool, "compare", "-q", "-f", "raw", "-F", "qcow2", "model", name)
        if self.c["data"] == "raw":
            with open(f"{name}.data", "rb") as f:
                if f.read(SIZE) != self.model:
                    raise Failed(f"{name}.data is not good as a raw image")

    def go(self):
        self.create()
        self.pack(self.maker)
        self.work(self.maker, 12)
        if self.c["snapshot"] == "yes":
            img(self.maker, "snapshot", "-c", "then", "image")
            then = bytearray(self.model)
            self.work(self.maker, 8)
        self.judge()
        self.work(self.other, 12)
        self.judge()
        if self.c["snapshot"] == "yes":
            img(self.other, "snapshot", "-a", "then", "image")
            self.model = then
            self.judge()
            img(self.other, "snapshot", "-d", "then", "image")
            self.judge()
        options = self.options + self.data_options("copy.data")
        img(self.maker, "convert", "-f", "qcow2", "-O", "qcow2", "-o", options, "image", "copy")
        self.judge("copy")


def clean():
    for name in os.listdir("."):
        os.unlink(name)


def attempt(c):
    why = ""
    for maker in TOOLS:
        clean()
        try:
            Image(c, maker).go()
        except (Failed, subprocess.TimeoutExpired) as e:
            why += f"made by {maker}: {e}\n"
    title = " ".join(str(v) for v in c.values())
    print(("FAIL" if why else "ok"), title, flush=True)
    for line in why.splitlines()[:20]:
        print("  |", line)
    return not why


def main():
    every = combinations()
    chosen = every if os.environ.get("MATRIX") == "all" else covering(every)
    os.makedirs("matrix", exist_ok=True)
    os.chdir("matrix")
    results = [attempt(c) for c in chosen]
    clean()
    sys.exit(0 if all(results) else 1)


main()
