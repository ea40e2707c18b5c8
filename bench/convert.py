#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Converting disk images, beside qemu-img convert.

  bench/convert.py OUT_DIR [--size MIB] [--rounds N] [--dir DIRECTORY]

A disk of mixed data (a third random, a third text that repeats, a third never written) is converted raw to VDI, raw to
QCOW2 and VMDK to QCOW2 with `lodge-convert` (bench/convert.c: block_copy() of the product) and with `qemu-img convert`,
in turns, each going first every other time. Before each run memory is touched and given back: on a virtual host the first
use of a page costs several times what copying to it does, and would be paid by whoever comes first. Printed are the medians and the ratio; above 1 Lodge is faster. Two ways: without waiting for the disk at the end
(qemu-img's default), and with (`-t writeback`, and fdatasync here).
"""
import argparse
import mmap
import os
import random
import statistics
import subprocess
import sys
import time


def mixed(path, mib, seed=1):
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(mib << 20)
        for at in range(0, mib, 4):
            kind = rng.randrange(3)
            if kind == 2:
                continue
            f.seek(at << 20)
            if kind == 0:
                f.write(os.urandom(4 << 20))
            else:
                line = (f"{rng.random()} the quick brown fox\n" * 4096).encode()
                f.write((line * ((4 << 20) // len(line) + 1))[: 4 << 20])


def touch(mib):
    if os.fork() == 0:
        try:
            mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        finally:
            os._exit(0)
    os.wait()


def once(args, out, mib):
    if os.path.exists(out):
        os.unlink(out)
    touch(mib)
    begin, cpu = time.monotonic(), os.times()
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (time.monotonic() - begin,
            after.children_user + after.children_system - cpu.children_user - cpu.children_system)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--size", type=int, default=4096, help="MiB")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--dir", default="/tmp")
    a = p.parse_args()
    work = os.path.join(a.dir, f"lodge-bench-convert-{os.getpid()}")
    os.mkdir(work)
    try:
        raw, vmdk = os.path.join(work, "a.raw"), os.path.join(work, "a.vmdk")
        mixed(raw, a.size)
        subprocess.run(["qemu-img", "convert", "-O", "vmdk", raw, vmdk], check=True)
        tool = os.path.join(a.out, "bench", "convert")
        print(f"{a.size} MiB of mixed data, median of {a.rounds} rounds in turns")
        bad = False
        for sync in (False, True):
            for src, src_format, to in ((raw, "raw", "vdi"), (raw, "raw", "qcow2"), (vmdk, "vmdk", "qcow2")):
                out = os.path.join(work, "out." + to)
                ours, theirs = [], []
                cache = ["-t", "writeback"] if sync else []
                sides = [(ours, [tool, src, src_format, out, to, "sync" if sync else "nosync"]),
                         (theirs, ["qemu-img", "convert", *cache, "-f", src_format, "-O", to, src, out])]
                for n in range(a.rounds):
                    for times, args in sides if n % 2 == 0 else sides[::-1]:
                        times.append(once(args, out, a.size))
                subprocess.run([tool, src, src_format, out + "2", to, "sync"], check=True)
                if subprocess.run(["qemu-img", "compare", "-q", out + "2", src]).returncode:
                    print("  the copies differ")
                    bad = True
                os.unlink(out + "2")
                m, t = (statistics.median(x[0] for x in side) for side in (ours, theirs))
                mc, tc = (statistics.median(x[1] for x in side) for side in (ours, theirs))
                print(f"  {src_format:>5} -> {to:<6} {'on disk' if sync else 'written'}: lodge {m:6.2f} s"
                      f"  qemu-img {t:6.2f} s  ratio {t / m:4.2f}"
                      f"   processor {mc:5.2f} s, {tc:5.2f} s")
                os.unlink(out)
        return bad
    finally:
        subprocess.run(["rm", "-rf", work])


sys.exit(main())
