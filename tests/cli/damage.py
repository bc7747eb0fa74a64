#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Damages a qcow2 image in one named way: damage.py CASE IMAGE, damage.py --list [KIND].

The image must be fresh from qemu-img (see damage_base in img_check.sh): any cluster size
and refcount width, one L2 table with standard clusters 0..3 and 16 at least.
Works on the bytes alone, so that neither program under comparison made the damage.
"""
import struct
import sys

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1


class Image:
    def __init__(self, path):
        self.f = open(path, "r+b")
        self.cs = 1 << self.u32(20)
        self.l1, self.reftable = self.u64(40), self.u64(48)
        self.order = self.u32(96) if self.u32(4) == 3 else 4
        self.step = 16 if self.u32(4) == 3 and self.u64(72) & 16 else 8
        self.l2 = self.u64(self.l1) & 0xFFFFFFFFFFFE00
        self.end = self.f.seek(0, 2)

    def read(self, off, n):
        self.f.seek(off)
        return self.f.read(n).ljust(n, b"\0")

    def write(self, off, data):
        self.f.seek(off)
        self.f.write(data)

    def u32(self, off):
        return struct.unpack(">I", self.read(off, 4))[0]

    def u64(self, off):
        return struct.unpack(">Q", self.read(off, 8))[0]

    def w32(self, off, v):
        self.write(off, struct.pack(">I", v))

    def w64(self, off, v):
        self.write(off, struct.pack(">Q", v))

    def entry(self, i):
        return self.u64(self.l2 + self.step * i)

    def set_entry(self, i, v):
        self.w64(self.l2 + self.step * i, v)

    def set_bitmap(self, i, v):
        self.w64(self.l2 + self.step * i + 8, v)

    def host(self, i):
        return self.entry(i) & 0xFFFFFFFFFFFE00

    def end_cluster(self):
        return (self.end + self.cs - 1) // self.cs

    def refcount(self, cluster, value):
        """Sets one count; the block must exist."""
        per_block = (self.cs * 8) >> self.order
        block = self.u64(self.reftable + 8 * (cluster // per_block))
        assert block, "no refcount block there"
        i, bits = cluster % per_block, 1 << self.order
        if bits >= 8:
            self.write(block + i * bits // 8, value.to_bytes(bits // 8, "big"))
        else:
            at, shift = block + i * bits // 8, i * bits % 8
            old = self.read(at, 1)[0] & ~(((1 << bits) - 1) << shift)
            self.write(at, bytes([old | value << shift]))


def cluster(img, i):
    return img.host(i) // img.cs


CASES = {}


def simple(name, fn):
    CASES[name] = fn


simple("none", lambda i: None)
simple("leak_in_file", lambda i: (i.refcount(cluster(i, 3), 1), i.set_entry(3, 0)))
simple("leak_past_end", lambda i: i.refcount(i.end_cluster() + 2, 1))
simple("leak_reserved_ahead", lambda i: [i.refcount(i.end_cluster() + k, 1) for k in range(8)])
simple("count_zero", lambda i: i.refcount(cluster(i, 1), 0))
simple("count_zero_many", lambda i: [i.refcount(cluster(i, k), 0) for k in range(4)])
simple("count_zero_l2", lambda i: i.refcount(i.l2 // i.cs, 0))
simple("count_zero_header", lambda i: i.refcount(0, 0))
simple("count_two", lambda i: i.refcount(cluster(i, 1), 2))
simple("count_max", lambda i: i.refcount(cluster(i, 1), (1 << (1 << i.order)) - 1))
simple("copied_missing", lambda i: i.set_entry(1, i.entry(1) & ~COPIED))
simple("copied_missing_l1", lambda i: i.w64(i.l1, i.u64(i.l1) & ~COPIED))
simple("same_cluster_twice", lambda i: i.set_entry(2, i.entry(1)))
simple("same_cluster_twice_counted",
       lambda i: (i.set_entry(2, i.entry(1)), i.refcount(cluster(i, 1), 2)))
simple("entry_far_past_end", lambda i: i.set_entry(2, COPIED | 1 << 40))
simple("entry_at_end", lambda i: i.set_entry(9, COPIED | i.end_cluster() * i.cs))
simple("entry_one_past_end", lambda i: i.set_entry(9, COPIED | (i.end_cluster() + 1) * i.cs))
simple("entry_top_of_range", lambda i: i.set_entry(9, COPIED | (1 << 56) - i.cs))
simple("entry_unaligned", lambda i: i.set_entry(1, i.entry(1) | 512))
simple("entry_zero_unaligned", lambda i: i.set_entry(1, i.entry(1) | 512 | ZERO))
simple("entry_zero_allocated", lambda i: i.set_entry(1, i.entry(1) | ZERO))
simple("entry_zero_plain", lambda i: i.set_entry(9, ZERO))
simple("entry_reserved", lambda i: i.set_entry(1, i.entry(1) | 1 << 57))
simple("entry_reserved_low", lambda i: i.set_entry(1, i.entry(1) | 8))
simple("entry_to_header", lambda i: i.set_entry(9, COPIED | i.cs * 0 | 0))
simple("entry_to_reftable", lambda i: i.set_entry(9, COPIED | i.cs))
simple("entry_to_refblock", lambda i: i.set_entry(9, COPIED | 2 * i.cs))
simple("entry_to_l1", lambda i: i.set_entry(9, i.l1))
simple("entry_to_own_l2", lambda i: i.set_entry(9, COPIED | i.l2))
simple("l1_reserved", lambda i: i.w64(i.l1, i.u64(i.l1) | 1 << 60))
simple("l1_reserved_low", lambda i: i.w64(i.l1, i.u64(i.l1) | 4))
simple("l1_unaligned", lambda i: i.w64(i.l1, i.u64(i.l1) + 512))
simple("l1_entry_past_end", lambda i: i.w64(i.l1, COPIED | 1 << 40))
simple("l1_entry_at_end", lambda i: i.w64(i.l1, COPIED | i.end_cluster() * i.cs))
simple("l1_entry_to_data", lambda i: i.w64(i.l1, COPIED | i.host(1)))
simple("l1_entry_to_refblock", lambda i: i.w64(i.l1, COPIED | 2 * i.cs))
simple("l1_entry_gone", lambda i: i.w64(i.l1, 0))
simple("l1_past_end", lambda i: i.w64(40, 1 << 40))
simple("l1_at_header", lambda i: i.w64(40, 0))
simple("reftable_entry_gone", lambda i: i.w64(i.reftable, 0))
simple("reftable_entry_reserved", lambda i: i.w64(i.reftable, i.u64(i.reftable) | 8))
simple("reftable_entry_unaligned", lambda i: i.w64(i.reftable, i.u64(i.reftable) + 512))
simple("reftable_entry_past_end", lambda i: i.w64(i.reftable, 1 << 30))
simple("reftable_entry_far_past_end", lambda i: i.w64(i.reftable, 1 << 50))
simple("reftable_entry_extra_past_end",
       lambda i: i.w64(i.reftable + 8, (i.end_cluster() + 1) * i.cs))
simple("reftable_entry_to_data", lambda i: i.w64(i.reftable, i.host(1)))
simple("reftable_entry_twice", lambda i: i.w64(i.reftable + 8, i.u64(i.reftable)))
simple("reftable_to_data", lambda i: i.w64(48, i.host(1)))
simple("reftable_past_end", lambda i: i.w64(48, 1 << 40))
simple("reftable_none", lambda i: i.w32(56, 0))
simple("reftable_to_l1", lambda i: i.w64(48, i.l1))
simple("counts_all_zero", lambda i: i.write(i.u64(i.reftable), bytes(i.cs)))
simple("counts_all_ones", lambda i: i.write(i.u64(i.reftable), b"\xff" * i.cs))
simple("l2_garbage",
       lambda i: i.write(i.l2 + 512 // 2, bytes((k * 73 + 11) & 255 for k in range(256))))
simple("truncated_last_cluster", lambda i: i.f.truncate(i.host(3)))
simple("truncated_half", lambda i: i.f.truncate(i.host(0) + i.cs))
simple("truncated_tables", lambda i: i.f.truncate(3 * i.cs))
simple("marked_dirty", lambda i: i.w64(72, i.u64(72) | 1))
simple("marked_corrupt", lambda i: i.w64(72, i.u64(72) | 2))
simple("dirty_counts_zero",
       lambda i: (i.w64(72, i.u64(72) | 1), [i.refcount(cluster(i, k), 0) for k in range(4)]))
simple("file_extended", lambda i: i.f.truncate(i.end + 20 * i.cs + 100))
simple("snapshots_past_end", lambda i: (i.w32(60, 1), i.w64(64, 1 << 40)))
simple("compressed_far_past_end", lambda i: i.set_entry(9, COMPRESSED | 1 << 40))
simple("compressed_copied", lambda i: i.set_entry(9, COMPRESSED | COPIED | i.host(1)))
simple("compressed_over_data", lambda i: i.set_entry(9, COMPRESSED | i.host(1) + 100))


# Of images with extended L2 entries; of those whose data is in a file of its own; with a snapshot.
KINDS = {
    "ext": {
        "ext_both_bits": lambda i: i.set_bitmap(1, 1 << 32 | 0xFFFFFFFF),
        "ext_unallocated_data": lambda i: i.set_bitmap(20, 1),
        "ext_unallocated_both": lambda i: i.set_bitmap(20, 1 << 32 | 1),
        "ext_compressed_bitmap": lambda i: (i.set_entry(3, COMPRESSED | i.host(3)),
                                            i.set_bitmap(3, 1)),
        "ext_zero_flag": lambda i: i.set_entry(1, i.entry(1) | ZERO),
        "ext_unaligned_data": lambda i: i.set_entry(1, i.entry(1) | 512),
        "ext_unaligned_zero": lambda i: (i.set_entry(1, i.entry(1) | 512),
                                         i.set_bitmap(1, 0xFFFFFFFF << 32)),
        "ext_not_copied": lambda i: i.set_entry(1, i.entry(1) & ~COPIED),
        "ext_past_end": lambda i: i.set_entry(1, COPIED | 1 << 40),
        "ext_count_zero": lambda i: i.refcount(cluster(i, 1), 0),
    },
    "data": {
        "data_not_copied": lambda i: i.set_entry(1, i.entry(1) & ~COPIED),
        "data_first_not_copied": lambda i: i.set_entry(0, 0),
        "data_unaligned": lambda i: i.set_entry(1, i.entry(1) | 512),
        "data_compressed": lambda i: i.set_entry(1, COMPRESSED | i.l2),
        "data_past_end": lambda i: i.set_entry(1, COPIED | 1 << 45),
        "data_twice": lambda i: i.set_entry(2, i.entry(1)),
        "data_reserved": lambda i: i.set_entry(1, i.entry(1) | 8),
    },
    "snap": {
        # As long as before: what was extra data is a part of the name.
        "snap_incomplete": lambda i: (i.w32(i.u64(64) + 36, 8),
                                      i.w32(i.u64(64) + 12, i.u32(i.u64(64) + 12) + 16)),
        "snap_too_much": lambda i: i.w32(i.u64(64) + 36, 5000),
        "snap_too_many": lambda i: i.w32(60, 65536 + 2),
        "snap_l1_unaligned": lambda i: i.w64(i.u64(64), i.u64(i.u64(64)) + 512),
        "snap_l1_huge": lambda i: i.w32(i.u64(64) + 8, 0x7fffffff),
        "snap_table_unaligned": lambda i: i.w64(64, i.u64(64) + 512),
        "snap_copied": lambda i: i.set_entry(2, i.entry(2) | COPIED),
        "snap_count_one": lambda i: i.refcount(cluster(i, 2), 1),
        "snap_forgotten": lambda i: (i.w32(60, 0), i.w64(64, 0)),
    },
}
KINDS["main"] = CASES


def main():
    if sys.argv[1] == "--list":
        print("\n".join(KINDS[(sys.argv + ["main"])[2]]))
        return
    name, path = sys.argv[1:]
    {k: v for kind in KINDS.values() for k, v in kind.items()}[name](Image(path))


if __name__ == "__main__":
    main()
