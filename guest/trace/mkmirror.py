#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mkmirror.py - turn what debootstrap --download-only fetched into a mirror of just that.

Usage: mkmirror.py DOWNLOAD SUITE MIRROR

The stanzas are those of Debian's own Packages file, so that priorities (which decide what
debootstrap installs) are the archive's.  The Release file is unsigned.
"""
import glob
import gzip
import hashlib
import os
import shutil
import sys


def stanzas(path):
    with open(path, encoding="utf-8") as f:
        for text in f.read().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in text.splitlines()
                          if ": " in line and not line.startswith(" "))
            if fields:
                yield fields, text.strip("\n")


def main():
    download, suite, mirror = sys.argv[1:]
    debs = {}
    for deb in glob.glob(os.path.join(download, "var/cache/apt/archives/*.deb")):
        package, version, arch = os.path.basename(deb)[:-4].split("_")
        debs[package, version.replace("%3a", ":"), arch] = deb
    lists = glob.glob(os.path.join(download, "var/lib/apt/lists/*binary-amd64_Packages"))
    chosen = []
    for fields, text in stanzas(lists[0]):
        deb = debs.pop((fields["Package"], fields["Version"], fields["Architecture"]), None)
        if deb is None:
            continue
        chosen.append(text)
        target = os.path.join(mirror, fields["Filename"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(deb, target)
    if debs:
        sys.exit(f"mkmirror: not in Packages: {sorted(debs)}")

    # debootstrap overlooks a last stanza that no empty line follows.
    plain = "".join(text + "\n\n" for text in chosen).encode()
    top = os.path.join(mirror, "dists", suite)
    os.makedirs(os.path.join(top, "main/binary-amd64"))
    sums = []
    for name, data in (("main/binary-amd64/Packages", plain),
                       ("main/binary-amd64/Packages.gz", gzip.compress(plain, mtime=0))):
        with open(os.path.join(top, name), "wb") as f:
            f.write(data)
        sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n")
    with open(os.path.join(top, "Release"), "w", encoding="utf-8") as f:
        f.write(f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
                "Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n" + "".join(sums))
    print(f"mkmirror: {len(chosen)} packages")


main()
