#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# bitmap.py SLUICE SEED [STEPS] - the same random work on two images, by QEMU's tools on one and by
# ours on the other: bitmaps made, changed and merged, writes, zeros, discards, another size,
# snapshots, a killed writer.  After each step the bitmaps are the same bit for bit, read through
# qemu-nbd, and both programs find ours clean.  Ours is at times worked on by QEMU's.

import json
import os
import random
import subprocess
import sys

SLUICE, SEED = sys.argv[1], int(sys.argv[2])
STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 12
KIB, MIB = 1024, 1024 * 1024
OPTIONS = ['cluster_size=64k', 'cluster_size=512', 'cluster_size=4k', 'cluster_size=2M',
           'cluster_size=16k,extended_l2=on', 'cluster_size=4k,refcount_bits=64',
           'cluster_size=512,refcount_bits=1', 'lazy_refcounts=on', 'data_file=NAME.data',
           'data_file=NAME.data,data_file_raw=on']
NAMES = ['a', 'bb', 'c' * 40]
THEIRS, OURS = 'theirs.qcow2', 'ours.qcow2'
rnd = random.Random(SEED)
servers = 0


def run(*words):
    p = subprocess.run(words, capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def must(*words):
    status, text = run(*words)
    if status:
        fail('%s: %s' % (' '.join(words), text))
    return text


def fail(text):
    print(text[:2000])
    sys.exit(1)


def bits(image, name):
    """What is set in it, as [start, length] of the disk."""
    global servers
    servers += 1
    sock, pid_file = os.path.abspath('sock%d' % servers), 'pid%d' % servers
    must('qemu-nbd', '-r', '-f', 'qcow2', '-B', name, '-k', sock, '--fork', '--pid-file',
         pid_file, image)
    try:
        found = must('qemu-img', 'map', '--output=json', '--image-opts',
                     'driver=nbd,server.type=unix,server.path=%s,'
                     'x-dirty-bitmap=qemu:dirty-bitmap:%s' % (sock, name))
    finally: # it ends with its client, or now
        try:
            os.kill(int(open(pid_file).read()), 15)
        except (OSError, ValueError):
            pass
    run('flock', image, 'true')
    return [[e['start'], e['length']] for e in json.loads(found) if not e['data']]


def bitmaps(image):
    info = json.loads(must('qemu-img', 'info', '-U', '-f', 'qcow2', '--output=json', image))
    found = info['format-specific']['data'].get('bitmaps', [])
    return info['virtual-size'], {
        b['name']: [b['flags'], b['granularity'],
                    None if 'in-use' in b['flags'] else bits(image, b['name'])] for b in found}


def bitmap_words():
    name = rnd.choice(NAMES)
    what = rnd.choice(['--add', '--add', '--remove', '--enable', '--disable', '--clear',
                       '--merge'])
    words = ['bitmap', what] + ([rnd.choice(NAMES)] if what == '--merge' else [])
    if what == '--add':
        words += rnd.choice([[], ['-g', '512'], ['-g', '64k'], ['-g', '1M']])
        words += rnd.choice([[], ['--disable']])
    return words + ['IMAGE', name]


def io_words(size):
    words = ['-d', rnd.choice(['unmap', 'ignore']), '-f', 'qcow2']
    for _ in range(rnd.randint(1, 4)):
        length = rnd.choice([512, 4 * KIB, 64 * KIB, 390 * 512, MIB])
        offset = rnd.randrange(0, max(1, size - length) // 512 + 1) * 512
        if offset + length <= size:
            words += ['-c', '%s %d %d' % (rnd.choice(
                ['write', 'write -z', 'write -zu', 'discard', 'aio_write']), offset, length)]
    return words + ['IMAGE']


def step(size):
    k = rnd.random()
    killed = k > 0.96
    if k < 0.45:
        words = bitmap_words()
    elif k < 0.51:
        words = ['resize', '--shrink', '-f', 'qcow2', 'IMAGE',
                 str(max(512, (size // 512 + rnd.randint(-3000, 5000)) * 512))]
    elif k < 0.54:
        words = ['snapshot', rnd.choice(['-c', '-a', '-d']), 's1', 'IMAGE']
    else:
        words = io_words(size)
    img = k < 0.54
    status = {}
    for image in THEIRS, OURS:
        ours = image == OURS and rnd.random() < 0.8
        tool = [SLUICE, 'img' if img else 'io'] if ours else ['qemu-img' if img else 'qemu-io']
        now = [image if w == 'IMAGE' else w for w in words]
        if killed:
            now[-1:] = ['-c', 'sigraise 9', image]
        status[image] = run(*tool, *now)
    if img and status[THEIRS][0] != status[OURS][0]:
        fail('%s: %s' % (words, status))
    if killed: # what had been counted ahead is lost
        run('qemu-img', 'check', '-r', 'leaks', OURS)
    return words


def main():
    options = rnd.choice(OPTIONS)
    size = rnd.choice([1, 3, 10, 64]) * MIB + rnd.choice([0, 512, 4096])
    print(options, size)
    for image in THEIRS, OURS:
        for name in image, image + '.data':
            if os.path.exists(name):
                os.unlink(name)
        must('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options.replace('NAME', image),
             image, str(size))
    for _ in range(STEPS):
        words = step(size)
        size, theirs = bitmaps(THEIRS)
        size, ours = bitmaps(OURS)
        if theirs != ours:
            fail('after %s:\n  theirs %s\n  ours   %s' % (words, theirs, ours))
        must('qemu-img', 'check', OURS)
        must(SLUICE, 'img', 'check', OURS)


main()
